//! Debug registers, single step and breakpoints (vol. 3, chapter 18); and the debugger's own break- and watchpoints.
//!
//! Traps come after an instruction: what hits is collected in `DebugState::pending` and taken by `X86Cpu::complete`. An
//! access that hits in the middle of a block starts its instruction again in a block of its own.

use crate::config::Vendor;
use crate::exception::{Exception, Vector};
use crate::flags;
use crate::mode::X86Mode;
use crate::msr::debugctl;
use crate::state::{Seg, Shadow, X86Cpu};
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

/// Bits of DR6.
pub mod dr6 {
    pub const B: u64 = 15;
    /// Access to a debug register (general detect).
    pub const BD: u64 = 1 << 13;
    pub const BS: u64 = 1 << 14;
    pub const BT: u64 = 1 << 15;
    /// Bits that read as one: reserved ones, and BLD and RTM, whose causes are absent.
    pub const FIXED: u64 = 0xffff_0ff0;
    pub const WRITABLE: u64 = B | BD | BS | BT;
}

/// Bits of DR7.
pub mod dr7 {
    pub const GD: u64 = 1 << 13;
    pub const FIXED: u64 = 1 << 10;
    pub const WRITABLE: u64 = 0xffff_23ff;
}

/// The debugger's requests and the traps that wait.
#[derive(Default)]
pub(crate) struct DebugState {
    host_breakpoints: Vec<u64>,
    host_watches: Vec<HostWatch>,
    /// The debugger wants a stop after one instruction.
    pub host_step: bool,
    /// The breakpoint here was reported; the next execution of it goes on.
    resume_at: Option<u64>,
    /// The same of the instruction whose watchpoint was reported.
    resume_watched: Option<u64>,
    pub event: Option<DebugEvent>,
    /// Bits for DR6 of traps to be taken after the instruction.
    pub pending: u64,
    /// The instruction began with TF set.
    pub step_armed: bool,
    /// The instruction began in the shadow of the last.
    pub shadow_used: bool,
    /// The instruction is run again, alone, to take a data breakpoint after it.
    pub alone: bool,
    /// The instruction at work is a branch, and somebody wants to know.
    branch: Option<Branch>,
}

/// A branch as DEBUGCTL's functions see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch {
    pub from: u64,
    /// Behind it.
    pub next: u64,
    /// It is not conditional.
    pub always: bool,
}

impl DebugState {
    pub fn has_host_breakpoints(&self) -> bool {
        !self.host_breakpoints.is_empty()
    }
    /// After an event was delivered: nothing of the interrupted instruction counts any more.
    pub fn forget_instruction(&mut self) {
        self.pending = 0;
        self.step_armed = false;
        self.shadow_used = false;
        self.alone = false;
        self.branch = None;
    }
}

/// What breakpoint `n` is by DR7: enabled at all, R/W field, and its length.
fn breakpoint(dr7: u64, n: usize) -> Option<(u64, u64)> {
    if dr7 >> (2 * n) & 3 == 0 {
        return None;
    }
    let rw = dr7 >> (16 + 4 * n) & 3;
    let len = [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize];
    Some((rw, len))
}

impl X86Cpu {
    // ---- the debugger's side ----

