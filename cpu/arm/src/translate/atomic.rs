//! Exclusives, load-acquire and store-release, LSE atomics (C4.1.97).
//!
//! The exclusive monitor holds address, size and the value loaded; a store-exclusive succeeds if the location still
//! has that value (compare and swap).

use super::address::Ordered;
use super::{Flow, Insn, Pattern, Translator, pat};
use crate::config::Feature;
use crate::state::slots;
use rhea_ir::{Cond, MemOp, Op, RmwOp, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("stxr", "size:2 001000 0 0 0 Rs:5 o0 Rt2:5 Rn:5 Rt:5", stxr),
    pat("ldxr", "size:2 001000 0 1 0 Rs:5 o0 Rt2:5 Rn:5 Rt:5", ldxr),
    pat("stxp", "1 sz 001000 0 0 1 Rs:5 o0 Rt2:5 Rn:5 Rt:5", stxp),
    pat("ldxp", "1 sz 001000 0 1 1 Rs:5 o0 Rt2:5 Rn:5 Rt:5", ldxp),
    pat("casp", "0 sz 001000 0 L 1 Rs:5 o0 11111 Rn:5 Rt:5", casp).needs(Feature::Lse),
    pat("stllr", "size:2 001000 1 0 0 Rs:5 0 Rt2:5 Rn:5 Rt:5", stlr).needs(Feature::Lor),
    pat("stlr", "size:2 001000 1 0 0 Rs:5 1 Rt2:5 Rn:5 Rt:5", stlr),
    pat("ldlar", "size:2 001000 1 1 0 Rs:5 0 Rt2:5 Rn:5 Rt:5", ldar).needs(Feature::Lor),
    pat("ldar", "size:2 001000 1 1 0 Rs:5 1 Rt2:5 Rn:5 Rt:5", ldar),
    pat("cas", "size:2 001000 1 L 1 Rs:5 o0 11111 Rn:5 Rt:5", cas).needs(Feature::Lse),
    pat("ldop", "size:2 111 0 00 A R 1 Rs:5 0 opc:3 00 Rn:5 Rt:5", ldop).needs(Feature::Lse),
    pat("swp", "size:2 111 0 00 A R 1 Rs:5 1 000 00 Rn:5 Rt:5", ldop).needs(Feature::Lse),
    pat("ldapr", "size:2 111 0 00 1 0 1 Rs:5 1 100 00 Rn:5 Rt:5", ldar).needs(Feature::Lrcpc),
    pat("ldapur", "size:2 011001 opc:2 0 imm9:9 00 Rn:5 Rt:5", ldapur).needs(Feature::Lrcpc2),
];

fn order(m: MemOp, acquire: bool, release: bool) -> MemOp {
    let m = if acquire { m.acquire() } else { m };
    if release { m.release() } else { m }
}

const fn int(size: u32) -> Type {
    if size == 3 { Type::I64 } else { Type::I32 }
}

