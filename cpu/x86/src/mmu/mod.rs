//! Paging (vol. 3, chapter 5).

mod control;
mod linear;
mod physical;

pub use linear::As;

use crate::config::Feature;
use crate::exception::Exception;
use crate::mode::mmu as index;
use crate::state::X86Cpu;
use rhea_ir::guest::Access;

/// Bits of CR0.
pub mod cr0 {
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    pub const ALL: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4.
pub mod cr4 {
    pub const VME: u64 = 1;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
    pub const PKS: u64 = 1 << 24;
}

/// Bits of IA32_EFER.
pub mod efer {
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const SVME: u64 = 1 << 12;
    pub const LMSLE: u64 = 1 << 13;
    pub const FFXSR: u64 = 1 << 14;
}

/// Bits of paging-structure entries.
mod pte {
    pub const P: u64 = 1;
    pub const RW: u64 = 2;
    pub const US: u64 = 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const NX: u64 = 1 << 63;
}

/// Bits of the error code of #PF.
mod code {
    pub const P: u32 = 1;
    pub const W: u32 = 2;
    pub const U: u32 = 4;
    pub const RSVD: u32 = 8;
    pub const I: u32 = 16;
    pub const PK: u32 = 32;
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// Physical address, with the offset in the page.
    pub pa: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub global: bool,
}

/// An entry of the paging-structure cache: the page table that maps 2 MiB (4-level, 5-level and PAE paging).
#[derive(Clone, Copy)]
struct Directory {
    /// Linear address >> 21, and below it the generation.
    tag: u64,
    /// Physical address of the page table.
    table: u64,
    /// Rights so far: US, RW, NX bits as in entries.
    rights: u64,
}

const DIRECTORIES: usize = 64;
const GENERATION_BITS: u32 = 8;

/// What walks of a processor keep from one to the next.
pub(crate) struct Walks {
    /// Counts flushes, in [`GENERATION_BITS`]; entries of other generations are stale.
    generation: u64,
    directories: [Directory; DIRECTORIES],
    pub(crate) linear: linear::Recent,
    /// Which range of the memory map the last entry was in.
    range: usize,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks {
            generation: 0,
            directories: [Directory { tag: u64::MAX, table: 0, rights: 0 }; DIRECTORIES],
            linear: linear::Recent::default(),
            range: 0,
        }
    }
}

impl Walks {
    pub fn flush(&mut self) {
        self.generation = (self.generation + 1) & ((1 << GENERATION_BITS) - 1);
        if self.generation == 0 {
            for d in &mut self.directories {
                d.tag = u64::MAX;
            }
            self.linear.clear();
        }
    }
    /// The tag of the directory entry for a linear address.
    fn directory_tag(&self, va: u64) -> u64 {
        va >> 21 << GENERATION_BITS | self.generation
    }
}

/// What a walk is for.
#[derive(Clone, Copy)]
struct Request {
    /// `None`: a debugger: permissions do not count and nothing is set.
    access: Option<Access>,
    user: bool,
    /// SMAP restricts the access.
    smap: bool,
}

/// The table of a level.
struct Level {
    /// The physical address of the entry.
    at: u64,
    entry: u64,
    /// Log2 of the size that the entry maps.
    shift: u32,
}

