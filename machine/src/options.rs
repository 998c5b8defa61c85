//! The typed form of `-M`, `-cpu`, `-smp`, `-m`, `-rtc`.

use rhea_clock::{Counting, MAX_SHIFT, RtcBase, RtcSource};
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_memory::Backing;
use std::path::{Path, PathBuf};

type Pairs = [(String, Option<String>)];

/// `-M virt,...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtOptions {
    pub gic_version: GicVersion,
    /// EL2 exists.
    pub virtualization: bool,
    /// EL3 exists.
    pub secure: bool,
    /// Devices and RAM above 4 GiB.
    pub highmem: bool,
    pub highmem_ecam: bool,
    pub highmem_mmio: bool,
    pub highmem_redists: bool,
    pub its: bool,
    pub dump_dtb: Option<PathBuf>,
    /// Random seeds for the kernel in the device tree.
    pub dtb_randomness: bool,
    pub usb: bool,
    pub ram_use: RamUse,
    /// Drive ids of the flash banks.
    pub pflash: [Option<String>; 2],
    pub memory_backend: Option<String>,
    pub accel: Option<String>,
}

/// What the host may do with the RAM beside holding it (`dump-guest-core=`, `mem-merge=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamUse {
    /// It is part of core dumps.
    pub dump: bool,
    /// Equal pages may be merged.
    pub merge: bool,
}

impl RamUse {
    pub(crate) fn of(set: &OptionSet) -> Self {
        Self { dump: set.bool("dump-guest-core"), merge: set.bool("mem-merge") }
    }
}

/// `gic-version=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    V2,
    V3,
    /// That of the host, which KVM has.
    Host,
    /// The newest there is.
    Max,
}

/// A machine that `-M` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineKind {
    /// With a version: it stays the same machine in later versions.
    pub name: &'static str,
    /// The name without one, if there is such.
    pub alias: Option<&'static str>,
    /// Who builds it.
    pub board: &'static str,
    pub description: &'static str,
}

impl MachineKind {
    const fn new(name: &'static str, alias: Option<&'static str>, board: &'static str, about: &'static str) -> Self {
        Self { name, alias, board, description: about }
    }
    /// The machine that is called `name`, by its own name or its alias.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|m| m.name == name || m.alias == Some(name))
    }
    /// The properties that it takes.
    #[must_use]
    pub fn properties(&self) -> &'static [OptionDecl] {
        match self.board {
            "q35" => Q35,
            "pseries" => crate::pseries::options::DECLS,
            "virt" => VIRT,
            _ => crate::none::DECLS,
        }
    }
}

/// The machines; versions are those of the machines of other emulators that they are like.
pub const MACHINES: &[MachineKind] = &[
    MachineKind::new("none", None, "none", "empty machine"),
    MachineKind::new("pc-q35-10.0", Some("q35"), "q35", "Standard PC (Q35 + ICH9)"),
    MachineKind::new("pseries-10.0", Some("pseries"), "pseries", "pSeries logical partition per PAPR"),
    MachineKind::new("virt-10.0", Some("virt"), "virt", "Arm virtual machine"),
];

