//! What walks have read of the operating system's radix tree, to tell at an invalidation which translations have changed.
//!
//! Every translation in a TLB that was made for quadrant 3 has its entries here, as they were: one that still reads the same would
//! be made again. There may be more here than in the TLBs.

use crate::state::PpcCpu;
use rhea_ir::guest::{Contexts, TlbFlush};

/// Entries kept; with more than that an invalidation is one of everything.
const MOST: usize = 320;
/// Places of [`Seen::places`], by address.
const PLACES: usize = 1024;
/// With more changed pages than that everything is forgotten at once.
const MANY: usize = 8;

#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    value: u64,
    /// Of a leaf: the effective address of its page and the log2 of the size; 0 for directories.
    va: u64,
    shift: u32,
    /// It changed without an invalidation: TLBs may hold translations by both.
    doubtful: bool,
}

pub(crate) struct Seen {
    entries: Vec<Entry>,
    /// Index of the entry last kept for an address, one more than it is. An entry may be kept twice.
    places: Box<[u16; PLACES]>,
    overflowed: bool,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { entries: Vec::new(), places: Box::new([0; PLACES]), overflowed: false }
    }
}

impl Seen {
    fn place(at: u64, va: u64) -> usize {
        (at >> 3 ^ at >> 13 ^ va >> 16) as usize % PLACES
    }
    /// A directory entry, or that of the process table.
    pub fn directory(&mut self, at: u64, value: u64) {
        self.note(Entry { at, value, va: 0, shift: 0, doubtful: false }, 0);
    }
    /// The entry of the page of 2^`shift` bytes at `va`; walks may set the bits of `state`.
    pub fn leaf(&mut self, at: u64, value: u64, va: u64, shift: u32, state: u64) {
        self.note(Entry { at, value, va, shift, doubtful: false }, state);
    }
    fn note(&mut self, e: Entry, state: u64) {
        let place = &mut self.places[Self::place(e.at, e.va)];
        let known = usize::from(*place).checked_sub(1).and_then(|n| self.entries.get_mut(n));
        if let Some(k) = known.filter(|k| (k.at, k.va, k.shift) == (e.at, e.va, e.shift)) {
            if k.value != e.value {
                let only_set = (k.value ^ e.value) & !state == 0 && k.value & !e.value == 0;
                k.doubtful |= !only_set;
                k.value = e.value;
            }
            return;
        }
        if self.entries.len() >= MOST {
            self.overflowed = true;
            return;
        }
        self.entries.push(e);
        *place = self.entries.len() as u16;
    }
    fn clear(&mut self) {
        self.entries.clear();
        self.places.fill(0);
        self.overflowed = false;
    }
}

impl PpcCpu {
    /// The translations of the operating system that a walk would not make as they are.
    pub(crate) fn outdated_translations(&mut self) -> Vec<TlbFlush> {
        let mut entries = std::mem::take(&mut self.sys.seen.entries);
        let mut changed = Vec::new();
        let mut all = self.sys.seen.overflowed;
        let mut left = entries.len();
        while !all {
            let unread = entries[..left].iter().rev();
            left -= self.table_still_reads(unread.take_while(|e| !e.doubtful).map(|e| (e.at, e.value)));
            let Some(n) = left.checked_sub(1) else { break };
            let e = entries.swap_remove(n);
            left = n;
            all = e.shift < 12 || changed.len() >= MANY;
            if !all {
                let pages = 1 << (e.shift - 12);
                changed.push(TlbFlush::Range { va: e.va, pages, indexes: Self::TRANSLATED, of: Contexts::ALL });
            }
        }
        let seen = &mut self.sys.seen;
        if all {
            seen.clear();
            return vec![TlbFlush::Indexes(Self::TRANSLATED)];
        }
        if !changed.is_empty() {
            seen.places.fill(0);
            for (n, e) in (1..).zip(&entries) {
                seen.places[Seen::place(e.at, e.va)] = n;
            }
        }
        seen.entries = entries;
        changed
    }
}
