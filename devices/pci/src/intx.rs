//! INTx: four wires shared by all functions of a bus.

use parking_lot::Mutex;
use rhea_accel::IrqLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The four wires of a root bus; each is up while any function drives it.
pub struct IntxLines {
    lines: [IrqLine; 4],
    drivers: [AtomicU32; 4],
}

impl IntxLines {
    #[must_use]
    pub fn new(lines: [IrqLine; 4]) -> Arc<Self> {
        Arc::new(Self { lines, drivers: Default::default() })
    }
    fn change(&self, wire: usize, up: bool) {
        let (drivers, line) = (&self.drivers[wire & 3], &self.lines[wire & 3]);
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
    /// Pin `pin` (1 = INTA to 4 = INTD) of device `device`: the wire is swizzled by the device number (PCI-to-PCI bridge
    /// specification 9.1).
    #[must_use]
    pub fn new(lines: Arc<IntxLines>, device: u8, pin: u8) -> Self {
        Self { lines, wire: (usize::from(device) + usize::from(pin.saturating_sub(1))) % 4, state: Mutex::default() }
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
