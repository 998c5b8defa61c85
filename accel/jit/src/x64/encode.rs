//! The forms of instructions that most generated code consists of, encoded here in their shortest way: no REX prefix
//! where none is needed, no SIB byte, no displacement of zero (Intel SDM volume 2, chapter 2). dynasm, given registers
//! at run time, always emits the longest.

use super::asm::{Alu, Asm, Gpr, Shift, Xmm};

/// The mandatory prefix of an SSE/AVX encoding, as the pp field of VEX.
#[derive(Clone, Copy)]
pub(super) enum Pp {
    None = 0,
    P66 = 1,
    F3 = 2,
    F2 = 3,
}

/// A memory operand, `[base + index + disp]`. The index is not rsp.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub base: Gpr,
    pub index: Option<Gpr>,
    pub disp: i32,
}

impl Place {
    pub fn at(base: Gpr, disp: i32) -> Place {
        Place { base, index: None, disp }
    }
    fn index_number(self) -> u8 {
        self.index.unwrap_or(0)
    }
}

/// Where the immediate of [`Asm::cmp_mem32_patched`] is.
pub(super) const CMP_WORD_IMMEDIATE: usize = 6;

impl Pp {
    /// Of a move of 4, 8 or 16 bytes between a vector register and memory.
    pub(super) fn of_move(bytes: u32) -> Pp {
        match bytes {
            4 => Pp::F3,
            8 => Pp::F2,
            _ => Pp::None,
        }
    }
}

impl Alu {
    /// Number in the opcode map and in the group of opcodes 81 and 83.
    fn number(self) -> u8 {
        match self {
            Alu::Add => 0,
            Alu::Or => 1,
            Alu::Adc => 2,
            Alu::Sbb => 3,
            Alu::And => 4,
            Alu::Sub => 5,
            Alu::Xor => 6,
            Alu::Cmp => 7,
        }
    }
}

/// The first bytes of an instruction, at most eight.
#[derive(Clone, Copy)]
struct Bytes {
    word: u64,
    len: u32,
}

impl Bytes {
    const NONE: Bytes = Bytes { word: 0, len: 0 };
    #[inline(always)]
    fn with(self, byte: u8) -> Bytes {
        Bytes { word: self.word | u64::from(byte) << (8 * self.len), len: self.len + 1 }
    }
    #[inline(always)]
    fn with_all(self, bytes: &[u8]) -> Bytes {
        bytes.iter().fold(self, |all, &b| all.with(b))
    }
    #[inline(always)]
    fn with_rex(self, w: bool, reg: u8, at: Place, byte_reg: bool) -> Bytes {
        let rex = (w as u8) << 3 | (reg >> 3) << 2 | (at.index_number() >> 3) << 1 | at.base >> 3;
        if rex != 0 || byte_reg { self.with(0x40 | rex) } else { self }
    }
}

