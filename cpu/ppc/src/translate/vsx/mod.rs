//! Translation of VSX (Book I, chapter 7).

mod access;
pub mod helpers;
mod matrix;
mod moves;
mod partial;
mod quad;
mod scalar;
mod vector;

use super::{Flow, Pattern, Translator};
use crate::config::Isa;
use crate::exception::Vector;
use crate::fpu::{FpOp, LaneOp, VsxOp};
use crate::translate::decode::{Facility, Handler};
use crate::translate::fp::{access::Mode, row};
use crate::vector::VecOp;
use rhea_float::Rounding;
use rhea_ir::Lane::{B, D, H, S};
use rhea_ir::Op;

/// XX3-form: bits 21–28.
const fn x3(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 60, 0x7f8, xo << 3, handler).vsx()
}
/// XX2-form: bits 21–29.
const fn x2(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 60, 0x7fc, xo << 2, handler).vsx()
}
/// XX2-form with a part of the opcode in bits 11–15.
const fn x2a(name: &'static str, xo: u32, sub: u32, handler: Handler) -> Pattern {
    row(name, 60, 0x001f_07fc, sub << 16 | xo << 2, handler).vsx().since(Isa::V3_0)
}
/// A compare: XX3-form with Rc in bit 21.
const fn cmp(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 60, 0x3f8, (xo & 0x7f) << 3, handler).vsx()
}
/// X-form of primary opcode 31; the handler looks after the facility if it is not VSX.
const fn x31(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 31, 0x7fe, xo << 1, handler).vsx()
}
/// X-form of primary opcode 63 (quad precision, VSRs 32–63).
const fn x63(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 63, 0x7fe, xo << 1, handler).vsx().since(Isa::V3_0)
}
const fn x63a(name: &'static str, xo: u32, sub: u32, handler: Handler) -> Pattern {
    row(name, 63, 0x001f_07fe, sub << 16 | xo << 1, handler).vsx().since(Isa::V3_0)
}
/// Without a facility of its own: the handler calls [`Translator::unavailable_for`].
const fn free(mut p: Pattern) -> Pattern {
    p.facility = Facility::None;
    p
}

impl Translator<'_, '_> {
    /// Raises vector unavailable for VSRs 32–63, another interrupt for the others, if the facility is off.
    fn unavailable_for(&mut self, reg: u32, low: Vector) -> Option<Flow> {
        let (on, vector) = if reg >= 32 {
            (self.mode.vec(), Vector::VectorUnavailable)
        } else if low == Vector::FpUnavailable {
            (self.mode.fp(), low)
        } else {
            (self.mode.vsx(), Vector::VsxUnavailable)
        };
        if on { None } else { self.off(vector) }
    }
}

use scalar::{convert, one, round, three, two};
use vector as vec;

