//! System instructions: hints, barriers, PSTATE, system registers, SYS (C4.1.94).

use super::{Flow, Insn, Pattern, Translator, helpers, pat};
use crate::bits::pstate;
use crate::config::Feature;
use crate::helpers::system;
use crate::state::slots;
use crate::sysreg::{self, Plain};
use rhea_ir::{Cond, MemOp, Op, Type, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("hint", "1101010100 0 00 011 0010 CRm:4 op2:3 11111", hint),
    pat("wfxt", "1101010100 0 00 011 0001 0000 00 T Rd:5", wfxt).needs(Feature::Wfxt),
    pat("clrex", "1101010100 0 00 011 0011 CRm:4 010 11111", clrex),
    pat("dsb", "1101010100 0 00 011 0011 CRm:4 100 11111", dsb),
    pat("dmb", "1101010100 0 00 011 0011 CRm:4 101 11111", dmb),
    pat("isb", "1101010100 0 00 011 0011 CRm:4 110 11111", isb),
    pat("sb", "1101010100 0 00 011 0011 CRm:4 111 11111", sb).needs(Feature::Sb),
    pat("msr_imm", "1101010100 0 00 op1:3 0100 CRm:4 op2:3 11111", msr_imm),
    pat("sys", "1101010100 0 01 op1:3 CRn:4 CRm:4 op2:3 Rt:5", sys),
    pat("sysl", "1101010100 1 01 op1:3 CRn:4 CRm:4 op2:3 Rt:5", mrs),
    pat("msr", "1101010100 0 1 o0 op1:3 CRn:4 CRm:4 op2:3 Rt:5", msr),
    pat("mrs", "1101010100 1 1 o0 op1:3 CRn:4 CRm:4 op2:3 Rt:5", mrs),
];

