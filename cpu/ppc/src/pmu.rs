//! Performance monitor (Book III, chapter 9) and event-based branches (Book II, chapter 6). Cycles and instructions, which both
//! go with time, are the events that are counted; counters freeze by state, and alert when they become negative.

use crate::bits::{fscr, msr};
use crate::exception::program;
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::guest::request;

/// Bits of MMCR0.
mod mmcr0 {
    /// Freeze counters: always, in privileged state, in problem state, while MSR.PMM is set and clear.
    pub const FC: u64 = 1 << 31;
    pub const FCS: u64 = 1 << 30;
    pub const FCP: u64 = 1 << 29;
    pub const FCM1: u64 = 1 << 28;
    pub const FCM0: u64 = 1 << 27;
    /// Performance monitor alert enable, occurred.
    pub const PMAE: u64 = 1 << 26;
    pub const PMAO: u64 = 1 << 7;
    /// Freeze counters on an alert.
    pub const FCECE: u64 = 1 << 25;
    /// Alerts are event-based branches.
    pub const EBE: u64 = 1 << 20;
    /// Negative counters alert: PMC1, the others.
    pub const PMC1CE: u64 = 1 << 15;
    pub const PMCJCE: u64 = 1 << 14;
    /// Freeze PMC1 to PMC4, PMC5 and PMC6.
    pub const FC14: u64 = 1 << 5;
    pub const FC56: u64 = 1 << 4;
    /// Who may access the group: problem state control.
    pub const PMCC_SHIFT: u32 = 18;
    /// What problem state can change.
    pub const USER: u64 = FC | PMAO | PMAE;
}
/// Bits of MMCR2 that problem state can change: freeze in problem state, of each counter.
const MMCR2_USER: u64 = 0x4020_1008_0402_0000;

/// Bits of BESCR.
mod bescr {
    /// Global enable.
    pub const GE: u64 = 1 << 63;
    /// Performance monitor event enable, occurred.
    pub const PME: u64 = 1 << 32;
    pub const PMEO: u64 = 1;
    /// External event occurred.
    pub const EEO: u64 = 2;
}

/// Cycles (and instructions) in a tick of the time base.
const CYCLES: u64 = 4;
/// The bit of a counter that makes it negative.
const NEGATIVE: u64 = 1 << 31;

impl PpcCpu {
    fn mmcr0(&self) -> u64 {
        self.spr[spr::MMCR0 as usize]
    }
    /// Does PMC `n` (1–6) count in the present state?
    fn counts(&self, n: u32) -> bool {
        use mmcr0::*;
        let m = self.mmcr0();
        let problem = self.msr & msr::PR != 0;
        let state = if problem { FCP } else { FCS };
        let marked = if self.msr & msr::PMM != 0 { FCM1 } else { FCM0 };
        let group = if n > 4 { FC56 } else { FC14 };
        // MMCR2 has nine bits for each counter; the first two freeze it in privileged and in problem state.
        let own = 1u64 << (63 - 9 * (n - 1) - u32::from(problem));
        if m & (FC | state | marked | group) != 0 || self.spr[spr::MMCR2 as usize] & own != 0 {
            return false;
        }
        let event = self.spr[spr::MMCR1 as usize] >> (8 * 4u32.saturating_sub(n)) & 0xff;
        match (n, event) {
            (5 | 6, _) => true,
            // Cycles, completed instructions; with the run latch.
            (_, 0x02 | 0x1e) | (1, 0xf0 | 0xfe) | (2, 0xf4) | (4, 0xfa) => true,
            _ => false,
        }
    }
    fn alerts_enabled(&self, n: u32) -> bool {
        self.mmcr0() & mmcr0::PMAE != 0 && self.mmcr0() & if n == 1 { mmcr0::PMC1CE } else { mmcr0::PMCJCE } != 0
    }
    /// Brings the counters up to date; alerts for what became negative. To be called before and after any change of what they
    /// depend on.
    pub(crate) fn sync_counters(&mut self) {
        let now = self.time_base();
        let cycles = self.sys.counting_since.map_or(0, |since| now.wrapping_sub(since).wrapping_mul(CYCLES));
        let active: u32 = (1..=6).filter(|&n| self.counts(n)).fold(0, |m, n| m | 1 << n);
        for n in 1..=6 {
            let v = &mut self.spr[(spr::PMC1 + n - 1) as usize];
            if self.sys.counting >> n & 1 != 0 {
                // What passes the sign stays negative.
                let next = (*v & 0xffff_ffff).saturating_add(cycles);
                let held = if *v & NEGATIVE == 0 && next >> 32 != 0 { NEGATIVE } else { 0 };
                *v = next & 0xffff_ffff | held;
            }
        }
        self.sys.counting = active;
        self.sys.counting_since = (active != 0).then_some(now);
        let m = self.mmcr0();
        // States that are left and entered by other means than these registers.
        self.sys.counts_by_state = m & mmcr0::FC == 0
            && (m & (mmcr0::FCS | mmcr0::FCP | mmcr0::FCM1 | mmcr0::FCM0) != 0 || self.spr[spr::MMCR2 as usize] != 0);
        let negative = |n: u32| self.spr[(spr::PMC1 + n - 1) as usize] & NEGATIVE != 0;
        if (1..=6).any(|n| self.alerts_enabled(n) && negative(n)) {
            self.alert();
        }
    }
    /// Has `poll` run when the next counter becomes negative.
    pub(crate) fn watch_counters(&mut self) {
        let left = (1..=6)
            .filter(|&n| self.sys.counting >> n & 1 != 0 && self.alerts_enabled(n))
            .map(|n| NEGATIVE.saturating_sub(self.spr[(spr::PMC1 + n - 1) as usize]))
            .min();
        if let Some(left) = left {
            self.time.arm(left.div_ceil(CYCLES).max(1));
        }
    }
    /// A performance monitor alert.
    fn alert(&mut self) {
        let m = &mut self.spr[spr::MMCR0 as usize];
        *m = *m & !mmcr0::PMAE | mmcr0::PMAO;
        if *m & mmcr0::FCECE != 0 {
            *m |= mmcr0::FC;
            self.sys.counting = 0;
            self.sys.counting_since = None;
            self.sys.counts_by_state = false;
        }
        self.spr[spr::SIAR as usize] = self.header.pc;
        self.announce();
    }
    /// An alert that is there takes effect.
    fn announce(&mut self) {
        if self.mmcr0() & mmcr0::EBE != 0 {
            let b = &mut self.spr[spr::BESCR as usize];
            if *b & bescr::PME != 0 {
                *b = *b & !bescr::PME | bescr::PMEO;
            }
        }
        self.pending = 1;
        self.request(request::INTERRUPT);
    }
    /// Is a performance monitor interrupt due?
    pub(crate) fn performance_monitor_alert(&self) -> bool {
        self.mmcr0() & (mmcr0::PMAO | mmcr0::EBE) == mmcr0::PMAO
    }

