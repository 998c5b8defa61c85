//! The kernel's own KVM on x86-64. What `kvm-ioctls` lacks is here too.
#![expect(unsafe_code, reason = "system calls, and the page that the kernel shares with a vCPU's thread")]

use super::sys::{Exit, RunState, System, VcpuFile, VmFile};
use crate::DevKvm;
use crate::host::{self, KernelVm, done, uninterrupted};
use crate::rings;
use crate::sys::{PageRing, WriteRing, cap};
use kvm_bindings as kb;
use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    CpuId, KvmIrqRouting, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_guest_debug, kvm_interrupt,
    kvm_irq_routing_entry, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msi, kvm_msr_entry, kvm_regs, kvm_run,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

ioctl_iow_nr!(KVM_INTERRUPT, kb::KVMIO, 0x86, kvm_interrupt);
ioctl_ior_nr!(KVM_GET_XSAVE2, kb::KVMIO, 0xcf, kvm_xsave);
ioctl_iow_nr!(KVM_SET_XSAVE, kb::KVMIO, 0xa5, kvm_xsave);

/// Of `arch_prctl` (Linux, Documentation/arch/x86/xstate.rst).
const ARCH_GET_XCOMP_SUPP: u64 = 0x1021;
const ARCH_REQ_XCOMP_GUEST_PERM: u64 = 0x1025;

/// The size of the area that kernels without `KVM_CAP_XSAVE2` know.
const XSAVE_AREA: usize = size_of::<kvm_xsave>();

fn io<T>(result: std::result::Result<T, kvm_ioctls::Error>) -> Result<T> {
    result.map_err(|e| Error::from_raw_os_error(e.errno()))
}

impl System for DevKvm {
    fn check(&self, capability: u32) -> i32 {
        host::check(self, capability)
    }
    fn api_version(&self) -> i32 {
        self.0.get_api_version()
    }
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        io(self.0.get_supported_cpuid(kb::KVM_MAX_CPUID_ENTRIES)).map(|c| c.as_slice().to_vec())
    }
    fn msr_indices(&self) -> Result<Vec<u32>> {
        io(self.0.get_msr_index_list()).map(|l| l.as_slice().to_vec())
    }
    fn components(&self) -> Result<u64> {
        let mut known = 0u64;
        // SAFETY: the kernel writes 64 bits to the address.
        let done = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &raw mut known) };
        if done == 0 { Ok(known) } else { Err(Error::last_os_error()) }
    }
    fn permit_component(&self, number: u32) -> Result<()> {
        // SAFETY: the argument is a number.
        let done = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, u64::from(number)) };
        if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }
    fn create_vm(&self, kind: u32) -> Result<Arc<dyn VmFile>> {
        uninterrupted(|| io(self.0.create_vm_with_type(kind.into()))).map(|vm| Arc::new(Vm(vm)) as _)
    }
}

struct Vm(VmFd);

impl AsRawFd for Vm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl KernelVm for Vm {}

impl VmFile for Vm {
    fn create_irqchip(&self) -> Result<()> {
        io(self.0.create_irq_chip())
    }
    fn irqchip(&self, chip: &mut kvm_irqchip) -> Result<()> {
        io(self.0.get_irqchip(chip))
    }
    fn set_irqchip(&self, chip: &kvm_irqchip) -> Result<()> {
        io(self.0.set_irqchip(chip))
    }
    fn set_irq_line(&self, gsi: u32, level: bool) -> Result<()> {
        io(self.0.set_irq_line(gsi, level))
    }
    fn signal_msi(&self, msi: kvm_msi) -> Result<bool> {
        io(self.0.signal_msi(msi)).map(|taken| taken > 0)
    }
    fn set_routing(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        let table = KvmIrqRouting::from_entries(entries).map_err(|_| Error::from_raw_os_error(libc::ENOSPC))?;
        io(self.0.set_gsi_routing(&table))
    }
    fn clock(&self) -> Result<kvm_clock_data> {
        io(self.0.get_clock())
    }
    fn set_clock(&self, clock: &kvm_clock_data) -> Result<()> {
        io(self.0.set_clock(clock))
    }
    fn set_tss_address(&self, gpa: u64) -> Result<()> {
        io(self.0.set_tss_address(gpa as usize))
    }
    fn set_identity_map(&self, gpa: u64) -> Result<()> {
        io(self.0.set_identity_map_address(gpa))
    }
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>> {
        let fd = io(self.0.create_vcpu(id.into()))?;
        let xsave = match self.0.check_extension_raw(kb::KVM_CAP_XSAVE2.into()) {
            n if n > 0 => (n as usize).max(XSAVE_AREA),
            _ => 0,
        };
        let faults = self.0.check_extension_raw(cap::MEMORY_FAULT_INFO.into()) > 0;
        Ok(Box::new(Vcpu::new(fd, self.0.run_size(), xsave, faults)))
    }
}

