//! Operations on lanes: integer and floating-point arithmetic, logic, shifts, compares, packs and shuffles within 128 bits.

use super::super::{Flow, Translator};
use super::Halves;
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Lane, Op, Type, Value};

/// How an instruction computes its result from its sources.
#[derive(Clone, Copy)]
enum Kind {
    /// Two sources.
    V2(Op, Lane),
    /// The same with the sources swapped.
    V2r(Op, Lane),
    V1(Op, Lane),
    S2(SimdOp),
    S1(SimdOp),
    /// With an immediate.
    S2i(SimdOp),
    S1i(SimdOp),
    F2(SimdOp, Fmt),
    F2i(SimdOp, Fmt),
    /// One source; the scalar forms merge into the first.
    F1(SimdOp, Fmt),
    F1i(SimdOp, Fmt),
    /// Shift by an immediate or a register.
    Shift(Op, Lane, SimdOp),
}

macro_rules! table {
    ($m:expr; $($($name:ident)|+ => $kind:expr;)*) => {
        Some(match $m {
            $($(Mnemonic::$name)|+ => $kind,)*
            _ => return None,
        })
    };
}

fn kind(m: Mnemonic) -> Option<Kind> {
    use Fmt::{Pd, Ps, Sd, Ss};
    use Kind::*;
    use Lane::{B, D, H, S};
    use Op::*;
    use SimdOp as O;
    table! { m;
        Paddb | Vpaddb => V2(VAdd, B);
        Paddw | Vpaddw => V2(VAdd, H);
        Paddd | Vpaddd => V2(VAdd, S);
        Paddq | Vpaddq => V2(VAdd, D);
        Psubb | Vpsubb => V2(VSub, B);
        Psubw | Vpsubw => V2(VSub, H);
        Psubd | Vpsubd => V2(VSub, S);
        Psubq | Vpsubq => V2(VSub, D);
        Pmullw | Vpmullw => V2(VMul, H);
        Pmulld | Vpmulld => V2(VMul, S);
        Paddsb | Vpaddsb => V2(VSatAddS, B);
        Paddsw | Vpaddsw => V2(VSatAddS, H);
        Paddusb | Vpaddusb => V2(VSatAddU, B);
        Paddusw | Vpaddusw => V2(VSatAddU, H);
        Psubsb | Vpsubsb => V2(VSatSubS, B);
        Psubsw | Vpsubsw => V2(VSatSubS, H);
        Psubusb | Vpsubusb => V2(VSatSubU, B);
        Psubusw | Vpsubusw => V2(VSatSubU, H);
        Pavgb | Vpavgb => V2(VAvgU, B);
        Pavgw | Vpavgw => V2(VAvgU, H);
        Pminsb | Vpminsb => V2(VMinS, B);
        Pminsw | Vpminsw => V2(VMinS, H);
        Pminsd | Vpminsd => V2(VMinS, S);
        Pminub | Vpminub => V2(VMinU, B);
        Pminuw | Vpminuw => V2(VMinU, H);
        Pminud | Vpminud => V2(VMinU, S);
        Pmaxsb | Vpmaxsb => V2(VMaxS, B);
        Pmaxsw | Vpmaxsw => V2(VMaxS, H);
        Pmaxsd | Vpmaxsd => V2(VMaxS, S);
        Pmaxub | Vpmaxub => V2(VMaxU, B);
        Pmaxuw | Vpmaxuw => V2(VMaxU, H);
        Pmaxud | Vpmaxud => V2(VMaxU, S);
        Pcmpeqb | Vpcmpeqb => V2(VCmpEq, B);
        Pcmpeqw | Vpcmpeqw => V2(VCmpEq, H);
        Pcmpeqd | Vpcmpeqd => V2(VCmpEq, S);
        Pcmpeqq | Vpcmpeqq => V2(VCmpEq, D);
        Pcmpgtb | Vpcmpgtb => V2(VCmpGtS, B);
        Pcmpgtw | Vpcmpgtw => V2(VCmpGtS, H);
        Pcmpgtd | Vpcmpgtd => V2(VCmpGtS, S);
        Pcmpgtq | Vpcmpgtq => V2(VCmpGtS, D);
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => V2(VAnd, B);
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => V2(VOr, B);
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => V2(VXor, B);
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => V2r(VAndNot, B);
        Pabsb | Vpabsb => V1(VAbs, B);
        Pabsw | Vpabsw => V1(VAbs, H);
        Pabsd | Vpabsd => V1(VAbs, S);
        Psllw | Vpsllw => Shift(VShl, H, O::PSllW);
        Pslld | Vpslld => Shift(VShl, S, O::PSllD);
        Psllq | Vpsllq => Shift(VShl, D, O::PSllQ);
        Psrlw | Vpsrlw => Shift(VShr, H, O::PSrlW);
        Psrld | Vpsrld => Shift(VShr, S, O::PSrlD);
        Psrlq | Vpsrlq => Shift(VShr, D, O::PSrlQ);
        Psraw | Vpsraw => Shift(VSar, H, O::PSraW);
        Psrad | Vpsrad => Shift(VSar, S, O::PSraD);
        Vpsllvd => S2(O::PSllVD);
        Vpsllvq => S2(O::PSllVQ);
        Vpsrlvd => S2(O::PSrlVD);
        Vpsrlvq => S2(O::PSrlVQ);
        Vpsravd => S2(O::PSraVD);
        Packsswb | Vpacksswb => S2(O::PackSsWb);
        Packssdw | Vpackssdw => S2(O::PackSsDw);
        Packuswb | Vpackuswb => S2(O::PackUsWb);
        Packusdw | Vpackusdw => S2(O::PackUsDw);
        Punpcklbw | Vpunpcklbw => S2(O::UnpckLBw);
        Punpcklwd | Vpunpcklwd => S2(O::UnpckLWd);
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => S2(O::UnpckLDq);
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => S2(O::UnpckLQdq);
        Punpckhbw | Vpunpckhbw => S2(O::UnpckHBw);
        Punpckhwd | Vpunpckhwd => S2(O::UnpckHWd);
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => S2(O::UnpckHDq);
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => S2(O::UnpckHQdq);
        Pmulhw | Vpmulhw => S2(O::PMulHW);
        Pmulhuw | Vpmulhuw => S2(O::PMulHUW);
        Pmulhrsw | Vpmulhrsw => S2(O::PMulHRsW);
        Pmuludq | Vpmuludq => S2(O::PMulUDq);
        Pmuldq | Vpmuldq => S2(O::PMulDq);
        Pmaddwd | Vpmaddwd => S2(O::PMAddWd);
        Pmaddubsw | Vpmaddubsw => S2(O::PMAddUbSw);
        Psadbw | Vpsadbw => S2(O::PSadBw);
        Pshufb | Vpshufb => S2(O::PShufB);
        Phaddw | Vphaddw => S2(O::PHAddW);
        Phaddd | Vphaddd => S2(O::PHAddD);
        Phaddsw | Vphaddsw => S2(O::PHAddSw);
        Phsubw | Vphsubw => S2(O::PHSubW);
        Phsubd | Vphsubd => S2(O::PHSubD);
        Phsubsw | Vphsubsw => S2(O::PHSubSw);
        Psignb | Vpsignb => S2(O::PSignB);
        Psignw | Vpsignw => S2(O::PSignW);
        Psignd | Vpsignd => S2(O::PSignD);
        Pslldq | Vpslldq => S1i(O::PSllDq);
        Psrldq | Vpsrldq => S1i(O::PSrlDq);
        Palignr | Vpalignr => S2i(O::PAlignR);
        Pblendw | Vpblendw => S2i(O::PBlendW);
        Pclmulqdq | Vpclmulqdq => S2i(O::PClMulQdq);
        Shufps | Vshufps => S2i(O::ShufPs);
        Pshufd | Vpshufd => S1i(O::PShufD);
        Pshuflw | Vpshuflw => S1i(O::PShufLW);
        Pshufhw | Vpshufhw => S1i(O::PShufHW);
        Phminposuw | Vphminposuw => S1(O::PHMinPosUw);
        Movsldup | Vmovsldup => S1(O::MovSLDup);
        Movshdup | Vmovshdup => S1(O::MovSHDup);
        Aesenc | Vaesenc => S2(O::AesEnc);
        Aesenclast | Vaesenclast => S2(O::AesEncLast);
        Aesdec | Vaesdec => S2(O::AesDec);
        Aesdeclast | Vaesdeclast => S2(O::AesDecLast);
        Aesimc | Vaesimc => S1(O::AesImc);
        Aeskeygenassist | Vaeskeygenassist => S1i(O::AesKeyGen);
        Sha1nexte => S2(O::Sha1NextE);
        Sha1msg1 => S2(O::Sha1Msg1);
        Sha1msg2 => S2(O::Sha1Msg2);
        Sha1rnds4 => S2i(O::Sha1Rnds4);
        Sha256msg1 => S2(O::Sha256Msg1);
        Sha256msg2 => S2(O::Sha256Msg2);
        Gf2p8mulb | Vgf2p8mulb => S2(O::Gf2p8MulB);
        Gf2p8affineqb | Vgf2p8affineqb => S2i(O::Gf2p8AffineQb);
        Gf2p8affineinvqb | Vgf2p8affineinvqb => S2i(O::Gf2p8AffineInvQb);
        Addps | Vaddps => F2(O::Add, Ps);
        Addpd | Vaddpd => F2(O::Add, Pd);
        Addss | Vaddss => F2(O::Add, Ss);
        Addsd | Vaddsd => F2(O::Add, Sd);
        Subps | Vsubps => F2(O::Sub, Ps);
        Subpd | Vsubpd => F2(O::Sub, Pd);
        Subss | Vsubss => F2(O::Sub, Ss);
        Subsd | Vsubsd => F2(O::Sub, Sd);
        Mulps | Vmulps => F2(O::Mul, Ps);
        Mulpd | Vmulpd => F2(O::Mul, Pd);
        Mulss | Vmulss => F2(O::Mul, Ss);
        Mulsd | Vmulsd => F2(O::Mul, Sd);
        Divps | Vdivps => F2(O::Div, Ps);
        Divpd | Vdivpd => F2(O::Div, Pd);
        Divss | Vdivss => F2(O::Div, Ss);
        Divsd | Vdivsd => F2(O::Div, Sd);
        Minps | Vminps => F2(O::Min, Ps);
        Minpd | Vminpd => F2(O::Min, Pd);
        Minss | Vminss => F2(O::Min, Ss);
        Minsd | Vminsd => F2(O::Min, Sd);
        Maxps | Vmaxps => F2(O::Max, Ps);
        Maxpd | Vmaxpd => F2(O::Max, Pd);
        Maxss | Vmaxss => F2(O::Max, Ss);
        Maxsd | Vmaxsd => F2(O::Max, Sd);
        Sqrtps | Vsqrtps => F1(O::Sqrt, Ps);
        Sqrtpd | Vsqrtpd => F1(O::Sqrt, Pd);
        Sqrtss | Vsqrtss => F1(O::Sqrt, Ss);
        Sqrtsd | Vsqrtsd => F1(O::Sqrt, Sd);
        Rcpps | Vrcpps => F1(O::Rcp, Ps);
        Rcpss | Vrcpss => F1(O::Rcp, Ss);
        Rsqrtps | Vrsqrtps => F1(O::Rsqrt, Ps);
        Rsqrtss | Vrsqrtss => F1(O::Rsqrt, Ss);
        Roundps | Vroundps => F1i(O::Round, Ps);
        Roundpd | Vroundpd => F1i(O::Round, Pd);
        Roundss | Vroundss => F1i(O::Round, Ss);
        Roundsd | Vroundsd => F1i(O::Round, Sd);
        Cmpps | Vcmpps => F2i(O::Cmp, Ps);
        Cmppd | Vcmppd => F2i(O::Cmp, Pd);
        Cmpss | Vcmpss => F2i(O::Cmp, Ss);
        Cmpsd | Vcmpsd => F2i(O::Cmp, Sd);
        Addsubps | Vaddsubps => F2(O::AddSub, Ps);
        Addsubpd | Vaddsubpd => F2(O::AddSub, Pd);
        Haddps | Vhaddps => F2(O::HAdd, Ps);
        Haddpd | Vhaddpd => F2(O::HAdd, Pd);
        Hsubps | Vhsubps => F2(O::HSub, Ps);
        Hsubpd | Vhsubpd => F2(O::HSub, Pd);
        Dpps | Vdpps => F2i(O::Dp, Ps);
        Dppd | Vdppd => F2i(O::Dp, Pd);
    }
}

