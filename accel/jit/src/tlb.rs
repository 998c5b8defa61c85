//! The softmmu TLB of one vCPU: a direct-mapped table per MMU index that generated code probes inline, sized by use.
#![expect(unsafe_code, reason = "generated code reads the tables by address")]

use rhea_ir::env::{EnvHeader, MMU_INDEXES, PAGE_BITS, PAGE_SIZE, TlbEntry, tag};

const MIN_BITS: u32 = 8;
const MAX_BITS: u32 = 15;
/// Up to this many filled entries a flush clears them one by one.
const LIST: usize = 128;

struct Table {
    entries: Box<[TlbEntry]>,
    filled: Vec<u32>,
    /// Entries filled since the last flush.
    count: usize,
    /// Consecutive flushes with little use.
    quiet: u32,
}

impl Table {
    fn new(bits: u32) -> Table {
        Table { entries: vec![TlbEntry::EMPTY; 1 << bits].into_boxed_slice(), filled: Vec::new(), count: 0, quiet: 0 }
    }
    fn index(&self, va: u64) -> usize {
        (va >> PAGE_BITS) as usize & (self.entries.len() - 1)
    }
}

pub struct Tlb {
    tables: Vec<Table>,
}

impl Tlb {
    pub fn new(header: &mut EnvHeader) -> Tlb {
        let mut t = Tlb { tables: (0..MMU_INDEXES).map(|_| Table::new(MIN_BITS)).collect() };
        for i in 0..MMU_INDEXES {
            t.publish(header, i);
        }
        t
    }

    /// Tells generated code where the table is.
    fn publish(&mut self, header: &mut EnvHeader, i: usize) {
        let t = &mut self.tables[i];
        header.tlb[i].mask = (t.entries.len() as u64 - 1) * size_of::<TlbEntry>() as u64;
        header.tlb[i].table = t.entries.as_mut_ptr() as u64;
    }

    pub fn insert(&mut self, idx: u32, va: u64, e: TlbEntry) {
        let t = &mut self.tables[idx as usize % MMU_INDEXES];
        let i = t.index(va);
        if t.entries[i].read == u64::MAX && t.entries[i].write == u64::MAX {
            t.count += 1;
            if t.filled.len() < LIST {
                t.filled.push(i as u32);
            }
        }
        t.entries[i] = e;
    }

    pub fn flush(&mut self, header: &mut EnvHeader, indexes: u16) {
        for i in 0..MMU_INDEXES {
            if indexes >> i & 1 == 0 {
                continue;
            }
            let t = &mut self.tables[i];
            let len = t.entries.len();
            // Size by use: crowded tables double, tables that stay nearly empty shrink.
            if t.count * 4 > len * 3 && len < 1 << MAX_BITS {
                *t = Table::new((len * 2).trailing_zeros());
                self.publish(header, i);
                continue;
            }
            t.quiet = if t.count * 8 < len { t.quiet + 1 } else { 0 };
            if t.quiet > 64 && len > 1 << MIN_BITS {
                *t = Table::new((len / 2).trailing_zeros());
                self.publish(header, i);
                continue;
            }
            if t.count <= LIST {
                for k in t.filled.drain(..) {
                    t.entries[k as usize] = TlbEntry::EMPTY;
                }
            } else {
                t.entries.fill(TlbEntry::EMPTY);
                t.filled.clear();
            }
            t.count = 0;
        }
    }

    /// Doubles a table that is crowded between flushes; called on misses.
    pub fn grow_if_crowded(&mut self, header: &mut EnvHeader, idx: u32) {
        let i = idx as usize % MMU_INDEXES;
        let t = &mut self.tables[i];
        let len = t.entries.len();
        if t.count * 4 <= len * 3 || len >= 1 << MAX_BITS {
            return;
        }
        let mut new = Table::new((len * 2).trailing_zeros());
        for e in t.entries.iter() {
            let page = [e.read, e.write].into_iter().find(|t| *t != u64::MAX);
            if let Some(p) = page {
                let k = new.index(p & !(PAGE_SIZE - 1));
                new.entries[k] = *e;
                new.count += 1;
                if new.filled.len() < LIST {
                    new.filled.push(k as u32);
                }
            }
        }
        *t = new;
        self.publish(header, i);
    }

    pub fn flush_pages(&mut self, va: u64, pages: u64, indexes: u16) {
        for i in 0..MMU_INDEXES {
            if indexes >> i & 1 == 0 {
                continue;
            }
            let t = &mut self.tables[i];
            for p in 0..pages {
                let at = va.wrapping_add(p << PAGE_BITS);
                let k = t.index(at);
                let page = at & !(PAGE_SIZE - 1);
                let e = &mut t.entries[k];
                if e.read & !0xfff == page || e.write & !0xfff == page {
                    *e = TlbEntry::EMPTY;
                }
            }
        }
    }

    /// Makes stores to a host page take the slow path.
    pub fn protect_host_page(&mut self, host_page: u64) {
        for t in &mut self.tables {
            if t.count == 0 {
                continue;
            }
            for e in t.entries.iter_mut() {
                if e.write & tag::INVALID == 0 && (e.write & !0xfff).wrapping_add(e.addend) == host_page {
                    e.write |= tag::SLOW;
                }
            }
        }
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
            1 => old(AtomicU8::from_ptr(host as *mut u8).compare_exchange(expected as u8, new as u8, SeqCst, SeqCst)).into(),
            2 => old(AtomicU16::from_ptr(host as *mut u16).compare_exchange(expected as u16, new as u16, SeqCst, SeqCst)).into(),
            4 => old(AtomicU32::from_ptr(host as *mut u32).compare_exchange(expected as u32, new as u32, SeqCst, SeqCst)).into(),
            8 => old(AtomicU64::from_ptr(host as *mut u64).compare_exchange(expected as u64, new as u64, SeqCst, SeqCst)).into(),
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
