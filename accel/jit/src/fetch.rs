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
        Key { pc, host: self.host | (pc & (PAGE_SIZE - 1)), mode, attrs: self.attrs }
    }
    pub fn id(&self) -> Option<PageId> {
        self.page.as_ref().map(|(block, page)| (Arc::as_ptr(block) as usize, *page))
    }
    /// Are writes to the page told?
    pub fn is_tracked(&self) -> bool {
        self.page.as_ref().is_some_and(|(block, page)| block.is_code_page(*page))
    }
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
    /// The slots filled since they were emptied last, at least.
    filled: Vec<u16>,
}

impl FetchTable {
    pub fn new() -> FetchTable {
        FetchTable {
            entries: vec![EMPTY; FETCH_ENTRIES].into_boxed_slice(),
            numbers: vec![0; FETCH_ENTRIES].into_boxed_slice(),
            filled: Vec::new(),
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
        if self.entries[slot].tag == u64::MAX {
            if self.filled.len() >= FETCH_ENTRIES {
                self.filled = (0..FETCH_ENTRIES as u16).filter(|&s| self.entries[s as usize].tag != u64::MAX).collect();
            }
            self.filled.push(slot as u16);
        }
        self.numbers[slot] = e.identity;
        self.entries[slot] = e;
    }
    /// All pages.
    pub fn pages(&self) -> Vec<FetchEntry> {
        let mut slots = self.filled.clone();
        slots.sort_unstable();
        slots.dedup();
        slots.iter().map(|&s| &self.entries[s as usize]).filter(|e| e.tag != u64::MAX).cloned().collect()
    }
    fn retain(&mut self, keep: impl Fn(&FetchEntry) -> bool) {
        let (entries, numbers) = (&mut self.entries, &mut self.numbers);
        self.filled.retain(|&s| {
            let s = s as usize;
            if entries[s].tag != u64::MAX && keep(&entries[s]) {
                return true;
            }
            entries[s] = EMPTY;
            numbers[s] = 0;
            false
        });
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
                self.entries[slot] = EMPTY;
                self.numbers[slot] = 0;
            }
        }
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
        // The list of slots has this one twice now.
        put(&mut t, 0x5000, true, 9);
        t.clear_but_globals();
        assert_eq!((t.numbers[1], t.numbers[5]), (0, 9));
        assert_eq!(t.pages().len(), 1, "each page once");
        t.clear();
        assert!(t.numbers.iter().all(|&n| n == 0) && t.filled.is_empty());
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