impl Translator<'_, '_> {
    pub(super) fn sse_lanes(&mut self, m: Mnemonic) -> Option<Flow> {
        if let Some(flow) = self.sse_halves(m) {
            return Some(flow);
        }
        if let Some(opcode) = fma_opcode(&self.i) {
            return Some(self.fma(opcode));
        }
        let kind = kind(m)?;
        match kind {
            Kind::V2(op, lane) => {
                if self.idiom(op) {
                    return Some(Flow::Next);
                }
                self.binary(|t, a, b, _| t.b.v2(op, lane, a, b));
            }
            Kind::V2r(op, lane) => self.binary(|t, a, b, _| t.b.v2(op, lane, b, a)),
            Kind::S2(op) => self.binary(|t, a, b, _| t.b.simd(op, Fmt::Ps, &[a, b], 0)),
            Kind::S2i(op) => {
                let imm = self.imm8();
                self.binary(|t, a, b, _| t.b.simd(op, Fmt::Ps, &[a, b], imm));
            }
            Kind::F2(op, fmt) => {
                let arithmetic = !matches!(op, SimdOp::Min | SimdOp::Max);
                self.binary_of(arithmetic, |t, a, b, _| t.b.simd(op, fmt, &[a, b], 0));
            }
            Kind::F2i(op, fmt) => {
                let mut imm = self.imm8();
                if op == SimdOp::Cmp {
                    imm &= if self.vex() { 31 } else { 7 };
                }
                self.binary_fp(|t, a, b, _| t.b.simd(op, fmt, &[a, b], imm));
            }
            Kind::V1(op, lane) => self.unary(|t, a, _| t.b.v1(op, lane, a)),
            Kind::S1(op) => self.unary(|t, a, _| t.b.simd(op, Fmt::Ps, &[a], 0)),
            Kind::S1i(op) => {
                let imm = self.imm8();
                if self.i.op_count() == 2 && !self.vex() {
                    // PSLLDQ and PSRLDQ of legacy SSE: the source is the destination.
                    let a = self.vsrc(0);
                    let r = self.b.simd(op, Fmt::Ps, &[a.0], imm);
                    self.set_dst_low(r);
                } else {
                    self.unary(|t, a, _| t.b.simd(op, Fmt::Ps, &[a], imm));
                }
            }
            Kind::F1(..) | Kind::F1i(..) => {
                let (op, fmt, imm) = match kind {
                    Kind::F1i(op, fmt) => (op, fmt, self.imm8() & 15),
                    Kind::F1(op, fmt) => (op, fmt, 0),
                    _ => return None,
                };
                if fmt.scalar() {
                    self.binary_fp(|t, a, b, _| t.b.simd(op, fmt, &[a, b], imm));
                } else {
                    let n = self.halves();
                    let a = self.vsrc(1);
                    let r = self.with_fp(|t| t.each(n, |t, h| t.b.simd(op, fmt, &[a.get(h), a.get(h)], imm)));
                    self.set_dst(r);
                }
            }
            Kind::Shift(op, lane, by_register) => {
                let (a, count) = self.sources();
                if self.i.op_kind(count) == OpKind::Immediate8 {
                    let n = self.imm8().min(lane.bits() as u64);
                    let halves = self.halves();
                    let a = self.vsrc(a);
                    let r = self.each(halves, |t, h| t.b.v1_imm(op, lane, a.get(h), n));
                    self.set_dst(r);
                } else {
                    // The count is the same for both halves.
                    self.binary(|t, a, b, _| t.b.simd(by_register, Fmt::Ps, &[a, b], 0));
                }
            }
        }
        Some(Flow::Next)
    }

