//! What runs them on aarch64 hosts.

mod gic;
mod host;
mod registers;
pub mod sys;
mod vcpu;
mod vm;

pub use gic::KernelGic;
pub use vm::{KvmVm, check, host, usable};
