//! Against another implementation, over special values and random ones, in all rounding modes.

use rhea_float::{Env, F16, F32, F64, Flags, Float, Format, Rounding, convert_with};
use rustc_apfloat::ieee::{Double, Half, Single};
use rustc_apfloat::{Float as Reference, FloatConvert, Round, Status, StatusAnd};

const MODES: [(Rounding, Round); 5] = [
    (Rounding::NearestEven, Round::NearestTiesToEven),
    (Rounding::TowardPositive, Round::TowardPositive),
    (Rounding::TowardNegative, Round::TowardNegative),
    (Rounding::TowardZero, Round::TowardZero),
    (Rounding::NearestAway, Round::NearestTiesToAway),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Often near the special ones, often with long runs of equal bits, often near `other`'s exponent.
    fn value<F: Format>(&mut self, other: u64) -> u64 {
        let r = self.next();
        let all = F::SIGN | (F::SIGN - 1);
        let v = match r & 7 {
            0 => {
                let s = specials::<F>();
                s[(r >> 8) as usize % s.len()]
            }
            1 => ((1u64 << ((r >> 8) % u64::from(F::BITS))) - 1) ^ (1u64 << ((r >> 16) % u64::from(F::BITS))),
            2 => (other & F::INF) ^ (r >> 3 & F::FRAC_MASK) ^ ((r >> 60) << F::FRAC_BITS & F::INF),
            3 => other ^ (1 << ((r >> 8) % u64::from(F::BITS))),
            4 => r >> 8 & F::FRAC_MASK,
            5 => (F::BIAS as u64 + (r >> 58)) << F::FRAC_BITS | (r >> 3 & F::FRAC_MASK & (r << 9)),
            _ => self.next(),
        };
        (v ^ if r >> 63 != 0 { F::SIGN } else { 0 }) & all
    }
}

fn specials<F: Format>() -> Vec<u64> {
    let one = (F::BIAS as u64) << F::FRAC_BITS;
    let unit = 1 << F::FRAC_BITS;
    let positive = [
        0,
        1,
        2,
        F::FRAC_MASK,
        F::FRAC_MASK - 1,
        unit,
        unit + 1,
        2 * unit - 1,
        2 * unit,
        one,
        one + 1,
        one - 1,
        one + unit,
        one | F::QUIET,
        one + unit * 10,
        F::INF - 1,
        F::INF - 2,
        F::INF - unit,
        F::INF,
        F::INF + 1,
        F::INF | F::QUIET,
        F::INF | F::FRAC_MASK,
        one - unit,
        one + unit * u64::from(F::FRAC_BITS),
        one - unit * u64::from(F::FRAC_BITS),
    ];
    positive.iter().flat_map(|p| [*p, p | F::SIGN]).collect()
}

fn flags(s: Status) -> Flags {
    let pairs = [
        (Status::INVALID_OP, Flags::INVALID),
        (Status::DIV_BY_ZERO, Flags::DIV_BY_ZERO),
        (Status::OVERFLOW, Flags::OVERFLOW),
        (Status::UNDERFLOW, Flags::UNDERFLOW),
        (Status::INEXACT, Flags::INEXACT),
    ];
    pairs.iter().filter(|p| s.contains(p.0)).fold(Flags::NONE, |f, p| f | p.1)
}

/// NaN results are compared by being NaN only; underflow is not where the two may define tininess apart.
fn check<F: Format>(what: &str, ops: &[u64], mode: Rounding, got: u64, env: &Env, want: StatusAnd<impl Reference>) {
    let nan = |b: u64| b & (F::SIGN - 1) > F::INF;
    let bits = want.value.to_bits() as u64;
    let same = if nan(bits) { nan(got) && got & F::QUIET != 0 } else { got == bits };
    let (mut ours, mut theirs) = (env.flags, flags(want.status));
    if got & (F::SIGN - 1) == 1 << F::FRAC_BITS {
        ours.0 &= !Flags::UNDERFLOW.0;
        theirs.0 &= !Flags::UNDERFLOW.0;
    }
    // The reference raises overflow only with an infinite result.
    if got & (F::SIGN - 1) == F::INF - 1 {
        ours.0 &= !Flags::OVERFLOW.0;
    }
    assert!(same && ours == theirs, "{what} of {ops:x?} {mode:?}: {got:#x} {ours:?}, reference {bits:#x} {theirs:?}");
}

