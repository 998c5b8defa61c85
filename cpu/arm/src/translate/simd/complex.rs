//! Complex number operations: FCMLA, FCADD.

use super::Done;
use super::access::splat;
use super::fp_vector::ADD;
use crate::config::Feature;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Op, Value};

/// Signs of the even (`even`) and odd (`odd`) lanes of a vector.
fn sign_pattern(lane: Lane, even: bool, odd: bool) -> u128 {
    let signs = splat(lane, 1 << (lane.bits() - 1));
    // Ones in the even lanes.
    let evens = match lane {
        Lane::H => splat(Lane::S, 0xffff),
        Lane::S => splat(Lane::D, 0xffff_ffff),
        _ => u64::MAX as u128,
    };
    (if even { signs & evens } else { 0 }) | if odd { signs & !evens } else { 0 }
}

/// Accumulates the products of FCMLA with rotation `rot` (quarter turns); `y` has its pairs in place.
fn multiply_add(t: &mut Translator, i: Insn, lane: Lane, rot: u32, x: Value, y: Value) {
    let bytes = if i.q() { 16 } else { 8 };
    // Turns 0 and 2 take the real part of the first operand, 1 and 3 the imaginary one and the second operand's
    // parts exchanged.
    let odd = rot & 1;
    let x = t.permute(lane, bytes, x, |k| (k & !1) + odd);
    let y = if odd != 0 { t.permute(lane, bytes, y, |k| k ^ 1) } else { t.fit(bytes, y) };
    let (neg_even, neg_odd) = match rot {
        0 => (false, false),
        1 => (true, false),
        2 => (true, true),
        _ => (false, true),
    };
    let signs = t.b.vconst(sign_pattern(lane, neg_even, neg_odd));
    let y = t.bits(Op::VXor, y, signs);
    let y = t.fit(bytes, y);
    let c = t.v_fit(i.rd(), bytes);
    let r = t.fop_mul_add(lane, bytes, x, y, c);
    t.set_v_fit(i.rd(), bytes, r);
}

/// FCMLA and FCADD (vector).
pub(super) fn three_same(t: &mut Translator, i: Insn) -> Done {
    let (op, size, q) = (i.bits(11, 4), i.bits(22, 2), i.q());
    let lane = Lane::from_size(size);
    if size == 0 || (size == 3 && !q) || (size == 1 && !t.cfg.has(Feature::Fp16)) {
        return None;
    }
    let bytes = if q { 16 } else { 8 };
    let (x, y) = (t.v_fit(i.rn(), bytes), t.v_fit(i.rm(), bytes));
    if op < 12 {
        multiply_add(t, i, lane, op & 3, x, y);
        return Some(());
    }
    // A quarter turn forward negates the imaginary part, which is added to the real one; backward the other.
    let forward = op == 12;
    let y = t.permute(lane, bytes, y, |k| k ^ 1);
    let signs = t.b.vconst(sign_pattern(lane, forward, !forward));
    let y = t.bits(Op::VXor, y, signs);
    let y = t.fit(bytes, y);
    let r = t.fop2(ADD, lane, bytes, x, y);
    t.set_v_fit(i.rd(), bytes, r);
    Some(())
}

/// FCMLA (by element).
pub(super) fn by_element(t: &mut Translator, i: Insn) -> Done {
    let (q, rot, h, l) = (i.q(), i.bits(13, 2), i.bits(11, 1), i.bits(21, 1));
    let (lane, index) = match i.bits(22, 2) {
        1 if t.cfg.has(Feature::Fp16) && (q || h == 0) => (Lane::H, h << 1 | l),
        2 if l == 0 && q => (Lane::S, h),
        _ => return None,
    };
    if !t.cfg.has(Feature::Fcma) {
        return None;
    }
    let (x, y) = (t.v(i.rn()), t.v(i.rm()));
    let y = t.permute(lane, if q { 16 } else { 8 }, y, |k| 2 * index + (k & 1));
    multiply_add(t, i, lane, rot, x, y);
    Some(())
}
