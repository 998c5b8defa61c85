//! What the kernel offers on x86-64 hosts, as traits: [`crate::DevKvm`] is the real thing, tests have others.

use crate::sys::{AnyVm, PageRing, WriteRing};
use kvm_bindings as kb;
use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_guest_debug, kvm_irq_routing_entry, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msi, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use std::io::Result;
use std::sync::Arc;

/// `/dev/kvm`. Capabilities are the `KVM_CAP_` constants.
pub trait System: Send + Sync {
    /// The value of a capability: 0 if it is absent.
    fn check(&self, capability: u32) -> i32;
    fn api_version(&self) -> i32;
    /// # Errors
    /// The kernel's, as in all methods here.
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>>;
    /// # Errors
    /// The kernel's.
    fn msr_indices(&self) -> Result<Vec<u32>>;
    /// Components of XSAVE's state that the kernel knows, bits of XCR0 (`ARCH_GET_XCOMP_SUPP`).
    ///
    /// # Errors
    /// The kernel's: EINVAL if it does not know the question.
    fn components(&self) -> Result<u64>;
    /// Asks that guests of this process may have a component, by number, and what belongs to it (`ARCH_REQ_XCOMP_GUEST_PERM`). Before
    /// the first vCPU.
    ///
    /// # Errors
    /// The kernel's: EINVAL if it does not know the question.
    fn permit_component(&self, number: u32) -> Result<()>;
    /// A VM of a type (`KVM_X86_*_VM`), 0: the usual one.
    ///
    /// # Errors
    /// The kernel's.
    fn create_vm(&self, kind: u32) -> Result<Arc<dyn VmFile>>;
}

/// A virtual machine.
pub trait VmFile: AnyVm {
    /// # Errors
    /// The kernel's, as in all methods here.
    fn create_irqchip(&self) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn irqchip(&self, chip: &mut kvm_irqchip) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_irqchip(&self, chip: &kvm_irqchip) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_irq_line(&self, gsi: u32, level: bool) -> Result<()>;
    /// Sends a message; false: no local APIC took it.
    ///
    /// # Errors
    /// The kernel's.
    fn signal_msi(&self, msi: kvm_msi) -> Result<bool>;
    /// # Errors
    /// The kernel's.
    fn set_routing(&self, entries: &[kvm_irq_routing_entry]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn clock(&self) -> Result<kvm_clock_data>;
    /// # Errors
    /// The kernel's.
    fn set_clock(&self, clock: &kvm_clock_data) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_tss_address(&self, gpa: u64) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_identity_map(&self, gpa: u64) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>>;
}

/// Why a vCPU came back from guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Port I/O, `count` times `size` bytes in [`VcpuFile::io_data`].
    Io {
        port: u16,
        size: u8,
        count: u32,
        write: bool,
    },
    /// Memory without a slot. Data read is given by [`VcpuFile::set_mmio_data`].
    Mmio {
        address: u64,
        len: u8,
        write: bool,
        data: [u8; 8],
    },
    /// HLT; only with interrupt controllers outside the kernel.
    Halt,
    /// An interrupt can be injected.
    IrqWindow,
    /// A triple fault.
    Shutdown,
    /// A signal, or nothing to run yet.
    Interrupted,
    Debug {
        exception: u32,
        pc: u64,
        dr6: u64,
        dr7: u64,
    },
    /// Registers that the kernel does not know; answered by [`VcpuFile::set_msr_result`].
    ReadMsr(u32),
    WriteMsr(u32, u64),
    EntryFailed {
        reason: u64,
        cpu: u32,
    },
    InternalError {
        suberror: u32,
        data: Vec<u64>,
    },
    /// One of `KVM_SYSTEM_EVENT_`.
    SystemEvent(u32),
    /// The end of a level-triggered interrupt for an I/O APIC outside the kernel.
    IoApicEoi(u8),
    /// CR8 was lowered; only with a local APIC outside the kernel.
    SetTpr,
    /// A locked access over two cache lines; a guest that hogs the bus.
    BusLock,
    /// No window for interrupts for long.
    Notify,
    /// No room is left in the ring of pages that were written to.
    DirtyRingFull,
    /// Memory that could not be accessed as the guest did: `private`, as guest code's alone, or not.
    MemoryFault {
        address: u64,
        len: u64,
        private: bool,
    },
    /// A hypercall that was asked for: R/EAX, and RBX, RCX, RDX, RSI. Answered by [`VcpuFile::set_hypercall_result`].
    Hypercall {
        number: u64,
        args: [u64; 4],
    },
    /// The processor left guest code for a reason that the kernel does not know.
    Unknown {
        reason: u64,
    },
    /// A reason that this program did not ask for.
    Other(u32),
}

/// The names of exits that come only if they are asked for, as nobody does, or on other architectures.
const NOT_ASKED_FOR: &[(u32, &str)] = &[
    (kb::KVM_EXIT_EXCEPTION, "KVM_EXIT_EXCEPTION"),
    (kb::KVM_EXIT_TPR_ACCESS, "KVM_EXIT_TPR_ACCESS"),
    (kb::KVM_EXIT_NMI, "KVM_EXIT_NMI"),
    (kb::KVM_EXIT_OSI, "KVM_EXIT_OSI"),
    (kb::KVM_EXIT_WATCHDOG, "KVM_EXIT_WATCHDOG"),
    (kb::KVM_EXIT_HYPERV, "KVM_EXIT_HYPERV"),
    (kb::KVM_EXIT_AP_RESET_HOLD, "KVM_EXIT_AP_RESET_HOLD"),
    (kb::KVM_EXIT_XEN, "KVM_EXIT_XEN"),
];

