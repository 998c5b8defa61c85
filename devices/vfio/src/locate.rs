//! Where a device of the host is: in sysfs, in which IOMMU group, with which files.

use crate::VfioError;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The host's files: `/sys` and `/dev` but in tests.
#[derive(Clone, Debug)]
pub struct Roots {
    pub sys: PathBuf,
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into() }
    }
}

/// A device that was found, bound to VFIO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `0000:01:00.0`.
    pub name: String,
    pub sysfs: PathBuf,
    pub group: u32,
    /// The kernel protects nobody from it: a group made without an IOMMU.
    pub noiommu: bool,
    /// Its own file, if the kernel has such.
    pub cdev: Option<PathBuf>,
}

/// The full address, domain first, in small letters.
///
/// # Errors
/// [`VfioError::Address`].
pub fn address(text: &str) -> Result<String, VfioError> {
    let wrong = || VfioError::Address(text.to_owned());
    let number = |part: &str, most: u32| match u32::from_str_radix(part, 16) {
        Ok(n) if n <= most && !part.starts_with('+') => Ok(n),
        _ => Err(wrong()),
    };
    let (rest, function) = text.rsplit_once('.').ok_or_else(wrong)?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match parts[..] {
        [domain, bus, device] => (number(domain, u32::MAX)?, bus, device),
        [bus, device] => (0, bus, device),
        _ => return Err(wrong()),
    };
    let (bus, device, function) = (number(bus, 0xff)?, number(device, 0x1f)?, number(function, 7)?);
    Ok(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// The last part of where a symbolic link leads.
fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Roots {
    /// The function at an address ([`address`]).
    ///
    /// # Errors
    /// [`VfioError`]: it is not there, or not for VFIO.
    pub fn by_address(&self, name: &str) -> Result<Place, VfioError> {
        let name = address(name)?;
        let sysfs = self.sys.join("bus/pci/devices").join(&name);
        if sysfs.exists() { self.place(name, sysfs) } else { Err(VfioError::NoDevice(name)) }
    }
    /// The function with this folder in sysfs.
    ///
    /// # Errors
    /// [`VfioError`].
    pub fn by_sysfs(&self, path: &Path) -> Result<Place, VfioError> {
        let shown = path.display().to_string();
        let full = fs::canonicalize(path).map_err(|_| VfioError::NoDevice(shown.clone()))?;
        let name = full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // Mediated devices are called by a UUID; only functions have a place on the PCI bus.
        if address(&name).is_err() { Err(VfioError::NotPci(shown)) } else { self.place(name, full) }
    }
    /// The function whose own file this is.
    ///
    /// # Errors
    /// [`VfioError`].
    pub fn by_file(&self, fd: BorrowedFd<'_>) -> Result<Place, VfioError> {
        let not_pci = || VfioError::NotPci("the given file descriptor".to_owned());
        let status = rustix::fs::fstat(fd.as_fd()).map_err(|_| not_pci())?;
        let (major, minor) = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
        self.by_sysfs(&self.sys.join(format!("dev/char/{major}:{minor}/device"))).map_err(|e| match e {
            VfioError::NoDevice(_) => not_pci(),
            other => other,
        })
    }

    fn place(&self, name: String, sysfs: PathBuf) -> Result<Place, VfioError> {
        let group = link_name(&sysfs.join("iommu_group")).and_then(|n| n.parse().ok());
        let driver = link_name(&sysfs.join("driver"));
        // Drivers for VFIO (there are others than vfio-pci, for single devices) give their devices such a folder; before Linux 6.0
        // there was none.
        let vfio = sysfs.join("vfio-dev");
        match driver {
            Some(driver) if driver == "vfio-pci" || vfio.is_dir() => {}
            Some(driver) => {
                return Err(VfioError::OtherDriver { name, driver, sysfs: sysfs.display().to_string() });
            }
            // A group without an IOMMU only comes with the driver: say the first thing first.
            None if group.is_none() => return Err(VfioError::NoIommu(name)),
            None => return Err(VfioError::NoDriver { name, sysfs: sysfs.display().to_string() }),
        }
        let Some(group) = group else { return Err(VfioError::NoIommu(name)) };
        let kind = fs::read_to_string(self.sys.join(format!("kernel/iommu_groups/{group}/name")));
        let noiommu = kind.is_ok_and(|kind| kind.trim() == "vfio-noiommu");
        let cdev = names(&vfio).first().map(|n| self.dev.join("vfio/devices").join(n)).filter(|path| path.exists());
        Ok(Place { name, sysfs, group, noiommu, cdev })
    }
    /// Devices in the group that a driver of the host has, each with that driver.
    #[must_use]
    pub fn used_by_host(&self, place: &Place) -> Vec<(String, String)> {
        let devices = place.sysfs.join("iommu_group/devices");
        let used = names(&devices).into_iter().filter_map(|name| {
            let driver = link_name(&devices.join(&name).join("driver"))?;
            // These do no DMA, or are VFIO's: the kernel lets them be (bridges' port driver, too).
            let harmless = ["vfio-pci", "pci-stub", "pcieport"].contains(&driver.as_str())
                || devices.join(&name).join("vfio-dev").is_dir();
            (!harmless).then_some((name, driver))
        });
        used.collect()
    }
    /// The group's file.
    #[must_use]
    pub fn group_file(&self, place: &Place) -> PathBuf {
        let noiommu = if place.noiommu { "noiommu-" } else { "" };
        self.dev.join(format!("vfio/{noiommu}{}", place.group))
    }
}
