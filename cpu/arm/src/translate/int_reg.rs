//! Data processing (register): logical, add/subtract, carry, conditional, multiply, divide, bits, flags (C4.1.95).

use super::{Flow, Insn, Pattern, Translator, helpers, pat};
use crate::config::Feature;
use rhea_ir::{Cond, Op, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("logical_reg", "sf opc:2 01010 shift:2 N Rm:5 imm6:6 Rn:5 Rd:5", logical_reg),
    pat("add_sub_shifted", "sf op S 01011 shift:2 0 Rm:5 imm6:6 Rn:5 Rd:5", add_sub_shifted),
    pat("add_sub_extended", "sf op S 01011 001 Rm:5 option:3 imm3:3 Rn:5 Rd:5", add_sub_extended),
    pat("adc_sbc", "sf op S 11010000 Rm:5 000000 Rn:5 Rd:5", adc_sbc),
    pat("rmif", "101 11010000 imm6:6 00001 Rn:5 0 mask:4", rmif).needs(Feature::FlagM),
    pat("setf", "001 11010000 000000 sz 0010 Rn:5 01101", setf).needs(Feature::FlagM),
    pat("ccmp_reg", "sf op 1 11010010 Rm:5 cond:4 00 Rn:5 0 nzcv:4", ccmp),
    pat("ccmp_imm", "sf op 1 11010010 imm5:5 cond:4 10 Rn:5 0 nzcv:4", ccmp),
    pat("csel", "sf op 0 11010100 Rm:5 cond:4 0 o2 Rn:5 Rd:5", csel),
    pat("madd_msub", "sf 00 11011 000 Rm:5 o0 Ra:5 Rn:5 Rd:5", madd),
    pat("mul_long", "100 11011 U 01 Rm:5 o0 Ra:5 Rn:5 Rd:5", madd_long),
    pat("mul_high", "100 11011 U 10 Rm:5 0 11111 Rn:5 Rd:5", mul_high),
    pat("div", "sf 00 11010110 Rm:5 00001 o1 Rn:5 Rd:5", div),
    pat("shift_var", "sf 00 11010110 Rm:5 0010 op2:2 Rn:5 Rd:5", shift_var),
    pat("crc32", "sf 00 11010110 Rm:5 010 C sz:2 Rn:5 Rd:5", crc32).needs(Feature::Crc32),
    pat("rbit", "sf 10 11010110 00000 000000 Rn:5 Rd:5", rbit),
    pat("rev", "sf 10 11010110 00000 0000 opc:2 Rn:5 Rd:5", rev),
    pat("clz_cls", "sf 10 11010110 00000 00010 op Rn:5 Rd:5", clz_cls),
    pat("cfinv", "1101010100 0 00 000 0100 0000 000 11111", cfinv).needs(Feature::FlagM),
    pat("xaflag", "1101010100 0 00 000 0100 0000 001 11111", xaflag).needs(Feature::FlagM2),
    pat("axflag", "1101010100 0 00 000 0100 0000 010 11111", axflag).needs(Feature::FlagM2),
];

/// ShiftReg(): LSL, LSR, ASR or ROR by a constant.
fn shifted(t: &mut Translator, sf: bool, n: u32, kind: u32, amount: u32) -> Value {
    let v = t.reg(sf, n);
    match kind {
        0 => t.shl(v, amount),
        1 => t.shr(v, amount),
        2 => t.sar(v, amount),
        _ if amount == 0 => v,
        _ => t.b.bin_imm(Op::Rotr, v, amount as u64),
    }
}

/// ExtendReg(): extension by `option`, shifted left by `amount`, as I64 or I32.
pub(super) fn extended(t: &mut Translator, sf: bool, n: u32, option: u32, amount: u32) -> Value {
    let v = if sf {
        match option {
            3 | 7 => t.x(n),
            2 => {
                let w = t.w(n);
                t.b.zext64(w)
            }
            6 => {
                let w = t.w(n);
                t.b.sext64(w)
            }
            _ => {
                let x = t.x(n);
                let bits = 8 << (option & 3);
                if option & 4 != 0 { t.b.sext(x, bits) } else { t.b.zext(x, bits) }
            }
        }
    } else {
        let w = t.w(n);
        match option & 3 {
            2 | 3 => w,
            o if option & 4 != 0 => t.b.sext(w, 8 << o),
            o => t.b.zext(w, 8 << o),
        }
    };
    t.shl(v, amount)
}