struct Vcpu {
    fd: VcpuFd,
    /// The shared page, mapped as long as `fd` lives.
    run: *mut kvm_run,
    /// Bytes of the shared page.
    run_len: usize,
    /// Bytes of the XSAVE area; 0: the kernel knows the old size only.
    xsave: usize,
    /// A run that fails with EFAULT says why in the shared page.
    faults: bool,
    /// Where in the shared page the data of port I/O is, and how much.
    io: (usize, usize),
}

impl Vcpu {
    fn new(mut fd: VcpuFd, run_len: usize, xsave: usize, faults: bool) -> Self {
        let run: *mut kvm_run = fd.get_kvm_run();
        Self { fd, run, run_len, xsave, faults, io: (0, 0) }
    }
    fn exit(&mut self) -> Exit {
        let len = self.run_len;
        let run = *self.shared();
        let with = &run.__bindgen_anon_1;
        // SAFETY (for all blocks below): the exit reason says which field of the union the kernel has filled in; each is plain
        // data for which all bit patterns are valid.
        match run.exit_reason {
            kb::KVM_EXIT_IO => {
                // SAFETY: see above.
                let io = unsafe { with.io };
                let bytes = (io.count as usize).saturating_mul(io.size.into());
                let offset = usize::try_from(io.data_offset).unwrap_or(usize::MAX);
                // The kernel's; checked, since a slice is made of it.
                if offset.checked_add(bytes).is_none_or(|end| end > len) {
                    return Exit::Other(kb::KVM_EXIT_IO);
                }
                self.io = (offset, bytes);
                let write = u32::from(io.direction) == kb::KVM_EXIT_IO_OUT;
                Exit::Io { port: io.port, size: io.size, count: io.count, write }
            }
            kb::KVM_EXIT_MMIO => {
                // SAFETY: see above.
                let m = unsafe { with.mmio };
                Exit::Mmio { address: m.phys_addr, len: m.len.min(8) as u8, write: m.is_write != 0, data: m.data }
            }
            kb::KVM_EXIT_HLT => Exit::Halt,
            kb::KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindow,
            kb::KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            kb::KVM_EXIT_INTR => Exit::Interrupted,
            kb::KVM_EXIT_SET_TPR => Exit::SetTpr,
            kb::KVM_EXIT_X86_BUS_LOCK => Exit::BusLock,
            kb::KVM_EXIT_NOTIFY => Exit::Notify,
            kb::KVM_EXIT_DIRTY_RING_FULL => Exit::DirtyRingFull,
            kb::KVM_EXIT_DEBUG => {
                // SAFETY: see above.
                let d = unsafe { with.debug.arch };
                Exit::Debug { exception: d.exception, pc: d.pc, dr6: d.dr6, dr7: d.dr7 }
            }
            kb::KVM_EXIT_X86_RDMSR => {
                // SAFETY: see above.
                Exit::ReadMsr(unsafe { with.msr.index })
            }
            kb::KVM_EXIT_X86_WRMSR => {
                // SAFETY: see above.
                let m = unsafe { with.msr };
                Exit::WriteMsr(m.index, m.data)
            }
            kb::KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: see above.
                let f = unsafe { with.fail_entry };
                Exit::EntryFailed { reason: f.hardware_entry_failure_reason, cpu: f.cpu }
            }
            kb::KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: see above.
                let e = unsafe { with.internal };
                let data = e.data.iter().take(e.ndata as usize).copied().collect();
                Exit::InternalError { suberror: e.suberror, data }
            }
            kb::KVM_EXIT_SYSTEM_EVENT => {
                // SAFETY: see above.
                Exit::SystemEvent(unsafe { with.system_event.type_ })
            }
            kb::KVM_EXIT_IOAPIC_EOI => {
                // SAFETY: see above.
                Exit::IoApicEoi(unsafe { with.eoi.vector })
            }
            kb::KVM_EXIT_MEMORY_FAULT => {
                // SAFETY: see above.
                let f = unsafe { with.memory_fault };
                let private = f.flags & u64::from(kb::KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0;
                Exit::MemoryFault { address: f.gpa, len: f.size, private }
            }
            kb::KVM_EXIT_HYPERCALL => {
                // SAFETY: see above.
                let h = unsafe { with.hypercall };
                Exit::Hypercall { number: h.nr, args: [h.args[0], h.args[1], h.args[2], h.args[3]] }
            }
            kb::KVM_EXIT_UNKNOWN => {
                // SAFETY: see above.
                Exit::Unknown { reason: unsafe { with.hw.hardware_exit_reason } }
            }
            other => Exit::Other(other),
        }
    }
    fn shared(&self) -> &kvm_run {
        // SAFETY: the mapping lives as long as `fd`, and the kernel writes it only during a run, which needs `&mut self`; the one
        // byte that a signal handler writes is looked at through raw pointers only.
        unsafe { &*self.run }
    }
    fn shared_mut(&mut self) -> &mut kvm_run {
        // SAFETY: as above, and `&mut self` makes it the only reference.
        unsafe { &mut *self.run }
    }
}

