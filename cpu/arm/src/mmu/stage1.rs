//! Stage 1: from a virtual address to a physical or intermediate physical one.

use super::geometry::{Geometry, ps_bits};
use super::{Fault, FaultKind, Mapping, Place, Walker};
use crate::bits::{hcr, sctlr};
use crate::config::Feature;
use crate::reg::{Reg, family};
use rhea_ir::guest::Access;

/// Attempts to update a descriptor that other processors keep changing, before giving up with a fault that restarts.
const UPDATE_TRIES: u32 = 64;

/// Fields of TCR_ELx for one half of the address space.
#[derive(Clone, Copy)]
pub(super) struct Controls {
    geometry: Geometry,
    /// Bits of a virtual address.
    input: u32,
    /// First level of a walk, and log2 of the size of its table.
    start: i32,
    first_bits: u32,
    disabled: bool,
    e0pd: bool,
    /// For data, and for instructions.
    top_byte_ignored: [bool; 2],
    hierarchy_disabled: bool,
    access_flag: bool,
    dirty_state: bool,
    shareability: u8,
    /// TxSZ is outside what is implemented.
    bad_size: bool,
}

/// log2 of the granule for a TG0 field; a reserved value or a missing granule reads as 4K (or what there is).
fn granule_tg0(tg: u64) -> u32 {
    match tg & 3 {
        1 => 16,
        2 => 14,
        _ => 12,
    }
}
fn granule_tg1(tg: u64) -> u32 {
    match tg & 3 {
        1 => 14,
        3 => 16,
        _ => 12,
    }
}

