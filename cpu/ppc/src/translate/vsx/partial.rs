//! Loads and stores of a length known at run time (lxvl, lxvll, stxvl, stxvll).

use crate::exception::Vector;
use crate::state::slots;
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{BlockId, Cond, Lane, MemOp, Op, Type, Value};

/// A value without its lowest or highest bytes.
fn shift(t: &mut Translator, op: Op, v: Value, n: Value) -> Value {
    t.b.bin(op, v, n)
}

/// The length, at most 16, and the address.
fn operands(t: &mut Translator, i: Insn) -> (Value, Value) {
    let n = t.r(i.rb());
    let n = t.shr(n, 56);
    let limit = t.c64(16);
    let less = t.b.icmp(Cond::Ult, n, limit);
    let n = t.b.select(less, n, limit);
    let a = t.r0(i.ra());
    (n, t.ea(a))
}

/// Branches to a new block if the length is below `limit`; goes on in the other one.
fn split(t: &mut Translator, n: Value, limit: u64) -> BlockId {
    let c = t.c64(limit);
    let less = t.b.icmp(Cond::Ult, n, c);
    let (below, above) = (t.b.new_block(), t.b.new_block());
    t.b.end_inner_branch(less, below, above, 0);
    t.b.switch_to(above);
    below
}

/// Bytes in memory order as a register: as a number in little-endian order, or from the left.
fn to_register(t: &mut Translator, low: Value, high: Value, left: bool) -> Value {
    let (low, high) = if left { (t.b.un(Op::Bswap, high), t.b.un(Op::Bswap, low)) } else { (low, high) };
    let v = t.b.vfromscalar(high);
    t.b.vinsert(Lane::D, v, 1, low)
}

pub(super) fn load(t: &mut Translator, i: Insn, left: bool) -> Flow {
    let reg = i.xt();
    if let Some(f) = t.unavailable_for(reg, Vector::VsxUnavailable) {
        return f;
    }
    let left = left || !t.mode.le();
    let (n, a) = operands(t, i);
    let done = t.b.new_block();
    let idx = t.mode.data_idx();
    // Storage is read in little-endian order whatever the mode; by two accesses that overlap.
    for size in [3u32, 2, 1, 0] {
        let bytes = 1u64 << size;
        let below = split(t, n, bytes);
        let m = MemOp::new(size, idx);
        let low = t.b.load(Type::I64, m, a, 0);
        let zero = t.c64(0);
        let (low, high) = if size == 0 {
            (low, zero)
        } else {
            let rest = t.add_imm(n, bytes.wrapping_neg());
            let end = t.b.add(a, rest);
            let end = t.ea(end);
            let last = t.b.load(Type::I64, m, end, 0);
            if size == 3 {
                // By eight bytes less the rest, in two steps, for a whole doubleword may go.
                let c = t.c64(8);
                let lost = t.b.sub(c, rest);
                let half = t.shl(lost, 2);
                let h = shift(t, Op::Shr, last, half);
                (low, shift(t, Op::Shr, h, half))
            } else {
                let by = t.shl(rest, 3);
                let h = shift(t, Op::Shl, last, by);
                (t.b.or(low, h), zero)
            }
        };
        let v = to_register(t, low, high, left);
        t.b.set(slots::vsr(reg), v);
        t.b.end_inner(done);
        t.b.switch_to(below);
    }
    let zero = t.b.vconst(0);
    t.b.set(slots::vsr(reg), zero);
    t.b.end_inner(done);
    t.b.switch_to(done);
    Flow::Next
}

pub(super) fn store(t: &mut Translator, i: Insn, left: bool) -> Flow {
    let reg = i.xt();
    if let Some(f) = t.unavailable_for(reg, Vector::VsxUnavailable) {
        return f;
    }
    let left = left || !t.mode.le();
    let (n, a) = operands(t, i);
    let v = t.vsr(reg);
    let (low, high) = (t.doubleword(v, 1), t.doubleword(v, 0));
    let (low, high) = if left { (t.b.un(Op::Bswap, high), t.b.un(Op::Bswap, low)) } else { (low, high) };
    let done = t.b.new_block();
    let idx = t.mode.data_idx();
    for size in [3u32, 2, 1, 0] {
        let bytes = 1u64 << size;
        let below = split(t, n, bytes);
        let m = MemOp::new(size, idx);
        if size == 0 {
            t.b.store(m, a, 0, low);
        } else {
            let rest = t.add_imm(n, bytes.wrapping_neg());
            let end = t.b.add(a, rest);
            let end = t.ea(end);
            let by = t.shl(rest, 3);
            let last = if size == 3 {
                // Bytes from the rest's number on; a shift by a whole doubleword in two steps.
                let half = t.shl(rest, 2);
                let l = shift(t, Op::Shr, low, half);
                let l = shift(t, Op::Shr, l, half);
                let c = t.c64(8);
                let kept = t.b.sub(c, rest);
                let half = t.shl(kept, 2);
                let h = shift(t, Op::Shl, high, half);
                let h = shift(t, Op::Shl, h, half);
                t.b.or(l, h)
            } else {
                shift(t, Op::Shr, low, by)
            };
            t.b.probe_write(m, end, 0);
            t.b.store(m, a, 0, low);
            t.b.store(m, end, 0, last);
        }
        t.b.end_inner(done);
        t.b.switch_to(below);
    }
    t.b.end_inner(done);
    t.b.switch_to(done);
    Flow::Next
}
