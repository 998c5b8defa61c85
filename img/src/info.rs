//! `info`

use crate::args::{Args, FORMAT, IMAGE_OPTS, OUTPUT, Opt, SHARE, Spec};
use crate::{Output, open, size};
use rhea_block::qcow2::header::{autoclear, compatible, incompatible};
use rhea_block::qcow2::{Qcow2, Snapshot};
use rhea_block::{Inherit, Kind, Node};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub const SPEC: Spec = Spec {
    about: "show what an image is",
    options: &[FORMAT, IMAGE_OPTS, SHARE, OUTPUT, Opt('b', &["backing-chain"], None, "show the images below as well")],
    operands: "FILE",
    count: (1, 1),
};

/// JSON with four spaces.
pub fn pretty(value: &Value) -> String {
    let mut text = String::new();
    for line in format!("{value:#}").lines() {
        let inner = line.trim_start_matches(' ');
        // Strings have no line breaks: what is before a line is its indentation.
        text.push_str(&" ".repeat((line.len() - inner.len()) * 2));
        text.push_str(inner);
        text.push('\n');
    }
    text
}

fn snapshot_json(s: &Snapshot) -> Value {
    let mut value = json!({
        "vm-clock-nsec": s.vm_clock_ns % 1_000_000_000,
        "name": s.name,
        "date-sec": s.seconds,
        "date-nsec": s.nanoseconds,
        "vm-clock-sec": s.vm_clock_ns / 1_000_000_000,
        "id": s.id,
        "vm-state-size": s.vm_state_size,
    });
    if let (Some(n), Value::Object(map)) = (s.icount, &mut value) {
        map.insert("icount".to_owned(), n.into());
    }
    value
}

/// What only this format has.
fn specific(image: &Qcow2) -> Value {
    let h = image.header();
    let mut map = Map::new();
    map.insert("compat".to_owned(), if h.version >= 3 { "1.1" } else { "0.10" }.into());
    map.insert("compression-type".to_owned(), h.compression.name().into());
    if h.version >= 3 {
        map.insert("lazy-refcounts".to_owned(), (h.compatible & compatible::LAZY_REFCOUNTS != 0).into());
    }
    if let Some(file) = &h.data_file {
        map.insert("data-file".to_owned(), file.as_str().into());
        map.insert("data-file-raw".to_owned(), (h.autoclear & autoclear::RAW_DATA_FILE != 0).into());
    }
    // A list that cannot be read is left out: 'check' tells why.
    let bitmaps = image.bitmaps().unwrap_or_default();
    if !bitmaps.is_empty() {
        let list: Vec<Value> = bitmaps
            .iter()
            .map(|b| json!({ "flags": b.flag_names(), "name": b.name, "granularity": b.granularity() }))
            .collect();
        map.insert("bitmaps".to_owned(), list.into());
    }
    map.insert("refcount-bits".to_owned(), (1u64 << h.refcount_order).into());
    if h.version >= 3 {
        map.insert("corrupt".to_owned(), (h.incompatible & incompatible::CORRUPT != 0).into());
        map.insert("extended-l2".to_owned(), h.extended_l2().into());
    }
    map.into()
}

/// The name of the file below, as it can be opened from here.
fn full_backing_name(node: &Node, backing: &str) -> String {
    match node.filename().rfind('/') {
        Some(at) if !backing.starts_with('/') && !backing.contains(':') => {
            format!("{}/{backing}", &node.filename()[..at])
        }
        _ => backing.to_owned(),
    }
}

/// One image, without those below.
pub fn describe(node: &Node) -> Value {
    let backend = node.backend();
    let mut map = Map::new();
    let children: Vec<Value> = node
        .children()
        .iter()
        .filter(|(role, _)| role != "backing")
        .map(|(role, child)| json!({ "name": role, "info": describe(child) }))
        .collect();
    map.insert("children".to_owned(), children.into());
    // Files are counted in whole sectors.
    map.insert("virtual-size".to_owned(), backend.capacity().next_multiple_of(512).into());
    map.insert("filename".to_owned(), node.filename().into());
    if backend.cluster_size() != 0 {
        map.insert("cluster-size".to_owned(), backend.cluster_size().into());
    }
    map.insert("format".to_owned(), node.driver().into());
    if let Some(n) = backend.allocated_size() {
        map.insert("actual-size".to_owned(), n.into());
    }
    let mut dirty = false;
    match node.kind() {
        Kind::Qcow2(image) => {
            let h = image.header();
            dirty = h.incompatible & incompatible::DIRTY != 0;
            if let Some(name) = &h.backing_file {
                map.insert("backing-filename".to_owned(), name.as_str().into());
                map.insert("full-backing-filename".to_owned(), full_backing_name(node, name).into());
            }
            if let Some(format) = &h.backing_format {
                map.insert("backing-filename-format".to_owned(), format.as_str().into());
            }
            let snapshots: Vec<Value> = image.snapshots().iter().map(snapshot_json).collect();
            if !snapshots.is_empty() {
                map.insert("snapshots".to_owned(), snapshots.into());
            }
            map.insert("format-specific".to_owned(), json!({ "type": "qcow2", "data": specific(image) }));
        }
        Kind::Vmdk(image) => {
            let data = json!({ "create-type": image.create_type() });
            map.insert("format-specific".to_owned(), json!({ "type": "vmdk", "data": data }));
        }
        Kind::File(_) => {
            map.insert("format-specific".to_owned(), json!({ "type": "file", "data": {} }));
        }
        _ => {}
    }
    map.insert("dirty-flag".to_owned(), dirty.into());
    map.into()
}

