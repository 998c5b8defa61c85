//! The physical CPU interface of a PE: registers, signalling, and what each register access does (IHI 0069 chapter 4, section 12.2).

use super::super::engine::{CpuCore, CpuInterface, FIQ, IRQ};
use super::super::irqs::{GROUP0, GROUP1_NS, GROUP1_S, SPURIOUS, key_intid, key_priority};
use super::super::priority::{
    IDLE, MIN_BPR, PRIORITY_BITS, PRIORITY_MASK, active_bit, from_nonsecure, group_mask, highest_active,
};
use super::super::virt::VirtualCpu;
use super::lpi::Lpis;
use super::sysreg::{IccContext, IccReg};
use minicbor::{Decode, Encode};

/// The registers. Arrays are indexed by group: 0, Secure 1, Non-secure 1.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IccRegs {
    /// Bit n: group n is enabled.
    #[n(0)]
    pub igrpen: u8,
    #[n(1)]
    pub pmr: u8,
    #[n(2)]
    pub bpr: [u8; 3],
    #[n(3)]
    pub apr: [u32; 3],
    /// CBPR and EOImode for Secure and Non-secure EL1.
    #[n(4)]
    pub cbpr: [bool; 2],
    #[n(5)]
    pub eoi_mode: [bool; 2],
    #[n(6)]
    pub eoi_mode_el3: bool,
    #[n(7)]
    pub pmhe: bool,
    #[n(8)]
    pub rm: bool,
}

impl Default for IccRegs {
    fn default() -> Self {
        Self {
            igrpen: 0,
            pmr: 0,
            bpr: [MIN_BPR, MIN_BPR, MIN_BPR + 1],
            apr: [0; 3],
            cbpr: [false; 2],
            eoi_mode: [false; 2],
            eoi_mode_el3: false,
            pmhe: false,
            rm: false,
        }
    }
}

/// Index of the Secure and of the Non-secure copy.
const S: usize = 0;
const NS: usize = 1;

/// The interfaces of one PE and what its redistributor holds besides SGIs and PPIs.
pub struct Icc {
    pub regs: IccRegs,
    pub virt: VirtualCpu,
    pub lpis: Lpis,
    /// GICR_WAKER.ProcessorSleep.
    pub asleep: bool,
    /// GICR_CTLR.DPG0, DPG1NS, DPG1S as bits of groups 0, 2, 1.
    pub dpg: u8,
    /// Two security states (GICD_CTLR.DS = 0).
    pub two_states: bool,
    /// The PE is at EL3, and in Secure state.
    pub at_el3: bool,
    pub secure: bool,
    /// The mask of the maintenance PPI in the private word, 0 without virtualization.
    pub maintenance: u32,
}

impl CpuInterface for Icc {
    fn outputs(&self, best: [u32; 3], enables: u8) -> u8 {
        let physical = match self.signalled(best, enables) {
            None => 0,
            Some((_, GROUP0)) => FIQ,
            Some(_) if !self.two_states => IRQ,
            Some((_, GROUP1_S)) => {
                if self.secure && !self.at_el3 {
                    IRQ
                } else {
                    FIQ
                }
            }
            Some(_) => {
                if self.secure || self.at_el3 {
                    FIQ
                } else {
                    IRQ
                }
            }
        };
        physical | self.virt.outputs()
    }
    fn best_lpi(&self) -> u32 {
        self.lpis.best()
    }
    fn accepts(&self) -> u8 {
        if self.asleep { 0 } else { self.regs.igrpen & !self.dpg }
    }
    fn own_ppis(&self) -> (u32, u32) {
        (self.maintenance, if self.virt.maintenance() { self.maintenance } else { 0 })
    }
}

