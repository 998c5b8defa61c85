//! Several devices on one interrupt line.

use parking_lot::Mutex;
use rhea_accel::{IrqLine, IrqSink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A line that is up while any of its inputs is: COM1 and COM3 on IRQ 4.
pub struct SharedIrq {
    line: IrqLine,
    levels: AtomicU32,
    inputs: Mutex<u32>,
}

impl SharedIrq {
    #[must_use]
    pub fn new(line: IrqLine) -> Arc<Self> {
        Arc::new(Self { line, levels: AtomicU32::new(0), inputs: Mutex::new(0) })
    }
    /// One more input, of at most 32; `None` when there are so many.
    #[must_use]
    pub fn input(self: &Arc<Self>) -> Option<IrqLine> {
        let mut inputs = self.inputs.lock();
        let pin = *inputs;
        *inputs = Some(pin + 1).filter(|_| pin < 32)?;
        Some(IrqLine::to_sink(self.clone(), pin))
    }
    fn note(&self, pin: u32, level: bool) {
        let bit = 1 << pin;
        if level {
            self.levels.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.levels.fetch_and(!bit, Ordering::AcqRel);
        }
    }
    fn level(&self) -> bool {
        self.levels.load(Ordering::Acquire) != 0
    }
}

impl IrqSink for SharedIrq {
    fn set_level(&self, pin: u32, level: bool) {
        self.note(pin, level);
        self.line.settle(|| self.level());
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.note(pin, level);
        self.line.import(self.level());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_input_raises() {
        let line = IrqLine::unconnected();
        let shared = SharedIrq::new(line.clone());
        let inputs: Vec<_> = std::iter::from_fn(|| shared.input()).collect();
        assert_eq!(inputs.len(), 32);
        inputs[0].raise();
        inputs[31].raise();
        inputs[0].lower();
        assert!(line.level());
        inputs[31].lower();
        assert!(!line.level());
    }
}
