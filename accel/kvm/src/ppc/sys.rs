//! What the kernel offers on ppc64, as traits: [`crate::DevKvm`] is the real thing, tests have others.

use super::abi::{kvm_create_spapr_tce_64, kvm_ppc_cpu_char, kvm_regs, kvm_sregs};
use crate::sys::AnyVm;
use std::io::Result;
use std::os::fd::RawFd;
use std::sync::Arc;

/// `/dev/kvm`. Capabilities are the `KVM_CAP_` constants.
pub trait System: Send + Sync {
    /// The value of a capability: 0 if it is absent.
    fn check(&self, capability: u32) -> i32;
    fn api_version(&self) -> i32;
    /// A VM of the hardware's own kind (KVM-HV).
    ///
    /// # Errors
    /// The kernel's, as in all methods here.
    fn create_vm(&self) -> Result<Arc<dyn VmFile>>;
}

/// A virtual machine.
pub trait VmFile: AnyVm {
    /// # Errors
    /// The kernel's.
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>>;
    /// Translation of architecture 3.0: flags `KVM_PPC_MMUV3_`, second doubleword of the partition's entry.
    ///
    /// # Errors
    /// The kernel's.
    fn configure_mmu(&self, flags: u64, process_table: u64) -> Result<()>;
    /// Makes a hashed page table of 2^`order` bytes, empty, or empties the one there is.
    ///
    /// # Errors
    /// The kernel's; EBUSY while a vCPU is in guest code.
    fn allocate_htab(&self, order: u32) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn cpu_char(&self) -> Result<kvm_ppc_cpu_char>;
    /// Sets the level of an interrupt of the controller in the kernel; for a message, `true` is the edge.
    ///
    /// # Errors
    /// The kernel's.
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()>;
    /// An RTAS call by name goes to the kernel from now on, when it is made by the token; 0: no longer.
    ///
    /// # Errors
    /// The kernel's.
    fn define_rtas_token(&self, name: &str, token: u32) -> Result<()>;
    /// Makes an interrupt controller: one of `KVM_DEV_TYPE_`.
    ///
    /// # Errors
    /// The kernel's.
    fn create_device(&self, kind: u32) -> Result<Arc<dyn DeviceFile>>;
    /// Makes a table of translation control entries, whose pages are doublewords in the host's byte order.
    ///
    /// # Errors
    /// The kernel's: EBUSY if there is one with this number, ENOMEM if it is more than may be locked.
    fn create_tces(&self, table: &kvm_create_spapr_tce_64) -> Result<Arc<dyn DeviceFile>>;
    /// Can it be made?
    fn has_device(&self, kind: u32) -> bool;
}

/// A device in the kernel, which goes when it is dropped.
pub trait DeviceFile: Send + Sync {
    fn fd(&self) -> RawFd;
    /// Maps `len` bytes of the device from a page of the host on, by number.
    ///
    /// # Errors
    /// The kernel's.
    fn map(&self, page: u64, len: u64) -> Result<Box<dyn DevicePages>>;
    /// # Errors
    /// The kernel's.
    fn set(&self, group: u32, attribute: u64, value: &[u8]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn get(&self, group: u32, attribute: u64, value: &mut [u8]) -> Result<()>;
}

/// Registers of a device in this process, unmapped when it is dropped: no slot may show them any more then. Offsets are in bytes,
/// multiples of 8.
pub trait DevicePages: Send + Sync {
    /// Where they are.
    fn host(&self) -> u64;
    /// All ones beyond the end.
    fn load(&self, offset: u64) -> u64;
    fn store(&self, offset: u64, value: u64);
}

/// Why a vCPU came back from guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Memory without a slot, its bytes in their order there. What is read is given by [`VcpuFile::set_mmio_data`].
    Mmio {
        address: u64,
        len: u8,
        write: bool,
        data: [u8; 8],
    },
    /// A hypercall that the kernel leaves to others: R3, and R4 to R12. Answered by [`VcpuFile::set_hcall_result`].
    Hypercall {
        number: u64,
        args: [u64; 9],
    },
    /// A machine check of the host's memory that concerns the guest; `recovered`: nothing is lost.
    MachineCheck {
        recovered: bool,
    },
    /// A signal, or nothing to run yet.
    Interrupted,
    Debug {
        address: u64,
    },
    EntryFailed {
        reason: u64,
    },
    InternalError {
        suberror: u32,
    },
    /// One of `KVM_SYSTEM_EVENT_`.
    SystemEvent(u32),
    /// A reason that this program did not ask for.
    Other(u32),
}

/// A virtual processor.
pub trait VcpuFile: Send {
    /// Runs guest code; EINTR and EAGAIN are [`Exit::Interrupted`].
    ///
    /// # Errors
    /// The kernel's.
    fn run(&mut self) -> Result<Exit>;
    fn set_mmio_data(&mut self, data: [u8; 8]);
    /// What R3 and R4 to R12 are after the hypercall.
    fn set_hcall_result(&mut self, status: u64, args: [u64; 9]);
    /// The byte that, if not 0, makes the next run return at once. Valid as long as the vCPU.
    fn immediate_exit(&self) -> *mut u8;
    /// # Errors
    /// The kernel's.
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn regs(&self) -> Result<kvm_regs>;
    /// # Errors
    /// The kernel's.
    fn set_regs(&self, regs: &kvm_regs) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn sregs(&self) -> Result<Box<kvm_sregs>>;
    /// # Errors
    /// The kernel's.
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()>;
    /// A register by its number (`KVM_REG_PPC_`), as a number of its size.
    ///
    /// # Errors
    /// The kernel's: EINVAL for one that this processor has not.
    fn reg(&self, id: u64) -> Result<u128>;
    /// # Errors
    /// The kernel's.
    fn set_reg(&self, id: u64, value: u128) -> Result<()>;
    /// The level of the external interrupt; only without a controller in the kernel.
    ///
    /// # Errors
    /// The kernel's.
    fn interrupt(&self, level: bool) -> Result<()>;
    /// Software breakpoints end guest code.
    ///
    /// # Errors
    /// The kernel's.
    fn set_guest_debug(&self, breakpoints: bool) -> Result<()>;
}