static SCALAR: &[Pattern] = &[
    x3("xsaddsp", 0, |t, i| two(t, i, FpOp::Add, true)),
    x3("xssubsp", 8, |t, i| two(t, i, FpOp::Sub, true)),
    x3("xsmulsp", 16, |t, i| two(t, i, FpOp::Mul, true)),
    x3("xsdivsp", 24, |t, i| two(t, i, FpOp::Div, true)),
    x3("xsadddp", 32, |t, i| two(t, i, FpOp::Add, false)),
    x3("xssubdp", 40, |t, i| two(t, i, FpOp::Sub, false)),
    x3("xsmuldp", 48, |t, i| two(t, i, FpOp::Mul, false)),
    x3("xsdivdp", 56, |t, i| two(t, i, FpOp::Div, false)),
    x3("xsmaddasp", 1, |t, i| three(t, i, FpOp::MulAdd, true, true)),
    x3("xsmaddmsp", 9, |t, i| three(t, i, FpOp::MulAdd, true, false)),
    x3("xsmsubasp", 17, |t, i| three(t, i, FpOp::MulSub, true, true)),
    x3("xsmsubmsp", 25, |t, i| three(t, i, FpOp::MulSub, true, false)),
    x3("xsmaddadp", 33, |t, i| three(t, i, FpOp::MulAdd, false, true)),
    x3("xsmaddmdp", 41, |t, i| three(t, i, FpOp::MulAdd, false, false)),
    x3("xsmsubadp", 49, |t, i| three(t, i, FpOp::MulSub, false, true)),
    x3("xsmsubmdp", 57, |t, i| three(t, i, FpOp::MulSub, false, false)),
    x3("xsnmaddasp", 129, |t, i| three(t, i, FpOp::NegMulAdd, true, true)),
    x3("xsnmaddmsp", 137, |t, i| three(t, i, FpOp::NegMulAdd, true, false)),
    x3("xsnmsubasp", 145, |t, i| three(t, i, FpOp::NegMulSub, true, true)),
    x3("xsnmsubmsp", 153, |t, i| three(t, i, FpOp::NegMulSub, true, false)),
    x3("xsnmaddadp", 161, |t, i| three(t, i, FpOp::NegMulAdd, false, true)),
    x3("xsnmaddmdp", 169, |t, i| three(t, i, FpOp::NegMulAdd, false, false)),
    x3("xsnmsubadp", 177, |t, i| three(t, i, FpOp::NegMulSub, false, true)),
    x3("xsnmsubmdp", 185, |t, i| three(t, i, FpOp::NegMulSub, false, false)),
    x3("xscmpeqdp", 3, |t, i| two(t, i, FpOp::CmpEq, false)).since(Isa::V3_0),
    x3("xscmpgtdp", 11, |t, i| two(t, i, FpOp::CmpGt, false)).since(Isa::V3_0),
    x3("xscmpgedp", 19, |t, i| two(t, i, FpOp::CmpGe, false)).since(Isa::V3_0),
    x3("xsmaxcdp", 128, |t, i| two(t, i, FpOp::MaxC, false)).since(Isa::V3_0),
    x3("xsmincdp", 136, |t, i| two(t, i, FpOp::MinC, false)).since(Isa::V3_0),
    x3("xsmaxjdp", 144, |t, i| two(t, i, FpOp::MaxJ, false)).since(Isa::V3_0),
    x3("xsminjdp", 152, |t, i| two(t, i, FpOp::MinJ, false)).since(Isa::V3_0),
    x3("xsmaxdp", 160, |t, i| two(t, i, FpOp::Max, false)),
    x3("xsmindp", 168, |t, i| two(t, i, FpOp::Min, false)),
    x3("xscpsgndp", 176, scalar::copy_sign),
    row("xscmpudp", 60, 0x0060_07f8, 35 << 3, |t, i| super::fp::compare(t, i, i.xa(), i.xb(), false)).vsx(),
    row("xscmpodp", 60, 0x0060_07f8, 43 << 3, |t, i| super::fp::compare(t, i, i.xa(), i.xb(), true)).vsx(),
    row("xscmpexpdp", 60, 0x0060_07f8, 59 << 3, |t, i| scalar::test(t, i, 0, 0)).vsx().since(Isa::V3_0),
    row("xstdivdp", 60, 0x0060_07f8, 61 << 3, |t, i| super::fp::test_div(t, i, i.xa(), i.xb())).vsx(),
    row("xstsqrtdp", 60, 0x0060_07fc, 106 << 2, |t, i| super::fp::test_sqrt(t, i, i.xb())).vsx(),
    row("xststdcdp", 60, 0x7fc, 362 << 2, |t, i| scalar::test(t, i, 2, i.field(9, 15))).vsx().since(Isa::V3_0),
    row("xststdcsp", 60, 0x7fc, 298 << 2, |t, i| scalar::test(t, i, 3, i.field(9, 15))).vsx().since(Isa::V3_0),
    x2("xssqrtsp", 11, |t, i| one(t, i, FpOp::Sqrt, true)),
    x2("xsrsqrtesp", 10, |t, i| one(t, i, FpOp::Rsqrt, true)),
    x2("xsresp", 26, |t, i| one(t, i, FpOp::Recip, true)),
    x2("xssqrtdp", 75, |t, i| one(t, i, FpOp::Sqrt, false)),
    x2("xsrsqrtedp", 74, |t, i| one(t, i, FpOp::Rsqrt, false)),
    x2("xsredp", 90, |t, i| one(t, i, FpOp::Recip, false)),
    x2("xsrsp", 281, |t, i| one(t, i, FpOp::Copy, true)),
    x2("xsrdpi", 73, |t, i| round(t, i, FpOp::RoundInt, Rounding::NearestAway)),
    x2("xsrdpiz", 89, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardZero)),
    x2("xsrdpip", 105, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardPositive)),
    x2("xsrdpim", 121, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardNegative)),
    x2("xsrdpic", 107, |t, i| one(t, i, FpOp::RoundIntExact, false)),
    x2("xscvdpuxws", 72, |t, i| round(t, i, FpOp::ToU32, Rounding::TowardZero)),
    x2("xscvdpsxws", 88, |t, i| round(t, i, FpOp::ToS32, Rounding::TowardZero)),
    x2("xscvdpuxds", 328, |t, i| round(t, i, FpOp::ToU64, Rounding::TowardZero)),
    x2("xscvdpsxds", 344, |t, i| round(t, i, FpOp::ToS64, Rounding::TowardZero)),
    x2("xscvuxdsp", 296, |t, i| one(t, i, FpOp::FromU, true)),
    x2("xscvsxdsp", 312, |t, i| one(t, i, FpOp::FromS, true)),
    x2("xscvuxddp", 360, |t, i| one(t, i, FpOp::FromU, false)),
    x2("xscvsxddp", 376, |t, i| one(t, i, FpOp::FromS, false)),
    x2("xscvdpsp", 265, |t, i| scalar::to_single(t, i, true)),
    x2("xscvdpspn", 267, |t, i| scalar::to_single(t, i, false)),
    x2("xscvspdp", 329, |t, i| scalar::from_single(t, i, true)),
    x2("xscvspdpn", 331, |t, i| scalar::from_single(t, i, false)),
    x2("xsabsdp", 345, scalar::signs),
    x2("xsnabsdp", 361, scalar::signs),
    x2("xsnegdp", 377, scalar::signs),
    x2a("xsxexpdp", 347, 0, |t, i| scalar::parts(t, i, true)),
    x2a("xsxsigdp", 347, 1, |t, i| scalar::parts(t, i, false)),
    x2a("xscvhpdp", 347, 16, |t, i| convert(t, i, VsxOp::HpToDp)),
    x2a("xscvdphp", 347, 17, |t, i| convert(t, i, VsxOp::DpToHp)),
    row("xsiexpdp", 60, 0x7fe, 918 << 1, scalar::assemble).vsx().since(Isa::V3_0),
];