    pub fn add_host_breakpoint(&mut self, va: u64) {
        if !self.debug.host_breakpoints.contains(&va) {
            self.debug.host_breakpoints.push(va);
        }
        self.rebuild_mode();
    }
    /// Loads a segment register as an instruction would; false: it cannot (CS changes with a jump, unless in real mode).
    pub fn set_selector(&mut self, seg: Seg, selector: u16) -> bool {
        let shadow = self.shadow;
        let loaded = if seg != Seg::Cs {
            self.load_segment(seg as u32, selector).is_ok()
        } else if self.protected() {
            false
        } else {
            // The program counter is a linear address to debuggers, and stays.
            let cs = self.real_segment(seg, selector);
            self.set_segment(seg, cs);
            true
        };
        self.shadow = shadow;
        self.rebuild_mode();
        loaded
    }
    /// Sets control, status and abridged tag word of the x87 unit.
    pub fn set_x87_words(&mut self, control: u16, status: u16, tags: u8) {
        self.x87.set_control_word(control);
        self.x87.set_status_word(status);
        self.x87.tags = tags.into();
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
        self.rebuild_mode();
    }
    /// The debugger's breakpoints and watchpoints, and whether it wants a stop after the next instruction: for an accelerator that
    /// has the processor it runs on look for them.
    #[must_use]
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
        let pc = Some(self.header.pc);
        if matches!(event, DebugEvent::Watchpoint { .. }) {
            self.debug.resume_watched = pc;
        } else {
            self.debug.resume_at = pc;
        }
        self.header.raised = 1;
        self.request(request::DEBUG);
    }
    /// An instruction ended or an event was delivered while the debugger steps.
    pub(crate) fn host_step_done(&mut self) {
        if self.debug.host_step {
            self.debug.host_step = false;
            self.rebuild_mode();
            self.host_stop(DebugEvent::Step);
        }
    }

    // ---- one instruction at a time ----

    /// Start of an instruction that is a block of its own.
    pub(crate) fn begin_one_insn(&mut self) {
        let mode = X86Mode(self.header.mode);
        self.debug.step_armed = mode.tf();
        self.debug.shadow_used = mode.shadow();
        self.debug.branch = if self.msr.debugctl != 0 { self.branch_here() } else { None };
    }
    pub(crate) fn records_branches(&self) -> bool {
        self.msr.debugctl & debugctl::LBR != 0
    }
    /// Control went from one linear address to another by something other than a branch instruction: an interrupt, an exception.
    pub(crate) fn record_event(&mut self, from: u64) {
        if self.records_branches() {
            let [branch_from, branch_to, ..] = self.msr.last_branch;
            self.msr.last_branch = [from, self.header.pc, branch_from, branch_to];
        }
    }
    /// The instruction is done and the next is at `next` (linear): traps after it are taken.
    #[inline]
    pub(crate) fn complete(&mut self, next: u64) {
        self.header.pc = next;
        if X86Mode(self.header.mode).one_insn() || self.debug.step_armed || self.debug.pending != 0 {
            self.complete_slow();
        }
    }
    fn complete_slow(&mut self) {
        let next = self.header.pc;
        let branch = self.debug.branch.take().filter(|b| b.always || b.next != next);
        if let Some(b) = branch.filter(|_| self.records_branches()) {
            [self.msr.last_branch[0], self.msr.last_branch[1]] = [b.from, next];
        }
        if std::mem::take(&mut self.debug.step_armed) && (self.msr.debugctl & debugctl::BTF == 0 || branch.is_some()) {
            self.debug.pending |= dr6::BS;
        }
        let mut rebuild = std::mem::take(&mut self.debug.alone);
        if std::mem::take(&mut self.debug.shadow_used) {
            self.shadow = Shadow::None;
            rebuild = true;
            if self.interrupt_waits != 0 {
                self.request(request::INTERRUPT);
            }
        }
        if self.near_limit && !self.page_crosses_limit() {
            self.near_limit = false;
            rebuild = true;
        }
        if rebuild {
            self.rebuild_mode();
        }
        if self.shadow == Shadow::MovSs {
            // Data breakpoints wait until after the next instruction; the single-step trap does not.
            self.debug.pending &= !dr6::BS;
        } else if self.debug.pending != 0 {
            self.take_debug_trap();
        }
        self.host_step_done();
    }
    /// #DB for the traps that wait.
    pub(crate) fn take_debug_trap(&mut self) {
        let payload = std::mem::take(&mut self.debug.pending);
        if payload != 0 {
            self.raise_exception(Exception { vector: Vector::Debug, code: None, cr2: payload });
        }
    }
    /// DR6, DR7 and DEBUGCTL on the entry to #DB: the payload replaces B0–B3 and is added to the rest.
    pub(crate) fn note_debug(&mut self, payload: u64) {
        self.dr[6] = (self.dr[6] & !dr6::B) | (payload & dr6::WRITABLE) | dr6::FIXED;
        self.dr[7] &= !dr7::GD;
        self.msr.debugctl &= !(debugctl::LBR | debugctl::BTF);
    }
    /// Does this page of code end behind the limit of CS?
    fn page_crosses_limit(&self) -> bool {
        let end = (self.header.pc | 4095).wrapping_add(15).wrapping_sub(self.seg[Seg::Cs as usize].base);
        end > u64::from(self.seg[Seg::Cs as usize].limit)
    }
    pub(crate) fn set_near_limit(&mut self) {
        self.near_limit = true;
        self.rebuild_mode();
        self.header.raised = 1;
    }

    // ---- debug registers ----

    fn debug_register_access(&mut self, n: u32) -> Result<usize, Exception> {
        if self.cpl() != 0 {
            return Err(Exception::gp(0));
        }
        let n = match n {
            4 | 5 if self.cr4 & crate::mmu::cr4::DE != 0 => return Err(Exception::ud()),
            4 | 5 => n + 2,
            0..=7 => n,
            _ => return Err(Exception::ud()),
        };
        if self.dr[7] & dr7::GD != 0 {
            return Err(Exception { vector: Vector::Debug, code: None, cr2: dr6::BD });
        }
        Ok(n as usize)
    }
    /// MOV from a debug register, with all its checks.
    ///
    /// # Errors
    /// The exception to raise.
    pub fn read_dr(&mut self, n: u32) -> Result<u64, Exception> {
        Ok(self.dr[self.debug_register_access(n)?])
    }
    /// MOV to a debug register (may change the mode).
    ///
    /// # Errors
    /// The exception to raise.
    pub fn write_dr(&mut self, n: u32, value: u64) -> Result<(), Exception> {
        let n = self.debug_register_access(n)?;
        if n >= 6 && value >> 32 != 0 {
            return Err(Exception::gp(0));
        }
        match n {
            6 => self.dr[6] = value & dr6::WRITABLE | dr6::FIXED,
            7 => self.dr[7] = value & dr7::WRITABLE | dr7::FIXED,
            _ => self.dr[n] = value,
        }
        if n != 6 {
            if self.dr[7] & 0xff != 0 || n == 7 {
                self.flush(TlbFlush::All, false);
            }
            self.rebuild_mode();
        }
        Ok(())
    }
    pub(crate) fn reset_debug_registers(&mut self) {
        self.dr = [0; 8];
        self.dr[6] = dr6::FIXED;
        self.dr[7] = dr7::FIXED;
        self.debug.forget_instruction();
    }
    /// Is an instruction breakpoint of DR7 enabled?
    pub(crate) fn has_breakpoints(&self) -> bool {
        self.dr[7] & 0xff != 0 && (0..4).any(|n| matches!(breakpoint(self.dr[7], n), Some((0, _))))
    }

    // ---- hits ----

    /// Before an instruction under `X86Mode::breakpoints`.
    pub(crate) fn breakpoint_check(&mut self) {
        let pc = self.header.pc;
        if self.debug.has_host_breakpoints()
            && self.debug.host_breakpoints.contains(&pc)
            && self.debug.resume_at.take() != Some(pc)
        {
            return self.host_stop(DebugEvent::Breakpoint);
        }
        if self.eflags & flags::RF != 0 {
            self.eflags &= !flags::RF;
            return;
        }
        // Behind a load of SS Intel's processors suppress them, AMD's do not.
        let suppressed = self.shadow == Shadow::MovSs && self.config.vendor == Vendor::Intel;
        if self.dr[7] & 0xff == 0 || suppressed {
            return;
        }
        let mut hit = 0;
        for n in 0..4 {
            if matches!(breakpoint(self.dr[7], n), Some((0, _))) && self.dr[n] == pc {
                hit |= 1 << n;
            }
        }
        if hit != 0 {
            self.raise_exception(Exception { vector: Vector::Debug, code: None, cr2: hit });
        }
    }
    /// The data breakpoints that an access of `size` bytes at `va` hits; `kinds`: mask of R/W fields.
    fn data_hits(&self, va: u64, size: u32, kinds: u32) -> u64 {
        let last = va.wrapping_add(u64::from(size.max(1)) - 1);
        let mut hit = 0;
        for n in 0..4 {
            if let Some((rw, len)) = breakpoint(self.dr[7], n)
                && kinds >> rw & 1 != 0
            {
                let first = self.dr[n] & !(len - 1);
                if first <= last && va <= first + (len - 1) {
                    hit |= 1 << n;
                }
            }
        }
        hit
    }
    /// Port breakpoints (CR4.DE): called by IN and OUT before they complete.
    pub fn watch_port(&mut self, port: u16, size: u32) {
        if self.dr[7] & 0xff != 0 && self.cr4 & crate::mmu::cr4::DE != 0 {
            let hit = self.data_hits(port.into(), size, 1 << 2);
            self.pend_traps(hit);
        }
    }
    /// Traps of an access by a helper: taken when the instruction completes, or soon.
    fn pend_traps(&mut self, hit: u64) {
        if hit != 0 {
            self.debug.pending |= hit;
            self.request(request::INTERRUPT);
        }
    }
    /// Data breakpoints on an access that a helper makes.
    #[inline]
    pub(crate) fn watch_helper_access(&mut self, va: u64, size: u32, write: bool) {
        if self.dr[7] & 0xff != 0 {
            let hit = self.data_hits(va, size, if write { 0b1010 } else { 0b1000 });
            self.pend_traps(hit);
        }
    }
    /// Does any watchpoint touch the 4 KiB page at `va`?
    pub(crate) fn page_is_watched(&self, va: u64) -> bool {
        if self.debug.host_watches.is_empty() && self.dr[7] & 0xff == 0 {
            return false;
        }
        let p = va >> 12;
        self.debug.host_watches.iter().any(|w| w.va >> 12 <= p && p <= w.va.wrapping_add(w.len.max(1) - 1) >> 12)
            || (0..4).any(|n| matches!(breakpoint(self.dr[7], n), Some((1 | 3, _))) && self.dr[n] >> 12 == p)
    }
    /// Watchpoints on an access to a watched page.
    pub(crate) fn watch_check(&mut self, access: MemAccess) -> Result<(), Raised> {
        let write = match access.kind {
            Access::Fetch => return Ok(()),
            Access::Read => false,
            Access::Write => true,
        };
        let (first, last) = (access.va, access.va.saturating_add(u64::from(access.size.max(1)) - 1));
        let pc = self.header.pc;
        let watch = self.debug.host_watches.iter().find(|w| {
            (if write { w.write } else { w.read }) && w.va <= last && first <= w.va.wrapping_add(w.len.max(1) - 1)
        });
        if let Some(w) = watch.copied()
            && self.debug.resume_watched.take() != Some(pc)
        {
            self.host_stop(DebugEvent::Watchpoint { va: w.va, write });
            return Err(Raised);
        }
        let hit = self.data_hits(first, access.size, if write { 0b1010 } else { 0b1000 });
        if hit == 0 {
            return Ok(());
        }
        if X86Mode(self.header.mode).one_insn() {
            self.debug.pending |= hit;
            return Ok(());
        }
        self.debug.alone = true;
        self.rebuild_mode();
        Err(Raised)
    }
}

#[cfg(test)]
mod tests {
    use super::breakpoint;

    #[test]
    fn fields_of_dr7() {
        assert_eq!(breakpoint(0x400, 0), None);
        assert_eq!(breakpoint(0x1, 0), Some((0, 1)));
        assert_eq!(breakpoint(0x00d0_0008, 1), Some((1, 4)));
        assert_eq!(breakpoint(0xb000_0080, 3), Some((3, 8)));
    }
}
