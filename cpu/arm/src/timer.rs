//! The generic timer (DDI 0487 D12): one counter per machine clock, five timers per processor.

use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_clock::{Timer, VirtualClock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Counter frequency.
pub const FREQUENCY_HZ: u64 = 62_500_000;
const NS_PER_TICK: u64 = 1_000_000_000 / FREQUENCY_HZ;

/// CNT*_CTL bits.
pub mod ctl {
    pub const ENABLE: u32 = 1;
    pub const IMASK: u32 = 2;
    pub const ISTATUS: u32 = 4;
}

/// One of the timers of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum TimerId {
    /// CNTP: EL1 physical (PPI 14).
    Physical = 0,
    /// CNTV: virtual (PPI 11).
    Virtual = 1,
    /// CNTHP: EL2 physical (PPI 10).
    HypPhysical = 2,
    /// CNTHV: EL2 virtual (PPI 12).
    HypVirtual = 3,
    /// CNTPS: secure physical (PPI 13).
    SecurePhysical = 4,
}

impl TimerId {
    pub const ALL: [TimerId; 5] =
        [TimerId::Physical, TimerId::Virtual, TimerId::HypPhysical, TimerId::HypVirtual, TimerId::SecurePhysical];
}

#[derive(Default)]
struct State {
    ctl: u32,
    cval: u64,
    announced: bool,
    announcing: bool,
    /// The deadline that the clock was last given and has not yet reached: never later than that of the registers. Moving it
    /// back or turning the timer off leaves it: it then fires for nothing, which costs less than each change would.
    armed: Option<u64>,
}

/// What [`GenericTimers::save`] gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct TimerSaved {
    #[n(0)]
    pub ctl: [u32; 5],
    #[n(1)]
    pub cval: [u64; 5],
    #[n(2)]
    pub cntvoff: u64,
}

type Output = Box<dyn Fn(bool) + Send + Sync>;

/// The timers of one processor. Registers are accessed on its thread; deadlines fire on the clock's.
pub struct GenericTimers {
    clock: Arc<VirtualClock>,
    states: [Mutex<State>; 5],
    cntvoff: AtomicU64,
    outputs: [OnceLock<Output>; 5],
    deadlines: Vec<Timer>,
}

impl GenericTimers {
    pub fn new(clock: &Arc<VirtualClock>) -> Arc<GenericTimers> {
        Arc::new_cyclic(|weak: &Weak<GenericTimers>| GenericTimers {
            clock: clock.clone(),
            states: Default::default(),
            cntvoff: AtomicU64::new(0),
            outputs: Default::default(),
            deadlines: TimerId::ALL
                .iter()
                .map(|&id| {
                    let weak = weak.clone();
                    clock.timer(move || {
                        if let Some(timers) = weak.upgrade() {
                            timers.fired(id);
                        }
                    })
                })
                .collect(),
        })
    }
    pub fn clock(&self) -> &Arc<VirtualClock> {
        &self.clock
    }
    /// Where the interrupt of a timer goes (level); set once.
    pub fn set_output(&self, id: TimerId, output: Output) {
        // The first connection stays.
        let _ = self.outputs[id as usize].set(output);
    }

    /// CNTPCT.
    #[inline]
    pub fn physical_count(&self) -> u64 {
        self.clock.now_ns() / NS_PER_TICK
    }
    /// CNTVCT with the offset.
    #[inline]
    pub fn virtual_count(&self) -> u64 {
        self.physical_count().wrapping_sub(self.cntvoff())
    }
    #[inline]
    pub fn cntvoff(&self) -> u64 {
        self.cntvoff.load(Ordering::Relaxed)
    }
    pub fn set_cntvoff(&self, v: u64) {
        self.cntvoff.store(v, Ordering::Relaxed);
        self.update(TimerId::Virtual);
    }
    /// The counter a timer compares with.
    fn count(&self, id: TimerId) -> u64 {
        if id == TimerId::Virtual { self.virtual_count() } else { self.physical_count() }
    }

    pub fn ctl(&self, id: TimerId) -> u32 {
        let s = self.states[id as usize].lock();
        let due = s.ctl & ctl::ENABLE != 0 && self.count(id) >= s.cval;
        s.ctl | if due { ctl::ISTATUS } else { 0 }
    }
    pub fn set_ctl(&self, id: TimerId, v: u32) {
        self.change(id, |s| s.ctl = v & (ctl::ENABLE | ctl::IMASK));
    }
    pub fn cval(&self, id: TimerId) -> u64 {
        self.states[id as usize].lock().cval
    }
    pub fn set_cval(&self, id: TimerId, v: u64) {
        self.change(id, |s| s.cval = v);
    }
    /// TVAL: the low 32 bits of CVAL minus the counter; `offset` is what the view subtracts from the physical count (for EL1
    /// views of the EL2 virtual timer it is 0).
    pub fn tval(&self, id: TimerId) -> u64 {
        self.cval(id).wrapping_sub(self.count(id)) & 0xffff_ffff
    }
    pub fn set_tval(&self, id: TimerId, v: u64) {
        let cval = self.count(id).wrapping_add(v as i32 as i64 as u64);
        self.set_cval(id, cval);
    }

    /// The deadline of a timer was reached.
    fn fired(&self, id: TimerId) {
        self.states[id as usize].lock().armed = None;
        self.update(id);
    }

    /// Sets the output and the next deadline of a timer from its registers.
    fn update(&self, id: TimerId) {
        self.change(id, |_| ());
    }

