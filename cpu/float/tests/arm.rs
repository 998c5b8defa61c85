//! What the Arm architecture defines beyond IEEE 754, by hand from the manual.

use rhea_float::*;

const FZ: u32 = 1 << 24;
const DN: u32 = 1 << 25;
const AHP: u32 = 1 << 26;
const FZ16: u32 = 1 << 19;
const RP: u32 = 1 << 22;
const RM: u32 = 2 << 22;
const RZ: u32 = 3 << 22;

const IOC: u32 = 1;
const DZC: u32 = 1 << 1;
const OFC: u32 = 1 << 2;
const UFC: u32 = 1 << 3;
const IXC: u32 = 1 << 4;
const IDC: u32 = 1 << 7;

/// Runs with an FPCR, giving the result and FPSR bits.
fn run<T>(fpcr: u32, f: impl FnOnce(&mut Env) -> T) -> (T, u32) {
    let mut env = Env::arm(fpcr);
    let r = f(&mut env);
    (r, env.flags.to_fpsr())
}

fn s(x: f32) -> u32 {
    x.to_bits()
}

const SNAN: u32 = 0x7f80_0001;
const SNAN2: u32 = 0xff80_0002;
const QNAN: u32 = 0x7fc0_0003;
const QNAN2: u32 = 0xffc0_0004;
const INF: u32 = 0x7f80_0000;
const DNAN: u32 = 0x7fc0_0000;
const SIGN: u32 = 1 << 31;

#[test]
fn nan_selection() {
    let add = |a, b, fpcr| run(fpcr, |e| F32::add(a, b, e));
    assert_eq!(add(QNAN, SNAN2, 0), (SNAN2 | 1 << 22, IOC));
    assert_eq!(add(SNAN, SNAN2, 0), (SNAN | 1 << 22, IOC));
    assert_eq!(add(QNAN, QNAN2, 0), (QNAN, 0));
    assert_eq!(add(s(1.0), QNAN2, 0), (QNAN2, 0));
    assert_eq!(add(QNAN2, SNAN2, DN), (DNAN, IOC));
    assert_eq!(add(QNAN2, s(0.0), DN), (DNAN, 0));
    assert_eq!(add(INF, INF | SIGN, 0), (DNAN, IOC));
    let fma = |a, b, c, fpcr| run(fpcr, |e| F32::mul_add(a, b, c, e));
    assert_eq!(fma(QNAN, QNAN2, s(1.0), 0), (QNAN, 0));
    assert_eq!(fma(QNAN, s(1.0), QNAN2, 0), (QNAN2, 0));
    assert_eq!(fma(SNAN, s(1.0), QNAN2, 0), (SNAN | 1 << 22, IOC));
    assert_eq!(fma(SNAN, SNAN2, 0x7f80_0009, 0), (0x7fc0_0009, IOC));
    assert_eq!(fma(INF, 0, QNAN2, 0), (DNAN, IOC));
    assert_eq!(fma(INF, 0, SNAN2, 0), (SNAN2 | 1 << 22, IOC));
    assert_eq!(fma(INF, 0, s(1.0), 0), (DNAN, IOC));
    assert_eq!(fma(INF, s(1.0), INF | SIGN, 0), (DNAN, IOC));
}

#[test]
fn nan_selection_elsewhere() {
    let mut x86 = Env { nan_rule: NanRule::X86, ..Env::DEFAULT };
    assert_eq!(F32::add(QNAN, SNAN2, &mut x86), QNAN);
    assert_eq!(F32::add(s(1.0), SNAN2, &mut x86), SNAN2 | 1 << 22);
    assert_eq!(F32::mul(INF, 0, &mut x86), 0xffc0_0000);
    x86.flags = Flags::NONE;
    assert_eq!(F32::mul_add(INF, 0, QNAN, &mut x86), QNAN);
    assert_eq!(x86.flags, Flags::NONE);
    let mut ppc = Env { nan_rule: NanRule::Ppc, ..Env::DEFAULT };
    assert_eq!(F32::mul_add(s(1.0), QNAN, QNAN2, &mut ppc), QNAN2);
    assert_eq!(F32::mul_add(INF, 0, QNAN, &mut ppc), QNAN);
    assert_eq!(ppc.flags, Flags::INVALID | Flags::VXIMZ);
}

