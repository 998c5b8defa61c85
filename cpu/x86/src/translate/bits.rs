//! Shifts, rotates, bit tests and scans, BMI1 and BMI2 (SDM vol. 2).

use super::operand::Place;
use super::{Flow, Mem, Translator};
use crate::flags::packed;
use crate::helpers::integer as calls;
use crate::state::{gpr, slots};
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::{Cond, Op, RmwOp, Value};

impl Translator<'_, '_> {
    pub(super) fn bits(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let bits = self.op_bits(0);
        match self.i.mnemonic() {
            Shl | Sal | Shr | Sar => self.shift(),
            Rol | Ror => self.rotate(),
            Rcl | Rcr => self.rotate_carry(),
            Shld | Shrd => self.double_shift(),
            Bt | Bts | Btr | Btc => self.bit_test(),
            Bsf | Bsr => {
                let src = self.read(1, bits);
                let src = self.zx(src, bits);
                let n = if self.i.mnemonic() == Bsf {
                    self.b.un(Op::Ctz, src)
                } else {
                    let z = self.b.un(Op::Clz, src);
                    self.b.bin_imm(Op::Xor, z, if bits == 64 { 63 } else { 31 })
                };
                let zero = self.cint(bits, 0);
                let empty = self.b.icmp(Cond::Eq, src, zero);
                // Without a bit set the destination keeps its value, its upper half included.
                let n = match self.i.op_register(0) {
                    r if bits != 16 => {
                        let num = super::operand::gpr_of(r).0;
                        let old = self.r64(num);
                        let n = self.raw64(n);
                        let v = self.b.select(empty, old, n);
                        self.set_r64(num, v);
                        None
                    }
                    r => {
                        let old = self.read_reg(r);
                        Some(self.b.select(empty, old, n))
                    }
                };
                if let Some(n) = n {
                    self.write(0, bits, n);
                }
                self.set_logic_flags(bits, src);
            }
            Tzcnt | Lzcnt => {
                let src = self.read(1, bits);
                let src = self.zx(src, bits);
                let n = if self.i.mnemonic() == Tzcnt {
                    // A bit behind the last one stops the count.
                    let src = if bits == 16 { self.b.bin_imm(Op::Or, src, 0x1_0000) } else { src };
                    self.b.un(Op::Ctz, src)
                } else {
                    let n = self.b.un(Op::Clz, src);
                    if bits == 16 { self.b.bin_imm(Op::Sub, n, 16) } else { n }
                };
                let zero = self.cint(bits, 0);
                let empty = self.b.icmp(Cond::Eq, src, zero);
                self.write(0, bits, n);
                self.set_logic_flags(bits, n);
                self.set_cf_bool(empty);
            }
            Popcnt => {
                let src = self.read(1, bits);
                let src = self.zx(src, bits);
                let n = self.b.un(Op::Popcnt, src);
                self.write(0, bits, n);
                // All flags but ZF are clear, PF too.
                let zero = self.cint(bits, 0);
                let empty = self.b.icmp(Cond::Eq, src, zero);
                let (z, none) = (self.c32(packed::Z), self.c32(0));
                let f = self.b.select(empty, z, none);
                self.set_cc(f);
                self.set_cf(none);
            }
            Andn => {
                let a = self.read(1, bits);
                let b = self.read(2, bits);
                let r = self.b.bin(Op::AndNot, b, a);
                self.write(0, bits, r);
                self.set_logic_flags(bits, r);
            }
            Blsi | Blsmsk | Blsr => {
                let src = self.read(1, bits);
                let zero = self.cint(bits, 0);
                let (r, carry) = match self.i.mnemonic() {
                    Blsi => {
                        let n = self.neg(src);
                        (self.b.and(src, n), Cond::Ne)
                    }
                    m => {
                        let below = self.b.bin_imm(Op::Sub, src, 1);
                        (if m == Blsr { self.b.and(src, below) } else { self.b.xor(src, below) }, Cond::Eq)
                    }
                };
                let c = self.b.icmp(carry, src, zero);
                self.write(0, bits, r);
                self.set_logic_flags(bits, r);
                self.set_cf_bool(c);
            }
            Bextr => {
                let src = self.read(1, bits);
                let control = self.read(2, bits);
                let (src, control) = (self.raw64(src), self.raw64(control));
                let args = [src, control];
                let r = self.b.call(calls::BEXTR, &args);
                let r = if bits == 64 { r } else { self.b.trunc(r) };
                self.write(0, bits, r);
                self.set_logic_flags(bits, r);
            }
            Bzhi => {
                let src = self.read(1, bits);
                let index = self.read(2, bits);
                let n = self.and_imm(index, 0xff);
                let limit = self.cint(bits, bits as u64 - 1);
                let over = self.b.icmp(Cond::Ugt, n, limit);
                let ones = self.cint(bits, u64::MAX);
                let high = self.b.bin(Op::Shl, ones, n);
                let low = self.b.bin(Op::AndNot, src, high);
                let r = self.b.select(over, src, low);
                self.write(0, bits, r);
                self.set_logic_flags(bits, r);
                self.set_cf_bool(over);
            }
            Pdep | Pext => {
                let a = self.read(1, bits);
                let mask = self.read(2, bits);
                let (a, mask) = (self.raw64(a), self.raw64(mask));
                let helper = if self.i.mnemonic() == Pdep { calls::PDEP } else { calls::PEXT };
                let r = self.b.call(helper, &[a, mask]);
                let r = if bits == 64 { r } else { self.b.trunc(r) };
                self.write(0, bits, r);
            }
            Rorx => {
                let a = self.read(1, bits);
                let n = self.i.immediate8() as u64 & (bits as u64 - 1);
                let r = self.b.bin_imm(Op::Rotr, a, n);
                self.write(0, bits, r);
            }
            Sarx | Shlx | Shrx => {
                let a = self.read(1, bits);
                let n = self.read(2, bits);
                let op = match self.i.mnemonic() {
                    Sarx => Op::Sar,
                    Shlx => Op::Shl,
                    _ => Op::Shr,
                };
                let r = self.b.bin(op, a, n);
                self.write(0, bits, r);
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    // ---- counts ----

    /// The masked count if it is a constant.
    fn const_count(&self, n: u32, bits: u32) -> Option<u32> {
        let mask = if bits == 64 { 63 } else { 31 };
        match self.i.op_kind(n) {
            OpKind::Register => None,
            _ => Some(self.i.immediate(n) as u32 & mask),
        }
    }
    /// CL masked, in the type of `bits`.
    fn variable_count(&mut self, bits: u32) -> Value {
        let c = self.reg(bits.max(32), gpr::RCX);
        self.and_imm(c, if bits == 64 { 63 } else { 31 })
    }
    /// Bit `n` of a value as the C bit of packed flags.
    fn bit_to_c(&mut self, v: Value, n: u32) -> Value {
        let v = self.shr(v, n);
        let v = if Self::ty(64) == self.b.func.ty(v) { self.b.trunc(v) } else { v };
        let v = self.and_imm(v, 1);
        self.shl(v, 8)
    }
    /// Bit `n` of a value as the V bit of packed flags.
    fn bit_to_v(&mut self, v: Value, n: u32) -> Value {
        let v = self.shr(v, n);
        let v = if Self::ty(64) == self.b.func.ty(v) { self.b.trunc(v) } else { v };
        self.and_imm(v, 1)
    }
    /// Sets flags after a shift, if the count is not 0; AF, which is undefined, is clear then.
    fn shift_flags(&mut self, count: Option<Value>, bits: u32, r: Value, c: Value, v: Option<Value>) {
        let f = self.logic_flags(bits, r);
        let f = match v {
            Some(v) => self.b.or(f, v),
            None => f,
        };
        let Some(count) = count else {
            self.set_cc(f);
            self.set_cf(c);
            return;
        };
        let zero = self.cint(bits, 0);
        let some = self.b.icmp(Cond::Ne, count, zero);
        for (slot, new) in [(slots::CC, f), (slots::CF, c)] {
            let old = self.b.get(slot);
            let v = self.b.select(some, new, old);
            self.b.set(slot, v);
        }
    }

    fn shift(&mut self) {
        use Mnemonic::*;
        let bits = self.op_bits(0);
        let m = self.i.mnemonic();
        let (op, left) = match m {
            Shr => (Op::Shr, false),
            Sar => (Op::Sar, false),
            _ => (Op::Shl, true),
        };
        let fixed = self.const_count(1, bits);
        let variable = if fixed.is_none() { Some(self.variable_count(bits)) } else { None };
        let (place, raw) = self.read_place(0, bits);
        if fixed == Some(0) {
            // Only the upper half of a 32-bit register is cleared.
            self.write_place(place, bits, raw);
            return;
        }
        let a = match m {
            Sar => self.sx(raw, bits),
            Shr => self.zx(raw, bits),
            _ => raw,
        };
        // Shifted by one less, the bit that goes out last is at the edge.
        let (r, before) = match (fixed, variable) {
            (Some(n), _) => {
                let before = if n == 1 { a } else { self.b.bin_imm(op, a, n as u64 - 1) };
                (self.b.bin_imm(op, a, n as u64), before)
            }
            (_, Some(c)) => {
                let less = self.b.bin_imm(Op::Sub, c, 1);
                (self.b.bin(op, a, c), self.b.bin(op, a, less))
            }
            _ => (a, a),
        };
        self.write_place(place, bits, r);
        let carry = self.bit_to_c(before, if left { bits - 1 } else { 0 });
        let over = match (m, fixed) {
            // Defined for a count of 1.
            (_, Some(n)) if n != 1 => None,
            (Sar, _) => None,
            (Shr, _) => Some(self.bit_to_v(a, bits - 1)),
            _ => {
                let top = self.bit_to_v(r, bits - 1);
                let c = self.shr(carry, 8);
                Some(self.b.xor(top, c))
            }
        };
        self.shift_flags(variable, bits, r, carry, over);
    }

    /// CF and OF of a rotate.
    fn rotate_flags(&mut self, count: Option<Value>, bits: u32, c: Value, v: Option<Value>) {
        let some = match count {
            Some(n) => {
                let zero = self.cint(bits, 0);
                Some(self.b.icmp(Cond::Ne, n, zero))
            }
            None => None,
        };
        let set = |t: &mut Self, slot, new: Value| {
            let new = match some {
                Some(s) => {
                    let old = t.b.get(slot);
                    t.b.select(s, new, old)
                }
                None => new,
            };
            t.b.set(slot, new);
        };
        set(self, slots::CF, c);
        if let Some(v) = v {
            let cc = self.b.get(slots::CC);
            let rest = self.and_imm(cc, !packed::V as u64 & 0xffff_ffff);
            let cc = self.b.or(rest, v);
            set(self, slots::CC, cc);
        }
    }
    fn rotate(&mut self) {
        let bits = self.op_bits(0);
        let left = self.i.mnemonic() == Mnemonic::Rol;
        let fixed = self.const_count(1, bits);
        let variable = if fixed.is_none() { Some(self.variable_count(bits)) } else { None };
        let (place, raw) = self.read_place(0, bits);
        if fixed == Some(0) {
            self.write_place(place, bits, raw);
            return;
        }
        // Narrow values repeat in 32 bits.
        let x = match bits {
            8 => {
                let x = self.zx(raw, 8);
                self.b.bin_imm(Op::Mul, x, 0x0101_0101)
            }
            16 => {
                let x = self.zx(raw, 16);
                self.b.bin_imm(Op::Mul, x, 0x0001_0001)
            }
            _ => raw,
        };
        let r = match (fixed, variable) {
            (Some(n), _) => {
                let width = if bits == 64 { 64 } else { 32 };
                let n = n % bits;
                let n = if left { (width - n) % width } else { n };
                self.b.bin_imm(Op::Rotr, x, n as u64)
            }
            (_, Some(n)) => {
                let n = if left { self.neg(n) } else { n };
                self.b.bin(Op::Rotr, x, n)
            }
            _ => x,
        };
        self.write_place(place, bits, r);
        let carry = self.bit_to_c(r, if left { 0 } else { bits - 1 });
        let over = if fixed.is_some_and(|n| n != 1) {
            None
        } else {
            let top = self.bit_to_v(r, bits - 1);
            let other = if left { self.bit_to_v(r, 0) } else { self.bit_to_v(r, bits - 2) };
            Some(self.b.xor(top, other))
        };
        self.rotate_flags(variable, bits, carry, over);
    }
    fn rotate_carry(&mut self) {
        let bits = self.op_bits(0);
        let left = self.i.mnemonic() == Mnemonic::Rcl;
        let fixed = self.const_count(1, bits);
        if fixed == Some(1) {
            let (place, raw) = self.read_place(0, bits);
            let carry = self.carry();
            let c = self.b.op1(Op::FromBool, Self::ty(bits), carry, 0, 0);
            let (r, out, v);
            if left {
                let s = self.shl(raw, 1);
                r = self.b.or(s, c);
                out = self.bit_to_c(raw, bits - 1);
                let top = self.bit_to_v(r, bits - 1);
                let o = self.shr(out, 8);
                v = self.b.xor(top, o);
            } else {
                let x = self.zx(raw, bits);
                let s = self.shr(x, 1);
                let c = self.shl(c, bits - 1);
                r = self.b.or(s, c);
                out = self.bit_to_c(raw, 0);
                let (p, q) = (self.bit_to_v(r, bits - 1), self.bit_to_v(r, bits - 2));
                v = self.b.xor(p, q);
            }
            self.write_place(place, bits, r);
            self.rotate_flags(None, bits, out, Some(v));
            return;
        }
        let count = match fixed {
            Some(n) => self.cint(bits, n.into()),
            None => self.variable_count(bits),
        };
        let (place, raw) = self.read_place(0, bits);
        if let Place::Mem(m) = place {
            // The helper changes flags: nothing may fault behind it.
            let op = self.mem_op(bits);
            self.b.probe_write(op, m.addr, m.disp);
        }
        let (raw, count) = (self.raw64(raw), self.raw64(count));
        let what = self.c64(bits as u64 | (left as u64) << 8);
        let r = self.b.call(calls::ROTATE_CARRY, &[raw, count, what]);
        let r = if bits == 64 { r } else { self.b.trunc(r) };
        self.write_place(place, bits, r);
    }

    fn double_shift(&mut self) {
        let bits = self.op_bits(0);
        let left = self.i.mnemonic() == Mnemonic::Shld;
        let fixed = self.const_count(2, bits);
        let fill = self.read(1, bits);
        let count = match fixed {
            Some(n) => self.cint(bits, n.into()),
            None => self.variable_count(bits),
        };
        let (place, raw) = self.read_place(0, bits);
        if fixed == Some(0) {
            self.write_place(place, bits, raw);
            return;
        }
        let less = self.b.bin_imm(Op::Sub, count, 1);
        let (r, carry) = if bits == 16 {
            // a:b:a, so that counts above 16, whose result is undefined, do as processors do.
            let (a, b, n, less) = (self.zx64(raw, 16), self.zx64(fill, 16), self.raw64(count), self.raw64(less));
            let (hi, mid) = (self.shl(a, 32), self.shl(b, 16));
            let x = self.b.or(hi, mid);
            let x = self.b.or(x, a);
            let (op, at) = if left { (Op::Shl, 32) } else { (Op::Shr, 0) };
            let r = self.b.bin(op, x, n);
            let r = self.shr(r, at);
            let c = self.b.bin(op, x, less);
            (self.b.trunc(r), self.bit_to_c(c, if left { 47 } else { 0 }))
        } else {
            let inverse = self.b.bin_imm(Op::Xor, count, u64::MAX);
            let (near, far) = if left { (Op::Shl, Op::Shr) } else { (Op::Shr, Op::Shl) };
            let x = self.b.bin(near, raw, count);
            let y = self.b.bin_imm(far, fill, 1);
            let y = self.b.bin(far, y, inverse);
            let r = self.b.or(x, y);
            let c = self.b.bin(near, raw, less);
            (r, self.bit_to_c(c, if left { bits - 1 } else { 0 }))
        };
        self.write_place(place, bits, r);
        let over = if fixed.is_some_and(|n| n != 1) {
            None
        } else {
            let (p, q) = (self.bit_to_v(r, bits - 1), self.bit_to_v(raw, bits - 1));
            Some(self.b.xor(p, q))
        };
        let count = if fixed.is_some() { None } else { Some(count) };
        self.shift_flags(count, bits, r, carry, over);
    }

    fn bit_test(&mut self) {
        use Mnemonic::*;
        let bits = self.op_bits(0);
        let m = self.i.mnemonic();
        let write = m != Bt;
        let by_register = self.i.op_kind(1) == OpKind::Register;
        let index = if by_register {
            let r = self.i.op_register(1);
            self.read_reg(r)
        } else {
            self.cint(bits, self.i.immediate(1))
        };
        let n = self.and_imm(index, bits as u64 - 1);
        let one = self.cint(bits, 1);
        let mask = self.b.bin(Op::Shl, one, n);
        let mut place = None;
        let raw = if self.is_mem(0) {
            let at = if by_register { self.bit_address(bits, index, write) } else { self.mem(bits, write) };
            if write && self.i.has_lock_prefix() {
                let (op, v) = match m {
                    Bts => (RmwOp::Or, mask),
                    Btr => (RmwOp::Clr, mask),
                    _ => (RmwOp::Xor, mask),
                };
                let mem_op = self.mem_op(bits);
                let addr = self.address(at);
                self.b.rmw(Self::ty(bits), op, mem_op, addr, v)
            } else {
                place = Some(Place::Mem(at));
                if write { self.load_for_update(bits, at) } else { self.load(bits, at) }
            }
        } else {
            let r = self.i.op_register(0);
            place = Some(Place::Reg(r));
            self.read_reg(r)
        };
        if let (true, Some(place)) = (write, place) {
            let r = match m {
                Bts => self.b.or(raw, mask),
                Btr => self.b.bin(Op::AndNot, raw, mask),
                _ => self.b.xor(raw, mask),
            };
            self.write_place(place, bits, r);
        }
        let bit = self.b.bin(Op::Shr, raw, n);
        let c = self.bit_to_c(bit, 0);
        self.set_cf(c);
    }
    /// The element of a bit string in memory that a register's value selects.
    fn bit_address(&mut self, bits: u32, index: Value, write: bool) -> Mem {
        let wide = self.sx64(index, bits);
        let log2 = bits.trailing_zeros();
        let element = self.sar(wide, log2);
        let bytes = self.shl(element, log2 - 3);
        let offset = self.effective_address();
        let sum = self.b.add(offset, bytes);
        let size = self.address_bits();
        let sum = if size == 64 { sum } else { self.b.zext(sum, size) };
        let seg = super::address::seg_of(self.i.memory_segment());
        self.linear(seg, sum, 0, bits / 8, write)
    }
}