const VIRT: &[OptionDecl] = &[
    OptionDecl::new("type", OptionKind::Text, None, "machine name"),
    OptionDecl::new(
        "gic-version",
        OptionKind::Choice(&["2", "3", "host", "max"]),
        Some("max"),
        "version of the interrupt controller",
    ),
    OptionDecl::new("virtualization", OptionKind::Bool, Some("off"), "the CPUs have EL2"),
    OptionDecl::new("secure", OptionKind::Bool, Some("off"), "the CPUs have EL3"),
    OptionDecl::new("highmem", OptionKind::Bool, Some("on"), "use addresses above 4 GiB"),
    OptionDecl::new("highmem-ecam", OptionKind::Bool, Some("on"), "PCI configuration space above 4 GiB"),
    OptionDecl::new("highmem-mmio", OptionKind::Bool, Some("on"), "PCI memory window above 4 GiB"),
    OptionDecl::new("highmem-redists", OptionKind::Bool, Some("on"), "GIC redistributors above 4 GiB for many CPUs"),
    OptionDecl::new("its", OptionKind::Bool, Some("on"), "the GICv3 has an ITS"),
    OptionDecl::new(
        "msi",
        OptionKind::Choice(&["auto", "its", "gicv2m", "off"]),
        Some("auto"),
        "who takes message-signalled interrupts",
    ),
    OptionDecl::new("dumpdtb", OptionKind::Text, None, "write the device tree to this file and exit"),
    OptionDecl::new("dtb-randomness", OptionKind::Bool, Some("on"), "put random seeds in the device tree"),
    OptionDecl::new("dtb-kaslr-seed", OptionKind::Bool, Some("on"), "put random seeds in the device tree"),
    OptionDecl::new(
        "acpi",
        OptionKind::Choice(&["on", "off", "auto"]),
        Some("auto"),
        "ACPI tables (only off: the guest gets a device tree)",
    ),
    OptionDecl::new("pflash0", OptionKind::Text, None, "id of the drive in flash bank 0"),
    OptionDecl::new("pflash1", OptionKind::Text, None, "id of the drive in flash bank 1"),
    OptionDecl::new("memory-backend", OptionKind::Text, None, "id of the -object that is the RAM"),
    OptionDecl::new("accel", OptionKind::Text, None, "accelerator, as -accel"),
    OptionDecl::new("graphics", OptionKind::Bool, Some("on"), "ignored: there is no display"),
    OptionDecl::new("usb", OptionKind::Bool, Some("off"), "USB controller"),
    OptionDecl::new("dump-guest-core", OptionKind::Bool, Some("on"), "RAM is part of core dumps of the emulator"),
    OptionDecl::new("mem-merge", OptionKind::Bool, Some("on"), "the host may merge equal pages of RAM"),
    OptionDecl::new("iommu", OptionKind::Choice(&["none"]), Some("none"), "there is no IOMMU"),
    OptionDecl::new("mte", OptionKind::Choice(&["off"]), Some("off"), "there is no memory tagging"),
    OptionDecl::new("ras", OptionKind::Choice(&["off"]), Some("off"), "there is no error injection"),
];

/// The text of `-M help`; `default` is the machine when none is named.
#[must_use]
pub fn machine_help(default: &str) -> String {
    let mut text = "Supported machines are:\n".to_owned();
    for m in MACHINES {
        let mark = |name: &str| if name == default { " (default)" } else { "" };
        if let Some(alias) = m.alias {
            text.push_str(&format!("{alias:<20} {} (alias of {}){}\n", m.description, m.name, mark(alias)));
        }
        text.push_str(&format!("{:<20} {}{}\n", m.name, m.description, mark(m.name)));
    }
    text
}

/// The machine that `-M` values name, without its version, and the pairs of all values: later ones replace earlier ones.
pub(crate) fn machine_pairs(
    texts: &[String],
    default: &str,
) -> Result<(&'static str, Vec<(String, Option<String>)>), OptionError> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for text in texts {
        let mut given = options::split(text);
        // The first word is the machine, unless it is a property of one.
        if let Some((name, None)) = given.first().cloned()
            && !MACHINES.iter().flat_map(|m| m.properties()).any(|d| d.key == name)
            && name != "help"
        {
            given[0] = ("type".to_owned(), Some(name));
        }
        for pair in given {
            pairs.retain(|(k, _)| *k != pair.0);
            pairs.push(pair);
        }
    }
    let name = pairs.iter().find(|(k, _)| k == "type").and_then(|(_, v)| v.clone());
    let name = name.unwrap_or_else(|| default.to_owned());
    let Some(kind) = MachineKind::find(&name) else {
        let message = match name.as_str() {
            n if matches!(n, "pc" | "isapc" | "microvm" | "xenfv" | "xenpv") || n.starts_with("pc-") => {
                format!("machine '{name}' is not supported: machines are pseries, q35 and virt")
            }
            _ => format!("unknown machine '{name}': machines are pseries, q35 and virt (-M help lists them)"),
        };
        return Err(OptionError::new("-M", message));
    };
    Ok((kind.board, pairs))
}

/// The name of the machine that the values of `-M` choose.
///
/// # Errors
/// [`OptionError`]: there is no such machine.
pub fn machine_name(texts: &[String], default: &str) -> Result<&'static str, OptionError> {
    machine_pairs(texts, default).map(|(name, _)| name)
}

