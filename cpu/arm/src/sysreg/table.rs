//! The table of system registers and instructions.

use super::levels::*;
use super::{F, Kind, Levels, RegDesc, T, TimerField, crm, enc, op1, op2};
use crate::config::{ArmConfig, Feature, ImpDef};
use crate::mmu::AtOp;
use crate::mmu::tlbi::{Of, Scope};
use crate::pmu::PmuReg;
use crate::reg::Reg;
use crate::timer::TimerId;

const ALL: u64 = u64::MAX;
const LOW: u64 = 0xffff_ffff;

type Encoding = (u16, u16, u16, u16, u16);

const fn r(name: &'static str, e: Encoding, levels: Levels, traps: &'static [T], kind: Kind) -> RegDesc {
    RegDesc { enc: enc(e.0, e.1, e.2, e.3, e.4), name, levels, feature: None, traps, kind }
}
/// The same, if the processor has a feature.
const fn rf(
    feature: Feature,
    name: &'static str,
    e: Encoding,
    levels: Levels,
    traps: &'static [T],
    kind: Kind,
) -> RegDesc {
    RegDesc { feature: Some(feature), ..r(name, e, levels, traps, kind) }
}
const fn f(fun: F) -> Kind {
    Kind::Fun(fun)
}
const fn at(el: u32, write: bool, both: bool, pan: bool) -> Kind {
    Kind::Fun(F::At(AtOp { el, write, both, pan }))
}
const fn timer(id: TimerId, field: TimerField) -> Kind {
    Kind::Fun(F::Timer(id, field))
}
const fn pmu(reg: PmuReg) -> Kind {
    Kind::Fun(F::Pmu(reg))
}

const TVM: &[T] = &[T::Tvm];
const ID3: &[T] = &[T::IdGroup3];
const PM: &[T] = &[T::Pm];
const DBG: &[T] = &[T::Tda];
const CVA: &[T] = &[T::Uci, T::Tpcp];
const PAU: &[T] = &[T::Uci, T::Tpu];
const KEYS: &[T] = &[T::Apk];

use Feature as Ft;
use TimerField::{Ctl, Cval, Tval};
use TimerId::{HypPhysical, HypVirtual, Physical, SecurePhysical, Virtual};

