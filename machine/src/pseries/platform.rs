//! The devices of the board: terminals, NVRAM, and those of `-device` that only this board has.

use crate::board::{Board, Wiring};
use crate::config::{DeviceSpec, MachineConfig};
use crate::inventory::Inventory;
use crate::plug::{BusParts, OwnBus};
use rhea_block::{Drive, DriveInterface, DriveOptions, Media};
use rhea_device::options::{OptionDecl, OptionKind, OptionSet};
use rhea_device::{Device, OptionError};
use rhea_irqchip::spapr::SpaprIrq;
use rhea_irqchip::spapr::papr::{Args, Hypercalls, Status, hcall as h};
use rhea_memory::AddressSpace;
use rhea_spapr::guest::GuestRam;
use rhea_spapr::rng::Rng;
use rhea_spapr::vio::{nvram, vlan, vscsi, vty};
use rhea_spapr::{Phb, PhbConfig, Phbs, TceTables, VioBus, VioDevice};
use rhea_storage::scsi::{LogicalUnit, ScsiCd, ScsiDisk, ScsiDiskOptions};
use rhea_storage::{CdDrive, CdOptions};
use std::sync::Arc;

/// Names of `-device` that this board has, with what `-device help` says.
pub const DEVICES: &[(&str, &str, &[OptionDecl])] = &[
    ("pc-dimm", "memory module", super::hotplug::DIMM_OPTIONS),
    ("power8_v2.0-spapr-cpu-core", "core of the processor", super::hotplug::CORE_OPTIONS),
    ("power9_v2.2-spapr-cpu-core", "core of the processor", super::hotplug::CORE_OPTIONS),
    ("power10_v2.0-spapr-cpu-core", "core of the processor", super::hotplug::CORE_OPTIONS),
    ("scsi-cd", "CD-ROM drive of a virtual SCSI adapter", SCSI_OPTIONS),
    ("scsi-hd", "disk of a virtual SCSI adapter", SCSI_OPTIONS),
    ("spapr-vlan", "logical LAN", VLAN_OPTIONS),
    ("spapr-vscsi", "virtual SCSI adapter", VSCSI_OPTIONS),
    ("spapr-vty", "terminal", VTY_OPTIONS),
    ("spapr-pci-host-bridge", "PCI host bridge", PHB_OPTIONS),
];

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name");
const REG: OptionDecl =
    OptionDecl::new("reg", OptionKind::Number { min: 1, max: u32::MAX as u64 }, None, "unit address on the VIO bus");
const VTY_OPTIONS: &[OptionDecl] = &[ID, REG, OptionDecl::new("chardev", OptionKind::Text, None, "character back end")];
const VLAN_OPTIONS: &[OptionDecl] = &[
    ID,
    REG,
    OptionDecl::new("netdev", OptionKind::Text, None, "network back end"),
    OptionDecl::new("mac", OptionKind::Mac, None, "MAC address"),
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "place in the boot order"),
];
const VSCSI_OPTIONS: &[OptionDecl] = &[ID, REG];
const SCSI_OPTIONS: &[OptionDecl] = &[
    ID,
    OptionDecl::new("drive", OptionKind::Text, None, "id of the drive"),
    OptionDecl::new("bus", OptionKind::Text, None, "adapter: its id and .0"),
    OptionDecl::new("scsi-id", OptionKind::Number { min: 0, max: 63 }, None, "target"),
    OptionDecl::new("lun", OptionKind::Number { min: 0, max: 31 }, Some("0"), "logical unit"),
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "place in the boot order"),
    rhea_block::DEVICE_ERRORS[0],
    rhea_block::DEVICE_ERRORS[1],
];
const PHB_OPTIONS: &[OptionDecl] = &[
    ID,
    OptionDecl::new("index", OptionKind::Number { min: 1, max: 30 }, None, "number of the bridge"),
    OptionDecl::new("ddw", OptionKind::Bool, Some("on"), "the guest can make DMA windows"),
];