impl X86Cpu {
    pub(crate) fn has(&self, f: Feature) -> bool {
        self.config.has(f)
    }
    /// Is the linear address canonical (only asked in long mode)?
    #[inline]
    pub(crate) fn canonical(&self, va: u64) -> bool {
        let unused = if self.cr4 & cr4::LA57 != 0 { 7 } else { 16 };
        ((va << unused) as i64 >> unused) as u64 == va
    }
    /// The same for values of registers (bases, MSRs) and operands of invalidations, which go by what the processor has,
    /// whatever CR4.LA57 says.
    pub(crate) fn canonical_value(&self, va: u64) -> bool {
        let unused = 64 - self.config.linear_bits.clamp(48, 57);
        ((va << unused) as i64 >> unused) as u64 == va
    }
    /// MAXPHYADDR.
    pub(crate) fn physical_bits(&self) -> u32 {
        self.config.physical_bits.clamp(32, 52)
    }
    /// Walks for `va` under an MMU index ([`crate::mode::mmu`]); `access` `None` is a debugger's. A non-canonical address is
    /// #GP(0) (the caller makes #SS of it).
    pub(crate) fn translate(&mut self, va: u64, access: Option<Access>, idx: u32) -> Result<Mapping, Exception> {
        let base = if idx >= index::SMM { idx - index::SMM } else { idx };
        let r = Request { access, user: base == index::USER, smap: base == index::SUPERVISOR_SMAP };
        if self.cr0 & cr0::PG == 0 {
            let pa = va & 0xffff_ffff & self.a20_mask;
            return Ok(Mapping { pa, read: true, write: true, execute: true, global: false });
        }
        if self.lma() {
            if !self.canonical(va) {
                return Err(Exception::gp(0));
            }
            let top = if self.cr4 & cr4::LA57 != 0 { 48 } else { 39 };
            self.walk_long(va, &r, self.cr3 & self.frame_mask(12), top, pte::US | pte::RW)
        } else if self.cr4 & cr4::PAE != 0 {
            let va = va & 0xffff_ffff;
            let pdpte = self.pdpte[(va >> 30) as usize & 3];
            if pdpte & pte::P == 0 {
                return Err(self.page_fault(va, &r, 0));
            }
            self.walk_long(va, &r, pdpte & self.frame_mask(12), 21, pte::US | pte::RW)
        } else {
            self.walk_32(va & 0xffff_ffff, &r)
        }
    }
    /// Address bits of an entry that maps or points to `1 << shift` bytes.
    fn frame_mask(&self, shift: u32) -> u64 {
        ((1 << self.physical_bits()) - 1) & !((1 << shift) - 1)
    }
    fn page_fault(&self, va: u64, r: &Request, bits: u32) -> Exception {
        let mut c = bits;
        if r.user {
            c |= code::U;
        }
        match r.access {
            Some(Access::Write) => c |= code::W,
            Some(Access::Fetch) if self.efer & efer::NXE != 0 || self.cr4 & cr4::SMEP != 0 => c |= code::I,
            _ => {}
        }
        Exception::page_fault(va, c)
    }

    /// 8-byte entries: 4-level, 5-level and PAE paging, from the table at `table` whose entries map `1 << shift` bytes.
    fn walk_long(
        &mut self,
        va: u64,
        r: &Request,
        mut table: u64,
        mut shift: u32,
        mut rights: u64,
    ) -> Result<Mapping, Exception> {
        let nxe = self.efer & efer::NXE != 0;
        let mut reserved = !(u64::MAX >> (64 - self.physical_bits())) & 0x000f_ffff_ffff_f000;
        if !self.lma() {
            // Of PAE entries bits 62 down to MAXPHYADDR are reserved.
            reserved |= 0x7ff0_0000_0000_0000;
        }
        if !nxe {
            reserved |= pte::NX;
        }
        let slot = (va >> 21) as usize % DIRECTORIES;
        let d = self.walks.directories[slot];
        if d.tag == self.walks.directory_tag(va) {
            (table, rights, shift) = (d.table, d.rights, 12);
        }
        loop {
            let at = table | (va >> shift & 511) << 3;
            let mut entry = self.read_entry(at, 8);
            loop {
                if entry & pte::P == 0 {
                    return Err(self.page_fault(va, r, 0));
                }
                let large = shift > 12 && entry & pte::PS != 0;
                let mut bad = reserved;
                if large {
                    let possible = shift == 21 || (shift == 30 && self.has(Feature::Pdpe1gb));
                    bad |= if possible { (1 << shift) - 1 & !0x1fff } else { pte::PS };
                } else if shift >= 39 {
                    bad |= pte::PS;
                }
                if entry & bad != 0 {
                    return Err(self.page_fault(va, r, code::P | code::RSVD));
                }
                if large || shift == 12 {
                    let all = (rights & entry & (pte::US | pte::RW)) | ((rights | entry) & pte::NX);
                    match self.leaf(va, r, Level { at, entry, shift }, all, 8)? {
                        Ok(m) => return Ok(m),
                        Err(now) => {
                            entry = now;
                            continue;
                        }
                    }
                }
                if r.access.is_some() && entry & pte::A == 0 {
                    let now = self.replace_entry(at, 8, entry, entry | pte::A);
                    if now != entry {
                        entry = now;
                        continue;
                    }
                }
                break;
            }
            rights = (rights & entry & (pte::US | pte::RW)) | ((rights | entry) & pte::NX);
            table = entry & self.frame_mask(12);
            if shift == 21 && r.access.is_some() {
                let tag = self.walks.directory_tag(va);
                self.walks.directories[slot] = Directory { tag, table, rights };
            }
            shift -= 9;
        }
    }

