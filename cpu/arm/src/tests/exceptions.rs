//! Exception routing, traps and returns (DDI 0487 D1.3, D1.4, D24.2).

use super::{Bench, config};
use crate::bits::{hcr, mdcr, pstate, scr, sctlr};
use crate::config::Feature;
use crate::hooks::Pin;
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::sysreg::enc;
use rhea_ir::guest::{Guest, Poll, request};

const IL: u64 = 1 << 25;
const VIRTUAL: u64 = hcr::RW | hcr::API | hcr::APK;

fn bench(highest: u32) -> Bench {
    let mut b = Bench::new(config(highest));
    for (r, v) in [(Reg::VbarEl1, 0x1000), (Reg::VbarEl2, 0x2000), (Reg::VbarEl3, 0x3000)] {
        b[r] = v;
    }
    if b.has(Feature::El2) {
        b[Reg::HcrEl2] = VIRTUAL;
    }
    if b.has(Feature::El3) {
        b[Reg::ScrEl3] |= scr::API | scr::APK;
    }
    b.header.pc = 0x4000;
    b
}
/// Where the processor is: level and pc.
fn place(b: &Bench) -> (u32, u64) {
    (b.el(), b.header.pc)
}

/// Table D1-10 and what follows: which level a physical interrupt goes to, and whether PSTATE masks it.
#[test]
fn interrupt_routing() {
    // SCR_EL3.IRQ, HCR_EL2: IMO, TGE, E2H; the level; PSTATE.I; who takes it (0: nobody).
    let cases: &[(bool, u64, u32, bool, u32)] = &[
        (false, 0, 0, false, 1),
        (false, 0, 1, false, 1),
        (false, 0, 1, true, 0),
        (false, 0, 2, false, 0),
        (false, hcr::IMO, 0, true, 2),
        (false, hcr::IMO, 1, true, 2),
        (false, hcr::IMO, 2, false, 2),
        (false, hcr::IMO, 2, true, 0),
        (false, hcr::TGE, 0, true, 2),
        (false, hcr::TGE | hcr::E2H, 0, false, 2),
        (false, hcr::TGE | hcr::E2H, 0, true, 0),
        (true, hcr::IMO, 1, true, 3),
        (true, hcr::IMO, 2, true, 3),
        (true, 0, 3, false, 3),
        (true, 0, 3, true, 0),
        (false, hcr::IMO, 3, false, 0),
    ];
    for &(to3, h, el, masked, taker) in cases {
        let mut b = bench(3);
        b[Reg::HcrEl2] |= h;
        b[Reg::ScrEl3] |= if to3 { scr::IRQ } else { 0 };
        b.at(el);
        b.header.pc = 0x4000;
        b.pstate |= if masked { pstate::I } else { 0 };
        b.pins().set(Pin::Irq, true);
        assert!(matches!(b.poll(), Poll::Run));
        let group = if taker == el { 0x280 } else { 0x480 };
        let expected = if taker == 0 { (el, 0x4000) } else { (taker, u64::from(taker) << 12 | group) };
        assert_eq!(place(&b), expected, "SCR.IRQ {to3} HCR {h:#x} EL{el} masked {masked}");
        if taker != 0 {
            let (elr, spsr) = (b.sys[Reg::ElrEl1.of_el(taker)], b.sys[Reg::SpsrEl1.of_el(taker)] as u32);
            assert_eq!((elr, spsr >> 2 & 3, spsr & pstate::I != 0), (0x4000, el, masked));
            assert_eq!(b.pstate & pstate::DAIF, pstate::DAIF);
        }
    }
}

