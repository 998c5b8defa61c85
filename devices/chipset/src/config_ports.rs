//! PCI configuration mechanism #1 and the reset control register between its ports.

use parking_lot::Mutex;
use rhea_accel::{ShutdownCause, VmControl};
use rhea_device::{Device, LoadError, Saved, state};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use rhea_pci::{Devfn, PciBus};
use std::sync::Arc;

/// Reset control, port 0xcf9 (ICH9 13.7.5).
pub struct ResetControl {
    value: Mutex<u8>,
    control: VmControl,
}

/// Full reset, reset CPU, system reset.
const RESET_BITS: u8 = 0xe;
const RESET_CPU: u8 = 1 << 2;

impl ResetControl {
    #[must_use]
    pub fn new(control: VmControl) -> Self {
        Self { value: Mutex::new(0), control }
    }
    fn write(&self, value: u8) {
        let old = std::mem::replace(&mut *self.value.lock(), value & RESET_BITS);
        // Soft or hard: here all of the machine is reset.
        if value & !old & RESET_CPU != 0 {
            self.control.reset(ShutdownCause::Guest);
        }
    }
}

/// Ports 0xcf8–0xcff.
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: Mutex<u32>,
    reset: ResetControl,
}

const ENABLE: u32 = 1 << 31;

impl ConfigPorts {
    /// The first port; they take 8.
    pub const PORT: u64 = 0xcf8;

    #[must_use]
    pub fn new(bus: &Arc<PciBus>, reset: ResetControl) -> Arc<Self> {
        Arc::new(Self { bus: bus.clone(), address: Mutex::new(0), reset })
    }
    /// The function and register of an access. The low bits of the address are reserved; some software has them select the byte as
    /// the port does.
    fn target(&self, offset: u64, size: u8) -> Option<(Arc<dyn rhea_pci::PciFunction>, u16)> {
        let address = *self.address.lock();
        if address & ENABLE == 0 {
            return None;
        }
        let function = self.bus.find((address >> 16) as u8, Devfn((address >> 8) as u8))?;
        let register = (address as u16 | offset as u16 & 3) & 0xff;
        Some((function, register & !u16::from(size - 1)))
    }
}

impl MmioDevice for ConfigPorts {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        Ok(match (offset, access.size) {
            (0, 4) => u64::from(*self.address.lock()),
            (1, 1) => u64::from(*self.reset.value.lock()),
            (0..4, _) => u64::MAX,
            (at, size) => match self.target(at, size) {
                Some((function, register)) => u64::from(function.config_read(register, size)),
                None => u64::MAX,
            },
        })
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        match (offset, access.size) {
            (0, 4) => *self.address.lock() = value as u32 & 0x80ff_ffff,
            (1, 1) => self.reset.write(value as u8),
            (0..4, _) => {}
            (at, size) => {
                if let Some((function, register)) = self.target(at, size) {
                    function.config_write(register, size, value as u32);
                }
            }
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 4)
    }
    fn name(&self) -> &str {
        "pci-config-ports"
    }
}

impl Device for ConfigPorts {
    fn name(&self) -> &str {
        "pci-config-ports"
    }
    fn reset(&self) {
        *self.address.lock() = 0;
        *self.reset.value.lock() = 0;
    }
    fn save(&self) -> Saved {
        state::encode(1, &(*self.address.lock(), *self.reset.value.lock()))
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let (address, reset) = state::decode::<(u32, u8)>(saved, 1)?;
        *self.address.lock() = address;
        *self.reset.value.lock() = reset;
        Ok(())
    }
}