fn arithmetic<F: Format, R: Reference>(seed: u64, rounds: usize) {
    let r = |b: u64| R::from_bits(u128::from(b));
    let signalling = |b: u64| b & (F::SIGN - 1) > F::INF && b & F::QUIET == 0;
    let test = |a: u64, b: u64, c: u64| {
        for (mode, round) in MODES {
            let env = || Env::DEFAULT.with_rounding(mode);
            let (x, y, z) = (F::narrow(a), F::narrow(b), F::narrow(c));
            let mut e = env();
            check::<F>("add", &[a, b], mode, F::wide(F::add(x, y, &mut e)), &e, r(a).add_r(r(b), round));
            e = env();
            check::<F>("sub", &[a, b], mode, F::wide(F::sub(x, y, &mut e)), &e, r(a).sub_r(r(b), round));
            e = env();
            check::<F>("mul", &[a, b], mode, F::wide(F::mul(x, y, &mut e)), &e, r(a).mul_r(r(b), round));
            e = env();
            check::<F>("div", &[a, b], mode, F::wide(F::div(x, y, &mut e)), &e, r(a).div_r(r(b), round));
            // Signalling operands, and infinity times zero plus NaN, are the manuals' own.
            let nan = |v: u64| v & (F::SIGN - 1) > F::INF;
            if !nan(a) && !nan(b) && !nan(c) {
                e = env();
                let got = F::wide(F::mul_add(x, y, z, &mut e));
                check::<F>("mul_add", &[a, b, c], mode, got, &e, r(a).mul_add_r(r(b), r(c), round));
            }
            if !signalling(a) {
                e = env();
                let got = F::wide(F::round_to_int(x, mode, true, &mut e));
                check::<F>("round_to_int", &[a], mode, got, &e, r(a).round_to_integral(round));
            }
            for bits in [16u32, 32, 64] {
                let mut exact = false;
                e = env();
                let got = F::to_signed(x, bits, 0, mode, &mut e);
                let want = r(a).to_i128_r(bits as usize, round, &mut exact);
                if !nan(a) {
                    assert_eq!(i128::from(got), want.value, "to_signed {bits} of {a:#x} {mode:?}");
                }
                assert_eq!(e.flags, flags(want.status), "to_signed {bits} of {a:#x} {mode:?}");
                e = env();
                let got = F::to_unsigned(x, bits, 0, mode, &mut e);
                let want = r(a).to_u128_r(bits as usize, round, &mut exact);
                if !nan(a) {
                    assert_eq!(u128::from(got), want.value, "to_unsigned {bits} of {a:#x} {mode:?}");
                }
                assert_eq!(e.flags, flags(want.status), "to_unsigned {bits} of {a:#x} {mode:?}");
            }
            let int = a.wrapping_mul(c | 1) >> (b & 63);
            e = env();
            let got = F::wide(F::from_unsigned(int, 0, &mut e));
            check::<F>("from_unsigned", &[int], mode, got, &e, R::from_u128_r(u128::from(int), round));
            e = env();
            let got = F::wide(F::from_signed(-((int >> 1) as i64), 0, &mut e));
            check::<F>("from_signed", &[int], mode, got, &e, R::from_i128_r(-i128::from(int >> 1), round));
        }
    };
    let special = specials::<F>();
    for a in &special {
        for b in &special {
            test(*a, *b, special[(a ^ b) as usize % special.len()]);
        }
    }
    let mut random = Random(seed);
    for _ in 0..rounds {
        let a = random.value::<F>(0);
        let b = random.value::<F>(a);
        // A third operand near the product makes cancellation.
        let mut e = Env::DEFAULT;
        let product = F::wide(F::mul(F::narrow(a), F::narrow(b), &mut e)) ^ F::SIGN;
        let near = product.wrapping_add(random.next() & 3) & (F::SIGN | (F::SIGN - 1));
        let c = if random.next() & 1 == 0 { near } else { random.value::<F>(product) };
        test(a, b, c);
    }
}

#[test]
fn half() {
    arithmetic::<F16, Half>(1, 20_000);
}

#[test]
fn single() {
    arithmetic::<F32, Single>(2, 20_000);
}

#[test]
fn double() {
    arithmetic::<F64, Double>(3, 20_000);
}

fn conversions<S: Format, D: Format, A: Reference + FloatConvert<B>, B: Reference>(seed: u64) {
    let mut random = Random(seed);
    let mut values = specials::<S>();
    for _ in 0..8_000 {
        let v = random.value::<S>(0);
        values.push(v);
        // Near what the destination can tell apart.
        let exp = (S::BIAS - D::BIAS) as i64 + (random.next() % 64) as i64 - 40;
        values.push((exp.clamp(0, i64::from(S::EXP_MAX) - 1) as u64) << S::FRAC_BITS | random.next() & S::FRAC_MASK);
    }
    for a in values {
        for (mode, round) in MODES {
            let mut e = Env::DEFAULT;
            let got = D::wide(convert_with::<S, D>(S::narrow(a), mode, &mut e));
            let mut loses = false;
            let want = A::from_bits(u128::from(a)).convert_r(round, &mut loses);
            check::<D>("convert", &[a], mode, got, &e, want);
        }
    }
}

