//! Exception entry, return and routing (DDI 0487 D1; pseudocode AArch64.TakeException, AArch64.ExceptionReturn).

use crate::bits::{self, hcr, pstate, scr, sctlr};
use crate::config::Feature;
use crate::hooks::{Conduit, Pin};
use crate::reg::{Reg, family};
use crate::state::ArmCpu;
use crate::syndrome::{self, ec, syndrome};

/// Which entry of a group of four in the vector table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vector {
    Sync = 0,
    Irq = 0x80,
    Fiq = 0x100,
    SError = 0x180,
}

impl ArmCpu {
    /// Takes an exception to `target` with the given preferred return address.
    pub fn take_exception(&mut self, target: u32, vector: Vector, esr: Option<u64>, far: Option<u64>, elr: u64) {
        let from = self.el();
        debug_assert!(target >= from && target > 0);
        let spsr = u64::from(self.spsr());
        let group = if from < target {
            0x400
        } else if self.pstate & pstate::SP != 0 {
            0x200
        } else {
            0
        };
        self.set_sys_of(family::SPSR, target, spsr);
        self.set_sys_of(family::ELR, target, elr);
        if let Some(esr) = esr {
            self.set_sys_of(family::ESR, target, esr);
        }
        if let Some(far) = far {
            self.set_sys_of(family::FAR, target, far);
        }
        let control = self.sys_of(family::SCTLR, target);
        let mut p =
            (target << pstate::EL_SHIFT) | pstate::SP | pstate::DAIF | (self.pstate & (pstate::PAN | pstate::DIT));
        let host = target == 2 && self.in_host();
        if self.has(Feature::Pan) && (target == 1 || host) && control & sctlr::SPAN == 0 {
            p |= pstate::PAN;
        }
        if self.has(Feature::Ssbs) && control & sctlr::DSSBS != 0 {
            p |= pstate::SSBS;
        }
        self.set_pstate(p);
        self.btype = 0;
        self.header.pc = (self.sys_of(family::VBAR, target) & !0x7ff).wrapping_add(group + vector as u64);
        self.header.raised = 1;
        self.halted = false;
        self.refresh_mode();
        if self.tells_exceptions {
            self.tell_exception(vector, from, target, esr, far, elr);
        }
    }

    #[cold]
    fn tell_exception(&self, vector: Vector, from: u32, to: u32, esr: Option<u64>, far: Option<u64>, elr: u64) {
        let mut text = format!("{vector:?} exception from EL{from} to EL{to}, PC {:#x}, ELR {elr:#x}", self.header.pc);
        if let Some(esr) = esr {
            text += &format!(", ESR {:#x}/{esr:#010x}", esr >> 26);
        }
        if let Some(far) = far {
            text += &format!(", FAR {far:#x}");
        }
        let hooks = self.hooks.clone();
        hooks.exception(self.index, &text);
    }

    /// Where a synchronous exception without a rule of its own goes: the current level, EL1 from EL0, EL2 from a host's EL0.
    pub(crate) fn default_target(&self) -> u32 {
        match self.el() {
            0 if self.hcr() & hcr::TGE != 0 => 2,
            el => el.max(1),
        }
    }
    /// A synchronous exception returning to the current instruction.
    pub(crate) fn raise_sync(&mut self, esr: u64) {
        let target = self.default_target();
        self.take_exception(target, Vector::Sync, Some(esr), None, self.header.pc);
    }
    /// The same to a given level; EL1 stands for the default from EL0.
    pub(crate) fn raise_sync_to(&mut self, target: u32, esr: u64) {
        let target = if target <= 1 { self.default_target() } else { target.max(self.el()) };
        self.take_exception(target, Vector::Sync, Some(esr), None, self.header.pc);
    }
    /// The pc is misaligned (FAR holds it).
    pub(crate) fn raise_pc_alignment(&mut self) {
        let (target, pc) = (self.default_target(), self.header.pc);
        self.take_exception(target, Vector::Sync, Some(syndrome(ec::PC_ALIGNMENT, 0)), Some(pc), pc);
    }
    pub(crate) fn undefined(&mut self) {
        self.raise_sync(syndrome(ec::UNKNOWN, 0));
    }

    // ---- calls ----

