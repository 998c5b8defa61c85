//! The virtual clock and its timers: one queue and one thread per clock.

use crate::counted::{Counted, Counter, Counting, Idle};
use crate::host::{exact_waits, futex_wait_until, futex_wake, monotonic_ns};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// While stopped the base holds the time; this bit-free flag tells the two apart.
const STOPPED: u64 = u64::MAX;

impl std::fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualClock at {} ns", self.now_ns())
    }
}

/// Nanoseconds of guest time since the machine was made; runs while the VM runs, on the host's CLOCK_MONOTONIC, or with the
/// instructions that the guest executes ([`VirtualClock::counted`]).
pub struct VirtualClock {
    /// Running: host time at guest time 0 (wrapping). Stopped: [`STOPPED`].
    origin: AtomicU64,
    /// Guest time while stopped.
    held: AtomicU64,
    counted: Option<Arc<Counted>>,
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
    idle: Idle,
}

impl Timers {
    fn next(&self) -> Option<u64> {
        self.armed.first().map(|(deadline, _)| *deadline)
    }
    /// Takes the first timer out that is due at `now`.
    fn take_due(&mut self, now: u64) -> Option<Callback> {
        loop {
            let (deadline, id) = *self.armed.first().filter(|(deadline, _)| *deadline <= now)?;
            self.armed.remove(&(deadline, id));
            self.deadlines.remove(&id);
            if let Some(callback) = self.callbacks.get(&id) {
                return Some(callback.clone());
            }
        }
    }
}

