//! The x87 unit: state and arithmetic of 80-bit registers.
pub mod helpers;

/// State of the x87 unit.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct X87 {
    /// Significands of R0–R7; MM0–7 are the same.
    pub significand: [u64; 8],
}
