//! Floating-point operations on concrete arguments, exact, by `rhea-float`: the interpreter's semantics and the JIT's
//! slow path.

use crate::eval::flags;
use crate::func::Inst;
use crate::guest::{FpMode, NanRule};
use crate::op::{Op, fp_imm};
use crate::types::{Lane, Type};
use rhea_float::{Env, F16, F32, F64, Float, Format, Ordering, Rounding};

/// Sticky flag bits, as `rhea_float` has them.
pub mod flag {
    use rhea_float::Flags;
    pub const INVALID: u32 = Flags::INVALID.0;
    pub const INPUT_DENORMAL: u32 = Flags::INPUT_DENORMAL.0;
    pub const DIV_BY_ZERO: u32 = Flags::DIV_BY_ZERO.0;
    pub const OVERFLOW: u32 = Flags::OVERFLOW.0;
    pub const UNDERFLOW: u32 = Flags::UNDERFLOW.0;
    pub const INEXACT: u32 = Flags::INEXACT.0;
}

/// The environment that a mode stands for.
pub fn env(m: FpMode) -> Env {
    let mut e = Env::DEFAULT;
    e.rounding = Rounding::from_rmode(m.rounding as u32);
    e.default_nan = m.default_nan;
    e.flush_inputs = m.flush;
    e.flush_outputs = m.flush;
    e.flush_inputs_f16 = m.flush_f16;
    e.flush_outputs_f16 = m.flush_f16;
    e.alt_half = m.alt_half;
    match m.nan_rule {
        NanRule::Arm => {
            e.nan_rule = rhea_float::NanRule::Arm;
            e.tininess_before_rounding = true;
        }
        NanRule::X86 => {
            e.nan_rule = rhea_float::NanRule::X86;
            e.flush_inputs = m.daz;
            e.flush_raises_inexact = true;
            e.tininess_before_rounding = false;
        }
        NanRule::Ppc => {
            e.nan_rule = rhea_float::NanRule::Ppc;
            e.tininess_before_rounding = true;
        }
    }
    e
}

/// Rounding of FRound's `aux` form: 255 is the current one.
fn rounding(aux: u64, e: &Env) -> Rounding {
    Rounding::from_u32((aux & 0xff) as u32).unwrap_or(e.rounding)
}

/// A format's bits as u128 and back.
pub(crate) trait Raw: Float {
    fn from_raw(v: u128) -> Self::Bits;
    fn raw(b: Self::Bits) -> u128;
}
macro_rules! raw {
    ($($f:ty, $b:ty;)*) => { $(impl Raw for $f {
        fn from_raw(v: u128) -> $b {
            v as $b
        }
        fn raw(b: $b) -> u128 {
            b as u128
        }
    })* };
}
raw! { F16, u16; F32, u32; F64, u64; }

fn binary<F: Raw>(op: Op, a: u128, b: u128, e: &mut Env) -> u128 {
    let (a, b) = (F::from_raw(a), F::from_raw(b));
    F::raw(match op {
        Op::FAdd | Op::VFAdd => F::add(a, b, e),
        Op::FSub | Op::VFSub => F::sub(a, b, e),
        Op::FMul | Op::VFMul => F::mul(a, b, e),
        Op::FDiv | Op::VFDiv => F::div(a, b, e),
        Op::FMin | Op::VFMin => F::min(a, b, e),
        Op::FMax | Op::VFMax => F::max(a, b, e),
        Op::FMinNum | Op::VFMinNum => F::min_num(a, b, e),
        _ => F::max_num(a, b, e),
    })
}

fn compare_flags<F: Raw>(a: u128, b: u128, signal: bool, e: &mut Env) -> u32 {
    match F::compare(F::from_raw(a), F::from_raw(b), signal, e) {
        Ordering::Less => flags::N,
        Ordering::Equal => flags::Z | flags::C,
        Ordering::Greater => flags::C,
        Ordering::Unordered => flags::C | flags::V,
    }
}

