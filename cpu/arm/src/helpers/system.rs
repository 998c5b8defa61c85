//! Helpers for system registers, exceptions and other system instructions.

use crate::reg::family;
use crate::state::ArmCpu;
use crate::syndrome::{ec, syndrome};
use crate::sysreg;
use rhea_clock::Counter;
use rhea_ir::Effects;
use rhea_ir::guest::{Access, MemAccess, request};

const RAISES: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

rhea_ir::helper_table! {
    cpu crate::state::ArmCpu, base crate::helpers::SYSTEM_BASE;
    /// MRS: args (encoding op0:op1:CRn:CRm:op2 in 16 bits as `sysreg::enc`, Rt number for the syndrome) → value.
    MRS = mrs, (I32, I32) -> I64, RAISES;
    /// MSR (register): args (encoding, Rt, value). The pc is not moved; follow with `MSR_END` instead where the
    /// mode may change (`sysreg::write_ends_block`).
    MSR = msr, (I32, I32, I64) -> Void, RAISES;
    /// As `MSR`, then pc += 4: end the block with `end_lookup`.
    MSR_END = msr_end, (I32, I32, I64) -> Void, RAISES;
    /// MSR (immediate): args (op1 << 3 | op2, CRm); then pc += 4: end the block with `end_lookup`.
    MSR_IMM = msr_imm, (I32, I32) -> Void, RAISES;
    /// After PSTATE.DAIF was cleared in place while `slots::INTERRUPT_WAITS` is set: asks for `poll` if an interrupt is pending;
    /// then pc += 4: end the block with `end_lookup`.
    UNMASKED = unmasked, () -> Void, RAISES;
    /// SYS (AT, DC, IC, TLBI...): args (encoding with op0 = 1, Rt, value); then pc += 4: end with `end_lookup`.
    SYS = sys, (I32, I32, I64) -> Void, RAISES;
    /// DC CVAC and other cache operations to which nothing needs ending: as `SYS` but pc is not moved.
    SYS_CACHE = sys_cache, (I32, I32, I64) -> Void, RAISES;
    /// SVC #imm16. Always raises (as the following ones that say so): end the block with `end_lookup`.
    SVC = svc, (I32) -> Void, RAISES;
    /// HVC: raises or returns after a hypercall with pc += 4: end with `end_lookup`.
    HVC = hvc, (I32) -> Void, RAISES;
    /// SMC: as HVC.
    SMC = smc, (I32) -> Void, RAISES;
    /// BRK #imm16: raises.
    BRK = brk, (I32) -> Void, RAISES;
    /// HLT #imm16: raises (semihosting is not offered).
    HLT = hlt, (I32) -> Void, RAISES;
    /// Undefined instruction: raises EC 0.
    UNDEF = undef, () -> Void, RAISES;
    /// Raises the exception with syndrome `ESR` (args 0: EC<<26|IL<<25|ISS) to the target EL (arg 1; 0: the default
    /// for the current EL) with preferred return address pc.
    RAISE = raise, (I64, I32) -> Void, RAISES;
    /// FP access trap (EC 0x07) to `mode.fp_trap_el`: raises.
    FP_TRAP = fp_trap, () -> Void, RAISES;
    /// Pointer authentication trap (EC 0x09) to `mode.pac_trap_el`: raises.
    PAC_TRAP = pac_trap, () -> Void, RAISES;
    /// Failed pointer authentication with FEAT_FPAC (EC 0x1c): arg = ISS (bit 0 key B, bit 1 data key): raises.
    PAC_FAIL = pac_fail, (I32) -> Void, RAISES;
    /// Branch target exception (EC 0x0d) with the current BTYPE: raises.
    BTI_FAULT = bti_fault, () -> Void, RAISES;
    /// Misaligned PC (EC 0x22), the pc in memory being the bad one: raises.
    PC_ALIGN = pc_align, () -> Void, RAISES;
    /// Misaligned SP (EC 0x26): raises.
    SP_ALIGN = sp_align, () -> Void, RAISES;
    /// Illegal execution state (EC 0x0e), for `mode.il`: raises.
    ILLEGAL_STATE = illegal_state, () -> Void, RAISES;
    /// Alignment fault of a data access: args (virtual address, 1 if a write): raises.
    ALIGN_FAULT = align_fault, (I64, I32) -> Void, RAISES;
    /// Under `mode.single_step`, first thing in the (one-instruction) block: raises a software-step exception if
    /// active-pending, else makes it pending (PSTATE.SS = 0) and returns.
    STEP = step, () -> Void, RAISES;
    /// Under `mode.breakpoints`, before each instruction: raises or stops if a breakpoint matches the pc.
    BREAKPOINT = breakpoint, () -> Void, RAISES;
    /// ERET: sets pc and mode; end the block with `end_lookup`.
    ERET = eret, () -> Void, RAISES;
    /// ERETAA/ERETAB: arg = the authenticated return address.
    ERET_TO = eret_to, (I64) -> Void, RAISES;
    /// WFI: traps or arranges that `poll` waits; pc += 4; end the block with `end_leave(pc + 4)`.
    WFI = wfi, () -> Void, RAISES;
    /// WFE: the same.
    WFE = wfe, () -> Void, RAISES;
    /// WFIT/WFET: args (timeout value, 1 if WFET).
    WFXT = wfxt, (I64, I32, I32) -> Void, RAISES;
    /// SEV / SEVL (arg 1).
    SEV = sev, (I32) -> Void, RAISES;
    /// CNTVCT_EL0 / CNTPCT_EL0 fast path when no trap applies: `MRS` does it all; this one is pure time: ticks.
    CNTVCT = cntvct, (I32) -> I64, RAISES;
    /// FPSR as MRS reads it: args (sticky flags from `Op::FpFlagsGet`).
    READ_FPSR = read_fpsr, (I32) -> I32, Effects::WRITES_STATE;
    /// FPSR: args (value); precede with `Op::FpFlagsClear`.
    WRITE_FPSR = write_fpsr, (I32) -> Void, Effects::WRITES_STATE;
    /// FPCR write; pc += 4: end with `end_lookup`.
    WRITE_FPCR = write_fpcr, (I32) -> Void, Effects::WRITES_STATE;
}

