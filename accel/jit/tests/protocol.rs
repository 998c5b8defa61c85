//! Models of what vCPU threads agree on with each other and with devices, explored over all interleavings: requests and
//! sleep, pause and resume, work for others, tracking of code pages, emptying the code cache. Each function has the name
//! of what it models in `vcpu.rs`, `vm.rs` and `softmmu.rs`, or in `RunControl`, which the vCPUs of all accelerators share.
//!
//! The checker takes sequentially consistent loads and stores for acquire and release ones; where the order of a store
//! before a load matters the models have a fence, as the host's locked instructions are.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const INTERRUPT: u32 = 1;
const ACCEL: u32 = 2;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Control {
    Paused,
    Running,
    Stopped,
}

struct Shared {
    word: AtomicU32,
    in_code: AtomicBool,
    entries: AtomicUsize,
    queue: Mutex<Vec<u32>>,
    control: Mutex<(Control, Control)>,
    changed: Condvar,
}

impl Shared {
    fn new(c: Control) -> Arc<Shared> {
        Arc::new(Shared {
            word: AtomicU32::new(0),
            in_code: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
            queue: Mutex::new(Vec::new()),
            control: Mutex::new((c, c)),
            changed: Condvar::new(),
        })
    }
    fn request(&self, bits: u32) {
        self.word.fetch_or(bits, SeqCst);
        drop(self.control.lock().unwrap());
        self.changed.notify_all();
    }
    fn push(&self, w: u32) {
        self.queue.lock().unwrap().push(w);
        self.request(ACCEL);
    }
    fn sleep(&self) {
        let mut c = self.control.lock().unwrap();
        while self.word.load(SeqCst) == 0 && c.0 == Control::Running {
            c = self.changed.wait(c).unwrap();
        }
    }
    /// `RunControl::step`; paused: there is work.
    fn step(&self) -> Control {
        let mut c = self.control.lock().unwrap();
        loop {
            if c.0 != c.1 {
                c.1 = c.0;
                self.changed.notify_all();
            }
            if c.0 != Control::Paused || self.word.load(SeqCst) & ACCEL != 0 {
                return c.0;
            }
            c = self.changed.wait(c).unwrap();
        }
    }
    /// The vCPU's side of entering generated code: false if something is to be looked at first.
    fn enter(&self, stop: &dyn Fn() -> bool) -> bool {
        self.entries.fetch_add(1, SeqCst);
        self.in_code.store(true, SeqCst);
        fence(SeqCst);
        if stop() || self.word.load(SeqCst) != 0 {
            self.in_code.store(false, SeqCst);
            return false;
        }
        true
    }
    /// The other side: work is done, or will be before generated code is entered again.
    fn on_others(&self, w: u32) {
        self.push(w);
        fence(SeqCst);
        let start = self.entries.load(SeqCst);
        while self.in_code.load(SeqCst) && self.entries.load(SeqCst) == start {
            thread::yield_now();
        }
    }
}

fn explore(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut b = loom::model::Builder::new();
    b.preemption_bound = Some(preemptions);
    b.max_branches = 20_000;
    b.check(f);
}

/// An interrupt that arrives at any point of going to sleep wakes the vCPU.
#[test]
fn interrupt_wakes_from_wfi() {
    explore(4, || {
        let s = Shared::new(Control::Running);
        let pin = Arc::new(AtomicBool::new(false));
        let (s2, pin2) = (s.clone(), pin.clone());
        let device = thread::spawn(move || {
            pin2.store(true, SeqCst);
            s2.request(INTERRUPT);
        });
        loop {
            s.word.swap(0, SeqCst);
            if pin.load(SeqCst) {
                break;
            }
            s.sleep();
        }
        device.join().unwrap();
    });
}

/// A request made while generated code runs or is about to is seen by it or before it.
#[test]
fn request_leaves_code() {
    explore(4, || {
        let s = Shared::new(Control::Running);
        let s2 = s.clone();
        let other = thread::spawn(move || s2.push(7));
        let mut done = false;
        while !done {
            s.word.swap(0, SeqCst);
            done = !std::mem::take(&mut *s.queue.lock().unwrap()).is_empty();
            if !done && s.enter(&|| false) {
                // Loops of generated code look at the word.
                while s.word.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                s.in_code.store(false, SeqCst);
            }
        }
        other.join().unwrap();
    });
}

