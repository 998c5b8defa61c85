//! `-M none`: no processors and no devices. Programs ask it what the emulator can do.

use crate::board::Board;
use crate::config::MachineConfig;
use crate::machine::{Architecture, Machine, Parts};
use crate::options::machine_pairs;
use rhea_accel::VmControl;
use rhea_device::Log;
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_memory::Gpa;
use std::sync::Arc;

pub(crate) const DECLS: &[OptionDecl] = &[
    OptionDecl::new("type", OptionKind::Text, None, "machine name"),
    OptionDecl::new("accel", OptionKind::Text, None, "accelerator, as -accel"),
    OptionDecl::new("graphics", OptionKind::Bool, Some("on"), "of no effect: there is no display"),
];

/// `-M none,...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoneOptions {
    /// The one that is asked about.
    pub architecture: Architecture,
    pub accel: Option<String>,
}

impl NoneOptions {
    /// The text of `-M none,help`.
    #[must_use]
    pub fn help() -> String {
        options::help("none", DECLS)
    }
    /// Parses all `-M` values given; `default`, the machine when none is named, says which architecture is meant.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(texts: &[String], default: &str) -> Result<Self, OptionError> {
        let (_, pairs) = machine_pairs(texts, default)?;
        let set = OptionSet::parse("-M none", DECLS, &pairs)?;
        let architecture = match default {
            "q35" => Architecture::X86_64,
            "pseries" => Architecture::Ppc64,
            _ => Architecture::Aarch64,
        };
        Ok(Self { architecture, accel: set.text("accel").map(str::to_owned) })
    }
}

/// Makes the machine.
///
/// # Errors
/// [`OptionError`]: an option asks for what needs processors or a bus.
pub fn build(
    config: &MachineConfig,
    options: &NoneOptions,
    control: VmControl,
    log: Log,
) -> Result<Arc<Machine>, OptionError> {
    for (option, given) in [
        ("-kernel", config.kernel.is_some()),
        ("-bios", config.bios.is_some()),
        ("-device", !config.devices.is_empty()),
        ("-drive", !config.drives.is_empty()),
        ("-netdev", !config.netdevs.is_empty()),
        ("-nic", config.nics.iter().any(|n| n != "none")),
        ("-vga", config.vga.as_ref().is_some_and(|v| v != "none")),
        ("-dtb", config.dtb.is_some()),
        ("-gdb", config.gdb.is_some()),
        ("-smp", config.smp.max_cpus > 1),
    ] {
        if given {
            return Err(OptionError::new(option, "the machine none has no processors and no devices"));
        }
    }
    let mut board = Board::new(&control, &log, None);
    if config.ram.size != 0 {
        let ram = config.make_ram()?;
        let mapped = board.space.map_ram(Gpa(0), &ram, 0, ram.len(), 0);
        board.keep_mapping(mapped.map_err(|e| OptionError::new("-m", e.to_string()))?);
    }
    let parts = Parts {
        name: config.name.clone().unwrap_or_else(|| "none".to_owned()),
        architecture: options.architecture,
        space: board.space,
        ports: None,
        clock: board.clock,
        routing: board.routing,
        control,
        log,
        cpus: Vec::new(),
        devices: Vec::new(),
        ram: Vec::new(),
        plugged_ram: Box::new(Vec::new),
        reload: Box::new(|| {}),
        power_button: Box::new(|| {}),
        nmi: None,
        info: Vec::new(),
        keep: board.keep,
        displays: Vec::new(),
        input: board.input,
        inventory: board.inventory,
        hotplug: None,
    };
    Machine::new(parts).map_err(|e| OptionError::new("-M none", e.to_string()))
}
