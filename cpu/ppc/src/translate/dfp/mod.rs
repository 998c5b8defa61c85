//! Translation of decimal floating-point instructions (Book I, chapter 5): all by one helper.

use super::{Flow, Insn, Pattern, Translator};
use crate::config::Isa;
use crate::fpu::{Dfp, DfpOp};
use crate::translate::decode::Handler;
use crate::translate::fp::row;

pub mod helpers;

/// Which operands are register pairs in the quad form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pairs {
    /// All.
    All,
    /// The target is no register, or one of its own.
    Sources,
    /// The target and FRB; FRA is one register.
    TargetB,
    /// FRB only.
    B,
    /// The target only.
    Target,
}

fn run(t: &mut Translator, i: Insn, p: Dfp, record: bool) -> Flow {
    let v = t.c64(p.0);
    t.b.call(helpers::DFP, &[v]);
    if record { t.fp_record(i) } else { Flow::Next }
}

fn quad(i: Insn) -> bool {
    i.field(0, 5) == 63
}

/// Odd numbers of registers that should be pairs are invalid.
fn form_ok(i: Insn, pairs: Pairs) -> bool {
    let (t, a, b) = (i.rt() & 1 == 0, i.ra() & 1 == 0, i.rb() & 1 == 0);
    !quad(i)
        || match pairs {
            Pairs::All => t && a && b,
            Pairs::Sources => a && b,
            Pairs::TargetB => t && b,
            Pairs::B => b,
            Pairs::Target => t,
        }
}

/// `FRT ← op(FRA, FRB)`.
fn plain(t: &mut Translator, i: Insn, op: DfpOp, pairs: Pairs) -> Flow {
    if !form_ok(i, pairs) {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, quad(i), i.rt(), i.ra(), i.rb()), true)
}

/// With RMC in bits 21–22 and R in bit 15, if there is one.
fn rounded(t: &mut Translator, i: Insn, op: DfpOp, pairs: Pairs) -> Flow {
    if !form_ok(i, pairs) {
        return Flow::Illegal;
    }
    let has_r = matches!(op, DfpOp::RoundExact | DfpOp::Round);
    let mut p = Dfp::new(op, quad(i), i.rt(), i.ra(), i.rb()).rounding(has_r && i.bit(15), i.field(21, 22));
    if op == DfpOp::QuantizeImmediate {
        p = p.immediate(i.ra());
    }
    run(t, i, p, true)
}

/// Into a field of the condition register.
fn field(t: &mut Translator, i: Insn, op: DfpOp, pairs: Pairs) -> Flow {
    if !form_ok(i, pairs) {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, quad(i), i.bf(), i.ra(), i.rb()), false)
}

/// dtstdc, dtstdg: a mask in bits 16–21.
fn masked(t: &mut Translator, i: Insn, op: DfpOp) -> Flow {
    if quad(i) && i.ra() & 1 != 0 {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, quad(i), i.bf(), i.ra(), 0).immediate(i.field(16, 21)), false)
}

fn significance(t: &mut Translator, i: Insn) -> Flow {
    if !form_ok(i, Pairs::B) {
        return Flow::Illegal;
    }
    let p = Dfp::new(DfpOp::TestSignificanceImmediate, quad(i), i.bf(), 0, i.rb()).immediate(i.field(10, 15));
    run(t, i, p, false)
}

/// dscli, dscri: the count in bits 16–21.
fn shift(t: &mut Translator, i: Insn, op: DfpOp) -> Flow {
    if quad(i) && (i.ra() | i.rt()) & 1 != 0 {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, quad(i), i.rt(), i.ra(), 0).immediate(i.field(16, 21)), true)
}

/// ddedpd, denbcd: options in the upper bits of the field of FRA.
fn code(t: &mut Translator, i: Insn, op: DfpOp, options: u32) -> Flow {
    if !form_ok(i, Pairs::TargetB) {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, quad(i), i.rt(), 0, i.rb()).immediate(options), true)
}

/// dcffixqq, dctfixqq: between a pair and a vector register.
fn fixed_quad(t: &mut Translator, i: Insn, op: DfpOp) -> Flow {
    let pair = if op == DfpOp::FromFixedQuad { i.rt() } else { i.rb() };
    if pair & 1 != 0 {
        return Flow::Illegal;
    }
    run(t, i, Dfp::new(op, true, i.rt(), 0, i.rb()), false)
}

