//! L2 tables: pieces of them in memory, and what they say.

use super::{COMPRESSED, COPIED, Meta, OFFSET, Qcow2, ZERO, words};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::io;

/// Bytes of a table that are read and written together.
const SLICE: u64 = 4096;

/// A piece of an L2 table.
pub(super) struct Slice {
    pub(super) words: Vec<u64>,
    pub(super) dirty: bool,
    /// Being written: must not be read from disk again.
    writing: bool,
    used: bool,
}

/// Pieces of L2 tables by their place in the file.
pub(super) struct L2Cache {
    slices: FxHashMap<u64, Slice>,
    /// Order in which they are looked at to be dropped.
    order: VecDeque<u64>,
    limit: usize,
    slice_bytes: u64,
    dirty: usize,
}

impl L2Cache {
    pub(super) fn new(cluster_bits: u32, bytes: u64) -> Self {
        let slice_bytes = SLICE.min(1 << cluster_bits);
        let limit = (bytes / slice_bytes).clamp(16, 1 << 24) as usize;
        Self { slices: FxHashMap::default(), order: VecDeque::new(), limit, slice_bytes, dirty: 0 }
    }
    /// Drops what was not used lately.
    fn make_room(&mut self) {
        let mut tries = self.order.len();
        while self.slices.len() >= self.limit && tries > 0 {
            tries -= 1;
            let Some(offset) = self.order.pop_front() else { break };
            match self.slices.get_mut(&offset) {
                None => {}
                Some(s) if s.used || s.dirty || s.writing => {
                    s.used = false;
                    self.order.push_back(offset);
                }
                Some(_) => {
                    self.slices.remove(&offset);
                }
            }
        }
    }
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty > 0
    }
    /// So much is to be written that it is time to.
    pub(super) fn is_full(&self) -> bool {
        self.dirty > self.limit / 2
    }
    /// Everything that must be written. It counts as written until [`Self::written`] says otherwise.
    pub(super) fn take_dirty(&mut self) -> Vec<(u64, Vec<u8>)> {
        if self.dirty == 0 {
            return Vec::new();
        }
        let mut list = Vec::with_capacity(self.dirty);
        for (offset, slice) in self.slices.iter_mut().filter(|(_, s)| s.dirty) {
            slice.dirty = false;
            slice.writing = true;
            list.push((*offset, super::bytes_of(&slice.words)));
        }
        self.dirty = 0;
        list.sort_by_key(|(offset, _)| *offset);
        list
    }
    pub(super) fn written(&mut self, list: &[(u64, Vec<u8>)], ok: bool) {
        for (offset, _) in list {
            if let Some(slice) = self.slices.get_mut(offset) {
                slice.writing = false;
                if !ok && !slice.dirty {
                    slice.dirty = true;
                    self.dirty += 1;
                }
            }
        }
    }
    /// Forgets everything; nothing is dirty.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
        self.order.clear();
        self.dirty = 0;
    }
    /// Forgets the pieces of a table that is no longer one.
    pub(super) fn forget(&mut self, table: u64, len: u64) {
        for offset in (table..table + len).step_by(self.slice_bytes as usize) {
            if let Some(s) = self.slices.remove(&offset)
                && s.dirty
            {
                self.dirty -= 1;
            }
        }
    }
}

/// What an entry, or part of it, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Absent,
    Zero,
    Data,
    Compressed,
}

/// A piece of the disk with one mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) kind: Kind,
    /// Of data: where it is in the data file.
    pub(super) host: u64,
    pub(super) len: u64,
    /// The cluster is used by nobody else: it may be written in place.
    pub(super) copied: bool,
    pub(super) entry: u64,
}

/// An L2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) word: u64,
    /// Low half: subclusters with data; high half: subclusters that read as zero.
    pub(super) bitmap: u64,
}

/// Subclusters of a cluster.
pub(super) const SUBCLUSTERS: u64 = 32;
pub(super) const ALL_DATA: u64 = 0xffff_ffff;
pub(super) const ALL_ZERO: u64 = 0xffff_ffff << 32;

