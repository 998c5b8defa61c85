//! The command line: QEMU's words, with one dash or two.

mod process;
mod words;

pub use words::forms;
use words::{Given, help, scan};

use crate::flame::FlameGraph;
use crate::message::Prefix;
use rhea_block::{DriveInterface, DriveOptions, Media};
use rhea_clock::{RtcBase, RtcSource};
use rhea_control::Address;
use rhea_device::chardev::{ChardevSpec, SocketAddress, SocketOptions};
use rhea_device::options::split;
use rhea_device::{LogMask, OptionDecl, OptionError, OptionKind, OptionSet};
use rhea_display::VncOptions;
use rhea_machine::NoneOptions;
use rhea_machine::accel::{self, AccelKind};
use rhea_machine::config::{BoardOptions, BootOptions, Console, DeviceSpec, FwCfgFile, MachineConfig, RamConfig};
use rhea_machine::machine::{Actions, RebootAction, ShutdownAction, WATCHDOG_WORDS};
use rhea_machine::options::{self, ObjectSpec, Q35Options, Smp, VirtOptions};
use rhea_machine::pseries::PseriesOptions;
use rhea_memory::Backing;
use std::path::{Path, PathBuf};

/// What the user asked for.
pub enum Action {
    /// Print this and leave.
    Print(String),
    Run(Box<MachineConfig>, Extras),
}

/// What goes with a machine, beside it.
pub struct Extras {
    pub control: Vec<ControlSpec>,
    pub flames: Option<FlameGraph>,
    /// Goes on in the background.
    pub daemonize: bool,
    /// What messages begin with.
    pub messages: Prefix,
}

/// A connection by which programs control the emulator.
pub struct ControlSpec {
    /// The option, for messages.
    pub option: String,
    /// As in lists of character devices.
    pub label: String,
    pub address: Address,
    /// Listens, and does not connect.
    pub server: bool,
    /// The machine starts once somebody is there.
    pub wait: bool,
}

impl ControlSpec {
    fn new(option: &str, label: String, spec: &ChardevSpec) -> Result<Self, OptionError> {
        let (address, server, wait) = match spec {
            ChardevSpec::Stdio { .. } => (Address::Stdio, true, false),
            ChardevSpec::Socket(SocketOptions { address, server, wait, .. }) => {
                let address = match address {
                    SocketAddress::Tcp(a) => Address::Tcp(a.clone()),
                    SocketAddress::Unix(path) => Address::Unix(path.clone()),
                    SocketAddress::Fd(n) => {
                        let fd = SocketAddress::inherited(*n).map_err(|e| err(option, format!("'fd={n}': {e}")))?;
                        Address::Listening(fd)
                    }
                };
                (address, *server, *server && *wait)
            }
            _ => return Err(err(option, format!("'{label}': programs need a socket or stdio"))),
        };
        Ok(Self { option: option.to_owned(), label, address, server, wait })
    }
}

/// The version line.
pub fn version() -> String {
    format!("Rhea emulator version {}\n", env!("CARGO_PKG_VERSION"))
}

fn err(option: &str, message: impl Into<String>) -> OptionError {
    OptionError::new(option, message)
}

fn is_help(value: &str) -> bool {
    value == "help" || value == "?"
}

/// `NAME,help` somewhere in a value.
fn asks_help(value: &str) -> bool {
    value.split(',').any(is_help)
}

