//! The console bus as a driver sees it.

mod driver;

use driver::{Driver, SIZE};
use rhea_device::Device;
use rhea_device::chardev::{CharBackend, CharEvent, CharFrontend};
use rhea_virtio::console::{Console, PortOptions};
use rhea_virtio::features;
use std::sync::{Arc, Mutex};

const CONTROL_RX: u32 = 2;
const CONTROL_TX: u32 = 3;
const PLAIN: u64 = !(features::RING_PACKED | features::EVENT_IDX);

/// Keeps output; input waits here until it is taken.
#[derive(Default)]
struct Peer {
    front: Mutex<Option<Arc<dyn CharFrontend>>>,
    input: Mutex<Vec<u8>>,
    output: Mutex<Vec<u8>>,
    away: bool,
}

impl Peer {
    fn feed(&self, data: &[u8]) {
        self.input.lock().unwrap().extend(data);
        self.accept_input();
    }
    fn event(&self, event: CharEvent) {
        self.front.lock().unwrap().clone().unwrap().event(event);
    }
    fn output(&self) -> Vec<u8> {
        std::mem::take(&mut self.output.lock().unwrap())
    }
}

impl CharBackend for Peer {
    fn write(&self, data: &[u8]) {
        self.output.lock().unwrap().extend(data);
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        *self.front.lock().unwrap() = Some(frontend);
    }
    fn accept_input(&self) {
        let front = self.front.lock().unwrap().clone().unwrap();
        let n = front.can_receive().min(self.input.lock().unwrap().len());
        if n > 0 {
            let data: Vec<u8> = self.input.lock().unwrap().drain(..n).collect();
            front.receive(&data);
        }
    }
    fn connected(&self) -> bool {
        !self.away
    }
    fn description(&self) -> String {
        "peer".to_owned()
    }
}

fn port(console: bool, name: &str, number: Option<u32>, backend: &Arc<Peer>) -> PortOptions {
    PortOptions { number, console, name: name.to_owned(), backend: backend.clone(), watcher: None }
}

fn control(number: u32, event: u16, value: u16) -> Vec<u8> {
    [&number.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

#[test]
fn several_ports() {
    let (first, second) = (Arc::new(Peer::default()), Arc::new(Peer { away: true, ..Peer::default() }));
    let bus = Console::new(4);
    bus.add_port(port(true, "", None, &first)).unwrap();
    bus.add_port(port(false, "org.example.0", Some(3), &second)).unwrap();
    for (options, word) in [
        (port(true, "", Some(0), &first), "taken"),
        (port(false, "", Some(4), &first), "4 ports"),
        (port(false, "", Some(0), &first), "port 0"),
    ] {
        assert!(bus.add_port(options).unwrap_err().contains(word));
    }
    let mut d = Driver::new(bus);
    d.start(PLAIN, SIZE);
    assert_eq!((d.config(4, 4), d.mmio.core().unwrap().queues().count()), (4, 10));
    let rooms: Vec<_> = (0..16).map(|_| d.add(CONTROL_RX, &[], &[64])).collect();
    d.kick(CONTROL_RX);
    let mut taken = 0;
    let mut told = |d: &mut Driver| {
        let mut all = Vec::new();
        while let Some(len) = d.used(CONTROL_RX) {
            all.push(d.get(rooms[taken].writable[0].0, len as usize));
            taken += 1;
        }
        all
    };
    let say = |d: &mut Driver, number, event, value| {
        d.request(CONTROL_TX, &[&control(number, event, value)], &[]);
    };
    say(&mut d, 0xffff_ffff, 0, 1);
    assert_eq!(told(&mut d), [control(0, 1, 1), control(3, 1, 1)]);
    say(&mut d, 0, 3, 1);
    assert_eq!(told(&mut d), [control(0, 4, 1), control(0, 6, 1)], "a console, open");
    say(&mut d, 3, 3, 1);
    assert_eq!(told(&mut d), [[&control(3, 7, 1)[..], b"org.example.0\0"].concat()], "named, nobody there");
    say(&mut d, 9, 3, 1);
    assert!(told(&mut d).is_empty());
    second.event(CharEvent::Opened);
    assert_eq!(told(&mut d), [control(3, 6, 1)]);
    // Input waits until the guest opens the port.
    let room = d.add(8, &[], &[4]);
    d.kick(8);
    second.feed(b"hello");
    assert!(d.used(8).is_none());
    say(&mut d, 3, 6, 1);
    assert_eq!((d.used(8), d.get(room.writable[0].0, 4)), (Some(4), b"hell".to_vec()));
    let room = d.add(8, &[], &[4]);
    d.kick(8);
    assert_eq!((d.used(8), d.get(room.writable[0].0, 1)), (Some(1), b"o".to_vec()));
    // Output of each port.
    d.request(9, &[b"to ", b"three"], &[]);
    d.request(1, &[b"to zero"], &[]);
    assert_eq!((second.output(), first.output()), (b"to three".to_vec(), b"to zero".to_vec()));
    // A port nobody has.
    d.add(7, &[b"x"], &[]);
    d.kick(7);
    assert!(d.used(7).is_none() && !d.broken());
    // Saved with input the guest has no room for.
    second.feed(b"later");
    d.mmio.quiesce();
    let saved = d.mmio.save();
    d.mmio.reset();
    d.mmio.load(&saved).unwrap();
    d.mmio.resume();
    let room = d.add(8, &[], &[16]);
    d.kick(8);
    assert_eq!((d.used(8), d.get(room.writable[0].0, 5)), (Some(5), b"later".to_vec()));
    second.event(CharEvent::Closed);
    assert_eq!(told(&mut d), [control(3, 6, 0)]);
    // A short message.
    d.request(CONTROL_TX, &[&[1, 2, 3]], &[]);
    // A guest that asks on and on, and takes nothing.
    for _ in 0..2000 {
        say(&mut d, 0xffff_ffff, 0, 1);
    }
    assert!(!d.broken());
}

#[test]
fn one_port() {
    let peer = Arc::new(Peer::default());
    let bus = Console::new(1);
    bus.add_port(port(true, "", None, &peer)).unwrap();
    assert!(bus.add_port(port(true, "", None, &peer)).unwrap_err().contains("taken"));
    let mut d = Driver::new(bus);
    assert_eq!(d.offered() & 7, features::CONSOLE_EMERG_WRITE);
    use rhea_memory::{Access, MmioDevice};
    d.mmio.write(0x108, u64::from(b'!'), Access::host(4)).unwrap();
    assert_eq!(peer.output(), b"!");
    d.start(PLAIN, SIZE);
    let long: Vec<u8> = (0..6000).map(|i| i as u8).collect();
    peer.feed(&long);
    let mut got = Vec::new();
    while got.len() < long.len() {
        let room = d.add(0, &[], &[1000]);
        d.kick(0);
        let n = d.used(0).unwrap();
        got.extend(d.get(room.writable[0].0, n as usize));
    }
    assert!(got == long);
    d.request(1, &[&long], &[]);
    assert!(peer.output() == long);
}
