//! Hashed page tables (Book III, 6.7.8 and 6.7.9), with entries in the format of version 2.07, which hypervisor calls use.

use super::{Fault, Mapping, TRIES};
use crate::bits::dsisr;
use crate::hooks::Pte;
use crate::mmu::slb::vsid;
use crate::state::PpcCpu;
use crate::system::Rights;
use rhea_ir::guest::Access;

/// First doubleword.
mod v {
    pub const COMPARE_AVPN: u64 = !0x7f;
    pub const AVPN: u64 = 0x3fff_ffff_ffff_ff80;
    pub const LARGE: u64 = 4;
    pub const SECONDARY: u64 = 2;
    pub const VALID: u64 = 1;
}
/// Second doubleword.
mod r {
    pub const PP0: u64 = 1 << 63;
    pub const RPN: u64 = 0x0fff_ffff_ffff_f000;
    pub const KEY_HIGH: u64 = 0x3000_0000_0000_0000;
    pub const KEY_LOW: u64 = 0xe00;
    pub const REFERENCE: u64 = 0x100;
    pub const CHANGE: u64 = 0x80;
    pub const INHIBITED: u64 = 0x20;
    pub const GUARDED: u64 = 8;
    pub const NO_EXECUTE: u64 = 4;
    pub const PP: u64 = 3;
}

/// A base page size and the pages there are in segments of it.
pub struct PageSizes {
    pub shift: u32,
    /// L and LP of the segment.
    pub slb_encoding: u64,
    /// log2 of an actual page's size, and its LP (the low bits of the RPN).
    pub pages: &'static [(u32, u64)],
}

impl PageSizes {
    /// What the processors have, as device trees tell it too.
    pub const ALL: &'static [PageSizes] = &[
        PageSizes { shift: 12, slb_encoding: 0, pages: &[(12, 0), (16, 7), (24, 0x38)] },
        PageSizes { shift: 16, slb_encoding: vsid::L | 0x10, pages: &[(16, 1), (24, 8)] },
        PageSizes { shift: 24, slb_encoding: vsid::L, pages: &[(24, 0)] },
        PageSizes { shift: 34, slb_encoding: vsid::L | 0x20, pages: &[(34, 3)] },
    ];

    fn of_segment(entry: u64) -> Option<&'static PageSizes> {
        PageSizes::ALL.iter().find(|p| p.slb_encoding == entry & (vsid::L | vsid::LP))
    }
    /// log2 of the size of an entry's page.
    fn actual(&self, pte: Pte) -> Option<u32> {
        if pte[0] & v::LARGE == 0 {
            return (self.shift == 12).then_some(12);
        }
        let lp = pte[1] >> 12 & 0xff;
        self.pages.iter().find(|(shift, encoding)| *shift != 12 && lp & lp_mask(*shift) == *encoding).map(|(s, _)| *s)
    }
    /// Base and actual size of an entry, whatever the segment.
    fn of_entry(pte: Pte) -> Option<(u32, u32)> {
        if pte[0] & v::LARGE == 0 {
            return Some((12, 12));
        }
        // The longest LP decides.
        let lp = pte[1] >> 12 & 0xff;
        PageSizes::ALL
            .iter()
            .flat_map(|p| p.pages.iter().map(move |(s, e)| (p.shift, *s, *e)))
            .filter(|(_, s, e)| *s != 12 && lp & lp_mask(*s) == *e)
            .max_by_key(|(_, s, _)| *s)
            .map(|(base, s, _)| (base, s))
    }
}

/// The bits of LP that belong to the page's size.
fn lp_mask(shift: u32) -> u64 {
    (1 << (shift - 12).min(8)) - 1
}

/// The hash of a virtual page: 39 bits.
fn hash(segment: u64, offset: u64, base_shift: u32) -> u64 {
    let page = offset >> base_shift;
    if segment >> vsid::B_SHIFT == 1 {
        let vsid = (segment & 0x3fff_ffff_ffff_ffff) >> 24;
        vsid ^ vsid << 25 ^ page
    } else {
        (segment & 0x3fff_ffff_ffff_ffff) >> 12 ^ page
    }
}

/// Reads and writes that a protection permits: PP, and Ks or Kp.
fn storage_protection(second: u64, key: bool) -> (bool, bool) {
    let pp = (second & r::PP0) >> 61 | second & r::PP;
    match (key, pp) {
        (false, 0..=2) | (true, 2) => (true, true),
        (false, 3 | 6) | (true, 1 | 3) => (true, false),
        _ => (false, false),
    }
}

/// What AMR and IAMR forbid: reads, writes, fetches.
fn key_protection(second: u64, rights: Rights) -> (bool, bool, bool) {
    let key = (second & r::KEY_HIGH) >> 57 | (second & r::KEY_LOW) >> 9;
    let shift = 62 - 2 * (key & 31);
    let (data, code) = (rights.amr >> shift, rights.iamr >> shift);
    (data & 1 != 0, data & 2 != 0, code & 1 != 0)
}

impl PpcCpu {
    /// The entry of a virtual page: its number and contents, and log2 of the page's size.
    fn hash_find(&self, segment: u64, offset: u64, sizes: &PageSizes) -> Option<(u64, Pte, u32)> {
        let order = self.hooks.hpt_order();
        if !(18..=46).contains(&order) {
            return None;
        }
        let groups = (1u64 << (order - 7)) - 1;
        let primary = hash(segment, offset, sizes.shift);
        let mask = u64::MAX << sizes.shift;
        let tag = segment & !0xfff | (offset & mask) >> 16 & v::AVPN;
        for (hash, secondary) in [(primary, 0), (!primary, v::SECONDARY)] {
            let group = hash & groups;
            let entries = self.hooks.hpt_group(group);
            for (n, pte) in entries.into_iter().enumerate() {
                let same = (pte[0] ^ tag) & v::COMPARE_AVPN == 0;
                if same
                    && pte[0] & (v::VALID | v::SECONDARY) == v::VALID | secondary
                    && let Some(shift) = sizes.actual(pte)
                {
                    return Some((group * 8 + n as u64, pte, shift));
                }
            }
        }
        None
    }

