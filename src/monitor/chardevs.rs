//! Character devices that come, go and change.

use super::Shell;
use rhea_control::json;
use rhea_device::chardev::ChardevSpec;

/// Commands: name, arguments, help.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("chardev-add", "backend,id=id[,prop=value][,...]", "open a character device, as with -chardev"),
    ("chardev-change", "id backend[,prop=value][,...]", "put another one in its place"),
    ("chardev-remove", "id", "close a character device that nothing uses"),
    ("chardev-send-break", "id", "send a break to the device that is there"),
];

/// Runs one of [`COMMANDS`]; `None`: it is none of those.
pub fn execute(shell: &Shell, command: &str, rest: &[&str]) -> Option<String> {
    let (_, expected, _) = COMMANDS.iter().find(|c| c.0 == command)?;
    let context = shell.control.server.context();
    let done = match (command, rest) {
        ("chardev-add", [text]) => ChardevSpec::parse_chardev(text)
            .map_err(|e| e.to_string())
            .and_then(|(id, spec)| context.add_chardev(&id, spec).map(|_| ()).map_err(|e| e.text)),
        ("chardev-change", [id, text]) => ChardevSpec::parse_chardev(&format!("{text},id={id}"))
            .map_err(|e| e.to_string())
            .and_then(|(id, spec)| context.change_chardev(&id, spec).map(|_| ()).map_err(|e| e.text)),
        ("chardev-remove" | "chardev-send-break", [id]) => return Some(shell.act(command, json!({"id": id}))),
        _ => return Some(format!("{command}: expected {expected}\n")),
    };
    Some(done.err().map_or_else(String::new, |e| format!("Error: {e}\n")))
}
