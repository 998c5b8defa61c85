//! Floating-point vector operations, and the scalar forms that AdvSIMD encodes.

use super::access::{fp_type, splat};
use super::scalar::{AWAY, CURRENT, EXACT, ZERO, frint_sized};
use super::{Done, helpers};
use crate::config::Feature;
use crate::simd_helpers::desc::Desc;
use crate::simd_helpers::fp::{CvtOp, FpOp};
use crate::simd_helpers::int::IntOp;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

/// A lane-wise FP operation that exists natively for S and D and as a helper for H.
#[derive(Clone, Copy)]
pub(super) struct Fop(Op, FpOp);

pub(super) const ADD: Fop = Fop(Op::VFAdd, FpOp::Add);
const SUB: Fop = Fop(Op::VFSub, FpOp::Sub);
const MUL: Fop = Fop(Op::VFMul, FpOp::Mul);
const MIN: Fop = Fop(Op::VFMin, FpOp::Min);
const MAX: Fop = Fop(Op::VFMax, FpOp::Max);
const MIN_NUM: Fop = Fop(Op::VFMinNum, FpOp::MinNum);
const MAX_NUM: Fop = Fop(Op::VFMaxNum, FpOp::MaxNum);
const EQ: Fop = Fop(Op::VFCmpEq, FpOp::Eq);
const GE: Fop = Fop(Op::VFCmpGe, FpOp::Ge);
const GT: Fop = Fop(Op::VFCmpGt, FpOp::Gt);

impl Translator<'_, '_> {
    /// Two operands whose lanes above `bytes` are zero.
    pub(super) fn fop2(&mut self, f: Fop, lane: Lane, bytes: u32, a: Value, b: Value) -> Value {
        if lane == Lane::H {
            return self.fp_call(f.1, lane, bytes, &[a, b]);
        }
        let r = self.v2(f.0, lane, a, b);
        self.fit(bytes, r)
    }
    /// `a × b + c`.
    pub(super) fn fop_mul_add(&mut self, lane: Lane, bytes: u32, a: Value, b: Value, c: Value) -> Value {
        if lane == Lane::H {
            return self.fp_call(FpOp::MulAdd, lane, bytes, &[a, b, c]);
        }
        let r = self.v3(Op::VFMulAdd, lane, a, b, c);
        self.fit(bytes, r)
    }
    pub(super) fn lane_signs(&mut self, lane: Lane) -> Value {
        self.vsplat(lane, 1 << (lane.bits() - 1))
    }
    pub(super) fn fop_neg(&mut self, lane: Lane, a: Value) -> Value {
        let m = self.lane_signs(lane);
        self.bits(Op::VXor, a, m)
    }
    fn fop_abs(&mut self, lane: Lane, a: Value) -> Value {
        let m = self.b.vconst(!splat(lane, 1 << (lane.bits() - 1)));
        self.bits(Op::VAnd, a, m)
    }
    /// Lane-wise division: unused lanes divide by themselves what is in the used ones.
    fn fop_div(&mut self, lane: Lane, bytes: u32, a: Value, b: Value) -> Value {
        if lane == Lane::H {
            return self.fp_call(FpOp::Div, lane, bytes, &[a, b]);
        }
        let (a, b) = if bytes < 16 { (self.dup_lane(Lane::D, a, 0), self.dup_lane(Lane::D, b, 0)) } else { (a, b) };
        let r = self.v2(Op::VFDiv, lane, a, b);
        self.fit(bytes, r)
    }
}