#[test]
fn virtual_interrupts() {
    let mut b = bench(2);
    b[Reg::HcrEl2] |= hcr::IMO | hcr::FMO | hcr::AMO | hcr::VI;
    b.at(1);
    b.pstate |= pstate::I;
    b.poll();
    assert_eq!(place(&b), (1, 0x4000), "masked");
    b.pstate &= !pstate::I;
    b.poll();
    assert_eq!(place(&b), (1, 0x1280));
    // The same by the pin; not at EL2; not under TGE.
    b[Reg::HcrEl2] &= !hcr::VI;
    b.pins().set(Pin::Vfiq, true);
    b.at(2);
    b.poll();
    assert_eq!(b.el(), 2);
    b.at(0);
    b[Reg::HcrEl2] |= hcr::TGE;
    b.poll();
    assert_eq!(b.el(), 0);
    b[Reg::HcrEl2] &= !hcr::TGE;
    b.poll();
    assert_eq!(place(&b), (1, 0x1500));
    // A virtual SError is taken once.
    b.at(1);
    b.pins().set(Pin::Vfiq, false);
    b[Reg::HcrEl2] |= hcr::VSE;
    b.poll();
    assert_eq!((place(&b), b[Reg::EsrEl1] >> 26, b[Reg::HcrEl2] & hcr::VSE), ((1, 0x1380), 0x2f, 0));
}

/// PSTATE.I cleared in place by generated code is noticed by a slot; clearing it by the register too asks for `poll`.
#[test]
fn unmasking_delivers() {
    let mut b = bench(1);
    b.at(1);
    b.pstate |= pstate::I;
    b.pins().set(Pin::Irq, true);
    b.poll();
    assert_eq!((b.el(), b.interrupt_waits), (1, 1));
    b.header.exit_request.clear_all();
    assert!(b.msr_immediate(0b011_111, 2));
    assert_eq!(b.header.exit_request.load(std::sync::atomic::Ordering::SeqCst), request::INTERRUPT);
    b.poll();
    assert_eq!(b.header.pc, 0x1280);
    b.pins().set(Pin::Irq, false);
    b.note_unmasked();
    assert_eq!(b.interrupt_waits, 0);
}

#[test]
fn calls() {
    // SVC to EL1, under TGE to EL2; the syndrome has the immediate, the return address is the next instruction.
    let mut b = bench(3);
    b.at(0);
    b.svc(0x1234);
    assert_eq!((place(&b), b[Reg::EsrEl1], b[Reg::ElrEl1]), ((1, 0x1400), 0x15 << 26 | IL | 0x1234, 0x4004));
    b.at(0);
    b[Reg::HcrEl2] |= hcr::TGE;
    b.header.pc = 0x4000;
    b.svc(7);
    assert_eq!((place(&b), b[Reg::EsrEl2]), ((2, 0x2400), 0x15 << 26 | IL | 7));
    b[Reg::HcrEl2] = VIRTUAL;
    // HVC from EL1; undefined without SCR_EL3.HCE.
    b.at(1);
    b.header.pc = 0x4000;
    b.hvc(9);
    assert_eq!((place(&b), b[Reg::EsrEl2], b[Reg::ElrEl2]), ((2, 0x2400), 0x16 << 26 | IL | 9, 0x4004));
    b.at(1);
    b[Reg::ScrEl3] &= !scr::HCE;
    b.hvc(9);
    assert_eq!((b.el(), b[Reg::EsrEl1]), (1, IL));
    // SMC: trapped by TSC to EL2 with its own address, else to EL3, undefined under SMD.
    b.at(1);
    b.header.pc = 0x4000;
    b[Reg::HcrEl2] |= hcr::TSC;
    b.smc(3);
    assert_eq!((b.el(), b[Reg::EsrEl2], b[Reg::ElrEl2]), (2, 0x17 << 26 | IL | 3, 0x4000));
    b[Reg::HcrEl2] = VIRTUAL;
    b.at(1);
    b.header.pc = 0x4000;
    b.smc(3);
    assert_eq!((place(&b), b[Reg::EsrEl3], b[Reg::ElrEl3]), ((3, 0x3400), 0x17 << 26 | IL | 3, 0x4004));
    b.at(1);
    b[Reg::ScrEl3] |= scr::SMD;
    b.smc(3);
    assert_eq!((b.el(), b[Reg::EsrEl1]), (1, IL));
    // BRK goes to EL2 with MDCR_EL2.TDE.
    b.at(0);
    b[Reg::MdcrEl2] |= mdcr::TDE;
    b.brk(5);
    assert_eq!((b.el(), b[Reg::EsrEl2]), (2, 0x3c << 26 | IL | 5));
}

/// EC 0x18 with the register, its number and direction.
fn sysreg_trap(e: u16, rt: u32, read: bool) -> u64 {
    let e = u64::from(e);
    let iss = (e >> 14) << 20
        | (e & 7) << 17
        | (e >> 11 & 7) << 14
        | (e >> 7 & 15) << 10
        | (rt as u64) << 5
        | (e >> 3 & 15) << 1;
    0x18 << 26 | IL | iss | u64::from(read)
}

