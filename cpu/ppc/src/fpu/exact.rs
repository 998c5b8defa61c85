//! Operations done outside generated code, on registers by number: while an exception is enabled in FPSCR, and those that have
//! no form there.

use super::fpscr;
use super::lanes::{LaneOp, lane};
use super::scalar::Note;
use crate::state::PpcCpu;
use rhea_float::{Env, F32, F64, Flags};

/// Which elements an operation has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shape {
    /// Doubleword 0; doubleword 1 of the result is zero.
    Scalar = 0,
    /// Two doubles.
    Double = 1,
    /// Four singles.
    Single = 2,
}

/// An operation with its registers (VSR numbers), packed: note (bits 0–11), shape (12–13), see `words` (14),
/// target, a, b, c (16, 22, 28, 34; six bits each).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exact(pub u64);

impl Exact {
    pub fn new(note: Note, shape: Shape, t: u32, abc: [u32; 3]) -> Exact {
        let r = |n: u32| (n & 63) as u64;
        Exact(note.0 as u64 | (shape as u64) << 12 | r(t) << 16 | r(abc[0]) << 22 | r(abc[1]) << 28 | r(abc[2]) << 34)
    }
    /// The result is a single's bits (of a rounding) or a word (of a conversion to integer), in both words of doubleword 0.
    pub const fn words(self) -> Exact {
        Exact(self.0 | 1 << 14)
    }
    fn note(self) -> Note {
        Note(self.0 as u32 & 0xfff)
    }
    fn shape(self) -> Shape {
        match self.0 >> 12 & 3 {
            1 => Shape::Double,
            2 => Shape::Single,
            _ => Shape::Scalar,
        }
    }
    fn reg(self, at: u32) -> usize {
        (self.0 >> at & 63) as usize
    }
}

impl PpcCpu {
    /// The environment with what enabled overflow and underflow exceptions change.
    pub(crate) fn fp_env_trapping(&self) -> Env {
        Env { trap_overflow: self.fpscr & fpscr::OE != 0, trap_underflow: self.fpscr & fpscr::UE != 0, ..self.fp_env() }
    }

    /// With invalid exceptions enabled a signalling operand of an ordered compare is not an invalid compare too.
    pub(crate) fn compare_causes(&self, flags: Flags) -> Flags {
        if self.fpscr & fpscr::VE != 0 && flags.contains(Flags::VXSNAN) {
            Flags(flags.0 & !Flags::VXVC.0)
        } else {
            flags
        }
    }

    /// Does the operation, updates FPSCR, and raises what is enabled.
    pub(crate) fn fp_exact(&mut self, e: Exact) {
        let (t, regs) = (e.reg(16), [e.reg(22), e.reg(28), e.reg(34)]);
        let v = regs.map(|r| self.vsr[r]);
        if e.shape() == Shape::Scalar {
            return self.fp_exact_scalar(e.note(), t, v.map(|v| v as u64), e.0 >> 14 & 1 != 0);
        }
        let note = e.note();
        let op = note.op();
        let mut env = self.fp_env_trapping();
        if let Some(r) = note.mode() {
            env.rounding = r;
        }
        let mut result = 0u128;
        if e.shape() == Shape::Double {
            for k in 0..2 {
                let [a, b, c] = v.map(|v| (v >> (64 * k)) as u64);
                result |= u128::from(negated(op, lane::<F64>(op, a, b, c, &mut env), 63)) << (64 * k);
            }
        } else {
            for k in 0..4 {
                let [a, b, c] = v.map(|v| u64::from((v >> (32 * k)) as u32));
                let r = negated(op, lane::<F32>(op, a, b, c, &mut env), 31) as u32;
                result |= u128::from(r) << (32 * k);
            }
        }
        let compare = matches!(op, LaneOp::CmpEq | LaneOp::CmpGt | LaneOp::CmpGe);
        let flags = if compare { self.compare_causes(env.flags) } else { env.flags };
        // Inexact does not keep the result back; the others do so for the whole register.
        if !self.fp_suppressed(flags) && !self.vector_suppressed(flags) {
            self.vsr[t] = result;
        }
        self.fp_done(flags, 0, 0);
    }

    /// A vector operation writes nothing if any enabled exception occurs in a lane.
    pub(crate) fn vector_suppressed(&self, flags: Flags) -> bool {
        super::status::enabled(super::status::bits_of(flags), self.fpscr & fpscr::ENABLES)
    }

    /// A scalar operation on a value that is in no register.
    pub(crate) fn fp_exact_value(&mut self, note: Note, t: usize, a: u64) {
        self.fp_exact_scalar(note, t, [a, 0, 0], false);
    }

    fn fp_exact_scalar(&mut self, note: Note, t: usize, [a, b, c]: [u64; 3], words: bool) {
        let mut env = self.fp_env_trapping();
        let r = note.compute(a, b, c, &mut env);
        let compare = matches!(note.op(), LaneOp::CmpEq | LaneOp::CmpGt | LaneOp::CmpGe);
        let flags = if compare { self.compare_causes(env.flags) } else { env.flags };
        if note.leaves_status() {
            if !self.fp_suppressed(flags) {
                self.vsr[t] = u128::from(r);
            }
            return self.fp_done(flags, 0, 0);
        }
        if self.fp_suppressed(flags) {
            return self.fp_done(flags, fpscr::FR | fpscr::FI, 0);
        }
        let word = if note.op() == LaneOp::Copy { rhea_float::store_single(r) } else { r as u32 };
        self.vsr[t] = if words { u128::from(word) << 32 | u128::from(word) } else { u128::from(r) };
        let status = note.fr_fi(r, flags, a, b, c);
        match note.fprf(r, flags) {
            Some(f) => self.fp_done(flags, fpscr::FR | fpscr::FI | fpscr::FPRF, status | f),
            None => self.fp_done(flags, fpscr::FR | fpscr::FI, status),
        }
    }

    /// An ordered or unordered compare of two doubles: FPCC and a field of the condition register (8 for none).
    pub(crate) fn fp_exact_compare(&mut self, a: u64, b: u64, ordered: bool, field: usize) {
        use rhea_float::{Float, Ordering};
        let mut env = self.fp_env();
        let o = F64::compare(a, b, ordered, &mut env);
        let flags = self.compare_causes(env.flags);
        let cc = match o {
            Ordering::Less => 8u64,
            Ordering::Greater => 4,
            Ordering::Equal => 2,
            Ordering::Unordered => 1,
        };
        self.set_cr_field(field, cc as u32);
        self.fp_done(flags, fpscr::FPCC, cc << fpscr::FPRF_SHIFT);
    }
}

/// The negation after rounding that negative multiply-adds have.
fn negated(op: LaneOp, r: u64, sign: u32) -> u64 {
    if !matches!(op, LaneOp::NegMulAdd | LaneOp::NegMulSub) {
        return r;
    }
    let inf: u64 = if sign == 63 { 0x7ff << 52 } else { 0xff << 23 };
    if r & ((1 << sign) - 1) > inf { r } else { r ^ 1 << sign }
}
