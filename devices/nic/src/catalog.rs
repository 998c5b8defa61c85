//! The names of `-device`, their properties, and how a controller is made of them.

use crate::E1000e;
use rhea_device::Log;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_net::NetBackend;
use rhea_pci::PciSlot;
use std::sync::Arc;

/// A name of `-device` and of `-nic model=`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    /// The file of its expansion ROM, unless `romfile=` says another.
    pub rom: &'static str,
    pub description: &'static str,
}

/// All names.
pub const DEVICES: &[DeviceType] =
    &[DeviceType { name: "e1000e", rom: "efi-e1000e.rom", description: "Intel 82574L gigabit Ethernet" }];

const OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("netdev", OptionKind::Text, None, "id of the network back end"),
    OptionDecl::new("mac", OptionKind::Mac, None, "address"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("bootindex", OptionKind::Number { min: 0, max: 0x7fff_ffff }, None, "boot order"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new("romfile", OptionKind::Text, None, "file of the expansion ROM, none if empty"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, Some("1"), "whether the ROM is there"),
    OptionDecl::new("subsys_ven", OptionKind::Number { min: 0, max: 0xffff }, Some("0x8086"), "subsystem vendor"),
    OptionDecl::new("subsys", OptionKind::Number { min: 0, max: 0xffff }, Some("0"), "subsystem"),
];

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        OPTIONS.to_vec()
    }
    /// Makes a controller of parsed properties; `mac` is its address if they give none.
    ///
    /// # Errors
    /// A property is missing or impossible.
    pub fn make(
        &self,
        set: &OptionSet,
        slot: &PciSlot,
        net: Option<Arc<dyn NetBackend>>,
        mac: [u8; 6],
        log: &Log,
    ) -> Result<Arc<E1000e>, OptionError> {
        let net = net.ok_or_else(|| set.error("netdev", "property is missing: give netdev=ID of a -netdev"))?;
        let mac = set.mac("mac").unwrap_or(mac);
        if mac[0] & 1 != 0 {
            return Err(set.error("mac", "is a group address: the lowest bit of the first byte must be 0"));
        }
        let id = |key| set.number(key).unwrap_or(0) as u16;
        Ok(E1000e::new(slot, net, mac, (id("subsys_ven"), id("subsys")), log))
    }
}
