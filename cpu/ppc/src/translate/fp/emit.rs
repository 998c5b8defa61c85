//! Scalar operations as IR, for floating-point and VSX instructions alike, and what they leave for FPSCR.

use super::helpers;
use crate::fpu::{Exact, LaneOp, Note, Shape};
use crate::state::slots;
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::op::fp_imm;
use rhea_ir::{Cond, Lane, Op, Type, Value};

const SIGN: u64 = 1 << 63;
const INF: u64 = 0x7ff << 52;
const ONE: u64 = 1023 << 52;

impl Translator<'_, '_> {
    /// Doubleword 0 of VSR n as a double.
    pub fn f64(&mut self, n: u32) -> Value {
        let v = self.vsr(n);
        self.b.vextract(Type::F64, Lane::D, v, 0)
    }
    /// Doubleword 0 as an integer.
    pub fn fbits(&mut self, n: u32) -> Value {
        let v = self.vsr(n);
        self.b.vextract(Type::I64, Lane::D, v, 0)
    }
    /// Writes doubleword 0 of VSR n (F64 or I64); doubleword 1 becomes zero.
    pub fn set_f(&mut self, n: u32, v: Value) {
        let v = self.b.vfromscalar(v);
        self.set_vsr(n, v);
    }

    /// Does an operation by its helper, which looks after FPSCR and enabled exceptions.
    pub fn fp_exact(&mut self, e: Exact) {
        let e = self.c64(e.0);
        self.b.call(helpers::EXACT, &[e]);
    }

    /// Leaves the operation for who reads FR, FI or FPRF.
    pub(in crate::translate) fn fp_note(&mut self, note: Note, args: [Option<Value>; 3]) {
        let n = self.c32(note.0);
        let zero = self.c32(0);
        self.b.set(slots::FP_OP, n);
        self.b.set(slots::FP_CC, zero);
        for (k, v) in args.into_iter().enumerate() {
            if let Some(v) = v {
                let v = if self.b.func.ty(v) == Type::I64 { self.b.bitcast(Type::F64, v) } else { v };
                self.b.set(slots::fp_arg(k as u32), v);
            }
        }
    }

    /// A scalar operation on VSRs `regs` into VSR `target`.
    pub fn fp_scalar(&mut self, note: Note, target: u32, regs: [u32; 3]) {
        use LaneOp::*;
        let op = note.op();
        if self.mode.fp_enables() || matches!(op, MaxJ | MinJ) {
            return self.fp_exact(Exact::new(note, Shape::Scalar, target, regs));
        }
        let single = note.single();
        let imm = if single { fp_imm::SINGLE } else { 0 };
        let mode = note.mode().map_or(255, |r| r as u32);
        if matches!(op, FromS64 | FromU64) {
            let x = self.fbits(regs[0]);
            let convert = if op == FromS64 { Op::SToF } else { Op::UToF };
            let r = if single {
                let r = self.b.op1(convert, Type::F32, x, 0, 0);
                self.b.op1(Op::FExtend, Type::F64, r, 1, 0)
            } else {
                self.b.op1(convert, Type::F64, x, 0, 0)
            };
            self.set_f(target, r);
            return self.fp_note(note, [Some(x), None, None]);
        }
        let a = self.f64(regs[0]);
        let mut args = [Some(a), None, None];
        let f = Type::F64;
        let r = match op {
            Sqrt => self.b.op1(Op::FSqrt, f, a, 0, imm),
            Recip => {
                let one = self.b.iconst(f, ONE);
                self.b.op2(Op::FDiv, f, one, a, 0, imm)
            }
            Rsqrt => {
                let one = self.b.iconst(f, ONE);
                let root = self.b.op1(Op::FSqrt, f, a, 0, 0);
                self.b.op2(Op::FDiv, f, one, root, 0, imm)
            }
            RoundInt => self.b.op1(Op::FRound, f, a, mode, 0),
            RoundIntExact => self.b.op1(Op::FRound, f, a, mode | 256, 0),
            Copy => {
                let r = self.b.op1(Op::FNarrow, Type::F32, a, 0, 0);
                self.b.op1(Op::FExtend, f, r, 1, 0)
            }
            ToS64 => self.b.op1(Op::FToS, Type::I64, a, mode, 0),
            ToU64 => self.b.op1(Op::FToU, Type::I64, a, mode, 0),
            ToS32 => {
                let r = self.b.op1(Op::FToS, Type::I32, a, mode, 0);
                self.b.sext64(r)
            }
            ToU32 => {
                let r = self.b.op1(Op::FToU, Type::I32, a, mode, 0);
                self.b.zext64(r)
            }
            _ => {
                let b = self.f64(regs[1]);
                args[1] = Some(b);
                match op {
                    Add | Sub | Mul | Div => {
                        let op = match op {
                            Add => Op::FAdd,
                            Sub => Op::FSub,
                            Mul => Op::FMul,
                            _ => Op::FDiv,
                        };
                        self.b.op2(op, f, a, b, 0, imm)
                    }
                    Max => self.b.op2(Op::FMaxNum, f, a, b, 0, 0),
                    Min => self.b.op2(Op::FMinNum, f, a, b, 0, 0),
                    MaxC | MinC => {
                        let flags = self.b.op2(Op::FlagsFCmp, Type::I32, a, b, 0, 0);
                        let c = self.b.cond_flags(if op == MaxC { Cond::Sgt } else { Cond::Mi }, flags);
                        self.b.select(c, a, b)
                    }
                    CmpEq | CmpGt | CmpGe => {
                        let signal = u32::from(op != CmpEq);
                        let flags = self.b.op2(Op::FlagsFCmp, Type::I32, a, b, signal, 0);
                        let c = match op {
                            CmpEq => Cond::Eq,
                            CmpGt => Cond::Sgt,
                            _ => Cond::Sge,
                        };
                        let c = self.b.cond_flags(c, flags);
                        let r = self.b.op1(Op::FromBool, Type::I64, c, 0, 0);
                        self.b.un(Op::Neg, r)
                    }
                    _ => {
                        let c = self.f64(regs[2]);
                        args[2] = Some(c);
                        let sub = if matches!(op, MulSub | NegMulSub) { fp_imm::NEGATE_ADDEND } else { 0 };
                        let neg = if matches!(op, NegMulAdd | NegMulSub) { fp_imm::NEGATE_RESULT } else { 0 };

                        self.b.op3_imm(Op::FMulAdd, f, a, b, c, 0, imm | sub | neg)
                    }
                }
            }
        };
        self.set_f(target, r);
        if !note.leaves_status() {
            self.fp_note(note, args);
        }
    }

