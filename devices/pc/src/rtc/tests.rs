use super::*;
use crate::testing::{Ports, Random, poke};
use rhea_clock::{RtcBase, RtcSource};
use std::time::{Duration, Instant};

struct Rig {
    rtc: Arc<Rtc>,
    clock: Arc<VirtualClock>,
    line: IrqLine,
}

/// 2026-11-21 13:04:09.
const START: i64 = 1_795_266_249;

fn rig() -> Rig {
    let (clock, line) = (VirtualClock::new(), IrqLine::unconnected());
    let wall = RtcClock::new(RtcBase::Fixed(START), RtcSource::Vm, &clock);
    Rig { rtc: Rtc::new("rtc", line.clone(), wall, &clock, Log::off()), clock, line }
}

impl Rig {
    fn rd(&self, index: u8) -> u8 {
        self.rtc.outb(0, index);
        self.rtc.inb(1)
    }
    fn wr(&self, index: u8, value: u8) {
        self.rtc.outb(0, index);
        self.rtc.outb(1, value);
    }
    fn time(&self) -> [u8; 8] {
        [0, 2, 4, 6, 7, 8, 9, 0x32].map(|i| self.rd(i))
    }
    fn ms(&self, ms: u64) {
        self.clock.set_ns(ms * 1_000_000);
    }
    fn wait(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.line.level() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.line.level()
    }
}

#[test]
fn time_and_formats() {
    let r = rig();
    assert_eq!(r.time(), [0x09, 0x04, 0x13, 7, 0x21, 0x11, 0x26, 0x20]);
    r.ms(51_000);
    assert_eq!(r.time()[..3], [0, 5, 0x13]);
    r.wr(0x0b, 4);
    assert_eq!(r.time(), [0, 5, 0x81, 7, 21, 11, 26, 20]);
    assert_eq!((r.rd(0x0a), r.rd(0x0d), r.rtc.inb(0)), (0x26, 0x80, 0xff));
}

#[test]
fn update_in_progress() {
    let r = rig();
    r.ms(997);
    assert_eq!(r.rd(0x0a), 0x26);
    r.ms(999);
    assert_eq!((r.rd(0x0a), r.rd(0)), (0xa6, 9));
    r.wr(0x0b, 0x82);
    assert_eq!(r.rd(0x0a), 0x26, "SET ends the update");
    r.wr(0x0b, 0x02);
    r.ms(1000);
    assert_eq!((r.rd(0x0a), r.rd(0)), (0x26, 0x10));
}

#[test]
fn setting_the_time() {
    let r = rig();
    r.ms(300);
    r.wr(0x0b, 0x82);
    for (index, value) in [(0, 0x58), (2, 0x59), (4, 0x23), (6, 1), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)] {
        r.wr(index, value);
    }
    r.ms(5_300);
    assert_eq!(r.time(), [0x58, 0x59, 0x23, 1, 0x31, 0x12, 0x99, 0x19]);
    r.wr(0x0b, 2);
    r.ms(5_999);
    assert_eq!(r.rd(0), 0x58, "SET leaves the divider running");
    r.ms(7_000);
    assert_eq!(r.time(), [0, 0, 0, 2, 1, 1, 0, 0x20]);
    // The divider chain out of reset: half a second.
    r.wr(0x0a, 0x66);
    r.ms(17_200);
    assert_eq!(r.rd(0), 0);
    r.wr(0x0a, 0x26);
    r.ms(17_600);
    assert_eq!(r.rd(0), 0);
    r.ms(17_700);
    assert_eq!(r.rd(0), 1);
    r.wr(0, 0x30);
    assert_eq!(r.time()[..2], [0x30, 0]);
    r.rtc.reset();
    assert_eq!(r.time()[..2], [0x30, 0], "the time outlives a reset");
}

#[test]
fn flags() {
    let r = rig();
    assert_eq!(r.rd(0x0c), 0);
    r.ms(1000);
    assert_eq!((r.rd(0x0c), r.rd(0x0c)), (0x50, 0));
    assert!(!r.line.level());
    // Alarm at 13:04:15.
    r.wr(1, 0x15);
    r.wr(3, 0x04);
    r.wr(5, 0xc0);
    r.wr(0x0b, 0x22);
    let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = told.clone();
    r.rtc.on_alarm(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    r.ms(5_999);
    assert_eq!(r.rd(0x0c) & 0xa0, 0);
    r.ms(6_000);
    r.rtc.change(|_, _| ());
    assert!(r.line.level());
    assert_eq!(r.rd(0x0c) & 0xa0, 0xa0);
    assert!(!r.line.level());
    r.ms(3_606_000);
    assert_eq!(r.rd(0x0c) & 0xa0, 0xa0, "any hour");
    assert_eq!(told.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn interrupts() {
    let r = rig();
    r.clock.start();
    // 1024 Hz.
    r.wr(0x0b, 0x42);
    let from = Instant::now();
    for _ in 0..30 {
        assert!(r.wait());
        assert_eq!(r.rd(0x0c) & 0xc0, 0xc0);
    }
    assert!(from.elapsed() > Duration::from_millis(20));
    r.rtc.set_irq_blocked(true);
    std::thread::sleep(Duration::from_millis(5));
    assert!(!r.line.level());
    r.rtc.set_irq_blocked(false);
    assert!(r.wait());
    r.wr(0x0b, 0x12);
    r.rd(0x0c);
    assert!(r.wait());
    assert_eq!(r.rd(0x0c) & 0x90, 0x90);
    r.wr(0x0b, 0x92);
    assert_eq!(r.rd(0x0b), 0x82, "SET ends the update interrupt");
}

#[test]
fn memory_and_nmi() {
    let r = rig();
    r.rtc.set_cmos(0x15, 0x80);
    r.rtc.set_cmos(0x0b, 0xff);
    r.rtc.set_cmos(0xf0, 9);
    assert_eq!((r.rd(0x15), r.rd(0x0b)), (0x80, 2));
    r.rtc.outb(2, 0xf0);
    assert_eq!((r.rtc.inb(2), r.rtc.inb(3)), (0xf0, 9));
    r.rtc.outb(3, 8);
    assert_eq!(r.rtc.cmos(0xf0), 8);
    r.wr(0x70, 3);
    assert_eq!(r.rtc.cmos(0x70), 3);
    assert!(!r.rtc.nmi_masked());
    r.rtc.outb(0, 0x8f);
    assert!(r.rtc.nmi_masked());
}

#[test]
fn saves() {
    let r = rig();
    r.wr(0x0b, 0x62);
    r.wr(0x40, 0x77);
    r.wr(4, 0x01);
    r.ms(1500);
    r.rtc.change(|_, _| ());
    let other = rig();
    other.ms(1500);
    other.rtc.load(&r.rtc.save()).unwrap();
    assert_eq!(*other.rtc.state.lock(), *r.rtc.state.lock());
    assert!(other.line.level());
    assert_eq!(other.time(), r.time());
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = Random::new(4);
    let mut now = 0;
    for _ in 0..50_000 {
        r.rtc.outb(0, random.next() as u8 & 0x0f);
        poke(&*r.rtc, 4, &mut random);
        now += random.next() % 2_000_000_000_000;
        r.clock.set_ns(now);
        assert!(r.rtc.state.lock().sane());
        let state = r.rtc.state.lock();
        assert_eq!(r.line.level(), state.interrupt());
    }
}
