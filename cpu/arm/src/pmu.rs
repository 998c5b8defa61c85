//! Performance monitors (DDI 0487 D13): a cycle counter of 1 GHz and event counters for SW_INCR, CPU_CYCLES and CHAIN.

use crate::bits;
use crate::config::Feature;
use crate::reg::Reg;
use crate::state::ArmCpu;
use minicbor::{Decode, Encode};
use rhea_clock::Timer;

/// Event counters (PMCR_EL0.N).
pub const COUNTERS: usize = 6;
/// Bit of the cycle counter in PMCNTENSET and the like.
const CYCLES: u32 = 31;
/// All counters.
const MASK: u32 = 1 << CYCLES | ((1 << COUNTERS) - 1);
/// PMCR bits: E, P, C, D, X, DP, LC.
const E: u32 = 1;
const P: u32 = 2;
const C: u32 = 4;
const D: u32 = 8;
const DP: u32 = 32;
const LC: u32 = 64;

/// Events: software increment, cycles, overflow of the counter below.
const SW_INCR: u32 = 0x00;
const CPU_CYCLES: u32 = 0x11;
const CHAIN: u32 = 0x1e;
/// PMCEID0.
pub const COMMON_EVENTS: u64 = 1 << SW_INCR | 1 << CPU_CYCLES | 1 << CHAIN;

/// The registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct PmuRegs {
    #[n(0)]
    pub control: u32,
    #[n(1)]
    pub enabled: u32,
    #[n(2)]
    pub interrupts: u32,
    #[n(3)]
    pub overflow: u32,
    #[n(4)]
    pub select: u32,
    #[n(5)]
    pub cycle_filter: u32,
    #[n(6)]
    pub types: [u32; COUNTERS],
    #[n(7)]
    pub cycles: u64,
    #[n(8)]
    pub counters: [u32; COUNTERS],
}

pub(crate) struct Pmu {
    pub regs: PmuRegs,
    /// Counting depends on the exception level: bring counters up to date at each change.
    pub filtered: bool,
    /// Clock time up to which the counters count, and the fraction for the divider by 64.
    last_ns: u64,
    fraction: u64,
    line: bool,
    timer: Timer,
}

impl Pmu {
    pub fn new(timer: Timer) -> Pmu {
        Pmu { regs: PmuRegs::default(), filtered: false, last_ns: 0, fraction: 0, line: false, timer }
    }
    pub fn reset(&mut self) {
        self.regs = PmuRegs { control: LC, ..PmuRegs::default() };
        self.filtered = false;
        self.timer.cancel();
    }
}

impl ArmCpu {
    /// Does a counter with filter bits `f` (PMCCFILTR layout) count now?
    fn pmu_counts(&self, f: u32) -> bool {
        let (p, u, nsk, nsu, nsh, m) = (
            f >> 31 & 1 != 0,
            f >> 30 & 1 != 0,
            f >> 29 & 1 != 0,
            f >> 28 & 1 != 0,
            f >> 27 & 1 != 0,
            f >> 26 & 1 != 0,
        );
        let secure = self.is_secure();
        let el = self.el();
        if secure && el < 3 && self[Reg::MdcrEl3] & bits::mdcr::SPME == 0 {
            return false;
        }
        match el {
            0 => !(if secure || !self.has(Feature::El3) { u } else { u != nsu }),
            1 => !(if secure || !self.has(Feature::El3) { p } else { p != nsk }),
            2 => nsh,
            _ => p == m,
        }
    }

    /// Brings the counters up to the present, records overflows, sets the interrupt line and the next deadline.
    pub(crate) fn pmu_sync(&mut self) {
        let now = self.timers.clock().now_ns();
        let elapsed = now.saturating_sub(self.pmu.last_ns);
        self.pmu.last_ns = now;
        let mut next = u64::MAX;
        if self.pmu.regs.control & E != 0 {
            let r = self.pmu.regs;
            if r.enabled >> CYCLES & 1 != 0 && self.pmu_counts(r.cycle_filter) {
                let divide = r.control & (D | LC) == D;
                let total = self.pmu.fraction + elapsed;
                let add = if divide { total / 64 } else { elapsed };
                self.pmu.fraction = if divide { total % 64 } else { 0 };
                let (old, new) = (r.cycles, r.cycles.wrapping_add(add));
                // Overflow of 64 bits, or of 32 without LC.
                let over = if r.control & LC != 0 { new < old } else { (old & 0xffff_ffff) + add > 0xffff_ffff };
                self.pmu.regs.cycles = new;
                self.pmu.regs.overflow |= u32::from(over) << CYCLES;
                if r.interrupts >> CYCLES & 1 != 0 {
                    let left =
                        if r.control & LC != 0 { new.wrapping_neg() } else { u64::from((new as u32).wrapping_neg()) };
                    next = next.min(if divide { left.saturating_mul(64) } else { left });
                }
            }
            for n in 0..COUNTERS {
                if r.enabled >> n & 1 != 0 && r.types[n] & 0xffff == CPU_CYCLES && self.pmu_counts(r.types[n]) {
                    self.pmu_add(n, elapsed);
                    if r.interrupts >> n & 1 != 0 {
                        next = next.min(u64::from(self.pmu.regs.counters[n].wrapping_neg()).max(1));
                    }
                }
            }
        }
        if next == u64::MAX {
            self.pmu.timer.cancel();
        } else {
            self.pmu.timer.arm(now.saturating_add(next.max(1)));
        }
        self.pmu_update_line();
    }
    fn pmu_add(&mut self, n: usize, add: u64) {
        let r = &mut self.pmu.regs;
        let sum = u64::from(r.counters[n]).saturating_add(add);
        r.counters[n] = sum as u32;
        let carries = sum >> 32;
        if carries != 0 {
            r.overflow |= 1 << n;
            if n & 1 == 0 && n + 1 < COUNTERS && r.enabled >> (n + 1) & 1 != 0 && r.types[n + 1] & 0xffff == CHAIN {
                self.pmu_add(n + 1, carries);
            }
        }
    }
    fn pmu_update_line(&mut self) {
        let r = &self.pmu.regs;
        let level = r.control & E != 0 && r.overflow & r.interrupts & r.enabled != 0;
        if level != self.pmu.line {
            self.pmu.line = level;
            let hooks = self.hooks.clone();
            hooks.pmu_line(self.index, level);
        }
        let r = &self.pmu.regs;
        // Without filter bits EL0 and EL1 count alike, EL2 and EL3 do not.
        let levels = self.has(Feature::El2) || self.has(Feature::El3);
        let filters = |f: u32| f >> 26 != 0 || levels;
        let filtered = r.control & E != 0
            && ((r.enabled >> CYCLES & 1 != 0 && filters(r.cycle_filter))
                || (0..COUNTERS)
                    .any(|n| r.enabled >> n & 1 != 0 && r.types[n] & 0xffff == CPU_CYCLES && filters(r.types[n])));
        self.pmu.filtered = filtered;
    }

