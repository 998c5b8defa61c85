//! A guest whose instructions are single IR operations, random programs of them, and their end states.
#![allow(dead_code)]

use rhea_ir::env::EnvHeader;
use rhea_ir::func::Builder;
use rhea_ir::guest::*;
use rhea_ir::{Cond, Lane, MemOp, Op, RmwOp, Slot, Type};
use rhea_memory::Gpa;
use std::collections::HashSet;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

/// Data of each vCPU, at the same virtual addresses.
pub const DATA: u64 = 0x10000;
/// The page of data that has no translation.
pub const HOLE: u64 = 0x14000;
/// Data accesses from here on go to the vCPU's own memory.
pub const PRIVATE: u64 = 0x8000;
pub const PRIVATE_BYTES: usize = 0x20000;
pub const RAM: usize = 1 << 20;
/// Instructions a program may have; what follows ends it.
pub const WORDS: usize = 72;
pub const END_WORDS: usize = 24;

/// Physical address of a vCPU's own memory.
pub fn private(index: u32) -> u64 {
    0x40000 + (index as u64) * PRIVATE_BYTES as u64
}

#[repr(C)]
pub struct Toy {
    pub header: EnvHeader,
    pub x: [u64; 32],
    pub w: [u32; 16],
    pub v: [u128; 16],
    pub d: [u64; 8],
    pub s: [u32; 8],
    pub flags: u32,
    pub done: u32,
    pub wfi: u32,
    pub faults: u64,
    pub calls: u64,
    pub index: u32,
    pub flushes: Vec<(TlbFlush, bool)>,
    /// Digests of all states between two instructions; what polls see must be among them.
    pub trace: Option<Arc<HashSet<u64>>>,
    pub strange: Option<String>,
    pub polls: u64,
    /// Somebody kicks for as long as the vCPU runs.
    pub kicked: bool,
}

extern "C" fn mix(_: &mut Toy, a: u64, b: u64, _: u64, _: u64) -> u64 {
    (a ^ b.rotate_left(13)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
extern "C" fn vmix(t: &mut Toy, _: u64, _: u64, c: u64, _: u64) -> u64 {
    t.header.scratch[7] = t.header.scratch[0].wrapping_add(t.header.scratch[1].rotate_left(7)) ^ c as u128;
    0
}
extern "C" fn touch(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    t.calls = t.calls.wrapping_mul(31).wrapping_add(a ^ t.digest());
    t.x[5] = t.x[5].wrapping_add(1);
    t.x[5]
}
extern "C" fn maybe_raise(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    if a & 7 == 0 {
        t.faults = t.faults.wrapping_mul(33) ^ t.digest();
        t.header.pc += 4;
        t.header.raised = 1;
    }
    a.wrapping_add(1)
}

/// Sets the mode's FP bits and goes on at the next instruction.
extern "C" fn set_mode(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    t.calls = t.calls.wrapping_mul(29) ^ t.digest();
    t.header.mode = t.header.mode & !7 | a & 7;
    t.header.pc += 4;
    0
}
/// Asks for TLB flushes, some of them of all vCPUs.
extern "C" fn flush(t: &mut Toy, a: u64, _: u64, _: u64, _: u64) -> u64 {
    let f = match a >> 1 & 3 {
        0 => TlbFlush::All,
        1 => TlbFlush::Indexes(1),
        2 => TlbFlush::Range { va: DATA + (a & 0x3000), pages: 1 + (a >> 8 & 3), indexes: 0xffff, of: Contexts::ALL },
        _ => TlbFlush::Range { va: 0x1000, pages: 4, indexes: 1, of: Contexts::ALL },
    };
    t.flushes.push((f, a & 1 != 0));
    0
}

impl Toy {
    pub fn digest(&self) -> u64 {
        let mut h = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |v: u64| h = (h ^ v).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        add(self.header.pc);
        self.x.iter().for_each(|&v| add(v));
        self.w.iter().for_each(|&v| add(v as u64));
        self.v.iter().for_each(|&v| {
            add(v as u64);
            add((v >> 64) as u64);
        });
        self.d.iter().for_each(|&v| add(v));
        self.s.iter().for_each(|&v| add(v as u64));
        add(self.flags as u64);
        add(self.header.mode);
        h
    }
    const X: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, x) + 8 * n as usize, Type::I64);
    const W: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, w) + 4 * (n & 15) as usize, Type::I32);
    const V: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, v) + 16 * (n & 15) as usize, Type::V128);
    const D: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, d) + 8 * (n & 7) as usize, Type::F64);
    const S: fn(u32) -> Slot = |n| Slot::new(offset_of!(Toy, s) + 4 * (n & 7) as usize, Type::F32);
    const FLAGS: Slot = Slot::new(offset_of!(Toy, flags), Type::I32);
    const WFI: Slot = Slot::new(offset_of!(Toy, wfi), Type::I32);
    const DONE: Slot = Slot::new(offset_of!(Toy, done), Type::I32);
}

