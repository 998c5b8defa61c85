//! The 82574 as a driver sees it.

use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_device::{Device, Log};
use rhea_memory::{Access, AddressSpace, Gpa, Mapping, RamBlock};
use rhea_net::{NetBackend, NetFrontend, Offload};
use rhea_nic::E1000e;
use rhea_pci::{Devfn, PciBus, PciFunction};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const RAM: u64 = 0x10_0000;
const RAM_SIZE: u64 = 4 << 20;
const BAR: u64 = 0xe000_0000;
const MSIX: u64 = 0xe010_0000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const TX: u64 = RAM;
const RX: u64 = RAM + 0x1000;
const DATA: u64 = RAM + 0x1_0000;
const RX_DATA: u64 = RAM + 0x10_0000;

const ICR: u64 = 0xc0;
const ICS: u64 = 0xc8;
const IMS: u64 = 0xd0;
const IMC: u64 = 0xd8;
const RCTL: u64 = 0x100;
const RDT: u64 = 0x2818;
const TDT: u64 = 0x3818;
/// Enabled, check sequence stripped, broadcasts taken.
const RCTL_ON: u32 = 1 << 1 | 1 << 15 | 1 << 26;

#[derive(Default)]
struct Backend {
    front: Mutex<Option<Arc<dyn NetFrontend>>>,
    sent: Mutex<Vec<Vec<u8>>>,
    ready: AtomicU32,
}

impl NetBackend for Backend {
    fn send(&self, frame: &[u8], offload: Offload) {
        assert_eq!(offload, Offload::default());
        self.sent.lock().unwrap().push(frame.to_vec());
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.front.lock().unwrap() = Some(frontend);
    }
    fn receive_ready(&self) {
        self.ready.fetch_add(1, Ordering::SeqCst);
    }
    fn description(&self) -> String {
        "test".to_owned()
    }
}

#[derive(Default)]
struct Messages(Mutex<Vec<u32>>);

impl MsiTarget for Messages {
    fn send(&self, m: MsiMessage) {
        self.0.lock().unwrap().push(m.data);
    }
}

struct Host {
    ram: Arc<RamBlock>,
    bus: Arc<PciBus>,
    lines: [IrqLine; 4],
    messages: Arc<Messages>,
    backend: Arc<Backend>,
    nic: Arc<E1000e>,
    _mapping: Mapping,
}