impl Qcow2 {
    fn entry_words(&self) -> u64 {
        if self.extended { 2 } else { 1 }
    }
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster() / 8 / self.entry_words()
    }
    /// Bytes of the disk with one mapping: a cluster, or a subcluster.
    pub(super) fn unit(&self) -> u64 {
        if self.extended { self.cluster() / SUBCLUSTERS } else { self.cluster() }
    }
    pub(super) fn l1_index(&self, offset: u64) -> usize {
        (offset >> self.cluster_bits).checked_div(self.l2_entries()).unwrap_or(0) as usize
    }
    /// Bytes from `offset` to where another piece of a table describes the disk.
    pub(super) fn to_slice_end(&self, m: &Meta, offset: u64) -> u64 {
        let span = (m.l2.slice_bytes / 8 / self.entry_words()) << self.cluster_bits;
        span - offset % span
    }
    /// The piece of the L2 table at `table` with the entry of `offset`: its place.
    fn slice_of(&self, m: &Meta, table: u64, offset: u64) -> (u64, usize) {
        let index = (offset >> self.cluster_bits) % self.l2_entries() * self.entry_words();
        let per = m.l2.slice_bytes / 8;
        (table + index / per * m.l2.slice_bytes, (index % per) as usize)
    }
    pub(super) fn slice<'a>(&self, m: &'a mut Meta, offset: u64) -> io::Result<&'a mut Slice> {
        if !m.l2.slices.contains_key(&offset) {
            m.l2.make_room();
            let mut bytes = vec![0; m.l2.slice_bytes as usize];
            self.file.read_bytes(offset, &mut bytes)?;
            let slice = Slice { words: words(&bytes), dirty: false, writing: false, used: false };
            m.l2.slices.insert(offset, slice);
            m.l2.order.push_back(offset);
        }
        match m.l2.slices.get_mut(&offset) {
            Some(slice) => {
                slice.used = true;
                Ok(slice)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
    /// The L2 table of an offset; 0: none.
    fn table_of(&self, m: &mut Meta, offset: u64) -> io::Result<u64> {
        let index = self.l1_index(offset);
        let Some(entry) = m.l1.get(index).copied() else {
            return Err(self.damaged(m, "the L1 table is too small for the disk"));
        };
        let table = entry & OFFSET;
        if !table.is_multiple_of(self.cluster()) {
            return Err(self.damaged(m, format!("L2 table offset {table:#x} (L1 index {index}) is not aligned")));
        }
        Ok(table)
    }
    /// The entry of the cluster at `offset`.
    pub(super) fn entry(&self, m: &mut Meta, offset: u64) -> io::Result<Entry> {
        let table = self.table_of(m, offset)?;
        if table == 0 {
            return Ok(Entry::default());
        }
        let (slice, index) = self.slice_of(m, table, offset);
        let words = &self.slice(m, slice)?.words;
        Ok(Entry { word: words[index], bitmap: if self.extended { words[index + 1] } else { 0 } })
    }
    /// Changes the entry of the cluster at `offset`, whose table is this image's own.
    pub(super) fn set_entry(&self, m: &mut Meta, offset: u64, entry: Entry) -> io::Result<()> {
        let table = self.table_of(m, offset)?;
        let (at, index) = self.slice_of(m, table, offset);
        let extended = self.extended;
        let slice = self.slice(m, at)?;
        slice.words[index] = entry.word;
        if extended {
            slice.words[index + 1] = entry.bitmap;
        }
        if !slice.dirty {
            slice.dirty = true;
            m.l2.dirty += 1;
        }
        Ok(())
    }
    /// Has the cluster of the entry a place in the data file, whatever of it is used?
    pub(super) fn has_host(&self, e: Entry) -> bool {
        e.word & COMPRESSED == 0 && (e.word & OFFSET != 0 || (self.has_data_file && e.word & COPIED != 0))
    }
    /// Kind of the byte at `within` of a cluster, and the bytes from there to the end of the unit.
    pub(super) fn decode(&self, e: Entry, within: u64) -> Result<(Kind, u64), &'static str> {
        if e.word & COMPRESSED != 0 {
            if self.has_data_file {
                return Err("a compressed cluster in an image with an external data file");
            }
            return Ok((Kind::Compressed, self.cluster() - within));
        }
        let host = e.word & OFFSET;
        if host & (self.cluster() - 1) != 0 {
            return Err("a data cluster offset is not aligned");
        }
        let present = self.has_host(e);
        if self.extended {
            let unit = self.unit();
            let n = within / unit;
            let (data, zero) = (e.bitmap >> n & 1 != 0, e.bitmap >> (32 + n) & 1 != 0);
            let kind = match (data, zero) {
                (true, true) => return Err("a subcluster is both data and zero"),
                (true, false) if !present => return Err("a subcluster has data, but no place"),
                (true, false) => Kind::Data,
                (false, true) => Kind::Zero,
                (false, false) => Kind::Absent,
            };
            return Ok((kind, unit - within % unit));
        }
        let kind = if self.version >= 3 && e.word & ZERO != 0 {
            Kind::Zero
        } else if present {
            Kind::Data
        } else {
            Kind::Absent
        };
        Ok((kind, self.cluster() - within))
    }
    /// The mapping at `offset`: as much of `max` bytes as has the same, in a row.
    pub(super) fn run_at(&self, m: &mut Meta, offset: u64, max: u64) -> io::Result<Run> {
        let table = self.table_of(m, offset)?;
        if table == 0 {
            let span = self.l2_entries() << self.cluster_bits;
            let len = max.min(span - offset % span);
            return Ok(Run { kind: Kind::Absent, host: 0, len, copied: false, entry: 0 });
        }
        let max = max.min(self.to_slice_end(m, offset));
        let (at, mut index) = self.slice_of(m, table, offset);
        let (cluster, step) = (self.cluster(), self.entry_words() as usize);
        let words = &self.slice(m, at)?.words;
        let mut run: Option<Run> = None;
        let mut done = 0;
        let mut bad = None;
        'all: while done < max {
            let e = Entry { word: words[index], bitmap: if step == 2 { words[index + 1] } else { 0 } };
            loop {
                let within = (offset + done) & (cluster - 1);
                let (kind, left) = match self.decode(e, within) {
                    Ok(d) => d,
                    Err(what) => {
                        bad = Some(what);
                        break 'all;
                    }
                };
                let host = if kind == Kind::Data { (e.word & OFFSET) + within } else { 0 };
                let copied = e.word & COPIED != 0;
                let left = left.min(max - done);
                match &mut run {
                    None => run = Some(Run { kind, host, len: left, copied, entry: e.word }),
                    Some(r)
                        if r.kind == kind
                            && r.copied == copied
                            && kind != Kind::Compressed
                            && (kind != Kind::Data || r.host + r.len == host) =>
                    {
                        r.len += left;
                    }
                    Some(_) => break 'all,
                }
                done += left;
                if done >= max || (offset + done) & (cluster - 1) == 0 {
                    break;
                }
            }
            index += step;
        }
        match (run, bad) {
            (Some(run), _) => Ok(run),
            (None, what) => {
                let what = what.unwrap_or("a mapping is empty");
                Err(self.damaged(m, format!("{what} (disk offset {offset:#x})")))
            }
        }
    }
    /// Makes the L2 table of `offset` this image's own, so that entries can be changed.
    pub(super) fn own_table(&self, m: &mut Meta, offset: u64) -> io::Result<()> {
        let index = self.l1_index(offset);
        let old = self.table_of(m, offset)?;
        if old != 0 && m.l1[index] & COPIED != 0 {
            return Ok(());
        }
        let (new, _) = self.allocate(m, 1)?;
        let fresh = self.use_fresh(m, new, 1);
        let result = if old != 0 {
            let mut data = vec![0; self.cluster() as usize];
            self.file.read_bytes(old, &mut data).and_then(|()| self.file.write_bytes(new, &data))
        } else if fresh {
            // The file must reach into the table.
            self.file.write_bytes(new + self.cluster() - 8, &[0; 8])
        } else {
            self.file.write_zeroes(new, self.cluster(), false)
        };
        if let Err(e) = result {
            self.give_back(m, new, 1);
            return Err(e);
        }
        m.l2.forget(new, self.cluster());
        m.l1[index] = new | COPIED;
        m.l1_dirty.insert(index);
        m.refs.tables.insert(new >> self.cluster_bits);
        if old != 0 {
            m.refs.tables.remove(&(old >> self.cluster_bits));
            self.free_later(m, old, self.cluster());
        }
        Ok(())
    }
    /// What an entry refers to is given back after the next flush.
    pub(super) fn release(&self, m: &mut Meta, e: Entry) {
        if e.word & COMPRESSED != 0 {
            let (offset, len) = self.compressed(e.word);
            self.free_later(m, offset, len);
        } else if e.word & OFFSET != 0 && !self.has_data_file {
            self.free_later(m, e.word & OFFSET, self.cluster());
        }
    }
    /// Place and length of compressed data.
    pub(super) fn compressed(&self, word: u64) -> (u64, u64) {
        let shift = 62 - (self.cluster_bits - 8);
        let offset = word & ((1 << shift) - 1);
        let sectors = (word >> shift & ((1 << (self.cluster_bits - 8)) - 1)) + 1;
        (offset, sectors * 512 - (offset & 511))
    }
    /// The entry of compressed data.
    pub(super) fn compressed_entry(&self, offset: u64, len: u64) -> u64 {
        let shift = 62 - (self.cluster_bits - 8);
        let sectors = ((offset + len - 1) >> 9) - (offset >> 9);
        COMPRESSED | offset | sectors << shift
    }
}

impl Qcow2 {
    /// Can the mapping at `offset` be looked up without reading the file?
    pub(super) fn in_memory(&self, m: &Meta, offset: u64) -> bool {
        match m.l1.get(self.l1_index(offset)).map(|e| e & OFFSET) {
            None => false,
            Some(0) => true,
            Some(table) => m.l2.slices.contains_key(&self.slice_of(m, table, offset).0),
        }
    }
}
