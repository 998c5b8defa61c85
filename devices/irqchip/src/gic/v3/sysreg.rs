//! The system registers: names, encodings, and where an access traps (IHI 0069 section 12.2 to 12.6).

use super::super::virt::hcr;

/// A system register of the CPU interface. The first field of some is the group (0 or 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IccReg {
    Pmr,
    Iar(u8),
    Eoir(u8),
    Hppir(u8),
    Bpr(u8),
    /// ICC_AP0R*n* and ICC_AP1R*n*.
    Ap(u8, u8),
    Dir,
    Rpr,
    Sgi1r,
    Asgi1r,
    Sgi0r,
    Ctlr,
    Sre,
    Igrpen(u8),
    SreEl2,
    CtlrEl3,
    SreEl3,
    Igrpen1El3,
    IchAp(u8, u8),
    IchHcr,
    IchVtr,
    IchMisr,
    IchEisr,
    IchElrsr,
    IchVmcr,
    IchLr(u8),
}

impl IccReg {
    /// The register of an AArch64 MRS/MSR encoding; `None` if it is none of these.
    #[must_use]
    pub const fn decode(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Option<Self> {
        Some(match (op0, op1, crn, crm, op2) {
            (3, 0, 4, 6, 0) => Self::Pmr,
            (3, 0, 12, 8, 0) => Self::Iar(0),
            (3, 0, 12, 8, 1) => Self::Eoir(0),
            (3, 0, 12, 8, 2) => Self::Hppir(0),
            (3, 0, 12, 8, 3) => Self::Bpr(0),
            (3, 0, 12, 8, n @ 4..=7) => Self::Ap(0, n - 4),
            (3, 0, 12, 9, n @ 0..=3) => Self::Ap(1, n),
            (3, 0, 12, 11, 1) => Self::Dir,
            (3, 0, 12, 11, 3) => Self::Rpr,
            (3, 0, 12, 11, 5) => Self::Sgi1r,
            (3, 0, 12, 11, 6) => Self::Asgi1r,
            (3, 0, 12, 11, 7) => Self::Sgi0r,
            (3, 0, 12, 12, 0) => Self::Iar(1),
            (3, 0, 12, 12, 1) => Self::Eoir(1),
            (3, 0, 12, 12, 2) => Self::Hppir(1),
            (3, 0, 12, 12, 3) => Self::Bpr(1),
            (3, 0, 12, 12, 4) => Self::Ctlr,
            (3, 0, 12, 12, 5) => Self::Sre,
            (3, 0, 12, 12, 6) => Self::Igrpen(0),
            (3, 0, 12, 12, 7) => Self::Igrpen(1),
            (3, 4, 12, 8, n @ 0..=3) => Self::IchAp(0, n),
            (3, 4, 12, 9, n @ 0..=3) => Self::IchAp(1, n),
            (3, 4, 12, 9, 5) => Self::SreEl2,
            (3, 4, 12, 11, 0) => Self::IchHcr,
            (3, 4, 12, 11, 1) => Self::IchVtr,
            (3, 4, 12, 11, 2) => Self::IchMisr,
            (3, 4, 12, 11, 3) => Self::IchEisr,
            (3, 4, 12, 11, 5) => Self::IchElrsr,
            (3, 4, 12, 11, 7) => Self::IchVmcr,
            (3, 4, 12, 12, n @ 0..=7) => Self::IchLr(n),
            (3, 4, 12, 13, n @ 0..=7) => Self::IchLr(n + 8),
            (3, 6, 12, 12, 4) => Self::CtlrEl3,
            (3, 6, 12, 12, 5) => Self::SreEl3,
            (3, 6, 12, 12, 7) => Self::Igrpen1El3,
            _ => return None,
        })
    }
    /// All registers, for tables and tests.
    pub fn all() -> impl Iterator<Item = (IccReg, [u8; 5])> {
        let crs = [
            (0, 4, 6),
            (0, 12, 8),
            (0, 12, 9),
            (0, 12, 11),
            (0, 12, 12),
            (4, 12, 8),
            (4, 12, 9),
            (4, 12, 11),
            (4, 12, 12),
            (4, 12, 13),
            (6, 12, 12),
        ];
        crs.into_iter().flat_map(|(op1, crn, crm)| {
            (0..8).filter_map(move |op2| Self::decode(3, op1, crn, crm, op2).map(|r| (r, [3, op1, crn, crm, op2])))
        })
    }
    /// Least exception level.
    const fn min_el(self) -> u8 {
        match self {
            Self::CtlrEl3 | Self::SreEl3 | Self::Igrpen1El3 => 3,
            Self::SreEl2
            | Self::IchAp(..)
            | Self::IchHcr
            | Self::IchVtr
            | Self::IchMisr
            | Self::IchEisr
            | Self::IchElrsr
            | Self::IchVmcr
            | Self::IchLr(_) => 2,
            _ => 1,
        }
    }
    pub(super) const fn readable(self) -> bool {
        !matches!(self, Self::Eoir(_) | Self::Dir | Self::Sgi1r | Self::Asgi1r | Self::Sgi0r)
    }
    pub(super) const fn writable(self) -> bool {
        !matches!(
            self,
            Self::Iar(_) | Self::Hppir(_) | Self::Rpr | Self::IchVtr | Self::IchMisr | Self::IchEisr | Self::IchElrsr
        )
    }
    const fn is_sgi(self) -> bool {
        matches!(self, Self::Sgi1r | Self::Asgi1r | Self::Sgi0r)
    }
    /// Group 0, group 1, or (`None`) common registers, as the trap controls sort them; SRE is none of these.
    const fn class(self) -> Option<u8> {
        match self {
            Self::Iar(g) | Self::Eoir(g) | Self::Hppir(g) | Self::Bpr(g) | Self::Ap(g, _) | Self::Igrpen(g) => Some(g),
            _ => None,
        }
    }
}

/// The state of the PE at a system register access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IccContext {
    /// Current exception level, 0 to 3.
    pub el: u8,
    /// The PE is in Secure state (EL3, or SCR_EL3.NS = 0).
    pub secure: bool,
    /// EL2 is implemented and enabled in the current Security state.
    pub el2_enabled: bool,
    /// HCR_EL2, 0 without EL2.
    pub hcr_el2: u64,
    /// SCR_EL3, 0 without EL3.
    pub scr_el3: u64,
}

