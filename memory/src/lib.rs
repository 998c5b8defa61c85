//! Guest memory: RAM blocks, address spaces, MMIO dispatch, DMA access, dirty log, pins and the change notifier.
//!
//! Readers never lock: an [`AddressSpace`] publishes an immutable [`FlatView`] behind an atomic pointer.

mod access;
pub mod addr;
mod faults;
mod host;
pub mod mmio;
pub mod notify;
pub mod ram;
pub mod space;
pub mod view;

pub use access::HostSlice;
pub use addr::{Gpa, GpaRange, Gva, Hva, Iova};
pub use faults::{Faults, Wanted};
pub use host::DevicePages;
pub use mmio::{Access, AccessRules, BusError, HeldWrites, MmioDevice, Requester, WriteHolder};
pub use notify::{ChangeListener, ChangeReason, MemoryChange, Subscription};
pub use ram::{Backing, CodeWriteListener, DirtyClient, DirtySource, MemoryError, RamBlock, RamOptions};
pub use space::{AddressSpace, MapError, Mapping};
pub use view::{FlatRange, FlatTarget, FlatView, Lookup, MmioTarget, RamTarget};

/// Size of the pages the dirty log, the code bitmap and the pin counts work in: 4 KiB.
pub const PAGE_SIZE: u64 = 4096;
