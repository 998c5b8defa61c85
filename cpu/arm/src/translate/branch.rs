//! Branches and exception generation (C4.1.94), branch target identification.

use super::pauth::{Key, auth};
use super::{Flow, Insn, Pattern, Translator, pat};
use crate::config::Feature;
use crate::helpers::system;
use crate::mode::ArmMode;
use crate::state::slots;
use rhea_ir::{Cond, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("b", "0 00101 imm26:26", b),
    pat("bl", "1 00101 imm26:26", bl),
    pat("b_cond", "01010100 imm19:19 0 cond:4", b_cond),
    pat("cbz", "sf 011010 op imm19:19 Rt:5", cbz),
    pat("tbz", "b5 011011 op b40:5 imm14:14 Rt:5", tbz),
    pat("br", "1101011 0000 11111 000000 Rn:5 00000", br),
    pat("blr", "1101011 0001 11111 000000 Rn:5 00000", blr),
    pat("ret", "1101011 0010 11111 000000 Rn:5 00000", ret),
    pat("eret", "1101011 0100 11111 000000 11111 00000", eret),
    pat("braz", "1101011 0000 11111 00001 M Rn:5 11111", bra).needs(Feature::Pauth),
    pat("bra", "1101011 1000 11111 00001 M Rn:5 Rm:5", bra).needs(Feature::Pauth),
    pat("blraz", "1101011 0001 11111 00001 M Rn:5 11111", blra).needs(Feature::Pauth),
    pat("blra", "1101011 1001 11111 00001 M Rn:5 Rm:5", blra).needs(Feature::Pauth),
    pat("reta", "1101011 0010 11111 00001 M 11111 11111", reta).needs(Feature::Pauth),
    pat("ereta", "1101011 0100 11111 00001 M 11111 11111", ereta).needs(Feature::Pauth),
    // DRPS is UNDEFINED outside Debug state, DCPS1-3 as well: not in the table.
    pat("svc", "11010100 000 imm16:16 00001", svc),
    pat("hvc", "11010100 000 imm16:16 00010", hvc),
    pat("smc", "11010100 000 imm16:16 00011", smc),
    pat("brk", "11010100 001 imm16:16 00000", brk),
    pat("hlt", "11010100 010 imm16:16 00000", hlt),
];

fn b(t: &mut Translator, i: Insn) -> Flow {
    t.end_goto(t.pc.wrapping_add((i.sbits(0, 26) << 2) as u64))
}

fn bl(t: &mut Translator, i: Insn) -> Flow {
    let ret = t.pc.wrapping_add(4);
    let lr = t.c64(ret);
    t.set_x(30, lr);
    t.end_call(t.pc.wrapping_add((i.sbits(0, 26) << 2) as u64), ret)
}

fn b_cond(t: &mut Translator, i: Insn) -> Flow {
    let target = t.pc.wrapping_add((i.sbits(5, 19) << 2) as u64);
    let c = t.condition(i.bits(0, 4));
    t.end_cond(c, target, t.pc.wrapping_add(4))
}

fn cbz(t: &mut Translator, i: Insn) -> Flow {
    let target = t.pc.wrapping_add((i.sbits(5, 19) << 2) as u64);
    let v = t.reg(i.sf(), i.rt());
    let zero = t.cint(i.sf(), 0);
    let c = t.b.icmp(if i.bit(24) { Cond::Ne } else { Cond::Eq }, v, zero);
    t.end_cond(c, target, t.pc.wrapping_add(4))
}

fn tbz(t: &mut Translator, i: Insn) -> Flow {
    let target = t.pc.wrapping_add((i.sbits(5, 14) << 2) as u64);
    let bit = i.bits(31, 1) << 5 | i.bits(19, 5);
    let v = if bit < 32 { t.w(i.rt()) } else { t.x(i.rt()) };
    let v = t.and_imm(v, 1 << bit);
    let zero = t.cint(bit >= 32, 0);
    let c = t.b.icmp(if i.bit(24) { Cond::Ne } else { Cond::Eq }, v, zero);
    t.end_cond(c, target, t.pc.wrapping_add(4))
}

impl Translator<'_, '_> {
    /// Removes the top byte of an address where it is ignored below (`low`) or above (`high`) bit 55.
    pub(super) fn strip_top_byte(&mut self, a: Value, low: bool, high: bool) -> Value {
        if !low && !high {
            return a;
        }
        if let Some(c) = self.b.func.as_const(a) {
            let canonical = (((c << 8) as i64) >> 8) as u64;
            let v = if c >> 55 & 1 != 0 {
                if !high {
                    c
                } else if self.mode.two_ranges() {
                    canonical
                } else {
                    c & 0x00ff_ffff_ffff_ffff
                }
            } else if low {
                canonical & 0x00ff_ffff_ffff_ffff
            } else {
                c
            };
            return self.c64(v);
        }
        if !self.mode.two_ranges() {
            return self.and_imm(a, 0x00ff_ffff_ffff_ffff);
        }
        let s = self.shl(a, 8);
        let s = self.sar(s, 8);
        match (low, high) {
            (true, true) => s,
            // With bit 55 clear the top byte becomes zero, otherwise nothing changes.
            (true, false) => self.b.and(s, a),
            _ => self.b.or(s, a),
        }
    }

    /// BranchAddr().
    fn branch_target(&mut self, v: Value) -> Value {
        self.strip_top_byte(v, self.mode.tbii0(), self.mode.tbii1())
    }

    fn set_btype(&mut self, btype: u32) {
        if self.cfg.has(Feature::Bti) {
            let v = self.c32(btype);
            self.b.set(slots::BTYPE, v);
        }
    }

