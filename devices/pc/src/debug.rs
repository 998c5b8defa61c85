//! The debug console and debug exit ports.

use crate::BYTES;
use rhea_accel::{VmControl, VmRequest};
use rhea_device::chardev::CharBackend;
use rhea_device::{Device, LoadError, Saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

/// A port whose written bytes go to a character back end; reads tell that it is there.
pub struct DebugCon {
    name: String,
    backend: Arc<dyn CharBackend>,
    readback: u8,
}

impl DebugCon {
    /// What a read answers unless told otherwise.
    pub const READBACK: u8 = 0xe9;

    #[must_use]
    pub fn new(name: &str, backend: Arc<dyn CharBackend>, readback: u8) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), backend, readback })
    }
}

impl MmioDevice for DebugCon {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(self.readback.into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.backend.write(&[value as u8]);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        BYTES
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for DebugCon {
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

/// A port that ends the emulator: writing `n` makes it exit with status `n << 1 | 1`.
pub struct DebugExit {
    name: String,
    control: VmControl,
}

impl DebugExit {
    #[must_use]
    pub fn new(name: &str, control: VmControl) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), control })
    }
}

impl MmioDevice for DebugExit {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        self.control.request(VmRequest::Quit((value as i32) << 1 | 1));
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { valid_max: 4, impl_max: 4, ..AccessRules::implemented(1, 4) }
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for DebugExit {
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
    use rhea_device::chardev::MemoryChar;

    #[test]
    fn console() {
        let char = MemoryChar::new();
        let port = DebugCon::new("debugcon", char.clone(), DebugCon::READBACK);
        assert_eq!(port.inb(0), 0xe9);
        port.outb(0, b'x');
        assert_eq!(char.take_output(), b"x");
    }

    #[test]
    fn exit() {
        let (control, requests) = VmControl::new();
        let port = DebugExit::new("exit", control);
        port.write(0, 0x10, Access::cpu(0, 4)).unwrap();
        port.write(0, 0xffff_ffff, Access::cpu(0, 4)).unwrap();
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [VmRequest::Quit(0x21), VmRequest::Quit(-1)]);
    }
}
