//! The instructions of the toy architecture: what a word means, in IR.

use super::guest::*;
use rhea_ir::func::Builder;
use rhea_ir::guest::*;
use rhea_ir::{Cond, Lane, MemOp, Op, RmwOp, Type};

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
            if imm % 4 == 3 {
                // One of eight, or a call of one.
                let next = b.iconst(Type::I64, pc + 4);
                let q = b.get(Toy::X(c));
                let far = b.bin_imm(Op::And, q, 28);
                let t = b.add(next, far);
                if imm & 4 != 0 {
                    b.set(Toy::X(14), next);
                    b.end_indirect_call(t, pc + 4);
                } else {
                    b.end_indirect(t);
                }
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
