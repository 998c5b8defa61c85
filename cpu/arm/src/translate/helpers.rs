//! Helpers of integer, branch and load/store instructions.

use crate::state::ArmCpu;
use rhea_ir::Effects;

crate::helpers! {
    base crate::helpers::INTEGER_BASE;
    /// Sets the guest's pc: end the block with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, Effects::WRITES_STATE;
}

extern "C" fn set_pc(cpu: &mut ArmCpu, pc: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.header.pc = pc;
    0
}
