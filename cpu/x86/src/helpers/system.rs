//! The basic calls of generated code: faults, one-instruction blocks, control transfers between segments, interrupts.
//!
//! "Ends the block": the helper has set pc (and perhaps mode); the translator ends with `end_lookup` (`Translator::end_with`).
//! All others leave pc alone; after those that may change the mode end with `Translator::end_with_next`.

use crate::exception::{Exception, Vector};
use crate::flags;
use crate::segment::Size;
use crate::state::{Seg, X86Cpu};
use rhea_ir::Effects;
use rhea_ir::guest::request;

const BOTH: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

crate::helpers! {
    base crate::helpers::SYSTEM_BASE;
    /// Raises an exception at the current instruction: args (`exception::pack`). Never returns to generated code.
    RAISE = raise, (I64) -> Void, BOTH;
    /// Logs an instruction that this crate lacks: args (`iced_x86::Code` as a number).
    UNIMPLEMENTED = unimplemented, (I64) -> Void, Effects::READS_STATE;
    /// The next instruction is in the shadow of STI: interrupts are held off for it. Look the mode up after it.
    SET_SHADOW = set_shadow, () -> Void, Effects::WRITES_STATE;
    /// The code of this page may cross the limit of CS: starts the instruction again under `X86Mode::near_limit`.
    SET_NEAR_LIMIT = set_near_limit, () -> Void, BOTH;
    /// Under `near_limit`: #GP(0) if the instruction of this many bytes crosses the limit of CS.
    CS_LIMIT = cs_limit, (I64) -> Void, BOTH;
    /// Under `breakpoints`, before an instruction: instruction breakpoints.
    BREAKPOINT = breakpoint, () -> Void, BOTH;
    /// Before an instruction that is a block of its own; `SET_PC` or a helper that ends the block completes it.
    ONE_INSN = one_insn, () -> Void, BOTH;
    /// Sets the pc (linear) after an instruction, whose traps are taken: end with `end_lookup`.
    SET_PC = set_pc, (I64) -> Void, BOTH;
    /// Has the vCPU loop poll for interrupts.
    LOOK_FOR_INTERRUPTS = look_for_interrupts, () -> Void, Effects::READS_STATE;
    /// The full limit and type check: args (segment | bytes << 8 | write << 32, offset): #GP(0) or #SS(0), or nothing.
    CHECK_SEGMENT = check_segment, (I64, I64) -> Void, BOTH;
    /// EFLAGS.DF: args (non-zero to set it). Changes the mode.
    SET_DF = set_df, (I32) -> Void, Effects::WRITES_STATE;

    /// Loads a segment register: args (number of the register, selector). For CS #UD. Changes the mode outside 64-bit mode
    /// and, for SS, sets the shadow: end with `end_with_next`. For POP change RSP after it.
    LOAD_SEG = load_seg, (I64, I64) -> Void, BOTH;
    /// Far JMP: args (selector, offset, operand size in bits, length of the instruction). Ends the block.
    FAR_JMP = far_jmp, (I64, I64, I64, I64) -> Void, BOTH;
    /// Far CALL: the same.
    FAR_CALL = far_call, (I64, I64, I64, I64) -> Void, BOTH;
    /// Far RET: args (operand size in bits, bytes to release). Ends the block.
    FAR_RET = far_ret, (I64, I64) -> Void, BOTH;
    /// IRET: args (operand size in bits). Ends the block.
    IRET = iret, (I64) -> Void, BOTH;
    /// INT n: args (vector, length of the instruction). Ends the block.
    SOFT_INT = soft_int, (I64, I64) -> Void, BOTH;
    /// INT3: args (length). Ends the block.
    INT3 = int3, (I64) -> Void, BOTH;
    /// INTO with OF set (the translator tests it): args (length). Ends the block.
    INTO = into, (I64) -> Void, BOTH;
    /// INT1 (ICEBP): args (length). Ends the block.
    INT1 = int1, (I64) -> Void, BOTH;
    /// SYSCALL: args (length). Ends the block.
    SYSCALL = syscall, (I64) -> Void, BOTH;
    /// SYSRET: args (operand size in bits: 64 or 32). Ends the block.
    SYSRET = sysret, (I64) -> Void, BOTH;
    /// SYSENTER. Ends the block.
    SYSENTER = sysenter, () -> Void, BOTH;
    /// SYSEXIT: args (operand size in bits: 64 or 32). Ends the block.
    SYSEXIT = sysexit, (I64) -> Void, BOTH;
    /// HLT with its privilege check: args (length). Ends the block.
    HLT = hlt, (I64) -> Void, BOTH;
    /// POPF with its checks: args (value popped, operand size in bits). Changes the mode: end with `end_with_next`. Change
    /// RSP after it.
    POPF = popf, (I64, I64) -> Void, BOTH;
    /// EFLAGS as PUSHF pushes it, with its checks (VM86): args (operand size in bits).
    PUSHF = pushf, (I64) -> I64, BOTH;
    /// CLI with its checks (when not `io_privileged`).
    CLI = cli, () -> Void, BOTH;
    /// STI with its checks (when not `io_privileged`); the shadow is the translator's.
    STI = sti, () -> Void, BOTH;
    /// LLDT: args (selector).
    LLDT = lldt, (I64) -> Void, BOTH;
    /// LTR: args (selector).
    LTR = ltr, (I64) -> Void, BOTH;
    /// VERR: args (selector): ZF as 0 or 1.
    VERR = verr, (I64) -> I64, BOTH;
    /// VERW: the same.
    VERW = verw, (I64) -> I64, BOTH;
    /// LAR: args (selector): bit 32 is ZF, the low half the access rights.
    LAR = lar, (I64) -> I64, BOTH;
    /// LSL: the same with the limit.
    LSL = lsl, (I64) -> I64, BOTH;
    /// RSM (#UD outside SMM). Ends the block.
    RSM = rsm, () -> Void, BOTH;
    /// #GP(0) unless the target of a branch is canonical: args (address).
    CHECK_TARGET = check_target, (I64) -> Void, BOTH;
}