const fn x(name: &'static str, primary: u32, xo: u32, handler: Handler) -> Pattern {
    row(name, primary, 0x7fe, xo << 1, handler).fp()
}
const fn z22(name: &'static str, primary: u32, xo: u32, handler: Handler) -> Pattern {
    row(name, primary, 0x3fe, xo << 1, handler).fp()
}
const fn z23(name: &'static str, primary: u32, xo: u32, handler: Handler) -> Pattern {
    row(name, primary, 0x1fe, xo << 1, handler).fp()
}

macro_rules! both {
    ($($form:ident $long:literal $quad:literal $xo:literal $handler:expr;)*) => {
        pub static PATTERNS: &[Pattern] = &[
            $($form($long, 59, $xo, $handler), $form($quad, 63, $xo, $handler),)*
            row("dcffixqq", 63, 0x001f_07fe, 994 << 1, |t, i| fixed_quad(t, i, DfpOp::FromFixedQuad)).fp().since(Isa::V3_1),
            row("dctfixqq", 63, 0x001f_07fe, 1 << 16 | 994 << 1, |t, i| fixed_quad(t, i, DfpOp::ToFixedQuad)).fp().since(Isa::V3_1),
        ];
    };
}

both! {
    x "dadd" "daddq" 2 |t, i| plain(t, i, DfpOp::Add, Pairs::All);
    x "dsub" "dsubq" 514 |t, i| plain(t, i, DfpOp::Sub, Pairs::All);
    x "dmul" "dmulq" 34 |t, i| plain(t, i, DfpOp::Mul, Pairs::All);
    x "ddiv" "ddivq" 546 |t, i| plain(t, i, DfpOp::Div, Pairs::All);
    x "dcmpu" "dcmpuq" 642 |t, i| field(t, i, DfpOp::CompareUnordered, Pairs::Sources);
    x "dcmpo" "dcmpoq" 130 |t, i| field(t, i, DfpOp::CompareOrdered, Pairs::Sources);
    z22 "dtstdc" "dtstdcq" 194 |t, i| masked(t, i, DfpOp::TestClass);
    z22 "dtstdg" "dtstdgq" 226 |t, i| masked(t, i, DfpOp::TestGroup);
    x "dtstex" "dtstexq" 162 |t, i| field(t, i, DfpOp::TestExponent, Pairs::Sources);
    x "dtstsf" "dtstsfq" 674 |t, i| field(t, i, DfpOp::TestSignificance, Pairs::B);
    x "dtstsfi" "dtstsfiq" 675 significance;
    z23 "dqua" "dquaq" 3 |t, i| rounded(t, i, DfpOp::Quantize, Pairs::All);
    z23 "dquai" "dquaiq" 67 |t, i| rounded(t, i, DfpOp::QuantizeImmediate, Pairs::TargetB);
    z23 "drrnd" "drrndq" 35 |t, i| rounded(t, i, DfpOp::Reround, Pairs::TargetB);
    z23 "drintx" "drintxq" 99 |t, i| rounded(t, i, DfpOp::RoundExact, Pairs::TargetB);
    z23 "drintn" "drintnq" 227 |t, i| rounded(t, i, DfpOp::Round, Pairs::TargetB);
    x "dctdp" "dctqpq" 258 |t, i| plain(t, i, DfpOp::Widen, Pairs::Target);
    x "drsp" "drdpq" 770 |t, i| plain(t, i, DfpOp::Narrow, Pairs::TargetB);
    x "dcffix" "dcffixq" 802 |t, i| plain(t, i, DfpOp::FromFixed, Pairs::Target);
    x "dctfix" "dctfixq" 290 |t, i| plain(t, i, DfpOp::ToFixed, Pairs::B);
    x "ddedpd" "ddedpdq" 322 |t, i| code(t, i, DfpOp::Decode, i.field(11, 12));
    x "denbcd" "denbcdq" 834 |t, i| code(t, i, DfpOp::Encode, i.field(11, 11));
    x "dxex" "dxexq" 354 |t, i| plain(t, i, DfpOp::ExtractExponent, Pairs::B);
    x "diex" "diexq" 866 |t, i| plain(t, i, DfpOp::InsertExponent, Pairs::TargetB);
    z22 "dscli" "dscliq" 66 |t, i| shift(t, i, DfpOp::ShiftLeft);
    z22 "dscri" "dscriq" 98 |t, i| shift(t, i, DfpOp::ShiftRight);
}
