//! VSX operations between formats and on quad precision (Book I, 7.6): on registers by number.

use super::fpscr;
use super::scalar::class;
use crate::state::PpcCpu;
use crate::vector::{el, from_register, make, put, to_register};
use rhea_float::{Bf16, Env, F16, F32, F64, Flags, Float, Ordering, Rounding, convert, quad};

numbered! {
    /// An operation.
    pub enum VsxOp {
        // Scalars.
        DpToHp,
        HpToDp,
        // Vectors.
        HpToSp,
        SpToHp,
        SpToBf16,
        DpToSp,
        SpToDp,
        DpToSxw,
        DpToUxw,
        SpToSxd,
        SpToUxd,
        SxdToSp,
        UxdToSp,
        // Quad precision; the flag is round to odd.
        QAdd,
        QSub,
        QMul,
        QDiv,
        QSqrt,
        QMulAdd,
        QMulSub,
        QNegMulAdd,
        QNegMulSub,
        QCmpEq,
        QCmpGt,
        QCmpGe,
        QMax,
        QMin,
        QToDp,
        QFromDp,
        QToSw,
        QToUw,
        QToSd,
        QToUd,
        QToSq,
        QToUq,
        QFromSd,
        QFromUd,
        QFromSq,
        QFromUq,
        /// `extra`: rounding by number of `rhea_float` (7 current) | 8 inexact is signalled.
        QRound,
        QRoundExtended,
    }
}

/// An operation and its registers, packed: operation (0–7), target, a, b (8, 14, 20; VSR numbers), extra (26–31), odd (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vsx(pub u64);

impl Vsx {
    pub const fn new(op: VsxOp, t: u32, a: u32, b: u32) -> Vsx {
        Vsx(op as u64 | ((t & 63) as u64) << 8 | ((a & 63) as u64) << 14 | ((b & 63) as u64) << 20)
    }
    pub const fn extra(self, e: u32) -> Vsx {
        Vsx(self.0 | ((e & 63) as u64) << 26)
    }
    pub const fn odd(self, odd: bool) -> Vsx {
        Vsx(self.0 | (odd as u64) << 32)
    }
}

/// FPRF of a quad, in place.
fn quad_class(v: u128) -> u64 {
    // The classes are those of a double with the same exponent's kind.
    let magnitude = v & !quad::SIGN;
    let sign = ((v >> 127) as u64) << 63;
    let like = if magnitude > quad::INF {
        0x7ff8 << 48
    } else if magnitude == quad::INF {
        0x7ff << 52
    } else if magnitude == 0 {
        0
    } else if magnitude < 1 << 112 {
        1
    } else {
        0x3ff << 52
    };
    u64::from(class(sign | like, false)) << fpscr::FPRF_SHIFT
}

fn is_nan(v: u128) -> bool {
    v & !quad::SIGN > quad::INF
}

impl PpcCpu {
    /// Does the operation, updates FPSCR, and raises what is enabled.
    pub(crate) fn vsx_operation(&mut self, p: Vsx) {
        let op = VsxOp::from_number(p.0).unwrap_or(VsxOp::DpToHp);
        let reg = |at: u32| (p.0 >> at & 63) as usize;
        let (t, extra, odd) = (reg(8), (p.0 >> 26 & 63) as u32, p.0 >> 32 & 1 != 0);
        let [a, b, c] = [reg(14), reg(20), t].map(|r| from_register(self.vsr[r]));
        use VsxOp::*;
        match op {
            DpToHp | HpToDp | HpToSp | SpToHp | SpToBf16 | DpToSp | SpToDp | DpToSxw | DpToUxw | SpToSxd | SpToUxd
            | SxdToSp | UxdToSp => self.between_formats(op, t, b),
            QCmpEq | QCmpGt | QCmpGe | QMax | QMin => {
                let mut e = self.fp_env();
                let o = quad::compare(a, b, matches!(op, QCmpGt | QCmpGe), &mut e);
                let mask = |c: bool| if c { u128::MAX } else { 0 };
                let r = match op {
                    QCmpEq => mask(o == Ordering::Equal),
                    QCmpGt => mask(o == Ordering::Greater),
                    QCmpGe => mask(matches!(o, Ordering::Greater | Ordering::Equal)),
                    QMax => {
                        if o == Ordering::Greater {
                            a
                        } else {
                            b
                        }
                    }
                    _ => {
                        if o == Ordering::Less {
                            a
                        } else {
                            b
                        }
                    }
                };
                let flags = self.compare_causes(e.flags);
                if !self.fp_suppressed(flags) {
                    self.vsr[t] = to_register(r);
                }
                self.fp_done(flags, 0, 0);
            }
            _ => self.quad_arithmetic(op, t, [a, b, c], extra, odd),
        }
    }

