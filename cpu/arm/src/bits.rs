//! Bits of the control registers, named as in the Arm Architecture Reference Manual (DDI 0487).

/// PSTATE in SPSR layout.
pub mod pstate {
    pub const SP: u32 = 1;
    pub const EL_SHIFT: u32 = 2;
    pub const NRW: u32 = 1 << 4;
    pub const F: u32 = 1 << 6;
    pub const I: u32 = 1 << 7;
    pub const A: u32 = 1 << 8;
    pub const D: u32 = 1 << 9;
    pub const DAIF: u32 = 0xf << 6;
    pub const BTYPE_SHIFT: u32 = 10;
    pub const SSBS: u32 = 1 << 12;
    pub const IL: u32 = 1 << 20;
    pub const SS: u32 = 1 << 21;
    pub const PAN: u32 = 1 << 22;
    pub const UAO: u32 = 1 << 23;
    pub const DIT: u32 = 1 << 24;
}

/// SCTLR_ELx.
pub mod sctlr {
    pub const M: u64 = 1;
    pub const A: u64 = 1 << 1;
    pub const C: u64 = 1 << 2;
    pub const SA: u64 = 1 << 3;
    pub const SA0: u64 = 1 << 4;
    pub const NAA: u64 = 1 << 6;
    pub const UMA: u64 = 1 << 9;
    pub const ENDB: u64 = 1 << 13;
    pub const DZE: u64 = 1 << 14;
    pub const UCT: u64 = 1 << 15;
    pub const NTWI: u64 = 1 << 16;
    pub const NTWE: u64 = 1 << 18;
    pub const WXN: u64 = 1 << 19;
    pub const SPAN: u64 = 1 << 23;
    pub const E0E: u64 = 1 << 24;
    pub const EE: u64 = 1 << 25;
    pub const UCI: u64 = 1 << 26;
    pub const ENDA: u64 = 1 << 27;
    pub const ENIB: u64 = 1 << 30;
    pub const ENIA: u64 = 1 << 31;
    pub const BT0: u64 = 1 << 35;
    /// BT1 in EL1, BT elsewhere.
    pub const BT: u64 = 1 << 36;
    pub const DSSBS: u64 = 1 << 44;
    pub const EPAN: u64 = 1 << 57;
}

/// HCR_EL2.
pub mod hcr {
    pub const VM: u64 = 1;
    pub const SWIO: u64 = 1 << 1;
    pub const PTW: u64 = 1 << 2;
    pub const FMO: u64 = 1 << 3;
    pub const IMO: u64 = 1 << 4;
    pub const AMO: u64 = 1 << 5;
    pub const VF: u64 = 1 << 6;
    pub const VI: u64 = 1 << 7;
    pub const VSE: u64 = 1 << 8;
    pub const FB: u64 = 1 << 9;
    pub const DC: u64 = 1 << 12;
    pub const TWI: u64 = 1 << 13;
    pub const TWE: u64 = 1 << 14;
    pub const TID0: u64 = 1 << 15;
    pub const TID1: u64 = 1 << 16;
    pub const TID2: u64 = 1 << 17;
    pub const TID3: u64 = 1 << 18;
    pub const TSC: u64 = 1 << 19;
    pub const TIDCP: u64 = 1 << 20;
    pub const TACR: u64 = 1 << 21;
    pub const TSW: u64 = 1 << 22;
    pub const TPCP: u64 = 1 << 23;
    pub const TPU: u64 = 1 << 24;
    pub const TTLB: u64 = 1 << 25;
    pub const TVM: u64 = 1 << 26;
    pub const TGE: u64 = 1 << 27;
    pub const TDZ: u64 = 1 << 28;
    pub const HCD: u64 = 1 << 29;
    pub const TRVM: u64 = 1 << 30;
    pub const RW: u64 = 1 << 31;
    pub const CD: u64 = 1 << 32;
    pub const ID: u64 = 1 << 33;
    pub const E2H: u64 = 1 << 34;
    pub const TLOR: u64 = 1 << 35;
    pub const TERR: u64 = 1 << 36;
    pub const TEA: u64 = 1 << 37;
    pub const APK: u64 = 1 << 40;
    pub const API: u64 = 1 << 41;
    pub const TID4: u64 = 1 << 49;
    pub const TICAB: u64 = 1 << 50;
    pub const TOCU: u64 = 1 << 52;
    pub const TTLBIS: u64 = 1 << 54;
    pub const TTLBOS: u64 = 1 << 55;
}

/// SCR_EL3.
pub mod scr {
    pub const NS: u64 = 1;
    pub const IRQ: u64 = 1 << 1;
    pub const FIQ: u64 = 1 << 2;
    pub const EA: u64 = 1 << 3;
    pub const SMD: u64 = 1 << 7;
    pub const HCE: u64 = 1 << 8;
    pub const SIF: u64 = 1 << 9;
    pub const RW: u64 = 1 << 10;
    pub const ST: u64 = 1 << 11;
    pub const TWI: u64 = 1 << 12;
    pub const TWE: u64 = 1 << 13;
    pub const TLOR: u64 = 1 << 14;
    pub const APK: u64 = 1 << 16;
    pub const API: u64 = 1 << 17;
}

/// MDCR_EL2 and MDCR_EL3.
pub mod mdcr {
    pub const HPMN: u64 = 0x1f;
    pub const TPMCR: u64 = 1 << 5;
    pub const TPM: u64 = 1 << 6;
    pub const TDE: u64 = 1 << 8;
    pub const TDA: u64 = 1 << 9;
    pub const TDOSA: u64 = 1 << 10;
    pub const TDRA: u64 = 1 << 11;
    /// MDCR_EL3 only.
    pub const SDD: u64 = 1 << 16;
    pub const SPME: u64 = 1 << 17;
}

/// MDSCR_EL1.
pub mod mdscr {
    pub const SS: u64 = 1;
    pub const TDCC: u64 = 1 << 12;
    pub const KDE: u64 = 1 << 13;
    pub const MDE: u64 = 1 << 15;
}

/// CPTR_EL2 (without E2H) and CPTR_EL3.
pub mod cptr {
    pub const TFP: u64 = 1 << 10;
    pub const TCPAC: u64 = 1 << 31;
}

/// FPCR.
pub mod fpcr {
    pub const FZ16: u32 = 1 << 19;
    pub const RMODE_SHIFT: u32 = 22;
    pub const FZ: u32 = 1 << 24;
    pub const DN: u32 = 1 << 25;
    pub const AHP: u32 = 1 << 26;
}
