//! Integer instructions that are rare or have no place in the IR: wide division, decimal adjustment, rotates through carry.

use crate::exception::Vector;
use crate::flags::{self, packed};
use crate::helpers::INTEGER_BASE;
use crate::state::{X86Cpu, gpr};
use rhea_ir::Effects;

crate::helpers! {
    base INTEGER_BASE;
    /// CF, PF, AF, ZF, SF and OF as in EFLAGS.
    STATUS_FLAGS = status_flags, () -> I32, Effects::READS_STATE;
    /// Sets CF, PF, AF, ZF and SF from AH.
    SET_STATUS_LOW = set_status_low, (I32) -> Void, Effects::WRITES_STATE;
    /// RDX:RAX and EDX:EAX by the argument.
    DIV32 = div32, (I64) -> Void, Effects::WRITES_STATE.union(Effects::RAISES);
    IDIV32 = idiv32, (I64) -> Void, Effects::WRITES_STATE.union(Effects::RAISES);
    DIV64 = div64, (I64) -> Void, Effects::WRITES_STATE.union(Effects::RAISES);
    IDIV64 = idiv64, (I64) -> Void, Effects::WRITES_STATE.union(Effects::RAISES);
    /// Decimal adjustments of AL and AH; the argument is the immediate of AAD and AAM.
    AAA = aaa, (I64) -> Void, Effects::WRITES_STATE;
    AAS = aas, (I64) -> Void, Effects::WRITES_STATE;
    DAA = daa, (I64) -> Void, Effects::WRITES_STATE;
    DAS = das, (I64) -> Void, Effects::WRITES_STATE;
    AAD = aad, (I64) -> Void, Effects::WRITES_STATE;
    AAM = aam, (I64) -> Void, Effects::WRITES_STATE;
    /// RCL, RCR: value, masked count, bits | left << 8; sets CF and OF.
    ROTATE_CARRY = rotate_carry, (I64, I64, I64) -> I64, Effects::WRITES_STATE;
    /// Source, control (start in bits 0–7, length in 8–15).
    BEXTR = bextr, (I64, I64) -> I64, Effects::PURE;
    PDEP = pdep, (I64, I64) -> I64, Effects::PURE;
    PEXT = pext, (I64, I64) -> I64, Effects::PURE;
}

extern "C" fn status_flags(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.status_flags().into()
}

extern "C" fn set_status_low(cpu: &mut X86Cpu, ah: u64, _: u64, _: u64, _: u64) -> u64 {
    let of = cpu.status_flags() & flags::OF;
    cpu.set_status_flags(ah as u32 & 0xff | of);
    0
}

fn divide_error(cpu: &mut X86Cpu) -> u64 {
    cpu.raise(Vector::DivideError, None);
    0
}

extern "C" fn div32(cpu: &mut X86Cpu, d: u64, _: u64, _: u64, _: u64) -> u64 {
    let n = u64::from(cpu.r[2] as u32) << 32 | u64::from(cpu.r[0] as u32);
    let d = u64::from(d as u32);
    let Some(q) = n.checked_div(d).filter(|&q| q <= u32::MAX.into()) else { return divide_error(cpu) };
    (cpu.r[0], cpu.r[2]) = (q, n % d);
    0
}

extern "C" fn idiv32(cpu: &mut X86Cpu, d: u64, _: u64, _: u64, _: u64) -> u64 {
    let n = (u64::from(cpu.r[2] as u32) << 32 | u64::from(cpu.r[0] as u32)) as i64;
    let d = i64::from(d as i32);
    let Some(q) = n.checked_div(d).filter(|&q| q == i64::from(q as i32)) else { return divide_error(cpu) };
    (cpu.r[0], cpu.r[2]) = (q as u32 as u64, n.wrapping_rem(d) as u32 as u64);
    0
}

extern "C" fn div64(cpu: &mut X86Cpu, d: u64, _: u64, _: u64, _: u64) -> u64 {
    let n = u128::from(cpu.r[2]) << 64 | u128::from(cpu.r[0]);
    let d = u128::from(d);
    let Some(q) = n.checked_div(d).filter(|&q| q <= u64::MAX.into()) else { return divide_error(cpu) };
    (cpu.r[0], cpu.r[2]) = (q as u64, (n % d) as u64);
    0
}

extern "C" fn idiv64(cpu: &mut X86Cpu, d: u64, _: u64, _: u64, _: u64) -> u64 {
    let n = (u128::from(cpu.r[2]) << 64 | u128::from(cpu.r[0])) as i128;
    let d = i128::from(d as i64);
    let Some(q) = n.checked_div(d).filter(|&q| q == i128::from(q as i64)) else { return divide_error(cpu) };
    (cpu.r[0], cpu.r[2]) = (q as u64, n.wrapping_rem(d) as u64);
    0
}

