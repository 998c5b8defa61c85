//! Scalar operations.

use super::helpers;
use crate::fpu::{Exact, FpOp, Note, Shape, Vsx, VsxOp};
use crate::translate::{Flow, Insn, Translator};
use rhea_float::Rounding;
use rhea_ir::{Lane, Op, Type};

/// `XT ← op(XA, XB)`.
pub(super) fn two(t: &mut Translator, i: Insn, op: FpOp, single: bool) -> Flow {
    t.fp_scalar(Note::new(op, single), i.xt(), [i.xa(), i.xb(), 0]);
    Flow::Next
}
pub(super) fn one(t: &mut Translator, i: Insn, op: FpOp, single: bool) -> Flow {
    t.fp_scalar(Note::new(op, single), i.xt(), [i.xb(), 0, 0]);
    Flow::Next
}
pub(super) fn round(t: &mut Translator, i: Insn, op: FpOp, mode: Rounding) -> Flow {
    let note = Note::new(op, false).rounding(mode);
    let word = matches!(op, FpOp::ToS32 | FpOp::ToU32);
    if word && t.mode.fp_enables() {
        t.fp_exact(Exact::new(note, Shape::Scalar, i.xt(), [i.xb(), 0, 0]).words());
        return Flow::Next;
    }
    t.fp_scalar(note, i.xt(), [i.xb(), 0, 0]);
    if word {
        // The word is in both halves of the doubleword.
        let v = t.fbits(i.xt());
        let v = t.b.zext(v, 32);
        let high = t.shl(v, 32);
        let v = t.b.or(high, v);
        t.set_f(i.xt(), v);
    }
    Flow::Next
}
/// `XA × XB + XT`, or `XA × XT + XB`, and their like.
pub(super) fn three(t: &mut Translator, i: Insn, op: FpOp, single: bool, add_target: bool) -> Flow {
    let (x, y) = if add_target { (i.xb(), i.xt()) } else { (i.xt(), i.xb()) };
    t.fp_scalar(Note::new(op, single), i.xt(), [i.xa(), x, y]);
    Flow::Next
}

/// An operation by its helper.
pub(super) fn convert(t: &mut Translator, i: Insn, op: VsxOp) -> Flow {
    let p = t.c64(Vsx::new(op, i.xt(), 0, i.xb()).0);
    t.b.call(helpers::OPERATION, &[p]);
    Flow::Next
}

/// A test into a field of the condition register and FPCC.
pub(super) fn test(t: &mut Translator, i: Insn, kind: u32, mask: u32) -> Flow {
    let p = u64::from(kind | i.xa() << 8 | i.xb() << 14 | i.bf() << 20) | u64::from(mask) << 24;
    let p = t.c64(p);
    t.b.call(helpers::TEST, &[p]);
    Flow::Next
}

pub(super) fn copy_sign(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.fbits(i.xa()), t.fbits(i.xb()));
    let a = t.and_imm(a, 1 << 63);
    let b = t.and_imm(b, !(1 << 63));
    let r = t.b.or(a, b);
    t.set_f(i.xt(), r);
    Flow::Next
}

/// xsabsdp, xsnabsdp, xsnegdp.
pub(super) fn signs(t: &mut Translator, i: Insn) -> Flow {
    let b = t.f64(i.xb());
    let r = match i.field(21, 29) {
        377 => t.b.un(Op::FNeg, b),
        345 => t.b.un(Op::FAbs, b),
        _ => {
            let r = t.b.un(Op::FAbs, b);
            t.b.un(Op::FNeg, r)
        }
    };
    t.set_f(i.xt(), r);
    Flow::Next
}

/// The word in both halves of doubleword 0.
fn set_word_twice(t: &mut Translator, reg: u32, w: rhea_ir::Value) {
    let w = t.b.bitcast(Type::I32, w);
    let w = t.b.zext64(w);
    let high = t.shl(w, 32);
    let r = t.b.or(high, w);
    t.set_f(reg, r);
}

/// xscvdpsp, xscvdpspn.
pub(super) fn to_single(t: &mut Translator, i: Insn, signal: bool) -> Flow {
    if signal && t.mode.fp_enables() {
        let e = Exact::new(Note::new(FpOp::Copy, true), Shape::Scalar, i.xt(), [i.xb(), 0, 0]);
        t.fp_exact(e.words());
        return Flow::Next;
    }
    let b = t.f64(i.xb());
    let w = t.b.op1(Op::FNarrow, Type::F32, b, u32::from(!signal), 0);
    if signal {
        t.fp_note(Note::new(FpOp::Copy, true), [Some(b), None, None]);
    }
    set_word_twice(t, i.xt(), w);
    Flow::Next
}

/// xscvspdp, xscvspdpn.
pub(super) fn from_single(t: &mut Translator, i: Insn, signal: bool) -> Flow {
    let v = t.vsr(i.xb());
    // Word 0 is the upper half of doubleword 0.
    let w = t.b.vextract(Type::F32, Lane::S, v, 1);
    let raw = t.b.op1(Op::FExtend, Type::F64, w, 1, 0);
    if !signal {
        t.set_f(i.xt(), raw);
        return Flow::Next;
    }
    if t.mode.fp_enables() {
        let (arg, target) = (t.b.bitcast(Type::I64, raw), t.c32(i.xt()));
        t.b.call(helpers::COPY_EXACT, &[arg, target]);
        return Flow::Next;
    }
    let r = t.b.op1(Op::FExtend, Type::F64, w, 0, 0);
    t.set_f(i.xt(), r);
    t.fp_note(Note::new(FpOp::Copy, false), [Some(raw), None, None]);
    Flow::Next
}

/// xsxexpdp, xsxsigdp: to a GPR.
pub(super) fn parts(t: &mut Translator, i: Insn, exponent: bool) -> Flow {
    let b = t.fbits(i.xb());
    let e = t.shr(b, 52);
    let e = t.and_imm(e, 0x7ff);
    if exponent {
        t.set_r(i.rt(), e);
        return Flow::Next;
    }
    let f = t.and_imm(b, (1 << 52) - 1);
    // The implicit one of normal numbers.
    let one = t.add_imm(e, u64::MAX);
    let limit = t.c64(0x7fe);
    let normal = t.b.icmp(rhea_ir::Cond::Ult, one, limit);
    let (bit, none) = (t.c64(1 << 52), t.c64(0));
    let implicit = t.b.select(normal, bit, none);
    let r = t.b.or(f, implicit);
    t.set_r(i.rt(), r);
    Flow::Next
}

/// xsiexpdp: from GPRs, significand and exponent.
pub(super) fn assemble(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let a = t.and_imm(a, 0x800f_ffff_ffff_ffff);
    let b = t.and_imm(b, 0x7ff);
    let b = t.shl(b, 52);
    let r = t.b.or(a, b);
    t.set_f(i.xt(), r);
    Flow::Next
}
