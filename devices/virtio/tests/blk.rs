//! The block device as a driver sees it.

mod driver;

use driver::{BASE, Driver, SIZE};
use parking_lot::{Condvar, Mutex};
use rhea_block::{BlockBackend, CacheMode, Drive, MemoryBackend, Segment};
use rhea_device::Device;
use rhea_virtio::blk::{Blk, BlkOptions};
use rhea_virtio::features;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Memory whose operations wait while the gate is shut, and are counted.
struct Slow {
    memory: MemoryBackend,
    shut: Mutex<bool>,
    opened: Condvar,
    flushes: AtomicU64,
    writes: AtomicU64,
}

impl Slow {
    fn new(data: Vec<u8>, readonly: bool) -> Arc<Self> {
        let memory = MemoryBackend::new(data, readonly);
        Arc::new(Self {
            memory,
            shut: Mutex::new(false),
            opened: Condvar::new(),
            flushes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        })
    }
    fn set_shut(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }
    fn wait(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
    }
}

impl BlockBackend for Slow {
    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.wait();
        self.memory.read(offset, segments)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.wait();
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.memory.write(offset, segments)
    }
    fn flush(&self) -> io::Result<()> {
        self.wait();
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.memory.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.memory.write_zeroes(offset, len, may_unmap)
    }
    fn readonly(&self) -> bool {
        self.memory.readonly()
    }
    fn description(&self) -> String {
        "slow".to_owned()
    }
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 13 + i / 512) as u8).collect()
}