static VECTOR: &[Pattern] = &[
    x3("xvaddsp", 64, |t, i| vec::two(t, i, Op::VFAdd, LaneOp::Add, S)),
    x3("xvsubsp", 72, |t, i| vec::two(t, i, Op::VFSub, LaneOp::Sub, S)),
    x3("xvmulsp", 80, |t, i| vec::two(t, i, Op::VFMul, LaneOp::Mul, S)),
    x3("xvdivsp", 88, |t, i| vec::two(t, i, Op::VFDiv, LaneOp::Div, S)),
    x3("xvadddp", 96, |t, i| vec::two(t, i, Op::VFAdd, LaneOp::Add, D)),
    x3("xvsubdp", 104, |t, i| vec::two(t, i, Op::VFSub, LaneOp::Sub, D)),
    x3("xvmuldp", 112, |t, i| vec::two(t, i, Op::VFMul, LaneOp::Mul, D)),
    x3("xvdivdp", 120, |t, i| vec::two(t, i, Op::VFDiv, LaneOp::Div, D)),
    x3("xvmaxsp", 192, |t, i| vec::two(t, i, Op::VFMaxNum, LaneOp::Max, S)),
    x3("xvminsp", 200, |t, i| vec::two(t, i, Op::VFMinNum, LaneOp::Min, S)),
    x3("xvmaxdp", 224, |t, i| vec::two(t, i, Op::VFMaxNum, LaneOp::Max, D)),
    x3("xvmindp", 232, |t, i| vec::two(t, i, Op::VFMinNum, LaneOp::Min, D)),
    x3("xvmaddasp", 65, |t, i| vec::three(t, i, LaneOp::MulAdd, S, true)),
    x3("xvmaddmsp", 73, |t, i| vec::three(t, i, LaneOp::MulAdd, S, false)),
    x3("xvmsubasp", 81, |t, i| vec::three(t, i, LaneOp::MulSub, S, true)),
    x3("xvmsubmsp", 89, |t, i| vec::three(t, i, LaneOp::MulSub, S, false)),
    x3("xvmaddadp", 97, |t, i| vec::three(t, i, LaneOp::MulAdd, D, true)),
    x3("xvmaddmdp", 105, |t, i| vec::three(t, i, LaneOp::MulAdd, D, false)),
    x3("xvmsubadp", 113, |t, i| vec::three(t, i, LaneOp::MulSub, D, true)),
    x3("xvmsubmdp", 121, |t, i| vec::three(t, i, LaneOp::MulSub, D, false)),
    x3("xvnmaddasp", 193, |t, i| vec::three(t, i, LaneOp::NegMulAdd, S, true)),
    x3("xvnmaddmsp", 201, |t, i| vec::three(t, i, LaneOp::NegMulAdd, S, false)),
    x3("xvnmsubasp", 209, |t, i| vec::three(t, i, LaneOp::NegMulSub, S, true)),
    x3("xvnmsubmsp", 217, |t, i| vec::three(t, i, LaneOp::NegMulSub, S, false)),
    x3("xvnmaddadp", 225, |t, i| vec::three(t, i, LaneOp::NegMulAdd, D, true)),
    x3("xvnmaddmdp", 233, |t, i| vec::three(t, i, LaneOp::NegMulAdd, D, false)),
    x3("xvnmsubadp", 241, |t, i| vec::three(t, i, LaneOp::NegMulSub, D, true)),
    x3("xvnmsubmdp", 249, |t, i| vec::three(t, i, LaneOp::NegMulSub, D, false)),
    cmp("xvcmpeqsp", 67, |t, i| vec::compare(t, i, Op::VFCmpEq, LaneOp::CmpEq, S)),
    cmp("xvcmpgtsp", 75, |t, i| vec::compare(t, i, Op::VFCmpGt, LaneOp::CmpGt, S)),
    cmp("xvcmpgesp", 83, |t, i| vec::compare(t, i, Op::VFCmpGe, LaneOp::CmpGe, S)),
    cmp("xvcmpeqdp", 99, |t, i| vec::compare(t, i, Op::VFCmpEq, LaneOp::CmpEq, D)),
    cmp("xvcmpgtdp", 107, |t, i| vec::compare(t, i, Op::VFCmpGt, LaneOp::CmpGt, D)),
    cmp("xvcmpgedp", 115, |t, i| vec::compare(t, i, Op::VFCmpGe, LaneOp::CmpGe, D)),
    x3("xvcpsgnsp", 208, |t, i| vec::copy_sign(t, i, S)),
    x3("xvcpsgndp", 240, |t, i| vec::copy_sign(t, i, D)),
    x3("xviexpsp", 216, |t, i| vec::assemble(t, i, S)).since(Isa::V3_0),
    x3("xviexpdp", 248, |t, i| vec::assemble(t, i, D)).since(Isa::V3_0),
    row("xvtdivsp", 60, 0x0060_07f8, 93 << 3, |t, i| vec::test(t, i, 1)).vsx(),
    row("xvtdivdp", 60, 0x0060_07f8, 125 << 3, |t, i| vec::test(t, i, 0)).vsx(),
    row("xvtsqrtsp", 60, 0x0060_07fc, 170 << 2, |t, i| vec::test(t, i, 3)).vsx(),
    row("xvtsqrtdp", 60, 0x0060_07fc, 234 << 2, |t, i| vec::test(t, i, 2)).vsx(),
    row("xvtstdcsp", 60, 0x7b8, 213 << 3, |t, i| vec::classes(t, i, 0)).vsx().since(Isa::V3_0),
    row("xvtstdcdp", 60, 0x7b8, 245 << 3, |t, i| vec::classes(t, i, 128)).vsx().since(Isa::V3_0),
    x2("xvsqrtsp", 139, |t, i| vec::one(t, i, LaneOp::Sqrt, S)),
    x2("xvrsqrtesp", 138, |t, i| vec::one(t, i, LaneOp::Rsqrt, S)),
    x2("xvresp", 154, |t, i| vec::one(t, i, LaneOp::Recip, S)),
    x2("xvsqrtdp", 203, |t, i| vec::one(t, i, LaneOp::Sqrt, D)),
    x2("xvrsqrtedp", 202, |t, i| vec::one(t, i, LaneOp::Rsqrt, D)),
    x2("xvredp", 218, |t, i| vec::one(t, i, LaneOp::Recip, D)),
    x2("xvrspi", 137, |t, i| vec::round(t, i, Some(Rounding::NearestAway), S)),
    x2("xvrspiz", 153, |t, i| vec::round(t, i, Some(Rounding::TowardZero), S)),
    x2("xvrspip", 169, |t, i| vec::round(t, i, Some(Rounding::TowardPositive), S)),
    x2("xvrspim", 185, |t, i| vec::round(t, i, Some(Rounding::TowardNegative), S)),
    x2("xvrspic", 171, |t, i| vec::round(t, i, None, S)),
    x2("xvrdpi", 201, |t, i| vec::round(t, i, Some(Rounding::NearestAway), D)),
    x2("xvrdpiz", 217, |t, i| vec::round(t, i, Some(Rounding::TowardZero), D)),
    x2("xvrdpip", 233, |t, i| vec::round(t, i, Some(Rounding::TowardPositive), D)),
    x2("xvrdpim", 249, |t, i| vec::round(t, i, Some(Rounding::TowardNegative), D)),
    x2("xvrdpic", 235, |t, i| vec::round(t, i, None, D)),
    x2("xvcvspsxws", 152, |t, i| vec::to_int(t, i, Op::VFToS, LaneOp::ToS32, S)),
    x2("xvcvspuxws", 136, |t, i| vec::to_int(t, i, Op::VFToU, LaneOp::ToU32, S)),
    x2("xvcvdpsxds", 472, |t, i| vec::to_int(t, i, Op::VFToS, LaneOp::ToS64, D)),
    x2("xvcvdpuxds", 456, |t, i| vec::to_int(t, i, Op::VFToU, LaneOp::ToU64, D)),
    x2("xvcvsxwsp", 184, |t, i| vec::from_int(t, i, Op::VSToF, LaneOp::FromS32, S)),
    x2("xvcvuxwsp", 168, |t, i| vec::from_int(t, i, Op::VUToF, LaneOp::FromU32, S)),
    x2("xvcvsxddp", 504, |t, i| vec::from_int(t, i, Op::VSToF, LaneOp::FromS64, D)),
    x2("xvcvuxddp", 488, |t, i| vec::from_int(t, i, Op::VUToF, LaneOp::FromU64, D)),
    x2("xvcvsxwdp", 248, |t, i| vec::from_words(t, i, true)),
    x2("xvcvuxwdp", 232, |t, i| vec::from_words(t, i, false)),
    x2("xvcvdpsxws", 216, |t, i| convert(t, i, VsxOp::DpToSxw)),
    x2("xvcvdpuxws", 200, |t, i| convert(t, i, VsxOp::DpToUxw)),
    x2("xvcvspsxds", 408, |t, i| convert(t, i, VsxOp::SpToSxd)),
    x2("xvcvspuxds", 392, |t, i| convert(t, i, VsxOp::SpToUxd)),
    x2("xvcvsxdsp", 440, |t, i| convert(t, i, VsxOp::SxdToSp)),
    x2("xvcvuxdsp", 424, |t, i| convert(t, i, VsxOp::UxdToSp)),
    x2("xvcvdpsp", 393, vec::narrow),
    x2("xvcvspdp", 457, vec::widen),
    x2("xvabssp", 409, |t, i| vec::signs(t, i, S)),
    x2("xvnabssp", 425, |t, i| vec::signs(t, i, S)),
    x2("xvnegsp", 441, |t, i| vec::signs(t, i, S)),
    x2("xvabsdp", 473, |t, i| vec::signs(t, i, D)),
    x2("xvnabsdp", 489, |t, i| vec::signs(t, i, D)),
    x2("xvnegdp", 505, |t, i| vec::signs(t, i, D)),
    x2a("xvxexpdp", 475, 0, |t, i| vec::parts(t, i, D, true)),
    x2a("xvxsigdp", 475, 1, |t, i| vec::parts(t, i, D, false)),
    x2a("xvxexpsp", 475, 8, |t, i| vec::parts(t, i, S, true)),
    x2a("xvxsigsp", 475, 9, |t, i| vec::parts(t, i, S, false)),
    row("xvtlsbb", 60, 0x007f_07fc, 2 << 16 | 475 << 2, vec::test_lsb).vsx().since(Isa::V3_1),
    x2a("xvcvbf16spn", 475, 16, vec::from_bf16).since(Isa::V3_1),
    x2a("xvcvspbf16", 475, 17, |t, i| convert(t, i, VsxOp::SpToBf16)).since(Isa::V3_1),
    x2a("xvcvhpsp", 475, 24, |t, i| convert(t, i, VsxOp::HpToSp)),
    x2a("xvcvsphp", 475, 25, |t, i| convert(t, i, VsxOp::SpToHp)),
];