#[test]
fn flush_to_zero() {
    let tiny = 0x0000_1000;
    assert_eq!(run(FZ, |e| F32::add(tiny, tiny | SIGN, e)), (0, IDC));
    assert_eq!(run(FZ, |e| F32::add(tiny | SIGN, tiny | SIGN, e)), (SIGN, IDC));
    assert_eq!(run(FZ, |e| F32::add(tiny, QNAN, e)), (QNAN, IDC));
    assert_eq!(run(FZ, |e| F32::mul(0x0080_0000 | SIGN, s(0.5), e)), (SIGN, UFC));
    assert_eq!(run(0, |e| F32::mul(0x0080_0000, s(0.5), e)), (0x0040_0000, 0));
    assert_eq!(run(0, |e| F32::mul(0x0080_0001, s(0.5), e)), (0x0040_0000, UFC | IXC));
    assert_eq!(run(FZ, |e| F32::compare(tiny, 0, false, e)), (Ordering::Equal, IDC));
    assert_eq!(run(FZ, |e| F32::max(tiny | SIGN, 0x8000_0000, e)), (SIGN, IDC));
    assert_eq!(run(FZ, |e| F32::to_signed(tiny, 32, 0, Rounding::TowardPositive, e)), (0, IDC));
    assert_eq!(run(FZ, |e| F32::round_to_int(tiny, Rounding::TowardPositive, true, e)), (0, IDC));
    // Half precision has its own switch, and raises nothing for inputs.
    assert_eq!(run(FZ, |e| F16::add(1, 1, e)), (2, 0));
    assert_eq!(run(FZ16, |e| F16::add(1, 1, e)), (0, 0));
    assert_eq!(run(FZ16, |e| F16::mul(0x0400, 0x3800, e)), (0, UFC));
    // Conversions from and to half precision do not heed it.
    assert_eq!(run(FZ16, |e| f16_to_f32(1, e)), (0x3380_0000, 0));
    assert_eq!(run(FZ16, |e| f32_to_f16(0x3380_0000, e)), (1, 0));
    assert_eq!(run(FZ | FZ16, |e| f32_to_f16(tiny, e)), (0, IDC));
    assert_eq!(run(FZ, |e| f64_to_f32(0x3800_0000_0000_0000, e)), (0, UFC));
    assert_eq!(run(FZ, |e| f64_to_f32_odd(0xb800_0000_0000_0001, e)), (SIGN, UFC));
}

#[test]
fn tininess() {
    // 1 − 2^−26 times the least normal number rounds to it: tiny only before rounding.
    let (a, b) = (0x3f7f_ffff, 0x0080_0000);
    assert_eq!(run(0, |e| F32::mul(a, b, e)), (0x0080_0000, UFC | IXC));
    let mut after = Env { tininess_before_rounding: false, ..Env::DEFAULT };
    // 1 − 2^−24 is exact in 24 bits: tiny both ways.
    assert_eq!(F32::mul(a, b, &mut after), 0x0080_0000);
    assert_eq!(after.flags, Flags::UNDERFLOW | Flags::INEXACT);
    after.flags = Flags::NONE;
    let exact = 0x380f_ffff_ff80_0000u64; // 2^−126 × (1 − 2^−30)
    assert_eq!(f64_to_f32(exact, &mut after), 0x0080_0000);
    assert_eq!(after.flags, Flags::INEXACT);
    assert_eq!(run(0, |e| f64_to_f32(exact, e)), (0x0080_0000, UFC | IXC));
    assert_eq!(run(FZ, |e| f64_to_f32(exact, e)), (0, UFC));
}