    fn quad_arithmetic(&mut self, op: VsxOp, t: usize, [a, b, c]: [u128; 3], extra: u32, odd: bool) {
        use VsxOp::*;
        let f = |e: &mut Env| -> u128 {
            let minus = |v: u128| if is_nan(v) { v } else { v ^ quad::SIGN };
            match op {
                QAdd => quad::add_sub(a, b, false, e),
                QSub => quad::add_sub(a, b, true, e),
                QMul => quad::mul(a, b, e),
                QDiv => quad::div(a, b, e),
                QSqrt => quad::sqrt(b, e),
                QMulAdd => quad::mul_add(a, b, c, e),
                QMulSub => quad::mul_add(a, b, minus(c), e),
                QNegMulAdd => minus(quad::mul_add(a, b, c, e)),
                QNegMulSub => minus(quad::mul_add(a, b, minus(c), e)),
                QToDp => u128::from(quad::to_f64(b, e)) << 64,
                QFromDp => quad::from_f64((b >> 64) as u64, e),
                QToSw => quad::to_int(b, 32, true, e) << 64,
                QToUw => quad::to_int(b, 32, false, e) << 64,
                QToSd => quad::to_int(b, 64, true, e) << 64,
                QToUd => quad::to_int(b, 64, false, e) << 64,
                QToSq => quad::to_int(b, 128, true, e),
                QToUq => quad::to_int(b, 128, false, e),
                QFromSd => {
                    let v = (b >> 64) as i64;
                    quad::from_int(v < 0, u128::from(v.unsigned_abs()), e)
                }
                QFromUd => quad::from_int(false, b >> 64, e),
                QFromSq => quad::from_int((b as i128) < 0, (b as i128).unsigned_abs(), e),
                QFromUq => quad::from_int(false, b, e),
                QRound | QRoundExtended => {
                    let mode = Rounding::from_u32(extra & 7).unwrap_or(e.rounding);
                    // The check for increments truncates.
                    let mode = if e.rounding == Rounding::TowardZero { Rounding::TowardZero } else { mode };
                    if op == QRound {
                        quad::round_to_int(b, mode, extra & 8 != 0, e)
                    } else {
                        quad::round_to_extended(b, mode, e)
                    }
                }
                _ => 0,
            }
        };
        let mut env = self.fp_env_trapping();
        if odd {
            env.rounding = Rounding::ToOdd;
        }
        let round = matches!(op, QRound | QRoundExtended);
        if round {
            // The instruction's own mode, unless it says FPSCR's.
            env.rounding = Rounding::from_u32(extra & 7).unwrap_or(env.rounding);
        }
        let r = f(&mut env);
        let flags = env.flags;
        let to_int = matches!(op, QToSw | QToUw | QToSd | QToUd | QToSq | QToUq);
        if self.fp_suppressed(flags) {
            return self.fp_done(flags, fpscr::FR | fpscr::FI, 0);
        }
        let mut status = 0;
        if flags.contains(Flags::INEXACT) {
            status |= fpscr::FI;
            let mut truncating = Env { rounding: Rounding::TowardZero, ..Env::PPC };
            if f(&mut truncating) != r {
                status |= fpscr::FR;
            }
        }
        // A word's sign fills the doubleword.
        let r = if op == QToSw { ((r >> 64) as i32 as i64 as u64 as u128) << 64 } else { r };
        self.vsr[t] = to_register(r);
        if to_int {
            return self.fp_done(flags, fpscr::FR | fpscr::FI, status);
        }
        status |=
            if op == QToDp { u64::from(class((r >> 64) as u64, false)) << fpscr::FPRF_SHIFT } else { quad_class(r) };
        self.fp_done(flags, fpscr::FR | fpscr::FI | fpscr::FPRF, status);
    }

