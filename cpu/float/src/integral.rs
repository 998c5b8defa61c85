//! Rounding to integral values, and conversions to and from integers and fixed-point numbers.

use crate::env::{Env, Flags, NanRule, Rounding};
use crate::format::*;

/// `|value × 2^scale|` rounded to an integer, and whether that was inexact. Above 2^64 the magnitude is only that.
#[inline(always)]
fn integer(u: &Unpacked, scale: i32, rounding: Rounding) -> (u128, bool) {
    let e = u.exp + scale;
    if e >= 64 {
        return (u128::MAX, false);
    }
    let whole = if e < 0 { 0 } else { u.sig >> (63 - e) };
    // The discarded part in units of 2^−64.
    let rest = match e {
        63 => 0,
        -1..63 => u.sig << (e + 1),
        _ => 1,
    };
    let up = rounds_up(rounding, u.sign, whole & 1 != 0, rest, 1 << 63);
    (u128::from(whole) + u128::from(up), rest != 0)
}

/// `sig` is an integer below 2^64 that the format holds exactly.
#[inline(always)]
fn exact<F: Format>(sign: bool, int: u64) -> u64 {
    if int == 0 {
        return zero::<F>(sign);
    }
    let lz = int.leading_zeros();
    let frac = (int << lz) << 1 >> (64 - F::FRAC_BITS);
    zero::<F>(sign) | ((63 - lz as i32 + F::BIAS) as u64) << F::FRAC_BITS | frac
}

#[inline]
pub(crate) fn round_to_int<F: Format>(a: u64, rounding: Rounding, signal_inexact: bool, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    match u.class {
        Class::Quiet | Class::Signalling => nan1::<F>(a, u.class, env),
        Class::Zero => zero::<F>(u.sign),
        Class::Inf => a,
        Class::Finite if u.exp >= F::FRAC_BITS as i32 => a,
        Class::Finite => {
            let (int, inexact) = integer(&u, 0, rounding);
            if inexact && signal_inexact {
                env.flags |= Flags::INEXACT;
            }
            exact::<F>(u.sign, int as u64)
        }
    }
}

/// FRINT32*, FRINT64*: `bits` is 32 or 64.
pub(crate) fn round_to_int_sized<F: Format>(a: u64, bits: u32, rounding: Rounding, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    if u.class == Class::Zero {
        return zero::<F>(u.sign);
    }
    if u.class == Class::Finite {
        let (int, inexact) = integer(&u, 0, rounding);
        let limit = 1u128 << (bits - 1);
        if int < limit || (u.sign && int == limit) {
            if inexact {
                env.flags |= Flags::INEXACT;
            }
            return if u.exp >= F::FRAC_BITS as i32 { a } else { exact::<F>(u.sign, int as u64) };
        }
    }
    env.flags |= Flags::INVALID;
    F::SIGN | ((F::BIAS + bits as i32 - 1) as u64) << F::FRAC_BITS
}

/// A NaN converted to an integer.
#[cold]
fn invalid_nan(class: Class, env: &mut Env) {
    env.raise_invalid(Flags::VXCVI);
    if class == Class::Signalling {
        env.raise_invalid(Flags::VXSNAN);
    }
}

/// `bits`: 8 to 64. Returns the sign-extended result.
#[inline]
pub(crate) fn to_signed<F: Format>(a: u64, bits: u32, fbits: u32, rounding: Rounding, env: &mut Env) -> i64 {
    let u = unpack::<F>(a, env);
    let max = (1u64 << (bits - 1)) - 1;
    let limit = u128::from(max) + u128::from(u.sign);
    match u.class {
        Class::Zero => 0,
        Class::Finite => {
            let (int, inexact) = integer(&u, fbits as i32, rounding);
            if int > limit {
                env.raise_invalid(Flags::VXCVI);
            } else if inexact {
                env.flags |= Flags::INEXACT;
            }
            let int = int.min(limit) as i64;
            if u.sign { int.wrapping_neg() } else { int }
        }
        Class::Inf => {
            env.raise_invalid(Flags::VXCVI);
            if u.sign { -1 - max as i64 } else { max as i64 }
        }
        Class::Quiet | Class::Signalling => {
            invalid_nan(u.class, env);
            // The Power ISA has the least integer.
            if env.nan_rule == NanRule::Ppc { -1 - max as i64 } else { 0 }
        }
    }
}

/// `bits`: 8 to 64.
#[inline]
pub(crate) fn to_unsigned<F: Format>(a: u64, bits: u32, fbits: u32, rounding: Rounding, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    let limit = u64::MAX >> (64 - bits);
    match u.class {
        Class::Zero => 0,
        Class::Finite => {
            let (int, inexact) = integer(&u, fbits as i32, rounding);
            if int > u128::from(limit) || (u.sign && int != 0) {
                env.raise_invalid(Flags::VXCVI);
                return if u.sign { 0 } else { limit };
            }
            if inexact {
                env.flags |= Flags::INEXACT;
            }
            int as u64
        }
        Class::Inf => {
            env.raise_invalid(Flags::VXCVI);
            if u.sign { 0 } else { limit }
        }
        Class::Quiet | Class::Signalling => {
            invalid_nan(u.class, env);
            0
        }
    }
}

#[inline]
pub(crate) fn from_magnitude<F: Format>(sign: bool, magnitude: u64, fbits: u32, env: &mut Env) -> u64 {
    if magnitude == 0 {
        return 0;
    }
    let lz = magnitude.leading_zeros();
    round_pack::<F>(sign, 63 - lz as i32 - fbits as i32, magnitude << lz, env)
}

/// Arm's FJCVTZS of a binary64: the value truncated modulo 2^32, and whether it was an exact 32-bit integer other than
/// negative zero.
pub fn to_javascript_int(a: u64, env: &mut Env) -> (u32, bool) {
    let u = unpack::<F64>(a, env);
    match u.class {
        Class::Zero => (0, a == 0),
        Class::Finite => {
            let (int, inexact) = integer(&u, 0, Rounding::TowardZero);
            let out = int > (1u128 << 31) - u128::from(!u.sign);
            if out {
                env.flags |= Flags::INVALID;
            } else if inexact {
                env.flags |= Flags::INEXACT;
            }
            let low = match u.exp {
                ..64 => int as u32,
                // Wholly above bit 31, or the low bits of a number of 53 significant bits.
                e @ 64..95 => (u.sig << (e - 63)) as u32,
                _ => 0,
            };
            (if u.sign { low.wrapping_neg() } else { low }, !out && !inexact)
        }
        Class::Inf | Class::Quiet | Class::Signalling => {
            env.flags |= Flags::INVALID;
            (0, false)
        }
    }
}
