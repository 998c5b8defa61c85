//! What CR0 does to x87 and MMX instructions; a program cannot set it, so the host has no say.

use super::board::{Board, Engine};
use super::state::{State, Test};

const MP: u64 = 1 << 1;
const EM: u64 = 1 << 2;
const TS: u64 = 1 << 3;
const NE: u64 = 1 << 5;

fn vector(board: &mut Board, code: &[u8], state: State) -> u32 {
    let mut t = Test { code: code.to_vec(), bits: 64, state, undefined: 0, ever_undefined: 0 };
    t.state.r[4] = super::state::STACK_WINDOW + 256;
    board.run_all(&[t])[0].vector
}

#[test]
fn not_available() {
    const FLD1: &[u8] = &[0xd9, 0xe8];
    const FNINIT: &[u8] = &[0xdb, 0xe3];
    const FWAIT: &[u8] = &[0x9b];
    const PADDB: &[u8] = &[0x0f, 0xfc, 0xc1];
    const EMMS: &[u8] = &[0x0f, 0x77];
    let mut b = Board::new(Engine::Blocks);
    for (cr0, code, expected) in [
        ((TS, 0), FLD1, 7),
        ((TS, 0), FNINIT, 7),
        ((EM, 0), FLD1, 7),
        ((TS, 0), FWAIT, 7),
        ((TS, MP), FWAIT, 3),
        ((EM, 0), FWAIT, 3),
        ((TS, 0), PADDB, 7),
        ((EM, 0), PADDB, 6),
        ((EM | TS, 0), EMMS, 6),
        ((0, 0), EMMS, 3),
    ] {
        b.cr0 = cr0;
        assert_eq!(vector(&mut b, code, State::default()), expected, "{code:x?} under {cr0:x?}");
    }
}

#[test]
fn error_line() {
    // Zero divide is not masked, and was raised.
    let state = State { fcw: 0x37b, fsw: 0x8084, ..State::default() };
    let mut b = Board::new(Engine::Blocks);
    // FLD1 waits; FNCLEX does not.
    assert_eq!(vector(&mut b, &[0xd9, 0xe8], state), 16);
    assert_eq!(b.ferr(), (false, false));
    assert_eq!(vector(&mut b, &[0xdb, 0xe2, 0xd9, 0xe8], state), 3);
    b.cr0 = (0, NE);
    b.ignore_errors(true);
    assert_eq!(vector(&mut b, &[0xd9, 0xe8], state), 3);
    assert_eq!(b.ferr(), (true, true));
    assert_eq!(vector(&mut b, &[0x9b, 0xdb, 0xe2], state), 3);
    assert_eq!(b.ferr(), (true, false));
}
