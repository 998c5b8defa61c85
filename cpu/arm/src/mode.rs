//! The mode word: everything besides pc, code bytes and page attributes that changes what an instruction translates to.

use rhea_ir::FpMode;
use rhea_ir::guest::NanRule;

/// MMU indexes: a translation regime, a privilege and the PAN state, each with a TLB of its own.
pub mod mmu {
    /// EL1&0 regime (with stage 2 if enabled), unprivileged.
    pub const E10_0: u32 = 0;
    pub const E10_1: u32 = 1;
    pub const E10_1_PAN: u32 = 2;
    /// EL2&0 regime (HCR_EL2.E2H and TGE), unprivileged.
    pub const E20_0: u32 = 3;
    pub const E20_2: u32 = 4;
    pub const E20_2_PAN: u32 = 5;
    /// EL2 regime without E2H.
    pub const E2: u32 = 6;
    pub const E3: u32 = 7;
    /// Secure EL1&0.
    pub const SE10_0: u32 = 8;
    pub const SE10_1: u32 = 9;
    pub const SE10_1_PAN: u32 = 10;
    /// Masks of indexes for TLB maintenance.
    pub const MASK_E10: u16 = 0b111;
    pub const MASK_E20: u16 = 0b11_1000;
    pub const MASK_E2: u16 = 1 << E2;
    pub const MASK_E3: u16 = 1 << E3;
    pub const MASK_SE10: u16 = 0b111 << 8;
}

/// The value kept in `EnvHeader::mode`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ArmMode(pub u64);

impl ArmMode {
    rhea_ir::mode_fields! {
        /// Current exception level, 0–3.
        el with_el 0 2;
        /// MMU index of instruction fetch and ordinary data accesses ([`mmu`]).
        mmu_idx with_mmu_idx 2 4;
        /// MMU index of LDTR/STTR and the other unprivileged accesses (already considers PSTATE.UAO).
        unpriv_idx with_unpriv_idx 6 4;
        /// Exception level that FP/AdvSIMD instructions trap to (0: they do not; then the syndrome is EC 0x07).
        fp_trap_el with_fp_trap_el 17 2;
        /// FPCR.RMode in its own encoding: 0 nearest, 1 plus infinity, 2 minus infinity, 3 zero.
        rmode with_rmode 27 2;
        /// Exception level that PAC* /AUT* and key-using instructions trap to (EC 0x09), 0 for none. Does not apply to
        /// an instruction whose key is disabled, nor to XPAC.
        pac_trap_el with_pac_trap_el 35 2;
    }
    rhea_ir::mode_flags! {
        /// SCTLR_ELx.A: all data accesses must be aligned to their element size.
        align_check with_align_check 10;
        /// SCTLR_ELx.SA or SA0: loads and stores with SP as base need SP aligned to 16.
        sp_align_check with_sp_align_check 11;
        /// Data accesses are big-endian (SCTLR_ELx.EE or E0E).
        big_endian with_big_endian 12;
        /// Top byte of data addresses is ignored where bit 55 is 0.
        tbi0 with_tbi0 13;
        /// The same where bit 55 is 1 (equal to `tbi0` in a regime with one range).
        tbi1 with_tbi1 14;
        /// Top byte of branch targets is ignored where bit 55 is 0: the target becomes bits 55:0 sign-extended if
        /// `two_ranges`, zero-extended otherwise.
        tbii0 with_tbii0 15;
        tbii1 with_tbii1 16;
        /// Pointer authentication enabled for each key (SCTLR_ELx.EnIA...); these and the next are [`ArmMode::CONTROLS`].
        pauth_ia with_pauth_ia 19;
        pauth_ib with_pauth_ib 20;
        pauth_da with_pauth_da 21;
        pauth_db with_pauth_db 22;
        /// SCTLR_ELx.BT: PACIASP/PACIBSP are not compatible with BTYPE 3 (BR from another register).
        bt with_bt 23;
        /// Software step is active: translate one instruction per block; start with the `STEP` helper.
        single_step with_single_step 24;
        /// Addresses of data accesses often carry tags: remove them before the access, where they are ignored. Without
        /// it a tag goes on to the MMU, and differently tagged aliases of a page take TLB entries from each other.
        strip_tags with_strip_tags 25;
        /// PSTATE.IL: every instruction raises an Illegal Execution state exception (helper `ILLEGAL_STATE`).
        il with_il 26;
        /// FPCR.FZ.
        fz with_fz 29;
        /// FPCR.DN.
        dn with_dn 30;
        /// FPCR.FZ16.
        fz16 with_fz16 31;
        /// FPCR.AHP.
        ahp with_ahp 32;
        /// The translation regime has two VA ranges (EL1&0, EL2&0).
        two_ranges with_two_ranges 34;
        /// SCTLR_ELx.nAA (FEAT_LSE2).
        naa with_naa 37;
        /// DC ZVA does not trap at the current EL (else call the `SYS` helper).
        zva_ok with_zva_ok 38;
        /// Hardware or debugger breakpoints exist: call the `BREAKPOINT` helper before each instruction.
        breakpoints with_breakpoints 39;
        /// Secure state.
        secure with_secure 40;
        /// MRS CTR_EL0 does not trap at the current EL.
        ctr_ok with_ctr_ok 41;
        /// PSTATE.SP: SP is that of the current level, SP_EL0 is banked.
        sp_sel with_sp_sel 42;
        /// HCR_EL2 traps some accesses of EL1 to translation controls or identification registers.
        control_traps with_control_traps 43;
        /// MDSCR_EL1.SS: whether steps are taken depends on PSTATE.D.
        step_control with_step_control 44;
        /// Accesses to the keys of pointer authentication trap (HCR_EL2.APK, SCR_EL3.APK).
        key_traps with_key_traps 45;
    }

