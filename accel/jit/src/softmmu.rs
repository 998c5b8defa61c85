//! Slow paths of guest memory accesses: walks, TLB fills, MMIO, misaligned and page-crossing accesses, stores to
//! translated code.
#![expect(unsafe_code, reason = "guest RAM is accessed through host addresses")]

use crate::context::Ctx;
use crate::report::Slow;
use crate::tlb::{GLOBAL, cas_host, read_host, write_host};
use rhea_ir::env::{PAGE_BITS, PAGE_SIZE, TlbEntry, tag};
use rhea_ir::guest::{Access as Kind, Guest, MemAccess, Raised, Translation};
use rhea_ir::types::{MemOp, RmwOp};
use rhea_memory::view::Lookup;
use rhea_memory::{Access, BusError, Gpa, RamBlock, Requester};
use std::sync::Arc;

/// Where one page's worth of an access goes.
enum Place {
    /// RAM that needs nothing but the access.
    Plain(u64),
    Ram {
        host: u64,
        block: Arc<RamBlock>,
        offset: u64,
    },
    /// MMIO, ROM writes, nothing.
    Bus(Gpa, bool),
}

impl Place {
    /// Where it can be read.
    fn host(&self) -> Option<u64> {
        match self {
            Self::Plain(host) | Self::Ram { host, .. } => Some(*host),
            Self::Bus(..) => None,
        }
    }
}

/// A translation kept for accesses that always take the slow path.
#[derive(Clone, Copy)]
struct Kept {
    page: u64,
    idx: u32,
    kind: Kind,
    translation: Translation,
}

/// The last translations of pages that are not plain RAM.
#[derive(Default)]
pub struct KeptTranslations([Option<Kept>; 16]);

impl KeptTranslations {
    fn slot(va: u64, kind: Kind) -> usize {
        ((va >> PAGE_BITS) as usize ^ (kind as usize) << 2) % 16
    }
    fn get(&self, va: u64, kind: Kind, idx: u32) -> Option<Translation> {
        let k = self.0[Self::slot(va, kind)].as_ref()?;
        (k.page == va & !(PAGE_SIZE - 1) && k.idx == idx && k.kind == kind).then_some(k.translation)
    }
    fn put(&mut self, va: u64, kind: Kind, idx: u32, translation: Translation) {
        self.0[Self::slot(va, kind)] = Some(Kept { page: va & !(PAGE_SIZE - 1), idx, kind, translation });
    }
    pub fn clear(&mut self) {
        self.0 = [None; 16];
    }
}

fn access_info(va: u64, size: u32, kind: Kind, mmu_idx: u32) -> MemAccess {
    MemAccess { va, size, kind, mmu_idx }
}

/// Bytes swapped to or from guest order.
fn order(v: u128, m: MemOp) -> u128 {
    if !m.is_big_endian() {
        return v;
    }
    match m.bytes() {
        1 => v,
        2 => (v as u16).swap_bytes() as u128,
        4 => (v as u32).swap_bytes() as u128,
        8 => (v as u64).swap_bytes() as u128,
        _ => v.swap_bytes(),
    }
}

impl Ctx {
    fn requester(&self) -> Requester {
        Requester::Cpu(self.index)
    }

    /// Enters the page into the TLB if it is RAM; true if accesses of this kind can then use it inline.
    fn fill<G: Guest>(&mut self, cpu: &mut G, va: u64, t: &Translation, kind: Kind, idx: u32) -> bool {
        let page = va & !(PAGE_SIZE - 1);
        let view = self.side(t.secure).view();
        let Lookup::Ram { block, offset, host, readonly, writes, remaining } = view.lookup(t.page) else {
            return false;
        };
        if remaining < PAGE_SIZE {
            return false;
        }
        self.set.tlb.grow_if_crowded(cpu.header_mut(), idx);
        let slow = if t.slow || t.device { tag::SLOW } else { 0 };
        let read = if t.readable { page | slow } else { u64::MAX };
        let mut write = u64::MAX;
        if t.writable && !readonly && writes.is_none() {
            write = page | slow;
            // Announce the writable mapping before asking whether the page holds code: see `JitVm::track_page`.
            self.written.set(host as u64);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if block.is_code_page(offset / PAGE_SIZE) {
                write |= tag::SLOW;
            } else if block.dirty_logging() {
                // A page that is only read is not taken for a dirty one.
                if kind == Kind::Read {
                    write |= tag::SLOW;
                } else {
                    block.open_page(offset / PAGE_SIZE);
                }
            }
        }
        let addend = (host as u64).wrapping_sub(page);
        self.set.tlb.insert(idx, page, TlbEntry { read, write, addend, flags: if t.global { GLOBAL } else { 0 } });
        page == if kind == Kind::Read { read } else { write }
    }

