//! Storage controllers of the PC: AHCI with ATA disks and CD drives, and NVMe.

pub mod ahci;
pub mod ata;
pub mod atapi;
mod guest;
mod work;

pub use ahci::{Ahci, AttachError};
pub use ata::disk::DiskOptions;
pub use atapi::{CdDrive, CdOptions, TrayError};
