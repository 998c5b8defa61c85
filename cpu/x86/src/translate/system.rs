//! System and privileged instructions. Faults come in the order of the manual: #UD, then privilege, then operands.

use super::{Flow, Translator};
use crate::config::Vendor;
use crate::exception::Vector;
use crate::flags;
use crate::helpers::system2::StringIo;
use crate::helpers::{integer, system as calls, system2 as sys};
use crate::mmu::cr4;
use crate::msr::Msrs;
use crate::state::{Seg, X86Cpu, gpr, slots};
use iced_x86::{Code, Mnemonic, OpKind, Register};
use rhea_ir::{Cond, MemOp, Op, Slot, Type, Value};
use std::mem::offset_of;

pub(super) const CR0: Slot = Slot::new(offset_of!(X86Cpu, cr0), Type::I64);
const CR2: Slot = Slot::new(offset_of!(X86Cpu, cr2), Type::I64);
const CR3: Slot = Slot::new(offset_of!(X86Cpu, cr3), Type::I64);
const CR4: Slot = Slot::new(offset_of!(X86Cpu, cr4), Type::I64);
const KERNEL_GS_BASE: Slot = Slot::new(offset_of!(X86Cpu, msr) + offset_of!(Msrs, kernel_gs_base), Type::I64);
const TSC_AUX: Slot = Slot::new(offset_of!(X86Cpu, msr) + offset_of!(Msrs, tsc_aux), Type::I64);
impl Translator<'_, '_> {
    pub(super) fn system(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        if m != Mov && m != Jmp && m != Call && m != Push && m != Pop {
            // The most frequent first.
            match m {
                Nop | Reservednop | Endbr32 | Endbr64 | Rdsspd | Rdsspq | Cldemote | Prefetch | Prefetchw
                | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchwt1 | Prefetchit0 | Prefetchit1
                | Sfence | Lfence | Serialize => return Some(Flow::Next),
                Mfence => {
                    self.b.fence(true);
                    return Some(Flow::Next);
                }
                _ => {}
            }
        }
        if let Some(flow) = self.segments(m) {
            return Some(flow);
        }
        if let Some(flow) = self.transfers(m) {
            return Some(flow);
        }
        if let Some(flow) = self.registers(m) {
            return Some(flow);
        }
        if let Some(flow) = self.saved_state(m) {
            return Some(flow);
        }
        self.ports(m)
    }

    // ---- conditions ----

