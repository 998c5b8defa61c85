//! A direct-access block device (SBC-3).

use super::disk_pages as pages;
use super::operation as op;
use super::{Action, Cdb, LogicalUnit};
use crate::atapi::sense::{self, Sense};
use crate::work::Work;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation};
use rhea_device::LoadError;
use std::io;
use std::sync::Arc;

const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0a;
const RESERVE_6: u8 = 0x16;
const RELEASE_6: u8 = 0x17;
const MODE_SELECT_6: u8 = 0x15;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;
const READ_FORMAT_CAPACITIES: u8 = 0x23;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SEEK_10: u8 = 0x2b;
const WRITE_VERIFY_10: u8 = 0x2e;
const VERIFY_10: u8 = 0x2f;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const WRITE_SAME_10: u8 = 0x41;
const UNMAP: u8 = 0x42;
const MODE_SELECT_10: u8 = 0x55;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const WRITE_VERIFY_16: u8 = 0x8e;
const VERIFY_16: u8 = 0x8f;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const WRITE_SAME_16: u8 = 0x93;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const READ_CAPACITY_16: u8 = 0x10;
const READ_12: u8 = 0xa8;
const WRITE_12: u8 = 0xaa;
const WRITE_VERIFY_12: u8 = 0xae;
const VERIFY_12: u8 = 0xaf;

const WRITE_PROTECTED: Sense = Sense { key: 7, code: 0x27, qualifier: 0 };
const WRITE_ERROR: Sense = Sense { key: 3, code: 0x0c, qualifier: 0 };
const NOT_READY: Sense = Sense { key: 2, code: 0x04, qualifier: 2 };
const NO_MEDIUM: Sense = Sense { key: 2, code: 0x3a, qualifier: 0 };
const MISCOMPARE_UNSUPPORTED: Sense = sense::INVALID_FIELD;

/// What a disk can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiDiskOptions {
    /// At most 36 characters.
    pub serial: String,
    /// At most 8, 16 and 4.
    pub vendor: String,
    pub product: String,
    pub version: String,
    pub wwn: u64,
    /// Rotations a minute; 0: not told, 1: does not rotate.
    pub rotation_rate: u16,
    /// Bytes; 0: the drive's.
    pub logical_block: u32,
    pub physical_block: u32,
    /// The initiator can lock, eject and load the medium.
    pub removable: bool,
    /// The transport queues commands.
    pub queues: bool,
}

impl Default for ScsiDiskOptions {
    fn default() -> Self {
        Self {
            serial: String::new(),
            vendor: "RHEA".to_owned(),
            product: "RHEA HARDDISK".to_owned(),
            version: "1.0".to_owned(),
            wwn: 0,
            rotation_rate: 0,
            logical_block: 0,
            physical_block: 0,
            removable: false,
            queues: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    write_cache: bool,
    #[n(1)]
    stopped: bool,
    /// For REQUEST SENSE.
    #[n(2)]
    sense: Sense,
    /// A unit attention condition not yet told.
    #[n(3)]
    attention: Option<Sense>,
    /// Removal is prevented.
    #[n(4)]
    locked: bool,
    /// The initiator has ejected the medium.
    #[n(5)]
    ejected: bool,
}

impl State {
    /// After power-on or a reset, which takes mode parameters back to their defaults (SPC-3 5.7).
    fn fresh(drive: &Drive) -> Self {
        Self {
            write_cache: drive.cache().write_cache(),
            stopped: false,
            sense: sense::NONE,
            attention: Some(sense::RESET),
            locked: false,
            ejected: false,
        }
    }
}

/// A disk.
pub struct ScsiDisk {
    drive: Arc<Drive>,
    options: ScsiDiskOptions,
    block: u32,
    state: Mutex<State>,
}

fn half(c: &Cdb, at: usize) -> u64 {
    u64::from(u16::from_be_bytes([c[at], c[at + 1]]))
}
fn word(c: &Cdb, at: usize) -> u64 {
    u64::from(u32::from_be_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]))
}
fn long(c: &Cdb, at: usize) -> u64 {
    word(c, at) << 32 | word(c, at + 4)
}

