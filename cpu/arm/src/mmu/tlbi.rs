//! TLB maintenance: TLBI operations to flush requests.

use crate::bits::hcr;
use crate::config::Feature;
use crate::mode::mmu as index;
use crate::reg::Reg;
use crate::state::ArmCpu;
use rhea_ir::env::PAGE_BITS;
use rhea_ir::guest::{Contexts, TlbFlush};

const CONTEXT_E10: u64 = 0xffff;
const CONTEXT_VMID: u64 = 0xffff << 16;
const CONTEXT_E20: u64 = 0xffff << 32;

/// What a TLBI operation names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    All,
    /// By ASID of the argument.
    Asid,
    /// By address (of one ASID or all; last level or all).
    Address {
        asid: bool,
    },
    /// Range of addresses.
    Range {
        asid: bool,
    },
    /// Stage 2 only, by intermediate address or range of them.
    Stage2,
}

/// The regime of a TLBI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    /// EL1&0, or the host's regime if EL2 is one.
    El1,
    /// EL1&0 whatever the host (ALLE1, VMALLS12E1).
    El1Only,
    El2,
    El3,
}

impl ArmCpu {
    fn tlbi_indexes(&self, of: Of) -> u16 {
        let el10 = if self.lower_secure() { index::MASK_SE10 } else { index::MASK_E10 };
        match of {
            Of::El1 if self.in_host() => index::MASK_E20,
            Of::El1 | Of::El1Only => el10,
            // Without E2H the other regime of EL2 is not in use; flushing it too keeps a later change of E2H simple.
            Of::El2 => index::MASK_E2 | index::MASK_E20,
            Of::El3 => index::MASK_E3,
        }
    }
    /// Granule in use for addresses like `va`.
    fn tlbi_granule(&self, of: Of, va: u64) -> u32 {
        let tcr = match of {
            Of::El1 if self.in_host() => self[Reg::TcrEl2],
            Of::El1 | Of::El1Only => self[Reg::TcrEl1],
            Of::El2 => self[Reg::TcrEl2],
            Of::El3 => self[Reg::TcrEl3],
        };
        let two = matches!(of, Of::El1 | Of::El1Only) || (of == Of::El2 && self.e2h());
        if two && va >> 55 & 1 != 0 {
            match tcr >> 30 & 3 {
                1 => 14,
                3 => 16,
                _ => 12,
            }
        } else {
            match tcr >> 14 & 3 {
                1 => 16,
                2 => 14,
                _ => 12,
            }
        }
    }

    pub(crate) fn tlbi(&mut self, of: Of, scope: Scope, value: u64, shareable: bool) {
        let everywhere = shareable || (self.el() <= 1 && self.hcr() & hcr::FB != 0);
        let indexes = self.tlbi_indexes(of);
        let what = match scope {
            Scope::All | Scope::Stage2 => TlbFlush::Indexes(indexes),
            Scope::Asid => TlbFlush::Context { indexes, of: self.contexts(of, value) },
            Scope::Address { asid } => {
                let contexts = self.address_contexts(of, value, asid);
                self.flush_address(of, value, indexes, contexts)
            }
            Scope::Range { asid } => {
                let contexts = self.address_contexts(of, value, asid);
                self.flush_range(value, of, indexes, contexts)
            }
        };
        self.flush(what, everywhere);
    }
    /// The contexts that a TLBI by address concerns: those of an ASID if it is given one, but entries that are global within
    /// a VMID count as entries of each ASID.
    fn address_contexts(&self, of: Of, value: u64, asid: bool) -> Contexts {
        let global_per_vmid = of == Of::El1 && self[Reg::HcrEl2] & hcr::VM != 0;
        if asid && !global_per_vmid { self.contexts(of, value) } else { Contexts::ALL }
    }
    /// The contexts of the ASID that a TLBI names in bits 63:48 of its argument, under the current VMID.
    fn contexts(&self, of: Of, value: u64) -> Contexts {
        let host = of == Of::El2 || self.in_host();
        let tcr = self[if host { Reg::TcrEl2 } else { Reg::TcrEl1 }];
        let asid = value >> 48 & if tcr >> 36 & 1 != 0 && self.has(Feature::Asid16) { 0xffff } else { 0xff };
        let mask = if host { CONTEXT_E20 } else { CONTEXT_E10 | CONTEXT_VMID };
        let here = self.tlb_context() & CONTEXT_VMID & mask;
        Contexts { mask, value: here | if host { asid << 32 } else { asid } }
    }
    /// Bits 15:0: ASID of EL1&0; 31:16: VMID; 47:32: ASID of EL2&0.
    pub(crate) fn tlb_context(&self) -> u64 {
        let mut context = self.asid_el1();
        if self.has(Feature::El2) {
            context |= (self[Reg::VttbrEl2] >> 48) << 16;
            if self.e2h() {
                context |= self.asid_el2() << 32;
            }
        }
        context
    }
    fn flush_address(&self, of: Of, value: u64, indexes: u16, contexts: Contexts) -> TlbFlush {
        // VA[55:12]; bits above are its sign.
        let va = ((value << 20) as i64 >> 8) as u64;
        let ttl = value >> 44 & 15;
        let granule = self.tlbi_granule(of, va);
        let size = if self.has(Feature::Ttl) && ttl >> 2 != 0 {
            let g = match ttl >> 2 {
                1 => 12,
                2 => 14,
                _ => 16,
            };
            g + (g - 3) * (3 - (ttl as u32 & 3))
        } else {
            self.config.large_mappings.largest(va).max(granule)
        };
        if size > 30 {
            return TlbFlush::Indexes(indexes);
        }
        TlbFlush::Range { va: va & !((1 << size) - 1), pages: 1 << (size - PAGE_BITS), indexes, of: contexts }
    }
    fn flush_range(&self, value: u64, of: Of, indexes: u16, contexts: Contexts) -> TlbFlush {
        let granule = match value >> 46 & 3 {
            1 => 12u32,
            2 => 14,
            3 => 16,
            _ => return TlbFlush::Indexes(indexes),
        };
        let (num, scale) = (value >> 39 & 31, value >> 44 & 3);
        let tcr = match of {
            Of::El1 if self.in_host() => self[Reg::TcrEl2] >> 59,
            Of::El1 | Of::El1Only => self[Reg::TcrEl1] >> 59,
            Of::El2 if self.e2h() => self[Reg::TcrEl2] >> 59,
            Of::El2 => self[Reg::TcrEl2] >> 32,
            Of::El3 => self[Reg::TcrEl3] >> 32,
        };
        let wide = tcr & 1 != 0 && self.has(Feature::Lpa2);
        // BaseADDR, 37 bits, in granules (64 KiB units in the 52-bit format); sign-extended.
        let shift = if wide { 16 } else { granule };
        let base = ((value << 27) as i64 >> 27) as u64;
        let va = base << shift;
        let length = ((num + 1) << (5 * scale + 1)) << granule;
        let large =
            self.config.large_mappings.largest(va).max(self.config.large_mappings.largest(va.wrapping_add(length - 1)));
        if large > 30 {
            return TlbFlush::Indexes(indexes);
        }
        let low = if large == 0 { va } else { va & !((1 << large) - 1) };
        let end = va.wrapping_add(length);
        let end = if large == 0 { end } else { end.wrapping_add((1 << large) - 1) & !((1 << large) - 1) };
        TlbFlush::Range { va: low, pages: end.wrapping_sub(low) >> PAGE_BITS, indexes, of: contexts }
    }
}
