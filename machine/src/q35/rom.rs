//! Firmware: flash banks or a ROM that end at 4 GiB, and their last part below 1 MiB.

use super::map;
use crate::board::Board;
use crate::config::MachineConfig;
use rhea_device::OptionError;
use rhea_firmware::x86::FirmwareFiles;
use rhea_firmware::x86::files::DEFAULT_BIOS;
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, MmioDevice, RamBlock};
use rhea_platform::{Flash, FlashOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Erase block of a flash bank.
const FLASH_BLOCK: u64 = 4096;

/// Writes to ROM are lost.
pub struct ReadOnly;

impl MmioDevice for ReadOnly {
    fn read(&self, _offset: u64, _access: Access) -> Result<u64, BusError> {
        Ok(u64::MAX)
    }
    fn write(&self, _offset: u64, _value: u64, _access: Access) -> Result<(), BusError> {
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 8)
    }
    fn name(&self) -> &str {
        "rom"
    }
}

/// Has the machine firmware, given or default?
pub fn wanted(config: &MachineConfig) -> bool {
    config.bios.is_some()
        || config.kernel.is_none()
        || config.pflash()[0].is_some()
        || config.drives.iter().any(|d| d.interface == rhea_block::DriveInterface::Pflash)
}

/// Puts firmware into the PCI memory space; ends at 4 GiB. `secure`: flash takes commands from system-management mode only.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    pci: &Arc<AddressSpace>,
    secure: bool,
) -> Result<(), OptionError> {
    let banks = crate::flash::banks(config)?;
    if !wanted(config) {
        return Ok(());
    }
    // A space of its own, so that its end can be shown twice.
    let space = AddressSpace::new("firmware");
    let fail = |option: &str, e: &dyn std::fmt::Display| OptionError::new(option, e.to_string());
    let mut end = map::FOUR_GIB;
    if banks[0].is_some() || banks[1].is_some() {
        if config.bios.is_some() {
            return Err(OptionError::new("-bios", "there is flash with firmware: use only one of -bios and pflash"));
        }
        if banks[0].is_none() {
            return Err(OptionError::new("-drive", "flash bank 1 needs bank 0: give a drive with if=pflash,unit=0"));
        }
        for (n, drive) in banks.into_iter().enumerate() {
            let Some(drive) = drive else { continue };
            let place = match &drive.file {
                Some(file) => format!("{}: '{}'", drive.option, file),
                None => drive.option.clone(),
            };
            let opened = crate::flash::open(config, drive, &format!("pflash{n}"))?;
            let len = opened.capacity();
            if len == 0 || !len.is_multiple_of(FLASH_BLOCK) || map::FOUR_GIB - end + len > map::ROM_LIMIT {
                let message = format!("{len} bytes: both banks have at most 16 MiB, in blocks of 4 KiB");
                return Err(OptionError::new(&place, message));
            }
            end -= len;
            board.flash_drives.push(opened.clone());
            let content = FlashOptions { drive: Some(opened), secure, bytes: true, ..FlashOptions::default() };
            let flash = Flash::new(&format!("flash@{end:x}"), len, FLASH_BLOCK, content, board.log.clone())
                .map_err(|e| fail(&place, &e))?;
            let mapping = flash.map(&space, Gpa(end)).map_err(|e| fail(&place, &e))?;
            board.keep.push(Box::new(mapping));
            board.devices.push(flash);
        }
    } else {
        let path = find(config)?;
        let image = crate::files::read("-bios", &path)?;
        let len = image.len() as u64;
        if len == 0 || !len.is_multiple_of(0x1_0000) || len > map::ROM_LIMIT {
            let message = format!("'{}': {len} bytes: expected 1 to 256 times 64 KiB", path.display());
            return Err(OptionError::new("-bios", message));
        }
        end -= len;
        let rom = RamBlock::anonymous("bios", len).map_err(|e| fail("-bios", &e))?;
        rom.write(0, &image).map_err(|e| fail("-bios", &e))?;
        let mapping =
            space.map_rom_device(Gpa(end), &rom, 0, len, Arc::new(ReadOnly), 0).map_err(|e| fail("-bios", &e))?;
        board.keep_mapping(mapping);
    }
    let top = map::FOUR_GIB - map::ROM_LIMIT;
    let alias = map::ROM_ALIAS.min(map::FOUR_GIB - end);
    for (at, from, len) in [(top, top, map::ROM_LIMIT), (map::MIB - alias, map::FOUR_GIB - alias, alias)] {
        let mapping = pci.map_alias(Gpa(at), &space, Gpa(from), len, 0).map_err(|e| fail("-bios", &e))?;
        board.keep_mapping(mapping);
    }
    Ok(())
}

fn find(config: &MachineConfig) -> Result<PathBuf, OptionError> {
    let files = FirmwareFiles::new(&config.firmware_dirs);
    let name = config.bios.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_BIOS));
    files.find(Path::new(&name)).ok_or_else(|| {
        let places: Vec<String> = files.directories().iter().map(|d| d.display().to_string()).collect();
        let message = format!("'{}' is not found: looked in {}", name.display(), places.join(", "));
        match &config.bios {
            Some(_) => OptionError::new("-bios", message),
            None => OptionError::new(
                "-kernel",
                format!("there is nothing to boot: give -kernel FILE or firmware (-bios FILE; {message})"),
            ),
        }
    })
}