fn bits(ty: Type) -> u32 {
    ty.bytes() * 8
}

fn to_int<F: Raw>(signed: bool, a: u128, n: u32, r: Rounding, e: &mut Env) -> u128 {
    let mask = if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    let v = if signed {
        F::to_signed(F::from_raw(a), n, 0, r, e) as u64
    } else {
        F::to_unsigned(F::from_raw(a), n, 0, r, e)
    };
    (v & mask) as u128
}

fn from_int<F: Raw>(signed: bool, v: u64, n: u32, e: &mut Env) -> u128 {
    F::raw(if signed { F::from_signed(crate::eval::sext(v, n), 0, e) } else { F::from_unsigned(v, 0, e) })
}

/// `a × b + c` with the signs that `imm` says.
fn mul_add<F: Raw>(x: [u128; 3], imm: u64, e: &mut Env) -> u128 {
    let (a, b, mut c) = (F::from_raw(x[0]), F::from_raw(x[1]), F::from_raw(x[2]));
    let is_nan = |v: F::Bits| F::wide(v) & (F::SIGN - 1) > F::INF;
    if imm & fp_imm::NEGATE_ADDEND != 0 && !is_nan(c) {
        c = F::neg(c);
    }
    let r = F::mul_add(a, b, c, e);
    F::raw(if imm & fp_imm::NEGATE_RESULT != 0 && !is_nan(r) { F::neg(r) } else { r })
}

/// One lane of the scalar or vector form of an operation.
fn lane_op<F: Raw>(i: &Inst, x: [u128; 3], n: u32, round: u64, e: &mut Env) -> u128 {
    let ones = if n >= 64 { u64::MAX as u128 } else { (1 << n) - 1 };
    let (a, b) = (F::from_raw(x[0]), F::from_raw(x[1]));
    match i.op {
        Op::FSqrt | Op::VFSqrt => F::raw(F::sqrt(a, e)),
        Op::FMulAdd | Op::VFMulAdd => mul_add::<F>(x, i.imm, e),
        Op::FRound | Op::VFRound => F::raw(F::round_to_int(a, rounding(round, e), round & 0x100 != 0, e)),
        Op::VFCmpEq => {
            if F::eq(a, b, e) {
                ones
            } else {
                0
            }
        }
        Op::VFCmpGt => {
            if F::gt(a, b, e) {
                ones
            } else {
                0
            }
        }
        Op::VFCmpGe => {
            if F::ge(a, b, e) {
                ones
            } else {
                0
            }
        }
        Op::VFToS => to_int::<F>(true, x[0], n, rounding(round, e), e),
        Op::VFToU => to_int::<F>(false, x[0], n, rounding(round, e), e),
        Op::VSToF => from_int::<F>(true, x[0] as u64, n, e),
        Op::VUToF => from_int::<F>(false, x[0] as u64, n, e),
        op => binary::<F>(op, x[0], x[1], e),
    }
}

fn by_lane(i: &Inst, lane: Lane, x: [u128; 3], e: &mut Env) -> u128 {
    let n = lane.bits();
    let mask = (1u128 << n) - 1;
    let mut r = 0;
    for k in 0..lane.count() {
        let y = x.map(|v| v >> (k * n) & mask);
        let z = match lane {
            Lane::D => lane_op::<F64>(i, y, n, i.imm, e),
            Lane::S => lane_op::<F32>(i, y, n, i.imm, e),
            _ => lane_op::<F16>(i, y, n, i.imm, e),
        };
        r |= (z & mask) << (k * n);
    }
    r
}

/// The flags that a floating-point operation of [`crate::simd`] (`aux` and `imm` as its instruction has them) raises while
/// overflow, underflow trap: a trapping underflow is raised by exact tiny results too, and inexact is said of the result with
/// an unbounded exponent.
pub fn trapping_flags(aux: u32, imm: u64, mode: FpMode, traps: [bool; 2], x: [u128; 3]) -> u32 {
    let mut i = Inst::new(Op::FSimd3, Type::V128);
    (i.aux, i.imm) = (aux, imm);
    let mut e = env(mode);
    [e.trap_overflow, e.trap_underflow] = traps;
    e.flush_outputs &= !e.trap_underflow;
    let mut raised = 0;
    crate::simdfp::eval(&i, e, mode.daz, x, &mut raised);
    raised
}