static MOVES: &[Pattern] = &[
    x3("xxland", 130, |t, i| moves::logic(t, i, Op::VAnd, false)),
    x3("xxlandc", 138, |t, i| moves::logic(t, i, Op::VAndNot, false)),
    x3("xxlor", 146, |t, i| moves::logic(t, i, Op::VOr, false)),
    x3("xxlxor", 154, |t, i| moves::logic(t, i, Op::VXor, false)),
    x3("xxlnor", 162, |t, i| moves::logic(t, i, Op::VOr, true)),
    x3("xxlorc", 170, moves::or_complement),
    x3("xxlnand", 178, |t, i| moves::logic(t, i, Op::VAnd, true)),
    x3("xxleqv", 186, |t, i| moves::logic(t, i, Op::VXor, true)),
    x3("xxmrghw", 18, |t, i| moves::merge(t, i, 0)),
    x3("xxmrglw", 50, |t, i| moves::merge(t, i, 8)),
    x3("xxperm", 26, |t, i| moves::permute(t, i, false)).since(Isa::V3_0),
    x3("xxpermr", 58, |t, i| moves::permute(t, i, true)).since(Isa::V3_0),
    row("xxsldwi", 60, 0x4f8, 2 << 3, moves::shift_words).vsx(),
    row("xxpermdi", 60, 0x4f8, 10 << 3, moves::doublewords).vsx(),
    row("xxsel", 60, 0x30, 0x30, moves::select).vsx(),
    row("xxspltw", 60, 0x001c_07fc, 164 << 2, moves::splat_word).vsx(),
    free(row("xxspltib", 60, 0x0018_07fe, 360 << 1, moves::splat_byte)).since(Isa::V3_0),
    free(row("lxvkq", 60, 0x001f_07fe, 31 << 16 | 360 << 1, moves::load_constant)).since(Isa::V3_1),
    row("xxextractuw", 60, 0x0010_07fc, 165 << 2, moves::extract_word).vsx().since(Isa::V3_0),
    row("xxinsertw", 60, 0x0010_07fc, 181 << 2, moves::insert_word).vsx().since(Isa::V3_0),
    x2a("xxbrh", 475, 7, |t, i| moves::reverse(t, i, 2)),
    x2a("xxbrw", 475, 15, |t, i| moves::reverse(t, i, 4)),
    x2a("xxbrd", 475, 23, |t, i| moves::reverse(t, i, 8)),
    x2a("xxbrq", 475, 31, |t, i| moves::reverse(t, i, 16)),
    row("xxgenpcvbm", 60, 0x7fe, 916 << 1, |t, i| moves::generate(t, i, 0)).vsx().since(Isa::V3_1),
    row("xxgenpcvhm", 60, 0x7fe, 917 << 1, |t, i| moves::generate(t, i, 1)).vsx().since(Isa::V3_1),
    row("xxgenpcvwm", 60, 0x7fe, 948 << 1, |t, i| moves::generate(t, i, 2)).vsx().since(Isa::V3_1),
    row("xxgenpcvdm", 60, 0x7fe, 949 << 1, |t, i| moves::generate(t, i, 3)).vsx().since(Isa::V3_1),
    free(x31("mfvsrd", 51, |t, i| moves::to_gpr(t, i, moves::Part::Double))),
    free(x31("mfvsrwz", 115, |t, i| moves::to_gpr(t, i, moves::Part::Word))),
    free(x31("mfvsrld", 307, |t, i| moves::to_gpr(t, i, moves::Part::Low))).since(Isa::V3_0),
    free(x31("mtvsrd", 179, |t, i| moves::from_gpr(t, i, moves::Part::Double))),
    free(x31("mtvsrwa", 211, |t, i| moves::from_gpr(t, i, moves::Part::WordSigned))),
    free(x31("mtvsrwz", 243, |t, i| moves::from_gpr(t, i, moves::Part::Word))),
    free(x31("mtvsrws", 403, |t, i| moves::from_gpr(t, i, moves::Part::Splat))).since(Isa::V3_0),
    free(x31("mtvsrdd", 435, |t, i| moves::from_gpr(t, i, moves::Part::Both))).since(Isa::V3_0),
];

