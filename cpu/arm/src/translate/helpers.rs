//! Helpers of integer, branch and load/store instructions.

use super::pac;
use crate::state::ArmCpu;
use rhea_ir::Effects;

crate::helpers! {
    base crate::helpers::INTEGER_BASE;
    /// Sets the guest's pc: end the block with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, Effects::WRITES_STATE;
    /// CRC32: args (accumulator, value, bytes).
    CRC32 = crc32, (I32, I64, I32) -> I32, Effects::PURE;
    CRC32C = crc32c, (I32, I64, I32) -> I32, Effects::PURE;
    // The following read keys and translation control, which change only at the end of a region: pure inside one.
    /// AddPAC: args (pointer, modifier, key 0 IA, 1 IB, 2 DA, 3 DB).
    PAC = add_pac, (I64, I64, I32) -> I64, Effects::PURE;
    /// Auth: the same arguments.
    AUT = auth, (I64, I64, I32) -> I64, Effects::PURE;
    /// Strip: args (pointer, 1 if a data pointer).
    STRIP = strip, (I64, I32) -> I64, Effects::PURE;
    PACGA = pacga, (I64, I64) -> I64, Effects::PURE;
}

extern "C" fn set_pc(cpu: &mut ArmCpu, pc: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.header.pc = pc;
    0
}

const fn crc_table(poly: u32) -> [u32; 256] {
    let mut t = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut v = n as u32;
        let mut k = 0;
        while k < 8 {
            v = if v & 1 != 0 { v >> 1 ^ poly } else { v >> 1 };
            k += 1;
        }
        t[n] = v;
        n += 1;
    }
    t
}

/// Bit-reversed 0x04c11db7 and 0x1edc6f41.
static IEEE: [u32; 256] = crc_table(0xedb8_8320);
static CASTAGNOLI: [u32; 256] = crc_table(0x82f6_3b78);

fn crc(table: &[u32; 256], acc: u64, value: u64, bytes: u64) -> u64 {
    let mut c = acc as u32;
    for b in &value.to_le_bytes()[..(bytes as usize).min(8)] {
        c = c >> 8 ^ table[(c as u8 ^ b) as usize];
    }
    c as u64
}

extern "C" fn crc32(_: &mut ArmCpu, acc: u64, value: u64, bytes: u64, _: u64) -> u64 {
    crc(&IEEE, acc, value, bytes)
}

extern "C" fn crc32c(_: &mut ArmCpu, acc: u64, value: u64, bytes: u64, _: u64) -> u64 {
    crc(&CASTAGNOLI, acc, value, bytes)
}

extern "C" fn add_pac(cpu: &mut ArmCpu, ptr: u64, modifier: u64, key: u64, _: u64) -> u64 {
    pac::add(cpu, ptr, modifier, key as u32)
}

extern "C" fn auth(cpu: &mut ArmCpu, ptr: u64, modifier: u64, key: u64, _: u64) -> u64 {
    pac::auth(cpu, ptr, modifier, key as u32)
}

extern "C" fn strip(cpu: &mut ArmCpu, ptr: u64, data: u64, _: u64, _: u64) -> u64 {
    pac::strip(cpu, ptr, data & 1 != 0)
}

extern "C" fn pacga(cpu: &mut ArmCpu, value: u64, modifier: u64, _: u64, _: u64) -> u64 {
    pac::generic(cpu, value, modifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_check_values() {
        let run = |t: &[u32; 256]| !b"123456789".iter().fold(!0u64, |c, &b| crc(t, c, b as u64, 1)) as u32;
        assert_eq!(run(&IEEE), 0xcbf4_3926);
        assert_eq!(run(&CASTAGNOLI), 0xe306_9283);
    }
}
