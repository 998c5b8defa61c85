//! Performance monitor (Book III, chapter 9), the least of it: the registers, and the two counters that always count cycles and
//! instructions, which both go with time. No event is counted and no alert ever comes by itself.

use crate::bits::{fscr, msr};
use crate::exception::program;
use crate::spr;
use crate::state::PpcCpu;

/// Bits of MMCR0.
mod mmcr0 {
    /// Freeze counters.
    pub const FC: u64 = 1 << 31;
    /// Performance monitor alert enable, occurred.
    pub const PMAE: u64 = 1 << 26;
    pub const PMAO: u64 = 1 << 7;
    /// Freeze PMC5 and PMC6.
    pub const FC56: u64 = 1 << 4;
    /// Who may access the group: problem state control.
    pub const PMCC_SHIFT: u32 = 18;
    /// What problem state can change.
    pub const USER: u64 = FC | PMAO | PMAE;
}
/// Bits of MMCR2 that problem state can change: freeze in problem state, of each counter.
const MMCR2_USER: u64 = 0x4020_1008_0402_0000;

/// Cycles (and instructions) in a tick of the time base.
const CYCLES: u64 = 4;

impl PpcCpu {
    fn mmcr0(&self) -> u64 {
        self.spr[spr::MMCR0 as usize]
    }
    fn counts(&self) -> bool {
        self.mmcr0() & (mmcr0::FC | mmcr0::FC56) == 0
    }
    /// Brings PMC5 and PMC6 up to date.
    pub(crate) fn sync_counters(&mut self) {
        let now = self.time_base();
        if let Some(since) = self.sys.counting_since {
            let cycles = now.wrapping_sub(since).wrapping_mul(CYCLES);
            for n in [spr::PMC5, spr::PMC6] {
                let v = &mut self.spr[n as usize];
                *v = v.wrapping_add(cycles) & 0xffff_ffff;
            }
        }
        self.sys.counting_since = self.counts().then_some(now);
    }
    pub(crate) fn performance_monitor_alert(&self) -> bool {
        self.mmcr0() & mmcr0::PMAO != 0
    }
    /// The privileged register behind one of problem state's.
    fn privileged_monitor(number: u32) -> u32 {
        number + 16
    }
    /// May problem state access the group? Raises what the architecture says if not.
    fn monitor_permitted(&mut self, number: u32, write: bool) -> bool {
        if self.msr & msr::PR == 0 {
            return true;
        }
        let control = self.mmcr0() >> mmcr0::PMCC_SHIFT & 3;
        let counter = matches!(number, 775 | 776);
        let permitted = match control {
            0 => !write,
            1 => false,
            2 => true,
            _ => !counter,
        };
        if !permitted {
            if control == 0 {
                self.raise(crate::exception::Vector::Program, program::ILLEGAL);
            } else {
                self.raise_facility(fscr::PMU);
            }
        }
        permitted
    }
    /// mfspr of a register of the group; `None` if an interrupt was raised.
    pub(crate) fn read_monitor(&mut self, number: u32) -> Option<u64> {
        let user = number < 784 && !matches!(number, spr::SIER2 | spr::SIER3 | spr::MMCR3);
        if user && !self.monitor_permitted(number, false) {
            return None;
        }
        let n = if user { Self::privileged_monitor(number) } else { number };
        if matches!(n, spr::PMC5 | spr::PMC6) {
            self.sync_counters();
        }
        // Privileged state reaches all of a register by either number.
        let user = user && self.msr & msr::PR != 0;
        let v = self.spr[n as usize];
        Some(match n {
            spr::MMCR0 if user => v & mmcr0::USER,
            spr::MMCR2 if user => v & MMCR2_USER,
            spr::PMC1..=spr::PMC6 => v & 0xffff_ffff,
            _ => v,
        })
    }
    /// mtspr of one.
    pub(crate) fn write_monitor(&mut self, number: u32, v: u64) {
        let user = number < 784 && !matches!(number, spr::SIER2 | spr::SIER3 | spr::MMCR3);
        if user && !self.monitor_permitted(number, true) {
            return;
        }
        let n = if user { Self::privileged_monitor(number) } else { number };
        self.sync_counters();
        let user = user && self.msr & msr::PR != 0;
        let old = self.spr[n as usize];
        self.spr[n as usize] = match n {
            spr::MMCR0 if user => old & !mmcr0::USER | v & mmcr0::USER,
            spr::MMCR0 => v & 0xffff_ffff,
            spr::MMCR2 if user => old & !MMCR2_USER | v & MMCR2_USER,
            spr::PMC1..=spr::PMC6 => v & 0xffff_ffff,
            _ => v,
        };
        if n == spr::MMCR0 {
            self.sync_counters();
            if self.performance_monitor_alert() {
                self.pending = 1;
                self.request(rhea_ir::guest::request::INTERRUPT);
            }
        }
    }
}
