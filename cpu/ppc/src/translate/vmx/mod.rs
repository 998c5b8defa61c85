//! Translation of the vector facility (Book I, chapter 6).

mod access;
mod bits;
mod crypto;
pub(super) mod emit;
pub mod helpers;
mod integer;
mod moves;

pub(super) use moves::permute_bytes;

use super::{Flow, Insn, Pattern, Translator};
use crate::config::Isa;
use crate::translate::decode::Handler;
use crate::translate::fp::row;
use crate::vector::VecOp;
use emit::*;
use rhea_ir::Op;
use rhea_ir::types::Lane::{B, D, H, S};

/// VX-form: extended opcode in bits 21–31.
const fn v(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x7ff, xo, handler).vec()
}
const fn v30(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    v(name, xo, handler).since(Isa::V3_0)
}
const fn v31(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    v(name, xo, handler).since(Isa::V3_1)
}
/// VX-form with a part of the opcode in bits 11–15.
const fn va5(name: &'static str, xo: u32, sub: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x001f_07ff, sub << 16 | xo, handler).vec().since(Isa::V3_0)
}
/// VC-form: bit 21 is Rc.
const fn vc(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x3ff, xo, handler).vec()
}
/// VA-form: bits 26–31.
const fn va(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x3f, xo, handler).vec()
}
/// Decimal: bit 21 set, bit 22 is PS.
const fn dec(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x5ff, 0x400 | xo, handler).vec()
}
const fn dec5(name: &'static str, sub: u32, handler: Handler) -> Pattern {
    row(name, 4, 0x001f_05ff, 0x581 | sub << 16, handler).vec().since(Isa::V3_0)
}

fn bcd(t: &mut Translator, i: Insn, op: u32) -> Flow {
    recording(t, i, VecOp::Bcd, op | i.field(22, 22) << 8)
}

fn logic(t: &mut Translator, i: Insn, op: Op, negate: bool) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let r = t.b.op2(op, rhea_ir::Type::V128, a, b, 0, 0);
    let r = if negate { t.vnot(r) } else { r };
    t.set_vr(i.rt(), r);
    Flow::Next
}