/// The name of an exit that is not handled, for messages.
#[must_use]
pub fn name_of(exit: u32) -> &'static str {
    NOT_ASKED_FOR.iter().find(|(n, _)| *n == exit).map_or("a reason that Rhea does not know", |(_, name)| name)
}

/// What of the shared page is looked at after each run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunState {
    /// An interrupt can be injected now.
    pub ready: bool,
    /// EFLAGS.IF.
    pub interrupts: bool,
    pub smm: bool,
    pub cr8: u64,
    pub apic_base: u64,
}

/// A virtual processor.
pub trait VcpuFile: Send {
    /// Runs guest code; EINTR and EAGAIN are [`Exit::Interrupted`].
    ///
    /// # Errors
    /// The kernel's.
    fn run(&mut self) -> Result<Exit>;
    /// The data of the last [`Exit::Io`].
    fn io_data(&mut self) -> &mut [u8];
    fn set_mmio_data(&mut self, data: [u8; 8]);
    /// The value read, or success of a write; `None`: #GP(0).
    fn set_msr_result(&mut self, value: Option<u64>);
    /// What RAX is after the hypercall.
    fn set_hypercall_result(&mut self, value: u64);
    fn state(&self) -> RunState;
    /// Asks for [`Exit::IrqWindow`].
    fn request_window(&mut self, on: bool);
    fn set_cr8(&mut self, value: u64);
    /// The byte that, if not 0, makes the next run return at once. Valid as long as the vCPU.
    fn immediate_exit(&self) -> *mut u8;
    /// The VM's ring of held writes, `page` pages behind the beginning of what the vCPU shares.
    ///
    /// # Errors
    /// The host's.
    fn write_ring(&self, page: u32) -> Result<Box<dyn WriteRing>>;
    /// The vCPU's ring of pages that it wrote to, of as many entries as the VM was told.
    ///
    /// # Errors
    /// The host's.
    fn page_ring(&self, entries: u32) -> Result<Box<dyn PageRing>>;
    /// # Errors
    /// The kernel's.
    fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn regs(&self) -> Result<kvm_regs>;
    /// # Errors
    /// The kernel's.
    fn set_regs(&self, regs: &kvm_regs) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn sregs(&self) -> Result<kvm_sregs>;
    /// # Errors
    /// The kernel's.
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()>;
    /// The XSAVE area in the standard format, as large as it is on this host: with dynamically enabled state too.
    ///
    /// # Errors
    /// The kernel's.
    fn xsave(&self) -> Result<Vec<u8>>;
    /// # Errors
    /// The kernel's.
    fn set_xsave(&self, area: &[u8]) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn xcrs(&self) -> Result<kvm_xcrs>;
    /// # Errors
    /// The kernel's.
    fn set_xcrs(&self, xcrs: &kvm_xcrs) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn debug_registers(&self) -> Result<kvm_debugregs>;
    /// # Errors
    /// The kernel's.
    fn set_debug_registers(&self, registers: &kvm_debugregs) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn events(&self) -> Result<kvm_vcpu_events>;
    /// # Errors
    /// The kernel's.
    fn set_events(&self, events: &kvm_vcpu_events) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn nested_state(&self) -> Result<Box<KvmNestedStateBuffer>>;
    /// # Errors
    /// The kernel's.
    fn set_nested_state(&self, state: &KvmNestedStateBuffer) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn mp_state(&self) -> Result<kvm_mp_state>;
    /// # Errors
    /// The kernel's.
    fn set_mp_state(&self, state: kvm_mp_state) -> Result<()>;
    /// Reads registers up to the first that the kernel refuses: how many.
    ///
    /// # Errors
    /// The kernel's.
    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<usize>;
    /// Writes registers up to the first that the kernel refuses: how many.
    ///
    /// # Errors
    /// The kernel's.
    fn set_msrs(&self, entries: &[kvm_msr_entry]) -> Result<usize>;
    /// # Errors
    /// The kernel's.
    fn lapic(&self) -> Result<kvm_lapic_state>;
    /// # Errors
    /// The kernel's.
    fn set_lapic(&self, lapic: &kvm_lapic_state) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()>;
    /// Injects an external interrupt; only with a local APIC or 8259s outside the kernel.
    ///
    /// # Errors
    /// The kernel's.
    fn interrupt(&self, vector: u8) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn nmi(&self) -> Result<()>;
    /// # Errors
    /// The kernel's.
    fn smi(&self) -> Result<()>;
    /// The frequency of its time-stamp counter in kHz.
    ///
    /// # Errors
    /// The kernel's.
    fn tsc_khz(&self) -> Result<u32>;
    /// # Errors
    /// The kernel's.
    fn set_tsc_khz(&self, khz: u32) -> Result<()>;
    /// Tells the guest's clock that it was stopped by the host.
    ///
    /// # Errors
    /// The kernel's.
    fn clock_stopped(&self) -> Result<()>;
}
