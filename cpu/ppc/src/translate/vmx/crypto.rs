//! AES, SHA-2 and polynomial products (Book I, 6.14, 6.15).

use super::emit::pure;
use crate::translate::{Flow, Insn, Translator};
use crate::vector::VecOp;
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::types::Lane;
use rhea_ir::{Op, Value};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Round {
    Encrypt,
    EncryptLast,
    Decrypt,
    DecryptLast,
}

/// The register's byte 0 to the lowest byte and so on, and back.
fn in_order(t: &mut Translator, v: Value) -> Value {
    t.b.shuffle(v, v, std::array::from_fn(|k| k as u8 ^ 7))
}

pub(super) fn aes(t: &mut Translator, i: Insn, round: Round) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let (s, k) = (in_order(t, a), in_order(t, b));
    let r = match round {
        Round::Encrypt => t.b.simd(SimdOp::AesEnc, Fmt::Ps, &[s, k], 0),
        Round::EncryptLast => t.b.simd(SimdOp::AesEncLast, Fmt::Ps, &[s, k], 0),
        Round::DecryptLast => t.b.simd(SimdOp::AesDecLast, Fmt::Ps, &[s, k], 0),
        // The key is added before the columns are mixed.
        Round::Decrypt => {
            let r = t.b.simd(SimdOp::AesDecLast, Fmt::Ps, &[s, k], 0);
            t.b.simd(SimdOp::AesImc, Fmt::Ps, &[r], 0)
        }
    };
    let r = in_order(t, r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// SubBytes alone: the rows are shifted back first.
pub(super) fn sbox(t: &mut Translator, i: Insn) -> Flow {
    let a = t.vr(i.ra());
    let bytes = std::array::from_fn(|k| ((k % 4 + 4 * ((k / 4 + 4 - k % 4) % 4)) as u8) ^ 7);
    let s = t.b.shuffle(a, a, bytes);
    let zero = t.b.vconst(0);
    let r = t.b.simd(SimdOp::AesEncLast, Fmt::Ps, &[s, zero], 0);
    let r = in_order(t, r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vpmsumd.
pub(super) fn polynomial(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let p = t.b.simd(SimdOp::PClMulQdq, Fmt::Ps, &[a, b], 0);
    let q = t.b.simd(SimdOp::PClMulQdq, Fmt::Ps, &[a, b], 0x11);
    let r = t.vxor(p, q);
    let r = t.swap(r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vshasigmaw, vshasigmad: the function of all lanes is the same in practice.
pub(super) fn sha_sigma(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let (large, six) = (i.rb() >> 4 & 1 != 0, i.rb() & 15);
    // One bit for each word; of those of doublewords every second one counts.
    let (mask, op) = match lane {
        Lane::S => (15, VecOp::ShaSigmaWord),
        _ => (10, VecOp::ShaSigmaDouble),
    };
    let second = match six & mask {
        0 => false,
        n if n == mask => true,
        _ => return pure(t, i, op, i.rb()),
    };
    // Two rotations, and a third one or a shift.
    let (one, two, three) = match (lane, large, second) {
        (Lane::S, false, false) => (7, 18, 3),
        (Lane::S, false, true) => (17, 19, 10),
        (Lane::S, true, false) => (2, 13, 22),
        (Lane::S, true, true) => (6, 11, 25),
        (_, false, false) => (1, 8, 7),
        (_, false, true) => (19, 61, 6),
        (_, true, false) => (28, 34, 39),
        (_, true, true) => (14, 18, 41),
    };
    let a = t.vr(i.ra());
    let mut r = t.b.v1_imm(Op::VShr, lane, a, three);
    let mut add = |t: &mut Translator, op, by| {
        let part = t.b.v1_imm(op, lane, a, by);
        r = t.vxor(r, part);
    };
    let width = u64::from(lane.bits());
    for by in [one, two] {
        add(t, Op::VShr, by);
        add(t, Op::VShl, width - by);
    }
    if large {
        add(t, Op::VShl, width - three);
    }
    t.set_vr(i.rt(), r);
    Flow::Next
}
