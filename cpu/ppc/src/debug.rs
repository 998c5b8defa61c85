//! Debug facilities (Book III, chapter 10): tracing, CIABR and DAWR; and a debugger's own break- and watchpoints.

use crate::bits::{dsisr, msr};
use crate::config::Isa;
use crate::exception::{Vector, trace};
use crate::spr;
use crate::state::PpcCpu;
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

/// The debugger's requests.
#[derive(Default)]
pub(crate) struct Debug {
    host_breakpoints: Vec<u64>,
    host_watches: Vec<HostWatch>,
    /// The debugger wants a stop after one instruction.
    host_step: bool,
    /// The breakpoint here was reported; the next execution of it goes on.
    resume_at: Option<u64>,
    /// CIABR matched: the instruction runs alone, then the trace interrupt is due.
    ciabr_step: bool,
    pub event: Option<DebugEvent>,
}

impl Debug {
    pub fn reset(&mut self) {
        self.ciabr_step = false;
    }
    pub fn has_breakpoints(&self) -> bool {
        !self.host_breakpoints.is_empty()
    }
    /// Is tracing needed for another reason than MSR.SE?
    pub fn steps(&self) -> bool {
        self.host_step || self.ciabr_step
    }
}

/// The two data address watchpoint register pairs.
const WATCHES: [(u32, u32); 2] = [(spr::DAWR0, spr::DAWRX0), (spr::DAWR1, spr::DAWRX1)];

/// Bits of DAWRX.
mod dawrx {
    pub const HYPERVISOR: u64 = 4;
    pub const PRIVILEGED: u64 = 2;
    pub const PROBLEM: u64 = 1;
    /// Translation is ignored, or must be on.
    pub const WT_IGNORED: u64 = 8;
    pub const WT: u64 = 0x10;
    pub const READ: u64 = 0x20;
    pub const WRITE: u64 = 0x40;
    pub const LENGTH_SHIFT: u32 = 10;
}

impl PpcCpu {
    // ---- the debugger's side ----

    pub fn add_host_breakpoint(&mut self, va: u64) {
        if !self.sys.debug.host_breakpoints.contains(&va) {
            self.sys.debug.host_breakpoints.push(va);
        }
        self.rebuild_mode();
    }
    pub fn remove_host_breakpoint(&mut self, va: u64) {
        self.sys.debug.host_breakpoints.retain(|&b| b != va);
        self.rebuild_mode();
    }
    pub fn add_host_watch(&mut self, watch: HostWatch) {
        self.sys.debug.host_watches.push(watch);
        self.flush(TlbFlush::All, false);
    }
    pub fn remove_host_watch(&mut self, watch: HostWatch) {
        let watches = &mut self.sys.debug.host_watches;
        if let Some(i) = watches.iter().position(|w| *w == watch) {
            watches.swap_remove(i);
        }
        self.flush(TlbFlush::All, false);
    }
    /// Stop after the next instruction.
    pub fn set_host_step(&mut self, on: bool) {
        self.sys.debug.host_step = on;
        self.rebuild_mode();
    }
    /// The event that made `poll` answer `Debug`.
    pub fn take_debug_event(&mut self) -> Option<DebugEvent> {
        self.sys.debug.event.take()
    }
    fn host_stop(&mut self, event: DebugEvent) {
        self.sys.debug.event = Some(event);
        self.sys.debug.resume_at = Some(self.header.pc);
        self.header.raised = 1;
        self.request(request::DEBUG);
    }
    /// An instruction ended in an interrupt, or in a change of MSR that is not traced: a debugger's step ends here.
    pub(crate) fn step_into_handler(&mut self) {
        if std::mem::take(&mut self.sys.debug.ciabr_step) {
            self.rebuild_mode();
        }
        if std::mem::take(&mut self.sys.debug.host_step) {
            self.rebuild_mode();
            self.host_stop(DebugEvent::Step);
        }
    }

    // ---- the architecture's side ----

    /// CIABR as H_SET_MODE sets it: address, and the state (1 problem, 2 privileged) in the low bits.
    pub fn set_ciabr(&mut self, v: u64) {
        self.spr[spr::CIABR as usize] = v;
        self.rebuild_mode();
    }
    /// Data address watchpoint 0 or 1 as H_SET_MODE sets it; false: there is no such register.
    pub fn set_watchpoint(&mut self, n: usize, dawr: u64, dawrx: u64) -> bool {
        let Some((address, control)) = WATCHES.get(n) else { return false };
        if n != 0 && self.config.isa < Isa::V3_1 {
            return false;
        }
        self.spr[*address as usize] = dawr & !7;
        self.spr[*control as usize] = dawrx & 0xffff_ffff & !dawrx::HYPERVISOR;
        self.flush(TlbFlush::All, false);
        true
    }
    /// Does CIABR apply in the current state?
    pub(crate) fn ciabr_enabled(&self) -> bool {
        match self.spr[spr::CIABR as usize] & 3 {
            1 => self.msr & msr::PR != 0,
            2 => self.msr & msr::PR == 0,
            _ => false,
        }
    }

