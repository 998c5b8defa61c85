//! Logic, permutes, moves between registers, immediates.

use crate::exception::Vector;
use crate::translate::vmx::emit::{ZERO, register, splat};
use crate::translate::vmx::permute_bytes;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_ir::{Lane, Op, Type};

pub(super) fn logic(t: &mut Translator, i: Insn, op: Op, negate: bool) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let r = t.b.op2(op, Type::V128, a, b, 0, 0);
    let r = if negate { t.vnot(r) } else { r };
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn or_complement(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let b = t.vnot(b);
    let r = t.vor(a, b);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn select(t: &mut Translator, i: Insn) -> Flow {
    let (a, b, c) = (t.vsr(i.xa()), t.vsr(i.xb()), t.vsr(i.xc()));
    let r = t.b.op3(Op::VBsl, Type::V128, c, b, a, 0);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxmrghw, xxmrglw.
pub(super) fn merge(t: &mut Translator, i: Insn, from: u8) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let r = t.permute_by(a, b, |k| from + k / 8 * 4 + k % 4 + k / 4 % 2 * 16);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxperm, xxpermr: of XA and XT by XB.
pub(super) fn permute(t: &mut Translator, i: Insn, reversed: bool) -> Flow {
    let (a, b, c) = (t.vsr(i.xa()), t.vsr(i.xt()), t.vsr(i.xb()));
    let r = permute_bytes(t, a, b, c, reversed);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxsldwi.
pub(super) fn shift_words(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let n = i.field(22, 23) as u8 * 4;
    let r = t.permute_by(a, b, |k| k + n);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxpermdi.
pub(super) fn doublewords(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vsr(i.xa()), t.vsr(i.xb()));
    let (x, y) = (i.field(22, 22) as u8, i.field(23, 23) as u8);
    let r = t.permute_by(a, b, |k| if k < 8 { 8 * x + k } else { 16 + 8 * y + k - 8 });
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn splat_word(t: &mut Translator, i: Insn) -> Flow {
    let b = t.vsr(i.xb());
    let n = i.field(14, 15) as u8 * 4;
    let r = t.permute_by(b, b, |k| n + k % 4);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn splat_byte(t: &mut Translator, i: Insn) -> Flow {
    if let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable) {
        return f;
    }
    let v = t.b.vconst(splat(Lane::B, u64::from(i.field(13, 20))));
    t.set_vsr(i.xt(), v);
    Flow::Next
}

/// lxvkq.
pub(super) fn load_constant(t: &mut Translator, i: Insn) -> Flow {
    const ONE: u128 = 0x3fff << 112;
    let n = i.field(16, 20);
    let magnitude = match n & 15 {
        1 => ONE,
        2 => 0x4000 << 112,
        3 => 0x4_0008 << 108,
        4 => 0x4001 << 112,
        5 => 0x4_0014 << 108,
        6 => 0x4_0018 << 108,
        7 => 0x4_001c << 108,
        8 => 0x7fff << 112,
        9 if n == 9 => 0x7_fff8 << 108,
        0 if n == 16 => 0,
        _ => return Flow::Illegal,
    };
    if let Some(f) = t.unavailable_for(i.xt(), Vector::VsxUnavailable) {
        return f;
    }
    let v = magnitude | if n & 16 != 0 { 1 << 127 } else { 0 };
    let v = t.b.vconst(register(v));
    t.set_vsr(i.xt(), v);
    Flow::Next
}

/// xxextractuw: four bytes to word 1.
pub(super) fn extract_word(t: &mut Translator, i: Insn) -> Flow {
    let b = t.vsr(i.xb());
    let from = i.field(12, 15) as u8;
    // Past the right end it starts again on the left.
    let r = t.permute_by(b, b, |k| if (4..8).contains(&k) { (from + k - 4) & 15 } else { ZERO });
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxinsertw: word 1 of XB.
pub(super) fn insert_word(t: &mut Translator, i: Insn) -> Flow {
    let (old, new) = (t.vsr(i.xt()), t.vsr(i.xb()));
    let at = i.field(12, 15) as u8;
    let r = t.permute_by(old, new, |k| {
        let d = k.wrapping_sub(at) & 15;
        if d < 4 { 16 + 4 + d } else { k }
    });
    t.set_vsr(i.xt(), r);
    Flow::Next
}

pub(super) fn reverse(t: &mut Translator, i: Insn, size: u8) -> Flow {
    let b = t.vsr(i.xb());
    let r = t.permute_by(b, b, |k| k ^ (size - 1));
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxgenpcv*; `size`: log2 of the bytes.
pub(super) fn generate(t: &mut Translator, i: Insn, size: u32) -> Flow {
    let imm = i.field(11, 15);
    if imm > 3 {
        return Flow::Illegal;
    }
    let b = t.vr(i.rb());
    let r = t.vec_pure(VecOp::GeneratePermute, size | imm << 4, [b, b, b]);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// What is moved between a VSR and GPRs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Double,
    Low,
    Word,
    WordSigned,
    Splat,
    Both,
}

/// mfvsrd, mfvsrwz, mfvsrld.
pub(super) fn to_gpr(t: &mut Translator, i: Insn, part: Part) -> Flow {
    let low = if part == Part::Low { Vector::VsxUnavailable } else { Vector::FpUnavailable };
    if let Some(f) = t.unavailable_for(i.xt(), low) {
        return f;
    }
    let v = t.vsr(i.xt());
    let r = match part {
        Part::Low => t.doubleword(v, 1),
        Part::Word => {
            let w = t.b.vextract(Type::I32, Lane::S, v, 0);
            t.b.zext64(w)
        }
        _ => t.doubleword(v, 0),
    };
    t.set_r(i.ra(), r);
    Flow::Next
}

/// mtvsrd, mtvsrwa, mtvsrwz, mtvsrws, mtvsrdd.
pub(super) fn from_gpr(t: &mut Translator, i: Insn, part: Part) -> Flow {
    let low = if matches!(part, Part::Splat | Part::Both) { Vector::VsxUnavailable } else { Vector::FpUnavailable };
    if let Some(f) = t.unavailable_for(i.xt(), low) {
        return f;
    }
    let r = match part {
        Part::Both => {
            let (a, b) = (t.r0(i.ra()), t.r(i.rb()));
            let v = t.b.vfromscalar(a);
            t.b.vinsert(Lane::D, v, 1, b)
        }
        Part::Splat => {
            let w = t.w(i.ra());
            t.b.vdup(Lane::S, w)
        }
        _ => {
            let r = t.r(i.ra());
            let r = match part {
                Part::WordSigned => t.b.sext(r, 32),
                Part::Word => t.b.zext(r, 32),
                _ => r,
            };
            t.b.vfromscalar(r)
        }
    };
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxsplti32dx, xxspltidp, xxspltiw.
pub(super) fn splat_immediate(t: &mut Translator, i: Insn) -> Flow {
    let imm = i.prefix().field(16, 31) << 16 | i.field(16, 31);
    let xt = i.rt() | i.field(15, 15) << 5;
    let v = match i.field(11, 14) {
        2 => t.b.vconst(splat(Lane::D, rhea_float::load_single(imm))),
        3 => t.b.vconst(splat(Lane::S, u64::from(imm))),
        n => {
            let old = t.vsr(xt);
            let new = t.b.vconst(splat(Lane::S, u64::from(imm)));
            let mask = if n & 1 == 0 { 0xffff_ffff_0000_0000 } else { 0xffff_ffff };
            let mask = t.b.vconst(splat(Lane::D, mask));
            t.b.op3(Op::VBsl, Type::V128, mask, new, old, 0)
        }
    };
    t.set_vsr(xt, v);
    Flow::Next
}

/// xxblendv*: XB where the mask's top bit is set.
pub(super) fn blend(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (a, b, c) = (t.vsr(i.xa()), t.vsr(i.xb()), t.vsr(i.xc()));
    let m = t.b.v1_imm(Op::VSar, lane, c, u64::from(lane.bits() - 1));
    let r = t.b.op3(Op::VBsl, Type::V128, m, b, a, 0);
    t.set_vsr(i.xt(), r);
    Flow::Next
}

/// xxpermx, xxeval.
pub(super) fn ternary(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b, c) = (t.vsr(i.xa()), t.vsr(i.xb()), t.vsr(i.xc()));
    let r = t.vec_pure(op, imm, [a, b, c]);
    t.set_vsr(i.xt(), r);
    Flow::Next
}