#[test]
fn minimum_and_maximum() {
    let zero = SIGN;
    assert_eq!(run(0, |e| F32::max(zero, 0, e)), (0, 0));
    assert_eq!(run(0, |e| F32::min(0, zero, e)), (zero, 0));
    assert_eq!(run(0, |e| F32::max(s(1.0), QNAN, e)), (QNAN, 0));
    assert_eq!(run(0, |e| F32::max_num(s(1.0), QNAN, e)), (s(1.0), 0));
    assert_eq!(run(0, |e| F32::min_num(QNAN2, s(-1.0), e)), (s(-1.0), 0));
    assert_eq!(run(0, |e| F32::min_num(QNAN, SNAN, e)), (SNAN | 1 << 22, IOC));
    assert_eq!(run(0, |e| F32::min_num(s(1.0), SNAN, e)), (SNAN | 1 << 22, IOC));
    assert_eq!(run(DN, |e| F32::min_num(QNAN, QNAN2, e)), (DNAN, 0));
    assert_eq!(run(0, |e| F32::max_num(INF | SIGN, QNAN, e)), (INF | SIGN, 0));
    assert_eq!(run(0, |e| F32::min(s(-2.0), s(-1.0), e)), (s(-2.0), 0));
}

#[test]
fn comparisons() {
    assert_eq!(run(0, |e| F32::compare(s(1.0), QNAN, false, e)), (Ordering::Unordered, 0));
    assert_eq!(run(0, |e| F32::compare(s(1.0), QNAN, true, e)), (Ordering::Unordered, IOC));
    assert_eq!(run(0, |e| F32::eq(s(1.0), SNAN, e)), (false, IOC));
    assert_eq!(run(0, |e| F32::ge(s(1.0), QNAN, e)), (false, IOC));
    assert_eq!(run(0, |e| F32::compare(SIGN, 0, true, e)), (Ordering::Equal, 0));
    assert_eq!(run(0, |e| F32::abs_gt(s(-2.0), s(1.0), e)), (true, 0));
    assert_eq!(
        [Ordering::Less, Ordering::Equal, Ordering::Greater, Ordering::Unordered].map(Ordering::nzcv),
        [8, 6, 2, 3]
    );
}

#[test]
fn reciprocal_estimate() {
    let frecpe = |a, fpcr| run(fpcr, |e| F32::recip_estimate(a, e));
    assert_eq!(frecpe(s(1.0), 0), (0x3f7f_8000, 0));
    assert_eq!(frecpe(s(2.0), 0), (0x3eff_8000, 0));
    assert_eq!(frecpe(s(-1.5), 0), (0xbf2a_8000, 0));
    assert_eq!(frecpe(0, 0), (INF, DZC));
    assert_eq!(frecpe(SIGN, 0), (INF | SIGN, DZC));
    assert_eq!(frecpe(INF | SIGN, 0), (SIGN, 0));
    assert_eq!(frecpe(SNAN, 0), (SNAN | 1 << 22, IOC));
    // Below 2^−128 the result overflows by the rounding mode.
    assert_eq!(frecpe(0x001f_ffff, 0), (INF, OFC | IXC));
    assert_eq!(frecpe(0x001f_ffff, RM), (INF - 1, OFC | IXC));
    assert_eq!(frecpe(0x001f_ffff, RP), (INF, OFC | IXC));
    assert_eq!(frecpe(0x801f_ffff, RP), ((INF - 1) | SIGN, OFC | IXC));
    assert_eq!(frecpe(0x801f_ffff, RZ), ((INF - 1) | SIGN, OFC | IXC));
    // 2^−128 and 2^−127 are in range.
    assert_eq!(frecpe(0x0020_0000, 0), (0x7f7f_8000, 0));
    assert_eq!(frecpe(0x0040_0000, 0), (0x7eff_8000, 0));
    // Large ones have denormal results, flushed if so asked: 2^126 and 2^127.
    assert_eq!(frecpe(0x7e80_0000, 0), (0x007f_c000, 0));
    assert_eq!(frecpe(0x7f00_0000, 0), (0x003f_e000, 0));
    assert_eq!(frecpe(0x7e80_0000, FZ), (0, UFC));
    assert_eq!(frecpe(0x0020_0000, FZ), (INF, DZC | IDC));
    assert_eq!(run(0, |e| F64::recip_estimate(1f64.to_bits(), e)), (0x3fef_f000_0000_0000, 0));
    assert_eq!(run(0, |e| F16::recip_estimate(0x3c00, e)), (0x3bfc, 0));
    assert_eq!(run(FZ16, |e| F16::recip_estimate(0x7400, e)), (0, UFC));
}

