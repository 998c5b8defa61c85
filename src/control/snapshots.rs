//! Snapshots of the machine in the images of its disks, and the jobs that make, load and delete them.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_machine::Machine;
use rhea_machine::state::{SnapshotNodes, StateError};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("snapshot-save", save), ("snapshot-load", load), ("snapshot-delete", delete)]);
}

type Result<T = Value> = std::result::Result<T, Error>;
type Done<T = ()> = std::result::Result<T, StateError>;

/// Has the main loop do `work`, and waits for it.
fn in_main_loop<R: Send + 'static>(
    machine: &Arc<Machine>,
    work: impl FnOnce(&Machine) -> Done<R> + Send + 'static,
) -> std::result::Result<R, String> {
    let own = machine.clone();
    match machine.control().run(move || work(&own)) {
        Some(done) => done.map_err(|e| e.to_string()),
        None => Err("the emulator ends".to_owned()),
    }
}

/// Does `work` as a job.
fn start(
    context: &Context,
    call: &Call<'_>,
    kind: &'static str,
    work: impl FnOnce(&Machine, &str, &SnapshotNodes) -> Done + Send + 'static,
) -> Result {
    let names = call.get("devices").and_then(Value::as_array);
    let devices: Option<Vec<String>> =
        names.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let uses = devices.clone().unwrap_or_default();
    let nodes = SnapshotNodes { vmstate: call.text("vmstate").map(str::to_owned), devices };
    let (machine, tag) = (context.machine.clone(), call.required("tag").to_owned());
    let step = move || in_main_loop(&machine, move |machine| work(machine, &tag, &nodes));
    context.jobs.start_step(call.required("job-id"), kind, uses, step).map(|()| json!({}))
}

fn save(context: &Context, call: &mut Call<'_>) -> Result {
    start(context, call, "snapshot-save", |machine, tag, nodes| {
        machine.save_snapshot(Some(tag), false, nodes).map(|_| ())
    })
}

fn load(context: &Context, call: &mut Call<'_>) -> Result {
    start(context, call, "snapshot-load", |machine, tag, nodes| machine.load_snapshot(tag, nodes))
}

fn delete(context: &Context, call: &mut Call<'_>) -> Result {
    start(context, call, "snapshot-delete", |machine, tag, nodes| machine.delete_snapshot(tag, nodes))
}

/// `savevm`, `loadvm`, `delvm`, `info snapshots` of the human monitor: the answer.
pub fn human(machine: &Arc<Machine>, command: &str, name: Option<&str>) -> String {
    let tag = name.map(str::to_owned);
    let all = SnapshotNodes::default();
    let done = match (command, tag) {
        ("savevm", tag) => {
            in_main_loop(machine, move |m| m.save_snapshot(tag.as_deref(), true, &all).map(|_| String::new()))
        }
        ("loadvm", Some(tag)) => in_main_loop(machine, move |m| m.load_snapshot(&tag, &all).map(|()| String::new())),
        ("delvm", Some(tag)) => in_main_loop(machine, move |m| m.delete_snapshot(&tag, &all).map(|()| String::new())),
        ("snapshots", _) => in_main_loop(machine, move |m| {
            let list = m.snapshots(&all)?;
            Ok(match list.is_empty() {
                true => "There is no snapshot available.\n".to_owned(),
                false => {
                    let table = rhea_img::snapshot_table(&list);
                    table.replacen("Snapshot list:", "List of snapshots present on all disks:", 1)
                }
            })
        }),
        _ => return format!("{command}: expected the name of a snapshot ('info snapshots' lists them)\n"),
    };
    done.unwrap_or_else(|e| format!("Error: {e}\n"))
}
