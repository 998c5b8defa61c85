//! The helper table: functions that generated code calls. Each part of the crate declares its own with
//! `rhea_ir::helper_table!` and the parts are joined here at compile time.

use rhea_ir::HelperDesc;

pub mod integer;
pub mod system;

/// First id of each part. The parts reserve room so that ids do not move when one grows.
pub const SYSTEM_BASE: u16 = 0;
/// Fixed-point, branch and storage helpers: [`integer`].
pub const INTEGER_BASE: u16 = 128;
/// Binary floating point: `translate::fp::helpers`.
pub const FP_BASE: u16 = 192;
/// Vector facility: `translate::vmx::helpers`.
pub const VMX_BASE: u16 = 384;
/// VSX: `translate::vsx::helpers`.
pub const VSX_BASE: u16 = 640;
/// Decimal floating point: `translate::dfp::helpers`.
pub const DFP_BASE: u16 = 896;
/// Size of the table.
pub const COUNT: usize = 1024;

/// All helpers; indexed by `HelperId`.
pub static HELPERS: [HelperDesc; COUNT] = rhea_ir::helpers::join(&[
    (SYSTEM_BASE, system::TABLE),
    (INTEGER_BASE, integer::TABLE),
    (FP_BASE, crate::translate::fp::helpers::TABLE),
    (VMX_BASE, crate::translate::vmx::helpers::TABLE),
    (VSX_BASE, crate::translate::vsx::helpers::TABLE),
    (DFP_BASE, crate::translate::dfp::helpers::TABLE),
]);
