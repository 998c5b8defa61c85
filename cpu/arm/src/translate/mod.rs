//! Translation of A64 instructions to IR.

pub mod helpers;
pub mod simd;

use crate::config::ArmConfig;
use rhea_ir::Builder;
use rhea_ir::guest::Translated;

/// Translates one basic block; the contract is `rhea_ir::Guest::translate`.
pub fn translate(config: &ArmConfig, mode: u64, code_attrs: u8, code: &[u8], max_insns: u32, b: &mut Builder) -> Translated {
    let _ = (config, mode, code_attrs, code, max_insns);
    b.start_insn(b.pc());
    b.end_lookup();
    Translated::Done { bytes: 4 }
}
