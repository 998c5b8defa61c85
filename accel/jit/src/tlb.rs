//! The softmmu TLB of one vCPU: a direct-mapped table per MMU index that generated code probes inline, sized by use.
#![expect(unsafe_code, reason = "generated code reads the tables by address")]

use rhea_ir::env::{EnvHeader, MMU_INDEXES, PAGE_BITS, PAGE_SIZE, TlbEntry, tag, tlb_slot};

const MIN_BITS: u32 = 9;
/// Entries that were displaced last and are kept, so that two pages in turn do not cost a walk each time.
const VICTIMS: usize = 16;
const MAX_BITS: u32 = 15;
/// So often may displaced entries be put back before the table is doubled, up to [`MAX_APART_BITS`]: pages in use at once that share a place.
const CONFLICTS: u32 = 500;
const MAX_APART_BITS: u32 = 13;
/// Bits of an address that an MMU may ignore: differently tagged aliases of a page have entries of their own, in the same
/// place of a table, and are dropped together.
const TAG_BITS: u32 = 8;
/// Up to this many filled entries a flush clears them one by one.
const LIST: usize = 128;

/// Bit of [`TlbEntry::flags`].
pub const GLOBAL: u64 = 1;

struct Table {
    entries: Box<[TlbEntry]>,
    /// The first [`LIST`] places that got entries that are not global since the last flush, and how many did.
    locals: Vec<u32>,
    local_count: usize,
    /// Entries filled since the last flush.
    count: usize,
    /// Consecutive flushes with little use.
    quiet: u32,
    /// Displaced entries put back since the last flush, or since the table was doubled for them.
    conflicts: u32,
    /// Bit 0: there may be global entries in the lower half of the address space; bit 1: in the upper half.
    globals: u8,
}

/// By bit 55: the bits above may be a tag that the guest's MMU ignores.
fn half(va: u64) -> u8 {
    1 << (va >> 55 & 1)
}

impl Table {
    fn new(bits: u32) -> Table {
        Table {
            entries: vec![TlbEntry::EMPTY; 1 << bits].into_boxed_slice(),
            locals: Vec::new(),
            local_count: 0,
            count: 0,
            quiet: 0,
            conflicts: 0,
            globals: 0,
        }
    }
    fn index(&self, va: u64) -> usize {
        (va >> PAGE_BITS) as usize & (self.entries.len() - 1)
    }
    fn put(&mut self, va: u64, e: TlbEntry) {
        let i = self.index(va);
        if is_empty(&self.entries[i]) {
            self.count += 1;
        }
        if e.flags & GLOBAL != 0 {
            self.globals |= half(va);
        } else {
            self.local_count += 1;
            if self.locals.len() < LIST {
                self.locals.push(i as u32);
            }
        }
        self.entries[i] = e;
    }
    /// The entry's page, if it has one.
    fn page(e: &TlbEntry) -> Option<u64> {
        [e.read, e.write].into_iter().find(|t| *t != u64::MAX).map(|t| t & !(PAGE_SIZE - 1))
    }
    /// Empties the table, or moves it to one of another size.
    fn clear(&mut self) {
        let len = self.entries.len();
        // Size by use: crowded tables double, tables that stay nearly empty shrink.
        if self.count * 4 > len * 3 && len < 1 << MAX_BITS {
            *self = Table::new((len * 2).trailing_zeros());
            return;
        }
        self.quiet = if self.count * 8 < len { self.quiet + 1 } else { 0 };
        if self.quiet > 64 && len > 1 << MIN_BITS {
            *self = Table::new((len / 2).trailing_zeros());
            return;
        }
        if self.globals == 0 && self.local_count <= LIST {
            for &k in &self.locals {
                self.entries[k as usize] = TlbEntry::EMPTY;
            }
        } else {
            self.entries.fill(TlbEntry::EMPTY);
        }
        self.locals.clear();
        (self.local_count, self.count, self.conflicts, self.globals) = (0, 0, 0, 0);
    }
    fn clear_but_globals(&mut self) {
        if self.globals == 0 {
            return self.clear();
        }
        let mut dropped = 0;
        let mut drop = |e: &mut TlbEntry| {
            if !is_empty(e) && e.flags & GLOBAL == 0 {
                *e = TlbEntry::EMPTY;
                dropped += 1;
            }
        };
        if self.local_count <= LIST {
            self.locals.iter().for_each(|&k| drop(&mut self.entries[k as usize]));
        } else {
            self.entries.iter_mut().for_each(drop);
        }
        self.count = self.count.saturating_sub(dropped);
        self.locals.clear();
        self.local_count = 0;
    }
}

fn is_empty(e: &TlbEntry) -> bool {
    e.read == u64::MAX && e.write == u64::MAX
}

