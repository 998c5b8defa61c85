//! Fixed-point storage access (Book I, 3.3.2–3.3.7).

use super::Pattern;

pub static PATTERNS: &[Pattern] = &[];
