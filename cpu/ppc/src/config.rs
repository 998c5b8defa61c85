//! What a processor of the machine implements.

use crate::mmu::segments::SegmentMap;

/// Version of the architecture; later ones include earlier ones but for what was removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Isa {
    /// POWER8.
    V2_07 = 0,
    /// POWER9.
    #[default]
    V3_0 = 1,
    /// POWER10.
    V3_1 = 2,
}

impl Isa {
    pub const fn from_u32(v: u32) -> Isa {
        match v {
            0 => Isa::V2_07,
            1 => Isa::V3_0,
            _ => Isa::V3_1,
        }
    }
}

/// The same for all processors of a machine.
#[derive(Debug)]
pub struct PpcConfig {
    /// As after `-cpu`.
    pub name: &'static str,
    /// As in the device tree (`PowerPC,POWER9`).
    pub tree_name: &'static str,
    /// Processor version register.
    pub pvr: u32,
    pub isa: Isa,
    /// Entries of the segment lookaside buffer, a power of two up to 64.
    pub slb_entries: u32,
    /// Bits of the decrementer with LPCR.LD (32: there is no large one).
    pub decrementer_bits: u32,
    /// Radix trees can be used.
    pub radix: bool,
    /// Entries of the TLB that software sees (`tlbiel` sets), for the device tree.
    pub tlb_sets: u32,
    /// Hardware threads of a core at most.
    pub max_threads: u32,
    /// Where virtual segments are; filled as the machine runs.
    pub segments: SegmentMap,
}

impl Default for PpcConfig {
    fn default() -> PpcConfig {
        crate::models::POWER10.config()
    }
}
