//! Every operation of the table, in many forms: generated code against the interpreter (whose values are `eval`'s and
//! `fpeval`'s), and simplified functions against what they were made from. `OPS_ROUNDS` sets how many rounds of random
//! operands and forms are run (1).

#[path = "../../../cpu/ir/tests/support/mod.rs"]
mod support;

use rhea_accel::Vcpu;
use rhea_ir::func::{ExitKind, Function, Inst, StateMap, Target, Term, Value};
use rhea_ir::guest::{FpMode, Guest, NanRule};
use rhea_ir::op::Class;
use rhea_ir::opt::{remove_dead, simplify_all};
use rhea_ir::simd::{Fmt, Shape, SimdOp, fma_kind};
use rhea_ir::verify::{Stage, verify};
use rhea_ir::{Cond, Lane, MemOp, Op, RmwOp, Slot, Type};
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::time::{Duration, Instant};
use support::*;

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// What an argument may be, beyond its type.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Arg {
    Plain(Type),
    /// Packed flags.
    Flags,
    /// A vector of FP lanes.
    Floats(Lane),
    /// An address of guest memory.
    Address,
}

impl Arg {
    fn ty(self) -> Type {
        match self {
            Arg::Plain(t) => t,
            Arg::Flags => Type::I32,
            Arg::Floats(_) => Type::V128,
            Arg::Address => Type::I64,
        }
    }
}

/// One form of an operation.
#[derive(Clone, Debug)]
struct Form {
    op: Op,
    ty: Type,
    aux: u32,
    imm: u64,
    args: Vec<Arg>,
}

const SPECIAL_INT: [u64; 20] = [
    0,
    1,
    2,
    u64::MAX,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_8000_0000,
    31,
    32,
    63,
    64,
];
const SPECIAL_F64: [u64; 26] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    1,
    0x8000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_1234,
    0x7ff0_0000_0000_0001,
    0xfff4_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x41e0_0000_0000_0000,
    0x41ef_ffff_ffe0_0000,
    0x41f0_0000_0000_0000,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0001,
    0x43f0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0xbfdf_ffff_ffff_ffff,
];
const SPECIAL_F32: [u32; 24] = [
    0,
    1 << 31,
    0x3f80_0000,
    0xbf80_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_1234,
    0x7f80_0001,
    0xffa0_0000,
    0x4f00_0000,
    0x4eff_ffff,
    0x4f80_0000,
    0x5f00_0000,
    0xdf00_0001,
    0x5f80_0000,
    0x3f00_0000,
    0x4020_0000,
];
const SPECIAL_F16: [u16; 12] = [0, 0x8000, 0x3c00, 0xbc00, 1, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7c01];

fn random_int(r: &mut Rng) -> u64 {
    match r.below(4) {
        0 => r.pick(&SPECIAL_INT),
        1 => r.next() >> r.below(64),
        2 => (r.next() as i64 >> r.below(64)) as u64,
        _ => r.next(),
    }
}

fn random_float(r: &mut Rng, lane: Lane) -> u64 {
    let near = |r: &mut Rng, mant: u32, exp: u32| {
        // A moderate exponent, now and then few significant bits.
        let bias = (1u64 << (exp - 1)) - 1;
        let e = bias.wrapping_add((r.next() % 72).wrapping_sub(4)) & ((1 << exp) - 1);
        let m = r.next() & ((1 << mant) - 1);
        let m = if r.below(2) == 0 { m & !((1u64 << r.below(mant as usize)) - 1) } else { m };
        (r.next() & 1) << (mant + exp) | e << mant | m
    };
    match (lane, r.below(3)) {
        (Lane::D, 0) => r.pick(&SPECIAL_F64),
        (Lane::D, 1) => near(r, 52, 11),
        (Lane::D, _) => r.next(),
        (Lane::S, 0) => r.pick(&SPECIAL_F32) as u64,
        (Lane::S, 1) => near(r, 23, 8),
        (Lane::S, _) => r.next() & 0xffff_ffff,
        (_, 0) => r.pick(&SPECIAL_F16) as u64,
        _ => r.next() & 0xffff,
    }
}

fn lanes(r: &mut Rng, lane: Lane, mut f: impl FnMut(&mut Rng) -> u64) -> u128 {
    let mut v = 0u128;
    for k in 0..lane.count() {
        let x = f(r) as u128 & ((1u128 << lane.bits()) - 1);
        v |= x << (k * lane.bits());
    }
    v
}

