//! File descriptors that programs hand over.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_device::fdset;
use std::os::fd::AsRawFd;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("getfd", get),
        ("closefd", close),
        ("add-fd", add),
        ("remove-fd", remove),
        ("query-fdsets", query),
    ]);
}

type Result = std::result::Result<Value, Error>;

fn get(_: &Context, call: &mut Call<'_>) -> Result {
    let fd = call.take_fd()?;
    let name = call.required("fdname");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Error::new("Parameter 'fdname' expects a name not starting with a digit"));
    }
    call.named_fds().put(name, fd);
    Ok(json!({}))
}

fn close(_: &Context, call: &mut Call<'_>) -> Result {
    call.named_fds().take(call.required("fdname"))?;
    Ok(json!({}))
}

fn add(_: &Context, call: &mut Call<'_>) -> Result {
    let fd = call.take_fd()?;
    let set = call.number("fdset-id");
    if set.is_some_and(|id| id < 0) {
        return Err(Error::new("Parameter 'fdset-id' expects a non-negative value"));
    }
    let number = fd.as_raw_fd();
    let id = fdset::add(set, fd, call.text("opaque").map(str::to_owned));
    Ok(json!({"fdset-id": id, "fd": number}))
}

fn remove(_: &Context, call: &mut Call<'_>) -> Result {
    let (id, fd) = (call.number("fdset-id").unwrap_or(-1), call.number("fd"));
    if fdset::remove(id, fd) {
        return Ok(json!({}));
    }
    Err(Error::new(match fd {
        Some(fd) => format!("File descriptor named 'fdset-id:{id}, fd:{fd}' not found"),
        None => format!("File descriptor named 'fdset-id:{id}' not found"),
    }))
}

fn query(_: &Context, _: &mut Call<'_>) -> Result {
    let mut sets: Vec<Value> = Vec::new();
    for entry in fdset::list() {
        let mut fd = json!({"fd": entry.fd});
        if let Some(opaque) = entry.opaque {
            fd["opaque"] = json!(opaque);
        }
        match sets.last_mut().filter(|set| set["fdset-id"] == entry.set) {
            Some(Value::Object(set)) => {
                if let Some(Value::Array(fds)) = set.get_mut("fds") {
                    fds.push(fd);
                }
            }
            _ => sets.push(json!({"fdset-id": entry.set, "fds": [fd]})),
        }
    }
    Ok(Value::Array(sets))
}
