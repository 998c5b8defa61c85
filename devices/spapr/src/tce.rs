//! Translation control entries (LoPAPR 14.5.4.2): tables that translate what devices address, a page for an entry, and the
//! hypercalls that change them.

use crate::guest::GuestRam;
use crate::papr::{Answer, Args, Hypercalls, Status, hcall as h};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rhea_accel::spapr::{KernelTable, KernelTces};
use rhea_accel::{MsiMessage, MsiTarget};
use rhea_device::LoadError;
use rhea_device::dma::{DmaWindow, Iommu, Translated, Translation, TranslationListener, Translations};
use rhea_memory::{BusError, Gpa, GpaRange};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

/// The device may read.
pub const READ: u64 = 1;
/// The device may write.
pub const WRITE: u64 = 2;
/// Entries of one H_PUT_TCE_INDIRECT.
const MAX_INDIRECT: u64 = 512;
const LIST_ALIGN: u64 = 4096;

/// Where the entries are.
enum Home {
    Own(Vec<AtomicU64>),
    /// Hypercalls change them past this program: nobody is told.
    Kernel(Box<dyn KernelTable>),
}

impl Home {
    /// 0 beyond the end.
    #[inline]
    fn get(&self, index: usize) -> u64 {
        match self {
            Self::Own(entries) => entries.get(index).map_or(0, |e| e.load(SeqCst)),
            Self::Kernel(table) => table.load(index),
        }
    }
    fn set(&self, index: usize, tce: u64) {
        match self {
            Self::Own(entries) => entries.get(index).map_or((), |e| e.store(tce, SeqCst)),
            Self::Kernel(table) => table.store(index, tce),
        }
    }
}

/// A table: the window of a device's bus from `base` on.
pub struct TceTable {
    liobn: u32,
    base: u64,
    page_shift: u32,
    pages: usize,
    /// Locked for writing while they move.
    home: RwLock<Home>,
    kernel: Option<Arc<dyn KernelTces>>,
    watchers: Mutex<Vec<(Vec<GpaRange>, Weak<AtomicBool>)>>,
    watched: AtomicUsize,
    followers: Followers,
}

/// Those that keep all translations elsewhere.
type Followers = Mutex<Vec<Weak<dyn TranslationListener>>>;

fn tell(followers: &Followers, range: Option<GpaRange>) {
    let all: Vec<_> = followers.lock().iter().filter_map(Weak::upgrade).collect();
    for follower in all {
        follower.translation_changed(range);
    }
}

