//! Translation of A64 instructions to IR.
//!
//! Each family of instructions is a file with a table of patterns ([`decode`]) and one function per row or group of
//! rows; [`Translator`] carries what they need. A function checks for unallocated encodings first (returning
//! [`Flow::Undef`]), then emits IR.

mod address;
mod atomic;
mod branch;
pub mod decode;
mod emit;
pub mod helpers;
mod int_imm;
mod int_reg;
mod load_store;
pub mod pac;
mod pauth;
pub mod simd;
mod system;

pub use decode::{Insn, Pattern, decoder, pat};
pub use emit::Flow;

use crate::config::ArmConfig;
use crate::helpers::{self as calls, HELPERS};
use crate::mode::ArmMode;
use rhea_ir::guest::Translated;
use rhea_ir::{Builder, Function};

/// The tables of all families.
fn tables() -> Vec<&'static [Pattern]> {
    let mut all: Vec<&'static [Pattern]> = vec![
        int_imm::PATTERNS,
        int_reg::PATTERNS,
        branch::PATTERNS,
        pauth::PATTERNS,
        system::PATTERNS,
        load_store::PATTERNS,
        atomic::PATTERNS,
    ];
    all.extend(simd::tables());
    all
}

/// Translation of one basic block.
pub struct Translator<'t, 'f> {
    pub b: &'t mut Builder<'f>,
    pub cfg: &'t ArmConfig,
    pub mode: ArmMode,
    /// Address of the instruction being translated.
    pub pc: u64,
    /// The code page is guarded (FEAT_BTI).
    pub guarded: bool,
    /// SP is known to be a multiple of 16 here.
    pub(crate) sp_aligned: bool,
}

impl Translator<'_, '_> {
    /// Translates the instruction at `self.pc`.
    fn insn(&mut self, word: u32) -> Flow {
        let Some(p) = decoder().find(word) else { return self.undefined() };
        if p.feature.is_some_and(|f| !self.cfg.has(f)) {
            return self.undefined();
        }
        if p.fp && self.mode.fp_trap_el() != 0 {
            // Unallocated encodings are UNDEFINED whether or not FP is trapped: a dry run tells.
            return if self.is_allocated(p, word) {
                self.end_with(calls::system::FP_TRAP, &[])
            } else {
                self.undefined()
            };
        }
        match (p.handler)(self, Insn(word)) {
            Flow::Undef => self.undefined(),
            flow => flow,
        }
    }

    /// Translates into a scratch function to learn whether the encoding is allocated.
    fn is_allocated(&self, p: &Pattern, word: u32) -> bool {
        let mut f = Function::new(self.mode.fp_mode());
        let block = f.new_block(self.pc);
        let mut b = Builder::new(&mut f, &HELPERS, block);
        let mut t =
            Translator { b: &mut b, cfg: self.cfg, mode: self.mode, pc: self.pc, guarded: false, sp_aligned: true };
        (p.handler)(&mut t, Insn(word)) != Flow::Undef
    }
}

/// Translates one basic block; the contract is `rhea_ir::Guest::translate`.
pub fn translate(
    config: &ArmConfig,
    mode: u64,
    code_attrs: u8,
    code: &[u8],
    max_insns: u32,
    b: &mut Builder,
) -> Translated {
    let mode = ArmMode(mode);
    let start = b.pc();
    let guarded = code_attrs & 1 != 0 && config.has(crate::Feature::Bti);
    let mut t = Translator { b, cfg: config, mode, pc: start, guarded, sp_aligned: false };
    let limit = if mode.single_step() { 1 } else { max_insns.max(1) };
    let mut bytes = 0u32;
    let mut taken = 0;
    t.b.start_insn(start);
    if mode.single_step() {
        t.b.call(calls::system::STEP, &[]);
    }
    if start & 3 != 0 {
        let _ = t.end_with(calls::system::PC_ALIGN, &[]);
        return Translated::Done { bytes: code.len().min(4) as u32 };
    }
    let (words, _) = code.as_chunks::<4>();
    for word in words {
        t.pc = start.wrapping_add(bytes as u64);
        if taken != 0 {
            t.b.start_insn(t.pc);
        }
        if mode.breakpoints() {
            t.b.call(calls::system::BREAKPOINT, &[]);
        }
        bytes += 4;
        taken += 1;
        if mode.il() {
            let _ = t.end_with(calls::system::ILLEGAL_STATE, &[]);
            break;
        }
        let word = u32::from_le_bytes(*word);
        if taken == 1 {
            t.block_start(word);
        }
        if t.insn(word) == Flow::End {
            break;
        }
        if taken >= limit {
            break;
        }
    }
    if !t.b.is_ended() {
        let _ = t.end_goto(start.wrapping_add(bytes as u64));
    }
    Translated::Done { bytes: bytes.max(4) }
}
