//! Helpers that raise interrupts, and those of system instructions.

use crate::exception::{Vector, program};
use crate::spr;
use crate::state::PpcCpu;
use rhea_ir::Effects;

rhea_ir::helper_table! {
    cpu PpcCpu, base super::SYSTEM_BASE;
    /// Program interrupt: args (cause bits of SRR1, see `exception::program`). Always raises.
    PROGRAM = program_interrupt, (I64) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// Floating-point, vector, VSX unavailable: args (vector). Always raises.
    UNAVAILABLE = unavailable, (I32) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// Facility unavailable: args (number of the facility in FSCR). Always raises.
    FACILITY = facility, (I32) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// Alignment interrupt: args (address, 1 if a store). Always raises.
    ALIGNMENT = alignment, (I64, I32) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// sc: args (LEV). Sets the pc itself.
    SC = sc, (I32) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// Sets the guest's pc: end the block with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, Effects::WRITES_STATE;
    /// After an instruction under `PpcMode::single_step` (or a taken branch under `branch_trace`): args (address of the next
    /// instruction). Sets the pc, raises the trace interrupt or stops for the debugger.
    TRACE = trace, (I64) -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
    /// Before an instruction under `PpcMode::breakpoints`.
    BREAKPOINT = breakpoint, () -> Void, Effects::RAISES.union(Effects::WRITES_STATE);
}

extern "C" fn program_interrupt(cpu: &mut PpcCpu, cause: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.raise(Vector::Program, cause);
    0
}

extern "C" fn unavailable(cpu: &mut PpcCpu, vector: u64, _: u64, _: u64, _: u64) -> u64 {
    let vector = match vector {
        0x800 => Vector::FpUnavailable,
        0xf20 => Vector::VectorUnavailable,
        _ => Vector::VsxUnavailable,
    };
    cpu.raise(vector, 0);
    0
}

extern "C" fn facility(cpu: &mut PpcCpu, _number: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.raise(Vector::FacilityUnavailable, 0);
    0
}

extern "C" fn alignment(cpu: &mut PpcCpu, va: u64, _store: u64, _: u64, _: u64) -> u64 {
    cpu.spr[spr::DAR as usize] = va;
    cpu.raise(Vector::Alignment, 0);
    0
}

extern "C" fn sc(cpu: &mut PpcCpu, level: u64, _: u64, _: u64, _: u64) -> u64 {
    let next = cpu.header.pc.wrapping_add(4);
    if level == 1 {
        let hooks = cpu.hooks.clone();
        cpu.header.pc = next;
        if !hooks.hcall(cpu) {
            cpu.header.pc = next.wrapping_sub(4);
            cpu.raise(Vector::Program, program::PRIVILEGED);
        }
    } else {
        cpu.take_interrupt(Vector::SystemCall, next, 0);
    }
    0
}

extern "C" fn set_pc(cpu: &mut PpcCpu, pc: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.header.pc = pc;
    0
}

extern "C" fn trace(cpu: &mut PpcCpu, next: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.take_interrupt(Vector::Trace, next, 0);
    0
}

extern "C" fn breakpoint(_: &mut PpcCpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    0
}
