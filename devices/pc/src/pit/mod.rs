//! 8254 programmable interval timer and port 0x61 (Intel 8254 data sheet; ICH9 data sheet, NMI_SC).

mod counter;
#[cfg(test)]
mod tests;

use counter::Counter;
use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_clock::{Timer, VirtualClock};
use rhea_device::{Device, LoadError, Saved, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::{Arc, Weak};

/// The input clock in Hz.
pub const PIT_HZ: u64 = 1_193_182;
/// The period of the refresh toggle of port 0x61 (half a cycle), in ns.
const REFRESH_NS: u64 = 15_085;
/// Interrupts come no faster than this, in ns.
const SHORTEST_WAIT_NS: u64 = 5_000;
const NS: u128 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct State {
    #[n(0)]
    counters: [Counter; 3],
    /// The next event of counter 0: its tick and whether OUT rises.
    #[n(1)]
    next: Option<(i64, bool)>,
    #[n(2)]
    irq_blocked: bool,
    /// Port 0x61: bits 0 to 3.
    #[n(3)]
    port61: u8,
    /// OUT of counter 0 as of the last event, which is what the line is told.
    #[n(4)]
    out: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            counters: [Counter::default(), Counter::default(), Counter::with_gate(false)],
            next: None,
            irq_blocked: false,
            port61: 0,
            out: false,
        }
    }
}

impl State {
    /// What happened to counter 0 until `now`; true if its OUT rose.
    fn catch_up(&mut self, now: i64) -> bool {
        let mut rose = false;
        // Rises and falls alternate: two events tell whether there was a rise, however late it is; and a load may come first.
        for _ in 0..4 {
            let Some((tick, rise)) = self.next.filter(|(tick, _)| *tick <= now) else { break };
            self.counters[0].advance(tick);
            rose |= rise;
            self.next = self.counters[0].next_event(tick);
        }
        self.counters[0].advance(now);
        if self.next.is_some_and(|(tick, _)| tick <= now) {
            self.next = self.counters[0].next_event(now);
        }
        rose
    }
}

/// The timer: four ports. Its counters run from the virtual clock.
pub struct Pit {
    name: String,
    irq0: IrqLine,
    clock: Arc<VirtualClock>,
    timer: Timer,
    state: Mutex<State>,
}

fn ticks(ns: u64) -> i64 {
    (u128::from(ns) * u128::from(PIT_HZ) / NS) as i64
}

/// The first time in ns that is in `tick`.
fn time_of(tick: i64) -> u64 {
    u64::try_from((tick.max(0) as u128 * NS).div_ceil(u128::from(PIT_HZ))).unwrap_or(u64::MAX)
}

impl Pit {
    /// `irq0` is driven by OUT of counter 0.
    #[must_use]
    pub fn new(name: &str, irq0: IrqLine, clock: &Arc<VirtualClock>) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let fired = weak.clone();
            let timer = clock.timer(move || {
                if let Some(pit) = fired.upgrade() {
                    pit.change(|_, _| ());
                }
            });
            Self { name: name.to_owned(), irq0, clock: clock.clone(), timer, state: Mutex::default() }
        })
    }
    /// Port 0x61, which has the gate and the output of counter 2.
    #[must_use]
    pub fn system_control_b(self: &Arc<Self>) -> Arc<SystemControlB> {
        Arc::new(SystemControlB { pit: self.clone() })
    }
    /// While blocked (HPET legacy replacement) the timer lets go of `irq0`.
    pub fn set_irq_blocked(&self, blocked: bool) {
        let was = std::mem::replace(&mut self.state.lock().irq_blocked, blocked);
        if blocked && !was {
            self.irq0.lower();
        } else if was && !blocked {
            self.change(|_, _| ());
        }
    }
    /// The frequency in Hz that counter 2 puts on the speaker, if it does.
    #[must_use]
    pub fn speaker_hz(&self) -> Option<u64> {
        let now = self.now();
        let mut state = self.state.lock();
        let on = state.port61 & 3 == 3;
        let counter = &mut state.counters[2];
        counter.advance(now);
        counter.square_wave().filter(|_| on).map(|period| PIT_HZ / u64::from(period))
    }

    fn now(&self) -> i64 {
        ticks(self.clock.now_ns())
    }
    fn arm(&self, state: &State) {
        match state.next {
            // The fastest counts would keep the host busy; edges that fall together are one.
            Some((tick, _)) if !state.irq_blocked => {
                self.timer.arm(time_of(tick).max(self.clock.now_ns().saturating_add(SHORTEST_WAIT_NS)));
            }
            _ => self.timer.cancel(),
        }
    }
    /// Changes the state at the present tick, then drives the line and the timer.
    fn change<R>(&self, f: impl FnOnce(&mut State, i64) -> R) -> R {
        let now = self.now();
        let (result, rose, blocked) = {
            let mut state = self.state.lock();
            let rose = state.catch_up(now);
            let result = f(&mut state, now);
            state.next = state.counters[0].next_event(now);
            state.out = state.counters[0].level(now);
            self.arm(&state);
            (result, rose, state.irq_blocked)
        };
        if rose && !blocked {
            self.irq0.lower();
            self.irq0.raise();
        }
        self.irq0.settle(|| {
            let state = self.state.lock();
            if state.irq_blocked { self.irq0.level() } else { state.out }
        });
        result
    }
}