impl Host {
    fn new() -> Self {
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", RAM_SIZE).unwrap();
        let mapping = space.map_ram(Gpa(RAM), &ram, 0, RAM_SIZE, 0).unwrap();
        let lines: [IrqLine; 4] = std::array::from_fn(|_| IrqLine::unconnected());
        let messages = Arc::new(Messages::default());
        let bus = PciBus::new("pcie.0", space, lines.clone(), Some(messages.clone()));
        let backend = Arc::new(Backend::default());
        let nic = E1000e::new(&bus.slot(Devfn::new(2, 0)), backend.clone(), MAC, (0x8086, 0), &Log::off());
        bus.attach(nic.clone()).unwrap();
        let h = Self { ram, bus, lines, messages, backend, nic, _mapping: mapping };
        h.configure();
        h
    }
    fn configure(&self) {
        self.nic.config_write(0x10, 4, BAR as u32);
        self.nic.config_write(0x18, 4, 0x1000);
        self.nic.config_write(0x1c, 4, MSIX as u32);
        self.nic.config_write(4, 2, 7);
    }
    fn read(&self, at: u64) -> u32 {
        self.bus.memory().load(Gpa(BAR + at), Access::cpu(0, 4)).unwrap() as u32
    }
    fn write(&self, at: u64, value: u32) {
        self.store(BAR + at, value);
    }
    fn store(&self, at: u64, value: u32) {
        self.bus.memory().store(Gpa(at), u64::from(value), Access::cpu(0, 4)).unwrap();
    }
    fn put(&self, at: u64, data: &[u8]) {
        self.ram.write(at - RAM, data).unwrap();
    }
    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read(at - RAM, &mut data).unwrap();
        data
    }
    fn words(&self, at: u64, words: &[u32]) {
        for (n, w) in words.iter().enumerate() {
            self.put(at + n as u64 * 4, &w.to_le_bytes());
        }
    }
    fn word(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at, 4).try_into().unwrap())
    }
    /// Rings of 8 descriptors of each direction; `rctl`, and buffers of 2 KiB.
    fn start(&self, rctl: u32) {
        self.write(0x3800, TX as u32);
        self.write(0x3808, 128);
        self.write(0x400, 1 << 1 | 1 << 3);
        self.write(0x2800, RX as u32);
        self.write(0x2808, 128);
        for n in 0..8 {
            self.words(RX + n * 16, &[(RX_DATA + n * 0x1000) as u32, 0, 0, 0]);
        }
        self.write(RCTL, rctl);
        self.write(RDT, 7);
    }
    /// Puts descriptors at the tail of the transmit ring, and rings.
    fn transmit(&self, list: &[[u32; 4]]) -> Vec<Vec<u8>> {
        let mut tail = self.read(TDT);
        for d in list {
            self.words(TX + u64::from(tail) * 16, d);
            tail = (tail + 1) % 8;
        }
        self.write(TDT, tail);
        assert_eq!(self.read(0x3810), tail);
        std::mem::take(&mut *self.backend.sent.lock().unwrap())
    }
    fn receive(&self, frame: &[u8]) -> bool {
        let front = self.backend.front.lock().unwrap().clone().unwrap();
        front.receive(frame, Offload::default())
    }
    fn line(&self) -> bool {
        self.lines.iter().any(IrqLine::level)
    }
    fn capability(&self, id: u32) -> u16 {
        let mut at = self.nic.config_read(0x34, 1) as u16;
        while self.nic.config_read(at, 1) != id {
            at = self.nic.config_read(at + 1, 1) as u16;
            assert!(at != 0);
        }
        at
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = [&to[..], &MAC, &[0x88, 0xb5]].concat();
    f.extend((14..len).map(|i| (i * 7) as u8));
    f
}

fn sum(data: &[u8]) -> u32 {
    data.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum()
}

fn fold(mut n: u32) -> u16 {
    while n > 0xffff {
        n = (n & 0xffff) + (n >> 16);
    }
    n as u16
}