    /// Protected mode without virtual-8086 mode.
    pub(super) fn protected(&self) -> bool {
        self.mode.protected() && !self.mode.vm86()
    }
    pub(super) fn privileged(&self) -> bool {
        self.mode.cpl() == 0
    }
    /// Raises unless a bit of CR4 is as it should be.
    pub(super) fn raise_unless_cr4(&mut self, bit: u64, set: bool, vector: Vector, code: Option<u32>) {
        let v = self.b.get(CR4);
        let v = self.and_imm(v, bit);
        let zero = self.c64(0);
        let bad = self.b.icmp(if set { Cond::Eq } else { Cond::Ne }, v, zero);
        self.raise_if(bad, |t| t.raise(vector, code));
    }
    /// Goes on at the next instruction by a look-up.
    pub(super) fn end_next(&mut self) -> Flow {
        let next = self.next;
        self.set_pc_const(next);
        self.b.end_lookup();
        Flow::End
    }
    pub(super) fn len(&mut self) -> Value {
        self.c64(self.i.len() as u64)
    }
    /// The linear address of the memory operand, without a check of the segment.
    fn plain_address(&mut self) -> Value {
        if self.mode.long() {
            let m = self.ea(1, false);
            return self.address(m);
        }
        let offset = self.effective_address();
        let base = self.b.get(slots::seg_base(super::address::seg_of(self.i.memory_segment())));
        let sum = self.b.add(base, offset);
        self.b.zext(sum, 32)
    }
    /// EDX:EAX.
    fn edx_eax(&mut self) -> Value {
        let (low, high) = (self.r64(gpr::RAX), self.r64(gpr::RDX));
        let low = self.b.zext(low, 32);
        self.deposit(low, high, 32, 32)
    }
    fn set_edx_eax(&mut self, v: Value) {
        let high = self.shr(v, 32);
        let low = self.b.zext(v, 32);
        self.set_r64(gpr::RAX, low);
        self.set_r64(gpr::RDX, high);
    }
    /// ZF, the other flags stay.
    pub(super) fn set_zf(&mut self, z: Value) {
        let cc = self.b.get(slots::CC);
        let cc = self.and_imm(cc, !(flags::packed::Z as u64) & 0xffff_ffff);
        let (yes, no) = (self.c32(flags::packed::Z), self.c32(0));
        let bit = self.b.select(z, yes, no);
        let cc = self.b.or(cc, bit);
        self.set_cc(cc);
    }
    /// Stores a 16-bit value in memory, or zero-extended in a register.
    pub(super) fn write_selector(&mut self, v: Value) {
        if self.is_mem(0) {
            self.write(0, 16, v);
        } else {
            let bits = self.op_bits(0);
            let v = self.zx64(v, 16);
            let v = if bits == 64 { v } else { self.b.trunc(v) };
            self.write(0, bits, v);
        }
    }
    /// A 16-bit source as I64.
    pub(super) fn selector(&mut self, n: u32) -> Value {
        let v = if self.is_mem(n) {
            let m = self.mem(16, false);
            self.load(16, m)
        } else {
            let r = self.i.op_register(n);
            self.read_reg(r)
        };
        if self.b.func.ty(v) == Type::I64 { self.b.zext(v, 16) } else { self.zx64(v, 16) }
    }

    // ---- control, debug, model-specific registers, flags ----

