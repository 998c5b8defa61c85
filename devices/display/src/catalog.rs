//! The names of `-device` that are displays, their properties, and how a device is made of them.

use crate::console::Display;
use crate::pci::{DisplayFunction, FunctionOptions};
use crate::vga::{Kind, VgaOptions};
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_pci::PciSlot;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Vga,
    SecondaryVga,
    BochsDisplay,
}

/// A name of `-device`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub model: Model,
    /// The file of its expansion ROM, unless `romfile=` says another.
    pub rom: Option<&'static str>,
    pub description: &'static str,
}

/// All names.
pub const DEVICES: &[DeviceType] = &[
    DeviceType {
        name: "VGA",
        model: Model::Vga,
        rom: Some("vgabios-stdvga.bin"),
        description: "VGA with the Bochs display interface",
    },
    DeviceType {
        name: "bochs-display",
        model: Model::BochsDisplay,
        rom: Some("vgabios-bochs-display.bin"),
        description: "linear framebuffer with the Bochs display interface, without VGA",
    },
    DeviceType {
        name: "secondary-vga",
        model: Model::SecondaryVga,
        rom: None,
        description: "VGA that answers at its BARs only",
    },
];

const SIZE: OptionKind = OptionKind::Number { min: 0, max: 16000 };

const COMMON: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name"),
    OptionDecl::new("bus", OptionKind::Text, None, "bus to sit on"),
    OptionDecl::new("addr", OptionKind::Text, None, "slot and function, like 03.0"),
    OptionDecl::new("multifunction", OptionKind::Bool, Some("off"), "other functions share the slot"),
    OptionDecl::new("edid", OptionKind::Bool, Some("on"), "the monitor tells its size"),
    OptionDecl::new("xres", SIZE, Some("1280"), "width the monitor tells, in pixels"),
    OptionDecl::new("yres", SIZE, Some("800"), "height the monitor tells, in pixels"),
    OptionDecl::new("romfile", OptionKind::Text, None, "file of the expansion ROM, none if empty"),
    OptionDecl::new("rombar", OptionKind::Number { min: 0, max: 1 }, Some("1"), "whether the ROM is there"),
];
const VGA: &[OptionDecl] = &[OptionDecl::new(
    "vgamem_mb",
    OptionKind::Number { min: 1, max: 256 },
    Some("16"),
    "framebuffer in MiB, a power of two",
)];
const BOCHS: &[OptionDecl] = &[OptionDecl::new(
    "vgamem",
    OptionKind::Size { unit: 1 },
    Some("16M"),
    "framebuffer, a power of two from 4M to 256M",
)];

/// What the board has for the devices.
pub struct Resources<'a> {
    pub slot: &'a PciSlot,
    pub clock: &'a Arc<VirtualClock>,
    pub log: &'a Log,
}

/// The type called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|d| d.name == name)
}

impl DeviceType {
    /// The properties, for parsing and for `-device NAME,help`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDecl> {
        [COMMON, if self.model == Model::BochsDisplay { BOCHS } else { VGA }].concat()
    }
    /// Makes the device of parsed properties. It is not attached to its bus yet.
    ///
    /// # Errors
    /// A property is impossible, or the ROM cannot be read.
    pub fn make(&self, set: &OptionSet, resources: &Resources<'_>) -> Result<Arc<DisplayFunction>, OptionError> {
        let bochs = self.model == Model::BochsDisplay;
        let key = if bochs { "vgamem" } else { "vgamem_mb" };
        let memory = set.number(key).unwrap_or(16) << if bochs { 0 } else { 20 };
        if !memory.is_power_of_two() || !(1 << 20..=256 << 20).contains(&memory) {
            return Err(set.error(key, "must be a power of two, at most 256 MiB"));
        }
        let number = |key: &str, default: u32| match set.number(key) {
            Some(n) if n != 0 => u32::try_from(n).unwrap_or(default),
            _ => default,
        };
        let options = FunctionOptions {
            vga: VgaOptions {
                kind: if bochs { Kind::Bochs } else { Kind::Vga },
                memory,
                edid: set.bool("edid").then(|| (number("xres", 1280), number("yres", 800))),
            },
            legacy: self.model == Model::Vga,
        };
        DisplayFunction::new(self.name, resources.slot, options, resources.clock, resources.log.clone())
            .map_err(|e| OptionError::new(set.option(), e.to_string()))
    }
}

impl DisplayFunction {
    /// What is shown, for a [`crate::Console`].
    #[must_use]
    pub fn display(&self) -> Arc<dyn Display> {
        self.vga().clone()
    }
}
