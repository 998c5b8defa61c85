//! Interrupts of an assigned function: one state machine of {none, INTx slow, INTx fast, MSI, MSI-X}.
//!
//! The kernel masks INTx at the first interrupt and signals the trigger eventfd; nothing more comes until it is unmasked. On the *slow
//! path* a thread waits for the eventfd and raises the function's pin. Where the controller does not tell of the end of an interrupt,
//! BARs are hidden meanwhile, so that the access that takes back its cause is seen: the line falls with it, before software can tell the
//! controller of the end. A function that does not say whether it asserts INTx has its next access taken for that. A timer shows BARs
//! again. On the *fast path* the accelerator raises the line itself and at its end signals an eventfd that unmasks. A vector of MSI or
//! MSI-X is an eventfd of which the accelerator makes the message, or the thread does.
//!
//! # Locks
//! `mode` is held over a whole transition, with calls of the kernel, the accelerator and the pin in it, and taken for nothing else.
//! `state` is short, and what comes from the function or from the guest's service of an interrupt takes it alone: an interrupt that a
//! transition overtakes finds that it is no longer wanted, and leaves its eventfd alone.

mod intx;
mod vectors;

#[cfg(test)]
mod tests;

pub use vectors::Message;

use crate::sys::{DeviceFile, IrqAction, IrqData, irq};
use parking_lot::Mutex;
use rhea_accel::{IrqFd, IrqLine, MsiMessage};
use rustix::event::{EventfdFlags, eventfd};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use vectors::{Slot, Vectors};

/// An eventfd, closed when the last who waits for it has let go.
pub type Event = Arc<OwnedFd>;

/// A new eventfd.
///
/// # Errors
/// The host's: no more descriptors.
pub fn event() -> io::Result<Event> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

/// Takes what was signalled; false: nothing was.
pub fn drain(event: &Event) -> bool {
    let mut count = [0; 8];
    rustix::io::read(&**event, &mut count).is_ok()
}

/// What an eventfd tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Intx,
    Vector(u32),
    Error,
    Request,
}

/// What interrupts reach in the machine.
pub trait Surroundings: Send + Sync {
    /// Level of the function's pin. May call back into [`Interrupts::end`].
    fn set_pin(&self, level: bool);
    /// Shows BARs to the guest as memory, or lets all accesses come through the device.
    fn show_bars(&self, shown: bool);
    /// Starts the time after which BARs are shown again, or takes it back.
    fn arm(&self, on: bool);
    /// Does the controller behind the pin tell of the end of interrupts, by [`Interrupts::end`]?
    fn tells_end(&self) -> bool;
    /// Does the function say that it asserts INTx (Interrupt Status in its status register, PCI Local Bus 3.0 6.2.3)?
    fn asserts(&self) -> bool;
    /// How the line can be raised past this process, and the controller's input; `None`: not at all, or there is no controller yet.
    fn fast_line(&self) -> Option<(Arc<dyn IrqFd>, IrqLine)>;
    /// How messages can be sent past this process.
    fn fast_messages(&self) -> Option<Arc<dyn IrqFd>>;
    /// A message with who sends it.
    fn message(&self, message: Message) -> MsiMessage;
    fn send(&self, message: Message);
    /// Calls [`Interrupts::signalled`] whenever the eventfd is signalled.
    ///
    /// # Errors
    /// The host's.
    fn watch(&self, source: Source, event: &Event) -> io::Result<()>;
    /// Ends that; a call that has begun is not waited for.
    fn unwatch(&self, event: &Event);
    /// Tells the user of what does not work, in one line.
    fn warn(&self, text: &str);
    /// For the log of transitions.
    fn trace(&self, text: fmt::Arguments<'_>);
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Interrupts carried by this process.
    pub intx: AtomicU64,
    pub messages: AtomicU64,
    /// Ends of interrupts on the slow path.
    pub ends: AtomicU64,
    pub transitions: AtomicU64,
    /// Times the fast path was joined and left.
    pub joined: AtomicU64,
    pub left: AtomicU64,
    /// Times BARs were hidden and shown.
    pub remaps: AtomicU64,
    pub failures: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// The state, with what it owns.
enum Mode {
    /// Also while MSI or MSI-X could not be enabled.
    None,
    Intx(intx::Intx),
    Vectors(Vectors),
    /// The function was given up: it gets no more interrupts.
    Gone,
}

/// What the thread and the guest's services look at.
#[derive(Default)]
struct State {
    /// INTx on the slow path: what is waited for.
    trigger: Option<Event>,
    pending: bool,
    hidden: bool,
    /// [`Surroundings::asserts`] was seen to be false: it is no bit that is always set.
    says: bool,
    vectors: Vec<Slot>,
}

/// Which interrupts are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    None,
    IntxSlow,
    IntxFast,
    /// Vectors, and how many of them the accelerator sends.
    Msi {
        vectors: u32,
        fast: u32,
    },
    Msix {
        vectors: u32,
        fast: u32,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "none"),
            Self::IntxSlow => write!(f, "INTx slow"),
            Self::IntxFast => write!(f, "INTx fast"),
            Self::Msi { vectors, fast } => write!(f, "MSI, {vectors} vectors, {fast} fast"),
            Self::Msix { vectors, fast } => write!(f, "MSI-X, {vectors} vectors, {fast} fast"),
        }
    }
}

/// The interrupts of a function.
pub struct Interrupts {
    device: Arc<dyn DeviceFile>,
    around: Box<dyn Surroundings>,
    /// The function has INTx.
    intx: bool,
    mode: Mutex<Mode>,
    state: Mutex<State>,
    /// How many signals are being carried.
    carried: AtomicUsize,
    pub counters: Counters,
}

