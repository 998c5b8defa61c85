//! The names of `-device`, their properties, and how a device is made of them.

use crate::ahci::{Ahci, Attached, PORTS};
use crate::ata::disk::DiskOptions;
use crate::atapi::CdOptions;
use crate::nvme::{Nvme, NvmeOptions};
use rhea_block::Drive;
use rhea_device::Log;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_pci::PciSlot;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A controller on the PCI bus, with ports `ID.0` to `ID.5`.
    Ahci,
    /// A controller with its disk, on the PCI bus.
    Nvme,
    /// A disk at a port of an AHCI controller.
    IdeDisk,
    IdeCd,
}

/// A name of `-device`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub model: Model,
    pub description: &'static str,
}

/// All names.
pub const DEVICES: &[DeviceType] = &[
    DeviceType { name: "ahci", model: Model::Ahci, description: "AHCI controller" },
    DeviceType { name: "ich9-ahci", model: Model::Ahci, description: "AHCI controller of the ICH9" },
    DeviceType { name: "ide-cd", model: Model::IdeCd, description: "CD/DVD drive at an AHCI port" },
    DeviceType { name: "ide-hd", model: Model::IdeDisk, description: "ATA disk at an AHCI port" },
    DeviceType { name: "nvme", model: Model::Nvme, description: "NVMe controller with one namespace" },
];

