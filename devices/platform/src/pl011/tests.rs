use super::*;
use rhea_device::chardev::MemoryChar;
use std::time::{Duration, Instant};

struct Rig {
    uart: Arc<Pl011>,
    char: Arc<MemoryChar>,
    clock: Arc<VirtualClock>,
    line: IrqLine,
}

fn rig() -> Rig {
    let (char, clock, line) = (MemoryChar::new(), VirtualClock::new(), IrqLine::unconnected());
    let uart = Pl011::new("pl011@9000000", line.clone(), char.clone(), &clock, Log::off());
    Rig { uart, char, clock, line }
}

const DR: u64 = 0;
const RSR: u64 = 4;
const FR: u64 = 0x18;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;

impl Rig {
    fn rd(&self, offset: u64) -> u64 {
        self.uart.read(offset, Access::cpu(0, 4)).unwrap()
    }
    fn wr(&self, offset: u64, value: u64) {
        self.uart.write(offset, value, Access::cpu(0, 4)).unwrap();
    }
    /// As Linux sets it up: 8 bits, FIFOs, 115200.
    fn set_up(&self) {
        self.wr(0x24, 13);
        self.wr(0x28, 1);
        self.wr(LCR_H, 0x70);
        self.wr(CR, 0x301);
        self.wr(ICR, 0x7ff);
    }
}

#[test]
fn map_and_ids() {
    assert!(MAP.check());
    let r = rig();
    let ids: Vec<u64> = (0..8).map(|i| r.rd(0xfe0 + i * 4)).collect();
    assert_eq!(ids, [0x11, 0x10, 0x24, 0, 0x0d, 0xf0, 0x05, 0xb1]);
    assert_eq!((r.rd(CR), r.rd(IFLS), r.rd(FR) & 0xf8), (0x300, 0x12, 0x90));
}

#[test]
fn early_output_needs_no_set_up() {
    let r = rig();
    r.uart.write(DR, 0xe9, Access::cpu(0, 1)).unwrap();
    assert_eq!(r.char.take_output(), [0xe9]);
    r.char.input(b"xy");
    assert_eq!(r.rd(DR), u64::from(b'x'));
    assert_eq!(r.rd(DR), u64::from(b'y'));
}

#[test]
fn transmit_interrupt_and_disabled_transmitter() {
    let r = rig();
    r.set_up();
    r.wr(IMSC, 0x20);
    assert!(!r.line.level(), "nothing has passed the trigger level yet");
    r.wr(DR, u64::from(b'a'));
    assert!(r.line.level());
    assert_eq!(r.rd(MIS), 0x20);
    r.wr(ICR, 0x20);
    assert!(!r.line.level());
    r.wr(CR, 0x300);
    for byte in b"0123456789abcdefgh" {
        r.wr(DR, u64::from(*byte));
    }
    assert_eq!(r.char.take_output(), b"a0123456789abcdefgh", "an early console that enables nothing is heard");
    assert_eq!(r.rd(FR) & 0xa0, 0x80);
}

#[test]
fn receive_levels_and_flow() {
    let r = rig();
    r.set_up();
    r.wr(IMSC, 0x10);
    r.char.input(b"0123456");
    assert!(!r.line.level());
    r.char.input(b"7");
    assert!(r.line.level());
    assert_eq!(r.rd(DR), u64::from(b'0'));
    assert!(!r.line.level());
    let text: Vec<u8> = (b'8'..=b'Z').collect();
    r.char.input(&text);
    assert_eq!(r.rd(FR) & 0x40, 0x40);
    let mut got = vec![];
    while r.rd(FR) & 0x10 == 0 {
        got.push(r.rd(DR) as u8);
    }
    assert_eq!(got, (b'1'..=b'Z').collect::<Vec<_>>(), "held input flows in as there is room");
    assert_eq!(r.rd(RIS) & 0x450, 0);
    // Without FIFOs, one by one.
    r.wr(LCR_H, 0x60);
    r.char.input(b"AB");
    assert_eq!(r.rd(FR) & 0x50, 0x40);
    assert!(r.line.level());
    assert_eq!((r.rd(DR), r.rd(DR)), (65, 66));
    assert!(!r.line.level());
}

