//! Integer three-same, three-different and extra operations, vector and scalar.

use super::access::wider;
use super::{Done, helpers};
use crate::config::Feature;
use crate::simd_helpers::desc::Desc;
use crate::simd_helpers::int::IntOp;
use crate::translate::{Insn, Translator};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Op, Value};

impl Translator<'_, '_> {
    /// An integer lane helper without sticky effects.
    pub(super) fn int_call(&mut self, op: IntOp, lane: Lane, bytes: u32, imm: u32, args: &[Value]) -> Value {
        let d = Desc::new(op as u32, lane, bytes).imm(imm).0;
        let h = match args.len() {
            1 => helpers::INT1,
            2 => helpers::INT2,
            _ => helpers::INT3,
        };
        self.lanes_call(h, d, args)
    }
    /// An integer lane helper that may set QC.
    pub(super) fn sat_call(&mut self, op: IntOp, lane: Lane, bytes: u32, imm: u32, args: &[Value]) -> Value {
        let d = Desc::new(op as u32, lane, bytes).imm(imm).0;
        let h = match args.len() {
            1 => helpers::SAT1,
            2 => helpers::SAT2,
            _ => helpers::SAT3,
        };
        self.lanes_call(h, d, args)
    }

    /// Saturating add or subtract.
    fn sat_add(&mut self, sat: Op, wrap: Op, lane: Lane, bytes: u32, a: Value, b: Value) -> Value {
        let r = self.v2(sat, lane, a, b);
        let w = self.v2(wrap, lane, a, b);
        self.saturated(bytes, r, w)
    }

    /// `(a ± b) >> 1` without overflow.
    fn halving(&mut self, lane: Lane, unsigned: bool, subtract: bool, a: Value, b: Value) -> Value {
        let shr = if unsigned { Op::VShr } else { Op::VSar };
        let x = self.bits(Op::VXor, a, b);
        let h = self.vshift(shr, lane, x, 1);
        if subtract {
            // a - b = (a ^ b) - 2 (!a & b)
            let n = self.bits(Op::VAndNot, b, a);
            self.v2(Op::VSub, lane, h, n)
        } else {
            let n = self.bits(Op::VAnd, a, b);
            self.v2(Op::VAdd, lane, n, h)
        }
    }

    fn rounding_halving_add(&mut self, lane: Lane, unsigned: bool, a: Value, b: Value) -> Value {
        if unsigned && matches!(lane, Lane::B | Lane::H) {
            return self.v2(Op::VAvgU, lane, a, b);
        }
        let shr = if unsigned { Op::VShr } else { Op::VSar };
        let x = self.bits(Op::VXor, a, b);
        let h = self.vshift(shr, lane, x, 1);
        let o = self.bits(Op::VOr, a, b);
        self.v2(Op::VSub, lane, o, h)
    }

    pub(super) fn abs_diff(&mut self, lane: Lane, unsigned: bool, a: Value, b: Value) -> Value {
        let (max, min) = if unsigned { (Op::VMaxU, Op::VMinU) } else { (Op::VMaxS, Op::VMinS) };
        let hi = self.v2(max, lane, a, b);
        let lo = self.v2(min, lane, a, b);
        self.v2(Op::VSub, lane, hi, lo)
    }

    /// `sat(2ab [+ round] >> esize)` of H or S lanes.
    pub(super) fn doubling_high(&mut self, lane: Lane, bytes: u32, round: bool, a: Value, b: Value) -> Value {
        let wide = wider(lane);
        let mut parts = [a; 2];
        let mut qc = None;
        let halves = if bytes == 16 { 2 } else { 1 };
        for (n, part) in parts.iter_mut().enumerate().take(halves) {
            let (x, y) = if n == 0 { (a, b) } else { (self.high(a), self.high(b)) };
            let p = self.v2(Op::VMulWideS, lane, x, y);
            let w = self.v2(Op::VAdd, wide, p, p);
            let mut d = self.v2(Op::VSatAddS, wide, p, p);
            let x = self.bits(Op::VXor, d, w);
            // Only products of the active lanes count.
            let x = self.fit((bytes * 2).min(16), x);
            qc = Some(match qc {
                None => x,
                Some(q) => self.bits(Op::VOr, q, x),
            });
            if round {
                let c = self.vsplat(wide, 1 << (lane.bits() - 1));
                d = self.v2(Op::VSatAddS, wide, d, c);
            }
            *part = d;
        }
        if let Some(q) = qc {
            self.or_qc(q);
        }
        let hi = parts[halves - 1];
        let r = self.every_other(lane, 16, parts[0], hi, 1);
        self.fit(bytes, r)
    }

