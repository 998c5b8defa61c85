//! Pages of guest code that a vCPU has seen valid, and the identities by which generated code knows them.

use crate::cache::{Key, PageId};
use parking_lot::Mutex;
use rhea_ir::env::{FETCH_ENTRIES, PAGE_SIZE};
use rhea_memory::RamBlock;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What instruction addresses of one page translate to.
#[derive(Clone)]
pub struct FetchEntry {
    /// Page address | MMU index; `u64::MAX` empty.
    pub tag: u64,
    pub attrs: u8,
    pub global: bool,
    pub host: u64,
    /// See [`Identities`].
    pub identity: u32,
    pub page: Option<(Arc<RamBlock>, u64)>,
}

const EMPTY: FetchEntry = FetchEntry { tag: u64::MAX, attrs: 0, global: false, host: 0, identity: 0, page: None };

impl FetchEntry {
    /// The key of code at an address in the page.
    pub fn key(&self, pc: u64, mode: u64) -> Key {
        key_in(self.host, self.attrs, pc, mode)
    }
    pub fn id(&self) -> Option<PageId> {
        self.page.as_ref().map(|(block, page)| (Arc::as_ptr(block) as usize, *page))
    }
    /// Are writes to the page told?
    pub fn is_tracked(&self) -> bool {
        self.page.as_ref().is_some_and(|(block, page)| block.is_code_page(*page))
    }
}

fn key_in(host: u64, attrs: u8, pc: u64, mode: u64) -> Key {
    Key { pc, host: host | (pc & (PAGE_SIZE - 1)), mode, attrs }
}

/// Index of an instruction address in a [`FetchTable`], and in the array at [`rhea_ir::EnvHeader::fetch`].
pub fn fetch_slot(pc: u64) -> usize {
    (pc >> 12) as usize % FETCH_ENTRIES
}

/// Numbers for the combinations of address, MMU index, host page and attributes that pages of code had: generated code
/// compares one number to know that a page is what it was. 0 is none. A number is not used again before the code cache is emptied.
pub struct Identities(Mutex<(FxHashMap<(u64, u64, u8), u32>, u32)>);

/// Combinations remembered. What is forgotten gets a new number.
const REMEMBERED: usize = 1 << 18;

impl Identities {
    pub fn new() -> Identities {
        Identities(Mutex::new((FxHashMap::default(), 0)))
    }
    /// `None`: the numbers are used up, and the code cache must be emptied.
    fn get(&self, tag: u64, host: u64, attrs: u8) -> Option<u32> {
        let (map, last) = &mut *self.0.lock();
        if let Some(&n) = map.get(&(tag, host, attrs)) {
            return Some(n);
        }
        if map.len() >= REMEMBERED {
            map.clear();
        }
        // Positive as an immediate operand of 32 bits.
        if *last >= i32::MAX as u32 {
            return None;
        }
        *last += 1;
        map.insert((tag, host, attrs), *last);
        Some(*last)
    }
    /// Begins anew; the code cache has been emptied.
    pub fn clear(&self) {
        *self.0.lock() = (FxHashMap::default(), 0);
    }
}

/// The pages of one context.
pub struct FetchTable {
    entries: Box<[FetchEntry]>,
    /// Identity by slot, for generated code.
    numbers: Box<[u32]>,
    /// A bit for each slot that is not empty.
    filled: [u64; FETCH_ENTRIES / 64],
}

impl FetchTable {
    pub fn new() -> FetchTable {
        FetchTable {
            entries: vec![EMPTY; FETCH_ENTRIES].into_boxed_slice(),
            numbers: vec![0; FETCH_ENTRIES].into_boxed_slice(),
            filled: [0; FETCH_ENTRIES / 64],
        }
    }
    /// What goes into [`rhea_ir::EnvHeader::fetch`].
    pub fn address(&mut self) -> u64 {
        self.numbers.as_mut_ptr() as u64
    }
    pub fn at(&self, pc: u64) -> &FetchEntry {
        &self.entries[fetch_slot(pc)]
    }
    /// The page of an instruction address with this tag.
    pub fn get(&self, tag: u64) -> Option<&FetchEntry> {
        let e = self.at(tag);
        (e.tag == tag).then_some(e)
    }
    pub fn put(&mut self, e: FetchEntry) {
        let slot = fetch_slot(e.tag);
        self.filled[slot / 64] |= 1 << (slot % 64);
        self.numbers[slot] = e.identity;
        self.entries[slot] = e;
    }
    fn empty(&mut self, slot: usize) {
        self.filled[slot / 64] &= !(1 << (slot % 64));
        self.numbers[slot] = 0;
        self.entries[slot] = EMPTY;
    }
    /// All pages.
    pub fn pages(&self) -> Pages {
        let count = self.filled.iter().map(|w| w.count_ones() as usize).sum();
        let mut pages = Pages { list: Vec::with_capacity(count), blocks: Vec::new() };
        for slot in slots(&self.filled) {
            let e = &self.entries[slot];
            let Some((memory, page)) = &e.page else { continue };
            let block = pages.blocks.iter().position(|b| Arc::ptr_eq(b, memory)).unwrap_or_else(|| {
                pages.blocks.push(memory.clone());
                pages.blocks.len() - 1
            });
            let (tag, host, identity, attrs) = (e.tag, e.host, e.identity, e.attrs);
            pages.list.push(Page { tag, host, page: *page, identity, block: block as u32, attrs, global: e.global });
        }
        pages
    }
    fn retain(&mut self, keep: impl Fn(&FetchEntry) -> bool) {
        let filled = self.filled;
        for slot in slots(&filled) {
            if !keep(&self.entries[slot]) {
                self.empty(slot);
            }
        }
    }
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }
    pub fn clear_but_globals(&mut self) {
        self.retain(|e| e.global);
    }
    pub fn drop_pages(&mut self, va: u64, pages: u64) {
        let hit = |e: &FetchEntry| (e.tag & !0xfff).wrapping_sub(va & !0xfff) >> 12 < pages;
        if pages > 16 {
            return self.retain(|e| !hit(e));
        }
        for n in 0..pages {
            let slot = fetch_slot(va.wrapping_add(n << 12));
            if hit(&self.entries[slot]) {
                self.empty(slot);
            }
        }
    }
}

