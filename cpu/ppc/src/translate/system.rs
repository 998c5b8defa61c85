//! System instructions: special-purpose registers, MSR, TLB and SLB (Book II and III).

use super::Pattern;

pub static PATTERNS: &[Pattern] = &[];