/// First block and number of blocks of a command, by its group.
fn extent(c: &Cdb) -> (u64, u64) {
    match c[0] >> 5 {
        0 => {
            let count = u64::from(c[4]);
            (word(c, 0) & 0x1f_ffff, if count == 0 { 256 } else { count })
        }
        1 | 2 => (word(c, 2), half(c, 7)),
        5 => (word(c, 2), word(c, 6)),
        _ => (long(c, 2), word(c, 10)),
    }
}

impl ScsiDisk {
    #[must_use]
    pub fn new(drive: Arc<Drive>, mut options: ScsiDiskOptions) -> Arc<Self> {
        let geometry = drive.backend().geometry();
        let block = if options.logical_block == 0 { geometry.logical_block } else { options.logical_block };
        let block = block.clamp(512, 65536).next_power_of_two();
        let physical = if options.physical_block == 0 { geometry.physical_block } else { options.physical_block };
        options.physical_block = physical.max(block);
        let state = Mutex::new(State::fresh(&drive));
        Arc::new(Self { drive, options, block, state })
    }
    fn blocks(&self) -> u64 {
        self.drive.capacity() / u64::from(self.block)
    }
    fn unmaps(&self) -> bool {
        self.drive.discard_enabled() && !self.drive.readonly()
    }
    /// Bytes of the blocks a command names.
    fn range(&self, first: u64, count: u64) -> Result<(u64, u64), Sense> {
        match first.checked_add(count) {
            Some(end) if end <= self.blocks() => Ok((first * u64::from(self.block), count * u64::from(self.block))),
            _ => Err(sense::ADDRESS_OUT_OF_RANGE),
        }
    }
    fn writable(&self) -> Result<(), Sense> {
        if self.drive.readonly() { Err(WRITE_PROTECTED) } else { Ok(()) }
    }
    fn transfer(&self, c: &Cdb, write: bool) -> Result<Action, Sense> {
        // Protection information is not there; READ (6) and WRITE (6) have no such bits.
        if c[0] >> 5 != 0 && c[1] & 0xe0 != 0 {
            return Err(sense::INVALID_FIELD);
        }
        if write {
            self.writable()?;
        }
        let (first, count) = extent(c);
        let (offset, len) = self.range(first, count)?;
        if len == 0 {
            return Ok(Action::Good);
        }
        if len > 1 << 30 {
            return Err(sense::INVALID_FIELD);
        }
        let verify = matches!(c[0], WRITE_VERIFY_10 | WRITE_VERIFY_12 | WRITE_VERIFY_16);
        let forced = c[0] >> 5 != 0 && c[1] & 8 != 0;
        let flush = write && (forced || verify || !self.state.lock().write_cache);
        Ok(Action::Transfer { drive: self.drive.clone(), offset, len, write, flush })
    }
    fn run(&self, operations: Vec<Operation>) -> Action {
        Action::Run { drive: self.drive.clone(), work: Work::Many(operations) }
    }

