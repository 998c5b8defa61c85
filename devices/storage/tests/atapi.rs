//! The CD drive behind the AHCI controller.

mod driver;

use driver::ahci::*;
use driver::{Faulty, Random, wait};
use parking_lot::Mutex;
use rhea_device::Device;
use rhea_storage::{CdDrive, CdOptions, TrayError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BLOCKS: usize = 3000;

fn disc(seed: u64) -> (Arc<Faulty>, Vec<u8>) {
    let data = Random(seed).bytes(BLOCKS * 2048);
    (Faulty::new(data.clone()), data)
}

fn host(medium: Option<&Arc<Faulty>>) -> (Host, Arc<CdDrive>) {
    let mut cd = None;
    let h = Host::new(|a| cd = Some(a.attach_cd(2, medium.map(|m| m.drive()), CdOptions::default()).unwrap()));
    h.start(2);
    (h, cd.unwrap())
}

const TUR: [u8; 12] = [0; 12];
const CHECK: fn(u8) -> Result<(), Failed> =
    |key| Err(Failed { status: 0x51, error: key << 4 | if key == 5 { 4 } else { 0 } });

/// Takes the unit attention of power-on.
fn awake(h: &Host) {
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(6));
    assert_eq!(h.sense(2), (6, 0x29, 0));
    assert_eq!(h.sense(2), (0, 0, 0));
}

fn read10(lba: u32, n: u16) -> [u8; 12] {
    let (l, c) = (lba.to_be_bytes(), n.to_be_bytes());
    [0x28, 0, l[0], l[1], l[2], l[3], 0, c[0], c[1], 0, 0, 0]
}

#[test]
fn identification() {
    let (medium, _) = disc(1);
    let (h, _) = host(Some(&medium));
    assert_eq!((h.port(2, PX_SIG), h.port(2, PX_TFD)), (0xeb14_0101, 0x100));
    assert!(h.run(2, &Cmd::ata(0xec, 0, 0).data(DATA, 512)).is_err());
    assert_eq!(h.m.get(Host::fis(2) + 0x45, 2), [0x14, 0xeb]);
    h.run(2, &Cmd::ata(0xa1, 0, 0).data(DATA, 512)).unwrap();
    let b = h.m.get(DATA, 512);
    assert_eq!((b[0], b[1]), (0xc0, 0x85));
    assert_eq!(b.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    // INQUIRY does not care for the unit attention.
    let b = h.packet_in(2, &[0x12, 0, 0, 0, 96], 96).unwrap();
    assert_eq!((b.len(), b[0], b[1], &b[8..12]), (36, 5, 0x80, &b"RHEA"[..]));
    assert_eq!(h.packet_in(2, &[0x12, 0, 0, 0, 5], 96).unwrap().len(), 5);
    awake(&h);
    assert_eq!(h.packet_in(2, &[0x12, 1, 0x80, 0, 96], 96).unwrap()[..4], [5, 0x80, 0, 20]);
    assert_eq!(h.packet_in(2, &[0x12, 1, 0x55, 0, 96], 96).err(), CHECK(5).err());
    assert_eq!(h.sense(2), (5, 0x24, 0));
}

#[test]
fn reading() {
    let (medium, data) = disc(2);
    let (h, _) = host(Some(&medium));
    awake(&h);
    h.run(2, &Cmd::packet(&TUR, true)).unwrap();
    assert_eq!(h.packet_in(2, &[0x25], 8).unwrap(), [0, 0, 0x0b, 0xb7, 0, 0, 8, 0]);
    let mut r = Random(4);
    for round in 0..30 {
        medium.slow_reads.store(round % 2 == 0, Ordering::SeqCst);
        let n = 1 + r.below(60) as u32;
        let lba = r.below(BLOCKS as u64 - u64::from(n)) as u32;
        let l = lba.to_be_bytes();
        let cdb = match round % 3 {
            0 => read10(lba, n as u16),
            1 => [0xa8, 0, l[0], l[1], l[2], l[3], 0, 0, 0, n as u8, 0, 0],
            _ => [0xbe, 0, l[0], l[1], l[2], l[3], 0, 0, n as u8, 0x10, 0, 0],
        };
        let dma = r.below(2) == 0;
        h.run(2, &Cmd::packet(&cdb, dma).data(DATA, 2048).data(DATA + 4096, (n * 2048).max(2))).unwrap();
        let got = [h.m.get(DATA, 2048), h.m.get(DATA + 4096, (n as usize - 1) * 2048)].concat();
        let at = lba as usize * 2048;
        assert!(got == data[at..at + n as usize * 2048], "{cdb:x?}");
        assert_eq!(h.moved(2, 3), n * 2048);
        // Interrupt reason: status, to the host.
        assert_eq!(h.m.get(Host::fis(2) + 0x4c, 1), [3]);
        if !dma {
            let f = h.m.get(Host::fis(2) + 0x20, 20);
            assert_eq!((f[0], f[12], f[16], f[17]), (0x5f, 2, 0, 8));
        }
    }
    assert_eq!(h.packet_in(2, &read10(BLOCKS as u32 - 1, 2), 4096).err(), CHECK(5).err());
    assert_eq!(h.sense(2), (5, 0x21, 0));
    h.run(2, &Cmd::packet(&read10(5, 0), true)).unwrap();
    medium.slow_reads.store(true, Ordering::SeqCst);
    medium.bad.store(2048 * 7, Ordering::SeqCst);
    assert_eq!(h.packet_in(2, &read10(6, 4), 8192).err(), CHECK(3).err());
    assert_eq!(h.sense(2), (3, 0x11, 0));
    assert_eq!(h.packet_in(2, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1], 2048).err(), CHECK(5).err());
    assert_eq!(h.sense(2), (5, 0x20, 0));
}

