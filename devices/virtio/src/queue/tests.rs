//! Both ring formats against a driver written from the specification, and against memory full of rubbish.

use super::*;
use rhea_memory::{AddressSpace, Mapping, RamBlock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const BASE: u64 = 0x4000_0000;
const LEN: u64 = 1 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Memory {
    block: Arc<RamBlock>,
    dma: DmaHandle,
    _mapping: Mapping,
}

impl Memory {
    fn new() -> Self {
        let space = AddressSpace::new("test");
        let block = RamBlock::anonymous("ram", LEN).unwrap();
        let mapping = space.map_ram(Gpa(BASE), &block, 0, LEN, 0).unwrap();
        Self { block, dma: DmaHandle::new(space, 0), _mapping: mapping }
    }
    fn put(&self, at: u64, bytes: &[u8]) {
        self.block.write(at - BASE, bytes).unwrap();
    }
    fn put16(&self, at: u64, v: u16) {
        self.put(at, &v.to_le_bytes());
    }
    fn get16(&self, at: u64) -> u16 {
        self.block.load(at - BASE, 2).unwrap() as u16
    }
    fn get32(&self, at: u64) -> u32 {
        self.block.load(at - BASE, 4).unwrap() as u32
    }
    fn descriptor(&self, at: u64, addr: u64, len: u32, word12: u16, word14: u16) {
        self.put(
            at,
            &[&addr.to_le_bytes()[..], &len.to_le_bytes(), &word12.to_le_bytes(), &word14.to_le_bytes()].concat(),
        );
    }
}

const DESC: u64 = BASE;
const DRIVER: u64 = BASE + 0x8000;
const DEVICE: u64 = BASE + 0xa000;
const TABLES: u64 = BASE + 0x1_0000;
const DATA: u64 = BASE + 0x4_0000;

fn queue(memory: &Memory, size: u16, features: u64) -> Queue {
    let mut q = Queue::new(1024, memory.dma.clone());
    q.set_features(features);
    q.program(|s| (s.size, s.desc, s.driver, s.device) = (size, DESC, DRIVER, DEVICE));
    q.enable();
    assert!(q.state().ready);
    q
}

/// What a driver made available.
#[derive(Clone, Debug, PartialEq)]
struct Offer {
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
    /// Descriptors it takes in the ring.
    slots: Vec<u16>,
}

trait Driver {
    fn free(&self) -> usize;
    /// Makes buffers available; gives the id the device will return.
    fn offer(&mut self, m: &Memory, buffers: &[(Buffer, bool)], table: Option<u64>) -> (u16, Vec<u16>);
    /// The next used buffer: id and bytes written.
    fn reap(&mut self, m: &Memory) -> Option<(u16, u32)>;
    fn give_back(&mut self, id: u16, slots: &[u16]);
    /// Asks for an interrupt when the entry `n` from now (0: the next) is used, or for none.
    fn want(&mut self, m: &Memory, n: Option<u16>, event_idx: bool);
    /// Would the device be told of entries made available since the last call?
    fn kicks(&mut self, m: &Memory, event_idx: bool) -> bool;
}

struct SplitDriver {
    size: u16,
    unused: Vec<u16>,
    avail: u16,
    used: u16,
    kicked: u16,
}

impl SplitDriver {
    fn new(size: u16, start: u16) -> Self {
        Self { size, unused: (0..size).collect(), avail: start, used: start, kicked: start }
    }
}

impl Driver for SplitDriver {
    fn free(&self) -> usize {
        self.unused.len()
    }
    fn offer(&mut self, m: &Memory, buffers: &[(Buffer, bool)], table: Option<u64>) -> (u16, Vec<u16>) {
        let write = |w: bool| if w { DESC_WRITE } else { 0 };
        let slots: Vec<u16> = match table {
            Some(at) => {
                // Entries in reverse order but the first, to follow links.
                let n = buffers.len();
                let place = |i: usize| if i == 0 { 0 } else { n - i };
                for (i, (b, w)) in buffers.iter().enumerate() {
                    let (next, link) = if i + 1 < n { (place(i + 1) as u16, DESC_NEXT) } else { (0xffff, 0) };
                    m.descriptor(at + 16 * place(i) as u64, b.gpa.0, b.len, write(*w) | link, next);
                }
                let slot = self.unused.pop().unwrap();
                m.descriptor(DESC + 16 * u64::from(slot), at, 16 * n as u32, DESC_INDIRECT, 0);
                vec![slot]
            }
            None => {
                let slots: Vec<u16> = buffers.iter().map(|_| self.unused.pop().unwrap()).collect();
                for (i, (b, w)) in buffers.iter().enumerate() {
                    let (next, link) = slots.get(i + 1).map_or((0xffff, 0), |n| (*n, DESC_NEXT));
                    m.descriptor(DESC + 16 * u64::from(slots[i]), b.gpa.0, b.len, write(*w) | link, next);
                }
                slots
            }
        };
        m.put16(DRIVER + 4 + 2 * u64::from(self.avail % self.size), slots[0]);
        self.avail = self.avail.wrapping_add(1);
        m.put16(DRIVER + 2, self.avail);
        (slots[0], slots)
    }
    fn reap(&mut self, m: &Memory) -> Option<(u16, u32)> {
        if m.get16(DEVICE + 2) == self.used {
            return None;
        }
        let at = DEVICE + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        Some((m.get32(at) as u16, m.get32(at + 4)))
    }
    fn give_back(&mut self, _id: u16, slots: &[u16]) {
        self.unused.extend(slots);
    }
    fn want(&mut self, m: &Memory, n: Option<u16>, event_idx: bool) {
        if event_idx {
            // Half a turn away is "not now".
            m.put16(DRIVER + 4 + 2 * u64::from(self.size), self.used.wrapping_add(n.unwrap_or(0x8000)));
        } else {
            m.put16(DRIVER, u16::from(n.is_none()));
        }
    }
    fn kicks(&mut self, m: &Memory, event_idx: bool) -> bool {
        let (new, old) = (self.avail, self.kicked);
        self.kicked = new;
        if !event_idx {
            return new != old && m.get16(DEVICE) & 1 == 0;
        }
        let event = m.get16(DEVICE + 4 + 8 * u64::from(self.size));
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }
}

struct PackedDriver {
    size: u16,
    room: u16,
    ids: Vec<u16>,
    next: (u16, bool),
    used: (u16, bool),
    lengths: HashMap<u16, u16>,
    kicked: u16,
}

impl PackedDriver {
    fn new(size: u16) -> Self {
        Self {
            size,
            room: size,
            ids: (0..size).rev().collect(),
            next: (0, true),
            used: (0, true),
            lengths: HashMap::new(),
            kicked: 0,
        }
    }
    fn step(&self, (index, wrap): (u16, bool), n: u16) -> (u16, bool) {
        if index + n >= self.size { (index + n - self.size, !wrap) } else { (index + n, wrap) }
    }
}

impl Driver for PackedDriver {
    fn free(&self) -> usize {
        usize::from(self.room)
    }
    fn offer(&mut self, m: &Memory, buffers: &[(Buffer, bool)], table: Option<u64>) -> (u16, Vec<u16>) {
        let id = self.ids.pop().unwrap();
        let write = |w: bool| if w { DESC_WRITE } else { 0 };
        let first = self.next;
        let avail = |wrap: bool| if wrap { 1 << 7 } else { 1 << 15 };
        let count = if table.is_some() { 1 } else { buffers.len() as u16 };
        if let Some(at) = table {
            for (i, (b, w)) in buffers.iter().enumerate() {
                // NEXT and the id mean nothing in a table.
                m.descriptor(at + 16 * i as u64, b.gpa.0, b.len, 0xaaaa, write(*w) | DESC_NEXT);
            }
            m.descriptor(
                DESC + 16 * u64::from(first.0),
                at,
                16 * buffers.len() as u32,
                id,
                DESC_INDIRECT | avail(first.1),
            );
        } else {
            // The first becomes available last.
            for i in (0..count).rev() {
                let (b, w) = buffers[usize::from(i)];
                let (index, wrap) = self.step(first, i);
                let link = if i + 1 < count { DESC_NEXT } else { 0 };
                let own = if i + 1 == count { id } else { 0x5555 };
                m.descriptor(DESC + 16 * u64::from(index), b.gpa.0, b.len, own, write(w) | link | avail(wrap));
            }
        }
        self.next = self.step(first, count);
        self.room -= count;
        self.kicked += count;
        self.lengths.insert(id, count);
        (id, (0..count).collect())
    }
    fn reap(&mut self, m: &Memory) -> Option<(u16, u32)> {
        let at = DESC + 16 * u64::from(self.used.0);
        let flags = m.get16(at + 14);
        if (flags & 0x80 != 0) != self.used.1 || (flags & 0x8000 != 0) != self.used.1 {
            return None;
        }
        let id = m.get16(at + 12);
        self.used = self.step(self.used, self.lengths[&id]);
        Some((id, m.get32(at + 8)))
    }
    fn give_back(&mut self, id: u16, slots: &[u16]) {
        self.room += slots.len() as u16;
        self.ids.push(id);
        self.lengths.remove(&id);
    }
    fn want(&mut self, m: &Memory, n: Option<u16>, event_idx: bool) {
        match n {
            None => m.put16(DRIVER + 2, 1),
            Some(n) if event_idx => {
                let (index, wrap) = self.step(self.used, n % self.size);
                m.put16(DRIVER, index | u16::from(wrap) << 15);
                m.put16(DRIVER + 2, 2);
            }
            Some(_) => m.put16(DRIVER + 2, 0),
        }
    }
    fn kicks(&mut self, m: &Memory, _event_idx: bool) -> bool {
        let added = std::mem::take(&mut self.kicked);
        let (word, flags) = (m.get16(DEVICE), m.get16(DEVICE + 2));
        match flags {
            0 => added > 0,
            1 => false,
            2 => {
                let mut event = i32::from(word & 0x7fff);
                if (word >> 15 != 0) != self.next.1 {
                    event -= i32::from(self.size);
                }
                let new = i32::from(self.next.0);
                event < new && event >= new - i32::from(added)
            }
            other => panic!("event flags {other}"),
        }
    }
}

fn random_buffers(r: &mut Random, most: u64) -> Vec<(Buffer, bool)> {
    let n = 1 + r.below(most);
    let readable = r.below(n + 1);
    (0..n)
        .map(|i| {
            let most = if r.one_in(4) { 0x1_0000 } else { 64 };
            let len = 1 + r.below(most) as u32;
            (Buffer { gpa: Gpa(DATA + r.below(LEN - (DATA - BASE) - u64::from(len))), len }, i >= readable)
        })
        .collect()
}

/// Driver and device take turns at random; everything the driver offers arrives, and comes back once, as it should.
/// `period`: used descriptors after which an event index comes round again.
fn converse(mut driver: impl Driver, mut q: Queue, m: &Memory, features: u64, seed: u64, period: u32) {
    let mut r = Random(seed);
    let event_idx = features & crate::features::EVENT_IDX != 0;
    let mut offered: VecDeque<(u16, Offer)> = VecDeque::new();
    let mut held: Vec<(Chain, Offer)> = Vec::new();
    let mut used: VecDeque<(u16, u32, Vec<u16>)> = VecDeque::new();
    // Used entries (packed: descriptors) until the one the driver wants to hear of.
    let (mut until, mut since): (Option<u32>, u32) = (Some(0), 0);
    let mut tables = 0;
    driver.want(m, Some(0), event_idx);
    let mut told = q.enable_notifications().unwrap();
    for _ in 0..30_000 {
        match r.below(6) {
            0 | 1 => {
                let buffers = random_buffers(&mut r, 8);
                let indirect = features & crate::features::INDIRECT_DESC != 0 && r.one_in(2);
                if driver.free() < if indirect { 1 } else { buffers.len() } {
                    continue;
                }
                tables = (tables + 1) % 1024;
                let (id, slots) = driver.offer(m, &buffers, indirect.then_some(TABLES + tables * 16 * 8));
                let part = |want| buffers.iter().filter(|(_, w)| *w == want).map(|(b, _)| *b).collect();
                offered.push_back((id, Offer { readable: part(false), writable: part(true), slots }));
                let kick = driver.kicks(m, event_idx);
                // The first entry after the device asked is told of.
                assert!(kick || told, "the device is not told");
                told |= kick;
            }
            2 => {
                if r.one_in(2) {
                    q.disable_notifications().unwrap();
                }
                let mark = q.mark();
                let mut taken = Vec::new();
                for _ in 0..r.below(4) {
                    let Some(chain) = q.pop().unwrap() else {
                        assert!(taken.len() == offered.len());
                        break;
                    };
                    taken.push(chain);
                }
                if r.one_in(4) {
                    q.rewind(mark);
                } else {
                    for chain in taken {
                        let (id, offer) = offered.pop_front().unwrap();
                        assert_eq!(
                            (chain.id, chain.readable(), chain.writable()),
                            (id, &offer.readable[..], &offer.writable[..])
                        );
                        held.push((chain, offer));
                    }
                }
                assert_eq!(q.has_available().unwrap(), !offered.is_empty());
                told = q.enable_notifications().unwrap();
                assert_eq!(told, !offered.is_empty());
            }
            3 => {
                let mut batch = Vec::new();
                for _ in 0..r.below(4).min(held.len() as u64) {
                    let (chain, offer) = held.swap_remove(r.below(held.len() as u64) as usize);
                    let len = r.below(chain.writable_len() + 1) as u32;
                    let data = vec![7; len as usize];
                    assert_eq!(chain.write(&m.dma, 0, &data).unwrap(), data.len());
                    since += u32::from(chain.descriptors);
                    used.push_back((chain.id, len, offer.slots));
                    batch.push((chain, len));
                }
                q.push(batch).unwrap();
            }
            4 => {
                if let Some((id, len)) = driver.reap(m) {
                    let (want_id, want_len, slots) = used.pop_front().unwrap();
                    assert_eq!((id, len), (want_id, want_len));
                    driver.give_back(id, &slots);
                    if r.one_in(3) {
                        until = (!r.one_in(3)).then(|| r.below(2) as u32);
                        // Whatever was used before is looked at by the driver itself.
                        while let Some((id, len)) = driver.reap(m) {
                            let (want_id, want_len, slots) = used.pop_front().unwrap();
                            assert_eq!((id, len), (want_id, want_len));
                            driver.give_back(id, &slots);
                        }
                        assert!(used.is_empty());
                        let _ = q.needs_interrupt().unwrap();
                        since = 0;
                        driver.want(m, until.map(|n| n as u16), event_idx);
                    }
                } else {
                    assert!(used.is_empty());
                }
            }
            _ => {
                let got = q.needs_interrupt().unwrap();
                let want = match until {
                    // A whole turn of the ring always interrupts.
                    Some(n) if event_idx => since > n || since * 2 >= period,
                    Some(_) => since > 0,
                    None => false,
                };
                assert_eq!(got, want, "since {since} until {until:?}");
                if event_idx {
                    until = until.map(|n| (n + period - since % period) % period);
                }
                since = 0;
            }
        }
    }
}

#[test]
fn split_conversations() {
    use crate::features::{EVENT_IDX, INDIRECT_DESC};
    for (i, size) in [1, 2, 8, 64, 1024].into_iter().enumerate() {
        for features in [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC] {
            let m = Memory::new();
            let mut q = queue(&m, size, features);
            // Free-running indices wrap soon.
            let start = 0xff00;
            q.set_state(QueueState { next_avail: start, next_used: start, ..q.state().clone() });
            m.put16(DRIVER + 2, start);
            m.put16(DEVICE + 2, start);
            converse(SplitDriver::new(size, start), q, &m, features, 0x1234_5678 + i as u64, 1 << 16);
        }
    }
}

#[test]
fn packed_conversations() {
    use crate::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED};
    for (i, size) in [1, 2, 7, 64, 1000].into_iter().enumerate() {
        for features in [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC] {
            let m = Memory::new();
            let q = queue(&m, size, features | RING_PACKED);
            converse(PackedDriver::new(size), q, &m, features, 0x9876_5432 + i as u64, 2 * u32::from(size));
        }
    }
}

