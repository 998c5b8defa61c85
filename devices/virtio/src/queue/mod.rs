//! Virtqueues, device side: the split and the packed ring behind one type.

mod packed;
mod rings;
mod split;
#[cfg(test)]
mod tests;

use minicbor::{Decode, Encode};
use rhea_device::DmaHandle;
use rhea_memory::{BusError, Gpa};
use rings::Rings;

/// What the driver did to a ring that the specification forbids; the device then needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// A ring lies outside of memory or is misaligned.
    Memory,
    /// More buffers are available than the queue holds.
    AvailableIndex,
    /// A descriptor index is out of range.
    DescriptorIndex,
    /// A chain is longer than the queue (a loop), or than 4 GiB.
    TooLong,
    /// A descriptor of length zero.
    ZeroLength,
    /// A device-readable descriptor after a device-writable one.
    Order,
    /// An indirect table that is not allowed, empty, nested, or of a bad length.
    Indirect,
    /// A used buffer that was never available.
    Used,
}

impl From<BusError> for QueueError {
    fn from(_: BusError) -> Self {
        Self::Memory
    }
}

pub(crate) const DESC_NEXT: u16 = 1;
pub(crate) const DESC_WRITE: u16 = 2;
pub(crate) const DESC_INDIRECT: u16 = 4;

/// Buffers of a chain with an indirect table, whatever the size of the queue.
const INDIRECT_LIMIT: usize = 1024;

/// A piece of guest memory in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub gpa: Gpa,
    pub len: u32,
}

/// A chain of buffers that the driver made available.
#[derive(Debug, Default)]
pub struct Chain {
    /// Head (split) or buffer id (packed).
    pub(crate) id: u16,
    /// Descriptors it takes in the ring (packed).
    pub(crate) descriptors: u16,
    buffers: Vec<Buffer>,
    /// How many of the buffers are device-readable; the rest is device-writable.
    readable: usize,
}

impl Chain {
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        &self.buffers[..self.readable]
    }
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        &self.buffers[self.readable..]
    }
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        self.readable().iter().map(|b| u64::from(b.len)).sum()
    }
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        self.writable().iter().map(|b| u64::from(b.len)).sum()
    }
    fn each(
        buffers: &[Buffer],
        offset: u64,
        len: usize,
        mut f: impl FnMut(Gpa, usize, usize) -> Result<(), BusError>,
    ) -> Result<usize, BusError> {
        let (mut skip, mut done) = (offset, 0);
        for b in buffers {
            let size = u64::from(b.len);
            if skip >= size {
                skip -= size;
                continue;
            }
            if done == len {
                break;
            }
            let n = (len - done).min((size - skip) as usize);
            f(b.gpa.offset(skip), done, n)?;
            done += n;
            skip = 0;
        }
        Ok(done)
    }
    /// Copies from the device-readable part; returns how much there was.
    ///
    /// # Errors
    /// A buffer is not memory.
    pub fn read(&self, dma: &DmaHandle, offset: u64, data: &mut [u8]) -> Result<usize, BusError> {
        Self::each(self.readable(), offset, data.len(), |gpa, at, n| dma.read(gpa, &mut data[at..at + n]))
    }
    /// Copies to the device-writable part; returns how much fitted.
    ///
    /// # Errors
    /// A buffer is not memory.
    pub fn write(&self, dma: &DmaHandle, offset: u64, data: &[u8]) -> Result<usize, BusError> {
        Self::each(self.writable(), offset, data.len(), |gpa, at, n| dma.write(gpa, &data[at..at + n]))
    }
}

/// Collects a chain's descriptors and checks what holds for both ring formats.
pub(crate) struct Collector {
    chain: Chain,
    limit: usize,
    bytes: u64,
}

impl Collector {
    pub(crate) fn new(mut buffers: Vec<Buffer>, limit: u16) -> Self {
        buffers.clear();
        Self { chain: Chain { buffers, ..Chain::default() }, limit: usize::from(limit), bytes: 0 }
    }
    pub(crate) fn add(&mut self, gpa: u64, len: u32, writable: bool) -> Result<(), QueueError> {
        let c = &mut self.chain;
        if len == 0 {
            return Err(QueueError::ZeroLength);
        }
        self.bytes += u64::from(len);
        if c.buffers.len() >= self.limit || self.bytes > u64::from(u32::MAX) {
            return Err(QueueError::TooLong);
        }
        if !writable {
            if c.readable != c.buffers.len() {
                return Err(QueueError::Order);
            }
            c.readable += 1;
        }
        c.buffers.push(Buffer { gpa: Gpa(gpa), len });
        Ok(())
    }
    pub(crate) fn finish(mut self, id: u16, descriptors: u16) -> Chain {
        self.chain.id = id;
        self.chain.descriptors = descriptors;
        self.chain
    }
}

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub addr: u64,
    pub len: u32,
    /// Split: flags. Packed: buffer id.
    pub word12: u16,
    /// Split: next. Packed: flags.
    pub word14: u16,
}

