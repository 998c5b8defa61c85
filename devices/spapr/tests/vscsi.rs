//! Commands through the virtual SCSI adapter.

mod board;

use board::{Board, Random};
use rhea_block::{CacheMode, Drive, MemoryBackend};
use rhea_device::Device;
use rhea_spapr::papr::hcall as h;
use rhea_spapr::vio::VioDevice;
use rhea_spapr::vio::vscsi::{self, AttachError, Vscsi};
use rhea_storage::scsi::{ScsiCd, ScsiDisk, ScsiDiskOptions};
use rhea_storage::{CdDrive, CdOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUEUE: u64 = 0x1000;
const IU: u64 = 0x2000;
const DATA: u64 = 0x1_0000;
const BLOCKS: u64 = 4096;

struct Adapter {
    b: Board,
    scsi: Arc<Vscsi>,
    backend: Arc<MemoryBackend>,
    unit: u64,
    next: std::cell::Cell<u64>,
}

/// A response.
#[derive(Debug)]
struct Response {
    status: u8,
    sense: Vec<u8>,
    flags: u8,
    residual: (u32, u32),
}

enum Way {
    None,
    In(u64, u32),
    Out(u64, u32),
    /// Pieces of a table, in the unit itself or elsewhere.
    Table(Vec<(u64, u32)>, bool),
}

impl Adapter {
    fn new() -> Self {
        let b = Board::new();
        let scsi = Vscsi::new(b.vio.slot(vscsi::KIND, None).unwrap());
        b.vio.attach(scsi.clone());
        let backend = Arc::new(MemoryBackend::new((0..BLOCKS * 512).map(|n| (n / 512) as u8).collect(), false));
        let drive = Drive::new("disk", backend.clone(), CacheMode::Writeback);
        let options = ScsiDiskOptions { serial: "S1".to_owned(), wwn: 0x5000_c500_0000_0001, ..Default::default() };
        scsi.attach(0, 0, ScsiDisk::new(drive, options)).unwrap();
        let medium = Drive::new("cd", Arc::new(MemoryBackend::new(vec![7; 1 << 20], true)), CacheMode::Writeback);
        scsi.attach(2, 0, ScsiCd::new(&CdDrive::new(Some(medium), CdOptions::default()))).unwrap();
        let unit = u64::from(scsi.slot().unit());
        b.open(unit as u32);
        b.ok(h::H_REG_CRQ, &[unit, QUEUE, 0x1000]);
        let a = Self { b, scsi, backend, unit, next: std::cell::Cell::new(0) };
        let login = a.exchange(1, &[&[0u8; 8][..], &7u64.to_be_bytes(), &[0; 48]].concat());
        assert_eq!((login[0], &login[4..8], &login[8..16]), (0xc0, &64u32.to_be_bytes()[..], &7u64.to_be_bytes()[..]));
        a
    }
    /// Sends an information unit; the answer.
    fn exchange(&self, format: u8, iu: &[u8]) -> Vec<u8> {
        self.b.put(IU, iu);
        self.send(format, iu.len(), IU);
        let (format_back, len, tag) = self.answer().expect("an answer");
        assert_eq!((format_back, tag), (format, u64::from_be_bytes(iu[8..16].try_into().unwrap())));
        self.b.get(IU, len)
    }
    fn send(&self, format: u8, len: usize, at: u64) {
        let message = 0x80 << 56 | u64::from(format) << 48 | len as u64;
        self.b.ok(h::H_SEND_CRQ, &[self.unit, message, at]);
    }
    /// Format, length and tag of the next message.
    fn answer(&self) -> Option<(u8, usize, u64)> {
        let end = Instant::now() + Duration::from_secs(5);
        let at = QUEUE + self.next.get() * 16;
        loop {
            let m = self.b.get(at, 16);
            if m[0] == 0x80 {
                self.b.put(at, &[0]);
                self.next.set((self.next.get() + 1) % 256);
                assert_eq!(m[3], 0);
                let tag = u64::from_be_bytes(m[8..].try_into().unwrap());
                return Some((m[1], usize::from(u16::from_be_bytes([m[6], m[7]])), tag));
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    fn unit_of(&self, target: u8, lun: u8, cdb: &[u8], way: &Way) -> Vec<u8> {
        let mut iu = vec![0; 48];
        iu[0] = 2;
        iu[8..16].copy_from_slice(&0x1234_5678u64.to_be_bytes());
        iu[20..22].copy_from_slice(&[0x80 | target, lun]);
        iu[32..32 + cdb.len()].copy_from_slice(cdb);
        let piece = |at: u64, len: u32| [&at.to_be_bytes()[..], &[0; 4], &len.to_be_bytes()].concat();
        match way {
            Way::None => (),
            Way::In(at, len) => {
                iu[5] = 1;
                iu.extend(piece(*at, *len));
            }
            Way::Out(at, len) => {
                iu[5] = 0x10;
                iu.extend(piece(*at, *len));
            }
            Way::Table(list, inside) => {
                iu[5] = 2;
                iu[7] = if *inside { list.len() as u8 } else { 0 };
                let table: Vec<u8> = list.iter().flat_map(|(at, len)| piece(*at, *len)).collect();
                self.b.put(0x8000, &table);
                iu.extend(piece(0x8000, table.len() as u32));
                iu.extend(list.iter().map(|p| p.1).sum::<u32>().to_be_bytes());
                if *inside {
                    iu.extend(table);
                }
            }
        }
        iu
    }
    fn command(&self, target: u8, lun: u8, cdb: &[u8], way: &Way) -> Response {
        let r = self.exchange(1, &self.unit_of(target, lun, cdb, way));
        let word = |at: usize| u32::from_be_bytes(r[at..at + 4].try_into().unwrap());
        assert_eq!((r[0], word(4)), (0xc1, 1));
        assert_eq!(word(28) as usize, r.len() - 36);
        Response { status: r[19], sense: r[36..].to_vec(), flags: r[18], residual: (word(24), word(20)) }
    }
    /// A command that succeeds, past the unit attention of a unit just switched on.
    fn good(&self, target: u8, cdb: &[u8], way: &Way) -> Response {
        let mut r = self.command(target, 0, cdb, way);
        if r.sense.get(2) == Some(&6) {
            r = self.command(target, 0, cdb, way);
        }
        assert_eq!(r.status, 0, "{cdb:x?} {r:x?}");
        r
    }
}

#[test]
fn disk() {
    let a = Adapter::new();
    let b = &a.b;
    // Unit attention first.
    let r = a.command(0, 0, &[0; 6], &Way::None);
    assert_eq!((r.status, &r.sense[..3], r.sense[12]), (2, &[0x70, 0, 6][..], 0x29));
    a.good(0, &[0; 6], &Way::None);
    let r = a.good(0, &[0x12, 0, 0, 0, 36, 0], &Way::In(DATA, 64));
    assert_eq!((r.flags, r.residual), (0x20, (28, 0)));
    assert_eq!(b.get(DATA + 8, 8), b"RHEA    ");
    a.good(0, &[0x12, 1, 0x83, 0, 255, 0], &Way::In(DATA, 255));
    assert!(b.get(DATA, 64).windows(2).any(|w| w == b"S1"));
    a.good(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &Way::In(DATA, 8));
    assert_eq!(b.get(DATA, 8), [(BLOCKS as u32 - 1).to_be_bytes(), 512u32.to_be_bytes()].concat());
    a.good(0, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], &Way::In(DATA, 32));
    assert_eq!(b.get(DATA, 8), (BLOCKS - 1).to_be_bytes());
    // Read into one piece, and into a table of pieces, inside the unit and elsewhere.
    a.good(0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0], &Way::In(DATA, 1024));
    assert_eq!((b.get(DATA, 1)[0], b.get(DATA + 512, 1)[0]), (3, 4));
    for inside in [true, false] {
        b.put(DATA, &[0; 8192]);
        let list = vec![(DATA, 100), (DATA + 4096, 412), (DATA + 2000, 512)];
        a.good(0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0], &Way::Table(list, inside));
        assert_eq!((b.get(DATA + 99, 2), b.get(DATA + 4096 + 411, 2)), (vec![9, 0], vec![9, 0]));
        assert_eq!(b.get(DATA + 2511, 2), [10, 0]);
    }
    // Less room than data: over.
    let r = a.good(0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0], &Way::In(DATA, 512));
    assert_eq!((r.flags, r.residual), (0x10, (512, 0)));
    b.put(DATA, &[0xaa; 512]);
    a.good(0, &[0x2a, 8, 0, 0, 0, 5, 0, 0, 1, 0], &Way::Out(DATA, 512));
    assert_eq!(a.backend.content()[5 * 512..6 * 512], [0xaa; 512]);
    a.good(0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &Way::None);
    // WRITE SAME with zeroes, UNMAP.
    b.put(DATA, &[0; 512]);
    a.good(0, &[0x41, 0, 0, 0, 0, 8, 0, 0, 4, 0], &Way::Out(DATA, 512));
    assert_eq!(a.backend.content()[8 * 512..12 * 512], [0; 2048]);
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &20u64.to_be_bytes(), &2u32.to_be_bytes(), &[0; 4]].concat();
    b.put(DATA, &unmap);
    a.good(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &Way::Out(DATA, 24));
    // Mode pages: the write cache is switched off.
    a.good(0, &[0x1a, 8, 8, 0, 64, 0], &Way::In(DATA, 64));
    assert_eq!(b.get(DATA + 4, 3), [8, 18, 4]);
    b.put(DATA, &[&[0, 0, 0, 0, 8, 18][..], &[0; 18]].concat());
    a.good(0, &[0x15, 0x10, 0, 0, 24, 0], &Way::Out(DATA, 24));
    a.good(0, &[0x5a, 8, 8, 0, 0, 0, 0, 0, 64, 0], &Way::In(DATA, 64));
    assert_eq!(b.get(DATA + 8, 3), [8, 18, 0]);
    // Beyond the end; an unknown command.
    let r = a.command(0, 0, &[0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0], &Way::In(DATA, 512));
    assert_eq!((r.status, r.sense[2], r.sense[12]), (2, 5, 0x21));
    let r = a.command(0, 0, &[0xc0, 0, 0, 0, 0, 0], &Way::None);
    assert_eq!((r.status, r.sense[2], r.sense[12]), (2, 5, 0x20));
    // Memory that is not open to the device.
    let r = a.command(0, 0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0], &Way::In(0x80_0000, 1024));
    assert_eq!((r.status, r.sense[2]), (2, 0xb));
}

