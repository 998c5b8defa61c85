use super::*;
use crate::input::Button;
use crate::testing::{Ports, Random, poke};
use crate::{KeyCode, input::Leds};
use rhea_accel::VmRequest;
use std::time::{Duration, Instant};

struct Rig {
    controller: Arc<I8042>,
    data: Arc<dyn MmioDevice>,
    command: Arc<dyn MmioDevice>,
    hub: Arc<InputHub>,
    clock: Arc<VirtualClock>,
    irq1: IrqLine,
    irq12: IrqLine,
    a20: Arc<A20Gate>,
    requests: crossbeam_channel::Receiver<VmRequest>,
}

fn rig() -> Rig {
    let (control, requests) = VmControl::new();
    let (hub, clock, a20) = (InputHub::new(), VirtualClock::new(), A20Gate::new());
    let (irq1, irq12) = (IrqLine::unconnected(), IrqLine::unconnected());
    let wiring =
        I8042Wiring { irq1: irq1.clone(), irq12: irq12.clone(), a20: a20.clone(), control, input: hub.clone() };
    let controller = I8042::new("i8042", wiring, &clock, Log::off());
    let (data, command) = (controller.data_port(), controller.command_port());
    Rig { controller, data, command, hub, clock, irq1, irq12, a20, requests }
}

impl Rig {
    fn cmd(&self, command: u8) {
        self.command.outb(0, command);
    }
    fn status(&self) -> u8 {
        self.command.inb(0)
    }
    /// All there is to read.
    fn take(&self) -> Vec<u8> {
        std::iter::from_fn(|| (self.status() & 1 != 0).then(|| self.data.inb(0))).collect()
    }
    fn ask(&self, command: u8) -> Vec<u8> {
        self.cmd(command);
        self.take()
    }
    fn tell(&self, command: u8, value: u8) {
        self.cmd(command);
        self.data.outb(0, value);
    }
    fn tap(&self, key: KeyCode) {
        self.hub.key(key, true);
        self.hub.key(key, false);
    }
}

#[test]
fn as_firmware_starts_it() {
    let r = rig();
    assert_eq!(r.status(), 0x10);
    r.cmd(0xad);
    r.cmd(0xa7);
    assert_eq!(r.ask(0xaa), [0x55]);
    assert_eq!(r.status(), 0x1c);
    assert_eq!((r.ask(0xab), r.ask(0xa9)), (vec![0], vec![0]));
    r.cmd(0xae);
    r.data.outb(0, 0xff);
    assert_eq!(r.take(), [0xfa, 0xaa]);
    r.data.outb(0, 0xf5);
    assert_eq!(r.take(), [0xfa]);
    r.tell(0x60, 0x61);
    r.data.outb(0, 0xf4);
    assert_eq!(r.take(), [0xfa]);
    assert_eq!(r.ask(0x20), [0x61]);
    r.tap(KeyCode::Esc);
    assert!(r.irq1.level());
    assert_eq!(r.take(), [0x01, 0x81]);
    assert!(!r.irq1.level());
    r.data.outb(0, 0xf2);
    assert_eq!(r.take(), [0xfa, 0xab, 0x41], "answers are translated too");
}

#[test]
fn each_byte_is_an_interrupt() {
    use rhea_accel::IrqSink;
    use std::sync::atomic::{AtomicU32, Ordering};
    #[derive(Default)]
    struct Edges(AtomicU32);
    impl IrqSink for Edges {
        fn set_level(&self, _pin: u32, level: bool) {
            self.0.fetch_add(level.into(), Ordering::SeqCst);
        }
    }
    let edges = Arc::new(Edges::default());
    let (control, _requests) = VmControl::new();
    let hub = InputHub::new();
    let wiring = I8042Wiring {
        irq1: IrqLine::to_sink(edges.clone(), 0),
        irq12: IrqLine::unconnected(),
        a20: A20Gate::new(),
        control,
        input: hub.clone(),
    };
    let controller = I8042::new("i8042", wiring, &VirtualClock::new(), Log::off());
    let data = controller.data_port();
    hub.key(KeyCode::A, true);
    hub.key(KeyCode::A, false);
    assert_eq!((data.inb(0), data.inb(0), data.inb(0), data.inb(0)), (0x1c, 0xf0, 0x1c, 0x1c));
    assert_eq!(edges.0.load(Ordering::SeqCst), 3);
}