    const KEYS: u64 = 0xf << 19;
    /// What generated code asks for where it needs it, so that the same code serves tasks with any keys enabled.
    pub const CONTROLS: u64 = Self::KEYS | 1 << Self::BT_BIT;
    /// The number of SCTLR_ELx.BT's bit among them.
    pub const BT_BIT: u32 = 23;
    /// The mode that code is translated for: whether any key is enabled; which of them, if their use traps.
    pub const fn without_controls(self) -> ArmMode {
        let keys = self.0 & Self::KEYS;
        let keys = if keys != 0 && self.pac_trap_el() == 0 { Self::KEYS } else { keys };
        ArmMode(self.0 & !Self::CONTROLS | keys)
    }

    /// FP behaviour of a region translated under this mode.
    pub fn fp_mode(self) -> FpMode {
        FpMode {
            rounding: self.rmode() as u8,
            default_nan: self.dn(),
            flush: self.fz(),
            flush_f16: self.fz16(),
            alt_half: self.ahp(),
            daz: false,
            nan_rule: NanRule::Arm,
        }
    }
    /// May the key of PAC instruction family be enabled? 0 IA, 1 IB, 2 DA, 3 DB.
    pub const fn pauth_key(self, key: u32) -> bool {
        self.0 & (1 << Self::key_bit(key)) != 0
    }
    /// The number of the key's bit among [`ArmMode::CONTROLS`].
    pub const fn key_bit(key: u32) -> u32 {
        19 + (key & 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_separate() {
        let all = ArmMode(0)
            .with_el(3)
            .with_mmu_idx(15)
            .with_unpriv_idx(15)
            .with_fp_trap_el(3)
            .with_rmode(3)
            .with_pac_trap_el(3);
        assert_eq!(all.0.count_ones(), 2 + 4 + 4 + 2 + 2 + 2);
        assert_eq!(all.with_el(1).el(), 1);
        assert_eq!(ArmMode(0).with_dn(true).with_fz(true).with_dn(false), ArmMode(0).with_fz(true));
        let controls = ArmMode(0).with_pauth_ia(true).with_pauth_ib(true).with_pauth_da(true).with_pauth_db(true);
        assert_eq!(controls.with_bt(true).0, ArmMode::CONTROLS);
        assert_eq!(ArmMode(0).with_bt(true).with_el(1).without_controls(), ArmMode(0).with_el(1));
        assert_eq!(ArmMode(0).with_pauth_db(true).with_bt(true).without_controls(), controls);
        let trapped = ArmMode(0).with_pauth_db(true).with_pac_trap_el(2);
        assert_eq!(trapped.without_controls(), trapped);
    }
}
