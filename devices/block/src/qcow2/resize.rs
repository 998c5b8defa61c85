//! Changing the size of the disk.

use super::{Meta, Qcow2, bytes_of};
use crate::BlockBackend;
use std::io;
use std::sync::atomic::Ordering;

impl Qcow2 {
    pub(super) fn set_size(&self, capacity: u64) -> io::Result<()> {
        self.check_writable()?;
        let fail = |text: &str| Err(io::Error::new(io::ErrorKind::Unsupported, text));
        if !capacity.is_multiple_of(512) || capacity > i64::MAX as u64 {
            return fail("the size must be a multiple of 512");
        }
        {
            let m = self.meta.lock();
            if !m.snapshots.is_empty() && (self.version < 3 || capacity < self.capacity()) {
                return fail("an image with internal snapshots cannot be shrunk, and grown only with compat=1.1");
            }
            if m.header.bitmaps.is_some() {
                return fail("an image with dirty bitmaps cannot be resized: remove them first");
            }
        }
        let old = self.capacity();
        if capacity < old {
            // Whole clusters behind the new end go, and their storage with them.
            self.discard_behind(capacity, old)?;
        }
        let _all = self.ranges.all();
        self.settle()?;
        if self.has_data_file {
            self.data().resize(capacity)?;
        }
        let mut guard = self.meta.lock();
        let m = &mut *guard;
        let needed = m.header.l1_needed(capacity);
        if needed > m.l1.len() as u64 {
            if needed > super::header::MAX_L1 {
                return fail("the disk would be too large for the clusters of the image");
            }
            self.grow_l1(m, needed)?;
        }
        let mut header = m.header.clone();
        header.size = capacity;
        self.write_header(&header)?;
        m.header = header;
        self.size.store(capacity, Ordering::Release);
        drop(guard);
        self.settle()?;
        drop(_all);
        if capacity > old {
            // What lies below must not show where the disk ended before.
            let below = self.backing().map_or(0, |b| b.capacity());
            let end = old.next_multiple_of(self.cluster()).max(below).min(capacity);
            if end > old {
                self.write_zeroes(old, end - old, true)?;
                self.flush()?;
            }
        }
        Ok(())
    }
    fn discard_behind(&self, from: u64, end: u64) -> io::Result<()> {
        let start = from.next_multiple_of(self.cluster());
        if from < start.min(end) {
            self.write_zeroes(from, start.min(end) - from, false)?;
        }
        let mut at = start;
        while at < end {
            self.relieve()?;
            at += self.drop_clusters(at, end - at, true, false)?;
        }
        Ok(())
    }
    /// Moves the L1 table to where it has room for `entries`.
    pub(super) fn grow_l1(&self, m: &mut Meta, entries: u64) -> io::Result<()> {
        let mut l1 = m.l1.clone();
        l1.resize(entries as usize, 0);
        let clusters = (entries * 8).div_ceil(self.cluster());
        let offset = self.allocate_row(m, clusters)?;
        self.use_fresh(m, offset, clusters);
        let mut bytes = bytes_of(&l1);
        bytes.resize((clusters * self.cluster()) as usize, 0);
        self.file.write_bytes(offset, &bytes)?;
        for (n, at, data) in m.refs.take_dirty() {
            self.file.write_bytes(at, &data)?;
            m.refs.written(&[(n, at, Vec::new())], true);
        }
        self.barrier()?;
        let (old, old_len) = (m.header.l1_offset, u64::from(m.header.l1_size) * 8);
        let mut header = m.header.clone();
        header.l1_offset = offset;
        header.l1_size = entries as u32;
        self.write_header(&header)?;
        self.barrier()?;
        m.header = header;
        m.l1 = l1;
        // All of it was written.
        m.l1_dirty.clear();
        if old != 0 && old_len != 0 {
            self.free_later(m, old, old_len);
        }
        Ok(())
    }
}
