//! Blocks of guest RAM (or ROM) in host memory.

use crate::BusError;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use thiserror::Error;

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
}

/// Told of writes (by DMA, the debugger, the host) into pages marked with [`RamBlock::set_code_page`].
pub trait CodeWriteListener: Send + Sync {
    /// `len` bytes at `offset` of `block` were written; at least one touched page was marked as code.
    fn code_written(&self, block: &RamBlock, offset: u64, len: u64);
}

/// A block of guest memory: contiguous in host memory, zero at first, sparse.
pub struct RamBlock {
    name: String,
    len: u64,
    host: usize,
    code: Box<[AtomicU64]>,
    listener: Mutex<Option<Weak<dyn CodeWriteListener>>>,
}

impl RamBlock {
    /// Allocates a block.
    ///
    /// # Errors
    /// [`MemoryError`] with what could not be had.
    pub fn new(options: RamOptions) -> Result<Arc<Self>, MemoryError> {
        let _ = options;
        unimplemented!()
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
    #[must_use]
    pub fn host_ptr(&self) -> *mut u8 {
        self.host as *mut u8
    }
    /// Copies out of the block.
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let _ = (offset, data);
        unimplemented!()
    }
    /// Copies into the block and calls [`Self::note_write`].
    ///
    /// # Errors
    /// [`BusError::Unassigned`] out of range.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let _ = (offset, data);
        unimplemented!()
    }
    /// Must follow every write to the block that did not go through a method of this crate: marks dirty pages and tells the
    /// code listener if a touched page holds translated code. Cheap when neither applies.
    #[inline]
    pub fn note_write(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    /// Starts a client's dirty log, all clean.
    pub fn start_dirty_log(&self, client: DirtyClient) {
        let _ = client;
    }
    /// Stops and frees a client's dirty log.
    pub fn stop_dirty_log(&self, client: DirtyClient) {
        let _ = client;
    }
    /// Is any dirty log on? (The JIT must then report its stores by [`Self::note_write`].)
    #[inline]
    #[must_use]
    pub fn dirty_logging(&self) -> bool {
        false
    }
    /// Takes and clears the dirty bits of `pages` pages from `first_page`: page numbers (in 4 KiB) that were dirty.
    #[must_use]
    pub fn take_dirty(&self, client: DirtyClient, first_page: u64, pages: u64) -> Vec<u64> {
        let _ = (client, first_page, pages);
        unimplemented!()
    }
    /// One bit per 4 KiB page, 64 to a word: the page holds translated code. For the JIT's store slow path.
    #[must_use]
    pub fn code_bitmap(&self) -> &[AtomicU64] {
        &self.code
    }
    /// Marks the 4 KiB page number `page` as holding translated code; true if it was not marked before.
    pub fn set_code_page(&self, page: u64) -> bool {
        let _ = page;
        unimplemented!()
    }
    /// Removes the mark.
    pub fn clear_code_page(&self, page: u64) {
        let _ = page;
    }
    #[inline]
    #[must_use]
    pub fn is_code_page(&self, page: u64) -> bool {
        let _ = page;
        false
    }
    /// Registers who is told of writes into code pages (the accelerator).
    pub fn set_code_listener(&self, listener: Weak<dyn CodeWriteListener>) {
        *self.listener.lock() = Some(listener);
    }
    /// Gives pages back to the host (they read as zero afterwards) unless pinned.
    ///
    /// # Errors
    /// [`BusError::Refused`] if a page in the range is pinned or the range is wrong.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), BusError> {
        let _ = (offset, len);
        unimplemented!()
    }
    /// Counts the pages of a range as pinned by DMA.
    pub fn pin(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    /// Undoes [`Self::pin`].
    pub fn unpin(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}
