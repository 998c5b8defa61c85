//! The paravirtual panic port: the guest tells that it crashed.

use crate::BYTES;
use rhea_accel::{ShutdownCause, VmControl};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

const PANICKED: u8 = 1 << 0;
/// The guest crashed and will deal with it by itself (a crash kernel).
const CRASH_LOADED: u8 = 1 << 1;
/// The guest wants to be shut down.
const SHUTDOWN: u8 = 1 << 2;

/// The port: one byte; reads tell the events that are understood.
pub struct PvPanic {
    name: String,
    events: u8,
    control: VmControl,
    log: Log,
}

impl PvPanic {
    /// Panic, crash loaded and shutdown.
    pub const ALL_EVENTS: u8 = PANICKED | CRASH_LOADED | SHUTDOWN;

    /// `events`: those offered, of [`Self::ALL_EVENTS`].
    #[must_use]
    pub fn new(name: &str, events: u8, control: VmControl, log: Log) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), events: events & Self::ALL_EVENTS, control, log })
    }
}

impl MmioDevice for PvPanic {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.events.into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let event = value as u8;
        if event & !Self::ALL_EVENTS != 0 {
            log_guest_error!(self.log, &self.name, "unknown event {event:#x}");
        }
        // Events are obeyed whether or not they were offered.
        if event & PANICKED != 0 {
            self.control.guest_panic("the guest panicked");
        } else if event & CRASH_LOADED != 0 {
            log_guest_error!(self.log, &self.name, "the guest crashed and runs its crash kernel");
        } else if event & SHUTDOWN != 0 {
            self.control.power_off(ShutdownCause::Guest);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        BYTES
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for PvPanic {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ports;
    use rhea_accel::VmRequest;

    #[test]
    fn events() {
        let (control, requests) = VmControl::new();
        let port = PvPanic::new("pvpanic", 3, control, Log::off());
        assert_eq!(port.inb(0), 3);
        port.outb(0, 2);
        port.outb(0, 0xf0);
        assert!(requests.try_recv().is_err());
        port.outb(0, 1);
        port.outb(0, 4);
        let seen: Vec<_> = requests.try_iter().collect();
        assert!(matches!(&seen[..], [VmRequest::GuestPanic(_), VmRequest::PowerOff(ShutdownCause::Guest)]), "{seen:?}");
    }
}
