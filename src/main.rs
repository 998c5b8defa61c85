//! The `rhea` command: options, consoles, monitor, debugger; wiring only.

mod cli;
mod console;
mod control;
mod daemon;
mod demo;
mod flame;
mod gdb;
mod heap;
mod message;
mod monitor;
mod panics;
mod signals;

use cli::Extras;
use control::{Control, Parts};
use rhea_accel::VmControl;
use rhea_device::{Log, OptionError};
use rhea_machine::config::{BoardOptions, MachineConfig};
use rhea_machine::run::{self, RunOptions};
use rhea_machine::state::SnapshotNodes;
use rhea_machine::virt;
use std::process::ExitCode;

/// Translating guest code makes many short-lived allocations: the C library's allocator would take a sixth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    heap::keep_small();
    let mut args = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    match start(&program, args.collect()) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(e) => {
            eprintln!("rhea: {e}");
            message::end();
            ExitCode::FAILURE
        }
    }
}

/// Invoked under the name of an emulator of one architecture, the command behaves as that one: the machine when none is named.
fn default_machine(program: &str) -> Result<&'static str, OptionError> {
    let name = program.rsplit('/').next().unwrap_or(program);
    match name.strip_prefix("qemu-system-") {
        Some("x86_64") => Ok("q35"),
        Some("ppc64") => Ok("pseries"),
        Some("aarch64") | None => Ok("virt"),
        Some(arch) => {
            let message = format!("the architecture '{arch}' is not supported: use aarch64, ppc64 or x86_64");
            Err(OptionError::new(name, message))
        }
    }
}

/// `rhea img`, `rhea nbd`, or their own names: the exit status.
fn tool(program: &str, args: &[String]) -> Option<i32> {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut output = rhea_img::Output { out: &mut out, err: &mut err };
    match (program.rsplit('/').next(), args.split_first()) {
        (Some("qemu-img"), _) => Some(rhea_img::run(args, &mut output)),
        (Some("qemu-nbd"), _) => Some(rhea_img::nbd(args, &mut output)),
        (_, Some((word, rest))) if word == "img" => Some(rhea_img::run(rest, &mut output)),
        (_, Some((word, rest))) if word == "nbd" => Some(rhea_img::nbd(rest, &mut output)),
        _ => None,
    }
}

fn start(program: &str, args: Vec<String>) -> Result<i32, OptionError> {
    if let Some(status) = tool(program, &args) {
        return Ok(status);
    }
    let machine = default_machine(program)?;
    let args = match args.split_first() {
        Some((word, rest)) if word == "demo" => {
            if let Some(extra) = rest.first() {
                return Err(OptionError::new("demo", format!("unexpected argument '{extra}': 'rhea demo' takes none")));
            }
            demo::run().map_err(|e| OptionError::new("demo", format!("{e:#}")))?
        }
        _ => args,
    };
    match cli::parse(args.into_iter(), machine)? {
        cli::Action::Print(text) => {
            use std::io::Write;
            // A closed pipe (`rhea -help | head`) is nobody's error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(0)
        }
        cli::Action::Run(config, extras) => run_machine(&config, extras),
    }
}

fn open_log(config: &MachineConfig) -> Result<Log, OptionError> {
    let out: Box<dyn std::io::Write + Send> = match &config.log_file {
        Some(path) => {
            Box::new(std::fs::File::create(path).map_err(|e| OptionError::new("-D", cli::file_error(path, &e)))?)
        }
        None => Box::new(std::io::stderr()),
    };
    Ok(Log::new(config.log_mask, out))
}

fn run_machine(config: &MachineConfig, extras: Extras) -> Result<i32, OptionError> {
    // Before there are threads, which only one of the two processes would have.
    let daemon = |e: std::io::Error| OptionError::new("-daemonize", e.to_string());
    let starter = extras.daemonize.then(daemon::start).transpose().map_err(daemon)?;
    message::start(extras.messages).map_err(|e| OptionError::new("-msg", e.to_string()))?;
    let log = open_log(config)?;
    if let BoardOptions::Virt(options) = &config.board
        && let Some(path) = &options.dump_dtb
    {
        let blob = virt::dtb(config, options)?;
        std::fs::write(path, blob).map_err(|e| OptionError::new("-M virt,dumpdtb", cli::file_error(path, &e)))?;
        eprintln!("rhea: info: dtb dumped to {}. Exiting.", path.display());
        return Ok(0);
    }
    let debugger = config.gdb.as_deref().map(gdb::listen).transpose()?;
    if let Some(path) = &config.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| OptionError::new("-pidfile", cli::file_error(path, &e)))?;
    }
    let (control, requests) = VmControl::new();
    let signals = signals::block();
    let consoles = console::open(config, &control)?;
    let terminal = consoles.terminal.clone();
    let restored = terminal.clone();
    panics::end_process(move || {
        message::end();
        if let Some(terminal) = &restored {
            terminal.restore();
        }
    });
    let built = rhea_machine::build(config, &consoles.wiring(), control.clone(), log);
    let built = built.and_then(|machine| console::vnc_servers(config, &machine).map(|servers| (machine, servers)));
    let result = built.and_then(|(machine, servers)| {
        signals::watch(signals, control.clone());
        machine.set_actions(config.actions);
        let control = Control::new(Parts {
            machine: machine.clone(),
            config: config.clone(),
            vnc: servers,
            chardevs: consoles.chardevs(),
            consoles: consoles.names().to_vec(),
            controls: extras.control.iter().map(|c| (c.label.clone(), c.address.to_string())).collect(),
        });
        if let Some(uri) = &config.incoming {
            // Before anybody can ask whether it waits.
            control::migration::start_incoming(control.server.context(), uri)?;
        }
        if let Some(tag) = &config.load_snapshot {
            // Before anybody asks for it to run.
            let loaded = machine.load_snapshot(tag, &SnapshotNodes::default());
            loaded.map_err(|e| OptionError::new("-loadvm", format!("'{tag}': {e}")))?;
        }
        consoles.start_monitors(&control);
        extras.control.into_iter().try_for_each(|c| control.listen(c))?;
        let profiler = extras.flames.map(|f| f.start(&machine)).transpose()?;
        let mut options = RunOptions { paused: config.paused || config.incoming.is_some(), debugger: None };
        if let Some((listener, sender, receiver)) = debugger {
            options.debugger = Some(sender);
            gdb::serve(listener, receiver, machine.clone());
        }
        if let Some(starter) = starter {
            message::end();
            // The log may go there.
            starter.ready(config.log_mask != 0 && config.log_file.is_none()).map_err(daemon)?;
        }
        let status = run::run(&machine, &requests, &options);
        if let Some(profiler) = profiler {
            profiler.finish();
        }
        control.flush();
        for drive in machine.inventory().drives() {
            if let Err(e) = drive.close() {
                eprintln!("rhea: drive '{}': {e}", drive.id());
            }
        }
        Ok(status)
    });
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    if let Some(path) = &config.pid_file {
        let _ = std::fs::remove_file(path);
    }
    let status = result?;
    // Threads that wait for input of the host would keep the process.
    use std::io::Write;
    let _ = std::io::stdout().flush();
    message::end();
    std::process::exit(status)
}
