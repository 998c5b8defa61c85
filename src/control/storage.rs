//! Commands about storage.

use super::Context;
use super::objects::BACKEND;
use rhea_block::{
    BlockBackend, CacheMode, Drive, FailureAction, IoStatus, Node, NodeOptions, Throttle, ThrottleLimits,
};
use rhea_control::{Call, Commands, Error, Events, Map, Value, json};
use rhea_device::OptionError;
use rhea_machine::Machine;
use rhea_machine::inventory::{DeviceEntry, Inventory, Tray};
use rhea_storage::TrayError;
use std::path::Path;
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("query-block", block),
        ("query-named-block-nodes", nodes),
        ("query-blockstats", statistics),
        ("block_set_io_throttle", set_throttle),
        ("eject", eject),
        ("blockdev-open-tray", open_tray),
        ("blockdev-close-tray", close_tray),
        ("blockdev-remove-medium", remove_medium),
        ("blockdev-change-medium", change_medium),
        ("blockdev-insert-medium", insert_medium),
        ("block_resize", resize),
        ("blockdev-add", add_node),
        ("blockdev-reopen", super::reopen::reopen),
        ("blockdev-del", remove_node),
        ("x-blockdev-change", change_children),
    ]);
}

/// Tells of trays that move.
pub fn send_events(machine: &Machine, events: &Arc<Events>) {
    let inventory = machine.inventory();
    if let Ok(graph) = machine.block_graph() {
        let (events, inventory) = (events.clone(), Arc::downgrade(inventory));
        graph.failures().listen(move |failure| {
            let Some(inventory) = inventory.upgrade() else { return };
            let drive = inventory.drives().into_iter().find(|d| d.id() == failure.drive);
            let device = inventory.devices().into_iter().find(|d| d.spec.value("drive") == Some(&failure.drive));
            let mut data = json!({
                "device": drive.as_deref().map_or("", name),
                "qom-path": device.map_or_else(String::new, |d| match qdev(&d) {
                    path if path.starts_with('/') => path,
                    _ => d.path(),
                }),
                "operation": if failure.write { "write" } else { "read" },
                "action": failure.action.word(),
                "reason": failure.reason,
            });
            if let Some(node) = &failure.node {
                data["node-name"] = json!(node);
            }
            if failure.action == FailureAction::Stop {
                data["nospace"] = json!(failure.no_space);
            }
            events.emit("BLOCK_IO_ERROR", data);
        });
    }
    for tray in inventory.trays() {
        let events = events.clone();
        let id = tray_device(inventory, &tray).map(|d| qdev(&d)).unwrap_or_default();
        let device = tray.name;
        tray.cd.on_tray_moved(move |open| {
            events.emit("DEVICE_TRAY_MOVED", json!({"device": device, "id": id, "tray-open": open}));
        });
    }
}

/// The device with a tray.
fn tray_device(inventory: &Inventory, tray: &Tray) -> Option<DeviceEntry> {
    let of_drive = |d: &DeviceEntry| !tray.name.is_empty() && d.spec.value("drive") == Some(&tray.name);
    let mut devices = inventory.devices().into_iter();
    devices.find(|d| of_drive(d) || tray.device.is_some() && d.id() == tray.device.as_deref())
}

/// How clients are told of the device that a drive is at: by its id; virtio devices are objects without one in those of the transport.
fn qdev(device: &DeviceEntry) -> String {
    match device.id() {
        _ if device.spec.driver.starts_with("virtio-blk") => format!("{}/{BACKEND}", device.path()),
        Some(id) => id.to_owned(),
        None => device.path(),
    }
}

/// Is it the device that `name` (an id or a path) means?
fn is_named(device: &DeviceEntry, name: &str) -> bool {
    let path = name.strip_suffix(BACKEND).and_then(|n| n.strip_suffix('/')).unwrap_or(name);
    device.id() == Some(name) || device.path() == path
}

type Result = std::result::Result<Value, Error>;

/// Backing files below a node.
fn depth(node: &Node) -> u64 {
    node.child("backing").map_or(0, |below| 1 + depth(&below))
}

fn image(filename: &str, format: &str, backend: &Arc<dyn BlockBackend>) -> Value {
    let mut image = json!({"filename": filename, "format": format, "virtual-size": backend.capacity()});
    if let Some(size) = backend.allocated_size() {
        image["actual-size"] = json!(size);
    }
    if backend.cluster_size() != 0 {
        image["cluster-size"] = json!(backend.cluster_size());
    }
    image
}

/// The chain of images from a node down.
fn chain(node: &Node) -> Value {
    let mut entry = image(node.filename(), node.driver(), &node.backend());
    if let Some(below) = node.child("backing") {
        entry["backing-filename"] = json!(below.filename());
        entry["backing-image"] = chain(&below);
    }
    entry
}