impl MmioDevice for Pit {
    fn read(&self, offset: u64, _access: Access) -> Result<u64, BusError> {
        let now = self.now();
        let mut state = self.state.lock();
        Ok(match state.counters.get_mut((offset & 3) as usize) {
            // Loading its count is an event of counter 0, which is the timer's.
            Some(counter) => counter.read(now).into(),
            // The control word cannot be read.
            None => 0,
        })
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let value = value as u8;
        self.change(|state, now| {
            if let Some(counter) = state.counters.get_mut((offset & 3) as usize) {
                counter.write(value, now);
                return;
            }
            let select = usize::from(value >> 6);
            if let Some(counter) = state.counters.get_mut(select) {
                if value & 0x30 == 0 {
                    counter.latch_count(now)
                } else {
                    counter.set_control(value)
                }
                return;
            }
            // Read-back: the bits that say what is latched are active low.
            for (i, counter) in state.counters.iter_mut().enumerate() {
                if value & 2 << i == 0 {
                    continue;
                }
                if value & 0x20 == 0 {
                    counter.latch_count(now);
                }
                if value & 0x10 == 0 {
                    counter.latch_status(now);
                }
            }
        });
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Pit {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.timer.cancel();
        *self.state.lock() = State::default();
        self.irq0.lower();
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        if !new.counters.iter().all(Counter::sane) {
            return Err(LoadError::Damaged("a count is out of range".to_owned()));
        }
        if new.next.is_some_and(|(tick, _)| tick.unsigned_abs() >= 1 << 62) {
            return Err(LoadError::Damaged("an event is out of range".to_owned()));
        }
        let (level, blocked) = (new.out, new.irq_blocked);
        {
            let mut state = self.state.lock();
            *state = new;
            self.arm(&state);
        }
        if !blocked {
            self.irq0.import(level);
        }
        Ok(())
    }
}

/// Port 0x61: one byte. Its state is saved with the timer's.
pub struct SystemControlB {
    pit: Arc<Pit>,
}

const SPEAKER_GATE: u8 = 1 << 0;
const REFRESH: u8 = 1 << 4;
const TIMER2_OUT: u8 = 1 << 5;

impl MmioDevice for SystemControlB {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        let ns = self.pit.clock.now_ns();
        let mut state = self.pit.state.lock();
        let mut value = state.port61;
        if ns / REFRESH_NS & 1 != 0 {
            value |= REFRESH;
        }
        let now = ticks(ns);
        state.counters[2].advance(now);
        if state.counters[2].level(now) {
            value |= TIMER2_OUT;
        }
        Ok(value.into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let now = self.pit.now();
        let mut state = self.pit.state.lock();
        state.port61 = value as u8 & 0x0f;
        let gate = state.port61 & SPEAKER_GATE != 0;
        state.counters[2].set_gate(gate, now);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        "port61"
    }
}
