//! Self-hosted debug: software step, breakpoints, watchpoints (DDI 0487 D2).

use super::{Bench, config};
use crate::bits::{hcr, mdcr, mdscr, pstate};
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::sysreg::enc;
use rhea_ir::guest::{Access, MemAccess};

const IL: u64 = 1 << 25;

fn bench() -> Bench {
    let mut b = Bench::new(config(2));
    b[Reg::HcrEl2] = hcr::RW;
    (b[Reg::VbarEl1], b[Reg::VbarEl2]) = (0x1000, 0x2000);
    b[Reg::OslarEl1] = 0;
    b
}
fn write(b: &mut Bench, e: u16, v: u64) {
    let p = b.pstate;
    b.at(1);
    assert!(b.write_sysreg(e, 0, v));
    b.set_pstate(p);
    b.refresh_mode();
}

#[test]
fn software_step() {
    let mut b = bench();
    b[Reg::MdscrEl1] = mdscr::SS;
    b.at(0);
    assert!(ArmMode(b.header.mode).single_step());
    // From EL1 only with KDE and D clear.
    for (kde, d, on) in [(false, false, false), (true, true, false), (true, false, true)] {
        b[Reg::MdscrEl1] = mdscr::SS | if kde { mdscr::KDE } else { 0 };
        b.at(1);
        b.set_pstate(5 | if d { pstate::D } else { 0 });
        b.refresh_mode();
        assert_eq!(ArmMode(b.header.mode).single_step(), on, "{kde} {d}");
    }
    // A return to EL0 with SPSR.SS lets one instruction through.
    b[Reg::MdscrEl1] = mdscr::SS;
    b.at(1);
    b[Reg::SpsrEl1] = pstate::SS.into();
    b.exception_return(0x4000);
    assert_ne!(b.pstate & pstate::SS, 0);
    b.step_check();
    assert_eq!((b.el(), b.pstate & pstate::SS, b.header.raised), (0, 0, 0));
    b.header.pc = 0x4004;
    b.step_check();
    assert_eq!((b.el(), b.header.pc, b[Reg::ElrEl1]), (1, 0x1400, 0x4004));
    assert_eq!(b[Reg::EsrEl1], 0x32 << 26 | IL | 1 << 24 | 0x22);
    // Without SPSR.SS at once.
    b[Reg::SpsrEl1] = 0;
    b.header.raised = 0;
    b.exception_return(0x4000);
    b.step_check();
    assert_eq!((b.el(), b[Reg::ElrEl1]), (1, 0x4000));
    // The OS lock turns it off; MDCR_EL2.TDE sends it to EL2.
    b[Reg::OslarEl1] = 1;
    b.at(0);
    assert!(!ArmMode(b.header.mode).single_step());
    b[Reg::OslarEl1] = 0;
    b[Reg::MdcrEl2] |= mdcr::TDE;
    b.at(1);
    assert!(ArmMode(b.header.mode).single_step());
    b.step_check();
    assert_eq!((b.el(), b[Reg::EsrEl2] >> 26), (2, 0x32));
}

const BVR0: u16 = enc(2, 0, 0, 0, 4);
const BCR0: u16 = enc(2, 0, 0, 0, 5);
const WVR0: u16 = enc(2, 0, 0, 0, 6);
const WCR0: u16 = enc(2, 0, 0, 0, 7);

