//! Limits of throughput: leaky buckets for bytes and operations.

use crate::NodeOptions;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// One limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Per second; 0: no limit.
    pub average: u64,
    /// Per second during bursts; 0: none.
    pub burst: u64,
    /// Seconds that a burst may last.
    pub burst_length: u64,
}

/// The limits of a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Bytes: in all, read, written; operations: in all, reads, writes.
    pub limits: [Limit; 6],
    /// An operation of n times so many bytes counts as n; 0: as one.
    pub operation_size: u64,
}

const NAMES: [(&str, &str); 6] = [
    ("bps-total", "bps"),
    ("bps-read", "bps_rd"),
    ("bps-write", "bps_wr"),
    ("iops-total", "iops"),
    ("iops-read", "iops_rd"),
    ("iops-write", "iops_wr"),
];

impl ThrottleLimits {
    /// Is there any limit?
    #[must_use]
    pub fn any(&self) -> bool {
        self.limits.iter().any(|l| l.average != 0)
    }
    /// Takes `bps-total`, `bps-total-max`, `iops-size` and so on; the old names (`bps`, `iops_rd_max`) if `old`.
    ///
    /// # Errors
    /// One line.
    pub fn take(o: &mut NodeOptions, old: bool) -> Result<Self, String> {
        let mut limits = Self::default();
        for (limit, (name, short)) in limits.limits.iter_mut().zip(NAMES) {
            let (name, separator) = if old { (short, '_') } else { (name, '-') };
            limit.average = o.take_size(name)?.unwrap_or(0);
            limit.burst = o.take_size(&format!("{name}{separator}max"))?.unwrap_or(0);
            let length = format!("{name}{separator}max{separator}length");
            limit.burst_length = o.take_size(&length)?.unwrap_or(1);
            if limit.burst != 0 && limit.burst < limit.average {
                return Err(format!("'{name}{separator}max' must not be less than '{name}'"));
            }
            if (limit.burst != 0 || limit.burst_length > 1) && limit.average == 0 {
                return Err(format!("a burst limit needs '{name}'"));
            }
            if limit.burst_length == 0 || limit.average.max(limit.burst) > 1_000_000_000_000_000 {
                return Err(format!("'{length}' must be at least 1, and limits at most 1,000,000,000,000,000"));
            }
        }
        limits.operation_size = o.take_size(if old { "iops_size" } else { "iops-size" })?.unwrap_or(0);
        let l = &limits.limits;
        for (total, parts) in [(0, [1, 2]), (3, [4, 5])] {
            if l[total].average != 0 && parts.iter().any(|p| l[*p].average != 0) {
                return Err(format!(
                    "'{}' cannot be used with '{}' or '{}'",
                    NAMES[total].0, NAMES[parts[0]].0, NAMES[parts[1]].0
                ));
            }
        }
        Ok(limits)
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    level: f64,
    burst_level: f64,
}

struct State {
    limits: ThrottleLimits,
    buckets: [Bucket; 6],
    last: Instant,
}

/// Limits that are kept. Drives with the same one share it.
pub struct Throttle(Mutex<State>);

impl Throttle {
    #[must_use]
    pub fn new(limits: ThrottleLimits) -> Self {
        Self(Mutex::new(State { limits, buckets: [Bucket::default(); 6], last: Instant::now() }))
    }
    #[must_use]
    pub fn limits(&self) -> ThrottleLimits {
        self.0.lock().limits
    }
    /// Other limits from now on.
    pub fn set(&self, limits: ThrottleLimits) {
        *self.0.lock() = State { limits, buckets: [Bucket::default(); 6], last: Instant::now() };
    }
    /// Accounts a request that comes at `now`: how long it must wait.
    fn account(&self, write: bool, bytes: u64, now: Instant) -> Duration {
        let mut s = self.0.lock();
        let s = &mut *s;
        let elapsed = now.saturating_duration_since(s.last).as_secs_f64();
        s.last = s.last.max(now);
        let operations = match s.limits.operation_size {
            0 => 1.0,
            size => (bytes as f64 / size as f64).max(1.0),
        };
        let mut wait = 0f64;
        for (n, (limit, bucket)) in s.limits.limits.iter().zip(&mut s.buckets).enumerate() {
            if limit.average == 0 {
                continue;
            }
            let average = limit.average as f64;
            bucket.level = (bucket.level - average * elapsed).max(0.0);
            bucket.burst_level = (bucket.burst_level - limit.burst as f64 * elapsed).max(0.0);
            if !matches!((n % 3, write), (0, _) | (1, false) | (2, true)) {
                continue;
            }
            // A tenth of a second at the average rate goes through at once, or a burst as long as was said.
            let room = if limit.burst == 0 { average / 10.0 } else { limit.burst as f64 * limit.burst_length as f64 };
            wait = wait.max((bucket.level - room) / average);
            if limit.burst != 0 && limit.burst_length > 1 {
                let burst = limit.burst as f64;
                wait = wait.max((bucket.burst_level - burst / 10.0) / burst);
            }
            let units = if n < 3 { bytes as f64 } else { operations };
            bucket.level += units;
            bucket.burst_level += units;
        }
        Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or(Duration::MAX)
    }
    /// Waits until a request may go on.
    pub fn wait(&self, write: bool, bytes: u64) {
        let wait = self.account(write, bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait.min(Duration::from_secs(3600)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<ThrottleLimits, String> {
        ThrottleLimits::take(&mut NodeOptions::parse(text).unwrap(), false)
    }

    #[test]
    fn rates() {
        let throttle = Throttle::new(limits("bps-total=1000000,iops-write=100").unwrap());
        let start = Instant::now();
        // Ten requests of 100,000 bytes at once: the last may begin when 800,000 have gone.
        let waits: Vec<f64> = (0..10).map(|_| throttle.account(false, 100_000, start).as_secs_f64()).collect();
        assert!(waits[0] == 0.0 && waits[1] == 0.0, "{waits:?}");
        assert!((waits[9] - 0.8).abs() < 1e-6, "{waits:?}");
        let later = start + Duration::from_secs(2);
        assert!(throttle.account(false, 1, later).is_zero());
        let writes: Vec<f64> = (0..21).map(|_| throttle.account(true, 1, later).as_secs_f64()).collect();
        assert!(writes[10] == 0.0 && (writes[20] - 0.1).abs() < 1e-6, "{writes:?}");
    }

    #[test]
    fn errors() {
        for (text, word) in [
            ("bps-total=1,bps-read=1", "bps-total"),
            ("bps-read-max=5", "needs"),
            ("iops-total=10,iops-total-max=5", "less"),
            ("iops-total=x", "size"),
        ] {
            assert!(limits(text).unwrap_err().contains(word), "{text}");
        }
    }
}
