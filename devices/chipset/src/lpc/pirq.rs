//! PCI interrupt routing: pins of devices to PIRQA–H, those to the IO-APIC's inputs 16–23 and to ISA interrupts of the 8259s.
//!
//! Each pin is a numbered line of the machine's [`InterruptRouting`], whose route says which PIRQ it is on: who watches the routing
//! learns of every reprogramming.

use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_accel::{InterruptRouting, IrqLine, IrqSink, Route};
use std::sync::{Arc, Weak};

/// The number of the first pin's line: device 0, INTA. A device has four.
pub const PIN_LINES: u32 = 0x100;
const PINS: usize = rhea_pci_pins();
const fn rhea_pci_pins() -> usize {
    32 * 4
}
/// The first of the IO-APIC's inputs for PIRQs.
pub const FIRST_GSI: u32 = 16;
pub const PIRQS: usize = 8;

/// The line of a pin (0 = INTA) of a device.
#[must_use]
pub fn pin_line(routing: &InterruptRouting, device: u8, pin: u8) -> IrqLine {
    routing.line(PIN_LINES + u32::from(device & 31) * 4 + u32::from(pin & 3))
}

/// Levels are the lines' own; nothing else is kept.
#[derive(Encode, Decode)]
pub struct PirqState {
    /// Levels of the pins, a bit each, as two words.
    #[n(0)]
    levels: [u64; 2],
}

struct Inner {
    /// The PIRQ of each pin.
    pins: [u8; PINS],
    /// Which pins are up.
    levels: u128,
    /// The ISA interrupt of each PIRQ.
    pic: [Option<u8>; PIRQS],
}

impl Inner {
    fn level(&self, pirq: usize) -> bool {
        (0..PINS).any(|p| self.levels >> p & 1 != 0 && usize::from(self.pins[p]) == pirq)
    }
    fn pic_level(&self, irq: usize) -> bool {
        (0..PIRQS).any(|p| self.pic[p].map(usize::from) == Some(irq) && self.level(p))
    }
}

/// The router.
pub struct Pirq {
    inner: Mutex<Inner>,
    routing: Arc<InterruptRouting>,
    gsis: Vec<IrqLine>,
    pic: Vec<IrqLine>,
    me: Weak<Pirq>,
}

/// Device 0–24 pins are on PIRQE–H, turned by the device number; those of the chipset's own devices (25–31) on PIRQA–D, as the
/// reset values of the root complex registers say; of the PCI bridge (30) on PIRQE–H.
fn fixed(device: usize, pin: usize) -> u8 {
    match device {
        0..=24 => 4 + ((device + pin) % 4) as u8,
        30 => 4 + pin as u8,
        _ => pin as u8,
    }
}

