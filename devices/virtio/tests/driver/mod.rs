//! A driver for a device behind virtio-mmio, and what a device needs around it.
#![allow(dead_code, reason = "each test file uses a part")]

use rhea_accel::IrqLine;
use rhea_device::{DmaHandle, Log};
use rhea_memory::{Access, AddressSpace, Gpa, Mapping, MmioDevice, RamBlock};
use rhea_virtio::{VirtioCore, VirtioDevice, VirtioMmio, features, status};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const BASE: u64 = 0x4000_0000;
pub const RAM: u64 = 16 << 20;
/// Rings of each queue.
const RINGS: u64 = 0x1_0000;
const DATA: u64 = BASE + 0x80_0000;
pub const SIZE: u16 = 64;

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
}

#[derive(Clone, Default)]
struct Ring {
    avail: u16,
    used: u16,
    next: u16,
}

pub struct Driver {
    pub ram: Arc<RamBlock>,
    pub space: Arc<AddressSpace>,
    pub mmio: Arc<VirtioMmio>,
    pub line: IrqLine,
    rings: Vec<Ring>,
    data: u64,
    _mapping: Mapping,
}

/// Buffers of a chain: what the device reads, and room for what it writes.
pub struct Sent {
    pub queue: u32,
    pub writable: Vec<(u64, u32)>,
}