const REGISTERS: &[RegDesc] = &[
    // Instructions.
    r("IC IALLUIS", (1, 0, 7, 1, 0), PL1_W, &[T::Tpu, T::Ticab], f(F::InstructionCache)),
    r("IC IALLU", (1, 0, 7, 5, 0), PL1_W, &[T::Tpu], f(F::InstructionCache)),
    r("IC IVAU", (1, 3, 7, 5, 1), PL0_W, PAU, f(F::InstructionCache)),
    r("DC IVAC", (1, 0, 7, 6, 1), PL1_W, &[T::Tpcp], f(F::DataCache(true))),
    r("DC ISW", (1, 0, 7, 6, 2), PL1_W, &[T::Tsw], f(F::SetWay)),
    r("DC CSW", (1, 0, 7, 10, 2), PL1_W, &[T::Tsw], f(F::SetWay)),
    r("DC CISW", (1, 0, 7, 14, 2), PL1_W, &[T::Tsw], f(F::SetWay)),
    r("DC ZVA", (1, 3, 7, 4, 1), PL0_W, &[T::Zva], f(F::Zva)),
    r("DC CVAC", (1, 3, 7, 10, 1), PL0_W, CVA, f(F::DataCache(false))),
    r("DC CVAU", (1, 3, 7, 11, 1), PL0_W, PAU, f(F::DataCache(false))),
    rf(Ft::Dpb, "DC CVAP", (1, 3, 7, 12, 1), PL0_W, CVA, f(F::DataCache(false))),
    rf(Ft::Dpb2, "DC CVADP", (1, 3, 7, 13, 1), PL0_W, CVA, f(F::DataCache(false))),
    r("DC CIVAC", (1, 3, 7, 14, 1), PL0_W, CVA, f(F::DataCache(false))),
    r("AT S1E1R", (1, 0, 7, 8, 0), PL1_W, &[], at(1, false, false, false)),
    r("AT S1E1W", (1, 0, 7, 8, 1), PL1_W, &[], at(1, true, false, false)),
    r("AT S1E0R", (1, 0, 7, 8, 2), PL1_W, &[], at(0, false, false, false)),
    r("AT S1E0W", (1, 0, 7, 8, 3), PL1_W, &[], at(0, true, false, false)),
    rf(Ft::Pan2, "AT S1E1RP", (1, 0, 7, 9, 0), PL1_W, &[], at(1, false, false, true)),
    rf(Ft::Pan2, "AT S1E1WP", (1, 0, 7, 9, 1), PL1_W, &[], at(1, true, false, true)),
    rf(Ft::El2, "AT S1E2R", (1, 4, 7, 8, 0), PL2_W, &[T::El2On], at(2, false, false, false)),
    rf(Ft::El2, "AT S1E2W", (1, 4, 7, 8, 1), PL2_W, &[T::El2On], at(2, true, false, false)),
    rf(Ft::El2, "AT S12E1R", (1, 4, 7, 8, 4), PL2_W, &[], at(1, false, true, false)),
    rf(Ft::El2, "AT S12E1W", (1, 4, 7, 8, 5), PL2_W, &[], at(1, true, true, false)),
    rf(Ft::El2, "AT S12E0R", (1, 4, 7, 8, 6), PL2_W, &[], at(0, false, true, false)),
    rf(Ft::El2, "AT S12E0W", (1, 4, 7, 8, 7), PL2_W, &[], at(0, true, true, false)),
    r("AT S1E3R", (1, 6, 7, 8, 0), PL3_W, &[], at(3, false, false, false)),
    r("AT S1E3W", (1, 6, 7, 8, 1), PL3_W, &[], at(3, true, false, false)),
    // Debug.
    r("OSDTRRX_EL1", (2, 0, 0, 0, 2), PL1_RW, DBG, Kind::Store(Reg::Osdtrrx, LOW)),
    r("MDCCINT_EL1", (2, 0, 0, 2, 0), PL1_RW, DBG, Kind::Store(Reg::MdccintEl1, 0x6000_0000)),
    r("MDSCR_EL1", (2, 0, 0, 2, 2), PL1_RW, DBG, Kind::Store(Reg::MdscrEl1, 0xf001)),
    r("OSDTRTX_EL1", (2, 0, 0, 3, 2), PL1_RW, DBG, Kind::Store(Reg::Osdtrtx, LOW)),
    r("OSECCR_EL1", (2, 0, 0, 6, 2), PL1_RW, DBG, Kind::Store(Reg::OseccrEl1, LOW)),
    r("MDRAR_EL1", (2, 0, 1, 0, 0), PL1_R, &[T::Tdra], Kind::Const(0)),
    r("OSLAR_EL1", (2, 0, 1, 0, 4), PL1_W, &[T::Tdosa], f(F::Oslar)),
    r("OSLSR_EL1", (2, 0, 1, 1, 4), PL1_R, &[T::Tdosa], f(F::Oslsr)),
    r("OSDLR_EL1", (2, 0, 1, 3, 4), PL1_RW, &[T::Tdosa], Kind::Store(Reg::OsdlrEl1, 1)),
    r("DBGPRCR_EL1", (2, 0, 1, 4, 4), PL1_RW, &[T::Tdosa], Kind::Store(Reg::DbgprcrEl1, 1)),
    r("DBGCLAIMSET_EL1", (2, 0, 7, 8, 6), PL1_RW, DBG, f(F::ClaimSet)),
    r("DBGCLAIMCLR_EL1", (2, 0, 7, 9, 6), PL1_RW, DBG, f(F::ClaimClear)),
    r("DBGAUTHSTATUS_EL1", (2, 0, 7, 14, 6), PL1_R, DBG, Kind::Const(0xaa)),
    r("MDCCSR_EL0", (2, 3, 0, 1, 0), PL0_R, &[T::Tdcc], Kind::Const(0)),
    r("DBGDTR_EL0", (2, 3, 0, 4, 0), PL0_RW, &[T::Tdcc], Kind::Const(0)),
    r("DBGDTRRX_EL0", (2, 3, 0, 5, 0), PL0_RW, &[T::Tdcc], Kind::Const(0)),
    // Identification.
    r("MIDR_EL1", (3, 0, 0, 0, 0), PL1_R, &[], f(F::Midr)),
    r("MPIDR_EL1", (3, 0, 0, 0, 5), PL1_R, &[], f(F::Mpidr)),
    r("REVIDR_EL1", (3, 0, 0, 0, 6), PL1_R, &[T::IdGroup1], Kind::Const(0)),
    r("ID_AA64PFR0_EL1", (3, 0, 0, 4, 0), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64pfr0)),
    r("ID_AA64PFR1_EL1", (3, 0, 0, 4, 1), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64pfr1)),
    r("ID_AA64DFR0_EL1", (3, 0, 0, 5, 0), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64dfr0)),
    r("ID_AA64ISAR0_EL1", (3, 0, 0, 6, 0), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64isar0)),
    r("ID_AA64ISAR1_EL1", (3, 0, 0, 6, 1), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64isar1)),
    r("ID_AA64ISAR2_EL1", (3, 0, 0, 6, 2), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64isar2)),
    r("ID_AA64MMFR0_EL1", (3, 0, 0, 7, 0), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64mmfr0)),
    r("ID_AA64MMFR1_EL1", (3, 0, 0, 7, 1), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64mmfr1)),
    r("ID_AA64MMFR2_EL1", (3, 0, 0, 7, 2), PL1_R, ID3, Kind::Id(ArmConfig::id_aa64mmfr2)),
    r("CCSIDR_EL1", (3, 1, 0, 0, 0), PL1_R, &[T::CacheId], f(F::Ccsidr)),
    r("CLIDR_EL1", (3, 1, 0, 0, 1), PL1_R, &[T::CacheId], Kind::Id(ArmConfig::clidr)),
    rf(Ft::Ccidx, "CCSIDR2_EL1", (3, 1, 0, 0, 2), PL1_R, &[T::CacheId], Kind::Const(0)),
    r("AIDR_EL1", (3, 1, 0, 0, 7), PL1_R, &[T::IdGroup1], Kind::Const(0)),
    r("CSSELR_EL1", (3, 2, 0, 0, 0), PL1_RW, &[T::CacheId], Kind::Store(Reg::CsselrEl1, 0xf)),
    r("CTR_EL0", (3, 3, 0, 0, 1), PL0_R, &[T::Uct, T::IdGroup2], f(F::Ctr)),
    r("DCZID_EL0", (3, 3, 0, 0, 7), PL0_R, &[], f(F::Dczid)),
    r("VPIDR_EL2", (3, 4, 0, 0, 0), PL2_RW, &[], Kind::Store(Reg::VpidrEl2, LOW)),
    r("VMPIDR_EL2", (3, 4, 0, 0, 5), PL2_RW, &[], Kind::Store(Reg::VmpidrEl2, ALL)),
    // Control.
    r("SCTLR_EL1", (3, 0, 1, 0, 0), PL1_RW, TVM, Kind::Store(Reg::SctlrEl1, ALL)),
    r("ACTLR_EL1", (3, 0, 1, 0, 1), PL1_RW, &[T::Tacr], Kind::Const(0)),
    r("CPACR_EL1", (3, 0, 1, 0, 2), PL1_RW, &[T::Cpacr], Kind::Store(Reg::CpacrEl1, 3 << 20)),
    r("SCTLR_EL2", (3, 4, 1, 0, 0), PL2_RW, &[], Kind::Store(Reg::SctlrEl2, ALL)),
    r("ACTLR_EL2", (3, 4, 1, 0, 1), PL2_RW, &[], Kind::Const(0)),
    r("HCR_EL2", (3, 4, 1, 1, 0), PL2_RW, &[], Kind::Store(Reg::HcrEl2, ALL)),
    r("MDCR_EL2", (3, 4, 1, 1, 1), PL2_RW, &[T::Mdcr2], Kind::Store(Reg::MdcrEl2, 0xfff)),
    r("CPTR_EL2", (3, 4, 1, 1, 2), PL2_RW, &[T::Cptr2], Kind::Store(Reg::CptrEl2, ALL)),
    r("HSTR_EL2", (3, 4, 1, 1, 3), PL2_RW, &[], Kind::Store(Reg::HstrEl2, 0xffff)),
    r("HACR_EL2", (3, 4, 1, 1, 7), PL2_RW, &[], Kind::Const(0)),
    r("SCTLR_EL3", (3, 6, 1, 0, 0), PL3_RW, &[], Kind::Store(Reg::SctlrEl3, ALL)),
    r("ACTLR_EL3", (3, 6, 1, 0, 1), PL3_RW, &[], Kind::Const(0)),
    r("SCR_EL3", (3, 6, 1, 1, 0), PL3_RW, &[], Kind::Store(Reg::ScrEl3, ALL)),
    r("CPTR_EL3", (3, 6, 1, 1, 2), PL3_RW, &[], Kind::Store(Reg::CptrEl3, 1 << 31 | 1 << 10)),
    r(
        "MDCR_EL3",
        (3, 6, 1, 3, 1),
        PL3_RW,
        &[],
        Kind::Store(Reg::MdcrEl3, 1 << 17 | 1 << 16 | 1 << 10 | 1 << 9 | 1 << 6),
    ),
    // Translation.
    r("TTBR0_EL1", (3, 0, 2, 0, 0), PL1_RW, TVM, Kind::Store(Reg::Ttbr0El1, ALL)),
    r("TTBR1_EL1", (3, 0, 2, 0, 1), PL1_RW, TVM, Kind::Store(Reg::Ttbr1El1, ALL)),
    r("TCR_EL1", (3, 0, 2, 0, 2), PL1_RW, TVM, Kind::Store(Reg::TcrEl1, ALL)),
    r("TTBR0_EL2", (3, 4, 2, 0, 0), PL2_RW, &[], Kind::Store(Reg::Ttbr0El2, ALL)),
    rf(Ft::Vhe, "TTBR1_EL2", (3, 4, 2, 0, 1), PL2_RW, &[], Kind::Store(Reg::Ttbr1El2, ALL)),
    r("TCR_EL2", (3, 4, 2, 0, 2), PL2_RW, &[], Kind::Store(Reg::TcrEl2, ALL)),
    r("VTTBR_EL2", (3, 4, 2, 1, 0), PL2_RW, &[], Kind::Store(Reg::VttbrEl2, ALL)),
    r("VTCR_EL2", (3, 4, 2, 1, 2), PL2_RW, &[], Kind::Store(Reg::VtcrEl2, ALL)),
    r("TTBR0_EL3", (3, 6, 2, 0, 0), PL3_RW, &[], Kind::Store(Reg::Ttbr0El3, ALL)),
    r("TCR_EL3", (3, 6, 2, 0, 2), PL3_RW, &[], Kind::Store(Reg::TcrEl3, ALL)),
    r("MAIR_EL1", (3, 0, 10, 2, 0), PL1_RW, TVM, Kind::Store(Reg::MairEl1, ALL)),
    r("AMAIR_EL1", (3, 0, 10, 3, 0), PL1_RW, TVM, Kind::Const(0)),
    r("MAIR_EL2", (3, 4, 10, 2, 0), PL2_RW, &[], Kind::Store(Reg::MairEl2, ALL)),
    r("AMAIR_EL2", (3, 4, 10, 3, 0), PL2_RW, &[], Kind::Const(0)),
    r("MAIR_EL3", (3, 6, 10, 2, 0), PL3_RW, &[], Kind::Store(Reg::MairEl3, ALL)),
    r("AMAIR_EL3", (3, 6, 10, 3, 0), PL3_RW, &[], Kind::Const(0)),
    // No LORegions are implemented (LORID_EL1 = 0): the others are RES0.
    rf(Ft::Lor, "LORSA_EL1", (3, 0, 10, 4, 0), PL1_RW, &[T::Lor], Kind::Const(0)),
    rf(Ft::Lor, "LOREA_EL1", (3, 0, 10, 4, 1), PL1_RW, &[T::Lor], Kind::Const(0)),
    rf(Ft::Lor, "LORN_EL1", (3, 0, 10, 4, 2), PL1_RW, &[T::Lor], Kind::Const(0)),
    rf(Ft::Lor, "LORC_EL1", (3, 0, 10, 4, 3), PL1_RW, &[T::Lor], Kind::Const(0)),
    rf(Ft::Lor, "LORID_EL1", (3, 0, 10, 4, 7), PL1_R, &[T::Tlor], Kind::Const(0)),
    r("PAR_EL1", (3, 0, 7, 4, 0), PL1_RW, &[], Kind::Store(Reg::ParEl1, ALL)),
    // Exceptions.
    r("AFSR0_EL1", (3, 0, 5, 1, 0), PL1_RW, TVM, Kind::Const(0)),
    r("AFSR1_EL1", (3, 0, 5, 1, 1), PL1_RW, TVM, Kind::Const(0)),
    r("ESR_EL1", (3, 0, 5, 2, 0), PL1_RW, TVM, Kind::Store(Reg::EsrEl1, LOW)),
    r("FAR_EL1", (3, 0, 6, 0, 0), PL1_RW, TVM, Kind::Store(Reg::FarEl1, ALL)),
    r("AFSR0_EL2", (3, 4, 5, 1, 0), PL2_RW, &[], Kind::Const(0)),
    r("AFSR1_EL2", (3, 4, 5, 1, 1), PL2_RW, &[], Kind::Const(0)),
    r("ESR_EL2", (3, 4, 5, 2, 0), PL2_RW, &[], Kind::Store(Reg::EsrEl2, LOW)),
    r("FAR_EL2", (3, 4, 6, 0, 0), PL2_RW, &[], Kind::Store(Reg::FarEl2, ALL)),
    r("HPFAR_EL2", (3, 4, 6, 0, 4), PL2_RW, &[], Kind::Store(Reg::HpfarEl2, 0x0000_0fff_ffff_fff0)),
    r("AFSR0_EL3", (3, 6, 5, 1, 0), PL3_RW, &[], Kind::Const(0)),
    r("AFSR1_EL3", (3, 6, 5, 1, 1), PL3_RW, &[], Kind::Const(0)),
    r("ESR_EL3", (3, 6, 5, 2, 0), PL3_RW, &[], Kind::Store(Reg::EsrEl3, LOW)),
    r("FAR_EL3", (3, 6, 6, 0, 0), PL3_RW, &[], Kind::Store(Reg::FarEl3, ALL)),
    r("VBAR_EL1", (3, 0, 12, 0, 0), PL1_RW, &[], Kind::Store(Reg::VbarEl1, !0x7ff)),
    r("RVBAR_EL1", (3, 0, 12, 0, 1), PL1_R, &[], f(F::Rvbar(1))),
    r("ISR_EL1", (3, 0, 12, 1, 0), PL1_R, &[], f(F::Isr)),
    r("VBAR_EL2", (3, 4, 12, 0, 0), PL2_RW, &[], Kind::Store(Reg::VbarEl2, !0x7ff)),
    r("RVBAR_EL2", (3, 4, 12, 0, 1), PL2_R, &[], f(F::Rvbar(2))),
    r("VBAR_EL3", (3, 6, 12, 0, 0), PL3_RW, &[], Kind::Store(Reg::VbarEl3, !0x7ff)),
    r("RVBAR_EL3", (3, 6, 12, 0, 1), PL3_R, &[], f(F::Rvbar(3))),
    r("SPSR_EL1", (3, 0, 4, 0, 0), PL1_RW, &[], Kind::Store(Reg::SpsrEl1, LOW)),
    r("ELR_EL1", (3, 0, 4, 0, 1), PL1_RW, &[], Kind::Store(Reg::ElrEl1, ALL)),
    r("SP_EL0", (3, 0, 4, 1, 0), PL1_RW, &[], f(F::SpEl(0))),
    r("SPSR_EL2", (3, 4, 4, 0, 0), PL2_RW, &[], Kind::Store(Reg::SpsrEl2, LOW)),
    r("ELR_EL2", (3, 4, 4, 0, 1), PL2_RW, &[], Kind::Store(Reg::ElrEl2, ALL)),
    r("SP_EL1", (3, 4, 4, 1, 0), PL2_RW, &[], f(F::SpEl(1))),
    r("SPSR_irq", (3, 4, 4, 3, 0), PL2_RW, &[], Kind::Const(0)),
    r("SPSR_abt", (3, 4, 4, 3, 1), PL2_RW, &[], Kind::Const(0)),
    r("SPSR_und", (3, 4, 4, 3, 2), PL2_RW, &[], Kind::Const(0)),
    r("SPSR_fiq", (3, 4, 4, 3, 3), PL2_RW, &[], Kind::Const(0)),
    r("SPSR_EL3", (3, 6, 4, 0, 0), PL3_RW, &[], Kind::Store(Reg::SpsrEl3, LOW)),
    r("ELR_EL3", (3, 6, 4, 0, 1), PL3_RW, &[], Kind::Store(Reg::ElrEl3, ALL)),
    r("SP_EL2", (3, 6, 4, 1, 0), PL3_RW, &[], f(F::SpEl(2))),
    // PSTATE and FP.
    r("SPSel", (3, 0, 4, 2, 0), PL1_RW, &[], f(F::SpSel)),
    r("CurrentEL", (3, 0, 4, 2, 2), PL1_R, &[], f(F::CurrentEl)),
    rf(Ft::Pan, "PAN", (3, 0, 4, 2, 3), PL1_RW, &[], f(F::Pan)),
    rf(Ft::Uao, "UAO", (3, 0, 4, 2, 4), PL1_RW, &[], f(F::Uao)),
    r("NZCV", (3, 3, 4, 2, 0), PL0_RW, &[], f(F::Nzcv)),
    r("DAIF", (3, 3, 4, 2, 1), PL0_RW, &[T::Uma], f(F::Daif)),
    rf(Ft::Dit, "DIT", (3, 3, 4, 2, 5), PL0_RW, &[], f(F::Dit)),
    rf(Ft::Ssbs2, "SSBS", (3, 3, 4, 2, 6), PL0_RW, &[], f(F::Ssbs)),
    r("FPCR", (3, 3, 4, 4, 0), PL0_RW, &[T::Fp], f(F::Fpcr)),
    r("FPSR", (3, 3, 4, 4, 1), PL0_RW, &[T::Fp], f(F::Fpsr)),
    // Keys.
    rf(Ft::Pauth, "APIAKeyLo_EL1", (3, 0, 2, 1, 0), PL1_RW, KEYS, f(F::Key(0, 0))),
    rf(Ft::Pauth, "APIAKeyHi_EL1", (3, 0, 2, 1, 1), PL1_RW, KEYS, f(F::Key(0, 1))),
    rf(Ft::Pauth, "APIBKeyLo_EL1", (3, 0, 2, 1, 2), PL1_RW, KEYS, f(F::Key(1, 0))),
    rf(Ft::Pauth, "APIBKeyHi_EL1", (3, 0, 2, 1, 3), PL1_RW, KEYS, f(F::Key(1, 1))),
    rf(Ft::Pauth, "APDAKeyLo_EL1", (3, 0, 2, 2, 0), PL1_RW, KEYS, f(F::Key(2, 0))),
    rf(Ft::Pauth, "APDAKeyHi_EL1", (3, 0, 2, 2, 1), PL1_RW, KEYS, f(F::Key(2, 1))),
    rf(Ft::Pauth, "APDBKeyLo_EL1", (3, 0, 2, 2, 2), PL1_RW, KEYS, f(F::Key(3, 0))),
    rf(Ft::Pauth, "APDBKeyHi_EL1", (3, 0, 2, 2, 3), PL1_RW, KEYS, f(F::Key(3, 1))),
    rf(Ft::Pauth, "APGAKeyLo_EL1", (3, 0, 2, 3, 0), PL1_RW, KEYS, f(F::Key(4, 0))),
    rf(Ft::Pauth, "APGAKeyHi_EL1", (3, 0, 2, 3, 1), PL1_RW, KEYS, f(F::Key(4, 1))),
    // Thread and context.
    r("CONTEXTIDR_EL1", (3, 0, 13, 0, 1), PL1_RW, TVM, Kind::Store(Reg::ContextidrEl1, LOW)),
    r("TPIDR_EL1", (3, 0, 13, 0, 4), PL1_RW, &[], f(F::Tpidr(1))),
    r("TPIDR_EL0", (3, 3, 13, 0, 2), PL0_RW, &[], f(F::TpidrEl0)),
    r("TPIDRRO_EL0", (3, 3, 13, 0, 3), PL0_R_PL1_W, &[], f(F::TpidrroEl0)),
    rf(Ft::Vhe, "CONTEXTIDR_EL2", (3, 4, 13, 0, 1), PL2_RW, &[], Kind::Store(Reg::ContextidrEl2, LOW)),
    r("TPIDR_EL2", (3, 4, 13, 0, 2), PL2_RW, &[], f(F::Tpidr(2))),
    r("TPIDR_EL3", (3, 6, 13, 0, 2), PL3_RW, &[], f(F::Tpidr(3))),
    // Generic timer.
    r("CNTKCTL_EL1", (3, 0, 14, 1, 0), PL1_RW, &[], Kind::Store(Reg::CntkctlEl1, 0x3ff)),
    r("CNTFRQ_EL0", (3, 3, 14, 0, 0), PL0_RW, &[T::CntFrq], f(F::Cntfrq)),
    r("CNTPCT_EL0", (3, 3, 14, 0, 1), PL0_R, &[T::CntPct], f(F::Cntpct)),
    r("CNTVCT_EL0", (3, 3, 14, 0, 2), PL0_R, &[T::CntVct], f(F::Cntvct)),
    r("CNTP_TVAL_EL0", (3, 3, 14, 2, 0), PL0_RW, &[T::CntP], timer(Physical, Tval)),
    r("CNTP_CTL_EL0", (3, 3, 14, 2, 1), PL0_RW, &[T::CntP], timer(Physical, Ctl)),
    r("CNTP_CVAL_EL0", (3, 3, 14, 2, 2), PL0_RW, &[T::CntP], timer(Physical, Cval)),
    r("CNTV_TVAL_EL0", (3, 3, 14, 3, 0), PL0_RW, &[T::CntV], timer(Virtual, Tval)),
    r("CNTV_CTL_EL0", (3, 3, 14, 3, 1), PL0_RW, &[T::CntV], timer(Virtual, Ctl)),
    r("CNTV_CVAL_EL0", (3, 3, 14, 3, 2), PL0_RW, &[T::CntV], timer(Virtual, Cval)),
    r("CNTVOFF_EL2", (3, 4, 14, 0, 3), PL2_RW, &[], f(F::Cntvoff)),
    r("CNTHCTL_EL2", (3, 4, 14, 1, 0), PL2_RW, &[], Kind::Store(Reg::CnthctlEl2, 0xfff)),
    r("CNTHP_TVAL_EL2", (3, 4, 14, 2, 0), PL2_RW, &[], timer(HypPhysical, Tval)),
    r("CNTHP_CTL_EL2", (3, 4, 14, 2, 1), PL2_RW, &[], timer(HypPhysical, Ctl)),
    r("CNTHP_CVAL_EL2", (3, 4, 14, 2, 2), PL2_RW, &[], timer(HypPhysical, Cval)),
    rf(Ft::Vhe, "CNTHV_TVAL_EL2", (3, 4, 14, 3, 0), PL2_RW, &[], timer(HypVirtual, Tval)),
    rf(Ft::Vhe, "CNTHV_CTL_EL2", (3, 4, 14, 3, 1), PL2_RW, &[], timer(HypVirtual, Ctl)),
    rf(Ft::Vhe, "CNTHV_CVAL_EL2", (3, 4, 14, 3, 2), PL2_RW, &[], timer(HypVirtual, Cval)),
    rf(Ft::El3, "CNTPS_TVAL_EL1", (3, 7, 14, 2, 0), PL1_RW, &[T::CntPs], timer(SecurePhysical, Tval)),
    rf(Ft::El3, "CNTPS_CTL_EL1", (3, 7, 14, 2, 1), PL1_RW, &[T::CntPs], timer(SecurePhysical, Ctl)),
    rf(Ft::El3, "CNTPS_CVAL_EL1", (3, 7, 14, 2, 2), PL1_RW, &[T::CntPs], timer(SecurePhysical, Cval)),
    // Performance monitors.
    rf(Ft::Pmu, "PMINTENSET_EL1", (3, 0, 9, 14, 1), PL1_RW, PM, pmu(PmuReg::InterruptSet)),
    rf(Ft::Pmu, "PMINTENCLR_EL1", (3, 0, 9, 14, 2), PL1_RW, PM, pmu(PmuReg::InterruptClear)),
    rf(Ft::Pmu, "PMCR_EL0", (3, 3, 9, 12, 0), PL0_RW, &[T::Pm, T::Pmcr], pmu(PmuReg::Control)),
    rf(Ft::Pmu, "PMCNTENSET_EL0", (3, 3, 9, 12, 1), PL0_RW, PM, pmu(PmuReg::EnableSet)),
    rf(Ft::Pmu, "PMCNTENCLR_EL0", (3, 3, 9, 12, 2), PL0_RW, PM, pmu(PmuReg::EnableClear)),
    rf(Ft::Pmu, "PMOVSCLR_EL0", (3, 3, 9, 12, 3), PL0_RW, PM, pmu(PmuReg::OverflowClear)),
    rf(Ft::Pmu, "PMSWINC_EL0", (3, 3, 9, 12, 4), PL0_W, &[T::PmIncrement], pmu(PmuReg::Increment)),
    rf(Ft::Pmu, "PMSELR_EL0", (3, 3, 9, 12, 5), PL0_RW, &[T::PmSelect], pmu(PmuReg::Select)),
    rf(Ft::Pmu, "PMCEID0_EL0", (3, 3, 9, 12, 6), PL0_R, PM, Kind::Const(crate::pmu::COMMON_EVENTS)),
    rf(Ft::Pmu, "PMCEID1_EL0", (3, 3, 9, 12, 7), PL0_R, PM, Kind::Const(0)),
    rf(Ft::Pmu, "PMCCNTR_EL0", (3, 3, 9, 13, 0), PL0_RW, &[T::PmCycles], pmu(PmuReg::Cycles)),
    rf(Ft::Pmu, "PMXEVTYPER_EL0", (3, 3, 9, 13, 1), PL0_RW, PM, pmu(PmuReg::SelectedType)),
    rf(Ft::Pmu, "PMXEVCNTR_EL0", (3, 3, 9, 13, 2), PL0_RW, &[T::PmEvent], pmu(PmuReg::SelectedCounter)),
    rf(Ft::Pmu, "PMUSERENR_EL0", (3, 3, 9, 14, 0), PL0_R_PL1_W, &[T::PmAccess], Kind::Store(Reg::PmuserenrEl0, 0xf)),
    rf(Ft::Pmu, "PMOVSSET_EL0", (3, 3, 9, 14, 3), PL0_RW, PM, pmu(PmuReg::OverflowSet)),
    rf(Ft::Pmu, "PMCCFILTR_EL0", (3, 3, 14, 15, 7), PL0_RW, PM, pmu(PmuReg::CycleFilter)),
];

