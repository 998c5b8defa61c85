//! Floating-point lane operations in software: half precision, estimates and steps, fixed point, bfloat16.

use super::desc::{Desc, lane_u, place};
use super::int::lane_ops;
use super::{environment, raise};
use crate::state::ArmCpu;
use rhea_float::{Env, F16, F32, F64, Float, Ordering, Rounding};
use rhea_ir::Lane;

lane_ops! {
    /// Operations whose operands and result have one format.
    FpOp {
        Add
        Sub
        Mul
        MulX
        Div
        Min
        Max
        MinNum
        MaxNum
        Eq
        Ge
        Gt
        RecipStep
        RsqrtStep
        Sqrt
        RecipEst
        RsqrtEst
        RecipExp
        /// To integral; inexact as the descriptor says.
        Round
        /// To integral of as many bits as the immediate says (FRINT32Z...).
        RoundSized
        /// To an integer of the lane's size with the immediate's fraction bits.
        ToS
        ToU
        FromS
        FromU
        /// `a × b + c`.
        MulAdd
    }
}

lane_ops! {
    /// Operations between formats. `lane` is that of S, except for NarrowOdd.
    CvtOp {
        WidenHalf
        NarrowHalf
        NarrowBf16
        NarrowOdd
        /// Operands (accumulator, a, b), as for the following.
        MulAddHalf
        Bf16Dot
        Bf16Matrix
        Bf16MulBottom
        Bf16MulTop
    }
}

fn rounding(desc: Desc, env: &Env) -> Rounding {
    desc.round().and_then(Rounding::from_u32).unwrap_or(env.rounding)
}

/// One lane of an operation in format `F`.
fn lane<F: Float>(op: FpOp, desc: Desc, a: u64, b: u64, c: u64, env: &mut Env) -> u64 {
    let (x, y) = (F::narrow(a), F::narrow(b));
    let mask = |c: bool| if c { u64::MAX } else { 0 };
    let fbits = desc.immediate();
    let size = F::BITS;
    let signed = ((a << (64 - size)) as i64) >> (64 - size);
    let r = match op {
        FpOp::Add => F::add(x, y, env),
        FpOp::Sub => F::sub(x, y, env),
        FpOp::Mul => F::mul(x, y, env),
        FpOp::MulX => F::mul_extended(x, y, env),
        FpOp::Div => F::div(x, y, env),
        FpOp::Min => F::min(x, y, env),
        FpOp::Max => F::max(x, y, env),
        FpOp::MinNum => F::min_num(x, y, env),
        FpOp::MaxNum => F::max_num(x, y, env),
        FpOp::Eq => return mask(F::eq(x, y, env)),
        FpOp::Ge => return mask(F::ge(x, y, env)),
        FpOp::Gt => return mask(F::gt(x, y, env)),
        FpOp::RecipStep => F::recip_step(x, y, env),
        FpOp::RsqrtStep => F::rsqrt_step(x, y, env),
        FpOp::Sqrt => F::sqrt(x, env),
        FpOp::RecipEst => F::recip_estimate(x, env),
        FpOp::RsqrtEst => F::rsqrt_estimate(x, env),
        FpOp::RecipExp => F::recip_exponent(x, env),
        FpOp::Round => F::round_to_int(x, rounding(desc, env), desc.signals_inexact(), env),
        FpOp::RoundSized => F::round_to_int_sized(x, fbits, rounding(desc, env), env),
        FpOp::ToS => return F::to_signed(x, size, fbits, rounding(desc, env), env) as u64,
        FpOp::ToU => return F::to_unsigned(x, size, fbits, rounding(desc, env), env),
        FpOp::FromS => F::from_signed(signed, fbits, env),
        FpOp::FromU => F::from_unsigned(a, fbits, env),
        FpOp::MulAdd => F::mul_add(x, y, F::narrow(c), env),
    };
    F::wide(r)
}

fn all_lanes<F: Float>(op: FpOp, desc: Desc, v: [u128; 3], env: &mut Env) -> u128 {
    let l = desc.lane();
    let mut r = 0;
    for i in 0..desc.count().min(l.count()) {
        let [a, b, c] = v.map(|v| lane_u(v, l, i));
        r |= place(lane::<F>(op, desc, a, b, c, env), l, i);
    }
    r
}