#[test]
fn formats() {
    conversions::<F16, F32, Half, Single>(4);
    conversions::<F16, F64, Half, Double>(5);
    conversions::<F32, F16, Single, Half>(6);
    conversions::<F32, F64, Single, Double>(7);
    conversions::<F64, F16, Double, Half>(8);
    conversions::<F64, F32, Double, Single>(9);
}

/// Rounding to odd is truncation with the last place of inexact results set.
#[test]
fn to_odd() {
    let mut random = Random(10);
    for _ in 0..50_000 {
        let (a, b) = (random.value::<F64>(0), random.value::<F64>(0));
        let (mut zero, mut odd) =
            (Env::DEFAULT.with_rounding(Rounding::TowardZero), Env::DEFAULT.with_rounding(Rounding::ToOdd));
        let inexact = |e: &Env| u32::from(e.flags.contains(Flags::INEXACT));
        let want = rhea_float::f64_to_f32(a, &mut zero);
        assert_eq!(rhea_float::f64_to_f32_odd(a, &mut odd), want | inexact(&zero));
        assert_eq!(zero.flags, odd.flags);
        let want = F64::add(a, b, &mut zero);
        zero.flags = Flags::NONE;
        F64::add(a, b, &mut zero);
        assert_eq!(F64::add(a, b, &mut odd), want | u64::from(inexact(&zero)));
    }
}

/// Against the host, whose operations round to nearest.
#[test]
fn host() {
    let mut random = Random(11);
    let mut env = Env::DEFAULT;
    for _ in 0..1_000_000 {
        let a = random.value::<F64>(0x3ff << 52);
        let b = random.value::<F64>(a);
        let c = random.value::<F64>(b);
        let same = |got: u64, want: f64, what| {
            assert!(
                if want.is_nan() { f64::from_bits(got).is_nan() } else { got == want.to_bits() },
                "{what} {a:x} {b:x} {c:x}"
            );
        };
        let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
        same(F64::add(a, b, &mut env), x + y, "add");
        same(F64::sub(a, b, &mut env), x - y, "sub");
        same(F64::mul(a, b, &mut env), x * y, "mul");
        same(F64::div(a, b, &mut env), x / y, "div");
        same(F64::sqrt(a, &mut env), x.sqrt(), "sqrt");
        same(F64::mul_add(a, b, c, &mut env), x.mul_add(y, z), "mul_add");
        assert_eq!(F64::eq(a, b, &mut env), x == y);
        assert_eq!(F64::ge(a, b, &mut env), x >= y);
        assert_eq!(F64::abs_gt(a, b, &mut env), x.abs() > y.abs());
        let (a, b, c) = (a as u32 ^ (a >> 32) as u32, b as u32, random.value::<F32>(a) as u32);
        let same = |got: u32, want: f32, what| {
            assert!(
                if want.is_nan() { f32::from_bits(got).is_nan() } else { got == want.to_bits() },
                "{what} {a:x} {b:x} {c:x}"
            );
        };
        let (x, y, z) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
        same(F32::add(a, b, &mut env), x + y, "add");
        same(F32::sub(a, b, &mut env), x - y, "sub");
        same(F32::mul(a, b, &mut env), x * y, "mul");
        same(F32::div(a, b, &mut env), x / y, "div");
        same(F32::sqrt(a, &mut env), x.sqrt(), "sqrt");
        same(F32::mul_add(a, b, c, &mut env), x.mul_add(y, z), "mul_add");
    }
}

/// All roots of half precision, checked by squaring exactly.
#[test]
fn half_roots() {
    for a in 0..0x7c00u16 {
        let mut env = Env::DEFAULT;
        let exact = f64::from(half_value(a)).sqrt();
        let root = F16::sqrt(a, &mut env);
        // Binary64's root is precise enough for innocuous double rounding.
        let mut e = Env::DEFAULT;
        assert_eq!(root, rhea_float::f64_to_f16(exact.to_bits(), &mut e), "{a:x}");
        let r = half_value(root);
        assert_eq!(env.flags.contains(Flags::INEXACT), r * r != half_value(a), "{a:x}");
    }
}

fn half_value(a: u16) -> f32 {
    let mut e = Env::DEFAULT;
    f32::from_bits(rhea_float::f16_to_f32(a, &mut e))
}