const Q35: &[OptionDecl] = &[
    OptionDecl::new("type", OptionKind::Text, None, "machine name"),
    OptionDecl::new("smm", OptionKind::Choice(&["on", "off", "auto"]), Some("auto"), "system-management mode"),
    OptionDecl::new("hpet", OptionKind::Bool, Some("on"), "high-precision event timer"),
    OptionDecl::new("i8042", OptionKind::Bool, Some("on"), "PS/2 keyboard controller"),
    OptionDecl::new("pit", OptionKind::Bool, Some("on"), "interval timer"),
    OptionDecl::new("pic", OptionKind::Choice(&["on", "auto"]), Some("on"), "8259 interrupt controllers"),
    OptionDecl::new("sata", OptionKind::Bool, Some("on"), "AHCI controller of the chipset"),
    OptionDecl::new("smbus", OptionKind::Bool, Some("on"), "SMBus controller of the chipset"),
    OptionDecl::new("vmport", OptionKind::Choice(&["off", "auto"]), Some("auto"), "there is no such port"),
    OptionDecl::new("acpi", OptionKind::Choice(&["on", "off", "auto"]), Some("auto"), "ACPI tables"),
    OptionDecl::new("pflash0", OptionKind::Text, None, "id of the drive in flash bank 0"),
    OptionDecl::new("pflash1", OptionKind::Text, None, "id of the drive in flash bank 1"),
    OptionDecl::new("memory-backend", OptionKind::Text, None, "id of the -object that is the RAM"),
    OptionDecl::new("confidential-guest-support", OptionKind::Text, None, "id of the -object that protects the guest"),
    OptionDecl::new("accel", OptionKind::Text, None, "accelerator, as -accel"),
    OptionDecl::new(
        "kernel-irqchip",
        OptionKind::Choice(&["off", "split"]),
        Some("off"),
        "the interrupt controllers are emulated in any case",
    ),
    OptionDecl::new("kernel_irqchip", OptionKind::Choice(&["off", "split"]), Some("off"), "the same"),
    OptionDecl::new("graphics", OptionKind::Bool, Some("on"), "firmware uses a display if there is one"),
    OptionDecl::new("usb", OptionKind::Bool, Some("off"), "USB controller"),
    OptionDecl::new("dump-guest-core", OptionKind::Bool, Some("on"), "RAM is part of core dumps of the emulator"),
    OptionDecl::new("mem-merge", OptionKind::Bool, Some("on"), "the host may merge equal pages of RAM"),
    OptionDecl::new("nvdimm", OptionKind::Choice(&["off"]), Some("off"), "there is no persistent memory"),
];

/// `-M q35,...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Q35Options {
    pub smm: bool,
    pub pit: bool,
    pub hpet: bool,
    pub i8042: bool,
    pub sata: bool,
    pub smbus: bool,
    pub acpi: bool,
    pub graphics: bool,
    pub usb: bool,
    pub ram_use: RamUse,
    /// Drive ids of the flash banks.
    pub pflash: [Option<String>; 2],
    pub memory_backend: Option<String>,
    /// The object that says what guest code can have for itself.
    pub confidential_guest: Option<String>,
    pub accel: Option<String>,
}

impl Q35Options {
    /// The text of `-M q35,help`.
    #[must_use]
    pub fn help() -> String {
        options::help("q35", Q35)
    }
    /// Parses all `-M` values given (later ones add to earlier ones).
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(texts: &[String]) -> Result<Self, OptionError> {
        let (_, pairs) = machine_pairs(texts, "q35")?;
        let set = OptionSet::parse("-M q35", Q35, &pairs)?;
        let text = |key: &str| set.text(key).map(str::to_owned);
        Ok(Self {
            smm: set.text("smm") != Some("off"),
            pit: set.bool("pit"),
            hpet: set.bool("hpet"),
            i8042: set.bool("i8042"),
            sata: set.bool("sata"),
            smbus: set.bool("smbus"),
            acpi: set.text("acpi") != Some("off"),
            graphics: set.bool("graphics"),
            usb: set.bool("usb"),
            ram_use: RamUse::of(&set),
            pflash: [text("pflash0"), text("pflash1")],
            memory_backend: text("memory-backend"),
            confidential_guest: text("confidential-guest-support"),
            accel: text("accel"),
        })
    }
}

impl VirtOptions {
    /// The text of `-M virt,help`.
    #[must_use]
    pub fn help() -> String {
        options::help("virt", VIRT)
    }

