//! Logical, rotate and shift instructions, counts and permutations of bits (Book I, 3.3.13–3.3.15).

use super::{Flow, Insn, Pattern, Translator, pat};
use crate::config::Isa;
use crate::helpers::integer as calls;
use crate::state::slots;
use rhea_ir::{Cond, HelperId, Lane, Op, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("andi_rec", "01110 s RS:5 RA:5 UI:16", andi),
    pat("ori", "01100 s RS:5 RA:5 UI:16", ori),
    pat("xori", "01101 s RS:5 RA:5 UI:16", ori),
    pat("and", "011111 RS:5 RA:5 RB:5 0000011100 Rc", logic),
    pat("andc", "011111 RS:5 RA:5 RB:5 0000111100 Rc", logic),
    pat("nor", "011111 RS:5 RA:5 RB:5 0001111100 Rc", logic),
    pat("eqv", "011111 RS:5 RA:5 RB:5 0100011100 Rc", logic),
    pat("xor", "011111 RS:5 RA:5 RB:5 0100111100 Rc", logic),
    pat("orc", "011111 RS:5 RA:5 RB:5 0110011100 Rc", logic),
    pat("or", "011111 RS:5 RA:5 RB:5 0110111100 Rc", logic),
    pat("nand", "011111 RS:5 RA:5 RB:5 0111011100 Rc", logic),
    pat("extsb", "011111 RS:5 RA:5 xxxxx 1110111010 Rc", extend),
    pat("extsh", "011111 RS:5 RA:5 xxxxx 1110011010 Rc", extend),
    pat("extsw", "011111 RS:5 RA:5 xxxxx 1111011010 Rc", extend),
    pat("cntlzw", "011111 RS:5 RA:5 xxxxx 0000011010 Rc", count_word),
    pat("cnttzw", "011111 RS:5 RA:5 xxxxx 1000011010 Rc", count_word).since(Isa::V3_0),
    pat("cntlzd", "011111 RS:5 RA:5 xxxxx 0000111010 Rc", count_doubleword),
    pat("cnttzd", "011111 RS:5 RA:5 xxxxx 1000111010 Rc", count_doubleword).since(Isa::V3_0),
    pat("popcntb", "011111 RS:5 RA:5 xxxxx 0001111010 x", popcntb),
    pat("popcntw", "011111 RS:5 RA:5 xxxxx 0101111010 x", popcntw),
    pat("popcntd", "011111 RS:5 RA:5 xxxxx 0111111010 x", popcntd),
    pat("prtyw", "011111 RS:5 RA:5 xxxxx 0010011010 x", prtyw),
    pat("prtyd", "011111 RS:5 RA:5 xxxxx 0010111010 x", prtyd),
    pat("cmpb", "011111 RS:5 RA:5 RB:5 0111111100 x", cmpb),
    pat("bpermd", "011111 RS:5 RA:5 RB:5 0011111100 x", bpermd),
    pat("cfuged", "011111 RS:5 RA:5 RB:5 0011011100 x", cfuged).since(Isa::V3_1),
    pat("cntlzdm", "011111 RS:5 RA:5 RB:5 0000111011 x", cntlzdm).since(Isa::V3_1),
    pat("cnttzdm", "011111 RS:5 RA:5 RB:5 1000111011 x", cnttzdm).since(Isa::V3_1),
    pat("pdepd", "011111 RS:5 RA:5 RB:5 0010011100 x", pdepd).since(Isa::V3_1),
    pat("pextd", "011111 RS:5 RA:5 RB:5 0010111100 x", pextd).since(Isa::V3_1),
    pat("brh", "011111 RS:5 RA:5 xxxxx 0011011011 x", reverse).since(Isa::V3_1),
    pat("brw", "011111 RS:5 RA:5 xxxxx 0010011011 x", reverse).since(Isa::V3_1),
    pat("brd", "011111 RS:5 RA:5 xxxxx 0010111011 x", reverse).since(Isa::V3_1),
    pat("cdtbcd", "011111 RS:5 RA:5 xxxxx 0100011010 x", cdtbcd),
    pat("cbcdtd", "011111 RS:5 RA:5 xxxxx 0100111010 x", cbcdtd),
    pat("slw", "011111 RS:5 RA:5 RB:5 0000011000 Rc", shift_word),
    pat("srw", "011111 RS:5 RA:5 RB:5 1000011000 Rc", shift_word),
    pat("sld", "011111 RS:5 RA:5 RB:5 0000011011 Rc", shift_doubleword),
    pat("srd", "011111 RS:5 RA:5 RB:5 1000011011 Rc", shift_doubleword),
    pat("sraw", "011111 RS:5 RA:5 RB:5 1100011000 Rc", sraw),
    pat("srawi", "011111 RS:5 RA:5 SH:5 1100111000 Rc", srawi),
    pat("srad", "011111 RS:5 RA:5 RB:5 1100011010 Rc", srad),
    pat("sradi", "011111 RS:5 RA:5 sh:5 110011101 sh5 Rc", sradi),
    pat("extswsli", "011111 RS:5 RA:5 sh:5 110111101 sh5 Rc", extswsli).since(Isa::V3_0),
    pat("rlwimi", "010100 RS:5 RA:5 SH:5 MB:5 ME:5 Rc", rlwimi),
    pat("rlwinm", "010101 RS:5 RA:5 SH:5 MB:5 ME:5 Rc", rlwinm),
    pat("rlwnm", "010111 RS:5 RA:5 RB:5 MB:5 ME:5 Rc", rlwnm),
    pat("rldicl", "011110 RS:5 RA:5 sh:5 mb:6 000 sh5 Rc", rldicl),
    pat("rldicr", "011110 RS:5 RA:5 sh:5 me:6 001 sh5 Rc", rldicr),
    pat("rldic", "011110 RS:5 RA:5 sh:5 mb:6 010 sh5 Rc", rldic),
    pat("rldimi", "011110 RS:5 RA:5 sh:5 mb:6 011 sh5 Rc", rldimi),
    pat("rldcl", "011110 RS:5 RA:5 RB:5 mb:6 1000 Rc", rldcl),
    pat("rldcr", "011110 RS:5 RA:5 RB:5 me:6 1001 Rc", rldcr),
];