/// A register's encoding op0:op1:CRn:CRm:op2 as in bits 20:5 of MRS and MSR.
pub const fn enc(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

fn hint(t: &mut Translator, i: Insn) -> Flow {
    match i.bits(5, 7) {
        2 => {
            t.b.call(system::WFE, &[]);
            t.b.end_leave(t.pc.wrapping_add(4));
            Flow::End
        }
        3 => {
            t.b.call(system::WFI, &[]);
            t.b.end_leave(t.pc.wrapping_add(4));
            Flow::End
        }
        n @ (4 | 5) => {
            let local = t.c32(n - 4);
            t.b.call(system::SEV, &[local]);
            Flow::Next
        }
        // YIELD, DGH, ESB without RAS, PSB, TSB, CSDB, BTI (checked at the block's start) and unallocated hints.
        _ => Flow::Next,
    }
}

fn wfxt(t: &mut Translator, i: Insn) -> Flow {
    let v = t.x(i.rd());
    let wfet = t.c32(!i.bit(5) as u32);
    let rd = t.c32(i.rd());
    t.b.call(system::WFXT, &[v, wfet, rd]);
    t.b.end_leave(t.pc.wrapping_add(4));
    Flow::End
}

fn clrex(t: &mut Translator, _: Insn) -> Flow {
    let zero = t.c32(0);
    t.b.set(slots::EXCL_SIZE, zero);
    Flow::Next
}

/// DSB of any kind, SSBB and PSSBB.
fn dsb(t: &mut Translator, _: Insn) -> Flow {
    t.b.fence(true);
    Flow::Next
}

fn dmb(t: &mut Translator, i: Insn) -> Flow {
    // Barriers of loads only or stores only do not order a store before a load.
    t.b.fence(!matches!(i.bits(8, 2), 1 | 2));
    Flow::Next
}

fn isb(t: &mut Translator, _: Insn) -> Flow {
    t.end_goto(t.pc.wrapping_add(4))
}

fn sb(t: &mut Translator, i: Insn) -> Flow {
    if i.bits(8, 4) != 0 {
        return Flow::Undef;
    }
    t.b.fence(true);
    Flow::Next
}

const DAIF_BITS: u32 = pstate::DAIF;

/// Does a change of these bits of PSTATE.DAIF change nothing else? The mode depends on D where software step is armed.
fn daif_is_plain(t: &Translator, bits: u32) -> bool {
    t.mode.el() > 0 && !t.mode.single_step() && (bits & pstate::D == 0 || !t.mode.step_control())
}

/// After interrupts may have been unmasked: leaves the block if one waits.
fn deliver(t: &mut Translator) {
    let waits = t.b.get(slots::INTERRUPT_WAITS);
    let zero = t.c32(0);
    let waits = t.b.icmp(Cond::Ne, waits, zero);
    t.raise_if(waits, |t| {
        t.b.call(system::UNMASKED, &[]);
    });
}

fn msr_imm(t: &mut Translator, i: Insn) -> Flow {
    let op = i.bits(16, 3) << 3 | i.bits(5, 3);
    let el0 = t.mode.el() == 0;
    // SPSel, DAIFSet, DAIFClr, UAO, PAN, SSBS, DIT; DAIF at EL0 depends on SCTLR_EL1.UMA.
    let allocated = match op {
        0b000_101 => !el0,
        0b011_110 | 0b011_111 => true,
        0b000_011 => !el0 && t.cfg.has(Feature::Uao),
        0b000_100 => !el0 && t.cfg.has(Feature::Pan),
        0b011_001 => t.cfg.has(Feature::Ssbs),
        0b011_010 => t.cfg.has(Feature::Dit),
        _ => false,
    };
    if !allocated {
        return Flow::Undef;
    }
    let bits = i.bits(8, 4) << 6;
    if matches!(op, 0b011_110 | 0b011_111) && daif_is_plain(t, bits) {
        let p = t.b.get(slots::PSTATE);
        if op == 0b011_110 {
            let p = t.b.bin_imm(Op::Or, p, bits.into());
            t.b.set(slots::PSTATE, p);
        } else {
            let p = t.and_imm(p, (!bits).into());
            t.b.set(slots::PSTATE, p);
            deliver(t);
        }
        return Flow::Next;
    }
    let op = t.c32(op);
    let crm = t.c32(i.bits(8, 4));
    t.end_with(system::MSR_IMM, &[op, crm])
}

const NZCV: u32 = enc(3, 3, 4, 2, 0);
const FPCR: u32 = enc(3, 3, 4, 4, 0);
const FPSR: u32 = enc(3, 3, 4, 4, 1);
const CTR_EL0: u32 = enc(3, 3, 0, 0, 1);
const DCZID_EL0: u32 = enc(3, 3, 0, 0, 7);
const DAIF: u32 = enc(3, 3, 4, 2, 1);

fn mrs(t: &mut Translator, i: Insn) -> Flow {
    let reg = i.bits(5, 16);
    let v: Value = match reg {
        NZCV => {
            let f = t.flags();
            let f = t.b.op1(Op::FlagsToNzcv, Type::I32, f, 0, 0);
            t.b.zext64(f)
        }
        FPCR | FPSR if t.mode.fp_trap_el() != 0 => return t.end_with(system::FP_TRAP, &[]),
        FPCR => {
            let v = t.b.get(slots::FPCR);
            t.b.zext64(v)
        }
        FPSR => {
            let flags = t.b.op0(Op::FpFlagsGet, Type::I32);
            let v = t.b.call(system::READ_FPSR, &[flags]);
            t.b.zext64(v)
        }
        CTR_EL0 if t.mode.ctr_ok() => t.c64(t.cfg.ctr),
        DCZID_EL0 => t.c64((t.cfg.zva_log2.wrapping_sub(2) & 15 | (!t.mode.zva_ok() as u32) << 4) as u64),
        _ => match sysreg::plain(t.cfg, t.mode, reg as u16, false) {
            Some(Plain::Const(v)) => t.c64(v),
            Some(Plain::Slot(slot, _)) => t.b.get(slot),
            Some(Plain::Pstate(bits)) => {
                let p = t.b.get(slots::PSTATE);
                let p = t.and_imm(p, bits.into());
                t.b.zext64(p)
            }
            _ => {
                let reg = t.c32(reg);
                let rt = t.c32(i.rt());
                t.b.call(system::MRS, &[reg, rt])
            }
        },
    };
    t.set_x(i.rt(), v);
    Flow::Next
}

fn msr(t: &mut Translator, i: Insn) -> Flow {
    let reg = i.bits(5, 16);
    let v = t.x(i.rt());
    match reg {
        NZCV => {
            let v = t.b.trunc(v);
            let f = t.b.op1(Op::FlagsFromNzcv, Type::I32, v, 0, 0);
            t.set_flags(f);
            return Flow::Next;
        }
        FPCR | FPSR if t.mode.fp_trap_el() != 0 => return t.end_with(system::FP_TRAP, &[]),
        FPCR => {
            let v = t.b.trunc(v);
            return t.end_with(system::WRITE_FPCR, &[v]);
        }
        FPSR => {
            let v = t.b.trunc(v);
            t.b.op0(Op::FpFlagsClear, Type::Void);
            t.b.call(system::WRITE_FPSR, &[v]);
            return Flow::Next;
        }
        _ => {}
    }
    match sysreg::plain(t.cfg, t.mode, reg as u16, true) {
        Some(Plain::Slot(slot, mask)) => {
            let v = if mask == u64::MAX { v } else { t.and_imm(v, mask) };
            t.b.set(slot, v);
            return Flow::Next;
        }
        Some(Plain::Key(which)) => {
            let which = t.c32(which);
            t.b.call(helpers::SET_KEY, &[which, v]);
            return Flow::Next;
        }
        _ => {}
    }
    if reg == DAIF && daif_is_plain(t, DAIF_BITS) {
        let v = t.b.trunc(v);
        let v = t.and_imm(v, DAIF_BITS.into());
        let p = t.b.get(slots::PSTATE);
        let p = t.and_imm(p, (!DAIF_BITS).into());
        let p = t.b.bin(Op::Or, p, v);
        t.b.set(slots::PSTATE, p);
        deliver(t);
        return Flow::Next;
    }
    let number = t.c32(reg);
    let rt = t.c32(i.rt());
    t.end_with(system::MSR_END, &[number, rt, v])
}

fn sys(t: &mut Translator, i: Insn) -> Flow {
    let (op1, crn, crm, op2) = (i.bits(16, 3), i.bits(12, 4), i.bits(8, 4), i.bits(5, 3));
    if (op1, crn, crm, op2) == (3, 7, 4, 1) && t.mode.zva_ok() {
        return dc_zva(t, i);
    }
    let v = t.x(i.rt());
    let number = t.c32(i.bits(5, 16));
    let rt = t.c32(i.rt());
    // Cache maintenance changes neither translation nor mode.
    let cache = crn == 7 && matches!(crm, 1 | 5 | 6 | 10..=14);
    if cache {
        t.b.call(system::SYS_CACHE, &[number, rt, v]);
        return Flow::Next;
    }
    t.end_with(system::SYS, &[number, rt, v])
}

/// DC ZVA: a probe at the address given (so that a fault reports it), then stores that cannot fault.
fn dc_zva(t: &mut Translator, i: Insn) -> Flow {
    let block = 1u64 << t.cfg.zva_log2.clamp(4, 11);
    let v = t.x(i.rt());
    let a = t.data_address(v);
    let idx = t.mode.mmu_idx();
    t.b.probe_write(MemOp::new(0, idx), a, 0);
    let a = t.and_imm(a, !(block - 1));
    let zero = t.b.vconst(0);
    for n in 0..block / 16 {
        t.b.store(MemOp::new(4, idx), a, 16 * n as i64, zero);
    }
    Flow::Next
}
