//! binary128 (the Power ISA's quad precision). Values are raw bits.

use crate::compare::Ordering;
use crate::env::{Env, Flags, NanRule, Rounding};
use crate::format::{Class, F64, Format, overflows_to_inf, rounds_up, shr_jam128};

const FRAC_BITS: u32 = 112;
const BIAS: i32 = 16383;
const EXP_MAX: i32 = 0x7fff;
pub const SIGN: u128 = 1 << 127;
pub const INF: u128 = 0x7fff << 112;
pub const QUIET: u128 = 1 << 111;
pub const FRAC_MASK: u128 = (1 << 112) - 1;
/// Places below the significand's last in the working form.
const SHIFT: u32 = 127 - FRAC_BITS;
/// Added to or taken from the exponent where an enabled overflow or underflow exception delivers a scaled result.
const SCALE: i32 = 24576;

/// Of class `Finite` it is `sig × 2^(exp − 127)`, bit 127 of `sig` set.
#[derive(Clone, Copy, Debug)]
struct Unpacked {
    class: Class,
    sign: bool,
    exp: i32,
    sig: u128,
}

fn unpack(bits: u128) -> Unpacked {
    let sign = bits & SIGN != 0;
    let field = (bits >> FRAC_BITS) as i32 & EXP_MAX;
    let frac = bits & FRAC_MASK;
    let mut u = Unpacked { class: Class::Finite, sign, exp: field - BIAS, sig: 0 };
    if field == 0 {
        if frac == 0 {
            u.class = Class::Zero;
        } else {
            let lz = frac.leading_zeros();
            u.sig = frac << lz;
            u.exp = 16 - lz as i32 - BIAS;
        }
    } else if field == EXP_MAX {
        u.class = match frac {
            0 => Class::Inf,
            f if f & QUIET != 0 => Class::Quiet,
            _ => Class::Signalling,
        };
    } else {
        u.sig = SIGN | frac << SHIFT;
    }
    u
}

fn signed(sign: bool, magnitude: u128) -> u128 {
    if sign { SIGN | magnitude } else { magnitude }
}

fn default_nan(env: &Env) -> u128 {
    signed(env.nan_rule == NanRule::X86, INF | QUIET)
}

fn invalid(cause: Flags, env: &mut Env) -> u128 {
    env.raise_invalid(cause);
    default_nan(env)
}

/// The first operand that is NaN, made quiet.
fn nan(ops: &[(u128, Class)], env: &mut Env) -> u128 {
    if ops.iter().any(|o| o.1 == Class::Signalling) {
        env.raise_invalid(Flags::VXSNAN);
    }
    if env.default_nan {
        return default_nan(env);
    }
    ops.iter().find(|o| o.1.is_nan()).map_or(default_nan(env), |o| o.0 | QUIET)
}

fn cancelled(env: &Env) -> u128 {
    signed(env.rounding == Rounding::TowardNegative, 0)
}

/// Rounds a place of a 128-bit magnitude: (kept, lost something).
fn round_at(sig: u128, shift: u32, rounding: Rounding, sign: bool) -> (u128, bool) {
    if shift == 0 {
        return (sig, false);
    }
    let rest = sig & ((1 << shift) - 1);
    let kept = sig >> shift;
    let half = 1u128 << (shift - 1);
    // Against the half: below, at, above.
    let relation = match rest.cmp(&half) {
        _ if rest == 0 => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Equal => 2,
        core::cmp::Ordering::Greater => 3,
    };
    (kept + u128::from(rounds_up(rounding, sign, kept & 1 != 0, relation, 2)), rest != 0)
}

