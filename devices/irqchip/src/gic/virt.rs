//! The virtual CPU interface and its list registers: what GICH and GICV (version 2) and ICH and ICV (version 3) have in common.
//! State is kept in the layouts of version 3 (IHI 0069 section 12.4); those of version 2 are narrower forms of them.

use super::engine::{VFIQ, VIRQ};
use super::irqs::{NONE, SPURIOUS, key};
use super::priority::{IDLE, MIN_BPR, PRIORITY_MASK, active_bit, group_mask, highest_active};
use minicbor::{Decode, Encode};

/// Implemented list registers.
pub const LIST_REGISTERS: usize = 4;

/// Fields of ICH_HCR_EL2 and GICH_HCR.
pub mod hcr {
    pub const EN: u32 = 1;
    pub const UIE: u32 = 1 << 1;
    pub const LRENPIE: u32 = 1 << 2;
    pub const NPIE: u32 = 1 << 3;
    pub const VGRP0EIE: u32 = 1 << 4;
    pub const VGRP0DIE: u32 = 1 << 5;
    pub const VGRP1EIE: u32 = 1 << 6;
    pub const VGRP1DIE: u32 = 1 << 7;
    /// Version 3: trap accesses of common registers, of group 0, of group 1, of DIR.
    pub const TC: u32 = 1 << 10;
    pub const TALL0: u32 = 1 << 11;
    pub const TALL1: u32 = 1 << 12;
    pub const TDIR: u32 = 1 << 14;
    pub const EOICOUNT: u32 = 0x1f << 27;
}

/// Fields of ICH_VMCR_EL2 and GICH_VMCR.
pub mod vmcr {
    pub const ENG0: u32 = 1;
    pub const ENG1: u32 = 1 << 1;
    pub const ACKCTL: u32 = 1 << 2;
    pub const FIQEN: u32 = 1 << 3;
    pub const CBPR: u32 = 1 << 4;
    pub const EOIM: u32 = 1 << 9;
    pub const BPR1_SHIFT: u32 = 18;
    pub const BPR0_SHIFT: u32 = 21;
    pub const PMR_SHIFT: u32 = 24;
}

const LR_PENDING: u64 = 1 << 62;
const LR_ACTIVE: u64 = 1 << 63;
const LR_HW: u64 = 1 << 61;
const LR_GROUP1: u64 = 1 << 60;
const LR_EOI: u64 = 1 << 41;
/// The implemented bits of a list register.
pub const LR_MASK: u64 = 0xf0f8_1fff_ffff_ffff;

/// State of a virtual CPU interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct VirtualCpu {
    #[n(0)]
    pub hcr: u32,
    #[n(1)]
    vmcr: u32,
    /// Active priorities of groups 0 and 1.
    #[n(2)]
    pub apr: [u32; 2],
    #[n(3)]
    pub lr: [u64; LIST_REGISTERS],
}

/// An interrupt to deactivate in the physical distributor.
pub type Physical = Option<u32>;