const fn sorted<const N: usize>(input: &[RegDesc]) -> [RegDesc; N] {
    assert!(input.len() == N);
    let mut all = [input[0]; N];
    let mut i = 0;
    while i < N {
        let d = input[i];
        let mut at = i;
        while at > 0 && all[at - 1].enc > d.enc {
            all[at] = all[at - 1];
            at -= 1;
        }
        assert!(at == 0 || all[at - 1].enc != d.enc, "one encoding twice");
        all[at] = d;
        i += 1;
    }
    all
}

/// Sorted by encoding.
pub(super) static TABLE: [RegDesc; REGISTERS.len()] = sorted(REGISTERS);

/// Does the encoding stand in the table (whatever the features)?
pub(super) fn contains(e: u16) -> bool {
    TABLE.binary_search_by_key(&e, |d| d.enc).is_ok()
}

/// The TLBI with this encoding (op0 1, CRn 8).
pub(super) fn tlbi(e: u16) -> Option<RegDesc> {
    /// How far an operation reaches.
    #[derive(Clone, Copy, PartialEq)]
    enum Reach {
        Local,
        Inner,
        Outer,
    }
    use Reach::*;
    let reach = match crm(e) {
        1 | 5 => Outer,
        2 | 3 => Inner,
        6 | 7 => Local,
        // Stage 2 operations, decided below.
        0 => Inner,
        4 => Local,
        _ => return None,
    };
    let ranged = matches!(crm(e), 2 | 5 | 6);
    let (of, scope, levels, reach, ranged) = match (op1(e), crm(e)) {
        (4, 0) => match op2(e) {
            1 | 5 => (Of::El1Only, Scope::Stage2, PL2_W, Inner, false),
            2 | 6 => (Of::El1Only, Scope::Stage2, PL2_W, Inner, true),
            _ => return None,
        },
        (4, 4) => match op2(e) {
            0 | 4 => (Of::El1Only, Scope::Stage2, PL2_W, Outer, false),
            1 | 5 => (Of::El1Only, Scope::Stage2, PL2_W, Local, false),
            2 | 6 => (Of::El1Only, Scope::Stage2, PL2_W, Local, true),
            _ => (Of::El1Only, Scope::Stage2, PL2_W, Outer, true),
        },
        (_, 0 | 4) => return None,
        (0, _) => {
            let scope = match (ranged, op2(e)) {
                (false, 0) => Scope::All,
                (false, 2) => Scope::Asid,
                (false, 1 | 3 | 5 | 7) => Scope::Address { asid: op2(e) & 2 == 0 },
                (true, 1 | 3 | 5 | 7) => Scope::Range { asid: op2(e) & 2 == 0 },
                _ => return None,
            };
            (Of::El1, scope, PL1_W, reach, ranged)
        }
        (4, _) => {
            let (of, scope) = match (ranged, op2(e)) {
                (false, 0) => (Of::El2, Scope::All),
                (false, 1 | 5) => (Of::El2, Scope::Address { asid: true }),
                (false, 4 | 6) => (Of::El1Only, Scope::All),
                (true, 1 | 5) => (Of::El2, Scope::Range { asid: true }),
                _ => return None,
            };
            (of, scope, PL2_W, reach, ranged)
        }
        _ => {
            let scope = match (ranged, op2(e)) {
                (false, 0) => Scope::All,
                (false, 1 | 5) => Scope::Address { asid: false },
                (true, 1 | 5) => Scope::Range { asid: false },
                _ => return None,
            };
            (Of::El3, scope, PL3_W, reach, ranged)
        }
    };
    let feature = if ranged {
        Some(Feature::TlbiRange)
    } else if reach == Outer {
        Some(Feature::TlbiOs)
    } else {
        None
    };
    let traps: &'static [T] = match (levels, reach) {
        (PL1_W, Local) => &[T::Ttlb],
        (PL1_W, Inner) => &[T::Ttlb, T::TtlbInner],
        (PL1_W, Outer) => &[T::Ttlb, T::TtlbOuter],
        // Operations of EL2 are undefined at EL3 while EL2 is not enabled, but for those on EL1.
        _ if of == Of::El2 => &[T::El2On],
        _ => &[],
    };
    Some(RegDesc { enc: e, name: "TLBI", levels, feature, traps, kind: Kind::Fun(F::Tlbi(of, scope, reach != Local)) })
}