static ACCESS: &[Pattern] = &[
    free(row("lxv", 61, 7, 1, |t, i| access::quad(t, i, Mode::D, i.rt() | i.field(28, 28) << 5, false)))
        .since(Isa::V3_0),
    free(row("stxv", 61, 7, 5, |t, i| access::quad(t, i, Mode::D, i.rt() | i.field(28, 28) << 5, true)))
        .since(Isa::V3_0),
    free(x31("lxvx", 268, |t, i| access::quad(t, i, Mode::X, i.xt(), false))).since(Isa::V3_0),
    free(x31("stxvx", 396, |t, i| access::quad(t, i, Mode::X, i.xt(), true))).since(Isa::V3_0),
    x31("lxvd2x", 844, |t, i| access::elements(t, i, 8, false)),
    x31("lxvw4x", 780, |t, i| access::elements(t, i, 4, false)),
    free(x31("lxvh8x", 812, |t, i| access::elements(t, i, 2, false))).since(Isa::V3_0),
    free(x31("lxvb16x", 876, |t, i| access::elements(t, i, 1, false))).since(Isa::V3_0),
    x31("stxvd2x", 972, |t, i| access::elements(t, i, 8, true)),
    x31("stxvw4x", 908, |t, i| access::elements(t, i, 4, true)),
    free(x31("stxvh8x", 940, |t, i| access::elements(t, i, 2, true))).since(Isa::V3_0),
    free(x31("stxvb16x", 1004, |t, i| access::elements(t, i, 1, true))).since(Isa::V3_0),
    x31("lxvdsx", 332, |t, i| access::splat(t, i, D)),
    free(x31("lxvwsx", 364, |t, i| access::splat(t, i, S))).since(Isa::V3_0),
    x31("lxsdx", 588, |t, i| access::scalar(t, i, access::Scalar::Double, false)),
    x31("lxsspx", 524, |t, i| access::scalar(t, i, access::Scalar::Single, false)),
    x31("lxsiwax", 76, |t, i| access::scalar(t, i, access::Scalar::WordSigned, false)),
    x31("lxsiwzx", 12, |t, i| access::scalar(t, i, access::Scalar::Int(2), false)),
    free(x31("lxsibzx", 781, |t, i| access::scalar(t, i, access::Scalar::Int(0), false))).since(Isa::V3_0),
    free(x31("lxsihzx", 813, |t, i| access::scalar(t, i, access::Scalar::Int(1), false))).since(Isa::V3_0),
    x31("stxsdx", 716, |t, i| access::scalar(t, i, access::Scalar::Double, true)),
    x31("stxsspx", 652, |t, i| access::scalar(t, i, access::Scalar::Single, true)),
    x31("stxsiwx", 140, |t, i| access::scalar(t, i, access::Scalar::Int(2), true)),
    free(x31("stxsibx", 909, |t, i| access::scalar(t, i, access::Scalar::Int(0), true))).since(Isa::V3_0),
    free(x31("stxsihx", 941, |t, i| access::scalar(t, i, access::Scalar::Int(1), true))).since(Isa::V3_0),
    row("lxsd", 57, 3, 2, |t, i| access::high(t, i, Mode::Ds, false, false)).vec().since(Isa::V3_0),
    row("lxssp", 57, 3, 3, |t, i| access::high(t, i, Mode::Ds, true, false)).vec().since(Isa::V3_0),
    row("stxsd", 61, 3, 2, |t, i| access::high(t, i, Mode::Ds, false, true)).vec().since(Isa::V3_0),
    row("stxssp", 61, 3, 3, |t, i| access::high(t, i, Mode::Ds, true, true)).vec().since(Isa::V3_0),
    free(x31("lxvl", 269, |t, i| partial::load(t, i, false))).since(Isa::V3_0),
    free(x31("lxvll", 301, |t, i| partial::load(t, i, true))).since(Isa::V3_0),
    free(x31("stxvl", 397, |t, i| partial::store(t, i, false))).since(Isa::V3_0),
    free(x31("stxvll", 429, |t, i| partial::store(t, i, true))).since(Isa::V3_0),
    free(x31("lxvrbx", 13, |t, i| access::rightmost(t, i, 0, false))).since(Isa::V3_1),
    free(x31("lxvrhx", 45, |t, i| access::rightmost(t, i, 1, false))).since(Isa::V3_1),
    free(x31("lxvrwx", 77, |t, i| access::rightmost(t, i, 2, false))).since(Isa::V3_1),
    free(x31("lxvrdx", 109, |t, i| access::rightmost(t, i, 3, false))).since(Isa::V3_1),
    free(x31("stxvrbx", 141, |t, i| access::rightmost(t, i, 0, true))).since(Isa::V3_1),
    free(x31("stxvrhx", 173, |t, i| access::rightmost(t, i, 1, true))).since(Isa::V3_1),
    free(x31("stxvrwx", 205, |t, i| access::rightmost(t, i, 2, true))).since(Isa::V3_1),
    free(x31("stxvrdx", 237, |t, i| access::rightmost(t, i, 3, true))).since(Isa::V3_1),
    row("lxvp", 6, 15, 0, |t, i| access::pair(t, i, Mode::D, false)).vsx().since(Isa::V3_1),
    row("stxvp", 6, 15, 1, |t, i| access::pair(t, i, Mode::D, true)).vsx().since(Isa::V3_1),
    x31("lxvpx", 333, |t, i| access::pair(t, i, Mode::X, false)).since(Isa::V3_1),
    x31("stxvpx", 461, |t, i| access::pair(t, i, Mode::X, true)).since(Isa::V3_1),
];

