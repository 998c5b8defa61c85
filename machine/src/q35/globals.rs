//! `-global` for the chipset's own devices.

use crate::config::{BoardOptions, MachineConfig};
use rhea_chipset::lpc::pm;
use rhea_device::{OptionDecl, OptionError, OptionKind};
use rhea_firmware::acpi::SleepTypes;

const LPC: &str = "ICH9-LPC";
const PIT: &str = "kvm-pit";
const MCH: &str = "mch";
const FLASH: &str = "cfi.pflash01";

const SWITCH: OptionKind = OptionKind::Bool;

/// Devices of the board that only `-global` can change: name, what it is, properties.
pub const CHIPSET: &[(&str, &str, &[OptionDecl])] = &[
    (
        LPC,
        "LPC bridge of the chipset",
        &[
            OptionDecl::new("disable_s3", SWITCH, Some("off"), "tables do not tell of suspend to RAM"),
            OptionDecl::new("disable_s4", SWITCH, Some("off"), "tables do not tell of suspend to disk"),
        ],
    ),
    (
        FLASH,
        "flash of the firmware",
        &[OptionDecl::new("secure", SWITCH, Some("off"), "takes commands from system-management mode only")],
    ),
    (
        MCH,
        "memory controller hub",
        &[OptionDecl::new(
            "extended-tseg-mbytes",
            OptionKind::Number { min: 0, max: 0xfff },
            Some("16"),
            "size of the extended TSEG in MiB",
        )],
    ),
];

/// Is it a property of a device of this board?
#[must_use]
pub fn is_global(board: &BoardOptions, driver: &str, property: &str) -> bool {
    let known = CHIPSET.iter().find(|d| d.0 == driver).is_some_and(|d| d.2.iter().any(|o| o.key == property));
    matches!(board, BoardOptions::Q35(_)) && (known || (driver, property) == (PIT, "lost_tick_policy"))
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
