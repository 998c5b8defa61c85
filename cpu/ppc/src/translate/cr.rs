//! Compares, the condition register, XER, selections and traps (Book I, 2.5, 3.3.11, 3.3.12, 3.3.18).

use super::{Flow, Insn, Pattern, Translator, pat};
use crate::bits::xer;
use crate::config::Isa;
use crate::exception::program;
use crate::helpers::{integer as calls, system};
use crate::state::slots;
use rhea_ir::{Cond, Op, Slot, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("cmpi", "001011 BF:3 x L RA:5 SI:16", cmpi),
    pat("cmpli", "001010 BF:3 x L RA:5 UI:16", cmpi),
    pat("cmp", "011111 BF:3 x L RA:5 RB:5 0000000000 x", cmp),
    pat("cmpl", "011111 BF:3 x L RA:5 RB:5 0000100000 x", cmp),
    pat("cmprb", "011111 BF:3 x L RA:5 RB:5 0011000000 x", cmprb).since(Isa::V3_0),
    pat("cmpeqb", "011111 BF:3 xx RA:5 RB:5 0011100000 x", cmpeqb).since(Isa::V3_0),
    pat("setb", "011111 RT:5 BFA:3 xx xxxxx 0010000000 x", setb).since(Isa::V3_0),
    pat("setbc", "011111 RT:5 BI:5 xxxxx 0110000000 x", setbc).since(Isa::V3_1),
    pat("setbcr", "011111 RT:5 BI:5 xxxxx 0110100000 x", setbc).since(Isa::V3_1),
    pat("setnbc", "011111 RT:5 BI:5 xxxxx 0111000000 x", setbc).since(Isa::V3_1),
    pat("setnbcr", "011111 RT:5 BI:5 xxxxx 0111100000 x", setbc).since(Isa::V3_1),
    pat("isel", "011111 RT:5 RA:5 RB:5 BC:5 01111 x", isel),
    pat("mcrf", "010011 BF:3 xx BFA:3 xx xxxxx 0000000000 x", mcrf),
    pat("crnor", "010011 BT:5 BA:5 BB:5 0000100001 x", cr_logic),
    pat("crandc", "010011 BT:5 BA:5 BB:5 0010000001 x", cr_logic),
    pat("crxor", "010011 BT:5 BA:5 BB:5 0011000001 x", cr_logic),
    pat("crnand", "010011 BT:5 BA:5 BB:5 0011100001 x", cr_logic),
    pat("crand", "010011 BT:5 BA:5 BB:5 0100000001 x", cr_logic),
    pat("creqv", "010011 BT:5 BA:5 BB:5 0100100001 x", cr_logic),
    pat("crorc", "010011 BT:5 BA:5 BB:5 0110100001 x", cr_logic),
    pat("cror", "010011 BT:5 BA:5 BB:5 0111000001 x", cr_logic),
    pat("mfcr", "011111 RT:5 0 xxxxxxxx x 0000010011 x", mfcr),
    pat("mfocrf", "011111 RT:5 1 FXM:8 x 0000010011 x", mfocrf),
    pat("mtcrf", "011111 RS:5 0 FXM:8 x 0010010000 x", mtcrf),
    pat("mtocrf", "011111 RS:5 1 FXM:8 x 0010010000 x", mtcrf),
    pat("mcrxrx", "011111 BF:3 xx xxxxx xxxxx 1001000000 x", mcrxrx).since(Isa::V3_0),
    pat("mfxer", "011111 RT:5 00001 00000 0101010011 x", mfxer),
    pat("mtxer", "011111 RS:5 00001 00000 0111010011 x", mtxer),
    pat("mflr", "011111 RT:5 01000 00000 0101010011 x", mflr),
    pat("mtlr", "011111 RS:5 01000 00000 0111010011 x", mtlr),
    pat("mfctr", "011111 RT:5 01001 00000 0101010011 x", mfctr),
    pat("mtctr", "011111 RS:5 01001 00000 0111010011 x", mtctr),
    pat("mftar", "011111 RT:5 01111 11001 0101010011 x", mftar).needs(super::Facility::Tar),
    pat("mttar", "011111 RS:5 01111 11001 0111010011 x", mttar).needs(super::Facility::Tar),
    pat("twi", "000011 TO:5 RA:5 SI:16", trap_imm),
    pat("tdi", "000010 TO:5 RA:5 SI:16", trap_imm),
    pat("tw", "011111 TO:5 RA:5 RB:5 0000000100 x", trap),
    pat("td", "011111 TO:5 RA:5 RB:5 0001000100 x", trap),
];

/// Operands of a compare: doublewords if L is set, else words.
fn operands(t: &mut Translator, i: Insn, a: Value, b: Value) -> (Value, Value) {
    if i.bit(10) { (a, b) } else { (t.b.trunc(a), t.b.trunc(b)) }
}

fn cmpi(t: &mut Translator, i: Insn) -> Flow {
    let signed = i.bit(5);
    let a = t.r(i.ra());
    let b = t.c64(if signed { i.si() as u64 } else { i.ui() });
    let (a, b) = operands(t, i, a, b);
    t.compare(i.bf(), signed, a, b);
    Flow::Next
}

