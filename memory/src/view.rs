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
        /// Writes go here instead (ROM device).
        writes: Option<&'a MmioTarget>,
        remaining: u64,
    },
    Mmio {
        device: &'a Arc<dyn MmioDevice>,
        /// Offset of the address in the device's region.
        offset: u64,
        rules: AccessRules,
        remaining: u64,
    },
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
        let _ = gpa;
        unimplemented!()
    }
}