    fn between_formats(&mut self, op: VsxOp, t: usize, b: u128) {
        use VsxOp::*;
        let mut env = self.fp_env_trapping();
        let e = &mut env;
        let word = |i: u32| el(b, 32, i) as u32;
        let double = |i: u32| el(b, 64, i) as u64;
        // Elements of a function with the environment, one after the other.
        fn each(n: u32, bits: u32, e: &mut Env, f: impl Fn(u32, &mut Env) -> u128) -> u128 {
            (0..n).fold(0, |r, i| {
                let v = f(i, e);
                r | put(v, bits, i)
            })
        }
        let twice = |w: u32| u128::from(w) << 32 | u128::from(w);
        let zero = Rounding::TowardZero;
        let r = match op {
            DpToHp => {
                let h = convert::<F64, F16>(double(0), e);
                let status = self.half_status(double(0), h, e.flags);
                if self.fp_suppressed(e.flags) {
                    return self.fp_done(env.flags, fpscr::FR | fpscr::FI, 0);
                }
                self.vsr[t] = u128::from(h);
                return self.fp_done(env.flags, fpscr::FR | fpscr::FI | fpscr::FPRF, status);
            }
            HpToDp => {
                let d = rhea_float::f16_to_f64((b >> 64) as u16, e);
                if self.fp_suppressed(e.flags) {
                    return self.fp_done(env.flags, fpscr::FR | fpscr::FI, 0);
                }
                self.vsr[t] = u128::from(d);
                let status = u64::from(class(d, false)) << fpscr::FPRF_SHIFT;
                return self.fp_done(env.flags, fpscr::FR | fpscr::FI | fpscr::FPRF, status);
            }
            HpToSp => each(4, 32, e, |i, e| u128::from(rhea_float::f16_to_f32(word(i) as u16, e))),
            SpToHp => each(4, 32, e, |i, e| u128::from(rhea_float::f32_to_f16(word(i), e))),
            SpToBf16 => each(4, 32, e, |i, e| u128::from(convert::<F32, Bf16>(word(i), e))),
            DpToSp => each(2, 64, e, |i, e| twice(rhea_float::f64_to_f32(double(i), e))),
            SpToDp => each(2, 64, e, |i, e| u128::from(rhea_float::f32_to_f64(word(2 * i), e))),
            DpToSxw => each(2, 64, e, |i, e| twice(F64::to_signed(double(i), 32, 0, zero, e) as u32)),
            DpToUxw => each(2, 64, e, |i, e| twice(F64::to_unsigned(double(i), 32, 0, zero, e) as u32)),
            SpToSxd => each(2, 64, e, |i, e| F32::to_signed(word(2 * i), 64, 0, zero, e) as u64 as u128),
            SpToUxd => each(2, 64, e, |i, e| u128::from(F32::to_unsigned(word(2 * i), 64, 0, zero, e))),
            SxdToSp => each(2, 64, e, |i, e| twice(F32::from_signed(double(i) as i64, 0, e))),
            _ => each(2, 64, e, |i, e| twice(F32::from_unsigned(double(i), 0, e))),
        };
        let flags = env.flags;
        if !self.fp_suppressed(flags) && !self.vector_suppressed(flags) {
            self.vsr[t] = to_register(r);
        }
        self.fp_done(flags, 0, 0);
    }

    /// FR, FI and FPRF of a conversion to half precision.
    fn half_status(&self, from: u64, h: u16, flags: Flags) -> u64 {
        let mut status = 0;
        if flags.contains(Flags::INEXACT) {
            let mut z = Env { rounding: Rounding::TowardZero, ..Env::PPC };
            status |= fpscr::FI | if convert::<F64, F16>(from, &mut z) != h { fpscr::FR } else { 0 };
        }
        let mut quiet = Env::PPC;
        let wide = rhea_float::f16_to_f64(h, &mut quiet);
        let denormal = h & 0x7c00 == 0 && h & 0x3ff != 0;
        let wide = if denormal { u64::from(h & 0x8000) << 48 | 1 } else { wide };
        status | u64::from(class(wide, false)) << fpscr::FPRF_SHIFT
    }

    /// xscmpoqp, xscmpuqp: FPCC and a field of the condition register.
    pub(crate) fn quad_compare(&mut self, a: usize, b: usize, ordered: bool, field: usize) {
        let mut e = self.fp_env();
        let (a, b) = (from_register(self.vsr[a & 63]), from_register(self.vsr[b & 63]));
        let o = quad::compare(a, b, ordered, &mut e);
        let flags = self.compare_causes(e.flags);
        let cc = match o {
            Ordering::Less => 8u64,
            Ordering::Greater => 4,
            Ordering::Equal => 2,
            Ordering::Unordered => 1,
        };
        self.set_cr_field(field, cc as u32);
        self.fp_done(flags, fpscr::FPCC, cc << fpscr::FPRF_SHIFT);
    }

    /// Compares of exponents and tests of data classes: they set FPCC too. kind: 0 exponents of doubles, 1 of quads; 2 class of a
    /// double, 3 of a double as a single, 4 of a quad, with the mask.
    pub(crate) fn vsx_test(&mut self, kind: u32, a: usize, b: usize, mask: u32, field: usize) {
        let (x, y) = (from_register(self.vsr[a & 63]), from_register(self.vsr[b & 63]));
        let cc = match kind {
            0 | 1 => {
                let nan = |v: u128| if kind == 1 { is_nan(v) } else { is_nan_double((v >> 64) as u64) };
                let exponent = |v: u128| if kind == 1 { v >> 112 & 0x7fff } else { v >> 116 & 0x7ff };
                let (p, q) = (exponent(x), exponent(y));
                if nan(x) || nan(y) {
                    1
                } else if p < q {
                    8
                } else if p > q {
                    4
                } else {
                    2
                }
            }
            4 => (y >> 127) as u32 * 8 | u32::from(in_class_quad(y, mask)) * 2,
            _ => {
                let d = (y >> 64) as u64;
                let single = kind == 3;
                let not_single = single && !is_single(d);
                (d >> 63) as u32 * 8 | u32::from(in_class(d, mask, single)) * 2 | u32::from(not_single)
            }
        };
        self.set_cr_field(field, cc);
        self.fp_done(Flags::NONE, fpscr::FPCC, u64::from(cc) << fpscr::FPRF_SHIFT);
    }
}