    /// Parses all `-M` values given (later ones add to earlier ones).
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(texts: &[String]) -> Result<Self, OptionError> {
        let (_, last) = machine_pairs(texts, "virt")?;
        let set = OptionSet::parse("-M virt", VIRT, &last)?;
        if set.text("acpi") == Some("on") {
            return Err(set.error("acpi", "ACPI tables are not supported: use acpi=off, the guest gets a device tree"));
        }
        let gic_version = match set.text("gic-version") {
            Some("2") => GicVersion::V2,
            Some("3") => GicVersion::V3,
            Some("host") => GicVersion::Host,
            _ => GicVersion::Max,
        };
        let its = match set.text("msi") {
            Some("its") if gic_version == GicVersion::V2 => {
                return Err(set.error("msi", "a GICv2 has no ITS: use msi=gicv2m"));
            }
            Some("gicv2m") if gic_version != GicVersion::V2 => {
                return Err(set.error("msi", "gicv2m needs gic-version=2"));
            }
            Some("off") => false,
            Some("its") => true,
            _ => set.bool("its"),
        };
        let highmem = set.bool("highmem");
        let text = |key: &str| set.text(key).map(str::to_owned);
        Ok(Self {
            gic_version,
            virtualization: set.bool("virtualization"),
            secure: set.bool("secure"),
            highmem,
            highmem_ecam: highmem && set.bool("highmem-ecam"),
            highmem_mmio: highmem && set.bool("highmem-mmio"),
            highmem_redists: highmem && set.bool("highmem-redists"),
            its,
            dump_dtb: set.text("dumpdtb").map(PathBuf::from),
            dtb_randomness: set.bool("dtb-randomness") && set.bool("dtb-kaslr-seed"),
            usb: set.bool("usb"),
            ram_use: RamUse::of(&set),
            pflash: [text("pflash0"), text("pflash1")],
            memory_backend: text("memory-backend"),
            accel: text("accel"),
        })
    }
}

/// `-smp`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smp {
    pub cpus: u32,
    /// What hot-plug may bring it to.
    pub max_cpus: u32,
    pub sockets: u32,
    pub dies: u32,
    pub clusters: u32,
    pub cores: u32,
    pub threads: u32,
}

/// The most CPUs a machine may have (GICv3 affinity of the virt board).
pub const MAX_CPUS: u64 = 512;

impl Smp {
    pub const ONE: Self = Self { cpus: 1, max_cpus: 1, sockets: 1, dies: 1, clusters: 1, cores: 1, threads: 1 };

    /// # Errors
    /// [`OptionError`].
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        const N: OptionKind = OptionKind::Number { min: 1, max: MAX_CPUS };
        const DECLS: &[OptionDecl] = &[
            OptionDecl::new("cpus", N, None, "CPUs at start"),
            OptionDecl::new("maxcpus", N, None, "the most there can be (pseries)"),
            OptionDecl::new("sockets", N, None, "sockets"),
            OptionDecl::new("dies", N, None, "dies in a socket (x86)"),
            OptionDecl::new("clusters", N, None, "clusters in a socket (Arm)"),
            OptionDecl::new("cores", N, None, "cores in a die or cluster"),
            OptionDecl::new("threads", N, None, "threads in a core"),
        ];
        let mut pairs = options::split(text);
        if let Some((number, None)) = pairs.first().cloned() {
            pairs[0] = ("cpus".to_owned(), Some(number));
        }
        let set = OptionSet::parse("-smp", DECLS, &pairs)?;
        let n = |key: &str| set.number(key).map(|n| n as u32);
        let one = |key: &str| n(key).unwrap_or(1);
        let (sockets, dies, clusters, threads) = (one("sockets"), one("dies"), one("clusters"), one("threads"));
        // At most 512 each: no overflow.
        let rest = u64::from(sockets) * u64::from(dies) * u64::from(clusters) * u64::from(threads);
        let cpus = n("cpus")
            .or(n("maxcpus"))
            .unwrap_or_else(|| (rest * u64::from(one("cores"))).min(u64::from(u32::MAX)) as u32);
        let max_cpus = n("maxcpus").unwrap_or(cpus);
        let cores = n("cores").unwrap_or_else(|| (u64::from(max_cpus) / rest).max(1) as u32);
        if rest * u64::from(cores) != u64::from(max_cpus) {
            return Err(OptionError::new(
                "-smp",
                format!(
                    "'{text}': sockets * dies * clusters * cores * threads is {} but there are {max_cpus} CPUs: they must be equal",
                    rest * u64::from(cores)
                ),
            ));
        }
        if cpus > max_cpus {
            return Err(set.error("maxcpus", &format!("expected {cpus}, the CPUs at start, or more")));
        }
        if u64::from(max_cpus) > MAX_CPUS {
            return Err(OptionError::new(
                "-smp",
                format!("'{text}': {max_cpus} CPUs: the machine has at most {MAX_CPUS}"),
            ));
        }
        Ok(Self { cpus, max_cpus, sockets, dies, clusters, cores, threads })
    }
}