    /// Integer three-same operation on the low `bytes`; `d` is the old destination.
    fn three_same_int(&mut self, op: u32, u: bool, lane: Lane, bytes: u32, a: Value, b: Value, d: u32) -> Value {
        let pick = |s, us| if u { us } else { s };
        let r = match op {
            0x00 => self.halving(lane, u, false, a, b),
            0x01 => return self.sat_add(pick(Op::VSatAddS, Op::VSatAddU), Op::VAdd, lane, bytes, a, b),
            0x02 => self.rounding_halving_add(lane, u, a, b),
            0x04 => self.halving(lane, u, true, a, b),
            0x05 => return self.sat_add(pick(Op::VSatSubS, Op::VSatSubU), Op::VSub, lane, bytes, a, b),
            0x06 => self.v2(pick(Op::VCmpGtS, Op::VCmpGtU), lane, a, b),
            0x07 => self.v2(pick(Op::VCmpGeS, Op::VCmpGeU), lane, a, b),
            0x08 => return self.int_call(if u { IntOp::Ushl } else { IntOp::Sshl }, lane, bytes, 0, &[a, b]),
            0x09 => return self.sat_call(if u { IntOp::Uqshl } else { IntOp::Sqshl }, lane, bytes, 0, &[a, b]),
            0x0a => return self.int_call(if u { IntOp::Urshl } else { IntOp::Srshl }, lane, bytes, 0, &[a, b]),
            0x0b => return self.sat_call(if u { IntOp::Uqrshl } else { IntOp::Sqrshl }, lane, bytes, 0, &[a, b]),
            0x0c => self.v2(pick(Op::VMaxS, Op::VMaxU), lane, a, b),
            0x0d => self.v2(pick(Op::VMinS, Op::VMinU), lane, a, b),
            0x0e => self.abs_diff(lane, u, a, b),
            0x0f => {
                let x = self.abs_diff(lane, u, a, b);
                let acc = self.v(d);
                self.v2(Op::VAdd, lane, acc, x)
            }
            0x10 => self.v2(pick(Op::VAdd, Op::VSub), lane, a, b),
            0x11 if u => self.v2(Op::VCmpEq, lane, a, b),
            0x11 => {
                let x = self.bits(Op::VAnd, a, b);
                let z = self.vzero();
                let e = self.v2(Op::VCmpEq, lane, x, z);
                self.b.op1(Op::VNot, rhea_ir::Type::V128, e, 0, 0)
            }
            0x12 => {
                let x = self.v2(Op::VMul, lane, a, b);
                let acc = self.v(d);
                self.v2(pick(Op::VAdd, Op::VSub), lane, acc, x)
            }
            0x13 if u => self.b.call(helpers::PMUL, &[a, b]),
            0x13 => self.v2(Op::VMul, lane, a, b),
            0x14 | 0x15 => {
                let even = self.every_other(lane, bytes, a, b, 0);
                let odd = self.every_other(lane, bytes, a, b, 1);
                let o = match (op, u) {
                    (0x14, false) => Op::VMaxS,
                    (0x14, true) => Op::VMaxU,
                    (_, false) => Op::VMinS,
                    (_, true) => Op::VMinU,
                };
                self.v2(o, lane, even, odd)
            }
            0x16 => return self.doubling_high(lane, bytes, u, a, b),
            // 0x17: ADDP
            _ => {
                let even = self.every_other(lane, bytes, a, b, 0);
                let odd = self.every_other(lane, bytes, a, b, 1);
                self.v2(Op::VAdd, lane, even, odd)
            }
        };
        self.fit(bytes, r)
    }
}