static ARITHMETIC: &[Pattern] = &[
    v("vaddubm", 0, |t, i| lanes(t, i, Op::VAdd, B)),
    v("vadduhm", 64, |t, i| lanes(t, i, Op::VAdd, H)),
    v("vadduwm", 128, |t, i| lanes(t, i, Op::VAdd, S)),
    v("vaddudm", 192, |t, i| lanes(t, i, Op::VAdd, D)),
    v("vsububm", 1024, |t, i| lanes(t, i, Op::VSub, B)),
    v("vsubuhm", 1088, |t, i| lanes(t, i, Op::VSub, H)),
    v("vsubuwm", 1152, |t, i| lanes(t, i, Op::VSub, S)),
    v("vsubudm", 1216, |t, i| lanes(t, i, Op::VSub, D)),
    v("vaddubs", 512, |t, i| integer::saturate(t, i, Op::VSatAddU, Op::VAdd, B)),
    v("vadduhs", 576, |t, i| integer::saturate(t, i, Op::VSatAddU, Op::VAdd, H)),
    v("vadduws", 640, |t, i| integer::saturate(t, i, Op::VSatAddU, Op::VAdd, S)),
    v("vaddsbs", 768, |t, i| integer::saturate(t, i, Op::VSatAddS, Op::VAdd, B)),
    v("vaddshs", 832, |t, i| integer::saturate(t, i, Op::VSatAddS, Op::VAdd, H)),
    v("vaddsws", 896, |t, i| integer::saturate(t, i, Op::VSatAddS, Op::VAdd, S)),
    v("vsububs", 1536, |t, i| integer::saturate(t, i, Op::VSatSubU, Op::VSub, B)),
    v("vsubuhs", 1600, |t, i| integer::saturate(t, i, Op::VSatSubU, Op::VSub, H)),
    v("vsubuws", 1664, |t, i| integer::saturate(t, i, Op::VSatSubU, Op::VSub, S)),
    v("vsubsbs", 1792, |t, i| integer::saturate(t, i, Op::VSatSubS, Op::VSub, B)),
    v("vsubshs", 1856, |t, i| integer::saturate(t, i, Op::VSatSubS, Op::VSub, H)),
    v("vsubsws", 1920, |t, i| integer::saturate(t, i, Op::VSatSubS, Op::VSub, S)),
    v("vaddcuw", 384, |t, i| pure(t, i, VecOp::AddCarryWord, 0)),
    v("vsubcuw", 1408, |t, i| pure(t, i, VecOp::SubCarryWord, 0)),
    v("vadduqm", 256, |t, i| pure(t, i, VecOp::AddQ, 0)),
    v("vaddcuq", 320, |t, i| pure(t, i, VecOp::AddCarryQ, 0)),
    v("vsubuqm", 1280, |t, i| pure(t, i, VecOp::SubQ, 0)),
    v("vsubcuq", 1344, |t, i| pure(t, i, VecOp::SubCarryQ, 0)),
    va("vaddeuqm", 60, |t, i| pure3(t, i, VecOp::AddExtendedQ, 0)),
    va("vaddecuq", 61, |t, i| pure3(t, i, VecOp::AddExtendedCarryQ, 0)),
    va("vsubeuqm", 62, |t, i| pure3(t, i, VecOp::SubExtendedQ, 0)),
    va("vsubecuq", 63, |t, i| pure3(t, i, VecOp::SubExtendedCarryQ, 0)),
    v("vavgub", 1026, |t, i| lanes(t, i, Op::VAvgU, B)),
    v("vavguh", 1090, |t, i| lanes(t, i, Op::VAvgU, H)),
    v("vavguw", 1154, |t, i| lanes(t, i, Op::VAvgU, S)),
    v("vavgsb", 1282, |t, i| integer::average(t, i, B)),
    v("vavgsh", 1346, |t, i| integer::average(t, i, H)),
    v("vavgsw", 1410, |t, i| integer::average(t, i, S)),
    v30("vabsdub", 1027, |t, i| integer::difference(t, i, B)),
    v30("vabsduh", 1091, |t, i| integer::difference(t, i, H)),
    v30("vabsduw", 1155, |t, i| integer::difference(t, i, S)),
    v("vmaxub", 2, |t, i| lanes(t, i, Op::VMaxU, B)),
    v("vmaxuh", 66, |t, i| lanes(t, i, Op::VMaxU, H)),
    v("vmaxuw", 130, |t, i| lanes(t, i, Op::VMaxU, S)),
    v("vmaxud", 194, |t, i| lanes(t, i, Op::VMaxU, D)),
    v("vmaxsb", 258, |t, i| lanes(t, i, Op::VMaxS, B)),
    v("vmaxsh", 322, |t, i| lanes(t, i, Op::VMaxS, H)),
    v("vmaxsw", 386, |t, i| lanes(t, i, Op::VMaxS, S)),
    v("vmaxsd", 450, |t, i| lanes(t, i, Op::VMaxS, D)),
    v("vminub", 514, |t, i| lanes(t, i, Op::VMinU, B)),
    v("vminuh", 578, |t, i| lanes(t, i, Op::VMinU, H)),
    v("vminuw", 642, |t, i| lanes(t, i, Op::VMinU, S)),
    v("vminud", 706, |t, i| lanes(t, i, Op::VMinU, D)),
    v("vminsb", 770, |t, i| lanes(t, i, Op::VMinS, B)),
    v("vminsh", 834, |t, i| lanes(t, i, Op::VMinS, H)),
    v("vminsw", 898, |t, i| lanes(t, i, Op::VMinS, S)),
    v("vminsd", 962, |t, i| lanes(t, i, Op::VMinS, D)),
    v("vmuloub", 8, |t, i| integer::multiply(t, i, B, false, false)),
    v("vmulouh", 72, |t, i| integer::multiply(t, i, H, false, false)),
    v("vmulouw", 136, |t, i| integer::multiply(t, i, S, false, false)),
    v31("vmuloud", 200, |t, i| integer::multiply(t, i, D, false, false)),
    v("vmulosb", 264, |t, i| integer::multiply(t, i, B, true, false)),
    v("vmulosh", 328, |t, i| integer::multiply(t, i, H, true, false)),
    v("vmulosw", 392, |t, i| integer::multiply(t, i, S, true, false)),
    v31("vmulosd", 456, |t, i| integer::multiply(t, i, D, true, false)),
    v("vmuleub", 520, |t, i| integer::multiply(t, i, B, false, true)),
    v("vmuleuh", 584, |t, i| integer::multiply(t, i, H, false, true)),
    v("vmuleuw", 648, |t, i| integer::multiply(t, i, S, false, true)),
    v31("vmuleud", 712, |t, i| integer::multiply(t, i, D, false, true)),
    v("vmulesb", 776, |t, i| integer::multiply(t, i, B, true, true)),
    v("vmulesh", 840, |t, i| integer::multiply(t, i, H, true, true)),
    v("vmulesw", 904, |t, i| integer::multiply(t, i, S, true, true)),
    v31("vmulesd", 968, |t, i| integer::multiply(t, i, D, true, true)),
    v("vmuluwm", 137, |t, i| lanes(t, i, Op::VMul, S)),
    v31("vmulld", 457, |t, i| lanes(t, i, Op::VMul, D)),
    v31("vmulhuw", 649, |t, i| pure(t, i, VecOp::MulHigh, 5)),
    v31("vmulhud", 713, |t, i| pure(t, i, VecOp::MulHigh, 6)),
    v31("vmulhsw", 905, |t, i| pure(t, i, VecOp::MulHigh, 5 | 8)),
    v31("vmulhsd", 969, |t, i| pure(t, i, VecOp::MulHigh, 6 | 8)),
    va("vmhaddshs", 32, |t, i| saturating3(t, i, VecOp::MulHighAddSat, 0)),
    va("vmhraddshs", 33, |t, i| saturating3(t, i, VecOp::MulHighRoundAddSat, 0)),
    va("vmladduhm", 34, integer::multiply_low_add),
    va("vmsumudm", 35, |t, i| pure3(t, i, VecOp::MulSumDouble, 0)).since(Isa::V3_0),
    va("vmsumcud", 23, |t, i| pure3(t, i, VecOp::MulSumDoubleCarry, 0)).since(Isa::V3_1),
    va("vmsumubm", 36, |t, i| pure3(t, i, VecOp::MulSumUnsignedByte, 0)),
    va("vmsummbm", 37, |t, i| pure3(t, i, VecOp::MulSumMixedByte, 0)),
    va("vmsumuhm", 38, |t, i| pure3(t, i, VecOp::MulSumUnsignedHalf, 0)),
    va("vmsumuhs", 39, |t, i| saturating3(t, i, VecOp::MulSumUnsignedHalfSat, 0)),
    va("vmsumshm", 40, |t, i| pure3(t, i, VecOp::MulSumSignedHalf, 0)),
    va("vmsumshs", 41, |t, i| saturating3(t, i, VecOp::MulSumSignedHalfSat, 0)),
    v("vsum4ubs", 1544, |t, i| saturating(t, i, VecOp::Sum4UnsignedByteSat, 0)),
    v("vsum4sbs", 1800, |t, i| saturating(t, i, VecOp::Sum4SignedByteSat, 0)),
    v("vsum4shs", 1608, |t, i| saturating(t, i, VecOp::Sum4SignedHalfSat, 0)),
    v("vsum2sws", 1672, |t, i| saturating(t, i, VecOp::Sum2SignedWordSat, 0)),
    v("vsumsws", 1928, |t, i| saturating(t, i, VecOp::SumSignedWordSat, 0)),
    va5("vnegw", 1538, 6, |t, i| integer::one(t, i, Op::VNeg, S)),
    va5("vnegd", 1538, 7, |t, i| integer::one(t, i, Op::VNeg, D)),
    va5("vprtybw", 1538, 8, |t, i| pure(t, i, VecOp::Parity, 5)),
    va5("vprtybd", 1538, 9, |t, i| pure(t, i, VecOp::Parity, 6)),
    va5("vprtybq", 1538, 10, |t, i| pure(t, i, VecOp::Parity, 7)),
    va5("vextsb2w", 1538, 16, |t, i| integer::extend(t, i, S, 8)),
    va5("vextsh2w", 1538, 17, |t, i| integer::extend(t, i, S, 16)),
    va5("vextsb2d", 1538, 24, |t, i| integer::extend(t, i, D, 8)),
    va5("vextsh2d", 1538, 25, |t, i| integer::extend(t, i, D, 16)),
    va5("vextsw2d", 1538, 26, |t, i| integer::extend(t, i, D, 32)),
    va5("vextsd2q", 1538, 27, |t, i| pure(t, i, VecOp::SignExtend, 7 | 6 << 4)).since(Isa::V3_1),
    va5("vctzb", 1538, 28, |t, i| pure(t, i, VecOp::TrailingZeros, 3)),
    va5("vctzh", 1538, 29, |t, i| pure(t, i, VecOp::TrailingZeros, 4)),
    va5("vctzw", 1538, 30, |t, i| pure(t, i, VecOp::TrailingZeros, 5)),
    va5("vctzd", 1538, 31, |t, i| pure(t, i, VecOp::TrailingZeros, 6)),
    va5("vclzlsbb", 1538, 0, |t, i| bits::count_even_bytes(t, i, true)),
    va5("vctzlsbb", 1538, 1, |t, i| bits::count_even_bytes(t, i, false)),
    v("vclzb", 1794, |t, i| pure(t, i, VecOp::LeadingZeros, 3)),
    v("vclzh", 1858, |t, i| pure(t, i, VecOp::LeadingZeros, 4)),
    v("vclzw", 1922, |t, i| pure(t, i, VecOp::LeadingZeros, 5)),
    v("vclzd", 1986, |t, i| pure(t, i, VecOp::LeadingZeros, 6)),
    v("vpopcntb", 1795, |t, i| integer::one(t, i, Op::VPopcnt, B)),
    v("vpopcnth", 1859, |t, i| bits::population(t, i, H)),
    v("vpopcntw", 1923, |t, i| bits::population(t, i, S)),
    v("vpopcntd", 1987, |t, i| bits::population(t, i, D)),
    v31("vclzdm", 1924, |t, i| pure(t, i, VecOp::LeadingZerosMask, 0)),
    v31("vctzdm", 1988, |t, i| pure(t, i, VecOp::TrailingZerosMask, 0)),
    v31("vcfuged", 1357, |t, i| pure(t, i, VecOp::CentrifugeDouble, 0)),
    v31("vpextd", 1421, |t, i| pure(t, i, VecOp::ExtractDouble, 0)),
    v31("vpdepd", 1485, |t, i| pure(t, i, VecOp::DepositDouble, 0)),
    v31("vdivuw", 139, |t, i| pure(t, i, VecOp::Divide, 5)),
    v31("vdivud", 203, |t, i| pure(t, i, VecOp::Divide, 6)),
    v31("vdivuq", 11, |t, i| pure(t, i, VecOp::Divide, 7)),
    v31("vdivsw", 395, |t, i| pure(t, i, VecOp::Divide, 5 | 8)),
    v31("vdivsd", 459, |t, i| pure(t, i, VecOp::Divide, 6 | 8)),
    v31("vdivsq", 267, |t, i| pure(t, i, VecOp::Divide, 7 | 8)),
    v31("vdiveuw", 651, |t, i| pure(t, i, VecOp::Divide, 5 | 16)),
    v31("vdiveud", 715, |t, i| pure(t, i, VecOp::Divide, 6 | 16)),
    v31("vdiveuq", 523, |t, i| pure(t, i, VecOp::Divide, 7 | 16)),
    v31("vdivesw", 907, |t, i| pure(t, i, VecOp::Divide, 5 | 8 | 16)),
    v31("vdivesd", 971, |t, i| pure(t, i, VecOp::Divide, 6 | 8 | 16)),
    v31("vdivesq", 779, |t, i| pure(t, i, VecOp::Divide, 7 | 8 | 16)),
    v31("vmoduw", 1675, |t, i| pure(t, i, VecOp::Divide, 5 | 32)),
    v31("vmodud", 1739, |t, i| pure(t, i, VecOp::Divide, 6 | 32)),
    v31("vmoduq", 1547, |t, i| pure(t, i, VecOp::Divide, 7 | 32)),
    v31("vmodsw", 1931, |t, i| pure(t, i, VecOp::Divide, 5 | 8 | 32)),
    v31("vmodsd", 1995, |t, i| pure(t, i, VecOp::Divide, 6 | 8 | 32)),
    v31("vmodsq", 1803, |t, i| pure(t, i, VecOp::Divide, 7 | 8 | 32)),
    v30("vmul10cuq", 1, |t, i| pure(t, i, VecOp::Mul10, 1)),
    v30("vmul10ecuq", 65, |t, i| pure(t, i, VecOp::Mul10, 3)),
    v30("vmul10uq", 513, |t, i| pure(t, i, VecOp::Mul10, 0)),
    v30("vmul10euq", 577, |t, i| pure(t, i, VecOp::Mul10, 2)),
];

