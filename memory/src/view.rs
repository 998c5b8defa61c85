//! The flat view: sorted, non-overlapping ranges, found by binary search.

use crate::mmio::{AccessRules, MmioDevice};
use crate::ram::RamBlock;
use crate::{Gpa, GpaRange};
use std::sync::Arc;

/// RAM behind an address.
#[derive(Clone)]
pub struct RamTarget {
    pub block: Arc<RamBlock>,
    /// Offset in the block of the range's first byte (in a [`FlatRange`]) or of the address (in a [`Lookup`]).
    pub offset: u64,
    /// Writes are refused (ROM), or go to the device (ROM device in read mode: `writes`).
    pub readonly: bool,
    /// For a ROM device: who takes the writes, offset relative to the region.
    pub writes: Option<MmioTarget>,
}

/// A device behind an address.
#[derive(Clone)]
pub struct MmioTarget {
    pub device: Arc<dyn MmioDevice>,
    /// Offset in the device's region of the range's first byte, or of the address.
    pub offset: u64,
    pub rules: AccessRules,
}

/// What a range maps to.
#[derive(Clone)]
pub enum FlatTarget {
    Ram(RamTarget),
    Mmio(MmioTarget),
}

/// One range of the view.
#[derive(Clone)]
pub struct FlatRange {
    pub range: GpaRange,
    pub target: FlatTarget,
}

/// What an address maps to; `remaining` is the number of bytes from the address to the end of the range (at least 1).
pub enum Lookup<'a> {
    Ram {
        block: &'a Arc<RamBlock>,
        /// Offset of the address in the block.
        offset: u64,
        /// Host pointer of the address; valid while the block lives.
        host: *mut u8,
        readonly: bool,
        /// Writes go here instead (ROM device): the device and the offset of the address in its region.
        writes: Option<(&'a MmioTarget, u64)>,
        remaining: u64,
    },
    Mmio {
        device: &'a Arc<dyn MmioDevice>,
        /// Offset of the address in the device's region.
        offset: u64,
        rules: AccessRules,
        remaining: u64,
    },
    /// Memory that is guest code's alone ([`crate::AddressSpace::set_private`]).
    Private,
    Unassigned,
}

/// An immutable picture of an address space.
#[derive(Default)]
pub struct FlatView {
    pub(crate) ranges: Vec<FlatRange>,
    pub(crate) generation: u64,
}

impl FlatView {
    /// The ranges in rising order.
    #[must_use]
    pub fn ranges(&self) -> &[FlatRange] {
        &self.ranges
    }
    /// Rises with each change of the address space.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// What `gpa` maps to.
    #[must_use]
    pub fn lookup(&self, gpa: Gpa) -> Lookup<'_> {
        let Some(i) = self.ranges.partition_point(|r| r.range.start <= gpa).checked_sub(1) else {
            return Lookup::Unassigned;
        };
        let flat = &self.ranges[i];
        let at = gpa.0 - flat.range.start.0;
        if at >= flat.range.len {
            return Lookup::Unassigned;
        }
        let remaining = flat.range.len - at;
        match &flat.target {
            FlatTarget::Ram(ram) => match ram.block.reachable(ram.offset + at, remaining) {
                0 => Lookup::Private,
                remaining => Lookup::Ram {
                    block: &ram.block,
                    offset: ram.offset + at,
                    host: ram.block.host_ptr().wrapping_add((ram.offset + at) as usize),
                    readonly: ram.readonly,
                    writes: ram.writes.as_ref().map(|m| (m, m.offset + at)),
                    remaining,
                },
            },
            FlatTarget::Mmio(mmio) => {
                Lookup::Mmio { device: &mmio.device, offset: mmio.offset + at, rules: mmio.rules, remaining }
            }
        }
    }

    /// The ranges that differ between two views, each with what it was and what it is.
    pub(crate) fn changes<'a>(&'a self, new: &'a FlatView) -> Vec<(GpaRange, Option<FlatTarget>, Option<FlatTarget>)> {
        // Cut both views at all edges of both; within a piece each maps to one thing.
        let mut edges: Vec<u64> = Vec::new();
        for r in self.ranges.iter().chain(&new.ranges) {
            edges.push(r.range.start.0);
            edges.extend(r.range.last().checked_add(1));
        }
        edges.sort_unstable();
        edges.dedup();
        let mut changed = Vec::new();
        for (i, &start) in edges.iter().enumerate() {
            let len = edges.get(i + 1).map_or_else(|| 0u64.wrapping_sub(start), |end| end - start);
            let (was, is) = (self.target_at(Gpa(start)), new.target_at(Gpa(start)));
            if !same(was.as_ref(), is.as_ref()) {
                changed.push((GpaRange { start: Gpa(start), len }, was, is));
            }
        }
        changed
    }

    /// What `gpa` maps to, with offsets of that address.
    fn target_at(&self, gpa: Gpa) -> Option<FlatTarget> {
        let flat = &self.ranges[self.ranges.partition_point(|r| r.range.start <= gpa).checked_sub(1)?];
        let at = gpa.0 - flat.range.start.0;
        (at < flat.range.len).then(|| flat.target.advance(at))
    }
}

impl FlatTarget {
    /// The target `by` bytes further into the range.
    pub(crate) fn advance(&self, by: u64) -> Self {
        let further = |m: &MmioTarget| MmioTarget { offset: m.offset + by, ..m.clone() };
        match self {
            Self::Ram(r) => {
                Self::Ram(RamTarget { offset: r.offset + by, writes: r.writes.as_ref().map(further), ..r.clone() })
            }
            Self::Mmio(m) => Self::Mmio(further(m)),
        }
    }
}

fn same_mmio(a: &MmioTarget, b: &MmioTarget) -> bool {
    Arc::ptr_eq(&a.device, &b.device) && a.offset == b.offset
}

fn same(a: Option<&FlatTarget>, b: Option<&FlatTarget>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(FlatTarget::Mmio(a)), Some(FlatTarget::Mmio(b))) => same_mmio(a, b),
        (Some(FlatTarget::Ram(a)), Some(FlatTarget::Ram(b))) => {
            same_ram(a, b)
                && a.readonly == b.readonly
                && match (&a.writes, &b.writes) {
                    (None, None) => true,
                    (Some(a), Some(b)) => same_mmio(a, b),
                    _ => false,
                }
        }
        _ => false,
    }
}

/// The same bytes of memory, whatever the protection.
pub(crate) fn same_ram(a: &RamTarget, b: &RamTarget) -> bool {
    Arc::ptr_eq(&a.block, &b.block) && a.offset == b.offset
}
