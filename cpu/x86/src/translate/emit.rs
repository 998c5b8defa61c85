//! What instruction families share: constants, registers, flags, conditional faults, ends of blocks.

use super::Translator;
use crate::exception::Vector;
use crate::flags::packed;
use crate::helpers::system as calls;
use crate::state::{Seg, slots};
use rhea_ir::op::P_AND_A;
use rhea_ir::{Cond, Op, Type, Value};

/// How an instruction leaves the translation of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flow {
    /// The next instruction follows.
    Next,
    /// The block was ended (one of the `end_*` functions was called).
    End,
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
    /// The type in which operands of `bits` are computed: I64 for 64, else I32.
    pub fn ty(bits: u32) -> Type {
        if bits == 64 { Type::I64 } else { Type::I32 }
    }
    /// A constant of that type.
    pub fn cint(&mut self, bits: u32, v: u64) -> Value {
        self.b.iconst(Self::ty(bits), v)
    }

    // ---- general-purpose registers: values of 8 and 16 bits have unspecified higher bits ----

    /// All 64 bits.
    pub fn r64(&mut self, n: u32) -> Value {
        self.b.get(slots::r(n & 15))
    }
    pub fn set_r64(&mut self, n: u32, v: Value) {
        self.b.set(slots::r(n & 15), v);
    }
    /// The low `bits` of register `n`.
    pub fn reg(&mut self, bits: u32, n: u32) -> Value {
        let x = self.r64(n);
        if bits == 64 { x } else { self.b.trunc(x) }
    }
    /// Writes the low `bits`: 32 clear the upper half, 8 and 16 keep the rest. `v` is of [`Self::ty`].
    pub fn set_reg(&mut self, bits: u32, n: u32, v: Value) {
        let v = match bits {
            64 => v,
            32 => self.b.zext64(v),
            _ => {
                let old = self.r64(n);
                let v = self.b.zext64(v);
                self.deposit(old, v, 0, bits)
            }
        };
        self.set_r64(n, v);
    }
    /// `old` with `bits` bits from bit `lsb` on replaced by the low bits of `new`; both I64.
    pub fn deposit(&mut self, old: Value, new: Value, lsb: u32, bits: u32) -> Value {
        self.b.op2(Op::Deposit, Type::I64, old, new, 0, (lsb | bits << 8) as u64)
    }
    /// Zero-extends the low `bits` within the value's type.
    pub fn zx(&mut self, v: Value, bits: u32) -> Value {
        if bits >= 32 { v } else { self.b.zext(v, bits) }
    }
    pub fn sx(&mut self, v: Value, bits: u32) -> Value {
        if bits >= 32 { v } else { self.b.sext(v, bits) }
    }
    /// A value of [`Self::ty`] as I64, with unspecified bits above its size.
    pub fn raw64(&mut self, v: Value) -> Value {
        if self.b.func.ty(v) == Type::I64 { v } else { self.b.zext64(v) }
    }
    /// A value of `bits` as zero-extended I64.
    pub fn zx64(&mut self, v: Value, bits: u32) -> Value {
        let v = self.zx(v, bits);
        self.raw64(v)
    }
    /// A value of `bits` as sign-extended I64.
    pub fn sx64(&mut self, v: Value, bits: u32) -> Value {
        if bits == 64 {
            return v;
        }
        let v = self.sx(v, bits);
        self.b.sext64(v)
    }

    // ---- vector registers ----

    pub fn xmm(&mut self, n: u32) -> Value {
        self.b.get(slots::xmm(n & 15))
    }
    pub fn set_xmm(&mut self, n: u32, v: Value) {
        self.b.set(slots::xmm(n & 15), v);
    }
    pub fn ymm_hi(&mut self, n: u32) -> Value {
        self.b.get(slots::ymm_hi(n & 15))
    }
    pub fn set_ymm_hi(&mut self, n: u32, v: Value) {
        self.b.set(slots::ymm_hi(n & 15), v);
    }

    // ---- status flags ----

    /// ZF, SF, OF, PF and AF (bits Z, N, V, P, A of packed flags).
    pub fn set_cc(&mut self, flags: Value) {
        self.b.set(slots::CC, flags);
    }
    /// CF (bit C of packed flags).
    pub fn set_cf(&mut self, flags: Value) {
        self.b.set(slots::CF, flags);
    }
    /// CF from a Bool.
    pub fn set_cf_bool(&mut self, v: Value) {
        let (one, zero) = (self.c32(packed::C), self.c32(0));
        let f = self.b.select(v, one, zero);
        self.set_cf(f);
    }
    /// The status flags of a logical operation, AF clear.
    pub fn logic_flags(&mut self, bits: u32, result: Value) -> Value {
        self.b.op1(Op::FlagsLogic, Type::I32, result, P_AND_A, Self::flag_width(bits))
    }
    pub fn set_logic_flags(&mut self, bits: u32, result: Value) {
        let f = self.logic_flags(bits, result);
        self.set_cc(f);
        self.set_cf(f);
    }
    /// The immediate of the `Flags*` operations for operands of `bits`.
    pub const fn flag_width(bits: u32) -> u64 {
        if bits < 32 { bits as u64 } else { 0 }
    }
    /// CF as Bool: of packed flags, C set.
    pub fn carry(&mut self) -> Value {
        let f = self.b.get(slots::CF);
        self.b.cond_flags(Cond::Uge, f)
    }
    /// PF as Bool.
    pub fn parity(&mut self) -> Value {
        let f = self.b.get(slots::CC);
        self.b.cond_flags(Cond::Ps, f)
    }
    /// The condition `tttn` of Jcc, SETcc and CMOVcc as Bool.
    pub fn condition(&mut self, tttn: u32) -> Value {
        let cc = self.b.get(slots::CC);
        let v = match tttn >> 1 & 7 {
            0 => self.b.cond_flags(Cond::Vs, cc),
            1 => self.carry(),
            2 => self.b.cond_flags(Cond::Eq, cc),
            3 => {
                let cf = self.b.get(slots::CF);
                if cf == cc {
                    self.b.cond_flags(Cond::CsOrZ, cc)
                } else {
                    let (c, z) = (self.b.cond_flags(Cond::Uge, cf), self.b.cond_flags(Cond::Eq, cc));
                    self.b.or(c, z)
                }
            }
            4 => self.b.cond_flags(Cond::Mi, cc),
            5 => self.parity(),
            6 => self.b.cond_flags(Cond::Slt, cc),
            _ => self.b.cond_flags(Cond::Sle, cc),
        };
        if tttn & 1 != 0 { self.not(v) } else { v }
    }
    /// `!v` of a Bool.
    pub fn not(&mut self, v: Value) -> Value {
        let i = *self.b.func.inst(v);
        match i.op {
            Op::CondFlags | Op::ICmp => {
                self.b.op2(i.op, Type::Bool, i.args[0], i.args[1], i.cond().invert() as u32, i.imm)
            }
            _ => self.b.op1(Op::BoolNot, Type::Bool, v, 0, 0),
        }
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

    // ---- faults and inner control flow ----

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
    /// Runs `body` only if `cond` (Bool) holds, then goes on. Only slots carry what it computes.
    pub fn when(&mut self, cond: Value, hint: i8, body: impl FnOnce(&mut Self)) {
        let (inside, after) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(cond, inside, after, hint);
        self.b.switch_to(inside);
        body(self);
        self.b.end_inner(after);
        self.b.switch_to(after);
    }
    /// Emits the raise of a fault; the caller ends the block.
    pub fn raise(&mut self, vector: Vector, code: Option<u32>) {
        let word = self.c64(crate::exception::pack(vector, code));
        self.b.call(calls::RAISE, &[word]);
    }
    /// Raises a fault here and ends the block.
    pub fn fault(&mut self, vector: Vector, code: Option<u32>) -> Flow {
        self.raise(vector, code);
        self.b.end_lookup();
        Flow::End
    }
    /// #UD.
    pub fn undefined(&mut self) -> Flow {
        self.fault(Vector::InvalidOpcode, None)
    }
    /// #GP(0).
    pub fn gp0(&mut self) -> Flow {
        self.fault(Vector::GeneralProtection, Some(0))
    }
    /// An instruction of the model that this crate lacks: logged, then #UD.
    pub fn unimplemented(&mut self) -> Flow {
        let code = self.c64(self.i.code() as u64);
        self.b.call(calls::UNIMPLEMENTED, &[code]);
        self.undefined()
    }
    /// Calls a helper that always raises (or sets pc and mode itself) and ends the block.
    pub fn end_with(&mut self, helper: rhea_ir::HelperId, args: &[Value]) -> Flow {
        self.b.call(helper, args);
        self.b.end_lookup();
        Flow::End
    }
    /// Calls a helper that may change the mode, pc staying in order: goes on at the next instruction by a look-up.
    pub fn end_with_next(&mut self, helper: rhea_ir::HelperId, args: &[Value]) -> Flow {
        self.b.call(helper, args);
        let next = self.next;
        self.set_pc_const(next);
        self.b.end_lookup();
        Flow::End
    }

    // ---- ends of blocks; wrapped so that one-instruction blocks look the mode up again ----

    /// Before the first instruction of a block; true if the block was ended.
    pub(super) fn block_start(&mut self) -> bool {
        if !self.mode.flat() && !self.mode.long() && !self.mode.near_limit() {
            // The rest of the page and an instruction behind it are within the limit, or each instruction checks.
            let end = (self.b.pc() | 4095).wrapping_add(super::MAX_LEN as u64);
            let end = self.c64(end);
            let base = self.b.get(slots::seg_base(Seg::Cs));
            let offset = self.b.sub(end, base);
            let limit = self.b.get(slots::seg_limit(Seg::Cs));
            let limit = self.b.zext64(limit);
            let bad = self.b.icmp(Cond::Ugt, offset, limit);
            self.raise_if(bad, |t| {
                t.b.call(calls::SET_NEAR_LIMIT, &[]);
            });
        }
        false
    }
    /// Before each instruction.
    pub(super) fn before_insn(&mut self) {
        if self.mode.near_limit() {
            let len = self.c64(self.i.len() as u64);
            self.b.call(calls::CS_LIMIT, &[len]);
        }
        if self.mode.breakpoints() {
            self.b.call(calls::BREAKPOINT, &[]);
        }
        if self.mode.one_insn() {
            self.b.call(calls::ONE_INSN, &[]);
        }
    }
    /// Stores the pc for an end by look-up.
    pub fn set_pc(&mut self, linear: Value) {
        self.b.call(calls::SET_PC, &[linear]);
    }
    pub fn set_pc_const(&mut self, linear: u64) {
        let pc = self.c64(linear);
        self.set_pc(pc);
    }
    fn end_one(&mut self, target: Value) -> Flow {
        self.set_pc(target);
        self.b.end_lookup();
        Flow::End
    }
    /// To a constant linear address.
    pub fn end_goto(&mut self, pc: u64) -> Flow {
        if self.mode.one_insn() {
            let pc = self.c64(pc);
            return self.end_one(pc);
        }
        self.b.end_goto(pc);
        Flow::End
    }
    pub fn end_cond(&mut self, cond: Value, then_pc: u64, else_pc: u64) -> Flow {
        if self.mode.one_insn() {
            let (t, e) = (self.c64(then_pc), self.c64(else_pc));
            let to = self.b.select(cond, t, e);
            return self.end_one(to);
        }
        self.b.end_cond(cond, then_pc, else_pc);
        Flow::End
    }
    pub fn end_call(&mut self, pc: u64, ret: u64) -> Flow {
        if self.mode.one_insn() {
            let pc = self.c64(pc);
            return self.end_one(pc);
        }
        self.b.end_call(pc, ret);
        Flow::End
    }
    pub fn end_indirect(&mut self, target: Value) -> Flow {
        if self.mode.one_insn() {
            return self.end_one(target);
        }
        self.b.end_indirect(target);
        Flow::End
    }
    pub fn end_indirect_call(&mut self, target: Value, ret: u64) -> Flow {
        if self.mode.one_insn() {
            return self.end_one(target);
        }
        self.b.end_indirect_call(target, ret);
        Flow::End
    }
    pub fn end_return(&mut self, target: Value) -> Flow {
        if self.mode.one_insn() {
            return self.end_one(target);
        }
        self.b.end_return(target);
        Flow::End
    }
    /// Goes on at `pc` after interrupts became unmasked: the vCPU loop looks for one if any waits.
    pub fn end_with_interrupts(&mut self, pc: u64) -> Flow {
        if self.mode.one_insn() {
            return self.end_goto(pc);
        }
        let waits = self.b.get(slots::INTERRUPT_WAITS);
        let zero = self.c32(0);
        let waits = self.b.icmp(Cond::Ne, waits, zero);
        let (leave, on) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(waits, leave, on, -1);
        self.b.switch_to(leave);
        self.b.call(calls::LOOK_FOR_INTERRUPTS, &[]);
        self.b.end_leave(pc);
        self.b.switch_to(on);
        self.b.end_goto(pc);
        Flow::End
    }
    /// After STI in this block: see [`Self::end_with_interrupts`].
    pub(super) fn begin_sti_shadow(&mut self) {
        self.sti_shadow = true;
    }
    /// Is this an instruction of those that surely do not end the block, so that interrupts are looked for after it?
    pub(super) fn goes_on(&self) -> bool {
        use iced_x86::Mnemonic::{Add, And, Cmp, Dec, Inc, Lea, Mov, Nop, Or, Pop, Push, Shl, Shr, Sub, Test, Xor};
        let ordinary = matches!(
            self.i.mnemonic(),
            Add | And | Cmp | Dec | Inc | Lea | Mov | Nop | Or | Pop | Push | Shl | Shr | Sub | Test | Xor
        );
        ordinary
            && (0..self.i.op_count()).all(|n| {
                let r = self.i.op_register(n);
                !(r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr())
            })
    }
    /// Before an instruction after STI that may end the block itself (STI, RET): the request is seen where it leads to.
    pub(super) fn look_for_interrupts(&mut self) {
        if self.mode.one_insn() {
            return;
        }
        let waits = self.b.get(slots::INTERRUPT_WAITS);
        let zero = self.c32(0);
        let waits = self.b.icmp(Cond::Ne, waits, zero);
        self.when(waits, -1, |t| {
            t.b.call(calls::LOOK_FOR_INTERRUPTS, &[]);
        });
    }
}
