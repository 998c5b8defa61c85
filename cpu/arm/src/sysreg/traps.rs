//! Conditions under which an access traps to a higher exception level.

use super::{crm, op2};
use crate::bits::{cptr, hcr, mdcr, mdscr, scr, sctlr};
use crate::config::Feature;
use crate::hooks::Trap;
use crate::reg::{Reg, family};
use crate::state::ArmCpu;

/// A rule of trapping; a register lists those that concern it, in order of priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum T {
    /// HCR_EL2.TVM, TRVM: virtual memory controls.
    Tvm,
    /// HCR_EL2.TID1.
    IdGroup1,
    /// HCR_EL2.TID2.
    IdGroup2,
    /// HCR_EL2.TID3.
    IdGroup3,
    /// HCR_EL2.TID2, TID4: cache identification.
    CacheId,
    Tacr,
    Cpacr,
    Cptr2,
    Mdcr2,
    Uct,
    Uci,
    Uma,
    Zva,
    Fp,
    Tpcp,
    /// HCR_EL2.TPU, TOCU.
    Tpu,
    Ticab,
    Tsw,
    Ttlb,
    TtlbInner,
    TtlbOuter,
    /// LORegions exist in Non-secure state only.
    Lor,
    Tlor,
    Tidcp,
    Apk,
    /// At EL3, undefined while EL2 is not enabled.
    El2On,
    Tda,
    Tdosa,
    Tdra,
    Tdcc,
    CntFrq,
    CntPct,
    CntVct,
    CntP,
    CntV,
    CntPs,
    Pm,
    Pmcr,
    PmCycles,
    PmEvent,
    PmIncrement,
    PmSelect,
    PmAccess,
}

/// CNTKCTL_EL1 and CNTHCTL_EL2 with E2H: access from EL0.
mod cnt {
    pub const EL0PCTEN: u64 = 1;
    pub const EL0VCTEN: u64 = 2;
    pub const EL0VTEN: u64 = 1 << 8;
    pub const EL0PTEN: u64 = 1 << 9;
}

