//! Values of operations on concrete arguments, for constant folding and the interpreter: the reference semantics.

use crate::func::{Function, Inst};
use crate::op::{Cond, Op, P_AND_A};
use crate::types::{Lane, Type};

pub use crate::simplify::{Simplified, simplify};

/// Packed flag bits.
pub mod flags {
    pub const N: u32 = 1 << 15;
    pub const Z: u32 = 1 << 14;
    pub const C: u32 = 1 << 8;
    pub const V: u32 = 1;
    pub const P: u32 = 1 << 10;
    pub const A: u32 = 1 << 12;
}

/// Low `bits` of `v`.
pub(crate) const fn low(v: u64, bits: u32) -> u64 {
    if bits >= 64 { v } else { v & ((1 << bits) - 1) }
}

/// Sign-extends the low `bits` of `v`.
pub const fn sext(v: u64, bits: u32) -> i64 {
    let s = 64 - bits;
    ((v << s) as i64) >> s
}

/// [`Op::Order`] of integers of `bits` bits.
fn order(a: u64, b: u64, unsigned: bool, bits: u32) -> u64 {
    if bits == 32 {
        let wide = |v: u64| if unsigned { v as u32 as u64 } else { v as u32 as i32 as u64 };
        return wide(a).wrapping_sub(wide(b));
    }
    let order = if unsigned { a.cmp(&b) } else { (a as i64).cmp(&(b as i64)) };
    order as i64 as u64
}

/// [`Op::OrderOf`] less, greater, equal.
pub fn order_of([less, greater, equal]: [bool; 3]) -> u64 {
    u64::from(less) << 63 | u64::from(!greater) << 62 | u64::from(greater) << 40 | u64::from(!equal)
}

/// [`Op::OrderIs`].
pub fn order_is(cond: Cond, v: u64) -> bool {
    let (less, greater, equal) = ((v as i64) < 0, ((v << 1) as i64) > 0, v as u32 == 0);
    match cond {
        Cond::Slt => less,
        Cond::Sge => !less,
        Cond::Sgt => greater,
        Cond::Sle => !greater,
        Cond::Ne => !equal,
        _ => equal,
    }
}

/// Tests an integer condition on values of `bits` width (zero-extended).
pub fn icmp(cond: Cond, a: u64, b: u64, bits: u32) -> bool {
    let (sa, sb) = (sext(a, bits), sext(b, bits));
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Ult => a < b,
        Cond::Ule | Cond::CsOrZ => a <= b,
        Cond::Ugt | Cond::CcAndNz => a > b,
        Cond::Uge => a >= b,
        Cond::Slt => sa < sb,
        Cond::Sle => sa <= sb,
        Cond::Sgt => sa > sb,
        Cond::Sge => sa >= sb,
        Cond::Mi => sext(a.wrapping_sub(b), bits) < 0,
        Cond::Pl => sext(a.wrapping_sub(b), bits) >= 0,
        Cond::Vs => (sext((a ^ b) & (a ^ a.wrapping_sub(b)), bits)) < 0,
        Cond::Vc => (sext((a ^ b) & (a ^ a.wrapping_sub(b)), bits)) >= 0,
        Cond::Ps => (a.wrapping_sub(b) as u8).count_ones() & 1 == 0,
        Cond::Pc => (a.wrapping_sub(b) as u8).count_ones() & 1 != 0,
    }
}

/// Tests a condition on packed flags.
pub fn cond_flags(cond: Cond, f: u32) -> bool {
    let (n, z, c, v) = (f & flags::N != 0, f & flags::Z != 0, f & flags::C != 0, f & flags::V != 0);
    match cond {
        Cond::Eq => z,
        Cond::Ne => !z,
        Cond::Ult => !c,
        Cond::Uge => c,
        Cond::Ugt => c && !z,
        Cond::Ule => !c || z,
        Cond::Slt => n != v,
        Cond::Sge => n == v,
        Cond::Sgt => !z && n == v,
        Cond::Sle => z || n != v,
        Cond::Mi => n,
        Cond::Pl => !n,
        Cond::Vs => v,
        Cond::Vc => !v,
        Cond::CsOrZ => c || z,
        Cond::CcAndNz => !c && !z,
        Cond::Ps => f & flags::P != 0,
        Cond::Pc => f & flags::P == 0,
    }
}