/// `-m`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub size: u64,
    /// What hot-plug may bring it to; the size where there is none.
    pub max: u64,
    pub slots: u32,
}

/// `-m`: bytes. `hotplug`: the machine has places for more.
///
/// # Errors
/// [`OptionError`].
pub fn parse_memory(text: &str, hotplug: bool) -> Result<Memory, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("size", OptionKind::Size { unit: 1 << 20 }, Some("128M"), "RAM"),
        OptionDecl::new("slots", OptionKind::Number { min: 0, max: 256 }, None, "places for more (pseries)"),
        OptionDecl::new("maxmem", OptionKind::Size { unit: 1 << 20 }, None, "the most there can be (pseries)"),
    ];
    let mut pairs = options::split(text);
    if let Some((number, None)) = pairs.first().cloned() {
        pairs[0] = ("size".to_owned(), Some(number));
    }
    let set = OptionSet::parse("-m", DECLS, &pairs)?;
    let size = set.number("size").unwrap_or(128 << 20);
    if !(1 << 20..=1 << 40).contains(&size) {
        return Err(OptionError::new("-m", format!("'{text}': expected a size from 1M to 1T")));
    }
    let (max, slots) = (set.number("maxmem").unwrap_or(size), set.number("slots").unwrap_or(0) as u32);
    if !hotplug && max != size {
        return Err(set.error("maxmem", "hot-plug of memory is not supported: it must equal the size"));
    }
    if !hotplug && slots != 0 {
        return Err(set.error("slots", "hot-plug of memory is not supported"));
    }
    if max < size || max > 1 << 40 {
        return Err(set.error("maxmem", "expected a size from that of the RAM to 1T"));
    }
    if hotplug && (slots != 0) != (max != size) {
        return Err(OptionError::new("-m", format!("'{text}': slots and maxmem go together")));
    }
    let size = size.next_multiple_of(2 << 20);
    Ok(Memory { size, max: max.max(size), slots })
}

/// `-rtc`
///
/// # Errors
/// [`OptionError`].
pub fn parse_rtc(text: &str) -> Result<(RtcBase, RtcSource), OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("base", OptionKind::Text, Some("utc"), "utc, localtime or a date"),
        OptionDecl::new("clock", OptionKind::Choice(&["host", "rt", "vm"]), Some("host"), "what drives it"),
        OptionDecl::new("driftfix", OptionKind::Choice(&["none"]), Some("none"), "only none"),
    ];
    let set = OptionSet::parse("-rtc", DECLS, &options::split(text))?;
    let base = match set.text("base").unwrap_or("utc") {
        "utc" => RtcBase::Utc,
        "localtime" => RtcBase::Localtime,
        date => match parse_date(date) {
            Some(seconds) => RtcBase::Fixed(seconds),
            None => {
                return Err(
                    set.error("base", &format!("'{date}': expected utc, localtime, 2026-01-31 or 2026-01-31T12:30:00"))
                );
            }
        },
    };
    Ok((base, if set.text("clock") == Some("vm") { RtcSource::Vm } else { RtcSource::Host }))
}

/// `-icount`
///
/// # Errors
/// [`OptionError`].
pub fn parse_icount(text: &str) -> Result<Counting, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new(
            "shift",
            OptionKind::Text,
            Some("auto"),
            "an instruction takes 2^N ns; auto: as the host's time",
        ),
        OptionDecl::new("align", OptionKind::Bool, Some("off"), "do not run ahead of the host's time"),
        OptionDecl::new("sleep", OptionKind::Bool, Some("on"), "wait for timers while the guest is idle"),
        OptionDecl::new(
            "rr",
            OptionKind::Choice(&["none"]),
            Some("none"),
            "only none: nothing is recorded or replayed",
        ),
    ];
    let mut pairs = options::split(text);
    if let Some((shift, None)) = pairs.first().cloned() {
        pairs[0] = ("shift".to_owned(), Some(shift));
    }
    let set = OptionSet::parse("-icount", DECLS, &pairs)?;
    let shift = match set.text("shift").unwrap_or("auto") {
        "auto" => None,
        number => match number.parse().ok().filter(|n| *n <= MAX_SHIFT) {
            Some(n) => Some(n),
            None => return Err(set.error("shift", &format!("'{number}': expected 0 to {MAX_SHIFT}, or auto"))),
        },
    };
    let (align, sleep) = (set.bool("align"), set.bool("sleep"));
    match (shift, align, sleep) {
        (None, true, _) => Err(set.error("align", "it needs a shift: shift=0 to 10")),
        (None, _, false) => Err(set.error("sleep", "without sleeping it needs a shift: shift=0 to 10")),
        (_, true, false) => Err(set.error("align", "it needs sleep=on")),
        _ => Ok(Counting { shift, sleep, align }),
    }
}

