//! Packed flags, orders, conditions, and what depends on them.

use super::asm::Label;
use super::asm::{Alu, Cc, Shift};
use super::emit::{Emit, H_COUNTER, reason};
use super::stubs::Stub;
use super::*;
use rhea_clock::Counter;
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::{Cond, Op};
use std::mem::offset_of;

const EXECUTED: i32 = offset_of!(Counter, executed) as i32;
const LIMIT: i32 = offset_of!(Counter, limit) as i32;

/// How a condition stands after its compare was emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    Cc(Cc),
    /// Both must hold.
    And(Cc, Cc),
    /// One must hold.
    Or(Cc, Cc),
}

impl Test {
    fn invert(self) -> Test {
        match self {
            Test::Cc(c) => Test::Cc(c.invert()),
            Test::And(a, b) => Test::Or(a.invert(), b.invert()),
            Test::Or(a, b) => Test::And(a.invert(), b.invert()),
        }
    }
}

/// Host condition after `cmp a, b`.
fn cmp_cc(c: Cond) -> Cc {
    match c {
        Cond::Eq => Cc::E,
        Cond::Ne => Cc::Ne,
        Cond::Ult => Cc::B,
        Cond::Ule | Cond::CsOrZ => Cc::Be,
        Cond::Ugt | Cond::CcAndNz => Cc::A,
        Cond::Uge => Cc::Ae,
        Cond::Slt => Cc::L,
        Cond::Sle => Cc::Le,
        Cond::Sgt => Cc::G,
        Cond::Sge => Cc::Ge,
        Cond::Mi => Cc::S,
        Cond::Pl => Cc::Ns,
        Cond::Vs => Cc::O,
        Cond::Vc => Cc::No,
        Cond::Ps => Cc::P,
        Cond::Pc => Cc::Np,
    }
}

