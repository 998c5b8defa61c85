//! The kernel's own KVM on ppc64.
#![expect(unsafe_code, reason = "system calls, and the page that the kernel shares with a vCPU's thread")]

use super::abi::{self, kvm_ppc_cpu_char, kvm_regs, kvm_run, kvm_sregs};
use super::sys::{DeviceFile, DevicePages, Exit, System, VcpuFile, VmFile};
use crate::DevKvm;
use crate::host::{self, KernelVm, done, uninterrupted};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

/// A descriptor that a call has returned.
fn descriptor(result: i32) -> Result<OwnedFd> {
    done(result)?;
    // SAFETY: the kernel made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

impl System for DevKvm {
    fn check(&self, capability: u32) -> i32 {
        host::check(self, capability)
    }
    fn api_version(&self) -> i32 {
        // SAFETY: no argument.
        unsafe { ioctl(self, abi::KVM_GET_API_VERSION) }
    }
    fn create_vm(&self) -> Result<Arc<dyn VmFile>> {
        // SAFETY: no argument.
        let run_len = unsafe { ioctl(self, abi::KVM_GET_VCPU_MMAP_SIZE) };
        done(run_len)?;
        let run_len = (run_len as usize).max(size_of::<kvm_run>());
        // SAFETY: the argument is a number.
        let create = || descriptor(unsafe { ioctl_with_val(self, abi::KVM_CREATE_VM, abi::KVM_VM_PPC_HV) });
        uninterrupted(create).map(|fd| Arc::new(Vm { fd, run_len }) as _)
    }
}

struct Vm {
    fd: OwnedFd,
    /// Bytes of the page shared with a vCPU.
    run_len: usize,
}

impl AsRawFd for Vm {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl KernelVm for Vm {}

impl VmFile for Vm {
    fn create_vcpu(&self, id: u32) -> Result<Box<dyn VcpuFile>> {
        // SAFETY: the argument is a number.
        let fd = descriptor(unsafe { ioctl_with_val(&self.fd, abi::KVM_CREATE_VCPU, id.into()) })?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, wherever the kernel likes.
        let run = unsafe { libc::mmap(ptr::null_mut(), self.run_len, access, kind, fd.as_raw_fd(), 0) };
        if run == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Box::new(Vcpu { fd, run: run.cast(), run_len: self.run_len }))
    }
    fn configure_mmu(&self, flags: u64, process_table: u64) -> Result<()> {
        let wanted = abi::kvm_ppc_mmuv3_cfg { flags, process_table };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_PPC_CONFIGURE_V3_MMU, &wanted) })
    }
    fn allocate_htab(&self, order: u32) -> Result<()> {
        let mut order = order;
        // SAFETY: a word, which the kernel may write.
        done(unsafe { ioctl_with_mut_ref(&self.fd, abi::KVM_PPC_ALLOCATE_HTAB, &mut order) })
    }
    fn cpu_char(&self) -> Result<kvm_ppc_cpu_char> {
        let mut value = kvm_ppc_cpu_char::default();
        // SAFETY: the kernel writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.fd, abi::KVM_PPC_GET_CPU_CHAR, &mut value) })?;
        Ok(value)
    }
    fn set_irq_line(&self, irq: u32, level: bool) -> Result<()> {
        let wanted = abi::kvm_irq_level { irq, level: level.into() };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_IRQ_LINE, &wanted) })
    }
    fn define_rtas_token(&self, name: &str, token: u32) -> Result<()> {
        let mut wanted = abi::kvm_rtas_token_args { name: [0; 120], token: token.into() };
        for (to, byte) in wanted.name[..119].iter_mut().zip(name.bytes()) {
            *to = byte;
        }
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_PPC_RTAS_DEFINE_TOKEN, &wanted) })
    }
    fn create_device(&self, kind: u32) -> Result<Arc<dyn DeviceFile>> {
        host::create_device(&self.fd, kind).map(|fd| Arc::new(KernelDevice(fd)) as _)
    }
    fn create_tces(&self, table: &abi::kvm_create_spapr_tce_64) -> Result<Arc<dyn DeviceFile>> {
        // SAFETY: the structure is only read.
        let fd = descriptor(unsafe { ioctl_with_ref(&self.fd, abi::KVM_CREATE_SPAPR_TCE_64, table) })?;
        Ok(Arc::new(KernelDevice(fd)))
    }
    fn has_device(&self, kind: u32) -> bool {
        let mut device = abi::kvm_create_device { type_: kind, fd: 0, flags: abi::KVM_CREATE_DEVICE_TEST };
        // SAFETY: the kernel reads and writes the structure.
        unsafe { ioctl_with_mut_ref(&self.fd, abi::KVM_CREATE_DEVICE, &mut device) == 0 }
    }
}

