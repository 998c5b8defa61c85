//! Names of register bits. Values, not bit numbers of the manual (which count from the most significant bit).

/// Machine State Register (Book III, 3.2.1).
pub mod msr {
    pub const SF: u64 = 1 << 63;
    pub const HV: u64 = 1 << 60;
    /// Transaction state (2.07).
    pub const TS_SHIFT: u32 = 33;
    pub const TS: u64 = 3 << TS_SHIFT;
    pub const TM: u64 = 1 << 32;
    pub const VEC: u64 = 1 << 25;
    pub const VSX: u64 = 1 << 23;
    pub const EE: u64 = 1 << 15;
    pub const PR: u64 = 1 << 14;
    pub const FP: u64 = 1 << 13;
    pub const ME: u64 = 1 << 12;
    pub const FE0: u64 = 1 << 11;
    /// Trace enable: single-step.
    pub const SE: u64 = 1 << 10;
    /// Branch trace.
    pub const BE: u64 = 1 << 9;
    pub const FE1: u64 = 1 << 8;
    pub const IR: u64 = 1 << 5;
    pub const DR: u64 = 1 << 4;
    pub const PMM: u64 = 1 << 2;
    pub const RI: u64 = 1 << 1;
    pub const LE: u64 = 1;
}

/// Fixed-point exception register (Book I, 3.2.2).
pub mod xer {
    pub const SO: u64 = 1 << 31;
    pub const OV: u64 = 1 << 30;
    pub const CA: u64 = 1 << 29;
    pub const OV32: u64 = 1 << 19;
    pub const CA32: u64 = 1 << 18;
    /// Byte count of lswx and stswx.
    pub const COUNT: u64 = 0x7f;
}

/// Logical Partitioning Control Register (Book III, 2.2), as far as it concerns a guest.
pub mod lpcr {
    /// Alternate interrupt location, 2 bits.
    pub const AIL_SHIFT: u32 = 23;
    pub const AIL: u64 = 3 << AIL_SHIFT;
    /// Interrupts are taken in little-endian mode.
    pub const ILE: u64 = 1 << 25;
    /// User process table: the hardware walks process and segment tables.
    pub const UPRT: u64 = 1 << 22;
    pub const EVIRT: u64 = 1 << 21;
    /// Host radix: the partition translates by radix trees.
    pub const HR: u64 = 1 << 20;
    /// Large decrementer.
    pub const LD: u64 = 1 << 17;
    /// Exits from power saving: privileged doorbell, hypervisor doorbell, external, decrementer, other.
    pub const PECE: u64 = 0x1f << 12;
    /// Guest translation shootdown enable: tlbie and slbieg are permitted.
    pub const GTSE: u64 = 1 << 10;
    pub const TC: u64 = 1 << 9;
}

/// Data Storage Interrupt Status Register (Book III, 7.5.3); the same bits serve in SRR1 for instruction storage.
pub mod dsisr {
    /// No translation was found.
    pub const NOPTE: u64 = 0x4000_0000;
    /// Instruction: no-execute or guarded storage.
    pub const NOEXEC: u64 = 0x1000_0000;
    /// Not permitted by PP, EAA.
    pub const PROTECTION: u64 = 0x0800_0000;
    /// Atomic access to storage that has none.
    pub const ATOMIC: u64 = 0x0400_0000;
    pub const STORE: u64 = 0x0200_0000;
    /// Data address watchpoint.
    pub const DAWR: u64 = 0x0040_0000;
    /// Not permitted by AMR or IAMR.
    pub const KEY: u64 = 0x0020_0000;
    /// Malformed process table entry or tree.
    pub const BAD_CONFIG: u64 = 0x0008_0000;
    /// Reference or change bit could not be set.
    pub const RC: u64 = 0x0004_0000;
    /// copy or paste. of storage it is not meant for.
    pub const COPY_PASTE: u64 = 8;
    /// Reserved function code of an atomic memory operation.
    pub const FUNCTION_CODE: u64 = 4;
}

/// Facility Status and Control Register: enables are bits, the cause of the last interrupt is the top byte.
pub mod fscr {
    pub const DSCR: u32 = 2;
    pub const PMU: u32 = 3;
    pub const BHRB: u32 = 4;
    pub const TM: u32 = 5;
    pub const EBB: u32 = 7;
    pub const TAR: u32 = 8;
    pub const SCV: u32 = 12;
    pub const PREFIX: u32 = 13;
    pub const IC_SHIFT: u32 = 56;
    pub const IC: u64 = 0xff << IC_SHIFT;
}

/// Processor Compatibility Register.
pub mod pcr {
    pub const V2_05: u64 = 0x2;
    pub const V2_06: u64 = 0x4;
    pub const V2_07: u64 = 0x8;
    pub const V3_00: u64 = 0x10;
    pub const V3_10: u64 = 0x20;
    pub const TM_DISABLE: u64 = 1 << 61;
    pub const VSX_DISABLE: u64 = 1 << 62;
    pub const VEC_DISABLE: u64 = 1 << 63;
}