impl Emit<'_> {
    /// Flags of operands of 8 or 16 bits.
    fn flags_narrow(&mut self, i: &Inst) {
        let bits = i.imm as u32;
        if i.op == Op::FlagsLogic {
            self.gpr_to(i.args[0], RAX);
            self.asm.test_narrow(bits, RAX, RAX);
            return;
        }
        let y = self.gpr(i.args[1], RCX);
        if y != RCX {
            self.asm.mov_rr(false, RCX, y);
        }
        self.gpr_to(i.args[0], RAX);
        let op = match i.op {
            Op::FlagsAdd => Alu::Add,
            Op::FlagsAdc => Alu::Adc,
            Op::FlagsSbb => Alu::Sbb,
            _ => Alu::Cmp,
        };
        if matches!(i.op, Op::FlagsAdc | Op::FlagsSbb) {
            let c = self.gpr(i.args[2], RDX);
            self.asm.bt(false, c, 0);
        }
        self.asm.alu_narrow(op, bits, RAX, RCX);
    }

    /// Sets host flags of a flag-producing operation (FlagsSub: C is the host's borrow).
    pub(super) fn flags_compute(&mut self, i: &Inst) {
        let (a, b) = (i.args[0], i.args[1]);
        let w = self.is64(a);
        if i.imm != 0 {
            return self.flags_narrow(i);
        }
        match i.op {
            Op::FlagsSub | Op::FlagsCmp => self.compare(a, b),
            Op::FlagsLogic => {
                let x = self.gpr(a, RDX);
                self.asm.test_rr(w, x, x);
            }
            Op::FlagsAdd => {
                self.gpr_to(a, RAX);
                if let Some(c) = self.imm32(b) {
                    self.asm.alu_ri(Alu::Add, w, RAX, c);
                } else {
                    let y = self.gpr(b, RCX);
                    self.asm.alu_rr(Alu::Add, w, RAX, y);
                }
            }
            _ => {
                let y = self.gpr(b, RCX);
                self.gpr_to(a, RAX);
                let c = self.gpr(i.args[2], RDX);
                self.asm.bt(false, c, 0);
                self.asm.alu_rr(if i.op == Op::FlagsSbb { Alu::Sbb } else { Alu::Adc }, w, RAX, y);
            }
        }
    }

    fn compare(&mut self, a: Value, b: Value) {
        let w = self.is64(a);
        let x = self.gpr(a, RDX);
        match self.imm32(b) {
            Some(c) => self.asm.alu_ri(Alu::Cmp, w, x, c),
            None => {
                let y = self.gpr(b, RCX);
                self.asm.alu_rr(Alu::Cmp, w, x, y);
            }
        }
    }

    pub(super) fn order(&mut self, i: &Inst, d: u8) {
        let (a, b) = (i.args[0], i.args[1]);
        let signed = i.aux == 0;
        if self.is64(a) {
            self.compare(a, b);
            let (more, less) = if signed { (Cc::G, Cc::L) } else { (Cc::A, Cc::B) };
            self.asm.setcc(more, RAX);
            self.asm.setcc(less, RDX);
            self.asm.sub_al_dl();
            self.asm.movsx8(true, RAX, RAX);
        } else {
            // An I32 in a register is zero-extended.
            let x = self.gpr(a, RAX);
            if signed {
                self.asm.movsxd(RAX, x);
            } else if x != RAX {
                self.asm.mov_rr(false, RAX, x);
            }
            match self.imm32(b) {
                Some(0) => {}
                Some(c) if signed || c > 0 => self.asm.alu_ri(Alu::Sub, true, RAX, c),
                _ => {
                    let mut y = self.gpr(b, RDX);
                    if signed {
                        self.asm.movsxd(RDX, y);
                        y = RDX;
                    }
                    self.asm.alu_rr(Alu::Sub, true, RAX, y);
                }
            }
        }
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    /// `less << 63 | !greater << 62 | greater << 40 | !equal`: sums, of which no part overlaps another.
    pub(super) fn order_of(&mut self, i: &Inst, d: u8) {
        self.gpr_to(i.args[1], RDX);
        self.asm.neg(true, RDX);
        self.asm.mov_ri(RCX, (1 << 62) - (1 << 40));
        self.asm.alu_rr(Alu::And, true, RDX, RCX);
        self.gpr_to(i.args[0], RAX);
        self.asm.shift_i(Shift::Shl, true, RAX, 63);
        self.asm.alu_rr(Alu::Sub, true, RAX, RDX);
        let equal = self.gpr(i.args[2], RDX);
        self.asm.alu_rr(Alu::Sub, true, RAX, equal);
        self.asm.mov_ri(RCX, (1 << 62) + 1);
        self.asm.alu_rr(Alu::Add, true, RAX, RCX);
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    fn test_order(&mut self, i: &Inst) -> Test {
        let x = self.gpr(i.args[0], RDX);
        match i.cond() {
            c @ (Cond::Slt | Cond::Sge) => {
                self.asm.test_rr(true, x, x);
                Test::Cc(cmp_cc(c))
            }
            c @ (Cond::Sgt | Cond::Sle) => {
                self.asm.lea_idx(true, RDX, x, x);
                self.asm.test_rr(true, RDX, RDX);
                Test::Cc(cmp_cc(c))
            }
            c => {
                self.asm.test_rr(false, x, x);
                Test::Cc(cmp_cc(c))
            }
        }
    }

    /// Emits the compare of a condition; clobbers scratch registers.
    pub(super) fn test(&mut self, i: &Inst) -> Test {
        let a = i.args[0];
        match i.op {
            Op::ICmp => {
                let cond = i.cond();
                if self.f.as_const(i.args[1]) == Some(0) && !matches!(cond, Cond::Vs | Cond::Vc) {
                    let w = self.is64(a);
                    let x = self.gpr(a, RDX);
                    self.asm.test_rr(w, x, x);
                } else {
                    self.compare(a, i.args[1]);
                }
                Test::Cc(cmp_cc(cond))
            }
            Op::ToBool => {
                let w = self.is64(a);
                let x = self.gpr(a, RDX);
                self.asm.test_rr(w, x, x);
                Test::Cc(Cc::Ne)
            }
            Op::OrderIs => self.test_order(i),
            _ => self.test_flags(i),
        }
    }

    fn test_flags(&mut self, i: &Inst) -> Test {
        let cond = i.cond();
        let fl = i.args[0];
        let d = *self.f.inst(fl);
        if self.deferred(fl) {
            match d.op {
                Op::FlagsSub => {
                    self.flags_compute(&d);
                    return match cond {
                        Cond::CsOrZ => Test::Or(Cc::Ae, Cc::E),
                        Cond::CcAndNz => Test::And(Cc::B, Cc::Ne),
                        c => Test::Cc(cmp_cc(c)),
                    };
                }
                Op::FlagsCmp | Op::FlagsSbb | Op::FlagsAdd | Op::FlagsAdc => {
                    self.flags_compute(&d);
                    return match cond {
                        // The host's borrow or carry is the guest's C: unsigned conditions, of "no borrow", read it inverted.
                        Cond::Ult => Test::Cc(Cc::Ae),
                        Cond::Uge => Test::Cc(Cc::B),
                        Cond::Ugt => Test::And(Cc::B, Cc::Ne),
                        Cond::Ule => Test::Or(Cc::Ae, Cc::E),
                        c => Test::Cc(cmp_cc(c)),
                    };
                }
                Op::FlagsLogic => {
                    // C is clear, which as "no borrow" is a borrow: lower always holds.
                    if let Cond::Ult | Cond::Ule | Cond::Ugt | Cond::Uge = cond {
                        self.asm.alu_rr(Alu::Cmp, false, RAX, RAX);
                        return Test::Cc(if matches!(cond, Cond::Ult | Cond::Ule) { Cc::E } else { Cc::Ne });
                    }
                    self.flags_compute(&d);
                    return Test::Cc(cmp_cc(cond));
                }
                Op::FlagsFCmp => return self.test_fcmp(&d, cond),
                Op::FlagsFCom | Op::FlagsVTest => return self.test_vector(&d, cond),
                _ => {}
            }
        }
        // Packed flags in a register or memory.
        let x = self.gpr(fl, RAX);
        let single = |bit: i32, set: bool| (bit, if set { Cc::Ne } else { Cc::E });
        let (bit, cc) = match cond {
            Cond::Eq => single(0x4000, true),
            Cond::Ne => single(0x4000, false),
            Cond::Uge => single(0x100, true),
            Cond::Ult => single(0x100, false),
            Cond::Mi => single(0x8000, true),
            Cond::Pl => single(0x8000, false),
            Cond::Vs => single(1, true),
            Cond::Vc => single(1, false),
            Cond::CsOrZ => single(0x4100, true),
            Cond::CcAndNz => single(0x4100, false),
            Cond::Ps => single(0x400, true),
            Cond::Pc => single(0x400, false),
            _ => (0, Cc::E),
        };
        if bit != 0 {
            self.asm.test_ri(false, x, bit);
            return Test::Cc(cc);
        }
        if x != RAX {
            self.asm.mov_rr(false, RAX, x);
        }
        self.asm.flags_from_ax();
        match cond {
            Cond::Ugt => Test::And(Cc::B, Cc::Ne),
            Cond::Ule => Test::Or(Cc::Ae, Cc::E),
            c => Test::Cc(cmp_cc(c)),
        }
    }

    /// `d` = 0 or 1.
    pub(super) fn set_from(&mut self, t: Test, d: u8) {
        match t {
            Test::Cc(c) => {
                self.asm.setcc(c, d);
                self.asm.movzx8(d, d);
            }
            Test::And(a, b) | Test::Or(a, b) => {
                self.asm.setcc(a, RDX);
                self.asm.setcc(b, RAX);
                let op = if matches!(t, Test::And(..)) { Alu::And } else { Alu::Or };
                self.asm.alu_rr(op, false, RAX, RDX);
                self.asm.movzx8(d, RAX);
            }
        }
    }

    /// Emits the compare of a condition value.
    fn test_value(&mut self, cond: Value) -> Test {
        let i = *self.f.inst(cond);
        if self.deferred(cond) && matches!(i.op, Op::ICmp | Op::CondFlags | Op::OrderIs | Op::ToBool) {
            return self.test(&i);
        }
        let r = self.gpr(cond, RAX);
        self.asm.test_rr(false, r, r);
        Test::Cc(Cc::Ne)
    }

    fn jump_test(&mut self, t: Test, label: Label) {
        match t {
            Test::Cc(c) => self.asm.jcc(c, label),
            Test::Or(a, b) => {
                self.asm.jcc(a, label);
                self.asm.jcc(b, label);
            }
            Test::And(a, b) => {
                let no = self.asm.label();
                self.asm.jcc(a.invert(), no);
                self.asm.jcc(b, label);
                self.asm.bind(no);
            }
        }
    }

    /// Leaves for `pc`, in a page known to be valid here, if the condition is `want`.
    pub(super) fn linked_jump_if(&mut self, cond: Value, want: bool, pc: u64) {
        let t = self.test_value(cond);
        match if want { t } else { t.invert() } {
            Test::Cc(c) => self.linked_jump_on(c, pc),
            Test::Or(a, b) => {
                self.linked_jump_on(a, pc);
                self.linked_jump_on(b, pc);
            }
            Test::And(a, b) => {
                let no = self.asm.label();
                self.asm.jcc(a.invert(), no);
                self.linked_jump_on(b, pc);
                self.asm.bind(no);
            }
        }
    }

    /// Jumps to `label` if the condition is `want`.
    pub(super) fn jump_if(&mut self, cond: Value, want: bool, label: Label) {
        let t = self.test_value(cond);
        self.jump_test(if want { t } else { t.invert() }, label);
    }

    /// Loads an integer operand without touching flags.
    fn gpr_keep_flags(&mut self, v: Value, scratch: u8) -> u8 {
        self.gpr(v, scratch)
    }

    pub(super) fn select(&mut self, i: &Inst, d: u8) {
        let (c, a, b) = (i.args[0], i.args[1], i.args[2]);
        let t = self.test_value(c);
        // Moves and loads do not change flags; a value that must be computed would.
        let simple = |e: &Self, v: Value| !e.deferred(v) || e.f.as_const(v).is_some();
        if !simple(self, a) || !simple(self, b) {
            let done = self.asm.label();
            let other = self.asm.label();
            self.jump_test(t.invert(), other);
            self.gpr_to(a, RAX);
            self.asm.jmp(done);
            self.asm.bind(other);
            self.gpr_to(b, RAX);
            self.asm.bind(done);
            self.asm.mov_rr(true, d, RAX);
            return;
        }
        let y = self.gpr_keep_flags(a, RCX);
        match t {
            Test::Cc(cc) => {
                // d = b, then a if the condition holds. `d` is no later argument's register by the caller's choice, but
                // may be the condition's own.
                self.gpr_to(b, RAX);
                self.asm.cmov(cc, RAX, y);
            }
            Test::Or(p, q) => {
                self.gpr_to(b, RAX);
                self.asm.cmov(p, RAX, y);
                self.asm.cmov(q, RAX, y);
            }
            Test::And(p, q) => {
                // a, then b if either fails.
                let z = self.gpr_keep_flags(b, RDX);
                self.asm.mov_rr(true, RAX, y);
                self.asm.cmov(p.invert(), RAX, z);
                self.asm.cmov(q.invert(), RAX, z);
            }
        }
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    /// A select of vector or FP values: a short branch.
    pub(super) fn select_vec(&mut self, i: &Inst, d: u8) {
        let (c, a, b) = (i.args[0], i.args[1], i.args[2]);
        let t = self.test_value(c);
        let other = self.asm.label();
        let done = self.asm.label();
        self.jump_test(t.invert(), other);
        let x = self.xmm(a, X15);
        self.asm.vmovaps(X14, x);
        self.asm.jmp(done);
        self.asm.bind(other);
        let x = self.xmm(b, X15);
        self.asm.vmovaps(X14, x);
        self.asm.bind(done);
        self.asm.vmovaps(d, X14);
    }

    /// Leaves with the instruction's state map if an exit was requested.
    pub(super) fn check_exit(&mut self, i: &Inst) {
        let label = self.asm.label();
        self.asm.cmp_mem32_imm(ENV, super::emit::H_EXIT_REQUEST, super::emit::NO_REQUEST);
        self.asm.jcc(Cc::Ne, label);
        self.stubs.push(Stub::Leave { state: i.state, label, reason: reason::REQUESTED });
    }

    /// Counts instructions. Leaves the host's flags alone: it may come between a compare and its branch.
    pub(super) fn count(&mut self, i: &Inst) {
        self.asm.load(true, RAX, ENV, H_COUNTER);
        self.asm.load(true, RCX, RAX, EXECUTED);
        self.asm.lea(RCX, RCX, i.imm as i32);
        self.asm.store(true, RAX, EXECUTED, RCX);
    }

    /// Leaves with the instruction's state map if too few instructions are left.
    pub(super) fn check_count(&mut self, i: &Inst) {
        let label = self.asm.label();
        self.asm.load(true, RAX, ENV, H_COUNTER);
        self.asm.load(true, RCX, RAX, EXECUTED);
        self.asm.lea(RCX, RCX, i.imm as i32);
        self.asm.alu_rm(Alu::Cmp, true, RCX, RAX, LIMIT);
        self.asm.jcc(Cc::A, label);
        self.stubs.push(Stub::Leave { state: i.state, label, reason: reason::REQUESTED });
    }
}