/// Three-same FP operation by its opcode (low three bits), `a` bit and U, on operands fitted to `bytes`.
fn fp3(
    t: &mut Translator,
    op: u32,
    a: bool,
    u: bool,
    lane: Lane,
    bytes: u32,
    x: Value,
    y: Value,
    d: u32,
) -> Option<Value> {
    let pairwise = |t: &mut Translator, f: Fop| {
        let even = t.every_other(lane, bytes, x, y, 0);
        let odd = t.every_other(lane, bytes, x, y, 1);
        t.fop2(f, lane, bytes, even, odd)
    };
    Some(match (op, u, a) {
        (0, false, false) => t.fop2(MAX_NUM, lane, bytes, x, y),
        (0, false, true) => t.fop2(MIN_NUM, lane, bytes, x, y),
        (0, true, false) => pairwise(t, MAX_NUM),
        (0, true, true) => pairwise(t, MIN_NUM),
        (1, false, _) => {
            let c = t.v_fit(d, bytes);
            let x = if a { t.fop_neg(lane, x) } else { x };
            t.fop_mul_add(lane, bytes, x, y, c)
        }
        (2, false, false) => t.fop2(ADD, lane, bytes, x, y),
        (2, false, true) => t.fop2(SUB, lane, bytes, x, y),
        (2, true, false) => pairwise(t, ADD),
        (2, true, true) => {
            let r = t.fop2(SUB, lane, bytes, x, y);
            t.fop_abs(lane, r)
        }
        (3, false, false) => t.fp_call(FpOp::MulX, lane, bytes, &[x, y]),
        (3, true, false) => t.fop2(MUL, lane, bytes, x, y),
        (4, false, false) => t.fop2(EQ, lane, bytes, x, y),
        (4, true, false) => t.fop2(GE, lane, bytes, x, y),
        (4, true, true) => t.fop2(GT, lane, bytes, x, y),
        (5, true, _) => {
            let (x, y) = (t.fop_abs(lane, x), t.fop_abs(lane, y));
            t.fop2(if a { GT } else { GE }, lane, bytes, x, y)
        }
        (6, false, false) => t.fop2(MAX, lane, bytes, x, y),
        (6, false, true) => t.fop2(MIN, lane, bytes, x, y),
        (6, true, false) => pairwise(t, MAX),
        (6, true, true) => pairwise(t, MIN),
        (7, false, false) => t.fp_call(FpOp::RecipStep, lane, bytes, &[x, y]),
        (7, false, true) => t.fp_call(FpOp::RsqrtStep, lane, bytes, &[x, y]),
        (7, true, false) => t.fop_div(lane, bytes, x, y),
        _ => return None,
    })
}

/// The lane of S and D operations by `sz`, UNDEFINED for one D lane.
fn sz_lane(i: Insn) -> Option<Lane> {
    let d = i.bit(22);
    if d && !i.q() {
        return None;
    }
    Some(if d { Lane::D } else { Lane::S })
}

pub(super) fn three_same_fp(t: &mut Translator, i: Insn) -> Done {
    let (op, u, a) = (i.bits(11, 3), i.bit(29), i.bit(23));
    if (op == 5 && !u) || (op == 1 && u) {
        return fmlal(t, i, op == 1);
    }
    let lane = sz_lane(i)?;
    three_same_lanes(t, i, lane, op, u, a)
}

pub(super) fn three_same_fp16(t: &mut Translator, i: Insn) -> Done {
    three_same_lanes(t, i, Lane::H, i.bits(11, 3), i.bit(29), i.bit(23))
}

fn three_same_lanes(t: &mut Translator, i: Insn, lane: Lane, op: u32, u: bool, a: bool) -> Done {
    let bytes = if i.q() { 16 } else { 8 };
    let (x, y) = (t.v_fit(i.rn(), bytes), t.v_fit(i.rm(), bytes));
    let r = fp3(t, op, a, u, lane, bytes, x, y, i.rd())?;
    t.set_v_fit(i.rd(), bytes, r);
    Some(())
}

/// FMLAL, FMLSL and their "2" forms.
fn fmlal(t: &mut Translator, i: Insn, second: bool) -> Done {
    if i.bit(22) || !t.cfg.has(Feature::Fhm) {
        return None;
    }
    let (x, y) = (t.v(i.rn()), t.v(i.rm()));
    fmlal_with(t, i, second, x, y, true);
    Some(())
}

fn fmlal_with(t: &mut Translator, i: Insn, second: bool, x: Value, y: Value, part_of_y: bool) {
    let bytes = if i.q() { 16 } else { 8 };
    let first = if second { bytes / 4 } else { 0 };
    let x = t.permute(Lane::H, bytes / 2, x, |k| k + first);
    let y = if part_of_y { t.permute(Lane::H, bytes / 2, y, |k| k + first) } else { y };
    // FMLSL: bit 23 in three-same, opcode bit 14 by element.
    let subtract = if i.bits(24, 5) == 0b01110 { i.bit(23) } else { i.bit(14) };
    let x = if subtract { t.fop_neg(Lane::H, x) } else { x };
    let acc = t.v(i.rd());
    let d = Desc::new(CvtOp::MulAddHalf as u32, Lane::S, bytes).0;
    let r = t.lanes_call(helpers::CVT3, d, &[acc, x, y]);
    t.set_v(i.rd(), r);
}

