//! The options there are, and the words of a command line taken apart by them.

use super::{err, version};
use rhea_device::OptionError;
use std::path::PathBuf;

/// One option: its names, what its value is called, what it does.
struct Opt {
    names: &'static [&'static str],
    value: Option<&'static str>,
    help: &'static str,
}

const fn flag(names: &'static [&'static str], help: &'static str) -> Opt {
    Opt { names, value: None, help }
}
const fn arg(names: &'static [&'static str], value: &'static str, help: &'static str) -> Opt {
    Opt { names, value: Some(value), help }
}

const OPTIONS: &[Opt] = &[
    flag(&["h", "help"], "display this help and exit"),
    flag(&["version"], "display the version and exit"),
    arg(&["M", "machine"], "[type=]name[,prop=value...]", "select the machine ('-M help' lists them)"),
    arg(&["cpu"], "model[,feature=on|off...]", "select the CPU ('-cpu help' lists them)"),
    arg(&["accel"], "name[,prop=value...]", "select the accelerator ('-accel help' lists them)"),
    flag(&["enable-kvm"], "run guest code by KVM: '-accel kvm'"),
    arg(
        &["smp"],
        "[cpus=]n[,maxcpus=n][,sockets=n][,dies=n][,clusters=n][,cores=n][,threads=n]",
        "set the number of CPUs",
    ),
    arg(&["m"], "[size=]megs", "set the amount of RAM, with suffix M or G (default 128M)"),
    arg(&["mem-path"], "path", "take the RAM from this file or directory"),
    flag(&["mem-prealloc"], "touch all RAM at start"),
    arg(&["name"], "string", "set the name of the guest"),
    arg(&["kernel"], "file", "boot this kernel image"),
    arg(&["initrd"], "file", "use this file as initial ram disk"),
    arg(&["append"], "text", "use this text as kernel command line"),
    arg(&["dtb"], "file", "use this device tree instead of the machine's own"),
    arg(
        &["bios"],
        "file",
        "firmware: put this file into the first flash bank (virt) or below 4 GiB (q35), or Open Firmware (pseries)",
    ),
    arg(&["L"], "dir", "look for firmware files in this directory first"),
    arg(
        &["boot"],
        "[order=drives][,once=drives][,menu=on|off][,splash-time=ms][,reboot-timeout=ms][,strict=on|off]",
        "tell the firmware what to boot: a floppy, c disk, d CD-ROM, n network",
    ),
    arg(&["prom-env"], "name=value", "set a variable of Open Firmware (pseries)"),
    arg(&["fw_cfg"], "[name=]n,file=f|string=s", "give the firmware this file"),
    arg(&["smbios"], "type=n[,prop=value...]|file=f", "set SMBIOS fields"),
    arg(&["global"], "driver.prop=value", "set a property of all devices of a driver"),
    arg(&["overcommit"], "[mem-lock=off][,cpu-pm=on|off]", "host resources: halted CPUs leave the host's in any case"),
    arg(&["uuid"], "uuid", "set the UUID of the machine, as in SMBIOS"),
    flag(&["usb"], "have a USB controller (-M usb=on)"),
    arg(&["usbdevice"], "tablet|mouse|keyboard", "have a USB controller and add this device"),
    arg(
        &["drive"],
        "file=f[,if=t][,id=n][,format=raw][,readonly=on|off]...",
        "add a drive (if: virtio, scsi, none, pflash)",
    ),
    arg(
        &["blockdev"],
        "[driver=]driver,node-name=n[,prop=value...]",
        "add a block node, which -device takes by its name; also as JSON",
    ),
    arg(&["incoming"], "uri|defer", "wait for a machine that moves here (tcp:H:P, unix:P, exec:C, file:P)"),
    arg(&["loadvm"], "tag|id", "start with a snapshot that 'savevm' has saved"),
    arg(&["hda"], "file", "use this file as the first disk"),
    arg(&["hdb"], "file", "use this file as the second disk"),
    arg(&["hdc"], "file", "use this file as the third disk"),
    arg(&["hdd"], "file", "use this file as the fourth disk"),
    arg(&["cdrom"], "file", "use this file as a read-only disk"),
    flag(&["snapshot"], "write disk changes to temporary files"),
    arg(
        &["device"],
        "driver[,prop=value...]",
        "add a device ('-device help' lists them, '-device NAME,help' their properties)",
    ),
    arg(&["netdev"], "user|tap,id=n[,prop=value...]", "set up a network back end ('-netdev help' lists them)"),
    arg(&["nic"], "none|user|tap[,model=m][,prop=value...]", "set up a network back end and its card"),
    arg(&["object"], "type,id=n[,prop=value...]", "create an object ('-object help' lists them)"),
    arg(&["chardev"], "backend,id=n[,prop=value...]", "set up a character back end ('-chardev help' lists them)"),
    arg(
        &["serial"],
        "dev",
        "connect the serial port (none, null, stdio, mon:stdio, pty, file:F, pipe:P, tcp:H:P, unix:P, chardev:ID)",
    ),
    arg(&["monitor"], "dev", "connect the monitor, as -serial"),
    arg(&["qmp"], "dev", "let programs control the emulator (stdio, tcp:H:P, unix:P; docs/qmp.md)"),
    arg(
        &["mon"],
        "[chardev=]id[,mode=readline|control]",
        "connect a monitor, for people or for programs, to a character back end",
    ),
    flag(&["nographic"], "serial port and monitor on the terminal; Ctrl-A H shows the keys (this is the default)"),
    arg(&["display"], "none|vnc=word", "no display, or the same as -vnc"),
    arg(
        &["vnc"],
        "[host]:n|unix:path|none[,prop=value...]",
        "let VNC clients see the display ('-vnc help' lists the properties)",
    ),
    arg(&["vga"], "none|std", "select the display adapter"),
    arg(&["parallel"], "none", "no parallel port"),
    flag(&["nodefaults"], "do not create default devices"),
    flag(&["no-user-config"], "accepted: there are no configuration files"),
    flag(&["no-acpi"], "no ACPI tables: '-M acpi=off'"),
    flag(&["no-reboot"], "exit instead of rebooting"),
    flag(&["no-shutdown"], "pause instead of exiting at power-off"),
    arg(
        &["action"],
        "[reboot=reset|shutdown][,shutdown=poweroff|pause][,panic=pause|shutdown|exit-failure|none][,watchdog=ACTION]",
        "what becomes of the machine when the guest ends it",
    ),
    flag(&["S"], "do not start the CPUs at startup (type 'c' in the monitor)"),
    flag(&["s"], "shorthand for -gdb tcp::1234"),
    arg(&["gdb"], "tcp:host:port", "wait for a GDB connection"),
    arg(&["d"], "item1,...", "log these items ('-d help' lists them)"),
    arg(&["D"], "file", "write the log to this file (default: standard error)"),
    arg(&["rtc"], "[base=utc|localtime|date][,clock=host|vm]", "set the wall clock"),
    arg(
        &["icount"],
        "[shift=N|auto][,align=on|off][,sleep=on|off]",
        "let the guest's time pass with its instructions, 2^N ns each",
    ),
    flag(&["perf-map", "perfmap"], "tell perf of generated code (/tmp/perf-PID.map)"),
    arg(
        &["flame-graph"],
        "[file=]f.svg[,hz=n][,symbols=f]",
        "draw where the guest spends its time, with names from a System.map or an ELF file",
    ),
    arg(&["pidfile"], "file", "write the process id to this file"),
    flag(&["daemonize"], "go on in the background once everything is ready"),
    arg(&["msg"], "[timestamp=on|off][,guest-name=on|off]", "begin messages with the time, or the guest's name"),
    arg(&["add-fd"], "fd=n,set=n[,opaque=text]", "/dev/fdset/SET as a file name stands for this descriptor"),
    arg(&["audiodev"], "[driver=]none,id=n", "a back end for sound, which goes nowhere"),
];

