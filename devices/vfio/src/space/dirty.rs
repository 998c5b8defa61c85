//! What devices write, told to the dirty logs of memory while there are such.
//!
//! Who knows of it: the devices themselves, if all of them can log their writes; else the host's IOMMU, if its tables can tell; else
//! nobody, and all that they may write counts as written whenever somebody asks.

use super::{DmaSpace, Table};
use crate::ranges::Cursor;
use crate::sys::{DeviceFile, DirtyBitmap};
use rhea_memory::{DirtyClient, DirtySource, RamBlock};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// The logs that devices' writes belong in. Not the display's: no picture is worth a log of all that devices do.
const CLIENTS: [DirtyClient; 3] = [DirtyClient::Migration, DirtyClient::Snapshot, DirtyClient::Rate];

/// Ranges that each device takes: as many as fit in a page of the kernel's (`VFIO_DEVICE_FEATURE_DMA_LOGGING_START`). A driver may take
/// fewer.
const MOST_RANGES: usize = 4096 / 16;

/// Pages that are asked for in one call, if they are not all of one mapping.
const AT_ONCE: u64 = 1 << 21;

/// How what devices write is known.
pub(super) enum Tracking {
    /// By the devices, in these ranges (first and last address, rising). What is not in them counts as written.
    Devices(Vec<(u64, u64)>),
    /// By the host's IOMMU.
    Iommu,
    /// All counts as written.
    Nobody,
}

impl Tracking {
    /// Is all of the range logged?
    fn knows(&self, first: u64, last: u64) -> bool {
        match self {
            Self::Devices(logged) => logged.iter().any(|(a, b)| *a <= first && last <= *b),
            Self::Iommu => true,
            Self::Nobody => false,
        }
    }
}

fn live(table: &Table) -> Vec<Arc<dyn DeviceFile>> {
    table.devices.iter().filter_map(Weak::upgrade).collect()
}

/// Ranges in their order, with the smallest gaps between them closed until there are no more than `most`.
fn merged(ranges: impl Iterator<Item = (u64, u64)>, most: usize) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match all.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => all.push((first, last)),
        }
    }
    let over = all.len().saturating_sub(most.max(1));
    if over == 0 {
        return all;
    }
    let mut gaps: Vec<usize> = (1..all.len()).collect();
    gaps.sort_by_key(|n| all[*n].0 - all[*n - 1].1);
    let mut closed = vec![false; all.len()];
    gaps.into_iter().take(over).for_each(|n| closed[n] = true);
    let mut few: Vec<(u64, u64)> = Vec::new();
    for (range, closed) in all.into_iter().zip(closed) {
        match few.last_mut() {
            Some((_, end)) if closed => *end = range.1,
            _ => few.push(range),
        }
    }
    few
}