    pub(crate) fn svc(&mut self, imm: u32) {
        let (target, pc) = (self.default_target(), self.header.pc.wrapping_add(4));
        self.take_exception(target, Vector::Sync, Some(syndrome(ec::SVC, u64::from(imm & 0xffff))), None, pc);
    }
    fn firmware(&mut self, conduit: Conduit) -> bool {
        if self.conduit != Some(conduit) {
            return false;
        }
        let pc = self.header.pc;
        self.header.pc = pc.wrapping_add(4);
        let hooks = self.hooks.clone();
        let handled = hooks.firmware_call(self, conduit);
        if !handled {
            self.header.pc = pc;
        }
        handled
    }
    pub(crate) fn hvc(&mut self, imm: u32) {
        let el = self.el();
        if el == 0 {
            return self.undefined();
        }
        if self.firmware(Conduit::Hvc) {
            return;
        }
        let enabled =
            if self.has(Feature::El3) { self[Reg::ScrEl3] & scr::HCE != 0 } else { self.hcr() & hcr::HCD == 0 };
        let exists = self.has(Feature::El2) && (el == 3 || self.el2_enabled());
        if !exists || !enabled {
            return self.undefined();
        }
        let pc = self.header.pc.wrapping_add(4);
        self.take_exception(el.max(2), Vector::Sync, Some(syndrome(ec::HVC, u64::from(imm & 0xffff))), None, pc);
    }
    pub(crate) fn smc(&mut self, imm: u32) {
        let el = self.el();
        if el == 0 {
            return self.undefined();
        }
        let esr = syndrome(ec::SMC, u64::from(imm & 0xffff));
        if el == 1 && self.hcr() & hcr::TSC != 0 && (self.has(Feature::El3) || self.conduit == Some(Conduit::Smc)) {
            return self.raise_sync_to(2, esr);
        }
        if self.firmware(Conduit::Smc) {
            return;
        }
        if !self.has(Feature::El3) || self[Reg::ScrEl3] & scr::SMD != 0 {
            return self.undefined();
        }
        let pc = self.header.pc.wrapping_add(4);
        self.take_exception(3, Vector::Sync, Some(esr), None, pc);
    }
    pub(crate) fn brk(&mut self, imm: u32) {
        // A breakpoint instruction goes where debug exceptions go, or stays at a higher level.
        let target = self.debug_target().max(self.el());
        self.take_exception(
            target,
            Vector::Sync,
            Some(syndrome(ec::BRK, u64::from(imm & 0xffff))),
            None,
            self.header.pc,
        );
    }
    pub(crate) fn fp_trap(&mut self) {
        let el = self.el();
        match self.fp_trap_el(el) {
            0 => self.undefined(),
            1 if el == 0 && self.hcr() & hcr::TGE != 0 => self.undefined(),
            target => self.raise_sync_to(target, syndrome::FP_ACCESS),
        }
    }

    // ---- waiting ----

    /// WFI 0, WFE 1, WFIT 2, WFET 3: true if it trapped.
    pub(crate) fn wfx_traps(&mut self, kind: u64, rn: Option<u32>) -> bool {
        let el = self.el();
        let event = kind & 1 != 0;
        let esr = syndrome::wfx(kind, rn);
        if el == 0 {
            let control = self.sys_of(family::SCTLR, self.regime_el(0));
            if control & if event { sctlr::NTWE } else { sctlr::NTWI } == 0 {
                self.raise_sync(esr);
                return true;
            }
        }
        if el <= 1 && self.hcr() & if event { hcr::TWE } else { hcr::TWI } != 0 {
            self.raise_sync_to(2, esr);
            return true;
        }
        if el < 3 && self.has(Feature::El3) && self[Reg::ScrEl3] & if event { scr::TWE } else { scr::TWI } != 0 {
            self.raise_sync_to(3, esr);
            return true;
        }
        false
    }

    // ---- return ----

    /// Is a return to `spsr` from the current level illegal?
    fn illegal_return(&self, spsr: u32) -> bool {
        let target = (spsr >> pstate::EL_SHIFT) & 3;
        // AArch32 is not implemented; M[1] is reserved; EL0 has one stack pointer.
        if spsr & pstate::NRW != 0 || spsr & 2 != 0 || (target == 0 && spsr & pstate::SP != 0) {
            return true;
        }
        target > self.el()
            || (target == 3 && !self.has(Feature::El3))
            || (target == 2 && !self.el2_enabled())
            || (target == 1 && self.hcr() & hcr::TGE != 0)
    }

    /// ERET to `pc`; the caller has checked that the current level is not EL0.
    pub(crate) fn exception_return(&mut self, pc: u64) {
        let el = self.el();
        let spsr = self.sys_of(family::SPSR, el.max(1)) as u32;
        let illegal = self.illegal_return(spsr);
        let target = (spsr >> pstate::EL_SHIFT) & 3;
        let step = !illegal
            && self[Reg::MdscrEl1] & bits::mdscr::SS != 0
            && !self.debug_enabled(el)
            && self.debug_enabled_with(target, spsr & pstate::D != 0);
        let mut keep = pstate::DAIF | pstate::IL;
        for (feature, bit) in [
            (Feature::Pan, pstate::PAN),
            (Feature::Uao, pstate::UAO),
            (Feature::Dit, pstate::DIT),
            (Feature::Ssbs, pstate::SSBS),
        ] {
            if self.has(feature) {
                keep |= bit;
            }
        }
        let mut p = spsr & keep;
        if illegal {
            p |= pstate::IL | (self.pstate & (3 << pstate::EL_SHIFT | pstate::SP));
        } else {
            p |= spsr & (3 << pstate::EL_SHIFT | pstate::SP);
        }
        if step {
            p |= spsr & pstate::SS;
        }
        self.set_pstate(p);
        self.set_nzcv_bits(spsr);
        self.btype = if self.has(Feature::Bti) { (spsr >> pstate::BTYPE_SHIFT) & 3 } else { 0 };
        self.excl_size = 0;
        self.event = true;
        self.refresh_mode();
        self.header.pc = self.branch_address(pc);
        // A masked interrupt may be unmasked now.
        self.note_unmasked();
    }