fn round_pack(sign: bool, exp: i32, sig: u128, env: &mut Env) -> u128 {
    let mut biased = exp.saturating_add(BIAS);
    let (mut m, mut tiny) = (sig, false);
    if biased < 1 {
        tiny = true;
        if env.trap_underflow {
            env.flags |= Flags::UNDERFLOW;
            biased = biased.saturating_add(SCALE).max(1);
        } else {
            m = shr_jam128(m, 1i32.saturating_sub(biased) as u32);
            biased = 1;
        }
    }
    let (kept, inexact) = round_at(m, SHIFT, env.rounding, sign);
    let mut magnitude = ((biased.clamp(1, EXP_MAX + 2) - 1) as u128).wrapping_shl(FRAC_BITS).wrapping_add(kept);
    if biased > EXP_MAX || magnitude >= INF {
        env.flags |= Flags::OVERFLOW;
        if env.trap_overflow {
            magnitude = (((biased - SCALE).clamp(1, EXP_MAX) - 1) as u128).wrapping_shl(FRAC_BITS).wrapping_add(kept);
        } else {
            env.flags |= Flags::INEXACT;
            return signed(sign, if overflows_to_inf(env.rounding, sign) { INF } else { INF - 1 });
        }
    }
    if inexact {
        env.flags |= if tiny { Flags::UNDERFLOW | Flags::INEXACT } else { Flags::INEXACT };
    }
    signed(sign, magnitude)
}

/// Rounds `(hi:lo) × 2^(exp − 127)` with `hi` as the 128 bits above the point at its bit 0; not zero.
fn round_pack256(sign: bool, exp: i32, hi: u128, lo: u128, env: &mut Env) -> u128 {
    let (hi, lo, exp) = if hi == 0 { (lo, 0, exp - 128) } else { (hi, lo, exp) };
    let lz = hi.leading_zeros();
    let (h, l) = if lz == 0 { (hi, lo) } else { (hi << lz | lo >> (128 - lz), lo << lz) };
    round_pack(sign, exp - lz as i32, h | u128::from(l != 0), env)
}

/// The 256-bit product (high, low).
fn multiply(a: u128, b: u128) -> (u128, u128) {
    let mask = u128::from(u64::MAX);
    let (ah, al, bh, bl) = (a >> 64, a & mask, b >> 64, b & mask);
    let (ll, lh, hl, hh) = (al * bl, al * bh, ah * bl, ah * bh);
    let mid = (ll >> 64) + (lh & mask) + (hl & mask);
    (hh + (lh >> 64) + (hl >> 64) + (mid >> 64), mid << 64 | ll & mask)
}

/// Shifts right; what is lost sets bit 0.
fn shr_jam256(hi: u128, lo: u128, n: u32) -> (u128, u128) {
    match n {
        0 => (hi, lo),
        1..128 => {
            let lost = lo & ((1 << n) - 1) != 0;
            (hi >> n, hi << (128 - n) | lo >> n | u128::from(lost))
        }
        128 => (0, hi | u128::from(lo != 0)),
        129..256 => {
            let lost = lo != 0 || hi & ((1 << (n - 128)) - 1) != 0;
            (0, hi >> (n - 128) | u128::from(lost))
        }
        _ => (0, u128::from(hi | lo != 0)),
    }
}

fn add_finite(mut x: Unpacked, mut y: Unpacked, env: &mut Env) -> u128 {
    if (x.exp, x.sig) < (y.exp, y.sig) {
        core::mem::swap(&mut x, &mut y);
    }
    let (bh, bl) = (x.sig >> 1, x.sig << 127);
    let (sh, sl) = shr_jam256(y.sig >> 1, y.sig << 127, (x.exp - y.exp) as u32);
    let (h, l) = if x.sign == y.sign {
        let (l, carry) = bl.overflowing_add(sl);
        (bh + sh + u128::from(carry), l)
    } else {
        let (l, borrow) = bl.overflowing_sub(sl);
        (bh - sh - u128::from(borrow), l)
    };
    if h | l == 0 {
        return cancelled(env);
    }
    round_pack256(x.sign, x.exp + 1, h, l, env)
}

