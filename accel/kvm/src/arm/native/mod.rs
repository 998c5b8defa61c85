//! What runs them on aarch64 hosts. On others that `kvm-bindings` knows it is there for tests.

#[cfg(not(target_arch = "aarch64"))]
pub mod abi;
mod gic;
#[cfg(target_arch = "aarch64")]
mod host;
mod registers;
pub mod sys;
mod vcpu;
mod vm;

#[cfg(target_arch = "aarch64")]
pub use kvm_bindings as abi;

pub use gic::KernelGic;
#[cfg(target_arch = "aarch64")]
pub use vm::usable;
pub use vm::{KvmVm, check, host_of};