/// Makes the terminals of `-serial` and the NVRAM.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    wiring: &Wiring,
    space: &Arc<AddressSpace>,
    bus: &Arc<VioBus>,
) -> Result<Arc<nvram::Nvram>, OptionError> {
    for backend in &wiring.serials {
        let slot = bus.slot(vty::KIND, None).map_err(|e| OptionError::new("-serial", e.to_string()))?;
        let vty = vty::Vty::new(slot, backend.clone());
        bus.attach_vty(vty.clone());
        board.devices.push(vty);
    }
    let mut drive = None;
    for (n, options) in config.drives.iter().filter(|d| d.interface == DriveInterface::Pflash).enumerate() {
        if n != 0 {
            return Err(OptionError::new(&options.option, "the machine has one NVRAM: use if=pflash once"));
        }
        let opened = crate::flash::open(config, options, "pflash0")?;
        board.flash_drives.push(opened.clone());
        drive = Some(opened);
    }
    let fail = |e: &dyn std::fmt::Display| OptionError::new("-drive if=pflash", e.to_string());
    let slot = bus.slot(nvram::KIND, None).map_err(|e| fail(&e))?;
    let nvram = nvram::Nvram::new(slot, drive, GuestRam::new(space)).map_err(|e| fail(&e))?;
    if !config.prom_env.is_empty() {
        let image = environment(&config.prom_env, nvram.contents().len())?;
        if !nvram.write(0, &image) {
            return Err(OptionError::new("-prom-env", "the NVRAM cannot be written"));
        }
    }
    bus.attach(nvram.clone());
    board.devices.push(nvram.clone());
    Ok(nvram)
}

/// The contents of an NVRAM of `size` bytes with variables of Open Firmware: partitions, each with a header of signature, checksum,
/// length in 16 bytes and name.
fn environment(variables: &[String], size: usize) -> Result<Vec<u8>, OptionError> {
    const SYSTEM: u8 = 0x70;
    const FREE: u8 = 0x7f;
    /// The system's partition is at least so long.
    const LEAST: usize = 4096;
    let header = |signature: u8, len: usize, name: &[u8]| {
        let mut bytes = [0u8; 16];
        bytes[0] = signature;
        bytes[2..4].copy_from_slice(&((len / 16) as u16).to_be_bytes());
        bytes[4..4 + name.len()].copy_from_slice(name);
        // The sum of the other bytes, carries added.
        let sum = bytes.iter().fold(0u16, |sum, b| {
            let sum = sum + u16::from(*b);
            (sum & 0xff) + (sum >> 8)
        });
        bytes[1] = sum as u8;
        bytes
    };
    let mut text: Vec<u8> = variables.iter().flat_map(|v| v.bytes().chain([0])).collect();
    text.push(0);
    let len = (16 + text.len()).next_multiple_of(16).max(LEAST);
    if len + 16 > size {
        return Err(OptionError::new("-prom-env", format!("the NVRAM of {size} bytes has no room for all variables")));
    }
    let mut image = vec![0; size];
    image[..16].copy_from_slice(&header(SYSTEM, len, b"common"));
    image[16..16 + text.len()].copy_from_slice(&text);
    image[len..len + 16].copy_from_slice(&header(FREE, size - len, &[0x77; 12]));
    Ok(image)
}

/// What `-device` makes on this board only.
pub struct Plugged<'a> {
    vio: &'a Arc<VioBus>,
    wiring: &'a Wiring,
    phbs: &'a Arc<Phbs>,
    space: &'a Arc<AddressSpace>,
    irq: &'a Arc<SpaprIrq>,
    tces: &'a Arc<TceTables>,
    /// SCSI adapters by the name of their buses; one is made for the first drive with if=scsi.
    scsi: Vec<(String, Arc<vscsi::Vscsi>)>,
}

impl<'a> Plugged<'a> {
    pub fn new(
        vio: &'a Arc<VioBus>,
        wiring: &'a Wiring,
        phbs: &'a Arc<Phbs>,
        space: &'a Arc<AddressSpace>,
        irq: &'a Arc<SpaprIrq>,
        tces: &'a Arc<TceTables>,
    ) -> Self {
        Self { vio, wiring, phbs, space, irq, tces, scsi: Vec::new() }
    }
}