// SAFETY: the pointer is to a mapping that belongs to the value.
unsafe impl Send for Vcpu {}

impl VcpuFile for Vcpu {
    fn run(&mut self) -> Result<Exit> {
        match self.fd.run().map(drop) {
            Ok(()) => Ok(self.exit()),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
            Err(e) if e.errno() == libc::EFAULT && self.faults => match self.exit() {
                exit @ Exit::MemoryFault { .. } => Ok(exit),
                _ => Err(Error::from_raw_os_error(e.errno())),
            },
            Err(e) => Err(Error::from_raw_os_error(e.errno())),
        }
    }
    fn io_data(&mut self) -> &mut [u8] {
        let (offset, len) = self.io;
        // SAFETY: checked in `exit` to be inside of the mapping, behind the structure; nobody else has a reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.run.cast::<u8>().add(offset), len) }
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        self.shared_mut().__bindgen_anon_1.mmio.data = data;
    }
    fn set_msr_result(&mut self, value: Option<u64>) {
        let run = self.shared_mut();
        run.__bindgen_anon_1.msr.error = u8::from(value.is_none());
        if run.exit_reason == kb::KVM_EXIT_X86_RDMSR {
            run.__bindgen_anon_1.msr.data = value.unwrap_or(0);
        }
    }
    fn set_hypercall_result(&mut self, value: u64) {
        self.shared_mut().__bindgen_anon_1.hypercall.ret = value;
    }
    fn state(&self) -> RunState {
        let run = self.shared();
        RunState {
            ready: run.ready_for_interrupt_injection != 0,
            interrupts: run.if_flag != 0,
            smm: u32::from(run.flags) & kb::KVM_RUN_X86_SMM != 0,
            cr8: run.cr8,
            apic_base: run.apic_base,
        }
    }
    fn request_window(&mut self, on: bool) {
        self.shared_mut().request_interrupt_window = on.into();
    }
    fn set_cr8(&mut self, value: u64) {
        self.shared_mut().cr8 = value;
    }
    fn immediate_exit(&self) -> *mut u8 {
        // SAFETY: the address of a field of a live mapping.
        unsafe { &raw mut (*self.run).immediate_exit }
    }
    fn write_ring(&self, page: u32) -> Result<Box<dyn WriteRing>> {
        rings::writes(&self.fd, page)
    }
    fn page_ring(&self, entries: u32) -> Result<Box<dyn PageRing>> {
        rings::pages(&self.fd, kb::KVM_DIRTY_LOG_PAGE_OFFSET, entries)
    }
    fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<()> {
        let table = CpuId::from_entries(entries).map_err(|_| Error::from_raw_os_error(libc::E2BIG))?;
        io(self.fd.set_cpuid2(&table))
    }
    fn regs(&self) -> Result<kvm_regs> {
        io(self.fd.get_regs())
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        io(self.fd.set_regs(regs))
    }
    fn sregs(&self) -> Result<kvm_sregs> {
        io(self.fd.get_sregs())
    }
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        io(self.fd.set_sregs(sregs))
    }
    fn xsave(&self) -> Result<Vec<u8>> {
        if self.xsave == 0 {
            let area = io(self.fd.get_xsave())?;
            return Ok(area.region.iter().flat_map(|w| w.to_le_bytes()).collect());
        }
        let mut area = vec![0; self.xsave];
        // SAFETY: the kernel writes as many bytes as it said for this VM, which the buffer has.
        done(unsafe { ioctl_with_mut_ptr(&self.fd, KVM_GET_XSAVE2(), area.as_mut_ptr()) })?;
        Ok(area)
    }
    fn set_xsave(&self, area: &[u8]) -> Result<()> {
        if area.len() < XSAVE_AREA.max(self.xsave) {
            return Err(Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the kernel reads as many bytes as it said for this VM, checked above.
        done(unsafe { ioctl_with_ptr(&self.fd, KVM_SET_XSAVE(), area.as_ptr()) })
    }
    fn xcrs(&self) -> Result<kvm_xcrs> {
        io(self.fd.get_xcrs())
    }
    fn set_xcrs(&self, xcrs: &kvm_xcrs) -> Result<()> {
        io(self.fd.set_xcrs(xcrs))
    }
    fn debug_registers(&self) -> Result<kvm_debugregs> {
        io(self.fd.get_debug_regs())
    }
    fn set_debug_registers(&self, registers: &kvm_debugregs) -> Result<()> {
        io(self.fd.set_debug_regs(registers))
    }
    fn events(&self) -> Result<kvm_vcpu_events> {
        io(self.fd.get_vcpu_events())
    }
    fn set_events(&self, events: &kvm_vcpu_events) -> Result<()> {
        io(self.fd.set_vcpu_events(events))
    }
    fn nested_state(&self) -> Result<Box<KvmNestedStateBuffer>> {
        let mut state = Box::new(KvmNestedStateBuffer::empty());
        io(self.fd.nested_state(&mut state)).map(|_| state)
    }
    fn set_nested_state(&self, state: &KvmNestedStateBuffer) -> Result<()> {
        io(self.fd.set_nested_state(state))
    }
    fn mp_state(&self) -> Result<kvm_mp_state> {
        io(self.fd.get_mp_state())
    }
    fn set_mp_state(&self, state: kvm_mp_state) -> Result<()> {
        io(self.fd.set_mp_state(state))
    }
    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<usize> {
        let mut done = 0;
        for chunk in entries.chunks_mut(kb::KVM_MAX_MSR_ENTRIES) {
            let mut table = Msrs::from_entries(chunk).map_err(|_| Error::from_raw_os_error(libc::E2BIG))?;
            let n = io(self.fd.get_msrs(&mut table))?;
            chunk.copy_from_slice(table.as_slice());
            done += n;
            if n < chunk.len() {
                break;
            }
        }
        Ok(done)
    }
    fn set_msrs(&self, entries: &[kvm_msr_entry]) -> Result<usize> {
        let mut done = 0;
        for chunk in entries.chunks(kb::KVM_MAX_MSR_ENTRIES) {
            let table = Msrs::from_entries(chunk).map_err(|_| Error::from_raw_os_error(libc::E2BIG))?;
            let n = io(self.fd.set_msrs(&table))?;
            done += n;
            if n < chunk.len() {
                break;
            }
        }
        Ok(done)
    }
    fn lapic(&self) -> Result<kvm_lapic_state> {
        io(self.fd.get_lapic())
    }
    fn set_lapic(&self, lapic: &kvm_lapic_state) -> Result<()> {
        io(self.fd.set_lapic(lapic))
    }
    fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()> {
        io(self.fd.set_guest_debug(debug))
    }
    fn interrupt(&self, vector: u8) -> Result<()> {
        let wanted = kvm_interrupt { irq: vector.into() };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &wanted) })
    }
    fn nmi(&self) -> Result<()> {
        io(self.fd.nmi())
    }
    fn smi(&self) -> Result<()> {
        io(self.fd.smi())
    }
    fn tsc_khz(&self) -> Result<u32> {
        io(self.fd.get_tsc_khz())
    }
    fn set_tsc_khz(&self, khz: u32) -> Result<()> {
        io(self.fd.set_tsc_khz(khz))
    }
    fn clock_stopped(&self) -> Result<()> {
        io(self.fd.kvmclock_ctrl())
    }
}