fn help_of(given: &Given, default: &str) -> Option<String> {
    let machine = || options::machine_name(&given.all("machine"), default).unwrap_or("virt");
    for (name, value) in &given.values {
        let text = match *name {
            "help" => help(),
            "version" => version(),
            "machine" if is_help(value) => options::machine_help(default),
            "machine" if asks_help(value) => {
                let name = value.split(',').next().unwrap_or("");
                match options::machine_name(&[name.to_owned()], default) {
                    Ok("q35") => Q35Options::help(),
                    Ok("pseries") => PseriesOptions::help(),
                    Ok("none") => NoneOptions::help(),
                    _ => VirtOptions::help(),
                }
            }
            "cpu" if is_help(value) => rhea_machine::cpu_help(machine()),
            "accel" if is_help(value) => accel::ACCEL_HELP.to_owned(),
            "device" if is_help(value) => rhea_machine::devices::help(),
            "device" if asks_help(value) => match rhea_machine::devices::help_of(value.split(',').next().unwrap_or(""))
            {
                Some(text) => text,
                None => continue,
            },
            "drive" if asks_help(value) => rhea_device::options::help("-drive", rhea_block::DRIVE_OPTIONS),
            "netdev" if is_help(value) => rhea_machine::devices::netdev_help(),
            "nic" if is_help(value) => rhea_machine::devices::nic_help(),
            "object" if is_help(value) => options::OBJECT_HELP.to_owned(),
            "chardev" if is_help(value) => ChardevSpec::help(),
            "display" if is_help(value) => "Available display backend types:\nnone\nvnc\n".to_owned(),
            "vnc" if is_help(value) => rhea_display::vnc::help(),
            "vga" if is_help(value) => rhea_machine::display::help(),
            "d" if is_help(value) => {
                let mut text = "Log items (comma separated):\n".to_owned();
                for (_, word, what) in LogMask::ALL {
                    text.push_str(&format!("{word:<15} {what}\n"));
                }
                text
            }
            _ => continue,
        };
        return Some(text);
    }
    None
}

/// Parses the arguments after the program's name; `machine` is the one that is meant when none is named.
pub fn parse(args: impl Iterator<Item = String>, machine: &str) -> Result<Action, OptionError> {
    let given = scan(args)?;
    if let Some(text) = help_of(&given, machine) {
        return Ok(Action::Print(text));
    }
    let (config, control) = config(&given, machine)?;
    let flames = given.last("flame-graph").map(FlameGraph::parse).transpose()?;
    let daemonize = given.has("daemonize");
    if daemonize && on_terminal(&config, &control) {
        let text = "standard input and output are in use: give -display none (not -nographic), or connect -serial and -monitor elsewhere";
        return Err(err("-daemonize", text));
    }
    let messages = process::messages(&given, config.name.as_deref())?;
    Ok(Action::Run(Box::new(config), Extras { control, flames, daemonize, messages }))
}

/// Is a console or the control protocol on the terminal?
fn on_terminal(config: &MachineConfig, control: &[ControlSpec]) -> bool {
    let stdio = |spec: &ChardevSpec| matches!(spec, ChardevSpec::Stdio { .. });
    config.serials.iter().chain(&config.monitors).any(|c| stdio(&c.spec))
        || config.chardevs.iter().any(|(_, spec)| stdio(spec))
        || control.iter().any(|c| matches!(c.address, Address::Stdio))
}

fn readable(option: &str, path: Option<PathBuf>) -> Result<Option<PathBuf>, OptionError> {
    if let Some(path) = &path {
        std::fs::File::open(path).and_then(|f| f.metadata()).map_err(|e| err(option, file_error(path, &e))).and_then(
            |m| {
                if m.is_dir() {
                    Err(err(option, format!("'{}': is a directory: expected a file", path.display())))
                } else {
                    Ok(())
                }
            },
        )?;
    }
    Ok(path)
}

/// `'PATH': what the host said`.
pub fn file_error(path: &Path, e: &std::io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    format!("'{}': {text}", path.display())
}

fn log_mask(items: &str) -> Result<u32, OptionError> {
    items.split(',').filter(|i| !i.is_empty()).try_fold(0, |mask, item| {
        match LogMask::ALL.iter().find(|(_, word, _)| *word == item) {
            Some((bit, ..)) => Ok(mask | *bit as u32),
            None => Err(err("-d", format!("unknown item '{item}' (-d help lists them)"))),
        }
    })
}