const BIN: [Op; 15] = [
    Op::Add,
    Op::Sub,
    Op::Mul,
    Op::SDiv,
    Op::UDiv,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::AndNot,
    Op::Shl,
    Op::Shr,
    Op::Sar,
    Op::Rotr,
    Op::SMulHi,
    Op::UMulHi,
];
const UN: [Op; 8] = [Op::Not, Op::Neg, Op::Clz, Op::Ctz, Op::Popcnt, Op::Bswap, Op::Bswap16, Op::Bitrev];
const V2: [Op; 26] = [
    Op::VAnd,
    Op::VOr,
    Op::VXor,
    Op::VAndNot,
    Op::VAdd,
    Op::VSub,
    Op::VMul,
    Op::VMinS,
    Op::VMinU,
    Op::VMaxS,
    Op::VMaxU,
    Op::VCmpEq,
    Op::VCmpGtS,
    Op::VCmpGtU,
    Op::VCmpGeS,
    Op::VCmpGeU,
    Op::VSatAddS,
    Op::VSatAddU,
    Op::VSatSubS,
    Op::VSatSubU,
    Op::VAvgU,
    Op::VTable,
    Op::VMulWideS,
    Op::VMulWideU,
    Op::VAnd,
    Op::VOr,
];
const V1: [Op; 9] =
    [Op::VNot, Op::VNeg, Op::VAbs, Op::VPopcnt, Op::VWidenS, Op::VWidenU, Op::VNarrow, Op::VFNeg, Op::VFAbs];
const F2: [Op; 8] = [Op::FAdd, Op::FSub, Op::FMul, Op::FDiv, Op::FMin, Op::FMax, Op::FMinNum, Op::FMaxNum];
const VF2: [Op; 11] = [
    Op::VFAdd,
    Op::VFSub,
    Op::VFMul,
    Op::VFDiv,
    Op::VFMin,
    Op::VFMax,
    Op::VFMinNum,
    Op::VFMaxNum,
    Op::VFCmpEq,
    Op::VFCmpGt,
    Op::VFCmpGe,
];

