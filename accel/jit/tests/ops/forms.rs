//! In which forms each operation is tested.

use crate::operands::{Arg, Form, Rng};
use rhea_ir::op::P_AND_A;
use rhea_ir::simd::{Fmt, Shape, SimdOp, fma_kind};
use rhea_ir::{Cond, Lane, MemOp, Op, RmwOp, Type};

/// The forms of an operation: types, lanes, immediates. Immediates are random.
pub fn forms(op: Op, r: &mut Rng) -> Vec<Form> {
    use Op::*;
    use Type::{Bool, F32, F64, I32, I64, I128, V128, Void};
    let mut out: Vec<Form> = Vec::new();
    let plain = |ts: &[Type]| ts.iter().map(|&t| Arg::Plain(t)).collect::<Vec<_>>();
    let mut add = |ty: Type, args: Vec<Arg>, aux: u32, imm: u64| out.push(Form { op, ty, aux, imm, args });
    let all = [Lane::B, Lane::H, Lane::S, Lane::D];
    let n = op.arity();
    match op {
        Param | Call | CheckExit | Count | CheckCount | Const | ConstV | GetSlot | FpFlagsGet | FpFlagsClear
        | Fence => {}
        Copy => [Bool, I32, I64, I128, F32, F64, V128].into_iter().for_each(|t| add(t, plain(&[t]), 0, 0)),
        Add | Sub | Mul | SDiv | UDiv | AndNot | Shl | Shr | Sar | Rotr | Not | Neg | Clz | Ctz | Popcnt | Bswap
        | Bswap16 | Bitrev => [I32, I64].into_iter().for_each(|t| add(t, plain(&vec![t; n]), 0, 0)),
        Adc => [I32, I64].into_iter().for_each(|t| add(t, plain(&[t, t, Bool]), 0, 0)),
        And | Or | Xor => [Bool, I32, I64].into_iter().for_each(|t| add(t, plain(&[t, t]), 0, 0)),
        SMulHi | UMulHi => add(I64, plain(&[I64, I64]), 0, 0),
        Extr => {
            for t in [I32, I64] {
                for imm in [0, 1, 8, r.next(), t.bytes() as u64 * 8 - 1] {
                    add(t, plain(&[t, t]), 0, imm % (t.bytes() as u64 * 8));
                }
            }
        }
        Sext | Zext => {
            for t in [I32, I64] {
                [8, 16, 32].into_iter().for_each(|b| add(t, plain(&[t]), 0, b));
            }
        }
        Zext64 | Sext64 => add(I64, plain(&[I32]), 0, 0),
        Trunc => add(I32, plain(&[I64]), 0, 0),
        FromBool => [I32, I64].into_iter().for_each(|t| add(t, plain(&[Bool]), 0, 0)),
        ToBool => [I32, I64].into_iter().for_each(|t| add(Bool, plain(&[t]), 0, 0)),
        ICmp => {
            for c in 0..14 {
                [I32, I64].into_iter().for_each(|t| add(Bool, plain(&[t, t]), c, 0));
            }
        }
        Order => {
            for aux in 0..2 {
                [I32, I64].into_iter().for_each(|t| add(I64, plain(&[t, t]), aux, 0));
            }
        }
        OrderOf => add(I64, plain(&[Bool; 3]), 0, 0),
        OrderIs => [Cond::Eq, Cond::Ne, Cond::Slt, Cond::Sge, Cond::Sgt, Cond::Sle]
            .into_iter()
            .for_each(|c| add(Bool, plain(&[I64]), c as u32, 0)),
        BoolNot => add(Bool, plain(&[Bool]), 0, 0),
        Select => [Bool, I32, I64, I128, F32, F64, V128].into_iter().for_each(|t| add(t, plain(&[Bool, t, t]), 0, 0)),
        Concat => add(I128, plain(&[I64, I64]), 0, 0),
        Lo64 | Hi64 => add(I64, plain(&[I128]), 0, 0),
        FlagsAdc | FlagsSbb => {
            for (width, aux) in [(0, 0), (8, 0), (16, 0), (0, P_AND_A), (8, P_AND_A), (16, P_AND_A)] {
                [I32, I64].into_iter().for_each(|t| add(I32, plain(&[t, t, Bool]), aux, width));
            }
        }
        FlagsSub | FlagsCmp | FlagsAdd | FlagsLogic => {
            for (width, aux) in [(0, 0), (8, 0), (16, 0), (0, P_AND_A), (8, P_AND_A), (16, P_AND_A)] {
                if (op, aux) != (FlagsSub, P_AND_A) {
                    [I32, I64].into_iter().for_each(|t| add(I32, plain(&vec![t; n]), aux, width));
                }
            }
        }
        Deposit => {
            for t in [I32, I64] {
                for (lsb, width) in [(0, 8), (8, 8), (0, 16), (3, 7), (16, 16), (0, t.bytes() as u64 * 8)] {
                    add(t, plain(&[t, t]), 0, lsb | width << 8);
                }
            }
        }
        FlagsFCmp => {
            for aux in [0, 1] {
                [F32, F64].into_iter().for_each(|t| add(I32, plain(&[t, t]), aux, 0));
            }
        }
        CondFlags => (0..Cond::ALL.len() as u32).for_each(|c| add(Bool, vec![Arg::AllFlags], c, 0)),
        FlagsFromNzcv => add(I32, plain(&[I32]), 0, 0),
        FlagsToNzcv => add(I32, vec![Arg::Flags], 0, 0),
        Bitcast => {
            for (a, b) in [(I32, F32), (F32, I32), (I64, F64), (F64, I64), (I128, V128), (V128, I128)] {
                add(b, plain(&[a]), 0, 0);
            }
        }
        VFromScalar => [I32, I64, F32, F64].into_iter().for_each(|t| add(V128, plain(&[t]), 0, 0)),
        VExtract | VInsert | VDup => {
            for l in all {
                for t in [I32, I64, F32, F64] {
                    let fits =
                        if op == VExtract && !t.is_int() { t.bytes() == l.bytes() } else { t.bytes() >= l.bytes() };
                    if !fits {
                        continue;
                    }
                    for k in 0..l.count() as u64 {
                        match op {
                            VExtract => add(t, plain(&[V128]), l as u32, k),
                            VInsert => add(V128, plain(&[V128, t]), l as u32, k),
                            _ if k == 0 => add(V128, plain(&[t]), l as u32, 0),
                            _ => {}
                        }
                    }
                }
            }
        }
        FlagsFCom => {
            (0..4).for_each(|aux| add(I32, vec![Arg::Floats(if aux & 1 != 0 { Lane::D } else { Lane::S }); 2], aux, 0))
        }
        FlagsVTest => (0..3).for_each(|aux| add(I32, plain(&[V128, V128]), aux, 0)),
        VMoveMask => [Lane::B, Lane::S, Lane::D].into_iter().for_each(|l| add(I32, plain(&[V128]), l as u32, 0)),
        Crc32c => {
            [8, 16, 32].into_iter().for_each(|n| add(I32, plain(&[I32, I32]), 0, n));
            add(I32, plain(&[I32, I64]), 0, 64);
        }
        Simd1 | Simd2 | Simd3 | FSimd1 | FSimd2 | FSimd3 => {
            let fp = matches!(op, FSimd1 | FSimd2 | FSimd3);
            let fits = |s: &&SimdOp| s.fp() == fp && s.arity() == n;
            for &s in SimdOp::ALL.iter().filter(fits) {
                for fmt in Fmt::ALL.into_iter().filter(|&f| s.formats() >> f as u32 & 1 != 0) {
                    let aux = s as u32 | (fmt as u32) << 8;
                    let lane = match s {
                        SimdOp::CvtPd2Ps | SimdOp::CvtSd2Ss => Lane::D,
                        _ if fmt.double() => Lane::D,
                        _ => Lane::S,
                    };
                    let v = match s {
                        SimdOp::CvtDq2Ps => Arg::Plain(V128),
                        SimdOp::CvtPh2Ps => Arg::Floats(Lane::H),
                        _ if fp => Arg::Floats(lane),
                        _ => Arg::Plain(V128),
                    };
                    match s.shape() {
                        Shape::ToInt => [I32, I64].into_iter().for_each(|t| add(t, vec![v], aux, 0)),
                        Shape::FromInt => [I32, I64]
                            .into_iter()
                            .for_each(|t| add(V128, vec![v, Arg::Plain(t)], aux, t.bytes() as u64 * 8)),
                        Shape::V if s == SimdOp::Fma => {
                            let codes =
                                (0x96..=0xbf).filter(|&o| fma_kind(o).is_some_and(|k| k.scalar == fmt.scalar()));
                            codes.for_each(|o| add(V128, vec![v; n], aux, o as u64));
                        }
                        Shape::V if s.imm() => {
                            for imm in [0, 1, r.next() & 255, r.next() & 31, r.next() & 255] {
                                add(V128, vec![v; n], aux, imm);
                            }
                        }
                        Shape::V => add(V128, vec![v; n], aux, 0),
                    }
                }
            }
        }
        VZeroHi | VNot | VPopcnt => add(V128, plain(&[V128]), 0, 0),
        VAnd | VOr | VXor | VAndNot | VTable => add(V128, plain(&[V128, V128]), 0, 0),
        VBsl => add(V128, plain(&[V128; 3]), 0, 0),
        VAnyTrue => add(Bool, plain(&[V128]), 0, 0),
        VAdd | VSub | VMul | VNeg | VAbs | VMinS | VMinU | VMaxS | VMaxU | VCmpEq | VCmpGtS | VCmpGtU | VCmpGeS
        | VCmpGeU | VSatAddS | VSatAddU | VSatSubS | VSatSubU | VAvgU => {
            all.into_iter().for_each(|l| add(V128, plain(&vec![V128; n]), l as u32, 0))
        }
        VShl | VShr | VSar => {
            for l in all {
                let b = l.bits() as u64;
                for k in [0, 1, b / 2, b - 1, b, r.next() % b] {
                    add(V128, plain(&[V128]), l as u32, k);
                }
            }
        }
        VShuffle => (0..12).for_each(|k| add(V128, plain(&[V128, V128]), 0, k)),
        VWidenS | VWidenU | VMulWideS | VMulWideU => {
            all[..3].iter().for_each(|&l| add(V128, plain(&vec![V128; n]), l as u32, 0))
        }
        VNarrow => all[1..].iter().for_each(|&l| add(V128, plain(&[V128]), l as u32, 0)),
        FAdd | FSub | FMul | FDiv | FSqrt | FMulAdd | FMin | FMax | FMinNum | FMaxNum | FNeg | FAbs => {
            [F32, F64].into_iter().for_each(|t| add(t, plain(&vec![t; n]), 0, 0));
            if matches!(op, FAdd | FSub | FMul | FDiv | FSqrt) {
                add(F64, plain(&vec![F64; n]), 0, 1);
            } else if op == FMulAdd {
                (1..8).for_each(|imm| add(F64, plain(&[F64; 3]), 0, imm));
            }
        }
        FRound => {
            for t in [F32, F64] {
                for m in [0, 1, 2, 3, 4, 5, 255] {
                    add(t, plain(&[t]), m, 0);
                    add(t, plain(&[t]), m | 256, 0);
                }
            }
        }
        FExtend => (0..2).for_each(|aux| add(F64, plain(&[F32]), aux, 0)),
        FNarrow => (0..2).for_each(|aux| add(F32, plain(&[F64]), aux, 0)),
        FToS | FToU => {
            for t in [I32, I64] {
                for s in [F32, F64] {
                    [0, 1, 2, 3, 4, 255].into_iter().for_each(|m| add(t, plain(&[s]), m, 0));
                }
            }
        }
        SToF | UToF => {
            for t in [F32, F64] {
                [I32, I64].into_iter().for_each(|s| add(t, plain(&[s]), 0, 0));
            }
        }
        VFAdd | VFSub | VFMul | VFDiv | VFSqrt | VFMulAdd | VFMin | VFMax | VFMinNum | VFMaxNum | VFNeg | VFAbs
        | VFCmpEq | VFCmpGt | VFCmpGe => all[1..].iter().for_each(|&l| add(V128, vec![Arg::Floats(l); n], l as u32, 0)),
        VFRound => {
            for l in &all[1..] {
                for m in [0, 1, 2, 3, 4, 255] {
                    add(V128, vec![Arg::Floats(*l)], *l as u32, m);
                    add(V128, vec![Arg::Floats(*l)], *l as u32, m | 256);
                }
            }
        }
        VFToS | VFToU => {
            for l in &all[1..] {
                [0, 1, 2, 3, 4, 255].into_iter().for_each(|m| add(V128, vec![Arg::Floats(*l)], *l as u32, m));
            }
        }
        VSToF | VUToF => all[1..].iter().for_each(|&l| add(V128, plain(&[V128]), l as u32, 0)),
        VFExtend => add(V128, vec![Arg::Floats(Lane::S)], 0, 0),
        VFNarrow => add(V128, vec![Arg::Floats(Lane::D)], 0, 0),
        Load | Store | Rmw | Cas | ProbeWrite => {
            let types: &[(Type, std::ops::RangeInclusive<u32>)] = match op {
                Load | Store => &[(I32, 0..=2), (I64, 0..=3), (F32, 2..=2), (F64, 3..=3), (V128, 2..=4), (I128, 4..=4)],
                Rmw => &[(I32, 0..=2), (I64, 0..=3)],
                Cas => &[(I32, 0..=2), (I64, 0..=3), (I128, 4..=4)],
                _ => &[(Void, 0..=4)],
            };
            for (t, sizes) in types {
                for size in sizes.clone() {
                    for k in 0..12u32 {
                        let mut m = MemOp::new(size, k & 1).big_endian(k & 2 != 0);
                        if k & 4 != 0 && op == Load && t.is_int() {
                            m = m.signed();
                        }
                        if k & 8 != 0 {
                            m = m.align(r.below(size as usize + 1) as u32).acquire().release();
                        }
                        if op == Rmw {
                            m = m.rmw(r.pick(&RmwOp::ALL));
                        }
                        // 128-bit compare-and-swap is aligned by architecture.
                        if op == Cas && size == 4 {
                            m = m.align(4);
                        }
                        let imm = r.pick(&[0, 0, 1, 7, (-3i64) as u64, 0x100, 0x1234_5678_9abc_def0]);
                        let mut args = vec![Arg::Address];
                        args.extend(vec![Arg::Plain(if op == ProbeWrite { I64 } else { *t }); n - 1]);
                        add(if op == Store { Void } else { *t }, args, m.0, imm);
                    }
                }
            }
        }
    }
    out
}
