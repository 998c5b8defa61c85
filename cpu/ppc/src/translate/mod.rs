//! Translation of Power instructions to IR.
//!
//! Each family of instructions is a file with a table of patterns ([`decode`]) and one function per row or group of rows;
//! [`Translator`] carries what they need. A function checks for invalid forms first (returning [`Flow::Illegal`]), then emits
//! IR.

mod atomic;
mod branch;
mod cr;
pub mod decode;
pub mod dfp;
mod emit;
pub mod fp;
mod integer;
mod logical;
mod memory;
mod system;
pub mod vmx;
pub mod vsx;

pub use decode::{Facility, Insn, Pattern, pat, prefixed};
pub use emit::Flow;

use crate::config::PpcConfig;
use crate::exception::{Vector, program};
use crate::helpers::system as calls;
use crate::mode::PpcMode;
use rhea_ir::Builder;
use rhea_ir::guest::Translated;

/// The tables of all families.
fn tables() -> Vec<&'static [Pattern]> {
    let mut all = vec![
        integer::PATTERNS,
        logical::PATTERNS,
        cr::PATTERNS,
        branch::PATTERNS,
        memory::PATTERNS,
        atomic::PATTERNS,
        system::PATTERNS,
        fp::PATTERNS,
        dfp::PATTERNS,
    ];
    all.extend(vmx::TABLES);
    all.extend(vsx::TABLES);
    all
}

fn prefixed_tables() -> Vec<&'static [Pattern]> {
    vec![integer::PREFIXED, memory::PREFIXED, fp::PREFIXED, vsx::PREFIXED, vsx::MATRIX]
}

/// Translation of one basic block.
pub struct Translator<'t, 'f> {
    pub b: &'t mut Builder<'f>,
    pub cfg: &'t PpcConfig,
    pub mode: PpcMode,
    /// Address of the instruction being translated.
    pub pc: u64,
    /// Its length: 4, or 8 if it is prefixed.
    pub len: u64,
    /// Facilities of MSR that an instruction of this block has found on.
    pub found_on: u64,
}

/// The number of the prefix facility in FSCR.
const FACILITY_PREFIX: u32 = 13;
/// The number of the TAR facility in FSCR.
const FACILITY_TAR: u32 = 8;

impl Translator<'_, '_> {
    /// An interrupt that comes now is a prefixed instruction's.
    fn note_prefixed(&mut self) {
        let pc = self.c64(self.pc);
        self.b.set(crate::state::slots::PREFIXED_AT, pc);
    }
    /// Translates the instruction at `self.pc`.
    fn insn(&mut self, insn: u64) -> Flow {
        if self.len == 8 {
            self.note_prefixed();
        }
        let found = if self.len == 8 { decode::prefixes() } else { decode::words() }.find(insn);
        let Some(p) = found else { return self.illegal() };
        let isa = self.mode.isa();
        if isa < p.since || isa > p.until {
            return self.illegal();
        }
        if p.privileged && self.mode.pr() {
            return self.program(program::PRIVILEGED);
        }
        if self.len == 8 && !self.mode.prefixed() {
            return self.facility(FACILITY_PREFIX);
        }
        let unavailable = match p.facility {
            Facility::Fp if !self.mode.fp() => Some(Vector::FpUnavailable),
            Facility::Vec if !self.mode.vec() => Some(Vector::VectorUnavailable),
            Facility::Vsx if !self.mode.vsx() => Some(Vector::VsxUnavailable),
            Facility::VsxOrVec if insn & 1 == 0 && !self.mode.vsx() => Some(Vector::VsxUnavailable),
            Facility::VsxOrVec if insn & 1 != 0 && !self.mode.vec() => Some(Vector::VectorUnavailable),
            Facility::Tar if !self.mode.tar() => return self.facility(FACILITY_TAR),
            _ => None,
        };
        if let Some(flow) = unavailable.and_then(|vector| self.off(vector)) {
            return flow;
        }
        match (p.handler)(self, Insn(insn)) {
            Flow::Illegal => self.illegal(),
            flow => flow,
        }
    }
}

/// Translates one basic block; the contract is `rhea_ir::Guest::translate`.
pub fn translate(
    config: &PpcConfig,
    mode: u64,
    _code_attrs: u8,
    code: &[u8],
    max_insns: u32,
    b: &mut Builder,
) -> Translated {
    let mode = PpcMode(mode);
    let start = b.pc();
    let mut t = Translator { b, cfg: config, mode, pc: start, len: 4, found_on: 0 };
    let limit = if mode.single_step() { 1 } else { max_insns.max(1) };
    let word = |at: usize| {
        let bytes = code.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(if mode.le() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }))
    };
    let mut bytes = 0usize;
    let mut taken = 0;
    t.b.start_insn(start);
    while taken < limit {
        let Some(mut insn) = word(bytes) else { break };
        t.pc = start.wrapping_add(bytes as u64);
        t.len = 4;
        if taken != 0 {
            t.b.start_insn(t.pc);
        }
        if mode.breakpoints() {
            t.b.call(calls::BREAKPOINT, &[]);
        }
        taken += 1;
        if insn >> 26 == 1 && mode.isa() >= crate::Isa::V3_1 {
            // A prefixed instruction may not cross a multiple of 64 bytes (Book I, 1.6): alignment interrupt.
            if t.pc & 0x3f == 0x3c {
                bytes += 4;
                t.note_prefixed();
                let _ = t.end_with(calls::BOUNDARY, &[]);
                break;
            }
            let Some(suffix) = word(bytes + 4) else { break };
            insn = insn << 32 | suffix;
            t.len = 8;
        }
        bytes += t.len as usize;
        if t.insn(insn) == Flow::End {
            break;
        }
    }
    if !t.b.is_ended() {
        let _ = t.end_goto(start.wrapping_add(bytes as u64));
    }
    Translated::Done { bytes: bytes.max(4) as u32 }
}
