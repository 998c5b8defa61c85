//! The x86-64 processor: architectural state, decoding, semantics as IR, page walks, exceptions.
//!
//! Section numbers without a name are of the Intel 64 and IA-32 Architectures Software Developer's Manual (SDM); where AMD
//! processors differ (AMD64 Architecture Programmer's Manual), the model's vendor decides.

mod again;
pub mod config;
mod cpuid;
pub mod debug;
mod exception;
pub mod flags;
mod guest;
pub mod helpers;
pub mod hooks;
mod interrupt;
pub mod mmu;
pub mod mode;
pub mod models;
mod msr;
mod pv;
mod reset;
pub mod saved;
pub mod segment;
mod smm;
pub mod state;
mod task;
#[cfg(test)]
mod tests;
pub mod translate;
mod x87;
mod xsave;

pub use config::{Feature, Vendor, X86Config};
pub use cpuid::CpuidState;
pub use debug::{DebugEvent, HostWatch};
pub use exception::{Exception, Vector};
pub use hooks::{ApicFault, NoHooks, X86Hooks, X86Pins};
pub use mode::X86Mode;
pub use saved::X86Saved;
pub use state::{Seg, Segment, X86Cpu};
