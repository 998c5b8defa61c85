//! High-precision event timers (IA-PC HPET specification 1.0a).

mod state;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_clock::{Timer, VirtualClock};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use state::{Abilities, Effect, IRQ0, IRQ8, State};
use std::sync::{Arc, Weak};

/// Interrupts come no faster than this, in ns.
const SHORTEST_WAIT_NS: u64 = 5_000;

/// How the timers are built.
#[derive(Clone)]
pub struct HpetOptions {
    /// 3 to 32.
    pub timers: u8,
    /// The I/O APIC inputs timers can be routed to, a bit for each.
    pub routes: u32,
    /// Where FSB interrupts go; none: the timers do not offer them.
    pub msi: Option<Arc<dyn MsiTarget>>,
}

impl Default for HpetOptions {
    /// 3 timers, inputs 2, 8 and 16 to 23, no FSB interrupts.
    fn default() -> Self {
        Self { timers: 3, routes: 0x00ff_0104, msi: None }
    }
}

/// The outputs of the timers.
pub struct HpetLines {
    /// I/O APIC inputs by number; those beyond are unconnected.
    pub inputs: Vec<IrqLine>,
    /// Timer 0 with legacy replacement: clones of the lines of the interval timer and the real-time clock.
    pub irq0: IrqLine,
    /// Timer 1 with legacy replacement.
    pub irq8: IrqLine,
    /// Told when legacy replacement is switched: the board blocks or unblocks the two devices ([`crate::Pit::set_irq_blocked`]).
    pub legacy: Box<dyn Fn(bool) + Send + Sync>,
}

/// The timers: a window of 1 KiB.
pub struct Hpet {
    name: String,
    abilities: Abilities,
    lines: HpetLines,
    msi: Option<Arc<dyn MsiTarget>>,
    clock: Arc<VirtualClock>,
    timer: Timer,
    log: Log,
    state: Mutex<State>,
}

impl Hpet {
    #[must_use]
    pub fn new(name: &str, options: HpetOptions, lines: HpetLines, clock: &Arc<VirtualClock>, log: Log) -> Arc<Self> {
        let abilities =
            Abilities { timers: options.timers.clamp(3, 32), routes: options.routes, fsb: options.msi.is_some() };
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let fired = weak.clone();
            let timer = clock.timer(move || {
                if let Some(hpet) = fired.upgrade() {
                    hpet.change(|_, _| ());
                }
            });
            Self {
                name: name.to_owned(),
                abilities,
                lines,
                msi: options.msi,
                clock: clock.clone(),
                timer,
                log,
                state: Mutex::new(State::new(abilities)),
            }
        })
    }
    /// The low half of the capabilities register: what the ACPI table calls the event timer block ID.
    #[must_use]
    pub fn block_id(&self) -> u32 {
        self.state.lock().read(0, 0, self.abilities) as u32
    }

    fn line(&self, bit: u32) -> Option<&IrqLine> {
        match bit {
            IRQ0 => Some(&self.lines.irq0),
            IRQ8 => Some(&self.lines.irq8),
            input => self.lines.inputs.get(input as usize),
        }
    }
    /// Changes the state at the present time, then makes the interrupts, with no lock held.
    fn change<R>(&self, f: impl FnOnce(&mut State, u64) -> R) -> R {
        let now = self.clock.now_ns();
        let mut effect = Effect::default();
        let (result, legacy, changed) = {
            let mut state = self.state.lock();
            let (was_legacy, before) = (state.legacy(), state.levels(self.abilities));
            state.catch_up(now, self.abilities, &mut effect);
            let result = f(&mut state, now);
            self.arm(&state);
            let legacy = (state.legacy() != was_legacy).then(|| state.legacy());
            (result, legacy, before ^ state.levels(self.abilities))
        };
        // Whose lines they are, before they are driven.
        if legacy == Some(true) {
            (self.lines.legacy)(true);
        }
        for (address, data) in effect.messages {
            if let Some(msi) = &self.msi {
                msi.send(MsiMessage { address: address.into(), data, requester_id: 0 });
            }
        }
        for bit in 0..=IRQ8 {
            let Some(line) = self.line(bit).filter(|_| (effect.edges | changed) >> bit & 1 != 0) else { continue };
            if effect.edges >> bit & 1 != 0 {
                line.raise();
            }
            line.settle(|| self.state.lock().levels(self.abilities) >> bit & 1 != 0);
        }
        if legacy == Some(false) {
            (self.lines.legacy)(false);
        }
        result
    }
    fn arm(&self, state: &State) {
        match state.next_event() {
            // The shortest periods would keep the host busy; matches that fall together are one.
            Some(at) => self.timer.arm(at.max(self.clock.now_ns().saturating_add(SHORTEST_WAIT_NS))),
            None => self.timer.cancel(),
        }
    }
}

/// The bits of a 64-bit register that an access touches.
fn mask(offset: u64, size: u8) -> u64 {
    let ones = if size >= 8 { u64::MAX } else { (1 << (size * 8)) - 1 };
    ones << (offset % 8 * 8)
}

impl MmioDevice for Hpet {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let register = offset & 0x3f8;
        let read = |state: &State, now| state.read(register, now, self.abilities);
        let value = match register {
            // The counter is polled.
            0x0f0 => read(&self.state.lock(), self.clock.now_ns()),
            // Comparators and the status depend on the matches so far.
            0x020 => self.change(|state, now| read(state, now)),
            0x100.. if register & 0x18 == 8 => self.change(|state, now| read(state, now)),
            _ => read(&self.state.lock(), 0),
        };
        Ok((value & mask(offset, access.size)) >> (offset % 8 * 8))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let register = offset & 0x3f8;
        if access.size < 4 {
            log_guest_error!(self.log, &self.name, "write of {} bytes at {offset:#x}", access.size);
        }
        let mask = mask(offset, access.size);
        self.change(|state, now| state.write(register, value << (offset % 8 * 8), mask, now, self.abilities));
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Device for Hpet {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.change(|state, _| *state = State::new(self.abilities));
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    /// The devices that legacy replacement blocks have that in their own saved state.
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        if !new.fits(self.abilities) {
            return Err(LoadError::Mismatch("another number of timers".to_owned()));
        }
        let levels = new.levels(self.abilities);
        {
            let mut state = self.state.lock();
            *state = new;
            self.arm(&state);
        }
        for bit in (0..=IRQ8).filter(|bit| levels >> bit & 1 != 0) {
            if let Some(line) = self.line(bit) {
                line.import(true);
            }
        }
        Ok(())
    }
}
