//! Human interface devices (HID 1.11): keyboard, mouse, tablet.

mod keyboard;
mod pointer;

use crate::descriptor::{Descriptors, EndpointKind, EndpointSpec, InterfaceSpec, Outcome, Standard};
use crate::{Answer, Setup, Speed, Stall, Transfer, UsbDevice, Wake};
use keyboard::Keyboard;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use pointer::Pointer;
use rhea_clock::{Timer, VirtualClock};
use rhea_device::LoadError;
use rhea_pc::InputHub;
use rhea_pc::input::{InputConsumer, InputEvent, InputHandle, InputKinds, Leds};
use std::sync::{Arc, OnceLock, Weak};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HidKind {
    Keyboard,
    Mouse,
    /// A pointer with absolute positions.
    Tablet,
}

/// The only endpoint: reports.
const REPORTS: u8 = 0x81;
/// Units of the idle rate.
const IDLE_NS: u64 = 4_000_000;

/// Class requests (7.2) and descriptor types (7.1).
mod class {
    pub const GET_REPORT: u8 = 1;
    pub const GET_IDLE: u8 = 2;
    pub const GET_PROTOCOL: u8 = 3;
    pub const SET_REPORT: u8 = 9;
    pub const SET_IDLE: u8 = 10;
    pub const SET_PROTOCOL: u8 = 11;
    pub const HID: u8 = 0x21;
    pub const REPORT: u8 = 0x22;
    pub const INPUT: u16 = 1;
    pub const OUTPUT: u16 = 2;
}