impl DmaSpace {
    /// For `info vfio`.
    pub(super) fn tracked_by(&self) -> &'static str {
        match &self.table.lock().tracking {
            None => "writes not tracked",
            Some(Tracking::Devices(_)) => "writes tracked by devices",
            Some(Tracking::Iommu) => "writes tracked by the IOMMU",
            Some(Tracking::Nobody) => "all counts as written",
        }
    }
    /// A device sees these addresses from now on.
    pub(crate) fn joined(&self, device: &Arc<dyn DeviceFile>) {
        let table = &mut *self.table.lock();
        table.devices.push(Arc::downgrade(device));
        if table.tracking.is_some() {
            self.stop(table);
            self.look_at_logs(table);
            // What was written between the one log and the other.
            self.all_written(table, 0, u64::MAX);
        }
    }
    /// A device, which does nothing any more, leaves. What it wrote is not forgotten.
    pub(crate) fn left(&self, device: &Arc<dyn DeviceFile>) {
        let table = &mut *self.table.lock();
        if let Some(tracking) = &table.tracking {
            self.collect_some(table, tracking, |_| true);
            if matches!(tracking, Tracking::Devices(_)) {
                let _ = device.stop_dma_log();
            }
        }
        table.devices.retain(|d| d.upgrade().is_some_and(|d| !Arc::ptr_eq(&d, device)));
    }
    /// A block is mapped, whose log may be on.
    pub(super) fn follow_log(&self, table: &mut Table, block: &RamBlock) {
        let me: Weak<dyn DirtySource> = self.me.clone();
        block.add_dirty_source(me, &CLIENTS);
        if table.tracking.is_none() && block.logged_for(&CLIENTS) {
            self.start(table);
        }
    }
    /// Is a log on, or no longer?
    pub(super) fn look_at_logs(&self, table: &mut Table) {
        let wanted = table.ranges.iter().any(|(_, _, piece)| piece.block.logged_for(&CLIENTS));
        match (wanted, table.tracking.is_some()) {
            (true, false) => self.start(table),
            (false, true) => self.stop(table),
            _ => {}
        }
    }

    // ---- begin and end ----

    fn start(&self, table: &mut Table) {
        let tracking = self.start_devices(table).map(Tracking::Devices);
        let tracking = tracking.or_else(|| self.backing.track_dirty(true).ok().map(|()| Tracking::Iommu));
        if tracking.is_none() && !std::mem::replace(&mut table.said, true) {
            (self.report)(
                "neither the assigned devices nor the host's IOMMU tell what is written: all memory that devices may write counts as \
                 written",
            );
        }
        table.tracking = Some(tracking.unwrap_or(Tracking::Nobody));
    }
    /// Has all devices log what they write, if all can.
    fn start_devices(&self, table: &Table) -> Option<Vec<(u64, u64)>> {
        let devices = live(table);
        if devices.is_empty() || !devices.iter().all(|d| d.logs_dma()) {
            return None;
        }
        let mapped = |most| merged(table.ranges.iter().map(|(first, last, _)| (first, last)), most);
        // What a guest's IOMMU will map yet is not known.
        let reached = self.translations.get().map(|_| {
            let all = self.backing.allowed();
            merged(
                all.iter().map(|(first, last, _)| (*first, (*last).min((1 << 48) - 1))).filter(|(a, b)| a < b),
                MOST_RANGES,
            )
        });
        let mut most = MOST_RANGES;
        let smaller = std::iter::from_fn(|| {
            let ranges = mapped(most);
            most = ranges.len() / 2;
            (!ranges.is_empty()).then_some(ranges)
        });
        // A single range is the last.
        let mut last = false;
        let smaller = smaller.take_while(move |r| !std::mem::replace(&mut last, r.len() == 1));
        reached.into_iter().chain(smaller).find(|ranges| self.start_all(&devices, ranges))
    }
    fn start_all(&self, devices: &[Arc<dyn DeviceFile>], ranges: &[(u64, u64)]) -> bool {
        let page = self.backing.page();
        let lengths: Vec<(u64, u64)> = ranges.iter().map(|(first, last)| (*first, last - first + 1)).collect();
        for (n, device) in devices.iter().enumerate() {
            if device.start_dma_log(page, &lengths).is_err() {
                devices[..n].iter().for_each(|d| drop(d.stop_dma_log()));
                return false;
            }
        }
        true
    }
    fn stop(&self, table: &mut Table) {
        match table.tracking.take() {
            Some(Tracking::Devices(_)) => live(table).iter().for_each(|d| drop(d.stop_dma_log())),
            Some(Tracking::Iommu) => drop(self.backing.track_dirty(false)),
            Some(Tracking::Nobody) | None => {}
        }
    }

    // ---- what was written ----

    /// All of a range that devices may write was written, as far as a log is on.
    pub(super) fn all_written(&self, table: &Table, first: u64, last: u64) {
        if table.tracking.is_some() {
            self.written(table, first, last, None);
        }
    }
    /// Tells the logs of what a bitmap of the range says, or of all of it.
    fn written(&self, table: &Table, first: u64, last: u64, dirty: Option<&DirtyBitmap<'_>>) {
        let mut at = table.ranges.overlapping(first, last);
        while let Some(cursor) = at {
            let (start, end, piece) = table.ranges.get(cursor);
            if start > last {
                break;
            }
            at = table.ranges.next(cursor);
            if !piece.write {
                continue;
            }
            let (from, to) = (start.max(first), end.min(last));
            let mark = |a: u64, b: u64| {
                piece.block.mark_dirty(piece.offset + (a - start), b - a + 1, &CLIENTS);
                self.counters.dirty.fetch_add((b - a) / self.backing.page() + 1, Relaxed);
            };
            match dirty {
                None => mark(from, to),
                Some(dirty) => {
                    let size = dirty.page_size;
                    runs(dirty.words, (from - first) / size, (to - first) / size, |a, b| {
                        mark((first + a * size).max(from), (first + b * size + (size - 1)).min(to));
                    });
                }
            }
        }
    }
    /// Asks for what was written in a range that is logged, no mapping of which is cut by its edges; true: it was told.
    fn ask(&self, table: &Table, tracking: &Tracking, first: u64, last: u64) -> bool {
        let (page_size, len) = (self.backing.page(), last - first + 1);
        let mut words = vec![0; bitmap_words(len, page_size)];
        let dirty = &mut DirtyBitmap { page_size, words: &mut words };
        let told = match tracking {
            Tracking::Devices(_) => live(table).iter().try_for_each(|d| d.dma_log(first, len, dirty)),
            Tracking::Iommu => self.backing.dirty(first, len, dirty),
            Tracking::Nobody => return false,
        };
        match &told {
            Ok(()) => self.written(table, first, last, Some(dirty)),
            Err(e) => self.not_told(e),
        }
        told.is_ok()
    }
    fn not_told(&self, e: &io::Error) {
        if self.counters.failed.fetch_add(1, Relaxed) <= 8 {
            (self.report)(&format!(
                "what devices have written is not told ({e}): all that they may write counts as written"
            ));
        }
    }
    /// Unmaps a range while writes are tracked.
    pub(super) fn unmap_tracked(&self, table: &Table, tracking: &Tracking, first: u64, last: u64) -> io::Result<()> {
        let len = last - first + 1;
        if let Tracking::Iommu = tracking {
            let page_size = self.backing.page();
            let mut words = vec![0; bitmap_words(len, page_size)];
            let dirty = &mut DirtyBitmap { page_size, words: &mut words };
            match self.backing.unmap_dirty(first, len, dirty) {
                Ok(()) => {
                    self.written(table, first, last, Some(dirty));
                    return Ok(());
                }
                // What tables told goes with them, and a device may write until then.
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
                Err(e) => self.not_told(&e),
            }
            self.backing.unmap(first, len)?;
            self.all_written(table, first, last);
            return Ok(());
        }
        self.backing.unmap(first, len)?;
        // The devices' logs outlive the mapping, into which nothing is written any more.
        if !tracking.knows(first, last) || !self.ask(table, tracking, first, last) {
            self.all_written(table, first, last);
        }
        Ok(())
    }
    /// Collects what was written in ranges of which `wanted` says so.
    fn collect_some(&self, table: &Table, tracking: &Tracking, wanted: impl Fn(&RamBlock) -> bool) {
        let page = self.backing.page();
        let mut at = table.ranges.first();
        while let Some(cursor) = at {
            // Ranges side by side are one question.
            let (first, mut last, piece) = table.ranges.get(cursor);
            let (known, mut concerned) = (tracking.knows(first, last), piece.write && wanted(&piece.block));
            let joins = |cursor: &Cursor, last: u64| {
                let (start, end, _) = table.ranges.get(*cursor);
                last.checked_add(1) == Some(start)
                    && (end - first) / page < AT_ONCE
                    && tracking.knows(start, end) == known
            };
            at = table.ranges.next(cursor);
            while let Some(next) = at.filter(|c| joins(c, last)) {
                let (_, end, piece) = table.ranges.get(next);
                last = end;
                concerned |= piece.write && wanted(&piece.block);
                at = table.ranges.next(next);
            }
            if concerned && !(known && self.ask(table, tracking, first, last)) {
                self.all_written(table, first, last);
            }
        }
    }
}

