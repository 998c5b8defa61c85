//! Interrupts of all kinds in real mode.

use crate::asm::*;
use crate::board::{CEDE, CIABR, DOORBELL, EXTERNAL, RESET, Run, SET_LPCR, START, WATCH, call, say};
use crate::{EE, MSR};

const ILLEGAL: u64 = 1 << 19;
const PRIVILEGED: u64 = 1 << 18;
const TRAPPED: u64 = 1 << 17;

/// Puts instructions together and gives the address of each part.
fn parts(parts: &[&[u32]]) -> (Vec<u32>, Vec<u64>) {
    let mut at = vec![];
    let mut all: Vec<u32> = vec![];
    for p in parts {
        at.push(START + 4 * all.len() as u64);
        all.extend(*p);
    }
    (all, at)
}

#[test]
fn of_instructions() {
    let misaligned = load(6, START + 2);
    let nowhere = load(7, 0x4000_0000);
    let (program, at) = parts(&[
        &[0],
        &[TRAP],
        &[sc(0), NOP],
        &[0xfc00_002a], // fadd 0,0,0
        &[4 << 26 | 1028],
        &[60 << 26 | 154 << 3],
        &[mfspr(5, 318)],                 // LPCR
        &[mfspr(5, 1000), mtspr(809, 5)], // absent, reserved
        &[mtspr(0, 5)],
        &misaligned,
        &[x31(20, 5, 0, 6)], // lwarx
        &nowhere,
        &[ld(5, 8, 7)],
        &[x31(306, 0, 2, 5)],   // tlbie
        &[19 << 26 | 274 << 1], // hrfid
        &[0x7c00_051d],         // tbegin.
    ]);
    Run::default().interrupts(
        &program,
        &[
            [0x700, at[0], MSR | ILLEGAL, 0, 0],
            [0x700, at[1], MSR | TRAPPED, 0, 0],
            [0xc00, at[2] + 4, MSR, 0, 0],
            [0x800, at[3], MSR, 0, 0],
            [0xf20, at[4], MSR, 0, 0],
            [0xf40, at[5], MSR, 0, 0],
            [0x700, at[6], MSR | PRIVILEGED, 0, 0],
            [0x700, at[8], MSR | ILLEGAL, 0, 0],
            [0x600, at[10], MSR, START + 2, 0],
            [0x200, at[12], MSR | 0x0020_0000, 0x4000_0008, 0x8000],
            [0x700, at[13], MSR | PRIVILEGED, 0, 0],
            [0x700, at[14], MSR | PRIVILEGED, 0, 0],
            [0xf60, at[15], MSR, 0, 0],
        ],
    );
}

#[test]
fn in_little_endian_mode() {
    // ILE is not set: handlers run big-endian, so only what needs none works without; with it they are little-endian.
    let run = Run { little: true, lpcr: 1 << 25, ..Run::default() };
    run.interrupts(&[0, TRAP], &[[0x700, START, MSR | ILLEGAL | 1, 0, 0], [0x700, START + 4, MSR | TRAPPED | 1, 0, 0]]);
}

#[test]
fn from_outside() {
    let enable = load(8, EE);
    let before = load(9, 0xffff_ffff); // the decrementer: −1
    let (program, at) = parts(&[
        &enable,
        &[li(4, 1)],
        &call(EXTERNAL),
        &call(DOORBELL),
        // The external interrupt, then the doorbell; each handler skips one instruction.
        &[mtmsrd(8, 1), NOP, NOP, NOP],
        &before,
        &[mtspr(22, 9), NOP, NOP, NOP, NOP],
        &call(RESET),
        &[NOP, NOP],
    ]);
    let on = MSR | EE;
    Run::default().check(&program, |said, _, _| {
        let vectors: Vec<u64> = said.chunks(5).map(|c| c[0]).collect();
        assert_eq!(vectors, [0x500, 0xa00, 0x900, 0x100], "{said:#x?}");
        assert_eq!(said[1], at[4] + 4);
        assert!(said.chunks(5).all(|c| c[2] == on));
    });
}

