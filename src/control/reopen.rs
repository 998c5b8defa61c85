//! Nodes whose options change while they are in use.

use super::{Context, images};
use rhea_block::{Node, NodeSettings};
use rhea_control::{Call, Error, Map, Value, json};
use std::sync::Arc;

type Result<T = Value> = std::result::Result<T, Error>;

/// What is to become of a node.
struct Change {
    node: Arc<Node>,
    readonly: bool,
    /// Another image below, or none; `None`: the one that is there.
    backing: Option<Option<Arc<Node>>>,
}

/// `blockdev-reopen`: all options of each node are given again, as to blockdev-add. Whether it is written to can change, and its backing file.
pub fn reopen(context: &Context, call: &mut Call<'_>) -> Result {
    let given = call.get("options").and_then(Value::as_array).cloned().unwrap_or_default();
    let changes = given.iter().map(|options| change(context, options)).collect::<Result<Vec<_>>>()?;
    let mut undo = Vec::new();
    for change in changes {
        undo.push(Change {
            node: change.node.clone(),
            readonly: change.node.settings().readonly,
            backing: change.backing.is_some().then(|| change.node.child("backing")),
        });
        if let Err(e) = apply(context, &change) {
            // They were like that a moment ago.
            undo.iter().rev().for_each(|before| drop(apply(context, before)));
            return Err(Error::new(e));
        }
    }
    Ok(json!({}))
}

fn change(context: &Context, options: &Value) -> Result<Change> {
    let empty = Map::new();
    let all = options.as_object().unwrap_or(&empty);
    let text = |key: &str| all.get(key).and_then(Value::as_str);
    let flag = |key: &str| all.get(key).and_then(Value::as_bool).unwrap_or(false);
    let name = text("node-name").ok_or_else(|| Error::new("node-name not specified"))?;
    let nodes = context.machine.block_nodes();
    let find = |name: &str| nodes.iter().find(|n| n.name() == name).cloned();
    let node = find(name).ok_or_else(|| Error::new(format!("Failed to find node with node-name='{name}'")))?;
    let fixed = |key: &str| Error::new(format!("Cannot change the option '{key}' of node '{name}'"));
    let now = node.settings();
    let cache = |key: &str| all.get("cache").and_then(|c| c[key].as_bool()).unwrap_or(false);
    for (key, value) in all {
        let same = match key.as_str() {
            "driver" => value == node.driver(),
            "filename" => value == node.filename(),
            "file" => node.child("file").is_some_and(|file| value == file.name()),
            "node-name" | "read-only" | "auto-read-only" | "force-share" | "backing" | "discard" | "detect-zeroes"
            | "cache" => true,
            _ => false,
        };
        if !same {
            return Err(fixed(key));
        }
    }
    // What is not given is what it is unless said otherwise.
    let wanted = NodeSettings {
        readonly: flag("read-only"),
        direct: cache("direct"),
        no_flush: cache("no-flush"),
        discard: matches!(text("discard"), Some("unmap" | "on")),
        detect_zeroes: now.detect_zeroes,
    };
    for (key, same) in [
        ("cache.direct", wanted.direct == now.direct),
        ("cache.no-flush", wanted.no_flush == now.no_flush),
        ("discard", wanted.discard == now.discard),
        ("detect-zeroes", text("detect-zeroes").unwrap_or("off") == now.detect_zeroes.word()),
    ] {
        if !same {
            return Err(fixed(key));
        }
    }
    context.jobs.unused(name)?;
    let mut readonly = wanted.readonly;
    if readonly != now.readonly && readonly && !images::drives_on(context, &node).is_empty() {
        if !flag("auto-read-only") {
            return Err(Error::new(format!("Block node is read-only: '{name}' is in use by a device that writes")));
        }
        readonly = false;
    }
    let below = node.child("backing");
    let backing = match all.get("backing") {
        Some(Value::Null) if below.is_some() => Some(None),
        Some(Value::String(other)) if below.as_ref().is_none_or(|b| b.name() != other) => {
            let other =
                find(other).ok_or_else(|| Error::new(format!("Cannot find device='' nor node-name='{other}'")))?;
            if other.contains(name) {
                return Err(Error::new(format!(
                    "Making '{}' a backing child of '{name}' would create a cycle",
                    other.name()
                )));
            }
            Some(Some(other))
        }
        Some(Value::Object(_)) => return Err(fixed("backing")),
        _ => None,
    };
    Ok(Change { node, readonly, backing })
}

/// While no drive on the node has requests under way.
fn apply(context: &Context, change: &Change) -> std::result::Result<(), String> {
    let now = || {
        if let Some(backing) = &change.backing {
            change.node.set_backing(backing.clone())?;
        }
        change.node.set_readonly(change.readonly)
    };
    match &images::drives_on(context, &change.node)[..] {
        [] => now(),
        [drive] => drive.exchange(|backend| now().map(|()| backend.clone())),
        _ => Err(format!("Node '{}' is in use by several drives", change.node.name())),
    }
}