impl Plugged<'_> {
    fn add_adapter(
        &mut self,
        board: &mut Board,
        option: &str,
        name: &str,
        unit: Option<u32>,
    ) -> Result<(), OptionError> {
        let slot = self.vio.slot(vscsi::KIND, unit).map_err(|e| OptionError::new(option, e.to_string()))?;
        let adapter = vscsi::Vscsi::new(slot);
        self.vio.attach(adapter.clone());
        board.devices.push(adapter.clone());
        self.scsi.push((format!("{name}.0"), adapter));
        Ok(())
    }
    /// Puts a drive at a target of an adapter; gives its path for firmware.
    fn add_unit(
        &mut self,
        (inventory, device): (&Inventory, Option<&str>),
        option: &str,
        bus: &str,
        (target, lun): (Option<u8>, u8),
        cd: bool,
        drive: Option<Arc<Drive>>,
    ) -> Result<String, OptionError> {
        let fail = |e: &dyn std::fmt::Display| OptionError::new(option, e.to_string());
        let found = self.scsi.iter().find(|(name, _)| name == bus);
        let (_, adapter) = found
            .ok_or_else(|| fail(&format!("there is no SCSI adapter '{bus}': put -device spapr-vscsi before it")))?;
        let target = target.or_else(|| adapter.free_target());
        let target = target.ok_or_else(|| fail(&"all targets of the SCSI adapter are in use"))?;
        let unit: Arc<dyn LogicalUnit> = match drive {
            drive if cd => {
                let name = drive.as_ref().map_or_else(|| "scsi0-cd2".to_owned(), |d| d.id().to_owned());
                let cd = CdDrive::new(drive, CdOptions::default());
                inventory.add_tray(&name, device, &cd);
                ScsiCd::new(&cd)
            }
            Some(drive) if !drive.readonly() => ScsiDisk::new(drive, ScsiDiskOptions::default()),
            Some(_) => return Err(fail(&"a disk is always writable: use media=cdrom, or snapshot=on")),
            None => return Err(fail(&"property 'drive' is missing: drive=ID")),
        };
        adapter.attach(target, lun, unit).map_err(|e| fail(&e))?;
        // The logical unit number of the SCSI RDMA protocol.
        let number = (0x8000 | u64::from(target) << 8 | u64::from(lun)) << 48;
        Ok(format!("/vdevice/v-scsi@{:x}/disk@{number:x}", adapter.slot().unit()))
    }
}

impl OwnBus for Plugged<'_> {
    fn knows(&self, driver: &str) -> bool {
        let plugged = driver == "pc-dimm" || super::hotplug::is_core(driver);
        DEVICES.iter().any(|d| d.0 == driver) && !plugged || driver == "ibmveth"
    }
    fn make(&mut self, board: &mut Board, spec: &DeviceSpec, parts: BusParts) -> Result<(), OptionError> {
        let driver = if spec.driver == "ibmveth" { "spapr-vlan" } else { &spec.driver };
        let Some((name, _, decls)) = DEVICES.iter().find(|d| d.0 == driver) else { return Ok(()) };
        let option = format!("-device {name}");
        let set = OptionSet::parse(&option, decls, &spec.pairs)?;
        let fail = |e: &dyn std::fmt::Display| OptionError::new(&option, e.to_string());
        let unit = set.number("reg").map(|n| n as u32);
        match *name {
            "spapr-vty" => {
                let Some(id) = set.text("chardev") else {
                    return Err(OptionError::new(&option, "property 'chardev' is missing: chardev=ID"));
                };
                let Some(backend) = self.wiring.chardevs.get(id) else {
                    return Err(set.error("chardev", &format!("'{id}': no -chardev has this id")));
                };
                let slot = self.vio.slot(vty::KIND, unit).map_err(|e| fail(&e))?;
                let vty = vty::Vty::new(slot, backend.clone());
                self.vio.attach_vty(vty.clone());
                board.devices.push(vty);
            }
            "spapr-vscsi" => {
                let id = set.text("id").map_or_else(|| format!("vscsi{}", self.scsi.len()), str::to_owned);
                self.add_adapter(board, &option, &id, unit)?;
            }
            "scsi-hd" | "scsi-cd" => {
                let bus = set.text("bus").map(str::to_owned).or_else(|| self.scsi.first().map(|s| s.0.clone()));
                let (target, lun) = (set.number("scsi-id").map(|n| n as u8), set.number("lun").unwrap_or(0) as u8);
                let bus = bus.unwrap_or_else(|| "scsi.0".to_owned());
                let cd = *name == "scsi-cd";
                let device = (&*board.inventory, set.text("id"));
                let path = self.add_unit(device, &option, &bus, (target, lun), cd, parts.drive)?;
                if let (Some(index), Some(order)) = (set.number("bootindex"), &mut board.boot_order) {
                    order.push((index, path));
                }
            }
            "spapr-vlan" => {
                let slot = self.vio.slot(vlan::KIND, unit).map_err(|e| fail(&e))?;
                let Some(net) = parts.net else {
                    return Err(OptionError::new(&option, "property 'netdev' is missing: netdev=ID"));
                };
                let unit = slot.unit();
                let card = vlan::Vlan::new(slot, net, set.mac("mac").unwrap_or(parts.mac));
                self.vio.attach(card.clone());
                board.devices.push(card);
                if let (Some(index), Some(order)) = (set.number("bootindex"), &mut board.boot_order) {
                    order.push((index, format!("/vdevice/l-lan@{unit:x}")));
                }
            }
            _ => {
                let index = set.number("index").ok_or_else(|| fail(&"property 'index' is missing: index=1 to 30"))?;
                let mut config = PhbConfig::new(index as u32, self.space, self.irq, self.tces);
                config.ddw = set.bool("ddw");
                let phb = Phb::new(config).map_err(|e| e.option(&option))?;
                self.phbs.add(phb.clone());
                board.devices.push(phb as Arc<dyn Device>);
            }
        }
        Ok(())
    }
    fn defaults(&mut self, board: &mut Board, cd: bool) -> Result<(), OptionError> {
        /// Where firmware looks for a CD.
        const TARGET: u8 = 2;
        if !cd {
            return Ok(());
        }
        if self.scsi.is_empty() {
            self.add_adapter(board, "-cdrom", "scsi", None)?;
        }
        let (bus, adapter) = self.scsi[0].clone();
        // Taken by a disk: the machine has no drive then.
        if adapter.addresses().iter().all(|(target, _)| *target != TARGET) {
            self.add_unit((&board.inventory, None), "-cdrom", &bus, (Some(TARGET), 0), true, None)?;
        }
        Ok(())
    }
    fn attach(&mut self, board: &mut Board, options: &DriveOptions, drive: Arc<Drive>) -> Result<(), OptionError> {
        if self.scsi.is_empty() {
            self.add_adapter(board, &options.option, "scsi", None)?;
        }
        let (bus, target) = (self.scsi[0].0.clone(), options.index.map(|n| u8::try_from(n).unwrap_or(u8::MAX)));
        let cd = options.media == Media::Cdrom;
        let device = (&*board.inventory, None);
        self.add_unit(device, &options.option, &bus, (target, 0), cd, Some(drive)).map(|_| ())
    }
}

