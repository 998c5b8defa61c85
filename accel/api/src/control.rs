//! Requests to the machine's main loop.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Why the machine shuts down or resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// The guest asked for it.
    Guest,
    /// The user did (Ctrl-A X, human monitor, debugger).
    Host,
    /// A program that controls the emulator did.
    Control,
    /// A signal of the host did.
    Signal,
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
    /// A watchdog's time has ended.
    Watchdog,
    /// A request of a drive has failed, which waits until the machine goes on.
    IoError,
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
    /// Something that the machine needs has failed (an assigned device reports an error): it stands until it is reset.
    InternalError,
    /// Leave the emulator at once with this status.
    Quit(i32),
    /// Leave the emulator because somebody outside of it wants so.
    End(ShutdownCause),
    /// Ask the guest to give up the device of this id, which its owner wants back.
    Unplug(String),
    /// Tell that everything asked for before was done.
    Fence(Fence),
    /// Do this, between two changes of the machine's life.
    Call(Call),
}

/// One end of [`VmControl::settle`].
#[derive(Clone, Debug)]
pub struct Fence(Sender<()>);

impl Fence {
    /// Lets go who waits.
    pub fn pass(&self) {
        // Who waited may have given up.
        let _ = self.0.try_send(());
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Fence {}

/// Work for the main loop.
#[derive(Clone)]
pub struct Call(Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>);

impl Call {
    /// Does it; once.
    pub fn run(&self) {
        let work = self.0.lock().take();
        if let Some(work) = work {
            work();
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Call {}

/// A handle to the main loop; cheap to clone, callable from any thread, never blocks.
#[derive(Clone)]
pub struct VmControl {
    sender: Sender<VmRequest>,
    halt: Arc<OnceLock<Halt>>,
}

/// Asks all vCPUs to pause, without waiting for them.
type Halt = Box<dyn Fn() + Send + Sync>;

impl VmControl {
    /// A handle and the main loop's end.
    #[must_use]
    pub fn new() -> (Self, Receiver<VmRequest>) {
        let (sender, receiver) = unbounded();
        (Self { sender, halt: Arc::default() }, receiver)
    }
    /// Sets how vCPUs are asked to pause when one of them ends or resets the machine or suspends it: what comes after that in
    /// guest code must not run before the main loop acts. The first one stays.
    pub fn on_halt(&self, halt: Halt) {
        let _ = self.halt.set(halt);
    }
    pub fn request(&self, request: VmRequest) {
        let ends = matches!(request, VmRequest::Reset(_) | VmRequest::PowerOff(_) | VmRequest::Suspend);
        if let Some(halt) = self.halt.get().filter(|_| ends) {
            halt();
        }
        // Nobody listens any more only while the machine is torn down.
        let _ = self.sender.send(request);
    }
    /// Waits until everything asked for so far was done, at most `limit`; false: it takes longer. Not for the main loop's thread.
    #[must_use]
    pub fn settle(&self, limit: Duration) -> bool {
        let (sender, passed) = bounded(1);
        self.request(VmRequest::Fence(Fence(sender)));
        passed.recv_timeout(limit).is_ok()
    }
    /// Has the main loop run `f` and waits for it; `None`: the emulator ends. Not for the main loop's thread.
    pub fn run<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        let (sender, result) = bounded(1);
        let work: Box<dyn FnOnce() + Send> = Box::new(move || {
            // Who asked waits.
            let _ = sender.send(f());
        });
        self.request(VmRequest::Call(Call(Arc::new(Mutex::new(Some(work))))));
        result.recv().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn fences() {
        let (control, requests) = VmControl::new();
        assert!(!control.settle(Duration::from_millis(1)));
        let loops = std::thread::spawn(move || {
            for request in requests {
                match request {
                    VmRequest::Fence(fence) => fence.pass(),
                    VmRequest::Call(call) => call.run(),
                    _ => {}
                }
            }
        });
        control.request(VmRequest::Stop);
        assert!(control.settle(Duration::from_secs(60)));
        assert_eq!(control.run(|| 7), Some(7));
        drop(control);
        assert!(loops.join().is_ok());
    }

    #[test]
    fn vcpus_stop_before_the_main_loop_knows() {
        let (control, requests) = VmControl::new();
        let halts = Arc::new(AtomicU32::new(0));
        let (seen, waiting) = (halts.clone(), requests.clone());
        control.on_halt(Box::new(move || {
            assert!(waiting.is_empty());
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        let other = control.clone();
        for request in
            [VmRequest::Suspend, VmRequest::Reset(ShutdownCause::Guest), VmRequest::PowerOff(ShutdownCause::Guest)]
        {
            other.request(request);
            assert!(requests.try_recv().is_ok());
        }
        other.request(VmRequest::PowerDown);
        assert_eq!(halts.load(Ordering::Relaxed), 3);
    }
}