fn bitmap_words(len: u64, page: u64) -> usize {
    len.div_ceil(page).div_ceil(64) as usize
}

/// Calls `found` with the first and the last of each run of set bits from bit `from` to bit `to`.
fn runs(words: &[u64], from: u64, to: u64, mut found: impl FnMut(u64, u64)) {
    let word = |n: u64, invert: bool| words.get(n as usize).map(|w| if invert { !w } else { *w });
    // The first bit from `at` on that is set, or that is not.
    let next = |at: u64, invert: bool| {
        let mut n = at / 64;
        let mut bits = word(n, invert)? & (u64::MAX << (at % 64));
        while bits == 0 {
            n += 1;
            bits = word(n, invert)?;
        }
        Some(n * 64 + u64::from(bits.trailing_zeros()))
    };
    let mut at = from;
    while let Some(first) = next(at, false).filter(|first| *first <= to) {
        let end = next(first, true).unwrap_or(words.len() as u64 * 64).min(to + 1);
        found(first, end - 1);
        if end > to {
            return;
        }
        at = end;
    }
}

impl DirtySource for DmaSpace {
    fn track(&self, _: &RamBlock, _: bool) {
        self.look_at_logs(&mut self.table.lock());
    }
    fn collect(&self, block: &RamBlock) {
        let table = &*self.table.lock();
        if let Some(tracking) = &table.tracking {
            self.collect_some(table, tracking, |b| std::ptr::eq(b, block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_for_devices() {
        let of = |ranges: &[(u64, u64)], most| merged(ranges.iter().copied(), most);
        assert_eq!(of(&[], 4), []);
        let all = [(0, 9), (10, 19), (30, 39), (100, 109), (120, u64::MAX)];
        assert_eq!(of(&all, 4), [(0, 19), (30, 39), (100, 109), (120, u64::MAX)]);
        assert_eq!(of(&all, 3), [(0, 39), (100, 109), (120, u64::MAX)]);
        assert_eq!(of(&all, 2), [(0, 39), (100, u64::MAX)]);
        assert_eq!(of(&all, 1), [(0, u64::MAX)]);
        assert_eq!(of(&all, 0), [(0, u64::MAX)]);
    }

    #[test]
    fn runs_of_bits() {
        let of = |words: &[u64], from, to| {
            let mut all = Vec::new();
            runs(words, from, to, |a, b| all.push((a, b)));
            all
        };
        let words = [1 << 63 | 0b1011, 0b111, 0, u64::MAX];
        assert_eq!(of(&words, 0, 255), [(0, 1), (3, 3), (63, 66), (192, 255)]);
        assert_eq!(of(&words, 1, 64), [(1, 1), (3, 3), (63, 64)]);
        assert_eq!(of(&words, 67, 191), []);
        assert_eq!(of(&words, 200, 201), [(200, 201)]);
        // Bits that are asked for but not there.
        assert_eq!(of(&words[..1], 60, 99), [(63, 63)]);
        assert_eq!(of(&[], 0, 9), []);
    }
}
