//! What a PC finds at power-on: the memory map, kernels started without firmware, and the files firmware is looked for in.

pub mod boot_order;
pub mod bzimage;
pub mod direct;
pub mod files;
pub mod fw_cfg;
pub mod image;
pub mod memory;
pub mod multiboot;
pub mod pvh;

pub use bzimage::{BzImage, Screen};
pub use direct::{DirectBoot, Kernel, Module, parse_modules};
pub use files::FirmwareFiles;
pub use fw_cfg::{PcFwCfg, publish_acpi, publish_kernel};
pub use image::{BootImage, CpuStart, DescriptorTable, Long64, Protected32};
pub use memory::{E820Entry, E820Kind, MemoryMap, RamLayout};
pub use multiboot::Multiboot;
pub use pvh::Pvh;

use thiserror::Error;

/// Why a kernel cannot be started. Messages complete "-kernel: FILE: ...".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    #[error("this is a kernel for {0}: this machine needs one for x86")]
    Architecture(String),
    #[error("the file is truncated: {0}")]
    Truncated(String),
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("unknown format: expected a Linux bzImage, an ELF file with a PVH entry or a multiboot kernel")]
    Unknown,
    #[error("the kernel needs the memory from {start:#x} to {end:#x}, which is not free RAM of this machine")]
    Memory { start: u64, end: u64 },
    #[error("the command line has {len} characters, the kernel takes at most {max}")]
    CommandLine { len: usize, max: usize },
    #[error("the initrd or a module ({len} bytes) does not fit in memory behind the kernel: use a larger -m")]
    Initrd { len: u64 },
}

pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}
pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}
pub(crate) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