use quad::{arithmetic, compare as qcompare, round as qround, unary};

static QUAD: &[Pattern] = &[
    x63("xsaddqp", 4, |t, i| arithmetic(t, i, VsxOp::QAdd)),
    x63("xsmulqp", 36, |t, i| arithmetic(t, i, VsxOp::QMul)),
    x63("xssubqp", 516, |t, i| arithmetic(t, i, VsxOp::QSub)),
    x63("xsdivqp", 548, |t, i| arithmetic(t, i, VsxOp::QDiv)),
    x63("xsmaddqp", 388, |t, i| arithmetic(t, i, VsxOp::QMulAdd)),
    x63("xsmsubqp", 420, |t, i| arithmetic(t, i, VsxOp::QMulSub)),
    x63("xsnmaddqp", 452, |t, i| arithmetic(t, i, VsxOp::QNegMulAdd)),
    x63("xsnmsubqp", 484, |t, i| arithmetic(t, i, VsxOp::QNegMulSub)),
    x63("xscmpeqqp", 68, |t, i| arithmetic(t, i, VsxOp::QCmpEq)).since(Isa::V3_1),
    x63("xscmpgeqp", 196, |t, i| arithmetic(t, i, VsxOp::QCmpGe)).since(Isa::V3_1),
    x63("xscmpgtqp", 228, |t, i| arithmetic(t, i, VsxOp::QCmpGt)).since(Isa::V3_1),
    x63("xsmaxcqp", 676, |t, i| arithmetic(t, i, VsxOp::QMax)).since(Isa::V3_1),
    x63("xsmincqp", 740, |t, i| arithmetic(t, i, VsxOp::QMin)).since(Isa::V3_1),
    x63("xscpsgnqp", 100, quad::copy_sign),
    row("xscmpoqp", 63, 0x0060_07ff, 132 << 1, |t, i| qcompare(t, i, true)).vsx().since(Isa::V3_0),
    row("xscmpuqp", 63, 0x0060_07ff, 644 << 1, |t, i| qcompare(t, i, false)).vsx().since(Isa::V3_0),
    row("xscmpexpqp", 63, 0x0060_07ff, 164 << 1, |t, i| quad::test(t, i, 1, 0)).vsx().since(Isa::V3_0),
    x63("xststdcqp", 708, |t, i| quad::test(t, i, 4, i.field(9, 15))),
    x63a("xsabsqp", 804, 0, |t, i| quad::signs(t, i, 0)),
    x63a("xsnabsqp", 804, 8, |t, i| quad::signs(t, i, 8)),
    x63a("xsnegqp", 804, 16, |t, i| quad::signs(t, i, 16)),
    x63a("xsxexpqp", 804, 2, |t, i| quad::parts(t, i, true)),
    x63a("xsxsigqp", 804, 18, |t, i| quad::parts(t, i, false)),
    x63a("xssqrtqp", 804, 27, |t, i| unary(t, i, VsxOp::QSqrt)),
    x63("xsiexpqp", 868, quad::assemble),
    x63a("xscvqpuqz", 836, 0, |t, i| unary(t, i, VsxOp::QToUq)).since(Isa::V3_1),
    x63a("xscvqpuwz", 836, 1, |t, i| unary(t, i, VsxOp::QToUw)),
    x63a("xscvudqp", 836, 2, |t, i| unary(t, i, VsxOp::QFromUd)),
    x63a("xscvuqqp", 836, 3, |t, i| unary(t, i, VsxOp::QFromUq)).since(Isa::V3_1),
    x63a("xscvqpsqz", 836, 8, |t, i| unary(t, i, VsxOp::QToSq)).since(Isa::V3_1),
    x63a("xscvqpswz", 836, 9, |t, i| unary(t, i, VsxOp::QToSw)),
    x63a("xscvsdqp", 836, 10, |t, i| unary(t, i, VsxOp::QFromSd)),
    x63a("xscvsqqp", 836, 11, |t, i| unary(t, i, VsxOp::QFromSq)).since(Isa::V3_1),
    x63a("xscvqpudz", 836, 17, |t, i| unary(t, i, VsxOp::QToUd)),
    x63a("xscvqpdp", 836, 20, |t, i| unary(t, i, VsxOp::QToDp)),
    x63a("xscvdpqp", 836, 22, |t, i| unary(t, i, VsxOp::QFromDp)),
    x63a("xscvqpsdz", 836, 25, |t, i| unary(t, i, VsxOp::QToSd)),
    row("xsrqpi", 63, 0x1fe, 5 << 1, |t, i| qround(t, i, VsxOp::QRound)).vsx().since(Isa::V3_0),
    row("xsrqpxp", 63, 0x1fe, 37 << 1, |t, i| qround(t, i, VsxOp::QRoundExtended)).vsx().since(Isa::V3_0),
];