macro_rules! helper {
    ($($name:ident($cpu:ident, $a:ident, $b:ident, $c:ident) $body:block)*) => {
        $(extern "C" fn $name($cpu: &mut ArmCpu, $a: u64, $b: u64, $c: u64, _: u64) -> u64 { $body })*
    };
}

/// The next instruction follows, unless an exception was raised.
fn advance(cpu: &mut ArmCpu) {
    if cpu.header.raised == 0 {
        cpu.header.pc = cpu.header.pc.wrapping_add(4);
    }
}
/// FPCR and FPSR trap with an exception class of their own.
fn fp_register_traps(cpu: &mut ArmCpu, enc: u16) -> bool {
    if matches!(enc, FPCR | FPSR) && cpu.fp_trap_el(cpu.el()) != 0 {
        cpu.fp_trap();
        return true;
    }
    false
}
const FPCR: u16 = sysreg::enc(3, 3, 4, 4, 0);
const FPSR: u16 = sysreg::enc(3, 3, 4, 4, 1);

fn write(cpu: &mut ArmCpu, enc: u16, rt: u32, value: u64) {
    if !fp_register_traps(cpu, enc) {
        cpu.write_sysreg(enc, rt, value);
    }
}

helper! {
    mrs(cpu, e, rt, _c) {
        if fp_register_traps(cpu, e as u16) {
            return 0;
        }
        cpu.read_sysreg(e as u16, rt as u32).unwrap_or(0)
    }
    msr(cpu, e, rt, value) {
        write(cpu, e as u16, rt as u32, value);
        0
    }
    msr_end(cpu, e, rt, value) {
        write(cpu, e as u16, rt as u32, value);
        advance(cpu);
        0
    }
    msr_imm(cpu, field, imm, _c) {
        cpu.msr_immediate(field as u32, imm as u32);
        advance(cpu);
        0
    }
    unmasked(cpu, _a, _b, _c) {
        cpu.note_unmasked();
        advance(cpu);
        0
    }
    sys(cpu, e, rt, value) {
        write(cpu, e as u16, rt as u32, value);
        advance(cpu);
        0
    }
    sys_cache(cpu, e, rt, value) {
        write(cpu, e as u16, rt as u32, value);
        0
    }
    svc(cpu, imm, _b, _c) {
        cpu.svc(imm as u32);
        0
    }
    hvc(cpu, imm, _b, _c) {
        cpu.hvc(imm as u32);
        0
    }
    smc(cpu, imm, _b, _c) {
        cpu.smc(imm as u32);
        0
    }
    brk(cpu, imm, _b, _c) {
        cpu.brk(imm as u32);
        0
    }
    hlt(cpu, _imm, _b, _c) {
        // Halting debug is not enabled: undefined.
        cpu.undefined();
        0
    }
    undef(cpu, _a, _b, _c) {
        cpu.undefined();
        0
    }
    raise(cpu, esr, target, _c) {
        cpu.raise_sync_to(target as u32, esr);
        0
    }
    fp_trap(cpu, _a, _b, _c) {
        cpu.fp_trap();
        0
    }
    pac_trap(cpu, _a, _b, _c) {
        let target = crate::mode::ArmMode(cpu.header.mode).pac_trap_el();
        cpu.raise_sync_to(target, syndrome(ec::PAC_TRAP, 0));
        0
    }
    pac_fail(cpu, bits, _b, _c) {
        cpu.raise_sync(syndrome(ec::PAC_FAIL, bits & 3));
        0
    }
    bti_fault(cpu, _a, _b, _c) {
        let btype = u64::from(cpu.btype & 3);
        cpu.raise_sync(syndrome(ec::BTI, btype));
        0
    }
    pc_align(cpu, _a, _b, _c) {
        cpu.raise_pc_alignment();
        0
    }
    sp_align(cpu, _a, _b, _c) {
        cpu.raise_sync(syndrome(ec::SP_ALIGNMENT, 0));
        0
    }
    illegal_state(cpu, _a, _b, _c) {
        cpu.raise_sync(syndrome(ec::ILLEGAL_STATE, 0));
        0
    }
    align_fault(cpu, va, write, _c) {
        let kind = if write & 1 != 0 { Access::Write } else { Access::Read };
        cpu.raise_alignment(MemAccess { va, size: 1, kind, mmu_idx: 0 });
        0
    }
    step(cpu, _a, _b, _c) {
        cpu.step_check();
        0
    }
    breakpoint(cpu, _a, _b, _c) {
        cpu.breakpoint_check();
        0
    }
    eret(cpu, _a, _b, _c) {
        let el = cpu.el();
        if el == 0 {
            cpu.undefined();
            return 0;
        }
        let pc = cpu.sys_of(family::ELR, el);
        cpu.exception_return(pc);
        0
    }
    eret_to(cpu, pc, _b, _c) {
        if cpu.el() == 0 {
            cpu.undefined();
            return 0;
        }
        cpu.exception_return(pc);
        0
    }
    wfi(cpu, _a, _b, _c) {
        wait(cpu, 0, None);
        0
    }
    wfe(cpu, _a, _b, _c) {
        wait(cpu, 1, None);
        0
    }
    wfxt(cpu, _timeout, event, rn) {
        wait(cpu, if event & 1 != 0 { 3 } else { 2 }, Some(rn as u32));
        0
    }
    sev(cpu, local, _b, _c) {
        cpu.set_event();
        if local & 1 == 0 {
            let hooks = cpu.hooks.clone();
            hooks.send_event();
        }
        0
    }
    cntvct(cpu, rt, _b, _c) {
        cpu.read_sysreg(sysreg::enc(3, 3, 14, 0, 2), rt as u32).unwrap_or(0)
    }
    read_fpsr(cpu, flags, _b, _c) {
        cpu.header.fp_flags |= flags as u32;
        u64::from(cpu.read_fpsr())
    }
    write_fpsr(cpu, v, _b, _c) {
        cpu.write_fpsr(v as u32);
        0
    }
    write_fpcr(cpu, v, _b, _c) {
        cpu.write_fpcr(v as u32);
        advance(cpu);
        0
    }
}

/// WFI and relatives. WFE and the forms with a timeout never sleep: another processor's store to an exclusively monitored
/// location must end them and cannot be seen, so the host thread only yields, or the processor's turn ends. WFI sleeps in `poll`.
fn wait(cpu: &mut ArmCpu, kind: u64, rn: Option<u32>) {
    // Something that would end the wait at once also keeps it from trapping.
    if kind & 1 != 0 && cpu.event {
        cpu.event = false;
    } else if kind & 1 == 0 && cpu.wake_pending() {
        // Completes as a no-op; an unmasked interrupt is taken at the block's end.
        cpu.request(request::INTERRUPT);
    } else if cpu.wfx_traps(kind, rn) {
        return;
    } else if kind == 0 {
        cpu.wait_for_interrupt();
    } else {
        cpu.header.counter.map_or_else(std::thread::yield_now, Counter::end);
    }
    advance(cpu);
}