fn consoles(option: &str, texts: &[String]) -> Result<Vec<Console>, OptionError> {
    texts
        .iter()
        .map(|t| ChardevSpec::parse_short(option, t).map(|(spec, with_monitor)| Console { spec, with_monitor }))
        .collect()
}

/// `-boot`, with the old form of only the letters.
fn boot(text: &str) -> Result<BootOptions, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("order", OptionKind::Text, None, "drives in order: a, c, d, n"),
        OptionDecl::new("once", OptionKind::Text, None, "the same for the first start only"),
        OptionDecl::new("menu", OptionKind::Bool, None, "let the user choose"),
        OptionDecl::new("splash-time", OptionKind::Number { min: 0, max: 0xffff }, None, "wait for the user, in ms"),
        OptionDecl::new(
            "reboot-timeout",
            OptionKind::Number { min: 0, max: 0xffff },
            None,
            "start again after this time if nothing boots, in ms",
        ),
        OptionDecl::new("strict", OptionKind::Bool, Some("off"), "boot only from what has a bootindex"),
    ];
    let mut pairs = split(text);
    if let Some((letters, None)) = pairs.first().cloned() {
        pairs[0] = ("order".to_owned(), Some(letters));
    }
    let set = OptionSet::parse("-boot", DECLS, &pairs)?;
    for key in ["order", "once"] {
        if let Some(letters) = set.text(key)
            && let Some(bad) = letters.chars().find(|c| !matches!(c, 'a'..='d' | 'n'..='p'))
        {
            return Err(set.error(key, &format!("'{letters}': there is no drive '{bad}': a, c, d and n are known")));
        }
    }
    Ok(BootOptions {
        order: set.text("order").map(str::to_owned),
        once: set.text("once").map(str::to_owned),
        menu: set.given("menu").then(|| set.bool("menu")),
        splash_time: set.number("splash-time").map(|n| n as u16),
        reboot_timeout: set.number("reboot-timeout").map(|n| n as i32),
        strict: set.bool("strict"),
    })
}

/// `-fw_cfg [name=]NAME,file=FILE` or `,string=TEXT`
fn fw_cfg_file(text: &str) -> Result<FwCfgFile, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("name", OptionKind::Text, None, "name of the file, like opt/org.example/x"),
        OptionDecl::new("file", OptionKind::Text, None, "take the content from this file"),
        OptionDecl::new("string", OptionKind::Text, None, "the content"),
    ];
    let mut pairs = split(text);
    if let Some((name, None)) = pairs.first().cloned() {
        pairs[0] = ("name".to_owned(), Some(name));
    }
    let set = OptionSet::parse("-fw_cfg", DECLS, &pairs)?;
    let Some(name) = set.text("name").filter(|n| !n.is_empty()) else {
        return Err(err("-fw_cfg", format!("'{text}': property 'name' is missing: name=NAME")));
    };
    if name.len() > 55 {
        return Err(set.error("name", "a name has at most 55 characters"));
    }
    let data = match (set.text("file"), set.text("string")) {
        (Some(file), None) => std::fs::read(file).map_err(|e| err("-fw_cfg", file_error(Path::new(file), &e)))?,
        (None, Some(string)) => string.as_bytes().to_vec(),
        _ => return Err(err("-fw_cfg", format!("'{text}': expected one of file= and string="))),
    };
    Ok(FwCfgFile { name: name.to_owned(), data })
}

/// `-usbdevice NAME`
fn usb_device(name: &str) -> Result<DeviceSpec, OptionError> {
    match rhea_machine::devices::USB_DEVICE.iter().find(|(n, _)| *n == name) {
        Some((_, driver)) => DeviceSpec::parse(driver),
        None => Err(err("-usbdevice", format!("'{name}' is not supported: use tablet, mouse or keyboard"))),
    }
}

/// `-uuid 12345678-1234-1234-1234-123456789abc`
fn uuid(text: &str) -> Result<[u8; 16], OptionError> {
    let shape = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| shape && !digits.starts_with('+'));
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| err("-uuid", format!("'{text}': expected a UUID like 12345678-1234-1234-1234-123456789abc")))
}