#[test]
fn hypervisor_traps() {
    let sctlr = enc(3, 0, 1, 0, 0);
    let mmfr0 = enc(3, 0, 0, 7, 0);
    let cases: &[(u64, u16, bool)] = &[
        (hcr::TVM, sctlr, false),
        (hcr::TRVM, sctlr, true),
        (hcr::TID3, mmfr0, true),
        (hcr::TID3, enc(3, 0, 0, 5, 5), true),
        (hcr::TID1, enc(3, 0, 0, 0, 6), true),
        (hcr::TID2, enc(3, 3, 0, 0, 1), true),
        (hcr::TID2, enc(3, 1, 0, 0, 1), true),
        (hcr::TID4, enc(3, 1, 0, 0, 0), true),
        (hcr::TACR, enc(3, 0, 1, 0, 1), true),
        (hcr::TSW, enc(1, 0, 7, 14, 2), false),
        (hcr::TPCP, enc(1, 3, 7, 10, 1), false),
        (hcr::TPU, enc(1, 0, 7, 5, 0), false),
        (hcr::TTLB, enc(1, 0, 8, 7, 0), false),
        (hcr::TTLBIS, enc(1, 0, 8, 3, 0), false),
        (hcr::TTLBOS, enc(1, 0, 8, 1, 0), false),
        (hcr::TIDCP, enc(3, 0, 15, 9, 3), true),
        (hcr::TLOR, enc(3, 0, 10, 4, 7), true),
    ];
    for &(bit, e, read) in cases {
        let mut b = bench(2);
        b.at(1);
        b.header.pc = 0x4000;
        let access = |b: &mut Bench| if read { b.read_sysreg(e, 5).is_some() } else { b.write_sysreg(e, 5, 0) };
        if bit != hcr::TIDCP {
            assert!(access(&mut b), "{bit:#x} is clear");
        }
        b[Reg::HcrEl2] |= bit;
        b.at(1);
        b.header.pc = 0x4000;
        assert!(!access(&mut b));
        assert_eq!(
            (place(&b), b[Reg::EsrEl2], b[Reg::ElrEl2]),
            ((2, 0x2400), sysreg_trap(e, 5, read), 0x4000),
            "{bit:#x}"
        );
        // Not at EL2 itself.
        if bit != hcr::TIDCP {
            b.at(2);
            assert!(access(&mut b));
        }
    }
    // Keys need APK; the mode says which levels trap PAC instructions.
    let mut b = bench(2);
    b[Reg::HcrEl2] = hcr::RW;
    b.at(1);
    assert_eq!(ArmMode(b.header.mode).pac_trap_el(), 2);
    assert!(!b.write_sysreg(enc(3, 0, 2, 1, 0), 0, 1));
    assert_eq!(b.el(), 2);
    // WFI and WFE.
    for (bit, kind) in [(hcr::TWI, 0), (hcr::TWE, 1)] {
        let mut b = bench(2);
        b[Reg::HcrEl2] |= bit;
        b.at(1);
        assert!(b.wfx_traps(kind, None));
        assert_eq!(b[Reg::EsrEl2], 1 << 26 | IL | 1 << 24 | 0xe << 20 | kind);
    }
    // FP by CPTR_EL2, by CPACR_EL1 first.
    let mut b = bench(2);
    b[Reg::CptrEl2] |= 1 << 10;
    b.at(0);
    b.fp_trap();
    assert_eq!((b.el(), b[Reg::EsrEl1] >> 26), (1, 7));
    b[Reg::CpacrEl1] = 3 << 20;
    b.at(0);
    b.fp_trap();
    assert_eq!((b.el(), b[Reg::EsrEl2] >> 26), (2, 7));
}

