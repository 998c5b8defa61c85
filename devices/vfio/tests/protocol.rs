//! Models of how a function's interrupts, the guest's service of them and changes of their path agree, explored over all interleavings.
//! Each function has the name of what it models in `src/interrupts`. The kernel is modelled by what it promises: it masks INTx when it
//! fires, and unmasked it fires again while the function asserts it; who attaches an eventfd to the accelerator gets what is in it.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The kernel's side of INTx, one step at a time.
#[derive(Default)]
struct Kernel {
    /// The function asserts it.
    level: bool,
    enabled: bool,
    masked: bool,
    /// The eventfd.
    fired: bool,
    /// The accelerator has the eventfd: it raises its own line, and unmasks at its end.
    attached: bool,
    raised: bool,
}

impl Kernel {
    fn evaluate(&mut self) {
        if self.level && self.enabled && !self.masked {
            self.masked = true;
            self.fired = true;
        }
        if self.attached && std::mem::take(&mut self.fired) {
            self.raised = true;
        }
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The slow path waits for the eventfd.
    trigger: bool,
    pending: bool,
}

struct Interrupts {
    kernel: Mutex<Kernel>,
    /// Transitions are made one at a time; the models make them in one thread.
    state: Mutex<State>,
    pin: AtomicBool,
    rises: AtomicU32,
    serviced: AtomicU32,
}

impl Interrupts {
    fn slow() -> Arc<Self> {
        let kernel = Kernel { enabled: true, ..Kernel::default() };
        let state = State { trigger: true, pending: false };
        Arc::new(Self {
            kernel: Mutex::new(kernel),
            state: Mutex::new(state),
            pin: AtomicBool::new(false),
            rises: AtomicU32::new(0),
            serviced: AtomicU32::new(0),
        })
    }
    fn kernel(&self, f: impl FnOnce(&mut Kernel)) {
        let mut kernel = self.kernel.lock().unwrap();
        f(&mut kernel);
        kernel.evaluate();
    }
    fn assert(&self, level: bool) {
        self.kernel(|k| k.level = level);
    }
    fn settle_pin(&self) {
        loop {
            let level = self.state.lock().unwrap().pending;
            if !self.pin.swap(level, SeqCst) && level {
                self.rises.fetch_add(1, SeqCst);
            }
            if self.state.lock().unwrap().pending == level {
                return;
            }
        }
    }
    fn intx_signalled(&self) {
        {
            let mut state = self.state.lock().unwrap();
            if !state.trigger || !std::mem::take(&mut self.kernel.lock().unwrap().fired) {
                return;
            }
            state.pending = true;
        }
        self.settle_pin();
    }
    fn end(&self) {
        if !std::mem::replace(&mut self.state.lock().unwrap().pending, false) {
            return;
        }
        self.settle_pin();
        let state = self.state.lock().unwrap();
        if state.trigger && !state.pending {
            self.kernel(|k| k.masked = false);
        }
    }
    /// After an access, where nothing else tells of ends: the function says whether it still asserts the interrupt.
    fn accessed(&self) {
        if self.state.lock().unwrap().pending && !self.kernel.lock().unwrap().level {
            self.end();
        }
    }
    fn calm(&self) {
        self.state.lock().unwrap().pending = false;
        self.settle_pin();
    }
    fn attach(&self) {
        self.state.lock().unwrap().trigger = false;
        self.kernel(|k| k.masked = true);
        self.calm();
        self.kernel(|k| k.attached = true);
        self.kernel(|k| k.masked = false);
    }
    fn leave_fast(&self) {
        self.kernel(|k| k.masked = true);
        self.calm();
        // The accelerator's line falls with it.
        self.kernel(|k| (k.attached, k.raised) = (false, false));
        self.state.lock().unwrap().trigger = true;
        self.kernel(|k| k.masked = false);
    }
    fn disable_intx(&self) {
        self.kernel(|k| (k.enabled, k.masked) = (false, false));
        self.state.lock().unwrap().trigger = false;
        self.kernel(|k| k.fired = false);
        self.calm();
    }
    /// The guest's handler: takes back the cause, and the end of the interrupt is seen.
    fn service(&self) -> bool {
        let fast = self.kernel.lock().unwrap().raised;
        if !fast && !self.pin.load(SeqCst) {
            return false;
        }
        if self.kernel.lock().unwrap().level {
            self.serviced.fetch_add(1, SeqCst);
        }
        self.assert(false);
        self.kernel(|k| {
            if std::mem::take(&mut k.raised) {
                k.masked = false;
            }
        });
        self.end();
        true
    }
    /// With all threads at rest: what is due is delivered, and the function can interrupt again.
    fn assert_alive(&self, times: u32) {
        for _ in 0..4 {
            self.intx_signalled();
            self.service();
        }
        assert_eq!(self.serviced.load(SeqCst), times, "interrupts serviced");
        assert!(!self.pin.load(SeqCst));
        self.assert(true);
        self.intx_signalled();
        assert!(self.service(), "it is masked for ever");
        assert_eq!(self.serviced.load(SeqCst), times + 1);
    }
}

fn explore(f: impl Fn() + Send + Sync + 'static) {
    let mut b = loom::model::Builder::new();
    b.preemption_bound = Some(3);
    b.max_branches = 20_000;
    b.check(f);
}

/// An interrupt while the path changes there and back is serviced once.
#[test]
fn interrupt_against_change() {
    explore(|| {
        let i = Interrupts::slow();
        let (function, waiter) = (i.clone(), i.clone());
        let function = thread::spawn(move || function.assert(true));
        let waiter = thread::spawn(move || waiter.intx_signalled());
        i.attach();
        i.leave_fast();
        function.join().unwrap();
        waiter.join().unwrap();
        i.assert_alive(1);
    });
}

/// Accesses of two processors, of which one takes back the cause: the line rises once, and the interrupt comes to its end.
#[test]
fn accesses_against_interrupt() {
    explore(|| {
        let i = Interrupts::slow();
        i.assert(true);
        let (waiter, other) = (i.clone(), i.clone());
        let waiter = thread::spawn(move || waiter.intx_signalled());
        let other = thread::spawn(move || other.accessed());
        i.assert(false);
        i.accessed();
        waiter.join().unwrap();
        other.join().unwrap();
        // Or not at all, if the cause is gone before.
        assert!(i.rises.load(SeqCst) <= 1);
        // Software that was interrupted looks again.
        i.accessed();
        assert!(!i.pin.load(SeqCst) && !i.kernel.lock().unwrap().masked);
    });
}

/// The end of an interrupt while the path changes neither loses one nor leaves it masked.
#[test]
fn end_against_change() {
    explore(|| {
        let i = Interrupts::slow();
        i.assert(true);
        i.intx_signalled();
        let guest = i.clone();
        let guest = thread::spawn(move || guest.service());
        i.attach();
        guest.join().unwrap();
        i.assert_alive(1);
    });
}

/// After the function was given up nothing is pending, whatever came when.
#[test]
fn unplug_against_interrupt() {
    explore(|| {
        let i = Interrupts::slow();
        let (waiter, guest) = (i.clone(), i.clone());
        i.assert(true);
        let waiter = thread::spawn(move || waiter.intx_signalled());
        let guest = thread::spawn(move || guest.service());
        i.disable_intx();
        waiter.join().unwrap();
        guest.join().unwrap();
        i.intx_signalled();
        assert!(!i.pin.load(SeqCst) && !i.state.lock().unwrap().pending);
        assert!(!i.kernel.lock().unwrap().fired);
    });
}