/// `-global DRIVER.PROPERTY=VALUE`, or `driver=DRIVER,property=PROPERTY,value=VALUE`
fn global(text: &str) -> Result<(String, String, String), OptionError> {
    if text.starts_with("driver=") {
        const DECLS: &[OptionDecl] = &[
            OptionDecl::new("driver", OptionKind::Text, None, "driver"),
            OptionDecl::new("property", OptionKind::Text, None, "property"),
            OptionDecl::new("value", OptionKind::Text, None, "value"),
        ];
        let set = OptionSet::parse("-global", DECLS, &split(text))?;
        if let (Some(d), Some(p), Some(v)) = (set.text("driver"), set.text("property"), set.text("value")) {
            return Ok((d.to_owned(), p.to_owned(), v.to_owned()));
        }
        return Err(err("-global", format!("'{text}': expected driver=, property= and value=")));
    }
    let parts = text.split_once('=').and_then(|(left, v)| left.rsplit_once('.').map(|(d, p)| (d, p, v)));
    match parts {
        Some((driver, property, value)) if !driver.is_empty() && !property.is_empty() => {
            Ok((driver.to_owned(), property.to_owned(), value.to_owned()))
        }
        _ => Err(err("-global", format!("'{text}': expected DRIVER.PROPERTY=VALUE"))),
    }
}

/// `-vnc` and `-display vnc=`.
fn vnc(given: &Given) -> Result<Vec<VncOptions>, OptionError> {
    let mut servers = Vec::new();
    for (name, value) in &given.values {
        let word = match (*name, value.as_str()) {
            ("vnc", word) => word,
            ("display", "none") => continue,
            ("display", value) => value.strip_prefix("vnc=").ok_or_else(|| {
                err("-display", format!("'{value}' is not supported: use 'none' or 'vnc=[host]:display'"))
            })?,
            _ => continue,
        };
        servers.extend(VncOptions::parse(word)?);
    }
    Ok(servers)
}

