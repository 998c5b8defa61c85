//! A handful of encodings for the code around the tests.

/// A byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub fn u32(self, v: u32) -> [u8; 4] {
        if self == Order::Big { v.to_be_bytes() } else { v.to_le_bytes() }
    }
    pub fn u64(self, v: u64) -> [u8; 8] {
        if self == Order::Big { v.to_be_bytes() } else { v.to_le_bytes() }
    }
    pub fn get(self, b: &[u8]) -> u64 {
        let b = b[..8].try_into().expect("8 bytes");
        if self == Order::Big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) }
    }
    pub fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| self.u32(*w)).collect()
    }
}

pub const NOP: u32 = 0x6000_0000;
pub const SC: u32 = 0x4400_0002;
pub const BLR: u32 = 0x4e80_0020;
/// bctar 20,0.
pub const BCTAR: u32 = 0x4e80_0460;
pub const LXVD2X: u32 = 0x7c00_0698;
pub const STXVD2X: u32 = 0x7c00_0798;
/// mtfsf 255,0,1,0: all of FPSCR.
pub const MTFSF: u32 = 0xfe00_058e | 0xff << 17;
pub const MFFS: u32 = 0xfc00_048e;
pub const MTVSCR: u32 = 0x1000_0644;
pub const MFVSCR: u32 = 0x1000_0604;
pub const LFD: u32 = 50;
pub const STFD: u32 = 54;

/// SPR numbers.
pub const XER: u32 = 1;
pub const LR: u32 = 8;
pub const CTR: u32 = 9;
pub const TAR: u32 = 815;

/// D form with a primary opcode.
pub fn d(op: u32, rt: u32, ra: u32, imm: i32) -> u32 {
    op << 26 | rt << 21 | ra << 16 | (imm as u32 & 0xffff)
}
pub fn addi(rt: u32, ra: u32, imm: i32) -> u32 {
    d(14, rt, ra, imm)
}
pub fn ld(rt: u32, ra: u32, disp: i32) -> u32 {
    d(58, rt, ra, disp)
}
pub fn std(rs: u32, ra: u32, disp: i32) -> u32 {
    d(62, rs, ra, disp)
}
fn spr(number: u32) -> u32 {
    (number & 31) << 16 | (number >> 5) << 11
}
pub fn mtspr(number: u32, rs: u32) -> u32 {
    0x7c00_03a6 | rs << 21 | spr(number)
}
pub fn mfspr(rt: u32, number: u32) -> u32 {
    0x7c00_02a6 | rt << 21 | spr(number)
}
/// mtcrf 255.
pub fn mtcr(rs: u32) -> u32 {
    0x7c0f_f120 | rs << 21
}
pub fn mfcr(rt: u32) -> u32 {
    0x7c00_0026 | rt << 21
}
/// VSX load or store at (RB).
pub fn vsx(op: u32, n: u32, rb: u32) -> u32 {
    op | (n & 31) << 21 | rb << 11 | n >> 5
}
/// lis and ori: a constant below 2^31.
pub fn constant(code: &mut Vec<u32>, rt: u32, v: u64) {
    assert!(v < 1 << 31, "a constant of 31 bits");
    code.push(d(15, rt, 0, (v >> 16) as i32));
    if v & 0xffff != 0 {
        code.push(d(24, rt, rt, (v & 0xffff) as i32));
    }
}
