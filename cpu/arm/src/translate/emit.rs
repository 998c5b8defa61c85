//! What instruction families share: registers, constants, conditions, conditional exceptions.

use super::Translator;
use crate::helpers::system;
use crate::state::slots;
use rhea_ir::{Cond, Op, Type, Value};

/// How an instruction leaves the translation of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flow {
    /// The next instruction follows.
    Next,
    /// The block was ended (one of the `end_*` functions was called).
    End,
    /// Unallocated: must be returned before anything was emitted; the UNDEFINED exception is raised.
    Undef,
}

impl Translator<'_, '_> {
    // ---- constants ----

    pub fn c64(&mut self, v: u64) -> Value {
        self.b.iconst(Type::I64, v)
    }
    pub fn c32(&mut self, v: u32) -> Value {
        self.b.iconst(Type::I32, v as u64)
    }
    pub fn cbool(&mut self, v: bool) -> Value {
        self.b.iconst(Type::Bool, v as u64)
    }
    /// I64 if `sf`, else I32.
    pub fn ty(sf: bool) -> Type {
        if sf { Type::I64 } else { Type::I32 }
    }
    pub fn cint(&mut self, sf: bool, v: u64) -> Value {
        self.b.iconst(Self::ty(sf), v)
    }

    // ---- general-purpose registers ----

    /// Xn; 31 is XZR.
    pub fn x(&mut self, n: u32) -> Value {
        if n >= 31 { self.c64(0) } else { self.b.get(slots::x(n)) }
    }
    /// Wn; 31 is WZR.
    pub fn w(&mut self, n: u32) -> Value {
        if n >= 31 {
            return self.c32(0);
        }
        let x = self.b.get(slots::x(n));
        self.b.trunc(x)
    }
    /// Xn; 31 is SP.
    pub fn xsp(&mut self, n: u32) -> Value {
        if n >= 31 { self.b.get(slots::SP) } else { self.b.get(slots::x(n)) }
    }
    pub fn wsp(&mut self, n: u32) -> Value {
        let x = self.xsp(n);
        self.b.trunc(x)
    }
    /// Writes Xn; 31 is discarded.
    pub fn set_x(&mut self, n: u32, v: Value) {
        if n < 31 {
            self.b.set(slots::x(n), v);
        }
    }
    /// Writes Wn, zero-extended; 31 is discarded.
    pub fn set_w(&mut self, n: u32, v: Value) {
        if n < 31 {
            let v = self.b.zext64(v);
            self.b.set(slots::x(n), v);
        }
    }
    /// Writes Xn; 31 is SP.
    pub fn set_xsp(&mut self, n: u32, v: Value) {
        if n >= 31 {
            self.sp_aligned = false;
            self.b.set(slots::SP, v);
        } else {
            self.b.set(slots::x(n), v);
        }
    }
    pub fn set_wsp(&mut self, n: u32, v: Value) {
        let v = self.b.zext64(v);
        self.set_xsp(n, v);
    }
    /// Xn or Wn by `sf`; 31 is the zero register.
    pub fn reg(&mut self, sf: bool, n: u32) -> Value {
        if sf { self.x(n) } else { self.w(n) }
    }
    pub fn reg_sp(&mut self, sf: bool, n: u32) -> Value {
        if sf { self.xsp(n) } else { self.wsp(n) }
    }
    pub fn set_reg(&mut self, sf: bool, n: u32, v: Value) {
        if sf { self.set_x(n, v) } else { self.set_w(n, v) }
    }
    pub fn set_reg_sp(&mut self, sf: bool, n: u32, v: Value) {
        if sf { self.set_xsp(n, v) } else { self.set_wsp(n, v) }
    }

    // ---- vector registers ----

    /// All 128 bits of Vn.
    pub fn v(&mut self, n: u32) -> Value {
        self.b.get(slots::v(n & 31))
    }
    pub fn set_v(&mut self, n: u32, v: Value) {
        self.b.set(slots::v(n & 31), v);
    }

    // ---- flags ----