#[test]
fn information() {
    let (medium, _) = disc(3);
    let (h, _) = host(Some(&medium));
    awake(&h);
    let toc = h.packet_in(2, &[0x43, 0, 0, 0, 0, 0, 0, 0, 200], 200).unwrap();
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0x0b, 0xb8]);
    let toc = h.packet_in(2, &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 200], 200).unwrap();
    // 3150 frames: 0:42:00.
    assert_eq!(toc, [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 42, 0]);
    let c = h.packet_in(2, &[0x46, 0, 0, 0, 0, 0, 0, 2, 0], 512).unwrap();
    assert_eq!(u32::from_be_bytes(c[..4].try_into().unwrap()) as usize, c.len() - 4);
    assert_eq!(c[6..8], [0, 8]);
    let c = h.packet_in(2, &[0x46, 2, 0, 3, 0, 0, 0, 2, 0], 512).unwrap();
    assert_eq!(c[8..], [0, 3, 7, 4, 0x29, 0, 0, 0]);
    assert_eq!(h.packet_in(2, &[0x51, 0, 0, 0, 0, 0, 0, 0, 34], 34).unwrap()[..3], [0, 32, 0x0e]);
    let m = h.packet_in(2, &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 100], 100).unwrap();
    assert_eq!((usize::from(m[1]) + 2, m[8], usize::from(m[9]) + 10), (m.len(), 0x2a, m.len()));
    assert_eq!(h.packet_in(2, &[0x5a, 0, 0xea, 0, 0, 0, 0, 0, 100], 100).err(), CHECK(5).err());
    assert_eq!(h.sense(2), (5, 0x39, 0));
    // MODE SELECT of the recovery page.
    let mut p = vec![0; 20];
    p[8..12].copy_from_slice(&[1, 10, 4, 9]);
    h.m.put(DATA, &p);
    h.run(2, &Cmd::packet(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 20], true).data(DATA, 20).writing()).unwrap();
    assert_eq!(h.packet_in(2, &[0x5a, 0, 1, 0, 0, 0, 0, 0, 100], 100).unwrap()[8..12], [1, 10, 4, 9]);
    assert_eq!(h.packet_in(2, &[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8], 8).unwrap(), [0; 8]);
}

