//! What each operation wants of its arguments, its result and its small operands.

use crate::func::{Function, Inst};
use crate::op::{Cond, Op, P_AND_A};
use crate::simd::{Fmt, SimdOp, fma_kind, type_ok};
use crate::types::{Lane, Type};

type Checked = Result<(), String>;

fn want(ok: bool, what: impl FnOnce() -> String) -> Checked {
    if ok { Ok(()) } else { Err(what()) }
}

struct Sig<'a> {
    f: &'a Function,
    i: &'a Inst,
}

impl Sig<'_> {
    fn arg(&self, n: usize) -> Type {
        self.f.ty(self.i.args[n])
    }

    fn result(&self, ok: &[Type]) -> Checked {
        want(ok.contains(&self.i.ty), || format!("the result cannot be {}", self.i.ty.name()))
    }

    fn arg_is(&self, n: usize, ok: &[Type]) -> Checked {
        let t = self.arg(n);
        want(ok.contains(&t), || format!("argument {n} cannot be {}", t.name()))
    }

    /// All arguments from `from` on have the type.
    fn args_are(&self, from: usize, ty: Type) -> Checked {
        (from..self.i.args().len()).try_for_each(|n| {
            let t = self.arg(n);
            want(t == ty, || format!("argument {n} is {}, not {}", t.name(), ty.name()))
        })
    }

    /// Result and arguments all of one type, which is one of these.
    fn same(&self, ok: &[Type]) -> Checked {
        self.result(ok)?;
        self.args_are(0, self.i.ty)
    }

    fn lane(&self, ok: &[Lane]) -> Checked {
        want(self.i.aux < 4 && ok.contains(&self.i.lane()), || format!("no lanes of shape {}", self.i.aux))
    }

    fn vectors(&self, lanes: &[Lane]) -> Checked {
        self.same(&[Type::V128])?;
        self.lane(lanes)
    }

    fn cond(&self) -> Checked {
        want((self.i.aux as usize) < Cond::ALL.len(), || format!("no condition {}", self.i.aux))
    }

    fn imm_below(&self, limit: u64) -> Checked {
        want(self.i.imm < limit, || format!("the immediate {} is out of range", self.i.imm))
    }

    /// A rounding mode with the "inexact" bit allowed or not.
    fn rounding(&self, v: u64, exact: bool) -> Checked {
        let known = v & 0xff == 0xff || rhea_float::Rounding::from_u32((v & 0xff) as u32).is_some();
        want(known && v >> 8 <= exact as u64, || format!("no rounding mode {v:#x}"))
    }

    /// The size of a memory access against the type of its value.
    fn access(&self, ty: Type, atomic: bool) -> Checked {
        let n = self.i.mem_op().size_log2();
        let ok = match ty {
            Type::I32 => n <= 2,
            Type::I64 => n <= 3,
            Type::F32 => n == 2 && !atomic,
            Type::F64 => n == 3 && !atomic,
            // Of 4 and 8 bytes: the lowest; the others are zero.
            Type::V128 => matches!(n, 2..=4) && !atomic,
            Type::I128 => n == 4 && (!atomic || self.i.op == Op::Cas),
            _ => false,
        };
        want(ok, || format!("an access of {} bytes with a value of type {}", 1u64 << n, ty.name()))
    }

    /// The operation that `aux` names, its format, arguments and immediate.
    fn simd(&self) -> Checked {
        let i = self.i;
        let op = SimdOp::of(i.aux).filter(|o| o.fp() == matches!(i.op, Op::FSimd1 | Op::FSimd2 | Op::FSimd3));
        let Some(op) = op.filter(|o| i.aux >> 10 == 0 && o.formats() >> (i.aux >> 8) & 1 != 0) else {
            return Err(format!("no operation {:#x}", i.aux));
        };
        let args: Vec<Type> = (0..i.args().len()).map(|n| self.arg(n)).collect();
        want(type_ok(op, &args, i.ty), || format!("types do not fit {}", op.name()))?;
        let imm = match op {
            SimdOp::Fma => fma_kind(i.imm as u8).is_some_and(|k| i.imm < 256 && k.scalar == Fmt::of(i.aux).scalar()),
            SimdOp::CvtSi2 => i.imm == args[1].bytes() as u64 * 8,
            o => {
                if o.imm() {
                    i.imm < 256
                } else {
                    i.imm == 0
                }
            }
        };
        want(imm, || format!("the immediate {:#x} is none of {}", i.imm, op.name()))
    }

    /// A scalar at least as wide as the lane it goes to.
    fn scalar_for_lane(&self, n: usize) -> Checked {
        let (t, lane) = (self.arg(n), self.i.lane().bytes());
        let ok = match t {
            Type::I32 | Type::I64 => t.bytes() >= lane,
            Type::F32 | Type::F64 => t.bytes() >= lane,
            _ => false,
        };
        want(ok, || format!("argument {n} of type {} for lanes of {lane} bytes", t.name()))
    }
}

