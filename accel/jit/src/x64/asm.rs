//! One method per machine instruction form the back end uses, on dynasm. Registers are numbers as the host encodes
//! them (0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8–15; vectors 0–15).
#![expect(clippy::useless_conversion, reason = "in what dynasm! expands to")]

use super::encode::{Place, Pp};
use dynasmrt::{DynasmApi, SimpleAssembler, dynasm};
use std::cell::Cell;

pub type Gpr = u8;
pub type Xmm = u8;

/// Host condition codes as encoded in Jcc/SETcc/CMOVcc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cc {
    O = 0,
    No = 1,
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    Be = 6,
    A = 7,
    S = 8,
    Ns = 9,
    P = 10,
    Np = 11,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Cc {
    pub const fn invert(self) -> Cc {
        match self {
            Cc::O => Cc::No,
            Cc::No => Cc::O,
            Cc::B => Cc::Ae,
            Cc::Ae => Cc::B,
            Cc::E => Cc::Ne,
            Cc::Ne => Cc::E,
            Cc::Be => Cc::A,
            Cc::A => Cc::Be,
            Cc::S => Cc::Ns,
            Cc::Ns => Cc::S,
            Cc::P => Cc::Np,
            Cc::Np => Cc::P,
            Cc::L => Cc::Ge,
            Cc::Ge => Cc::L,
            Cc::Le => Cc::G,
            Cc::G => Cc::Le,
        }
    }
}

/// Arithmetic of the 0x00–0x38 opcode group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Ror,
}

/// A place in the code, perhaps one that comes later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(u32);

/// Where a label is that is not bound yet.
const UNBOUND: u32 = u32::MAX;

pub struct Asm {
    pub(super) ops: SimpleAssembler,
    /// Offsets by label.
    labels: Vec<u32>,
    /// Where displacements of four bytes are, counted from their end, and to what.
    fixups: Vec<(u32, Label)>,
}

thread_local! {
    /// The memory of the last one that was finished.
    static SPARE: Cell<Option<Asm>> = const { Cell::new(None) };
}

macro_rules! d {
    ($s:expr; $($t:tt)*) => { dynasm!($s.ops ; .arch x64 ; $($t)*) };
}

/// Defines methods on three vector registers.
macro_rules! avx3 {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, d: Xmm, a: Xmm, b: Xmm) { d!(self; $name Rx(d), Rx(a), Rx(b)) }
    )* };
}
/// Defines methods on two vector registers.
macro_rules! avx2op {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, d: Xmm, a: Xmm) { d!(self; $name Rx(d), Rx(a)) }
    )* };
}
/// Defines methods on two vector registers and an 8-bit immediate.
macro_rules! avx2imm {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, d: Xmm, a: Xmm, imm: u8) { d!(self; $name Rx(d), Rx(a), imm as i8) }
    )* };
}
macro_rules! avx3imm {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, d: Xmm, a: Xmm, b: Xmm, imm: u8) { d!(self; $name Rx(d), Rx(a), Rx(b), imm as i8) }
    )* };
}
/// Two general registers, both widths.
macro_rules! gpr2 {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, w: bool, d: Gpr, s: Gpr) {
            if w { d!(self; $name Rq(d), Rq(s)) } else { d!(self; $name Rd(d), Rd(s)) }
        }
    )* };
}
macro_rules! gpr1 {
    ($($name:ident),* $(,)?) => { $(
        pub fn $name(&mut self, w: bool, d: Gpr) {
            if w { d!(self; $name Rq(d)) } else { d!(self; $name Rd(d)) }
        }
    )* };
}

impl Default for Asm {
    fn default() -> Self {
        Self::new()
    }
}

