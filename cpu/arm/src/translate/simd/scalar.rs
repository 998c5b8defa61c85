//! Scalar floating point: moves, arithmetic, compares, conversions with general registers.

use super::access::{fp_lane, fp_type};
use super::{Done, helpers};
use crate::config::Feature;
use crate::simd_helpers::desc::Desc;
use crate::simd_helpers::fp::FpOp;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

/// Rounding numbers of FP operations' `aux`.
pub(super) const CURRENT: u32 = 255;
pub(super) const ZERO: u32 = 3;
pub(super) const AWAY: u32 = 4;
/// In `FRound`'s aux: inexact is signalled.
pub(super) const EXACT: u32 = 256;

/// VFPExpandImm(): bits of the constant in the lane's format.
pub(super) fn expand_imm(imm8: u32, lane: Lane) -> u64 {
    let (e, f) = match lane {
        Lane::D => (11, 52),
        Lane::S => (8, 23),
        _ => (5, 10),
    };
    let imm = imm8 as u64;
    let (sign, b6) = (imm >> 7 & 1, imm >> 6 & 1);
    let mut exp = (b6 ^ 1) << (e - 1) | (imm >> 4 & 3);
    if b6 != 0 {
        exp |= ((1 << (e - 3)) - 1) << 2;
    }
    sign << (e + f) | exp << f | (imm & 15) << (f - 4)
}

/// `2^-n` in the lane's format (S or D).
fn pow2_neg(n: u32, lane: Lane) -> u64 {
    match lane {
        Lane::D => (1023 - n as u64) << 52,
        _ => (127 - n as u64) << 23,
    }
}

/// ptype and the feature it needs.
fn ptype(t: &Translator, i: Insn) -> Option<Lane> {
    let lane = fp_lane(i.bits(22, 2))?;
    (lane != Lane::H || t.cfg.has(Feature::Fp16)).then_some(lane)
}

impl Translator<'_, '_> {
    /// Scalar FP operation of one H, S or D register: natively, or for H by the helper.
    fn fp1(&mut self, lane: Lane, op: Op, half: FpOp, n: u32) -> Value {
        if lane == Lane::H {
            let v = self.v(n);
            return self.fp_call(half, lane, 2, &[v]);
        }
        let a = self.fp(n, lane);
        let r = self.b.op1(op, fp_type(lane), a, 0, 0);
        self.b.vfromscalar(r)
    }
    /// An FP lane helper with the current rounding.
    pub(super) fn fp_call(&mut self, op: FpOp, lane: Lane, bytes: u32, args: &[Value]) -> Value {
        self.fp_call_desc(Desc::new(op as u32, lane, bytes), args)
    }
    pub(super) fn fp_call_desc(&mut self, desc: Desc, args: &[Value]) -> Value {
        let h = match args.len() {
            1 => helpers::FP1,
            2 => helpers::FP2,
            _ => helpers::FP3,
        };
        self.lanes_call(h, desc.0, args)
    }

    /// Packed flags of an FP compare; `b` is `None` for zero.
    fn fp_compare(&mut self, lane: Lane, a: Value, b: Value, signal: bool) -> Value {
        if lane == Lane::H {
            let s = self.c32(signal as u32);
            return self.b.call(helpers::HALF_CMP, &[s, a, b]);
        }
        self.b.op2(Op::FlagsFCmp, Type::I32, a, b, signal as u32, 0)
    }
    /// Register for a compare: F32, F64, or the bits of an H register.
    fn fp_or_half(&mut self, n: u32, lane: Lane) -> Value {
        if lane == Lane::H { self.half(n) } else { self.fp(n, lane) }
    }
    fn fp_zero(&mut self, lane: Lane) -> Value {
        let ty = if lane == Lane::H { Type::I32 } else { fp_type(lane) };
        self.b.iconst(ty, 0)
    }
}