impl Descriptor {
    pub(crate) fn from_bytes(b: &[u8; 16]) -> Self {
        Self {
            addr: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            len: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            word12: u16::from_le_bytes([b[12], b[13]]),
            word14: u16::from_le_bytes([b[14], b[15]]),
        }
    }
}

/// What the driver programs, and where the device is in the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QueueState {
    /// Entries.
    #[n(0)]
    pub size: u16,
    #[n(1)]
    pub ready: bool,
    /// Descriptor table, or packed ring.
    #[n(2)]
    pub desc: u64,
    /// Available ring, or driver event suppression.
    #[n(3)]
    pub driver: u64,
    /// Used ring, or device event suppression.
    #[n(4)]
    pub device: u64,
    /// Split: counts up freely. Packed: index in the ring.
    #[n(5)]
    pub next_avail: u16,
    #[n(6)]
    pub next_used: u16,
    #[n(7)]
    pub avail_wrap: bool,
    #[n(8)]
    pub used_wrap: bool,
    /// Used entries since the driver was last interrupted or asked about.
    #[n(9)]
    pub unsignalled: u16,
}

/// Where the device was, to give chains back unused.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    next_avail: u16,
    avail_wrap: bool,
}

/// One virtqueue.
pub struct Queue {
    pub(crate) state: QueueState,
    pub(crate) max_size: u16,
    pub(crate) packed: bool,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
    /// Split: the driver's index when last looked at.
    shadow_avail: u16,
    rings: Option<Rings>,
    dma: DmaHandle,
    spare: Vec<Vec<Buffer>>,
}

impl Queue {
    /// A queue of at most `max_size` entries (a power of two).
    #[must_use]
    pub fn new(max_size: u16, dma: DmaHandle) -> Self {
        let mut q = Self {
            state: QueueState::default(),
            max_size,
            packed: false,
            event_idx: false,
            indirect: false,
            shadow_avail: 0,
            rings: None,
            dma,
            spare: Vec::new(),
        };
        q.reset();
        q
    }
    /// Forgets everything the driver programmed.
    pub fn reset(&mut self) {
        self.state = QueueState { size: self.max_size, avail_wrap: true, used_wrap: true, ..QueueState::default() };
        self.shadow_avail = 0;
        self.rings = None;
        (self.packed, self.event_idx, self.indirect) = (false, false, false);
    }
    #[must_use]
    pub fn state(&self) -> &QueueState {
        &self.state
    }
    #[must_use]
    pub fn max_size(&self) -> u16 {
        self.max_size
    }
    /// The way to the buffers.
    #[must_use]
    pub fn dma(&self) -> &DmaHandle {
        &self.dma
    }
    /// Takes over what was negotiated; before the queue is used.
    pub fn set_features(&mut self, features: u64) {
        self.packed = features & crate::features::RING_PACKED != 0;
        self.event_idx = features & crate::features::EVENT_IDX != 0;
        self.indirect = features & crate::features::INDIRECT_DESC != 0;
    }
    /// Changes what the driver programs; ignored once the queue is ready.
    pub fn program(&mut self, change: impl FnOnce(&mut QueueState)) {
        if !self.state.ready {
            change(&mut self.state);
        }
    }
    /// Makes the queue ready, if its size is possible.
    pub fn enable(&mut self) {
        let n = self.state.size;
        if n != 0 && n <= self.max_size && (self.packed || n.is_power_of_two()) {
            self.state.ready = true;
            self.rings = None;
        }
    }
    /// Takes the queue out of service; its place in the ring is forgotten.
    pub fn disable(&mut self) {
        let QueueState { size, desc, driver, device, .. } = self.state;
        self.state =
            QueueState { size, desc, driver, device, avail_wrap: true, used_wrap: true, ..QueueState::default() };
        self.shadow_avail = 0;
        self.rings = None;
    }
    /// Programs the queue (tests, restored state); the driver's way is the transport.
    pub fn set_state(&mut self, state: QueueState) {
        self.shadow_avail = state.next_avail;
        self.state = state;
        self.rings = None;
    }

