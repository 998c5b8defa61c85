//! IEEE 754 arithmetic in software: exact values, rounding, NaNs and flags as a guest's manual has them.
//!
//! Values are raw bits. Operations are the associated functions of the formats through the trait [`Float`]:
//!
//! ```
//! use rhea_float::{Env, Flags, Float, F32};
//! let mut env = Env::arm(0);
//! let third = F32::div(1f32.to_bits(), 3f32.to_bits(), &mut env);
//! assert_eq!(f32::from_bits(third), 1f32 / 3f32);
//! assert_eq!(env.flags, Flags::INEXACT);
//! ```

mod arith;
mod bfloat;
mod compare;
mod convert;
pub mod decimal;
mod env;
mod estimate;
pub mod extended;
mod format;
mod integral;
pub mod quad;
mod single;

pub use bfloat::{bf16_dot_add, bf16_mul_add};
pub use compare::Ordering;
pub use convert::{
    convert, convert_with, f16_to_f32, f16_to_f64, f32_to_bf16, f32_to_f16, f32_to_f64, f64_to_f16, f64_to_f32,
    f64_to_f32_odd,
};
pub use env::{Env, Flags, NanRule, Rounding};
pub use estimate::{unsigned_recip_estimate, unsigned_rsqrt_estimate};
pub use format::{Bf16, F16, F32, F64, Format};
pub use integral::to_javascript_int;
pub use single::{load_single, round_to_single, store_single};

/// `c + a × b` of half-precision `a` and `b`, fused, in single precision (FMLAL).
pub fn mul_add_half(a: u16, b: u16, c: u32, env: &mut Env) -> u32 {
    let (a, b) = (convert::widen_half(a, env), convert::widen_half(b, env));
    F32::mul_add(a, b, c, env)
}