static COMPARE: &[Pattern] = &[
    vc("vcmpequb", 6, |t, i| integer::compare(t, i, Op::VCmpEq, B, false)),
    vc("vcmpequh", 70, |t, i| integer::compare(t, i, Op::VCmpEq, H, false)),
    vc("vcmpequw", 134, |t, i| integer::compare(t, i, Op::VCmpEq, S, false)),
    vc("vcmpequd", 199, |t, i| integer::compare(t, i, Op::VCmpEq, D, false)),
    vc("vcmpgtub", 518, |t, i| integer::compare(t, i, Op::VCmpGtU, B, false)),
    vc("vcmpgtuh", 582, |t, i| integer::compare(t, i, Op::VCmpGtU, H, false)),
    vc("vcmpgtuw", 646, |t, i| integer::compare(t, i, Op::VCmpGtU, S, false)),
    vc("vcmpgtud", 711, |t, i| integer::compare(t, i, Op::VCmpGtU, D, false)),
    vc("vcmpgtsb", 774, |t, i| integer::compare(t, i, Op::VCmpGtS, B, false)),
    vc("vcmpgtsh", 838, |t, i| integer::compare(t, i, Op::VCmpGtS, H, false)),
    vc("vcmpgtsw", 902, |t, i| integer::compare(t, i, Op::VCmpGtS, S, false)),
    vc("vcmpgtsd", 967, |t, i| integer::compare(t, i, Op::VCmpGtS, D, false)),
    vc("vcmpneb", 7, |t, i| integer::compare(t, i, Op::VCmpEq, B, true)).since(Isa::V3_0),
    vc("vcmpneh", 71, |t, i| integer::compare(t, i, Op::VCmpEq, H, true)).since(Isa::V3_0),
    vc("vcmpnew", 135, |t, i| integer::compare(t, i, Op::VCmpEq, S, true)).since(Isa::V3_0),
    vc("vcmpnezb", 263, |t, i| integer::compare_zero(t, i, B)).since(Isa::V3_0),
    vc("vcmpnezh", 327, |t, i| integer::compare_zero(t, i, H)).since(Isa::V3_0),
    vc("vcmpnezw", 391, |t, i| integer::compare_zero(t, i, S)).since(Isa::V3_0),
    vc("vcmpequq", 455, |t, i| integer::compare_state(t, i, VecOp::CompareQ, 0)).since(Isa::V3_1),
    vc("vcmpgtuq", 647, |t, i| integer::compare_state(t, i, VecOp::CompareQ, 1)).since(Isa::V3_1),
    vc("vcmpgtsq", 903, |t, i| integer::compare_state(t, i, VecOp::CompareQ, 2)).since(Isa::V3_1),
    row("vcmpuq", 4, 0x0060_07ff, 257, |t, i| integer::compare_field(t, i, 0)).vec().since(Isa::V3_1),
    row("vcmpsq", 4, 0x0060_07ff, 321, |t, i| integer::compare_field(t, i, 1)).vec().since(Isa::V3_1),
    vc("vcmpeqfp", 198, |t, i| integer::compare_state(t, i, VecOp::FloatCompare, 0)),
    vc("vcmpgefp", 454, |t, i| integer::compare_state(t, i, VecOp::FloatCompare, 1)),
    vc("vcmpgtfp", 710, |t, i| integer::compare_state(t, i, VecOp::FloatCompare, 2)),
    vc("vcmpbfp", 966, |t, i| integer::compare_state(t, i, VecOp::FloatCompare, 3)),
];