#[test]
fn mouse() {
    let r = rig();
    r.tell(0x60, 0x43);
    r.tell(0xd4, 0xff);
    assert!(r.irq12.level() && !r.irq1.level());
    assert_eq!(r.status() & 0x21, 0x21);
    assert_eq!(r.take(), [0xfa, 0xaa, 0]);
    r.tell(0xd4, 0xf4);
    assert_eq!(r.take(), [0xfa]);
    r.hub.send(&[InputEvent::Relative { dx: 3, dy: -4 }, InputEvent::Button { button: Button::Right, down: true }]);
    assert_eq!(r.take(), [0x0a, 3, 4]);
    r.cmd(0xa7);
    r.hub.send(&[InputEvent::Relative { dx: 1, dy: 0 }]);
    assert!(r.take().is_empty());
    r.cmd(0xa8);
    assert_eq!(r.take(), [0x0a, 1, 0]);
    r.tell(0xd3, 0x77);
    assert_eq!((r.status() & 0x21, r.take()), (0x21, vec![0x77]));
    r.tell(0xd2, 0x66);
    assert_eq!((r.status() & 0x21, r.take()), (0x01, vec![0x66]));
}

#[test]
fn output_port_and_ram() {
    let r = rig();
    assert_eq!(r.ask(0xd0), [0x03]);
    r.tell(0xd1, 0x01);
    assert!(!r.a20.enabled());
    r.cmd(0xdf);
    assert!(r.a20.enabled());
    r.cmd(0xdd);
    assert!(!r.a20.enabled());
    r.controller.reset();
    assert!(r.a20.enabled());
    r.cmd(0xff);
    assert!(r.requests.try_recv().is_err());
    r.cmd(0xfe);
    r.tell(0xd1, 0x02);
    assert_eq!(r.requests.try_iter().count(), 2);
    r.tell(0x65, 9);
    assert_eq!(r.ask(0x25), [9]);
    assert_eq!((r.ask(0xa4), r.ask(0xc0), r.ask(0xe0)), (vec![0xf1], vec![0x80], vec![3]));
}

#[test]
fn lights_and_repetition() {
    let r = rig();
    r.data.outb(0, 0xed);
    r.data.outb(0, 4);
    assert_eq!(r.hub.leds(), Leds::CAPS_LOCK);
    // 250 ms, then every 33.
    r.data.outb(0, 0xf3);
    r.data.outb(0, 0);
    r.take();
    r.clock.start();
    let from = Instant::now();
    r.hub.key(KeyCode::Q, true);
    let mut got = vec![];
    while got.len() < 3 && from.elapsed() < Duration::from_secs(10) {
        got.extend(r.take());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(got, [0x15; 3]);
    assert!(from.elapsed() >= Duration::from_millis(280));
    r.hub.key(KeyCode::Q, false);
    assert_eq!(r.take()[..2], [0xf0, 0x15]);
}

#[test]
fn saves() {
    let r = rig();
    r.tell(0x60, 0x61);
    r.tap(KeyCode::Up);
    r.cmd(0xdd);
    let other = rig();
    other.controller.load(&r.controller.save()).unwrap();
    assert_eq!(*other.controller.state.lock(), *r.controller.state.lock());
    assert!(other.irq1.level() && !other.a20.enabled());
    assert_eq!(other.take(), [0xe0, 0x48, 0xe0, 0xc8]);
}

#[test]
fn garbage() {
    let r = rig();
    let mut random = Random::new(9);
    for _ in 0..50_000 {
        poke(&*r.data, 1, &mut random);
        poke(&*r.command, 1, &mut random);
        let x = random.next();
        match x & 7 {
            0 => r.hub.key(KeyCode::ALL[(x >> 8) as usize % KeyCode::ALL.len()], x & 8 != 0),
            1 => r.hub.send(&[InputEvent::Relative { dx: (x >> 8) as i32, dy: (x >> 40) as i32 }]),
            _ => {}
        }
        let state = r.controller.state.lock();
        assert!(state.sane());
        assert_eq!((r.irq1.level(), r.irq12.level()), (state.irq1(), state.irq12()));
    }
    r.controller.reset();
    assert_eq!(*r.controller.state.lock(), State::default());
}