impl Asm {
    pub fn new() -> Asm {
        if let Some(mut asm) = SPARE.take() {
            asm.ops.ops.clear();
            asm.labels.clear();
            asm.fixups.clear();
            return asm;
        }
        Asm { ops: SimpleAssembler { ops: Vec::with_capacity(4096) }, labels: Vec::new(), fixups: Vec::new() }
    }
    /// The code, with labels resolved, and the displacements that lead from before offset `cold` to what is from there on, or back. What
    /// leads to a label that was never bound traps.
    pub fn finish(mut self, cold: u32) -> (Box<[u8]>, Box<[u32]>) {
        let code = &mut self.ops.ops;
        let trap = code.len();
        let mut crossings = Vec::with_capacity(16);
        for &(at, label) in &self.fixups {
            let to = match self.labels.get(label.0 as usize) {
                Some(&to) if to != UNBOUND => to,
                _ => trap as u32,
            };
            if (at < cold) != (to < cold) {
                crossings.push(at);
            }
            if let Some(field) = code.get_mut(at as usize..at as usize + 4) {
                field.copy_from_slice(&to.wrapping_sub(at + 4).to_le_bytes());
            }
        }
        if self.labels.contains(&UNBOUND) {
            code.extend_from_slice(&[0x0f, 0x0b]);
        }
        let bytes = Box::from(&code[..]);
        SPARE.set(Some(self));
        (bytes, crossings.into())
    }
    pub fn offset(&self) -> usize {
        self.ops.ops.len()
    }
    pub fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }
    pub fn bind(&mut self, l: Label) {
        self.labels[l.0 as usize] = self.ops.ops.len() as u32;
    }
    /// Where a label is bound.
    pub fn place_of(&self, l: Label) -> Option<u32> {
        self.labels.get(l.0 as usize).copied().filter(|&at| at != UNBOUND)
    }
    /// A displacement to a label, counted from its end.
    pub(super) fn displacement(&mut self, l: Label) {
        self.fixups.push((self.ops.ops.len() as u32, l));
        self.ops.ops.extend_from_slice(&[0; 4]);
    }
    pub fn align(&mut self, n: usize) {
        while !self.offset().is_multiple_of(n) {
            d!(self; nop);
        }
    }

    // ---- moves ----
    pub fn mov_rr(&mut self, w: bool, dst: Gpr, src: Gpr) {
        self.rm_reg(w, 0x8b, dst, src);
    }
    /// Shortest form; does not change flags.
    pub fn mov_ri(&mut self, dst: Gpr, v: u64) {
        if v <= u32::MAX as u64 {
            self.mov_imm32(dst, v as u32)
        } else if v as i64 >= i32::MIN as i64 && (v as i64) < 0 {
            self.mov_signed32(dst, v as i32)
        } else {
            self.mov_imm64(dst, v)
        }
    }
    pub fn load(&mut self, w: bool, dst: Gpr, base: Gpr, disp: i32) {
        self.rm_mem(w, &[0x8b], dst, base, disp);
    }
    pub fn store(&mut self, w: bool, base: Gpr, disp: i32, src: Gpr) {
        self.rm_mem(w, &[0x89], src, base, disp);
    }
    pub fn store8(&mut self, base: Gpr, disp: i32, src: Gpr) {
        self.store8_at(Place::at(base, disp), src);
    }
    /// Stores a sign-extended 32-bit immediate.
    pub fn store_imm(&mut self, w: bool, base: Gpr, disp: i32, imm: i32) {
        self.mov_at_imm(w, Place::at(base, disp), imm);
    }
    pub fn store8_imm(&mut self, base: Gpr, disp: i32, imm: i8) {
        self.mov_mem8_imm(base, disp, imm);
    }
    pub fn load_u8(&mut self, dst: Gpr, base: Gpr, disp: i32) {
        self.load_u8_at(dst, Place::at(base, disp));
    }
    pub fn load_u16(&mut self, dst: Gpr, base: Gpr, disp: i32) {
        self.load_u16_at(dst, Place::at(base, disp));
    }
    pub(super) fn load_at(&mut self, w: bool, dst: Gpr, at: Place) {
        self.rm_at(w, &[0x8b], dst, at);
    }
    pub(super) fn load_u8_at(&mut self, dst: Gpr, at: Place) {
        self.rm_at(false, &[0x0f, 0xb6], dst, at);
    }
    pub(super) fn load_u16_at(&mut self, dst: Gpr, at: Place) {
        self.rm_at(false, &[0x0f, 0xb7], dst, at);
    }
    pub(super) fn load_s8_at(&mut self, w: bool, dst: Gpr, at: Place) {
        self.rm_at(w, &[0x0f, 0xbe], dst, at);
    }
    pub(super) fn load_s16_at(&mut self, w: bool, dst: Gpr, at: Place) {
        self.rm_at(w, &[0x0f, 0xbf], dst, at);
    }
    pub(super) fn load_s32_at(&mut self, dst: Gpr, at: Place) {
        self.rm_at(true, &[0x63], dst, at);
    }
    pub(super) fn store_at(&mut self, w: bool, at: Place, src: Gpr) {
        self.rm_at(w, &[0x89], src, at);
    }
    pub(super) fn store8_at(&mut self, at: Place, src: Gpr) {
        self.rm_at8(&[0x88], src, at);
    }
    pub(super) fn store16_at(&mut self, at: Place, src: Gpr) {
        self.rm_at16(&[0x89], src, at);
    }
    pub(super) fn lea_at(&mut self, dst: Gpr, at: Place) {
        self.rm_at(true, &[0x8d], dst, at);
    }
    pub fn lea(&mut self, dst: Gpr, base: Gpr, disp: i32) {
        self.rm_mem(true, &[0x8d], dst, base, disp);
    }
    pub fn lea_idx(&mut self, w: bool, dst: Gpr, base: Gpr, index: Gpr) {
        if w { d!(self; lea Rq(dst), [Rq(base) + Rq(index)]) } else { d!(self; lea Rd(dst), [Rq(base) + Rq(index)]) }
    }
    pub fn lea_idx_scaled(&mut self, w: bool, dst: Gpr, base: Gpr, index: Gpr, shift: u32) {
        match (w, shift) {
            (true, 1) => d!(self; lea Rq(dst), [Rq(base) + Rq(index) * 2]),
            (true, 2) => d!(self; lea Rq(dst), [Rq(base) + Rq(index) * 4]),
            (true, 3) => d!(self; lea Rq(dst), [Rq(base) + Rq(index) * 8]),
            (false, 1) => d!(self; lea Rd(dst), [Rq(base) + Rq(index) * 2]),
            (false, 2) => d!(self; lea Rd(dst), [Rq(base) + Rq(index) * 4]),
            (false, 3) => d!(self; lea Rd(dst), [Rq(base) + Rq(index) * 8]),
            _ => self.lea_idx(w, dst, base, index),
        }
    }
    pub fn lea32(&mut self, dst: Gpr, base: Gpr, disp: i32) {
        self.rm_mem(false, &[0x8d], dst, base, disp);
    }
    /// Address of a label.
    pub fn lea_label(&mut self, dst: Gpr, l: Label) {
        self.ops.ops.extend_from_slice(&[0x48 | dst >> 3 << 2, 0x8d, (dst & 7) << 3 | 5]);
        self.displacement(l);
    }

    // ---- arithmetic ----
    pub fn alu_rr(&mut self, op: Alu, w: bool, a: Gpr, b: Gpr) {
        self.alu_reg(op, w, a, b);
    }
    pub fn alu_ri(&mut self, op: Alu, w: bool, a: Gpr, imm: i32) {
        self.alu_imm(op, w, a, imm);
    }
    /// Register with memory.
    pub fn alu_rm(&mut self, op: Alu, w: bool, a: Gpr, base: Gpr, disp: i32) {
        self.alu_mem(op, w, a, base, disp);
    }
    pub fn cmp_mem32_imm(&mut self, base: Gpr, disp: i32, imm: i8) {
        self.alu_mem_imm8(Alu::Cmp, base, disp, imm);
    }
    pub fn test_rr(&mut self, w: bool, a: Gpr, b: Gpr) {
        self.rm_reg(w, 0x85, b, a);
    }
    pub fn test_ri(&mut self, w: bool, a: Gpr, imm: i32) {
        if w { d!(self; test Rq(a), DWORD imm) } else { d!(self; test Rd(a), DWORD imm) }
    }
    gpr2!(lzcnt, tzcnt, popcnt);
    pub fn imul(&mut self, w: bool, d: Gpr, s: Gpr) {
        if w { d!(self; imul Rq(d), Rq(s)) } else { d!(self; imul Rd(d), Rd(s)) }
    }
    pub fn imul_rri(&mut self, w: bool, d: Gpr, s: Gpr, imm: i32) {
        if w { d!(self; imul Rq(d), Rq(s), DWORD imm) } else { d!(self; imul Rd(d), Rd(s), DWORD imm) }
    }
    gpr1!(neg, not, bswap);
    /// rdx:rax = rax × s, signed.
    pub fn imul1(&mut self, s: Gpr) {
        d!(self; imul Rq(s))
    }
    pub fn mul1(&mut self, s: Gpr) {
        d!(self; mul Rq(s))
    }
    pub fn div(&mut self, w: bool, s: Gpr) {
        if w { d!(self; div Rq(s)) } else { d!(self; div Rd(s)) }
    }
    pub fn idiv(&mut self, w: bool, s: Gpr) {
        if w { d!(self; idiv Rq(s)) } else { d!(self; idiv Rd(s)) }
    }
    /// Sign of rax into rdx.
    pub fn cqo(&mut self, w: bool) {
        if w { d!(self; cqo) } else { d!(self; cdq) }
    }
    pub fn shift_i(&mut self, op: Shift, w: bool, d: Gpr, n: u8) {
        self.shift_imm(op, w, d, n);
    }
    /// Shift by a register; for [`Shift::Ror`] the amount must be in cl and `d` = `a`.
    pub fn shift_r(&mut self, op: Shift, w: bool, d: Gpr, a: Gpr, n: Gpr) {
        match (op, w) {
            (Shift::Shl, true) => d!(self; shlx Rq(d), Rq(a), Rq(n)),
            (Shift::Shl, false) => d!(self; shlx Rd(d), Rd(a), Rd(n)),
            (Shift::Shr, true) => d!(self; shrx Rq(d), Rq(a), Rq(n)),
            (Shift::Shr, false) => d!(self; shrx Rd(d), Rd(a), Rd(n)),
            (Shift::Sar, true) => d!(self; sarx Rq(d), Rq(a), Rq(n)),
            (Shift::Sar, false) => d!(self; sarx Rd(d), Rd(a), Rd(n)),
            (Shift::Ror, true) => d!(self; ror Rq(d), cl),
            (Shift::Ror, false) => d!(self; ror Rd(d), cl),
        }
    }
    /// `d = a ror n`, flags kept.
    pub fn rorx(&mut self, w: bool, d: Gpr, a: Gpr, n: u8) {
        if w { d!(self; rorx Rq(d), Rq(a), n as i8) } else { d!(self; rorx Rd(d), Rd(a), n as i8) }
    }
    /// `d = a & !b` is ANDN with the complemented operand first.
    pub fn andn(&mut self, w: bool, d: Gpr, not: Gpr, b: Gpr) {
        if w { d!(self; andn Rq(d), Rq(not), Rq(b)) } else { d!(self; andn Rd(d), Rd(not), Rd(b)) }
    }
    pub fn shrd(&mut self, w: bool, lo: Gpr, hi: Gpr, n: u8) {
        if w { d!(self; shrd Rq(lo), Rq(hi), n as i8) } else { d!(self; shrd Rd(lo), Rd(hi), n as i8) }
    }
    pub fn movzx8(&mut self, d: Gpr, s: Gpr) {
        self.rm_reg_0f(false, 0xb6, d, s, true);
    }
    pub fn movzx16(&mut self, d: Gpr, s: Gpr) {
        self.rm_reg_0f(false, 0xb7, d, s, false);
    }
    pub fn movsx8(&mut self, w: bool, d: Gpr, s: Gpr) {
        self.rm_reg_0f(w, 0xbe, d, s, true);
    }
    pub fn movsx16(&mut self, w: bool, d: Gpr, s: Gpr) {
        self.rm_reg_0f(w, 0xbf, d, s, false);
    }
    pub fn movsxd(&mut self, d: Gpr, s: Gpr) {
        d!(self; movsxd Rq(d), Rd(s))
    }
    /// AH = flags, then OF into AL: the packed-flags format in ax.
    pub fn lahf_seto(&mut self) {
        d!(self; lahf; seto al)
    }
    /// Host flags from packed flags in ax: S, Z, C from ah; OF from al.
    pub fn flags_from_ax(&mut self) {
        d!(self; add al, BYTE 127; sahf)
    }
    pub fn cmc(&mut self) {
        d!(self; cmc)
    }
    /// CF = bit `n` of a register.
    pub fn bt(&mut self, w: bool, a: Gpr, n: u8) {
        if w { d!(self; bt Rq(a), n as i8) } else { d!(self; bt Rd(a), n as i8) }
    }
    /// `op a, b` on the low 8 or 16 bits.
    pub fn alu_narrow(&mut self, op: Alu, bits: u32, a: Gpr, b: Gpr) {
        match (op, bits) {
            (Alu::Add, 8) => d!(self; add Rb(a), Rb(b)),
            (Alu::Adc, 8) => d!(self; adc Rb(a), Rb(b)),
            (Alu::Sbb, 8) => d!(self; sbb Rb(a), Rb(b)),
            (Alu::Add, _) => d!(self; add Rw(a), Rw(b)),
            (Alu::Adc, _) => d!(self; adc Rw(a), Rw(b)),
            (Alu::Sbb, _) => d!(self; sbb Rw(a), Rw(b)),
            (_, 8) => d!(self; cmp Rb(a), Rb(b)),
            _ => d!(self; cmp Rw(a), Rw(b)),
        }
    }
    pub fn test_narrow(&mut self, bits: u32, a: Gpr, b: Gpr) {
        if bits == 8 { d!(self; test Rb(a), Rb(b)) } else { d!(self; test Rw(a), Rw(b)) }
    }
    /// Replaces the low 8 or 16 bits of `d`.
    pub fn mov_narrow(&mut self, bits: u32, d: Gpr, s: Gpr) {
        if bits == 8 { d!(self; mov Rb(d), Rb(s)) } else { d!(self; mov Rw(d), Rw(s)) }
    }
    pub fn setcc(&mut self, cc: Cc, r: Gpr) {
        self.rm_reg_0f(false, 0x90 | cc as u8, 0, r, true);
    }
    pub fn cmov(&mut self, cc: Cc, d: Gpr, s: Gpr) {
        self.rm_reg_0f(true, 0x40 | cc as u8, d, s, false);
    }
    pub fn jcc(&mut self, cc: Cc, l: Label) {
        self.ops.ops.extend_from_slice(&[0x0f, 0x80 | cc as u8]);
        self.displacement(l);
    }
    pub fn jmp(&mut self, l: Label) {
        self.ops.ops.push(0xe9);
        self.displacement(l);
    }
    pub fn jmp_reg(&mut self, r: Gpr) {
        d!(self; jmp Rq(r))
    }
    pub fn jmp_mem(&mut self, base: Gpr, disp: i32) {
        self.rm_mem(false, &[0xff], 4, base, disp);
    }
    pub(super) fn cmp_at(&mut self, a: Gpr, at: Place) {
        self.rm_at(true, &[0x3b], a, at);
    }
    pub fn call_mem(&mut self, base: Gpr, disp: i32) {
        self.rm_mem(false, &[0xff], 2, base, disp);
    }
    /// Calls an absolute address; clobbers rax.
    pub fn call_abs(&mut self, addr: usize) {
        d!(self; mov rax, QWORD addr as i64; call rax)
    }
    pub fn mfence(&mut self) {
        d!(self; mfence)
    }
    pub fn ud2(&mut self) {
        d!(self; ud2)
    }

    // ---- locked operations on [base] ----
    pub fn lock_cmpxchg(&mut self, bytes: u32, base: Gpr, src: Gpr) {
        match bytes {
            1 => d!(self; lock cmpxchg [Rq(base)], Rb(src)),
            2 => d!(self; lock cmpxchg [Rq(base)], Rw(src)),
            4 => d!(self; lock cmpxchg [Rq(base)], Rd(src)),
            _ => d!(self; lock cmpxchg [Rq(base)], Rq(src)),
        }
    }
    pub fn lock_cmpxchg16b(&mut self, base: Gpr) {
        d!(self; lock cmpxchg16b [Rq(base)])
    }
    pub fn lock_xadd(&mut self, bytes: u32, base: Gpr, src: Gpr) {
        match bytes {
            1 => d!(self; lock xadd [Rq(base)], Rb(src)),
            2 => d!(self; lock xadd [Rq(base)], Rw(src)),
            4 => d!(self; lock xadd [Rq(base)], Rd(src)),
            _ => d!(self; lock xadd [Rq(base)], Rq(src)),
        }
    }
    pub fn xchg_mem(&mut self, bytes: u32, base: Gpr, src: Gpr) {
        match bytes {
            1 => d!(self; xchg [Rq(base)], Rb(src)),
            2 => d!(self; xchg [Rq(base)], Rw(src)),
            4 => d!(self; xchg [Rq(base)], Rd(src)),
            _ => d!(self; xchg [Rq(base)], Rq(src)),
        }
    }

    // ---- vector moves ----
    pub fn vmovaps(&mut self, d: Xmm, s: Xmm) {
        d!(self; vmovaps Rx(d), Rx(s))
    }
    pub fn vload(&mut self, bytes: u32, d: Xmm, base: Gpr, disp: i32) {
        self.vload_at(bytes, d, Place::at(base, disp));
    }
    pub fn vstore(&mut self, bytes: u32, base: Gpr, disp: i32, s: Xmm) {
        self.vstore_at(bytes, Place::at(base, disp), s);
    }
    pub(super) fn vload_at(&mut self, bytes: u32, d: Xmm, at: Place) {
        self.vex_at(Pp::of_move(bytes), 0x10, d, at);
    }
    pub(super) fn vstore_at(&mut self, bytes: u32, at: Place, s: Xmm) {
        self.vex_at(Pp::of_move(bytes), 0x11, s, at);
    }
    /// General to vector register, upper part zero.
    pub fn vmov_from_gpr(&mut self, w: bool, d: Xmm, s: Gpr) {
        if w { d!(self; vmovq Rx(d), Rq(s)) } else { d!(self; vmovd Rx(d), Rd(s)) }
    }
    pub fn vmov_to_gpr(&mut self, w: bool, d: Gpr, s: Xmm) {
        if w { d!(self; vmovq Rq(d), Rx(s)) } else { d!(self; vmovd Rd(d), Rx(s)) }
    }
    /// Low 64 bits, upper cleared.
    pub fn vmovq(&mut self, d: Xmm, s: Xmm) {
        d!(self; vmovq Rx(d), Rx(s))
    }
    pub fn vpextr(&mut self, bytes: u32, d: Gpr, s: Xmm, i: u8) {
        match bytes {
            1 => d!(self; vpextrb Rd(d), Rx(s), i as i8),
            2 => d!(self; vpextrw Rd(d), Rx(s), i as i8),
            4 => d!(self; vpextrd Rd(d), Rx(s), i as i8),
            _ => d!(self; vpextrq Rq(d), Rx(s), i as i8),
        }
    }
    pub fn vpinsr(&mut self, bytes: u32, d: Xmm, a: Xmm, s: Gpr, i: u8) {
        match bytes {
            1 => d!(self; vpinsrb Rx(d), Rx(a), Rd(s), i as i8),
            2 => d!(self; vpinsrw Rx(d), Rx(a), Rd(s), i as i8),
            4 => d!(self; vpinsrd Rx(d), Rx(a), Rd(s), i as i8),
            _ => d!(self; vpinsrq Rx(d), Rx(a), Rq(s), i as i8),
        }
    }
    /// An instruction of VEX.128 and map 0F with an operand at a label, and the first source if it has one (else 0).
    fn vex_label(&mut self, pp: Pp, opcode: u8, d: Xmm, a: Xmm, l: Label) {
        let vex = (!d >> 3 & 1) << 7 | (!a & 15) << 3 | pp as u8;
        self.ops.ops.extend_from_slice(&[0xc5, vex, opcode, (d & 7) << 3 | 5]);
        self.displacement(l);
    }
    /// Loads 16 bytes at a label of this code.
    pub fn vload_label(&mut self, d: Xmm, l: Label) {
        self.vex_label(Pp::None, 0x10, d, 0, l);
    }
    /// Bitwise and with 16 bytes at a label.
    pub fn vandps_label(&mut self, d: Xmm, a: Xmm, l: Label) {
        self.vex_label(Pp::None, 0x54, d, a, l);
    }
    /// Quiet compare of the lowest lane with the number at a label.
    pub fn vucomi_label(&mut self, double: bool, a: Xmm, l: Label) {
        self.vex_label(if double { Pp::P66 } else { Pp::None }, 0x2e, a, 0, l);
    }
    avx3!(
        vpand,
        vpor,
        vpxor,
        vpandn,
        vpaddb,
        vpaddw,
        vpaddd,
        vpaddq,
        vpsubb,
        vpsubw,
        vpsubd,
        vpsubq,
        vpmullw,
        vpmulld,
        vpminsb,
        vpminsw,
        vpminsd,
        vpminub,
        vpminuw,
        vpminud,
        vpmaxsb,
        vpmaxsw,
        vpmaxsd,
        vpmaxub,
        vpmaxuw,
        vpmaxud,
        vpcmpeqb,
        vpcmpeqw,
        vpcmpeqd,
        vpcmpeqq,
        vpcmpgtb,
        vpcmpgtw,
        vpcmpgtd,
        vpcmpgtq,
        vpaddsb,
        vpaddsw,
        vpaddusb,
        vpaddusw,
        vpsubsb,
        vpsubsw,
        vpsubusb,
        vpsubusw,
        vpavgb,
        vpavgw,
        vpshufb,
        vpunpcklbw,
        vpunpcklwd,
        vpunpckldq,
        vpunpcklqdq,
        vpunpckhbw,
        vpunpckhwd,
        vpunpckhdq,
        vpunpckhqdq,
        vpackuswb,
        vpackusdw,
        vpmuludq,
        vpmuldq,
        vaddps,
        vaddpd,
        vaddss,
        vaddsd,
        vsubps,
        vsubpd,
        vsubss,
        vsubsd,
        vmulps,
        vmulpd,
        vmulss,
        vmulsd,
        vdivps,
        vdivpd,
        vdivss,
        vdivsd,
        vminps,
        vminpd,
        vminss,
        vminsd,
        vmaxps,
        vmaxpd,
        vmaxss,
        vmaxsd,
        vsqrtss,
        vsqrtsd,
        vfmadd231ps,
        vfmadd231ss,
        vfmadd231sd,
        vandps,
        vorps,
        vxorps,
        vandnps,
        vcvtss2sd,
        vcvtsd2ss,
    );
    avx2op!(
        vpabsb,
        vpabsw,
        vpabsd,
        vsqrtps,
        vsqrtpd,
        vcvtdq2ps,
        vcvtdq2pd,
        vcvtps2pd,
        vcvtpd2ps,
        vcvttps2dq,
        vucomiss,
        vucomisd,
        vcomiss,
        vcomisd,
        vpmovsxbw,
        vpmovsxwd,
        vpmovsxdq,
        vpmovzxbw,
        vpmovzxwd,
        vpmovzxdq,
        vptest,
        vpbroadcastb,
        vpbroadcastw,
        vpbroadcastd,
        vpbroadcastq
    );
    avx2imm!(
        vpsllw, vpslld, vpsllq, vpsrlw, vpsrld, vpsrlq, vpsraw, vpsrad, vpslldq, vpsrldq, vpshufd, vpshuflw, vpshufhw,
        vroundps, vroundpd
    );
    avx3imm!(vroundss, vroundsd, vinsertps);
    /// `d = a * b + d`, lanes of double. By hand: the assembler leaves out VEX.W.
    pub fn vfmadd231pd(&mut self, d: Xmm, a: Xmm, b: Xmm) {
        let vex1 = (!(d >> 3) & 1) << 7 | 1 << 6 | (!(b >> 3) & 1) << 5 | 2;
        let vex2 = 0x80 | (!a & 15) << 3 | 1;
        self.bytes(&[0xc4, vex1, vex2, 0xb8, 0xc0 | (d & 7) << 3 | (b & 7)]);
    }
    // The assembler takes the two sources of the next four in the other order (see the test).

    /// `d` = 16 bytes of `a:b` from byte `imm` of `b` on.
    pub fn vpalignr(&mut self, d: Xmm, a: Xmm, b: Xmm, imm: u8) {
        d!(self; vpalignr Rx(d), Rx(b), Rx(a), imm as i8)
    }
    /// 16-bit lanes of `b` where `imm` has a bit, else of `a`.
    pub fn vpblendw(&mut self, d: Xmm, a: Xmm, b: Xmm, imm: u8) {
        d!(self; vpblendw Rx(d), Rx(b), Rx(a), imm as i8)
    }
    /// `d = compare(a, b)` lane by lane.
    pub fn vcmpps(&mut self, d: Xmm, a: Xmm, b: Xmm, imm: u8) {
        d!(self; vcmpps Rx(d), Rx(b), Rx(a), imm as i8)
    }
    pub fn vcmppd(&mut self, d: Xmm, a: Xmm, b: Xmm, imm: u8) {
        d!(self; vcmppd Rx(d), Rx(b), Rx(a), imm as i8)
    }
    pub fn vblendv(&mut self, d: Xmm, a: Xmm, b: Xmm, mask: Xmm) {
        d!(self; vpblendvb Rx(d), Rx(a), Rx(b), Rx(mask))
    }
    /// Truncating conversion to signed integer.
    pub fn vcvtt2si(&mut self, double: bool, w: bool, d: Gpr, s: Xmm) {
        match (double, w) {
            (true, true) => d!(self; vcvttsd2si Rq(d), Rx(s)),
            (true, false) => d!(self; vcvttsd2si Rd(d), Rx(s)),
            (false, true) => d!(self; vcvttss2si Rq(d), Rx(s)),
            (false, false) => d!(self; vcvttss2si Rd(d), Rx(s)),
        }
    }
    pub fn vcvtsi2f(&mut self, double: bool, w: bool, d: Xmm, a: Xmm, s: Gpr) {
        match (double, w) {
            (true, true) => d!(self; vcvtsi2sd Rx(d), Rx(a), Rq(s)),
            (true, false) => d!(self; vcvtsi2sd Rx(d), Rx(a), Rd(s)),
            (false, true) => d!(self; vcvtsi2ss Rx(d), Rx(a), Rq(s)),
            (false, false) => d!(self; vcvtsi2ss Rx(d), Rx(a), Rd(s)),
        }
    }
    pub fn stmxcsr(&mut self, base: Gpr, disp: i32) {
        d!(self; vstmxcsr DWORD [DWORD Rq(base) + disp])
    }
    pub fn ldmxcsr(&mut self, base: Gpr, disp: i32) {
        d!(self; vldmxcsr DWORD [DWORD Rq(base) + disp])
    }
    pub fn push(&mut self, r: Gpr) {
        d!(self; push Rq(r))
    }
    pub fn pop(&mut self, r: Gpr) {
        d!(self; pop Rq(r))
    }
    pub fn ret(&mut self) {
        d!(self; ret)
    }
    pub fn bytes(&mut self, b: &[u8]) {
        self.ops.ops.extend_from_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::Asm;

    #[test]
    fn compare_operand_order() {
        let mut a = Asm::new();
        a.vcmpps(1, 2, 3, 0x0d);
        // VEX.vvvv holds the first source (inverted), ModRM.rm the second.
        a.vpalignr(1, 2, 3, 4);
        a.vpblendw(1, 2, 3, 4);
        a.vinsertps(1, 2, 3, 4);
        let code = a.finish(u32::MAX).0;
        assert_eq!(code[..6], [0xc4, 0xe1, 0x68, 0xc2, 0xcb, 0x0d]);
        assert_eq!(code[6..12], [0xc4, 0xe3, 0x69, 0x0f, 0xcb, 4]);
        assert_eq!(code[12..18], [0xc4, 0xe3, 0x69, 0x0e, 0xcb, 4]);
        assert_eq!(code[18..24], [0xc4, 0xe3, 0x69, 0x21, 0xcb, 4]);
    }
}
