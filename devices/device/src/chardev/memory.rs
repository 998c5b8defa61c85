//! A back end in memory, for tests and for embedding.

use super::feed::Feed;
use super::{CharBackend, CharEvent, CharFrontend};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Collects output; input is given by [`Self::input`] and delivered on the caller's thread.
#[derive(Default)]
pub struct MemoryChar {
    feed: Feed,
    out: Mutex<Vec<u8>>,
    more: Condvar,
}

impl MemoryChar {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
    /// Takes the output so far.
    #[must_use]
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut self.out.lock())
    }
    /// Waits until the output contains `text`; false on timeout.
    #[must_use]
    pub fn wait_for(&self, text: &[u8], timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut out = self.out.lock();
        loop {
            if out.windows(text.len().max(1)).any(|w| w == text) {
                return true;
            }
            if self.more.wait_until(&mut out, end).timed_out() {
                return false;
            }
        }
    }
    /// Input for the guest; what it cannot take is held (up to 4 KiB).
    pub fn input(&self, data: &[u8]) {
        self.feed.offer(data);
    }
    pub fn event(&self, event: CharEvent) {
        self.feed.event(event);
    }
}

impl CharBackend for MemoryChar {
    fn write(&self, data: &[u8]) {
        self.out.lock().extend_from_slice(data);
        self.more.notify_all();
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.feed.drain();
    }
    fn description(&self) -> String {
        "memory".to_owned()
    }
}