    /// Takes an event-based branch if one is due, which is to come back to the pc; true if so.
    pub(crate) fn event_branch(&mut self) -> bool {
        let b = self.spr[spr::BESCR as usize];
        let enabled = self.msr & msr::PR != 0 && self.spr[spr::FSCR as usize] >> fscr::EBB & 1 != 0;
        if b & bescr::GE == 0 || b & (bescr::PMEO | bescr::EEO) == 0 || !enabled {
            return false;
        }
        self.spr[spr::BESCR as usize] = b & !bescr::GE;
        self.spr[spr::EBBRR as usize] = self.header.pc;
        let to = self.spr[spr::EBBHR as usize] & !3;
        self.header.pc = if self.msr & msr::SF != 0 { to } else { to & 0xffff_ffff };
        self.header.raised = 1;
        self.step_into_handler();
        true
    }
    /// rfebb: back to where the branch was, with events enabled or not.
    pub(crate) fn return_from_event(&mut self, enable: bool) {
        let b = &mut self.spr[spr::BESCR as usize];
        *b = *b & !bescr::GE | if enable { bescr::GE } else { 0 };
        let to = self.spr[spr::EBBRR as usize] & !3;
        self.header.pc = if self.msr & msr::SF != 0 { to } else { to & 0xffff_ffff };
        if !self.event_branch() {
            self.step_into_handler();
        }
    }
    /// Writes BESCR; the pc is that of the writing instruction.
    pub(crate) fn write_event_control(&mut self, v: u64) {
        self.spr[spr::BESCR as usize] = v;
        let pc = self.header.pc;
        self.header.pc = pc.wrapping_add(4);
        if !self.event_branch() {
            self.header.pc = pc;
        }
    }
    /// clrbhrb and mfbhrbe, of an empty buffer: problem state needs the permission of MMCR0.
    pub(crate) fn branch_history_access(&mut self) {
        if self.msr & msr::PR != 0 && self.mmcr0() >> mmcr0::PMCC_SHIFT & 3 < 2 {
            self.raise_facility(fscr::BHRB);
        }
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
        if (spr::PMC1..=spr::PMC6).contains(&n) {
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
        self.sync_counters();
        self.watch_counters();
        if n == spr::MMCR0 && self.mmcr0() & mmcr0::PMAO != 0 {
            self.announce();
        }
    }
}
