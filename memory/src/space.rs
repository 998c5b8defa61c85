//! Address spaces: what is mapped where, and access by address.

use crate::notify::Notifier;
use crate::{Access, BusError, ChangeListener, FlatView, Gpa, MemoryChange, MmioDevice, RamBlock, Requester, Subscription};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use thiserror::Error;

/// Why a mapping is impossible.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    #[error("'{name}': range {start:#x}+{len:#x} is empty or leaves the address space")]
    Range { name: String, start: u64, len: u64 },
    #[error("'{name}': range {offset:#x}+{len:#x} leaves the memory block")]
    Block { name: String, offset: u64, len: u64 },
}

/// An address space. Where mappings overlap the higher priority wins; at equal priority the later one.
pub struct AddressSpace {
    name: String,
    view: ArcSwap<FlatView>,
    notifier: Notifier,
}

impl AddressSpace {
    /// A new empty address space.
    #[must_use]
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), view: ArcSwap::default(), notifier: Notifier::default() })
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    // ---- mapping ----

    /// Maps `len` bytes of `block` from `offset`, read-write.
    ///
    /// # Errors
    /// [`MapError`] if a range is impossible (same for all `map_*`).
    pub fn map_ram(self: &Arc<Self>, gpa: Gpa, block: &Arc<RamBlock>, offset: u64, len: u64, priority: i32) -> Result<Mapping, MapError> {
        let _ = (gpa, block, offset, len, priority);
        unimplemented!()
    }
    /// Maps `len` bytes of `block` from `offset`, read-only for CPUs and devices.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_rom(self: &Arc<Self>, gpa: Gpa, block: &Arc<RamBlock>, offset: u64, len: u64, priority: i32) -> Result<Mapping, MapError> {
        let _ = (gpa, block, offset, len, priority);
        unimplemented!()
    }
    /// Maps a device's region of `len` bytes.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_mmio(self: &Arc<Self>, gpa: Gpa, len: u64, device: Arc<dyn MmioDevice>, priority: i32) -> Result<Mapping, MapError> {
        let _ = (gpa, len, device, priority);
        unimplemented!()
    }
    /// Maps memory that reads directly and whose writes go to `device`; [`Mapping::set_rom_mode`]`(false)` sends reads there too
    /// (flash in command mode).
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_rom_device(
        self: &Arc<Self>,
        gpa: Gpa,
        block: &Arc<RamBlock>,
        offset: u64,
        len: u64,
        device: Arc<dyn MmioDevice>,
        priority: i32,
    ) -> Result<Mapping, MapError> {
        let _ = (gpa, block, offset, len, device, priority);
        unimplemented!()
    }
    /// Shows `len` bytes of `target` from `target_gpa` at `gpa`; follows later changes of `target`.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_alias(self: &Arc<Self>, gpa: Gpa, target: &Arc<AddressSpace>, target_gpa: Gpa, len: u64, priority: i32) -> Result<Mapping, MapError> {
        let _ = (gpa, target, target_gpa, len, priority);
        unimplemented!()
    }
    /// Runs `f`; the view is rebuilt and announced once at its end, however many mappings change in it.
    pub fn transaction<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    // ---- the view ----

    /// The current view; cheap, lock-free. Do not keep it across waits.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Guard<Arc<FlatView>> {
        self.view.load()
    }
    /// The generation of the current view.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.view.load().generation
    }
    /// Subscribes to changes until the subscription is dropped.
    pub fn subscribe(&self, listener: Arc<dyn ChangeListener>) -> Subscription {
        self.notifier.subscribe(listener)
    }
    /// Announces a change that is not one of the mappings (protection, discard, migration). The generation is filled in.
    pub fn announce(&self, change: MemoryChange) {
        self.notifier.announce(&change);
    }

    // ---- access ----

    /// A load of `access.size` (1, 2, 4, 8) bytes, little-endian, zero-extended. RAM accesses that are naturally aligned are
    /// single-copy atomic.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn load(&self, gpa: Gpa, access: Access) -> Result<u64, BusError> {
        let _ = (gpa, access);
        unimplemented!()
    }
    /// A store of the low `access.size` bytes of `value`, little-endian.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn store(&self, gpa: Gpa, value: u64, access: Access) -> Result<(), BusError> {
        let _ = (gpa, value, access);
        unimplemented!()
    }
    /// Reads bytes; may cross ranges, devices are read in the largest pieces they take.
    ///
    /// # Errors
    /// [`BusError`] of the first failing piece.
    pub fn read(&self, gpa: Gpa, data: &mut [u8], requester: Requester) -> Result<(), BusError> {
        let _ = (gpa, data, requester);
        unimplemented!()
    }
    /// Writes bytes; ROM is refused.
    ///
    /// # Errors
    /// [`BusError`] of the first failing piece; earlier pieces are written.
    pub fn write(&self, gpa: Gpa, data: &[u8], requester: Requester) -> Result<(), BusError> {
        let _ = (gpa, data, requester);
        unimplemented!()
    }
    /// Writes bytes to RAM and ROM alike (loaders, debugger).
    ///
    /// # Errors
    /// [`BusError`] where no memory is mapped.
    pub fn write_rom(&self, gpa: Gpa, data: &[u8]) -> Result<(), BusError> {
        let _ = (gpa, data);
        unimplemented!()
    }
    /// Atomic compare and exchange of 1, 2, 4, 8 bytes in RAM, naturally aligned; returns the old value (exchanged if it equals
    /// `expected`).
    ///
    /// # Errors
    /// [`BusError::Refused`] for a device, an unaligned address or another size; [`BusError::ReadOnly`].
    pub fn compare_exchange(&self, gpa: Gpa, size: u8, expected: u64, new: u64) -> Result<u64, BusError> {
        let _ = (gpa, size, expected, new);
        unimplemented!()
    }
    /// Direct access to `len` bytes of writable RAM that lie in one range (virtqueue rings); `None` if they do not.
    #[must_use]
    pub fn host_slice(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        let _ = (gpa, len);
        unimplemented!()
    }
    /// The same for memory that need only be readable.
    #[must_use]
    pub fn host_slice_readable(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        let _ = (gpa, len);
        unimplemented!()
    }
}

