//! Formats, and the two ends of every operation: unpacking operands and rounding results.
//!
//! Significands are left-justified in 64 bits (the leading one is bit 63), which has room to spare for every binary
//! format of up to 62 significant bits.

use crate::env::{Env, Flags, NanRule, Rounding};

/// A binary interchange format: sign, biased exponent, fraction.
pub trait Format: Copy + 'static {
    /// The integer that holds a value.
    type Bits: Copy + Eq + core::fmt::Debug + core::fmt::LowerHex;
    const EXP_BITS: u32;
    const FRAC_BITS: u32;
    /// Denormals follow the half-precision switches of [`Env`].
    const HALF: bool = false;

    fn wide(bits: Self::Bits) -> u64;
    /// Drops high bits.
    fn narrow(wide: u64) -> Self::Bits;

    /// Added to or taken from the exponent where an enabled exception delivers a scaled result: 192, 1536.
    const TRAP_SCALE: i32 = 3 << (Self::EXP_BITS - 2);
    const BITS: u32 = 1 + Self::EXP_BITS + Self::FRAC_BITS;
    const EXP_MAX: i32 = (1 << Self::EXP_BITS) - 1;
    const BIAS: i32 = Self::EXP_MAX >> 1;
    const SIGN: u64 = 1 << (Self::BITS - 1);
    const FRAC_MASK: u64 = (1 << Self::FRAC_BITS) - 1;
    const INF: u64 = (Self::EXP_MAX as u64) << Self::FRAC_BITS;
    /// The fraction bit that tells a quiet NaN.
    const QUIET: u64 = 1 << (Self::FRAC_BITS - 1);
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident $bits:ident $exp:literal $frac:literal $half:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Format for $name {
            type Bits = $bits;
            const EXP_BITS: u32 = $exp;
            const FRAC_BITS: u32 = $frac;
            const HALF: bool = $half;
            #[inline(always)]
            fn wide(bits: $bits) -> u64 {
                u64::from(bits)
            }
            #[inline(always)]
            fn narrow(wide: u64) -> $bits {
                wide as $bits
            }
        }
    )*};
}

formats! {
    /// IEEE binary16.
    F16 u16 5 10 true;
    /// IEEE binary32.
    F32 u32 8 23 false;
    /// IEEE binary64.
    F64 u64 11 52 false;
    /// bfloat16: the upper half of a binary32.
    Bf16 u16 8 7 false;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Zero,
    Finite,
    Inf,
    Quiet,
    Signalling,
}

impl Class {
    #[inline(always)]
    pub(crate) fn is_nan(self) -> bool {
        matches!(self, Class::Quiet | Class::Signalling)
    }
}

/// A value apart. Of class `Finite` it is `sig × 2^(exp − 63)`, bit 63 of `sig` set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked {
    pub class: Class,
    pub sign: bool,
    pub exp: i32,
    pub sig: u64,
}

/// Unpacks an operand of an arithmetic operation.
#[inline(always)]
pub(crate) fn unpack<F: Format>(bits: u64, env: &mut Env) -> Unpacked {
    let flush = if F::HALF { env.flush_inputs_f16 } else { env.flush_inputs };
    unpack_with::<F>(bits, flush, false, env)
}

/// Unpacks with the given treatment of denormals. `alt`: the highest exponent is a number's.
#[inline(always)]
pub(crate) fn unpack_with<F: Format>(bits: u64, flush: bool, alt: bool, env: &mut Env) -> Unpacked {
    let sign = bits & F::SIGN != 0;
    let field = (bits >> F::FRAC_BITS) as i32 & F::EXP_MAX;
    let frac = bits & F::FRAC_MASK;
    let mut u = Unpacked { class: Class::Finite, sign, exp: field - F::BIAS, sig: 0 };
    if field == 0 {
        if frac == 0 {
            u.class = Class::Zero;
        } else if flush {
            if !F::HALF {
                env.flags |= Flags::INPUT_DENORMAL;
            }
            u.class = Class::Zero;
        } else {
            let lz = frac.leading_zeros();
            u.sig = frac << lz;
            // The fraction's top bit (lz = 64 − FRAC_BITS) weighs 2^−BIAS.
            u.exp = (64 - F::FRAC_BITS) as i32 - lz as i32 - F::BIAS;
        }
    } else if field == F::EXP_MAX && !alt {
        u.class = if frac == 0 {
            Class::Inf
        } else if frac & F::QUIET != 0 {
            Class::Quiet
        } else {
            Class::Signalling
        };
    } else {
        u.sig = 1 << 63 | frac << (63 - F::FRAC_BITS);
    }
    u
}

