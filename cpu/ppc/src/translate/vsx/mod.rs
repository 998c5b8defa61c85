//! Translation of vector-scalar instructions (Book I, chapter 7).

use super::Pattern;

pub mod helpers;

pub static PATTERNS: &[Pattern] = &[];
pub static PREFIXED: &[Pattern] = &[];
