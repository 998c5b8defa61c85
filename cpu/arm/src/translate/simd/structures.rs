//! LD1–LD4, ST1–ST4 of multiple and single structures, LD1R–LD4R.
//!
//! Whole registers move in one access; the element order and, on big-endian data, the bytes of each element are
//! arranged by shuffles. Registers are written after the last access.

use super::Done;
use super::access::byte_mask;
use crate::translate::{Insn, Translator};
use rhea_ir::{Lane, MemOp, Op, Type, Value};

/// `src` lanes gathered: lane `k` of the low `bytes` of the result is lane `f(k).1` of `src[f(k).0]`.
fn gather(t: &mut Translator, lane: Lane, bytes: u32, src: &[Value], f: impl Fn(u32) -> (usize, u32)) -> Value {
    let per = lane.count();
    let size = lane.bytes();
    let mut parts = Vec::with_capacity(2);
    for (p, pair) in src.chunks(2).enumerate() {
        let mut mask = byte_mask(lane, bytes, |k| {
            let (reg, at) = f(k);
            if reg / 2 == p { at + if reg % 2 != 0 { per } else { 0 } } else { 0 }
        });
        let mut used = false;
        for k in 0..bytes / size {
            if f(k).0 / 2 == p {
                used = true;
            } else {
                mask[(k * size) as usize..((k + 1) * size) as usize].fill(255);
            }
        }
        if used {
            let second = pair.get(1).copied().unwrap_or(pair[0]);
            parts.push(t.b.shuffle(pair[0], second, mask));
        }
    }
    match *parts {
        [a] => a,
        [a, b] => t.bits(Op::VOr, a, b),
        _ => t.vzero(),
    }
}

/// Registers of a multi-structure access of `selem` elements per structure: for loads from memory order to register
/// order.
fn deinterleave(t: &mut Translator, lane: Lane, bytes: u32, selem: usize, mem: &[Value]) -> Vec<Value> {
    match (selem, bytes) {
        (2, 16) => (0..2).map(|j| t.every_other(lane, 16, mem[0], mem[1], j)).collect(),
        (4, 16) => {
            let e = [t.every_other(lane, 16, mem[0], mem[1], 0), t.every_other(lane, 16, mem[2], mem[3], 0)];
            let o = [t.every_other(lane, 16, mem[0], mem[1], 1), t.every_other(lane, 16, mem[2], mem[3], 1)];
            vec![
                t.every_other(lane, 16, e[0], e[1], 0),
                t.every_other(lane, 16, o[0], o[1], 0),
                t.every_other(lane, 16, e[0], e[1], 1),
                t.every_other(lane, 16, o[0], o[1], 1),
            ]
        }
        _ => {
            let per = lane.count();
            (0..selem as u32)
                .map(|j| {
                    gather(t, lane, bytes, mem, |k| {
                        let e = k * selem as u32 + j;
                        ((e / per) as usize, e % per)
                    })
                })
                .collect()
        }
    }
}

/// The inverse for stores: 16-byte pieces of memory, the last of which may be half used.
fn interleave(t: &mut Translator, lane: Lane, bytes: u32, selem: usize, regs: &[Value]) -> Vec<Value> {
    let zip = |t: &mut Translator, a: Value, b: Value, second: u32| {
        let per = lane.count();
        let m = byte_mask(lane, 16, |k| k / 2 + second * (per / 2) + if k & 1 != 0 { per } else { 0 });
        t.b.shuffle(a, b, m)
    };
    match (selem, bytes) {
        (2, 16) => vec![zip(t, regs[0], regs[1], 0), zip(t, regs[0], regs[1], 1)],
        (4, 16) => {
            let mut out = Vec::with_capacity(4);
            for half in 0..2 {
                let (a, b) = (zip(t, regs[0], regs[2], half), zip(t, regs[1], regs[3], half));
                out.push(zip(t, a, b, 0));
                out.push(zip(t, a, b, 1));
            }
            out
        }
        _ => {
            let total = selem as u32 * bytes;
            (0..total.div_ceil(16))
                .map(|p| {
                    let here = (total - p * 16).min(16);
                    gather(t, lane, here, regs, |k| {
                        let e = p * lane.count() + k;
                        ((e as usize) % selem, e / selem as u32)
                    })
                })
                .collect()
        }
    }
}

