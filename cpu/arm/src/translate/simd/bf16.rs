//! BFloat16 dot products and multiplies.

use super::{Done, helpers};
use crate::simd_helpers::desc::Desc;
use crate::simd_helpers::fp::CvtOp;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, Value};

fn accumulate(t: &mut Translator, i: Insn, op: CvtOp, bytes: u32, x: Value, y: Value) {
    let acc = t.v(i.rd());
    let r = t.lanes_call(helpers::CVT3, Desc::new(op as u32, Lane::S, bytes).0, &[acc, x, y]);
    t.set_v(i.rd(), r);
}

/// BFMLALB, BFMLALT take the even or odd elements.
fn multiply_long(t: &mut Translator, i: Insn, x: Value, y: Value) {
    // The Q bit selects bottom or top; all four lanes are written.
    let op = if i.q() { CvtOp::Bf16MulTop } else { CvtOp::Bf16MulBottom };
    accumulate(t, i, op, 16, x, y);
}

/// BFDOT, BFMLALB, BFMLALT (vector).
pub(super) fn three_same(t: &mut Translator, i: Insn) {
    let (x, y) = (t.v(i.rn()), t.v(i.rm()));
    if i.bit(23) {
        multiply_long(t, i, x, y);
    } else {
        accumulate(t, i, CvtOp::Bf16Dot, if i.q() { 16 } else { 8 }, x, y);
    }
}

/// BFMMLA.
pub(super) fn matrix(t: &mut Translator, i: Insn) {
    let (x, y) = (t.v(i.rn()), t.v(i.rm()));
    accumulate(t, i, CvtOp::Bf16Matrix, 16, x, y);
}

/// BFDOT, BFMLALB, BFMLALT (by element).
pub(super) fn by_element(t: &mut Translator, i: Insn) -> Done {
    let (h, l, m) = (i.bits(11, 1), i.bits(21, 1), i.bits(20, 1));
    let x = t.v(i.rn());
    if i.bits(22, 2) == 3 {
        let y = t.v(i.rm() & 15);
        let y = t.dup_lane(Lane::H, y, h << 2 | l << 1 | m);
        multiply_long(t, i, x, y);
    } else {
        let y = t.v(i.rm());
        let y = t.dup_lane(Lane::S, y, h << 1 | l);
        accumulate(t, i, CvtOp::Bf16Dot, if i.q() { 16 } else { 8 }, x, y);
    }
    Some(())
}