#[test]
fn other_units() {
    let a = Adapter::new();
    let b = &a.b;
    a.good(2, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], &Way::In(DATA, 2048));
    assert_eq!(b.get(DATA, 2048), [7; 2048]);
    a.good(2, &[0x12, 0, 0, 0, 36, 0], &Way::In(DATA, 36));
    assert_eq!(b.get(DATA, 2), [5, 0x80]);
    for target in [0, 2] {
        a.good(target, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], &Way::In(DATA, 64));
        assert_eq!(b.get(DATA, 16), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    a.good(0, &[0x12, 0, 0, 0, 36, 0], &Way::In(DATA, 36));
    let absent = a.command(1, 0, &[0x12, 0, 0, 0, 36, 0], &Way::In(DATA, 36));
    assert_eq!((absent.status, b.get(DATA, 1)[0]), (0, 0x7f));
    let r = a.command(0, 3, &[0; 6], &Way::None);
    assert_eq!((r.status, r.sense[2], r.sense[12]), (2, 5, 0x25));
    let drive = Drive::new("x", Arc::new(MemoryBackend::new(vec![0; 512], false)), CacheMode::Writeback);
    let disk = ScsiDisk::new(drive, ScsiDiskOptions::default());
    assert_eq!(a.scsi.attach(0, 0, disk.clone()), Err(AttachError::InUse(0, 0)));
    assert_eq!(a.scsi.attach(64, 0, disk), Err(AttachError::Range(64, 0)));
    assert_eq!(a.scsi.free_target(), Some(1));
}

