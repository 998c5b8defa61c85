//! What runs them on x86-64 hosts.

mod chips;
mod cpuid;
mod host;
mod probe;
mod registers;
pub mod sys;
mod vcpu;
mod vm;

pub use chips::KernelChips;
pub use cpuid::host_model;
pub use probe::{has_extensions, probe, run_program, usable};
pub use vm::{KvmVm, check};