/// The limits of a drive, as they are named in replies.
fn limits(drive: Option<&Drive>) -> ThrottleLimits {
    drive.and_then(Drive::throttle).map(|t| t.limits()).unwrap_or_default()
}

/// A node, or a drive that is of no graph.
fn about(node: Option<&Node>, drive: Option<&Drive>) -> Value {
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    match (node, drive) {
        (Some(node), _) => {
            let settings = node.settings();
            put("file", json!(node.filename()));
            put("node-name", json!(node.name()));
            put("ro", json!(drive.map_or(settings.readonly, Drive::readonly)));
            put("drv", json!(node.driver()));
            let zeroes = drive.map_or(settings.detect_zeroes, Drive::detect_zeroes);
            put("detect_zeroes", json!(zeroes.word()));
            let writeback = drive.is_none_or(|d| d.cache().write_cache());
            put("cache", json!({"writeback": writeback, "direct": settings.direct, "no-flush": settings.no_flush}));
            put("image", chain(node));
            put("backing_file_depth", json!(depth(node)));
            if let Some(below) = node.child("backing") {
                put("backing_file", json!(below.filename()));
            }
            let bitmaps = node.dirty_bitmaps().list();
            if !bitmaps.is_empty() {
                put("dirty-bitmaps", bitmaps.iter().map(|b| super::bitmaps::about(b)).collect());
            }
        }
        (None, Some(drive)) => {
            let (name, cache) = (drive.backend().description(), drive.cache());
            put("file", json!(name));
            put("ro", json!(drive.readonly()));
            put("drv", json!("raw"));
            put("detect_zeroes", json!(drive.detect_zeroes().word()));
            let direct = matches!(cache, CacheMode::None | CacheMode::DirectSync);
            let no_flush = cache == CacheMode::Unsafe;
            put("cache", json!({"writeback": cache.write_cache(), "direct": direct, "no-flush": no_flush}));
            put("image", image(&name, "raw", &drive.backend()));
            put("backing_file_depth", json!(0));
        }
        (None, None) => {}
    }
    put("encrypted", json!(false));
    put("write_threshold", json!(0));
    for (name, value) in THROTTLE.iter().zip(values(&limits(drive))) {
        let short = name.ends_with("_max");
        if !short || value != 0 {
            put(name, json!(value));
        }
    }
    Value::Object(entry)
}

/// How clients are told of the device that uses a drive.
fn device(context: &Context, drive: &Drive) -> Option<String> {
    let devices = context.machine.inventory().devices();
    devices.iter().find(|d| d.spec.value("drive") == Some(drive.id())).map(qdev)
}

/// The name of a drive; what is made of a node for a device has none of its own.
fn name(drive: &Drive) -> &str {
    if drive.is_anonymous() { "" } else { drive.id() }
}

fn io_status(drive: &Drive) -> &'static str {
    match drive.io_status() {
        IoStatus::Ok => "ok",
        IoStatus::Failed => "failed",
        IoStatus::NoSpace => "nospace",
    }
}

fn block(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |drive: &Drive| {
        let mut entry = json!({
            "device": name(drive),
            "type": "unknown",
            "removable": false,
            "locked": false,
            "inserted": about(drive.node().as_deref(), Some(drive)),
            "io-status": io_status(drive),
        });
        if let Some(path) = device(context, drive) {
            entry["qdev"] = json!(path);
        }
        entry
    };
    let inventory = context.machine.inventory();
    let tray = |tray: &Tray| {
        let (open, locked) = tray.cd.tray();
        let mut entry =
            json!({"device": tray.name, "type": "unknown", "removable": true, "locked": locked, "tray_open": open});
        if let Some(drive) = tray.cd.medium() {
            entry["inserted"] = about(drive.node().as_deref(), Some(&drive));
            entry["io-status"] = json!(io_status(&drive));
        }
        if let Some(device) = tray_device(inventory, tray) {
            entry["qdev"] = json!(qdev(&device));
        }
        entry
    };
    let fixed = inventory.fixed_drives();
    Ok(fixed.iter().map(|d| one(d)).chain(inventory.trays().iter().map(tray)).collect())
}

/// Adds a node and those below it, each once.
fn collect(node: &Node, drive: Option<&Drive>, all: &mut Vec<Value>) {
    if !all.iter().any(|n| n["node-name"] == node.name()) {
        all.push(about(Some(node), drive));
        node.children().iter().for_each(|(_, below)| collect(below, None, all));
    }
}

