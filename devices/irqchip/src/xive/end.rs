//! An event queue: a ring of words in guest memory, with the state of its end.

use parking_lot::Mutex;
use rhea_memory::{AddressSpace, Gpa, HostSlice};

/// The queue's configuration and place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub valid: bool,
    /// Notifies for each event, whatever the bits of its event state buffer.
    pub always_notify: bool,
    /// Guest-real address; meaningful if `shift` is not 0.
    pub page: u64,
    /// log2 of bytes; 0: there is no ring, only notification.
    pub shift: u32,
    pub generation: bool,
    pub index: u32,
    /// P and Q of the event state buffer for notification, and of that for escalation.
    pub pq: u8,
    pub escalation: u8,
}

impl Queue {
    pub const RESET: Self = Self {
        valid: false,
        always_notify: false,
        page: 0,
        shift: 0,
        generation: true,
        index: 0,
        pq: 1,
        escalation: 1,
    };
}

struct Inner {
    queue: Queue,
    epoch: u32,
    /// The ring's memory.
    memory: Option<HostSlice>,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Notify,
    Silent,
    Invalid,
}

pub(super) struct End(Mutex<Inner>);

/// A message on P and Q; true: it is forwarded.
fn trigger(pq: &mut u8) -> bool {
    match *pq {
        0 => {
            *pq = 2;
            true
        }
        2 | 3 => {
            *pq = 3;
            false
        }
        _ => false,
    }
}

impl End {
    pub fn new() -> Self {
        Self(Mutex::new(Inner { queue: Queue::RESET, epoch: 0, memory: None }))
    }
    pub fn get(&self) -> Queue {
        self.0.lock().queue
    }
    pub fn set(&self, queue: Queue) {
        let mut inner = self.0.lock();
        inner.queue = queue;
        inner.memory = None;
    }
    pub fn reset(&self, epoch: u32) {
        *self.0.lock() = Inner { queue: Queue::RESET, epoch, memory: None };
    }
    /// Writes the entry for an event that began in `epoch`; it vanishes if that is over.
    pub fn push(&self, space: &AddressSpace, data: u32, epoch: u32) -> Pushed {
        let mut inner = self.0.lock();
        let Inner { queue: q, memory, epoch: now } = &mut *inner;
        if *now != epoch {
            return Pushed::Silent;
        }
        if !q.valid {
            return Pushed::Invalid;
        }
        if q.shift != 0 {
            if !memory.as_ref().is_some_and(|m| m.is_current(space)) {
                *memory = space.host_slice(Gpa(q.page), 1 << q.shift);
            }
            if let Some(m) = memory {
                let entry = u32::from(q.generation) << 31 | data & 0x7fff_ffff;
                // In bounds and aligned: the page is, and the index wraps.
                let _ = m.store_u32(u64::from(q.index) * 4, entry.swap_bytes());
            }
            q.index += 1;
            if q.index >= 1 << (q.shift - 2) {
                q.index = 0;
                q.generation = !q.generation;
            }
        }
        if q.always_notify || trigger(&mut q.pq) { Pushed::Notify } else { Pushed::Silent }
    }
    /// A load in the management page of an event state buffer, `second`: of that for escalation. What it returns, and whether a
    /// notification goes out. No hypercall tells a queue where to escalate to: what escalates ends there.
    pub fn esb(&self, offset: u64, second: bool) -> (u64, bool) {
        let q = &mut self.0.lock().queue;
        let valid = q.valid;
        let pq = if second { &mut q.escalation } else { &mut q.pq };
        let was = *pq;
        match offset & 0xfff {
            0x000..=0x3ff => {
                *pq = match was {
                    3 => 2,
                    1 => 1,
                    _ => 0,
                };
                (u64::from(was == 3), was == 3 && valid && !second)
            }
            0x800..=0xbff => (was.into(), false),
            set @ 0xc00..=0xfff => {
                *pq = (set >> 8) as u8 & 3;
                (was.into(), false)
            }
            _ => (u64::MAX, false),
        }
    }
    pub fn describe(&self) -> Option<String> {
        let q = self.get();
        q.valid.then(|| {
            let generation = u8::from(q.generation);
            let Queue { page, shift, index, pq, escalation, .. } = q;
            format!(
                "queue {page:#x} size 2^{shift} index {index} generation {generation} ESn {pq:02b} ESe {escalation:02b}"
            )
        })
    }
}
