//! The machine moves to another process: what the control protocol and the human monitor say about it.

use super::Context;
use super::streams::{Incoming, Uri, connect};
use rhea_accel::VmRequest;
use rhea_control::{Call, Commands, Error, Events, Jobs, Value, json};
use rhea_device::OptionError;
use rhea_device::chardev::SocketAddress;
use rhea_machine::Machine;
use rhea_machine::machine::RunState;
use rhea_machine::state::{
    Migration, MigrationParameters, MigrationStatus, Progress, check_background_host, check_postcopy_host,
};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("migrate", migrate),
        ("migrate_cancel", cancel),
        ("migrate-continue", go_on),
        ("migrate-start-postcopy", start_postcopy),
        ("migrate-pause", pause),
        ("migrate-recover", recover),
        ("migrate-incoming", incoming),
        ("query-migrate", query),
        ("query-migrate-parameters", parameters),
        ("migrate-set-parameters", set_parameters),
        ("query-migrate-capabilities", capabilities),
        ("migrate-set-capabilities", set_capabilities),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;

/// What is told only to clients that want it.
#[derive(Default)]
pub struct Wanted(AtomicBool);

/// The move of a machine, whose changes are told to clients that want that.
pub fn new(events: &Arc<Events>, wanted: &Arc<Wanted>, jobs: Arc<Jobs>) -> Arc<Migration> {
    let migration = Arc::new(Migration::default());
    let (events, wanted) = (events.clone(), wanted.clone());
    let passes = (events.clone(), wanted.clone());
    migration.keep_disks(move || jobs.on_images().map(|id| format!("job '{id}' works on the images of its disks")));
    migration.listen(move |status| {
        if wanted.0.load(Ordering::Relaxed) {
            events.emit("MIGRATION", json!({"status": status.word()}));
        }
    });
    let (events, wanted) = passes;
    migration.listen_to_passes(move |pass| {
        if wanted.0.load(Ordering::Relaxed) {
            events.emit("MIGRATION_PASS", json!({"pass": pass}));
        }
    });
    migration
}

fn uri(call: &Call<'_>) -> Result<Uri> {
    if call.get("channels").is_some() {
        return Err(Error::new("'channels' is not supported: use 'uri'"));
    }
    let text = call.text("uri").ok_or_else(|| Error::new("need either 'uri' or 'channels' argument"))?;
    Uri::parse(text).map_err(Error::new)
}

/// The descriptor that a URI names, or one that the process was started with.
fn fd(uri: &Uri, call: &Call<'_>) -> Result<Option<OwnedFd>> {
    match uri {
        // No name that `getfd` takes is a number.
        Uri::Fd(name) => match name.parse() {
            Ok(number) => {
                Ok(Some(SocketAddress::inherited(number).map_err(|e| Error::new(format!("fd:{name}: {e}")))?))
            }
            Err(_) => call.named_fds().take(name).map(Some),
        },
        _ => Ok(None),
    }
}

fn migrate(context: &Context, call: &mut Call<'_>) -> Result {
    let uri = uri(call)?;
    if uri == Uri::Defer {
        return Err(Error::new("unknown migration protocol: defer"));
    }
    uri.check(context.migration.parameters().multifd).map_err(Error::new)?;
    let fd = fd(&uri, call)?;
    if call.flag("resume") {
        return context.migration.resume(move || connect(&uri, fd)).map(|()| json!({})).map_err(Error::new);
    }
    let started = context.migration.start(&context.machine, move || connect(&uri, fd));
    started.map(|()| json!({})).map_err(|e| Error::new(e.to_string()))
}

fn cancel(context: &Context, _: &mut Call<'_>) -> Result {
    context.migration.cancel();
    Ok(json!({}))
}

fn go_on(context: &Context, call: &mut Call<'_>) -> Result {
    let state = call.required("state");
    if state != MigrationStatus::PreSwitchover.word() || !context.migration.go_on() {
        let status = context.migration.progress().status.word();
        return Err(Error::new(format!("Migration not in expected state: {status}")));
    }
    Ok(json!({}))
}

fn start_postcopy(context: &Context, _: &mut Call<'_>) -> Result {
    context.migration.start_postcopy().map(|()| json!({})).map_err(Error::new)
}

fn pause(context: &Context, _: &mut Call<'_>) -> Result {
    context.migration.pause_postcopy().map(|()| json!({})).map_err(Error::new)
}

fn recover(context: &Context, call: &mut Call<'_>) -> Result {
    let uri = Uri::parse(call.required("uri")).map_err(Error::new)?;
    if uri == Uri::Defer {
        return Err(Error::new("unknown migration protocol: defer"));
    }
    if context.migration.progress().status != MigrationStatus::PostcopyPaused {
        return Err(Error::new("Migrate recover can only be run when postcopy is paused."));
    }
    let fd = fd(&uri, call)?;
    let listening = Incoming::listen(&uri, fd).map_err(Error::from)?;
    context.migration.recover(move || listening.accept(false)).map(|()| json!({})).map_err(Error::new)
}

