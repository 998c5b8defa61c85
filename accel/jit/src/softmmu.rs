//! Slow paths of guest memory accesses: walks, TLB fills, MMIO, misaligned and page-crossing accesses, stores to
//! translated code.
#![expect(unsafe_code, reason = "guest RAM is accessed through host addresses")]

use crate::tlb::{cas_host, read_host, write_host};
use crate::vcpu::Ctx;
use rhea_ir::env::{PAGE_SIZE, TlbEntry, tag};
use rhea_ir::guest::{Access as Kind, Guest, MemAccess, Raised, Translation};
use rhea_ir::types::{MemOp, RmwOp};
use rhea_memory::view::Lookup;
use rhea_memory::{Access, BusError, Gpa, RamBlock, Requester};
use std::sync::Arc;

/// Where one page's worth of an access goes.
enum Place {
    Ram { host: u64, block: Arc<RamBlock>, offset: u64 },
    /// MMIO, ROM writes, nothing.
    Bus(Gpa, bool),
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

    /// Translates and enters the page into the TLB if it is plain RAM.
    fn translate<G: Guest>(&mut self, cpu: &mut G, va: u64, kind: Kind, idx: u32) -> Result<Translation, Raised> {
        let t = cpu.walk(va, kind, idx)?;
        self.fill(cpu, va, &t, idx);
        Ok(t)
    }

    fn fill<G: Guest>(&mut self, cpu: &mut G, va: u64, t: &Translation, idx: u32) {
        let page = va & !(PAGE_SIZE - 1);
        let view = self.space.view();
        let Lookup::Ram { block, offset, host, readonly, writes, remaining } = view.lookup(t.page) else { return };
        if remaining < PAGE_SIZE {
            return;
        }
        self.tlb.grow_if_crowded(cpu.header_mut(), idx);
        let slow = if t.slow || t.device { tag::SLOW } else { 0 };
        let read = if t.readable { page | slow } else { u64::MAX };
        let mut write = u64::MAX;
        if t.writable && !readonly && writes.is_none() {
            write = page | slow;
            // Announce the writable mapping before asking whether the page holds code: see `JitVm::track_page`.
            self.written.set(host as u64);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if block.is_code_page(offset / PAGE_SIZE) || block.dirty_logging() {
                write |= tag::SLOW;
            }
        }
        let addend = (host as u64).wrapping_sub(page);
        self.tlb.insert(idx, page, TlbEntry { read, write, addend, full: t.page.0 });
    }

    fn place<G: Guest>(&mut self, cpu: &mut G, va: u64, size: u32, kind: Kind, idx: u32) -> Result<(Place, Translation), Raised> {
        let t = self.translate(cpu, va, kind, idx)?;
        if t.slow {
            cpu.check_access(access_info(va, size, kind, idx))?;
        }
        let gpa = Gpa(t.page.0 | (va & (PAGE_SIZE - 1)));
        let view = self.space.view();
        let place = match view.lookup(gpa) {
            Lookup::Ram { block, offset, host, readonly, writes, remaining }
                if (kind == Kind::Read || (!readonly && writes.is_none())) && remaining >= size as u64 =>
            {
                Place::Ram { host: host as u64, block: block.clone(), offset }
            }
            _ => Place::Bus(gpa, t.secure),
        };
        Ok((place, t))
    }

    fn check_alignment<G: Guest>(&self, cpu: &mut G, va: u64, m: MemOp, kind: Kind) -> Result<(), Raised> {
        if va & ((1 << m.align_log2()) - 1) != 0 {
            return Err(cpu.alignment_fault(access_info(va, m.bytes(), kind, m.mmu_idx())));
        }
        Ok(())
    }

