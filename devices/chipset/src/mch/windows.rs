//! The windows that the hub opens and closes, and what they show.

use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, Lookup, MapError, Mapping, MmioDevice, RamBlock};
use rhea_pci::Ecam;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    System,
    /// Seen in system-management mode only.
    Smram,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// RAM of the same address.
    Ram,
    /// RAM of another address.
    RamAt(u64),
    /// Reads come from RAM, writes go to PCI.
    RamReads,
    /// Reads come from PCI, writes go to RAM.
    RamWrites,
    /// Nobody answers.
    Nothing,
    Configuration,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Window {
    pub side: Side,
    pub start: u64,
    pub len: u64,
    pub content: Content,
}

/// A window that is mapped.
pub struct Place {
    pub window: Window,
    _mapping: Mapping,
}

/// Above RAM, ROM and PCI.
const PRIORITY: i32 = 2;

pub fn place(
    window: Window,
    space: &Arc<AddressSpace>,
    pci: &Arc<AddressSpace>,
    ram: &Arc<RamBlock>,
    ecam: &Arc<Ecam>,
) -> Result<Place, MapError> {
    let (start, len) = (window.start, window.len);
    let gpa = Gpa(start);
    let split = |reads_ram| Arc::new(Split { pci: pci.clone(), ram: ram.clone(), start, reads_ram });
    let mapping = match window.content {
        Content::Ram => space.map_ram(gpa, ram, start, len, PRIORITY),
        Content::RamAt(offset) => space.map_ram(gpa, ram, offset, len, PRIORITY),
        Content::RamReads => space.map_rom_device(gpa, ram, start, len, split(true), PRIORITY),
        Content::RamWrites => {
            // Code runs from the ROM while its copy is written: it has to be memory, not a device.
            let rom = match pci.view().lookup(gpa) {
                Lookup::Ram { block, offset, remaining, .. } if remaining >= len => Some((block.clone(), offset)),
                _ => None,
            };
            match rom {
                Some((rom, offset)) => space.map_rom_device(gpa, &rom, offset, len, split(false), PRIORITY),
                None => space.map_mmio(gpa, len, split(false), PRIORITY),
            }
        }
        Content::Nothing => space.map_mmio(gpa, len, Arc::new(Nothing), PRIORITY),
        Content::Configuration => space.map_mmio(gpa, len, ecam.clone(), PRIORITY),
    }?;
    Ok(Place { window, _mapping: mapping })
}

/// An area whose reads and writes go to different memories.
struct Split {
    pci: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    start: u64,
    reads_ram: bool,
}

impl MmioDevice for Split {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        let at = self.start + offset;
        if self.reads_ram {
            return self.ram.load(at, access.size);
        }
        Ok(self.pci.load(Gpa(at), access).unwrap_or(u64::MAX))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        let at = self.start + offset;
        if self.reads_ram {
            // ROM, or nobody: the write is lost.
            let _ = self.pci.store(Gpa(at), value, access);
            return Ok(());
        }
        self.ram.store(at, access.size, value)
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 8)
    }
    fn name(&self) -> &str {
        "pam"
    }
}

/// Closed SMRAM.
struct Nothing;

impl MmioDevice for Nothing {
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
        "tseg"
    }
}