    /// The result of each half by a function.
    pub(super) fn each(&mut self, halves: u32, mut f: impl FnMut(&mut Self, u32) -> Value) -> Halves {
        let lo = f(self, 0);
        let hi = if halves == 2 { Some(f(self, 1)) } else { None };
        Halves(lo, hi)
    }

    /// A register combined with itself whose value does not matter.
    fn idiom(&mut self, op: Op) -> bool {
        let (a, b) = self.sources();
        if self.is_mem(b) || self.i.op_register(a) != self.i.op_register(b) {
            return false;
        }
        let v = match op {
            Op::VXor | Op::VSub | Op::VCmpGtS => 0,
            Op::VCmpEq => u128::MAX,
            _ => return false,
        };
        let v = self.b.vconst(v);
        self.set_dst(Halves(v, Some(v)));
        true
    }

    fn binary(&mut self, mut f: impl FnMut(&mut Self, Value, Value, u32) -> Value) {
        let n = self.halves();
        let (a, b) = self.sources();
        let (a, b) = (self.vsrc(a), self.vsrc(b));
        let r = self.each(n, |t, h| f(t, a.get(h), b.get(h), h));
        self.set_dst(r);
    }
    pub(super) fn binary_fp(&mut self, f: impl FnMut(&mut Self, Value, Value, u32) -> Value) {
        self.binary_of(false, f);
    }
    /// With flags; `arithmetic`: results may leave the range of their format.
    pub(super) fn binary_of(&mut self, arithmetic: bool, mut f: impl FnMut(&mut Self, Value, Value, u32) -> Value) {
        let n = self.halves();
        let (a, b) = self.sources();
        let (a, b) = (self.vsrc(a), self.vsrc(b));
        let all = |t: &mut Self| t.each(n, |t, h| f(t, a.get(h), b.get(h), h));
        let r = if arithmetic { self.with_arithmetic(all) } else { self.with_fp(all) };
        self.set_dst(r);
    }
    fn unary(&mut self, mut f: impl FnMut(&mut Self, Value, u32) -> Value) {
        let n = self.halves();
        let a = self.vsrc(1);
        let r = self.each(n, |t, h| f(t, a.get(h), h));
        self.set_dst(r);
    }

