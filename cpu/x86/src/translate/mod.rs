//! Translation of x86 instructions to IR.
//!
//! Decoding is iced-x86's; each family of instructions is a file with functions that match on the mnemonic. A family's
//! function returns `None` if the instruction is not one of its own.

mod address;
mod arith;
mod bits;
mod branch;
mod emit;
mod mmx;
mod moves;
mod operand;
pub mod sse;
mod stack;
mod strings;
mod system;
mod transfer;
mod x87;

pub use address::Mem;
pub(crate) use address::seg_of;
pub use emit::Flow;

use crate::config::X86Config;
use crate::helpers::system as calls;
use crate::mode::X86Mode;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction};
use rhea_ir::Builder;
use rhea_ir::guest::Translated;

/// Translation of one basic block.
pub struct Translator<'t, 'f> {
    pub b: &'t mut Builder<'f>,
    pub cfg: &'t X86Config,
    pub mode: X86Mode,
    /// Linear address of the instruction being translated.
    pub pc: u64,
    /// Linear address of the next one.
    pub next: u64,
    pub i: Instruction,
    /// The bytes from the instruction on.
    code: &'t [u8],
    /// STI was the last instruction: interrupts are looked for after the next one.
    sti_shadow: bool,
}

impl Translator<'_, '_> {
    /// Translates `self.i`.
    fn insn(&mut self) -> Flow {
        if self.i.is_invalid() || !self.cfg.allows(&self.i) {
            return self.undefined();
        }
        // The most frequent first.
        None.or_else(|| self.moves())
            .or_else(|| self.arith())
            .or_else(|| self.branch())
            .or_else(|| self.stack())
            .or_else(|| self.bits())
            .or_else(|| self.strings())
            .or_else(|| self.sse())
            .or_else(|| self.x87())
            .or_else(|| self.system())
            .unwrap_or_else(|| self.unimplemented())
    }
}

/// Prefixes and length: more than 15 bytes are a general-protection fault.
const MAX_LEN: usize = 15;

/// A far pointer in memory with a 32-bit offset: what AMD's manual makes of one with REX.W.
fn is_far_pointer(code: Code) -> bool {
    use Code::{Call_m1632, Jmp_m1632, Lfs_r32_m1632, Lgs_r32_m1632, Lss_r32_m1632};
    matches!(code, Call_m1632 | Jmp_m1632 | Lfs_r32_m1632 | Lgs_r32_m1632 | Lss_r32_m1632)
}

/// Translates one basic block; the contract is `rhea_ir::Guest::translate`.
pub fn translate(config: &X86Config, mode: u64, code: &[u8], max_insns: u32, b: &mut Builder) -> Translated {
    let mode = X86Mode(mode);
    let start = b.pc();
    let mut t = Translator {
        b,
        cfg: config,
        mode,
        pc: start,
        next: start,
        i: Instruction::default(),
        code: &[],
        sti_shadow: false,
    };
    let limit = if mode.one_insn() { 1 } else { max_insns.max(1) };
    let mut decoder = Decoder::with_ip(mode.code_bits(), code, start, config.decoder_options() | DecoderOptions::NONE);
    let mut bytes = 0usize;
    let mut taken = 0;
    t.b.start_insn(start);
    let mut ended = t.block_start();
    while !ended {
        let rest = code.get(bytes..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        decoder.decode_out(&mut t.i);
        if is_far_pointer(t.i.code()) && mode.long() && config.decoder_options() & DecoderOptions::AMD != 0 {
            // The processors of both vendors take 64-bit offsets here.
            let pc = start.wrapping_add(bytes as u64);
            let options = config.decoder_options() & !DecoderOptions::AMD;
            Decoder::with_ip(64, rest, pc, options).decode_out(&mut t.i);
        }
        if decoder.last_error() == DecoderError::NoMoreBytes && rest.len() < MAX_LEN {
            if taken == 0 {
                return Translated::NeedsNextPage;
            }
            break;
        }
        t.code = rest;
        let len = t.i.len();
        t.pc = start.wrapping_add(bytes as u64);
        t.next = t.pc.wrapping_add(len as u64);
        if !mode.long() {
            t.next &= 0xffff_ffff;
        }
        if taken != 0 {
            t.b.start_insn(t.pc);
        }
        taken += 1;
        let flow = if len == 0 || t.i.is_invalid() && rest.len() >= MAX_LEN && len >= MAX_LEN {
            t.fault(crate::Vector::GeneralProtection, Some(0))
        } else {
            t.before_insn();
            let shadow = std::mem::take(&mut t.sti_shadow);
            if shadow && !t.goes_on() {
                t.look_for_interrupts();
            }
            let flow = t.insn();
            if shadow && flow == Flow::Next { t.end_with_interrupts(t.next) } else { flow }
        };
        bytes += len.max(1);
        ended = flow == Flow::End;
        if taken >= limit {
            break;
        }
    }
    if !t.b.is_ended() {
        if std::mem::take(&mut t.sti_shadow) {
            // The instruction after STI is of another block: the mode keeps interrupts off for it.
            t.b.call(calls::SET_SHADOW, &[]);
            let next = t.next;
            t.set_pc_const(next);
            t.b.end_lookup();
        } else {
            let next = t.next;
            let _ = t.end_goto(next);
        }
    }
    Translated::Done { bytes: bytes.max(1) as u32 }
}
