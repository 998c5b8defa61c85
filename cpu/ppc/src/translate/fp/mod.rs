//! Translation of binary floating-point instructions (Book I, chapter 4).

pub(super) mod access;
mod emit;
pub(super) use emit::cr_from_bits;
pub(super) use emit::{compare, test_div, test_sqrt};
pub mod helpers;
mod status;

use super::{Flow, Insn, Pattern, Translator};
use crate::config::Isa;
use crate::fpu::{FpOp, Note};
use crate::translate::decode::{Facility, Handler};
use rhea_float::Rounding;

/// A row by primary opcode and extended opcode: which bits of the word are fixed besides the primary opcode, and their values.
pub(super) const fn row(name: &'static str, primary: u32, mask: u32, value: u32, handler: Handler) -> Pattern {
    Pattern {
        name,
        bits: "",
        mask: 0xfc00_0000 | mask as u64,
        value: (primary << 26 | value) as u64,
        handler,
        since: Isa::V2_07,
        until: Isa::V3_1,
        facility: Facility::None,
        privileged: false,
    }
}

/// X-form: extended opcode in bits 21–30, any bit 31.
pub(super) const fn x(name: &'static str, primary: u32, xo: u32, handler: Handler) -> Pattern {
    row(name, primary, 0x7fe, xo << 1, handler).fp()
}
/// A-form: bits 26–30.
const fn a(name: &'static str, primary: u32, xo: u32, handler: Handler) -> Pattern {
    row(name, primary, 0x3e, xo << 1, handler).fp()
}
const fn d(name: &'static str, primary: u32, handler: Handler) -> Pattern {
    row(name, primary, 0, 0, handler).fp()
}

/// `FRT ← op(FRA, FRB)`.
fn two(t: &mut Translator, i: Insn, op: FpOp, single: bool) -> Flow {
    t.fp_scalar(Note::new(op, single), i.rt(), [i.ra(), i.rb(), 0]);
    t.fp_record(i)
}
/// `FRT ← op(FRA, FRC)`.
fn mul(t: &mut Translator, i: Insn, single: bool) -> Flow {
    t.fp_scalar(Note::new(FpOp::Mul, single), i.rt(), [i.ra(), i.rc_reg(), 0]);
    t.fp_record(i)
}
/// `FRT ← op(FRB)`.
fn one(t: &mut Translator, i: Insn, op: FpOp, single: bool) -> Flow {
    t.fp_scalar(Note::new(op, single), i.rt(), [i.rb(), 0, 0]);
    t.fp_record(i)
}
/// The same with a rounding mode of its own.
fn round(t: &mut Translator, i: Insn, op: FpOp, mode: Rounding) -> Flow {
    t.fp_scalar(Note::new(op, false).rounding(mode), i.rt(), [i.rb(), 0, 0]);
    t.fp_record(i)
}
/// `FRT ← FRA × FRC + FRB` and its like.
fn three(t: &mut Translator, i: Insn, op: FpOp, single: bool) -> Flow {
    t.fp_scalar(Note::new(op, single), i.rt(), [i.ra(), i.rc_reg(), i.rb()]);
    t.fp_record(i)
}

