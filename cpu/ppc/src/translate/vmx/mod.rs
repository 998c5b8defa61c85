//! Translation of vector instructions (Book I, chapter 6).

use super::Pattern;

pub mod helpers;

pub static PATTERNS: &[Pattern] = &[];
pub static PREFIXED: &[Pattern] = &[];