    /// AArch64.BranchAddr: a branch target without its tag.
    pub(crate) fn branch_address(&self, pc: u64) -> u64 {
        let mode = crate::mode::ArmMode(self.header.mode);
        let high = pc & (1 << 55) != 0;
        if !(if high { mode.tbii1() } else { mode.tbii0() }) {
            pc
        } else if mode.two_ranges() && high {
            pc | 0xff << 56
        } else {
            pc & !(0xff << 56)
        }
    }

    // ---- interrupts ----

    /// Is an interrupt pending, masked or not?
    #[inline]
    fn interrupt_pending(&self) -> bool {
        self.pins.levels() != 0 || self[Reg::HcrEl2] & (hcr::VI | hcr::VF | hcr::VSE) != 0
    }
    /// Asks for `poll` if an interrupt is waiting that the new PSTATE may let through.
    pub(crate) fn note_unmasked(&mut self) {
        let pending = self.interrupt_pending();
        self.interrupt_waits = pending.into();
        if pending {
            self.request(rhea_ir::guest::request::INTERRUPT);
        }
    }
    /// For `poll`, which is called after each rise of a pin.
    pub(crate) fn note_pending(&mut self) {
        self.interrupt_waits = self.interrupt_pending().into();
    }

    /// The level a physical interrupt goes to, if it is not masked.
    fn physical_target(&self, scr_bit: u64, hcr_bit: u64, mask: u32) -> Option<u32> {
        let el = self.el();
        let h = self.hcr();
        let target = if self.has(Feature::El3) && self[Reg::ScrEl3] & scr_bit != 0 {
            3
        } else if self.el2_enabled() && (h & hcr_bit != 0 || h & hcr::TGE != 0) {
            2
        } else {
            1
        };
        let masked = self.pstate & mask != 0;
        let unmaskable = target > el && (target == 3 || (target == 2 && !self.in_host()));
        (target >= el && (unmaskable || !masked)).then_some(target)
    }

    /// Takes the most urgent unmasked interrupt, if any.
    pub(crate) fn take_interrupt(&mut self) -> bool {
        let levels = self.pins.levels();
        let raised = |pin: Pin| levels & (1 << pin as u32) != 0;
        let h = self.hcr();
        let pc = self.header.pc;
        if raised(Pin::Fiq)
            && let Some(target) = self.physical_target(scr::FIQ, hcr::FMO, pstate::F)
        {
            self.take_exception(target, Vector::Fiq, None, None, pc);
            return true;
        }
        if raised(Pin::Irq)
            && let Some(target) = self.physical_target(scr::IRQ, hcr::IMO, pstate::I)
        {
            self.take_exception(target, Vector::Irq, None, None, pc);
            return true;
        }
        // Virtual interrupts exist for EL1 and EL0 below an EL2.
        if self.el() > 1 || h & hcr::TGE != 0 || h & (hcr::AMO | hcr::IMO | hcr::FMO) == 0 {
            return false;
        }
        if h & hcr::VSE != 0 && h & hcr::AMO != 0 && self.pstate & pstate::A == 0 {
            self[Reg::HcrEl2] &= !hcr::VSE;
            self.take_exception(1, Vector::SError, Some(syndrome(ec::SERROR, 0)), None, pc);
            return true;
        }
        if h & hcr::FMO != 0 && (h & hcr::VF != 0 || raised(Pin::Vfiq)) && self.pstate & pstate::F == 0 {
            self.take_exception(1, Vector::Fiq, None, None, pc);
            return true;
        }
        if h & hcr::IMO != 0 && (h & hcr::VI != 0 || raised(Pin::Virq)) && self.pstate & pstate::I == 0 {
            self.take_exception(1, Vector::Irq, None, None, pc);
            return true;
        }
        false
    }

    /// Is there anything that ends WFI (whether masked by PSTATE or not)?
    pub(crate) fn wake_pending(&self) -> bool {
        let levels = self.pins.levels();
        if levels & 0b11 != 0 {
            return true;
        }
        let h = self.hcr();
        self.el() <= 1
            && ((h & hcr::IMO != 0 && (h & hcr::VI != 0 || levels & (1 << Pin::Virq as u32) != 0))
                || (h & hcr::FMO != 0 && (h & hcr::VF != 0 || levels & (1 << Pin::Vfiq as u32) != 0))
                || h & (hcr::AMO | hcr::VSE) == hcr::AMO | hcr::VSE)
    }
}