const SCR_NS: u64 = 1;
const SCR_IRQ: u64 = 1 << 1;
const SCR_FIQ: u64 = 1 << 2;
const HCR_FMO: u64 = 1 << 3;
const HCR_IMO: u64 = 1 << 4;

impl IccContext {
    /// The Security state whose copies of banked registers are accessed: at EL3 that of SCR_EL3.NS.
    #[must_use]
    pub const fn bank_secure(&self) -> bool {
        if self.el == 3 { self.scr_el3 & SCR_NS == 0 } else { self.secure }
    }
    /// Group 0 interrupts belong to EL3: Non-secure priorities are shifted.
    #[must_use]
    pub const fn shifted(&self) -> bool {
        self.el < 3 && !self.secure && self.scr_el3 & SCR_FIQ != 0
    }
}

/// Where an access goes instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IccTrap {
    /// The instruction is UNDEFINED at the current exception level.
    Undefined,
    /// Trapped to EL2 (syndrome of a trapped MSR/MRS).
    El2,
    /// Trapped to EL3.
    El3,
}

/// Which registers an allowed access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Physical,
    Virtual,
}

/// What is implemented.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub el2: bool,
    pub el3: bool,
}

/// Routes an access. `ich_hcr`: ICH_HCR_EL2, asked only if it matters.
pub(super) fn route(
    reg: IccReg,
    ctx: &IccContext,
    levels: Levels,
    ich_hcr: impl FnOnce() -> u32,
) -> Result<Target, IccTrap> {
    let min = reg.min_el();
    if ctx.el < min || min == 2 && !levels.el2 || min == 3 && !levels.el3 {
        return Err(IccTrap::Undefined);
    }
    if min == 2 && ctx.el == 2 && !ctx.el2_enabled {
        return Err(IccTrap::Undefined);
    }
    if min > 1 || reg == IccReg::Sre {
        // SRE cannot be cleared: Enable at EL2 and EL3 is always on, so nothing traps.
        return Ok(Target::Physical);
    }
    let (group, dir, sgi) = (reg.class(), reg == IccReg::Dir, reg.is_sgi());
    if ctx.el == 1 && ctx.el2_enabled && levels.el2 {
        let ich = ich_hcr();
        let trapped = match group {
            Some(0) => ich & hcr::TALL0 != 0,
            Some(_) => ich & hcr::TALL1 != 0,
            None => ich & hcr::TC != 0 || dir && ich & hcr::TDIR != 0,
        };
        if trapped {
            return Err(IccTrap::El2);
        }
        let redirected = ctx.hcr_el2
            & match group {
                Some(0) => HCR_FMO,
                Some(_) => HCR_IMO,
                None => HCR_FMO | HCR_IMO,
            };
        if redirected != 0 {
            return if sgi { Err(IccTrap::El2) } else { Ok(Target::Virtual) };
        }
    }
    if ctx.el < 3 && levels.el3 {
        let needed = match group {
            Some(0) => SCR_FIQ,
            Some(_) => SCR_IRQ,
            None => SCR_IRQ | SCR_FIQ,
        };
        if ctx.scr_el3 & needed == needed {
            return Err(IccTrap::El3);
        }
    }
    Ok(Target::Physical)
}
