//! Dirty bitmaps: they follow what is written while the image is open, or are marked as in use and so not to be trusted.

use super::header::autoclear;
use super::{Meta, OFFSET, Qcow2, bytes_of, invalid, read_words};
use std::io;

const IN_USE: u32 = 1;
/// The bitmap records writes.
const AUTO: u32 = 2;
const EXTRA_DATA_COMPATIBLE: u32 = 4;
/// The kind of bitmap that records writes.
const DIRTY_TRACKING: u8 = 1;
/// An entry of a bitmap table without a cluster: all bits are ones.
const ALL_ONES: u64 = 1;
const ENTRY: usize = 24;
const MAX_DIRECTORY: u64 = 64 << 20;
const MAX_TABLE: u32 = 1 << 27;

/// A bitmap of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    pub name: String,
    /// Each bit stands for 2^n bytes of the disk.
    pub granularity_bits: u8,
    pub flags: u32,
    pub(super) table_offset: u64,
    pub(super) table_size: u32,
    kind: u8,
    extra: Vec<u8>,
}

/// What was written since the image is in use.
pub(super) struct Tracked {
    index: usize,
    bits: Vec<u64>,
    granularity_bits: u8,
}

impl Bitmap {
    /// Bytes of the disk per bit.
    #[must_use]
    pub fn granularity(&self) -> u64 {
        1 << self.granularity_bits
    }
    /// The words of the flags.
    #[must_use]
    pub fn flag_names(&self) -> Vec<&'static str> {
        [(IN_USE, "in-use"), (AUTO, "auto")].iter().filter(|(f, _)| self.flags & f != 0).map(|(_, n)| *n).collect()
    }
}

/// Parses a directory.
pub(super) fn parse(data: &[u8], count: u32) -> Result<Vec<Bitmap>, String> {
    let mut list = Vec::new();
    let mut at = 0;
    for n in 0..count {
        let short = || format!("entry {n} of the bitmap directory is truncated");
        let e = data.get(at..).and_then(|d| d.get(..ENTRY)).ok_or_else(short)?;
        let u32_at = |i: usize| u32::from_be_bytes([e[i], e[i + 1], e[i + 2], e[i + 3]]);
        let name_len = usize::from(u16::from_be_bytes([e[18], e[19]]));
        let extra_len = u32_at(20) as usize;
        let extra = data.get(at + ENTRY..).and_then(|d| d.get(..extra_len)).ok_or_else(short)?;
        let name = data.get(at + ENTRY + extra_len..).and_then(|d| d.get(..name_len)).ok_or_else(short)?;
        let bitmap = Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            granularity_bits: e[17],
            flags: u32_at(12),
            table_offset: u64::from(u32_at(0)) << 32 | u64::from(u32_at(4)),
            table_size: u32_at(8),
            kind: e[16],
            extra: extra.to_vec(),
        };
        if bitmap.name.is_empty() || name_len > 1023 || bitmap.table_size > MAX_TABLE {
            return Err(format!("entry {n} of the bitmap directory is invalid"));
        }
        if !(9..=31).contains(&bitmap.granularity_bits) {
            return Err(format!("bitmap '{}' has an invalid granularity", bitmap.name));
        }
        list.push(bitmap);
        at += (ENTRY + extra_len + name_len).next_multiple_of(8);
    }
    Ok(list)
}

fn to_bytes(list: &[Bitmap]) -> Vec<u8> {
    let mut b = Vec::new();
    for e in list {
        b.extend_from_slice(&e.table_offset.to_be_bytes());
        b.extend_from_slice(&e.table_size.to_be_bytes());
        b.extend_from_slice(&e.flags.to_be_bytes());
        b.extend_from_slice(&[e.kind, e.granularity_bits]);
        b.extend_from_slice(&(e.name.len() as u16).to_be_bytes());
        b.extend_from_slice(&(e.extra.len() as u32).to_be_bytes());
        b.extend_from_slice(&e.extra);
        b.extend_from_slice(e.name.as_bytes());
        b.resize(b.len().next_multiple_of(8), 0);
    }
    b
}