pub(super) fn fmlal_by_element(t: &mut Translator, i: Insn) -> Done {
    if !t.cfg.has(Feature::Fhm) {
        return None;
    }
    let index = i.bits(11, 1) << 2 | i.bits(21, 1) << 1 | i.bits(20, 1);
    let (x, y) = (t.v(i.rn()), t.v(i.rm() & 15));
    let y = t.dup_lane(Lane::H, y, index);
    fmlal_with(t, i, i.bit(29), x, y, false);
    Some(())
}

fn scalar_three(t: &mut Translator, i: Insn, lane: Lane) -> Done {
    let (op, u, a) = (i.bits(11, 3), i.bit(29), i.bit(23));
    if !matches!((op, u, a), (3 | 4, false, false) | (7, false, _) | (4 | 5, true, _) | (2, true, true)) {
        return None;
    }
    let bytes = lane.bytes();
    if op == 2 && lane != Lane::H {
        let (x, y) = (t.fp(i.rn(), lane), t.fp(i.rm(), lane));
        let r = t.b.bin(Op::FSub, x, y);
        let r = t.b.un(Op::FAbs, r);
        t.set_fp(i.rd(), r);
        return Some(());
    }
    let (x, y) = (t.v_fit(i.rn(), bytes), t.v_fit(i.rm(), bytes));
    let r = fp3(t, op, a, u, lane, bytes, x, y, i.rd())?;
    t.set_v_fit(i.rd(), bytes, r);
    Some(())
}

pub(super) fn scalar_three_same_fp(t: &mut Translator, i: Insn) -> Done {
    scalar_three(t, i, if i.bit(22) { Lane::D } else { Lane::S })
}

pub(super) fn scalar_three_same_fp16(t: &mut Translator, i: Insn) -> Done {
    scalar_three(t, i, Lane::H)
}

/// FMLA, FMLS, FMUL, FMULX by element.
pub(super) fn by_element_fp(t: &mut Translator, i: Insn, scalar: bool) -> Done {
    let (op, u) = (i.bits(12, 4), i.bit(29));
    let (h, l, m) = (i.bits(11, 1), i.bits(21, 1), i.bits(20, 1));
    let (lane, index, rm) = match i.bits(22, 2) {
        0 if t.cfg.has(Feature::Fp16) => (Lane::H, h << 2 | l << 1 | m, i.rm() & 15),
        2 => (Lane::S, h << 1 | l, i.rm()),
        3 if l == 0 && (scalar || i.q()) => (Lane::D, h, i.rm()),
        _ => return None,
    };
    let bytes = match (scalar, i.q()) {
        (true, _) => lane.bytes(),
        (false, true) => 16,
        (false, false) => 8,
    };
    let d = i.rd();
    if scalar && lane != Lane::H && !u {
        // In scalar registers.
        let y = t.v(rm);
        let y = t.b.vextract(fp_type(lane), lane, y, index);
        let mut x = t.fp(i.rn(), lane);
        let r = if op == 9 {
            t.b.bin(Op::FMul, x, y)
        } else {
            if op == 5 {
                x = t.b.un(Op::FNeg, x);
            }
            let c = t.fp(d, lane);
            t.b.op3(Op::FMulAdd, fp_type(lane), x, y, c, 0)
        };
        t.set_fp(d, r);
        return Some(());
    }
    let y = t.v(rm);
    let y = t.permute(lane, bytes, y, |_| index);
    let x = t.v_fit(i.rn(), bytes);
    let r = match (op, u) {
        (1 | 5, _) => fp3(t, 1, op == 5, false, lane, bytes, x, y, d)?,
        _ => fp3(t, 3, false, !u, lane, bytes, x, y, d)?,
    };
    t.set_v_fit(d, bytes, r);
    Some(())
}