impl Translator<'_, '_> {
    /// Attributes of an access of 8 or 16 bytes made of elements of `lane`; always little-endian.
    fn structure_op(&self, bytes: u32, lane: Lane) -> MemOp {
        let m = MemOp::new(bytes.trailing_zeros(), self.mode.mmu_idx());
        if self.mode.align_check() { m.align(lane as u32) } else { m }
    }
    /// On big-endian data the bytes of each element are reversed.
    fn element_order(&mut self, lane: Lane, v: Value) -> Value {
        if !self.mode.big_endian() || lane == Lane::B {
            return v;
        }
        let m = byte_mask(Lane::B, 16, |k| k ^ (lane.bytes() - 1));
        self.b.shuffle(v, v, m)
    }
    fn load_piece(&mut self, lane: Lane, bytes: u32, addr: Value, disp: i64) -> Value {
        let m = self.structure_op(bytes, lane);
        let v = if bytes == 16 {
            self.b.load(Type::V128, m, addr, disp)
        } else {
            let v = self.b.load(Type::F64, m, addr, disp);
            self.b.vfromscalar(v)
        };
        self.element_order(lane, v)
    }
    fn store_piece(&mut self, lane: Lane, bytes: u32, addr: Value, disp: i64, v: Value) {
        let v = self.element_order(lane, v);
        let m = self.structure_op(bytes, lane);
        let v = if bytes == 16 { v } else { self.b.vextract(Type::F64, Lane::D, v, 0) };
        self.b.store(m, addr, disp, v);
    }
    /// Post-index: by a register, or by the bytes accessed if it is 31.
    fn post_index(&mut self, i: Insn, base: Value, bytes: u32) {
        if !i.bit(23) {
            return;
        }
        let known = self.sp_aligned;
        let r = if i.rm() == 31 {
            self.add_imm(base, bytes as u64)
        } else {
            let x = self.x(i.rm());
            self.b.add(base, x)
        };
        self.set_xsp(i.rn(), r);
        self.sp_aligned = known && (i.rn() != 31 || (i.rm() == 31 && bytes.is_multiple_of(16)));
    }
}

/// Multiple structures.
pub(super) fn multiple(t: &mut Translator, i: Insn) -> Done {
    let (q, load, size) = (i.q(), i.bit(22), i.bits(10, 2));
    let (repeat, selem) = match i.bits(12, 4) {
        0 => (1, 4),
        2 => (4, 1),
        4 => (1, 3),
        6 => (3, 1),
        7 => (1, 1),
        8 => (1, 2),
        10 => (2, 1),
        _ => return None,
    };
    if size == 3 && !q && selem != 1 {
        return None;
    }
    let lane = Lane::from_size(size);
    let bytes = if q { 16 } else { 8 };
    let count = repeat * selem as u32;
    let total = count * bytes;
    let rt = i.rt();
    let base = t.base_register(i.rn());
    let addr = t.data_address(base);
    // Interleaved data moves in 16-byte pieces, whatever the registers' size.
    let piece = if selem == 1 { bytes } else { 16 };
    let pieces: Vec<(u32, u32)> =
        (0..total.div_ceil(piece)).map(|p| (p * piece, (total - p * piece).min(piece))).collect();
    if load {
        let mem: Vec<Value> = pieces.iter().map(|&(at, n)| t.load_piece(lane, n, addr, at as i64)).collect();
        let regs = if selem == 1 { mem } else { deinterleave(t, lane, bytes, selem, &mem) };
        for (k, v) in regs.into_iter().enumerate() {
            t.set_v(rt + k as u32, v);
        }
    } else {
        let regs: Vec<Value> = (0..count).map(|k| t.v(rt + k)).collect();
        let mem = if selem == 1 { regs } else { interleave(t, lane, bytes, selem, &regs) };
        for (&(at, n), v) in pieces.iter().zip(mem) {
            t.store_piece(lane, n, addr, at as i64, v);
        }
    }
    t.post_index(i, base, total);
    Some(())
}

/// Single structures to one lane or to all lanes.
pub(super) fn single(t: &mut Translator, i: Insn) -> Done {
    let (q, load, r, op, s, size) =
        (i.q() as u32, i.bit(22), i.bits(21, 1), i.bits(13, 3), i.bits(12, 1), i.bits(10, 2));
    let selem = ((op & 1) << 1 | r) + 1;
    let (lane, index) = match op >> 1 {
        0 => (Lane::B, q << 3 | s << 2 | size),
        1 if size & 1 == 0 => (Lane::H, q << 2 | s << 1 | size >> 1),
        2 if size == 0 => (Lane::S, q << 1 | s),
        2 if size == 1 && s == 0 => (Lane::D, q),
        3 if load && s == 0 => (Lane::from_size(size), 0),
        _ => return None,
    };
    let replicate = op >> 1 == 3;
    let bytes = if q != 0 { 16 } else { 8 };
    let rt = i.rt();
    let base = t.base_register(i.rn());
    let addr = t.data_address(base);
    let m = t.mem_op(lane as u32);
    let ty = match lane {
        Lane::D => Type::F64,
        Lane::S => Type::F32,
        _ => Type::I32,
    };
    let at = |k: u32| (k * lane.bytes()) as i64;
    if load {
        let values: Vec<Value> = (0..selem).map(|k| t.b.load(ty, m, addr, at(k))).collect();
        for (k, x) in values.into_iter().enumerate() {
            let n = rt + k as u32;
            if replicate {
                let v = t.b.vdup(lane, x);
                t.set_v_fit(n, bytes, v);
            } else {
                let old = t.v(n);
                let v = t.b.vinsert(lane, old, index, x);
                t.set_v(n, v);
            }
        }
    } else {
        for k in 0..selem {
            let v = t.v(rt + k);
            let x = t.b.vextract(ty, lane, v, index);
            t.b.store(m, addr, at(k), x);
        }
    }
    t.post_index(i, base, selem * lane.bytes());
    Some(())
}
