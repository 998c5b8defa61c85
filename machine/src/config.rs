//! Everything the command line says, typed.

use crate::accel::AccelKind;
use crate::machine::{Actions, Architecture};
use crate::none::NoneOptions;
use crate::options::{self, MachineKind, ObjectSpec, Q35Options, RamUse, Smp, VirtOptions};
use crate::pseries::PseriesOptions;
use rhea_block::{DriveOptions, NodeOptions};
use rhea_clock::{Counting, RtcBase, RtcSource};
use rhea_device::chardev::ChardevSpec;
use rhea_device::options::{OptionError, split_or_json};
use rhea_display::VncOptions;
use rhea_memory::{Backing, RamBlock, RamOptions};
use std::path::PathBuf;
use std::sync::Arc;

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
        let mut pairs = split_or_json("-device", text, "driver")?;
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

/// `-M`: the board and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardOptions {
    Virt(VirtOptions),
    Q35(Q35Options),
    Pseries(PseriesOptions),
    /// Nothing but the emulator itself.
    None(NoneOptions),
}

impl BoardOptions {
    /// Parses all `-M` values given; `default` is the machine if they name none.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(texts: &[String], default: &str) -> Result<Self, OptionError> {
        Ok(match options::machine_name(texts, default)? {
            "q35" => Self::Q35(Q35Options::parse(texts)?),
            "pseries" => Self::Pseries(PseriesOptions::parse(texts)?),
            "none" => Self::None(NoneOptions::parse(texts, default)?),
            _ => Self::Virt(VirtOptions::parse(texts)?),
        })
    }
    /// The option as messages name it.
    #[must_use]
    pub fn option(&self) -> &'static str {
        match self {
            Self::Virt(_) => "-M virt",
            Self::Q35(_) => "-M q35",
            Self::Pseries(_) => "-M pseries",
            Self::None(_) => "-M none",
        }
    }
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Virt(_) => Architecture::Aarch64,
            Self::Q35(_) => Architecture::X86_64,
            Self::Pseries(_) => Architecture::Ppc64,
            Self::None(o) => o.architecture,
        }
    }
    /// Which machine it is.
    #[must_use]
    pub fn kind(&self) -> &'static MachineKind {
        let board = self.option().trim_start_matches("-M ");
        // Each board has its machine.
        options::MACHINES.iter().find(|m| m.board == board).unwrap_or(&options::MACHINES[0])
    }
    /// What the host may do with the RAM.
    #[must_use]
    pub fn ram_use(&self) -> RamUse {
        match self {
            Self::Virt(o) => o.ram_use,
            Self::Q35(o) => o.ram_use,
            Self::Pseries(o) => o.ram_use,
            Self::None(_) => RamUse { dump: true, merge: true },
        }
    }
    #[must_use]
    pub fn memory_backend(&self) -> Option<&str> {
        match self {
            Self::Virt(o) => o.memory_backend.as_deref(),
            Self::Q35(o) => o.memory_backend.as_deref(),
            Self::Pseries(o) => o.memory_backend.as_deref(),
            Self::None(_) => None,
        }
    }
    /// `usb=`: whether the machine has a USB controller of its own; `None`: as it has a display.
    #[must_use]
    pub fn usb(&self) -> Option<bool> {
        match self {
            Self::Virt(o) => Some(o.usb),
            Self::Q35(o) => Some(o.usb),
            Self::Pseries(o) => o.usb,
            Self::None(_) => Some(false),
        }
    }
    #[must_use]
    pub fn accel(&self) -> Option<&str> {
        match self {
            Self::Virt(o) => o.accel.as_deref(),
            Self::Q35(o) => o.accel.as_deref(),
            Self::Pseries(o) => o.accel.as_deref(),
            Self::None(o) => o.accel.as_deref(),
        }
    }
}

/// `-boot`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOptions {
    /// Drive letters in order: a floppy, c disk, d CD-ROM, n network.
    pub order: Option<String>,
    /// For the first start only.
    pub once: Option<String>,
    pub menu: Option<bool>,
    pub splash_time: Option<u16>,
    pub reboot_timeout: Option<i32>,
    pub strict: bool,
}

/// `-fw_cfg`: a file's name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgFile {
    pub name: String,
    pub data: Vec<u8>,
}

/// Boards without flash.
const NO_FLASH: [Option<String>; 2] = [None, None];

