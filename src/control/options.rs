//! The command line, as clients ask for it.

use super::Context;
use crate::cli;
use rhea_control::{Call, Commands, Error, Map, Value, json};
use rhea_device::chardev::ChardevSpec;
use rhea_device::{OptionDecl, OptionKind};

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-command-line-options", query)]);
}

/// Groups of properties that have another name than the option.
const GROUPS: &[(&str, &str)] = &[("smp", "smp-opts"), ("boot", "boot-opts"), ("m", "memory"), ("fw_cfg", "fw_cfg")];

/// The properties that the form of a value names, like `[cpus=]n[,threads=n]`.
fn properties(form: &str) -> Vec<Value> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut all: Vec<Value> = Vec::new();
    for (at, _) in form.match_indices('=') {
        let before = form[..at].trim_end_matches(word);
        let name = &form[before.len()..at];
        let after = form[at + 1..].trim_start_matches(']');
        let end = after.find([',', '[', ']']).unwrap_or(after.len());
        let kind = if &after[..end] == "on|off" { "boolean" } else { "string" };
        // Some stand for others.
        if !name.is_empty() && name != "prop" && !all.iter().any(|p| p["name"] == name) {
            all.push(json!({"name": name, "type": kind}));
        }
    }
    all
}

/// Properties that are declared.
fn declared<'a>(decls: impl Iterator<Item = &'a OptionDecl>) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for decl in decls.filter(|d| d.key != "help") {
        let kind = match decl.kind {
            OptionKind::Bool => "boolean",
            OptionKind::Number { .. } => "number",
            OptionKind::Size { .. } => "size",
            _ => "string",
        };
        if !all.iter().any(|p| p["name"] == decl.key) {
            all.push(json!({"name": decl.key, "type": kind, "help": decl.help}));
        }
    }
    json!(all)
}

fn query(context: &Context, call: &mut Call<'_>) -> Result<Value, Error> {
    let mut groups: Map<String, Value> = Map::new();
    for (name, form) in cli::forms() {
        let name = GROUPS.iter().find(|(option, _)| *option == name).map_or(name, |(_, group)| group);
        groups.insert(name.to_owned(), json!(properties(form)));
    }
    let machines = super::objects::machines(context.machine.architecture());
    groups.insert("machine".to_owned(), declared(machines.flat_map(|m| m.properties())));
    groups.insert("chardev".to_owned(), declared(ChardevSpec::properties()));
    let wanted = call.text("option");
    let chosen: Vec<Value> = groups
        .into_iter()
        .filter(|(name, _)| wanted.is_none_or(|w| w == name))
        .map(|(name, parameters)| json!({"option": name, "parameters": parameters}))
        .collect();
    match wanted {
        Some(name) if chosen.is_empty() => Err(Error::new(format!("Invalid parameter '{name}'"))),
        _ => Ok(json!(chosen)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let names = |form: &str| -> Vec<String> {
            properties(form).iter().map(|p| format!("{}:{}", p["name"], p["type"])).collect()
        };
        assert_eq!(names("[cpus=]n[,dies=n]"), ["\"cpus\":\"string\"", "\"dies\":\"string\""]);
        assert_eq!(
            names("file=f[,if=t][,readonly=on|off]..."),
            ["\"file\":\"string\"", "\"if\":\"string\"", "\"readonly\":\"boolean\""]
        );
        assert!(names("path").is_empty());
    }
}