fn incoming(context: &Context, call: &mut Call<'_>) -> Result {
    if context.machine.run_state() != RunState::InMigrate {
        return Err(Error::new("'-incoming' was not specified on the command line"));
    }
    let uri = uri(call)?;
    if uri == Uri::Defer {
        return Err(Error::new("unknown migration protocol: defer"));
    }
    let fd = fd(&uri, call)?;
    receive(&context.machine, &context.migration, !context.config.paused, &uri, fd)
        .map_err(|e| Error::new(e.message))?;
    Ok(json!({}))
}

/// Waits for a machine at `uri`; the emulator ends if nothing comes of it.
fn receive(
    machine: &Arc<Machine>,
    migration: &Arc<Migration>,
    start: bool,
    uri: &Uri,
    fd: Option<OwnedFd>,
) -> std::result::Result<(), OptionError> {
    let fail = |e: &dyn std::fmt::Display| OptionError::new("-incoming", e.to_string());
    if migration.progress().status != MigrationStatus::None {
        return Err(fail(&"The incoming migration has already been started"));
    }
    let more = migration.parameters().multifd;
    uri.check(more).map_err(|e| fail(&e))?;
    let listening = Incoming::listen(uri, fd).map_err(|e| fail(&Error::from(e)))?;
    let control = machine.control().clone();
    let failed = move |e: &rhea_machine::state::StateError| {
        eprintln!("rhea: -incoming: {e}");
        control.request(VmRequest::Quit(1));
    };
    migration.receive(machine, start, move || listening.accept(more), failed).map_err(|e| fail(&e))
}

/// `-incoming`
///
/// # Errors
/// [`OptionError`]: a URI that is none, or nothing can be waited for there.
pub fn start_incoming(context: &Context, text: &str) -> std::result::Result<(), OptionError> {
    let uri = Uri::parse(text).map_err(|e| OptionError::new("-incoming", e))?;
    context.machine.await_state();
    match &uri {
        Uri::Defer => Ok(()),
        Uri::Fd(_) => Err(OptionError::new("-incoming", "use 'defer', and 'getfd' before 'migrate-incoming'")),
        _ => receive(&context.machine, &context.migration, !context.config.paused, &uri, None),
    }
}

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let p = context.migration.progress();
    let mut info = json!({});
    let blockers = context.machine.state_blockers();
    if !blockers.is_empty() {
        info["blocked-reasons"] = json!(blockers);
    }
    if p.status == MigrationStatus::None {
        return Ok(info);
    }
    info["status"] = json!(p.status.word());
    if let Some(error) = &p.error {
        info["error-desc"] = json!(error);
    }
    if context.machine.run_state() == RunState::InMigrate || p.rounds == 0 && p.pages == 0 && !p.status.busy() {
        return Ok(info);
    }
    info["total-time"] = json!(p.total_time);
    info["setup-time"] = json!(p.setup_time);
    match p.status {
        status if status == MigrationStatus::Completed || status.in_postcopy() => info["downtime"] = json!(p.downtime),
        _ => info["expected-downtime"] = json!(p.expected_downtime),
    }
    if p.throttle > 0 {
        info["cpu-throttle-percentage"] = json!(p.throttle);
    }
    info["ram"] = ram(&p);
    Ok(info)
}

fn ram(p: &Progress) -> Value {
    const PAGE: u64 = 4096;
    let pages_per_second = (p.pages * 1000).checked_div(p.total_time).unwrap_or(0);
    json!({
        "transferred": p.transferred,
        "remaining": p.remaining,
        "total": p.total,
        "duplicate": 0,
        "normal": p.pages,
        "normal-bytes": p.pages * PAGE,
        "dirty-pages-rate": p.dirty_rate,
        "mbps": p.bandwidth as f64 * 8.0 / 1e6,
        "dirty-sync-count": p.rounds,
        "postcopy-requests": p.postcopy_requests,
        "page-size": PAGE,
        "multifd-bytes": p.multifd_bytes,
        "pages-per-second": pages_per_second,
    })
}

fn parameters(context: &Context, _: &mut Call<'_>) -> Result {
    let p = context.migration.parameters();
    let MigrationParameters { max_bandwidth, downtime_limit, zstd, throttle, multifd_channels, .. } = p;
    Ok(json!({
        "max-bandwidth": max_bandwidth,
        "max-postcopy-bandwidth": p.max_postcopy_bandwidth,
        "downtime-limit": downtime_limit,
        "throttle-trigger-threshold": throttle.threshold,
        "cpu-throttle-initial": throttle.initial,
        "cpu-throttle-increment": throttle.increment,
        "max-cpu-throttle": throttle.most,
        "multifd-channels": multifd_channels,
        "multifd-compression": if zstd.is_some() { "zstd" } else { "none" },
        "multifd-zstd-level": zstd.unwrap_or(1),
    }))
}