impl Qcow2 {
    pub(super) fn directory(&self, m: &Meta) -> io::Result<Vec<Bitmap>> {
        let Some(e) = m.header.bitmaps.filter(|_| m.header.autoclear & autoclear::BITMAPS != 0) else {
            return Ok(Vec::new());
        };
        if e.directory_size > MAX_DIRECTORY
            || e.directory_offset.saturating_add(e.directory_size) > self.file.capacity()
        {
            return Err(invalid("the bitmap directory is invalid"));
        }
        let mut data = vec![0; e.directory_size as usize];
        self.file.read_bytes(e.directory_offset, &mut data)?;
        parse(&data, e.count).map_err(invalid)
    }
    /// The bitmaps of the image.
    ///
    /// # Errors
    /// They are damaged.
    pub fn bitmaps(&self) -> io::Result<Vec<Bitmap>> {
        self.directory(&self.meta.lock())
    }
    fn write_directory(&self, m: &Meta, list: &[Bitmap]) -> io::Result<()> {
        match m.header.bitmaps {
            Some(e) => self.file.write_bytes(e.directory_offset, &to_bytes(list)),
            None => Ok(()),
        }
    }
    /// Marks all bitmaps that record writes as in use, and begins to record.
    pub(super) fn start_bitmaps(&self, m: &mut Meta) -> io::Result<()> {
        let mut list = self.directory(m)?;
        for (index, b) in list.iter_mut().enumerate() {
            let foreign = b.kind != DIRTY_TRACKING || (!b.extra.is_empty() && b.flags & EXTRA_DATA_COMPATIBLE == 0);
            if b.flags & AUTO == 0 || b.flags & IN_USE != 0 || foreign {
                continue;
            }
            let bits = m.header.size.div_ceil(b.granularity());
            if bits > 1 << 34 {
                return Err(invalid(format!("bitmap '{}' is too fine for the disk", b.name)));
            }
            b.flags |= IN_USE;
            let bits = vec![0; bits.div_ceil(64) as usize];
            m.bitmaps.push(Tracked { index, bits, granularity_bits: b.granularity_bits });
        }
        if !m.bitmaps.is_empty() {
            self.write_directory(m, &list)?;
            self.barrier()?;
        }
        Ok(())
    }
    /// The range is written.
    pub(super) fn mark_bitmaps(&self, m: &mut Meta, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        for t in &mut m.bitmaps {
            for bit in offset >> t.granularity_bits..=(offset + len - 1) >> t.granularity_bits {
                if let Some(word) = t.bits.get_mut((bit / 64) as usize) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
    }
    /// Adds what was recorded to the bitmaps of the image, which can be trusted again.
    pub(super) fn store_bitmaps(&self) -> io::Result<()> {
        let mut list = {
            let m = self.meta.lock();
            if m.bitmaps.is_empty() {
                return Ok(());
            }
            self.directory(&m)?
        };
        let tracked = std::mem::take(&mut self.meta.lock().bitmaps);
        for t in &tracked {
            if let Some(b) = list.get_mut(t.index) {
                self.store_bitmap(b, t)?;
                b.flags &= !IN_USE;
            }
        }
        // Clusters of bitmaps are counted and written before the directory says that they are good.
        self.flush_tables()?;
        self.barrier()?;
        self.write_directory(&self.meta.lock(), &list)
    }
    fn store_bitmap(&self, b: &Bitmap, t: &Tracked) -> io::Result<()> {
        let mut m = self.meta.lock();
        let m = &mut *m;
        if !b.table_offset.is_multiple_of(self.cluster()) {
            return Err(invalid(format!("the table of bitmap '{}' is not aligned", b.name)));
        }
        let end = self.file.capacity();
        if b.table_offset.saturating_add(u64::from(b.table_size) * 8) > end.next_multiple_of(self.cluster()) {
            return Err(invalid(format!("the table of bitmap '{}' lies behind the end of the file", b.name)));
        }
        let mut table = read_words(&*self.file, b.table_offset, b.table_size as usize)?;
        let per = (self.cluster() / 8) as usize;
        for (words, entry) in t.bits.chunks(per).zip(&mut table) {
            if words.iter().all(|w| *w == 0) || (*entry & OFFSET == 0 && *entry & ALL_ONES != 0) {
                continue;
            }
            let mut data = vec![0; self.cluster() as usize];
            if *entry & OFFSET == 0 {
                *entry = self.allocate(m, 1)?.0;
                self.use_fresh(m, *entry, 1);
            } else {
                self.file.read_bytes(*entry & OFFSET, &mut data)?;
            }
            for (byte, new) in data.iter_mut().zip(words.iter().flat_map(|w| w.to_le_bytes())) {
                *byte |= new;
            }
            if self.is_table(m, (*entry & OFFSET) >> self.cluster_bits) {
                return Err(self.damaged(m, format!("a cluster of bitmap '{}' is a table", b.name)));
            }
            self.file.write_bytes(*entry & OFFSET, &data)?;
        }
        self.file.write_bytes(b.table_offset, &bytes_of(&table))
    }
}
