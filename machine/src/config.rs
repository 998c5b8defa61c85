//! Everything the command line says, typed.

use crate::options::{AccelKind, ObjectSpec, Smp, VirtOptions};
use rhea_block::DriveOptions;
use rhea_clock::{RtcBase, RtcSource};
use rhea_device::chardev::ChardevSpec;
use rhea_device::options::{OptionError, split};
use rhea_memory::Backing;
use std::path::PathBuf;

/// A `-device` before its driver parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    pub driver: String,
    pub pairs: Vec<(String, Option<String>)>,
}

impl DeviceSpec {
    /// # Errors
    /// [`OptionError`] if no driver is named.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let mut pairs = split(text);
        match pairs.first().cloned() {
            Some((driver, None)) => {
                pairs.remove(0);
                Ok(Self { driver, pairs })
            }
            Some((key, Some(driver))) if key == "driver" => {
                pairs.remove(0);
                Ok(Self { driver, pairs })
            }
            _ => {
                Err(OptionError::new("-device", format!("'{text}': expected a driver first (-device help lists them)")))
            }
        }
    }
    /// The value of a key as written.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.as_deref())
    }
}

/// The RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamConfig {
    pub size: u64,
    pub backing: Backing,
    pub prealloc: bool,
}

/// A serial port or the monitor: what it is connected to; the flag says that the monitor shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    pub spec: ChardevSpec,
    pub with_monitor: bool,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    pub name: Option<String>,
    pub virt: VirtOptions,
    /// `-cpu` as written.
    pub cpu: String,
    pub smp: Smp,
    pub ram: RamConfig,
    pub accel: AccelKind,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    pub append: Option<String>,
    pub dtb: Option<PathBuf>,
    pub bios: Option<PathBuf>,
    pub drives: Vec<DriveOptions>,
    pub devices: Vec<DeviceSpec>,
    /// `-netdev` and `-nic` as written, in order.
    pub netdevs: Vec<String>,
    pub nics: Vec<String>,
    pub objects: Vec<ObjectSpec>,
    pub chardevs: Vec<(String, ChardevSpec)>,
    pub serials: Vec<Console>,
    pub monitors: Vec<Console>,
    /// No default network card.
    pub no_defaults: bool,
    pub snapshot: bool,
    /// A reset request ends the emulator.
    pub no_reboot: bool,
    /// A power-off request pauses instead of ending the emulator.
    pub no_shutdown: bool,
    /// `-S`: do not start the CPUs.
    pub paused: bool,
    /// `-gdb` device, like `tcp::1234`.
    pub gdb: Option<String>,
    /// Bits of [`rhea_device::LogMask`].
    pub log_mask: u32,
    pub log_file: Option<PathBuf>,
    pub rtc: (RtcBase, RtcSource),
    pub pid_file: Option<PathBuf>,
}
