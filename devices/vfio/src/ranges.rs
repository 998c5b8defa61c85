//! What is mapped for DMA: ranges that do not overlap, found by address and walked in order.
//!
//! The ranges are in leaves of some dozens, and the leaves are one array; each knows those before and after it. Addresses are side by
//! side, apart from the values, so that a walk reads little memory, in the order in which it lies there; and it asks for a leaf some steps
//! before it comes to it. So a step to the next range is constant, however many there are. A small ordered index finds the leaf. The crates that were looked at merge
//! neighbours, which must stay apart here (`rangemap`), or have a node for each range, so that a walk runs all over memory, and need
//! unsafe code (`intrusive-collections`).

use std::collections::BTreeMap;
use std::{hint, mem};

/// Most ranges of a leaf.
const FULL: usize = 64;
/// Addresses in a line of the cache.
const LINE: usize = 8;
const NONE: u32 = u32::MAX;

/// The place of a range; valid until something is put in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    leaf: u32,
    at: usize,
}

struct Leaf<T> {
    /// No range of it, nor of those after it, starts below: its number in the index is under this.
    key: u64,
    before: u32,
    after: u32,
    /// First and last addresses, of which as many count as there are values, at the same places.
    firsts: [u64; FULL],
    lasts: [u64; FULL],
    values: Vec<T>,
}

impl<T> Leaf<T> {
    fn new(key: u64, before: u32, after: u32) -> Self {
        Self { key, before, after, firsts: [0; FULL], lasts: [0; FULL], values: Vec::with_capacity(FULL) }
    }
    fn len(&self) -> usize {
        self.values.len()
    }
    fn firsts(&self) -> &[u64] {
        &self.firsts[..self.len()]
    }
    fn insert(&mut self, at: usize, first: u64, last: u64, value: T) {
        let len = self.len();
        self.firsts.copy_within(at..len, at + 1);
        self.lasts.copy_within(at..len, at + 1);
        (self.firsts[at], self.lasts[at]) = (first, last);
        self.values.insert(at, value);
    }
    fn remove(&mut self, at: usize) -> T {
        let len = self.len();
        self.firsts.copy_within(at + 1..len, at);
        self.lasts.copy_within(at + 1..len, at);
        self.values.remove(at)
    }
    /// What it has from a place on goes to another leaf, which is empty.
    fn give(&mut self, at: usize, other: &mut Self) {
        let moved = self.len() - at;
        other.firsts[..moved].copy_from_slice(&self.firsts[at..][..moved]);
        other.lasts[..moved].copy_from_slice(&self.lasts[at..][..moved]);
        other.values.extend(self.values.drain(at..));
    }
}

/// Ranges by their addresses, both ends included, so that a range may end at 2^64.
pub struct Ranges<T> {
    leaves: Vec<Leaf<T>>,
    /// The first leaf is number 0, has the key 0, and stays.
    index: BTreeMap<u64, u32>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { leaves: vec![Leaf::new(0, NONE, NONE)], index: [(0, 0)].into(), free: Vec::new(), len: 0 }
    }
}

