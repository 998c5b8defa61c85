//! AES, SHA, SM3 and SM4 instructions.

use super::{Done, helpers};
use crate::config::Feature;
use crate::translate::{Insn, Translator};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{HelperId, Lane, Op, Type, Value};

/// AES: two registers; SHA two-register in `sha_two`.
pub(super) fn aes(t: &mut Translator, i: Insn) -> Done {
    if i.bits(22, 2) != 0 || !t.cfg.has(Feature::Aes) {
        return None;
    }
    let (n, none) = (t.v(i.rn()), t.b.vconst(0));
    // SubBytes and ShiftRows, or their inverses, are a last round with a key of 0.
    let last = |t: &mut Translator, op, d| {
        let state = t.bits(Op::VXor, d, n);
        round(t, op, state, none)
    };
    let r = match i.bits(12, 5) {
        4 => {
            let d = t.v(i.rd());
            last(t, SimdOp::AesEncLast, d)
        }
        5 => {
            let d = t.v(i.rd());
            last(t, SimdOp::AesDecLast, d)
        }
        6 => {
            // MixColumns of that is another round; else what comes before it in one is undone first.
            let before = *t.b.func.inst(n);
            let encrypted = before.op == Op::Simd2 && SimdOp::of(before.aux) == Some(SimdOp::AesEncLast);
            let state = match before.args[0] {
                state if encrypted && before.args[1] == none => state,
                _ => round(t, SimdOp::AesDecLast, n, none),
            };
            round(t, SimdOp::AesEnc, state, none)
        }
        7 => t.b.simd(SimdOp::AesImc, Fmt::Ps, &[n], 0),
        _ => return None,
    };
    t.set_v(i.rd(), r);
    Some(())
}

fn round(t: &mut Translator, op: SimdOp, state: Value, key: Value) -> Value {
    t.b.simd(op, Fmt::Ps, &[state, key], 0)
}

/// A shuffle of words: those of `a` are 0 to 3, those of `b` 4 to 7.
fn words(t: &mut Translator, a: Value, b: Value, from: [u8; 4]) -> Value {
    t.b.shuffle(a, b, std::array::from_fn(|n| from[n / 4] * 4 + n as u8 % 4))
}

/// Four rounds of SHA-256: the state's words a to d and e to h, each the lowest first, after them.
fn sha256_rounds(t: &mut Translator, abcd: Value, efgh: Value, w: Value) -> (Value, Value) {
    // Two rounds at a time, of the words c, d, g, h and a, b, e, f, each the highest first; the latter are the next two's former.
    let cdgh = words(t, abcd, efgh, [7, 6, 3, 2]);
    let abef = words(t, abcd, efgh, [5, 4, 1, 0]);
    let two = t.b.simd(SimdOp::Sha256Rnds2, Fmt::Ps, &[cdgh, abef, w], 0);
    let w = words(t, w, w, [2, 3, 2, 3]);
    let four = t.b.simd(SimdOp::Sha256Rnds2, Fmt::Ps, &[abef, two, w], 0);
    (words(t, four, two, [3, 2, 7, 6]), words(t, four, two, [1, 0, 5, 4]))
}

/// Helpers of (Vd, Vn) or (Vn).
fn one_or_two(t: &mut Translator, i: Insn, h: HelperId, with_d: bool) {
    let n = t.v(i.rn());
    let r = if with_d {
        let d = t.v(i.rd());
        t.b.call(h, &[d, n])
    } else {
        t.b.call(h, &[n])
    };
    t.set_v(i.rd(), r);
}

/// Helpers of (Vd, Vn, Vm).
fn three(t: &mut Translator, i: Insn, h: HelperId) {
    let (d, n, m) = (t.v(i.rd()), t.v(i.rn()), t.v(i.rm()));
    let r = t.b.call(h, &[d, n, m]);
    t.set_v(i.rd(), r);
}

/// SHA1 and SHA256, three registers.
pub(super) fn sha_three(t: &mut Translator, i: Insn) -> Done {
    let op = i.bits(12, 3);
    let f = if op < 4 { Feature::Sha1 } else { Feature::Sha256 };
    if i.bits(22, 2) != 0 || op == 7 || !t.cfg.has(f) {
        return None;
    }
    let (d, n, m) = (t.v(i.rd()), t.v(i.rn()), t.v(i.rm()));
    let r = match op {
        0..=2 => {
            // The hash is one word.
            let n = t.b.vextract(Type::I32, Lane::S, n, 0);
            t.b.call([helpers::SHA1C, helpers::SHA1P, helpers::SHA1M][op as usize], &[d, n, m])
        }
        3 => t.b.call(helpers::SHA1SU0, &[d, n, m]),
        4 => sha256_rounds(t, d, n, m).0,
        5 => sha256_rounds(t, n, d, m).1,
        _ => {
            let next = words(t, n, m, [1, 2, 3, 4]);
            let sum = t.b.v2(Op::VAdd, Lane::S, d, next);
            t.b.simd(SimdOp::Sha256Msg2, Fmt::Ps, &[sum, m], 0)
        }
    };
    t.set_v(i.rd(), r);
    Some(())
}

