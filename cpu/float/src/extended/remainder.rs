//! Partial remainders, scaling, and taking numbers apart.

use super::exception::ZERO_DIVIDE;
use super::{BIAS, Class, Env80, F80, INTEGER};

/// What a partial remainder leaves besides its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Partial {
    /// Done: the low three bits of the quotient.
    Complete(u32),
    /// The exponent was reduced, by less than 64; go on.
    Incomplete,
    /// A NaN, or an invalid operation.
    None,
}

/// FPREM (`nearest` false: quotient truncated) and FPREM1 (rounded to nearest).
pub fn partial_remainder(a: F80, b: F80, nearest: bool, env: &mut Env80) -> (F80, Partial) {
    if let Some(nan) = env.nan(&[a, b]) {
        return (nan, Partial::None);
    }
    if a.class() == Class::Infinity || b.class() == Class::Zero {
        return (env.invalid(), Partial::None);
    }
    env.denormal(&[a, b]);
    if env.stops() {
        return (a, Partial::None);
    }
    if a.class() == Class::Zero {
        return (a, Partial::Complete(0));
    }
    if b.class() == Class::Infinity {
        let (e, s) = a.normalized();
        return (env.round_to(a.sign(), e, s, 0, 64), Partial::Complete(0));
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let d = ea - eb;
    let sb = u128::from(sb);
    if d >= 64 {
        // A reduction by a multiple of 32, leaving less than 64.
        let n = (d & 31 | 32) as u32;
        let mut r = u128::from(sa) % sb;
        for _ in 0..n {
            r <<= 1;
            if r >= sb {
                r -= sb;
            }
        }
        return (finish(a.sign(), r, eb + d - n as i32, env), Partial::Incomplete);
    }
    if d < -1 || d < 0 && !nearest {
        return (env.round_to(a.sign(), ea, sa, 0, 64), Partial::Complete(0));
    }
    // Quotient and remainder of `sa × 2^d` by `sb`, the remainder in units of 2^(eb − 64).
    let mut q = 0u64;
    let (mut r, unit);
    if d < 0 {
        r = u128::from(sa);
        unit = eb - 1;
    } else {
        r = u128::from(sa);
        q = u64::from(r >= sb);
        if q != 0 {
            r -= sb;
        }
        for _ in 0..d {
            r <<= 1;
            q <<= 1;
            if r >= sb {
                r -= sb;
                q |= 1;
            }
        }
        unit = eb;
    }
    let mut sign = a.sign();
    if nearest {
        let divisor = if d < 0 { sb << 1 } else { sb };
        let twice = r << 1;
        if twice > divisor || twice == divisor && q & 1 != 0 {
            r = divisor - r;
            sign = !sign;
            q = q.wrapping_add(1);
        }
    }
    let value = if r == 0 { F80::zero(a.sign()) } else { finish(sign, r, unit, env) };
    (value, Partial::Complete(q as u32 & 7))
}

/// `r × 2^(exp − 63)`, exact unless denormal.
fn finish(sign: bool, r: u128, exp: i32, env: &mut Env80) -> F80 {
    if r == 0 {
        return F80::zero(sign);
    }
    let lz = r.leading_zeros();
    let s = r << lz;
    env.round_to(sign, exp + 64 - lz as i32, (s >> 64) as u64, s as u64, 64)
}

/// FSCALE: `a × 2^b`, `b` truncated to an integer.
pub fn scale(a: F80, b: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a, b]) {
        return nan;
    }
    match (a.class(), b.class()) {
        (Class::Zero, Class::Infinity) if !b.sign() => return env.invalid(),
        (Class::Infinity, Class::Infinity) if b.sign() => return env.invalid(),
        (Class::Infinity, _) => {
            env.denormal(&[b]);
            return a;
        }
        (_, Class::Infinity) => {
            env.denormal(&[a]);
            return if b.sign() { F80::zero(a.sign()) } else { F80::infinity(a.sign()) };
        }
        _ => env.denormal(&[a, b]),
    }
    if env.stops() || a.class() == Class::Zero {
        return a;
    }
    let by = if b.class() == Class::Zero {
        0
    } else {
        let (e, s) = b.normalized();
        // More than 2^16 over- or underflows whatever is scaled.
        let m = if e < 0 {
            0
        } else if e > 16 {
            1 << 17
        } else {
            (s >> (63 - e)) as i32
        };
        if b.sign() { -m } else { m }
    };
    let (e, s) = a.normalized();
    env.round_to(a.sign(), e + by, s, 0, 64)
}

/// FXTRACT: the exponent as a number, and the significand with the exponent of one.
pub fn extract(a: F80, env: &mut Env80) -> (F80, F80) {
    if let Some(nan) = env.nan(&[a]) {
        return (nan, nan);
    }
    match a.class() {
        Class::Infinity => (F80::infinity(false), a),
        Class::Zero => {
            env.raise(ZERO_DIVIDE);
            (F80::infinity(true), a)
        }
        _ => {
            env.denormal(&[a]);
            let (e, s) = a.normalized();
            (super::from_int(e.into()), F80::new(a.sign(), BIAS, s | INTEGER))
        }
    }
}
