//! The segment lookaside buffer and its instructions (Book III, 6.9.3.1).

use super::segments::Segment;
use crate::state::PpcCpu;
use minicbor::{Decode, Encode};

/// An entry as slbmte has it: RB without the index, and RS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct SlbEntry {
    /// ESID in bits 0–35, V.
    #[n(0)]
    pub esid: u64,
    /// B, VSID, Ks, Kp, N, L, C, LP.
    #[n(1)]
    pub vsid: u64,
}

/// V of the first doubleword.
pub const VALID: u64 = 1 << 27;
/// Bits of the second doubleword.
pub mod vsid {
    pub const B_SHIFT: u32 = 62;
    pub const KS: u64 = 0x800;
    pub const KP: u64 = 0x400;
    pub const N: u64 = 0x200;
    pub const L: u64 = 0x100;
    pub const CLASS: u64 = 0x80;
    pub const LP: u64 = 0x30;
}

impl SlbEntry {
    pub fn is_valid(&self) -> bool {
        self.esid & VALID != 0
    }
    /// log2 of the segment's size: 28 or 40.
    pub fn shift(&self) -> u32 {
        if self.vsid >> vsid::B_SHIFT == 1 { 40 } else { 28 }
    }
    /// The first effective address of the segment.
    pub fn base(&self) -> u64 {
        self.esid >> self.shift() << self.shift()
    }
    pub fn translates(&self, va: u64) -> bool {
        self.is_valid() && (self.esid ^ va) >> self.shift() == 0
    }
    /// Class 1.
    pub fn class(&self) -> bool {
        self.vsid & vsid::CLASS != 0
    }
    pub(super) fn segment(&self) -> Segment {
        Segment { base: self.base(), shift: self.shift(), vsid: self.vsid }
    }
}

impl PpcCpu {
    fn slb_size(&self) -> usize {
        self.config.slb_entries.clamp(1, 64) as usize
    }
    /// Entry `n` of the buffer, for hypervisor calls and debuggers.
    pub fn slb_entry(&self, n: usize) -> SlbEntry {
        self.sys.slb.get(n).copied().unwrap_or_default()
    }
    pub(super) fn slb_find(&self, va: u64) -> Option<SlbEntry> {
        self.sys.slb[..self.slb_size()].iter().find(|e| e.translates(va)).copied()
    }

    /// slbmte.
    pub fn slb_move_to(&mut self, rs: u64, rb: u64) {
        let index = (rb & 0xfff) as usize;
        if index >= self.slb_size() || rs >> 62 > 1 {
            let hooks = self.hooks.clone();
            hooks.guest_error(self.index, &format!("slbmte of entry {index} with {rs:#x}: there is none"));
            return;
        }
        self.sync_segments();
        let entry = SlbEntry { esid: rb & !0xfff & !0x7ff_f000 | rb & VALID, vsid: rs };
        if entry.is_valid() {
            self.enter_segment(entry.segment(), entry.class());
        }
        self.sys.slb[index] = entry;
    }
    /// slbmfee.
    pub fn slb_move_from_esid(&self, rb: u64) -> u64 {
        let n = (rb & 0xfff) as usize;
        if n < self.slb_size() { self.sys.slb[n].esid } else { 0 }
    }
    /// slbmfev.
    pub fn slb_move_from_vsid(&self, rb: u64) -> u64 {
        let n = (rb & 0xfff) as usize;
        if n < self.slb_size() { self.sys.slb[n].vsid } else { 0 }
    }
    /// slbfee.: the second doubleword of the entry that translates an address.
    pub fn slb_find_entry(&self, rb: u64) -> Option<u64> {
        // B in RB says the size of the segment that is looked for.
        self.slb_find(rb).map(|e| e.vsid)
    }
    /// slbie.
    pub fn slb_invalidate(&mut self, rb: u64) {
        for n in 0..self.slb_size() {
            if self.sys.slb[n].translates(rb) {
                self.drop_slb_entry(n);
            }
        }
        // Lookaside information of a segment whose entry was replaced goes too.
        let shift = if rb >> 25 & 3 == 1 { 40 } else { 28 };
        self.leave_segment(rb >> shift << shift, shift, rb & VALID != 0);
    }
    /// slbia with IH.
    pub fn slb_invalidate_all(&mut self, hint: u32) {
        for n in 0..self.slb_size() {
            let entry = self.sys.slb[n];
            let drop = match hint {
                3 => entry.class(),
                4 => true,
                7 => false,
                _ => n != 0,
            };
            if drop && entry.is_valid() {
                self.drop_slb_entry(n);
            }
        }
        // Segments whose entries were replaced may still be in lookaside information.
        if !matches!(hint, 1 | 2 | 3 | 6) {
            self.leave_replaced_segments();
        } else if matches!(hint, 1 | 3) {
            self.leave_user_segments();
        }
    }
    fn drop_slb_entry(&mut self, n: usize) {
        let entry = std::mem::take(&mut self.sys.slb[n]);
        self.leave_segment(entry.base(), entry.shift(), entry.class());
    }
}
