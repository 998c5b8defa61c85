//! Physical memory as page walks and the processor's tables see it.

use crate::state::X86Cpu;
use rhea_memory::{Access, FlatRange, FlatTarget, FlatView, Gpa, RamBlock, Requester};

/// The RAM that holds `size` bytes at `pa`, if they lie in one range. `hint`: the range found last.
#[inline]
fn ram<'v>(view: &'v FlatView, hint: &mut usize, pa: u64, size: u64) -> Option<(&'v RamBlock, u64, bool)> {
    let ranges = view.ranges();
    let holds =
        |r: &FlatRange| pa.wrapping_sub(r.range.start.0) < r.range.len && r.range.len - (pa - r.range.start.0) >= size;
    let range = match ranges.get(*hint).filter(|r| holds(r)) {
        Some(r) => r,
        None => {
            let n = ranges.partition_point(|r| r.range.start.0 <= pa).checked_sub(1)?;
            *hint = n;
            ranges.get(n).filter(|r| holds(r))?
        }
    };
    match &range.target {
        FlatTarget::Ram(ram) => {
            let writable = !ram.readonly && ram.writes.is_none();
            Some((&ram.block, ram.offset + (pa - range.range.start.0), writable))
        }
        FlatTarget::Mmio(_) => None,
    }
}

impl X86Cpu {
    fn bus(&self, size: u8) -> Access {
        Access { size, requester: Requester::Cpu(self.index), secure: self.smm }
    }
    /// Reads physical memory; what nobody answers reads as ones.
    pub(crate) fn read_physical(&mut self, pa: u64, size: u8) -> u64 {
        let ones = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        if self.smm {
            return self.space.load(Gpa(pa), self.bus(size)).unwrap_or(ones);
        }
        let view = self.space.view();
        match ram(&view, &mut self.walks.range, pa, size.into()) {
            Some((block, offset, _)) => block.load(offset, size).unwrap_or(ones),
            None => view.load(Gpa(pa), self.bus(size)).unwrap_or(ones),
        }
    }
    /// Writes physical memory; what nobody answers is dropped.
    pub(crate) fn write_physical(&mut self, pa: u64, size: u8, value: u64) {
        if !self.smm {
            let view = self.space.view();
            if let Some((block, offset, true)) = ram(&view, &mut self.walks.range, pa, size.into()) {
                let _ = block.store(offset, size, value);
                return;
            }
        }
        // A write that no one takes is lost on the bus of a PC.
        let _ = self.space.store(Gpa(pa), value, self.bus(size));
    }
    /// A paging-structure entry.
    #[inline]
    pub(super) fn read_entry(&mut self, pa: u64, size: u8) -> u64 {
        let pa = pa & self.a20_mask;
        self.read_physical(pa, size)
    }
    /// Atomically replaces an entry and returns what was there: `old` if it was replaced. In memory that cannot change
    /// nothing is.
    pub(super) fn replace_entry(&mut self, pa: u64, size: u8, old: u64, new: u64) -> u64 {
        let pa = pa & self.a20_mask;
        let view = if self.smm { None } else { Some(self.space.view()) };
        if let Some(view) = &view {
            return match ram(view, &mut self.walks.range, pa, size.into()) {
                Some((block, offset, true)) => block.compare_exchange(offset, size, old, new).unwrap_or(old),
                _ => old,
            };
        }
        let space = self.space.secure_side().unwrap_or_else(|| self.space.clone());
        space.compare_exchange(Gpa(pa), size, old, new).unwrap_or(old)
    }
}