impl TceTable {
    /// A table of `pages` pages of `1 << page_shift` bytes each (12 to 34) from bus address `base` on; nothing is translated yet. It is
    /// the accelerator's as long as nobody wants to be told of changes, if that can have it.
    fn new(liobn: u32, base: u64, page_shift: u32, pages: u64, kernel: Option<Arc<dyn KernelTces>>) -> Arc<Self> {
        let table = Self {
            liobn,
            base,
            page_shift: page_shift.clamp(12, 34),
            pages: pages as usize,
            home: RwLock::new(Home::Own(Vec::new())),
            kernel,
            watchers: Mutex::default(),
            watched: AtomicUsize::new(0),
            followers: Mutex::default(),
        };
        table.renew(&mut table.home.write());
        Arc::new(table)
    }
    /// Does anybody want to be told of changes?
    fn told(&self) -> bool {
        self.followers.lock().iter().any(|f| f.strong_count() > 0)
            || self.watchers.lock().iter().any(|(_, m)| m.strong_count() > 0)
    }
    /// Makes the entries anew, all 0.
    fn renew(&self, home: &mut Home) {
        // There is no second one of the same number.
        *home = Home::Own(Vec::new());
        let kernel = self.kernel.as_ref().filter(|_| !self.told());
        let first = self.base >> self.page_shift;
        let made = kernel.and_then(|k| k.create(self.liobn, self.page_shift, first, self.pages as u64));
        let own = || Home::Own((0..self.pages).map(|_| AtomicU64::new(0)).collect());
        *home = made.map_or_else(own, Home::Kernel);
    }
    /// Somebody is told of changes from now on: all hypercalls come here.
    fn take_over(&self) {
        let Some(kernel) = self.kernel.as_ref().filter(|_| self.in_kernel()) else { return };
        kernel.exclusively(&mut || {
            let mut home = self.home.write();
            if let Home::Kernel(table) = &*home {
                *home = Home::Own((0..self.pages).map(|n| AtomicU64::new(table.load(n))).collect());
            }
        });
    }
    /// Are the entries the accelerator's?
    #[must_use]
    pub fn in_kernel(&self) -> bool {
        matches!(*self.home.read(), Home::Kernel(_))
    }
    /// It is nobody's window any more: its number is free, and nothing is translated.
    fn retire(&self) {
        *self.home.write() = Home::Own(Vec::new());
    }
    fn entry(&self, index: usize) -> u64 {
        self.home.read().get(index)
    }
    /// The logical I/O bus number.
    #[must_use]
    pub fn liobn(&self) -> u32 {
        self.liobn
    }
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }
    #[must_use]
    pub fn page_shift(&self) -> u32 {
        self.page_shift
    }
    /// Bytes of the window.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.pages as u64) << self.page_shift
    }
    fn index(&self, address: u64) -> Option<usize> {
        usize::try_from(address.checked_sub(self.base)? >> self.page_shift).ok().filter(|n| *n < self.pages)
    }
    /// Where `address` leads, `None`: it is not in the window.
    ///
    /// # Errors
    /// The entry does not allow it.
    #[inline]
    pub fn translate(&self, address: u64, write: bool) -> Option<Result<Translation, BusError>> {
        let entry = self.entry(self.index(address)?);
        if entry & if write { WRITE } else { READ } == 0 {
            return Some(Err(BusError::Refused));
        }
        let page = 1u64 << self.page_shift;
        // The window need not be aligned to its pages, but is.
        let offset = (address - self.base) & (page - 1);
        Some(Ok(Translation::Memory { gpa: entry & !(page - 1) | offset, len: page - offset }))
    }
    fn range(&self, address: u64, pages: u64) -> Answer<std::ops::Range<usize>> {
        let mask = (1u64 << self.page_shift) - 1;
        let first = self.index(address & !mask).ok_or(Status::PARAMETER)?;
        let end = usize::try_from(pages).ok().and_then(|n| first.checked_add(n));
        end.filter(|end| *end <= self.pages).map(|end| first..end).ok_or(Status::PARAMETER)
    }
    /// Sets the entry of a bus address.
    ///
    /// # Errors
    /// The address is not in the window.
    pub fn put(&self, address: u64, tce: u64) -> Answer {
        let range = self.range(address, 1)?;
        self.store(range, std::iter::once(tce));
        Ok(())
    }
    fn store(&self, range: std::ops::Range<usize>, tces: impl Iterator<Item = u64>) {
        let mask = (1u64 << self.page_shift) - 1;
        {
            let home = self.home.read();
            for (n, tce) in range.clone().zip(tces) {
                home.set(n, tce & !mask | tce & (READ | WRITE));
            }
        }
        self.notify(range);
    }
    /// Sets `pages` entries to one value.
    ///
    /// # Errors
    /// They leave the window.
    pub fn stuff(&self, address: u64, tce: u64, pages: u64) -> Answer {
        let range = self.range(address, pages)?;
        self.store(range, std::iter::repeat(tce));
        Ok(())
    }
    /// The entry of a bus address.
    ///
    /// # Errors
    /// It is not in the window.
    pub fn get(&self, address: u64) -> Answer<u64> {
        let range = self.range(address, 1)?;
        Ok(self.entry(range.start))
    }
    /// Tells who watches one of these entries.
    fn notify(&self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        let start = self.base.wrapping_add((range.start as u64) << self.page_shift);
        let changed = GpaRange { start: Gpa(start), len: (range.len() as u64) << self.page_shift };
        tell(&self.followers, Some(changed));
        if self.watched.load(SeqCst) == 0 {
            return;
        }
        let mut watchers = self.watchers.lock();
        watchers.retain(|(ranges, mark)| {
            let Some(mark) = mark.upgrade() else { return false };
            if ranges.iter().any(|r| r.len != 0 && r.overlaps(&changed)) {
                mark.store(true, SeqCst);
                return false;
            }
            true
        });
        self.watched.store(watchers.len(), SeqCst);
    }
    /// Sets `mark` once an entry for one of the ranges changes.
    pub fn watch(&self, ranges: &[GpaRange], mark: &Arc<AtomicBool>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|(_, m)| m.strong_count() > 0);
        watchers.push((ranges.to_vec(), Arc::downgrade(mark)));
        self.watched.store(watchers.len(), SeqCst);
        drop(watchers);
        self.take_over();
    }
    /// The entries from `first` to `last` that allow anything, each for itself: as it comes it goes.
    fn mapped(&self, first: u64, last: u64, found: &mut dyn FnMut(Translated)) {
        let page = 1u64 << self.page_shift;
        let end = self.base.saturating_add(self.size().max(1) - 1);
        if first > end || last < self.base {
            return;
        }
        let index = |at: u64| ((at - self.base) >> self.page_shift) as usize;
        let (from, to) = (index(first.max(self.base)), index(last.min(end)));
        for n in from..=to.min(self.pages.saturating_sub(1)) {
            let entry = self.entry(n);
            let (read, write) = (entry & READ != 0, entry & WRITE != 0);
            if read || write {
                let iova = self.base + ((n as u64) << self.page_shift);
                found(Translated { iova, gpa: entry & !(page - 1), len: page, read, write });
            }
        }
    }
    /// Clears all entries.
    pub fn clear(&self) {
        self.renew(&mut self.home.write());
        self.notify(0..self.pages);
    }
    /// Entries that are not 0, for saved state.
    #[must_use]
    pub fn save(&self) -> Vec<(u32, u64)> {
        (0..self.pages).map(|n| (n as u32, self.entry(n))).filter(|(_, e)| *e != 0).collect()
    }
    /// # Errors
    /// Entries beyond the end.
    pub fn load(&self, entries: &[(u32, u64)]) -> Result<(), LoadError> {
        self.clear();
        for (n, tce) in entries {
            if *n as usize >= self.pages {
                return Err(LoadError::Mismatch(format!("size of DMA window {:#x}", self.liobn)));
            }
            self.home.read().set(*n as usize, *tce);
        }
        self.notify(0..self.pages);
        Ok(())
    }
}