    /// After an instruction under `PpcMode::single_step`, or a taken branch under `branch_trace`.
    pub(crate) fn traced(&mut self, next: u64) {
        let at = std::mem::replace(&mut self.header.pc, next);
        let ciabr = std::mem::take(&mut self.sys.debug.ciabr_step);
        if std::mem::take(&mut self.sys.debug.host_step) {
            self.rebuild_mode();
            return self.host_stop(DebugEvent::Step);
        }
        if ciabr {
            self.rebuild_mode();
        }
        if ciabr || self.msr & (msr::SE | msr::BE) != 0 {
            self.spr[spr::SIAR as usize] = at;
            let cause = trace::TRACE | if ciabr { trace::CIABR } else { 0 } | self.prefixed_cause(at);
            self.take_interrupt(Vector::Trace, next, cause);
        }
    }

    /// Before an instruction under `PpcMode::breakpoints`.
    pub(crate) fn breakpoint_check(&mut self) {
        let pc = self.header.pc;
        if self.sys.debug.host_breakpoints.contains(&pc) && self.sys.debug.resume_at.take() != Some(pc) {
            return self.host_stop(DebugEvent::Breakpoint);
        }
        if self.ciabr_enabled() && self.spr[spr::CIABR as usize] & !3 == pc & !3 && !self.sys.debug.ciabr_step {
            // Once more from here, alone in its block; the interrupt comes after it.
            self.sys.debug.ciabr_step = true;
            self.rebuild_mode();
            self.header.raised = 1;
        }
    }

    /// First and last byte that a watchpoint watches, and DAWRX, if it is on.
    fn watched(&self, n: usize) -> Option<(u64, u64, u64)> {
        let (address, control) = WATCHES[n];
        let (address, control) = (self.spr[address as usize], self.spr[control as usize]);
        let on = control & (dawrx::READ | dawrx::WRITE) != 0 && control & (dawrx::PROBLEM | dawrx::PRIVILEGED) != 0;
        let length = ((control >> dawrx::LENGTH_SHIFT & 0x3f) + 1) * 8;
        on.then(|| (address, address.wrapping_add(length - 1), control))
    }
    /// Does any watchpoint touch the 4 KiB page at `va`?
    pub(crate) fn any_page_is_watched(&self) -> bool {
        !self.sys.debug.host_watches.is_empty() || (0..WATCHES.len()).any(|n| self.watched(n).is_some())
    }
    pub(crate) fn page_is_watched(&self, va: u64) -> bool {
        let page = |v: u64| v >> 12;
        let p = page(va);
        let within = |(a, b): (u64, u64)| page(a) <= p && p <= page(b);
        self.sys.debug.host_watches.iter().any(|w| within((w.va, w.va.wrapping_add(w.len.max(1) - 1))))
            || (0..WATCHES.len()).any(|n| self.watched(n).is_some_and(|(a, b, _)| within((a, b))))
    }
    /// Watchpoints on an access to a watched page.
    pub(crate) fn watch_check(&mut self, access: MemAccess) -> Result<(), Raised> {
        let write = match access.kind {
            Access::Fetch => return Ok(()),
            Access::Read => false,
            Access::Write => true,
        };
        let (first, last) = (access.va, access.va.saturating_add(u64::from(access.size.max(1)) - 1));
        let hit = |a: u64, b: u64| a <= last && first <= b;
        let pc = self.header.pc;
        let host = self
            .sys
            .debug
            .host_watches
            .iter()
            .find(|w| (if write { w.write } else { w.read }) && hit(w.va, w.va.wrapping_add(w.len.max(1) - 1)));
        if let Some(w) = host.copied()
            && self.sys.debug.resume_at.take() != Some(pc)
        {
            self.host_stop(DebugEvent::Watchpoint { va: w.va, write });
            return Err(Raised);
        }
        let problem = self.msr & msr::PR != 0;
        let translated = self.msr & msr::DR != 0;
        for n in 0..WATCHES.len() {
            let Some((a, b, control)) = self.watched(n) else { continue };
            let kind = control & if write { dawrx::WRITE } else { dawrx::READ } != 0;
            let state = control & if problem { dawrx::PROBLEM } else { dawrx::PRIVILEGED } != 0;
            let translation = control & dawrx::WT_IGNORED != 0 || (control & dawrx::WT != 0) == translated;
            if kind && state && translation && hit(a, b) {
                let at = access.va.max(a);
                self.raise_data_storage(at, dsisr::DAWR, write);
                return Err(Raised);
            }
        }
        Ok(())
    }

    // ---- registers in the order of GDB's target description for 64-bit Power ----

    /// MSR for a debugger's write: what an instruction could have set.
    pub fn debugger_set_msr(&mut self, v: u64) {
        self.msr = self.msr & !crate::system::MSR_BITS | v & crate::system::MSR_BITS;
        self.rebuild_mode();
    }
    /// Sets the pc, for a debugger.
    pub fn set_pc(&mut self, pc: u64) {
        self.header.pc = pc & !3;
    }
    pub fn pc(&self) -> u64 {
        self.header.pc
    }
}
