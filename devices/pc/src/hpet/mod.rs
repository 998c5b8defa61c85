//! High-precision event timers (IA-PC HPET specification 1.0a).

use rhea_accel::{IrqLine, MsiTarget};
use rhea_clock::VirtualClock;
use rhea_device::{Device, LoadError, Log, Saved};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::Arc;

/// How the timers are built.
#[derive(Clone)]
pub struct HpetOptions {
    /// 3 to 32.
    pub timers: u8,
    /// The I/O APIC inputs timers can be routed to, a bit for each.
    pub routes: u32,
    /// Where FSB interrupts go; none: the timers do not offer them.
    pub msi: Option<Arc<dyn MsiTarget>>,
}

impl Default for HpetOptions {
    /// 3 timers, inputs 2, 8 and 16 to 23, no FSB interrupts.
    fn default() -> Self {
        Self { timers: 3, routes: 0x00ff_0104, msi: None }
    }
}

/// The outputs of the timers.
pub struct HpetLines {
    /// I/O APIC inputs by number; those beyond are unconnected.
    pub inputs: Vec<IrqLine>,
    /// Timer 0 with legacy replacement: clones of the lines of the interval timer and the real-time clock.
    pub irq0: IrqLine,
    /// Timer 1 with legacy replacement.
    pub irq8: IrqLine,
    /// Told when legacy replacement is switched: the board blocks or unblocks the two devices ([`crate::Pit::set_irq_blocked`]).
    pub legacy: Box<dyn Fn(bool) + Send + Sync>,
}

/// The timers: a window of 1 KiB.
pub struct Hpet {
    name: String,
}

impl Hpet {
    #[must_use]
    pub fn new(
        name: &str,
        _options: HpetOptions,
        _lines: HpetLines,
        _clock: &Arc<VirtualClock>,
        _log: Log,
    ) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned() })
    }
}

impl MmioDevice for Hpet {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Hpet {
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
