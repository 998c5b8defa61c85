//! x86-64 guests on x86-64 hosts.
//!
//! Interrupt controllers are in the kernel, or those of the machine outside of it ([`Irqchip`]); in the second case a vCPU
//! acknowledges interrupts through [`rhea_x86::X86Hooks`] and injects them. The state of a processor is the kernel's while it runs,
//! and is brought into its [`rhea_x86::X86Cpu`] when somebody asks for it ([`rhea_accel::GuestVcpu::post`]).

mod chips;
mod cpuid;
mod probe;
mod registers;
mod vcpu;
mod vm;

pub use chips::KernelChips;
pub use cpuid::{NEEDS_KERNEL_APIC, host_model};
pub use probe::{has_extensions, probe, run_program};
pub use vcpu::KvmVcpu;
pub use vm::{Irqchip, KvmVm, Setup, check};
