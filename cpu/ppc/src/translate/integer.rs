//! Fixed-point arithmetic (Book I, 3.3.9, 3.3.10).

use super::{Flow, Insn, Pattern, Translator, pat, prefixed};
use crate::config::Isa;
use crate::helpers::integer as calls;
use crate::state::slots;
use rhea_ir::{Cond, Op, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("addi", "001110 RT:5 RA:5 SI:16", addi),
    pat("addis", "001111 RT:5 RA:5 SI:16", addi),
    pat("addpcis", "010011 RT:5 d1:5 d0:10 00010 d2", addpcis).since(Isa::V3_0),
    pat("addic", "00110 Rc RT:5 RA:5 SI:16", addic),
    pat("subfic", "001000 RT:5 RA:5 SI:16", subfic),
    pat("mulli", "000111 RT:5 RA:5 SI:16", mulli),
    pat("add", "011111 RT:5 RA:5 RB:5 OE 100001010 Rc", add),
    pat("subf", "011111 RT:5 RA:5 RB:5 OE 000101000 Rc", subf),
    pat("addc", "011111 RT:5 RA:5 RB:5 OE 000001010 Rc", addc),
    pat("subfc", "011111 RT:5 RA:5 RB:5 OE 000001000 Rc", subfc),
    pat("adde", "011111 RT:5 RA:5 RB:5 OE 010001010 Rc", adde),
    pat("subfe", "011111 RT:5 RA:5 RB:5 OE 010001000 Rc", subfe),
    pat("addme", "011111 RT:5 RA:5 xxxxx OE 011101010 Rc", addme),
    pat("subfme", "011111 RT:5 RA:5 xxxxx OE 011101000 Rc", subfme),
    pat("addze", "011111 RT:5 RA:5 xxxxx OE 011001010 Rc", addze),
    pat("subfze", "011111 RT:5 RA:5 xxxxx OE 011001000 Rc", subfze),
    pat("addex", "011111 RT:5 RA:5 RB:5 CY:2 10101010 x", addex).since(Isa::V3_0),
    pat("neg", "011111 RT:5 RA:5 xxxxx OE 001101000 Rc", neg),
    pat("mullw", "011111 RT:5 RA:5 RB:5 OE 011101011 Rc", mullw),
    pat("mulld", "011111 RT:5 RA:5 RB:5 OE 011101001 Rc", mulld),
    pat("mulhw", "011111 RT:5 RA:5 RB:5 x 001001011 Rc", mulhw),
    pat("mulhwu", "011111 RT:5 RA:5 RB:5 x 000001011 Rc", mulhw),
    pat("mulhd", "011111 RT:5 RA:5 RB:5 x 001001001 Rc", mulhd),
    pat("mulhdu", "011111 RT:5 RA:5 RB:5 x 000001001 Rc", mulhd),
    pat("divw", "011111 RT:5 RA:5 RB:5 OE 111101011 Rc", divw),
    pat("divwu", "011111 RT:5 RA:5 RB:5 OE 111001011 Rc", divw),
    pat("divd", "011111 RT:5 RA:5 RB:5 OE 111101001 Rc", divd),
    pat("divdu", "011111 RT:5 RA:5 RB:5 OE 111001001 Rc", divd),
    pat("divwe", "011111 RT:5 RA:5 RB:5 OE 110101011 Rc", divwe),
    pat("divweu", "011111 RT:5 RA:5 RB:5 OE 110001011 Rc", divwe),
    pat("divde", "011111 RT:5 RA:5 RB:5 OE 110101001 Rc", divde),
    pat("divdeu", "011111 RT:5 RA:5 RB:5 OE 110001001 Rc", divde),
    pat("modsw", "011111 RT:5 RA:5 RB:5 1100001011 x", modw).since(Isa::V3_0),
    pat("moduw", "011111 RT:5 RA:5 RB:5 0100001011 x", modw).since(Isa::V3_0),
    pat("modsd", "011111 RT:5 RA:5 RB:5 1100001001 x", modd).since(Isa::V3_0),
    pat("modud", "011111 RT:5 RA:5 RB:5 0100001001 x", modd).since(Isa::V3_0),
    pat("maddhd", "000100 RT:5 RA:5 RB:5 RC:5 110000", maddhd).since(Isa::V3_0),
    pat("maddhdu", "000100 RT:5 RA:5 RB:5 RC:5 110001", maddhd).since(Isa::V3_0),
    pat("maddld", "000100 RT:5 RA:5 RB:5 RC:5 110011", maddld).since(Isa::V3_0),
    pat("addg6s", "011111 RT:5 RA:5 RB:5 x 001001010 x", addg6s),
    pat("darn", "011111 RT:5 xxx L:2 xxxxx 1011110011 x", darn).since(Isa::V3_0),
];

