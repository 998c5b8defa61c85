//! Time base and decrementer (Book III, chapter 8).

use crate::bits::lpcr;
use crate::hooks::PpcPins;
use crate::spr;
use crate::state::PpcCpu;
use rhea_clock::{Timer, VirtualClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frequency of the time base and the decrementer.
pub const FREQUENCY_HZ: u64 = 512_000_000;

/// Ticks in `ns` nanoseconds: 512 ticks a microsecond, 64 in 125 ns.
const fn ticks(ns: u64) -> u64 {
    (ns / 125).wrapping_mul(64).wrapping_add(ns % 125 * 64 / 125)
}
/// The first nanosecond at which `ticks` ticks have passed.
fn nanoseconds(ticks: u64) -> u64 {
    u64::try_from((u128::from(ticks) * 125).div_ceil(64)).unwrap_or(u64::MAX)
}

/// The time base, decrementer and their timer.
pub(crate) struct TimeBase {
    clock: Arc<VirtualClock>,
    timer: Timer,
    /// The deadline in ns that the timer was last given and has not reached: never later than the decrementer's, or
    /// `u64::MAX`.
    armed: Arc<AtomicU64>,
    /// The time base minus the ticks of the clock.
    pub offset: u64,
    /// The time base at which the decrementer passes from 0 to −1 is the one after this.
    pub expires: u64,
}

impl TimeBase {
    pub fn new(clock: &Arc<VirtualClock>, pins: &Arc<PpcPins>) -> TimeBase {
        let armed = Arc::new(AtomicU64::new(u64::MAX));
        let (pins, flag) = (pins.clone(), armed.clone());
        let timer = clock.timer(move || {
            flag.store(u64::MAX, Ordering::SeqCst);
            pins.wake();
        });
        TimeBase { clock: clock.clone(), timer, armed, offset: 0, expires: 0 }
    }
    #[inline]
    pub fn now(&self) -> u64 {
        ticks(self.clock.now_ns()).wrapping_add(self.offset)
    }
    /// Has the timer wake the processor in `ticks` ticks.
    pub fn arm(&self, in_ticks: u64) {
        let at = ticks(self.clock.now_ns()).saturating_add(in_ticks);
        let deadline = nanoseconds(at);
        if self.armed.load(Ordering::SeqCst) > deadline {
            self.armed.store(deadline, Ordering::SeqCst);
            self.timer.arm(deadline);
        }
    }
}

#[cfg(test)]
impl TimeBase {
    pub fn is_armed(&self) -> bool {
        self.timer.deadline().is_some()
    }
}

impl PpcCpu {
    /// The time base.
    #[inline]
    pub fn time_base(&self) -> u64 {
        self.time.now()
    }
    /// Sets the time base of this processor (all of a machine are set alike).
    pub fn set_time_base(&mut self, v: u64) {
        let dec = self.decrementer();
        self.time.offset = self.time.offset.wrapping_add(v.wrapping_sub(self.time.now()));
        self.set_decrementer(dec);
    }
    /// Bits of the decrementer as LPCR has it.
    pub(crate) fn decrementer_bits(&self) -> u32 {
        if self.spr[spr::LPCR as usize] & lpcr::LD != 0 { self.config.decrementer_bits.clamp(32, 64) } else { 32 }
    }
    /// The decrementer, sign-extended if it is a large one.
    pub fn decrementer(&self) -> u64 {
        let v = self.time.expires.wrapping_sub(self.time.now());
        match self.decrementer_bits() {
            32 => v & 0xffff_ffff,
            bits => ((v << (64 - bits)) as i64 >> (64 - bits)) as u64,
        }
    }
    pub fn set_decrementer(&mut self, v: u64) {
        let bits = self.decrementer_bits();
        let v = ((v << (64 - bits)) as i64 >> (64 - bits)) as u64;
        self.time.expires = self.time.now().wrapping_add(v);
        self.watch_decrementer();
    }
    /// Is the decrementer negative? The interrupt is a level.
    pub(crate) fn decrementer_pending(&self) -> bool {
        let v = self.time.expires.wrapping_sub(self.time.now());
        v >> (self.decrementer_bits() - 1) & 1 != 0
    }
    /// Sees to it that `poll` runs when the decrementer becomes negative, and soon if it is.
    pub(crate) fn watch_decrementer(&mut self) {
        let left = self.decrementer();
        let bits = self.decrementer_bits();
        if left >> (bits - 1) & 1 != 0 {
            self.pending = 1;
            self.request(rhea_ir::guest::request::INTERRUPT);
        } else {
            self.time.arm(left.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{nanoseconds, ticks};

    #[test]
    fn ticks_and_nanoseconds() {
        assert_eq!(ticks(1_000_000_000), super::FREQUENCY_HZ);
        for t in [0, 1, 2, 63, 64, 65, 1 << 40, (1 << 40) + 17] {
            assert_eq!(ticks(nanoseconds(t)), t);
            assert!(t == 0 || ticks(nanoseconds(t) - 1) < t);
        }
        let _ = ticks(u64::MAX);
        assert_eq!(nanoseconds(u64::MAX), u64::MAX);
    }
}
