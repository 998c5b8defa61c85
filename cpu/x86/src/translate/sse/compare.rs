//! The compare of texts (vol. 2, 4.1.2–4.1.6).

use crate::flags::packed;

/// What the flags and the index are made of: IntRes1, and how many elements of the texts are valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Compared {
    set: u32,
    la: usize,
    lb: usize,
}

/// IntRes2, index << 16, packed flags << 32. Without `lengths` the texts end at an element that is zero.
pub(super) fn text(a: u128, b: u128, imm: u8, lengths: Option<(usize, usize)>) -> u64 {
    let count: usize = if imm & 1 != 0 { 8 } else { 16 };
    #[cfg(target_arch = "x86_64")]
    let host = host::compare(a, b, imm, lengths);
    #[cfg(not(target_arch = "x86_64"))]
    let host = None;
    let Compared { set, la, lb } = host.unwrap_or_else(|| compare(a, b, imm, lengths));
    let all = (1u32 << count) - 1;
    let res = match imm >> 4 & 3 {
        1 => set ^ all,
        // Only valid elements of the second text.
        3 => set ^ ((1u32 << lb) - 1),
        _ => set,
    };
    let index = if res == 0 {
        count as u32
    } else if imm & 0x40 != 0 {
        31 - res.leading_zeros()
    } else {
        res.trailing_zeros()
    };
    let mut flags = 0;
    for (holds, flag) in
        [(res != 0, packed::C), (lb < count, packed::Z), (la < count, packed::N), (res & 1 != 0, packed::V)]
    {
        flags |= if holds { flag } else { 0 };
    }
    u64::from(res) | u64::from(index) << 16 | u64::from(flags) << 32
}

fn compare(a: u128, b: u128, imm: u8, lengths: Option<(usize, usize)>) -> Compared {
    let words = imm & 1 != 0;
    let signed = imm & 2 != 0;
    let count: usize = if words { 8 } else { 16 };
    let at = |v: u128, n: usize| -> i32 {
        if words {
            let x = (v >> (16 * n)) as u16;
            if signed { i32::from(x as i16) } else { i32::from(x) }
        } else {
            let x = (v >> (8 * n)) as u8;
            if signed { i32::from(x as i8) } else { i32::from(x) }
        }
    };
    let end = |v: u128| (0..count).find(|&n| at(v, n) == 0).unwrap_or(count);
    let (la, lb) = lengths.map_or_else(|| (end(a), end(b)), |(x, y)| (x.min(count), y.min(count)));
    let mut set = 0u32;
    for j in 0..count {
        let holds = match imm >> 2 & 3 {
            // Equal any.
            0 => j < lb && (0..la).any(|i| at(a, i) == at(b, j)),
            // Ranges: pairs of the first text. A pair with an invalid bound holds nothing.
            1 => j < lb && (0..la / 2).any(|i| at(a, 2 * i) <= at(b, j) && at(b, j) <= at(a, 2 * i + 1)),
            // Equal each: beyond both ends counts as equal.
            2 => match (j < la, j < lb) {
                (true, true) => at(a, j) == at(b, j),
                (false, false) => true,
                _ => false,
            },
            // Equal ordered: the first text at this place of the second, as far as that register goes.
            _ => (0..count - j).all(|i| i >= la || (i + j < lb && at(a, i) == at(b, i + j))),
        };
        set |= u32::from(holds) << j;
    }
    Compared { set, la, lb }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "functions that need a host feature are called after the feature was detected")]
mod host {
    use super::Compared;
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cmpeq_epi16, _mm_cmpestrm, _mm_cvtsi128_si32, _mm_movemask_epi8, _mm_set_epi64x,
        _mm_setzero_si128,
    };

    #[target_feature(enable = "sse2")]
    fn vector(v: u128) -> __m128i {
        _mm_set_epi64x((v >> 64) as i64, v as i64)
    }

    /// Elements before the first that is zero.
    #[target_feature(enable = "sse2")]
    fn end(v: __m128i, words: bool) -> usize {
        let zero = _mm_setzero_si128();
        let bytes = if words { _mm_cmpeq_epi16(v, zero) } else { _mm_cmpeq_epi8(v, zero) };
        let first = (_mm_movemask_epi8(bytes) as u32 | 1 << 16).trailing_zeros() as usize;
        if words { first / 2 } else { first }
    }

    #[target_feature(enable = "sse4.2")]
    fn with_unit(a: u128, b: u128, imm: u8, lengths: Option<(usize, usize)>) -> Compared {
        let words = imm & 1 != 0;
        let count = if words { 8 } else { 16 };
        let (a, b) = (vector(a), vector(b));
        let (la, lb) = lengths.map_or_else(|| (end(a, words), end(b, words)), |(x, y)| (x.min(count), y.min(count)));
        let (m, n) = (la as i32, lb as i32);
        // The format and the operation; IntRes1 as bits.
        macro_rules! operations {
            ($($imm:literal)*) => {
                match imm & 15 {
                    $($imm => _mm_cmpestrm::<$imm>(a, m, b, n),)*
                    _ => _mm_cmpestrm::<15>(a, m, b, n),
                }
            };
        }
        let set = operations!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        Compared { set: _mm_cvtsi128_si32(set) as u32, la, lb }
    }

    #[inline]
    pub(super) fn compare(a: u128, b: u128, imm: u8, lengths: Option<(usize, usize)>) -> Option<Compared> {
        if std::arch::is_x86_feature_detected!("sse4.2") {
            // SAFETY: the host has SSE4.2, as just asked.
            Some(unsafe { with_unit(a, b, imm, lengths) })
        } else {
            None
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{compare, host};

    #[test]
    fn the_unit_compares_as_written_here() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            seed >> 32
        };
        for _ in 0..20_000 {
            // Few different elements, ends among them.
            let mut operand =
                || (0..16).fold(0u128, |v, _| v << 8 | [0, 1, 2, 0x7f, 0x80, 0xff][random() as usize % 6]);
            let (a, b) = (operand(), operand());
            let (imm, x) = (random() as u8 & 0x7f, random());
            let lengths = (x & 1 != 0).then_some(((x >> 1) as usize % 20, (x >> 8) as usize % 20));
            let Some(unit) = host::compare(a, b, imm, lengths) else { return };
            assert_eq!(unit, compare(a, b, imm, lengths), "{a:032x} {b:032x} {imm:#x} {lengths:?}");
        }
    }
}
