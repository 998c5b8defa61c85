//! The KVM accelerator: guest code runs on the host's own processor, through `/dev/kvm`.
//!
//! [`sys`] is what the kernel offers, as traits, so that tests can stand in for it; [`host`] is the real one. Slots of guest memory
//! follow the machine's address space ([`memory`]), and so do its doorbells ([`doorbells`]); vCPU threads and those that want something
//! of them agree by [`kick`]. What concerns one architecture is in a module of its own.
//!
//! Lock order: `Gate::exclusive` → the list of slots. The list of doorbells is held for the kernel's calls only. A vCPU's `inner` is
//! held while guest code runs, and while a device is accessed by it; nobody else waits for it. No other lock is held while a device is
//! accessed.

mod doorbells;
mod error;
mod host;
pub mod kick;
mod memory;
pub mod sys;
pub mod x86;

pub use error::KvmError;
pub use host::DevKvm;
