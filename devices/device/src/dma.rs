//! A device's way to guest memory.

use parking_lot::RwLock;
use rhea_memory::{Access, AddressSpace, BusError, Gpa, HostSlice, PAGE_SIZE, Requester};
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
    /// Reads RAM or ROM only: no other device is called, so that a device may do it under its own lock.
    ///
    /// # Errors
    /// Some of it is not RAM, or bus mastering is off.
    pub fn read_ram(&self, gpa: u64, data: &mut [u8]) -> Result<(), BusError> {
        if let Some(s) = self.host_slice_readable(Gpa(gpa), data.len() as u64) {
            return s.read(0, data);
        }
        by_page(gpa, data.len(), |here, at, n| {
            let s = self.host_slice_readable(here, n as u64).ok_or(BusError::Unassigned)?;
            s.read(0, &mut data[at..at + n])
        })
    }
    /// Writes RAM only.
    ///
    /// # Errors
    /// Some of it is not writable RAM, or bus mastering is off.
    pub fn write_ram(&self, gpa: u64, data: &[u8]) -> Result<(), BusError> {
        if let Some(s) = self.host_slice(Gpa(gpa), data.len() as u64) {
            return s.write(0, data);
        }
        by_page(gpa, data.len(), |here, at, n| {
            let s = self.host_slice(here, n as u64).ok_or(BusError::Unassigned)?;
            s.write(0, &data[at..at + n])
        })
    }
}

/// Calls `piece` with address, offset and length of each part of `len` bytes at `gpa` that lies in one page.
fn by_page(
    gpa: u64,
    len: usize,
    mut piece: impl FnMut(Gpa, usize, usize) -> Result<(), BusError>,
) -> Result<(), BusError> {
    let mut at = 0;
    while at < len {
        let here = gpa.checked_add(at as u64).ok_or(BusError::Unassigned)?;
        let n = (PAGE_SIZE - here % PAGE_SIZE).min((len - at) as u64) as usize;
        piece(Gpa(here), at, n)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_memory::RamBlock;

    /// Transfers may cross from one block of RAM into another, but not leave RAM or the address space.
    #[test]
    fn ram_only() {
        let space = AddressSpace::new("test");
        let blocks = [0, 1].map(|n| RamBlock::anonymous(&format!("ram{n}"), PAGE_SIZE).expect("RAM"));
        let _maps = [0u64, 1].map(|n| {
            space.map_ram(Gpa(n * PAGE_SIZE), &blocks[n as usize], 0, PAGE_SIZE, 0).expect("room in the address space")
        });
        let dma = DmaHandle::new(space, 8);
        let mut data = [0; 4];
        assert_eq!(dma.write_ram(PAGE_SIZE - 2, &[1, 2, 3, 4]), Ok(()));
        assert_eq!(dma.read_ram(PAGE_SIZE - 2, &mut data), Ok(()));
        assert_eq!(data, [1, 2, 3, 4]);
        assert_eq!(dma.read_ram(2 * PAGE_SIZE - 2, &mut data), Err(BusError::Unassigned));
        assert_eq!(dma.write_ram(u64::MAX - 1, &data), Err(BusError::Unassigned));
        dma.set_enabled(false);
        assert!(dma.read_ram(0, &mut data).is_err() && dma.write_ram(0, &data).is_err());
    }
}
