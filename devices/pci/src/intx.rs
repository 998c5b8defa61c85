//! INTx: the wires shared by the functions of a bus.

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The wires of a host bridge; each is up while any function drives it.
struct Wires(Vec<(IrqLine, AtomicU32)>);

/// Where the interrupt pins of a bus's devices lead.
pub struct IntxLines {
    wires: Arc<Wires>,
    /// The wire of each pin of each device.
    routes: [u8; INTX_PINS],
}

/// Pins of all devices of a bus.
pub const INTX_PINS: usize = 32 * 4;

fn wires(lines: impl Iterator<Item = IrqLine>) -> Arc<Wires> {
    Arc::new(Wires(lines.map(|l| (l, AtomicU32::new(0))).collect()))
}

impl IntxLines {
    /// Four wires, on which the pins are swizzled by the device number (PCI-to-PCI bridge specification 9.1).
    #[must_use]
    pub fn new(lines: [IrqLine; 4]) -> Arc<Self> {
        let routes = std::array::from_fn(|n| ((n / 4 + n % 4) % 4) as u8);
        Arc::new(Self { wires: wires(lines.into_iter()), routes })
    }
    /// A wire of its own for each pin of each device: `line` is given the device number and the pin (0 = INTA).
    #[must_use]
    pub fn of_pins(line: impl Fn(u8, u8) -> IrqLine) -> Arc<Self> {
        let pins = 0..INTX_PINS as u8;
        Arc::new(Self { wires: wires(pins.map(|n| line(n / 4, n % 4))), routes: std::array::from_fn(|n| n as u8) })
    }
    /// The pins behind a bridge, which is device `device` on the bus with the pins `above`.
    #[must_use]
    pub fn behind(above: &Self, device: u8) -> Arc<Self> {
        let routes = std::array::from_fn(|n| above.routes[usize::from(device & 31) * 4 + (n / 4 + n % 4) % 4]);
        Arc::new(Self { wires: above.wires.clone(), routes })
    }
    /// The wire of a pin (0 = INTA).
    fn wire(&self, device: u8, pin: u8) -> usize {
        usize::from(self.routes[usize::from(device & 31) * 4 + usize::from(pin & 3)])
    }
    /// The level the wire of a device's pin (0 = INTA) has now.
    #[must_use]
    pub fn level(&self, device: u8, pin: u8) -> bool {
        self.wires.0.get(self.wire(device, pin)).is_some_and(|(line, _)| line.level())
    }
    fn change(&self, wire: usize, up: bool) {
        let Some((line, drivers)) = self.wires.0.get(wire) else { return };
        if up {
            drivers.fetch_add(1, Ordering::SeqCst);
        } else {
            drivers.fetch_sub(1, Ordering::SeqCst);
        }
        // Whoever comes last sees the final count, so the line ends up right whatever the order of two racing calls.
        loop {
            let level = drivers.load(Ordering::SeqCst) > 0;
            line.set(level);
            if level == (drivers.load(Ordering::SeqCst) > 0) {
                break;
            }
        }
    }
}

#[derive(Default)]
struct PinState {
    /// What the function wants.
    asserted: bool,
    /// Command.InterruptDisable.
    disabled: bool,
    /// What the wire gets.
    driven: bool,
}

/// One function's interrupt pin.
pub struct IntxPin {
    lines: Arc<IntxLines>,
    wire: usize,
    state: Mutex<PinState>,
}

impl IntxPin {
    /// Pin `pin` (1 = INTA to 4 = INTD) of device `device`.
    #[must_use]
    pub fn new(lines: Arc<IntxLines>, device: u8, pin: u8) -> Self {
        let wire = lines.wire(device, pin.saturating_sub(1));
        Self { lines, wire, state: Mutex::default() }
    }
    fn update(&self, f: impl FnOnce(&mut PinState)) {
        let change = {
            let mut s = self.state.lock();
            f(&mut s);
            let drive = s.asserted && !s.disabled;
            (std::mem::replace(&mut s.driven, drive) != drive).then_some(drive)
        };
        if let Some(up) = change {
            self.lines.change(self.wire, up);
        }
    }
    /// The wire, which other functions may share.
    #[must_use]
    pub fn line(&self) -> Option<&IrqLine> {
        self.lines.wires.0.get(self.wire).map(|(line, _)| line)
    }
    pub fn set(&self, asserted: bool) {
        self.update(|s| s.asserted = asserted);
    }
    /// Status.InterruptStatus.
    #[must_use]
    pub fn asserted(&self) -> bool {
        self.state.lock().asserted
    }
    pub(crate) fn set_disabled(&self, disabled: bool) {
        self.update(|s| s.disabled = disabled);
    }
}

impl Drop for IntxPin {
    fn drop(&mut self) {
        self.set(false);
    }
}