/// AdvSIMD three same, integer part.
pub(super) fn three_same(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u, q) = (i.bits(11, 5), i.bits(22, 2), i.bit(29), i.q());
    let (lane, bytes) = (Lane::from_size(size), if q { 16 } else { 8 });
    match op {
        0x03 => return logical(t, i),
        0x18.. => return super::fp_vector::three_same_fp(t, i),
        0x13 if u && size != 0 => return None,
        0x00 | 0x02 | 0x04 | 0x0c..=0x0f | 0x12..=0x15 if size == 3 => return None,
        0x16 if size == 0 || size == 3 => return None,
        0x17 if u => return None,
        _ if size == 3 && !q => return None,
        _ => {}
    }
    let (a, b) = (t.v(i.rn()), t.v(i.rm()));
    let r = t.three_same_int(op, u, lane, bytes, a, b, i.rd());
    t.set_v(i.rd(), r);
    Some(())
}

fn logical(t: &mut Translator, i: Insn) -> Done {
    let (a, b, d) = (t.v(i.rn()), t.v(i.rm()), i.rd());
    let r = match (i.bit(29), i.bits(22, 2)) {
        (false, 0) => t.bits(Op::VAnd, a, b),
        (false, 1) => t.bits(Op::VAndNot, a, b),
        (false, 2) => t.bits(Op::VOr, a, b),
        (false, _) => {
            let n = t.b.op1(Op::VNot, rhea_ir::Type::V128, b, 0, 0);
            t.bits(Op::VOr, a, n)
        }
        (true, 0) => t.bits(Op::VXor, a, b),
        (true, n) => {
            let d = t.v(d);
            // BSL selects by the destination, BIT and BIF insert where the second operand is set or clear.
            match n {
                1 => t.v3(Op::VBsl, Lane::B, d, a, b),
                2 => t.v3(Op::VBsl, Lane::B, b, a, d),
                _ => t.v3(Op::VBsl, Lane::B, b, d, a),
            }
        }
    };
    t.set_v_fit(d, if i.q() { 16 } else { 8 }, r);
    Some(())
}

/// AdvSIMD scalar three same, integer part.
pub(super) fn scalar_three_same(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u) = (i.bits(11, 5), i.bits(22, 2), i.bit(29));
    let lane = Lane::from_size(size);
    match op {
        0x18.. => return super::fp_vector::scalar_three_same_fp(t, i),
        0x01 | 0x05 | 0x09 | 0x0b => {}
        0x06 | 0x07 | 0x08 | 0x0a | 0x10 | 0x11 if size == 3 => {}
        0x16 if size == 1 || size == 2 => {}
        _ => return None,
    }
    let (a, b) = (t.v(i.rn()), t.v(i.rm()));
    let r = t.three_same_int(op, u, lane, lane.bytes(), a, b, i.rd());
    t.set_v(i.rd(), r);
    Some(())
}