/// `a + b`, or `a − b`.
pub fn add_sub(a: u128, b: u128, subtract: bool, env: &mut Env) -> u128 {
    let (x, mut y) = (unpack(a), unpack(b));
    if x.class.is_nan() || y.class.is_nan() {
        return nan(&[(a, x.class), (b, y.class)], env);
    }
    y.sign ^= subtract;
    match (x.class, y.class) {
        (Class::Finite, Class::Finite) => add_finite(x, y, env),
        (Class::Inf, Class::Inf) if x.sign != y.sign => invalid(Flags::VXISI, env),
        (Class::Inf, _) => signed(x.sign, INF),
        (_, Class::Inf) => signed(y.sign, INF),
        (Class::Zero, Class::Zero) if x.sign == y.sign => signed(x.sign, 0),
        (Class::Zero, Class::Zero) => cancelled(env),
        (Class::Zero, _) => round_pack(y.sign, y.exp, y.sig, env),
        _ => round_pack(x.sign, x.exp, x.sig, env),
    }
}

pub fn mul(a: u128, b: u128, env: &mut Env) -> u128 {
    let (x, y) = (unpack(a), unpack(b));
    if x.class.is_nan() || y.class.is_nan() {
        return nan(&[(a, x.class), (b, y.class)], env);
    }
    let sign = x.sign != y.sign;
    match (x.class, y.class) {
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf) => invalid(Flags::VXIMZ, env),
        (Class::Inf, _) | (_, Class::Inf) => signed(sign, INF),
        (Class::Zero, _) | (_, Class::Zero) => signed(sign, 0),
        _ => {
            let (h, l) = multiply(x.sig, y.sig);
            round_pack256(sign, x.exp + y.exp + 1, h, l, env)
        }
    }
}

/// `a × b + c`, rounded once. NaNs in the order a, c, b.
pub fn mul_add(a: u128, b: u128, c: u128, env: &mut Env) -> u128 {
    let (x, y, z) = (unpack(a), unpack(b), unpack(c));
    let no_product = matches!((x.class, y.class), (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf));
    if x.class.is_nan() || y.class.is_nan() || z.class.is_nan() {
        if no_product {
            env.raise_invalid(Flags::VXIMZ);
        }
        return nan(&[(a, x.class), (c, z.class), (b, y.class)], env);
    }
    let sign = x.sign != y.sign;
    let inf_product = x.class == Class::Inf || y.class == Class::Inf;
    if no_product {
        return invalid(Flags::VXIMZ, env);
    }
    if inf_product {
        if z.class == Class::Inf && z.sign != sign {
            return invalid(Flags::VXISI, env);
        }
        return signed(sign, INF);
    }
    if z.class == Class::Inf {
        return signed(z.sign, INF);
    }
    if x.class == Class::Zero || y.class == Class::Zero {
        return match z.class {
            Class::Zero if z.sign == sign => signed(sign, 0),
            Class::Zero => cancelled(env),
            _ => round_pack(z.sign, z.exp, z.sig, env),
        };
    }
    let (h, l) = multiply(x.sig, y.sig);
    let exp = x.exp + y.exp + 1;
    if z.class == Class::Zero {
        return round_pack256(sign, exp, h, l, env);
    }
    // One bit of room for the carry; the product's low 30 bits are zero.
    let mut big = (h >> 1, h << 127 | l >> 1, exp + 1, sign);
    let mut small = (z.sig >> 1, z.sig << 127, z.exp + 1, z.sign);
    if (small.2, small.0, small.1) > (big.2, big.0, big.1) {
        core::mem::swap(&mut big, &mut small);
    }
    let (sh, sl) = shr_jam256(small.0, small.1, (big.2 - small.2) as u32);
    let (h, l, sign) = if big.3 == small.3 {
        let (l, carry) = big.1.overflowing_add(sl);
        (big.0 + sh + u128::from(carry), l, big.3)
    } else if (big.0, big.1) >= (sh, sl) {
        let (l, borrow) = big.1.overflowing_sub(sl);
        (big.0 - sh - u128::from(borrow), l, big.3)
    } else {
        // The leading one may be a place lower than the exponent says.
        let (l, borrow) = sl.overflowing_sub(big.1);
        (sh - big.0 - u128::from(borrow), l, small.3)
    };
    if h | l == 0 {
        return cancelled(env);
    }
    round_pack256(sign, big.2, h, l, env)
}

