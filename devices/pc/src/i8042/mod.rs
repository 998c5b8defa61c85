//! The keyboard controller with a PS/2 keyboard and mouse (Intel 8042; IBM Personal System/2 Hardware Interface Technical
//! Reference, keyboard and auxiliary device controller).

mod state;
#[cfg(test)]
mod tests;

use crate::input::{InputConsumer, InputEvent, InputHandle, InputKinds};
use crate::{A20Gate, A20Source, InputHub};
use parking_lot::Mutex;
use rhea_accel::{IrqLine, ShutdownCause, VmControl};
use rhea_clock::{Timer, VirtualClock};
use rhea_device::{Device, LoadError, Log, Saved, log_unimp, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use state::{Effect, State};
use std::sync::{Arc, Weak};

/// What the controller is wired to.
pub struct I8042Wiring {
    /// Keyboard interrupt.
    pub irq1: IrqLine,
    /// Mouse interrupt.
    pub irq12: IrqLine,
    pub a20: Arc<A20Gate>,
    /// Reset pulses go here.
    pub control: VmControl,
    /// Where keyboard and mouse get their input.
    pub input: Arc<InputHub>,
}

/// The controller: port 0x60 ([`Self::data_port`]) and port 0x64 ([`Self::command_port`]).
pub struct I8042 {
    name: String,
    wiring: I8042Wiring,
    keyboard: InputHandle,
    /// Keeps the mouse in the hub.
    _mouse: InputHandle,
    clock: Arc<VirtualClock>,
    /// Repeats the key that is held.
    repeat: Timer,
    log: Log,
    state: Mutex<State>,
}

impl I8042 {
    /// Keyboard and mouse attach to the hub.
    #[must_use]
    pub fn new(name: &str, wiring: I8042Wiring, clock: &Arc<VirtualClock>, log: Log) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let fired = weak.clone();
            let repeat = clock.timer(move || {
                if let Some(controller) = fired.upgrade() {
                    controller.change(|state, effect| {
                        state.keyboard.repeat();
                        effect.repeat_after = state.keyboard.repeats().then(|| state.keyboard.period_ns());
                    });
                }
            });
            let consumer: Weak<dyn InputConsumer> = weak.clone();
            let keyboard = wiring.input.attach("PS/2 keyboard", InputKinds::KEYS, consumer.clone());
            let mouse = wiring.input.attach("PS/2 mouse", InputKinds::RELATIVE, consumer);
            Self {
                name: name.to_owned(),
                wiring,
                keyboard,
                _mouse: mouse,
                clock: clock.clone(),
                repeat,
                log,
                state: Mutex::default(),
            }
        })
    }
    /// Port 0x60: one byte.
    #[must_use]
    pub fn data_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Port { controller: self.clone(), command: false })
    }
    /// Port 0x64: one byte.
    #[must_use]
    pub fn command_port(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Port { controller: self.clone(), command: true })
    }

    /// Changes the state and then does what follows from it, with no lock held.
    fn change<R>(&self, f: impl FnOnce(&mut State, &mut Effect) -> R) -> R {
        let mut effect = Effect::default();
        let result = f(&mut self.state.lock(), &mut effect);
        if effect.taken {
            // Each byte makes an edge of its own.
            self.settle();
        }
        let leds = {
            let mut state = self.state.lock();
            state.fill();
            state.keyboard.leds()
        };
        self.settle();
        self.wiring.a20.set(A20Source::KeyboardController, self.state.lock().a20());
        self.keyboard.set_leds(leds);
        if let Some(ns) = effect.repeat_after {
            self.repeat.arm(self.clock.now_ns().saturating_add(ns));
        }
        if let Some(command) = effect.unknown {
            log_unimp!(self.log, &self.name, "command {command:#x}");
        }
        if effect.reset {
            self.wiring.control.reset(ShutdownCause::Guest);
        }
        result
    }
    fn settle(&self) {
        self.wiring.irq1.settle(|| self.state.lock().irq1());
        self.wiring.irq12.settle(|| self.state.lock().irq12());
    }
}

impl InputConsumer for I8042 {
    fn input(&self, events: &[InputEvent]) {
        self.change(|state, effect| {
            for event in events {
                if let InputEvent::Key { code, down } = *event
                    && state.keyboard.key(code, down)
                {
                    effect.repeat_after = Some(state.keyboard.delay_ns());
                }
            }
            state.mouse.input(events);
        });
    }
}

struct Port {
    controller: Arc<I8042>,
    /// Port 0x64.
    command: bool,
}

impl MmioDevice for Port {
    fn read(&self, _offset: u64, access: Access) -> Result<u64, BusError> {
        if self.command {
            return Ok(self.controller.state.lock().status().into());
        }
        if access.requester == Requester::Debugger {
            return Ok(self.controller.state.lock().peek().into());
        }
        Ok(self.controller.change(State::read_data).into())
    }
    fn write(&self, _offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        let value = value as u8;
        self.controller.change(|state, effect| {
            if self.command { state.write_command(value, effect) } else { state.write_data(value, effect) }
        });
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        crate::BYTES
    }
    fn name(&self) -> &str {
        &self.controller.name
    }
}

impl Device for I8042 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.repeat.cancel();
        self.change(|state, _| *state = State::default());
    }
    fn save(&self) -> Saved {
        saved::encode(1, &*self.state.lock())
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let new: State = saved::decode(state, 1)?;
        if !new.sane() {
            return Err(LoadError::Damaged("a buffer is out of range".to_owned()));
        }
        let (irq1, irq12) = (new.irq1(), new.irq12());
        *self.state.lock() = new;
        self.wiring.irq1.import(irq1);
        self.wiring.irq12.import(irq12);
        self.change(|state, effect| {
            effect.repeat_after = state.keyboard.repeats().then(|| state.keyboard.period_ns());
        });
        Ok(())
    }
}