impl Translator<'_, '_> {
    /// Writes RA, and CR0 of a record form.
    fn finish_ra(&mut self, i: Insn, v: Value) -> Flow {
        self.set_r(i.ra(), v);
        if i.rc() {
            self.record(v);
        }
        Flow::Next
    }
    /// The same for instructions without a record form.
    fn plain_ra(&mut self, i: Insn, v: Value) -> Flow {
        self.set_r(i.ra(), v);
        Flow::Next
    }
    fn pure2(&mut self, i: Insn, helper: HelperId) -> Flow {
        let (s, b) = (self.r(i.rt()), self.r(i.rb()));
        let v = self.b.call(helper, &[s, b]);
        self.plain_ra(i, v)
    }
    fn rotl(&mut self, v: Value, n: u32, bits: u32) -> Value {
        if n == 0 { v } else { self.b.bin_imm(Op::Rotr, v, (bits - n) as u64) }
    }
    fn set_shift_carry(&mut self, ca: Value) {
        self.b.set(slots::CA, ca);
        if self.mode.isa() >= Isa::V3_0 {
            self.b.set(slots::CA32, ca);
        }
    }
    /// `v` where `cond` holds, else zero.
    fn only_if(&mut self, cond: Value, v: Value) -> Value {
        let zero = self.b.iconst(self.b.func.ty(v), 0);
        self.b.select(cond, v, zero)
    }
}

/// MASK(first, last) of 64 bits in the manual's numbering; it wraps if `first` is greater.
const fn mask64(first: u32, last: u32) -> u64 {
    let from = u64::MAX >> first;
    let to = u64::MAX << (63 - last);
    if first <= last { from & to } else { from | to }
}

