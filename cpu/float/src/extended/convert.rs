//! Conversions to and from other formats, and rounding to integral values.

use super::exception::{DENORMAL, INVALID, OVERFLOW, PRECISION, UNDERFLOW};
use super::{BIAS, Class, Env80, F80, INTEGER, QUIET};
use crate::Rounding;
use crate::format::{F32, F64, Format, overflows_to_inf, rounds_up, shr_jam128};

fn widen<F: Format>(bits: u64, env: &mut Env80) -> F80 {
    let sign = bits & F::SIGN != 0;
    let field = (bits >> F::FRAC_BITS) as i32 & F::EXP_MAX;
    let frac = bits & F::FRAC_MASK;
    let fraction = frac << (63 - F::FRAC_BITS);
    if field == F::EXP_MAX {
        let quiet = if frac == 0 { 0 } else { QUIET };
        if frac != 0 && frac & F::QUIET == 0 {
            env.raise(INVALID);
        }
        return F80::new(sign, super::EXP_MAX, INTEGER | fraction | quiet);
    }
    if field != 0 {
        return F80::new(sign, field - F::BIAS + BIAS, INTEGER | fraction);
    }
    if frac == 0 {
        return F80::zero(sign);
    }
    env.raise(DENORMAL);
    let lz = fraction.leading_zeros();
    F80::new(sign, 1 - F::BIAS + BIAS - lz as i32, fraction << lz)
}

/// Loads a single: exact, but signalling NaNs are invalid and made quiet, and denormals are told.
pub fn from_f32(bits: u32, env: &mut Env80) -> F80 {
    widen::<F32>(bits.into(), env)
}
/// Loads a double; see [`from_f32`].
pub fn from_f64(bits: u64, env: &mut Env80) -> F80 {
    widen::<F64>(bits, env)
}

/// A single as an operand of arithmetic: exact, a signalling NaN stays one, a denormal is noted in the environment.
pub fn operand_f32(bits: u32, env: &mut Env80) -> F80 {
    operand::<F32>(bits.into(), env)
}
/// A double; see [`operand_f32`].
pub fn operand_f64(bits: u64, env: &mut Env80) -> F80 {
    operand::<F64>(bits, env)
}
fn operand<F: Format>(bits: u64, env: &mut Env80) -> F80 {
    let mut own = Env80::default();
    let mut v = widen::<F>(bits, &mut own);
    env.denormal_operand |= own.flags & DENORMAL != 0;
    if own.flags & INVALID != 0 {
        v.significand &= !QUIET;
    }
    v
}

/// Loads an integer: exact.
pub fn from_int(v: i64) -> F80 {
    if v == 0 {
        return F80::ZERO;
    }
    let m = v.unsigned_abs();
    let lz = m.leading_zeros();
    F80::new(v < 0, BIAS + 63 - lz as i32, m << lz)
}

fn narrow<F: Format>(a: F80, env: &mut Env80) -> u64 {
    let sign = if a.sign() { F::SIGN } else { 0 };
    env.rounded_up = false;
    match a.class() {
        Class::Zero => return sign,
        Class::Infinity => return sign | F::INF,
        Class::Unsupported => {
            env.raise(INVALID);
            return F::SIGN | F::INF | F::QUIET;
        }
        Class::Quiet | Class::Signalling => {
            if a.class() == Class::Signalling {
                env.raise(INVALID);
            }
            return sign | F::INF | F::QUIET | (a.significand & (INTEGER - 1)) >> (63 - F::FRAC_BITS);
        }
        _ => {}
    }
    let (exp, mut sig) = a.normalized();
    let shift = 63 - F::FRAC_BITS;
    let (mask, half) = ((1u64 << shift) - 1, 1u64 << (shift - 1));
    let biased = exp + F::BIAS;
    let up = |s: u64| rounds_up(env.rounding, a.sign(), s >> shift & 1 != 0, s & mask, half);
    let mut tiny = false;
    if biased < 1 {
        tiny = biased < 0 || !(up(sig) && sig >> shift == (1 << (F::FRAC_BITS + 1)) - 1);
        sig = crate::format::shr_jam(sig, 1i32.saturating_sub(biased) as u32);
    }
    let raised = up(sig);
    let rest = sig & mask;
    let kept = (sig >> shift) + u64::from(raised);
    let magnitude = (u64::from(biased.clamp(1, F::EXP_MAX + 2) as u32 - 1) << F::FRAC_BITS) + kept;
    if magnitude >= F::INF {
        env.raise(OVERFLOW | PRECISION);
        let infinite = overflows_to_inf(env.rounding, a.sign());
        env.rounded_up = infinite;
        return sign | if infinite { F::INF } else { F::INF - 1 };
    }
    if tiny && (rest != 0 || !env.masked(UNDERFLOW)) {
        env.raise(UNDERFLOW);
    }
    if rest != 0 {
        env.raise(PRECISION);
    }
    env.rounded_up = raised;
    sign | magnitude
}