/// Owns one mapping; dropping it unmaps.
#[must_use = "dropping a Mapping unmaps it"]
pub struct Mapping {
    space: Arc<AddressSpace>,
    id: u64,
}

impl Mapping {
    /// Shows or hides the mapping (PCI memory enable, BAR).
    pub fn set_enabled(&self, enabled: bool) {
        let _ = (&self.space, self.id, enabled);
        unimplemented!()
    }
    /// Moves the mapping.
    ///
    /// # Errors
    /// [`MapError::Range`]; the mapping stays where it was.
    pub fn move_to(&self, gpa: Gpa) -> Result<(), MapError> {
        let _ = gpa;
        unimplemented!()
    }
    /// For [`AddressSpace::map_rom_device`]: true = reads come from memory, false = from the device.
    pub fn set_rom_mode(&self, rom: bool) {
        let _ = rom;
        unimplemented!()
    }
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        unimplemented!()
    }
    #[must_use]
    pub fn enabled(&self) -> bool {
        unimplemented!()
    }
}

/// Bounds-checked direct access to guest RAM. Keeps the block alive; ask [`Self::is_current`] (one atomic load), or subscribe to
/// changes, to know when the guest address maps elsewhere.
#[derive(Clone)]
pub struct HostSlice {
    block: Arc<RamBlock>,
    /// Offset in the block.
    offset: u64,
    len: u64,
    generation: u64,
}

impl HostSlice {
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Host pointer of the first byte, valid for `len` bytes while this value lives. Call [`Self::note_write`] after writing.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        unimplemented!()
    }
    /// Does the slice still show what the address space maps?
    #[must_use]
    pub fn is_current(&self, space: &AddressSpace) -> bool {
        self.generation == space.generation()
    }
    /// Copies out. # Errors: [`BusError::Unassigned`] out of bounds (all methods).
    #[allow(clippy::missing_errors_doc)]
    pub fn read(&self, at: u64, data: &mut [u8]) -> Result<(), BusError> {
        let _ = (at, data);
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn write(&self, at: u64, data: &[u8]) -> Result<(), BusError> {
        let _ = (at, data);
        unimplemented!()
    }
    /// Atomic (relaxed, natural alignment required) little-endian loads and stores; use `std::sync::atomic::fence` around them.
    #[allow(clippy::missing_errors_doc)]
    pub fn load_u16(&self, at: u64) -> Result<u16, BusError> {
        let _ = at;
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn store_u16(&self, at: u64, value: u16) -> Result<(), BusError> {
        let _ = (at, value);
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn load_u32(&self, at: u64) -> Result<u32, BusError> {
        let _ = at;
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn store_u32(&self, at: u64, value: u32) -> Result<(), BusError> {
        let _ = (at, value);
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn load_u64(&self, at: u64) -> Result<u64, BusError> {
        let _ = at;
        unimplemented!()
    }
    #[allow(clippy::missing_errors_doc)]
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), BusError> {
        let _ = (at, value);
        unimplemented!()
    }
    /// After writes through [`Self::as_ptr`].
    pub fn note_write(&self, at: u64, len: u64) {
        self.block.note_write(self.offset.wrapping_add(at), len);
    }
}
