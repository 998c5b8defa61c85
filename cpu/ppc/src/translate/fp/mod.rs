//! Translation of binary floating-point instructions (Book I, chapter 4).

use super::Pattern;

pub mod helpers;

pub static PATTERNS: &[Pattern] = &[];
pub static PREFIXED: &[Pattern] = &[];