/// All tables of a machine, by logical I/O bus number.
pub struct TceTables {
    tables: RwLock<BTreeMap<u32, Arc<TceTable>>>,
    ram: GuestRam,
    kernel: OnceLock<Arc<dyn KernelTces>>,
    /// Hypercalls that came here.
    calls: AtomicU64,
}

impl TceTables {
    /// `ram` is where H_PUT_TCE_INDIRECT has its lists.
    #[must_use]
    pub fn new(ram: GuestRam) -> Arc<Self> {
        Arc::new(Self { tables: RwLock::default(), ram, kernel: OnceLock::new(), calls: AtomicU64::new(0) })
    }
    /// Tables made from now on are the accelerator's where they can be.
    pub fn set_kernel(&self, kernel: Arc<dyn KernelTces>) {
        // Once, while the machine is built.
        let _ = self.kernel.set(kernel);
    }
    /// Makes an empty table of `pages` pages of `1 << page_shift` bytes each (12 to 34) from bus address `base` on. One with the same
    /// number is replaced.
    pub fn make(&self, liobn: u32, base: u64, page_shift: u32, pages: u64) -> Arc<TceTable> {
        self.remove(liobn);
        let table = TceTable::new(liobn, base, page_shift, pages, self.kernel.get().cloned());
        self.tables.write().insert(liobn, table.clone());
        table
    }
    /// The window is gone: it translates nothing any more.
    pub fn remove(&self, liobn: u32) {
        let table = self.tables.write().remove(&liobn);
        if let Some(table) = table {
            table.retire();
        }
    }
    /// A line for the monitor: where the tables are.
    #[must_use]
    pub fn describe(&self) -> String {
        let tables = self.tables.read();
        let kernel = tables.values().filter(|t| t.in_kernel()).count();
        let calls = self.calls.load(SeqCst);
        format!(
            "TCE tables: {kernel} in the kernel, {} in the machine, {calls} hypercalls came here\n",
            tables.len() - kernel
        )
    }
    #[must_use]
    pub fn get(&self, liobn: u32) -> Option<Arc<TceTable>> {
        self.tables.read().get(&liobn).cloned()
    }
    fn table(&self, liobn: u64) -> Answer<Arc<TceTable>> {
        u32::try_from(liobn).ok().and_then(|n| self.get(n)).ok_or(Status::PARAMETER)
    }
    fn put_indirect(&self, args: &Args) -> Answer {
        let [liobn, address, list, count, ..] = *args;
        let table = self.table(liobn)?;
        if count > MAX_INDIRECT || list % LIST_ALIGN != 0 {
            return Err(Status::PARAMETER);
        }
        let range = table.range(address, count)?;
        let mut bytes = vec![0; count as usize * 8];
        if !self.ram.read(list, &mut bytes) {
            return Err(Status::PARAMETER);
        }
        table.store(range, bytes.chunks_exact(8).map(|tce| tce.iter().fold(0, |v, b| v << 8 | u64::from(*b))));
        Ok(())
    }
}

