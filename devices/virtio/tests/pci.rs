//! The PCI transport as software sees it.

#[path = "driver/mod.rs"]
mod driver;

use driver::Random;
use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_block::{CacheMode, Drive, MemoryBackend};
use rhea_device::{Device, Log};
use rhea_memory::{Access, AddressSpace, Gpa, Mapping, RamBlock};
use rhea_pci::{HostWindows, PcieHost};
use rhea_virtio::blk::{Blk, BlkOptions};
use rhea_virtio::{VirtioPci, features};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 1 << 20;
const ECAM: u64 = 0x40_1000_0000;
const WINDOW: u64 = 0x80_0000_0000;
const TABLE: u64 = 0x1000_0000;
const COMMON: u64 = WINDOW;
const ISR: u64 = WINDOW + 0x1000;
const CONFIG: u64 = WINDOW + 0x2000;
const NOTIFY: u64 = WINDOW + 0x3000;

#[derive(Default)]
struct Messages(Mutex<Vec<u32>>);

impl MsiTarget for Messages {
    fn send(&self, m: MsiMessage) {
        self.0.lock().unwrap().push(m.data);
    }
}

struct Board {
    system: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    lines: [IrqLine; 4],
    messages: Arc<Messages>,
    function: Arc<VirtioPci>,
    _mapping: Mapping,
    host: PcieHost,
}

