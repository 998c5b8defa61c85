//! The instruction at work decoded a second time, for faults that depend on more than the address accessed.

use crate::debug::Branch;
use crate::exception::Exception;
use crate::mode::X86Mode;
use crate::state::{Seg, X86Cpu, gpr};
use crate::translate::seg_of;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use rhea_ir::guest::{Access, Raised};

impl X86Cpu {
    /// The instruction at a linear address, as far as its bytes can be fetched.
    pub(crate) fn instruction_at(&mut self, pc: u64) -> Instruction {
        let mut code = [0; 15];
        let idx = self.cpl_index();
        let mut length = 0;
        for b in &mut code {
            match self.translate(pc.wrapping_add(length as u64), Some(Access::Fetch), idx) {
                Ok(m) => *b = self.read_physical(m.pa, 1) as u8,
                Err(_) => break,
            }
            length += 1;
        }
        let bits = X86Mode(self.header.mode).code_bits();
        let options = self.config.decoder_options() | DecoderOptions::NONE;
        Decoder::with_ip(bits, &code[..length], pc, options).decode()
    }
    /// A register's value, or the base of a segment register, for the address of an operand.
    fn address_part(&self, r: Register) -> Option<u64> {
        if r.is_segment_register() {
            let long = self.is_long() && !matches!(r, Register::FS | Register::GS);
            return Some(if long { 0 } else { self.seg[seg_of(r) as usize].base });
        }
        let v = *self.r.get(r.full_register().number())?;
        Some(match r.size() {
            2 => v & 0xffff,
            4 => v & 0xffff_ffff,
            _ => v,
        })
    }
    /// The segment through which the current instruction reaches memory at `va` or shortly before it.
    pub(crate) fn operand_segment(&mut self, va: u64) -> Option<Seg> {
        let insn = self.instruction_at(self.header.pc);
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(&insn).used_memory();
        let first = used.first()?.segment();
        if used.iter().all(|m| m.segment() == first) {
            return Some(seg_of(first));
        }
        // Two operands: the one at this address counts.
        let near = used.iter().find(|m| {
            let at = m.virtual_address(0, |r, _, _| self.address_part(r));
            at.is_none_or(|at| va.wrapping_sub(at) < 4096 || at.wrapping_sub(va) < 4096)
        })?;
        Some(seg_of(near.segment()))
    }

    /// Outside 64-bit mode: does the operand of the current instruction that has a byte at `va` go on behind 4 GiB?
    pub(crate) fn crosses_4gib(&mut self, va: u64) -> bool {
        const END: u64 = 1 << 32;
        if !(END - 0x1000..END).contains(&va) || self.is_long() {
            return false;
        }
        let insn = self.instruction_at(self.header.pc);
        let mut factory = InstructionInfoFactory::new();
        let mut used = factory.info(&insn).used_memory().iter();
        used.any(|m| {
            let at = m.virtual_address(0, |r, _, _| self.address_part(r)).map_or(END, |at| at & (END - 1));
            at <= va && at + m.memory_size().size() as u64 > END
        })
    }

    /// The current instruction, if it is a branch.
    pub(crate) fn branch_here(&mut self) -> Option<Branch> {
        use FlowControl::{Call, ConditionalBranch, IndirectBranch, IndirectCall, Return, UnconditionalBranch};
        let from = self.header.pc;
        let insn = self.instruction_at(from);
        let always = match insn.flow_control() {
            ConditionalBranch => false,
            UnconditionalBranch | IndirectBranch | Call | IndirectCall | Return => true,
            _ => return None,
        };
        let next = insn.next_ip();
        Some(Branch { from, next: if self.is_long() { next } else { next & 0xffff_ffff }, always })
    }

    /// Outside 64-bit mode linear addresses have 32 bits. An operand across the end of a flat segment is beyond its limit
    /// (vol. 3, 6.3; processors may wrap it instead), one in a segment with another base goes on at 0.
    ///
    /// # Errors
    /// The fault was raised.
    pub(crate) fn behind_4gib(&mut self, va: u64, access: Access) -> Result<u64, Raised> {
        let seg = match access {
            Access::Fetch => Some(Seg::Cs),
            _ => self.operand_segment(va),
        };
        match seg {
            Some(s) if self.seg[s as usize].base == 0 => {
                Err(self.raised(if s == Seg::Ss { Exception::ss(0) } else { Exception::gp(0) }))
            }
            _ => Ok(va & 0xffff_ffff),
        }
    }

    /// The pc is not canonical. A near branch there faults itself, with nothing changed: goes back to it if it was one. Calls have
    /// looked before they pushed.
    pub(crate) fn undo_branch(&mut self) {
        let (target, from) = (self.header.pc, std::mem::take(&mut self.header.branch));
        if !self.is_long() || !self.canonical(from) {
            return;
        }
        let insn = self.instruction_at(from);
        let after = self.r[gpr::RSP as usize];
        let (sp, stack) = match insn.mnemonic() {
            Mnemonic::Jmp => (after, false),
            Mnemonic::Ret => {
                let released = if insn.op_count() == 1 { insn.immediate16() } else { 0 };
                (after.wrapping_sub(8 + u64::from(released)), true)
            }
            _ => return,
        };
        self.r[gpr::RSP as usize] = sp;
        // Only if it really went there: the address may be of an older branch.
        let goes = if stack {
            self.peek(sp)
        } else if insn.op0_kind() == OpKind::Register {
            self.address_part(insn.op0_register())
        } else {
            let at = insn.virtual_address(0, 0, |r, _, _| self.address_part(r));
            at.and_then(|at| self.peek(at))
        };
        if goes == Some(target) {
            self.header.pc = from;
        } else {
            self.r[gpr::RSP as usize] = after;
        }
    }
    /// Eight bytes of memory, without effects.
    fn peek(&mut self, va: u64) -> Option<u64> {
        let idx = self.cpl_index();
        let mut v = 0;
        for n in 0..8 {
            let m = self.translate(va.wrapping_add(n), None, idx).ok()?;
            v |= self.read_physical(m.pa, 1) << (8 * n);
        }
        Some(v)
    }
}