/// Packed flags of `a + b + carry` on `bits` width.
pub fn flags_adc(a: u64, b: u64, carry: bool, bits: u32) -> u32 {
    let (a, b) = (low(a, bits), low(b, bits));
    let wide = a as u128 + b as u128 + carry as u128;
    let r = low(wide as u64, bits);
    let mut f = 0;
    if r >> (bits - 1) & 1 != 0 {
        f |= flags::N;
    }
    if r == 0 {
        f |= flags::Z;
    }
    if wide >> bits != 0 {
        f |= flags::C;
    }
    if ((a ^ r) & (b ^ r)) >> (bits - 1) & 1 != 0 {
        f |= flags::V;
    }
    f
}

/// P and A of a flags operation that has them, by its operands and their sum or difference.
fn low_flags(inst: &Inst, a: u64, b: u64, r: u64) -> u32 {
    let set = |on: bool, f: u32| if on { f } else { 0 };
    if inst.aux & P_AND_A == 0 {
        return 0;
    }
    set((r as u8).count_ones() & 1 == 0, flags::P) | set((a ^ b ^ r) & 16 != 0, flags::A)
}

/// Width of the integer operands of a flags operation.
fn flag_bits(inst: &Inst, arg_ty: Type) -> u32 {
    match inst.imm {
        n @ (8 | 16) => n as u32,
        _ => bits_of(arg_ty),
    }
}

fn bits_of(ty: Type) -> u32 {
    match ty {
        Type::Bool => 1,
        Type::I32 | Type::F32 => 32,
        Type::I64 | Type::F64 => 64,
        _ => 128,
    }
}

pub(crate) fn lane_get(v: u128, lane: Lane, i: u32) -> u64 {
    low((v >> (i * lane.bits())) as u64, lane.bits())
}

pub(crate) fn lanes1(lane: Lane, a: u128, f: impl Fn(u64) -> u64) -> u128 {
    let mut r = 0u128;
    for i in 0..lane.count() {
        r |= (low(f(lane_get(a, lane, i)), lane.bits()) as u128) << (i * lane.bits());
    }
    r
}

pub(crate) fn lanes2(lane: Lane, a: u128, b: u128, f: impl Fn(u64, u64) -> u64) -> u128 {
    let mut r = 0u128;
    for i in 0..lane.count() {
        r |= (low(f(lane_get(a, lane, i), lane_get(b, lane, i)), lane.bits()) as u128) << (i * lane.bits());
    }
    r
}

fn mask_if(c: bool) -> u64 {
    if c { u64::MAX } else { 0 }
}