struct KernelDevice(OwnedFd);

impl DeviceFile for KernelDevice {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn map(&self, page: u64, len: u64) -> Result<Box<dyn DevicePages>> {
        let (len, offset) = (len as usize, (page * host::page_size()) as libc::off_t);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, self.0.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Box::new(Pages { base: base.cast(), len }))
    }
    fn set(&self, group: u32, attribute: u64, value: &[u8]) -> Result<()> {
        let addr = value.as_ptr().expose_provenance() as u64;
        let wanted = abi::kvm_device_attr { flags: 0, group, attr: attribute, addr };
        // SAFETY: callers give as many bytes as the attribute has, which the kernel reads.
        done(unsafe { ioctl_with_ref(&self.0, abi::KVM_SET_DEVICE_ATTR, &wanted) })
    }
    fn get(&self, group: u32, attribute: u64, value: &mut [u8]) -> Result<()> {
        let addr = value.as_mut_ptr().expose_provenance() as u64;
        let wanted = abi::kvm_device_attr { flags: 0, group, attr: attribute, addr };
        // SAFETY: callers give as many bytes as the attribute has, which the kernel writes.
        done(unsafe { ioctl_with_ref(&self.0, abi::KVM_GET_DEVICE_ATTR, &wanted) })
    }
}

/// Pages of a device, mapped as long as the value lives.
struct Pages {
    base: *mut u64,
    len: usize,
}

// SAFETY: the pointer is to a mapping that belongs to the value, of registers that any thread may access.
unsafe impl Send for Pages {}
// SAFETY: as above; accesses are volatile, never by reference.
unsafe impl Sync for Pages {}

impl Pages {
    fn register(&self, offset: u64) -> Option<*mut u64> {
        let offset = usize::try_from(offset).ok().filter(|at| at % 8 == 0 && *at < self.len)?;
        // SAFETY: inside of the mapping.
        Some(unsafe { self.base.byte_add(offset) })
    }
}

