//! String instructions (SDM vol. 1, 7.3.9). One iteration is translated; repeated ones run in a helper, a page at a time, so
//! that interrupts come in between.

use super::{Flow, Mem, Translator};
use crate::helpers::strings::{Kind, REP, pack};
use crate::state::{Seg, gpr};
use iced_x86::Mnemonic;
use rhea_ir::{Cond, Op, Value};

impl Translator<'_, '_> {
    pub(super) fn strings(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        if !self.i.is_string_instruction() {
            return None;
        }
        let (kind, bits) = match self.i.mnemonic() {
            Movsb => (Kind::Movs, 8),
            Movsw => (Kind::Movs, 16),
            Movsd => (Kind::Movs, 32),
            Movsq => (Kind::Movs, 64),
            Stosb => (Kind::Stos, 8),
            Stosw => (Kind::Stos, 16),
            Stosd => (Kind::Stos, 32),
            Stosq => (Kind::Stos, 64),
            Lodsb => (Kind::Lods, 8),
            Lodsw => (Kind::Lods, 16),
            Lodsd => (Kind::Lods, 32),
            Lodsq => (Kind::Lods, 64),
            Cmpsb => (Kind::Cmps, 8),
            Cmpsw => (Kind::Cmps, 16),
            Cmpsd => (Kind::Cmps, 32),
            Cmpsq => (Kind::Cmps, 64),
            Scasb => (Kind::Scas, 8),
            Scasw => (Kind::Scas, 16),
            Scasd => (Kind::Scas, 32),
            Scasq => (Kind::Scas, 64),
            _ => return None,
        };
        let address = self.string_address_bits();
        let seg = super::address::seg_of(self.i.memory_segment());
        if self.i.has_rep_prefix() || self.i.has_repne_prefix() {
            let segmented = !self.mode.long() && (!self.mode.flat() || matches!(seg, Seg::Fs | Seg::Gs));
            let what = pack(
                kind,
                bits,
                address,
                seg,
                self.i.has_repne_prefix(),
                self.mode.one_insn(),
                self.mode.df(),
                segmented,
                self.mode.mmu_idx(),
            );
            let what = self.c64(what);
            let done = self.b.call(REP, &[what]);
            let zero = self.c64(0);
            let done = self.b.icmp(Cond::Ne, done, zero);
            let (next, pc) = (self.next, self.pc);
            return Some(self.end_cond(done, next, pc));
        }
        let size = bits as u64 / 8;
        let step = if self.mode.df() { size.wrapping_neg() } else { size };
        match kind {
            Kind::Movs => {
                let src = self.string_operand(seg, gpr::RSI, address, bits, false);
                let v = self.load(bits, src);
                let dst = self.string_operand(Seg::Es, gpr::RDI, address, bits, true);
                self.store(bits, dst, v);
                self.advance(gpr::RSI, address, step);
                self.advance(gpr::RDI, address, step);
            }
            Kind::Stos => {
                let v = self.reg(bits, gpr::RAX);
                let dst = self.string_operand(Seg::Es, gpr::RDI, address, bits, true);
                self.store(bits, dst, v);
                self.advance(gpr::RDI, address, step);
            }
            Kind::Lods => {
                let src = self.string_operand(seg, gpr::RSI, address, bits, false);
                let v = self.load(bits, src);
                self.set_reg(bits, gpr::RAX, v);
                self.advance(gpr::RSI, address, step);
            }
            Kind::Cmps => {
                let src = self.string_operand(seg, gpr::RSI, address, bits, false);
                let a = self.load(bits, src);
                let dst = self.string_operand(Seg::Es, gpr::RDI, address, bits, false);
                let b = self.load(bits, dst);
                self.advance(gpr::RSI, address, step);
                self.advance(gpr::RDI, address, step);
                self.flags_sub(bits, a, b);
            }
            Kind::Scas => {
                let a = self.reg(bits, gpr::RAX);
                let dst = self.string_operand(Seg::Es, gpr::RDI, address, bits, false);
                let b = self.load(bits, dst);
                self.advance(gpr::RDI, address, step);
                self.flags_sub(bits, a, b);
            }
        }
        Some(Flow::Next)
    }

    /// Address size of a string instruction.
    pub(super) fn string_address_bits(&self) -> u32 {
        use iced_x86::OpKind::*;
        for n in 0..self.i.op_count() {
            match self.i.op_kind(n) {
                MemorySegSI | MemoryESDI => return 16,
                MemorySegESI | MemoryESEDI => return 32,
                MemorySegRSI | MemoryESRDI => return 64,
                _ => {}
            }
        }
        self.mode.code_bits()
    }
    fn string_operand(&mut self, seg: Seg, n: u32, address: u32, bits: u32, write: bool) -> Mem {
        let r = self.r64(n);
        let offset: Value = if address == 64 { r } else { self.b.zext(r, address) };
        self.linear(seg, offset, 0, bits / 8, write)
    }
    fn advance(&mut self, n: u32, address: u32, step: u64) {
        let r = self.r64(n);
        let v = self.b.bin_imm(Op::Add, r, step);
        let v = match address {
            64 => v,
            32 => self.b.zext(v, 32),
            _ => self.deposit(r, v, 0, 16),
        };
        self.set_r64(n, v);
    }
}