/// Host pages that may be written through a table, by a hash of their address: most pages of code never were.
struct Writable([u64; Writable::WORDS]);

impl Writable {
    const WORDS: usize = 256;
    fn bit(host_page: u64) -> (usize, u64) {
        let n = (host_page >> PAGE_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 14);
        (n as usize / 64 % Self::WORDS, 1 << (n % 64))
    }
    fn add(&mut self, e: &TlbEntry) {
        if let Some(page) = written_page(e) {
            let (word, bit) = Self::bit(page);
            self.0[word] |= bit;
        }
    }
    fn has(&self, host_page: u64) -> bool {
        let (word, bit) = Self::bit(host_page);
        self.0[word] & bit != 0
    }
}

/// The host page that generated code may write through the entry.
fn written_page(e: &TlbEntry) -> Option<u64> {
    (e.write & (tag::INVALID | tag::SLOW) == 0).then(|| (e.write & !(PAGE_SIZE - 1)).wrapping_add(e.addend))
}

/// The translations of one context.
pub struct Tlb {
    tables: Vec<Table>,
    /// At least what the tables have.
    writable: Writable,
    /// MMU index and entry; empty entries are unused.
    victims: [(u32, TlbEntry); VICTIMS],
    next_victim: usize,
}

impl Tlb {
    pub fn new() -> Tlb {
        Tlb {
            tables: (0..MMU_INDEXES).map(|_| Table::new(MIN_BITS)).collect(),
            writable: Writable([0; Writable::WORDS]),
            victims: [(0, TlbEntry::EMPTY); VICTIMS],
            next_victim: 0,
        }
    }

    /// Tells generated code where the tables are; needed after all that may have changed their size.
    pub fn publish(&mut self, header: &mut EnvHeader) {
        for (n, t) in self.tables.iter_mut().enumerate() {
            let d = &mut header.tlb[tlb_slot(n as u32)];
            d.mask = (t.entries.len() as u64 - 1) * size_of::<TlbEntry>() as u64;
            d.table = t.entries.as_mut_ptr() as u64;
        }
    }

    /// The entry where `va` would be.
    pub fn entry(&self, idx: u32, va: u64) -> &TlbEntry {
        let t = &self.tables[idx as usize % MMU_INDEXES];
        &t.entries[t.index(va)]
    }

    pub fn insert(&mut self, idx: u32, va: u64, e: TlbEntry) {
        let t = &mut self.tables[idx as usize % MMU_INDEXES];
        let old = t.entries[t.index(va)];
        if Table::page(&old).is_some_and(|p| p != va & !(PAGE_SIZE - 1)) {
            self.victims[self.next_victim % VICTIMS] = (idx, old);
            self.next_victim = self.next_victim.wrapping_add(1);
        }
        t.put(va, e);
        self.writable.add(&e);
    }

    /// Puts a displaced entry back to where generated code finds it; true if there was one.
    pub fn revive(&mut self, idx: u32, va: u64) -> bool {
        let page = va & !(PAGE_SIZE - 1);
        let Some(n) = self.victims.iter().position(|(i, e)| *i == idx && Table::page(e) == Some(page)) else {
            return false;
        };
        let e = std::mem::replace(&mut self.victims[n].1, TlbEntry::EMPTY);
        self.insert(idx, va, e);
        self.tables[idx as usize % MMU_INDEXES].conflicts += 1;
        true
    }

    fn drop_victims(&mut self, what: impl Fn(u32, &TlbEntry) -> bool) {
        for (i, e) in &mut self.victims {
            if !is_empty(e) && what(*i, e) {
                *e = TlbEntry::EMPTY;
            }
        }
    }

    fn masked(&mut self, indexes: u16) -> impl Iterator<Item = &mut Table> {
        self.tables.iter_mut().enumerate().filter(move |(i, t)| indexes >> i & 1 != 0 && t.count != 0).map(|(_, t)| t)
    }

    /// Empties tables; `publish` must follow.
    pub fn flush(&mut self, indexes: u16) {
        self.drop_victims(|i, _| indexes >> i & 1 != 0);
        self.masked(indexes).for_each(Table::clear);
        if indexes == u16::MAX {
            self.writable.0.fill(0);
        }
    }

    /// Drops what is not global; `publish` must follow.
    pub fn flush_context(&mut self, indexes: u16) {
        self.drop_victims(|i, _| indexes >> i & 1 != 0);
        self.masked(indexes).for_each(Table::clear_but_globals);
    }

    /// Doubles a table that is crowded between flushes; called on misses.
    pub fn grow_if_crowded(&mut self, header: &mut EnvHeader, idx: u32) {
        let t = &self.tables[idx as usize % MMU_INDEXES];
        if t.count * 4 > t.entries.len() * 3 && t.entries.len() < 1 << MAX_BITS {
            self.double(header, idx);
        }
    }