/// A page is made a code page while a vCPU writes to it: inline if its TLB says so, else by the slow path, which kills
/// what was translated. What remains valid is a translation of the bytes as they are.
#[test]
fn stores_to_code_are_seen() {
    explore(3, || {
        struct Page {
            bytes: AtomicUsize,
            code: AtomicBool,
            written: AtomicBool,
            /// Valid translation of these bytes.
            cache: Mutex<Option<usize>>,
        }
        let s = Shared::new(Control::Running);
        let p = Arc::new(Page {
            bytes: AtomicUsize::new(0),
            code: AtomicBool::new(false),
            written: AtomicBool::new(false),
            cache: Mutex::new(None),
        });
        let (s2, p2) = (s.clone(), p.clone());
        let writer = thread::spawn(move || {
            // What the TLB says: nothing, inline, or slow.
            let mut inline = None;
            for value in 1..=2 {
                loop {
                    s2.word.swap(0, SeqCst);
                    for _ in std::mem::take(&mut *s2.queue.lock().unwrap()) {
                        inline = inline.map(|_| false);
                    }
                    if s2.enter(&|| false) {
                        break;
                    }
                }
                if inline.is_none() {
                    // fill
                    p2.written.store(true, SeqCst);
                    fence(SeqCst);
                    inline = Some(!p2.code.load(SeqCst));
                }
                if inline == Some(true) {
                    p2.bytes.store(value, SeqCst);
                } else {
                    *p2.cache.lock().unwrap() = None;
                    p2.bytes.store(value, SeqCst);
                    if p2.code.load(SeqCst) {
                        *p2.cache.lock().unwrap() = None;
                    }
                }
                s2.in_code.store(false, SeqCst);
            }
        });
        // track_page, then translation.
        p.code.store(true, SeqCst);
        fence(SeqCst);
        if p.written.load(SeqCst) {
            s.on_others(1);
        }
        {
            let mut cache = p.cache.lock().unwrap();
            *cache = Some(p.bytes.load(SeqCst));
        }
        writer.join().unwrap();
        let bytes = p.bytes.load(SeqCst);
        if let Some(translated) = *p.cache.lock().unwrap() {
            assert_eq!(translated, bytes, "a stale translation");
        }
    });
}

/// The code cache is emptied and refilled only while nobody runs code, and nobody enters code of before by an address it
/// remembers.
#[test]
fn flush_of_code() {
    explore(3, || {
        struct Core {
            stop_world: AtomicBool,
            generation: AtomicUsize,
            /// Generated code: what generation it is of.
            code: UnsafeCell<usize>,
        }
        let s = Shared::new(Control::Running);
        let core = Arc::new(Core {
            stop_world: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            code: UnsafeCell::new(0),
        });
        let (s2, c2) = (s.clone(), core.clone());
        let vcpu = thread::spawn(move || {
            let mut remembered = 0;
            let mut runs = 0;
            while runs < 2 {
                s2.word.swap(0, SeqCst);
                // do_work
                let generation = c2.generation.load(SeqCst);
                if generation != remembered {
                    remembered = generation;
                }
                // run_code
                if !s2.enter(&|| c2.stop_world.load(SeqCst) || c2.generation.load(SeqCst) != remembered) {
                    while c2.stop_world.load(SeqCst) {
                        thread::yield_now();
                    }
                    continue;
                }
                runs += 1;
                c2.code.with(|p| {
                    // SAFETY: the property under test: nobody writes while `in_code` is set.
                    #[allow(unsafe_code)]
                    let made = unsafe { *p };
                    assert_eq!(made, remembered, "code of before the flush");
                });
                s2.in_code.store(false, SeqCst);
            }
        });
        // exclusively
        core.stop_world.store(true, SeqCst);
        s.request(ACCEL);
        fence(SeqCst);
        while s.in_code.load(SeqCst) {
            thread::yield_now();
        }
        core.code.with_mut(|p| {
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                *p = 1
            }
        });
        core.generation.fetch_add(1, SeqCst);
        core.stop_world.store(false, SeqCst);
        vcpu.join().unwrap();
    });
}

/// However resume, pause, stop and interrupts follow each other, who waits for "paused" is told, and the thread ends.
#[test]
fn pause_and_resume() {
    explore(2, || {
        let s = Shared::new(Control::Paused);
        let s2 = s.clone();
        let vcpu = thread::spawn(move || {
            let s = s2;
            loop {
                match s.step() {
                    Control::Stopped => return,
                    Control::Paused => {
                        s.word.fetch_and(!ACCEL, SeqCst);
                        continue;
                    }
                    Control::Running => {}
                }
                s.word.swap(0, SeqCst);
                // The guest waits for an interrupt.
                s.sleep();
            }
        });
        let s3 = s.clone();
        let device = thread::spawn(move || s3.request(INTERRUPT));
        // resume
        {
            let mut c = s.control.lock().unwrap();
            if c.0 == Control::Paused {
                *c = (Control::Running, Control::Running);
            }
        }
        s.request(ACCEL);
        // request_pause
        {
            let mut c = s.control.lock().unwrap();
            if c.0 == Control::Running {
                c.0 = Control::Paused;
            }
        }
        s.request(ACCEL);
        // wait_paused
        {
            let mut c = s.control.lock().unwrap();
            while c.1 == Control::Running {
                c = s.changed.wait(c).unwrap();
            }
        }
        // stop
        s.control.lock().unwrap().0 = Control::Stopped;
        s.request(ACCEL);
        vcpu.join().unwrap();
        device.join().unwrap();
    });
}
