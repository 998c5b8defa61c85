//! Changes of controllers with devices that interrupt all the while.

use super::*;
use parking_lot::RwLock;
use rhea_accel::{RoutingEvent, RoutingListener};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

fn other(mode: Mode) -> Mode {
    if mode == Mode::Xics { Mode::Xive } else { Mode::Xics }
}

#[test]
fn levels_and_messages_are_carried() {
    let m = Machine::new(IcMode::Dual, &[0, 8]);
    let message = m.irq.allocate_messages(1, 1).unwrap();
    let line = m.irq.claim(numbers::LSI, true).unwrap();
    let vio = m.irq.claim(numbers::VIO, false).unwrap();
    let all = [message, numbers::LSI, numbers::VIO];
    line.raise();
    for _ in 0..4 {
        // Both before and after the change, in all states a source can be in.
        for stage in 0..4 {
            let ready = || {
                (0..2).for_each(|cpu| m.start(cpu));
                all.iter().for_each(|irq| m.enable(*irq, 1));
            };
            if stage > 0 {
                ready();
            }
            if stage > 1 {
                m.take_all_but_level(&line);
            }
            m.message(message);
            vio.pulse();
            if stage == 3 {
                m.message(message);
            }
            assert!(m.irq.activate(other(m.irq.mode())));
            assert!(!m.up(0) && !m.up(1));
            ready();
            let seen = Mutex::new(Vec::new());
            while m.up(1) {
                m.service(1, &|irq| {
                    if irq == numbers::LSI {
                        line.lower();
                    }
                    seen.lock().push(irq);
                });
            }
            let mut seen = seen.into_inner();
            seen.sort_unstable();
            assert_eq!(seen, [numbers::VIO, numbers::LSI, message], "stage {stage}");
            line.raise();
            assert!(m.up(1));
            line.lower();
            m.take(1);
            line.raise();
        }
    }
}

impl Machine {
    /// Handles what is pending, with the level down meanwhile.
    fn take_all_but_level(&self, line: &IrqLine) {
        line.lower();
        while self.up(1) {
            self.take(1);
        }
        line.raise();
    }
}

