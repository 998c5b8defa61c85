//! Submission and completion queues. Each has its own lock; transfers on different queues meet nowhere.

use super::command::{Command, Status};
use parking_lot::Mutex;
use rhea_device::DmaHandle;
use rhea_memory::Gpa;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

pub const ENTRY: u64 = 64;
pub const COMPLETION: u64 = 16;

/// A completion that found its queue full.
struct Waiting {
    sq: Arc<Sq>,
    words: [u32; 3],
    status: u16,
}

struct CqState {
    head: u32,
    tail: u32,
    phase: bool,
    waiting: VecDeque<Waiting>,
    /// Counted among the queues that drive the interrupt line.
    counted: bool,
}

/// A completion queue.
pub struct Cq {
    pub id: u16,
    pub base: u64,
    pub size: u32,
    pub vector: u16,
    pub interrupts: bool,
    state: Mutex<CqState>,
    /// The queue was deleted, or the controller reset: nothing is written any more.
    dead: AtomicBool,
}

/// What is saved of a completion queue besides its making: head, tail, phase.
pub type CqPlace = (u32, u32, bool);

impl Cq {
    #[must_use]
    pub fn new(id: u16, base: u64, size: u32, vector: u16, interrupts: bool) -> Arc<Self> {
        Self::at(id, base, size, vector, interrupts, (0, 0, true))
    }
    #[must_use]
    pub fn at(id: u16, base: u64, size: u32, vector: u16, interrupts: bool, place: CqPlace) -> Arc<Self> {
        let size = size.max(2);
        let (head, tail, phase) = (place.0 % size, place.1 % size, place.2);
        let state = Mutex::new(CqState { head, tail, phase, waiting: VecDeque::new(), counted: false });
        Arc::new(Self { id, base, size, vector, interrupts, state, dead: AtomicBool::new(false) })
    }
    pub fn place(&self) -> CqPlace {
        let s = self.state.lock();
        (s.head, s.tail, s.phase)
    }
    /// Counts the queue in or out of those with something to tell.
    fn count(&self, s: &mut CqState, told: &AtomicU32) {
        let now = self.interrupts && s.head != s.tail && !self.dead.load(Ordering::Acquire);
        if now != s.counted {
            s.counted = now;
            if now {
                told.fetch_add(1, Ordering::SeqCst);
            } else {
                told.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
    pub fn recount(&self, told: &AtomicU32) {
        self.count(&mut self.state.lock(), told);
    }
    fn write(&self, s: &mut CqState, dma: &DmaHandle, w: &Waiting) -> bool {
        let at = self.base.wrapping_add(u64::from(s.tail) * COMPLETION);
        let Some(slice) = dma.host_slice(Gpa(at), COMPLETION) else { return false };
        let mut bytes = [0; 12];
        for (b, word) in bytes.chunks_exact_mut(4).zip(w.words) {
            b.copy_from_slice(&word.to_le_bytes());
        }
        let last = w.words[2] & 0xffff_0000;
        // Identifier of the queue and its head, then the command's identifier, which shares its word with the phase.
        let cid = w.words[2] & 0xffff;
        let word2 = last | w.sq.head.load(Ordering::Acquire);
        bytes[8..12].copy_from_slice(&word2.to_le_bytes());
        if slice.write(0, &bytes).is_err() {
            return false;
        }
        fence(Ordering::Release);
        let word3 = cid | u32::from(w.status | u16::from(s.phase)) << 16;
        if slice.store_u32(12, word3).is_err() {
            return false;
        }
        s.tail += 1;
        if s.tail >= self.size {
            s.tail = 0;
            s.phase = !s.phase;
        }
        true
    }
    fn full(&self, s: &CqState) -> bool {
        (s.tail + 1) % self.size == s.head
    }
    /// Posts a completion, or keeps it until there is room. Returns false if the queue's memory is not there.
    pub fn post(&self, dma: &DmaHandle, told: &AtomicU32, sq: &Arc<Sq>, cid: u16, status: Status, result: u32) -> bool {
        let s = &mut *self.state.lock();
        if self.dead.load(Ordering::Acquire) {
            return true;
        }
        let words = [result, 0, u32::from(sq.id) << 16 | u32::from(cid)];
        let w = Waiting { sq: sq.clone(), words, status: status.field() };
        if self.full(s) || !s.waiting.is_empty() {
            s.waiting.push_back(w);
            return true;
        }
        let written = self.write(s, dma, &w);
        sq.busy.fetch_sub(1, Ordering::AcqRel);
        self.count(s, told);
        written
    }
    /// The head doorbell. Returns the submission queues whose completions found room, and whether the memory was there;
    /// `None`: the value is not of this queue.
    pub fn set_head(&self, dma: &DmaHandle, told: &AtomicU32, head: u32) -> Option<(Vec<Arc<Sq>>, bool)> {
        if head >= self.size {
            return None;
        }
        let s = &mut *self.state.lock();
        // Only entries that are there can be taken.
        let (filled, taken) = ((s.tail + self.size - s.head) % self.size, (head + self.size - s.head) % self.size);
        if taken > filled {
            return None;
        }
        s.head = head;
        let (mut freed, mut good) = (Vec::new(), true);
        while !self.full(s)
            && let Some(w) = s.waiting.pop_front()
        {
            good &= self.write(s, dma, &w);
            w.sq.busy.fetch_sub(1, Ordering::AcqRel);
            if !freed.iter().any(|q: &Arc<Sq>| Arc::ptr_eq(q, &w.sq)) {
                freed.push(w.sq);
            }
        }
        self.count(s, told);
        Some((freed, good))
    }
    /// Nothing is posted any more.
    pub fn kill(&self, told: &AtomicU32) {
        let s = &mut *self.state.lock();
        self.dead.store(true, Ordering::Release);
        s.waiting.clear();
        self.count(s, told);
    }
    /// Completions that wait for room: queue, command, result, status field.
    pub fn waiting(&self) -> Vec<(u16, u16, u32, u16)> {
        let s = self.state.lock();
        s.waiting.iter().map(|w| (w.sq.id, w.words[2] as u16, w.words[0], w.status)).collect()
    }
    pub fn restore_waiting(&self, sq: &Arc<Sq>, cid: u16, result: u32, status: u16) {
        sq.busy.fetch_add(1, Ordering::AcqRel);
        let words = [result, 0, u32::from(sq.id) << 16 | u32::from(cid)];
        self.state.lock().waiting.push_back(Waiting { sq: sq.clone(), words, status: status & !1 });
    }
}

/// A submission queue.
pub struct Sq {
    pub id: u16,
    pub base: u64,
    pub size: u32,
    pub cq: Arc<Cq>,
    pub tail: AtomicU32,
    /// Changed with the fetch lock held.
    pub head: AtomicU32,
    fetch: Mutex<()>,
    /// Commands fetched and not yet completed in memory.
    pub busy: AtomicU32,
    /// Commands whose memory is in use.
    pub inflight: AtomicU32,
    dead: AtomicBool,
    /// The Delete command that waits for the last transfer, and its queue.
    pub deleting: Mutex<Option<(Arc<Sq>, u16)>>,
}

impl Sq {
    #[must_use]
    pub fn new(id: u16, base: u64, size: u32, cq: &Arc<Cq>) -> Arc<Self> {
        Self::at(id, base, size, cq, 0, 0)
    }
    #[must_use]
    pub fn at(id: u16, base: u64, size: u32, cq: &Arc<Cq>, head: u32, tail: u32) -> Arc<Self> {
        let size = size.max(2);
        Arc::new(Self {
            id,
            base,
            size,
            cq: cq.clone(),
            tail: AtomicU32::new(tail % size),
            head: AtomicU32::new(head % size),
            fetch: Mutex::new(()),
            busy: AtomicU32::new(0),
            inflight: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            deleting: Mutex::new(None),
        })
    }
    /// Takes up to `max` commands. Returns false in the second place if the queue's memory is not there.
    pub fn take(&self, dma: &DmaHandle, max: u32, list: &mut Vec<Command>) -> bool {
        let _one = self.fetch.lock();
        if self.dead.load(Ordering::Acquire) {
            return true;
        }
        let (mut head, tail) = (self.head.load(Ordering::Acquire), self.tail.load(Ordering::Acquire));
        let mut good = true;
        let mut bytes = [0; ENTRY as usize];
        for _ in 0..max {
            // No more under way than the queue has entries, so that memory stays bounded.
            if head == tail || self.busy.load(Ordering::Acquire) >= self.size {
                break;
            }
            if dma.read_ram(self.base.wrapping_add(u64::from(head) * ENTRY), &mut bytes).is_err() {
                good = false;
                break;
            }
            head = (head + 1) % self.size;
            self.busy.fetch_add(1, Ordering::AcqRel);
            self.inflight.fetch_add(1, Ordering::AcqRel);
            list.push(Command::parse(&bytes));
        }
        self.head.store(head, Ordering::Release);
        good
    }
    /// Nothing is taken any more.
    pub fn kill(&self) {
        let _one = self.fetch.lock();
        self.dead.store(true, Ordering::Release);
    }
}
