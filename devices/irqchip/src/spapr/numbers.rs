//! The space of interrupt numbers. Those below [`FIRST`] are XIVE's interprocessor interrupts, by server.

/// The first number of a source other than interprocessor interrupts.
pub const FIRST: u32 = 0x1000;
/// Environment and power warnings (`epow-events`).
pub const EPOW: u32 = 0x1000;
/// Hot-plug events (`hot-plug-events`).
pub const HOT_PLUG: u32 = 0x1001;
/// The first number of VIO devices without `irq=`.
pub const VIO: u32 = 0x1100;
/// Level interrupts of PCI host bridges: four for each, in the order of their indices.
pub const LSI: u32 = 0x1200;
/// Message interrupts.
pub const MSI: u32 = 0x1300;
/// One more than the last number.
pub const TOTAL: u32 = 0x2000;
/// Server numbers are below this.
pub const MAX_SERVERS: u32 = 0x1000;
/// PCI host bridges have indices below this, so that their windows have room.
pub const MAX_PHBS: u32 = 31;
const _: () = assert!(LSI + MAX_PHBS * 4 <= MSI);