/// Shifts right; a lost one sets bit 0.
#[inline(always)]
pub(crate) fn shr_jam(x: u64, n: u32) -> u64 {
    if n < 64 { x >> n | u64::from(x & ((1 << n) - 1) != 0) } else { u64::from(x != 0) }
}

/// As [`shr_jam`].
#[inline(always)]
pub(crate) fn shr_jam128(x: u128, n: u32) -> u128 {
    if n < 128 { x >> n | u128::from(x & ((1 << n) - 1) != 0) } else { u128::from(x != 0) }
}

#[inline(always)]
pub(crate) fn zero<F: Format>(sign: bool) -> u64 {
    if sign { F::SIGN } else { 0 }
}

#[inline(always)]
pub(crate) fn inf<F: Format>(sign: bool) -> u64 {
    zero::<F>(sign) | F::INF
}

#[inline(always)]
pub(crate) fn max_normal<F: Format>(sign: bool) -> u64 {
    zero::<F>(sign) | (F::INF - 1)
}

/// The sign of an exact zero sum of numbers of opposite signs.
#[inline(always)]
pub(crate) fn cancelled<F: Format>(env: &Env) -> u64 {
    zero::<F>(env.rounding == Rounding::TowardNegative)
}

pub(crate) fn default_nan<F: Format>(env: &Env) -> u64 {
    zero::<F>(env.nan_rule == NanRule::X86) | F::INF | F::QUIET
}

/// The result of an invalid operation.
#[cold]
pub(crate) fn invalid<F: Format>(cause: Flags, env: &mut Env) -> u64 {
    env.raise_invalid(cause);
    default_nan::<F>(env)
}

/// The result of an operation on one NaN.
#[cold]
pub(crate) fn nan1<F: Format>(bits: u64, class: Class, env: &mut Env) -> u64 {
    if class == Class::Signalling {
        env.raise_invalid(Flags::VXSNAN);
    }
    if env.default_nan { default_nan::<F>(env) } else { bits | F::QUIET }
}

/// The result of an operation on two operands of which at least one is NaN.
#[cold]
pub(crate) fn nan2<F: Format>(a: (u64, Class), b: (u64, Class), env: &mut Env) -> u64 {
    nan_first::<F>([a, b], env)
}

/// The first operand that is NaN by the guest's order of precedence.
#[cold]
pub(crate) fn nan_first<F: Format>(ops: impl IntoIterator<Item = (u64, Class)> + Clone, env: &mut Env) -> u64 {
    let signalling = ops.clone().into_iter().find(|o| o.1 == Class::Signalling);
    if signalling.is_some() {
        env.raise_invalid(Flags::VXSNAN);
    }
    if env.default_nan {
        return default_nan::<F>(env);
    }
    let first = if env.nan_rule == NanRule::Arm { signalling } else { None };
    match first.or_else(|| ops.into_iter().find(|o| o.1.is_nan())) {
        Some((bits, _)) => bits | F::QUIET,
        None => default_nan::<F>(env),
    }
}

/// Whether a magnitude with the kept part's lowest bit `odd` and the discarded part `rest` (in units where `half` is
/// half of the last place) is rounded up.
#[inline(always)]
pub(crate) fn rounds_up(rounding: Rounding, sign: bool, odd: bool, rest: u64, half: u64) -> bool {
    match rounding {
        Rounding::NearestEven => rest > half || (rest == half && odd),
        Rounding::NearestAway => rest >= half,
        Rounding::TowardPositive => rest != 0 && !sign,
        Rounding::TowardNegative => rest != 0 && sign,
        Rounding::TowardZero => false,
        Rounding::ToOdd => rest != 0 && !odd,
    }
}

