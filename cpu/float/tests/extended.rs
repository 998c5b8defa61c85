//! The 80-bit format against another implementation, and elementary functions against those of doubles.

use rhea_float::Rounding;
use rhea_float::extended::{self as ext, Env80, F80, Partial, exception};
use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float as _, FloatConvert, Round, Status};

const MODES: [(Rounding, Round); 4] = [
    (Rounding::NearestEven, Round::NearestTiesToEven),
    (Rounding::TowardPositive, Round::TowardPositive),
    (Rounding::TowardNegative, Round::TowardNegative),
    (Rounding::TowardZero, Round::TowardZero),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn value(&mut self) -> F80 {
        let r = self.next();
        let s = match r & 3 {
            0 => 0,
            1 => self.next() & !0 << 40,
            _ => self.next(),
        };
        let one = 1 << 63;
        let (e, s) = match r >> 8 & 15 {
            0 => (0, 0),
            1 => (0, s & !one),
            2 => (0x7fff, one),
            3 => (0x7fff, s | one),
            4 => ((r >> 20) as u16 & 127, s | one),
            5 => (0x7ffe - ((r >> 20) as u16 & 127), s | one),
            6 => ((r >> 20) as u16 % 0x7fff, s | one),
            _ => (0x3fff - 40 + (r >> 20) as u16 % 80, s | one),
        };
        let e = if e == 0 && s >> 63 != 0 { 1 } else { e };
        F80 { sign_exponent: e | (r >> 60 & 1) as u16 * 0x8000, significand: s }
    }
}

fn reference(a: F80) -> X87DoubleExtended {
    X87DoubleExtended::from_bits(u128::from(a.significand) | u128::from(a.sign_exponent) << 64)
}
fn bits(a: F80) -> u128 {
    u128::from(a.significand) | u128::from(a.sign_exponent) << 64
}
fn flags(s: Status) -> u32 {
    [
        (Status::INVALID_OP, exception::INVALID),
        (Status::DIV_BY_ZERO, exception::ZERO_DIVIDE),
        (Status::INEXACT, exception::PRECISION),
    ]
    .iter()
    .fold(0, |f, &(from, to)| if s.contains(from) { f | to } else { f })
}

#[test]
fn arithmetic() {
    type Ours = fn(F80, F80, &mut Env80) -> F80;
    type Theirs = fn(X87DoubleExtended, X87DoubleExtended, Round) -> rustc_apfloat::StatusAnd<X87DoubleExtended>;
    let operations: [(&str, Ours, Theirs); 4] = [
        ("add", ext::add, |a, b, r| a.add_r(b, r)),
        ("sub", ext::sub, |a, b, r| a.sub_r(b, r)),
        ("mul", ext::mul, |a, b, r| a.mul_r(b, r)),
        ("div", ext::div, |a, b, r| a.div_r(b, r)),
    ];
    let mut random = Random(1);
    for _ in 0..20_000 {
        let (a, b) = (random.value(), random.value());
        for (name, ours, theirs) in operations {
            for (rounding, round) in MODES {
                let mut env = Env80 { rounding, ..Env80::default() };
                let v = ours(a, b, &mut env);
                let expected = theirs(reference(a), reference(b), round);
                let what =
                    format!("{name} {a:x?} {b:x?} {rounding:?}: {v:x?}, expected {:#x}", expected.value.to_bits());
                if expected.value.is_nan() {
                    assert!(v.is_nan(), "{what}");
                } else {
                    assert_eq!(bits(v), expected.value.to_bits(), "{what}");
                    // The reference raises no overflow for what it rounds to the largest number.
                    let compared = !(exception::DENORMAL | exception::UNDERFLOW | exception::OVERFLOW);
                    assert_eq!(env.flags & compared, flags(expected.status), "{what}");
                }
            }
        }
    }
}

