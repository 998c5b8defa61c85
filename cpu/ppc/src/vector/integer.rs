//! Integer elements.

use super::{Operands, el, make, sel};

/// vpk*: imm: log2 of the source's bits | 8 source signed | 16 result signed.
pub(super) fn pack(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    let (half, n) = (bits / 2, 128 / bits);
    let (from_signed, to_signed) = (o.imm & 8 != 0, o.imm & 16 != 0);
    o.each(half, |o, i| {
        let v = if i < n { o.a } else { o.b };
        let x = if from_signed { sel(v, bits, i % n) } else { el(v, bits, i % n) as i128 };
        if to_signed { o.sats(x, half) } else { o.satu(x, half) }
    })
}

pub(super) fn pack_pixel(o: &mut Operands) -> u128 {
    make(16, |i| {
        let w = el(if i < 4 { o.a } else { o.b }, 32, i % 4);
        w >> 9 & 0xfc00 | w >> 6 & 0x3e0 | w >> 3 & 0x1f
    })
}

/// vupkhpx, vupklpx (imm 1).
pub(super) fn unpack_pixel(o: &mut Operands) -> u128 {
    make(32, |i| {
        let h = el(o.b, 16, i + 4 * (o.imm & 1));
        let top = if h & 0x8000 != 0 { 0xff00_0000 } else { 0 };
        top | (h >> 10 & 31) << 16 | (h >> 5 & 31) << 8 | h & 31
    })
}

/// The carry out of `a + b + c`.
pub(super) fn carry(a: u128, b: u128, c: u128) -> u128 {
    let (s, x) = a.overflowing_add(b);
    let (_, y) = s.overflowing_add(c);
    u128::from(x || y)
}

/// imm: log2 of the bits | 8 signed | 16 even elements.
pub(super) fn mul_widen(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    let odd = u32::from(o.imm & 16 == 0);
    make(2 * bits, |i| {
        let k = 2 * i + odd;
        if o.imm & 8 != 0 {
            sel(o.a, bits, k).wrapping_mul(sel(o.b, bits, k)) as u128
        } else {
            el(o.a, bits, k).wrapping_mul(el(o.b, bits, k))
        }
    })
}

pub(super) fn mul_high(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    make(bits, |i| {
        if o.imm & 8 != 0 {
            (sel(o.a, bits, i).wrapping_mul(sel(o.b, bits, i)) >> bits) as u128
        } else {
            el(o.a, bits, i).wrapping_mul(el(o.b, bits, i)) >> bits
        }
    })
}

/// vmhaddshs, vmhraddshs.
pub(super) fn mul_high_add(o: &mut Operands, round: i128) -> u128 {
    o.each(16, |o, i| {
        let p = (sel(o.a, 16, i) * sel(o.b, 16, i) + round) >> 15;
        let v = p + sel(o.c, 16, i);
        o.sats(v, 16)
    })
}

pub(super) fn sum_products_u(o: &Operands, i: u32) -> i128 {
    let p = |k: u32| (el(o.a, 16, 2 * i + k) * el(o.b, 16, 2 * i + k)) as i128;
    p(0) + p(1) + el(o.c, 32, i) as i128
}

pub(super) fn sum_products_s(o: &Operands, i: u32) -> i128 {
    let p = |k: u32| sel(o.a, 16, 2 * i + k) * sel(o.b, 16, 2 * i + k);
    p(0) + p(1) + sel(o.c, 32, i)
}

/// vmsumcud: the carry out of the low quadword.
pub(super) fn mul_sum_carry(o: &mut Operands) -> u128 {
    let p = el(o.a, 64, 0) * el(o.b, 64, 0);
    let (s, x) = p.overflowing_add(el(o.a, 64, 1) * el(o.b, 64, 1));
    let (_, y) = s.overflowing_add(o.c);
    u128::from(x) + u128::from(y)
}

/// A field of the condition register from an order: less, greater, equal.
pub(super) fn order<T: Ord>(a: T, b: T) -> u128 {
    match a.cmp(&b) {
        core::cmp::Ordering::Less => 8,
        core::cmp::Ordering::Greater => 4,
        core::cmp::Ordering::Equal => 2,
    }
}

