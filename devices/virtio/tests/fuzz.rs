//! Guests that write rubbish: no panic, no hang, whatever the registers and the rings say.

mod driver;

use driver::{BASE, Driver, RAM, Random};
use rhea_block::{CacheMode, Drive, MemoryBackend};
use rhea_device::{CharBackend, CharFrontend, Device};
use rhea_memory::{Access, MmioDevice};
use rhea_net::{NetBackend, NetFrontend, Offload, Offloads};
use rhea_virtio::VirtioDevice;
use rhea_virtio::balloon::Balloon;
use rhea_virtio::blk::{Blk, BlkOptions};
use rhea_virtio::console::{Console, PortOptions};
use rhea_virtio::net::{Net, NetOptions};
use rhea_virtio::rng::Rng;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Loop(Mutex<Option<Arc<dyn NetFrontend>>>);

impl NetBackend for Loop {
    fn send(&self, frame: &[u8], offload: Offload) {
        let front = self.0.lock().unwrap().clone();
        if let Some(front) = front {
            front.receive(frame, offload);
        }
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        *self.0.lock().unwrap() = Some(frontend);
    }
    fn receive_ready(&self) {}
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: true }
    }
    fn description(&self) -> String {
        "loop".to_owned()
    }
}

struct Echo(Mutex<Option<Arc<dyn CharFrontend>>>);

impl CharBackend for Echo {
    fn write(&self, data: &[u8]) {
        let front = self.0.lock().unwrap().clone();
        if let Some(front) = front {
            let n = front.can_receive().min(data.len());
            front.receive(&data[..n]);
        }
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        *self.0.lock().unwrap() = Some(frontend);
    }
    fn accept_input(&self) {}
    fn description(&self) -> String {
        "echo".to_owned()
    }
}

fn devices() -> Vec<Arc<dyn VirtioDevice>> {
    let drive = Drive::new("d", Arc::new(MemoryBackend::new(vec![1; 64 << 10], false)), CacheMode::Writeback);
    let console = Console::new(3);
    for name in ["", "channel"] {
        let backend = Arc::new(Echo(Mutex::new(None)));
        console
            .add_port(PortOptions {
                number: None,
                console: name.is_empty(),
                name: name.to_owned(),
                backend,
                watcher: None,
            })
            .unwrap();
    }
    vec![
        Blk::new(drive, BlkOptions { queues: 2, ..BlkOptions::default() }),
        Net::new(Arc::new(Loop::default()), NetOptions::new([2, 0, 0, 0, 0, 1])),
        console,
        Rng::new(None).unwrap(),
        Balloon::new(true, true),
    ]
}

/// Random register accesses, most of them to registers, many with values that mean something.
#[test]
fn registers() {
    for (n, device) in devices().into_iter().enumerate() {
        let d = Driver::new(device);
        let mut r = Random(0x9e37_79b9_7f4a_7c15 + n as u64);
        for _ in 0..20_000 {
            let offset = match r.below(4) {
                0 => r.below(0x200),
                1 => 0x100 + r.below(0x40),
                _ => r.below(0x40) * 4,
            };
            let size = [1, 2, 4, 4, 4, 8][r.below(6) as usize];
            let value = match r.below(5) {
                0 => r.next(),
                1 => BASE + r.below(RAM),
                2 => [0, 1, 3, 11, 15, 0x80, 0x40][r.below(7) as usize],
                _ => r.below(300),
            };
            let offset = offset / u64::from(size) * u64::from(size);
            if r.below(3) == 0 {
                let _ = d.mmio.read(offset, Access::host(size));
            } else {
                let _ = d.mmio.write(offset, value, Access::host(size));
            }
        }
        d.mmio.quiesce();
        let saved = d.mmio.save();
        d.mmio.load(&saved).unwrap();
        d.mmio.reset();
        assert!(!d.line.level());
    }
}

/// Devices that run, and chains of rubbish: each ends, or the device asks for a reset.
#[test]
fn chains() {
    for seed in 1..60u64 {
        for (n, device) in devices().into_iter().enumerate() {
            let mut d = Driver::new(device);
            let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + n as u64);
            let features = r.next() & !(1 << 34 | 1 << 29);
            d.start(features, driver::SIZE);
            let queues = d.mmio.core().unwrap().queues().count();
            for _ in 0..100 {
                let queue = r.below(u64::from(queues)) as u32;
                let count = 1 + r.below(6);
                let buffers: Vec<_> = (0..count)
                    .map(|i| {
                        let addr = if r.below(12) == 0 { r.next() } else { BASE + (8 << 20) + r.below(4096) * 8 };
                        let len = match r.below(10) {
                            0 => r.next() as u32,
                            1 => 0,
                            2..5 => 512 * r.below(20) as u32,
                            _ => [1, 2, 4, 12, 16, 20, 32, 64][r.below(8) as usize],
                        };
                        let write = if r.below(10) == 0 { r.below(2) } else { u64::from(i * 2 >= count) } as u16;
                        if write == 0 && r.below(2) == 0 && addr < BASE + RAM {
                            // A header, or a command, that may mean something.
                            let kind = [0u32, 1, 4, 8, 11, 13, 0x100, 0x0001, 0x0101][r.below(9) as usize];
                            d.put(addr, &kind.to_le_bytes());
                            d.put(addr + 8, &r.below(200).to_le_bytes());
                        }
                        (addr, len, write << 1)
                    })
                    .collect();
                d.add_raw(queue, &buffers);
                d.kick(queue);
                if d.broken() {
                    d.start(features, driver::SIZE);
                }
            }
            d.mmio.quiesce();
            d.write(0x70, 0);
        }
    }
}

/// The same memory, rings included, is rubbish all over; both ring formats.
#[test]
fn rings() {
    for seed in 1..40u64 {
        for (n, device) in devices().into_iter().enumerate() {
            let mut d = Driver::new(device);
            let mut r = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) + n as u64);
            let packed = if seed % 2 == 0 { 1 << 34 } else { 0 };
            d.start(1 << 28 | 1 << 29 | packed, driver::SIZE);
            let queues = u64::from(d.mmio.core().unwrap().queues().count());
            for _ in 0..200 {
                let at = BASE + 0x1_0000 * r.below(queues) + [0, 0x4000, 0x8000][r.below(3) as usize] + r.below(1024);
                let bytes = if r.below(2) == 0 {
                    (BASE + (8 << 20) + r.below(1000)).to_le_bytes()
                } else {
                    (r.next() & r.next() & r.next()).to_le_bytes()
                };
                d.put(at, &bytes[..1 + r.below(8) as usize]);
                d.kick(r.below(queues) as u32);
                if d.broken() && r.below(4) == 0 {
                    d.start(1 << 28 | 1 << 29 | packed, driver::SIZE);
                }
            }
            d.mmio.quiesce();
            d.mmio.reset();
        }
    }
}
