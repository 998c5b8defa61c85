//! AES and polynomial products (Book I, 6.14, 6.15).

use crate::translate::{Flow, Insn, Translator};
use rhea_ir::Value;
use rhea_ir::simd::{Fmt, SimdOp};

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