/// Rounds `sig × 2^(exp − 63)` (bit 63 of `sig` set, bit 0 sticky) by the environment.
#[inline(always)]
pub(crate) fn round_pack<F: Format>(sign: bool, exp: i32, sig: u64, env: &mut Env) -> u64 {
    let flush = if F::HALF { env.flush_outputs_f16 } else { env.flush_outputs };
    round_pack_with::<F>(sign, exp, sig, env.rounding, flush, false, env)
}

/// Rounds with the given mode and treatment of tiny results. `alt`: Arm's alternative half-precision format.
#[inline(always)]
pub(crate) fn round_pack_with<F: Format>(
    sign: bool,
    exp: i32,
    sig: u64,
    rounding: Rounding,
    flush: bool,
    alt: bool,
    env: &mut Env,
) -> u64 {
    let shift = 63 - F::FRAC_BITS;
    let (mask, half) = ((1u64 << shift) - 1, 1u64 << (shift - 1));
    let mut biased = exp.saturating_add(F::BIAS);
    let (mut m, mut tiny) = (sig, false);
    if biased < 1 {
        // Rounded with unbounded exponent, only an exponent of −BIAS can carry to the least normal number.
        tiny = env.tininess_before_rounding || biased < 0 || {
            let up = rounds_up(rounding, sign, m >> shift & 1 != 0, m & mask, half);
            !(up && m >> shift == (1 << (F::FRAC_BITS + 1)) - 1)
        };
        if flush && tiny {
            env.flags |= Flags::UNDERFLOW;
            if env.flush_raises_inexact {
                env.flags |= Flags::INEXACT;
            }
            return zero::<F>(sign);
        }
        if env.trap_underflow && tiny {
            env.flags |= Flags::UNDERFLOW;
            biased = biased.saturating_add(F::TRAP_SCALE).max(1);
        } else {
            m = shr_jam(m, 1i32.saturating_sub(biased) as u32);
        }
    }
    let rest = m & mask;
    let up = rounds_up(rounding, sign, m >> shift & 1 != 0, rest, half);
    let kept = (m >> shift) + u64::from(up);
    // The implicit one, or a carry out of the fraction, adds to the exponent field.
    let magnitude = (u64::from(biased.clamp(1, F::EXP_MAX + 2) as u32 - 1) << F::FRAC_BITS) + kept;
    if alt {
        if magnitude >= F::SIGN {
            env.flags |= Flags::INVALID;
            return zero::<F>(sign) | (F::SIGN - 1);
        }
    } else if magnitude >= F::INF {
        if env.trap_overflow {
            env.flags |= if rest != 0 { Flags::OVERFLOW | Flags::INEXACT } else { Flags::OVERFLOW };
            let scaled = biased.saturating_sub(F::TRAP_SCALE).clamp(1, F::EXP_MAX);
            return zero::<F>(sign) | ((u64::from(scaled as u32 - 1) << F::FRAC_BITS) + kept);
        }
        env.flags |= Flags::OVERFLOW | Flags::INEXACT;
        return if overflows_to_inf(rounding, sign) { inf::<F>(sign) } else { max_normal::<F>(sign) };
    }
    if rest != 0 {
        env.flags |= if tiny { Flags::UNDERFLOW | Flags::INEXACT } else { Flags::INEXACT };
    }
    zero::<F>(sign) | magnitude
}

#[inline(always)]
pub(crate) fn overflows_to_inf(rounding: Rounding, sign: bool) -> bool {
    match rounding {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::TowardPositive => !sign,
        Rounding::TowardNegative => sign,
        Rounding::TowardZero | Rounding::ToOdd => false,
    }
}

/// Rounds `sig × 2^(exp − 127)`, `sig` not zero, its leading one anywhere.
#[inline(always)]
pub(crate) fn round_pack128<F: Format>(sign: bool, exp: i32, sig: u128, env: &mut Env) -> u64 {
    let lz = sig.leading_zeros();
    let s = sig << lz;
    round_pack::<F>(sign, exp - lz as i32, (s >> 64) as u64 | u64::from(s as u64 != 0), env)
}
