use super::*;
use crate::testing::{Random, poke};
use rhea_accel::IrqSink;
use std::sync::atomic::{AtomicU32, Ordering};

struct Edges([AtomicU32; 34]);
impl IrqSink for Edges {
    fn set_level(&self, pin: u32, level: bool) {
        self.0[pin as usize].fetch_add(level.into(), Ordering::SeqCst);
    }
}
#[derive(Default)]
struct Messages(Mutex<Vec<MsiMessage>>);
impl MsiTarget for Messages {
    fn send(&self, message: MsiMessage) {
        self.0.lock().push(message);
    }
}

struct Rig {
    hpet: Arc<Hpet>,
    clock: Arc<VirtualClock>,
    edges: Arc<Edges>,
    messages: Arc<Messages>,
    legacy: Arc<Mutex<Vec<bool>>>,
}

fn rig() -> Rig {
    let (clock, edges, messages) = (
        VirtualClock::new(),
        Arc::new(Edges(std::array::from_fn(|_| AtomicU32::new(0)))),
        Arc::new(Messages::default()),
    );
    let legacy = Arc::new(Mutex::new(vec![]));
    let line = |pin| IrqLine::to_sink(edges.clone(), pin);
    let log = legacy.clone();
    let lines = HpetLines {
        inputs: (0..24).map(line).collect(),
        irq0: line(32),
        irq8: line(33),
        legacy: Box::new(move |on| log.lock().push(on)),
    };
    let options = HpetOptions { msi: Some(messages.clone()), ..HpetOptions::default() };
    Rig { hpet: Hpet::new("hpet", options, lines, &clock, Log::off()), clock, edges, messages, legacy }
}

impl Rig {
    fn rd(&self, offset: u64) -> u64 {
        self.hpet.read(offset, Access::cpu(0, 8)).unwrap()
    }
    fn wr(&self, offset: u64, value: u64) {
        self.hpet.write(offset, value, Access::cpu(0, 8)).unwrap();
    }
    fn wr32(&self, offset: u64, value: u64) {
        self.hpet.write(offset, value, Access::cpu(0, 4)).unwrap();
    }
    /// Goes to a time, in ticks of the clock.
    fn at(&self, tick: u64) {
        self.clock.set_ns(tick * 10);
        self.hpet.change(|_, _| ());
    }
    fn count(&self, pin: usize) -> u32 {
        self.edges.0[pin].load(Ordering::SeqCst)
    }
}

#[test]
fn identity_and_counter() {
    let r = rig();
    assert_eq!(r.rd(0), 0x0098_9680_8086_a201);
    assert_eq!(r.hpet.block_id(), 0x8086_a201);
    assert_eq!(r.hpet.read(4, Access::cpu(0, 4)), Ok(0x0098_9680));
    assert_eq!(r.rd(0x100), 0x00ff_0104_0000_8030);
    r.wr(0xf0, 0x1_ffff_ff00);
    r.at(50);
    assert_eq!(r.rd(0xf0), 0x1_ffff_ff00);
    r.wr(0x10, 1);
    r.at(0x150);
    assert_eq!(r.rd(0xf0), 0x2_0000_001e);
    assert_eq!(r.hpet.read(0xf4, Access::cpu(0, 4)), Ok(2));
    r.wr(0x10, 0);
    r.at(0x1000);
    assert_eq!(r.rd(0xf0), 0x2_0000_001e);
    r.hpet.reset();
    assert_eq!(r.rd(0xf0), 0);
}

#[test]
fn one_shot_and_wrap() {
    let r = rig();
    r.wr(0x100, 16 << 9 | 4 | 1 << 8);
    r.wr(0x108, 1000);
    r.wr(0x10, 1);
    r.at(999);
    assert_eq!(r.count(16), 0);
    r.at(1000);
    assert_eq!((r.count(16), r.rd(0x20)), (1, 0));
    r.at(2000);
    assert_eq!(r.count(16), 1);
    r.at(1000 + (1 << 32));
    assert_eq!(r.count(16), 2, "32-bit mode: again after a wrap");
    // 64-bit mode: a comparator in the past does not match.
    r.wr(0x100, 16 << 9 | 4);
    r.wr(0x108, 5);
    r.at(1 << 34);
    assert_eq!(r.count(16), 2);
    r.wr(0x108, (1 << 34) + 5);
    r.at((1 << 34) + 5);
    assert_eq!(r.count(16), 3);
}