#[test]
fn malformed_split_rings() {
    let setup = |prepare: &dyn Fn(&Memory)| {
        let m = Memory::new();
        let mut q = queue(&m, 4, crate::features::INDIRECT_DESC);
        m.put16(DRIVER + 2, 1);
        prepare(&m);
        q.pop().map(|c| c.map(|c| c.readable().len() + c.writable().len()))
    };
    let d = |m: &Memory, i: u64, len: u32, flags: u16, next: u16| m.descriptor(DESC + 16 * i, DATA, len, flags, next);
    assert_eq!(setup(&|m| d(m, 0, 1, 0, 0)), Ok(Some(1)));
    // A loop; a link out of range; length zero; readable after writable.
    assert_eq!(setup(&|m| d(m, 0, 1, DESC_NEXT, 0)), Err(QueueError::TooLong));
    assert_eq!(setup(&|m| d(m, 0, 1, DESC_NEXT, 4)), Err(QueueError::DescriptorIndex));
    assert_eq!(setup(&|m| m.put16(DRIVER + 4, 4)), Err(QueueError::DescriptorIndex));
    assert_eq!(setup(&|m| d(m, 0, 0, 0, 0)), Err(QueueError::ZeroLength));
    let order = |m: &Memory| {
        d(m, 0, 1, DESC_NEXT | DESC_WRITE, 1);
        d(m, 1, 1, 0, 0);
    };
    assert_eq!(setup(&order), Err(QueueError::Order));
    // More than 4 GiB.
    let long = |m: &Memory| {
        d(m, 0, u32::MAX, DESC_NEXT, 1);
        d(m, 1, 1, 0, 0);
    };
    assert_eq!(setup(&long), Err(QueueError::TooLong));
    // More entries than the queue has.
    assert_eq!(setup(&|m| m.put16(DRIVER + 2, 5)), Err(QueueError::AvailableIndex));
    // Indirect tables: empty, of odd length, with NEXT, nested, out of memory, that loop.
    let table = |len: u32, flags: u16, inner: u16, next: u16| {
        setup(&move |m| {
            m.descriptor(DESC, TABLES, len, DESC_INDIRECT | flags, 0);
            m.descriptor(TABLES, DATA, 1, inner, next);
        })
    };
    assert_eq!(table(16, 0, 0, 0), Ok(Some(1)));
    assert_eq!(table(0, 0, 0, 0), Err(QueueError::Indirect));
    assert_eq!(table(17, 0, 0, 0), Err(QueueError::Indirect));
    assert_eq!(table(16, DESC_NEXT, 0, 0), Err(QueueError::Indirect));
    assert_eq!(table(16, 0, DESC_INDIRECT, 0), Err(QueueError::Indirect));
    assert_eq!(table(16, 0, DESC_NEXT, 1), Err(QueueError::DescriptorIndex));
    assert_eq!(table(16, 0, DESC_NEXT, 0), Err(QueueError::TooLong));
    assert_eq!(setup(&|m| m.descriptor(DESC, u64::MAX - 7, 32, DESC_INDIRECT, 0)), Err(QueueError::Memory));
    // Buffers out of memory are met when they are used.
    assert_eq!(setup(&|m| m.descriptor(DESC, 0x10, 8, 0, 0)), Ok(Some(1)));
    // Without the feature a table is an error.
    let m = Memory::new();
    let mut q = queue(&m, 4, 0);
    m.put16(DRIVER + 2, 1);
    m.descriptor(DESC, TABLES, 16, DESC_INDIRECT, 0);
    assert!(matches!(q.pop(), Err(QueueError::Indirect)));
}

