//! Vector operations.

use super::helpers;
use crate::fpu::{Exact, LaneOp, Note, Shape, Vsx, VsxOp};
use crate::translate::fp::cr_from_bits;
use crate::translate::vmx::emit::splat;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_float::Rounding;
use rhea_ir::op::fp_imm;
use rhea_ir::{Cond, Lane, Op, Type, Value};

fn shape(lane: Lane) -> Shape {
    if lane == Lane::D { Shape::Double } else { Shape::Single }
}

/// The exact helper in place of the operation if an exception is enabled.
fn exact(t: &mut Translator, note: Note, lane: Lane, target: u32, regs: [u32; 3]) -> bool {
    if t.mode.fp_enables() {
        t.fp_exact(Exact::new(note, shape(lane), target, regs));
    }
    t.mode.fp_enables()
}

pub(super) fn two(t: &mut Translator, i: Insn, op: Op, lane_op: LaneOp, lane: Lane) -> Flow {
    if exact(t, Note::of(lane_op), lane, i.xt(), [i.xa(), i.xb(), 0]) {
        return Flow::Next;
    }
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let r = t.b.v2(op, lane, a, b);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn three(t: &mut Translator, i: Insn, op: LaneOp, lane: Lane, add_target: bool) -> Flow {
    let (x, y) = if add_target { (i.xb(), i.xt()) } else { (i.xt(), i.xb()) };
    if exact(t, Note::of(op), lane, i.xt(), [i.xa(), x, y]) {
        return Flow::Next;
    }
    let (a, b, c) = (t.vsr(i.xa()), t.vsr(x), t.vsr(y));
    let sub = if matches!(op, LaneOp::MulSub | LaneOp::NegMulSub) { fp_imm::NEGATE_ADDEND } else { 0 };
    let neg = if matches!(op, LaneOp::NegMulAdd | LaneOp::NegMulSub) { fp_imm::NEGATE_RESULT } else { 0 };
    let r = t.b.v3_imm(Op::VFMulAdd, lane, a, b, c, sub | neg);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// Square root and estimates.
pub(super) fn one(t: &mut Translator, i: Insn, op: LaneOp, lane: Lane) -> Flow {
    if exact(t, Note::of(op), lane, i.xt(), [i.xb(), 0, 0]) {
        return Flow::Next;
    }
    let b = t.vsr(i.xb());
    let one = splat(lane, if lane == Lane::D { 1023 << 52 } else { 127 << 23 });
    let root = if op == LaneOp::Recip { b } else { t.b.v1(Op::VFSqrt, lane, b) };
    let r = if op == LaneOp::Sqrt {
        root
    } else {
        let one = t.b.vconst(one);
        t.b.v2(Op::VFDiv, lane, one, root)
    };
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// To integral; `None`: by FPSCR, signalling inexact.
pub(super) fn round(t: &mut Translator, i: Insn, mode: Option<Rounding>, lane: Lane) -> Flow {
    let note = match mode {
        Some(m) => Note::of(LaneOp::RoundInt).rounding(m),
        None => Note::of(LaneOp::RoundIntExact),
    };
    if exact(t, note, lane, i.xt(), [i.xb(), 0, 0]) {
        return Flow::Next;
    }
    let b = t.vsr(i.xb());
    let imm = mode.map_or(255 | 256, |m| m as u64);
    let r = t.b.v1_imm(Op::VFRound, lane, b, imm);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn to_int(t: &mut Translator, i: Insn, op: Op, lane_op: LaneOp, lane: Lane) -> Flow {
    if exact(t, Note::of(lane_op).rounding(Rounding::TowardZero), lane, i.xt(), [i.xb(), 0, 0]) {
        return Flow::Next;
    }
    let b = t.vsr(i.xb());
    let r = t.b.v1_imm(op, lane, b, Rounding::TowardZero as u64);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn from_int(t: &mut Translator, i: Insn, op: Op, lane_op: LaneOp, lane: Lane) -> Flow {
    if exact(t, Note::of(lane_op), lane, i.xt(), [i.xb(), 0, 0]) {
        return Flow::Next;
    }
    let b = t.vsr(i.xb());
    let r = t.b.v1(op, lane, b);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xvcvsxwdp, xvcvuxwdp: words 0 and 2, the upper halves of doublewords. Exact.
pub(super) fn from_words(t: &mut Translator, i: Insn, signed: bool) -> Flow {
    let b = t.vsr(i.xb());
    let v = t.b.v1_imm(if signed { Op::VSar } else { Op::VShr }, Lane::D, b, 32);
    let r = t.b.v1(Op::VSToF, Lane::D, v);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

fn operation(t: &mut Translator, i: Insn, op: VsxOp) -> Flow {
    let p = t.c64(Vsx::new(op, i.xt(), 0, i.xb()).0);
    t.b.call(helpers::OPERATION, &[p]);
    Flow::Next
}

/// xvcvdpsp: into both words of each doubleword.
pub(super) fn narrow(t: &mut Translator, i: Insn) -> Flow {
    if t.mode.fp_enables() {
        return operation(t, i, VsxOp::DpToSp);
    }
    let b = t.vsr(i.xb());
    let r = t.b.op1(Op::VFNarrow, Type::V128, b, Lane::D as u32, 0);
    let r = t.b.shuffle(r, r, [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xvcvspdp: of words 0 and 2.
pub(super) fn widen(t: &mut Translator, i: Insn) -> Flow {
    if t.mode.fp_enables() {
        return operation(t, i, VsxOp::SpToDp);
    }
    let b = t.vsr(i.xb());
    let v = t.b.shuffle(b, b, [4, 5, 6, 7, 12, 13, 14, 15, 255, 255, 255, 255, 255, 255, 255, 255]);
    let r = t.b.op1(Op::VFExtend, Type::V128, v, Lane::S as u32, 0);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn compare(t: &mut Translator, i: Insn, op: Op, lane_op: LaneOp, lane: Lane) -> Flow {
    if !exact(t, Note::of(lane_op), lane, i.xt(), [i.xa(), i.xb(), 0]) {
        let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
        let r = t.b.v2(op, lane, a, b);
        t.set_vsr(i.xt(), r);
    }
    if i.bit(21) {
        let r = t.vsr(i.xt());
        t.cr6(r);
    }
    Flow::Next
}

fn sign(t: &mut Translator, lane: Lane) -> Value {
    t.b.vconst(splat(lane, 1 << (lane.bits() - 1)))
}

pub(super) fn copy_sign(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let m = sign(t, lane);
    let r = t.b.op3(Op::VBsl, Type::V128, m, a, b, 0);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// Absolute, negative absolute, negated.
pub(super) fn signs(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let b = t.vsr(i.xb());
    let m = sign(t, lane);
    let r = match i.field(21, 29) & 0x3f {
        0x19 => t.b.op2(Op::VAndNot, Type::V128, b, m, 0, 0),
        0x29 => t.vor(b, m),
        _ => t.vxor(b, m),
    };
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xviexpsp, xviexpdp: significand and sign of XA, exponent from the low bits of XB.
pub(super) fn assemble(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let (at, exponent) = if lane == Lane::D { (52, 0x7ff << 52) } else { (23, 0xff << 23) };
    let b = t.b.v1_imm(Op::VShl, lane, b, at);
    let m = t.b.vconst(splat(lane, exponent));
    let r = t.b.op3(Op::VBsl, Type::V128, m, b, a, 0);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xvxexp*, xvxsig*.
pub(super) fn parts(t: &mut Translator, i: Insn, lane: Lane, exponent: bool) -> Flow {
    let b = t.vsr(i.xb());
    let (at, mask) = if lane == Lane::D { (52, 0x7ff) } else { (23, 0xff) };
    let e = t.b.v1_imm(Op::VShr, lane, b, at);
    let m = t.b.vconst(splat(lane, mask));
    let e = t.vand(e, m);
    let r = if exponent {
        e
    } else {
        let fraction = t.b.vconst(splat(lane, (1 << at) - 1));
        let f = t.vand(b, fraction);
        let zero = t.b.vconst(0);
        let (low, high) = (t.b.v2(Op::VCmpEq, lane, e, zero), t.b.v2(Op::VCmpEq, lane, e, m));
        let special = t.vor(low, high);
        let one = t.b.vconst(splat(lane, 1 << at));
        let implicit = t.b.op2(Op::VAndNot, Type::V128, one, special, 0, 0);
        t.vor(f, implicit)
    };
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xvtdiv*, xvtsqrt*.
pub(super) fn test(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let r = t.vec_pure(VecOp::TestArithmetic, imm, [a, b, b]);
    let r = t.doubleword(r, 1);
    let r = t.b.trunc(r);
    cr_from_bits(t, i.bf(), r);
    Flow::Next
}

/// xvtstdc*.
pub(super) fn classes(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let mask = i.field(25, 25) << 6 | i.field(29, 29) << 5 | i.ra();
    let b = t.vsr(i.xb());
    let r = t.vec_pure(VecOp::TestClasses, imm | mask, [b, b, b]);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xvtlsbb.
pub(super) fn test_lsb(t: &mut Translator, i: Insn) -> Flow {
    let b = t.vsr(i.xb());
    let m = t.low_bits(b, |k| k);
    let (ones, zero, no) = (t.c32(0xffff), t.c32(0), t.cbool(false));
    let (all, none) = (t.b.icmp(Cond::Eq, m, ones), t.b.icmp(Cond::Eq, m, zero));
    t.set_cr_field(i.bf(), [all, no, none, no]);
    Flow::Next
}

/// xvcvbf16spn.
pub(super) fn from_bf16(t: &mut Translator, i: Insn) -> Flow {
    let b = t.vsr(i.xb());
    let r = t.b.v1_imm(Op::VShl, Lane::S, b, 16);
    t.set_vsr(i.xt(), r);
    Flow::Next
}
