//! Addition, multiplication, division, square root and the fused operations.

use crate::env::{Env, Flags, NanRule};
use crate::format::*;

#[inline]
pub(crate) fn add_sub<F: Format>(a: u64, b: u64, subtract: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let mut y = unpack::<F>(b, env);
    if x.class == Class::Finite && y.class == Class::Finite {
        y.sign ^= subtract;
        return add_finite::<F>(x, y, env);
    }
    if x.class.is_nan() || y.class.is_nan() {
        return nan2::<F>((a, x.class), (b, y.class), env);
    }
    y.sign ^= subtract;
    match (x.class, y.class) {
        (Class::Inf, Class::Inf) if x.sign != y.sign => invalid::<F>(Flags::VXISI, env),
        (Class::Inf, _) => inf::<F>(x.sign),
        (_, Class::Inf) => inf::<F>(y.sign),
        (Class::Zero, Class::Zero) => {
            if x.sign == y.sign {
                zero::<F>(x.sign)
            } else {
                cancelled::<F>(env)
            }
        }
        (Class::Zero, _) => round_pack::<F>(y.sign, y.exp, y.sig, env),
        _ => round_pack::<F>(x.sign, x.exp, x.sig, env),
    }
}

#[inline(always)]
fn add_finite<F: Format>(mut x: Unpacked, mut y: Unpacked, env: &mut Env) -> u64 {
    if (x.exp, x.sig) < (y.exp, y.sig) {
        core::mem::swap(&mut x, &mut y);
    }
    // One bit of room for the carry; at least nine bits below the last place remain, three are needed.
    let big = x.sig >> 1;
    let small = shr_jam(y.sig >> 1, (x.exp - y.exp) as u32);
    let sum = if x.sign == y.sign { big + small } else { big - small };
    if sum == 0 {
        return cancelled::<F>(env);
    }
    let lz = sum.leading_zeros();
    round_pack::<F>(x.sign, x.exp + 1 - lz as i32, sum << lz, env)
}

/// `extended`: zero times infinity is two (FMULX).
#[inline]
pub(crate) fn mul<F: Format>(a: u64, b: u64, extended: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    let sign = x.sign != y.sign;
    if x.class == Class::Finite && y.class == Class::Finite {
        let p = u128::from(x.sig) * u128::from(y.sig);
        let (hi, lo) = ((p >> 64) as u64, p as u64);
        let lz = hi >> 63 ^ 1;
        let sig = hi << lz | u64::from(lo != 0);
        return round_pack::<F>(sign, x.exp + y.exp + 1 - lz as i32, sig, env);
    }
    if x.class.is_nan() || y.class.is_nan() {
        return nan2::<F>((a, x.class), (b, y.class), env);
    }
    match (x.class, y.class) {
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf) => {
            if extended {
                zero::<F>(sign) | ((F::BIAS + 1) as u64) << F::FRAC_BITS
            } else {
                invalid::<F>(Flags::VXIMZ, env)
            }
        }
        (Class::Inf, _) | (_, Class::Inf) => inf::<F>(sign),
        _ => zero::<F>(sign),
    }
}

#[inline]
pub(crate) fn div<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    let sign = x.sign != y.sign;
    if x.class == Class::Finite && y.class == Class::Finite {
        // The quotient of significands is in (1/2, 2): 63 or 64 bits.
        let n = u128::from(x.sig) << 63;
        let d = u128::from(y.sig);
        let q = (n / d) as u64;
        let sticky = u64::from(u128::from(q) * d != n);
        let lz = q >> 63 ^ 1;
        return round_pack::<F>(sign, x.exp - y.exp - lz as i32, q << lz | sticky, env);
    }
    if x.class.is_nan() || y.class.is_nan() {
        return nan2::<F>((a, x.class), (b, y.class), env);
    }
    match (x.class, y.class) {
        (Class::Inf, Class::Inf) => invalid::<F>(Flags::VXIDI, env),
        (Class::Zero, Class::Zero) => invalid::<F>(Flags::VXZDZ, env),
        (Class::Inf, _) => inf::<F>(sign),
        (_, Class::Zero) => {
            env.flags |= Flags::DIV_BY_ZERO;
            inf::<F>(sign)
        }
        _ => zero::<F>(sign),
    }
}

pub(crate) fn sqrt<F: Format>(a: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    match x.class {
        Class::Quiet | Class::Signalling => nan1::<F>(a, x.class, env),
        Class::Zero => zero::<F>(x.sign),
        _ if x.sign => invalid::<F>(Flags::VXSQRT, env),
        Class::Inf => inf::<F>(false),
        Class::Finite => {
            let n = u128::from(x.sig) << (63 + (x.exp & 1));
            let r = n.isqrt();
            let sticky = u64::from(r * r != n);
            round_pack::<F>(false, x.exp >> 1, r as u64 | sticky, env)
        }
    }
}