pub static PREFIXED: &[Pattern] = &[
    prefixed("paddi", "000001 10 0 xx R xx d0:18 001110 RT:5 RA:5 d1:16", paddi),
    prefixed("pnop", "000001 11 0000 xx 000000000000000000 suffix:32", pnop),
];

impl Translator<'_, '_> {
    /// The low word of a value.
    fn low(&mut self, v: Value) -> Value {
        self.b.trunc(v)
    }
    /// A Bool as I64.
    pub(super) fn from_bool(&mut self, v: Value) -> Value {
        self.b.op1(Op::FromBool, Type::I64, v, 0, 0)
    }
    /// XER.OV and OV32 (from version 3.0 on), SO made up to date.
    fn set_overflow(&mut self, ov: Value, ov32: Value) {
        self.b.set(slots::OV, ov);
        if self.mode.isa() >= Isa::V3_0 {
            self.b.set(slots::OV32, ov32);
        }
        let so = self.b.get(slots::SO);
        let so = self.b.or(so, ov);
        self.b.set(slots::SO, so);
    }
    fn set_carry(&mut self, ca: Value, ca32: Value) {
        let ca = if self.mode.sf() { ca } else { ca32 };
        self.b.set(slots::CA, ca);
        if self.mode.isa() >= Isa::V3_0 {
            self.b.set(slots::CA32, ca32);
        }
    }
    /// Carry out of the low word of a sum.
    fn carry32(&mut self, a: Value, b: Value, sum: Value) -> Value {
        let x = self.b.xor(a, b);
        let x = self.b.xor(x, sum);
        let x = self.and_imm(x, 1 << 32);
        let zero = self.c64(0);
        self.b.icmp(Cond::Ne, x, zero)
    }
    /// Overflow of `a + b` where `sum` is it (with a carry perhaps): of 64 bits, and of the low words.
    fn sum_overflow(&mut self, a: Value, b: Value, sum: Value) {
        // Both operands have the sign that the sum has not.
        let (x, y) = (self.b.xor(a, sum), self.b.xor(b, sum));
        let both = self.b.and(x, y);
        let zero = self.c64(0);
        let ov64 = self.b.icmp(Cond::Slt, both, zero);
        let low = self.low(both);
        let zero = self.c32(0);
        let ov32 = self.b.icmp(Cond::Slt, low, zero);
        let ov = if self.mode.sf() { ov64 } else { ov32 };
        self.set_overflow(ov, ov32);
    }
    /// `a + b + CA` with all that XO forms may set.
    fn sum_with_carry(&mut self, i: Insn, a: Value, b: Value) -> Flow {
        let ca = self.b.get(slots::CA);
        let sum = self.b.op3(Op::Adc, Type::I64, a, b, ca, 0);
        let carry32 = self.carry32(a, b, sum);
        let carry = if self.mode.sf() {
            let flags = self.b.op3(Op::FlagsAdc, Type::I32, a, b, ca, 0);
            self.b.cond_flags(Cond::Uge, flags)
        } else {
            carry32
        };
        self.set_carry(carry, carry32);
        self.finish_sum(i, a, b, sum)
    }
    fn finish_sum(&mut self, i: Insn, a: Value, b: Value, sum: Value) -> Flow {
        if i.oe() {
            self.sum_overflow(a, b, sum);
        }
        self.finish(i, sum)
    }
    /// Writes RT, and CR0 of a record form.
    pub(super) fn finish(&mut self, i: Insn, v: Value) -> Flow {
        self.set_r(i.rt(), v);
        if i.rc() {
            self.record(v);
        }
        Flow::Next
    }
    /// Carries of `a - b` as `¬b + a + 1`: no borrow.
    fn difference_carries(&mut self, a: Value, b: Value) {
        let (al, bl) = (self.low(a), self.low(b));
        let ca32 = self.b.icmp(Cond::Uge, al, bl);
        let ca = self.b.icmp(Cond::Uge, a, b);
        self.set_carry(ca, ca32);
    }
    fn difference_overflow(&mut self, a: Value, b: Value, difference: Value) {
        let not = self.b.un(Op::Not, b);
        self.sum_overflow(a, not, difference);
    }
}

