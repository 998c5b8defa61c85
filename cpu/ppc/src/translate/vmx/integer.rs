//! Integer arithmetic, compares and shifts of elements.

use super::emit::splat;
use crate::translate::fp::cr_from_bits;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Op, Type, Value};

/// Saturating addition or subtraction: VSCR.SAT is set where the wrapping one differs.
pub(super) fn saturate(t: &mut Translator, i: Insn, op: Op, wrapping: Op, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.b.v2(op, lane, a, b);
    let exact = t.b.v2(wrapping, lane, a, b);
    t.saturated(exact, r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Signed rounding average: the unsigned one of numbers moved by half the range.
pub(super) fn average(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let sign = t.b.vconst(splat(lane, 1 << (lane.bits() - 1)));
    let (a, b) = (t.vxor(a, sign), t.vxor(b, sign));
    let r = t.b.v2(Op::VAvgU, lane, a, b);
    let r = t.vxor(r, sign);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn difference(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let max = t.b.v2(Op::VMaxU, lane, a, b);
    let min = t.b.v2(Op::VMinU, lane, a, b);
    let r = t.b.v2(Op::VSub, lane, max, min);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// `VRT ← op(VRB)`.
pub(super) fn one(t: &mut Translator, i: Insn, op: Op, lane: Lane) -> Flow {
    let b = t.vr(i.rb());
    let r = t.b.v1(op, lane, b);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Sign extension of the low `from` bits of lanes.
pub(super) fn extend(t: &mut Translator, i: Insn, lane: Lane, from: u32) -> Flow {
    let b = t.vr(i.rb());
    let n = u64::from(lane.bits() - from);
    let r = t.b.v1_imm(Op::VShl, lane, b, n);
    let r = t.b.v1_imm(Op::VSar, lane, r, n);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Products of the even or odd elements, twice as wide.
pub(super) fn multiply(t: &mut Translator, i: Insn, lane: Lane, signed: bool, even: bool) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = match lane {
        Lane::D => {
            let imm = 6 | u32::from(signed) << 3 | u32::from(even) << 4;
            t.vec_pure(VecOp::MulWiden, imm, [a, b, b])
        }
        Lane::S => {
            let pick = |t: &mut Translator, v| if even { t.b.v1_imm(Op::VShr, Lane::D, v, 32) } else { v };
            let (a, b) = (pick(t, a), pick(t, b));
            t.b.simd(if signed { SimdOp::PMulDq } else { SimdOp::PMulUDq }, Fmt::Ps, &[a, b], 0)
        }
        _ => {
            let wide = Lane::from_size(lane as u32 + 1);
            let n = u64::from(lane.bits());
            let pick = |t: &mut Translator, v| {
                let v = if even { v } else { t.b.v1_imm(Op::VShl, wide, v, n) };
                t.b.v1_imm(if signed { Op::VSar } else { Op::VShr }, wide, v, n)
            };
            let (a, b) = (pick(t, a), pick(t, b));
            t.b.v2(Op::VMul, wide, a, b)
        }
    };
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn multiply_low_add(t: &mut Translator, i: Insn) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rc_reg()));
    let p = t.b.v2(Op::VMul, Lane::H, a, b);
    let r = t.b.v2(Op::VAdd, Lane::H, p, c);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn compare(t: &mut Translator, i: Insn, op: Op, lane: Lane, negate: bool) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.b.v2(op, lane, a, b);
    let r = if negate { t.vnot(r) } else { r };
    t.set_vr(i.rt(), r);
    if i.bit(21) {
        t.cr6(r);
    }
    Flow::Next
}

/// Not equal, or zero in either.
pub(super) fn compare_zero(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let zero = t.b.vconst(0);
    let eq = t.b.v2(Op::VCmpEq, lane, a, b);
    let (p, q) = (t.b.v2(Op::VCmpEq, lane, a, zero), t.b.v2(Op::VCmpEq, lane, b, zero));
    let ne = t.vnot(eq);
    let z = t.vor(p, q);
    let r = t.vor(ne, z);
    t.set_vr(i.rt(), r);
    if i.bit(21) {
        t.cr6(r);
    }
    Flow::Next
}

/// A compare by its helper.
pub(super) fn compare_state(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_state(op, imm, i.bit(21), [a, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vcmpuq, vcmpsq.
pub(super) fn compare_field(t: &mut Translator, i: Insn, signed: u32) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_pure(VecOp::CompareQField, signed, [a, b, b]);
    let r = t.doubleword(r, 1);
    let r = t.b.trunc(r);
    cr_from_bits(t, i.bf(), r);
    Flow::Next
}

/// Shifts and rotates of each element by the low bits of the other's.
pub(super) fn shift(t: &mut Translator, i: Insn, op: VecOp, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let mask = t.b.vconst(splat(lane, u64::from(lane.bits()) - 1));
    let n = t.vand(b, mask);
    let r = match lane {
        Lane::B => shift_bytes(t, op, a, n),
        Lane::H => shift_halfwords(t, op, a, n),
        _ => shift_wide(t, op, lane, a, n),
    };
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Words and doublewords.
fn shift_wide(t: &mut Translator, op: VecOp, lane: Lane, a: Value, n: Value) -> Value {
    let double = lane == Lane::D;
    let left = if double { SimdOp::PSllVQ } else { SimdOp::PSllVD };
    let right = if double { SimdOp::PSrlVQ } else { SimdOp::PSrlVD };
    match op {
        VecOp::ShiftLeft => t.b.simd(left, Fmt::Ps, &[a, n], 0),
        VecOp::ShiftRight => t.b.simd(right, Fmt::Ps, &[a, n], 0),
        VecOp::ShiftRightSigned if !double => t.b.simd(SimdOp::PSraVD, Fmt::Ps, &[a, n], 0),
        VecOp::ShiftRightSigned => {
            // Moved by half the range, so that nothing is negative.
            let sign = t.b.vconst(splat(lane, 1 << 63));
            let moved = t.vxor(a, sign);
            let (r, by) = (t.b.simd(right, Fmt::Ps, &[moved, n], 0), t.b.simd(right, Fmt::Ps, &[sign, n], 0));
            t.b.v2(Op::VSub, lane, r, by)
        }
        _ => {
            let bits = t.b.vconst(splat(lane, u64::from(lane.bits())));
            let other = t.b.v2(Op::VSub, lane, bits, n);
            let (l, r) = (t.b.simd(left, Fmt::Ps, &[a, n], 0), t.b.simd(right, Fmt::Ps, &[a, other], 0));
            t.vor(l, r)
        }
    }
}

/// Halfwords, as halves of words: where a result may run over, what it would run into is taken away.
fn shift_halfwords(t: &mut Translator, op: VecOp, a: Value, n: Value) -> Value {
    let low = t.b.vconst(splat(Lane::S, 0xffff));
    let high = t.b.vconst(splat(Lane::S, 0xffff_0000));
    let by_low = t.vand(n, low);
    let by_high = t.b.v1_imm(Op::VShr, Lane::S, n, 16);
    let up = t.b.v1_imm(Op::VShl, Lane::S, a, 16);
    let by = |t: &mut Translator, op, v, n| t.b.simd(op, Fmt::Ps, &[v, n], 0);
    let (l, h) = match op {
        VecOp::ShiftLeft => {
            let top = t.vand(a, high);
            let (l, h) = (by(t, SimdOp::PSllVD, a, by_low), by(t, SimdOp::PSllVD, top, by_high));
            (t.vand(l, low), h)
        }
        VecOp::ShiftRight | VecOp::ShiftRightSigned => {
            let right = if op == VecOp::ShiftRight { SimdOp::PSrlVD } else { SimdOp::PSraVD };
            let (l, h) = (by(t, right, up, by_low), by(t, right, a, by_high));
            (t.b.v1_imm(Op::VShr, Lane::S, l, 16), t.vand(h, high))
        }
        _ => {
            // Each twice, one behind the other.
            let (bottom, top) = (t.vand(a, low), t.vand(a, high));
            let down = t.b.v1_imm(Op::VShr, Lane::S, a, 16);
            let (l, h) = (t.vor(bottom, up), t.vor(top, down));
            let (l, h) = (by(t, SimdOp::PSllVD, l, by_low), by(t, SimdOp::PSllVD, h, by_high));
            (t.b.v1_imm(Op::VShr, Lane::S, l, 16), t.vand(h, high))
        }
    };
    t.vor(l, h)
}

/// Bytes, as halves of halfwords that are multiplied by powers of two.
fn shift_bytes(t: &mut Translator, op: VecOp, a: Value, n: Value) -> Value {
    let left = matches!(op, VecOp::ShiftLeft | VecOp::Rotate);
    // To the right by n is to the left by 7 - n, and then 7 to the right.
    let powers = t.b.vconst(if left { 0x8040_2010_0804_0201 } else { 0x0102_0408_1020_4080 });
    let power = t.b.op2(Op::VTable, Type::V128, powers, n, 0, 0);
    let low = t.b.vconst(splat(Lane::H, 0xff));
    if op == VecOp::ShiftLeft {
        let high = t.b.vconst(splat(Lane::H, 0xff00));
        let (l, top) = (t.b.v2(Op::VMul, Lane::H, a, power), t.b.v1_imm(Op::VShr, Lane::H, a, 8));
        let (l, power) = (t.vand(l, low), t.vand(power, high));
        let h = t.b.v2(Op::VMul, Lane::H, top, power);
        return t.vor(l, h);
    }
    let sign = t.b.vconst(splat(Lane::B, 0x80));
    let from = if op == VecOp::ShiftRightSigned { t.vxor(a, sign) } else { a };
    let product = |t: &mut Translator, v, power| {
        let p = t.b.v2(Op::VMul, Lane::H, v, power);
        if op == VecOp::Rotate {
            let over = t.b.v1_imm(Op::VShr, Lane::H, p, 8);
            t.vor(p, over)
        } else {
            t.b.v1_imm(Op::VShr, Lane::H, p, 7)
        }
    };
    let (bottom, times) = (t.vand(from, low), t.vand(power, low));
    let l = product(t, bottom, times);
    let (top, times) = (t.b.v1_imm(Op::VShr, Lane::H, from, 8), t.b.v1_imm(Op::VShr, Lane::H, power, 8));
    let h = product(t, top, times);
    let (l, h) = (t.vand(l, low), t.b.v1_imm(Op::VShl, Lane::H, h, 8));
    let r = t.vor(l, h);
    // What the sign moved by was shifted too: 0x80 >> n.
    if op == VecOp::ShiftRightSigned { t.b.v2(Op::VSub, Lane::B, r, power) } else { r }
}
