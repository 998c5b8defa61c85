//! VMSAv8-64 address translation (DDI 0487 D8).

mod at;
pub(crate) use at::AtOp;
mod fault;
mod geometry;
mod stage1;
mod stage2;
pub(crate) mod tlbi;

pub(crate) use fault::{Fault, FaultKind};

use crate::bits::{hcr, scr};
use crate::config::Feature;
use crate::mode::mmu as index;
use crate::reg::Reg;
use crate::state::ArmCpu;
use rhea_ir::guest::Access;
use rhea_memory::{Access as BusAccess, BusError, FlatRange, FlatTarget, FlatView, Gpa, RamBlock, Requester};
use std::cell::Cell;

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub pa: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    /// Memory attributes in the format of a MAIR_ELx field.
    pub attributes: u8,
    pub shareability: u8,
    pub guarded: bool,
    /// Not tagged with an ASID.
    pub global: bool,
    pub secure: bool,
    /// log2 of the size of the block or page, 64 for a flat mapping.
    pub size_log2: u32,
}

impl Mapping {
    pub fn device(&self) -> bool {
        self.attributes & 0xf0 == 0
    }
}

/// A translation regime with the privilege of the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Regime {
    /// The exception level whose registers control it: 1, 2 or 3.
    pub el: u32,
    pub two_ranges: bool,
    pub el0: bool,
    pub pan: bool,
    pub secure: bool,
}

impl Regime {
    pub fn of_index(idx: u32) -> Regime {
        let (el, two_ranges, el0, pan, secure) = match idx {
            index::E10_0 => (1, true, true, false, false),
            index::E10_1 => (1, true, false, false, false),
            index::E10_1_PAN => (1, true, false, true, false),
            index::E20_0 => (2, true, true, false, false),
            index::E20_2 => (2, true, false, false, false),
            index::E20_2_PAN => (2, true, false, true, false),
            index::E2 => (2, false, false, false, false),
            index::SE10_0 => (1, true, true, false, true),
            index::SE10_1 => (1, true, false, false, true),
            index::SE10_1_PAN => (1, true, false, true, true),
            _ => (3, false, false, false, true),
        };
        Regime { el, two_ranges, el0, pan, secure }
    }
}

pub(crate) fn is_el0_index(idx: u32) -> bool {
    Regime::of_index(idx).el0
}

/// What is asked of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub regime: Regime,
    /// `None`: any access, no permission check (debugger).
    pub access: Option<Access>,
    /// Apply stage 2 to the result where the regime has it. Accesses to stage 1 tables always go through it.
    pub stage2: bool,
    /// May set access flags and dirty state in descriptors.
    pub update: bool,
}

impl ArmCpu {
    pub(crate) fn translate_address(&self, va: u64, request: &Request) -> Result<Mapping, Fault> {
        Walker { cpu: self, view: &self.space.view(), request, hcr: self.hcr() }.walk(va)
    }
}

/// What walks of a processor keep from one to the next.
#[derive(Default)]
pub(crate) struct Walks {
    /// TCR and what it says, for each half of each regime.
    controls: [Cell<Option<(u64, stage1::Controls)>>; 6],
    /// Which range of the memory map the last descriptor was in.
    range: Cell<usize>,
}

/// One walk; borrows the processor's registers.
struct Walker<'a> {
    cpu: &'a ArmCpu,
    view: &'a FlatView,
    request: &'a Request,
    hcr: u64,
}

/// A descriptor in memory.
#[derive(Clone, Copy)]
struct Place {
    pa: u64,
    secure: bool,
    big_endian: bool,
}

impl Walker<'_> {
    fn walk(&self, va: u64) -> Result<Mapping, Fault> {
        let mut m = self.stage1(va)?;
        if self.request.stage2 && self.has_stage2() {
            self.combine(&mut m)?;
        }
        if m.execute && self.request.regime.secure && !m.secure && self.cpu.scr() & scr::SIF != 0 {
            m.execute = false;
            if self.request.access == Some(Access::Fetch) {
                return Err(Fault::stage1(FaultKind::Permission, 3));
            }
        }
        Ok(m)
    }
    fn has_stage2(&self) -> bool {
        let r = self.request.regime;
        let on = self.hcr & (hcr::VM | hcr::DC) != 0;
        on && r.el == 1 && !r.secure && self.cpu.has(Feature::El2)
    }
    fn has(&self, f: Feature) -> bool {
        self.cpu.has(f)
    }
    fn reg(&self, r: Reg) -> u64 {
        self.cpu.sys[r as usize]
    }

    fn bus(&self, secure: bool) -> BusAccess {
        let requester =
            if self.request.access.is_none() { Requester::Debugger } else { Requester::Cpu(self.cpu.index) };
        BusAccess { size: 8, requester, secure }
    }
    /// The RAM that holds the 8 bytes at `pa`, if they lie in one range.
    #[inline]
    fn ram(&self, pa: u64) -> Option<(&RamBlock, u64)> {
        let ranges = self.view.ranges();
        let holds =
            |r: &FlatRange| pa.wrapping_sub(r.range.start.0) < r.range.len && r.range.len - (pa - r.range.start.0) >= 8;
        // Tables mostly lie in the same range; the number is only a hint.
        let last = ranges.get(self.cpu.walks.range.get()).filter(|r| holds(r));
        let range = match last {
            Some(r) => r,
            None => {
                let n = ranges.partition_point(|r| r.range.start.0 <= pa).checked_sub(1)?;
                self.cpu.walks.range.set(n);
                ranges.get(n).filter(|r| holds(r))?
            }
        };
        match &range.target {
            FlatTarget::Ram(ram) => Some((&ram.block, ram.offset + (pa - range.range.start.0))),
            FlatTarget::Mmio(_) => None,
        }
    }
    fn read_descriptor(&self, place: Place) -> Result<u64, BusError> {
        let raw = match self.ram(place.pa) {
            Some((block, offset)) => block.load(offset, 8)?,
            None => self.view.load(Gpa(place.pa), self.bus(place.secure))?,
        };
        Ok(if place.big_endian { raw.swap_bytes() } else { raw })
    }
    /// Atomically replaces a descriptor; `Ok(false)`: it has changed meanwhile.
    fn replace_descriptor(&self, place: Place, old: u64, new: u64) -> Result<bool, BusError> {
        let (o, n) = if place.big_endian { (old.swap_bytes(), new.swap_bytes()) } else { (old, new) };
        Ok(self.cpu.space.compare_exchange(Gpa(place.pa), 8, o, n)? == o)
    }
}
