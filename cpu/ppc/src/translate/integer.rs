//! Fixed-point instructions (Book I, chapter 3).

use super::Pattern;

pub static PATTERNS: &[Pattern] = &[];
