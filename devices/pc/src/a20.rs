//! The A20 gate: what masks bit 20 of the processor's physical addresses.

use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Who can open the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum A20Source {
    /// Bit 1 of the keyboard controller's output port.
    KeyboardController = 1,
    /// Bit 1 of port 0x92.
    Port92 = 2,
}

/// The gate, shared by its sources: A20 passes if any of them says so. The keyboard controller's output is high at power-on.
pub struct A20Gate {
    sources: AtomicU8,
    changed: RwLock<Option<Arc<dyn Fn(bool) + Send + Sync>>>,
}

impl A20Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { sources: AtomicU8::new(A20Source::KeyboardController as u8), changed: RwLock::new(None) })
    }
    /// Does address bit 20 pass?
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.sources.load(Ordering::Acquire) != 0
    }
    /// `callback` is told each change, on the thread that made it; the present state is not announced. It must not set the gate.
    pub fn on_change(&self, callback: impl Fn(bool) + Send + Sync + 'static) {
        *self.changed.write() = Some(Arc::new(callback));
    }
    /// What `source` says.
    #[must_use]
    pub fn source(&self, source: A20Source) -> bool {
        self.sources.load(Ordering::Acquire) & source as u8 != 0
    }
    /// Sets the output of one source.
    pub fn set(&self, source: A20Source, on: bool) {
        if self.source(source) == on {
            return;
        }
        let bit = source as u8;
        let old = if on {
            self.sources.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.sources.fetch_and(!bit, Ordering::AcqRel)
        };
        let now = if on { old | bit } else { old & !bit };
        if (old != 0) != (now != 0) {
            let changed = self.changed.read().clone();
            // Of several threads at once, each looks again, so that the last one told is the truth.
            while let Some(changed) = &changed {
                let now = self.enabled();
                changed(now);
                if self.enabled() == now {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn any_source_opens() {
        let gate = A20Gate::new();
        let told = Arc::new(Mutex::new(vec![]));
        let log = told.clone();
        gate.on_change(move |on| log.lock().push(on));
        assert!(gate.enabled());
        gate.set(A20Source::Port92, true);
        gate.set(A20Source::KeyboardController, false);
        assert!(gate.enabled());
        gate.set(A20Source::Port92, false);
        gate.set(A20Source::Port92, false);
        assert!(!gate.enabled());
        gate.set(A20Source::KeyboardController, true);
        assert_eq!(*told.lock(), [false, true]);
    }
}
