//! Expansion ROMs of PCI devices: `romfile=`, `rombar=`, and where the files are.

use crate::config::MachineConfig;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::x86::FirmwareFiles;
use rhea_pci::{PciSlot, ROM_LIMIT};
use std::path::Path;

/// The slot with the ROM that the properties ask for, or else with the file `default`, which may be missing: a device is of use
/// to kernels with a driver without one.
///
/// # Errors
/// [`OptionError`]: no such file, too large.
pub fn with_rom(
    config: &MachineConfig,
    set: &OptionSet,
    slot: PciSlot,
    default: Option<&str>,
) -> Result<PciSlot, OptionError> {
    let own = set.text("romfile");
    let Some(name) = own.or(default).filter(|n| !n.is_empty() && set.number("rombar") != Some(0)) else {
        return Ok(slot);
    };
    let image = match FirmwareFiles::new(&config.firmware_dirs).find(Path::new(name)) {
        Some(path) => crate::files::read(set.option(), &path)?,
        None if own.is_none() => return Ok(slot),
        None => return Err(set.error("romfile", &format!("'{name}' is not found"))),
    };
    if image.is_empty() || image.len() > ROM_LIMIT {
        return Err(set.error("romfile", &format!("'{name}': must be of 1 byte to 16 MiB")));
    }
    slot.with_rom(&image, own.is_none()).map_err(|e| OptionError::new(set.option(), e.to_string()))
}