impl DevicePages for Pages {
    fn host(&self) -> u64 {
        self.base.expose_provenance() as u64
    }
    fn load(&self, offset: u64) -> u64 {
        // SAFETY: a register of the device (checked).
        self.register(offset).map_or(u64::MAX, |at| unsafe { at.read_volatile() })
    }
    fn store(&self, offset: u64, value: u64) {
        if let Some(at) = self.register(offset) {
            // SAFETY: as above.
            unsafe { at.write_volatile(value) };
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: its own mapping; no slot shows it any more (contract of the trait).
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// What is in the first half of a doubleword in memory.
fn first(word: u64) -> u32 {
    let b = word.to_ne_bytes();
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

struct Vcpu {
    fd: OwnedFd,
    /// The shared page, mapped as long as the value lives.
    run: *mut kvm_run,
    run_len: usize,
}

// SAFETY: the pointer is to a mapping that belongs to the value.
unsafe impl Send for Vcpu {}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // SAFETY: its own mapping; nobody has a pointer into it any more (contract of `immediate_exit`).
        unsafe { libc::munmap(self.run.cast(), self.run_len) };
    }
}

impl Vcpu {
    fn exit(&self) -> Exit {
        // SAFETY: the mapping lives as long as the value, and the kernel writes it only during a run, which needs `&mut self`; the
        // one byte that a signal handler writes is looked at through raw pointers only. All of it is numbers.
        let (reason, flags, with) = unsafe { ((*self.run).exit_reason, (*self.run).flags, &(*self.run).with) };
        match reason {
            abi::KVM_EXIT_MMIO => {
                let write = with[2].to_ne_bytes()[4] != 0;
                Exit::Mmio { address: with[0], data: with[1].to_ne_bytes(), len: first(with[2]).min(8) as u8, write }
            }
            abi::KVM_EXIT_PAPR_HCALL => Exit::Hypercall { number: with[0], args: std::array::from_fn(|n| with[2 + n]) },
            abi::KVM_EXIT_NMI => {
                let what = flags & abi::KVM_RUN_PPC_NMI_DISP_MASK;
                Exit::MachineCheck { recovered: what == abi::KVM_RUN_PPC_NMI_DISP_FULLY_RECOV }
            }
            abi::KVM_EXIT_INTR => Exit::Interrupted,
            abi::KVM_EXIT_DEBUG => Exit::Debug { address: with[0] },
            abi::KVM_EXIT_FAIL_ENTRY => Exit::EntryFailed { reason: with[0] },
            abi::KVM_EXIT_INTERNAL_ERROR => Exit::InternalError { suberror: first(with[0]) },
            abi::KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent(first(with[0])),
            other => Exit::Other(other),
        }
    }
    fn with(&mut self) -> &mut [u64] {
        // SAFETY: as in `exit`, and `&mut self` makes it the only reference.
        unsafe { &mut (*self.run).with }
    }
}

impl VcpuFile for Vcpu {
    fn run(&mut self) -> Result<Exit> {
        // SAFETY: the kernel writes the shared page, to which there is no reference meanwhile.
        match done(unsafe { ioctl(&self.fd, abi::KVM_RUN) }) {
            Ok(()) => Ok(self.exit()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Ok(Exit::Interrupted),
            Err(e) => Err(e),
        }
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        self.with()[1] = u64::from_ne_bytes(data);
    }
    fn set_hcall_result(&mut self, status: u64, args: [u64; 9]) {
        let with = self.with();
        with[1] = status;
        with[2..11].copy_from_slice(&args);
    }
    fn immediate_exit(&self) -> *mut u8 {
        // SAFETY: the address of a field of a live mapping.
        unsafe { &raw mut (*self.run).immediate_exit }
    }
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        host::enable(&self.fd, capability, args)
    }
    fn regs(&self) -> Result<kvm_regs> {
        let mut regs = kvm_regs::default();
        // SAFETY: the kernel writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.fd, abi::KVM_GET_REGS, &mut regs) })?;
        Ok(regs)
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_SET_REGS, regs) })
    }
    fn sregs(&self) -> Result<Box<kvm_sregs>> {
        let mut sregs = Box::<kvm_sregs>::default();
        // SAFETY: the kernel writes the structure.
        done(unsafe { ioctl_with_mut_ref(&self.fd, abi::KVM_GET_SREGS, &mut *sregs) })?;
        Ok(sregs)
    }
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_SET_SREGS, sregs) })
    }
    fn reg(&self, id: u64) -> Result<u128> {
        let mut value = [0u8; 16];
        let wanted = abi::kvm_one_reg { id, addr: value.as_mut_ptr().expose_provenance() as u64 };
        if abi::reg_size(id) > value.len() {
            return Err(ErrorKind::InvalidInput.into());
        }
        // SAFETY: the kernel writes as many bytes as the number says, checked to be there.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_GET_ONE_REG, &wanted) })?;
        Ok(match abi::reg_size(id) {
            4 => u32::from_ne_bytes([value[0], value[1], value[2], value[3]]).into(),
            8 => u64::from_ne_bytes(std::array::from_fn(|n| value[n])).into(),
            _ => u128::from_ne_bytes(value),
        })
    }
    fn set_reg(&self, id: u64, value: u128) -> Result<()> {
        let mut bytes = [0u8; 16];
        match abi::reg_size(id) {
            4 => bytes[..4].copy_from_slice(&(value as u32).to_ne_bytes()),
            8 => bytes[..8].copy_from_slice(&(value as u64).to_ne_bytes()),
            16 => bytes = value.to_ne_bytes(),
            _ => return Err(ErrorKind::InvalidInput.into()),
        }
        let wanted = abi::kvm_one_reg { id, addr: bytes.as_ptr().expose_provenance() as u64 };
        // SAFETY: the kernel reads as many bytes as the number says, checked to be there.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_SET_ONE_REG, &wanted) })
    }
    fn interrupt(&self, level: bool) -> Result<()> {
        let irq = if level { abi::KVM_INTERRUPT_SET_LEVEL } else { abi::KVM_INTERRUPT_UNSET };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_INTERRUPT, &abi::kvm_interrupt { irq }) })
    }
    fn set_guest_debug(&self, breakpoints: bool) -> Result<()> {
        let control = if breakpoints { abi::KVM_GUESTDBG_ENABLE | abi::KVM_GUESTDBG_USE_SW_BP } else { 0 };
        let wanted = abi::kvm_guest_debug { control, pad: 0, bp: [[0; 2]; 16] };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(&self.fd, abi::KVM_SET_GUEST_DEBUG, &wanted) })
    }
}