    /// Doubles a table in which pages displace each other; called when one was put back.
    pub fn grow_if_in_conflict(&mut self, header: &mut EnvHeader, idx: u32) {
        let t = &self.tables[idx as usize % MMU_INDEXES];
        if t.conflicts > CONFLICTS && t.entries.len() < 1 << MAX_APART_BITS {
            self.double(header, idx);
        }
    }

    fn double(&mut self, header: &mut EnvHeader, idx: u32) {
        let t = &mut self.tables[idx as usize % MMU_INDEXES];
        let mut new = Table::new((t.entries.len() * 2).trailing_zeros());
        for e in t.entries.iter() {
            if let Some(p) = Table::page(e) {
                new.put(p, *e);
            }
        }
        *t = new;
        self.publish(header);
    }

    /// Drops the entries of `pages` pages from `va`, or only the global ones.
    pub fn flush_pages(&mut self, va: u64, pages: u64, indexes: u16, only_global: bool) {
        let start = va & !(PAGE_SIZE - 1);
        let hit = |e: &TlbEntry| {
            Table::page(e).is_some_and(|p| p.wrapping_sub(start) << TAG_BITS >> (TAG_BITS + PAGE_BITS) < pages)
        };
        self.drop_victims(|i, e| indexes >> i & 1 != 0 && hit(e));
        for t in self.masked(indexes) {
            if only_global && t.globals & half(va) == 0 {
                continue;
            }
            let drop = |e: &mut TlbEntry| {
                if hit(e) && (!only_global || e.flags & GLOBAL != 0) {
                    *e = TlbEntry::EMPTY;
                }
            };
            if pages as usize >= t.entries.len() {
                t.entries.iter_mut().for_each(drop);
                continue;
            }
            for p in 0..pages {
                let k = t.index(start.wrapping_add(p << PAGE_BITS));
                drop(&mut t.entries[k]);
            }
        }
    }

    /// Makes stores to a host page take the slow path.
    pub fn protect_host_page(&mut self, host_page: u64) {
        if !self.writable.has(host_page) {
            return;
        }
        self.drop_victims(|_, _| true);
        // What was written once may have gone since.
        let mut now = Writable([0; Writable::WORDS]);
        for t in self.masked(u16::MAX) {
            for e in t.entries.iter_mut() {
                if written_page(e) == Some(host_page) {
                    e.write |= tag::SLOW;
                } else {
                    now.add(e);
                }
            }
        }
        self.writable = now;
    }
}

/// Reads up to 16 bytes of guest RAM through a host address.
///
/// # Safety
/// `host..host+size` is mapped RAM that stays mapped during the call.
pub unsafe fn read_host(host: u64, size: u32) -> u128 {
    let mut b = [0u8; 16];
    // SAFETY: by the caller; `size` ≤ 16. Other vCPUs may write concurrently: the guest sees a mix, as on hardware.
    unsafe {
        match size {
            1 => b[0] = (host as *const u8).read_volatile(),
            2 if host & 1 == 0 => b[..2].copy_from_slice(&(host as *const u16).read_volatile().to_le_bytes()),
            4 if host & 3 == 0 => b[..4].copy_from_slice(&(host as *const u32).read_volatile().to_le_bytes()),
            8 if host & 7 == 0 => b[..8].copy_from_slice(&(host as *const u64).read_volatile().to_le_bytes()),
            n => std::ptr::copy_nonoverlapping(host as *const u8, b.as_mut_ptr(), (n as usize).min(16)),
        }
    }
    u128::from_le_bytes(b)
}

/// Writes up to 16 bytes of guest RAM.
///
/// # Safety
/// As [`read_host`].
pub unsafe fn write_host(host: u64, size: u32, value: u128) {
    let b = value.to_le_bytes();
    // SAFETY: by the caller.
    unsafe {
        match size {
            1 => (host as *mut u8).write_volatile(b[0]),
            2 if host & 1 == 0 => (host as *mut u16).write_volatile(value as u16),
            4 if host & 3 == 0 => (host as *mut u32).write_volatile(value as u32),
            8 if host & 7 == 0 => (host as *mut u64).write_volatile(value as u64),
            n => std::ptr::copy_nonoverlapping(b.as_ptr(), host as *mut u8, (n as usize).min(16)),
        }
    }
}

