//! Blocks of guest RAM (or ROM) in host memory.

use crate::host::{DevicePages, HostMemory, Source, zeroed_counters, zeroed_words};
use crate::{BusError, PAGE_SIZE};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use thiserror::Error;
use vm_memory::mmap::MmapRegion;

/// Where a block's host memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Backing {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// A file, or an unlinked temporary file when the path is a directory (hugetlbfs). `share`: MAP_SHARED.
    File { path: PathBuf, share: bool },
    /// Anonymous huge pages of the given size in bytes (MAP_HUGETLB).
    HugePages { page_size: u64 },
}

/// How to make a block.
#[derive(Clone, Debug, Default)]
pub struct RamOptions {
    pub name: String,
    /// Bytes; rounded up to the page size by the caller.
    pub len: u64,
    pub backing: Backing,
    /// Touch every page now.
    pub prealloc: bool,
}

/// Why a block could not be made.
#[derive(Debug, Error)]
pub enum MemoryError {
    #[error("cannot allocate {len} bytes for guest memory '{name}': {source}")]
    Allocate { name: String, len: u64, source: std::io::Error },
    #[error("memory backend '{}': {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("memory '{name}': size {len:#x} is not a multiple of the page size {page:#x}")]
    Size { name: String, len: u64, page: u64 },
}

/// Who reads a dirty log; each has its own bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DirtyClient {
    Migration = 0,
    Display = 1,
    Snapshot = 2,
    /// Who measures how much is written.
    Rate = 3,
}

/// Told of writes (by DMA, the debugger, the host) into pages marked with [`RamBlock::set_code_page`].
pub trait CodeWriteListener: Send + Sync {
    /// `len` bytes at `offset` of `block` were written; at least one touched page was marked as code.
    fn code_written(&self, block: &RamBlock, offset: u64, len: u64);
}

