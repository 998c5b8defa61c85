//! The kernel's own KVM: what is the same on all hosts, also on those that `kvm-ioctls` does not know.
#![expect(unsafe_code, reason = "system calls")]

use crate::error::KvmError;
use crate::ppc::abi;
use crate::sys::{AnyVm, IoEvent, PrivateMemory, Region, VfioDevice};
use libc::{_IO, _IOW, _IOWR, Ioctl};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

/// Where KVM is.
pub const DEV_KVM: &str = "/dev/kvm";

/// The type of all of KVM's calls.
pub const KVMIO: u32 = 0xae;

/// `struct kvm_enable_cap` (Linux, Documentation/virt/kvm/api.rst, as those below).
#[repr(C)]
struct EnableCap {
    cap: u32,
    flags: u32,
    args: [u64; 4],
    pad: [u8; 64],
}
/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}
/// `struct kvm_userspace_memory_region2`.
#[repr(C)]
struct MemoryRegion2 {
    region: MemoryRegion,
    guest_memfd_offset: u64,
    guest_memfd: u32,
    pad1: u32,
    pad2: [u64; 14],
}
/// `struct kvm_create_guest_memfd`.
#[repr(C)]
struct CreateGuestMemfd {
    size: u64,
    flags: u64,
    reserved: [u64; 6],
}
/// `struct kvm_memory_attributes`.
#[repr(C)]
struct MemoryAttributes {
    address: u64,
    size: u64,
    attributes: u64,
    flags: u64,
}
/// `struct kvm_dirty_log`.
#[repr(C)]
struct DirtyLog {
    slot: u32,
    padding: u32,
    bitmap: u64,
}
/// `struct kvm_irqfd`.
#[repr(C)]
struct IrqFd {
    fd: u32,
    gsi: u32,
    flags: u32,
    resamplefd: u32,
    pad: [u8; 16],
}
/// `struct kvm_ioeventfd`.
#[repr(C)]
struct IoEventFd {
    datamatch: u64,
    addr: u64,
    len: u32,
    fd: i32,
    flags: u32,
    pad: [u8; 36],
}

/// `struct kvm_coalesced_mmio_zone`.
#[repr(C)]
struct Zone {
    addr: u64,
    size: u32,
    pio: u32,
}

const MEM_LOG_DIRTY_PAGES: u32 = 1;
const MEM_READONLY: u32 = 2;
const MEM_GUEST_MEMFD: u32 = 4;
const MEMORY_ATTRIBUTE_PRIVATE: u64 = 8;
const IRQFD_DEASSIGN: u32 = 1;
const IRQFD_RESAMPLE: u32 = 2;
const DEV_TYPE_VFIO: u32 = 4;
const DEV_VFIO_FILE: u32 = 1;
const DEV_VFIO_FILE_ADD: u64 = 1;
const DEV_VFIO_FILE_DEL: u64 = 2;
const IOEVENTFD_DATAMATCH: u32 = 1;
const IOEVENTFD_PIO: u32 = 2;
const IOEVENTFD_DEASSIGN: u32 = 4;

// Numbers of calls are made otherwise on Power: libc knows it.
const KVM_CHECK_EXTENSION: Ioctl = _IO(KVMIO, 0x03);
const KVM_GET_DIRTY_LOG: Ioctl = _IOW::<DirtyLog>(KVMIO, 0x42);
const KVM_SET_USER_MEMORY_REGION: Ioctl = _IOW::<MemoryRegion>(KVMIO, 0x46);
const KVM_SET_USER_MEMORY_REGION2: Ioctl = _IOW::<MemoryRegion2>(KVMIO, 0x49);
const KVM_REGISTER_COALESCED_MMIO: Ioctl = _IOW::<Zone>(KVMIO, 0x67);
const KVM_UNREGISTER_COALESCED_MMIO: Ioctl = _IOW::<Zone>(KVMIO, 0x68);
const KVM_IRQFD: Ioctl = _IOW::<IrqFd>(KVMIO, 0x76);
const KVM_IOEVENTFD: Ioctl = _IOW::<IoEventFd>(KVMIO, 0x79);
const KVM_ENABLE_CAP: Ioctl = _IOW::<EnableCap>(KVMIO, 0xa3);
const KVM_RESET_DIRTY_RINGS: Ioctl = _IO(KVMIO, 0xc7);
const KVM_SET_MEMORY_ATTRIBUTES: Ioctl = _IOW::<MemoryAttributes>(KVMIO, 0xd2);
const KVM_CREATE_GUEST_MEMFD: Ioctl = _IOWR::<CreateGuestMemfd>(KVMIO, 0xd4);

/// The result of a call: what is negative is an error.
pub fn done(result: i32) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// A call again as long as a signal comes meanwhile, which is no reason to give up.
pub fn uninterrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Handle = kvm_ioctls::Kvm;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Handle = std::os::fd::OwnedFd;

