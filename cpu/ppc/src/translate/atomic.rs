//! Load and reserve, store conditional, atomic memory operations, barriers and cache management (Book II, chapter 4).
//!
//! A reservation holds address, size and the value loaded; a conditional store succeeds if the location still has that value
//! (compare and swap).

use super::{Flow, Insn, Pattern, Translator, pat};
use crate::bits::dsisr;
use crate::config::Isa;
use crate::helpers::system;
use crate::state::slots;
use rhea_ir::{Cond, MemOp, Op, RmwOp, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("lbarx", "011111 RT:5 RA:5 RB:5 0000110100 EH", larx),
    pat("lharx", "011111 RT:5 RA:5 RB:5 0001110100 EH", larx),
    pat("lwarx", "011111 RT:5 RA:5 RB:5 0000010100 EH", larx),
    pat("ldarx", "011111 RT:5 RA:5 RB:5 0001010100 EH", larx),
    pat("lqarx", "011111 RT:5 RA:5 RB:5 0100010100 EH", lqarx),
    pat("stbcx", "011111 RS:5 RA:5 RB:5 1010110110 1", stcx),
    pat("sthcx", "011111 RS:5 RA:5 RB:5 1011010110 1", stcx),
    pat("stwcx", "011111 RS:5 RA:5 RB:5 0010010110 1", stcx),
    pat("stdcx", "011111 RS:5 RA:5 RB:5 0011010110 1", stcx),
    pat("stqcx", "011111 RS:5 RA:5 RB:5 0010110110 1", stqcx),
    pat("lwat", "011111 RT:5 RA:5 FC:5 1001000110 x", load_atomic).since(Isa::V3_0),
    pat("ldat", "011111 RT:5 RA:5 FC:5 1001100110 x", load_atomic).since(Isa::V3_0),
    pat("stwat", "011111 RS:5 RA:5 FC:5 1011000110 x", store_atomic).since(Isa::V3_0),
    pat("stdat", "011111 RS:5 RA:5 FC:5 1011100110 x", store_atomic).since(Isa::V3_0),
    pat("sync", "011111 xx L:3 xxx SC:2 xxxxx 1001010110 x", sync),
    pat("eieio", "011111 xxxxx xxxxx xxxxx 1101010110 x", eieio),
    pat("isync", "010011 xxxxx xxxxx xxxxx 0010010110 x", isync),
    pat("dcbf", "011111 x L:4 RA:5 RB:5 0001010110 x", touch_block),
    pat("dcbst", "011111 xxxxx RA:5 RB:5 0000110110 x", touch_block),
    pat("icbi", "011111 xxxxx RA:5 RB:5 1111010110 x", touch_block),
    pat("dcbt", "011111 TH:5 RA:5 RB:5 0100010110 x", hint),
    pat("dcbtst", "011111 TH:5 RA:5 RB:5 0011110110 x", hint),
    pat("icbt", "011111 x CT:4 RA:5 RB:5 0000010110 x", hint),
    // Data streams of old vector facilities: hints that programs still give.
    pat("dst", "011111 T xx STRM:2 RA:5 RB:5 0101010110 x", hint),
    pat("dstst", "011111 T xx STRM:2 RA:5 RB:5 0101110110 x", hint),
    pat("dss", "011111 A xx STRM:2 xxxxx xxxxx 1100110110 x", hint),
    pat("dcbz", "011111 xxxxx RA:5 RB:5 1111110110 x", dcbz),
    pat("copy", "011111 xxxx 1 RA:5 RB:5 1100000110 x", copy).since(Isa::V3_0),
    pat("paste", "011111 xxxx L RA:5 RB:5 1110000110 1", paste).since(Isa::V3_0),
    pat("cpabort", "011111 xxxxx xxxxx xxxxx 1101000110 x", hint).since(Isa::V3_0),
];

/// Bytes that dcbz clears: log2.
const BLOCK_LOG2: u32 = 7;