    /// 4-byte entries.
    fn walk_32(&mut self, va: u64, r: &Request) -> Result<Mapping, Exception> {
        let table = self.cr3 & 0xffff_f000;
        let at = table | (va >> 22) << 2;
        let mut entry = self.read_entry(at, 4);
        loop {
            if entry & pte::P == 0 {
                return Err(self.page_fault(va, r, 0));
            }
            if entry & pte::PS == 0 || self.cr4 & cr4::PSE == 0 {
                if r.access.is_some() && entry & pte::A == 0 {
                    let now = self.replace_entry(at, 4, entry, entry | pte::A);
                    if now != entry {
                        entry = now;
                        continue;
                    }
                }
                break;
            }
            // PSE-36: bits 13–20 are address bits 32–39, as far as they exist; bit 21 is reserved.
            let extra = if self.has(Feature::Pse36) { self.physical_bits().min(40) - 32 } else { 0 };
            let reserved = 0x3f_e000 & !(((1u64 << extra) - 1) << 13);
            if entry & reserved != 0 {
                return Err(self.page_fault(va, r, code::P | code::RSVD));
            }
            match self.leaf(va, r, Level { at, entry, shift: 22 }, entry & (pte::US | pte::RW), 4)? {
                Ok(m) => return Ok(m),
                Err(now) => entry = now,
            }
        }
        let rights = entry & (pte::US | pte::RW);
        let at = entry & 0xffff_f000 | (va >> 12 & 1023) << 2;
        let mut entry = self.read_entry(at, 4);
        loop {
            if entry & pte::P == 0 {
                return Err(self.page_fault(va, r, 0));
            }
            match self.leaf(va, r, Level { at, entry, shift: 12 }, rights & entry, 4)? {
                Ok(m) => return Ok(m),
                Err(now) => entry = now,
            }
        }
    }

    /// The entry that maps the page: rights, accessed and dirty flags. `Ok(Err(entry))`: it has changed meanwhile.
    fn leaf(
        &mut self,
        va: u64,
        r: &Request,
        l: Level,
        rights: u64,
        size: u8,
    ) -> Result<Result<Mapping, u64>, Exception> {
        let user_page = rights & pte::US != 0;
        let wp = self.cr0 & cr0::WP != 0;
        let (mut read, mut write, execute);
        if r.user {
            read = user_page;
            write = user_page && rights & pte::RW != 0;
            execute = user_page && rights & pte::NX == 0;
        } else {
            let kept_out = user_page && r.smap;
            read = !kept_out;
            write = !kept_out && (rights & pte::RW != 0 || !wp);
            execute = rights & pte::NX == 0 && !(user_page && self.cr4 & cr4::SMEP != 0);
        }
        let mut bits = code::P;
        // Protection keys: PKRU for user pages, IA32_PKRS for the others.
        let (enable, keys) = if user_page { (cr4::PKE, self.pkru) } else { (cr4::PKS, self.msr.pkrs) };
        if self.cr4 & enable != 0 && self.lma() {
            let key = (l.entry >> 59 & 15) as u32;
            let (ad, wd) = (keys >> (2 * key) & 1 != 0, keys >> (2 * key + 1) & 1 != 0);
            let no_write = ad || (wd && (r.user || wp));
            if (r.access == Some(Access::Read) && ad) || (r.access == Some(Access::Write) && no_write) {
                bits |= code::PK;
            }
            read &= !ad;
            write &= !no_write;
        }
        let allowed = match r.access {
            None => true,
            Some(Access::Read) => read,
            Some(Access::Write) => write,
            Some(Access::Fetch) => execute,
        };
        if !allowed {
            return Err(self.page_fault(va, r, bits));
        }
        let mut entry = l.entry;
        if let Some(access) = r.access {
            let set = if access == Access::Write { pte::A | pte::D } else { pte::A };
            if entry & set != set {
                let now = self.replace_entry(l.at, size, entry, entry | set);
                if now != entry {
                    return Ok(Err(now));
                }
                entry |= set;
            }
            // The first write must come here to set the dirty flag.
            write &= entry & pte::D != 0;
        }
        let offset = va & ((1 << l.shift) - 1);
        let frame = if size == 8 {
            entry & self.frame_mask(l.shift)
        } else if l.shift == 22 {
            entry & 0xffc0_0000 | (entry & 0x1f_e000) << 19
        } else {
            entry & 0xffff_f000
        };
        let global = entry & pte::G != 0 && self.cr4 & cr4::PGE != 0;
        Ok(Ok(Mapping { pa: (frame | offset) & self.a20_mask, read, write, execute, global }))
    }
}
