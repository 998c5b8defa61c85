//! Why KVM cannot be used, a line each.

use std::io;
use thiserror::Error;

/// Why KVM cannot be used, or stopped working.
#[derive(Debug, Error)]
pub enum KvmError {
    #[error("{0} does not exist: the kernel has no KVM, or its module is not loaded")]
    Absent(String),
    #[error("{0} may not be opened: have the right to read and write it (mostly the group kvm)")]
    Denied(String),
    #[error("{path} cannot be opened: {source}")]
    Open { path: String, source: io::Error },
    #[error("another hypervisor has taken the processor's virtualization extensions")]
    Busy,
    #[error("the kernel's KVM is too old: it lacks {0}")]
    TooOld(&'static str),
    #[error("no memory slot is left: the machine needs more than the {0} of this kernel")]
    Slots(u32),
    #[error("the processor's virtualization is not fit to run a system: {0}")]
    Unfit(String),
    #[error("{0}")]
    Refused(String),
    #[error("{call}: {source}")]
    Call { call: &'static str, source: io::Error },
}

/// Names the call that failed.
pub(crate) trait Context<T> {
    fn during(self, call: &'static str) -> Result<T, KvmError>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, call: &'static str) -> Result<T, KvmError> {
        self.map_err(|source| KvmError::Call { call, source })
    }
}