/// Compares with zero: opcode 0x0c, 0x0d, 0x0e.
fn compare_zero(t: &mut Translator, op: u32, u: bool, lane: Lane, bytes: u32, x: Value) -> Option<Value> {
    let z = t.vzero();
    Some(match (op, u) {
        (0x0c, false) => t.fop2(GT, lane, bytes, x, z),
        (0x0c, true) => t.fop2(GE, lane, bytes, x, z),
        (0x0d, false) => t.fop2(EQ, lane, bytes, x, z),
        (0x0d, true) => t.fop2(GE, lane, bytes, z, x),
        (0x0e, false) => t.fop2(GT, lane, bytes, z, x),
        _ => return None,
    })
}

/// Rounding of a conversion to integer (opcodes 0x1a–0x1c).
fn cvt_rounding(op: u32, a: bool) -> Option<u32> {
    Some(match (op, a) {
        (0x1a, false) => 0,
        (0x1a, true) => 1,
        (0x1b, false) => 2,
        (0x1b, true) => ZERO,
        (0x1c, false) => AWAY,
        _ => return None,
    })
}

/// Two-register FP operations that vectors and scalars share, on a fitted operand.
fn fp_misc(t: &mut Translator, op: u32, u: bool, a: bool, lane: Lane, bytes: u32, x: Value) -> Option<Value> {
    if let (Some(r), 0x1a..=0x1c) = (cvt_rounding(op, a), op) {
        if lane == Lane::H {
            let o = if u { FpOp::ToU } else { FpOp::ToS };
            return Some(t.fp_call_desc(Desc::new(o as u32, lane, bytes).rounding(r), &[x]));
        }
        return Some(t.b.v1_imm(if u { Op::VFToU } else { Op::VFToS }, lane, x, r as u64));
    }
    Some(match (op, u, a) {
        (0x0c..=0x0e, _, true) => compare_zero(t, op, u, lane, bytes, x)?,
        (0x1d, _, false) if lane == Lane::H => t.fp_call(if u { FpOp::FromU } else { FpOp::FromS }, lane, bytes, &[x]),
        (0x1d, false, false) => t.v1(Op::VSToF, lane, x),
        (0x1d, true, false) => t.v1(Op::VUToF, lane, x),
        (0x1d, false, true) => t.fp_call(FpOp::RecipEst, lane, bytes, &[x]),
        (0x1d, true, true) => t.fp_call(FpOp::RsqrtEst, lane, bytes, &[x]),
        _ => return None,
    })
}

fn vector_misc(t: &mut Translator, i: Insn, lane: Lane) -> Done {
    let (op, u, a) = (i.bits(12, 5), i.bit(29), i.bit(23));
    let bytes = if i.q() { 16 } else { 8 };
    let x = t.v_fit(i.rn(), bytes);
    let rounding = match (op, u, a) {
        (0x18, false, false) => Some(0),
        (0x18, false, true) => Some(1),
        (0x19, false, false) => Some(2),
        (0x19, false, true) => Some(ZERO),
        (0x18, true, false) => Some(AWAY),
        (0x19, true, false) => Some(CURRENT | EXACT),
        (0x19, true, true) => Some(CURRENT),
        _ => None,
    };
    let r = if let Some(r) = rounding {
        if lane == Lane::H {
            let d = Desc::new(FpOp::Round as u32, lane, bytes).rounding(r & 7).exact(r & EXACT != 0);
            t.fp_call_desc(d, &[x])
        } else {
            t.b.v1_imm(Op::VFRound, lane, x, r as u64)
        }
    } else {
        match (op, u, a) {
            (0x0f, false, true) => t.fop_abs(lane, x),
            (0x0f, true, true) => t.fop_neg(lane, x),
            (0x1f, true, true) if lane == Lane::H => t.fp_call(FpOp::Sqrt, lane, bytes, &[x]),
            (0x1f, true, true) => t.v1(Op::VFSqrt, lane, x),
            (0x1e | 0x1f, _, false) if lane != Lane::H && t.cfg.has(Feature::FrintTs) => {
                let d = frint_sized(!u, if op == 0x1e { 32 } else { 64 }, lane, bytes);
                t.fp_call_desc(d, &[x])
            }
            _ => fp_misc(t, op, u, a, lane, bytes, x)?,
        }
    };
    t.set_v_fit(i.rd(), bytes, r);
    Some(())
}

