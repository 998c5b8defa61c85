//! What a vCPU's thread keeps of its guest's translations: TLBs, fetched pages and jump caches, by context.

use crate::cache::Key;
use crate::fetch::{FetchTable, entry};
use crate::report::Counts;
use crate::shared::Shared;
use crate::softmmu::KeptTranslations;
use crate::tlb::Tlb;
use crate::vm::{Core, WrittenPages};
use crate::x64::JUMP_CACHE_BITS;
use rhea_ir::env::{EnvHeader, NO_SITE, PAGE_SIZE};
use rhea_ir::guest::{Access as Kind, Guest, MemAccess, Raised, TlbFlush};
use rhea_memory::view::Lookup;
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const JUMP_ENTRIES: usize = 1 << JUMP_CACHE_BITS;

/// One entry of a jump cache, probed by generated code: guest pc, host code.
#[derive(Clone, Copy)]
#[repr(C)]
struct Jump {
    pc: u64,
    code: usize,
}

/// A jump cache for one mode.
struct JumpCache {
    mode: u64,
    /// What unused entries are: a guest may jump to their address too, so that it leads to a look-up.
    unused: Jump,
    /// The context its entries hold in; `None`: in all, as all their pages are global.
    pub context: Option<u64>,
    used: u64,
    entries: Box<[Jump]>,
    /// Bit per hash of page: some entry's pc is in such a page.
    pages: [u64; 16],
    /// Has it entries of the lower and the upper half of the address space?
    halves: [bool; 2],
}

/// 0: the lower half of the address space, 1: the upper one.
fn half(va: u64) -> usize {
    (va >> 63) as usize
}

impl JumpCache {
    pub fn new(mode: u64, no_return: usize) -> JumpCache {
        let unused = Jump { pc: u64::MAX, code: no_return };
        JumpCache {
            mode,
            unused,
            context: None,
            used: 0,
            entries: vec![unused; JUMP_ENTRIES].into_boxed_slice(),
            pages: [0; 16],
            halves: [false; 2],
        }
    }
    fn clear(&mut self) {
        if std::mem::take(&mut self.halves) != [false; 2] {
            self.entries.fill(self.unused);
            self.pages = [0; 16];
        }
        self.context = None;
    }
    fn page_bit(pc: u64) -> (usize, u64) {
        let p = pc >> 12;
        let h = (p ^ p >> 10 ^ p >> 20) as usize;
        (h / 64 % 16, 1 << (h % 64))
    }
    /// May it have entries of one of these pages?
    fn touches(&self, va: u64, pages: u64) -> bool {
        self.halves[half(va)]
            && (pages > 1024
                || (0..pages).any(|p| {
                    let (word, bit) = Self::page_bit(va.wrapping_add(p << 12));
                    self.pages[word] & bit != 0
                }))
    }
}

/// Code found lately, by all that its translation depends on: what the jump caches forget with a TLB flush.
pub struct Found(Box<[(Key, usize)]>);

impl Found {
    const ENTRIES: usize = 1 << 15;
    const NONE: (Key, usize) = (Key { pc: u64::MAX, host: 0, mode: 0, attrs: 0 }, 0);
    pub fn new() -> Found {
        Found(vec![Self::NONE; Self::ENTRIES].into_boxed_slice())
    }
    pub fn clear(&mut self) {
        self.0.fill(Self::NONE);
    }
    fn slot(pc: u64, mode: u64) -> usize {
        let h = (pc >> 2 ^ mode.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 49) as usize % Self::ENTRIES
    }
    pub fn get(&self, key: &Key) -> Option<usize> {
        let e = &self.0[Self::slot(key.pc, key.mode)];
        (e.0 == *key).then_some(e.1)
    }
    pub fn put(&mut self, key: Key, code: usize) {
        self.0[Self::slot(key.pc, key.mode)] = (key, code);
    }
    pub fn forget(&mut self, pc: u64, mode: u64) {
        self.0[Self::slot(pc, mode)] = Self::NONE;
    }
}