impl Hypercalls for TceTables {
    fn hcall(&self, _server: u32, number: u64, args: &Args, out: &mut Args) -> Option<Status> {
        let result = match number {
            h::H_PUT_TCE => self.table(args[0]).and_then(|t| t.put(args[1], args[2])),
            h::H_GET_TCE => self.table(args[0]).and_then(|t| t.get(args[1])).map(|tce| out[0] = tce),
            h::H_STUFF_TCE => self.table(args[0]).and_then(|t| t.stuff(args[1], args[2], args[3])),
            h::H_PUT_TCE_INDIRECT => self.put_indirect(args),
            _ => return None,
        };
        self.calls.fetch_add(1, SeqCst);
        Some(result.err().unwrap_or(Status::SUCCESS))
    }
}

/// What a device or a host bridge addresses: its windows. Everything else is refused, unless the tables are bypassed.
pub struct DmaWindows {
    windows: ArcSwap<Vec<Arc<TceTable>>>,
    bypass: AtomicBool,
    /// Stores here are messages.
    messages: Option<(GpaRange, Arc<dyn MsiTarget>)>,
    /// Set when windows come and go: those who watch look again.
    changes: Mutex<Vec<Weak<AtomicBool>>>,
    followers: Followers,
}

impl DmaWindows {
    #[must_use]
    pub fn new(messages: Option<(GpaRange, Arc<dyn MsiTarget>)>) -> Arc<Self> {
        Arc::new(Self {
            windows: ArcSwap::default(),
            bypass: AtomicBool::new(false),
            messages,
            changes: Mutex::default(),
            followers: Mutex::default(),
        })
    }
    /// Replaces the windows.
    pub fn set(&self, windows: Vec<Arc<TceTable>>) {
        let windows = Arc::new(windows);
        {
            let mut followers = self.followers.lock();
            followers.retain(|f| f.strong_count() > 0);
            let before = self.windows.swap(windows.clone());
            for gone in before.iter() {
                gone.followers.lock().clear();
            }
            for window in windows.iter() {
                window.followers.lock().clone_from(&followers);
            }
        }
        for window in windows.iter().filter(|w| w.told()) {
            window.take_over();
        }
        self.changed();
    }
    #[must_use]
    pub fn windows(&self) -> Arc<Vec<Arc<TceTable>>> {
        self.windows.load_full()
    }
    /// Is there room for messages beside this window, and could those that follow the windows follow it too?
    #[must_use]
    pub fn reaches(&self, window: DmaWindow) -> bool {
        let range = GpaRange { start: Gpa(window.base), len: window.len };
        if self.messages.as_ref().is_some_and(|(messages, _)| messages.overlaps(&range)) {
            return false;
        }
        let followers: Vec<_> = self.followers.lock().iter().filter_map(Weak::upgrade).collect();
        followers.iter().all(|follower| follower.reaches(window))
    }
    /// ibm,set-tce-bypass: addresses are guest-real ones.
    pub fn set_bypass(&self, on: bool) {
        if self.bypass.swap(on, SeqCst) != on {
            self.changed();
        }
    }
    #[must_use]
    pub fn bypassed(&self) -> bool {
        self.bypass.load(SeqCst)
    }
    fn changed(&self) {
        for mark in self.changes.lock().drain(..).filter_map(|m| m.upgrade()) {
            mark.store(true, SeqCst);
        }
        tell(&self.followers, None);
    }
}

