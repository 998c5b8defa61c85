//! The mode word: everything but the address that changes what an instruction translates to.

use crate::config::Isa;
use rhea_ir::FpMode;
use rhea_ir::guest::NanRule;

/// MMU indexes. Those of translated accesses are given to combinations of privilege and authority masks as they come:
/// `PpcCpu::select_rights`.
pub mod mmu {
    /// Translation off (MSR.IR or DR clear).
    pub const REAL: u32 = 0;
}

/// The value kept in `EnvHeader::mode`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PpcMode(pub u64);

impl PpcMode {
    rhea_ir::mode_fields! {
        /// MMU index of instruction fetch ([`mmu`]).
        fetch_idx with_fetch_idx 0 4;
        /// MMU index of data accesses.
        data_idx with_data_idx 4 4;
        /// FPSCR.RN: 0 nearest, 1 toward zero, 2 toward +infinity, 3 toward −infinity.
        rn with_rn 18 2;
        /// The version whose instructions exist: [`PpcMode::isa`].
        isa_level with_isa_level 22 2;
        /// FPSCR.DRN: rounding of decimal floating point.
        drn with_drn 32 3;
    }
    rhea_ir::mode_flags! {
        /// MSR.SF: 64-bit mode.
        sf with_sf 8;
        /// MSR.PR: problem state.
        pr with_pr 9;
        /// MSR.LE: little-endian.
        le with_le 10;
        /// MSR.FP, VEC, VSX in problem state: the facility is available. Privileged code runs with what the last program had on, and
        /// seldom uses any: it looks at MSR where it does, and is translated once.
        fp with_fp 11;
        vec with_vec 12;
        vsx with_vsx 13;
        /// One instruction a block, after which a trace interrupt (MSR.SE) or the debugger is due.
        single_step with_single_step 15;
        /// MSR.BE: trace interrupt after branches.
        branch_trace with_branch_trace 16;
        /// A debugger's breakpoints exist: call the `BREAKPOINT` helper before each instruction.
        breakpoints with_breakpoints 17;
        /// A floating-point exception is enabled in FPSCR and MSR.FE0 or FE1 is set: exact helpers.
        fp_traps with_fp_traps 20;
        /// FPSCR.NI or VSCR.NJ: the vector unit flushes denormals.
        vscr_nj with_vscr_nj 21;
        /// Facilities of FSCR, as far as they apply: available.
        tar with_tar 24;
        dscr with_dscr 25;
        scv with_scv 26;
        prefixed with_prefixed 27;
        ebb with_ebb 28;
        /// Any enable bit of FPSCR (VE, OE, UE, ZE, XE) is set, whatever MSR says: results differ then.
        fp_enables with_fp_enables 29;
    }

    pub fn isa(self) -> Isa {
        Isa::from_u32(self.isa_level())
    }
    /// FP behaviour of a region translated under this mode.
    pub fn fp_mode(self) -> FpMode {
        FpMode {
            // rhea_float: 0 nearest-even, 1 toward +inf, 2 toward −inf, 3 toward zero.
            rounding: [0, 3, 1, 2][self.rn() as usize & 3],
            nan_rule: NanRule::Ppc,
            ..FpMode::default()
        }
    }
}