/// The paths of boot devices as this board's firmware knows them, in order; `buid`: of the first host bridge.
pub fn boot_list(mut order: Vec<(u64, String)>, buid: u64) -> Vec<String> {
    order.sort();
    let paths = order.into_iter().map(|(_, path)| path);
    paths.map(|p| p.replacen("/pci@i0cf8", &format!("/pci@{buid:x}"), 1)).collect()
}

/// 64 random bits.
pub fn random(rng: &Rng) -> u64 {
    let (args, mut out) = (Args::default(), Args::default());
    match rng.hcall(0, h::H_RANDOM, &args, &mut out) {
        Some(Status::SUCCESS) => out[0],
        _ => 0,
    }
}

/// Year, month, day, hour, minute, second of a time in seconds since 1970.
pub fn date(seconds: i64) -> [u32; 6] {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
    let (year, month, day) = rhea_clock::calendar::date(days);
    [year as u32, month as u32, day as u32, second / 3600, second / 60 % 60, second % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), [1970, 1, 1, 0, 0, 0]);
        assert_eq!(date(951_868_801), [2000, 3, 1, 0, 0, 1]);
        assert_eq!(date(951_868_799), [2000, 2, 29, 23, 59, 59]);
    }

    #[test]
    fn variables_in_nvram() {
        let image = environment(&["auto-boot?=false".to_owned(), "x=1".to_owned()], 0x1_0000).unwrap();
        assert_eq!(
            (image[0], &image[4..10], &image[16..33]),
            (0x70, b"common".as_slice(), b"auto-boot?=false\0".as_slice())
        );
        let len = usize::from(u16::from_be_bytes([image[2], image[3]])) * 16;
        assert_eq!(image[len], 0x7f);
        assert_eq!(len + usize::from(u16::from_be_bytes([image[len + 2], image[len + 3]])) * 16, image.len());
        assert!(environment(&["x".repeat(9000)], 8192).is_err());
    }

    #[test]
    fn boot_devices() {
        let order = vec![(2, "/pci@i0cf8/scsi@3/disk@0,0".to_owned()), (1, "/pci@i0cf8/ethernet@1".to_owned())];
        assert_eq!(boot_list(order, 0x20), ["/pci@20/ethernet@1", "/pci@20/scsi@3/disk@0,0"]);
    }
}
