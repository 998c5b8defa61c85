//! A device's way to guest memory.

use parking_lot::RwLock;
use rhea_memory::{Access, AddressSpace, BusError, Gpa, GpaRange, HostSlice, PAGE_SIZE, Requester};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Where an address of a bus master leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Guest-physical address, and how many bytes from there on belong together (at least 1).
    Memory { gpa: u64, len: u64 },
    /// A store is an interrupt request.
    Interrupt,
}

/// Stands between bus masters and memory, and remaps their interrupts. Called from the threads of devices, without their locks.
pub trait Iommu: Send + Sync {
    /// Where `address` of `requester` leads.
    ///
    /// # Errors
    /// The master may not do that; the fault has been recorded.
    fn translate(&self, requester: u32, address: u64, write: bool) -> Result<Translation, BusError>;
    /// An interrupt request of a master.
    fn interrupt(&self, requester: u32, address: u64, data: u32);
    /// A mark that is set when the translation of one of these addresses may have changed.
    fn watch(&self, requester: u32, ranges: &[GpaRange]) -> Arc<AtomicBool>;
    /// Requesters for which this is the same see the same translations.
    fn domain(&self, requester: u32) -> u32 {
        requester
    }
    /// For those who keep translations of all of a requester's addresses in another IOMMU, the host's.
    ///
    /// # Errors
    /// This cannot be followed: the IOMMU's name, and what would help, to be added to a message.
    fn follow(
        self: Arc<Self>,
        requester: u32,
        listener: Weak<dyn TranslationListener>,
    ) -> Result<Box<dyn Translations>, (&'static str, &'static str)> {
        let _ = (requester, listener);
        Err(("IOMMU", ""))
    }
}

/// Is told of each change of what it follows, by who makes it, before its request is done and with no lock held that [`Translations`] need.
pub trait TranslationListener: Send + Sync {
    /// The translation of these bus addresses may be another; `None`: of all, and there may be other windows.
    fn translation_changed(&self, range: Option<GpaRange>);
    /// Could it follow what is translated in a window there?
    fn reaches(&self, _window: DmaWindow) -> bool {
        true
    }
}

/// What a requester's addresses lead to; the listener that it was made with is told of changes until it is gone.
pub trait Translations: Send + Sync {
    /// The windows outside of which nothing is translated; `None`: there are none such.
    fn windows(&self) -> Option<Vec<DmaWindow>>;
    /// Calls `found` with what is translated from `first` to `last`: each in the pieces in which it comes and goes.
    fn mapped(&self, first: u64, last: u64, found: &mut dyn FnMut(Translated));
}

/// Addresses that are translated together; `iova` and `gpa` are of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    pub iova: u64,
    pub gpa: u64,
    /// In bytes.
    pub len: u64,
    pub read: bool,
    pub write: bool,
}

/// Bus addresses that one table translates, a page for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWindow {
    pub base: u64,
    /// In bytes.
    pub len: u64,
    pub page_shift: u32,
}

/// The place for a bus's IOMMU; set once, while the machine is built.
pub type IommuPlace = Arc<OnceLock<Arc<dyn Iommu>>>;

/// A bus master's view of memory: an address space, a requester id and the revocable bus-master enable. Clones share all that.
#[derive(Clone)]
pub struct DmaHandle {
    inner: Arc<Inner>,
    /// Addresses are guest-physical ones, whatever stands between.
    direct: bool,
}

/// The device's own enable is off.
const OFF: u32 = 1;
/// A bridge above the device does not forward its requests.
const BLOCKED: u32 = 2;

struct Inner {
    space: RwLock<Arc<AddressSpace>>,
    rid: AtomicU32,
    /// [`OFF`], [`BLOCKED`].
    state: AtomicU32,
    iommu: IommuPlace,
}