impl Walker<'_> {
    /// An implemented granule: the asked one, or 4K.
    pub(super) fn granule(&self, wanted: u32) -> u32 {
        let there = match wanted {
            14 => self.has(Feature::Granule16K),
            16 => self.has(Feature::Granule64K),
            _ => self.has(Feature::Granule4K),
        };
        match (there, wanted) {
            (true, g) => g,
            (false, 12) => 16,
            (false, _) => 12,
        }
    }
    pub(super) fn geometry(&self, granule: u32, ds: bool, ps: u64) -> Geometry {
        let ds = ds && granule != 16 && self.has(Feature::Lpa2);
        let wide64 = granule == 16 && self.has(Feature::Lpa);
        let mut output_bits = ps_bits(ps).min(self.cpu.config.pa_bits());
        if !ds && !wide64 {
            output_bits = output_bits.min(48);
        }
        Geometry { granule, ds, wide64, output_bits }
    }
    /// Is a region of 64 - `tsz` bits implemented?
    pub(super) fn size_ok(&self, tsz: u32, g: &Geometry, stage2: bool) -> bool {
        let max = match (self.has(Feature::Ttst), g.granule) {
            (false, _) => 39,
            (true, 16) => 47,
            (true, _) => 48,
        };
        let wide = g.ds || (g.granule == 16 && if stage2 { self.has(Feature::Lpa) } else { self.has(Feature::Lva) });
        (if wide { 12 } else { 16 }..=max).contains(&tsz)
    }

    /// The controls for `va`, and TTBR. Decoded anew only when TCR is another one than the last time.
    #[inline]
    fn controls(&self, va: u64) -> (Controls, u64) {
        let r = self.request.regime;
        let high = if r.two_ranges { va >> 55 & 1 } else { 0 };
        let (slot, tcr, ttbr) = match (r.el, high) {
            (1, 0) => (0, Reg::TcrEl1, Reg::Ttbr0El1),
            (1, _) => (1, Reg::TcrEl1, Reg::Ttbr1El1),
            (2, 0) => (if r.two_ranges { 2 } else { 4 }, Reg::TcrEl2, Reg::Ttbr0El2),
            (2, _) => (3, Reg::TcrEl2, Reg::Ttbr1El2),
            _ => (5, Reg::TcrEl3, Reg::Ttbr0El3),
        };
        let tcr = self.reg(tcr);
        let known = &self.cpu.walks.controls[slot];
        let c = match known.get() {
            Some((of, c)) if of == tcr => c,
            _ => {
                let c = if r.two_ranges { self.decode_half(tcr, high) } else { self.decode_whole(tcr) };
                known.set(Some((tcr, c)));
                c
            }
        };
        (c, self.reg(ttbr))
    }
    /// TCR of a regime with two ranges: the lower (0) or the upper one.
    fn decode_half(&self, tcr: u64, high: u64) -> Controls {
        let bit = |n: u32| tcr >> (n + high as u32) & 1 != 0;
        let granule = self.granule(if high != 0 { granule_tg1(tcr >> 30) } else { granule_tg0(tcr >> 14) });
        let access_flag = self.has(Feature::Haf) && tcr >> 39 & 1 != 0;
        Controls {
            disabled: tcr >> (7 + 16 * high) & 1 != 0,
            e0pd: self.has(Feature::E0pd) && bit(55),
            top_byte_ignored: [bit(37), bit(37) && !(self.has(Feature::Pauth) && bit(51))],
            hierarchy_disabled: self.has(Feature::Hpds) && bit(41),
            access_flag,
            dirty_state: access_flag && self.has(Feature::Dbm) && tcr >> 40 & 1 != 0,
            shareability: (tcr >> (12 + 16 * high) & 3) as u8,
            ..self.sized(self.geometry(granule, tcr >> 59 & 1 != 0, tcr >> 32), tcr >> (16 * high))
        }
    }
    /// TCR of a regime with one range.
    fn decode_whole(&self, tcr: u64) -> Controls {
        let bit = |n: u32| tcr >> n & 1 != 0;
        let access_flag = self.has(Feature::Haf) && bit(21);
        Controls {
            top_byte_ignored: [bit(20), bit(20) && !(self.has(Feature::Pauth) && bit(29))],
            hierarchy_disabled: self.has(Feature::Hpds) && bit(24),
            access_flag,
            dirty_state: access_flag && self.has(Feature::Dbm) && bit(22),
            shareability: (tcr >> 12 & 3) as u8,
            ..self.sized(self.geometry(self.granule(granule_tg0(tcr >> 14)), bit(32), tcr >> 16), tcr)
        }
    }
    /// What follows from the geometry and TxSZ.
    fn sized(&self, geometry: Geometry, tsz: u64) -> Controls {
        let tsz = (tsz & 0x3f) as u32;
        let input = 64 - tsz.clamp(12, 48);
        let bad_size = !self.size_ok(tsz, &geometry, false);
        let start = if bad_size { 3 } else { geometry.start_level(input) };
        Controls {
            geometry,
            input,
            start,
            first_bits: if bad_size { geometry.granule } else { 3 + input - geometry.entry_bits(start) },
            disabled: false,
            e0pd: false,
            top_byte_ignored: [false; 2],
            hierarchy_disabled: false,
            access_flag: false,
            dirty_state: false,
            shareability: 0,
            bad_size,
        }
    }

    pub(super) fn stage1(&self, va: u64) -> Result<Mapping, Fault> {
        let r = self.request.regime;
        let control = self.cpu.sys_of(family::SCTLR, r.el);
        let off = control & sctlr::M == 0 || (r.el == 1 && !r.secure && self.hcr & (hcr::DC | hcr::TGE) != 0);
        let (c, ttbr) = self.controls(va);
        let ignored = c.top_byte_ignored[usize::from(self.request.access == Some(Access::Fetch))];
        // Bits above the region must all equal bit 55 (two ranges) or be zero, the top byte aside if ignored.
        let top = if ignored { 56 } else { 64 };
        let high = r.two_ranges && va >> 55 & 1 != 0;
        let unsigned = |from: u32| {
            if from >= top {
                return true;
            }
            let rest = (va << (64 - top)) >> (64 - top) >> from;
            rest == if high { u64::MAX << (64 - top) >> (64 - top) >> from } else { 0 }
        };
        if off {
            let bits = self.cpu.config.pa_bits();
            let low = if ignored { va & (u64::MAX >> 8) } else { va };
            if low >> bits != 0 {
                return Err(Fault::stage1(FaultKind::AddressSize, 0));
            }
            let cached = self.hcr & hcr::DC != 0 && r.el == 1;
            return Ok(Mapping {
                pa: low,
                read: true,
                write: true,
                execute: true,
                attributes: if cached { 0xff } else { 0 },
                shareability: if cached { 0 } else { 2 },
                guarded: false,
                global: true,
                secure: r.secure,
                size_log2: 64,
            });
        }
        let g = c.geometry;
        let start = c.start;
        if c.bad_size || !unsigned(c.input) || c.disabled || (c.e0pd && r.el0) {
            return Err(Fault::stage1(FaultKind::Translation, 0));
        }
        let big_endian = control & sctlr::EE != 0;
        let mut secure = r.secure;
        let mut table = g.base(ttbr, c.first_bits);
        if g.too_large(table) {
            return Err(Fault::stage1(FaultKind::AddressSize, 0));
        }
        // Restrictions inherited from table descriptors.
        let (mut no_el0, mut read_only, mut uxn_table, mut pxn_table) = (false, false, false, false);
        let mut level = start;
        loop {
            let offset = if level == start { g.first_offset(va, level, c.input) } else { g.offset(va, level, c.input) };
            let mut place = Place { pa: table | offset, secure, big_endian };
            let mut tries = 0;
            loop {
                let intermediate = table | offset;
                if self.has_stage2() {
                    place.pa = self.stage2_for_walk(intermediate, false)?;
                }
                let d = self.read_descriptor(place).map_err(|_| Fault::stage1(FaultKind::ExternalWalk, level))?;
                let is_table = level < 3 && d & 3 == 3;
                if d & 1 == 0 || (level == 3 && d & 2 == 0) || (d & 3 == 1 && !g.block_allowed(level)) {
                    return Err(Fault::stage1(FaultKind::Translation, level));
                }
                if is_table {
                    table = g.address(d, g.granule);
                    if g.too_large(table) {
                        return Err(Fault::stage1(FaultKind::AddressSize, level));
                    }
                    secure &= d >> 63 & 1 == 0;
                    if !c.hierarchy_disabled {
                        no_el0 |= d >> 61 & 1 != 0;
                        read_only |= d >> 62 & 1 != 0;
                        uxn_table |= d >> 60 & 1 != 0;
                        pxn_table |= d >> 59 & 1 != 0;
                    }
                    break;
                }
                let bits = g.entry_bits(level);
                let out = g.address(d, bits);
                if g.too_large(out) {
                    return Err(Fault::stage1(FaultKind::AddressSize, level));
                }
                // Permissions of the leaf.
                let ap1 = r.two_ranges && d >> 6 & 1 != 0 && !no_el0;
                let mut ap2 = d >> 7 & 1 != 0 || read_only;
                // A clean page under hardware dirty state counts as writable, but writes must come here first.
                let dirty_managed = c.dirty_state && d >> 51 & 1 != 0 && d >> 7 & 1 != 0 && !read_only;
                let write_wanted = self.request.access == Some(Access::Write);
                let mut new = d;
                if d >> 10 & 1 == 0 {
                    if !c.access_flag && self.request.access.is_some() {
                        return Err(Fault::stage1(FaultKind::AccessFlag, level));
                    }
                    new |= 1 << 10;
                }
                if dirty_managed {
                    ap2 = false;
                }
                let m = self.leaf(d, control, &c, Leaf { ap1, ap2, uxn_table, pxn_table, secure, out, bits });
                let write = m.write && (!dirty_managed || write_wanted);
                let m = Mapping { pa: m.pa | (va & ((1 << bits) - 1)), write, ..m };
                let allowed = match self.request.access {
                    None => true,
                    Some(Access::Read) => m.read,
                    Some(Access::Write) => m.write,
                    Some(Access::Fetch) => m.execute,
                };
                if !allowed {
                    return Err(Fault::stage1(FaultKind::Permission, level));
                }
                if dirty_managed && write_wanted {
                    new &= !(1 << 7);
                }
                if new == d || !self.request.update {
                    return Ok(m);
                }
                // Hardware update of the descriptor.
                if self.has_stage2() {
                    place.pa = self.stage2_for_walk(intermediate, true)?;
                }
                match self.replace_descriptor(place, d, new) {
                    Ok(true) => return Ok(m),
                    Ok(false) if tries < UPDATE_TRIES => tries += 1,
                    Ok(false) => return Err(Fault::stage1(FaultKind::AccessFlag, level)),
                    Err(_) => return Err(Fault::stage1(FaultKind::UnsupportedAtomic, level)),
                }
            }
            level += 1;
        }
    }

    fn leaf(&self, d: u64, control: u64, c: &Controls, l: Leaf) -> Mapping {
        let r = self.request.regime;
        let wxn = control & sctlr::WXN != 0;
        let (read, write, execute);
        if r.two_ranges {
            let uxn = d >> 54 & 1 != 0 || l.uxn_table;
            let pxn = d >> 53 & 1 != 0 || l.pxn_table;
            let user_write = l.ap1 && !l.ap2;
            if r.el0 {
                read = l.ap1;
                write = user_write;
                execute = !uxn && !(wxn && write);
            } else {
                let user_executable = control & sctlr::EPAN != 0 && self.has(Feature::Pan3) && !uxn;
                let barred = r.pan && (l.ap1 || user_executable);
                read = !barred;
                write = !barred && !l.ap2;
                execute = !pxn && !user_write && !(wxn && !l.ap2);
            }
        } else {
            let xn = d >> 54 & 1 != 0 || l.uxn_table;
            read = true;
            write = !l.ap2;
            execute = !xn && !(wxn && write);
        }
        let mair = self.cpu.sys_of(family::MAIR, r.el);
        Mapping {
            pa: l.out,
            read,
            write,
            execute,
            attributes: (mair >> (8 * (d >> 2 & 7))) as u8,
            shareability: if c.geometry.ds { c.shareability } else { (d >> 8 & 3) as u8 },
            guarded: self.has(Feature::Bti) && d >> 50 & 1 != 0,
            global: !r.two_ranges || d >> 11 & 1 == 0,
            secure: l.secure && d >> 5 & 1 == 0,
            size_log2: l.bits,
        }
    }
}

/// What the walk found for a leaf.
struct Leaf {
    ap1: bool,
    ap2: bool,
    uxn_table: bool,
    pxn_table: bool,
    secure: bool,
    out: u64,
    bits: u32,
}
