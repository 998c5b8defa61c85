//! Random programs of a toy instruction set, whose instructions are single IR operations, run by generated code, by
//! optimised regions and by the interpreter: all must end in the same state.

use rhea_accel::Vcpu;
use rhea_ir::env::EnvHeader;
use rhea_ir::func::Builder;
use rhea_ir::guest::*;
use rhea_ir::{Cond, Lane, MemOp, Op, RmwOp, Slot, Type};
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

const DATA: u64 = 0x10000;
const HOLE: u64 = 0x14000;

#[repr(C)]
struct Toy {
    header: EnvHeader,
    x: [u64; 16],
    w: [u32; 8],
    v: [u128; 8],
    d: [u64; 4],
    s: [u32; 4],
    flags: u32,
    done: u32,
    faults: u64,
    calls: u64,
}

extern "C" fn mix(_: &mut Toy, a: u64, b: u64, _: u64, _: u64) -> u64 {
    (a ^ b.rotate_left(13)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
extern "C" fn vmix(t: &mut Toy, _: u64, _: u64, c: u64, _: u64) -> u64 {
    t.header.scratch[7] = t.header.scratch[0].wrapping_add(t.header.scratch[1].rotate_left(7)) ^ c as u128;
    0
}
extern "C" fn touch(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    t.calls = t.calls.wrapping_mul(31).wrapping_add(a ^ t.x[3] ^ t.header.pc);
    t.x[5] = t.x[5].wrapping_add(1);
    t.x[5]
}
extern "C" fn maybe_raise(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    if a & 7 == 0 {
        t.faults = t.faults.wrapping_mul(33) ^ t.header.pc ^ t.x[1];
        t.header.pc += 4;
        t.header.raised = 1;
    }
    a.wrapping_add(1)
}

impl Toy {
    const X: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, x) + 8 * n as usize, Type::I64);
    const W: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, w) + 4 * (n & 7) as usize, Type::I32);
    const V: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, v) + 16 * (n & 7) as usize, Type::V128);
    const D: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, d) + 8 * (n & 3) as usize, Type::F64);
    const S: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, s) + 4 * (n & 3) as usize, Type::F32);
    const FLAGS: Slot = Slot::new(offset_of!(Toy, flags), Type::I32);
    const DONE: Slot = Slot::new(offset_of!(Toy, done), Type::I32);
}

const BIN: [Op; 15] = [
    Op::Add, Op::Sub, Op::Mul, Op::SDiv, Op::UDiv, Op::And, Op::Or, Op::Xor, Op::AndNot, Op::Shl, Op::Shr, Op::Sar,
    Op::Rotr, Op::SMulHi, Op::UMulHi,
];
const UN: [Op; 8] = [Op::Not, Op::Neg, Op::Clz, Op::Ctz, Op::Popcnt, Op::Bswap, Op::Bswap16, Op::Bitrev];
const V2: [Op; 26] = [
    Op::VAnd, Op::VOr, Op::VXor, Op::VAndNot, Op::VAdd, Op::VSub, Op::VMul, Op::VMinS, Op::VMinU, Op::VMaxS, Op::VMaxU,
    Op::VCmpEq, Op::VCmpGtS, Op::VCmpGtU, Op::VCmpGeS, Op::VCmpGeU, Op::VSatAddS, Op::VSatAddU, Op::VSatSubS,
    Op::VSatSubU, Op::VAvgU, Op::VTable, Op::VMulWideS, Op::VMulWideU, Op::VAnd, Op::VOr,
];
const V1: [Op; 9] = [Op::VNot, Op::VNeg, Op::VAbs, Op::VPopcnt, Op::VWidenS, Op::VWidenU, Op::VNarrow, Op::VFNeg, Op::VFAbs];
const F2: [Op; 8] = [Op::FAdd, Op::FSub, Op::FMul, Op::FDiv, Op::FMin, Op::FMax, Op::FMinNum, Op::FMaxNum];
const VF2: [Op; 11] = [
    Op::VFAdd, Op::VFSub, Op::VFMul, Op::VFDiv, Op::VFMin, Op::VFMax, Op::VFMinNum, Op::VFMaxNum, Op::VFCmpEq,
    Op::VFCmpGt, Op::VFCmpGe,
];