static FLOAT: &[Pattern] = &[
    v("vaddfp", 10, |t, i| saturating(t, i, VecOp::Float, 0)),
    v("vsubfp", 74, |t, i| saturating(t, i, VecOp::Float, 1)),
    va("vmaddfp", 46, |t, i| saturating3(t, i, VecOp::Float, 2)),
    va("vnmsubfp", 47, |t, i| saturating3(t, i, VecOp::Float, 3)),
    v("vmaxfp", 1034, |t, i| saturating(t, i, VecOp::Float, 4)),
    v("vminfp", 1098, |t, i| saturating(t, i, VecOp::Float, 5)),
    v("vrefp", 266, |t, i| saturating(t, i, VecOp::Float, 6)),
    v("vrsqrtefp", 330, |t, i| saturating(t, i, VecOp::Float, 7)),
    v("vexptefp", 394, |t, i| saturating(t, i, VecOp::Float, 8)),
    v("vlogefp", 458, |t, i| saturating(t, i, VecOp::Float, 9)),
    v("vrfin", 522, |t, i| saturating(t, i, VecOp::Float, 10)),
    v("vrfiz", 586, |t, i| saturating(t, i, VecOp::Float, 11)),
    v("vrfip", 650, |t, i| saturating(t, i, VecOp::Float, 12)),
    v("vrfim", 714, |t, i| saturating(t, i, VecOp::Float, 13)),
    v("vcfux", 778, |t, i| saturating(t, i, VecOp::FloatConvert, i.ra() << 2)),
    v("vcfsx", 842, |t, i| saturating(t, i, VecOp::FloatConvert, i.ra() << 2 | 1)),
    v("vctuxs", 906, |t, i| saturating(t, i, VecOp::FloatConvert, i.ra() << 2 | 2)),
    v("vctsxs", 970, |t, i| saturating(t, i, VecOp::FloatConvert, i.ra() << 2 | 3)),
];