/// Checks an operation other than [`Op::Call`]. Its arguments exist.
pub(super) fn check(f: &Function, i: &Inst) -> Checked {
    use Type::{Bool, F32, F64, I32, I64, I128, V128, Void};
    const INTS: [Type; 2] = [I32, I64];
    const FLOATS: [Type; 2] = [F32, F64];
    const SCALARS: [Type; 4] = [I32, I64, F32, F64];
    const ALL: [Lane; 4] = [Lane::B, Lane::H, Lane::S, Lane::D];
    const NARROW: [Lane; 3] = [Lane::B, Lane::H, Lane::S];
    const WIDE: [Lane; 3] = [Lane::H, Lane::S, Lane::D];
    const FP: [Lane; 3] = [Lane::H, Lane::S, Lane::D];
    let n = i.args().len();
    if n != i.op.arity() {
        return Err(format!("{n} arguments instead of {}", i.op.arity()));
    }
    let s = Sig { f, i };
    match i.op {
        Op::Param | Op::Call => Ok(()),
        Op::Const => {
            s.result(&[Bool, I32, I64, F32, F64])?;
            let fits = match i.ty {
                Bool => i.imm <= 1,
                I32 | F32 => i.imm <= u32::MAX as u64,
                _ => true,
            };
            want(fits, || format!("the constant {:#x} is wider than its type", i.imm))
        }
        Op::ConstV => {
            s.result(&[V128, I128])?;
            s.imm_below(f.consts.len() as u64)
        }
        Op::GetSlot => {
            s.result(&[Bool, I32, I64, I128, F32, F64, V128])?;
            s.imm_below(1 << 31)
        }
        Op::Adc => {
            s.result(&INTS)?;
            s.arg_is(0, &[i.ty])?;
            s.arg_is(1, &[i.ty])?;
            s.arg_is(2, &[Bool])
        }
        Op::Copy => s.same(&[Bool, I32, I64, I128, F32, F64, V128]),
        Op::And | Op::Or | Op::Xor => s.same(&[Bool, I32, I64]),
        Op::Add
        | Op::Sub
        | Op::Mul
        | Op::SDiv
        | Op::UDiv
        | Op::AndNot
        | Op::Shl
        | Op::Shr
        | Op::Sar
        | Op::Rotr
        | Op::Not
        | Op::Neg
        | Op::Clz
        | Op::Ctz
        | Op::Popcnt
        | Op::Bswap
        | Op::Bswap16
        | Op::Bitrev => s.same(&INTS),
        Op::SMulHi | Op::UMulHi => s.same(&[I64]),
        Op::Extr => {
            s.same(&INTS)?;
            s.imm_below(i.ty.bytes() as u64 * 8)
        }
        Op::Sext | Op::Zext => {
            s.same(&INTS)?;
            want(matches!(i.imm, 8 | 16 | 32), || format!("extends {} bits", i.imm))
        }
        Op::Zext64 | Op::Sext64 => s.result(&[I64]).and_then(|()| s.args_are(0, I32)),
        Op::Trunc => s.result(&[I32]).and_then(|()| s.args_are(0, I64)),
        Op::FromBool => s.result(&INTS).and_then(|()| s.args_are(0, Bool)),
        Op::ToBool => s.result(&[Bool]).and_then(|()| s.arg_is(0, &INTS)),
        Op::ICmp => {
            s.result(&[Bool])?;
            s.arg_is(0, &INTS)?;
            s.args_are(1, s.arg(0))?;
            want(i.aux < Cond::CsOrZ as u32, || format!("no condition {} of a compare", i.aux))
        }
        Op::BoolNot => s.same(&[Bool]),
        Op::Select => {
            s.result(&[Bool, I32, I64, I128, F32, F64, V128])?;
            s.arg_is(0, &[Bool])?;
            s.args_are(1, i.ty)
        }
        Op::Concat => s.result(&[I128]).and_then(|()| s.args_are(0, I64)),
        Op::Lo64 | Op::Hi64 => s.result(&[I64]).and_then(|()| s.args_are(0, I128)),
        Op::Deposit => {
            s.same(&INTS)?;
            let (lsb, width) = (i.imm & 0xff, i.imm >> 8);
            let fits = width > 0 && lsb + width <= i.ty.bytes() as u64 * 8;
            want(fits, || format!("a field of {width} bits from bit {lsb} on"))
        }
        Op::FlagsAdc | Op::FlagsSub | Op::FlagsAdd | Op::FlagsLogic | Op::FlagsCmp | Op::FlagsSbb => {
            s.result(&[I32])?;
            want(matches!(i.imm, 0 | 8 | 16), || format!("operands of {} bits", i.imm))?;
            want(i.aux == 0 || i.aux == P_AND_A && i.op != Op::FlagsSub, || format!("no flags of kind {}", i.aux))?;
            s.arg_is(0, &INTS)?;
            if n > 1 {
                s.arg_is(1, &[s.arg(0)])?;
            }
            if n > 2 { s.arg_is(2, &[Bool]) } else { Ok(()) }
        }
        Op::FlagsFCmp => {
            s.result(&[I32])?;
            s.arg_is(0, &FLOATS)?;
            s.args_are(1, s.arg(0))?;
            want(i.aux <= 1, || format!("no kind of comparison {}", i.aux))
        }
        Op::FlagsFCom => {
            s.result(&[I32])?;
            s.args_are(0, V128)?;
            want(i.aux < 4, || format!("no kind of comparison {}", i.aux))
        }
        Op::FlagsVTest => {
            s.result(&[I32])?;
            s.args_are(0, V128)?;
            want(i.aux < 3, || format!("no kind of test {}", i.aux))
        }
        Op::VMoveMask => {
            s.result(&[I32])?;
            s.args_are(0, V128)?;
            s.lane(&[Lane::B, Lane::S, Lane::D])
        }
        Op::Crc32c => {
            s.result(&[I32])?;
            s.arg_is(0, &[I32])?;
            s.arg_is(1, &[if i.imm == 64 { I64 } else { I32 }])?;
            want(matches!(i.imm, 8 | 16 | 32 | 64), || format!("data of {} bits", i.imm))
        }
        Op::Simd1 | Op::Simd2 | Op::Simd3 | Op::FSimd1 | Op::FSimd2 | Op::FSimd3 => s.simd(),
        Op::Order => {
            s.result(&[I64])?;
            s.arg_is(0, &INTS)?;
            s.args_are(1, s.arg(0))?;
            want(i.aux <= 1, || format!("no kind of order {}", i.aux))
        }
        Op::OrderOf => s.result(&[I64]).and_then(|()| s.args_are(0, Bool)),
        Op::OrderIs => {
            s.result(&[Bool])?;
            s.args_are(0, I64)?;
            s.cond()?;
            let known = matches!(i.cond(), Cond::Eq | Cond::Ne | Cond::Slt | Cond::Sge | Cond::Sgt | Cond::Sle);
            want(known, || format!("no condition {} of an order", i.aux))
        }
        Op::CondFlags => {
            s.result(&[Bool])?;
            s.args_are(0, I32)?;
            s.cond()
        }
        Op::FlagsFromNzcv | Op::FlagsToNzcv => s.same(&[I32]),
        Op::Load => {
            s.arg_is(0, &[I64])?;
            s.access(i.ty, false)?;
            want(!i.mem_op().is_signed() || i.ty.is_int(), || "sign extension into a vector register".into())
        }
        Op::Store => {
            s.result(&[Void])?;
            s.arg_is(0, &[I64])?;
            s.access(s.arg(1), false)
        }
        Op::Rmw => {
            s.result(&INTS)?;
            s.arg_is(0, &[I64])?;
            s.args_are(1, i.ty)?;
            s.access(i.ty, true)?;
            want(i.aux >> 16 & 15 < 10, || format!("no read-modify-write operation {}", i.aux >> 16 & 15))
        }
        Op::Cas => {
            s.result(&[I32, I64, I128])?;
            s.arg_is(0, &[I64])?;
            s.args_are(1, i.ty)?;
            s.access(i.ty, true)
        }
        Op::ProbeWrite => s.result(&[Void]).and_then(|()| s.arg_is(0, &[I64])),
        Op::Fence => s.result(&[Void]).and_then(|()| want(i.aux <= 1, || format!("no kind of fence {}", i.aux))),
        Op::CheckExit | Op::CheckCount | Op::Count | Op::FpFlagsClear => s.result(&[Void]),
        Op::FpFlagsGet => s.result(&[I32]),
        Op::Bitcast => {
            let pair = (s.arg(0), i.ty);
            let ok = matches!(pair, (I32, F32) | (F32, I32) | (I64, F64) | (F64, I64) | (I128, V128) | (V128, I128));
            want(ok, || format!("from {}", pair.0.name()))
        }
        Op::VFromScalar => s.result(&[V128]).and_then(|()| s.arg_is(0, &SCALARS)),
        Op::VExtract => {
            s.result(&SCALARS)?;
            s.args_are(0, V128)?;
            s.lane(&ALL)?;
            let (t, lane) = (i.ty, i.lane().bytes());
            let ok = if t.is_int() { t.bytes() >= lane } else { t.bytes() == lane };
            want(ok, || format!("a lane of {lane} bytes as {}", t.name()))?;
            s.imm_below(i.lane().count() as u64)
        }
        Op::VInsert => {
            s.result(&[V128])?;
            s.arg_is(0, &[V128])?;
            s.lane(&ALL)?;
            s.scalar_for_lane(1)?;
            s.imm_below(i.lane().count() as u64)
        }
        Op::VDup => {
            s.result(&[V128])?;
            s.lane(&ALL)?;
            s.scalar_for_lane(0)
        }
        Op::FAdd | Op::FSub | Op::FMul | Op::FDiv | Op::FSqrt | Op::FMulAdd => {
            s.same(&FLOATS).and_then(|()| s.imm_below(8))
        }
        Op::FMin | Op::FMax | Op::FMinNum | Op::FMaxNum | Op::FNeg | Op::FAbs => s.same(&FLOATS),
        Op::FRound => s.same(&FLOATS).and_then(|()| s.rounding(i.aux as u64, true)),
        Op::FExtend => s
            .result(&[F64])
            .and_then(|()| s.args_are(0, F32))
            .and_then(|()| want(i.aux < 2, || "no such variant".into())),
        Op::FNarrow => s
            .result(&[F32])
            .and_then(|()| s.args_are(0, F64))
            .and_then(|()| want(i.aux < 2, || "no such variant".into())),
        Op::FToS | Op::FToU => {
            s.result(&INTS)?;
            s.arg_is(0, &FLOATS)?;
            s.rounding(i.aux as u64, false)
        }
        Op::SToF | Op::UToF => s.result(&FLOATS).and_then(|()| s.arg_is(0, &INTS)),
        Op::VZeroHi
        | Op::VAnd
        | Op::VOr
        | Op::VXor
        | Op::VAndNot
        | Op::VNot
        | Op::VBsl
        | Op::VPopcnt
        | Op::VTable
        | Op::VFExtend
        | Op::VFNarrow => s.same(&[V128]),
        Op::VShuffle => s.same(&[V128]).and_then(|()| s.imm_below(f.consts.len() as u64)),
        Op::VAnyTrue => s.result(&[Bool]).and_then(|()| s.args_are(0, V128)),
        Op::VShl | Op::VShr | Op::VSar => {
            s.vectors(&ALL)?;
            s.imm_below(i.lane().bits() as u64 + 1)
        }
        Op::VAdd
        | Op::VSub
        | Op::VMul
        | Op::VNeg
        | Op::VAbs
        | Op::VMinS
        | Op::VMinU
        | Op::VMaxS
        | Op::VMaxU
        | Op::VCmpEq
        | Op::VCmpGtS
        | Op::VCmpGtU
        | Op::VCmpGeS
        | Op::VCmpGeU
        | Op::VSatAddS
        | Op::VSatAddU
        | Op::VSatSubS
        | Op::VSatSubU
        | Op::VAvgU => s.vectors(&ALL),
        Op::VWidenS | Op::VWidenU | Op::VMulWideS | Op::VMulWideU => s.vectors(&NARROW),
        Op::VNarrow => s.vectors(&WIDE),
        Op::VFAdd
        | Op::VFSub
        | Op::VFMul
        | Op::VFDiv
        | Op::VFSqrt
        | Op::VFMulAdd
        | Op::VFMin
        | Op::VFMax
        | Op::VFMinNum
        | Op::VFMaxNum
        | Op::VFNeg
        | Op::VFAbs
        | Op::VFCmpEq
        | Op::VFCmpGt
        | Op::VFCmpGe
        | Op::VSToF
        | Op::VUToF => s.vectors(&FP),
        Op::VFRound => s.vectors(&FP).and_then(|()| s.rounding(i.imm, true)),
        Op::VFToS | Op::VFToU => s.vectors(&FP).and_then(|()| s.rounding(i.imm, false)),
    }
}