macro_rules! operations {
    (
        binary { $($(#[$bdoc:meta])* $bin:ident = $bf:expr;)* }
        unary { $($(#[$udoc:meta])* $un:ident = $uf:expr;)* }
    ) => {
        $($(#[$bdoc])*
        #[inline]
        fn $bin(a: Self::Bits, b: Self::Bits, env: &mut Env) -> Self::Bits {
            Self::narrow(($bf)(Self::wide(a), Self::wide(b), env))
        })*
        $($(#[$udoc])*
        #[inline]
        fn $un(a: Self::Bits, env: &mut Env) -> Self::Bits {
            Self::narrow(($uf)(Self::wide(a), env))
        })*
    };
}

/// The operations of a format, on raw bits.
pub trait Float: Format {
    operations! {
        binary {
            add = |a, b, e| arith::add_sub::<Self>(a, b, false, e);
            /// `a − b`.
            sub = |a, b, e| arith::add_sub::<Self>(a, b, true, e);
            mul = |a, b, e| arith::mul::<Self>(a, b, false, e);
            /// FMULX: zero times infinity is ±2.
            mul_extended = |a, b, e| arith::mul::<Self>(a, b, true, e);
            /// `a / b`.
            div = arith::div::<Self>;
            /// IEEE 754-2019 minimum: NaN if an operand is, −0 below +0 (FMIN).
            min = |a, b, e| compare::min_max::<Self>(a, b, false, e);
            /// As `min` (FMAX).
            max = |a, b, e| compare::min_max::<Self>(a, b, true, e);
            /// IEEE 754-2008 minNum: the number of a number and a quiet NaN (FMINNM).
            min_num = |a, b, e| compare::min_max_num::<Self>(a, b, false, e);
            /// As `min_num` (FMAXNM).
            max_num = |a, b, e| compare::min_max_num::<Self>(a, b, true, e);
            /// `2 − a × b`, fused (FRECPS). A NaN `a` is propagated with its sign changed.
            recip_step = arith::recip_step::<Self>;
            /// `(3 − a × b) / 2`, fused (FRSQRTS). A NaN `a` is propagated with its sign changed.
            rsqrt_step = arith::rsqrt_step::<Self>;
        }
        unary {
            sqrt = arith::sqrt::<Self>;
            /// FRECPE.
            recip_estimate = estimate::recip_estimate::<Self>;
            /// FRSQRTE.
            rsqrt_estimate = estimate::rsqrt_estimate::<Self>;
            /// FRECPX.
            recip_exponent = estimate::recip_exponent::<Self>;
        }
    }

    /// `a × b + c`, rounded once. Arm's FMSUB and FNMADD change the signs of operands first (with [`Float::neg`]).
    #[inline]
    fn mul_add(a: Self::Bits, b: Self::Bits, c: Self::Bits, env: &mut Env) -> Self::Bits {
        Self::narrow(arith::mul_add::<Self>(Self::wide(a), Self::wide(b), Self::wide(c), env))
    }

    /// Changes the sign, also of a NaN.
    #[inline]
    fn neg(a: Self::Bits) -> Self::Bits {
        Self::narrow(Self::wide(a) ^ Self::SIGN)
    }

    /// Clears the sign, also of a NaN.
    #[inline]
    fn abs(a: Self::Bits) -> Self::Bits {
        Self::narrow(Self::wide(a) & !Self::SIGN)
    }

    #[inline]
    fn default_nan(env: &Env) -> Self::Bits {
        Self::narrow(format::default_nan::<Self>(env))
    }

    /// Relation of `a` to `b`. A signalling NaN is invalid, and a quiet one too if `signal_quiet`.
    #[inline]
    fn compare(a: Self::Bits, b: Self::Bits, signal_quiet: bool, env: &mut Env) -> Ordering {
        compare::compare::<Self>(Self::wide(a), Self::wide(b), signal_quiet, env)
    }

    /// `a == b`, quiet (FCMEQ).
    #[inline]
    fn eq(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool {
        Self::compare(a, b, false, env) == Ordering::Equal
    }

    /// `a ≥ b`, signalling (FCMGE).
    #[inline]
    fn ge(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool {
        matches!(Self::compare(a, b, true, env), Ordering::Greater | Ordering::Equal)
    }

    /// `a > b`, signalling (FCMGT).
    #[inline]
    fn gt(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool {
        Self::compare(a, b, true, env) == Ordering::Greater
    }

    /// `|a| ≥ |b|`, signalling (FACGE).
    #[inline]
    fn abs_ge(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool {
        Self::ge(Self::abs(a), Self::abs(b), env)
    }

    /// `|a| > |b|`, signalling (FACGT).
    #[inline]
    fn abs_gt(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool {
        Self::gt(Self::abs(a), Self::abs(b), env)
    }

    /// Rounds to an integral value; inexact is raised only if `signal_inexact` (FRINTX).
    #[inline]
    fn round_to_int(a: Self::Bits, rounding: Rounding, signal_inexact: bool, env: &mut Env) -> Self::Bits {
        Self::narrow(integral::round_to_int::<Self>(Self::wide(a), rounding, signal_inexact, env))
    }

    /// Rounds to an integral value of a signed integer of 32 or 64 `bits`; outside, −2^(bits−1) and invalid (FRINT32X,
    /// FRINT64Z...).
    #[inline]
    fn round_to_int_sized(a: Self::Bits, bits: u32, rounding: Rounding, env: &mut Env) -> Self::Bits {
        Self::narrow(integral::round_to_int_sized::<Self>(Self::wide(a), bits.clamp(8, 64), rounding, env))
    }

    /// `a × 2^fbits` as a signed integer of `bits` (8 to 64), saturating, sign-extended; NaN gives 0.
    #[inline]
    fn to_signed(a: Self::Bits, bits: u32, fbits: u32, rounding: Rounding, env: &mut Env) -> i64 {
        integral::to_signed::<Self>(Self::wide(a), bits.clamp(8, 64), fbits & 0x7f, rounding, env)
    }

    /// `a × 2^fbits` as an unsigned integer of `bits` (8 to 64), saturating; NaN gives 0.
    #[inline]
    fn to_unsigned(a: Self::Bits, bits: u32, fbits: u32, rounding: Rounding, env: &mut Env) -> u64 {
        integral::to_unsigned::<Self>(Self::wide(a), bits.clamp(8, 64), fbits & 0x7f, rounding, env)
    }

    /// `v / 2^fbits`; narrower integers sign-extended.
    #[inline]
    fn from_signed(v: i64, fbits: u32, env: &mut Env) -> Self::Bits {
        Self::narrow(integral::from_magnitude::<Self>(v < 0, v.unsigned_abs(), fbits & 0x7f, env))
    }

    /// `v / 2^fbits`; narrower integers zero-extended.
    #[inline]
    fn from_unsigned(v: u64, fbits: u32, env: &mut Env) -> Self::Bits {
        Self::narrow(integral::from_magnitude::<Self>(false, v, fbits & 0x7f, env))
    }
}

impl<F: Format> Float for F {}