/// andi., andis.
fn andi(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.and_imm(s, if i.bit(5) { i.ui() << 16 } else { i.ui() });
    t.set_r(i.ra(), v);
    t.record(v);
    Flow::Next
}

/// ori, oris, xori, xoris.
fn ori(t: &mut Translator, i: Insn) -> Flow {
    let imm = if i.bit(5) { i.ui() << 16 } else { i.ui() };
    let s = t.r(i.rt());
    let v = if imm == 0 { s } else { t.b.bin_imm(if i.bit(4) { Op::Xor } else { Op::Or }, s, imm) };
    t.plain_ra(i, v)
}

fn logic(t: &mut Translator, i: Insn) -> Flow {
    let (s, b) = (t.r(i.rt()), t.r(i.rb()));
    let v = match i.field(21, 30) {
        28 => t.b.and(s, b),
        60 => t.b.bin(Op::AndNot, s, b),
        124 => {
            let v = t.b.or(s, b);
            t.b.un(Op::Not, v)
        }
        284 => {
            let v = t.b.xor(s, b);
            t.b.un(Op::Not, v)
        }
        316 => t.b.xor(s, b),
        412 => {
            let n = t.b.un(Op::Not, b);
            t.b.or(s, n)
        }
        444 if i.rt() == i.rb() => s,
        444 => t.b.or(s, b),
        _ => {
            let v = t.b.and(s, b);
            t.b.un(Op::Not, v)
        }
    };
    t.finish_ra(i, v)
}

fn extend(t: &mut Translator, i: Insn) -> Flow {
    let bits = match i.field(21, 30) {
        954 => 8,
        922 => 16,
        _ => 32,
    };
    let s = t.r(i.rt());
    let v = t.b.sext(s, bits);
    t.finish_ra(i, v)
}

fn count_word(t: &mut Translator, i: Insn) -> Flow {
    let s = t.w(i.rt());
    let v = t.b.un(if i.bit(21) { Op::Ctz } else { Op::Clz }, s);
    let v = t.b.zext64(v);
    t.finish_ra(i, v)
}

fn count_doubleword(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.b.un(if i.bit(21) { Op::Ctz } else { Op::Clz }, s);
    t.finish_ra(i, v)
}

fn popcntb(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.b.vfromscalar(s);
    let v = t.b.v1(Op::VPopcnt, Lane::B, v);
    let v = t.b.vextract(Type::I64, Lane::D, v, 0);
    t.plain_ra(i, v)
}

/// An operation on each word.
fn by_words(t: &mut Translator, v: Value, f: impl Fn(&mut Translator, Value) -> Value) -> Value {
    let (low, high) = (t.b.zext(v, 32), t.shr(v, 32));
    let (low, high) = (f(t, low), f(t, high));
    let high = t.shl(high, 32);
    t.b.or(low, high)
}

fn popcntw(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = by_words(t, s, |t, w| t.b.un(Op::Popcnt, w));
    t.plain_ra(i, v)
}

fn popcntd(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.b.un(Op::Popcnt, s);
    t.plain_ra(i, v)
}

/// Parity of the lowest bits of the bytes.
fn parity(t: &mut Translator, v: Value) -> Value {
    let v = t.and_imm(v, 0x0101_0101_0101_0101);
    let v = t.b.un(Op::Popcnt, v);
    t.and_imm(v, 1)
}

fn prtyw(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = by_words(t, s, parity);
    t.plain_ra(i, v)
}

fn prtyd(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = parity(t, s);
    t.plain_ra(i, v)
}

fn cmpb(t: &mut Translator, i: Insn) -> Flow {
    let (s, b) = (t.r(i.rt()), t.r(i.rb()));
    let (s, b) = (t.b.vfromscalar(s), t.b.vfromscalar(b));
    let v = t.b.v2(Op::VCmpEq, Lane::B, s, b);
    let v = t.b.vextract(Type::I64, Lane::D, v, 0);
    t.plain_ra(i, v)
}

