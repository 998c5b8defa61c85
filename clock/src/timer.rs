//! The virtual clock and its timers: one queue and one thread per clock.

use crate::host::{exact_waits, futex_wait_until, futex_wake, monotonic_ns};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

/// While stopped the base holds the time; this bit-free flag tells the two apart.
const STOPPED: u64 = u64::MAX;

/// Nanoseconds of guest time since the machine was made; runs while the VM runs, on the host's CLOCK_MONOTONIC.
pub struct VirtualClock {
    /// Running: host time at guest time 0 (wrapping). Stopped: [`STOPPED`].
    origin: AtomicU64,
    /// Guest time while stopped.
    held: AtomicU64,
    queue: Arc<Queue>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Timers {
    /// Armed timers, soonest first.
    armed: BTreeSet<(u64, u64)>,
    deadlines: BTreeMap<u64, u64>,
    callbacks: BTreeMap<u64, Callback>,
    next_id: u64,
    thread: bool,
}

struct Queue {
    timers: Mutex<Timers>,
    /// Changes whenever the thread must look again; a futex word.
    bell: AtomicU32,
    /// The deadline the thread sleeps for; an earlier one must ring.
    sleeping_for: AtomicU64,
    ended: AtomicBool,
}

impl Queue {
    fn ring(&self) {
        self.bell.fetch_add(1, Ordering::SeqCst);
        futex_wake(&self.bell);
    }
}

impl VirtualClock {
    /// A stopped clock at 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: AtomicU64::new(STOPPED),
            held: AtomicU64::new(0),
            queue: Arc::new(Queue {
                timers: Mutex::default(),
                bell: AtomicU32::new(0),
                sleeping_for: AtomicU64::new(u64::MAX),
                ended: AtomicBool::new(false),
            }),
        })
    }
    /// The current time in ns; monotonic; lock-free.
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        let origin = self.origin.load(Ordering::Acquire);
        if origin == STOPPED { self.held.load(Ordering::Acquire) } else { monotonic_ns().wrapping_sub(origin) }
    }
    /// What to subtract from [`crate::monotonic_ns`] to get the guest's time, while running. For code that reads the host's
    /// counter itself.
    #[must_use]
    pub fn origin_ns(&self) -> Option<u64> {
        let origin = self.origin.load(Ordering::Acquire);
        (origin != STOPPED).then_some(origin)
    }
    /// Lets the time run.
    pub fn start(&self) {
        let _timers = self.queue.timers.lock();
        if !self.running() {
            let origin = monotonic_ns().wrapping_sub(self.held.load(Ordering::Acquire));
            self.origin.store(if origin == STOPPED { STOPPED - 1 } else { origin }, Ordering::Release);
            self.queue.ring();
        }
    }
    /// Stops the time; no timer of the clock fires until [`Self::start`].
    pub fn stop(&self) {
        let _timers = self.queue.timers.lock();
        if self.running() {
            self.held.store(self.now_ns(), Ordering::Release);
            self.origin.store(STOPPED, Ordering::Release);
            self.queue.ring();
        }
    }
    #[must_use]
    pub fn running(&self) -> bool {
        self.origin.load(Ordering::Acquire) != STOPPED
    }
    /// Sets the time (loading a saved machine); the clock must be stopped, else nothing happens.
    pub fn set_ns(&self, now: u64) {
        let _timers = self.queue.timers.lock();
        if !self.running() {
            self.held.store(now, Ordering::Release);
        }
    }
    /// A timer on this clock. `callback` runs on the clock's own thread with no lock held; it may arm its timer again.
    #[must_use]
    pub fn timer(self: &Arc<Self>, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let mut timers = self.queue.timers.lock();
        timers.next_id += 1;
        let id = timers.next_id;
        timers.callbacks.insert(id, Arc::new(callback));
        if !timers.thread {
            timers.thread = true;
            let (clock, queue) = (Arc::downgrade(self), self.queue.clone());
            let spawned = thread::Builder::new().name("rhea-timers".to_owned()).spawn(move || run(&clock, &queue));
            // Without a thread no timer would ever fire; there is no machine to run then.
            spawned.expect("the host cannot start a thread for the clock");
        }
        Timer { queue: self.queue.clone(), id }
    }
}

impl Drop for VirtualClock {
    fn drop(&mut self) {
        self.queue.ended.store(true, Ordering::SeqCst);
        self.queue.ring();
    }
}