fn config(given: &Given, machine: &str) -> Result<(MachineConfig, Vec<ControlSpec>), OptionError> {
    for (option, only) in [("parallel", "none")] {
        if let Some(value) = given.last(option).filter(|v| *v != only) {
            return Err(err(&format!("-{option}"), format!("'{value}' is not supported: use '{only}'")));
        }
    }
    process::add_fds(given)?;
    process::audio(given)?;
    for text in given.all("overcommit") {
        const DECLS: &[OptionDecl] = &[
            OptionDecl::new("mem-lock", OptionKind::Choice(&["off"]), Some("off"), "memory is not locked"),
            OptionDecl::new("cpu-pm", OptionKind::Bool, Some("off"), "halting is always the guest's own"),
        ];
        OptionSet::parse("-overcommit", DECLS, &split(&text))?;
    }
    let mut machines = given.all("machine");
    if given.has("usb") || given.has("usbdevice") {
        machines.push("usb=on".to_owned());
    }
    if given.has("no-acpi") {
        machines.push("acpi=off".to_owned());
    }
    if given.has("nographic") || !(given.has("display") || given.has("vnc")) {
        // Nobody looks at a display; a word of -M wins.
        machines.insert(0, "graphics=off".to_owned());
    }
    let board = BoardOptions::parse(&machines, machine)?;
    let q35 = matches!(board, BoardOptions::Q35(_));
    let pseries = matches!(board, BoardOptions::Pseries(_));
    if let Some(word) = given.last("vga") {
        rhea_machine::display::adapter(word)?;
    }
    let virt = matches!(board, BoardOptions::Virt(_));
    for (option, works) in
        [("fw_cfg", !pseries), ("smbios", q35), ("dtb", virt), ("hdc", !virt), ("hdd", !virt), ("prom-env", pseries)]
    {
        if given.has(option) && !works {
            let name = board.kind().board;
            return Err(err(&format!("-{option}"), format!("the machine {name} does not have this")));
        }
    }
    let architecture = board.architecture();
    let order = given.last("boot").map(boot).transpose()?.unwrap_or_default();
    if virt && order != (BootOptions { strict: order.strict, ..BootOptions::default() }) {
        return Err(err("-boot", "the machine virt has strict= only"));
    }
    if virt && order.strict && !given.has("kernel") {
        eprintln!("rhea: warning: -boot strict=on is not told to the firmware, which has its own boot order");
    }
    let mut accels = given.all("accel");
    if accels.is_empty() && given.has("enable-kvm") {
        accels.push("kvm".to_owned());
    }
    if let (true, Some(text)) = (accels.is_empty(), board.accel()) {
        accels.push(text.to_owned());
    }
    let objects = given.all("object").iter().map(|t| ObjectSpec::parse(t)).collect::<Result<Vec<_>, _>>()?;
    let mut drives = Vec::new();
    for (name, value) in &given.values {
        match *name {
            "drive" => drives.push(DriveOptions::parse(value)?),
            "hda" | "hdb" | "hdc" | "hdd" => {
                let mut drive = DriveOptions::for_file(&format!("-{name}"), Path::new(value));
                drive.index = (!virt).then(|| u32::from(name.as_bytes()[2] - b'a'));
                drives.push(drive);
            }
            "cdrom" => {
                let mut drive = DriveOptions::for_file("-cdrom", Path::new(value));
                drive.readonly = true;
                if !virt {
                    drive.media = Media::Cdrom;
                    drive.index = Some(2);
                }
                drives.push(drive);
            }
            _ => {}
        }
    }
    for drive in drives.iter_mut().filter(|d| pseries && !d.interface_given) {
        drive.interface = DriveInterface::Scsi;
    }
    // A PC's drives are at the chipset's controller unless told.
    for drive in drives.iter_mut().filter(|d| q35 && !d.interface_given) {
        drive.interface = DriveInterface::Ide;
    }
    let mut chardevs: Vec<(String, ChardevSpec)> = Vec::new();
    for text in given.all("chardev") {
        let (id, spec) = ChardevSpec::parse_chardev(&text)?;
        if chardevs.iter().any(|(i, _)| *i == id) {
            return Err(err("-chardev", format!("the id '{id}' is given twice: ids must differ")));
        }
        chardevs.push((id, spec));
    }
    let (mut serials, mut monitors) =
        (consoles("-serial", &given.all("serial"))?, consoles("-monitor", &given.all("monitor"))?);
    let mut control = Vec::new();
    for (n, text) in given.all("qmp").iter().enumerate() {
        let (spec, _) = ChardevSpec::parse_short("-qmp", text)?;
        if spec != ChardevSpec::None {
            control.push(ControlSpec::new("-qmp", format!("compat_monitor{n}"), &spec)?);
        }
    }
    for text in given.all("mon") {
        mon(&text, &mut chardevs, &mut monitors, &mut control)?;
    }
    let controls_terminal = control.iter().filter(|c| matches!(c.address, Address::Stdio)).count();
    if serials.is_empty() && !given.has("nodefaults") {
        // Serial port and monitor share the terminal, unless the monitor has it or the display was chosen.
        let taken = controls_terminal > 0 || monitors.iter().any(|m| matches!(m.spec, ChardevSpec::Stdio { .. }));
        let hidden = (given.has("display") || given.has("vnc")) && !given.has("nographic");
        let own_monitor = !monitors.is_empty();
        serials.push(match (taken || hidden, own_monitor) {
            (true, _) => Console { spec: ChardevSpec::Null, with_monitor: false },
            (false, own) => Console { spec: ChardevSpec::Stdio { signals: false, mux: true }, with_monitor: !own },
        });
    }
    monitors.retain(|m| m.spec != ChardevSpec::None);
    let stdio = serials.iter().chain(&monitors).filter(|c| matches!(c.spec, ChardevSpec::Stdio { .. })).count()
        + chardevs.iter().filter(|(_, s)| matches!(s, ChardevSpec::Stdio { .. })).count()
        + controls_terminal;
    if stdio > 1 {
        return Err(err(
            "-serial",
            "standard input and output are used twice: use mon:stdio, or another device for one of them",
        ));
    }
    let memory = given.last("m").map(|t| options::parse_memory(t, pseries)).transpose()?;
    let kernel = readable("-kernel", given.path("kernel"))?;
    for (option, what) in [("append", "a command line"), ("initrd", "an initial ram disk")] {
        if given.has(option) && kernel.is_none() {
            return Err(err(&format!("-{option}"), format!("{what} is of no use without a kernel: add -kernel FILE")));
        }
    }
    let icount = given.last("icount").map(options::parse_icount).transpose()?;
    let config = MachineConfig {
        name: given.last("name").map(process::name).transpose()?,
        cpu: given.last("cpu").unwrap_or(if q35 { "qemu64" } else { "max" }).to_owned(),
        smp: given.last("smp").map_or(Ok(Smp::ONE), Smp::parse)?,
        max_ram: memory.map_or(0, |m| m.max),
        ram_slots: memory.map_or(0, |m| m.slots),
        prom_env: prom_env(given)?,
        ram: ram(given, memory.map(|m| m.size), &board, &objects)?,
        accel: accel::select(&accels, architecture, icount.is_some(), !matches!(board, BoardOptions::None(_)))?,
        icount,
        board,
        kernel,
        // On a PC it may be a list of files with their command lines.
        initrd: if q35 { given.path("initrd") } else { readable("-initrd", given.path("initrd"))? },
        append: given.last("append").map(str::to_owned),
        dtb: readable("-dtb", given.path("dtb"))?,
        // Firmware of a PC is searched for by name.
        bios: if !virt { given.path("bios") } else { readable("-bios", given.path("bios"))? },
        boot: order,
        fw_cfg: given.all("fw_cfg").iter().map(|t| fw_cfg_file(t)).collect::<Result<_, _>>()?,
        uuid: given.last("uuid").map_or(Ok([0; 16]), uuid)?,
        smbios: given.all("smbios"),
        firmware_dirs: given.all("L").into_iter().map(PathBuf::from).collect(),
        vnc: vnc(given)?,
        vga: given.last("vga").map(str::to_owned),
        globals: given.all("global").iter().map(|t| global(t)).collect::<Result<_, _>>()?,
        drives,
        blockdevs: given.all("blockdev").iter().map(|t| rhea_block::parse_blockdev(t)).collect::<Result<_, _>>()?,
        devices: given
            .all("device")
            .iter()
            .map(|t| DeviceSpec::parse(t))
            .chain(given.all("usbdevice").iter().map(|t| usb_device(t)))
            .collect::<Result<_, _>>()?,
        netdevs: given.all("netdev"),
        nics: given.all("nic"),
        objects,
        chardevs,
        serials,
        monitors,
        no_defaults: given.has("nodefaults"),
        snapshot: given.has("snapshot"),
        actions: actions(given)?,
        incoming: given.last("incoming").map(str::to_owned),
        load_snapshot: given.last("loadvm").map(str::to_owned),
        paused: given.has("S"),
        gdb: given.last("gdb").map(str::to_owned).or_else(|| given.has("s").then(|| "tcp::1234".to_owned())),
        log_mask: given.all("d").iter().try_fold(0, |m, t| log_mask(t).map(|n| m | n))?,
        log_file: given.path("D"),
        rtc: given.last("rtc").map_or(Ok((RtcBase::Utc, RtcSource::Host)), options::parse_rtc)?,
        pid_file: given.path("pidfile"),
        perf_map: given.has("perfmap"),
    };
    if config.perf_map && matches!(config.accel, AccelKind::Kvm(_)) {
        return Err(err("-perfmap", "KVM runs the guest's code as it is: use -accel jit"));
    }
    Ok((config, control))
}