fn time_of(s: &Snapshot) -> String {
    let seconds = i64::from(s.seconds);
    let (year, month, day) = rhea_clock::calendar::date(seconds.div_euclid(86_400));
    let t = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", t / 3600, t / 60 % 60, t % 60)
}

/// The list of snapshots.
pub fn snapshots(list: &[Snapshot]) -> String {
    let mut text = "Snapshot list:\n".to_owned();
    text.push_str(&format!(
        "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}\n",
        "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"
    ));
    for s in list {
        let t = s.vm_clock_ns / 1_000_000_000;
        let clock = format!("{:04}:{:02}:{:02}.{:03}", t / 3600, t / 60 % 60, t % 60, s.vm_clock_ns / 1_000_000 % 1000);
        let icount = s.icount.map_or_else(|| "--".to_owned(), |n| n.to_string());
        text.push_str(&format!(
            "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}\n",
            s.id,
            s.name,
            size::human(s.vm_state_size),
            time_of(s)
        ));
    }
    text
}

/// Values of a format, indented.
fn lines(text: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.replace('-', " "), v)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(n, v)| (format!("[{n}]"), v)).collect(),
        _ => return,
    };
    for (key, v) in entries {
        match v {
            Value::Object(_) | Value::Array(_) => {
                text.push_str(&format!("{pad}{key}:\n"));
                lines(text, v, indent + 4);
            }
            Value::String(s) => text.push_str(&format!("{pad}{key}: {s}\n")),
            other => text.push_str(&format!("{pad}{key}: {other}\n")),
        }
    }
}

fn human(node: &Node) -> String {
    let backend = node.backend();
    let disk =
        |b: &dyn rhea_block::BlockBackend| b.allocated_size().map_or_else(|| "unavailable".to_owned(), size::human);
    let mut text = format!(
        "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n",
        node.filename(),
        node.driver(),
        size::human(backend.capacity()),
        backend.capacity(),
        disk(&*backend)
    );
    if backend.cluster_size() != 0 {
        text.push_str(&format!("cluster_size: {}\n", backend.cluster_size()));
    }
    if let Kind::Qcow2(image) = node.kind() {
        let h = image.header();
        if h.incompatible & incompatible::DIRTY != 0 {
            text.push_str("cleanly shut down: no\n");
        }
        if let Some(name) = &h.backing_file {
            let full = full_backing_name(node, name);
            let actual = if full == *name { String::new() } else { format!(" (actual path: {full})") };
            text.push_str(&format!("backing file: {name}{actual}\n"));
        }
        if let Some(format) = &h.backing_format {
            text.push_str(&format!("backing file format: {format}\n"));
        }
        let list = image.snapshots();
        if !list.is_empty() {
            text.push_str(&snapshots(&list));
        }
    }
    let described = describe(node);
    if let Some(data) = described.pointer("/format-specific/data")
        && !matches!(node.kind(), Kind::File(_))
    {
        text.push_str("Format specific information:\n");
        lines(&mut text, data, 4);
    }
    for (role, child) in node.children().iter().filter(|(role, _)| role != "backing") {
        let b = child.backend();
        text.push_str(&format!(
            "Child node '/{role}':\n    filename: {}\n    protocol type: {}\n    file length: {} ({} bytes)\n    disk size: {}\n",
            child.filename(),
            child.driver(),
            size::human(b.capacity().next_multiple_of(512)),
            b.capacity().next_multiple_of(512),
            disk(&*b)
        ));
    }
    text
}

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let as_json = args.json()?;
    let chain = args.flag('b');
    let inherit = Inherit { readonly: true, check: true, no_backing: !chain, ..Inherit::default() };
    let mut node: Option<Arc<Node>> = Some(open(args, &args.operands[0], args.value('f'), inherit)?);
    let mut list = Vec::new();
    let mut text = String::new();
    while let Some(n) = node {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&human(&n));
        list.push(describe(&n));
        node = n.child("backing").filter(|_| chain);
    }
    if as_json {
        text = pretty(&if chain { Value::Array(list) } else { list.swap_remove(0) });
    }
    output.print(&text);
    Ok(0)
}
