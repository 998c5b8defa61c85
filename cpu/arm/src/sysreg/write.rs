//! Writes to stored registers: which bits exist, and what a change entails.

use crate::bits::{cptr, hcr, scr, sctlr};
use crate::config::Feature;
use crate::mode::mmu;
use crate::reg::Reg;
use crate::state::ArmCpu;
use rhea_ir::guest::{TlbFlush, request};

/// SCTLR bits whose change alters translations.
const SCTLR_WALK: u64 = sctlr::M | sctlr::WXN | sctlr::EE | sctlr::EPAN;
/// HCR_EL2 bits that do.
const HCR_WALK: u64 = hcr::VM | hcr::DC | hcr::PTW | hcr::CD | hcr::ID | hcr::TGE | hcr::E2H;

impl ArmCpu {
    fn only(&self, f: Feature, bits: u64) -> u64 {
        if self.has(f) { bits } else { 0 }
    }
    fn sctlr_mask(&self, el: u32) -> u64 {
        use sctlr::*;
        let mut m = M | A | C | SA | 1 << 12 | EE | WXN | 1 << 11 | 1 << 22;
        m |= self.only(Feature::Lse2, NAA)
            | self.only(Feature::Pauth, ENIA | ENIB | ENDA | ENDB)
            | self.only(Feature::Bti, BT)
            | self.only(Feature::Ssbs, DSSBS);
        if el == 1 || (el == 2 && self.has(Feature::Vhe)) {
            m |= SA0 | UMA | DZE | UCT | NTWI | NTWE | E0E | UCI;
            m |= self.only(Feature::Pan, SPAN) | self.only(Feature::Bti, BT0) | self.only(Feature::Pan3, EPAN);
        }
        m
    }
    fn tcr_mask(&self) -> u64 {
        // T0SZ to TG1, IPS, AS, TBI0, TBI1.
        let mut m = 0x0067_ffff_ffbf | self.only(Feature::Asid16, 1 << 36);
        m |= self.only(Feature::Haf, 1 << 39) | self.only(Feature::Dbm, 1 << 40) | self.only(Feature::Hpds, 3 << 41);
        m |= self.only(Feature::Pauth, 3 << 51) | self.only(Feature::E0pd, 3 << 55) | self.only(Feature::Lpa2, 1 << 59);
        m
    }
    fn tcr_el2_mask(&self) -> u64 {
        let mut m = 0x0017_ffff;
        m |= self.only(Feature::Haf, 1 << 21) | self.only(Feature::Dbm, 1 << 22) | self.only(Feature::Hpds, 1 << 24);
        m | self.only(Feature::Pauth, 1 << 29) | self.only(Feature::Lpa2, 1 << 32)
    }

    /// The value a write of `v` leaves in a register: writable bits taken, fixed ones forced.
    fn writable(&self, r: Reg, mask: u64, v: u64) -> u64 {
        match r {
            Reg::SctlrEl1 => {
                let m = self.sctlr_mask(1);
                // RES1 where the feature behind a bit is absent.
                let ones = 0x30d0_0800 & !(sctlr::NTWI | sctlr::NTWE | m);
                v & m | ones
            }
            Reg::SctlrEl2 => {
                let m = self.sctlr_mask(2);
                v & m | 0x30c5_0830 & !m
            }
            Reg::SctlrEl3 => {
                let m = self.sctlr_mask(3);
                v & m | 0x30c5_0830 & !m
            }
            Reg::TcrEl1 => v & self.tcr_mask(),
            Reg::TcrEl2 if self[Reg::HcrEl2] & hcr::E2H != 0 => v & self.tcr_mask(),
            Reg::TcrEl2 | Reg::TcrEl3 => v & self.tcr_el2_mask() | 1 << 31 | 1 << 23,
            Reg::VtcrEl2 => {
                let m = 0x000f_ffff
                    | self.only(Feature::Haf, 1 << 21)
                    | self.only(Feature::Dbm, 1 << 22)
                    | self.only(Feature::Lpa2, 3 << 32);
                v & m | 1 << 31
            }
            Reg::Ttbr0El1 | Reg::Ttbr1El1 | Reg::Ttbr0El2 | Reg::Ttbr1El2 | Reg::Ttbr0El3 | Reg::VttbrEl2 => {
                if self.has(Feature::Cnp) { v } else { v & !1 }
            }
            Reg::HcrEl2 => {
                use hcr::*;
                let mut m = 0x3_7fff_ffff & !RW;
                if self.has(Feature::El3) {
                    m &= !HCD;
                }
                m |=
                    self.only(Feature::Vhe, E2H) | self.only(Feature::Lor, TLOR) | self.only(Feature::Pauth, APK | API);
                m |= self.only(Feature::Evt, TID4 | TICAB | TOCU | TTLBIS | TTLBOS);
                v & m | RW
            }
            Reg::CptrEl2 if self[Reg::HcrEl2] & hcr::E2H != 0 => v & (cptr::TCPAC | 3 << 20),
            Reg::CptrEl2 => v & (cptr::TCPAC | cptr::TFP) | 0x33ff,
            Reg::ScrEl3 => {
                use scr::*;
                let mut m = NS | IRQ | FIQ | EA | SMD | SIF | ST | TWI | TWE;
                m |=
                    self.only(Feature::El2, HCE) | self.only(Feature::Lor, TLOR) | self.only(Feature::Pauth, APK | API);
                v & m | RW | 3 << 4
            }
            _ => v & mask,
        }
    }