static LOGIC: &[Pattern] = &[
    v("vand", 1028, |t, i| logic(t, i, Op::VAnd, false)),
    v("vandc", 1092, |t, i| logic(t, i, Op::VAndNot, false)),
    v("vor", 1156, |t, i| logic(t, i, Op::VOr, false)),
    v("vxor", 1220, |t, i| logic(t, i, Op::VXor, false)),
    v("vnor", 1284, |t, i| logic(t, i, Op::VOr, true)),
    v("vnand", 1412, |t, i| logic(t, i, Op::VAnd, true)),
    v("veqv", 1668, |t, i| logic(t, i, Op::VXor, true)),
    v("vorc", 1348, moves::or_complement),
    va("vsel", 42, moves::select),
    v("vslb", 260, |t, i| integer::shift(t, i, VecOp::ShiftLeft, B)),
    v("vslh", 324, |t, i| integer::shift(t, i, VecOp::ShiftLeft, H)),
    v("vslw", 388, |t, i| integer::shift(t, i, VecOp::ShiftLeft, S)),
    v("vsld", 1476, |t, i| integer::shift(t, i, VecOp::ShiftLeft, D)),
    v31("vslq", 261, |t, i| pure(t, i, VecOp::ShiftLeft, 7)),
    v("vsrb", 516, |t, i| integer::shift(t, i, VecOp::ShiftRight, B)),
    v("vsrh", 580, |t, i| integer::shift(t, i, VecOp::ShiftRight, H)),
    v("vsrw", 644, |t, i| integer::shift(t, i, VecOp::ShiftRight, S)),
    v("vsrd", 1732, |t, i| integer::shift(t, i, VecOp::ShiftRight, D)),
    v31("vsrq", 517, |t, i| pure(t, i, VecOp::ShiftRight, 7)),
    v("vsrab", 772, |t, i| integer::shift(t, i, VecOp::ShiftRightSigned, B)),
    v("vsrah", 836, |t, i| integer::shift(t, i, VecOp::ShiftRightSigned, H)),
    v("vsraw", 900, |t, i| integer::shift(t, i, VecOp::ShiftRightSigned, S)),
    v("vsrad", 964, |t, i| integer::shift(t, i, VecOp::ShiftRightSigned, D)),
    v31("vsraq", 773, |t, i| pure(t, i, VecOp::ShiftRightSigned, 7)),
    v("vrlb", 4, |t, i| integer::shift(t, i, VecOp::Rotate, B)),
    v("vrlh", 68, |t, i| integer::shift(t, i, VecOp::Rotate, H)),
    v("vrlw", 132, |t, i| integer::shift(t, i, VecOp::Rotate, S)),
    v("vrld", 196, |t, i| integer::shift(t, i, VecOp::Rotate, D)),
    v31("vrlq", 5, |t, i| pure(t, i, VecOp::Rotate, 7)),
    v31("vrlqmi", 69, |t, i| pure_into(t, i, VecOp::RotateMask, 7 | 8)),
    v30("vrlwmi", 133, |t, i| pure_into(t, i, VecOp::RotateMask, 5 | 8)),
    v30("vrldmi", 197, |t, i| pure_into(t, i, VecOp::RotateMask, 6 | 8)),
    v31("vrlqnm", 325, |t, i| pure(t, i, VecOp::RotateMask, 7)),
    v30("vrlwnm", 389, |t, i| pure(t, i, VecOp::RotateMask, 5)),
    v30("vrldnm", 453, |t, i| pure(t, i, VecOp::RotateMask, 6)),
    v("vsl", 452, |t, i| pure(t, i, VecOp::ShiftLeftBits, 0)),
    v("vsr", 708, |t, i| pure(t, i, VecOp::ShiftRightBits, 0)),
    v("vslo", 1036, |t, i| bits::shift_octets(t, i, true)),
    v("vsro", 1100, |t, i| bits::shift_octets(t, i, false)),
    v30("vslv", 1860, |t, i| pure(t, i, VecOp::ShiftLeftVariable, 0)),
    v30("vsrv", 1796, |t, i| pure(t, i, VecOp::ShiftRightVariable, 0)),
    row("vsldbi", 4, 0x63f, 22, |t, i| pure(t, i, VecOp::ShiftLeftDoubleBits, i.field(23, 25))).vec().since(Isa::V3_1),
    row("vsrdbi", 4, 0x63f, 0x200 | 22, |t, i| pure(t, i, VecOp::ShiftRightDoubleBits, i.field(23, 25)))
        .vec()
        .since(Isa::V3_1),
];

