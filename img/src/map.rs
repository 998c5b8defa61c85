//! `map`

use crate::args::{Args, FORMAT, IMAGE_OPTS, OUTPUT, Opt, SHARE, Spec};
use crate::{Output, host, open, size};
use rhea_block::image::{MapEntry, map};
use rhea_block::{Inherit, Node};
use std::sync::Arc;

pub const SPEC: Spec = Spec {
    about: "show where the content of an image is",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        SHARE,
        OUTPUT,
        Opt('s', &["start-offset"], Some("OFFSET"), "begin there"),
        Opt('l', &["max-length"], Some("LENGTH"), "show so much"),
    ],
    operands: "FILE",
    count: (1, 1),
};

/// The file with the data of the image `depth` below.
fn file_of(node: &Arc<Node>, depth: u32) -> Option<String> {
    let mut node = node.clone();
    for _ in 0..depth {
        node = node.child("backing")?;
    }
    Some(node.child("data-file").unwrap_or_else(|| node.clone()).filename().to_owned())
}

/// As C prints it.
fn hex(n: u64) -> String {
    if n == 0 { "0".to_owned() } else { format!("{n:#x}") }
}

fn json(e: &MapEntry) -> String {
    let offset = e.offset.map(|o| format!(", \"offset\": {o}")).unwrap_or_default();
    format!(
        "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}, \"compressed\": {}{offset}}}",
        e.start, e.length, e.depth, e.present, e.zero, e.data, e.compressed
    )
}

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let as_json = args.json()?;
    let node = open(args, &args.operands[0], args.value('f'), Inherit { readonly: true, ..Inherit::default() })?;
    let image = node.backend();
    let mut at = args.value('s').map(size::parse).transpose()?.unwrap_or(0);
    let len = args.value('l').map(size::parse).transpose()?.unwrap_or(u64::MAX);
    let end = image.capacity().min(at.saturating_add(len));
    let mut list: Vec<MapEntry> = Vec::new();
    while at < end {
        let e = map(&*image, at, end - at).map_err(|e| host(&e))?;
        at += e.length;
        let joins = |last: &MapEntry| {
            let follows = match (last.offset, e.offset) {
                (Some(a), Some(b)) => a + last.length == b,
                (None, None) => true,
                _ => false,
            };
            (last.depth, last.zero, last.data, last.compressed, last.present)
                == (e.depth, e.zero, e.data, e.compressed, e.present)
                && follows
        };
        match list.last_mut() {
            Some(last) if joins(last) => last.length += e.length,
            _ => list.push(e),
        }
    }
    if as_json {
        let lines: Vec<String> = list.iter().map(json).collect();
        output.print(&format!("[{}]\n", lines.join(",\n")));
        return Ok(0);
    }
    output.print(&format!("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"));
    for e in list.iter().filter(|e| e.data) {
        let Some(offset) = e.offset else {
            return Err("the image has data that is compressed, which only --output=json can show".to_owned());
        };
        output.print(&format!(
            "{:<16}{:<16}{:<16}{}\n",
            hex(e.start),
            hex(e.length),
            hex(offset),
            file_of(&node, e.depth).unwrap_or_default()
        ));
    }
    Ok(0)
}