#[test]
fn idle_until_the_decrementer() {
    let soon = load(9, 512_000); // a millisecond
    let mut program = soon;
    // The time base first: what passes between the two counts.
    program.extend([mfspr(10, 268), mtspr(22, 9)]);
    program.extend(call(CEDE));
    program.extend([NOP, mfspr(11, 268), x31(40, 11, 10, 11)]);
    program.extend(say(11));
    Run::default().check(&program, |said, _, _| {
        assert_eq!(said[0], 0x900, "{said:#x?}");
        assert!((500_000..100_000_000).contains(&said[5]), "{} ticks", said[5]);
    });
}

#[test]
fn decrementer_interrupts_a_loop() {
    let soon = load(9, 51_200);
    let enable = load(8, EE);
    let resume = START + 4 * 23;
    let mut program = [soon, enable, load(25, resume), load(26, MSR)].concat();
    program.extend([mtspr(22, 9), mtmsrd(8, 1), SPIN]);
    assert_eq!(START + 4 * program.len() as u64, resume);
    program.extend([li(5, 77)]);
    program.extend(say(5));
    Run::default().check(&program, |said, _, _| {
        assert_eq!(said, [0x900, resume - 4, MSR | EE, 0, 0, 77]);
    });
}

#[test]
fn large_decrementer() {
    let lpcr = 1 << 17;
    let mut program = load(9, 1 << 40);
    program.extend([mtspr(22, 9), mfspr(10, 22)]);
    program.extend(say(10));
    program.push(li(4, 0));
    program.extend(call(SET_LPCR));
    program.extend([mfspr(10, 22)]);
    program.extend(say(10));
    Run { lpcr, ..Run::default() }.check(&program, |said, _, _| {
        assert!(said[0] <= 1 << 40 && said[0] > (1 << 40) - (1 << 36), "{:#x}", said[0]);
        assert!(said[1] < 1 << 32);
    });
}

#[test]
fn system_call_vectored() {
    // At 0x17000 + 0x20 × level.
    let handler = [&[mfspr(20, 8)][..], &say(20), &[mfspr(20, 9)], &say(20), &[RFSCV]].concat();
    let run =
        Run { code: vec![(0x1_7000 + 0x20 * 3, vec![b(0x1_7060, 0x1_8000)]), (0x1_8000, handler)], ..Run::default() };
    let (program, at) = parts(&[&[scv(3)], &[li(5, 5)], &say(5)]);
    run.check(&program, |said, _, _| assert_eq!(said, [at[1], MSR, 5]));
}

#[test]
fn single_steps() {
    let se = load(8, MSR | 0x400);
    let off = load(9, MSR);
    let (program, at) = parts(&[&se, &[mtmsrd(8, 0)], &[NOP, NOP, NOP, NOP, NOP, NOP], &off, &[mtmsrd(9, 0), NOP]]);
    Run::default().check(&program, |said, _, _| {
        let seen: Vec<(u64, u64)> = said.chunks(5).map(|c| (c[0], c[1])).collect();
        // Handlers skip an instruction each time; SRR0 is the next instruction.
        assert_eq!(&seen[..3], [(0xd00, at[2] + 4), (0xd00, at[2] + 12), (0xd00, at[2] + 20)]);
        assert_eq!(said[2], MSR | 0x400 | 1 << 30);
    });
}

