//! The names of `-device`, their properties, and how a device is made of them.

use crate::hid::HidKind;
use crate::xhci::{MOST_INTERRUPTERS, MOST_PORTS, MOST_SLOTS};
use crate::{Hid, Hub, StorageOptions, UsbDevice, UsbStorage, Xhci, XhciModel, XhciOptions};
use rhea_block::Drive;
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_pc::InputHub;
use rhea_pci::PciSlot;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A controller on the PCI bus, with the bus `ID.0`.
    Xhci(XhciModel),
    Hid(HidKind),
    Storage,
    Hub,
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
    DeviceType {
        name: "nec-usb-xhci",
        model: Model::Xhci(XhciModel::Nec),
        description: "xHCI controller (NEC µPD720200)",
    },
    DeviceType { name: "qemu-xhci", model: Model::Xhci(XhciModel::Generic), description: "xHCI controller" },
    DeviceType { name: "usb-hub", model: Model::Hub, description: "USB hub with 8 ports, full speed" },
    DeviceType { name: "usb-kbd", model: Model::Hid(HidKind::Keyboard), description: "USB keyboard" },
    DeviceType { name: "usb-mouse", model: Model::Hid(HidKind::Mouse), description: "USB mouse" },
    DeviceType { name: "usb-storage", model: Model::Storage, description: "USB disk or CD drive" },
    DeviceType {
        name: "usb-tablet",
        model: Model::Hid(HidKind::Tablet),
        description: "USB pointer with absolute positions",
    },
];

/// The names of `-usbdevice` and the device each stands for.
pub const USB_DEVICE: &[(&str, &str)] = &[("keyboard", "usb-kbd"), ("mouse", "usb-mouse"), ("tablet", "usb-tablet")];

const BLOCK_SIZES: OptionKind = OptionKind::Number { min: 512, max: 32768 };
const PORTS: OptionKind = OptionKind::Number { min: 1, max: MOST_PORTS as u64 };
const AUTO: &[&str] = &["on", "off", "auto"];

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name");
const XHCI: &[OptionDecl] = &[
    ID,
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new("romfile", OptionKind::Choice(&[""]), None, "option ROM: none"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, None, "option ROM: none"),
    OptionDecl::new("p2", PORTS, Some("4"), "USB 2 ports"),
    OptionDecl::new("p3", PORTS, Some("4"), "USB 3 ports"),
    OptionDecl::new("slots", OptionKind::Number { min: 1, max: MOST_SLOTS as u64 }, Some("64"), "device slots"),
    OptionDecl::new(
        "intrs",
        OptionKind::Number { min: 1, max: MOST_INTERRUPTERS as u64 },
        Some("16"),
        "interrupters, each with a vector",
    ),
    OptionDecl::new("msi", OptionKind::Choice(AUTO), None, "MSI (auto: on the NEC controller)"),
    OptionDecl::new("msix", OptionKind::Choice(AUTO), Some("auto"), "MSI-X"),
    OptionDecl::new("streams", OptionKind::Choice(&["off"]), None, "there are no bulk streams"),
];
const COMMON: &[OptionDecl] = &[
    ID,
    OptionDecl::new("bus", OptionKind::Text, None, "bus of a controller: its ID.0, or usb-bus.N"),
    OptionDecl::new("port", OptionKind::Text, None, "port, from 1; behind hubs like 1.2"),
    OptionDecl::new("serial", OptionKind::Text, None, "serial number, at most 36 characters"),
];
const HID: &[OptionDecl] = &[
    OptionDecl::new("usb_version", OptionKind::Number { min: 2, max: 2 }, Some("2"), "version of USB"),
    OptionDecl::new("display", OptionKind::Choice(&[""]), None, "input is of all displays"),
];
const STORAGE: &[OptionDecl] = &[
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "boot order"),
    OptionDecl::new("drive", OptionKind::Text, None, "id of the drive"),
    rhea_block::DEVICE_ERRORS[0],
    rhea_block::DEVICE_ERRORS[1],
    OptionDecl::new("removable", OptionKind::Bool, Some("off"), "the medium can be taken out"),
    OptionDecl::new("logical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
    OptionDecl::new("physical_block_size", BLOCK_SIZES, None, "bytes, a power of two"),
];
const HUB: &[OptionDecl] = &[OptionDecl::new("ports", OptionKind::Number { min: 8, max: 8 }, Some("8"), "ports")];