fn random_arg(r: &mut Rng, a: Arg) -> u128 {
    let v: u128 = match a {
        Arg::Flags => {
            [0x8000u64, 0x4000, 0x100, 1].iter().map(|&b| if r.below(2) == 0 { b } else { 0 }).sum::<u64>() as u128
        }
        Arg::Floats(l) => lanes(r, l, |r| random_float(r, l)),
        // Around the end of a page, misaligned as like as not, and around the beginning of the hole.
        Arg::Address => match r.below(8) {
            0 => 0x7ff0 + r.below(32) as u128,
            1..4 => 0x5000 - 16 + r.below(32) as u128,
            _ => 0x4fe0 + 16 * r.below(4) as u128,
        },
        Arg::Plain(t) => match t {
            Type::Bool => r.next() as u128 & 1,
            Type::F32 => random_float(r, Lane::S) as u128,
            Type::F64 => random_float(r, Lane::D) as u128,
            Type::V128 | Type::I128 => match r.below(3) {
                0 => {
                    let l = Lane::from_size(r.below(4) as u32);
                    lanes(r, l, |r| random_int(r) >> if r.below(2) == 0 { 0 } else { 64 - l.bits() })
                }
                1 => random_int(r) as u128 | (random_int(r) as u128) << 64,
                _ => r.next() as u128 | (r.next() as u128) << 64,
            },
            _ => random_int(r) as u128,
        },
    };
    match a.ty().bytes() {
        16 => v,
        n => v & ((1 << (n * 8)) - 1),
    }
}

