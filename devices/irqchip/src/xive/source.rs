//! A source: P and Q bits, what it has pending, and where its events go.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const Q: u64 = 1;
const P: u64 = 2;
const PQ: u64 = P | Q;
const EXISTS: u64 = 1 << 2;
/// Level-sensitive.
const LEVEL: u64 = 1 << 3;
const ASSERTED: u64 = 1 << 4;
/// A message came before this controller was in use, or before the guest turned the source on: it is due once that is done.
const CARRIED: u64 = 1 << 5;
/// Messages are kept until the guest first turns the source on.
const LATCH: u64 = 1 << 6;
const CLOSED: u64 = 1 << 7;
const EPOCH_SHIFT: u32 = 32;
pub(super) const EPOCH_MASK: u32 = u32::MAX;

/// What is to be done after a change of the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An event goes out, begun in this epoch.
    Forward(u32),
    Nothing,
    /// The controller has been given up.
    Closed,
}

/// Event assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Eas {
    pub masked: bool,
    pub server: u32,
    pub priority: u8,
    /// Effective source number: 31 bits of the queue entry.
    pub data: u32,
}

impl Eas {
    pub const RESET: Self = Self { masked: true, server: 0, priority: 0, data: 0 };
    pub fn unpack(w: u64) -> Self {
        Self {
            data: w as u32 & 0x7fff_ffff,
            masked: w >> 31 & 1 != 0,
            priority: (w >> 32) as u8 & 7,
            server: (w >> 35) as u32,
        }
    }
    pub fn pack(self) -> u64 {
        u64::from(self.data & 0x7fff_ffff)
            | u64::from(self.masked) << 31
            | u64::from(self.priority & 7) << 32
            | u64::from(self.server & 0x1fff_ffff) << 35
    }
}

pub(super) struct Source {
    word: AtomicU64,
    assignment: AtomicU64,
}

/// The state after a reset: off.
const OFF: u64 = Q;

impl Source {
    pub fn new() -> Self {
        Self { word: AtomicU64::new(OFF), assignment: AtomicU64::new(Eas::RESET.pack()) }
    }
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> u64 {
        let mut now = self.word.load(SeqCst);
        loop {
            let Some(next) = change(now) else { return now };
            match self.word.compare_exchange_weak(now, next, SeqCst, SeqCst) {
                Ok(_) => return now,
                Err(seen) => now = seen,
            }
        }
    }
    pub fn load(&self) -> u64 {
        self.word.load(SeqCst)
    }
    pub fn raw(&self) -> (u32, u64) {
        (self.load() as u32, self.assignment.load(SeqCst))
    }
    /// Saved state, in which sources are open.
    pub fn set_raw(&self, bits: u32, assignment: u64) {
        self.update(|w| Some(w >> EPOCH_SHIFT << EPOCH_SHIFT | u64::from(bits) & 0x7f));
        self.assignment.store(assignment, SeqCst);
    }
    pub fn exists(&self) -> bool {
        self.load() & EXISTS != 0
    }
    pub fn level(&self) -> bool {
        self.load() & LEVEL != 0
    }
    /// P and Q.
    pub fn pq(&self) -> u64 {
        self.load() & PQ
    }
    pub fn assignment(&self) -> Eas {
        Eas::unpack(self.assignment.load(SeqCst))
    }
    pub fn assign(&self, eas: Eas) {
        self.assignment.store(eas.pack(), SeqCst);
    }
    pub fn claim(&self, level: bool) {
        self.assign(Eas::RESET);
        let kind = if level { EXISTS | LEVEL } else { EXISTS };
        self.update(|w| Some(OFF | kind | w & CLOSED | w >> EPOCH_SHIFT << EPOCH_SHIFT));
    }
    pub fn free(&self) {
        self.update(|w| Some(OFF | w & CLOSED | w >> EPOCH_SHIFT << EPOCH_SHIFT));
        self.assign(Eas::RESET);
    }
    /// What a message makes of the bits.
    fn triggered(w: u64) -> u64 {
        match w & PQ {
            0 => w | P,
            P | PQ => w | PQ,
            // Off.
            _ if w & LATCH != 0 => w | CARRIED,
            _ => w,
        }
    }
    pub fn trigger(&self) -> Step {
        let was = self.update(|w| {
            let next = Self::triggered(w);
            (w & (EXISTS | LEVEL | CLOSED) == EXISTS && next != w).then_some(next)
        });
        if was & (EXISTS | LEVEL) != EXISTS {
            Step::Nothing
        } else if was & CLOSED != 0 {
            Step::Closed
        } else if was & PQ == 0 {
            Step::Forward((was >> EPOCH_SHIFT) as u32)
        } else {
            Step::Nothing
        }
    }
    pub fn set_asserted(&self, up: bool) {
        self.update(|w| {
            let next = if up { w | ASSERTED } else { w & !ASSERTED };
            (w & LEVEL != 0 && next != w).then_some(next)
        });
    }
    pub fn carry(&self) {
        self.update(|w| Some(w | CARRIED));
    }
    /// A level that is up, or a carried message, becomes an event if the source is on and assigned.
    pub fn settle(&self) -> Step {
        let due = |w: u64| w & (PQ | CLOSED) == 0 && (w & CARRIED != 0 || w & (LEVEL | ASSERTED) == LEVEL | ASSERTED);
        if !due(self.load()) || self.assignment().masked {
            return Step::Nothing;
        }
        let was = self.update(|w| due(w).then_some((w | P) & !CARRIED));
        if due(was) { Step::Forward((was >> EPOCH_SHIFT) as u32) } else { Step::Nothing }
    }
    /// End of interrupt.
    pub fn end(&self) -> Step {
        let was = self.update(|w| {
            Some(match w & PQ {
                0 | P => w & !PQ,
                PQ => w & !Q,
                _ => return None,
            })
        });
        if was & (PQ | CLOSED) == PQ { Step::Forward((was >> EPOCH_SHIFT) as u32) } else { Step::Nothing }
    }
    /// The bits before.
    pub fn set_pq(&self, pq: u64) -> u64 {
        self.update(|w| {
            let on = if pq & PQ == Q { w } else { w & !LATCH };
            Some(on & !PQ | pq & PQ)
        }) & PQ
    }
    /// True if a message was pending.
    pub fn close(&self) -> bool {
        let was = self.update(|w| Some((w | CLOSED) & !ASSERTED));
        was & (EXISTS | LEVEL | CLOSED) == EXISTS && was & (P | CARRIED) != 0
    }
    pub fn reset(&self, keep_level: bool, latch: bool, epoch: u32) {
        self.assign(Eas::RESET);
        let kept = EXISTS | LEVEL | if keep_level { ASSERTED } else { 0 };
        self.update(|w| {
            let latch = if latch && w & LEVEL == 0 { LATCH } else { 0 };
            Some(OFF | w & kept | latch | u64::from(epoch) << EPOCH_SHIFT)
        });
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = self.load();
        let bit = |b, c| if w & b != 0 { c } else { '-' };
        let kind = if w & LEVEL != 0 { "LSI" } else { "MSI" };
        write!(f, "{kind}  {}{}{}{}", bit(P, 'P'), bit(Q, 'Q'), bit(ASSERTED, 'A'), bit(CARRIED, 'C'))
    }
}