    /// Changes the registers of a timer, then sets its output and deadline.
    fn change(&self, id: TimerId, f: impl FnOnce(&mut State)) {
        let n = id as usize;
        let mut s = self.states[n].lock();
        f(&mut s);
        loop {
            let on = s.ctl & (ctl::ENABLE | ctl::IMASK) == ctl::ENABLE;
            let mut level = false;
            if on {
                let physical = self.physical_count();
                let now = if id == TimerId::Virtual { physical.wrapping_sub(self.cntvoff()) } else { physical };
                level = now >= s.cval;
                if !level {
                    let ticks = physical.saturating_add(s.cval - now);
                    let deadline = ticks.saturating_mul(NS_PER_TICK);
                    if s.armed.is_none_or(|armed| armed > deadline) {
                        s.armed = Some(deadline);
                        self.deadlines[n].arm(deadline);
                    }
                }
            }
            // One thread at a time tells the output, with the lock released. Others wait for it: a guest that moved its
            // deadline must not find the interrupt still pending only because that thread does not get to run.
            if s.announcing {
                drop(s);
                std::thread::yield_now();
                s = self.states[n].lock();
                continue;
            }
            if s.announced == level {
                return;
            }
            s.announcing = true;
            drop(s);
            if let Some(output) = self.outputs[n].get() {
                output(level);
            }
            s = self.states[n].lock();
            s.announced = level;
            s.announcing = false;
        }
    }

    pub fn save(&self) -> TimerSaved {
        let mut saved = TimerSaved { cntvoff: self.cntvoff(), ..TimerSaved::default() };
        for (n, s) in self.states.iter().enumerate() {
            let s = s.lock();
            saved.ctl[n] = s.ctl;
            saved.cval[n] = s.cval;
        }
        saved
    }
    pub fn load(&self, saved: &TimerSaved) {
        let TimerSaved { ctl, cval, cntvoff } = saved;
        self.cntvoff.store(*cntvoff, Ordering::Relaxed);
        for id in TimerId::ALL {
            {
                let mut s = self.states[id as usize].lock();
                s.ctl = ctl[id as usize] & (ctl::ENABLE | ctl::IMASK);
                s.cval = cval[id as usize];
            }
            self.update(id);
        }
    }
    /// Power-on state: all timers off.
    pub fn reset(&self) {
        self.load(&TimerSaved::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn timers() -> (Arc<VirtualClock>, Arc<GenericTimers>, Arc<AtomicBool>) {
        let clock = VirtualClock::new();
        let timers = GenericTimers::new(&clock);
        let level = Arc::new(AtomicBool::new(false));
        let l = level.clone();
        timers.set_output(TimerId::Virtual, Box::new(move |on| l.store(on, Ordering::SeqCst)));
        (clock, timers, level)
    }

    #[test]
    fn level_follows_registers() {
        let (clock, t, level) = timers();
        clock.set_ns(16_000);
        assert_eq!(t.physical_count(), 1000);
        t.set_cval(TimerId::Virtual, 1000);
        assert!(!level.load(Ordering::SeqCst));
        t.set_ctl(TimerId::Virtual, 1);
        assert!(level.load(Ordering::SeqCst));
        assert_eq!(t.ctl(TimerId::Virtual), 5);
        t.set_ctl(TimerId::Virtual, 3);
        assert!(!level.load(Ordering::SeqCst), "masked");
        assert_eq!(t.ctl(TimerId::Virtual), 7);
        t.set_ctl(TimerId::Virtual, 1);
        t.set_cntvoff(500);
        assert!(!level.load(Ordering::SeqCst), "the offset moves it into the future");
        assert_eq!(t.tval(TimerId::Virtual), 500);
        t.set_tval(TimerId::Virtual, (-10i32) as u32 as u64);
        assert_eq!(t.cval(TimerId::Virtual), 490);
        assert!(level.load(Ordering::SeqCst));
        let saved = t.save();
        t.reset();
        assert!(!level.load(Ordering::SeqCst));
        t.load(&saved);
        assert!(level.load(Ordering::SeqCst));
        assert_eq!(t.save(), saved);
    }

    /// A deadline moved back leaves the earlier one standing, and the later one is met all the same.
    #[test]
    fn later_deadline() {
        let (clock, t, level) = timers();
        clock.start();
        t.set_tval(TimerId::Virtual, FREQUENCY_HZ / 1000);
        t.set_ctl(TimerId::Virtual, 1);
        t.set_tval(TimerId::Virtual, FREQUENCY_HZ / 50);
        let begin = std::time::Instant::now();
        while !level.load(Ordering::SeqCst) && begin.elapsed().as_secs() < 5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(level.load(Ordering::SeqCst));
        assert!(begin.elapsed().as_millis() >= 18);
        // And off means off.
        t.set_ctl(TimerId::Virtual, 0);
        t.set_tval(TimerId::Virtual, FREQUENCY_HZ / 1000);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(!level.load(Ordering::SeqCst));
    }

    #[test]
    fn fires_on_time() {
        let (clock, t, level) = timers();
        clock.start();
        t.set_tval(TimerId::Virtual, FREQUENCY_HZ / 200);
        t.set_ctl(TimerId::Virtual, 1);
        assert!(!level.load(Ordering::SeqCst));
        let begin = std::time::Instant::now();
        while !level.load(Ordering::SeqCst) && begin.elapsed().as_secs() < 5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(level.load(Ordering::SeqCst));
        assert!(begin.elapsed().as_millis() >= 4);
    }
}