/// One source: FMOV, FABS, FNEG, FSQRT, FCVT, FRINT*.
pub(super) fn one_source(t: &mut Translator, i: Insn) -> Done {
    let op = i.bits(15, 6);
    let (n, d) = (i.rn(), i.rd());
    if (4..8).contains(&op) {
        return convert(t, i);
    }
    let lane = ptype(t, i)?;
    match op {
        0 => {
            let r = t.v_fit(n, lane.bytes());
            t.set_v(d, r);
        }
        1 | 2 => {
            let sign = 1u128 << (lane.bits() - 1);
            let a = t.v(n);
            let r = if op == 1 {
                let m = t.b.vconst(sign - 1);
                t.bits(Op::VAnd, a, m)
            } else if lane == Lane::H {
                let m = t.b.vconst(sign);
                let a = t.fit(2, a);
                t.bits(Op::VXor, a, m)
            } else {
                let a = t.fp(n, lane);
                let r = t.b.un(Op::FNeg, a);
                t.b.vfromscalar(r)
            };
            // FABS of S and D stays in the scalar domain.
            if op == 1 && lane != Lane::H {
                let a = t.fp(n, lane);
                let r = t.b.un(Op::FAbs, a);
                t.set_fp(d, r);
            } else {
                t.set_v(d, r);
            }
        }
        3 => {
            let r = t.fp1(lane, Op::FSqrt, FpOp::Sqrt, n);
            t.set_v(d, r);
        }
        8..=12 | 14 | 15 => {
            let aux = match op {
                8..=11 => op - 8,
                12 => AWAY,
                14 => CURRENT | EXACT,
                _ => CURRENT,
            };
            let r = round(t, lane, n, aux);
            t.set_v(d, r);
        }
        16..=19 => {
            if lane == Lane::H || !t.cfg.has(Feature::FrintTs) {
                return None;
            }
            let v = t.v(n);
            let desc = frint_sized(op & 1 == 0, if op < 18 { 32 } else { 64 }, lane, lane.bytes());
            let r = t.fp_call_desc(desc, &[v]);
            t.set_v(d, r);
        }
        _ => return None,
    }
    Some(())
}

/// Descriptor of FRINT32Z, FRINT32X, FRINT64Z, FRINT64X.
pub(super) fn frint_sized(to_zero: bool, bits: u32, lane: Lane, bytes: u32) -> Desc {
    let d = Desc::new(FpOp::RoundSized as u32, lane, bytes).imm(bits);
    if to_zero { d.rounding(ZERO) } else { d }
}

fn round(t: &mut Translator, lane: Lane, n: u32, aux: u32) -> Value {
    if lane == Lane::H {
        let v = t.v(n);
        let desc = Desc::new(FpOp::Round as u32, lane, 2).rounding(aux & 7).exact(aux & EXACT != 0);
        return t.fp_call_desc(desc, &[v]);
    }
    let a = t.fp(n, lane);
    let r = t.b.op1(Op::FRound, fp_type(lane), a, aux, 0);
    t.b.vfromscalar(r)
}

/// FCVT between formats, BFCVT.
fn convert(t: &mut Translator, i: Insn) -> Done {
    let (from, to) = (i.bits(22, 2), i.bits(15, 2));
    let (n, d) = (i.rn(), i.rd());
    let r = match (from, to) {
        (0, 1) => {
            let a = t.fp(n, Lane::S);
            t.b.op1(Op::FExtend, Type::F64, a, 0, 0)
        }
        (1, 0) => {
            let a = t.fp(n, Lane::D);
            t.b.op1(Op::FNarrow, Type::F32, a, 0, 0)
        }
        (3, 0) => {
            let a = t.half(n);
            t.b.call(helpers::HALF_TO_S, &[a])
        }
        (3, 1) => {
            let a = t.half(n);
            t.b.call(helpers::HALF_TO_D, &[a])
        }
        (0, 3) => {
            let a = t.fp(n, Lane::S);
            t.b.call(helpers::S_TO_HALF, &[a])
        }
        (1, 3) => {
            let a = t.fp(n, Lane::D);
            t.b.call(helpers::D_TO_HALF, &[a])
        }
        (1, 2) if t.cfg.has(Feature::Bf16) => {
            let a = t.fp(n, Lane::S);
            t.b.call(helpers::S_TO_BF16, &[a])
        }
        _ => return None,
    };
    t.set_fp(d, r);
    Some(())
}

/// Two sources.
pub(super) fn two_source(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let (native, half) = match i.bits(12, 4) {
        0 | 8 => (Op::FMul, FpOp::Mul),
        1 => (Op::FDiv, FpOp::Div),
        2 => (Op::FAdd, FpOp::Add),
        3 => (Op::FSub, FpOp::Sub),
        4 => (Op::FMax, FpOp::Max),
        5 => (Op::FMin, FpOp::Min),
        6 => (Op::FMaxNum, FpOp::MaxNum),
        7 => (Op::FMinNum, FpOp::MinNum),
        _ => return None,
    };
    let negate = i.bits(12, 4) == 8;
    let (n, m, d) = (i.rn(), i.rm(), i.rd());
    if lane == Lane::H {
        let (a, b) = (t.v(n), t.v(m));
        let mut r = t.fp_call(half, lane, 2, &[a, b]);
        if negate {
            let c = t.b.vconst(0x8000);
            r = t.bits(Op::VXor, r, c);
        }
        t.set_v(d, r);
        return Some(());
    }
    let (a, b) = (t.fp(n, lane), t.fp(m, lane));
    let mut r = t.b.bin(native, a, b);
    if negate {
        r = t.b.un(Op::FNeg, r);
    }
    t.set_fp(d, r);
    Some(())
}

