//! Two-register miscellaneous operations and shifts by immediate, integer part, vector and scalar.

use super::access::{low_mask, wider};
use super::{Done, fp_vector};
use crate::simd_helpers::int::IntOp;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

/// Lane of half the size.
fn narrower(lane: Lane) -> Lane {
    Lane::from_size((lane as u32).saturating_sub(1))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Narrow {
    /// Signed to signed.
    Ss,
    /// Unsigned to unsigned.
    Uu,
    /// Signed to unsigned.
    Su,
}

impl Translator<'_, '_> {
    fn vnot(&mut self, a: Value) -> Value {
        self.b.op1(Op::VNot, Type::V128, a, 0, 0)
    }

    /// Saturates lanes of `wide` into the low half; QC by the low `bytes` of the source.
    fn sat_narrow(&mut self, kind: Narrow, wide: Lane, bytes: u32, a: Value) -> Value {
        let n = wide.bits() / 2;
        let (lo, hi): (u64, u64) = match kind {
            Narrow::Ss => ((1u64 << (n - 1)).wrapping_neg(), (1 << (n - 1)) - 1),
            _ => (0, (1u64 << n) - 1),
        };
        let hi = self.vsplat(wide, hi);
        let r = if kind == Narrow::Uu {
            self.v2(Op::VMinU, wide, a, hi)
        } else {
            let lo = self.vsplat(wide, lo);
            let r = self.v2(Op::VMinS, wide, a, hi);
            self.v2(Op::VMaxS, wide, r, lo)
        };
        let r = self.saturated(bytes, r, a);
        self.v1(Op::VNarrow, wide, r)
    }

    /// `(a + (1 << (n - 1))) >> n` of unbounded precision.
    fn rounding_shr(&mut self, unsigned: bool, lane: Lane, a: Value, n: u32) -> Value {
        let shr = if unsigned { Op::VShr } else { Op::VSar };
        let r = self.vshift(shr, lane, a, n);
        let last = self.vshift(Op::VShr, lane, a, n - 1);
        let one = self.vsplat(lane, 1);
        let last = self.bits(Op::VAnd, last, one);
        self.v2(Op::VAdd, lane, r, last)
    }

    /// Bits of every byte reversed.
    fn reverse_bits(&mut self, a: Value) -> Value {
        let mut table = [0u8; 16];
        for (n, t) in table.iter_mut().enumerate() {
            *t = (n as u8).reverse_bits();
        }
        let hi_nibbles = self.b.vconst(u128::from_le_bytes(table));
        let lo_nibbles = self.b.vconst(u128::from_le_bytes(table.map(|t| t >> 4)));
        let m = self.vsplat(Lane::B, 15);
        let lo = self.bits(Op::VAnd, a, m);
        let hi = self.vshift(Op::VShr, Lane::B, a, 4);
        let lo = self.bits(Op::VTable, hi_nibbles, lo);
        let hi = self.bits(Op::VTable, lo_nibbles, hi);
        self.bits(Op::VOr, lo, hi)
    }

    /// Compares with zero: CMGT, CMGE, CMEQ, CMLE, CMLT.
    fn compare_zero(&mut self, op: u32, u: bool, lane: Lane, a: Value) -> Value {
        let z = self.vzero();
        match (op, u) {
            (0x08, false) => self.v2(Op::VCmpGtS, lane, a, z),
            (0x08, true) => self.v2(Op::VCmpGeS, lane, a, z),
            (0x09, false) => self.v2(Op::VCmpEq, lane, a, z),
            (0x09, true) => self.v2(Op::VCmpGeS, lane, z, a),
            _ => self.vshift(Op::VSar, lane, a, lane.bits()),
        }
    }

    /// Operations with a form of every lane count: absolute value, negate, saturating ones, compares with zero.
    fn misc_lanes(&mut self, op: u32, u: bool, lane: Lane, bytes: u32, a: Value, d: u32) -> Option<Value> {
        Some(match (op, u) {
            (0x03, _) => {
                let acc = self.v(d);
                // The accumulator is the first operand.
                let o = if u { IntOp::Usqadd } else { IntOp::Suqadd };
                self.sat_call(o, lane, bytes, 0, &[acc, a])
            }
            (0x07, false) => {
                let r = self.v1(Op::VAbs, lane, a);
                let max = self.vsplat(lane, u64::MAX >> (65 - lane.bits()));
                let s = self.v2(Op::VMinU, lane, r, max);
                self.saturated(bytes, s, r)
            }
            (0x07, true) => {
                let z = self.vzero();
                let s = self.v2(Op::VSatSubS, lane, z, a);
                let r = self.v2(Op::VSub, lane, z, a);
                self.saturated(bytes, s, r)
            }
            (0x08 | 0x09, _) | (0x0a, false) => self.compare_zero(op, u, lane, a),
            (0x0b, false) => self.v1(Op::VAbs, lane, a),
            (0x0b, true) => self.v1(Op::VNeg, lane, a),
            _ => return None,
        })
    }
}

/// AdvSIMD two-register miscellaneous.
pub(super) fn two_reg(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u, q) = (i.bits(12, 5), i.bits(22, 2), i.bit(29), i.q());
    let lane = Lane::from_size(size);
    let bytes = if q { 16 } else { 8 };
    let (n, d) = (i.rn(), i.rd());
    match op {
        0x0c..=0x0f | 0x16..=0x1f => return fp_vector::two_reg_fp(t, i),
        // XTN, SQXTUN
        0x12 | 0x14 => {
            if size == 3 {
                return None;
            }
            let a = t.v(n);
            let wide = wider(lane);
            let r = match (op, u) {
                (0x12, false) => t.v1(Op::VNarrow, wide, a),
                (0x12, true) => t.sat_narrow(Narrow::Su, wide, 16, a),
                (_, false) => t.sat_narrow(Narrow::Ss, wide, 16, a),
                (_, true) => t.sat_narrow(Narrow::Uu, wide, 16, a),
            };
            t.set_narrow(d, q, r);
            return Some(());
        }
        // SHLL
        0x13 => {
            if !u || size == 3 {
                return None;
            }
            let a = t.half_of(n, q);
            let r = t.v1(Op::VWidenU, lane, a);
            let r = t.vshift(Op::VShl, wider(lane), r, lane.bits());
            t.set_v(d, r);
            return Some(());
        }
        // SADDLP, SADALP
        0x02 | 0x06 => {
            if size == 3 {
                return None;
            }
            let a = t.v(n);
            let mut r = t.add_pairs_long(lane, u, a);
            if op == 0x06 {
                let acc = t.v(d);
                r = t.v2(Op::VAdd, wider(lane), acc, r);
            }
            t.set_v_fit(d, bytes, r);
            return Some(());
        }
        _ => {}
    }
    let allocated = match (op, u) {
        (0x00, false) => size < 3,
        (0x00, true) => size < 2,
        (0x01, false) => size == 0,
        (0x04, _) => size < 3,
        (0x05, false) => size == 0,
        (0x05, true) => size < 2,
        (0x03 | 0x07 | 0x08 | 0x09 | 0x0b, _) | (0x0a, false) => size < 3 || q,
        _ => false,
    };
    if !allocated {
        return None;
    }
    let a = t.v(n);
    let reverse = |t: &mut Translator, group: u32| {
        let per = group / lane.bytes();
        t.permute(lane, bytes, a, |k| k ^ (per - 1))
    };
    let r = match (op, u) {
        (0x00, false) => reverse(t, 8),
        (0x00, true) => reverse(t, 4),
        (0x01, _) => reverse(t, 2),
        (0x04, false) => t.int_call(IntOp::Cls, lane, bytes, 0, &[a]),
        (0x04, true) => t.int_call(IntOp::Clz, lane, bytes, 0, &[a]),
        (0x05, false) => t.v1(Op::VPopcnt, Lane::B, a),
        (0x05, true) if size == 0 => t.vnot(a),
        (0x05, true) => t.reverse_bits(a),
        _ => t.misc_lanes(op, u, lane, bytes, a, d)?,
    };
    t.set_v_fit(d, bytes, r);
    Some(())
}

