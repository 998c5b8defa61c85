//! A handful of A64 encodings for the code around the tests, and a writer of static ELF files.

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

/// One loadable segment; `size` may exceed the bytes given (the rest is zero).
#[derive(Debug)]
pub struct Segment {
    pub addr: u64,
    pub bytes: Vec<u8>,
    pub size: u64,
    pub executable: bool,
}

/// A static AArch64 ELF file.
pub fn elf(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let put = |out: &mut Vec<u8>, v: u64, n: usize| out.extend_from_slice(&v.to_le_bytes()[..n]);
    for (v, n) in [(2, 2), (183, 2), (1, 4), (entry, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2)] {
        put(&mut out, v, n);
    }
    for (v, n) in [(segments.len() as u64, 2), (64, 2), (0, 2), (0, 2)] {
        put(&mut out, v, n);
    }
    let mut at = 0x1000u64;
    for s in segments {
        put(&mut out, 1, 4);
        put(&mut out, if s.executable { 7 } else { 6 }, 4);
        for v in [at, s.addr, s.addr, s.bytes.len() as u64, s.size.max(s.bytes.len() as u64), 0x1000] {
            put(&mut out, v, 8);
        }
        at += (s.bytes.len() as u64).next_multiple_of(0x1000);
    }
    for s in segments {
        out.resize(out.len().next_multiple_of(0x1000), 0);
        out.extend_from_slice(&s.bytes);
    }
    out
}