    /// The ASID that tags EL0 accesses of a regime: from TTBR0, or TTBR1 with A1; 8 bits without AS.
    fn asid(&self, tcr: Reg, t0: Reg, t1: Reg) -> u64 {
        let tcr = self[tcr];
        let v = self[if tcr >> 22 & 1 != 0 { t1 } else { t0 }] >> 48;
        if tcr >> 36 & 1 != 0 { v } else { v & 0xff }
    }
    pub(crate) fn asid_el1(&self) -> u64 {
        self.asid(Reg::TcrEl1, Reg::Ttbr0El1, Reg::Ttbr1El1)
    }
    pub(crate) fn asid_el2(&self) -> u64 {
        self.asid(Reg::TcrEl2, Reg::Ttbr0El2, Reg::Ttbr1El2)
    }
    fn el1_indexes(&self) -> u16 {
        if self.lower_secure() { mmu::MASK_SE10 } else { mmu::MASK_E10 }
    }

    pub(crate) fn store_register(&mut self, r: Reg, mask: u64, v: u64) {
        let old = self[r];
        let new = self.writable(r, mask, v);
        match r {
            // Another ASID is another context of the TLBs. A new base with the same ASID needs a TLBI by the guest, as the
            // architecture says.
            Reg::Ttbr0El1 | Reg::Ttbr1El1 => {
                let asid = self.asid_el1();
                self[r] = new;
                if self.asid_el1() != asid {
                    self.request(request::ACCEL);
                }
                return;
            }
            Reg::Ttbr0El2 | Reg::Ttbr1El2 => {
                let asid = self.asid_el2();
                self[r] = new;
                if self.e2h() && self.asid_el2() != asid {
                    self.request(request::ACCEL);
                }
                return;
            }
            _ => self[r] = new,
        }
        let changed = old ^ new;
        if changed == 0 {
            return;
        }
        let el2 = mmu::MASK_E2 | mmu::MASK_E20;
        match r {
            Reg::SctlrEl1 => {
                if changed & SCTLR_WALK != 0 {
                    self.flush(TlbFlush::Indexes(self.el1_indexes()), false);
                }
                self.rebuild_mode();
            }
            Reg::SctlrEl2 => {
                if changed & SCTLR_WALK != 0 {
                    self.flush(TlbFlush::Indexes(el2 | mmu::MASK_E10), false);
                }
                self.rebuild_mode();
            }
            Reg::SctlrEl3 => {
                if changed & SCTLR_WALK != 0 {
                    self.flush(TlbFlush::Indexes(mmu::MASK_E3), false);
                }
                self.rebuild_mode();
            }
            Reg::TcrEl1 => {
                self.flush(TlbFlush::Indexes(self.el1_indexes()), false);
                self.rebuild_mode();
            }
            Reg::TcrEl2 => {
                self.flush(TlbFlush::Indexes(el2), false);
                self.rebuild_mode();
            }
            Reg::TcrEl3 => {
                self.flush(TlbFlush::Indexes(mmu::MASK_E3), false);
                self.rebuild_mode();
            }
            Reg::MairEl1 => self.flush(TlbFlush::Indexes(self.el1_indexes()), false),
            Reg::MairEl2 => self.flush(TlbFlush::Indexes(el2), false),
            Reg::MairEl3 | Reg::Ttbr0El3 => self.flush(TlbFlush::Indexes(mmu::MASK_E3), false),
            // Another VMID is another context; a new base needs a TLBI by the hypervisor.
            Reg::VttbrEl2 => self.request(request::ACCEL),
            Reg::VtcrEl2 => self.flush(TlbFlush::Indexes(mmu::MASK_E10), false),
            Reg::HcrEl2 => {
                if changed & hcr::E2H != 0 {
                    self.flush(TlbFlush::Indexes(el2), false);
                }
                // A host at EL2 does not use EL1&0: what it changes counts when it lets a guest run, where mostly the bits are
                // those of the last time.
                let host = hcr::E2H | hcr::TGE;
                if new & host != host && (self.guest_hcr ^ new) & HCR_WALK != 0 {
                    self.guest_hcr = new;
                    self.flush(TlbFlush::Indexes(mmu::MASK_E10), false);
                }
                self.rebuild_mode();
                self.note_unmasked();
            }
            Reg::ScrEl3 => {
                // EL1&0 of the two Security states have TLBs of their own; SIF changes what may be executed.
                if changed & scr::SIF != 0 {
                    self.flush(TlbFlush::All, false);
                }
                self.rebuild_mode();
                self.note_unmasked();
            }
            Reg::CpacrEl1
            | Reg::CptrEl2
            | Reg::CptrEl3
            | Reg::MdscrEl1
            | Reg::MdcrEl2
            | Reg::MdcrEl3
            | Reg::OsdlrEl1 => {
                self.rebuild_mode();
            }
            _ => {}
        }
    }
}