/// `YYYY-MM-DD[THH:MM:SS]` in seconds since 1970.
fn parse_date(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let mut d = date.split('-').map(|p| p.parse::<i64>().ok());
    let (y, m, day) = (d.next()??, d.next()??, d.next()??);
    let mut t = time.split(':').map(|p| p.parse::<i64>().ok());
    let (h, min, s) = (t.next()??, t.next()??, t.next()??);
    let good = (1970..=9999).contains(&y)
        && (1..=12).contains(&m)
        && (1..=31).contains(&day)
        && (0..24).contains(&h)
        && (0..60).contains(&min)
        && (0..60).contains(&s);
    if !good || d.next().is_some() || t.next().is_some() {
        return None;
    }
    // Days from civil: years that begin in March make the leap day the last one.
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + h) * 60 + min) * 60 + s)
}

/// An `-object`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectSpec {
    Memory {
        id: String,
        size: u64,
        backing: Backing,
        prealloc: bool,
    },
    Rng {
        id: String,
        filename: PathBuf,
    },
    /// What assigned devices see memory through: `/dev/iommu`, or a file that was inherited open.
    Iommufd {
        id: String,
        fd: Option<i32>,
    },
    /// Guest code can make memory its own, which the kernel sees to.
    SwProtectedVm {
        id: String,
    },
    /// Bytes that others refer to by the name, and nobody else is to see.
    Secret {
        id: String,
        data: Hidden,
    },
}

/// Bytes that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub Vec<u8>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name");
const SIZE: OptionDecl = OptionDecl::new("size", OptionKind::Size { unit: 1 }, None, "bytes");
const PREALLOC: OptionDecl = OptionDecl::new("prealloc", OptionKind::Bool, Some("off"), "touch all pages at start");
const SHARE: OptionDecl = OptionDecl::new("share", OptionKind::Bool, Some("off"), "writes reach the file");
const FILE: OptionDecl = OptionDecl::new("mem-path", OptionKind::Text, None, "file or directory");
const NAME: OptionDecl = OptionDecl::new("filename", OptionKind::Text, Some("/dev/urandom"), "source of entropy");
const FD: OptionDecl =
    OptionDecl::new("fd", OptionKind::Number { min: 3, max: 0xffff }, None, "/dev/iommu, opened by who starts this");

const RAM_OBJECT: &[OptionDecl] = &[ID, SIZE, PREALLOC, SHARE];
const FILE_OBJECT: &[OptionDecl] = &[ID, SIZE, PREALLOC, SHARE, FILE];
const RNG_OBJECT: &[OptionDecl] = &[ID, NAME];
const ID_ONLY: &[OptionDecl] = &[ID];
const SECRET_OBJECT: &[OptionDecl] = &[
    ID,
    OptionDecl::new("data", OptionKind::Text, None, "the secret itself"),
    OptionDecl::new("file", OptionKind::Text, None, "file that holds it"),
    OptionDecl::new("format", OptionKind::Choice(&["raw"]), Some("raw"), "as it is"),
];
const IOMMUFD_OBJECT: &[OptionDecl] = &[ID, FD];

/// The text of `-object help`.
pub const OBJECT_HELP: &str = "List of user creatable objects:\n  iommufd\n  memory-backend-ram\n  memory-backend-file\n  rng-random\n  rng-builtin\n  secret\n  sw-protected-vm\n";

