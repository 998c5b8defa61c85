//! Nodes for other programs, by NBD.

use super::{Context, images};
use parking_lot::Mutex;
use rhea_block::handover;
use rhea_block::nbd::{Address, Export, Exported, NbdServer};
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_machine::machine::RunState;
use std::path::PathBuf;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("nbd-server-start", start),
        ("nbd-server-stop", stop),
        ("nbd-server-add", add_by_name),
        ("nbd-server-remove", remove_by_name),
        ("block-export-add", add),
        ("block-export-del", remove),
        ("query-block-exports", query),
    ]);
}

/// The server, once it was started, and what it serves.
#[derive(Default)]
pub struct Exports(Mutex<Served>);

#[derive(Default)]
struct Served {
    server: Option<NbdServer>,
    all: Vec<Entry>,
}

struct Entry {
    id: String,
    node: String,
    /// What clients call it.
    name: String,
}

impl Served {
    fn server(&self) -> Result<&NbdServer> {
        self.server.as_ref().ok_or_else(|| Error::new("NBD server not running"))
    }
}

type Result<T = Value> = std::result::Result<T, Error>;

/// Connections at once unless something else is said.
const LIMIT: u64 = 100;

/// A place to listen at.
fn address(value: Option<&Value>) -> Result<Address> {
    let part = |key: &str| value.and_then(|v| v["data"][key].as_str()).unwrap_or_default();
    if value.is_some_and(|v| v["type"] == "unix") {
        return Ok(Address::Unix(PathBuf::from(part("path"))));
    }
    let port = part("port").parse().map_err(|_| Error::new(format!("'{}' is no port: 0 to 65535", part("port"))))?;
    Ok(Address::Tcp(part("host").to_owned(), port))
}

fn start(context: &Context, call: &mut Call<'_>) -> Result {
    let mut served = context.exports.0.lock();
    if served.server.is_some() {
        return Err(Error::new("NBD server already running"));
    }
    let limit = call.unsigned("max-connections").unwrap_or(LIMIT) as usize;
    served.server = Some(NbdServer::listen(&address(call.get("addr"))?, limit, |_| ()).map_err(Error::new)?);
    Ok(json!({}))
}

fn stop(context: &Context, _: &mut Call<'_>) -> Result {
    let (server, all) = {
        let mut served = context.exports.0.lock();
        served.server()?;
        (served.server.take(), std::mem::take(&mut served.all))
    };
    drop(server);
    for entry in all {
        deleted(context, &entry.id);
    }
    Ok(json!({}))
}

fn deleted(context: &Context, id: &str) {
    context.events.emit("BLOCK_EXPORT_DELETED", json!({"id": id}));
}

/// What is to be exported, and how.
struct Wanted<'a> {
    id: &'a str,
    node: &'a str,
    name: Option<&'a str>,
    description: &'a str,
    writable: bool,
}

fn export(context: &Context, wanted: &Wanted<'_>) -> Result {
    let node = images::node(context, wanted.node)?;
    let drives = images::drives_on(context, &node);
    if wanted.writable {
        images::may_write(&node)?;
        // A guest whose state is yet to come does not use its disks.
        let waits = context.machine.run_state() == RunState::InMigrate;
        let above =
            context.machine.block_nodes().into_iter().find(|n| n.name() != node.name() && n.contains(node.name()));
        if !drives.is_empty() && !waits || above.is_some() {
            return Err(Error::new(format!(
                "Node '{}' is busy: it is in use, and exported for reading only",
                node.name()
            )));
        }
        if waits {
            // Its content comes this way: it is no other process's.
            handover::take(std::slice::from_ref(&node)).map_err(Error::new)?;
        }
    }
    let mut served = context.exports.0.lock();
    if served.all.iter().any(|e| e.id == wanted.id) {
        return Err(Error::new(format!("Block export id '{}' is already in use", wanted.id)));
    }
    let name = wanted.name.unwrap_or(wanted.node).to_owned();
    let export = Export {
        name: name.clone(),
        description: wanted.description.to_owned(),
        backend: Exported::new(node.clone(), drives.first().cloned()),
        readonly: !wanted.writable,
    };
    served.server()?.add(export).map_err(Error::new)?;
    served.all.push(Entry { id: wanted.id.to_owned(), node: node.name().to_owned(), name });
    Ok(json!({}))
}

fn add(context: &Context, call: &mut Call<'_>) -> Result {
    let wanted = Wanted {
        id: call.required("id"),
        node: call.required("node-name"),
        name: call.text("name"),
        description: call.text("description").unwrap_or_default(),
        writable: call.flag("writable"),
    };
    export(context, &wanted)
}

fn add_by_name(context: &Context, call: &mut Call<'_>) -> Result {
    let device = call.required("device");
    let name = call.text("name").unwrap_or(device);
    // Unlike block-export-add, what cannot be written is exported for reading.
    let writable = call.flag("writable") && images::may_write(&*images::node(context, device)?).is_ok();
    let description = call.text("description").unwrap_or_default();
    export(context, &Wanted { id: name, node: device, name: Some(name), description, writable })
}

/// Ends the export that `is` finds.
fn end(context: &Context, call: &Call<'_>, is: impl Fn(&Entry) -> bool, missing: String) -> Result {
    let id = {
        let mut served = context.exports.0.lock();
        let at = served.all.iter().position(is).ok_or_else(|| Error::new(missing))?;
        served.server()?.remove(&served.all[at].name, call.text("mode") == Some("hard")).map_err(Error::new)?;
        served.all.remove(at).id
    };
    deleted(context, &id);
    Ok(json!({}))
}

fn remove(context: &Context, call: &mut Call<'_>) -> Result {
    let id = call.required("id");
    end(context, call, |e| e.id == id, format!("Export '{id}' is not found"))
}

fn remove_by_name(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("name");
    end(context, call, |e| e.name == name, format!("Export '{name}' is not found"))
}

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |e: &Entry| json!({"id": e.id, "type": "nbd", "node-name": e.node, "shutting-down": false});
    Ok(context.exports.0.lock().all.iter().map(one).collect())
}
