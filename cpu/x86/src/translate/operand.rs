//! Operands by number: registers, memory, immediates.

use super::{Mem, Translator};
use iced_x86::{OpKind, Register};
use rhea_ir::{Op, Value};

/// A general-purpose register operand: number, size in bits and whether it is one of AH, CH, DH, BH.
pub fn gpr_of(r: Register) -> (u32, u32, bool) {
    match r {
        Register::AH | Register::CH | Register::DH | Register::BH => (r.number() as u32 & 3, 8, true),
        _ => (r.full_register().number() as u32 & 15, r.size() as u32 * 8, false),
    }
}

/// Where a read-modify-write operand is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Reg(Register),
    Mem(Mem),
}

impl Translator<'_, '_> {
    /// Size in bits of operand `n` as it is accessed.
    pub fn op_bits(&self, n: u32) -> u32 {
        match self.i.op_kind(n) {
            OpKind::Register => self.i.op_register(n).size() as u32 * 8,
            OpKind::Immediate8 | OpKind::Immediate8_2nd => 8,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 16,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 32,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 64,
            _ => self.i.memory_size().size() as u32 * 8,
        }
    }
    pub fn is_mem(&self, n: u32) -> bool {
        self.i.op_kind(n) == OpKind::Memory
    }
    /// A register by its iced name; of 8 or 16 bits with unspecified higher bits.
    pub fn read_reg(&mut self, r: Register) -> Value {
        let (n, bits, high) = gpr_of(r);
        if high {
            let x = self.r64(n);
            let x = self.shr(x, 8);
            return self.b.trunc(x);
        }
        self.reg(bits, n)
    }
    pub fn write_reg(&mut self, r: Register, v: Value) {
        let (n, bits, high) = gpr_of(r);
        if high {
            let old = self.r64(n);
            let v = self.b.zext64(v);
            let v = self.deposit(old, v, 8, 8);
            self.set_r64(n, v);
        } else {
            self.set_reg(bits, n, v);
        }
    }
    /// The checked address of the memory operand.
    pub fn mem(&mut self, bits: u32, write: bool) -> Mem {
        self.ea(bits / 8, write)
    }
    /// Reads operand `n` in its size (immediates extended as the instruction does, to the type of `bits`).
    pub fn read(&mut self, n: u32, bits: u32) -> Value {
        match self.i.op_kind(n) {
            OpKind::Register => {
                let r = self.i.op_register(n);
                self.read_reg(r)
            }
            OpKind::Memory => {
                let m = self.mem(bits, false);
                self.load(bits, m)
            }
            _ => {
                let imm = self.i.immediate(n);
                self.cint(bits, imm)
            }
        }
    }
    /// Writes operand `n`.
    pub fn write(&mut self, n: u32, bits: u32, v: Value) {
        if self.is_mem(n) {
            let m = self.mem(bits, true);
            self.store(bits, m, v);
        } else {
            let r = self.i.op_register(n);
            self.write_reg(r, v);
        }
    }
    /// Reads an operand that will be written too: the address is computed (and checked for writing) once.
    pub fn read_place(&mut self, n: u32, bits: u32) -> (Place, Value) {
        if self.is_mem(n) {
            let m = self.mem(bits, true);
            (Place::Mem(m), self.load_for_update(bits, m))
        } else {
            let r = self.i.op_register(n);
            (Place::Reg(r), self.read_reg(r))
        }
    }
    pub fn write_place(&mut self, place: Place, bits: u32, v: Value) {
        match place {
            Place::Reg(r) => self.write_reg(r, v),
            Place::Mem(m) => self.store(bits, m, v),
        }
    }
    /// A value shifted to the top of its type, so that sign and overflow are those of `bits`.
    pub fn neg(&mut self, v: Value) -> Value {
        self.b.un(Op::Neg, v)
    }
}
