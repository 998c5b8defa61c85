//! Storage controllers, and disks and CD drives at their ports.

use super::{IdeDrive, Plugger};
use crate::config::DeviceSpec;
use rhea_block::Media;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::x86::boot_order::unit;
use rhea_pci::PciFunction;
use rhea_storage::ahci::Attached;
use rhea_storage::{CdOptions, DiskOptions, catalog};
use std::sync::Arc;

impl<'a> Plugger<'a> {
    /// Puts drives with if=ide into ports: those that say which first, the others into what is left.
    pub(super) fn attach_ide(&mut self, mut drives: Vec<IdeDrive<'a>>) -> Result<(), OptionError> {
        drives.sort_by_key(|(options, ..)| options.index.is_none());
        for (options, name, drive) in drives {
            let fail = |text: &str| OptionError::new(&options.option, text);
            let Some((_, controller)) = self.plugs.ahci.first() else {
                return Err(fail("the machine has no IDE or AHCI controller: use if=virtio or if=none"));
            };
            let port = match options.index {
                Some(n) => u8::try_from(n).unwrap_or(u8::MAX),
                None => controller.free_port().ok_or_else(|| fail("all ports of the AHCI controller are in use"))?,
            };
            let medium = drive.clone();
            let done = match drive.filter(|_| options.media != Media::Cdrom) {
                Some(drive) if drive.readonly() => {
                    return Err(fail("a disk is always writable: use media=cdrom, or snapshot=on"));
                }
                Some(drive) => {
                    let physical_block = drive.backend().geometry().physical_block;
                    let disk = DiskOptions { physical_block, ..DiskOptions::default() };
                    controller.attach_disk(port, drive, disk).map(|_| ())
                }
                None => controller
                    .attach_cd(port, medium, CdOptions::default())
                    .map(|cd| self.board.inventory.add_tray(&name, None, &cd)),
            };
            done.map_err(|e| fail(&e.to_string()))?;
        }
        Ok(())
    }

    /// A storage controller, or a disk or CD drive at a port of one.
    pub(super) fn storage(&mut self, kind: &'static catalog::DeviceType, spec: &DeviceSpec) -> Result<(), OptionError> {
        let option = format!("-device {}", kind.name);
        let pairs = self.with_globals(kind.name, &spec.pairs);
        let set = OptionSet::parse(&option, &kind.options(), &pairs)?;
        let empty = spec.value("drive").and_then(|id| self.plugs.empty.iter().position(|e| e == id));
        let empty = empty.filter(|_| kind.model == catalog::Model::IdeCd).map(|n| self.plugs.empty.remove(n));
        let drive = if empty.is_some() { None } else { self.named_drive(&option, spec)? };
        self.take_id(&set)?;
        let boot = set.number("bootindex");
        if !kind.is_controller() {
            let (name, port) = match catalog::place(&set)? {
                Some((name, port)) => (name, Some(port)),
                None => ("ide".to_owned(), None),
            };
            let Some((_, controller)) = self.plugs.ahci.iter().find(|(n, _)| *n == name) else {
                let text = format!("there is no AHCI controller '{name}': put -device ahci,id={name} before it");
                return Err(OptionError::new(&option, text));
            };
            let controller = controller.clone();
            let port = port.or_else(|| controller.free_port());
            let port = port.ok_or_else(|| OptionError::new(&option, "all ports of the controller are in use"))?;
            let name = drive.as_ref().map(|d| d.id().to_owned()).or(empty).unwrap_or_default();
            if let Attached::Cd(cd) = kind.attach(&set, &controller, port, drive)? {
                self.board.inventory.add_tray(&name, set.text("id"), &cd);
            }
            if let Some(index) = boot {
                self.board.add_boot_entry(index, &*controller, &unit::ahci(port));
            }
            return Ok(());
        }
        let slot = self.pci_slot(&option, &set)?;
        let function: Arc<dyn PciFunction> = match kind.make(&set, &slot, drive, &self.board.log)? {
            catalog::Made::Ahci(ahci) => {
                let name = set.text("id").map_or_else(|| format!("ahci{}", self.plugs.ahci.len()), str::to_owned);
                self.plugs.ahci.push((name, ahci.clone()));
                ahci
            }
            catalog::Made::Nvme(nvme) => nvme,
        };
        self.attach(&set, function.clone())?;
        if let Some(index) = boot {
            self.board.add_boot_entry(index, &*function, unit::NVME);
        }
        Ok(())
    }
}
