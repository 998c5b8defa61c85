//! The properties of `-device intel-iommu`.

use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};

pub const NAME: &str = "intel-iommu";
pub const DESCRIPTION: &str = "Intel IOMMU (VT-d), of the q35 board";

const SWITCH: OptionKind = OptionKind::Choice(&["auto", "on", "off"]);

const DECLARATIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("intremap", SWITCH, Some("auto"), "interrupt remapping"),
    OptionDecl::new("eim", SWITCH, Some("auto"), "32-bit destinations of remapped interrupts, for x2APIC mode"),
    OptionDecl::new("caching-mode", OptionKind::Bool, Some("off"), "software invalidates what was not present, too"),
    OptionDecl::new("device-iotlb", OptionKind::Bool, Some("off"), "devices may have translation caches"),
    OptionDecl::new("aw-bits", OptionKind::Choice(&["39", "48"]), Some("48"), "width of the addresses translated"),
    OptionDecl::new("pt", OptionKind::Bool, Some("on"), "pass-through of whole devices"),
    OptionDecl::new("dma-drain", OptionKind::Bool, Some("on"), "draining of requests can be asked for"),
    OptionDecl::new("x-scalable-mode", OptionKind::Choice(&["off"]), Some("off"), "scalable mode: there is none"),
];

/// The properties, for parsing and help.
#[must_use]
pub fn declarations() -> &'static [OptionDecl] {
    DECLARATIONS
}

/// What the unit can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtdOptions {
    pub interrupt_remapping: bool,
    pub extended_interrupts: bool,
    pub caching_mode: bool,
    pub device_iotlb: bool,
    /// 39 or 48.
    pub address_bits: u8,
    pub pass_through: bool,
    pub drain: bool,
    /// Bits of guest-physical addresses.
    pub host_bits: u8,
}

impl Default for VtdOptions {
    fn default() -> Self {
        Self {
            interrupt_remapping: true,
            extended_interrupts: true,
            caching_mode: false,
            device_iotlb: false,
            address_bits: 48,
            pass_through: true,
            drain: true,
            host_bits: 40,
        }
    }
}

impl VtdOptions {
    /// Of parsed properties; `host_bits` is the width of guest-physical addresses.
    ///
    /// # Errors
    /// Properties that contradict each other.
    pub fn of(set: &OptionSet, host_bits: u32) -> Result<Self, OptionError> {
        let remapping = set.text("intremap") != Some("off");
        if !remapping && set.text("eim") == Some("on") {
            return Err(set.error("eim", "'on' needs interrupt remapping: leave intremap=off out"));
        }
        Ok(Self {
            interrupt_remapping: remapping,
            extended_interrupts: remapping && set.text("eim") != Some("off"),
            caching_mode: set.bool("caching-mode"),
            device_iotlb: set.bool("device-iotlb"),
            address_bits: if set.text("aw-bits") == Some("39") { 39 } else { 48 },
            pass_through: set.bool("pt"),
            drain: set.bool("dma-drain"),
            host_bits: host_bits.clamp(36, 52) as u8,
        })
    }
}