    fn start(&self, c: &Cdb) -> Result<Action, Sense> {
        let data = |data: Vec<u8>, limit: u64| {
            let n = data.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(if n == 0 { Action::Good } else { Action::In(data[..n].to_vec()) })
        };
        match c[0] {
            op::INQUIRY => {
                if c[1] & 1 == 0 && c[2] != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let body = if c[1] & 1 != 0 {
                    pages::vital(&self.options, c[2], self.block, self.unmaps())?
                } else {
                    pages::inquiry(&self.options)
                };
                return data(body, half(c, 3));
            }
            op::REQUEST_SENSE => {
                // Descriptor format is not there.
                if c[1] & 1 != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let mut s = self.state.lock();
                let pending = match std::mem::take(&mut s.sense) {
                    sense::NONE => s.attention.take().unwrap_or(sense::NONE),
                    pending => pending,
                };
                return data(pending.fixed().to_vec(), c[4].into());
            }
            op::REPORT_LUNS => return data(super::report_luns(&[0]), word(c, 6)),
            _ => (),
        }
        {
            let mut s = self.state.lock();
            if let Some(attention) = s.attention.take() {
                return Err(attention);
            }
            if !matches!(c[0], START_STOP_UNIT | MODE_SENSE_6 | MODE_SENSE_10 | PREVENT_ALLOW) {
                if s.ejected {
                    return Err(NO_MEDIUM);
                }
                if s.stopped {
                    return Err(NOT_READY);
                }
            }
        }
        match c[0] {
            op::TEST_UNIT_READY | RESERVE_6 | RELEASE_6 => Ok(Action::Good),
            PREVENT_ALLOW => {
                self.state.lock().locked = c[4] & 1 != 0;
                Ok(Action::Good)
            }
            // Power conditions leave the medium usable.
            START_STOP_UNIT if c[4] >> 4 != 0 => Ok(Action::Good),
            START_STOP_UNIT => self.start_stop(c[4] & 1 != 0, c[4] & 2 != 0),
            READ_FORMAT_CAPACITIES => {
                // One descriptor, of formatted medium (MMC-5 6.24).
                let blocks = self.blocks().min(u32::MAX.into()) as u32;
                let size = (self.block & 0xff_ffff | 2 << 24).to_be_bytes();
                data([&[0, 0, 0, 8][..], &blocks.to_be_bytes(), &size].concat(), half(c, 7))
            }
            READ_CAPACITY_10 => {
                if c[8] & 1 == 0 && word(c, 2) != 0 {
                    return Err(sense::INVALID_FIELD);
                }
                let last = self.blocks().saturating_sub(1).min(u32::MAX.into()) as u32;
                data([last.to_be_bytes(), self.block.to_be_bytes()].concat(), 8)
            }
            SERVICE_ACTION_IN_16 if c[1] & 0x1f == READ_CAPACITY_16 => {
                let mut b = self.blocks().saturating_sub(1).to_be_bytes().to_vec();
                b.extend(self.block.to_be_bytes());
                b.extend([0; 20]);
                b[13] = (self.options.physical_block / self.block).ilog2() as u8;
                b[14] = if self.unmaps() { 0x80 } else { 0 };
                data(b, word(c, 10))
            }
            READ_6 | READ_10 | READ_12 | READ_16 => self.transfer(c, false),
            WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16 | WRITE_VERIFY_10 | WRITE_VERIFY_12 | WRITE_VERIFY_16 => {
                self.transfer(c, true)
            }
            VERIFY_10 | VERIFY_12 | VERIFY_16 => {
                // Comparison with data of the initiator is not there.
                if c[1] & 6 != 0 {
                    return Err(MISCOMPARE_UNSUPPORTED);
                }
                let (first, count) = extent(c);
                self.range(first, count).map(|_| Action::Good)
            }
            SEEK_10 => self.range(word(c, 2), 1).map(|_| Action::Good),
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => {
                let (first, count) = extent(c);
                self.range(first, count)?;
                Ok(self.run(vec![Operation::Flush]))
            }
            WRITE_SAME_10 | WRITE_SAME_16 => {
                self.writable()?;
                let (first, count) = extent(c);
                let count = if count == 0 { self.blocks().saturating_sub(first) } else { count };
                self.range(first, count)?;
                // No data buffer: only of the 16-byte command.
                if c[0] == WRITE_SAME_16 && c[1] & 1 != 0 {
                    self.same(c, &[])
                } else {
                    Ok(Action::Out(self.block as usize))
                }
            }
            UNMAP => {
                self.writable()?;
                if !self.unmaps() {
                    return Err(sense::INVALID_OPERATION);
                }
                Ok(if half(c, 7) == 0 { Action::Good } else { Action::Out(half(c, 7) as usize) })
            }
            MODE_SENSE_6 | MODE_SENSE_10 => {
                let six = c[0] == MODE_SENSE_6;
                let cache = (self.state.lock().write_cache, self.drive.cache().write_cache());
                let blocks = (c[1] & 8 == 0).then(|| (self.blocks(), self.block));
                let body = pages::mode(c[2] & 0x3f, c[2] >> 6, cache, self.drive.readonly(), six, blocks)?;
                data(body, if six { c[4].into() } else { half(c, 7) })
            }
            MODE_SELECT_6 | MODE_SELECT_10 => {
                // Page format; pages are not saved.
                if c[1] & 0x11 != 0x10 {
                    return Err(sense::INVALID_FIELD);
                }
                let len = if c[0] == MODE_SELECT_6 { usize::from(c[4]) } else { half(c, 7) as usize };
                Ok(if len == 0 { Action::Good } else { Action::Out(len) })
            }
            _ => Err(sense::INVALID_OPERATION),
        }
    }
    /// START STOP UNIT; `medium`: loads or ejects it.
    fn start_stop(&self, start: bool, medium: bool) -> Result<Action, Sense> {
        let mut s = self.state.lock();
        if !medium {
            s.stopped = !start;
            return Ok(Action::Good);
        }
        if !self.options.removable {
            return Err(sense::INVALID_FIELD);
        }
        if !start && s.locked {
            return Err(sense::REMOVAL_PREVENTED);
        }
        if std::mem::replace(&mut s.ejected, !start) && start {
            s.attention = Some(sense::MEDIUM_CHANGED);
        }
        // A medium that is loaded spins.
        s.stopped &= !start;
        Ok(Action::Good)
    }
    /// WRITE SAME with `data` (nothing: zeroes).
    fn same(&self, c: &Cdb, data: &[u8]) -> Result<Action, Sense> {
        let (first, count) = extent(c);
        let count = if count == 0 { self.blocks().saturating_sub(first) } else { count };
        let (offset, len) = self.range(first, count)?;
        if len == 0 {
            return Ok(Action::Good);
        }
        let unmap = c[1] & 8 != 0;
        let flush = !self.state.lock().write_cache;
        if data.iter().all(|b| *b == 0) {
            let zero = Operation::WriteZeroes { offset, len, may_unmap: unmap && self.unmaps(), flush };
            return Ok(self.run(vec![zero]));
        }
        if len > 16 << 20 {
            return Err(sense::INVALID_FIELD);
        }
        let segments = vec![rhea_block::Segment::Host(data.repeat(count as usize))];
        Ok(self.run(vec![Operation::Write { offset, segments, flush }]))
    }
    fn take(&self, c: &Cdb, data: &[u8]) -> Result<Action, Sense> {
        match c[0] {
            WRITE_SAME_10 | WRITE_SAME_16 => {
                if data.len() != self.block as usize {
                    return Err(sense::PARAMETER_LENGTH);
                }
                self.same(c, data)
            }
            UNMAP => {
                let mut operations = Vec::new();
                let all = data.get(8..).ok_or(sense::PARAMETER_LENGTH)?;
                let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
                let list = all.get(..len.min(all.len())).unwrap_or(all);
                for d in list.chunks_exact(16).take(255) {
                    let number = |r: std::ops::Range<usize>| d[r].iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
                    let (offset, len) = self.range(number(0..8), number(8..12))?;
                    if len != 0 {
                        operations.push(Operation::Discard { offset, len });
                    }
                }
                Ok(if operations.is_empty() { Action::Good } else { self.run(operations) })
            }
            MODE_SELECT_6 | MODE_SELECT_10 => {
                let (descriptors, rest) = match (c[0], data) {
                    (MODE_SELECT_6, [_, _, _, n, rest @ ..]) => (usize::from(*n), rest),
                    (MODE_SELECT_10, [_, _, _, _, _, _, high, low, rest @ ..]) => {
                        (usize::from(u16::from_be_bytes([*high, *low])), rest)
                    }
                    _ => return Err(sense::PARAMETER_LENGTH),
                };
                let mut rest = rest.get(descriptors..).ok_or(sense::PARAMETER_LENGTH)?;
                while let [code, len, ..] = *rest {
                    let body = rest.get(2..2 + usize::from(len)).ok_or(sense::PARAMETER_LENGTH)?;
                    match (code & 0x3f, body) {
                        (pages::CACHING, [flags, ..]) => self.state.lock().write_cache = flags & 4 != 0,
                        (pages::RECOVERY | pages::CONTROL | pages::EXCEPTIONS, _) => (),
                        _ => return Err(sense::INVALID_PARAMETER),
                    }
                    rest = &rest[2 + usize::from(len)..];
                }
                if rest.is_empty() { Ok(self.run(vec![Operation::Flush])) } else { Err(sense::PARAMETER_LENGTH) }
            }
            _ => Err(sense::INVALID_OPERATION),
        }
    }
    fn answer(&self, result: Result<Action, Sense>) -> Action {
        result.unwrap_or_else(|what| {
            self.state.lock().sense = what;
            Action::Fail(what)
        })
    }
}

