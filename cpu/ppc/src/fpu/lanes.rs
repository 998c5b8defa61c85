//! One lane of an operation, in single or double precision.

use rhea_float::{Env, Float, Format, Ordering, Rounding};

macro_rules! lane_ops {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// An operation on a lane of single or double precision.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum LaneOp {
            /// Nothing.
            Nothing = 0,
            $($(#[$doc])* $name,)*
        }
        impl LaneOp {
            pub fn from_u32(n: u32) -> LaneOp {
                const ALL: &[LaneOp] = &[LaneOp::Nothing, $(LaneOp::$name,)*];
                ALL.get(n as usize).copied().unwrap_or(LaneOp::Nothing)
            }
        }
    };
}

lane_ops! {
    Add Sub Mul Div Sqrt
    /// `a × b + c`.
    MulAdd
    MulSub
    /// Without the negation, which the caller makes after rounding.
    NegMulAdd
    NegMulSub
    /// Estimates, here as good as it gets.
    Recip Rsqrt
    /// To integral by the environment's rounding, inexact not signalled.
    RoundInt RoundIntExact
    ToS64 ToU64 ToS32 ToU32
    /// From 64 bits, whatever the lane.
    FromS64 FromU64
    /// From the low 32 bits.
    FromS32 FromU32
    /// IEEE maximumNumber and so on of xsmaxdp.
    Max Min
    /// `a > b ? a : b`.
    MaxC MinC
    /// As Java has it.
    MaxJ MinJ
    /// All ones or zero.
    CmpEq CmpGt CmpGe
    Copy
    /// `a` made quiet.
    Quiet
}

fn is_nan<F: Format>(v: u64) -> bool {
    v & (F::SIGN - 1) > F::INF
}

/// The result of a lane, by the environment's rounding.
pub fn lane<F: Float>(op: LaneOp, a: u64, b: u64, c: u64, env: &mut Env) -> u64 {
    let (x, y) = (F::narrow(a), F::narrow(b));
    let one = (F::BIAS as u64) << F::FRAC_BITS;
    let mask = |c: bool| if c { u64::MAX >> (64 - F::BITS) } else { 0 };
    let r = match op {
        LaneOp::Nothing => x,
        LaneOp::Add => F::add(x, y, env),
        LaneOp::Sub => F::sub(x, y, env),
        LaneOp::Mul => F::mul(x, y, env),
        LaneOp::Div => F::div(x, y, env),
        LaneOp::Sqrt => F::sqrt(x, env),
        LaneOp::MulAdd | LaneOp::NegMulAdd => F::mul_add(x, y, F::narrow(c), env),
        LaneOp::MulSub | LaneOp::NegMulSub => {
            let c = if is_nan::<F>(c) { c } else { c ^ F::SIGN };
            F::mul_add(x, y, F::narrow(c), env)
        }
        LaneOp::Recip => F::div(F::narrow(one), x, env),
        LaneOp::Rsqrt => {
            let root = F::sqrt(x, env);
            F::div(F::narrow(one), root, env)
        }
        LaneOp::RoundInt => F::round_to_int(x, env.rounding, false, env),
        LaneOp::RoundIntExact => F::round_to_int(x, env.rounding, true, env),
        LaneOp::ToS64 => return F::to_signed(x, 64, 0, env.rounding, env) as u64,
        LaneOp::ToU64 => return F::to_unsigned(x, 64, 0, env.rounding, env),
        LaneOp::ToS32 => return F::to_signed(x, 32, 0, env.rounding, env) as u64,
        LaneOp::ToU32 => return F::to_unsigned(x, 32, 0, env.rounding, env),
        LaneOp::FromS64 => F::from_signed(a as i64, 0, env),
        LaneOp::FromU64 => F::from_unsigned(a, 0, env),
        LaneOp::FromS32 => F::from_signed(i64::from(a as i32), 0, env),
        LaneOp::FromU32 => F::from_unsigned(u64::from(a as u32), 0, env),
        LaneOp::Max => F::max_num(x, y, env),
        LaneOp::Min => F::min_num(x, y, env),
        LaneOp::MaxC | LaneOp::MinC => {
            let o = F::compare(x, y, false, env);
            let first = o == if op == LaneOp::MaxC { Ordering::Greater } else { Ordering::Less };
            if first { x } else { y }
        }
        LaneOp::MaxJ | LaneOp::MinJ => {
            let o = F::compare(x, y, false, env);
            let max = op == LaneOp::MaxJ;
            match o {
                Ordering::Unordered => {
                    return if is_nan::<F>(a) { a } else { b };
                }
                Ordering::Equal if a & (F::SIGN - 1) == 0 => {
                    let negative = if max { a & b } else { a | b } & F::SIGN;
                    return negative;
                }
                Ordering::Greater => {
                    if max {
                        x
                    } else {
                        y
                    }
                }
                _ => {
                    if max {
                        y
                    } else {
                        x
                    }
                }
            }
        }
        LaneOp::CmpEq => return mask(F::compare(x, y, false, env) == Ordering::Equal),
        LaneOp::CmpGt => return mask(F::compare(x, y, true, env) == Ordering::Greater),
        LaneOp::CmpGe => return mask(matches!(F::compare(x, y, true, env), Ordering::Greater | Ordering::Equal)),
        LaneOp::Copy => {
            if is_nan::<F>(a) {
                F::round_to_int(x, Rounding::TowardZero, false, env)
            } else {
                x
            }
        }
        LaneOp::Quiet => return if is_nan::<F>(a) { a | F::QUIET } else { a },
    };
    F::wide(r)
}
