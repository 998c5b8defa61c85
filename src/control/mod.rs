//! The commands of the control protocol (QMP), on this machine. The human monitor uses them too.

mod bitmaps;
mod chardevs;
mod cpus;
mod devices;
mod dump;
mod exports;
mod fdsets;
mod human;
mod images;
mod info;
mod input;
mod jobs;
mod life;
mod memory;
pub mod migration;
mod network;
mod objects;
mod options;
mod pci;
mod probes;
mod reopen;
pub mod snapshots;
mod storage;
mod streams;
mod trace;
mod vnc;

pub use life::actions;

use crate::cli::ControlSpec;
use parking_lot::Mutex;
use rhea_control::{Commands, Events, Jobs, Listener, Schema, Server};
use rhea_device::OptionError;
use rhea_device::chardev::{CharBackend, Chardevs};
use rhea_display::VncServer;
use rhea_machine::dirty_rate::DirtyRate;
use rhea_machine::state::Migration;
use rhea_machine::{Machine, MachineConfig};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// What commands work on.
pub struct Context {
    pub machine: Arc<Machine>,
    /// What the machine was made from.
    pub config: MachineConfig,
    pub vnc: Vec<Arc<VncServer>>,
    pub chardevs: Arc<Chardevs>,
    /// Names of serial ports and monitors, with what is behind them.
    pub consoles: Vec<(String, Arc<dyn CharBackend>)>,
    /// Names of the control protocol's own connections.
    pub controls: Vec<(String, String)>,
    pub dump: Arc<Mutex<dump::Progress>>,
    pub events: Arc<Events>,
    pub jobs: Arc<Jobs>,
    pub exports: exports::Exports,
    /// The threads of the CPUs, once somebody asked.
    pub threads: OnceLock<Vec<i32>>,
    /// Where an absolute pointer was put last.
    pub pointer: Mutex<(u16, u16)>,
    /// Clients want to be told of migrations.
    pub migration_events: Arc<migration::Wanted>,
    pub migration: Arc<Migration>,
    pub dirty_rate: Arc<DirtyRate>,
    me: OnceLock<Weak<Server<Context>>>,
}

impl Context {
    /// The server of these commands.
    fn server(&self) -> Option<Arc<Server<Self>>> {
        self.me.get().and_then(Weak::upgrade)
    }
    /// Runs `f` with all CPUs paused: the registers of a running one are in the host's.
    pub fn paused<R>(&self, f: impl FnOnce() -> R) -> R {
        let cpus = self.machine.cpus();
        let running = self.machine.running();
        if running {
            cpus.iter().for_each(|c| c.request_pause());
            cpus.iter().for_each(|c| {
                c.wait_paused(None);
            });
        }
        let result = f();
        if running && self.machine.running() {
            cpus.iter().for_each(|c| c.resume());
        }
        result
    }
}

/// The control side of the emulator.
#[derive(Clone)]
pub struct Control {
    pub server: Arc<Server<Context>>,
}

/// What is there to be controlled.
pub struct Parts {
    pub machine: Arc<Machine>,
    pub config: MachineConfig,
    pub vnc: Vec<Arc<VncServer>>,
    pub chardevs: Arc<Chardevs>,
    pub consoles: Vec<(String, Arc<dyn CharBackend>)>,
    pub controls: Vec<(String, String)>,
}

impl Control {
    /// Makes the commands that this machine can carry out.
    pub fn new(parts: Parts) -> Self {
        let schema: Arc<Schema> = Arc::new(rhea_control::schema());
        let events = Events::new(&schema);
        life::send_events(&parts.machine, &events);
        memory::send_events(&parts.machine, parts.config.ram.size, &events);
        devices::send_events(&parts.machine, &events);
        network::send_events(&parts.machine, &events);
        storage::send_events(&parts.machine, &events);
        vnc::send_events(&parts.vnc, &events);
        let mut commands = Commands::default();
        life::register(&mut commands, &parts.machine);
        cpus::register(&mut commands, &parts.machine);
        memory::register(&mut commands);
        dump::register(&mut commands, &parts.machine);
        objects::register(&mut commands);
        options::register(&mut commands);
        devices::register(&mut commands);
        network::register(&mut commands);
        trace::register(&mut commands);
        pci::register(&mut commands);
        storage::register(&mut commands);
        jobs::register(&mut commands);
        bitmaps::register(&mut commands);
        images::register(&mut commands);
        exports::register(&mut commands);
        input::register(&mut commands);
        info::register(&mut commands, &parts.machine);
        migration::register(&mut commands);
        snapshots::register(&mut commands);
        vnc::register(&mut commands);
        probes::register(&mut commands, &parts.machine, &parts.config);
        fdsets::register(&mut commands);
        chardevs::register(&mut commands);
        human::register(&mut commands);
        let wanted = Arc::default();
        let jobs = Jobs::new(&events);
        let context = Context {
            machine: parts.machine,
            config: parts.config,
            vnc: parts.vnc,
            chardevs: parts.chardevs,
            consoles: parts.consoles,
            controls: parts.controls,
            dump: Arc::default(),
            events: events.clone(),
            jobs: jobs.clone(),
            exports: exports::Exports::default(),
            threads: OnceLock::new(),
            pointer: Mutex::default(),
            migration: migration::new(&events, &wanted, jobs),
            migration_events: wanted,
            dirty_rate: Arc::default(),
            me: OnceLock::new(),
        };
        let package = format!("Rhea {}", env!("CARGO_PKG_VERSION"));
        let server = Server::new(&schema, commands, context, &events, package);
        // The server is new: the place is free.
        let _ = server.context().me.set(Arc::downgrade(&server));
        Self { server }
    }

    /// Lets programs in.
    ///
    /// # Errors
    /// [`OptionError`]: an address that cannot be listened at.
    pub fn listen(&self, spec: ControlSpec) -> Result<(), OptionError> {
        let place = spec.address.to_string();
        let fail = |e: std::io::Error| OptionError::new(&spec.option, format!("{place}: {e}"));
        let listener = Listener::new(spec.address, spec.server).map_err(fail)?;
        if spec.wait {
            eprintln!("rhea: waiting for a connection on {place}");
        }
        self.server.listen(listener, spec.wait).map_err(fail)
    }

    /// Waits a little for those who read slowly: the emulator is about to end.
    pub fn flush(&self) {
        self.server.events().flush(Duration::from_secs(1));
    }
}
