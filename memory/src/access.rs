//! Access to an address space by address: typed loads and stores, bytes, atomics, and direct host access.

use crate::mmio::{self, Access, BusError, Requester};
use crate::view::{FlatView, Lookup};
use crate::{AddressSpace, Gpa, RamBlock};
use std::sync::Arc;

impl FlatView {
    /// See [`AddressSpace::load`].
    ///
    /// # Errors
    /// [`BusError`].
    pub fn load(&self, gpa: Gpa, access: Access) -> Result<u64, BusError> {
        let size = u64::from(access.size);
        match self.lookup(gpa) {
            Lookup::Ram { block, offset, remaining, .. } if remaining >= size => block.load(offset, access.size),
            Lookup::Mmio { device, offset, rules, remaining } if remaining >= size => {
                mmio::read(&**device, rules, offset, access)
            }
            Lookup::Unassigned => Err(BusError::Unassigned),
            // The access crosses into the next range.
            _ => {
                let mut bytes = [0; 8];
                self.read(gpa, bytes.get_mut(..usize::from(access.size)).ok_or(BusError::Refused)?, access)?;
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    /// See [`AddressSpace::store`].
    ///
    /// # Errors
    /// [`BusError`].
    pub fn store(&self, gpa: Gpa, value: u64, access: Access) -> Result<(), BusError> {
        let size = u64::from(access.size);
        match self.lookup(gpa) {
            Lookup::Ram { block, offset, remaining, readonly: false, .. } if remaining >= size => {
                block.store(offset, access.size, value)
            }
            Lookup::Ram { writes: Some((target, offset)), remaining, .. } if remaining >= size => {
                mmio::write(&*target.device, target.rules, offset, value, access)
            }
            Lookup::Ram { remaining, .. } if remaining >= size => Err(BusError::ReadOnly),
            Lookup::Mmio { device, offset, rules, remaining } if remaining >= size => {
                mmio::write(&**device, rules, offset, value, access)
            }
            Lookup::Unassigned => Err(BusError::Unassigned),
            _ => self.write(
                gpa,
                value.to_le_bytes().get(..usize::from(access.size)).ok_or(BusError::Refused)?,
                access,
                false,
            ),
        }
    }

    /// Reads bytes; `access.size` does not matter.
    pub(crate) fn read(&self, gpa: Gpa, data: &mut [u8], access: Access) -> Result<(), BusError> {
        let (mut gpa, mut data) = (gpa, data);
        while !data.is_empty() {
            let done = match self.lookup(gpa) {
                Lookup::Ram { block, offset, remaining, .. } => {
                    let n = data.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                    block.read(offset, &mut data[..n])?;
                    n
                }
                Lookup::Mmio { device, offset, rules, remaining } => {
                    let n = piece(offset, remaining, data.len(), rules.valid_max);
                    let value = mmio::read(&**device, rules, offset, access.with_size(n))?;
                    data[..usize::from(n)].copy_from_slice(&value.to_le_bytes()[..usize::from(n)]);
                    usize::from(n)
                }
                Lookup::Unassigned => return Err(BusError::Unassigned),
                Lookup::Private => return Err(BusError::Refused),
            };
            data = &mut data[done..];
            gpa = gpa.offset(done as u64);
        }
        Ok(())
    }

    /// Writes bytes; `rom`: also to read-only memory.
    pub(crate) fn write(&self, gpa: Gpa, data: &[u8], access: Access, rom: bool) -> Result<(), BusError> {
        let (mut gpa, mut data) = (gpa, data);
        while !data.is_empty() {
            let (target, rules, offset, remaining) = match self.lookup(gpa) {
                Lookup::Ram { block, offset, remaining, readonly, .. } if rom || !readonly => {
                    let n = data.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                    block.write(offset, &data[..n])?;
                    data = &data[n..];
                    gpa = gpa.offset(n as u64);
                    continue;
                }
                Lookup::Ram { writes: Some((target, offset)), remaining, .. } => {
                    (&target.device, target.rules, offset, remaining)
                }
                Lookup::Ram { .. } => return Err(BusError::ReadOnly),
                Lookup::Mmio { device, offset, rules, remaining } => (device, rules, offset, remaining),
                Lookup::Unassigned => return Err(BusError::Unassigned),
                Lookup::Private => return Err(BusError::Refused),
            };
            let n = piece(offset, remaining, data.len(), rules.valid_max);
            let mut bytes = [0; 8];
            bytes[..usize::from(n)].copy_from_slice(&data[..usize::from(n)]);
            mmio::write(&**target, rules, offset, u64::from_le_bytes(bytes), access.with_size(n))?;
            data = &data[usize::from(n)..];
            gpa = gpa.offset(u64::from(n));
        }
        Ok(())
    }
}

/// The largest naturally aligned access that fits.
fn piece(offset: u64, remaining: u64, wanted: usize, valid_max: u8) -> u8 {
    let mut n = valid_max.clamp(1, 8);
    while n > 1 && (u64::from(n) > remaining || usize::from(n) > wanted || offset & (u64::from(n) - 1) != 0) {
        n /= 2;
    }
    n
}

impl AddressSpace {
    /// A load of `access.size` (1, 2, 4, 8) bytes, little-endian, zero-extended. RAM accesses that are naturally aligned are
    /// single-copy atomic.
    ///
    /// # Errors
    /// [`BusError`].
    #[inline]
    pub fn load(&self, gpa: Gpa, access: Access) -> Result<u64, BusError> {
        match self.secure_of(access) {
            Some(side) => side.view().load(gpa, access),
            None => self.view().load(gpa, access),
        }
    }
    /// A store of the low `access.size` bytes of `value`, little-endian.
    ///
    /// # Errors
    /// [`BusError`].
    #[inline]
    pub fn store(&self, gpa: Gpa, value: u64, access: Access) -> Result<(), BusError> {
        match self.secure_of(access) {
            Some(side) => side.view().store(gpa, value, access),
            None => self.view().store(gpa, value, access),
        }
    }
    #[inline]
    fn secure_of(&self, access: Access) -> Option<Arc<AddressSpace>> {
        if access.secure { self.secure_side() } else { None }
    }
    /// Reads bytes; may cross ranges, devices are read in the largest pieces they take.
    ///
    /// # Errors
    /// [`BusError`] of the first failing piece.
    pub fn read(&self, gpa: Gpa, data: &mut [u8], requester: Requester) -> Result<(), BusError> {
        self.view().read(gpa, data, Access { size: 1, requester, secure: false })
    }
    /// Writes bytes; ROM is refused.
    ///
    /// # Errors
    /// [`BusError`] of the first failing piece; earlier pieces are written.
    pub fn write(&self, gpa: Gpa, data: &[u8], requester: Requester) -> Result<(), BusError> {
        self.view().write(gpa, data, Access { size: 1, requester, secure: false }, false)
    }
    /// Writes bytes to RAM and ROM alike (loaders, debugger).
    ///
    /// # Errors
    /// [`BusError`] where no memory is mapped.
    pub fn write_rom(&self, gpa: Gpa, data: &[u8]) -> Result<(), BusError> {
        self.view().write(gpa, data, Access::host(1), true)
    }
    /// Atomic compare and exchange of 1, 2, 4, 8 bytes in RAM, naturally aligned; returns the old value (exchanged if it equals
    /// `expected`).
    ///
    /// # Errors
    /// [`BusError::Refused`] for a device, an unaligned address or another size; [`BusError::ReadOnly`].
    pub fn compare_exchange(&self, gpa: Gpa, size: u8, expected: u64, new: u64) -> Result<u64, BusError> {
        match self.view().lookup(gpa) {
            Lookup::Ram { block, offset, remaining, readonly: false, .. } if remaining >= u64::from(size) => {
                block.compare_exchange(offset, size, expected, new)
            }
            Lookup::Ram { readonly: true, .. } => Err(BusError::ReadOnly),
            Lookup::Unassigned => Err(BusError::Unassigned),
            _ => Err(BusError::Refused),
        }
    }
    /// Direct access to `len` bytes of writable RAM that lie in one range (virtqueue rings); `None` if they do not.
    #[must_use]
    pub fn host_slice(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        self.slice(gpa, len, true)
    }
    /// The same for memory that need only be readable.
    #[must_use]
    pub fn host_slice_readable(&self, gpa: Gpa, len: u64) -> Option<HostSlice> {
        self.slice(gpa, len, false)
    }
    fn slice(&self, gpa: Gpa, len: u64, write: bool) -> Option<HostSlice> {
        let view = self.view();
        match view.lookup(gpa) {
            Lookup::Ram { block, offset, remaining, readonly, .. }
                if remaining >= len && !(write && readonly) && !block.is_device() =>
            {
                Some(HostSlice { block: block.clone(), offset, len, generation: view.generation() })
            }
            _ => None,
        }
    }
}

/// Bounds-checked direct access to guest RAM. Keeps the block alive; ask [`Self::is_current`] (one atomic load), or subscribe to
/// changes, to know when the guest address maps elsewhere. Errors of all methods: [`BusError::Unassigned`] out of bounds,
/// [`BusError::Refused`] if a typed access is not naturally aligned in the block.
#[derive(Clone)]
pub struct HostSlice {
    block: Arc<RamBlock>,
    /// Offset in the block.
    offset: u64,
    len: u64,
    generation: u64,
}

#[allow(clippy::missing_errors_doc)]
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
        self.block.host_ptr().wrapping_add(self.offset as usize)
    }
    /// The block, and the offset of the first byte in it.
    #[must_use]
    pub fn block(&self) -> (&Arc<RamBlock>, u64) {
        (&self.block, self.offset)
    }
    /// Does the slice still show what the address space maps?
    #[must_use]
    pub fn is_current(&self, space: &AddressSpace) -> bool {
        self.generation == space.generation()
    }
    #[inline]
    fn at(&self, at: u64, len: u64) -> Result<u64, BusError> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.offset + at),
            _ => Err(BusError::Unassigned),
        }
    }
    #[inline]
    fn aligned(&self, at: u64, len: u64) -> Result<u64, BusError> {
        let offset = self.at(at, len)?;
        if offset & (len - 1) == 0 { Ok(offset) } else { Err(BusError::Refused) }
    }
    /// Copies out.
    pub fn read(&self, at: u64, data: &mut [u8]) -> Result<(), BusError> {
        self.block.read(self.at(at, data.len() as u64)?, data)
    }
    /// Copies in, with [`Self::note_write`].
    pub fn write(&self, at: u64, data: &[u8]) -> Result<(), BusError> {
        self.block.write(self.at(at, data.len() as u64)?, data)
    }
    /// Atomic (relaxed) little-endian loads and stores; use `std::sync::atomic::fence` around them.
    #[inline]
    pub fn load_u16(&self, at: u64) -> Result<u16, BusError> {
        Ok(self.block.load(self.aligned(at, 2)?, 2)? as u16)
    }
    #[inline]
    pub fn store_u16(&self, at: u64, value: u16) -> Result<(), BusError> {
        self.block.store(self.aligned(at, 2)?, 2, u64::from(value))
    }
    #[inline]
    pub fn load_u32(&self, at: u64) -> Result<u32, BusError> {
        Ok(self.block.load(self.aligned(at, 4)?, 4)? as u32)
    }
    #[inline]
    pub fn store_u32(&self, at: u64, value: u32) -> Result<(), BusError> {
        self.block.store(self.aligned(at, 4)?, 4, u64::from(value))
    }
    #[inline]
    pub fn load_u64(&self, at: u64) -> Result<u64, BusError> {
        self.block.load(self.aligned(at, 8)?, 8)
    }
    #[inline]
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), BusError> {
        self.block.store(self.aligned(at, 8)?, 8, value)
    }
    /// After writes through [`Self::as_ptr`].
    #[inline]
    pub fn note_write(&self, at: u64, len: u64) {
        self.block.note_write(self.offset.wrapping_add(at), len);
    }
    /// Counts the pages as pinned by DMA until [`Self::unpin`].
    pub fn pin(&self) {
        self.block.pin(self.offset, self.len);
    }
    pub fn unpin(&self) {
        self.block.unpin(self.offset, self.len);
    }
}
