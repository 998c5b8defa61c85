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
            8 => exponential(b, o.flush),
            9 => logarithm(b, o.flush),
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

/// 2 to the power of a number that is no NaN.
fn exponential(v: u32, flush: bool) -> u32 {
    /// The terms of its series, from the eighth to the first, with 32 bits of fraction.
    const TERMS: [u64; 8] = {
        let ln = core::f64::consts::LN_2;
        let mut t = [0; 8];
        let (mut k, mut c) = (1, 1.0);
        while k <= 8 {
            c *= ln / k as f64;
            t[8 - k] = (c * 4_294_967_296.0) as u64;
            k += 1;
        }
        t
    };
    let (negative, exponent, fraction) = (v >> 31 != 0, (v >> 23 & 0xff) as i32 - 127, v & 0x7f_ffff);
    if exponent > 7 {
        return if negative { 0 } else { 0x7f80_0000 };
    }
    // Of denormals nothing is left.
    let m = i64::from(fraction | 1 << 23);
    let fixed = if exponent >= -9 { m << (exponent + 9) } else { m >> (-exponent - 9).min(63) };
    let fixed = if negative { -fixed } else { fixed };
    let (mut n, f) = ((fixed >> 32) as i32, fixed as u64 & 0xffff_ffff);
    let series = TERMS.iter().fold(0, |p, t| ((p * f) >> 32) + t);
    let mut q = ((1 << 32) + ((series * f) >> 32) + (1 << 8)) >> 9;
    if q >> 24 != 0 {
        q >>= 1;
        n += 1;
    }
    match n {
        128.. => 0x7f80_0000,
        -126.. => ((n + 127) as u32) << 23 | q as u32 & 0x7f_ffff,
        _ if flush => 0,
        _ => (q >> (-126 - n).min(63)) as u32,
    }
}

/// The logarithm to base 2 of a number that is no NaN.
fn logarithm(v: u32, flush: bool) -> u32 {
    let magnitude = v & 0x7fff_ffff;
    if magnitude == 0 || flush && magnitude < 1 << 23 {
        return 0xff80_0000;
    }
    if v >> 31 != 0 {
        return 0x7fc0_0000;
    }
    if v == 0x7f80_0000 {
        return v;
    }
    let (exponent, m) = if v < 1 << 23 {
        let shift = v.leading_zeros() - 8;
        (-126 - shift as i32, v << shift)
    } else {
        ((v >> 23) as i32 - 127, v & 0x7f_ffff | 1 << 23)
    };
    // The square is twice as far in the logarithm: a bit of the fraction each time.
    let mut y = u64::from(m) << 8;
    let fraction = (0..32).fold(0i64, |f, _| {
        y = (y * y) >> 31;
        let bit = y >> 32;
        y >>= bit;
        f << 1 | bit as i64
    });
    F32::from_signed((i64::from(exponent) << 32) + fraction, 32, &mut Env::PPC.clone())
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

#[cfg(test)]
mod tests {
    use super::{exponential, logarithm};

    #[test]
    fn estimates() {
        let mut x = -160.0f32;
        while x < 140.0 {
            let (e, exact) = (f32::from_bits(exponential(x.to_bits(), false)), f64::from(x).exp2());
            if exact > f64::from(f32::MAX) {
                assert_eq!(e, f32::INFINITY);
            } else {
                assert!((f64::from(e) - exact).abs() <= exact / 1e6 + 2e-45, "2^{x} is not {e}");
            }
            x += 0.3712;
        }
        for v in [1e-44f32, 1e-38, 0.3, 0.999_999_9, 1.0, 1.5, 2.0, 77.7, 3e38] {
            let l = f32::from_bits(logarithm(v.to_bits(), false));
            assert!((f64::from(l) - f64::from(v).log2()).abs() < 1e-5, "log2 {v} is not {l}");
        }
        let special = [0, 1 << 31, 0xbf80_0000, 0x7f80_0000].map(|v| logarithm(v, false));
        assert_eq!(special, [0xff80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0000]);
        let special = [0xff80_0000, 0x7f80_0000, 0, 1].map(|v| exponential(v, false));
        assert_eq!(special, [0, 0x7f80_0000, 0x3f80_0000, 0x3f80_0000]);
    }
}
