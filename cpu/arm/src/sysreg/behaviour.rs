//! Registers whose reads and writes do more than move a value.

use super::{F, TimerField};
use crate::bits::{hcr, pstate};
use crate::config::Feature;
use crate::hooks::{Pin, Trap};
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::timer::TimerId;
use rhea_ir::guest::TlbFlush;

impl ArmCpu {
    pub(super) fn read_fun(&mut self, f: F) -> Result<u64, Trap> {
        let el = self.el();
        let p = self.pstate;
        Ok(match f {
            F::Midr if el == 1 && self.el2_enabled() => self[Reg::VpidrEl2],
            F::Midr => self.config.midr,
            F::Mpidr if el == 1 && self.el2_enabled() => self[Reg::VmpidrEl2],
            F::Mpidr => self.config.mpidr(self.index),
            F::Ctr => self.config.ctr,
            F::Dczid => {
                let forbidden = self.check_trap(super::T::Zva, 0, true).is_err();
                self.config.dczid() | u64::from(forbidden) << 4
            }
            F::Ccsidr => self.config.ccsidr(self[Reg::CsselrEl1]),
            F::CurrentEl => u64::from(el) << 2,
            F::SpSel => u64::from(p & pstate::SP),
            F::Daif => u64::from(p & pstate::DAIF),
            F::Nzcv => u64::from(self.nzcv_bits()),
            F::Fpcr => u64::from(self.fpcr),
            F::Fpsr => u64::from(self.read_fpsr()),
            F::Pan => u64::from(p & pstate::PAN),
            F::Uao => u64::from(p & pstate::UAO),
            F::Dit => u64::from(p & pstate::DIT),
            F::Ssbs => u64::from(p & pstate::SSBS),
            F::SpEl(0) if p & pstate::SP == 0 => return Err(Trap::Undefined),
            F::SpEl(n) => self.read_sp_el(usize::from(n)),
            F::TpidrEl0 => self.tpidr_el0,
            F::TpidrroEl0 => self.tpidrro_el0,
            F::Tpidr(1) => self.tpidr_el1,
            F::Tpidr(2) => self.tpidr_el2,
            F::Tpidr(_) => self.tpidr_el3,
            F::Key(k, half) => self.keys[usize::from(k) % 5][usize::from(half & 1)],
            F::Rvbar(n) if u32::from(n) == self.config.highest_el() => self.config.reset_vector,
            F::Rvbar(_) => return Err(Trap::Undefined),
            F::Isr => self.interrupt_status(),
            F::Cntfrq => self[Reg::CntfrqEl0],
            F::Cntpct => self.timers.physical_count(),
            F::Cntvct => self.read_cntvct(),
            F::Cntvoff => self.timers.cntvoff(),
            F::Timer(id, field) => {
                let id = self.timer_view(id);
                match field {
                    TimerField::Tval => self.timers.tval(id),
                    TimerField::Ctl => u64::from(self.timers.ctl(id)),
                    TimerField::Cval => self.timers.cval(id),
                }
            }
            F::Pmu(r) => self.pmu_read(r),
            F::Oslar => 0,
            F::Oslsr => 8 | (self[Reg::OslarEl1] & 1) << 1,
            F::ClaimSet => 0xff,
            F::ClaimClear => self[Reg::DbgclaimEl1],
            F::Bvr(n) => self.debug.bvr[usize::from(n & 15)],
            F::Bcr(n) => self.debug.bcr[usize::from(n & 15)],
            F::Wvr(n) => self.debug.wvr[usize::from(n & 15)],
            F::Wcr(n) => self.debug.wcr[usize::from(n & 15)],
            F::L2ctlr => u64::from(self.config.cpus.clamp(1, 4) - 1) << 24,
            F::Cbar => {
                let base = self.config.peripheral_base;
                (base & 0xfffc_0000) | (base >> 32 & 0xff)
            }
            F::At(_) | F::Tlbi(..) | F::InstructionCache | F::DataCache(_) | F::SetWay | F::Zva => {
                return Err(Trap::Undefined);
            }
        })
    }

    /// From EL0 of a host, the EL1 timer names reach the timers of EL2.
    fn timer_view(&self, id: TimerId) -> TimerId {
        match id {
            TimerId::Physical if self.el() == 0 && self.in_host() => TimerId::HypPhysical,
            TimerId::Virtual if self.el() == 0 && self.in_host() => TimerId::HypVirtual,
            id => id,
        }
    }
    /// CNTVCT_EL0 without trap checks; hosts see no offset.
    pub(crate) fn read_cntvct(&self) -> u64 {
        let host = match self.el() {
            0 => self.in_host(),
            2 => self.e2h(),
            _ => false,
        };
        if host { self.timers.physical_count() } else { self.timers.virtual_count() }
    }

    fn interrupt_status(&self) -> u64 {
        let levels = self.pins.levels();
        let raised = |pin: Pin| levels & (1 << pin as u32) != 0;
        let h = self.hcr();
        let virtual_view = self.el() == 1;
        // With HCR_EL2.xMO set, EL1 sees virtual interrupts instead of physical ones.
        let irq =
            if virtual_view && h & hcr::IMO != 0 { h & hcr::VI != 0 || raised(Pin::Virq) } else { raised(Pin::Irq) };
        let fiq =
            if virtual_view && h & hcr::FMO != 0 { h & hcr::VF != 0 || raised(Pin::Vfiq) } else { raised(Pin::Fiq) };
        let abort = virtual_view && h & hcr::AMO != 0 && h & hcr::VSE != 0;
        u64::from(irq) << 7 | u64::from(fiq) << 6 | u64::from(abort) << 8
    }

