//! The boards: options become a wired machine.

pub mod accel;
mod board;
pub mod catalog;
pub mod config;
mod cpu;
pub mod devices;
pub mod dirty_rate;
pub mod display;
mod files;
mod flash;
pub mod hotplug;
pub mod inventory;
pub mod machine;
mod nic;
mod none;
pub mod options;
mod pci;
mod plug;
mod profile;
pub mod pseries;
pub mod q35;
mod rom;
pub mod run;
pub mod state;
pub mod virt;

pub use board::Wiring;
pub use config::{BoardOptions, MachineConfig};
pub use inventory::Inventory;
pub use machine::{Machine, MachineCpu, RunState};
pub use none::NoneOptions;
pub use profile::Sample;

use rhea_accel::VmControl;
use rhea_device::{Log, OptionError};
use std::sync::Arc;

/// Builds the machine that the options describe; its CPUs are paused at their start.
///
/// # Errors
/// [`OptionError`] naming the option that cannot be satisfied.
pub fn build(
    config: &MachineConfig,
    wiring: &Wiring,
    control: VmControl,
    log: Log,
) -> Result<Arc<Machine>, OptionError> {
    if config.smp.max_cpus != config.smp.cpus && !matches!(config.board, BoardOptions::Pseries(_)) {
        let text =
            format!("'maxcpus={}': the machine has no hot-plug of CPUs: it must equal cpus", config.smp.max_cpus);
        return Err(OptionError::new("-smp", text));
    }
    let machine = match &config.board {
        BoardOptions::Virt(options) => virt::build(config, options, wiring, control, log),
        BoardOptions::Q35(options) => q35::build(config, options, wiring, control, log),
        BoardOptions::Pseries(options) => pseries::build(config, options, wiring, control, log),
        BoardOptions::None(options) => none::build(config, options, control, log),
    }?;
    machine.set_configured(config.guest_visible());
    Ok(machine)
}

/// The text of `-cpu help` for a machine.
#[must_use]
pub fn cpu_help(machine: &str) -> String {
    match machine {
        "q35" => q35::cpu::help(),
        "pseries" => pseries::cpu::help(),
        _ => virt::cpu::help(),
    }
}

/// The models of processors of an architecture, with what they are.
#[must_use]
pub fn cpu_models(architecture: machine::Architecture) -> Vec<(&'static str, &'static str)> {
    use machine::Architecture;
    match architecture {
        Architecture::Aarch64 => rhea_arm::models::MODELS.to_vec(),
        Architecture::X86_64 => rhea_x86::models::MODELS.to_vec(),
        Architecture::Ppc64 => rhea_ppc::models::MODELS.iter().map(|(name, m)| (*name, m.description)).collect(),
    }
}
