//! A device's way to guest memory.

use parking_lot::RwLock;
use rhea_memory::{Access, AddressSpace, BusError, Gpa, HostSlice, Requester};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A bus master's view of memory: an address space, a requester id and the revocable bus-master enable. Clones share the bit.
#[derive(Clone)]
pub struct DmaHandle {
    inner: Arc<Inner>,
}

struct Inner {
    space: RwLock<Arc<AddressSpace>>,
    rid: u32,
    enabled: AtomicBool,
}

impl DmaHandle {
    /// A handle for requester `rid` (PCI: bus << 8 | devfn), enabled.
    #[must_use]
    pub fn new(space: Arc<AddressSpace>, rid: u32) -> Self {
        Self { inner: Arc::new(Inner { space: RwLock::new(space), rid, enabled: AtomicBool::new(true) }) }
    }
    #[must_use]
    pub fn requester_id(&self) -> u32 {
        self.inner.rid
    }
    /// The address space, whatever the enable says; for caches of host pointers and their change subscriptions.
    #[must_use]
    pub fn space(&self) -> Arc<AddressSpace> {
        self.inner.space.read().clone()
    }
    /// Moves the device to another address space (IOMMU attach).
    pub fn set_space(&self, space: Arc<AddressSpace>) {
        *self.inner.space.write() = space;
    }
    /// PCI Command.BusMaster: while off every access is [`BusError::Refused`].
    pub fn set_enabled(&self, enabled: bool) {
        self.inner.enabled.store(enabled, Ordering::Release);
    }
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.inner.enabled.load(Ordering::Acquire)
    }
    fn checked(&self) -> Result<Arc<AddressSpace>, BusError> {
        if self.enabled() { Ok(self.space()) } else { Err(BusError::Refused) }
    }
    /// # Errors
    /// [`BusError`] (all methods).
    pub fn read(&self, gpa: Gpa, data: &mut [u8]) -> Result<(), BusError> {
        self.checked()?.read(gpa, data, Requester::Device(self.inner.rid))
    }
    /// # Errors
    /// [`BusError`].
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), BusError> {
        self.checked()?.write(gpa, data, Requester::Device(self.inner.rid))
    }
    /// Little-endian load of 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn load(&self, gpa: Gpa, size: u8) -> Result<u64, BusError> {
        self.checked()?.load(gpa, Access::device(self.inner.rid, size))
    }
    /// Little-endian store.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn store(&self, gpa: Gpa, size: u8, value: u64) -> Result<(), BusError> {
        self.checked()?.store(gpa, value, Access::device(self.inner.rid, size))
    }
    /// Direct access to writable RAM in one piece, if it is that.
    #[must_use]
    pub fn host_slice(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        self.checked().ok()?.host_slice(gpa, len)
    }
    /// Direct access to RAM or ROM that need only be readable.
    #[must_use]
    pub fn host_slice_readable(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        self.checked().ok()?.host_slice_readable(gpa, len)
    }
}