/// SQRDMLAH, SQRDMLSH, SDOT, UDOT, USDOT, matrix multiplies, BF16 and complex operations.
pub(super) fn three_same_extra(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u, q) = (i.bits(11, 4), i.bits(22, 2), i.bit(29), i.q());
    let bytes = if q { 16 } else { 8 };
    let has = |t: &Translator, f| if t.cfg.has(f) { Some(()) } else { None };
    let (a, b) = (i.rn(), i.rm());
    match (op, u, size) {
        (0, true, 1 | 2) | (1, true, 1 | 2) => {
            has(t, Feature::Rdm)?;
            let (a, b, c) = (t.v(a), t.v(b), t.v(i.rd()));
            let o = if op == 0 { IntOp::Sqrdmlah } else { IntOp::Sqrdmlsh };
            let r = t.sat_call(o, Lane::from_size(size), bytes, 0, &[a, b, c]);
            t.set_v(i.rd(), r);
        }
        (2, _, 2) => {
            has(t, Feature::DotProd)?;
            let (a, b) = (t.v(a), t.v(b));
            t.dot(i.rd(), bytes, !u, !u, a, b);
        }
        (3, false, 2) => {
            has(t, Feature::I8mm)?;
            let (a, b) = (t.v(a), t.v(b));
            t.dot(i.rd(), bytes, false, true, a, b);
        }
        (4, _, 2) | (5, false, 2) if q => {
            has(t, Feature::I8mm)?;
            // SMMLA, UMMLA; USMMLA has the first operand unsigned.
            let signs = match (op, u) {
                (4, false) => 3,
                (4, true) => 0,
                _ => 2,
            };
            let s = t.c32(signs);
            let (acc, a, b) = (t.v(i.rd()), t.v(a), t.v(b));
            let r = t.b.call(helpers::MATRIX, &[s, acc, a, b]);
            t.set_v(i.rd(), r);
        }
        (8..=12 | 14, true, 1..) => {
            has(t, Feature::Fcma)?;
            return super::complex::three_same(t, i);
        }
        (13, true, 1) if q => {
            has(t, Feature::Bf16)?;
            super::bf16::matrix(t, i);
        }
        (15, true, 1 | 3) => {
            has(t, Feature::Bf16)?;
            super::bf16::three_same(t, i);
        }
        _ => return None,
    }
    Some(())
}

/// Scalar SQRDMLAH, SQRDMLSH.
pub(super) fn scalar_three_same_extra(t: &mut Translator, i: Insn) -> Done {
    let (op, size) = (i.bits(11, 4), i.bits(22, 2));
    if !i.bit(29) || op > 1 || size == 0 || size == 3 || !t.cfg.has(Feature::Rdm) {
        return None;
    }
    let (a, b, c) = (t.v(i.rn()), t.v(i.rm()), t.v(i.rd()));
    let lane = Lane::from_size(size);
    let o = if op == 0 { IntOp::Sqrdmlah } else { IntOp::Sqrdmlsh };
    let r = t.sat_call(o, lane, lane.bytes(), 0, &[a, b, c]);
    t.set_v(i.rd(), r);
    Some(())
}

impl Translator<'_, '_> {
    /// Four-way byte dot product accumulated into S lanes of `d`.
    pub(super) fn dot(&mut self, d: u32, bytes: u32, a_signed: bool, b_signed: bool, a: Value, b: Value) {
        let half = |t: &mut Self, hi: bool| {
            let (a, b) = if hi { (t.high(a), t.high(b)) } else { (a, b) };
            let p = if a_signed == b_signed {
                t.v2(if a_signed { Op::VMulWideS } else { Op::VMulWideU }, Lane::B, a, b)
            } else {
                let widen = |s| if s { Op::VWidenS } else { Op::VWidenU };
                let (a, b) = (t.v1(widen(a_signed), Lane::B, a), t.v1(widen(b_signed), Lane::B, b));
                t.v2(Op::VMul, Lane::H, a, b)
            };
            t.add_pairs_long(Lane::H, !a_signed && !b_signed, p)
        };
        let lo = half(self, false);
        let hi = if bytes == 16 { half(self, true) } else { lo };
        let even = self.every_other(Lane::S, 16, lo, hi, 0);
        let odd = self.every_other(Lane::S, 16, lo, hi, 1);
        let sum = self.v2(Op::VAdd, Lane::S, even, odd);
        let acc = self.v(d);
        let r = self.v2(Op::VAdd, Lane::S, acc, sum);
        self.set_v_fit(d, bytes, r);
    }

