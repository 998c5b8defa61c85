use super::*;
use crate::exception::Exception;
use crate::hooks::pin;
use crate::smm::IoSmi;
use rhea_ir::guest::{Guest, Poll};

/// The state that RSM must give back.
type Kept = ([u64; 16], u64, u64, u64, u64, u64, u32, u32, [Segment; 6], u64, u64);
fn kept(b: &Bench) -> Kept {
    let (c0, c3, c4) = (b.cr0, b.cr3, b.cr4);
    (b.r, c0, c3, c4, b.efer, b.header.pc, b.rflags(), b.cpl(), b.seg, b.header.mode, b.idtr.base)
}

fn round_trip(mut b: Bench) {
    b.r = std::array::from_fn(|n| if b.is_long() { 0x1_0000_0001 * n as u64 } else { n as u64 });
    b.set_rflags(0x247);
    let before = kept(&b);
    b.pins().signal(pin::SMI);
    assert_eq!(b.poll(), Poll::Run);
    assert!(b.in_smm() && b.cpl() == 0 && b.cr0 & (cr0::PE | cr0::PG) == 0);
    assert_eq!((b.header.pc, b.eip(), b.segment(Seg::Cs).selector), (0x3_8000, 0x8000, 0x3000));
    assert_eq!(b.segment(Seg::Ds).limit, u32::MAX);
    // Neither nests.
    b.pins().signal(pin::SMI | pin::NMI);
    assert_eq!(b.poll(), Poll::Run);
    assert_eq!(b.header.pc, 0x3_8000);
    b.pins().clear(pin::SMI | pin::NMI);
    let n = if b.has(F::Lm) { 16 } else { 8 };
    b.r[..n].fill(7);
    b.idtr.base = 7;
    b.rsm().unwrap();
    assert_eq!(kept(&b), before);
    assert_eq!(b.hooks.smm.load(Ordering::SeqCst), 1 | 1 << 32);
    assert!(!b.nmi_blocked);
}

#[test]
fn every_mode_comes_back() {
    round_trip(Bench::real());
    round_trip(Bench::protected(0));
    round_trip(Bench::protected(3));
    round_trip(Bench::long(0));
    round_trip(Bench::long(3));
    let mut c = config(Vendor::Intel);
    c.set(F::Lm, false);
    c.finish();
    let mut b = Bench::protected(3);
    b.config = std::sync::Arc::new(c);
    round_trip(b);
}

#[test]
fn relocation_and_halt() {
    let mut b = Bench::protected(0);
    b.hlt(1).unwrap();
    b.pins().signal(pin::SMI);
    b.poll();
    assert_eq!(b.get(0x3_0000 + 0x8000 + 0x7efc, 4), 0x3_0064);
    assert_eq!(b.get(0x3_0000 + 0x8000 + 0x7ec9, 1), 1);
    b.put(0x3_0000 + 0x8000 + 0x7f00, 4, 0xa_0000);
    b.rsm().unwrap();
    assert!(b.halted() && b.smbase == 0xa_0000);
    assert_eq!(b.eip(), 0x8001);
    assert_eq!(b.poll(), Poll::Halt(None));
    b.pins().signal(pin::SMI);
    b.poll();
    assert_eq!(b.header.pc, 0xa_8000);
    b.put(0xa_0000 + 0x8000 + 0x7ec9, 1, 0);
    // An impossible state is shutdown.
    b.put(0xa_0000 + 0x8000 + 0x7f58, 8, cr0::PG);
    b.rsm().unwrap();
    assert_eq!(b.shutdowns(), 1);
    assert_eq!(Bench::real().rsm(), Err(Exception::ud()));
}

/// OUT 0xb2, AL, which makes an SMI pending; its address is the Bench's.
fn out_with_smi(b: &mut Bench) {
    let pc = b.header.pc;
    b.put(pc, 2, 0xb2e6);
    b.pins().signal(pin::SMI);
    b.note_io(|c| IoSmi {
        at: [0; 2],
        rip: c.eip(),
        rcx: c.r[gpr::RCX as usize],
        rsi: 2,
        rdi: 3,
        port: 0xb2,
        size: 1,
        input: false,
        string: false,
        rep: false,
    });
    b.header.pc = pc + 2;
    b.poll();
    assert!(b.in_smm());
}

#[test]
fn io_instructions_are_restarted() {
    const MAP: u64 = 0x3_0000 + 0x8000;
    let mut b = Bench::long(0);
    let pc = b.header.pc;
    b.r[1] = 77;
    out_with_smi(&mut b);
    assert_eq!([0x7ea0, 0x7ea8, 0x7eb0, 0x7eb8].map(|at| b.get(MAP + at, 8)), [pc, 77, 2, 3]);
    assert_eq!((b.get(MAP + 0x7ec0, 4), b.get(MAP + 0x7f78, 8)), (0xb2_0012, pc + 2));
    // Not asked for, then asked for.
    b.rsm().unwrap();
    assert_eq!(b.header.pc, pc + 2);
    b.header.pc = pc;
    out_with_smi(&mut b);
    b.put(MAP + 0x7ec8, 1, 0xff);
    b.rsm().unwrap();
    assert_eq!((b.header.pc, b.r[1], b.r[6], b.r[7]), (pc, 77, 2, 3));
    // An SMI that comes elsewhere has none.
    b.pins().signal(pin::SMI);
    b.poll();
    assert_eq!((b.get(MAP + 0x7ec0, 4), b.get(MAP + 0x7ec8, 1)), (0, 0));
    // The map without long mode.
    let mut c = config(Vendor::Intel);
    c.set(F::Lm, false);
    c.finish();
    let mut b = Bench::protected(0);
    b.config = std::sync::Arc::new(c);
    out_with_smi(&mut b);
    assert_eq!(b.get(MAP + 0x7fa4, 4), 0xb2_0003);
    b.put(MAP + 0x7f00, 2, 0xff);
    b.rsm().unwrap();
    assert_eq!(b.eip(), 0x8000);
}
