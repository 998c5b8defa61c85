//! The TCO watchdog (ICH9 13.9): a timer of 0.6 s ticks whose first end asks for an SMI and whose second resets the machine.

use minicbor::{Decode, Encode};

/// A tick.
pub const TICK_NS: u64 = 600_000_000;

pub mod status1 {
    pub const TIMEOUT: u16 = 1 << 3;
    /// Cleared by writing ones.
    pub const CLEAR: u16 = 0x1e7f;
    pub const SOFTWARE: u16 = 1 << 1;
}
pub mod status2 {
    pub const SECOND: u16 = 1 << 1;
    pub const BOOT: u16 = 1 << 2;
    pub const CLEAR: u16 = 0x0007;
}
pub mod control1 {
    pub const HALT: u16 = 1 << 11;
    pub const LOCK: u16 = 1 << 12;
    pub const WRITABLE: u16 = 0x1f00;
}

/// Register values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tco {
    #[n(0)]
    pub data_in: u8,
    #[n(1)]
    pub data_out: u8,
    #[n(2)]
    pub status1: u16,
    #[n(3)]
    pub status2: u16,
    #[n(4)]
    pub control1: u16,
    #[n(5)]
    pub control2: u16,
    #[n(6)]
    pub message: [u8; 2],
    #[n(7)]
    pub boot_status: u8,
    #[n(8)]
    pub irq_generation: u8,
    /// Ticks of a period, 10 bits.
    #[n(9)]
    pub timer: u16,
    /// When the period ends, in ns of virtual time; `None`: not yet loaded, or halted.
    #[n(10)]
    pub ends: Option<u64>,
}

impl Tco {
    pub const fn new() -> Self {
        Self {
            data_in: 0,
            data_out: 0,
            status1: 0,
            status2: 0,
            control1: 0,
            control2: 0x08,
            message: [0; 2],
            boot_status: 0,
            irq_generation: 0x03,
            timer: 4,
            ends: None,
        }
    }
    /// Starts a period.
    pub fn reload(&mut self, now: u64) {
        let ticks = u64::from(self.timer).max(2);
        self.ends = (self.control1 & control1::HALT == 0).then(|| now.saturating_add(ticks * TICK_NS));
    }
    /// Ticks left, as TCO_RLD reads.
    pub fn left(&self, now: u64) -> u16 {
        self.ends.map_or(self.timer, |e| (e.saturating_sub(now) / TICK_NS).min(0x3ff) as u16)
    }
}
