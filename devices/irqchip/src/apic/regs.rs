//! The registers of a local APIC, as both modes see them.

use super::ApicFault;
use super::bus::ApicBus;
use super::lapic::Lapic;
use super::spec::{LVTS, Lvt, VERSION, esr, icr, lvt, reg, svr};
use std::sync::atomic::Ordering::SeqCst;

/// The register does not exist, or cannot be accessed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

impl Lapic {
    /// A register that both modes have. `effects`: as the processor reads it.
    fn read_common(&self, bus: &ApicBus, register: u32, effects: bool) -> Result<u32, Illegal> {
        Ok(match register {
            reg::VERSION => VERSION | (LVTS as u32 - 2 + u32::from(bus.config.cmci)) << 16,
            reg::TPR => self.tpr.load(SeqCst).into(),
            reg::PPR => {
                if effects {
                    self.sync_pv();
                }
                self.ppr().into()
            }
            reg::LDR => self.logical_id(),
            reg::SVR => self.svr.load(SeqCst),
            reg::ISR..=reg::ISR_LAST => {
                if effects {
                    self.sync_pv();
                }
                self.isr.half(register - reg::ISR)
            }
            reg::TMR..=reg::TMR_LAST => self.tmr.half(register - reg::TMR),
            reg::IRR..=reg::IRR_LAST => self.irr.half(register - reg::IRR),
            reg::ESR => self.esr.load(SeqCst),
            reg::LVT_CMCI if !bus.config.cmci => return Err(Illegal),
            reg::TIMER_INITIAL => self.timer.initial(),
            reg::TIMER_CURRENT => {
                let (count, expired) = self.timer.current();
                self.timer_event(expired);
                count
            }
            reg::TIMER_DIVIDE => self.timer.divide(),
            _ => self.lvt(Lvt::of(register).ok_or(Illegal)?),
        })
    }

    /// A read in the xAPIC window.
    pub fn read_xapic(&self, bus: &ApicBus, register: u32, effects: bool) -> Result<u32, Illegal> {
        match register {
            reg::ID => Ok(self.xapic_id.load(SeqCst) << 24),
            reg::DFR => Ok(self.dfr.load(SeqCst)),
            // Not supported since the Pentium 4, without being an illegal address.
            reg::APR | reg::RRD | reg::EOI => Ok(0),
            reg::ICR => Ok(self.icr.load(SeqCst) as u32),
            reg::ICR_HIGH => Ok((self.icr.load(SeqCst) >> 32) as u32),
            _ => self.read_common(bus, register, effects),
        }
    }

    /// A write in the xAPIC window.
    pub fn write_xapic(&self, bus: &ApicBus, register: u32, value: u32) -> Result<(), Illegal> {
        match register {
            reg::EOI => self.end(bus),
            reg::ICR => {
                let high = self.icr.load(SeqCst) & 0xff00_0000_0000_0000;
                self.icr.store(high | u64::from(value & icr::WRITABLE), SeqCst);
                bus.send_icr(self, value, (high >> 56) as u32, false);
            }
            reg::ICR_HIGH => {
                let low = self.icr.load(SeqCst) & 0xffff_ffff;
                self.icr.store(u64::from(value & 0xff00_0000) << 32 | low, SeqCst);
            }
            reg::LDR => {
                self.ldr.store(value & 0xff00_0000, SeqCst);
            }
            reg::DFR => self.dfr.store(value | 0x0fff_ffff, SeqCst),
            reg::ID => bus.rename(self, value >> 24),
            reg::VERSION | reg::APR | reg::PPR | reg::RRD | reg::TIMER_CURRENT => {}
            reg::ISR..=reg::IRR_LAST => {}
            _ => return self.write_common(bus, register, value),
        }
        Ok(())
    }

    fn write_common(&self, bus: &ApicBus, register: u32, value: u32) -> Result<(), Illegal> {
        match register {
            reg::TPR => self.set_tpr(value as u8),
            reg::SVR => self.set_svr(value),
            reg::ESR => self.esr.store(self.errors.swap(0, SeqCst), SeqCst),
            reg::LVT_CMCI if !bus.config.cmci => return Err(Illegal),
            reg::TIMER_INITIAL => self.timer_event(self.timer.set_initial(value)),
            reg::TIMER_DIVIDE => self.timer_event(self.timer.set_divide(value)),
            _ => self.set_lvt(Lvt::of(register).ok_or(Illegal)?, value, bus.config.tsc_deadline),
        }
        Ok(())
    }

    /// RDMSR of `register` + 0x800.
    pub fn read_x2apic(&self, bus: &ApicBus, register: u32) -> Result<u64, ApicFault> {
        if !self.x2apic() {
            return Err(ApicFault);
        }
        match register {
            reg::ID => Ok(self.apic_id.into()),
            reg::ICR => Ok(self.icr.load(SeqCst)),
            _ => self.read_common(bus, register, true).map(u64::from).map_err(|_| ApicFault),
        }
    }

    /// WRMSR of `register` + 0x800: reserved bits fault.
    pub fn write_x2apic(&self, bus: &ApicBus, register: u32, value: u64) -> Result<(), ApicFault> {
        if !self.x2apic() {
            return Err(ApicFault);
        }
        if register == reg::ICR {
            let low = value as u32;
            // The delivery status is read-only, but was no reserved bit in xAPIC mode.
            if low & !(icr::WRITABLE | icr::STATUS) != 0 {
                return Err(ApicFault);
            }
            self.icr.store(value & !u64::from(icr::STATUS), SeqCst);
            bus.send_icr(self, low, (value >> 32) as u32, true);
            return Ok(());
        }
        let value = u32::try_from(value).map_err(|_| ApicFault)?;
        let allowed = match register {
            reg::EOI | reg::ESR => 0,
            reg::TPR | reg::SELF_IPI => 0xff,
            reg::SVR => svr::VECTOR | svr::ENABLE | svr::FOCUS_OFF | svr::NO_EOI_BROADCAST,
            reg::TIMER_INITIAL => u32::MAX,
            reg::TIMER_DIVIDE => 0xb,
            _ => match Lvt::of(register) {
                Some(Lvt::Cmci) if !bus.config.cmci => return Err(ApicFault),
                Some(entry @ (Lvt::Lint0 | Lvt::Lint1)) => entry.writable(false) | lvt::STATUS | lvt::REMOTE_IRR,
                Some(entry) => entry.writable(bus.config.tsc_deadline) | lvt::STATUS,
                None => return Err(ApicFault),
            },
        };
        if value & !allowed != 0 {
            return Err(ApicFault);
        }
        match register {
            reg::EOI => self.end(bus),
            reg::SELF_IPI => bus.send_self(self, value as u8),
            _ => self.write_common(bus, register, value).map_err(|_| ApicFault)?,
        }
        Ok(())
    }

    /// A reserved address of the window was accessed.
    pub fn illegal_register(&self) {
        self.error(esr::ILLEGAL_REGISTER);
    }
}
