//! Vector loads and stores (Book I, 6.7).

use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

impl Translator<'_, '_> {
    /// The quadword at an address as a register has it.
    pub fn load_quad(&mut self, a: Value, d: i64) -> Value {
        let m = self.mem_op(4);
        let v = self.b.load(Type::V128, m, a, d);
        self.swap(v)
    }
    pub fn store_quad(&mut self, a: Value, d: i64, v: Value) {
        let v = self.swap(v);
        let m = self.mem_op(4);
        self.b.store(m, a, d, v);
    }
}

/// The address of an indexed form without its low bits.
fn aligned(t: &mut Translator, i: Insn, mask: u64) -> Value {
    let a = t.ea_indexed(i.ra(), i.rb());
    t.and_imm(a, !mask)
}

/// lvx, lvxl; and lvebx, lvehx, lvewx, whose other elements are undefined.
pub(super) fn load(t: &mut Translator, i: Insn) -> Flow {
    let a = aligned(t, i, 15);
    let v = t.load_quad(a, 0);
    t.set_vr(i.rt(), v);
    Flow::Next
}

pub(super) fn store(t: &mut Translator, i: Insn) -> Flow {
    let a = aligned(t, i, 15);
    let v = t.vr(i.rt());
    t.store_quad(a, 0, v);
    Flow::Next
}

/// stvebx, stvehx, stvewx: the element that lies at the address.
pub(super) fn store_element(t: &mut Translator, i: Insn, size: u32) -> Flow {
    let a = aligned(t, i, (1 << size) - 1);
    let v = t.vr(i.rt());
    // The first byte's number from the register's low end, as memory has the quadword in little-endian order; in big-endian order
    // elements count from the other end.
    let low = t.and_imm(a, 15);
    let low = if t.mode.le() {
        low
    } else {
        let last = t.c64(16 - (1 << size));
        t.b.sub(last, low)
    };
    // The host keeps doubleword 1 (the low end) in the high half.
    let eight = t.c64(8);
    let low = t.b.xor(low, eight);
    let low = t.b.trunc(low);
    let index = t.b.vdup(Lane::B, low);
    let steps = t.b.vconst(u128::from_le_bytes(std::array::from_fn(|k| k as u8)));
    let index = t.b.v2(Op::VAdd, Lane::B, index, steps);
    let v = t.b.op2(Op::VTable, Type::V128, v, index, 0, 0);
    let lane = Lane::from_size(size);
    let v = t.b.vextract(Type::I32, lane, v, 0);
    let m = t.mem_op(size);
    t.b.store(m, a, 0, v);
    Flow::Next
}

/// lvsl, lvsr: bytes counting from the address's low bits, or from 16 less them.
pub(super) fn shift_control(t: &mut Translator, i: Insn, left: bool) -> Flow {
    let a = t.ea_indexed(i.ra(), i.rb());
    let n = t.and_imm(a, 15);
    let n = if left {
        n
    } else {
        let c = t.c64(16);
        t.b.sub(c, n)
    };
    let n = t.b.trunc(n);
    let n = t.b.vdup(Lane::B, n);
    let steps = t.b.vconst(u128::from_le_bytes(std::array::from_fn(|k| k as u8 ^ 7)));
    let r = t.b.v2(Op::VAdd, Lane::B, n, steps);
    t.set_vr(i.rt(), r);
    Flow::Next
}
