//! Operations on bfloat16 operands with single-precision results.

use crate::env::{Env, Rounding};
use crate::format::*;
use crate::{F32, Float};

/// `c + a × b`, fused, by the environment (BFMLALB, BFMLALT).
#[inline]
pub fn bf16_mul_add(a: u16, b: u16, c: u32, env: &mut Env) -> u32 {
    F32::mul_add(u32::from(a) << 16, u32::from(b) << 16, c, env)
}

/// The fixed behaviour of BFDOT and BFMMLA without extended bfloat16: round to odd, denormals flushed, default NaN, no
/// flags, overflow to infinity.
const DOT: Env =
    Env { rounding: Rounding::ToOdd, default_nan: true, flush_inputs: true, flush_outputs: true, ..Env::DEFAULT };

/// Overflow gives infinity, although the rounding is to odd.
fn dot_op(op: fn(u32, u32, &mut Env) -> u32, a: u32, b: u32) -> u32 {
    let mut env = DOT;
    let result = op(a, b, &mut env);
    if env.flags.contains(crate::Flags::OVERFLOW) { result & F32::SIGN as u32 | F32::INF as u32 } else { result }
}

/// `c + (a0 × b0 + a1 × b1)`, each operation rounded to odd (BFDOT). `a`, `b`: two elements each, the first in the low
/// half.
pub fn bf16_dot_add(a: u32, b: u32, c: u32) -> u32 {
    let low = dot_op(F32::mul, a << 16, b << 16);
    let high = dot_op(F32::mul, a & 0xffff_0000, b & 0xffff_0000);
    dot_op(F32::add, c, dot_op(F32::add, low, high))
}