impl ObjectSpec {
    /// The properties of objects of a type.
    #[must_use]
    pub fn properties(kind: &str) -> Option<&'static [OptionDecl]> {
        Some(match kind {
            "memory-backend-ram" => RAM_OBJECT,
            "memory-backend-file" => FILE_OBJECT,
            "rng-random" => RNG_OBJECT,
            "rng-builtin" | "sw-protected-vm" => ID_ONLY,
            "iommufd" => IOMMUFD_OBJECT,
            "secret" => SECRET_OBJECT,
            _ => return None,
        })
    }
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Memory { id, .. }
            | Self::Rng { id, .. }
            | Self::Iommufd { id, .. }
            | Self::SwProtectedVm { id }
            | Self::Secret { id, .. } => id,
        }
    }

    /// # Errors
    /// [`OptionError`].
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let pairs = options::split_or_json("-object", text, "qom-type")?;
        let Some(((kind, None), rest)) = pairs.split_first() else {
            return Err(OptionError::new(
                "-object",
                format!("'{text}': expected a type first (-object help lists them)"),
            ));
        };
        let place = format!("-object {kind}");
        let parse = |decls: &[OptionDecl]| -> Result<(OptionSet, String), OptionError> {
            let set = OptionSet::parse(&place, decls, rest)?;
            let id = set
                .text("id")
                .map(str::to_owned)
                .ok_or_else(|| OptionError::new(&place, "property 'id' is missing: id=NAME"))?;
            Ok((set, id))
        };
        let size = |set: &OptionSet| {
            set.number("size").ok_or_else(|| OptionError::new(&place, "property 'size' is missing: size=BYTES"))
        };
        match kind.as_str() {
            "memory-backend-ram" => {
                let (set, id) = parse(RAM_OBJECT)?;
                Ok(Self::Memory { id, size: size(&set)?, backing: Backing::Anonymous, prealloc: set.bool("prealloc") })
            }
            "memory-backend-file" => {
                let (set, id) = parse(FILE_OBJECT)?;
                let path = set
                    .text("mem-path")
                    .ok_or_else(|| OptionError::new(&place, "property 'mem-path' is missing: mem-path=FILE"))?;
                let backing = Backing::File { path: path.into(), share: set.bool("share") };
                Ok(Self::Memory { id, size: size(&set)?, backing, prealloc: set.bool("prealloc") })
            }
            "rng-random" | "rng-builtin" => {
                let (set, id) = parse(if kind == "rng-random" { RNG_OBJECT } else { ID_ONLY })?;
                Ok(Self::Rng { id, filename: set.text("filename").unwrap_or("/dev/urandom").into() })
            }
            "iommufd" => {
                let (set, id) = parse(IOMMUFD_OBJECT)?;
                Ok(Self::Iommufd { id, fd: set.number("fd").map(|fd| fd as i32) })
            }
            "sw-protected-vm" => {
                let (_, id) = parse(ID_ONLY)?;
                Ok(Self::SwProtectedVm { id })
            }
            "secret" => {
                let (set, id) = parse(SECRET_OBJECT)?;
                let data = match (set.text("data"), set.text("file")) {
                    (Some(data), None) => data.as_bytes().to_vec(),
                    (None, Some(file)) => crate::files::read(&place, Path::new(file))?,
                    _ => return Err(OptionError::new(&place, "expected one of data= and file=")),
                };
                Ok(Self::Secret { id, data: Hidden(data) })
            }
            _ => Err(OptionError::new("-object", format!("unknown type '{kind}' (-object help lists them)"))),
        }
    }
}