    /// Replaces bits of PSTATE and what follows from it.
    fn change_pstate(&mut self, clear: u32, set: u32) {
        self.set_pstate(self.pstate & !clear | set);
        self.refresh_mode();
        if clear & pstate::DAIF != 0 {
            self.note_unmasked();
        }
    }

    pub(super) fn write_fun(&mut self, f: F, v: u64) -> Result<(), Trap> {
        let bits = v as u32;
        match f {
            F::SpSel => self.change_pstate(pstate::SP, bits & pstate::SP),
            F::Daif => self.change_pstate(pstate::DAIF, bits & pstate::DAIF),
            F::Pan => self.change_pstate(pstate::PAN, bits & pstate::PAN),
            F::Uao => self.change_pstate(pstate::UAO, bits & pstate::UAO),
            F::Dit => self.change_pstate(pstate::DIT, bits & pstate::DIT),
            F::Ssbs => self.change_pstate(pstate::SSBS, bits & pstate::SSBS),
            F::Nzcv => self.set_nzcv_bits(bits),
            F::Fpcr => self.write_fpcr(bits),
            F::Fpsr => self.write_fpsr(bits),
            F::SpEl(0) if self.pstate & pstate::SP == 0 => return Err(Trap::Undefined),
            F::SpEl(n) => self.write_sp_el(usize::from(n), v),
            F::TpidrEl0 => self.tpidr_el0 = v,
            F::TpidrroEl0 => self.tpidrro_el0 = v,
            F::Tpidr(1) => self.tpidr_el1 = v,
            F::Tpidr(2) => self.tpidr_el2 = v,
            F::Tpidr(_) => self.tpidr_el3 = v,
            F::Key(k, half) => self.set_key(k.into(), half.into(), v),
            F::Cntfrq => self[Reg::CntfrqEl0] = v & 0xffff_ffff,
            F::Cntvoff => self.timers.set_cntvoff(v),
            F::Timer(id, field) => {
                let id = self.timer_view(id);
                match field {
                    TimerField::Tval => self.timers.set_tval(id, v),
                    TimerField::Ctl => self.timers.set_ctl(id, bits),
                    TimerField::Cval => self.timers.set_cval(id, v),
                }
            }
            F::Pmu(r) => self.pmu_write(r, v),
            F::Oslar => {
                self[Reg::OslarEl1] = v & 1;
                self.rebuild_mode();
            }
            F::ClaimSet => self[Reg::DbgclaimEl1] |= v & 0xff,
            F::ClaimClear => self[Reg::DbgclaimEl1] &= !v,
            // Bits 1:0 count in a context number; those of an address do not take part in comparisons.
            F::Bvr(n) => self.debug.bvr[usize::from(n & 15)] = v,
            F::Bcr(n) => {
                self.debug.bcr[usize::from(n & 15)] = v & 0x00ff_e1e7;
                self.rebuild_mode();
            }
            F::Wvr(n) => {
                self.debug.wvr[usize::from(n & 15)] = v & !3;
                self.flush(TlbFlush::All, false);
            }
            F::Wcr(n) => {
                self.debug.wcr[usize::from(n & 15)] = v & 0x1fff_ffff & !(0x6 << 20);
                self.flush(TlbFlush::All, false);
            }
            F::At(op) => self.address_translate(v, op),
            F::Tlbi(of, scope, shareable) => self.tlbi(of, scope, v, shareable),
            // Stores invalidate translations of what they overwrite, so there is nothing to do.
            F::InstructionCache | F::SetWay => {}
            F::DataCache(for_write) => self.data_cache(v, for_write),
            F::Zva => self.zero_block(v),
            F::L2ctlr => {}
            // Read-only ones are refused before.
            F::Midr
            | F::Mpidr
            | F::Ctr
            | F::Dczid
            | F::Ccsidr
            | F::CurrentEl
            | F::Rvbar(_)
            | F::Isr
            | F::Cntpct
            | F::Cntvct
            | F::Oslsr
            | F::Cbar => return Err(Trap::Undefined),
        }
        Ok(())
    }

    /// MSR (immediate). False: an exception was raised.
    pub(crate) fn msr_immediate(&mut self, field: u32, imm: u32) -> bool {
        let imm = imm & 15;
        let el = self.el();
        let bit = |mask: u32| if imm & 1 != 0 { mask } else { 0 };
        // op1:op2 as in the instruction.
        let (allowed, clear, set) = match field {
            0b000_011 => (el > 0 && self.has(Feature::Uao), pstate::UAO, bit(pstate::UAO)),
            0b000_100 => (el > 0 && self.has(Feature::Pan), pstate::PAN, bit(pstate::PAN)),
            0b000_101 => (el > 0, pstate::SP, bit(pstate::SP)),
            0b011_001 => (self.has(Feature::Ssbs2), pstate::SSBS, bit(pstate::SSBS)),
            0b011_010 => (self.has(Feature::Dit), pstate::DIT, bit(pstate::DIT)),
            0b011_110 | 0b011_111 => {
                if let Err(trap) = self.check_trap(super::T::Uma, 0, true) {
                    // The syndrome names DAIFSet or DAIFClr.
                    let e = super::enc(0, 3, 4, imm as u16, (field & 7) as u16);
                    self.raise_trap(trap, e, 31, false);
                    return false;
                }
                let mask = imm << 6;
                if field == 0b011_110 { (true, 0, mask) } else { (true, mask, 0) }
            }
            _ => (false, 0, 0),
        };
        if !allowed {
            self.undefined();
            return false;
        }
        self.change_pstate(clear, set);
        true
    }
}
