//! Models of how vCPU threads and those who want something of them agree, explored over all interleavings. Each function has the
//! name of what it models in `kick.rs`. A signal is modelled by what its handler does, done by the thread that sends it; a run is a wait
//! for the byte that the handler sets, which also is why a run ends.
//!
//! The checker takes sequentially consistent stores and loads for release and acquire ones; where the order of a store before a load
//! matters the models have a fence, as the host's locked instructions are.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const OUT: u32 = 0;
const IN: u32 = 1;
const KICKED: u32 = 2;

struct Kick {
    word: AtomicU32,
    state: AtomicU32,
    /// The signal arrived; the byte that makes a run return at once.
    signal: Mutex<(bool, bool)>,
    handled: Condvar,
    closed: AtomicBool,
    inside: AtomicBool,
}

impl Kick {
    fn new() -> Arc<Kick> {
        Arc::new(Kick {
            word: AtomicU32::new(0),
            state: AtomicU32::new(OUT),
            signal: Mutex::new((false, false)),
            handled: Condvar::new(),
            closed: AtomicBool::new(false),
            inside: AtomicBool::new(false),
        })
    }
    fn request(&self) {
        self.word.fetch_or(1, SeqCst);
        fence(SeqCst);
        self.leave();
    }
    fn leave(&self) {
        if self.state.compare_exchange(IN, KICKED, SeqCst, SeqCst).is_ok() {
            *self.signal.lock().unwrap() = (true, true);
            self.handled.notify_all();
        }
    }
    fn enter(&self) -> bool {
        self.state.swap(IN, SeqCst);
        fence(SeqCst);
        if self.word.load(SeqCst) != 0 || self.closed.load(SeqCst) {
            self.exit();
            return false;
        }
        true
    }
    fn run(&self) {
        self.inside.store(true, SeqCst);
        let mut signal = self.signal.lock().unwrap();
        while !signal.1 {
            signal = self.handled.wait(signal).unwrap();
        }
        drop(signal);
        self.inside.store(false, SeqCst);
    }
    fn exit(&self) {
        if self.state.swap(OUT, SeqCst) == KICKED {
            let mut signal = self.signal.lock().unwrap();
            while !signal.0 {
                signal = self.handled.wait(signal).unwrap();
            }
            *signal = (false, false);
        }
        assert_eq!(*self.signal.lock().unwrap(), (false, false), "a kick is left over");
    }
    fn exclusively(&self, f: impl FnOnce()) {
        self.closed.store(true, SeqCst);
        fence(SeqCst);
        self.leave();
        while self.state.load(SeqCst) != OUT {
            thread::yield_now();
        }
        f();
        self.closed.store(false, SeqCst);
    }
    fn wait_open(&self) {
        while self.closed.load(SeqCst) {
            thread::yield_now();
        }
    }
}

fn explore(f: impl Fn() + Send + Sync + 'static) {
    let mut b = loom::model::Builder::new();
    b.preemption_bound = Some(3);
    b.max_branches = 20_000;
    b.check(f);
}

/// However a request comes, the vCPU leaves guest code or does not enter it, and no signal is left for its next run.
#[test]
fn no_request_is_lost_and_no_kick_left() {
    explore(|| {
        let kick = Kick::new();
        let other = kick.clone();
        let requester = thread::spawn(move || other.request());
        while kick.word.swap(0, SeqCst) == 0 {
            if kick.enter() {
                kick.run();
                kick.exit();
            }
        }
        requester.join().unwrap();
        assert_eq!(kick.state.load(SeqCst), OUT);
    });
}

/// Nobody is in guest code while the gate is closed, and who was kept out goes on.
#[test]
fn the_gate_keeps_vcpus_out() {
    explore(|| {
        let kick = Kick::new();
        let other = kick.clone();
        let changer = thread::spawn(move || {
            other.exclusively(|| assert!(!other.inside.load(SeqCst)));
            other.request();
        });
        while kick.word.swap(0, SeqCst) == 0 {
            kick.wait_open();
            if kick.enter() {
                kick.run();
                kick.exit();
            }
        }
        changer.join().unwrap();
    });
}