pub fn div(a: u128, b: u128, env: &mut Env) -> u128 {
    let (x, y) = (unpack(a), unpack(b));
    if x.class.is_nan() || y.class.is_nan() {
        return nan(&[(a, x.class), (b, y.class)], env);
    }
    let sign = x.sign != y.sign;
    match (x.class, y.class) {
        (Class::Inf, Class::Inf) => invalid(Flags::VXIDI, env),
        (Class::Zero, Class::Zero) => invalid(Flags::VXZDZ, env),
        (Class::Inf, _) => signed(sign, INF),
        (_, Class::Zero) => {
            env.flags |= Flags::DIV_BY_ZERO;
            signed(sign, INF)
        }
        (Class::Zero, _) | (_, Class::Inf) => signed(sign, 0),
        _ => {
            // Bit by bit; the quotient is in (1/2, 2) and gets 118 places.
            let (mut r, d) = (x.sig >> 1, y.sig >> 1);
            let mut q = 0u128;
            for _ in 0..118 {
                q <<= 1;
                if r >= d {
                    r -= d;
                    q |= 1;
                }
                r <<= 1;
            }
            let q = q << 1 | u128::from(r != 0);
            let lz = q.leading_zeros();
            // The first bit weighs 1 and is bit 118 of q.
            round_pack(sign, x.exp - y.exp + 9 - lz as i32, q << lz, env)
        }
    }
}

pub fn sqrt(a: u128, env: &mut Env) -> u128 {
    let x = unpack(a);
    match x.class {
        Class::Quiet | Class::Signalling => nan(&[(a, x.class)], env),
        Class::Zero => a,
        _ if x.sign => invalid(Flags::VXSQRT, env),
        Class::Inf => INF,
        Class::Finite => {
            // The radicand in [1, 4) with 126 places; digit by digit, 118 places of the root.
            let n = if x.exp & 1 != 0 { x.sig } else { x.sig >> 1 };
            let (mut root, mut rest) = (0u128, 0u128);
            for k in 0..118u32 {
                let two = if k < 64 { n >> (126 - 2 * k) & 3 } else { 0 };
                rest = rest << 2 | two;
                let t = root << 2 | 1;
                root <<= 1;
                if rest >= t {
                    rest -= t;
                    root |= 1;
                }
            }
            let q = root << 1 | u128::from(rest != 0);
            let lz = q.leading_zeros();
            round_pack(false, x.exp >> 1, q << lz, env)
        }
    }
}

pub fn compare(a: u128, b: u128, signal_quiet: bool, env: &mut Env) -> Ordering {
    let (x, y) = (unpack(a), unpack(b));
    if x.class.is_nan() || y.class.is_nan() {
        let signalling = x.class == Class::Signalling || y.class == Class::Signalling;
        if signalling {
            env.raise_invalid(Flags::VXSNAN);
        }
        if signal_quiet {
            env.raise_invalid(Flags::VXVC);
        }
        return Ordering::Unordered;
    }
    let key = |v: u128| if v & SIGN != 0 { -((v & !SIGN) as i128) } else { v as i128 };
    match key(a).cmp(&key(b)) {
        core::cmp::Ordering::Less => Ordering::Less,
        core::cmp::Ordering::Equal => Ordering::Equal,
        core::cmp::Ordering::Greater => Ordering::Greater,
    }
}

