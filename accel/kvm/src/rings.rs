//! Rings that the kernel shares: writes to devices that it holds back, pages that guest code wrote to (Linux,
//! Documentation/virt/kvm/api.rst, 4.116 and 8.29).
#![expect(unsafe_code, reason = "memory that the kernel writes")]

use crate::host::page_size;
use crate::sys::{HeldWrite, PageRing, WriteRing};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Part of what a vCPU shares, mapped as long as the value lives, whatever becomes of the vCPU's own mapping.
struct Shared {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value, and is accessed by atomics only.
unsafe impl Send for Shared {}

impl Shared {
    fn map(vcpu: RawFd, offset: u64, len: usize) -> Result<Self> {
        const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;
        let offset = libc::off_t::try_from(offset).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, WRITABLE, libc::MAP_SHARED, vcpu, offset) };
        if at == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        NonNull::new(at.cast()).map(|at| Self { at, len }).ok_or_else(Error::last_os_error)
    }
    /// The words at `at`, a multiple of their size.
    fn word32(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len);
        // SAFETY: inside of the mapping, aligned; everybody here uses atomics.
        unsafe { AtomicU32::from_ptr(self.at.as_ptr().add(at).cast()) }
    }
    fn word64(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().add(at).cast()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own, and nobody has a reference into it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// `struct kvm_coalesced_mmio_ring`: numbers of the first entry and of that behind the last, then entries of address, length, kind and
/// data.
struct Writes(Shared);

const WRITES: usize = 8;
const WRITE: usize = 24;

/// The ring of held writes, which is `page` pages behind the beginning of what a vCPU shares.
///
/// # Errors
/// The host's.
pub fn writes(vcpu: &impl AsRawFd, page: u32) -> Result<Box<dyn WriteRing>> {
    let size = page_size();
    Ok(Box::new(Writes(Shared::map(vcpu.as_raw_fd(), u64::from(page) * size, size as usize)?)))
}

impl WriteRing for Writes {
    fn pop(&mut self) -> Option<HeldWrite> {
        let Self(shared) = self;
        let count = (shared.len - WRITES) / WRITE;
        let (first, last) = (shared.word32(0), shared.word32(4));
        let n = first.load(Ordering::Relaxed) as usize;
        // The kernel fills an entry in before it counts it.
        if n == last.load(Ordering::Acquire) as usize || n >= count {
            return None;
        }
        let entry = WRITES + n * WRITE;
        let write = HeldWrite {
            address: shared.word64(entry).load(Ordering::Relaxed),
            len: shared.word32(entry + 8).load(Ordering::Relaxed).min(8) as u8,
            data: shared.word64(entry + 16).load(Ordering::Relaxed).to_ne_bytes(),
        };
        first.store(((n + 1) % count) as u32, Ordering::Release);
        Some(write)
    }
}

/// Entries of `struct kvm_dirty_gfn`: flags, slot, page.
struct Pages {
    shared: Shared,
    next: usize,
}

/// Bytes of an entry.
pub const PAGE_ENTRY: usize = 16;
const DIRTY: u32 = 1;
const RESET: u32 = 2;

/// The ring of written pages of a vCPU: `entries` of them, `page` pages behind the beginning of what it shares.
///
/// # Errors
/// The host's.
pub fn pages(vcpu: &impl AsRawFd, page: u32, entries: u32) -> Result<Box<dyn PageRing>> {
    let shared = Shared::map(vcpu.as_raw_fd(), u64::from(page) * page_size(), entries as usize * PAGE_ENTRY)?;
    Ok(Box::new(Pages { shared, next: 0 }))
}

impl PageRing for Pages {
    fn pop(&mut self) -> Option<(u32, u64)> {
        let entry = self.next * PAGE_ENTRY;
        let flags = self.shared.word32(entry);
        if flags.load(Ordering::Acquire) & (DIRTY | RESET) != DIRTY {
            return None;
        }
        let slot = self.shared.word32(entry + 4).load(Ordering::Relaxed);
        let page = self.shared.word64(entry + 8).load(Ordering::Relaxed);
        flags.store(RESET, Ordering::Release);
        self.next = (self.next + 1) % (self.shared.len / PAGE_ENTRY);
        Some((slot, page))
    }
}
