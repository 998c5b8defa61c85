//! Emptying a queue of many small chains. To notify the device and to be interrupted cost a driver that runs on meanwhile more than
//! anything else: both are put off for as long as the next chain is likely to come soon.

use crate::queue::{Chain, Queue};
use crate::queues::Queues;
use std::time::{Duration, Instant};

/// Chains of a turn: another queue of the device may wait.
const TURN: u32 = 256;
/// So many chains, or bytes, are given back before the driver is told although there are more: it may wait for room.
const OWED: (u32, u64) = (16, 8192);
/// More is looked for at most as long as so many chains take, whatever the host is; and no longer than [`LONGEST`].
const WORTH: u32 = 16;
const LONGEST: Duration = Duration::from_millis(1);
const SHORTEST: Duration = Duration::from_micros(1);
/// Looks for more in that time, in the middle of something.
const LOOKS: u32 = 4;
/// After so many chains in a row the driver is in the middle of something. Else it is waited for as long as would have been of use lately.
const STREAM: u32 = 4;

/// How long to look for more before the driver is asked to notify.
#[derive(Debug, Default)]
pub struct Patience {
    limit: Duration,
    window: Duration,
    /// Chains since the driver had to notify.
    chains: u32,
    /// When the last look began that found nothing.
    since: Option<Instant>,
}

impl Patience {
    /// The driver had to notify.
    fn woken(&mut self, now: Instant) {
        let Some(since) = self.since.take() else { return };
        self.chains = 0;
        let (missed, most) = (now.saturating_duration_since(since), self.limit / 4);
        if missed > most {
            self.window = Duration::ZERO;
        } else if missed > self.window {
            self.window = (self.window * 2).max(SHORTEST).min(most);
        }
    }
    /// So many chains took so long.
    fn worked(&mut self, chains: u32, time: Duration) {
        if chains > 0 {
            self.limit = (time / chains * WORTH).min(LONGEST);
            self.chains = self.chains.saturating_add(chains);
        }
    }
    /// Looks until `found`, others going first. In the middle of something it sleeps between two looks: its processor is free for who gets
    /// what was sent, who else would take turns with the driver on the driver's, and more comes together.
    fn look(&mut self, began: Instant, mut found: impl FnMut() -> bool) -> bool {
        let stream = self.chains >= STREAM;
        let window = if stream { self.limit } else { self.window };
        loop {
            if stream {
                std::thread::sleep(window / LOOKS);
            } else {
                std::thread::yield_now();
            }
            if found() {
                return true;
            }
            if began.elapsed() >= window {
                self.since = Some(began);
                return false;
            }
        }
    }
}

impl Queues {
    /// Hands available chains to `work`, which gives them back ([`Self::push`]) and returns false if it cannot go on; when there are no
    /// more for now `flush` is called. The driver's notifications are off meanwhile. False: none is left and they are on again; true: to be
    /// called again. `patience`: the driver runs on meanwhile.
    pub fn drain_in_turns(
        &self,
        index: u16,
        mut patience: Option<&mut Patience>,
        mut work: impl FnMut(Chain) -> bool,
        mut flush: impl FnMut(),
    ) -> bool {
        let mut began = Instant::now();
        if let Some(patience) = &mut patience {
            patience.woken(began);
        }
        self.with(index, Queue::disable_notifications);
        let (mut chains, mut owed) = (0, (0, 0));
        loop {
            let before = chains;
            while chains < TURN
                && let Some(chain) = self.pop(index)
            {
                chains += 1;
                owed = (owed.0 + 1, owed.1 + chain.readable_len());
                if !work(chain) {
                    flush();
                    self.signal(index);
                    return false;
                }
            }
            if chains != before {
                flush();
            }
            if owed.0 >= OWED.0 || owed.1 >= OWED.1 {
                self.signal(index);
                owed = (0, 0);
            }
            if chains == TURN {
                self.signal(index);
                return true;
            }
            let found = match &mut patience {
                Some(patience) => {
                    let now = Instant::now();
                    patience.worked(chains - before, now - began);
                    let found = patience.look(now, || self.has_available(index));
                    began = Instant::now();
                    found
                }
                None => self.has_available(index),
            };
            if !found {
                break;
            }
        }
        self.signal(index);
        self.with(index, Queue::enable_notifications) == Some(true) && !self.paused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_driver() {
        let mut patience = Patience::default();
        let began = Instant::now();
        let wake = |patience: &mut Patience, micros| {
            patience.since = Some(began);
            patience.woken(began + Duration::from_micros(micros));
            patience.window.as_micros()
        };
        assert_eq!(wake(&mut patience, 30), 0, "nothing is known of it");
        patience.worked(10, Duration::from_micros(250));
        assert_eq!((patience.limit.as_micros(), patience.chains), (400, 10));
        assert_eq!([30; 7].map(|gap| wake(&mut patience, gap)), [1, 2, 4, 8, 16, 32, 32]);
        assert_eq!([99, 99, 99].map(|gap| wake(&mut patience, gap)), [64, 100, 100]);
        assert_eq!(patience.chains, 0);
        // One that sends now and then is not waited for.
        assert_eq!([5000, 5000, 90].map(|gap| wake(&mut patience, gap)), [0, 0, 1]);
        patience.worked(1, Duration::from_secs(1));
        assert_eq!(patience.limit, LONGEST);
        // One that sends much is.
        patience.worked(STREAM, Duration::from_secs(1));
        let began = Instant::now();
        assert!(!patience.look(began, || false) && began.elapsed() >= LONGEST);
    }
}
