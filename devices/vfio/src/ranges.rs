//! What is mapped for DMA: ranges that do not overlap, found by address and walked in order.
//!
//! An ordered index finds a range (logarithmic); each range also knows its neighbours, so that a step to the next one is constant, also
//! while ranges are taken out and put in on the way, which an iterator of the standard map does not allow. Ranges stay where they
//! are in memory. The crates that were looked at have either no such step (`rangemap`, which also merges neighbours) or need
//! unsafe code here (`intrusive-collections`).

use std::collections::BTreeMap;

/// Which range; valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

const NONE: u32 = u32::MAX;

struct Node<T> {
    first: u64,
    last: u64,
    before: u32,
    after: u32,
    /// `None`: the slot is free, and `after` is the next free one.
    value: Option<T>,
}

/// Ranges by their addresses, both ends included, so that a range may end at 2^64.
pub struct Ranges<T> {
    nodes: Vec<Node<T>>,
    index: BTreeMap<u64, u32>,
    head: u32,
    free: u32,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), index: BTreeMap::new(), head: NONE, free: NONE }
    }
}

impl<T> Ranges<T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
    fn slot(index: u32) -> Option<Slot> {
        (index != NONE).then_some(Slot(index))
    }
    fn node(&self, slot: Slot) -> &Node<T> {
        &self.nodes[slot.0 as usize]
    }
    /// The range with the lowest address.
    #[must_use]
    pub fn first(&self) -> Option<Slot> {
        Self::slot(self.head)
    }
    /// The next range upwards: a constant step.
    #[must_use]
    pub fn next(&self, slot: Slot) -> Option<Slot> {
        Self::slot(self.node(slot).after)
    }
    /// First and last address.
    #[must_use]
    pub fn bounds(&self, slot: Slot) -> (u64, u64) {
        let node = self.node(slot);
        (node.first, node.last)
    }
    /// What is kept for the range; `None` if it was removed.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.node(slot).value.as_ref()
    }
    /// The last range that starts at the address or before.
    fn at_or_before(&self, address: u64) -> u32 {
        self.index.range(..=address).next_back().map_or(NONE, |(_, n)| *n)
    }
    /// The lowest range that has an address from `first` to `last`.
    #[must_use]
    pub fn overlapping(&self, first: u64, last: u64) -> Option<Slot> {
        let before = self.at_or_before(first);
        let found = match Self::slot(before) {
            Some(slot) if self.node(slot).last >= first => slot,
            Some(slot) => self.next(slot)?,
            None => self.first()?,
        };
        (self.node(found).first <= last).then_some(found)
    }
    /// Adds a range. `None`, and nothing is added, if `first` is above `last` or some of it is in another.
    pub fn insert(&mut self, first: u64, last: u64, value: T) -> Option<Slot> {
        if first > last {
            return None;
        }
        let before = self.at_or_before(first);
        let after = Self::slot(before).map_or(self.head, |slot| self.node(slot).after);
        let clash = Self::slot(before).is_some_and(|slot| self.node(slot).last >= first)
            || Self::slot(after).is_some_and(|slot| self.node(slot).first <= last);
        if clash {
            return None;
        }
        let node = Node { first, last, before, after, value: Some(value) };
        let slot = if self.free == NONE {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let slot = self.free;
            let place = &mut self.nodes[slot as usize];
            self.free = place.after;
            *place = node;
            slot
        };
        self.link(before, slot);
        if after != NONE {
            self.nodes[after as usize].before = slot;
        }
        self.index.insert(first, slot);
        Some(Slot(slot))
    }
    /// `after` is what comes after `before`, or first.
    fn link(&mut self, before: u32, after: u32) {
        match before {
            NONE => self.head = after,
            n => self.nodes[n as usize].after = after,
        }
    }
    /// Takes a range out.
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let free = self.free;
        let node = &mut self.nodes[slot.0 as usize];
        let value = node.value.take()?;
        let (first, before, after) = (node.first, node.before, node.after);
        node.after = free;
        self.free = slot.0;
        self.link(before, after);
        if after != NONE {
            self.nodes[after as usize].before = before;
        }
        self.index.remove(&first);
        Some(value)
    }
    /// All ranges upwards: first and last address, value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let node = self.node(at?);
            at = Self::slot(node.after);
            Some((node.first, node.last, node.value.as_ref()?))
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

    #[test]
    fn ordered() {
        let mut ranges = Ranges::default();
        let high = ranges.insert(0x3000, u64::MAX, 3).expect("room");
        let low = ranges.insert(0, 0xfff, 1).expect("room");
        let middle = ranges.insert(0x1000, 0x1fff, 2).expect("room");
        assert_eq!(shown(&ranges), [(0, 0xfff, 1), (0x1000, 0x1fff, 2), (0x3000, u64::MAX, 3)]);
        for (first, last) in [(0xfff, 0xfff), (0x1fff, 0x2000), (0x2000, 0x3000), (5, 4), (u64::MAX, u64::MAX)] {
            assert_eq!(ranges.insert(first, last, 9), None);
        }
        let found = [(0, 0), (0x1800, u64::MAX), (0x2000, 0x2fff), (0x2000, 0x3000)];
        assert_eq!(found.map(|(a, b)| ranges.overlapping(a, b)), [Some(low), Some(middle), None, Some(high)]);
        assert_eq!((ranges.remove(middle), ranges.remove(middle)), (Some(2), None));
        assert_eq!((ranges.next(low), ranges.next(high), ranges.first()), (Some(high), None, Some(low)));
        assert_eq!((ranges.remove(low), ranges.first()), (Some(1), Some(high)));
        // Slots are used again.
        let again = ranges.insert(0, 0, 4).expect("room");
        assert!([low, middle].contains(&again));
        assert_eq!(shown(&ranges), [(0, 0, 4), (0x3000, u64::MAX, 3)]);
    }

    /// Against a simple model, with steps that are not in any order.
    #[test]
    fn like_a_model() {
        let mut ranges = Ranges::default();
        let mut model: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
        let mut seed = 1u64;
        for n in 0..20_000u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (first, len, act) = (seed >> 33 & 0xfff, seed >> 50 & 0x1f, seed >> 60);
            let last = first + len;
            let hit: Vec<u64> =
                model.iter().filter(|(f, (l, _))| **f <= last && first <= *l).map(|(f, _)| *f).collect();
            assert_eq!(ranges.overlapping(first, last).map(|s| ranges.bounds(s).0), hit.first().copied());
            if act < 9 {
                assert_eq!(ranges.insert(first, last, n).is_some(), hit.is_empty());
                if hit.is_empty() {
                    model.insert(first, (last, n));
                }
            } else {
                // Taken out on the way.
                let mut at = ranges.overlapping(first, last);
                while let Some(slot) = at.filter(|s| ranges.bounds(*s).0 <= last) {
                    at = ranges.next(slot);
                    let start = ranges.bounds(slot).0;
                    assert_eq!(ranges.remove(slot), model.remove(&start).map(|(_, v)| v));
                }
                assert!(ranges.overlapping(first, last).is_none());
            }
            assert_eq!(ranges.len(), model.len());
        }
        assert_eq!(shown(&ranges), model.iter().map(|(f, (l, v))| (*f, *l, *v)).collect::<Vec<_>>());
    }

    /// Times of 1,000 to 1,000,000 ranges, beside the standard map: `--ignored --nocapture`. A walk here takes out each tenth range on
    /// the way, for which the standard map must search again.
    #[test]
    #[ignore = "prints times"]
    fn bench() {
        println!("ranges      what              Ranges     BTreeMap   (ns each)");
        for count in [1_000u64, 10_000, 100_000, 1_000_000] {
            // Each address once, in no order.
            let addresses: Vec<u64> =
                (0..count).map(|n| n.wrapping_mul(0x9e37_79b1) % count.next_power_of_two()).collect();
            let mut addresses: Vec<u64> = addresses.into_iter().map(|a| a << 13).collect();
            addresses.sort_unstable();
            addresses.dedup();
            let count = addresses.len();
            for n in 0..count {
                addresses.swap(n, (n * 7919 + 13) % count);
            }
            let (mut ranges, mut map) = (Ranges::default(), BTreeMap::new());
            let each = |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;
            let show = |what: &str, a: f64, b: f64| println!("{count:>8}    {what:<16} {a:>8.1}    {b:>8.1}");
            let start = Instant::now();
            for a in &addresses {
                ranges.insert(*a, a + 0xfff, *a);
            }
            let ours = each(start);
            let start = Instant::now();
            for a in &addresses {
                map.insert(*a, (a + 0xfff, *a));
            }
            show("map", ours, each(start));
            let (start, mut sum) = (Instant::now(), 0u64);
            let mut at = ranges.first();
            while let Some(slot) = at {
                sum = sum.wrapping_add(ranges.bounds(slot).1);
                at = ranges.next(slot);
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
            while let Some(slot) = at {
                at = ranges.next(slot);
                n += 1;
                if n % 10 == 0 {
                    ranges.remove(slot);
                }
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
            show("walk, remove", ours, each(start));
            let start = Instant::now();
            for a in &addresses {
                if let Some(slot) = ranges.overlapping(*a, *a) {
                    ranges.remove(slot);
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