impl Translator<'_, '_> {
    fn atomic_op(&self, size: u32) -> MemOp {
        self.mem_op(size).align(size)
    }
    /// CR0 of a conditional store: LT and GT clear, EQ success, SO copied.
    fn conditional_result(&mut self, stored: Value) {
        let no = self.cbool(false);
        let so = self.b.get(slots::SO);
        self.set_cr_field(0, [no, no, stored, so]);
    }
    fn reserve(&mut self, addr: Value, bytes: u32, low: Value, high: Option<Value>) {
        let bytes = self.c32(bytes);
        self.b.set(slots::RES_SIZE, bytes);
        self.b.set(slots::RES_ADDR, addr);
        self.b.set(slots::RES_LO, low);
        if let Some(high) = high {
            self.b.set(slots::RES_HI, high);
        }
    }
    /// Runs `swap` (which returns Bool: stored) if there is a reservation for the access; sets CR0 and loses the reservation.
    fn store_conditional(&mut self, addr: Value, m: MemOp, swap: impl FnOnce(&mut Self) -> Value) {
        let (at, size) = (self.b.get(slots::RES_ADDR), self.b.get(slots::RES_SIZE));
        let same_addr = self.b.icmp(Cond::Eq, at, addr);
        let bytes = self.c32(m.bytes());
        let same_size = self.b.icmp(Cond::Eq, size, bytes);
        let held = self.b.and(same_addr, same_size);
        let (attempt, fail, join) = (self.b.new_block(), self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(held, attempt, fail, 1);
        self.b.switch_to(attempt);
        let stored = swap(self);
        self.conditional_result(stored);
        let none = self.c32(0);
        self.b.set(slots::RES_SIZE, none);
        self.b.end_inner(join);
        self.b.switch_to(fail);
        // An address that is misaligned, or may not be stored to, is one without a reservation too.
        self.b.probe_write(m, addr, 0);
        let no = self.cbool(false);
        self.conditional_result(no);
        let none = self.c32(0);
        self.b.set(slots::RES_SIZE, none);
        self.b.end_inner(join);
        self.b.switch_to(join);
    }
    /// The low `1 << size` bytes of a register, zero-extended, as atomics take them.
    fn atomic_operand(&mut self, size: u32, n: u32) -> Value {
        match size {
            3 => self.r(n),
            2 => self.w(n),
            _ => {
                let w = self.w(n);
                self.b.zext(w, 8 << size)
            }
        }
    }
}

fn size(i: Insn) -> u32 {
    match i.field(21, 30) {
        52 | 694 => 0,
        116 | 726 => 1,
        20 | 150 => 2,
        _ => 3,
    }
}

fn larx(t: &mut Translator, i: Insn) -> Flow {
    let size = size(i);
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.atomic_op(size);
    let v = t.b.load(Type::I64, m, a, 0);
    t.reserve(a, 1 << size, v, None);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn stcx(t: &mut Translator, i: Insn) -> Flow {
    let size = size(i);
    let a = t.ea_indexed(i.ra(), i.rb());
    let new = t.atomic_operand(size, i.rt());
    let m = t.atomic_op(size);
    t.store_conditional(a, m, |t| {
        let expected = t.b.get(slots::RES_LO);
        let (ty, expected) = if size == 3 { (Type::I64, expected) } else { (Type::I32, t.b.trunc(expected)) };
        let old = t.b.cas(ty, m, a, expected, new);
        t.b.icmp(Cond::Eq, old, expected)
    });
    Flow::Next
}

fn lqarx(t: &mut Translator, i: Insn) -> Flow {
    let rt = i.rt();
    if rt & 1 != 0 || rt == i.ra() || rt == i.rb() {
        return Flow::Illegal;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    let m = t.atomic_op(4).atomic();
    let v = t.b.load(Type::I128, m, a, 0);
    let low = t.b.op1(Op::Lo64, Type::I64, v, 0, 0);
    let high = t.b.op1(Op::Hi64, Type::I64, v, 0, 0);
    t.reserve(a, 16, low, Some(high));
    t.set_r(rt, high);
    t.set_r(rt + 1, low);
    Flow::Next
}

fn stqcx(t: &mut Translator, i: Insn) -> Flow {
    let rs = i.rt();
    if rs & 1 != 0 {
        return Flow::Illegal;
    }
    let a = t.ea_indexed(i.ra(), i.rb());
    let (high, low) = (t.r(rs), t.r(rs + 1));
    let new = t.b.op2(Op::Concat, Type::I128, low, high, 0, 0);
    let m = t.atomic_op(4).atomic();
    t.store_conditional(a, m, |t| {
        let (low, high) = (t.b.get(slots::RES_LO), t.b.get(slots::RES_HI));
        let expected = t.b.op2(Op::Concat, Type::I128, low, high, 0, 0);
        let old = t.b.cas(Type::I128, m, a, expected, new);
        let old_low = t.b.op1(Op::Lo64, Type::I64, old, 0, 0);
        let old_high = t.b.op1(Op::Hi64, Type::I64, old, 0, 0);
        let (x, y) = (t.b.xor(old_low, low), t.b.xor(old_high, high));
        let differ = t.b.or(x, y);
        let zero = t.c64(0);
        t.b.icmp(Cond::Eq, differ, zero)
    });
    Flow::Next
}

/// The address of an atomic memory operation is (RA|0).
fn amo(t: &mut Translator, i: Insn) -> (u32, Type, Value, MemOp) {
    let size = if i.bit(25) { 3 } else { 2 };
    let a = t.r0(i.ra());
    let a = t.ea(a);
    (size, if size == 3 { Type::I64 } else { Type::I32 }, a, t.atomic_op(size))
}

/// Atomic operation of a function code common to loads and stores.
fn simple(fc: u32) -> Option<RmwOp> {
    Some(match fc {
        0 => RmwOp::Add,
        1 => RmwOp::Xor,
        2 => RmwOp::Or,
        3 => RmwOp::And,
        4 => RmwOp::UMax,
        5 => RmwOp::SMax,
        6 => RmwOp::UMin,
        7 => RmwOp::SMin,
        _ => return None,
    })
}

/// The value of a word or doubleword operation as a register gets it.
fn widened(t: &mut Translator, size: u32, v: Value) -> Value {
    if size == 3 { v } else { t.b.zext64(v) }
}

/// The register behind RT, of function codes that take two.
fn second(i: Insn, n: u32) -> u32 {
    (i.rt() + n) & 31
}

fn load_atomic(t: &mut Translator, i: Insn) -> Flow {
    let fc = i.rb();
    let (size, ty, a, m) = amo(t, i);
    let old = if let Some(op) = simple(fc) {
        let v = t.atomic_operand(size, second(i, 1));
        t.b.rmw(ty, op, m, a, v)
    } else {
        match fc {
            8 => {
                let v = t.atomic_operand(size, second(i, 1));
                t.b.rmw(ty, RmwOp::Xchg, m, a, v)
            }
            // Compare and swap not equal: stores RT+2 if the location differs from RT+1.
            16 => {
                let (other, new) = (t.atomic_operand(size, second(i, 1)), t.atomic_operand(size, second(i, 2)));
                return swapped(t, i, size, ty, m, a, |t, old| {
                    let same = t.b.icmp(Cond::Eq, old, other);
                    t.b.select(same, old, new)
                });
            }
            // Fetch and increment (decrement) bounded (equal): the next location holds the bound; the result is the least
            // integer if nothing was stored.
            24 | 25 | 28 => return bounded(t, i, size, ty, m, a, fc),
            _ => return amo_invalid(t, a),
        }
    };
    let v = widened(t, size, old);
    t.set_r(i.rt(), v);
    Flow::Next
}

/// A reserved function code: data storage interrupt.
fn amo_invalid(t: &mut Translator, a: Value) -> Flow {
    let cause = t.c64(dsisr::FUNCTION_CODE);
    t.end_with(system::STORAGE, &[a, cause])
}

/// Replaces a location by a function of its value; RT gets the old one. If another processor came between, the instruction
/// starts again.
fn swapped(
    t: &mut Translator,
    i: Insn,
    size: u32,
    ty: Type,
    m: MemOp,
    a: Value,
    f: impl FnOnce(&mut Translator, Value) -> Value,
) -> Flow {
    let seen = t.b.load(ty, m.for_update(), a, 0);
    let new = f(t, seen);
    let old = t.b.cas(ty, m, a, seen, new);
    let lost = t.b.icmp(Cond::Ne, old, seen);
    retry_if(t, lost);
    let v = widened(t, size, seen);
    t.set_r(i.rt(), v);
    Flow::Next
}

/// Starts the instruction again if the condition holds.
fn retry_if(t: &mut Translator, lost: Value) {
    let (again, on) = (t.b.new_block(), t.b.new_block());
    let pc = t.pc;
    t.b.end_inner_branch(lost, again, on, -1);
    t.b.switch_to(again);
    t.b.end_goto(pc);
    t.b.switch_to(on);
}

fn bounded(t: &mut Translator, i: Insn, size: u32, ty: Type, m: MemOp, a: Value, fc: u32) -> Flow {
    let bytes = 1i64 << size;
    // The pair must not cross a block of 32 bytes: not checked, as the location alone is updated. The other one is before
    // it for decrements.
    let disp = if fc == 28 { -bytes } else { bytes };
    let bound = t.b.load(ty, m, a, disp);
    let seen = t.b.load(ty, m.for_update(), a, 0);
    let one = t.b.iconst(ty, 1);
    let (new, held) = match fc {
        24 => (t.b.add(seen, one), t.b.icmp(Cond::Ne, seen, bound)),
        25 => (t.b.add(seen, one), t.b.icmp(Cond::Eq, seen, bound)),
        _ => (t.b.sub(seen, one), t.b.icmp(Cond::Ne, seen, bound)),
    };
    let new = t.b.select(held, new, seen);
    let old = t.b.cas(ty, m, a, seen, new);
    let lost = t.b.icmp(Cond::Ne, old, seen);
    retry_if(t, lost);
    let least = t.b.iconst(ty, if size == 3 { 1 << 63 } else { 1 << 31 });
    let v = t.b.select(held, seen, least);
    let v = widened(t, size, v);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn store_atomic(t: &mut Translator, i: Insn) -> Flow {
    let fc = i.rb();
    let (size, ty, a, m) = amo(t, i);
    let v = t.atomic_operand(size, i.rt());
    if fc == 24 {
        // Store twin: both locations get RS if they are equal.
        let other = t.b.load(ty, m, a, 1 << size);
        let seen = t.b.load(ty, m.for_update(), a, 0);
        let same = t.b.icmp(Cond::Eq, seen, other);
        let new = t.b.select(same, v, seen);
        let old = t.b.cas(ty, m, a, seen, new);
        let lost = t.b.icmp(Cond::Ne, old, seen);
        retry_if(t, lost);
        let new = t.b.select(same, v, other);
        t.b.store(m, a, 1 << size, new);
        return Flow::Next;
    }
    // Signed and unsigned maximum and minimum are as for loads.
    let Some(op) = simple(fc) else { return amo_invalid(t, a) };
    t.b.rmw(ty, op, m, a, v);
    Flow::Next
}

fn sync(t: &mut Translator, i: Insn) -> Flow {
    // lwsync orders all but a store before a load.
    t.b.fence(i.field(8, 10) != 1);
    Flow::Next
}

fn eieio(t: &mut Translator, _: Insn) -> Flow {
    t.b.fence(false);
    Flow::Next
}

/// What follows is fetched again.
fn isync(t: &mut Translator, _: Insn) -> Flow {
    t.sync_segments();
    let next = t.next_pc();
    t.end_goto(next)
}

/// dcbf, dcbst, icbi: treated as loads by translation and protection; caches are coherent.
fn touch_block(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    t.b.load(Type::I64, t.mem_op(0), a, 0);
    Flow::Next
}

fn hint(_: &mut Translator, _: Insn) -> Flow {
    Flow::Next
}

/// A probe at the address given (so that a fault reports it), then stores that cannot fault.
fn dcbz(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    t.b.probe_write(t.mem_op(0), a, 0);
    let a = t.and_imm(a, !((1 << BLOCK_LOG2) - 1));
    let zero = t.b.vconst(0);
    let m = MemOp::new(4, t.mode.data_idx());
    for n in 0..1 << (BLOCK_LOG2 - 4) {
        t.b.store(m, a, 16 * n, zero);
    }
    Flow::Next
}

/// There is no accelerator to paste to: a copy only checks its address.
fn copy(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    t.b.load(Type::I64, t.mem_op(0).align(BLOCK_LOG2), a, 0);
    Flow::Next
}

/// To main storage, which cannot be pasted to: data storage interrupt.
fn paste(t: &mut Translator, i: Insn) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    t.b.probe_write(t.mem_op(0).align(BLOCK_LOG2), a, 0);
    let cause = t.c64(dsisr::COPY_PASTE);
    t.end_with(system::STORAGE, &[a, cause])
}