/// The forms of an operation: types, lanes, immediates. Immediates are random.
fn forms(op: Op, r: &mut Rng) -> Vec<Form> {
    use Op::*;
    use Type::{Bool, F32, F64, I32, I64, I128, V128, Void};
    let mut out: Vec<Form> = Vec::new();
    let plain = |ts: &[Type]| ts.iter().map(|&t| Arg::Plain(t)).collect::<Vec<_>>();
    let mut add = |ty: Type, args: Vec<Arg>, aux: u32, imm: u64| out.push(Form { op, ty, aux, imm, args });
    let all = [Lane::B, Lane::H, Lane::S, Lane::D];
    let n = op.arity();
    match op {
        Param | Call | CheckExit | Const | ConstV | GetSlot | FpFlagsGet | FpFlagsClear | Fence => {}
        Copy => [Bool, I32, I64, I128, F32, F64, V128].into_iter().for_each(|t| add(t, plain(&[t]), 0, 0)),
        Add | Sub | Mul | SDiv | UDiv | AndNot | Shl | Shr | Sar | Rotr | Not | Neg | Clz | Ctz | Popcnt | Bswap
        | Bswap16 | Bitrev => [I32, I64].into_iter().for_each(|t| add(t, plain(&vec![t; n]), 0, 0)),
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
            for width in [0, 8, 16] {
                [I32, I64].into_iter().for_each(|t| add(I32, plain(&[t, t, Bool]), 0, width));
            }
        }
        FlagsSub | FlagsCmp | FlagsAdd | FlagsLogic => {
            for width in [0, 8, 16] {
                [I32, I64].into_iter().for_each(|t| add(I32, plain(&vec![t; n]), 0, width));
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
        CondFlags => (0..16).for_each(|c| add(Bool, vec![Arg::Flags], c, 0)),
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
            (0..8).for_each(|aux| add(I32, vec![Arg::Floats(if aux & 1 != 0 { Lane::D } else { Lane::S }); 2], aux, 0))
        }
        VOrdered => {
            for aux in [0, 1] {
                add(I64, vec![Arg::Floats(if aux != 0 { Lane::D } else { Lane::S }); 2], aux, 0);
            }
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

/// Slots of arguments, results, values kept alive around the operation, and what became of those.
const ARGS: u32 = 0x2000;
const RESULTS: u32 = 0x2100;
const LIVE: u32 = 0x2400;
const AFTER: u32 = 0x2800;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Setting {
    Plain,
    /// Equal arguments.
    Same,
    /// The n-th argument is a constant.
    Const(usize),
    /// Many values live across the operation.
    Pressure,
    /// The result is an argument again, and used by whatever takes its type.
    Chain,
}

struct Maker {
    f: Function,
    out: Vec<(Slot, Value)>,
    next_out: u32,
}

impl Maker {
    fn new(fp: FpMode) -> Maker {
        let mut f = Function::new(fp);
        f.new_block(0x1000);
        f.blocks[0].guest_insns = 1;
        Maker { f, out: Vec::new(), next_out: RESULTS }
    }
    fn push(&mut self, i: Inst) -> Value {
        let v = self.f.push_inst(i);
        self.f.blocks[0].insts.push(v);
        v
    }
    fn inst(&mut self, op: Op, ty: Type, args: &[Value], aux: u32, imm: u64) -> Value {
        let mut i = Inst::new(op, ty);
        i.args[..args.len()].copy_from_slice(args);
        i.aux = aux;
        i.imm = imm;
        self.push(i)
    }
    fn get(&mut self, offset: u32, ty: Type) -> Value {
        self.inst(Op::GetSlot, ty, &[], 0, offset as u64)
    }
    fn constant(&mut self, ty: Type, bits: u128) -> Value {
        if matches!(ty, Type::V128 | Type::I128) {
            let k = self.f.const128(bits);
            return self.inst(Op::ConstV, ty, &[], 0, k);
        }
        self.inst(Op::Const, ty, &[], 0, bits as u64)
    }
    fn result(&mut self, v: Value) {
        let ty = self.f.ty(v);
        if ty != Type::Void {
            self.out.push((Slot { offset: self.next_out, ty }, v));
            self.next_out += 16;
        }
    }
    fn state(&mut self, pc: u64, dirty: &[(Slot, Value)]) -> rhea_ir::StateId {
        let mut dirty = dirty.to_vec();
        dirty.sort_by_key(|d| d.0.offset);
        self.f.push_state(StateMap { pc, dirty })
    }
    fn apply(&mut self, form: &Form, args: &[Value], dirty: &[(Slot, Value)]) -> Value {
        let mut i = Inst::new(form.op, form.ty);
        i.args[..args.len()].copy_from_slice(args);
        i.aux = form.aux;
        i.imm = form.imm;
        if form.op == Op::VShuffle {
            i.imm = self.f.const128(shuffle(form.imm));
        }
        if form.op.class() == Class::Mem {
            i.state = self.state(0x1000, dirty);
        }
        self.push(i)
    }
    fn finish(mut self) -> Function {
        let out = std::mem::take(&mut self.out);
        let s = self.state(0x1004, &out);
        self.f.blocks[0].term = Term::Jump(Target::Exit(ExitKind::Goto, s));
        self.f
    }
}

/// Byte selectors: the patterns the host has instructions for, and others.
fn shuffle(kind: u64) -> u128 {
    let mut m = [0u8; 16];
    for (k, m) in m.iter_mut().enumerate() {
        let k = k as u8;
        *m = match kind {
            0 => k + 5,
            1 => k / 2 + if k % 2 == 1 { 16 } else { 0 },
            2 => 8 + k / 4 / 2 * 4 + k % 4 + if k / 4 % 2 == 1 { 16 } else { 0 },
            3 => [3, 0, 2, 2][k as usize / 4] * 4 + k % 4,
            4 => 31 - k,
            5 => 15 - k,
            6 => k * 2 % 32,
            7 => {
                if k < 8 {
                    k
                } else {
                    255
                }
            }
            8 => k.wrapping_mul(37) % 48,
            9 => k / 8 * 16 + k % 8,
            10 => 8 + k / 8 * 16 + k % 8,
            _ => k + 16,
        };
    }
    u128::from_le_bytes(m)
}

fn make(form: &Form, shape: Setting, fp: FpMode, r: &mut Rng) -> Function {
    let mut m = Maker::new(fp);
    let address = form.op.class() == Class::Mem;
    let mut live = Vec::new();
    let pressure = shape == Setting::Pressure;
    let before = r.below(2) == 0;
    let mut load_live = |m: &mut Maker, r: &mut Rng| {
        for k in 0..14 + r.below(28) as u32 {
            let ty = r.pick(&[Type::I64, Type::I64, Type::I32, Type::F64, Type::V128, Type::F32]);
            let v = m.get(LIVE + 16 * k, ty);
            let v = match ty {
                Type::I64 | Type::I32 => {
                    let c = m.constant(ty, (k as u128) << 3 | 1);
                    m.inst(Op::Add, ty, &[v, c], 0, 0)
                }
                Type::V128 => m.inst(Op::VNot, ty, &[v], 0, 0),
                t => m.inst(Op::FNeg, t, &[v], 0, 0),
            };
            live.push((k, v));
        }
    };
    if pressure && before {
        load_live(&mut m, r);
    }
    let mut args = Vec::new();
    for (n, &a) in form.args.iter().enumerate() {
        let ty = a.ty();
        let v = match shape {
            Setting::Const(k) if k == n && !(address && n == 0) => {
                let c = random_arg(r, a);
                m.constant(ty, c)
            }
            Setting::Same if n > 0 && form.args[..n].iter().any(|b| b.ty() == ty) => {
                let k = form.args[..n].iter().position(|b| b.ty() == ty).unwrap_or(0);
                args[k]
            }
            _ => m.get(ARGS + 16 * n as u32, ty),
        };
        // The displacement leads to where the slot says.
        let v = if n == 0 && address && form.imm != 0 {
            let c = m.constant(Type::I64, form.imm as u128);
            m.inst(Op::Sub, Type::I64, &[v, c], 0, 0)
        } else {
            v
        };
        args.push(v);
    }
    if pressure && !before {
        load_live(&mut m, r);
    }
    let dirty: Vec<(Slot, Value)> = live
        .iter()
        .filter(|(k, _)| k % 3 == 0)
        .map(|&(k, v)| (Slot { offset: AFTER + 0x300 + 16 * k, ty: m.f.ty(v) }, v))
        .collect();
    let v = m.apply(form, &args, &dirty);
    m.result(v);
    m.out.extend(dirty);
    for w in live.windows(2) {
        let ((k, a), (_, b)) = (w[0], w[1]);
        let (ta, tb) = (m.f.ty(a), m.f.ty(b));
        let v = match ta {
            Type::V128 if ta == tb => m.inst(Op::VXor, ta, &[a, b], 0, 0),
            t if t.is_int() && ta == tb => m.inst(Op::Sub, ta, &[a, b], 0, 0),
            _ => a,
        };
        m.out.push((Slot { offset: AFTER + 16 * k, ty: ta }, v));
    }
    if shape == Setting::Chain && form.ty != Type::Void {
        let flags = matches!(
            form.op,
            Op::FlagsAdc
                | Op::FlagsSbb
                | Op::FlagsSub
                | Op::FlagsCmp
                | Op::FlagsAdd
                | Op::FlagsLogic
                | Op::FlagsFCmp
                | Op::FlagsFCom
                | Op::FlagsVTest
                | Op::FlagsFromNzcv
        );
        for (n, &a) in form.args.iter().enumerate() {
            if a.ty() == form.ty && !(address && n == 0) && (a != Arg::Flags || flags) {
                let mut args = args.clone();
                args[n] = v;
                let again = m.apply(form, &args, &[]);
                m.result(again);
            }
        }
        let cond = match form.ty {
            Type::Bool => Some(v),
            Type::I32 if flags => {
                let c = r.below(16) as u32;
                let second = r.below(16) as u32;
                let other = m.inst(Op::CondFlags, Type::Bool, &[v], second, 0);
                let f = m.inst(Op::FromBool, Type::I64, &[other], 0, 0);
                m.result(f);
                Some(m.inst(Op::CondFlags, Type::Bool, &[v], c, 0))
            }
            Type::I32 | Type::I64 => Some(m.inst(Op::ToBool, Type::Bool, &[v], 0, 0)),
            Type::V128 => Some(m.inst(Op::VAnyTrue, Type::Bool, &[v], 0, 0)),
            _ => None,
        };
        if let Some(c) = cond {
            if flags && r.below(2) == 0 {
                // Flags that only conditions use need not exist.
                m.out.retain(|o| o.1 != v);
            }
            let (x, y) = (m.get(LIVE, Type::I64), m.get(LIVE + 16, Type::I64));
            let s = m.inst(Op::Select, Type::I64, &[c, x, y], 0, 0);
            m.result(s);
            let n = m.inst(Op::BoolNot, Type::Bool, &[c], 0, 0);
            let (p, q) = (m.get(LIVE + 32, Type::F64), m.get(LIVE + 48, Type::F64));
            let s = m.inst(Op::Select, Type::F64, &[n, p, q], 0, 0);
            m.result(s);
            // And a branch.
            let out = m.out.clone();
            let then = m.state(0x1004, &out);
            let other = m.state(0x1008, &out);
            let mut f = m.f;
            let (then, other) = (Target::Exit(ExitKind::Goto, then), Target::Exit(ExitKind::Goto, other));
            f.blocks[0].term = Term::Branch { cond: c, then, other, hint: r.below(3) as i8 - 1 };
            return f;
        }
    }
    m.finish()
}

struct Test {
    form: Form,
    shape: Setting,
    f: Function,
    inputs: Vec<Job>,
    /// The last one's function is simplified from the test before it.
    derived: bool,
}

fn modes() -> Vec<FpMode> {
    let mut v = Vec::new();
    for rounding in 0..4 {
        for k in 0..8 {
            for nan_rule in [NanRule::Arm, NanRule::X86, NanRule::Ppc] {
                let (default_nan, flush, flush_f16) = (k & 1 != 0, k & 2 != 0, k & 4 != 0);
                // Denormal inputs are x86's own switch.
                let daz = nan_rule == NanRule::X86 && flush_f16;
                v.push(FpMode {
                    rounding,
                    default_nan,
                    flush,
                    flush_f16: flush_f16 && !daz,
                    alt_half: false,
                    daz,
                    nan_rule,
                });
            }
        }
    }
    v
}

fn inputs(form: &Form, n: usize, r: &mut Rng) -> Vec<Job> {
    (0..n)
        .map(|_| {
            let mut slots = Box::new([0u8; SLOT_BYTES]);
            for (k, &a) in form.args.iter().enumerate() {
                let v = random_arg(r, a);
                put_slot(&mut *slots, Slot { offset: ARGS + 16 * k as u32, ty: a.ty() }, v);
            }
            for k in 0..64 {
                let v = r.next() as u128 | (r.next() as u128) << 64;
                put_slot(&mut *slots, Slot { offset: LIVE + 16 * k, ty: Type::V128 }, v);
            }
            let mut memory = Vec::new();
            if form.op.class() == Class::Mem {
                memory = (0..JOB_MEMORY.iter().map(|m| m.len()).sum()).map(|_| r.next() as u8).collect();
                // A compare-and-swap that finds what it expects.
                if form.op == Op::Cas && r.below(2) == 0 {
                    let va = get_slot(&*slots, Slot { offset: ARGS, ty: Type::I64 }) as usize;
                    let size = 1usize << (form.aux & 7);
                    if va >= JOB_MEMORY[0].start && va + size <= JOB_MEMORY[0].end {
                        let at = va - JOB_MEMORY[0].start;
                        let mut b = [0u8; 16];
                        b[..size].copy_from_slice(&memory[at..at + size]);
                        if MemOp(form.aux).is_big_endian() {
                            b[..size].reverse();
                        }
                        put_slot(&mut *slots, Slot { offset: ARGS + 16, ty: form.ty }, u128::from_le_bytes(b));
                    }
                }
            }
            Job { function: 0, slots, memory }
        })
        .collect()
}

/// Runs all jobs in generated code.
fn execute(tests: &[Test]) -> Vec<Finished> {
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", MEMORY as u64).expect("memory");
    let _map = space.map_ram(Gpa(0), &ram, 0, MEMORY as u64, 0).expect("a mapping");
    let mut m = Machine::new(tests.iter().map(|t| t.f.clone()).collect());
    for (n, t) in tests.iter().enumerate() {
        m.queue.extend(t.inputs.iter().cloned().map(|mut j| {
            j.function = n;
            j
        }));
    }
    let jobs = m.queue.len();
    let mem = ram.clone();
    m.swap_memory = Some(Box::new(move |give, take| {
        if !give.is_empty() {
            let mut at = 0;
            for r in JOB_MEMORY {
                mem.write(r.start as u64, &give[at..at + r.len()]).expect("memory");
                at += r.len();
            }
        } else {
            for r in JOB_MEMORY {
                let mut b = vec![0; r.len()];
                mem.read(r.start as u64, &mut b).expect("memory");
                take.extend(b);
            }
        }
    }));
    let options = JitOptions { code_bytes: 32 << 20, hot_threshold: None, interpret: false, background: false };
    let vm = JitVm::new(&space, options).expect("a JIT");
    let v = vm.add_vcpu(0, m);
    v.start().expect("a thread");
    v.resume();
    let start = Instant::now();
    while !v.with_guest(|m| m.finished) {
        assert!(start.elapsed() < Duration::from_secs(300), "no end");
        std::thread::sleep(Duration::from_millis(1));
    }
    v.stop();
    let results = v.with_guest(|m| std::mem::take(&mut m.results));
    assert_eq!(results.len(), jobs);
    results
}

/// What the interpreter makes of the jobs.
fn oracle(t: &Test, machine: &mut Machine, flat: &mut Flat) -> Vec<Finished> {
    t.inputs
        .iter()
        .map(|j| {
            machine.slots = *j.slots;
            if !j.memory.is_empty() {
                let mut at = 0;
                for r in JOB_MEMORY {
                    flat.0[r.clone()].copy_from_slice(&j.memory[at..at + r.len()]);
                    at += r.len();
                }
            }
            let (_, mut end) = interpret(&t.f, machine, flat);
            for r in JOB_MEMORY {
                end.memory.extend_from_slice(&flat.0[r]);
            }
            end
        })
        .collect()
}

fn show(t: &Test, job: &Job, got: &Finished, want: &Finished) -> String {
    let mut s = format!("{:?} {:?} simplified: {}\n{}", t.form, t.shape, t.derived, t.f);
    for (k, a) in t.form.args.iter().enumerate() {
        let v = get_slot(&*job.slots, Slot { offset: ARGS + 16 * k as u32, ty: a.ty() });
        s += &format!("argument {k}: {v:#x}\n");
    }
    for at in (SLOTS as u32..(SLOTS + SLOT_BYTES) as u32).step_by(16) {
        let slot = Slot { offset: at, ty: Type::V128 };
        let (g, w) = (get_slot(&*got.slots, slot), get_slot(&*want.slots, slot));
        if g != w {
            s += &format!("slot {at:#x}: {g:#x}, not {w:#x}\n");
        }
    }
    s += &format!("pc {:#x} {:#x}, FP flags {:#x} {:#x}", got.pc, want.pc, got.fp_flags, want.fp_flags);
    if got.memory != want.memory {
        s += &format!("\nmemory {:02x?}\n       {:02x?}", got.memory, want.memory);
    }
    s
}

const UNDERFLOW: u32 = 0x10;

/// The one known difference: a result that rounds up to the least normal number is tiny before rounding (underflow for the
/// guest) but not after it, as the host sees it.
fn least_normal(t: &Test, end: &Finished) -> bool {
    if t.f.fp.nan_rule == NanRule::X86 {
        return false;
    }
    let has = |v: u128, lane: Lane, least: u64| {
        (0..lane.count()).any(|k| (v >> (k * lane.bits())) as u64 & (u64::MAX >> (65 - lane.bits())) == least)
    };
    (RESULTS..RESULTS + 0x80).step_by(16).any(|offset| {
        let v = get_slot(&*end.slots, Slot { offset, ty: Type::V128 });
        has(v, Lane::D, 1 << 52) || has(v, Lane::S, 1 << 23)
    })
}

/// Runs the tests, and gives one example of failure.
fn check(tests: Vec<Test>) -> Option<String> {
    for t in &tests {
        if let Err(e) = verify(&t.f, Machine::HELPERS, Stage::Promoted) {
            panic!("{:?} {:?}: {e}\n{}", t.form, t.shape, t.f);
        }
    }
    let results = execute(&tests);
    let mut machine = Machine::new(Vec::new());
    let mut flat = Flat(vec![0; MEMORY]);
    let mut k = 0;
    let mut bad: Vec<(Op, usize, String)> = Vec::new();
    let mut previous = Vec::new();
    let mut fail = |op: Op, what: String| match bad.iter_mut().find(|b| b.0 == op) {
        Some(b) => b.1 += 1,
        None => bad.push((op, 1, what)),
    };
    for t in &tests {
        let want = oracle(t, &mut machine, &mut flat);
        for (n, w) in want.iter().enumerate() {
            let got = &results[k];
            k += 1;
            let memory = t.inputs[n].memory.is_empty() || got.memory == w.memory;
            // The host's own invalid flag is not looked at by Power guests.
            let seen = if t.f.fp.nan_rule == NanRule::Ppc { !1 } else { !0 };
            let (got_flags, want_flags) = (got.fp_flags & seen, w.fp_flags & seen);
            let flags = got_flags == want_flags || (got_flags | UNDERFLOW == want_flags && least_normal(t, w));
            if got.pc != w.pc || got.slots != w.slots || !flags || !memory {
                fail(t.form.op, show(t, &t.inputs[n], got, w));
            }
            if t.derived {
                let p: &Finished = &previous[n];
                if p.pc != w.pc || p.slots != w.slots || p.fp_flags != w.fp_flags || p.memory != w.memory {
                    fail(t.form.op, format!("simplification: {}", show(t, &t.inputs[n], w, p)));
                }
            }
        }
        previous = want;
    }
    let text: Vec<String> = bad.iter().map(|(op, n, s)| format!("==== {} ({n} times)\n{s}", op.name())).collect();
    (!text.is_empty()).then(|| text.join("\n"))
}

/// Makes tests of each operation of a class and runs them, one operation at a time.
fn each(class: Class, seed: u64, make: impl Fn(&Form, &mut Vec<Test>, &mut Rng)) {
    let mut bad = Vec::new();
    for round in 0..rounds() {
        let mut r = Rng(round * 1000 + seed);
        for &op in Op::ALL.iter().filter(|o| o.class() == class) {
            let mut tests = Vec::new();
            for form in forms(op, &mut r) {
                make(&form, &mut tests, &mut r);
            }
            bad.extend(check(tests));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn rounds() -> u64 {
    std::env::var("OPS_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn push(tests: &mut Vec<Test>, form: &Form, shape: Setting, fp: FpMode, n: usize, r: &mut Rng) {
    let f = make(form, shape, fp, r);
    let inputs = inputs(form, n, r);
    let mut g = f.clone();
    simplify_all(&mut g);
    remove_dead(&mut g, Machine::HELPERS);
    let simple = g != f;
    tests.push(Test { form: form.clone(), shape, f, inputs: inputs.clone(), derived: false });
    if simple {
        tests.push(Test { form: form.clone(), shape, f: g, inputs, derived: true });
    }
}

fn shapes(form: &Form) -> Vec<Setting> {
    let mut v = vec![Setting::Plain, Setting::Pressure, Setting::Pressure, Setting::Chain, Setting::Chain];
    if form.args.len() > 1 {
        v.push(Setting::Same);
    }
    v.extend((0..form.args.len()).map(Setting::Const));
    v
}

#[test]
fn integers_and_vectors() {
    each(Class::Pure, 0, |form, tests, r| {
        for shape in shapes(form) {
            push(tests, form, shape, FpMode::default(), 10, r);
        }
    });
}

#[test]
fn memory() {
    each(Class::Mem, 1, |form, tests, r| {
        for shape in shapes(form) {
            push(tests, form, shape, FpMode::default(), 12, r);
        }
    });
}

#[test]
fn floats() {
    let modes = modes();
    each(Class::Fp, 2, |form, tests, r| {
        for fp in &modes {
            // Variants that only Power guests have.
            let variant = form.imm != 0
                && matches!(form.op, Op::FAdd | Op::FSub | Op::FMul | Op::FDiv | Op::FSqrt | Op::FMulAdd)
                || form.aux != 0 && matches!(form.op, Op::FExtend | Op::FNarrow);
            if variant && fp.nan_rule != NanRule::Ppc {
                continue;
            }
            // The modes that the host's unit serves get most of the work.
            let x86 = matches!(form.op, Op::FSimd1 | Op::FSimd2 | Op::FSimd3 | Op::FlagsFCom);
            let fast = if x86 { fp.is_host_x86() } else { !fp.flush && !fp.flush_f16 && fp.nan_rule != NanRule::X86 };
            push(tests, form, Setting::Plain, *fp, if fast { 20 } else { 2 }, r);
            if fast {
                for shape in [Setting::Pressure, Setting::Chain, Setting::Same, Setting::Const(0)] {
                    push(tests, form, shape, *fp, 5, r);
                }
            }
        }
    });
}
