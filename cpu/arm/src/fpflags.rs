//! Sticky floating-point flags: from the run time's encoding to FPSR.

/// In `EnvHeader::fp_flags` beside the flags of `rhea_float`: a helper saturated (FPSR.QC).
pub const SATURATED: u32 = 1 << 31;

/// FPSR cumulative bits: IOC 0, DZC 1, OFC 2, UFC 3, IXC 4, IDC 7.
pub fn to_fpsr(flags: u32) -> u32 {
    rhea_float::Flags(flags & rhea_float::Flags::ALL.0).to_fpsr()
}
