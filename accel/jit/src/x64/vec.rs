//! Vector operations and moves between register classes.

use super::emit::Emit;
use super::*;
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::Op;
use rhea_ir::types::{Lane, Type};

const SIGN8: u128 = 0x8080_8080_8080_8080_8080_8080_8080_8080;
const SIGN64: u128 = 0x8000_0000_0000_0000_8000_0000_0000_0000;
const LOW8: u128 = 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;

impl Emit<'_> {
    pub(super) fn vec_op(&mut self, v: Value, i: &Inst) {
        let d = self.dst_xmm(v, X13);
        // Most single instructions read all their operands first.
        let early = matches!(i.op, Op::VAnd | Op::VOr | Op::VXor | Op::VAndNot | Op::VAdd | Op::VSub | Op::VCmpEq);
        let t = if d != X13 && !early && self.aliases_later_arg(i, d, true) { X13 } else { d };
        self.vec_to(i, t);
        self.put_xmm(v, t);
    }

    fn v2(&mut self, i: &Inst) -> (u8, u8) {
        let a = self.xmm(i.args[0], X14);
        let b = self.xmm(i.args[1], X15);
        (a, b)
    }

    fn load_const(&mut self, d: u8, c: u128) {
        if c == 0 {
            self.asm.vpxor(d, d, d);
        } else if c == u128::MAX {
            self.asm.vpcmpeqd(d, d, d);
        } else {
            let l = self.data(c);
            self.asm.vload_label(d, l);
        }
    }

    /// Emits a vector- or FP-typed operation into `d`, which no later argument occupies.
    pub(super) fn vec_to(&mut self, i: &Inst, d: u8) {
        let lane = i.lane();
        match i.op {
            Op::Const => {
                if i.imm == 0 {
                    self.asm.vpxor(d, d, d);
                } else {
                    self.asm.mov_ri(RAX, i.imm);
                    self.asm.vmov_from_gpr(i.ty == Type::F64, d, RAX);
                }
            }
            Op::ConstV => {
                let c = self.f.consts.get(i.imm as usize).copied().unwrap_or(0);
                self.load_const(d, c);
            }
            Op::Copy => {
                let x = self.xmm(i.args[0], d);
                if x != d {
                    self.asm.vmovaps(d, x);
                }
            }
            Op::Select => self.select_vec(i, d),
            Op::Bitcast => {
                let a = i.args[0];
                if self.ty(a).is_int() {
                    let r = self.gpr(a, RAX);
                    self.asm.vmov_from_gpr(self.is64(a), d, r);
                } else {
                    let x = self.xmm(a, d);
                    if x != d {
                        self.asm.vmovaps(d, x);
                    }
                }
            }
            Op::Concat => {
                let lo = self.gpr(i.args[0], RAX);
                let hi = self.gpr(i.args[1], RCX);
                self.asm.vmov_from_gpr(true, d, lo);
                self.asm.vpinsr(8, d, d, hi, 1);
            }
            Op::VFromScalar => {
                let a = i.args[0];
                match self.ty(a) {
                    Type::I32 => {
                        let r = self.gpr(a, RAX);
                        self.asm.vmov_from_gpr(false, d, r);
                    }
                    Type::I64 => {
                        let r = self.gpr(a, RAX);
                        self.asm.vmov_from_gpr(true, d, r);
                    }
                    Type::F32 => {
                        let x = self.xmm(a, X14);
                        self.asm.vinsertps(d, x, x, 0x0e);
                    }
                    _ => {
                        let x = self.xmm(a, X14);
                        self.asm.vmovq(d, x);
                    }
                }
            }
            Op::VZeroHi => {
                let x = self.xmm(i.args[0], X14);
                self.asm.vmovq(d, x);
            }
            Op::VExtract => {
                // F32 or F64 out of a lane.
                let x = self.xmm(i.args[0], X14);
                let n = i.imm as u32 % lane.count();
                match (lane, n) {
                    (_, 0) => {
                        if x != d {
                            self.asm.vmovaps(d, x);
                        }
                    }
                    (Lane::D, _) => self.asm.vpunpckhqdq(d, x, x),
                    (Lane::S, n) => self.asm.vpshufd(d, x, n as u8),
                    (l, n) => {
                        self.asm.vpextr(l.bytes(), RAX, x, n as u8);
                        self.asm.vmov_from_gpr(false, d, RAX);
                    }
                }
            }
            Op::VInsert => self.insert(i, d),
            Op::VDup => self.dup(i, d),
            Op::FNeg | Op::FAbs | Op::VFNeg | Op::VFAbs => {
                let x = self.xmm(i.args[0], X14);
                let dbl = match i.op {
                    Op::FNeg | Op::FAbs => i.ty == Type::F64,
                    _ => lane == Lane::D,
                };
                let half = lane == Lane::H && matches!(i.op, Op::VFNeg | Op::VFAbs);
                let sign = if half {
                    0x8000_8000_8000_8000_8000_8000_8000_8000
                } else if dbl {
                    SIGN64
                } else {
                    0x8000_0000_8000_0000_8000_0000_8000_0000
                };
                let neg = matches!(i.op, Op::FNeg | Op::VFNeg);
                let l = self.data(if neg { sign } else { !sign });
                self.asm.vload_label(X15, l);
                if neg { self.asm.vpxor(d, x, X15) } else { self.asm.vpand(d, x, X15) }
            }
            Op::VAnd => {
                let (a, b) = self.v2(i);
                self.asm.vpand(d, a, b);
            }
            Op::VOr => {
                let (a, b) = self.v2(i);
                self.asm.vpor(d, a, b);
            }
            Op::VXor => {
                let (a, b) = self.v2(i);
                self.asm.vpxor(d, a, b);
            }
            Op::VAndNot => {
                let (a, b) = self.v2(i);
                self.asm.vpandn(d, b, a);
            }
            Op::VNot => {
                let a = self.xmm(i.args[0], X14);
                self.asm.vpcmpeqd(X15, X15, X15);
                self.asm.vpxor(d, a, X15);
            }
            Op::VBsl => {
                // b ^ ((a ^ b) & mask)
                let b = self.xmm(i.args[2], X15);
                let a = self.xmm(i.args[1], X14);
                self.asm.vpxor(X14, a, b);
                let m = self.xmm(i.args[0], X13);
                self.asm.vpand(X14, X14, m);
                self.asm.vpxor(d, X14, b);
            }
            Op::VAdd | Op::VSub => {
                let (a, b) = self.v2(i);
                match (i.op == Op::VAdd, lane) {
                    (true, Lane::B) => self.asm.vpaddb(d, a, b),
                    (true, Lane::H) => self.asm.vpaddw(d, a, b),
                    (true, Lane::S) => self.asm.vpaddd(d, a, b),
                    (true, Lane::D) => self.asm.vpaddq(d, a, b),
                    (false, Lane::B) => self.asm.vpsubb(d, a, b),
                    (false, Lane::H) => self.asm.vpsubw(d, a, b),
                    (false, Lane::S) => self.asm.vpsubd(d, a, b),
                    (false, Lane::D) => self.asm.vpsubq(d, a, b),
                }
            }
            Op::VMul => self.vmul(i, d),
            Op::VNeg => {
                let a = self.xmm(i.args[0], X14);
                self.asm.vpxor(X15, X15, X15);
                match lane {
                    Lane::B => self.asm.vpsubb(d, X15, a),
                    Lane::H => self.asm.vpsubw(d, X15, a),
                    Lane::S => self.asm.vpsubd(d, X15, a),
                    Lane::D => self.asm.vpsubq(d, X15, a),
                }
            }
            Op::VAbs => {
                let a = self.xmm(i.args[0], X14);
                match lane {
                    Lane::B => self.asm.vpabsb(d, a),
                    Lane::H => self.asm.vpabsw(d, a),
                    Lane::S => self.asm.vpabsd(d, a),
                    Lane::D => {
                        self.asm.vpxor(X15, X15, X15);
                        self.asm.vpcmpgtq(X15, X15, a);
                        self.asm.vpxor(X14, a, X15);
                        self.asm.vpsubq(d, X14, X15);
                    }
                }
            }
            Op::VMinS | Op::VMinU | Op::VMaxS | Op::VMaxU => self.minmax(i, d),
            Op::VCmpEq => {
                let (a, b) = self.v2(i);
                match lane {
                    Lane::B => self.asm.vpcmpeqb(d, a, b),
                    Lane::H => self.asm.vpcmpeqw(d, a, b),
                    Lane::S => self.asm.vpcmpeqd(d, a, b),
                    Lane::D => self.asm.vpcmpeqq(d, a, b),
                }
            }
            Op::VCmpGtS | Op::VCmpGeS | Op::VCmpGtU | Op::VCmpGeU => self.compare_lanes(i, d),
            Op::VShl | Op::VShr | Op::VSar => self.vshift(i, d),
            Op::VSatAddS | Op::VSatAddU | Op::VSatSubS | Op::VSatSubU => self.saturate(i, d),
            Op::VAvgU => {
                let (a, b) = self.v2(i);
                match lane {
                    Lane::B => self.asm.vpavgb(d, a, b),
                    Lane::H => self.asm.vpavgw(d, a, b),
                    _ => {
                        // (a | b) - ((a ^ b) >> 1)
                        self.asm.vpor(X13, a, b);
                        self.asm.vpxor(X14, a, b);
                        if lane == Lane::S {
                            self.asm.vpsrld(X14, X14, 1);
                            self.asm.vpsubd(d, X13, X14);
                        } else {
                            self.asm.vpsrlq(X14, X14, 1);
                            self.asm.vpsubq(d, X13, X14);
                        }
                    }
                }
            }
            Op::VPopcnt => {
                let a = self.xmm(i.args[0], X14);
                let low = self.data(0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f);
                let table = self.data(0x0403_0302_0302_0201_0302_0201_0201_0100);
                self.asm.vload_label(X15, low);
                self.asm.vpsrlw(X13, a, 4);
                self.asm.vpand(X13, X13, X15);
                self.asm.vpand(X14, a, X15);
                self.asm.vload_label(X15, table);
                self.asm.vpshufb(X14, X15, X14);
                self.asm.vpshufb(X13, X15, X13);
                self.asm.vpaddb(d, X13, X14);
            }
            Op::VShuffle => self.shuffle(i, d),
            Op::VTable => {
                // Indices of 16 and more give zero: push them past 127 by a saturating add.
                let (a, b) = self.v2(i);
                let l = self.data(0x7070_7070_7070_7070_7070_7070_7070_7070);
                self.asm.vload_label(X13, l);
                self.asm.vpaddusb(X13, X13, b);
                self.asm.vpshufb(d, a, X13);
            }
            Op::VWidenS | Op::VWidenU => {
                let a = self.xmm(i.args[0], X14);
                match (i.op == Op::VWidenS, lane) {
                    (true, Lane::B) => self.asm.vpmovsxbw(d, a),
                    (true, Lane::H) => self.asm.vpmovsxwd(d, a),
                    (true, _) => self.asm.vpmovsxdq(d, a),
                    (false, Lane::B) => self.asm.vpmovzxbw(d, a),
                    (false, Lane::H) => self.asm.vpmovzxwd(d, a),
                    (false, _) => self.asm.vpmovzxdq(d, a),
                }
            }
            Op::VNarrow => {
                let a = self.xmm(i.args[0], X14);
                match lane {
                    Lane::D => {
                        self.asm.vpshufd(d, a, 0x08);
                        self.asm.vmovq(d, d);
                    }
                    _ => {
                        let m = self.data(if lane == Lane::H {
                            0xffff_ffff_ffff_ffff_0e0c_0a08_0604_0200
                        } else {
                            0xffff_ffff_ffff_ffff_0d0c_0908_0504_0100
                        });
                        self.asm.vload_label(X15, m);
                        self.asm.vpshufb(d, a, X15);
                    }
                }
            }
            Op::VMulWideS | Op::VMulWideU => {
                let (a, b) = self.v2(i);
                let s = i.op == Op::VMulWideS;
                match lane {
                    Lane::B => {
                        if s {
                            self.asm.vpmovsxbw(X14, a);
                            self.asm.vpmovsxbw(X15, b);
                        } else {
                            self.asm.vpmovzxbw(X14, a);
                            self.asm.vpmovzxbw(X15, b);
                        }
                        self.asm.vpmullw(d, X14, X15);
                    }
                    Lane::H => {
                        if s {
                            self.asm.vpmovsxwd(X14, a);
                            self.asm.vpmovsxwd(X15, b);
                        } else {
                            self.asm.vpmovzxwd(X14, a);
                            self.asm.vpmovzxwd(X15, b);
                        }
                        self.asm.vpmulld(d, X14, X15);
                    }
                    _ => {
                        self.asm.vpmovzxdq(X14, a);
                        self.asm.vpmovzxdq(X15, b);
                        if s { self.asm.vpmuldq(d, X14, X15) } else { self.asm.vpmuludq(d, X14, X15) }
                    }
                }
            }
            _ => {
                debug_assert!(false, "{} is not a vector operation", i.op.name());
                self.asm.ud2();
            }
        }
    }

    fn insert(&mut self, i: &Inst, d: u8) {
        let lane = i.lane();
        let s = i.args[1];
        let n = (i.imm as u32 % lane.count()) as u8;
        let a = self.xmm(i.args[0], X14);
        if self.ty(s).is_int() {
            let r = self.gpr(s, RAX);
            self.asm.vpinsr(lane.bytes(), d, a, r, n);
            return;
        }
        let x = self.xmm(s, X15);
        match (lane, n) {
            (Lane::S, n) => self.asm.vinsertps(d, a, x, n << 4),
            (Lane::D, 0) => self.asm.vpblendw(d, a, x, 0x0f),
            (Lane::D, _) => self.asm.vpunpcklqdq(d, a, x),
            (l, n) => {
                self.asm.vmov_to_gpr(false, RAX, x);
                self.asm.vpinsr(l.bytes(), d, a, RAX, n);
            }
        }
    }

    fn dup(&mut self, i: &Inst, d: u8) {
        let s = i.args[0];
        let x = if self.ty(s).is_int() {
            let r = self.gpr(s, RAX);
            self.asm.vmov_from_gpr(self.is64(s), d, r);
            d
        } else {
            self.xmm(s, X14)
        };
        match i.lane() {
            Lane::B => self.asm.vpbroadcastb(d, x),
            Lane::H => self.asm.vpbroadcastw(d, x),
            Lane::S => self.asm.vpbroadcastd(d, x),
            Lane::D => self.asm.vpbroadcastq(d, x),
        }
    }

    fn vmul(&mut self, i: &Inst, d: u8) {
        let (a, b) = self.v2(i);
        match i.lane() {
            Lane::H => self.asm.vpmullw(d, a, b),
            Lane::S => self.asm.vpmulld(d, a, b),
            Lane::B => {
                self.asm.vpmullw(X13, a, b);
                self.asm.vpsrlw(X14, a, 8);
                self.asm.vpsrlw(X15, b, 8);
                self.asm.vpmullw(X14, X14, X15);
                self.asm.vpsllw(X14, X14, 8);
                let l = self.data(LOW8);
                self.asm.vload_label(X15, l);
                self.asm.vpand(X13, X13, X15);
                self.asm.vpor(d, X13, X14);
            }
            Lane::D => {
                // lo×lo + ((lo×hi + hi×lo) << 32)
                self.asm.vpsrlq(X13, a, 32);
                self.asm.vpmuludq(X13, X13, b);
                self.asm.vmovaps(RESULT_TMP, X13);
                self.asm.vpsrlq(X13, b, 32);
                self.asm.vpmuludq(X13, X13, a);
                self.asm.vpaddq(X13, X13, RESULT_TMP);
                self.asm.vpsllq(X13, X13, 32);
                self.asm.vpmuludq(RESULT_TMP, a, b);
                self.asm.vpaddq(d, X13, RESULT_TMP);
            }
        }
    }

    fn minmax(&mut self, i: &Inst, d: u8) {
        let (a, b) = self.v2(i);
        match (i.op, i.lane()) {
            (Op::VMinS, Lane::B) => self.asm.vpminsb(d, a, b),
            (Op::VMinS, Lane::H) => self.asm.vpminsw(d, a, b),
            (Op::VMinS, Lane::S) => self.asm.vpminsd(d, a, b),
            (Op::VMinU, Lane::B) => self.asm.vpminub(d, a, b),
            (Op::VMinU, Lane::H) => self.asm.vpminuw(d, a, b),
            (Op::VMinU, Lane::S) => self.asm.vpminud(d, a, b),
            (Op::VMaxS, Lane::B) => self.asm.vpmaxsb(d, a, b),
            (Op::VMaxS, Lane::H) => self.asm.vpmaxsw(d, a, b),
            (Op::VMaxS, Lane::S) => self.asm.vpmaxsd(d, a, b),
            (Op::VMaxU, Lane::B) => self.asm.vpmaxub(d, a, b),
            (Op::VMaxU, Lane::H) => self.asm.vpmaxuw(d, a, b),
            (Op::VMaxU, Lane::S) => self.asm.vpmaxud(d, a, b),
            (op, _) => {
                // X13 = a > b
                let (p, q) = if matches!(op, Op::VMinU | Op::VMaxU) {
                    let l = self.data(SIGN64);
                    self.asm.vload_label(X13, l);
                    self.asm.vpxor(RESULT_TMP, b, X13);
                    self.asm.vpxor(X13, a, X13);
                    (X13, RESULT_TMP)
                } else {
                    (a, b)
                };
                self.asm.vpcmpgtq(X13, p, q);
                if matches!(op, Op::VMinS | Op::VMinU) {
                    self.asm.vblendv(d, a, b, X13);
                } else {
                    self.asm.vblendv(d, b, a, X13);
                }
            }
        }
    }

    fn compare_lanes(&mut self, i: &Inst, d: u8) {
        let (a, b) = self.v2(i);
        let lane = i.lane();
        let unsigned = matches!(i.op, Op::VCmpGtU | Op::VCmpGeU);
        let (p, q) = if unsigned {
            let sign = match lane {
                Lane::B => SIGN8,
                Lane::H => 0x8000_8000_8000_8000_8000_8000_8000_8000,
                Lane::S => 0x8000_0000_8000_0000_8000_0000_8000_0000,
                Lane::D => SIGN64,
            };
            let l = self.data(sign);
            self.asm.vload_label(X13, l);
            self.asm.vpxor(X15, b, X13);
            self.asm.vpxor(X14, a, X13);
            (X14, X15)
        } else {
            (a, b)
        };
        // a >= b is !(b > a).
        let ge = matches!(i.op, Op::VCmpGeS | Op::VCmpGeU);
        let (x, y) = if ge { (q, p) } else { (p, q) };
        match lane {
            Lane::B => self.asm.vpcmpgtb(d, x, y),
            Lane::H => self.asm.vpcmpgtw(d, x, y),
            Lane::S => self.asm.vpcmpgtd(d, x, y),
            Lane::D => self.asm.vpcmpgtq(d, x, y),
        }
        if ge {
            self.asm.vpcmpeqd(RESULT_TMP, RESULT_TMP, RESULT_TMP);
            self.asm.vpxor(d, d, RESULT_TMP);
        }
    }

    fn vshift(&mut self, i: &Inst, d: u8) {
        let a = self.xmm(i.args[0], X14);
        let lane = i.lane();
        let n = i.imm.min(lane.bits() as u64) as u8;
        match (i.op, lane) {
            (Op::VShl, Lane::H) => self.asm.vpsllw(d, a, n),
            (Op::VShl, Lane::S) => self.asm.vpslld(d, a, n),
            (Op::VShl, Lane::D) => self.asm.vpsllq(d, a, n),
            (Op::VShr, Lane::H) => self.asm.vpsrlw(d, a, n),
            (Op::VShr, Lane::S) => self.asm.vpsrld(d, a, n),
            (Op::VShr, Lane::D) => self.asm.vpsrlq(d, a, n),
            (Op::VSar, Lane::H) => self.asm.vpsraw(d, a, n.min(15)),
            (Op::VSar, Lane::S) => self.asm.vpsrad(d, a, n.min(31)),
            (Op::VShl, Lane::B) => {
                if n >= 8 {
                    self.asm.vpxor(d, d, d);
                    return;
                }
                let m = (0xffu8 << n) as u128 * (u128::MAX / 255);
                let l = self.data(m);
                self.asm.vpsllw(X14, a, n);
                self.asm.vload_label(X15, l);
                self.asm.vpand(d, X14, X15);
            }
            (Op::VShr, Lane::B) => {
                if n >= 8 {
                    self.asm.vpxor(d, d, d);
                    return;
                }
                let m = (0xffu8 >> n) as u128 * (u128::MAX / 255);
                let l = self.data(m);
                self.asm.vpsrlw(X14, a, n);
                self.asm.vload_label(X15, l);
                self.asm.vpand(d, X14, X15);
            }
            (_, Lane::B) => {
                // High bytes keep their sign; low bytes go up, down arithmetically, and to their place.
                let n = n.min(7);
                self.asm.vpsraw(X13, a, n);
                self.asm.vpsllw(X15, a, 8);
                self.asm.vpsraw(X15, X15, n + 8);
                self.asm.vmovaps(X14, X15);
                let l = self.data(LOW8);
                self.asm.vload_label(X15, l);
                self.asm.vpand(X14, X14, X15);
                self.asm.vpandn(X13, X15, X13);
                self.asm.vpor(d, X13, X14);
            }
            (_, _) => {
                // Arithmetic shift of 64-bit lanes: logical, then the sign filled in.
                let n = n.min(63);
                self.asm.vpxor(X15, X15, X15);
                self.asm.vpcmpgtq(X15, X15, a);
                self.asm.vpsrlq(X14, a, n);
                if n > 0 {
                    self.asm.vpsllq(X15, X15, 64 - n);
                    self.asm.vpor(d, X14, X15);
                } else {
                    self.asm.vmovaps(d, X14);
                }
            }
        }
    }

    fn saturate(&mut self, i: &Inst, d: u8) {
        let (a, b) = self.v2(i);
        match (i.op, i.lane()) {
            (Op::VSatAddS, Lane::B) => self.asm.vpaddsb(d, a, b),
            (Op::VSatAddS, Lane::H) => self.asm.vpaddsw(d, a, b),
            (Op::VSatAddU, Lane::B) => self.asm.vpaddusb(d, a, b),
            (Op::VSatAddU, Lane::H) => self.asm.vpaddusw(d, a, b),
            (Op::VSatSubS, Lane::B) => self.asm.vpsubsb(d, a, b),
            (Op::VSatSubS, Lane::H) => self.asm.vpsubsw(d, a, b),
            (Op::VSatSubU, Lane::B) => self.asm.vpsubusb(d, a, b),
            (Op::VSatSubU, Lane::H) => self.asm.vpsubusw(d, a, b),
            (op, lane) => {
                let wide = lane == Lane::D;
                let add = |e: &mut Self, d, a, b| if wide { e.asm.vpaddq(d, a, b) } else { e.asm.vpaddd(d, a, b) };
                let sub = |e: &mut Self, d, a, b| if wide { e.asm.vpsubq(d, a, b) } else { e.asm.vpsubd(d, a, b) };
                let gt = |e: &mut Self, d, a, b| if wide { e.asm.vpcmpgtq(d, a, b) } else { e.asm.vpcmpgtd(d, a, b) };
                let sign = self.data(if wide { SIGN64 } else { 0x8000_0000_8000_0000_8000_0000_8000_0000 });
                match op {
                    Op::VSatAddU => {
                        // sum | (a > sum)
                        add(self, RESULT_TMP, a, b);
                        self.asm.vload_label(X13, sign);
                        self.asm.vpxor(X14, a, X13);
                        self.asm.vpxor(X13, RESULT_TMP, X13);
                        gt(self, X13, X14, X13);
                        self.asm.vpor(d, X13, RESULT_TMP);
                    }
                    Op::VSatSubU => {
                        // difference & (a > b)
                        sub(self, RESULT_TMP, a, b);
                        self.asm.vload_label(X13, sign);
                        self.asm.vpxor(X14, a, X13);
                        self.asm.vpxor(X13, b, X13);
                        gt(self, X13, X14, X13);
                        self.asm.vpand(d, X13, RESULT_TMP);
                    }
                    _ => {
                        // Overflow by the signs; the limit is MAX ^ sign of a.
                        let is_add = op == Op::VSatAddS;
                        if is_add {
                            add(self, RESULT_TMP, a, b)
                        } else {
                            sub(self, RESULT_TMP, a, b)
                        }
                        self.asm.vpxor(X13, a, b);
                        self.asm.vpxor(X15, a, RESULT_TMP);
                        if is_add {
                            self.asm.vpandn(X13, X13, X15)
                        } else {
                            self.asm.vpand(X13, X13, X15)
                        }
                        // X13: sign bit set where it overflowed. X15 = limit.
                        self.asm.vpxor(X15, X15, X15);
                        gt(self, X14, X15, a);
                        self.asm.vpcmpeqd(X15, X15, X15);
                        if wide {
                            self.asm.vpsrlq(X15, X15, 1)
                        } else {
                            self.asm.vpsrld(X15, X15, 1)
                        }
                        self.asm.vpxor(X14, X14, X15);
                        self.asm.vpxor(X15, X15, X15);
                        gt(self, X13, X15, X13);
                        self.asm.vblendv(d, RESULT_TMP, X14, X13);
                    }
                }
            }
        }
    }

    fn shuffle(&mut self, i: &Inst, d: u8) {
        let mask = self.f.consts.get(i.imm as usize).copied().unwrap_or(0).to_le_bytes();
        let (va, vb) = (i.args[0], i.args[1]);
        let same = va == vb;
        // Whole-lane patterns the host has single instructions for.
        let a = self.xmm(va, X14);
        if let Some(order) = dword_order(&mask, same) {
            self.asm.vpshufd(d, a, order);
            return;
        }
        let b = if same { a } else { self.xmm(vb, X15) };
        if let Some(n) = extract_shift(&mask, same) {
            self.asm.vpalignr(d, b, a, n);
            return;
        }
        for (lane, high) in [(1, false), (2, false), (4, false), (8, false), (1, true), (2, true), (4, true), (8, true)]
        {
            if is_interleave(&mask, lane, high, same) {
                match (lane, high) {
                    (1, false) => self.asm.vpunpcklbw(d, a, b),
                    (2, false) => self.asm.vpunpcklwd(d, a, b),
                    (4, false) => self.asm.vpunpckldq(d, a, b),
                    (_, false) => self.asm.vpunpcklqdq(d, a, b),
                    (1, true) => self.asm.vpunpckhbw(d, a, b),
                    (2, true) => self.asm.vpunpckhwd(d, a, b),
                    (4, true) => self.asm.vpunpckhdq(d, a, b),
                    (_, true) => self.asm.vpunpckhqdq(d, a, b),
                }
                return;
            }
        }
        let from_a = mask.map(|m| if m < 16 || (same && m < 32) { m & 15 } else { 0x80 });
        let from_b = mask.map(|m| if (16..32).contains(&m) && !same { m & 15 } else { 0x80 });
        let uses_a = from_a.iter().any(|m| *m < 0x80);
        let uses_b = from_b.iter().any(|m| *m < 0x80);
        let la = self.data(u128::from_le_bytes(from_a));
        self.asm.vload_label(X13, la);
        if !uses_b {
            self.asm.vpshufb(d, a, X13);
            return;
        }
        let lb = self.data(u128::from_le_bytes(from_b));
        if uses_a {
            self.asm.vpshufb(X14, a, X13);
            self.asm.vload_label(X13, lb);
            self.asm.vpshufb(X13, b, X13);
            self.asm.vpor(d, X13, X14);
        } else {
            self.asm.vload_label(X13, lb);
            self.asm.vpshufb(d, b, X13);
        }
    }
}

