//! The GICv2m frame (Arm Server Base System Architecture, appendix on GICv2m): a write to it makes an edge on an SPI.

use super::super::GicError;
use rhea_accel::{IrqSink, MsiMessage, MsiTarget};
use rhea_device::RegisterRules::{ReadOnly, WriteOnly};
use rhea_device::{Device, LoadError, Log, RegisterDecl, RegisterMap, Saved, log_guest_error};
use rhea_memory::{Access, BusError, MmioDevice};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    Typer,
    Setspi,
    Iidr,
}

const MAP: RegisterMap<Reg> = RegisterMap::new(&[
    RegisterDecl::new(0x008, 4, ReadOnly, Reg::Typer),
    RegisterDecl::new(0x040, 4, WriteOnly, Reg::Setspi),
    RegisterDecl::new(0xfcc, 4, ReadOnly, Reg::Iidr),
]);

/// The frame, 4 KiB. The data of a message is the SPI's INTID.
pub struct GicV2m {
    name: String,
    sink: Arc<dyn IrqSink>,
    base: u32,
    count: u32,
    log: Log,
}

impl GicV2m {
    /// A frame for the SPIs with INTIDs `base` to `base + count - 1` of the controller `sink` (pin n is INTID 32 + n).
    ///
    /// # Errors
    /// [`GicError::MsiSpis`].
    pub fn new(name: &str, sink: Arc<dyn IrqSink>, base: u32, count: u32, log: Log) -> Result<Arc<Self>, GicError> {
        if base < 32 || count == 0 || base.saturating_add(count) > 1020 {
            return Err(GicError::MsiSpis(base, base.saturating_add(count)));
        }
        Ok(Arc::new(Self { name: name.to_owned(), sink, base, count, log }))
    }
    fn signal(&self, intid: u32) {
        let intid = intid & 0x3ff;
        if (self.base..self.base + self.count).contains(&intid) {
            self.sink.set_level(intid - 32, true);
            self.sink.set_level(intid - 32, false);
        } else {
            log_guest_error!(self.log, "gicv2m", "message for SPI {intid}, which is not of the frame");
        }
    }
}

impl MsiTarget for GicV2m {
    fn send(&self, message: MsiMessage) {
        self.signal(message.data);
    }
}

impl MmioDevice for GicV2m {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let read = |reg| match reg {
            Reg::Typer => u64::from(self.base << 16 | self.count),
            Reg::Setspi => 0,
            // Product 53, architecture 0, implementer Arm.
            Reg::Iidr => 0x0530_043b,
        };
        MAP.read(offset & 0xfff, access.size, |hit| Ok(read(hit.id)), |_| ())
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        MAP.write(
            offset & 0xfff,
            access.size,
            value,
            |_, value, _| {
                self.signal(value as u32);
                Ok(())
            },
            |at| log_guest_error!(self.log, "gicv2m", "write of offset {at:#x}"),
        )
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for GicV2m {
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
