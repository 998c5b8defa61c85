//! Translation of FP and AdvSIMD instructions.

pub mod helpers;
