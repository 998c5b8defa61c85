//! The keyboard controller.

use crate::{A20Gate, InputHub};
use rhea_accel::{IrqLine, VmControl};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, Saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

/// What the controller is wired to.
pub struct I8042Wiring {
    /// Keyboard interrupt.
    pub irq1: IrqLine,
    /// Mouse interrupt.
    pub irq12: IrqLine,
    pub a20: Arc<A20Gate>,
    /// Reset pulses go here.
    pub control: VmControl,
    /// Where keyboard and mouse get their input.
    pub input: Arc<InputHub>,
}

/// The controller: 5 ports at 0x60, of which it answers 0x60 ([`Self::data_port`]) and 0x64 ([`Self::command_port`]).
pub struct I8042 {
    name: String,
}

impl I8042 {
    #[must_use]
    pub fn new(name: &str, _wiring: I8042Wiring, _clock: &Arc<VirtualClock>, _log: Log) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned() })
    }
    /// Port 0x60: one byte.
    #[must_use]
    pub fn data_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Port(self.clone()))
    }
    /// Port 0x64: one byte.
    #[must_use]
    pub fn command_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Port(self.clone()))
    }
}

struct Port(Arc<I8042>);

impl MmioDevice for Port {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        &self.0.name
    }
}

impl Device for I8042 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {}
    fn save(&self) -> Saved {
        Saved::Nothing
    }
    fn load(&self, _state: &Saved) -> Result<(), LoadError> {
        Ok(())
    }
}
