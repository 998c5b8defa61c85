//! Translation of VSX (Book I, chapter 7).

use super::Pattern;

pub mod helpers;

/// The tables of the facility.
pub static TABLES: &[&[Pattern]] = &[];
pub static PREFIXED: &[Pattern] = &[];