fn logical_reg(t: &mut Translator, i: Insn) -> Flow {
    let (sf, opc, invert, amount) = (i.sf(), i.bits(29, 2), i.bit(21), i.bits(10, 6));
    if !sf && amount >= 32 {
        return Flow::Undef;
    }
    let b = shifted(t, sf, i.rm(), i.bits(22, 2), amount);
    let r = if opc == 1 && i.rn() == 31 {
        // MOV, MVN.
        if invert { t.b.un(Op::Not, b) } else { b }
    } else {
        let a = t.reg(sf, i.rn());
        match (opc, invert) {
            (0 | 3, false) => t.b.and(a, b),
            (0 | 3, true) => t.b.bin(Op::AndNot, a, b),
            (_, inv) => {
                let b = if inv { t.b.un(Op::Not, b) } else { b };
                if opc == 1 { t.b.or(a, b) } else { t.b.xor(a, b) }
            }
        }
    };
    t.set_reg(sf, i.rd(), r);
    if opc == 3 {
        let f = t.b.op1(Op::FlagsLogic, Type::I32, r, 0, 0);
        t.set_flags(f);
    }
    Flow::Next
}

/// Adds or subtracts, with the flags if wanted.
fn add_sub(t: &mut Translator, i: Insn, a: Value, b: Value) -> Value {
    let sub = i.bit(30);
    if i.bit(29) {
        let f = t.b.op2(if sub { Op::FlagsSub } else { Op::FlagsAdd }, Type::I32, a, b, 0, 0);
        t.set_flags(f);
    }
    if sub { t.b.sub(a, b) } else { t.b.add(a, b) }
}

fn add_sub_shifted(t: &mut Translator, i: Insn) -> Flow {
    let (sf, kind, amount) = (i.sf(), i.bits(22, 2), i.bits(10, 6));
    if kind == 3 || (!sf && amount >= 32) {
        return Flow::Undef;
    }
    let a = t.reg(sf, i.rn());
    let b = shifted(t, sf, i.rm(), kind, amount);
    let r = add_sub(t, i, a, b);
    t.set_reg(sf, i.rd(), r);
    Flow::Next
}

fn add_sub_extended(t: &mut Translator, i: Insn) -> Flow {
    let (sf, amount) = (i.sf(), i.bits(10, 3));
    if amount > 4 {
        return Flow::Undef;
    }
    let a = t.reg_sp(sf, i.rn());
    let b = extended(t, sf, i.rm(), i.bits(13, 3), amount);
    let r = add_sub(t, i, a, b);
    if i.bit(29) {
        t.set_reg(sf, i.rd(), r)
    } else {
        t.set_reg_sp(sf, i.rd(), r)
    }
    Flow::Next
}

fn adc_sbc(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let a = t.reg(sf, i.rn());
    let b = t.reg(sf, i.rm());
    let b = if i.bit(30) { t.b.un(Op::Not, b) } else { b };
    let c = t.carry();
    let r = t.b.op3(Op::Adc, Translator::ty(sf), a, b, c, 0);
    if i.bit(29) {
        let f = t.b.op3(Op::FlagsAdc, Type::I32, a, b, c, 0);
        t.set_flags(f);
    }
    t.set_reg(sf, i.rd(), r);
    Flow::Next
}

fn ccmp(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let a = t.reg(sf, i.rn());
    let b = if i.bit(11) { t.cint(sf, i.rm() as u64) } else { t.reg(sf, i.rm()) };
    let cond = t.condition(i.bits(12, 4));
    let compared = t.b.op2(if i.bit(30) { Op::FlagsSub } else { Op::FlagsAdd }, Type::I32, a, b, 0, 0);
    let other = t.c32(Translator::pack_nzcv(i.bits(0, 4)));
    let f = t.b.select(cond, compared, other);
    t.set_flags(f);
    Flow::Next
}