#[test]
fn impossible_rings() {
    let m = Memory::new();
    for (desc, driver, device) in [
        (0, DRIVER, DEVICE),
        (DESC + 8, DRIVER, DEVICE),
        (DESC, DRIVER + 1, DEVICE),
        (DESC, DRIVER, BASE + LEN - 8),
        (u64::MAX - 15, DRIVER, DEVICE),
    ] {
        let mut q = Queue::new(256, m.dma.clone());
        q.program(|s| (s.desc, s.driver, s.device) = (desc, driver, device));
        q.enable();
        assert!(matches!(q.pop(), Err(QueueError::Memory)), "{desc:#x} {driver:#x} {device:#x}");
    }
    for size in [0, 3, 512] {
        let mut q = Queue::new(256, m.dma.clone());
        q.program(|s| (s.size, s.desc, s.driver, s.device) = (size, DESC, DRIVER, DEVICE));
        q.enable();
        assert!(!q.state().ready && matches!(q.pop(), Ok(None)));
    }
    // Without bus mastering the queue rests.
    let mut q = queue(&m, 4, 0);
    m.put16(DRIVER + 2, 1);
    m.descriptor(DESC, DATA, 1, 0, 0);
    m.dma.set_enabled(false);
    assert!(matches!(q.pop(), Ok(None)));
    m.dma.set_enabled(true);
    assert!(matches!(q.pop(), Ok(Some(_))));
}