/// Implementation defined registers of a family of models.
pub(super) fn impdef(family: ImpDef, e: u16) -> Option<RegDesc> {
    let list: &[RegDesc] = match family {
        ImpDef::None => &[],
        ImpDef::A5x => A5X,
        ImpDef::A7x => A7X,
    };
    list.iter().find(|d| d.enc == e).copied()
}

const IMP: &[T] = &[T::Tidcp];

const A5X: &[RegDesc] = &[
    r("L2CTLR_EL1", (3, 1, 11, 0, 2), PL1_RW, IMP, f(F::L2ctlr)),
    r("L2ECTLR_EL1", (3, 1, 11, 0, 3), PL1_RW, IMP, Kind::Store(Reg::ImpL2ectlr, LOW)),
    r("L2ACTLR_EL1", (3, 1, 15, 0, 0), PL1_RW, IMP, Kind::Store(Reg::ImpL2actlr, LOW)),
    r("CPUACTLR_EL1", (3, 1, 15, 2, 0), PL1_RW, IMP, Kind::Store(Reg::ImpCpuactlr, ALL)),
    r("CPUECTLR_EL1", (3, 1, 15, 2, 1), PL1_RW, IMP, Kind::Store(Reg::ImpCpuectlr, ALL)),
    r("CPUMERRSR_EL1", (3, 1, 15, 2, 2), PL1_RW, IMP, Kind::Const(0)),
    r("L2MERRSR_EL1", (3, 1, 15, 2, 3), PL1_RW, IMP, Kind::Const(0)),
    r("CBAR_EL1", (3, 1, 15, 3, 0), PL1_R, IMP, f(F::Cbar)),
];

const A7X: &[RegDesc] = &[
    r("CPUCFR_EL1", (3, 0, 15, 0, 0), PL1_R, IMP, Kind::Const(0)),
    r("CPUACTLR_EL1", (3, 0, 15, 1, 0), PL1_RW, IMP, Kind::Store(Reg::ImpCpuactlr, ALL)),
    r("CPUACTLR2_EL1", (3, 0, 15, 1, 1), PL1_RW, IMP, Kind::Const(0)),
    r("CPUACTLR3_EL1", (3, 0, 15, 1, 2), PL1_RW, IMP, Kind::Const(0)),
    r("CPUECTLR_EL1", (3, 0, 15, 1, 4), PL1_RW, IMP, Kind::Store(Reg::ImpCpuectlr, ALL)),
    r("CPUPWRCTLR_EL1", (3, 0, 15, 2, 7), PL1_RW, IMP, Kind::Const(0)),
];
