//! The log of `-d ITEMS -D FILE`: cheap to hold, silent unless asked for, each message once.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The items of `-d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LogMask {
    /// `unimp`: the guest used what is not implemented.
    Unimp = 1,
    /// `guest_errors`: the guest did what the specification forbids.
    GuestErrors = 2,
    /// `int`: exceptions and interrupts.
    Int = 4,
    /// `op`: intermediate code.
    Op = 16,
    /// `jit`: code that was made.
    Jit = 8,
    /// `irqchip`: another interrupt controller becomes active.
    Irqchip = 32,
    /// `vfio`: transitions of assigned devices.
    Vfio = 64,
    /// `cpu_reset`: registers before a reset.
    CpuReset = 128,
}

impl LogMask {
    /// All items with their `-d` word and meaning.
    pub const ALL: &'static [(LogMask, &'static str, &'static str)] = &[
        (LogMask::Unimp, "unimp", "log unimplemented functionality"),
        (LogMask::GuestErrors, "guest_errors", "log when the guest does something invalid"),
        (LogMask::Int, "int", "show interrupts and exceptions"),
        (LogMask::Op, "op", "show intermediate code for each translated region"),
        (LogMask::Jit, "jit", "show each block and region that code is made for"),
        (LogMask::Irqchip, "irqchip", "show changes of the active interrupt controller"),
        (LogMask::Vfio, "vfio", "show what becomes of interrupts and resets of assigned devices"),
        (LogMask::CpuReset, "cpu_reset", "show CPU state before CPU resets"),
    ];
}

/// At most this many distinct messages are remembered; further new ones are dropped, so that a guest cannot fill memory or disk.
const MAX_DISTINCT: usize = 4096;

struct Inner {
    mask: AtomicU32,
    seen: Mutex<HashSet<String>>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Inner {
    fn on(&self, item: LogMask) -> bool {
        self.mask.load(Ordering::Relaxed) & item as u32 != 0
    }
}

/// A cheap cloneable handle to the log.
#[derive(Clone)]
pub struct Log {
    inner: Option<Arc<Inner>>,
}

impl Log {
    /// Logs nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { inner: None }
    }
    /// Logs the items of `mask` (bits of [`LogMask`]) to `out`.
    #[must_use]
    pub fn new(mask: u32, out: Box<dyn Write + Send>) -> Self {
        let mask = AtomicU32::new(mask);
        Self { inner: Some(Arc::new(Inner { mask, seen: Mutex::new(HashSet::new()), out: Mutex::new(out) })) }
    }
    #[inline]
    #[must_use]
    pub fn enabled(&self, item: LogMask) -> bool {
        self.inner.as_ref().is_some_and(|i| i.on(item))
    }
    /// Switches an item on or off for all who hold this log, except for those who looked once at their start.
    pub fn set(&self, item: LogMask, on: bool) {
        let Some(inner) = &self.inner else { return };
        if on {
            inner.mask.fetch_or(item as u32, Ordering::Relaxed);
        } else {
            inner.mask.fetch_and(!(item as u32), Ordering::Relaxed);
        }
    }
    /// Writes a line, each time.
    pub fn line(&self, item: LogMask, message: fmt::Arguments<'_>) {
        if let Some(inner) = self.inner.as_ref().filter(|i| i.on(item)) {
            let mut out = inner.out.lock();
            // A full disk must not stop the machine.
            let _ = writeln!(out, "{message}");
            let _ = out.flush();
        }
    }
    fn once(&self, item: LogMask, who: &str, message: fmt::Arguments<'_>) {
        if let Some(inner) = self.inner.as_ref().filter(|i| i.on(item)) {
            let text = format!("{who}: {message}");
            {
                let mut seen = inner.seen.lock();
                if seen.len() >= MAX_DISTINCT || !seen.insert(text.clone()) {
                    return;
                }
            }
            let _ = writeln!(inner.out.lock(), "{text}");
        }
    }
    /// The guest used what device `who` does not implement. Logged once per distinct message; leave values that vary without end
    /// out of the message.
    pub fn unimp(&self, who: &str, message: fmt::Arguments<'_>) {
        self.once(LogMask::Unimp, who, message);
    }
    /// The guest did to device `who` what the specification forbids. Logged once per distinct message.
    pub fn guest_error(&self, who: &str, message: fmt::Arguments<'_>) {
        self.once(LogMask::GuestErrors, who, message);
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::off()
    }
}

/// `log_unimp!(log, "pl011", "register {:#x}", offset)`
#[macro_export]
macro_rules! log_unimp {
    ($log:expr, $who:expr, $($arg:tt)*) => { $log.unimp($who, format_args!($($arg)*)) };
}

/// `log_guest_error!(log, "pl011", "write to read-only register {:#x}", offset)`
#[macro_export]
macro_rules! log_guest_error {
    ($log:expr, $who:expr, $($arg:tt)*) => { $log.guest_error($who, format_args!($($arg)*)) };
}