/// `/dev/kvm`, opened.
pub struct DevKvm(pub(crate) Handle);

impl DevKvm {
    /// # Errors
    /// [`KvmError`]: absent, not accessible, not KVM.
    pub fn open(path: &str) -> std::result::Result<Self, KvmError> {
        let file = File::options().read(true).write(true).open(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => KvmError::Absent(path.to_owned()),
            ErrorKind::PermissionDenied => KvmError::Denied(path.to_owned()),
            _ if matches!(source.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => KvmError::Absent(path.to_owned()),
            _ => KvmError::Open { path: path.to_owned(), source },
        })?;
        // SAFETY: a descriptor of its own, given up here.
        Ok(Self(unsafe { Handle::from_raw_fd(file.into_raw_fd()) }))
    }
}

impl AsRawFd for DevKvm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The size of the host's pages, of which guest memory is made.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: a question.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as u64
}

/// The value of a capability, of `/dev/kvm` or a VM: 0 if it is absent.
pub fn check(fd: &impl AsRawFd, capability: u32) -> i32 {
    // SAFETY: the argument is a number.
    unsafe { ioctl_with_val(fd, KVM_CHECK_EXTENSION, capability.into()) }.max(0)
}

/// Of a VM or a vCPU.
pub fn enable(fd: &impl AsRawFd, capability: u32, args: [u64; 4]) -> Result<()> {
    let wanted = EnableCap { cap: capability, flags: 0, args, pad: [0; 64] };
    // SAFETY: the structure is only read.
    done(unsafe { ioctl_with_ref(fd, KVM_ENABLE_CAP, &wanted) })
}

/// A VM of the kernel's own.
pub trait KernelVm: AsRawFd + Send + Sync {}

impl<T: KernelVm> AnyVm for T {
    fn check(&self, capability: u32) -> i32 {
        check(self, capability)
    }
    fn enable(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        enable(self, capability, args)
    }
    fn set_memory(&self, region: &Region) -> Result<()> {
        set_memory(self, region)
    }
    fn create_private(&self, len: u64) -> Result<Arc<dyn PrivateMemory>> {
        let wanted = CreateGuestMemfd { size: len, flags: 0, reserved: [0; 6] };
        // SAFETY: the structure is only read.
        let fd = unsafe { ioctl_with_ref(self, KVM_CREATE_GUEST_MEMFD, &wanted) };
        done(fd)?;
        // SAFETY: the kernel made the descriptor for this call.
        Ok(Arc::new(GuestMemfd(unsafe { OwnedFd::from_raw_fd(fd) })))
    }
    fn set_private(&self, address: u64, len: u64, on: bool) -> Result<()> {
        let attributes = if on { MEMORY_ATTRIBUTE_PRIVATE } else { 0 };
        let wanted = MemoryAttributes { address, size: len, attributes, flags: 0 };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(self, KVM_SET_MEMORY_ATTRIBUTES, &wanted) })
    }
    fn dirty_log(&self, slot: u32, len: u64) -> Result<Vec<u64>> {
        dirty_log(self, slot, len)
    }
    fn reset_dirty_rings(&self) -> Result<()> {
        // SAFETY: the argument is a number.
        done(unsafe { ioctl_with_val(self, KVM_RESET_DIRTY_RINGS, 0) })
    }
    fn hold_writes(&self, address: u64, len: u32, on: bool) -> Result<()> {
        let zone = Zone { addr: address, size: len, pio: 0 };
        let call = if on { KVM_REGISTER_COALESCED_MMIO } else { KVM_UNREGISTER_COALESCED_MMIO };
        // SAFETY: the structure is only read.
        done(unsafe { ioctl_with_ref(self, call, &zone) })
    }
    fn irqfd(&self, fd: RawFd, gsi: u32, resample: Option<RawFd>, attach: bool) -> Result<()> {
        irqfd(self, fd, gsi, resample, attach)
    }
    fn ioeventfd(&self, event: &IoEvent, attach: bool) -> Result<()> {
        ioeventfd(self, event, attach)
    }
    fn create_vfio(&self) -> Result<Arc<dyn VfioDevice>> {
        create_device(self, DEV_TYPE_VFIO).map(|fd| Arc::new(KernelVfio(fd)) as _)
    }
}

/// Makes a device of a VM (`KVM_DEV_TYPE_*`).
pub fn create_device(vm: &impl AsRawFd, kind: u32) -> Result<OwnedFd> {
    let mut device = abi::kvm_create_device { type_: kind, fd: 0, flags: 0 };
    // SAFETY: the kernel reads and writes the structure.
    done(unsafe { ioctl_with_mut_ref(vm, abi::KVM_CREATE_DEVICE, &mut device) })?;
    // SAFETY: the kernel made the descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(device.fd as RawFd) })
}

