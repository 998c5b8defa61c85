//! Comparisons, minimum and maximum.

use crate::env::{Env, Flags, NanRule};
use crate::format::*;

/// The relation of two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordering {
    Less,
    Equal,
    Greater,
    /// At least one is NaN.
    Unordered,
}

impl Ordering {
    /// Arm's condition flags as a 4-bit NZCV.
    #[inline]
    pub const fn nzcv(self) -> u32 {
        match self {
            Ordering::Less => 0b1000,
            Ordering::Equal => 0b0110,
            Ordering::Greater => 0b0010,
            Ordering::Unordered => 0b0011,
        }
    }
}

/// The order of two values that are not NaN, as sign and magnitude integers; flushed denormals count as zero.
#[inline(always)]
fn order<F: Format>(a: u64, x: Class, b: u64, y: Class) -> core::cmp::Ordering {
    let key = |bits: u64, class| {
        let magnitude = if class == Class::Zero { 0 } else { (bits & (F::SIGN - 1)) as i64 };
        if bits & F::SIGN != 0 { -magnitude } else { magnitude }
    };
    key(a, x).cmp(&key(b, y))
}

#[inline]
pub(crate) fn compare<F: Format>(a: u64, b: u64, signal_quiet: bool, env: &mut Env) -> Ordering {
    let x = unpack::<F>(a, env).class;
    let y = unpack::<F>(b, env).class;
    if x.is_nan() || y.is_nan() {
        if signal_quiet || x == Class::Signalling || y == Class::Signalling {
            env.raise_invalid(Flags::NONE);
            if env.nan_rule == NanRule::Ppc {
                if x == Class::Signalling || y == Class::Signalling {
                    env.raise(Flags::VXSNAN);
                }
                if signal_quiet {
                    env.raise(Flags::VXVC);
                }
            }
        }
        return Ordering::Unordered;
    }
    match order::<F>(a, x, b, y) {
        core::cmp::Ordering::Less => Ordering::Less,
        core::cmp::Ordering::Equal => Ordering::Equal,
        core::cmp::Ordering::Greater => Ordering::Greater,
    }
}

#[inline]
pub(crate) fn min_max<F: Format>(a: u64, b: u64, max: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if x.class.is_nan() || y.class.is_nan() {
        return nan2::<F>((a, x.class), (b, y.class), env);
    }
    if x.class == Class::Zero && y.class == Class::Zero {
        // Zeros are ordered by sign.
        return zero::<F>(if max { x.sign && y.sign } else { x.sign || y.sign });
    }
    let first = match order::<F>(a, x.class, b, y.class) {
        core::cmp::Ordering::Greater => max,
        core::cmp::Ordering::Less => !max,
        core::cmp::Ordering::Equal => true,
    };
    let (bits, u) = if first { (a, x) } else { (b, y) };
    if u.class == Class::Zero { zero::<F>(u.sign) } else { bits }
}

/// A quiet NaN against a number (or a signalling NaN) gives the other operand.
#[inline]
pub(crate) fn min_max_num<F: Format>(a: u64, b: u64, max: bool, env: &mut Env) -> u64 {
    let quiet = |bits: u64| bits & (F::INF | F::QUIET) == F::INF | F::QUIET;
    let absorbed = inf::<F>(max);
    if env.nan_rule == NanRule::Ppc {
        return ppc_min_max_num::<F>(a, b, max, env);
    }
    match (quiet(a), quiet(b)) {
        (true, false) => min_max::<F>(absorbed, b, max, env),
        (false, true) => min_max::<F>(a, absorbed, max, env),
        _ => min_max::<F>(a, b, max, env),
    }
}

/// As the Power ISA's xsmaxdp and xsmindp: a NaN that does not signal gives way to a number, and to nothing else.
fn ppc_min_max_num<F: Format>(a: u64, b: u64, max: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env).class;
    let y = unpack::<F>(b, env).class;
    match (x, y) {
        (Class::Signalling, _) | (Class::Quiet, Class::Quiet | Class::Signalling) => nan2::<F>((a, x), (b, y), env),
        (_, Class::Signalling) => nan1::<F>(b, y, env),
        (Class::Quiet, _) => b,
        (_, Class::Quiet) => a,
        _ => min_max::<F>(a, b, max, env),
    }
}
