//! Commands (NVMe 1.4, 4.2), status (4.6.1) and PRP lists (4.3).

use crate::guest::Piece;
use rhea_device::DmaHandle;

/// Status code type and code: SCT << 8 | SC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_OPCODE: Self = Self(0x001);
    pub const INVALID_FIELD: Self = Self(0x002);
    pub const DATA_TRANSFER: Self = Self(0x004);
    pub const INTERNAL: Self = Self(0x006);
    pub const INVALID_NAMESPACE: Self = Self(0x00b);
    pub const SEQUENCE: Self = Self(0x00c);
    pub const PRP_OFFSET: Self = Self(0x013);
    pub const LBA_RANGE: Self = Self(0x080);
    pub const CQ_INVALID: Self = Self(0x100);
    pub const QUEUE_ID: Self = Self(0x101);
    pub const QUEUE_SIZE: Self = Self(0x102);
    pub const EVENT_LIMIT: Self = Self(0x105);
    pub const VECTOR: Self = Self(0x108);
    pub const LOG_PAGE: Self = Self(0x109);
    pub const QUEUE_DELETION: Self = Self(0x10c);
    pub const NOT_SAVEABLE: Self = Self(0x10d);
    pub const READ_ONLY: Self = Self(0x182);
    pub const WRITE_FAULT: Self = Self(0x280);
    pub const READ_ERROR: Self = Self(0x281);
    pub const COMPARE: Self = Self(0x285);

    /// The status field with the do-not-retry bit, as it stands above the phase tag.
    #[must_use]
    pub fn field(self) -> u16 {
        // Errors of the medium may be tried again.
        let retry = self.0 == 0 || self.0 >> 8 == 2 && self.0 != Self::COMPARE.0;
        (self.0 | if retry { 0 } else { 1 << 14 }) << 1
    }
}

/// A submission queue entry.
#[derive(Clone, Copy, Debug)]
pub struct Command(pub [u32; 16]);

impl Command {
    #[must_use]
    pub fn parse(bytes: &[u8; 64]) -> Self {
        let mut words = [0; 16];
        for (w, b) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *w = b.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
        }
        Self(words)
    }
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.0[0] as u8
    }
    #[must_use]
    pub fn id(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }
    /// Neither fused nor with scatter-gather lists.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0[0] & 0xc300 == 0
    }
    #[must_use]
    pub fn namespace(&self) -> u32 {
        self.0[1]
    }
    #[must_use]
    pub fn dword(&self, n: usize) -> u32 {
        self.0[n & 15]
    }
    fn quad(&self, n: usize) -> u64 {
        u64::from(self.0[n]) | u64::from(self.0[n + 1]) << 32
    }
    #[must_use]
    pub fn prp1(&self) -> u64 {
        self.quad(6)
    }
    #[must_use]
    pub fn prp2(&self) -> u64 {
        self.quad(8)
    }
    /// The first block of a transfer.
    #[must_use]
    pub fn first_block(&self) -> u64 {
        self.quad(10)
    }
    /// Blocks of a transfer.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        u64::from(self.0[12] & 0xffff) + 1
    }
}

fn push(list: &mut Vec<Piece>, at: u64, len: u64) {
    match list.last_mut() {
        Some((start, n)) if start.checked_add(*n) == Some(at) => *n += len,
        _ => list.push((at, len)),
    }
}

/// The memory that a command's PRP entries describe, `len` bytes; `page` is the controller's page size. The caller has bounded `len`.
///
/// # Errors
/// An entry with an offset where there must be none, or a list outside memory.
pub fn prp(dma: &DmaHandle, c: &Command, len: u64, page: u64) -> Result<Vec<Piece>, Status> {
    let (mut list, mask) = (Vec::new(), page - 1);
    let first = c.prp1();
    if first & 3 != 0 {
        return Err(Status::PRP_OFFSET);
    }
    let n = (page - (first & mask)).min(len);
    push(&mut list, first, n);
    let mut left = len - n;
    if left == 0 {
        return Ok(list);
    }
    let second = c.prp2();
    if left <= page {
        if second & mask != 0 {
            return Err(Status::PRP_OFFSET);
        }
        push(&mut list, second, left);
        return Ok(list);
    }
    let mut at = second;
    if at & 7 != 0 {
        return Err(Status::PRP_OFFSET);
    }
    while left > 0 {
        // Entries up to the end of the page; the last of a page leads to the next part, unless it is the last of all.
        let room = (page - (at & mask)) / 8;
        let needed = left.div_ceil(page);
        let used = needed.min(room);
        let mut bytes = vec![0; (used * 8) as usize];
        dma.read_ram(at, &mut bytes).map_err(|_| Status::DATA_TRANSFER)?;
        let mut next = None;
        for (n, e) in bytes.chunks_exact(8).enumerate() {
            let entry = e.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
            if entry & mask != 0 {
                return Err(Status::PRP_OFFSET);
            }
            if n as u64 + 1 == room && needed > room {
                next = Some(entry);
                break;
            }
            let n = page.min(left);
            push(&mut list, entry, n);
            left -= n;
        }
        match next {
            // A list of one entry in each page would lead nowhere.
            Some(entry) if page > 8 => at = entry,
            _ => break,
        }
    }
    if left == 0 { Ok(list) } else { Err(Status::PRP_OFFSET) }
}
