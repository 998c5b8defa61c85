//! A device's queues, shared by the device and its transport.

use crate::core::status;
use crate::queue::{Chain, Queue, QueueError, QueueState};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_device::{DmaHandle, Log};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Where a device's interrupts go: the transport.
pub trait InterruptSink: Send + Sync {
    /// Used buffer notification of a queue.
    fn queue(&self, index: u16);
    /// Configuration change notification.
    fn config(&self);
}

/// Lets one thread at a time work, and makes it go round again if others came meanwhile; nobody waits.
#[derive(Debug, Default)]
pub struct Gate(AtomicU32);

impl Gate {
    /// Runs `work` unless another thread does; that one then runs it again.
    pub fn run(&self, mut work: impl FnMut()) {
        if self.0.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        loop {
            let seen = self.0.load(Ordering::Acquire);
            work();
            if self.0.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
    /// Returns when nobody works. The caller has made sure that work ends soon and starts no more: the device is stopped, or its
    /// queues are paused.
    pub fn wait(&self) {
        while self.0.load(Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
    }
}

/// Saved state of the queues.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueuesState {
    #[n(0)]
    queues: Vec<QueueState>,
}

/// The queues of one device.
pub struct Queues {
    name: String,
    queues: Vec<Mutex<Queue>>,
    dma: DmaHandle,
    sink: OnceLock<Arc<dyn InterruptSink>>,
    /// The device status register.
    pub(crate) status: AtomicU8,
    pub(crate) generation: AtomicU8,
    paused: AtomicBool,
    log: Log,
}

impl Queues {
    /// Queues of the given largest sizes.
    #[must_use]
    pub fn new(name: &str, sizes: &[u16], dma: DmaHandle, log: Log) -> Arc<Self> {
        let queues = sizes.iter().map(|n| Mutex::new(Queue::new(*n, dma.clone()))).collect();
        Arc::new(Self {
            name: name.to_owned(),
            queues,
            dma,
            sink: OnceLock::new(),
            status: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            paused: AtomicBool::new(false),
            log,
        })
    }
    #[must_use]
    pub fn dma(&self) -> &DmaHandle {
        &self.dma
    }
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
    #[must_use]
    pub fn count(&self) -> u16 {
        self.queues.len() as u16
    }
    /// Connects the transport; once.
    pub fn set_sink(&self, sink: Arc<dyn InterruptSink>) {
        let _ = self.sink.set(sink);
    }
    pub(crate) fn get(&self, index: u16) -> Option<&Mutex<Queue>> {
        self.queues.get(usize::from(index))
    }
    /// Is the driver ready and the device not broken?
    #[must_use]
    pub fn running(&self) -> bool {
        self.status.load(Ordering::Acquire) & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }
    /// Is the machine stopped? Then nothing new is taken from the queues; what was taken may still be returned.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }
    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }
    /// The driver broke the rules: the device stops and says so.
    pub fn fail(&self, error: QueueError) {
        if self.status.fetch_or(status::NEEDS_RESET, Ordering::AcqRel) & status::NEEDS_RESET == 0 {
            self.log.guest_error(&self.name, format_args!("malformed virtqueue: {error:?}"));
            self.config_changed();
        }
    }
    /// Device-specific configuration changed.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let (Some(sink), true) = (self.sink.get(), self.status.load(Ordering::Acquire) & status::DRIVER_OK != 0) {
            sink.config();
        }
    }
    /// Works on a queue under its lock; errors stop the device. `None`: the device is not running or has no such queue.
    pub fn with<R>(&self, index: u16, work: impl FnOnce(&mut Queue) -> Result<R, QueueError>) -> Option<R> {
        if !self.running() {
            return None;
        }
        let result = work(&mut self.get(index)?.lock());
        result.map_err(|e| self.fail(e)).ok()
    }
    /// The next available chain.
    pub fn pop(&self, index: u16) -> Option<Chain> {
        if self.paused() {
            return None;
        }
        self.with(index, Queue::pop).flatten()
    }
    /// Returns a chain with the number of bytes written to it, and interrupts the driver if it wants that.
    pub fn complete(&self, index: u16, chain: Chain, written: u32) {
        let interrupt = self.with(index, |q| {
            q.push([(chain, written)])?;
            q.needs_interrupt()
        });
        if interrupt == Some(true) {
            self.interrupt(index);
        }
    }
    /// Returns a chain without interrupting; [`Self::signal`] follows.
    pub fn push(&self, index: u16, chain: Chain, written: u32) {
        self.with(index, |q| q.push([(chain, written)]));
    }
    /// Interrupts the driver if it wants that for what was pushed.
    pub fn signal(&self, index: u16) {
        if self.with(index, Queue::needs_interrupt) == Some(true) {
            self.interrupt(index);
        }
    }
    /// Sends a used buffer notification.
    pub fn interrupt(&self, index: u16) {
        if let Some(sink) = self.sink.get() {
            sink.queue(index);
        }
    }
    /// Hands every available chain to `work`, with the driver's notifications off meanwhile, until none is left or `work`
    /// returns false.
    pub fn drain(&self, index: u16, mut work: impl FnMut(Chain) -> bool) {
        loop {
            self.with(index, Queue::disable_notifications);
            while let Some(chain) = self.pop(index) {
                if !work(chain) {
                    return;
                }
            }
            if self.with(index, Queue::enable_notifications) != Some(true) || self.paused() {
                return;
            }
        }
    }
    /// Is a chain available? Nothing is taken.
    pub(crate) fn has_available(&self, index: u16) -> bool {
        !self.paused() && self.with(index, Queue::has_available) == Some(true)
    }
    pub(crate) fn reset(&self) {
        for q in &self.queues {
            q.lock().reset();
        }
    }
    pub(crate) fn save(&self) -> QueuesState {
        QueuesState { queues: self.queues.iter().map(|q| q.lock().state().clone()).collect() }
    }
    pub(crate) fn load(&self, state: QueuesState, features: u64) -> bool {
        let QueuesState { queues } = state;
        if queues.len() != self.queues.len()
            || queues.iter().zip(&self.queues).any(|(s, q)| s.ready && s.size > q.lock().max_size())
        {
            return false;
        }
        for (state, q) in queues.into_iter().zip(&self.queues) {
            let mut q = q.lock();
            q.set_state(state);
            q.set_features(features);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Whatever was there before a call of [`Gate::run`] is worked on, by one thread at a time.
    #[test]
    fn a_gate_forgets_nothing() {
        let gate = Gate::default();
        let (waiting, done, inside) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU32::new(0));
        const EACH: u64 = 20_000;
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..EACH {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        gate.run(|| {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            done.fetch_add(waiting.swap(0, Ordering::SeqCst), Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        gate.wait();
        assert_eq!((done.load(Ordering::SeqCst), waiting.load(Ordering::SeqCst)), (4 * EACH, 0));
    }
}