pub(super) fn two_reg_fp(t: &mut Translator, i: Insn) -> Done {
    let (op, u, a, sz) = (i.bits(12, 5), i.bit(29), i.bit(23), i.bit(22));
    match (op, u, a) {
        (0x16, false, false) => return narrow(t, i, if sz { None } else { Some(CvtOp::NarrowHalf) }),
        (0x16, false, true) if !sz && t.cfg.has(Feature::Bf16) => return narrow(t, i, Some(CvtOp::NarrowBf16)),
        (0x16, true, false) if sz => return narrow(t, i, Some(CvtOp::NarrowOdd)),
        (0x17, false, false) => return widen(t, i),
        // URECPE, URSQRTE
        (0x1c, _, true) if !sz => {
            let bytes = if i.q() { 16 } else { 8 };
            let x = t.v(i.rn());
            let r = t.int_call(if u { IntOp::Ursqrte } else { IntOp::Urecpe }, Lane::S, bytes, 0, &[x]);
            t.set_v(i.rd(), r);
            return Some(());
        }
        (0x16 | 0x17, ..) | (0x1c, _, true) => return None,
        _ => {}
    }
    let lane = sz_lane(i)?;
    vector_misc(t, i, lane)
}

pub(super) fn two_reg_fp16(t: &mut Translator, i: Insn) -> Done {
    vector_misc(t, i, Lane::H)
}

/// FCVTN, FCVTXN, BFCVTN; `None` narrows D to S natively.
fn narrow(t: &mut Translator, i: Insn, op: Option<CvtOp>) -> Done {
    let x = t.v(i.rn());
    let r = match op {
        None => t.b.op1(Op::VFNarrow, Type::V128, x, Lane::D as u32, 0),
        Some(op) => {
            let lane = if op == CvtOp::NarrowOdd { Lane::D } else { Lane::S };
            t.lanes_call(helpers::CVT1, Desc::new(op as u32, lane, 16).0, &[x])
        }
    };
    t.set_narrow(i.rd(), i.q(), r);
    Some(())
}

/// FCVTL.
fn widen(t: &mut Translator, i: Insn) -> Done {
    let x = t.half_of(i.rn(), i.q());
    let r = if i.bit(22) {
        t.b.op1(Op::VFExtend, Type::V128, x, Lane::S as u32, 0)
    } else {
        t.lanes_call(helpers::CVT1, Desc::new(CvtOp::WidenHalf as u32, Lane::S, 16).0, &[x])
    };
    t.set_v(i.rd(), r);
    Some(())
}

fn scalar_misc(t: &mut Translator, i: Insn, lane: Lane) -> Done {
    let (op, u, a) = (i.bits(12, 5), i.bit(29), i.bit(23));
    let bytes = lane.bytes();
    let (n, d) = (i.rn(), i.rd());
    if lane != Lane::H {
        // Conversions stay in scalar registers.
        let ty = fp_type(lane);
        if let Some(r) = cvt_rounding(op, a) {
            let x = t.fp(n, lane);
            let r = t.b.op1(if u { Op::FToU } else { Op::FToS }, Translator::ty(lane == Lane::D), x, r, 0);
            t.set_fp(d, r);
            return Some(());
        }
        if op == 0x1d && !a {
            let v = t.v(n);
            let x = t.b.vextract(Translator::ty(lane == Lane::D), lane, v, 0);
            let r = t.b.op1(if u { Op::UToF } else { Op::SToF }, ty, x, 0, 0);
            t.set_fp(d, r);
            return Some(());
        }
    }
    let x = t.v_fit(n, bytes);
    let r = match (op, u, a) {
        (0x1f, false, true) => t.fp_call(FpOp::RecipExp, lane, bytes, &[x]),
        _ => fp_misc(t, op, u, a, lane, bytes, x)?,
    };
    t.set_v_fit(d, bytes, r);
    Some(())
}

pub(super) fn scalar_two_reg_fp(t: &mut Translator, i: Insn) -> Done {
    let (op, u, a, sz) = (i.bits(12, 5), i.bit(29), i.bit(23), i.bit(22));
    if op == 0x16 {
        // FCVTXN
        if !u || a || !sz {
            return None;
        }
        let x = t.fp(i.rn(), Lane::D);
        let r = t.b.call(helpers::D_TO_S_ODD, &[x]);
        t.set_fp(i.rd(), r);
        return Some(());
    }
    scalar_misc(t, i, if sz { Lane::D } else { Lane::S })
}