#[test]
fn each_pending_message_once() {
    for start in [Mode::Xics, Mode::Xive] {
        for stage in 0..5 {
            let m = Machine::new(IcMode::Dual, &[0, 8]);
            m.irq.activate(start);
            let a = m.irq.allocate_messages(1, 1).unwrap();
            m.irq.activate(other(start));
            m.irq.activate(start);
            let prepare = || (0..2).for_each(|cpu| m.start(cpu));
            prepare();
            match stage {
                // Never configured, refused by the processor, presented, handled, twice changed.
                0 => (),
                1 => {
                    m.enable(a, 0);
                    match start {
                        Mode::Xics => drop(m.ok(0, h::H_CPPR, &[0])),
                        Mode::Xive => m.set_cppr(0, 0),
                    }
                }
                _ => m.enable(a, 0),
            }
            m.message(a);
            let expected = if stage == 3 {
                assert_eq!(m.take(0), [a]);
                0
            } else {
                1
            };
            assert!(m.irq.activate(other(start)));
            if stage == 4 {
                m.irq.activate(start);
                m.irq.activate(other(start));
            }
            prepare();
            m.enable(a, 1);
            assert_eq!(m.take(1).len(), expected, "{start:?} stage {stage}");
        }
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<RoutingEvent>>);
impl RoutingListener for Events {
    fn routing_changed(&self, event: RoutingEvent) {
        self.0.lock().push(event);
    }
}

#[test]
fn reset_returns_to_the_default() {
    let m = Machine::new(IcMode::Dual, &[0]);
    let a = m.irq.allocate_messages(1, 1).unwrap();
    let line = m.irq.claim(numbers::LSI, true).unwrap();
    let events = Arc::new(Events::default());
    let _subscription = m.irq.routing().subscribe(events.clone());
    assert!(m.irq.activate(Mode::Xive));
    assert!(m.irq.activate(Mode::Xive));
    m.start(0);
    m.enable(a, 0);
    m.message(a);
    line.raise();
    m.irq.restart();
    assert_eq!(m.irq.mode(), Mode::Xics);
    assert_eq!(*events.0.lock(), [RoutingEvent::IrqchipChanged; 2]);
    assert!(!m.up(0));
    m.start(0);
    m.enable(a, 0);
    // The message is forgotten, the level is not.
    assert!(!m.up(0));
    m.enable(numbers::LSI, 0);
    assert!(m.up(0));
    m.irq.restart();
    assert!(!m.up(0));
    m.start(0);
    m.enable(numbers::LSI, 0);
    assert!(m.up(0));
    assert!(m.irq.describe().contains("active: XICS") && m.irq.describe().contains("0x1200"));
    m.irq.activate(Mode::Xive);
    assert!(m.irq.describe().contains("active: XIVE") && m.irq.describe().contains("0x1200"));
}

#[test]
fn lines_of_others_stay() {
    let m = Machine::new(IcMode::Dual, &[0]);
    let other = Arc::new(Input::default());
    m.irq.routing().set_route(3, Some(Route { sink: other.clone(), pin: 0 }));
    m.irq.routing().line(3).raise();
    m.irq.activate(Mode::Xive);
    assert!(other.0.load(SeqCst));
    m.irq.routing().line(3).lower();
    assert!(!other.0.load(SeqCst));
}

/// A device: what it asked for and what the guest has handled.
#[derive(Default)]
struct Source {
    raised: AtomicU64,
    handled: AtomicU64,
}

const CHANGES: usize = 100;

/// A hundred changes; a device that sends messages, one with a level and one with edges interrupt all the while, each again as soon as
/// the guest has handled the last one. None is lost, stuck or doubled.
#[test]
fn a_hundred_changes() {
    let m = Machine::new(IcMode::Dual, &[0, 8]);
    let message = m.irq.allocate_messages(1, 1).unwrap();
    let level = m.irq.claim(numbers::LSI + 1, true).unwrap();
    let edge = m.irq.claim(numbers::VIO + 3, false).unwrap();
    let sources = [message, numbers::LSI + 1, numbers::VIO + 3];
    let devices: [Source; 3] = Default::default();
    let spurious = AtomicU64::new(0);
    let (enough, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    // Handlers run with it shared; a change, with which a guest has no handler running, takes it alone.
    let world = RwLock::new(());
    let setup = |n: usize| {
        (0..2).for_each(|cpu| m.start(cpu));
        sources.iter().enumerate().for_each(|(i, irq)| m.enable(*irq, (i + n) % 2));
    };
    setup(0);
    let handle = |irq: u32| {
        let Some(n) = sources.iter().position(|s| *s == irq) else {
            spurious.fetch_add(1, SeqCst);
            return;
        };
        if irq == sources[1] {
            if !level.level() {
                spurious.fetch_add(1, SeqCst);
                return;
            }
            level.lower();
        }
        if devices[n].handled.load(SeqCst) == devices[n].raised.load(SeqCst) {
            spurious.fetch_add(1, SeqCst);
            return;
        }
        devices[n].handled.fetch_add(1, SeqCst);
    };
    let counts = || devices.each_ref().map(|d| (d.raised.load(SeqCst), d.handled.load(SeqCst)));
    std::thread::scope(|s| {
        for cpu in 0..2 {
            let (m, world, stop, handle) = (&m, &world, &stop, &handle);
            s.spawn(move || {
                while !stop.load(SeqCst) {
                    if m.up(cpu) {
                        let _shared = world.read();
                        m.service(cpu, handle);
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut senders = Vec::new();
        for (n, device) in devices.iter().enumerate() {
            let (m, enough, level, edge) = (&m, &enough, &level, &edge);
            senders.push(s.spawn(move || {
                while !enough.load(SeqCst) {
                    device.raised.fetch_add(1, SeqCst);
                    match n {
                        0 => m.message(message),
                        1 => level.raise(),
                        _ => edge.pulse(),
                    }
                    let end = Instant::now() + Duration::from_secs(20);
                    while device.handled.load(SeqCst) != device.raised.load(SeqCst) {
                        if Instant::now() > end {
                            enough.store(true, SeqCst);
                            return false;
                        }
                        std::thread::yield_now();
                    }
                }
                true
            }));
        }
        for n in 1..=CHANGES {
            let before = counts().map(|(raised, _)| raised);
            // Some changes at once, others after everybody has been at work.
            while n % 4 != 0 && !enough.load(SeqCst) && counts().iter().zip(before).any(|((r, _), b)| *r < b + 3) {
                std::thread::yield_now();
            }
            let _alone = world.write();
            assert!(m.irq.activate(other(m.irq.mode())));
            if n % 3 == 0 {
                std::thread::yield_now();
            }
            setup(n);
        }
        // The senders finish what they began, and servers run until then.
        enough.store(true, SeqCst);
        let all = senders.into_iter().all(|s| s.join().is_ok_and(|done| done));
        stop.store(true, SeqCst);
        assert!(all, "an interrupt was lost: {:?}\n{}", counts(), m.irq.describe());
    });
    for (raised, handled) in counts() {
        assert!(raised >= CHANGES as u64 && raised == handled, "{:?}", counts());
    }
    assert_eq!(spurious.load(SeqCst), 0);
}