impl LogicalUnit for ScsiDisk {
    fn execute(&self, cdb: &Cdb) -> Action {
        if cdb[0] != op::REQUEST_SENSE {
            self.state.lock().sense = sense::NONE;
        }
        self.answer(self.start(cdb))
    }
    fn data_out(&self, cdb: &Cdb, data: &[u8]) -> Action {
        self.answer(self.take(cdb, data))
    }
    fn finished(&self, cdb: &Cdb, result: &io::Result<()>) -> Option<Sense> {
        let error = result.as_ref().err()?;
        let what = match cdb[0] {
            READ_6 | READ_10 | READ_12 | READ_16 => sense::READ_ERROR,
            _ if error.kind() == io::ErrorKind::PermissionDenied => WRITE_PROTECTED,
            _ => WRITE_ERROR,
        };
        self.state.lock().sense = what;
        Some(what)
    }
    fn reset(&self) {
        *self.state.lock() = State::fresh(&self.drive);
    }
    fn power_on(&self) {
        self.reset();
    }
    fn save(&self) -> Vec<u8> {
        // Encoding into a vector does not fail.
        minicbor::to_vec(&*self.state.lock()).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        *self.state.lock() = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        Ok(())
    }
    fn drive(&self) -> Option<Arc<Drive>> {
        Some(self.drive.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_block::{CacheMode, MemoryBackend};

    fn disk(readonly: bool, options: ScsiDiskOptions) -> Arc<ScsiDisk> {
        let drive = Drive::new("d", Arc::new(MemoryBackend::new(vec![0; 1 << 20], readonly)), CacheMode::Writeback);
        let disk = ScsiDisk::new(drive, options);
        assert_eq!(fail(&disk, &[op::TEST_UNIT_READY]), (6, 0x29));
        disk
    }
    fn removable() -> Arc<ScsiDisk> {
        disk(false, ScsiDiskOptions { removable: true, queues: false, ..ScsiDiskOptions::default() })
    }
    fn cdb(bytes: &[u8]) -> Cdb {
        let mut b = [0; 16];
        b[..bytes.len()].copy_from_slice(bytes);
        b
    }
    fn data(d: &ScsiDisk, bytes: &[u8]) -> Vec<u8> {
        match d.execute(&cdb(bytes)) {
            Action::In(data) => data,
            _ => panic!("{bytes:x?}"),
        }
    }
    fn good(d: &ScsiDisk, bytes: &[u8]) {
        assert!(matches!(d.execute(&cdb(bytes)), Action::Good), "{bytes:x?}");
    }
    /// The sense data of a failure, which REQUEST SENSE tells once.
    fn fail(d: &ScsiDisk, bytes: &[u8]) -> (u8, u8) {
        let Action::Fail(sense) = d.execute(&cdb(bytes)) else { panic!("{bytes:x?}") };
        assert_eq!(sense_of(d), (sense.key, sense.code));
        (sense.key, sense.code)
    }
    fn sense_of(d: &ScsiDisk) -> (u8, u8) {
        let s = data(d, &[op::REQUEST_SENSE, 0, 0, 0, 18]);
        (s[2], s[12])
    }

    #[test]
    fn inquiries() {
        let d = removable();
        assert_eq!(data(&d, &[op::INQUIRY, 0, 0, 0, 36])[..8], [0, 0x80, 6, 2, 31, 0, 0, 0]);
        let fixed = disk(false, ScsiDiskOptions::default());
        assert_eq!(data(&fixed, &[op::INQUIRY, 0, 0, 0, 36])[..8], [0, 0, 6, 2, 31, 0, 0, 2]);
        for page in [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2] {
            let v = data(&d, &[op::INQUIRY, 1, page, 0, 255]);
            assert_eq!((v[1], usize::from(v[3])), (page, v.len() - 4));
        }
        assert_eq!(fail(&d, &[op::INQUIRY, 1, 0x90, 0, 255]), (5, 0x24));
        assert_eq!(data(&d, &[READ_CAPACITY_10]), [0, 0, 7, 255, 0, 0, 2, 0]);
        let formats = data(&d, &[READ_FORMAT_CAPACITIES, 0, 0, 0, 0, 0, 0, 0, 252]);
        assert_eq!(formats, [0, 0, 0, 8, 0, 0, 8, 0, 2, 0, 2, 0]);
        for (page, long) in [(0x3f, false), (0x3f, true), (8, false), (0x48, true), (0x1c, true), (0, false)] {
            let m = match long {
                true => data(&d, &[MODE_SENSE_10, 0, page, 0, 0, 0, 0, 0, 255]),
                false => data(&d, &[MODE_SENSE_6, 0, page, 0, 255]),
            };
            let len = if long { usize::from(u16::from_be_bytes([m[0], m[1]])) + 2 } else { usize::from(m[0]) + 1 };
            assert_eq!(len, m.len());
        }
    }

    #[test]
    fn block_sizes() {
        let options = ScsiDiskOptions { logical_block: 4096, physical_block: 16384, ..ScsiDiskOptions::default() };
        let d = disk(false, options);
        assert_eq!(data(&d, &[READ_CAPACITY_10]), [0, 0, 0, 255, 0, 0, 16, 0]);
        assert_eq!(data(&d, &[SERVICE_ACTION_IN_16, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32])[13], 2);
        let read = d.execute(&cdb(&[READ_10, 0, 0, 0, 0, 255, 0, 0, 1]));
        assert!(matches!(read, Action::Transfer { offset: 0xf_f000, len: 4096, write: false, .. }));
    }

    #[test]
    fn ranges_and_write_protection() {
        let d = removable();
        let c = cdb(&[READ_10, 0, 0, 0, 7, 255, 0, 0, 1]);
        assert!(matches!(d.execute(&c), Action::Transfer { offset: 0xf_fe00, len: 512, .. }));
        for c in [&[READ_10, 0, 0, 0, 8, 0, 0, 0, 1][..], &[READ_10, 0, 0, 0, 7, 255, 0, 0, 2], &[0x88, 0, 255, 255]] {
            let mut c = cdb(c);
            c[13] = 1;
            assert_eq!(fail(&d, &c), (5, 0x21));
        }
        let protected = disk(true, ScsiDiskOptions::default());
        assert_eq!(fail(&protected, &[WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1]), (7, 0x27));
        assert_eq!(data(&protected, &[MODE_SENSE_6, 8, 8, 0, 255])[2] & 0x80, 0x80);
    }

    #[test]
    fn medium_and_write_cache() {
        let d = removable();
        good(&d, &[PREVENT_ALLOW, 0, 0, 0, 1]);
        assert_eq!(fail(&d, &[START_STOP_UNIT, 0, 0, 0, 2]), (5, 0x53));
        good(&d, &[PREVENT_ALLOW]);
        good(&d, &[START_STOP_UNIT, 0, 0, 0, 2]);
        assert_eq!(fail(&d, &[op::TEST_UNIT_READY]), (2, 0x3a));
        let state = d.save();
        good(&d, &[START_STOP_UNIT, 0, 0, 0, 3]);
        assert_eq!(sense_of(&d), (6, 0x28));
        good(&d, &[op::TEST_UNIT_READY]);
        d.load(&state).unwrap();
        assert_eq!(fail(&d, &[op::TEST_UNIT_READY]), (2, 0x3a));
        d.reset();
        assert_eq!(fail(&d, &[op::TEST_UNIT_READY]), (6, 0x29));
        good(&d, &[op::TEST_UNIT_READY]);
        let fixed = disk(false, ScsiDiskOptions::default());
        assert_eq!(fail(&fixed, &[START_STOP_UNIT, 0, 0, 0, 2]), (5, 0x24));
        // Write cache off: writes are flushed.
        let select = cdb(&[MODE_SELECT_6, 0x10, 0, 0, 24]);
        assert!(matches!(d.execute(&select), Action::Out(24)));
        let mut page = vec![0, 0, 0, 0, 8, 18];
        page.resize(24, 0);
        assert!(matches!(d.data_out(&select, &page), Action::Run { .. }));
        let c = cdb(&[WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(matches!(d.execute(&c), Action::Transfer { flush: true, .. }));
        assert!(matches!(d.data_out(&select, &[0, 0, 0, 21]), Action::Fail(sense::PARAMETER_LENGTH)));
    }
}