    /// The host address of plain RAM that the TLB knows.
    fn hit(&self, va: u64, kind: Kind, idx: u32) -> Option<u64> {
        let e = self.set.tlb.entry(idx, va);
        let t = if kind == Kind::Read { e.read } else { e.write };
        (t == va & !(PAGE_SIZE - 1)).then(|| va.wrapping_add(e.addend))
    }

    fn place<G: Guest>(&mut self, cpu: &mut G, va: u64, size: u32, kind: Kind, idx: u32) -> Result<Place, Raised> {
        if let Some(host) = self.hit(va, kind, idx) {
            self.counts.slow(Slow::Hit);
            return Ok(Place::Plain(host));
        }
        if self.set.tlb.revive(idx, va)
            && let Some(host) = self.hit(va, kind, idx)
        {
            self.counts.slow(Slow::Revived);
            self.set.tlb.grow_if_in_conflict(cpu.header_mut(), idx);
            return Ok(Place::Plain(host));
        }
        let t = match self.set.kept.get(va, kind, idx) {
            Some(t) => t,
            None => cpu.walk(va, kind, idx)?,
        };
        if !self.fill(cpu, va, &t, kind, idx) {
            self.set.kept.put(va, kind, idx, t);
        }
        if t.slow {
            cpu.check_access(access_info(va, size, kind, idx))?;
        }
        if t.device && va & (size.min(16) as u64 - 1) != 0 {
            return Err(cpu.alignment_fault(access_info(va, size, kind, idx)));
        }
        let gpa = Gpa(t.page.0 | (va & (PAGE_SIZE - 1)));
        let view = self.side(t.secure).view();
        Ok(match view.lookup(gpa) {
            Lookup::Ram { block, offset, host, readonly, writes, remaining }
                if (kind == Kind::Read || (!readonly && writes.is_none())) && remaining >= size as u64 =>
            {
                self.counts.slow(Slow::Walked);
                Place::Ram { host: host as u64, block: block.clone(), offset }
            }
            _ => {
                self.counts.slow(Slow::Device);
                Place::Bus(gpa, t.secure)
            }
        })
    }

    fn check_alignment<G: Guest>(&self, cpu: &mut G, va: u64, m: MemOp, kind: Kind) -> Result<(), Raised> {
        if va & ((1 << m.align_log2()) - 1) != 0 {
            return Err(cpu.alignment_fault(access_info(va, m.bytes(), kind, m.mmu_idx())));
        }
        Ok(())
    }