impl DirtyClient {
    pub const ALL: [Self; DIRTY_CLIENTS] = [Self::Migration, Self::Display, Self::Snapshot, Self::Rate];
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

fn bits_of(clients: &[DirtyClient]) -> u8 {
    clients.iter().fold(0, |bits, client| bits | client.bit())
}

/// Knows of writes that the methods of [`RamBlock`] do not see: those of guest code that runs on the host's processor, and of devices of
/// the host. Called with no lock of the block's held.
pub trait DirtySource: Send + Sync {
    /// The log of one of its clients of `block` is on (or none is any more): writes are to be tracked from now on.
    fn track(&self, block: &RamBlock, on: bool);
    /// Reports what was written since the last call by [`RamBlock::note_write`].
    fn collect(&self, block: &RamBlock);
}

/// Bit of `flags`: some page was marked as code. The bits below are the dirty clients.
const HAS_CODE: u8 = 0x80;
const DIRTY_MASK: u8 = 0x7f;
const DIRTY_CLIENTS: usize = 4;

/// Who knows of writes not seen here, and bits of the clients whose logs it is there for.
struct Follower {
    source: Weak<dyn DirtySource>,
    clients: u8,
}

/// A block of guest memory: contiguous in host memory, zero at first, sparse.
pub struct RamBlock {
    name: String,
    len: u64,
    memory: HostMemory,
    shared_file: bool,
    flags: AtomicU8,
    dirty: [OnceLock<Box<[AtomicU64]>>; DIRTY_CLIENTS],
    code: Box<[AtomicU64]>,
    listener: Mutex<Option<Weak<dyn CodeWriteListener>>>,
    pins: OnceLock<Box<[AtomicU16]>>,
    sources: Mutex<Vec<Follower>>,
    /// Pages that a [`DirtySource`] lets guest code write to unseen until it is asked the next time.
    open: OnceLock<Box<[AtomicU64]>>,
    /// Pages that are guest code's alone.
    private: OnceLock<Box<[AtomicU64]>>,
}

fn open_backing(path: &Path, len: u64) -> std::io::Result<File> {
    let file = if path.is_dir() {
        use rustix::fs::{Mode, OFlags};
        let fd = rustix::fs::open(path, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        match fd {
            Ok(fd) => File::from(fd),
            Err(_) => {
                // hugetlbfs has no O_TMPFILE: a named file, unlinked at once.
                let name = path.join(format!("rhea-memory-{}", std::process::id()));
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(&name)?;
                std::fs::remove_file(&name)?;
                file
            }
        }
    } else {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?
    };
    if file.metadata()?.len() < len {
        file.set_len(len)?;
    }
    Ok(file)
}

impl RamBlock {
    /// Allocates a block.
    ///
    /// # Errors
    /// [`MemoryError`] with what could not be had.
    pub fn new(options: RamOptions) -> Result<Arc<Self>, MemoryError> {
        let RamOptions { name, len, backing, prealloc } = options;
        let page = match backing {
            Backing::HugePages { page_size } => page_size.max(PAGE_SIZE),
            _ => PAGE_SIZE,
        };
        if len == 0 || len % page != 0 {
            return Err(MemoryError::Size { name, len, page });
        }
        let (memory, shared_file) = match &backing {
            Backing::Anonymous => (HostMemory::new(len, &Source::Anonymous, prealloc), false),
            Backing::HugePages { page_size } => {
                (HostMemory::new(len, &Source::HugePages { page_size: *page_size }, prealloc), false)
            }
            Backing::File { path, share } => {
                let made = open_backing(path, len)
                    .and_then(|file| HostMemory::new(len, &Source::File { file: &file, share: *share }, prealloc));
                (Ok(made.map_err(|source| MemoryError::File { path: path.clone(), source })?), *share)
            }
        };
        let memory = memory.map_err(|source| MemoryError::Allocate { name: name.clone(), len, source })?;
        Ok(Self::with(name, memory, len, shared_file))
    }
    /// Device memory: `pages` of a device of the host, which the guest accesses as they are. It is mapped like RAM, but accesses have
    /// effects: it holds no code, no log of what is written to it is kept, and what is not accessed by size gets aligned accesses.
    ///
    /// # Errors
    /// [`MemoryError::Size`], or no room in this process.
    pub fn device(name: &str, pages: Arc<dyn DevicePages>) -> Result<Arc<Self>, MemoryError> {
        let (name, len) = (name.to_owned(), pages.len());
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Size { name, len, page: PAGE_SIZE });
        }
        match HostMemory::of_device(pages) {
            Ok(memory) => Ok(Self::with(name, memory, len, true)),
            Err(source) => Err(MemoryError::Allocate { name, len, source }),
        }
    }
    fn with(name: String, memory: HostMemory, len: u64, shared_file: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            len,
            memory,
            shared_file,
            flags: AtomicU8::new(0),
            dirty: [const { OnceLock::new() }; DIRTY_CLIENTS],
            code: zeroed_words(words(len)),
            listener: Mutex::new(None),
            pins: OnceLock::new(),
            sources: Mutex::default(),
            open: OnceLock::new(),
            private: OnceLock::new(),
        })
    }
    /// Is it a device's ([`Self::device`])?
    #[inline]
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.memory.is_device()
    }
    /// Is it private anonymous memory, in whatever pages the host likes?
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.memory.is_plain()
    }
    pub(crate) fn look_at_all(&self) -> std::io::Result<()> {
        self.memory.look_at_all()
    }
    pub(crate) fn use_huge_pages(&self, on: bool) {
        self.memory.use_huge_pages(on);
    }
    /// An anonymous sparse block of `len` bytes.
    ///
    /// # Errors
    /// [`MemoryError::Allocate`].
    pub fn anonymous(name: &str, len: u64) -> Result<Arc<Self>, MemoryError> {
        Self::new(RamOptions { name: name.to_owned(), len, ..RamOptions::default() })
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// First byte in host memory; valid as long as the block lives.
    #[inline]
    #[must_use]
    pub fn host_ptr(&self) -> *mut u8 {
        self.memory.ptr()
    }
    /// The mapping as vm-memory sees it, for vectored host I/O straight into guest memory ([`Self::note_write`] afterwards).
    #[must_use]
    pub fn region(&self) -> &MmapRegion {
        self.memory.region()
    }
    fn check(&self, offset: u64, len: u64) -> Result<(), BusError> {
        if self.memory.contains(offset, len) { Ok(()) } else { Err(BusError::Unassigned) }
    }
    /// Copies out of the block.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        self.check(offset, data.len() as u64)?;
        self.memory.copy_out(offset, data);
        Ok(())
    }
    /// Copies into the block and calls [`Self::note_write`].
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        self.check(offset, data.len() as u64)?;
        self.memory.copy_in(offset, data);
        self.note_write(offset, data.len() as u64);
        Ok(())
    }
    /// Fills a range with one byte and calls [`Self::note_write`].
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Result<(), BusError> {
        self.check(offset, len)?;
        self.memory.fill(offset, len, byte);
        self.note_write(offset, len);
        Ok(())
    }
    /// A little-endian load of `size` (1, 2, 4, 8) bytes; single-copy atomic if aligned.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    #[inline]
    pub fn load(&self, offset: u64, size: u8) -> Result<u64, BusError> {
        self.check(offset, u64::from(size))?;
        Ok(self.memory.load(offset, size))
    }
    /// A little-endian store of `size` bytes, with [`Self::note_write`]; single-copy atomic if aligned.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    #[inline]
    pub fn store(&self, offset: u64, size: u8, value: u64) -> Result<(), BusError> {
        self.check(offset, u64::from(size))?;
        self.memory.store(offset, size, value);
        self.note_write(offset, u64::from(size));
        Ok(())
    }
    /// Compare and exchange of an aligned little-endian value of `size` bytes: the old value.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range, [`BusError::Refused`] if not aligned or of another size.
    pub fn compare_exchange(&self, offset: u64, size: u8, expected: u64, new: u64) -> Result<u64, BusError> {
        if !matches!(size, 1 | 2 | 4 | 8) || offset & (u64::from(size) - 1) != 0 {
            return Err(BusError::Refused);
        }
        self.check(offset, u64::from(size))?;
        let old = self.memory.compare_exchange(offset, size, expected, new);
        self.note_write(offset, u64::from(size));
        Ok(old)
    }
    /// Must follow every write to the block that did not go through a method of this crate: marks dirty pages and tells the
    /// code listener if a touched page holds translated code. Cheap when neither applies.
    #[inline]
    pub fn note_write(&self, offset: u64, len: u64) {
        let flags = self.flags.load(Ordering::Acquire);
        if flags != 0 && len != 0 {
            self.note_write_slow(flags, offset, len);
        }
    }

    #[cold]
    fn note_write_slow(&self, flags: u8, offset: u64, len: u64) {
        let (first, last) = self.pages(offset, len);
        self.mark(flags, (first, last));
        if flags & HAS_CODE != 0 && (first..=last).any(|page| self.is_code_page(page)) {
            let listener = self.listener.lock().as_ref().and_then(Weak::upgrade);
            if let Some(listener) = listener {
                listener.code_written(self, offset, len);
            }
        }
    }
    /// Marks pages dirty for some clients, as far as their logs are on, without a look at code: for who learns of writes later, or counts
    /// what may have been written as written.
    pub fn mark_dirty(&self, offset: u64, len: u64, clients: &[DirtyClient]) {
        if len != 0 && offset < self.len {
            self.mark(self.flags.load(Ordering::Acquire) & bits_of(clients), self.pages(offset, len));
        }
    }
    /// First and last page of a range that is not empty.
    fn pages(&self, offset: u64, len: u64) -> (u64, u64) {
        (offset / PAGE_SIZE, offset.saturating_add(len - 1).min(self.len - 1) / PAGE_SIZE)
    }
    fn mark(&self, clients: u8, (first, last): (u64, u64)) {
        for client in DirtyClient::ALL {
            if let (true, Some(bits)) = (clients & client.bit() != 0, self.dirty[client as usize].get()) {
                for page in first..=last {
                    set_bit(bits, page);
                }
            }
        }
    }
    /// Starts a client's dirty log, all clean. Device memory has none.
    pub fn start_dirty_log(&self, client: DirtyClient) {
        if self.is_device() {
            return;
        }
        let bits = self.dirty[client as usize].get_or_init(|| zeroed_words(words(self.len)));
        for word in bits {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        let was = self.flags.fetch_or(client.bit(), Ordering::SeqCst);
        let mut seen = false;
        for (source, clients) in self.dirty_sources(client) {
            if was & clients == 0 {
                source.track(self, true);
            } else {
                // What others have not asked for yet is theirs alone.
                source.collect(self);
                seen = true;
            }
        }
        if seen {
            for word in bits {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
    /// Stops a client's dirty log.
    pub fn stop_dirty_log(&self, client: DirtyClient) {
        let was = self.flags.fetch_and(!client.bit(), Ordering::SeqCst);
        for (source, clients) in self.dirty_sources(client) {
            if was & clients == client.bit() {
                source.track(self, false);
            }
        }
    }
    /// Who knows of writes not seen here (an accelerator, devices of the host), for the logs of these clients; added once. Of logs that
    /// are on already it is not told: [`Self::logged_for`] says.
    pub fn add_dirty_source(&self, source: Weak<dyn DirtySource>, clients: &[DirtyClient]) {
        let mut sources = self.sources.lock();
        sources.retain(|f| f.source.strong_count() != 0);
        if !sources.iter().any(|f| f.source.ptr_eq(&source)) {
            sources.push(Follower { source, clients: bits_of(clients) });
        }
    }
    /// Those for the log of a client, with the clients they are there for.
    fn dirty_sources(&self, client: DirtyClient) -> Vec<(Arc<dyn DirtySource>, u8)> {
        let sources = self.sources.lock();
        let of_client = sources.iter().filter(|f| f.clients & client.bit() != 0);
        of_client.filter_map(|f| Some((f.source.upgrade()?, f.clients))).collect()
    }
    /// Is the dirty log of one of these clients on?
    #[must_use]
    pub fn logged_for(&self, clients: &[DirtyClient]) -> bool {
        self.flags.load(Ordering::Acquire) & bits_of(clients) != 0
    }
    /// Takes note that the page `page` may be written to without a call of [`Self::note_write`] from now on, until the source of the
    /// dirty log has taken it back ([`Self::take_open`]).
    #[inline]
    pub fn open_page(&self, page: u64) {
        set_bit(self.open.get_or_init(|| zeroed_words(words(self.len))), page);
    }
    /// The pages of [`Self::open_page`], each once. For the source of the dirty log, which then makes sure that they are written to no
    /// longer, and calls [`Self::mark_dirty`] for them.
    #[must_use]
    pub fn take_open(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (n, word) in (0u64..).zip(self.open.get().into_iter().flatten()) {
            if word.load(Ordering::Relaxed) != 0 {
                let mut taken = word.swap(0, Ordering::SeqCst);
                while taken != 0 {
                    pages.push(n * 64 + u64::from(taken.trailing_zeros()));
                    taken &= taken - 1;
                }
            }
        }
        pages
    }
    /// Is any dirty log on? (The JIT must then report its stores by [`Self::note_write`].)
    #[inline]
    #[must_use]
    pub fn dirty_logging(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DIRTY_MASK != 0
    }
    /// Takes and clears the dirty bits of `pages` pages from `first_page`: page numbers (in 4 KiB) that were dirty.
    #[must_use]
    pub fn take_dirty(&self, client: DirtyClient, first_page: u64, pages: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let Some(bits) = self.dirty[client as usize].get() else {
            return found;
        };
        for (source, _) in self.dirty_sources(client) {
            source.collect(self);
        }
        let end = first_page.saturating_add(pages).min(self.len.div_ceil(PAGE_SIZE));
        let mut page = first_page;
        while page < end {
            let word = &bits[(page / 64) as usize];
            let stop = end.min((page / 64 + 1) * 64);
            let mut mask = u64::MAX << (page % 64);
            if !stop.is_multiple_of(64) {
                mask &= !(u64::MAX << (stop % 64));
            }
            if word.load(Ordering::Relaxed) & mask != 0 {
                let mut taken = word.fetch_and(!mask, Ordering::SeqCst) & mask;
                while taken != 0 {
                    found.push(page / 64 * 64 + u64::from(taken.trailing_zeros()));
                    taken &= taken - 1;
                }
            }
            page = stop;
        }
        found
    }
    /// One bit per 4 KiB page, 64 to a word: the page holds translated code. For the JIT's store slow path.
    #[must_use]
    pub fn code_bitmap(&self) -> &[AtomicU64] {
        &self.code
    }
    /// Marks the 4 KiB page number `page` as holding translated code; true if it was not marked before.
    pub fn set_code_page(&self, page: u64) -> bool {
        if self.flags.load(Ordering::Relaxed) & HAS_CODE == 0 {
            self.flags.fetch_or(HAS_CODE, Ordering::SeqCst);
        }
        set_bit(&self.code, page)
    }
    /// Removes the mark.
    pub fn clear_code_page(&self, page: u64) {
        if let Some(word) = self.code.get((page / 64) as usize) {
            word.fetch_and(!(1 << (page % 64)), Ordering::SeqCst);
        }
    }
    #[inline]
    #[must_use]
    pub fn is_code_page(&self, page: u64) -> bool {
        self.code.get((page / 64) as usize).is_some_and(|word| word.load(Ordering::Acquire) & (1 << (page % 64)) != 0)
    }
    /// Registers who is told of writes into code pages (the accelerator).
    pub fn set_code_listener(&self, listener: Weak<dyn CodeWriteListener>) {
        *self.listener.lock() = Some(listener);
    }
    /// Whether the host may put the memory into core dumps of this process (it does unless told), and merge equal pages of it (it does
    /// not, and may be unable to).
    ///
    /// # Errors
    /// The host cannot leave it out of dumps.
    pub fn set_host_use(&self, dump: bool, merge: bool) -> std::io::Result<()> {
        self.memory.set_use(dump, merge)
    }
    /// Gives the whole pages of a range back to the host (they read as zero afterwards) unless one is pinned.
    ///
    /// # Errors
    /// [`BusError::Refused`] if a page in the range is pinned or the host refuses, [`BusError::Unassigned`] out of range.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), BusError> {
        self.check(offset, len)?;
        if self.is_device() {
            return Err(BusError::Refused);
        }
        let (first, end) = (offset.div_ceil(PAGE_SIZE), (offset + len) / PAGE_SIZE);
        if first >= end {
            return Ok(());
        }
        if let Some(pins) = self.pins.get()
            && (first..end).any(|page| pins[page as usize].load(Ordering::Acquire) != 0)
        {
            return Err(BusError::Refused);
        }
        let (at, len) = (first * PAGE_SIZE, (end - first) * PAGE_SIZE);
        self.memory.discard(at, len, self.shared_file).map_err(|_| BusError::Refused)?;
        self.note_write(at, len);
        Ok(())
    }
    /// The whole pages of a range are guest code's alone from now on, or everybody's: see [`crate::AddressSpace::set_private`].
    pub(crate) fn set_private(&self, offset: u64, len: u64, on: bool) {
        if self.check(offset, len).is_err() || !on && self.private.get().is_none() {
            return;
        }
        let bits = self.private.get_or_init(|| zeroed_words(words(self.len)));
        for page in offset.div_ceil(PAGE_SIZE)..(offset + len) / PAGE_SIZE {
            let (word, bit) = (&bits[(page / 64) as usize], 1 << (page % 64));
            if on {
                word.fetch_or(bit, Ordering::SeqCst);
            } else {
                word.fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }
    /// How many of the `len` bytes from `offset` on can be accessed from outside of guest code: up to the next private page, and no
    /// more than is looked at in one go where there are any.
    #[inline]
    #[must_use]
    pub fn reachable(&self, offset: u64, len: u64) -> u64 {
        match self.private.get() {
            None => len,
            Some(bits) => reachable(bits, offset, len),
        }
    }
    fn each_pin(&self, offset: u64, len: u64, f: impl Fn(&AtomicU16)) {
        if len == 0 || !self.memory.contains(offset, len) {
            return;
        }
        let pins = self.pins.get_or_init(|| zeroed_counters(self.len.div_ceil(PAGE_SIZE) as usize));
        for page in offset / PAGE_SIZE..=(offset + len - 1) / PAGE_SIZE {
            f(&pins[page as usize]);
        }
    }
    /// Has the host back a range, in whole 4 KiB pages, with pages of its own now: what never was written shares one of zeros, which
    /// would not follow a later write for those who hold on to it.
    ///
    /// # Errors
    /// [`BusError::Refused`] if the host has no memory left, [`BusError::Unassigned`] out of range.
    pub fn populate(&self, offset: u64, len: u64) -> Result<(), BusError> {
        self.check(offset, len)?;
        if self.is_device() { Ok(()) } else { self.memory.populate(offset, len).map_err(|_| BusError::Refused) }
    }
    /// Counts the pages of a range as pinned by DMA. A count that has reached its end stays there: a guest may map a page as often
    /// as it likes.
    pub fn pin(&self, offset: u64, len: u64) {
        self.each_pin(offset, len, |count| {
            let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_add(1));
        });
    }
    /// Undoes [`Self::pin`].
    pub fn unpin(&self, offset: u64, len: u64) {
        self.each_pin(offset, len, |count| {
            let down = |n: u16| if n == u16::MAX { None } else { n.checked_sub(1) };
            let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, down);
        });
    }
    /// Is any page pinned?
    #[must_use]
    pub fn any_pinned(&self) -> bool {
        self.pins.get().is_some_and(|pins| pins.iter().any(|n| n.load(Ordering::Acquire) != 0))
    }
    /// Is the 4 KiB page number `page` pinned?
    #[must_use]
    pub fn pinned(&self, page: u64) -> bool {
        self.pins.get().and_then(|pins| pins.get(page as usize)).is_some_and(|n| n.load(Ordering::Acquire) != 0)
    }
}

/// [`RamBlock::reachable`] where pages are private.
#[cold]
fn reachable(bits: &[AtomicU64], offset: u64, len: u64) -> u64 {
    /// So long that nobody asks for more in one piece.
    const MOST: u64 = 64 << 20;
    let end = offset.saturating_add(len.min(MOST));
    let mut at = offset;
    while at < end {
        let page = at / PAGE_SIZE;
        let word = bits.get((page / 64) as usize).map_or(0, |w| w.load(Ordering::SeqCst)) >> (page % 64);
        // So many pages follow that are not private, in this word.
        let free = u64::from(word.trailing_zeros()).min(64 - page % 64);
        if free == 0 {
            break;
        }
        at = (page + free) * PAGE_SIZE;
    }
    at.min(end) - offset
}

fn words(len: u64) -> usize {
    len.div_ceil(PAGE_SIZE * 64) as usize
}

/// Sets a bit; true if it was clear. Out of range: false.
fn set_bit(bits: &[AtomicU64], page: u64) -> bool {
    let mask = 1 << (page % 64);
    bits.get((page / 64) as usize).is_some_and(|word| {
        word.load(Ordering::Relaxed) & mask == 0 && word.fetch_or(mask, Ordering::SeqCst) & mask == 0
    })
}
