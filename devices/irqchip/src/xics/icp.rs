//! A presentation controller: CPPR, XIRR, MFRR and the priority of what is in XIRR, in one atomic word.

use super::LEAST_FAVOURED;
use crate::spapr::pin::ServerPin;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// The source number of interprocessor interrupts.
pub const IPI: u32 = 2;

/// The fields of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub cppr: u8,
    /// Source in XIRR, 0: none.
    pub xisr: u32,
    pub mfrr: u8,
    /// Of what is in XIRR.
    pub pending: u8,
    pub closed: bool,
    /// Which time the controller is in use; what began in another is over.
    pub epoch: u16,
}

impl Word {
    pub fn reset(epoch: u16) -> Self {
        Self { cppr: 0, xisr: 0, mfrr: LEAST_FAVOURED, pending: LEAST_FAVOURED, closed: false, epoch }
    }

    fn unpack(w: u64) -> Self {
        Self {
            cppr: (w >> 24) as u8,
            xisr: w as u32 & 0xff_ffff,
            mfrr: (w >> 32) as u8,
            pending: (w >> 40) as u8,
            closed: w >> 48 & 1 != 0,
            epoch: (w >> 49) as u16,
        }
    }
    fn pack(self) -> u64 {
        u64::from(self.cppr) << 24
            | u64::from(self.xisr & 0xff_ffff)
            | u64::from(self.mfrr) << 32
            | u64::from(self.pending) << 40
            | u64::from(self.closed) << 48
            | u64::from(self.epoch) << 49
    }
    fn xirr(self) -> u32 {
        u32::from(self.cppr) << 24 | self.xisr
    }
    /// Is `priority` more favoured than the processor's and than what is presented?
    fn accepts(self, priority: u8) -> bool {
        !self.closed && priority < self.cppr && (self.xisr == 0 || priority < self.pending)
    }
}

/// What came of presenting.
pub(super) enum Presented {
    /// The interrupt is in XIRR; `displaced` (0: none) was.
    Yes {
        displaced: u32,
    },
    No,
    Closed,
}

pub(super) struct CpprChange {
    /// The source that is no longer presented, 0: none.
    pub displaced: u32,
    /// More can be presented than before.
    pub ready: bool,
}

pub(super) struct Icp {
    word: AtomicU64,
    output: Arc<ServerPin>,
    /// Sources that were refused, a bit each, and whether there is one.
    waiting: Vec<AtomicU64>,
    any: AtomicBool,
}

impl Icp {
    pub fn new(output: Arc<ServerPin>, sources: u32) -> Self {
        Self {
            word: AtomicU64::new(Word::reset(0).pack()),
            output,
            waiting: (0..sources.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            any: AtomicBool::new(false),
        }
    }
    pub fn load(&self) -> Word {
        Word::unpack(self.word.load(SeqCst))
    }
    pub fn store(&self, word: Word) {
        self.word.store(word.pack(), SeqCst);
    }
    /// Changes the word by `change`, which answers `None` to leave it; the word before.
    fn update(&self, change: impl Fn(Word) -> Option<Word>) -> Word {
        let mut now = self.word.load(SeqCst);
        loop {
            let word = Word::unpack(now);
            let Some(next) = change(word) else { return word };
            match self.word.compare_exchange_weak(now, next.pack(), SeqCst, SeqCst) {
                Ok(_) => return word,
                Err(seen) => now = seen,
            }
        }
    }
    /// Makes the processor's input what the word says.
    pub fn drive(&self) {
        self.output.drive(super::DRIVER, || {
            let w = self.load();
            w.xisr != 0 && !w.closed
        });
    }
    pub fn accepts(&self, priority: u8) -> bool {
        self.load().accepts(priority)
    }
    /// `epoch`: of the source.
    pub fn present(&self, irq: u32, priority: u8, epoch: u16) -> Presented {
        let takes = |w: Word| w.epoch == epoch && w.accepts(priority);
        let was = self.update(|w| takes(w).then_some(Word { xisr: irq, pending: priority, ..w }));
        if was.closed || was.epoch != epoch {
            Presented::Closed
        } else if takes(was) {
            Presented::Yes { displaced: was.xisr }
        } else {
            Presented::No
        }
    }
    /// Presents the IPI if MFRR asks for it; what was displaced.
    pub fn check_ipi(&self) -> u32 {
        let was = self.update(|w| w.accepts(w.mfrr).then_some(Word { xisr: IPI, pending: w.mfrr, ..w }));
        if was.accepts(was.mfrr) { was.xisr } else { 0 }
    }
    pub fn set_mfrr(&self, mfrr: u8) {
        self.update(|w| Some(Word { mfrr, ..w }));
    }
    pub fn set_cppr(&self, cppr: u8) -> CpprChange {
        let displaces = |w: Word| w.xisr != 0 && cppr <= w.pending;
        let was = self.update(|w| {
            Some(if displaces(w) { Word { cppr, xisr: 0, pending: LEAST_FAVOURED, ..w } } else { Word { cppr, ..w } })
        });
        let displaced = if displaces(was) { was.xisr } else { 0 };
        CpprChange { displaced, ready: cppr > was.cppr || displaced != 0 }
    }
    /// The old XIRR; its interrupt is accepted.
    pub fn accept(&self) -> u32 {
        self.update(|w| {
            (w.xisr != 0 && !w.closed).then_some(Word { cppr: w.pending, xisr: 0, pending: LEAST_FAVOURED, ..w })
        })
        .xirr()
    }
    pub fn poll(&self) -> (u32, u8) {
        let w = self.load();
        (w.xirr(), w.mfrr)
    }
    /// Notes a refused source.
    pub fn wait(&self, n: u32) {
        if let Some(word) = self.waiting.get(n as usize / 64) {
            word.fetch_or(1 << (n % 64), SeqCst);
            self.any.store(true, SeqCst);
        }
    }
    /// Takes the notes.
    pub fn take_waiting(&self, mut each: impl FnMut(u32)) {
        if !self.any.load(SeqCst) || !self.any.swap(false, SeqCst) {
            return;
        }
        for (i, word) in self.waiting.iter().enumerate() {
            let mut bits = if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) };
            while bits != 0 {
                each(i as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
    /// Presents nothing any more; the source that was presented.
    pub fn close(&self) -> u32 {
        self.update(|w| Some(Word { closed: true, xisr: 0, pending: LEAST_FAVOURED, ..w })).xisr
    }
    /// The source that was presented. `epoch`: of a new time in use; `None`: the same.
    pub fn reset(&self, epoch: Option<u16>) -> u32 {
        self.update(|w| Some(Word::reset(epoch.unwrap_or(w.epoch)))).xisr
    }
}

impl fmt::Display for Icp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = self.load();
        write!(f, "CPPR {:02x} XISR {:06x} MFRR {:02x} pending priority {:02x}", w.cppr, w.xisr, w.mfrr, w.pending)
    }
}
