//! Commands about processors.

use super::Context;
use super::life::target;
use crossbeam_channel::bounded;
use rhea_control::{Call, Commands, Error, Map, Value, json};
use rhea_machine::Machine;
use rhea_machine::machine::Architecture;
use std::time::Duration;

pub fn register(commands: &mut Commands<Context>, _: &Machine) {
    commands.add(&[
        ("query-cpus-fast", fast),
        ("query-hotpluggable-cpus", hotpluggable),
        ("query-cpu-definitions", definitions),
        ("query-iothreads", iothreads),
    ]);
}

type Result = std::result::Result<Value, Error>;

/// Checks the number of a CPU.
pub fn index(context: &Context, index: i64) -> std::result::Result<usize, Error> {
    let fits = usize::try_from(index).ok().filter(|n| *n < context.machine.cpus().len());
    fits.ok_or_else(|| Error::new("Parameter 'cpu-index' expects a CPU number"))
}

/// The host's threads of the CPUs; 0: it does not answer.
fn threads(context: &Context) -> &[i32] {
    context.threads.get_or_init(|| {
        let asked: Vec<_> = context
            .machine
            .cpus()
            .iter()
            .map(|cpu| {
                let (sender, receiver) = bounded(1);
                cpu.request(Box::new(move || {
                    // Who asked may have given up.
                    let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
                }));
                receiver
            })
            .collect();
        asked.iter().map(|r| r.recv_timeout(Duration::from_secs(2)).unwrap_or(0)).collect()
    })
}

/// The place of a CPU in the topology.
fn place(context: &Context, number: usize) -> Value {
    let smp = &context.config.smp;
    let mut rest = number as u64;
    let mut step = |count: u32| {
        let count = u64::from(count.max(1));
        let at = rest % count;
        rest /= count;
        at
    };
    let mut props = Map::new();
    match context.machine.architecture() {
        Architecture::Ppc64 => {
            props.insert("core-id".to_owned(), json!(number as u64 / u64::from(smp.threads.max(1))));
        }
        architecture => {
            let (thread, core) = (step(smp.threads), step(smp.cores));
            let middle = if architecture == Architecture::X86_64 { smp.dies } else { smp.clusters };
            let (inner, socket) = (step(middle), step(smp.sockets));
            props.insert("socket-id".to_owned(), json!(socket));
            if architecture == Architecture::Aarch64 {
                props.insert("cluster-id".to_owned(), json!(inner));
            } else if smp.dies > 1 {
                props.insert("die-id".to_owned(), json!(inner));
            }
            props.insert("core-id".to_owned(), json!(core));
            props.insert("thread-id".to_owned(), json!(thread));
        }
    }
    Value::Object(props)
}

/// The object of a CPU.
pub fn path(number: usize) -> String {
    format!("/machine/unattached/device[{number}]")
}

/// The type of CPUs of a model.
pub fn type_name(architecture: Architecture, model: &str) -> String {
    let end = match architecture {
        Architecture::Aarch64 => "arm-cpu",
        Architecture::X86_64 => "x86_64-cpu",
        Architecture::Ppc64 => "powerpc64-cpu",
    };
    format!("{model}-{end}")
}

/// The model of this machine's CPUs.
pub fn model(context: &Context) -> &str {
    context.config.cpu.split(',').next().unwrap_or_default()
}

fn fast(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |(n, thread): (usize, &i32)| {
        json!({
            "cpu-index": n,
            "qom-path": path(n),
            "thread-id": thread,
            "props": place(context, n),
            "target": target(context.machine.architecture()),
        })
    };
    let present = |n: &usize| context.machine.cpus()[*n].present();
    Ok(threads(context).iter().enumerate().filter(|(n, _)| present(n)).map(one).collect())
}

fn hotpluggable(context: &Context, _: &mut Call<'_>) -> Result {
    let architecture = context.machine.architecture();
    // On Power a core with all its threads is one place.
    let threads = if architecture == Architecture::Ppc64 { context.config.smp.threads.max(1) as usize } else { 1 };
    let one = |n: usize| {
        let mut entry = json!({
            "type": type_name(architecture, model(context)),
            "vcpus-count": threads,
            "props": place(context, n),
        });
        if context.machine.cpus()[n].present() {
            entry["qom-path"] = json!(path(n));
        }
        entry
    };
    Ok((0..context.machine.cpus().len()).rev().filter(|n| n % threads == 0).map(one).collect())
}

fn definitions(context: &Context, _: &mut Call<'_>) -> Result {
    let architecture = context.machine.architecture();
    let one = |(name, _): (&str, &str)| {
        json!({
            "name": name,
            "typename": type_name(architecture, name),
            "unavailable-features": [],
            "migration-safe": name != "max",
            "static": false,
            "deprecated": false,
        })
    };
    Ok(rhea_machine::cpu_models(architecture).into_iter().map(one).collect())
}

fn iothreads(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!([]))
}