fn addi(t: &mut Translator, i: Insn) -> Flow {
    let imm = if i.bit(5) { i.si() << 16 } else { i.si() } as u64;
    let v = if i.ra() == 0 {
        t.c64(imm)
    } else {
        let a = t.r(i.ra());
        t.add_imm(a, imm)
    };
    t.set_r(i.rt(), v);
    Flow::Next
}

fn paddi(t: &mut Translator, i: Insn) -> Flow {
    if !t.prefixed_form_ok(i) {
        return Flow::Illegal;
    }
    let imm = i.si34() as u64;
    let v = if i.pc_relative() {
        t.c64(t.pc.wrapping_add(imm))
    } else {
        let a = t.r0(i.ra());
        t.add_imm(a, imm)
    };
    t.set_r(i.rt(), v);
    Flow::Next
}

/// The suffix may be anything but a branch, a trap or the like; which ones is not checked.
fn pnop(_: &mut Translator, _: Insn) -> Flow {
    Flow::Next
}

fn addpcis(t: &mut Translator, i: Insn) -> Flow {
    let d = (i.field(16, 25) << 6 | i.ra() << 1 | i.field(31, 31)) as u16 as i16;
    let v = t.c64(t.next_pc().wrapping_add(((d as i64) << 16) as u64));
    t.set_r(i.rt(), v);
    Flow::Next
}

/// addic, addic.
fn addic(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let b = t.c64(i.si() as u64);
    let sum = t.b.add(a, b);
    let ca = t.b.icmp(Cond::Ult, sum, a);
    let ca = if i.si() == 0 { t.cbool(false) } else { ca };
    let (sl, al) = (t.low(sum), t.low(a));
    let ca32 = t.b.icmp(Cond::Ult, sl, al);
    t.set_carry(ca, ca32);
    t.set_r(i.rt(), sum);
    if i.bit(5) {
        t.record(sum);
    }
    Flow::Next
}

fn subfic(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let b = t.c64(i.si() as u64);
    t.difference_carries(b, a);
    let v = t.b.sub(b, a);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mulli(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let v = t.b.bin_imm(Op::Mul, a, i.si() as u64);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn add(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let sum = t.b.add(a, b);
    t.finish_sum(i, a, b, sum)
}

fn subf(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let v = t.b.sub(b, a);
    if i.oe() {
        t.difference_overflow(b, a, v);
    }
    t.finish(i, v)
}

fn addc(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let sum = t.b.add(a, b);
    let ca = t.b.icmp(Cond::Ult, sum, a);
    let (sl, al) = (t.low(sum), t.low(a));
    let ca32 = t.b.icmp(Cond::Ult, sl, al);
    t.set_carry(ca, ca32);
    t.finish_sum(i, a, b, sum)
}

fn subfc(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    t.difference_carries(b, a);
    let v = t.b.sub(b, a);
    if i.oe() {
        t.difference_overflow(b, a, v);
    }
    t.finish(i, v)
}

fn adde(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    t.sum_with_carry(i, a, b)
}

fn subfe(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    if i.ra() == i.rb() && !i.oe() {
        // The idiom for CA − 1: all ones without a carry, which stays as it is.
        let ca = t.b.get(slots::CA);
        let v = t.from_bool(ca);
        let v = t.add_imm(v, u64::MAX);
        t.set_carry(ca, ca);
        return t.finish(i, v);
    }
    let not = t.b.un(Op::Not, a);
    t.sum_with_carry(i, not, b)
}

fn addme(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.c64(u64::MAX));
    t.sum_with_carry(i, a, b)
}

fn subfme(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let (a, b) = (t.b.un(Op::Not, a), t.c64(u64::MAX));
    t.sum_with_carry(i, a, b)
}

fn addze(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.c64(0));
    t.sum_with_carry(i, a, b)
}

