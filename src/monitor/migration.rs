//! Moving the machine to another process.

use super::Shell;
use rhea_control::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Commands: name, arguments, help.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    (
        "migrate",
        "[-d] [-r] uri",
        "move the machine to tcp:H:P, unix:P, exec:C, file:P or fd:N (-d: do not wait, -r: resume)",
    ),
    ("migrate_cancel", "", "give a move up"),
    ("migrate_continue", "state", "go on with a move that waits in this state (pre-switchover)"),
    ("migrate_start_postcopy", "", "have the machine run at the destination at once (capability postcopy-ram)"),
    ("migrate_pause", "", "break the connection of a move in post-copy"),
    ("migrate_recover", "uri", "wait for a move in post-copy that was paused, to go on with it"),
    ("migrate_incoming", "uri", "wait for a machine, after -incoming defer"),
    ("migrate_set_parameter", "parameter value", "set a parameter of moves ('info migrate_parameters')"),
    ("migrate_set_capability", "capability on|off", "use a capability of moves, or not ('info migrate_capabilities')"),
];

/// Topics of `info`.
pub const TOPICS: &[(&str, &str)] = &[
    ("migrate", "show how far a move is"),
    ("migrate_parameters", "show the parameters of moves"),
    ("migrate_capabilities", "show the capabilities of moves"),
];

impl Shell {
    /// Runs one of [`COMMANDS`]; `None`: it is none of those.
    pub(super) fn move_machine(&self, command: &str, rest: &[&str]) -> Option<String> {
        Some(match (command, rest) {
            ("migrate", ["-d", "-r", uri @ ..] | ["-r", "-d", uri @ ..] | ["-r", uri @ ..]) if !uri.is_empty() => {
                self.act("migrate", json!({"uri": uri.join(" "), "resume": true}))
            }
            ("migrate", ["-d", uri @ ..]) if !uri.is_empty() => self.act("migrate", json!({"uri": uri.join(" ")})),
            ("migrate", uri) if !uri.is_empty() && !uri[0].starts_with('-') => {
                match self.call("migrate", json!({"uri": uri.join(" ")})) {
                    Ok(_) => self.wait_moved(),
                    Err(e) => e,
                }
            }
            ("migrate_cancel", []) => self.act("migrate_cancel", Value::Null),
            ("migrate_continue", [state]) => self.act("migrate-continue", json!({"state": state})),
            ("migrate_start_postcopy", []) => self.act("migrate-start-postcopy", Value::Null),
            ("migrate_pause", []) => self.act("migrate-pause", Value::Null),
            ("migrate_recover", uri) if !uri.is_empty() => self.act("migrate-recover", json!({"uri": uri.join(" ")})),
            ("migrate_incoming", uri) if !uri.is_empty() => self.act("migrate-incoming", json!({"uri": uri.join(" ")})),
            ("migrate_set_parameter", [name, value]) => {
                // In bytes a second, or mebibytes if nothing is said.
                let unit = if matches!(*name, "max-bandwidth" | "max-postcopy-bandwidth") { 1 << 20 } else { 1 };
                let value = rhea_device::options::parse_size(value, unit).map_or_else(|| json!(value), |n| json!(n));
                self.act("migrate-set-parameters", json!({*name: value}))
            }
            ("migrate_set_capability", [name, state @ ("on" | "off")]) => {
                let one = json!({"capability": name, "state": *state == "on"});
                self.act("migrate-set-capabilities", json!({"capabilities": [one]}))
            }
            _ => {
                let (_, arguments, _) = COMMANDS.iter().find(|(name, ..)| *name == command)?;
                format!("{command}: expected {}\n", if arguments.is_empty() { "nothing more" } else { arguments })
            }
        })
    }
    /// Waits for the end of a move: what became of it.
    fn wait_moved(&self) -> String {
        loop {
            let info = match self.call("query-migrate", Value::Null) {
                Ok(info) => info,
                Err(e) => return e,
            };
            match info["status"].as_str() {
                Some("setup" | "active" | "pre-switchover" | "device" | "cancelling" | "postcopy-active") => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                Some("completed") => return String::new(),
                status => {
                    let why = info["error-desc"].as_str().or(status).unwrap_or("it ended");
                    return format!("Error: migration: {why}\n");
                }
            }
        }
    }
    /// The text of one of [`TOPICS`].
    pub(super) fn move_info(&self, topic: &str) -> Option<String> {
        let query = match topic {
            "migrate" => "query-migrate",
            "migrate_parameters" => "query-migrate-parameters",
            "migrate_capabilities" => "query-migrate-capabilities",
            _ => return None,
        };
        let mut text = String::new();
        match self.call(query, Value::Null) {
            Ok(Value::Array(all)) => {
                for c in all {
                    let state = if c["state"] == true { "on" } else { "off" };
                    let _ = writeln!(text, "{}: {state}", c["capability"].as_str().unwrap_or_default());
                }
            }
            Ok(value) => lines(&mut text, "", &value),
            Err(e) => return Some(e),
        }
        Some(text)
    }
}

/// Members of an object, one to a line.
fn lines(text: &mut String, prefix: &str, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => lines(text, &format!("{prefix}{key} "), value),
            Value::String(word) => {
                let _ = writeln!(text, "{prefix}{key}: {word}");
            }
            other => {
                let _ = writeln!(text, "{prefix}{key}: {other}");
            }
        }
    }
}
