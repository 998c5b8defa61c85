//! Translation of decimal floating-point instructions (Book I, chapter 5).

use super::Pattern;

pub mod helpers;

pub static PATTERNS: &[Pattern] = &[];
pub static PREFIXED: &[Pattern] = &[];
