//! An interrupt source: server, priority and what is pending, in one atomic word.

use super::LEAST_FAVOURED;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The source exists.
const EXISTS: u64 = 1 << 48;
/// It is level-sensitive.
const LEVEL: u64 = 1 << 49;
/// The level is up.
const ASSERTED: u64 = 1 << 50;
/// The level was delivered, and not ended.
const SENT: u64 = 1 << 51;
/// A message is to be delivered again: its server refused it, or it came while the source was masked.
const REJECTED: u64 = 1 << 52;
/// The controller has been given up.
const CLOSED: u64 = 1 << 53;
/// Which time the controller is in use, in bits 63:54.
const EPOCH_SHIFT: u32 = 54;
const PENDING: u64 = ASSERTED | SENT | REJECTED;

/// May the caller deliver?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Taken,
    Nothing,
}

/// What an edge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Triggered {
    Deliver,
    Kept,
    Closed,
}

/// Bits 31:0 server, 39:32 priority, 47:40 priority for ibm,int-on.
pub(super) struct Source(AtomicU64);

fn priority(w: u64) -> u8 {
    (w >> 32) as u8
}
fn saved(w: u64) -> u8 {
    (w >> 40) as u8
}
fn with(w: u64, server: u32, priority: u8, saved: u8) -> u64 {
    w & !0xffff_ffff_ffff | u64::from(server) | u64::from(priority) << 32 | u64::from(saved) << 40
}
/// What does not belong to the source itself.
const KEPT: u64 = CLOSED | !0 << EPOCH_SHIFT;
/// The least favoured priority twice, server 0.
const MASKED: u64 = 0xffff << 32;

impl Source {
    pub fn new() -> Self {
        Self(AtomicU64::new(MASKED))
    }
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> u64 {
        let mut now = self.0.load(SeqCst);
        loop {
            let Some(next) = change(now) else { return now };
            match self.0.compare_exchange_weak(now, next, SeqCst, SeqCst) {
                Ok(_) => return now,
                Err(seen) => now = seen,
            }
        }
    }
    pub fn raw(&self) -> u64 {
        self.0.load(SeqCst)
    }
    /// Saved state, in which sources are open.
    pub fn set_raw(&self, word: u64) {
        self.update(|w| Some(word & !CLOSED & ((1 << EPOCH_SHIFT) - 1) | w >> EPOCH_SHIFT << EPOCH_SHIFT));
    }
    pub fn exists(&self) -> bool {
        self.raw() & EXISTS != 0
    }
    pub fn level(&self) -> bool {
        self.raw() & LEVEL != 0
    }
    pub fn claim(&self, level: bool) {
        let kind = if level { EXISTS | LEVEL } else { EXISTS };
        self.update(|w| Some(MASKED | kind | w & KEPT));
    }
    pub fn free(&self) {
        self.update(|w| Some(MASKED | w & KEPT));
    }
    /// Server, priority and epoch.
    pub fn target(&self) -> (u32, u8, u16) {
        let w = self.raw();
        (w as u32, priority(w), (w >> EPOCH_SHIFT) as u16)
    }
    /// An edge; with [`Triggered::Deliver`] the caller has the right to deliver.
    pub fn trigger(&self) -> Triggered {
        let was = self.update(|w| {
            let keep = w & CLOSED == 0 && priority(w) == LEAST_FAVOURED && w & (LEVEL | EXISTS) == EXISTS;
            keep.then_some(w | REJECTED)
        });
        if was & LEVEL != 0 || was & EXISTS == 0 {
            Triggered::Kept
        } else if was & CLOSED != 0 {
            Triggered::Closed
        } else if priority(was) == LEAST_FAVOURED {
            Triggered::Kept
        } else {
            Triggered::Deliver
        }
    }
    pub fn set_asserted(&self, up: bool) {
        self.update(|w| {
            let next = if up { w | ASSERTED } else { w & !ASSERTED };
            (w & LEVEL != 0 && next != w).then_some(next)
        });
    }
    /// Takes the right to deliver what waits.
    pub fn take(&self) -> Claim {
        let due = |w: u64| {
            w & (CLOSED | EXISTS) == EXISTS
                && priority(w) != LEAST_FAVOURED
                && if w & LEVEL != 0 { w & (ASSERTED | SENT) == ASSERTED } else { w & REJECTED != 0 }
        };
        let was = self.update(|w| due(w).then_some(if w & LEVEL != 0 { w | SENT } else { w & !REJECTED }));
        if due(was) { Claim::Taken } else { Claim::Nothing }
    }
    /// Gives the right back: it waits. True if the controller has been given up and this was a message, which then is the caller's.
    pub fn give_back(&self) -> bool {
        let was = self.update(|w| match w & (LEVEL | CLOSED | EXISTS) {
            w2 if w2 & LEVEL != 0 => Some(w & !SENT),
            EXISTS => Some(w | REJECTED),
            _ => None,
        });
        was & (LEVEL | CLOSED | EXISTS) == CLOSED | EXISTS
    }
    pub fn configure(&self, server: Option<u32>, priority: u8, keep: Option<u8>) {
        self.update(|w| Some(with(w, server.unwrap_or(w as u32), priority, keep.unwrap_or(saved(w)))));
    }
    pub fn mask(&self) {
        self.update(|w| Some(with(w, w as u32, LEAST_FAVOURED, priority(w))));
    }
    pub fn unmask(&self) {
        self.update(|w| Some(with(w, w as u32, saved(w), saved(w))));
    }
    /// The guest ends the interrupt: true for a level source.
    pub fn end(&self) -> bool {
        self.update(|w| (w & LEVEL != 0).then_some(w & !SENT)) & LEVEL != 0
    }
    /// True if a message waited.
    pub fn close(&self) -> bool {
        let was = self.update(|w| Some((w | CLOSED) & !(REJECTED | SENT | ASSERTED)));
        was & (LEVEL | EXISTS | REJECTED) == EXISTS | REJECTED
    }
    pub fn reset(&self, keep_level: bool, epoch: u16) {
        let kept = EXISTS | LEVEL | if keep_level { ASSERTED } else { 0 };
        self.update(|w| Some(MASKED | w & kept | u64::from(epoch) << EPOCH_SHIFT));
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = self.raw();
        write!(f, "{} {:4} {:02x}", if w & LEVEL != 0 { "LSI" } else { "MSI" }, w as u32, priority(w))?;
        for (bit, text) in [(ASSERTED, " asserted"), (SENT, " sent"), (REJECTED, " pending")] {
            if w & PENDING & bit != 0 {
                f.write_str(text)?;
            }
        }
        Ok(())
    }
}