fn cmp(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let (a, b) = operands(t, i, a, b);
    t.compare(i.bf(), !i.bit(25), a, b);
    Flow::Next
}

/// Byte `n` of a value, 0 the lowest.
fn byte(t: &mut Translator, v: Value, n: u32) -> Value {
    let v = t.shr(v, 8 * n);
    t.b.zext(v, 8)
}

/// Is the low byte of RA in the range that RB gives (with L, in one of two)?
fn cmprb(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.w(i.ra()), t.w(i.rb()));
    let a = byte(t, a, 0);
    let inside = |t: &mut Translator, low: u32| {
        let (from, to) = (byte(t, b, low), byte(t, b, low + 1));
        let (x, y) = (t.b.icmp(Cond::Ule, from, a), t.b.icmp(Cond::Ule, a, to));
        t.b.and(x, y)
    };
    let mut yes = inside(t, 0);
    if i.bit(10) {
        let second = inside(t, 2);
        yes = t.b.or(yes, second);
    }
    let no = t.cbool(false);
    t.set_cr_field(i.bf(), [no, yes, no, no]);
    Flow::Next
}

/// Does any byte of RB equal the low byte of RA?
fn cmpeqb(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let a = byte(t, a, 0);
    let a = t.b.bin_imm(Op::Mul, a, 0x0101_0101_0101_0101);
    // A byte of the difference is zero.
    let d = t.b.xor(a, b);
    let less = t.add_imm(d, 0x0101_0101_0101_0101u64.wrapping_neg());
    let v = t.b.bin(Op::AndNot, less, d);
    let v = t.and_imm(v, 0x8080_8080_8080_8080);
    let zero = t.c64(0);
    let yes = t.b.icmp(Cond::Ne, v, zero);
    let no = t.cbool(false);
    t.set_cr_field(i.bf(), [no, yes, no, no]);
    Flow::Next
}

fn setb(t: &mut Translator, i: Insn) -> Flow {
    let field = i.field(11, 13);
    let (lt, gt) = (t.cr_bit(4 * field), t.cr_bit(4 * field + 1));
    let one = t.from_bool(gt);
    let minus = t.c64(u64::MAX);
    let v = t.b.select(lt, minus, one);
    t.set_r(i.rt(), v);
    Flow::Next
}

/// setbc, setbcr, setnbc, setnbcr.
fn setbc(t: &mut Translator, i: Insn) -> Flow {
    let mut c = t.cr_bit(i.ra());
    if i.bit(25) {
        c = t.not(c);
    }
    let v = t.from_bool(c);
    let v = if i.bit(24) { t.b.un(Op::Neg, v) } else { v };
    t.set_r(i.rt(), v);
    Flow::Next
}

fn isel(t: &mut Translator, i: Insn) -> Flow {
    let c = t.cr_bit(i.rc_reg());
    let (a, b) = (t.r0(i.ra()), t.r(i.rb()));
    let v = t.b.select(c, a, b);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mcrf(t: &mut Translator, i: Insn) -> Flow {
    let from = i.field(11, 13);
    let (order, so) = (t.b.get(slots::cr_order(from)), t.b.get(slots::cr_so(from)));
    t.b.set(slots::cr_order(i.bf()), order);
    t.b.set(slots::cr_so(i.bf()), so);
    Flow::Next
}

fn cr_logic(t: &mut Translator, i: Insn) -> Flow {
    let op = i.field(21, 30);
    if i.ra() == i.rb() && matches!(op, 193 | 289) {
        // crclr, crset.
        let v = t.cbool(op == 289);
        t.set_cr_bit(i.rt(), v);
        return Flow::Next;
    }
    let (a, b) = (t.cr_bit(i.ra()), t.cr_bit(i.rb()));
    let v = match op {
        33 => {
            let v = t.b.or(a, b);
            t.not(v)
        }
        129 => {
            let n = t.not(b);
            t.b.and(a, n)
        }
        193 => t.b.xor(a, b),
        225 => {
            let v = t.b.and(a, b);
            t.not(v)
        }
        257 => t.b.and(a, b),
        289 => {
            let v = t.b.xor(a, b);
            t.not(v)
        }
        417 => {
            let n = t.not(b);
            t.b.or(a, n)
        }
        _ => t.b.or(a, b),
    };
    t.set_cr_bit(i.rt(), v);
    Flow::Next
}

fn mfcr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.b.call(calls::READ_CR, &[]);
    t.set_r(i.rt(), v);
    Flow::Next
}