    /// Widening multiply, optionally accumulated (`acc`: the operation) into `d`, of operands given as low halves.
    /// `bytes` of the destination are active.
    pub(super) fn mul_long(&mut self, d: u32, lane: Lane, bytes: u32, u: bool, acc: Option<Op>, a: Value, b: Value) {
        let p = self.v2(if u { Op::VMulWideU } else { Op::VMulWideS }, lane, a, b);
        let r = match acc {
            Some(op) => {
                let old = self.v(d);
                self.v2(op, wider(lane), old, p)
            }
            None => p,
        };
        self.set_v_fit(d, bytes, r);
    }

    /// SQDMULL, SQDMLAL, SQDMLSL: operands given as low halves.
    pub(super) fn doubling_long(&mut self, d: u32, lane: Lane, bytes: u32, acc: Option<(Op, Op)>, a: Value, b: Value) {
        let wide = wider(lane);
        let p = self.v2(Op::VMulWideS, lane, a, b);
        let mut r = self.sat_add(Op::VSatAddS, Op::VAdd, wide, bytes, p, p);
        if let Some((sat, wrap)) = acc {
            let old = self.v(d);
            r = self.sat_add(sat, wrap, wide, bytes, old, r);
        }
        self.set_v_fit(d, bytes, r);
    }
}

const SQDMLAL: Option<(Op, Op)> = Some((Op::VSatAddS, Op::VAdd));
const SQDMLSL: Option<(Op, Op)> = Some((Op::VSatSubS, Op::VSub));

/// AdvSIMD three different: long, wide and narrow.
pub(super) fn three_different(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u, q) = (i.bits(12, 4), i.bits(22, 2), i.bit(29), i.q());
    let lane = Lane::from_size(size);
    if op == 14 {
        return pmull(t, i);
    }
    if size == 3 || op == 15 || (matches!(op, 9 | 11 | 13) && (u || size == 0)) {
        return None;
    }
    let wide = wider(lane);
    let d = i.rd();
    let widen = if u { Op::VWidenU } else { Op::VWidenS };
    match op {
        // SADDL, SADDW, SSUBL, SSUBW
        0..=3 => {
            let a = if op & 1 == 0 {
                let a = t.half_of(i.rn(), q);
                t.v1(widen, lane, a)
            } else {
                t.v(i.rn())
            };
            let b = t.half_of(i.rm(), q);
            let b = t.v1(widen, lane, b);
            let r = t.v2(if op < 2 { Op::VAdd } else { Op::VSub }, wide, a, b);
            t.set_v(d, r);
        }
        // ADDHN, SUBHN and the rounding forms
        4 | 6 => {
            let (a, b) = (t.v(i.rn()), t.v(i.rm()));
            let mut r = t.v2(if op == 4 { Op::VAdd } else { Op::VSub }, wide, a, b);
            if u {
                let c = t.vsplat(wide, 1 << (lane.bits() - 1));
                r = t.v2(Op::VAdd, wide, r, c);
            }
            let r = t.vshift(Op::VShr, wide, r, lane.bits());
            let r = t.v1(Op::VNarrow, wide, r);
            t.set_narrow(d, q, r);
        }
        // SABAL, SABDL
        5 | 7 => {
            let (a, b) = (t.half_of(i.rn(), q), t.half_of(i.rm(), q));
            let r = t.abs_diff(lane, u, a, b);
            let mut r = t.v1(Op::VWidenU, lane, r);
            if op == 5 {
                let acc = t.v(d);
                r = t.v2(Op::VAdd, wide, acc, r);
            }
            t.set_v(d, r);
        }
        8 | 10 | 12 => {
            let (a, b) = (t.half_of(i.rn(), q), t.half_of(i.rm(), q));
            let acc = match op {
                8 => Some(Op::VAdd),
                10 => Some(Op::VSub),
                _ => None,
            };
            t.mul_long(d, lane, 16, u, acc, a, b);
        }
        // 9, 11, 13
        _ => {
            let (a, b) = (t.half_of(i.rn(), q), t.half_of(i.rm(), q));
            let acc = match op {
                9 => SQDMLAL,
                11 => SQDMLSL,
                _ => None,
            };
            t.doubling_long(d, lane, 16, acc, a, b);
        }
    }
    Some(())
}

