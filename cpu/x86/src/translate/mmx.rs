//! MMX instructions, and SSE instructions on MMX registers alone: 64-bit vectors in the significands of the x87 registers.

use super::{Flow, Translator};
use crate::state::{Seg, gpr};
use crate::x87::{helpers as h, slots, sw};
use iced_x86::{Mnemonic, Register};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Cond, Lane, Op, Type, Value};

/// How an operation of two MMX operands is made from one of 128 bits.
enum Form {
    /// Lane by lane.
    Lanes(Op, Lane),
    /// On 64-bit integers.
    Bits(Op),
    /// The low half of the operation on the low halves.
    Low(SimdOp),
    /// The low half, the first operand's low half being the destination and its high half the source.
    Joined(SimdOp),
    /// The high half of the operation on the low halves.
    High(SimdOp),
    /// A shift: the second operand is the count.
    Shift(SimdOp),
}

fn form(m: Mnemonic) -> Option<Form> {
    use Form::{Bits, High, Joined, Lanes, Low, Shift};
    use Mnemonic::*;
    use SimdOp as S;
    Some(match m {
        Paddb => Lanes(Op::VAdd, Lane::B),
        Paddw => Lanes(Op::VAdd, Lane::H),
        Paddd => Lanes(Op::VAdd, Lane::S),
        Paddq => Bits(Op::Add),
        Psubb => Lanes(Op::VSub, Lane::B),
        Psubw => Lanes(Op::VSub, Lane::H),
        Psubd => Lanes(Op::VSub, Lane::S),
        Psubq => Bits(Op::Sub),
        Paddsb => Lanes(Op::VSatAddS, Lane::B),
        Paddsw => Lanes(Op::VSatAddS, Lane::H),
        Paddusb => Lanes(Op::VSatAddU, Lane::B),
        Paddusw => Lanes(Op::VSatAddU, Lane::H),
        Psubsb => Lanes(Op::VSatSubS, Lane::B),
        Psubsw => Lanes(Op::VSatSubS, Lane::H),
        Psubusb => Lanes(Op::VSatSubU, Lane::B),
        Psubusw => Lanes(Op::VSatSubU, Lane::H),
        Pand => Bits(Op::And),
        Por => Bits(Op::Or),
        Pxor => Bits(Op::Xor),
        Pcmpeqb => Lanes(Op::VCmpEq, Lane::B),
        Pcmpeqw => Lanes(Op::VCmpEq, Lane::H),
        Pcmpeqd => Lanes(Op::VCmpEq, Lane::S),
        Pcmpgtb => Lanes(Op::VCmpGtS, Lane::B),
        Pcmpgtw => Lanes(Op::VCmpGtS, Lane::H),
        Pcmpgtd => Lanes(Op::VCmpGtS, Lane::S),
        Pmullw => Lanes(Op::VMul, Lane::H),
        Pmaxsw => Lanes(Op::VMaxS, Lane::H),
        Pmaxub => Lanes(Op::VMaxU, Lane::B),
        Pminsw => Lanes(Op::VMinS, Lane::H),
        Pminub => Lanes(Op::VMinU, Lane::B),
        Pavgb => Lanes(Op::VAvgU, Lane::B),
        Pavgw => Lanes(Op::VAvgU, Lane::H),
        Pmulhw => Low(S::PMulHW),
        Pmulhuw => Low(S::PMulHUW),
        Pmulhrsw => Low(S::PMulHRsW),
        Pmuludq => Low(S::PMulUDq),
        Pmaddwd => Low(S::PMAddWd),
        Pmaddubsw => Low(S::PMAddUbSw),
        Psadbw => Low(S::PSadBw),
        Psignb => Low(S::PSignB),
        Psignw => Low(S::PSignW),
        Psignd => Low(S::PSignD),
        Punpcklbw => Low(S::UnpckLBw),
        Punpcklwd => Low(S::UnpckLWd),
        Punpckldq => Low(S::UnpckLDq),
        Punpckhbw => High(S::UnpckLBw),
        Punpckhwd => High(S::UnpckLWd),
        Punpckhdq => High(S::UnpckLDq),
        Packsswb => Joined(S::PackSsWb),
        Packssdw => Joined(S::PackSsDw),
        Packuswb => Joined(S::PackUsWb),
        Phaddw => Joined(S::PHAddW),
        Phaddd => Joined(S::PHAddD),
        Phaddsw => Joined(S::PHAddSw),
        Phsubw => Joined(S::PHSubW),
        Phsubd => Joined(S::PHSubD),
        Phsubsw => Joined(S::PHSubSw),
        Psllw => Shift(S::PSllW),
        Pslld => Shift(S::PSllD),
        Psllq => Shift(S::PSllQ),
        Psrlw => Shift(S::PSrlW),
        Psrld => Shift(S::PSrlD),
        Psrlq => Shift(S::PSrlQ),
        Psraw => Shift(S::PSraW),
        Psrad => Shift(S::PSraD),
        _ => return None,
    })
}

