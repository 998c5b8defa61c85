use super::spec::reg::*;
use super::*;
use crate::testing::{Ports, Random};
use rhea_device::chardev::MemoryChar;
use std::time::{Duration, Instant};

struct Rig {
    uart: Arc<Uart16550>,
    char: Arc<MemoryChar>,
    clock: Arc<VirtualClock>,
    line: IrqLine,
}

fn rig_with(options: UartOptions) -> Rig {
    let (char, clock, line) = (MemoryChar::new(), VirtualClock::new(), IrqLine::unconnected());
    let uart = Uart16550::new("serial0", options, line.clone(), char.clone(), &clock);
    Rig { uart, char, clock, line }
}

fn rig() -> Rig {
    rig_with(UartOptions::default())
}

impl Rig {
    fn rd(&self, register: u8) -> u8 {
        self.uart.inb(register.into())
    }
    fn wr(&self, register: u8, value: u8) {
        self.uart.outb(register.into(), value);
    }
}

#[test]
fn reset_values_and_scratch() {
    let r = rig();
    assert_eq!((0..8).map(|i| r.rd(i)).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 0x60, 0xb0, 0]);
    r.wr(SCR, 0x5a);
    r.wr(IER, 0xff);
    r.wr(MCR, 0xef);
    assert_eq!((r.rd(SCR), r.rd(IER), r.rd(MCR)), (0x5a, 0x0f, 0x0f));
}

#[test]
fn output_needs_no_set_up() {
    let r = rig();
    r.wr(DATA, 0xe9);
    assert_eq!(r.char.take_output(), [0xe9]);
    r.wr(LCR, 0x02);
    r.wr(DATA, 0xe9);
    assert_eq!(r.char.take_output(), [0x69], "seven bits");
}

#[test]
fn divisor() {
    let r = rig();
    r.wr(LCR, 0x83);
    r.wr(DATA, 1);
    r.wr(IER, 0);
    assert_eq!((r.rd(DATA), r.rd(IER)), (1, 0));
    r.wr(LCR, 3);
    assert!(r.char.take_output().is_empty());
    let ns = r.uart.state.lock().timeout_ns(1_843_200);
    assert!((340_000..350_000).contains(&ns), "40 bits at 115200: {ns}");
}

#[test]
fn transmitter_empty_interrupt() {
    let r = rig();
    r.wr(IER, 2);
    assert!(r.line.level());
    assert_eq!(r.rd(IIR), 2);
    assert!(!r.line.level(), "reading IIR ends it");
    assert_eq!(r.rd(IIR), 1);
    r.wr(DATA, b'a');
    assert!(r.line.level());
    r.wr(IER, 0);
    assert!(!r.line.level());
    r.wr(IER, 2);
    assert_eq!(r.rd(IIR), 2);
    r.wr(IER, 2);
    assert_eq!(r.rd(IIR), 1);
}

#[test]
fn receive_levels_and_flow() {
    let r = rig();
    r.wr(LCR, 3);
    r.wr(IER, 1);
    r.wr(IIR, 0x87);
    assert_eq!(r.rd(IIR), 0xc1);
    r.char.input(b"0123456");
    assert!(!r.line.level());
    assert_eq!(r.rd(LSR), 0x61);
    r.char.input(b"7");
    assert_eq!(r.rd(IIR), 0xc4);
    assert!(r.line.level());
    assert_eq!(r.rd(DATA), b'0');
    assert!(!r.line.level());
    let text: Vec<u8> = (b'8'..=b'Z').collect();
    r.char.input(&text);
    let mut got = vec![];
    while r.rd(LSR) & 1 != 0 {
        got.push(r.rd(DATA));
    }
    assert_eq!(got, (b'1'..=b'Z').collect::<Vec<_>>(), "held input flows in as there is room");
    // Without FIFOs, one by one.
    r.wr(IIR, 0);
    r.char.input(b"AB");
    assert_eq!(r.rd(IIR), 4);
    assert_eq!((r.rd(DATA), r.rd(DATA), r.rd(LSR)), (65, 66, 0x60));
    assert!(!r.line.level());
}