/// Several fields in the mask leave the result undefined: here they are all read.
fn mfocrf(t: &mut Translator, i: Insn) -> Flow {
    let v = t.gather_cr(i.field(12, 19));
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mtcrf(t: &mut Translator, i: Insn) -> Flow {
    let fields = i.field(12, 19);
    let s = t.r(i.rt());
    if fields.count_ones() > 4 {
        let mask = (0..8).fold(0u64, |m, n| if fields >> (7 - n) & 1 != 0 { m | 0xf << (28 - 4 * n) } else { m });
        let mask = t.c64(mask);
        t.b.call(calls::WRITE_CR, &[s, mask]);
        return Flow::Next;
    }
    for field in (0..8).filter(|n| fields >> (7 - n) & 1 != 0) {
        let bits = [0, 1, 2, 3].map(|n| bool_of(t, s, 1 << (31 - 4 * field - n)));
        t.set_cr_field(field, bits);
    }
    Flow::Next
}

/// Is the bit of the mask set?
fn bool_of(t: &mut Translator, v: Value, mask: u64) -> Value {
    let v = t.and_imm(v, mask);
    let zero = t.c64(0);
    t.b.icmp(Cond::Ne, v, zero)
}

fn mcrxrx(t: &mut Translator, i: Insn) -> Flow {
    let bits = [slots::OV, slots::OV32, slots::CA, slots::CA32].map(|s| t.b.get(s));
    t.set_cr_field(i.bf(), bits);
    Flow::Next
}

const XER_BITS: [(Slot, u64); 5] = [
    (slots::SO, xer::SO),
    (slots::OV, xer::OV),
    (slots::CA, xer::CA),
    (slots::OV32, xer::OV32),
    (slots::CA32, xer::CA32),
];

fn mfxer(t: &mut Translator, i: Insn) -> Flow {
    let mut v = t.b.get(slots::XER_REST);
    for (slot, bit) in XER_BITS {
        let b = t.b.get(slot);
        let b = t.from_bool(b);
        let b = t.shl(b, bit.trailing_zeros());
        v = t.b.or(v, b);
    }
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mtxer(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let old = t.mode.isa() < Isa::V3_0;
    for (slot, bit) in XER_BITS {
        let v = if old && bit & (xer::OV32 | xer::CA32) != 0 { t.cbool(false) } else { bool_of(t, s, bit) };
        t.b.set(slot, v);
    }
    let rest = t.and_imm(s, xer::COUNT);
    t.b.set(slots::XER_REST, rest);
    Flow::Next
}

fn read(t: &mut Translator, i: Insn, slot: Slot) -> Flow {
    let v = t.b.get(slot);
    t.set_r(i.rt(), v);
    Flow::Next
}
fn write(t: &mut Translator, i: Insn, slot: Slot) -> Flow {
    let v = t.r(i.rt());
    t.b.set(slot, v);
    Flow::Next
}
fn mflr(t: &mut Translator, i: Insn) -> Flow {
    read(t, i, slots::LR)
}
fn mtlr(t: &mut Translator, i: Insn) -> Flow {
    write(t, i, slots::LR)
}
fn mfctr(t: &mut Translator, i: Insn) -> Flow {
    read(t, i, slots::CTR)
}
fn mtctr(t: &mut Translator, i: Insn) -> Flow {
    write(t, i, slots::CTR)
}
fn mftar(t: &mut Translator, i: Insn) -> Flow {
    read(t, i, slots::TAR)
}
fn mttar(t: &mut Translator, i: Insn) -> Flow {
    write(t, i, slots::TAR)
}

/// Traps if one of the conditions of `to` holds: less, greater, equal, unsigned less, unsigned greater.
fn trap_on(t: &mut Translator, to: u32, a: Value, b: Value) -> Flow {
    let conditions = [(16, Cond::Slt), (8, Cond::Sgt), (4, Cond::Eq), (2, Cond::Ult), (1, Cond::Ugt)];
    // Pairs that make one compare; everything makes none.
    let single = match to {
        0 => return Flow::Next,
        t if t & 4 != 0 && t & 24 == 24 || t & 7 == 7 => None,
        24 | 3 => Some(Cond::Ne),
        20 => Some(Cond::Sle),
        12 => Some(Cond::Sge),
        6 => Some(Cond::Ule),
        5 => Some(Cond::Uge),
        _ => Some(Cond::Eq),
    };
    let c = match single {
        None => return t.program(program::TRAP),
        Some(Cond::Eq) => {
            let mut any = t.cbool(false);
            for (bit, cond) in conditions {
                if to & bit != 0 {
                    let c = t.b.icmp(cond, a, b);
                    any = t.b.or(any, c);
                }
            }
            any
        }
        Some(cond) => t.b.icmp(cond, a, b),
    };
    if t.b.func.as_const(c) == Some(1) {
        return t.program(program::TRAP);
    }
    t.raise_if(c, |t| {
        let cause = t.c64(program::TRAP);
        t.b.call(system::PROGRAM, &[cause]);
    });
    Flow::Next
}

fn trap_imm(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.c64(i.si() as u64));
    let (a, b) = if i.bit(5) { (t.b.trunc(a), t.b.trunc(b)) } else { (a, b) };
    trap_on(t, i.rt(), a, b)
}

fn trap(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.r(i.ra()), t.r(i.rb()));
    let (a, b) = if i.bit(24) { (a, b) } else { (t.b.trunc(a), t.b.trunc(b)) };
    trap_on(t, i.rt(), a, b)
}
