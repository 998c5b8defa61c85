//! Tables in real storage, which are big-endian.

use crate::state::PpcCpu;
use rhea_memory::{FlatRange, FlatTarget, FlatView, RamBlock};

/// The RAM that holds the doubleword at `pa`. `hint`: the range found last.
#[inline]
fn ram<'v>(view: &'v FlatView, hint: &mut usize, pa: u64) -> Option<(&'v RamBlock, u64, bool)> {
    let ranges = view.ranges();
    let holds = |r: &FlatRange| {
        pa.wrapping_sub(r.range.start.0) < r.range.len && r.range.len - pa.wrapping_sub(r.range.start.0) >= 8
    };
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

impl PpcCpu {
    /// A doubleword of a table; `None` where there is no memory. Devices are not read.
    #[inline]
    pub(crate) fn read_table(&mut self, pa: u64) -> Option<u64> {
        let view = self.space.view();
        let (block, offset, _) = ram(&view, &mut self.sys.range_hint, pa & !7)?;
        Some(block.load(offset, 8).ok()?.swap_bytes())
    }
    /// How many of these doublewords of tables, addresses and values, read like that before one does not.
    pub(super) fn table_still_reads(&mut self, entries: impl Iterator<Item = (u64, u64)>) -> usize {
        let view = self.space.view();
        let hint = &mut self.sys.range_hint;
        entries
            .take_while(|&(at, value)| {
                let found = ram(&view, hint, at & !7).and_then(|(block, offset, _)| block.load(offset, 8).ok());
                found.map(u64::swap_bytes) == Some(value)
            })
            .count()
    }
    /// Replaces a doubleword of a table if it is still `old`; true if it was.
    pub(super) fn replace_table(&mut self, pa: u64, old: u64, new: u64) -> bool {
        let view = self.space.view();
        match ram(&view, &mut self.sys.range_hint, pa & !7) {
            Some((block, offset, true)) => {
                block.compare_exchange(offset, 8, old.swap_bytes(), new.swap_bytes()) == Ok(old.swap_bytes())
            }
            _ => false,
        }
    }
}
