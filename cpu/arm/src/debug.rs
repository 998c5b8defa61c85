//! Self-hosted debug (DDI 0487 D2): breakpoints, watchpoints, software step; and the debugger's own break- and watchpoints.

use crate::bits;
use crate::exception::Vector;
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::syndrome::{self, ec, iss};
use rhea_ir::guest::{Access, MemAccess, Raised, TlbFlush, request};

/// Why a vCPU stopped for a debugger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugEvent {
    Breakpoint,
    Watchpoint { va: u64, write: bool },
    Step,
}

/// What a debugger's watchpoint stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWatch {
    pub va: u64,
    pub len: u64,
    pub read: bool,
    pub write: bool,
}

/// Debug registers and the debugger's requests.
#[derive(Default)]
pub(crate) struct Debug {
    pub bvr: [u64; 16],
    pub bcr: [u64; 16],
    pub wvr: [u64; 16],
    pub wcr: [u64; 16],
    host_breakpoints: Vec<u64>,
    host_watches: Vec<HostWatch>,
    /// The debugger wants a stop after one instruction.
    pub host_step: bool,
    /// The instruction of the step has been let through.
    stepping: bool,
    /// The breakpoint here was reported; the next execution of it goes on.
    resume_at: Option<u64>,
    pub event: Option<DebugEvent>,
}

impl Debug {
    pub fn reset(&mut self) {
        self.bvr = [0; 16];
        self.bcr = [0; 16];
        self.wvr = [0; 16];
        self.wcr = [0; 16];
    }
    pub fn has_host_breakpoints(&self) -> bool {
        !self.host_breakpoints.is_empty()
    }
    pub fn has_breakpoints(&self) -> bool {
        self.bcr.iter().any(|b| b & 1 != 0)
    }
    fn has_watchpoints(&self) -> bool {
        self.wcr.iter().any(|w| w & 1 != 0)
    }
}

/// First and last byte that a watchpoint register pair watches.
fn watch_range(wvr: u64, wcr: u64) -> Option<(u64, u64)> {
    let mask = (wcr >> 24) & 0x1f;
    let address = ((wvr << 8) as i64 >> 8) as u64 & !3;
    if mask >= 3 {
        let low = (1u64 << mask) - 1;
        let start = address & !low;
        return Some((start, start | low));
    }
    let bas = (wcr >> 5) & 0xff;
    if bas == 0 {
        return None;
    }
    // A byte-address-select with holes is CONSTRAINED UNPREDICTABLE: the span from the first to the last bit is taken.
    let (first, last) = (u64::from(bas.trailing_zeros()), 63 - u64::from(bas.leading_zeros()));
    Some((address.wrapping_add(first), address.wrapping_add(last)))
}

impl ArmCpu {
    // ---- the debugger's side ----

    pub fn add_host_breakpoint(&mut self, va: u64) {
        if !self.debug.host_breakpoints.contains(&va) {
            self.debug.host_breakpoints.push(va);
        }
        self.rebuild_mode();
    }
    pub fn remove_host_breakpoint(&mut self, va: u64) {
        self.debug.host_breakpoints.retain(|&b| b != va);
        self.rebuild_mode();
    }
    pub fn add_host_watch(&mut self, watch: HostWatch) {
        self.debug.host_watches.push(watch);
        self.flush(TlbFlush::All, false);
    }
    pub fn remove_host_watch(&mut self, watch: HostWatch) {
        if let Some(i) = self.debug.host_watches.iter().position(|w| *w == watch) {
            self.debug.host_watches.swap_remove(i);
        }
        self.flush(TlbFlush::All, false);
    }
    /// Stop after the next instruction.
    pub fn set_host_step(&mut self, on: bool) {
        self.debug.host_step = on;
        self.debug.stepping = false;
        self.rebuild_mode();
    }
    /// What the debugger wants of an accelerator that runs the processor by other means: breakpoints, watchpoints, a single step.
    pub fn host_stops(&self) -> (&[u64], &[HostWatch], bool) {
        (&self.debug.host_breakpoints, &self.debug.host_watches, self.debug.host_step)
    }
    /// What such an accelerator found; one instruction was a step.
    pub fn stopped_for_debugger(&mut self, event: DebugEvent) {
        self.debug.host_step = false;
        self.debug.event = Some(event);
        self.rebuild_mode();
    }
    /// The event that made `poll` answer `Debug`.
    pub fn take_debug_event(&mut self) -> Option<DebugEvent> {
        self.debug.event.take()
    }
    fn host_stop(&mut self, event: DebugEvent) {
        self.debug.event = Some(event);
        self.debug.resume_at = Some(self.header.pc);
        self.header.raised = 1;
        self.request(request::DEBUG);
    }

