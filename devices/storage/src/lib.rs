//! Storage controllers of the PC: AHCI with ATA disks and CD drives, and NVMe.

pub mod ahci;
pub mod ata;
pub mod atapi;
pub mod catalog;
pub mod guest;
pub mod nvme;
pub mod scsi;
pub mod work;

pub use ahci::{Ahci, AttachError, Attached};
pub use ata::disk::DiskOptions;
pub use atapi::{CdDrive, CdOptions, TrayError};
pub use nvme::{Nvme, NvmeOptions};
