//! x86-64 guests on x86-64 hosts; on others they are refused.
//!
//! Interrupt controllers are in the kernel, or those of the machine outside of it ([`Irqchip`]); in the second case a vCPU
//! acknowledges interrupts through [`X86Hooks`] and injects them. The state of a processor is the kernel's while it runs,
//! and is brought into its [`X86Cpu`] when somebody asks for it ([`rhea_accel::GuestVcpu::post`]).

#[cfg(target_arch = "x86_64")]
mod native;
#[cfg(target_arch = "x86_64")]
pub use native::*;

use crate::{Choice, Counts, DevKvm, KvmError};
use rhea_accel::{GuestAccelerator, IrqFd, IrqSink, LocalApics, MsiTarget, VmControl};
use rhea_memory::{AddressSpace, RamBlock};
use rhea_x86::{Feature, X86Config, X86Cpu, X86Hooks};
use std::sync::Arc;

/// Features that need local APICs in the kernel.
pub const NEEDS_KERNEL_APIC: &[Feature] =
    &[Feature::X2apic, Feature::TscDeadline, Feature::KvmPvEoi, Feature::KvmPvUnhalt, Feature::KvmPvIpi];

/// Where interrupt controllers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Irqchip {
    /// Local APICs, I/O APIC and 8259s in the kernel.
    #[default]
    Kernel,
    /// Local APICs in the kernel, I/O APIC and 8259s the machine's.
    Split,
    /// All of them are the machine's.
    Machine,
}

/// What a VM is made of.
pub struct Setup {
    pub irqchip: Irqchip,
    pub space: Arc<AddressSpace>,
    pub hooks: Arc<dyn X86Hooks>,
    pub control: VmControl,
    /// After reset LINT0 of the first processor is an open input for the 8259s, as firmware leaves it.
    pub virtual_wire: bool,
    /// The frequency of the time-stamp counter in Hz, if it is to be another than the host's.
    pub tsc_frequency: Option<u64>,
    /// Entries of the ring of each vCPU in which the kernel puts the pages that were written to, a power of two; 0: it has bitmaps.
    pub dirty_ring: u32,
    /// RAM of which guest code may make pages its own, out of reach for devices (a software-protected VM).
    pub private: Option<Arc<RamBlock>>,
}

/// The interrupt controllers of a VM that are in the kernel; they take messages.
pub trait X86Chips: MsiTarget + LocalApics + IrqFd {
    /// The inputs of the I/O APIC, if that is among them.
    fn io_apic(&self) -> Arc<dyn IrqSink>;
    /// Those of the 8259s: eight of each.
    fn pic(&self) -> Arc<dyn IrqSink>;
    /// Are there local APICs only?
    fn split(&self) -> bool;
    /// Can eventfds interrupt?
    fn has_irqfd(&self) -> bool;
}

/// The VM of a machine.
pub trait X86Vm: GuestAccelerator<X86Cpu> {
    /// Takes from a model what this kernel cannot give: the features it lost. Before processors are made of it.
    fn restrict(&self, config: &mut X86Config) -> Vec<Feature>;
    /// The interrupt controllers in the kernel.
    fn chips(&self) -> Option<Arc<dyn X86Chips>>;
    /// Is there system-management mode?
    fn smm(&self) -> bool;
    fn counts(&self) -> Counts;
    /// Puts the kernel's controllers into their power-on state; local APICs before anything that is posted later.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn reset_chips(&self) -> Result<(), KvmError>;
    /// Makes all memory everybody's again; what guest code had for itself is lost.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    fn reset_memory(&self) -> Result<(), KvmError>;
}

/// Is KVM there, complete, not taken by another hypervisor, and fit?
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn usable(choice: Choice, irqchip: Irqchip) -> Result<(), KvmError> {
    #[cfg(target_arch = "x86_64")]
    return native::usable(choice, irqchip);
    #[cfg(not(target_arch = "x86_64"))]
    return crate::foreign("x86-64", (choice, irqchip));
}

/// The model named `host`.
///
/// # Errors
/// [`KvmError`].
pub fn host_model(kvm: &DevKvm) -> Result<X86Config, KvmError> {
    #[cfg(target_arch = "x86_64")]
    return native::host_model(kvm);
    #[cfg(not(target_arch = "x86_64"))]
    return crate::foreign("x86-64", kvm);
}

/// Makes a VM.
///
/// # Errors
/// [`KvmError`].
pub fn create(kvm: &DevKvm, setup: Setup) -> Result<Arc<dyn X86Vm>, KvmError> {
    #[cfg(target_arch = "x86_64")]
    return Ok(KvmVm::new(kvm, setup)?);
    #[cfg(not(target_arch = "x86_64"))]
    return crate::foreign("x86-64", (kvm, setup));
}
