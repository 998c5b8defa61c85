//! The AArch64 processor: state, translation to IR, exceptions, address translation, timers and debug.

pub mod bits;
pub mod config;
pub mod crypto;
pub mod debug;
pub mod exception;
pub mod fpflags;
mod guest;
pub mod helpers;
pub mod hooks;
mod mmu;
pub mod mode;
pub mod models;
pub mod pmu;
pub mod reg;
pub mod saved;
pub mod simd_helpers;
pub mod state;
pub mod syndrome;
pub mod sysreg;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod translate;

pub use config::{ArmConfig, Feature};
pub use debug::{DebugEvent, HostWatch};
pub use hooks::{ArmHooks, ArmPins, Conduit, IccContext, NoHooks, Pin, Trap};
pub use mode::ArmMode;
pub use models::{CpuError, MODELS};
pub use saved::ArmSaved;
pub use state::ArmCpu;
pub use timer::{GenericTimers, TimerId};