fn emit(b: &mut Builder, w: u32, pc: u64) -> bool {
    let (d, a, c, imm) = (w >> 8 & 15, w >> 12 & 15, w >> 16 & 15, w >> 20);
    let lane = Lane::from_size(imm);
    let cond = Cond::from_u32(imm % 14);
    match w & 31 {
        0..=3 => {
            let op = BIN[imm as usize % 15];
            if w & 128 != 0 || op == Op::SMulHi || op == Op::UMulHi {
                let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
                let r = if w & 64 != 0 { b.bin_imm(op, p, (imm as u64).wrapping_mul(0x1_0001_0003) ^ (imm as u64 & 1).wrapping_neg()) } else { b.bin(op, p, q) };
                b.set(Toy::X(d), r);
            } else {
                let (p, q) = (b.get(Toy::W(a)), b.get(Toy::W(c)));
                let r = if w & 64 != 0 { b.bin_imm(op, p, imm as u64 & 0xfff) } else { b.bin(op, p, q) };
                b.set(Toy::W(d), r);
            }
        }
        4 => {
            let op = UN[imm as usize % 8];
            if w & 128 != 0 {
                let p = b.get(Toy::X(a));
                let r = b.un(op, p);
                b.set(Toy::X(d), r);
            } else {
                let p = b.get(Toy::W(a));
                let r = b.un(op, p);
                b.set(Toy::W(d), r);
            }
        }
        5 => {
            let p = b.get(Toy::X(a));
            let q = b.get(Toy::X(c));
            let r = match imm % 6 {
                0 => b.extr(p, q, imm / 6 % 64),
                1 => b.sext(p, [8, 16, 32][imm as usize / 6 % 3]),
                2 => b.zext(p, [8, 16, 32][imm as usize / 6 % 3]),
                3 => {
                    let t = b.trunc(p);
                    b.set(Toy::W(c), t);
                    b.sext64(t)
                }
                4 => {
                    let t = b.get(Toy::W(c));
                    b.zext64(t)
                }
                _ => {
                    let i = b.op2(Op::Concat, Type::I128, p, q, 0, 0);
                    let v = b.bitcast(Type::V128, i);
                    b.set(Toy::V(d), v);
                    b.op1(if imm & 64 != 0 { Op::Lo64 } else { Op::Hi64 }, Type::I64, i, 0, 0)
                }
            };
            b.set(Toy::X(d), r);
        }
        6 => {
            let wide = w & 128 != 0;
            let (p, q) = if wide { (b.get(Toy::X(a)), b.get(Toy::X(c))) } else { (b.get(Toy::W(a)), b.get(Toy::W(c))) };
            let f = match imm % 5 {
                0 => b.op2(Op::FlagsSub, Type::I32, p, q, 0, 0),
                1 => b.op2(Op::FlagsAdd, Type::I32, p, q, 0, 0),
                2 => b.op1(Op::FlagsLogic, Type::I32, p, 0, 0),
                3 => {
                    let fl = b.get(Toy::FLAGS);
                    let carry = b.cond_flags(Cond::Uge, fl);
                    b.op3(Op::FlagsAdc, Type::I32, p, q, carry, 0)
                }
                _ => {
                    let t = b.get(Toy::W(a));
                    b.op1(Op::FlagsFromNzcv, Type::I32, t, 0, 0)
                }
            };
            b.set(Toy::FLAGS, f);
        }
        7 | 8 => {
            let f = b.get(Toy::FLAGS);
            let cv = b.cond_flags(cond, f);
            let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
            let r = if w & 64 != 0 {
                let t = b.op1(Op::FromBool, Type::I64, cv, 0, 0);
                b.add(t, p)
            } else {
                b.select(cv, p, q)
            };
            b.set(Toy::X(d), r);
            if w & 32 != 0 {
                let n = b.op1(Op::FlagsToNzcv, Type::I32, f, 0, 0);
                b.set(Toy::W(d), n);
            }
        }
        9 => {
            let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
            let cv = b.icmp(Cond::from_u32(imm % 10), p, q);
            if w & 64 != 0 {
                let (p, q) = (b.get(Toy::V(a)), b.get(Toy::V(c)));
                let r = b.select(cv, p, q);
                b.set(Toy::V(d), r);
            }
            let t = b.op1(Op::FromBool, Type::I32, cv, 0, 0);
            b.set(Toy::W(d), t);
        }
        10..=13 => {
            // Memory: mostly inside, sometimes across pages or into the hole.
            let p = b.get(Toy::X(a));
            let t = b.bin_imm(Op::And, p, 0x3ff7);
            let t = b.bin_imm(Op::Add, t, DATA + if imm % 61 == 0 { 0x1fff } else { 0 });
            let disp = (imm & 7) as i64 - 2;
            let m = |n: u32| MemOp::new(n, 0);
            match imm >> 3 & 7 {
                0 => {
                    let r = b.load(Type::I64, m(3), t, disp);
                    b.set(Toy::X(d), r);
                }
                1 => {
                    let n = imm >> 6 & 3;
                    let op = if w & 128 != 0 && n < 3 { m(n).signed() } else { m(n.min(2)) };
                    let r = b.load(Type::I64, op.big_endian(imm & 0x100 != 0), t, disp);
                    b.set(Toy::X(d), r);
                }
                2 => {
                    let q = b.get(Toy::X(c));
                    b.store(m(imm >> 6 & 3).big_endian(imm & 0x100 != 0), t, disp, q);
                }
                3 => {
                    let q = b.get(Toy::V(c));
                    b.store(m(4), t, disp, q);
                    let r = b.load(Type::V128, m(4), t, disp + 3);
                    b.set(Toy::V(d), r);
                }
                4 => {
                    let q = b.get(Toy::X(c));
                    let t = b.bin_imm(Op::And, t, !15);
                    let n = imm >> 6 & 3;
                    let r = b.rmw(Type::I64, RmwOp::ALL[imm as usize % 10], m(n), t, q);
                    b.set(Toy::X(d), r);
                }
                5 => {
                    let t = b.bin_imm(Op::And, t, !15);
                    let e = b.get(Toy::X(c));
                    let n = b.get(Toy::X(d));
                    let s = imm >> 6 & 3;
                    let e = if s < 3 { b.zext(e, 8 << s) } else { e };
                    let n = if s < 3 { b.zext(n, 8 << s) } else { n };
                    let r = b.cas(Type::I64, m(s), t, e, n);
                    b.set(Toy::X(d), r);
                }
                6 => {
                    let r = b.load(Type::F64, m(3), t, disp);
                    b.set(Toy::D(d), r);
                    let q = b.get(Toy::S(c));
                    b.store(m(2), t, disp, q);
                }
                _ => {
                    let q = b.get(Toy::W(c));
                    b.store(m(2).align(if w & 128 != 0 { 2 } else { 0 }), t, disp, q);
                }
            }
        }
        14..=16 => {
            let (p, q) = (b.get(Toy::V(a)), b.get(Toy::V(c)));
            let op = V2[imm as usize / 4 % 26];
            let lane = if matches!(op, Op::VMulWideS | Op::VMulWideU) && lane == Lane::D { Lane::S } else { lane };
            let r = b.v2(op, lane, p, q);
            b.set(Toy::V(d), r);
        }
        17 => {
            let p = b.get(Toy::V(a));
            let op = V1[imm as usize / 4 % 9];
            let lane = match (op, lane) {
                (Op::VWidenS | Op::VWidenU, Lane::D) => Lane::S,
                (Op::VNarrow, Lane::B) => Lane::H,
                (Op::VFNeg | Op::VFAbs, Lane::B) => Lane::S,
                (_, l) => l,
            };
            let r = b.v1(op, lane, p);
            b.set(Toy::V(d), r);
        }
        18 => {
            let p = b.get(Toy::V(a));
            let op = [Op::VShl, Op::VShr, Op::VSar][imm as usize / 4 % 3];
            let r = b.v1_imm(op, lane, p, (imm as u64 / 12) % (lane.bits() as u64 + 1));
            b.set(Toy::V(d), r);
        }
        19 => {
            let (p, q) = (b.get(Toy::V(a)), b.get(Toy::V(c)));
            let mut mask = [0u8; 16];
            let kind = imm % 8;
            for (k, m) in mask.iter_mut().enumerate() {
                *m = match kind {
                    0 => (imm as u8).wrapping_mul(k as u8 + 3) % 40,
                    1 => k as u8 + (imm / 8 % 17) as u8,
                    2 => (k as u8 / 2) + if k % 2 == 1 { 16 } else { 0 },
                    3 => 8 + (k as u8 / 4 / 2) * 4 + k as u8 % 4 + if k / 4 % 2 == 1 { 16 } else { 0 },
                    4 => (imm as u8 >> (k / 4 * 2) & 3) * 4 + k as u8 % 4,
                    5 => 16 + (15 - k as u8),
                    6 => k as u8 * 2 % 32,
                    _ => if k < 8 { k as u8 } else { 255 },
                };
            }
            let r = b.shuffle(p, q, mask);
            b.set(Toy::V(d), r);
        }
        20 => {
            let p = b.get(Toy::V(a));
            let r = match imm % 5 {
                0 => {
                    let s = b.get(Toy::X(c));
                    let lane = Lane::from_size(imm / 5);
                    b.vinsert(lane, p, imm / 20 % lane.count(), s)
                }
                1 => {
                    let lane = Lane::from_size(imm / 5);
                    let e = b.vextract(Type::I64, lane, p, imm / 20 % lane.count());
                    b.set(Toy::X(d), e);
                    b.vdup(lane, e)
                }
                2 => {
                    let e = b.vextract(Type::F32, Lane::S, p, imm / 5 % 4);
                    b.set(Toy::S(d), e);
                    b.vfromscalar(e)
                }
                3 => {
                    let e = b.vextract(Type::F64, Lane::D, p, imm / 5 % 2);
                    b.set(Toy::D(d), e);
                    let q = b.get(Toy::V(c));
                    b.vinsert(Lane::D, q, imm / 10 % 2, e)
                }
                _ => {
                    let q = b.get(Toy::V(c));
                    let m = b.get(Toy::V(d));
                    b.v3(Op::VBsl, Lane::B, m, p, q)
                }
            };
            b.set(Toy::V(d), r);
        }
        21 | 22 => {
            let op = F2[imm as usize % 8];
            if w & 128 != 0 {
                let (p, q) = (b.get(Toy::D(a)), b.get(Toy::D(c)));
                let r = b.bin(op, p, q);
                b.set(Toy::D(d), r);
            } else {
                let (p, q) = (b.get(Toy::S(a)), b.get(Toy::S(c)));
                let r = b.bin(op, p, q);
                b.set(Toy::S(d), r);
            }
        }
        23 => {
            let p = b.get(Toy::D(a));
            let q = b.get(Toy::D(c));
            let s = b.get(Toy::S(c));
            match imm % 10 {
                0 => {
                    let f = b.op2(Op::FlagsFCmp, Type::I32, p, q, imm / 10 & 1, 0);
                    b.set(Toy::FLAGS, f);
                }
                1 => {
                    let r = b.op1(Op::FSqrt, Type::F64, p, 0, 0);
                    b.set(Toy::D(d), r);
                }
                2 => {
                    let z = b.get(Toy::D(d));
                    let r = b.op3(Op::FMulAdd, Type::F64, p, q, z, 0);
                    b.set(Toy::D(d), r);
                }
                3 => {
                    let r = b.op1(Op::FNarrow, Type::F32, p, 0, 0);
                    b.set(Toy::S(d), r);
                }
                4 => {
                    let r = b.op1(Op::FExtend, Type::F64, s, 0, 0);
                    b.set(Toy::D(d), r);
                }
                5 => {
                    let r = b.op1(if imm & 16 != 0 { Op::FToS } else { Op::FToU }, Type::I64, p, imm / 32 % 5, 0);
                    b.set(Toy::X(d), r);
                }
                6 => {
                    let r = b.op1(if imm & 16 != 0 { Op::FToS } else { Op::FToU }, Type::I32, s, imm / 32 % 5, 0);
                    b.set(Toy::W(d), r);
                }
                7 => {
                    let t = b.get(Toy::X(a));
                    let r = b.op1(if imm & 16 != 0 { Op::SToF } else { Op::UToF }, Type::F64, t, 0, 0);
                    b.set(Toy::D(d), r);
                }
                8 => {
                    let t = b.get(Toy::W(a));
                    let r = b.op1(if imm & 16 != 0 { Op::SToF } else { Op::UToF }, Type::F32, t, 0, 0);
                    b.set(Toy::S(d), r);
                }
                _ => {
                    let r = b.op1(Op::FRound, Type::F64, p, (imm / 10 % 5) | (imm & 256), 0);
                    b.set(Toy::D(d), r);
                    let f = b.op2(Op::FlagsFCmp, Type::I32, p, q, 0, 0);
                    let cv = b.cond_flags(cond, f);
                    let z = b.select(cv, p, q);
                    b.set(Toy::D(c), z);
                }
            }
        }
        24 => {
            let lane = if imm & 1 != 0 { Lane::S } else { Lane::D };
            let (p, q) = (b.get(Toy::V(a)), b.get(Toy::V(c)));
            let r = match imm / 2 % 16 {
                n @ 0..11 => b.v2(VF2[n as usize], lane, p, q),
                11 => b.v1(Op::VFSqrt, lane, p),
                12 => {
                    let z = b.get(Toy::V(d));
                    b.v3(Op::VFMulAdd, lane, p, q, z)
                }
                13 => b.v1_imm(Op::VFRound, lane, p, (imm / 32 % 4) as u64),
                14 => b.v1_imm(if imm & 64 != 0 { Op::VFToS } else { Op::VFToU }, lane, p, (imm / 32 % 4) as u64),
                _ => b.v1(if imm & 64 != 0 { Op::VSToF } else { Op::VUToF }, lane, p),
            };
            b.set(Toy::V(d), r);
        }
        25 => {
            let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
            match imm % 4 {
                0 => {
                    let r = b.call(HelperId(0), &[p, q]);
                    b.set(Toy::X(d), r);
                }
                1 => {
                    let (y, z) = (b.get(Toy::V(a)), b.get(Toy::V(c)));
                    let r = b.call(HelperId(1), &[y, z, p]);
                    b.set(Toy::V(d), r);
                }
                2 => {
                    let r = b.call(HelperId(2), &[p]);
                    b.set(Toy::X(d), r);
                }
                _ => {
                    let r = b.call(HelperId(3), &[p]);
                    b.set(Toy::X(d), r);
                }
            }
        }
        26 => {
            // A small diamond inside the instruction.
            let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
            let cv = b.icmp(Cond::Ult, p, q);
            let (yes, no, join) = (b.new_block(), b.new_block(), b.new_block());
            b.end_inner_branch(cv, yes, no, 0);
            b.switch_to(yes);
            let p = b.get(Toy::X(a));
            let one = b.bin_imm(Op::Add, p, imm as u64);
            b.set(Toy::X(d), one);
            b.end_inner(join);
            b.switch_to(no);
            let v = b.get(Toy::V(c));
            b.set(Toy::V(d), v);
            b.end_inner(join);
            b.switch_to(join);
        }
        27 => {
            let f = b.op0(Op::FpFlagsGet, Type::I32);
            b.set(Toy::W(d), f);
            if imm & 1 != 0 {
                b.op0(Op::FpFlagsClear, Type::Void);
            }
        }
        28 | 29 => {
            // Loop back, at most x15 times in all.
            let n = b.get(Toy::X(15));
            let m = b.bin_imm(Op::Sub, n, 1);
            b.set(Toy::X(15), m);
            let f = b.op2(Op::FlagsSub, Type::I32, n, m, 0, 0);
            b.set(Toy::FLAGS, f);
            let z = b.iconst(Type::I64, 0);
            let cv = b.icmp(Cond::Sgt, m, z);
            let back = pc.wrapping_sub(4 * (imm as u64 % 24)).max(0x1000);
            b.end_cond(cv, back, pc + 4);
            return true;
        }
        30 => {
            let f = b.get(Toy::FLAGS);
            let cv = b.cond_flags(cond, f);
            b.end_cond(cv, pc + 4 + 4 * (c as u64 % 4), pc + 4);
            return true;
        }
        _ => {
            if imm % 4 == 1 {
                // Call a little ahead.
                let ret = b.iconst(Type::I64, pc + 4);
                b.set(Toy::X(14), ret);
                b.end_call(pc + 4 + 4 * (c as u64 % 8), pc + 4);
                return true;
            }
            if imm % 4 == 2 {
                // Return through x14 if it looks like a code address, at most x15 times in all.
                let n = b.get(Toy::X(15));
                let m = b.bin_imm(Op::Sub, n, 1);
                b.set(Toy::X(15), m);
                let t = b.get(Toy::X(14));
                let off = b.bin_imm(Op::Sub, t, 0x1000);
                let (limit, zero) = (b.iconst(Type::I64, 0x100), b.iconst(Type::I64, 0));
                let inside = b.icmp(Cond::Ult, off, limit);
                let again = b.icmp(Cond::Sgt, m, zero);
                let ok = b.and(inside, again);
                let t = b.bin_imm(Op::And, t, !3);
                let next = b.iconst(Type::I64, pc + 4);
                let t = b.select(ok, t, next);
                b.end_return(t);
                return true;
            }
            // Indirect to the next instruction.
            let n = b.iconst(Type::I64, pc + 4);
            let q = b.get(Toy::X(c));
            let m = b.bin_imm(Op::And, q, 4);
            let t = b.add(n, m);
            b.end_indirect(t);
            return true;
        }
    }
    false
}