/// AdvSIMD scalar two-register miscellaneous.
pub(super) fn scalar_two_reg(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u) = (i.bits(12, 5), i.bits(22, 2), i.bit(29));
    let lane = Lane::from_size(size);
    let (n, d) = (i.rn(), i.rd());
    match (op, u) {
        (0x0c..=0x0f | 0x16..=0x1f, _) => return fp_vector::scalar_two_reg_fp(t, i),
        (0x12, true) | (0x14, _) => {
            if size == 3 {
                return None;
            }
            let kind = match (op, u) {
                (0x12, _) => Narrow::Su,
                (_, false) => Narrow::Ss,
                _ => Narrow::Uu,
            };
            let a = t.v(n);
            let r = t.sat_narrow(kind, wider(lane), wider(lane).bytes(), a);
            t.set_v_fit(d, lane.bytes(), r);
            return Some(());
        }
        (0x03 | 0x07, _) => {}
        (0x08 | 0x09 | 0x0b, _) | (0x0a, false) if size == 3 => {}
        _ => return None,
    }
    let a = t.v(n);
    let r = t.misc_lanes(op, u, lane, lane.bytes(), a, d)?;
    t.set_v_fit(d, lane.bytes(), r);
    Some(())
}

/// AdvSIMD shift by immediate, vector (`scalar` false) and scalar.
pub(super) fn shift_imm(t: &mut Translator, i: Insn, scalar: bool) -> Done {
    let (op, immh, u, q) = (i.bits(11, 5), i.bits(19, 4), i.bit(29), i.q());
    if immh == 0 {
        return None;
    }
    let imm = i.bits(16, 7);
    let lane = Lane::from_size(31 - immh.leading_zeros());
    let esize = lane.bits();
    let (right, left) = (2 * esize - imm, imm - esize);
    let bytes = match (scalar, q) {
        (true, _) => lane.bytes(),
        (false, true) => 16,
        (false, false) => 8,
    };
    let narrow = matches!(op, 0x10..=0x13);
    match (op, u) {
        (0x1c | 0x1f, _) => return fp_vector::fixed_point(t, i, scalar),
        (0x00 | 0x02 | 0x04 | 0x06, _) | (0x08, true) | (0x0a, _) if scalar && lane != Lane::D => return None,
        (0x00 | 0x02 | 0x04 | 0x06 | 0x0a, _) | (0x08 | 0x0c, true) | (0x0e, _) => {}
        (0x10 | 0x11, false) if !scalar => {}
        (0x10 | 0x11, true) | (0x12 | 0x13, _) => {}
        (0x14, _) if !scalar => {}
        _ => return None,
    }
    if lane == Lane::D && (narrow || op == 0x14 || (!scalar && !q)) {
        return None;
    }
    let (n, d) = (i.rn(), i.rd());
    if op == 0x14 {
        // SSHLL
        let a = t.half_of(n, q);
        let r = t.v1(if u { Op::VWidenU } else { Op::VWidenS }, lane, a);
        let r = t.vshift(Op::VShl, wider(lane), r, left);
        t.set_v(d, r);
        return Some(());
    }
    if narrow {
        // The immediate counts in destination lanes.
        let (wide, n_bits) = (wider(lane), right);
        let a = t.v(n);
        let (kind, unsigned) = match (op, u) {
            (0x10 | 0x11, true) => (Some(Narrow::Su), false),
            (0x10 | 0x11, false) => (None, true),
            (_, false) => (Some(Narrow::Ss), false),
            (_, true) => (Some(Narrow::Uu), true),
        };
        let r = if op & 1 != 0 {
            t.rounding_shr(unsigned, wide, a, n_bits)
        } else {
            t.vshift(if unsigned { Op::VShr } else { Op::VSar }, wide, a, n_bits)
        };
        let r = match kind {
            Some(k) => t.sat_narrow(k, wide, if scalar { wide.bytes() } else { 16 }, r),
            None => t.v1(Op::VNarrow, wide, r),
        };
        debug_assert!(narrower(wide) == lane);
        if scalar {
            t.set_v_fit(d, lane.bytes(), r);
        } else {
            t.set_narrow(d, q, r);
        }
        return Some(());
    }
    let a = t.v(n);
    let shr = if u { Op::VShr } else { Op::VSar };
    let r = match (op, u) {
        (0x00, _) => t.vshift(shr, lane, a, right),
        (0x02, _) => {
            let r = t.vshift(shr, lane, a, right);
            let acc = t.v(d);
            t.v2(Op::VAdd, lane, acc, r)
        }
        (0x04, _) => t.rounding_shr(u, lane, a, right),
        (0x06, _) => {
            let r = t.rounding_shr(u, lane, a, right);
            let acc = t.v(d);
            t.v2(Op::VAdd, lane, acc, r)
        }
        // SRI
        (0x08, _) => {
            let r = t.vshift(Op::VShr, lane, a, right);
            let keep = if right >= esize { u64::MAX } else { !(u64::MAX >> (64 - esize) >> right) };
            let m = t.vsplat(lane, keep);
            let old = t.v(d);
            let old = t.bits(Op::VAnd, old, m);
            t.bits(Op::VOr, old, r)
        }
        (0x0a, false) => t.vshift(Op::VShl, lane, a, left),
        // SLI
        (0x0a, true) => {
            let r = t.vshift(Op::VShl, lane, a, left);
            let m = t.vsplat(lane, (1 << left) - 1);
            let old = t.v(d);
            let old = t.bits(Op::VAnd, old, m);
            t.bits(Op::VOr, old, r)
        }
        (0x0c, _) => t.sat_call(IntOp::SqshluImm, lane, bytes, left, &[a]),
        (_, false) => t.sat_call(IntOp::SqshlImm, lane, bytes, left, &[a]),
        (_, true) => t.sat_call(IntOp::UqshlImm, lane, bytes, left, &[a]),
    };
    t.set_v_fit(d, bytes, r);
    Some(())
}

