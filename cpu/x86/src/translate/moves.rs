//! Data movement: MOV, extensions, exchanges, addresses, conditional moves, flag transfers (SDM vol. 2).

use super::{Flow, Translator};
use crate::flags;
use crate::helpers::{integer, system as calls};
use crate::state::{gpr, slots};
use iced_x86::{Mnemonic, OpKind, Register};
use rhea_ir::{MemOp, Op, RmwOp, Type};

/// The number `tttn` of a condition of SETcc and CMOVcc.
fn tttn(m: Mnemonic) -> Option<u32> {
    use Mnemonic::*;
    Some(match m {
        Seto | Cmovo => 0,
        Setno | Cmovno => 1,
        Setb | Cmovb => 2,
        Setae | Cmovae => 3,
        Sete | Cmove => 4,
        Setne | Cmovne => 5,
        Setbe | Cmovbe => 6,
        Seta | Cmova => 7,
        Sets | Cmovs => 8,
        Setns | Cmovns => 9,
        Setp | Cmovp => 10,
        Setnp | Cmovnp => 11,
        Setl | Cmovl => 12,
        Setge | Cmovge => 13,
        Setle | Cmovle => 14,
        Setg | Cmovg => 15,
        _ => return None,
    })
}

impl Translator<'_, '_> {
    pub(super) fn moves(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        match m {
            Mov => return self.mov(),
            Movnti => {
                let bits = self.op_bits(1);
                let v = self.read(1, bits);
                self.write(0, bits, v);
            }
            Movzx => {
                let (to, from) = (self.op_bits(0), self.op_bits(1));
                let v = self.read(1, from);
                let v = self.zx(v, from);
                let v = if to == 64 { self.raw64(v) } else { v };
                self.write(0, to, v);
            }
            Movsx | Movsxd => {
                let (to, from) = (self.op_bits(0), self.op_bits(1));
                let v = self.read(1, from);
                let v = match (to, from) {
                    (64, 64) => v,
                    (64, _) => self.sx64(v, from),
                    _ => self.sx(v, from.min(to)),
                };
                self.write(0, to, v);
            }
            Lea => {
                let bits = self.op_bits(0);
                let a = self.effective_address();
                let v = if bits == 64 { a } else { self.b.trunc(a) };
                self.write(0, bits, v);
            }
            Xchg => self.xchg(),
            Bswap => {
                let bits = self.op_bits(0);
                let v = self.read(0, bits);
                // The result with a 16-bit operand is undefined; processors clear it.
                let v = if bits == 16 { self.c32(0) } else { self.b.un(Op::Bswap, v) };
                self.write(0, bits, v);
            }
            Movbe => {
                let bits = self.op_bits(0);
                let v = self.read(1, bits);
                let v = if bits == 16 { self.b.un(Op::Bswap16, v) } else { self.b.un(Op::Bswap, v) };
                self.write(0, bits, v);
            }
            Xlatb => {
                let al = self.reg(8, gpr::RAX);
                let al = self.zx64(al, 8);
                let bits = self.address_bits();
                let base = self.r64(gpr::RBX);
                let sum = self.b.add(base, al);
                let sum = if bits == 64 { sum } else { self.b.zext(sum, bits) };
                let seg = super::address::seg_of(self.i.memory_segment());
                let at = self.linear(seg, sum, 0, 1, false);
                let v = self.load(8, at);
                self.set_reg(8, gpr::RAX, v);
            }
            Cbw | Cwde | Cdqe => {
                let from = match m {
                    Cbw => 8,
                    Cwde => 16,
                    _ => 32,
                };
                let v = self.reg(from, gpr::RAX);
                let v = if from == 32 { self.b.sext64(v) } else { self.sx(v, from) };
                self.set_reg(from * 2, gpr::RAX, v);
            }
            Cwd | Cdq | Cqo => {
                let bits = match m {
                    Cwd => 16,
                    Cdq => 32,
                    _ => 64,
                };
                let v = self.reg(bits, gpr::RAX);
                let v = self.sx(v, bits);
                let v = self.sar(v, if bits == 64 { 63 } else { 31 });
                self.set_reg(bits, gpr::RDX, v);
            }
            Lahf => {
                let f = self.b.call(integer::STATUS_FLAGS, &[]);
                let f = self.and_imm(f, (flags::STATUS & 0xff) as u64);
                let f = self.b.bin_imm(Op::Or, f, flags::FIXED as u64);
                self.write_reg(Register::AH, f);
            }
            Sahf => {
                let ah = self.read_reg(Register::AH);
                self.b.call(integer::SET_STATUS_LOW, &[ah]);
            }
            Salc => {
                let c = self.carry();
                let (ones, zero) = (self.c32(0xff), self.c32(0));
                let v = self.b.select(c, ones, zero);
                self.set_reg(8, gpr::RAX, v);
            }
            Clc | Stc => {
                let f = self.c32(if m == Stc { flags::packed::C } else { 0 });
                self.set_cf(f);
            }
            Cmc => {
                let c = self.carry();
                let c = self.not(c);
                self.set_cf_bool(c);
            }
            Cld | Std => {
                if self.mode.df() != (m == Std) {
                    let v = self.c32(if m == Std { flags::DF } else { 0 });
                    return Some(self.end_with_next(calls::SET_DF, &[v]));
                }
            }
            _ => {
                let cond = tttn(m)?;
                if matches!(m, Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp | Setnp)
                    || matches!(m, Setl | Setge | Setle | Setg)
                {
                    let c = self.condition(cond);
                    let v = self.b.op1(Op::FromBool, Type::I32, c, 0, 0);
                    self.write(0, 8, v);
                } else {
                    let bits = self.op_bits(0);
                    // Memory is read, and the upper half of a 32-bit destination cleared, whatever the condition.
                    let v = self.read(1, bits);
                    let old = self.read(0, bits);
                    let c = self.condition(cond);
                    let v = self.b.select(c, v, old);
                    self.write(0, bits, v);
                }
            }
        }
        Some(Flow::Next)
    }

    fn mov(&mut self) -> Option<Flow> {
        for n in 0..2 {
            if self.i.op_kind(n) == OpKind::Register && !self.i.op_register(n).is_gpr() {
                // Segment, control and debug registers.
                return None;
            }
        }
        let bits = self.op_bits(0);
        let v = self.read(1, bits);
        self.write(0, bits, v);
        Some(Flow::Next)
    }

    fn xchg(&mut self) {
        let bits = self.op_bits(0);
        if !self.is_mem(0) && !self.is_mem(1) {
            let (a, b) = (self.i.op_register(0), self.i.op_register(1));
            let (x, y) = (self.read_reg(a), self.read_reg(b));
            // AH and AL are of the same register: the second write sees the first.
            self.write_reg(a, y);
            self.write_reg(b, x);
            return;
        }
        let (mem, reg) = if self.is_mem(0) { (0, 1) } else { (1, 0) };
        debug_assert!(self.is_mem(mem));
        let r = self.i.op_register(reg);
        let v = self.read_reg(r);
        let m = self.mem(bits, true);
        let op: MemOp = self.mem_op(bits);
        let addr = self.address(m);
        let old = self.b.rmw(Self::ty(bits), RmwOp::Xchg, op, addr, v);
        self.write_reg(r, old);
    }

    /// The count register of the address size (LOOP, JCXZ, REP) as I64, zero-extended.
    pub(super) fn count(&mut self, bits: u32) -> rhea_ir::Value {
        let c = self.b.get(slots::r(gpr::RCX));
        if bits == 64 { c } else { self.b.zext(c, bits) }
    }
}
