//! 16550A UART (PC16550D data sheet).

mod spec;
mod state;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_clock::{Timer, VirtualClock};
use rhea_device::chardev::{CharBackend, CharEvent, CharFrontend};
use rhea_device::{Device, LoadError, Saved, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use spec::{DEPTH, Fcr, Ier, Lcr, Lsr, Mcr, Msr};
use state::{Effect, State};
use std::sync::{Arc, Weak};

/// The wiring of a UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartOptions {
    /// The input clock in Hz, 16 times the baud rate of divisor 1.
    pub clock_hz: u32,
    /// Registers are `1 << register_shift` bytes apart (at most 3): 0 at I/O ports.
    pub register_shift: u8,
}

impl Default for UartOptions {
    fn default() -> Self {
        Self { clock_hz: 1_843_200, register_shift: 0 }
    }
}

/// I/O port and ISA interrupt of COM1 to COM4.
pub const COM_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// The UART: a window of 8 registers. Its interrupt output is not gated by OUT2.
pub struct Uart16550 {
    name: String,
    options: UartOptions,
    line: IrqLine,
    backend: Arc<dyn CharBackend>,
    clock: Arc<VirtualClock>,
    timeout: Timer,
    state: Mutex<State>,
}

/// What the back end feeds; weak, since the UART holds the back end.
struct Input(Weak<Uart16550>);

impl CharFrontend for Input {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |uart| uart.state.lock().room())
    }
    fn receive(&self, data: &[u8]) {
        if let Some(uart) = self.0.upgrade() {
            uart.change(|state, effect| data.iter().for_each(|byte| state.receive(*byte, Lsr::empty(), effect)));
        }
    }
    fn event(&self, event: CharEvent) {
        if let (CharEvent::Break, Some(uart)) = (event, self.0.upgrade()) {
            uart.change(|state, effect| {
                if !state.loopback() {
                    state.receive(0, Lsr::BI | Lsr::FE, effect);
                }
            });
        }
    }
}

impl Uart16550 {
    /// A UART whose serial line is `backend`; `clock` runs the receive time-out.
    #[must_use]
    pub fn new(
        name: &str,
        options: UartOptions,
        line: IrqLine,
        backend: Arc<dyn CharBackend>,
        clock: &Arc<VirtualClock>,
    ) -> Arc<Self> {
        let uart = Arc::new_cyclic(|weak: &Weak<Self>| {
            let timed_out = weak.clone();
            let timeout = clock.timer(move || {
                if let Some(uart) = timed_out.upgrade() {
                    uart.change(|state, _| state.quiet());
                }
            });
            Self {
                name: name.to_owned(),
                options: UartOptions { register_shift: options.register_shift.min(3), ..options },
                line,
                backend: backend.clone(),
                clock: clock.clone(),
                timeout,
                state: Mutex::default(),
            }
        });
        backend.set_frontend(Arc::new(Input(Arc::downgrade(&uart))));
        uart
    }
    /// The size of the window in bytes.
    #[must_use]
    pub fn window(&self) -> u64 {
        8 << self.options.register_shift
    }

    /// Changes the state and then does what follows from it, with no lock held.
    fn change<R>(&self, f: impl FnOnce(&mut State, &mut Effect) -> R) -> R {
        let mut effect = Effect::default();
        let (result, timeout) = {
            let mut state = self.state.lock();
            (f(&mut state, &mut effect), state.timeout_ns(self.options.clock_hz))
        };
        if let Some(byte) = effect.sent {
            self.backend.write(&[byte]);
        }
        if effect.send_break {
            self.backend.send_break();
        }
        if effect.timeout {
            self.timeout.arm(self.clock.now_ns().saturating_add(timeout));
        }
        self.line.settle(|| self.state.lock().interrupt());
        if effect.room {
            self.backend.accept_input();
        }
        result
    }
    /// The register at `offset`; `None` between registers.
    fn register(&self, offset: u64) -> Option<u8> {
        let shift = self.options.register_shift;
        (offset & ((1 << shift) - 1) == 0).then_some((offset >> shift & 7) as u8)
    }
}

impl MmioDevice for Uart16550 {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let Some(register) = self.register(offset) else { return Ok(0) };
        {
            let mut state = self.state.lock();
            if state.pure(register) {
                return Ok(state.read(register, &mut Effect::default()).into());
            }
            if access.requester == Requester::Debugger {
                // Looks at a copy: reading takes a character or clears status.
                return Ok(state.clone().read(register, &mut Effect::default()).into());
            }
        }
        Ok(self.change(|state, effect| state.read(register, effect)).into())
    }
    fn write(&self, offset: u64, value: u64, _access: Access) -> Result<(), BusError> {
        if let Some(register) = self.register(offset) {
            self.change(|state, effect| state.write(register, value as u8, effect));
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

/// Saved state, version 1.
#[derive(minicbor::Encode, minicbor::Decode)]
struct SavedV1 {
    /// Byte and errors of each character.
    #[n(0)]
    rx: Vec<(u8, u8)>,
    #[n(1)]
    rbr: u8,
    #[n(2)]
    ier: u8,
    #[n(3)]
    fcr: u8,
    #[n(4)]
    lcr: u8,
    #[n(5)]
    framed: bool,
    #[n(6)]
    mcr: u8,
    #[n(7)]
    errors: u8,
    #[n(8)]
    msr: u8,
    #[n(9)]
    scr: u8,
    #[n(10)]
    divisor: u16,
    #[n(11)]
    thre: bool,
    #[n(12)]
    timed_out: bool,
}

impl Device for Uart16550 {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.timeout.cancel();
        self.change(|state, effect| {
            *state = State::default();
            effect.room = true;
        });
    }
    fn save(&self) -> Saved {
        let s = self.state.lock().clone();
        saved::encode(
            1,
            &SavedV1 {
                rx: s.rx.iter().map(|(byte, errors)| (*byte, errors.bits())).collect(),
                rbr: s.rbr,
                ier: s.ier.bits(),
                fcr: s.fcr.bits(),
                lcr: s.lcr.bits(),
                framed: s.framed,
                mcr: s.mcr.bits(),
                errors: s.errors.bits(),
                msr: s.msr.bits(),
                scr: s.scr,
                divisor: s.divisor,
                thre: s.thre,
                timed_out: s.timed_out,
            },
        )
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let s: SavedV1 = saved::decode(state, 1)?;
        if s.rx.len() > DEPTH {
            return Err(LoadError::Damaged("FIFO out of range".to_owned()));
        }
        let new = State {
            rx: s.rx.iter().map(|(byte, errors)| (*byte, Lsr::from_bits_retain(*errors) & Lsr::CHARACTER)).collect(),
            rbr: s.rbr,
            ier: Ier::from_bits_truncate(s.ier),
            fcr: Fcr::from_bits_truncate(s.fcr),
            lcr: Lcr::from_bits_retain(s.lcr),
            framed: s.framed,
            mcr: Mcr::from_bits_truncate(s.mcr),
            errors: Lsr::from_bits_retain(s.errors) & Lsr::ERRORS,
            msr: Msr::from_bits_retain(s.msr),
            scr: s.scr,
            divisor: s.divisor,
            thre: s.thre,
            timed_out: s.timed_out,
        };
        let level = new.interrupt();
        let timeout = (!new.rx.is_empty() && new.fifo_enabled()).then(|| new.timeout_ns(self.options.clock_hz));
        *self.state.lock() = new;
        self.line.import(level);
        if let Some(ns) = timeout {
            self.timeout.arm(self.clock.now_ns().saturating_add(ns));
        }
        self.backend.accept_input();
        Ok(())
    }
}
