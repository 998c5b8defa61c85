//! aarch64 guests on aarch64 hosts; on others they are refused.
//!
//! The kernel has the interrupt controller, the generic timers, PSCI and the performance monitors, and the state of a processor while it
//! runs: it is brought into its [`ArmCpu`] when somebody asks for it ([`rhea_accel::GuestVcpu::post`]).

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod native;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use native::{KernelGic, KvmVm, abi, check, host_of, sys};

use crate::{Choice, Counts, DevKvm, KvmError};
use rhea_accel::{GuestAccelerator, IrqSink, MsiTarget, VmControl};
use rhea_arm::{ArmConfig, ArmCpu, ArmHooks};
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// What the host can give.
#[derive(Debug)]
pub struct Host {
    /// A processor like the host's; with [`rhea_arm::Feature::Pmu`] if a guest's may have performance monitors.
    pub config: ArmConfig,
    /// The kernel has a GICv2, a GICv3.
    pub gicv2: bool,
    pub gicv3: bool,
    pub sve: bool,
    pub pauth: bool,
    /// Bits of physical addresses that a guest may have.
    pub address_bits: u32,
}

/// The interrupt controller in the kernel, and where it is.
#[derive(Clone, Debug)]
pub enum Gic {
    V2 {
        distributor: u64,
        cpu_interface: u64,
    },
    V3 {
        distributor: u64,
        /// Where redistributors are, and how many.
        redistributors: Vec<(u64, u32)>,
        its: Option<u64>,
    },
}

/// What a VM is made of.
pub struct Setup {
    pub gic: Gic,
    /// Shared peripheral interrupts.
    pub spis: u32,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn ArmHooks>,
    pub control: VmControl,
    pub address_bits: u32,
    /// Performance monitors, and the number of their private peripheral interrupt.
    pub pmu: Option<u32>,
    pub sve: bool,
    pub pauth: bool,
}

/// The interrupt controller: pin n is shared peripheral interrupt n; messages go to its ITS.
pub trait ArmGic: IrqSink + MsiTarget {}

/// The VM of a machine.
pub trait ArmVm: GuestAccelerator<ArmCpu> {
    fn gic(&self) -> Arc<dyn ArmGic>;
    /// All processors are there; none runs before.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn complete(&self) -> Result<(), KvmError>;
    fn counts(&self) -> Counts;
    /// Puts the interrupt controller into its reset state. No processor runs.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn reset_gic(&self) -> Result<(), KvmError>;
}

/// Is KVM there, complete, and not taken by another hypervisor?
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn usable(choice: Choice) -> Result<(), KvmError> {
    #[cfg(target_arch = "aarch64")]
    return native::usable(choice);
    #[cfg(not(target_arch = "aarch64"))]
    return crate::foreign("aarch64", choice);
}

/// What the host can give.
///
/// # Errors
/// [`KvmError`].
pub fn host(kvm: &DevKvm) -> Result<Host, KvmError> {
    #[cfg(target_arch = "aarch64")]
    return native::host_of(kvm);
    #[cfg(not(target_arch = "aarch64"))]
    return crate::foreign("aarch64", kvm);
}

/// Makes a VM.
///
/// # Errors
/// [`KvmError`].
pub fn create(kvm: &DevKvm, setup: Setup) -> Result<Arc<dyn ArmVm>, KvmError> {
    #[cfg(target_arch = "aarch64")]
    return Ok(KvmVm::new(kvm, setup)?);
    #[cfg(not(target_arch = "aarch64"))]
    return crate::foreign("aarch64", (kvm, setup));
}