/// From binary64, exact; a signalling NaN raises invalid.
pub fn from_f64(a: u64, env: &mut Env) -> u128 {
    let sign = a >> 63 != 0;
    let field = (a >> 52) as i32 & 0x7ff;
    let frac = u128::from(a & F64::FRAC_MASK);
    match (field, frac) {
        (0, 0) => signed(sign, 0),
        (0x7ff, 0) => signed(sign, INF),
        (0x7ff, _) => {
            if a & F64::QUIET == 0 {
                env.raise_invalid(Flags::VXSNAN);
            }
            signed(sign, INF | QUIET | frac << 60)
        }
        (0, _) => {
            let lz = frac.leading_zeros();
            let exp = 76 - lz as i32 - 1023;
            signed(sign, ((exp + BIAS) as u128) << FRAC_BITS | (frac << (lz - 15)) & FRAC_MASK)
        }
        _ => signed(sign, ((field - 1023 + BIAS) as u128) << FRAC_BITS | frac << 60),
    }
}

/// To binary64 by the environment's rounding.
pub fn to_f64(a: u128, env: &mut Env) -> u64 {
    let x = unpack(a);
    let sign = u64::from(x.sign) << 63;
    match x.class {
        Class::Quiet | Class::Signalling => {
            if x.class == Class::Signalling {
                env.raise_invalid(Flags::VXSNAN);
            }
            sign | F64::INF | F64::QUIET | ((a & FRAC_MASK) >> 60) as u64
        }
        Class::Inf => sign | F64::INF,
        Class::Zero => sign,
        Class::Finite => {
            crate::format::round_pack::<F64>(x.sign, x.exp, (x.sig >> 64) as u64 | u64::from(x.sig as u64 != 0), env)
        }
    }
}

/// From an integer's sign and magnitude.
pub fn from_int(sign: bool, magnitude: u128, env: &mut Env) -> u128 {
    if magnitude == 0 {
        return 0;
    }
    let lz = magnitude.leading_zeros();
    round_pack(sign, 127 - lz as i32, magnitude << lz, env)
}

/// `|value|` rounded to an integer, inexact; `None` from 2^128 on.
fn integer(x: &Unpacked, rounding: Rounding) -> Option<(u128, bool)> {
    if x.exp > 127 {
        return None;
    }
    if x.exp < 0 {
        let relation = match (x.exp, x.sig) {
            (-1, SIGN) => 2,
            (-1, _) => 3,
            _ => 1,
        };
        return Some((u128::from(rounds_up(rounding, x.sign, false, relation, 2)), true));
    }
    Some(round_at(x.sig, 127 - x.exp as u32, rounding, x.sign))
}

/// To a signed or unsigned integer of `bits` (32, 64 or 128), toward zero, saturating; NaN gives the least.
pub fn to_int(a: u128, bits: u32, is_signed: bool, env: &mut Env) -> u128 {
    let x = unpack(a);
    let all = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    let max = if is_signed { all >> 1 } else { all };
    let limit = if is_signed {
        max + u128::from(x.sign)
    } else if x.sign {
        0
    } else {
        max
    };
    let out = |v: u128| if x.sign { v.wrapping_neg() } else { v };
    let value = match x.class {
        Class::Zero => Some((0, false)),
        Class::Finite => integer(&x, Rounding::TowardZero),
        Class::Inf => None,
        Class::Quiet | Class::Signalling => {
            env.raise_invalid(Flags::VXCVI);
            if x.class == Class::Signalling {
                env.raise_invalid(Flags::VXSNAN);
            }
            return if is_signed { (max + 1).wrapping_neg() } else { 0 };
        }
    };
    match value {
        Some((v, inexact)) if v <= limit => {
            if inexact {
                env.flags |= Flags::INEXACT;
            }
            out(v)
        }
        _ => {
            env.raise_invalid(Flags::VXCVI);
            out(limit)
        }
    }
}

/// To an integral value; inexact is raised only if `signal_inexact`.
pub fn round_to_int(a: u128, rounding: Rounding, signal_inexact: bool, env: &mut Env) -> u128 {
    let x = unpack(a);
    match x.class {
        Class::Quiet | Class::Signalling => nan(&[(a, x.class)], env),
        Class::Zero | Class::Inf => a,
        Class::Finite if x.exp >= FRAC_BITS as i32 => a,
        Class::Finite => {
            let (v, inexact) = integer(&x, rounding).unwrap_or((0, false));
            if inexact && signal_inexact {
                env.flags |= Flags::INEXACT;
            }
            let mut exact = Env::PPC;
            signed(x.sign, from_int(false, v, &mut exact))
        }
    }
}

