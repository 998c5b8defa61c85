//! The host side of a RAM block: the mapping and raw access to it.
#![expect(
    unsafe_code,
    reason = "guest memory is shared with guest code; it is reached through raw pointers and atomics only"
)]

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use vm_memory::mmap::MmapRegion;

/// Transparent huge pages are used where guest and host addresses are congruent modulo this.
const HUGE: usize = 2 << 20;

/// What to map.
pub(crate) enum Source<'a> {
    Anonymous,
    HugePages { page_size: u64 },
    File { file: &'a File, share: bool },
}

/// Registers or memory of a host's device in this process.
///
/// # Safety
/// The `len` bytes at `host`, which is aligned to the host's pages, stay mapped for reading and writing as long as the value lives.
pub unsafe trait DevicePages: Send + Sync {
    /// The first byte.
    fn host(&self) -> *mut u8;
    /// In bytes, a multiple of 4096.
    fn len(&self) -> u64;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A mapping of `len` bytes; unmapped when dropped, unless it belongs to a device.
pub(crate) struct HostMemory {
    region: MmapRegion,
    start: *mut u8,
    len: usize,
    device: Option<Arc<dyn DevicePages>>,
    /// Private anonymous memory in pages of any size.
    plain: bool,
}

// SAFETY: the mapping is plain memory that lives as long as the value; every access goes through raw pointers or atomics.
unsafe impl Send for HostMemory {}
// SAFETY: as above; concurrent access is what guest memory is for, no Rust reference to the bytes is ever made.
unsafe impl Sync for HostMemory {}

fn map(addr: *mut libc::c_void, len: usize, prot: i32, flags: i32, fd: i32) -> Result<*mut libc::c_void> {
    // SAFETY: either a fresh mapping, or MAP_FIXED over a range this module has just reserved for itself.
    let p = unsafe { libc::mmap(addr, len, prot, flags, fd, 0) };
    if p == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(p) }
}

impl HostMemory {
    pub(crate) fn new(len: u64, source: &Source<'_>, prealloc: bool) -> Result<Self> {
        let too_big = || Error::from_raw_os_error(libc::ENOMEM);
        let len = usize::try_from(len).map_err(|_| too_big())?;
        let align = match source {
            Source::HugePages { page_size } => usize::try_from(*page_size).map_err(|_| too_big())?.max(HUGE),
            _ => HUGE,
        };
        let reserve = len.checked_add(align).ok_or_else(too_big)?;
        let base = map(
            ptr::null_mut(),
            reserve,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )?;
        let skip = base.addr().next_multiple_of(align) - base.addr();
        let start = base.wrapping_byte_add(skip);
        // SAFETY: both trimmed pieces lie in the reservation made above and are used by nobody.
        unsafe {
            if skip > 0 {
                libc::munmap(base, skip);
            }
            let tail = start.wrapping_byte_add(len.next_multiple_of(4096));
            let end = base.wrapping_byte_add(reserve);
            if tail < end {
                libc::munmap(tail, end.addr() - tail.addr());
            }
        }
        let (flags, fd) = match source {
            Source::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
            Source::HugePages { page_size } => {
                let log = page_size.trailing_zeros() as i32;
                (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | (log << libc::MAP_HUGE_SHIFT), -1)
            }
            Source::File { file, share } => {
                (if *share { libc::MAP_SHARED } else { libc::MAP_PRIVATE } | libc::MAP_NORESERVE, file.as_raw_fd())
            }
        };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        if let Err(e) = map(start, len, prot, flags | libc::MAP_FIXED, fd) {
            // SAFETY: the reservation is ours.
            unsafe { libc::munmap(start, len) };
            return Err(e);
        }
        // SAFETY: the pointer and length describe the live mapping just made; the region does not own it.
        let region = unsafe { MmapRegion::build_raw(start.cast(), len, prot, flags) }.map_err(Error::other)?;
        let plain = matches!(source, Source::Anonymous);
        let memory = Self { region, start: start.cast(), len, device: None, plain };
        memory.use_huge_pages(true);
        if prealloc {
            memory.populate(0, len as u64)?;
        }
        Ok(memory)
    }