fn bpermd(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::BPERMD)
}
fn cfuged(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::CFUGED)
}
fn cntlzdm(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::CNTLZDM)
}
fn cnttzdm(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::CNTTZDM)
}
fn pdepd(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::PDEPD)
}
fn pextd(t: &mut Translator, i: Insn) -> Flow {
    t.pure2(i, calls::PEXTD)
}

fn reverse(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = match i.field(21, 30) {
        219 => t.b.un(Op::Bswap16, s),
        155 => {
            let v = t.b.un(Op::Bswap, s);
            t.b.bin_imm(Op::Rotr, v, 32)
        }
        _ => t.b.un(Op::Bswap, s),
    };
    t.plain_ra(i, v)
}

fn cdtbcd(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.b.call(calls::CDTBCD, &[s]);
    t.plain_ra(i, v)
}

fn cbcdtd(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let v = t.b.call(calls::CBCDTD, &[s]);
    t.plain_ra(i, v)
}

/// slw, srw: an amount of 32–63 gives zero.
fn shift_word(t: &mut Translator, i: Insn) -> Flow {
    let (s, n) = (t.w(i.rt()), t.w(i.rb()));
    let v = t.b.bin(if i.bit(21) { Op::Shr } else { Op::Shl }, s, n);
    let far = t.and_imm(n, 32);
    let zero = t.c32(0);
    let near = t.b.icmp(Cond::Eq, far, zero);
    let v = t.only_if(near, v);
    let v = t.b.zext64(v);
    t.finish_ra(i, v)
}

fn shift_doubleword(t: &mut Translator, i: Insn) -> Flow {
    let (s, n) = (t.r(i.rt()), t.r(i.rb()));
    let v = t.b.bin(if i.bit(21) { Op::Shr } else { Op::Shl }, s, n);
    let far = t.and_imm(n, 64);
    let zero = t.c64(0);
    let near = t.b.icmp(Cond::Eq, far, zero);
    let v = t.only_if(near, v);
    t.finish_ra(i, v)
}

/// Arithmetic shift right of `s` (sign-extended to 64 bits) by `n` < 64: result and carry, which is set if the value is negative
/// and ones were shifted out.
fn arithmetic(t: &mut Translator, i: Insn, s: Value, n: Value) -> Flow {
    let v = t.b.bin(Op::Sar, s, n);
    let back = t.b.bin(Op::Shl, v, n);
    let lost = t.b.icmp(Cond::Ne, back, s);
    let zero = t.c64(0);
    let negative = t.b.icmp(Cond::Slt, s, zero);
    let ca = t.b.and(lost, negative);
    t.set_shift_carry(ca);
    t.finish_ra(i, v)
}

/// The same by a constant.
fn arithmetic_imm(t: &mut Translator, i: Insn, s: Value, n: u32) -> Flow {
    if n == 0 {
        let no = t.cbool(false);
        t.set_shift_carry(no);
        return t.finish_ra(i, s);
    }
    let v = t.sar(s, n);
    let lost = t.and_imm(s, u64::MAX >> (64 - n));
    let zero = t.c64(0);
    let lost = t.b.icmp(Cond::Ne, lost, zero);
    let negative = t.b.icmp(Cond::Slt, s, zero);
    let ca = t.b.and(lost, negative);
    t.set_shift_carry(ca);
    t.finish_ra(i, v)
}

fn sraw(t: &mut Translator, i: Insn) -> Flow {
    let (s, n) = (t.r(i.rt()), t.r(i.rb()));
    let s = t.b.sext(s, 32);
    let n = t.and_imm(n, 63);
    arithmetic(t, i, s, n)
}

fn srawi(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let s = t.b.sext(s, 32);
    arithmetic_imm(t, i, s, i.rb())
}

