//! Decimal integer instructions of the vector facility (Book I, 6.17): 31 digits and a sign, or 32 digits.

use super::{Operands, el, put};

const LIMIT: u128 = 10u128.pow(31);

/// The sign of a nibble: `None` if it is none.
fn negative(sign: u128) -> Option<bool> {
    match sign {
        0xb | 0xd => Some(true),
        0xa | 0xc | 0xe | 0xf => Some(false),
        _ => None,
    }
}

fn sign_code(minus: bool, ps: bool) -> u128 {
    match (minus, ps) {
        (true, _) => 0xd,
        (_, false) => 0xc,
        (_, true) => 0xf,
    }
}

fn digits_valid(v: u128) -> bool {
    (0..32).all(|k| v >> (4 * k) & 15 <= 9)
}

fn to_number(v: u128) -> u128 {
    (0..32).rev().fold(0, |r, k| r * 10 + (v >> (4 * k) & 15))
}

fn from_number(mut n: u128) -> u128 {
    let mut r = 0;
    for k in 0..32 {
        r |= (n % 10) << (4 * k);
        n /= 10;
    }
    r
}

/// Digits (without the sign) and the sign of a signed decimal number.
fn signed(v: u128) -> Option<(u128, bool)> {
    let minus = negative(v & 15)?;
    digits_valid(v >> 4).then_some((v >> 4, minus))
}

fn relation(zero: bool, minus: bool) -> u32 {
    if zero {
        2
    } else if minus {
        8
    } else {
        4
    }
}

/// imm: operation | PS << 8.
pub fn bcd(o: &mut Operands) -> u128 {
    match attempt(o) {
        Some((r, cr)) => {
            o.cr6 = Some(cr);
            r
        }
        None => {
            o.cr6 = Some(1);
            u128::MAX
        }
    }
}