fn is_nan_double(v: u64) -> bool {
    v << 1 > 0x7ff << 53
}

/// Whether a double is exactly a single (NaNs and infinities by their fraction).
fn is_single(d: u64) -> bool {
    let mut e = Env::PPC;
    if is_nan_double(d) {
        return d & 0x1fff_ffff == 0;
    }
    let s = rhea_float::f64_to_f32(d, &mut e);
    e.flags.is_empty() && rhea_float::load_single(s) == d
}

/// DCMX: NaN, +inf, −inf, +0, −0, +denormal, −denormal.
fn in_class(v: u64, mask: u32, single: bool) -> bool {
    let negative = v >> 63 != 0;
    let m = v << 1 >> 1;
    let bit = |plus: u32| mask >> (plus - u32::from(negative)) & 1 != 0;
    let denormal = if single { m < 897 << 52 } else { m < 1 << 52 };
    if m > 0x7ff << 52 {
        mask & 64 != 0
    } else if m == 0x7ff << 52 {
        bit(5)
    } else if m == 0 {
        bit(3)
    } else {
        denormal && bit(1)
    }
}

fn in_class_quad(v: u128, mask: u32) -> bool {
    let m = v & !quad::SIGN;
    let like = if m > quad::INF {
        0x7ff8 << 48
    } else if m == quad::INF {
        0x7ff << 52
    } else if m == 0 {
        0
    } else if m < 1 << 112 {
        1
    } else {
        return false;
    };
    in_class(((v >> 127) as u64) << 63 | like, mask, false)
}

/// xvtstdcsp, xvtstdcdp: imm: mask | 128 doubles.
pub(crate) fn test_classes(b: u128, imm: u32) -> u128 {
    if imm & 128 != 0 {
        return make(64, |i| if in_class(el(b, 64, i) as u64, imm & 127, false) { u128::MAX } else { 0 });
    }
    make(32, |i| {
        let w = el(b, 32, i) as u32;
        // As a double of the same class.
        let m = w & 0x7fff_ffff;
        let like = if m > 0x7f80_0000 {
            0x7ff8 << 48
        } else if m == 0x7f80_0000 {
            0x7ff << 52
        } else if m == 0 {
            0
        } else if m < 0x80_0000 {
            1
        } else {
            0x3ff << 52
        };
        if in_class(u64::from(w >> 31) << 63 | like, imm & 127, false) { u128::MAX } else { 0 }
    })
}

/// xvtdivdp, xvtdivsp, xvtsqrtdp, xvtsqrtsp: imm: 1 singles | 2 root. The field's bits.
pub(crate) fn test_vector(a: u128, b: u128, imm: u32) -> u128 {
    let (bits, exp_bits, frac) = if imm & 1 != 0 { (32, 8, 23) } else { (64, 11, 52) };
    let bias = (1i32 << (exp_bits - 1)) - 1;
    let top = (1i32 << exp_bits) - 1;
    let (mut fe, mut fg) = (false, false);
    for i in 0..128 / bits {
        let [x, y] = [a, b].map(|v| el(v, bits, i) as u64);
        let exponent = |v: u64| (v >> frac) as i32 & top;
        let fraction = |v: u64| v & ((1 << frac) - 1);
        let zero = |v: u64| exponent(v) == 0 && fraction(v) == 0;
        let inf = |v: u64| exponent(v) == top && fraction(v) == 0;
        let (ex, ey) = (exponent(x) - bias, exponent(y) - bias);
        let low = -bias + 1 + frac;
        if imm & 2 != 0 {
            let negative = y >> (bits - 1) != 0;
            fe |= exponent(y) == top || zero(y) || negative || ey <= low;
            fg |= inf(y) || zero(y) || exponent(y) == 0;
        } else {
            fe |= exponent(x) == top
                || exponent(y) == top
                || zero(y)
                || ey <= -bias + 1
                || ey >= bias - 2
                || !zero(x) && (ex - ey >= bias || ex - ey <= -bias + 2 || ex <= low);
            fg |= inf(x) || inf(y) || zero(y) || exponent(y) == 0;
        }
    }
    u128::from(8 | u32::from(fg) << 2 | u32::from(fe) << 1)
}
