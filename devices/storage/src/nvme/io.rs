//! I/O commands (NVMe 1.4, chapter 6).

use super::command::{self, Command, Status};
use super::queue::Sq;
use super::{Controller, MAX_TRANSFER};
use crate::guest::{self, Piece};
use crate::work::{self, Work};
use rhea_block::{Operation, Segment};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod opcode {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

const ALL_NAMESPACES: u32 = u32::MAX;
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// Reads run on the caller's thread in one go, before the drive's threads get them.
const INLINE: u32 = 64;
/// Bytes compared at once.
const CHUNK: usize = 4096;

/// What a command needs, and what happens when the drive is done.
struct Request {
    work: Work,
    /// The guest's memory that the data read is compared with.
    compare: Option<Vec<Piece>>,
}

impl Request {
    fn new(operation: Operation) -> Self {
        Self { work: Work::One(operation), compare: None }
    }
}

impl Controller {
    /// Runs an I/O command; `None`: it is answered later.
    pub(super) fn io_command(self: &Arc<Self>, sq: &Arc<Sq>, c: &Command, inline: &mut u32) -> Option<(Status, u32)> {
        let request = match self.request(c) {
            Ok(Some(r)) => r,
            Ok(None) => return Some((Status::SUCCESS, 0)),
            Err(status) => return Some((status, 0)),
        };
        let Request { work, compare } = request;
        let opcode = c.opcode();
        let work = if *inline < INLINE { work::try_now(&self.drive, work) } else { Err(work) };
        match work {
            Ok((result, segments)) => {
                *inline += 1;
                Some((self.status_of(opcode, &result, &segments, compare.as_deref()), 0))
            }
            Err(work) => {
                let (me, sq, cid) = (self.clone(), sq.clone(), c.id());
                let done = move |result: io::Result<()>, segments: Vec<Segment>| {
                    let status = me.status_of(opcode, &result, &segments, compare.as_deref());
                    drop(segments);
                    me.post(&sq, cid, status, 0);
                    me.interrupt(&sq.cq);
                    me.release(&sq);
                    me.run(&sq);
                };
                work::submit(&self.drive, work, Box::new(done));
                None
            }
        }
    }

    fn status_of(
        &self,
        opcode: u8,
        result: &io::Result<()>,
        segments: &[Segment],
        compare: Option<&[Piece]>,
    ) -> Status {
        guest::unpin(segments);
        match result {
            Ok(()) => match (compare, segments) {
                (Some(pieces), [Segment::Host(data)]) => self.compare(pieces, data),
                _ => Status::SUCCESS,
            },
            Err(_) if matches!(opcode, opcode::READ | opcode::COMPARE) => Status::READ_ERROR,
            Err(_) => Status::WRITE_FAULT,
        }
    }
    fn compare(&self, pieces: &[Piece], data: &[u8]) -> Status {
        let (mut rest, mut buffer) = (data, [0; CHUNK]);
        for &(at, len) in pieces {
            let mut done = 0;
            while done < len {
                let n = (len - done).min(CHUNK as u64) as usize;
                let Some((now, later)) = rest.split_at_checked(n) else { return Status::INTERNAL };
                if self.dma.read_ram(at.wrapping_add(done), &mut buffer[..n]).is_err() {
                    return Status::DATA_TRANSFER;
                }
                if now != &buffer[..n] {
                    return Status::COMPARE;
                }
                rest = later;
                done += n as u64;
            }
        }
        Status::SUCCESS
    }

    /// Offset and length in bytes.
    fn inside(&self, first: u64, blocks: u64) -> Result<(u64, u64), Status> {
        if first.checked_add(blocks).is_none_or(|end| end > self.blocks()) {
            return Err(Status::LBA_RANGE);
        }
        Ok((first << self.shift, blocks << self.shift))
    }

    /// What the drive is to do; `None`: nothing.
    fn request(&self, c: &Command) -> Result<Option<Request>, Status> {
        let code = c.opcode();
        let known = matches!(
            code,
            opcode::FLUSH
                | opcode::WRITE
                | opcode::READ
                | opcode::COMPARE
                | opcode::WRITE_ZEROES
                | opcode::DATASET_MANAGEMENT
        );
        if !known {
            return Err(Status::INVALID_OPCODE);
        }
        if !c.is_plain() {
            return Err(Status::INVALID_FIELD);
        }
        if c.namespace() != 1 && !(code == opcode::FLUSH && c.namespace() == ALL_NAMESPACES) {
            return Err(Status::INVALID_NAMESPACE);
        }
        let writes = matches!(code, opcode::WRITE | opcode::WRITE_ZEROES | opcode::DATASET_MANAGEMENT);
        if writes && self.drive.readonly() {
            return Err(Status::READ_ONLY);
        }
        let flush = c.dword(12) & FORCE_UNIT_ACCESS != 0 || !self.write_cache.load(Ordering::Acquire);
        Ok(Some(match code {
            opcode::READ | opcode::WRITE | opcode::COMPARE => {
                if c.blocks() << self.shift > MAX_TRANSFER {
                    return Err(Status::INVALID_FIELD);
                }
                let (offset, len) = self.inside(c.first_block(), c.blocks())?;
                let pieces = command::prp(&self.dma, c, len, self.page_size())?;
                if code == opcode::COMPARE {
                    let segments = vec![Segment::Host(vec![0; len as usize])];
                    return Ok(Some(Request {
                        work: Work::One(Operation::Read { offset, segments }),
                        compare: Some(pieces),
                    }));
                }
                let read = code == opcode::READ;
                let segments = guest::segments(&self.dma, &pieces, read).ok_or(Status::DATA_TRANSFER)?;
                Request::new(match read {
                    true => Operation::Read { offset, segments },
                    false => Operation::Write { offset, segments, flush },
                })
            }
            opcode::WRITE_ZEROES => {
                let (offset, len) = self.inside(c.first_block(), c.blocks())?;
                let may_unmap = c.dword(12) & DEALLOCATE != 0;
                Request::new(Operation::WriteZeroes { offset, len, may_unmap, flush })
            }
            opcode::DATASET_MANAGEMENT => {
                let count = (c.dword(10) & 0xff) as usize + 1;
                let mut data = vec![0; count * 16];
                let pieces = command::prp(&self.dma, c, data.len() as u64, self.page_size())?;
                guest::gather(&self.dma, &pieces, &mut data).map_err(|_| Status::DATA_TRANSFER)?;
                let mut list = Vec::new();
                for r in data.chunks_exact(16) {
                    let number = |b: &[u8]| b.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                    let (offset, len) = self.inside(number(&r[8..16]), number(&r[4..8]))?;
                    if len > 0 {
                        list.push(Operation::Discard { offset, len });
                    }
                }
                // Only deallocation does something; the other attributes are hints.
                if c.dword(11) & 4 == 0 || list.is_empty() {
                    return Ok(None);
                }
                Request { work: Work::Many(list), compare: None }
            }
            _ => Request::new(Operation::Flush),
        }))
    }
}