/// FMADD, FMSUB, FNMADD, FNMSUB.
pub(super) fn three_source(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let (o1, o0) = (i.bit(21), i.bit(15));
    // The product is negated in FMSUB and FNMADD, the addend in FNMADD and FNMSUB.
    let (neg_a, neg_c) = (o1 != o0, o1);
    let (n, m, a, d) = (i.rn(), i.rm(), i.ra(), i.rd());
    if lane == Lane::H {
        let sign = t.b.vconst(0x8000);
        let (mut x, y, mut z) = (t.v(n), t.v(m), t.v(a));
        if neg_a {
            x = t.bits(Op::VXor, x, sign);
        }
        if neg_c {
            z = t.bits(Op::VXor, z, sign);
        }
        let r = t.fp_call(FpOp::MulAdd, lane, 2, &[x, y, z]);
        t.set_v(d, r);
        return Some(());
    }
    let (mut x, y, mut z) = (t.fp(n, lane), t.fp(m, lane), t.fp(a, lane));
    if neg_a {
        x = t.b.un(Op::FNeg, x);
    }
    if neg_c {
        z = t.b.un(Op::FNeg, z);
    }
    let r = t.b.op3(Op::FMulAdd, fp_type(lane), x, y, z, 0);
    t.set_fp(d, r);
    Some(())
}

/// FCMP, FCMPE.
pub(super) fn compare(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let (with_zero, signal) = (i.bit(3), i.bit(4));
    let a = t.fp_or_half(i.rn(), lane);
    let b = if with_zero { t.fp_zero(lane) } else { t.fp_or_half(i.rm(), lane) };
    let f = t.fp_compare(lane, a, b, signal);
    t.set_flags(f);
    Some(())
}

/// FCCMP, FCCMPE.
pub(super) fn conditional_compare(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let (cond, signal) = (i.bits(12, 4), i.bit(4));
    let c = t.condition(cond);
    // With the condition false nothing is compared: zeros raise no flag.
    let z = t.fp_zero(lane);
    let (a, b) = (t.fp_or_half(i.rn(), lane), t.fp_or_half(i.rm(), lane));
    let (a, b) = (t.b.select(c, a, z), t.b.select(c, b, z));
    let f = t.fp_compare(lane, a, b, signal);
    let other = t.c32(Translator::pack_nzcv(i.0 & 15));
    let f = t.b.select(c, f, other);
    t.set_flags(f);
    Some(())
}

/// FCSEL.
pub(super) fn conditional_select(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let c = t.condition(i.bits(12, 4));
    let (a, b) = (t.fp_or_half(i.rn(), lane), t.fp_or_half(i.rm(), lane));
    let r = t.b.select(c, a, b);
    t.set_fp(i.rd(), r);
    Some(())
}

/// FMOV (scalar, immediate).
pub(super) fn immediate(t: &mut Translator, i: Insn) -> Done {
    let lane = ptype(t, i)?;
    let bits = expand_imm(i.bits(13, 8), lane);
    let r = t.b.vconst(bits as u128);
    t.set_v(i.rd(), r);
    Some(())
}

/// To an integer of a general register.
fn to_int(t: &mut Translator, i: Insn, lane: Lane, unsigned: bool, rounding: u32, fbits: u32) {
    let (sf, n, d) = (i.sf(), i.rn(), i.rd());
    if lane == Lane::H || fbits != 0 {
        let op = if unsigned { FpOp::ToU } else { FpOp::ToS };
        let desc = t.c32(Desc::new(op as u32, lane, lane.bytes()).rounding(rounding).imm(fbits).0);
        let v = t.v(n);
        let x = t.b.vextract(Type::I64, lane, v, 0);
        let width = t.c32(if sf { 64 } else { 32 });
        let r = t.b.call(helpers::FP_TO_INT, &[desc, x, width]);
        t.set_x(d, r);
        return;
    }
    let a = t.fp(n, lane);
    let op = if unsigned { Op::FToU } else { Op::FToS };
    let r = t.b.op1(op, Translator::ty(sf), a, rounding, 0);
    t.set_reg(sf, d, r);
}