struct Queue {
    timers: Mutex<Timers>,
    /// Changes whenever the thread must look again; a futex word.
    bell: AtomicU32,
    /// The deadline the thread sleeps for; an earlier one must ring.
    sleeping_for: AtomicU64,
    ended: AtomicBool,
    /// The end of [`Idle::firing`].
    fired: Condvar,
    counted: Option<Arc<Counted>>,
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
        Self::make(None)
    }
    /// The same, of which time passes with the instructions that are executed. Whoever executes them has the clock's
    /// [`VirtualClock::counter`], and calls [`VirtualClock::begin`], [`VirtualClock::spent`] and what is around idle times.
    #[must_use]
    pub fn counted(counting: Counting) -> Arc<Self> {
        Self::make(Some(Arc::new(Counted::new(counting))))
    }
    fn make(counted: Option<Arc<Counted>>) -> Arc<Self> {
        Arc::new(Self {
            origin: AtomicU64::new(STOPPED),
            held: AtomicU64::new(0),
            counted: counted.clone(),
            queue: Arc::new(Queue {
                timers: Mutex::default(),
                bell: AtomicU32::new(0),
                sleeping_for: AtomicU64::new(u64::MAX),
                ended: AtomicBool::new(false),
                fired: Condvar::new(),
                counted,
            }),
        })
    }
    /// The current time in ns; monotonic; lock-free unless instructions are counted.
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match &self.counted {
            None => self.running_ns(),
            Some(counted) => counted.now_ns(),
        }
    }
    /// The host's time that has passed while the clock ran, from what it was set to.
    #[inline]
    fn running_ns(&self) -> u64 {
        let origin = self.origin.load(Ordering::Acquire);
        if origin == STOPPED { self.held.load(Ordering::Acquire) } else { monotonic_ns().wrapping_sub(origin) }
    }
    /// What to subtract from [`crate::monotonic_ns`] to get the guest's time, while running.
    fn origin_ns(&self) -> Option<u64> {
        let origin = self.origin.load(Ordering::Acquire);
        (origin != STOPPED).then_some(origin)
    }
    /// Lets the time run.
    pub fn start(&self) {
        let mut timers = self.queue.timers.lock();
        if !self.running() {
            let now = monotonic_ns();
            let origin = now.wrapping_sub(self.held.load(Ordering::Acquire));
            // What was idle stays so, and the time of the pause does not count.
            timers.idle.since = timers.idle.since.map(|_| now);
            self.origin.store(if origin == STOPPED { STOPPED - 1 } else { origin }, Ordering::Release);
            self.queue.ring();
        }
    }
    /// Stops the time; no timer of the clock fires until [`Self::start`], but one may be firing: see [`Self::settle`].
    pub fn stop(&self) {
        let mut timers = self.queue.timers.lock();
        if self.running() {
            if self.counted.as_ref().is_some_and(|counted| counted.options.sleep) {
                self.pass_idle(&mut timers);
            }
            self.held.store(self.running_ns(), Ordering::Release);
            self.origin.store(STOPPED, Ordering::Release);
            self.queue.ring();
        }
    }
    /// Returns when no callback of a timer runs; the clock is stopped. Not for callbacks, nor with a lock that one takes.
    pub fn settle(&self) {
        let mut timers = self.queue.timers.lock();
        while timers.idle.firing {
            self.queue.fired.wait(&mut timers);
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
            if let Some(counted) = &self.counted {
                counted.set_ns(now);
            }
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

/// For who executes instructions that are counted. Nothing happens on other clocks.
impl VirtualClock {
    /// What the instructions are counted in; `None`: they are not.
    #[must_use]
    pub fn counter(&self) -> Option<&'static Counter> {
        self.counted.as_ref().map(|counted| counted.counter)
    }
    /// Sets the counter's limit: `most` instructions, but no further than the next timer.
    pub fn begin(&self, most: u64) {
        if let Some(counted) = &self.counted {
            let timers = self.queue.timers.lock();
            counted.begin(most, timers.next());
        }
    }
    /// The counter's limit was reached: fires what is due, on this thread, with no lock held. Waits where the guest's time is not to
    /// run ahead of the host's.
    pub fn spent(&self) {
        let Some(counted) = &self.counted else { return };
        // A timer that is due again at once must not hold up the guest.
        for _ in 0..MAX_FIRED {
            let Some(callback) = self.queue.timers.lock().take_due(counted.now_ns()) else { break };
            callback();
        }
        if let Some(ahead) = counted.adjust(self.running_ns()) {
            thread::sleep(Duration::from_nanos(ahead.min(MAX_WAIT_NS)));
        }
    }
    /// Sets what tells whether a processor has been woken that waits as far as the clock knows. Called with a lock of the clock held.
    pub fn on_idle(&self, wanted: impl Fn() -> bool + Send + 'static) {
        self.queue.timers.lock().idle.wanted = Some(Box::new(wanted));
    }
    /// All processors wait from now on, after [`Self::end_idle`] was called `ended` times; if that is past, one goes on again already.
    pub fn begin_idle(&self, ended: u64) {
        if self.counted.is_some() {
            let mut timers = self.queue.timers.lock();
            if timers.idle.ended == ended {
                timers.idle.since = Some(monotonic_ns());
            }
            drop(timers);
            self.queue.ring();
        }
    }
    /// One does not any longer, the `ended`th time. Returns when no timers are being fired.
    pub fn end_idle(&self, ended: u64) {
        let Some(counted) = &self.counted else { return };
        let mut timers = self.queue.timers.lock();
        (timers.idle.ending, timers.idle.ended) = (true, ended);
        while timers.idle.firing {
            self.queue.fired.wait(&mut timers);
        }
        // Without sleeping, time leaps to timers only.
        if counted.options.sleep {
            self.pass_idle(&mut timers);
        }
        (timers.idle.since, timers.idle.ending) = (None, false);
        counted.waited(self.running_ns());
    }
    /// Lets the time pass that has been idle.
    fn pass_idle(&self, timers: &mut Timers) {
        if let (Some(counted), true) = (&self.counted, self.running()) {
            let passed = timers.idle.passed(counted, timers.next());
            counted.set_ns(counted.now_ns().wrapping_add(passed));
            timers.idle.since = timers.idle.since.map(|_| monotonic_ns());
        }
    }
    /// What is to be done next while all processors wait, if instructions are counted.
    fn idle_step(&self, timers: &mut Timers) -> Step {
        let (Some(counted), Some(since)) = (&self.counted, timers.idle.since) else { return Step::Wait(None) };
        let Some(deadline) = timers.next() else { return Step::Wait(None) };
        // What a timer woke comes before the next one.
        if timers.idle.ending
            || deadline > counted.now_ns() && timers.idle.wanted.as_ref().is_some_and(|wanted| wanted())
        {
            return Step::Wait(None);
        }
        let passed = timers.idle.passed(counted, Some(deadline));
        let left = deadline.saturating_sub(counted.now_ns());
        if passed < left {
            return Step::Wait(Some(since.saturating_add(left)));
        }
        self.pass_idle(timers);
        match timers.take_due(counted.now_ns()) {
            Some(callback) => {
                timers.idle.firing = true;
                Step::Fire(callback)
            }
            None => Step::Wait(None),
        }
    }
}

/// Timers fired at most between two instructions.
const MAX_FIRED: u32 = 1000;
/// How long the guest is held up at most.
const MAX_WAIT_NS: u64 = 10_000_000;

/// What the clock's thread does next.
enum Step {
    Fire(Callback),
    /// Until this time of the host, if there is one.
    Wait(Option<u64>),
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
        let step = {
            // The clock must not be dropped while the lock is held: its drop only rings, so that is fine either way.
            let Some(clock) = clock.upgrade() else { return };
            let mut timers = queue.timers.lock();
            if std::mem::take(&mut timers.idle.firing) {
                queue.fired.notify_all();
            }
            let step = match clock.origin_ns() {
                None => Step::Wait(None),
                Some(_) if clock.counted.is_some() => clock.idle_step(&mut timers),
                Some(origin) => match timers.take_due(clock.now_ns()) {
                    Some(callback) => {
                        timers.idle.firing = true;
                        Step::Fire(callback)
                    }
                    None => Step::Wait(timers.next().map(|deadline| origin.wrapping_add(deadline))),
                },
            };
            if let Step::Wait(_) = step {
                queue.sleeping_for.store(timers.next().unwrap_or(u64::MAX), Ordering::SeqCst);
            }
            step
        };
        match step {
            Step::Fire(callback) => callback(),
            Step::Wait(until) => {
                // Times past the host's range never come.
                let until = until.filter(|t| *t < i64::MAX as u64);
                futex_wait_until(&queue.bell, bell, until);
                queue.sleeping_for.store(0, Ordering::SeqCst);
            }
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
            if let Some(counted) = &self.queue.counted {
                counted.shorten(deadline_ns);
            }
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

    /// What a timer has begun is done when the machine is looked at.
    #[test]
    fn settles() {
        let clock = VirtualClock::new();
        let (tx, rx) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        let inside = done.clone();
        let timer = clock.timer(move || {
            tx.send(()).unwrap();
            thread::sleep(Duration::from_millis(20));
            inside.store(true, Ordering::SeqCst);
        });
        clock.settle();
        timer.arm(0);
        clock.start();
        rx.recv().unwrap();
        clock.stop();
        clock.settle();
        assert!(done.load(Ordering::SeqCst));
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

    fn counted(sleep: bool) -> (Arc<VirtualClock>, &'static Counter) {
        let clock = VirtualClock::counted(Counting { shift: Some(3), sleep, align: false });
        let counter = clock.counter().unwrap();
        clock.start();
        (clock, counter)
    }

    #[test]
    fn time_passes_with_instructions() {
        let (clock, counter) = counted(true);
        clock.begin(1000);
        assert_eq!((clock.now_ns(), counter.left()), (0, 1000));
        counter.executed.store(100, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
        assert_eq!((clock.now_ns(), counter.left()), (800, 900));
        // A timer ends the turn where its time has come, not before.
        let (tx, rx) = mpsc::channel();
        let timer = clock.timer(move || tx.send(()).unwrap());
        timer.arm(1601);
        assert_eq!(counter.left(), 101);
        counter.executed.store(201, Ordering::Relaxed);
        assert!(counter.spent() && rx.try_recv().is_err());
        clock.spent();
        assert_eq!(rx.try_recv(), Ok(()));
        clock.begin(50);
        assert_eq!(counter.left(), 50);
        timer.arm(0);
        assert!(counter.spent());
    }

    #[test]
    fn idle_time_leaps_to_the_next_timer() {
        let (clock, counter) = counted(false);
        let (tx, rx) = mpsc::channel();
        let weak = Arc::downgrade(&clock);
        let timer = clock.timer(move || tx.send(weak.upgrade().unwrap().now_ns()).unwrap());
        timer.arm(3_600_000_000_000);
        assert!(rx.recv_timeout(Duration::from_millis(20)).is_err());
        clock.begin_idle(0);
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(3_600_000_000_000));
        clock.end_idle(1);
        assert_eq!((clock.now_ns(), counter.executed.load(Ordering::Relaxed)), (3_600_000_000_000, 0));
    }

    #[test]
    fn idle_time_passes_as_the_hosts_does() {
        let (clock, _) = counted(true);
        clock.begin_idle(0);
        thread::sleep(Duration::from_millis(5));
        clock.end_idle(1);
        let now = clock.now_ns();
        assert!(now >= 5_000_000);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now_ns(), now);
        // Not while the machine is stopped.
        clock.begin_idle(1);
        clock.stop();
        let held = clock.now_ns();
        thread::sleep(Duration::from_millis(5));
        clock.start();
        assert!(clock.now_ns() - held < 5_000_000);
        let (tx, rx) = mpsc::channel();
        let timer = clock.timer(move || tx.send(()).unwrap());
        timer.arm(held + 8_000_000);
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(()));
        clock.end_idle(2);
        assert!(clock.now_ns() >= held + 8_000_000);
    }

    #[test]
    fn the_rate_follows_the_host() {
        let clock = VirtualClock::counted(Counting { shift: None, sleep: true, align: false });
        let counter = clock.counter().unwrap();
        clock.start();
        // Some 10 million instructions in a second: 100 ns each, so 64 or 128 by turns.
        for _ in 0..60 {
            clock.begin(u64::MAX);
            thread::sleep(Duration::from_millis(10));
            counter.executed.fetch_add(100_000, Ordering::Relaxed);
            clock.spent();
        }
        let (guest, host) = (clock.now_ns(), clock.running_ns());
        assert!(guest > host / 2 && guest < host * 2, "{guest} {host}");
    }
}
