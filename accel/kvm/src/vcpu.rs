//! A vCPU's thread: the same for all architectures, which say what a [`Processor`] does.
#![expect(unsafe_code, reason = "hands a byte of the page shared with the kernel to the signal handler")]

use crate::error::KvmError;
use crate::kick::{Attached, Kick, request};
use parking_lot::Mutex;
use rhea_accel::{GuestVcpu, RunControl, Step, Vcpu, VcpuError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// What came of a look at a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycle {
    /// There is nothing to run before somebody wants something.
    Idle,
    /// Guest code was not entered; it may be at the next look.
    KeptOut,
    /// Guest code ran, and what it left for is done.
    Ran,
    /// Guest code stopped for the debugger.
    DebugStop,
}

/// What only a vCPU's thread touches: the kernel's vCPU, and the processor whose state it has while it runs.
pub trait Processor: Send + 'static {
    /// The processor as devices and debuggers see it.
    type Guest: 'static;
    /// Do a debugger's breakpoints and steps stop the guest?
    const DEBUGS: bool = true;
    /// The byte that, if not 0, makes the next run return at once. Valid as long as the value, and touched by nobody else.
    fn immediate_exit(&self) -> *mut u8;
    /// Guest code may run from now on.
    fn resumed(&mut self);
    /// It does not any more.
    fn paused(&mut self);
    /// Brings the kernel's state into the guest.
    ///
    /// # Errors
    /// [`KvmError`]: then the guest has the state that was known last.
    fn fetch(&mut self, attached: &Attached) -> Result<(), KvmError>;
    fn guest(&mut self) -> &mut Self::Guest;
    /// The guest was changed; the kernel gets its state before it runs.
    fn take_over(&mut self);
    /// An error of the kernel ends what the machine can do.
    fn fail(&mut self, e: &KvmError);
    /// Takes what interrupts, runs guest code, and does what it left it for.
    ///
    /// # Errors
    /// [`KvmError`], which [`Self::fail`] is told.
    fn cycle(&mut self, attached: &Attached) -> Result<Cycle, KvmError>;
}

/// Work for a vCPU's own thread.
pub enum Work<P: Processor> {
    Call(Box<dyn FnOnce() + Send>),
    Guest(Box<dyn FnOnce(&mut P::Guest) + Send>),
    Own(Box<dyn FnOnce(&mut P, &Attached) -> Result<(), KvmError> + Send>),
}

/// A vCPU.
pub struct KvmVcpu<P: Processor> {
    index: u32,
    me: Weak<Self>,
    kick: Arc<Kick>,
    control: RunControl,
    queue: Mutex<Vec<Work<P>>>,
    /// Until the thread takes it.
    inner: Mutex<Option<P>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    on_debug: Mutex<Option<Box<dyn Fn() + Send>>>,
    exits: AtomicU64,
}

impl<P: Processor> KvmVcpu<P> {
    pub(crate) fn new(index: u32, inner: P) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            index,
            me: me.clone(),
            kick: Arc::default(),
            control: RunControl::default(),
            queue: Mutex::default(),
            inner: Mutex::new(Some(inner)),
            thread: Mutex::default(),
            on_debug: Mutex::default(),
            exits: AtomicU64::new(0),
        })
    }

    pub(crate) fn kick_handle(&self) -> &Arc<Kick> {
        &self.kick
    }
    /// Signals sent to it so far.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        self.kick.kicks()
    }
    /// How often it left guest code.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }
    pub(crate) fn push(&self, work: Work<P>) {
        self.queue.lock().push(work);
        self.ask(request::WORK);
    }
    fn ask(&self, bits: u32) {
        self.kick.request(bits);
        self.control.wake();
    }

    /// The thread.
    fn run(self: Arc<Self>) {
        let Some(mut inner) = self.inner.lock().take() else { return };
        // SAFETY: the byte is of `inner`, which lives longer than `attached` (dropped in reverse order), and nothing else of
        // this program touches it (contract of the trait).
        let attached = unsafe { Attached::new(&self.kick, inner.immediate_exit()) };
        let mut counted = false;
        loop {
            if counted && !self.control.running() {
                inner.paused();
                counted = false;
            }
            match self.control.step(|| !self.queue.lock().is_empty()) {
                Step::Stop => return,
                Step::Work => self.work(&mut inner, &attached),
                Step::Run => {
                    if !counted {
                        inner.resumed();
                        counted = true;
                    }
                    self.kick.take();
                    self.work(&mut inner, &attached);
                    // Whoever wants something leaves a request: until then there is nothing else to look at.
                    while self.cycle(&mut inner, &attached) && self.kick.pending() == 0 {}
                }
            }
        }
    }

    fn work(&self, inner: &mut P, attached: &Attached) {
        loop {
            let work = std::mem::take(&mut *self.queue.lock());
            if work.is_empty() {
                return;
            }
            for w in work {
                let result = match w {
                    Work::Call(f) => {
                        f();
                        Ok(())
                    }
                    Work::Own(f) => f(inner, attached),
                    Work::Guest(f) => {
                        // After a failure the state is the last one known: who waits for the closure must not wait for ever.
                        let fetched = inner.fetch(attached);
                        f(inner.guest());
                        inner.take_over();
                        fetched
                    }
                };
                if let Err(e) = result {
                    inner.fail(&e);
                }
            }
        }
    }

    /// Runs guest code once; may it go on?
    fn cycle(&self, inner: &mut P, attached: &Attached) -> bool {
        match inner.cycle(attached) {
            Ok(Cycle::KeptOut) => return true,
            Ok(Cycle::Idle) => self.control.sleep(|| self.kick.pending() != 0, None),
            Ok(Cycle::Ran) => {
                // Nobody else counts.
                self.exits.store(self.exits() + 1, Ordering::Relaxed);
                return true;
            }
            Ok(Cycle::DebugStop) => {
                self.exits.store(self.exits() + 1, Ordering::Relaxed);
                self.control.request_pause();
                if let Some(f) = &*self.on_debug.lock() {
                    f();
                }
            }
            Err(e) => inner.fail(&e),
        }
        false
    }
}

impl<P: Processor> GuestVcpu<P::Guest> for KvmVcpu<P> {
    fn post(&self, f: Box<dyn FnOnce(&mut P::Guest) + Send>) {
        self.push(Work::Guest(f));
    }
    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let me = self.me.clone();
        Box::new(move || {
            if let Some(vcpu) = me.upgrade() {
                vcpu.ask(request::INTERRUPT);
            }
        })
    }
    fn on_debug_stop(&self, f: Box<dyn Fn() + Send>) {
        *self.on_debug.lock() = Some(f);
    }
    fn debugs(&self) -> bool {
        P::DEBUGS
    }
}

impl<P: Processor> Vcpu for KvmVcpu<P> {
    fn index(&self) -> u32 {
        self.index
    }
    fn start(&self) -> Result<(), VcpuError> {
        let index = self.index;
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || me.run())
            .map_err(|source| VcpuError::Thread { index, source })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }
    fn request_pause(&self) {
        self.control.request_pause();
        self.ask(request::WORK);
    }
    fn wait_paused(&self, timeout: Option<Duration>) -> bool {
        self.control.wait_paused(timeout)
    }
    fn resume(&self) {
        self.control.resume();
    }
    fn stop(&self) {
        self.control.request_stop();
        self.ask(request::WORK);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
    fn kick(&self) {
        self.ask(request::INTERRUPT);
    }
    fn request(&self, f: Box<dyn FnOnce() + Send>) {
        self.push(Work::Call(f));
    }
}
