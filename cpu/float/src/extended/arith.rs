//! Sums, products, quotients, square roots, comparisons.

use super::exception::ZERO_DIVIDE;
use super::{Class, Env80, F80};
use crate::Ordering;
use crate::format::shr_jam128;

pub fn add(a: F80, b: F80, env: &mut Env80) -> F80 {
    sum(a, b, false, env)
}

/// `a − b`.
pub fn sub(a: F80, b: F80, env: &mut Env80) -> F80 {
    sum(a, b, true, env)
}

fn sum(a: F80, b: F80, subtract: bool, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a, b]) {
        return nan;
    }
    let b = if subtract { b.negated() } else { b };
    let (ca, cb) = (a.class(), b.class());
    match (ca == Class::Infinity, cb == Class::Infinity) {
        (true, true) if a.sign() != b.sign() => return env.invalid(),
        (true, _) => {
            env.denormal(&[b]);
            return a;
        }
        (_, true) => {
            env.denormal(&[a]);
            return b;
        }
        _ => env.denormal(&[a, b]),
    }
    if env.stops() {
        return F80::ZERO;
    }
    match (ca == Class::Zero, cb == Class::Zero) {
        (true, true) => return if a.sign() == b.sign() { a } else { env.cancelled() },
        (true, _) => return exact(b, env),
        (_, true) => return exact(a, env),
        _ => {}
    }
    let ((mut ea, mut sa), (mut eb, mut sb)) = (a.normalized(), b.normalized());
    let mut sign = a.sign();
    if ea < eb || ea == eb && sa < sb {
        (ea, sa, eb, sb) = (eb, sb, ea, sa);
        sign = b.sign();
    }
    // One bit of room for the carry.
    let x = u128::from(sa) << 63;
    let y = shr_jam128(u128::from(sb) << 63, (ea - eb) as u32);
    let v = if a.sign() == b.sign() { x + y } else { x - y };
    if v == 0 {
        return env.cancelled();
    }
    let lz = v.leading_zeros();
    let v = v << lz;
    env.round(sign, ea + 1 - lz as i32, (v >> 64) as u64, v as u64)
}

/// A number rounded to the precision.
fn exact(a: F80, env: &mut Env80) -> F80 {
    let (e, s) = a.normalized();
    env.round(a.sign(), e, s, 0)
}

pub fn mul(a: F80, b: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a, b]) {
        return nan;
    }
    let (ca, cb) = (a.class(), b.class());
    let sign = a.sign() != b.sign();
    let any = |c: Class| ca == c || cb == c;
    if any(Class::Infinity) && any(Class::Zero) {
        return env.invalid();
    }
    env.denormal(&[a, b]);
    if env.stops() {
        return F80::ZERO;
    }
    if any(Class::Infinity) {
        return F80::infinity(sign);
    }
    if any(Class::Zero) {
        return F80::zero(sign);
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let v = u128::from(sa) * u128::from(sb);
    let lz = v.leading_zeros();
    let v = v << lz;
    env.round(sign, ea + eb + 1 - lz as i32, (v >> 64) as u64, v as u64)
}

/// `a / b`.
pub fn div(a: F80, b: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a, b]) {
        return nan;
    }
    let sign = a.sign() != b.sign();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return env.invalid(),
        (Class::Infinity, _) => {
            env.denormal(&[b]);
            return F80::infinity(sign);
        }
        (_, Class::Infinity) => {
            env.denormal(&[a]);
            return F80::zero(sign);
        }
        (_, Class::Zero) => {
            env.raise(ZERO_DIVIDE);
            return F80::infinity(sign);
        }
        (Class::Zero, _) => {
            env.denormal(&[b]);
            return F80::zero(sign);
        }
        _ => env.denormal(&[a, b]),
    }
    if env.stops() {
        return F80::ZERO;
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let (shift, exp) = if sa >= sb { (63, ea - eb) } else { (64, ea - eb - 1) };
    let n = u128::from(sa) << shift;
    let d = u128::from(sb);
    let (q, r) = ((n / d) as u64, n % d);
    let (low, rest) = (((r << 64) / d) as u64, (r << 64) % d);
    env.round(sign, exp, q, low | u64::from(rest != 0))
}

pub fn sqrt(a: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a]) {
        return nan;
    }
    match a.class() {
        Class::Zero => return a,
        _ if a.sign() => return env.invalid(),
        Class::Infinity => return a,
        _ => env.denormal(&[a]),
    }
    if env.stops() {
        return F80::ZERO;
    }
    let (e, s) = a.normalized();
    let n = u128::from(s) << if e & 1 == 0 { 63 } else { 64 };
    let root = n.isqrt();
    let rest = n - root * root;
    // The next bit is one if the rest is more than the root; it is never exactly a half.
    let low = if rest > root { 1 << 63 | 1 } else { u64::from(rest != 0) };
    env.round(false, e >> 1, root as u64, low)
}

/// Relation of `a` to `b`. A signalling NaN or unsupported operand is invalid, and a quiet NaN too if `signal_quiet`.
pub fn compare(a: F80, b: F80, signal_quiet: bool, env: &mut Env80) -> Ordering {
    let any = |c: Class| a.class() == c || b.class() == c;
    if any(Class::Unsupported) || a.is_nan() || b.is_nan() {
        if signal_quiet || any(Class::Unsupported) || any(Class::Signalling) {
            env.invalid();
        }
        return Ordering::Unordered;
    }
    env.denormal(&[a, b]);
    let (za, zb) = (a.class() == Class::Zero, b.class() == Class::Zero);
    if za && zb {
        return Ordering::Equal;
    }
    let key = |v: F80| {
        // A pseudo-denormal's exponent is really one.
        let exp = if v.exponent() == 0 { (v.significand >> 63) as i32 } else { v.exponent() };
        let magnitude = i128::from(exp) << 64 | i128::from(v.significand);
        if v.sign() { -magnitude } else { magnitude }
    };
    match key(a).cmp(&key(b)) {
        core::cmp::Ordering::Less => Ordering::Less,
        core::cmp::Ordering::Equal => Ordering::Equal,
        core::cmp::Ordering::Greater => Ordering::Greater,
    }
}