fn csel(t: &mut Translator, i: Insn) -> Flow {
    let (sf, invert, inc, cond) = (i.sf(), i.bit(30), i.bit(10), i.bits(12, 4));
    let ty = Translator::ty(sf);
    if i.rn() == 31 && i.rm() == 31 && invert != inc && cond < 14 {
        // CSET and CSETM.
        let c = t.condition(cond ^ 1);
        let v = t.b.op1(Op::FromBool, ty, c, 0, 0);
        let v = if invert { t.b.un(Op::Neg, v) } else { v };
        t.set_reg(sf, i.rd(), v);
        return Flow::Next;
    }
    let c = t.condition(cond);
    let a = t.reg(sf, i.rn());
    let b = t.reg(sf, i.rm());
    let b = match (invert, inc) {
        (false, false) => b,
        (false, true) => t.add_imm(b, 1),
        (true, false) => t.b.un(Op::Not, b),
        (true, true) => t.b.un(Op::Neg, b),
    };
    let v = t.b.select(c, a, b);
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

/// `acc ± product`.
fn accumulate(t: &mut Translator, sf: bool, i: Insn, product: Value) -> Value {
    if i.ra() == 31 && !i.bit(15) {
        return product;
    }
    if i.ra() == 31 {
        return t.b.un(Op::Neg, product);
    }
    let acc = t.reg(sf, i.ra());
    if i.bit(15) { t.b.sub(acc, product) } else { t.b.add(acc, product) }
}

fn madd(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let a = t.reg(sf, i.rn());
    let b = t.reg(sf, i.rm());
    let p = t.b.bin(Op::Mul, a, b);
    let r = accumulate(t, sf, i, p);
    t.set_reg(sf, i.rd(), r);
    Flow::Next
}

fn madd_long(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.w(i.rn()), t.w(i.rm()));
    let (a, b) = if i.bit(23) { (t.b.zext64(a), t.b.zext64(b)) } else { (t.b.sext64(a), t.b.sext64(b)) };
    let p = t.b.bin(Op::Mul, a, b);
    let r = accumulate(t, true, i, p);
    t.set_x(i.rd(), r);
    Flow::Next
}

fn mul_high(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.x(i.rn()), t.x(i.rm()));
    let r = t.b.bin(if i.bit(23) { Op::UMulHi } else { Op::SMulHi }, a, b);
    t.set_x(i.rd(), r);
    Flow::Next
}

fn div(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let (a, b) = (t.reg(sf, i.rn()), t.reg(sf, i.rm()));
    let r = t.b.bin(if i.bit(10) { Op::SDiv } else { Op::UDiv }, a, b);
    t.set_reg(sf, i.rd(), r);
    Flow::Next
}

fn shift_var(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let (a, b) = (t.reg(sf, i.rn()), t.reg(sf, i.rm()));
    let op = [Op::Shl, Op::Shr, Op::Sar, Op::Rotr][i.bits(10, 2) as usize];
    let r = t.b.bin(op, a, b);
    t.set_reg(sf, i.rd(), r);
    Flow::Next
}

fn crc32(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(10, 2);
    if i.sf() != (size == 3) {
        return Flow::Undef;
    }
    let acc = t.w(i.rn());
    let v = t.x(i.rm());
    let bytes = t.c32(1 << size);
    let r = t.b.call(if i.bit(12) { helpers::CRC32C } else { helpers::CRC32 }, &[acc, v, bytes]);
    t.set_w(i.rd(), r);
    Flow::Next
}

fn rbit(t: &mut Translator, i: Insn) -> Flow {
    let v = t.reg(i.sf(), i.rn());
    let v = t.b.un(Op::Bitrev, v);
    t.set_reg(i.sf(), i.rd(), v);
    Flow::Next
}

