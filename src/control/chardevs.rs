//! Commands about character devices.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_device::chardev::{CharBackend, ChardevSpec, SocketAddress, SocketOptions, open};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("query-chardev", query),
        ("query-chardev-backends", backends),
        ("chardev-add", add),
        ("chardev-change", change),
        ("chardev-remove", remove),
        ("chardev-send-break", send_break),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let entry =
        |label: &str, filename: &str, used: bool| json!({"label": label, "filename": filename, "frontend-open": used});
    let named = context.chardevs.list().into_iter().map(|e| entry(&e.name, &e.description, e.used));
    let plain = context.consoles.iter().map(|(label, backend)| entry(label, &backend.description(), true));
    Ok(named.chain(plain).chain(context.controls.iter().map(|(label, place)| entry(label, place, true))).collect())
}

fn backends(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(ChardevSpec::KINDS.iter().map(|name| json!({"name": name})).collect())
}

/// What is to be opened; of a type that is checked.
fn spec(backend: &Value) -> Result<ChardevSpec> {
    let data = &backend["data"];
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    let flag = |key: &str| data[key].as_bool();
    Ok(match backend["type"].as_str() {
        Some("file") => ChardevSpec::File { path: text("out"), append: flag("append").unwrap_or(false) },
        Some("pipe") => ChardevSpec::Pipe(text("device")),
        Some("pty") => ChardevSpec::Pty,
        Some("socket") => {
            let part = |key: &str| data["addr"]["data"][key].as_str().unwrap_or_default();
            let address = match data["addr"]["type"].as_str() {
                Some("unix") => SocketAddress::Unix(part("path").to_owned()),
                _ => SocketAddress::Tcp(format!("{}:{}", part("host"), part("port"))),
            };
            if flag("wait") == Some(true) {
                return Err(Error::new("'wait': a monitor does not wait for clients: use false"));
            }
            ChardevSpec::Socket(SocketOptions {
                address,
                server: flag("server").unwrap_or(true),
                wait: false,
                telnet: flag("telnet").unwrap_or(false),
                nodelay: flag("nodelay").unwrap_or(false),
            })
        }
        _ => ChardevSpec::Null,
    })
}

/// Opens a back end: with what is told of it.
fn opened(id: &str, mut spec: ChardevSpec) -> std::result::Result<(Arc<dyn CharBackend>, Value), String> {
    match &mut spec {
        ChardevSpec::Stdio { .. } => return Err("stdio is there from the start: use another back end".to_owned()),
        // A monitor does not wait for clients.
        ChardevSpec::Socket(options) => options.wait = false,
        _ => {}
    }
    let backend = open(&format!("chardev '{id}'"), &spec).map_err(|e| e.to_string())?;
    let told = match backend.description().strip_prefix("pty:") {
        Some(path) => json!({"pty": path}),
        None => json!({}),
    };
    Ok((backend, told))
}

impl Context {
    /// Opens a back end for a device to come.
    ///
    /// # Errors
    /// The name is taken, or it cannot be opened.
    pub fn add_chardev(&self, id: &str, spec: ChardevSpec) -> Result {
        let good = id.starts_with(|c: char| c.is_ascii_alphabetic())
            && id.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !good {
            return Err(Error::new(format!("'{id}' is no id: letters, digits, '-', '.', '_', a letter first")));
        }
        if taken(self, id) || self.chardevs.get(id).is_some() {
            return Err(Error::new(format!("Chardev with id '{id}' already exists")));
        }
        let (backend, told) = opened(id, spec).map_err(Error::new)?;
        self.chardevs.add(id, backend, false).map_err(Error::new)?;
        Ok(told)
    }
    /// Puts another back end in the place of one.
    ///
    /// # Errors
    /// There is none, or the other one cannot be opened.
    pub fn change_chardev(&self, id: &str, spec: ChardevSpec) -> Result {
        self.chardevs.change(id, || opened(id, spec)).map_err(Error::new)
    }
}

fn add(context: &Context, call: &mut Call<'_>) -> Result {
    context.add_chardev(call.required("id"), spec(call.get("backend").unwrap_or(&Value::Null))?)
}

/// Is it the name of a serial port, or of a monitor?
fn taken(context: &Context, id: &str) -> bool {
    context.consoles.iter().any(|(name, _)| name == id) || context.controls.iter().any(|(name, _)| name == id)
}

fn change(context: &Context, call: &mut Call<'_>) -> Result {
    context.change_chardev(call.required("id"), spec(call.get("backend").unwrap_or(&Value::Null))?)
}

fn remove(context: &Context, call: &mut Call<'_>) -> Result {
    let id = call.required("id");
    if taken(context, id) && context.chardevs.get(id).is_none() {
        return Err(Error::new(format!("Chardev '{id}' is busy")));
    }
    context.chardevs.remove(id).map(|()| json!({})).map_err(Error::new)
}

fn send_break(context: &Context, call: &mut Call<'_>) -> Result {
    let id = call.required("id");
    if !context.chardevs.send_break(id) {
        return Err(Error::new(format!("Chardev '{id}' not found: none of -chardev has this id")));
    }
    Ok(json!({}))
}
