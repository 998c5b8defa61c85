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
const POWER_ON: Sense = sense::RESET;
const NOT_READY: Sense = Sense { key: 2, code: 0x04, qualifier: 2 };
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
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    write_cache: bool,
    #[n(1)]
    stopped: bool,
    #[n(2)]
    sense: Sense,
    #[n(3)]
    attention: bool,
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
        options.physical_block = options.physical_block.max(geometry.physical_block).max(block);
        let state = Mutex::new(State {
            write_cache: drive.cache().write_cache(),
            stopped: false,
            sense: sense::NONE,
            attention: true,
        });
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
                let pending = if s.sense == sense::NONE && s.attention { POWER_ON } else { s.sense };
                s.attention &= pending != POWER_ON;
                s.sense = sense::NONE;
                return data(pending.fixed().to_vec(), c[4].into());
            }
            op::REPORT_LUNS => return data(super::report_luns(&[0]), word(c, 6)),
            _ => (),
        }
        {
            let mut s = self.state.lock();
            if std::mem::take(&mut s.attention) {
                return Err(POWER_ON);
            }
            if s.stopped && !matches!(c[0], START_STOP_UNIT | MODE_SENSE_6 | MODE_SENSE_10) {
                return Err(NOT_READY);
            }
        }
        match c[0] {
            op::TEST_UNIT_READY | RESERVE_6 | RELEASE_6 | PREVENT_ALLOW => Ok(Action::Good),
            START_STOP_UNIT => {
                // Power conditions leave the medium usable; there is nothing to eject.
                if c[4] >> 4 == 0 {
                    if c[4] & 2 != 0 {
                        return Err(sense::INVALID_FIELD);
                    }
                    self.state.lock().stopped = c[4] & 1 == 0;
                }
                Ok(Action::Good)
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
    /// WRITE SAME with `data` (nothing: zeroes).
    fn same(&self, c: &Cdb, data: &[u8]) -> Result<Action, Sense> {
        let (first, count) = extent(c);
        let count = if count == 0 { self.blocks().saturating_sub(first) } else { count };
        let (offset, len) = self.range(first, count)?;
        let unmap = c[1] & 8 != 0;
        if data.iter().all(|b| *b == 0) {
            let zero = Operation::WriteZeroes { offset, len, may_unmap: unmap && self.unmaps(), flush: false };
            return Ok(self.run(vec![zero]));
        }
        if len > 16 << 20 {
            return Err(sense::INVALID_FIELD);
        }
        let segments = vec![rhea_block::Segment::Host(data.repeat(count as usize))];
        Ok(self.run(vec![Operation::Write { offset, segments, flush: false }]))
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
                Ok(self.run(operations))
            }
            MODE_SELECT_6 | MODE_SELECT_10 => {
                let header = if c[0] == MODE_SELECT_6 { 4 } else { 8 };
                let size = |at: usize| data.get(at).map(|b| usize::from(*b)).ok_or(sense::PARAMETER_LENGTH);
                let descriptors = size(header - 1)?;
                let mut rest = data.get(header + descriptors..).ok_or(sense::PARAMETER_LENGTH)?;
                while let [code, len, ..] = *rest {
                    let body = rest.get(2..2 + usize::from(len)).ok_or(sense::PARAMETER_LENGTH)?;
                    match (code & 0x3f, body) {
                        (pages::CACHING, [flags, ..]) => self.state.lock().write_cache = flags & 4 != 0,
                        (pages::RECOVERY | pages::CONTROL, _) => (),
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
        let mut s = self.state.lock();
        s.sense = sense::NONE;
        s.stopped = false;
        s.attention = true;
    }
    fn power_on(&self) {
        self.reset();
        self.state.lock().write_cache = self.drive.cache().write_cache();
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