impl Translator<'_, '_> {
    /// The low `1 << size` bytes of Rn, zero-extended, as I32 or I64.
    fn operand(&mut self, size: u32, n: u32) -> Value {
        match size {
            3 => self.x(n),
            2 => self.w(n),
            _ => {
                let w = self.w(n);
                self.b.zext(w, 8 << size)
            }
        }
    }
    /// Writes a zero-extended I32 or I64.
    fn set_loaded(&mut self, size: u32, n: u32, v: Value) {
        if size == 3 { self.set_x(n, v) } else { self.set_w(n, v) }
    }
    /// Arms the exclusive monitor.
    fn monitor(&mut self, addr: Value, bytes: u32, lo: Value, hi: Option<Value>) {
        let bytes = self.c32(bytes);
        self.b.set(slots::EXCL_SIZE, bytes);
        self.b.set(slots::EXCL_ADDR, addr);
        let lo = if self.b.func.ty(lo) == Type::I32 { self.b.zext64(lo) } else { lo };
        self.b.set(slots::EXCL_LO, lo);
        if let Some(hi) = hi {
            self.b.set(slots::EXCL_HI, hi);
        }
    }
    /// Tests the monitor, runs `swap` (which returns Bool: the location changed) if it is armed for the access, sets
    /// Rs and opens the monitor.
    fn store_exclusive(&mut self, addr: Value, bytes: u32, rs: u32, swap: impl FnOnce(&mut Self) -> Value) {
        let (armed_addr, armed_size) = (self.b.get(slots::EXCL_ADDR), self.b.get(slots::EXCL_SIZE));
        let same_addr = self.b.icmp(Cond::Eq, armed_addr, addr);
        let bytes = self.c32(bytes);
        let same_size = self.b.icmp(Cond::Eq, armed_size, bytes);
        let armed = self.b.and(same_addr, same_size);
        let (attempt, fail, join) = (self.b.new_block(), self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(armed, attempt, fail, 1);
        self.b.switch_to(attempt);
        let changed = swap(self);
        let status = self.b.op1(Op::FromBool, Type::I64, changed, 0, 0);
        self.set_x(rs, status);
        let open = self.c32(0);
        self.b.set(slots::EXCL_SIZE, open);
        self.b.end_inner(join);
        self.b.switch_to(fail);
        let one = self.c64(1);
        self.set_x(rs, one);
        let open = self.c32(0);
        self.b.set(slots::EXCL_SIZE, open);
        self.b.end_inner(join);
        self.b.switch_to(join);
    }
    /// First and second register of a 16-byte value in memory order.
    fn halves(&mut self, v: Value) -> (Value, Value) {
        let lo = self.b.op1(Op::Lo64, Type::I64, v, 0, 0);
        let hi = self.b.op1(Op::Hi64, Type::I64, v, 0, 0);
        if self.mode.big_endian() { (hi, lo) } else { (lo, hi) }
    }
    /// Two registers as one value of `1 << size` bytes each.
    fn join_pair(&mut self, size: u32, first: u32, second: u32) -> Value {
        let (lo, hi) = if self.mode.big_endian() { (second, first) } else { (first, second) };
        let (lo, hi) = (self.x(lo), self.x(hi));
        if size == 3 {
            return self.b.op2(Op::Concat, Type::I128, lo, hi, 0, 0);
        }
        let lo = self.b.zext(lo, 32);
        let hi = self.shl(hi, 32);
        self.b.or(lo, hi)
    }
    /// The reverse of `join_pair`: values for Xt and Xt2.
    fn split_pair(&mut self, size: u32, v: Value) -> (Value, Value) {
        if size == 3 {
            return self.halves(v);
        }
        let lo = self.b.zext(v, 32);
        let hi = self.shr(v, 32);
        if self.mode.big_endian() { (hi, lo) } else { (lo, hi) }
    }
}

fn ldxr(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::Exclusive, false);
    let v = t.b.load(Type::I64, order(m, i.bit(15), false), addr, 0);
    t.monitor(addr, 1 << size, v, None);
    t.set_x(i.rt(), v);
    Flow::Next
}

fn stxr(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let new = t.operand(size, i.rt());
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::Exclusive, true);
    t.store_exclusive(addr, 1 << size, i.rm(), |t| {
        let expected = t.b.get(slots::EXCL_LO);
        let expected = if size == 3 { expected } else { t.b.trunc(expected) };
        let old = t.b.cas(int(size), order(m, false, i.bit(15)), addr, expected, new);
        t.b.icmp(Cond::Ne, old, expected)
    });
    Flow::Next
}

fn ldxp(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let (addr, m) = t.ordered_access(i.rn(), 0, size + 1, Ordered::Exclusive, false);
    let m = order(m, i.bit(15), false);
    if size == 3 {
        let v = t.b.load(Type::I128, m.atomic(), addr, 0);
        let lo = t.b.op1(Op::Lo64, Type::I64, v, 0, 0);
        let hi = t.b.op1(Op::Hi64, Type::I64, v, 0, 0);
        t.monitor(addr, 16, lo, Some(hi));
        let (a, b) = if t.mode.big_endian() { (hi, lo) } else { (lo, hi) };
        t.set_x(i.rt(), a);
        t.set_x(i.ra(), b);
    } else {
        let v = t.b.load(Type::I64, m, addr, 0);
        t.monitor(addr, 8, v, None);
        let (a, b) = t.split_pair(2, v);
        t.set_x(i.rt(), a);
        t.set_x(i.ra(), b);
    }
    Flow::Next
}

