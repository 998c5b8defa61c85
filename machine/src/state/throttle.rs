//! Slows a guest down that writes faster than its memory is sent (auto-converge): each processor sleeps for a part of the time.

use crate::machine::MachineCpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// All in percent, 1 to 99, the threshold up to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleParameters {
    /// A round is slow in which the guest wrote more than this part of what was sent.
    pub threshold: u8,
    /// What is taken from the guest's time at first.
    pub initial: u8,
    /// How much more is taken when that does not help.
    pub increment: u8,
    /// What is taken at most; not below `initial`.
    pub most: u8,
}

impl Default for ThrottleParameters {
    fn default() -> Self {
        Self { threshold: 50, initial: 20, increment: 10, most: 99 }
    }
}

/// The guest runs this long between two sleeps.
const RUN: Duration = Duration::from_millis(10);
/// So long at most a processor does not look whether it is to go on.
const STEP: Duration = Duration::from_millis(5);
/// The machine is stopped, or has better to do.
const OFF: u8 = u8::MAX;

/// What is taken from the processors' time, until it is dropped.
pub struct Throttle {
    cpus: Vec<Arc<dyn MachineCpu>>,
    percent: Arc<AtomicU8>,
    slow: u32,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    pub fn new(cpus: &[Arc<dyn MachineCpu>]) -> Self {
        Self { cpus: cpus.to_vec(), percent: Arc::default(), slow: 0, thread: None }
    }
    /// After a round that sent `sent` bytes, in which the guest wrote to `dirty`: the percentage from now on.
    pub fn round(&mut self, parameters: &ThrottleParameters, dirty: u64, sent: u64) -> u8 {
        let old = self.percent.load(Ordering::SeqCst);
        let new = next(parameters, &mut self.slow, old, dirty, sent);
        self.percent.store(new, Ordering::SeqCst);
        if new != 0 && self.thread.is_none() {
            let (cpus, percent) = (std::mem::take(&mut self.cpus), self.percent.clone());
            let run = move || run(&cpus, &percent);
            // Without it the guest is as fast as it was.
            self.thread = thread::Builder::new().name("rhea-throttle".to_owned()).spawn(run).ok();
        }
        new
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.percent.store(OFF, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// The percentage after a round; more is taken when two in a row were slow.
fn next(p: &ThrottleParameters, slow: &mut u32, old: u8, dirty: u64, sent: u64) -> u8 {
    if u128::from(dirty) * 100 <= u128::from(sent) * u128::from(p.threshold) {
        *slow = 0;
        return old;
    }
    *slow += 1;
    if *slow < 2 {
        return old;
    }
    *slow = 0;
    let new = if old == 0 { p.initial } else { old.saturating_add(p.increment) };
    new.min(p.most)
}

/// What is taken after each [`RUN`].
fn pause(percent: u8) -> Duration {
    let percent = u32::from(percent.min(99));
    RUN * percent / (100 - percent)
}

fn run(cpus: &[Arc<dyn MachineCpu>], percent: &Arc<AtomicU8>) {
    loop {
        let now = percent.load(Ordering::SeqCst);
        if now == OFF {
            return;
        }
        // One that comes late sleeps no longer than the others.
        let end = Instant::now() + pause(now);
        for cpu in cpus {
            let percent = percent.clone();
            cpu.request(Box::new(move || sleep(end, &percent)));
        }
        sleep(end, percent);
        thread::sleep(RUN);
    }
}

fn sleep(end: Instant, percent: &AtomicU8) {
    while percent.load(Ordering::SeqCst) != OFF {
        match end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(STEP)),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_taken_from_a_guest_that_writes_on() {
        let p = ThrottleParameters { most: 45, ..ThrottleParameters::default() };
        let (mut slow, mut percent, mut all) = (0, 0, Vec::new());
        for dirty in [90, 40, 60, 51, 100, 100, 100, 50, 100, 100, 100, 100, 100, 100] {
            percent = next(&p, &mut slow, percent, dirty, 100);
            all.push(percent);
        }
        assert_eq!(all, [0, 0, 0, 20, 20, 30, 30, 30, 30, 40, 40, 45, 45, 45]);
        assert_eq!((pause(50), pause(90), pause(99)), (RUN, RUN * 9, RUN * 99));
    }

    #[test]
    fn a_processor_goes_on_when_it_is_let() {
        let percent = AtomicU8::new(99);
        let begin = Instant::now();
        sleep(begin + Duration::from_millis(15), &percent);
        assert!(begin.elapsed() >= Duration::from_millis(15));
        percent.store(OFF, Ordering::SeqCst);
        // It would take longer than any test.
        sleep(Instant::now() + Duration::from_secs(100_000), &percent);
    }
}
