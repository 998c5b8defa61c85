//! The memory-mapped registers of the distributor and of a redistributor (IHI 0069 sections 12.9 and 12.11).

use super::super::banks::Bank;
use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{RegisterDecl, RegisterMap};

/// Bytes of the distributor's frame, and of each of the two frames of a redistributor.
pub const FRAME: u64 = 0x1_0000;
/// Bytes of a redistributor.
pub const REDISTRIBUTOR: u64 = 2 * FRAME;
/// INTIDs have 16 bits (with LPIs).
pub const ID_BITS: u32 = 16;
/// GICD_IIDR, GICR_IIDR, GITS_IIDR: implementer Arm.
pub const IIDR: u64 = 0x43b;

/// PIDR4..7, PIDR0..3, CIDR0..3 from offset 0xFFD0; `part` is the low byte of the part number. Architecture revision 3.
#[must_use]
pub fn identification(part: u8, index: u32) -> u64 {
    const IDS: [u8; 12] = [0x44, 0, 0, 0, 0, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    match index {
        4 => u64::from(part),
        n => IDS.get(n as usize).map_or(0, |b| u64::from(*b)),
    }
}

/// Fields of GICD_CTLR in the Secure view of two security states.
pub mod ctlr {
    pub const GRP0: u32 = 1;
    pub const GRP1_NS: u32 = 1 << 1;
    pub const GRP1_S: u32 = 1 << 2;
    pub const ARE_S: u32 = 1 << 4;
    pub const ARE_NS: u32 = 1 << 5;
    pub const DS: u32 = 1 << 6;
    pub const E1NWF: u32 = 1 << 7;
}

/// Distributor registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gicd {
    Ctlr,
    Typer,
    Iidr,
    Typer2,
    Statusr,
    SetspiNsr,
    ClrspiNsr,
    SetspiSr,
    ClrspiSr,
    Bank(Bank),
    /// RAZ/WI: affinity routing is always on.
    Itargetsr,
    /// RES0 with affinity routing.
    SgiLegacy,
    Irouter,
    Id,
}

pub const GICD: RegisterMap<Gicd> = RegisterMap::new(&[
    RegisterDecl::new(0x0000, 4, ReadWrite, Gicd::Ctlr),
    RegisterDecl::new(0x0004, 4, ReadOnly, Gicd::Typer),
    RegisterDecl::new(0x0008, 4, ReadOnly, Gicd::Iidr),
    RegisterDecl::new(0x000c, 4, ReadOnly, Gicd::Typer2),
    RegisterDecl::new(0x0010, 4, ReadWrite, Gicd::Statusr),
    RegisterDecl::new(0x0040, 4, WriteOnly, Gicd::SetspiNsr),
    RegisterDecl::new(0x0048, 4, WriteOnly, Gicd::ClrspiNsr),
    RegisterDecl::new(0x0050, 4, WriteOnly, Gicd::SetspiSr),
    RegisterDecl::new(0x0058, 4, WriteOnly, Gicd::ClrspiSr),
    RegisterDecl::array(0x0080, 4, ReadWrite, Gicd::Bank(Bank::Group), 32),
    RegisterDecl::array(0x0100, 4, ReadWrite, Gicd::Bank(Bank::SetEnable), 32),
    RegisterDecl::array(0x0180, 4, ReadWrite, Gicd::Bank(Bank::ClearEnable), 32),
    RegisterDecl::array(0x0200, 4, ReadWrite, Gicd::Bank(Bank::SetPending), 32),
    RegisterDecl::array(0x0280, 4, ReadWrite, Gicd::Bank(Bank::ClearPending), 32),
    RegisterDecl::array(0x0300, 4, ReadWrite, Gicd::Bank(Bank::SetActive), 32),
    RegisterDecl::array(0x0380, 4, ReadWrite, Gicd::Bank(Bank::ClearActive), 32),
    RegisterDecl::array(0x0400, 1, ReadWrite, Gicd::Bank(Bank::Priority), 1020),
    RegisterDecl::array(0x0800, 1, ReadWrite, Gicd::Itargetsr, 1020),
    RegisterDecl::array(0x0c00, 4, ReadWrite, Gicd::Bank(Bank::Config), 64),
    RegisterDecl::array(0x0d00, 4, ReadWrite, Gicd::Bank(Bank::GroupModifier), 32),
    RegisterDecl::array(0x0e00, 4, ReadWrite, Gicd::Bank(Bank::NonSecureAccess), 64),
    RegisterDecl::array(0x0f00, 4, ReadWrite, Gicd::SgiLegacy, 12),
    RegisterDecl::array(0x6000, 8, ReadWrite, Gicd::Irouter, 1020),
    RegisterDecl::array(0xffd0, 4, ReadOnly, Gicd::Id, 12),
]);

