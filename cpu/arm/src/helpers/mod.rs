//! The helper table: functions that generated code calls. Each part of the crate declares its own with
//! `rhea_ir::helper_table!` and the parts are joined here at compile time.

use rhea_ir::HelperDesc;

pub mod system;

/// First id of each part. The parts reserve room so that ids do not move when one grows.
pub const SYSTEM_BASE: u16 = 0;
/// Integer, branch, load/store helpers: `translate::helpers`.
pub const INTEGER_BASE: u16 = 64;
/// FP and AdvSIMD helpers: `translate::simd::helpers`.
pub const SIMD_BASE: u16 = 128;
/// Cryptographic helpers: `crypto::helpers`.
pub const CRYPTO_BASE: u16 = 512;
/// Size of the table.
pub const COUNT: usize = 640;

/// All helpers; indexed by `HelperId`.
pub static HELPERS: [HelperDesc; COUNT] = rhea_ir::helpers::join(&[
    (SYSTEM_BASE, system::TABLE),
    (INTEGER_BASE, crate::translate::helpers::TABLE),
    (SIMD_BASE, crate::translate::simd::helpers::TABLE),
    (CRYPTO_BASE, crate::crypto::helpers::TABLE),
]);
