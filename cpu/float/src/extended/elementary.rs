//! Elementary functions, computed to about 120 bits and rounded: the true value's neighbour at worst.

use super::exception::{PRECISION, ZERO_DIVIDE};
use super::wide::Wide;
use super::{Class, Env80, F80};

const PI: Wide = Wide::constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const PI_2: Wide = Wide::constant(0, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const PI_4: Wide = Wide::constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const THREE_PI_4: Wide = Wide::constant(1, 0x96cb_e3f9_990e_91a7_9394_c9e8_a0a5_159d);
const LN_2: Wide = Wide::constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
const LOG2_E: Wide = Wide::constant(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89);
/// Arctangents of n/16.
const ARCTANGENTS: [Wide; 17] = [
    Wide::ZERO,
    Wide::constant(-5, 0xffaa_ddb9_67ef_4e36_cb27_92dc_0e2e_0d51),
    Wide::constant(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8),
    Wide::constant(-3, 0xbdcb_da5e_72d8_1134_7b0b_4f88_1c9c_7488),
    Wide::constant(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6),
    Wide::constant(-2, 0x9b13_b9b8_3f5e_5e69_c5ab_b498_d27a_f328),
    Wide::constant(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    Wide::constant(-2, 0xd327_761e_611f_e5b6_427c_95e9_001e_7136),
    Wide::constant(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    Wide::constant(-1, 0x832b_f4a6_d986_7e2a_4b6a_09cb_61a5_15c1),
    Wide::constant(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748),
    Wide::constant(-1, 0x9a2f_80e6_71bd_da20_4226_f8e2_204f_f3bd),
    Wide::constant(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f),
    Wide::constant(-1, 0xaeac_4c38_b4d8_c080_1472_5e2f_3e52_070a),
    Wide::constant(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    Wide::constant(-1, 0xc0ce_85b8_ac52_6640_89dd_62c4_6e92_fa25),
    Wide::constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];
/// π/2 of the argument reduction, 68 bits in units of 2^-67: the processors' own approximation (Intel SDM vol. 1, 8.3.8).
const HALF_PI_APPROXIMATE: u128 = 0xc_90fd_aa22_168c_234c;

/// Sums of series stop when terms are this much smaller.
const BITS: i32 = 130;

/// Rounds a result that is not exact.
fn inexact(v: Wide, env: &mut Env80) -> F80 {
    if v.is_zero() {
        return F80::zero(v.sign);
    }
    env.raise(PRECISION);
    env.round_to(v.sign, v.exp, (v.m >> 64) as u64, v.m as u64 | 1, 64)
}
/// Rounds a result that is what it is.
fn exact(v: Wide, env: &mut Env80) -> F80 {
    if v.is_zero() {
        return F80::zero(v.sign);
    }
    env.round_to(v.sign, v.exp, (v.m >> 64) as u64, v.m as u64, 64)
}

/// Sums terms made from the last one and its number until they vanish.
fn series(first: Wide, mut next: impl FnMut(Wide, u64) -> (Wide, Wide)) -> Wide {
    let (mut sum, mut power) = (first, first);
    for n in 1..200 {
        let (p, term) = next(power, n);
        if term.is_zero() || term.exp < sum.exp - BITS {
            break;
        }
        sum = sum.add(term);
        power = p;
    }
    sum
}

// ---- powers and logarithms ----

/// F2XM1: `2^a − 1` for `a` from −1 to 1; outside, the operand.
pub fn exp2_minus_1(a: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[a]) {
        return nan;
    }
    match a.class() {
        Class::Zero => return a,
        Class::Infinity => return if a.sign() { F80::ONE.negated() } else { a },
        _ => env.denormal(&[a]),
    }
    let x = Wide::of(a);
    if env.stops() || x.exp > 0 || x.exp == 0 && x.m > 1 << 127 {
        return a;
    }
    if x.exp == 0 {
        return if x.sign { F80::new(true, super::BIAS - 1, super::INTEGER) } else { F80::ONE };
    }
    let t = x.mul(LN_2);
    let v = series(t, |term, n| {
        let next = term.mul(t).div_small(n + 1);
        (next, next)
    });
    inexact(v, env)
}

/// `ln((1 + z) / (1 − z))`.
fn log_of_ratio(z: Wide) -> Wide {
    let square = z.mul(z);
    series(z, |power, n| {
        let next = power.mul(square);
        (next, next.div_small(2 * n + 1))
    })
    .scaled(1)
}
/// log2 of a positive number; true if exact.
fn log2(x: Wide) -> (Wide, bool) {
    const SQRT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let e = if x.m > SQRT_2 { x.exp + 1 } else { x.exp };
    let m = Wide { sign: false, exp: x.exp - e, m: x.m };
    if m == Wide::ONE {
        return (Wide::integer(e), true);
    }
    let z = m.sub(Wide::ONE).div(m.add(Wide::ONE));
    (Wide::integer(e).add(log_of_ratio(z).mul(LOG2_E)), false)
}

/// FYL2X: `y × log2(x)`.
pub fn y_log2_x(x: F80, y: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[x, y]) {
        return nan;
    }
    let (cx, cy) = (x.class(), y.class());
    if cx == Class::Zero {
        if cy == Class::Zero {
            return env.invalid();
        }
        if cy != Class::Infinity {
            env.raise(ZERO_DIVIDE);
        }
        return F80::infinity(!y.sign());
    }
    if x.sign() {
        return env.invalid();
    }
    if cx == Class::Infinity {
        if cy == Class::Zero {
            return env.invalid();
        }
        env.denormal(&[y]);
        return F80::infinity(y.sign());
    }
    let (log, whole) = log2(Wide::of(x));
    if cy == Class::Infinity {
        if log.is_zero() {
            return env.invalid();
        }
        env.denormal(&[x]);
        return F80::infinity(y.sign() != log.sign);
    }
    env.denormal(&[x, y]);
    if env.stops() {
        return y;
    }
    if log.is_zero() || cy == Class::Zero {
        return F80::zero(y.sign() != log.sign);
    }
    let v = Wide::of(y).mul(log);
    if whole { exact(v, env) } else { inexact(v, env) }
}

/// FYL2XP1: `y × log2(x + 1)`.
pub fn y_log2_x_plus_1(x: F80, y: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[x, y]) {
        return nan;
    }
    let (cx, cy) = (x.class(), y.class());
    let sign = x.sign() != y.sign();
    if cx == Class::Infinity {
        if x.sign() || cy == Class::Zero {
            return env.invalid();
        }
        return F80::infinity(y.sign());
    }
    if cx == Class::Zero {
        if cy == Class::Infinity {
            return env.invalid();
        }
        env.denormal(&[y]);
        return F80::zero(sign);
    }
    let w = Wide::of(x);
    if w.sign && w.exp >= 0 {
        return env.invalid();
    }
    if cy == Class::Infinity {
        env.denormal(&[x]);
        return F80::infinity(sign);
    }
    env.denormal(&[x, y]);
    if env.stops() {
        return y;
    }
    if cy == Class::Zero {
        return F80::zero(sign);
    }
    let log =
        if w.exp < -2 { log_of_ratio(w.div(w.add(Wide::integer(2)))).mul(LOG2_E) } else { log2(w.add(Wide::ONE)).0 };
    inexact(Wide::of(y).mul(log), env)
}

// ---- trigonometry ----

/// The angle in [−π/4, π/4] and the number of the quadrant, of a magnitude below 2^63. The remainder is exact, but of a
/// division by π/2 as the processors have it.
fn reduce(a: Wide) -> (Wide, u32) {
    if a.exp < -1 {
        return (a.abs(), 0);
    }
    let mut r = a.m >> 64;
    let mut quadrant = 0u32;
    for _ in 0..(a.exp + 4).min(67) {
        r <<= 1;
        quadrant <<= 1;
        if r >= HALF_PI_APPROXIMATE {
            r -= HALF_PI_APPROXIMATE;
            quadrant |= 1;
        }
    }
    let negative = 2 * r > HALF_PI_APPROXIMATE;
    if negative {
        r = HALF_PI_APPROXIMATE - r;
        quadrant = quadrant.wrapping_add(1);
    }
    (Wide::normalize(negative, 60, r), quadrant & 3)
}

fn sine(r: Wide) -> Wide {
    let square = r.mul(r);
    let v = series(r, |term, n| {
        let next = term.mul(square).div_small(2 * n * (2 * n + 1)).neg();
        (next, next)
    });
    if v == r { v.below() } else { v }
}
fn cosine(r: Wide) -> Wide {
    let square = r.mul(r);
    let v = series(Wide::ONE, |term, n| {
        let next = term.mul(square).div_small((2 * n - 1) * (2 * n)).neg();
        (next, next)
    });
    if v == Wide::ONE { v.below() } else { v }
}
/// Sine and cosine.
fn circle(a: Wide) -> (Wide, Wide) {
    let (r, quadrant) = reduce(a);
    let (s, c) = (sine(r), cosine(r));
    let (s, c) = match quadrant {
        0 => (s, c),
        1 => (c, s.neg()),
        2 => (s.neg(), c.neg()),
        _ => (c.neg(), s),
    };
    (s.negated_if(a.sign), c)
}

/// What a trigonometric function makes of special operands: `Err` is the result, `Ok(None)` an operand out of range.
fn angle(a: F80, env: &mut Env80) -> Result<Option<Wide>, F80> {
    if let Some(nan) = env.nan(&[a]) {
        return Err(nan);
    }
    match a.class() {
        Class::Infinity => return Err(env.invalid()),
        Class::Zero => return Ok(Some(Wide { sign: a.sign(), ..Wide::ZERO })),
        _ => env.denormal(&[a]),
    }
    let w = Wide::of(a);
    Ok((w.exp < 63).then_some(w))
}

/// FSIN; `None` if the operand is out of range (C2).
pub fn sin(a: F80, env: &mut Env80) -> Option<F80> {
    match angle(a, env) {
        Err(v) => Some(v),
        Ok(Some(w)) => Some(if w.is_zero() { a } else { inexact(circle(w).0, env) }),
        Ok(None) => None,
    }
}
/// FCOS.
pub fn cos(a: F80, env: &mut Env80) -> Option<F80> {
    match angle(a, env) {
        Err(v) => Some(v),
        Ok(Some(w)) => Some(if w.is_zero() { F80::ONE } else { inexact(circle(w).1, env) }),
        Ok(None) => None,
    }
}
/// FSINCOS: sine and cosine.
pub fn sin_cos(a: F80, env: &mut Env80) -> Option<(F80, F80)> {
    match angle(a, env) {
        Err(v) => Some((v, v)),
        Ok(Some(w)) if w.is_zero() => Some((a, F80::ONE)),
        Ok(Some(w)) => {
            let (s, c) = circle(w);
            let c = inexact(c, env);
            Some((inexact(s, env), c))
        }
        Ok(None) => None,
    }
}
/// FPTAN: the tangent; the instruction also pushes 1 unless this is a NaN.
pub fn tan(a: F80, env: &mut Env80) -> Option<F80> {
    match angle(a, env) {
        Err(v) => Some(v),
        Ok(Some(w)) if w.is_zero() => Some(a),
        Ok(Some(w)) => {
            let (s, c) = circle(w);
            Some(inexact(s.div(c), env))
        }
        Ok(None) => None,
    }
}

/// Arctangent of a number from 0 to 1.
fn arctangent(t: Wide) -> Wide {
    // To the nearest sixteenth.
    let k = if t.exp < -5 { 0 } else { ((t.m >> (122 - t.exp) as u32) as usize).div_ceil(2).min(16) };
    let z = if k == 0 {
        t
    } else {
        let c = Wide::integer(k as i32).scaled(-4);
        t.sub(c).div(t.mul(c).add(Wide::ONE))
    };
    let square = z.mul(z);
    let v = series(z, |power, n| {
        let next = power.mul(square).neg();
        (next, next.div_small(2 * n + 1))
    });
    let v = if v == z { v.below() } else { v };
    ARCTANGENTS[k].add(v)
}

/// FPATAN: the angle of the point (`x`, `y`).
pub fn partial_arctangent(x: F80, y: F80, env: &mut Env80) -> F80 {
    if let Some(nan) = env.nan(&[x, y]) {
        return nan;
    }
    let (cx, cy) = (x.class(), y.class());
    env.denormal(&[x, y]);
    if env.stops() {
        return y;
    }
    let special = match (cx, cy) {
        (Class::Infinity, Class::Infinity) => Some(if x.sign() { THREE_PI_4 } else { PI_4 }),
        (_, Class::Infinity) => Some(PI_2),
        (Class::Infinity, _) | (_, Class::Zero) => {
            if !x.sign() {
                return F80::zero(y.sign());
            }
            Some(PI)
        }
        (Class::Zero, _) => Some(PI_2),
        _ => None,
    };
    if let Some(v) = special {
        return inexact(v.negated_if(y.sign()), env);
    }
    let (wx, wy) = (Wide::of(x).abs(), Wide::of(y).abs());
    let steep = (wy.exp, wy.m) > (wx.exp, wx.m);
    let v = if steep { PI_2.sub(arctangent(wx.div(wy))) } else { arctangent(wy.div(wx)) };
    let v = if x.sign() { PI.sub(v) } else { v };
    inexact(v.negated_if(y.sign()), env)
}
