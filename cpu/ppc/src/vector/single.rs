//! Single-precision elements of the vector facility (Book I, 6.10): round to nearest, no exceptions.

use super::{Operands, el, put};
use rhea_float::{Env, F32, Flags, Float, Ordering, Rounding};

fn env(o: &Operands) -> Env {
    Env { flush_inputs: o.flush, flush_outputs: o.flush, ..Env::PPC }
}

fn is_nan(v: u32) -> bool {
    v << 1 > 0xff00_0000
}

/// imm: 0 add, 1 subtract, 2 multiply-add (a × c + b), 3 negative multiply-subtract, 4 maximum, 5 minimum, 6 reciprocal, 7 reciprocal
/// square root, 8 exponential, 9 logarithm, 10–13 to integral: nearest, zero, plus, minus.
pub(super) fn vector_float(o: &mut Operands) -> u128 {
    let e = &mut env(o);
    (0..4).fold(0, |r, i| {
        let [a, b, c] = [o.a, o.b, o.c].map(|v| el(v, 32, i) as u32);
        let one = 1f32.to_bits();
        let x = match o.imm {
            0 => F32::add(a, b, e),
            1 => F32::sub(a, b, e),
            2 => F32::mul_add(a, c, b, e),
            3 => {
                let minus = if is_nan(b) { b } else { b ^ 1 << 31 };
                let v = F32::mul_add(a, c, minus, e);
                if is_nan(v) { v } else { v ^ 1 << 31 }
            }
            4 => F32::max(a, b, e),
            5 => F32::min(a, b, e),
            6 => F32::div(one, b, e),
            7 => {
                let root = F32::sqrt(b, e);
                F32::div(one, root, e)
            }
            8 | 9 if is_nan(b) => b | 1 << 22,
            8 => (f64::from(f32::from_bits(b)).exp2() as f32).to_bits(),
            9 => {
                let v = f64::from(f32::from_bits(b));
                if v < 0.0 { 0x7fc0_0000 } else { (v.log2() as f32).to_bits() }
            }
            n => {
                let mode = match n {
                    10 => Rounding::NearestEven,
                    11 => Rounding::TowardZero,
                    12 => Rounding::TowardPositive,
                    _ => Rounding::TowardNegative,
                };
                F32::round_to_int(b, mode, false, e)
            }
        };
        r | put(u128::from(x), 32, i)
    })
}

/// imm: 0 equal, 1 greater or equal, 2 greater, 3 bounds.
pub(super) fn compare(o: &mut Operands) -> u128 {
    let e = &mut env(o);
    let r = (0..4).fold(0, |r, i| {
        let [a, b] = [o.a, o.b].map(|v| el(v, 32, i) as u32);
        let c = F32::compare(a, b, false, e);
        let ge = matches!(c, Ordering::Greater | Ordering::Equal);
        let x: u32 = match o.imm {
            0 => {
                if c == Ordering::Equal {
                    u32::MAX
                } else {
                    0
                }
            }
            1 => {
                if ge {
                    u32::MAX
                } else {
                    0
                }
            }
            2 => {
                if c == Ordering::Greater {
                    u32::MAX
                } else {
                    0
                }
            }
            _ => {
                let above = !matches!(c, Ordering::Less | Ordering::Equal);
                let low = F32::compare(a, b ^ 1 << 31, false, e);
                let below = !matches!(low, Ordering::Greater | Ordering::Equal);
                u32::from(above) << 31 | u32::from(below) << 30
            }
        };
        r | put(u128::from(x), 32, i)
    });
    if o.imm == 3 {
        o.cr6 = Some(if r == 0 { 2 } else { 0 });
        return r;
    }
    o.compared(r)
}

/// imm: scale << 2 | 0 from unsigned, 1 from signed, 2 to unsigned, 3 to signed.
pub(super) fn convert(o: &mut Operands) -> u128 {
    let scale = o.imm >> 2 & 31;
    let mut saturated = false;
    let r = (0..4).fold(0, |r, i| {
        let b = el(o.b, 32, i) as u32;
        let e = &mut env(o);
        let x = match o.imm & 3 {
            0 => F32::from_unsigned(u64::from(b), scale, e),
            1 => F32::from_signed(i64::from(b as i32), scale, e),
            _ if is_nan(b) => 0,
            2 => F32::to_unsigned(b, 32, scale, Rounding::TowardZero, e) as u32,
            _ => F32::to_signed(b, 32, scale, Rounding::TowardZero, e) as u32,
        };
        saturated |= o.imm & 2 != 0 && e.flags.contains(Flags::INVALID);
        r | put(u128::from(x), 32, i)
    });
    o.sat |= saturated;
    r
}
