//! Every transition with the order of its calls, and what becomes of it when one of them fails.

use super::*;
use crate::sys::Host;
use crate::sys::fake::{Call, Data, FakeDevice, FakeKernel, Log};
use rhea_accel::InterruptRouting;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// The accelerator: raises lines of the kernel's by itself.
#[derive(Default)]
struct Chips {
    log: Arc<Log>,
    lines: AtomicU32,
    messages: AtomicU32,
    unsupported: AtomicBool,
}

impl IrqFd for Chips {
    fn attach(&self, line: &IrqLine, _: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.unsupported.load(SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        assert!(resample.is_some());
        self.log.note(Call::Other(format!("attach {}", line.number().expect("a numbered line"))))?;
        self.lines.fetch_add(1, SeqCst);
        Ok(())
    }
    fn detach(&self, line: &IrqLine, _: BorrowedFd<'_>) -> io::Result<()> {
        self.log.tell(Call::Other(format!("detach {}", line.number().expect("a numbered line"))));
        self.lines.fetch_sub(1, SeqCst);
        Ok(())
    }
    fn attach_msi(&self, message: MsiMessage, _: BorrowedFd<'_>) -> io::Result<()> {
        self.log.note(Call::Other(format!("attach message {}", message.data)))?;
        self.messages.fetch_add(1, SeqCst);
        Ok(())
    }
    fn detach_msi(&self, message: MsiMessage, _: BorrowedFd<'_>) -> io::Result<()> {
        self.log.tell(Call::Other(format!("detach message {}", message.data)));
        self.messages.fetch_sub(1, SeqCst);
        Ok(())
    }
}

struct World {
    log: Arc<Log>,
    chips: Arc<Chips>,
    routing: Arc<InterruptRouting>,
    /// What the accelerator can do at the moment.
    fast: AtomicBool,
    fast_messages: AtomicBool,
    tells_end: AtomicBool,
    /// Interrupt Status.
    asserts: AtomicBool,
    pin: AtomicBool,
    shown: AtomicBool,
    armed: AtomicBool,
    watched: Mutex<Vec<(Source, Event)>>,
    sent: Mutex<Vec<u32>>,
    warnings: Mutex<Vec<String>>,
}

struct Here(Weak<World>);

impl Surroundings for Here {
    fn set_pin(&self, level: bool) {
        let w = self.0.upgrade().expect("the test's");
        if w.pin.swap(level, SeqCst) != level {
            w.log.tell(Call::Other(format!("pin {level}")));
        }
    }
    fn show_bars(&self, shown: bool) {
        let w = self.0.upgrade().expect("the test's");
        if w.shown.swap(shown, SeqCst) != shown {
            w.log.tell(Call::Other(format!("bars {shown}")));
        }
    }
    fn arm(&self, on: bool) {
        self.0.upgrade().expect("the test's").armed.store(on, SeqCst);
    }
    fn tells_end(&self) -> bool {
        self.0.upgrade().expect("the test's").tells_end.load(SeqCst)
    }
    fn asserts(&self) -> bool {
        self.0.upgrade().expect("the test's").asserts.load(SeqCst)
    }
    fn fast_line(&self) -> Option<(Arc<dyn IrqFd>, IrqLine)> {
        let w = self.0.upgrade().expect("the test's");
        w.fast.load(SeqCst).then(|| (w.chips.clone() as Arc<dyn IrqFd>, w.routing.line(11)))
    }
    fn fast_messages(&self) -> Option<Arc<dyn IrqFd>> {
        let w = self.0.upgrade().expect("the test's");
        w.fast_messages.load(SeqCst).then(|| w.chips.clone() as Arc<dyn IrqFd>)
    }
    fn message(&self, m: Message) -> MsiMessage {
        MsiMessage { address: m.address, data: m.data, requester_id: 8 }
    }
    fn send(&self, message: Message) {
        self.0.upgrade().expect("the test's").sent.lock().push(message.data);
    }
    fn watch(&self, source: Source, event: &Event) -> io::Result<()> {
        let w = self.0.upgrade().expect("the test's");
        w.log.note(Call::Other(format!("watch {source:?}")))?;
        let mut watched = w.watched.lock();
        assert!(!watched.iter().any(|(_, e)| Arc::ptr_eq(e, event)), "{source:?} is watched twice");
        watched.push((source, event.clone()));
        Ok(())
    }
    fn unwatch(&self, event: &Event) {
        let w = self.0.upgrade().expect("the test's");
        let mut watched = w.watched.lock();
        if let Some(n) = watched.iter().position(|(_, e)| Arc::ptr_eq(e, event)) {
            w.log.tell(Call::Other(format!("unwatch {:?}", watched.remove(n).0)));
        }
    }
    fn warn(&self, text: &str) {
        self.0.upgrade().expect("the test's").warnings.lock().push(text.to_owned());
    }
    fn trace(&self, _: fmt::Arguments<'_>) {}
}

struct Test {
    world: Arc<World>,
    device: Arc<FakeDevice>,
    interrupts: Arc<Interrupts>,
}

impl Test {
    fn new() -> Self {
        let kernel = FakeKernel::default();
        let file = kernel.open_cdev(Path::new("vfio0")).expect("the fake opens");
        let device = kernel.devices.lock()[0].clone();
        let log = kernel.log.clone();
        let world = Arc::new(World {
            log: log.clone(),
            chips: Arc::new(Chips { log, ..Chips::default() }),
            routing: InterruptRouting::new(),
            fast: false.into(),
            fast_messages: false.into(),
            tells_end: false.into(),
            asserts: false.into(),
            pin: false.into(),
            shown: true.into(),
            armed: false.into(),
            watched: Mutex::default(),
            sent: Mutex::default(),
            warnings: Mutex::default(),
        });
        let interrupts = Interrupts::new(file, true, Box::new(Here(Arc::downgrade(&world))));
        let test = Self { world, device, interrupts };
        test.calls();
        test
    }
    fn calls(&self) -> Vec<Call> {
        self.world.log.take()
    }
    /// What the thread does with all that is signalled.
    fn poll(&self) {
        let watched: Vec<_> = self.world.watched.lock().iter().map(|(s, _)| *s).collect();
        watched.into_iter().for_each(|s| self.interrupts.signalled(s));
    }
    fn pin(&self) -> bool {
        self.world.pin.load(SeqCst)
    }
    fn shown(&self) -> bool {
        self.world.shown.load(SeqCst)
    }
    fn fast(&self, on: bool) {
        self.world.fast.store(on, SeqCst);
    }
    fn kind(&self) -> Kind {
        self.interrupts.kind()
    }
    /// Nothing is left anywhere.
    fn assert_nothing(&self, what: &str) {
        assert_eq!(self.device.eventfds(), 0, "{what}");
        assert!(self.world.watched.lock().is_empty(), "{what}");
        assert_eq!((self.world.chips.lines.load(SeqCst), self.world.chips.messages.load(SeqCst)), (0, 0), "{what}");
        assert!(!self.pin() && self.shown(), "{what}");
    }
    /// An interrupt comes through, and again after its end, on whichever path INTx is.
    fn assert_intx_works(&self, what: &str) {
        self.device.set_intx(true);
        if self.kind() == Kind::IntxFast {
            assert!(self.device.intx_masked() && !self.pin(), "{what}");
            self.device.unmask_by_eventfd();
            assert!(self.device.intx_masked(), "{what}: it is asserted still");
            self.device.set_intx(false);
            self.device.unmask_by_eventfd();
        } else {
            self.poll();
            assert!(self.pin() && !self.shown(), "{what}");
            self.interrupts.accessed();
            assert!(!self.pin(), "{what}");
            self.poll();
            assert!(self.pin(), "{what}: it is asserted still");
            self.device.set_intx(false);
            self.interrupts.accessed();
            self.poll();
        }
        assert!(!self.pin() && !self.device.intx_masked(), "{what}");
        self.interrupts.timeout();
        assert!(self.shown(), "{what}");
    }
}

fn irqs(index: u32, action: IrqAction, data: Data) -> Call {
    Call::SetIrqs(index, action, 0, data)
}
fn other(text: &str) -> Call {
    Call::Other(text.to_owned())
}
fn fds(list: &[bool]) -> Data {
    Data::EventFds(list.to_vec())
}
const ON: &[bool] = &[true];
const OFF: &[bool] = &[false];

fn slow_to_fast() -> Vec<Call> {
    vec![
        other("unwatch Intx"),
        irqs(irq::INTX, IrqAction::Mask, Data::None(1)),
        other("attach 11"),
        irqs(irq::INTX, IrqAction::Unmask, fds(ON)),
        irqs(irq::INTX, IrqAction::Unmask, Data::None(1)),
    ]
}
fn fast_to_slow() -> Vec<Call> {
    vec![
        irqs(irq::INTX, IrqAction::Mask, Data::None(1)),
        other("detach 11"),
        irqs(irq::INTX, IrqAction::Unmask, fds(OFF)),
        other("watch Intx"),
        irqs(irq::INTX, IrqAction::Unmask, Data::None(1)),
    ]
}
fn none_to_slow() -> Vec<Call> {
    vec![irqs(irq::INTX, IrqAction::Trigger, fds(ON)), other("watch Intx")]
}
fn slow_to_none() -> Vec<Call> {
    vec![irqs(irq::INTX, IrqAction::Trigger, Data::None(0)), other("unwatch Intx")]
}

#[test]
fn intx_transitions_in_order() {
    let t = Test::new();
    t.interrupts.start();
    assert_eq!((t.calls(), t.kind()), (none_to_slow(), Kind::IntxSlow));
    // Once is enough.
    t.interrupts.start();
    assert_eq!(t.calls(), []);
    t.assert_intx_works("slow");
    t.calls();
    t.fast(true);
    t.interrupts.join();
    assert_eq!((t.calls(), t.kind()), (slow_to_fast(), Kind::IntxFast));
    t.assert_intx_works("fast");
    t.interrupts.leave(false);
    assert_eq!((t.calls(), t.kind()), (fast_to_slow(), Kind::IntxSlow));
    t.interrupts.leave(true);
    assert_eq!(t.calls(), []);
    t.interrupts.join();
    t.calls();
    t.interrupts.stop();
    assert_eq!((t.calls(), t.kind()), ([fast_to_slow(), slow_to_none()].concat(), Kind::None));
    t.assert_nothing("stopped");
    t.interrupts.start();
    assert_eq!((t.calls(), t.kind()), ([none_to_slow(), slow_to_fast()].concat(), Kind::IntxFast));
    t.interrupts.give_up();
    t.interrupts.start();
    t.interrupts.vectors_on(irq::MSI, &[None]);
    t.interrupts.vectors_off();
    assert_eq!(t.kind(), Kind::None);
    t.assert_nothing("given up");
    assert!(t.world.warnings.lock().is_empty());
}

#[test]
fn a_pending_interrupt_survives_changes() {
    let t = Test::new();
    t.interrupts.start();
    t.device.set_intx(true);
    t.poll();
    assert!(t.pin() && !t.shown() && t.world.armed.load(SeqCst));
    // Nothing shows BARs while the guest has not been there.
    t.interrupts.timeout();
    assert!(!t.shown() && t.world.armed.load(SeqCst));
    t.calls();
    // On the way to the fast path the line falls before the accelerator may raise it.
    t.fast(true);
    t.interrupts.join();
    let calls = t.calls();
    let at = |call: &str| calls.iter().position(|c| *c == other(call)).unwrap_or_else(|| panic!("{call}: {calls:?}"));
    assert!(at("pin false") < at("attach 11") && at("bars true") < at("attach 11"), "{calls:?}");
    assert!(t.device.intx_masked(), "the accelerator has it");
    // And back: it is asserted still, and comes again.
    t.interrupts.leave(false);
    t.poll();
    assert!(t.pin());
    // A change of the route on the slow path: it ends and comes again.
    t.fast(false);
    t.interrupts.join();
    assert!(!t.pin());
    t.poll();
    assert!(t.pin());
    t.interrupts.stop();
    t.assert_nothing("stopped while pending");
}

#[test]
fn ends_come_from_where_they_are_known() {
    let t = Test::new();
    t.world.tells_end.store(true, SeqCst);
    t.interrupts.start();
    t.device.set_intx(true);
    t.poll();
    assert!(t.pin() && t.shown());
    t.interrupts.accessed();
    assert!(t.pin(), "an access is no end where the controller tells");
    t.device.set_intx(false);
    t.interrupts.end();
    assert!(!t.pin() && !t.device.intx_masked());
    t.calls();
    // An end without an interrupt is nobody's.
    t.interrupts.end();
    assert_eq!(t.calls(), []);
}

/// Only the access that takes back the cause is the end: others leave the line up, and it does not rise twice.
#[test]
fn an_access_is_no_end_while_the_function_asserts() {
    let t = Test::new();
    t.interrupts.start();
    let level = |on| {
        t.world.asserts.store(on, SeqCst);
        t.device.set_intx(on);
    };
    level(true);
    t.poll();
    assert!(t.pin());
    t.calls();
    t.interrupts.accessed();
    t.interrupts.accessed();
    assert!(t.pin() && t.device.intx_masked());
    assert_eq!(t.calls(), []);
    level(false);
    t.interrupts.accessed();
    assert!(!t.pin() && !t.device.intx_masked());
    t.interrupts.accessed();
    assert_eq!(t.calls(), [other("pin false"), irqs(irq::INTX, IrqAction::Unmask, Data::None(1))]);
    // A level that is up when INTx comes back is looked at.
    t.interrupts.vectors_on(irq::MSI, &[None]);
    t.world.asserts.store(true, SeqCst);
    t.calls();
    t.interrupts.vectors_off();
    let looks = [IrqAction::Mask, IrqAction::Unmask].map(|action| irqs(irq::INTX, action, Data::None(1)));
    let calls = t.calls();
    assert!(calls.ends_with(&[&none_to_slow()[..], &looks].concat()), "{calls:?}");
    // A bit that is always set says nothing.
    let t = Test::new();
    t.world.asserts.store(true, SeqCst);
    t.interrupts.start();
    t.device.set_intx(true);
    t.poll();
    assert!(t.pin());
    t.device.set_intx(false);
    t.interrupts.accessed();
    assert!(!t.pin() && !t.device.intx_masked());
}

#[test]
fn an_overtaken_interrupt_is_left_alone() {
    let t = Test::new();
    t.fast(true);
    t.interrupts.start();
    t.device.set_intx(true);
    // The thread saw the eventfd before it was taken from it: what is in it is the accelerator's.
    t.interrupts.signalled(Source::Intx);
    assert!(!t.pin());
    t.interrupts.stop();
    t.interrupts.signalled(Source::Intx);
    t.interrupts.signalled(Source::Vector(0));
    t.interrupts.signalled(Source::Vector(99));
    assert!(!t.pin());
    t.assert_nothing("stopped");
}

/// Each call on each way fails once: INTx ends on the slow path and works, or is off; nothing is left over.
#[test]
fn every_call_fails() {
    for n in 0.. {
        let t = Test::new();
        t.world.log.fail_after(n, libc::EBUSY);
        t.fast(true);
        t.interrupts.start();
        if t.world.log.succeed() {
            break;
        }
        let what = format!("call {n} of none to fast: {:?}", t.calls());
        assert_ne!(t.kind(), Kind::IntxFast, "{what}");
        assert_eq!(t.kind() == Kind::None, n < 2, "{what}");
        assert_eq!(t.world.warnings.lock().len(), 1, "{what}");
        if n >= 2 {
            t.assert_intx_works(&what);
        }
        t.interrupts.stop();
        t.assert_nothing(&what);
    }
    for n in 0.. {
        let t = Test::new();
        t.fast(true);
        t.interrupts.start();
        t.world.log.fail_after(n, libc::EIO);
        t.interrupts.stop();
        let done = t.world.log.succeed();
        let what = format!("call {n} of fast to none: {:?}", t.calls());
        assert!(t.world.watched.lock().is_empty() && !t.pin() && t.shown(), "{what}");
        assert_eq!(t.kind(), Kind::None, "{what}");
        if done {
            break;
        }
    }
}

#[test]
fn what_the_accelerator_cannot_do_is_no_news() {
    let t = Test::new();
    t.fast(true);
    t.world.chips.unsupported.store(true, SeqCst);
    t.interrupts.start();
    assert_eq!(t.kind(), Kind::IntxSlow);
    assert!(t.world.warnings.lock().is_empty());
    t.assert_intx_works("slow");
}

fn message(data: u32) -> Option<Message> {
    Some(Message { address: 0xfee0_0000, data })
}

#[test]
fn msi_and_back() {
    for fast in [false, true] {
        let t = Test::new();
        t.world.fast_messages.store(fast, SeqCst);
        t.interrupts.start();
        t.calls();
        t.interrupts.vectors_on(irq::MSI, &[message(0x40), message(0x41)]);
        let calls = t.calls();
        let mut expected = slow_to_none();
        expected.push(irqs(irq::MSI, IrqAction::Trigger, fds(&[true, true])));
        expected.extend(match fast {
            false => [other("watch Vector(0)"), other("watch Vector(1)")],
            true => [other("attach message 64"), other("attach message 65")],
        });
        assert_eq!(calls, expected);
        assert_eq!(t.kind(), Kind::Msi { vectors: 2, fast: if fast { 2 } else { 0 } });
        assert!(t.device.fire(irq::MSI, 1) && !t.device.fire(irq::MSI, 2));
        t.poll();
        assert_eq!(*t.world.sent.lock(), if fast { vec![] } else { vec![0x41] });
        t.calls();
        t.interrupts.vectors_off();
        let calls = t.calls();
        assert_eq!(calls[0], irqs(irq::MSI, IrqAction::Trigger, Data::None(0)));
        // At once: none of the guest's calls is needed for it.
        assert_eq!(calls[calls.len() - 2..], none_to_slow());
        assert_eq!(t.kind(), Kind::IntxSlow);
        t.assert_intx_works("after MSI");
        t.interrupts.stop();
        t.assert_nothing("stopped");
    }
}

#[test]
fn vectors_come_when_they_are_opened() {
    let t = Test::new();
    t.interrupts.start();
    t.calls();
    t.interrupts.vectors_on(irq::MSIX, &[None; 8]);
    // The fake, like older kernels, cannot add vectors: all are there, so that no edge is lost later.
    assert_eq!(t.calls()[2..], [irqs(irq::MSIX, IrqAction::Trigger, fds(&[false; 8]))]);
    t.interrupts.vector(0, message(1));
    assert_eq!(t.calls(), [irqs(irq::MSIX, IrqAction::Trigger, fds(ON)), other("watch Vector(0)")]);
    t.interrupts.vector(2, message(2));
    assert_eq!(t.calls(), [Call::SetIrqs(irq::MSIX, IrqAction::Trigger, 2, fds(ON)), other("watch Vector(2)")]);
    t.interrupts.vector(3, message(3));
    assert_eq!(t.calls()[0], Call::SetIrqs(irq::MSIX, IrqAction::Trigger, 3, fds(ON)));
    // Masked: it is pending, and sent when it is opened.
    t.interrupts.vector(2, None);
    assert!(t.device.fire(irq::MSIX, 2));
    t.poll();
    assert_eq!((t.interrupts.pending(0), t.interrupts.pending(2), t.interrupts.pending(64)), (4, 1, 0));
    assert!(t.world.sent.lock().is_empty());
    t.interrupts.vector(2, message(22));
    assert_eq!((t.world.sent.lock().clone(), t.interrupts.pending(0)), (vec![22], 0));
    // The accelerator takes them when it can, follows what the guest writes, and gives them back.
    t.world.fast_messages.store(true, SeqCst);
    t.calls();
    t.interrupts.join();
    t.interrupts.vector(0, message(11));
    t.interrupts.vector(3, None);
    assert_eq!(t.kind(), Kind::Msix { vectors: 3, fast: 2 });
    let calls = t.calls();
    assert!(calls.contains(&other("detach message 1")) && calls.contains(&other("attach message 11")), "{calls:?}");
    t.interrupts.leave(false);
    assert_eq!(t.calls(), []);
    t.interrupts.leave(true);
    assert_eq!(t.kind(), Kind::Msix { vectors: 3, fast: 0 });
    assert!(t.device.fire(irq::MSIX, 0));
    t.poll();
    assert_eq!(t.world.sent.lock().last(), Some(&11));
    t.interrupts.vector(99, message(1));
    t.interrupts.stop();
    t.assert_nothing("stopped");
}

/// A host without enough interrupts for all vectors: beyond those that are enabled all are, anew.
#[test]
fn few_vectors() {
    let t = Test::new();
    t.interrupts.start();
    t.calls();
    t.world.log.fail_after(1, libc::ENOSPC);
    t.interrupts.vectors_on(irq::MSIX, &[None; 8]);
    let trigger = |list: &[bool]| irqs(irq::MSIX, IrqAction::Trigger, fds(list));
    assert_eq!(t.calls()[2..], [trigger(&[false; 8]), trigger(OFF)]);
    t.interrupts.vector(2, message(2));
    let off = irqs(irq::MSIX, IrqAction::Trigger, Data::None(0));
    assert_eq!(t.calls(), [off, trigger(&[false, false, true, false]), other("watch Vector(2)")]);
    t.interrupts.vector(3, message(3));
    assert_eq!(t.calls()[0], Call::SetIrqs(irq::MSIX, IrqAction::Trigger, 3, fds(ON)));
    assert_eq!(t.kind(), Kind::Msix { vectors: 2, fast: 0 });
    t.interrupts.stop();
    t.assert_nothing("stopped");
}

#[test]
fn every_call_of_vectors_fails() {
    for fast in [false, true] {
        for n in 0.. {
            let t = Test::new();
            t.world.fast_messages.store(fast, SeqCst);
            t.interrupts.start();
            t.world.log.fail_after(n, libc::ENOSPC);
            t.interrupts.vectors_on(irq::MSIX, &[message(1), None, None, None]);
            t.interrupts.vector(3, message(3));
            t.interrupts.vector(0, None);
            t.interrupts.vectors_off();
            let done = t.world.log.succeed();
            let what = format!("call {n}: {:?}", t.calls());
            if t.kind() == Kind::IntxSlow {
                t.assert_intx_works(&what);
            }
            t.interrupts.stop();
            t.assert_nothing(&what);
            if done {
                break;
            }
        }
    }
}

/// A guest that changes its mind a thousand times leaves nothing behind, and misses nothing.
#[test]
fn a_thousand_changes() {
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let t = Test::new();
    t.interrupts.start();
    let before = open();
    for n in 0..1000 {
        t.fast(n % 3 == 0);
        t.interrupts.leave(true);
        t.interrupts.join();
        t.assert_intx_works("INTx");
        t.interrupts.vectors_on(irq::MSI, &[message(n)]);
        assert!(t.device.fire(irq::MSI, 0));
        t.poll();
        t.interrupts.vectors_off();
        t.interrupts.vectors_on(irq::MSIX, &[message(n), None, None]);
        assert!(t.device.fire(irq::MSIX, 0));
        t.poll();
        t.interrupts.vectors_off();
    }
    assert_eq!(t.world.sent.lock().len(), 2000);
    t.interrupts.leave(true);
    t.fast(false);
    t.interrupts.join();
    // Other tests of this process open and close files, too: what leaks here would be thousands.
    assert!(open() < before + 500, "{before} descriptors became {}", open());
    t.interrupts.stop();
    t.assert_nothing("at the end");
}
