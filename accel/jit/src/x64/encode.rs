//! The forms of instructions that most generated code consists of, encoded here in their shortest way: no REX prefix
//! where none is needed, no SIB byte, no displacement of zero (Intel SDM volume 2, chapter 2). dynasm, given registers
//! at run time, always emits the longest.

use super::asm::{Alu, Asm, Gpr, Shift, Xmm};

/// The mandatory prefix of an SSE/AVX encoding, as the pp field of VEX.
#[derive(Clone, Copy)]
pub(super) enum Pp {
    None = 0,
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

impl Asm {
    fn put(&mut self, bytes: &[u8]) {
        self.ops.extend(bytes);
    }

    fn rex(&mut self, w: bool, reg: u8, rm: u8, byte_reg: bool) {
        self.rex_at(w, reg, Place::at(rm, 0), byte_reg);
    }
    fn rex_at(&mut self, w: bool, reg: u8, at: Place, byte_reg: bool) {
        let rex = (w as u8) << 3 | (reg >> 3) << 2 | (at.index_number() >> 3) << 1 | at.base >> 3;
        if rex != 0 || byte_reg {
            self.put(&[0x40 | rex]);
        }
    }

    /// ModRM, SIB and displacement.
    fn mem_operand(&mut self, reg: u8, at: Place) {
        let (r, b) = ((reg & 7) << 3, at.base & 7);
        let short = i8::try_from(at.disp);
        let mode = match short {
            Ok(0) if b != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        match at.index {
            // The index that means none.
            None if b == 4 => self.put(&[mode | r | 4, 0x24]),
            None => self.put(&[mode | r | b]),
            Some(x) => self.put(&[mode | r | 4, (x & 7) << 3 | b]),
        }
        match (mode, short) {
            (0, _) => {}
            (0x40, Ok(d)) => self.put(&[d as u8]),
            _ => self.put(&at.disp.to_le_bytes()),
        }
    }

    /// `opcode reg, [place]` or the other way round, as the opcode says.
    pub(super) fn rm_at(&mut self, w: bool, opcode: &[u8], reg: u8, at: Place) {
        self.rex_at(w, reg, at, false);
        self.put(opcode);
        self.mem_operand(reg, at);
    }
    /// The same with a register of 8 bits.
    pub(super) fn rm_at8(&mut self, opcode: &[u8], reg: u8, at: Place) {
        self.rex_at(false, reg, at, reg >= 4);
        self.put(opcode);
        self.mem_operand(reg, at);
    }
    /// The same with the 16-bit operand size prefix.
    pub(super) fn rm_at16(&mut self, opcode: &[u8], reg: u8, at: Place) {
        self.put(&[0x66]);
        self.rm_at(false, opcode, reg, at);
    }
    /// `opcode reg, [base + disp]`.
    pub(super) fn rm_mem(&mut self, w: bool, opcode: &[u8], reg: u8, base: Gpr, disp: i32) {
        self.rm_at(w, opcode, reg, Place::at(base, disp));
    }
    /// `opcode reg, rm` between registers.
    pub(super) fn rm_reg(&mut self, w: bool, opcode: u8, reg: u8, rm: u8) {
        self.rex(w, reg, rm, false);
        self.put(&[opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
    }

    pub(super) fn alu_reg(&mut self, op: Alu, w: bool, a: Gpr, b: Gpr) {
        self.rm_reg(w, op.number() << 3 | 3, a, b);
    }
    pub(super) fn alu_imm(&mut self, op: Alu, w: bool, a: Gpr, imm: i32) {
        match i8::try_from(imm) {
            Ok(x) => {
                self.rm_reg(w, 0x83, op.number(), a);
                self.put(&[x as u8]);
            }
            Err(_) => {
                self.rm_reg(w, 0x81, op.number(), a);
                self.put(&imm.to_le_bytes());
            }
        }
    }
    pub(super) fn alu_mem(&mut self, op: Alu, w: bool, a: Gpr, base: Gpr, disp: i32) {
        self.rm_mem(w, &[op.number() << 3 | 3], a, base, disp);
    }
    /// `op dword [base + disp], imm`.
    pub(super) fn alu_mem_imm8(&mut self, op: Alu, base: Gpr, disp: i32, imm: i8) {
        self.rm_mem(false, &[0x83], op.number(), base, disp);
        self.put(&[imm as u8]);
    }
    /// `cmp dword [base + disp], imm32` with an immediate of 0 that can be patched, [`CMP_WORD_IMMEDIATE`] bytes from here; base is
    /// one of the first eight registers but rsp.
    pub(super) fn cmp_mem32_patched(&mut self, base: Gpr, disp: i32) {
        self.put(&[0x81, 0xb8 | base & 7]);
        self.put(&disp.to_le_bytes());
        self.put(&[0; 4]);
    }
    pub(super) fn cmp_mem32_word(&mut self, base: Gpr, disp: i32, imm: u32) {
        self.rm_mem(false, &[0x81], 7, base, disp);
        self.put(&imm.to_le_bytes());
    }
    /// So many bytes of an instruction end at a multiple of four afterwards.
    pub(super) fn pad_before(&mut self, bytes: usize) {
        const NOPS: [&[u8]; 4] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]];
        let n = (4 - (self.offset() + bytes) % 4) % 4;
        self.put(NOPS[n]);
    }
    pub(super) fn mov_at_imm(&mut self, w: bool, at: Place, imm: i32) {
        self.rm_at(w, &[0xc7], 0, at);
        self.put(&imm.to_le_bytes());
    }
    pub(super) fn mov_mem8_imm(&mut self, base: Gpr, disp: i32, imm: i8) {
        self.rm_mem(false, &[0xc6], 0, base, disp);
        self.put(&[imm as u8]);
    }
    /// `mov r32, imm32`.
    pub(super) fn mov_imm32(&mut self, d: Gpr, imm: u32) {
        self.rex(false, 0, d, false);
        self.put(&[0xb8 | d & 7]);
        self.put(&imm.to_le_bytes());
    }
    pub(super) fn shift_imm(&mut self, op: Shift, w: bool, d: Gpr, n: u8) {
        let number = match op {
            Shift::Ror => 1,
            Shift::Shl => 4,
            Shift::Shr => 5,
            Shift::Sar => 7,
        };
        self.rm_reg(w, 0xc1, number, d);
        self.put(&[n]);
    }

    /// `opcode xmm, [place]` in VEX.128 of map 0F, no second source.
    pub(super) fn vex_at(&mut self, pp: Pp, opcode: u8, x: Xmm, at: Place) {
        let not = |bit: u8, reg: u8| if reg < 8 { bit } else { 0 };
        let not_r = not(0x80, x);
        let index = at.index_number();
        if at.base < 8 && index < 8 {
            self.put(&[0xc5, not_r | 0x78 | pp as u8, opcode]);
        } else {
            self.put(&[0xc4, not_r | not(0x40, index) | not(0x20, at.base) | 1, 0x78 | pp as u8, opcode]);
        }
        self.mem_operand(x, at);
    }
}
