//! Commands and events of the machine's life: run state, reset, power.

use super::Context;
use rhea_accel::{ShutdownCause, VmRequest, WakeReason};
use rhea_control::{Call, Commands, Error, Events, Value, json};
use rhea_machine::Machine;
use rhea_machine::machine::{
    Actions, Architecture, MachineEvent, PanicAction, RebootAction, RunState, ShutdownAction, WATCHDOG_ACTIONS,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a change of the run state may take before the command that asked for it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn register(commands: &mut Commands<Context>, machine: &Machine) {
    commands.add(&[
        ("query-status", status),
        ("stop", stop),
        ("cont", cont),
        ("system_reset", reset),
        ("system_powerdown", power_down),
        ("quit", quit),
        ("set-action", set_action),
        ("watchdog-set-action", set_watchdog),
        ("query-current-machine", current_machine),
    ]);
    if machine.has_nmi() {
        commands.add(&[("inject-nmi", inject_nmi)]);
    }
    if machine.can_sleep() {
        commands.add(&[("system_wakeup", wake_up)]);
    }
}

type Result = std::result::Result<Value, Error>;

/// Asks the main loop and waits until it has acted.
fn request(context: &Context, request: VmRequest) -> Result {
    let control = context.machine.control();
    control.request(request);
    if control.settle(PATIENCE) { Ok(json!({})) } else { Err(Error::new("The machine does not respond")) }
}

fn status(context: &Context, _: &mut Call<'_>) -> Result {
    let state = context.machine.run_state();
    Ok(json!({"running": state == RunState::Running, "status": state.word()}))
}

fn stop(context: &Context, _: &mut Call<'_>) -> Result {
    request(context, VmRequest::Stop)
}

fn cont(context: &Context, _: &mut Call<'_>) -> Result {
    if context.machine.run_state().needs_reset() {
        return Err(Error::new("Resetting the Virtual Machine is required"));
    }
    if let Some(why) = context.machine.run_state().held() {
        return Err(Error::new(why));
    }
    // Here an error has somebody to be told.
    let machine = context.machine.clone();
    let taken = context.machine.control().run(move || machine.take_disks());
    taken.unwrap_or(Ok(())).map_err(|e| Error::new(e.to_string()))?;
    request(context, VmRequest::Continue)
}

fn reset(context: &Context, _: &mut Call<'_>) -> Result {
    let state = context.machine.run_state();
    if let Some(why) = state.held().filter(|_| state != RunState::RestoreVm) {
        return Err(Error::new(why));
    }
    request(context, VmRequest::Reset(ShutdownCause::Control))
}

fn power_down(context: &Context, _: &mut Call<'_>) -> Result {
    request(context, VmRequest::PowerDown)
}

fn inject_nmi(context: &Context, _: &mut Call<'_>) -> Result {
    context.machine.inject_nmi();
    Ok(json!({}))
}

fn wake_up(context: &Context, _: &mut Call<'_>) -> Result {
    if context.machine.run_state() != RunState::Suspended {
        return Err(Error::new("Unable to wake up: guest is not in suspended state"));
    }
    request(context, VmRequest::Wake(WakeReason::Other))
}

fn quit(context: &Context, call: &mut Call<'_>) -> Result {
    let control = context.machine.control().clone();
    call.after_reply(move || control.request(VmRequest::End(ShutdownCause::Control)));
    Ok(json!({}))
}

/// The actions of words, with others as they were; words are checked before.
pub fn actions(mut actions: Actions, word: impl Fn(&str) -> Option<String>) -> Actions {
    match word("reboot").as_deref() {
        Some("shutdown") => actions.reboot = RebootAction::Shutdown,
        Some(_) => actions.reboot = RebootAction::Reset,
        None => {}
    }
    match word("shutdown").as_deref() {
        Some("pause") => actions.shutdown = ShutdownAction::Pause,
        Some(_) => actions.shutdown = ShutdownAction::PowerOff,
        None => {}
    }
    match word("panic").as_deref() {
        Some("pause") => actions.panic = PanicAction::Pause,
        Some("shutdown") => actions.panic = PanicAction::Shutdown,
        Some("none") => actions.panic = PanicAction::None,
        Some(_) => actions.panic = PanicAction::ExitFailure,
        None => {}
    }
    let given = word("watchdog");
    if let Some((_, action)) = WATCHDOG_ACTIONS.iter().find(|(word, _)| given.as_deref() == Some(word)) {
        actions.watchdog = *action;
    }
    actions
}

fn set_watchdog(context: &Context, call: &mut Call<'_>) -> Result {
    let (machine, word) = (&context.machine, call.required("action").to_owned());
    machine.set_actions(actions(machine.actions(), |key| (key == "watchdog").then(|| word.clone())));
    Ok(json!({}))
}

fn set_action(context: &Context, call: &mut Call<'_>) -> Result {
    let machine = &context.machine;
    machine.set_actions(actions(machine.actions(), |key| call.text(key).map(str::to_owned)));
    Ok(json!({}))
}

fn current_machine(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({"wakeup-suspend-support": context.machine.can_sleep()}))
}

/// The protocol's name of an architecture.
pub fn target(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Aarch64 => "aarch64",
        Architecture::X86_64 => "x86_64",
        Architecture::Ppc64 => "ppc64",
    }
}

/// Who did it, and the word for it: of a reset, or of an end.
fn cause(cause: ShutdownCause, reset: bool) -> Value {
    let (guest, reason) = match (cause, reset) {
        (ShutdownCause::Guest, true) => (true, "guest-reset"),
        (ShutdownCause::Guest, false) => (true, "guest-shutdown"),
        (ShutdownCause::GuestPanic, _) => (true, "guest-panic"),
        (ShutdownCause::Host, _) => (false, "host-ui"),
        (ShutdownCause::Control, true) => (false, "host-qmp-system-reset"),
        (ShutdownCause::Control, false) => (false, "host-qmp-quit"),
        (ShutdownCause::Signal, _) => (false, "host-signal"),
    };
    json!({"guest": guest, "reason": reason})
}

/// Has the machine's changes sent to those who listen.
pub fn send_events(machine: &Arc<Machine>, events: &Arc<Events>) {
    if let Some(wall) = machine.inventory().wall() {
        let events = events.clone();
        wall.on_change(move |offset| events.emit("RTC_CHANGE", json!({"offset": offset, "qom-path": "/machine/rtc"})));
    }
    let events = events.clone();
    machine.listen(move |event| {
        let (name, data) = match event {
            MachineEvent::Stopped => ("STOP", Value::Null),
            MachineEvent::Resumed => ("RESUME", Value::Null),
            MachineEvent::Reset(by) => ("RESET", cause(by, true)),
            MachineEvent::Shutdown { cause: by, reset } => ("SHUTDOWN", cause(by, reset)),
            MachineEvent::PowerDown => ("POWERDOWN", Value::Null),
            MachineEvent::Suspended => ("SUSPEND", Value::Null),
            MachineEvent::Woken => ("WAKEUP", Value::Null),
            MachineEvent::Watchdog(action) => ("WATCHDOG", json!({"action": action.word()})),
            MachineEvent::GuestPanicked(action) => {
                let action = match action {
                    PanicAction::Pause => "pause",
                    PanicAction::Shutdown | PanicAction::ExitFailure => "poweroff",
                    PanicAction::None => "run",
                };
                ("GUEST_PANICKED", json!({"action": action}))
            }
        };
        events.emit(name, data);
    });
}
