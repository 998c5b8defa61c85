//! Translation of FP and AdvSIMD instructions.

pub mod helpers;

/// The tables of FP and AdvSIMD families.
pub fn tables() -> Vec<&'static [super::Pattern]> {
    vec![]
}