impl ArmCpu {
    pub(crate) fn check_trap(&self, t: T, e: u16, write: bool) -> Result<(), Trap> {
        let el = self.el();
        let h = if el <= 1 { self.hcr() } else { 0 };
        let el1 = |on: bool| if on && el == 0 { Err(Trap::To(1)) } else { Ok(()) };
        let el2 = |bits: u64| if h & bits != 0 { Err(Trap::To(2)) } else { Ok(()) };
        let control = || if el == 0 { self.sys_of(family::SCTLR, self.regime_el(0)) } else { u64::MAX };
        let el3 = |r: Reg, bit: u64| {
            if el < 3 && self.has(Feature::El3) && self[r] & bit != 0 { Err(Trap::To(3)) } else { Ok(()) }
        };
        match t {
            T::Tvm => el2(if write { hcr::TVM } else { hcr::TRVM }),
            T::IdGroup1 => el2(hcr::TID1),
            T::IdGroup2 => el2(hcr::TID2),
            T::IdGroup3 => el2(hcr::TID3),
            T::CacheId => el2(hcr::TID2 | hcr::TID4),
            T::Tacr => el2(hcr::TACR),
            T::Cpacr => {
                if el == 1 && self.el2_enabled() && self[Reg::CptrEl2] & cptr::TCPAC != 0 {
                    return Err(Trap::To(2));
                }
                el3(Reg::CptrEl3, cptr::TCPAC)
            }
            T::Cptr2 => el3(Reg::CptrEl3, cptr::TCPAC),
            T::Mdcr2 => el3(Reg::MdcrEl3, mdcr::TDA),
            T::Uct => el1(control() & sctlr::UCT == 0),
            T::Uci => el1(control() & sctlr::UCI == 0),
            T::Uma => el1(control() & sctlr::UMA == 0),
            T::Zva => {
                el1(control() & sctlr::DZE == 0)?;
                el2(hcr::TDZ)
            }
            T::Fp => match self.fp_trap_el(el) {
                0 => Ok(()),
                // The exception class of FP traps differs from that of register traps: see `read_fun`.
                _ => Err(Trap::Undefined),
            },
            T::Tpcp => el2(hcr::TPCP),
            T::Tpu => el2(hcr::TPU | hcr::TOCU),
            T::Ticab => el2(hcr::TICAB),
            T::Tsw => el2(hcr::TSW),
            T::Ttlb => el2(hcr::TTLB),
            T::TtlbInner => el2(hcr::TTLBIS),
            T::TtlbOuter => el2(hcr::TTLBOS),
            T::Lor => {
                if self.is_secure() && el < 3 || (el == 3 && self.lower_secure()) {
                    return Err(Trap::Undefined);
                }
                el2(hcr::TLOR)?;
                el3(Reg::ScrEl3, scr::TLOR)
            }
            T::Tlor => {
                el2(hcr::TLOR)?;
                el3(Reg::ScrEl3, scr::TLOR)
            }
            T::Tidcp => el2(hcr::TIDCP),
            T::Apk => {
                if el == 1 && self.el2_enabled() && h & hcr::APK == 0 {
                    return Err(Trap::To(2));
                }
                if el < 3 && self.scr() & scr::APK == 0 { Err(Trap::To(3)) } else { Ok(()) }
            }
            T::El2On => {
                if el == 3 && !self.el2_enabled() {
                    Err(Trap::Undefined)
                } else {
                    Ok(())
                }
            }
            T::Tda | T::Tdosa | T::Tdra | T::Tdcc => {
                if t == T::Tdcc {
                    el1(self[Reg::MdscrEl1] & mdscr::TDCC != 0)?;
                }
                let bit = match t {
                    T::Tdosa => mdcr::TDOSA,
                    T::Tdra => mdcr::TDRA,
                    _ => mdcr::TDA,
                };
                if el <= 1 && self.el2_enabled() {
                    let all = self[Reg::MdcrEl2] & mdcr::TDE != 0 || h & hcr::TGE != 0;
                    if all || self[Reg::MdcrEl2] & bit != 0 {
                        return Err(Trap::To(2));
                    }
                }
                el3(Reg::MdcrEl3, if t == T::Tdosa { mdcr::TDOSA } else { mdcr::TDA })
            }
            T::CntFrq => {
                if el == 0 {
                    let (v, to) = self.cnt_el0();
                    if v & (cnt::EL0PCTEN | cnt::EL0VCTEN) == 0 {
                        return Err(Trap::To(to));
                    }
                }
                // Writable at the highest level only.
                if write && el != self.config.highest_el() { Err(Trap::Undefined) } else { Ok(()) }
            }
            T::CntPct => {
                self.cnt_check_el0(cnt::EL0PCTEN)?;
                let enable = if self.e2h() { 1 << 10 } else { 1 };
                self.cnt_check_el2(enable)
            }
            T::CntVct => self.cnt_check_el0(cnt::EL0VCTEN),
            T::CntP => {
                self.cnt_check_el0(cnt::EL0PTEN)?;
                let enable = if self.e2h() { 1 << 11 } else { 2 };
                self.cnt_check_el2(enable)
            }
            T::CntV => self.cnt_check_el0(cnt::EL0VTEN),
            T::CntPs => match el {
                3 => Ok(()),
                1 if self.is_secure() && self[Reg::ScrEl3] & scr::ST != 0 => Ok(()),
                1 if self.is_secure() => Err(Trap::To(3)),
                _ => Err(Trap::Undefined),
            },
            T::Pm | T::PmCycles | T::PmEvent | T::PmIncrement | T::PmSelect | T::PmAccess => {
                if el == 0 && t != T::PmAccess {
                    let v = self[Reg::PmuserenrEl0];
                    let (en, sw, cr, er) = (v & 1 != 0, v & 2 != 0, v & 4 != 0, v & 8 != 0);
                    let allowed = en
                        || match t {
                            T::PmCycles => cr && !write,
                            T::PmEvent => er && !write,
                            T::PmIncrement => sw,
                            T::PmSelect => er,
                            _ => false,
                        };
                    if !allowed {
                        return Err(Trap::To(1));
                    }
                }
                if el <= 1 && self.el2_enabled() {
                    let v = self[Reg::MdcrEl2];
                    if v & mdcr::TPM != 0 {
                        return Err(Trap::To(2));
                    }
                    // Counters at or above HPMN belong to EL2.
                    if t == T::PmEvent && super::crn(e) == 14 {
                        let n = u64::from((crm(e) & 3) << 3 | op2(e));
                        if n >= v & mdcr::HPMN {
                            return Err(Trap::Undefined);
                        }
                    }
                }
                el3(Reg::MdcrEl3, mdcr::TPM)
            }
            T::Pmcr => {
                if el <= 1 && self.el2_enabled() && self[Reg::MdcrEl2] & mdcr::TPMCR != 0 {
                    Err(Trap::To(2))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// The register that controls EL0's access to counters and timers, and where its traps go.
    fn cnt_el0(&self) -> (u64, u32) {
        if self.in_host() { (self[Reg::CnthctlEl2], 2) } else { (self[Reg::CntkctlEl1], 1) }
    }
    fn cnt_check_el0(&self, bit: u64) -> Result<(), Trap> {
        if self.el() != 0 {
            return Ok(());
        }
        let (v, to) = self.cnt_el0();
        if v & bit == 0 { Err(Trap::To(to)) } else { Ok(()) }
    }
    fn cnt_check_el2(&self, enable: u64) -> Result<(), Trap> {
        let el = self.el();
        if el <= 1 && self.el2_enabled() && !(el == 0 && self.in_host()) && self[Reg::CnthctlEl2] & enable == 0 {
            return Err(Trap::To(2));
        }
        Ok(())
    }
}
