//! Segment registers, descriptor tables and transfers of control between segments and levels.

use super::system::CR0;
use super::{Flow, Translator};
use crate::exception::Vector;
use crate::helpers::{system as calls, system2 as sys};
use crate::mmu::cr4;
use crate::state::{Seg, TableRegister, X86Cpu, slots};
use iced_x86::{Code, Mnemonic, OpKind, Register};
use rhea_ir::{Cond, Slot, Type, Value};
use std::mem::offset_of;

const LDTR: Slot = Slot::new(offset_of!(X86Cpu, ldtr) + offset_of!(crate::state::Segment, selector), Type::I32);
const TR: Slot = Slot::new(offset_of!(X86Cpu, tr) + offset_of!(crate::state::Segment, selector), Type::I32);

/// Base and limit of GDTR or IDTR.
const fn table(idt: bool) -> (Slot, Slot) {
    let at = if idt { offset_of!(X86Cpu, idtr) } else { offset_of!(X86Cpu, gdtr) };
    (
        Slot::new(at + offset_of!(TableRegister, base), Type::I64),
        Slot::new(at + offset_of!(TableRegister, limit), Type::I32),
    )
}

impl Translator<'_, '_> {
    // ---- segment registers and descriptor tables ----

    pub(super) fn segments(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        match m {
            Mov => {
                let to = self.i.op_register(0);
                if self.i.op_kind(0) == OpKind::Register && to.is_segment_register() {
                    if to == Register::CS {
                        return Some(self.undefined());
                    }
                    let v = self.selector(1);
                    return Some(self.load_segment(to, v, |_| {}));
                }
                let from = self.i.op_register(1);
                if self.i.op_kind(1) != OpKind::Register || !from.is_segment_register() {
                    return None;
                }
                let v = self.b.get(slots::seg_selector(super::address::seg_of(from)));
                self.write_selector(v);
                Some(Flow::Next)
            }
            Push => {
                let r = self.i.op_register(0);
                if self.i.op_kind(0) != OpKind::Register || !r.is_segment_register() {
                    return None;
                }
                let bits = self.i.stack_pointer_increment().unsigned_abs() * 8;
                let v = self.b.get(slots::seg_selector(super::address::seg_of(r)));
                let v = self.zx64(v, 16);
                let v = if bits == 64 { v } else { self.b.trunc(v) };
                self.push(bits, v);
                Some(Flow::Next)
            }
            Pop => {
                let r = self.i.op_register(0);
                if self.i.op_kind(0) != OpKind::Register || !r.is_segment_register() {
                    return None;
                }
                let bits = self.i.stack_pointer_increment().unsigned_abs() * 8;
                let v = self.pop_value(bits, 0);
                let v = self.zx64(v, bits);
                let v = self.b.zext(v, 16);
                Some(self.load_segment(r, v, |t| t.add_sp((bits / 8) as u64)))
            }
            Lds | Les | Lfs | Lgs | Lss => {
                let bits = self.op_bits(0);
                let r = match m {
                    Lds => Register::DS,
                    Les => Register::ES,
                    Lfs => Register::FS,
                    Lgs => Register::GS,
                    _ => Register::SS,
                };
                let at = self.ea(bits / 8 + 2, false);
                let offset = self.load(bits, at);
                let at = self.plus(at, (bits / 8).into());
                let selector = self.load(16, at);
                let selector = self.zx64(selector, 16);
                Some(self.load_segment(r, selector, |t| t.write(0, bits, offset)))
            }
            Lgdt | Lidt => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let wide = if self.mode.long() { 64 } else { 32 };
                let at = self.ea(wide / 8 + 2, false);
                let limit = self.load(16, at);
                let limit = self.zx64(limit, 16);
                let at = self.plus(at, 2);
                let base = self.load(wide, at);
                let mut base = self.zx64(base, wide);
                if matches!(self.i.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
                    let mask = self.c64(0xff_ffff);
                    base = self.b.and(base, mask);
                }
                let which = self.c64((m == Lidt) as u64);
                self.b.call(sys::LOAD_TABLE, &[which, limit, base]);
                Some(Flow::Next)
            }
            Sgdt | Sidt => {
                self.check_umip();
                let wide = if self.mode.long() { 64 } else { 32 };
                let (base, limit) = table(m == Sidt);
                let at = self.ea(wide / 8 + 2, true);
                let (base, limit) = (self.b.get(base), self.b.get(limit));
                let base = if wide == 64 { base } else { self.b.trunc(base) };
                let after = self.plus(at, 2);
                // The longer part first: nothing is written if it faults.
                let op = self.mem_op(16);
                let address = self.address(at);
                self.b.probe_write(op, address, 0);
                self.store(wide, after, base);
                self.store(16, at, limit);
                Some(Flow::Next)
            }
            Sldt | Str => {
                if !self.protected() {
                    return Some(self.undefined());
                }
                self.check_umip();
                let v = self.b.get(if m == Sldt { LDTR } else { TR });
                self.write_selector(v);
                Some(Flow::Next)
            }
            Smsw => {
                self.check_umip();
                let v = self.b.get(CR0);
                if self.is_mem(0) {
                    let v = self.b.trunc(v);
                    self.write(0, 16, v);
                } else {
                    let bits = self.op_bits(0);
                    let v = if bits == 64 { v } else { self.b.trunc(v) };
                    self.write(0, bits, v);
                }
                Some(Flow::Next)
            }
            Lldt | Ltr => {
                if !self.protected() {
                    return Some(self.undefined());
                }
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let v = self.selector(0);
                self.b.call(if m == Lldt { calls::LLDT } else { calls::LTR }, &[v]);
                Some(Flow::Next)
            }
            Verr | Verw => {
                if !self.protected() {
                    return Some(self.undefined());
                }
                let v = self.selector(0);
                let ok = self.b.call(if m == Verr { calls::VERR } else { calls::VERW }, &[v]);
                let zero = self.c64(0);
                let z = self.b.icmp(Cond::Ne, ok, zero);
                self.set_zf(z);
                Some(Flow::Next)
            }
            Lar | Lsl => {
                if !self.protected() {
                    return Some(self.undefined());
                }
                let bits = self.op_bits(0);
                let v = self.selector(1);
                let got = self.b.call(if m == Lar { calls::LAR } else { calls::LSL }, &[v]);
                let ok = self.shr(got, 32);
                let zero = self.c64(0);
                let z = self.b.icmp(Cond::Ne, ok, zero);
                self.set_zf(z);
                let r = self.i.op_register(0);
                let old = self.read_reg(r);
                let new = self.b.zext(got, 32);
                let new = if bits == 64 { new } else { self.b.trunc(new) };
                if bits == 32 {
                    // A register that is not written keeps its upper half.
                    let n = r.number() as u32;
                    let (old, new) = (self.r64(n), self.b.zext64(new));
                    let v = self.b.select(z, new, old);
                    self.set_r64(n, v);
                } else {
                    let v = self.b.select(z, new, old);
                    self.write(0, bits, v);
                }
                Some(Flow::Next)
            }
            Arpl => {
                if !self.protected() {
                    return Some(self.undefined());
                }
                let src = self.selector(1);
                let src = self.b.trunc(src);
                let (place, old) = self.read_place(0, 16);
                let (a, b) = (self.and_imm(old, 3), self.and_imm(src, 3));
                let less = self.b.icmp(Cond::Ult, a, b);
                let kept = self.and_imm(old, 0xfffc);
                let raised = self.b.or(kept, b);
                let v = self.b.select(less, raised, old);
                match place {
                    // Whatever the operand size, 16 bits are written.
                    super::operand::Place::Reg(r) => self.set_reg(16, r.number() as u32, v),
                    super::operand::Place::Mem(_) => self.write_place(place, 16, v),
                }
                self.set_zf(less);
                Some(Flow::Next)
            }
            _ => None,
        }
    }
    /// CR4.UMIP hides the tables from programs.
    fn check_umip(&mut self) {
        if self.mode.cpl() > 0 {
            self.raise_unless_cr4(cr4::UMIP, false, Vector::GeneralProtection, Some(0));
        }
    }
    /// Loads a segment register; `then` completes the instruction.
    fn load_segment(&mut self, r: Register, selector: Value, then: impl FnOnce(&mut Self)) -> Flow {
        let seg = super::address::seg_of(r);
        let n = self.c64(seg as u64);
        self.b.call(calls::LOAD_SEG, &[n, selector]);
        then(self);
        // In 64-bit mode nothing of the mode depends on it.
        if self.mode.long() && seg != Seg::Ss { Flow::Next } else { self.end_next() }
    }

    // ---- transfers of control ----

    pub(super) fn transfers(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        let flow = match m {
            Jmp | Call => {
                let (selector, offset, bits) = self.far_target();
                let bits = self.c64(bits.into());
                let len = self.len();
                let call = if m == Jmp { calls::FAR_JMP } else { calls::FAR_CALL };
                self.end_with(call, &[selector, offset, bits, len])
            }
            Retf => {
                let bits = match self.i.code() {
                    Code::Retfw | Code::Retfw_imm16 => 16,
                    Code::Retfd | Code::Retfd_imm16 => 32,
                    _ => 64,
                };
                let release = if self.i.op_count() == 1 { self.i.immediate16() } else { 0 };
                let (bits, release) = (self.c64(bits), self.c64(release.into()));
                self.end_with(calls::FAR_RET, &[bits, release])
            }
            Iret | Iretd | Iretq => {
                let bits = match m {
                    Iret => 16,
                    Iretd => 32,
                    _ => 64,
                };
                let bits = self.c64(bits);
                self.end_with(calls::IRET, &[bits])
            }
            Int => {
                let n = self.c64(self.i.immediate8().into());
                let len = self.len();
                self.end_with(calls::SOFT_INT, &[n, len])
            }
            Int3 => {
                let len = self.len();
                self.end_with(calls::INT3, &[len])
            }
            Int1 => {
                let len = self.len();
                self.end_with(calls::INT1, &[len])
            }
            Into => {
                let of = self.condition(0);
                let len = self.i.len() as u64;
                self.raise_if(of, |t| {
                    let len = t.c64(len);
                    t.b.call(calls::INTO, &[len]);
                });
                Flow::Next
            }
            Bound => {
                let bits = self.op_bits(0);
                let v = self.reg(bits, self.i.op_register(0).number() as u32);
                let v = self.sx(v, bits);
                let at = self.ea(bits / 4, false);
                let low = self.load(bits, at);
                let low = self.sx(low, bits);
                let at = self.plus(at, (bits / 8).into());
                let high = self.load(bits, at);
                let high = self.sx(high, bits);
                let (below, above) = (self.b.icmp(Cond::Slt, v, low), self.b.icmp(Cond::Sgt, v, high));
                let bad = self.b.or(below, above);
                self.raise_if(bad, |t| t.raise(Vector::Bound, None));
                Flow::Next
            }
            Syscall => {
                let len = self.len();
                self.end_with(calls::SYSCALL, &[len])
            }
            Sysret | Sysretq => {
                let bits = self.c64(if m == Sysretq { 64 } else { 32 });
                self.end_with(calls::SYSRET, &[bits])
            }
            Sysenter => self.end_with(calls::SYSENTER, &[]),
            Sysexit | Sysexitq => {
                let bits = self.c64(if m == Sysexitq { 64 } else { 32 });
                self.end_with(calls::SYSEXIT, &[bits])
            }
            Ud0 | Ud1 | Ud2 => self.undefined(),
            Rsm => self.end_with(calls::RSM, &[]),
            Hlt => {
                let len = self.len();
                self.end_with(calls::HLT, &[len])
            }
            Vmcall | Vmmcall => {
                self.b.call(sys::HYPERCALL, &[]);
                Flow::Next
            }
            _ => return None,
        };
        Some(flow)
    }
    /// Selector, offset and operand size of a far JMP or CALL.
    fn far_target(&mut self) -> (Value, Value, u32) {
        match self.i.op_kind(0) {
            OpKind::FarBranch16 => {
                (self.c64(self.i.far_branch_selector().into()), self.c64(self.i.far_branch16().into()), 16)
            }
            OpKind::FarBranch32 => {
                (self.c64(self.i.far_branch_selector().into()), self.c64(self.i.far_branch32().into()), 32)
            }
            _ => {
                let bits = match self.i.code() {
                    Code::Jmp_m1616 | Code::Call_m1616 => 16,
                    Code::Jmp_m1632 | Code::Call_m1632 => 32,
                    _ => 64,
                };
                let at = self.ea(bits / 8 + 2, false);
                let offset = self.load(bits, at);
                let offset = self.zx64(offset, bits);
                let at = self.plus(at, (bits / 8).into());
                let selector = self.load(16, at);
                (self.zx64(selector, 16), offset, bits)
            }
        }
    }
}
