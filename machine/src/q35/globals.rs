//! `-global` for the chipset's own devices.

use crate::config::{BoardOptions, MachineConfig};
use rhea_device::OptionError;

const LPC: &str = "ICH9-LPC";
const PIT: &str = "kvm-pit";
const MCH: &str = "mch";

/// Is it a property of a device of this board?
#[must_use]
pub fn is_global(board: &BoardOptions, driver: &str, property: &str) -> bool {
    matches!(board, BoardOptions::Q35(_))
        && matches!(
            (driver, property),
            (LPC, "disable_s3" | "disable_s4") | (MCH, "extended-tseg-mbytes") | (PIT, "lost_tick_policy")
        )
}

/// The size of the extended TSEG in MiB.
///
/// # Errors
/// [`OptionError`]: a value that cannot be satisfied.
pub fn extended_tseg(config: &MachineConfig) -> Result<u16, OptionError> {
    let mut mib = 16;
    for (driver, property, value) in &config.globals {
        let fail = |what: &str| Err(OptionError::new("-global", format!("'{driver}.{property}={value}': {what}")));
        match (driver.as_str(), property.as_str()) {
            // Ticks that a guest was too late for are not made up for.
            (PIT, "lost_tick_policy") if value != "discard" => {
                return fail("this machine's PIT discards lost ticks: use discard");
            }
            (LPC, "disable_s3" | "disable_s4") if !matches!(value.as_str(), "1" | "on" | "yes" | "true") => {
                return fail("the machine knows no sleep states but soft-off: use 1");
            }
            (MCH, _) => match value.parse() {
                Ok(n) if n <= 0xfff => mib = n,
                _ => return fail("expected a number of MiB from 0 to 4095"),
            },
            _ => {}
        }
    }
    Ok(mib)
}
