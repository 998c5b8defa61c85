//! Displays: the board's own, and those of `-device`.

use crate::board::Board;
use crate::config::{BoardOptions, MachineConfig};
use crate::rom::with_rom;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_display::{Console, DeviceType, Resources, catalog};
use rhea_pci::PciSlot;

/// The words of `-vga` and the device each stands for.
pub const VGA: &[(&str, Option<&str>)] = &[("none", None), ("std", Some("VGA"))];

/// The text of `-vga help`.
#[must_use]
pub fn help() -> String {
    let lines = VGA.iter().map(|(word, device)| {
        format!("{word:<10} {}\n", device.map_or("no display adapter", |_| "VGA with the Bochs display interface"))
    });
    lines.collect()
}

/// The device that a word of `-vga` stands for.
///
/// # Errors
/// [`OptionError`]: there is no such word.
pub fn adapter(word: &str) -> Result<Option<&'static str>, OptionError> {
    let known = VGA.iter().find(|(name, _)| *name == word);
    known
        .map(|(_, device)| *device)
        .ok_or_else(|| OptionError::new("-vga", format!("'{word}' is not supported: use 'std' or 'none'")))
}

/// The device that the board has without a `-device` for it.
///
/// # Errors
/// [`OptionError`]: an unknown word of `-vga`.
pub fn default_device(config: &MachineConfig) -> Result<Option<&'static str>, OptionError> {
    if let Some(word) = &config.vga {
        return adapter(word);
    }
    let chosen = config.devices.iter().any(|d| catalog::find(&d.driver).is_some());
    let has = !matches!(config.board, BoardOptions::Virt(_)) && !config.no_defaults && !chosen;
    Ok(has.then_some("VGA"))
}

/// Makes a display and puts it on the bus.
///
/// # Errors
/// [`OptionError`].
pub fn make(
    board: &mut Board,
    config: &MachineConfig,
    kind: &DeviceType,
    set: &OptionSet,
    slot: PciSlot,
) -> Result<(), OptionError> {
    let slot = &with_rom(config, set, slot, kind.rom)?;
    let resources = Resources { slot, clock: &board.clock, log: &board.log };
    let function = kind.make(set, &resources)?;
    slot.bus().attach(function.clone()).map_err(|e| OptionError::new(set.option(), e.to_string()))?;
    board.displays.push(Console::new(function.display()));
    board.devices.push(function);
    Ok(())
}
