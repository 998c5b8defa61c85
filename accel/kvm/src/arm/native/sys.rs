//! What the kernel offers on aarch64 hosts, as traits: [`crate::DevKvm`] is the real thing, tests have others.

use super::abi::{kvm_guest_debug, kvm_irq_routing_entry, kvm_msi, kvm_vcpu_init};
use crate::sys::AnyVm;
use std::io::Result;
use std::sync::Arc;

/// `/dev/kvm`. Capabilities are the `KVM_CAP_` constants.
pub trait System: Send + Sync {
    /// The value of a capability: 0 if it is absent.
    fn check(&self, capability: u32) -> i32;
    fn api_version(&self) -> i32;
    /// A VM whose guest has physical addresses of so many bits; 0: 40.
    ///
    /// # Errors
    /// The kernel's, as in all methods here.
    fn create_vm(&self, address_bits: u32) -> Result<Arc<dyn VmFile>>;
}

/// A virtual machine.
pub trait VmFile: AnyVm {
    /// Sets an input of the interrupt controller: its type and number as `KVM_IRQ_LINE` has them.
    ///
    /// # Errors
    /// The kernel's, as in all methods here.
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn signal_msi(&self, msi: kvm_msi) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_routing(&self, entries: &[kvm_irq_routing_entry]) -> Result<()>;
    /// Could a device of this type be made?
    ///
    /// # Errors
    /// The kernel's.
    fn test_device(&self, kind: u32) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn create_device(&self, kind: u32) -> Result<Box<dyn DeviceFile>>;
    /// What processors of this host are initialised with.
    ///
    /// # Errors
    /// The kernel's.
    fn preferred_target(&self) -> Result<kvm_vcpu_init>;
    /// # Errors
    /// The kernel's.
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>>;
}

/// A device in the kernel: attributes by group and number, whose meaning and size are the device's.
pub trait DeviceFile: Send + Sync {
    /// # Errors
    /// The kernel's.
    fn set(&self, group: u32, attribute: u64, value: u64) -> Result<()>;
    /// Of attributes that are commands.
    ///
    /// # Errors
    /// The kernel's.
    fn command(&self, group: u32, attribute: u64) -> Result<()>;
}

/// Why a vCPU came back from guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Memory without a slot. Data read is given by [`VcpuFile::set_mmio_data`].
    Mmio {
        address: u64,
        len: u8,
        write: bool,
        data: [u8; 8],
    },
    /// A signal, or nothing to run yet.
    Interrupted,
    /// Syndrome and fault address.
    Debug {
        esr: u32,
        far: u64,
    },
    /// One of `KVM_SYSTEM_EVENT_`.
    SystemEvent(u32),
    EntryFailed {
        reason: u64,
        cpu: u32,
    },
    InternalError(u32),
    MemoryFault {
        address: u64,
    },
    /// A reason that this program did not ask for.
    Other(u32),
}

/// A virtual processor. Registers have the numbers of `KVM_GET_ONE_REG`.
pub trait VcpuFile: Send {
    /// Runs guest code; EINTR and EAGAIN are [`Exit::Interrupted`].
    ///
    /// # Errors
    /// The kernel's.
    fn run(&mut self) -> Result<Exit>;
    fn set_mmio_data(&mut self, data: [u8; 8]);
    /// The byte that, if not 0, makes the next run return at once. Valid as long as the vCPU.
    fn immediate_exit(&self) -> *mut u8;
    /// Puts it into its reset state.
    ///
    /// # Errors
    /// The kernel's.
    fn init(&self, init: &kvm_vcpu_init) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn finalize(&self, feature: u32) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn register(&self, id: u64, value: &mut [u8]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_register(&self, id: u64, value: &[u8]) -> Result<()>;
    /// Sets an attribute that has a value of 32 bits, or none.
    ///
    /// # Errors
    /// The kernel's.
    fn set_attribute(&self, group: u32, attribute: u64, value: Option<u32>) -> Result<()>;
    /// Does it wait to be switched on?
    ///
    /// # Errors
    /// The kernel's.
    fn stopped(&self) -> Result<bool>;
    /// # Errors
    /// The kernel's.
    fn set_stopped(&self, on: bool) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()>;
}
