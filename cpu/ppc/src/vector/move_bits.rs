//! Bits and bytes moved about.

use super::{Operands, el, make, put};

/// Bits of `v` where the mask has zeros to the left, where it has ones to the right.
pub fn centrifuge(v: u64, mask: u64) -> u64 {
    let ones = extract(v, mask);
    let n = mask.count_ones();
    let zeros = extract(v, !mask);
    if n == 64 { ones } else { zeros << n | ones }
}

/// The bits under the mask, to the right.
pub fn extract(v: u64, mut mask: u64) -> u64 {
    let (mut r, mut n) = (0, 0);
    while mask != 0 {
        let low = mask.trailing_zeros();
        r |= (v >> low & 1) << n;
        n += 1;
        mask &= mask - 1;
    }
    r
}

/// The low bits to the places of the mask.
pub fn deposit(v: u64, mut mask: u64) -> u64 {
    let (mut r, mut n) = (0, 0);
    while mask != 0 {
        let low = mask.trailing_zeros();
        r |= (v >> n & 1) << low;
        n += 1;
        mask &= mask - 1;
    }
    r
}

/// Zeros of `v` before its first one, of the bits under the mask only.
pub fn count_masked(v: u64, mask: u64, leading: bool) -> u32 {
    let bits = extract(v, mask);
    let n = mask.count_ones();
    if n == 0 {
        0
    } else if leading {
        (bits << (64 - n)).leading_zeros().min(n)
    } else {
        bits.trailing_zeros().min(n)
    }
}

/// vgnb: every imm-th bit, gathered to the left of a doubleword.
pub(super) fn gather_nth(o: &mut Operands) -> u128 {
    let n = o.imm.clamp(2, 7);
    let (mut r, mut k, mut at) = (0u64, 63u32, 0u32);
    while at < 128 {
        r |= ((o.b >> (127 - at)) as u64 & 1) << k;
        k = k.wrapping_sub(1) & 63;
        at += n;
    }
    u128::from(r)
}

pub(super) fn bit_permute_d(o: &mut Operands) -> u128 {
    make(64, |d| {
        (0..8).fold(0u128, |r, i| {
            let at = el(o.b, 8, 8 * d + i) as u32;
            r << 1 | if at < 64 { el(o.a, 64, d) >> (63 - at) & 1 } else { 0 }
        })
    })
}

pub fn sha_sigma32(v: u32, st: u32, six: u32) -> u32 {
    let r = |n| v.rotate_right(n);
    match (st, six) {
        (0, 0) => r(7) ^ r(18) ^ v >> 3,
        (0, _) => r(17) ^ r(19) ^ v >> 10,
        (_, 0) => r(2) ^ r(13) ^ r(22),
        _ => r(6) ^ r(11) ^ r(25),
    }
}

pub fn sha_sigma64(v: u64, st: u32, six: u32) -> u64 {
    let r = |n| v.rotate_right(n);
    match (st, six) {
        (0, 0) => r(1) ^ r(8) ^ v >> 7,
        (0, _) => r(19) ^ r(61) ^ v >> 6,
        (_, 0) => r(28) ^ r(34) ^ r(39),
        _ => r(14) ^ r(18) ^ r(41),
    }
}

/// vextublx and its like: imm: log2 of the bytes | 8 from the right | index << 8. The element, zero-extended.
pub(super) fn extract_indexed(o: &mut Operands) -> u128 {
    let (bytes, index) = (1 << (o.imm & 3), o.imm >> 8 & 15);
    let mask = (1u128 << (8 * bytes)) - 1;
    if o.imm & 8 != 0 {
        o.b >> (8 * index) & mask
    } else {
        // Bytes past the right end are zero.
        let last = index + bytes;
        if last <= 16 { o.b >> (128 - 8 * last) & mask } else { o.b << (8 * (last - 16)) & mask }
    }
}

/// vextdubvlx and its like: of 32 bytes `a:b`, imm: log2 of the bytes | 8 from the right | index << 8, into doubleword 0.
pub(super) fn extract_double_indexed(o: &mut Operands) -> u128 {
    let (bytes, index) = (1 << (o.imm & 3), o.imm >> 8 & 31);
    let first = if o.imm & 8 != 0 { 32i32 - bytes - index as i32 } else { index as i32 };
    if first < 0 || first + bytes > 32 {
        return 0;
    }
    let byte = |k: u32| if k < 16 { el(o.a, 8, k) } else { el(o.b, 8, k - 16) };
    (0..bytes as u32).fold(0, |r, k| r << 8 | byte(first as u32 + k)) << 64
}

/// vinsblx, vinsbvlx, vinsw and their like: the low bytes of `a`'s doubleword 0 into `c` at the byte index; imm: log2 of the bytes
/// | 8 from the right | index << 8.
pub(super) fn insert_indexed(o: &mut Operands) -> u128 {
    let (bytes, index) = (1u32 << (o.imm & 3), o.imm >> 8 & 0xff);
    if index + bytes > 16 {
        return o.c;
    }
    let first = if o.imm & 8 != 0 { 16 - bytes - index } else { index };
    let mask = (1u128 << (8 * bytes)) - 1;
    let shift = 128 - 8 * (first + bytes);
    o.c & !(mask << shift) | (o.a >> 64 & mask) << shift
}

/// vstribl and its like: elements up to the first zero; imm: 1 halfwords | 2 from the right.
pub(super) fn isolate_string(o: &mut Operands) -> u128 {
    let bits = if o.imm & 1 != 0 { 16 } else { 8 };
    let n = 128 / bits;
    let (mut r, mut found) = (0, false);
    for k in 0..n {
        let i = if o.imm & 2 != 0 { n - 1 - k } else { k };
        let v = el(o.b, bits, i);
        if v == 0 {
            found = true;
            break;
        }
        r |= put(v, bits, i);
    }
    o.cr6 = Some(if found { 2 } else { 0 });
    r
}

/// xxgenpcv*: imm: log2 of the bytes | IMM << 4.
pub(super) fn generate_permute(o: &mut Operands) -> u128 {
    let (bytes, imm) = (1u32 << (o.imm & 3), o.imm >> 4);
    let n = 16 / bytes;
    let set = |i: u32| el(o.b, 8 * bytes, i) >> (8 * bytes - 1) != 0;
    let (little, compress) = (imm & 2 != 0, imm & 1 != 0);
    // The element number in the order that the control vector is for.
    let place = |k: u32| if little { n - 1 - k } else { k };
    let mut r = 0;
    let mut j = 0;
    for k in 0..n {
        let i = place(k);
        if compress {
            if !set(i) {
                continue;
            }
            for b in 0..bytes {
                let source = if little { k * bytes + (bytes - 1 - b) } else { k * bytes + b };
                r |= put(u128::from(source), 8, place(j) * bytes + b);
            }
            j += 1;
        } else if set(i) {
            for b in 0..bytes {
                let source = if little { j * bytes + (bytes - 1 - b) } else { j * bytes + b };
                r |= put(u128::from(source), 8, i * bytes + b);
            }
            j += 1;
        } else {
            for b in 0..bytes {
                let source = if little { k * bytes + (bytes - 1 - b) } else { k * bytes + b } + 16;
                r |= put(u128::from(source), 8, i * bytes + b);
            }
        }
    }
    r
}