impl Translator<'_, '_> {
    pub(super) fn mmx(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        let has = |t: &Self, f: fn(Register) -> bool| {
            (0..t.i.op_count()).any(|n| t.i.op_kind(n) == iced_x86::OpKind::Register && f(t.i.op_register(n)))
        };
        if m != Emms && (!has(self, Register::is_mm) || has(self, Register::is_xmm)) {
            return None;
        }
        if self.mode.x87_nm() {
            return Some(self.end_with(h::MMX_FAULT, &[]));
        }
        // #MF comes before faults of memory operands.
        self.mmx_wait();
        if m == Emms {
            let zero = self.c32(0);
            self.b.set(slots::TAGS, zero);
            self.b.set(slots::TOP, zero);
            return Some(Flow::Next);
        }
        if let Some(form) = form(m) {
            let b = self.mm_source(1);
            let a = self.mm(0);
            let v = self.combine(form, a, b);
            self.set_mm(v);
            return Some(Flow::Next);
        }
        match m {
            Movd | Movq | Movntq => {
                if self.i.op_kind(0) == iced_x86::OpKind::Register && self.i.op_register(0).is_mm() {
                    let v = self.mm_source(1);
                    self.set_mm(v);
                } else {
                    let bits = self.op_bits(0);
                    let v = self.mm(1);
                    let v = if bits == 64 { v } else { self.b.trunc(v) };
                    self.write(0, bits, v);
                    self.mmx_state();
                }
            }
            Pandn => {
                let b = self.mm_source(1);
                let a = self.mm(0);
                let v = self.b.bin(Op::AndNot, b, a);
                self.set_mm(v);
            }
            Pabsb | Pabsw | Pabsd => {
                let lane = match m {
                    Pabsb => Lane::B,
                    Pabsw => Lane::H,
                    _ => Lane::S,
                };
                let b = self.mm_source(1);
                let b = self.b.vfromscalar(b);
                let v = self.b.v1(Op::VAbs, lane, b);
                self.set_mm_low(v);
            }
            Pshufb => {
                let b = self.mm_source(1);
                // Eight bytes: bit 3 of an index does not count.
                let b = self.and_imm(b, 0x8787_8787_8787_8787);
                let a = self.mm(0);
                let v = self.combine(Form::Low(SimdOp::PShufB), a, b);
                self.set_mm(v);
            }
            Pshufw => {
                let b = self.mm_source(1);
                let b = self.b.vfromscalar(b);
                let imm = self.i.immediate8() as u64;
                let v = self.b.simd(SimdOp::PShufLW, Fmt::Ps, &[b], imm);
                self.set_mm_low(v);
            }
            Palignr => {
                let b = self.mm_source(1);
                let a = self.mm(0);
                let n = self.i.immediate8() as u32;
                let joined = self.join(b, a);
                let mask = std::array::from_fn(|k| match k as u32 + n {
                    at if k < 8 && at < 16 => at as u8,
                    _ => 32,
                });
                let v = self.b.shuffle(joined, joined, mask);
                self.set_mm_low(v);
            }
            Pinsrw => {
                let v = if self.is_mem(1) {
                    self.read(1, 16)
                } else {
                    let r = self.i.op_register(1);
                    self.reg(32, r.number() as u32)
                };
                let v = self.b.zext64(v);
                let a = self.mm(0);
                let at = (self.i.immediate8() as u32 & 3) * 16;
                let v = self.deposit(a, v, at, 16);
                self.set_mm(v);
            }
            Pextrw => {
                let a = self.mm(1);
                let v = self.shr(a, (self.i.immediate8() as u32 & 3) * 16);
                let v = self.and_imm(v, 0xffff);
                let r = self.i.op_register(0);
                self.set_r64(r.number() as u32, v);
                self.mmx_state();
            }
            Pmovmskb => {
                let a = self.mm(1);
                let v = self.shr(a, 7);
                let v = self.and_imm(v, 0x0101_0101_0101_0101);
                let v = self.b.bin_imm(Op::Mul, v, 0x0102_0408_1020_4080);
                let v = self.shr(v, 56);
                let r = self.i.op_register(0);
                self.set_r64(r.number() as u32, v);
                self.mmx_state();
            }
            Maskmovq => {
                let (data, mask) = (self.mm(1), self.mm(2));
                let (data, mask) = (self.b.vfromscalar(data), self.b.vfromscalar(mask));
                let bits = match self.i.op0_kind() {
                    iced_x86::OpKind::MemorySegRDI => 64,
                    iced_x86::OpKind::MemorySegEDI => 32,
                    _ => 16,
                };
                let di = self.reg(bits, gpr::RDI);
                let di = self.zx64(di, bits);
                let seg = match self.i.segment_prefix() {
                    Register::None => Seg::Ds,
                    r => super::address::seg_of(r),
                };
                let at = self.masked_bytes(seg, di, 8);
                self.mmx_state();
                self.b.call(super::sse::helpers::MASK_MOVE_BYTES, &[data, mask, at]);
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    fn combine(&mut self, form: Form, a: Value, b: Value) -> Value {
        let v = match form {
            Form::Bits(op) => return self.b.bin(op, a, b),
            Form::Joined(op) => {
                let j = self.join(a, b);
                self.b.simd(op, Fmt::Ps, &[j, j], 0)
            }
            Form::Lanes(op, lane) => {
                let (a, b) = (self.b.vfromscalar(a), self.b.vfromscalar(b));
                self.b.v2(op, lane, a, b)
            }
            Form::Low(op) | Form::Shift(op) => {
                let (a, b) = (self.b.vfromscalar(a), self.b.vfromscalar(b));
                self.b.simd(op, Fmt::Ps, &[a, b], 0)
            }
            Form::High(op) => {
                let (a, b) = (self.b.vfromscalar(a), self.b.vfromscalar(b));
                let v = self.b.simd(op, Fmt::Ps, &[a, b], 0);
                return self.b.vextract(Type::I64, Lane::D, v, 1);
            }
        };
        self.b.vextract(Type::I64, Lane::D, v, 0)
    }
    /// A vector of two halves.
    fn join(&mut self, low: Value, high: Value) -> Value {
        let v = self.b.vfromscalar(low);
        self.b.vinsert(Lane::D, v, 1, high)
    }

    /// #MF if an x87 exception waits.
    pub(super) fn mmx_wait(&mut self) {
        let s = self.b.get(slots::STATUS);
        let es = self.and_imm(s, sw::ES as u64);
        let zero = self.c32(0);
        let pending = self.b.icmp(Cond::Ne, es, zero);
        self.when(pending, -1, |t| {
            t.b.call(h::MMX_WAIT, &[]);
        });
    }
    /// The transition to MMX state: TOP 0, no register empty.
    pub(super) fn mmx_state(&mut self) {
        let (all, zero) = (self.c32(0xff), self.c32(0));
        self.b.set(slots::TAGS, all);
        self.b.set(slots::TOP, zero);
    }
    fn mm(&mut self, n: u32) -> Value {
        let r = self.i.op_register(n).number() as u32;
        self.b.get(slots::mm(r & 7))
    }
    /// A source: MMX register, memory, immediate or general register; I64.
    fn mm_source(&mut self, n: u32) -> Value {
        use iced_x86::OpKind;
        match self.i.op_kind(n) {
            OpKind::Register if self.i.op_register(n).is_mm() => self.mm(n),
            OpKind::Register | OpKind::Memory => {
                let bits = self.op_bits(n);
                let v = self.read(n, bits);
                self.raw64(v)
            }
            _ => self.c64(self.i.immediate8().into()),
        }
    }
    /// Writes operand 0.
    pub(super) fn set_mm(&mut self, v: Value) {
        let r = self.i.op0_register().number() as u32 & 7;
        self.b.set(slots::mm(r), v);
        let ones = self.c32(0xffff);
        self.b.set(slots::sign_exponent(r), ones);
        self.mmx_state();
    }
    fn set_mm_low(&mut self, v: Value) {
        let v = self.b.vextract(Type::I64, Lane::D, v, 0);
        self.set_mm(v);
    }
}
