//! System registers: the views of EL2 with E2H, timers, performance monitors (DDI 0487 D8.6, D12, D13).

use super::{Bench, config};
use crate::bits::{hcr, pstate};
use crate::config::Feature;
use crate::hooks::ArmHooks;
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::sysreg::{Plain, enc, plain};
use crate::timer::{FREQUENCY_HZ, TimerId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const NS_PER_TICK: u64 = 1_000_000_000 / FREQUENCY_HZ;

fn read(b: &mut Bench, e: u16) -> Option<u64> {
    b.header.raised = 0;
    b.read_sysreg(e, 0)
}

/// With E2H the names of EL1 reach the registers of EL2 at EL2, those with the suffix EL12 the ones of EL1.
#[test]
fn host_views() {
    let pairs = [
        (enc(3, 0, 1, 0, 0), Reg::SctlrEl1, Reg::SctlrEl2),
        (enc(3, 0, 2, 0, 0), Reg::Ttbr0El1, Reg::Ttbr0El2),
        (enc(3, 0, 2, 0, 1), Reg::Ttbr1El1, Reg::Ttbr1El2),
        (enc(3, 0, 2, 0, 2), Reg::TcrEl1, Reg::TcrEl2),
        (enc(3, 0, 4, 0, 0), Reg::SpsrEl1, Reg::SpsrEl2),
        (enc(3, 0, 4, 0, 1), Reg::ElrEl1, Reg::ElrEl2),
        (enc(3, 0, 5, 2, 0), Reg::EsrEl1, Reg::EsrEl2),
        (enc(3, 0, 6, 0, 0), Reg::FarEl1, Reg::FarEl2),
        (enc(3, 0, 10, 2, 0), Reg::MairEl1, Reg::MairEl2),
        (enc(3, 0, 12, 0, 0), Reg::VbarEl1, Reg::VbarEl2),
        (enc(3, 0, 13, 0, 1), Reg::ContextidrEl1, Reg::ContextidrEl2),
        (enc(3, 0, 1, 0, 2), Reg::CpacrEl1, Reg::CptrEl2),
        (enc(3, 0, 14, 1, 0), Reg::CntkctlEl1, Reg::CnthctlEl2),
    ];
    let mut b = Bench::new(config(2));
    for (n, (e, one, two)) in pairs.into_iter().enumerate() {
        let n = n as u64;
        let alias = e | 5 << 11;
        for (e2h, el, value, alias_value) in [
            (false, 1, Some(0x100 + n), None),
            (false, 2, Some(0x100 + n), None),
            (true, 1, Some(0x100 + n), None),
            (true, 2, Some(0x200 + n), Some(0x100 + n)),
        ] {
            b[Reg::HcrEl2] = hcr::RW | if e2h { hcr::E2H } else { 0 };
            (b[one], b[two]) = (0x100 + n, 0x200 + n);
            b.at(el);
            assert_eq!(read(&mut b, e), value, "{e:#x} {e2h} {el}");
            // Generated code goes to the same place.
            if let Some(Plain::Slot(slot, _)) = plain(&b.config.clone(), ArmMode(b.header.mode), e, false) {
                let there = if value == Some(0x200 + n) { two } else { one };
                assert_eq!(slot, crate::state::slots::sys(there));
            }
            b.at(el);
            assert_eq!(read(&mut b, alias), alias_value, "{alias:#x} {e2h} {el}");
        }
    }
}

/// Every plain access gives what the access by the helper gives.
#[test]
fn plain_accesses_agree() {
    for highest in 1..=3 {
        for (el, h) in [(1, 0), (1, hcr::TVM | hcr::TRVM), (1, hcr::TID3), (2, 0), (2, hcr::E2H), (3, 0), (0, 0)] {
            if el > highest || (h != 0 && highest < 2) {
                continue;
            }
            let mut b = Bench::new(config(highest));
            for r in 0..Reg::COUNT {
                b.sys[r] ^= 0x10 * r as u64;
            }
            b[Reg::HcrEl2] = hcr::RW | h;
            b.sp_el = [0x11, 0x22, 0x33, 0x44];
            let c = b.config.clone();
            let mut seen = 0;
            for e in 0..=u16::MAX {
                b.at(el);
                let before = b.header.mode;
                let Some(p) = plain(&c, ArmMode(b.header.mode), e, false) else { continue };
                seen += 1;
                let Some(v) = b.read_sysreg(e, 0) else { panic!("{e:#x} at EL{el} traps") };
                match p {
                    Plain::Const(k) => assert_eq!(k, v, "{e:#x} at EL{el}"),
                    Plain::Key(_) => panic!("a read of {e:#x} writes a key"),
                    Plain::Pstate(bits) => assert_eq!(u64::from(b.pstate & bits), v),
                    Plain::Slot(slot, _) => {
                        assert_eq!(rhea_ir::raw::read_slot(&*b.cpu, slot) as u64, v, "{e:#x} at EL{el}")
                    }
                }
                assert_eq!(b.header.mode, before);
                if let Some(Plain::Key(which)) = plain(&c, ArmMode(b.header.mode), e, true) {
                    assert!(b.write_sysreg(e, 0, 0x77), "{e:#x}");
                    assert_eq!(b.keys[which as usize / 2][which as usize % 2], 0x77);
                }
                if let Some(Plain::Slot(slot, mask)) = plain(&c, ArmMode(b.header.mode), e, true) {
                    assert!(b.write_sysreg(e, 0, 0x1234_5678_9abc_def0), "{e:#x}");
                    assert_eq!(rhea_ir::raw::read_slot(&*b.cpu, slot) as u64, 0x1234_5678_9abc_def0 & mask, "{e:#x}");
                    assert_eq!((b.header.mode, b.flushes.len()), (before, 1), "{e:#x} has consequences");
                }
            }
            assert!(
                seen > if el == 0 {
                    1
                } else if h == 0 {
                    40
                } else {
                    10
                },
                "{seen} at EL{el}"
            );
        }
    }
}

#[test]
fn counters_and_timers() {
    let mut b = Bench::new(config(2));
    b[Reg::CntkctlEl1] = 0x303;
    b.clock.set_ns(1000 * NS_PER_TICK);
    b.at(2);
    assert!(b.write_sysreg(enc(3, 4, 14, 0, 3), 0, 400));
    let (pct, vct) = (enc(3, 3, 14, 0, 1), enc(3, 3, 14, 0, 2));
    // CNTVOFF counts for the virtual counter, but not in a host.
    assert_eq!((read(&mut b, pct), read(&mut b, vct)), (Some(1000), Some(600)));
    b[Reg::HcrEl2] |= hcr::E2H;
    b.at(2);
    assert_eq!(read(&mut b, vct), Some(1000));
    b[Reg::HcrEl2] |= hcr::TGE;
    b[Reg::CnthctlEl2] = 0xfff;
    b.at(0);
    assert_eq!(read(&mut b, vct), Some(1000));
    b[Reg::HcrEl2] = hcr::RW;
    b.at(0);
    assert_eq!(read(&mut b, vct), Some(600));
    // The virtual timer compares with the virtual count, EL2's with the physical one.
    let timer = |op1: u16, crm: u16, op2: u16| enc(3, op1, 14, crm, op2);
    b.at(2);
    for (op1, crm, due, later) in [(3, 3, 600, 601), (3, 2, 1000, 1001), (4, 2, 1000, 1001), (4, 3, 1000, 1001)] {
        assert!(b.write_sysreg(timer(op1, crm, 2), 0, due));
        assert!(b.write_sysreg(timer(op1, crm, 1), 0, 1));
        assert_eq!(read(&mut b, timer(op1, crm, 1)), Some(5), "{op1} {crm}");
        assert_eq!(read(&mut b, timer(op1, crm, 0)), Some(0));
        assert!(b.write_sysreg(timer(op1, crm, 2), 0, later));
        assert_eq!(read(&mut b, timer(op1, crm, 1)), Some(1));
        assert_eq!(read(&mut b, timer(op1, crm, 0)), Some(1));
    }
    // With E2H the names of the EL1 timers are EL2's, those of EL02 the EL1 timers.
    b[Reg::HcrEl2] = hcr::RW | hcr::E2H;
    b.at(2);
    assert!(b.write_sysreg(timer(3, 3, 2), 0, 77));
    assert!(b.write_sysreg(timer(5, 3, 2), 0, 88));
    assert_eq!((b.timers().cval(TimerId::HypVirtual), b.timers().cval(TimerId::Virtual)), (77, 88));
    // Traps of the physical timer and counter to EL2.
    b[Reg::HcrEl2] = hcr::RW;
    b[Reg::CnthctlEl2] = 0;
    for e in [pct, timer(3, 2, 1)] {
        b.at(1);
        assert_eq!((read(&mut b, e), b.el()), (None, 2));
    }
    b[Reg::CnthctlEl2] = 3;
    b.at(1);
    assert!(read(&mut b, pct).is_some());
    // The Secure timer: EL3, or Secure EL1 with SCR_EL3.ST.
    let mut b = Bench::new(config(3));
    for (ns, st, el, ok) in [(1, 0, 3, true), (1, 1, 1, false), (0, 0, 1, false), (0, 1, 1, true)] {
        b[Reg::ScrEl3] = 3 << 4 | 1 << 10 | ns | st << 11;
        b.at(el);
        assert_eq!(read(&mut b, enc(3, 7, 14, 2, 1)).is_some(), ok, "{ns} {st} {el}");
    }
}

#[derive(Default)]
struct Line(AtomicU32);
impl ArmHooks for Line {
    fn pmu_line(&self, _cpu: u32, level: bool) {
        self.0.store(level.into(), Ordering::SeqCst);
    }
}

#[test]
fn performance_monitors() {
    let line = Arc::new(Line::default());
    let mut b = Bench::with_hooks(config(1), line.clone());
    let pm = |crn: u16, crm: u16, op2: u16| enc(3, 3, crn, crm, op2);
    let (pmcr, set, clear) = (pm(9, 12, 0), pm(9, 12, 1), pm(9, 12, 2));
    let (ovsclr, swinc, ccntr, ccfiltr) = (pm(9, 12, 3), pm(9, 12, 4), pm(9, 13, 0), pm(14, 15, 7));
    let intenset = enc(3, 0, 9, 14, 1);
    let w = |b: &mut Bench, e, v| assert!(b.write_sysreg(e, 0, v), "{e:#x}");
    w(&mut b, pmcr, 1 | 1 << 6);
    w(&mut b, set, 1 << 31);
    b.clock.set_ns(500);
    assert_eq!(read(&mut b, ccntr), Some(500));
    // Not at EL1 with P; at EL0 all the same.
    w(&mut b, ccfiltr, 1 << 31);
    b.clock.set_ns(700);
    assert_eq!(read(&mut b, ccntr), Some(500));
    b[Reg::PmuserenrEl0] = 1;
    b.set_pstate(0);
    b.refresh_mode();
    b.clock.set_ns(1000);
    assert_eq!(read(&mut b, ccntr), Some(800));
    b.set_pstate(5);
    b.refresh_mode();
    b.clock.set_ns(2000);
    assert_eq!(read(&mut b, ccntr), Some(800), "brought up to date when the level changed");
    w(&mut b, clear, 1 << 31);
    // A software increment overflows into its odd neighbour and raises the line.
    w(&mut b, pm(14, 12, 0), 0);
    w(&mut b, pm(14, 12, 1), 0x1e);
    w(&mut b, pm(14, 8, 0), 0xffff_ffff);
    w(&mut b, set, 3);
    w(&mut b, intenset, 1);
    w(&mut b, swinc, 1);
    assert_eq!((read(&mut b, pm(14, 8, 0)), read(&mut b, pm(14, 8, 1))), (Some(0), Some(1)));
    assert_eq!((read(&mut b, ovsclr), line.0.load(Ordering::SeqCst)), (Some(1), 1));
    w(&mut b, ovsclr, 1);
    assert_eq!(line.0.load(Ordering::SeqCst), 0);
    // Counters that do not exist are undefined; PMCR.N is what an EL2 leaves.
    assert_eq!(read(&mut b, pm(14, 8, 7)), None);
    let mut b = Bench::new(config(2));
    b[Reg::MdcrEl2] = 4;
    b.at(1);
    assert_eq!(read(&mut b, pmcr).map(|v| v >> 11 & 31), Some(4));
    assert_eq!(read(&mut b, pm(14, 8, 4)), None);
    b.at(2);
    assert_eq!(read(&mut b, pmcr).map(|v| v >> 11 & 31), Some(6));
}

/// Entering and leaving the same guest flushes nothing; another kind of guest, and another E2H, do.
#[test]
fn world_switches() {
    use rhea_ir::guest::{Guest, TlbFlush};
    let mut b = Bench::new(config(2));
    let hcr_el2 = enc(3, 4, 1, 1, 0);
    let host = hcr::RW | hcr::E2H | hcr::TGE;
    let guest = hcr::RW | hcr::E2H | hcr::VM | hcr::IMO;
    b.take_flushes();
    let mut write = |v: u64| {
        b.at(2);
        assert!(b.write_sysreg(hcr_el2, 0, v));
        b.take_flushes().into_iter().map(|f| f.0).collect::<Vec<_>>()
    };
    let (e2, e10) = (TlbFlush::Indexes(mmu::MASK_E2 | mmu::MASK_E20), TlbFlush::Indexes(mmu::MASK_E10));
    assert_eq!(write(host), [e2]);
    assert_eq!(write(guest), [e10]);
    assert_eq!(write(host), []);
    assert_eq!(write(guest), []);
    assert_eq!(write(guest | hcr::TVM), []);
    assert_eq!(write(host), []);
    assert_eq!(write(guest | hcr::DC), [e10]);
    assert_eq!(write(guest & !hcr::E2H), [e2, e10]);
    assert_eq!(write(hcr::RW), [e10]);
}

/// MIDR and MPIDR of a guest, identification without an EL2, EL2's registers seen from EL3 without one.
#[test]
fn identification() {
    let (midr, mpidr) = (enc(3, 0, 0, 0, 0), enc(3, 0, 0, 0, 5));
    let mut b = Bench::new(config(2));
    (b[Reg::VpidrEl2], b[Reg::VmpidrEl2]) = (0x1111, 0x2222);
    let own = (Some(b.config.midr), Some(b.config.mpidr(0)));
    b.at(1);
    assert_eq!((read(&mut b, midr), read(&mut b, mpidr)), (Some(0x1111), Some(0x2222)));
    b.at(2);
    assert_eq!((read(&mut b, midr), read(&mut b, mpidr)), own);
    let mut b = Bench::new(config(1));
    assert_eq!((read(&mut b, midr), read(&mut b, mpidr)), own);
    let mut c = config(3);
    c.set(Feature::El2, false);
    let mut b = Bench::new(c);
    b.at(3);
    assert_eq!(read(&mut b, enc(3, 4, 1, 1, 0)), Some(0), "HCR_EL2");
    assert!(b.write_sysreg(enc(3, 4, 1, 1, 0), 0, u64::MAX));
    b.at(1);
    assert_eq!(b.hcr(), 0);
    assert_eq!(ArmMode(b.header.mode).mmu_idx(), mmu::E10_1);
    assert_eq!(b.pstate & pstate::PAN, 0);
}