/// Atomic compare-exchange on guest RAM; returns the old value.
///
/// # Safety
/// As [`read_host`]; `host` is aligned to `size` (a power of two up to 16).
pub unsafe fn cas_host(host: u64, size: u32, expected: u128, new: u128) -> u128 {
    use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};
    fn old<T>(r: Result<T, T>) -> T {
        match r {
            Ok(v) | Err(v) => v,
        }
    }
    // SAFETY: by the caller: mapped and aligned.
    unsafe {
        match size {
            1 => old(AtomicU8::from_ptr(host as *mut u8).compare_exchange(expected as u8, new as u8, SeqCst, SeqCst))
                .into(),
            2 => {
                old(AtomicU16::from_ptr(host as *mut u16).compare_exchange(expected as u16, new as u16, SeqCst, SeqCst))
                    .into()
            }
            4 => {
                old(AtomicU32::from_ptr(host as *mut u32).compare_exchange(expected as u32, new as u32, SeqCst, SeqCst))
                    .into()
            }
            8 => {
                old(AtomicU64::from_ptr(host as *mut u64).compare_exchange(expected as u64, new as u64, SeqCst, SeqCst))
                    .into()
            }
            _ => cas128(host, expected, new),
        }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn cas128(host: u64, expected: u128, new: u128) -> u128 {
    let (mut lo, mut hi) = (expected as u64, (expected >> 64) as u64);
    // SAFETY: by the caller: mapped, 16-byte aligned; `host_is_supported` requires CMPXCHG16B. rbx is reserved by the
    // compiler, so it is exchanged around the instruction.
    unsafe {
        std::arch::asm!(
            "xchg {b}, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, {b}",
            b = inout(reg) new as u64 => _,
            in("rdi") host,
            inout("rax") lo,
            inout("rdx") hi,
            in("rcx") (new >> 64) as u64,
            options(nostack),
        );
    }
    lo as u128 | (hi as u128) << 64
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn cas128(host: u64, expected: u128, new: u128) -> u128 {
    // Hosts without the JIT run one interpreter thread at a time per access: not atomic against host threads.
    // SAFETY: by the caller.
    unsafe {
        let old = read_host(host, 16);
        if old == expected {
            write_host(host, 16, new);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_protected_wherever_they_are_mapped() {
        let mut tlb = Tlb::new();
        let entry = |va: u64, host: u64| TlbEntry { read: va, write: va, addend: host.wrapping_sub(va), flags: 0 };
        tlb.insert(0, 0x1000, entry(0x1000, 0x70_0000));
        tlb.insert(2, 0x5000, entry(0x5000, 0x70_0000));
        tlb.insert(2, 0x6000, entry(0x6000, 0x71_0000));
        let slow = |tlb: &Tlb, idx, va| tlb.entry(idx, va).write & tag::SLOW != 0;
        // Not mapped, then mapped twice.
        tlb.protect_host_page(0x72_0000);
        assert!(![(0, 0x1000), (2, 0x5000), (2, 0x6000)].iter().any(|&(i, va)| slow(&tlb, i, va)));
        tlb.protect_host_page(0x70_0000);
        assert!(slow(&tlb, 0, 0x1000) && slow(&tlb, 2, 0x5000) && !slow(&tlb, 2, 0x6000));
        // Written again, which a look at the tables may have forgotten.
        tlb.insert(0, 0x1000, entry(0x1000, 0x70_0000));
        tlb.protect_host_page(0x71_0000);
        assert!(slow(&tlb, 2, 0x6000) && !slow(&tlb, 0, 0x1000));
        tlb.protect_host_page(0x70_0000);
        assert!(slow(&tlb, 0, 0x1000));
    }

    #[test]
    fn pages_that_displace_each_other_get_places_of_their_own() {
        let mut tlb = Tlb::new();
        let mut header = EnvHeader::default();
        let pages = [0x1000, 0x1000 + (PAGE_SIZE << 10), 0x1000 + (PAGE_SIZE << 40)];
        for &va in &pages {
            tlb.insert(1, va, TlbEntry { read: va, write: va, addend: 0, flags: 0 });
        }
        let mut put_back = 0;
        for n in 0..100_000 {
            let va = pages[n % 2];
            if tlb.entry(1, va).read != va {
                assert!(tlb.revive(1, va));
                tlb.grow_if_in_conflict(&mut header, 1);
                put_back += 1;
            }
        }
        assert!((500..5000).contains(&put_back), "{put_back}");
        // What no table is large enough for stays as it is.
        tlb.insert(1, pages[2], TlbEntry { read: pages[2], write: pages[2], addend: 0, flags: 0 });
        for n in 0..100_000 {
            let va = pages[n % 2 * 2];
            if tlb.entry(1, va).read != va {
                assert!(tlb.revive(1, va));
                tlb.grow_if_in_conflict(&mut header, 1);
            }
        }
        assert_eq!(header.tlb[tlb_slot(1)].mask, ((1 << MAX_APART_BITS) - 1) * size_of::<TlbEntry>() as u64);
        tlb.flush(u16::MAX);
        assert!(pages.iter().all(|&va| tlb.entry(1, va).read != va && !tlb.revive(1, va)));
    }
}
