//! The kernel's own KVM on aarch64.
#![expect(unsafe_code, reason = "the page that the kernel shares with a vCPU's thread, attributes by address")]

use super::sys::{DeviceFile, Exit, System, VcpuFile, VmFile};
use crate::DevKvm;
use crate::host::{self, KernelVm, uninterrupted};
use kvm_bindings as kb;
use kvm_bindings::{
    KvmIrqRouting, kvm_create_device, kvm_device_attr, kvm_guest_debug, kvm_irq_routing_entry, kvm_mp_state, kvm_msi,
    kvm_run, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, VcpuFd, VmFd};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

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
    fn create_vm(&self, address_bits: u32) -> Result<Arc<dyn VmFile>> {
        uninterrupted(|| io(self.0.create_vm_with_type(address_bits.into()))).map(|vm| Arc::new(Vm(vm)) as _)
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
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()> {
        io(self.0.set_irq_line(irq, level))
    }
    fn signal_msi(&self, msi: kvm_msi) -> Result<()> {
        io(self.0.signal_msi(msi)).map(drop)
    }
    fn set_routing(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        let table = KvmIrqRouting::from_entries(entries).map_err(|_| Error::from_raw_os_error(libc::ENOSPC))?;
        io(self.0.set_gsi_routing(&table))
    }
    fn test_device(&self, kind: u32) -> Result<()> {
        let mut device = kvm_create_device { type_: kind, fd: 0, flags: kb::KVM_CREATE_DEVICE_TEST };
        // Nothing is made: the descriptor that it would be is not one, and must not be closed.
        io(self.0.create_device(&mut device).map(std::mem::forget))
    }
    fn create_device(&self, kind: u32) -> Result<Box<dyn DeviceFile>> {
        let mut device = kvm_create_device { type_: kind, ..Default::default() };
        Ok(Box::new(Device(io(self.0.create_device(&mut device))?)))
    }
    fn preferred_target(&self) -> Result<kvm_vcpu_init> {
        let mut init = kvm_vcpu_init::default();
        io(self.0.get_preferred_target(&mut init))?;
        Ok(init)
    }
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>> {
        let mut fd = io(self.0.create_vcpu(id.into()))?;
        let run: *mut kvm_run = fd.get_kvm_run();
        Ok(Box::new(Vcpu { fd, run }))
    }
}

struct Device(DeviceFd);

impl DeviceFile for Device {
    fn set(&self, group: u32, attr: u64, value: u64) -> Result<()> {
        // Attributes have 32 or 64 bits; the host is little-endian.
        let addr = (&raw const value).expose_provenance() as u64;
        io(self.0.set_device_attr(&kvm_device_attr { flags: 0, group, attr, addr }))
    }
    fn command(&self, group: u32, attr: u64) -> Result<()> {
        io(self.0.set_device_attr(&kvm_device_attr { flags: 0, group, attr, addr: 0 }))
    }
}

struct Vcpu {
    fd: VcpuFd,
    /// The shared page, mapped as long as `fd` lives.
    run: *mut kvm_run,
}

impl Vcpu {
    fn exit(&self) -> Exit {
        // SAFETY: the mapping lives as long as `fd`, and the kernel writes it only during a run, which needs `&mut self`; the one
        // byte that a signal handler writes is looked at through raw pointers only.
        let run = unsafe { &*self.run };
        let with = &run.__bindgen_anon_1;
        // SAFETY (for all blocks below): the exit reason says which field of the union the kernel has filled in; each is plain
        // data for which all bit patterns are valid.
        match run.exit_reason {
            kb::KVM_EXIT_MMIO => {
                // SAFETY: see above.
                let m = unsafe { with.mmio };
                Exit::Mmio { address: m.phys_addr, len: m.len.min(8) as u8, write: m.is_write != 0, data: m.data }
            }
            kb::KVM_EXIT_INTR => Exit::Interrupted,
            kb::KVM_EXIT_DEBUG => {
                // SAFETY: see above.
                let d = unsafe { with.debug.arch };
                Exit::Debug { esr: d.hsr, far: d.far }
            }
            kb::KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: see above.
                let f = unsafe { with.fail_entry };
                Exit::EntryFailed { reason: f.hardware_entry_failure_reason, cpu: f.cpu }
            }
            kb::KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: see above.
                Exit::InternalError(unsafe { with.internal }.suberror)
            }
            kb::KVM_EXIT_SYSTEM_EVENT => {
                // SAFETY: see above.
                Exit::SystemEvent(unsafe { with.system_event.type_ })
            }
            kb::KVM_EXIT_MEMORY_FAULT => {
                // SAFETY: see above.
                Exit::MemoryFault { address: unsafe { with.memory_fault.gpa } }
            }
            other => Exit::Other(other),
        }
    }
}

// SAFETY: the pointer is to a mapping that belongs to the value.
unsafe impl Send for Vcpu {}

impl VcpuFile for Vcpu {
    fn run(&mut self) -> Result<Exit> {
        match self.fd.run().map(drop) {
            Ok(()) => Ok(self.exit()),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
            Err(e) => Err(Error::from_raw_os_error(e.errno())),
        }
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        // SAFETY: as in `exit`, and `&mut self` makes it the only reference.
        unsafe { (*self.run).__bindgen_anon_1.mmio.data = data };
    }
    fn immediate_exit(&self) -> *mut u8 {
        // SAFETY: the address of a field of a live mapping.
        unsafe { &raw mut (*self.run).immediate_exit }
    }
    fn init(&self, init: &kvm_vcpu_init) -> Result<()> {
        io(self.fd.vcpu_init(init))
    }
    fn finalize(&self, feature: u32) -> Result<()> {
        io(self.fd.vcpu_finalize(&(feature as i32)))
    }
    fn register(&self, id: u64, value: &mut [u8]) -> Result<()> {
        io(self.fd.get_one_reg(id, value)).map(drop)
    }
    fn set_register(&self, id: u64, value: &[u8]) -> Result<()> {
        io(self.fd.set_one_reg(id, value)).map(drop)
    }
    fn set_attribute(&self, group: u32, attr: u64, value: Option<u32>) -> Result<()> {
        let addr = value.as_ref().map_or(0, |v| std::ptr::from_ref(v).expose_provenance() as u64);
        io(self.fd.set_device_attr(&kvm_device_attr { flags: 0, group, attr, addr }))
    }
    fn stopped(&self) -> Result<bool> {
        Ok(io(self.fd.get_mp_state())?.mp_state == kb::KVM_MP_STATE_STOPPED)
    }
    fn set_stopped(&self, on: bool) -> Result<()> {
        let mp_state = if on { kb::KVM_MP_STATE_STOPPED } else { kb::KVM_MP_STATE_RUNNABLE };
        io(self.fd.set_mp_state(kvm_mp_state { mp_state }))
    }
    fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()> {
        io(self.fd.set_guest_debug(debug))
    }
}
