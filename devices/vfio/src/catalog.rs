//! `-device vfio-pci`: its properties, and how they are read.

use crate::config::Overrides;
use crate::{Choices, Wanted};
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rustix::io::FdFlags;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

pub const NAME: &str = "vfio-pci";
pub const DESCRIPTION: &str = "PCI function of the host, assigned through VFIO";

const ID: OptionKind = OptionKind::Number { min: 0, max: 0xffff };

const OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new("host", OptionKind::Text, None, "address of the host's function, like 0000:01:00.0"),
    OptionDecl::new("sysfsdev", OptionKind::Text, None, "its folder in sysfs"),
    OptionDecl::new(
        "fd",
        OptionKind::Number { min: 3, max: 0xffff },
        None,
        "its file, opened by who starts this; needs iommufd=",
    ),
    OptionDecl::new("iommufd", OptionKind::Text, None, "-object iommufd to see memory through, instead of a container"),
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "place in the boot order"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, Some("1"), "0: no expansion ROM"),
    OptionDecl::new("romfile", OptionKind::Text, None, "expansion ROM other than the function's; empty: none"),
    OptionDecl::new(
        "x-intx-mmap-timeout-ms",
        OptionKind::Number { min: 0, max: u32::MAX as u64 },
        Some("1100"),
        "time after an interrupt until BARs are mapped again; 0: never",
    ),
    OptionDecl::new("x-no-mmap", OptionKind::Bool, Some("off"), "BARs are read and written, not mapped"),
    OptionDecl::new("x-no-kvm-intx", OptionKind::Bool, Some("off"), "INTx takes the slow path"),
    OptionDecl::new(
        "x-no-kvm-msi",
        OptionKind::Bool,
        Some("off"),
        "messages of MSI and MSI-X are sent by this process",
    ),
    OptionDecl::new("x-pci-vendor-id", ID, None, "vendor id that the guest sees"),
    OptionDecl::new("x-pci-device-id", ID, None, "device id that the guest sees"),
    OptionDecl::new("x-pci-sub-vendor-id", ID, None, "subsystem vendor id that the guest sees"),
    OptionDecl::new("x-pci-sub-device-id", ID, None, "subsystem id that the guest sees"),
];

/// The properties, for parsing and for `-device vfio-pci,help`.
#[must_use]
pub fn options() -> &'static [OptionDecl] {
    OPTIONS
}

/// What of the function is to be other than the host has it.
#[must_use]
pub fn choices(set: &OptionSet) -> Choices {
    let id = |key: &str| set.number(key).map(|n| n as u16);
    Choices {
        overrides: Overrides {
            vendor: id("x-pci-vendor-id"),
            device: id("x-pci-device-id"),
            subsystem_vendor: id("x-pci-sub-vendor-id"),
            subsystem: id("x-pci-sub-device-id"),
        },
        intx_timeout: set.number("x-intx-mmap-timeout-ms").unwrap_or(1100),
        no_mmap: set.bool("x-no-mmap"),
        no_fast_intx: set.bool("x-no-kvm-intx"),
        no_fast_msi: set.bool("x-no-kvm-msi"),
        rom: set.number("rombar") != Some(0) && !set.given("romfile"),
    }
}

/// Which function it is to be.
///
/// # Errors
/// [`OptionError`]: none or more than one is named, no file is open by that number, or it has no iommufd.
pub fn wanted(set: &OptionSet) -> Result<Wanted, OptionError> {
    let error = |text: &str| Err(OptionError::new(set.option(), text));
    match (set.text("host"), set.text("sysfsdev"), set.number("fd")) {
        (Some(address), None, None) => Ok(Wanted::Address(address.to_owned())),
        (None, Some(path), None) => Ok(Wanted::Sysfs(PathBuf::from(path))),
        (None, None, Some(_)) if !set.given("iommufd") => {
            error("fd= is a file of an iommufd's: add -object iommufd,id=ID, and iommufd=ID here")
        }
        (None, None, Some(fd)) => match inherited(fd as RawFd) {
            Ok(file) => Ok(Wanted::File(file)),
            Err(e) => Err(set.error("fd", &format!("'{fd}': {e}"))),
        },
        (None, None, None) => {
            error("a function of the host is missing: host=0000:01:00.0, sysfsdev=FOLDER or fd=NUMBER")
        }
        _ => error("host=, sysfsdev= and fd= exclude each other: give one"),
    }
}

/// A descriptor of our own of a file that was inherited.
///
/// # Errors
/// The host's: none is open by that number.
pub fn inherited(fd: RawFd) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "a number of the user's becomes a descriptor")]
    // SAFETY: it is borrowed for this call only, which fails for a number that is not open.
    let theirs = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = rustix::io::dup(theirs)?;
    rustix::io::fcntl_setfd(&own, FdFlags::CLOEXEC)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_device::options::split;

    #[test]
    fn one_function_is_named() {
        let wanted = |text: &str| {
            let set = OptionSet::parse("-device vfio-pci", OPTIONS, &split(text)).map_err(|e| e.to_string())?;
            wanted(&set).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(wanted("host=0000:01:00.0"), Ok(()));
        assert_eq!(wanted("host=01:00.0,iommufd=i"), Ok(()));
        for (text, says) in [
            ("rombar=0", "is missing"),
            ("host=01:00.0,sysfsdev=/sys/x", "exclude each other"),
            ("fd=9", "add -object iommufd"),
            ("fd=60000,iommufd=i", "'60000'"),
            ("fd=1,iommufd=i", "fd"),
        ] {
            let e = wanted(text).unwrap_err();
            assert!(e.contains(says) && e.lines().count() == 1, "{text}: {e}");
        }
    }
}