#[test]
fn tray() {
    let (a, _) = disc(5);
    let (b, second) = disc(6);
    let (h, cd) = host(None);
    awake(&h);
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(2));
    assert_eq!(h.sense(2), (2, 0x3a, 1));
    assert_eq!(h.packet_in(2, &[0x25], 8).err(), CHECK(2).err());
    let event = |h: &Host| h.packet_in(2, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8).unwrap();
    assert_eq!(event(&h), [0, 6, 4, 0x10, 0, 0, 0, 0]);
    cd.load_medium(Some(a.drive()), false).unwrap();
    assert_eq!(event(&h), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(event(&h)[4], 0);
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(6));
    assert_eq!(h.sense(2), (6, 0x28, 0));
    h.run(2, &Cmd::packet(&TUR, true)).unwrap();
    // Locked: the guest is asked.
    h.run(2, &Cmd::packet(&[0x1e, 0, 0, 0, 1], true)).unwrap();
    assert_eq!(cd.eject(false).err(), Some(TrayError::Locked));
    assert_eq!(event(&h)[4], 1);
    assert_eq!(h.run(2, &Cmd::packet(&[0x1b, 0, 0, 0, 2], true)), CHECK(5));
    assert_eq!(h.sense(2), (5, 0x53, 2));
    h.run(2, &Cmd::packet(&[0x1e], true)).unwrap();
    h.run(2, &Cmd::packet(&[0x1b, 0, 0, 0, 2], true)).unwrap();
    assert_eq!(cd.tray(), (true, false));
    assert_eq!(event(&h)[4..6], [3, 3]);
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(2));
    assert_eq!(h.sense(2), (2, 0x3a, 2));
    cd.load_medium(Some(b.drive()), false).unwrap();
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(6));
    assert!(h.packet_in(2, &read10(0, 2), 4096).unwrap() == second[..4096]);
    assert!(cd.eject(true).unwrap().is_some());
    assert!(cd.medium().is_none());
}

#[test]
fn moves_of_the_tray_are_told() {
    let (a, _) = disc(5);
    let (h, cd) = host(Some(&a));
    awake(&h);
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    cd.on_tray_moved(move |open| list.lock().push(open));
    let next = || std::mem::take(&mut *told.lock());
    // By the guest, who opens it twice.
    h.run(2, &Cmd::packet(&[0x1b, 0, 0, 0, 2], true)).unwrap();
    h.run(2, &Cmd::packet(&[0x1b, 0, 0, 0, 2], true)).unwrap();
    assert_eq!(next(), [true]);
    h.run(2, &Cmd::packet(&[0x1b, 0, 0, 0, 3], true)).unwrap();
    assert_eq!(next(), [false]);
    // From outside: a medium is taken out of an open tray only.
    assert_eq!(cd.take_medium().err(), Some(TrayError::Closed));
    cd.open_tray(false).unwrap();
    cd.open_tray(false).unwrap();
    assert_eq!(next(), [true]);
    assert!(cd.medium().is_some() && cd.take_medium().unwrap().is_some() && cd.take_medium().unwrap().is_none());
    cd.close_tray();
    assert_eq!(next(), [false]);
    // The medium that was in when the guest closed it, then none.
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(6));
    assert_eq!(h.run(2, &Cmd::packet(&TUR, true)), CHECK(2));
    cd.load_medium(Some(a.drive()), false).unwrap();
    assert_eq!(next(), [true, false]);
}

#[test]
fn state() {
    let (a, data) = disc(8);
    let (h, _) = host(Some(&a));
    awake(&h);
    h.run(2, &Cmd::packet(&[0x1e, 0, 0, 0, 1], true)).unwrap();
    let saved = h.ahci.save();
    let (other, cd) = host(Some(&a));
    let area = h.m.get(Host::list(2), 0x4_0000);
    other.m.put(Host::list(2), &area);
    other.ahci.load(&saved).unwrap();
    assert_eq!(cd.tray(), (false, true));
    assert!(other.packet_in(2, &read10(9, 1), 2048).unwrap() == data[9 * 2048..10 * 2048]);
    // Software reset is no unit attention, COMRESET is.
    other.stop(2);
    other.set_port(2, PX_SCTL, 1);
    other.set_port(2, PX_SCTL, 0);
    wait("the link", || other.port(2, PX_SSTS) == 0x123);
    other.start(2);
    awake(&other);
}
