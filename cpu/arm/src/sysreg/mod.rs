//! System registers and system instructions (DDI 0487 C5, D17, D24).

mod behaviour;
mod index;
mod system;
mod table;
mod traps;
mod write;

use crate::config::{ArmConfig, Feature};
use crate::hooks::{IccContext, Trap};
use crate::mmu::tlbi::{Of, Scope};
use crate::pmu::PmuReg;
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::syndrome;
use crate::timer::TimerId;
pub(crate) use index::Index;
pub use index::{Plain, plain};
pub(crate) use traps::T;

/// The 16-bit encoding op0:op1:CRn:CRm:op2, which is bits 20:5 of the instruction.
pub const fn enc(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}
const fn op0(e: u16) -> u16 {
    e >> 14
}
const fn op1(e: u16) -> u16 {
    e >> 11 & 7
}
const fn crn(e: u16) -> u16 {
    e >> 7 & 15
}
const fn crm(e: u16) -> u16 {
    e >> 3 & 15
}
const fn op2(e: u16) -> u16 {
    e & 7
}

/// Which exception levels may read (bits 0–3) and write (bits 4–7).
pub(crate) type Levels = u8;

/// What a register does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Const(u64),
    Id(fn(&ArmConfig) -> u64),
    /// Plain storage with the bits that may be written.
    Store(Reg, u64),
    Fun(F),
    /// A register of the GIC CPU interface.
    Icc,
}

/// A field of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerField {
    Tval,
    Ctl,
    Cval,
}

/// Registers and instructions with behaviour of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum F {
    Midr,
    Mpidr,
    Ctr,
    Dczid,
    Ccsidr,
    CurrentEl,
    SpSel,
    Daif,
    Nzcv,
    Fpcr,
    Fpsr,
    Pan,
    Uao,
    Dit,
    Ssbs,
    /// SP_EL0, SP_EL1, SP_EL2.
    SpEl(u8),
    TpidrEl0,
    TpidrroEl0,
    Tpidr(u8),
    /// Key number and half.
    Key(u8, u8),
    Rvbar(u8),
    Isr,
    Cntfrq,
    Cntpct,
    Cntvct,
    Cntvoff,
    Timer(TimerId, TimerField),
    Pmu(PmuReg),
    Oslar,
    Oslsr,
    ClaimSet,
    ClaimClear,
    Bvr(u8),
    Bcr(u8),
    Wvr(u8),
    Wcr(u8),
    L2ctlr,
    Cbar,
    // Instructions.
    At(crate::mmu::AtOp),
    Tlbi(Of, Scope, bool),
    InstructionCache,
    /// By address, for reading or (true) for writing.
    DataCache(bool),
    /// By set and way.
    SetWay,
    Zva,
}

/// One register or instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegDesc {
    pub enc: u16,
    pub name: &'static str,
    pub levels: Levels,
    pub feature: Option<Feature>,
    pub traps: &'static [T],
    pub kind: Kind,
}

/// Levels: PL1_RW and so on as the manuals' tables say.
pub(crate) mod levels {
    pub const PL0_R: u8 = 0x0f;
    pub const PL0_RW: u8 = 0xff;
    pub const PL0_W: u8 = 0xf0;
    pub const PL0_R_PL1_W: u8 = 0xef;
    pub const PL1_R: u8 = 0x0e;
    pub const PL1_RW: u8 = 0xee;
    pub const PL1_W: u8 = 0xe0;
    pub const PL2_R: u8 = 0x0c;
    pub const PL2_RW: u8 = 0xcc;
    pub const PL2_W: u8 = 0xc0;
    pub const PL3_R: u8 = 0x08;
    pub const PL3_RW: u8 = 0x88;
    pub const PL3_W: u8 = 0x80;
}
use levels::*;

/// Finds what an encoding names in this processor.
#[inline]
pub(crate) fn find(config: &ArmConfig, e: u16) -> Option<&RegDesc> {
    config.sysregs().find(e)
}

