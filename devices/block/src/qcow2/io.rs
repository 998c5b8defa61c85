//! Requests of the guest.

use super::table::{ALL_DATA, ALL_ZERO, Entry, Kind, Run, SUBCLUSTERS};
use super::{COMPRESSED, COPIED, Meta, OFFSET, Qcow2, ZERO};
use crate::segment::{is_zero, length, store_at, total, zero_range};
use crate::{BlockBackend, Extent, ExtentKind, Geometry, Segment};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes that one step of a write maps at once.
const MAX_STEP: u64 = 16 << 20;

/// The data of a write.
enum Source<'a> {
    Segments(&'a [Segment], u64),
    /// Already compressed, or not to be written: only the mapping is made (preallocation).
    Nothing,
}

/// Clusters that were taken for a write.
struct Taken {
    /// Offset of the first cluster on the disk, and in the data file.
    guest: u64,
    host: u64,
    clusters: u64,
    /// They read as zero as they are.
    fresh: bool,
    /// They were this image's own before, with part of their content.
    reused: bool,
    first: Entry,
    last: Entry,
}

impl Qcow2 {
    fn guard<'a>(&'a self, offset: u64, len: u64, exclusive: bool) -> crate::range_lock::RangeGuard<'a> {
        let start = offset & !(self.cluster() - 1);
        let end = (offset + len).next_multiple_of(self.cluster());
        self.ranges.lock(start, end - start, exclusive)
    }

    /// Reads without a lock on the range.
    fn read_runs(&self, mut offset: u64, segments: &mut [Segment], mut skip: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let run = self.run_at(&mut self.meta.lock(), offset, len)?;
            match run.kind {
                Kind::Data => self.data().read_part(run.host, segments, skip, run.len)?,
                Kind::Zero => zero_range(segments, skip, run.len),
                Kind::Absent => self.read_below(offset, segments, skip, run.len)?,
                Kind::Compressed => {
                    let data = self.unpack(run.entry)?;
                    let within = (offset & (self.cluster() - 1)) as usize;
                    store_at(segments, skip, &data[within..within + run.len as usize])?;
                }
            }
            (offset, skip, len) = (offset + run.len, skip + run.len, len - run.len);
        }
        Ok(())
    }
    fn read_below(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        let backing = self.backing();
        let end = backing.as_ref().map_or(0, |b| b.capacity());
        let n = len.min(end.saturating_sub(offset));
        if let Some(backing) = backing
            && n > 0
        {
            backing.read_part(offset, segments, skip, n)?;
        }
        if n < len {
            zero_range(segments, skip + n, len - n);
        }
        Ok(())
    }
    /// What is on the disk now; zero behind its end.
    fn old_content(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let inside = len.min(self.capacity().saturating_sub(offset));
        let mut segments = [Segment::Host(vec![0; length(inside)?])];
        self.read_runs(offset, &mut segments, 0, inside)?;
        let [Segment::Host(mut data)] = segments else { return Err(crate::out_of_range()) };
        data.resize(length(len)?, 0);
        Ok(data)
    }
    /// Does the range read as zero without looking at data?
    fn known_zero(&self, m: &mut Meta, mut offset: u64, len: u64) -> io::Result<bool> {
        let backing = self.backing().map_or(0, |b| b.capacity());
        let end = (offset + len).min(self.capacity());
        while offset < end {
            let run = self.run_at(m, offset, end - offset)?;
            match run.kind {
                Kind::Zero => {}
                Kind::Absent if offset >= backing => {}
                _ => return Ok(false),
            }
            offset += run.len;
        }
        Ok(true)
    }

    fn put(&self, host: u64, source: &Source<'_>, done: u64, len: u64) -> io::Result<()> {
        match source {
            Source::Segments(segments, skip) => self.data().write_part(host, segments, skip + done, len),
            Source::Nothing => Ok(()),
        }
    }
    /// Writes what is mapped already and belongs to nobody else; how much.
    fn write_in_place(&self, offset: u64, len: u64, source: &Source<'_>, done: u64) -> io::Result<u64> {
        let run = {
            let mut m = self.meta.lock();
            let run = self.run_at(&mut m, offset, len)?;
            if run.kind != Kind::Data || !run.copied {
                return Ok(0);
            }
            self.start(&mut m)?;
            self.check_target(&mut m, &run)?;
            self.mark_bitmaps(&mut m, offset, run.len);
            run
        };
        self.put(run.host, source, done, run.len)?;
        Ok(run.len)
    }
    /// A damaged mapping must not lead to a table.
    fn check_target(&self, m: &mut Meta, run: &Run) -> io::Result<()> {
        if self.has_data_file {
            return Ok(());
        }
        for cluster in run.host >> self.cluster_bits..=(run.host + run.len - 1) >> self.cluster_bits {
            if self.is_table(m, cluster) {
                return Err(
                    self.damaged(m, format!("a data cluster is a table at {:#x}", cluster << self.cluster_bits))
                );
            }
        }
        Ok(())
    }
    /// Writes the beginning of a range; how much.
    fn write_step(&self, offset: u64, len: u64, source: &Source<'_>, done: u64) -> io::Result<u64> {
        {
            let _range = self.guard(offset, len, false);
            let n = self.write_in_place(offset, len, source, done)?;
            if n > 0 {
                return Ok(n);
            }
        }
        self.relieve()?;
        let len = {
            let m = self.meta.lock();
            len.min(self.to_slice_end(&m, offset)).min(MAX_STEP)
        };
        let _range = self.guard(offset, len, true);
        let n = self.write_in_place(offset, len, source, done)?;
        if n > 0 {
            return Ok(n);
        }
        let (taken, n) = {
            let mut m = self.meta.lock();
            self.start(&mut m)?;
            let (taken, n) = self.take_clusters(&mut m, offset, len)?;
            self.mark_bitmaps(&mut m, offset, n);
            (taken, n)
        };
        let result = self.fill(&taken, offset, n, source, done);
        let mut m = self.meta.lock();
        match result.and_then(|touched| self.link(&mut m, &taken, touched)) {
            Ok(()) => Ok(n),
            Err(e) => {
                if !taken.reused && !self.has_data_file {
                    self.give_back(&mut m, taken.host, taken.clusters);
                }
                Err(e)
            }
        }
    }
    /// Clusters for a write at `offset`, and how much of it they hold.
    fn take_clusters(&self, m: &mut Meta, offset: u64, len: u64) -> io::Result<(Taken, u64)> {
        let cluster = self.cluster();
        let guest = offset & !(cluster - 1);
        self.own_table(m, offset)?;
        let first = self.entry(m, offset)?;
        let reusable = |e: Entry| self.has_host(e) && e.word & COPIED != 0;
        if reusable(first) {
            let n = len.min(guest + cluster - offset);
            let host = first.word & OFFSET;
            let run = Run { kind: Kind::Data, host, len: cluster, copied: true, entry: first.word };
            self.check_target(m, &run)?;
            return Ok((Taken { guest, host, clusters: 1, fresh: false, reused: true, first, last: first }, n));
        }
        let mut want = 1;
        while guest + want * cluster < offset + len && !reusable(self.entry(m, guest + want * cluster)?) {
            want += 1;
        }
        let (host, clusters, fresh) = if self.has_data_file {
            // Data is where it is on the disk.
            (guest, want, guest >= self.data().capacity())
        } else {
            let (host, got) = self.allocate(m, want)?;
            let fresh = self.use_fresh(m, host, got);
            (host, got, fresh)
        };
        let last = self.entry(m, guest + (clusters - 1) * cluster)?;
        let n = len.min(guest + clusters * cluster - offset);
        Ok((Taken { guest, host, clusters, fresh, reused: false, first, last }, n))
    }
    /// Writes the data, and around it what the clusters held before; the range that was touched.
    fn fill(&self, t: &Taken, offset: u64, n: u64, source: &Source<'_>, done: u64) -> io::Result<(u64, u64)> {
        let (cluster, unit) = (self.cluster(), self.unit());
        let end = t.guest + t.clusters * cluster;
        // Old data moves with its cluster as a whole; otherwise subclusters are independent.
        let whole = |e: Entry| !t.reused && (e.word & COMPRESSED != 0 || e.bitmap & ALL_DATA != 0);
        let start = if self.extended && !whole(t.first) { offset - offset % unit } else { t.guest };
        let stop = if self.extended && !whole(t.last) { (offset + n).next_multiple_of(unit) } else { end };
        let at = |guest: u64| t.host + (guest - t.guest);
        for (from, to) in [(start, offset), (offset + n, stop)] {
            if from < to {
                let zero = self.known_zero(&mut self.meta.lock(), from, to - from)?;
                if zero && t.fresh {
                    continue;
                }
                let data = if zero { vec![0; length(to - from)?] } else { self.old_content(from, to - from)? };
                if !(t.fresh && is_zero(&data)) {
                    self.data().write_bytes(at(from), &data)?;
                }
            }
        }
        self.put(at(offset), source, done, n)?;
        Ok((start, stop))
    }
    /// Lets the tables refer to clusters that were filled from `start` to `stop`.
    fn link(&self, m: &mut Meta, t: &Taken, (start, stop): (u64, u64)) -> io::Result<()> {
        for i in 0..t.clusters {
            let guest = t.guest + (i << self.cluster_bits);
            let old = self.entry(m, guest)?;
            let word = (t.host + (i << self.cluster_bits)) | COPIED;
            let mut bitmap = 0;
            if self.extended {
                let unit = self.unit();
                let from = start.saturating_sub(guest) / unit;
                let to = (stop - guest).min(self.cluster()) / unit;
                let touched = (1u64 << to) - (1u64 << from);
                let keep = if old.word & COMPRESSED != 0 { 0 } else { old.bitmap };
                bitmap = (keep | touched) & !(touched << SUBCLUSTERS);
            }
            self.set_entry(m, guest, Entry { word, bitmap })?;
            if !t.reused {
                self.release(m, old);
            }
        }
        Ok(())
    }
    fn write_source(&self, offset: u64, len: u64, source: &Source<'_>) -> io::Result<()> {
        self.check_writable()?;
        let mut done = 0;
        while done < len {
            done += self.write_step(offset + done, len - done, source, done)?;
        }
        Ok(())
    }
    /// Writes anywhere that the L1 table covers.
    pub(super) fn write_bytes_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_source(offset, data.len() as u64, &Source::Segments(&[Segment::Host(data.to_vec())], 0))
    }
    /// Gives every cluster of a range a place, without data.
    pub(super) fn allocate_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_source(offset, len, &Source::Nothing)
    }

    /// Zeroes part of a cluster, or of a subcluster.
    fn zero_small(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || self.known_zero(&mut self.meta.lock(), offset, len)? {
            return Ok(());
        }
        self.write_source(offset, len, &Source::Segments(&[Segment::Host(vec![0; length(len)?])], 0))
    }
    /// Makes whole clusters read as zero, or forgets their content; one step, and how much it did.
    pub(super) fn drop_clusters(&self, offset: u64, len: u64, unmap: bool, discard: bool) -> io::Result<u64> {
        let cluster = self.cluster();
        let len = {
            let m = self.meta.lock();
            len.min(self.to_slice_end(&m, offset)).min(1 << 30)
        };
        let _range = self.guard(offset, len, true);
        let mut m = self.meta.lock();
        let m = &mut *m;
        self.start(m)?;
        let backing = self.backing().map_or(0, |b| b.capacity());
        let mut at = offset;
        while at < offset + len {
            let old = self.entry(m, at)?;
            let absent = old == Entry::default();
            if absent && at >= backing {
                if self.l1_index(at) < m.l1.len() && m.l1[self.l1_index(at)] & OFFSET == 0 {
                    // Nothing up to the end of the table.
                    break;
                }
                at += cluster;
                continue;
            }
            if discard && self.version < 3 && at < backing {
                // What lies below would show.
                at += cluster;
                continue;
            }
            let keep = !unmap && self.has_host(old) && old.word & COPIED != 0;
            let mut new = Entry::default();
            if self.extended {
                new = Entry { word: if keep { old.word } else { 0 }, bitmap: ALL_ZERO };
            } else if self.version >= 3 {
                new.word = if keep { old.word | ZERO } else { ZERO };
            }
            if new != old {
                self.own_table(m, at)?;
                self.set_entry(m, at, new)?;
                if !keep {
                    if self.has_data_file {
                        // A hint.
                        let _ = self.data().discard(at, cluster);
                    }
                    self.release(m, old);
                }
            }
            at += cluster;
        }
        self.mark_bitmaps(m, offset, len);
        Ok(len)
    }
    /// Makes subclusters read as zero; false: that takes data.
    fn zero_subclusters(&self, offset: u64, len: u64) -> io::Result<bool> {
        let _range = self.guard(offset, len, true);
        let mut m = self.meta.lock();
        let m = &mut *m;
        if self.known_zero(m, offset, len)? {
            return Ok(true);
        }
        self.start(m)?;
        let old = self.entry(m, offset)?;
        if old.word & COMPRESSED != 0 {
            return Ok(false);
        }
        self.own_table(m, offset)?;
        let within = offset & (self.cluster() - 1);
        let (from, to) = (within / self.unit(), (within + len) / self.unit());
        let touched = (1u64 << to) - (1u64 << from);
        let bitmap = (old.bitmap | touched << SUBCLUSTERS) & !touched;
        self.set_entry(m, offset, Entry { bitmap, ..old })?;
        self.mark_bitmaps(m, offset, len);
        Ok(true)
    }
    fn zero_clusters(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        // Without the zero flag, clusters can only be forgotten, and only if nothing shows then.
        let no_flag = self.version < 3 && (self.backing().is_some() || !unmap);
        if no_flag || self.raw_data_file {
            let mut at = 0;
            while at < len {
                let n = (len - at).min(1 << 20);
                self.zero_small(offset + at, n)?;
                at += n;
            }
            return Ok(());
        }
        let mut at = 0;
        while at < len {
            self.relieve()?;
            at += self.drop_clusters(offset + at, len - at, unmap, false)?;
        }
        Ok(())
    }
    /// Head, whole units and tail of a range; the end of the disk counts as the end of a unit.
    fn split(&self, offset: u64, len: u64, unit: u64) -> (u64, u64) {
        let end = offset + len;
        let start = offset.next_multiple_of(unit).min(end);
        let stop = if end >= self.capacity() { end.next_multiple_of(unit) } else { end - end % unit };
        (start, stop.max(start))
    }
}

