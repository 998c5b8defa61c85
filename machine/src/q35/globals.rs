//! `-global` for the chipset's own devices.

use crate::config::{BoardOptions, MachineConfig};
use rhea_chipset::lpc::pm;
use rhea_device::OptionError;
use rhea_firmware::acpi::SleepTypes;

const LPC: &str = "ICH9-LPC";
const PIT: &str = "kvm-pit";
const MCH: &str = "mch";
const FLASH: &str = "cfi.pflash01";

/// Is it a property of a device of this board?
#[must_use]
pub fn is_global(board: &BoardOptions, driver: &str, property: &str) -> bool {
    matches!(board, BoardOptions::Q35(_))
        && matches!(
            (driver, property),
            (LPC, "disable_s3" | "disable_s4")
                | (MCH, "extended-tseg-mbytes")
                | (PIT, "lost_tick_policy")
                | (FLASH, "secure")
        )
}

/// What they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    /// The size of the extended TSEG in MiB.
    pub extended_tseg: u16,
    /// Flash takes commands from system-management mode only.
    pub secure_flash: bool,
    /// Sleep states the tables tell of.
    pub sleep: SleepTypes,
}

/// # Errors
/// [`OptionError`]: a value that cannot be satisfied.
pub fn parse(config: &MachineConfig) -> Result<Globals, OptionError> {
    let sleep = SleepTypes { s3: Some(pm::SLEEP_S3), s4: Some(pm::SLEEP_S4), s5: pm::SLEEP_S5 };
    let mut globals = Globals { extended_tseg: 16, secure_flash: false, sleep };
    for (driver, property, value) in &config.globals {
        let fail = |what: &str| Err(OptionError::new("-global", format!("'{driver}.{property}={value}': {what}")));
        match (driver.as_str(), property.as_str()) {
            // Ticks that a guest was too late for are not made up for.
            (PIT, "lost_tick_policy") if value != "discard" => {
                return fail("this machine's PIT discards lost ticks: use discard");
            }
            (LPC | FLASH, property) => {
                let on = match value.as_str() {
                    "1" | "on" | "yes" | "true" => true,
                    "0" | "off" | "no" | "false" => false,
                    _ => return fail("expected on or off"),
                };
                match property {
                    "disable_s3" => globals.sleep.s3 = (!on).then_some(pm::SLEEP_S3),
                    "disable_s4" => globals.sleep.s4 = (!on).then_some(pm::SLEEP_S4),
                    _ => globals.secure_flash = on,
                }
            }
            (MCH, _) => match value.parse() {
                Ok(n) if n <= 0xfff => globals.extended_tseg = n,
                _ => return fail("expected a number of MiB from 0 to 4095"),
            },
            _ => {}
        }
    }
    Ok(globals)
}