#[test]
fn controls_of_el0() {
    let mut b = bench(1);
    b[Reg::SctlrEl1] &= !(sctlr::UMA | sctlr::UCT | sctlr::UCI | sctlr::DZE | sctlr::NTWI);
    for (e, read) in [
        (enc(3, 3, 4, 2, 1), true),
        (enc(3, 3, 0, 0, 1), true),
        (enc(1, 3, 7, 5, 1), false),
        (enc(1, 3, 7, 4, 1), false),
        (enc(3, 3, 14, 0, 2), true),
        (enc(3, 3, 14, 3, 1), true),
        (enc(3, 3, 9, 13, 0), true),
    ] {
        b.at(0);
        b.header.pc = 0x4000;
        let done = if read { b.read_sysreg(e, 3).is_some() } else { b.write_sysreg(e, 3, 0) };
        assert!(!done);
        assert_eq!((place(&b), b[Reg::EsrEl1]), ((1, 0x1400), sysreg_trap(e, 3, read)), "{e:#x}");
    }
    b.at(0);
    assert!(b.wfx_traps(0, None));
    // Registers of EL1 are undefined, but ID registers trap with FEAT_IDST.
    b.at(0);
    assert_eq!((b.read_sysreg(enc(3, 0, 1, 0, 0), 0), b[Reg::EsrEl1]), (None, IL));
    b.at(0);
    assert_eq!((b.read_sysreg(enc(3, 0, 0, 4, 0), 0), b[Reg::EsrEl1] >> 26), (None, 0x18));
}

#[test]
fn returns() {
    let mut b = bench(3);
    let spsr = |el: u64, sp: u64| el << 2 | sp;
    // From EL2 to EL1, with flags and masks.
    b.at(2);
    b[Reg::ElrEl2] = 0x8000;
    b[Reg::SpsrEl2] = spsr(1, 1) | 0xa << 28 | u64::from(pstate::I | pstate::PAN);
    let elr = b[Reg::ElrEl2];
    b.exception_return(elr);
    assert_eq!((place(&b), b.spsr()), ((1, 0x8000), 0xa000_0000 | pstate::I | pstate::PAN | 5));
    assert_eq!(ArmMode(b.header.mode).mmu_idx(), mmu::E10_1_PAN);
    // Illegal ones: to a higher level, reserved M, AArch32, EL1 under TGE, SP_EL0 form of EL0. PSTATE.IL is set, the level stays.
    for (v, tge) in [(spsr(3, 1), false), (0b0110, false), (0x10, false), (spsr(1, 1), true), (0b0001, false)] {
        let mut b = bench(3);
        b[Reg::HcrEl2] |= if tge { hcr::TGE } else { 0 };
        b.at(2);
        b[Reg::SpsrEl2] = v;
        b.exception_return(0x8000);
        assert_eq!((place(&b), b.pstate & pstate::IL), ((2, 0x8000), pstate::IL), "{v:#x}");
        assert!(ArmMode(b.header.mode).il());
    }
    // Tags of the return address go where the regime ignores them.
    let mut b = bench(1);
    b[Reg::TcrEl1] = 1 << 37;
    b.at(1);
    b[Reg::SpsrEl1] = 0;
    b.exception_return(0x5a00_0000_0000_1000);
    assert_eq!(place(&b), (0, 0x1000));
}

/// What an exception does to PSTATE: SPAN, DSSBS, and where the stack pointers go.
#[test]
fn entry_state() {
    let mut b = bench(1);
    b[Reg::SctlrEl1] &= !sctlr::SPAN;
    b[Reg::SctlrEl1] |= sctlr::DSSBS;
    b.at(0);
    b.sp = 0x10;
    b.write_sp_el(1, 0x20);
    b.pstate |= pstate::UAO | pstate::DIT | pstate::SS | pstate::IL;
    b.btype = 2;
    b.svc(0);
    let kept = pstate::PAN | pstate::SSBS | pstate::DIT;
    assert_eq!(b.pstate, pstate::DAIF | 5 | kept);
    assert_eq!((b.sp, b.read_sp_el(0), b.btype), (0x20, 0x10, 0));
    assert_eq!(b[Reg::SpsrEl1] as u32, pstate::UAO | pstate::DIT | pstate::SS | pstate::IL | 2 << 10);
    assert_eq!(ArmMode(b.header.mode).mmu_idx(), mmu::E10_1_PAN);
    // From EL1 with SP_EL0: the first group of vectors.
    b.set_pstate(1 << 2);
    b.undefined();
    assert_eq!(b.header.pc, 0x1000);
}