struct GuestMemfd(OwnedFd);

impl PrivateMemory for GuestMemfd {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn free(&self, offset: u64, len: u64) -> Result<()> {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: numbers; the file cannot be mapped.
        done(unsafe { libc::fallocate(self.fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len) })
    }
}

struct KernelVfio(OwnedFd);

impl KernelVfio {
    fn set(&self, attr: u64, file: RawFd) -> Result<()> {
        let addr = (&raw const file).expose_provenance() as u64;
        let wanted = abi::kvm_device_attr { flags: 0, group: DEV_VFIO_FILE, attr, addr };
        // SAFETY: the structure is only read, and so is the descriptor's number, of 32 bits, which it refers to.
        done(unsafe { ioctl_with_ref(&self.0, abi::KVM_SET_DEVICE_ATTR, &wanted) })
    }
}

impl VfioDevice for KernelVfio {
    fn add(&self, file: RawFd) -> Result<()> {
        self.set(DEV_VFIO_FILE_ADD, file)
    }
    fn remove(&self, file: RawFd) -> Result<()> {
        self.set(DEV_VFIO_FILE_DEL, file)
    }
}

/// [`crate::sys::AnyVm::set_memory`].
fn set_memory(vm: &impl AsRawFd, region: &Region) -> Result<()> {
    let flags = if region.readonly { MEM_READONLY } else { 0 } | if region.log { MEM_LOG_DIRTY_PAGES } else { 0 };
    let wanted = MemoryRegion {
        slot: region.slot,
        flags,
        guest_phys_addr: region.gpa,
        memory_size: region.len,
        userspace_addr: region.host,
    };
    if let Some((fd, offset)) = region.private {
        let region = MemoryRegion { flags: wanted.flags | MEM_GUEST_MEMFD, ..wanted };
        let (guest_memfd_offset, guest_memfd) = (offset, fd as u32);
        let wanted = MemoryRegion2 { region, guest_memfd_offset, guest_memfd, pad1: 0, pad2: [0; 14] };
        // SAFETY: as below.
        return done(unsafe { ioctl_with_ref(vm, KVM_SET_USER_MEMORY_REGION2, &wanted) });
    }
    // SAFETY: the structure is only read. The caller keeps the host memory mapped as long as the region exists (contract of the
    // trait); guest memory is never the target of Rust references.
    done(unsafe { ioctl_with_ref(vm, KVM_SET_USER_MEMORY_REGION, &wanted) })
}

/// [`crate::sys::AnyVm::dirty_log`].
fn dirty_log(fd: &impl AsRawFd, slot: u32, len: u64) -> Result<Vec<u64>> {
    let mut words = vec![0u64; len.div_ceil(page_size()).div_ceil(64) as usize];
    let wanted = DirtyLog { slot, padding: 0, bitmap: words.as_mut_ptr().expose_provenance() as u64 };
    // SAFETY: the kernel writes a bit for each page of the slot, in whole words of 64, which the buffer has room for.
    done(unsafe { ioctl_with_ref(fd, KVM_GET_DIRTY_LOG, &wanted) })?;
    Ok(words)
}

/// [`crate::sys::AnyVm::irqfd`].
fn irqfd(fd: &impl AsRawFd, event: RawFd, gsi: u32, resample: Option<RawFd>, attach: bool) -> Result<()> {
    let (flags, resample) = match (attach, resample) {
        (false, _) => (IRQFD_DEASSIGN, 0),
        (true, Some(resample)) => (IRQFD_RESAMPLE, resample),
        (true, None) => (0, 0),
    };
    let wanted = IrqFd { fd: event as u32, gsi, flags, resamplefd: resample as u32, pad: [0; 16] };
    // SAFETY: the structure is only read.
    done(unsafe { ioctl_with_ref(fd, KVM_IRQFD, &wanted) })
}

/// [`crate::sys::AnyVm::ioeventfd`].
fn ioeventfd(fd: &impl AsRawFd, event: &IoEvent, attach: bool) -> Result<()> {
    let mut flags = 0;
    for (flag, on) in
        [(IOEVENTFD_DATAMATCH, event.data.is_some()), (IOEVENTFD_PIO, event.port), (IOEVENTFD_DEASSIGN, !attach)]
    {
        flags |= if on { flag } else { 0 };
    }
    let wanted = IoEventFd {
        datamatch: event.data.unwrap_or(0),
        addr: event.address,
        len: event.size.into(),
        fd: event.fd,
        flags,
        pad: [0; 36],
    };
    // SAFETY: the structure is only read.
    done(unsafe { ioctl_with_ref(fd, KVM_IOEVENTFD, &wanted) })
}