    /// BTYPE that BR Xn leaves.
    fn btype_of_br(&self, n: u32) -> u32 {
        if self.guarded && n != 16 && n != 17 { 3 } else { 1 }
    }

    /// Branch target identification of the block's first instruction (on a guarded page), then PSTATE.BTYPE = 0.
    pub(super) fn block_start(&mut self, word: u32) {
        if !self.cfg.has(Feature::Bti) {
            return;
        }
        if self.guarded {
            // Sets of BTYPE values (bit n: n) that the instruction accepts.
            let accepted = match word {
                0xd503_245f => 0b0110,
                0xd503_249f => 0b1010,
                0xd503_24df => 0b1110,
                // PACIASP, PACIBSP: 3 too unless SCTLR_ELx.BT is set.
                0xd503_233f | 0xd503_237f => 0b0110,
                // BRK, HLT.
                w if w & 0xffe0_001f == 0xd420_0000 || w & 0xffe0_001f == 0xd440_0000 => 0b1110,
                _ => 0,
            };
            if accepted != 0b1110 {
                let mut btype = self.b.get(slots::BTYPE);
                if matches!(word, 0xd503_233f | 0xd503_237f) {
                    let bt = self.control(ArmMode::BT_BIT);
                    let bt = self.b.trunc(bt);
                    btype = self.b.and(btype, bt);
                }
                let (cond, value) = match accepted {
                    0b0110 => (Cond::Eq, 3),
                    0b1010 => (Cond::Eq, 2),
                    _ => (Cond::Ne, 0),
                };
                let value = self.c32(value);
                let bad = self.b.icmp(cond, btype, value);
                self.raise_if(bad, |t| {
                    t.b.call(system::BTI_FAULT, &[]);
                });
            }
        }
        self.set_btype(0);
    }
}

fn br(t: &mut Translator, i: Insn) -> Flow {
    let target = t.x(i.rn());
    let target = t.branch_target(target);
    t.set_btype(t.btype_of_br(i.rn()));
    t.end_indirect(target)
}

fn link(t: &mut Translator, target: Value) -> Flow {
    let ret = t.pc.wrapping_add(4);
    let target = t.branch_target(target);
    let lr = t.c64(ret);
    t.set_x(30, lr);
    t.set_btype(2);
    t.end_indirect_call(target, ret)
}

fn blr(t: &mut Translator, i: Insn) -> Flow {
    let target = t.x(i.rn());
    link(t, target)
}

fn ret(t: &mut Translator, i: Insn) -> Flow {
    let target = t.x(i.rn());
    let target = t.branch_target(target);
    t.end_return(target)
}

/// The authenticated target of BRAA and the like: bit 10 chooses key B, bit 24 a register modifier instead of zero.
fn auth_target(t: &mut Translator, i: Insn) -> Value {
    let target = t.x(i.rn());
    let modifier = if i.bit(24) { t.xsp(i.rd()) } else { t.c64(0) };
    auth(t, target, modifier, if i.bit(10) { Key::Ib } else { Key::Ia }, true)
}

fn bra(t: &mut Translator, i: Insn) -> Flow {
    let target = auth_target(t, i);
    let target = t.branch_target(target);
    t.set_btype(t.btype_of_br(i.rn()));
    t.end_indirect(target)
}

fn blra(t: &mut Translator, i: Insn) -> Flow {
    let target = auth_target(t, i);
    link(t, target)
}

/// X30 authenticated with SP.
fn auth_lr(t: &mut Translator, i: Insn, target: Value) -> Value {
    let sp = t.b.get(slots::SP);
    auth(t, target, sp, if i.bit(10) { Key::Ib } else { Key::Ia }, true)
}

fn reta(t: &mut Translator, i: Insn) -> Flow {
    let lr = t.x(30);
    let target = auth_lr(t, i, lr);
    let target = t.branch_target(target);
    t.end_return(target)
}

fn eret(t: &mut Translator, _: Insn) -> Flow {
    if t.mode.el() == 0 {
        return Flow::Undef;
    }
    t.end_with(system::ERET, &[])
}

fn ereta(t: &mut Translator, i: Insn) -> Flow {
    let el = t.mode.el();
    if el == 0 {
        return Flow::Undef;
    }
    // ELR of the current level through MRS: op1 is 0, 4 or 6.
    let op1 = [0, 0, 4, 6][el as usize & 3];
    let enc = t.c32(3 << 14 | op1 << 11 | 4 << 7 | 1);
    let rt = t.c32(31);
    let elr = t.b.call(system::MRS, &[enc, rt]);
    let target = auth_lr(t, i, elr);
    t.end_with(system::ERET_TO, &[target])
}

fn imm16(t: &mut Translator, i: Insn) -> Value {
    t.b.iconst(Type::I32, i.bits(5, 16) as u64)
}

fn svc(t: &mut Translator, i: Insn) -> Flow {
    let imm = imm16(t, i);
    t.end_with(system::SVC, &[imm])
}

fn hvc(t: &mut Translator, i: Insn) -> Flow {
    if t.mode.el() == 0 {
        return Flow::Undef;
    }
    let imm = imm16(t, i);
    t.end_with(system::HVC, &[imm])
}

fn smc(t: &mut Translator, i: Insn) -> Flow {
    if t.mode.el() == 0 {
        return Flow::Undef;
    }
    let imm = imm16(t, i);
    t.end_with(system::SMC, &[imm])
}

fn brk(t: &mut Translator, i: Insn) -> Flow {
    let imm = imm16(t, i);
    t.end_with(system::BRK, &[imm])
}

fn hlt(t: &mut Translator, i: Insn) -> Flow {
    let imm = imm16(t, i);
    t.end_with(system::HLT, &[imm])
}
