//! Hostile guests: random registers, random memory, structures half right. Nothing may panic, hang or write outside the disk's and
//! the guest's memory; afterwards a reset makes the controller usable again.

mod driver;

use driver::ahci::{Cmd, DATA, Host as AhciHost, PX_CI, PX_CMD, PX_SACT, PX_SCTL, PX_SSTS, PX_TFD};
use driver::nvme::{CC, Host as NvmeHost, cq_at, sq_at};
use driver::{BAR, Faulty, RAM, RAM_SIZE, Random, wait};
use rhea_device::Device;
use rhea_pci::PciFunction;
use rhea_storage::{CdOptions, DiskOptions, NvmeOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn disk(seed: u64) -> Arc<Faulty> {
    let d = Faulty::new(Random(seed).bytes(1 << 20));
    d.slow_reads.store(seed.is_multiple_of(2), Ordering::SeqCst);
    d
}

/// An address that is often memory, sometimes its end, a register, or nothing.
fn address(r: &mut Random) -> u64 {
    match r.below(8) {
        0 => BAR + r.below(0x1000),
        1 => RAM + RAM_SIZE - r.below(8192),
        2 => r.next(),
        3 => u64::MAX - r.below(8192),
        _ => RAM + r.below(RAM_SIZE),
    }
}

/// A value with few bits, many bits, or an address.
fn value(r: &mut Random) -> u32 {
    match r.below(4) {
        0 => r.next() as u32,
        1 => 1 << r.below(32),
        2 => address(r) as u32,
        _ => r.below(32) as u32,
    }
}

fn usable(h: &AhciHost) {
    h.ahci.reset();
    h.ahci.config_write(0x24, 4, BAR as u32);
    h.ahci.config_write(4, 2, 7);
    h.start(0);
    h.run(0, &Cmd::ata(0xec, 0, 0).data(DATA, 512)).unwrap();
}

fn ahci(seed: u64) -> (AhciHost, Vec<Arc<Faulty>>) {
    let disks: Vec<_> = (0..3).map(|n| disk(seed * 3 + n)).collect();
    let h = AhciHost::new(|a| {
        a.attach_disk(0, disks[0].drive(), DiskOptions::default()).unwrap();
        a.attach_disk(1, disks[1].drive(), DiskOptions::default()).unwrap();
        a.attach_cd(2, Some(disks[2].drive()), CdOptions::default()).unwrap();
    });
    (h, disks)
}

/// Random writes anywhere in the registers, over random memory.
#[test]
fn ahci_registers() {
    for seed in 1..6 {
        let (h, _disks) = ahci(seed);
        let mut r = Random(seed * 1001);
        let junk = r.bytes(1 << 16);
        for n in 0..16 {
            h.m.put(RAM + n * (1 << 16), &junk);
        }
        for _ in 0..3000 {
            let at = if r.below(8) == 0 { r.below(0x1000) } else { 0x100 + r.below(4) * 0x80 + r.below(0x40) } & !3;
            if r.below(4) == 0 {
                h.read(at);
            } else {
                h.write(at, value(&mut r));
            }
            if r.below(200) == 0 {
                h.ahci.config_write(4, 2, if r.below(2) == 0 { 3 } else { 7 });
            }
        }
        h.ahci.config_write(4, 2, 7);
        let saved = h.ahci.save();
        h.ahci.load(&saved).unwrap();
        usable(&h);
    }
}

/// Commands with the right frame and random contents, tables and packets.
#[test]
fn ahci_commands() {
    for seed in 1..5 {
        let (h, disks) = ahci(seed);
        let mut r = Random(seed * 31337);
        for n in 0..3 {
            h.start(n);
        }
        for _ in 0..4000 {
            let (port, slot) = (r.below(3), r.below(32));
            if r.below(4) != 0 {
                // An operating system recovers.
                h.write(4, 1 << 31 | 2);
                h.set_port(port, PX_CMD, 6);
                if h.port(port, PX_TFD) & 0x88 != 0 || r.below(4) == 0 {
                    h.set_port(port, PX_SCTL, 1);
                    h.set_port(port, PX_SCTL, 0);
                }
                wait("the link", || h.port(port, PX_TFD) & 0x88 == 0 || h.port(port, PX_SSTS) == 0);
                h.start(port);
            }
            let known = [
                0x06u8, 0x20, 0x25, 0x29, 0x2f, 0x35, 0x39, 0x42, 0x47, 0x60, 0x61, 0xa0, 0xa0, 0xb0, 0xc4, 0xc6, 0xc8,
                0xca, 0xe0, 0xe4, 0xe8, 0xea, 0xec, 0xef, 0xa1, 0x91,
            ];
            let code = if port == 2 && r.below(4) != 0 {
                0xa0
            } else if r.below(8) == 0 {
                r.next() as u8
            } else {
                known[r.below(known.len() as u64) as usize]
            };
            let mut c = Cmd::ata(code, r.below(2000), r.below(200) as u16);
            if r.below(8) == 0 {
                c.count = r.next() as u16;
            }
            if r.below(8) == 0 {
                c.lba = r.next();
            }
            c.features = if r.below(2) == 0 { r.below(64) as u16 } else { r.next() as u16 };
            c.device = if r.below(4) == 0 { r.next() as u8 } else { 0x40 };
            if port == 2 || r.below(8) == 0 {
                let mut packet = r.bytes(16);
                let codes =
                    [0u8, 3, 0x12, 0x1b, 0x25, 0x28, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x55, 0x5a, 0xa8, 0xad, 0xbe];
                packet[0] = codes[r.below(codes.len() as u64) as usize];
                if r.below(2) == 0 {
                    packet[2..6].fill(0);
                    packet[6] = 0;
                }
                c.packet = Some(packet);
            }
            for _ in 0..r.below(6) {
                let len = if r.below(8) == 0 { 1 << 22 } else { 1 + r.below(70000) as u32 };
                let at = if r.below(8) == 0 { address(&mut r) } else { RAM + (16 << 20) + r.below(8 << 20) };
                c = c.data(at, len);
            }
            h.fill(port, slot, &c);
            if r.below(10) == 0 {
                // Something in the header or the frame is different.
                let place =
                    if r.below(2) == 0 { AhciHost::list(port) + slot * 32 } else { AhciHost::table(port, slot) };
                h.m.put32(place + r.below(4) * 4, value(&mut r));
            }
            if matches!(code, 0x60 | 0x61) {
                h.set_port(port, PX_SACT, 1 << slot);
            }
            h.set_port(port, PX_CI, 1 << slot);
            match r.below(40) {
                0 => h.write(4, 1),
                1 => {
                    h.set_port(port, PX_SCTL, 1);
                    h.set_port(port, PX_SCTL, 0);
                }
                2 => h.set_port(port, PX_CMD, 6),
                3 => disks[port as usize].bad.store(r.below(1 << 23), Ordering::SeqCst),
                _ => (),
            }
        }
        disks[0].bad.store(u64::MAX, Ordering::SeqCst);
        // Much of it was understood.
        let transfers: u64 = disks.iter().map(|d| d.arrived.load(Ordering::SeqCst)).sum();
        let inline: u64 = disks.iter().map(|d| d.quick.load(Ordering::SeqCst)).sum();

        assert!(transfers + inline > 100, "{transfers} + {inline}");
        let saved = h.ahci.save();
        h.ahci.load(&saved).unwrap();
        usable(&h);
    }
}

fn nvme(seed: u64) -> (NvmeHost, Arc<Faulty>) {
    let d = disk(seed);
    let options = NvmeOptions { serial: "F".to_owned(), queues: 4, ..NvmeOptions::default() };
    (NvmeHost::new(d.drive(), options), d)
}

fn nvme_usable(h: &NvmeHost) {
    h.nvme.reset();
    h.nvme.config_write(0x10, 4, BAR as u32);
    h.nvme.config_write(4, 2, 6);
    h.enable();
    h.create(1);
    h.run(1, h.transfer(2, 0, 8, DATA, 4096, 0)).unwrap();
}

#[test]
fn nvme_registers() {
    for seed in 1..6 {
        let (h, _disk) = nvme(seed);
        let mut r = Random(seed * 2003);
        let junk = r.bytes(1 << 16);
        for n in 0..32 {
            h.m.put(RAM + n * (1 << 16), &junk);
        }
        for _ in 0..3000 {
            let at = match r.below(4) {
                0 => r.below(0x40),
                1 => r.below(0x2000),
                _ => 0x1000 + r.below(0x40),
            } & !3;
            match r.below(6) {
                0 => {
                    h.read(at);
                }
                1 => {
                    // Enabled with whatever the registers say.
                    h.write(CC, 0);
                    h.write(0x24, value(&mut r) & 0x00ff_00ff);
                    h.write(0x28, address(&mut r) as u32);
                    h.write(0x30, address(&mut r) as u32);
                    h.write(CC, 4 << 20 | 6 << 16 | 1);
                }
                _ => h.write(at, if at >= 0x1000 { r.below(300) as u32 } else { value(&mut r) }),
            }
        }
        let saved = h.nvme.save();
        h.nvme.load(&saved).unwrap();
        nvme_usable(&h);
    }
}

#[test]
fn nvme_commands() {
    for seed in 1..5 {
        let (h, d) = nvme(seed);
        let mut r = Random(seed * 90001);
        let setup = |h: &NvmeHost| {
            h.enable();
            for id in 1..4 {
                h.create(id);
            }
        };
        h.disable();
        setup(&h);
        for round in 0..3000 {
            if round % 64 == 63 {
                h.disable();
                setup(&h);
            }
            let q = r.below(4);
            let mut list = vec![];
            for _ in 0..1 + r.below(8) {
                let mut c = if r.below(2) == 0 {
                    let len = 1 + r.below(300) as u32;
                    h.transfer(
                        [1, 2, 5, 8][r.below(4) as usize],
                        r.below(2200),
                        len,
                        address(&mut r) & 0x1fff_fffc,
                        512,
                        0,
                    )
                } else {
                    std::array::from_fn(|_| value(&mut r))
                };
                if r.below(2) == 0 {
                    let codes = if q == 0 { [0, 1, 2, 4, 5, 6, 8, 9, 10, 12] } else { [0, 1, 2, 5, 8, 9, 9, 2, 1, 0] };
                    c[0] = c[0] & !0xc3ff | codes[r.below(10) as usize];
                    c[1] = 1;
                }
                if r.below(3) == 0 {
                    let (a, b) = (address(&mut r), address(&mut r) & !0xfff);
                    (c[6], c[7], c[8], c[9]) = (a as u32 & !3, (a >> 32) as u32, b as u32, (b >> 32) as u32);
                }
                if r.below(6) == 0 {
                    let n = r.below(16) as usize;
                    c[n] = value(&mut r);
                }
                list.push(c);
            }
            let queue = &mut *h.queues[q as usize].lock().unwrap();
            h.submit(queue, &list);
            for _ in 0..8 {
                // Completions, if the queue still is what it was.
                if h.m.get32(cq_at(q) + u64::from(queue.head) * 16 + 12) >> 16 & 1 == queue.phase {
                    queue.head = (queue.head + 1) % driver::nvme::ENTRIES;
                    queue.phase ^= u32::from(queue.head == 0);
                    h.write(0x1004 + q * 8, queue.head);
                }
            }
            match r.below(60) {
                0 => h.write(0x1000 + r.below(16) * 4, r.below(80) as u32),
                1 => d.bad.store(r.below(1 << 21), Ordering::SeqCst),
                2 => {
                    let page = r.bytes(4096);
                    h.m.put(sq_at(r.below(4)), &page);
                }
                _ => (),
            }
        }
        d.bad.store(u64::MAX, Ordering::SeqCst);
        let (transfers, inline) = (d.arrived.load(Ordering::SeqCst), d.quick.load(Ordering::SeqCst));
        assert!(transfers + inline > 500, "{transfers} + {inline}");
        let saved = h.nvme.save();
        h.nvme.load(&saved).unwrap();
        nvme_usable(&h);
    }
}