/// Rounds to the 64-bit significand of double-extended precision (xsrqpxp).
pub fn round_to_extended(a: u128, rounding: Rounding, env: &mut Env) -> u128 {
    let x = unpack(a);
    match x.class {
        Class::Quiet | Class::Signalling => nan(&[(a, x.class)], env) & !((1 << 49) - 1),
        Class::Zero | Class::Inf => a,
        Class::Finite => {
            // Of a tiny number as many places are lost as of its denormal in that format, whose exponents are the same.
            let biased = x.exp + BIAS;
            let extra = if biased < 1 { (1 - biased).min(63) as u32 } else { 0 };
            let shift = (64 + extra).min(127);
            let (kept, inexact) = round_at(x.sig, shift, rounding, x.sign);
            if inexact {
                env.flags |= Flags::INEXACT;
                if biased < 1 {
                    env.flags |= Flags::UNDERFLOW;
                }
            }
            if kept == 0 {
                return signed(x.sign, 0);
            }
            let saved = env.rounding;
            env.rounding = rounding;
            let lz = kept.leading_zeros();
            let r = round_pack(x.sign, x.exp + shift as i32 - lz as i32, kept << lz, env);
            env.rounding = saved;
            r
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Float;

    fn env() -> Env {
        Env::PPC
    }
    fn q(v: f64) -> u128 {
        from_f64(v.to_bits(), &mut env())
    }
    fn d(v: u128) -> f64 {
        f64::from_bits(to_f64(v, &mut env()))
    }

    #[test]
    fn agrees_with_double() {
        let mut seed = 7u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed ^ seed >> 29
        };
        for _ in 0..20000 {
            // Doubles of moderate exponents: a sum or product of quads rounds to odd, then to the double result.
            let [a, b, c] = [0; 3].map(|_| {
                let v = next();
                v & !(0x7ff << 52) | (1023 - 20 + (v >> 52 & 31)) << 52
            });
            for n in 0..5 {
                let mut e = Env { rounding: Rounding::ToOdd, ..env() };
                let [x, y, z] = [a, b, c].map(|v| from_f64(v, &mut env()));
                let wide = match n {
                    0 => add_sub(x, y, false, &mut e),
                    1 => mul(x, y, &mut e),
                    2 => div(x, y, &mut e),
                    3 => sqrt(x & !SIGN, &mut e),
                    _ => mul_add(x, y, z, &mut e),
                };
                let mut f = env();
                let want = match n {
                    0 => F64::add(a, b, &mut f),
                    1 => F64::mul(a, b, &mut f),
                    2 => F64::div(a, b, &mut f),
                    3 => F64::sqrt(a & !(1 << 63), &mut f),
                    _ => F64::mul_add(a, b, c, &mut f),
                };
                let mut g = env();
                assert_eq!(to_f64(wide, &mut g), want, "{n}: {a:#x} {b:#x} {c:#x}");
            }
        }
    }

    #[test]
    fn integers() {
        let mut e = env();
        assert_eq!(to_int(q(-3.7), 64, true, &mut e) as i128, -3);
        assert_eq!(to_int(q(1e30), 64, true, &mut e), i64::MAX as u128);
        assert_eq!(to_int(q(-1.0), 64, false, &mut e), 0);
        assert_eq!(d(from_int(true, 12345, &mut e)), -12345.0);
        assert_eq!(d(round_to_int(q(2.5), Rounding::NearestEven, false, &mut e)), 2.0);
        assert_eq!(d(round_to_int(q(-0.5), Rounding::NearestAway, false, &mut e)), -1.0);
        assert_eq!(d(round_to_extended(q(1.5), Rounding::NearestEven, &mut e)), 1.5);
        assert_eq!(d(round_to_extended(q(-3.0), Rounding::NearestEven, &mut e)), -3.0);
    }
}