impl Asm {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.ops.ops.extend_from_slice(&bytes);
    }
    #[inline(always)]
    fn put_bytes(&mut self, b: Bytes) {
        let code = &mut self.ops.ops;
        let end = code.len() + b.len as usize;
        code.extend_from_slice(&b.word.to_le_bytes());
        code.truncate(end);
    }

    /// An instruction with a memory operand, from what comes before ModRM on: ModRM, SIB and displacement follow.
    #[inline(always)]
    fn put_mem(&mut self, b: Bytes, reg: u8, at: Place) {
        let (r, base) = ((reg & 7) << 3, at.base & 7);
        let short = i8::try_from(at.disp);
        let mode = match short {
            Ok(0) if base != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        let b = match at.index {
            // The index that means none.
            None if base == 4 => b.with(mode | r | 4).with(0x24),
            None => b.with(mode | r | base),
            Some(x) => b.with(mode | r | 4).with((x & 7) << 3 | base),
        };
        match (mode, short) {
            (0, _) => self.put_bytes(b),
            (0x40, Ok(d)) => self.put_bytes(b.with(d as u8)),
            _ => {
                self.put_bytes(b);
                self.put(at.disp.to_le_bytes());
            }
        }
    }

    /// `opcode reg, [place]` or the other way round, as the opcode says.
    #[inline]
    pub(super) fn rm_at(&mut self, w: bool, opcode: &[u8], reg: u8, at: Place) {
        self.put_mem(Bytes::NONE.with_rex(w, reg, at, false).with_all(opcode), reg, at);
    }
    /// The same with a register of 8 bits.
    pub(super) fn rm_at8(&mut self, opcode: &[u8], reg: u8, at: Place) {
        self.put_mem(Bytes::NONE.with_rex(false, reg, at, reg >= 4).with_all(opcode), reg, at);
    }
    /// The same with the 16-bit operand size prefix.
    pub(super) fn rm_at16(&mut self, opcode: &[u8], reg: u8, at: Place) {
        self.put_mem(Bytes::NONE.with(0x66).with_rex(false, reg, at, false).with_all(opcode), reg, at);
    }
    /// `opcode reg, [base + disp]`.
    pub(super) fn rm_mem(&mut self, w: bool, opcode: &[u8], reg: u8, base: Gpr, disp: i32) {
        self.rm_at(w, opcode, reg, Place::at(base, disp));
    }
    #[inline(always)]
    fn reg_bytes(w: bool, opcode: u8, reg: u8, rm: u8) -> Bytes {
        Bytes::NONE.with_rex(w, reg, Place::at(rm, 0), false).with(opcode).with(0xc0 | (reg & 7) << 3 | rm & 7)
    }
    /// `opcode reg, rm` between registers.
    pub(super) fn rm_reg(&mut self, w: bool, opcode: u8, reg: u8, rm: u8) {
        self.put_bytes(Self::reg_bytes(w, opcode, reg, rm));
    }

    /// The same of the two-byte map; `byte`: of rm's lowest byte, which of the fifth register on needs a REX prefix.
    pub(super) fn rm_reg_0f(&mut self, w: bool, opcode: u8, reg: u8, rm: u8, byte: bool) {
        let rex = Bytes::NONE.with_rex(w, reg, Place::at(rm, 0), byte && rm >= 4);
        self.put_bytes(rex.with(0x0f).with(opcode).with(0xc0 | (reg & 7) << 3 | rm & 7));
    }
    /// al -= dl.
    pub(super) fn sub_al_dl(&mut self) {
        self.put([0x28, 0xd0]);
    }

    pub(super) fn alu_reg(&mut self, op: Alu, w: bool, a: Gpr, b: Gpr) {
        self.rm_reg(w, op.number() << 3 | 3, a, b);
    }
    pub(super) fn alu_imm(&mut self, op: Alu, w: bool, a: Gpr, imm: i32) {
        match i8::try_from(imm) {
            Ok(x) => self.put_bytes(Self::reg_bytes(w, 0x83, op.number(), a).with(x as u8)),
            Err(_) => self.put_bytes(Self::reg_bytes(w, 0x81, op.number(), a).with_all(&imm.to_le_bytes())),
        }
    }
    pub(super) fn alu_mem(&mut self, op: Alu, w: bool, a: Gpr, base: Gpr, disp: i32) {
        self.rm_mem(w, &[op.number() << 3 | 3], a, base, disp);
    }
    /// `op dword [base + disp], imm`.
    pub(super) fn alu_mem_imm8(&mut self, op: Alu, base: Gpr, disp: i32, imm: i8) {
        self.rm_mem(false, &[0x83], op.number(), base, disp);
        self.put([imm as u8]);
    }
    /// Adds to the lowest byte of one of the first four registers.
    pub(super) fn add8_i(&mut self, a: Gpr, imm: u8) {
        debug_assert!(a < 4);
        self.bytes(&[0x80, 0xc0 | a, imm]);
    }
    /// `op dword [rip + displacement], eax`; the offset of the displacement, which is put in later.
    pub(super) fn alu_cell_eax(&mut self, op: Alu) -> usize {
        self.put([op.number() << 3 | 1, 5, 0, 0, 0, 0]);
        self.offset() - 4
    }
    /// `cmp dword [base + disp], imm32` with an immediate of 0 that can be patched, [`CMP_WORD_IMMEDIATE`] bytes from here; base is
    /// one of the first eight registers but rsp.
    pub(super) fn cmp_mem32_patched(&mut self, base: Gpr, disp: i32) {
        self.put([0x81, 0xb8 | base & 7]);
        self.put(disp.to_le_bytes());
        self.put([0; 4]);
    }
    pub(super) fn cmp_mem32_word(&mut self, base: Gpr, disp: i32, imm: u32) {
        self.rm_mem(false, &[0x81], 7, base, disp);
        self.put(imm.to_le_bytes());
    }
    /// So many bytes of an instruction end at a multiple of four afterwards.
    pub(super) fn pad_before(&mut self, bytes: usize) {
        const NOPS: [&[u8]; 4] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]];
        let n = (4 - (self.offset() + bytes) % 4) % 4;
        self.put_bytes(Bytes::NONE.with_all(NOPS[n]));
    }
    pub(super) fn mov_at_imm(&mut self, w: bool, at: Place, imm: i32) {
        self.rm_at(w, &[0xc7], 0, at);
        self.put(imm.to_le_bytes());
    }
    pub(super) fn mov_mem8_imm(&mut self, base: Gpr, disp: i32, imm: i8) {
        self.rm_mem(false, &[0xc6], 0, base, disp);
        self.put([imm as u8]);
    }
    /// `mov r32, imm32`.
    pub(super) fn mov_imm32(&mut self, d: Gpr, imm: u32) {
        let opcode = Bytes::NONE.with_rex(false, 0, Place::at(d, 0), false).with(0xb8 | d & 7);
        self.put_bytes(opcode.with_all(&imm.to_le_bytes()));
    }
    /// `mov r64, imm32`, sign-extended.
    pub(super) fn mov_signed32(&mut self, d: Gpr, imm: i32) {
        self.put_bytes(Self::reg_bytes(true, 0xc7, 0, d).with_all(&imm.to_le_bytes()));
    }
    /// `mov r64, imm64`.
    pub(super) fn mov_imm64(&mut self, d: Gpr, imm: u64) {
        self.put([0x48 | d >> 3, 0xb8 | d & 7]);
        self.put(imm.to_le_bytes());
    }
    pub(super) fn shift_imm(&mut self, op: Shift, w: bool, d: Gpr, n: u8) {
        let number = match op {
            Shift::Ror => 1,
            Shift::Shl => 4,
            Shift::Shr => 5,
            Shift::Sar => 7,
        };
        self.put_bytes(Self::reg_bytes(w, 0xc1, number, d).with(n));
    }

    /// `opcode xmm, [place]` in VEX.128 of map 0F, no second source.
    pub(super) fn vex_at(&mut self, pp: Pp, opcode: u8, x: Xmm, at: Place) {
        let not = |bit: u8, reg: u8| if reg < 8 { bit } else { 0 };
        let not_r = not(0x80, x);
        let index = at.index_number();
        let vex = if at.base < 8 && index < 8 {
            Bytes::NONE.with_all(&[0xc5, not_r | 0x78 | pp as u8, opcode])
        } else {
            let map = not_r | not(0x40, index) | not(0x20, at.base) | 1;
            Bytes::NONE.with_all(&[0xc4, map, 0x78 | pp as u8, opcode])
        };
        self.put_mem(vex, x, at);
    }
}
