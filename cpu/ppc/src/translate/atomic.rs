//! Load and reserve, store conditional, atomic memory operations, barriers (Book II, chapter 4).

use super::Pattern;

pub static PATTERNS: &[Pattern] = &[];
