//! Integer arithmetic and logic (SDM vol. 2).

use super::operand::Place;
use super::{Flow, Translator};
use crate::exception::Vector;
use crate::flags::packed;
use crate::helpers::integer as calls;
use crate::state::{gpr, slots};
use iced_x86::{Mnemonic, Register};
use rhea_ir::op::P_AND_A;
use rhea_ir::{Cond, Op, RmwOp, Type, Value};

impl Translator<'_, '_> {
    pub(super) fn arith(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        match self.i.mnemonic() {
            Add | Or | Adc | Sbb | And | Sub | Xor => self.alu(),
            Cmp => {
                let bits = self.op_bits(0);
                let a = self.read(0, bits);
                let b = self.read(1, bits);
                self.flags_sub(bits, a, b);
            }
            Test => {
                let bits = self.op_bits(0);
                let a = self.read(0, bits);
                let b = self.read(1, bits);
                let r = self.b.and(a, b);
                self.set_logic_flags(bits, r);
            }
            Inc | Dec => self.inc_dec(),
            Neg => self.negate(),
            Not => {
                let bits = self.op_bits(0);
                if self.i.has_lock_prefix() {
                    let ones = self.cint(bits, u64::MAX);
                    self.locked(RmwOp::Xor, bits, ones);
                } else {
                    let (place, a) = self.read_place(0, bits);
                    let r = self.b.un(Op::Not, a);
                    self.write_place(place, bits, r);
                }
            }
            Mul => self.multiply(false),
            Imul => match self.i.op_count() {
                1 => self.multiply(true),
                n => self.imul(n),
            },
            Div | Idiv => self.divide(self.i.mnemonic() == Idiv),
            Xadd => self.xadd(),
            Cmpxchg => self.cmpxchg(),
            Cmpxchg8b | Cmpxchg16b => self.cmpxchg_double(),
            Adcx | Adox => self.adx(),
            Mulx => {
                let bits = self.op_bits(0);
                let a = self.reg(bits, gpr::RDX);
                let b = self.read(2, bits);
                let (lo, hi) = self.wide_product(bits, a, b, false);
                // The high half wins if both destinations are the same.
                self.write(1, bits, lo);
                self.write(0, bits, hi);
            }
            Aaa => return Some(self.decimal(calls::AAA, 0)),
            Aas => return Some(self.decimal(calls::AAS, 0)),
            Daa => return Some(self.decimal(calls::DAA, 0)),
            Das => return Some(self.decimal(calls::DAS, 0)),
            Aad => return Some(self.decimal(calls::AAD, self.i.immediate8())),
            Aam => {
                let base = self.i.immediate8();
                if base == 0 {
                    return Some(self.fault(Vector::DivideError, None));
                }
                return Some(self.decimal(calls::AAM, base));
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    fn decimal(&mut self, helper: rhea_ir::HelperId, imm: u8) -> Flow {
        let imm = self.c64(imm.into());
        self.b.call(helper, &[imm]);
        Flow::Next
    }

    // ---- flags of additions and subtractions ----

    /// Sets the flags of `a - b`, returns the difference.
    pub(super) fn flags_sub(&mut self, bits: u32, a: Value, b: Value) -> Value {
        let r = self.b.sub(a, b);
        let f = self.b.op2(Op::FlagsCmp, Type::I32, a, b, P_AND_A, Self::flag_width(bits));
        self.set_cc(f);
        self.set_cf(f);
        r
    }
    fn flags_add(&mut self, bits: u32, a: Value, b: Value) {
        let f = self.b.op2(Op::FlagsAdd, Type::I32, a, b, P_AND_A, Self::flag_width(bits));
        self.set_cc(f);
        self.set_cf(f);
    }
    fn flags_carry(&mut self, op: Op, bits: u32, a: Value, b: Value, c: Value) {
        let f = self.b.op3_imm(op, Type::I32, a, b, c, P_AND_A, Self::flag_width(bits));
        self.set_cc(f);
        self.set_cf(f);
    }

    /// A read-modify-write of the memory operand with LOCK; returns the old value.
    pub(super) fn locked(&mut self, op: RmwOp, bits: u32, v: Value) -> Value {
        let m = self.mem(bits, true);
        let mem_op = self.mem_op(bits);
        let addr = self.address(m);
        self.b.rmw(Self::ty(bits), op, mem_op, addr, v)
    }

    fn alu(&mut self) {
        use Mnemonic::*;
        let bits = self.op_bits(0);
        let m = self.i.mnemonic();
        let lock = self.i.has_lock_prefix();
        // `xor r, r` and `sub r, r` do not depend on the register.
        if matches!(m, Xor | Sub)
            && bits >= 32
            && !self.is_mem(0)
            && !self.is_mem(1)
            && self.i.op_kind(1) == iced_x86::OpKind::Register
            && self.i.op_register(0) == self.i.op_register(1)
        {
            let zero = self.cint(bits, 0);
            self.set_logic_flags(bits, zero);
            self.write(0, bits, zero);
            return;
        }
        let src = self.read(1, bits);
        let carry = if matches!(m, Adc | Sbb) { Some(self.carry()) } else { None };
        let with_carry = |t: &mut Self, b: Value| {
            let c = carry.unwrap_or(Value::NONE);
            let c = t.b.op1(Op::FromBool, Self::ty(bits), c, 0, 0);
            t.b.add(b, c)
        };
        if lock {
            let (op, v) = match m {
                Add => (RmwOp::Add, src),
                Sub => (RmwOp::Add, self.neg(src)),
                Or => (RmwOp::Or, src),
                And => (RmwOp::And, src),
                Xor => (RmwOp::Xor, src),
                Adc => (RmwOp::Add, with_carry(self, src)),
                _ => {
                    let v = with_carry(self, src);
                    (RmwOp::Add, self.neg(v))
                }
            };
            let old = self.locked(op, bits, v);
            self.alu_result(m, bits, old, src, carry);
            return;
        }
        let (place, a) = self.read_place(0, bits);
        let r = match m {
            Add => self.b.add(a, src),
            Sub => self.b.sub(a, src),
            Or => self.b.or(a, src),
            And => self.b.and(a, src),
            Xor => self.b.xor(a, src),
            Adc => {
                let c = carry.unwrap_or(Value::NONE);
                self.b.op3(Op::Adc, Self::ty(bits), a, src, c, 0)
            }
            _ => {
                let s = with_carry(self, src);
                self.b.sub(a, s)
            }
        };
        // Memory first: if the store faults the flags are as before.
        self.write_place(place, bits, r);
        self.alu_result(m, bits, a, src, carry);
    }
    /// Flags of an operation from its operands.
    fn alu_result(&mut self, m: Mnemonic, bits: u32, a: Value, b: Value, carry: Option<Value>) {
        use Mnemonic::*;
        match (m, carry) {
            (Add, _) => {
                self.flags_add(bits, a, b);
            }
            (Sub, _) => {
                self.flags_sub(bits, a, b);
            }
            (Adc | Sbb, Some(c)) => {
                let op = if m == Adc { Op::FlagsAdc } else { Op::FlagsSbb };
                self.flags_carry(op, bits, a, b, c);
            }
            (Or, _) => {
                let r = self.b.or(a, b);
                self.set_logic_flags(bits, r);
            }
            (And, _) => {
                let r = self.b.and(a, b);
                self.set_logic_flags(bits, r);
            }
            _ => {
                let r = self.b.xor(a, b);
                self.set_logic_flags(bits, r);
            }
        }
    }

    fn inc_dec(&mut self) {
        let bits = self.op_bits(0);
        let dec = self.i.mnemonic() == Mnemonic::Dec;
        let one = self.cint(bits, 1);
        let a = if self.i.has_lock_prefix() {
            let v = if dec { self.cint(bits, u64::MAX) } else { one };
            self.locked(RmwOp::Add, bits, v)
        } else {
            let (place, a) = self.read_place(0, bits);
            let r = if dec { self.b.sub(a, one) } else { self.b.add(a, one) };
            self.write_place(place, bits, r);
            a
        };
        // CF stays.
        let width = Self::flag_width(bits);
        let op = if dec { Op::FlagsCmp } else { Op::FlagsAdd };
        let f = self.b.op2(op, Type::I32, a, one, P_AND_A, width);
        self.set_cc(f);
    }

    fn negate(&mut self) {
        let bits = self.op_bits(0);
        let zero = self.cint(bits, 0);
        if self.i.has_lock_prefix() {
            let m = self.mem(bits, true);
            let old = self.load_for_update(bits, m);
            let r = self.b.sub(zero, old);
            self.locked_exchange(bits, m, old, r);
            self.flags_sub(bits, zero, old);
            return;
        }
        let (place, a) = self.read_place(0, bits);
        let r = self.b.sub(zero, a);
        self.write_place(place, bits, r);
        self.flags_sub(bits, zero, a);
    }
    /// Stores `new` if memory still holds `old`; else the instruction starts over.
    fn locked_exchange(&mut self, bits: u32, m: super::Mem, old: Value, new: Value) {
        let op = self.mem_op(bits);
        let addr = self.address(m);
        let old = self.zx(old, bits);
        let seen = self.b.cas(Self::ty(bits), op, addr, old, new);
        let other = self.b.icmp(Cond::Ne, seen, old);
        let (again, done) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(other, again, done, -1);
        self.b.switch_to(again);
        let pc = self.pc;
        let _ = self.end_goto(pc);
        self.b.switch_to(done);
    }

    // ---- multiplication and division ----

    /// Low and high half of a product of `bits`.
    fn wide_product(&mut self, bits: u32, a: Value, b: Value, signed: bool) -> (Value, Value) {
        if bits == 64 {
            let lo = self.b.bin(Op::Mul, a, b);
            let hi = self.b.bin(if signed { Op::SMulHi } else { Op::UMulHi }, a, b);
            return (lo, hi);
        }
        let (a, b) =
            if signed { (self.sx64(a, bits), self.sx64(b, bits)) } else { (self.zx64(a, bits), self.zx64(b, bits)) };
        let p = self.b.bin(Op::Mul, a, b);
        let hi = self.shr(p, bits);
        (self.b.trunc(p), self.b.trunc(hi))
    }
    /// CF and OF from a Bool; SF, ZF, PF from the result as processors leave them; AF clear.
    fn product_flags(&mut self, bits: u32, lo: Value, overflow: Value) {
        let f = self.logic_flags(bits, lo);
        let (both, zero) = (self.c32(packed::C | packed::V), self.c32(0));
        let cv = self.b.select(overflow, both, zero);
        let f = self.b.or(f, cv);
        self.set_cc(f);
        self.set_cf(cv);
    }
    fn multiply(&mut self, signed: bool) {
        let bits = self.op_bits(0);
        let b = self.read(0, bits);
        let a = self.reg(bits, gpr::RAX);
        if bits == 8 {
            let (x, y) = if signed { (self.sx(a, 8), self.sx(b, 8)) } else { (self.zx(a, 8), self.zx(b, 8)) };
            let p = self.b.bin(Op::Mul, x, y);
            self.set_reg(16, gpr::RAX, p);
            let narrow = if signed { self.sx(p, 8) } else { self.zx(p, 8) };
            let over = self.b.icmp(Cond::Ne, p, narrow);
            self.product_flags(8, p, over);
            return;
        }
        let (lo, hi) = self.wide_product(bits, a, b, signed);
        self.set_reg(bits, gpr::RAX, lo);
        self.set_reg(bits, gpr::RDX, hi);
        let over = self.overflows(bits, lo, hi, signed);
        self.product_flags(bits, lo, over);
    }
    /// Is the high half more than an extension of the low one?
    fn overflows(&mut self, bits: u32, lo: Value, hi: Value, signed: bool) -> Value {
        let hi = self.zx(hi, bits);
        let extension = if signed {
            let s = self.sx(lo, bits);
            let s = self.sar(s, if bits == 64 { 63 } else { 31 });
            self.zx(s, bits)
        } else {
            self.cint(bits, 0)
        };
        self.b.icmp(Cond::Ne, hi, extension)
    }
    fn imul(&mut self, operands: u32) {
        let bits = self.op_bits(0);
        let (a, b) = if operands == 2 {
            let b = self.read(1, bits);
            (self.read(0, bits), b)
        } else {
            (self.read(1, bits), self.read(2, bits))
        };
        let (lo, hi) = self.wide_product(bits, a, b, true);
        // A product of 64 bits needs no high half but for the flags.
        let lo = if bits == 64 { lo } else { self.b.bin(Op::Mul, a, b) };
        self.write(0, bits, lo);
        let over = self.overflows(bits, lo, hi, true);
        self.product_flags(bits, lo, over);
    }
    fn divide(&mut self, signed: bool) {
        let bits = self.op_bits(0);
        let d = self.read(0, bits);
        if bits >= 32 {
            return self.divide_wide(bits, d, signed);
        }
        // 8 and 16 bits: the dividend fits 32 bits.
        let (x, y) = if bits == 8 {
            let ax = self.reg(16, gpr::RAX);
            if signed { (self.sx(ax, 16), self.sx(d, 8)) } else { (self.zx(ax, 16), self.zx(d, 8)) }
        } else {
            let (lo, hi) = (self.reg(16, gpr::RAX), self.reg(16, gpr::RDX));
            let lo = self.zx(lo, 16);
            let hi = self.shl(hi, 16);
            let x = self.b.or(hi, lo);
            (x, if signed { self.sx(d, 16) } else { self.zx(d, 16) })
        };
        let zero = self.c32(0);
        let bad = self.b.icmp(Cond::Eq, y, zero);
        self.raise_if(bad, |t| t.raise(Vector::DivideError, None));
        let q = self.b.bin(if signed { Op::SDiv } else { Op::UDiv }, x, y);
        let narrow = if signed { self.sx(q, bits) } else { self.zx(q, bits) };
        let bad = self.b.icmp(Cond::Ne, q, narrow);
        // MIN / -1 of 32 bits wraps to itself, which does not fit either.
        self.raise_if(bad, |t| t.raise(Vector::DivideError, None));
        let p = self.b.bin(Op::Mul, q, y);
        let r = self.b.sub(x, p);
        if bits == 8 {
            self.set_reg(8, gpr::RAX, q);
            self.write_reg(Register::AH, r);
        } else {
            self.set_reg(16, gpr::RAX, q);
            self.set_reg(16, gpr::RDX, r);
        }
    }
    /// 32- and 64-bit divisions. A dividend that is only an extension of RAX, which is nearly all there are, is divided here.
    fn divide_wide(&mut self, bits: u32, d: Value, signed: bool) {
        let (lo, hi) = (self.reg(bits, gpr::RAX), self.reg(bits, gpr::RDX));
        let helper = match (bits, signed) {
            (32, false) => calls::DIV32,
            (32, true) => calls::IDIV32,
            (_, false) => calls::DIV64,
            _ => calls::IDIV64,
        };
        let zero = self.cint(bits, 0);
        let extension = if signed { self.sar(lo, bits - 1) } else { zero };
        let easy = self.b.icmp(Cond::Eq, hi, extension);
        let nonzero = self.b.icmp(Cond::Ne, d, zero);
        let mut plain = self.b.and(easy, nonzero);
        if signed {
            let ones = self.cint(bits, u64::MAX);
            let safe = self.b.icmp(Cond::Ne, d, ones);
            plain = self.b.and(plain, safe);
        }
        let (quick, slow, done) = (self.b.new_block(), self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(plain, quick, slow, 1);
        self.b.switch_to(slow);
        let wide = self.raw64(d);
        self.b.call(helper, &[wide]);
        self.b.end_inner(done);
        self.b.switch_to(quick);
        let q = self.b.bin(if signed { Op::SDiv } else { Op::UDiv }, lo, d);
        let p = self.b.bin(Op::Mul, q, d);
        let r = self.b.sub(lo, p);
        self.set_reg(bits, gpr::RAX, q);
        self.set_reg(bits, gpr::RDX, r);
        self.b.end_inner(done);
        self.b.switch_to(done);
    }

    // ---- exchange-and-… ----

    fn xadd(&mut self) {
        let bits = self.op_bits(0);
        let b = self.read(1, bits);
        let a = if self.i.has_lock_prefix() {
            self.locked(RmwOp::Add, bits, b)
        } else {
            let (place, a) = self.read_place(0, bits);
            let r = self.b.add(a, b);
            if let Place::Mem(m) = place {
                self.store(bits, m, r);
            }
            a
        };
        let r = self.b.add(a, b);
        self.write(1, bits, a);
        if !self.is_mem(0) {
            self.write(0, bits, r);
        }
        self.flags_add(bits, a, b);
    }

    fn cmpxchg(&mut self) {
        let bits = self.op_bits(0);
        let new = self.read(1, bits);
        let expected = self.reg(bits, gpr::RAX);
        let expected = self.zx(expected, bits);
        let old;
        let equal;
        if self.i.has_lock_prefix() {
            let m = self.mem(bits, true);
            let op = self.mem_op(bits);
            let addr = self.address(m);
            old = self.b.cas(Self::ty(bits), op, addr, expected, new);
            equal = self.b.icmp(Cond::Eq, old, expected);
        } else {
            let (place, a) = self.read_place(0, bits);
            old = self.zx(a, bits);
            equal = self.b.icmp(Cond::Eq, old, expected);
            // Memory is written in any case; a register of 32 bits only if they were equal.
            let v = self.b.select(equal, new, old);
            match place {
                Place::Mem(m) => self.store(bits, m, v),
                Place::Reg(r) if bits == 32 => {
                    let before = self.r64(super::operand::gpr_of(r).0);
                    let (v, n) = (self.b.zext64(v), super::operand::gpr_of(r).0);
                    let v = self.b.select(equal, v, before);
                    self.set_r64(n, v);
                }
                Place::Reg(_) => self.write_place(place, bits, v),
            }
        }
        self.flags_sub(bits, expected, old);
        // RAX changes only if they differed.
        let rax = self.r64(gpr::RAX);
        let loaded = match bits {
            64 => old,
            32 => self.b.zext64(old),
            _ => {
                let v = self.b.zext64(old);
                self.deposit(rax, v, 0, bits)
            }
        };
        let v = self.b.select(equal, rax, loaded);
        self.set_r64(gpr::RAX, v);
    }

    fn cmpxchg_double(&mut self) {
        let wide = self.i.mnemonic() == Mnemonic::Cmpxchg16b;
        let half = if wide { 64 } else { 32 };
        let m = self.mem(half * 2, true);
        let addr = self.address(m);
        let pair = |t: &mut Self, lo: u32, hi: u32| {
            let (l, h) = (t.r64(lo), t.r64(hi));
            if wide {
                t.b.op2(Op::Concat, Type::I128, l, h, 0, 0)
            } else {
                let l = t.b.zext(l, 32);
                let h = t.shl(h, 32);
                t.b.or(l, h)
            }
        };
        let expected = pair(self, gpr::RAX, gpr::RDX);
        let new = pair(self, gpr::RBX, gpr::RCX);
        let (ty, mut op) = if wide { (Type::I128, self.mem_op(128)) } else { (Type::I64, self.mem_op(64)) };
        if wide {
            op = op.align(4);
        }
        let old = self.b.cas(ty, op, addr, expected, new);
        let (old_lo, old_hi, same) = if wide {
            let (lo, hi) = (self.b.op1(Op::Lo64, Type::I64, old, 0, 0), self.b.op1(Op::Hi64, Type::I64, old, 0, 0));
            let (el, eh) = (self.r64(gpr::RAX), self.r64(gpr::RDX));
            let (x, y) = (self.b.xor(lo, el), self.b.xor(hi, eh));
            let diff = self.b.or(x, y);
            let zero = self.c64(0);
            (lo, hi, self.b.icmp(Cond::Eq, diff, zero))
        } else {
            let lo = self.b.zext(old, 32);
            let hi = self.shr(old, 32);
            (lo, hi, self.b.icmp(Cond::Eq, old, expected))
        };
        // ZF alone changes.
        let cc = self.b.get(slots::CC);
        let rest = self.and_imm(cc, !packed::Z as u64 & 0xffff_ffff);
        let (z, zero) = (self.c32(packed::Z), self.c32(0));
        let z = self.b.select(same, z, zero);
        let cc = self.b.or(rest, z);
        self.set_cc(cc);
        for (n, v) in [(gpr::RAX, old_lo), (gpr::RDX, old_hi)] {
            let before = self.r64(n);
            let v = self.b.select(same, before, v);
            self.set_r64(n, v);
        }
    }

    /// ADCX and ADOX: carry through one flag, the others untouched.
    fn adx(&mut self) {
        let bits = self.op_bits(0);
        let b = self.read(1, bits);
        let a = self.read(0, bits);
        let over = self.i.mnemonic() == Mnemonic::Adox;
        let carry = if over {
            let cc = self.b.get(slots::CC);
            self.b.cond_flags(Cond::Vs, cc)
        } else {
            self.carry()
        };
        let r = self.b.op3(Op::Adc, Self::ty(bits), a, b, carry, 0);
        let f = self.b.op3(Op::FlagsAdc, Type::I32, a, b, carry, 0);
        self.write(0, bits, r);
        if over {
            let out = self.b.cond_flags(Cond::Uge, f);
            let out = self.b.op1(Op::FromBool, Type::I32, out, 0, 0);
            let cc = self.b.get(slots::CC);
            let rest = self.and_imm(cc, !packed::V as u64 & 0xffff_ffff);
            let cc = self.b.or(rest, out);
            self.set_cc(cc);
        } else {
            self.set_cf(f);
        }
    }
}