    /// Those whose immediate is not the same for both halves, and those of three sources.
    fn sse_halves(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        let imm = self.imm8();
        match m {
            Shufpd | Vshufpd => {
                self.binary(|t, a, b, h| t.b.simd(SimdOp::ShufPd, Fmt::Ps, &[a, b], imm >> (2 * h) & 3));
            }
            Blendps | Vblendps | Vpblendd => {
                self.binary(|t, a, b, h| t.b.simd(SimdOp::BlendPs, Fmt::Ps, &[a, b], imm >> (4 * h) & 15));
            }
            Blendpd | Vblendpd => {
                self.binary(|t, a, b, h| t.b.simd(SimdOp::BlendPd, Fmt::Ps, &[a, b], imm >> (2 * h) & 3));
            }
            Mpsadbw | Vmpsadbw => {
                self.binary(|t, a, b, h| t.b.simd(SimdOp::MPSadBw, Fmt::Ps, &[a, b], imm >> (3 * h) & 7));
            }
            Blendvps | Vblendvps => self.blend_by_mask(SimdOp::BlendVPs),
            Blendvpd | Vblendvpd => self.blend_by_mask(SimdOp::BlendVPd),
            Pblendvb | Vpblendvb => self.blend_by_mask(SimdOp::BlendVB),
            Sha256rnds2 => {
                let (a, b) = (self.vsrc(0), self.vsrc(1));
                let c = self.xmm(0);
                let r = self.b.simd(SimdOp::Sha256Rnds2, Fmt::Ps, &[a.0, b.0, c], 0);
                self.set_dst_low(r);
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    fn blend_by_mask(&mut self, op: SimdOp) {
        let n = self.halves();
        let (a, b) = self.sources();
        let (a, b) = (self.vsrc(a), self.vsrc(b));
        let mask = if self.vex() { self.vsrc(3) } else { Halves(self.xmm(0), None) };
        let r = self.each(n, |t, h| t.b.simd(op, Fmt::Ps, &[a.get(h), b.get(h), mask.get(h)], 0));
        self.set_dst(r);
    }

    fn fma(&mut self, (opcode, fmt): (u8, Fmt)) -> Flow {
        let n = self.halves();
        let (a, b, c) = (self.vsrc(0), self.vsrc(1), self.vsrc(2));
        let r = self.with_arithmetic(|t| {
            t.each(n, |t, h| t.b.simd(SimdOp::Fma, fmt, &[a.get(h), b.get(h), c.get(h)], opcode as u64))
        });
        self.set_dst(r);
        Flow::Next
    }

    /// MOVMSKPS, MOVMSKPD and PMOVMSKB.
    pub(super) fn move_mask(&mut self, lane: Lane) {
        let v = self.vsrc(1);
        let mut r = self.b.op1(Op::VMoveMask, Type::I32, v.0, lane as u32, 0);
        if let Some(hi) = v.1 {
            let hi = self.b.op1(Op::VMoveMask, Type::I32, hi, lane as u32, 0);
            let hi = self.shl(hi, lane.count());
            r = self.b.or(r, hi);
        }
        let n = self.i.op_register(0).full_register().number() as u32;
        self.set_reg(32, n, r);
    }
}

/// Opcode and format of an FMA instruction.
fn fma_opcode(i: &iced_x86::Instruction) -> Option<(u8, Fmt)> {
    let m = i.mnemonic();
    macro_rules! family {
        ($($low:literal: $a:ident $b:ident $c:ident $fmt:ident;)*) => {
            match m {
                $(Mnemonic::$a => Some((0x90 | $low, Fmt::$fmt)),
                  Mnemonic::$b => Some((0xa0 | $low, Fmt::$fmt)),
                  Mnemonic::$c => Some((0xb0 | $low, Fmt::$fmt)),)*
                _ => None,
            }
        };
    }
    family! {
        6: Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps Ps;
        6: Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd Pd;
        7: Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps Ps;
        7: Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd Pd;
        8: Vfmadd132ps Vfmadd213ps Vfmadd231ps Ps;
        8: Vfmadd132pd Vfmadd213pd Vfmadd231pd Pd;
        9: Vfmadd132ss Vfmadd213ss Vfmadd231ss Ss;
        9: Vfmadd132sd Vfmadd213sd Vfmadd231sd Sd;
        10: Vfmsub132ps Vfmsub213ps Vfmsub231ps Ps;
        10: Vfmsub132pd Vfmsub213pd Vfmsub231pd Pd;
        11: Vfmsub132ss Vfmsub213ss Vfmsub231ss Ss;
        11: Vfmsub132sd Vfmsub213sd Vfmsub231sd Sd;
        12: Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps Ps;
        12: Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd Pd;
        13: Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss Ss;
        13: Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd Sd;
        14: Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps Ps;
        14: Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd Pd;
        15: Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss Ss;
        15: Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd Sd;
    }
}
