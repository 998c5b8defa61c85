//! What devices of one container may reach: guest memory, directly or as a guest's IOMMU translates, kept up with both.
//!
//! Whoever changes the memory map or a translation calls, and returns when the host's IOMMU has followed. What is mapped is compared with
//! what is to be: nothing is touched that stays as it is.

mod dirty;

use crate::backing::Backing;
use crate::ranges::{Cursor, Ranges};
use crate::sys::{self, DeviceFile, DmaMap};
use crate::{Report, VfioError};
use dirty::Tracking;
use parking_lot::Mutex;
use rhea_device::dma::{DmaHandle, DmaWindow, Iommu, TranslationListener, Translations};
use rhea_memory::{
    AddressSpace, ChangeListener, ChangeReason, FlatTarget, GpaRange, MemoryChange, RamBlock, Subscription,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

/// A range of RAM at an address of the device.
#[derive(Clone)]
struct Piece {
    iova: u64,
    len: u64,
    block: Arc<RamBlock>,
    offset: u64,
    write: bool,
}

impl Piece {
    fn last(&self) -> u64 {
        self.iova + (self.len - 1)
    }
    fn host(&self) -> u64 {
        self.block.host_ptr().expose_provenance() as u64 + self.offset
    }
    fn map(&self) -> DmaMap {
        DmaMap { iova: self.iova, len: self.len, host: self.host(), write: self.write }
    }
    /// The part from `first` to `last`, which is inside.
    fn part(&self, first: u64, last: u64) -> Self {
        let by = first - self.iova;
        Self { iova: first, len: last - first + 1, offset: self.offset + by, ..self.clone() }
    }
    /// Does it lead where `wanted` leads, and allow as much?
    fn serves(&self, wanted: &Self) -> bool {
        Arc::ptr_eq(&self.block, &wanted.block)
            && self.offset.wrapping_sub(self.iova) == wanted.offset.wrapping_sub(wanted.iova)
            && (self.write || !wanted.write)
    }
    /// What is left of it without the addresses from `first` to `last`.
    fn without(&self, first: u64, last: u64) -> impl Iterator<Item = Self> {
        let below = (self.iova < first).then(|| self.part(self.iova, self.last().min(first - 1)));
        let above = (self.last() > last).then(|| self.part(self.iova.max(last + 1), self.last()));
        below.into_iter().chain(above)
    }
}

/// What has been done, for `info vfio` and tests.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that mapped or unmapped.
    pub maps: AtomicU64,
    pub unmaps: AtomicU64,
    /// Changes of memory that concern no device.
    pub ignored: AtomicU64,
    /// Ranges left out, as they do not fill pages of the IOMMU.
    pub skipped: AtomicU64,
    pub failed: AtomicU64,
    /// Pages of the IOMMU that were found written while a log is on.
    pub dirty: AtomicU64,
}

#[derive(Default)]
struct Table {
    ranges: Ranges<Piece>,
    /// Registered memory, by its address in this process.
    registered: BTreeMap<u64, Arc<RamBlock>>,
    /// Bytes that are locked.
    locked: u64,
    /// RAM of the address space when it was looked at last.
    ram: Vec<(GpaRange, usize, u64, bool)>,
    /// Those that see these addresses.
    devices: Vec<Weak<dyn DeviceFile>>,
    /// While a dirty log of memory that is mapped is on.
    tracking: Option<Tracking>,
    /// That nobody tells what devices write was said.
    said: bool,
}

/// The addresses of devices in one container.
pub struct DmaSpace {
    me: Weak<DmaSpace>,
    backing: Arc<Backing>,
    memory: Arc<AddressSpace>,
    translations: OnceLock<Box<dyn Translations>>,
    subscription: OnceLock<Subscription>,
    table: Mutex<Table>,
    counters: Counters,
    report: Report,
}