    fn registers(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        let flow = match m {
            Mov => return self.mov_special(),
            Lmsw => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let v = self.selector(0);
                self.end_with_next(sys::LMSW, &[v])
            }
            Clts => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                self.end_with_next(sys::CLTS, &[])
            }
            Invlpg => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let at = self.plain_address();
                self.end_with_next(sys::INVLPG, &[at])
            }
            Invpcid => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let bits = self.op_bits(0);
                let kind = self.read(0, bits);
                let kind = self.zx64(kind, bits);
                let at = self.ea(16, false);
                let low = self.load(64, at);
                let at = self.plus(at, 8);
                let high = self.load(64, at);
                self.end_with_next(sys::INVPCID, &[kind, low, high])
            }
            Invd | Wbinvd | Wbnoinvd => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                Flow::Next
            }
            Cli => {
                if self.mode.io_privileged() {
                    let f = self.b.get(slots::EFLAGS);
                    let f = self.and_imm(f, !(flags::IF as u64) & 0xffff_ffff);
                    self.b.set(slots::EFLAGS, f);
                } else {
                    self.b.call(calls::CLI, &[]);
                }
                Flow::Next
            }
            Sti => {
                if self.mode.io_privileged() {
                    let f = self.b.get(slots::EFLAGS);
                    let f = self.b.bin_imm(Op::Or, f, flags::IF as u64);
                    self.b.set(slots::EFLAGS, f);
                } else {
                    self.b.call(calls::STI, &[]);
                }
                self.begin_sti_shadow();
                Flow::Next
            }
            Clac | Stac => {
                if !self.privileged() || !self.mode.protected() {
                    return Some(self.undefined());
                }
                let v = self.c32((m == Stac) as u32);
                self.end_with_next(sys::SET_AC, &[v])
            }
            Pushf | Pushfd | Pushfq => {
                let bits = self.i.stack_pointer_increment().unsigned_abs() * 8;
                let f = if self.mode.vm86() {
                    let n = self.c64(bits.into());
                    self.b.call(calls::PUSHF, &[n])
                } else {
                    let status = self.b.call(integer::STATUS_FLAGS, &[]);
                    let rest = self.b.get(slots::EFLAGS);
                    let f = self.b.or(status, rest);
                    let f = self.and_imm(f, !((flags::RF | flags::VM) as u64) & 0xffff_ffff);
                    self.b.zext64(f)
                };
                let f = if bits == 64 { f } else { self.b.trunc(f) };
                self.push(bits, f);
                Flow::Next
            }
            Popf | Popfd | Popfq => {
                let bits = self.i.stack_pointer_increment().unsigned_abs() * 8;
                let v = self.pop_value(bits, 0);
                let v = self.zx64(v, bits);
                let n = self.c64(bits.into());
                self.b.call(calls::POPF, &[v, n]);
                self.add_sp((bits / 8) as u64);
                self.end_next()
            }
            Swapgs => {
                if !self.mode.long() {
                    return Some(self.undefined());
                }
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let slot = slots::seg_base(Seg::Gs);
                let (a, b) = (self.b.get(slot), self.b.get(KERNEL_GS_BASE));
                self.b.set(slot, b);
                self.b.set(KERNEL_GS_BASE, a);
                Flow::Next
            }
            Rdmsr => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let v = self.b.call(sys::RDMSR, &[]);
                self.set_edx_eax(v);
                Flow::Next
            }
            Wrmsr => {
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let v = self.edx_eax();
                self.end_with_next(sys::WRMSR, &[v])
            }
            Rdtsc | Rdtscp => {
                if self.mode.cpl() > 0 {
                    self.raise_unless_cr4(cr4::TSD, false, Vector::GeneralProtection, Some(0));
                }
                let v = self.b.call(sys::RDTSC, &[]);
                self.set_edx_eax(v);
                if m == Rdtscp {
                    let aux = self.b.get(TSC_AUX);
                    self.set_r64(gpr::RCX, aux);
                }
                Flow::Next
            }
            Rdpid => {
                let aux = self.b.get(TSC_AUX);
                let n = self.i.op_register(0).full_register().number() as u32;
                self.set_r64(n, aux);
                Flow::Next
            }
            Rdpmc => {
                if self.mode.cpl() > 0 {
                    self.raise_unless_cr4(cr4::PCE, true, Vector::GeneralProtection, Some(0));
                }
                let v = self.b.call(sys::RDPMC, &[]);
                self.set_edx_eax(v);
                Flow::Next
            }
            Cpuid => {
                self.b.call(sys::CPUID, &[]);
                Flow::Next
            }
            Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase => {
                if !self.mode.long() {
                    return Some(self.undefined());
                }
                self.raise_unless_cr4(cr4::FSGSBASE, true, Vector::InvalidOpcode, None);
                let seg = if matches!(m, Rdfsbase | Wrfsbase) { Seg::Fs } else { Seg::Gs };
                let bits = self.op_bits(0);
                if matches!(m, Rdfsbase | Rdgsbase) {
                    let v = self.b.get(slots::seg_base(seg));
                    let v = if bits == 64 { v } else { self.b.trunc(v) };
                    self.write(0, bits, v);
                } else {
                    let v = self.read(0, bits);
                    let v = self.zx64(v, bits);
                    if bits == 64 {
                        self.check_canonical(v);
                    }
                    self.b.set(slots::seg_base(seg), v);
                }
                Flow::Next
            }
            Rdpkru => {
                let v = self.b.call(sys::RDPKRU, &[]);
                self.set_edx_eax(v);
                Flow::Next
            }
            Wrpkru => {
                let v = self.reg(32, gpr::RAX);
                let v = self.b.zext64(v);
                self.end_with_next(sys::WRPKRU, &[v])
            }
            Rdrand | Rdseed => {
                let bits = self.op_bits(0);
                let v = self.b.call(sys::RANDOM, &[]);
                let v = if bits == 64 { v } else { self.b.trunc(v) };
                self.write(0, bits, v);
                // CF set, the other status flags clear; PF is clear with an odd number of ones.
                let f = self.c32(flags::packed::C);
                self.set_cc(f);
                self.set_cf(f);
                Flow::Next
            }
            Monitor => {
                if !self.privileged() {
                    return Some(self.undefined());
                }
                self.monitor();
                Flow::Next
            }
            Monitorx => {
                self.monitor();
                Flow::Next
            }
            Mwait | Mwaitx => {
                if m == Mwait && !self.privileged() {
                    return Some(self.undefined());
                }
                // Extensions: waking although interrupts are masked; a timer (MWAITX). Waking at once is permitted.
                let known = if m == Mwait { 1 } else { 3 };
                let c = self.reg(32, gpr::RCX);
                let c = self.and_imm(c, !known & 0xffff_ffff);
                let zero = self.c32(0);
                let bad = self.b.icmp(Cond::Ne, c, zero);
                self.raise_if(bad, |t| t.raise(Vector::GeneralProtection, Some(0)));
                self.b.call(sys::MWAIT, &[]);
                Flow::Next
            }
            Pause => {
                let t = &self.cfg.topology;
                if t.per_package().saturating_mul(t.sockets) > 1 {
                    self.b.call(sys::PAUSE, &[]);
                }
                Flow::Next
            }
            Clflush | Clflushopt | Clwb => {
                // It faults as a load of a byte does.
                let at = self.ea(1, false);
                self.touch(at.addr, at.disp);
                Flow::Next
            }
            Clzero => {
                let bits = self.address_of_rax();
                let a = self.r64(gpr::RAX);
                let a = if bits == 64 { a } else { self.b.zext(a, bits) };
                let a = self.and_imm(a, !63);
                let at = self.linear(Seg::Ds, a, 0, 64, true);
                let at = self.address(at);
                self.b.call(sys::CLZERO, &[at]);
                Flow::Next
            }
            _ => return None,
        };
        Some(flow)
    }
    /// Address size of instructions that take their address from rAX.
    fn address_of_rax(&self) -> u32 {
        use Code::*;
        match self.i.code() {
            Monitorw | Monitorxw | Clzerow => 16,
            Monitord | Monitorxd | Clzerod => 32,
            _ => 64,
        }
    }
    /// Loads a byte for its faults alone.
    fn touch(&mut self, addr: Value, disp: i64) {
        let op = MemOp::new(0, self.mode.mmu_idx());
        self.b.load(Type::I32, op, addr, disp);
    }
    fn monitor(&mut self) {
        let c = self.reg(32, gpr::RCX);
        let zero = self.c32(0);
        let bad = self.b.icmp(Cond::Ne, c, zero);
        self.raise_if(bad, |t| t.raise(Vector::GeneralProtection, Some(0)));
        let bits = self.address_of_rax();
        let a = self.r64(gpr::RAX);
        let a = if bits == 64 { a } else { self.b.zext(a, bits) };
        let seg = match self.i.segment_prefix() {
            Register::None => Seg::Ds,
            r => super::address::seg_of(r),
        };
        let at = self.linear(seg, a, 0, 1, false);
        self.touch(at.addr, at.disp);
    }
    /// #GP(0) unless the value is a canonical address.
    fn check_canonical(&mut self, v: Value) {
        let unused = if self.cfg.linear_bits == 57 {
            let c = self.b.get(CR4);
            let c = self.and_imm(c, cr4::LA57);
            let zero = self.c64(0);
            let on = self.b.icmp(Cond::Ne, c, zero);
            let (wide, narrow) = (self.c64(7), self.c64(16));
            self.b.select(on, wide, narrow)
        } else {
            self.c64(16)
        };
        let up = self.b.bin(Op::Shl, v, unused);
        let back = self.b.bin(Op::Sar, up, unused);
        let bad = self.b.icmp(Cond::Ne, back, v);
        self.raise_if(bad, |t| t.raise(Vector::GeneralProtection, Some(0)));
    }
    /// MOV to and from control and debug registers.
    fn mov_special(&mut self) -> Option<Flow> {
        let (to, from) = (self.i.op_register(0), self.i.op_register(1));
        let number = |r: Register| r.number() as u32;
        // The operand size is that of the mode; the upper half reads as zero and is not looked at outside 64-bit mode.
        let bits = if self.mode.long() { 64 } else { 32 };
        if to.is_cr() || from.is_cr() {
            let n = number(if to.is_cr() { to } else { from });
            if !matches!(n, 0 | 2 | 3 | 4 | 8) || (n == 8 && !self.has_cr8()) {
                return Some(self.undefined());
            }
            if !self.privileged() {
                return Some(self.gp0());
            }
            if to.is_cr() {
                let v = self.reg(bits, number(from));
                let v = self.zx64(v, bits);
                if n == 2 {
                    self.b.set(CR2, v);
                    return Some(Flow::Next);
                }
                let n = self.c64(n.into());
                return Some(self.end_with_next(sys::WRITE_CR, &[n, v]));
            }
            let v = match n {
                0 => self.b.get(CR0),
                2 => self.b.get(CR2),
                3 => self.b.get(CR3),
                4 => self.b.get(CR4),
                _ => self.b.call(sys::READ_CR8, &[]),
            };
            let v = if bits == 64 { v } else { self.b.trunc(v) };
            self.set_reg(bits, number(to), v);
            return Some(Flow::Next);
        }
        if to.is_dr() {
            let v = self.reg(bits, number(from));
            let v = self.zx64(v, bits);
            let n = self.c64(number(to).into());
            return Some(self.end_with_next(sys::WRITE_DR, &[n, v]));
        }
        if from.is_dr() {
            let n = self.c64(number(from).into());
            let v = self.b.call(sys::READ_DR, &[n]);
            let v = if bits == 64 { v } else { self.b.trunc(v) };
            self.set_reg(bits, number(to), v);
            return Some(Flow::Next);
        }
        // Test registers and the like.
        if to.is_tr() || from.is_tr() {
            return Some(self.undefined());
        }
        None
    }
    /// CR8 is there in 64-bit mode, and elsewhere on AMD processors with the LOCK prefix.
    fn has_cr8(&self) -> bool {
        self.mode.long() || (self.cfg.vendor == Vendor::Amd && self.cfg.has(crate::Feature::Cr8legacy))
    }

    // ---- saved state ----

    fn saved_state(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        match m {
            Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => {
                if self.mode.x87_nm() {
                    return Some(self.fault(Vector::DeviceNotAvailable, None));
                }
                let restore = matches!(m, Fxrstor | Fxrstor64);
                let at = self.ea(512, !restore);
                let at = self.address(at);
                self.fold_mxcsr();
                let wide = self.c64(matches!(m, Fxsave64 | Fxrstor64) as u64);
                if restore {
                    self.b.op0(Op::FpFlagsClear, Type::Void);
                    return Some(self.end_with_next(sys::FXRSTOR, &[at, wide]));
                }
                self.b.call(sys::FXSAVE, &[at, wide]);
                Some(Flow::Next)
            }
            Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xsaves | Xsaves64 | Xrstor | Xrstor64
            | Xrstors | Xrstors64 => {
                self.raise_unless_cr4(cr4::OSXSAVE, true, Vector::InvalidOpcode, None);
                let supervisor = matches!(m, Xsaves | Xsaves64 | Xrstors | Xrstors64);
                if supervisor && !self.privileged() {
                    return Some(self.gp0());
                }
                if self.mode.ts() {
                    return Some(self.fault(Vector::DeviceNotAvailable, None));
                }
                let restore = matches!(m, Xrstor | Xrstor64 | Xrstors | Xrstors64);
                let at = self.ea(512, !restore);
                let at = self.address(at);
                self.fold_mxcsr();
                let wide = matches!(m, Xsave64 | Xsaveopt64 | Xsavec64 | Xsaves64 | Xrstor64 | Xrstors64);
                let kind = match m {
                    Xsaveopt | Xsaveopt64 => 1,
                    Xsavec | Xsavec64 => 2,
                    Xsaves | Xsaves64 => 3,
                    Xrstors | Xrstors64 => 1,
                    _ => 0,
                };
                let what = self.c64(wide as u64 | kind << 8);
                if restore {
                    self.b.op0(Op::FpFlagsClear, Type::Void);
                    return Some(self.end_with_next(sys::XRSTOR, &[at, what]));
                }
                self.b.call(sys::XSAVE, &[at, what]);
                Some(Flow::Next)
            }
            Xgetbv => {
                let v = self.b.call(sys::XGETBV, &[]);
                self.set_edx_eax(v);
                Some(Flow::Next)
            }
            Xsetbv => {
                self.raise_unless_cr4(cr4::OSXSAVE, true, Vector::InvalidOpcode, None);
                if !self.privileged() {
                    return Some(self.gp0());
                }
                let v = self.edx_eax();
                Some(self.end_with_next(sys::XSETBV, &[v]))
            }
            _ => None,
        }
    }

    // ---- port I/O ----

    fn ports(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        // Without privilege the bitmap of the task decides.
        let check = !self.mode.io_privileged() || self.mode.vm86();
        match m {
            In => {
                let r = self.i.op_register(0);
                let bits = r.size() as u32 * 8;
                let port = self.port(1);
                let (size, check) = (self.c64((bits / 8).into()), self.c64(check.into()));
                let v = self.b.call(sys::IN, &[port, size, check]);
                let v = self.b.trunc(v);
                self.set_reg(bits, gpr::RAX, v);
                Some(Flow::Next)
            }
            Out => {
                let bits = self.i.op_register(1).size() as u32 * 8;
                let port = self.port(0);
                let what = self.c64(u64::from(bits / 8) | u64::from(check) << 8);
                let v = self.reg(bits, gpr::RAX);
                let v = self.zx64(v, bits);
                let leave = self.b.call(sys::OUT, &[port, what, v]);
                if self.mode.one_insn() {
                    return Some(Flow::Next);
                }
                // A write can raise an interrupt, or an SMI that is to come before the next instruction.
                let zero = self.c64(0);
                let leave = self.b.icmp(Cond::Ne, leave, zero);
                let (out, on) = (self.b.new_block(), self.b.new_block());
                self.b.end_inner_branch(leave, out, on, -1);
                self.b.switch_to(out);
                let next = self.next;
                self.b.end_leave(next);
                self.b.switch_to(on);
                Some(Flow::Next)
            }
            Insb | Insw | Insd | Outsb | Outsw | Outsd => {
                let size = match m {
                    Insb | Outsb => 1,
                    Insw | Outsw => 2,
                    _ => 4,
                };
                let rep = self.i.has_rep_prefix() || self.i.has_repne_prefix();
                let what = StringIo {
                    out: matches!(m, Outsb | Outsw | Outsd),
                    size,
                    address: self.string_address_bits(),
                    seg: super::address::seg_of(self.i.memory_segment()),
                    rep,
                    one: self.mode.one_insn(),
                    down: self.mode.df(),
                    check,
                };
                let what = self.c64(what.pack());
                let done = self.b.call(sys::STRING_IO, &[what]);
                if !rep {
                    return Some(Flow::Next);
                }
                let zero = self.c64(0);
                let done = self.b.icmp(Cond::Ne, done, zero);
                let (next, pc) = (self.next, self.pc);
                Some(self.end_cond(done, next, pc))
            }
            _ => None,
        }
    }
    fn port(&mut self, n: u32) -> Value {
        if self.i.op_kind(n) == OpKind::Register {
            let v = self.r64(gpr::RDX);
            self.b.zext(v, 16)
        } else {
            self.c64(self.i.immediate8().into())
        }
    }
}
