//! Time-stamp counter and the paravirtual interface of KVM: clock, end of interrupt, kicks, IPIs (D3).
//!
//! The structures and numbers are those of the KVM documentation (`cpuid`, `msr`, `hypercalls`).

use crate::config::Feature;
use crate::exception::Exception;
use crate::state::{X86Cpu, gpr};
use rhea_ir::guest::TlbFlush;
use rhea_memory::{Gpa, Requester};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

/// The registers.
pub mod reg {
    pub const WALL_CLOCK_OLD: u32 = 0x11;
    pub const SYSTEM_TIME_OLD: u32 = 0x12;
    pub const WALL_CLOCK: u32 = 0x4b56_4d00;
    pub const SYSTEM_TIME: u32 = 0x4b56_4d01;
    pub const STEAL_TIME: u32 = 0x4b56_4d03;
    pub const PV_EOI_EN: u32 = 0x4b56_4d04;
}

/// Hypercalls.
pub mod call {
    pub const KICK_CPU: u64 = 5;
    pub const SEND_IPI: u64 = 10;
}

pub const KVM_EPERM: i64 = -1;
pub const KVM_EINVAL: i64 = -22;
pub const KVM_ENOSYS: i64 = -1000;

/// Registers of this interface, and what instructions take from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paravirtual {
    pub wall_clock: u64,
    pub system_time: u64,
    pub steal_time: u64,
    pub eoi: u64,
    /// The steal time area says that the processor is preempted.
    preempted: bool,
    /// Version of the time page, even.
    version: u32,
    /// Executed PAUSE instructions.
    pub pauses: u32,
    /// Random bytes of the host not yet handed out.
    entropy: Vec<u8>,
}

impl Paravirtual {
    /// What is saved.
    pub fn words(&self) -> [u64; 5] {
        [self.wall_clock, self.system_time, self.steal_time, self.eoi, self.version.into()]
    }
    pub fn set_words(&mut self, words: [u64; 5]) {
        let version;
        [self.wall_clock, self.system_time, self.steal_time, self.eoi, version] = words;
        self.version = version as u32 & !1;
        // If it is not, the next look at events finds it so.
        self.preempted = self.steal_time & 1 != 0;
    }
    /// A number from the host's random source.
    pub fn random(&mut self) -> u64 {
        if self.entropy.len() < 8 {
            let mut fresh = vec![0; 512];
            let source = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut fresh));
            if source.is_err() {
                // Every process has keys of its own that come from the host's random source too.
                for part in fresh.chunks_mut(8) {
                    let n = RandomState::new().hash_one(SystemTime::now());
                    part.copy_from_slice(&n.to_le_bytes()[..part.len()]);
                }
            }
            self.entropy = fresh;
        }
        let rest = self.entropy.len().saturating_sub(8);
        self.entropy.drain(rest..).fold(0, |v, b| v << 8 | u64::from(b))
    }
}

/// Multiplier and shift with which a guest makes nanoseconds of TSC ticks: `((ticks << shift) * mul) >> 32`.
#[must_use]
pub(crate) fn clock_scale(frequency: u64) -> (u32, i8) {
    let f = u128::from(frequency.max(1));
    // 1e9 / f in 64.64 fixed point; normalised to 32 significant bits.
    let ratio = (1_000_000_000u128 << 64) / f;
    let top = 128 - ratio.leading_zeros() as i32;
    // ratio = mul × 2^(top − 32), and the value is mul × 2^(shift − 32) with 64 bits of fraction.
    let mul = if top >= 32 { ratio >> (top - 32) } else { ratio << (32 - top) };
    (mul as u32, (top - 64) as i8)
}

impl X86Cpu {
    // ---- the time-stamp counter: virtual time in another unit ----