impl DmaSpace {
    /// Maps all that is there, and follows changes from now on.
    ///
    /// # Errors
    /// [`VfioError`]: not all of the guest's memory can be mapped; nothing stays mapped.
    pub(crate) fn new(backing: Arc<Backing>, dma: &DmaHandle, report: Report) -> Result<Arc<Self>, VfioError> {
        let space = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            backing,
            memory: dma.space(),
            translations: OnceLock::new(),
            subscription: OnceLock::new(),
            table: Mutex::default(),
            counters: Counters::default(),
            report,
        });
        {
            // What changes meanwhile waits, and is looked at again.
            let mut table = space.table.lock();
            // Both are new: there are none yet.
            if let Some(iommu) = dma.iommu() {
                let listener: Weak<dyn TranslationListener> = Arc::<Self>::downgrade(&space);
                let _ = space.translations.set(follow(iommu, dma.requester_id(), listener)?);
            }
            let _ = space.subscription.set(space.memory.subscribe(Arc::new(Follower(Arc::downgrade(&space)))));
            space.all(&mut table)?;
        }
        Ok(space)
    }
    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }
    /// Looks again at what may be mapped: another device's group joined, which may reach less.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let _table = self.table.lock();
        self.backing.refresh()
    }
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
    /// How many ranges and bytes are mapped.
    #[must_use]
    pub fn mapped(&self) -> (usize, u64) {
        let table = self.table.lock();
        (table.ranges.len(), table.ranges.iter().map(|(first, last, _)| last - first + 1).sum())
    }
    /// A line for `info vfio`.
    #[must_use]
    pub fn describe(&self) -> String {
        let (ranges, bytes) = self.mapped();
        let c = &self.counters;
        format!(
            "{}, {ranges} ranges of {bytes:#x} bytes mapped; {} maps, {} unmaps, {} changes ignored, {} ranges skipped, {} failures, \
             {} pages written; {}",
            self.backing.name(),
            c.maps.load(Relaxed),
            c.unmaps.load(Relaxed),
            c.ignored.load(Relaxed),
            c.skipped.load(Relaxed),
            c.failed.load(Relaxed),
            c.dirty.load(Relaxed),
            self.tracked_by(),
        )
    }

    // ---- what is to be mapped ----

    /// RAM of the address space, in order.
    fn ram(&self) -> Vec<(GpaRange, usize, u64, bool)> {
        let view = self.memory.view();
        let ram = view.ranges().iter().filter_map(|r| match &r.target {
            FlatTarget::Ram(ram) if !ram.block.is_device() => {
                Some((r.range, Arc::as_ptr(&ram.block).addr(), ram.offset, ram.readonly))
            }
            _ => None,
        });
        ram.collect()
    }
    /// Adds RAM at guest-physical addresses that the device sees at `iova`.
    fn add_memory(&self, iova: u64, gpa: u64, len: u64, write: bool, found: &mut Vec<Piece>) {
        let Some(last) = len.checked_sub(1).and_then(|n| gpa.checked_add(n)) else { return };
        let view = self.memory.view();
        let from = view.ranges().partition_point(|r| r.range.last() < gpa);
        for r in view.ranges()[from..].iter().take_while(|r| r.range.start.0 <= last) {
            let FlatTarget::Ram(ram) = &r.target else { continue };
            // BARs come and go with each interrupt; devices do not reach each other's.
            if ram.block.is_device() {
                continue;
            }
            let (first, last) = (r.range.start.0.max(gpa), r.range.last().min(last));
            found.push(Piece {
                iova: iova + (first - gpa),
                len: last - first + 1,
                block: ram.block.clone(),
                offset: ram.offset + (first - r.range.start.0),
                write: write && !ram.readonly,
            });
        }
    }
    /// What is to be mapped from `first` to `last`, in order: whole pages, where the IOMMU has addresses.
    fn wanted(&self, first: u64, last: u64, allowed: &[(u64, u64, u64)]) -> (Vec<Piece>, Option<VfioError>) {
        let mut found = Vec::new();
        match self.translations.get() {
            None => {
                let len = (last - first).saturating_add(1);
                self.add_memory(first, first, len, true, &mut found);
            }
            Some(translations) => translations.mapped(first, last, &mut |t| {
                let (from, to) = (t.iova.max(first), t.iova.saturating_add(t.len.max(1) - 1).min(last));
                if from <= to && t.read | t.write {
                    let gpa = t.gpa.wrapping_add(from - t.iova);
                    self.add_memory(from, gpa, to - from + 1, t.write, &mut found);
                }
            }),
        }
        found.sort_by_key(|p| p.iova);
        let mut out_of_reach = None;
        let mut wanted: Vec<Piece> = Vec::new();
        for piece in found {
            let mut reached = 0;
            for (start, end, page) in allowed {
                if piece.last() < *start || piece.iova > *end {
                    continue;
                }
                let mask = page - 1;
                let inside = piece.part(piece.iova.max(*start), piece.last().min(*end));
                reached += inside.len;
                let from = inside.iova.checked_add(mask).map(|a| a & !mask);
                let to = match inside.last() {
                    u64::MAX => Some(u64::MAX),
                    last => ((last + 1) & !mask).checked_sub(1),
                };
                match (from, to) {
                    (Some(from), Some(to)) if from <= to && inside.part(from, to).host() & mask == 0 => {
                        wanted.push(inside.part(from, to));
                    }
                    _ => {
                        if self.counters.skipped.fetch_add(1, Relaxed) < 4 {
                            (self.report)(&format!(
                                "guest memory at {:#x} ({:#x} bytes) fills no page of the host's IOMMU ({page:#x} bytes): devices cannot \
                                 reach it",
                                inside.iova, inside.len
                            ));
                        }
                    }
                }
            }
            if reached < piece.len && out_of_reach.is_none() {
                let shown: Vec<_> = allowed.iter().map(|(a, b, _)| format!("{a:#x}-{b:#x}")).collect();
                let allowed = if shown.is_empty() { "it has no window".to_owned() } else { shown.join(", ") };
                out_of_reach = Some(VfioError::Reach { iova: piece.iova, len: piece.len, allowed });
            }
        }
        (wanted, out_of_reach)
    }
    /// Windows of the host's table, where it has such: the guest's, or one for all its memory. Pages that the host has not, or that are
    /// larger than what its memory is made of, are made of smaller ones.
    fn windows(&self, table: &Table) -> Vec<DmaWindow> {
        let pages = self.backing.window_pages();
        let most = sys::page_size().trailing_zeros();
        let fit = |shift: u32| (12..=shift.min(most)).rev().find(|n| pages >> n & 1 != 0).unwrap_or(shift);
        if let Some(windows) = self.translations.get().and_then(|t| t.windows()) {
            return windows.into_iter().map(|w| DmaWindow { page_shift: fit(w.page_shift), ..w }).collect();
        }
        let end = table.ram.iter().map(|(range, ..)| range.last()).max().unwrap_or(0).saturating_add(1);
        // What every board's memory is made of.
        let page_shift = fit(16);
        vec![DmaWindow { base: 0, len: end.next_power_of_two().max(1 << page_shift), page_shift }]
    }

    // ---- mapping ----

    fn explain(&self, table: &Table, piece: &Piece, source: io::Error) -> VfioError {
        match source.raw_os_error() {
            Some(libc::ENOMEM) => locked(table.locked + piece.len, source, piece),
            Some(libc::ENOSPC) => VfioError::Ranges,
            _ => VfioError::Map { iova: piece.iova, len: piece.len, source },
        }
    }
    fn map(&self, table: &mut Table, piece: Piece) -> Result<(), VfioError> {
        self.counters.maps.fetch_add(1, Relaxed);
        // Kernels before 6.2 pin the page of zeros for devices that only read.
        if !piece.write && piece.block.populate(piece.offset, piece.len).is_err() {
            return Err(self.explain(table, &piece, io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        if let Err(e) = self.backing.map(&piece.map()) {
            return Err(self.explain(table, &piece, e));
        }
        self.keep(table, piece);
        Ok(())
    }
    /// Notes what is mapped.
    fn keep(&self, table: &mut Table, piece: Piece) {
        if !self.backing.registers() {
            piece.block.pin(piece.offset, piece.len);
            table.locked += piece.len;
        }
        let (first, last, block) = (piece.iova, piece.last(), piece.block.clone());
        let added = table.ranges.insert(first, last, piece);
        debug_assert!(added, "the kernel refuses what overlaps");
        self.follow_log(table, &block);
    }
    /// Takes a range out: what it was, and the next one.
    fn forget(&self, table: &mut Table, cursor: Cursor) -> (Piece, Option<Cursor>) {
        let (piece, next) = table.ranges.remove(cursor);
        if !self.backing.registers() {
            piece.block.unpin(piece.offset, piece.len);
            table.locked -= piece.len;
        }
        (piece, next)
    }
    /// Unmaps what is still in the table, so that what was written there finds its way to the dirty log.
    fn unmap(&self, table: &Table, first: u64, last: u64) -> io::Result<()> {
        self.counters.unmaps.fetch_add(1, Relaxed);
        match &table.tracking {
            None => self.backing.unmap(first, last - first + 1),
            Some(tracking) => self.unmap_tracked(table, tracking, first, last),
        }
    }

    /// Makes the host's IOMMU do what is wanted from `first` to `last`. What fails is left out, and the first failure returned.
    fn sync(&self, table: &mut Table, first: u64, last: u64) -> Result<(), VfioError> {
        let allowed = self.backing.allowed();
        // To the edges of pages, so that pieces are whole ones.
        let mask = |at: u64| allowed.iter().find(|(a, b, _)| (*a..=*b).contains(&at)).map_or(0, |(.., page)| page - 1);
        let (first, last) = (first & !mask(first), last | mask(last));
        let (mut wanted, mut failure) = self.wanted(first, last, &allowed);
        let mut at = table.ranges.overlapping(first, last);
        // Ranges that go as a whole, side by side, from the first address to the last: one call unmaps them all.
        let mut run: Option<(u64, u64)> = None;
        while let Some(cursor) = at {
            let (start, end, piece) = table.ranges.get(cursor);
            if start > last {
                break;
            }
            let (from, to) = (start.max(first), end.min(last));
            let stays = served(&mut wanted, piece, from, to);
            if !stays && (from, to) == (start, end) {
                run = Some((run.map_or(start, |(first, _)| first), end));
                at = table.ranges.next(cursor);
                continue;
            }
            if stays && run.is_none() {
                at = table.ranges.next(cursor);
                continue;
            }
            self.unmap_run(table, run.take(), &mut failure);
            if !stays && let Err(e) = self.cut(table, start, from, to) {
                // It stays as it was: nothing can be mapped there.
                wanted.retain(|p| p.last() < start || p.iova > end);
                failure.get_or_insert(e);
            }
            at = end.checked_add(1).filter(|next| *next <= last).and_then(|next| table.ranges.overlapping(next, last));
        }
        self.unmap_run(table, run, &mut failure);
        for piece in wanted {
            // A rest of what could not be unmapped may be there.
            if table.ranges.overlapping(piece.iova, piece.last()).is_none()
                && let Err(e) = self.map(table, piece)
            {
                failure.get_or_insert(e);
            }
        }
        match failure {
            None => Ok(()),
            Some(e) => {
                self.counters.failed.fetch_add(1, Relaxed);
                Err(e)
            }
        }
    }
    fn unmap_run(&self, table: &mut Table, run: Option<(u64, u64)>, failure: &mut Option<VfioError>) {
        let Some((first, last)) = run else { return };
        match self.unmap(table, first, last) {
            Ok(()) => {
                let mut at = table.ranges.overlapping(first, last);
                while let Some(cursor) = at.filter(|c| table.ranges.get(*c).0 <= last) {
                    at = self.forget(table, cursor).1;
                }
            }
            Err(source) => {
                failure.get_or_insert(VfioError::Map { iova: first, len: last - first + 1, source });
            }
        }
    }
    /// Unmaps the part from `from` to `to` of the range that starts at `start`. Where the kernel only unmaps what was mapped together,
    /// the rest is mapped again at once; if that fails, all is as it was before.
    fn cut(&self, table: &mut Table, start: u64, from: u64, to: u64) -> Result<(), VfioError> {
        let Some(cursor) = table.ranges.overlapping(start, start) else { return Ok(()) };
        let end = table.ranges.get(cursor).1;
        let splits = self.backing.splits();
        let (lower, upper) = if splits { (from, to) } else { (start, end) };
        self.unmap(table, lower, upper).map_err(|source| VfioError::Map {
            iova: lower,
            len: upper - lower + 1,
            source,
        })?;
        let (whole, _) = self.forget(table, cursor);
        let rest: Vec<Piece> = whole.without(from, to).collect();
        if splits {
            for piece in rest {
                self.keep(table, piece);
            }
            return Ok(());
        }
        for piece in rest {
            if let Err(e) = self.map(table, piece) {
                // At most the part below is there.
                while let Some(cursor) = table.ranges.overlapping(start, end) {
                    let (first, last, _) = table.ranges.get(cursor);
                    let _ = self.unmap(table, first, last);
                    self.forget(table, cursor);
                }
                if let Err(worse) = self.map(table, whole) {
                    (self.report)(&format!("devices can no longer reach memory: {worse}"));
                }
                return Err(e);
            }
        }
        Ok(())
    }
    /// Looks at all memory, and has windows and registered memory follow. Were there other windows before?
    fn prepare(&self, table: &mut Table) -> Result<bool, VfioError> {
        table.ram = self.ram();
        if !self.backing.registers() {
            return Ok(false);
        }
        let (windows, before) = (self.windows(table), self.backing.windows());
        if windows != before {
            // What is in windows that go is unmapped with them.
            let stays = |first: u64, last: u64| {
                let inside = |w: &&DmaWindow| w.base <= first && last - w.base < w.len;
                before.iter().find(inside).is_some_and(|w| windows.contains(w))
            };
            let mut at = table.ranges.first();
            while let Some(cursor) = at {
                let (first, last, _) = table.ranges.get(cursor);
                at = if stays(first, last) {
                    table.ranges.next(cursor)
                } else {
                    self.all_written(table, first, last);
                    self.forget(table, cursor).1
                };
            }
            self.backing.set_windows(&windows)?;
        }
        self.register(table)?;
        Ok(windows != before)
    }
    /// Everything anew.
    fn all(&self, table: &mut Table) -> Result<(), VfioError> {
        let result = self.prepare(table).and_then(|_| self.sync(table, 0, u64::MAX));
        self.unregister(table);
        result
    }
    /// The blocks of RAM that the address space shows.
    fn blocks(&self) -> BTreeMap<u64, Arc<RamBlock>> {
        let view = self.memory.view();
        let blocks = view.ranges().iter().filter_map(|r| match &r.target {
            FlatTarget::Ram(ram) if !ram.block.is_device() => {
                Some((ram.block.host_ptr().expose_provenance() as u64, ram.block.clone()))
            }
            _ => None,
        });
        blocks.collect()
    }
    fn register(&self, table: &mut Table) -> Result<(), VfioError> {
        for (host, block) in self.blocks() {
            if table.registered.contains_key(&host) {
                continue;
            }
            let len = block.len().next_multiple_of(sys::page_size());
            let piece = Piece { iova: 0, len: block.len(), block: block.clone(), offset: 0, write: true };
            self.backing.register(host, len).map_err(|e| self.explain(table, &piece, e))?;
            block.pin(0, block.len());
            table.locked += len;
            table.registered.insert(host, block);
        }
        Ok(())
    }
    /// What is no longer shown.
    fn unregister(&self, table: &mut Table) {
        if table.registered.is_empty() {
            return;
        }
        let shown = self.blocks();
        let gone: Vec<_> = table.registered.keys().filter(|host| !shown.contains_key(host)).copied().collect();
        for host in gone {
            let Some(block) = table.registered.get(&host) else { continue };
            let len = block.len().next_multiple_of(sys::page_size());
            // Busy: something of it is still mapped, and it stays until the container goes.
            if self.backing.unregister(host, len).is_ok() {
                block.unpin(0, block.len());
                table.locked -= len;
                table.registered.remove(&host);
            }
        }
    }
    fn told(&self, result: Result<(), VfioError>) {
        if let Err(e) = result
            && self.counters.failed.load(Relaxed) <= 8
        {
            (self.report)(&format!("assigned devices cannot reach all of the guest's memory: {e}"));
        }
    }
    /// The announced change of memory.
    fn memory_changed(&self, change: &MemoryChange) {
        let remaps = match change.reason {
            // A mapping that allows more than is needed serves on.
            _ if change.read_only_downgrade => false,
            ChangeReason::Unmap | ChangeReason::RangeProtection => true,
            // The pages stay the same ones, as they are pinned.
            ChangeReason::ClearOrMigrate
            | ChangeReason::PageProtection
            | ChangeReason::SoftDirty
            | ChangeReason::PrivateShared => false,
        };
        let result = {
            let table = &mut *self.table.lock();
            if change.reason == ChangeReason::SoftDirty {
                self.look_at_logs(table);
            }
            if !remaps || table.ram == self.ram() {
                self.counters.ignored.fetch_add(1, Relaxed);
                return;
            }
            self.ram_changed(table, &change.ranges)
        };
        self.told(result);
    }
    fn ram_changed(&self, table: &mut Table, ranges: &[GpaRange]) -> Result<(), VfioError> {
        let result = self.prepare(table).and_then(|windows| {
            if windows || self.translations.get().is_some() {
                return self.sync(table, 0, u64::MAX);
            }
            // All of them, whatever fails.
            let mut all = Ok(());
            for range in ranges {
                all = all.and(self.sync(table, range.start.0, range.last()));
            }
            all
        });
        self.unregister(table);
        result
    }
}

impl TranslationListener for DmaSpace {
    fn translation_changed(&self, range: Option<GpaRange>) {
        let result = match (range, &mut *self.table.lock()) {
            (Some(range), table) => self.sync(table, range.start.0, range.last()),
            (None, table) => self.all(table),
        };
        self.told(result);
    }
    fn reaches(&self, window: DmaWindow) -> bool {
        self.backing.reaches(window)
    }
}

impl Drop for DmaSpace {
    fn drop(&mut self) {
        let table = &mut *self.table.lock();
        let mut at = table.ranges.first();
        while let Some(cursor) = at {
            let (first, last, _) = table.ranges.get(cursor);
            // What fails goes when the container is closed, before which the memory is not freed: it is pinned.
            let _ = self.unmap(table, first, last);
            at = self.forget(table, cursor).1;
        }
        for (host, block) in std::mem::take(&mut table.registered) {
            let _ = self.backing.unregister(host, block.len().next_multiple_of(sys::page_size()));
            block.unpin(0, block.len());
        }
    }
}

struct Follower(Weak<DmaSpace>);

impl ChangeListener for Follower {
    fn memory_changed(&self, change: &MemoryChange) {
        if let Some(space) = self.0.upgrade() {
            space.memory_changed(change);
        }
    }
}

fn follow(
    iommu: &Arc<dyn Iommu>,
    requester: u32,
    listener: Weak<dyn TranslationListener>,
) -> Result<Box<dyn Translations>, VfioError> {
    iommu
        .clone()
        .follow(requester, listener)
        .map_err(|(iommu, remedy)| VfioError::GuestIommu { iommu: iommu.to_owned(), remedy })
}

/// Is all of `piece` from `from` to `to` wanted, just so? Then it is taken out of what is wanted.
fn served(wanted: &mut Vec<Piece>, piece: &Piece, from: u64, to: u64) -> bool {
    let begin = wanted.partition_point(|p| p.last() < from);
    let (mut at, mut end) = (from, begin);
    while let Some(p) = wanted.get(end).filter(|p| p.iova <= at && piece.serves(p)) {
        end += 1;
        if p.last() >= to {
            let rest: Vec<Piece> = wanted[begin..end].iter().flat_map(|p| p.without(from, to)).collect();
            wanted.splice(begin..end, rest);
            return true;
        }
        at = p.last() + 1;
    }
    false
}

/// The limit of locked memory, if it was that.
fn locked(need: u64, source: io::Error, piece: &Piece) -> VfioError {
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        Some(limit) => VfioError::Locked { need: need.div_ceil(1024), limit: limit / 1024 },
        None => VfioError::Map { iova: piece.iova, len: piece.len, source },
    }
}