impl BlockBackend for Qcow2 {
    fn capacity(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.read_part(offset, segments, 0, total(segments))
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        self.read_part_now(offset, segments, 0, total(segments))
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.write_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        let _range = self.guard(offset, len, false);
        self.read_runs(offset, segments, skip, len)
    }
    fn read_part_now(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> Option<io::Result<()>> {
        let start = offset & !(self.cluster() - 1);
        let _range = self.ranges.try_shared(start, (offset + len).next_multiple_of(self.cluster()) - start)?;
        let run = {
            let mut m = self.meta.try_lock()?;
            if !self.in_memory(&m, offset) {
                return None;
            }
            self.run_at(&mut m, offset, len).ok()?
        };
        if run.len < len {
            return None;
        }
        match run.kind {
            Kind::Data => self.data().read_part_now(run.host, segments, skip, len),
            Kind::Zero => {
                zero_range(segments, skip, len);
                Some(Ok(()))
            }
            _ => None,
        }
    }
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        self.write_source(offset, len, &Source::Segments(segments, skip))
    }
    fn flush(&self) -> io::Result<()> {
        if self.is_readonly() {
            return Ok(());
        }
        self.flush_tables()?;
        if self.has_data_file && !self.options.no_flush {
            self.data().flush()?;
        }
        self.barrier()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.raw_data_file {
            return Ok(());
        }
        let (start, stop) = self.split(offset, len, self.cluster());
        let mut at = start;
        while at < stop {
            self.relieve()?;
            at += self.drop_clusters(at, stop - at, true, true)?;
        }
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.check_writable()?;
        let (start, stop) = self.split(offset, len, self.cluster());
        let end = offset + len;
        if self.extended && !self.raw_data_file {
            // The parts before and behind whole clusters may have whole subclusters.
            let parts = [(offset, start.min(end)), (stop.clamp(start, end.max(start)), end)];
            for (from, to) in parts {
                let mut at = from;
                while at < to {
                    let cluster_end = (at & !(self.cluster() - 1)) + self.cluster();
                    let piece = to.min(cluster_end);
                    let (s, e) = self.split(at, piece - at, self.unit());
                    self.zero_small(at, s - at)?;
                    if s < e && !self.zero_subclusters(s, e - s)? {
                        self.zero_small(s, e.min(piece) - s)?;
                    }
                    self.zero_small(e, piece.saturating_sub(e))?;
                    at = piece;
                }
            }
        } else {
            self.zero_small(offset, start - offset)?;
            self.zero_small(stop, end.saturating_sub(stop))?;
        }
        self.zero_clusters(start, stop - start, may_unmap)
    }
    fn readonly(&self) -> bool {
        self.is_readonly()
    }
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }
    fn description(&self) -> String {
        format!("{} (qcow2{})", self.file.description(), if self.readonly() { ", read-only" } else { "" })
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let mut m = self.meta.lock();
        let first = self.run_at(&mut m, offset, len)?;
        let mut done = first.len;
        // Tables are looked at piece by piece.
        while done < len && first.kind != Kind::Compressed {
            let run = self.run_at(&mut m, offset + done, len - done)?;
            if run.kind != first.kind || (run.kind == Kind::Data && run.host != first.host + done) {
                break;
            }
            done += run.len;
        }
        let kind = match first.kind {
            Kind::Absent => ExtentKind::Absent,
            Kind::Zero => ExtentKind::Zero,
            _ => ExtentKind::Data,
        };
        let host = (first.kind == Kind::Data).then_some(first.host);
        Ok(Extent { len: done, kind, host, compressed: first.kind == Kind::Compressed })
    }
    fn resize(&self, capacity: u64) -> io::Result<()> {
        self.set_size(capacity)
    }
    fn allocated_size(&self) -> Option<u64> {
        self.file.allocated_size()
    }
    fn cluster_size(&self) -> u64 {
        self.cluster()
    }
    fn below(&self) -> Option<Arc<dyn BlockBackend>> {
        self.backing()
    }
    fn close(&self) -> io::Result<()> {
        if self.is_readonly() || self.is_away() { Ok(()) } else { self.finish() }
    }
}