impl Guest for Toy {
    const HELPERS: &'static [HelperDesc] = &[
        HelperDesc { name: "mix", func: HelperFn(mix as *const ()), args: &[Type::I64, Type::I64], ret: Type::I64, effects: Effects::PURE },
        HelperDesc {
            name: "vmix",
            func: HelperFn(vmix as *const ()),
            args: &[Type::V128, Type::V128, Type::I64],
            ret: Type::V128,
            effects: Effects::PURE,
        },
        HelperDesc { name: "touch", func: HelperFn(touch as *const ()), args: &[Type::I64], ret: Type::I64, effects: Effects::WRITES_STATE },
        HelperDesc {
            name: "maybe_raise",
            func: HelperFn(maybe_raise as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::RAISES.union(Effects::WRITES_STATE),
        },
    ];
    const ARCH: &'static str = "toy";
    type Config = ();

    fn config(&self) -> Arc<()> {
        Arc::new(())
    }
    fn header(&self) -> &EnvHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut EnvHeader {
        &mut self.header
    }
    fn fp_mode(mode: u64) -> FpMode {
        FpMode { rounding: (mode & 3) as u8, default_nan: mode & 4 != 0, ..FpMode::default() }
    }
    fn fetch_index(_: u64) -> u32 {
        0
    }
    fn translate(_: &(), _: u64, _: u8, code: &[u8], max: u32, b: &mut Builder) -> Translated {
        let mut pc = b.pc();
        let mut n = 0;
        for word in code.chunks_exact(4).take(max as usize) {
            let w = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            b.start_insn(pc);
            n += 4;
            if w == u32::MAX {
                let one = b.iconst(Type::I32, 1);
                b.set(Toy::DONE, one);
                b.end_leave(pc);
                return Translated::Done { bytes: n };
            }
            if emit(b, w, pc) {
                return Translated::Done { bytes: n };
            }
            pc += 4;
        }
        b.end_goto(pc);
        Translated::Done { bytes: n }
    }
    fn walk(&mut self, va: u64, access: Access, _: u32) -> Result<Translation, Raised> {
        if va & !0xfff == HOLE && access != Access::Fetch {
            self.faults = self.faults.wrapping_mul(31) ^ va ^ self.header.pc ^ self.x[2] ^ self.v[1] as u64;
            self.header.pc += 4;
            return Err(Raised);
        }
        Ok(Translation {
            page: Gpa(va & !0xfff & 0xf_ffff),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: false,
            slow: false,
            code_attrs: 0,
        })
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        self.walk(va, Access::Fetch, 0).ok()
    }
    fn alignment_fault(&mut self, a: MemAccess) -> Raised {
        self.faults = self.faults.wrapping_mul(37) ^ a.va ^ self.x[7];
        self.header.pc += 4;
        Raised
    }
    fn bus_fault(&mut self, a: MemAccess) -> Raised {
        self.faults = self.faults.wrapping_mul(41) ^ a.va;
        self.header.pc += 4;
        Raised
    }
    fn check_access(&mut self, _: MemAccess) -> Result<(), Raised> {
        Ok(())
    }
    fn poll(&mut self) -> Poll {
        if self.done != 0 { Poll::Off } else { Poll::Run }
    }
    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        Vec::new()
    }
    fn reset(&mut self) {}
}

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