/// Headers of a TCP segment to be cut: 54 bytes, the pseudo header's sum without length.
fn tcp_head() -> Vec<u8> {
    let mut f = [&[2, 0, 0, 0, 0, 1][..], &MAC, &[8, 0]].concat();
    f.extend([0x45, 0, 0, 0, 0x12, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    f.extend([0x10, 0, 0, 80, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 1, 0x50, 0x19, 1, 0, 0, 0, 0, 0]);
    let pseudo = fold(sum(&f[26..34]) + 6);
    f[50..52].copy_from_slice(&pseudo.to_be_bytes());
    f
}

fn tcp_good(f: &[u8]) -> bool {
    let l4 = &f[34..14 + usize::from(f[16]) * 256 + usize::from(f[17])];
    fold(sum(&f[14..34])) == 0xffff && fold(sum(&f[26..34]) + 6 + l4.len() as u32 + sum(l4)) == 0xffff
}

#[test]
fn identity_and_nvm() {
    let h = Host::new();
    assert_eq!(h.nic.config_read(0, 4), 0x10d3_8086);
    assert_eq!((h.read(0x5400), h.read(0x5404)), (0x1200_5452, 0x8000_5634));
    assert_eq!(h.read(8) & 0x8_02c3, 0x8_0283, "link up at 1000 Mb/s");
    let mut total = 0u16;
    for n in 0..0x40 {
        h.write(0x14, n << 2 | 1);
        let v = h.read(0x14);
        assert!(v & 2 != 0);
        total = total.wrapping_add((v >> 16) as u16);
    }
    assert_eq!(total, 0xbaba);
    // The PHY is at address 1.
    for (n, value) in [(2, 0x0141), (3, 0x0cb1)] {
        h.write(0x20, 2 << 26 | 1 << 21 | n << 16);
        assert_eq!(h.read(0x20) & 0x5000_ffff, 1 << 28 | value);
    }
    h.write(0x20, 2 << 26 | 2 << 21 | 2 << 16);
    assert_eq!(h.read(0x20) >> 28 & 5, 5);
    h.write(0x10, 1 << 6);
    assert!(h.read(0x10) & 0x380 == 0x380);
    // The semaphore: whoever reads it clear has it.
    assert_eq!((h.read(0x5b50) & 1, h.read(0x5b50) & 1), (0, 1));
    h.write(0x5818, 3);
    assert_eq!(h.read(0x5818), 0, "no receive side scaling");
    // By the I/O window, and the reset.
    let io = |at: u64, v: u32| h.bus.io().store(Gpa(0x1000 + at), v.into(), Access::cpu(0, 4)).unwrap();
    io(0, 0x38);
    assert_eq!(h.bus.io().load(Gpa(0x1004), Access::cpu(0, 4)).unwrap(), 0x8100);
    io(4, 0x1234);
    assert_eq!(h.read(0x38), 0x1234);
    h.write(0, 1 << 26);
    assert_eq!((h.read(0x38), h.read(0) & 1 << 26), (0x8100, 0));
}

#[test]
fn interrupts_by_line() {
    let h = Host::new();
    h.write(ICS, 4);
    assert!(!h.line());
    h.write(IMS, 4);
    assert!(h.line());
    assert_eq!(h.read(ICR), 1 << 31 | 1 << 24 | 4);
    assert!(!h.line() && h.read(ICR) == 0);
    h.write(ICS, 0x84);
    h.write(ICR, 4);
    assert!(!h.line());
    // Not asserted and something enabled: a read clears nothing.
    assert_eq!((h.read(ICR), h.read(ICR)), (0x0100_0080, 0x0100_0080));
    h.write(IMC, !0);
    assert_eq!((h.read(ICR), h.read(ICR)), (0x0100_0080, 0));
    // Automatic masking by a read of ICR.
    h.write(0xe0, !0);
    h.write(0x18, 1 << 27);
    h.write(IMS, 0x84);
    h.write(ICS, 0x80);
    assert!(h.line());
    h.read(ICR);
    assert!(!h.line() && h.read(IMS) == 0);
}

#[test]
fn interrupts_by_message() {
    let h = Host::new();
    let take = || std::mem::take(&mut *h.messages.0.lock().unwrap());
    let msi = h.capability(5);
    h.nic.config_write(msi + 4, 4, 0xfee0_0000);
    h.nic.config_write(msi + 12, 2, 77);
    h.nic.config_write(msi + 2, 2, 1);
    h.write(IMS, 4);
    h.write(ICS, 4);
    assert_eq!((take(), h.line()), (vec![77], false));
    h.nic.config_write(msi + 2, 2, 0);
    h.write(0, 1 << 26);
    let msix = h.capability(0x11);
    h.nic.config_write(msix + 2, 2, 0x8000);
    for n in 0..5 {
        for (i, v) in [0xfee0_0000, 0, 100 + n as u32, 0].into_iter().enumerate() {
            h.store(MSIX + n * 16 + i as u64 * 4, v);
        }
    }
    // Queue 0 of reception to vector 1, of transmission to 2, others to 4; the first clears and masks itself.
    h.write(0xe4, 9 | 10 << 8 | 12 << 16);
    h.write(0xdc, 1 << 20);
    h.write(0xe0, !0);
    h.write(0x18, 1 << 24);
    h.write(IMS, 0x01f0_0000);
    h.write(ICS, 1 << 20);
    assert_eq!(take(), [101]);
    assert_eq!(h.read(IMS), 0x01e0_0000);
    h.write(ICS, 1 << 20);
    assert!(take().is_empty());
    h.write(IMS, 1 << 20);
    assert_eq!(take(), [101]);
    h.write(ICS, 1 << 22 | 4);
    assert_eq!((take(), h.line()), (vec![102, 104], false));
}

#[test]
fn legacy_transmission() {
    let h = Host::new();
    h.start(0);
    let f = frame([2; 6], 200);
    h.put(DATA, &f);
    // In two pieces, with a report.
    let sent = h.transmit(&[[DATA as u32, 0, 100, 0], [DATA as u32 + 100, 0, 100 | 0x0b << 24, 0]]);
    assert_eq!(sent, std::slice::from_ref(&f));
    assert_eq!((h.word(TX + 12), h.word(TX + 28)), (0, 1));
    assert_eq!(h.read(ICR) & 0x0040_0003, 0x0040_0003);
    // Padded; tagged.
    assert_eq!(h.transmit(&[[DATA as u32, 0, 20 | 1 << 24, 0]])[0].len(), 60);
    h.write(0, 1 << 30 | 1);
    let sent = h.transmit(&[[DATA as u32, 0, 200 | 0x41 << 24, 0x2123 << 16]]);
    assert_eq!(sent, [[&f[..12], &[0x81, 0, 0x21, 0x23], &f[12..]].concat()]);
    // A checksum from byte 20 at byte 16.
    let sent = h.transmit(&[[DATA as u32, 0, 200 | 16 << 16 | 0x05 << 24, 20 << 8]]);
    assert_eq!(sent[0][16..18], (!fold(sum(&f[20..]))).to_be_bytes());
    assert_eq!((h.read(0x4080), h.read(0x4080)), (4, 0), "frames sent, cleared by the read");
    // Not in memory: lost.
    assert!(h.transmit(&[[0, 0, 200 | 1 << 24, 0]]).is_empty());
}

#[test]
fn segmentation_and_checksums() {
    let h = Host::new();
    h.start(0);
    let mut data = tcp_head();
    data.extend((0..3000).map(|i| (i * 3) as u8));
    h.put(DATA, &data);
    let context = [14 | 24 << 8 | 33 << 16, 34 | 50 << 8, 3000 | 0x27 << 24, 54 << 8 | 1448 << 16];
    let sent = h.transmit(&[
        context,
        [DATA as u32, 0, 54 | 1 << 20 | 0x24 << 24, 3 << 8],
        [DATA as u32 + 54, 0, 3000 | 1 << 20 | 0x2d << 24, 0],
    ]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [54 + 1448, 54 + 1448, 54 + 104]);
    let whole: Vec<u8> = sent.iter().flat_map(|f| f[54..].to_vec()).collect();
    assert_eq!(whole, data[54..]);
    for (n, f) in sent.iter().enumerate() {
        assert!(tcp_good(f), "segment {n}");
        assert_eq!(f[18..20], (0x12ffu16 + n as u16).to_be_bytes());
        assert_eq!(f[38..42], 0xffff_ff00u32.wrapping_add(1448 * n as u32).to_be_bytes());
        assert_eq!(f[47], if n == 2 { 0x19 } else { 0x10 }, "FIN and PSH");
    }
    // Checksums without segmentation: lengths are the driver's.
    let mut f = data[..154].to_vec();
    f[16..18].copy_from_slice(&140u16.to_be_bytes());
    let pseudo = fold(sum(&f[26..34]) + 6 + 120);
    f[50..52].copy_from_slice(&pseudo.to_be_bytes());
    h.put(DATA, &f);
    let sent = h.transmit(&[[DATA as u32, 0, 154 | 1 << 20 | 0x29 << 24, 3 << 8]]);
    assert!(sent.len() == 1 && tcp_good(&sent[0]));
    // Impossible contexts.
    for bad in [[0, 0, 0x24 << 24, 54 << 8], [0, 0, 0x24 << 24, 255 << 8 | 1 << 16], [0, 0, 0x24 << 24, 1 << 16]] {
        let d = [DATA as u32, 0, 154 | 1 << 20 | 0x25 << 24, 3 << 8];
        assert!(h.transmit(&[bad, d]).is_empty());
    }
}

#[test]
fn legacy_reception() {
    let h = Host::new();
    h.start(RCTL_ON);
    h.write(IMS, 1 << 7);
    let f = frame(MAC, 300);
    assert!(h.receive(&f) && h.line());
    assert_eq!(h.get(RX_DATA, 300), f);
    assert_eq!((h.word(RX + 8) & 0xffff, h.word(RX + 12) & 0xff), (300, 0b111));
    // Others' frames, and multicast by hash, promiscuous.
    assert!(h.receive(&frame([2; 6], 60)) && h.read(0x2810) == 1);
    assert!(h.receive(&frame([0xff; 6], 42)) && h.read(0x2810) == 2);
    assert_eq!(h.word(RX + 24) & 0xffff, 60, "padded");
    let group = [1, 0, 0x5e, 0, 0, 0xfb];
    assert!(h.receive(&frame(group, 60)) && h.read(0x2810) == 2);
    let hash = u32::from(group[4]) >> 4 | u32::from(group[5]) << 4;
    h.write(0x5200 + u64::from(hash >> 5) * 4, 1 << (hash & 31));
    assert!(h.receive(&frame(group, 60)) && h.read(0x2810) == 3);
    h.write(RCTL, RCTL_ON | 1 << 3);
    assert!(h.receive(&frame([2; 6], 60)) && h.read(0x2810) == 4);
    // A frame over several descriptors of 256 bytes, too long without LPE.
    h.write(RCTL, RCTL_ON | 3 << 16);
    assert!(h.receive(&frame(MAC, 600)) && h.read(0x2810) == 7);
    assert_eq!((h.word(RX + 4 * 16 + 12) & 3, h.word(RX + 6 * 16 + 12) & 3), (1, 3));
    // No descriptors: it waits, and goes on with the tail.
    let ready = h.backend.ready.load(Ordering::SeqCst);
    assert!(!h.receive(&f));
    h.write(RDT, 6);
    assert_eq!(h.backend.ready.load(Ordering::SeqCst), ready + 1);
    assert!(h.receive(&f));
    assert_eq!((h.read(0x4074), h.read(0x4074)), (6, 0));
}

#[test]
fn extended_reception_with_vlan() {
    let h = Host::new();
    h.start(RCTL_ON | 1 << 18);
    h.write(0x5008, 1 << 15);
    h.write(0, 1 << 30 | 1);
    let f = frame(MAC, 100);
    let tagged = [&f[..12], &[0x81, 0, 0x20, 0x45], &f[12..]].concat();
    assert!(h.receive(&tagged) && h.read(0x2810) == 0, "filtered");
    h.write(0x5600 + (0x45 >> 5) * 4, 1 << (0x45 & 31));
    assert!(h.receive(&tagged) && h.read(0x2810) == 1);
    assert_eq!(h.get(RX_DATA, 100), f);
    assert_eq!((h.word(RX + 8) & 0xff, h.word(RX + 12)), (0b1111, 100 | 0x2045 << 16));
    // Checksums, good and bad.
    let mut data = tcp_head();
    data[..6].copy_from_slice(&MAC);
    data[16..18].copy_from_slice(&40u16.to_be_bytes());
    data[24..26].copy_from_slice(&[0; 2]);
    let ip = !fold(sum(&data[14..34]));
    data[24..26].copy_from_slice(&ip.to_be_bytes());
    let start = fold(sum(&data[26..34]) + 6 + 20);
    data[50..52].copy_from_slice(&[0; 2]);
    let tcp = !fold(u32::from(start) + sum(&data[34..54]));
    data[50..52].copy_from_slice(&tcp.to_be_bytes());
    assert!(h.receive(&data));
    assert_eq!(h.word(RX + 16 + 8), 1 << 6 | 1 << 5 | 3);
    data[53] ^= 1;
    data[22] ^= 1;
    assert!(h.receive(&data));
    assert_eq!(h.word(RX + 32 + 8), 3 << 29 | 1 << 6 | 1 << 5 | 3);
    // With its check sequence.
    h.write(RCTL, RCTL_ON & !(1 << 26));
    assert!(h.receive(&f));
    assert_eq!(h.word(RX + 48 + 12) & 0xffff, 104);
}

#[test]
fn split_reception() {
    let h = Host::new();
    h.start(0);
    h.write(0x2170, 1 | 4 << 8);
    for n in 0..4 {
        let at = RX_DATA as u32 + n * 0x4000;
        h.words(RX + u64::from(n) * 32, &[at, 0, at + 0x1000, 0, !0, !0, !0, !0]);
    }
    h.write(RDT, 3);
    h.write(RCTL, RCTL_ON | 1 << 10);
    let mut data = tcp_head();
    data[..6].copy_from_slice(&MAC);
    data.resize(1054, 0x5a);
    data[16..18].copy_from_slice(&1040u16.to_be_bytes());
    assert!(h.receive(&data) && h.read(0x2810) == 1);
    assert_eq!((h.get(RX_DATA, 54), h.get(RX_DATA + 0x1000, 1000)), (data[..54].to_vec(), data[54..].to_vec()));
    assert_eq!((h.word(RX + 8) & 3, h.word(RX + 12) & 0xffff, h.word(RX + 16)), (3, 54, 54 | 0x8000 | 1000 << 16));
    // No headers known: the buffers in turn.
    assert!(h.receive(&frame(MAC, 500)));
    assert_eq!((h.word(RX + 32 + 12) & 0xffff, h.word(RX + 32 + 16)), (128, 372 << 16));
}

#[test]
fn saved_and_reset() {
    let h = Host::new();
    h.start(RCTL_ON);
    h.write(IMS, 1 << 7);
    assert!(h.receive(&frame(MAC, 60)));
    let saved = h.nic.save();
    h.nic.reset();
    assert!(!h.line());
    h.nic.load(&saved).unwrap();
    assert!(h.line() && h.read(0x2810) == 1 && h.receive(&frame(MAC, 60)) && h.read(0x2810) == 2);
    h.nic.quiesce();
    assert!(!h.receive(&frame(MAC, 60)));
    h.nic.resume();
    assert!(h.receive(&frame(MAC, 60)));
}

#[test]
fn hostile_driver() {
    let mut x = 0x1234_5678_9abc_def1u64;
    let mut random = move |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % n
    };
    let h = Host::new();
    let known = [
        0, 0x10, 0x14, 0x18, 0x20, 0x38, ICR, ICS, IMS, IMC, 0xdc, 0xe0, 0xe4, RCTL, 0x400, 0x2170, 0x2800, 0x2804,
        0x2808, 0x2810, RDT, 0x2908, 0x3800, 0x3804, 0x3808, 0x3810, TDT, 0x3900, 0x3908, 0x3918, 0x5000, 0x5008,
        0x5200, 0x5400, 0x5404, 0x102c,
    ];
    for round in 0..40 {
        h.start(RCTL_ON);
        for _ in 0..400 {
            let at = if random(4) == 0 { random(0x8000) * 4 } else { known[random(known.len() as u64) as usize] };
            let value = match random(5) {
                0 => random(1 << 32) as u32,
                1 => 1 << random(32),
                2 => random(16) as u32,
                3 => (RAM + random(RAM_SIZE)) as u32,
                _ => h.read(at) ^ 1 << random(32),
            };
            match random(6) {
                0 => drop(h.read(at)),
                1 => {
                    let bytes: Vec<u8> = (0..128).map(|_| random(256) as u8).collect();
                    h.put(TX + random(0x1000), &bytes);
                }
                2 => {
                    let len = random(2000) as usize;
                    let to = if random(2) == 0 { MAC } else { [random(256) as u8; 6] };
                    let f: Vec<u8> = frame(to, 14 + len);
                    h.receive(&f[..random(f.len() as u64 + 1) as usize]);
                }
                3 => {
                    let d = [DATA as u32, 0, random(1 << 32) as u32 & 0xff0f_0fff, random(1 << 32) as u32];
                    let tail = h.read(TDT) & 7;
                    h.words(TX + u64::from(tail) * 16, &d);
                    h.write(TDT, (tail + 1) & 7);
                }
                _ => h.write(at, value),
            }
        }
        h.backend.sent.lock().unwrap().clear();
        if round % 8 == 0 {
            let saved = h.nic.save();
            h.nic.load(&saved).unwrap();
        }
        // Afterwards a reset makes it work.
        h.write(0, 1 << 26);
        h.start(RCTL_ON);
        let f = frame(MAC, 100);
        let before = h.backend.sent.lock().unwrap().len();
        h.put(DATA, &f);
        assert_eq!(before, 0);
        assert_eq!(h.transmit(&[[DATA as u32, 0, 100 | 1 << 24, 0]]), [f]);
    }
}