/// What a vCPU knows of one context of its guest.
pub struct Set {
    pub context: u64,
    used: u64,
    pub tlb: Tlb,
    pub kept: KeptTranslations,
    pub code: FetchTable,
}

impl Set {
    pub fn new(context: u64) -> Set {
        Set { context, used: 0, tlb: Tlb::new(), kept: KeptTranslations::default(), code: FetchTable::new() }
    }
    /// Forgets everything; the TLB is to be published again if it is the current set.
    fn clear(&mut self) {
        self.tlb.flush(u16::MAX);
        self.kept.clear();
        self.code.clear();
    }
}

/// Sets kept besides the current one.
const OTHER_SETS: usize = 7;
const JUMP_CACHES: usize = 16;

/// The accelerator's per-vCPU state, used by its own thread only.
pub struct Ctx {
    pub index: u32,
    pub space: Arc<AddressSpace>,
    /// What accesses see whose translation is secure, where that differs.
    secure: Option<Arc<AddressSpace>>,
    pub set: Set,
    /// Sets of other contexts.
    others: Vec<Set>,
    pub found: Found,
    pub written: Arc<WrittenPages>,
    pub core: Arc<Core>,
    pub counts: Arc<Counts>,
    jumps: Vec<JumpCache>,
    pub current: usize,
    tick: u64,
    pub map_generation: u64,
    pub code_generation: u64,
    /// Where unused elements of jump caches and of the shadow return stack lead: a look-up.
    no_return: usize,
    /// The next instruction is to be run in a block of its own (it stores to translated code).
    pub restart_alone: bool,
    /// It is being run.
    pub alone: bool,
    /// See [`Self::fetch`]; who looks at it clears it.
    pub uncached: bool,
    /// [`EnvHeader::flat`] is to be set again.
    flat_unknown: bool,
}

impl Ctx {
    pub fn new(core: &Arc<Core>, shared: &Shared, header: &mut EnvHeader, no_return: usize) -> Ctx {
        let mut set = Set::new(0);
        set.tlb.publish(header);
        header.returns_top = header.returns.as_ptr().expose_provenance() as u64;
        header.fetch = set.code.address();
        Ctx {
            index: shared.index,
            space: core.space.clone(),
            secure: core.space.secure_side(),
            set,
            others: Vec::new(),
            found: Found::new(),
            written: core.written.clone(),
            core: core.clone(),
            counts: shared.counts.clone(),
            jumps: Vec::new(),
            current: 0,
            tick: 0,
            map_generation: 0,
            code_generation: 0,
            no_return,
            restart_alone: false,
            alone: false,
            uncached: false,
            flat_unknown: true,
        }
    }

    /// Lets reads by the flat index go to memory directly, as far as it goes, if the guest agrees.
    pub fn set_flat<G: Guest>(&mut self, cpu: &mut G) {
        if G::FLAT_INDEX.is_none() || !std::mem::take(&mut self.flat_unknown) || !cpu.flat_reads() {
            return;
        }
        if let Lookup::Ram { host, remaining, .. } = self.space.view().lookup(Gpa(0)) {
            cpu.header_mut().flat = [host as u64, remaining.saturating_sub(crate::x64::MAX_ACCESS as u64)];
        }
    }

    /// The address space that translations lead to.
    pub fn side(&self, secure: bool) -> &AddressSpace {
        match &self.secure {
            Some(side) if secure => side,
            _ => &self.space,
        }
    }

    pub fn code_write(&self, block: &RamBlock, offset: u64, len: u64) -> bool {
        self.core.code_write(block, offset, len)
    }

    /// Drops all translations if the memory map changed since this vCPU last looked.
    pub fn follow_memory_map(&mut self, header: &mut EnvHeader) {
        let now = self.core.map_generation.load(Ordering::SeqCst);
        if now != self.map_generation {
            self.map_generation = now;
            self.flush(header, TlbFlush::All);
        }
    }

