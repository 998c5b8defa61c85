//! What the kernel offers, as traits, so that tests can stand in for it; here what is the same on all hosts.

use rhea_accel::IoEventFd;
use rhea_memory::Gpa;
use std::io::Result;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// Capabilities (`KVM_CAP_`) that every host may have.
pub mod cap {
    pub const COALESCED_MMIO: u32 = 15;
    pub const NR_MEMSLOTS: u32 = 10;
    pub const IRQFD: u32 = 32;
    pub const IOEVENTFD: u32 = 36;
    pub const READONLY_MEM: u32 = 81;
    pub const IRQFD_RESAMPLE: u32 = 82;
    pub const IOEVENTFD_ANY_LENGTH: u32 = 122;
    pub const DIRTY_LOG_RING: u32 = 192;
    pub const DIRTY_LOG_RING_ACQ_REL: u32 = 223;
    pub const USER_MEMORY2: u32 = 231;
    pub const MEMORY_FAULT_INFO: u32 = 232;
    pub const MEMORY_ATTRIBUTES: u32 = 233;
    pub const GUEST_MEMFD: u32 = 234;
}

/// The only version of the kernel's interface there is.
pub const API_VERSION: i32 = 12;

/// A guest write that signals an eventfd instead of leaving the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoEvent {
    pub address: u64,
    /// 0: any.
    pub size: u8,
    pub data: Option<u64>,
    /// A port, not memory.
    pub port: bool,
    pub fd: RawFd,
}

/// A range of guest memory that is host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Number, and in the upper half which address space it is in.
    pub slot: u32,
    pub readonly: bool,
    /// Dirty pages are logged.
    pub log: bool,
    pub gpa: u64,
    /// In bytes; 0 removes the slot.
    pub len: u64,
    /// Where it is in this process.
    pub host: u64,
    /// A file of the kernel's ([`AnyVm::create_private`]) for pages that are guest code's alone, and where in it the range begins.
    pub private: Option<(RawFd, u64)>,
}

/// Memory that only guest code reaches; it goes when this is dropped.
pub trait PrivateMemory: Send + Sync {
    fn fd(&self) -> RawFd;
    /// Gives the whole pages of a range back; what they hold is lost.
    ///
    /// # Errors
    /// The kernel's.
    fn free(&self, offset: u64, len: u64) -> Result<()>;
}

/// A write to a device that the kernel held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldWrite {
    pub address: u64,
    /// In bytes, up to 8.
    pub len: u8,
    pub data: [u8; 8],
}

/// The writes that the kernel holds back, of all vCPUs of a VM.
pub trait WriteRing: Send {
    /// The oldest.
    fn pop(&mut self) -> Option<HeldWrite>;
}

/// The pages that guest code of a vCPU wrote to.
pub trait PageRing: Send {
    /// Takes the oldest: the number of its slot, and that of the page in the slot.
    fn pop(&mut self) -> Option<(u32, u64)>;
}

/// A virtual machine, whatever its architecture. File descriptors that are passed are open during the call; the kernel keeps
/// references of its own.
pub trait AnyVm: Send + Sync {
    /// The value of a capability: 0 if it is absent.
    fn check(&self, capability: u32) -> i32;
    /// # Errors
    /// The kernel's, as in all methods here.
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()>;
    /// The host memory of the region must stay mapped until the region is removed or the VM is gone.
    ///
    /// # Errors
    /// The kernel's.
    fn set_memory(&self, region: &Region) -> Result<()>;
    /// Makes `len` bytes of memory for pages that are guest code's alone.
    ///
    /// # Errors
    /// The kernel's.
    fn create_private(&self, len: u64) -> Result<Arc<dyn PrivateMemory>>;
    /// Pages of a range of guest addresses are guest code's alone, or everybody's.
    ///
    /// # Errors
    /// The kernel's.
    fn set_private(&self, address: u64, len: u64, on: bool) -> Result<()>;
    /// Takes the dirty pages of a slot of `len` bytes: a bit each.
    ///
    /// # Errors
    /// The kernel's.
    fn dirty_log(&self, slot: u32, len: u64) -> Result<Vec<u64>>;
    /// Has the kernel take note again of pages that were taken from rings.
    ///
    /// # Errors
    /// The kernel's.
    fn reset_dirty_rings(&self) -> Result<()>;
    /// Holds back writes to `len` bytes of device memory, or does so no longer.
    ///
    /// # Errors
    /// The kernel's.
    fn hold_writes(&self, address: u64, len: u32, on: bool) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn irqfd(&self, fd: RawFd, gsi: u32, resample: Option<RawFd>, attach: bool) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn ioeventfd(&self, event: &IoEvent, attach: bool) -> Result<()>;
    /// Makes the VM's only `KVM_DEV_TYPE_VFIO`.
    ///
    /// # Errors
    /// The kernel's: ENODEV if it has none.
    fn create_vfio(&self) -> Result<Arc<dyn VfioDevice>>;
}

/// The kernel's device that is told of groups of VFIO, and of devices' own files.
pub trait VfioDevice: Send + Sync {
    /// # Errors
    /// The kernel's: EEXIST if it knows the file, EBADF if that is none of VFIO's.
    fn add(&self, file: RawFd) -> Result<()>;
    /// # Errors
    /// The kernel's: ENOENT if it does not know the file.
    fn remove(&self, file: RawFd) -> Result<()>;
}

/// Eventfds for guest writes, for devices.
pub(crate) struct IoEvents(pub Arc<dyn AnyVm>);

impl IoEvents {
    fn set(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>, attach: bool) -> Result<()> {
        let event = IoEvent { address: gpa.0, size, data, port: false, fd: fd.as_raw_fd() };
        self.0.ioeventfd(&event, attach)
    }
}

impl IoEventFd for IoEvents {
    fn attach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> Result<()> {
        self.set(gpa, size, data, fd, true)
    }
    fn detach(&self, gpa: Gpa, size: u8, data: Option<u64>, fd: BorrowedFd<'_>) -> Result<()> {
        self.set(gpa, size, data, fd, false)
    }
}