/// Finds a bare `help` or `?` in a value, as in `-device NAME,help`.
#[must_use]
pub fn wants_help(pairs: &Pairs) -> bool {
    pairs.iter().any(|(k, v)| v.is_none() && (k == "help" || k == "?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virt(text: &str) -> Result<VirtOptions, OptionError> {
        VirtOptions::parse(&[text.to_owned()])
    }

    #[test]
    fn machines() {
        let v = virt("virt,gic-version=2,highmem=off,dumpdtb=x.dtb").unwrap();
        assert_eq!((v.gic_version, v.highmem_ecam, v.dump_dtb), (GicVersion::V2, false, Some("x.dtb".into())));
        assert!(VirtOptions::parse(&["virt,its=on".into(), "its=off".into()]).is_ok_and(|v| !v.its));
        for (name, board) in [("q35", "q35"), ("pc-q35-10.0", "q35"), ("virt-10.0", "virt"), ("none", "none")] {
            assert_eq!(machine_name(&[name.to_owned()], "virt"), Ok(board));
        }
        for bad in [
            "pc",
            "pc-q35-2.4",
            "virt,gic-version=5",
            "virt,zzz=1",
            "virt,acpi=on",
            "virt,gic-version=2,msi=its",
            "virt,mte=on",
        ] {
            assert!(virt(bad).unwrap_err().to_string().starts_with("-M"), "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(Smp::parse("4").unwrap(), Smp { cpus: 4, max_cpus: 4, cores: 4, ..Smp::ONE });
        assert_eq!(
            Smp::parse("8,sockets=2,threads=2").unwrap(),
            Smp { cpus: 8, max_cpus: 8, sockets: 2, dies: 1, clusters: 1, cores: 2, threads: 2 }
        );
        assert_eq!(Smp::parse("cores=3,threads=2").unwrap().cpus, 6);
        let smp = Smp::parse("4,threads=2,maxcpus=16").unwrap();
        assert_eq!((smp.cpus, smp.max_cpus, smp.cores), (4, 16, 8));
        for bad in [
            "0",
            "513",
            "4,cores=3",
            "x",
            "4,maxcpus=2",
            "4,maxcpus=1000",
            "4,maxcpus=8,cores=4",
            "sockets=512,cores=512",
            "2,sockets=4",
        ] {
            assert!(Smp::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_memory("2G", false).unwrap(), Memory { size: 2 << 30, max: 2 << 30, slots: 0 });
        assert_eq!(parse_memory("512", false).unwrap().size, 512 << 20);
        assert_eq!(parse_memory("size=255G", false).unwrap().size, 255 << 30);
        assert_eq!(
            parse_memory("1G,slots=2,maxmem=4G", true).unwrap(),
            Memory { size: 1 << 30, max: 4 << 30, slots: 2 }
        );
        assert!(parse_memory("1G,slots=2", true).is_err());
        for bad in ["0", "2X", "-1", "9999T", "1G,slots=2", "1G,maxmem=2G"] {
            assert!(parse_memory(bad, false).is_err(), "{bad}");
        }
        assert_eq!(parse_rtc("base=2000-03-01T00:00:01").unwrap().0, RtcBase::Fixed(951_868_801));
        assert_eq!(parse_rtc("base=1970-01-01,clock=vm").unwrap(), (RtcBase::Fixed(0), RtcSource::Vm));
        assert!(parse_rtc("base=yesterday").is_err());
        let icount = |text| parse_icount(text).map_err(|e| e.to_string());
        assert_eq!(icount("auto"), Ok(Counting { shift: None, sleep: true, align: false }));
        assert_eq!(icount("7,sleep=off"), Ok(Counting { shift: Some(7), sleep: false, align: false }));
        assert_eq!(icount("shift=0,align=on"), Ok(Counting { shift: Some(0), sleep: true, align: true }));
        for (text, says) in [
            ("shift=11", "expected 0 to 10, or auto"),
            ("shift=-1", "'-1'"),
            ("align=on", "it needs a shift"),
            ("sleep=off", "it needs a shift"),
            ("shift=1,align=on,sleep=off", "it needs sleep=on"),
            ("shift=1,rr=record", "rr"),
        ] {
            let e = icount(text).unwrap_err();
            assert!(e.contains(says) && e.lines().count() == 1, "{text}: {e}");
        }
        assert!(ObjectSpec::parse("memory-backend-file,id=m,size=1G,mem-path=/x,share=on").is_ok());
        assert!(ObjectSpec::parse("memory-backend-file,id=m,size=1G").is_err());
        let iommufd = |fd| Ok(ObjectSpec::Iommufd { id: "i".to_owned(), fd });
        assert_eq!(ObjectSpec::parse("iommufd,id=i"), iommufd(None));
        assert_eq!(ObjectSpec::parse("iommufd,id=i,fd=7"), iommufd(Some(7)));
        assert!(ObjectSpec::parse("iommufd,id=i,fd=2").is_err());
        assert_eq!(ObjectSpec::parse("sw-protected-vm,id=p"), Ok(ObjectSpec::SwProtectedVm { id: "p".to_owned() }));
        assert!(ObjectSpec::parse("sw-protected-vm").is_err());
        let secret = ObjectSpec::parse(r#"{"qom-type":"secret","id":"s","data":"a,b"}"#).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret { id: \"s\", data: 3 bytes }");
        for bad in ["secret,id=s", "secret,id=s,data=x,format=hex", "secret,id=s,file=/no/such"] {
            assert!(ObjectSpec::parse(bad).is_err(), "{bad}");
        }
    }
}