fn pmull(t: &mut Translator, i: Insn) -> Done {
    if i.bit(29) {
        return None;
    }
    let r = match i.bits(22, 2) {
        0 => {
            let (a, b) = (t.half_of(i.rn(), i.q()), t.half_of(i.rm(), i.q()));
            t.b.call(helpers::PMULL8, &[a, b])
        }
        3 if t.cfg.has(Feature::Pmull) => {
            let (a, b) = (t.v(i.rn()), t.v(i.rm()));
            t.b.simd(SimdOp::PClMulQdq, Fmt::Ps, &[a, b], if i.q() { 0x11 } else { 0 })
        }
        _ => return None,
    };
    t.set_v(i.rd(), r);
    Some(())
}

/// Scalar SQDMULL, SQDMLAL, SQDMLSL.
pub(super) fn scalar_three_different(t: &mut Translator, i: Insn) -> Done {
    let (op, size) = (i.bits(12, 4), i.bits(22, 2));
    let acc = match op {
        9 => SQDMLAL,
        11 => SQDMLSL,
        13 => None,
        _ => return None,
    };
    if i.bit(29) || size == 0 || size == 3 {
        return None;
    }
    let lane = Lane::from_size(size);
    let (a, b) = (t.v(i.rn()), t.v(i.rm()));
    t.doubling_long(i.rd(), lane, wider(lane).bytes(), acc, a, b);
    Some(())
}

/// By element, integer operations, vector (`scalar` false) and scalar.
pub(super) fn by_element(t: &mut Translator, i: Insn, scalar: bool) -> Done {
    let (op, size, u, q) = (i.bits(12, 4), i.bits(22, 2), i.bit(29), i.q());
    let h = i.bits(11, 1);
    let (l, m) = (i.bits(21, 1), i.bits(20, 1));
    // Opcode with U in bit 4.
    let o = op | (u as u32) << 4;
    match o {
        0x01 | 0x05 | 0x09 | 0x19 => return super::fp_vector::by_element_fp(t, i, scalar),
        0x00 | 0x04 | 0x18 | 0x1c if size == 2 && !scalar => return super::fp_vector::fmlal_by_element(t, i),
        0x11 | 0x13 | 0x15 | 0x17 if !scalar => return super::complex::by_element(t, i),
        0x0e | 0x1e if size == 2 && !scalar => {
            // SDOT, UDOT
            if !t.cfg.has(Feature::DotProd) {
                return None;
            }
            let (a, b) = (t.v(i.rn()), t.v(i.rm()));
            let b = t.dup_lane(Lane::S, b, h << 1 | l);
            t.dot(i.rd(), if q { 16 } else { 8 }, !u, !u, a, b);
            return Some(());
        }
        0x0f if !scalar => {
            let (a, b) = (t.v(i.rn()), t.v(i.rm()));
            let bytes = if q { 16 } else { 8 };
            return match size {
                // SUDOT, USDOT
                0 | 2 if t.cfg.has(Feature::I8mm) => {
                    let b = t.dup_lane(Lane::S, b, h << 1 | l);
                    t.dot(i.rd(), bytes, size == 0, size == 2, a, b);
                    Some(())
                }
                1 | 3 if t.cfg.has(Feature::Bf16) => super::bf16::by_element(t, i),
                _ => None,
            };
        }
        _ => {}
    }
    let (lane, index, rm) = match size {
        1 => (Lane::H, h << 2 | l << 1 | m, i.rm() & 15),
        2 => (Lane::S, h << 1 | l, i.rm()),
        _ => return None,
    };
    let long = matches!(o, 0x02 | 0x12 | 0x06 | 0x16 | 0x0a | 0x1a | 0x03 | 0x07 | 0x0b);
    let allocated = match o {
        // MUL, MLA, MLS and the long ones are vector only
        0x08 | 0x10 | 0x14 | 0x02 | 0x12 | 0x06 | 0x16 | 0x0a | 0x1a => !scalar,
        0x03 | 0x07 | 0x0b | 0x0c | 0x0d => true,
        0x1d | 0x1f => t.cfg.has(Feature::Rdm),
        _ => false,
    };
    if !allocated {
        return None;
    }
    let d = i.rd();
    let bytes = match (scalar, q) {
        (true, _) => lane.bytes(),
        (false, false) => 8,
        (false, true) => 16,
    };
    let b = t.v(rm);
    let b = t.dup_lane(lane, b, index);
    let a = if long && !scalar { t.half_of(i.rn(), q) } else { t.v(i.rn()) };
    let wide_bytes = if scalar { wider(lane).bytes() } else { 16 };
    match o {
        0x02 | 0x12 => t.mul_long(d, lane, 16, u, Some(Op::VAdd), a, b),
        0x06 | 0x16 => t.mul_long(d, lane, 16, u, Some(Op::VSub), a, b),
        0x0a | 0x1a => t.mul_long(d, lane, 16, u, None, a, b),
        0x03 => t.doubling_long(d, lane, wide_bytes, SQDMLAL, a, b),
        0x07 => t.doubling_long(d, lane, wide_bytes, SQDMLSL, a, b),
        0x0b => t.doubling_long(d, lane, wide_bytes, None, a, b),
        _ => {
            let r = match o {
                0x0c => t.doubling_high(lane, bytes, false, a, b),
                0x0d => t.doubling_high(lane, bytes, true, a, b),
                0x1d | 0x1f => {
                    let c = t.v(d);
                    t.sat_call(if o == 0x1d { IntOp::Sqrdmlah } else { IntOp::Sqrdmlsh }, lane, bytes, 0, &[a, b, c])
                }
                _ => {
                    let p = t.v2(Op::VMul, lane, a, b);
                    if o == 0x08 {
                        p
                    } else {
                        let c = t.v(d);
                        t.v2(if o == 0x10 { Op::VAdd } else { Op::VSub }, lane, c, p)
                    }
                }
            };
            t.set_v_fit(d, bytes, r);
        }
    }
    Some(())
}