fn stxp(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let new = t.join_pair(size, i.rt(), i.ra());
    let (addr, m) = t.ordered_access(i.rn(), 0, size + 1, Ordered::Exclusive, true);
    let m = order(m, false, i.bit(15));
    t.store_exclusive(addr, 2 << size, i.rm(), |t| {
        let lo = t.b.get(slots::EXCL_LO);
        if size != 3 {
            let old = t.b.cas(Type::I64, m, addr, lo, new);
            return t.b.icmp(Cond::Ne, old, lo);
        }
        let hi = t.b.get(slots::EXCL_HI);
        let expected = t.b.op2(Op::Concat, Type::I128, lo, hi, 0, 0);
        let old = t.b.cas(Type::I128, m.atomic(), addr, expected, new);
        let old_lo = t.b.op1(Op::Lo64, Type::I64, old, 0, 0);
        let old_hi = t.b.op1(Op::Hi64, Type::I64, old, 0, 0);
        let (a, b) = (t.b.xor(old_lo, lo), t.b.xor(old_hi, hi));
        let differ = t.b.or(a, b);
        let zero = t.c64(0);
        t.b.icmp(Cond::Ne, differ, zero)
    });
    Flow::Next
}

/// LDAR, LDLAR, LDAPR.
fn ldar(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::AcquireRelease, false);
    let v = t.b.load(Type::I64, m.acquire(), addr, 0);
    t.set_x(i.rt(), v);
    Flow::Next
}

/// STLR, STLLR.
fn stlr(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::AcquireRelease, true);
    let v = if size == 3 { t.x(i.rt()) } else { t.w(i.rt()) };
    t.b.store(m.release(), addr, 0, v);
    Flow::Next
}

/// LDAPUR, LDAPURS, STLUR.
fn ldapur(t: &mut Translator, i: Insn) -> Flow {
    let (size, opc) = (i.bits(30, 2), i.bits(22, 2));
    if opc >= 2 && size == 3 || opc == 3 && size == 2 {
        return Flow::Undef;
    }
    let (addr, m) = t.ordered_access(i.rn(), i.sbits(12, 9), size, Ordered::AcquireRelease, opc == 0);
    match opc {
        0 => {
            let v = if size == 3 { t.x(i.rt()) } else { t.w(i.rt()) };
            t.b.store(m.release(), addr, 0, v);
        }
        1 => {
            let v = t.b.load(Type::I64, m.acquire(), addr, 0);
            t.set_x(i.rt(), v);
        }
        2 => {
            let v = t.b.load(Type::I64, m.acquire().signed(), addr, 0);
            t.set_x(i.rt(), v);
        }
        _ => {
            let v = t.b.load(Type::I32, m.acquire().signed(), addr, 0);
            t.set_w(i.rt(), v);
        }
    }
    Flow::Next
}

fn cas(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let (expected, new) = (t.operand(size, i.rm()), t.operand(size, i.rt()));
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::Atomic, true);
    let old = t.b.cas(int(size), order(m, i.bit(22), i.bit(15)), addr, expected, new);
    t.set_loaded(size, i.rm(), old);
    Flow::Next
}

fn casp(t: &mut Translator, i: Insn) -> Flow {
    let (size, rs, rt) = (i.bits(30, 1) + 2, i.rm(), i.rt());
    if (rs | rt) & 1 != 0 {
        return Flow::Undef;
    }
    let expected = t.join_pair(size, rs, rs + 1);
    let new = t.join_pair(size, rt, rt + 1);
    let (addr, m) = t.ordered_access(i.rn(), 0, size + 1, Ordered::Atomic, true);
    let m = order(m, i.bit(22), i.bit(15));
    let old = if size == 3 {
        t.b.cas(Type::I128, m.atomic(), addr, expected, new)
    } else {
        t.b.cas(Type::I64, m, addr, expected, new)
    };
    let (a, b) = t.split_pair(size, old);
    t.set_x(rs, a);
    t.set_x(rs + 1, b);
    Flow::Next
}

/// LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN and their ST forms; SWP.
fn ldop(t: &mut Translator, i: Insn) -> Flow {
    let size = i.bits(30, 2);
    let op = if i.bit(15) {
        RmwOp::Xchg
    } else {
        [RmwOp::Add, RmwOp::Clr, RmwOp::Xor, RmwOp::Or, RmwOp::SMax, RmwOp::SMin, RmwOp::UMax, RmwOp::UMin]
            [i.bits(12, 3) as usize]
    };
    let v = t.operand(size, i.rm());
    let (addr, m) = t.ordered_access(i.rn(), 0, size, Ordered::Atomic, true);
    let old = t.b.rmw(int(size), op, order(m, i.bit(23), i.bit(22)), addr, v);
    t.set_loaded(size, i.rt(), old);
    Flow::Next
}