    pub fn flags(&mut self) -> Value {
        self.b.get(slots::NZCV)
    }
    pub fn set_flags(&mut self, v: Value) {
        self.b.set(slots::NZCV, v);
    }
    /// PSTATE.C as Bool.
    pub fn carry(&mut self) -> Value {
        let f = self.flags();
        self.b.cond_flags(Cond::Uge, f)
    }
    /// ConditionHolds() of a 4-bit condition as Bool; 14 and 15 are always true.
    pub fn condition(&mut self, cond: u32) -> Value {
        let c = match cond {
            0 => Cond::Eq,
            1 => Cond::Ne,
            2 => Cond::Uge,
            3 => Cond::Ult,
            4 => Cond::Mi,
            5 => Cond::Pl,
            6 => Cond::Vs,
            7 => Cond::Vc,
            8 => Cond::Ugt,
            9 => Cond::Ule,
            10 => Cond::Sge,
            11 => Cond::Slt,
            12 => Cond::Sgt,
            13 => Cond::Sle,
            _ => return self.cbool(true),
        };
        let f = self.flags();
        self.test_flags(c, f)
    }
    /// Tests packed flags. After a conditional compare it is decided without making the flags of either outcome.
    fn test_flags(&mut self, c: Cond, flags: Value) -> Value {
        let i = *self.b.func.inst(flags);
        if i.op == Op::Select
            && let Some(other) = self.b.func.as_const(i.args[2])
        {
            let first = self.test_flags(c, i.args[1]);
            return if rhea_ir::eval::cond_flags(c, other as u32) {
                let not = self.b.op1(Op::BoolNot, Type::Bool, i.args[0], 0, 0);
                self.b.or(not, first)
            } else {
                self.b.and(i.args[0], first)
            };
        }
        self.b.cond_flags(c, flags)
    }
    /// Packed flags from an instruction's `nzcv` field.
    pub const fn pack_nzcv(nzcv: u32) -> u32 {
        (nzcv >> 3 & 1) << 15 | (nzcv >> 2 & 1) << 14 | (nzcv >> 1 & 1) << 8 | (nzcv & 1)
    }

    // ---- integer operations with constants ----

    pub fn shl(&mut self, a: Value, n: u32) -> Value {
        if n == 0 { a } else { self.b.bin_imm(Op::Shl, a, n as u64) }
    }
    pub fn shr(&mut self, a: Value, n: u32) -> Value {
        if n == 0 { a } else { self.b.bin_imm(Op::Shr, a, n as u64) }
    }
    pub fn sar(&mut self, a: Value, n: u32) -> Value {
        if n == 0 { a } else { self.b.bin_imm(Op::Sar, a, n as u64) }
    }
    pub fn and_imm(&mut self, a: Value, imm: u64) -> Value {
        self.b.bin_imm(Op::And, a, imm)
    }
    pub fn add_imm(&mut self, a: Value, imm: u64) -> Value {
        if imm == 0 { a } else { self.b.bin_imm(Op::Add, a, imm) }
    }

    // ---- exceptions and inner control flow ----

    /// Goes on here unless `cond` (Bool) holds, in which case (unlikely) `raise` runs, which must emit a helper that
    /// always raises. Values made before stay usable; slots are read again.
    pub fn raise_if(&mut self, cond: Value, raise: impl FnOnce(&mut Self)) {
        if self.b.func.as_const(cond) == Some(0) {
            return;
        }
        let (bad, good) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(cond, bad, good, -1);
        self.b.switch_to(bad);
        raise(self);
        self.b.end_lookup();
        self.b.switch_to(good);
    }

    /// Raises UNDEFINED here and ends the block.
    pub fn undefined(&mut self) -> Flow {
        self.b.call(system::UNDEF, &[]);
        self.b.end_lookup();
        Flow::End
    }
    /// Calls a helper that always raises (or sets pc and mode itself) and ends the block.
    pub fn end_with(&mut self, helper: rhea_ir::HelperId, args: &[Value]) -> Flow {
        self.b.call(helper, args);
        self.b.end_lookup();
        Flow::End
    }

    // ---- ends of blocks; software step needs the mode looked up again, so these wrap the builder's ----

    fn end_step(&mut self, target: Value) {
        self.b.call(super::helpers::SET_PC, &[target]);
        self.b.end_lookup();
    }
    pub fn end_goto(&mut self, pc: u64) -> Flow {
        if self.mode.single_step() {
            self.b.end_leave(pc)
        } else {
            self.b.end_goto(pc)
        }
        Flow::End
    }
    pub fn end_cond(&mut self, cond: Value, then_pc: u64, else_pc: u64) -> Flow {
        if self.mode.single_step() {
            let (t, e) = (self.c64(then_pc), self.c64(else_pc));
            let to = self.b.select(cond, t, e);
            self.end_step(to);
        } else {
            self.b.end_cond(cond, then_pc, else_pc);
        }
        Flow::End
    }
    pub fn end_call(&mut self, pc: u64, ret: u64) -> Flow {
        if self.mode.single_step() {
            self.b.end_leave(pc)
        } else {
            self.b.end_call(pc, ret)
        }
        Flow::End
    }
    pub fn end_indirect(&mut self, target: Value) -> Flow {
        if self.mode.single_step() {
            self.end_step(target)
        } else {
            self.b.end_indirect(target)
        }
        Flow::End
    }
    pub fn end_indirect_call(&mut self, target: Value, ret: u64) -> Flow {
        if self.mode.single_step() {
            self.end_step(target)
        } else {
            self.b.end_indirect_call(target, ret)
        }
        Flow::End
    }
    pub fn end_return(&mut self, target: Value) -> Flow {
        if self.mode.single_step() {
            self.end_step(target)
        } else {
            self.b.end_return(target)
        }
        Flow::End
    }
}
