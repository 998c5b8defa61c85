//! The boards: options become a wired machine.

pub mod options;
pub mod virt;