/// External aborts: SCR_EL3.EA, HCR_EL2.TEA.
#[test]
fn external_aborts() {
    use rhea_ir::guest::{Access, MemAccess};
    let access = MemAccess { va: 0x9000, size: 4, kind: Access::Write, mmu_idx: mmu::E10_1 };
    for (ea, tea, taker) in [(false, false, 1), (false, true, 2), (true, true, 3)] {
        let mut b = bench(3);
        b[Reg::ScrEl3] |= if ea { scr::EA } else { 0 };
        b[Reg::HcrEl2] |= if tea { hcr::TEA } else { 0 };
        b.at(1);
        b.bus_fault(access);
        let class = if taker == 1 { 0x25 } else { 0x24 };
        assert_eq!((b.el(), b.sys[Reg::EsrEl1.of_el(taker)]), (taker, class << 26 | IL | 1 << 6 | 0x10));
        assert_eq!(b.sys[Reg::FarEl1.of_el(taker)], 0x9000);
    }
}

/// Mode words kept by level follow every register they come from.
/// A jump to a misaligned address is a PC alignment fault even where nothing is mapped.
#[test]
fn wild_jumps() {
    use crate::syndrome::ec;
    use rhea_ir::guest::Access;
    let mut b = bench(1);
    for (pc, class) in [(0xffff_0000_0000_1002, ec::PC_ALIGNMENT), (0xffff_0000_0000_1000, ec::INSN_ABORT)] {
        b.stage1_on(0x10 | 0x10 << 16 | 2 << 30, 0x10_0000);
        b.at(1);
        b.header.pc = pc;
        assert!(b.walk(pc, Access::Fetch, mmu::E10_1).is_err());
        assert_eq!(b[Reg::EsrEl1] >> 26, class, "{pc:#x}");
        assert_eq!(b[Reg::FarEl1], pc);
    }
}

#[test]
fn modes_follow_registers() {
    let mut b = bench(3);
    let fresh = |b: &mut Bench| {
        let kept = b.header.mode;
        b.rebuild_mode();
        assert_eq!(kept, b.header.mode);
        kept
    };
    let mut last = 0;
    let writes = [
        (enc(3, 0, 1, 0, 0), sctlr::SA | sctlr::A | sctlr::ENIA),
        (enc(3, 0, 1, 0, 2), 3 << 20),
        (enc(3, 0, 2, 0, 2), 1 << 37 | 16),
        (enc(2, 0, 0, 2, 2), 1),
        (enc(2, 0, 0, 2, 2), 0),
        (enc(3, 3, 4, 4, 0), 3 << 22),
        (enc(3, 4, 1, 1, 0), hcr::TVM | hcr::RW),
        (enc(3, 4, 1, 1, 2), 1 << 10),
        (enc(3, 6, 1, 1, 2), 1 << 10),
        (enc(3, 4, 1, 1, 0), hcr::E2H | hcr::RW),
        (enc(3, 6, 1, 1, 0), 1),
    ];
    for (e, v) in writes {
        for el in [0, 1, 2, 1] {
            b.at(el);
            fresh(&mut b);
        }
        let el = if e >> 11 & 7 == 6 {
            3
        } else if e >> 11 & 7 == 4 {
            2
        } else {
            1
        };
        b.at(el);
        assert!(b.write_sysreg(e, 0, v), "{e:#x}");
        fresh(&mut b);
        for el in [1, 0] {
            b.set_pstate(el << 2 | el.min(1));
            b.refresh_mode();
            last = fresh(&mut b);
        }
    }
    assert_ne!(last, 0);
    // PSTATE's part.
    b.at(1);
    for p in [pstate::PAN, pstate::UAO, pstate::IL, pstate::PAN | pstate::UAO, 0] {
        b.set_pstate(1 << 2 | 1 | p);
        b.refresh_mode();
        let mode = ArmMode(fresh(&mut b));
        assert_eq!(mode.mmu_idx(), if p & pstate::PAN != 0 { mmu::E10_1_PAN } else { mmu::E10_1 });
        assert_eq!(mode.unpriv_idx(), if p & pstate::UAO != 0 { mode.mmu_idx() } else { mmu::E10_0 });
        assert_eq!((mode.il(), mode.sp_sel()), (p & pstate::IL != 0, true));
    }
}
