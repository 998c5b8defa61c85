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
