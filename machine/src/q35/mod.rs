//! The `q35` board.

mod accel;
mod board;
mod boot;
pub mod cpu;
mod globals;
mod hooks;
mod interrupts;
mod iommu;
pub mod map;
mod pci_setup;
mod platform;
mod rom;

pub use accel::cpu_model;
pub use board::build;
pub use globals::{CHIPSET, is_global};
pub use platform::TEST_DEVICE;