    pub fn load<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp) -> Result<u128, Raised> {
        if m.is_for_update() {
            self.probe_write(cpu, va, m)?;
        } else {
            self.check_alignment(cpu, va, m, Kind::Read)?;
        }
        let size = m.bytes();
        let first = PAGE_SIZE - (va & (PAGE_SIZE - 1));
        if size as u64 > first {
            // Both pages are checked before either is read.
            let next = (va | (PAGE_SIZE - 1)).wrapping_add(1);
            let (low, high) = (first as u32, size - first as u32);
            let here = self.place(cpu, va, low, Kind::Read, m.mmu_idx())?;
            let there = self.place(cpu, next, high, Kind::Read, m.mmu_idx())?;
            if let (Some(here), Some(there)) = (here.host(), there.host()) {
                // SAFETY: as in `load_piece`, of both.
                let (low_part, high_part) = unsafe { (read_host(here, low), read_host(there, high)) };
                return Ok(order(low_part | high_part << (low * 8), m));
            }
            let mut bytes = [0u8; 16];
            for (n, b) in bytes.iter_mut().enumerate().take(size as usize) {
                *b = self.load_piece(cpu, va.wrapping_add(n as u64), 1, m.mmu_idx())? as u8;
            }
            return Ok(order(u128::from_le_bytes(bytes), m));
        }
        let v = self.load_piece(cpu, va, size, m.mmu_idx())?;
        Ok(order(v, m))
    }

    fn load_piece<G: Guest>(&mut self, cpu: &mut G, va: u64, size: u32, idx: u32) -> Result<u128, Raised> {
        match self.place(cpu, va, size, Kind::Read, idx)? {
            // SAFETY: `host` is `size` bytes inside a block that the memory map (as of the last `follow_memory_map`) or
            // `place` keeps alive.
            Place::Plain(host) | Place::Ram { host, .. } => Ok(unsafe { read_host(host, size) }),
            Place::Bus(gpa, secure) => {
                let r = self.bus_read(gpa, size, secure);
                self.after_device(cpu);
                if G::OPEN_BUS && r.is_err() {
                    return Ok(u128::MAX >> (128 - size.clamp(1, 16) * 8));
                }
                r.map_err(|_| cpu.bus_fault(access_info(va, size, Kind::Read, idx)))
            }
        }
    }

    fn bus_read(&self, gpa: Gpa, size: u32, secure: bool) -> Result<u128, BusError> {
        let one = |g: Gpa, n: u32| {
            self.space.load(g, Access { size: n as u8, requester: self.requester(), secure }).map(u128::from)
        };
        if size <= 8 {
            return one(gpa, size);
        }
        Ok(one(gpa, 8)? | one(Gpa(gpa.0.wrapping_add(8)), 8)? << 64)
    }

    fn bus_write(&self, gpa: Gpa, size: u32, secure: bool, v: u128) -> Result<(), BusError> {
        let one = |g: Gpa, n: u32, v: u64| {
            self.space.store(g, v, Access { size: n as u8, requester: self.requester(), secure })
        };
        if size <= 8 {
            return one(gpa, size, v as u64);
        }
        one(gpa, 8, v as u64)?;
        one(Gpa(gpa.0.wrapping_add(8)), 8, (v >> 64) as u64)
    }

    /// A device may have changed the memory map under this vCPU.
    fn after_device<G: Guest>(&mut self, cpu: &mut G) {
        self.follow_memory_map(cpu.header_mut());
    }

    pub fn store<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp, value: u128) -> Result<(), Raised> {
        self.check_alignment(cpu, va, m, Kind::Write)?;
        let size = m.bytes();
        let value = order(value, m);
        let first = PAGE_SIZE - (va & (PAGE_SIZE - 1));
        if size as u64 > first {
            let next = (va | (PAGE_SIZE - 1)).wrapping_add(1);
            let (low, high) = (first as u32, size - first as u32);
            let here = self.place(cpu, va, low, Kind::Write, m.mmu_idx())?;
            let there = self.place(cpu, next, high, Kind::Write, m.mmu_idx())?;
            if let (Place::Plain(here), Place::Plain(there)) = (here, there) {
                // SAFETY: as in `load_piece`, of both.
                unsafe {
                    write_host(here, low, value);
                    write_host(there, high, value >> (low * 8));
                }
            } else {
                for (n, b) in value.to_le_bytes().iter().enumerate().take(size as usize) {
                    self.store_piece(cpu, va.wrapping_add(n as u64), 1, m.mmu_idx(), *b as u128)?;
                }
            }
        } else {
            self.store_piece(cpu, va, size, m.mmu_idx(), value)?;
        }
        if m.is_release() {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    }

    fn store_piece<G: Guest>(&mut self, cpu: &mut G, va: u64, size: u32, idx: u32, value: u128) -> Result<(), Raised> {
        match self.place(cpu, va, size, Kind::Write, idx)? {
            Place::Plain(host) => {
                // SAFETY: as in `load_piece`.
                unsafe { write_host(host, size, value) };
                Ok(())
            }
            Place::Ram { host, block, offset } => {
                // A store of what is there already is over when it has been compared: writing would only lose translations.
                // SAFETY: as in `load_piece`.
                let same = || unsafe { read_host(host, size) } == value & u128::MAX >> (128 - size.clamp(1, 16) * 8);
                if block.is_code_page(offset / PAGE_SIZE) && same() {
                    return Ok(());
                }
                self.before_code_write(cpu, &block, offset, size)?;
                // SAFETY: as in `load_piece`.
                unsafe { write_host(host, size, value) };
                block.note_write(offset, size as u64);
                Ok(())
            }
            Place::Bus(gpa, secure) => {
                let r = self.bus_write(gpa, size, secure, value);
                self.after_device(cpu);
                if G::OPEN_BUS {
                    return Ok(());
                }
                r.map_err(|_| cpu.bus_fault(access_info(va, size, Kind::Write, idx)))
            }
        }
    }

    /// A store about to change translated code kills the translation and starts the instruction again, alone in a block
    /// of its own, so that nothing stale runs after it.
    fn before_code_write<G: Guest>(
        &mut self,
        cpu: &mut G,
        block: &Arc<RamBlock>,
        offset: u64,
        size: u32,
    ) -> Result<(), Raised> {
        if !block.is_code_page(offset / PAGE_SIZE) {
            return Ok(());
        }
        let hit = self.code_write(block, offset, size as u64);
        if hit && !self.alone {
            self.restart_alone = true;
            cpu.header_mut().raised = 1;
            return Err(Raised);
        }
        Ok(())
    }

    /// Where an aligned atomic on RAM goes, or the fault; `None` if it is misaligned.
    fn atomic_place<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp) -> Result<Option<Place>, Raised> {
        self.check_alignment(cpu, va, m, Kind::Write)?;
        let (size, idx) = (m.bytes(), m.mmu_idx());
        // Reported as a write; needs read permission too.
        let place = self.place(cpu, va, size, Kind::Write, idx)?;
        let readable = self.set.tlb.entry(idx, va).read & !tag::SLOW == va & !(PAGE_SIZE - 1);
        if !readable {
            self.place(cpu, va, size, Kind::Read, idx)?;
        }
        if matches!(place, Place::Bus(..)) {
            if G::OPEN_BUS {
                return Ok(None);
            }
            return Err(cpu.bus_fault(access_info(va, size, Kind::Write, idx)));
        }
        if va & (size as u64 - 1) != 0 {
            return Ok(None);
        }
        if let Place::Ram { block, offset, .. } = &place {
            self.before_code_write(cpu, block, *offset, size)?;
        }
        Ok(Some(place))
    }

    pub fn cas<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        let size = m.bytes();
        let mask = if size >= 16 { u128::MAX } else { (1 << (size * 8)) - 1 };
        let (expected, new) = (order(expected & mask, m), order(new & mask, m));
        match self.atomic_place(cpu, va, m)? {
            Some(Place::Plain(host)) => {
                // SAFETY: RAM as in `load_piece`, aligned to `size` (`atomic_place`).
                Ok(order(unsafe { cas_host(host, size, expected, new) }, m))
            }
            Some(Place::Ram { host, block, offset }) => {
                // SAFETY: as above.
                let old = unsafe { cas_host(host, size, expected, new) };
                if old == expected {
                    block.note_write(offset, size as u64);
                }
                Ok(order(old, m))
            }
            _ => {
                // Misaligned but permitted: single-copy atomicity is not promised by the architecture here.
                let plain = MemOp(m.0 & !0xe0);
                let old = self.load(cpu, va, plain)?;
                if order(old, m) == expected {
                    self.store(cpu, va, plain, order(new, m))?;
                }
                Ok(old)
            }
        }
    }

    pub fn rmw<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp, value: u128) -> Result<u128, Raised> {
        let bits = m.bytes() * 8;
        if G::RMW_FAULTS_AS_WRITE {
            self.probe_write(cpu, va, m)?;
        }
        let mut old = self.load(cpu, va, MemOp(m.0 & !8))?;
        loop {
            let new = rmw_value(m.rmw_op(), old as u64, value as u64, bits);
            let seen = self.cas(cpu, va, m, old, new as u128)?;
            if seen == old {
                return Ok(old);
            }
            old = seen;
        }
    }

    /// The host address of plain RAM at `va`, if accesses of this kind need nothing else.
    pub fn touch<G: Guest>(&mut self, cpu: &mut G, va: u64, kind: Kind, idx: u32) -> Result<Option<u64>, Raised> {
        Ok(match self.place(cpu, va, 1, kind, idx)? {
            Place::Plain(host) => Some(host),
            // A page just entered into the TLB; one that is not there has its reasons.
            Place::Ram { .. } => self.hit(va, kind, idx),
            Place::Bus(..) => None,
        })
    }

    pub fn probe_write<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp) -> Result<(), Raised> {
        self.check_alignment(cpu, va, m, Kind::Write)?;
        let size = m.bytes();
        let first = (PAGE_SIZE - (va & (PAGE_SIZE - 1))) as u32;
        self.place(cpu, va, size.min(first), Kind::Write, m.mmu_idx())?;
        if size > first {
            self.place(cpu, va.wrapping_add(first as u64), size - first, Kind::Write, m.mmu_idx())?;
        }
        Ok(())
    }
}

/// The new value of a read-modify-write.
pub fn rmw_value(op: RmwOp, old: u64, v: u64, bits: u32) -> u64 {
    let (so, sv) = (rhea_ir::eval::sext(old, bits), rhea_ir::eval::sext(v, bits));
    let low = |x: u64| if bits >= 64 { x } else { x & ((1 << bits) - 1) };
    let (uo, uv) = (low(old), low(v));
    low(match op {
        RmwOp::Add => uo.wrapping_add(uv),
        RmwOp::And => uo & uv,
        RmwOp::Clr => uo & !uv,
        RmwOp::Xor => uo ^ uv,
        RmwOp::Or => uo | uv,
        RmwOp::Xchg => uv,
        RmwOp::SMax => so.max(sv) as u64,
        RmwOp::SMin => so.min(sv) as u64,
        RmwOp::UMax => uo.max(uv),
        RmwOp::UMin => uo.min(uv),
    })
}