const SPECIAL: [u64; 12] = [
    0, 0x8000_0000_0000_0000, 0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000, 0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0001,
    0x3ff0_0000_0000_0000, 0x0000_0000_0000_0001, 0x43e0_0000_0000_0000, 0xc3e0_0000_0000_0000, 0x41ef_ffff_ffe0_0000,
    0x7f80_0001_ff80_0000,
];

#[derive(PartialEq, Debug)]
struct End {
    x: [u64; 16],
    w: [u32; 8],
    v: [u128; 8],
    d: [u64; 4],
    s: [u32; 4],
    flags: u32,
    faults: u64,
    calls: u64,
    fp_flags: u32,
    memory: u64,
}

fn run(seed: u64, mode: u64, program: &[u32], options: JitOptions) -> End {
    let space = AddressSpace::new("toy");
    let ram = RamBlock::anonymous("ram", 1 << 20).unwrap();
    let _map = space.map_ram(Gpa(0), &ram, 0, 1 << 20, 0).unwrap();
    let mut rng = Rng(seed);
    for k in 0..0x5000 / 8u64 {
        ram.write(DATA + k * 8, &rng.next().to_le_bytes()).unwrap();
    }
    let bytes: Vec<u8> = program.iter().flat_map(|w| w.to_le_bytes()).collect();
    ram.write(0x1000, &bytes).unwrap();
    let mut t = Box::new(Toy {
        header: EnvHeader::default(),
        x: [0; 16],
        w: [0; 8],
        v: [0; 8],
        d: [0; 4],
        s: [0; 4],
        flags: 0,
        done: 0,
        faults: 0,
        calls: 0,
    });
    let pick = |rng: &mut Rng| {
        let r = rng.next();
        if r & 3 == 0 { SPECIAL[(r >> 8) as usize % 12] } else { rng.next() >> (r >> 20 & 31) }
    };
    t.x = std::array::from_fn(|_| pick(&mut rng));
    t.w = std::array::from_fn(|_| pick(&mut rng) as u32);
    t.v = std::array::from_fn(|_| (pick(&mut rng) as u128) << 64 | pick(&mut rng) as u128);
    t.d = std::array::from_fn(|_| pick(&mut rng));
    t.s = std::array::from_fn(|_| if rng.next() & 1 == 0 { (pick(&mut rng) >> 32) as u32 } else { (rng.next() as f32).to_bits() });
    t.x[15] = 60;
    t.header.pc = 0x1000;
    t.header.mode = mode;
    let vm = JitVm::new(&space, options).unwrap();
    let v = vm.add_vcpu(0, t);
    v.start().unwrap();
    v.resume();
    let start = std::time::Instant::now();
    loop {
        if v.with_guest(|g| g.done != 0) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "seed {seed} does not end");
        std::thread::sleep(Duration::from_micros(100));
    }
    v.stop();
    let mut memory = 0u64;
    let mut page = vec![0u8; 0x5000];
    ram.read(DATA, &mut page).unwrap();
    for b in page {
        memory = memory.wrapping_mul(0x100_0000_01b3) ^ b as u64;
    }
    v.with_guest(|g| End {
        x: g.x,
        w: g.w,
        v: g.v,
        d: g.d,
        s: g.s,
        flags: g.flags,
        faults: g.faults,
        calls: g.calls,
        fp_flags: g.header.fp_flags,
        memory,
    })
}