/// The clock's thread: fires what is due, sleeps until the next deadline or a ring.
fn run(clock: &Weak<VirtualClock>, queue: &Queue) {
    exact_waits();
    loop {
        let bell = queue.bell.load(Ordering::SeqCst);
        if queue.ended.load(Ordering::SeqCst) {
            return;
        }
        let (due, wait) = {
            // The clock must not be dropped while the lock is held: its drop only rings, so that is fine either way.
            let Some(clock) = clock.upgrade() else { return };
            let mut timers = queue.timers.lock();
            let now = clock.now_ns();
            match (clock.origin_ns(), timers.armed.first().copied()) {
                (Some(_), Some((deadline, id))) if deadline <= now => {
                    timers.armed.remove(&(deadline, id));
                    timers.deadlines.remove(&id);
                    (timers.callbacks.get(&id).cloned(), None)
                }
                (Some(origin), Some((deadline, _))) => {
                    queue.sleeping_for.store(deadline, Ordering::SeqCst);
                    (None, Some(Some(origin.wrapping_add(deadline))))
                }
                _ => {
                    queue.sleeping_for.store(u64::MAX, Ordering::SeqCst);
                    (None, Some(None))
                }
            }
        };
        if let Some(callback) = due {
            callback();
        } else if let Some(until) = wait {
            // Times past the host's range never come.
            let until = until.filter(|t| *t < i64::MAX as u64);
            futex_wait_until(&queue.bell, bell, until);
            queue.sleeping_for.store(0, Ordering::SeqCst);
        }
    }
}

/// A one-shot timer. Dropping it cancels it (a callback already running finishes).
pub struct Timer {
    queue: Arc<Queue>,
    id: u64,
}

impl Timer {
    /// Fires once when the clock reaches `deadline_ns` (at once if it has); replaces an earlier deadline.
    pub fn arm(&self, deadline_ns: u64) {
        {
            let mut timers = self.queue.timers.lock();
            if let Some(old) = timers.deadlines.insert(self.id, deadline_ns) {
                timers.armed.remove(&(old, self.id));
            }
            timers.armed.insert((deadline_ns, self.id));
        }
        // A thread that is awake looks at the queue before it sleeps; one that sleeps for longer must be woken.
        if deadline_ns < self.queue.sleeping_for.load(Ordering::SeqCst) {
            self.queue.ring();
        }
    }
    /// Takes the deadline back. A callback that has already begun is not waited for.
    pub fn cancel(&self) {
        let mut timers = self.queue.timers.lock();
        if let Some(old) = timers.deadlines.remove(&self.id) {
            timers.armed.remove(&(old, self.id));
        }
    }
    /// The armed deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.queue.timers.lock().deadlines.get(&self.id).copied()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
        // Dropped after the lock: a callback may own timers.
        let _callback = self.queue.timers.lock().callbacks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn stops_and_runs() {
        let clock = VirtualClock::new();
        assert_eq!(clock.now_ns(), 0);
        clock.set_ns(1000);
        assert_eq!(clock.now_ns(), 1000);
        clock.start();
        thread::sleep(Duration::from_millis(5));
        clock.stop();
        let held = clock.now_ns();
        assert!(held >= 5_001_000);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now_ns(), held);
    }

    #[test]
    fn timers_fire_in_order_and_only_while_running() {
        let clock = VirtualClock::new();
        let (tx, rx) = mpsc::channel();
        let make = |n: u32| {
            let tx = tx.clone();
            clock.timer(move || tx.send(n).unwrap())
        };
        let (a, b, c) = (make(1), make(2), make(3));
        b.arm(2_000_000);
        a.arm(1_000_000);
        c.arm(1_500_000);
        c.cancel();
        assert_eq!(c.deadline(), None);
        assert!(rx.recv_timeout(Duration::from_millis(10)).is_err());
        clock.start();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(1));
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(2));
        assert!(clock.now_ns() >= 2_000_000);
        a.arm(0);
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(1));
        // An earlier deadline wakes a thread that sleeps for a later one.
        b.arm(clock.now_ns() + 60_000_000_000);
        thread::sleep(Duration::from_millis(2));
        a.arm(clock.now_ns() + 1_000_000);
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(1));
        drop(b);
        assert!(rx.recv_timeout(Duration::from_millis(1)).is_err());
    }

    #[test]
    fn many_rearms_lose_nothing() {
        let clock = VirtualClock::new();
        clock.start();
        let (tx, rx) = mpsc::channel();
        let timer = clock.timer(move || tx.send(()).unwrap());
        for _ in 0..2000 {
            timer.arm(clock.now_ns() + 1000);
            rx.recv_timeout(Duration::from_secs(5)).expect("the timer fired");
        }
    }
}
