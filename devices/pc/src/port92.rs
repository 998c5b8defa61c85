//! Port 0x92, system control port A: fast A20 and fast reset (ICH9 data sheet, PORT92).

use crate::{A20Gate, A20Source, BYTES};
use rhea_accel::{ShutdownCause, VmControl};
use rhea_device::{Device, LoadError, Saved, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const INIT_NOW: u8 = 1 << 0;
const ALT_A20_GATE: u8 = 1 << 1;

/// The port: one byte.
pub struct Port92 {
    name: String,
    gate: Arc<A20Gate>,
    control: VmControl,
    value: AtomicU8,
}

impl Port92 {
    #[must_use]
    pub fn new(name: &str, gate: Arc<A20Gate>, control: VmControl) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), gate, control, value: AtomicU8::new(0) })
    }
    fn set(&self, value: u8) -> u8 {
        let old = self.value.swap(value, Ordering::AcqRel);
        self.gate.set(A20Source::Port92, value & ALT_A20_GATE != 0);
        old
    }
}

impl MmioDevice for Port92 {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.value.load(Ordering::Acquire).into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let value = value as u8 & (INIT_NOW | ALT_A20_GATE);
        let old = self.set(value);
        if value & !old & INIT_NOW != 0 {
            self.control.reset(ShutdownCause::Guest);
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

impl Device for Port92 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.set(0);
    }
    fn save(&self) -> Saved {
        saved::encode(1, &self.value.load(Ordering::Acquire))
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let value: u8 = saved::decode(state, 1)?;
        self.set(value & (INIT_NOW | ALT_A20_GATE));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ports;
    use rhea_accel::VmRequest;

    #[test]
    fn gate_and_reset() {
        let (control, requests) = VmControl::new();
        let gate = A20Gate::new();
        let port = Port92::new("port92", gate.clone(), control);
        gate.set(A20Source::KeyboardController, false);
        port.outb(0, 2);
        assert!(gate.enabled() && port.inb(0) == 2);
        assert!(requests.try_recv().is_err());
        port.outb(0, 0xff);
        assert_eq!(port.inb(0), 3);
        port.outb(0, 1);
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [VmRequest::Reset(ShutdownCause::Guest)]);
        port.outb(0, 2);
        let saved = port.save();
        port.reset();
        assert!(!gate.enabled());
        port.load(&saved).unwrap();
        assert!(gate.enabled());
    }
}
