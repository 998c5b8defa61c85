//! Data processing (immediate): addresses, add/subtract, logical, move wide, bitfields, extract (C4.1.93).

use super::{Flow, Insn, Pattern, Translator, pat};
use rhea_ir::{Op, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("adr", "0 immlo:2 10000 immhi:19 Rd:5", adr),
    pat("adrp", "1 immlo:2 10000 immhi:19 Rd:5", adrp),
    pat("add_sub_imm", "sf op S 100010 sh imm12:12 Rn:5 Rd:5", add_sub_imm),
    pat("logical_imm", "sf opc:2 100100 N immr:6 imms:6 Rn:5 Rd:5", logical_imm),
    pat("move_wide", "sf opc:2 100101 hw:2 imm16:16 Rd:5", move_wide),
    pat("bitfield", "sf opc:2 100110 N immr:6 imms:6 Rn:5 Rd:5", bitfield),
    pat("extr", "sf 00 100111 N 0 Rm:5 imms:6 Rn:5 Rd:5", extr),
];

fn adr_offset(i: Insn) -> u64 {
    ((i.sbits(5, 19) << 2) | i.bits(29, 2) as i64) as u64
}

fn adr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.c64(t.pc.wrapping_add(adr_offset(i)));
    t.set_x(i.rd(), v);
    Flow::Next
}

fn adrp(t: &mut Translator, i: Insn) -> Flow {
    let v = t.c64((t.pc & !0xfff).wrapping_add(adr_offset(i) << 12));
    t.set_x(i.rd(), v);
    Flow::Next
}

fn add_sub_imm(t: &mut Translator, i: Insn) -> Flow {
    let (sf, sub, set_flags) = (i.sf(), i.bit(30), i.bit(29));
    let imm = (i.bits(10, 12) as u64) << if i.bit(22) { 12 } else { 0 };
    let a = t.reg_sp(sf, i.rn());
    let b = t.cint(sf, imm);
    let r = if sub { t.b.sub(a, b) } else { t.b.add(a, b) };
    if set_flags {
        let f = t.b.op2(if sub { Op::FlagsSub } else { Op::FlagsAdd }, rhea_ir::Type::I32, a, b, 0, 0);
        t.set_reg(sf, i.rd(), r);
        t.set_flags(f);
    } else {
        // An aligned SP moved by a multiple of 16 stays aligned.
        let aligned = t.sp_aligned && (i.rd() != 31 || (i.rn() == 31 && sf && imm & 15 == 0));
        t.set_reg_sp(sf, i.rd(), r);
        t.sp_aligned = aligned;
    }
    Flow::Next
}

/// DecodeBitMasks() for logical immediates: the mask, or `None` for a reserved value.
pub fn bit_mask(n: u32, imms: u32, immr: u32, sf: bool) -> Option<u64> {
    let len = 31u32.checked_sub(((n << 6) | (!imms & 0x3f)).leading_zeros())?;
    if len < 1 || (!sf && n != 0) {
        return None;
    }
    let levels = (1u32 << len) - 1;
    let (s, r, size) = (imms & levels, immr & levels, 1u32 << len);
    if s == levels {
        return None;
    }
    let ones = (1u64 << (s + 1)) - 1;
    let elem_mask = if size == 64 { !0 } else { (1u64 << size) - 1 };
    let elem = if r == 0 { ones } else { ((ones >> r) | (ones << (size - r))) & elem_mask };
    let mut mask = elem;
    let mut w = size;
    while w < 64 {
        mask |= mask << w;
        w *= 2;
    }
    Some(if sf { mask } else { mask & 0xffff_ffff })
}

fn logical_imm(t: &mut Translator, i: Insn) -> Flow {
    let sf = i.sf();
    let Some(mask) = bit_mask(i.bits(22, 1), i.bits(10, 6), i.bits(16, 6), sf) else { return Flow::Undef };
    let a = t.reg(sf, i.rn());
    let opc = i.bits(29, 2);
    let op = match opc {
        1 => Op::Or,
        2 => Op::Xor,
        _ => Op::And,
    };
    let r = t.b.bin_imm(op, a, mask);
    if opc == 3 {
        let f = t.b.op1(Op::FlagsLogic, rhea_ir::Type::I32, r, 0, 0);
        t.set_reg(sf, i.rd(), r);
        t.set_flags(f);
    } else {
        let aligned = t.sp_aligned;
        t.set_reg_sp(sf, i.rd(), r);
        t.sp_aligned = if i.rd() == 31 { opc == 0 && mask & 15 == 0 } else { aligned };
    }
    Flow::Next
}

