//! The KVM accelerator: guest code runs on the host's own processor, through `/dev/kvm`.
//!
//! [`sys`] is what the kernel offers on all hosts, as a trait, so that tests can stand in for it; [`host`] is the real one. Slots of
//! guest memory follow the machine's address space ([`memory`]), and so do its doorbells ([`doorbells`]); vCPU threads ([`vcpu`]) and
//! those that want something of them agree by [`kick`]. [`parts`] puts these together. What concerns one architecture is in a module of its own: what a machine sees
//! of it is there on every host, what does it on hosts of that architecture (that of aarch64 and ppc64 is on others for tests).
//!
//! Lock order: `Gate::exclusive` → the list of slots. The list of doorbells is held for the kernel's calls only. A vCPU's `inner` is
//! held while guest code runs, and while a device is accessed by it; nobody else waits for it. No other lock is held while a device is
//! accessed.

pub mod arm;
mod assigned;
mod doorbells;
mod error;
#[cfg(target_arch = "x86_64")]
mod held;
mod host;
pub mod kick;
mod memory;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod mmio;
mod parts;
pub mod ppc;
#[cfg(target_arch = "x86_64")]
mod rings;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod routes;
pub mod sys;
mod vcpu;
pub mod x86;

pub use error::KvmError;
pub use host::{DEV_KVM, DevKvm};
pub use vcpu::KvmVcpu;

/// What else there is if KVM does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nobody asked for it.
    Default,
    /// The next of a list.
    Listed,
    /// Nothing: then it is not held to its speed.
    Last,
}

/// What a VM has used and done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots of memory in use.
    pub slots: usize,
    /// Registers whose writes do not end guest code.
    pub doorbells: usize,
    /// Ranges whose writes are held back.
    pub held: usize,
    /// Exits of vCPUs.
    pub exits: u64,
    /// Signals sent to them.
    pub kicks: u64,
}

/// What is answered to `_wanted` for guests of an architecture that is not the host's.
///
/// # Errors
/// Always.
pub fn foreign<T, U>(name: &str, _wanted: U) -> Result<T, KvmError> {
    Err(KvmError::Refused(format!("it does not run {name} guests on this host")))
}
