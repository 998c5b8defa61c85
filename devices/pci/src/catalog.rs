//! The names of `-device` for bridges, ports and the educational device, their properties, and how they are made.

use crate::config::{ConfigBuilder, Identity, PcieType};
use crate::edu::Edu;
use crate::{Bridge, BusKind, PciFunction, PciSlot, Port, PortKind};
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    RootPort,
    PciBridge,
    ExpressBridge,
    Upstream,
    Downstream,
    Edu,
}

/// A name of `-device`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub model: Model,
    pub description: &'static str,
    vendor: u16,
    device: u16,
    revision: u8,
}

const fn device(
    name: &'static str,
    model: Model,
    (vendor, device, revision): (u16, u16, u8),
    description: &'static str,
) -> DeviceType {
    DeviceType { name, model, description, vendor, device, revision }
}

/// All names.
pub const DEVICES: &[DeviceType] = &[
    device("edu", Model::Edu, (0x1234, 0x11e8, 0x10), "educational device"),
    device("ioh3420", Model::RootPort, (0x8086, 0x3420, 2), "Intel IOH root port"),
    device("pci-bridge", Model::PciBridge, (0x1b36, 0x0001, 0), "PCI bridge"),
    device("pcie-pci-bridge", Model::ExpressBridge, (0x1b36, 0x000e, 0), "PCI Express to PCI bridge"),
    device("pcie-root-port", Model::RootPort, (0x1b36, 0x000c, 0), "PCI Express root port"),
    device("x3130-upstream", Model::Upstream, (0x104c, 0x8232, 2), "upstream port of a PCI Express switch"),
    device("xio3130-downstream", Model::Downstream, (0x104c, 0x8233, 1), "downstream port of a PCI Express switch"),
];

const BYTE: OptionKind = OptionKind::Number { min: 0, max: 255 };

const PLACE: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name, also of the bus of a bridge"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
];
const PORT: &[OptionDecl] = &[
    OptionDecl::new("port", BYTE, Some("0"), "number of the link"),
    OptionDecl::new("chassis", BYTE, Some("0"), "number of the chassis"),
    OptionDecl::new("slot", OptionKind::Number { min: 0, max: 0x1fff }, Some("0"), "number of the slot"),
    OptionDecl::new("hotplug", OptionKind::Bool, Some("on"), "devices may be plugged in and taken out"),
];
const BRIDGE: &[OptionDecl] = &[
    OptionDecl::new("chassis_nr", BYTE, Some("0"), "number of the chassis"),
    OptionDecl::new("msi", OptionKind::Choice(&["auto", "on", "off"]), Some("auto"), "message-signalled interrupts"),
    OptionDecl::new("shpc", OptionKind::Choice(&["off"]), Some("off"), "standard hot-plug controller: none"),
];
const EXPRESS_BRIDGE: &[OptionDecl] =
    &[OptionDecl::new("msi", OptionKind::Choice(&["auto", "on", "off"]), Some("auto"), "message-signalled interrupts")];
const EDU: &[OptionDecl] = &[OptionDecl::new(
    "dma_mask",
    OptionKind::Number { min: 0, max: u64::MAX },
    Some("0xfffffff"),
    "address bits of its DMA",
)];

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

/// A function to be attached; then what is behind a bridge is to be made known.
pub struct Made {
    pub function: Arc<dyn PciFunction>,
    /// The same, if it is a port of PCI Express.
    pub port: Option<Arc<Port>>,
    connect: Option<Box<dyn FnOnce()>>,
}

