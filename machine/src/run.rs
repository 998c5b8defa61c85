//! The main loop: requests of guest, user and debugger are carried out one after the other.

use crate::machine::{Machine, RunState};
use crossbeam_channel::{Receiver, Sender};
use rhea_accel::{DebugStop, ShutdownCause, VmRequest};
use std::sync::Arc;

/// What the command line chose.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub no_reboot: bool,
    pub no_shutdown: bool,
    /// Do not start (`-S`).
    pub paused: bool,
    /// Where debug stops go: the GDB stub.
    pub debugger: Option<Sender<(u32, DebugStop)>>,
}

/// Runs the machine until it ends; the value is the exit status.
#[must_use]
pub fn run(machine: &Arc<Machine>, requests: &Receiver<VmRequest>, options: &RunOptions) -> i32 {
    if !options.paused {
        machine.start();
    }
    let status = loop {
        // All senders gone cannot be: the machine holds one.
        let Ok(request) = requests.recv() else { break 0 };
        match request {
            VmRequest::Reset(cause) if options.no_reboot && cause == ShutdownCause::Guest => break 0,
            VmRequest::Reset(_) => machine.reset(),
            VmRequest::PowerOff(_) if options.no_shutdown => machine.stop(RunState::Shutdown),
            VmRequest::PowerOff(_) => break 0,
            VmRequest::GuestPanic(message) => {
                eprintln!("rhea: the guest panicked: {message}");
                if !options.no_shutdown {
                    break 1;
                }
                machine.stop(RunState::GuestPanicked);
            }
            VmRequest::PowerDown => machine.power_button(),
            VmRequest::Suspend => machine.suspend(),
            VmRequest::Wake(reason) => machine.wake(reason),
            VmRequest::Stop => {
                if machine.running() {
                    machine.stop(RunState::Paused);
                }
            }
            VmRequest::Continue => {
                if !machine.running() {
                    machine.start();
                }
            }
            VmRequest::DebugStop { vcpu, stop } => {
                if machine.running() {
                    machine.stop(RunState::Debug);
                }
                match &options.debugger {
                    Some(debugger) if debugger.send((vcpu, stop)).is_ok() => {}
                    _ => machine.start(),
                }
            }
            VmRequest::Quit(status) => break status,
        }
    };
    machine.shut_down();
    status
}
