//! The timer of a local APIC (SDM 11.5.4): counts at 1 GHz divided by the divide configuration; the count is computed from the clock,
//! never ticked.

use parking_lot::Mutex;
use rhea_clock::{Timer, VirtualClock};
use std::sync::Arc;

/// A periodic timer fires at most this often (ns); shorter periods lose interrupts, which merge in IRR anyway.
const MIN_PERIOD: u64 = 20_000;

/// Bits 18:17 of the LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    /// 3: nothing counts.
    Reserved,
}

impl Mode {
    pub fn of(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
    fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

/// What the timer holds; times are ns of the virtual clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub mode: Mode,
    pub initial: u32,
    /// The divide configuration register.
    pub divide: u32,
    /// When the count was equal to `initial` last (in this period); `None`: it has come to 0.
    pub start: Option<u64>,
    /// IA32_TSC_DEADLINE.
    pub deadline: Option<u64>,
}

impl Count {
    pub fn new() -> Self {
        Self { mode: Mode::OneShot, initial: 0, divide: 0, start: None, deadline: None }
    }
    /// log2 of the divisor.
    fn shift(&self) -> u32 {
        match self.divide & 3 | self.divide >> 1 & 4 {
            7 => 0,
            n => n + 1,
        }
    }
    fn period(&self) -> u64 {
        u64::from(self.initial) << self.shift()
    }
    fn due(&self) -> Option<u64> {
        match self.mode {
            Mode::TscDeadline => self.deadline,
            Mode::OneShot | Mode::Periodic => Some(self.start?.saturating_add(self.period())),
            Mode::Reserved => None,
        }
    }
    /// Brings the state to `now`; did the timer expire?
    fn settle(&mut self, now: u64) -> bool {
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        match self.mode {
            Mode::TscDeadline => self.deadline = None,
            Mode::Periodic => {
                let (start, period) = (self.start.unwrap_or(now), self.period().max(1));
                self.start = Some(now - now.saturating_sub(start) % period);
            }
            Mode::OneShot | Mode::Reserved => self.start = None,
        }
        true
    }
    fn current(&self, now: u64) -> u32 {
        match self.start {
            Some(start) if self.mode.counts() => {
                let counted = now.saturating_sub(start) >> self.shift();
                u64::from(self.initial).saturating_sub(counted) as u32
            }
            _ => 0,
        }
    }
}

struct Inner {
    count: Count,
    /// What the clock's timer is armed for.
    armed: Option<u64>,
}

/// The timer; all methods return whether it expired since the last call, the caller then makes the interrupt.
pub struct ApicTimer {
    clock: Arc<VirtualClock>,
    timer: Timer,
    inner: Mutex<Inner>,
}

impl ApicTimer {
    /// `callback` is to call [`Self::expired`].
    pub fn new(clock: &Arc<VirtualClock>, callback: impl Fn() + Send + Sync + 'static) -> Self {
        let inner = Mutex::new(Inner { count: Count::new(), armed: None });
        Self { clock: clock.clone(), timer: clock.timer(callback), inner }
    }
    fn with<R>(&self, change: impl FnOnce(&mut Count, u64) -> R) -> (R, bool) {
        let mut inner = self.inner.lock();
        let now = self.clock.now_ns();
        let expired = inner.count.settle(now);
        let result = change(&mut inner.count, now);
        // A deadline that has already passed expires at once.
        let expired = inner.count.settle(now) || expired;
        self.arm(&mut inner, now);
        (result, expired)
    }
    fn arm(&self, inner: &mut Inner, now: u64) {
        let due = inner.count.due();
        if due == inner.armed {
            return;
        }
        match due {
            Some(due) if inner.count.mode == Mode::Periodic => self.timer.arm(due.max(now.saturating_add(MIN_PERIOD))),
            Some(due) => self.timer.arm(due),
            None => self.timer.cancel(),
        }
        inner.armed = due;
    }
    /// The clock's timer fired.
    pub fn expired(&self) -> bool {
        // A call that comes late, after the timer was armed anew, arms it once more.
        self.inner.lock().armed = None;
        self.with(|_, _| ()).1
    }
    /// The current-count register.
    pub fn current(&self) -> (u32, bool) {
        let mut inner = self.inner.lock();
        let now = self.clock.now_ns();
        let expired = inner.count.settle(now);
        if expired {
            self.arm(&mut inner, now);
        }
        (inner.count.current(now), expired)
    }
    pub fn initial(&self) -> u32 {
        self.inner.lock().count.initial
    }
    pub fn divide(&self) -> u32 {
        self.inner.lock().count.divide
    }
    /// Writes the initial count: starts the timer, or stops it with 0.
    pub fn set_initial(&self, value: u32) -> bool {
        self.with(|count, now| {
            if count.mode.counts() {
                count.initial = value;
                count.start = (value != 0).then_some(now);
            }
        })
        .1
    }
    /// Writes the divide configuration; the count goes on from where it is.
    pub fn set_divide(&self, value: u32) -> bool {
        self.with(|count, now| {
            let left = u64::from(count.current(now));
            count.divide = value & 0xb;
            if count.start.is_some() {
                let counted = u64::from(count.initial).saturating_sub(left) << count.shift();
                count.start = Some(now.saturating_sub(counted));
            }
        })
        .1
    }
    /// The mode of the LVT entry; between counting and TSC-deadline a change stops the timer.
    pub fn set_mode(&self, mode: Mode) -> bool {
        if self.inner.lock().count.mode == mode {
            return false;
        }
        self.with(|count, _| {
            if !(count.mode.counts() && mode.counts()) {
                count.start = None;
                count.deadline = None;
            }
            if !mode.counts() {
                count.initial = 0;
            }
            count.mode = mode;
        })
        .1
    }
    /// IA32_TSC_DEADLINE as time; nothing happens in another mode.
    pub fn set_deadline(&self, deadline: Option<u64>) -> bool {
        self.with(|count, _| {
            if count.mode == Mode::TscDeadline {
                count.deadline = deadline;
            }
        })
        .1
    }
    /// The armed deadline, and whether it expired just now.
    pub fn deadline(&self) -> (Option<u64>, bool) {
        self.with(|count, _| count.deadline)
    }
    pub fn save(&self) -> Count {
        self.inner.lock().count.clone()
    }
    pub fn load(&self, count: Count) {
        let mut inner = self.inner.lock();
        inner.count = count;
        let now = self.clock.now_ns();
        self.arm(&mut inner, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(mode: Mode, initial: u32, divide: u32) -> Count {
        Count { mode, initial, divide, start: Some(1000), deadline: None }
    }

    #[test]
    fn one_shot_and_periodic() {
        let mut one = counting(Mode::OneShot, 100, 0xb);
        assert_eq!((one.current(1000), one.current(1030), one.current(5000)), (100, 70, 0));
        assert!(!one.settle(1099) && one.settle(1100) && !one.settle(1200));
        assert_eq!(one.start, None);
        let mut many = counting(Mode::Periodic, 100, 0xb);
        assert!(many.settle(1350));
        assert_eq!((many.start, many.current(1350), many.due()), (Some(1300), 50, Some(1400)));
    }

    #[test]
    fn divisors() {
        let shifts = [0, 1, 2, 3, 8, 9, 10, 11].map(|d| counting(Mode::OneShot, 1, d).shift());
        assert_eq!(shifts, [1, 2, 3, 4, 5, 6, 7, 0]);
    }

    #[test]
    fn mode_and_divisor_change_on_the_way() {
        let clock = VirtualClock::new();
        clock.set_ns(1000);
        let timer = ApicTimer::new(&clock, || ());
        timer.set_divide(0xb);
        timer.set_initial(1000);
        clock.set_ns(1400);
        assert_eq!(timer.current(), (600, false));
        assert!(!timer.set_mode(Mode::Periodic));
        assert_eq!(timer.current().0, 600);
        timer.set_divide(0);
        assert_eq!(timer.current().0, 600);
        clock.set_ns(1600);
        assert_eq!(timer.current().0, 500);
        clock.set_ns(1600 + 1000);
        assert_eq!(timer.current(), (1000, true));
        assert!(!timer.set_mode(Mode::OneShot));
        clock.set_ns(10_000);
        assert_eq!(timer.current(), (0, true));
        assert!(!timer.set_mode(Mode::Periodic));
        assert_eq!(timer.current(), (0, false));
        assert!(!timer.set_mode(Mode::TscDeadline));
        assert!(!timer.set_initial(5));
        assert_eq!((timer.initial(), timer.current().0), (0, 0));
        assert!(timer.set_deadline(Some(9_999)));
        assert_eq!(timer.deadline(), (None, false));
        assert!(!timer.set_deadline(Some(10_001)));
        assert_eq!(timer.deadline(), (Some(10_001), false));
        assert!(!timer.set_mode(Mode::OneShot));
        assert!(!timer.set_deadline(Some(10_001)));
        assert_eq!(timer.deadline(), (None, false));
    }
}