/// A vector register free for three-temporary sequences: the allocator never hands it out.
const RESULT_TMP: u8 = 12;

/// The PSHUFD immediate if the mask moves whole 32-bit lanes of the first operand.
fn dword_order(mask: &[u8; 16], same: bool) -> Option<u8> {
    let mut order = 0;
    for k in 0..4 {
        let first = mask[k * 4];
        let limit = if same { 32 } else { 16 };
        if !first.is_multiple_of(4) || first >= limit {
            return None;
        }
        for j in 1..4 {
            if mask[k * 4 + j] & 15 != (first & 15) + j as u8 || mask[k * 4 + j] >= limit {
                return None;
            }
        }
        order |= (first & 15) / 4 << (k * 2);
    }
    Some(order)
}

/// The byte shift if the mask is sixteen consecutive bytes of `b:a`.
fn extract_shift(mask: &[u8; 16], same: bool) -> Option<u8> {
    let n = mask[0];
    if n > 15 {
        return None;
    }
    let fits = mask.iter().enumerate().all(|(k, &m)| {
        let want = n + k as u8;
        m == want || (same && m < 32 && m & 15 == want & 15)
    });
    fits.then_some(n)
}

fn is_interleave(mask: &[u8; 16], lane: usize, high: bool, same: bool) -> bool {
    let base = if high { 8 } else { 0 };
    (0..16).all(|k| {
        let unit = k / lane;
        let src = base + (unit / 2) * lane + k % lane;
        let want = if unit.is_multiple_of(2) { src } else { src + 16 } as u8;
        mask[k] == want || (same && mask[k] < 32 && mask[k] & 15 == want & 15)
    })
}
