//! ppc64 guests on ppc64 hosts, by the processor's hypervisor state (KVM-HV).
//!
//! The kernel carries out the hypercalls it knows; the others are the board's ([`PpcHooks::hcall`]), which finds the state of the
//! calling processor in its [`PpcCpu`]. Hashed page tables are the kernel's, radix trees the guest's own. Time base and decrementer
//! are the processor's.

pub mod abi;
mod chips;
mod host;
mod registers;
pub mod sys;
mod tces;
mod vcpu;
mod vm;

pub use chips::Places;
use vm::check;
pub use vm::{KvmVm, host as host_of};

use crate::{Choice, Counts, DEV_KVM, DevKvm, KvmError};
use rhea_accel::spapr::{KernelIrqchip, KernelTces};
use rhea_accel::{GuestAccelerator, VmControl};
use rhea_memory::AddressSpace;
use rhea_ppc::{PpcCpu, PpcHooks};
use std::sync::Arc;

/// What the host's processors and its kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Processor version register; guests have the same.
    pub pvr: u32,
    /// Guests can translate by radix trees.
    pub radix: bool,
    /// Guests can translate by hashed page tables.
    pub hash: bool,
    /// There is a second data address watchpoint.
    pub dawr1: bool,
    /// H_RPT_INVALIDATE is the kernel's.
    pub rpt_invalidate: bool,
    /// Guests can have their interrupts at alternate location 3.
    pub ail_mode_3: bool,
    /// What H_GET_CPU_CHARACTERISTICS is to tell: characteristics and behaviour. `None`: the kernel does not know.
    pub characteristics: Option<(u64, u64)>,
}

/// What a VM is made of.
pub struct Setup {
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn PpcHooks>,
    pub control: VmControl,
    /// Threads of a core.
    pub threads: u32,
    /// There is a second data address watchpoint.
    pub dawr1: bool,
    /// H_RPT_INVALIDATE is carried out.
    pub rpt_invalidate: bool,
}

/// The VM of a machine.
pub trait PpcVm: GuestAccelerator<PpcCpu> {
    fn counts(&self) -> Counts;
    /// The kernel's interrupt controllers, which are used from now on for the modes there are; `None`: there are none. Once, after the
    /// processors were added; `places`: where XIVE's pages are.
    fn irqchip(&self, places: Places) -> Option<Arc<dyn KernelIrqchip>>;
    /// Is the interrupt controller in use the kernel's?
    fn kernel_irqchip(&self) -> bool;
    /// TCE tables of the kernel; `None`: it has no such thing.
    fn tces(&self) -> Option<Arc<dyn KernelTces>>;
    /// The names and tokens of RTAS calls: some of them are the kernel's while its controller is in use.
    fn set_rtas_tokens(&self, tokens: &[(String, u32)]);
    /// The partition translates by a hashed page table of 2^`order` bytes, which is empty now.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn set_hash(&self, order: u32) -> Result<(), KvmError>;
    /// It translates by radix trees: the second doubleword of its entry in the partition table; may it use `tlbie`?
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn set_radix(&self, process_table: u64, gtse: bool) -> Result<(), KvmError>;
}

/// Is the host of this architecture?
fn native<T>(unused: T) -> Result<T, KvmError> {
    if cfg!(target_arch = "powerpc64") { Ok(unused) } else { crate::foreign("ppc64", unused) }
}

/// Is KVM there, and complete?
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn usable(choice: Choice) -> Result<(), KvmError> {
    native(choice)?;
    check(&DevKvm::open(DEV_KVM)?)
}

/// What the host is.
///
/// # Errors
/// [`KvmError`].
pub fn host(kvm: &DevKvm) -> Result<Host, KvmError> {
    vm::host(native(kvm)?)
}

/// Makes a VM.
///
/// # Errors
/// [`KvmError`].
pub fn create(kvm: &DevKvm, setup: Setup) -> Result<Arc<dyn PpcVm>, KvmError> {
    Ok(KvmVm::new(native(kvm)?, setup)?)
}