    /// Takes the rings' host addresses if they are not at hand or no longer true.
    fn refresh(&mut self) -> Result<(), QueueError> {
        if !self.dma.enabled() {
            return Err(QueueError::Memory);
        }
        if self.rings.as_ref().is_none_or(Rings::stale) {
            self.rings = None;
            self.rings = Some(Rings::take(&self.dma, &self.state, self.packed)?);
        }
        Ok(())
    }
    fn usable(&self) -> bool {
        // While a driver has bus mastering off, its queues rest.
        self.state.ready && self.state.size != 0 && self.dma.enabled()
    }

    /// The next chain the driver made available.
    ///
    /// # Errors
    /// The ring is malformed.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if !self.usable() {
            return Ok(None);
        }
        self.refresh()?;
        if self.packed { self.pop_packed() } else { self.pop_split() }
    }
    /// Is a chain available?
    ///
    /// # Errors
    /// The ring is malformed.
    pub fn has_available(&mut self) -> Result<bool, QueueError> {
        if !self.usable() {
            return Ok(false);
        }
        self.refresh()?;
        if self.packed { self.available_packed() } else { Ok(self.available_split()? != 0) }
    }
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { next_avail: self.state.next_avail, avail_wrap: self.state.avail_wrap }
    }
    /// Gives back, unused, everything popped since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.state.next_avail = mark.next_avail;
        self.state.avail_wrap = mark.avail_wrap;
    }
    /// Returns chains to the driver with the number of bytes written to each; all appear at once.
    ///
    /// # Errors
    /// The ring is no longer memory.
    pub fn push(&mut self, chains: impl IntoIterator<Item = (Chain, u32)>) -> Result<(), QueueError> {
        if !self.usable() {
            return Ok(());
        }
        self.refresh()?;
        if self.packed { self.push_packed(chains.into_iter()) } else { self.push_split(chains.into_iter()) }
    }
    /// Must the driver be interrupted for what was pushed since the last call?
    ///
    /// # Errors
    /// The ring is no longer memory.
    pub fn needs_interrupt(&mut self) -> Result<bool, QueueError> {
        if !self.usable() || self.state.unsignalled == 0 {
            return Ok(false);
        }
        self.refresh()?;
        let needed = if self.packed { self.interrupt_packed()? } else { self.interrupt_split()? };
        self.state.unsignalled = 0;
        Ok(needed)
    }
    /// Asks the driver not to notify (a hint) while the queue is being worked on.
    ///
    /// # Errors
    /// The ring is no longer memory.
    pub fn disable_notifications(&mut self) -> Result<(), QueueError> {
        if !self.usable() {
            return Ok(());
        }
        self.refresh()?;
        if self.packed { self.disable_packed() } else { self.disable_split() }
    }
    /// Asks the driver to notify about the next chain; true if one is available already.
    ///
    /// # Errors
    /// The ring is malformed.
    pub fn enable_notifications(&mut self) -> Result<bool, QueueError> {
        if !self.usable() {
            return Ok(false);
        }
        self.refresh()?;
        if self.packed {
            self.enable_packed()?;
            self.available_packed()
        } else {
            self.enable_split()?;
            Ok(self.available_split()? != 0)
        }
    }

    fn spare(&mut self) -> Vec<Buffer> {
        self.spare.pop().unwrap_or_default()
    }
    fn recycle(&mut self, chain: Chain) {
        if self.spare.len() < 64 && chain.buffers.capacity() <= 256 {
            self.spare.push(chain.buffers);
        }
    }
    /// Adds the descriptors of an indirect table; `chained` follows next links (split), else all in turn (packed).
    fn add_indirect(&self, collector: &mut Collector, addr: u64, len: u32, chained: bool) -> Result<(), QueueError> {
        if !self.indirect || len == 0 || !len.is_multiple_of(16) {
            return Err(QueueError::Indirect);
        }
        // Drivers make tables longer than a short queue, although they should not.
        collector.limit = collector.limit.max(INDIRECT_LIMIT);
        let entries = len / 16;
        let mut index = 0;
        // Each step adds a buffer, and the collector stops at its limit.
        while index < entries {
            let mut bytes = [0; 16];
            self.dma.read(Gpa(addr).checked_add(u64::from(index) * 16).ok_or(QueueError::Memory)?, &mut bytes)?;
            let d = Descriptor::from_bytes(&bytes);
            let (flags, next) = if chained { (d.word12, d.word14) } else { (d.word14, 0) };
            if flags & DESC_INDIRECT != 0 {
                return Err(QueueError::Indirect);
            }
            collector.add(d.addr, d.len, flags & DESC_WRITE != 0)?;
            if !chained {
                index += 1;
            } else if flags & DESC_NEXT == 0 {
                break;
            } else {
                index = u32::from(next);
                if index >= entries {
                    return Err(QueueError::DescriptorIndex);
                }
            }
        }
        Ok(())
    }
}