/// Stores as a single. With an unmasked overflow or underflow nothing is to be stored.
pub fn to_f32(a: F80, env: &mut Env80) -> u32 {
    narrow::<F32>(a, env) as u32
}
/// Stores as a double; see [`to_f32`].
pub fn to_f64(a: F80, env: &mut Env80) -> u64 {
    narrow::<F64>(a, env)
}

/// The magnitude of a finite number rounded to an integer if it is below 2^64, whether that was inexact, and whether up.
fn integral(a: F80, rounding: Rounding) -> Option<(u64, bool, bool)> {
    if a.class() == Class::Zero {
        return Some((0, false, false));
    }
    let (exp, sig) = a.normalized();
    if exp >= 64 {
        return None;
    }
    // Integer part above bit 64 of the 128.
    let v = shr_jam128(u128::from(sig) << 64, (63 - exp) as u32);
    let (whole, rest) = ((v >> 64) as u64, v as u64);
    let up = rounds_up(rounding, a.sign(), whole & 1 != 0, rest, 1 << 63);
    Some((whole.checked_add(u64::from(up))?, rest != 0, up))
}

fn to_integer(a: F80, bits: u32, rounding: Rounding, env: &mut Env80) -> i64 {
    env.rounded_up = false;
    let indefinite = (-1i64) << (bits - 1);
    if matches!(a.class(), Class::Infinity | Class::Quiet | Class::Signalling | Class::Unsupported) {
        env.raise(INVALID);
        return indefinite;
    }
    let limit = 1u64 << (bits - 1);
    match integral(a, rounding) {
        Some((m, inexact, up)) if m < limit || a.sign() && m == limit => {
            if inexact {
                env.raise(PRECISION);
                env.rounded_up = up;
            }
            if a.sign() { (m as i64).wrapping_neg() } else { m as i64 }
        }
        _ => {
            env.raise(INVALID);
            indefinite
        }
    }
}

/// Stores as a signed integer of 16, 32 or 64 `bits`; outside, the integer indefinite and invalid.
pub fn to_int(a: F80, bits: u32, env: &mut Env80) -> i64 {
    to_integer(a, bits.clamp(8, 64), env.rounding, env)
}
/// The same rounding toward zero (FISTTP).
pub fn to_int_truncated(a: F80, bits: u32, env: &mut Env80) -> i64 {
    to_integer(a, bits.clamp(8, 64), Rounding::TowardZero, env)
}

/// FRNDINT.
pub fn round_to_integral(a: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a]) {
        return nan;
    }
    if matches!(a.class(), Class::Zero | Class::Infinity) {
        return a;
    }
    env.denormal(&[a]);
    if env.stops() {
        return a;
    }
    let Some((m, inexact, up)) = (a.normalized().0 < 63).then(|| integral(a, env.rounding)).flatten() else { return a };
    if inexact {
        env.raise(PRECISION);
        env.rounded_up = up;
    }
    if m == 0 {
        return F80::zero(a.sign());
    }
    let lz = m.leading_zeros();
    F80::new(a.sign(), BIAS + 63 - lz as i32, m << lz)
}

/// Packed decimal of 18 digits: bits 0–63 and 64–79 of the memory operand. Digits that are none count as their value.
pub fn from_bcd(low: u64, high: u16) -> F80 {
    let digits = u128::from(low) | u128::from(high & 0xff) << 64;
    let m = (0..18).rev().fold(0u64, |m, n| m.wrapping_mul(10).wrapping_add((digits >> (4 * n) & 15) as u64));
    let v = if m == 0 { F80::ZERO } else { from_int(m as i64) };
    if high & 0x8000 != 0 { v.negated() } else { v }
}

/// Rounds to a packed decimal; outside, the indefinite and invalid.
pub fn to_bcd(a: F80, env: &mut Env80) -> (u64, u16) {
    const INDEFINITE: (u64, u16) = (0xc000_0000_0000_0000, 0xffff);
    const LIMIT: u64 = 1_000_000_000_000_000_000;
    env.rounded_up = false;
    let finite = matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal);
    match finite.then(|| integral(a, env.rounding)).flatten() {
        Some((mut m, inexact, up)) if m < LIMIT => {
            if inexact {
                env.raise(PRECISION);
                env.rounded_up = up;
            }
            let mut digits = 0u128;
            for n in 0..18 {
                digits |= u128::from(m % 10) << (4 * n);
                m /= 10;
            }
            (digits as u64, (digits >> 64) as u16 | u16::from(a.sign()) << 15)
        }
        _ => {
            env.raise(INVALID);
            INDEFINITE
        }
    }
}