static MOVES: &[Pattern] = &[
    v("vmrghb", 12, |t, i| moves::merge(t, i, 1, 0)),
    v("vmrghh", 76, |t, i| moves::merge(t, i, 2, 0)),
    v("vmrghw", 140, |t, i| moves::merge(t, i, 4, 0)),
    v("vmrglb", 268, |t, i| moves::merge(t, i, 1, 8)),
    v("vmrglh", 332, |t, i| moves::merge(t, i, 2, 8)),
    v("vmrglw", 396, |t, i| moves::merge(t, i, 4, 8)),
    v("vmrgow", 1676, |t, i| moves::merge_alternate(t, i, 1)),
    v("vmrgew", 1932, |t, i| moves::merge_alternate(t, i, 0)),
    v("vpkuhum", 14, |t, i| moves::pack(t, i, 1)),
    v("vpkuwum", 78, |t, i| moves::pack(t, i, 2)),
    v("vpkudum", 1102, |t, i| moves::pack(t, i, 4)),
    v("vpkuhus", 142, |t, i| saturating(t, i, VecOp::Pack, 4)),
    v("vpkuwus", 206, |t, i| saturating(t, i, VecOp::Pack, 5)),
    v("vpkudus", 1230, |t, i| saturating(t, i, VecOp::Pack, 6)),
    v("vpkshus", 270, |t, i| saturating(t, i, VecOp::Pack, 4 | 8)),
    v("vpkswus", 334, |t, i| saturating(t, i, VecOp::Pack, 5 | 8)),
    v("vpksdus", 1358, |t, i| saturating(t, i, VecOp::Pack, 6 | 8)),
    v("vpkshss", 398, |t, i| saturating(t, i, VecOp::Pack, 4 | 8 | 16)),
    v("vpkswss", 462, |t, i| saturating(t, i, VecOp::Pack, 5 | 8 | 16)),
    v("vpksdss", 1486, |t, i| saturating(t, i, VecOp::Pack, 6 | 8 | 16)),
    v("vpkpx", 782, |t, i| pure(t, i, VecOp::PackPixel, 0)),
    v("vupkhsb", 526, |t, i| moves::unpack(t, i, B, true)),
    v("vupkhsh", 590, |t, i| moves::unpack(t, i, H, true)),
    v("vupkhsw", 1614, |t, i| moves::unpack(t, i, S, true)),
    v("vupklsb", 654, |t, i| moves::unpack(t, i, B, false)),
    v("vupklsh", 718, |t, i| moves::unpack(t, i, H, false)),
    v("vupklsw", 1742, |t, i| moves::unpack(t, i, S, false)),
    v("vupkhpx", 846, |t, i| pure(t, i, VecOp::UnpackPixel, 0)),
    v("vupklpx", 974, |t, i| pure(t, i, VecOp::UnpackPixel, 1)),
    v("vspltb", 524, |t, i| moves::splat_element(t, i, 1)),
    v("vsplth", 588, |t, i| moves::splat_element(t, i, 2)),
    v("vspltw", 652, |t, i| moves::splat_element(t, i, 4)),
    v("vspltisb", 780, |t, i| moves::splat_immediate(t, i, B)),
    v("vspltish", 844, |t, i| moves::splat_immediate(t, i, H)),
    v("vspltisw", 908, |t, i| moves::splat_immediate(t, i, S)),
    va("vperm", 43, |t, i| moves::permute(t, i, false)),
    va("vpermr", 59, |t, i| moves::permute(t, i, true)).since(Isa::V3_0),
    va("vpermxor", 45, |t, i| pure3(t, i, VecOp::PermuteXor, 0)),
    row("vsldoi", 4, 0x43f, 44, moves::shift_double).vec(),
    v("vgbbd", 1292, bits::transpose_bits),
    v("vbpermq", 1356, bits::permute_bits),
    v30("vbpermd", 1484, |t, i| pure(t, i, VecOp::BitPermuteD, 0)),
    row("vgnb", 4, 0x0018_07ff, 1228, |t, i| to_gpr(t, i, VecOp::GatherNth, i.field(13, 15))).vec().since(Isa::V3_1),
    v30("vextractub", 525, |t, i| moves::extract(t, i, 1)),
    v30("vextractuh", 589, |t, i| moves::extract(t, i, 2)),
    v30("vextractuw", 653, |t, i| moves::extract(t, i, 4)),
    v30("vextractd", 717, |t, i| moves::extract(t, i, 8)),
    v30("vinsertb", 781, |t, i| moves::insert(t, i, 1, false)),
    v30("vinserth", 845, |t, i| moves::insert(t, i, 2, false)),
    v30("vinsertw", 909, |t, i| moves::insert(t, i, 4, false)),
    v30("vinsertd", 973, |t, i| moves::insert(t, i, 8, false)),
    v31("vinsw", 207, |t, i| moves::insert(t, i, 4, true)),
    v31("vinsd", 463, |t, i| moves::insert(t, i, 8, true)),
    v31("vinsbvlx", 15, |t, i| moves::insert_indexed(t, i, 0, true)),
    v31("vinshvlx", 79, |t, i| moves::insert_indexed(t, i, 1, true)),
    v31("vinswvlx", 143, |t, i| moves::insert_indexed(t, i, 2, true)),
    v31("vinsbvrx", 271, |t, i| moves::insert_indexed(t, i, 8, true)),
    v31("vinshvrx", 335, |t, i| moves::insert_indexed(t, i, 9, true)),
    v31("vinswvrx", 399, |t, i| moves::insert_indexed(t, i, 10, true)),
    v31("vinsblx", 527, |t, i| moves::insert_indexed(t, i, 0, false)),
    v31("vinshlx", 591, |t, i| moves::insert_indexed(t, i, 1, false)),
    v31("vinswlx", 655, |t, i| moves::insert_indexed(t, i, 2, false)),
    v31("vinsdlx", 719, |t, i| moves::insert_indexed(t, i, 3, false)),
    v31("vinsbrx", 783, |t, i| moves::insert_indexed(t, i, 8, false)),
    v31("vinshrx", 847, |t, i| moves::insert_indexed(t, i, 9, false)),
    v31("vinswrx", 911, |t, i| moves::insert_indexed(t, i, 10, false)),
    v31("vinsdrx", 975, |t, i| moves::insert_indexed(t, i, 11, false)),
    v30("vextublx", 1549, |t, i| moves::extract_indexed(t, i, 0)),
    v30("vextuhlx", 1613, |t, i| moves::extract_indexed(t, i, 1)),
    v30("vextuwlx", 1677, |t, i| moves::extract_indexed(t, i, 2)),
    v30("vextubrx", 1805, |t, i| moves::extract_indexed(t, i, 8)),
    v30("vextuhrx", 1869, |t, i| moves::extract_indexed(t, i, 9)),
    v30("vextuwrx", 1933, |t, i| moves::extract_indexed(t, i, 10)),
    va("vextdubvlx", 24, |t, i| moves::extract_double(t, i, 0)).since(Isa::V3_1),
    va("vextdubvrx", 25, |t, i| moves::extract_double(t, i, 8)).since(Isa::V3_1),
    va("vextduhvlx", 26, |t, i| moves::extract_double(t, i, 1)).since(Isa::V3_1),
    va("vextduhvrx", 27, |t, i| moves::extract_double(t, i, 9)).since(Isa::V3_1),
    va("vextduwvlx", 28, |t, i| moves::extract_double(t, i, 2)).since(Isa::V3_1),
    va("vextduwvrx", 29, |t, i| moves::extract_double(t, i, 10)).since(Isa::V3_1),
    va("vextddvlx", 30, |t, i| moves::extract_double(t, i, 3)).since(Isa::V3_1),
    va("vextddvrx", 31, |t, i| moves::extract_double(t, i, 11)).since(Isa::V3_1),
    v31("vclrlb", 397, |t, i| moves::clear(t, i, VecOp::ClearLeftmost)),
    v31("vclrrb", 461, |t, i| moves::clear(t, i, VecOp::ClearRightmost)),
    row("vstribl", 4, 0x001f_03ff, 13, |t, i| moves::strings(t, i, 0)).vec().since(Isa::V3_1),
    row("vstribr", 4, 0x001f_03ff, 0x1_0000 | 13, |t, i| moves::strings(t, i, 2)).vec().since(Isa::V3_1),
    row("vstrihl", 4, 0x001f_03ff, 0x2_0000 | 13, |t, i| moves::strings(t, i, 1)).vec().since(Isa::V3_1),
    row("vstrihr", 4, 0x001f_03ff, 0x3_0000 | 13, |t, i| moves::strings(t, i, 3)).vec().since(Isa::V3_1),
    row("mtvsrbmi", 4, 0x3e, 20, moves::mask_immediate).vec().since(Isa::V3_1),
    row("mfvscr", 4, 0x7ff, 1540, moves::read_vscr).vec(),
    row("mtvscr", 4, 0x7ff, 1604, moves::write_vscr).vec(),
];

