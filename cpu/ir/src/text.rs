//! The text form of functions: [`std::fmt::Display`] of [`Function`] prints it, [`parse`] reads it back.
//!
//! ```text
//! ; comment to the end of the line
//! function round=0 nan=arm            ; also: default_nan flush flush_f16 alt_half
//! block0 @0x1000 insns=2:
//!   v0 = get.i64 [0x100]              ; slot at byte 0x100 of the guest's CPU structure
//!   v1 = const.i64 0x5
//!   v2 = icmp.ult.bool v0, v1         ; operation.condition.type
//!   v3 = load.i32 [v0 + 0x8] size=2 signed be mmu=1 {0x1000: i64[0x108]=v1}
//!   v4 = vshl.h.v128 v9, #3           ; operation.lane.type; an immediate
//!   v5 = vshuffle.v128 v4, v4, 0x0f0e ; the byte selectors, lowest first
//!   v6 = call.i64 h2(v0) {0x1004: }   ; helper number 2
//!   branch v2 hint=1, block1(v0), goto {0x1008: i64[0x100]=v6}
//! block1(v7: i64) @0x1004 insns=1:
//!   jump indirect v7 {0x1004: }
//! ```
//!
//! A state map is `{pc: slots}`. Exits: `goto`, `indirect v`, `call ret=pc`, `icall v ret=pc`, `return v`, `lookup`,
//! `leave`, `inner block`. Values keep their numbers; every state map is read as one of its own.

mod parse;
mod print;

use crate::func::Function;
use crate::op::{Cond, Op};
use crate::types::{Lane, MemOp, RmwOp};

/// A line that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// Reads a function. It is syntactically complete (every value used exists); [`crate::verify::verify`] says if it makes
/// sense.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str) -> Result<Function, ParseError> {
    parse::function(text)
}

const CONDS: [&str; 14] = ["eq", "ne", "ult", "ule", "ugt", "uge", "slt", "sle", "sgt", "sge", "mi", "pl", "vs", "vc"];
const LANES: [&str; 4] = ["b", "h", "s", "d"];
const RMWS: [&str; 10] = ["add", "and", "clr", "xor", "or", "xchg", "smax", "smin", "umax", "umin"];

fn cond_name(aux: u32) -> Option<&'static str> {
    CONDS.get(aux as usize).copied()
}

/// What `aux` of an operation means in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aux {
    None,
    Cond,
    Lane,
    Mem,
    /// A rounding mode and the "inexact is signalled" bit.
    Round,
}

fn aux_of(op: Op) -> Aux {
    use Op::*;
    match op {
        ICmp | CondFlags => Aux::Cond,
        Load | Store | Rmw | Cas | ProbeWrite => Aux::Mem,
        FRound | FToS | FToU => Aux::Round,
        VExtract | VInsert | VDup | VAdd | VSub | VMul | VNeg | VAbs | VMinS | VMinU | VMaxS | VMaxU | VCmpEq | VCmpGtS
        | VCmpGtU | VCmpGeS | VCmpGeU | VShl | VShr | VSar | VSatAddS | VSatAddU | VSatSubS | VSatSubU | VAvgU
        | VWidenS | VWidenU | VNarrow | VMulWideS | VMulWideU | VFAdd | VFSub | VFMul | VFDiv | VFSqrt | VFMulAdd
        | VFMin | VFMax | VFMinNum | VFMaxNum | VFNeg | VFAbs | VFCmpEq | VFCmpGt | VFCmpGe | VFRound | VFToS
        | VFToU | VSToF | VUToF => Aux::Lane,
        _ => Aux::None,
    }
}

/// The operation's `imm` is a rounding mode.
fn imm_is_rounding(op: Op) -> bool {
    matches!(op, Op::VFRound | Op::VFToS | Op::VFToU)
}

/// Bit 15 of a [`MemOp`].
const STRICT: u32 = 1 << 15;

/// The attributes of an access that have words, from their words' meaning.
fn mem_bits(m: MemOp, op: Op) -> u32 {
    let rmw = if op == Op::Rmw { m.0 & 0xf_0000 } else { 0 };
    m.0 & 0xffff | rmw
}

const _: () = assert!(CONDS.len() == Cond::ALL.len() && RMWS.len() == RmwOp::ALL.len() && Lane::D as usize == 3);
