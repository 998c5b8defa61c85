//! Conversions between formats.

use crate::env::{Env, Flags, Rounding};
use crate::format::*;

/// Converts with the given rounding. Half precision is Arm's alternative format if `env.alt_half`, and is never
/// flushed.
#[inline]
pub fn convert_with<S: Format, D: Format>(a: S::Bits, rounding: Rounding, env: &mut Env) -> D::Bits {
    let a = S::wide(a);
    let u = unpack_with::<S>(a, !S::HALF && env.flush_inputs, S::HALF && env.alt_half, env);
    let alt = D::HALF && env.alt_half;
    D::narrow(match u.class {
        Class::Quiet | Class::Signalling => {
            if u.class == Class::Signalling || alt {
                env.raise_invalid(Flags::VXSNAN);
            }
            if alt {
                zero::<D>(u.sign)
            } else if env.default_nan {
                default_nan::<D>(env)
            } else {
                let frac = (a & S::FRAC_MASK) << (63 - S::FRAC_BITS) >> (63 - D::FRAC_BITS);
                inf::<D>(u.sign) | D::QUIET | frac
            }
        }
        Class::Inf if alt => {
            env.flags |= Flags::INVALID;
            zero::<D>(u.sign) | (D::SIGN - 1)
        }
        Class::Inf => inf::<D>(u.sign),
        Class::Zero => zero::<D>(u.sign),
        Class::Finite => round_pack_with::<D>(u.sign, u.exp, u.sig, rounding, !D::HALF && env.flush_outputs, alt, env),
    })
}

/// Converts with the environment's rounding.
#[inline]
pub fn convert<S: Format, D: Format>(a: S::Bits, env: &mut Env) -> D::Bits {
    convert_with::<S, D>(a, env.rounding, env)
}

macro_rules! wrappers {
    ($($name:ident $from:ident $to:ident;)*) => {$(
        /// See [`convert`].
        pub fn $name(a: <$from as Format>::Bits, env: &mut Env) -> <$to as Format>::Bits {
            convert::<$from, $to>(a, env)
        }
    )*};
}

wrappers! {
    f16_to_f32 F16 F32;
    f16_to_f64 F16 F64;
    f32_to_f16 F32 F16;
    f32_to_f64 F32 F64;
    f64_to_f16 F64 F16;
    f64_to_f32 F64 F32;
    f32_to_bf16 F32 Bf16;
}

/// Binary64 to binary32, rounding to odd (FCVTXN).
pub fn f64_to_f32_odd(a: u64, env: &mut Env) -> u32 {
    convert_with::<F64, F32>(a, Rounding::ToOdd, env)
}

/// A half-precision operand of a widening operation: exact; a signalling NaN stays signalling.
pub(crate) fn widen_half(a: u16, env: &mut Env) -> u32 {
    let wide = u64::from(a);
    let u = unpack::<F16>(wide, env);
    let bits = match u.class {
        Class::Zero => zero::<F32>(u.sign),
        Class::Finite => {
            zero::<F32>(u.sign) | ((u.exp + F32::BIAS) as u64) << F32::FRAC_BITS | (u.sig << 1) >> (64 - F32::FRAC_BITS)
        }
        _ => inf::<F32>(u.sign) | (wide & F16::FRAC_MASK) << (F32::FRAC_BITS - F16::FRAC_BITS),
    };
    bits as u32
}
