//! Time by executed instructions (`-icount`): each takes as many nanoseconds of guest time.

use crate::host::monotonic_ns;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the processors of a machine count their instructions in. One of them runs at a time.
#[derive(Debug)]
#[repr(C)]
pub struct Counter {
    /// Instructions executed. Counted by whoever executes them, without atomic operations.
    pub executed: AtomicU64,
    /// A processor stops executing when this many are; may become less at any time.
    pub limit: AtomicU64,
}

impl Counter {
    /// Have as many instructions been executed as were allowed?
    #[must_use]
    pub fn spent(&self) -> bool {
        self.left() == 0
    }
    /// No more may be executed: another processor's turn comes.
    pub fn end(&self) {
        self.limit.store(self.executed.load(Ordering::Acquire), Ordering::Release);
    }
    /// Instructions that may still be executed.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.load(Ordering::Acquire).saturating_sub(self.executed.load(Ordering::Acquire))
    }
}

/// The largest [`Counting::shift`].
pub const MAX_SHIFT: u32 = 10;

/// `-icount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// An instruction takes `1 << shift` ns, at most [`MAX_SHIFT`]; `None`: as many as keep the guest's time near the host's.
    pub shift: Option<u32>,
    /// While all processors wait, time passes as the host's does; else it is at once that of the next timer.
    pub sleep: bool,
    /// The guest's time does not run ahead of the host's.
    pub align: bool,
}

/// From instructions to time.
#[derive(Clone, Copy)]
struct Rate {
    /// Time at instruction 0 (wrapping), in ns.
    bias: u64,
    shift: u32,
}

/// What [`Counted::adjust`] saw last.
struct Seen {
    real: u64,
    executed: u64,
}

/// The time of a clock that counts.
pub(crate) struct Counted {
    pub counter: &'static Counter,
    pub options: Counting,
    rate: RwLock<Rate>,
    seen: RwLock<Seen>,
}

/// Instructions between two looks at the host's clock, in ns of guest time.
const STEP_NS: u64 = 1_000_000;
/// How often the rate is chosen anew.
const ADJUST_NS: u64 = 100_000_000;
/// How far the guest may be ahead with `align`.
const AHEAD_NS: u64 = 3_000_000;
/// With a rate to be found, the first.
const FIRST_SHIFT: u32 = 3;

impl Counted {
    pub fn new(options: Counting) -> Self {
        // There is one for each machine, and generated code has its address.
        let counter = Box::leak(Box::new(Counter { executed: AtomicU64::new(0), limit: AtomicU64::new(0) }));
        let shift = options.shift.unwrap_or(FIRST_SHIFT).min(MAX_SHIFT);
        Self {
            counter,
            options,
            rate: RwLock::new(Rate { bias: 0, shift }),
            seen: RwLock::new(Seen { real: 0, executed: 0 }),
        }
    }
    fn executed(&self) -> u64 {
        self.counter.executed.load(Ordering::Acquire)
    }
    pub fn now_ns(&self) -> u64 {
        let rate = *self.rate.read();
        rate.bias.wrapping_add(self.executed() << rate.shift)
    }
    /// Sets the time.
    pub fn set_ns(&self, now: u64) {
        let mut rate = self.rate.write();
        rate.bias = now.wrapping_sub(self.executed() << rate.shift);
    }
    /// The number of instructions at `deadline` ns; at least those executed.
    fn count_at(&self, deadline: u64) -> u64 {
        let shift = self.rate.read().shift;
        let left = deadline.saturating_sub(self.now_ns());
        self.executed().saturating_add(left.div_ceil(1 << shift))
    }
    /// Lets processors execute `most` instructions, not beyond `deadline`, but one.
    pub fn begin(&self, most: u64, deadline: Option<u64>) {
        let step = match self.options {
            Counting { shift: Some(_), align: false, .. } => u64::MAX,
            _ => STEP_NS >> self.rate.read().shift,
        };
        let until = self.executed().saturating_add(most.min(step));
        let until = deadline.map_or(until, |d| until.min(self.count_at(d))).max(self.executed().saturating_add(1));
        self.counter.limit.store(until, Ordering::Release);
    }
    /// There is an earlier deadline.
    pub fn shorten(&self, deadline: u64) {
        self.counter.limit.fetch_min(self.count_at(deadline), Ordering::AcqRel);
    }
    /// Chooses the rate anew, if it is to be found; how many ns the guest is ahead of `real` by, if it is to wait.
    pub fn adjust(&self, real: u64) -> Option<u64> {
        let ahead = self.now_ns().saturating_sub(real);
        if self.options.shift.is_none() {
            let mut seen = self.seen.write();
            let passed = real.saturating_sub(seen.real);
            if passed >= ADJUST_NS {
                let done = self.executed().saturating_sub(seen.executed).max(1);
                *seen = Seen { real, executed: self.executed() };
                // What the next period is to bring, at the speed of this one.
                let behind = real.saturating_sub(self.now_ns());
                let wanted = passed.saturating_add(behind).saturating_sub(ahead).max(passed / 8) / done;
                let shift = wanted.max(1).ilog2().min(MAX_SHIFT);
                let now = self.now_ns();
                let mut rate = self.rate.write();
                *rate = Rate { bias: now.wrapping_sub(self.executed() << shift), shift };
            }
        }
        (self.options.align && ahead > AHEAD_NS).then_some(ahead)
    }
    /// The processors waited, so that the rate says nothing of this time.
    pub fn waited(&self, real: u64) {
        *self.seen.write() = Seen { real, executed: self.executed() };
    }
}

/// All processors wait since this time of the host's, or none does.
#[derive(Default)]
pub(crate) struct Idle {
    pub since: Option<u64>,
    /// The clock's thread fires a timer (of a clock that counts, meanwhile: nobody goes on before that has ended).
    pub firing: bool,
    /// How often somebody went on.
    pub ended: u64,
    /// Somebody goes on: no time passes any more.
    pub ending: bool,
    /// Is a processor about to go on, which has not come to say so?
    pub wanted: Option<Wanted>,
}

pub(crate) type Wanted = Box<dyn Fn() -> bool + Send>;

impl Idle {
    /// How many ns of guest time have passed for `counted`, until the next `deadline` at most.
    pub fn passed(&self, counted: &Counted, deadline: Option<u64>) -> u64 {
        let Some(since) = self.since else { return 0 };
        let left = deadline.map(|d| d.saturating_sub(counted.now_ns()));
        if counted.options.sleep {
            let real = monotonic_ns().saturating_sub(since);
            left.map_or(real, |left| left.min(real))
        } else {
            left.unwrap_or(0)
        }
    }
}