    pub(crate) fn of_device(pages: Arc<dyn DevicePages>) -> Result<Self> {
        let len = usize::try_from(pages.len()).map_err(|_| Error::from_raw_os_error(libc::ENOMEM))?;
        let (start, prot) = (pages.host(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the trait says that the range is mapped as long as `pages`, which is kept beside it; the region does not own it.
        let region = unsafe { MmapRegion::build_raw(start, len, prot, libc::MAP_SHARED) }.map_err(Error::other)?;
        Ok(Self { region, start, len, device: Some(pages), plain: false })
    }
    pub(crate) fn is_device(&self) -> bool {
        self.device.is_some()
    }
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }
    /// The host may (or must not) use larger pages for plain memory, where that makes sense.
    pub(crate) fn use_huge_pages(&self, on: bool) {
        if self.plain && self.len >= HUGE {
            let advice = if on { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            // SAFETY: the range is ours; a hint only, so the result does not matter.
            unsafe { libc::madvise(self.start.cast(), self.len, advice) };
        }
    }

    /// Has the host back whole pages of a range, as if each had been written, without changing what they hold.
    pub(crate) fn populate(&self, offset: u64, len: u64) -> Result<()> {
        let p = self.at(offset, len);
        // SAFETY: in bounds (asserted); what the pages hold stays.
        if unsafe { libc::madvise(p.cast(), len as usize, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        // Kernels before 5.14: touch each page.
        for at in (offset..offset + len).step_by(4096) {
            // SAFETY: in bounds (asserted).
            unsafe { AtomicU8::from_ptr(self.at(at, 1)) }.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has every page of the mapping be there for reading: what never was written shares one of zeros.
    pub(crate) fn look_at_all(&self) -> Result<()> {
        // SAFETY: the range is ours; what the pages hold stays.
        if unsafe { libc::madvise(self.start.cast(), self.len, libc::MADV_POPULATE_READ) } == 0 {
            return Ok(());
        }
        let error = Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        // Kernels before 5.14.
        for at in (0..self.len as u64).step_by(4096) {
            // SAFETY: in bounds (asserted).
            unsafe { AtomicU8::from_ptr(self.at(at, 1)) }.load(Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn region(&self) -> &MmapRegion {
        &self.region
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.start
    }

    /// Is the range inside?
    #[inline]
    pub(crate) fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len as u64)
    }

    #[inline]
    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(self.contains(offset, len));
        self.start.wrapping_add(offset as usize)
    }

    /// The range must be inside (checked by callers with a proper error; asserted here).
    pub(crate) fn copy_out(&self, offset: u64, data: &mut [u8]) {
        let p = self.at(offset, data.len() as u64);
        if self.is_device() {
            return pieces(offset, data.len(), |at, size| {
                let value = self.load(offset + at as u64, size).to_le_bytes();
                data[at..at + usize::from(size)].copy_from_slice(&value[..usize::from(size)]);
            });
        }
        // SAFETY: in bounds (asserted); `data` is a Rust slice and so no part of guest memory.
        unsafe { ptr::copy_nonoverlapping(p, data.as_mut_ptr(), data.len()) }
    }

    pub(crate) fn copy_in(&self, offset: u64, data: &[u8]) {
        let p = self.at(offset, data.len() as u64);
        if self.is_device() {
            return pieces(offset, data.len(), |at, size| {
                let mut value = [0; 8];
                value[..usize::from(size)].copy_from_slice(&data[at..at + usize::from(size)]);
                self.store(offset + at as u64, size, u64::from_le_bytes(value));
            });
        }
        // SAFETY: as in `copy_out`.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), p, data.len()) }
    }

    pub(crate) fn fill(&self, offset: u64, len: u64, byte: u8) {
        let p = self.at(offset, len);
        if self.is_device() {
            let value = u64::from_ne_bytes([byte; 8]);
            return pieces(offset, len as usize, |at, size| self.store(offset + at as u64, size, value));
        }
        // SAFETY: in bounds (asserted).
        unsafe { ptr::write_bytes(p, byte, len as usize) }
    }

    /// A little-endian load; single-copy atomic if naturally aligned.
    #[inline]
    pub(crate) fn load(&self, offset: u64, size: u8) -> u64 {
        let p = self.at(offset, u64::from(size));
        if offset & (u64::from(size) - 1) != 0 || !size.is_power_of_two() {
            let mut bytes = [0; 8];
            self.copy_out(offset, &mut bytes[..usize::from(size)]);
            return u64::from_le_bytes(bytes);
        }
        // SAFETY: in bounds and aligned (the mapping is page-aligned, the offset was checked).
        unsafe {
            match size {
                1 => u64::from(AtomicU8::from_ptr(p).load(Ordering::Relaxed)),
                2 => u64::from(u16::from_le(AtomicU16::from_ptr(p.cast()).load(Ordering::Relaxed))),
                4 => u64::from(u32::from_le(AtomicU32::from_ptr(p.cast()).load(Ordering::Relaxed))),
                _ => u64::from_le(AtomicU64::from_ptr(p.cast()).load(Ordering::Relaxed)),
            }
        }
    }

    /// A little-endian store; single-copy atomic if naturally aligned.
    #[inline]
    pub(crate) fn store(&self, offset: u64, size: u8, value: u64) {
        let p = self.at(offset, u64::from(size));
        if offset & (u64::from(size) - 1) != 0 || !size.is_power_of_two() {
            self.copy_in(offset, &value.to_le_bytes()[..usize::from(size)]);
            return;
        }
        // SAFETY: as in `load`.
        unsafe {
            match size {
                1 => AtomicU8::from_ptr(p).store(value as u8, Ordering::Relaxed),
                2 => AtomicU16::from_ptr(p.cast()).store((value as u16).to_le(), Ordering::Relaxed),
                4 => AtomicU32::from_ptr(p.cast()).store((value as u32).to_le(), Ordering::Relaxed),
                _ => AtomicU64::from_ptr(p.cast()).store(value.to_le(), Ordering::Relaxed),
            }
        }
    }

    /// Compare and exchange of an aligned 1, 2, 4 or 8 byte little-endian value: the old value.
    pub(crate) fn compare_exchange(&self, offset: u64, size: u8, expected: u64, new: u64) -> u64 {
        let p = self.at(offset, u64::from(size));
        assert!(offset & (u64::from(size) - 1) == 0);
        macro_rules! cas {
            ($atomic:ty, $int:ty) => {{
                // SAFETY: in bounds and aligned (asserted).
                let cell = unsafe { <$atomic>::from_ptr(p.cast()) };
                let (old, new) = ((expected as $int).to_le(), (new as $int).to_le());
                let seen = match cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(v) | Err(v) => v,
                };
                u64::from(<$int>::from_le(seen))
            }};
        }
        match size {
            1 => cas!(AtomicU8, u8),
            2 => cas!(AtomicU16, u16),
            4 => cas!(AtomicU32, u32),
            _ => cas!(AtomicU64, u64),
        }
    }

    /// Whether the host may put the memory into core dumps, and merge equal pages of it.
    pub(crate) fn set_use(&self, dump: bool, merge: bool) -> Result<()> {
        let p = self.at(0, self.len as u64);
        for (advice, needed) in [
            (if dump { libc::MADV_DODUMP } else { libc::MADV_DONTDUMP }, !dump),
            // A kernel without merging merges nothing.
            (if merge { libc::MADV_MERGEABLE } else { libc::MADV_UNMERGEABLE }, false),
        ] {
            // SAFETY: in bounds (asserted); what the pages hold stays.
            if unsafe { libc::madvise(p.cast(), self.len, advice) } != 0 && needed {
                return Err(Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Gives whole pages back to the host.
    pub(crate) fn discard(&self, offset: u64, len: u64, shared_file: bool) -> Result<()> {
        let p = self.at(offset, len);
        let advice = if shared_file { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        // SAFETY: in bounds (asserted); the pages read as zero (or as the file) afterwards, which is what a discard means.
        if unsafe { libc::madvise(p.cast(), len as usize, advice) } == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }
}

/// Cuts `len` bytes at `offset` into naturally aligned accesses of 8, 4, 2 and 1 bytes, as devices want them: place and size of each.
fn pieces(offset: u64, len: usize, mut access: impl FnMut(usize, u8)) {
    let mut at = 0;
    while at < len {
        let aligned = 1 << (offset + at as u64).trailing_zeros().min(3);
        let fits = 1 << (len - at).ilog2().min(3);
        let size: u8 = std::cmp::min(aligned, fits);
        access(at, size);
        at += usize::from(size);
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.is_device() {
            return;
        }
        // SAFETY: the mapping is ours and nobody holds a pointer into it beyond our life.
        unsafe {
            libc::munmap(self.start.cast(), self.len);
        }
    }
}

/// `n` zero words without touching the pages behind them.
pub(crate) fn zeroed_words(n: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0u64; n].into_boxed_slice());
    // SAFETY: AtomicU64 has the size, alignment and bit validity of u64.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

/// `n` zero counters without touching the pages behind them.
pub(crate) fn zeroed_counters(n: usize) -> Box<[AtomicU16]> {
    let words = Box::into_raw(vec![0u16; n].into_boxed_slice());
    // SAFETY: AtomicU16 has the size, alignment and bit validity of u16.
    unsafe { Box::from_raw(words as *mut [AtomicU16]) }
}
