use super::*;
use crate::exception::Exception;
use crate::hooks::pin;
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
    assert_eq!(b.get(0x3_0000 + 0x8000 + 0x7efc, 4), 0x2_0064);
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