#[test]
fn remainders() {
    let mut random = Random(2);
    for _ in 0..20_000 {
        let (a, b) = (random.value(), random.value());
        if a.is_nan() || b.is_nan() {
            continue;
        }
        let mut env = Env80::default();
        let mut v = a;
        let mut rounds = 0;
        loop {
            let (next, how) = ext::partial_remainder(v, b, false, &mut env);
            v = next;
            rounds += 1;
            assert!(rounds < 1100, "{a:x?} by {b:x?} does not end");
            if how != Partial::Incomplete {
                break;
            }
        }
        let expected = reference(a).c_fmod(reference(b)).value;
        if expected.is_nan() {
            assert!(v.is_nan());
        } else {
            assert_eq!(bits(v), expected.to_bits(), "{a:x?} by {b:x?}");
        }
    }
}

#[test]
fn doubles() {
    let mut random = Random(3);
    for _ in 0..20_000 {
        let a = random.value();
        for (rounding, round) in MODES {
            let mut env = Env80 { rounding, ..Env80::default() };
            let v = ext::to_f64(a, &mut env);
            let expected: rustc_apfloat::StatusAnd<Double> = reference(a).convert_r(round, &mut false);
            if a.is_nan() {
                assert!(f64::from_bits(v).is_nan());
            } else {
                assert_eq!(u128::from(v), expected.value.to_bits(), "{a:x?} {rounding:?}");
            }
        }
        let d = random.next();
        let v = ext::from_f64(d, &mut Env80::default());
        if !f64::from_bits(d).is_nan() {
            assert_eq!(ext::to_f64(v, &mut Env80::default()), d);
        }
    }
}

fn close(name: &str, x: f64, v: Option<F80>, expected: f64) {
    let v = f64::from_bits(ext::to_f64(v.expect("in range"), &mut Env80::default()));
    assert!((v - expected).abs() <= expected.abs() * 1e-15, "{name}({x}) = {v}, expected {expected}");
}

#[test]
fn elementary() {
    let mut random = Random(4);
    let load = |x: f64| ext::from_f64(x.to_bits(), &mut Env80::default());
    for _ in 0..5_000 {
        let unit = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let e = &mut Env80::default();
        let x = (unit - 0.5) * 200.0;
        // The reduction is by an approximation of pi: near its multiples small results are off.
        if x.sin().abs() > 1e-3 && x.cos().abs() > 1e-3 {
            close("sin", x, ext::sin(load(x), e), x.sin());
            close("cos", x, ext::cos(load(x), e), x.cos());
            close("tan", x, ext::tan(load(x), e), x.tan());
        }
        let small = unit * 2.0 - 1.0;
        close("2^x - 1", small, Some(ext::exp2_minus_1(load(small), e)), (small * std::f64::consts::LN_2).exp_m1());
        let (a, b) = (unit * 10.0 - 5.0, small);
        close("atan2", a, Some(ext::partial_arctangent(load(b), load(a), e)), a.atan2(b));
        if unit > 0.0 && (unit - 1.0).abs() > 1e-3 {
            close("log2", unit, Some(ext::y_log2_x(load(unit), F80::ONE, e)), unit.log2());
        }
        let p = small * 0.29;
        close("log2(1 + x)", p, Some(ext::y_log2_x_plus_1(load(p), F80::ONE, e)), p.ln_1p() / std::f64::consts::LN_2);
    }
}

#[test]
fn decimal() {
    let mut env = Env80::default();
    let v = ext::from_bcd(0x3456_7890_1234_5678, 0x8012);
    let expected = ext::from_int(-123_456_789_012_345_678);
    assert_eq!(v, expected);
    assert_eq!(ext::to_bcd(v, &mut env), (0x3456_7890_1234_5678, 0x8012));
    assert_eq!(env.flags, 0);
    let large = ext::from_int(1_000_000_000_000_000_000);
    assert_eq!(ext::to_bcd(large, &mut env), (0xc000_0000_0000_0000, 0xffff));
    assert_eq!(env.flags, exception::INVALID);
}
