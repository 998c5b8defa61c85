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

const CONDS: [&str; 18] = [
    "eq", "ne", "ult", "ule", "ugt", "uge", "slt", "sle", "sgt", "sge", "mi", "pl", "vs", "vc", "csorz", "ccandnz",
    "ps", "pc",
];
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
        ICmp | CondFlags | OrderIs => Aux::Cond,
        Load | Store | Rmw | Cas | ProbeWrite => Aux::Mem,
        FRound | FToS | FToU => Aux::Round,
        VExtract | VInsert | VDup | VAdd | VSub | VMul | VNeg | VAbs | VMinS | VMinU | VMaxS | VMaxU | VCmpEq
        | VCmpGtS | VCmpGtU | VCmpGeS | VCmpGeU | VShl | VShr | VSar | VSatAddS | VSatAddU | VSatSubS | VSatSubU
        | VAvgU | VWidenS | VWidenU | VNarrow | VMulWideS | VMulWideU | VFAdd | VFSub | VFMul | VFDiv | VFSqrt
        | VFMulAdd | VFMin | VFMax | VFMinNum | VFMaxNum | VFNeg | VFAbs | VFCmpEq | VFCmpGt | VFCmpGe | VFRound
        | VFToS | VFToU | VSToF | VUToF => Aux::Lane,
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
    m.0 & 0x10_ffff | rmw
}

const _: () = assert!(CONDS.len() == Cond::ALL.len() && RMWS.len() == RmwOp::ALL.len() && Lane::D as usize == 3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::func::{Inst, Value};
    use crate::guest::FpMode;
    use crate::types::Type;

    /// Every operation, with every small operand it may have, is read as it was printed.
    #[test]
    fn every_operation_survives() {
        let mut f = Function::new(FpMode::default());
        f.new_block(0x1000);
        f.const128(0x0102_0304);
        for &op in Op::ALL {
            if op == Op::Param {
                continue;
            }
            let auxes: Vec<u32> = match aux_of(op) {
                Aux::Cond => (0..16).collect(),
                Aux::Lane => (0..4).collect(),
                Aux::Mem => {
                    vec![
                        3,
                        MemOp::new(2, 15).signed().align(4).atomic().acquire().release().for_update().0 | STRICT,
                        0x30013,
                    ]
                }
                Aux::Round => vec![0, 5, 255, 255 | 256, 3 | 256],
                Aux::None => vec![0, 1, 7],
            };
            for aux in auxes {
                for (ty, imm) in [(Type::I64, 0u64), (Type::V128, 3), (Type::Void, u64::MAX - 1)] {
                    let mut i = Inst::new(op, ty);
                    i.aux = aux;
                    i.imm = if matches!(op, Op::ConstV | Op::VShuffle) { 0 } else { imm };
                    if op.arity() == 0 && !matches!(op, Op::Const | Op::GetSlot) {
                        i.imm = 0;
                    }
                    i.args[..op.arity()].fill(Value(0));
                    let v = f.push_inst(i);
                    f.blocks[0].insts.push(v);
                }
            }
        }
        let text = f.to_string();
        let g = parse(&text).unwrap_or_else(|e| panic!("{e}: {}", text.lines().nth(e.line - 1).unwrap_or("")));
        for (k, (&a, &b)) in f.blocks[0].insts.iter().zip(&g.blocks[0].insts).enumerate() {
            assert_eq!(f.inst(a), g.inst(b), "operation {k}: {}", f.show(a));
        }
        assert_eq!(g.to_string(), text);
    }

    /// Whatever the text, the answer is a function or a line.
    #[test]
    fn hostile_text() {
        let good = "function round=1 nan=arm flush\nblock0 @0x1000 insns=2:\n  v0 = get.i64 [0x100]\n  \
                    v1 = load.i64 [v0 - 0x8] size=4 signed {0x1000: i64[0x8]=v0}\n  v2 = vshl.h.v128 v0, #3\n  \
                    branch v1 hint=-1, block1(v0), icall v0 ret=0x8 {0x1: }\nblock1(v3: i64) @0x8:\n  jump lookup {0x0: }\n";
        assert!(parse(good).is_ok());
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        let pieces = [
            "v",
            "0x",
            "=",
            "{",
            "}",
            "[",
            "block",
            "9999999999999999999",
            ".",
            "none",
            "-",
            "\n",
            ";",
            "é",
            "h9",
            "#",
        ];
        for _ in 0..20000 {
            let mut s = good.to_string();
            for _ in 0..1 + next() % 4 {
                let at = next() % s.len();
                if !s.is_char_boundary(at) {
                    continue;
                }
                match next() % 3 {
                    0 => s.truncate(at.max(1)),
                    1 => s.insert_str(at, pieces[next() % pieces.len()]),
                    _ => {
                        let c = s[at..].chars().next().map_or(0, char::len_utf8);
                        s.replace_range(at..at + c, pieces[next() % pieces.len()]);
                    }
                }
            }
            if let Ok(f) = parse(&s) {
                let _ = crate::verify::verify(&f, &[], crate::verify::Stage::Built);
                let t = f.to_string();
                assert_eq!(parse(&t).map(|g| g.to_string()), Ok(t.clone()), "{s}");
            }
        }
    }
}