macro_rules! helper {
    ($($name:ident($cpu:ident $(, $a:ident)*) $body:block)*) => {
        $(helper!(@ $name $cpu [$($a)*] $body);)*
    };
    (@ $name:ident $cpu:ident [] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, _: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident $b:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, $b: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident $b:ident $c:ident $d:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, $b: u64, $c: u64, $d: u64) -> u64 { $body }
    };
}

/// Delivers what the operation raised.
fn done(cpu: &mut X86Cpu, r: Result<(), Exception>) -> u64 {
    if let Err(e) = r {
        cpu.raise_exception(e);
    }
    0
}
fn value(cpu: &mut X86Cpu, r: Result<u64, Exception>) -> u64 {
    match r {
        Ok(v) => v,
        Err(e) => {
            cpu.raise_exception(e);
            0
        }
    }
}

helper! {
    raise(cpu, word) {
        let (vector, code) = crate::exception::unpack(word);
        cpu.raise(vector, code);
        0
    }
    unimplemented(cpu, code) {
        cpu.log_unimplemented_insn(code as u32);
        0
    }
    set_shadow(cpu) {
        cpu.set_shadow(false);
        0
    }
    set_near_limit(cpu) {
        cpu.set_near_limit();
        0
    }
    cs_limit(cpu, len) {
        let last = cpu.eip().wrapping_add(len).wrapping_sub(1);
        if last > u64::from(cpu.seg[Seg::Cs as usize].limit) {
            cpu.raise(Vector::GeneralProtection, Some(0));
        }
        0
    }
    breakpoint(cpu) {
        cpu.breakpoint_check();
        0
    }
    one_insn(cpu) {
        cpu.begin_one_insn();
        0
    }
    set_pc(cpu, linear) {
        let from = cpu.header.pc;
        if cpu.is_long() && !cpu.canonical(linear) {
            (cpu.header.branch, cpu.header.pc) = (from, linear);
            cpu.undo_branch();
            if cpu.header.pc == from {
                cpu.raise(Vector::GeneralProtection, Some(0));
                return 0;
            }
        }
        cpu.complete(linear);
        0
    }
    look_for_interrupts(cpu) {
        cpu.request(request::INTERRUPT);
        0
    }
    check_segment(cpu, what, offset) {
        let r = cpu.check_segment(what as u32 & 0xff, offset, (what >> 8) as u32 & 0xff_ffff, what >> 32 & 1 != 0);
        done(cpu, r)
    }
    set_df(cpu, v) {
        cpu.eflags = if v as u32 != 0 { cpu.eflags | flags::DF } else { cpu.eflags & !flags::DF };
        cpu.rebuild_mode();
        0
    }
    load_seg(cpu, seg, selector) {
        let r = cpu.load_segment(seg as u32, selector as u16);
        done(cpu, r)
    }
    far_jmp(cpu, selector, offset, bits, len) {
        let r = cpu.far_jmp(selector as u16, offset, Size::of_bits(bits), len);
        done(cpu, r)
    }
    far_call(cpu, selector, offset, bits, len) {
        let r = cpu.far_call(selector as u16, offset, Size::of_bits(bits), len);
        done(cpu, r)
    }
    far_ret(cpu, bits, release) {
        let r = cpu.far_ret(Size::of_bits(bits), release as u16);
        done(cpu, r)
    }
    iret(cpu, bits) {
        let r = cpu.iret(Size::of_bits(bits));
        done(cpu, r)
    }
    soft_int(cpu, vector, len) {
        cpu.soft_int(vector as u8, len);
        0
    }
    int3(cpu, len) {
        cpu.int3(len);
        0
    }
    into(cpu, len) {
        cpu.into(len);
        0
    }
    int1(cpu, len) {
        cpu.int1(len);
        0
    }
    syscall(cpu, len) {
        let r = cpu.syscall(len);
        done(cpu, r)
    }
    sysret(cpu, bits) {
        let r = cpu.sysret(bits == 64);
        done(cpu, r)
    }
    sysenter(cpu) {
        let r = cpu.sysenter();
        done(cpu, r)
    }
    sysexit(cpu, bits) {
        let r = cpu.sysexit(bits == 64);
        done(cpu, r)
    }
    hlt(cpu, len) {
        let r = cpu.hlt(len);
        done(cpu, r)
    }
    popf(cpu, v, bits) {
        let r = cpu.popf(v as u32, bits as u32);
        done(cpu, r)
    }
    pushf(cpu, bits) {
        let r = cpu.pushf(bits as u32);
        value(cpu, r)
    }
    cli(cpu) {
        let r = cpu.cli();
        done(cpu, r)
    }
    sti(cpu) {
        let r = cpu.sti();
        done(cpu, r)
    }
    lldt(cpu, selector) {
        let r = cpu.lldt(selector as u16);
        done(cpu, r)
    }
    ltr(cpu, selector) {
        let r = cpu.ltr(selector as u16);
        done(cpu, r)
    }
    verr(cpu, selector) {
        let r = cpu.verify(selector as u16, false).map(u64::from);
        value(cpu, r)
    }
    verw(cpu, selector) {
        let r = cpu.verify(selector as u16, true).map(u64::from);
        value(cpu, r)
    }
    lar(cpu, selector) {
        let r = cpu.lar(selector as u16).map(|v| v.map_or(0, |v| u64::from(v) | 1 << 32));
        value(cpu, r)
    }
    lsl(cpu, selector) {
        let r = cpu.lsl(selector as u16).map(|v| v.map_or(0, |v| u64::from(v) | 1 << 32));
        value(cpu, r)
    }
    rsm(cpu) {
        let r = cpu.rsm();
        done(cpu, r)
    }
    check_target(cpu, to) {
        if !cpu.canonical(to) {
            cpu.raise(Vector::GeneralProtection, Some(0));
        }
        0
    }
}
