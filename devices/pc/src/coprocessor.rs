//! Port 0xF0, coprocessor error (ICH9 data sheet, COPROC_ERR): FERR# of the processors is interrupt 13, until a write ends that
//! and lets the processors ignore the error (IGNNE#) as long as it lasts.

use crate::BYTES;
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_device::{Device, LoadError, Saved, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

/// The port: one byte.
pub struct CoprocessorError {
    name: String,
    irq: IrqLine,
    /// FERR#, IGNNE#.
    lines: Mutex<[bool; 2]>,
}

impl CoprocessorError {
    #[must_use]
    pub fn new(name: &str, irq: IrqLine) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), irq, lines: Mutex::default() })
    }
    /// FERR#.
    pub fn set_error(&self, error: bool) {
        let ignored = {
            let mut lines = self.lines.lock();
            *lines = [error, error && lines[1]];
            lines[1]
        };
        self.irq.set(error && !ignored);
    }
    /// IGNNE#.
    #[must_use]
    pub fn ignored(&self) -> bool {
        self.lines.lock()[1]
    }
}

impl MmioDevice for CoprocessorError {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        // Write-only.
        Ok(u64::MAX)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        {
            let mut lines = self.lines.lock();
            lines[1] = lines[0];
        }
        self.irq.set(false);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        BYTES
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for CoprocessorError {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.set_error(false);
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.lines.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let [error, ignored]: [bool; 2] = saved::decode(state, 1)?;
        *self.lines.lock() = [error, error && ignored];
        self.irq.set(error && !ignored);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ports;

    #[test]
    fn a_write_ends_the_interrupt_and_ignores_the_error() {
        let line = IrqLine::unconnected();
        let port = CoprocessorError::new("coprocessor", line.clone());
        port.outb(0, 0);
        assert!(!port.ignored());
        port.set_error(true);
        assert!(line.level() && !port.ignored());
        port.outb(0, 0);
        assert!(!line.level() && port.ignored());
        // The same error goes on.
        port.set_error(true);
        assert!(!line.level() && port.ignored());
        let state = port.save();
        port.set_error(false);
        assert!(!port.ignored());
        port.load(&state).unwrap();
        assert!(!line.level() && port.ignored());
        port.reset();
        port.set_error(true);
        assert!(line.level() && !port.ignored());
    }
}
