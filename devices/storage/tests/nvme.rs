//! The NVMe controller, driven as an operating system does.

mod driver;

use driver::nvme::*;
use driver::{Faulty, Random, wait};
use rhea_block::{CacheMode, Drive, MemoryBackend};
use rhea_device::Device;
use rhea_pci::PciFunction;
use rhea_storage::NvmeOptions;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BLOCKS: u64 = 8192;

fn options() -> NvmeOptions {
    NvmeOptions { serial: "SER".to_owned(), ..NvmeOptions::default() }
}

fn host() -> (Host, Arc<Faulty>, Vec<u8>) {
    let data = Random(3).bytes(BLOCKS as usize * 512);
    let disk = Faulty::new(data.clone());
    (Host::new(disk.drive(), options()), disk, data)
}

#[test]
fn identification() {
    let (h, ..) = host();
    assert_eq!(h.nvme.config_read(0, 4), 0x0010_1b36);
    assert_eq!(h.nvme.config_read(8, 4) >> 8, 0x01_0802);
    assert_eq!((h.read(8), h.read(4) & 0xf, h.read(0) & 0xffff), (0x10400, 0, 2047));
    h.admin(6, &[(10, 1)]).unwrap();
    let c = h.m.get(DATA, 4096);
    assert_eq!((&c[4..8], c[77], c[512], c[513], c[516]), (&b"SER "[..], 7, 0x66, 0x44, 1));
    assert_eq!(&c[768..790], b"nqn.2014.08.org.nvmexp");
    h.admin(6, &[(1, 1), (10, 0)]).unwrap();
    let n = h.m.get(DATA, 4096);
    assert_eq!((u64::from_le_bytes(n[..8].try_into().unwrap()), n[130]), (BLOCKS, 9));
    h.admin(6, &[(1, 0), (10, 2)]).unwrap();
    assert_eq!(h.m.get(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    h.admin(6, &[(1, 1), (10, 3)]).unwrap();
    assert_eq!(h.m.get(DATA, 4), [3, 16, 0, 0]);
    assert_eq!(h.admin(6, &[(1, 2), (10, 0)]), Err(0x0b));
    assert_eq!(h.admin(6, &[(10, 0x55)]), Err(2));
    assert_eq!(h.admin(0x55, &[]), Err(1));
    // SGLs are not there; a page offset that is not of a word.
    assert_eq!(h.admin(6 | 1 << 14, &[(10, 1)]), Err(2));
    assert_eq!(h.admin(6, &[(10, 1), (6, DATA as u32 + 2)]), Err(0x13));
    assert_eq!(h.admin(6, &[(10, 1), (6, 0x8000_0000), (7, 1)]), Err(4));
}

#[test]
fn features_and_logs() {
    let (h, ..) = host();
    assert_eq!(h.admin(9, &[(10, 7), (11, 3 << 16 | 5)]), Ok(3 << 16 | 5));
    assert_eq!(h.admin(10, &[(10, 7)]), Ok(3 << 16 | 5));
    h.create(1);
    assert_eq!(h.admin(9, &[(10, 7), (11, 0)]), Err(0x0c));
    assert_eq!(h.admin(9, &[(10, 7 | 1 << 31), (11, 0)]), Err(0x10d));
    assert_eq!(h.admin(10, &[(10, 6)]), Ok(1));
    assert_eq!(h.admin(9, &[(10, 6), (11, 0)]), Ok(0));
    assert_eq!(h.admin(10, &[(10, 6)]), Ok(0));
    assert_eq!(h.admin(9, &[(10, 4), (11, 0x140)]), Ok(0));
    assert_eq!(h.admin(10, &[(10, 4)]), Ok(0x140));
    assert_eq!(h.admin(9, &[(10, 0x0b), (11, 0x1f)]), Ok(0));
    assert_eq!(h.admin(9, &[(10, 0x99), (11, 0)]), Err(2));
    h.admin(2, &[(1, !0), (10, 127 << 16 | 2)]).unwrap();
    assert_eq!(h.m.get(DATA + 1, 4), [0x2c, 1, 100, 10]);
    h.admin(2, &[(10, 127 << 16 | 3)]).unwrap();
    assert_eq!(h.admin(2, &[(10, 127 << 16 | 0x77)]), Err(0x109));
    assert_eq!(h.admin(2, &[(10, 15 << 16 | 2), (12, 512)]), Err(2));
    assert_eq!(h.admin(8, &[(10, 1)]), Ok(1));
    // Queues: in use, of no size, without a completion queue; in the wrong order.
    assert_eq!(h.admin(5, &[(10, 15 << 16 | 1), (11, 3)]), Err(0x101));
    assert_eq!(h.admin(5, &[(10, 15 << 16 | 9), (11, 3)]), Err(0x101));
    assert_eq!(h.admin(5, &[(10, 2), (11, 3)]), Err(0x102));
    assert_eq!(h.admin(5, &[(10, 15 << 16 | 2), (11, 3 | 500 << 16)]), Err(0x108));
    assert_eq!(h.admin(5, &[(10, 15 << 16 | 2), (11, 2)]), Err(2));
    assert_eq!(h.admin(1, &[(10, 15 << 16 | 2), (11, 2 << 16 | 1)]), Err(0x100));
    assert_eq!(h.admin(4, &[(10, 1)]), Err(0x10c));
    assert_eq!(h.admin(0, &[(10, 1)]), Ok(0));
    assert_eq!(h.admin(4, &[(10, 1)]), Ok(0));
    assert_eq!(h.admin(0, &[(10, 1)]), Err(0x101));
}

#[test]
fn events() {
    let (h, ..) = host();
    let q = &mut *h.queues[0].lock().unwrap();
    let mut c = [0; 16];
    let requests: Vec<_> = (0..5)
        .map(|n| {
            c[0] = 0x0c | n << 16;
            c
        })
        .collect();
    h.submit(q, &requests);
    // One too many.
    assert_eq!(h.poll(q), Some(Done { cid: 4, status: 0x105, result: 0 }));
    assert_eq!(h.poll(q), None);
    h.write(0x1000 + 8 * 5, 0);
    let done = h.poll(q).unwrap();
    assert_eq!((done.status, done.result), (0, 0x1_0000));
    // Masked until the log is read.
    h.write(0x1004, 999);
    assert_eq!(h.poll(q), None);
    c[0] = 2 | 9 << 16;
    (c[6], c[10]) = (DATA as u32, 15 << 16 | 1);
    h.submit(q, &[c]);
    assert_eq!(h.poll(q).map(|d| (d.cid, d.status)), Some((9, 0)));
    h.write(0x1004, 999);
    assert_eq!(h.poll(q).map(|d| d.result), Some(0x1_0100));
}

#[test]
fn transfers() {
    let (h, disk, mut model) = host();
    h.create(1);
    let mut r = Random(11);
    for round in 0..120 {
        disk.slow_reads.store(round % 3 == 0, Ordering::SeqCst);
        let blocks = 1 + r.below(1000);
        let first = r.below(BLOCKS - blocks);
        let (len, at) = (blocks * 512, DATA + r.below(2000) * 4);
        let range = first as usize * 512..(first + blocks) as usize * 512;
        if round % 2 == 0 {
            let data = r.bytes(len as usize);
            h.m.put(at, &data);
            model[range.clone()].copy_from_slice(&data);
            let mut c = h.transfer(1, first, blocks as u32, at, len, 0);
            c[12] |= (r.next() as u32 & 1) << 30;
            h.run(1, c).unwrap();
        }
        h.m.put(at, &vec![0xee; len as usize]);
        h.run(1, h.transfer(2, first, blocks as u32, at, len, 0)).unwrap();
        assert!(h.m.get(at, len as usize) == model[range.clone()]);
        // Compare: equal, and then not.
        h.run(1, h.transfer(5, first, blocks as u32, at, len, 0)).unwrap();
        h.m.put(at + len - 1, &[!model[range.end - 1]]);
        assert_eq!(h.run(1, h.transfer(5, first, blocks as u32, at, len, 0)), Err(0x285));
    }
    assert!(disk.memory.content() == model);
    // A list that goes on in a second page.
    let list = driver::RAM + 0x60_0ff0;
    let mut c = h.transfer(2, 0, 32, DATA, 16384, 0);
    h.m.put(list, &(DATA + 0x1000).to_le_bytes());
    h.m.put(list + 8, &(driver::RAM + 0x70_0000).to_le_bytes());
    h.m.put(driver::RAM + 0x70_0000, &(DATA + 0x2000).to_le_bytes());
    h.m.put(driver::RAM + 0x70_0008, &(DATA + 0x3000).to_le_bytes());
    c[8] = list as u32;
    h.run(1, c).unwrap();
    assert!(h.m.get(DATA, 16384) == model[..16384]);
}

#[test]
fn other_commands_and_errors() {
    let (h, disk, _) = host();
    h.create(1);
    let mut flush = [0; 16];
    (flush[0], flush[1]) = (0, 1);
    h.run(1, flush).unwrap();
    flush[1] = !0;
    h.run(1, flush).unwrap();
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
    // Write zeroes.
    h.run(1, h.transfer(8, 100, 50, 0, 0, 0)).unwrap();
    assert!(disk.memory.content()[51200..76800].iter().all(|b| *b == 0));
    // Deallocate two ranges.
    let mut ranges = vec![0; 32];
    for (n, (first, count)) in [(200u64, 3u32), (300, 1)].into_iter().enumerate() {
        ranges[n * 16 + 4..n * 16 + 8].copy_from_slice(&count.to_le_bytes());
        ranges[n * 16 + 8..n * 16 + 16].copy_from_slice(&first.to_le_bytes());
    }
    h.m.put(DATA, &ranges);
    let mut c = [0; 16];
    (c[0], c[1], c[6], c[10], c[11]) = (9, 1, DATA as u32, 1, 4);
    h.run(1, c).unwrap();
    let now = disk.memory.content();
    assert!(now[102_400..103_936].iter().all(|b| *b == 0) && now[153_600..154_112].iter().all(|b| *b == 0));
    // Namespace, range, size, medium, opcode.
    let mut c = h.transfer(2, 0, 1, DATA, 512, 0);
    c[1] = 2;
    assert_eq!(h.run(1, c), Err(0x0b));
    assert_eq!(h.run(1, h.transfer(2, BLOCKS - 1, 2, DATA, 1024, 0)), Err(0x80));
    assert_eq!(h.run(1, h.transfer(2, u64::MAX, 2, DATA, 1024, 0)), Err(0x80));
    assert_eq!(h.run(1, h.transfer(2, 0, 1025, DATA, 1025 * 512, 0)), Err(2));
    assert_eq!(h.run(1, h.transfer(0x7f, 0, 1, DATA, 512, 0)), Err(1));
    assert_eq!(h.run(1, h.transfer(2, 0, 1, 0xf000_0000, 512, 0)), Err(4));
    let mut c = h.transfer(2, 0, 16, DATA, 8192, 0);
    c[8] += 8;
    assert_eq!(h.run(1, c), Err(0x13));
    disk.bad.store(512 * 7, Ordering::SeqCst);
    disk.slow_reads.store(true, Ordering::SeqCst);
    assert_eq!(h.run(1, h.transfer(2, 0, 8, DATA, 4096, 0)), Err(0x281));
    assert_eq!(h.run(1, h.transfer(1, 0, 8, DATA, 4096, 0)), Err(0x280));
    // Without the write cache each write is flushed.
    disk.bad.store(u64::MAX, Ordering::SeqCst);
    h.admin(9, &[(10, 6), (11, 0)]).unwrap();
    h.run(1, h.transfer(1, 0, 8, DATA, 4096, 0)).unwrap();
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 3);
    // A read-only disk.
    let readonly = Drive::new("r", Arc::new(MemoryBackend::new(vec![0; 1 << 20], true)), CacheMode::Writeback);
    let h = Host::new(readonly, NvmeOptions { logical_block_size: 4096, ..options() });
    h.create(1);
    assert_eq!(h.run(1, h.transfer(1, 0, 1, DATA, 4096, 0)), Err(0x182));
    h.run(1, h.transfer(2, 255, 1, DATA, 4096, 0)).unwrap();
    assert_eq!(h.run(1, h.transfer(2, 256, 1, DATA, 4096, 0)), Err(0x80));
}

/// Four queues, each with its thread.
#[test]
fn queues() {
    let (h, disk, model) = host();
    h.use_msix();
    for id in 1..5 {
        h.create(id);
    }
    let before = h.m.sent();
    let (h, disk, model) = (&h, &disk, &model);
    std::thread::scope(|scope| {
        for id in 1..5u64 {
            scope.spawn(move || {
                let mut r = Random(id * 77);
                let q = &mut *h.queues[id as usize].lock().unwrap();
                let base = id * 1500;
                let mut mine = model[base as usize * 512..(base as usize + 1024) * 512].to_vec();
                for round in 0..40 {
                    disk.slow_reads.store(round % 2 == 0, Ordering::SeqCst);
                    let mut list = vec![];
                    let mut reads = vec![];
                    for n in 0..15u64 {
                        let (first, blocks) = (n * 64 + r.below(32), 1 + r.below(32));
                        let at = DATA + id * 0x20_0000 + n * 0x8000;
                        let write = r.below(2) == 0;
                        let range = first as usize * 512..(first + blocks) as usize * 512;
                        if write {
                            let data = r.bytes(range.len());
                            h.m.put(at, &data);
                            mine[range].copy_from_slice(&data);
                        } else {
                            reads.push((at, range));
                        }
                        let opcode = if write { 1 } else { 2 };
                        let mut c = h.transfer(opcode, base + first, blocks as u32, at, blocks * 512, id * 16 + n);
                        c[0] |= (n as u32) << 16;
                        list.push(c);
                    }
                    h.submit(q, &list);
                    let mut seen = 0u32;
                    for _ in 0..15 {
                        let mut done = None;
                        wait("completion", || {
                            done = h.poll(q);
                            done.is_some()
                        });
                        let done = done.unwrap();
                        assert_eq!(done.status, 0);
                        seen |= 1 << done.cid;
                    }
                    assert_eq!(seen, 0x7fff);
                    for (at, range) in reads {
                        assert!(h.m.get(at, range.len()) == mine[range]);
                    }
                }
                let content = disk.memory.content();
                assert!(content[base as usize * 512..(base as usize + 1024) * 512] == mine[..]);
            });
        }
    });
    assert!(h.m.sent() > before);
    let vectors = h.m.messages.1.lock().unwrap().clone();
    assert!((0..5).all(|v| vectors.contains(&v)) && !vectors.contains(&5));
}

#[test]
fn line() {
    let (h, ..) = host();
    h.create(1);
    assert!(!h.m.any_line());
    let q = &mut *h.queues[1].lock().unwrap();
    let c = h.transfer(2, 0, 8, DATA, 4096, 0);
    h.submit(q, &[c, c]);
    wait("the line", || h.m.any_line());
    h.write(0x0c, 1);
    assert!(!h.m.any_line());
    h.write(0x10, 1);
    assert!(h.m.any_line());
    for _ in 0..2 {
        wait("completion", || h.poll(q).is_some());
    }
    wait("the line", || !h.m.any_line());
}

/// The completion queue is full: completions wait, and nothing is lost.
#[test]
fn full_completion_queue() {
    let (h, ..) = host();
    h.admin(5, &[(6, cq_at(1) as u32), (10, 1 << 16 | 1), (11, 1)]).unwrap();
    h.admin(1, &[(6, sq_at(1) as u32), (10, 15 << 16 | 1), (11, 1 << 16 | 1)]).unwrap();
    let q = &mut *h.queues[1].lock().unwrap();
    let c: Vec<_> = (0..10u32)
        .map(|n| {
            let mut c = h.transfer(2, 0, 8, DATA, 4096, 0);
            c[0] |= n << 16;
            c
        })
        .collect();
    h.submit(q, &c);
    let (mut seen, mut head, mut phase) = (0, 0, 1);
    for _ in 0..10 {
        let at = cq_at(1) + head * 16 + 12;
        wait("completion", || h.m.get32(at) >> 16 & 1 == phase);
        seen |= 1 << (h.m.get32(at) & 0xffff);
        head = (head + 1) % 2;
        phase ^= u32::from(head == 0);
        h.write(0x1004 + 8, head as u32);
    }
    assert_eq!(seen, 0x3ff);
}

#[test]
fn resets() {
    let (h, disk, model) = host();
    for kind in 0..3 {
        h.create(1);
        disk.hold(true);
        let before = disk.arrived.load(Ordering::SeqCst);
        {
            let q = &mut *h.queues[1].lock().unwrap();
            let c: Vec<_> = (0..8).map(|n| h.transfer(2, n * 8, 8, DATA + n * 4096, 4096, 0)).collect();
            h.submit(q, &c);
        }
        wait("requests", || disk.arrived.load(Ordering::SeqCst) > before);
        match kind {
            0 => {
                h.write(CC, 0);
                // Ready until memory is free.
                assert_eq!(h.read(CSTS) & 1, 1);
                disk.hold(false);
                wait("the reset", || h.read(CSTS) & 1 == 0);
            }
            1 => {
                // Deletion waits for what is under way.
                let q = &mut *h.queues[0].lock().unwrap();
                let mut c = [0; 16];
                (c[0], c[10]) = (5 << 16, 1);
                h.submit(q, &[c]);
                assert_eq!(h.poll(q), None);
                disk.hold(false);
                wait("deletion", || h.poll(q).is_some_and(|d| d.cid == 5 && d.status == 0));
                h.write(CC, 0);
                wait("the reset", || h.read(CSTS) & 1 == 0);
            }
            _ => {
                // Shutdown flushes.
                disk.hold(false);
                let flushes = disk.flushes.load(Ordering::SeqCst);
                h.write(CC, 4 << 20 | 6 << 16 | 1 << 14 | 1);
                wait("shutdown", || h.read(CSTS) & 0xc == 8);
                assert_eq!(disk.flushes.load(Ordering::SeqCst), flushes + 1);
                h.disable();
                assert_eq!(h.read(CSTS), 0);
            }
        }
        h.enable();
        h.create(1);
        h.run(1, h.transfer(2, 8, 8, DATA, 4096, 0)).unwrap();
        assert!(h.m.get(DATA, 4096) == model[4096..8192]);
        h.disable();
        h.enable();
    }
    // Queues outside memory.
    h.disable();
    h.write(0x28, 0xd000_0000);
    h.write(CC, 4 << 20 | 6 << 16 | 1);
    h.write(0x1000, 1);
    assert_eq!(h.read(CSTS) & 2, 2);
    h.disable();
    h.enable();
    // An impossible page size.
    h.disable();
    h.write(CC, 4 << 20 | 6 << 16 | 15 << 7 | 1);
    assert_eq!(h.read(CSTS), 2);
    h.nvme.reset();
    h.nvme.config_write(0x10, 4, driver::BAR as u32);
    h.nvme.config_write(4, 2, 6);
    h.enable();
}

#[test]
fn paused_and_saved() {
    let (h, disk, model) = host();
    h.create(1);
    h.admin(9, &[(10, 4), (11, 0x150)]).unwrap();
    h.run(1, h.transfer(2, 0, 8, DATA, 4096, 0)).unwrap();
    h.nvme.quiesce();
    let (tail, head) = {
        let q = &mut *h.queues[1].lock().unwrap();
        h.submit(q, &[h.transfer(2, 16, 8, DATA, 4096, 0)]);
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert_eq!(h.poll(q), None);
        (q.tail, q.head)
    };
    let saved = h.nvme.save();
    let copy = Drive::new("c", Arc::new(MemoryBackend::new(disk.memory.content(), false)), CacheMode::Writeback);
    let other = Host::new(copy, options());
    let memory = h.m.get(driver::RAM, driver::RAM_SIZE as usize);
    other.m.put(driver::RAM, &memory);
    other.nvme.load(&saved).unwrap();
    for n in 0..2 {
        let (a, b) = (&mut *other.queues[n].lock().unwrap(), &*h.queues[n].lock().unwrap());
        (a.tail, a.head, a.phase) = (b.tail, b.head, b.phase);
    }
    {
        let q = &mut *other.queues[1].lock().unwrap();
        assert_eq!((q.tail, q.head), (tail, head));
        wait("completion", || other.poll(q).is_some_and(|d| d.status == 0));
    }
    assert!(other.m.get(DATA, 4096) == model[16 * 512..24 * 512]);
    assert_eq!(other.admin(10, &[(10, 4)]), Ok(0x150));
    h.nvme.resume();
    {
        let q = &mut *h.queues[1].lock().unwrap();
        wait("completion", || h.poll(q).is_some());
    }
    // A controller with fewer queues does not take the state.
    let few = Host::new(disk.drive(), NvmeOptions { queues: 1, vectors: Some(65), ..options() });
    h.create(2);
    assert!(few.nvme.load(&h.nvme.save()).is_err());
}