impl<T> Ranges<T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    fn leaf(&self, number: u32) -> &Leaf<T> {
        &self.leaves[number as usize]
    }
    fn leaf_mut(&mut self, number: u32) -> &mut Leaf<T> {
        &mut self.leaves[number as usize]
    }
    /// The leaf for an address, and where in it ranges start above the address.
    fn place(&self, address: u64) -> (u32, usize) {
        let leaf = self.index.range(..=address).next_back().map_or(0, |(_, n)| *n);
        (leaf, self.leaf(leaf).firsts().partition_point(|first| *first <= address))
    }
    /// What is at this place, or else first in the leaf after it: no other than the first leaf is ever empty.
    fn at(&self, leaf: u32, at: usize) -> Option<Cursor> {
        if at < self.leaf(leaf).len() {
            return Some(Cursor { leaf, at });
        }
        let after = self.leaf(leaf).after;
        (after != NONE).then_some(Cursor { leaf: after, at: 0 })
    }
    /// The last range before this place.
    fn before(&self, leaf: u32, at: usize) -> Option<Cursor> {
        if at > 0 {
            return Some(Cursor { leaf, at: at - 1 });
        }
        let leaf = self.leaf(leaf).before;
        let last = self.leaves.get(leaf as usize)?.len().checked_sub(1)?;
        Some(Cursor { leaf, at: last })
    }
    /// The range with the lowest address.
    #[must_use]
    pub fn first(&self) -> Option<Cursor> {
        self.at(0, 0)
    }
    /// The next range upwards: a constant step.
    #[must_use]
    pub fn next(&self, cursor: Cursor) -> Option<Cursor> {
        // A step for a line of the cache.
        if cursor.at.is_multiple_of(LINE) {
            self.fetch(self.leaf(cursor.leaf).after, cursor.at);
        }
        self.at(cursor.leaf, cursor.at + 1)
    }
    /// Reads of the leaf that comes next what a walk reads there, and who comes after it, so that it is in the cache when the walk is there.
    fn fetch(&self, number: u32, at: usize) {
        if let Some(leaf) = self.leaves.get(number as usize) {
            hint::black_box((leaf.firsts[at], leaf.lasts[at]));
            if at == 0 {
                hint::black_box(self.leaves.get(leaf.after as usize).map(|leaf| leaf.after));
            }
        }
    }
    /// First and last address, and value.
    #[must_use]
    pub fn get(&self, cursor: Cursor) -> (u64, u64, &T) {
        let leaf = self.leaf(cursor.leaf);
        (leaf.firsts[cursor.at], leaf.lasts[cursor.at], &leaf.values[cursor.at])
    }
    /// The lowest range that has an address from `first` to `last`.
    #[must_use]
    pub fn overlapping(&self, first: u64, last: u64) -> Option<Cursor> {
        let (leaf, at) = self.place(first);
        let before = self.before(leaf, at).filter(|c| self.get(*c).1 >= first);
        before.or_else(|| self.at(leaf, at).filter(|c| self.get(*c).0 <= last))
    }
    /// Adds a range. False, and nothing is added, if `first` is above `last` or some of it is in another.
    pub fn insert(&mut self, first: u64, last: u64, value: T) -> bool {
        if first > last || self.overlapping(first, last).is_some() {
            return false;
        }
        let (mut number, mut at) = self.place(first);
        if self.leaf(number).len() == FULL {
            if self.free.is_empty() && self.leaves.len() == self.leaves.capacity() {
                self.sort();
                (number, at) = self.place(first);
            }
            // Those that come in rising order fill their leaves.
            let half = if at == FULL { FULL } else { FULL / 2 };
            let new = self.split(number, half, first);
            // At the edge it belongs to those below: the key of those above is higher.
            if at > half || half == FULL {
                (number, at) = (new, at - half);
            }
        }
        self.leaf_mut(number).insert(at, first, last, value);
        self.len += 1;
        true
    }
    /// Moves the leaves, none of which is free, to where a quarter more have room, if they are not in the order of their ranges: so most
    /// of them are at any time, and a walk goes upwards in memory.
    fn sort(&mut self) {
        if (0..).zip(self.index.values()).all(|(n, number)| n == *number) {
            return;
        }
        let mut sorted = Vec::with_capacity(self.leaves.len() + self.leaves.len() / 4 + 1);
        let (count, mut leaves) = (self.index.len() as u32, mem::take(&mut self.leaves));
        for (n, number) in (0..).zip(self.index.values_mut()) {
            let Leaf { key, firsts, lasts, ref mut values, .. } = leaves[mem::replace(number, n) as usize];
            let (before, after) = (n.checked_sub(1).unwrap_or(NONE), if n + 1 == count { NONE } else { n + 1 });
            sorted.push(Leaf { key, before, after, firsts, lasts, values: mem::take(values) });
        }
        self.leaves = sorted;
    }
    /// Makes a leaf of the ranges of another from `at` on; `first` is to be its first if that are none.
    fn split(&mut self, number: u32, at: usize, first: u64) -> u32 {
        let leaf = self.leaf_mut(number);
        let (key, after) = (leaf.firsts().get(at).copied().unwrap_or(first), leaf.after);
        let mut made = Leaf::new(key, number, after);
        leaf.give(at, &mut made);
        let new = match self.free.pop() {
            Some(new) => {
                *self.leaf_mut(new) = made;
                new
            }
            None => {
                self.leaves.push(made);
                self.leaves.len() as u32 - 1
            }
        };
        self.leaf_mut(number).after = new;
        if after != NONE {
            self.leaf_mut(after).before = new;
        }
        self.index.insert(key, new);
        new
    }
    /// Takes a range out: its value, and the next range upwards.
    pub fn remove(&mut self, cursor: Cursor) -> (T, Option<Cursor>) {
        let value = self.leaf_mut(cursor.leaf).remove(cursor.at);
        self.len -= 1;
        let next = self.at(cursor.leaf, cursor.at);
        let leaf = self.leaf(cursor.leaf);
        if leaf.values.is_empty() && cursor.leaf != 0 {
            let (key, before, after) = (leaf.key, leaf.before, leaf.after);
            self.leaf_mut(before).after = after;
            if after != NONE {
                self.leaf_mut(after).before = before;
            }
            self.index.remove(&key);
            self.free.push(cursor.leaf);
        }
        (value, next)
    }
    /// All ranges upwards: first and last address, value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let cursor = at?;
            at = self.next(cursor);
            Some(self.get(cursor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shown(ranges: &Ranges<u32>) -> Vec<(u64, u64, u32)> {
        ranges.iter().map(|(first, last, value)| (first, last, *value)).collect()
    }
    fn starts(ranges: &Ranges<u32>, first: u64, last: u64) -> Option<u64> {
        ranges.overlapping(first, last).map(|c| ranges.get(c).0)
    }

    #[test]
    fn ordered() {
        let mut ranges = Ranges::default();
        for (first, last, value) in [(0x3000, u64::MAX, 3), (0, 0xfff, 1), (0x1000, 0x1fff, 2)] {
            assert!(ranges.insert(first, last, value));
        }
        assert_eq!(shown(&ranges), [(0, 0xfff, 1), (0x1000, 0x1fff, 2), (0x3000, u64::MAX, 3)]);
        for (first, last) in [(0xfff, 0xfff), (0x1fff, 0x2000), (0x2000, 0x3000), (5, 4), (u64::MAX, u64::MAX)] {
            assert!(!ranges.insert(first, last, 9));
        }
        let found = [(0, 0), (0x1800, u64::MAX), (0x2000, 0x2fff), (0x2000, 0x3000)];
        assert_eq!(found.map(|(a, b)| starts(&ranges, a, b)), [Some(0), Some(0x1000), None, Some(0x3000)]);
        let middle = ranges.overlapping(0x1000, 0x1000).expect("a range");
        let (value, next) = ranges.remove(middle);
        assert_eq!((value, next.map(|c| ranges.get(c))), (2, Some((0x3000, u64::MAX, &3))));
        let (value, next) = ranges.remove(next.expect("a range"));
        assert_eq!((value, next, ranges.len()), (3, None, 1));
    }

    /// Against a simple model, with steps that are not in any order.
    #[test]
    fn like_a_model() {
        for spread in [0x3ff, 0xffff] {
            let mut ranges = Ranges::default();
            let mut model: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
            let mut seed = 1u64;
            for n in 0..20_000u32 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (first, len, act) = (seed >> 30 & spread, seed >> 50 & 0x1f, seed >> 60);
                // More is put in than taken out, then the reverse.
                let (last, remove) = (first + len, if n < 12_000 { act < 4 } else { act < 13 });
                let hit: Vec<u64> = model
                    .range(first.saturating_sub(0x20)..=last)
                    .filter(|(_, (l, _))| first <= *l)
                    .map(|(f, _)| *f)
                    .collect();
                assert_eq!(starts(&ranges, first, last), hit.first().copied());
                if remove {
                    let mut at = ranges.overlapping(first, last);
                    while let Some(cursor) = at.filter(|c| ranges.get(*c).0 <= last) {
                        let start = ranges.get(cursor).0;
                        let (value, next) = ranges.remove(cursor);
                        assert_eq!(Some(value), model.remove(&start).map(|(_, v)| v));
                        at = next;
                    }
                    assert!(ranges.overlapping(first, last).is_none());
                } else {
                    assert_eq!(ranges.insert(first, last, n), hit.is_empty());
                    if hit.is_empty() {
                        model.insert(first, (last, n));
                    }
                }
                assert_eq!(ranges.len(), model.len());
                if n % 500 == 0 {
                    let all: Vec<_> = model.iter().map(|(f, (l, v))| (*f, *l, *v)).collect();
                    assert_eq!(shown(&ranges), all);
                }
            }
        }
    }

    /// Times of 1,000 to 1,000,000 ranges, beside the standard map: `--ignored --nocapture`. The second walk takes out each tenth range
    /// on its way, for which the standard map must search again.
    #[test]
    #[ignore = "prints times"]
    fn bench() {
        // As much as is kept for a range.
        type Value = [u64; 5];
        println!("| ranges | | here | ordered map |\n|---|---|---:|---:|");
        for (count, rising) in [1_000u64, 10_000, 100_000, 1_000_000].into_iter().flat_map(|n| [(n, true), (n, false)])
        {
            let mut addresses: Vec<u64> = (0..count).map(|n| n << 13).collect();
            if !rising {
                let mut seed = 1u64;
                for n in (1..addresses.len()).rev() {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    addresses.swap(n, (seed >> 33) as usize % (n + 1));
                }
            }
            let (mut ranges, mut map) = (Ranges::<Value>::default(), BTreeMap::<u64, (u64, Value)>::new());
            let each = |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;
            let order = if rising { "rising" } else { "any order" };
            let show = |what: &str, a: f64, b: f64| println!("| {count}, {order} | {what} | {a:.1} | {b:.1} |");
            let start = Instant::now();
            for a in &addresses {
                ranges.insert(*a, a + 0xfff, [*a; 5]);
            }
            let ours = each(start);
            let start = Instant::now();
            for a in &addresses {
                map.insert(*a, (a + 0xfff, [*a; 5]));
            }
            show("map", ours, each(start));
            let (start, mut sum) = (Instant::now(), 0u64);
            let mut at = ranges.first();
            while let Some(cursor) = at {
                sum = sum.wrapping_add(ranges.get(cursor).1);
                at = ranges.next(cursor);
            }
            let ours = each(start);
            let (start, mut other) = (Instant::now(), 0u64);
            for (last, _) in map.values() {
                other = other.wrapping_add(*last);
            }
            show("walk", ours, each(start));
            assert_eq!(sum, other);
            let (start, mut n) = (Instant::now(), 0);
            let mut at = ranges.first();
            while let Some(cursor) = at {
                n += 1;
                at = if n % 10 == 0 { ranges.remove(cursor).1 } else { ranges.next(cursor) };
            }
            let ours = each(start);
            let (start, mut n, mut at) = (Instant::now(), 0, 0);
            while let Some(first) = map.range(at..).next().map(|(first, _)| *first) {
                at = first + 1;
                n += 1;
                if n % 10 == 0 {
                    map.remove(&first);
                }
            }
            show("walk, unmap each tenth", ours, each(start));
            let start = Instant::now();
            for a in &addresses {
                if let Some(cursor) = ranges.overlapping(*a, *a) {
                    ranges.remove(cursor);
                }
            }
            let ours = each(start);
            let start = Instant::now();
            for a in &addresses {
                map.remove(a);
            }
            show("find, unmap", ours, each(start));
            assert!(ranges.is_empty() && map.is_empty());
        }
    }
}
