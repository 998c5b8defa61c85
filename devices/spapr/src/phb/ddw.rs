//! DMA windows that the guest makes (LoPAPR 7.3.35).

use super::{DMA_SIZE, DMA64_BASE, Phb, Reply};
use crate::papr::rtas;
use rhea_device::dma::DmaWindow;

/// Where a window beyond 32 bits is that cannot be at [`DMA64_BASE`]: powers of two.
const DMA64_BITS: std::ops::Range<u32> = 32..48;
/// Windows of a bridge.
const MOST: usize = 2;
/// Entries of a window at most, so that a guest cannot fill the host's memory with tables.
const MAX_ENTRIES: u64 = 1 << 22;

/// The bit of a page size in a mask.
fn page_bit(shift: u32) -> u32 {
    match shift {
        12 => 0x01,
        16 => 0x02,
        24 => 0x04,
        25 => 0x08,
        26 => 0x10,
        27 => 0x20,
        28 => 0x40,
        34 => 0x80,
        21 => 0x100,
        _ => 0,
    }
}

impl Phb {
    pub(super) fn owns_window(&self, liobn: u32) -> bool {
        self.windows.windows().iter().any(|w| w.liobn() == liobn)
    }
    pub(super) fn query_window(&self) -> Reply {
        if !self.ddw {
            return None;
        }
        let free = MOST.saturating_sub(self.windows.windows().len()) as u32;
        let mask = self.page_shifts.iter().fold(0, |m, s| m | page_bit(*s));
        let most = u32::try_from(self.memory_end.next_power_of_two() >> 12).unwrap_or(u32::MAX);
        // The last one: pages that can migrate.
        Some((rtas::SUCCESS, vec![free, most, mask, 0]))
    }
    pub(super) fn create_window(&self, page_shift: u32, window_shift: u32) -> Reply {
        if !self.ddw || !self.page_shifts.contains(&page_shift) || window_shift < page_shift || window_shift > 62 {
            return None;
        }
        let entries = 1u64 << (window_shift - page_shift);
        let _one = self.changing.lock();
        let mut list = self.windows.windows().to_vec();
        let used = |n: u32| list.iter().any(|w| w.liobn() == self.liobn(n));
        let number = (0..MOST as u32).find(|n| !used(*n));
        let (Some(number), true) = (number, list.len() < MOST && entries <= MAX_ENTRIES) else {
            return Some((rtas::HARDWARE_ERROR, Vec::new()));
        };
        // The first one is where it is after reset, the others beyond 32 bits.
        let low = list.is_empty() && 1u64 << window_shift <= DMA_SIZE.max(self.memory_end.next_power_of_two());
        let len = 1u64 << window_shift;
        let free = |base: u64| {
            list.iter().all(|w| w.base() >= base + len || base >= w.base() + w.size())
                && self.windows.reaches(DmaWindow { base, len, page_shift })
        };
        let taken = list.iter().any(|w| w.base() == DMA64_BASE);
        let base = if low || taken {
            Some(0).filter(|base| free(*base))
        } else {
            // Lower where the host's IOMMU, behind which an assigned device is, has not so many bits.
            [DMA64_BASE].into_iter().chain(DMA64_BITS.rev().map(|n| 1 << n)).find(|base| base % len == 0 && free(*base))
        };
        let Some(base) = base else { return Some((rtas::HARDWARE_ERROR, Vec::new())) };
        list.push(self.tces.make(self.liobn(number), base, page_shift, entries));
        self.windows.set(list);
        Some((rtas::SUCCESS, vec![self.liobn(number), (base >> 32) as u32, base as u32]))
    }
    pub(super) fn remove_window(&self, liobn: u32) -> Reply {
        let _one = self.changing.lock();
        let mut list = self.windows.windows().to_vec();
        let before = list.len();
        list.retain(|w| w.liobn() != liobn);
        if !self.ddw || list.len() == before {
            return None;
        }
        self.tces.remove(liobn);
        self.windows.set(list);
        Some((rtas::SUCCESS, Vec::new()))
    }
    pub(super) fn reset_windows(&self) -> Reply {
        if !self.ddw {
            return None;
        }
        self.default_window();
        Some((rtas::SUCCESS, Vec::new()))
    }
}