#[test]
fn reciprocal_root_estimate() {
    let frsqrte = |a, fpcr| run(fpcr, |e| F32::rsqrt_estimate(a, e));
    assert_eq!(frsqrte(s(1.0), 0), (0x3f7f_8000, 0));
    assert_eq!(frsqrte(s(4.0), 0), (0x3eff_8000, 0));
    assert_eq!(frsqrte(s(2.0), 0), (0x3f34_8000, 0));
    assert_eq!(frsqrte(0, 0), (INF, DZC));
    assert_eq!(frsqrte(SIGN, 0), (INF | SIGN, DZC));
    assert_eq!(frsqrte(s(-1.0), 0), (DNAN, IOC));
    assert_eq!(frsqrte(INF | SIGN, 0), (DNAN, IOC));
    assert_eq!(frsqrte(INF, 0), (0, 0));
    // 2^−149: the root is 2^−74.5.
    assert_eq!(frsqrte(1, 0), (0x64b4_8000, 0));
    assert_eq!(frsqrte(1, FZ), (INF, DZC | IDC));
}

/// Both estimates are within 1/256 of the truth over all normal exponents.
#[test]
fn estimates_are_close() {
    let mut e = Env::DEFAULT;
    for i in 0..2000u32 {
        let bits = (1 + i * 7919 % 0x3ef) << 21 | (i.wrapping_mul(2654435761) >> 11);
        let x = f32::from_bits(bits & 0x7eff_ffff);
        let close = |got: u32, want: f64| ((f64::from(f32::from_bits(got)) / want) - 1.0).abs() < 1.0 / 255.0;
        if x < f32::from_bits(0x7e00_0000) && x.is_normal() {
            assert!(close(F32::recip_estimate(s(x), &mut e), 1.0 / f64::from(x)), "{x:e}");
        }
        assert!(close(F32::rsqrt_estimate(s(x), &mut e), 1.0 / f64::from(x).sqrt()), "{x:e}");
        let u = bits | 1 << 31;
        let want = 2f64.powi(63) / f64::from(u);
        assert!((f64::from(unsigned_recip_estimate(u)) / want - 1.0).abs() < 1.0 / 255.0);
        let u = bits | 1 << 30;
        let want = 2f64.powi(47) / f64::from(u).sqrt();
        assert!((f64::from(unsigned_rsqrt_estimate(u)) / want - 1.0).abs() < 1.0 / 255.0);
    }
}

#[test]
fn integer_estimates() {
    assert_eq!(unsigned_recip_estimate(0x7fff_ffff), !0);
    assert_eq!(unsigned_recip_estimate(0x8000_0000), 0xff80_0000);
    assert_eq!(unsigned_recip_estimate(!0), 0x8000_0000);
    assert_eq!(unsigned_rsqrt_estimate(0x3fff_ffff), !0);
    assert_eq!(unsigned_rsqrt_estimate(0x4000_0000), 0xff80_0000);
    assert_eq!(unsigned_rsqrt_estimate(!0), 0x8000_0000);
}