    /// Empties the shadow return stack: another mode, other translations, other code.
    pub fn clear_returns(&self, header: &mut EnvHeader) {
        header.returns.fill([u64::MAX, self.no_return as u64]);
    }

    /// The code cache was emptied: forgets what leads to code, and the identities of pages.
    pub fn forget_code(&mut self, header: &mut EnvHeader) {
        self.clear_jumps();
        self.found.clear();
        self.clear_returns(header);
        self.set.code.clear();
        self.others.iter_mut().for_each(|s| s.code.clear());
    }

    fn clear_jumps(&mut self) {
        self.jumps.iter_mut().for_each(JumpCache::clear);
    }

    pub fn flush(&mut self, header: &mut EnvHeader, f: TlbFlush) {
        self.counts.flush();
        if let TlbFlush::Context { of, .. } = f
            && !std::iter::once(&self.set).chain(&self.others).any(|s| of.contains(s.context))
            && !self.jumps.iter().any(|j| j.context.is_some_and(|c| of.contains(c)))
        {
            return;
        }
        header.sites.fill(NO_SITE);
        self.clear_returns(header);
        match f {
            // The vCPU asks the guest; what comes here without is forgotten whole.
            TlbFlush::All | TlbFlush::Outdated => {
                header.flat = [0; 2];
                self.flat_unknown = true;
                self.flush(header, TlbFlush::Indexes(u16::MAX));
            }
            TlbFlush::Indexes(indexes) => {
                self.set.tlb.flush(indexes);
                self.set.tlb.publish(header);
                self.set.kept.clear();
                self.others.clear();
                self.set.code.clear();
                self.clear_jumps();
            }
            TlbFlush::Context { indexes, of } => {
                // A set keeps what is global: the guest's kernel, for the next process with this context.
                for s in std::iter::once(&mut self.set).chain(&mut self.others).filter(|s| of.contains(s.context)) {
                    s.tlb.flush_context(indexes);
                    s.kept.clear();
                    s.code.clear_but_globals();
                }
                self.set.tlb.publish(header);
                for j in &mut self.jumps {
                    if j.context.is_some_and(|c| of.contains(c)) {
                        j.clear();
                    }
                }
            }
            TlbFlush::Range { va, pages, indexes, of } => {
                self.set.kept.clear();
                self.set.tlb.flush_pages(va, pages, indexes, !of.contains(self.set.context));
                self.set.code.drop_pages(va, pages);
                for s in &mut self.others {
                    s.kept.clear();
                    s.tlb.flush_pages(va, pages, indexes, !of.contains(s.context));
                    s.code.drop_pages(va, pages);
                }
                for j in &mut self.jumps {
                    if j.context.is_none_or(|c| of.contains(c)) && j.touches(va, pages) {
                        j.clear();
                    }
                }
            }
        }
    }

    /// Makes the set of the guest's context current.
    pub fn select_set(&mut self, header: &mut EnvHeader, context: u64) {
        if self.set.context == context {
            return;
        }
        self.tick += 1;
        self.set.used = self.tick;
        let n = match self.others.iter().position(|s| s.context == context) {
            Some(n) => n,
            None if self.others.len() < OTHER_SETS => {
                self.others.push(Set::new(context));
                self.others.len() - 1
            }
            None => {
                let n = (0..self.others.len()).min_by_key(|&n| self.others[n].used).unwrap_or(0);
                self.others[n].clear();
                self.others[n].context = context;
                n
            }
        };
        std::mem::swap(&mut self.set, &mut self.others[n]);
        header.fetch = self.set.code.address();
        header.sites.fill(NO_SITE);
        self.clear_returns(header);
        self.set.tlb.publish(header);
    }