/// vexpandbm and its like: VX-form 1602 with the operation in bits 11–15.
const fn mask(name: &'static str, sub: u32, handler: Handler) -> Pattern {
    va5(name, 1602, sub, handler).since(Isa::V3_1)
}

static MASKS: &[Pattern] = &[
    mask("vexpandbm", 0, |t, i| bits::expand_mask(t, i, 0)),
    mask("vexpandhm", 1, |t, i| bits::expand_mask(t, i, 1)),
    mask("vexpandwm", 2, |t, i| bits::expand_mask(t, i, 2)),
    mask("vexpanddm", 3, |t, i| bits::expand_mask(t, i, 3)),
    mask("vexpandqm", 4, |t, i| bits::expand_mask(t, i, 4)),
    mask("vextractbm", 8, |t, i| bits::extract_mask(t, i, 0)),
    mask("vextracthm", 9, |t, i| bits::extract_mask(t, i, 1)),
    mask("vextractwm", 10, |t, i| bits::extract_mask(t, i, 2)),
    mask("vextractdm", 11, |t, i| bits::extract_mask(t, i, 3)),
    mask("vextractqm", 12, |t, i| bits::extract_mask(t, i, 4)),
    mask("mtvsrbm", 16, |t, i| moves::mask(t, i, 3)),
    mask("mtvsrhm", 17, |t, i| moves::mask(t, i, 4)),
    mask("mtvsrwm", 18, |t, i| moves::mask(t, i, 5)),
    mask("mtvsrdm", 19, |t, i| moves::mask(t, i, 6)),
    mask("mtvsrqm", 20, |t, i| moves::mask(t, i, 7)),
    mask("vcntmbb", 24, |t, i| to_gpr(t, i, VecOp::CountMask, 3)),
    mask("vcntmbb", 25, |t, i| to_gpr(t, i, VecOp::CountMask, 3 | 8)),
    mask("vcntmbh", 26, |t, i| to_gpr(t, i, VecOp::CountMask, 4)),
    mask("vcntmbh", 27, |t, i| to_gpr(t, i, VecOp::CountMask, 4 | 8)),
    mask("vcntmbw", 28, |t, i| to_gpr(t, i, VecOp::CountMask, 5)),
    mask("vcntmbw", 29, |t, i| to_gpr(t, i, VecOp::CountMask, 5 | 8)),
    mask("vcntmbd", 30, |t, i| to_gpr(t, i, VecOp::CountMask, 6)),
    mask("vcntmbd", 31, |t, i| to_gpr(t, i, VecOp::CountMask, 6 | 8)),
];