/// The result of a pure operation. `x` holds the arguments zero-extended; `arg_ty` is the type of the first.
/// `None` for operations that are not pure (or [`Op::Param`], [`Op::Call`]).
pub fn eval_pure(func: &Function, inst: &Inst, arg_ty: Type, x: [u128; 3]) -> Option<u128> {
    let bits = bits_of(if inst.ty == Type::Bool { arg_ty } else { inst.ty });
    let (a, b) = (x[0] as u64, x[1] as u64);
    let imm = inst.imm;
    let lane = inst.lane();
    let lb = lane.bits();
    let shift = (b as u32) & (bits.wrapping_sub(1) & 63);
    let int = |v: u64| low(v, bits) as u128;
    Some(match inst.op {
        Op::Const => int(imm),
        Op::ConstV => func.consts.get(imm as usize).copied().unwrap_or(0),
        Op::Copy => x[0],
        Op::Add => int(a.wrapping_add(b)),
        Op::Adc => int(a.wrapping_add(b).wrapping_add(x[2] as u64 & 1)),
        Op::Sub => int(a.wrapping_sub(b)),
        Op::Mul => int(a.wrapping_mul(b)),
        Op::SMulHi => int(((a as i64 as i128 * b as i64 as i128) >> 64) as u64),
        Op::UMulHi => int(((a as u128 * b as u128) >> 64) as u64),
        Op::SDiv => {
            let (sa, sb) = (sext(a, bits), sext(b, bits));
            int(if sb == 0 { 0 } else { sa.wrapping_div(sb) as u64 })
        }
        Op::UDiv => int(a.checked_div(b).unwrap_or(0)),
        Op::And => x[0] & x[1],
        Op::Or => x[0] | x[1],
        Op::Xor => x[0] ^ x[1],
        Op::AndNot => int(a & !b),
        Op::Shl => int(a << shift),
        Op::Shr => int(a >> shift),
        Op::Sar => int((sext(a, bits) >> shift) as u64),
        Op::Rotr => match bits {
            32 => (a as u32).rotate_right(shift) as u128,
            _ => a.rotate_right(shift) as u128,
        },
        Op::Not => int(!a),
        Op::Neg => int(a.wrapping_neg()),
        Op::Clz => (a.leading_zeros() - (64 - bits)) as u128,
        Op::Ctz => a.trailing_zeros().min(bits) as u128,
        Op::Popcnt => a.count_ones() as u128,
        Op::Bswap => match bits {
            32 => (a as u32).swap_bytes() as u128,
            _ => a.swap_bytes() as u128,
        },
        Op::Bswap16 => int(((a & 0x00ff_00ff_00ff_00ff) << 8) | ((a >> 8) & 0x00ff_00ff_00ff_00ff)),
        Op::Bitrev => match bits {
            32 => (a as u32).reverse_bits() as u128,
            _ => a.reverse_bits() as u128,
        },
        Op::Extr => {
            let wide = ((a as u128) << bits) | b as u128;
            int((wide >> (imm as u32 & (bits - 1))) as u64)
        }
        Op::Deposit => {
            let (lsb, width) = (imm as u32 & 63, (imm >> 8) as u32 & 127);
            let mask = low(u64::MAX, width) << lsb;
            int((a & !mask) | ((b << lsb) & mask))
        }
        Op::Sext => int(sext(a, (imm as u32).clamp(1, 64)) as u64),
        Op::Zext => int(low(a, imm as u32)),
        Op::Zext64 | Op::FromBool => x[0],
        Op::Sext64 => a as u32 as i32 as i64 as u64 as u128,
        Op::Trunc => a as u32 as u128,
        Op::ToBool => (a != 0) as u128,
        Op::ICmp => icmp(inst.cond(), a, b, bits) as u128,
        Op::BoolNot => (a ^ 1) as u128,
        Op::Select => {
            if a & 1 != 0 {
                x[1]
            } else {
                x[2]
            }
        }
        Op::Concat => a as u128 | (b as u128) << 64,
        Op::Lo64 => x[0] as u64 as u128,
        Op::Hi64 => x[0] >> 64,
        Op::FlagsAdc | Op::FlagsAdd => {
            let carry = inst.op == Op::FlagsAdc && x[2] & 1 != 0;
            let r = a.wrapping_add(b).wrapping_add(carry.into());
            (flags_adc(a, b, carry, flag_bits(inst, arg_ty)) | low_flags(inst, a, b, r)) as u128
        }
        Op::FlagsSub => flags_adc(a, !b, true, flag_bits(inst, arg_ty)) as u128,
        Op::FlagsCmp | Op::FlagsSbb => {
            let borrow = inst.op == Op::FlagsSbb && x[2] & 1 != 0;
            let r = a.wrapping_sub(b).wrapping_sub(borrow.into());
            (flags_adc(a, !b, !borrow, flag_bits(inst, arg_ty)) ^ flags::C | low_flags(inst, a, b, r)) as u128
        }
        Op::FlagsLogic => {
            let w = flag_bits(inst, arg_ty);
            let a = low(a, w);
            let nz = if a >> (w - 1) & 1 != 0 { flags::N } else { 0 } | if a == 0 { flags::Z } else { 0 };
            (nz | low_flags(inst, a, 0, a)) as u128
        }
        Op::FlagsVTest => {
            let mask = match inst.aux {
                0 => u128::MAX,
                1 => 0x8000_0000_8000_0000_8000_0000_8000_0000,
                _ => 1 << 127 | 1 << 63,
            };
            let flag = |v: u128, f: u32| if v & mask == 0 { f } else { 0 };
            (flag(x[0] & x[1], flags::Z) | flag(x[1] & !x[0], flags::C)) as u128
        }
        Op::VMoveMask => (0..lane.count()).fold(0, |r, i| r | (lane_get(x[0], lane, i) as u128 >> (lb - 1)) << i),
        Op::Simd1 | Op::Simd2 | Op::Simd3 => crate::simd::eval(inst.aux, imm, x),
        Op::Crc32c => {
            let n = (imm as u32).clamp(8, 64);
            let mut c = a as u32;
            for byte in b.to_le_bytes().iter().take(n as usize / 8) {
                c ^= *byte as u32;
                for _ in 0..8 {
                    c = c >> 1 ^ if c & 1 != 0 { 0x82f6_3b78 } else { 0 };
                }
            }
            c as u128
        }
        Op::Order => order(a, b, inst.aux != 0, bits_of(arg_ty)) as u128,
        Op::OrderOf => order_of([x[0], x[1], x[2]].map(|b| b & 1 != 0)) as u128,
        Op::OrderIs => order_is(inst.cond(), a) as u128,
        Op::CondFlags => cond_flags(inst.cond(), a as u32) as u128,
        Op::FlagsFromNzcv => {
            let v = a as u32;
            ((v >> 31 & 1) << 15 | (v >> 30 & 1) << 14 | (v >> 29 & 1) << 8 | (v >> 28 & 1)) as u128
        }
        Op::FlagsToNzcv => {
            let v = a as u32;
            ((v >> 15 & 1) << 31 | (v >> 14 & 1) << 30 | (v >> 8 & 1) << 29 | (v & 1) << 28) as u128
        }
        Op::Bitcast | Op::VFromScalar => x[0],
        Op::VExtract => {
            let i = imm as u32 % lane.count();
            lane_get(x[0], lane, i) as u128
        }
        Op::VInsert => {
            let i = imm as u32 % lane.count();
            let m = (low(u64::MAX, lb) as u128) << (i * lb);
            (x[0] & !m) | ((low(b, lb) as u128) << (i * lb))
        }
        Op::VDup => lanes1(lane, 0, |_| a),
        Op::VZeroHi => a as u128,
        Op::FNeg => x[0] ^ (1u128 << (bits - 1)),
        Op::FAbs => x[0] & !(1u128 << (bits - 1)),
        Op::VAnd => x[0] & x[1],
        Op::VOr => x[0] | x[1],
        Op::VXor => x[0] ^ x[1],
        Op::VAndNot => x[0] & !x[1],
        Op::VNot => !x[0],
        Op::VBsl => (x[0] & x[1]) | (!x[0] & x[2]),
        Op::VAdd => lanes2(lane, x[0], x[1], u64::wrapping_add),
        Op::VSub => lanes2(lane, x[0], x[1], u64::wrapping_sub),
        Op::VMul => lanes2(lane, x[0], x[1], u64::wrapping_mul),
        Op::VNeg => lanes1(lane, x[0], u64::wrapping_neg),
        Op::VAbs => lanes1(lane, x[0], |v| sext(v, lb).wrapping_abs() as u64),
        Op::VMinS => lanes2(lane, x[0], x[1], |p, q| if sext(p, lb) < sext(q, lb) { p } else { q }),
        Op::VMaxS => lanes2(lane, x[0], x[1], |p, q| if sext(p, lb) > sext(q, lb) { p } else { q }),
        Op::VMinU => lanes2(lane, x[0], x[1], u64::min),
        Op::VMaxU => lanes2(lane, x[0], x[1], u64::max),
        Op::VCmpEq => lanes2(lane, x[0], x[1], |p, q| mask_if(p == q)),
        Op::VCmpGtS => lanes2(lane, x[0], x[1], |p, q| mask_if(sext(p, lb) > sext(q, lb))),
        Op::VCmpGtU => lanes2(lane, x[0], x[1], |p, q| mask_if(p > q)),
        Op::VCmpGeS => lanes2(lane, x[0], x[1], |p, q| mask_if(sext(p, lb) >= sext(q, lb))),
        Op::VCmpGeU => lanes2(lane, x[0], x[1], |p, q| mask_if(p >= q)),
        Op::VShl => lanes1(lane, x[0], |v| if imm >= lb as u64 { 0 } else { v << imm }),
        Op::VShr => lanes1(lane, x[0], |v| if imm >= lb as u64 { 0 } else { v >> imm }),
        Op::VSar => lanes1(lane, x[0], |v| (sext(v, lb) >> imm.min(lb as u64 - 1)) as u64),
        Op::VSatAddS => lanes2(lane, x[0], x[1], |p, q| sat_s(sext(p, lb) as i128 + sext(q, lb) as i128, lb)),
        Op::VSatAddU => lanes2(lane, x[0], x[1], |p, q| sat_u(p as i128 + q as i128, lb)),
        Op::VSatSubS => lanes2(lane, x[0], x[1], |p, q| sat_s(sext(p, lb) as i128 - sext(q, lb) as i128, lb)),
        Op::VSatSubU => lanes2(lane, x[0], x[1], |p, q| sat_u(p as i128 - q as i128, lb)),
        Op::VAvgU => lanes2(lane, x[0], x[1], |p, q| ((p as u128 + q as u128 + 1) >> 1) as u64),
        Op::VPopcnt => lanes1(Lane::B, x[0], |v| v.count_ones() as u64),
        Op::VShuffle => {
            let mask = func.consts.get(imm as usize).copied().unwrap_or(0).to_le_bytes();
            let (p, q) = (x[0].to_le_bytes(), x[1].to_le_bytes());
            u128::from_le_bytes(mask.map(|m| match m {
                0..16 => p[m as usize],
                16..32 => q[m as usize - 16],
                _ => 0,
            }))
        }
        Op::VTable => {
            let (p, q) = (x[0].to_le_bytes(), x[1].to_le_bytes());
            u128::from_le_bytes(q.map(|m| p.get(m as usize).copied().unwrap_or(0)))
        }
        Op::VWidenS | Op::VWidenU => {
            let wide = Lane::from_size(lane as u32 + 1);
            let mut r = 0;
            for i in 0..wide.count() {
                let v = lane_get(x[0], lane, i);
                let v = if inst.op == Op::VWidenS { sext(v, lb) as u64 } else { v };
                r |= (low(v, wide.bits()) as u128) << (i * wide.bits());
            }
            r
        }
        Op::VNarrow => {
            let half = lb / 2;
            let mut r = 0;
            for i in 0..lane.count() {
                r |= (low(lane_get(x[0], lane, i), half) as u128) << (i * half);
            }
            r
        }
        Op::VMulWideS | Op::VMulWideU => {
            let wide = Lane::from_size(lane as u32 + 1);
            let mut r = 0;
            for i in 0..wide.count() {
                let (p, q) = (lane_get(x[0], lane, i), lane_get(x[1], lane, i));
                let v = if inst.op == Op::VMulWideS {
                    sext(p, lb).wrapping_mul(sext(q, lb)) as u64
                } else {
                    p.wrapping_mul(q)
                };
                r |= (low(v, wide.bits()) as u128) << (i * wide.bits());
            }
            r
        }
        Op::VAnyTrue => (x[0] != 0) as u128,
        Op::VFNeg => lanes1(lane, x[0], |v| v ^ (1 << (lb - 1))),
        Op::VFAbs => lanes1(lane, x[0], |v| v & !(1 << (lb - 1))),
        _ => return None,
    })
}

fn sat_s(v: i128, bits: u32) -> u64 {
    let max = (1i128 << (bits - 1)) - 1;
    v.clamp(-max - 1, max) as u64
}

fn sat_u(v: i128, bits: u32) -> u64 {
    v.clamp(0, (1i128 << bits) - 1) as u64
}
