//! Writing the tables, in the order that keeps the image sound.

use super::{Meta, Qcow2, incompatible};
use std::io;

/// What one pass writes.
struct Batch {
    counts: Vec<(usize, u64, Vec<u8>)>,
    l2: Vec<(u64, Vec<u8>)>,
    l1: Vec<(usize, u64)>,
    l1_offset: u64,
    frees: Vec<(u64, u64)>,
}

impl Qcow2 {
    /// Writes what changed in the tables, so that everything that was written up to now is found again.
    pub(super) fn flush_tables(&self) -> io::Result<()> {
        let _one = self.flushing.lock();
        let batch = {
            let mut m = self.meta.lock();
            let m = &mut *m;
            if !m.l2.is_dirty() && m.l1_dirty.is_empty() && m.frees.is_empty() && !m.refs.is_dirty() {
                return Ok(());
            }
            let l1: Vec<(usize, u64)> = std::mem::take(&mut m.l1_dirty).into_iter().map(|n| (n, m.l1[n])).collect();
            Batch {
                counts: if self.is_lazy(m) { Vec::new() } else { m.refs.take_dirty() },
                l2: m.l2.take_dirty(),
                l1,
                l1_offset: m.header.l1_offset,
                frees: std::mem::take(&mut m.frees),
            }
        };
        let result = self.write_batch(&batch);
        let mut m = self.meta.lock();
        let m = &mut *m;
        m.refs.written(&batch.counts, result.is_ok());
        m.l2.written(&batch.l2, result.is_ok());
        if let Err(e) = result {
            m.l1_dirty.extend(batch.l1.iter().map(|(n, _)| *n));
            m.frees.extend(batch.frees);
            return Err(e);
        }
        if !batch.frees.is_empty() {
            *self.unpacked.lock() = None;
        }
        // Nothing on disk refers to them any more.
        for (first, last) in batch.frees {
            for cluster in first..=last {
                self.add_refcount(m, cluster, -1)?;
                if m.compressed_at >> self.cluster_bits == cluster {
                    m.compressed_at = 0;
                }
            }
        }
        Ok(())
    }

    fn write_batch(&self, batch: &Batch) -> io::Result<()> {
        for (_, offset, data) in &batch.counts {
            self.file.write_bytes(*offset, data)?;
        }
        if batch.l2.is_empty() && batch.l1.is_empty() {
            return Ok(());
        }
        if self.has_data_file && !self.options.no_flush {
            self.data().flush()?;
        }
        // Data and counts before what refers to them.
        self.barrier()?;
        for (offset, data) in &batch.l2 {
            self.file.write_bytes(*offset, data)?;
        }
        for row in batch.l1.chunk_by(|a, b| a.0 + 1 == b.0) {
            let bytes: Vec<u8> = row.iter().flat_map(|(_, entry)| entry.to_be_bytes()).collect();
            self.file.write_bytes(batch.l1_offset + row[0].0 as u64 * 8, &bytes)?;
        }
        if batch.frees.is_empty() {
            return Ok(());
        }
        // References before the counts that go.
        self.barrier()?;
        self.discard_freed(&batch.frees);
        Ok(())
    }
    /// Releases the storage of clusters that nobody else uses; they are still counted, so nobody takes them meanwhile.
    fn discard_freed(&self, frees: &[(u64, u64)]) {
        for &(first, last) in frees {
            let alone = {
                let mut m = self.meta.lock();
                (first..=last).all(|c| self.refcount(&mut m, c).is_ok_and(|n| n == 1))
                    // A compressed cluster may be one of several in the list.
                    && frees.iter().filter(|(a, b)| *a <= last && first <= *b).count() == 1
            };
            if alone {
                // A hint.
                let _ = self.file.discard(first << self.cluster_bits, (last - first + 1) << self.cluster_bits);
            }
        }
    }
    /// Writes tables if too much of them waits.
    pub(super) fn relieve(&self) -> io::Result<()> {
        let full = {
            let m = self.meta.lock();
            m.l2.is_full() || m.frees.len() > 1 << 14
        };
        if full { self.flush_tables() } else { Ok(()) }
    }
    /// Leaves the image as not in use.
    pub(super) fn finish(&self) -> io::Result<()> {
        if self.corrupt.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(());
        }
        self.flush_tables()?;
        if !self.meta.lock().started {
            return self.barrier();
        }
        self.store_bitmaps()?;
        // The counts of what was freed, or all if they were put off.
        self.barrier()?;
        {
            let mut m = self.meta.lock();
            m.started = false;
            let dirty = m.header.incompatible & incompatible::DIRTY != 0;
            let counts = m.refs.take_dirty();
            let written = counts.iter().try_for_each(|(_, offset, data)| self.file.write_bytes(*offset, data));
            m.refs.written(&counts, written.is_ok());
            written?;
            if dirty {
                self.barrier()?;
                m.header.incompatible &= !incompatible::DIRTY;
                self.write_header(&m.header)?;
            }
        }
        self.barrier()
    }
    /// Clusters of this image's own tables are changed by hand: nothing may wait in memory.
    pub(super) fn settle(&self) -> io::Result<()> {
        while {
            let m = self.meta.lock();
            m.l2.is_dirty() || !m.l1_dirty.is_empty() || !m.frees.is_empty() || (m.refs.is_dirty() && !self.is_lazy(&m))
        } {
            self.flush_tables()?;
        }
        self.barrier()
    }
    pub(super) fn mark_l1(&self, m: &mut Meta, index: usize, entry: u64) {
        if m.l1[index] != entry {
            m.l1[index] = entry;
            m.l1_dirty.insert(index);
        }
    }
}