static CRYPTO: &[Pattern] = &[
    v("vcipher", 1288, |t, i| crypto::aes(t, i, crypto::Round::Encrypt)),
    v("vcipherlast", 1289, |t, i| crypto::aes(t, i, crypto::Round::EncryptLast)),
    v("vncipher", 1352, |t, i| crypto::aes(t, i, crypto::Round::Decrypt)),
    v("vncipherlast", 1353, |t, i| crypto::aes(t, i, crypto::Round::DecryptLast)),
    v("vsbox", 1480, crypto::sbox),
    v("vshasigmaw", 1666, |t, i| crypto::sha_sigma(t, i, S)),
    v("vshasigmad", 1730, |t, i| crypto::sha_sigma(t, i, D)),
    v("vpmsumb", 1032, |t, i| pure(t, i, VecOp::MulSumPolynomial, 3)),
    v("vpmsumh", 1096, |t, i| pure(t, i, VecOp::MulSumPolynomial, 4)),
    v("vpmsumw", 1160, |t, i| pure(t, i, VecOp::MulSumPolynomial, 5)),
    v("vpmsumd", 1224, crypto::polynomial),
];

static DECIMAL: &[Pattern] = &[
    dec("bcdadd", 1, |t, i| bcd(t, i, 0)),
    dec("bcdsub", 65, |t, i| bcd(t, i, 1)),
    dec5("bcdcfn", 7, |t, i| bcd(t, i, 2)),
    dec5("bcdcfz", 6, |t, i| bcd(t, i, 3)),
    dec5("bcdctn", 5, |t, i| bcd(t, i, 4)),
    dec5("bcdctz", 4, |t, i| bcd(t, i, 5)),
    dec5("bcdcfsq", 2, |t, i| bcd(t, i, 6)),
    dec5("bcdctsq", 0, |t, i| bcd(t, i, 7)),
    dec5("bcdsetsgn", 31, |t, i| bcd(t, i, 9)),
    v30("bcdcpsgn", 833, |t, i| bcd(t, i, 8)),
    dec("bcds", 193, |t, i| bcd(t, i, 10)).since(Isa::V3_0),
    v30("bcdus", 1153, |t, i| bcd(t, i, 11)),
    dec("bcdsr", 449, |t, i| bcd(t, i, 12)).since(Isa::V3_0),
    dec("bcdtrunc", 257, |t, i| bcd(t, i, 13)).since(Isa::V3_0),
    v30("bcdutrunc", 1345, |t, i| bcd(t, i, 14)),
];

/// X-form of primary opcode 31.
const fn x31(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 31, 0x7fe, xo << 1, handler).vec()
}

static ACCESS: &[Pattern] = &[
    x31("lvx", 103, access::load),
    x31("lvxl", 359, access::load),
    x31("lvebx", 7, access::load),
    x31("lvehx", 39, access::load),
    x31("lvewx", 71, access::load),
    x31("stvx", 231, access::store),
    x31("stvxl", 487, access::store),
    x31("stvebx", 135, |t, i| access::store_element(t, i, 0)),
    x31("stvehx", 167, |t, i| access::store_element(t, i, 1)),
    x31("stvewx", 199, |t, i| access::store_element(t, i, 2)),
    x31("lvsl", 6, |t, i| access::shift_control(t, i, true)),
    x31("lvsr", 38, |t, i| access::shift_control(t, i, false)),
];

/// The tables of the facility.
pub static TABLES: &[&[Pattern]] = &[ARITHMETIC, COMPARE, FLOAT, LOGIC, MOVES, MASKS, CRYPTO, DECIMAL, ACCESS];
