//! `pc-testdev`: what small test programs for x86 machines expect of the emulator they run under. Ports at 0xe0 that keep what
//! was written, one at 0xe4 for pages that a test wants swapped out (nothing need happen), ports at 0x2000 that drive the
//! inputs of the interrupt controllers, and 64 KiB of registers at 0xff000000 that are not RAM.

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_device::{Device, LoadError, Saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

/// First ports, and address of the memory, of the parts.
pub const ECHO_PORT: u16 = 0xe0;
pub const FLUSH_PORT: u16 = 0xe4;
pub const IRQ_PORT: u16 = 0x2000;
pub const MEMORY: u64 = 0xff00_0000;
pub const MEMORY_LEN: u64 = 0x1_0000;

struct Bytes {
    name: &'static str,
    content: Mutex<Vec<u8>>,
}

impl Bytes {
    fn new(name: &'static str, len: usize) -> Arc<Self> {
        Arc::new(Self { name, content: Mutex::new(vec![0; len]) })
    }
}

impl MmioDevice for Bytes {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let content = self.content.lock();
        let at = offset as usize;
        let bytes = content.get(at..at + usize::from(access.size)).ok_or(BusError::Refused)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let mut content = self.content.lock();
        let at = offset as usize;
        let bytes = content.get_mut(at..at + usize::from(access.size)).ok_or(BusError::Refused)?;
        for (b, v) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *b = v;
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules { valid_min: 1, valid_max: 8, impl_min: 1, impl_max: 8, unaligned: true }
    }
    fn name(&self) -> &str {
        self.name
    }
}

struct Lines(Vec<IrqLine>);

impl MmioDevice for Lines {
    fn read(&self, _: u64, access: Access) -> Result<u64, BusError> {
        Ok(u64::MAX >> (64 - 8 * u32::from(access.size.clamp(1, 8))))
    }
    fn write(&self, offset: u64, value: u64, _: Access) -> Result<(), BusError> {
        if let Some(line) = self.0.get(offset as usize) {
            line.set(value != 0);
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        "pc-testdev interrupts"
    }
}

/// The device.
pub struct PcTestDev {
    echo: Arc<Bytes>,
    flush: Arc<Bytes>,
    memory: Arc<Bytes>,
    lines: Arc<Lines>,
}

impl PcTestDev {
    /// `lines` are those of interrupts 0 to 23.
    #[must_use]
    pub fn new(lines: Vec<IrqLine>) -> Arc<Self> {
        Arc::new(Self {
            echo: Bytes::new("pc-testdev echo", 4),
            flush: Bytes::new("pc-testdev flush", 4),
            memory: Bytes::new("pc-testdev memory", MEMORY_LEN as usize),
            lines: Arc::new(Lines(lines)),
        })
    }
    /// First port, number of ports and device of each part on the I/O bus.
    #[must_use]
    pub fn ports(&self) -> [(u16, u16, Arc<dyn MmioDevice>); 3] {
        [
            (ECHO_PORT, 4, self.echo.clone()),
            (FLUSH_PORT, 4, self.flush.clone()),
            (IRQ_PORT, self.lines.0.len() as u16, self.lines.clone()),
        ]
    }
    /// The registers at [`MEMORY`].
    #[must_use]
    pub fn memory(&self) -> Arc<dyn MmioDevice> {
        self.memory.clone()
    }
}

impl Device for PcTestDev {
    fn name(&self) -> &str {
        "pc-testdev"
    }
    fn reset(&self) {
        for b in [&self.echo, &self.flush, &self.memory] {
            b.content.lock().fill(0);
        }
    }
    fn save(&self) -> Saved {
        Saved::Nothing
    }
    fn load(&self, _: &Saved) -> Result<(), LoadError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_written() {
        let d = PcTestDev::new(vec![IrqLine::unconnected(); 24]);
        let [echo, flush, irq] = d.ports();
        assert_eq!((echo.0, flush.0, irq.1), (0xe0, 0xe4, 24));
        echo.2.write(0, 0x1234_5678, Access::cpu(0, 4)).unwrap();
        assert_eq!(echo.2.read(1, Access::cpu(0, 2)), Ok(0x3456));
        assert_eq!(echo.2.read(2, Access::cpu(0, 4)), Err(BusError::Refused));
        let memory = d.memory();
        memory.write(MEMORY_LEN - 8, u64::MAX, Access::cpu(0, 8)).unwrap();
        assert_eq!(memory.read(MEMORY_LEN - 1, Access::cpu(0, 1)), Ok(0xff));
        irq.2.write(3, 1, Access::cpu(0, 1)).unwrap();
        assert!(d.lines.0[3].level());
        d.reset();
        assert_eq!(memory.read(MEMORY_LEN - 1, Access::cpu(0, 1)), Ok(0));
    }
}
