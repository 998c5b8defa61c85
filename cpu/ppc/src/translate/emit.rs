//! What instruction families share: registers, constants, conditions, addresses, interrupts, ends of blocks.

use super::Translator;
use crate::bits::msr;
use crate::exception::{Vector, program};
use crate::helpers::system;
use crate::state::slots;
use rhea_ir::{Cond, HelperId, MemOp, Op, Type, Value};

/// How an instruction leaves the translation of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flow {
    /// The next instruction follows.
    Next,
    /// The block was ended (one of the `end_*` functions was called).
    End,
    /// Illegal or an invalid form: must be returned before anything was emitted; the program interrupt is raised.
    Illegal,
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

    // ---- registers ----

    /// GPR n.
    pub fn r(&mut self, n: u32) -> Value {
        self.b.get(slots::gpr(n & 31))
    }
    /// (RA|0).
    pub fn r0(&mut self, n: u32) -> Value {
        if n & 31 == 0 { self.c64(0) } else { self.r(n) }
    }
    pub fn set_r(&mut self, n: u32, v: Value) {
        self.b.set(slots::gpr(n & 31), v);
    }
    /// The low word of GPR n as I32.
    pub fn w(&mut self, n: u32) -> Value {
        let r = self.r(n);
        self.b.trunc(r)
    }
    /// All 128 bits of VSR n (0–63): doubleword 0 of the manual is lane 0.
    pub fn vsr(&mut self, n: u32) -> Value {
        self.b.get(slots::vsr(n & 63))
    }
    pub fn set_vsr(&mut self, n: u32, v: Value) {
        self.b.set(slots::vsr(n & 63), v);
    }
    /// VR n: VSR 32 + n.
    pub fn vr(&mut self, n: u32) -> Value {
        self.vsr(32 + (n & 31))
    }
    pub fn set_vr(&mut self, n: u32, v: Value) {
        self.set_vsr(32 + (n & 31), v);
    }
    /// Bit n of the condition register (Bool).
    pub fn cr_bit(&mut self, n: u32) -> Value {
        let (field, bit) = (n >> 2 & 7, n & 3);
        if bit == 3 {
            return self.b.get(slots::cr_so(field));
        }
        let order = self.b.get(slots::cr_order(field));
        self.b.order_is([Cond::Slt, Cond::Sgt, Cond::Eq][bit as usize], order)
    }
    pub fn set_cr_bit(&mut self, n: u32, v: Value) {
        let (field, bit) = (n >> 2 & 7, n & 3);
        if bit == 3 {
            return self.b.set(slots::cr_so(field), v);
        }
        let bits = [0, 1, 2].map(|k| if k == bit { v } else { self.cr_bit(4 * field + k) });
        let order = self.b.order_of(bits);
        self.b.set(slots::cr_order(field), order);
    }
    /// Writes field `bf` of the condition register: LT, GT, EQ, SO (Bools).
    pub fn set_cr_field(&mut self, bf: u32, [lt, gt, eq, so]: [Value; 4]) {
        let order = self.b.order_of([lt, gt, eq]);
        self.b.set(slots::cr_order(bf & 7), order);
        self.b.set(slots::cr_so(bf & 7), so);
    }
    /// Writes field `bf` from a signed or unsigned compare of two integers; SO is copied from XER.
    pub fn compare(&mut self, bf: u32, signed: bool, a: Value, b: Value) {
        let order = self.b.order(signed, a, b);
        let so = self.b.get(slots::SO);
        self.b.set(slots::cr_order(bf & 7), order);
        self.b.set(slots::cr_so(bf & 7), so);
    }
    /// CR0 of a record form: the result compared with zero, in 32-bit mode its low word.
    pub fn record(&mut self, result: Value) {
        let v = if self.mode.sf() { result } else { self.b.trunc(result) };
        let zero = self.b.iconst(if self.mode.sf() { Type::I64 } else { Type::I32 }, 0);
        self.compare(0, true, v, zero);
    }
    /// The condition register (or the fields of an 8-bit mask, bit 7 is field 0) as I64, other bits zero.
    pub fn gather_cr(&mut self, fields: u32) -> Value {
        let mut all: Option<Value> = None;
        for n in 0..32 {
            if fields >> (7 - n / 4) & 1 == 0 {
                continue;
            }
            let v = self.cr_bit(n);
            let v = self.b.op1(Op::FromBool, Type::I64, v, 0, 0);
            let v = self.shl(v, 31 - n);
            all = Some(match all {
                Some(a) => self.b.or(a, v),
                None => v,
            });
        }
        all.unwrap_or_else(|| self.c64(0))
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
    pub fn not(&mut self, a: Value) -> Value {
        self.b.op1(Op::BoolNot, Type::Bool, a, 0, 0)
    }

    // ---- addresses ----

    /// An effective address as storage is accessed with it: in 32-bit mode its low word.
    pub fn ea(&mut self, a: Value) -> Value {
        if self.mode.sf() { a } else { self.b.zext(a, 32) }
    }
    /// Address and displacement of `(RA|0) + d`.
    pub fn ea_disp(&mut self, ra: u32, d: i64) -> (Value, i64) {
        let base = self.r0(ra);
        if self.mode.sf() {
            return (base, d);
        }
        let a = self.add_imm(base, d as u64);
        (self.ea(a), 0)
    }
    /// `(RA|0) + (RB)`.
    pub fn ea_indexed(&mut self, ra: u32, rb: u32) -> Value {
        let b = self.r(rb);
        let a = if ra & 31 == 0 {
            b
        } else {
            let a = self.r(ra);
            self.b.add(a, b)
        };
        self.ea(a)
    }
    /// Address and displacement of a prefixed storage access: relative to the instruction (R) or `(RA|0) + d`. An R with RA is
    /// an invalid form, which the caller must have refused ([`Translator::prefixed_form_ok`]).
    pub fn ea_prefixed(&mut self, i: super::Insn) -> (Value, i64) {
        if i.pc_relative() {
            let a = self.pc.wrapping_add(i.si34() as u64);
            let a = if self.mode.sf() { a } else { a & 0xffff_ffff };
            return (self.c64(a), 0);
        }
        self.ea_disp(i.ra(), i.si34())
    }
    /// False: R = 1 with RA ≠ 0, an invalid form.
    pub fn prefixed_form_ok(&self, i: super::Insn) -> bool {
        !(i.pc_relative() && i.ra() != 0)
    }
    /// An ordinary data access of `1 << size` bytes in the current byte order.
    pub fn mem_op(&self, size: u32) -> MemOp {
        MemOp::new(size, self.mode.data_idx()).big_endian(!self.mode.le())
    }
    /// The same in the opposite byte order.
    pub fn mem_op_reversed(&self, size: u32) -> MemOp {
        MemOp::new(size, self.mode.data_idx()).big_endian(self.mode.le())
    }

    // ---- interrupts and inner control flow ----

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
    /// Program interrupt with a cause (`exception::program`); ends the block.
    pub fn program(&mut self, cause: u64) -> Flow {
        let cause = self.c64(cause);
        self.end_with(system::PROGRAM, &[cause])
    }
    pub fn illegal(&mut self) -> Flow {
        self.program(program::ILLEGAL)
    }
    pub fn unavailable(&mut self, vector: Vector) -> Flow {
        let v = self.c32(vector as u32);
        self.end_with(system::UNAVAILABLE, &[v])
    }
    /// What the mode does not say to be available: it is off in problem state, and ends the block; else MSR is looked at.
    pub fn off(&mut self, vector: Vector) -> Option<Flow> {
        if self.mode.pr() {
            return Some(self.unavailable(vector));
        }
        let needs = match vector {
            Vector::FpUnavailable => msr::FP,
            Vector::VectorUnavailable => msr::VEC,
            _ => msr::VSX,
        };
        if self.found_on & needs == 0 {
            self.found_on |= needs;
            let (msr, bit, zero) = (self.b.get(slots::MSR), self.c64(needs), self.c64(0));
            let on = self.b.and(msr, bit);
            let is_off = self.b.icmp(Cond::Eq, on, zero);
            self.raise_if(is_off, |t| {
                let v = t.c32(vector as u32);
                t.b.call(system::UNAVAILABLE, &[v]);
            });
        }
        None
    }
    /// Facility unavailable interrupt: number in FSCR.
    pub fn facility(&mut self, number: u32) -> Flow {
        let n = self.c32(number);
        self.end_with(system::FACILITY, &[n])
    }
    /// Calls a helper that always raises (or sets pc and mode itself) and ends the block.
    pub fn end_with(&mut self, helper: HelperId, args: &[Value]) -> Flow {
        self.b.call(helper, args);
        self.b.end_lookup();
        Flow::End
    }
    /// Calls a helper that may change the mode word, after which the next instruction is looked up anew.
    pub fn end_after(&mut self, helper: HelperId, args: &[Value]) -> Flow {
        self.b.call(helper, args);
        let next = self.c64(self.next_pc());
        self.end_step(next);
        Flow::End
    }

    // ---- ends of blocks; tracing needs a helper, so these wrap the builder's ----

    /// Address of the next instruction.
    pub fn next_pc(&self) -> u64 {
        self.wrap_pc(self.pc.wrapping_add(self.len))
    }
    /// An instruction address: in 32-bit mode its low word.
    pub fn wrap_pc(&self, pc: u64) -> u64 {
        if self.mode.sf() { pc } else { pc & 0xffff_ffff }
    }
    fn end_step(&mut self, target: Value) {
        let helper = if self.mode.single_step() { system::TRACE } else { system::SET_PC };
        self.b.call(helper, &[target]);
        self.b.end_lookup();
    }
    pub fn end_goto(&mut self, pc: u64) -> Flow {
        if self.mode.single_step() {
            let to = self.c64(pc);
            self.end_step(to);
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
}