impl Board {
    fn new() -> Self {
        let system = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", RAM_LEN).unwrap();
        let mapping = system.map_ram(Gpa(RAM), &ram, 0, RAM_LEN, 0).unwrap();
        let lines: [IrqLine; 4] = std::array::from_fn(|_| IrqLine::unconnected());
        let messages = Arc::new(Messages::default());
        let windows = HostWindows {
            ecam: (Gpa(ECAM), 1 << 20),
            memory32: (Gpa(TABLE), 1 << 20),
            memory64: Some((Gpa(WINDOW), 1 << 30)),
            io: None,
        };
        let host = PcieHost::new(&system, windows, lines.clone(), Some(messages.clone())).unwrap();
        let drive = Drive::new(
            "d",
            Arc::new(MemoryBackend::new((0..65536u32).map(|i| (i / 512) as u8).collect(), false)),
            CacheMode::Writeback,
        );
        let slot = host.bus().free_slot().unwrap();
        let ring_features = features::RING_PACKED | features::INDIRECT_DESC | features::EVENT_IDX;
        let function = VirtioPci::new(
            Blk::new(drive, BlkOptions { queues: 2, ..BlkOptions::default() }),
            &slot,
            ring_features,
            None,
            &Log::off(),
        );
        host.bus().attach(function.clone()).unwrap();
        let board = Self { system, ram, lines, messages, function, _mapping: mapping, host };
        board.place();
        board
    }
    fn cfg(&self, register: u64) -> u64 {
        ECAM + (1 << 15) + register
    }
    fn load(&self, gpa: u64, size: u8) -> u64 {
        self.system.load(Gpa(gpa), Access::host(size)).unwrap()
    }
    fn store(&self, gpa: u64, size: u8, value: u64) {
        self.system.store(Gpa(gpa), value, Access::host(size)).unwrap();
    }
    fn place(&self) {
        self.store(self.cfg(0x14), 4, TABLE);
        self.store(self.cfg(0x20), 4, WINDOW & 0xffff_ffff);
        self.store(self.cfg(0x24), 4, WINDOW >> 32);
        self.store(self.cfg(4), 2, 6);
    }
    /// Offset of the vendor capability with structure type `kind`, or of capability `id`.
    fn capability(&self, id: u64, kind: Option<u64>) -> u64 {
        let mut at = self.load(self.cfg(0x34), 1);
        while at != 0 {
            if self.load(self.cfg(at), 1) == id && kind.is_none_or(|k| self.load(self.cfg(at + 3), 1) == k) {
                return at;
            }
            at = self.load(self.cfg(at + 1), 1);
        }
        panic!("no capability {id:#x} {kind:?}");
    }
    fn start(&self, features: u64) {
        self.store(COMMON + 0x14, 1, 0);
        self.store(COMMON + 0x14, 1, 3);
        for word in 0..2 {
            self.store(COMMON + 8, 4, word);
            self.store(COMMON + 12, 4, features >> (32 * word) & 0xffff_ffff);
        }
        self.store(COMMON + 0x14, 1, 11);
        assert_eq!(self.load(COMMON + 0x14, 1), 11);
        for queue in 0..self.load(COMMON + 0x12, 2) {
            self.store(COMMON + 0x16, 2, queue);
            self.store(COMMON + 0x18, 2, 16);
            let at = RAM + queue * 0x1_0000;
            self.ram.fill(at - RAM, 0x1_0000, 0).unwrap();
            // Halves and wholes.
            self.store(COMMON + 0x20, 4, at);
            self.store(COMMON + 0x24, 4, 0);
            self.store(COMMON + 0x28, 8, at + 0x1000);
            self.store(COMMON + 0x30, 8, at + 0x2000);
            self.store(COMMON + 0x1a, 2, queue + 1);
            self.store(COMMON + 0x1c, 2, 1);
            assert_eq!(self.load(COMMON + 0x1c, 2), 1);
        }
        self.store(COMMON + 0x14, 1, 15);
    }
    /// Reads a sector through queue `queue`.
    fn read_sector(&self, queue: u64, sector: u64) -> Vec<u8> {
        let (at, data) = (RAM + queue * 0x1_0000, RAM + 0x8_0000);
        let d = |i: u64, addr: u64, len: u32, flags: u16, next: u16| {
            let bytes =
                [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
            self.ram.write(at - RAM + 16 * i, &bytes).unwrap();
        };
        self.ram.write(data - RAM, &[&[0; 8][..], &sector.to_le_bytes()].concat()).unwrap();
        d(0, data, 16, 1, 1);
        d(1, data + 512, 512, 3, 2);
        d(2, data + 16, 1, 2, 0);
        let avail = self.load(at + 0x1002, 2);
        self.store(at + 0x1004 + 2 * (avail % 16), 2, 0);
        self.store(at + 0x1002, 2, avail + 1);
        let offset = {
            self.store(COMMON + 0x16, 2, queue);
            self.load(COMMON + 0x1e, 2)
        };
        self.store(NOTIFY + 4 * offset, 2, queue);
        let end = Instant::now() + Duration::from_secs(10);
        while self.load(at + 0x2002, 2) == avail {
            assert!(Instant::now() < end, "no answer");
        }
        let mut bytes = vec![0; 512];
        self.ram.read(data + 512 - RAM, &mut bytes).unwrap();
        bytes
    }
    /// Waits for what a worker thread does after the answer is visible.
    fn eventually(&self, what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
    }
}

#[test]
fn structures_and_registers() {
    let b = Board::new();
    assert_eq!(
        (b.load(b.cfg(0), 4), b.load(b.cfg(8), 4) >> 8, b.load(b.cfg(0x2e), 2) >= 0x40),
        (0x1042_1af4, 0x01_0000, true)
    );
    for (kind, offset) in [(1, 0), (2, 0x3000), (3, 0x1000), (4, 0x2000)] {
        let at = b.capability(9, Some(kind));
        assert_eq!((b.load(b.cfg(at + 4), 1), b.load(b.cfg(at + 8), 4)), (4, offset));
    }
    assert_eq!(b.load(COMMON + 0x12, 2), 2);
    assert_eq!((b.load(CONFIG, 8), b.load(CONFIG, 4), b.load(CONFIG + 0xff0, 4)), (128, 128, 0));
    b.store(COMMON, 4, 1);
    assert_eq!(b.load(COMMON + 4, 4), (features::VERSION_1 | features::RING_PACKED) >> 32);
    // A queue that is not there.
    b.store(COMMON + 0x16, 2, 9);
    assert_eq!((b.load(COMMON + 0x18, 2), b.load(COMMON + 0x1c, 2)), (0, 0));
    b.store(COMMON + 0x1a, 2, 0);
    assert_eq!(b.load(COMMON + 0x1a, 2), 0xffff);
    // A vector that is not there.
    b.store(COMMON + 0x10, 2, 100);
    assert_eq!(b.load(COMMON + 0x10, 2), 0xffff);
}

#[test]
fn interrupts() {
    let b = Board::new();
    b.start(features::VERSION_1 | features::BLK_MQ);
    assert!(b.read_sector(0, 5).iter().all(|x| *x == 5));
    // Device 1, INTA; reading the ISR status lowers it.
    b.eventually(|| b.lines[1].level());
    assert_eq!((b.load(ISR, 1), b.lines[1].level(), b.load(ISR, 1)), (1, false, 0));
    // MSI-X: a vector for each queue.
    let cap = b.capability(0x11, None);
    for n in 0..3u64 {
        b.store(TABLE + 16 * n, 4, 0xfee0_0000);
        b.store(TABLE + 16 * n + 8, 4, 40 + n);
        b.store(TABLE + 16 * n + 12, 4, 0);
    }
    b.store(b.cfg(cap + 2), 2, 0x8000);
    b.start(features::VERSION_1 | features::BLK_MQ);
    assert!(b.read_sector(1, 7).iter().all(|x| *x == 7));
    b.eventually(|| *b.messages.0.lock().unwrap() == [42]);
    assert!(!b.lines[1].level() && b.load(ISR, 1) == 0);
    // Without bus mastering the device rests; with it again it goes on.
    b.store(b.cfg(4), 2, 2);
    b.function.core().notify(1);
    b.store(b.cfg(4), 2, 6);
    assert!(b.read_sector(1, 8).iter().all(|x| *x == 8));
    // Saved and loaded.
    b.function.quiesce();
    let saved = b.function.save();
    b.function.reset();
    b.function.load(&saved).unwrap();
    b.function.resume();
    assert!(b.read_sector(1, 9).iter().all(|x| *x == 9));
    assert_eq!(b.host.bus().functions().len(), 2);
}

/// The configuration access capability (4.1.4.9) reaches every structure.
#[test]
fn configuration_window() {
    let b = Board::new();
    let cap = b.capability(9, Some(5));
    let aim = |bar: u64, offset: u64, len: u64| {
        b.store(b.cfg(cap + 4), 1, bar);
        b.store(b.cfg(cap + 8), 4, offset);
        b.store(b.cfg(cap + 12), 4, len);
    };
    aim(4, 0x2000, 4);
    assert_eq!(b.load(b.cfg(cap + 16), 4), 128);
    aim(4, 0x14, 1);
    b.store(b.cfg(cap + 16), 1, 1);
    assert_eq!(b.load(COMMON + 0x14, 1), 1);
    for (bar, offset, len) in
        [(3, 0, 4), (4, 0x4000, 4), (4, u64::from(u32::MAX), 4), (4, 1, 4), (4, 0, 3), (4, 0, 0), (255, 0, 4)]
    {
        aim(bar, offset, len);
        let _ = b.load(b.cfg(cap + 16), 4);
        b.store(b.cfg(cap + 16), 4, 0xffff_ffff);
    }
    assert_eq!(b.load(COMMON + 0x14, 1), 1);
}

#[test]
fn rubbish() {
    let b = Board::new();
    let mut r = Random(0x0123_4567_89ab_cdef);
    for n in 0..60_000 {
        if n % 500 == 0 {
            b.place();
        }
        let size = [1u8, 2, 4, 8][r.below(4) as usize];
        let area = [b.cfg(0), COMMON, ISR, CONFIG, NOTIFY, TABLE][r.below(6) as usize];
        let at = (area + r.below(if area == COMMON { 0x40 } else { 0x200 })) & !(u64::from(size) - 1);
        let value = match r.below(4) {
            0 => r.next(),
            1 => RAM + r.below(RAM_LEN),
            2 => [0, 1, 3, 11, 15, 0xffff][r.below(6) as usize],
            _ => r.below(64),
        };
        if r.below(3) == 0 {
            let _ = b.system.load(Gpa(at), Access::host(size));
        } else {
            let _ = b.system.store(Gpa(at), value, Access::host(size));
        }
        if r.below(50) == 0 {
            let _ = b.ram.store(r.below(RAM_LEN / 8) * 8, 8, r.next() & r.next());
        }
    }
    b.function.quiesce();
    b.function.reset();
    assert!(b.lines.iter().all(|l| !l.level()));
}