#[test]
fn steps() {
    assert_eq!(run(0, |e| F32::recip_step(s(3.0), s(0.25), e)), (s(1.25), 0));
    assert_eq!(run(0, |e| F32::recip_step(INF, 0, e)), (s(2.0), 0));
    assert_eq!(run(0, |e| F32::recip_step(INF, s(1.0), e)), (INF | SIGN, 0));
    assert_eq!(run(0, |e| F32::recip_step(QNAN, s(1.0), e)), (QNAN | SIGN, 0));
    assert_eq!(run(RM, |e| F32::recip_step(s(2.0), s(1.0), e)), (SIGN, 0));
    assert_eq!(run(0, |e| F32::rsqrt_step(s(3.0), s(0.25), e)), (s(1.125), 0));
    assert_eq!(run(0, |e| F32::rsqrt_step(0, INF | SIGN, e)), (s(1.5), 0));
    assert_eq!(run(0, |e| F32::rsqrt_step(0, s(5.0), e)), (s(1.5), 0));
    assert_eq!(run(0, |e| F64::rsqrt_step(0, 5f64.to_bits(), e)), (1.5f64.to_bits(), 0));
    // Halving before the overflow check: 3 + 2^128 over two is finite.
    assert_eq!(run(0, |e| F32::rsqrt_step(s(-1.7014118e38), s(2.0), e)), (s(1.7014118e38), IXC));
    assert_eq!(run(0, |e| F32::mul_extended(INF, SIGN, e)), (s(-2.0), 0));
    assert_eq!(run(0, |e| F32::mul_extended(s(3.0), s(2.0), e)), (s(6.0), 0));
    assert_eq!(run(0, |e| F32::recip_exponent(s(1.0), e)), (0x4000_0000, 0));
    assert_eq!(run(0, |e| F32::recip_exponent(SIGN, e)), (SIGN | 0x7f00_0000, 0));
    assert_eq!(run(0, |e| F32::recip_exponent(INF, e)), (0, 0));
}