impl Made {
    /// Puts the function on its bus, and a bridge's bus behind it.
    ///
    /// # Errors
    /// The place cannot be taken.
    pub fn attach(self) -> Result<Arc<dyn PciFunction>, crate::PciError> {
        self.function.config().slot().bus().attach(self.function.clone())?;
        if let Some(connect) = self.connect {
            connect();
        }
        Ok(self.function)
    }
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        let own = match self.model {
            Model::RootPort | Model::Downstream => PORT,
            Model::PciBridge => BRIDGE,
            Model::ExpressBridge => EXPRESS_BRIDGE,
            Model::Upstream => &[],
            Model::Edu => EDU,
        };
        [PLACE, own].concat()
    }
    fn identity(&self, class: u32) -> Identity {
        let (subsystem_vendor, subsystem) = match self.model {
            Model::Edu => (0x1af4, 0x1100),
            _ => (self.vendor, 0),
        };
        Identity {
            vendor: self.vendor,
            device: self.device,
            revision: self.revision,
            class,
            subsystem_vendor,
            subsystem,
        }
    }
    /// Makes the function of parsed properties; the bus behind a bridge is called `bus`.
    ///
    /// # Errors
    /// The place is not one for it.
    pub fn make(
        &self,
        set: &OptionSet,
        slot: &PciSlot,
        bus: &str,
        clock: &Arc<VirtualClock>,
        log: &Log,
    ) -> Result<Made, OptionError> {
        const BRIDGE_CLASS: u32 = 0x06_0400;
        let (kind, above) = (slot.bus().kind(), slot.bus().name());
        let wrong = |text: &str| Err(OptionError::new(set.option(), format!("bus '{above}' {text}")));
        match self.model {
            Model::RootPort if kind != BusKind::Root => return wrong("is no root bus: root ports sit there only"),
            Model::Downstream if kind != BusKind::Switch => {
                return wrong("is not that of an x3130-upstream port: downstream ports sit there only");
            }
            Model::Upstream if kind != BusKind::Link => {
                return wrong("is not that of a root or downstream port: upstream ports sit there only");
            }
            Model::ExpressBridge if !kind.is_express() => return wrong("is no PCI Express bus"),
            _ => {}
        }
        let identity = self.identity(if self.model == Model::Edu { 0x00_ff00 } else { BRIDGE_CLASS });
        let Identity { subsystem_vendor, subsystem, .. } = identity;
        let number = |key: &str| set.number(key).unwrap_or(0);
        let builder = || ConfigBuilder::bridge(identity, slot.clone());
        let with_msi = |config: ConfigBuilder| match set.text("msi") {
            Some("off") => config,
            Some("on") => config.msi(0),
            _ if slot.bus().has_msi() => config.msi(0),
            _ => config,
        };
        let bridge = |kind: BusKind, config: ConfigBuilder| {
            let bridge = Arc::new(Bridge::new(self.name, bus, kind, slot, config));
            let other = bridge.clone();
            Made { function: bridge, port: None, connect: Some(Box::new(move || other.connect())) }
        };
        let made = match self.model {
            Model::Edu => {
                Made { function: Edu::new(identity, slot, number("dma_mask"), clock, log), port: None, connect: None }
            }
            Model::RootPort | Model::Downstream => {
                let pcie = if self.model == Model::RootPort { PcieType::RootPort } else { PcieType::DownstreamPort };
                let kind = PortKind {
                    model: self.name,
                    identity,
                    pcie,
                    port: number("port") as u8,
                    slot: number("slot") as u16,
                    chassis: number("chassis") as u8,
                    hotplug: set.bool("hotplug"),
                };
                let port = Port::new(kind, bus, slot);
                let other = port.clone();
                Made { function: port.clone(), port: Some(port), connect: Some(Box::new(move || other.connect())) }
            }
            Model::Upstream => bridge(
                BusKind::Switch,
                builder().msi(0).subsystem_capability(subsystem_vendor, subsystem).pcie_port(
                    PcieType::UpstreamPort,
                    0,
                    None,
                ),
            ),
            Model::ExpressBridge => bridge(
                BusKind::ExpressPci,
                with_msi(builder().pcie_port(PcieType::ToPciBridge, 0, None))
                    .subsystem_capability(subsystem_vendor, subsystem),
            ),
            Model::PciBridge => {
                // Slot numbering: no expansion slots of its own (PCI-to-PCI bridge specification 13.6).
                let chassis = [0, number("chassis_nr") as u8];
                bridge(BusKind::Pci, with_msi(builder().capability(4, &chassis, &[0, 0xff], &mut 0)))
            }
        };
        if set.bool("multifunction") {
            made.function.config().set_multifunction();
        }
        Ok(made)
    }
}
