//! Files that assigned devices are open by, told to KVM (`KVM_DEV_TYPE_VFIO`; Linux, Documentation/virt/kvm/devices/vfio.rst): drivers of
//! the kernel learn whose guest a device serves, and KVM that devices may not snoop caches.

use crate::sys::{AnyVm, VfioDevice};
use parking_lot::Mutex;
use rhea_accel::AssignedFiles;
use std::os::fd::RawFd;
use std::sync::Arc;

#[derive(Default)]
enum Device {
    #[default]
    New,
    /// The kernel has no such thing.
    Absent,
    /// With the files it knows.
    Made(Arc<dyn VfioDevice>, Vec<RawFd>),
}

/// Tells a VM of them. The kernel's device is made for the first.
pub struct Assigned {
    vm: Arc<dyn AnyVm>,
    device: Mutex<Device>,
}

impl Assigned {
    pub fn new(vm: Arc<dyn AnyVm>) -> Arc<Self> {
        Arc::new(Self { vm, device: Mutex::default() })
    }
}

impl AssignedFiles for Assigned {
    fn added(&self, file: RawFd) {
        let mut device = self.device.lock();
        if matches!(*device, Device::New) {
            *device = match self.vm.create_vfio() {
                Ok(made) => Device::Made(made, Vec::new()),
                Err(e) => {
                    // Kernels are built without it.
                    if !matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOTTY)) {
                        eprintln!("rhea: warning: -accel kvm: it is not told of assigned devices: {e}");
                    }
                    Device::Absent
                }
            };
        }
        if let Device::Made(made, files) = &mut *device {
            match made.add(file) {
                Ok(()) => files.push(file),
                Err(e) => eprintln!("rhea: warning: -accel kvm: it is not told of an assigned device: {e}"),
            }
        }
    }
    fn removed(&self, file: RawFd) {
        if let Device::Made(made, files) = &mut *self.device.lock()
            && let Some(at) = files.iter().position(|f| *f == file)
        {
            files.swap_remove(at);
            // What it keeps of the file goes with the VM.
            let _ = made.remove(file);
        }
    }
}