/// The numbers of the bits that are set, in rising order.
fn slots(filled: &[u64]) -> impl Iterator<Item = usize> {
    filled.iter().enumerate().flat_map(|(n, &word)| {
        let next = |w: &u64| Some(w & w.wrapping_sub(1)).filter(|&w| w != 0);
        std::iter::successors(Some(word).filter(|&w| w != 0), next).map(move |w| n * 64 + w.trailing_zeros() as usize)
    })
}

#[derive(Clone, Copy)]
struct Page {
    tag: u64,
    host: u64,
    page: u64,
    identity: u32,
    /// Number of its memory.
    block: u32,
    attrs: u8,
    global: bool,
}

/// What a [`FetchTable`] had, for another thread: made for each hot block, and little of it is looked at.
pub struct Pages {
    /// By slot.
    list: Vec<Page>,
    blocks: Vec<Arc<RamBlock>>,
}

impl Pages {
    fn page(&self, tag: u64) -> Option<&Page> {
        let n = self.list.binary_search_by_key(&fetch_slot(tag), |p| fetch_slot(p.tag)).ok()?;
        self.list.get(n).filter(|p| p.tag == tag)
    }
    pub fn get(&self, tag: u64) -> Option<FetchEntry> {
        let p = self.page(tag)?;
        let page = Some((self.blocks.get(p.block as usize)?.clone(), p.page));
        Some(FetchEntry { tag, attrs: p.attrs, global: p.global, host: p.host, identity: p.identity, page })
    }
    /// The key of code at an address in the page of this tag.
    pub fn key(&self, tag: u64, pc: u64, mode: u64) -> Option<Key> {
        self.page(tag).map(|p| key_in(p.host, p.attrs, pc, mode))
    }
}

/// The entry for a page, with its identity.
pub fn entry(
    identities: &Identities,
    tag: u64,
    (attrs, global): (u8, bool),
    host: u64,
    page: (Arc<RamBlock>, u64),
) -> Option<FetchEntry> {
    let identity = identities.get(tag, host, attrs)?;
    Some(FetchEntry { tag, attrs, global, host, identity, page: Some(page) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_memory::RamOptions;

    fn put(t: &mut FetchTable, tag: u64, global: bool, identity: u32) {
        t.put(FetchEntry { tag, global, identity, ..EMPTY });
    }

    #[test]
    fn generated_code_sees_what_the_table_has() {
        let mut t = FetchTable::new();
        put(&mut t, 0x1000, false, 7);
        put(&mut t, 0x5000, true, 8);
        assert_eq!((t.numbers[1], t.numbers[5]), (7, 8));
        t.drop_pages(0x5000, 1);
        assert_eq!((t.numbers[5], t.get(0x5000).is_none()), (0, true));
        put(&mut t, 0x5000, true, 9);
        t.clear_but_globals();
        assert_eq!((t.numbers[1], t.numbers[5]), (0, 9));
        t.clear();
        assert!(t.numbers.iter().all(|&n| n == 0) && t.filled.iter().all(|&n| n == 0));
    }

    #[test]
    fn pages_for_another_thread() {
        let memory = [8, 16].map(|pages| RamBlock::new(RamOptions { len: pages << 12, ..Default::default() }).unwrap());
        let mut t = FetchTable::new();
        // Slots 1, 63, 64, 2047, and one that was displaced.
        for (n, tag) in [0x4_0000, 0x80_1000, 0x1000, 0x3_f000, 0x7f_f000].into_iter().enumerate() {
            let page = Some((memory[n % 2].clone(), n as u64));
            t.put(FetchEntry { tag, host: tag + 0x7000_0000, identity: n as u32 + 1, attrs: n as u8, page, ..EMPTY });
        }
        let pages = t.pages();
        assert_eq!((pages.list.len(), pages.blocks.len()), (4, 2), "each page and each memory once");
        for tag in [0x4_0000, 0x1000, 0x3_f000, 0x7f_f000] {
            let (is, was) = (pages.get(tag).unwrap(), t.get(tag).unwrap());
            assert_eq!((is.tag, is.host, is.identity, is.id()), (was.tag, was.host, was.identity, was.id()));
            assert_eq!(pages.key(tag, tag + 0x123, 5), Some(was.key(tag + 0x123, 5)));
        }
        for tag in [0x80_1000, 0x2000, 0x1001] {
            assert!(pages.get(tag).is_none() && pages.key(tag, tag, 5).is_none());
        }
    }

    #[test]
    fn identities() {
        let i = Identities::new();
        let a = i.get(0x1000, 0x7000, 0).unwrap();
        assert_eq!(i.get(0x1000, 0x7000, 0), Some(a));
        assert!(i.get(0x1000, 0x7000, 1) != Some(a) && i.get(0x1000, 0x8000, 0) != Some(a));
        assert_ne!(a, 0);
    }
}
