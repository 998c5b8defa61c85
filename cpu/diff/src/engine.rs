//! What runs guest code.

use parking_lot::{Condvar, Mutex};
use rhea_jit::JitOptions;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    Interpreter,
    /// Generated code, one guest block at a time.
    Blocks,
    /// Generated code of optimised regions.
    Regions,
}

impl Engine {
    pub const ALL: [Engine; 3] = [Engine::Interpreter, Engine::Blocks, Engine::Regions];

    pub fn options(self) -> JitOptions {
        JitOptions {
            code_bytes: 64 << 20,
            hot_threshold: (self == Engine::Regions).then_some(2),
            interpret: self == Engine::Interpreter,
            background: false,
            counting: None,
        }
    }
    /// Times a program must run until its regions have been optimised and used.
    pub const fn runs(self) -> u32 {
        if matches!(self, Engine::Regions) { 4 } else { 1 }
    }
}

/// Says once that a program has ended.
#[derive(Default)]
pub struct Latch {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    pub fn close(&self) {
        *self.open.lock() = false;
    }
    pub fn open(&self) {
        *self.open.lock() = true;
        self.changed.notify_all();
    }
    /// Waits until it is open; panics after two minutes.
    pub fn wait(&self) {
        let mut open = self.open.lock();
        while !*open {
            let late = self.changed.wait_for(&mut open, Duration::from_secs(120)).timed_out();
            assert!(!late || *open, "the program does not end");
        }
    }
}