/// Redistributor registers; offsets from [`FRAME`] are the SGI frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gicr {
    Ctlr,
    Iidr,
    Typer,
    Statusr,
    Waker,
    Setlpir,
    Clrlpir,
    Propbaser,
    Pendbaser,
    Invlpir,
    Invallr,
    Syncr,
    Id,
    Bank(Bank),
}

pub const GICR: RegisterMap<Gicr> = RegisterMap::new(&[
    RegisterDecl::new(0x0000, 4, ReadWrite, Gicr::Ctlr),
    RegisterDecl::new(0x0004, 4, ReadOnly, Gicr::Iidr),
    RegisterDecl::new(0x0008, 8, ReadOnly, Gicr::Typer),
    RegisterDecl::new(0x0010, 4, ReadWrite, Gicr::Statusr),
    RegisterDecl::new(0x0014, 4, ReadWrite, Gicr::Waker),
    RegisterDecl::new(0x0040, 8, WriteOnly, Gicr::Setlpir),
    RegisterDecl::new(0x0048, 8, WriteOnly, Gicr::Clrlpir),
    RegisterDecl::new(0x0070, 8, ReadWrite, Gicr::Propbaser),
    RegisterDecl::new(0x0078, 8, ReadWrite, Gicr::Pendbaser),
    RegisterDecl::new(0x00a0, 8, WriteOnly, Gicr::Invlpir),
    RegisterDecl::new(0x00b0, 8, WriteOnly, Gicr::Invallr),
    RegisterDecl::new(0x00c0, 4, ReadOnly, Gicr::Syncr),
    RegisterDecl::array(0xffd0, 4, ReadOnly, Gicr::Id, 12),
    RegisterDecl::new(0x1_0080, 4, ReadWrite, Gicr::Bank(Bank::Group)),
    RegisterDecl::new(0x1_0100, 4, ReadWrite, Gicr::Bank(Bank::SetEnable)),
    RegisterDecl::new(0x1_0180, 4, ReadWrite, Gicr::Bank(Bank::ClearEnable)),
    RegisterDecl::new(0x1_0200, 4, ReadWrite, Gicr::Bank(Bank::SetPending)),
    RegisterDecl::new(0x1_0280, 4, ReadWrite, Gicr::Bank(Bank::ClearPending)),
    RegisterDecl::new(0x1_0300, 4, ReadWrite, Gicr::Bank(Bank::SetActive)),
    RegisterDecl::new(0x1_0380, 4, ReadWrite, Gicr::Bank(Bank::ClearActive)),
    RegisterDecl::array(0x1_0400, 1, ReadWrite, Gicr::Bank(Bank::Priority), 32),
    RegisterDecl::array(0x1_0c00, 4, ReadWrite, Gicr::Bank(Bank::Config), 2),
    RegisterDecl::new(0x1_0d00, 4, ReadWrite, Gicr::Bank(Bank::GroupModifier)),
    RegisterDecl::new(0x1_0e00, 4, ReadWrite, Gicr::Bank(Bank::NonSecureAccess)),
]);

/// GICR_CTLR: LPIs are on.
pub const CTLR_ENABLE_LPIS: u32 = 1;
/// GICR_CTLR: EnableLPIs can be cleared again.
pub const CTLR_CES: u32 = 1 << 1;
/// GICR_CTLR: DPG0, DPG1NS, DPG1S: no 1-of-N interrupts.
pub const CTLR_DPG: u32 = 7 << 24;
/// GICR_WAKER.
pub const WAKER_SLEEP: u32 = 1 << 1;
pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// The writable bits of GICR_PROPBASER and GICR_PENDBASER.
pub const PROPBASER_MASK: u64 = 0x070f_ffff_ffff_ff9f;
pub const PENDBASER_MASK: u64 = 0x070f_ffff_ffff_0f80;
pub const PENDBASER_PTZ: u64 = 1 << 62;
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

#[cfg(test)]
#[test]
fn maps_are_sound() {
    assert!(GICD.check() && GICR.check());
}
