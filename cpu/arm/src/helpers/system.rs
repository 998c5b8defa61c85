//! Helpers for system registers, exceptions and other system instructions.

use crate::state::ArmCpu;
use rhea_ir::Effects;

const RAISES: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

crate::helpers! {
    base crate::helpers::SYSTEM_BASE;
    /// MRS: args (encoding op0:op1:CRn:CRm:op2 in 16 bits as `sysreg::enc`, Rt number for the syndrome) → value.
    MRS = mrs, (I32, I32) -> I64, RAISES;
    /// MSR (register): args (encoding, Rt, value). The pc is not moved; follow with `MSR_END` instead where the
    /// mode may change (`sysreg::write_ends_block`).
    MSR = msr, (I32, I32, I64) -> Void, RAISES;
    /// As `MSR`, then pc += 4: end the block with `end_lookup`.
    MSR_END = msr_end, (I32, I32, I64) -> Void, RAISES;
    /// MSR (immediate): args (op1 << 3 | op2, CRm); then pc += 4: end the block with `end_lookup`.
    MSR_IMM = msr_imm, (I32, I32) -> Void, RAISES;
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
    /// FPSR as MRS reads it (folds sticky flags and QC).
    READ_FPSR = read_fpsr, () -> I32, Effects::WRITES_STATE;
    WRITE_FPSR = write_fpsr, (I32) -> Void, Effects::WRITES_STATE;
    /// FPCR write; pc += 4: end with `end_lookup`.
    WRITE_FPCR = write_fpcr, (I32) -> Void, Effects::WRITES_STATE;
}

macro_rules! stubs {
    ($($f:ident)*) => { $(extern "C" fn $f(_cpu: &mut ArmCpu, _a: u64, _b: u64, _c: u64, _d: u64) -> u64 { 0 })* };
}
stubs! { mrs msr msr_end msr_imm sys sys_cache svc hvc smc brk hlt undef raise fp_trap pac_trap pac_fail bti_fault
pc_align sp_align illegal_state align_fault step breakpoint eret eret_to wfi wfe wfxt sev cntvct read_fpsr write_fpsr write_fpcr }