/// Encodings that follow a rule instead of standing in the table.
fn computed(config: &ArmConfig, e: u16) -> Option<RegDesc> {
    let d = |name, levels, traps, kind| Some(RegDesc { enc: e, name, levels, feature: None, traps, kind });
    let n = crm(e) as u8;
    match (op0(e), op1(e), crn(e), crm(e), op2(e)) {
        (1, 0 | 4 | 6, 8, _, _) => table::tlbi(e),
        (2, 0, 0, _, 4) if u32::from(n) < config.breakpoints => {
            d("DBGBVRn_EL1", PL1_RW, &[T::Tda], Kind::Fun(F::Bvr(n)))
        }
        (2, 0, 0, _, 5) if u32::from(n) < config.breakpoints => {
            d("DBGBCRn_EL1", PL1_RW, &[T::Tda], Kind::Fun(F::Bcr(n)))
        }
        (2, 0, 0, _, 6) if u32::from(n) < config.watchpoints => {
            d("DBGWVRn_EL1", PL1_RW, &[T::Tda], Kind::Fun(F::Wvr(n)))
        }
        (2, 0, 0, _, 7) if u32::from(n) < config.watchpoints => {
            d("DBGWCRn_EL1", PL1_RW, &[T::Tda], Kind::Fun(F::Wcr(n)))
        }
        // The rest of the ID register space reads as zero.
        (3, 0, 0, 1..=7, _) => d("ID register", PL1_R, &[T::IdGroup3], Kind::Const(0)),
        (3, 3, 14, 8..=15, _) if config.has(Feature::Pmu) => {
            let index = u32::from(crm(e) & 3) << 3 | u32::from(op2(e));
            let (name, traps, reg): (_, &'static [T], _) = if crm(e) < 12 {
                ("PMEVCNTRn_EL0", &[T::PmEvent], PmuReg::Counter(index))
            } else {
                ("PMEVTYPERn_EL0", &[T::Pm], PmuReg::Type(index))
            };
            (index < crate::pmu::COUNTERS as u32).then_some(())?;
            d(name, PL0_RW, traps, Kind::Fun(F::Pmu(reg)))
        }
        (3, 0, 4, 6, 0) | (3, 0, 12, 8..=12, _) if config.gic_sysregs => d("ICC", PL1_RW, &[], Kind::Icc),
        (3, 4, 12, 8..=15, _) if config.gic_sysregs => d("ICH", PL2_RW, &[], Kind::Icc),
        (3, 6, 12, 12, _) if config.gic_sysregs => d("ICC_EL3", PL3_RW, &[], Kind::Icc),
        (3, _, 11 | 15, _, _) => table::impdef(config.impdef, e),
        _ => None,
    }
}

/// Does an MSR to this register or a system instruction change mode, translation or interrupt masks, so that the block must
/// end (`MSR_END`)? Unknown ones do.
pub fn write_ends_block(config: &ArmConfig, e: u16) -> bool {
    match find(config, e).map(|d| d.kind) {
        Some(Kind::Fun(f)) => !matches!(
            f,
            F::TpidrEl0
                | F::TpidrroEl0
                | F::Tpidr(_)
                | F::Nzcv
                | F::Fpsr
                | F::SpEl(_)
                | F::Key(..)
                | F::Dit
                | F::Ssbs
                | F::DataCache(_)
                | F::SetWay
                | F::Pmu(_)
        ),
        Some(Kind::Store(r, _)) => !matches!(
            r,
            Reg::ElrEl1
                | Reg::ElrEl2
                | Reg::ElrEl3
                | Reg::SpsrEl1
                | Reg::SpsrEl2
                | Reg::SpsrEl3
                | Reg::EsrEl1
                | Reg::FarEl1
                | Reg::ParEl1
                | Reg::VbarEl1
                | Reg::CsselrEl1
                | Reg::ContextidrEl1
                | Reg::PmuserenrEl0
        ),
        _ => true,
    }
}

/// Names of all registers and instructions of the table, for tests and `info registers`.
pub fn names() -> impl Iterator<Item = (u16, &'static str)> {
    table::TABLE.iter().map(|d| (d.enc, d.name))
}

/// EL1 encodings and the EL2 ones that an EL2 with E2H reaches through them. CNT*_EL0 have EL02 aliases.
const REDIRECTED: &[(u16, u16)] = &[
    (enc(3, 0, 1, 0, 0), enc(3, 4, 1, 0, 0)),   // SCTLR
    (enc(3, 0, 1, 0, 2), enc(3, 4, 1, 1, 2)),   // CPACR, CPTR
    (enc(3, 0, 2, 0, 0), enc(3, 4, 2, 0, 0)),   // TTBR0
    (enc(3, 0, 2, 0, 1), enc(3, 4, 2, 0, 1)),   // TTBR1
    (enc(3, 0, 2, 0, 2), enc(3, 4, 2, 0, 2)),   // TCR
    (enc(3, 0, 4, 0, 0), enc(3, 4, 4, 0, 0)),   // SPSR
    (enc(3, 0, 4, 0, 1), enc(3, 4, 4, 0, 1)),   // ELR
    (enc(3, 0, 5, 1, 0), enc(3, 4, 5, 1, 0)),   // AFSR0
    (enc(3, 0, 5, 1, 1), enc(3, 4, 5, 1, 1)),   // AFSR1
    (enc(3, 0, 5, 2, 0), enc(3, 4, 5, 2, 0)),   // ESR
    (enc(3, 0, 6, 0, 0), enc(3, 4, 6, 0, 0)),   // FAR
    (enc(3, 0, 10, 2, 0), enc(3, 4, 10, 2, 0)), // MAIR
    (enc(3, 0, 10, 3, 0), enc(3, 4, 10, 3, 0)), // AMAIR
    (enc(3, 0, 12, 0, 0), enc(3, 4, 12, 0, 0)), // VBAR
    (enc(3, 0, 13, 0, 1), enc(3, 4, 13, 0, 1)), // CONTEXTIDR
    (enc(3, 0, 14, 1, 0), enc(3, 4, 14, 1, 0)), // CNTKCTL, CNTHCTL
    (enc(3, 3, 14, 2, 0), enc(3, 4, 14, 2, 0)), // CNTP_TVAL, CNTHP_TVAL
    (enc(3, 3, 14, 2, 1), enc(3, 4, 14, 2, 1)),
    (enc(3, 3, 14, 2, 2), enc(3, 4, 14, 2, 2)),
    (enc(3, 3, 14, 3, 0), enc(3, 4, 14, 3, 0)), // CNTV_TVAL, CNTHV_TVAL
    (enc(3, 3, 14, 3, 1), enc(3, 4, 14, 3, 1)),
    (enc(3, 3, 14, 3, 2), enc(3, 4, 14, 3, 2)),
];