fn move_wide(t: &mut Translator, i: Insn) -> Flow {
    let (sf, opc, shift) = (i.sf(), i.bits(29, 2), i.bits(21, 2) * 16);
    if opc == 1 || (!sf && shift > 16) {
        return Flow::Undef;
    }
    let imm = (i.bits(5, 16) as u64) << shift;
    let v = match opc {
        0 if sf => t.c64(!imm),
        0 => t.c32(!imm as u32),
        2 => t.cint(sf, imm),
        _ => {
            let old = t.reg(sf, i.rd());
            let kept = t.and_imm(old, if sf { !(0xffff << shift) } else { (!(0xffffu32 << shift)) as u64 });
            let new = t.cint(sf, imm);
            t.b.or(kept, new)
        }
    };
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

/// Low `n` bits set, `n` ≤ 64.
const fn ones(n: u32) -> u64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

fn bitfield(t: &mut Translator, i: Insn) -> Flow {
    let (sf, opc, r, s) = (i.sf(), i.bits(29, 2), i.bits(16, 6), i.bits(10, 6));
    let width = if sf { 64 } else { 32 };
    if opc == 3 || i.bit(22) != sf || r >= width || s >= width {
        return Flow::Undef;
    }
    let src = t.reg(sf, i.rn());
    let v = match opc {
        0 => sbfm(t, src, r, s, width),
        2 => ubfm(t, src, r, s, width),
        _ => {
            // BFM: insert the field into the destination.
            let (len, at) = if s >= r { (s - r + 1, 0) } else { (s + 1, width - r) };
            let mask = ones(len) << at;
            let field = if s >= r { t.shr(src, r) } else { t.shl(src, at) };
            let field = t.and_imm(field, mask);
            let old = t.reg(sf, i.rd());
            let kept = t.and_imm(old, !mask & ones(width));
            t.b.or(kept, field)
        }
    };
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

fn ubfm(t: &mut Translator, src: Value, r: u32, s: u32, width: u32) -> Value {
    if s >= r {
        // UBFX, LSR, UXTB, UXTH.
        let len = s - r + 1;
        let v = t.shr(src, r);
        if s == width - 1 {
            v
        } else if matches!(len, 8 | 16 | 32) {
            t.b.zext(v, len)
        } else {
            t.and_imm(v, ones(len))
        }
    } else {
        // UBFIZ, LSL.
        let at = width - r;
        if s + 1 + at == width {
            t.shl(src, at)
        } else if matches!(s + 1, 8 | 16 | 32) {
            let v = t.b.zext(src, s + 1);
            t.shl(v, at)
        } else {
            let v = t.and_imm(src, ones(s + 1));
            t.shl(v, at)
        }
    }
}

fn sbfm(t: &mut Translator, src: Value, r: u32, s: u32, width: u32) -> Value {
    if s >= r {
        let len = s - r + 1;
        if s == width - 1 {
            t.sar(src, r)
        } else if matches!(len, 8 | 16 | 32) {
            let v = t.shr(src, r);
            t.b.sext(v, len)
        } else {
            let v = t.shl(src, width - 1 - s);
            t.sar(v, width - len)
        }
    } else {
        let (len, at) = (s + 1, width - r);
        let v = if matches!(len, 8 | 16 | 32) {
            t.b.sext(src, len)
        } else {
            let v = t.shl(src, width - len);
            t.sar(v, width - len)
        };
        t.shl(v, at)
    }
}

fn extr(t: &mut Translator, i: Insn) -> Flow {
    let (sf, lsb) = (i.sf(), i.bits(10, 6));
    if i.bit(22) != sf || (!sf && lsb >= 32) {
        return Flow::Undef;
    }
    let lo = t.reg(sf, i.rm());
    let v = if i.rn() == i.rm() {
        if lsb == 0 { lo } else { t.b.bin_imm(Op::Rotr, lo, lsb as u64) }
    } else if lsb == 0 {
        lo
    } else {
        let hi = t.reg(sf, i.rn());
        t.b.extr(hi, lo, lsb)
    };
    t.set_reg(sf, i.rd(), v);
    Flow::Next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_masks() {
        assert_eq!(bit_mask(1, 0, 0, true), Some(1));
        assert_eq!(bit_mask(0, 0b111100, 0, true), Some(0x5555_5555_5555_5555));
        assert_eq!(bit_mask(0, 0b110000, 1, false), Some(0x8080_8080));
        assert_eq!(bit_mask(1, 63, 0, true), None);
        assert_eq!(bit_mask(1, 0, 0, false), None);
        assert_eq!(bit_mask(0, 63, 0, true), None);
        assert_eq!(bit_mask(1, 31, 0, true), Some(0xffff_ffff));
        assert_eq!(bit_mask(1, 7, 8, true), Some(0xff00_0000_0000_0000));
    }
}
