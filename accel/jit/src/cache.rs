//! Translated regions: where they are, what guest bytes they came from, how they are replaced and forgotten.
//!
//! A region's first instruction has five bytes, which a jump replaces. Everything that leads to a region (links, jump caches) stays valid when it
//! dies: its head then jumps to its successor, or to an exit that looks the guest's pc up again. Memory of dead regions
//! is reclaimed only when the whole cache is emptied, while no vCPU runs generated code.

use crate::code::{CodeMemory, Resting, Soon};
use crate::fetch::FetchEntry;
use crate::report::Installed;
use crate::template::Templates;
use crate::x64::{CodeBlob, LinkSite};
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::func::Function;
use rhea_ir::op::Class;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// What a translation depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Guest-virtual address of the first instruction.
    pub pc: u64,
    /// Host address of its bytes: tells apart whatever the guest-physical address maps to over time.
    pub host: u64,
    pub mode: u64,
    pub attrs: u8,
}

/// A page of RAM: the block's address as an identity, and the page's index in it.
pub type PageId = (usize, u64);

pub struct Meta {
    pub key: Key,
    pub entry: usize,
    /// Address of the code that stores pc and leaves.
    leave: usize,
    links: Box<[LinkSite]>,
    /// The bytes that were translated.
    ranges: Ranges,
    /// Pages other than the entry's that the region is made of.
    pub others: Box<[OtherPage]>,
    counter: usize,
    targets: usize,
    /// What was made before for this key, since the last flush.
    previous: Option<u32>,
    pub optimised: bool,
    alive: bool,
}

/// Blocks of the cheap tier are made of one.
pub type Ranges = SmallVec<[Range; 1]>;

/// Translated bytes of a page: from, to (exclusive).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub page: PageId,
    pub from: u16,
    pub to: u16,
}

/// A further page of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OtherPage {
    /// Page address | MMU index.
    pub tag: u64,
    /// Host address of the page.
    pub host: u64,
    /// See [`crate::fetch::Identities`].
    pub identity: u32,
}

/// Counters for logs and the monitor.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub blocks: u64,
    /// Blocks that were copied, among these.
    pub copied: u64,
    pub regions: u64,
    pub invalidated: u64,
    pub flushes: u64,
    pub guest_bytes: u64,
    pub code_bytes: u64,
    /// Nanoseconds spent translating blocks and regions.
    pub block_time: u64,
    pub region_time: u64,
    /// Bytes of code memory that are used, and that there are.
    pub used: usize,
    pub size: usize,
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "blocks translated    {} in {} ms", self.blocks, self.block_time / 1_000_000)?;
        writeln!(f, "of these copied      {}", self.copied)?;
        writeln!(f, "regions optimised    {} in {} ms", self.regions, self.region_time / 1_000_000)?;
        writeln!(f, "invalidated          {}", self.invalidated)?;
        writeln!(f, "cache flushes        {}", self.flushes)?;
        writeln!(f, "guest code           {} bytes", self.guest_bytes)?;
        writeln!(f, "host code            {} bytes", self.code_bytes)?;
        writeln!(f, "code memory used     {} of {} bytes", self.used, self.size)
    }
}

pub struct Cache {
    code: CodeMemory,
    keep: usize,
    metas: Metas,
    /// The last region made for a key since the last flush, alive or dead.
    map: Index,
    pages: FxHashMap<PageId, PageCode>,
    /// Cells of code memory in use.
    counters_used: usize,
    targets: Vec<Box<[Targets]>>,
    targets_used: usize,
    next_site: u32,
    /// Kept when code memory is emptied: they are not in it.
    pub templates: Templates,
    pub stats: Stats,
}

/// Where an indirect branch went, and the address of the list that says so; 0: there is none.
#[derive(Default)]
pub struct Seen {
    pub list: u64,
    pub targets: Vec<u64>,
}

/// Where an indirect branch went, each address once, the first ones; 0 behind them. Generated code finds their end by its address.
#[derive(Default)]
#[repr(align(256))]
struct Targets([AtomicU64; 32]);

pub const LIST_BYTES: i32 = size_of::<Targets>() as i32;
const _: () = assert!(size_of::<Targets>() == align_of::<Targets>());