fn attempt(o: &Operands) -> Option<(u128, u32)> {
    let ps = o.imm >> 8 & 1 != 0;
    match o.imm & 0xff {
        n @ (0 | 1) => {
            let ((x, s), (y, t)) = (signed(o.a)?, signed(o.b)?);
            let t = t != (n == 1);
            let (x, y) = (to_number(x), to_number(y));
            let (sum, minus) = if s == t {
                (x + y, s)
            } else if x >= y {
                (x - y, s)
            } else {
                (y - x, t)
            };
            let minus = minus && sum != 0;
            let over = u32::from(sum >= LIMIT);
            let sum = sum % LIMIT;
            Some((from_number(sum) << 4 | sign_code(minus, ps), relation(sum == 0, minus) | over))
        }
        // From national.
        2 => {
            let mut r = 0;
            for i in 0..7 {
                let h = el(o.b, 16, i);
                if !(0x30..=0x39).contains(&h) {
                    return None;
                }
                r = r << 4 | h & 15;
            }
            let minus = match el(o.b, 16, 7) {
                0x2b => false,
                0x2d => true,
                _ => return None,
            };
            Some((r << 4 | sign_code(minus, ps), relation(r == 0, minus)))
        }
        // From zoned.
        3 => {
            let zone = if ps { 15 } else { 3 };
            let mut r = 0;
            for i in 0..16 {
                let b = el(o.b, 8, i);
                if b & 15 > 9 || i < 15 && b >> 4 != zone {
                    return None;
                }
                r = r << 4 | b & 15;
            }
            let sign = o.b >> 4 & 15;
            let minus = if ps { negative(sign)? } else { sign & 4 != 0 };
            Some((r << 4 | sign_code(minus, false), relation(r == 0, minus)))
        }
        // To national.
        4 => {
            let (d, minus) = signed(o.b)?;
            let r = (0..7).fold(0, |r, i| r | put(0x30 | d >> (4 * (6 - i)) & 15, 16, i));
            let r = r | if minus { 0x2d } else { 0x2b };
            Some((r, relation(d == 0, minus) | u32::from(d >> 28 != 0)))
        }
        // To zoned.
        5 => {
            let (d, minus) = signed(o.b)?;
            let zone = if ps { 0xf0 } else { 0x30 };
            let r = (0..16).fold(0, |r, i| r | put(zone | d >> (4 * (15 - i)) & 15, 8, i));
            let code = match (ps, minus) {
                (true, false) => 0xc,
                (true, true) => 0xd,
                (false, false) => 3,
                (false, true) => 7,
            };
            Some((r & !0xf0 | code << 4, relation(d == 0, minus) | u32::from(d >> 64 != 0)))
        }
        6 => {
            let (n, minus) = ((o.b as i128).unsigned_abs(), (o.b as i128) < 0);
            let over = u32::from(n >= LIMIT);
            Some((from_number(n % LIMIT) << 4 | sign_code(minus, ps), relation(n == 0, minus) | over))
        }
        7 => {
            let (d, minus) = signed(o.b)?;
            let n = to_number(d);
            Some((if minus { n.wrapping_neg() } else { n }, relation(d == 0, minus)))
        }
        8 => {
            signed(o.a)?;
            let (_, minus) = signed(o.b)?;
            Some((o.a & !15 | o.b & 15, relation(o.a >> 4 == 0, minus)))
        }
        9 => {
            let (d, minus) = signed(o.b)?;
            Some((d << 4 | sign_code(minus, ps), relation(d == 0, minus)))
        }
        10 | 12 => {
            let (d, minus) = signed(o.b)?;
            let (r, over) = shift(d, el(o.a, 8, 7) as i8, 31, o.imm & 0xff == 12);
            Some((r << 4 | sign_code(minus, ps), relation(r == 0, minus) | over))
        }
        11 => {
            if !digits_valid(o.b) {
                return None;
            }
            let (r, over) = shift(o.b, el(o.a, 8, 7) as i8, 32, false);
            Some((r, relation(r == 0, false) | over))
        }
        13 => {
            let (d, minus) = signed(o.b)?;
            let (r, over) = truncate(d, el(o.a, 16, 3) as u32, 31);
            Some((r << 4 | sign_code(minus, ps), relation(r == 0, minus) | over))
        }
        _ => {
            if !digits_valid(o.b) {
                return None;
            }
            let (r, over) = truncate(o.b, el(o.a, 16, 3) as u32, 32);
            Some((r, relation(r == 0, false) | over))
        }
    }
}

/// Digits shifted left by `n` (right if negative), kept to a number of `digits`; whether ones were lost to the left.
fn shift(d: u128, n: i8, digits: u32, round: bool) -> (u128, u32) {
    let mask = if digits == 32 { u128::MAX } else { (1 << (4 * digits)) - 1 };
    let by = u32::from(n.unsigned_abs()).min(digits);
    if n >= 0 {
        let lost = if by == 0 { 0 } else { d >> (4 * (digits - by)) };
        let r = if by == 32 { 0 } else { d << (4 * by) & mask };
        return (r, u32::from(lost != 0));
    }
    let r = if by == 32 { 0 } else { d >> (4 * by) };
    let up = round && d >> (4 * (by - 1)) & 15 >= 5;
    (if up { from_number(to_number(r) + 1) } else { r }, 0)
}

fn truncate(d: u128, n: u32, digits: u32) -> (u128, u32) {
    if n >= digits {
        return (d, 0);
    }
    let r = d & ((1 << (4 * n)) - 1);
    (r, u32::from(r != d))
}

/// vmul10uq and its like; imm: 1 the carry, 2 a digit of `b` is added.
pub(super) fn mul10(o: &mut Operands) -> u128 {
    let digit = if o.imm & 2 != 0 { o.b & 15 } else { 0 };
    if o.imm & 1 == 0 {
        return o.a.wrapping_mul(10).wrapping_add(digit);
    }
    let low = (o.a & u128::from(u64::MAX)) * 10 + digit;
    let high = (o.a >> 64) * 10 + (low >> 64);
    high >> 64
}
