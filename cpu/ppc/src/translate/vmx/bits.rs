//! Bits gathered from elements and spread over them, counts, shifts by octets.

use super::emit::{ZERO, splat};
use crate::translate::{Flow, Insn, Translator};
use rhea_ir::{Lane, Op, Type, Value};

/// The manual's numbers of bytes, in their places.
const NUMBERS: u128 = {
    let mut v = 0;
    let mut k = 0;
    while k < 16 {
        v |= (k as u128 ^ 7) << (8 * k);
        k += 1;
    }
    v
};

impl Translator<'_, '_> {
    /// The top bits of bytes as an I32: bit `k` is that of the manual's byte `byte(k)`, [`ZERO`] for none.
    fn top_bits(&mut self, v: Value, byte: impl Fn(u8) -> u8) -> Value {
        let from = std::array::from_fn(|k| match byte(k as u8) {
            ZERO => 0xff,
            n => n & 15 ^ 7,
        });
        let v = self.b.shuffle(v, v, from);
        self.b.op1(Op::VMoveMask, Type::I32, v, Lane::B as u32, 0)
    }
    /// The lowest bits of bytes, as [`Translator::top_bits`] has them.
    pub(in crate::translate) fn low_bits(&mut self, v: Value, byte: impl Fn(u8) -> u8) -> Value {
        let v = self.b.v1_imm(Op::VShl, Lane::D, v, 7);
        self.top_bits(v, byte)
    }
    fn vec_const(&mut self, lane: Lane, bits: u64) -> Value {
        self.b.vconst(splat(lane, bits))
    }
}

/// vclzlsbb, vctzlsbb: bytes at one end whose lowest bit is zero.
pub(super) fn count_even_bytes(t: &mut Translator, i: Insn, leading: bool) -> Flow {
    let b = t.vr(i.rb());
    let m = t.low_bits(b, |k| if leading { k } else { 15 - k });
    let m = t.b.bin_imm(Op::Or, m, 1 << 16);
    let n = t.b.un(Op::Ctz, m);
    let n = t.b.zext64(n);
    t.set_r(i.rt(), n);
    Flow::Next
}

/// vextractbm and its like: the top bits of elements of `1 << size` bytes.
pub(super) fn extract_mask(t: &mut Translator, i: Insn, size: u32) -> Flow {
    let b = t.vr(i.rb());
    let last = (15u8 >> size) & 15;
    let m = t.top_bits(b, |k| if k <= last { (last - k) << size } else { ZERO });
    let m = t.b.zext64(m);
    t.set_r(i.rt(), m);
    Flow::Next
}

/// vexpandbm and its like: the top bits of elements of `1 << size` bytes in all of their bits.
pub(super) fn expand_mask(t: &mut Translator, i: Insn, size: u32) -> Flow {
    let b = t.vr(i.rb());
    let v = t.permute_by(b, b, |k| k >> size << size);
    let zero = t.b.vconst(0);
    let r = t.b.v2(Op::VCmpGtS, Lane::B, zero, v);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vbpermq: bits of VRA by the numbers in VRB; from 128 on they are zero.
pub(super) fn permute_bits(t: &mut Translator, i: Insn) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let (low, seven) = (t.vec_const(Lane::B, 0x1f), t.vec_const(Lane::B, 7));
    let byte = t.b.v1_imm(Op::VShr, Lane::D, b, 3);
    let byte = t.vand(byte, low);
    let byte = t.vxor(byte, seven);
    let bytes = t.b.op2(Op::VTable, Type::V128, a, byte, 0, 0);
    let bits = t.b.vconst(0x0102_0408_1020_4080);
    let bit = t.vand(b, seven);
    let bit = t.b.op2(Op::VTable, Type::V128, bits, bit, 0, 0);
    let hit = t.vand(bytes, bit);
    let hit = t.b.v2(Op::VCmpEq, Lane::B, hit, bit);
    let r = t.top_bits(hit, |k| 15 - k);
    let r = t.b.zext64(r);
    let r = t.b.vfromscalar(r);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vgbbd: the matrix of bits in each doubleword transposed.
pub(super) fn transpose_bits(t: &mut Translator, i: Insn) -> Flow {
    let mut v = t.vr(i.rb());
    // Blocks of one, two and four bits exchanged across the diagonal.
    for (n, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let mask = t.vec_const(Lane::D, mask);
        let d = t.b.v1_imm(Op::VShr, Lane::D, v, n);
        let d = t.vxor(v, d);
        let d = t.vand(d, mask);
        let up = t.b.v1_imm(Op::VShl, Lane::D, d, n);
        v = t.vxor(v, d);
        v = t.vxor(v, up);
    }
    t.set_vr(i.rt(), v);
    Flow::Next
}

/// vslo, vsro: by the octets that VRB says.
pub(super) fn shift_octets(t: &mut Translator, i: Insn, left: bool) -> Flow {
    let (a, b) = (t.vr(i.ra()), t.vr(i.rb()));
    let n = t.permute_by(b, b, |_| 15);
    let n = t.b.v1_imm(Op::VShr, Lane::D, n, 3);
    let (low, seven) = (t.vec_const(Lane::B, 15), t.vec_const(Lane::B, 7));
    let n = t.vand(n, low);
    let numbers = t.b.vconst(NUMBERS);
    // What comes from beyond an end has no number below 16.
    let from = t.b.v2(if left { Op::VAdd } else { Op::VSub }, Lane::B, numbers, n);
    let from = t.vxor(from, seven);
    let r = t.b.op2(Op::VTable, Type::V128, a, from, 0, 0);
    t.set_vr(i.rt(), r);
    Flow::Next
}

/// vpopcnth, vpopcntw, vpopcntd: the counts of bytes added up.
pub(super) fn population(t: &mut Translator, i: Insn, lane: Lane) -> Flow {
    let b = t.vr(i.rb());
    let mut v = t.b.v1(Op::VPopcnt, Lane::B, b);
    let mut n = 8;
    while n < lane.bits() {
        let high = t.b.v1_imm(Op::VShr, lane, v, n.into());
        v = t.b.v2(Op::VAdd, lane, v, high);
        n *= 2;
    }
    let mask = t.vec_const(lane, 0xff);
    let v = t.vand(v, mask);
    t.set_vr(i.rt(), v);
    Flow::Next
}