impl X86Cpu {
    fn set_ax(&mut self, al: u8, ah: u8) {
        let rax = &mut self.r[gpr::RAX as usize];
        *rax = *rax & !0xffff | u64::from(ah) << 8 | u64::from(al);
    }
    fn al_ah(&self) -> (u8, u8) {
        (self.r[0] as u8, (self.r[0] >> 8) as u8)
    }
    /// Flags of a decimal result: SF, ZF, PF by AL.
    fn decimal_flags(&mut self, al: u8, af: bool, cf: bool) {
        let mut f = 0;
        if al == 0 {
            f |= flags::ZF;
        }
        if al & 0x80 != 0 {
            f |= flags::SF;
        }
        if al.count_ones() & 1 == 0 {
            f |= flags::PF;
        }
        if af {
            f |= flags::AF;
        }
        if cf {
            f |= flags::CF;
        }
        self.set_status_flags(f);
    }
    fn ascii_adjust(&mut self, subtract: bool) {
        let (al, ah) = self.al_ah();
        let adjust = al & 15 > 9 || self.status_flags() & flags::AF != 0;
        let ax = u16::from(ah) << 8 | u16::from(al);
        let ax = match (adjust, subtract) {
            (false, _) => ax,
            (true, false) => ax.wrapping_add(0x106),
            (true, true) => ax.wrapping_sub(6).wrapping_sub(0x100),
        };
        self.set_ax(ax as u8 & 15, (ax >> 8) as u8);
        self.decimal_flags(ax as u8 & 15, adjust, adjust);
    }
    fn decimal_adjust(&mut self, subtract: bool) {
        let (old, ah) = self.al_ah();
        let before = self.status_flags();
        let old_cf = before & flags::CF != 0;
        let (mut al, mut cf, mut af) = (old, false, false);
        if old & 15 > 9 || before & flags::AF != 0 {
            let (v, over) = if subtract { al.overflowing_sub(6) } else { al.overflowing_add(6) };
            al = v;
            cf = old_cf || over;
            af = true;
        }
        if old > 0x99 || old_cf {
            al = if subtract { al.wrapping_sub(0x60) } else { al.wrapping_add(0x60) };
            cf = true;
        } else if !subtract {
            cf = false;
        }
        self.set_ax(al, ah);
        self.decimal_flags(al, af, cf);
    }
}

extern "C" fn aaa(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.ascii_adjust(false);
    0
}
extern "C" fn aas(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.ascii_adjust(true);
    0
}
extern "C" fn daa(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.decimal_adjust(false);
    0
}
extern "C" fn das(cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.decimal_adjust(true);
    0
}
extern "C" fn aad(cpu: &mut X86Cpu, imm: u64, _: u64, _: u64, _: u64) -> u64 {
    let (al, ah) = cpu.al_ah();
    let al = al.wrapping_add(ah.wrapping_mul(imm as u8));
    cpu.set_ax(al, 0);
    cpu.decimal_flags(al, false, false);
    0
}
extern "C" fn aam(cpu: &mut X86Cpu, imm: u64, _: u64, _: u64, _: u64) -> u64 {
    let (al, _) = cpu.al_ah();
    let base = (imm as u8).max(1);
    cpu.set_ax(al % base, al / base);
    cpu.decimal_flags(al % base, false, false);
    0
}

extern "C" fn rotate_carry(cpu: &mut X86Cpu, value: u64, count: u64, what: u64, _: u64) -> u64 {
    let bits = (what & 0xff).clamp(8, 64) as u32;
    let left = what >> 8 & 1 != 0;
    let mask = u64::MAX >> (64 - bits);
    let n = count as u32 % (bits + 1);
    if n == 0 {
        return value & mask;
    }
    // The value with CF above it.
    let carry = cpu.cf & packed::C != 0;
    let x = u128::from(value & mask) | u128::from(carry) << bits;
    let wide = bits + 1;
    let n = if left { n } else { wide - n };
    let all = (1u128 << wide) - 1;
    let r = (x << n | x >> (wide - n)) & all;
    let out = r >> bits & 1 != 0;
    let r = r as u64 & mask;
    let top = r >> (bits - 1) & 1;
    let over = if left { top ^ u64::from(out) } else { top ^ (r >> (bits - 2) & 1) };
    cpu.cf = if out { packed::C } else { 0 };
    cpu.cc = cpu.cc & !packed::V | if over != 0 { packed::V } else { 0 };
    r
}

extern "C" fn bextr(_: &mut X86Cpu, src: u64, control: u64, _: u64, _: u64) -> u64 {
    let (start, len) = (control as u8 as u32, (control >> 8) as u8 as u32);
    let v = src.checked_shr(start).unwrap_or(0);
    if len < 64 { v & ((1 << len) - 1) } else { v }
}

extern "C" fn pdep(_: &mut X86Cpu, src: u64, mask: u64, _: u64, _: u64) -> u64 {
    let (mut mask, mut bit, mut r) = (mask, 1u64, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if src & bit != 0 {
            r |= lowest;
        }
        mask ^= lowest;
        bit = bit.wrapping_shl(1);
    }
    r
}

extern "C" fn pext(_: &mut X86Cpu, src: u64, mask: u64, _: u64, _: u64) -> u64 {
    let (mut mask, mut n, mut r) = (mask, 0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if src & lowest != 0 {
            r |= 1u64 << n;
        }
        mask ^= lowest;
        n += 1;
    }
    r
}