#[test]
fn breakpoints() {
    let mut b = bench();
    b[Reg::MdscrEl1] = mdscr::MDE | mdscr::KDE;
    let n = |k: u16| k << 3;
    let hit = |b: &mut Bench, el: u32, pc: u64| {
        b.at(el);
        b.header.pc = pc;
        assert!(ArmMode(b.header.mode).breakpoints());
        b.breakpoint_check();
        b.header.raised != 0
    };
    write(&mut b, BVR0, 0x4000);
    // Enabled, EL0 only.
    write(&mut b, BCR0, 1 | 2 << 1 | 0xf << 5);
    assert!(hit(&mut b, 0, 0x4000));
    assert_eq!((b.header.pc, b[Reg::ElrEl1], b[Reg::EsrEl1]), (0x1400, 0x4000, 0x30 << 26 | IL | 0x22));
    assert!(!hit(&mut b, 0, 0x4004));
    assert!(!hit(&mut b, 1, 0x4000));
    // EL1: the class of the same level; not while D masks it.
    write(&mut b, BCR0, 1 | 1 << 1 | 0xf << 5);
    assert!(hit(&mut b, 1, 0x4000));
    assert_eq!(b[Reg::EsrEl1] >> 26, 0x31);
    b.set_pstate(5 | pstate::D);
    b.refresh_mode();
    b.header.raised = 0;
    b.header.pc = 0x4000;
    b.breakpoint_check();
    assert_eq!(b.header.raised, 0);
    // Linked to a context breakpoint: CONTEXTIDR must match too.
    let context = b.config.breakpoints as u16 - 1;
    write(&mut b, BVR0 + n(context), 0x77);
    write(&mut b, BCR0 + n(context), 1 | 3 << 1 | 0xf << 5 | 3 << 20);
    write(&mut b, BCR0, 1 | 3 << 1 | 0xf << 5 | u64::from(context) << 16 | 1 << 20);
    assert!(!hit(&mut b, 0, 0x4000));
    b[Reg::ContextidrEl1] = 0x77;
    assert!(hit(&mut b, 0, 0x4000));
    // MDE off: none.
    write(&mut b, enc(2, 0, 0, 2, 2), 0);
    b.at(0);
    assert!(!ArmMode(b.header.mode).breakpoints());
}

#[test]
fn watchpoints() {
    let mut b = bench();
    b[Reg::MdscrEl1] = mdscr::MDE;
    let hit = |b: &mut Bench, va: u64, size: u32, kind| {
        b.at(0);
        b.header.pc = 0x4000;
        let raised = b.watch_check(MemAccess { va, size, kind, mmu_idx: mmu::E10_0 }).is_err();
        raised.then(|| (b[Reg::FarEl1], b[Reg::EsrEl1]))
    };
    write(&mut b, WVR0, 0x8000);
    // Bytes 2 and 3, loads and stores of EL0.
    write(&mut b, WCR0, 1 | 2 << 1 | 3 << 3 | 0b1100 << 5);
    assert!(b.page_is_watched(0x8000) && !b.page_is_watched(0x9000));
    let esr = 0x34 << 26 | IL | 0x22;
    assert_eq!(hit(&mut b, 0x8002, 2, Access::Read), Some((0x8002, esr)));
    assert_eq!(hit(&mut b, 0x8003, 1, Access::Write), Some((0x8003, esr | 1 << 6)));
    assert_eq!(hit(&mut b, 0x8000, 2, Access::Read), None);
    assert_eq!(hit(&mut b, 0x8004, 8, Access::Read), None);
    // An access that begins before what is watched.
    assert!(hit(&mut b, 0x7ffc, 8, Access::Write).is_some());
    // Stores only; then a range of 4 KiB by mask; then EL1 only.
    write(&mut b, WCR0, 1 | 2 << 1 | 2 << 3 | 0xff << 5);
    assert_eq!(hit(&mut b, 0x8000, 4, Access::Read), None);
    assert!(hit(&mut b, 0x8000, 4, Access::Write).is_some());
    write(&mut b, WCR0, 1 | 2 << 1 | 3 << 3 | 0xff << 5 | 12 << 24);
    assert!(hit(&mut b, 0x8ff0, 4, Access::Read).is_some());
    assert_eq!(hit(&mut b, 0x9000, 4, Access::Read), None);
    write(&mut b, WCR0, 1 | 1 << 1 | 3 << 3 | 0xff << 5);
    assert_eq!(hit(&mut b, 0x8000, 4, Access::Read), None);
    // LDTR at EL1 counts as EL0.
    write(&mut b, WCR0, 1 | 2 << 1 | 3 << 3 | 0xff << 5);
    b[Reg::MdscrEl1] |= mdscr::KDE;
    b.at(1);
    let access = |idx| MemAccess { va: 0x8000, size: 4, kind: Access::Read, mmu_idx: idx };
    assert!(b.watch_check(access(mmu::E10_1)).is_ok());
    assert!(b.watch_check(access(mmu::E10_0)).is_err());
    assert_eq!(b[Reg::EsrEl1] >> 26, 0x35);
}
