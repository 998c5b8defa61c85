//! Arm's reciprocal and reciprocal square root estimates (8 bits of precision).

use crate::env::{Env, Flags};
use crate::format::*;

/// Of 256..=511 (in units of 1/512): the reciprocal, 256..=511 (in units of 1/256).
const fn recip_entry(a: u32) -> u16 {
    let a = a * 2 + 1;
    ((1u32 << 19) / a).div_ceil(2) as u16
}

/// Of 128..=511 (in units of 1/512): the reciprocal square root, 256..=511 (in units of 1/256).
const fn rsqrt_entry(a: u32) -> u16 {
    let a = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
    let mut b = 512;
    while a * (b + 1) * (b + 1) < 1 << 28 {
        b += 1;
    }
    b.div_ceil(2) as u16
}

static RECIP: [u16; 256] = {
    let mut t = [0; 256];
    let mut i = 0;
    while i < 256 {
        t[i] = recip_entry(i as u32 + 256);
        i += 1;
    }
    t
};

static RSQRT: [u16; 384] = {
    let mut t = [0; 384];
    let mut i = 0;
    while i < 384 {
        t[i] = rsqrt_entry(i as u32 + 128);
        i += 1;
    }
    t
};

/// `a`: 256..=511.
fn recip_table(a: u32) -> u64 {
    u64::from(RECIP[(a & 0xff) as usize])
}

/// `a`: 128..=511.
fn rsqrt_table(a: u32) -> u64 {
    u64::from(RSQRT[(a.clamp(128, 511) - 128) as usize])
}

/// The fraction of an estimate in units of 1/256 in a format.
fn fraction<F: Format>(estimate: u64) -> u64 {
    (estimate & 0xff) << 48 >> (56 - F::FRAC_BITS)
}

/// FRECPE.
pub(crate) fn recip_estimate<F: Format>(a: u64, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    match u.class {
        Class::Quiet | Class::Signalling => return nan1::<F>(a, u.class, env),
        Class::Inf => return zero::<F>(u.sign),
        Class::Zero => {
            env.flags |= Flags::DIV_BY_ZERO;
            return inf::<F>(u.sign);
        }
        Class::Finite => {}
    }
    if u.exp < -F::BIAS - 1 {
        env.flags |= Flags::OVERFLOW | Flags::INEXACT;
        return if overflows_to_inf(env.rounding, u.sign) { inf::<F>(u.sign) } else { max_normal::<F>(u.sign) };
    }
    let flush = if F::HALF { env.flush_outputs_f16 } else { env.flush_outputs };
    if flush && u.exp >= F::BIAS - 1 {
        env.flags |= Flags::UNDERFLOW;
        return zero::<F>(u.sign);
    }
    let estimate = recip_table((u.sig >> 55) as u32);
    // In 1.fraction form with the format's fraction width; results of exponent 0 and −1 are denormal.
    let mut frac = fraction::<F>(estimate);
    let mut exp = F::BIAS - 1 - u.exp;
    if exp < 1 {
        frac = (frac | 1 << F::FRAC_BITS) >> (1 - exp);
        exp = 0;
    }
    zero::<F>(u.sign) | (exp as u64) << F::FRAC_BITS | frac
}

/// FRSQRTE.
pub(crate) fn rsqrt_estimate<F: Format>(a: u64, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    match u.class {
        Class::Quiet | Class::Signalling => return nan1::<F>(a, u.class, env),
        Class::Zero => {
            env.flags |= Flags::DIV_BY_ZERO;
            return inf::<F>(u.sign);
        }
        _ if u.sign => return invalid::<F>(Flags::VXSQRT, env),
        Class::Inf => return 0,
        Class::Finite => {}
    }
    let biased = u.exp + F::BIAS;
    let scaled = if biased & 1 == 0 { u.sig >> 55 } else { u.sig >> 56 };
    let estimate = rsqrt_table(scaled as u32);
    // Of biased exponents: (3 × BIAS − 1 − biased) / 2.
    let exp = (3 * F::BIAS - 1 - biased) >> 1;
    (exp as u64) << F::FRAC_BITS | fraction::<F>(estimate)
}

/// FRECPX.
pub(crate) fn recip_exponent<F: Format>(a: u64, env: &mut Env) -> u64 {
    let u = unpack::<F>(a, env);
    if u.class.is_nan() {
        return nan1::<F>(a, u.class, env);
    }
    let field = a & F::INF;
    let exp = if field == 0 { F::INF - (1 << F::FRAC_BITS) } else { field ^ F::INF };
    zero::<F>(u.sign) | exp
}

/// URECPE.
pub fn unsigned_recip_estimate(a: u32) -> u32 {
    if a < 1 << 31 { u32::MAX } else { (recip_table(a >> 23) << 23) as u32 }
}

/// URSQRTE.
pub fn unsigned_rsqrt_estimate(a: u32) -> u32 {
    if a < 1 << 30 { u32::MAX } else { (rsqrt_table(a >> 23) << 23) as u32 }
}
