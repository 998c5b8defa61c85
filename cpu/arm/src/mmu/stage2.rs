//! Stage 2: from an intermediate physical address to a physical one.

use super::geometry::Geometry;
use super::{Fault, FaultKind, Mapping, Place, Walker};
use crate::bits::{hcr, sctlr};
use crate::config::Feature;
use crate::reg::Reg;
use rhea_ir::guest::Access;

const UPDATE_TRIES: u32 = 64;

/// What stage 2 says of an address.
struct Stage2 {
    pa: u64,
    read: bool,
    write: bool,
    execute: bool,
    device: bool,
    /// MemAttr[3:0].
    attributes: u8,
    shareability: u8,
    size_log2: u32,
}

impl Walker<'_> {
    /// Applies stage 2 to the result of stage 1.
    pub(super) fn combine(&self, m: &mut Mapping) -> Result<(), Fault> {
        if self.hcr & hcr::VM == 0 && self.hcr & hcr::DC == 0 {
            return Ok(());
        }
        let access = self.request.access;
        let s2 = self.stage2(m.pa, access, false)?;
        m.pa = s2.pa;
        // Global only to the guest of this VMID.
        m.global = false;
        m.read &= s2.read;
        m.write &= s2.write;
        m.execute &= s2.execute;
        m.size_log2 = m.size_log2.min(s2.size_log2);
        // The stronger type wins; the weaker cacheability wins.
        if s2.device {
            m.attributes =
                if m.device() { m.attributes & ((s2.attributes & 3) << 2) } else { (s2.attributes & 3) << 2 };
            m.shareability = 2;
        } else if !m.device() {
            let limit = |inner: u8, stage2: u8| match stage2 & 3 {
                1 => 0x4,
                2 if inner & 0xc != 0x4 => (inner & 3) | 0x8,
                _ => inner,
            };
            m.attributes =
                limit(m.attributes & 15, s2.attributes & 3) | limit(m.attributes >> 4, s2.attributes >> 2) << 4;
            m.shareability = match (m.shareability, s2.shareability) {
                (2, _) | (_, 2) => 2,
                (3, _) | (_, 3) => 3,
                (a, _) => a,
            };
        }
        Ok(())
    }
    /// The physical address of a stage 1 descriptor.
    pub(super) fn stage2_for_walk(&self, ipa: u64, write: bool) -> Result<u64, Fault> {
        let access = self.request.access.map(|_| if write { Access::Write } else { Access::Read });
        let s2 = self.stage2(ipa, access, true)?;
        if self.hcr & hcr::PTW != 0 && s2.device && access.is_some() {
            return Err(Fault::stage2(FaultKind::Permission, 3, ipa, true));
        }
        Ok(s2.pa)
    }

    fn stage2(&self, ipa: u64, access: Option<Access>, s1ptw: bool) -> Result<Stage2, Fault> {
        let fault = |kind, level| Fault::stage2(kind, level, ipa, s1ptw);
        if self.hcr & hcr::VM == 0 {
            // HCR_EL2.DC alone: flat.
            return Ok(Stage2 {
                pa: ipa,
                read: true,
                write: true,
                execute: true,
                device: false,
                attributes: 0xf,
                shareability: 0,
                size_log2: 64,
            });
        }
        let vtcr = self.reg(Reg::VtcrEl2);
        let granule = self.granule(match vtcr >> 14 & 3 {
            1 => 16,
            2 => 14,
            _ => 12,
        });
        let g: Geometry = self.geometry(granule, vtcr >> 32 & 1 != 0, vtcr >> 16);
        let tsz = (vtcr & 0x3f) as u32;
        let input = 64 - tsz.clamp(12, 48);
        if !self.size_ok(tsz, &g, true) || input > self.cpu.config.pa_bits().max(40) || ipa >> input != 0 {
            return Err(fault(FaultKind::Translation, 0));
        }
        let Some(start) = self.start_level(&g, vtcr, input) else {
            return Err(fault(FaultKind::Translation, 0));
        };
        let first_bits = 3 + input - g.entry_bits(start).min(input);
        let mut table = g.base(self.reg(Reg::VttbrEl2), first_bits);
        if g.too_large(table) {
            return Err(fault(FaultKind::AddressSize, 0));
        }
        let big_endian = self.reg(Reg::SctlrEl2) & sctlr::EE != 0;
        let ha = self.has(Feature::Haf) && vtcr >> 21 & 1 != 0;
        let hd = ha && self.has(Feature::Dbm) && vtcr >> 22 & 1 != 0;
        let mut level = start;
        loop {
            let offset = if level == start { g.first_offset(ipa, level, input) } else { g.offset(ipa, level, input) };
            let place = Place { pa: table | offset, secure: false, big_endian };
            let mut tries = 0;
            loop {
                let d = self.read_descriptor(place).map_err(|_| fault(FaultKind::ExternalWalk, level))?;
                if d & 1 == 0 || (level == 3 && d & 2 == 0) || (d & 3 == 1 && !g.block_allowed(level)) {
                    return Err(fault(FaultKind::Translation, level));
                }
                if level < 3 && d & 2 != 0 {
                    table = g.address(d, g.granule);
                    if g.too_large(table) {
                        return Err(fault(FaultKind::AddressSize, level));
                    }
                    break;
                }
                let bits = g.entry_bits(level);
                let out = g.address(d, bits);
                if g.too_large(out) {
                    return Err(fault(FaultKind::AddressSize, level));
                }
                let mut new = d;
                if d >> 10 & 1 == 0 {
                    if !ha && access.is_some() {
                        return Err(fault(FaultKind::AccessFlag, level));
                    }
                    new |= 1 << 10;
                }
                let read = d >> 6 & 1 != 0;
                let mut write = d >> 7 & 1 != 0;
                if hd && d >> 51 & 1 != 0 && !write && access == Some(Access::Write) {
                    write = true;
                    new |= 1 << 7;
                }
                let xn = d >> 53 & 3;
                let execute = if self.has(Feature::Xnx) {
                    match xn {
                        0 => true,
                        1 => self.request.regime.el0,
                        2 => false,
                        _ => !self.request.regime.el0,
                    }
                } else {
                    xn & 2 == 0
                };
                let allowed = match access {
                    None => true,
                    Some(Access::Read) => read,
                    Some(Access::Write) => write,
                    Some(Access::Fetch) => execute,
                };
                if !allowed {
                    return Err(fault(FaultKind::Permission, level));
                }
                if new != d && self.request.update {
                    match self.replace_descriptor(place, d, new) {
                        Ok(true) => {}
                        Ok(false) if tries < UPDATE_TRIES => {
                            tries += 1;
                            continue;
                        }
                        Ok(false) => return Err(fault(FaultKind::AccessFlag, level)),
                        Err(_) => return Err(fault(FaultKind::UnsupportedAtomic, level)),
                    }
                }
                let attributes = (d >> 2 & 15) as u8;
                return Ok(Stage2 {
                    pa: out | (ipa & ((1 << bits) - 1)),
                    read,
                    write,
                    execute,
                    device: attributes & 0xc == 0,
                    attributes,
                    shareability: if g.ds { (vtcr >> 12 & 3) as u8 } else { (d >> 8 & 3) as u8 },
                    size_log2: bits,
                });
            }
            level += 1;
        }
    }

    /// The first level from VTCR_EL2.SL0 and SL2, if consistent with the input size: at most 16 concatenated tables, at least one
    /// entry.
    fn start_level(&self, g: &Geometry, vtcr: u64, input: u32) -> Option<i32> {
        let sl0 = (vtcr >> 6 & 3) as i32;
        let sl2 = g.ds && g.granule == 12 && vtcr >> 33 & 1 != 0;
        let level = match (g.granule, sl0) {
            (12, 0) if sl2 => -1,
            (12, _) if sl2 => return None,
            (12, 3) => {
                if !self.has(Feature::Ttst) {
                    return None;
                }
                3
            }
            (12, n) => 2 - n,
            (_, 3) => {
                if !(g.granule == 14 && g.ds) {
                    return None;
                }
                0
            }
            (_, n) => 3 - n,
        };
        let table_bits = g.entry_bits(level);
        let indexed = input.checked_sub(table_bits)?;
        (indexed >= 1 && indexed <= g.stride() + 4).then_some(level)
    }
}