/// SHA1 and SHA256, two registers.
pub(super) fn sha_two(t: &mut Translator, i: Insn) -> Done {
    let op = i.bits(12, 5);
    let f = if op < 2 { Feature::Sha1 } else { Feature::Sha256 };
    if i.bits(22, 2) != 0 || op > 2 || !t.cfg.has(f) {
        return None;
    }
    match op {
        0 => {
            let v = t.v(i.rn());
            let x = t.b.vextract(Type::I32, Lane::S, v, 0);
            let c = t.c32(2);
            let x = t.b.bin(Op::Rotr, x, c);
            t.set_fp(i.rd(), x);
        }
        1 => one_or_two(t, i, helpers::SHA1SU1, true),
        _ => {
            let (d, n) = (t.v(i.rd()), t.v(i.rn()));
            let r = t.b.simd(SimdOp::Sha256Msg1, Fmt::Ps, &[d, n], 0);
            t.set_v(i.rd(), r);
        }
    }
    Some(())
}

/// SHA512, RAX1, SM3 message expansion and SM4 key, three registers.
pub(super) fn sha512_three(t: &mut Translator, i: Insn) -> Done {
    let (f, h) = match (i.bit(14), i.bits(10, 2)) {
        (false, 0) => (Feature::Sha512, helpers::SHA512H),
        (false, 1) => (Feature::Sha512, helpers::SHA512H2),
        (false, 2) => (Feature::Sha512, helpers::SHA512SU1),
        (false, _) => {
            if !t.cfg.has(Feature::Sha3) {
                return None;
            }
            let (a, b) = (t.v(i.rn()), t.v(i.rm()));
            let (l, h) = (t.vshift(Op::VShl, Lane::D, b, 1), t.vshift(Op::VShr, Lane::D, b, 63));
            let b = t.bits(Op::VOr, l, h);
            let r = t.bits(Op::VXor, a, b);
            t.set_v(i.rd(), r);
            return Some(());
        }
        (true, 0) => (Feature::Sm3, helpers::SM3PARTW1),
        (true, 1) => (Feature::Sm3, helpers::SM3PARTW2),
        (true, 2) => {
            if !t.cfg.has(Feature::Sm4) {
                return None;
            }
            let (n, m) = (t.v(i.rn()), t.v(i.rm()));
            let r = t.b.call(helpers::SM4EKEY, &[n, m]);
            t.set_v(i.rd(), r);
            return Some(());
        }
        _ => return None,
    };
    if !t.cfg.has(f) {
        return None;
    }
    three(t, i, h);
    Some(())
}

/// SHA512SU0, SM4E.
pub(super) fn sha512_two(t: &mut Translator, i: Insn) -> Done {
    let (f, h) = match i.bits(10, 2) {
        0 => (Feature::Sha512, helpers::SHA512SU0),
        1 => (Feature::Sm4, helpers::SM4E),
        _ => return None,
    };
    if !t.cfg.has(f) {
        return None;
    }
    one_or_two(t, i, h, true);
    Some(())
}

/// EOR3, BCAX, SM3SS1.
pub(super) fn four_registers(t: &mut Translator, i: Insn) -> Done {
    let f = if i.bits(21, 2) == 2 { Feature::Sm3 } else { Feature::Sha3 };
    if i.bits(21, 2) == 3 || !t.cfg.has(f) {
        return None;
    }
    let (n, m, a) = (t.v(i.rn()), t.v(i.rm()), t.v(i.ra()));
    let r = match i.bits(21, 2) {
        0 => {
            let x = t.bits(Op::VXor, n, m);
            t.bits(Op::VXor, x, a)
        }
        1 => {
            let x = t.bits(Op::VAndNot, m, a);
            t.bits(Op::VXor, n, x)
        }
        _ => t.b.call(helpers::SM3SS1, &[n, m, a]),
    };
    t.set_v(i.rd(), r);
    Some(())
}

/// XAR.
pub(super) fn xor_rotate(t: &mut Translator, i: Insn) -> Done {
    let (n, m, by) = (t.v(i.rn()), t.v(i.rm()), i.bits(10, 6));
    let mut r = t.bits(Op::VXor, n, m);
    if by != 0 {
        let (lo, hi) = (t.vshift(Op::VShr, Lane::D, r, by), t.vshift(Op::VShl, Lane::D, r, 64 - by));
        r = t.bits(Op::VOr, lo, hi);
    }
    t.set_v(i.rd(), r);
    Some(())
}

/// SM3TT1A, SM3TT1B, SM3TT2A, SM3TT2B.
pub(super) fn sm3tt(t: &mut Translator, i: Insn) -> Done {
    let h = [helpers::SM3TT1A, helpers::SM3TT1B, helpers::SM3TT2A, helpers::SM3TT2B][i.bits(10, 2) as usize];
    let (d, n, m) = (t.v(i.rd()), t.v(i.rn()), t.v(i.rm()));
    let index = t.c32(i.bits(12, 2));
    let r = t.b.call(h, &[d, n, m, index]);
    t.set_v(i.rd(), r);
    Some(())
}