#[derive(Clone, Debug, Encode, Decode)]
enum Source {
    #[n(0)]
    Keyboard(#[n(0)] Keyboard),
    #[n(1)]
    Pointer(#[n(0)] Pointer),
}

#[derive(Clone, Debug, Encode, Decode)]
struct State {
    #[n(0)]
    standard: Standard,
    /// The protocol of chapter B, which firmware uses.
    #[n(1)]
    boot: bool,
    /// Units of 4 ms after which a report is repeated; 0: never.
    #[n(2)]
    idle: u8,
    /// It is time to repeat.
    #[n(3)]
    due: bool,
    #[n(4)]
    source: Source,
}

impl State {
    fn new(kind: HidKind, speed: Speed) -> Self {
        let (source, idle) = match kind {
            // 500 ms (7.2.4).
            HidKind::Keyboard => (Source::Keyboard(Keyboard::default()), 125),
            HidKind::Mouse => (Source::Pointer(Pointer::new(false)), 0),
            HidKind::Tablet => (Source::Pointer(Pointer::new(true)), 0),
        };
        Self { standard: Standard::new(speed), boot: false, idle, due: false, source }
    }
    fn leds(&self) -> Leds {
        match &self.source {
            Source::Keyboard(k) => k.leds(),
            Source::Pointer(_) => Leds::empty(),
        }
    }
    /// The report as it stands.
    fn current(&self) -> Vec<u8> {
        match &self.source {
            Source::Keyboard(k) => k.report().to_vec(),
            Source::Pointer(p) => p.report(self.boot),
        }
    }
    /// The report for the host, if there is something to tell.
    fn next(&mut self) -> Option<Vec<u8>> {
        let report = match &mut self.source {
            Source::Keyboard(k) => k.next().map(|r| r.to_vec()),
            Source::Pointer(p) => p.next(self.boot),
        };
        report.or_else(|| self.due.then(|| self.current()))
    }
    /// What [`Self::next`] would give needs no more than this.
    fn size(&self) -> u64 {
        match &self.source {
            Source::Keyboard(_) => 8,
            Source::Pointer(p) => p.size(self.boot),
        }
    }
}

/// A keyboard, mouse or tablet.
pub struct Hid {
    name: &'static str,
    kind: HidKind,
    descriptors: Descriptors,
    state: Mutex<State>,
    wake: OnceLock<Wake>,
    input: InputHandle,
    clock: Arc<VirtualClock>,
    /// Repeats the report.
    repeat: Timer,
}

impl Hid {
    /// A device that takes input from the hub. `serial` is for its serial number string.
    #[must_use]
    pub fn new(kind: HidKind, serial: &str, input: &Arc<InputHub>, clock: &Arc<VirtualClock>) -> Arc<Self> {
        let (name, kinds, protocol) = match kind {
            HidKind::Keyboard => ("USB keyboard", InputKinds::KEYS, 1),
            HidKind::Mouse => ("USB mouse", InputKinds::RELATIVE, 2),
            HidKind::Tablet => ("USB tablet", InputKinds::ABSOLUTE, 0),
        };
        let len = report_descriptor(kind).len() as u16;
        let [l0, l1] = len.to_le_bytes();
        let descriptors = Descriptors {
            vendor: 0x0627,
            product: 0x0001,
            device_class: 0,
            strings: ["Rhea".to_owned(), name.to_owned(), serial.to_owned()],
            self_powered: false,
            remote_wakeup: true,
            most: Speed::High,
            interface: InterfaceSpec {
                class: 3,
                subclass: u8::from(protocol != 0),
                protocol,
                extra: vec![9, class::HID, 0x11, 0x01, 0, 1, class::REPORT, l0, l1],
                // Asked every 10 ms; 2^6 microframes, which is 8 ms.
                endpoints: vec![EndpointSpec {
                    address: REPORTS,
                    kind: EndpointKind::Interrupt,
                    packet: [8; 3],
                    interval: [10, 7, 7],
                }],
            },
        };
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let consumer: Weak<dyn InputConsumer> = weak.clone();
            let fired = weak.clone();
            Self {
                name,
                kind,
                descriptors,
                state: Mutex::new(State::new(kind, Speed::High)),
                wake: OnceLock::new(),
                input: input.attach(name, kinds, consumer),
                clock: clock.clone(),
                repeat: clock.timer(move || {
                    if let Some(device) = fired.upgrade() {
                        device.state.lock().due = true;
                        device.wake_up();
                    }
                }),
            }
        })
    }
    fn wake_up(&self) {
        if let Some(wake) = self.wake.get() {
            wake(REPORTS);
        }
    }
    fn arm(&self, idle: u8) {
        if idle > 0 {
            self.repeat.arm(self.clock.now_ns().saturating_add(u64::from(idle) * IDLE_NS));
        } else {
            self.repeat.cancel();
        }
    }
    fn class(&self, s: &mut State, setup: &Setup, data: &mut Vec<u8>) -> Result<(), Stall> {
        let [low, high] = setup.value.to_le_bytes();
        let bootable = self.kind != HidKind::Tablet;
        match (setup.kind, setup.request) {
            (0x81, 6) if high == class::REPORT && low == 0 => *data = report_descriptor(self.kind).to_vec(),
            (0x81, 6) if high == class::HID && low == 0 => data.clone_from(&self.descriptors.interface.extra),
            (0xa1, class::GET_REPORT) if setup.value == class::INPUT << 8 => *data = s.current(),
            (0xa1, class::GET_REPORT) if setup.value == class::OUTPUT << 8 => match &s.source {
                Source::Keyboard(k) => *data = vec![k.lights],
                Source::Pointer(_) => return Err(Stall),
            },
            (0x21, class::SET_REPORT) if setup.value == class::OUTPUT << 8 => match (&mut s.source, data.first()) {
                (Source::Keyboard(k), Some(lights)) => k.lights = *lights & 0x1f,
                _ => return Err(Stall),
            },
            (0xa1, class::GET_IDLE) if low == 0 => *data = vec![s.idle],
            (0x21, class::SET_IDLE) if low == 0 => {
                s.idle = high;
                s.due = false;
            }
            (0xa1, class::GET_PROTOCOL) if bootable => *data = vec![u8::from(!s.boot)],
            (0x21, class::SET_PROTOCOL) if bootable && setup.value < 2 => s.boot = setup.value == 0,
            _ => return Err(Stall),
        }
        if setup.to_host() {
            data.truncate(setup.length.into());
        }
        Ok(())
    }
}

