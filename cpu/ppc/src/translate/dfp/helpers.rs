//! Helpers of decimal floating-point instructions (Book I, chapter 5).

use crate::fpu::Dfp;
use crate::state::PpcCpu;
use rhea_ir::Effects;

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::DFP_BASE;
    /// An operation: args (`fpu::Dfp`).
    DFP = dfp, (I64) -> Void, Effects::WRITES_STATE.union(Effects::RAISES);
}

extern "C" fn dfp(cpu: &mut PpcCpu, p: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    cpu.dfp(Dfp(p));
    0
}
