//! Helpers of VSX (Book I, chapter 7).

use crate::fpu::{FpOp, Note, Vsx};
use crate::state::PpcCpu;
use rhea_ir::Effects;

const STATE: Effects = Effects::WRITES_STATE.union(Effects::RAISES);

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::VSX_BASE;
    /// An operation between formats or on quad precision: args (`fpu::Vsx`).
    OPERATION = operation, (I64) -> Void, STATE;
    /// Compare of quads: args (register a, b << 6, ordered << 12, field << 13).
    QUAD_COMPARE = quad_compare, (I64) -> Void, STATE;
    /// A test: args (kind, register a << 8, b << 14, field << 20, mask << 24).
    TEST = test, (I64) -> Void, STATE;
    /// xscvspdp with exceptions enabled: args (the single as a double, target).
    COPY_EXACT = copy_exact, (I64, I32) -> Void, STATE;
    /// A matrix operation: args (`matrix` packs it).
    MATRIX = matrix, (I64) -> Void, STATE;
}

extern "C" fn operation(cpu: &mut PpcCpu, p: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    cpu.vsx_operation(Vsx(p));
    0
}

extern "C" fn quad_compare(cpu: &mut PpcCpu, p: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    cpu.quad_compare(p as usize & 63, p as usize >> 6 & 63, p >> 12 & 1 != 0, p as usize >> 13 & 7);
    0
}

extern "C" fn test(cpu: &mut PpcCpu, p: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    let (a, b) = (p as usize >> 8 & 63, p as usize >> 14 & 63);
    cpu.vsx_test(p as u32 & 0xff, a, b, (p >> 24) as u32 & 0x7f, p as usize >> 20 & 7);
    0
}

extern "C" fn copy_exact(cpu: &mut PpcCpu, bits: u64, target: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    cpu.fp_exact_value(Note::new(FpOp::Copy, false), target as usize & 63, bits);
    0
}

extern "C" fn matrix(cpu: &mut PpcCpu, p: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.matrix(p);
    0
}
