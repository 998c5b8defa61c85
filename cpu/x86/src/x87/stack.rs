//! The register stack, and what exceptions do.

use super::{X87, sw};
use crate::exception::Vector;
use crate::mmu::cr0;
use crate::state::X86Cpu;
use rhea_float::extended::{Env80, F80, exception};

/// Instruction word that generated code passes to helpers.
#[derive(Clone, Copy, Debug)]
pub struct Info(pub u64);

impl Info {
    /// Bit: there is a memory operand, of the segment in bits 12–14.
    pub const MEMORY: u64 = 1 << 11;
    pub const SEGMENT_SHIFT: u32 = 12;
    /// ST(i), and another.
    pub const I_SHIFT: u32 = 16;
    pub const J_SHIFT: u32 = 20;
    /// Pops once, twice.
    pub const POP: u64 = 1 << 24;
    pub const POP_TWICE: u64 = 1 << 25;
    /// Compares: quiet NaNs are not invalid; the result goes to EFLAGS.
    pub const QUIET: u64 = 1 << 26;
    pub const EFLAGS: u64 = 1 << 27;
    pub const TRUNCATE: u64 = 1 << 28;
    /// FSTPNCE: an empty ST(0) is no stack fault.
    pub const UNCHECKED: u64 = 1 << 29;
    /// Which operation, or a size.
    pub const OPERATION_SHIFT: u32 = 32;

    pub fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
    pub fn i(self) -> u32 {
        (self.0 >> Info::I_SHIFT) as u32 & 7
    }
    pub fn j(self) -> u32 {
        (self.0 >> Info::J_SHIFT) as u32 & 7
    }
    pub fn operation(self) -> u32 {
        (self.0 >> Info::OPERATION_SHIFT) as u32
    }
    pub fn pops(self) -> u32 {
        u32::from(self.has(Info::POP)) + 2 * u32::from(self.has(Info::POP_TWICE))
    }
}

impl X87 {
    pub(super) fn is_empty(&self, i: u32) -> bool {
        self.tags >> self.physical(i) & 1 == 0
    }
    pub(super) fn get(&self, i: u32) -> F80 {
        let (significand, sign_exponent) = self.st(i);
        F80 { sign_exponent, significand }
    }
    pub(super) fn put(&mut self, i: u32, v: F80) {
        self.set_st(i, v.significand, v.sign_exponent);
        self.tags |= 1 << self.physical(i);
    }
    pub(super) fn pop(&mut self) {
        self.tags &= !(1 << self.physical(0));
        self.top = self.top.wrapping_add(1) & 7;
    }
    pub(super) fn pop_n(&mut self, n: u32) {
        for _ in 0..n {
            self.pop();
        }
    }
    /// Pushes where the caller checked for room.
    pub(super) fn push(&mut self, v: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.put(0, v);
    }
    pub(super) fn set_c1(&mut self, c1: bool) {
        self.status = self.status & !sw::C1 | if c1 { sw::C1 } else { 0 };
    }
    pub(super) fn set_conditions(&mut self, c: u32) {
        self.status = self.status & !sw::CC | c;
    }
    /// Stack overflow or underflow; true if it is masked.
    pub(super) fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status |= sw::IE | sw::SF;
        self.set_c1(overflow);
        self.update_summary();
        self.control & sw::IE != 0
    }
    pub(super) fn env(&self) -> Env80 {
        Env80::new(self.control)
    }
    /// Takes over the exceptions of an operation; true if its result is to be delivered to a register.
    pub(super) fn settle(&mut self, env: &Env80) -> bool {
        self.status |= env.flags;
        self.set_c1(env.rounded_up && env.flags & exception::PRECISION != 0);
        self.update_summary();
        env.flags & !self.control & (exception::INVALID | exception::DENORMAL | exception::ZERO_DIVIDE) == 0
    }
    /// The same for a result that is stored in memory.
    pub(super) fn settle_store(&mut self, env: &Env80) -> bool {
        let before = exception::OVERFLOW | exception::UNDERFLOW;
        let stored = env.flags & !self.control & before == 0;
        if !stored {
            // Nothing was rounded.
            let mut env = *env;
            env.flags &= !exception::PRECISION;
            self.settle(&env);
            return false;
        }
        self.settle(env)
    }
    /// A push of `v` unless there is no room.
    pub(super) fn load(&mut self, v: F80) {
        if self.is_empty(7) {
            self.push(v);
            return;
        }
        if self.stack_fault(true) {
            self.push(F80::INDEFINITE);
        }
    }
}

impl X86Cpu {
    /// Before a waiting instruction: true if it goes on, false if #MF was raised or, with CR0.NE clear, the processor stands
    /// here until an interrupt comes (vol. 1, 8.7.2).
    pub(crate) fn x87_wait(&mut self) -> bool {
        if !self.x87.error_pending() {
            return true;
        }
        if self.cr0 & cr0::NE != 0 {
            self.raise(Vector::X87, None);
            return false;
        }
        let hooks = self.hooks.clone();
        hooks.ferr(self.index, true);
        if hooks.ignne(self.index) {
            return true;
        }
        self.header.raised = 1;
        self.wait_for_interrupt();
        false
    }
    /// The error is gone: FERR# too.
    pub(super) fn x87_quiet(&mut self, was_pending: bool) {
        if was_pending && self.cr0 & cr0::NE == 0 && !self.x87.error_pending() {
            let hooks = self.hooks.clone();
            hooks.ferr(self.index, false);
        }
    }
    /// Before an instruction that is not a control instruction: waits and notes the pointers.
    pub(super) fn x87_begin(&mut self, info: Info, address: u64) -> bool {
        if !self.x87_wait() {
            return false;
        }
        let cs = self.seg[crate::state::Seg::Cs as usize];
        self.x87.fop = info.0 as u32 & 0x7ff;
        self.x87.fip = if self.is_long() { self.header.pc } else { self.header.pc.wrapping_sub(cs.base) };
        self.x87.fcs = cs.selector;
        if info.has(Info::MEMORY) {
            let n = (info.0 >> Info::SEGMENT_SHIFT) as usize & 7;
            let s = self.seg[n.min(5)];
            self.x87.fdp = if self.is_long() && n < 4 { address } else { address.wrapping_sub(s.base) };
            self.x87.fds = s.selector;
        }
        self.x87.set_c1(false);
        true
    }
}
