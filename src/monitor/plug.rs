//! Devices that come and go.

use rhea_block::DriveOptions;
use rhea_device::OptionError;
use rhea_machine::Machine;
use rhea_machine::config::DeviceSpec;
use rhea_machine::options::ObjectSpec;
use std::fmt::Write;

/// Commands: name, arguments, help.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("device_add", "driver[,prop=value][,...]", "plug a device, as with -device"),
    ("device_del", "id", "ask the guest to give a device up"),
    ("object_add", "type,id=id[,prop=value][,...]", "make an object, as with -object"),
    ("object_del", "id", "remove an object that nothing uses"),
    ("drive_add", "[slot] file=file,if=none,id=id[,...]", "open a drive for a device that is plugged later"),
    ("drive_del", "id", "close a drive that no device uses"),
    ("netdev_add", "type,id=id[,prop=value][,...]", "open a network back end, as with -netdev"),
    ("netdev_del", "id", "close a network back end that no device uses"),
];

/// Runs one of [`COMMANDS`]; `None`: it is none of those.
pub fn execute(machine: &Machine, command: &str, rest: &[&str]) -> Option<String> {
    let text = match command {
        "drive_add" if rest.len() > 1 && !rest[0].contains('=') => rest[1..].join(" "),
        _ => rest.join(" "),
    };
    if COMMANDS.iter().all(|c| c.0 != command) {
        return None;
    }
    if text.is_empty() {
        return Some(format!("{command}: an argument is missing\n"));
    }
    let done: Result<(), OptionError> = match command {
        "device_add" => DeviceSpec::parse(&text).and_then(|spec| machine.device_add(&spec)),
        "device_del" => machine.device_del(&text),
        "object_add" => ObjectSpec::parse(&text).and_then(|spec| machine.object_add(spec)),
        "object_del" => machine.object_del(&text),
        "drive_add" => DriveOptions::parse(&text).and_then(|drive| machine.drive_add(&drive)),
        "drive_del" => machine.drive_del(&text),
        "netdev_add" => machine.netdev_add(&text),
        _ => machine.netdev_del(&text),
    };
    Some(done.err().map_or_else(String::new, |e| format!("{e}\n")))
}

/// `info memory-devices`.
pub fn memory(machine: &Machine) -> String {
    let mut text = String::new();
    for d in machine.memory_devices() {
        let _ = writeln!(text, "Memory device [dimm]: \"{}\"", d.id.as_deref().unwrap_or(""));
        let _ = writeln!(text, "  addr: {:#x}\n  slot: {}\n  node: 0\n  size: {}", d.start, d.slot, d.size);
        let _ = writeln!(text, "  memdev: {}\n  hotplugged: {}\n  hotpluggable: true", d.object, d.hotplugged);
    }
    text
}