    pub(super) fn hash_walk(&mut self, va: u64, access: Option<Access>, rights: Rights) -> Result<Mapping, Fault> {
        let slb = self.slb_find(va).ok_or(Fault::Segment)?;
        if slb.vsid & vsid::N != 0 && access == Some(Access::Fetch) {
            return Err(Fault::Storage(dsisr::NOEXEC));
        }
        let sizes = PageSizes::of_segment(slb.vsid).ok_or(Fault::Storage(dsisr::NOPTE))?;
        let offset = va & ((1 << slb.shift()) - 1);
        for _ in 0..TRIES {
            let (index, pte, shift) = self.hash_find(slb.vsid, offset, sizes).ok_or(Fault::Storage(dsisr::NOPTE))?;
            let within = (1 << shift) - 1;
            let key = slb.vsid & if rights.problem { vsid::KP } else { vsid::KS } != 0;
            let (read, write) = storage_protection(pte[1], key);
            let executable = slb.vsid & vsid::N == 0 && pte[1] & (r::NO_EXECUTE | r::GUARDED) == 0;
            let (no_read, no_write, no_fetch) = key_protection(pte[1], rights);
            let mut m = Mapping {
                pa: pte[1] & r::RPN & !within | va & within,
                read: read && !no_read,
                write: write && !no_write,
                execute: executable && read && !no_fetch,
                device: pte[1] & r::INHIBITED != 0,
                global: !slb.class(),
            };
            let Some(access) = access else { return Ok(m) };
            let (permitted, forbidden) = match access {
                Access::Fetch if !executable => return Err(Fault::Storage(dsisr::NOEXEC)),
                Access::Fetch => (read, no_fetch),
                Access::Read => (read, no_read),
                Access::Write => (write, no_write),
            };
            let cause = if permitted { 0 } else { dsisr::PROTECTION } | if forbidden { dsisr::KEY } else { 0 };
            if cause != 0 {
                return Err(Fault::Storage(cause));
            }
            let set = r::REFERENCE | if access == Access::Write { r::CHANGE } else { 0 };
            let mut second = pte[1];
            if second & set != set {
                if !self.hooks.hpt_update(index, pte, set) {
                    continue;
                }
                second |= set;
            }
            m.write &= second & r::CHANGE != 0;
            return Ok(m);
        }
        Err(Fault::Storage(dsisr::NOPTE))
    }

    /// The hashed page table's entry `index`, which was `old` and valid, was removed or changed: all processors forget the page.
    /// For the hypervisor calls that do so; the flush is done before the caller's vCPU runs on.
    pub fn invalidate_pte(&mut self, index: u64, old: Pte) {
        if old[0] & v::VALID == 0 {
            return;
        }
        let Some((base, actual)) = PageSizes::of_entry(old) else {
            return self.invalidate_all_ptes();
        };
        let segment_bits = if old[0] >> vsid::B_SHIFT == 1 { 40 } else { 28 };
        // What of the offset is in AVPN, and of what remains the hash has the low bits.
        let in_avpn = (old[0] & v::AVPN) << 16 & ((1 << segment_bits) - 1);
        let segment = old[0] & if segment_bits == 40 { !0xff_ffff } else { !0xfff };
        let mut offset = in_avpn;
        if base < 23 {
            let group = if old[0] & v::SECONDARY != 0 { !(index >> 3) } else { index >> 3 };
            let page = (hash(segment, 0, base) ^ group) & ((1 << (23 - base)) - 1);
            offset |= page << base;
        }
        self.flush_virtual_page(segment, offset, actual);
    }
    /// The hashed page table was replaced or cleared: all processors forget all translations.
    pub fn invalidate_all_ptes(&mut self) {
        self.flush(rhea_ir::guest::TlbFlush::Indexes(Self::TRANSLATED), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection() {
        assert_eq!(storage_protection(0, false), (true, true));
        assert_eq!(storage_protection(0, true), (false, false));
        assert_eq!(storage_protection(1, true), (true, false));
        assert_eq!(storage_protection(2, true), (true, true));
        assert_eq!(storage_protection(3, false), (true, false));
        assert_eq!(storage_protection(r::PP0 | 2, false), (true, false));
        assert_eq!(storage_protection(r::PP0 | 2, true), (false, false));
        let rights = Rights { problem: true, amr: 2 << 60, iamr: 1 << 62 };
        assert_eq!(key_protection(0, rights), (false, false, true));
        assert_eq!(key_protection(1 << 9, rights), (false, true, false));
    }

    #[test]
    fn sizes() {
        let base16 = &PageSizes::ALL[1];
        assert_eq!(base16.actual([v::LARGE, 0x1000]), Some(16));
        assert_eq!(base16.actual([v::LARGE, 0x8000]), Some(24));
        assert_eq!(base16.actual([0, 0]), None);
        assert_eq!(PageSizes::of_entry([v::LARGE, 0x8000]), Some((16, 24)));
        assert_eq!(PageSizes::of_entry([v::LARGE, 0xf_1000]), Some((16, 16)));
    }
}
