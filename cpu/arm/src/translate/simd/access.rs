//! Shorthands of the FP and AdvSIMD translators: registers, lanes, shuffles, the sticky saturation bit.

use crate::state::slots;
use crate::translate::Translator;
use rhea_ir::{HelperId, Lane, Op, Type, Value};

/// The lane of twice the size (D stays D).
pub(super) const fn wider(lane: Lane) -> Lane {
    Lane::from_size(if (lane as u32) < 3 { lane as u32 + 1 } else { 3 })
}

/// A 128-bit pattern with the low `lane` bits of `bits` in every lane.
pub(super) const fn splat(lane: Lane, bits: u64) -> u128 {
    let n = lane.bits();
    let one = if n == 64 { bits } else { bits & ((1 << n) - 1) } as u128;
    let mut r = one;
    let mut w = n;
    while w < 128 {
        r |= r << w;
        w *= 2;
    }
    r
}

/// A pattern with the low `bytes` bytes set.
pub(super) const fn low_mask(bytes: u32) -> u128 {
    if bytes >= 16 { u128::MAX } else { (1 << (bytes * 8)) - 1 }
}

/// The scalar FP type of an S or D lane.
pub(super) const fn fp_type(lane: Lane) -> Type {
    if matches!(lane, Lane::D) { Type::F64 } else { Type::F32 }
}

/// The lane that an FP instruction's `ptype` or `ftype` field selects: S, D, H; `None` for the reserved value.
pub(super) const fn fp_lane(ptype: u32) -> Option<Lane> {
    match ptype {
        0 => Some(Lane::S),
        1 => Some(Lane::D),
        3 => Some(Lane::H),
        _ => None,
    }
}

impl Translator<'_, '_> {
    // ---- registers ----

    /// Writes the low `bytes` of the value, the rest of the register becoming zero.
    pub(super) fn set_v_fit(&mut self, n: u32, bytes: u32, value: Value) {
        let value = self.fit(bytes, value);
        self.set_v(n, value);
    }
    /// The register with everything above `bytes` zero: for operands of FP operations, whose unused lanes must not
    /// raise flags.
    pub(super) fn v_fit(&mut self, n: u32, bytes: u32) -> Value {
        let v = self.v(n);
        self.fit(bytes, v)
    }
    /// Keeps the low `bytes`.
    pub(super) fn fit(&mut self, bytes: u32, value: Value) -> Value {
        match bytes {
            16.. => value,
            8 => self.b.op1(Op::VZeroHi, Type::V128, value, 0, 0),
            _ => {
                let m = self.b.vconst(low_mask(bytes));
                self.b.op2(Op::VAnd, Type::V128, value, m, 0, 0)
            }
        }
    }
    /// S or D register as a scalar.
    pub(super) fn fp(&mut self, n: u32, lane: Lane) -> Value {
        let v = self.v(n);
        self.b.vextract(fp_type(lane), lane, v, 0)
    }
    /// Writes a scalar (F32, F64, I32, I64); the rest of the register becomes zero.
    pub(super) fn set_fp(&mut self, n: u32, value: Value) {
        let v = self.b.vfromscalar(value);
        self.set_v(n, v);
    }
    /// An H register's bits as I32.
    pub(super) fn half(&mut self, n: u32) -> Value {
        let v = self.v(n);
        self.b.vextract(Type::I32, Lane::H, v, 0)
    }
    /// Ors the set bits of `bits` into the sticky saturation slot.
    pub(super) fn or_qc(&mut self, bits: Value) {
        let old = self.b.get(slots::QC);
        let new = self.b.op2(Op::VOr, Type::V128, old, bits, 0, 0);
        self.b.set(slots::QC, new);
    }
    /// The low `bytes` of `exact`; where it differs from `wrapped` there, QC is set.
    pub(super) fn saturated(&mut self, bytes: u32, exact: Value, wrapped: Value) -> Value {
        let diff = self.bits(Op::VXor, exact, wrapped);
        let diff = self.fit(bytes, diff);
        self.or_qc(diff);
        self.fit(bytes, exact)
    }

    // ---- vector operations ----