fn subfze(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let (a, b) = (t.b.un(Op::Not, a), t.c64(0));
    t.sum_with_carry(i, a, b)
}

/// As adde with OV in place of CA; SO stays.
fn addex(t: &mut Translator, i: Insn) -> Flow {
    if i.field(21, 22) != 0 {
        return Flow::Illegal;
    }
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let ov = t.b.get(slots::OV);
    let c = t.from_bool(ov);
    let sum = t.b.add(a, b);
    let sum = t.b.add(sum, c);
    let carry32 = t.carry32(a, b, sum);
    let carry = if t.mode.sf() {
        let flags = t.b.op3(Op::FlagsAdc, Type::I32, a, b, ov, 0);
        t.b.cond_flags(Cond::Uge, flags)
    } else {
        carry32
    };
    t.b.set(slots::OV, carry);
    t.b.set(slots::OV32, carry32);
    t.set_r(i.rt(), sum);
    Flow::Next
}

fn neg(t: &mut Translator, i: Insn) -> Flow {
    let a = t.r(i.ra());
    let v = t.b.un(Op::Neg, a);
    if i.oe() {
        let min = t.c64(1 << 63);
        let ov64 = t.b.icmp(Cond::Eq, a, min);
        let (low, min) = (t.low(a), t.c32(1 << 31));
        let ov32 = t.b.icmp(Cond::Eq, low, min);
        let ov = if t.mode.sf() { ov64 } else { ov32 };
        t.set_overflow(ov, ov32);
    }
    t.finish(i, v)
}

fn mullw(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let (a, b) = (t.b.sext(a, 32), t.b.sext(b, 32));
    let v = t.b.bin(Op::Mul, a, b);
    if i.oe() {
        let fits = t.b.sext(v, 32);
        let ov = t.b.icmp(Cond::Ne, fits, v);
        t.set_overflow(ov, ov);
    }
    t.finish(i, v)
}

fn mulld(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let v = t.b.bin(Op::Mul, a, b);
    if i.oe() {
        let high = t.b.bin(Op::SMulHi, a, b);
        let sign = t.sar(v, 63);
        let ov = t.b.icmp(Cond::Ne, high, sign);
        t.set_overflow(ov, ov);
    }
    t.finish(i, v)
}

/// mulhw, mulhwu. The high word of the result is undefined; CR0 too in 64-bit mode.
fn mulhw(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let (a, b) = if i.bit(24) { (t.b.sext(a, 32), t.b.sext(b, 32)) } else { (t.b.zext(a, 32), t.b.zext(b, 32)) };
    let v = t.b.bin(Op::Mul, a, b);
    let v = t.shr(v, 32);
    t.finish(i, v)
}

fn mulhd(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let v = t.b.bin(if i.bit(24) { Op::SMulHi } else { Op::UMulHi }, a, b);
    t.finish(i, v)
}

/// Is this the signed one of a pair of divisions?
fn signed(i: Insn) -> bool {
    i.bit(25)
}

/// divw, divwu. The high word of the quotient is undefined, and all of it on overflow.
fn divw(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.w(i.ra()), t.w(i.rb()));
    let q = t.b.bin(if signed(i) { Op::SDiv } else { Op::UDiv }, a, b);
    if i.oe() {
        let ov = division_overflow(t, signed(i), a, b);
        t.set_overflow(ov, ov);
    }
    let q = t.b.zext64(q);
    t.finish(i, q)
}

/// Overflow of the division of two values of one type.
fn division_overflow(t: &mut Translator, signed: bool, a: Value, b: Value) -> Value {
    let ty = t.b.func.ty(a);
    let zero = t.b.iconst(ty, 0);
    let by_zero = t.b.icmp(Cond::Eq, b, zero);
    if !signed {
        return by_zero;
    }
    let min = t.b.iconst(ty, if ty == Type::I64 { 1 << 63 } else { 1 << 31 });
    let ones = t.b.iconst(ty, u64::MAX);
    let (x, y) = (t.b.icmp(Cond::Eq, a, min), t.b.icmp(Cond::Eq, b, ones));
    let both = t.b.and(x, y);
    t.b.or(by_zero, both)
}