impl Pirq {
    pub(super) fn new(routing: Arc<InterruptRouting>, pic: Vec<IrqLine>) -> Arc<Self> {
        let gsis = (0..PIRQS as u32).map(|n| routing.line(FIRST_GSI + n)).collect();
        let mut pins = [0; PINS];
        for (n, pirq) in pins.iter_mut().enumerate() {
            *pirq = fixed(n / 4, n % 4);
        }
        let router = Arc::new_cyclic(|me| Self {
            inner: Mutex::new(Inner { pins, levels: 0, pic: [None; PIRQS] }),
            routing,
            gsis,
            pic,
            me: me.clone(),
        });
        for (n, pirq) in pins.into_iter().enumerate() {
            router.route(n, pirq);
        }
        router
    }
    fn route(&self, pin: usize, pirq: u8) {
        if let Some(me) = self.me.upgrade() {
            let sink: Arc<dyn IrqSink> = me;
            let route = Route { sink, pin: pin as u32 * 8 + u32::from(pirq) };
            self.routing.set_route(PIN_LINES + pin as u32, Some(route));
        }
    }
    /// The PIRQ (0 = A) a pin (0 = INTA) of a device is on.
    #[must_use]
    pub fn pirq_of(&self, device: u8, pin: u8) -> u8 {
        self.inner.lock().pins[usize::from(device & 31) * 4 + usize::from(pin & 3)]
    }
    /// The PIRQs of a device's pins, from its interrupt route register.
    pub(super) fn set_device(&self, device: u8, pirqs: [u8; 4]) {
        for (n, pirq) in pirqs.into_iter().enumerate() {
            let pin = usize::from(device & 31) * 4 + n;
            let changed = {
                let mut inner = self.inner.lock();
                std::mem::replace(&mut inner.pins[pin], pirq & 7) != pirq & 7
            };
            if changed {
                self.route(pin, pirq & 7);
                self.drive();
            }
        }
    }
    /// The ISA interrupts of PIRQA–H.
    pub(super) fn set_pic_routes(&self, routes: [Option<u8>; PIRQS]) {
        let (old, pins) = {
            let mut inner = self.inner.lock();
            (std::mem::replace(&mut inner.pic, routes), inner.pins)
        };
        if old == routes {
            return;
        }
        self.drive();
        for (pin, pirq) in pins.into_iter().enumerate() {
            let n = usize::from(pirq);
            if old[n] != routes[n] {
                // The pin ends elsewhere in 8259 mode: announced by routing it again.
                self.route(pin, pirq);
            }
        }
    }
    /// Sets the outputs to what the pins say.
    fn drive(&self) {
        for (n, line) in self.gsis.iter().enumerate() {
            self.settle(line, |i| i.level(n));
        }
        for (n, line) in self.pic.iter().enumerate() {
            self.settle(line, |i| i.pic_level(n));
        }
    }
    /// Whoever comes last sees the final levels, so that the line ends up right whatever the order of two racing calls.
    fn settle(&self, line: &IrqLine, level: impl Fn(&Inner) -> bool) {
        loop {
            let up = level(&self.inner.lock());
            line.set(up);
            if up == level(&self.inner.lock()) {
                break;
            }
        }
    }
    pub(super) fn save(&self) -> PirqState {
        let levels = self.inner.lock().levels;
        PirqState { levels: [levels as u64, (levels >> 64) as u64] }
    }
    /// The devices' pins are restored by the devices, as imports; this makes the outputs right whatever the order.
    pub(super) fn load(&self, state: PirqState) {
        let PirqState { levels } = state;
        self.inner.lock().levels = u128::from(levels[0]) | u128::from(levels[1]) << 64;
        self.drive();
    }
    /// The text of `info irq` for PCI.
    #[must_use]
    pub fn describe(&self) -> String {
        let inner = self.inner.lock();
        (0..PIRQS)
            .map(|n| {
                let isa = inner.pic[n].map_or_else(|| "-".to_owned(), |i| i.to_string());
                let name = char::from(b'A' + n as u8);
                format!("PIRQ{name}: GSI {} ISA {isa} level {}\n", 16 + n, u8::from(inner.level(n)))
            })
            .collect()
    }
}

impl IrqSink for Pirq {
    fn set_level(&self, pin: u32, level: bool) {
        let (pin, pirq) = ((pin / 8) as usize, usize::from(pin as u8 & 7));
        let isa = {
            let mut inner = self.inner.lock();
            if pin >= PINS {
                return;
            }
            inner.levels = inner.levels & !(1 << pin) | u128::from(level) << pin;
            inner.pic[pirq]
        };
        self.settle(&self.gsis[pirq], |i| i.level(pirq));
        if let Some(line) = isa.and_then(|n| self.pic.get(usize::from(n))) {
            let n = usize::from(isa.unwrap_or(0));
            self.settle(line, |i| i.pic_level(n));
        }
    }
    /// The ISA interrupt if the PIRQ is routed to one, which is an input of the I/O APIC as well; else its own input there.
    fn passes_to(&self, pin: u32) -> Option<IrqLine> {
        let pirq = usize::from(pin as u8 & 7);
        let isa = self.inner.lock().pic[pirq];
        Some(isa.map_or_else(|| self.gsis[pirq].clone(), |n| self.routing.line(u32::from(n))))
    }
}