/// All active lanes of the operation; the others are zero.
pub fn lanes(desc: Desc, v: [u128; 3], env: &mut Env) -> u128 {
    let Some(op) = FpOp::from_u32(desc.op()) else { return 0 };
    match desc.lane() {
        Lane::H => all_lanes::<F16>(op, desc, v, env),
        Lane::S => all_lanes::<F32>(op, desc, v, env),
        Lane::D => all_lanes::<F64>(op, desc, v, env),
        Lane::B => 0,
    }
}

/// The active lanes of an operation between formats.
pub fn convert_lanes(desc: Desc, v: [u128; 3], env: &mut Env) -> u128 {
    let Some(op) = CvtOp::from_u32(desc.op()) else { return 0 };
    let [acc, a, b] = v;
    let h = |v: u128, i: u32| lane_u(v, Lane::H, i) as u16;
    let s = |v: u128, i: u32| lane_u(v, Lane::S, i) as u32;
    let mut r = 0;
    for i in 0..desc.count().min(desc.lane().count()) {
        let x = match op {
            CvtOp::WidenHalf => rhea_float::f16_to_f32(h(acc, i), env),
            CvtOp::NarrowHalf | CvtOp::NarrowBf16 => {
                let x = s(acc, i);
                let x = if op == CvtOp::NarrowHalf {
                    rhea_float::f32_to_f16(x, env)
                } else {
                    rhea_float::f32_to_bf16(x, env)
                };
                r |= place(x as u64, Lane::H, i);
                continue;
            }
            CvtOp::NarrowOdd => rhea_float::f64_to_f32_odd(lane_u(acc, Lane::D, i), env),
            CvtOp::MulAddHalf => rhea_float::mul_add_half(h(a, i), h(b, i), s(acc, i), env),
            CvtOp::Bf16Dot => rhea_float::bf16_dot_add(s(a, i), s(b, i), s(acc, i)),
            CvtOp::Bf16Matrix => {
                // Row of a: two words, row of b (a column of the second matrix): two words.
                let (row, column) = (i & 2, (i & 1) * 2);
                let sum = rhea_float::bf16_dot_add(s(a, row), s(b, column), s(acc, i));
                rhea_float::bf16_dot_add(s(a, row + 1), s(b, column + 1), sum)
            }
            CvtOp::Bf16MulBottom => rhea_float::bf16_mul_add(h(a, 2 * i), h(b, 2 * i), s(acc, i), env),
            CvtOp::Bf16MulTop => rhea_float::bf16_mul_add(h(a, 2 * i + 1), h(b, 2 * i + 1), s(acc, i), env),
        };
        r |= place(x as u64, Lane::S, i);
    }
    r
}

/// Entry over [`lanes`]: descriptor, then up to three vectors.
pub extern "C" fn fp_lanes(cpu: &mut ArmCpu, desc: u64, _: u64, _: u64, _: u64) -> u64 {
    let mut env = environment(cpu);
    let s = &cpu.header.scratch;
    cpu.header.scratch[7] = lanes(Desc(desc as u32), [s[0], s[1], s[2]], &mut env);
    raise(cpu, &env);
    0
}

/// Entry over [`convert_lanes`].
pub extern "C" fn cvt_lanes(cpu: &mut ArmCpu, desc: u64, _: u64, _: u64, _: u64) -> u64 {
    let mut env = environment(cpu);
    let s = &cpu.header.scratch;
    cpu.header.scratch[7] = convert_lanes(Desc(desc as u32), [s[0], s[1], s[2]], &mut env);
    raise(cpu, &env);
    0
}

/// Arguments (1 if signalling, a, b): packed flags of a half-precision compare.
pub extern "C" fn half_cmp(cpu: &mut ArmCpu, signal: u64, a: u64, b: u64, _: u64) -> u64 {
    let mut env = environment(cpu);
    let o = F16::compare(a as u16, b as u16, signal != 0, &mut env);
    raise(cpu, &env);
    // N 15, Z 14, C 8, V 0.
    match o {
        Ordering::Less => 1 << 15,
        Ordering::Equal => 1 << 14 | 1 << 8,
        Ordering::Greater => 1 << 8,
        Ordering::Unordered => 1 << 8 | 1,
    }
}