impl Icc {
    /// The group that register names ending in 1 mean for this access.
    pub fn group1(&self, ctx: &IccContext) -> usize {
        if self.two_states && ctx.bank_secure() { GROUP1_S } else { GROUP1_NS }
    }
    /// Which copy of ICC_CTLR_EL1.
    fn copy(&self, ctx: &IccContext) -> usize {
        if self.two_states && ctx.bank_secure() { S } else { NS }
    }
    fn mask(&self, group: usize) -> u8 {
        match group {
            GROUP0 => group_mask(self.regs.bpr[GROUP0]),
            GROUP1_S if self.regs.cbpr[S] => group_mask(self.regs.bpr[GROUP0]),
            GROUP1_S => group_mask(self.regs.bpr[GROUP1_S]),
            _ if self.regs.cbpr[NS] => group_mask(self.regs.bpr[GROUP0]),
            _ => group_mask(self.regs.bpr[GROUP1_NS].saturating_sub(1)),
        }
    }
    pub fn running(&self) -> u8 {
        highest_active(self.regs.apr[0] | self.regs.apr[1] | self.regs.apr[2])
    }
    /// The highest priority pending interrupt of the enabled groups: key and group.
    pub fn pending(&self, best: [u32; 3], enables: u8) -> Option<(u32, usize)> {
        if self.asleep {
            return None;
        }
        let on = enables & self.regs.igrpen;
        let (key, group) = (0..3).filter(|g| on >> g & 1 != 0).map(|g| (best[g], g)).min()?;
        (key != super::super::irqs::NONE).then_some((key, group))
    }
    /// The same, if its priority lets it be signalled.
    #[inline]
    pub fn signalled(&self, best: [u32; 3], enables: u8) -> Option<(u32, usize)> {
        let (key, group) = self.pending(best, enables)?;
        let (priority, mask, running) = (key_priority(key), self.mask(group), self.running());
        (priority < self.regs.pmr && (running == IDLE || priority & mask < running & mask)).then_some((key, group))
    }
    /// What a read of IAR or HPPIR answers for an interrupt: its INTID, or the special INTID.
    fn visible(&self, found: Option<(u32, usize)>, group1: bool, ctx: &IccContext) -> Result<u32, u32> {
        let Some((key, group)) = found else { return Err(SPURIOUS) };
        if group1 {
            return if group == self.group1(ctx) { Ok(key_intid(key)) } else { Err(SPURIOUS) };
        }
        match group {
            GROUP0 if self.two_states && !ctx.secure && ctx.el < 3 => Err(SPURIOUS),
            GROUP0 => Ok(key_intid(key)),
            GROUP1_S if ctx.el == 3 => Err(1020),
            _ if ctx.el == 3 && self.two_states => Err(1021),
            _ => Err(SPURIOUS),
        }
    }
    /// What IAR would acknowledge.
    pub fn select(core: &CpuCore<Self>, enables: u8, group1: bool, ctx: &IccContext) -> Result<u32, u32> {
        core.iface.visible(core.iface.signalled(core.best(), enables), group1, ctx)
    }
    /// HPPIR.
    pub fn highest_pending(core: &CpuCore<Self>, enables: u8, group1: bool, ctx: &IccContext) -> u32 {
        core.iface.visible(core.iface.pending(core.best(), enables), group1, ctx).unwrap_or_else(|special| special)
    }
    /// The CPU interface's part of an acknowledge.
    pub fn take(core: &mut CpuCore<Self>, intid: u32, enables: u8) -> u32 {
        if let Some((key, group)) = core.iface.signalled(core.best(), enables) {
            let bit = active_bit(key_priority(key) & core.iface.mask(group));
            core.iface.regs.apr[group] |= bit;
        }
        if intid >= super::lpi::FIRST {
            core.iface.lpis.clear_pending(intid);
        }
        intid
    }
    /// Does EOIR deactivate too?
    pub fn eoi_deactivates(&self, ctx: &IccContext) -> bool {
        !if ctx.el == 3 { self.regs.eoi_mode_el3 } else { self.regs.eoi_mode[self.copy(ctx)] }
    }
    /// The priority drop of EOIR; false if the highest active priority is of another group (the write is ignored).
    pub fn drop_priority(&mut self, group1: bool, ctx: &IccContext) -> bool {
        let group = (0..3).min_by_key(|g| highest_active(self.regs.apr[*g])).unwrap_or(0);
        let wanted = if group1 { self.group1(ctx) } else { GROUP0 };
        if self.regs.apr[group] == 0 || group != wanted {
            return false;
        }
        self.regs.apr[group] &= self.regs.apr[group].wrapping_sub(1);
        true
    }
    /// A priority as the access sees it.
    fn view(priority: u8, two_states: bool, ctx: &IccContext) -> u8 {
        match () {
            () if !(two_states && ctx.shifted()) => priority,
            () if priority & 0x80 == 0 => 0,
            () => priority << 1,
        }
    }
    /// ICC_CTLR_EL1 and ICC_CTLR_EL3: priority bits, 16 INTID bits, affinity level 3.
    const CTLR_FIXED: u64 = (PRIORITY_BITS as u64 - 1) << 8 | 1 << 15;