/// An amount of 64–127 gives the sign everywhere.
fn srad(t: &mut Translator, i: Insn) -> Flow {
    let (s, n) = (t.r(i.rt()), t.r(i.rb()));
    let low = t.and_imm(n, 63);
    let far = t.and_imm(n, 64);
    let zero = t.c64(0);
    let far = t.b.icmp(Cond::Ne, far, zero);
    let near = t.b.bin(Op::Sar, s, low);
    let sign = t.sar(s, 63);
    let v = t.b.select(far, sign, near);
    let back = t.b.bin(Op::Shl, near, low);
    let lost = t.b.icmp(Cond::Ne, back, s);
    let lost = t.b.or(lost, far);
    let negative = t.b.icmp(Cond::Slt, s, zero);
    let ca = t.b.and(lost, negative);
    t.set_shift_carry(ca);
    t.finish_ra(i, v)
}

/// The 6-bit shift amount of MD and XS forms.
fn sh6(i: Insn) -> u32 {
    i.field(30, 30) << 5 | i.rb()
}
/// The 6-bit mask boundary of MD forms.
fn mb6(i: Insn) -> u32 {
    i.field(26, 26) << 5 | i.rc_reg()
}

fn sradi(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    arithmetic_imm(t, i, s, sh6(i))
}

fn extswsli(t: &mut Translator, i: Insn) -> Flow {
    let s = t.r(i.rt());
    let s = t.b.sext(s, 32);
    let v = t.shl(s, sh6(i));
    t.finish_ra(i, v)
}

/// The word rotated left, in both halves if a mask that wraps needs it.
fn both_halves(t: &mut Translator, w: Value, wraps: bool) -> Value {
    let v = t.b.zext64(w);
    if !wraps {
        return v;
    }
    let high = t.shl(v, 32);
    t.b.or(v, high)
}

fn rlwinm(t: &mut Translator, i: Insn) -> Flow {
    let (sh, mb, me) = (i.rb(), i.rc_reg(), i.field(26, 30));
    let mask = mask64(mb + 32, me + 32);
    let s = t.r(i.rt());
    let v = if mb > me {
        let w = t.b.trunc(s);
        let w = t.rotl(w, sh, 32);
        let v = both_halves(t, w, true);
        t.and_imm(v, mask)
    } else if sh == 0 {
        t.and_imm(s, mask)
    } else if me <= 31 - sh {
        // Nothing comes round from the top.
        let w = t.b.trunc(s);
        let w = t.shl(w, sh);
        let w = if mb == 0 && me == 31 - sh { w } else { t.and_imm(w, mask) };
        t.b.zext64(w)
    } else if mb >= 32 - sh {
        // Nothing but what comes round.
        let w = t.b.trunc(s);
        let w = t.shr(w, 32 - sh);
        let w = if mb == 32 - sh && me == 31 { w } else { t.and_imm(w, mask) };
        t.b.zext64(w)
    } else {
        let w = t.b.trunc(s);
        let w = t.rotl(w, sh, 32);
        let w = if mb == 0 && me == 31 { w } else { t.and_imm(w, mask) };
        t.b.zext64(w)
    };
    t.finish_ra(i, v)
}

fn rlwnm(t: &mut Translator, i: Insn) -> Flow {
    let (mb, me) = (i.rc_reg(), i.field(26, 30));
    let (s, n) = (t.w(i.rt()), t.w(i.rb()));
    let n = t.b.un(Op::Neg, n);
    let w = t.b.bin(Op::Rotr, s, n);
    let v = both_halves(t, w, mb > me);
    let v = t.and_imm(v, mask64(mb + 32, me + 32));
    t.finish_ra(i, v)
}

/// A field of RA replaced by bits of a rotated value.
fn insert(t: &mut Translator, i: Insn, rotated: Value, mask: u64) -> Flow {
    let old = t.r(i.ra());
    let (new, old) = (t.and_imm(rotated, mask), t.and_imm(old, !mask));
    let v = t.b.or(new, old);
    t.finish_ra(i, v)
}

