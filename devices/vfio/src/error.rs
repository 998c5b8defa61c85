//! Why a device cannot be assigned, a line each, with what helps.

use std::io;
use thiserror::Error;

/// Why a device cannot be assigned.
#[derive(Debug, Error)]
pub enum VfioError {
    #[error("the host has no PCI device {0} (lspci -D lists them)")]
    NoDevice(String),
    #[error("'{0}' is not the address of a PCI function: expected [DOMAIN:]BUS:DEVICE.FUNCTION, as 0000:01:00.0")]
    Address(String),
    #[error("the device of {0} is no PCI function")]
    NotPci(String),
    #[error(
        "{name} is bound to the driver {driver}, not to vfio-pci: modprobe vfio-pci; echo vfio-pci > {sysfs}/driver_override; \
         echo {name} > {sysfs}/driver/unbind; echo {name} > /sys/bus/pci/drivers_probe"
    )]
    OtherDriver { name: String, driver: String, sysfs: String },
    #[error(
        "{name} is bound to no driver, and so not to vfio-pci: modprobe vfio-pci; echo vfio-pci > {sysfs}/driver_override; \
         echo {name} > /sys/bus/pci/drivers_probe"
    )]
    NoDriver { name: String, sysfs: String },
    #[error(
        "{0} is behind no IOMMU: switch the IOMMU (VT-d, AMD-Vi, SMMU) on in the host's firmware, and in its kernel with \
         intel_iommu=on or what there is for its processor"
    )]
    NoIommu(String),
    #[error(
        "{name}: the host uses other devices of its IOMMU group {group}: {others}; bind those to vfio-pci, too, or to no driver"
    )]
    NotViable { name: String, group: u32, others: String },
    #[error("{path} may not be opened: run as root, or give your user the right (chown USER {path})")]
    Denied { path: String },
    #[error("{path} is in use: another program, perhaps another virtual machine, has {name} or a device of its group")]
    InUse { path: String, name: String },
    #[error("{name} is already assigned to this machine")]
    Twice { name: String },
    #[error("{path} does not exist: the host's kernel module {module} is not loaded (modprobe {module})")]
    NoModule { path: String, module: &'static str },
    #[error(
        "the host's kernel offers no kind of IOMMU that is known here: load its module (modprobe {module}); it must be version 2 of \
         that interface, which every kernel since 4.5 has"
    )]
    NoKind { module: &'static str },
    #[error("the host's VFIO speaks another version of its interface ({0})")]
    Version(i32),
    #[error(
        "{0} has no file of its own under /dev/vfio/devices: the host's kernel (6.6 and later) needs CONFIG_VFIO_DEVICE_CDEV"
    )]
    NoCdev(String),
    #[error(
        "{name} is in the same IOMMU group ({group}) as a device with another view of memory: put both under the same guest IOMMU, \
         or the same host bridge"
    )]
    Views { name: String, group: u32 },
    #[error("the guest's {iommu} cannot have assigned devices behind it{remedy}")]
    GuestIommu { iommu: String, remedy: &'static str },
    #[error(
        "{need} KiB of memory must be locked for devices, and {limit} KiB may be (RLIMIT_MEMLOCK): run as root, raise the limit \
         (ulimit -l {need}, or LimitMEMLOCK= of the service), or give the machine less memory"
    )]
    Locked { need: u64, limit: u64 },
    #[error(
        "the host maps no more ranges for devices: raise the limit (echo 4194304 > \
         /sys/module/vfio_iommu_type1/parameters/dma_entry_limit)"
    )]
    Ranges,
    #[error(
        "guest memory at {iova:#x} ({len:#x} bytes) is where the host's IOMMU maps nothing ({allowed}): give the machine less memory, or \
         a lower place for it"
    )]
    Reach { iova: u64, len: u64, allowed: String },
    #[error("guest memory at {iova:#x} ({len:#x} bytes) cannot be mapped for devices: {source}")]
    Map { iova: u64, len: u64, source: io::Error },
    #[error("the host's IOMMU cannot have a window of {len:#x} bytes at {base:#x} with pages of {page:#x}: {why}")]
    Window { base: u64, len: u64, page: u64, why: String },
    #[error("{what}: {source}")]
    Call { what: String, source: io::Error },
}

/// Names what failed.
pub(crate) trait Context<T> {
    fn during(self, what: &str) -> Result<T, VfioError>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, what: &str) -> Result<T, VfioError> {
        self.map_err(|source| VfioError::Call { what: what.to_owned(), source })
    }
}