/// `-mon [chardev=]ID[,mode=readline|control]`
fn mon(
    text: &str,
    chardevs: &mut Vec<(String, ChardevSpec)>,
    monitors: &mut Vec<Console>,
    control: &mut Vec<ControlSpec>,
) -> Result<(), OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("chardev", OptionKind::Text, None, "id of the character back end"),
        OptionDecl::new("id", OptionKind::Text, None, "name"),
        OptionDecl::new("mode", OptionKind::Choice(&["readline", "control"]), Some("readline"), "people or programs"),
        OptionDecl::new("pretty", OptionKind::Choice(&["off"]), Some("off"), "replies are of one line"),
    ];
    let mut pairs = split(text);
    if let Some((id, None)) = pairs.first().cloned() {
        pairs[0] = ("chardev".to_owned(), Some(id));
    }
    let set = OptionSet::parse("-mon", DECLS, &pairs)?;
    let id = set.text("chardev").ok_or_else(|| err("-mon", "property 'chardev' is missing: chardev=ID"))?;
    let Some(at) = chardevs.iter().position(|(i, _)| i == id) else {
        return Err(set.error("chardev", &format!("'{id}': no -chardev has this id")));
    };
    if set.text("mode") == Some("control") {
        let (label, spec) = chardevs.remove(at);
        control.push(ControlSpec::new("-mon", label, &spec)?);
    } else {
        monitors.push(Console { spec: ChardevSpec::Id(id.to_owned()), with_monitor: false });
    }
    Ok(())
}

