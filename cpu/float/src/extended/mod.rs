//! The 80-bit double-extended format of the x87 unit: arithmetic with its precision control, exceptions and special values
//! (Intel SDM vol. 1, 4.8 and 8.5).

mod arith;
mod convert;
mod elementary;
mod remainder;
mod wide;

pub use arith::{add, compare, div, mul, sqrt, sub};
pub use convert::{
    from_bcd, from_f32, from_f64, from_int, operand_f32, operand_f64, round_to_integral, to_bcd, to_f32, to_f64,
    to_int, to_int_truncated,
};
pub use elementary::{cos, exp2_minus_1, partial_arctangent, sin, sin_cos, tan, y_log2_x, y_log2_x_plus_1};
pub use remainder::{Partial, extract, partial_remainder, scale};

use crate::Rounding;

/// Exceptions in the order of the status and control words.
pub mod exception {
    pub const INVALID: u32 = 1;
    pub const DENORMAL: u32 = 2;
    pub const ZERO_DIVIDE: u32 = 4;
    pub const OVERFLOW: u32 = 8;
    pub const UNDERFLOW: u32 = 16;
    pub const PRECISION: u32 = 32;
    pub const ALL: u32 = 63;
}
use exception::{DENORMAL, INVALID, OVERFLOW, PRECISION, UNDERFLOW};

/// A value in 80 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct F80 {
    /// Sign (bit 15) and biased exponent.
    pub sign_exponent: u16,
    /// With the explicit integer bit (bit 63).
    pub significand: u64,
}

const BIAS: i32 = 0x3fff;
const EXP_MAX: i32 = 0x7fff;
const INTEGER: u64 = 1 << 63;
const QUIET: u64 = 1 << 62;
/// What is added to or subtracted from the exponent of unmasked underflows and overflows.
const WRAP: i32 = 24576;

impl F80 {
    pub const ZERO: F80 = F80 { sign_exponent: 0, significand: 0 };
    pub const ONE: F80 = F80 { sign_exponent: 0x3fff, significand: INTEGER };
    /// Real indefinite: the result of masked invalid operations.
    pub const INDEFINITE: F80 = F80 { sign_exponent: 0xffff, significand: INTEGER | QUIET };

    pub(crate) const fn new(sign: bool, exponent: i32, significand: u64) -> F80 {
        F80 { sign_exponent: (exponent as u16 & 0x7fff) | (sign as u16) << 15, significand }
    }
    pub const fn infinity(sign: bool) -> F80 {
        F80::new(sign, EXP_MAX, INTEGER)
    }
    pub const fn zero(sign: bool) -> F80 {
        F80::new(sign, 0, 0)
    }
    pub const fn sign(self) -> bool {
        self.sign_exponent >> 15 != 0
    }
    /// The biased exponent.
    pub const fn exponent(self) -> i32 {
        (self.sign_exponent & 0x7fff) as i32
    }
    /// The sign changed, also of a NaN.
    #[must_use]
    pub const fn negated(self) -> F80 {
        F80 { sign_exponent: self.sign_exponent ^ 0x8000, ..self }
    }
    #[must_use]
    pub const fn absolute(self) -> F80 {
        F80 { sign_exponent: self.sign_exponent & 0x7fff, ..self }
    }
    pub fn class(self) -> Class {
        let integer = self.significand & INTEGER != 0;
        match (self.exponent(), self.significand) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            _ if !integer => Class::Unsupported,
            (EXP_MAX, INTEGER) => Class::Infinity,
            (EXP_MAX, s) if s & QUIET != 0 => Class::Quiet,
            (EXP_MAX, _) => Class::Signalling,
            _ => Class::Normal,
        }
    }
    pub fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signalling)
    }
    /// Significand with its leading one in bit 63 and exponent without bias, of a finite number that is not zero.
    fn normalized(self) -> (i32, u64) {
        let lz = self.significand.leading_zeros();
        (self.exponent().max(1) - BIAS - lz as i32, self.significand.wrapping_shl(lz))
    }
}

/// Kinds of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Zero,
    /// Also pseudo-denormals.
    Denormal,
    Normal,
    Infinity,
    Quiet,
    Signalling,
    /// Unnormals, pseudo-infinities, pseudo-NaNs: invalid operands since the 387.
    Unsupported,
}

/// The environment of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Env80 {
    pub rounding: Rounding,
    /// Significant bits of results: 24, 53 or 64.
    pub precision: u32,
    /// Masked exceptions, as in the control word.
    pub masks: u32,
    /// Exceptions raised, as in the status word.
    pub flags: u32,
    /// The result's magnitude was rounded up (C1).
    pub rounded_up: bool,
    /// An operand was a denormal of another format, which is told like one of this.
    pub denormal_operand: bool,
}

impl Default for Env80 {
    fn default() -> Env80 {
        Env80 {
            rounding: Rounding::NearestEven,
            precision: 64,
            masks: exception::ALL,
            flags: 0,
            rounded_up: false,
            denormal_operand: false,
        }
    }
}