impl Iommu for DmaWindows {
    fn translate(&self, _requester: u32, address: u64, write: bool) -> Result<Translation, BusError> {
        if self.bypass.load(SeqCst) {
            return Ok(Translation::Memory { gpa: address, len: u64::MAX - address });
        }
        if let Some(found) = self.windows.load().iter().find_map(|w| w.translate(address, write)) {
            return found;
        }
        match &self.messages {
            Some((range, _)) if write && address >= range.start.0 && address <= range.last() => {
                Ok(Translation::Interrupt)
            }
            _ => Err(BusError::Refused),
        }
    }
    fn interrupt(&self, requester: u32, address: u64, data: u32) {
        if let Some((_, target)) = &self.messages {
            target.send(MsiMessage { address, data, requester_id: requester });
        }
    }
    fn watch(&self, _requester: u32, ranges: &[GpaRange]) -> Arc<AtomicBool> {
        let mark = Arc::new(AtomicBool::new(false));
        {
            let mut changes = self.changes.lock();
            changes.retain(|m| m.strong_count() > 0);
            changes.push(Arc::downgrade(&mark));
        }
        for window in self.windows.load().iter() {
            window.watch(ranges, &mark);
        }
        mark
    }
    fn domain(&self, _requester: u32) -> u32 {
        0
    }
    fn follow(
        self: Arc<Self>,
        _requester: u32,
        listener: Weak<dyn TranslationListener>,
    ) -> Result<Box<dyn Translations>, (&'static str, &'static str)> {
        let mut followers = self.followers.lock();
        followers.push(listener.clone());
        for window in self.windows.load().iter() {
            window.followers.lock().push(listener.clone());
        }
        drop(followers);
        for window in self.windows.load().iter() {
            window.take_over();
        }
        Ok(Box::new(Followed(self)))
    }
}

/// The windows, for those that follow them.
struct Followed(Arc<DmaWindows>);

impl Translations for Followed {
    fn windows(&self) -> Option<Vec<DmaWindow>> {
        let window = |w: &Arc<TceTable>| DmaWindow { base: w.base, len: w.size(), page_shift: w.page_shift };
        (!self.0.bypassed()).then(|| self.0.windows.load().iter().map(window).collect())
    }
    fn mapped(&self, first: u64, last: u64, found: &mut dyn FnMut(Translated)) {
        if self.0.bypassed() {
            let len = (last - first).saturating_add(1);
            return found(Translated { iova: first, gpa: first, len, read: true, write: true });
        }
        for window in self.0.windows.load().iter() {
            window.mapped(first, last, found);
        }
    }
}
