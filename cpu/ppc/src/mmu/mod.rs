//! Address translation (Book III, chapter 6): hashed page tables with their segments, radix trees, real mode.

mod hash;
pub use hash::PageSizes;
mod physical;
mod radix;
pub(crate) mod seen;
pub mod segments;
pub mod slb;
mod tlbie;

use crate::mode::mmu;
use crate::state::PpcCpu;
use rhea_ir::guest::{Access, Translation};
use rhea_memory::Gpa;

pub(crate) use tlbie::Form;
pub use tlbie::{PageSize, rpt_invalidate};

/// Why an address has no translation, or not one for the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Segment interrupt.
    Segment,
    /// Storage interrupt with these bits of DSISR or SRR1.
    Storage(u64),
}

/// Where an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub pa: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    /// Caching inhibited: misaligned accesses fault.
    pub device: bool,
    /// The same in all contexts.
    pub global: bool,
}

/// Effective addresses of 60 bits reach real storage in real mode.
const REAL_MASK: u64 = 0x0fff_ffff_ffff_ffff;

/// Reads and writes of reference and change bits that lose a race are tried again this often.
const TRIES: u32 = 16;

impl PpcCpu {
    /// Translates an address; `None` for a debugger: nothing is checked or changed.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn translate_address(&mut self, va: u64, access: Option<Access>, index: u32) -> Result<Mapping, Fault> {
        if index == mmu::REAL {
            let pa = va & REAL_MASK;
            return Ok(Mapping { pa, read: true, write: true, execute: true, device: false, global: true });
        }
        let rights = self.rights(index);
        if self.is_radix() { self.radix_walk(va, access, rights) } else { self.hash_walk(va, access, rights) }
    }

    /// The translation of a page for the TLB of an index.
    pub(crate) fn lookup(&mut self, va: u64, access: Option<Access>, index: u32) -> Result<Translation, Fault> {
        let m = self.translate_address(va, access, index)?;
        Ok(Translation {
            page: Gpa(m.pa & !0xfff),
            readable: m.read,
            writable: m.write,
            executable: m.execute,
            device: m.device,
            secure: false,
            slow: self.page_is_watched(va),
            global: m.global,
            code_attrs: 0,
        })
    }
}
