//! Helpers of integer, branch and load/store instructions.

use super::pac;
use crate::crypto::poly;
use crate::mode::ArmMode;
use crate::state::ArmCpu;
use rhea_ir::Effects;

rhea_ir::helper_table! {
    cpu crate::state::ArmCpu, base crate::helpers::INTEGER_BASE;
    /// Sets the guest's pc: end the block with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, Effects::WRITES_STATE;
    /// CRC32: args (accumulator, value, bytes).
    CRC32 = crc32, (I32, I64, I32) -> I32, Effects::PURE;
    CRC32C = crc32c, (I32, I64, I32) -> I32, Effects::PURE;
    // The following read translation control, which changes only at the end of a region, and keys, whose changes
    // `slots::KEY_EPOCH` counts: given that too they are pure inside a region.
    /// AddPAC: args (pointer, modifier, key 0 IA, 1 IB, 2 DA, 3 DB, epoch). The pointer, if the key is disabled.
    PAC = add_pac, (I64, I64, I32, I64) -> I64, Effects::PURE;
    /// Auth: the same arguments.
    AUT = auth, (I64, I64, I32, I64) -> I64, Effects::PURE;
    /// Strip: args (pointer, 1 if a data pointer).
    STRIP = strip, (I64, I32) -> I64, Effects::PURE;
    /// Args (value, modifier, epoch).
    PACGA = pacga, (I64, I64, I64) -> I64, Effects::PURE;
    /// Writes half of a key: args (2 × key + 1 for the high half, value). Does not end the block.
    SET_KEY = set_key, (I32, I64) -> Void, Effects::WRITES_STATE;
}

extern "C" fn set_pc(cpu: &mut ArmCpu, pc: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.header.pc = pc;
    0
}

extern "C" fn crc32(_: &mut ArmCpu, acc: u64, value: u64, bytes: u64, _: u64) -> u64 {
    poly::crc32(acc as u32, value, bytes as u32) as u64
}

extern "C" fn crc32c(_: &mut ArmCpu, acc: u64, value: u64, bytes: u64, _: u64) -> u64 {
    poly::crc32c(acc as u32, value, bytes as u32) as u64
}

fn is_enabled(cpu: &ArmCpu, key: u64) -> bool {
    cpu.controls >> ArmMode::key_bit(key as u32) & 1 != 0
}

extern "C" fn add_pac(cpu: &mut ArmCpu, ptr: u64, modifier: u64, key: u64, _: u64) -> u64 {
    if !is_enabled(cpu, key) {
        return ptr;
    }
    pac::add(cpu, ptr, modifier, key as u32)
}

extern "C" fn auth(cpu: &mut ArmCpu, ptr: u64, modifier: u64, key: u64, _: u64) -> u64 {
    if !is_enabled(cpu, key) {
        return ptr;
    }
    pac::auth(cpu, ptr, modifier, key as u32)
}

extern "C" fn strip(cpu: &mut ArmCpu, ptr: u64, data: u64, _: u64, _: u64) -> u64 {
    pac::strip(cpu, ptr, data & 1 != 0)
}

extern "C" fn set_key(cpu: &mut ArmCpu, which: u64, value: u64, _: u64, _: u64) -> u64 {
    cpu.set_key(which as u32 >> 1, which as u32 & 1, value);
    0
}

extern "C" fn pacga(cpu: &mut ArmCpu, value: u64, modifier: u64, _: u64, _: u64) -> u64 {
    pac::generic(cpu, value, modifier)
}