    // ---- the architecture's side ----

    /// The exception level that debug exceptions go to.
    pub(crate) fn debug_target(&self) -> u32 {
        let to_el2 =
            self.el2_enabled() && (self[Reg::MdcrEl2] & bits::mdcr::TDE != 0 || self.hcr() & bits::hcr::TGE != 0);
        if to_el2 { 2 } else { 1 }
    }
    /// AArch64.GenerateDebugExceptionsFrom: are debug exceptions (but BRK) enabled at `el`?
    pub(crate) fn debug_enabled(&self, el: u32) -> bool {
        self.debug_enabled_with(el, self.pstate & bits::pstate::D != 0)
    }
    pub(crate) fn debug_enabled_with(&self, el: u32, masked: bool) -> bool {
        if self[Reg::OslarEl1] & 1 != 0 || self[Reg::OsdlrEl1] & 1 != 0 {
            return false;
        }
        if self.lower_secure() && self[Reg::MdcrEl3] & bits::mdcr::SDD != 0 {
            return false;
        }
        let target = self.debug_target();
        if el == target { self[Reg::MdscrEl1] & bits::mdscr::KDE != 0 && !masked } else { el < target }
    }

    fn debug_exception(&mut self, class: u64, iss_bits: u64, far: Option<u64>) {
        let target = self.debug_target();
        let class = if self.el() == target { class + 1 } else { class };
        self.take_exception(
            target,
            Vector::Sync,
            Some(syndrome::syndrome(class, iss_bits | 0x22)),
            far,
            self.header.pc,
        );
    }

    /// Start of an instruction under `ArmMode::single_step`.
    pub(crate) fn step_check(&mut self) {
        if self.debug.host_step {
            if self.debug.stepping {
                self.debug.stepping = false;
                self.debug.host_step = false;
                self.rebuild_mode();
                return self.host_stop(DebugEvent::Step);
            }
            self.debug.stepping = true;
        }
        if self[Reg::MdscrEl1] & bits::mdscr::SS == 0 || !self.debug_enabled(self.el()) {
            return;
        }
        if self.pstate & bits::pstate::SS == 0 {
            // Active-pending. ISV is valid; EX says whether a load-exclusive was stepped, which is not tracked.
            return self.debug_exception(ec::STEP_LOWER, iss::ISV, None);
        }
        self.pstate &= !bits::pstate::SS;
        self.rebuild_mode();
    }

    /// Before an instruction under `ArmMode::breakpoints`.
    pub(crate) fn breakpoint_check(&mut self) {
        let pc = self.header.pc;
        if self.debug.host_breakpoints.contains(&pc) && self.debug.resume_at.take() != Some(pc) {
            return self.host_stop(DebugEvent::Breakpoint);
        }
        let el = self.el();
        if self[Reg::MdscrEl1] & bits::mdscr::MDE == 0 || !self.debug_enabled(el) {
            return;
        }
        for n in 0..self.config.breakpoints as usize {
            if self.breakpoint_matches(n, pc, el) {
                return self.debug_exception(ec::BREAKPOINT_LOWER, 0, None);
            }
        }
    }
    fn state_matches(&self, control: u64, pmc_shift: u32, hmc: bool, el: u32) -> bool {
        let ssc = (control >> 14) & 3;
        let secure = self.is_secure();
        let security = match ssc {
            0 => true,
            1 => !secure,
            2 => secure,
            _ => hmc || secure,
        };
        let pmc = (control >> pmc_shift) & 3;
        // DDI 0487 table D2-9: HMC adds EL2 (and EL3), PMC/PAC chooses EL1 and EL0.
        let level = match el {
            0 => pmc & 2 != 0 || (pmc == 0 && !hmc && pmc_shift == 1),
            1 => pmc & 1 != 0,
            2 => hmc && ssc != 2,
            _ => hmc && ssc != 1,
        };
        security && level
    }
    fn breakpoint_matches(&self, n: usize, pc: u64, el: u32) -> bool {
        let bcr = self.debug.bcr[n];
        if bcr & 1 == 0 || !self.state_matches(bcr, 1, bcr & (1 << 13) != 0, el) {
            return false;
        }
        let kind = (bcr >> 20) & 0xf;
        let address =
            |n: usize| ((self.debug.bvr[n] << 8) as i64 >> 8) as u64 & !3 == ((pc << 8) as i64 >> 8) as u64 & !3;
        match kind {
            0 => address(n),
            1 => {
                let linked = ((bcr >> 16) & 0xf) as usize;
                address(n) && linked < self.config.breakpoints as usize && self.context_matches(linked)
            }
            // Unlinked context breakpoints.
            2 | 6 | 8 | 10 | 12 | 14 => self.context_matches(n),
            _ => false,
        }
    }
    fn context_matches(&self, n: usize) -> bool {
        let (first, last) = (self.config.breakpoints - self.config.context_breakpoints, self.config.breakpoints);
        if n < first as usize || n >= last as usize {
            return false;
        }
        let v = self.debug.bvr[n];
        let context1 = self[Reg::ContextidrEl1] as u32 == v as u32;
        let vmid = (self[Reg::VttbrEl2] >> 48) & 0xffff == (v >> 32) & 0xffff;
        match (self.debug.bcr[n] >> 21) & 7 {
            // Linked or not is bit 20.
            1 => context1 && self.el() < 2,
            4 => vmid && self.el2_enabled(),
            5 => context1 && vmid && self.el2_enabled(),
            6 => self[Reg::ContextidrEl2] as u32 == (v >> 32) as u32 && self.el2_enabled(),
            7 => context1 && self[Reg::ContextidrEl2] as u32 == (v >> 32) as u32 && self.el2_enabled(),
            _ => false,
        }
    }