impl Driver {
    pub fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM).unwrap();
        let mapping = space.map_ram(Gpa(BASE), &ram, 0, RAM, 0).unwrap();
        let line = IrqLine::unconnected();
        let mmio = VirtioMmio::new("virtio-mmio@test", line.clone(), Log::off());
        let ring_features = features::RING_PACKED | features::INDIRECT_DESC | features::EVENT_IDX;
        assert!(mmio.plug(VirtioCore::new(device, DmaHandle::new(space.clone(), 0), ring_features, Log::off())));
        Self { ram, space, mmio, line, rings: Vec::new(), data: DATA, _mapping: mapping }
    }
    pub fn read(&self, offset: u64) -> u32 {
        self.mmio.read(offset, Access::host(4)).unwrap() as u32
    }
    pub fn write(&self, offset: u64, value: u32) {
        self.mmio.write(offset, u64::from(value), Access::host(4)).unwrap();
    }
    pub fn config(&self, offset: u64, size: u8) -> u64 {
        self.mmio.read(0x100 + offset, Access::host(size)).unwrap()
    }
    pub fn offered(&self) -> u64 {
        self.write(0x14, 0);
        let low = u64::from(self.read(0x10));
        self.write(0x14, 1);
        low | u64::from(self.read(0x10)) << 32
    }
    /// Resets and negotiates: all of `wanted` that is offered; false if the device refuses.
    pub fn negotiate(&self, wanted: u64) -> bool {
        self.write(0x70, 0);
        assert_eq!(self.read(0x70), 0);
        self.write(0x70, 3);
        for word in 0..2 {
            self.write(0x24, word);
            self.write(0x20, (wanted >> (32 * word)) as u32);
        }
        self.write(0x70, 11);
        self.read(0x70) & u32::from(status::FEATURES_OK) != 0
    }
    /// Everything to DRIVER_OK, with split rings of `size`.
    pub fn start(&mut self, wanted: u64, size: u16) {
        assert!(self.negotiate(wanted & self.offered() | features::VERSION_1));
        self.rings.clear();
        for queue in 0.. {
            self.write(0x30, queue);
            let most = self.read(0x34);
            if most == 0 {
                break;
            }
            let size = u32::from(size).min(most);
            let at = BASE + RINGS * u64::from(queue);
            self.ram.fill(at - BASE, RINGS, 0).unwrap();
            self.write(0x38, size);
            for (offset, value) in [(0x80, at), (0x90, at + 0x4000), (0xa0, at + 0x8000)] {
                self.write(offset, value as u32);
                self.write(offset + 4, (value >> 32) as u32);
            }
            self.write(0x44, 1);
            assert_eq!(self.read(0x44), 1);
            self.rings.push(Ring::default());
        }
        self.write(0x70, 15);
        assert_eq!(self.read(0x70), 15);
    }
    pub fn alloc(&mut self, len: u64) -> u64 {
        let at = self.data;
        self.data += len.next_multiple_of(8);
        if self.data > BASE + RAM {
            self.data = DATA;
            return self.alloc(len);
        }
        at
    }
    pub fn put(&self, at: u64, data: &[u8]) {
        self.ram.write(at - BASE, data).unwrap();
    }
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read(at - BASE, &mut data).unwrap();
        data
    }
    fn word(&self, at: u64) -> u16 {
        self.ram.load(at - BASE, 2).unwrap() as u16
    }
    /// Makes a chain available: copies of `readable`, and room.
    pub fn add(&mut self, queue: u32, readable: &[&[u8]], writable: &[u32]) -> Sent {
        let mut buffers = Vec::new();
        for data in readable {
            let at = self.alloc(data.len() as u64);
            self.put(at, data);
            buffers.push((at, data.len() as u32, 0u16));
        }
        let mut room = Vec::new();
        for len in writable {
            let at = self.alloc(u64::from(*len));
            self.ram.fill(at - BASE, u64::from(*len), 0xee).unwrap();
            buffers.push((at, *len, 2));
            room.push((at, *len));
        }
        self.add_raw(queue, &buffers);
        Sent { queue, writable: room }
    }
    pub fn add_raw(&mut self, queue: u32, buffers: &[(u64, u32, u16)]) {
        let at = BASE + RINGS * u64::from(queue);
        let ring = &mut self.rings[queue as usize];
        let head = ring.next;
        for (i, (addr, len, flags)) in buffers.iter().enumerate() {
            let slot = ring.next;
            ring.next = (ring.next + 1) % SIZE;
            let link = u16::from(i + 1 < buffers.len());
            let d =
                [&addr.to_le_bytes()[..], &len.to_le_bytes(), &(flags | link).to_le_bytes(), &ring.next.to_le_bytes()]
                    .concat();
            self.ram.write(at + 16 * u64::from(slot) - BASE, &d).unwrap();
        }
        self.ram.store(at + 0x4004 + 2 * u64::from(ring.avail % SIZE) - BASE, 2, u64::from(head)).unwrap();
        ring.avail = ring.avail.wrapping_add(1);
        self.ram.store(at + 0x4002 - BASE, 2, u64::from(ring.avail)).unwrap();
    }
    pub fn kick(&self, queue: u32) {
        self.write(0x50, queue);
    }
    /// The length of the next used chain, if there is one.
    pub fn used(&mut self, queue: u32) -> Option<u32> {
        let at = BASE + RINGS * u64::from(queue);
        let used = self.rings[queue as usize].used;
        if self.word(at + 0x8002) == used {
            return None;
        }
        let len = self.ram.load(at + 0x8004 + 8 * u64::from(used % SIZE) + 4 - BASE, 4).unwrap() as u32;
        self.rings[queue as usize].used = used.wrapping_add(1);
        Some(len)
    }
    pub fn wait_used(&mut self, queue: u32) -> u32 {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(len) = self.used(queue) {
                return len;
            }
            assert!(Instant::now() < end, "nothing is used");
            std::thread::yield_now();
        }
    }
    /// Sends a chain and waits for its end: the bytes written.
    pub fn request(&mut self, queue: u32, readable: &[&[u8]], writable: &[u32]) -> (u32, Vec<Vec<u8>>) {
        let sent = self.add(queue, readable, writable);
        self.kick(queue);
        let len = self.wait_used(queue);
        (len, sent.writable.iter().map(|(at, len)| self.get(*at, *len as usize)).collect())
    }
    pub fn broken(&self) -> bool {
        self.read(0x70) & u32::from(status::NEEDS_RESET) != 0
    }
}