/// The tables of the facility.
pub static TABLES: &[&[Pattern]] = &[SCALAR, VECTOR, MOVES, ACCESS, QUAD, matrix::PATTERNS];

/// A prefixed instruction of a type and subtype: the suffix's fixed bits.
const fn prefixed(name: &'static str, kind: u64, pmask: u64, mask: u64, value: u64, handler: Handler) -> Pattern {
    Pattern {
        name,
        bits: "",
        mask: (0xfff0_0000 | pmask) << 32 | mask,
        value: (0x0400_0000 | kind << 20) << 32 | value,
        handler,
        since: Isa::V3_1,
        until: Isa::V3_1,
        facility: Facility::Vsx,
        privileged: false,
    }
}
/// 8LS-form: type 0, bits 12–13 reserved.
const fn ls(name: &'static str, primary: u64, mask: u64, handler: Handler) -> Pattern {
    prefixed(name, 0, 0x000c_0000, 0xfc00_0000 & !(mask << 26), primary << 26, handler)
}
/// 8RR-form: type 1.
const fn rr(name: &'static str, primary: u64, mask: u64, value: u64, handler: Handler) -> Pattern {
    prefixed(name, 0x10, 0, 0xfc00_0000 | mask, primary << 26 | value, handler)
}

pub static MATRIX: &[Pattern] = &matrix::MASKED;
pub static PREFIXED: &[Pattern] = &[
    ls("plxsd", 42, 0, |t, i| access::high(t, i, Mode::Prefixed, false, false)).vec(),
    ls("plxssp", 43, 0, |t, i| access::high(t, i, Mode::Prefixed, true, false)).vec(),
    ls("pstxsd", 46, 0, |t, i| access::high(t, i, Mode::Prefixed, false, true)).vec(),
    ls("pstxssp", 47, 0, |t, i| access::high(t, i, Mode::Prefixed, true, true)).vec(),
    free(ls("plxv", 50, 1, |t, i| access::quad(t, i, Mode::Prefixed, i.rt() | i.field(5, 5) << 5, false))),
    free(ls("pstxv", 54, 1, |t, i| access::quad(t, i, Mode::Prefixed, i.rt() | i.field(5, 5) << 5, true))),
    ls("plxvp", 58, 0, |t, i| access::pair(t, i, Mode::Prefixed, false)),
    ls("pstxvp", 62, 0, |t, i| access::pair(t, i, Mode::Prefixed, true)),
    rr("xxsplti32dx", 32, 0x001c_0000, 0, moves::splat_immediate),
    rr("xxspltidp", 32, 0x001e_0000, 2 << 17, moves::splat_immediate),
    rr("xxspltiw", 32, 0x001e_0000, 3 << 17, moves::splat_immediate),
    rr("xxblendvb", 33, 0x30, 0, |t, i| moves::blend(t, i, B)),
    rr("xxblendvh", 33, 0x30, 0x10, |t, i| moves::blend(t, i, H)),
    rr("xxblendvw", 33, 0x30, 0x20, |t, i| moves::blend(t, i, S)),
    rr("xxblendvd", 33, 0x30, 0x30, |t, i| moves::blend(t, i, D)),
    rr("xxpermx", 34, 0x30, 0, |t, i| moves::ternary(t, i, VecOp::PermuteExtended, i.prefix().field(29, 31))),
    rr("xxeval", 34, 0x30, 0x10, |t, i| moves::ternary(t, i, VecOp::Evaluate, i.prefix().field(24, 31))),
];