#[test]
fn rounding_to_integers() {
    let modes = [
        Rounding::NearestEven,
        Rounding::TowardPositive,
        Rounding::TowardNegative,
        Rounding::TowardZero,
        Rounding::NearestAway,
    ];
    let all = |x: f32| modes.map(|m| f32::from_bits(run(0, |e| F32::round_to_int(s(x), m, false, e)).0));
    assert_eq!(all(2.5), [2.0, 3.0, 2.0, 2.0, 3.0]);
    assert_eq!(all(-2.5), [-2.0, -2.0, -3.0, -2.0, -3.0]);
    assert_eq!(all(0.4), [0.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(run(0, |e| F32::round_to_int(s(-0.4), Rounding::NearestEven, true, e)), (SIGN, IXC));
    assert_eq!(run(0, |e| F32::round_to_int(s(-0.4), Rounding::NearestEven, false, e)), (SIGN, 0));
    let sized = |x: f64, bits| run(0, |e| F64::round_to_int_sized(x.to_bits(), bits, Rounding::TowardZero, e));
    assert_eq!(sized(1e9 + 0.5, 32), (1e9f64.to_bits(), IXC));
    assert_eq!(sized(2147483648.0, 32), ((-2147483648.0f64).to_bits(), IOC));
    assert_eq!(sized(-2147483648.5, 32), ((-2147483648.0f64).to_bits(), IXC));
    assert_eq!(sized(f64::NAN, 64), ((-9223372036854775808.0f64).to_bits(), IOC));
    assert_eq!(sized(-9223372036854775808.0, 64), ((-9223372036854775808.0f64).to_bits(), 0));
    assert_eq!(sized(f64::INFINITY, 64), ((-9223372036854775808.0f64).to_bits(), IOC));
    let f16 = |x: u16| run(0, |e| F16::round_to_int(x, Rounding::NearestAway, true, e));
    assert_eq!(f16(0x3800), (0x3c00, IXC));
}

#[test]
fn fixed_point() {
    let z = Rounding::TowardZero;
    assert_eq!(run(0, |e| F32::to_signed(s(-1.75), 32, 2, z, e)), (-7, 0));
    assert_eq!(run(0, |e| F32::to_signed(s(-1.8), 32, 2, z, e)), (-7, IXC));
    assert_eq!(run(0, |e| F32::to_unsigned(s(-0.5), 32, 0, z, e)), (0, IXC));
    assert_eq!(run(0, |e| F32::to_unsigned(s(-1.0), 32, 0, z, e)), (0, IOC));
    assert_eq!(run(0, |e| F32::to_unsigned(s(1.0), 64, 64, z, e)), (u64::MAX, IOC));
    assert_eq!(run(0, |e| F32::to_unsigned(s(0.5), 64, 64, z, e)), (1 << 63, 0));
    assert_eq!(run(0, |e| F32::to_signed(QNAN, 64, 0, z, e)), (0, IOC));
    assert_eq!(run(0, |e| F32::to_signed(INF | SIGN, 32, 0, z, e)), (i64::from(i32::MIN), IOC));
    assert_eq!(run(0, |e| F32::to_signed(s(-2147483648.0), 32, 0, z, e)), (i64::from(i32::MIN), 0));
    assert_eq!(run(0, |e| F32::from_signed(-3, 1, e)), (s(-1.5), 0));
    assert_eq!(run(0, |e| F32::from_unsigned(u64::MAX, 64, e)), (s(1.0), IXC));
    assert_eq!(run(RZ, |e| F32::from_unsigned(u64::MAX, 0, e)), (0x5f7f_ffff, IXC));
    assert_eq!(run(0, |e| F16::from_unsigned(1, 64, e)), (0, UFC | IXC));
    assert_eq!(run(RP, |e| F16::from_unsigned(1, 64, e)), (1, UFC | IXC));
    assert_eq!(run(FZ16, |e| F16::from_unsigned(1, 20, e)), (0, UFC));
    assert_eq!(run(0, |e| F16::from_unsigned(1, 20, e)), (0x0010, 0));
    assert_eq!(run(0, |e| F16::from_unsigned(65520, 0, e)), (0x7c00, OFC | IXC));
    assert_eq!(run(RM, |e| F32::from_signed(0, 0, e)), (0, 0));
}

#[test]
fn javascript_conversion() {
    let f = |x: f64| run(0, |e| to_javascript_int(x.to_bits(), e));
    assert_eq!(f(5.0), ((5, true), 0));
    assert_eq!(f(0.0), ((0, true), 0));
    assert_eq!(f(-0.0), ((0, false), 0));
    assert_eq!(f(-1.5), ((!0, false), IXC));
    assert_eq!(f(2147483647.0), ((0x7fff_ffff, true), 0));
    assert_eq!(f(-2147483648.0), ((0x8000_0000, true), 0));
    assert_eq!(f(2147483648.0), ((0x8000_0000, false), IOC));
    assert_eq!(f(4294967297.5), ((1, false), IOC));
    assert_eq!(f(-4294967297.0), ((!0, false), IOC));
    assert_eq!(f(2f64.powi(64) + 2f64.powi(12)), ((0x1000, false), IOC));
    assert_eq!(f(2f64.powi(83) + 2f64.powi(31)), ((1 << 31, false), IOC));
    assert_eq!(f(2f64.powi(84)), ((0, false), IOC));
    assert_eq!(f(f64::MAX), ((0, false), IOC));
    assert_eq!(f(f64::NAN), ((0, false), IOC));
    assert_eq!(f(f64::INFINITY), ((0, false), IOC));
    assert_eq!(run(FZ, |e| to_javascript_int(1, e)), ((0, false), IDC));
    assert_eq!(run(0, |e| to_javascript_int(1, e)), ((0, false), IXC));
}

#[test]
fn alternative_half() {
    assert_eq!(run(AHP, |e| f16_to_f32(0x7fff, e)), (s(131008.0), 0));
    assert_eq!(run(AHP, |e| f16_to_f32(0xfc00, e)), (s(-65536.0), 0));
    assert_eq!(run(AHP, |e| f32_to_f16(s(131008.0), e)), (0x7fff, 0));
    assert_eq!(run(AHP, |e| f32_to_f16(s(-131072.0), e)), (0xffff, IOC));
    assert_eq!(run(AHP, |e| f32_to_f16(INF, e)), (0x7fff, IOC));
    assert_eq!(run(AHP, |e| f32_to_f16(QNAN2, e)), (0x8000, IOC));
    assert_eq!(run(AHP, |e| f32_to_f16(s(1.0), e)), (0x3c00, 0));
    // Arithmetic keeps to the IEEE format.
    assert_eq!(run(AHP, |e| F16::add(0x7c00, 0x3c00, e)), (0x7c00, 0));
}

#[test]
fn nan_conversions() {
    assert_eq!(run(0, |e| f32_to_f64(SNAN, e)), (0x7ff8_0000_2000_0000, IOC));
    assert_eq!(run(0, |e| f64_to_f32(0xfff8_0000_2000_0001, e)), (0xffc0_0001, 0));
    assert_eq!(run(0, |e| f32_to_f16(0x7f80_2000, e)), (0x7e01, IOC));
    assert_eq!(run(DN, |e| f32_to_f64(QNAN2, e)), (0x7ff8_0000_0000_0000, 0));
    assert_eq!(run(0, |e| f32_to_bf16(0x7f80_0001, e)), (0x7fc0, IOC));
}

#[test]
fn bfloat() {
    assert_eq!(run(0, |e| f32_to_bf16(0x3f80_8000, e)), (0x3f80, IXC));
    assert_eq!(run(0, |e| f32_to_bf16(0x3f81_8000, e)), (0x3f82, IXC));
    assert_eq!(run(RZ, |e| f32_to_bf16(0x7f7f_ffff, e)), (0x7f7f, IXC));
    assert_eq!(run(0, |e| f32_to_bf16(0x7f7f_ffff, e)), (0x7f80, OFC | IXC));
    assert_eq!(bf16_dot_add(0x3f80_4000, 0x4040_4080, s(1.0)), s(12.0));
    // Overflow is to infinity although rounding is to odd; opposite infinities give the default NaN.
    assert_eq!(bf16_dot_add(0x7f00, 0x7f00, 0), INF);
    assert_eq!(bf16_dot_add(0x7f80_ff80, 0x3f80_3f80, 0), DNAN);
    // 1 + 2^−40 to odd.
    assert_eq!(bf16_dot_add(0x2b80, 0x3f80, s(1.0)), 0x3f80_0001);
    assert_eq!(run(0, |e| bf16_mul_add(0x4000, 0x4040, s(1.0), e)), (s(7.0), 0));
}

#[test]
fn widening_multiply() {
    assert_eq!(run(0, |e| mul_add_half(0x7bff, 0x7bff, s(1.0), e)), (s(65504.0 * 65504.0 + 1.0), IXC));
    assert_eq!(run(0, |e| mul_add_half(1, 1, 0, e)), (s(2f32.powi(-48)), 0));
    assert_eq!(run(FZ16, |e| mul_add_half(1, 0x3c00, s(3.0), e)), (s(3.0), 0));
    assert_eq!(run(0, |e| mul_add_half(0x7c01, 0x3c00, 0, e)), (0x7fc0_2000, IOC));
    assert_eq!(run(0, |e| mul_add_half(0x7c00, 0x8000, QNAN, e)), (DNAN, IOC));
}

#[test]
fn signs_of_zero_sums() {
    assert_eq!(run(0, |e| F32::sub(s(1.0), s(1.0), e)), (0, 0));
    assert_eq!(run(RM, |e| F32::sub(s(1.0), s(1.0), e)), (SIGN, 0));
    assert_eq!(run(RM, |e| F32::add(0, SIGN, e)), (SIGN, 0));
    assert_eq!(run(0, |e| F32::add(SIGN, SIGN, e)), (SIGN, 0));
    assert_eq!(run(RM, |e| F32::mul_add(s(1.0), s(2.0), s(-2.0), e)), (SIGN, 0));
}

#[test]
fn fpsr_bits() {
    for bit in [IOC, DZC, OFC, UFC, IXC, IDC] {
        assert_eq!(Flags::from_fpsr(bit).to_fpsr(), bit);
    }
    assert_eq!(Flags::ALL.to_fpsr(), 0x9f);
    assert_eq!(Flags::from_fpsr(!0), Flags::ALL);
    assert_eq!(run(0, |e| F32::div(s(1.0), SIGN, e)), (INF | SIGN, DZC));
    assert_eq!(run(0, |e| F32::div(0, SIGN, e)), (DNAN, IOC));
}
