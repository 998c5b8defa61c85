//! Branch facility (Book I, chapter 2): branches, CR logic, system call.

use super::Pattern;

pub static PATTERNS: &[Pattern] = &[];