#[test]
fn management() {
    let a = Adapter::new();
    let mad = |kind: u32, len: u16| {
        let head = [&kind.to_be_bytes()[..], &[0, 0], &len.to_be_bytes(), &9u64.to_be_bytes()].concat();
        let answer = a.exchange(2, &[head, DATA.to_be_bytes().to_vec()].concat());
        u16::from_be_bytes([answer[4], answer[5]])
    };
    assert_eq!(mad(1, 24), 0);
    assert_eq!(mad(3, 148), 0);
    assert_eq!(a.b.get(DATA, 4), b"16.a");
    a.b.put(DATA, &[0xff; 92]);
    assert_eq!(mad(5, 92), 0);
    assert_eq!(a.b.get(DATA + 72, 6), [0xff, 0xff, 0, 0, 0xff, 0xff]);
    assert_eq!(mad(0x42, 8), 0xf1);
    // Task management: a task that is not there is as good as ended.
    let task = |lun: u8, function: u8| {
        let mut iu = vec![0; 48];
        iu[0] = 1;
        iu[15] = 3;
        iu[20..22].copy_from_slice(&[0x80, lun]);
        iu[30] = function;
        a.exchange(1, &iu)[39]
    };
    assert_eq!((task(0, 1), task(0, 8), task(5, 8), task(0, 0x40)), (0, 0, 2, 4));
    let r = a.command(0, 0, &[0; 6], &Way::None);
    assert_eq!(r.sense[2], 6);
}

#[test]
fn hostile() {
    let a = Adapter::new();
    let mut r = Random(99);
    for _ in 0..3000 {
        let len = [16, 24, 48, 64, 68, 84, 256][r.below(7) as usize];
        let mut iu: Vec<u8> = (0..len).map(|_| if r.below(3) == 0 { r.next() as u8 } else { 0 }).collect();
        iu[0] = r.below(4) as u8;
        if len >= 48 && r.below(2) == 0 {
            iu[5] = [0, 1, 0x10, 2, 0x20, 0x22, 0x33][r.below(7) as usize];
            iu[20] = 0x80 | (r.below(4) as u8);
            iu[21] = 0;
            iu[32] = r.next() as u8;
        }
        a.b.put(IU, &iu);
        let at = if r.below(20) == 0 { r.next() } else { IU };
        let message = 0x80 << 56 | r.below(4) << 48 | if r.below(20) == 0 { r.below(0x1_0000) } else { len as u64 };
        a.b.call(h::H_SEND_CRQ, &[a.unit, message, at]);
        if r.below(8) == 0 {
            a.b.put(QUEUE, &[0; 0x1000]);
        }
        if r.below(500) == 0 {
            let state = a.scsi.save();
            a.scsi.quiesce();
            a.scsi.load(&state).unwrap();
        }
    }
    a.scsi.reset();
    a.b.open(a.unit as u32);
    a.b.put(QUEUE, &[0; 0x1000]);
    a.b.ok(h::H_REG_CRQ, &[a.unit, QUEUE, 0x1000]);
    a.next.set(0);
    a.good(0, &[0x12, 0, 0, 0, 36, 0], &Way::In(DATA, 36));
}