pub fn emit(b: &mut Builder, w: u32, pc: u64) -> bool {
    let imm = w >> 20;
    let (d, a, c) =
        (w >> 8 & 15 | (w >> 5 & 1) << 4, w >> 12 & 15 | (imm >> 11) << 4, w >> 16 & 15 | (imm >> 10 & 1) << 4);
    let base = pc & !0xfff;
    let lane = Lane::from_size(imm);
    let cond = Cond::from_u32(imm % 14);
    match w & 31 {
        0..=3 => {
            let op = BIN[imm as usize % 15];
            if w & 128 != 0 || op == Op::SMulHi || op == Op::UMulHi {
                let (p, q) = (b.get(Toy::X(a)), b.get(Toy::X(c)));
                let r = if w & 64 != 0 {
                    b.bin_imm(op, p, (imm as u64).wrapping_mul(0x1_0001_0003) ^ (imm as u64 & 1).wrapping_neg())
                } else {
                    b.bin(op, p, q)
                };
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
            let t = b.bin_imm(Op::Add, t, DATA + if imm.is_multiple_of(61) { 0x1fff } else { 0 });
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
                    _ => {
                        if k < 8 {
                            k as u8
                        } else {
                            255
                        }
                    }
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
        27 => match imm & 7 {
            0 | 1 => {
                let f = b.op0(Op::FpFlagsGet, Type::I32);
                b.set(Toy::W(d), f);
                if imm & 1 != 0 {
                    b.op0(Op::FpFlagsClear, Type::Void);
                }
            }
            2 => {
                let p = b.get(Toy::X(a));
                b.call(HelperId(4), &[p]);
                b.end_lookup();
                return true;
            }
            3 if imm & 8 != 0 => {
                let one = b.iconst(Type::I32, 1);
                b.set(Toy::WFI, one);
                b.end_leave(pc + 4);
                return true;
            }
            3 | 4 => {
                let p = b.get(Toy::X(a));
                b.call(HelperId(5), &[p]);
            }
            _ => {
                // Stores an instruction near by: a constant one, or one made of a register.
                let at = (pc - base) / 4 + (imm as u64 >> 3 & 15);
                let at = base + at.saturating_sub(6).min(WORDS as u64 - 1) * 4;
                let word = if imm & 7 == 5 {
                    let r = b.get(Toy::W(a));
                    let r = b.bin_imm(Op::And, r, !0x41f);
                    b.bin_imm(Op::Or, r, (c % 27) as u64)
                } else {
                    let z = (w as u64 ^ pc << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    b.iconst(Type::I32, sane((z ^ z >> 29) as u32) as u64)
                };
                let p = b.iconst(Type::I64, at);
                b.store(MemOp::new(2, 0), p, 0, word);
            }
        },
        28 | 29 => {
            // Loop back, at most x15 times in all.
            let n = b.get(Toy::X(15));
            let m = b.bin_imm(Op::Sub, n, 1);
            b.set(Toy::X(15), m);
            let f = b.op2(Op::FlagsSub, Type::I32, n, m, 0, 0);
            b.set(Toy::FLAGS, f);
            let z = b.iconst(Type::I64, 0);
            let cv = b.icmp(Cond::Sgt, m, z);
            let back = pc.wrapping_sub(4 * (imm as u64 % 24)).max(base);
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
                let off = b.bin_imm(Op::Sub, t, base);
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

/// A word that does not write the loop counter x15 but as loops do, nor ends the program.
pub fn sane(mut w: u32) -> u32 {
    if w >> 8 & 15 == 15 && w & 32 == 0 && !matches!(w & 31, 28..=30) {
        w ^= 0x400;
    }
    if w == u32::MAX { 0 } else { w }
}

impl Guest for Toy {
    const HELPERS: &'static [HelperDesc] = &[
        HelperDesc {
            name: "mix",
            func: HelperFn(mix as *const ()),
            args: &[Type::I64, Type::I64],
            ret: Type::I64,
            effects: Effects::PURE,
        },
        HelperDesc {
            name: "vmix",
            func: HelperFn(vmix as *const ()),
            args: &[Type::V128, Type::V128, Type::I64],
            ret: Type::V128,
            effects: Effects::PURE,
        },
        HelperDesc {
            name: "touch",
            func: HelperFn(touch as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::WRITES_STATE,
        },
        HelperDesc {
            name: "maybe_raise",
            func: HelperFn(maybe_raise as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::RAISES.union(Effects::WRITES_STATE),
        },
        HelperDesc {
            name: "set_mode",
            func: HelperFn(set_mode as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::WRITES_STATE,
        },
        HelperDesc {
            name: "flush",
            func: HelperFn(flush as *const ()),
            args: &[Type::I64],
            ret: Type::I64,
            effects: Effects::READS_STATE,
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
            self.faults = self.faults.wrapping_mul(31) ^ va ^ self.digest();
            self.header.pc += 4;
            return Err(Raised);
        }
        let page = va & !0xfff & 0x1_ffff;
        let page = if page >= PRIVATE { private(self.index) + page } else { page };
        Ok(Translation {
            page: Gpa(page),
            readable: true,
            writable: true,
            executable: true,
            device: false,
            secure: false,
            slow: false,
            global: true,
            code_attrs: 0,
        })
    }
    fn walk_debug(&mut self, va: u64) -> Option<Translation> {
        self.walk(va, Access::Fetch, 0).ok()
    }
    fn alignment_fault(&mut self, a: MemAccess) -> Raised {
        self.faults = self.faults.wrapping_mul(37) ^ a.va ^ self.digest();
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
        self.polls += 1;
        if self.done == 0
            && self.strange.is_none()
            && let Some(t) = &self.trace
            && !t.contains(&self.digest())
        {
            self.strange = Some(format!("a state at {:#x} that never was", self.header.pc));
        }
        if self.done != 0 {
            return Poll::Off;
        }
        if std::mem::take(&mut self.wfi) != 0 {
            return Poll::Halt(if self.kicked { None } else { Some(Duration::from_micros(20)) });
        }
        Poll::Run
    }
    fn take_flushes(&mut self) -> Vec<(TlbFlush, bool)> {
        std::mem::take(&mut self.flushes)
    }
    fn reset(&mut self) {}
}

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

pub const SPECIAL: [u64; 12] = [
    0,
    0x8000_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0x3ff0_0000_0000_0000,
    0x0000_0000_0000_0001,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x41ef_ffff_ffe0_0000,
    0x7f80_0001_ff80_0000,
];

impl Toy {
    pub fn new(seed: u64, mode: u64, base: u64, index: u32) -> Box<Toy> {
        let mut rng = Rng(seed);
        let pick = |rng: &mut Rng| {
            let r = rng.next();
            if r & 3 == 0 { SPECIAL[(r >> 8) as usize % 12] } else { rng.next() >> (r >> 20 & 31) }
        };
        let mut t = Box::new(Toy {
            header: EnvHeader::default(),
            x: std::array::from_fn(|_| pick(&mut rng)),
            w: std::array::from_fn(|_| pick(&mut rng) as u32),
            v: std::array::from_fn(|_| (pick(&mut rng) as u128) << 64 | pick(&mut rng) as u128),
            d: std::array::from_fn(|_| pick(&mut rng)),
            s: std::array::from_fn(|_| {
                if rng.next() & 1 == 0 { (pick(&mut rng) >> 32) as u32 } else { (rng.next() as f32).to_bits() }
            }),
            flags: 0,
            done: 0,
            wfi: 0,
            faults: 0,
            calls: 0,
            index,
            flushes: Vec::new(),
            trace: None,
            strange: None,
            polls: 0,
            kicked: false,
        });
        t.x[15] = 60;
        t.header.pc = base;
        t.header.mode = mode;
        t
    }

    /// What a vCPU's own memory starts as.
    pub fn memory(seed: u64) -> Vec<u8> {
        let mut rng = Rng(!seed);
        (0..PRIVATE_BYTES / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
    }

    pub fn end(&self, memory: &[u8]) -> End {
        let hash = memory.iter().fold(0u64, |h, &b| h.wrapping_mul(0x100_0000_01b3) ^ b as u64);
        End {
            x: self.x,
            w: self.w,
            v: self.v,
            d: self.d,
            s: self.s,
            flags: self.flags,
            faults: self.faults,
            calls: self.calls,
            fp_flags: self.header.fp_flags,
            memory: hash,
        }
    }
}

#[derive(PartialEq, Debug, Clone)]
pub struct End {
    pub x: [u64; 32],
    pub w: [u32; 16],
    pub v: [u128; 16],
    pub d: [u64; 8],
    pub s: [u32; 8],
    pub flags: u32,
    pub faults: u64,
    pub calls: u64,
    pub fp_flags: u32,
    pub memory: u64,
}

/// What a program may contain.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Style {
    /// Mostly instructions of this class.
    pub only: Option<u32>,
    /// Stores into its own code.
    pub modifies: bool,
}

pub fn program(seed: u64, style: Style) -> Vec<u32> {
    let mut rng = Rng(seed ^ 0x5555);
    let len = 10 + rng.next() % (WORDS as u64 - 12);
    let mut p: Vec<u32> = (0..len)
        .map(|_| {
            let mut w = rng.next() as u32;
            if let Some(k) = style.only
                && !rng.next().is_multiple_of(4)
            {
                w = w & !31 | k;
            }
            if style.modifies && rng.next().is_multiple_of(12) {
                w = w & !31 & !(7 << 20) | 27 | (5 + rng.next() as u32 % 3) << 20;
            }
            if !style.modifies && w & 31 == 27 && w >> 20 & 7 >= 5 {
                w &= !(4 << 20);
            }
            sane(w)
        })
        .collect();
    p.resize(WORDS + END_WORDS, u32::MAX);
    p
}

/// The reference: one instruction at a time in the interpreter. The end, the code, and the digests of all states.
pub fn oracle(seed: u64, mode: u64, base: u64, program: &[u32]) -> (End, Vec<u8>, HashSet<u64>) {
    let mut t = Toy::new(seed, mode, base, 0);
    let code: Vec<u8> = program.iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut m = Reference { code, base, own: Toy::memory(seed) };
    let mut trace = HashSet::new();
    let mut steps = 0;
    while t.done == 0 {
        trace.insert(t.digest());
        steps += 1;
        assert!(steps < 100_000, "seed {seed} does not end");
        let pc = t.header.pc;
        let at = (pc - base) as usize;
        let mut f = rhea_ir::Function::new(Toy::fp_mode(t.header.mode));
        let id = f.new_block(pc);
        let mut b = Builder::new(&mut f, Toy::HELPERS, id);
        Toy::translate(&(), t.header.mode, 0, &m.code[at..at + 4], 1, &mut b);
        rhea_ir::promote::promote(&mut f, Toy::HELPERS).expect("few slots");
        rhea_ir::interp::run(&f, &mut *t, &mut m);
        t.header.raised = 0;
    }
    (t.end(&m.own), m.code, trace)
}

struct Reference {
    code: Vec<u8>,
    base: u64,
    own: Vec<u8>,
}

impl Reference {
    fn byte(&mut self, va: u64) -> &mut u8 {
        if va & 0x1_ffff >= PRIVATE {
            return &mut self.own[(va & 0x1_ffff) as usize];
        }
        let at = (va - self.base) as usize;
        &mut self.code[at]
    }
    fn check(&mut self, t: &mut Toy, va: u64, m: MemOp, kind: Access) -> Result<(), Raised> {
        if va & ((1 << m.align_log2()) - 1) != 0 {
            return Err(t.alignment_fault(MemAccess { va, size: m.bytes(), kind, mmu_idx: 0 }));
        }
        t.walk(va, kind, 0)?;
        let last = va + m.bytes() as u64 - 1;
        if last & !0xfff != va & !0xfff {
            t.walk(last & !0xfff, kind, 0)?;
        }
        Ok(())
    }
    fn read(&mut self, va: u64, m: MemOp) -> u128 {
        let mut b = [0; 16];
        for (k, x) in b.iter_mut().enumerate().take(m.bytes() as usize) {
            *x = *self.byte(va + k as u64);
        }
        let v = u128::from_le_bytes(b);
        if m.is_big_endian() { v.swap_bytes() >> (128 - 8 * m.bytes()) } else { v }
    }
    fn write(&mut self, va: u64, m: MemOp, v: u128) {
        let n = m.bytes();
        let v = if m.is_big_endian() { v.swap_bytes() >> (128 - 8 * n) } else { v };
        for k in 0..n {
            *self.byte(va + k as u64) = (v >> (8 * k)) as u8;
        }
    }
    fn low(v: u128, m: MemOp) -> u128 {
        v & (u128::MAX >> (128 - 8 * m.bytes()))
    }
}

impl rhea_ir::interp::Memory<Toy> for Reference {
    fn load(&mut self, t: &mut Toy, va: u64, m: MemOp) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Read)?;
        Ok(self.read(va, m))
    }
    fn store(&mut self, t: &mut Toy, va: u64, m: MemOp, v: u128) -> Result<(), Raised> {
        self.check(t, va, m, Access::Write)?;
        self.write(va, m, Self::low(v, m));
        Ok(())
    }
    fn rmw(&mut self, t: &mut Toy, va: u64, m: MemOp, v: u128) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Write)?;
        let old = self.read(va, m);
        let bits = m.bytes() * 8;
        let (uo, uv) = (old as u64, Self::low(v, m) as u64);
        let (so, sv) = (rhea_ir::eval::sext(uo, bits), rhea_ir::eval::sext(uv, bits));
        let new = match m.rmw_op() {
            RmwOp::Add => uo.wrapping_add(uv),
            RmwOp::And => uo & uv,
            RmwOp::Clr => uo & !uv,
            RmwOp::Xor => uo ^ uv,
            RmwOp::Or => uo | uv,
            RmwOp::Xchg => uv,
            RmwOp::SMax => so.max(sv) as u64,
            RmwOp::SMin => so.min(sv) as u64,
            RmwOp::UMax => uo.max(uv),
            RmwOp::UMin => uo.min(uv),
        };
        self.write(va, m, Self::low(new as u128, m));
        Ok(old)
    }
    fn cas(&mut self, t: &mut Toy, va: u64, m: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        self.check(t, va, m, Access::Write)?;
        let old = self.read(va, m);
        if old == Self::low(expected, m) {
            self.write(va, m, Self::low(new, m));
        }
        Ok(old)
    }
    fn probe_write(&mut self, t: &mut Toy, va: u64, m: MemOp) -> Result<(), Raised> {
        self.check(t, va, m, Access::Write)
    }
}