impl VirtualCpu {
    /// Reset values.
    #[must_use]
    pub fn new() -> Self {
        let mut new = Self::default();
        new.set_vmcr(0);
        new
    }
    #[must_use]
    pub fn vmcr(&self) -> u32 {
        self.vmcr
    }
    /// Writes VMCR; binary points below the smallest read back as that.
    pub fn set_vmcr(&mut self, value: u32) {
        let bpr0 = (value >> vmcr::BPR0_SHIFT & 7).max(u32::from(MIN_BPR));
        let bpr1 = (value >> vmcr::BPR1_SHIFT & 7).max(u32::from(MIN_BPR) + 1);
        let keep = vmcr::ENG0
            | vmcr::ENG1
            | vmcr::ACKCTL
            | vmcr::FIQEN
            | vmcr::CBPR
            | vmcr::EOIM
            | u32::from(PRIORITY_MASK) << vmcr::PMR_SHIFT;
        self.vmcr = value & keep | bpr0 << vmcr::BPR0_SHIFT | bpr1 << vmcr::BPR1_SHIFT;
    }
    #[must_use]
    pub fn vmcr_bit(&self, bit: u32) -> bool {
        self.vmcr & bit != 0
    }
    pub fn set_vmcr_bit(&mut self, bit: u32, value: bool) {
        self.vmcr = if value { self.vmcr | bit } else { self.vmcr & !bit };
    }
    #[must_use]
    pub fn pmr(&self) -> u8 {
        (self.vmcr >> vmcr::PMR_SHIFT) as u8
    }
    pub fn set_pmr(&mut self, value: u8) {
        self.set_vmcr(self.vmcr & 0x00ff_ffff | u32::from(value) << vmcr::PMR_SHIFT);
    }
    /// The binary point as a guest reads it: with CBPR group 1 sees group 0's plus one.
    #[must_use]
    pub fn bpr(&self, group: usize) -> u8 {
        let bpr0 = (self.vmcr >> vmcr::BPR0_SHIFT & 7) as u8;
        match (group, self.vmcr_bit(vmcr::CBPR)) {
            (0, _) => bpr0,
            (_, true) => (bpr0 + 1).min(7),
            (_, false) => (self.vmcr >> vmcr::BPR1_SHIFT & 7) as u8,
        }
    }
    pub fn set_bpr(&mut self, group: usize, value: u8) {
        let shift = if group == 0 { vmcr::BPR0_SHIFT } else { vmcr::BPR1_SHIFT };
        if group == 0 || !self.vmcr_bit(vmcr::CBPR) {
            self.set_vmcr(self.vmcr & !(7 << shift) | u32::from(value & 7) << shift);
        }
    }
    fn mask(&self, group: usize) -> u8 {
        match (group, self.vmcr_bit(vmcr::CBPR)) {
            (0, _) | (_, true) => group_mask((self.vmcr >> vmcr::BPR0_SHIFT & 7) as u8),
            (_, false) => group_mask((self.vmcr >> vmcr::BPR1_SHIFT & 7).wrapping_sub(1).min(7) as u8),
        }
    }
    #[must_use]
    pub fn running_priority(&self) -> u8 {
        highest_active(self.apr[0] | self.apr[1])
    }
    /// The highest priority pending virtual interrupt of the enabled groups: (list register, group).
    fn highest_pending(&self) -> Option<(usize, usize)> {
        let mut best = (NONE, None);
        if self.hcr & hcr::EN == 0 {
            return None;
        }
        for (n, lr) in self.lr.iter().enumerate() {
            let group = usize::from(lr & LR_GROUP1 != 0);
            let enabled = self.vmcr_bit(if group == 0 { vmcr::ENG0 } else { vmcr::ENG1 });
            if lr & (LR_PENDING | LR_ACTIVE) == LR_PENDING && enabled {
                let rank = key((lr >> 48) as u8, n as u32);
                if rank < best.0 {
                    best = (rank, Some((n, group)));
                }
            }
        }
        best.1
    }
    /// The same if its priority is high enough to be signalled.
    fn signalled(&self) -> Option<(usize, usize)> {
        let (n, group) = self.highest_pending()?;
        let priority = (self.lr[n] >> 48) as u8;
        let running = self.running_priority();
        (priority < self.pmr() && (running == IDLE || priority & self.mask(group) < running & self.mask(group)))
            .then_some((n, group))
    }
    /// [`VIRQ`] and [`VFIQ`].
    #[must_use]
    pub fn outputs(&self) -> u8 {
        match self.signalled() {
            Some((_, 0)) if self.vmcr_bit(vmcr::FIQEN) => VFIQ,
            Some(_) => VIRQ,
            None => 0,
        }
    }
    /// HPPIR: INTID (low 32 bits of the list register) and group of the highest priority pending interrupt.
    #[must_use]
    pub fn pending(&self) -> Option<(u32, usize)> {
        self.highest_pending().map(|(n, group)| (self.lr[n] as u32, group))
    }
    /// What an acknowledge would take: INTID and group.
    #[must_use]
    pub fn candidate(&self) -> Option<(u32, usize)> {
        self.signalled().map(|(n, group)| (self.lr[n] as u32, group))
    }
    /// IAR: acknowledges the signalled interrupt if it is of `group` (`None`: of any).
    pub fn acknowledge(&mut self, group: Option<usize>) -> u32 {
        let Some((n, of)) = self.signalled().filter(|(_, of)| group.is_none_or(|g| g == *of)) else { return SPURIOUS };
        let intid = self.lr[n] as u32;
        let priority = (self.lr[n] >> 48) as u8;
        if matches!(intid & 0x00ff_ffff, 1020..=1023) {
            // A hypervisor put a special INTID into a list register.
            self.lr[n] &= !LR_PENDING;
            return SPURIOUS;
        }
        self.apr[of] |= active_bit(priority & self.mask(of));
        self.lr[n] &= !LR_PENDING;
        // Virtual LPIs have no active state.
        if intid < 8192 {
            self.lr[n] |= LR_ACTIVE;
        }
        intid
    }
    /// EOIR: drops the priority and, with EOImode 0, deactivates.
    pub fn end(&mut self, intid: u32, group: Option<usize>) -> Physical {
        if (1020..=1023).contains(&intid) {
            return None;
        }
        let (low, high) = (highest_active(self.apr[0]), highest_active(self.apr[1]));
        let dropped = usize::from(high < low);
        if (low != IDLE || high != IDLE) && group.is_none_or(|g| g == dropped) {
            let apr = &mut self.apr[dropped];
            *apr &= apr.wrapping_sub(1);
        }
        if self.vmcr_bit(vmcr::EOIM) || intid >= 8192 { None } else { self.deactivate(intid) }
    }
    /// DIR, or the deactivation of EOIR.
    pub fn deactivate(&mut self, intid: u32) -> Physical {
        let Some(lr) = self.lr.iter_mut().find(|lr| **lr & LR_ACTIVE != 0 && **lr as u32 == intid) else {
            if !(1020..=1023).contains(&intid) {
                let count = (self.hcr >> 27).wrapping_add(1) & 0x1f;
                self.hcr = self.hcr & !hcr::EOICOUNT | count << 27;
            }
            return None;
        };
        *lr &= !LR_ACTIVE;
        (*lr & LR_HW != 0).then_some((*lr >> 32) as u32 & 0x3ff)
    }
    /// EISR: list registers whose end the hypervisor wants to know of.
    #[must_use]
    pub fn eisr(&self) -> u32 {
        self.lr
            .iter()
            .enumerate()
            .fold(0, |m, (n, lr)| m | u32::from(lr & (LR_PENDING | LR_ACTIVE | LR_HW | LR_EOI) == LR_EOI) << n)
    }
    /// ELRSR: free list registers.
    #[must_use]
    pub fn elrsr(&self) -> u32 {
        let free = |lr: u64| lr & (LR_PENDING | LR_ACTIVE) == 0 && (lr & LR_HW != 0 || lr & LR_EOI == 0);
        self.lr.iter().enumerate().fold(0, |m, (n, lr)| m | u32::from(free(*lr)) << n)
    }
    /// MISR: reasons for the maintenance interrupt.
    #[must_use]
    pub fn misr(&self) -> u32 {
        let on = |bit: u32| self.hcr & bit != 0;
        let valid = self.lr.iter().filter(|lr| **lr & (LR_PENDING | LR_ACTIVE) != 0).count();
        let pending = self.lr.iter().any(|lr| lr & (LR_PENDING | LR_ACTIVE) == LR_PENDING);
        let (group0, group1) = (self.vmcr_bit(vmcr::ENG0), self.vmcr_bit(vmcr::ENG1));
        u32::from(self.eisr() != 0)
            | u32::from(on(hcr::UIE) && valid <= 1) << 1
            | u32::from(on(hcr::LRENPIE) && self.hcr & hcr::EOICOUNT != 0) << 2
            | u32::from(on(hcr::NPIE) && !pending) << 3
            | u32::from(on(hcr::VGRP0EIE) && group0) << 4
            | u32::from(on(hcr::VGRP0DIE) && !group0) << 5
            | u32::from(on(hcr::VGRP1EIE) && group1) << 6
            | u32::from(on(hcr::VGRP1DIE) && !group1) << 7
    }
    /// The level of the maintenance interrupt.
    #[must_use]
    pub fn maintenance(&self) -> bool {
        self.hcr & hcr::EN != 0 && self.misr() != 0
    }
    /// One line for `info pic`; empty if the interface is off.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.hcr & hcr::EN == 0 {
            return String::new();
        }
        format!(" virtual: hcr={:#x} vmcr={:#x} apr={:x?} lr={:x?}", self.hcr, self.vmcr, self.apr, self.lr)
    }
    /// The priority of the signalled interrupt, for tests.
    #[cfg(test)]
    pub(crate) fn signalled_priority(&self) -> u8 {
        self.signalled().map_or(IDLE, |(n, _)| (self.lr[n] >> 48) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn lr(intid: u32, priority: u8, group1: bool) -> u64 {
        LR_PENDING | u64::from(group1) << 60 | u64::from(priority) << 48 | u64::from(intid)
    }
    fn on() -> VirtualCpu {
        let mut v = VirtualCpu::new();
        v.hcr = hcr::EN;
        v.set_vmcr(vmcr::ENG0 | vmcr::ENG1 | vmcr::FIQEN | 0xf8 << vmcr::PMR_SHIFT);
        v
    }

    #[test]
    fn delivers_the_best_and_preempts() {
        let mut v = on();
        v.lr = [lr(40, 0xa0, true), lr(27, 0x80, true), 0, lr(50, 0xf8, false)];
        assert_eq!((v.outputs(), v.signalled_priority()), (VIRQ, 0x80));
        assert_eq!(v.acknowledge(Some(0)), SPURIOUS);
        assert_eq!(v.acknowledge(Some(1)), 27);
        assert_eq!(v.outputs(), 0, "0xa0 does not preempt 0x80");
        v.lr[2] = lr(9, 0x20, false);
        assert_eq!(v.outputs(), VFIQ);
        assert_eq!(v.acknowledge(None), 9);
        assert_eq!(v.running_priority(), 0x20);
        assert_eq!(v.end(9, Some(0)), None);
        assert_eq!(v.end(27, Some(1)), None);
        assert_eq!((v.running_priority(), v.lr[1] >> 62, v.acknowledge(None)), (IDLE, 0, 40));
    }

    #[test]
    fn hardware_interrupts_and_maintenance() {
        let mut v = on();
        v.lr[0] = lr(27, 0x80, true) | LR_HW | 27 << 32;
        v.lr[1] = lr(40, 0xa0, true) | LR_EOI;
        assert_eq!(v.acknowledge(None), 27);
        assert_eq!(v.end(27, None), Some(27));
        assert_eq!(v.acknowledge(None), 40);
        assert!(!v.maintenance());
        assert_eq!(v.end(40, None), None);
        assert!(v.maintenance());
        assert_eq!((v.eisr(), v.elrsr(), v.misr()), (2, 0b1101, 1));
        v.lr[1] = 0;
        v.hcr |= hcr::LRENPIE;
        v.deactivate(77);
        assert_eq!((v.misr(), v.hcr >> 27), (4, 1));
    }
}
