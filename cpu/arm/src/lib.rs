//! The AArch64 processor: state, translation to IR, exceptions, address translation, timers and debug.

pub mod config;
pub mod crypto;
pub mod helpers;
pub mod mode;
pub mod reg;
pub mod state;
pub mod translate;

pub use config::{ArmConfig, Feature};
pub use mode::ArmMode;
pub use state::ArmCpu;
