//! What other threads ask of a vCPU.
#![expect(unsafe_code, reason = "shares the guest's request word with other threads")]

use crate::report::Counts;
use parking_lot::Mutex;
use rhea_accel::RunControl;
use rhea_ir::env::{EnvHeader, Requests};
use rhea_ir::guest::{TlbFlush, request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flushes that wait for a sleeping vCPU before they are made one.
const QUIET_WORK: usize = 64;

/// Work done by a vCPU's own thread between guest instructions.
pub enum Work {
    Flush(TlbFlush),
    /// Stores to this host page must take the slow path from now on.
    Protect(u64),
    Call(Box<dyn FnOnce() + Send>),
    /// Called with the guest.
    Guest(Box<dyn FnOnce(&mut dyn std::any::Any) + Send>),
}

/// What other threads may touch of a vCPU.
pub struct Shared {
    pub index: u32,
    /// The guest's `EnvHeader::exit_request`.
    exit_request: *const Requests,
    /// Is it between entering generated code and being back?
    pub in_code: AtomicBool,
    pub queue: Mutex<Vec<Work>>,
    pub control: RunControl,
    pub counts: Arc<Counts>,
}

// SAFETY: `exit_request` points into the guest's box, which lives in the `JitVcpu` that also owns this (by `Arc`) and is
// freed only after the vCPU was removed from the machine; the target is atomic.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Of a guest with this header, which outlives it.
    pub fn new(index: u32, header: &EnvHeader) -> Shared {
        Shared {
            index,
            exit_request: &raw const header.exit_request,
            in_code: AtomicBool::new(false),
            queue: Mutex::new(Vec::new()),
            control: RunControl::default(),
            counts: Arc::default(),
        }
    }
    /// What was asked: bits of [`request`].
    pub fn word(&self) -> &Requests {
        // SAFETY: see the `Send` implementation.
        unsafe { &*self.exit_request }
    }
    /// Sets request bits and wakes the thread if it sleeps.
    pub fn request(&self, bits: u32) {
        self.word().set(bits);
        self.control.wake();
    }
    /// Has something been asked of it that it has not seen?
    pub fn asked(&self) -> bool {
        self.word().load(Ordering::SeqCst) != 0
    }
    /// Is there work for its thread while it is paused? Interrupts wait until it runs.
    pub fn has_work(&self) -> bool {
        self.word().load(Ordering::SeqCst) & request::ACCEL != 0 || !self.queue.lock().is_empty()
    }
    /// Was it interrupted while it waits?
    pub fn interrupted(&self) -> bool {
        self.word().load(Ordering::SeqCst) & request::INTERRUPT != 0
    }
    pub fn request_accel(&self) {
        self.request(request::ACCEL);
    }
    pub fn push(&self, w: Work) {
        self.queue.lock().push(w);
        self.request_accel();
    }
    /// The same for work that only has to be done before generated code runs again: a vCPU that sleeps sleeps on.
    pub fn push_quietly(&self, w: Work) {
        let mut queue = self.queue.lock();
        if queue.len() >= QUIET_WORK {
            // Flushing all does what the flushes and protections that piled up would: a new TLB entry looks at its page.
            queue.retain(|w| !matches!(w, Work::Flush(_) | Work::Protect(_)));
            queue.insert(0, Work::Flush(TlbFlush::All));
        }
        queue.push(w);
        drop(queue);
        self.word().set(request::ACCEL);
    }
}