#[test]
fn receive_timeout() {
    let r = rig();
    r.set_up();
    r.wr(IMSC, 0x40);
    r.char.input(b"x");
    assert_eq!(r.rd(RIS) & 0x40, 0);
    r.clock.start();
    let end = Instant::now() + Duration::from_secs(10);
    while !r.line.level() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(r.rd(MIS), 0x40);
    assert_eq!(r.rd(DR), u64::from(b'x'));
    assert!(!r.line.level());
    assert!(r.uart.state.lock().timeout_ns() > 270_000 && r.uart.state.lock().timeout_ns() < 285_000);
}

#[test]
fn breaks_and_overrun() {
    let r = rig();
    r.set_up();
    r.char.event(CharEvent::Break);
    assert_eq!(r.rd(RIS) & 0x200, 0x200);
    assert_eq!(r.rd(DR), 0x400);
    assert_eq!(r.rd(RSR), 4);
    r.wr(RSR, 0);
    assert_eq!(r.rd(RSR), 0);
    r.char.input(&[b'a'; 16]);
    r.char.event(CharEvent::Break);
    assert_eq!(r.rd(RIS) & 0x400, 0x400);
    assert_eq!(r.rd(RSR) & 8, 8);
    r.rd(DR);
    r.char.input(b"b");
    let all: Vec<u64> = (0..16).map(|_| r.rd(DR)).collect();
    assert_eq!(all[15], 0x800 | u64::from(b'b'));
}

#[test]
fn loopback() {
    let r = rig();
    r.set_up();
    r.wr(CR, 0x381);
    r.wr(ICR, 0x7ff);
    assert_eq!(r.rd(FR) & 0x107, 0);
    r.wr(CR, 0x381 | 0x3c00);
    assert_eq!(r.rd(FR) & 0x107, 0x107);
    assert_eq!(r.rd(RIS) & 0xf, 0xf);
    r.wr(DR, 0x41);
    r.char.input(b"held");
    assert_eq!(r.rd(DR), 0x41);
    assert_eq!(r.rd(FR) & 0x10, 0x10);
    assert!(r.char.take_output().is_empty());
    r.wr(LCR_H, 0x71);
    assert_eq!(r.rd(DR), 0x400);
    r.wr(LCR_H, 0x70);
    r.wr(CR, 0x301);
    assert_eq!(r.rd(DR), u64::from(b'h'));
}

#[test]
fn test_registers() {
    let r = rig();
    r.set_up();
    r.wr(0x80, 1);
    r.wr(0x88, 0x40);
    assert!(r.line.level());
    r.wr(0x80, 2);
    assert!(!r.line.level());
    r.wr(DR, 0x55);
    assert_eq!(r.rd(0x8c), 0x55);
    r.wr(0x8c, 0x2aa);
    assert_eq!(r.rd(DR), 0x2aa);
}

#[test]
fn saves() {
    let r = rig();
    r.set_up();
    r.wr(IMSC, 0x10);
    r.char.input(b"12345678");
    let other = rig();
    other.uart.load(&r.uart.save()).unwrap();
    assert_eq!(*other.uart.state.lock(), *r.uart.state.lock());
    assert!(other.line.level());
    other.uart.reset();
    assert!(!other.line.level());
    assert_eq!(*other.uart.state.lock(), State::default());
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = crate::testing::Random::new(1);
    for i in 0..200_000 {
        let x = random.next();
        let size = 1 << (x >> 60 & 3);
        let offset = match x >> 58 & 3 {
            0 => x & 0xfff,
            1 => x & 0xff,
            _ => (x & 0x3f) << 2,
        } & !(u64::from(size as u8) - 1);
        let access = Access::cpu(0, size as u8);
        match x >> 40 & 7 {
            0..=2 => drop(r.uart.read(offset, access)),
            3 => r.char.input(&x.to_le_bytes()),
            4 if x & 0x70 == 0 => r.char.event(CharEvent::Break),
            _ => drop(r.uart.write(offset, random.next(), access)),
        }
        let state = r.uart.state.lock();
        assert!(state.rx.len() <= DEPTH && state.tx.len() <= DEPTH);
        assert_eq!(r.line.level(), state.interrupt(), "step {i}");
    }
}
