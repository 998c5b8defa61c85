//! A machine around a controller: memory, a PCI bus, interrupts.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod ahci;
pub mod nvme;

use rhea_accel::{IrqLine, MsiMessage, MsiTarget};
use rhea_block::{BlockBackend, CacheMode, Drive, MemoryBackend, Segment};
use rhea_memory::{Access, AddressSpace, Gpa, Mapping, RamBlock};
use rhea_pci::{Devfn, PciBus, PciFunction};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub const RAM: u64 = 0x10_0000;
pub const RAM_SIZE: u64 = 32 << 20;
pub const BAR: u64 = 0xe000_0000;
pub const DEVFN: Devfn = Devfn::new(31, 2);

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() >> 32) as u8).collect()
    }
}

#[derive(Default)]
pub struct Messages(pub AtomicU64, pub Mutex<Vec<u32>>);

impl MsiTarget for Messages {
    fn send(&self, m: MsiMessage) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.lock().unwrap().push(m.data);
    }
}

pub struct Machine {
    pub space: Arc<AddressSpace>,
    pub ram: Arc<RamBlock>,
    pub bus: Arc<PciBus>,
    pub lines: [IrqLine; 4],
    pub messages: Arc<Messages>,
    _mapping: Mapping,
}

impl Machine {
    pub fn new() -> Self {
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", RAM_SIZE).unwrap();
        let mapping = space.map_ram(Gpa(RAM), &ram, 0, RAM_SIZE, 0).unwrap();
        let lines: [IrqLine; 4] = std::array::from_fn(|_| IrqLine::unconnected());
        let messages = Arc::new(Messages::default());
        let bus = PciBus::new("pcie.0", space.clone(), lines.clone(), Some(messages.clone()));
        Self { space, ram, bus, lines, messages, _mapping: mapping }
    }
    pub fn put(&self, at: u64, data: &[u8]) {
        self.ram.write(at - RAM, data).unwrap();
    }
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read(at - RAM, &mut data).unwrap();
        data
    }
    pub fn put32(&self, at: u64, value: u32) {
        self.put(at, &value.to_le_bytes());
    }
    pub fn get32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at, 4).try_into().unwrap())
    }
    pub fn read(&self, at: u64) -> u32 {
        self.bus.memory().load(Gpa(at), Access::cpu(0, 4)).unwrap() as u32
    }
    pub fn write(&self, at: u64, value: u32) {
        self.bus.memory().store(Gpa(at), u64::from(value), Access::cpu(0, 4)).unwrap();
    }
    pub fn any_line(&self) -> bool {
        self.lines.iter().any(IrqLine::level)
    }
    pub fn sent(&self) -> u64 {
        self.messages.0.load(Ordering::SeqCst)
    }
}

pub fn find_capability(f: &dyn PciFunction, id: u8) -> u16 {
    let mut at = f.config_read(0x34, 1) as u16;
    while at != 0 {
        if f.config_read(at, 1) == u32::from(id) {
            return at;
        }
        at = f.config_read(at + 1, 1) as u16;
    }
    panic!("no capability {id:#x}");
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} does not come");
        std::thread::yield_now();
    }
}

/// A disk in memory that can fail, and can hold requests back.
pub struct Faulty {
    pub memory: MemoryBackend,
    /// Reads and writes of this byte fail.
    pub bad: AtomicU64,
    held: Mutex<bool>,
    free: Condvar,
    pub arrived: AtomicU64,
    pub flushes: AtomicU64,
    pub slow_reads: AtomicBool,
    /// Reads done without waiting.
    pub quick: AtomicU64,
}

impl Faulty {
    pub fn new(data: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(data, false),
            bad: AtomicU64::new(u64::MAX),
            held: Mutex::new(false),
            free: Condvar::new(),
            arrived: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            slow_reads: AtomicBool::new(true),
            quick: AtomicU64::new(0),
        })
    }
    pub fn drive(self: &Arc<Self>) -> Arc<Drive> {
        Drive::new("disk", self.clone(), CacheMode::Writeback)
    }
    pub fn hold(&self, on: bool) {
        *self.held.lock().unwrap() = on;
        self.free.notify_all();
    }
    fn pass(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.free.wait(held).unwrap();
        }
        let len: u64 = segments.iter().map(Segment::len).sum();
        let bad = self.bad.load(Ordering::SeqCst);
        if (offset..offset + len).contains(&bad) { Err(io::Error::other("bad block")) } else { Ok(()) }
    }
}

impl BlockBackend for Faulty {
    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.pass(offset, segments)?;
        self.memory.read(offset, segments)
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        if self.slow_reads.load(Ordering::SeqCst) {
            return None;
        }
        self.quick.fetch_add(1, Ordering::SeqCst);
        Some(self.memory.read(offset, segments))
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.pass(offset, segments)?;
        self.memory.write(offset, segments)
    }
    fn flush(&self) -> io::Result<()> {
        self.pass(u64::MAX, &[])?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.pass(u64::MAX, &[])?;
        self.memory.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.memory.write_zeroes(offset, len, may_unmap)
    }
    fn readonly(&self) -> bool {
        false
    }
    fn description(&self) -> String {
        "faulty".to_owned()
    }
}