fn to_int<F: Float>(desc: Desc, x: u64, width: u32, env: &mut Env) -> u64 {
    let (x, r, fbits) = (F::narrow(x), rounding(desc, env), desc.immediate());
    let v = if desc.op() == FpOp::ToU as u32 {
        F::to_unsigned(x, width, fbits, r, env)
    } else {
        F::to_signed(x, width, fbits, r, env) as u64
    };
    if width == 32 { v as u32 as u64 } else { v }
}

/// Arguments (descriptor, bits, width 32 or 64): to an integer, zero-extended.
pub extern "C" fn fp_to_int(cpu: &mut ArmCpu, desc: u64, x: u64, width: u64, _: u64) -> u64 {
    let (mut env, desc, width) = (environment(cpu), Desc(desc as u32), width as u32);
    let r = match desc.lane() {
        Lane::D => to_int::<F64>(desc, x, width, &mut env),
        Lane::S => to_int::<F32>(desc, x, width, &mut env),
        _ => to_int::<F16>(desc, x, width, &mut env),
    };
    raise(cpu, &env);
    r
}

/// Arguments (descriptor, integer extended to 64 bits): to half precision.
pub extern "C" fn int_to_half(cpu: &mut ArmCpu, desc: u64, x: u64, _: u64, _: u64) -> u64 {
    let (mut env, desc) = (environment(cpu), Desc(desc as u32));
    let r = if desc.op() == FpOp::FromU as u32 {
        F16::from_unsigned(x, desc.immediate(), &mut env)
    } else {
        F16::from_signed(x as i64, desc.immediate(), &mut env)
    };
    raise(cpu, &env);
    r as u64
}

macro_rules! conversions {
    ($($(#[$doc:meta])* $name:ident = |$x:ident, $env:ident| $e:expr;)*) => {$(
        $(#[$doc])*
        pub extern "C" fn $name(cpu: &mut ArmCpu, $x: u64, _: u64, _: u64, _: u64) -> u64 {
            let mut environment = environment(cpu);
            let $env = &mut environment;
            let r = $e;
            raise(cpu, &environment);
            r as u64
        }
    )*};
}

conversions! {
    half_to_s = |x, env| rhea_float::f16_to_f32(x as u16, env);
    half_to_d = |x, env| rhea_float::f16_to_f64(x as u16, env);
    s_to_half = |x, env| rhea_float::f32_to_f16(x as u32, env);
    d_to_half = |x, env| rhea_float::f64_to_f16(x, env);
    s_to_bf16 = |x, env| rhea_float::f32_to_bf16(x as u32, env);
    d_to_s_odd = |x, env| rhea_float::f64_to_f32_odd(x, env);
    /// FJCVTZS: the result, and in bit 32 whether the conversion was exact.
    javascript_int = |x, env| {
        let (r, exact) = rhea_float::to_javascript_int(x, env);
        r as u64 | (exact as u64) << 32
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lanes() {
        let mut env = Env::arm(0);
        // 1.0 + 1.0 in lane 0 only.
        let d = Desc::new(FpOp::Add as u32, Lane::H, 2);
        assert_eq!(lanes(d, [0x3c00_3c00, 0x3c00_3c00, 0], &mut env), 0x4000);
        let d = Desc::new(FpOp::ToS as u32, Lane::H, 4).rounding(3).imm(1);
        assert_eq!(lanes(d, [0xbe00, 0, 0], &mut env), 0xfffd);
        assert!(env.flags.is_empty());
    }

    #[test]
    fn widening() {
        let mut env = Env::arm(0);
        let d = Desc::new(CvtOp::MulAddHalf as u32, Lane::S, 8);
        let one = 1f32.to_bits() as u128;
        assert_eq!(convert_lanes(d, [one, 0x4000, 0x4200], &mut env), 7f32.to_bits() as u128);
    }
}