/// The result of an operation of [`crate::op::Class::Fp`] (arguments zero-extended); sticky flags raised are or-ed into
/// `raised`.
pub fn eval_fp(i: &Inst, arg_ty: Type, mode: FpMode, x: [u128; 3], raised: &mut u32) -> u128 {
    let mut env = env(mode);
    let e = &mut env;
    let double = arg_ty == Type::F64;
    let aux = i.aux as u64;
    let r = match i.op {
        Op::FlagsFCmp if double => compare_flags::<F64>(x[0], x[1], aux & 1 != 0, e) as u128,
        Op::FlagsFCmp => compare_flags::<F32>(x[0], x[1], aux & 1 != 0, e) as u128,
        Op::FSimd1 | Op::FSimd2 | Op::FSimd3 => {
            return crate::simdfp::eval(i, *e, mode.daz, x, raised);
        }
        Op::FlagsFCom => return crate::simdfp::compare(i.aux, *e, mode.daz, x[0], x[1], raised) as u128,
        Op::FExtend if aux == 1 => rhea_float::load_single(x[0] as u32) as u128,
        Op::FNarrow if aux == 1 => rhea_float::store_single(x[0] as u64) as u128,
        Op::FAdd | Op::FSub | Op::FMul | Op::FDiv | Op::FSqrt | Op::FMulAdd
            if i.imm & fp_imm::SINGLE != 0 && double =>
        {
            let wide = |e: &mut Env| lane_op::<F64>(i, x, 64, aux, e) as u64;
            let mut r = rhea_float::round_to_single(e, |e| {
                // The result's sign is changed after rounding.
                let r = wide(e);
                if i.imm & fp_imm::NEGATE_RESULT != 0 && !f64::from_bits(r).is_nan() { r ^ F64::SIGN } else { r }
            });
            if i.imm & fp_imm::NEGATE_RESULT != 0 && !f64::from_bits(r).is_nan() {
                r ^= F64::SIGN;
            }
            r as u128
        }
        Op::FExtend => rhea_float::f32_to_f64(x[0] as u32, e) as u128,
        Op::FNarrow => rhea_float::f64_to_f32(x[0] as u64, e) as u128,
        Op::FToS | Op::FToU => {
            let signed = i.op == Op::FToS;
            let m = rounding(aux, e);
            if double {
                to_int::<F64>(signed, x[0], bits(i.ty), m, e)
            } else {
                to_int::<F32>(signed, x[0], bits(i.ty), m, e)
            }
        }
        Op::SToF | Op::UToF => {
            let signed = i.op == Op::SToF;
            let n = bits(arg_ty);
            if i.ty == Type::F64 {
                from_int::<F64>(signed, x[0] as u64, n, e)
            } else {
                from_int::<F32>(signed, x[0] as u64, n, e)
            }
        }
        Op::VFExtend => {
            let lo = rhea_float::f32_to_f64(x[0] as u32, e) as u128;
            lo | (rhea_float::f32_to_f64((x[0] >> 32) as u32, e) as u128) << 64
        }
        Op::VFNarrow => {
            let lo = rhea_float::f64_to_f32(x[0] as u64, e) as u128;
            lo | (rhea_float::f64_to_f32((x[0] >> 64) as u64, e) as u128) << 32
        }
        _ if i.ty == Type::F64 => lane_op::<F64>(i, x, 64, aux, e),
        _ if i.ty == Type::F32 => lane_op::<F32>(i, x, 32, aux, e),
        _ => by_lane(i, i.lane(), x, e),
    };
    *raised |= env.flags.0;
    r
}