/// The options with a value: the last of their names, and the form of the value.
pub fn forms() -> impl Iterator<Item = (&'static str, &'static str)> {
    OPTIONS.iter().filter_map(|o| Some((*o.names.last()?, o.value?)))
}

/// The text of `-help`.
pub fn help() -> String {
    let mut text = version();
    text.push_str("usage: rhea [options] [disk_image]\n       rhea demo\n       rhea img COMMAND...\n       rhea nbd [options] disk_image\n\n");
    for o in OPTIONS {
        let names: Vec<String> = o.names.iter().map(|n| format!("-{n}")).collect();
        let left = format!("{} {}", names.join(" or "), o.value.unwrap_or(""));
        text.push_str(&format!("{}\n                {}\n", left.trim_end(), o.help));
    }
    text.push_str(
        "\nWith the terminal as console: Ctrl-A X exits, Ctrl-A C switches to the monitor, Ctrl-A H shows all keys.\n",
    );
    text
}

/// The value given last for each option, and the lists.
#[derive(Default)]
pub struct Given {
    pub values: Vec<(&'static str, String)>,
}

impl Given {
    pub fn all(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.clone()).collect()
    }
    pub fn last(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.last(name).map(PathBuf::from)
    }
}

/// Which options are given, and with what.
///
/// # Errors
/// [`OptionError`]: there is no such option, or its value is missing or too much.
pub fn scan(args: impl Iterator<Item = String>) -> Result<Given, OptionError> {
    let mut given = Given::default();
    let mut args = args;
    while let Some(word) = args.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|n| !n.is_empty()) else {
            if given.has("hda") {
                return Err(err(&word, "unexpected argument: only one disk image may be given without an option"));
            }
            given.values.push(("hda", word));
            continue;
        };
        // --name=value is taken too.
        let (name, inline) = match name.split_once('=') {
            Some((n, v)) if word.starts_with("--") => (n, Some(v.to_owned())),
            _ => (name, None),
        };
        let Some(option) = OPTIONS.iter().find(|o| o.names.contains(&name)) else {
            return Err(err(&word, unknown(name)));
        };
        let value = match (option.value, inline) {
            (None, None) => String::new(),
            (None, Some(_)) => return Err(err(&format!("-{name}"), "takes no value")),
            (Some(_), Some(v)) => v,
            (Some(what), None) => match args.next() {
                Some(v) => v,
                None => return Err(err(&word, format!("needs a value: -{name} {what}"))),
            },
        };
        given.values.push((option.names[option.names.len() - 1], value));
    }
    Ok(given)
}

/// Options of QEMU that Rhea does not have, so that the message can say so.
const ABSENT: &[&str] = &[
    "vnc",
    "audio",
    "acpitable",
    "numa",
    "sandbox",
    "spice",
    "tpmdev",
    "virtfs",
    "fsdev",
    "watchdog-action",
    "trace",
    "semihosting",
    "semihosting-config",
    "runas",
    "chroot",
    "readconfig",
    "k",
    "g",
    "full-screen",
    "seed",
    "net",
    "pflash",
    "sd",
    "mtdblock",
    "fda",
    "plugin",
    "preconfig",
    "set",
    "iscsi",
    "singlestep",
    "one-insn-per-tb",
];

fn unknown(name: &str) -> String {
    if ABSENT.contains(&name) {
        return "this option is not supported by Rhea (-help lists the options)".to_owned();
    }
    let near = OPTIONS
        .iter()
        .flat_map(|o| o.names)
        .filter(|n| n.len() > 2)
        .min_by_key(|n| distance(n, name))
        .filter(|n| distance(n, name) <= 2);
    match near {
        Some(near) => format!("unknown option: did you mean -{near}?"),
        None => "unknown option (-help lists the options)".to_owned(),
    }
}

/// Edit distance of two short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}