/// Shifts of elements (log2 of the bits in imm) by the low bits of those of `b`; of quadwords by bits 57–63.
pub(super) fn shifts(o: &mut Operands, f: impl Fn(u128, u32, u32) -> u128) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    make(bits, |i| {
        let by = if bits == 128 { (o.b >> 64) as u32 } else { el(o.b, bits, i) as u32 } & (bits - 1);
        let v = el(o.a, bits, i);
        // A rotate by nothing would shift by all bits.
        if by == 0 { v } else { f(v, by, bits) }
    })
}

/// vrlwmi, vrlwnm and their like: rotate `a`, and with (or insert under) a mask.
pub(super) fn rotate_mask(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    let all = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    make(bits, |i| {
        let control = if bits == 128 { o.b >> 64 } else { el(o.b, bits, i) } as u32;
        let (first, last, n) = (control >> 16 & (bits - 1), control >> 8 & (bits - 1), control & (bits - 1));
        let v = el(o.a, bits, i);
        let r = if n == 0 { v } else { (v << n | v >> (bits - n)) & all };
        let from = all >> first;
        let to = all << (bits - 1 - last) & all;
        let mask = if first <= last { from & to } else { from | to };
        if o.imm & 8 != 0 { r & mask | el(o.c, bits, i) & !mask } else { r & mask }
    })
}

pub(super) fn counts(o: &mut Operands, f: impl Fn(u128, u32) -> u32) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    make(bits, |i| u128::from(f(el(o.b, bits, i), bits)))
}

/// imm: log2 of the bits | 8 signed | 16 extended | 32 remainder.
pub(super) fn divide(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    let (signed, extended, remainder) = (o.imm & 8 != 0, o.imm & 16 != 0, o.imm & 32 != 0);
    // A divisor for which nothing is defined counts as one.
    let undefined = |a: u128| if remainder { 0 } else { a };
    make(bits, |i| {
        if bits == 128 {
            return divide_quad(o.a, o.b, signed, extended, remainder);
        }
        let shift = if extended { bits } else { 0 };
        if signed {
            let (a, b) = (sel(o.a, bits, i) << (shift & 127), sel(o.b, bits, i));
            let lowest = a == i128::MIN && b == -1 || !extended && b == -1 && a == -(1 << (bits - 1));
            if b == 0 || lowest {
                return undefined(a as u128);
            }
            let (q, r) = (a / b, a % b);
            let fits = q >= -(1 << (bits - 1)) && q < 1 << (bits - 1);
            if remainder {
                r as u128
            } else if fits {
                q as u128
            } else {
                0
            }
        } else {
            let (a, b) = (el(o.a, bits, i) << (shift & 127), el(o.b, bits, i));
            if b == 0 {
                return undefined(a);
            }
            let (q, r) = (a / b, a % b);
            if remainder {
                r
            } else if q >> bits == 0 {
                q
            } else {
                0
            }
        }
    })
}

fn divide_quad(a: u128, b: u128, signed: bool, extended: bool, remainder: bool) -> u128 {
    if b == 0 {
        return 0;
    }
    if !extended {
        if !signed {
            return if remainder { a % b } else { a / b };
        }
        let (x, y) = (a as i128, b as i128);
        return if remainder { x.checked_rem(y) } else { x.checked_div(y) }.unwrap_or(0) as u128;
    }
    let (negative, n, d) = if signed {
        (((a ^ b) as i128) < 0, (a as i128).unsigned_abs(), (b as i128).unsigned_abs())
    } else {
        (false, a, b)
    };
    if n >= d {
        return 0;
    }
    // n × 2^128 / d, bit by bit.
    let (mut r, mut q) = (n, 0u128);
    for _ in 0..128 {
        let top = r >> 127 != 0;
        r <<= 1;
        q <<= 1;
        if top || r >= d {
            r = r.wrapping_sub(d);
            q |= 1;
        }
    }
    let limit = if negative { 1 << 127 } else { u128::MAX >> 1 };
    if signed && q > limit {
        return 0;
    }
    if negative { q.wrapping_neg() } else { q }
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).fold(0, |r, n| if b >> n & 1 != 0 { r ^ u128::from(a) << n } else { r })
}

/// vpmsum*: sums modulo 2 of products of pairs.
pub(super) fn polynomial(o: &mut Operands) -> u128 {
    let bits = 1u32 << (o.imm & 7);
    make(2 * bits, |i| {
        let p = |k: u32| carryless(el(o.a, bits, 2 * i + k) as u64, el(o.b, bits, 2 * i + k) as u64);
        p(0) ^ p(1)
    })
}