fn rev(t: &mut Translator, i: Insn) -> Flow {
    let (sf, opc) = (i.sf(), i.bits(10, 2));
    if !sf && opc == 3 {
        return Flow::Undef;
    }
    let v = t.reg(sf, i.rn());
    let v = match (opc, sf) {
        (1, _) => t.b.un(Op::Bswap16, v),
        (2, true) => {
            let r = t.b.un(Op::Bswap, v);
            t.b.bin_imm(Op::Rotr, r, 32)
        }
        _ => t.b.un(Op::Bswap, v),
    };
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

fn clz_cls(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let v = t.reg(sf, i.rn());
    let v = if i.bit(10) {
        // Leading bits equal to the sign, the sign itself not counted.
        let s = t.sar(v, 1);
        let d = t.b.xor(v, s);
        let n = t.b.un(Op::Clz, d);
        t.b.bin_imm(Op::Sub, n, 1)
    } else {
        t.b.un(Op::Clz, v)
    };
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

// ---- FEAT_FlagM, FEAT_FlagM2 ----

const C: u32 = 1 << 8;

fn rmif(t: &mut Translator, i: Insn) -> Flow {
    let (amount, mask) = (i.bits(15, 6), Translator::pack_nzcv(i.bits(0, 4)));
    let v = t.x(i.rn());
    // The four bits to bits 31:28.
    let v = t.b.bin_imm(Op::Rotr, v, ((amount + 36) & 63) as u64);
    let v = t.b.trunc(v);
    let new = t.b.op1(Op::FlagsFromNzcv, Type::I32, v, 0, 0);
    let new = t.and_imm(new, mask as u64);
    let old = t.flags();
    let old = t.and_imm(old, !mask as u64 & 0xffff_ffff);
    let f = t.b.or(old, new);
    t.set_flags(f);
    Flow::Next
}

fn setf(t: &mut Translator, i: Insn) -> Flow {
    let bits = if i.bit(14) { 16 } else { 8 };
    let w = t.w(i.rn());
    let top = t.shl(w, 32 - bits);
    let nz = t.b.op1(Op::FlagsLogic, Type::I32, top, 0, 0);
    let (a, b) = (t.shr(w, bits), t.shr(w, bits - 1));
    let v = t.b.xor(a, b);
    let v = t.and_imm(v, 1);
    let old = t.flags();
    let c = t.and_imm(old, C as u64);
    let f = t.b.or(nz, v);
    let f = t.b.or(f, c);
    t.set_flags(f);
    Flow::Next
}

fn cfinv(t: &mut Translator, _: Insn) -> Flow {
    let f = t.flags();
    let f = t.b.bin_imm(Op::Xor, f, C as u64);
    t.set_flags(f);
    Flow::Next
}

/// Z, C and V as 0 or 1 in I32.
fn zcv(t: &mut Translator) -> (Value, Value, Value) {
    let f = t.flags();
    let mut bit = |c| {
        let b = t.b.cond_flags(c, f);
        t.b.op1(Op::FromBool, Type::I32, b, 0, 0)
    };
    (bit(Cond::Eq), bit(Cond::Uge), bit(Cond::Vs))
}

fn axflag(t: &mut Translator, _: Insn) -> Flow {
    let (z, c, v) = zcv(t);
    let z = t.b.or(z, v);
    let c = t.b.bin(Op::AndNot, c, v);
    let (z, c) = (t.shl(z, 14), t.shl(c, 8));
    let f = t.b.or(z, c);
    t.set_flags(f);
    Flow::Next
}

fn xaflag(t: &mut Translator, _: Insn) -> Flow {
    let (z, c, _) = zcv(t);
    let either = t.b.or(z, c);
    let n = t.b.bin_imm(Op::Xor, either, 1);
    let n = t.shl(n, 15);
    let nz = t.b.and(z, c);
    let nz = t.shl(nz, 14);
    let v = t.b.bin(Op::AndNot, z, c);
    let nc = t.shl(either, 8);
    let f = t.b.or(n, nz);
    let f = t.b.or(f, nc);
    let f = t.b.or(f, v);
    t.set_flags(f);
    Flow::Next
}
