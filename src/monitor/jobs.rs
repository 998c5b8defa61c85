//! Work on images in use: in the background, by other programs.

use super::Shell;
use rhea_control::{Value, json};
use std::fmt::Write;

/// Commands: name, arguments, help.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("block_stream", "device [speed [base]]", "copy what is in backing files into the image of a drive"),
    ("block_job_set_speed", "device speed", "limit a job to so many bytes a second (0: no limit)"),
    ("block_job_cancel", "[-f] device", "end a job (-f: also one that is ready, without what is done at its end)"),
    ("block_job_complete", "device", "end a job that is ready"),
    ("block_job_pause", "device", "hold a job up"),
    ("block_job_resume", "device", "let a job go on"),
    ("block_resize", "device size", "change the size of an image (k, M, G, T; bytes)"),
    ("nbd_server_start", "host:port | unix:path", "start the NBD server"),
    ("nbd_server_add", "[-w] device [name]", "export an image by the NBD server (-w: to be written, too)"),
    ("nbd_server_remove", "[-f] name", "end an export (-f: with its connections)"),
    ("nbd_server_stop", "", "end the NBD server, its exports and connections"),
    ("snapshot_blkdev", "[-n] device file [format]", "put a new image over that of a drive (-n: the file is there)"),
];

/// Runs one of [`COMMANDS`]; `None`: it is none of those.
pub fn execute(shell: &Shell, command: &str, rest: &[&str]) -> Option<String> {
    let (_, expected, _) = COMMANDS.iter().find(|c| c.0 == command)?;
    let size = |text: &str| rhea_device::options::parse_size(text, 1);
    let request = match (command, rest) {
        ("block_stream", [device]) => Some(("block-stream", json!({"device": device}))),
        ("block_stream", [device, speed]) => {
            size(speed).map(|speed| ("block-stream", json!({"device": device, "speed": speed})))
        }
        ("block_stream", [device, speed, base]) => {
            size(speed).map(|speed| ("block-stream", json!({"device": device, "speed": speed, "base": base})))
        }
        ("block_job_set_speed", [device, speed]) => {
            size(speed).map(|speed| ("block-job-set-speed", json!({"device": device, "speed": speed})))
        }
        ("block_job_cancel", ["-f", device]) => Some(("block-job-cancel", json!({"device": device, "force": true}))),
        ("block_job_cancel", [device]) => Some(("block-job-cancel", json!({"device": device}))),
        ("block_job_complete", [device]) => Some(("block-job-complete", json!({"device": device}))),
        ("block_job_pause", [device]) => Some(("block-job-pause", json!({"device": device}))),
        ("block_job_resume", [device]) => Some(("block-job-resume", json!({"device": device}))),
        ("block_resize", [device, text]) => size(text).map(|n| ("block_resize", json!({"device": device, "size": n}))),
        ("nbd_server_start", [place]) => listen_at(place).map(|addr| ("nbd-server-start", json!({"addr": addr}))),
        ("nbd_server_add", ["-w", more @ ..]) => export(more, true),
        ("nbd_server_add", more) => export(more, false),
        ("nbd_server_remove", ["-f", name]) => Some(("nbd-server-remove", json!({"name": name, "mode": "hard"}))),
        ("nbd_server_remove", [name]) => Some(("nbd-server-remove", json!({"name": name}))),
        ("nbd_server_stop", []) => Some(("nbd-server-stop", Value::Null)),
        ("snapshot_blkdev", ["-n", more @ ..]) => snapshot(more, "existing"),
        ("snapshot_blkdev", more) => snapshot(more, "absolute-paths"),
        _ => None,
    };
    Some(match request {
        Some((name, arguments)) => shell.act(name, arguments),
        None => format!("{command}: expected {expected}\n"),
    })
}

/// An address as the control protocol has it.
fn listen_at(place: &str) -> Option<Value> {
    if let Some(path) = place.strip_prefix("unix:") {
        return Some(json!({"type": "unix", "data": {"path": path}}));
    }
    let (host, port) = place.rsplit_once(':')?;
    Some(json!({"type": "inet", "data": {"host": host, "port": port}}))
}

fn export(words: &[&str], writable: bool) -> Option<(&'static str, Value)> {
    match words {
        [device] => Some(("nbd-server-add", json!({"device": device, "writable": writable}))),
        [device, name] => Some(("nbd-server-add", json!({"device": device, "name": name, "writable": writable}))),
        _ => None,
    }
}

fn snapshot(words: &[&str], mode: &str) -> Option<(&'static str, Value)> {
    let (device, file, format) = match words {
        [device, file] => (device, file, "qcow2"),
        [device, file, format] => (device, file, *format),
        _ => return None,
    };
    let arguments = json!({"device": device, "snapshot-file": file, "format": format, "mode": mode});
    Some(("blockdev-snapshot-sync", arguments))
}

/// `info block-jobs`.
pub fn info(jobs: &[Value]) -> String {
    let mut text = String::new();
    for job in jobs {
        let part = |key: &str| job[key].as_str().unwrap_or_default();
        let number = |key: &str| job[key].as_u64().unwrap_or(0);
        let _ = writeln!(
            text,
            "Type {}, device {}: {}, completed {} of {} bytes, speed limit {} bytes/s",
            part("type"),
            part("device"),
            part("status"),
            number("offset"),
            number("len"),
            number("speed")
        );
    }
    if text.is_empty() {
        text.push_str("No active jobs\n");
    }
    text
}
