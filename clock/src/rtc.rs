//! The guest's wall clock (`-rtc`).

use crate::VirtualClock;
use crate::host::utc_offset;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// What `-rtc base=` chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcBase {
    Utc,
    Localtime,
    /// Seconds since 1970-01-01T00:00:00Z.
    Fixed(i64),
}

/// Which clock drives the RTC after its base (`-rtc clock=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcSource {
    Host,
    Vm,
}

/// Told of a time that the guest sets: by how many seconds it differs from what the clock would have been.
type Watcher = Box<dyn Fn(i64) + Send + Sync>;

/// The guest's wall clock.
#[derive(Clone)]
pub struct RtcClock {
    source: RtcSource,
    clock: Arc<VirtualClock>,
    /// Added to the source's time, in ns.
    offset_ns: i128,
    watcher: Arc<OnceLock<Watcher>>,
}

fn host_ns() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => d.as_nanos() as i128,
        Err(e) => -(e.duration().as_nanos() as i128),
    }
}

const NS: i128 = 1_000_000_000;

impl RtcClock {
    #[must_use]
    pub fn new(base: RtcBase, source: RtcSource, clock: &Arc<VirtualClock>) -> Self {
        let host = host_ns();
        let start = match base {
            RtcBase::Utc => host,
            RtcBase::Localtime => host + i128::from(utc_offset((host / NS) as i64)) * NS,
            RtcBase::Fixed(seconds) => i128::from(seconds) * NS,
        };
        let from = match source {
            RtcSource::Host => host,
            RtcSource::Vm => i128::from(clock.now_ns()),
        };
        Self { source, clock: clock.clone(), offset_ns: start - from, watcher: Arc::default() }
    }
    fn now_ns(&self) -> i128 {
        let from = match self.source {
            RtcSource::Host => host_ns(),
            RtcSource::Vm => i128::from(self.clock.now_ns()),
        };
        from + self.offset_ns
    }
    /// Seconds since 1970, in the guest's time zone of choice, and nanoseconds within the second.
    #[must_use]
    pub fn now(&self) -> (i64, u32) {
        let now = self.now_ns();
        (now.div_euclid(NS) as i64, now.rem_euclid(NS) as u32)
    }
    /// Has `f` called when the guest sets the time; the first one stays.
    pub fn on_change(&self, f: impl Fn(i64) + Send + Sync + 'static) {
        let _ = self.watcher.set(Box::new(f));
    }
    /// The device has been set to a time `offset` seconds after [`Self::now`]. Called with no lock held.
    pub fn changed(&self, offset: i64) {
        if let Some(watcher) = self.watcher.get() {
            watcher(offset);
        }
    }
    /// The [`VirtualClock`] time in ns at which [`Self::now`] will be (about) `seconds`; the clock's now if that is past.
    #[must_use]
    pub fn deadline_for(&self, seconds: i64) -> u64 {
        let wait = (i128::from(seconds) * NS - self.now_ns()).max(0);
        u64::try_from(i128::from(self.clock.now_ns()) + wait).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told() {
        let clock = RtcClock::new(RtcBase::Utc, RtcSource::Host, &VirtualClock::new());
        clock.changed(1);
        let (sender, told) = std::sync::mpsc::channel();
        clock.clone().on_change(move |offset| sender.send(offset).unwrap());
        clock.changed(-7);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [-7]);
    }
    #[test]
    fn bases() {
        let clock = VirtualClock::new();
        let fixed = RtcClock::new(RtcBase::Fixed(1_000_000), RtcSource::Vm, &clock);
        assert_eq!(fixed.now(), (1_000_000, 0));
        assert_eq!(fixed.deadline_for(1_000_002), 2_000_000_000);
        assert_eq!(fixed.deadline_for(0), 0);
        let utc = RtcClock::new(RtcBase::Utc, RtcSource::Host, &clock);
        assert!((i128::from(utc.now().0) - host_ns() / NS).abs() <= 1);
    }
}