impl InputConsumer for Hid {
    fn input(&self, events: &[InputEvent]) {
        {
            let s = &mut *self.state.lock();
            if s.standard.configuration == 0 {
                return;
            }
            match &mut s.source {
                Source::Keyboard(k) => k.input(events),
                Source::Pointer(p) => p.input(events),
            }
        }
        self.wake_up();
    }
}

impl UsbDevice for Hid {
    fn name(&self) -> &str {
        self.name
    }
    fn speeds(&self) -> &[Speed] {
        &[Speed::Full, Speed::High]
    }
    fn attach(&self, wake: Wake) {
        // Once, when it is put at its port.
        let _ = self.wake.set(wake);
    }
    fn reset(&self, speed: Speed) {
        self.repeat.cancel();
        *self.state.lock() = State::new(self.kind, speed);
        self.input.set_leds(Leds::empty());
        self.input.deactivate();
    }
    fn control(&self, setup: &Setup, data: &mut Vec<u8>) -> Result<(), Stall> {
        let (outcome, leds, idle) = {
            let s = &mut *self.state.lock();
            let outcome = s.standard.request(&self.descriptors, setup, data)?;
            if outcome == Outcome::Other {
                self.class(s, setup, data)?;
            }
            if let Outcome::Configured(_) = outcome {
                let standard = s.standard;
                *s = State { standard, ..State::new(self.kind, standard.speed) };
            }
            (outcome, s.leds(), s.idle)
        };
        match outcome {
            Outcome::Configured(0) => self.input.deactivate(),
            Outcome::Configured(_) => self.input.activate(),
            Outcome::Other if setup.kind == 0x21 && setup.request == class::SET_REPORT => self.input.set_leds(leds),
            Outcome::Other if setup.kind == 0x21 && setup.request == class::SET_IDLE => self.arm(idle),
            _ => {}
        }
        Ok(())
    }
    fn transfer(&self, transfer: Transfer) -> Answer {
        let (report, idle) = {
            let s = &mut *self.state.lock();
            if s.standard.configuration == 0 {
                return Answer::Silent;
            }
            if transfer.endpoint != REPORTS || s.standard.halted(REPORTS) {
                return Answer::Stall;
            }
            let room = transfer.buffer.len() >= s.size();
            match s.next() {
                None => return Answer::Nak,
                Some(_) if !room => return Answer::Babble,
                Some(report) => {
                    s.due = false;
                    (report, s.idle)
                }
            }
        };
        self.arm(idle);
        match transfer.buffer.put(&report) {
            Ok(()) => Answer::Done(report.len() as u64),
            Err(e) => e.into(),
        }
    }
    fn may_wake(&self) -> bool {
        self.state.lock().standard.remote_wakeup
    }
    fn save(&self) -> Vec<u8> {
        // Encoding into a vector does not fail.
        minicbor::to_vec(&*self.state.lock()).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let new: State = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        let good = match (&new.source, self.kind) {
            (Source::Keyboard(k), HidKind::Keyboard) => k.sane(),
            (Source::Pointer(p), HidKind::Mouse | HidKind::Tablet) => p.sane(self.kind == HidKind::Tablet),
            _ => false,
        };
        if !good {
            return Err(LoadError::Mismatch(format!("{}: it is another device's", self.name)));
        }
        let (leds, idle, configured) = (new.leds(), new.idle, new.standard.configuration != 0);
        *self.state.lock() = new;
        self.input.set_leds(leds);
        if configured {
            self.input.activate();
        }
        self.arm(if configured { idle } else { 0 });
        Ok(())
    }
}

fn report_descriptor(kind: HidKind) -> &'static [u8] {
    match kind {
        HidKind::Keyboard => keyboard::DESCRIPTOR,
        HidKind::Mouse => pointer::MOUSE,
        HidKind::Tablet => pointer::TABLET,
    }
}