    pub fn load<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp) -> Result<u128, Raised> {
        self.check_alignment(cpu, va, m, Kind::Read)?;
        let size = m.bytes();
        let first = PAGE_SIZE - (va & (PAGE_SIZE - 1));
        if size as u64 > first {
            // Both pages are checked before either is read.
            let next = (va | (PAGE_SIZE - 1)).wrapping_add(1);
            self.place(cpu, va, first as u32, Kind::Read, m.mmu_idx())?;
            self.place(cpu, next, size - first as u32, Kind::Read, m.mmu_idx())?;
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
        let (place, t) = self.place(cpu, va, size, Kind::Read, idx)?;
        if t.device && va & (size.min(16) as u64 - 1) != 0 {
            return Err(cpu.alignment_fault(access_info(va, size, Kind::Read, idx)));
        }
        match place {
            // SAFETY: `host` is `size` bytes inside the block, which `place` keeps alive.
            Place::Ram { host, .. } => Ok(unsafe { read_host(host, size) }),
            Place::Bus(gpa, secure) => {
                let r = self.bus_read(gpa, size, secure);
                self.after_device(cpu);
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
        let one = |g: Gpa, n: u32, v: u64| self.space.store(g, v, Access { size: n as u8, requester: self.requester(), secure });
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
            self.place(cpu, va, first as u32, Kind::Write, m.mmu_idx())?;
            self.place(cpu, next, size - first as u32, Kind::Write, m.mmu_idx())?;
            for (n, b) in value.to_le_bytes().iter().enumerate().take(size as usize) {
                self.store_piece(cpu, va.wrapping_add(n as u64), 1, m.mmu_idx(), *b as u128)?;
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
        let (place, t) = self.place(cpu, va, size, Kind::Write, idx)?;
        if t.device && va & (size.min(16) as u64 - 1) != 0 {
            return Err(cpu.alignment_fault(access_info(va, size, Kind::Write, idx)));
        }
        match place {
            Place::Ram { host, block, offset } => {
                self.before_code_write(cpu, &block, offset, size)?;
                // SAFETY: as in `load_piece`.
                unsafe { write_host(host, size, value) };
                block.note_write(offset, size as u64);
                Ok(())
            }
            Place::Bus(gpa, secure) => {
                let r = self.bus_write(gpa, size, secure, value);
                self.after_device(cpu);
                r.map_err(|_| cpu.bus_fault(access_info(va, size, Kind::Write, idx)))
            }
        }
    }

    /// A store about to change translated code kills the translation and starts the instruction again, alone in a block
    /// of its own, so that nothing stale runs after it.
    fn before_code_write<G: Guest>(&mut self, cpu: &mut G, block: &Arc<RamBlock>, offset: u64, size: u32) -> Result<(), Raised> {
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

    /// The host address of an aligned atomic on RAM, or the fault.
    fn atomic_place<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp) -> Result<Option<(u64, Arc<RamBlock>, u64)>, Raised> {
        self.check_alignment(cpu, va, m, Kind::Write)?;
        let size = m.bytes();
        // Reported as a write; needs read permission too.
        let (place, t) = self.place(cpu, va, size, Kind::Write, m.mmu_idx())?;
        if !t.readable {
            self.place(cpu, va, size, Kind::Read, m.mmu_idx())?;
        }
        match place {
            Place::Ram { host, block, offset } if va & (size as u64 - 1) == 0 => {
                self.before_code_write(cpu, &block, offset, size)?;
                Ok(Some((host, block, offset)))
            }
            Place::Ram { .. } => Ok(None),
            Place::Bus(..) => Err(cpu.bus_fault(access_info(va, size, Kind::Write, m.mmu_idx()))),
        }
    }

    pub fn cas<G: Guest>(&mut self, cpu: &mut G, va: u64, m: MemOp, expected: u128, new: u128) -> Result<u128, Raised> {
        let size = m.bytes();
        let mask = if size >= 16 { u128::MAX } else { (1 << (size * 8)) - 1 };
        let (expected, new) = (order(expected & mask, m), order(new & mask, m));
        match self.atomic_place(cpu, va, m)? {
            Some((host, block, offset)) => {
                // SAFETY: RAM of a live block, aligned to `size` (checked in `atomic_place`).
                let old = unsafe { cas_host(host, size, expected, new) };
                if old == expected {
                    block.note_write(offset, size as u64);
                }
                Ok(order(old, m))
            }
            None => {
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