impl DmaHandle {
    /// A handle for requester `rid` (PCI: bus << 8 | devfn), enabled.
    #[must_use]
    pub fn new(space: Arc<AddressSpace>, rid: u32) -> Self {
        Self::behind(space, rid, Arc::default())
    }
    /// The same for a device whose addresses the IOMMU in `iommu`, once there is one, translates.
    #[must_use]
    pub fn behind(space: Arc<AddressSpace>, rid: u32, iommu: IommuPlace) -> Self {
        let inner = Inner { space: RwLock::new(space), rid: AtomicU32::new(rid), state: AtomicU32::new(0), iommu };
        Self { inner: Arc::new(inner), direct: false }
    }
    /// The same handle past the IOMMU: for devices whose driver gives guest-physical addresses.
    #[must_use]
    pub fn untranslated(&self) -> Self {
        Self { direct: true, ..self.clone() }
    }
    #[must_use]
    pub fn requester_id(&self) -> u32 {
        self.inner.rid.load(Ordering::Acquire)
    }
    /// The device's bus got another number.
    pub fn set_requester_id(&self, rid: u32) {
        self.inner.rid.store(rid, Ordering::Release);
    }
    fn requester(&self) -> Requester {
        Requester::Device(self.requester_id())
    }
    /// The address space behind any IOMMU, whatever the enable says; for subscriptions to changes of memory.
    #[must_use]
    pub fn space(&self) -> Arc<AddressSpace> {
        self.inner.space.read().clone()
    }
    /// Moves the device to another address space.
    pub fn set_space(&self, space: Arc<AddressSpace>) {
        *self.inner.space.write() = space;
    }
    fn set_state(&self, bit: u32, on: bool) {
        if on {
            self.inner.state.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.inner.state.fetch_and(!bit, Ordering::AcqRel);
        }
    }
    /// PCI Command.BusMaster: while off every access is [`BusError::Refused`].
    pub fn set_enabled(&self, enabled: bool) {
        self.set_state(OFF, !enabled);
    }
    /// A bridge above does not forward: as if the device were not enabled.
    pub fn set_blocked(&self, blocked: bool) {
        self.set_state(BLOCKED, blocked);
    }
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.inner.state.load(Ordering::Acquire) == 0
    }
    fn checked(&self) -> Result<Arc<AddressSpace>, BusError> {
        if self.enabled() { Ok(self.space()) } else { Err(BusError::Refused) }
    }
    /// What translates this device's addresses.
    #[must_use]
    pub fn iommu(&self) -> Option<&Arc<dyn Iommu>> {
        if self.direct { None } else { self.inner.iommu.get() }
    }
    /// Calls `piece` with the guest-physical address (`None`: an interrupt request), offset and length of each part of `len` bytes
    /// at `address` that belongs together.
    fn translated(
        &self,
        iommu: &dyn Iommu,
        address: Gpa,
        len: usize,
        write: bool,
        mut piece: impl FnMut(Option<Gpa>, usize, usize) -> Result<(), BusError>,
    ) -> Result<(), BusError> {
        let mut at = 0;
        while at < len {
            let here = address.0.checked_add(at as u64).ok_or(BusError::Unassigned)?;
            let (gpa, n) = match iommu.translate(self.requester_id(), here, write)? {
                Translation::Memory { gpa, len: n } => (Some(Gpa(gpa)), n.clamp(1, (len - at) as u64) as usize),
                Translation::Interrupt => (None, len - at),
            };
            piece(gpa, at, n)?;
            at += n;
        }
        Ok(())
    }
    /// # Errors
    /// [`BusError`] (all methods).
    pub fn read(&self, gpa: Gpa, data: &mut [u8]) -> Result<(), BusError> {
        let space = self.checked()?;
        let Some(iommu) = self.iommu() else { return space.read(gpa, data, self.requester()) };
        self.translated(&**iommu, gpa, data.len(), false, |gpa, at, n| {
            space.read(gpa.ok_or(BusError::Refused)?, &mut data[at..at + n], self.requester())
        })
    }
    /// # Errors
    /// [`BusError`].
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), BusError> {
        let space = self.checked()?;
        let Some(iommu) = self.iommu() else { return space.write(gpa, data, self.requester()) };
        self.translated(&**iommu, gpa, data.len(), true, |to, at, n| match (to, data) {
            (Some(to), _) => space.write(to, &data[at..at + n], self.requester()),
            (None, &[a, b, c, d]) => {
                iommu.interrupt(self.requester_id(), gpa.0, u32::from_le_bytes([a, b, c, d]));
                Ok(())
            }
            (None, _) => Err(BusError::Refused),
        })
    }
    /// Little-endian load of 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn load(&self, gpa: Gpa, size: u8) -> Result<u64, BusError> {
        let space = self.checked()?;
        let access = Access::device(self.requester_id(), size);
        let Some(iommu) = self.iommu() else { return space.load(gpa, access) };
        match iommu.translate(self.requester_id(), gpa.0, false)? {
            Translation::Memory { gpa, len } if len >= u64::from(size) => space.load(Gpa(gpa), access),
            Translation::Memory { .. } => {
                let mut bytes = [0; 8];
                self.read(gpa, bytes.get_mut(..usize::from(size)).ok_or(BusError::Refused)?)?;
                Ok(u64::from_le_bytes(bytes))
            }
            Translation::Interrupt => Err(BusError::Refused),
        }
    }
    /// Little-endian store.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn store(&self, gpa: Gpa, size: u8, value: u64) -> Result<(), BusError> {
        let space = self.checked()?;
        let access = Access::device(self.requester_id(), size);
        let Some(iommu) = self.iommu() else { return space.store(gpa, value, access) };
        match iommu.translate(self.requester_id(), gpa.0, true)? {
            Translation::Memory { gpa, len } if len >= u64::from(size) => space.store(Gpa(gpa), value, access),
            _ => self.write(gpa, value.to_le_bytes().get(..usize::from(size)).ok_or(BusError::Refused)?),
        }
    }
    /// Direct access to writable RAM in one piece, if it is that. Good for a transfer; what is kept longer is taken with
    /// [`Self::lasting_slice`].
    #[must_use]
    pub fn host_slice(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        if self.enabled() { self.lasting_slice(gpa, len, true) } else { None }
    }
    /// Direct access to RAM or ROM that need only be readable.
    #[must_use]
    pub fn host_slice_readable(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        if self.enabled() { self.lasting_slice(gpa, len, false) } else { None }
    }
    /// Direct access, whatever the enable says; whoever keeps it looks at changes of [`Self::space`] and at [`Self::watch`].
    #[must_use]
    pub fn lasting_slice(&self, gpa: Gpa, len: u64, write: bool) -> Option<HostSlice> {
        let space = self.inner.space.read();
        let slice = |at| if write { space.host_slice(at, len) } else { space.host_slice_readable(at, len) };
        let Some(iommu) = self.iommu() else { return slice(gpa) };
        let (mut first, mut at) = (None, 0);
        // At most as many rounds as the RAM in one piece has pages.
        loop {
            match iommu.translate(self.requester_id(), gpa.0.checked_add(at)?, write) {
                Ok(Translation::Memory { gpa, len: n }) => {
                    let (start, _) = match &first {
                        Some(found) => found,
                        None => first.insert((gpa, slice(Gpa(gpa))?)),
                    };
                    if start.checked_add(at) != Some(gpa) {
                        return None;
                    }
                    at = at.checked_add(n.max(1))?;
                }
                _ => return None,
            }
            if at >= len {
                return first.map(|(_, slice)| slice);
            }
        }
    }
    /// A mark that is set when the IOMMU may lead one of these addresses elsewhere; `None`: there is none.
    #[must_use]
    pub fn watch(&self, ranges: &[GpaRange]) -> Option<Arc<AtomicBool>> {
        self.iommu().map(|iommu| iommu.watch(self.requester_id(), ranges))
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

    /// Swaps the pages 0 and 1, refuses page 2, and takes what follows for interrupts.
    struct Swap(parking_lot::Mutex<Vec<(u32, u64, u32)>>);
    impl Iommu for Swap {
        fn translate(&self, _: u32, address: u64, _: bool) -> Result<Translation, BusError> {
            match address / PAGE_SIZE {
                0 | 1 => Ok(Translation::Memory { gpa: address ^ PAGE_SIZE, len: PAGE_SIZE - address % PAGE_SIZE }),
                2 => Err(BusError::Refused),
                _ => Ok(Translation::Interrupt),
            }
        }
        fn interrupt(&self, requester: u32, address: u64, data: u32) {
            self.0.lock().push((requester, address, data));
        }
        fn watch(&self, _: u32, _: &[GpaRange]) -> Arc<AtomicBool> {
            Arc::default()
        }
    }

    #[test]
    fn translated() {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", 4 * PAGE_SIZE).expect("RAM");
        let _map = space.map_ram(Gpa(0), &ram, 0, 4 * PAGE_SIZE, 0).expect("room in the address space");
        let iommu = Arc::new(Swap(parking_lot::Mutex::default()));
        let place = IommuPlace::default();
        let dma = DmaHandle::behind(space, 8, place.clone());
        assert_eq!(dma.store(Gpa(0), 4, 1), Ok(()));
        assert!(place.set(iommu.clone()).is_ok());
        dma.set_requester_id(9);
        assert_eq!(dma.load(Gpa(PAGE_SIZE), 4), Ok(1));
        // Across the pages: in parts.
        assert_eq!(dma.store(Gpa(PAGE_SIZE - 2), 4, 0x4433_2211), Ok(()));
        assert_eq!(dma.load(Gpa(PAGE_SIZE - 2), 4), Ok(0x4433_2211));
        assert_eq!(dma.untranslated().load(Gpa(0), 2), Ok(0x4433));
        assert_eq!(dma.untranslated().load(Gpa(2 * PAGE_SIZE - 2), 2), Ok(0x2211));
        let mut data = [0; 8];
        assert_eq!(dma.read(Gpa(2 * PAGE_SIZE - 4), &mut data), Err(BusError::Refused));
        assert!(dma.host_slice(Gpa(0), PAGE_SIZE).is_some());
        assert!(dma.host_slice(Gpa(0), PAGE_SIZE + 1).is_none());
        assert_eq!(dma.store(Gpa(3 * PAGE_SIZE), 4, 7), Ok(()));
        assert_eq!(dma.write(Gpa(3 * PAGE_SIZE), &[1]), Err(BusError::Refused));
        assert_eq!(*iommu.0.lock(), [(9, 3 * PAGE_SIZE, 7)]);
        dma.set_blocked(true);
        dma.set_enabled(true);
        assert_eq!(dma.load(Gpa(0), 4), Err(BusError::Refused));
    }

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
