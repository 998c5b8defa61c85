//! PrimeCell UART (PL011, ARM DDI 0183).

mod spec;
mod state;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use rhea_clock::{Timer, VirtualClock};
use rhea_device::chardev::{CharBackend, CharEvent, CharFrontend};
use rhea_device::{Device, LoadError, Log, Saved, log_guest_error, log_unimp, state as saved};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use spec::{Cr, DEPTH, Int, LcrH, MAP, Tcr};
use state::{Effect, State};
use std::sync::{Arc, Weak};

/// The UART: a 4 KiB window, one combined interrupt (UARTINTR), UARTCLK at 24 MHz.
pub struct Pl011 {
    name: String,
    line: IrqLine,
    backend: Arc<dyn CharBackend>,
    clock: Arc<VirtualClock>,
    timeout: Timer,
    log: Log,
    state: Mutex<State>,
}

/// What the back end feeds; weak, since the UART holds the back end.
struct Input(Weak<Pl011>);

impl CharFrontend for Input {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |uart| uart.state.lock().room())
    }
    fn receive(&self, data: &[u8]) {
        if let Some(uart) = self.0.upgrade() {
            uart.change(|state, effect| data.iter().for_each(|byte| state.receive((*byte).into(), effect)));
        }
    }
    fn event(&self, event: CharEvent) {
        if let (CharEvent::Break, Some(uart)) = (event, self.0.upgrade()) {
            uart.change(|state, effect| {
                if !state.cr.contains(Cr::LBE) {
                    state.receive(spec::dr::BE, effect);
                }
            });
        }
    }
}

impl Pl011 {
    /// A UART whose serial line is `backend`.
    #[must_use]
    pub fn new(
        name: &str,
        line: IrqLine,
        backend: Arc<dyn CharBackend>,
        clock: &Arc<VirtualClock>,
        log: Log,
    ) -> Arc<Self> {
        let uart = Arc::new_cyclic(|weak: &Weak<Self>| {
            let timed_out = weak.clone();
            let timeout = clock.timer(move || {
                if let Some(uart) = timed_out.upgrade() {
                    uart.change(|state, _| state.timed_out());
                }
            });
            Self {
                name: name.to_owned(),
                line,
                backend: backend.clone(),
                clock: clock.clone(),
                timeout,
                log,
                state: Mutex::default(),
            }
        });
        backend.set_frontend(Arc::new(Input(Arc::downgrade(&uart))));
        uart
    }

    /// Changes the state and then does what follows from it, with no lock held.
    fn change<R>(&self, f: impl FnOnce(&mut State, &mut Effect) -> R) -> R {
        let mut effect = Effect::default();
        let (result, timeout) = {
            let mut state = self.state.lock();
            (f(&mut state, &mut effect), state.timeout_ns())
        };
        if !effect.sent.is_empty() {
            self.backend.write(&effect.sent);
        }
        if effect.send_break {
            self.backend.send_break();
        }
        if effect.dma {
            log_unimp!(self.log, &self.name, "DMA requests: the board has no DMA controller");
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
}

impl MmioDevice for Pl011 {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let missed = |at: u64| log_guest_error!(self.log, &self.name, "read of offset {at:#x}");
        if access.requester == Requester::Debugger {
            // Looks at a copy: reading the data register takes a character.
            let mut copy = self.state.lock().clone();
            return MAP.read(
                offset,
                access.size,
                |hit| Ok(copy.read(hit.id, hit.index, &mut Effect::default())),
                missed,
            );
        }
        if offset & !3 == 0 || offset & !3 == 0x8c {
            return self.change(|state, effect| {
                MAP.read(offset, access.size, |hit| Ok(state.read(hit.id, hit.index, effect)), missed)
            });
        }
        // The other registers have no effect when read; the flags are polled.
        let mut state = self.state.lock();
        MAP.read(offset, access.size, |hit| Ok(state.read(hit.id, hit.index, &mut Effect::default())), missed)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.change(|state, effect| {
            MAP.write(
                offset,
                access.size,
                value,
                |hit, value, mask| {
                    state.write(hit.id, value, mask, effect);
                    Ok(())
                },
                |at| log_guest_error!(self.log, &self.name, "write of offset {at:#x}"),
            )
        })
    }
    fn rules(&self) -> AccessRules {
        AccessRules::ANY
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Saved state, version 1.
#[derive(minicbor::Encode, minicbor::Decode)]
struct SavedV1 {
    #[n(0)]
    rx: Vec<u16>,
    #[n(1)]
    tx: Vec<u8>,
    #[n(2)]
    rsr: u8,
    #[n(3)]
    ilpr: u8,
    #[n(4)]
    ibrd: u16,
    #[n(5)]
    fbrd: u8,
    #[n(6)]
    divisor: u32,
    #[n(7)]
    lcr_h: u8,
    #[n(8)]
    cr: u16,
    #[n(9)]
    programmed: bool,
    #[n(10)]
    ifls: u8,
    #[n(11)]
    imsc: u16,
    #[n(12)]
    ris: u16,
    #[n(13)]
    dmacr: u8,
    #[n(14)]
    tcr: u8,
    #[n(15)]
    itip: u8,
    #[n(16)]
    itop: u16,
    #[n(17)]
    overrun: bool,
    #[n(18)]
    framed: bool,
}

impl Device for Pl011 {
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
                rx: s.rx.into(),
                tx: s.tx.into(),
                rsr: s.rsr,
                ilpr: s.ilpr,
                ibrd: s.ibrd,
                fbrd: s.fbrd,
                divisor: s.divisor,
                lcr_h: s.lcr_h.bits(),
                cr: s.cr.bits(),
                programmed: s.programmed,
                ifls: s.ifls,
                imsc: s.imsc.bits(),
                ris: s.ris.bits(),
                dmacr: s.dmacr,
                tcr: s.tcr.bits(),
                itip: s.itip,
                itop: s.itop,
                overrun: s.overrun,
                framed: s.framed,
            },
        )
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let s: SavedV1 = saved::decode(state, 1)?;
        if s.rx.len() > DEPTH || s.tx.len() > DEPTH || s.divisor >= 1 << 22 {
            return Err(LoadError::Damaged("FIFO or divisor out of range".to_owned()));
        }
        let new = State {
            rx: s.rx.into(),
            tx: s.tx.into(),
            rsr: s.rsr,
            ilpr: s.ilpr,
            ibrd: s.ibrd,
            fbrd: s.fbrd & 0x3f,
            divisor: s.divisor,
            lcr_h: LcrH::from_bits_retain(s.lcr_h),
            cr: Cr::from_bits_truncate(s.cr),
            programmed: s.programmed,
            ifls: s.ifls & 0x3f,
            imsc: Int::from_bits_truncate(s.imsc),
            ris: Int::from_bits_truncate(s.ris),
            dmacr: s.dmacr & 7,
            tcr: Tcr::from_bits_truncate(s.tcr),
            itip: s.itip,
            itop: s.itop,
            overrun: s.overrun,
            framed: s.framed,
        };
        let level = new.interrupt();
        let timeout = (!new.rx.is_empty() && new.fifo_enabled()).then(|| new.timeout_ns());
        *self.state.lock() = new;
        self.line.import(level);
        if let Some(ns) = timeout {
            self.timeout.arm(self.clock.now_ns().saturating_add(ns));
        }
        self.backend.accept_input();
        Ok(())
    }
}