    pub(super) fn v2(&mut self, op: Op, lane: Lane, a: Value, b: Value) -> Value {
        self.b.v2(op, lane, a, b)
    }
    pub(super) fn v1(&mut self, op: Op, lane: Lane, a: Value) -> Value {
        self.b.v1(op, lane, a)
    }
    pub(super) fn v3(&mut self, op: Op, lane: Lane, a: Value, b: Value, c: Value) -> Value {
        self.b.v3(op, lane, a, b, c)
    }
    /// Bitwise operation.
    pub(super) fn bits(&mut self, op: Op, a: Value, b: Value) -> Value {
        self.b.op2(op, Type::V128, a, b, 0, 0)
    }
    /// Shift by an immediate, which may be the lane's width.
    pub(super) fn vshift(&mut self, op: Op, lane: Lane, a: Value, n: u32) -> Value {
        if n == 0 { a } else { self.b.v1_imm(op, lane, a, n as u64) }
    }
    pub(super) fn vzero(&mut self) -> Value {
        self.b.vconst(0)
    }
    pub(super) fn vsplat(&mut self, lane: Lane, bits: u64) -> Value {
        self.b.vconst(splat(lane, bits))
    }
    /// The upper half moved to the lower, the upper becoming zero.
    pub(super) fn high(&mut self, a: Value) -> Value {
        let mut m = [255; 16];
        for (i, m) in m.iter_mut().take(8).enumerate() {
            *m = 8 + i as u8;
        }
        self.b.shuffle(a, a, m)
    }
    /// The low halves of `lo` and `hi` joined.
    pub(super) fn join(&mut self, lo: Value, hi: Value) -> Value {
        let mut m = [0; 16];
        for (i, m) in m.iter_mut().enumerate() {
            *m = if i < 8 { i } else { 8 + i } as u8;
        }
        self.b.shuffle(lo, hi, m)
    }
    /// The half of a register that an instruction and its "2" form take: lower or, with `q`, upper.
    pub(super) fn half_of(&mut self, n: u32, q: bool) -> Value {
        let v = self.v(n);
        if q { self.high(v) } else { v }
    }
    /// Writes a narrowed result (in the low half of `value`): to the low half, or with `q` to the upper half keeping
    /// the lower.
    pub(super) fn set_narrow(&mut self, n: u32, q: bool, value: Value) {
        let r = if q {
            let old = self.v(n);
            self.join(old, value)
        } else {
            self.fit(8, value)
        };
        self.set_v(n, r);
    }
    /// Elements `first`, `first + step`... of the `bytes` of `a` followed by those of `b`, as many as fit in `bytes`.
    pub(super) fn every_other(&mut self, lane: Lane, bytes: u32, a: Value, b: Value, first: u32) -> Value {
        let size = lane.bytes();
        let per = bytes / size;
        let m = byte_mask(lane, bytes, |i| {
            let at = 2 * i + first;
            if at < per { at } else { at - per + 16 / size }
        });
        self.b.shuffle(a, b, m)
    }
    /// The lanes of `a` permuted: lane `i` of the low `bytes` of the result is lane `f(i)`; the rest is zero.
    pub(super) fn permute(&mut self, lane: Lane, bytes: u32, a: Value, f: impl Fn(u32) -> u32) -> Value {
        self.b.shuffle(a, a, byte_mask(lane, bytes, f))
    }
    /// Lane `index` of `a` in all lanes.
    pub(super) fn dup_lane(&mut self, lane: Lane, a: Value, index: u32) -> Value {
        self.permute(lane, 16, a, |_| index)
    }
    /// Sums of adjacent lanes, each twice as wide.
    pub(super) fn add_pairs_long(&mut self, lane: Lane, unsigned: bool, a: Value) -> Value {
        let wide = wider(lane);
        let n = lane.bits();
        let shr = if unsigned { Op::VShr } else { Op::VSar };
        let even = self.vshift(Op::VShl, wide, a, n);
        let even = self.vshift(shr, wide, even, n);
        let odd = self.vshift(shr, wide, a, n);
        self.v2(Op::VAdd, wide, even, odd)
    }
    /// Calls a helper whose first argument is a descriptor constant.
    pub(super) fn lanes_call(&mut self, helper: HelperId, desc: u32, args: &[Value]) -> Value {
        let d = self.b.iconst(Type::I32, desc as u64);
        match *args {
            [a] => self.b.call(helper, &[d, a]),
            [a, c] => self.b.call(helper, &[d, a, c]),
            [a, c, e] => self.b.call(helper, &[d, a, c, e]),
            _ => self.b.call(helper, &[d]),
        }
    }
}

/// A shuffle mask that takes lane `f(i)` (counted through both operands) for lane `i` of the low `bytes`.
pub(super) fn byte_mask(lane: Lane, bytes: u32, f: impl Fn(u32) -> u32) -> [u8; 16] {
    let size = lane.bytes();
    let mut m = [255u8; 16];
    for i in 0..bytes / size {
        let from = f(i);
        for k in 0..size {
            m[(i * size + k) as usize] = (from * size + k) as u8;
        }
    }
    m
}