    /// Reads a PMU register after bringing it up to date.
    pub(crate) fn pmu_read(&mut self, which: PmuReg) -> u64 {
        self.pmu_sync();
        let r = &self.pmu.regs;
        let selected = r.select & 0x1f;
        match which {
            PmuReg::Control => {
                // An EL2 may keep counters to itself.
                let hidden = self.el() <= 1 && self.el2_enabled();
                let counters = if hidden { self[Reg::MdcrEl2] & bits::mdcr::HPMN } else { COUNTERS as u64 };
                u64::from(r.control)
                    | counters.min(COUNTERS as u64) << 11
                    | (self.config.midr >> 24) << 24 & 0xff00_0000
            }
            PmuReg::EnableSet | PmuReg::EnableClear => u64::from(r.enabled),
            PmuReg::OverflowSet | PmuReg::OverflowClear => u64::from(r.overflow),
            PmuReg::InterruptSet | PmuReg::InterruptClear => u64::from(r.interrupts),
            PmuReg::Select => u64::from(selected),
            PmuReg::Increment => 0,
            PmuReg::Cycles => r.cycles,
            PmuReg::CycleFilter => u64::from(r.cycle_filter),
            PmuReg::SelectedType if selected == CYCLES => u64::from(r.cycle_filter),
            PmuReg::SelectedType => r.types.get(selected as usize).map_or(0, |&v| u64::from(v)),
            PmuReg::SelectedCounter => r.counters.get(selected as usize).map_or(0, |&v| u64::from(v)),
            PmuReg::Type(n) => r.types.get(n as usize).map_or(0, |&v| u64::from(v)),
            PmuReg::Counter(n) => r.counters.get(n as usize).map_or(0, |&v| u64::from(v)),
        }
    }
    pub(crate) fn pmu_write(&mut self, which: PmuReg, value: u64) {
        self.pmu_sync();
        let v = value as u32;
        const TYPE_MASK: u32 = 0xfe00_ffff;
        const FILTER_MASK: u32 = 0xfe00_0000;
        let r = &mut self.pmu.regs;
        let selected = r.select & 0x1f;
        match which {
            PmuReg::Control => {
                r.control = v & (E | D | 16 | DP | LC);
                if v & P != 0 {
                    r.counters = [0; COUNTERS];
                }
                if v & C != 0 {
                    r.cycles = 0;
                }
            }
            PmuReg::EnableSet => r.enabled |= v & MASK,
            PmuReg::EnableClear => r.enabled &= !v,
            PmuReg::OverflowSet => r.overflow |= v & MASK,
            PmuReg::OverflowClear => r.overflow &= !v,
            PmuReg::InterruptSet => r.interrupts |= v & MASK,
            PmuReg::InterruptClear => r.interrupts &= !v,
            PmuReg::Select => r.select = v & 0x1f,
            PmuReg::Increment => {
                if r.control & E != 0 {
                    for n in 0..COUNTERS {
                        let r = &self.pmu.regs;
                        if v >> n & 1 != 0
                            && r.enabled >> n & 1 != 0
                            && r.types[n] & 0xffff == SW_INCR
                            && self.pmu_counts(r.types[n])
                        {
                            self.pmu_add(n, 1);
                        }
                    }
                }
            }
            PmuReg::Cycles => r.cycles = value,
            PmuReg::CycleFilter => r.cycle_filter = v & FILTER_MASK,
            PmuReg::SelectedType if selected == CYCLES => r.cycle_filter = v & FILTER_MASK,
            PmuReg::SelectedType | PmuReg::Type(_) => {
                let n = if let PmuReg::Type(n) = which { n } else { selected };
                if let Some(t) = r.types.get_mut(n as usize) {
                    *t = v & TYPE_MASK;
                }
            }
            PmuReg::SelectedCounter | PmuReg::Counter(_) => {
                let n = if let PmuReg::Counter(n) = which { n } else { selected };
                if let Some(c) = r.counters.get_mut(n as usize) {
                    *c = v;
                }
            }
        }
        self.pmu_sync();
    }
}

/// A PMU register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PmuReg {
    Control,
    EnableSet,
    EnableClear,
    OverflowSet,
    OverflowClear,
    InterruptSet,
    InterruptClear,
    Select,
    Increment,
    Cycles,
    CycleFilter,
    SelectedType,
    SelectedCounter,
    Type(u32),
    Counter(u32),
}
