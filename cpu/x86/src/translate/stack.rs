//! PUSH, POP and stack frames (SDM vol. 2). The stack pointer is written when nothing can fault any more.

use super::{Flow, Translator};
use crate::state::{Seg, gpr};
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::{Op, Value};

impl Translator<'_, '_> {
    pub(super) fn stack(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        match self.i.mnemonic() {
            Push => {
                if self.i.op_kind(0) == OpKind::Register && !self.i.op_register(0).is_gpr() {
                    return None;
                }
                let bits = self.stack_operand_bits();
                let v = self.read(0, bits);
                self.push(bits, v);
            }
            Pop => {
                let bits = match self.i.op_kind(0) {
                    OpKind::Register if !self.i.op_register(0).is_gpr() => return None,
                    _ => self.op_bits(0),
                };
                let v = self.pop_value(bits, 0);
                if self.is_mem(0) {
                    // The address sees the stack pointer after the pop, which must not change if the store faults.
                    let old = self.r64(gpr::RSP);
                    self.add_sp((bits / 8) as u64);
                    let offset = self.effective_address();
                    self.set_r64(gpr::RSP, old);
                    let seg = super::address::seg_of(self.i.memory_segment());
                    let m = self.linear(seg, offset, 0, bits / 8, true);
                    self.store(bits, m, v);
                    self.add_sp((bits / 8) as u64);
                } else {
                    self.add_sp((bits / 8) as u64);
                    self.write(0, bits, v);
                }
            }
            Pusha | Pushad => {
                let bits = if self.i.mnemonic() == Pusha { 16 } else { 32 };
                for n in 0..8 {
                    let v = self.reg(bits, n);
                    self.store_at_sp(bits, -((n as i64 + 1) * bits as i64 / 8), v);
                }
                self.add_sp((-(bits as i64)) as u64);
            }
            Popa | Popad => {
                let bits = if self.i.mnemonic() == Popa { 16 } else { 32 };
                let size = bits as i64 / 8;
                let values: Vec<Value> = (0..8).map(|n| self.pop_value(bits, (7 - n) * size)).collect();
                for (n, v) in values.into_iter().enumerate() {
                    // The image of the stack pointer is skipped.
                    if n as u32 != gpr::RSP {
                        self.set_reg(bits, n as u32, v);
                    }
                }
                self.add_sp(bits as u64);
            }
            Enter => self.enter(),
            Leave => {
                let bits = self.frame_bits();
                // RSP = RBP, then POP RBP; RSP is of the stack's size.
                let sp_bits = self.mode.stack_bits();
                let frame = self.r64(gpr::RBP);
                let at = if sp_bits == 64 { frame } else { self.b.zext(frame, sp_bits) };
                let m = self.linear(Seg::Ss, at, 0, bits / 8, false);
                let v = self.load(bits, m);
                let next = self.add_imm(at, (bits / 8) as u64);
                self.set_sp(next);
                self.set_reg(bits, gpr::RBP, v);
            }
            _ => return None,
        }
        Some(Flow::Next)
    }

    /// Operand size of PUSH: immediates are as wide as the stack operation.
    fn stack_operand_bits(&self) -> u32 {
        use iced_x86::Code::*;
        match self.i.code() {
            Push_imm16 | Pushw_imm8 => 16,
            Pushd_imm32 | Pushd_imm8 => 32,
            Pushq_imm32 | Pushq_imm8 => 64,
            _ => self.op_bits(0),
        }
    }
    /// Operand size of ENTER and LEAVE.
    fn frame_bits(&self) -> u32 {
        use iced_x86::Code::*;
        match self.i.code() {
            Leavew | Enterw_imm16_imm8 => 16,
            Leaved | Enterd_imm16_imm8 => 32,
            _ => 64,
        }
    }

    /// The stack pointer in its size, zero-extended, plus a displacement.
    fn sp_plus(&mut self, disp: i64) -> Value {
        let sp = self.r64(gpr::RSP);
        let v = self.add_imm(sp, disp as u64);
        let bits = self.mode.stack_bits();
        if bits == 64 { v } else { self.b.zext(v, bits) }
    }
    /// Writes the stack pointer in its size.
    pub(super) fn set_sp(&mut self, v: Value) {
        let v = match self.mode.stack_bits() {
            64 => v,
            32 => self.b.zext(v, 32),
            _ => {
                let old = self.r64(gpr::RSP);
                self.deposit(old, v, 0, 16)
            }
        };
        self.set_r64(gpr::RSP, v);
    }
    pub(super) fn add_sp(&mut self, n: u64) {
        let sp = self.r64(gpr::RSP);
        let v = self.b.bin_imm(Op::Add, sp, n);
        self.set_sp(v);
    }
    /// Stores at a displacement from the stack pointer.
    fn store_at_sp(&mut self, bits: u32, disp: i64, v: Value) {
        let m = if self.mode.long() {
            super::Mem { addr: self.r64(gpr::RSP), disp }
        } else {
            let at = self.sp_plus(disp);
            self.linear(Seg::Ss, at, 0, bits / 8, true)
        };
        self.store(bits, m, v);
    }
    /// Pushes the low `bits` of a value.
    pub(super) fn push(&mut self, bits: u32, v: Value) {
        let size = bits as i64 / 8;
        self.store_at_sp(bits, -size, v);
        self.add_sp((-size) as u64);
    }
    /// Loads from a displacement above the stack pointer, which stays.
    pub(super) fn pop_value(&mut self, bits: u32, disp: i64) -> Value {
        let m = if self.mode.long() {
            super::Mem { addr: self.r64(gpr::RSP), disp }
        } else {
            let at = self.sp_plus(disp);
            self.linear(Seg::Ss, at, 0, bits / 8, false)
        };
        self.load(bits, m)
    }

    fn enter(&mut self) {
        let bits = self.frame_bits();
        let size = bits as i64 / 8;
        let alloc = self.i.immediate16() as u64;
        let level = self.i.immediate8_2nd() as i64 & 31;
        let frame = self.reg(bits, gpr::RBP);
        self.store_at_sp(bits, -size, frame);
        let top = self.sp_plus(-size);
        let sp_bits = self.mode.stack_bits();
        if level > 0 {
            for n in 1..level {
                let rbp = self.r64(gpr::RBP);
                let at = self.add_imm(rbp, (-size * n) as u64);
                let at = if sp_bits == 64 { at } else { self.b.zext(at, sp_bits) };
                let m = self.linear(Seg::Ss, at, 0, bits / 8, false);
                let v = self.load(bits, m);
                self.store_at_sp(bits, -size * (n + 1), v);
            }
            let v = if bits == 64 { top } else { self.b.trunc(top) };
            self.store_at_sp(bits, -size * (level + 1), v);
        }
        let words = if level > 0 { level + 1 } else { 1 };
        let end = (-size * words).wrapping_sub(alloc as i64);
        // The new top must be writable.
        let at = self.sp_plus(end);
        let m = self.linear(Seg::Ss, at, 0, bits / 8, true);
        let op = self.mem_op(bits);
        self.b.probe_write(op, m.addr, m.disp);
        self.add_sp(end as u64);
        let v = if bits == 64 { top } else { self.b.trunc(top) };
        self.set_reg(bits, gpr::RBP, v);
    }
}