fn nodes(context: &Context, call: &mut Call<'_>) -> Result {
    let mut all = Vec::new();
    for drive in context.machine.inventory().drives() {
        if let Some(node) = drive.node() {
            collect(&node, Some(&drive), &mut all);
        }
    }
    for node in context.machine.block_nodes() {
        collect(&node, None, &mut all);
    }
    if call.flag("flat") {
        for image in all.iter_mut().filter_map(|n| n["image"].as_object_mut()) {
            image.remove("backing-image");
        }
    }
    Ok(json!(all))
}

fn statistics(context: &Context, call: &mut Call<'_>) -> Result {
    let nodes = call.flag("query-nodes");
    let one = |drive: &Drive| {
        let [reads, read_bytes, writes, written] = drive.statistics();
        let [flushes, discards] = drive.flushes_and_discards();
        let mut entry = json!({"stats": {
            "rd_bytes": read_bytes, "wr_bytes": written, "rd_operations": reads, "wr_operations": writes,
            "flush_operations": flushes, "unmap_operations": discards,
        }});
        if let Some(node) = drive.node() {
            entry["node-name"] = json!(node.name());
        }
        if !nodes {
            entry["device"] = json!(name(drive));
            if let Some(path) = device(context, drive) {
                entry["qdev"] = json!(path);
            }
        }
        entry
    };
    Ok(context.machine.inventory().drives().iter().map(|d| one(d)).collect())
}

/// The drive of this name, or that of a device.
pub fn drive(context: &Context, name: &str) -> Option<Arc<Drive>> {
    let inventory = context.machine.inventory();
    let devices = inventory.devices();
    let of_device = devices.iter().find(|d| is_named(d, name)).and_then(|d| d.spec.value("drive"));
    let drives = inventory.drives();
    drives.into_iter().find(|d| d.id() == name && !d.is_anonymous() || Some(d.id()) == of_device)
}

/// The limits as commands name them, in the order of [`values`].
const THROTTLE: [&str; 12] = [
    "bps",
    "bps_rd",
    "bps_wr",
    "iops",
    "iops_rd",
    "iops_wr",
    "bps_max",
    "bps_rd_max",
    "bps_wr_max",
    "iops_max",
    "iops_rd_max",
    "iops_wr_max",
];

/// What a drive is limited to; 0: nothing.
fn values(limits: &ThrottleLimits) -> impl Iterator<Item = u64> {
    limits.limits.iter().map(|l| l.average).chain(limits.limits.iter().map(|l| l.burst))
}

/// The drive that `id` (of its device) or `device` (of its own) names.
fn named(context: &Context, call: &Call<'_>) -> std::result::Result<Arc<Drive>, Error> {
    let inventory = context.machine.inventory();
    let (id, name) = match (call.text("id"), call.text("device")) {
        (Some(id), None) => {
            let devices = inventory.devices();
            let device = devices.iter().find(|d| is_named(d, id));
            (id, device.and_then(|d| d.spec.value("drive")).map(str::to_owned))
        }
        (None, Some(device)) => (device, Some(device.to_owned())),
        _ => return Err(Error::new("Need exactly one of 'device' and 'id'")),
    };
    let drive = name.and_then(|name| inventory.drives().into_iter().find(|d| d.id() == name));
    drive.ok_or_else(|| Error::no_device(id))
}

fn set_throttle(context: &Context, call: &mut Call<'_>) -> Result {
    let drive = named(context, call)?;
    let mut given = call.arguments().clone();
    given.retain(|key, _| !matches!(key.as_str(), "id" | "device"));
    // Lengths of bursts without a burst, and limits of 0, are the same as none.
    given.retain(|_, value| value.as_u64() != Some(0));
    let mut options = NodeOptions::from_json(Value::Object(given)).map_err(Error::new)?;
    let limits = ThrottleLimits::take(&mut options, true).map_err(Error::new)?;
    drive.set_throttle(limits.any().then(|| Arc::new(Throttle::new(limits))));
    Ok(json!({}))
}

/// The tray that `id` (of the device) or `device` (of the drive) names.
fn named_tray(context: &Context, call: &Call<'_>) -> std::result::Result<Tray, Error> {
    let inventory = context.machine.inventory();
    let trays = inventory.trays();
    let (name, found) = match (call.text("id"), call.text("device")) {
        (Some(id), None) => {
            let named = |t: &Tray| tray_device(inventory, t).is_some_and(|d| is_named(&d, id));
            (id, trays.into_iter().find(|t| t.device.as_deref() == Some(id) || named(t)))
        }
        (None, Some(device)) => (device, trays.into_iter().find(|t| !device.is_empty() && t.name == device)),
        _ => return Err(Error::new("Need exactly one of 'device' and 'id'")),
    };
    let fixed = || named(context, call).is_ok();
    found.ok_or_else(|| match fixed() {
        true => Error::new(format!("Device '{name}' is not removable")),
        false => Error::no_device(name),
    })
}

