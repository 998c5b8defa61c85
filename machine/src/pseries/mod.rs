//! The `pseries` board: a logical partition per Power Architecture Platform Requirements (LoPAPR).

pub mod cas;
pub mod hpt;
pub mod memory;
pub mod options;

pub use options::{Capabilities, Compat, IcMode, Mitigation, PseriesOptions, ResizeHpt};

use crate::board::Wiring;
use crate::config::MachineConfig;
use crate::machine::Machine;
use rhea_accel::VmControl;
use rhea_device::{Log, OptionError};
use std::sync::Arc;

/// Builds the machine; the CPUs are paused at their start.
///
/// # Errors
/// [`OptionError`] naming the option that cannot be satisfied.
pub fn build(
    _config: &MachineConfig,
    _options: &PseriesOptions,
    _wiring: &Wiring,
    _control: VmControl,
    _log: Log,
) -> Result<Arc<Machine>, OptionError> {
    Err(OptionError::new("-M pseries", "not there yet"))
}
