//! The Q35 chipset: memory controller hub (MCH), LPC bridge and SMBus controller of the ICH9.
//!
//! Section numbers are of Intel's "Express Chipset 82Q35 Datasheet" (MCH) and "I/O Controller Hub 9 Datasheet" (ICH9).

mod config_ports;
pub mod lpc;
pub mod mch;
pub mod smbus;

pub use config_ports::{ConfigPorts, ResetControl};
pub use lpc::{Lpc, LpcWiring, Smi};
pub use mch::{Mch, MchWiring};
pub use smbus::{Eeprom, SmBus};

/// Vendor id of all functions.
const INTEL: u16 = 0x8086;
const SUBSYSTEM_VENDOR: u16 = 0x1af4;
const SUBSYSTEM: u16 = 0x1100;
