//! Merges, packs, splats, permutes, insertion and extraction.

use super::emit::{ZERO, splat};
use super::helpers;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_ir::{Cond, Lane, Op, Type, Value};

pub(super) fn or_complement(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let b = t.vnot(b);
    let r = t.vor(a, b);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn select(t: &mut Translator, i: Insn) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rc_reg()));
    let r = t.b.op3(Op::VBsl, Type::V128, c, b, a, 0);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Elements of `size` bytes from byte `from` on, of both in turn.
pub(super) fn merge(t: &mut Translator, i: Insn, size: u8, from: u8) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.permute_by(a, b, |k| {
        let (element, byte) = (k / size, k % size);
        from + element / 2 * size + byte + element % 2 * 16
    });
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vmrgew, vmrgow.
pub(super) fn merge_alternate(t: &mut Translator, i: Insn, odd: u8) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.permute_by(a, b, |k| k / 8 * 8 + odd * 4 + k % 4 + k / 4 % 2 * 16);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// The low halves of elements; `size`: bytes of the result's.
pub(super) fn pack(t: &mut Translator, i: Insn, size: u8) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.permute_by(a, b, |k| {
        let (element, byte) = (k / size, k % size);
        element * 2 * size + size + byte
    });
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// Sign extension of the high or low half's elements.
pub(super) fn unpack(t: &mut Translator, i: Insn, lane: Lane, high: bool) -> Flow {
    let b = t.vr(i.rb());
    let b = if high { b } else { t.swap(b) };
    // The host's lanes go up where the manual's elements go down.
    let r = t.b.v1(Op::VWidenS, lane, b);
    let r = t.swap(r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn splat_element(t: &mut Translator, i: Insn, size: u8) -> Flow {
    let b = t.vr(i.rb());
    let first = (i.ra() as u8 & (16 / size - 1)) * size;
    let r = t.permute_by(b, b, |k| first + k % size);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn splat_immediate(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let v = t.b.vconst(splat(lane, i.sfield(11, 15) as u64));
    t.set_vr(i.rt(), v);
    Flow::Next
}

/// Bytes of `a` and `b` by the low five bits of those of `c`.
pub(in crate::translate) fn permute_bytes(t: &mut Translator, a: Value, b: Value, c: Value, reversed: bool) -> Value {
    // The host numbers bytes the other way round in each doubleword; reversed numbering turns all five bits over.
    let flip = if reversed { 0x18 } else { 7 };
    let (mask, flip) = (t.b.vconst(splat(Lane::B, 0x1f)), t.b.vconst(splat(Lane::B, flip)));
    let index = t.vand(c, mask);
    let index = t.vxor(index, flip);
    let x16 = t.b.vconst(splat(Lane::B, 16));
    let other = t.vxor(index, x16);
    let x = t.b.op2(Op::VTable, Type::V128, a, index, 0, 0);
    let y = t.b.op2(Op::VTable, Type::V128, b, other, 0, 0);
    t.vor(x, y)
}

pub(super) fn permute(t: &mut Translator, i: Insn, reversed: bool) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rc_reg()));
    let r = permute_bytes(t, a, b, c, reversed);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vsldoi.
pub(super) fn shift_double(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let n = i.field(22, 25) as u8;
    let r = t.permute_by(a, b, |k| k + n);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vextractub and its like: to the right end of doubleword 0.
pub(super) fn extract(t: &mut Translator, i: Insn, size: u8) -> Flow {
    let b = t.vr(i.rb());
    let from = i.field(12, 15) as u8;
    let r = t.permute_by(b, b, |k| {
        if (8 - size..8).contains(&k) && from + k - (8 - size) < 16 { from + k - (8 - size) } else { ZERO }
    });
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vinsertb and its like, vinsw, vinsd (from a GPR).
pub(super) fn insert(t: &mut Translator, i: Insn, size: u8, gpr: bool) -> Flow {
    let at = i.field(12, 15) as u8;
    if at + size > 16 {
        return Flow::Next;
    }
    let new = if gpr {
        let r = t.r(i.rb());
        t.b.vfromscalar(r)
    } else {
        t.vr(i.rb())
    };
    let old = t.vr(i.rt());
    let r = t.permute_by(old, new, |k| if (at..at + size).contains(&k) { 16 + 8 - size + k - at } else { k });
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// A GPR as a number of bytes (I32): 16 if it is more.
fn at_most_16(t: &mut Translator, reg: u32) -> Value {
    let (v, limit) = (t.r(reg), t.c64(16));
    let c = t.b.icmp(Cond::Ult, v, limit);
    let v = t.b.select(c, v, limit);
    t.b.trunc(v)
}

/// The bits of a GPR that a mask leaves, as the index of a vector helper.
fn index(t: &mut Translator, reg: u32, mask: u64) -> Value {
    let v = t.w(reg);
    let v = t.and_imm(v, mask);
    t.shl(v, 16)
}

/// vinsblx, vinsbvlx and their like.
pub(super) fn insert_indexed(t: &mut Translator, i: Insn, imm: u32, vector: bool) -> Flow {
    let more = index(t, i.ra(), 15);
    let new = if vector {
        t.vr(i.rb())
    } else {
        let r = t.r(i.rb());
        t.b.vfromscalar(r)
    };
    let old = t.vr(i.rt());
    let r = t.vec_pure_with(VecOp::InsertIndexed, imm, more, [new, new, old]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vextublx and its like.
pub(super) fn extract_indexed(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let more = index(t, i.ra(), 15);
    let b = t.vr(i.rb());
    let r = t.vec_pure_with(VecOp::ExtractIndexed, imm, more, [b, b, b]);
    let r = t.doubleword(r, 1);
    t.set_r(i.rt(), r);
    Flow::Next
}

/// vextdubvlx and its like.
pub(super) fn extract_double(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let more = index(t, i.rc_reg(), 31);
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_pure_with(VecOp::ExtractDoubleIndexed, imm, more, [a, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vclrlb, vclrrb.
pub(super) fn clear(t: &mut Translator, i: Insn, op: VecOp) -> Flow {
    let n = at_most_16(t, i.rb());
    let more = t.shl(n, 8);
    let a = t.vr(i.ra());
    let r = t.vec_pure_with(op, 0, more, [a, a, a]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vstribl and its like.
pub(super) fn strings(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let b = t.vr(i.rb());
    let r = t.vec_state(VecOp::IsolateString, imm, i.bit(21), [b, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// mtvsrbm and its like; imm: log2 of the bits.
pub(super) fn mask(t: &mut Translator, i: Insn, imm: u32) -> Flow {
    let r = t.r(i.rb());
    let v = t.b.vfromscalar(r);
    let v = t.swap(v);
    let r = t.vec_pure(VecOp::MoveToMask, imm, [v, v, v]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn mask_immediate(t: &mut Translator, i: Insn) -> Flow {
    let bits = i.field(16, 25) << 6 | i.field(11, 15) << 1 | i.field(31, 31);
    let v = (0..16).fold(0u128, |r, k| r << 8 | if bits >> (15 - k) & 1 != 0 { 0xff } else { 0 });
    let v = t.b.vconst(super::emit::register(v));
    t.set_vr(i.rt(), v);
    Flow::Next
}

pub(super) fn read_vscr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.b.call(helpers::READ_VSCR, &[]);
    let v = t.b.vfromscalar(v);
    let v = t.swap(v);
    t.set_vr(i.rt(), v);
    Flow::Next
}

pub(super) fn write_vscr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.vr(i.rb());
    let v = t.doubleword(v, 1);
    let v = t.b.trunc(v);
    t.end_after(helpers::SET_VSCR, &[v])
}