fn deposit(t: &mut Translator, i: Insn, lowest: u32, width: u32) -> Flow {
    let (old, new) = (t.r(i.ra()), t.r(i.rt()));
    let v = t.b.op2(Op::Deposit, Type::I64, old, new, 0, (lowest | width << 8) as u64);
    t.finish_ra(i, v)
}

fn rlwimi(t: &mut Translator, i: Insn) -> Flow {
    let (sh, mb, me) = (i.rb(), i.rc_reg(), i.field(26, 30));
    if mb <= me && sh == 31 - me {
        return deposit(t, i, sh, me - mb + 1);
    }
    let s = t.w(i.rt());
    let w = t.rotl(s, sh, 32);
    let v = both_halves(t, w, mb > me);
    insert(t, i, v, mask64(mb + 32, me + 32))
}

fn rldicl(t: &mut Translator, i: Insn) -> Flow {
    let (sh, mb) = (sh6(i), mb6(i));
    let s = t.r(i.rt());
    let v = if sh == 0 {
        t.and_imm(s, mask64(mb, 63))
    } else if 64 - mb <= sh {
        let v = t.shr(s, 64 - sh);
        if 64 - mb == sh { v } else { t.and_imm(v, mask64(mb, 63)) }
    } else {
        let v = t.rotl(s, sh, 64);
        if mb == 0 { v } else { t.and_imm(v, mask64(mb, 63)) }
    };
    t.finish_ra(i, v)
}

fn rldicr(t: &mut Translator, i: Insn) -> Flow {
    let (sh, me) = (sh6(i), mb6(i));
    let s = t.r(i.rt());
    let v = if me <= 63 - sh {
        let v = t.shl(s, sh);
        if me == 63 - sh { v } else { t.and_imm(v, mask64(0, me)) }
    } else {
        let v = t.rotl(s, sh, 64);
        if me == 63 { v } else { t.and_imm(v, mask64(0, me)) }
    };
    t.finish_ra(i, v)
}

fn rldic(t: &mut Translator, i: Insn) -> Flow {
    let (sh, mb) = (sh6(i), mb6(i));
    let s = t.r(i.rt());
    let v = if mb <= 63 - sh {
        // The field cut out first: a constant of fewer bits.
        let v = if mb == 0 && sh == 0 { s } else { t.and_imm(s, mask64(mb + sh, 63)) };
        t.shl(v, sh)
    } else {
        let v = t.rotl(s, sh, 64);
        t.and_imm(v, mask64(mb, 63 - sh))
    };
    t.finish_ra(i, v)
}

fn rldimi(t: &mut Translator, i: Insn) -> Flow {
    let (sh, mb) = (sh6(i), mb6(i));
    if mb <= 63 - sh {
        return deposit(t, i, sh, 64 - sh - mb);
    }
    let s = t.r(i.rt());
    let v = t.rotl(s, sh, 64);
    insert(t, i, v, mask64(mb, 63 - sh))
}

fn rotate_by_register(t: &mut Translator, i: Insn, mask: u64) -> Flow {
    let (s, n) = (t.r(i.rt()), t.r(i.rb()));
    let n = t.b.un(Op::Neg, n);
    let v = t.b.bin(Op::Rotr, s, n);
    let v = t.and_imm(v, mask);
    t.finish_ra(i, v)
}

fn rldcl(t: &mut Translator, i: Insn) -> Flow {
    rotate_by_register(t, i, mask64(mb6(i), 63))
}

fn rldcr(t: &mut Translator, i: Insn) -> Flow {
    rotate_by_register(t, i, mask64(0, mb6(i)))
}

#[cfg(test)]
mod tests {
    use super::mask64;

    #[test]
    fn masks() {
        assert_eq!(mask64(0, 63), u64::MAX);
        assert_eq!(mask64(32, 63), 0xffff_ffff);
        assert_eq!(mask64(63, 0), 0x8000_0000_0000_0001);
        assert_eq!(mask64(33, 32), u64::MAX);
    }
}
