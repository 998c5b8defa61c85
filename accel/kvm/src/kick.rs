//! Requests to a vCPU, and how it is made to leave guest code: a signal, sent only to a thread that is in guest code or on its
//! way into it, and exactly one for each time it is there.
//!
//! The thread says that it goes in, then looks for requests; others leave a request, then look whether it is in. Either it sees
//! the request, or they see it. The signal's handler sets the byte of the shared page that makes a run return at once: it may come
//! before the run begins. A thread that was sent one waits for it when it comes out, so that none is left for its next run.
#![expect(unsafe_code, reason = "a signal handler, and a byte shared with the kernel")]

use parking_lot::{Mutex, RwLock};
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Bits of requests.
pub mod request {
    /// Interrupt inputs changed.
    pub const INTERRUPT: u32 = 1;
    /// There is work in the queue, or a pause or an end is wanted.
    pub const WORK: u32 = 2;
}

/// Where a vCPU's thread is.
const OUT: u32 = 0;
const IN: u32 = 1;
/// In, and a signal is on its way.
const KICKED: u32 = 2;

/// Its signal: one that programs do not use for themselves.
fn signal() -> i32 {
    libc::SIGRTMIN() + 6
}

/// What the handler writes to on this thread.
#[derive(Clone, Copy)]
struct Target {
    arrived: *const AtomicBool,
    immediate_exit: *const AtomicU8,
}

thread_local! {
    static TARGET: Cell<Target> =
        const { Cell::new(Target { arrived: ptr::null(), immediate_exit: ptr::null() }) };
}

extern "C" fn arrived(_: libc::c_int) {
    // The cell has no destructor and a constant beginning: to look at it allocates nothing.
    let target = TARGET.get();
    if !target.arrived.is_null() {
        // SAFETY: `Attached` keeps both alive while its thread's cell names them.
        unsafe {
            (*target.immediate_exit).store(1, SeqCst);
            (*target.arrived).store(true, SeqCst);
        }
    }
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler only does what is allowed in one (two atomic stores).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = arrived as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal(), &raw const action, ptr::null_mut());
        }
    });
}

/// One vCPU's.
#[derive(Default)]
pub struct Kick {
    word: AtomicU32,
    state: AtomicU32,
    arrived: AtomicBool,
    /// The thread's number, for the kernel.
    thread: AtomicI32,
    kicks: AtomicU64,
}

impl Kick {
    /// Leaves requests, and makes the vCPU leave guest code.
    pub fn request(&self, bits: u32) {
        self.word.fetch_or(bits, SeqCst);
        self.leave();
    }
    /// Makes the vCPU leave guest code, if it is there.
    pub fn leave(&self) {
        if self.state.compare_exchange(IN, KICKED, SeqCst, SeqCst).is_err() {
            return;
        }
        self.kicks.fetch_add(1, SeqCst);
        let thread = self.thread.load(SeqCst);
        // SAFETY: a signal to a thread of this process, which waits for it before it ends.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) } == 0;
        if !sent {
            // The queue of signals is full: the thread may stay in guest code until its next exit, but waits for nothing then.
            self.arrived.store(true, SeqCst);
        }
    }
    /// Requests that were left, for the vCPU's thread.
    pub fn take(&self) -> u32 {
        self.word.swap(0, SeqCst)
    }
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.word.load(SeqCst)
    }
    /// Is the vCPU outside guest code? It does not go in while somebody sees to it ([`Gate`]).
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.state.load(SeqCst) == OUT
    }
    /// Signals sent so far.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        self.kicks.load(SeqCst)
    }
}

/// The vCPU's side, while its thread lives.
pub struct Attached {
    kick: Arc<Kick>,
    immediate_exit: *const AtomicU8,
}

