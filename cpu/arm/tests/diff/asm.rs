//! A handful of A64 encodings for the code around the tests.

use rhea_diff::Machine;
pub use rhea_diff::Segment;

pub const STP_Q: u32 = 0xad00_0000;
pub const LDP_Q: u32 = 0xad40_0000;
pub const STR_X: u32 = 0xf900_0000;
pub const LDR_X: u32 = 0xf940_0000;
pub const TPIDR_EL0: u32 = 0x1b_d040;
pub const NZCV: u32 = 0x1b_4200;
pub const FPCR: u32 = 0x1b_4400;
pub const FPSR: u32 = 0x1b_4420;

/// LDP/STP of Q registers at `[n, #offset]`.
pub fn pair_q(op: u32, t: u32, t2: u32, n: u32, offset: u32) -> u32 {
    op | (offset / 16) << 15 | t2 << 10 | n << 5 | t
}
/// LDR/STR of an X register at `[n, #offset]`.
pub fn single_x(op: u32, t: u32, n: u32, offset: u32) -> u32 {
    op | (offset / 8) << 10 | n << 5 | t
}
pub fn msr(reg: u32, t: u32) -> u32 {
    0xd500_0000 | reg | t
}
pub fn mrs(t: u32, reg: u32) -> u32 {
    0xd520_0000 | reg | t
}
/// MOV between a register and SP (ADD with 0).
pub fn mov_sp(d: u32, n: u32) -> u32 {
    0x9100_0000 | n << 5 | d
}
/// MOVZ and MOVKs that make a constant.
pub fn constant(code: &mut Vec<u32>, d: u32, v: u64) {
    code.push(0xd280_0000 | ((v & 0xffff) as u32) << 5 | d);
    for hw in 1..4 {
        let part = (v >> (16 * hw) & 0xffff) as u32;
        if part != 0 {
            code.push(0xf280_0000 | (hw as u32) << 21 | part << 5 | d);
        }
    }
}

/// A static AArch64 ELF file.
pub fn elf(entry: u64, segments: &[Segment]) -> Vec<u8> {
    rhea_diff::elf(Machine { number: 183, big_endian: false, flags: 0 }, entry, segments)
}
