//! The main loop: requests of guest, user and debugger are carried out one after the other.

use crate::machine::{Machine, MachineEvent, PanicAction, RebootAction, RunState, ShutdownAction, WatchdogAction};
use crossbeam_channel::{Receiver, Sender};
use rhea_accel::{DebugStop, ShutdownCause, VmRequest};
use std::sync::Arc;

/// What the command line chose.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Do not start (`-S`).
    pub paused: bool,
    /// Where debug stops go: the GDB stub.
    pub debugger: Option<Sender<(u32, DebugStop)>>,
}

/// The machine is switched off. The value is the exit status, if the emulator ends.
fn power_off(machine: &Machine, cause: ShutdownCause, reset: bool) -> Option<i32> {
    machine.tell(MachineEvent::Shutdown { cause, reset });
    match machine.actions().shutdown {
        ShutdownAction::PowerOff => Some(0),
        ShutdownAction::Pause => {
            machine.stop(RunState::Shutdown);
            None
        }
    }
}

/// The guest crashed. The value is the exit status, if the emulator ends.
fn guest_panic(machine: &Machine, message: &str) -> Option<i32> {
    eprintln!("rhea: the guest panicked: {message}");
    let actions = machine.actions();
    // Switching off would only pause.
    let pauses = actions.shutdown == ShutdownAction::Pause && actions.panic != PanicAction::None;
    let action = if pauses { PanicAction::Pause } else { actions.panic };
    machine.tell(MachineEvent::GuestPanicked(action));
    if action == PanicAction::None {
        return None;
    }
    machine.stop(RunState::GuestPanicked);
    if action == PanicAction::Pause {
        return None;
    }
    machine.tell(MachineEvent::Shutdown { cause: ShutdownCause::GuestPanic, reset: false });
    Some(i32::from(action == PanicAction::ExitFailure))
}

/// A watchdog's time has ended. The value is the exit status, if the emulator ends.
fn watchdog(machine: &Machine, options: &RunOptions) -> Option<i32> {
    let action = machine.actions().watchdog;
    machine.tell(MachineEvent::Watchdog(action));
    match action {
        WatchdogAction::Reset => return handle(machine, VmRequest::Reset(ShutdownCause::Guest), options),
        WatchdogAction::Shutdown => return handle(machine, VmRequest::PowerDown, options),
        WatchdogAction::PowerOff => return Some(0),
        WatchdogAction::Pause => {
            if machine.running() {
                machine.stop(RunState::Watchdog);
            }
        }
        WatchdogAction::Debug => eprintln!("rhea: the watchdog's time has ended"),
        WatchdogAction::None => {}
        WatchdogAction::InjectNmi => {
            machine.inject_nmi();
        }
    }
    None
}

/// Carries out one request. The value is the exit status, if the emulator ends.
fn handle(machine: &Machine, request: VmRequest, options: &RunOptions) -> Option<i32> {
    match request {
        VmRequest::Reset(cause) => {
            let guests = matches!(cause, ShutdownCause::Guest | ShutdownCause::GuestPanic);
            if guests && machine.actions().reboot == RebootAction::Shutdown {
                return power_off(machine, cause, true);
            }
            machine.reset();
            machine.tell(MachineEvent::Reset(cause));
        }
        VmRequest::PowerOff(cause) => return power_off(machine, cause, false),
        VmRequest::GuestPanic(message) => return guest_panic(machine, &message),
        VmRequest::IoError => {
            if machine.running() {
                machine.stop(RunState::IoError);
            }
        }
        VmRequest::Watchdog => return watchdog(machine, options),
        VmRequest::PowerDown => {
            machine.tell(MachineEvent::PowerDown);
            machine.power_button();
        }
        VmRequest::Suspend => machine.suspend(),
        VmRequest::Wake(reason) => machine.wake(reason),
        VmRequest::Stop | VmRequest::InternalError => {
            if matches!(machine.run_state(), RunState::Running | RunState::Suspended) {
                let failed = request == VmRequest::InternalError;
                machine.stop(if failed { RunState::InternalError } else { RunState::Paused });
            }
        }
        VmRequest::Continue => {
            let state = machine.run_state();
            if state != RunState::Running && !state.needs_reset() && state.held().is_none() {
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
        VmRequest::Unplug(id) => {
            if let Err(e) = machine.device_del(&id) {
                eprintln!("rhea: {e}");
            }
        }
        VmRequest::Fence(fence) => fence.pass(),
        VmRequest::Call(call) => call.run(),
        VmRequest::Quit(status) => return Some(status),
        VmRequest::End(cause) => {
            machine.tell(MachineEvent::Shutdown { cause, reset: false });
            return Some(0);
        }
    }
    None
}

/// Runs the machine until it ends; the value is the exit status.
#[must_use]
pub fn run(machine: &Arc<Machine>, requests: &Receiver<VmRequest>, options: &RunOptions) -> i32 {
    if !options.paused {
        machine.start();
    }
    // What the guest asked for at last before it was stopped to be moved, for when it goes on here.
    let mut later = Vec::new();
    let moving = || machine.run_state() == RunState::FinishMigrate;
    let own =
        |r: &VmRequest| matches!(r, VmRequest::Call(_) | VmRequest::Fence(_) | VmRequest::Quit(_) | VmRequest::End(_));
    // All senders gone cannot be: the machine holds one.
    let status = requests.iter().find_map(|request| {
        if moving() && !own(&request) {
            later.push(request);
            return None;
        }
        let ended = handle(machine, request, options);
        if later.is_empty() || moving() || ended.is_some() {
            return ended;
        }
        let waiting = std::mem::take(&mut later);
        let here = machine.run_state() != RunState::PostMigrate;
        waiting.into_iter().filter(|_| here).find_map(|request| handle(machine, request, options))
    });
    let status = status.unwrap_or(0);
    machine.shut_down();
    status
}