    /// Does any watchpoint touch the 4 KiB page at `va`?
    pub(crate) fn page_is_watched(&self, va: u64) -> bool {
        if self.debug.host_watches.is_empty() && !self.debug.has_watchpoints() {
            return false;
        }
        let page = |v: u64| (v << 8) >> 20;
        let p = page(va);
        self.debug.host_watches.iter().any(|w| page(w.va) <= p && p <= page(w.va.wrapping_add(w.len.max(1) - 1)))
            || (0..self.config.watchpoints as usize).any(|n| {
                self.debug.wcr[n] & 1 != 0
                    && watch_range(self.debug.wvr[n], self.debug.wcr[n])
                        .is_some_and(|(a, b)| page(a) <= p && p <= page(b))
            })
    }
    /// Watchpoints on an access to a watched page.
    pub(crate) fn watch_check(&mut self, access: MemAccess) -> Result<(), Raised> {
        let write = match access.kind {
            Access::Fetch => return Ok(()),
            Access::Read => false,
            Access::Write => true,
        };
        // Compared without the top byte; an access never wraps past it in practice.
        let low = |v: u64| v << 8 >> 8;
        let (first, last) = (low(access.va), low(access.va).saturating_add(u64::from(access.size.max(1)) - 1));
        let hit = |a: u64, b: u64| low(a) <= last && first <= low(b);
        let pc = self.header.pc;
        if let Some(w) = self
            .debug
            .host_watches
            .iter()
            .find(|w| (if write { w.write } else { w.read }) && hit(w.va, w.va.wrapping_add(w.len.max(1) - 1)))
            .copied()
            && self.debug.resume_at.take() != Some(pc)
        {
            self.host_stop(DebugEvent::Watchpoint { va: w.va, write });
            return Err(Raised);
        }
        if self[Reg::MdscrEl1] & bits::mdscr::MDE == 0 || !self.debug_enabled(self.el()) {
            return Ok(());
        }
        // Unprivileged accesses (LDTR) match as EL0.
        let el = if crate::mmu::is_el0_index(access.mmu_idx) { 0 } else { self.el() };
        for n in 0..self.config.watchpoints as usize {
            let wcr = self.debug.wcr[n];
            let direction = wcr >> 3 & if write { 2 } else { 1 } != 0;
            if wcr & 1 == 0 || !direction || !self.state_matches(wcr, 1, wcr & (1 << 13) != 0, el) {
                continue;
            }
            let Some((a, b)) = watch_range(self.debug.wvr[n], wcr) else { continue };
            if !hit(a, b) {
                continue;
            }
            let linked = ((wcr >> 16) & 0xf) as usize;
            if wcr & (1 << 20) != 0 && !self.context_matches(linked) {
                continue;
            }
            let far = if low(access.va) < low(a) { a } else { access.va };
            self.debug_exception(ec::WATCHPOINT_LOWER, if write { iss::WNR } else { 0 }, Some(far));
            return Err(Raised);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::watch_range;

    #[test]
    fn watched_bytes() {
        assert_eq!(watch_range(0x1000, 0xff << 5), Some((0x1000, 0x1007)));
        assert_eq!(watch_range(0x1000, 0b1100 << 5), Some((0x1002, 0x1003)));
        assert_eq!(watch_range(0x1000, 0), None);
        assert_eq!(watch_range(0x1234_5678, 12 << 24 | 0xff << 5), Some((0x1234_5000, 0x1234_5fff)));
    }
}