fn moved(name: &str, done: std::result::Result<(), TrayError>) -> Result {
    done.map(|()| json!({})).map_err(|e| Error::new(format!("Device '{name}': {e}")))
}

fn eject(context: &Context, call: &mut Call<'_>) -> Result {
    let tray = named_tray(context, call)?;
    moved(&tray.name, tray.cd.eject(call.flag("force")).map(|_| ()))
}

fn open_tray(context: &Context, call: &mut Call<'_>) -> Result {
    let tray = named_tray(context, call)?;
    moved(&tray.name, tray.cd.open_tray(call.flag("force")))
}

fn close_tray(context: &Context, call: &mut Call<'_>) -> Result {
    named_tray(context, call)?.cd.close_tray();
    Ok(json!({}))
}

fn remove_medium(context: &Context, call: &mut Call<'_>) -> Result {
    let tray = named_tray(context, call)?;
    moved(&tray.name, tray.cd.take_medium().map(|_| ()))
}

/// What went wrong, without the command's name.
fn done(result: std::result::Result<(), OptionError>) -> Result {
    result.map(|()| json!({})).map_err(|e| Error::new(e.message))
}

fn resize(context: &Context, call: &mut Call<'_>) -> Result {
    let name = match (call.text("node-name"), call.text("device")) {
        (Some(name), None) | (None, Some(name)) => name,
        _ => return Err(Error::new("Need exactly one of 'device' and 'node-name'")),
    };
    let node = super::images::node(context, name)?;
    let size = call.number("size").and_then(|n| u64::try_from(n).ok());
    let size = size.ok_or_else(|| Error::new("Parameter 'size' expects a >0 size"))?;
    if !size.is_multiple_of(rhea_block::SECTOR) {
        return Err(Error::new("Parameter 'size' expects a multiple of 512"));
    }
    context.jobs.unused(node.name())?;
    super::images::may_write(&node)?;
    let drives = super::images::drives_on(context, &node);
    match &drives[..] {
        [] => node.backend().resize(size)?,
        [drive] => drive.resize(size)?,
        _ => return Err(Error::new(format!("Node '{}' is in use by several drives", node.name()))),
    }
    Ok(json!({}))
}

fn add_node(context: &Context, call: &mut Call<'_>) -> Result {
    let options = NodeOptions::from_json(Value::Object(call.arguments().clone())).map_err(Error::new)?;
    done(context.machine.blockdev_add(options))
}

fn remove_node(context: &Context, call: &mut Call<'_>) -> Result {
    done(context.machine.blockdev_del(call.required("node-name")))
}

/// Only quorums have children that come and go, and there are none: it says what is wrong with the request, and refuses what is not.
fn change_children(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("parent");
    let nodes = context.machine.block_nodes();
    let node = |name: &str| nodes.iter().find(|n| n.name() == name).cloned();
    let of_drive = || context.machine.inventory().drives().iter().find(|d| d.id() == name).and_then(|d| d.node());
    let Some(parent) = node(name).or_else(of_drive) else {
        return Err(Error::new(format!("Cannot find device='{name}' nor node-name='{name}'")));
    };
    Err(Error::new(match (call.text("child"), call.text("node")) {
        (Some(_), Some(_)) => "The parameters child and node are in conflict".to_owned(),
        (None, None) => "Either child or node must be specified".to_owned(),
        (Some(child), None) if parent.child(child).is_none() => format!("Node '{name}' does not have child '{child}'"),
        (Some(_), None) => format!("The node {name} does not support removing a child"),
        (None, Some(new)) if node(new).is_none() => format!("Node '{new}' not found"),
        (None, Some(_)) => format!("The node {name} does not support adding a child"),
    }))
}

fn insert_medium(context: &Context, call: &mut Call<'_>) -> Result {
    let tray = named_tray(context, call)?;
    let medium = context.machine.node_medium(call.required("node-name")).map_err(|e| Error::new(e.message))?;
    moved(call.required("id"), tray.cd.insert_medium(medium))
}

fn change_medium(context: &Context, call: &mut Call<'_>) -> Result {
    let tray = named_tray(context, call)?;
    if call.text("read-only-mode") == Some("read-write") {
        return Err(Error::new(format!("Device '{}': a CD cannot be written", tray.name)));
    }
    let file = Path::new(call.text("filename").unwrap_or_default());
    let name = if tray.name.is_empty() { tray.device.as_deref().unwrap_or("cd") } else { &tray.name };
    let medium = context.machine.open_medium(name, file, call.text("format"), true);
    let medium = medium.map_err(|e| Error::new(e.to_string()))?;
    moved(name, tray.cd.load_medium(Some(medium), call.flag("force")))
}
