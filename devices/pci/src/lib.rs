//! PCI Express: configuration space, BARs, capabilities, interrupts, buses and the ECAM host bridge.
//!
//! A function owns a [`PciConfig`] (composition) and implements [`PciFunction`]; it is made with the [`PciSlot`] it will sit in
//! and then attached to the [`PciBus`].

mod address;
mod bridge;
mod bus;
pub mod catalog;
mod config;
pub mod edu;
mod host;
mod intx;
mod msi;
mod msix;
mod port;
mod rom;

pub use address::Devfn;
pub use bridge::Bridge;
pub use bus::{BusKind, PciBus, PciError, PciSlot};
pub use config::{BarKind, ConfigBuilder, Identity, PciConfig, PciConfigState, PcieType, SlotRegisters};
pub use host::{Ecam, HostBridge, HostWindows, OpenBus, PcieHost};
pub use intx::{IntxLines, IntxPin};
pub use msi::Msi;
pub use msix::{Msix, MsixState};
pub use port::{Port, PortKind};
pub use rom::ROM_LIMIT;

use rhea_device::Device;
use rhea_memory::{Access, MmioDevice};

/// A function on a PCI bus.
pub trait PciFunction: Device {
    /// The shared part, owned by the device.
    fn config(&self) -> &PciConfig;
    /// The bus behind the function, if it is a bridge.
    fn secondary(&self) -> Option<&std::sync::Arc<PciBus>> {
        None
    }
    /// How many vectors of MSI-X it has.
    fn msix_vectors(&self) -> u32 {
        self.config().msix().map_or(0, |m| m.vectors().into())
    }
    /// Puts a message into the table of MSI-X, as a platform does that programs it for its guests; it stays masked or not.
    fn program_msix(&self, vector: u32, address: u64, data: u32) {
        let Some(msix) = self.config().msix() else { return };
        for (at, value) in [(0, address as u32), (4, (address >> 32) as u32), (8, data)] {
            // Words of the table, which takes them.
            let _ = msix.write(u64::from(vector) * 16 + at, value.into(), Access::host(4));
        }
    }
    /// A configuration read of 1, 2 or 4 bytes, naturally aligned.
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.config().read(offset, size)
    }
    /// A configuration write of 1, 2 or 4 bytes, naturally aligned.
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.config().write(offset, size, value);
    }
}