const TARGETS_CHUNK: usize = 64;

/// Ids of regions by key, by the page that the key's bytes are in: what is looked up next is mostly near what was looked up last.
#[derive(Default)]
struct Index(FxHashMap<u64, FxHashMap<(u64, u64, u8), u32>>);

impl Index {
    fn parts(key: &Key) -> (u64, (u64, u64, u8)) {
        (key.host & !(PAGE_SIZE - 1), (key.pc, key.mode, key.attrs))
    }
    fn get(&self, key: &Key) -> Option<u32> {
        let (page, key) = Self::parts(key);
        self.0.get(&page)?.get(&key).copied()
    }
    /// What was there before.
    fn insert(&mut self, key: Key, id: u32) -> Option<u32> {
        let (page, key) = Self::parts(&key);
        self.0.entry(page).or_default().insert(key, id)
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Regions by id, at places that do not change: there are many, and moving them as they become more would cost more than they do.
#[derive(Default)]
struct Metas(Vec<Vec<Meta>>);

impl Metas {
    const CHUNK: usize = 1024;
    /// The id of a new one.
    fn push(&mut self, m: Meta) -> u32 {
        if self.0.last().is_none_or(|c| c.len() == Self::CHUNK) {
            self.0.push(Vec::with_capacity(Self::CHUNK));
        }
        let before = (self.0.len() - 1) * Self::CHUNK;
        let Some(last) = self.0.last_mut() else { return u32::MAX };
        last.push(m);
        (before + last.len() - 1) as u32
    }
    fn get(&self, id: u32) -> Option<&Meta> {
        self.0.get(id as usize / Self::CHUNK)?.get(id as usize % Self::CHUNK)
    }
    fn get_mut(&mut self, id: u32) -> Option<&mut Meta> {
        self.0.get_mut(id as usize / Self::CHUNK)?.get_mut(id as usize % Self::CHUNK)
    }
    /// `id` and all made before for its key, the last one first.
    fn chain(&self, id: Option<u32>) -> impl Iterator<Item = &Meta> {
        std::iter::successors(id.and_then(|id| self.get(id)), |m| self.get(m.previous?))
    }
}

/// What is made of a page.
#[derive(Default)]
struct PageCode {
    regions: Vec<u32>,
    /// How many regions there may be before the dead ones are looked for: twice what was left last time.
    crowded: usize,
    /// A bit for each 64 bytes that some of them, alive or dead, were made from: most stores to the page are to data beside it.
    chunks: u64,
}

/// The bits of the bytes `from..to` in [`PageCode::chunks`].
fn chunks(from: u64, to: u64) -> u64 {
    if from >= to {
        return 0;
    }
    let (first, last) = (from / 64, (to - 1).min(4095) / 64);
    u64::MAX << first & u64::MAX >> (63 - last)
}

impl Cache {
    /// # Errors
    /// The host's error when code memory cannot be had.
    pub fn new(bytes: usize) -> io::Result<Cache> {
        Ok(Cache {
            code: CodeMemory::new(bytes)?,
            keep: 0,
            metas: Metas::default(),
            map: Index::default(),
            pages: FxHashMap::default(),
            counters_used: 0,
            targets: Vec::new(),
            targets_used: 0,
            next_site: 0,
            templates: Templates::default(),
            stats: Stats::default(),
        })
    }

    /// Adds code that survives flushes (trampolines); before any region.
    pub fn add_permanent(&mut self, bytes: &[u8]) -> Option<usize> {
        let at = self.code.append(bytes)?;
        self.keep = self.code.appended();
        Some(at)
    }

    /// Adds code that belongs to no region (run once, then forgotten with the next flush).
    pub fn add_transient(&mut self, bytes: &[u8]) -> Option<usize> {
        self.code.append(bytes)
    }

    /// Code memory that somebody may make ready.
    pub fn soon(&mut self) -> Option<Soon> {
        self.code.soon()
    }
    pub fn resting(&self) -> Resting {
        self.code.resting()
    }

    /// Numbers for the memory instructions of a region: the first of them.
    pub fn sites(&mut self, func: &Function) -> u32 {
        let first = self.next_site;
        self.next_site = first.wrapping_add(func.insts.iter().filter(|i| i.op.class() == Class::Mem).count() as u32);
        first
    }

    /// The id of a region to be made.
    pub fn reserve(&mut self, key: Key) -> u32 {
        self.metas.push(Meta {
            key,
            entry: 0,
            leave: 0,
            links: Box::default(),
            ranges: Ranges::new(),
            others: Box::default(),
            counter: 0,
            targets: 0,
            previous: None,
            optimised: false,
            alive: false,
        })
    }

    /// A counter set to `start`: its number (from 1), or 0 when there are no more.
    pub fn counter(&mut self, start: i32) -> usize {
        let Some(cell) = self.code.cells().get(self.counters_used) else { return 0 };
        cell.store(start, Ordering::Relaxed);
        self.counters_used += 1;
        self.counters_used
    }

    /// Room for where a block's indirect branch goes: its number (from 1) and its stable address.
    pub fn targets(&mut self) -> (usize, usize) {
        if self.targets_used == self.targets.len() * TARGETS_CHUNK {
            self.targets.push((0..TARGETS_CHUNK).map(|_| Targets::default()).collect());
        }
        let n = self.targets_used;
        self.targets_used += 1;
        (n + 1, std::ptr::from_ref(&self.targets[n / TARGETS_CHUNK][n % TARGETS_CHUNK]) as usize)
    }

    /// Where the indirect branch at the end of the block of this key went while it was run in the cheap tier.
    pub fn branched_to(&self, key: &Key) -> Seen {
        let list = |m: &Meta| {
            let n = m.targets.checked_sub(1)?;
            self.targets.get(n / TARGETS_CHUNK)?.get(n % TARGETS_CHUNK)
        };
        let Some(list) = self.metas.chain(self.map.get(key)).find_map(list) else { return Seen::default() };
        let targets = list.0.iter().map(|t| t.load(Ordering::Relaxed)).filter(|&t| t != 0).collect();
        Seen { list: std::ptr::from_ref(list) as u64, targets }
    }

    pub fn stats(&self) -> Stats {
        Stats { used: self.code.used(), size: self.code.size(), ..self.stats }
    }

    pub fn find(&self, key: &Key) -> Option<&Meta> {
        self.metas.get(self.map.get(key)?).filter(|m| m.alive)
    }
    pub fn meta(&self, id: u32) -> Option<&Meta> {
        self.metas.get(id)
    }

    /// Installs a region under an id of [`Cache::reserve`] since the last flush; `time` is what it took to make. `None` when code memory
    /// is full.
    pub fn install(&mut self, id: u32, key: Key, made: Made, blob: CodeBlob, time: Duration) -> Option<Installed> {
        let Made { ranges, others, counter, targets, optimised } = made;
        // Of blocks there are many, most of them run rarely: they are to be near each other.
        let CodeBlob { bytes, cold, crossings, mut links, leave, counts } = blob;
        let cell = counts.zip(counter.checked_sub(1));
        let placed = self.code.place(&bytes, cold as usize, &crossings, if optimised { 64 } else { 16 }, cell)?;
        let entry = placed.hot;
        for link in &mut links {
            link.at = placed.offset(link.at);
            link.identity_at = link.identity_at.map(|at| placed.offset(at));
        }
        let guest_bytes = ranges.iter().map(|r| u64::from(r.to - r.from)).sum();
        let installed = Installed { pc: key.pc, parts: placed.parts(bytes.len()), guest_bytes, optimised, time };
        self.stats.code_bytes += bytes.len() as u64;
        self.stats.guest_bytes += guest_bytes;
        if optimised {
            self.stats.regions += 1;
        } else {
            self.stats.blocks += 1;
        }
        let previous = self.map.insert(key, id);
        for old in self.metas.chain(previous) {
            self.code.patch_head(old.entry, entry);
        }
        for (n, r) in ranges.iter().enumerate() {
            let page = self.pages.entry(r.page).or_default();
            page.chunks |= chunks(r.from.into(), r.to.into());
            if ranges[..n].iter().any(|before| before.page == r.page) {
                continue;
            }
            if page.regions.len() >= page.crowded.max(64) {
                // Superseded regions pile up on hot pages.
                page.regions.retain(|&r| self.metas.get(r).is_some_and(|m| m.alive));
                page.crowded = page.regions.len() * 2;
            }
            page.regions.push(id);
        }
        let leave = entry + placed.offset(leave) as usize;
        let (links, others) = (links.into(), others.into());
        let meta =
            Meta { key, entry, leave, links, ranges, others, counter, targets, previous, optimised, alive: true };
        if let Some(m) = self.metas.get_mut(id) {
            *m = meta;
        }
        Some(installed)
    }

    /// Times a region of the cheap tier was entered, given what its counter started from.
    pub fn entered(&self, key: &Key, start: i32) -> Option<i32> {
        let left = match self.find(key)?.counter {
            0 => 0,
            n => self.cell(n)?.load(Ordering::Relaxed),
        };
        // More than it started from: it was hot and counts for the second time.
        Some(if left > start { start } else { start.saturating_sub(left) })
    }

    /// Sets a block's counter.
    pub fn rearm(&self, key: &Key, left: i32) {
        if let Some(cell) = self.find(key).and_then(|m| self.cell(m.counter)) {
            cell.store(left, Ordering::Relaxed);
        }
    }

    fn cell(&self, counter: usize) -> Option<&AtomicI32> {
        self.code.cells().get(counter.checked_sub(1)?)
    }

    /// Kills one region (a further page of it is no longer what it was).
    pub fn kill(&mut self, id: u32) {
        let Some(m) = self.metas.get_mut(id) else { return };
        if !std::mem::take(&mut m.alive) {
            return;
        }
        let (key, leave) = (m.key, m.leave);
        let last = self.map.get(&key);
        // The heads of what was made before lead to the last one.
        if last == Some(id) {
            for m in self.metas.chain(last) {
                self.code.patch_head(m.entry, leave);
            }
        }
    }

    /// Points a link of a region at code for the link's address, which is in `page`.
    pub fn link(&self, id: u32, site: usize, target: usize, page: &FetchEntry) {
        let Some(m) = self.metas.get(id) else { return };
        let Some(l) = m.links.get(site) else { return };
        let at = m.entry + l.at as usize;
        match l.identity_at {
            // Others may run this code: a link to another page is made once, its condition last.
            Some(n) => {
                if self.code.read32(m.entry + n as usize) == Some(0) {
                    self.code.patch_displacement(at, target);
                    self.code.patch32(m.entry + n as usize, page.identity);
                }
            }
            // Only while the target is one of the region's pages.
            None => {
                let known = |tag: u64, host: u64| tag & !0xfff == l.pc & !0xfff && host & !0xfff == page.host;
                if known(m.key.pc, m.key.host) || m.others.iter().any(|p| known(p.tag, p.host)) {
                    self.code.patch_displacement(at, target);
                }
            }
        }
    }

    /// True if a live region was made from bytes `[from, to)` of the page.
    pub fn overlaps(&self, page: PageId, from: u64, to: u64) -> bool {
        self.pages.get(&page).is_some_and(|p| {
            p.chunks & chunks(from, to) != 0
                && p.regions.iter().any(|&id| self.metas.get(id).is_some_and(|m| m.covers(page, from, to)))
        })
    }

    /// Kills the regions made from bytes `[from, to)` of the page; true if none is left on it.
    pub fn invalidate(&mut self, page: PageId, from: u64, to: u64) -> bool {
        match self.pages.get(&page) {
            None => return true,
            Some(p) if p.chunks & chunks(from, to) == 0 => return false,
            Some(_) => {}
        }
        let mut left = PageCode::default();
        for id in self.pages.remove(&page).unwrap_or_default().regions {
            let Some(m) = self.metas.get(id).filter(|m| m.alive) else { continue };
            if m.covers(page, from, to) {
                self.stats.invalidated += 1;
                self.kill(id);
            } else {
                let here = m.ranges.iter().filter(|r| r.page == page);
                left.chunks |= here.fold(0, |all, r| all | chunks(r.from.into(), r.to.into()));
                left.regions.push(id);
            }
        }
        let empty = left.regions.is_empty();
        if !empty {
            self.pages.insert(page, left);
        }
        empty
    }

    /// Forgets everything. Only while no vCPU runs generated code, and with all jump caches emptied before one does.
    pub fn flush(&mut self) {
        self.stats.flushes += 1;
        self.metas.0.clear();
        self.map.clear();
        self.pages.clear();
        self.counters_used = 0;
        self.targets.clear();
        self.targets_used = 0;
        self.code.truncate(self.keep);
    }
}

/// What a region was made from.
pub struct Made {
    pub ranges: Ranges,
    pub others: Vec<OtherPage>,
    /// Number of its counter, 0: none.
    pub counter: usize,
    /// Number of its [`Targets`], 0: none.
    pub targets: usize,
    pub optimised: bool,
}

impl Meta {
    fn covers(&self, page: PageId, from: u64, to: u64) -> bool {
        self.alive && self.ranges.iter().any(|r| r.page == page && (r.from as u64) < to && from < r.to as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(c: &mut Cache, key: Key) -> (u32, usize) {
        let id = c.reserve(key);
        let crossings = Box::default();
        let blob =
            CodeBlob { bytes: vec![0x90; 64].into(), cold: 64, crossings, links: Vec::new(), leave: 32, counts: None };
        let ranges = Ranges::from_buf([Range { page: (1, 1), from: 0, to: 4 }]);
        let made = Made { ranges, others: Vec::new(), counter: 0, targets: 0, optimised: false };
        (id, c.install(id, key, made, blob, Duration::ZERO).unwrap().parts[0].0)
    }
    /// Where the head of a region jumps to.
    fn head(c: &Cache, entry: usize) -> Option<usize> {
        let [a, b] = [entry, entry + 4].map(|at| u64::from(c.code.read32(at).unwrap()));
        let bytes = (a | b << 32).to_le_bytes();
        let to = i32::from_le_bytes(bytes[1..5].try_into().unwrap());
        (bytes[0] == 0xe9).then(|| (entry + 5).wrapping_add_signed(to as isize))
    }

    #[test]
    fn heads_lead_to_what_was_made_last() {
        let mut c = Cache::new(1 << 20).unwrap();
        let key = Key { pc: 0x1000, host: 0x7000, mode: 0, attrs: 0 };
        let (a, at_a) = install(&mut c, key);
        let (b, at_b) = install(&mut c, key);
        assert_eq!((head(&c, at_a), head(&c, at_b)), (Some(at_b), None));
        // What was replaced takes nothing away when it dies.
        c.kill(a);
        assert_eq!((head(&c, at_a), head(&c, at_b)), (Some(at_b), None));
        assert!(c.find(&key).is_some_and(|m| m.entry == at_b));
        c.kill(b);
        assert_eq!((head(&c, at_a), head(&c, at_b)), (Some(at_b + 32), Some(at_b + 32)));
        assert!(c.find(&key).is_none());
        let (_, at_c) = install(&mut c, key);
        assert_eq!((head(&c, at_a), head(&c, at_b), head(&c, at_c)), (Some(at_c), Some(at_c), None));
        assert!(c.invalidate((1, 1), 0, 4));
        assert!(c.find(&key).is_none());
    }

    #[test]
    fn more_regions_than_a_chunk_has() {
        let mut c = Cache::new(1 << 20).unwrap();
        let key = |n: u64| Key { pc: n * 4, host: n * 4, mode: 0, attrs: 0 };
        let made: Vec<_> = (0..Metas::CHUNK as u64 + 3).map(|n| install(&mut c, key(n))).collect();
        for (n, (id, entry)) in made.iter().enumerate() {
            assert_eq!(*id as usize, n);
            assert!(c.find(&key(n as u64)).is_some_and(|m| m.entry == *entry));
        }
    }

    #[test]
    fn bytes_to_chunks() {
        assert_eq!(chunks(0, 1), 1);
        assert_eq!(chunks(63, 65), 3);
        assert_eq!(chunks(64, 128), 2);
        assert_eq!(chunks(4095, 4096), 1 << 63);
        assert_eq!(chunks(0, 4096), u64::MAX);
        assert_eq!(chunks(8, 8), 0);
    }
}
