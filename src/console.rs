//! Opens the character back ends of the command line and shares them out among serial ports and monitors.

use crate::control::Control;
use crate::monitor::Monitor;
use rhea_accel::{ShutdownCause, VmControl, VmRequest};
use rhea_device::OptionError;
use rhea_device::chardev::{self, CharBackend, ChardevSpec, Chardevs, Mux, MuxKey, StdioChar};
use rhea_display::VncServer;
use rhea_machine::config::{Console, MachineConfig};
use rhea_machine::{Machine, Wiring};
use std::sync::Arc;

/// Everything that was opened.
pub struct Consoles {
    pub terminal: Option<Arc<StdioChar>>,
    serials: Vec<Arc<dyn CharBackend>>,
    chardevs: Arc<Chardevs>,
    /// Back end of each monitor; the flag says that it greets at once (it does not share its back end).
    monitors: Vec<(Arc<dyn CharBackend>, bool)>,
    names: Vec<(String, Arc<dyn CharBackend>)>,
}

struct Opener<'a> {
    control: &'a VmControl,
    terminal: Option<Arc<StdioChar>>,
    muxes: Vec<(String, Arc<Mux>)>,
    chardevs: Arc<Chardevs>,
}

impl Opener<'_> {
    fn backend(&mut self, option: &str, spec: &ChardevSpec) -> Result<Arc<dyn CharBackend>, OptionError> {
        match spec {
            ChardevSpec::Stdio { signals, .. } => {
                let text = |e: std::io::Error| OptionError::new(option, format!("stdio: {e}"));
                let terminal = StdioChar::new(*signals).map_err(text)?;
                self.terminal = Some(terminal.clone());
                Ok(terminal)
            }
            ChardevSpec::Id(id) => {
                if let Some((_, mux)) = self.muxes.iter().find(|(i, _)| i == id) {
                    return Ok(mux.port());
                }
                let missing = || OptionError::new(option, format!("'chardev:{id}': no -chardev has this id"));
                self.chardevs.get(id).ok_or_else(missing)
            }
            _ => chardev::open(option, spec),
        }
    }
    fn mux(&self, backend: Arc<dyn CharBackend>) -> Arc<Mux> {
        let control = self.control.clone();
        Mux::new(backend, move |key| match key {
            MuxKey::Quit => control.request(VmRequest::End(ShutdownCause::Host)),
            // Only with -snapshot, and then there is nothing to commit to yet.
            MuxKey::Save => eprintln!("rhea: saving the snapshot back is not supported"),
        })
    }
}

/// Opens all. After an error the terminal is as it was: its handle is dropped.
pub fn open(config: &MachineConfig, control: &VmControl) -> Result<Consoles, OptionError> {
    let mut opener = Opener { control, terminal: None, muxes: Vec::new(), chardevs: Arc::default() };
    let fail = |e| OptionError::new("-chardev", e);
    let (mut serials, mut monitors, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (id, spec) in &config.chardevs {
        let backend = opener.backend("-chardev", spec)?;
        if matches!(spec, ChardevSpec::Stdio { mux: true, .. }) {
            opener.muxes.push((id.clone(), opener.mux(backend)));
        } else {
            opener.chardevs.add(id, backend, false).map_err(fail)?;
        }
    }
    for (i, Console { spec, with_monitor }) in config.serials.iter().enumerate() {
        let backend = opener.backend("-serial", spec)?;
        names.push((format!("serial{i}"), backend.clone()));
        if *with_monitor || matches!(spec, ChardevSpec::Stdio { mux: true, .. }) {
            let mux = opener.mux(backend);
            serials.push(mux.port() as Arc<dyn CharBackend>);
            if *with_monitor {
                monitors.push((mux.port() as Arc<dyn CharBackend>, false));
            }
        } else {
            serials.push(backend);
        }
    }
    for Console { spec, .. } in &config.monitors {
        let backend = opener.backend("-monitor", spec)?;
        names.push(("monitor".to_owned(), backend.clone()));
        let greets = !matches!(spec, ChardevSpec::Socket(_) | ChardevSpec::Id(_));
        monitors.push((backend, greets));
    }
    // Devices come after serial ports and monitors: the first port has the keys.
    for (id, mux) in &opener.muxes {
        opener.chardevs.add(id, mux.port(), true).map_err(fail)?;
    }
    Ok(Consoles { terminal: opener.terminal, serials, chardevs: opener.chardevs, monitors, names })
}

/// Starts the VNC servers of a machine.
pub fn vnc_servers(config: &MachineConfig, machine: &Machine) -> Result<Vec<Arc<VncServer>>, OptionError> {
    let fail = |what: String| OptionError::new("-vnc", what);
    let start = |options| {
        let console = machine.displays().first();
        let console = console.ok_or_else(|| fail("the machine has no display: add -device VGA".to_owned()))?;
        VncServer::start(options, console, machine.input(), machine.name())
            .map_err(|e| fail(format!("{}: {e}", options.address)))
    };
    config.vnc.iter().map(start).collect()
}

impl Consoles {
    /// What the board connects to its devices.
    pub fn wiring(&self) -> Wiring {
        Wiring { serials: self.serials.clone(), chardevs: self.chardevs.clone() }
    }
    /// Those of `-chardev`.
    pub fn chardevs(&self) -> Arc<Chardevs> {
        self.chardevs.clone()
    }
    /// Those of serial ports and monitors with their names.
    pub fn names(&self) -> &[(String, Arc<dyn CharBackend>)] {
        &self.names
    }
    /// Starts the monitors of people.
    pub fn start_monitors(&self, control: &Control) {
        for (backend, greets) in &self.monitors {
            Monitor::start(backend.clone(), control.clone(), *greets);
        }
    }
}