fn set_parameters(context: &Context, call: &mut Call<'_>) -> Result {
    let mut p = context.migration.parameters();
    if let Some(n) = call.unsigned("max-bandwidth") {
        p.max_bandwidth = n;
    }
    if let Some(n) = call.unsigned("max-postcopy-bandwidth") {
        p.max_postcopy_bandwidth = n;
    }
    if let Some(n) = call.unsigned("downtime-limit") {
        if n > 2_000_000 {
            return Err(Error::new("Parameter 'downtime-limit' expects an integer in the range of 0 to 2000 seconds"));
        }
        p.downtime_limit = n;
    }
    let t = &mut p.throttle;
    for (name, field, range) in [
        ("throttle-trigger-threshold", &mut t.threshold, 1..=100),
        ("cpu-throttle-initial", &mut t.initial, 1..=99),
        ("cpu-throttle-increment", &mut t.increment, 1..=99),
        ("max-cpu-throttle", &mut t.most, 1..=99),
    ] {
        if let Some(n) = call.unsigned(name) {
            let n = u8::try_from(n).ok().filter(|n| range.contains(n));
            let expected = || {
                format!("Parameter '{name}' expects an integer in the range of {} to {}", range.start(), range.end())
            };
            *field = n.ok_or_else(|| Error::new(expected()))?;
        }
    }
    if t.most < t.initial {
        return Err(Error::new(
            "Parameter 'max-cpu-throttle' expects an integer that is not below 'cpu-throttle-initial'",
        ));
    }
    if let Some(n) = call.unsigned("multifd-channels") {
        let n = u8::try_from(n).ok().filter(|n| *n > 0);
        let expected = "Parameter 'multifd-channels' expects a value between 1 and 255";
        p.multifd_channels = n.ok_or_else(|| Error::new(expected))?;
    }
    let level = call.unsigned("multifd-zstd-level");
    if level.is_some_and(|n| n > 20) {
        return Err(Error::new("Parameter 'multifd-zstd-level' expects a value between 0 and 20"));
    }
    p.zstd = match call.text("multifd-compression") {
        Some("zstd") => Some(level.map_or(1, |n| n as i32)),
        Some(_) => None,
        None => p.zstd.map(|old| level.map_or(old, |n| n as i32)),
    };
    context.migration.set_parameters(p);
    Ok(json!({}))
}

fn capabilities(context: &Context, _: &mut Call<'_>) -> Result {
    let p = context.migration.parameters();
    let all = [
        ("events", context.migration_events.0.load(Ordering::Relaxed)),
        ("pause-before-switchover", p.pause_before_switchover),
        ("auto-converge", p.auto_converge),
        ("return-path", p.return_path),
        ("multifd", p.multifd),
        ("postcopy-ram", p.postcopy),
        ("background-snapshot", p.background),
    ];
    Ok(all.iter().map(|(name, on)| json!({"capability": name, "state": on})).collect())
}

fn set_capabilities(context: &Context, call: &mut Call<'_>) -> Result {
    if context.migration.progress().status.busy() {
        return Err(Error::new("There's a migration process in progress"));
    }
    let mut p = context.migration.parameters();
    // Others are refused with their names where arguments are checked.
    for c in call.get("capabilities").and_then(Value::as_array).into_iter().flatten() {
        let on = c["state"] == true;
        match c["capability"].as_str() {
            Some("events") => context.migration_events.0.store(on, Ordering::Relaxed),
            Some("pause-before-switchover") => p.pause_before_switchover = on,
            Some("auto-converge") => p.auto_converge = on,
            Some("return-path") => p.return_path = on,
            Some("multifd") => p.multifd = on,
            Some("postcopy-ram") => p.postcopy = on,
            Some("background-snapshot") => p.background = on,
            _ => {}
        }
    }
    if p.postcopy && p.multifd {
        return Err(Error::new("Postcopy is not yet compatible with multifd"));
    }
    let others = [
        ("postcopy-ram", p.postcopy),
        ("multifd", p.multifd),
        ("auto-converge", p.auto_converge),
        ("pause-before-switchover", p.pause_before_switchover),
    ];
    if let Some((name, _)) = others.iter().find(|(_, on)| p.background && *on) {
        return Err(Error::new(format!("Background-snapshot is not compatible with {name}")));
    }
    if p.background {
        check_background_host().map_err(Error::new)?;
    }
    if p.postcopy && context.machine.run_state() == RunState::InMigrate {
        check_postcopy_host().map_err(Error::new)?;
    }
    context.migration.set_parameters(p);
    Ok(json!({}))
}
