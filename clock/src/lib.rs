//! Time: the virtual clock that stops with the VM, timers on it, and the sources of a real-time clock.

use std::sync::Arc;

/// Nanoseconds of guest time since the machine was made; runs while the VM runs, on the host's CLOCK_MONOTONIC.
pub struct VirtualClock {
    _private: (),
}

impl VirtualClock {
    /// A stopped clock at 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        unimplemented!()
    }
    /// The current time in ns; monotonic; lock-free.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        unimplemented!()
    }
    /// Lets the time run.
    pub fn start(&self) {}
    /// Stops the time; no timer of the clock fires until [`Self::start`].
    pub fn stop(&self) {}
    #[must_use]
    pub fn running(&self) -> bool {
        unimplemented!()
    }
    /// Sets the time (loading a saved machine); the clock must be stopped.
    pub fn set_ns(&self, now: u64) {
        let _ = now;
    }
    /// A timer on this clock. `callback` runs on the clock's own thread with no lock held; it may arm its timer again.
    #[must_use]
    pub fn timer(self: &Arc<Self>, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let _ = callback;
        unimplemented!()
    }
}

/// A one-shot timer. Dropping it cancels it (a callback already running finishes).
pub struct Timer {
    _private: (),
}

impl Timer {
    /// Fires once when the clock reaches `deadline_ns` (at once if it has); replaces an earlier deadline.
    pub fn arm(&self, deadline_ns: u64) {
        let _ = deadline_ns;
    }
    /// Takes the deadline back. A callback that has already begun is not waited for.
    pub fn cancel(&self) {}
    /// The armed deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
}

/// What `-rtc` chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcBase {
    Utc,
    Localtime,
    /// Seconds since 1970-01-01T00:00:00Z.
    Fixed(i64),
}

/// Which clock drives the RTC after its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcSource {
    Host,
    Vm,
}

/// The guest's wall clock.
#[derive(Clone)]
pub struct RtcClock {
    _private: (),
}

impl RtcClock {
    #[must_use]
    pub fn new(base: RtcBase, source: RtcSource, clock: &Arc<VirtualClock>) -> Self {
        let _ = (base, source, clock);
        unimplemented!()
    }
    /// Seconds since 1970 in the guest's time zone of choice, and nanoseconds within the second.
    #[must_use]
    pub fn now(&self) -> (i64, u32) {
        unimplemented!()
    }
    /// The [`VirtualClock`] time in ns at which [`Self::now`] will be (about) `seconds`.
    #[must_use]
    pub fn deadline_for(&self, seconds: i64) -> u64 {
        let _ = seconds;
        unimplemented!()
    }
}
