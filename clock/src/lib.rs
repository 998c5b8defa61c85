//! Time: the virtual clock that stops with the VM, timers on it, and the sources of a real-time clock.

pub mod calendar;
mod counted;
mod host;
mod rtc;
mod timer;

pub use counted::{Counter, Counting, MAX_SHIFT};
pub use host::monotonic_ns;
pub use rtc::{RtcBase, RtcClock, RtcSource};
pub use timer::{Timer, VirtualClock};
