//! Which drive is in which flash bank.

use crate::config::MachineConfig;
use rhea_block::{BlockGraph, Drive, DriveInterface, DriveOptions};
use rhea_device::OptionError;
use std::sync::Arc;

/// Is the drive for a flash bank: `if=pflash`, or named by `-M pflash0=`, `-M pflash1=`? The bank, if it says which.
#[must_use]
pub fn bank(config: &MachineConfig, drive: &DriveOptions) -> Option<Option<u32>> {
    let named = drive.id.as_ref().and_then(|id| config.pflash().iter().position(|p| p.as_ref() == Some(id)));
    match named {
        Some(bank) => Some(Some(bank as u32)),
        None if drive.interface == DriveInterface::Pflash => Some(drive.index),
        None => None,
    }
}

/// The drives of both banks.
///
/// # Errors
/// [`OptionError`]: two drives for one bank, or a name that is no drive's.
pub fn banks(config: &MachineConfig) -> Result<[Option<&DriveOptions>; 2], OptionError> {
    let mut banks: [Option<&DriveOptions>; 2] = [None, None];
    // Those that name their bank first; the others take what is left, in order.
    let drives = || config.drives.iter().filter_map(|d| bank(config, d).map(|bank| (d, bank)));
    for (drive, bank) in drives().filter(|(_, b)| b.is_some()).chain(drives().filter(|(_, b)| b.is_none())) {
        let bank = bank.map_or_else(|| banks.iter().position(Option::is_none).unwrap_or(banks.len()), |b| b as usize);
        match banks.get_mut(bank) {
            Some(place @ None) => *place = Some(drive),
            Some(Some(_)) => {
                return Err(OptionError::new(
                    &drive.option,
                    format!("flash bank {bank} is given twice: use unit=0 and unit=1"),
                ));
            }
            None => {
                return Err(OptionError::new(&drive.option, "the machine has two flash banks: use unit=0 and unit=1"));
            }
        }
    }
    for (n, id) in config.pflash().iter().enumerate() {
        if let Some(id) = id
            && !banks[n].is_some_and(|d| d.id.as_ref() == Some(id))
        {
            return Err(OptionError::new("-M", format!("'pflash{n}={id}': no -drive has this id")));
        }
    }
    Ok(banks)
}

/// Opens the drive of a bank, which is called `name` unless it has an id.
///
/// # Errors
/// [`OptionError`]
pub fn open(config: &MachineConfig, drive: &DriveOptions, name: &str) -> Result<Arc<Drive>, OptionError> {
    let graph = BlockGraph::new();
    graph.set_away(config.incoming.is_some());
    drive.open_in(&graph, name, config.snapshot)
}