/// `-action`, `-no-reboot` and `-no-shutdown`
fn actions(given: &Given) -> Result<Actions, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("reboot", OptionKind::Choice(&["reset", "shutdown"]), None, "what a reset does"),
        OptionDecl::new("shutdown", OptionKind::Choice(&["poweroff", "pause"]), None, "what switching off does"),
        OptionDecl::new(
            "panic",
            OptionKind::Choice(&["pause", "shutdown", "exit-failure", "none"]),
            None,
            "what a crash does",
        ),
        OptionDecl::new(
            "watchdog",
            OptionKind::Choice(&WATCHDOG_WORDS),
            None,
            "what the end of a watchdog's time does",
        ),
    ];
    let mut all = Actions::default();
    for (name, value) in &given.values {
        match *name {
            "no-reboot" => all.reboot = RebootAction::Shutdown,
            "no-shutdown" => all.shutdown = ShutdownAction::Pause,
            "action" => {
                let set = OptionSet::parse("-action", DECLS, &split(value))?;
                all = crate::control::actions(all, |key| set.text(key).map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(all)
}

/// `-prom-env NAME=VALUE`
fn prom_env(given: &Given) -> Result<Vec<String>, OptionError> {
    let texts = given.all("prom-env");
    match texts.iter().find(|t| !t.contains('=') || t.starts_with('=')) {
        Some(bad) => Err(err("-prom-env", format!("'{bad}': expected NAME=VALUE"))),
        None => Ok(texts),
    }
}

fn ram(
    given: &Given,
    size: Option<u64>,
    board: &BoardOptions,
    objects: &[ObjectSpec],
) -> Result<RamConfig, OptionError> {
    if let Some(id) = board.memory_backend() {
        let object = objects.iter().find_map(|o| match o {
            ObjectSpec::Memory { id: i, size, backing, prealloc } if *i == id => {
                Some((*size, backing.clone(), *prealloc))
            }
            _ => None,
        });
        let Some((bytes, backing, prealloc)) = object else {
            return Err(err(board.option(), format!("'memory-backend={id}': no memory -object has this id")));
        };
        let wanted = size.unwrap_or(bytes);
        if wanted != bytes {
            return Err(err(
                "-m",
                format!("{wanted} bytes: the memory backend '{id}' has {bytes}: they must be equal"),
            ));
        }
        return Ok(RamConfig { size: bytes, backing, prealloc });
    }
    let backing = match given.path("mem-path") {
        Some(path) => Backing::File { path, share: false },
        None => Backing::Anonymous,
    };
    Ok(RamConfig {
        size: size.unwrap_or(match board {
            BoardOptions::Pseries(_) => 512 << 20,
            BoardOptions::None(_) => 0,
            _ => 128 << 20,
        }),
        backing,
        prealloc: given.has("mem-prealloc"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Action, OptionError> {
        parse(line.split_whitespace().map(str::to_owned), "virt")
    }

    #[test]
    fn words() {
        let Ok(Action::Run(c, _)) = run(
            "-M virt -cpu max -smp 2 -m 2G -nographic -no-reboot --append=x -kernel /proc/self/exe -d unimp,int -s -S",
        ) else {
            panic!("does not parse");
        };
        assert_eq!((c.smp.cpus, c.ram.size, c.actions.reboot, c.paused), (2, 2 << 30, RebootAction::Shutdown, true));
        assert_eq!(c.gdb.as_deref(), Some("tcp::1234"));
        assert_eq!(c.serials, [Console { spec: ChardevSpec::Stdio { signals: false, mux: true }, with_monitor: true }]);
        assert_eq!(c.log_mask, LogMask::Unimp as u32 | LogMask::Int as u32);
        let more = r#"-M none,accel=tcg -nodefaults -display none -daemonize -msg timestamp=on -audiodev {"driver":"none","id":"a"}"#;
        let Ok(Action::Run(c, extras)) = run(more) else { panic!("does not parse") };
        assert!(extras.daemonize && extras.messages == Prefix { time: true, guest: None });
        assert_eq!((c.ram.size, c.board.kind().name), (0, "none"));
        let Ok(Action::Run(c, _)) = run(r#"-M virt-10.0 -no-acpi -device {"driver":"edu","id":"e","dma_mask":5}"#)
        else {
            panic!("does not parse");
        };
        assert_eq!((c.devices[0].driver.as_str(), c.devices[0].value("dma_mask")), ("edu", Some("5")));
        for line in [
            "-help",
            "-version",
            "-M help",
            "-M virt,help",
            "-d help",
            "-accel help",
            "-object help",
            "-chardev help",
            "-drive help",
        ] {
            assert!(matches!(run(line), Ok(Action::Print(_))), "{line}");
        }
    }

    #[test]
    fn errors_are_one_line() {
        for line in [
            "-nographik",
            "-m",
            "-m x",
            "-smp 0",
            "-display gtk",
            "-vnc 5",
            "-vnc :0,password=maybe",
            "-d nothing",
            "-kernel /nonexistent",
            "-kernel /tmp",
            "a b",
            "-append x",
            "-serial stdio -monitor stdio",
            "-serial nowhere",
            "-accel warp",
            "-M pc",
            "-M virt -boot order=c",
            "-M q35 -boot order=x",
            "-M q35,gic-version=3",
            "-M q35 -fw_cfg opt/x",
            "-M q35 -global x",
            "-uuid 1234",
            "-M q35 -vga cirrus",
            "-rtc base=never",
            "-object x",
            "-m 1G -M virt,memory-backend=q",
            "--nographic=yes",
            "-drive file=x,if=floppy",
            "-qmp file:x",
            "-qmp stdio -serial stdio",
            "-mon chardev=x,mode=control",
            "-chardev null,id=x -mon x,mode=control",
            "-action reboot=never",
            "-M none -smp 2 -daemonize",
            "-daemonize",
            "-add-fd fd=1,set=1",
            "-add-fd fd=7",
            "-add-fd fd=70000,set=1",
            "-audiodev pa,id=a",
            "-audiodev none",
            "-msg when=on",
            "-device {\"driver\":7}",
            "-object {}",
        ] {
            match run(line) {
                Err(e) => {
                    let text = e.to_string();
                    assert!(text.starts_with('-') || text.starts_with("b:"), "{line}: {text}");
                    assert!(!text.contains('\n') && text.contains(": "), "{line}: {text}");
                }
                Ok(_) => panic!("{line} is accepted"),
            }
        }
    }
}
