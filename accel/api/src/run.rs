//! Start, pause and stop of a vCPU's thread: what the threads of all accelerators share.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Control {
    Paused,
    Running,
    Stopped,
}

/// What a vCPU's thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Run guest code.
    Run,
    /// Paused: do the work that waits, then ask again.
    Work,
    /// End.
    Stop,
}

/// What was asked of a vCPU's thread, and where it is; begins paused. No lock is held while `work` or `pending` of its methods
/// are called but its own: they may take locks that are never held around a call of its methods.
pub struct RunControl {
    /// Wanted, and told.
    control: Mutex<(Control, Control)>,
    /// Wakes the thread from its sleep or pause, and those who wait for it to be paused.
    changed: Condvar,
}

impl Default for RunControl {
    fn default() -> Self {
        Self { control: Mutex::new((Control::Paused, Control::Paused)), changed: Condvar::new() }
    }
}

impl RunControl {
    // ---- from any thread ----

    /// Wakes the thread if it sleeps: something that `work` or `pending` look at has changed before.
    pub fn wake(&self) {
        // The lock orders this against a sleeper that has looked and not yet slept.
        drop(self.control.lock());
        self.changed.notify_all();
    }
    /// Asks for a pause; the caller makes the thread leave guest code.
    pub fn request_pause(&self) {
        {
            let mut c = self.control.lock();
            if c.0 == Control::Running {
                c.0 = Control::Paused;
            }
        }
        self.changed.notify_all();
    }
    /// Waits until the thread is paused or has ended; false on timeout.
    pub fn wait_paused(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.map(|t| Instant::now() + t);
        let mut c = self.control.lock();
        while c.1 == Control::Running {
            match until {
                Some(t) => {
                    if self.changed.wait_until(&mut c, t).timed_out() {
                        return c.1 != Control::Running;
                    }
                }
                None => self.changed.wait(&mut c),
            }
        }
        true
    }
    /// Ends a pause.
    pub fn resume(&self) {
        {
            let mut c = self.control.lock();
            if c.0 == Control::Paused {
                // A later request to pause must wait for the thread to get there.
                *c = (Control::Running, Control::Running);
            }
        }
        self.changed.notify_all();
    }
    /// Asks the thread to end; the caller makes it leave guest code.
    pub fn request_stop(&self) {
        self.control.lock().0 = Control::Stopped;
        self.changed.notify_all();
    }

    // ---- from the vCPU's thread ----

    /// What to do next. While paused it waits until `work` says that there is some, or the pause ends.
    pub fn step(&self, work: impl Fn() -> bool) -> Step {
        let mut c = self.control.lock();
        loop {
            let (wanted, told) = *c;
            if wanted != told {
                c.1 = wanted;
                self.changed.notify_all();
            }
            match wanted {
                Control::Stopped => return Step::Stop,
                Control::Running => return Step::Run,
                Control::Paused if work() => return Step::Work,
                Control::Paused => self.changed.wait(&mut c),
            }
        }
    }
    /// Sleeps until `pending`, a request to pause or stop, or the time.
    pub fn sleep(&self, pending: impl Fn() -> bool, timeout: Option<Duration>) {
        let until = timeout.map(|t| Instant::now() + t);
        let mut c = self.control.lock();
        while c.0 == Control::Running && !pending() {
            match until {
                Some(t) => {
                    if self.changed.wait_until(&mut c, t).timed_out() {
                        return;
                    }
                }
                None => self.changed.wait(&mut c),
            }
        }
    }
    /// Is it to pause or to end, and has not got there?
    #[must_use]
    pub fn stopping(&self) -> bool {
        let (wanted, told) = *self.control.lock();
        wanted != Control::Running && told == Control::Running
    }
    /// Is the thread to go on in guest code?
    #[must_use]
    pub fn running(&self) -> bool {
        self.control.lock().0 == Control::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    #[test]
    fn pause_work_resume_stop() {
        let control = Arc::new(RunControl::default());
        let (work, done, ran) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let ran = Arc::new(ran);
        let thread = {
            let (control, work, done, ran) = (control.clone(), work.clone(), done.clone(), ran.clone());
            std::thread::spawn(move || {
                loop {
                    match control.step(|| work.load(SeqCst)) {
                        Step::Stop => return,
                        Step::Work => {
                            work.store(false, SeqCst);
                            done.fetch_add(1, SeqCst);
                        }
                        Step::Run => {
                            ran.fetch_add(1, SeqCst);
                            control.sleep(|| work.swap(false, SeqCst), None);
                        }
                    }
                }
            })
        };
        let wait = |what: &dyn Fn() -> bool| {
            while !what() {
                std::thread::yield_now();
            }
        };
        work.store(true, SeqCst);
        control.wake();
        wait(&|| done.load(SeqCst) == 1);
        assert_eq!(ran.load(SeqCst), 0);
        for round in 1..50 {
            control.resume();
            assert!(!control.wait_paused(Some(Duration::ZERO)));
            wait(&|| ran.load(SeqCst) >= round);
            control.request_pause();
            assert!(control.wait_paused(None) && !control.stopping());
        }
        control.resume();
        work.store(true, SeqCst);
        control.wake();
        control.request_stop();
        thread.join().unwrap();
        assert!(control.wait_paused(None));
    }
}
