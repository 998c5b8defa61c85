//! INTx: the wires shared by the functions of a bus.

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The wires of a root bus; each is up while any function drives it.
pub struct IntxLines {
    wires: Vec<(IrqLine, AtomicU32)>,
}

/// Pins of all devices of a bus.
pub const INTX_PINS: usize = 32 * 4;

impl IntxLines {
    /// Four wires, on which the pins are swizzled by the device number (PCI-to-PCI bridge specification 9.1).
    #[must_use]
    pub fn new(lines: [IrqLine; 4]) -> Arc<Self> {
        Arc::new(Self { wires: lines.into_iter().map(|l| (l, AtomicU32::new(0))).collect() })
    }
    /// A wire of its own for each pin of each device: `line` is given the device number and the pin (0 = INTA).
    #[must_use]
    pub fn of_pins(line: impl Fn(u8, u8) -> IrqLine) -> Arc<Self> {
        let pins = 0..INTX_PINS as u8;
        Arc::new(Self { wires: pins.map(|n| (line(n / 4, n % 4), AtomicU32::new(0))).collect() })
    }
    /// The wire of a pin (0 = INTA).
    fn wire(&self, device: u8, pin: u8) -> usize {
        let (device, pin) = (usize::from(device & 31), usize::from(pin & 3));
        if self.wires.len() == INTX_PINS { device * 4 + pin } else { (device + pin) % self.wires.len() }
    }
    fn change(&self, wire: usize, up: bool) {
        let Some((line, drivers)) = self.wires.get(wire) else { return };
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