pub(super) fn scalar_two_reg_fp16(t: &mut Translator, i: Insn) -> Done {
    scalar_misc(t, i, Lane::H)
}

/// SCVTF, UCVTF, FCVTZS, FCVTZU with fraction bits, vector and scalar.
pub(super) fn fixed_point(t: &mut Translator, i: Insn, scalar: bool) -> Done {
    let (op, u, q, immh, imm) = (i.bits(11, 5), i.bit(29), i.q(), i.bits(19, 4), i.bits(16, 7));
    let lane = match immh {
        0 | 1 => return None,
        2 | 3 if t.cfg.has(Feature::Fp16) => Lane::H,
        4..=7 => Lane::S,
        8.. if scalar || q => Lane::D,
        _ => return None,
    };
    let fbits = 2 * lane.bits() - imm;
    let bytes = match (scalar, q) {
        (true, _) => lane.bytes(),
        (false, true) => 16,
        (false, false) => 8,
    };
    let o = match (op, u) {
        (0x1c, false) => FpOp::FromS,
        (0x1c, true) => FpOp::FromU,
        (_, false) => FpOp::ToS,
        (_, true) => FpOp::ToU,
    };
    let x = t.v(i.rn());
    let d = Desc::new(o as u32, lane, bytes).imm(fbits);
    let d = if op == 0x1c { d } else { d.rounding(ZERO) };
    let r = t.fp_call_desc(d, &[x]);
    t.set_v(i.rd(), r);
    Some(())
}

/// FMAXNMV, FMINNMV, FMAXV, FMINV.
pub(super) fn across_fp(t: &mut Translator, i: Insn) -> Done {
    let (op, u, a, sz, q) = (i.bits(12, 5), i.bit(29), i.bit(23), i.bit(22), i.q());
    let lane = match (u, sz) {
        (true, false) if q => Lane::S,
        (false, false) if t.cfg.has(Feature::Fp16) => Lane::H,
        _ => return None,
    };
    let f = match (op, a) {
        (0x0c, false) => MAX_NUM,
        (0x0c, true) => MIN_NUM,
        (_, false) => MAX,
        (_, true) => MIN,
    };
    let mut bytes = if q { 16 } else { 8 };
    let mut x = t.v(i.rn());
    // Adjacent elements first, as Reduce() does: the order decides which NaN is returned.
    while bytes > lane.bytes() {
        bytes /= 2;
        let even = t.permute(lane, bytes, x, |k| 2 * k);
        let odd = t.permute(lane, bytes, x, |k| 2 * k + 1);
        x = t.fop2(f, lane, bytes, even, odd);
    }
    t.set_v_fit(i.rd(), lane.bytes(), x);
    Some(())
}

/// Scalar pairwise: ADDP, FADDP, FMAXP, FMINP, FMAXNMP, FMINNMP.
pub(super) fn scalar_pairwise(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u) = (i.bits(12, 5), i.bits(22, 2), i.bit(29));
    let x = t.v(i.rn());
    if op == 0x1b {
        if u || size != 3 {
            return None;
        }
        let hi = t.high(x);
        let r = t.v2(Op::VAdd, Lane::D, x, hi);
        t.set_v_fit(i.rd(), 8, r);
        return Some(());
    }
    let f = match (op, size >> 1) {
        (0x0c, 0) => MAX_NUM,
        (0x0c, _) => MIN_NUM,
        (0x0d, 0) => ADD,
        (0x0f, 0) => MAX,
        (0x0f, _) => MIN,
        _ => return None,
    };
    let lane = match (u, size & 1) {
        (true, 0) => Lane::S,
        (true, _) => Lane::D,
        (false, 0) if t.cfg.has(Feature::Fp16) => Lane::H,
        _ => return None,
    };
    let bytes = lane.bytes();
    let (lo, hi) = (t.fit(bytes, x), t.permute(lane, bytes, x, |_| 1));
    let r = t.fop2(f, lane, bytes, lo, hi);
    t.set_v_fit(i.rd(), bytes, r);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundings() {
        assert_eq!(cvt_rounding(0x1b, true), Some(ZERO));
        assert_eq!(cvt_rounding(0x1c, true), None);
    }
}