impl Attached {
    /// To be made on the vCPU's thread; `immediate_exit` is its byte of the shared page.
    ///
    /// # Safety
    /// The byte is valid as long as the value, and accessed by nobody else but the kernel.
    #[must_use]
    pub unsafe fn new(kick: &Arc<Kick>, immediate_exit: *mut u8) -> Self {
        install_handler();
        // SAFETY: a number, and this thread's mask of signals.
        unsafe {
            kick.thread.store(libc::gettid(), SeqCst);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        }
        let immediate_exit: *const AtomicU8 = immediate_exit.cast();
        TARGET.set(Target { arrived: &raw const kick.arrived, immediate_exit });
        Self { kick: kick.clone(), immediate_exit }
    }
    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the contract of `new`.
        unsafe { &*self.immediate_exit }
    }
    /// The vCPU is about to enter guest code; false if something is to be looked at first.
    #[must_use]
    pub fn enter(&self, gate: &Gate) -> bool {
        self.kick.state.store(IN, SeqCst);
        if self.kick.pending() != 0 || gate.closed.load(SeqCst) {
            self.exit();
            return false;
        }
        true
    }
    /// It came back.
    pub fn exit(&self) {
        if self.kick.state.swap(OUT, SeqCst) == KICKED {
            while !self.kick.arrived.swap(false, SeqCst) {
                std::thread::yield_now();
            }
            self.byte().store(0, SeqCst);
        }
    }
    /// Runs `f`, in which a run returns at once: what the last exit left to be completed is.
    pub fn completing<R>(&self, f: impl FnOnce() -> R) -> R {
        self.byte().store(1, SeqCst);
        let r = f();
        self.byte().store(0, SeqCst);
        r
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.exit();
        TARGET.set(Target { arrived: ptr::null(), immediate_exit: ptr::null() });
    }
}

/// Keeps all vCPUs of a machine outside guest code for a while.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    exclusive: Mutex<()>,
    vcpus: RwLock<Vec<Arc<Kick>>>,
}

impl Gate {
    pub fn add(&self, kick: &Arc<Kick>) {
        self.vcpus.write().push(kick.clone());
    }
    /// Runs `f` while no vCPU is in guest code. The caller must not be: a vCPU's thread calls it from a device.
    pub fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        let guard = loop {
            // The holder waits for nobody who is here.
            if let Some(guard) = self.exclusive.try_lock() {
                break guard;
            }
            std::thread::yield_now();
        };
        self.closed.store(true, SeqCst);
        let all = self.vcpus.read().clone();
        for kick in &all {
            kick.leave();
        }
        for kick in &all {
            while !kick.is_out() {
                std::thread::yield_now();
            }
        }
        let r = f();
        self.closed.store(false, SeqCst);
        drop(guard);
        r
    }
    /// For a vCPU's thread: returns when it may go in.
    pub fn wait_open(&self) {
        while self.closed.load(SeqCst) {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// A vCPU whose guest code is a sleep that ends when the byte is set.
    fn vcpu(kick: &Arc<Kick>, gate: &Gate, end: &AtomicBool, inside: &AtomicBool) -> u64 {
        let byte = Box::new(AtomicU8::new(0));
        // SAFETY: the byte outlives the value, which is dropped before it.
        let attached = unsafe { Attached::new(kick, byte.as_ptr()) };
        let mut runs = 0;
        while !end.load(SeqCst) {
            kick.take();
            gate.wait_open();
            if !attached.enter(gate) {
                continue;
            }
            inside.store(true, SeqCst);
            runs += 1;
            let until = Instant::now() + Duration::from_secs(20);
            while byte.load(SeqCst) == 0 {
                assert!(Instant::now() < until, "a kick was lost");
                std::hint::spin_loop();
            }
            inside.store(false, SeqCst);
            attached.exit();
            assert_eq!(byte.load(SeqCst), 0);
        }
        runs
    }

    #[test]
    fn no_kick_is_lost_and_none_is_left() {
        let (kick, gate) = (Arc::new(Kick::default()), Gate::default());
        let (end, inside) = (AtomicBool::new(false), AtomicBool::new(false));
        gate.add(&kick);
        std::thread::scope(|s| {
            let thread = s.spawn(|| vcpu(&kick, &gate, &end, &inside));
            // On a busy host all could be over before it begins.
            let until = Instant::now() + Duration::from_secs(20);
            while !inside.load(SeqCst) && Instant::now() < until {
                std::thread::yield_now();
            }
            let requests = s.spawn(|| {
                for i in 0..2000 {
                    kick.request(request::INTERRUPT);
                    if i % 64 == 0 {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            });
            let changes = s.spawn(|| {
                for _ in 0..500 {
                    assert!(gate.exclusively(|| !inside.load(SeqCst)));
                }
            });
            requests.join().unwrap();
            changes.join().unwrap();
            end.store(true, SeqCst);
            kick.request(request::WORK);
            let runs = thread.join().unwrap();
            // One for each run, and some for those that did not begin.
            assert!(runs > 0 && kick.kicks() >= runs, "{runs} {}", kick.kicks());
        });
    }
}