/// AdvSIMD modified immediate.
pub(super) fn modified_immediate(t: &mut Translator, i: Insn) -> Done {
    let (q, op, cmode, o2) = (i.q(), i.bit(29), i.bits(12, 4), i.bit(11));
    let imm8 = i.bits(16, 3) << 5 | i.bits(5, 5);
    let bytes = if q { 16 } else { 8 };
    let d = i.rd();
    if o2 {
        // FMOV, half precision
        if cmode != 15 || op || !t.cfg.has(crate::Feature::Fp16) {
            return None;
        }
        let c = t.b.vconst(super::access::splat(Lane::H, super::scalar::expand_imm(imm8, Lane::H)) & low_mask(bytes));
        t.set_v(d, c);
        return Some(());
    }
    if cmode == 15 && op && !q {
        return None;
    }
    let imm = expand_modified(op, cmode, imm8);
    let c = imm as u128 | (imm as u128) << 64;
    // ORR and BIC have odd cmode below 12.
    let r = if cmode < 12 && cmode & 1 != 0 {
        let old = t.v(d);
        let c = t.b.vconst(c);
        t.bits(if op { Op::VAndNot } else { Op::VOr }, old, c)
    } else {
        let invert = op && !matches!(cmode, 14 | 15);
        t.b.vconst(if invert { !c } else { c })
    };
    t.set_v_fit(d, bytes, r);
    Some(())
}

/// AdvSIMDExpandImm(), without the inversion that MVNI applies.
fn expand_modified(op: bool, cmode: u32, imm8: u32) -> u64 {
    let two = |v: u32| v as u64 | (v as u64) << 32;
    let v = imm8;
    match cmode >> 1 {
        n @ 0..=3 => two(v << (8 * n)),
        n @ 4..=5 => two((v << (8 * (n - 4))) * 0x1_0001),
        6 if cmode & 1 == 0 => two(v << 8 | 0xff),
        6 => two(v << 16 | 0xffff),
        _ => match (cmode & 1, op) {
            (0, false) => v as u64 * 0x0101_0101_0101_0101,
            (0, true) => (0..8).filter(|n| v >> n & 1 != 0).fold(0, |r, n| r | 0xff << (8 * n)),
            (_, false) => two(super::scalar::expand_imm(v, Lane::S) as u32),
            (_, true) => super::scalar::expand_imm(v, Lane::D),
        },
    }
}