fn program(seed: u64, only: Option<u32>) -> Vec<u32> {
    let mut rng = Rng(seed ^ 0x5555);
    let len = 10 + rng.next() % 60;
    let mut p: Vec<u32> = (0..len)
        .map(|_| {
            let mut w = rng.next() as u32;
            if let Some(k) = only
                && rng.next() % 4 != 0
            {
                w = w & !31 | k;
            }
            // x15 is the loop counter: only the loop instruction writes it.
            if w >> 8 & 15 == 15 && !matches!(w & 31, 28..=30) {
                w ^= 0x400;
            }
            if w == u32::MAX { 0 } else { w }
        })
        .collect();
    p.extend([u32::MAX; 8]);
    p
}

const TIERS: [(&str, Option<i32>); 2] = [("blocks", None), ("regions", Some(1))];

/// The first tier that differs from the interpreter, with both ends.
fn differs(seed: u64, p: &[u32]) -> Option<(&'static str, End, End)> {
    let mode = seed & 7;
    let want = run(seed, mode, p, JitOptions { interpret: true, ..JitOptions::default() });
    for (name, hot) in TIERS {
        let got = run(seed, mode, p, JitOptions { hot_threshold: hot, code_bytes: 4 << 20, interpret: false });
        if got != want {
            return Some((name, got, want));
        }
    }
    None
}