/// Rings full of rubbish: every operation ends, with a chain that keeps the rules or with an error.
#[test]
fn random_rings() {
    for seed in 1..200u64 {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let m = Memory::new();
        let packed = seed % 2 == 0;
        let size = if packed { 1 + r.below(300) as u16 } else { 1 << r.below(9) };
        let features = if packed { crate::features::RING_PACKED } else { 0 }
            | if r.one_in(2) { crate::features::INDIRECT_DESC } else { 0 }
            | if r.one_in(2) { crate::features::EVENT_IDX } else { 0 };
        let mut q = queue(&m, size, features);
        let mut held = Vec::new();
        for _ in 0..300 {
            match r.below(8) {
                0..3 => {
                    let at = DESC + 16 * r.below(u64::from(size));
                    let addr = if r.one_in(4) { r.next() } else { TABLES + 16 * r.below(1000) };
                    let len = match r.below(4) {
                        0 => r.next() as u32,
                        1 => 16 * r.below(20) as u32,
                        _ => r.below(100) as u32,
                    };
                    let (flags, other) = (
                        r.next() as u16 & if r.one_in(2) { 0xffff } else { 0x8083 },
                        r.below(u64::from(size) + 1) as u16,
                    );
                    let (w12, w14) = if packed { (other, flags) } else { (flags & 7, other) };
                    m.descriptor(at, addr, len, w12, w14);
                    m.descriptor(TABLES + 16 * r.below(1000), addr, len, w12, w14);
                }
                3 => {
                    let index = m.get16(DRIVER + 2).wrapping_add(r.below(3) as u16);
                    m.put16(DRIVER + 2, if r.one_in(10) { r.next() as u16 } else { index });
                    m.put16(DRIVER + 4 + 2 * r.below(u64::from(size)), r.below(u64::from(size) + 1) as u16);
                }
                4 | 5 => {
                    if let Ok(Some(chain)) = q.pop() {
                        assert!(
                            chain.readable().len() + chain.writable().len() <= INDIRECT_LIMIT.max(usize::from(size))
                        );
                        assert!(chain.readable_len() + chain.writable_len() <= u64::from(u32::MAX));
                        let mut data = [0; 64];
                        let _ = chain.read(&m.dma, r.below(100), &mut data);
                        let _ = chain.write(&m.dma, r.below(100), &data);
                        held.push(chain);
                    }
                }
                6 => {
                    let n = r.below(3).min(held.len() as u64) as usize;
                    let back: Vec<_> = held.drain(..n).map(|c| (c, r.next() as u32)).collect();
                    let _ = q.push(back);
                    let _ = q.needs_interrupt();
                }
                _ => {
                    let _ = q.enable_notifications();
                    let _ = q.disable_notifications();
                    let _ = q.has_available();
                }
            }
        }
    }
}
