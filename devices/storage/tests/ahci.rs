//! The AHCI controller with disks, driven as an operating system does.

mod driver;

use driver::ahci::*;
use driver::{DEVFN, Faulty, Random, find_capability, wait};
use rhea_block::{BlockBackend, CacheMode, Drive, MemoryBackend};
use rhea_device::Device;
use rhea_memory::{Access, Gpa};
use rhea_pci::PciFunction;
use rhea_storage::{AttachError, CdOptions, DiskOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SECTORS: u64 = 8192;

fn content() -> Vec<u8> {
    Random(7).bytes(SECTORS as usize * 512)
}

fn host() -> (Host, Arc<Faulty>, Vec<u8>) {
    let data = content();
    let disk = Faulty::new(data.clone());
    let h = Host::new(|a| {
        a.attach_disk(0, disk.drive(), DiskOptions::default()).unwrap();
        assert_eq!(a.attach_cd(0, None, CdOptions::default()).err(), Some(AttachError::InUse(0)));
        assert_eq!(a.attach_cd(6, None, CdOptions::default()).err(), Some(AttachError::NoPort(6)));
        assert_eq!(a.free_port(), Some(1));
    });
    h.start(0);
    (h, disk, data)
}

#[test]
fn controller() {
    let (h, ..) = host();
    assert_eq!(h.ahci.config_read(0, 4), 0x2922_8086);
    assert_eq!(h.ahci.config_read(8, 4) >> 8, 0x01_0601);
    assert_eq!(h.read(CAP) & 0x1f, 5);
    assert_eq!(h.read(CAP) >> 8 & 0x1f, 31);
    assert_eq!(h.read(0x0c), 0x3f);
    assert_eq!(h.port(0, PX_SSTS), 0x123);
    assert_eq!(h.port(0, PX_SIG), 0x101);
    assert_eq!(h.port(0, PX_TFD), 0x150);
    assert_eq!((h.port(1, PX_SSTS), h.port(1, PX_TFD), h.port(1, PX_SIG)), (0, 0x7f, !0));
    // The first registers were received when the area was set.
    assert_eq!(h.m.get(Host::fis(0) + 0x40, 4), [0x34, 0, 0x50, 1]);
    // The index-data pair that the capability tells of.
    let cap = find_capability(&*h.ahci, 0x12);
    assert_eq!(h.ahci.config_read(cap + 4, 4), 0x48);
    let io = h.m.bus.io();
    io.store(Gpa(0xc010), 0x128, Access::cpu(0, 4)).unwrap();
    assert_eq!(io.load(Gpa(0xc014), Access::cpu(0, 4)).unwrap(), 0x123);
    assert_eq!(h.ahci.config().devfn(), DEVFN);
    // Handoff: nobody in the firmware holds the controller.
    h.write(0x28, 2);
    assert_eq!(h.read(0x28), 2);
}

#[test]
fn identify() {
    let (h, ..) = host();
    h.run(0, &Cmd::ata(0xec, 0, 0).data(DATA, 512)).unwrap();
    let b = h.m.get(DATA, 512);
    assert_eq!(b.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    let word = |n: usize| u16::from_le_bytes([b[n * 2], b[n * 2 + 1]]);
    assert_eq!(word(60), SECTORS as u16);
    assert_eq!(word(100), SECTORS as u16);
    assert_eq!(word(75), 31);
    assert_eq!(&b[54..67], b"HRAEH RADDSI ");
    assert_eq!(&b[20..28], b"HR0000 1");
    assert_eq!(h.moved(0, 3), 512);
    // PIO data to the host ends with the PIO Setup frame.
    let f = h.m.get(Host::fis(0) + 0x20, 20);
    assert_eq!((f[0], f[1], f[2], f[15], f[16], f[17]), (0x5f, 0x60, 0x58, 0x50, 0, 2));
}

/// Reads and writes in all protocols.
#[test]
fn transfers() {
    let (h, disk, mut model) = host();
    let mut r = Random(99);
    // Command, 48-bit, write.
    let commands: [(u8, bool, bool); 14] = [
        (0x20, false, false),
        (0x24, true, false),
        (0x29, true, false),
        (0xc4, false, false),
        (0xc8, false, false),
        (0x25, true, false),
        (0x60, true, false),
        (0x30, false, true),
        (0x34, true, true),
        (0x39, true, true),
        (0xca, false, true),
        (0x35, true, true),
        (0x3d, true, true),
        (0x61, true, true),
    ];
    for round in 0..140 {
        disk.slow_reads.store(round % 2 == 0, Ordering::SeqCst);
        let (code, wide, write) = commands[round % commands.len()];
        let sectors = 1 + r.below(if wide { 300 } else { 256 });
        let lba = r.below(SECTORS - sectors);
        let len = sectors as usize * 512;
        let mut c = match code {
            0x60 | 0x61 => Cmd::queued(write, 3, lba, sectors as u16),
            _ => Cmd::ata(code, lba, sectors as u16 & if wide { 0xffff } else { 0xff }),
        };
        c.write = write;
        // Pieces at odd places, in even lengths.
        let (mut at, mut done, mut pieces) = (DATA + r.below(64) * 2, 0, vec![]);
        while done < len {
            let n = (2 + r.below(9000) as usize * 2).min(len - done);
            c = c.data(at, n as u32);
            pieces.push((at, n));
            at += n as u64 + r.below(32) * 2;
            done += n;
        }
        let range = lba as usize * 512..lba as usize * 512 + len;
        let data = r.bytes(len);
        let mut from = 0;
        for (at, n) in &pieces {
            h.m.put(*at, &data[from..from + n]);
            from += n;
        }
        if matches!(code, 0x60 | 0x61) {
            h.set_port(0, PX_SACT, 8);
        }
        h.run(0, &c).unwrap_or_else(|e| panic!("command {code:#x}: {e:x?}"));
        if matches!(code, 0x60 | 0x61) {
            wait("the tag", || h.port(0, PX_SACT) == 0);
            assert_eq!(h.m.get(Host::fis(0) + 0x58, 8)[..2], [0xa1, 0x40]);
        } else {
            assert_eq!(h.moved(0, 3) as usize, len);
        }
        if write {
            model[range.clone()].copy_from_slice(&data);
        } else {
            let got: Vec<u8> = pieces.iter().flat_map(|(at, n)| h.m.get(*at, *n)).collect();
            assert!(got == model[range.clone()], "command {code:#x}");
        }
        assert!(disk.memory.content()[range.clone()] == model[range], "command {code:#x}");
    }
    assert!(disk.memory.content() == model);
}

#[test]
fn chs() {
    let (h, _, model) = host();
    // Cylinder 2, head 5, sector 7 of 16 heads and 63 sectors.
    let lba = (2 * 16 + 5) * 63 + 6;
    let mut c = Cmd::ata(0x20, 2 << 8 | 7, 1).data(DATA, 512);
    c.device = 0xa5;
    h.run(0, &c).unwrap();
    assert!(h.m.get(DATA, 512) == model[lba * 512..lba * 512 + 512]);
    c.lba = 2 << 8;
    assert_eq!(h.run(0, &c), Err(Failed { status: 0x51, error: 0x10 }));
}

/// All slots at once, many times.
#[test]
fn queue() {
    let (h, disk, mut model) = host();
    let mut r = Random(5);
    for round in 0..20 {
        disk.slow_reads.store(round % 3 != 0, Ordering::SeqCst);
        let mut tags = 0u32;
        let mut reads = vec![];
        for slot in 0..32u64 {
            // Regions that do not overlap.
            let sectors = 1 + r.below(128);
            let lba = slot * 256 + r.below(128);
            let at = DATA + slot * 0x2_0000;
            let write = r.below(2) == 0;
            let (from, len) = (lba as usize * 512, sectors as usize * 512);
            if write {
                let data = r.bytes(len);
                h.m.put(at, &data);
                model[from..from + len].copy_from_slice(&data);
            } else {
                reads.push((at, from, len));
            }
            h.fill(0, slot, &Cmd::queued(write, slot as u8, lba, sectors as u16).data(at, len as u32));
            tags |= 1 << slot;
            // Some are issued one by one, some together.
            if r.below(2) == 0 {
                h.set_port(0, PX_SACT, tags);
                h.set_port(0, PX_CI, tags);
                tags = 0;
            }
        }
        h.set_port(0, PX_SACT, tags);
        h.set_port(0, PX_CI, tags);
        wait("the queue", || h.port(0, PX_SACT) == 0 && h.port(0, PX_CI) == 0);
        assert_eq!(h.port(0, PX_IS) & 0x7800_0000, 0);
        for (at, from, len) in reads {
            assert!(h.m.get(at, len) == model[from..from + len]);
        }
    }
    assert!(disk.memory.content() == model);
}

#[test]
fn interrupts() {
    let (h, disk, _) = host();
    disk.slow_reads.store(true, Ordering::SeqCst);
    assert!(!h.m.any_line());
    h.fill(0, 0, &Cmd::ata(0x25, 0, 8).data(DATA, 4096));
    h.set_port(0, PX_CI, 1);
    wait("the line", || h.m.any_line());
    assert_eq!(h.read(IS), 1);
    assert_eq!(h.port(0, PX_IS), 1);
    // The controller's bit stays until the port's cause is gone.
    h.write(IS, 1);
    assert!(h.m.any_line());
    h.set_port(0, PX_IS, 1);
    assert!(h.m.any_line());
    h.write(IS, 1);
    assert!(!h.m.any_line());
    // MSI.
    let cap = find_capability(&*h.ahci, 5);
    h.ahci.config_write(cap + 4, 4, 0xfee0_0000);
    h.ahci.config_write(cap + 12, 2, 0x41);
    h.ahci.config_write(cap + 2, 2, 1);
    h.set_port(0, PX_CI, 1);
    wait("a message", || h.m.sent() == 1);
    assert!(!h.m.any_line());
    // Cleared in the other order there is another message.
    h.write(IS, 1);
    assert_eq!(h.m.sent(), 2);
    h.set_port(0, PX_IS, !0);
    h.write(IS, 1);
    assert_eq!(h.m.sent(), 2);
    // Off.
    h.write(GHC, 1 << 31);
    h.set_port(0, PX_CI, 1);
    wait("the end", || h.port(0, PX_CI) == 0);
    assert_eq!(h.m.sent(), 2);
    h.write(GHC, 1 << 31 | 2);
    assert_eq!(h.m.sent(), 3);
}

#[test]
fn errors() {
    let (h, disk, model) = host();
    // Out of range; unknown; bad medium.
    assert_eq!(h.run(0, &Cmd::ata(0x25, SECTORS - 1, 2).data(DATA, 1024)), Err(Failed { status: 0x51, error: 0x10 }));
    assert_eq!(h.run(0, &Cmd::ata(0xf6, 0, 0)), Err(Failed { status: 0x51, error: 4 }));
    assert_eq!(h.run(0, &Cmd::ata(0x00, 0, 0)), Err(Failed { status: 0x51, error: 4 }));
    disk.bad.store(100 * 512, Ordering::SeqCst);
    assert_eq!(h.run(0, &Cmd::ata(0x25, 96, 8).data(DATA, 4096)), Err(Failed { status: 0x51, error: 0x40 }));
    assert_eq!(h.run(0, &Cmd::ata(0x42, 96, 8)), Err(Failed { status: 0x51, error: 0x40 }));
    assert_eq!(h.run(0, &Cmd::ata(0x35, 96, 8).data(DATA, 4096).writing()), Err(Failed { status: 0x51, error: 4 }));
    // The failed slot is what PxCMD.CCS says, and stays.
    h.fill(0, 9, &Cmd::ata(0x25, 96, 8).data(DATA, 4096));
    h.set_port(0, PX_CI, 1 << 9);
    wait("an error", || h.port(0, PX_IS) & 1 << 30 != 0);
    assert_eq!(h.port(0, PX_CMD) >> 8 & 31, 9);
    assert_eq!(h.port(0, PX_CI), 1 << 9);
    h.stop(0);
    assert_eq!(h.port(0, PX_CI), 0);
    h.start(0);
    // In the queue: the log tells the tag, everything else is refused until it is read.
    h.fill(0, 4, &Cmd::queued(false, 4, 96, 8).data(DATA, 4096));
    h.set_port(0, PX_SACT, 1 << 4);
    h.set_port(0, PX_CI, 1 << 4);
    wait("an error", || h.port(0, PX_IS) & 1 << 30 != 0);
    assert_eq!((h.port(0, PX_SACT), h.port(0, PX_CI)), (1 << 4, 0));
    assert_eq!(h.port(0, PX_TFD), 0x4051);
    h.stop(0);
    h.start(0);
    let read = Cmd::ata(0x25, 0, 8).data(DATA, 4096);
    assert_eq!(h.run(0, &read), Err(Failed { status: 0x51, error: 4 }));
    h.run(0, &Cmd::ata(0x2f, 0x10, 1).data(DATA, 512)).unwrap();
    let log = h.m.get(DATA, 512);
    assert_eq!((log[0], log[2], log[3], log[4]), (4, 0x51, 0x40, 96));
    assert_eq!(log.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    h.run(0, &read).unwrap();
    assert!(h.m.get(DATA, 4096) == model[..4096]);
    // A table that is too short: what fits is there.
    h.fill(0, 1, &Cmd::ata(0x25, 0, 8).data(DATA, 1024));
    h.m.put(DATA, &[0xee; 2048]);
    h.set_port(0, PX_CI, 2);
    wait("the end", || h.port(0, PX_CI) == 0);
    assert_ne!(h.port(0, PX_IS) & 1 << 24, 0);
    assert!(h.m.get(DATA, 1024) == model[..1024] && h.m.get(DATA + 1024, 1024) == [0xee; 1024]);
    h.set_port(0, PX_IS, !0);
    // No memory there; and the controller's own registers are not memory.
    for bad in [0xffff_ffff_0000_0000, 0x8000_0000, driver::BAR, driver::RAM + driver::RAM_SIZE - 512] {
        h.fill(0, 1, &Cmd::ata(0x25, 0, 8).data(bad, 4096));
        h.set_port(0, PX_CI, 2);
        wait("an error", || h.port(0, PX_IS) & 1 << 29 != 0);
        h.stop(0);
        h.start(0);
    }
    h.run(0, &read).unwrap();
}

#[test]
fn commands() {
    let (h, disk, _) = host();
    // Flush, standby with its flush, power mode.
    h.run(0, &Cmd::ata(0xea, 0, 0)).unwrap();
    h.run(0, &Cmd::ata(0xe0, 0, 0)).unwrap();
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
    let count = |h: &Host| h.m.get(Host::fis(0) + 0x40 + 12, 1)[0];
    h.run(0, &Cmd::ata(0xe5, 0, 0)).unwrap();
    assert_eq!(count(&h), 0);
    h.run(0, &Cmd::ata(0x25, 0, 1).data(DATA, 512)).unwrap();
    h.run(0, &Cmd::ata(0xe5, 0, 0)).unwrap();
    assert_eq!(count(&h), 0xff);
    // Write cache off: each write is flushed.
    h.run(0, &Cmd::ata(0xef, 0, 0).features(0x82)).unwrap();
    h.run(0, &Cmd::ata(0x35, 0, 1).data(DATA, 512).writing()).unwrap();
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 4);
    h.run(0, &Cmd::ata(0xef, 0, 0).features(0x02)).unwrap();
    h.run(0, &Cmd::ata(0x35, 0, 1).data(DATA, 512).writing()).unwrap();
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 4);
    // Transfer modes.
    h.run(0, &Cmd::ata(0xef, 0, 0x45).features(3)).unwrap();
    assert!(h.run(0, &Cmd::ata(0xef, 0, 0x47).features(3)).is_err());
    // Multiple mode.
    assert!(h.run(0, &Cmd::ata(0xc6, 0, 3)).is_err());
    h.run(0, &Cmd::ata(0xc6, 0, 0)).unwrap();
    assert!(h.run(0, &Cmd::ata(0xc4, 0, 1).data(DATA, 512)).is_err());
    // TRIM of two ranges.
    let mut ranges = vec![0; 512];
    ranges[..8].copy_from_slice(&(10u64 | 5 << 48).to_le_bytes());
    ranges[8..16].copy_from_slice(&(100u64 | 1 << 48).to_le_bytes());
    h.m.put(DATA, &ranges);
    h.run(0, &Cmd::ata(0x06, 0, 1).features(1).data(DATA, 512).writing()).unwrap();
    let now = disk.memory.content();
    assert!(now[5120..5120 + 2560].iter().all(|b| *b == 0) && now[51200..51712].iter().all(|b| *b == 0));
    ranges[..8].copy_from_slice(&(SECTORS | 5 << 48).to_le_bytes());
    h.m.put(DATA, &ranges);
    assert_eq!(
        h.run(0, &Cmd::ata(0x06, 0, 1).features(1).data(DATA, 512).writing()),
        Err(Failed { status: 0x51, error: 0x10 })
    );
    // Buffer, native maximum, SMART.
    h.m.put(DATA, &[0x5a; 512]);
    h.run(0, &Cmd::ata(0xe8, 0, 0).data(DATA, 512).writing()).unwrap();
    h.run(0, &Cmd::ata(0xe4, 0, 0).data(DATA + 4096, 512)).unwrap();
    assert_eq!(h.m.get(DATA + 4096, 512), [0x5a; 512]);
    h.run(0, &Cmd::ata(0x27, 0, 0)).unwrap();
    assert_eq!(h.m.get(Host::fis(0) + 0x44, 3), [0xff, 0x1f, 0]);
    h.run(0, &Cmd::ata(0xb0, 0xc2_4f00, 0).features(0xda)).unwrap();
    h.run(0, &Cmd::ata(0xb0, 0xc2_4f00, 1).features(0xd0).data(DATA, 512)).unwrap();
    assert_eq!(h.m.get(DATA, 512).iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    assert!(h.run(0, &Cmd::ata(0xb0, 0, 0).features(0xda)).is_err());
}

fn soft_reset(h: &Host, n: u64) {
    for control in [4, 0] {
        h.fill(n, 0, &Cmd::default());
        h.m.put(Host::table(n, 0), &[0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, control]);
        h.set_port(n, PX_CI, 1);
        wait("the frame", || h.port(n, PX_CI) == 0);
    }
    wait("the device", || h.port(n, PX_TFD) & 0x80 == 0);
}

#[test]
fn resets() {
    let (h, disk, model) = host();
    soft_reset(&h, 0);
    assert_eq!((h.port(0, PX_SIG), h.port(0, PX_TFD)), (0x101, 0x150));
    let read = Cmd::ata(0x25, 0, 8).data(DATA, 4096);
    // With requests in flight: nothing is answered, and the memory is not touched afterwards.
    for kind in 0..4 {
        disk.hold(true);
        let before = disk.arrived.load(Ordering::SeqCst);
        for slot in 0..8 {
            h.fill(0, slot, &Cmd::queued(false, slot as u8, slot * 8, 8).data(DATA + slot * 4096, 4096));
        }
        h.set_port(0, PX_SACT, 0xff);
        h.set_port(0, PX_CI, 0xff);
        wait("requests", || disk.arrived.load(Ordering::SeqCst) > before);
        match kind {
            0 => {
                // Stop: PxCMD.CR tells when memory is free again.
                h.set_port(0, PX_CMD, 1 << 4 | 6);
                assert_ne!(h.port(0, PX_CMD) & 1 << 15, 0);
                assert_eq!((h.port(0, PX_SACT), h.port(0, PX_CI)), (0, 0));
                disk.hold(false);
                wait("the stop", || h.port(0, PX_CMD) & 1 << 15 == 0);
            }
            1 => {
                h.set_port(0, PX_CMD, 1 << 4 | 6);
                h.set_port(0, PX_SCTL, 1);
                assert_eq!(h.port(0, PX_SSTS), 0);
                h.set_port(0, PX_SCTL, 0);
                assert_ne!(h.port(0, PX_SSTS) & 15, 3);
                disk.hold(false);
                wait("the link", || h.port(0, PX_SSTS) == 0x123);
                assert_ne!(h.port(0, PX_SERR) & 1 << 26, 0);
                assert_ne!(h.port(0, PX_IS) & 1 << 6, 0);
                h.set_port(0, PX_SERR, !0);
                assert_eq!(h.port(0, PX_IS) & 1 << 6, 0);
            }
            2 => {
                h.write(GHC, 1);
                assert_eq!(h.read(GHC) & 1, 1);
                disk.hold(false);
                wait("the controller", || h.read(GHC) & 1 == 0);
                assert_eq!(h.port(0, PX_CMD) & 0xf, 6);
                h.write(GHC, 1 << 31 | 2);
            }
            _ => {
                disk.hold(false);
                h.ahci.reset();
                h.ahci.config_write(0x24, 4, driver::BAR as u32);
                h.ahci.config_write(4, 2, 7);
                assert_eq!((h.port(0, PX_CLB), h.port(0, PX_SIG), h.read(GHC)), (0, 0x101, 1 << 31));
                h.write(GHC, 1 << 31 | 2);
            }
        }
        h.m.put(DATA, &[0xee; 4096]);
        h.start(0);
        h.run(0, &read).unwrap();
        assert!(h.m.get(DATA, 4096) == model[..4096]);
    }
}

#[test]
fn sleeping() {
    let (h, ..) = host();
    h.run(0, &Cmd::ata(0xe6, 0, 0)).unwrap();
    h.fill(0, 0, &Cmd::ata(0xec, 0, 0).data(DATA, 512));
    h.set_port(0, PX_CI, 1);
    assert_eq!(h.port(0, PX_TFD) & 0x80, 0x80);
    h.stop(0);
    h.set_port(0, PX_SCTL, 1);
    h.set_port(0, PX_SCTL, 0);
    h.start(0);
    h.run(0, &Cmd::ata(0xec, 0, 0).data(DATA, 512)).unwrap();
}

#[test]
fn paused_and_saved() {
    let (h, disk, model) = host();
    let read = Cmd::ata(0x25, 16, 8).data(DATA, 4096);
    h.run(0, &Cmd::ata(0xc6, 0, 4)).unwrap();
    h.ahci.quiesce();
    h.fill(0, 2, &read);
    h.set_port(0, PX_CI, 4);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(h.port(0, PX_CI), 4);
    let saved = h.ahci.save();
    // Another machine with the same memory goes on.
    let disk2 = Drive::new("d", Arc::new(MemoryBackend::new(disk.memory.content(), false)), CacheMode::Writeback);
    let other = Host::new(|a| {
        a.attach_disk(0, disk2, DiskOptions::default()).unwrap();
    });
    let all = h.m.get(driver::RAM, 0x4_0000);
    other.m.put(driver::RAM, &all);
    other.ahci.load(&saved).unwrap();
    wait("the command", || other.port(0, PX_CI) == 0);
    assert!(other.m.get(DATA, 4096) == model[16 * 512..24 * 512]);
    assert!(other.m.any_line());
    other.set_port(0, PX_IS, !0);
    other.run(0, &Cmd::ata(0xec, 0, 0).data(DATA, 512)).unwrap();
    assert_eq!(other.m.get(DATA + 118, 2), [4, 1]);
    h.ahci.resume();
    wait("the command", || h.port(0, PX_CI) == 0);
    // A machine without the disk does not take the state.
    let empty = Host::new(|_| ());
    assert!(empty.ahci.load(&saved).is_err());
    assert_eq!(disk.capacity(), SECTORS * 512);
}
