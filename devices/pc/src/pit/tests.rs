use super::*;
use crate::testing::{Ports, Random, poke};
use std::time::{Duration, Instant};

struct Rig {
    pit: Arc<Pit>,
    port61: Arc<SystemControlB>,
    clock: Arc<VirtualClock>,
    line: IrqLine,
}

fn rig() -> Rig {
    let (clock, line) = (VirtualClock::new(), IrqLine::unconnected());
    let pit = Pit::new("pit", line.clone(), &clock);
    Rig { port61: pit.system_control_b(), pit, clock, line }
}

impl Rig {
    fn at(&self, tick: i64) {
        self.clock.set_ns(time_of(tick));
    }
    /// Programs a counter with low and high byte.
    fn program(&self, counter: u8, mode: u8, count: u16) {
        self.pit.outb(3, counter << 6 | 0x30 | mode << 1);
        self.pit.outb(counter.into(), count as u8);
        self.pit.outb(counter.into(), (count >> 8) as u8);
    }
    fn count(&self, counter: u8) -> u16 {
        self.pit.outb(3, counter << 6);
        u16::from_le_bytes([self.pit.inb(counter.into()), self.pit.inb(counter.into())])
    }
    fn status(&self, counter: u8) -> u8 {
        self.pit.outb(3, 0xe0 | 2 << counter);
        self.pit.inb(counter.into())
    }
    fn out(&self, counter: u8) -> bool {
        self.status(counter) & 0x80 != 0
    }
    fn gate2(&self, on: bool) {
        self.port61.outb(0, on.into());
    }
}

#[test]
fn ticks_and_times_agree() {
    for tick in [0, 1, 2, 7, 1_193_182, 999_999_937] {
        assert_eq!(ticks(time_of(tick)), tick);
        assert!(tick == 0 || ticks(time_of(tick) - 1) == tick - 1);
    }
}

#[test]
fn mode_0_counts_down_once() {
    let r = rig();
    r.program(0, 0, 100);
    assert_eq!(r.status(0), 0x70, "OUT low, null count");
    r.at(1);
    assert_eq!((r.status(0), r.count(0)), (0x30, 100));
    r.at(100);
    assert_eq!((r.out(0), r.count(0)), (false, 1));
    r.at(101);
    assert_eq!((r.status(0), r.count(0)), (0xb0, 0));
    r.at(103);
    assert_eq!((r.out(0), r.count(0)), (true, 0xfffe), "it goes on counting");
    r.pit.outb(0, 5);
    assert!(!r.out(0), "the first byte stops it");
    r.at(1000);
    assert_eq!(r.count(0), 0xfffe);
    r.pit.outb(0, 0);
    r.at(1006);
    assert!(r.out(0));
}

#[test]
fn mode_2_and_new_counts() {
    let r = rig();
    r.program(0, 2, 10);
    r.at(1);
    assert_eq!((r.out(0), r.count(0)), (true, 10));
    r.at(10);
    assert_eq!((r.out(0), r.count(0)), (false, 1));
    r.at(11);
    assert_eq!((r.out(0), r.count(0)), (true, 10));
    r.at(15);
    r.pit.outb(0, 4);
    r.pit.outb(0, 0);
    assert_eq!((r.count(0), r.status(0)), (6, 0xf4));
    r.at(20);
    assert_eq!(r.count(0), 1, "the period under way is not changed");
    r.at(21);
    assert_eq!((r.count(0), r.status(0)), (4, 0xb4));
    r.at(24);
    assert!(!r.out(0));
    r.at(25);
    assert!(r.out(0));
}

#[test]
fn mode_3_is_a_square_wave() {
    let r = rig();
    r.program(0, 3, 5);
    let mut wave = vec![];
    for tick in 1..=11 {
        r.at(tick);
        wave.push((r.count(0), r.out(0)));
    }
    let period = [(4, true), (2, true), (0, true), (4, false), (2, false)];
    assert_eq!(wave[..5], period);
    assert_eq!(wave[5..10], period);
    // A new count during the high half starts with the low one.
    r.at(12);
    r.pit.outb(0, 8);
    r.pit.outb(0, 0);
    r.at(14);
    assert_eq!((r.count(0), r.out(0)), (8, false));
    r.at(17);
    assert_eq!((r.count(0), r.out(0)), (2, false));
    r.at(18);
    assert_eq!((r.count(0), r.out(0)), (8, true));
}

#[test]
fn strobes() {
    let r = rig();
    r.program(0, 4, 3);
    for (tick, out) in [(1, true), (3, true), (4, false), (5, true), (0x1_0004, true)] {
        r.at(tick);
        assert_eq!(r.out(0), out, "mode 4, tick {tick}");
    }
    r.program(2, 5, 3);
    r.at(0x2_0000);
    assert!(r.out(2));
    r.gate2(true);
    for (tick, out) in [(3, true), (4, false), (5, true)] {
        r.at(0x2_0000 + tick);
        assert_eq!(r.out(2), out, "mode 5, tick {tick}");
    }
}

