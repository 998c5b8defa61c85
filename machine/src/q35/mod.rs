//! The `q35` board.

mod board;
mod boot;
pub mod cpu;
mod globals;
mod hooks;
mod iommu;
mod interrupts;
pub mod map;
mod pci_setup;
mod platform;
mod rom;

pub use board::build;
pub use globals::is_global;
pub use platform::ISA_DEVICES;
