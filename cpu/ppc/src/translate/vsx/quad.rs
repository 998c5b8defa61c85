//! Quad precision: VSRs 32–63.

use super::helpers;
use crate::fpu::{Vsx, VsxOp};
use crate::translate::vmx::emit::register;
use crate::translate::{Flow, Insn, Translator};
use rhea_float::Rounding;
use rhea_ir::{Cond, Lane, Op, Type};

const SIGN: u128 = register(1 << 127);

fn call(t: &mut Translator, p: Vsx) -> Flow {
    let p = t.c64(p.0);
    t.b.call(helpers::OPERATION, &[p]);
    Flow::Next
}

/// `VRT ← op(VRA, VRB)`; bit 31: round to odd.
pub(super) fn arithmetic(t: &mut Translator, i: Insn, op: VsxOp) -> Flow {
    call(t, Vsx::new(op, 32 + i.rt(), 32 + i.ra(), 32 + i.rb()).odd(i.rc()))
}

pub(super) fn unary(t: &mut Translator, i: Insn, op: VsxOp) -> Flow {
    call(t, Vsx::new(op, 32 + i.rt(), 0, 32 + i.rb()).odd(i.rc()))
}

/// xsrqpi, xsrqpix, xsrqpxp: the rounding mode by R and RMC.
pub(super) fn round(t: &mut Translator, i: Insn, op: VsxOp) -> Flow {
    let mode = match (i.bit(15), i.field(21, 22)) {
        (false, 0) => Rounding::NearestAway as u32,
        (false, 3) => 7,
        // Reserved.
        (false, _) => Rounding::NearestEven as u32,
        (true, 0) => Rounding::NearestEven as u32,
        (true, 1) => Rounding::TowardZero as u32,
        (true, 2) => Rounding::TowardPositive as u32,
        (true, _) => Rounding::TowardNegative as u32,
    };
    let signals = if i.rc() { 8 } else { 0 };
    call(t, Vsx::new(op, 32 + i.rt(), 0, 32 + i.rb()).extra(mode | signals))
}

pub(super) fn compare(t: &mut Translator, i: Insn, ordered: bool) -> Flow {
    let p = u64::from((32 + i.ra()) | (32 + i.rb()) << 6 | u32::from(ordered) << 12 | i.bf() << 13);
    let p = t.c64(p);
    t.b.call(helpers::QUAD_COMPARE, &[p]);
    Flow::Next
}

pub(super) fn test(t: &mut Translator, i: Insn, kind: u32, mask: u32) -> Flow {
    let p = u64::from(kind | (32 + i.ra()) << 8 | (32 + i.rb()) << 14 | i.bf() << 20) | u64::from(mask) << 24;
    let p = t.c64(p);
    t.b.call(helpers::TEST, &[p]);
    Flow::Next
}

pub(super) fn copy_sign(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let m = t.b.vconst(SIGN);
    let r = t.b.op3(Op::VBsl, Type::V128, m, a, b, 0);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// xsabsqp (0), xsnabsqp (8), xsnegqp (16).
pub(super) fn signs(t: &mut Translator, i: Insn, kind: u32) -> Flow {
    let b = t.vr(i.rb());
    let m = t.b.vconst(SIGN);
    let r = match kind {
        0 => t.b.op2(Op::VAndNot, Type::V128, b, m, 0, 0),
        8 => t.vor(b, m),
        _ => t.vxor(b, m),
    };
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// xsxexpqp, xsxsigqp.
pub(super) fn parts(t: &mut Translator, i: Insn, exponent: bool) -> Flow {
    let b = t.vr(i.rb());
    let high = t.doubleword(b, 0);
    let e = t.shr(high, 48);
    let e = t.and_imm(e, 0x7fff);
    let r = if exponent {
        t.b.vfromscalar(e)
    } else {
        let f = t.and_imm(high, (1 << 48) - 1);
        let one = t.add_imm(e, u64::MAX);
        let limit = t.c64(0x7ffe);
        let normal = t.b.icmp(Cond::Ult, one, limit);
        let (bit, none) = (t.c64(1 << 48), t.c64(0));
        let implicit = t.b.select(normal, bit, none);
        let f = t.b.or(f, implicit);
        t.b.vinsert(Lane::D, b, 0, f)
    };
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// xsiexpqp: VRA with the exponent from doubleword 0 of VRB.
pub(super) fn assemble(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let (x, e) = (t.doubleword(a, 0), t.doubleword(b, 0));
    let x = t.and_imm(x, 0x8000_ffff_ffff_ffff);
    let e = t.and_imm(e, 0x7fff);
    let e = t.shl(e, 48);
    let x = t.b.or(x, e);
    let r = t.b.vinsert(Lane::D, a, 0, x);
    t.set_vr(i.rt(), r);
    Flow::Next
}
