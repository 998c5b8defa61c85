//! Just enough of an assembler.

pub fn addi(rt: u32, ra: u32, v: i32) -> u32 {
    14 << 26 | rt << 21 | ra << 16 | v as u32 & 0xffff
}
pub fn li(rt: u32, v: i32) -> u32 {
    addi(rt, 0, v)
}
/// Five instructions.
pub fn load(rt: u32, v: u64) -> Vec<u32> {
    let part = |n: u32| (v >> (16 * n)) as u32 & 0xffff;
    let or = |op: u32, n: u32| op << 26 | rt << 21 | rt << 16 | part(n);
    vec![15 << 26 | rt << 21 | part(3), or(24, 2), sldi32(rt), or(25, 1), or(24, 0)]
}
fn sldi32(r: u32) -> u32 {
    30 << 26 | r << 21 | r << 16 | 62 << 5 | 1 << 2 | 1 << 1
}
pub fn mr(ra: u32, rs: u32) -> u32 {
    31 << 26 | rs << 21 | ra << 16 | rs << 11 | 444 << 1
}
pub fn ld(rt: u32, d: u32, ra: u32) -> u32 {
    58 << 26 | rt << 21 | ra << 16 | d
}
pub fn std(rs: u32, d: u32, ra: u32) -> u32 {
    62 << 26 | rs << 21 | ra << 16 | d
}
fn spr(op: u32, r: u32, n: u32) -> u32 {
    31 << 26 | r << 21 | (n & 31) << 16 | (n >> 5) << 11 | op << 1
}
pub fn mfspr(rt: u32, n: u32) -> u32 {
    spr(339, rt, n)
}
pub fn mtspr(n: u32, rs: u32) -> u32 {
    spr(467, rs, n)
}
pub fn mfmsr(rt: u32) -> u32 {
    31 << 26 | rt << 21 | 83 << 1
}
pub fn mtmsrd(rs: u32, l: u32) -> u32 {
    31 << 26 | rs << 21 | l << 16 | 178 << 1
}
pub fn sc(level: u32) -> u32 {
    17 << 26 | level << 5 | 2
}
pub fn scv(level: u32) -> u32 {
    17 << 26 | level << 5 | 1
}
pub const RFID: u32 = 19 << 26 | 18 << 1;
pub const RFSCV: u32 = 19 << 26 | 82 << 1;
pub const ISYNC: u32 = 19 << 26 | 150 << 1;
pub const NOP: u32 = 0x6000_0000;
pub const TRAP: u32 = 0x7fe0_0008;
pub fn b(from: u64, to: u64) -> u32 {
    18 << 26 | (to.wrapping_sub(from) as u32 & 0x03ff_fffc)
}
/// Branch to itself.
pub const SPIN: u32 = 18 << 26;
pub fn cmpdi(ra: u32, v: i32) -> u32 {
    11 << 26 | 1 << 21 | ra << 16 | v as u32 & 0xffff
}
/// Skips the next `n` instructions if CR0.EQ.
pub fn beq_over(n: u32) -> u32 {
    16 << 26 | 12 << 21 | 2 << 16 | (n + 1) * 4
}
pub fn x31(op: u32, rt: u32, ra: u32, rb: u32) -> u32 {
    31 << 26 | rt << 21 | ra << 16 | rb << 11 | op << 1
}
pub fn slbmte(rs: u32, rb: u32) -> u32 {
    x31(402, rs, 0, rb)
}
pub fn slbie(rb: u32) -> u32 {
    x31(434, 0, 0, rb)
}
pub fn slbia(hint: u32) -> u32 {
    x31(498, hint, 0, 0)
}
pub fn tlbie(rb: u32, rs: u32, ric: u32, prs: u32, r: u32) -> u32 {
    x31(306, rs, ric << 2 | prs << 1 | r, rb)
}