fn setup(readonly: bool, options: BlkOptions) -> (Driver, Arc<Slow>) {
    let slow = Slow::new(pattern(1 << 20), readonly);
    let drive = Drive::new("d", slow.clone(), CacheMode::Writeback);
    (Driver::new(Blk::new(drive, options)), slow)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

#[test]
fn requests() {
    let (mut d, slow) = setup(false, BlkOptions { serial: "disk-1".into(), ..BlkOptions::default() });
    d.start(!features::RING_PACKED & !features::EVENT_IDX, SIZE);
    assert_eq!((d.read(8), d.config(0, 8)), (2, 2048));
    // A read over several buffers, the header in two pieces.
    let h = header(IN, 3);
    let (len, data) = d.request(0, &[&h[..5], &h[5..]], &[512, 100, 412, 1]);
    assert_eq!(len, 1025);
    assert!(data[..3].concat() == pattern(1 << 20)[1536..2560]);
    assert_eq!(data[3], [0]);
    assert!(d.line.level());
    d.write(0x64, 1);
    assert!(!d.line.level());
    // A write, then a flush.
    let new = vec![0xa5; 4096];
    assert_eq!(d.request(0, &[&header(OUT, 8), &new[..1000], &new[1000..]], &[1]), (1, vec![vec![0]]));
    assert_eq!((slow.writes.load(Ordering::SeqCst), slow.flushes.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(d.request(0, &[&header(FLUSH, 0)], &[1]), (1, vec![vec![0]]));
    assert_eq!(slow.flushes.load(Ordering::SeqCst), 1);
    assert!(slow.memory.content()[4096..8192] == new);
    // With the cache switched off each write is flushed.
    d.mmio_write_config(32, 0);
    assert_eq!(d.config(32, 1), 0);
    d.request(0, &[&header(OUT, 8), &new], &[1]);
    assert_eq!(slow.flushes.load(Ordering::SeqCst), 2);
    // Identity, also into a short buffer.
    let (len, data) = d.request(0, &[&header(GET_ID, 0)], &[20, 1]);
    assert_eq!((len, &data[0][..8], data[1][0]), (21, &b"disk-1\0\0"[..], 0));
    assert_eq!(d.request(0, &[&header(GET_ID, 0)], &[4, 1]).1[0], b"disk");
    // Ranges.
    let range =
        |sector: u64, n: u32, flags: u32| [&sector.to_le_bytes()[..], &n.to_le_bytes(), &flags.to_le_bytes()].concat();
    assert_eq!(d.request(0, &[&header(WRITE_ZEROES, 0), &range(8, 2, 1)], &[1]).1[0], [0]);
    assert!(slow.memory.content()[4096..5120].iter().all(|b| *b == 0));
    assert_eq!(d.request(0, &[&header(DISCARD, 0), &range(10, 1, 0)], &[1]).1[0], [0]);
    for (kind, r, status) in [
        (DISCARD, range(0, 1, 1), 2),
        (WRITE_ZEROES, range(0, 1, 2), 2),
        (DISCARD, range(2048, 1, 0), 1),
        (DISCARD, range(u64::MAX, 1, 0), 1),
        (WRITE_ZEROES, range(0, u32::MAX, 0), 1),
        (DISCARD, [range(0, 1, 0), range(1, 1, 0)].concat(), 2),
        (DISCARD, vec![1, 2, 3], 2),
    ] {
        assert_eq!(d.request(0, &[&header(kind, 0), &r], &[1]), (1, vec![vec![status]]), "{kind} {r:?}");
    }
    // Past the end, not whole sectors, unknown.
    for (h, len, status) in
        [(header(IN, 2047), 1024, 1), (header(IN, u64::MAX), 512, 1), (header(IN, 0), 100, 1), (header(99, 0), 512, 2)]
    {
        let (written, data) = d.request(0, &[&h], &[len, 1]);
        assert_eq!((written, &data[1][..]), (1, &[status][..]));
    }
    // Data outside of memory fails alone.
    let h = d.alloc(16);
    d.put(h, &header(IN, 0));
    let status = d.alloc(1);
    d.add_raw(0, &[(h, 16, 0), (0x1000, 512, 2), (status, 1, 2)]);
    d.kick(0);
    d.wait_used(0);
    assert_eq!(d.get(status, 1), [1]);
    assert!(!d.broken());
    // No room for a status: the device gives up, until a reset.
    d.add(0, &[&header(IN, 0)], &[]);
    d.kick(0);
    assert!(d.broken());
    d.start(0, SIZE);
    // Without the flush feature writes are flushed.
    let before = slow.flushes.load(Ordering::SeqCst);
    d.request(0, &[&header(OUT, 8), &new], &[1]);
    assert_eq!(slow.flushes.load(Ordering::SeqCst), before + 1);
    // Nor are ranges taken that were not negotiated.
    assert_eq!(d.request(0, &[&header(DISCARD, 0), &range(10, 1, 0)], &[1]).1[0], [2]);
}

impl Driver {
    fn mmio_write_config(&self, offset: u64, value: u8) {
        use rhea_memory::{Access, MmioDevice};
        self.mmio.write(0x100 + offset, u64::from(value), Access::host(1)).unwrap();
    }
}

#[test]
fn configuration() {
    let (d, _) =
        setup(false, BlkOptions { queues: 4, queue_size: 128, logical_block_size: 4096, ..BlkOptions::default() });
    let f = d.offered();
    for bit in [
        features::BLK_MQ,
        features::BLK_FLUSH,
        features::BLK_DISCARD,
        features::BLK_WRITE_ZEROES,
        features::BLK_CONFIG_WCE,
        features::BLK_SEG_MAX,
    ] {
        assert!(f & bit != 0);
    }
    assert_eq!((d.config(20, 4), d.config(34, 2), d.config(12, 4)), (4096, 4, 126));
    assert_eq!(d.config(0x1000, 4), 0);
    let (d, _) = setup(true, BlkOptions { config_wce: false, write_cache: Some(false), ..BlkOptions::default() });
    let f = d.offered();
    assert!(
        f & features::BLK_RO != 0 && f & (features::BLK_MQ | features::BLK_DISCARD | features::BLK_CONFIG_WCE) == 0
    );
    assert_eq!(d.config(32, 1), 0);
}

#[test]
fn read_only() {
    let (mut d, slow) = setup(true, BlkOptions::default());
    d.start(!features::RING_PACKED & !features::EVENT_IDX, SIZE);
    assert_eq!(d.request(0, &[&header(OUT, 0), &[1; 512]], &[1]).1[0], [1]);
    assert_eq!(d.request(0, &[&header(FLUSH, 0)], &[1]).1[0], [0]);
    assert!(slow.memory.content() == pattern(1 << 20));
}

#[test]
fn reset_with_requests_in_flight() {
    let (mut d, slow) = setup(false, BlkOptions { queues: 2, ..BlkOptions::default() });
    for round in 0..20 {
        d.start(features::BLK_FLUSH | features::BLK_MQ, SIZE);
        slow.set_shut(true);
        let mut sent = Vec::new();
        for n in 0..10 {
            sent.push(d.add(n % 2, &[&header(IN, 0)], &[512, 1]));
            d.kick(n % 2);
        }
        let opener = slow.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            opener.set_shut(false);
        });
        if round % 2 == 0 {
            d.write(0x70, 0)
        } else {
            Device::reset(&*d.mmio)
        }
        // Nothing touches memory any more.
        for s in &sent {
            for (at, len) in &s.writable {
                d.ram.fill(at - BASE, u64::from(*len), 0x77).unwrap();
            }
        }
        thread.join().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        for s in &sent {
            assert!(s.writable.iter().all(|(at, len)| d.get(*at, *len as usize).iter().all(|b| *b == 0x77)));
        }
        assert!(!d.line.level() && d.used(0).is_none() && d.used(1).is_none());
    }
}

#[test]
fn saved_and_loaded() {
    let (mut d, slow) = setup(false, BlkOptions::default());
    d.start(features::BLK_FLUSH | features::BLK_CONFIG_WCE, SIZE);
    d.request(0, &[&header(IN, 0)], &[512, 1]);
    d.mmio_write_config(32, 0);
    // One more is in flight when the machine stops.
    slow.set_shut(true);
    let sent = d.add(0, &[&header(IN, 1)], &[512, 1]);
    d.kick(0);
    let opener = slow.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        opener.set_shut(false);
    });
    d.mmio.quiesce();
    thread.join().unwrap();
    assert!(d.used(0).is_some());
    let late = d.add(0, &[&header(IN, 2)], &[512, 1]);
    d.kick(0);
    assert!(d.used(0).is_none(), "a stopped device takes nothing");
    let saved = d.mmio.save();
    d.mmio.reset();
    d.mmio.load(&saved).unwrap();
    assert!(d.line.level());
    assert_eq!((d.read(0x70), d.config(32, 1)), (15, 0));
    d.mmio.resume();
    d.wait_used(0);
    assert!(d.get(sent.writable[0].0, 512) == pattern(1 << 20)[512..1024]);
    assert!(d.get(late.writable[0].0, 512) == pattern(1 << 20)[1024..1536]);
    // State of another device.
    let (other, _) = setup(true, BlkOptions { queues: 3, ..BlkOptions::default() });
    assert!(other.mmio.load(&saved).is_err());
}

#[test]
fn negotiation() {
    let (d, _) = setup(false, BlkOptions::default());
    assert!(!d.negotiate(0), "without VERSION_1");
    assert!(!d.negotiate(features::VERSION_1 | 1 << 60), "what was not offered");
    assert!(d.negotiate(features::VERSION_1));
    // FEATURES_OK fixes the features.
    d.write(0x24, 0);
    d.write(0x20, 0xffff_ffff);
    assert_eq!(d.mmio.core().unwrap().driver_features(0), 0);
    d.write(0x70, 0);
    d.write(0x70, 7);
    assert_eq!(d.read(0x70), 3, "DRIVER_OK without FEATURES_OK");
}