fn divd(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let q = t.b.bin(if signed(i) { Op::SDiv } else { Op::UDiv }, a, b);
    if i.oe() {
        let ov = division_overflow(t, signed(i), a, b);
        t.set_overflow(ov, ov);
    }
    t.finish(i, q)
}

/// divwe, divweu: the dividend is the word with 32 zeros behind it.
fn divwe(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let dividend = t.shl(a, 32);
    let (q, ov) = if signed(i) {
        let divisor = t.b.sext(b, 32);
        let q = t.b.bin(Op::SDiv, dividend, divisor);
        let fits = t.b.sext(q, 32);
        let large = t.b.icmp(Cond::Ne, fits, q);
        let zero = t.c64(0);
        let by_zero = t.b.icmp(Cond::Eq, divisor, zero);
        (q, t.b.or(large, by_zero))
    } else {
        let divisor = t.b.zext(b, 32);
        let q = t.b.bin(Op::UDiv, dividend, divisor);
        let (al, bl) = (t.low(a), t.low(b));
        (q, t.b.icmp(Cond::Uge, al, bl))
    };
    if i.oe() {
        t.set_overflow(ov, ov);
    }
    let zero = t.c64(0);
    let q = t.b.select(ov, zero, q);
    t.finish(i, q)
}

fn divde(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let (q, o) = if signed(i) { (calls::DIVDE, calls::DIVDE_OV) } else { (calls::DIVDEU, calls::DIVDEU_OV) };
    let v = t.b.call(q, &[a, b]);
    if i.oe() {
        let ov = t.b.call(o, &[a, b]);
        t.set_overflow(ov, ov);
    }
    t.finish(i, v)
}

/// `a - a / b * b`.
fn remainder(t: &mut Translator, signed: bool, a: Value, b: Value) -> Value {
    let q = t.b.bin(if signed { Op::SDiv } else { Op::UDiv }, a, b);
    let p = t.b.bin(Op::Mul, q, b);
    t.b.sub(a, p)
}

fn modw(t: &mut Translator, i: Insn) -> Flow {
    let signed = i.bit(21);
    let (a, b) = (t.w(i.ra()), t.w(i.rb()));
    let v = remainder(t, signed, a, b);
    let v = if signed { t.b.sext64(v) } else { t.b.zext64(v) };
    t.set_r(i.rt(), v);
    Flow::Next
}

fn modd(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let v = remainder(t, i.bit(21), a, b);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn maddhd(t: &mut Translator, i: Insn) -> Flow {
    let unsigned = i.bit(31);
    let (a, b, c) = (t.r(i.ra()), t.r(i.rb()), t.r(i.rc_reg()));
    let low = t.b.bin(Op::Mul, a, b);
    let high = t.b.bin(if unsigned { Op::UMulHi } else { Op::SMulHi }, a, b);
    let sum = t.b.add(low, c);
    let carry = t.b.icmp(Cond::Ult, sum, c);
    let carry = t.from_bool(carry);
    let mut v = t.b.add(high, carry);
    if !unsigned {
        let sign = t.sar(c, 63);
        v = t.b.add(v, sign);
    }
    t.set_r(i.rt(), v);
    Flow::Next
}

fn maddld(t: &mut Translator, i: Insn) -> Flow {
    let (a, b, c) = (t.r(i.ra()), t.r(i.rb()), t.r(i.rc_reg()));
    let v = t.b.bin(Op::Mul, a, b);
    let v = t.b.add(v, c);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn addg6s(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let v = t.b.call(calls::ADDG6S, &[a, b]);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn darn(t: &mut Translator, i: Insn) -> Flow {
    let kind = t.c32(i.field(14, 15));
    let v = t.b.call(calls::DARN, &[kind]);
    t.set_r(i.rt(), v);
    Flow::Next
}