    /// Reads a register without side effects; registers that need more than the PE's own state are not handled here.
    pub fn read(&self, reg: IccReg, ctx: &IccContext) -> u64 {
        let regs = &self.regs;
        let copy = self.copy(ctx);
        match reg {
            IccReg::Pmr => Self::view(regs.pmr, self.two_states, ctx).into(),
            IccReg::Rpr => match self.running() {
                IDLE => IDLE.into(),
                running => Self::view(running, self.two_states, ctx).into(),
            },
            IccReg::Bpr(0) => regs.bpr[GROUP0].into(),
            IccReg::Bpr(_) => match (self.group1(ctx), regs.cbpr[copy]) {
                (GROUP1_S, true) => regs.bpr[GROUP0].into(),
                (_, true) => (regs.bpr[GROUP0] + 1).min(7).into(),
                (group, false) => regs.bpr[group].into(),
            },
            IccReg::Ap(0, 0) => regs.apr[GROUP0].into(),
            IccReg::Ap(1, 0) => regs.apr[self.group1(ctx)].into(),
            IccReg::Ctlr => {
                Self::CTLR_FIXED
                    | u64::from(regs.cbpr[copy])
                    | u64::from(regs.eoi_mode[copy]) << 1
                    | u64::from(regs.pmhe) << 6
            }
            IccReg::CtlrEl3 => {
                Self::CTLR_FIXED
                    | u64::from(regs.cbpr[S])
                    | u64::from(regs.cbpr[NS]) << 1
                    | u64::from(regs.eoi_mode_el3) << 2
                    | u64::from(regs.eoi_mode[S]) << 3
                    | u64::from(regs.eoi_mode[NS]) << 4
                    | u64::from(regs.rm) << 5
                    | u64::from(regs.pmhe) << 6
            }
            IccReg::Igrpen(0) => u64::from(regs.igrpen & 1),
            IccReg::Igrpen(_) => u64::from(regs.igrpen >> self.group1(ctx) & 1),
            IccReg::Igrpen1El3 => u64::from(regs.igrpen >> GROUP1_NS & 1) | u64::from(regs.igrpen >> GROUP1_S & 1) << 1,
            // System registers only: SRE, DFB, DIB (and Enable) are always one.
            IccReg::Sre => 7,
            IccReg::SreEl2 | IccReg::SreEl3 => 15,
            _ => 0,
        }
    }
    fn set_group(&mut self, group: usize, on: bool) {
        self.regs.igrpen = self.regs.igrpen & !(1 << group) | u8::from(on) << group;
    }
    /// Writes a register of the PE's own state.
    pub fn write(&mut self, reg: IccReg, value: u64, ctx: &IccContext) {
        let bit = |n: u32| value >> n & 1 != 0;
        let (copy, group1) = (self.copy(ctx), self.group1(ctx));
        // PMHE belongs to EL3 where there are two security states.
        let common = !self.two_states;
        let regs = &mut self.regs;
        match reg {
            IccReg::Pmr => {
                let value = value as u8;
                if !(self.two_states && ctx.shifted()) {
                    regs.pmr = value & PRIORITY_MASK;
                } else if regs.pmr & 0x80 != 0 {
                    regs.pmr = from_nonsecure(value) & PRIORITY_MASK;
                }
            }
            IccReg::Bpr(0) => regs.bpr[GROUP0] = (value as u8 & 7).max(MIN_BPR),
            IccReg::Bpr(_) => match (group1, regs.cbpr[copy]) {
                (GROUP1_S, true) => regs.bpr[GROUP0] = (value as u8 & 7).max(MIN_BPR),
                (_, true) => {}
                (group, false) => {
                    regs.bpr[group] = (value as u8 & 7).max(if group == GROUP1_NS { MIN_BPR + 1 } else { MIN_BPR })
                }
            },
            IccReg::Ap(0, 0) => regs.apr[GROUP0] = value as u32,
            IccReg::Ap(1, 0) => regs.apr[group1] = value as u32,
            IccReg::Ctlr => {
                // CBPR of Non-secure EL1 belongs to EL3 where there are two security states.
                if copy == S || common {
                    regs.cbpr[copy] = bit(0);
                }
                if copy == S || common {
                    regs.pmhe = bit(6);
                }
                regs.eoi_mode[copy] = bit(1);
            }
            IccReg::CtlrEl3 => {
                regs.cbpr = [bit(0), bit(1)];
                regs.eoi_mode_el3 = bit(2);
                regs.eoi_mode = [bit(3), bit(4)];
                regs.rm = bit(5);
                regs.pmhe = bit(6);
            }
            IccReg::Igrpen(0) => self.set_group(GROUP0, bit(0)),
            IccReg::Igrpen(_) => self.set_group(group1, bit(0)),
            IccReg::Igrpen1El3 => {
                self.set_group(GROUP1_NS, bit(0));
                self.set_group(GROUP1_S, bit(1));
            }
            _ => {}
        }
    }
}