impl Interrupts {
    /// Those of `device`, all off.
    #[must_use]
    pub fn new(device: Arc<dyn DeviceFile>, intx: bool, around: Box<dyn Surroundings>) -> Arc<Self> {
        let (mode, state) = (Mutex::new(Mode::None), Mutex::default());
        let carried = AtomicUsize::new(0);
        Arc::new(Self { device, around, intx, mode, state, carried, counters: Counters::default() })
    }

    // ---- transitions ----

    /// Enables INTx, if the function has it and nothing else is in use (after a reset).
    pub fn start(&self) {
        let mut mode = self.mode.lock();
        if matches!(*mode, Mode::None) {
            self.enable_intx(&mut mode);
        }
    }
    /// Disables everything.
    pub fn stop(&self) {
        let mut mode = self.mode.lock();
        self.disable(&mut mode);
    }
    /// Disables everything for good.
    pub fn give_up(&self) {
        let mut mode = self.mode.lock();
        self.disable(&mut mode);
        *mode = Mode::Gone;
    }
    /// The guest enabled MSI or MSI-X (`index`), whose vectors send these messages; `None`: it is masked.
    pub fn vectors_on(&self, index: u32, messages: &[Option<Message>]) {
        let mut mode = self.mode.lock();
        if matches!(*mode, Mode::Gone) {
            return;
        }
        self.disable(&mut mode);
        self.enable_vectors(&mut mode, index, messages);
    }
    /// The guest disabled them: INTx is there again at once.
    pub fn vectors_off(&self) {
        let mut mode = self.mode.lock();
        if matches!(*mode, Mode::Gone) {
            return;
        }
        self.disable(&mut mode);
        self.enable_intx(&mut mode);
    }
    /// The guest changed or masked (`None`) a vector.
    pub fn vector(&self, n: u32, message: Option<Message>) {
        let mut mode = self.mode.lock();
        if let Mode::Vectors(vectors) = &mut *mode {
            self.change_vector(vectors, n, message);
        }
    }
    /// Leaves fast paths: those of the line, or with `all` of messages as well (the controller goes).
    pub fn leave(&self, all: bool) {
        match &mut *self.mode.lock() {
            Mode::Intx(intx) => self.leave_fast(intx),
            Mode::Vectors(vectors) if all => self.leave_messages(vectors),
            _ => {}
        }
    }
    /// Takes fast paths again, where there are any now, and looks whether an interrupt has come to its end meanwhile.
    pub fn join(&self) {
        match &mut *self.mode.lock() {
            Mode::Intx(intx) => {
                self.leave_fast(intx);
                self.join_fast(intx);
            }
            Mode::Vectors(vectors) => self.join_messages(vectors),
            _ => {}
        }
    }
    fn disable(&self, mode: &mut Mode) {
        match std::mem::replace(mode, Mode::None) {
            Mode::None => {}
            Mode::Gone => *mode = Mode::Gone,
            Mode::Intx(intx) => self.disable_intx(intx),
            Mode::Vectors(vectors) => self.disable_vectors(vectors),
        }
    }

    // ---- what comes from the function ----

    /// An eventfd that is watched was signalled.
    pub fn signalled(&self, source: Source) {
        self.carried.fetch_add(1, SeqCst);
        match source {
            Source::Intx => self.intx_signalled(),
            Source::Vector(n) => self.vector_signalled(n),
            Source::Error | Source::Request => {}
        }
        self.carried.fetch_sub(1, SeqCst);
    }

    /// Carries what has been signalled and not been seen yet, when the function does nothing any more, and waits (not for long) for who is
    /// carrying some of it.
    pub fn catch_up(&self) {
        let vectors = self.state.lock().vectors.len() as u32;
        self.intx_signalled();
        (0..vectors).for_each(|n| self.vector_signalled(n));
        for _ in 0..1000 {
            if self.carried.load(SeqCst) == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    // ---- for all ----

    fn set(&self, index: u32, action: IrqAction, data: IrqData<'_>) -> io::Result<()> {
        self.device.set_irqs(index, action, 0, data)
    }
    /// `VFIO_IRQ_SET_DATA_NONE` of 0 vectors. Tried again, since nothing else can be enabled before.
    fn off(&self, index: u32) {
        let off = || self.set(index, IrqAction::Trigger, IrqData::None(0));
        if let Err(e) = off().or_else(|_| off()) {
            self.failed(index, "cannot be disabled", &e);
        }
    }
    fn failed(&self, index: u32, what: &str, e: &io::Error) {
        Counters::add(&self.counters.failures);
        let name = match index {
            irq::INTX => "INTx",
            irq::MSI => "MSI",
            _ => "MSI-X",
        };
        self.around.warn(&format!("{name} {what}: {e}"));
    }
    fn entered(&self, mode: &Mode) {
        Counters::add(&self.counters.transitions);
        self.around.trace(format_args!("interrupts: {}", Self::kind_of(mode)));
    }
    fn kind_of(mode: &Mode) -> Kind {
        match mode {
            Mode::None | Mode::Gone => Kind::None,
            Mode::Intx(intx) if intx.is_fast() => Kind::IntxFast,
            Mode::Intx(_) => Kind::IntxSlow,
            Mode::Vectors(v) if v.index() == irq::MSI => Kind::Msi { vectors: v.used(), fast: v.fast() },
            Mode::Vectors(v) => Kind::Msix { vectors: v.used(), fast: v.fast() },
        }
    }
    /// What is in use, for `info`. Waits for a transition.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Self::kind_of(&self.mode.lock())
    }
}

/// The number of an eventfd, for the kernel.
fn raw(event: &Event) -> Option<std::os::fd::RawFd> {
    Some(event.as_raw_fd())
}