#[test]
fn one_shot_can_be_triggered_again() {
    let r = rig();
    r.program(2, 1, 10);
    assert!(r.out(2));
    r.gate2(true);
    r.at(5);
    assert!(!r.out(2));
    r.gate2(false);
    r.gate2(true);
    r.at(15);
    assert!(!r.out(2), "it began anew");
    r.at(16);
    assert!(r.out(2));
}

#[test]
fn gates() {
    let r = rig();
    r.gate2(true);
    r.program(2, 3, 100);
    r.at(61);
    assert!(!r.out(2));
    r.gate2(false);
    assert!(r.out(2));
    assert_eq!(r.port61.inb(0) & 0x2f, 0x20);
    r.at(70);
    r.gate2(true);
    r.at(120);
    assert!(r.out(2), "a trigger starts the period");
    r.at(121);
    assert!(!r.out(2));
    r.port61.outb(0, 3);
    assert_eq!(r.pit.speaker_hz(), Some(11931));
    // Mode 0 pauses.
    r.program(2, 0, 50);
    r.at(131);
    r.gate2(false);
    let stood = r.count(2);
    r.at(500);
    assert_eq!((r.count(2), stood), (stood, 41));
    r.gate2(true);
    r.at(540);
    assert!(!r.out(2));
    r.at(541);
    assert!(r.out(2));
}

#[test]
fn bcd_and_formats() {
    let r = rig();
    r.pit.outb(3, 0x35);
    r.pit.outb(0, 0x00);
    r.pit.outb(0, 0x10);
    r.at(2);
    assert_eq!(r.count(0), 0x0999);
    r.pit.outb(3, 0x25);
    r.pit.outb(0, 0x12);
    r.at(3);
    assert_eq!(r.pit.inb(0), 0x12);
    r.at(4);
    assert_eq!((r.pit.inb(0), r.pit.inb(0)), (0x11, 0x11));
    r.pit.outb(3, 0x94);
    r.pit.outb(2, 0);
    r.gate2(true);
    r.at(6);
    assert_eq!(r.pit.inb(2), 0xff, "0 is 65536");
    assert_eq!(r.status(2), 0x94);
}

#[test]
fn latches_hold() {
    let r = rig();
    r.program(0, 2, 1000);
    r.at(1);
    // Read-back of count and status of counter 0: the status comes first.
    r.pit.outb(3, 0xc2);
    r.at(500);
    r.pit.outb(3, 0x00);
    assert_eq!((r.pit.inb(0), r.pit.inb(0), r.pit.inb(0)), (0xb4, 0xe8, 0x03));
    assert_eq!(r.count(0), 501);
}

#[test]
fn refresh_toggles() {
    let r = rig();
    let first = r.port61.inb(0) & 0x10;
    r.clock.set_ns(REFRESH_NS + 1);
    assert_ne!(r.port61.inb(0) & 0x10, first);
}

#[test]
fn interrupts() {
    use rhea_accel::IrqSink;
    use std::sync::atomic::{AtomicU32, Ordering};
    #[derive(Default)]
    struct Edges(AtomicU32);
    impl IrqSink for Edges {
        fn set_level(&self, _pin: u32, level: bool) {
            self.0.fetch_add(level.into(), Ordering::SeqCst);
        }
    }
    let (clock, edges) = (VirtualClock::new(), Arc::new(Edges::default()));
    let pit = Pit::new("pit", IrqLine::to_sink(edges.clone(), 0), &clock);
    let count = || edges.0.load(Ordering::SeqCst);
    pit.outb(3, 0x34);
    assert_eq!(count(), 1, "OUT of mode 2 is high at once");
    pit.outb(0, 0xa9);
    pit.outb(0, 0x04);
    let from = Instant::now();
    clock.start();
    while count() < 20 && from.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(count() >= 20);
    assert!(from.elapsed() >= Duration::from_millis(18), "1000 Hz");
    pit.set_irq_blocked(true);
    std::thread::sleep(Duration::from_millis(3));
    let still = count();
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(count(), still);
    pit.set_irq_blocked(false);
    // Mode 0: one interrupt.
    pit.outb(3, 0x30);
    let before = count();
    pit.outb(0, 0xa9);
    pit.outb(0, 0x04);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(count(), before + 1);
}

#[test]
fn saves() {
    let r = rig();
    r.program(0, 2, 1000);
    r.program(2, 3, 77);
    r.port61.outb(0, 3);
    r.at(123);
    let other = rig();
    other.at(123);
    other.pit.load(&r.pit.save()).unwrap();
    assert_eq!(*other.pit.state.lock(), *r.pit.state.lock());
    assert_eq!(other.line.level(), r.line.level());
    assert_eq!((other.count(0), other.out(2)), (r.count(0), r.out(2)));
    other.pit.reset();
    assert!(!other.line.level());
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = Random::new(3);
    let mut now = 0;
    for _ in 0..50_000 {
        poke(&*r.pit, 4, &mut random);
        poke(&*r.port61, 1, &mut random);
        now += random.next() % 300_000;
        r.clock.set_ns(now);
        assert!(r.pit.state.lock().counters.iter().all(Counter::sane));
    }
    r.clock.start();
    for _ in 0..5_000 {
        poke(&*r.pit, 4, &mut random);
    }
}
