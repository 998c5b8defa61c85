//! The JIT accelerator: guest code through IR to host code, a softmmu, and vCPU threads.
//!
//! Lock order: `Core::exclusive` → `Core::tracking`, or the queue of `compiler` → `Core::cache` → a vCPU's `queue`. No lock is held while a device is accessed, and
//! none but a vCPU's own `inner` while guest code runs.

mod blocks;
pub mod cache;
mod code;
mod compiler;
mod context;
mod fetch;
mod indirect;
mod interpret;
pub mod regalloc;
mod region;
mod report;
mod runtime;
mod shared;
mod softmmu;
mod template;
mod tlb;
pub mod translate;
mod turns;
mod vcpu;
mod vm;
pub mod x64;

/// Is there code for the host's processor? Without, only the interpreter runs ([`JitOptions::interpret`]).
pub const HAS_BACK_END: bool = cfg!(target_arch = "x86_64");

pub use report::Installed;
pub use vcpu::JitVcpu;
pub use vm::{JitOptions, JitVm};