    /// Makes the jump cache of the guest's mode current.
    pub fn select_jumps(&mut self, header: &mut EnvHeader) {
        self.tick += 1;
        let (mode, context) = (header.mode, self.set.context);
        let n = match self.jumps.iter().position(|j| j.mode == mode && j.context.is_none_or(|c| c == context)) {
            Some(n) => n,
            None if self.jumps.len() < JUMP_CACHES => {
                self.jumps.push(JumpCache::new(mode, self.no_return));
                self.jumps.len() - 1
            }
            None => {
                let n = (0..self.jumps.len()).min_by_key(|&n| self.jumps[n].used).unwrap_or(0);
                self.jumps[n].clear();
                self.jumps[n].mode = mode;
                n
            }
        };
        self.current = n;
        self.jumps[n].used = self.tick;
        header.jump_cache = self.jumps[n].entries.as_mut_ptr() as u64;
    }

    pub fn probe(&self, pc: u64) -> Option<usize> {
        let e = self.jumps[self.current].entries[(pc >> 2) as usize & (JUMP_ENTRIES - 1)];
        (e.pc == pc && e.code != self.no_return).then_some(e.code)
    }

    /// Enters code into the jump cache; its page is in the fetch table.
    pub fn remember(&mut self, pc: u64, code: usize) {
        let j = &mut self.jumps[self.current];
        j.entries[(pc >> 2) as usize & (JUMP_ENTRIES - 1)] = Jump { pc, code };
        let (word, bit) = JumpCache::page_bit(pc);
        j.pages[word] |= bit;
        j.halves[half(pc)] = true;
        if !self.set.code.at(pc).global {
            j.context = Some(self.set.context);
        }
    }

    /// Stores to a host page take the slow path from now on.
    pub fn protect(&mut self, header: &mut EnvHeader, host: u64) {
        header.sites.fill(NO_SITE);
        self.set.tlb.protect_host_page(host);
        for s in &mut self.others {
            s.tlb.protect_host_page(host);
        }
    }

    /// Drops what leads to dead code.
    pub fn forget(&mut self, pc: u64, mode: u64) {
        self.found.forget(pc, mode);
        let j = &mut self.jumps[self.current];
        let e = &mut j.entries[(pc >> 2) as usize & (JUMP_ENTRIES - 1)];
        if e.pc == pc {
            *e = j.unused;
        }
    }

    /// The page of an instruction address is in [`Set::code`] afterwards; false if that is impossible: then `uncached` tells of a
    /// device's page, else the code cache must be emptied.
    pub fn fetch<G: Guest>(&mut self, cpu: &mut G, pc: u64) -> Result<bool, Raised> {
        let idx = G::fetch_index(cpu.header().mode);
        let tag = pc & !0xfff | idx as u64;
        if self.set.code.get(tag).is_some() {
            return Ok(true);
        }
        let t = cpu.walk(pc, Kind::Fetch, idx)?;
        let view = self.side(t.secure).view();
        let (block, offset, host) = match view.lookup(t.page) {
            Lookup::Ram { block, offset, host, remaining, .. } if remaining >= PAGE_SIZE && !block.is_device() => {
                (block, offset, host)
            }
            _ if G::OPEN_BUS => {
                self.uncached = true;
                return Ok(false);
            }
            _ => return Err(cpu.bus_fault(MemAccess { va: pc, size: 4, kind: Kind::Fetch, mmu_idx: idx })),
        };
        let page = (block.clone(), offset / PAGE_SIZE);
        let made = entry(&self.core.identities, tag, (t.code_attrs, t.global), host as u64, page);
        let known = made.is_some();
        if let Some(e) = made {
            self.set.code.put(e);
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_jumps_lead_to_a_look_up() {
        // Generated code compares a guest's target with the entry and jumps where it says.
        let mut j = JumpCache::new(0, 0x1000);
        assert!(j.entries.iter().all(|e| e.code == 0x1000));
        j.entries[5] = Jump { pc: 20, code: 0x2000 };
        j.halves[0] = true;
        j.clear();
        assert!(j.entries.iter().all(|e| e.code == 0x1000));
    }
}