/// One machine.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    pub name: Option<String>,
    pub board: BoardOptions,
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
    pub boot: BootOptions,
    pub fw_cfg: Vec<FwCfgFile>,
    pub uuid: [u8; 16],
    /// `-smbios` as written.
    pub smbios: Vec<String>,
    /// `-L`: directories of firmware files.
    pub firmware_dirs: Vec<PathBuf>,
    /// `-vnc`, each display server.
    pub vnc: Vec<VncOptions>,
    /// `-vga`, if given.
    pub vga: Option<String>,
    /// `-global DRIVER.PROPERTY=VALUE`.
    pub globals: Vec<(String, String, String)>,
    pub drives: Vec<DriveOptions>,
    /// Nodes that `-blockdev` describes.
    pub blockdevs: Vec<NodeOptions>,
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
    /// `-prom-env NAME=VALUE`: variables of Open Firmware in the NVRAM.
    pub prom_env: Vec<String>,
    /// `-m slots=`, `maxmem=`: places and limit of the RAM.
    pub max_ram: u64,
    pub ram_slots: u32,
    pub snapshot: bool,
    /// What becomes of the machine when the guest ends it.
    pub actions: Actions,
    /// `-loadvm`: the snapshot to start with.
    pub load_snapshot: Option<String>,
    /// `-incoming`: where a machine comes from, which takes this one's place.
    pub incoming: Option<String>,
    /// `-S`: do not start the CPUs.
    pub paused: bool,
    /// `-gdb` device, like `tcp::1234`.
    pub gdb: Option<String>,
    /// Bits of [`rhea_device::LogMask`].
    pub log_mask: u32,
    pub log_file: Option<PathBuf>,
    pub rtc: (RtcBase, RtcSource),
    /// `-icount`: time passes with executed instructions.
    pub icount: Option<Counting>,
    pub pid_file: Option<PathBuf>,
    /// `-perfmap`: tell perf of generated code.
    pub perf_map: bool,
}

impl MachineConfig {
    /// Makes the RAM.
    ///
    /// # Errors
    /// [`OptionError`]: the host does not have it.
    pub fn make_ram(&self) -> Result<Arc<RamBlock>, OptionError> {
        let fail = |e: &dyn std::fmt::Display| OptionError::new("-m", e.to_string());
        let options = RamOptions {
            name: "ram".into(),
            len: self.ram.size,
            backing: self.ram.backing.clone(),
            prealloc: self.ram.prealloc,
        };
        let ram = RamBlock::new(options).map_err(|e| fail(&e))?;
        let RamUse { dump, merge } = self.board.ram_use();
        ram.set_host_use(dump, merge).map_err(|e| fail(&e))?;
        Ok(ram)
    }
    /// Options that the guest sees and that devices do not tell in their state, with their values.
    #[must_use]
    pub fn guest_visible(&self) -> Vec<(String, String)> {
        let Smp { cpus, max_cpus, sockets, dies, clusters, cores, threads } = self.smp;
        let smp = format!(
            "cpus={cpus},maxcpus={max_cpus},sockets={sockets},dies={dies},clusters={clusters},cores={cores},threads={threads}"
        );
        let counted = if self.icount.is_some() { "on" } else { "off" };
        let values = [
            ("-M", self.board.option().trim_start_matches("-M ").to_owned()),
            ("-cpu", self.cpu.clone()),
            ("-smp", smp),
            ("-m maxmem", if self.max_ram > self.ram.size { self.max_ram.to_string() } else { "nothing".to_owned() }),
            ("-icount", counted.to_owned()),
        ];
        let mut values = values.map(|(option, value)| (option.to_owned(), value)).to_vec();
        // What is not seen by the devices that there are.
        let word = |on: bool| if on { "on" } else { "off" }.to_owned();
        let of_board = match &self.board {
            BoardOptions::Virt(o) => {
                vec![
                    ("virtualization", word(o.virtualization)),
                    ("secure", word(o.secure)),
                    ("highmem", word(o.highmem)),
                ]
            }
            BoardOptions::Q35(o) => vec![("smm", word(o.smm)), ("acpi", word(o.acpi))],
            BoardOptions::Pseries(o) => vec![
                ("ic-mode", format!("{:?}", o.ic_mode).to_lowercase()),
                ("max-cpu-compat", o.max_cpu_compat.map_or("nothing".to_owned(), |c| format!("{c:?}").to_lowercase())),
                ("resize-hpt", format!("{:?}", o.resize_hpt).to_lowercase()),
                ("cap-*", format!("{:?}", o.caps).to_lowercase()),
            ],
            BoardOptions::None(_) => Vec::new(),
        };
        values.extend(of_board.into_iter().map(|(key, value)| (format!("-M {key}"), value)));
        values
    }
    /// Does anybody look at the display (and not only at the serial port)?
    #[must_use]
    pub fn shown(&self) -> bool {
        !self.vnc.is_empty()
    }
    /// Drive ids of the flash banks (`-M pflash0=`, `pflash1=`).
    #[must_use]
    pub fn pflash(&self) -> &[Option<String>; 2] {
        match &self.board {
            BoardOptions::Virt(o) => &o.pflash,
            BoardOptions::Q35(o) => &o.pflash,
            BoardOptions::Pseries(_) | BoardOptions::None(_) => &NO_FLASH,
        }
    }
}