/// `a × b + c` rounded once.
pub(crate) fn mul_add<F: Format>(a: u64, b: u64, c: u64, env: &mut Env) -> u64 {
    // Arm unpacks the addend first, which matters for nothing but the reader.
    let z = unpack::<F>(c, env);
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    let no_product = matches!((x.class, y.class), (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf));
    if x.class.is_nan() || y.class.is_nan() || z.class.is_nan() {
        let (a, b, c) = ((a, x.class), (b, y.class), (c, z.class));
        return match env.nan_rule {
            NanRule::Arm if no_product && z.class == Class::Quiet => invalid::<F>(Flags::VXIMZ, env),
            NanRule::Arm => nan_first::<F>([c, a, b], env),
            NanRule::X86 => nan_first::<F>([a, b, c], env),
            NanRule::Ppc => {
                if no_product {
                    env.raise_invalid(Flags::VXIMZ);
                }
                nan_first::<F>([a, c, b], env)
            }
        };
    }
    let sign = x.sign != y.sign;
    let inf_product = x.class == Class::Inf || y.class == Class::Inf;
    if no_product || (inf_product && z.class == Class::Inf && z.sign != sign) {
        invalid::<F>(if no_product { Flags::VXIMZ } else { Flags::VXISI }, env)
    } else if inf_product {
        inf::<F>(sign)
    } else if z.class == Class::Inf {
        inf::<F>(z.sign)
    } else {
        fused_finite::<F>(x, y, z, 0, env)
    }
}

/// `(x × y + z) × 2^scale` of zeros and finite numbers.
#[inline]
fn fused_finite<F: Format>(x: Unpacked, y: Unpacked, z: Unpacked, scale: i32, env: &mut Env) -> u64 {
    let sign = x.sign != y.sign;
    if x.class == Class::Zero || y.class == Class::Zero {
        return match z.class {
            Class::Zero if z.sign == sign => zero::<F>(sign),
            Class::Zero => cancelled::<F>(env),
            _ => round_pack::<F>(z.sign, z.exp + scale, z.sig, env),
        };
    }
    let p = u128::from(x.sig) * u128::from(y.sig);
    // Leading one at bit 126 or 127.
    let exp = x.exp + y.exp + 1;
    if z.class == Class::Zero {
        return round_pack128::<F>(sign, exp + scale, p, env);
    }
    // One bit of room for the carry. The product's low 22 bits are zero (53-bit significands), so nothing that a
    // cancellation could bring up is lost: shifting by more than that leaves at most one leading bit to cancel.
    let (mut big, mut big_exp, mut big_sign) = (p >> 1, exp + 1, sign);
    let (mut small, mut small_exp, mut small_sign) = (u128::from(z.sig) << 63, z.exp + 1, z.sign);
    if small_exp > big_exp || (small_exp == big_exp && small > big) {
        core::mem::swap(&mut big, &mut small);
        core::mem::swap(&mut big_exp, &mut small_exp);
        core::mem::swap(&mut big_sign, &mut small_sign);
    }
    let small = shr_jam128(small, (big_exp - small_exp) as u32);
    let sum = if big_sign == small_sign {
        big + small
    } else if big >= small {
        big - small
    } else {
        // The product's leading one may be a place lower than its exponent says.
        big_sign = small_sign;
        small - big
    };
    if sum == 0 {
        return cancelled::<F>(env);
    }
    round_pack128::<F>(big_sign, big_exp + scale, sum, env)
}

/// `(constant − a × b) × 2^scale` rounded once; `of_nothing` if the product is of zero and infinity.
#[inline(always)]
fn step<F: Format>(a: u64, b: u64, constant: Unpacked, scale: i32, of_nothing: u64, env: &mut Env) -> u64 {
    let a = a ^ F::SIGN;
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if x.class.is_nan() || y.class.is_nan() {
        return nan2::<F>((a, x.class), (b, y.class), env);
    }
    match (x.class, y.class) {
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf) => of_nothing,
        (Class::Inf, _) | (_, Class::Inf) => inf::<F>(x.sign != y.sign),
        _ => fused_finite::<F>(x, y, constant, scale, env),
    }
}

/// `2 − a × b` (FRECPS).
pub(crate) fn recip_step<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let two = Unpacked { class: Class::Finite, sign: false, exp: 1, sig: 1 << 63 };
    step::<F>(a, b, two, 0, ((F::BIAS + 1) as u64) << F::FRAC_BITS, env)
}

/// `(3 − a × b) / 2` (FRSQRTS).
pub(crate) fn rsqrt_step<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let three = Unpacked { class: Class::Finite, sign: false, exp: 1, sig: 3 << 62 };
    step::<F>(a, b, three, -1, (F::BIAS as u64) << F::FRAC_BITS | F::QUIET, env)
}
