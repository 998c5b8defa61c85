//! What vector instructions share: permutes by the manual's byte numbers, helpers, saturation, CR6.

use super::helpers;
use crate::state::slots;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_ir::{Lane, Op, Type, Value};

/// A byte of a permute that becomes zero.
pub const ZERO: u8 = 0xff;

/// The host's byte of the manual's byte (0–31) of two registers.
const fn host(byte: u8) -> u8 {
    if byte > 31 { 0xff } else { byte & 16 | (byte & 15) ^ 7 }
}

/// A 128-bit pattern with `bits` in each lane.
pub const fn splat(lane: Lane, bits: u64) -> u128 {
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

/// A register's constant from the manual's number.
pub const fn register(v: u128) -> u128 {
    v.rotate_left(64)
}

impl Translator<'_, '_> {
    /// Bytes of `a` (0–15) and `b` (16–31), numbered as the manual does; [`ZERO`] gives zero.
    pub fn permute(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let mut mask = [0u8; 16];
        for (k, &s) in bytes.iter().enumerate() {
            mask[k ^ 7] = host(s);
        }
        self.b.shuffle(a, b, mask)
    }
    /// The same from a function of the byte's number.
    pub fn permute_by(&mut self, a: Value, b: Value, f: impl Fn(u8) -> u8) -> Value {
        self.permute(a, b, std::array::from_fn(|k| f(k as u8)))
    }
    /// Doublewords exchanged.
    pub fn swap(&mut self, v: Value) -> Value {
        self.b.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])
    }
    pub fn vxor(&mut self, a: Value, b: Value) -> Value {
        self.b.op2(Op::VXor, Type::V128, a, b, 0, 0)
    }
    pub fn vand(&mut self, a: Value, b: Value) -> Value {
        self.b.op2(Op::VAnd, Type::V128, a, b, 0, 0)
    }
    pub fn vor(&mut self, a: Value, b: Value) -> Value {
        self.b.op2(Op::VOr, Type::V128, a, b, 0, 0)
    }
    pub fn vnot(&mut self, a: Value) -> Value {
        self.b.op1(Op::VNot, Type::V128, a, 0, 0)
    }

    /// The descriptor that vector helpers take.
    pub fn vec_desc(op: VecOp, imm: u32) -> u32 {
        op as u32 | imm << 8
    }
    /// An operation by its helper, without other effects.
    pub fn vec_pure(&mut self, op: VecOp, imm: u32, v: [Value; 3]) -> Value {
        let d = self.c32(Self::vec_desc(op, imm));
        self.b.call(helpers::PURE, &[d, v[0], v[1], v[2]])
    }
    /// The same with a part of the descriptor known at run time only (I32, added to it).
    pub fn vec_pure_with(&mut self, op: VecOp, imm: u32, more: Value, v: [Value; 3]) -> Value {
        let d = self.c32(Self::vec_desc(op, imm));
        let d = self.b.add(d, more);
        self.b.call(helpers::PURE, &[d, v[0], v[1], v[2]])
    }
    /// An operation by its helper, which may saturate (VSCR.SAT) and may write CR6 if `cr6`.
    pub fn vec_state(&mut self, op: VecOp, imm: u32, cr6: bool, v: [Value; 3]) -> Value {
        let flush = self.mode.vscr_nj();
        let d = self.c32(Self::vec_desc(op, imm) | u32::from(flush) << 31 | u32::from(cr6) << 30);
        self.b.call(helpers::STATE, &[d, v[0], v[1], v[2]])
    }

    /// Saturation happened wherever the two results differ.
    pub fn saturated(&mut self, exact: Value, got: Value) {
        let diff = self.vxor(exact, got);
        let old = self.b.get(slots::SAT);
        let new = self.vor(old, diff);
        self.b.set(slots::SAT, new);
    }

    /// CR6 (field 6) from a compare's result: all true, none true.
    pub fn cr6(&mut self, r: Value) {
        let any = self.b.op1(Op::VAnyTrue, Type::Bool, r, 0, 0);
        let not = self.vnot(r);
        let some_false = self.b.op1(Op::VAnyTrue, Type::Bool, not, 0, 0);
        let all = self.not(some_false);
        let none = self.not(any);
        let zero = self.cbool(false);
        self.set_cr_field(6, [all, zero, none, zero]);
    }
    /// A doubleword to a GPR.
    pub fn doubleword(&mut self, v: Value, n: u32) -> Value {
        self.b.vextract(Type::I64, Lane::D, v, n)
    }
}

/// `VRT ← op(VRA, VRB)` on lanes.
pub(super) fn lanes(t: &mut Translator, i: Insn, op: Op, lane: Lane) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.b.v2(op, lane, a, b);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// `VRT ← op(VRA, VRB)` by a helper.
pub(super) fn pure(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_pure(op, imm, [a, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// `VRT ← op(VRA, VRB, VRC)` by a helper.
pub(super) fn pure3(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rc_reg()));
    let r = t.vec_pure(op, imm, [a, b, c]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// `VRT ← op(VRA, VRB, VRT)` by a helper.
pub(super) fn pure_into(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rt()));
    let r = t.vec_pure(op, imm, [a, b, c]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// An operation that may saturate.
pub(super) fn saturating(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_state(op, imm, false, [a, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

pub(super) fn saturating3(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b, c) = (t.vr(i.ra()), t.vr(i.rb()), t.vr(i.rc_reg()));
    let r = t.vec_state(op, imm, false, [a, b, c]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// An operation with a result in CR6.
pub(super) fn recording(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.vec_state(op, imm, true, [a, b, b]);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// A helper's result, a number, to a GPR.
pub(super) fn to_gpr(t: &mut Translator, i: Insn, op: VecOp, imm: u32) -> Flow {
    let b = t.vr(i.rb());
    let r = t.vec_pure(op, imm, [b, b, b]);
    let r = t.doubleword(r, 1);
    t.set_r(i.rt(), r);
    Flow::Next
}
