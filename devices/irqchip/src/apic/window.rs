//! The memory-mapped registers of xAPIC mode, and the region where devices write message-signalled interrupts.

use super::bus::ApicBus;
use super::spec::DEFAULT_BASE;
use rhea_accel::{MsiMessage, MsiTarget};
use rhea_device::log_guest_error;
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use std::sync::Arc;

/// The window at one physical address: the processor that accesses it sees its own APIC.
pub struct Window {
    pub bus: Arc<ApicBus>,
    pub base: u64,
}

/// What a read gives where nothing answers.
const NOTHING: u64 = u64::MAX;

impl MmioDevice for Window {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (cpu, effects) = match access.requester {
            Requester::Cpu(n) => (n, true),
            Requester::Host | Requester::Debugger => (0, false),
            Requester::Device(_) => return Ok(NOTHING),
        };
        let Some(lapic) = self.bus.answering(cpu, self.base).filter(|_| offset < 0x1000) else { return Ok(NOTHING) };
        let register = (offset >> 4) as u32;
        // A register is the first 4 bytes of 16; parts of it are read as they are, the rest is zero.
        let value = match lapic.read_xapic(&self.bus, register, effects) {
            Ok(value) if offset & 15 < 4 => value >> (8 * (offset & 3)),
            Ok(_) => 0,
            Err(_) => {
                if effects {
                    log_guest_error!(self.bus.config.log, "apic", "read of the reserved register {:#x}", register << 4);
                    lapic.illegal_register();
                }
                0
            }
        };
        Ok(value.into())
    }

    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let cpu = match access.requester {
            Requester::Cpu(n) => n,
            Requester::Device(requester_id) => {
                if self.base == DEFAULT_BASE && access.size >= 4 {
                    let address = self.base.wrapping_add(offset);
                    self.bus.send(MsiMessage { address, data: value as u32, requester_id });
                }
                return Ok(());
            }
            Requester::Host | Requester::Debugger => return Err(BusError::Refused),
        };
        let Some(lapic) = self.bus.answering(cpu, self.base).filter(|_| offset < 0x1000) else { return Ok(()) };
        let register = (offset >> 4) as u32;
        if offset & 15 != 0 || access.size < 4 {
            log_guest_error!(self.bus.config.log, "apic", "partial write of the register {:#x}", register << 4);
        } else if lapic.write_xapic(&self.bus, register, value as u32).is_err() {
            log_guest_error!(self.bus.config.log, "apic", "write of the reserved register {:#x}", register << 4);
            lapic.illegal_register();
        }
        Ok(())
    }

    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        "apic"
    }
}