    /// CR1 of a record form.
    pub fn fp_record(&mut self, i: Insn) -> Flow {
        if i.rc() {
            let flags = self.b.op0(Op::FpFlagsGet, Type::I32);
            self.b.call(helpers::RECORD, &[flags]);
        }
        Flow::Next
    }

    /// Compares two VSRs' doubles into field `bf`.
    pub fn fp_compare(&mut self, bf: u32, a: u32, b: u32, ordered: bool) {
        if self.mode.fp_enables() {
            let packed = self.c64(u64::from(a | b << 6 | u32::from(ordered) << 12 | bf << 13));
            self.b.call(helpers::EXACT_COMPARE, &[packed]);
            return;
        }
        let (a, b) = (self.f64(a), self.f64(b));
        let flags = self.b.op2(Op::FlagsFCmp, Type::I32, a, b, u32::from(ordered), 0);
        let bits = [Cond::Mi, Cond::Sgt, Cond::Eq, Cond::Vs].map(|c| self.b.cond_flags(c, flags));
        self.set_cr_field(bf, bits);
        self.b.set(slots::FP_CC, flags);
    }
}

pub(in crate::translate) fn compare(t: &mut Translator, i: Insn, a: u32, b: u32, ordered: bool) -> Flow {
    t.fp_compare(i.bf(), a, b, ordered);
    Flow::Next
}

/// fmr, fneg, fabs, fnabs.
pub(super) fn moves(t: &mut Translator, i: Insn) -> Flow {
    let a = t.f64(i.rb());
    let r = match i.field(21, 30) {
        72 => a,
        40 => t.b.un(Op::FNeg, a),
        264 => t.b.un(Op::FAbs, a),
        _ => {
            let r = t.b.un(Op::FAbs, a);
            t.b.un(Op::FNeg, r)
        }
    };
    t.set_f(i.rt(), r);
    t.fp_record(i)
}

/// fcpsgn: the sign of FRA, the rest of FRB.
pub(super) fn copy_sign(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.fbits(i.ra()), t.fbits(i.rb()));
    let a = t.and_imm(a, SIGN);
    let b = t.and_imm(b, !SIGN);
    let r = t.b.or(a, b);
    t.set_f(i.rt(), r);
    t.fp_record(i)
}

/// fsel: FRC if FRA is not less than zero (−0 is not) and no NaN, else FRB.
pub(super) fn select(t: &mut Translator, i: Insn) -> Flow {
    let x = t.fbits(i.ra());
    let (inf, minus_zero) = (t.c64(INF), t.c64(SIGN));
    let positive = t.b.icmp(Cond::Ule, x, inf);
    let zero = t.b.icmp(Cond::Eq, x, minus_zero);
    let c = t.b.or(positive, zero);
    let (yes, no) = (t.f64(i.rc_reg()), t.f64(i.rb()));
    let r = t.b.select(c, yes, no);
    t.set_f(i.rt(), r);
    t.fp_record(i)
}

/// fmrgew, fmrgow: the even or odd words of FRA and FRB.
pub(super) fn merge_words(t: &mut Translator, i: Insn, even: bool) -> Flow {
    let (a, b) = (t.fbits(i.ra()), t.fbits(i.rb()));
    let r = if even {
        let a = t.and_imm(a, 0xffff_ffff_0000_0000);
        let b = t.shr(b, 32);
        t.b.or(a, b)
    } else {
        let a = t.shl(a, 32);
        let b = t.b.zext(b, 32);
        t.b.or(a, b)
    };
    t.set_f(i.rt(), r);
    Flow::Next
}

/// Writes a field from a helper's four bits.
pub(in crate::translate) fn cr_from_bits(t: &mut Translator, bf: u32, bits: Value) {
    let f = [3, 2, 1, 0].map(|n| {
        let v = t.and_imm(bits, 1 << n);
        t.b.op1(Op::ToBool, Type::Bool, v, 0, 0)
    });
    t.set_cr_field(bf, f);
}

pub(in crate::translate) fn test_div(t: &mut Translator, i: Insn, a: u32, b: u32) -> Flow {
    let (a, b) = (t.fbits(a), t.fbits(b));
    let r = t.b.call(helpers::TEST_DIV, &[a, b]);
    cr_from_bits(t, i.bf(), r);
    Flow::Next
}

pub(in crate::translate) fn test_sqrt(t: &mut Translator, i: Insn, b: u32) -> Flow {
    let b = t.fbits(b);
    let r = t.b.call(helpers::TEST_SQRT, &[b]);
    cr_from_bits(t, i.bf(), r);
    Flow::Next
}