impl ArmCpu {
    /// The register that an encoding reaches at the current level, after the E2H redirection.
    #[inline]
    fn reached(&self, e: u16) -> Result<Option<&RegDesc>, Trap> {
        let index = self.config.sysregs();
        if op0(e) != 3 {
            return Ok(index.find(e));
        }
        if op1(e) == 5 {
            // *_EL12 and *_EL02.
            if self.el() < 2 || !self.has(Feature::Vhe) || !self.e2h() {
                return Err(Trap::Undefined);
            }
            let named = |op1: u16| e & !(7 << 11) | op1 << 11;
            let there = |&&(r, _): &&(u16, u16)| r == named(0) || (r == named(3) && crn(e) == 14);
            return Ok(index.find(REDIRECTED.iter().find(there).ok_or(Trap::Undefined)?.0));
        }
        if self.el() == 2 && matches!(op1(e), 0 | 3) && self.e2h() {
            return Ok(index.find_hosted(e));
        }
        Ok(index.find(e))
    }

    /// Resolves an access: what the register is, or the trap it takes.
    fn resolve(&self, e: u16, write: bool) -> Result<Kind, Trap> {
        let el = self.el();
        let Some(d) = self.reached(e)? else {
            return Err(self.unallocated(e));
        };
        // In its own view EL3 sees registers of an absent EL2 as zero.
        if d.levels >> (el + if write { 4 } else { 0 }) & 1 == 0 {
            // ID registers read at EL0 give EC 0x18 with FEAT_IDST.
            if el == 0 && !write && self.has(Feature::Idst) && op0(e) == 3 && crn(e) == 0 && matches!(op1(e), 0 | 1) {
                return Err(Trap::To(1));
            }
            return Err(Trap::Undefined);
        }
        if op1(e) == 4 && !self.has(Feature::El2) && !matches!(d.kind, Kind::Fun(F::SpEl(_))) {
            return Ok(Kind::Const(0));
        }
        for &t in d.traps {
            self.check_trap(t, e, write)?;
        }
        Ok(d.kind)
    }
    fn unallocated(&self, e: u16) -> Trap {
        // Implementation defined space may be trapped by an EL2.
        let el = self.el();
        if matches!(op0(e), 1 | 3) && matches!(crn(e), 11 | 15) && el <= 1 && self.hcr() & crate::bits::hcr::TIDCP != 0
        {
            return Trap::To(2);
        }
        Trap::Undefined
    }
    fn raise_trap(&mut self, trap: Trap, e: u16, rt: u32, read: bool) {
        match trap {
            Trap::Undefined => self.undefined(),
            Trap::To(el) => self.raise_sync_to(el, syndrome::sysreg(e, rt, read)),
        }
    }
    fn icc_context(&self) -> IccContext {
        IccContext { el: self.el(), secure: self.is_secure(), hcr_el2: self.hcr(), scr_el3: self.scr() }
    }

    /// MRS. `None`: an exception was raised.
    pub fn read_sysreg(&mut self, e: u16, rt: u32) -> Option<u64> {
        let value = self.resolve(e, false).and_then(|kind| match kind {
            Kind::Const(v) => Ok(v),
            Kind::Id(f) => Ok(f(&self.config)),
            Kind::Store(r, _) => Ok(self[r]),
            Kind::Fun(f) => self.read_fun(f),
            Kind::Icc => self.hooks.icc_read(self.index, e, self.icc_context()),
        });
        match value {
            Ok(v) => Some(v),
            Err(trap) => {
                self.raise_trap(trap, e, rt, true);
                None
            }
        }
    }

    /// MSR (register), and system instructions with op0 = 1. False: an exception was raised.
    pub fn write_sysreg(&mut self, e: u16, rt: u32, value: u64) -> bool {
        let done = self.resolve(e, true).and_then(|kind| match kind {
            Kind::Const(_) | Kind::Id(_) => Ok(()),
            Kind::Store(r, mask) => {
                self.store_register(r, mask, value);
                Ok(())
            }
            Kind::Fun(f) => self.write_fun(f, value),
            Kind::Icc => self.hooks.icc_write(self.index, e, self.icc_context(), value),
        });
        match done {
            Ok(()) => self.header.raised == 0,
            Err(trap) => {
                self.raise_trap(trap, e, rt, false);
                false
            }
        }
    }
}