/// AdvSIMD across lanes, integer part.
pub(super) fn across(t: &mut Translator, i: Insn) -> Done {
    let (op, size, u, q) = (i.bits(12, 5), i.bits(22, 2), i.bit(29), i.q());
    if matches!(op, 0x0c | 0x0f) {
        return super::fp_vector::across_fp(t, i);
    }
    if size == 3 || (size == 2 && !q) {
        return None;
    }
    let lane = Lane::from_size(size);
    let fold = match (op, u) {
        (0x03, _) => Op::VAdd,
        (0x0a, false) => Op::VMaxS,
        (0x0a, true) => Op::VMaxU,
        (0x1a, false) => Op::VMinS,
        (0x1a, true) => Op::VMinU,
        (0x1b, false) => Op::VAdd,
        _ => return None,
    };
    let mut bytes = if q { 16 } else { 8 };
    let mut v = t.v(i.rn());
    let mut l = lane;
    if op == 0x03 {
        v = t.add_pairs_long(lane, u, v);
        l = wider(lane);
    }
    while bytes > l.bytes() {
        bytes /= 2;
        let n = bytes / l.bytes();
        let hi = t.permute(l, bytes, v, |k| k + n);
        v = t.v2(fold, l, v, hi);
    }
    t.set_v_fit(i.rd(), l.bytes(), v);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::access::splat;
    use super::*;

    #[test]
    fn splat_fills_all_lanes() {
        assert_eq!(splat(Lane::B, 0x1ff), u128::MAX);
        assert_eq!(splat(Lane::S, 1), 0x1_0000_0001_0000_0001_0000_0001);
        assert_eq!(splat(Lane::D, 2), 2 | 2 << 64);
    }
}