    /// The counter without offset at a virtual time.
    fn ticks(&self, ns: u64) -> u64 {
        match self.config.tsc_frequency {
            2_000_000_000 => ns.wrapping_mul(2),
            1_000_000_000 => ns,
            f => (u128::from(ns) * u128::from(f) / 1_000_000_000) as u64,
        }
    }
    /// `IA32_TIME_STAMP_COUNTER` now.
    #[inline]
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.ticks(self.clock.now_ns()).wrapping_add(self.msr.tsc_offset)
    }
    /// The virtual time, in nanoseconds, at which the counter has a value; 0 for the time before the clock began.
    #[must_use]
    pub fn tsc_to_ns(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.msr.tsc_offset);
        if tsc < self.msr.tsc_offset && self.msr.tsc_offset >> 63 == 0 {
            return 0;
        }
        let f = u128::from(self.config.tsc_frequency.max(1));
        let ns = (u128::from(ticks) * 1_000_000_000).div_ceil(f);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
    pub(crate) fn set_tsc(&mut self, value: u64) {
        let offset = value.wrapping_sub(self.ticks(self.clock.now_ns()));
        self.move_tsc(offset.wrapping_sub(self.msr.tsc_offset));
    }
    /// Adds to the counter, and to `IA32_TSC_ADJUST`.
    pub(crate) fn move_tsc(&mut self, by: u64) {
        self.msr.tsc_offset = self.msr.tsc_offset.wrapping_add(by);
        self.msr.tsc_adjust = self.msr.tsc_adjust.wrapping_add(by);
        self.arm_deadline();
        self.write_time_page();
    }
    pub(crate) fn arm_deadline(&self) {
        let at = self.msr.tsc_deadline;
        let ns = (at != 0).then(|| self.tsc_to_ns(at));
        self.hooks.set_tsc_deadline(self.index, ns);
    }

    // ---- registers ----

    /// Is this register of the interface there?
    fn pv_register(&self, msr: u32) -> Option<Feature> {
        use Feature as F;
        let f = match msr {
            reg::WALL_CLOCK_OLD | reg::SYSTEM_TIME_OLD | reg::WALL_CLOCK | reg::SYSTEM_TIME => F::Kvmclock,
            reg::STEAL_TIME => F::KvmStealTime,
            reg::PV_EOI_EN => F::KvmPvEoi,
            _ => return None,
        };
        (self.config.kvm && self.config.has(f)).then_some(f)
    }
    /// `None`: there is no such register.
    pub(crate) fn read_pv(&self, msr: u32) -> Option<u64> {
        self.pv_register(msr)?;
        Some(match msr {
            reg::WALL_CLOCK | reg::WALL_CLOCK_OLD => self.pv.wall_clock,
            reg::SYSTEM_TIME | reg::SYSTEM_TIME_OLD => self.pv.system_time,
            reg::STEAL_TIME => self.pv.steal_time,
            _ => self.pv.eoi,
        })
    }
    /// `None`: there is no such register.
    pub(crate) fn write_pv(&mut self, msr: u32, value: u64) -> Option<Result<(), Exception>> {
        self.pv_register(msr)?;
        match msr {
            reg::WALL_CLOCK | reg::WALL_CLOCK_OLD => {
                self.pv.wall_clock = value;
                self.write_wall_clock(value);
            }
            reg::SYSTEM_TIME | reg::SYSTEM_TIME_OLD => {
                self.pv.system_time = value;
                self.write_time_page();
            }
            reg::STEAL_TIME => {
                if value & 0x3e != 0 {
                    return Some(Err(Exception::gp(0)));
                }
                self.pv.steal_time = value;
                self.pv.preempted = false;
                if value & 1 != 0 {
                    // Nothing is ever stolen.
                    self.write_guest(value & !63, &[0; 64]);
                }
            }
            _ => {
                if value & 2 != 0 {
                    return Some(Err(Exception::gp(0)));
                }
                self.pv.eoi = value;
                self.hooks.set_pv_eoi(self.index, (value & 1 != 0).then_some(value & !3));
            }
        }
        Some(Ok(()))
    }
    fn write_guest(&self, gpa: u64, data: &[u8]) {
        if self.space.write(Gpa(gpa), data, Requester::Cpu(self.index)).is_err() {
            self.hooks.guest_error(self.index, &format!("paravirtual structure outside of memory at {gpa:#x}"));
        }
    }
    /// The page of the clock: version (odd while it changes), TSC and virtual time at one moment, and the rate. The counter is
    /// virtual time in another unit, so that one moment, the beginning, does for good and for all processors.
    pub(crate) fn write_time_page(&mut self) {
        let at = self.pv.system_time;
        if at & 1 == 0 {
            return;
        }
        let gpa = at & !1;
        let odd = self.pv.version.wrapping_add(1) | 1;
        self.pv.version = odd.wrapping_add(1);
        let (mul, shift) = clock_scale(self.config.tsc_frequency);
        let mut page = [0; 32];
        page[0..4].copy_from_slice(&self.pv.version.to_le_bytes());
        page[8..16].copy_from_slice(&self.msr.tsc_offset.to_le_bytes());
        page[24..28].copy_from_slice(&mul.to_le_bytes());
        page[28] = shift as u8;
        page[29] = u8::from(self.config.has(Feature::KvmclockStable));
        self.write_guest(gpa, &odd.to_le_bytes());
        self.write_guest(gpa.wrapping_add(4), &page[4..]);
        self.write_guest(gpa, &page[..4]);
    }
    /// The wall-clock time at which virtual time was 0.
    fn write_wall_clock(&self, gpa: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = now.as_nanos().saturating_sub(self.clock.now_ns().into());
        let (sec, nsec) = ((start / 1_000_000_000) as u32, (start % 1_000_000_000) as u32);
        self.write_guest(gpa.wrapping_add(4), &sec.to_le_bytes());
        self.write_guest(gpa.wrapping_add(8), &nsec.to_le_bytes());
        self.write_guest(gpa, &2u32.to_le_bytes());
    }
    /// A halted processor is preempted: others ask it by a bit, rather than by an interrupt, to flush its TLB before it runs
    /// guest code again.
    pub(crate) fn note_halt(&mut self, halted: bool) {
        const PREEMPTED: u64 = 1;
        const FLUSH_TLB: u64 = 2;
        const AREA: u64 = 16;
        if self.pv.preempted == halted || self.pv.steal_time & 1 == 0 {
            return;
        }
        self.pv.preempted = halted;
        let at = Gpa((self.pv.steal_time & !63) + AREA);
        let mut old = if halted { 0 } else { PREEMPTED };
        let new = if halted { PREEMPTED } else { 0 };
        loop {
            match self.space.compare_exchange(at, 1, old, new) {
                Ok(was) if was == old => break,
                Ok(was) => old = was,
                // Outside of memory: said when it was set.
                Err(_) => return,
            }
        }
        if !halted && old & FLUSH_TLB != 0 {
            self.flush(TlbFlush::All, false);
        }
    }
    pub(crate) fn reset_pv(&mut self) {
        if self.pv.eoi != 0 {
            self.hooks.set_pv_eoi(self.index, None);
        }
        self.pv = Paravirtual::default();
    }

    // ---- hypercalls ----

    /// VMCALL and VMMCALL: number and arguments in RAX, RBX, RCX, RDX, RSI; the result in RAX.
    pub(crate) fn hypercall(&mut self) {
        let long = self.is_long();
        let mask = if long { u64::MAX } else { 0xffff_ffff };
        let arg = |n: u32| self.r[n as usize] & mask;
        let result = if self.cpl() != 0 {
            KVM_EPERM
        } else {
            let a = [arg(gpr::RBX), arg(gpr::RCX), arg(gpr::RDX), arg(gpr::RSI)];
            match arg(gpr::RAX) {
                call::KICK_CPU if self.has(Feature::KvmPvUnhalt) => {
                    self.hooks.pv_kick(a[1] as u32);
                    0
                }
                call::SEND_IPI if self.has(Feature::KvmPvIpi) => self.send_ipis(a, long),
                _ => KVM_ENOSYS,
            }
        };
        self.r[gpr::RAX as usize] = result as u64 & mask;
    }
    /// Sends to the processors of a bitmap (128 bits, in 32-bit code 64) from an APIC id on; how many took it.
    fn send_ipis(&self, [low, high, first, icr]: [u64; 4], long: bool) -> i64 {
        const LOGICAL: u64 = 1 << 11;
        const SHORTHAND: u64 = 3 << 18;
        if icr & (LOGICAL | SHORTHAND) != 0 {
            return KVM_EINVAL;
        }
        let bits = if long { 64 } else { 32 };
        let mut map = u128::from(low) | u128::from(high) << bits;
        let mut count = 0;
        while map != 0 {
            let n = map.trailing_zeros();
            map &= map - 1;
            let Some(id) = (first as u32).checked_add(n) else { break };
            if self.hooks.pv_ipi(self.index, id, icr as u32) {
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(ticks: u64, frequency: u64) -> u64 {
        let (mul, shift) = clock_scale(frequency);
        let t = if shift >= 0 { ticks << shift } else { ticks >> -shift };
        (u128::from(t) * u128::from(mul) >> 32) as u64
    }

    #[test]
    fn scales() {
        for f in [1_000_000u64, 999_999_937, 1_000_000_000, 2_000_000_000, 2_600_000_000, 5_000_000_000] {
            // An hour, to a part in 2^31.
            let got = ns(f * 3600, f);
            let want = 3_600_000_000_000u64;
            assert!(got.abs_diff(want) <= want >> 31, "{f}: {got}");
        }
        assert_eq!(ns(2000, 2_000_000_000), 1000);
    }
}