fn compare(seed: u64, only: Option<u32>) {
    let mut p = program(seed, only);
    if differs(seed, &p).is_none() {
        return;
    }
    // Drop instructions while it still differs.
    let mut k = 0;
    while k < p.len() {
        if p[k] != u32::MAX {
            let mut q = p.clone();
            q.remove(k);
            if differs(seed, &q).is_some() {
                p = q;
                continue;
            }
        }
        k += 1;
    }
    let (name, got, want) = differs(seed, &p).unwrap();
    let words: Vec<String> = p.iter().map(|w| format!("{:2}:{w:08x}", w & 31)).collect();
    let mut f = rhea_ir::Function::new(Toy::fp_mode(seed & 7));
    let id = f.new_block(0x1000);
    let bytes: Vec<u8> = p.iter().flat_map(|w| w.to_le_bytes()).collect();
    Toy::translate(&(), 0, 0, &bytes, 64, &mut Builder::new(&mut f, Toy::HELPERS, id));
    let ops: Vec<String> = f.insts.iter().map(|i| format!("{}.{:?} {:?} aux {} imm {:#x}", i.op.name(), i.ty, i.args(), i.aux, i.imm)).collect();
    panic!("seed {seed} only {only:?} {name}\n got {got:x?}\nwant {want:x?}\n{}\n{}", words.join(" "), ops.join("\n"));
}

#[test]
fn random_programs() {
    let n = std::env::var("TOY_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200u64);
    for seed in 0..n {
        compare(seed, None);
    }
}

#[test]
fn one_class_at_a_time() {
    for k in 0..32 {
        for seed in 0..6 {
            compare(1000 + seed + k as u64 * 100, Some(k));
        }
    }
}
