//! A driver for the host controller, and for devices behind it.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../storage/tests/driver/mod.rs"]
mod machine;

#[allow(unused_imports, reason = "each test file uses a part")]
pub use machine::{Faulty, Machine, RAM, RAM_SIZE, Random, find_capability, wait};

use machine::BAR;
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_pc::InputHub;
use rhea_pci::{Devfn, PciFunction};
use rhea_usb::{Xhci, XhciOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const USBCMD: u64 = 0x40;
pub const USBSTS: u64 = 0x44;
pub const CRCR: u64 = 0x58;
const DCBAAP: u64 = 0x70;
const CONFIG: u64 = 0x78;
pub const PORTSC: u64 = 0x440;
pub const IMAN: u64 = 0x1020;
pub const IMOD: u64 = 0x1024;
pub const ERDP: u64 = 0x1038;

const CONTEXTS: u64 = RAM + 0x1000;
pub const COMMANDS: u64 = RAM + 0x2000;
pub const EVENTS: u64 = RAM + 0x3000;
const TABLE: u64 = RAM + 0x6000;
pub const INPUT: u64 = RAM + 0x7000;
const DEVICES: u64 = RAM + 0x1_0000;
const RINGS: u64 = RAM + 0x10_0000;
pub const DATA: u64 = RAM + 0x100_0000;
/// TRBs of a ring, the last of which is the link.
const ENTRIES: u64 = 64;
/// Events of each of the two segments.
const SEGMENT: u64 = 64;
const MSIX: u64 = 0xe100_0000;

pub const IOC: u32 = 1 << 5;
pub const ISP: u32 = 1 << 2;
pub const CHAIN: u32 = 1 << 4;
pub const IDT: u32 = 1 << 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trb {
    pub parameter: u64,
    pub status: u32,
    pub control: u32,
}

impl Trb {
    pub fn new(kind: u32, parameter: u64, status: u32, flags: u32) -> Self {
        Self { parameter, status, control: kind << 10 | flags }
    }
    pub fn kind(&self) -> u32 {
        self.control >> 10 & 63
    }
    pub fn code(&self) -> u8 {
        (self.status >> 24) as u8
    }
    pub fn len(&self) -> u32 {
        self.status & 0xff_ffff
    }
    pub fn slot(&self) -> u32 {
        self.control >> 24
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    base: u64,
    next: u64,
    cycle: u32,
}

pub struct Host {
    pub m: Machine,
    pub xhci: Arc<Xhci>,
    pub clock: Arc<VirtualClock>,
    pub input: Arc<InputHub>,
    commands: Place,
    rings: BTreeMap<(u32, u32), Place>,
    /// Segment, entry, cycle.
    events: (u64, u64, u32),
}

impl Host {
    pub fn new(options: XhciOptions, attach: impl FnOnce(&Self)) -> Self {
        let m = Machine::new();
        let (clock, input) = (VirtualClock::new(), InputHub::new());
        clock.start();
        let xhci = Xhci::new(&m.bus.slot(Devfn::new(5, 0)), options, &clock, &Log::off());
        m.bus.attach(xhci.clone()).unwrap();
        let commands = Place { base: COMMANDS, next: 0, cycle: 1 };
        let mut host = Self { m, xhci, clock, input, commands, rings: BTreeMap::new(), events: (0, 0, 1) };
        attach(&host);
        host.set_up();
        host
    }
    /// The function's BARs and bus mastering, and the controller.
    pub fn set_up(&mut self) {
        self.xhci.config_write(0x10, 4, BAR as u32);
        self.xhci.config_write(0x18, 4, MSIX as u32);
        self.xhci.config_write(4, 2, 6);
        self.start();
    }
    pub fn read(&self, at: u64) -> u32 {
        self.m.read(BAR + at)
    }
    pub fn write(&self, at: u64, value: u32) {
        self.m.write(BAR + at, value);
    }
    pub fn write64(&self, at: u64, value: u64) {
        self.write(at, value as u32);
        self.write(at + 4, (value >> 32) as u32);
    }
    pub fn start(&mut self) {
        self.write(USBCMD, 2);
        wait("reset", || self.read(USBCMD) & 2 == 0 && self.read(USBSTS) & 1 << 11 == 0);
        self.m.put(RAM, &vec![0; 0x10_0000]);
        self.commands = Place { base: COMMANDS, next: 0, cycle: 1 };
        self.rings.clear();
        self.events = (0, 0, 1);
        for (n, base) in [EVENTS, EVENTS + 0x1000].iter().enumerate() {
            let at = TABLE + n as u64 * 16;
            self.m.put(at, &base.to_le_bytes());
            self.m.put32(at + 8, SEGMENT as u32);
        }
        self.write(CONFIG, 32);
        self.write64(DCBAAP, CONTEXTS);
        self.write64(CRCR, COMMANDS | 1);
        self.write(0x1028, 2);
        self.write64(ERDP, EVENTS);
        self.write64(0x1030, TABLE);
        self.write(IMOD, 0);
        self.write(IMAN, 2);
        self.write(USBCMD, 5);
        assert_eq!(self.read(USBSTS) & 1, 0);
    }
    pub fn use_msix(&self) {
        let cap = find_capability(&*self.xhci, 0x11);
        for n in 0..16 {
            self.m.write(MSIX + n * 16, 0xfee0_0000);
            self.m.write(MSIX + n * 16 + 8, n as u32);
            self.m.write(MSIX + n * 16 + 12, 0);
        }
        self.xhci.config_write(cap + 2, 2, 0x8000);
    }
    /// Puts a TRB into a ring.
    fn put(m: &Machine, ring: &mut Place, trb: Trb) -> u64 {
        let at = ring.base + ring.next * 16;
        let word = |t: Trb, cycle: u32| {
            let mut b = t.parameter.to_le_bytes().to_vec();
            b.extend(t.status.to_le_bytes());
            b.extend((t.control | cycle).to_le_bytes());
            b
        };
        m.put(at, &word(trb, ring.cycle));
        ring.next += 1;
        if ring.next == ENTRIES - 1 {
            // A link keeps the chain.
            let link = Trb::new(6, ring.base, 0, 2 | trb.control & CHAIN);
            m.put(at + 16, &word(link, ring.cycle));
            (ring.next, ring.cycle) = (0, ring.cycle ^ 1);
        }
        at
    }
    fn event_at(&self) -> u64 {
        EVENTS + self.events.0 * 0x1000 + self.events.1 * 16
    }
    /// The next event, taken.
    pub fn event(&mut self) -> Option<Trb> {
        let at = self.event_at();
        let control = self.m.get32(at + 12);
        if control & 1 != self.events.2 {
            return None;
        }
        let parameter = u64::from(self.m.get32(at)) | u64::from(self.m.get32(at + 4)) << 32;
        let event = Trb { parameter, status: self.m.get32(at + 8), control };
        self.events.1 += 1;
        if self.events.1 == SEGMENT {
            self.events.1 = 0;
            self.events.0 ^= 1;
            self.events.2 ^= u32::from(self.events.0 == 0);
        }
        Some(event)
    }
    /// Tells the controller that events have been taken.
    pub fn acknowledge(&self) {
        self.write64(ERDP, self.event_at() | 8);
    }
    /// The next event but port changes.
    pub fn next_event(&mut self) -> Trb {
        let mut found = None;
        wait("an event", || {
            while let Some(e) = self.event() {
                self.acknowledge();
                if e.kind() != 34 {
                    found = Some(e);
                    break;
                }
            }
            found.is_some()
        });
        found.unwrap()
    }
    pub fn queue_command(&mut self, trb: Trb) -> u64 {
        let at = Self::put(&self.m, &mut self.commands, trb);
        self.write(0x2000, 0);
        at
    }
    /// Runs a command: completion code and slot.
    pub fn command(&mut self, kind: u32, parameter: u64, status: u32, flags: u32) -> (u8, u32) {
        let at = self.queue_command(Trb::new(kind, parameter, status, flags));
        loop {
            let e = self.next_event();
            if e.kind() == 33 {
                assert_eq!(e.parameter, at);
                return (e.code(), e.slot());
            }
        }
    }
    pub fn reset_port(&self, port: u64) -> u32 {
        let at = PORTSC + (port - 1) * 16;
        assert_eq!(self.read(at) & 1, 1, "port {port} is empty");
        self.write(at, 1 << 9 | 1 << 4);
        self.write(at, 1 << 9 | 0xfe_0000);
        assert_eq!(self.read(at) & 0xf3, 3, "port {port} does not work");
        self.read(at) >> 10 & 15
    }
    pub fn context(&self, slot: u32, index: u64, word: u64) -> u32 {
        self.m.get32(DEVICES + u64::from(slot) * 0x1000 + index * 32 + word * 4)
    }
    fn new_ring(&mut self, slot: u32, dci: u32) -> u64 {
        let base = RINGS + u64::from(slot * 32 + dci) * 0x1000;
        self.m.put(base, &[0; 0x1000]);
        self.rings.insert((slot, dci), Place { base, next: 0, cycle: 1 });
        base | 1
    }
    fn endpoint_context(&self, dci: u64, kind: u32, packet: u32, ring: u64) {
        let at = INPUT + 32 * (dci + 1);
        self.m.put32(at, 0);
        self.m.put32(at + 4, packet << 16 | kind << 3 | 3 << 1);
        self.m.put(at + 8, &ring.to_le_bytes());
    }
    /// Enables a slot for the device at a root port (and a route), which was reset.
    pub fn address(&mut self, port: u32, route: u32, speed: u32) -> u32 {
        let (code, slot) = self.command(9, 0, 0, 0);
        assert_eq!(code, 1);
        let context = DEVICES + u64::from(slot) * 0x1000;
        self.m.put(context, &[0; 0x1000]);
        self.m.put(CONTEXTS + u64::from(slot) * 8, &context.to_le_bytes());
        self.m.put(INPUT, &[0; 0x800]);
        self.m.put32(INPUT + 4, 3);
        self.m.put32(INPUT + 32, 1 << 27 | speed << 20 | route);
        self.m.put32(INPUT + 36, port << 16);
        let ring = self.new_ring(slot, 1);
        self.endpoint_context(1, 4, if speed == 4 { 512 } else { 64 }, ring);
        assert_eq!(self.command(11, INPUT, 0, slot << 24), (1, slot));
        assert_eq!(self.context(slot, 0, 3), 2 << 27 | slot);
        slot
    }
    /// Adds endpoints: index, type, packet size.
    pub fn configure(&mut self, slot: u32, endpoints: &[(u32, u32, u32)]) {
        self.m.put(INPUT, &[0; 0x800]);
        let add = endpoints.iter().fold(1, |bits, e| bits | 1 << e.0);
        self.m.put32(INPUT + 4, add);
        let last = endpoints.iter().map(|e| e.0).max().unwrap_or(1);
        self.m.put32(INPUT + 32, last << 27);
        for &(dci, kind, packet) in endpoints {
            let ring = self.new_ring(slot, dci);
            self.endpoint_context(dci.into(), kind, packet, ring);
        }
        assert_eq!(self.command(12, INPUT, 0, slot << 24), (1, slot));
        assert_eq!(self.context(slot, 0, 3) >> 27, 3);
    }
    pub fn push(&mut self, slot: u32, dci: u32, trb: Trb) -> u64 {
        let ring = self.rings.get_mut(&(slot, dci)).unwrap();
        Self::put(&self.m, ring, trb)
    }
    /// Where the next TRB goes, as a dequeue pointer.
    pub fn head(&self, slot: u32, dci: u32) -> u64 {
        let ring = self.rings[&(slot, dci)];
        (ring.base + ring.next * 16) | u64::from(ring.cycle)
    }
    pub fn bell(&self, slot: u32, dci: u32) {
        self.write(0x2000 + u64::from(slot) * 4, dci);
    }
    /// A control transfer: data for the device, or what it answers; the error is the completion code.
    pub fn control(&mut self, slot: u32, setup: [u8; 8], out: &[u8]) -> Result<Vec<u8>, u8> {
        let len = u32::from(u16::from_le_bytes([setup[6], setup[7]]));
        let to_host = setup[0] & 0x80 != 0;
        let stage = match (len, to_host) {
            (0, _) => 0,
            (_, false) => 2,
            _ => 3,
        };
        self.push(slot, 1, Trb::new(2, u64::from_le_bytes(setup), 8, IDT | stage << 16));
        self.m.put(DATA - 0x1000, out);
        if len > 0 {
            self.push(slot, 1, Trb::new(3, DATA - 0x1000, len, ISP | u32::from(to_host) << 16));
        }
        self.push(slot, 1, Trb::new(4, 0, 0, IOC | u32::from(len == 0 || !to_host) << 16));
        self.bell(slot, 1);
        let mut left = 0;
        loop {
            let e = self.next_event();
            assert_eq!((e.kind(), e.slot()), (32, slot));
            match e.code() {
                1 => break,
                13 => left = e.len(),
                code => {
                    // The endpoint halts; a driver resets it.
                    assert_eq!(self.context(slot, 1, 0) & 7, 2);
                    assert_eq!(self.command(14, 0, 0, slot << 24 | 1 << 16).0, 1);
                    let head = self.head(slot, 1);
                    assert_eq!(self.command(16, head, 0, slot << 24 | 1 << 16).0, 1);
                    return Err(code);
                }
            }
        }
        Ok(if to_host { self.m.get(DATA - 0x1000, (len - left) as usize) } else { vec![] })
    }
    /// One transfer of one TRB: completion code and bytes moved.
    pub fn transfer(&mut self, slot: u32, dci: u32, at: u64, len: u32) -> (u8, u32) {
        self.push(slot, dci, Trb::new(1, at, len, IOC | ISP));
        self.bell(slot, dci);
        let e = self.next_event();
        assert_eq!((e.kind(), e.slot(), e.control >> 16 & 31), (32, slot, dci));
        (e.code(), len - e.len())
    }
    /// After a stall: resets the endpoint, also in the device.
    pub fn recover(&mut self, slot: u32, dci: u32) {
        assert_eq!(self.command(14, 0, 0, slot << 24 | dci << 16).0, 1);
        let head = self.head(slot, dci);
        assert_eq!(self.command(16, head, 0, slot << 24 | dci << 16).0, 1);
        let address = (dci / 2) as u8 | (dci as u8 & 1) << 7;
        self.control(slot, [2, 1, 0, 0, address, 0, 0, 0], &[]).unwrap();
    }
}

/// A mass storage device, configured.
pub struct Disk {
    pub slot: u32,
    tag: u32,
}

pub const IN: u32 = 3;
pub const OUT: u32 = 4;

impl Disk {
    pub fn new(h: &mut Host, port: u32) -> Self {
        let speed = h.reset_port(port.into());
        let slot = h.address(port, 0, speed);
        h.control(slot, [0, 9, 1, 0, 0, 0, 0, 0], &[]).unwrap();
        let packet = if speed == 4 { 1024 } else { 512 };
        h.configure(slot, &[(IN, 6, packet), (OUT, 2, packet)]);
        Self::at(slot)
    }
    /// One that is configured.
    pub fn at(slot: u32) -> Self {
        Self { slot, tag: 7 }
    }
    pub fn wrapper(&mut self, h: &mut Host, len: u32, to_host: bool, command: &[u8]) {
        self.tag += 1;
        let mut b = b"USBC".to_vec();
        b.extend(self.tag.to_le_bytes());
        b.extend(len.to_le_bytes());
        b.extend([u8::from(to_host) << 7, 0, command.len() as u8]);
        b.extend(command);
        b.resize(31, 0);
        h.m.put(DATA - 0x2000, &b);
        assert_eq!(h.transfer(self.slot, OUT, DATA - 0x2000, 31), (1, 31));
    }
    /// Status and residue.
    pub fn status(&mut self, h: &mut Host) -> (u8, u32) {
        assert_eq!(h.transfer(self.slot, IN, DATA - 0x3000, 13), (1, 13));
        let b = h.m.get(DATA - 0x3000, 13);
        assert_eq!((&b[..4], &b[4..8]), (&b"USBS"[..], &self.tag.to_le_bytes()[..]));
        (b[12], u32::from_le_bytes([b[8], b[9], b[10], b[11]]))
    }
    /// A command with data to the host; a stall is recovered from.
    pub fn read(&mut self, h: &mut Host, command: &[u8], len: u32) -> (u8, Vec<u8>) {
        self.wrapper(h, len, true, command);
        let (code, n) = h.transfer(self.slot, IN, DATA, len);
        if code == 6 {
            h.recover(self.slot, IN);
        }
        let (status, residue) = self.status(h);
        assert_eq!(residue, len - n);
        (status, h.m.get(DATA, n as usize))
    }
    pub fn write(&mut self, h: &mut Host, command: &[u8], data: &[u8]) -> u8 {
        self.wrapper(h, data.len() as u32, false, command);
        h.m.put(DATA, data);
        assert_eq!(h.transfer(self.slot, OUT, DATA, data.len() as u32), (1, data.len() as u32));
        self.status(h).0
    }
    pub fn run(&mut self, h: &mut Host, command: &[u8]) -> u8 {
        self.wrapper(h, 0, false, command);
        self.status(h).0
    }
    /// Sense key and code of the last command.
    pub fn sense(&mut self, h: &mut Host) -> (u8, u8) {
        let (status, data) = self.read(h, &[3, 0, 0, 0, 18, 0], 18);
        assert_eq!(status, 0);
        (data[2], data[12])
    }
    /// Reads or writes so many blocks.
    pub fn command(write: bool, first: u32, blocks: u16) -> [u8; 10] {
        let [a, b, c, d] = first.to_be_bytes();
        let [m, n] = blocks.to_be_bytes();
        [if write { 0x2a } else { 0x28 }, 0, a, b, c, d, 0, m, n, 0]
    }
}