#[test]
fn time_out() {
    let r = rig();
    r.wr(LCR, 0x83);
    r.wr(DATA, 1);
    r.wr(LCR, 3);
    r.wr(IER, 1);
    r.wr(IIR, 0xc1);
    r.char.input(b"xy");
    assert_eq!(r.rd(IIR), 0xc1);
    r.clock.start();
    let end = Instant::now() + Duration::from_secs(10);
    while !r.line.level() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(r.rd(IIR), 0xcc);
    assert_eq!(r.rd(IIR), 0xcc, "only reading the data ends it");
    r.clock.stop();
    assert_eq!((r.rd(DATA), r.rd(IIR), r.rd(DATA)), (b'x', 0xc1, b'y'));
    assert!(!r.line.level());
}

#[test]
fn breaks_and_overrun() {
    let r = rig();
    r.wr(IER, 4);
    r.wr(IIR, 1);
    r.char.input(b"a");
    r.char.event(CharEvent::Break);
    assert_eq!((r.rd(LSR), r.line.level()), (0xe1, false), "the break is not at the top yet");
    r.rd(DATA);
    assert!(r.line.level());
    assert_eq!(r.rd(IIR), 0xc6);
    assert_eq!((r.rd(LSR), r.rd(LSR)), (0xf9, 0x61));
    assert!(!r.line.level());
    assert_eq!(r.rd(DATA), 0);
    r.char.input(&[b'a'; 16]);
    r.char.event(CharEvent::Break);
    assert_eq!((r.rd(LSR), r.rd(LSR)), (0x63, 0x61));
    assert_eq!((0..16).filter(|_| r.rd(DATA) == b'a').count(), 16);
}

#[test]
fn loopback() {
    let r = rig();
    r.wr(LCR, 3);
    r.wr(IIR, 1);
    r.wr(MCR, 0x10);
    assert_eq!((r.rd(MSR), r.rd(MSR)), (0x0b, 0));
    r.wr(MCR, 0x1f);
    assert_eq!(r.rd(MSR), 0xfb);
    r.wr(IER, 8);
    r.wr(MCR, 0x1b);
    assert!(r.line.level());
    assert_eq!((r.rd(IIR), r.rd(MSR), r.rd(IIR)), (0xc0, 0xb4, 0xc1), "the end of a ring");
    r.wr(DATA, 0x41);
    r.char.input(b"held");
    assert_eq!((r.rd(DATA), r.rd(LSR)), (0x41, 0x60));
    assert!(r.char.take_output().is_empty());
    r.wr(LCR, 0x43);
    assert_eq!((r.rd(LSR), r.rd(DATA)), (0xf9, 0));
    r.wr(LCR, 3);
    r.wr(MCR, 0x0b);
    assert_eq!(r.rd(DATA), b'h');
}

#[test]
fn shifted_registers() {
    let r = rig_with(UartOptions { register_shift: 2, ..UartOptions::default() });
    assert_eq!(r.uart.window(), 32);
    r.uart.outb(0x1c, 7);
    assert_eq!((r.uart.inb(0x1c), r.uart.inb(0x1d), r.uart.inb(0x14)), (7, 0, 0x60));
}

#[test]
fn the_debugger_takes_nothing() {
    let r = rig();
    r.char.input(b"q");
    let look = Access { requester: Requester::Debugger, ..Access::cpu(0, 1) };
    assert_eq!((r.uart.read(0, look), r.uart.read(0, look)), (Ok(0x71), Ok(0x71)));
    assert_eq!(r.rd(DATA), b'q');
}

#[test]
fn saves() {
    let r = rig();
    r.wr(IER, 1);
    r.wr(IIR, 0x81);
    r.char.input(b"12345678");
    r.char.event(CharEvent::Break);
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
    let mut random = Random::new(1);
    for i in 0..100_000 {
        let x = random.next();
        match x >> 40 & 7 {
            0..=2 => drop(r.rd(x as u8 & 7)),
            3 => r.char.input(&x.to_le_bytes()),
            4 if x & 0x70 == 0 => r.char.event(CharEvent::Break),
            _ => r.wr(x as u8 & 7, (x >> 8) as u8),
        }
        let state = r.uart.state.lock();
        assert!(state.rx.len() <= DEPTH);
        assert_eq!(r.line.level(), state.interrupt(), "step {i}");
    }
}
