//! Scalar operations on the first doubleword of registers.

use super::fpscr;
use super::lanes::{LaneOp, lane};
use rhea_float::{Env, F64, Flags, Rounding, round_to_single};

/// A scalar operation that FPSCR says something of afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FpOp {
    /// An operation of lanes, see [`LaneOp`].
    Add = LaneOp::Add as u8,
    Sub = LaneOp::Sub as u8,
    Mul = LaneOp::Mul as u8,
    Div = LaneOp::Div as u8,
    Sqrt = LaneOp::Sqrt as u8,
    MulAdd = LaneOp::MulAdd as u8,
    MulSub = LaneOp::MulSub as u8,
    NegMulAdd = LaneOp::NegMulAdd as u8,
    NegMulSub = LaneOp::NegMulSub as u8,
    Recip = LaneOp::Recip as u8,
    Rsqrt = LaneOp::Rsqrt as u8,
    RoundInt = LaneOp::RoundInt as u8,
    RoundIntExact = LaneOp::RoundIntExact as u8,
    ToS64 = LaneOp::ToS64 as u8,
    ToU64 = LaneOp::ToU64 as u8,
    ToS32 = LaneOp::ToS32 as u8,
    ToU32 = LaneOp::ToU32 as u8,
    FromS = LaneOp::FromS64 as u8,
    FromU = LaneOp::FromU64 as u8,
    Max = LaneOp::Max as u8,
    Min = LaneOp::Min as u8,
    MaxC = LaneOp::MaxC as u8,
    MinC = LaneOp::MinC as u8,
    MaxJ = LaneOp::MaxJ as u8,
    MinJ = LaneOp::MinJ as u8,
    CmpEq = LaneOp::CmpEq as u8,
    CmpGt = LaneOp::CmpGt as u8,
    CmpGe = LaneOp::CmpGe as u8,
    /// The operand itself (frsp, xsrsp).
    Copy = LaneOp::Copy as u8,
}

/// What was done, in a word: operation (bits 0–7, 0 nothing), rounded to single precision (8), rounding mode (9–11, 7: that of
/// FPSCR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note(pub u32);

impl Note {
    pub const NONE: Note = Note(0);
    pub const fn new(op: FpOp, single: bool) -> Note {
        Note(op as u32 | (single as u32) << 8 | 7 << 9)
    }
    /// An operation of lanes.
    pub const fn of(op: LaneOp) -> Note {
        Note(op as u32 | 7 << 9)
    }
    /// Rounding as `rhea_float` numbers it.
    pub const fn rounding(self, r: Rounding) -> Note {
        Note(self.0 & !(7 << 9) | (r as u32) << 9)
    }
    pub fn op(self) -> LaneOp {
        LaneOp::from_u32(self.0 & 0xff)
    }
    pub const fn single(self) -> bool {
        self.0 & 0x100 != 0
    }
    /// The mode, `None` for that of FPSCR.
    pub fn mode(self) -> Option<Rounding> {
        Rounding::from_u32(self.0 >> 9 & 7)
    }

    /// The result; flags are added to those of the environment.
    pub fn compute(self, a: u64, b: u64, c: u64, env: &mut Env) -> u64 {
        let op = self.op();
        let saved = env.rounding;
        if let Some(r) = self.mode() {
            env.rounding = r;
        }
        // An estimate's root is rounded as the division is not.
        let (op, a, b) = if op == LaneOp::Rsqrt {
            (LaneOp::Div, 1f64.to_bits(), lane::<F64>(LaneOp::Sqrt, a, 0, 0, env))
        } else {
            (op, a, b)
        };
        let r = if self.single() {
            round_to_single(env, |e| lane::<F64>(op, a, b, c, e))
        } else {
            lane::<F64>(op, a, b, c, env)
        };
        env.rounding = saved;
        // After rounding: negation would turn directed modes round.
        if matches!(op, LaneOp::NegMulAdd | LaneOp::NegMulSub) && !f64::from_bits(r).is_nan() { r ^ 1 << 63 } else { r }
    }

    /// FR and FI of the result, given the flags that the operation raised.
    pub fn fr_fi(self, result: u64, flags: Flags, a: u64, b: u64, c: u64) -> u64 {
        if !flags.contains(Flags::INEXACT) {
            return 0;
        }
        let mut env = Env { rounding: Rounding::TowardZero, ..Env::PPC };
        let toward_zero = Note(self.0 & !(7 << 9) | (Rounding::TowardZero as u32) << 9).compute(a, b, c, &mut env);
        // Not of an overflow, where the truncated result is the largest number.
        let incremented = toward_zero != result;
        fpscr::FI | if incremented { fpscr::FR } else { 0 }
    }

    /// FPRF of the result in place, `None` if the operation leaves it.
    pub fn fprf(self, result: u64, flags: Flags) -> Option<u64> {
        use LaneOp::*;
        match self.op() {
            ToS64 | ToU64 | ToS32 | ToU32 if flags.contains(Flags::INVALID) => Some(0b10001 << fpscr::FPRF_SHIFT),
            ToS64 | ToU64 | ToS32 | ToU32 | Max | Min | MaxC | MinC | MaxJ | MinJ | CmpEq | CmpGt | CmpGe => None,
            _ => Some(u64::from(class(result, self.single())) << fpscr::FPRF_SHIFT),
        }
    }
    /// FR, FI and FPRF are left (maximum, minimum, compares with a register as result).
    pub fn leaves_status(self) -> bool {
        use LaneOp::*;
        matches!(self.op(), Max | Min | MaxC | MinC | MaxJ | MinJ | CmpEq | CmpGt | CmpGe)
    }
}

/// The five bits of FPRF that tell a result's class; `single`: a denormal is one of single precision.
pub fn class(v: u64, single: bool) -> u32 {
    let magnitude = v & (u64::MAX >> 1);
    let negative = v >> 63 != 0;
    let least_normal: u64 = if single { 897 << 52 } else { 1 << 52 };
    let (plus, minus) = if magnitude > 0x7ff << 52 {
        (0b10001, 0b10001)
    } else if magnitude == 0x7ff << 52 {
        (0b00101, 0b01001)
    } else if magnitude == 0 {
        (0b00010, 0b10010)
    } else if magnitude < least_normal {
        (0b10100, 0b11000)
    } else {
        (0b00100, 0b01000)
    };
    if negative { minus } else { plus }
}
