//! Requests to the machine's main loop.

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Why the machine shuts down or resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// The guest asked for it.
    Guest,
    /// The user did (monitor, Ctrl-A X, signal).
    Host,
    /// The guest crashed (panic device, triple fault).
    GuestPanic,
}

/// What ends suspend to RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    PowerButton,
    /// The alarm of the real-time clock.
    Rtc,
    /// Input, a device's power-management event, the user.
    Other,
}

/// What the main loop is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmRequest {
    Reset(ShutdownCause),
    PowerOff(ShutdownCause),
    GuestPanic(String),
    /// A breakpoint, watchpoint or step of the debugger stopped this vCPU.
    DebugStop {
        vcpu: u32,
        stop: crate::debug::DebugStop,
    },
    /// Press the power button.
    PowerDown,
    /// Suspend to RAM: the processors stop and devices lose their state; [`Self::Wake`] ends it.
    Suspend,
    /// Without effect on a machine that is not suspended.
    Wake(WakeReason),
    /// Pause (monitor `stop`) and continue.
    Stop,
    Continue,
    /// Leave the emulator at once with this status.
    Quit(i32),
}

/// A handle to the main loop; cheap to clone, callable from any thread, never blocks. A vCPU that requests reset or power-off
/// should stop running guest code until the main loop acted (it is paused).
#[derive(Clone)]
pub struct VmControl {
    sender: Sender<VmRequest>,
}

impl VmControl {
    /// A handle and the main loop's end.
    #[must_use]
    pub fn new() -> (Self, Receiver<VmRequest>) {
        let (sender, receiver) = unbounded();
        (Self { sender }, receiver)
    }
    pub fn request(&self, request: VmRequest) {
        // Nobody listens any more only while the machine is torn down.
        let _ = self.sender.send(request);
    }
    pub fn reset(&self, cause: ShutdownCause) {
        self.request(VmRequest::Reset(cause));
    }
    pub fn power_off(&self, cause: ShutdownCause) {
        self.request(VmRequest::PowerOff(cause));
    }
    pub fn guest_panic(&self, message: &str) {
        self.request(VmRequest::GuestPanic(message.to_owned()));
    }
    pub fn debug_stop(&self, vcpu: u32, stop: crate::debug::DebugStop) {
        self.request(VmRequest::DebugStop { vcpu, stop });
    }
}