const BLOCK_SIZES: OptionKind = OptionKind::Number { min: 512, max: 65536 };

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name");
const BOOT: OptionDecl =
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "boot order");
const PCI: &[OptionDecl] = &[
    ID,
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new("romfile", OptionKind::Choice(&[""]), None, "option ROM: none"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, None, "option ROM: none"),
];
const NVME: &[OptionDecl] = &[
    BOOT,
    OptionDecl::new("drive", OptionKind::Text, None, "id of the drive"),
    OptionDecl::new("serial", OptionKind::Text, None, "serial number, 1 to 20 characters"),
    OptionDecl::new("max_ioqpairs", OptionKind::Number { min: 1, max: 256 }, Some("64"), "pairs of I/O queues"),
    OptionDecl::new("msix_qsize", OptionKind::Number { min: 1, max: 2048 }, None, "MSI-X vectors"),
    OptionDecl::new("logical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
    OptionDecl::new("physical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
];
const IDE: &[OptionDecl] = &[
    ID,
    BOOT,
    OptionDecl::new("bus", OptionKind::Text, None, "port to sit at: ide.0 to ide.5, or ID.0 to ID.5 of a controller"),
    OptionDecl::new("unit", OptionKind::Number { min: 0, max: 0 }, None, "number of the unit at the port"),
    OptionDecl::new("drive", OptionKind::Text, None, "id of the drive"),
    rhea_block::DEVICE_ERRORS[0],
    rhea_block::DEVICE_ERRORS[1],
    OptionDecl::new("serial", OptionKind::Text, None, "serial number, at most 20 characters"),
    OptionDecl::new("model", OptionKind::Text, None, "model name, at most 40 characters"),
    OptionDecl::new("ver", OptionKind::Text, None, "firmware version, at most 8 characters"),
];
const DISK: &[OptionDecl] = &[
    OptionDecl::new("wwn", OptionKind::Number { min: 0, max: u64::MAX }, None, "world wide name"),
    OptionDecl::new(
        "rotation_rate",
        OptionKind::Number { min: 0, max: 0xfffe },
        Some("0"),
        "rotations a minute; 0: not told, 1: does not rotate",
    ),
    OptionDecl::new("logical_block_size", OptionKind::Number { min: 512, max: 512 }, Some("512"), "bytes"),
    OptionDecl::new("physical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
    OptionDecl::new("write-cache", OptionKind::Bool, None, "volatile write cache"),
    OptionDecl::new("cyls", OptionKind::Number { min: 1, max: 65535 }, None, "cylinders of the geometry"),
    OptionDecl::new("heads", OptionKind::Number { min: 1, max: 16 }, None, "heads of the geometry"),
    OptionDecl::new("secs", OptionKind::Number { min: 1, max: 255 }, None, "sectors for a track of the geometry"),
];

/// A controller just made; the machine puts it on the bus.
#[derive(Clone)]
pub enum Made {
    Ahci(Arc<Ahci>),
    Nvme(Arc<Nvme>),
}

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

fn text(set: &OptionSet, key: &str, most: usize, default: String) -> Result<String, OptionError> {
    match set.text(key) {
        None => Ok(default),
        Some(t) if t.len() > most => Err(set.error(key, &format!("longer than {most} characters"))),
        Some(t) if !t.bytes().all(|b| (0x20..0x7f).contains(&b)) => Err(set.error(key, "must be of printable ASCII")),
        Some(t) => Ok(t.to_owned()),
    }
}

fn block_size(set: &OptionSet, key: &str) -> Result<u32, OptionError> {
    match set.number(key).map(u32::try_from) {
        None => Ok(0),
        Some(Ok(n)) if n.is_power_of_two() => Ok(n),
        Some(_) => Err(set.error(key, "must be a power of two")),
    }
}

/// The controller and port of `bus=ide.3`: its name before the dot, and the number. `None`: the property is absent.
///
/// # Errors
/// The text is not a port.
pub fn place(set: &OptionSet) -> Result<Option<(String, u8)>, OptionError> {
    let Some(bus) = set.text("bus") else { return Ok(None) };
    let port = bus.rsplit_once('.').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    match port {
        Some((name, port)) if port < PORTS && !name.is_empty() => Ok(Some((name, port))),
        _ => Err(set.error("bus", &format!("there is no port '{bus}': ports are ide.0 to ide.{}", PORTS - 1))),
    }
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        match self.model {
            Model::Ahci => PCI.to_vec(),
            Model::Nvme => [PCI, NVME].concat(),
            Model::IdeDisk => [IDE, DISK].concat(),
            Model::IdeCd => IDE.to_vec(),
        }
    }
    /// Sits on the PCI bus; the others at a port of an AHCI controller.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        matches!(self.model, Model::Ahci | Model::Nvme)
    }
    /// Makes a controller of parsed properties.
    ///
    /// # Errors
    /// A property is missing or impossible, or this is no controller.
    pub fn make(
        &self,
        set: &OptionSet,
        slot: &PciSlot,
        drive: Option<Arc<Drive>>,
        log: &Log,
    ) -> Result<Made, OptionError> {
        match self.model {
            Model::Ahci => Ok(Made::Ahci(Ahci::new(slot, log))),
            Model::Nvme => {
                let drive = drive.ok_or_else(|| missing_drive(set))?;
                let default = NvmeOptions::default();
                let serial = text(set, "serial", 20, String::new())?;
                if serial.is_empty() {
                    return Err(set.error("serial", "property is missing: give serial=TEXT"));
                }
                let logical_block_size = block_size(set, "logical_block_size")?;
                let physical_block_size = block_size(set, "physical_block_size")?;
                if physical_block_size != 0 && physical_block_size < logical_block_size {
                    return Err(set.error("physical_block_size", "is smaller than the logical block size"));
                }
                let number = |key| set.number(key).and_then(|n| u16::try_from(n).ok());
                let options = NvmeOptions {
                    serial,
                    queues: number("max_ioqpairs").unwrap_or(default.queues),
                    vectors: number("msix_qsize"),
                    logical_block_size,
                    physical_block_size,
                    ..default
                };
                Ok(Made::Nvme(Nvme::new(slot, drive, options, log)))
            }
            Model::IdeDisk | Model::IdeCd => {
                Err(OptionError::new(set.option(), "sits at an AHCI port, not on a PCI bus"))
            }
        }
    }
    /// Attaches an ATA device to a port of a controller. `drive` is needed for a disk and is the medium of a CD drive.
    ///
    /// # Errors
    /// A property is missing or impossible, the port is in use, or this is a controller.
    pub fn attach(
        &self,
        set: &OptionSet,
        controller: &Ahci,
        port: u8,
        drive: Option<Arc<Drive>>,
    ) -> Result<Attached, OptionError> {
        let used = |e: crate::AttachError| OptionError::new(set.option(), e.to_string());
        match self.model {
            Model::IdeCd => {
                let d = CdOptions::default();
                let options = CdOptions {
                    serial: text(set, "serial", 20, d.serial)?,
                    model: text(set, "model", 40, d.model)?,
                    version: text(set, "ver", 8, d.version)?,
                    ..d
                };
                controller.attach_cd(port, drive, options).map(Attached::Cd).map_err(used)
            }
            Model::IdeDisk => {
                let drive = drive.ok_or_else(|| missing_drive(set))?;
                if drive.readonly() {
                    return Err(set.error("drive", "is read-only: an ATA disk is always writable"));
                }
                let number = |key| set.number(key);
                let chs = match (number("cyls"), number("heads"), number("secs")) {
                    (None, None, None) => None,
                    (Some(c), Some(h), Some(s)) => Some((c as u16, h as u8, s as u8)),
                    _ => return Err(set.error("cyls", "a geometry is of cyls, heads and secs: give all three")),
                };
                let d = DiskOptions::default();
                let physical = match block_size(set, "physical_block_size")? {
                    0 => drive.backend().geometry().physical_block,
                    n => n,
                };
                let options = DiskOptions {
                    serial: text(set, "serial", 20, d.serial)?,
                    model: text(set, "model", 40, d.model)?,
                    version: text(set, "ver", 8, d.version)?,
                    wwn: number("wwn").unwrap_or(0),
                    rotation_rate: number("rotation_rate").unwrap_or(0) as u16,
                    physical_block: physical,
                    chs,
                    write_cache: set.given("write-cache").then(|| set.bool("write-cache")),
                };
                controller.attach_disk(port, drive, options).map(Attached::Disk).map_err(used)
            }
            Model::Ahci | Model::Nvme => Err(OptionError::new(set.option(), "is a controller: it has no port")),
        }
    }
}

fn missing_drive(set: &OptionSet) -> OptionError {
    set.error("drive", "property is missing: give drive=ID of a -drive if=none,id=ID")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_accel::IrqLine;
    use rhea_block::{CacheMode, MemoryBackend};
    use rhea_device::options::split;
    use rhea_memory::AddressSpace;
    use rhea_pci::{Devfn, PciBus};

    fn drive(readonly: bool) -> Arc<Drive> {
        Drive::new("d", Arc::new(MemoryBackend::new(vec![0; 1 << 20], readonly)), CacheMode::Writeback)
    }
    fn bus() -> Arc<PciBus> {
        PciBus::new("pcie.0", AddressSpace::new("s"), std::array::from_fn(|_| IrqLine::unconnected()), None)
    }
    fn parse(name: &str, text: &str) -> Result<(&'static DeviceType, OptionSet), OptionError> {
        let kind = find(name).unwrap();
        Ok((kind, OptionSet::parse(&format!("-device {name}"), &kind.options(), &split(text))?))
    }

    #[test]
    fn controllers() {
        let bus = bus();
        let slot = bus.slot(Devfn::new(4, 0));
        let make = |name: &str, text: &str, drive: Option<Arc<Drive>>| {
            parse(name, text).and_then(|(k, set)| k.make(&set, &slot, drive, &Log::off())).map(drop)
        };
        assert!(make("ahci", "id=sata", None).is_ok());
        assert!(make("nvme", "serial=x,logical_block_size=4096", Some(drive(false))).is_ok());
        for (name, text, drive, word) in [
            ("nvme", "serial=x", None, "'drive'"),
            ("nvme", "drive=d", Some(drive(false)), "'serial'"),
            ("nvme", "serial=123456789012345678901", Some(drive(false)), "'serial'"),
            ("nvme", "serial=x,logical_block_size=1000", Some(drive(false)), "power of two"),
            ("nvme", "serial=x,max_ioqpairs=0", Some(drive(false)), "max_ioqpairs"),
            ("ide-hd", "", Some(drive(false)), "AHCI port"),
            ("ahci", "what=1", None, "'what'"),
        ] {
            let e = make(name, text, drive).unwrap_err().to_string();
            assert!(e.starts_with(&format!("-device {name}: ")) && e.contains(word), "{e}");
        }
    }

    #[test]
    fn ports() {
        let bus = bus();
        let ahci = Ahci::new(&bus.slot(Devfn::new(31, 2)), &Log::off());
        let (hd, set) =
            parse("ide-hd", "bus=ide.3,unit=0,serial=S,wwn=0x5000c50000000001,cyls=2,heads=3,secs=4").unwrap();
        assert_eq!(place(&set).unwrap(), Some(("ide".to_owned(), 3)));
        assert!(hd.attach(&set, &ahci, 3, Some(drive(false))).is_ok());
        assert!(hd.attach(&set, &ahci, 3, Some(drive(false))).is_err());
        assert!(hd.attach(&set, &ahci, 2, Some(drive(true))).is_err());
        assert!(hd.attach(&set, &ahci, 2, None).is_err());
        let (cd, set) = parse("ide-cd", "bus=sata.1").unwrap();
        assert_eq!(place(&set).unwrap(), Some(("sata".to_owned(), 1)));
        assert!(cd.attach(&set, &ahci, 1, None).is_ok());
        for bad in ["bus=ide.6", "bus=ide", "bus=.1", "bus=ide.x"] {
            assert!(place(&parse("ide-cd", bad).unwrap().1).is_err());
        }
        assert!(parse("ide-hd", "unit=1").is_err() && parse("ide-hd", "logical_block_size=4096").is_err());
        let (hd, set) = parse("ide-hd", "cyls=3").unwrap();
        assert!(hd.attach(&set, &ahci, 4, Some(drive(false))).is_err());
    }
}
