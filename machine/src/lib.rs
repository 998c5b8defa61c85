//! The boards: options become a wired machine.

pub mod config;
pub mod devices;
pub mod machine;
pub mod options;
pub mod run;
pub mod virt;

pub use config::MachineConfig;
pub use machine::{Machine, MachineCpu, RunState};
