//! Addresses of network cards the user gave none.

use std::sync::atomic::{AtomicU8, Ordering};

/// Hands out 52:54:00:12:34:56 and up, one allocator per machine.
#[derive(Debug, Default)]
pub struct MacAllocator {
    next: AtomicU8,
}

impl MacAllocator {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The next address.
    #[must_use]
    pub fn allocate(&self) -> [u8; 6] {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        [0x52, 0x54, 0x00, 0x12, 0x34, 0x56u8.wrapping_add(n)]
    }
}