pub static PATTERNS: &[Pattern] = &[
    a("fadd", 63, 21, |t, i| two(t, i, FpOp::Add, false)),
    a("fsub", 63, 20, |t, i| two(t, i, FpOp::Sub, false)),
    a("fdiv", 63, 18, |t, i| two(t, i, FpOp::Div, false)),
    a("fmul", 63, 25, |t, i| mul(t, i, false)),
    a("fsqrt", 63, 22, |t, i| one(t, i, FpOp::Sqrt, false)),
    a("fre", 63, 24, |t, i| one(t, i, FpOp::Recip, false)),
    a("frsqrte", 63, 26, |t, i| one(t, i, FpOp::Rsqrt, false)),
    a("fmadd", 63, 29, |t, i| three(t, i, FpOp::MulAdd, false)),
    a("fmsub", 63, 28, |t, i| three(t, i, FpOp::MulSub, false)),
    a("fnmadd", 63, 31, |t, i| three(t, i, FpOp::NegMulAdd, false)),
    a("fnmsub", 63, 30, |t, i| three(t, i, FpOp::NegMulSub, false)),
    a("fsel", 63, 23, emit::select),
    a("fadds", 59, 21, |t, i| two(t, i, FpOp::Add, true)),
    a("fsubs", 59, 20, |t, i| two(t, i, FpOp::Sub, true)),
    a("fdivs", 59, 18, |t, i| two(t, i, FpOp::Div, true)),
    a("fmuls", 59, 25, |t, i| mul(t, i, true)),
    a("fsqrts", 59, 22, |t, i| one(t, i, FpOp::Sqrt, true)),
    a("fres", 59, 24, |t, i| one(t, i, FpOp::Recip, true)),
    a("frsqrtes", 59, 26, |t, i| one(t, i, FpOp::Rsqrt, true)),
    a("fmadds", 59, 29, |t, i| three(t, i, FpOp::MulAdd, true)),
    a("fmsubs", 59, 28, |t, i| three(t, i, FpOp::MulSub, true)),
    a("fnmadds", 59, 31, |t, i| three(t, i, FpOp::NegMulAdd, true)),
    a("fnmsubs", 59, 30, |t, i| three(t, i, FpOp::NegMulSub, true)),
    x("frsp", 63, 12, |t, i| one(t, i, FpOp::Copy, true)),
    x("fctiw", 63, 14, |t, i| one(t, i, FpOp::ToS32, false)),
    x("fctiwz", 63, 15, |t, i| round(t, i, FpOp::ToS32, Rounding::TowardZero)),
    x("fctiwu", 63, 142, |t, i| one(t, i, FpOp::ToU32, false)),
    x("fctiwuz", 63, 143, |t, i| round(t, i, FpOp::ToU32, Rounding::TowardZero)),
    x("fctid", 63, 814, |t, i| one(t, i, FpOp::ToS64, false)),
    x("fctidz", 63, 815, |t, i| round(t, i, FpOp::ToS64, Rounding::TowardZero)),
    x("fctidu", 63, 942, |t, i| one(t, i, FpOp::ToU64, false)),
    x("fctiduz", 63, 943, |t, i| round(t, i, FpOp::ToU64, Rounding::TowardZero)),
    x("fcfid", 63, 846, |t, i| one(t, i, FpOp::FromS, false)),
    x("fcfidu", 63, 974, |t, i| one(t, i, FpOp::FromU, false)),
    x("fcfids", 59, 846, |t, i| one(t, i, FpOp::FromS, true)),
    x("fcfidus", 59, 974, |t, i| one(t, i, FpOp::FromU, true)),
    x("frin", 63, 392, |t, i| round(t, i, FpOp::RoundInt, Rounding::NearestAway)),
    x("friz", 63, 424, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardZero)),
    x("frip", 63, 456, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardPositive)),
    x("frim", 63, 488, |t, i| round(t, i, FpOp::RoundInt, Rounding::TowardNegative)),
    x("fmr", 63, 72, emit::moves),
    x("fneg", 63, 40, emit::moves),
    x("fabs", 63, 264, emit::moves),
    x("fnabs", 63, 136, emit::moves),
    x("fcpsgn", 63, 8, emit::copy_sign),
    row("fmrgew", 63, 0x7ff, 966 << 1, |t, i| emit::merge_words(t, i, true)).vsx(),
    row("fmrgow", 63, 0x7ff, 838 << 1, |t, i| emit::merge_words(t, i, false)).vsx(),
    row("fcmpu", 63, 0x0060_07ff, 0, |t, i| emit::compare(t, i, i.ra(), i.rb(), false)).fp(),
    row("fcmpo", 63, 0x0060_07ff, 32 << 1, |t, i| emit::compare(t, i, i.ra(), i.rb(), true)).fp(),
    row("ftdiv", 63, 0x0060_07ff, 128 << 1, |t, i| emit::test_div(t, i, i.ra(), i.rb())).fp(),
    row("ftsqrt", 63, 0x0060_07ff, 160 << 1, |t, i| emit::test_sqrt(t, i, i.rb())).fp(),
    // Status and control.
    row("mffs", 63, 0x001f_07fe, 583 << 1, status::read).fp(),
    row("mffsce", 63, 0x001f_07ff, 0x0001_0000 | 583 << 1, status::change).since(Isa::V3_0).fp(),
    row("mffscdrn", 63, 0x001f_07ff, 0x0014_0000 | 583 << 1, status::change).since(Isa::V3_0).fp(),
    row("mffscdrni", 63, 0x001f_07ff, 0x0015_0000 | 583 << 1, status::change).since(Isa::V3_0).fp(),
    row("mffscrn", 63, 0x001f_07ff, 0x0016_0000 | 583 << 1, status::change).since(Isa::V3_0).fp(),
    row("mffscrni", 63, 0x001f_07ff, 0x0017_0000 | 583 << 1, status::change).since(Isa::V3_0).fp(),
    row("mffsl", 63, 0x001f_07ff, 0x0018_0000 | 583 << 1, status::read).since(Isa::V3_0).fp(),
    x("mtfsf", 63, 711, status::write_fields),
    x("mtfsfi", 63, 134, status::write_immediate),
    x("mtfsb0", 63, 70, |t, i| status::write_bit(t, i, false)),
    x("mtfsb1", 63, 38, |t, i| status::write_bit(t, i, true)),
    row("mcrfs", 63, 0x0063_07ff, 64 << 1, status::to_cr).fp(),
    // Storage access.
    d("lfs", 48, |t, i| access::load(t, i, access::Mode::D, true)),
    d("lfsu", 49, |t, i| access::load(t, i, access::Mode::Du, true)),
    d("lfd", 50, |t, i| access::load(t, i, access::Mode::D, false)),
    d("lfdu", 51, |t, i| access::load(t, i, access::Mode::Du, false)),
    d("stfs", 52, |t, i| access::store(t, i, access::Mode::D, true)),
    d("stfsu", 53, |t, i| access::store(t, i, access::Mode::Du, true)),
    d("stfd", 54, |t, i| access::store(t, i, access::Mode::D, false)),
    d("stfdu", 55, |t, i| access::store(t, i, access::Mode::Du, false)),
    x("lfsx", 31, 535, |t, i| access::load(t, i, access::Mode::X, true)),
    x("lfsux", 31, 567, |t, i| access::load(t, i, access::Mode::Xu, true)),
    x("lfdx", 31, 599, |t, i| access::load(t, i, access::Mode::X, false)),
    x("lfdux", 31, 631, |t, i| access::load(t, i, access::Mode::Xu, false)),
    x("stfsx", 31, 663, |t, i| access::store(t, i, access::Mode::X, true)),
    x("stfsux", 31, 695, |t, i| access::store(t, i, access::Mode::Xu, true)),
    x("stfdx", 31, 727, |t, i| access::store(t, i, access::Mode::X, false)),
    x("stfdux", 31, 759, |t, i| access::store(t, i, access::Mode::Xu, false)),
    x("lfiwax", 31, 855, |t, i| access::load_word(t, i, true)),
    x("lfiwzx", 31, 887, |t, i| access::load_word(t, i, false)),
    x("stfiwx", 31, 983, access::store_word),
    row("lfdp", 57, 3, 0, |t, i| access::pair(t, i, access::Mode::Ds, false)).fp(),
    row("stfdp", 61, 3, 0, |t, i| access::pair(t, i, access::Mode::Ds, true)).fp(),
    x("lfdpx", 31, 791, |t, i| access::pair(t, i, access::Mode::X, false)),
    x("stfdpx", 31, 919, |t, i| access::pair(t, i, access::Mode::X, true)),
];

/// A prefixed instruction of format MLS (type 2): the suffix's primary opcode.
const fn mls(name: &'static str, primary: u32, handler: Handler) -> Pattern {
    Pattern {
        name,
        bits: "",
        mask: 0xffec_0000_fc00_0000,
        value: 0x0600_0000_0000_0000 | (primary << 26) as u64,
        handler,
        since: Isa::V3_1,
        until: Isa::V3_1,
        facility: Facility::Fp,
        privileged: false,
    }
}

pub static PREFIXED: &[Pattern] = &[
    mls("plfs", 48, |t, i| access::load(t, i, access::Mode::Prefixed, true)),
    mls("plfd", 50, |t, i| access::load(t, i, access::Mode::Prefixed, false)),
    mls("pstfs", 52, |t, i| access::store(t, i, access::Mode::Prefixed, true)),
    mls("pstfd", 54, |t, i| access::store(t, i, access::Mode::Prefixed, false)),
];
