//! Copies between lanes and registers, permutes and table lookups.

use super::Done;
use super::access::byte_mask;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Op, Type};

/// Lane and index of an `imm5` field; `None` if reserved.
fn imm5(i: Insn) -> Option<(Lane, u32)> {
    let v = i.bits(16, 5);
    let size = v.trailing_zeros();
    (size < 4).then(|| (Lane::from_size(size), v >> (size + 1)))
}

/// AdvSIMD copy: DUP, INS, SMOV, UMOV.
pub(super) fn copy(t: &mut Translator, i: Insn) -> Done {
    let (lane, index) = imm5(i)?;
    let (q, op, imm4, n, d) = (i.q(), i.bit(29), i.bits(11, 4), i.rn(), i.rd());
    let bytes = if q { 16 } else { 8 };
    if op {
        // INS (element)
        if !q {
            return None;
        }
        let from = imm4 >> lane as u32;
        let (old, src) = (t.v(d), t.v(n));
        let per = lane.count();
        let m = byte_mask(lane, 16, |k| if k == index { per + from } else { k });
        let r = t.b.shuffle(old, src, m);
        t.set_v(d, r);
        return Some(());
    }
    match imm4 {
        0 | 1 => {
            if lane == Lane::D && !q {
                return None;
            }
            let r = if imm4 == 0 {
                let v = t.v(n);
                t.dup_lane(lane, v, index)
            } else {
                let x = t.reg(lane == Lane::D, n);
                t.b.vdup(lane, x)
            };
            t.set_v_fit(d, bytes, r);
        }
        3 => {
            if !q {
                return None;
            }
            let x = t.reg(lane == Lane::D, n);
            let old = t.v(d);
            let r = t.b.vinsert(lane, old, index, x);
            t.set_v(d, r);
        }
        // SMOV
        5 => {
            if lane == Lane::D || (lane == Lane::S && !q) {
                return None;
            }
            let v = t.v(n);
            let ty = if q { Type::I64 } else { Type::I32 };
            let x = t.b.vextract(ty, lane, v, index);
            let x = t.b.sext(x, lane.bits());
            t.set_reg(q, d, x);
        }
        // UMOV
        7 => {
            if (lane == Lane::D) != q {
                return None;
            }
            let v = t.v(n);
            let ty = if q { Type::I64 } else { Type::I32 };
            let x = t.b.vextract(ty, lane, v, index);
            t.set_reg(q, d, x);
        }
        _ => return None,
    }
    Some(())
}

/// Scalar DUP (element).
pub(super) fn scalar_copy(t: &mut Translator, i: Insn) -> Done {
    let (lane, index) = imm5(i)?;
    let v = t.v(i.rn());
    let r = t.permute(lane, lane.bytes(), v, |_| index);
    t.set_v(i.rd(), r);
    Some(())
}

/// EXT.
pub(super) fn extract(t: &mut Translator, i: Insn) -> Done {
    let (q, at) = (i.q(), i.bits(11, 4));
    if i.bits(22, 2) != 0 || (!q && at > 7) {
        return None;
    }
    let n = if q { 16 } else { 8 };
    let (a, b) = (t.v(i.rn()), t.v(i.rm()));
    // Bytes n.. of the concatenation are those of the second operand.
    let m = byte_mask(Lane::B, n, |k| if k + at < n { k + at } else { 16 + k + at - n });
    let r = t.b.shuffle(a, b, m);
    t.set_v(i.rd(), r);
    Some(())
}

/// UZP, TRN, ZIP.
pub(super) fn permute(t: &mut Translator, i: Insn) -> Done {
    let (q, size, op) = (i.q(), i.bits(22, 2), i.bits(12, 3));
    if op & 3 == 0 || (size == 3 && !q) {
        return None;
    }
    let lane = Lane::from_size(size);
    let bytes = if q { 16 } else { 8 };
    let (a, b) = (t.v(i.rn()), t.v(i.rm()));
    let (second, per, other) = (op >> 2, bytes / lane.bytes(), lane.count());
    let r = match op & 3 {
        1 => t.every_other(lane, bytes, a, b, second),
        2 => {
            let m = byte_mask(lane, bytes, |k| (k & !1) + second + if k & 1 != 0 { other } else { 0 });
            t.b.shuffle(a, b, m)
        }
        _ => {
            let m = byte_mask(lane, bytes, |k| k / 2 + second * (per / 2) + if k & 1 != 0 { other } else { 0 });
            t.b.shuffle(a, b, m)
        }
    };
    t.set_v(i.rd(), r);
    Some(())
}

/// TBL, TBX.
pub(super) fn table(t: &mut Translator, i: Insn) -> Done {
    if i.bits(22, 2) != 0 {
        return None;
    }
    let (len, extend, d) = (i.bits(13, 2) + 1, i.bit(12), i.rd());
    let index = t.v(i.rm());
    let mut r = t.vzero();
    for k in 0..len {
        let regs = t.v(i.rn() + k);
        let at = if k == 0 {
            index
        } else {
            // Smaller indices wrap to 208 and above, which select nothing.
            let c = t.vsplat(Lane::B, 16 * k as u64);
            t.v2(Op::VSub, Lane::B, index, c)
        };
        let part = t.bits(Op::VTable, regs, at);
        r = if k == 0 { part } else { t.bits(Op::VOr, r, part) };
    }
    if extend {
        let limit = t.vsplat(Lane::B, 16 * len as u64);
        let inside = t.v2(Op::VCmpGtU, Lane::B, limit, index);
        let old = t.v(d);
        r = t.v3(Op::VBsl, Lane::B, inside, r, old);
    }
    t.set_v_fit(d, if i.q() { 16 } else { 8 }, r);
    Some(())
}