#[test]
fn periodic_as_linux_sets_it() {
    let r = rig();
    r.wr32(0x10, 3);
    assert_eq!(*r.legacy.lock(), [true]);
    r.at(500);
    r.wr32(0x100, 0x14c);
    r.wr32(0x108, 1500);
    assert_eq!(r.rd(0x100) & 0x40, 0, "the bit clears itself");
    r.wr32(0x108, 100);
    r.at(1499);
    assert_eq!((r.count(32), r.rd(0x108)), (0, 1500));
    r.at(1500);
    assert_eq!((r.count(32), r.rd(0x108)), (1, 1600));
    r.at(1600);
    assert_eq!(r.count(32), 2);
    r.at(1950);
    assert_eq!((r.count(32), r.rd(0x108)), (3, 2000), "late ones are one");
    // Timer 1 is IRQ 8.
    r.wr(0x120, 4);
    r.wr(0x128, 1960);
    r.at(1970);
    assert_eq!(r.count(33), 1);
    r.hpet.reset();
    assert_eq!(*r.legacy.lock(), [true, false]);
}

#[test]
fn levels() {
    let r = rig();
    r.wr(0x140, 20 << 9 | 6);
    r.wr(0x148, 100);
    r.wr(0x10, 1);
    r.at(100);
    assert_eq!((r.rd(0x20), r.hpet.lines.inputs[20].level()), (4, true));
    // Routed elsewhere while active; to where it cannot be, it is not.
    r.wr(0x140, 21 << 9 | 6);
    assert!(!r.hpet.lines.inputs[20].level() && r.hpet.lines.inputs[21].level());
    r.wr(0x140, 3 << 9 | 6);
    assert!(r.hpet.lines.inputs[21].level());
    r.wr(0x140, 21 << 9 | 2);
    assert!(!r.hpet.lines.inputs[21].level());
    r.wr(0x140, 21 << 9 | 6);
    r.wr(0x20, 4);
    assert_eq!((r.rd(0x20), r.hpet.lines.inputs[21].level()), (0, false));
}

#[test]
fn messages() {
    let r = rig();
    r.wr(0x110, 0xfee0_1000_0000_4031);
    r.wr(0x100, 1 << 14 | 4 | 8 | 0x40);
    r.wr(0x108, 10);
    r.wr(0x10, 1);
    r.at(10);
    r.at(20);
    let message = MsiMessage { address: 0xfee0_1000, data: 0x4031, requester_id: 0 };
    assert_eq!(*r.messages.0.lock(), [message, message]);
}

#[test]
fn fires_by_itself() {
    let r = rig();
    r.wr(0x100, 16 << 9 | 4 | 8 | 0x40);
    r.wr(0x108, 100_000);
    r.wr(0x10, 1);
    r.clock.start();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while r.count(16) < 5 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(r.count(16) >= 5);
    assert!(r.clock.now_ns() >= 5_000_000);
}

/// Nobody is woken for matches of which nothing comes, and they are there for who looks.
#[test]
fn silent_matches() {
    let r = rig();
    // Periodic without interrupts, then level-triggered.
    r.wr(0x100, 1 << 3 | 1 << 6);
    r.wr(0x108, 1000);
    r.wr(0x10, 1);
    assert_eq!(r.hpet.timer.deadline(), None);
    r.clock.set_ns(10 * 2500);
    assert_eq!((r.rd(0x108), r.rd(0x20)), (3000, 0));
    r.wr(0x100, 1 << 1 | 1 << 3);
    r.clock.set_ns(10 * 3500);
    assert_eq!((r.hpet.timer.deadline(), r.rd(0x20), r.rd(0x108)), (None, 1, 4000));
    // The next one interrupts.
    r.wr(0x20, 1);
    r.wr(0x100, 1 << 1 | 1 << 2 | 1 << 3 | 2 << 9);
    assert_eq!((r.hpet.timer.deadline(), r.count(2)), (Some(10 * 4000), 0));
    r.at(4000);
    assert_eq!(r.count(2), 1);
}

#[test]
fn saves() {
    let r = rig();
    r.wr(0x100, 16 << 9 | 6 | 8 | 0x40);
    r.wr(0x108, 10);
    r.wr(0x10, 1);
    r.at(15);
    let other = rig();
    other.clock.set_ns(150);
    other.hpet.load(&r.hpet.save()).unwrap();
    assert_eq!(*other.hpet.state.lock(), *r.hpet.state.lock());
    assert!(other.hpet.lines.inputs[16].level());
    assert_eq!(other.rd(0x108), 20);
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = Random::new(6);
    let mut now = 0u64;
    for _ in 0..50_000 {
        poke(&*r.hpet, 0x400, &mut random);
        poke(&*r.hpet, 0x30, &mut random);
        now = now.wrapping_add(random.next() >> (random.next() & 63));
        r.clock.set_ns(now);
    }
    r.clock.set_ns(0);
    r.clock.start();
    for _ in 0..5_000 {
        poke(&*r.hpet, 0x400, &mut random);
    }
}