#[test]
fn addresses_watched() {
    let at = load(4, START + 0x1000);
    let data = load(6, START + 0x1000);
    // Privileged, translation ignored, stores.
    let control = load(5, 0x4a);
    let (program, place) = parts(&[
        &at,
        &control,
        &call(WATCH),
        &data,
        &[ld(7, 0, 6), std(7, 8, 6), std(7, 0, 6)],
        &load(4, START + 4 * 28 + 2),
        &call(CIABR),
        &[NOP, li(5, 1), NOP, NOP, li(5, 3)],
        &say(5),
    ]);
    assert_eq!(START + 4 * 28, place[7] + 4);
    Run::default().interrupts(
        &program,
        &[
            [0x300, place[4] + 8, MSR, START + 0x1000, 0x0240_0000],
            [0xd00, place[7] + 8, MSR | 1 << 30 | 1 << 20, 0, 0],
            [3, 0, 0, 0, 0],
        ],
    );
}

#[test]
fn registers() {
    let ones = load(5, u64::MAX);
    let mut program = ones;
    let each =
        [(18, 0xffff_ffff), (256, 0xffff_ffff), (273, u64::MAX), (17, 0x01ff_ffff), (815, u64::MAX), (896, 7 << 50)];
    for (n, _) in each {
        program.extend([mtspr(n, 5), mfspr(6, n)]);
        program.extend(say(6));
    }
    program.push(mfspr(6, 287));
    program.extend(say(6));
    program.push(mfspr(6, 898));
    program.extend(say(6));
    Run::default().check(&program, |said, _, _| {
        let want: Vec<u64> = each.iter().map(|e| e.1).chain([0x004e_1202, 7 << 18]).collect();
        assert_eq!(said, want);
    });
}

#[test]
fn doorbells_of_the_core() {
    let (program, _) = parts(&[
        &load(5, 5 << 27),
        &load(8, EE),
        &[mtmsrd(8, 1), x31(142, 0, 0, 5), NOP, NOP, NOP, NOP],
        &[mtmsrd(0, 1), x31(142, 0, 0, 5), x31(174, 0, 0, 5), mtmsrd(8, 1), NOP, NOP],
    ]);
    Run::default().check(&program, |said, _, _| {
        let vectors: Vec<u64> = said.chunks(5).map(|c| c[0]).collect();
        assert_eq!(vectors, [0xa00], "{said:#x?}");
    });
}

/// MSR.BE reports branches alone.
#[test]
fn branch_trace() {
    let (program, at) =
        parts(&[&load(8, MSR | 0x200), &load(9, MSR), &[mtmsrd(8, 0), NOP, NOP, b(0, 8), NOP, NOP, NOP, mtmsrd(9, 0)]]);
    Run::default().check(&program, |said, _, _| {
        assert_eq!(said.len(), 5, "{said:#x?}");
        assert_eq!((said[0], said[1], said[2] & 0x4000_0200), (0xd00, at[2] + 20, 0x4000_0200));
    });
}

/// Hashed tables and radix trees have their vectors at 0x18000 with AIL 2 only where translation is on.
#[test]
fn location_of_handlers_in_real_mode() {
    for ail in [2u64, 3] {
        Run { lpcr: ail << 23, ..Run::default() }.interrupts(&[TRAP], &[[0x700, START, MSR | TRAPPED, 0, 0]]);
    }
}

/// FPSCR.FEX with MSR.FE0 and FE1 off: the interrupt is due when they come on.
#[test]
fn pending_floating_point_interrupt() {
    let zero_divide = [
        63 << 26 | 27 << 21 | 38 << 1, // mtfsb1 27 (ZE)
        63 << 26 | 5 << 21 | 38 << 1,  // mtfsb1 5 (ZX)
    ];
    let (program, at) = parts(&[
        // A handler that returned to MSR as it was would have the interrupt again.
        &[load(25, START + 4 * 24), load(26, MSR), load(8, MSR | 0x2000)].concat(),
        &[mtmsrd(8, 0)],
        &zero_divide,
        &load(9, MSR | 0x2900),
        &[mtmsrd(9, 0), NOP, NOP],
    ]);
    assert_eq!(at[4] + 4, START + 4 * 24);
    Run::default().interrupts(&program, &[[0x700, at[4] + 4, MSR | 0x2900 | 1 << 20 | 1 << 16, 0, 0]]);
}
