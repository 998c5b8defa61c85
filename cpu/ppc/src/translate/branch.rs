//! Branches (Book I, 2.4).

use super::{Facility, Flow, Insn, Pattern, Translator, pat};
use crate::helpers::system;
use crate::state::slots;
use rhea_ir::{Cond, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("b", "010010 LI:24 AA LK", b),
    pat("bc", "010000 BO:5 BI:5 BD:14 AA LK", bc),
    pat("bclr", "010011 BO:5 BI:5 xxx BH:2 0000010000 LK", bclr),
    pat("bcctr", "010011 BO:5 BI:5 xxx BH:2 1000010000 LK", bcctr),
    pat("bctar", "010011 BO:5 BI:5 xxx BH:2 1000110000 LK", bctar).needs(Facility::Tar),
];

/// Bits of BO: the manual's 0 is the highest.
mod bo {
    /// The condition register does not matter.
    pub const ANY: u32 = 16;
    /// The bit of the condition register must be set (else clear).
    pub const SET: u32 = 8;
    /// CTR stays and does not matter.
    pub const NO_COUNT: u32 = 4;
    /// CTR must have become zero (else not zero).
    pub const ZERO: u32 = 2;
}

impl Translator<'_, '_> {
    /// Must taken branches, or every instruction, be reported?
    fn traced(&self) -> bool {
        self.mode.single_step() || self.mode.branch_trace()
    }
    /// Ends the block by a helper that takes the trace interrupt.
    fn end_traced(&mut self, target: Value) -> Flow {
        self.end_with(system::TRACE, &[target])
    }
    /// LR ← address of the next instruction.
    fn link(&mut self) -> u64 {
        let ret = self.next_pc();
        let v = self.c64(ret);
        self.b.set(slots::LR, v);
        ret
    }
    /// The condition of a conditional branch, `None` if it is always taken; counts CTR down.
    fn branch_condition(&mut self, bo: u32, bi: u32) -> Option<Value> {
        let mut c = None;
        if bo & bo::NO_COUNT == 0 {
            let ctr = self.b.get(slots::CTR);
            let ctr = self.add_imm(ctr, u64::MAX);
            self.b.set(slots::CTR, ctr);
            let (v, zero) = if self.mode.sf() { (ctr, self.c64(0)) } else { (self.b.trunc(ctr), self.c32(0)) };
            c = Some(self.b.icmp(if bo & bo::ZERO != 0 { Cond::Eq } else { Cond::Ne }, v, zero));
        }
        if bo & bo::ANY == 0 {
            let bit = self.cr_bit(bi);
            let bit = if bo & bo::SET != 0 { bit } else { self.not(bit) };
            c = Some(match c {
                Some(c) => self.b.and(c, bit),
                None => bit,
            });
        }
        c
    }
    /// A branch to a register's value, if a condition holds. `returns`: predicted by the return stack.
    fn branch_to(&mut self, i: Insn, target: Value, condition: Option<Value>, returns: bool) -> Flow {
        let target = self.and_imm(target, if self.mode.sf() { !3 } else { 0xffff_fffc });
        let ret = self.next_pc();
        if i.rc() {
            self.link();
        }
        if self.traced() {
            let next = self.c64(ret);
            let to = match condition {
                Some(c) => self.b.select(c, target, next),
                None => target,
            };
            return self.end_traced(to);
        }
        if let Some(c) = condition {
            let (taken, other) = (self.b.new_block(), self.b.new_block());
            self.b.end_inner_branch(c, taken, other, 0);
            self.b.switch_to(other);
            self.b.end_goto(ret);
            self.b.switch_to(taken);
        }
        if i.rc() {
            self.b.end_indirect_call(target, ret);
        } else if returns {
            self.b.end_return(target);
        } else {
            self.b.end_indirect(target);
        }
        Flow::End
    }
}

fn b(t: &mut Translator, i: Insn) -> Flow {
    let d = i.sfield(6, 29) << 2;
    let target = t.wrap_pc(if i.bit(30) { d as u64 } else { t.pc.wrapping_add(d as u64) });
    if i.rc() {
        let ret = t.link();
        if t.traced() {
            let target = t.c64(target);
            return t.end_traced(target);
        }
        t.b.end_call(target, ret);
        return Flow::End;
    }
    if t.traced() {
        let target = t.c64(target);
        return t.end_traced(target);
    }
    t.end_goto(target)
}

fn bc(t: &mut Translator, i: Insn) -> Flow {
    let d = i.sfield(16, 29) << 2;
    let target = t.wrap_pc(if i.bit(30) { d as u64 } else { t.pc.wrapping_add(d as u64) });
    let next = t.next_pc();
    let condition = t.branch_condition(i.rt(), i.ra());
    if i.rc() {
        t.link();
    }
    if t.traced() {
        let (target, next) = (t.c64(target), t.c64(next));
        let to = match condition {
            Some(c) => t.b.select(c, target, next),
            None => target,
        };
        return t.end_traced(to);
    }
    match condition {
        // Only to know the own address: nothing returns there.
        None if i.rc() && target == next => Flow::Next,
        None if i.rc() => {
            t.b.end_call(target, next);
            Flow::End
        }
        None => t.end_goto(target),
        Some(c) if i.rc() => {
            let (taken, other) = (t.b.new_block(), t.b.new_block());
            t.b.end_inner_branch(c, taken, other, 0);
            t.b.switch_to(other);
            t.b.end_goto(next);
            t.b.switch_to(taken);
            t.b.end_call(target, next);
            Flow::End
        }
        Some(c) => t.end_cond(c, target, next),
    }
}

fn bclr(t: &mut Translator, i: Insn) -> Flow {
    let target = t.b.get(slots::LR);
    let condition = t.branch_condition(i.rt(), i.ra());
    // BH: 0 is a return, 1 is not.
    t.branch_to(i, target, condition, i.field(19, 20) != 1)
}

/// A form that counts is invalid; server processors carry it out all the same, to the address CTR had before. Kernels flush the
/// count cache by such a branch, which is not taken.
fn bcctr(t: &mut Translator, i: Insn) -> Flow {
    let target = t.b.get(slots::CTR);
    let condition = t.branch_condition(i.rt(), i.ra());
    t.branch_to(i, target, condition, false)
}

fn bctar(t: &mut Translator, i: Insn) -> Flow {
    let target = t.b.get(slots::TAR);
    let condition = t.branch_condition(i.rt(), i.ra());
    t.branch_to(i, target, condition, i.field(19, 20) == 0)
}
