//! The mode word: everything besides pc, code bytes and page attributes that changes what an instruction translates to.

use rhea_ir::FpMode;
use rhea_ir::guest::NanRule;

/// MMU indexes, each with a TLB of its own.
pub mod mmu {
    /// Supervisor accesses that SMAP does not restrict (EFLAGS.AC set, or CR4.SMAP clear).
    pub const SUPERVISOR: u32 = 0;
    /// Supervisor accesses under SMAP.
    pub const SUPERVISOR_SMAP: u32 = 1;
    pub const USER: u32 = 2;
    /// The same three in SMM, where SMRAM is visible.
    pub const SMM: u32 = 3;
    /// Mask of all indexes in use.
    pub const ALL: u16 = 0b11_1111;
}

/// The value kept in `EnvHeader::mode`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct X86Mode(pub u64);

impl X86Mode {
    rhea_ir::mode_fields! {
        /// Current privilege level, 0–3.
        cpl with_cpl 0 2;
        /// MXCSR.RC in its own encoding: 0 nearest, 1 down, 2 up, 3 zero.
        rc with_rc 20 2;
        /// MMU index of instruction fetch and ordinary data accesses ([`mmu`]).
        mmu_idx with_mmu_idx 25 3;
    }
    rhea_ir::mode_flags! {
        /// 64-bit mode: EFER.LMA and CS.L.
        long with_long 2;
        /// CS.D: default operand and address size 32 (outside 64-bit mode).
        code32 with_code32 3;
        /// SS.B: the stack pointer is ESP rather than SP (outside 64-bit mode).
        stack32 with_stack32 4;
        /// CR0.PE.
        protected with_protected 5;
        /// EFLAGS.VM.
        vm86 with_vm86 6;
        /// EFER.LMA (also in compatibility mode).
        lma with_lma 7;
        /// CS, DS, ES and SS have base 0 and a 4 GiB limit, DS, ES and SS can be read and written, CS read. Only outside
        /// 64-bit mode; there it is set too.
        flat with_flat 8;
        /// EFLAGS.TF: a block is one instruction and ends in the single-step trap.
        tf with_tf 9;
        /// Interrupts (and after MOV SS debug traps) are held off for the next instruction: a block is one instruction.
        shadow with_shadow 10;
        /// EFLAGS.DF.
        df with_df 11;
        /// CR0.EM or TS: x87 instructions raise #NM.
        x87_nm with_x87_nm 12;
        /// CR0.EM, or CR4.OSFXSR clear: SSE instructions raise #UD.
        sse_ud with_sse_ud 13;
        /// CR0.TS: SSE and AVX instructions raise #NM.
        ts with_ts 14;
        /// CR4.OSXSAVE and XCR0 has SSE and AVX state: AVX instructions do not raise #UD.
        avx with_avx 15;
        /// Misaligned data accesses raise #AC: CR0.AM, EFLAGS.AC, CPL 3.
        ac with_ac 16;
        smm with_smm 17;
        /// Instruction breakpoints (DR7 or the debugger) are enabled.
        breakpoints with_breakpoints 18;
        /// A debugger steps: a block is one instruction.
        host_step with_host_step 19;
        /// MXCSR.FZ.
        ftz with_ftz 22;
        /// MXCSR.DAZ.
        daz with_daz 23;
        /// An SSE floating-point exception is unmasked: each instruction checks.
        fp_unmasked with_fp_unmasked 24;
        /// CPL ≤ IOPL, or real mode: CLI and STI need no other condition.
        io_privileged with_io_privileged 28;
        /// The page of code ends near or behind the limit of CS: a block is one instruction and checks.
        near_limit with_near_limit 29;
    }

    /// Bits of the effective stack address: 64, 32 or 16.
    pub const fn stack_bits(self) -> u32 {
        if self.long() {
            64
        } else if self.stack32() {
            32
        } else {
            16
        }
    }
    /// Default address size in bits.
    pub const fn code_bits(self) -> u32 {
        if self.long() {
            64
        } else if self.code32() {
            32
        } else {
            16
        }
    }
    /// A block is one instruction.
    pub const fn one_insn(self) -> bool {
        self.tf() || self.shadow() || self.host_step() || self.near_limit()
    }

    pub fn fp_mode(self) -> FpMode {
        // rhea_float: 0 nearest, 1 toward +inf, 2 toward −inf, 3 toward zero.
        let rounding = [0, 2, 1, 3][self.rc() as usize & 3];
        FpMode { rounding, nan_rule: NanRule::X86, flush: self.ftz(), daz: self.daz(), ..FpMode::default() }
    }
}
