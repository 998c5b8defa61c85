//! The external interrupt input of a processor, which both controllers drive.

use rhea_accel::IrqLine;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// Up while any of up to eight drivers wants it.
pub struct ServerPin {
    line: IrqLine,
    drivers: AtomicU8,
}

impl ServerPin {
    #[must_use]
    pub fn new(line: IrqLine) -> Self {
        Self { line, drivers: AtomicU8::new(0) }
    }
    /// Driver `n` (0 to 7) wants what `level` computes. Threads that do so at once cannot leave a stale level behind.
    pub fn drive(&self, n: u8, level: impl Fn() -> bool) {
        let bit = 1u8 << (n & 7);
        loop {
            let up = level();
            if (self.drivers.load(SeqCst) & bit != 0) != up {
                if up {
                    self.drivers.fetch_or(bit, SeqCst);
                } else {
                    self.drivers.fetch_and(!bit, SeqCst);
                }
                self.line.settle(|| self.drivers.load(SeqCst) != 0);
            }
            if level() == up {
                return;
            }
        }
    }
}