/// From an integer of a general register.
fn from_int(t: &mut Translator, i: Insn, lane: Lane, unsigned: bool, fbits: u32) {
    let (sf, n, d) = (i.sf(), i.rn(), i.rd());
    let x = t.reg(sf, n);
    if lane == Lane::H {
        let x = match (sf, unsigned) {
            (true, _) => x,
            (false, true) => t.b.zext64(x),
            (false, false) => t.b.sext64(x),
        };
        let op = if unsigned { FpOp::FromU } else { FpOp::FromS };
        let desc = t.c32(Desc::new(op as u32, lane, 2).imm(fbits).0);
        let r = t.b.call(helpers::INT_TO_FP, &[desc, x]);
        t.set_fp(d, r);
        return;
    }
    let ty = fp_type(lane);
    let mut r = t.b.op1(if unsigned { Op::UToF } else { Op::SToF }, ty, x, 0, 0);
    if fbits != 0 {
        // Exact: the result is normal or zero.
        let scale = t.b.iconst(ty, pow2_neg(fbits, lane));
        r = t.b.bin(Op::FMul, r, scale);
    }
    t.set_fp(d, r);
}

/// Conversion between floating point and fixed point in a general register.
pub(super) fn fixed(t: &mut Translator, i: Insn) -> Done {
    let (sf, rmode, op, scale) = (i.sf(), i.bits(19, 2), i.bits(16, 3), i.bits(10, 6));
    let lane = ptype(t, i)?;
    if !sf && scale < 32 {
        return None;
    }
    let fbits = 64 - scale;
    match (rmode, op) {
        (3, 0 | 1) => to_int(t, i, lane, op & 1 != 0, ZERO, fbits),
        (0, 2 | 3) => from_int(t, i, lane, op & 1 != 0, fbits),
        _ => return None,
    }
    Some(())
}

/// Conversion between floating point and integer in a general register, FMOV, FJCVTZS.
pub(super) fn integer(t: &mut Translator, i: Insn) -> Done {
    let (sf, rmode, op, ty) = (i.sf(), i.bits(19, 2), i.bits(16, 3), i.bits(22, 2));
    let (n, d) = (i.rn(), i.rd());
    if op >= 6 {
        return match (sf, ty, rmode, op) {
            (false, 0, 0, 6) => {
                let v = t.v(n);
                let x = t.b.vextract(Type::I32, Lane::S, v, 0);
                t.set_w(d, x);
                Some(())
            }
            (false, 0, 0, 7) | (true, 1, 0, 7) => {
                let x = t.reg(sf, n);
                t.set_fp(d, x);
                Some(())
            }
            (true, 1, 0, 6) | (true, 2, 1, 6) => {
                let v = t.v(n);
                let x = t.b.vextract(Type::I64, Lane::D, v, rmode);
                t.set_x(d, x);
                Some(())
            }
            (true, 2, 1, 7) => {
                let (old, x) = (t.v(d), t.x(n));
                let r = t.b.vinsert(Lane::D, old, 1, x);
                t.set_v(d, r);
                Some(())
            }
            (_, 3, 0, 6) if t.cfg.has(Feature::Fp16) => {
                let x = t.half(n);
                t.set_w(d, x);
                Some(())
            }
            (_, 3, 0, 7) if t.cfg.has(Feature::Fp16) => {
                let x = t.w(n);
                let x = t.b.zext(x, 16);
                t.set_fp(d, x);
                Some(())
            }
            (false, 1, 3, 6) if t.cfg.has(Feature::Jscvt) => {
                let a = t.fp(n, Lane::D);
                let r = t.b.call(helpers::JAVASCRIPT_INT, &[a]);
                let x = t.b.trunc(r);
                t.set_w(d, x);
                // Bit 32: the conversion was exact, which is Z.
                let z = t.shr(r, 32);
                let z = t.b.trunc(z);
                let z = t.shl(z, 14);
                t.set_flags(z);
                Some(())
            }
            _ => None,
        };
    }
    let lane = ptype(t, i)?;
    match op {
        0 | 1 => to_int(t, i, lane, op == 1, rmode, 0),
        2 | 3 if rmode == 0 => from_int(t, i, lane, op == 3, 0),
        4 | 5 if rmode == 0 => to_int(t, i, lane, op == 5, AWAY, 0),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates() {
        assert_eq!(expand_imm(0x70, Lane::D), 1f64.to_bits());
        assert_eq!(expand_imm(0x70, Lane::S), 1f32.to_bits() as u64);
        assert_eq!(expand_imm(0x70, Lane::H), 0x3c00);
        assert_eq!(expand_imm(0x80, Lane::S), (-2f32).to_bits() as u64);
        assert_eq!(expand_imm(0x3f, Lane::D), 31f64.to_bits());
        assert_eq!(pow2_neg(64, Lane::S), 2f32.powi(-64).to_bits() as u64);
    }
}
