//! File descriptors that programs hand over.

use super::Context;
use parking_lot::Mutex;
use rhea_control::{Call, Commands, Error, Value, json};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// A descriptor, and what the program that gave it says about it.
type Member = (OwnedFd, Option<String>);

/// Sets of descriptors by number.
#[derive(Default)]
pub struct FdSets(Mutex<BTreeMap<i64, Vec<Member>>>);

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

fn add(context: &Context, call: &mut Call<'_>) -> Result {
    let fd = call.take_fd()?;
    let mut sets = context.fdsets.0.lock();
    let id = match call.number("fdset-id") {
        Some(id) if id < 0 => return Err(Error::new("Parameter 'fdset-id' expects a non-negative value")),
        Some(id) => id,
        None => (0..).find(|id| !sets.contains_key(id)).unwrap_or(0),
    };
    let number = fd.as_raw_fd();
    sets.entry(id).or_default().push((fd, call.text("opaque").map(str::to_owned)));
    Ok(json!({"fdset-id": id, "fd": number}))
}

fn remove(context: &Context, call: &mut Call<'_>) -> Result {
    let (id, fd) = (call.number("fdset-id").unwrap_or(-1), call.number("fd"));
    let mut sets = context.fdsets.0.lock();
    let missing = || match fd {
        Some(fd) => Error::new(format!("File descriptor named 'fdset-id:{id}, fd:{fd}' not found")),
        None => Error::new(format!("File descriptor named 'fdset-id:{id}' not found")),
    };
    let set = sets.get_mut(&id).ok_or_else(missing)?;
    let before = set.len();
    set.retain(|(have, _)| fd.is_some_and(|fd| fd != i64::from(have.as_raw_fd())));
    if set.len() == before {
        return Err(missing());
    }
    if set.is_empty() {
        sets.remove(&id);
    }
    Ok(json!({}))
}

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let sets = context.fdsets.0.lock();
    let one = |(fd, opaque): &Member| {
        let mut entry = json!({"fd": fd.as_raw_fd()});
        if let Some(opaque) = opaque {
            entry["opaque"] = json!(opaque);
        }
        entry
    };
    Ok(sets.iter().map(|(id, fds)| json!({"fdset-id": id, "fds": fds.iter().map(one).collect::<Vec<_>>()})).collect())
}
