//! MC146818A real-time clock with 256 bytes of CMOS RAM (Motorola MC146818A data sheet; ICH9 data sheet, real-time clock).

mod calendar;
mod state;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_clock::{RtcClock, Timer, VirtualClock};
use rhea_device::{Device, LoadError, Log, Saved, log_unimp, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use state::{Now, State};
use std::sync::{Arc, Weak};

/// The cell with the century, which firmware tells in the FADT.
pub const CENTURY: u8 = 0x32;

/// The clock: ports 0x70 to 0x73 (index and data of the standard bank, index and data of all 256 bytes).
pub struct Rtc {
    name: String,
    irq8: IrqLine,
    rtc: RtcClock,
    clock: Arc<VirtualClock>,
    timer: Timer,
    log: Log,
    alarm: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    state: Mutex<State>,
}

impl Rtc {
    /// `rtc` is the wall clock of the machine, `clock` runs the timers.
    #[must_use]
    pub fn new(name: &str, irq8: IrqLine, rtc: RtcClock, clock: &Arc<VirtualClock>, log: Log) -> Arc<Self> {
        let device = Arc::new_cyclic(|weak: &Weak<Self>| {
            let fired = weak.clone();
            let timer = clock.timer(move || {
                if let Some(rtc) = fired.upgrade() {
                    rtc.change(|_, _| ());
                }
            });
            let clock = clock.clone();
            Self {
                name: name.to_owned(),
                irq8,
                rtc,
                clock,
                timer,
                log,
                alarm: Mutex::default(),
                state: Mutex::default(),
            }
        });
        let now = device.now();
        device.state.lock().begin(now);
        device
    }
    /// Fills a cell: what firmware finds (memory sizes, boot order, ...). The cells of the clock (0 to 0x0d) are not touched.
    pub fn set_cmos(&self, index: u8, value: u8) {
        if index > 0x0d {
            self.state.lock().cells[usize::from(index)] = value;
        }
    }
    /// A cell of the RAM.
    #[must_use]
    pub fn cmos(&self, index: u8) -> u8 {
        self.state.lock().cells[usize::from(index)]
    }
    /// Bit 7 of port 0x70: NMI does not reach the processor.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.state.lock().nmi_masked
    }
    /// While blocked (HPET legacy replacement) the clock lets go of `irq8`.
    pub fn set_irq_blocked(&self, blocked: bool) {
        let was = std::mem::replace(&mut self.state.lock().irq_blocked, blocked);
        if blocked && !was {
            self.irq8.lower();
        } else if was && !blocked {
            self.settle();
        }
    }

    /// `listener` is told when an enabled alarm goes off (the chipset's power management wakes by it).
    pub fn on_alarm(&self, listener: impl Fn() + Send + Sync + 'static) {
        *self.alarm.lock() = Some(Arc::new(listener));
    }

    fn now(&self) -> Now {
        let (seconds, nanos) = self.rtc.now();
        Now { wall_ns: i128::from(seconds) * 1_000_000_000 + i128::from(nanos), clock_ns: self.clock.now_ns() }
    }
    fn settle(&self) {
        self.irq8.settle(|| {
            let state = self.state.lock();
            if state.irq_blocked { self.irq8.level() } else { state.interrupt() }
        });
    }
    fn change<R>(&self, f: impl FnOnce(&mut State, Now) -> R) -> R {
        let now = self.now();
        let (result, alarm) = {
            let mut state = self.state.lock();
            let before = state.alarm();
            state.catch_up(now);
            let alarm = state.alarm() && !before;
            let result = f(&mut state, now);
            match state.next_event(now) {
                Some(at) => self.timer.arm(at),
                None => self.timer.cancel(),
            }
            (result, alarm)
        };
        self.settle();
        if alarm {
            let listener = self.alarm.lock().clone();
            if let Some(listener) = listener {
                listener();
            }
        }
        result
    }
    fn read_cell(&self, index: u8, access: Access) -> u8 {
        let now = self.now();
        if index != state::C {
            return self.state.lock().read(index, now);
        }
        if access.requester == Requester::Debugger {
            let mut copy = self.state.lock().clone();
            copy.catch_up(now);
            return copy.read_c();
        }
        self.change(|state, _| state.read_c())
    }
    fn write_cell(&self, index: u8, value: u8) {
        match index {
            0..=0x0d | CENTURY => {
                if index == state::B && value & state::DSE != 0 {
                    log_unimp!(self.log, &self.name, "daylight saving by the clock (register B, DSE)");
                }
                let (before, after) = self.change(|state, now| {
                    let before = state.ahead();
                    state.write(index, value, now);
                    (before, state.ahead())
                });
                if before != after {
                    self.rtc.changed(after);
                }
            }
            _ => self.state.lock().cells[usize::from(index)] = value,
        }
    }
}

impl MmioDevice for Rtc {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let (index, extended) = {
            let state = self.state.lock();
            (state.index, state.extended_index)
        };
        Ok(match offset & 3 {
            // The index is write-only.
            0 => 0xff,
            1 => self.read_cell(index, access),
            2 => extended,
            _ => self.read_cell(extended, access),
        }
        .into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let value = value as u8;
        match offset & 3 {
            0 => {
                let mut state = self.state.lock();
                state.index = value & 0x7f;
                state.nmi_masked = value & 0x80 != 0;
            }
            2 => self.state.lock().extended_index = value,
            port => {
                let index = {
                    let state = self.state.lock();
                    if port == 1 { state.index } else { state.extended_index }
                };
                self.write_cell(index, value);
            }
        }
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Rtc {
    fn name(&self) -> &str {
        &self.name
    }
    /// The battery keeps time and RAM.
    fn reset(&self) {
        self.state.lock().irq_blocked = false;
        self.change(|state, _| state.reset());
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        if new.cells.len() != 256 || !new.sane() {
            return Err(LoadError::Damaged("cells or times out of range".to_owned()));
        }
        let (level, blocked) = (new.interrupt(), new.irq_blocked);
        *self.state.lock() = new;
        if !blocked {
            self.irq8.import(level);
        }
        self.change(|_, _| ());
        Ok(())
    }
}