/// What the machine has for a device at a port.
pub struct Resources<'a> {
    /// For `drive=`, and whether it is a CD.
    pub drive: Option<(Arc<Drive>, bool)>,
    pub input: &'a Arc<InputHub>,
    pub clock: &'a Arc<VirtualClock>,
}

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

fn block_size(set: &OptionSet, key: &str) -> Result<u32, OptionError> {
    match set.number(key).map(u32::try_from) {
        None => Ok(0),
        Some(Ok(n)) if n.is_power_of_two() => Ok(n),
        Some(_) => Err(set.error(key, "must be a power of two")),
    }
}

fn serial(set: &OptionSet) -> Result<String, OptionError> {
    match set.text("serial") {
        None => Ok("1".to_owned()),
        Some(t) if t.is_empty() || t.len() > 36 => Err(set.error("serial", "expected 1 to 36 characters")),
        Some(t) if !t.bytes().all(|b| (0x20..0x7f).contains(&b)) => {
            Err(set.error("serial", "must be of printable ASCII"))
        }
        Some(t) => Ok(t.to_owned()),
    }
}

/// The ports of `port=1.2`.
fn path(set: &OptionSet) -> Result<Option<Vec<u8>>, OptionError> {
    let Some(text) = set.text("port") else { return Ok(None) };
    let ports: Option<Vec<u8>> = text.split('.').map(|n| n.parse().ok().filter(|n| *n > 0)).collect();
    ports.map(Some).ok_or_else(|| set.error("port", &format!("'{text}': expected a port like 1, or behind a hub 1.2")))
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        match self.model {
            Model::Xhci(_) => XHCI.to_vec(),
            Model::Hid(_) => [COMMON, HID].concat(),
            Model::Storage => [COMMON, STORAGE].concat(),
            Model::Hub => [COMMON, HUB].concat(),
        }
    }
    /// Sits on the PCI bus; the others at a port of a controller.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        matches!(self.model, Model::Xhci(_))
    }
    /// Makes a controller of parsed properties.
    ///
    /// # Errors
    /// This is no controller.
    pub fn make(
        &self,
        set: &OptionSet,
        slot: &PciSlot,
        clock: &Arc<VirtualClock>,
        log: &Log,
    ) -> Result<Arc<Xhci>, OptionError> {
        let Model::Xhci(model) = self.model else {
            return Err(OptionError::new(set.option(), "sits at a USB port, not on a PCI bus"));
        };
        let d = XhciOptions::default();
        let number = |key, default| set.number(key).and_then(|n| u8::try_from(n).ok()).unwrap_or(default);
        let options = XhciOptions {
            model,
            p2: number("p2", d.p2),
            p3: number("p3", d.p3),
            slots: number("slots", d.slots),
            interrupters: number("intrs", d.interrupters),
            msi: match set.text("msi") {
                Some("on") => true,
                Some("off") => false,
                _ => model == XhciModel::Nec,
            },
            msix: set.text("msix") != Some("off"),
        };
        Ok(Xhci::new(slot, options, clock, log))
    }
    /// Makes a device of parsed properties and puts it at a port of a controller; the path of ports to it.
    ///
    /// # Errors
    /// A property is missing or impossible, there is no such port or it is in use, or this is a controller.
    pub fn attach(&self, set: &OptionSet, controller: &Xhci, resources: Resources<'_>) -> Result<Vec<u8>, OptionError> {
        let path = path(set)?;
        let serial = serial(set)?;
        let device: Arc<dyn UsbDevice> = match self.model {
            Model::Xhci(_) => return Err(OptionError::new(set.option(), "is a controller: it has no port")),
            Model::Hid(kind) => Hid::new(kind, &serial, resources.input, resources.clock),
            Model::Hub => Hub::new(&serial),
            Model::Storage => {
                let missing = || set.error("drive", "property is missing: give drive=ID of a -drive if=none,id=ID");
                let (drive, cd) = resources.drive.ok_or_else(missing)?;
                let logical_block_size = block_size(set, "logical_block_size")?;
                let physical_block_size = block_size(set, "physical_block_size")?;
                if physical_block_size != 0 && physical_block_size < logical_block_size {
                    return Err(set.error("physical_block_size", "is smaller than the logical block size"));
                }
                if cd {
                    UsbStorage::cd(drive, &serial)
                } else {
                    let removable = set.bool("removable");
                    let options = StorageOptions { serial, removable, logical_block_size, physical_block_size };
                    UsbStorage::disk(drive, options)
                }
            }
        };
        controller.attach(path.as_deref(), device).map_err(|e| match set.text("port") {
            Some(port) => set.error("port", &format!("'{port}': {e}")),
            None => OptionError::new(set.option(), e.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_accel::IrqLine;
    use rhea_block::{CacheMode, MemoryBackend};
    use rhea_device::options::split;
    use rhea_memory::AddressSpace;
    use rhea_pci::{Devfn, PciBus};

    fn parse(name: &str, text: &str) -> Result<(&'static DeviceType, OptionSet), OptionError> {
        let kind = find(name).unwrap();
        Ok((kind, OptionSet::parse(&format!("-device {name}"), &kind.options(), &split(text))?))
    }

    #[test]
    fn mistakes() {
        let bus = PciBus::new("pcie.0", AddressSpace::new("s"), std::array::from_fn(|_| IrqLine::unconnected()), None);
        let (clock, input) = (VirtualClock::new(), InputHub::new());
        let drive = || Drive::new("d", Arc::new(MemoryBackend::new(vec![0; 1 << 20], false)), CacheMode::Writeback);
        let (kind, set) = parse("nec-usb-xhci", "p2=2,p3=1,msi=off").unwrap();
        let xhci = kind.make(&set, &bus.slot(Devfn::new(3, 0)), &clock, &Log::off()).unwrap();
        let attach = |name: &str, text: &str, with_drive: bool| {
            let drive = with_drive.then(|| (drive(), false));
            let resources = Resources { drive, input: &input, clock: &clock };
            parse(name, text).and_then(|(kind, set)| kind.attach(&set, &xhci, resources))
        };
        for (name, text, drive, word) in [
            ("usb-storage", "", false, "'drive'"),
            ("usb-storage", "serial=", true, "'serial'"),
            ("usb-storage", "logical_block_size=777", true, "power of two"),
            ("usb-storage", "logical_block_size=4096,physical_block_size=512", true, "smaller"),
            ("usb-kbd", "port=0", false, "'port'"),
            ("usb-kbd", "port=3", false, "no such port"),
            ("usb-kbd", "port=1.1", false, "usb-hub"),
            ("usb-kbd", "what=1", false, "'what'"),
            ("qemu-xhci", "", false, "controller"),
        ] {
            let e = attach(name, text, drive).unwrap_err().to_string();
            assert!(e.starts_with(&format!("-device {name}: ")) && e.contains(word), "{e}");
        }
        assert_eq!(attach("usb-storage", "logical_block_size=4096", true), Ok(vec![1]));
        assert_eq!(attach("usb-hub", "port=2", false), Ok(vec![2]));
        assert_eq!(attach("usb-tablet", "port=2.8", false), Ok(vec![2, 8]));
        assert!(attach("usb-mouse", "", false).unwrap_err().to_string().contains("all ports"));
        assert!(parse("qemu-xhci", "p3=16").is_err() && parse("qemu-xhci", "slots=0").is_err());
        let (kind, set) = parse("usb-mouse", "").unwrap();
        assert!(kind.make(&set, &bus.slot(Devfn::new(4, 0)), &clock, &Log::off()).is_err());
        assert!(USB_DEVICE.iter().all(|(_, driver)| find(driver).is_some()));
    }
}