impl Env80 {
    /// By a control word.
    pub fn new(control: u32) -> Env80 {
        Env80 {
            rounding: match control >> 10 & 3 {
                0 => Rounding::NearestEven,
                1 => Rounding::TowardNegative,
                2 => Rounding::TowardPositive,
                _ => Rounding::TowardZero,
            },
            precision: match control >> 8 & 3 {
                0 => 24,
                2 => 53,
                _ => 64,
            },
            masks: control & exception::ALL,
            flags: 0,
            rounded_up: false,
            denormal_operand: false,
        }
    }
    fn raise(&mut self, flags: u32) {
        self.flags |= flags;
    }
    fn masked(&self, flag: u32) -> bool {
        self.masks & flag != 0
    }
    /// The result of an invalid operation.
    fn invalid(&mut self) -> F80 {
        self.raise(INVALID);
        F80::INDEFINITE
    }
    /// True if an exception was raised that is not masked and keeps an operation from being done.
    fn stops(&self) -> bool {
        self.flags & !self.masks & (INVALID | DENORMAL | exception::ZERO_DIVIDE) != 0
    }
    fn denormal(&mut self, operands: &[F80]) {
        if self.denormal_operand || operands.iter().any(|o| o.class() == Class::Denormal) {
            self.raise(DENORMAL);
        }
    }
    /// The result if an operand is a NaN or unsupported.
    fn nan(&mut self, operands: &[F80]) -> Option<F80> {
        use Class::{Quiet, Signalling, Unsupported};
        let has = |c: Class| operands.iter().any(|o| o.class() == c);
        if has(Unsupported) {
            return Some(self.invalid());
        }
        if !has(Quiet) && !has(Signalling) {
            return None;
        }
        if has(Signalling) {
            self.raise(INVALID);
        }
        // A quiet one wins over a signalling one, then the larger significand, then the positive one.
        let class = if has(Quiet) { Quiet } else { Signalling };
        let best = operands.iter().filter(|o| o.class() == class).copied().reduce(|a, b| {
            let (x, y) = (a.significand | QUIET, b.significand | QUIET);
            if x > y || x == y && !a.sign() { a } else { b }
        });
        best.map(|b| F80 { significand: b.significand | QUIET, ..b })
    }

    /// Rounds `sig:low × 2^(exp − 127)`, bit 63 of `sig` set, to the precision.
    fn round(&mut self, sign: bool, exp: i32, sig: u64, low: u64) -> F80 {
        let precision = self.precision;
        self.round_to(sign, exp, sig, low, precision)
    }
    fn round_to(&mut self, sign: bool, exp: i32, sig: u64, low: u64, precision: u32) -> F80 {
        let drop = 64 - precision;
        let unit = 1u64 << drop;
        let mut biased = exp.saturating_add(BIAS);
        let (mut s, mut rest) = (sig, low);
        // The part of `s` that is dropped goes before `rest`.
        let split = |s: u64, rest: u64| -> (u64, u64) {
            if drop == 0 {
                (s, rest)
            } else {
                (s & !(unit - 1), s << (64 - drop) | rest >> drop | u64::from(rest << (64 - drop) != 0))
            }
        };
        let up = |s: u64, rest: u64, mode: Rounding| crate::format::rounds_up(mode, sign, s & unit != 0, rest, 1 << 63);
        if biased < 1 {
            let (k, r) = split(s, rest);
            // Rounded with unbounded exponent it may reach the least normal number.
            let tiny = biased < 0 || !(up(k, r, self.rounding) && k.checked_add(unit).is_none());
            if tiny && !self.masked(UNDERFLOW) {
                self.raise(UNDERFLOW);
                biased += WRAP;
            } else {
                let shift = (1i32.saturating_sub(biased)) as u32;
                let v = crate::format::shr_jam128(u128::from(s) << 64 | u128::from(rest), shift);
                (s, rest) = ((v >> 64) as u64, v as u64);
                let (k, r) = split(s, rest);
                if r != 0 {
                    self.raise(PRECISION);
                    if tiny {
                        self.raise(UNDERFLOW);
                    }
                }
                let mut value = k;
                self.rounded_up = false;
                if up(k, r, self.rounding) {
                    self.rounded_up = true;
                    value = k.wrapping_add(unit);
                }
                return F80::new(sign, (value >> 63) as i32, value);
            }
        }
        let (k, r) = split(s, rest);
        let mut value = k;
        let raised = up(k, r, self.rounding);
        if raised {
            value = k.wrapping_add(unit);
            if value < k || value == 0 {
                value = INTEGER;
                biased += 1;
            }
        }
        if biased >= EXP_MAX {
            self.raise(OVERFLOW);
            if self.masked(OVERFLOW) {
                self.raise(PRECISION);
                let to_infinity = crate::format::overflows_to_inf(self.rounding, sign);
                self.rounded_up = to_infinity;
                return if to_infinity { F80::infinity(sign) } else { F80::new(sign, EXP_MAX - 1, !(unit - 1)) };
            }
            biased -= WRAP;
            if biased >= EXP_MAX {
                // Beyond even the wrapped range (FSCALE).
                self.rounded_up = true;
                if r != 0 {
                    self.raise(PRECISION);
                }
                return F80::infinity(sign);
            }
        }
        if biased < 1 {
            self.raise(PRECISION);
            self.rounded_up = false;
            return F80::zero(sign);
        }
        self.rounded_up = raised;
        if r != 0 {
            self.raise(PRECISION);
        }
        F80::new(sign, biased, value)
    }
    /// The sign of an exact zero sum of numbers of opposite signs.
    fn cancelled(&self) -> F80 {
        F80::zero(self.rounding == Rounding::TowardNegative)
    }
}
