//! Instructions on FPSCR (Book I, 4.6.10).

use super::helpers;
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{HelperId, Op, Type, Value};

/// The sticky flags gathered so far.
fn flags(t: &mut Translator) -> Value {
    t.b.op0(Op::FpFlagsGet, Type::I32)
}

/// Calls a helper that writes FPSCR (args: sticky flags, then these); the mode may change.
fn write(t: &mut Translator, helper: HelperId, args: &[Value]) -> Flow {
    let f = flags(t);
    t.b.op0(Op::FpFlagsClear, Type::Void);
    let mut all = vec![f];
    all.extend_from_slice(args);
    t.end_after(helper, &all)
}

/// mffs, mffsl.
pub(super) fn read(t: &mut Translator, i: Insn) -> Flow {
    let f = flags(t);
    let r = t.b.call(helpers::READ, &[f]);
    let light = i.ra() == 24;
    let r = if light { t.and_imm(r, helpers::LIGHT) } else { r };
    t.set_f(i.rt(), r);
    if light { Flow::Next } else { t.fp_record(i) }
}

/// mffsce, mffscdrn, mffscdrni, mffscrn, mffscrni.
pub(super) fn change(t: &mut Translator, i: Insn) -> Flow {
    let kind = i.ra();
    let source = match kind {
        20 | 22 => t.fbits(i.rb()),
        21 => t.c64(u64::from(i.field(18, 20)) << 32),
        23 => t.c64(u64::from(i.field(19, 20))),
        _ => t.c64(0),
    };
    let how = t.c32(kind | i.rt() << 8);
    write(t, helpers::CHANGE, &[how, source])
}

/// mtfsf.
pub(super) fn write_fields(t: &mut Translator, i: Insn) -> Flow {
    let (l, flm, w) = (i.bit(6), i.field(7, 14), i.bit(15));
    let mut mask = 0u64;
    for n in 0..8 {
        if flm >> (7 - n) & 1 != 0 {
            mask |= 0xf << (28 - 4 * n);
        }
    }
    let mask = if l {
        u64::MAX
    } else if w {
        mask << 32
    } else {
        mask
    };
    let v = t.fbits(i.rb());
    let m = t.c64(mask);
    let rc = t.c32(u32::from(i.rc()));
    write(t, helpers::WRITE, &[m, v, rc])
}

/// mtfsfi.
pub(super) fn write_immediate(t: &mut Translator, i: Insn) -> Flow {
    let (bf, w, u) = (i.bf(), i.bit(15), u64::from(i.field(16, 19)));
    let at = 28 - 4 * bf + if w { 32 } else { 0 };
    let (m, v) = (t.c64(0xf << at), t.c64(u << at));
    let rc = t.c32(u32::from(i.rc()));
    write(t, helpers::WRITE, &[m, v, rc])
}

/// mtfsb0, mtfsb1.
pub(super) fn write_bit(t: &mut Translator, i: Insn, set: bool) -> Flow {
    let bit = t.c64(1 << (31 - i.rt()));
    let how = t.c32(u32::from(set) | u32::from(i.rc()) << 1);
    write(t, helpers::WRITE_BIT, &[bit, how])
}

/// mcrfs.
pub(super) fn to_cr(t: &mut Translator, i: Insn) -> Flow {
    let fields = t.c32(i.bf() | i.field(11, 13) << 4);
    write(t, helpers::TO_CR, &[fields])
}
