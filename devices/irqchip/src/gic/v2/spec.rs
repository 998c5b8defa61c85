//! Registers of the GICv2 (IHI 0048B chapters 4 and 5) and of the GICv2m frame.

use super::super::banks::Bank;
use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{RegisterDecl, RegisterMap};

pub const MAX_CPUS: usize = 8;
pub const GICD_SIZE: u64 = 0x1000;
pub const GICC_SIZE: u64 = 0x2000;
pub const GICH_SIZE: u64 = 0x1000;
pub const GICV_SIZE: u64 = 0x2000;
/// Implementer Arm; GICD, and GICC/GICV with architecture version 2.
pub const GICD_IIDR: u64 = 0x0200_043b;
pub const GICC_IIDR: u64 = 0x0202_043b;

/// PIDR4..7, PIDR0..3, CIDR0..3 from offset 0xFD0: architecture revision 2.
#[must_use]
pub fn identification(index: u32) -> u64 {
    const IDS: [u8; 12] = [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    IDS.get(index as usize).map_or(0, |b| u64::from(*b))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gicd {
    Ctlr,
    Typer,
    Iidr,
    Bank(Bank),
    Itargetsr,
    Sgir,
    Cpendsgir,
    Spendsgir,
    Id,
}

pub const GICD: RegisterMap<Gicd> = RegisterMap::new(&[
    RegisterDecl::new(0x000, 4, ReadWrite, Gicd::Ctlr),
    RegisterDecl::new(0x004, 4, ReadOnly, Gicd::Typer),
    RegisterDecl::new(0x008, 4, ReadOnly, Gicd::Iidr),
    RegisterDecl::array(0x080, 4, ReadWrite, Gicd::Bank(Bank::Group), 32),
    RegisterDecl::array(0x100, 4, ReadWrite, Gicd::Bank(Bank::SetEnable), 32),
    RegisterDecl::array(0x180, 4, ReadWrite, Gicd::Bank(Bank::ClearEnable), 32),
    RegisterDecl::array(0x200, 4, ReadWrite, Gicd::Bank(Bank::SetPending), 32),
    RegisterDecl::array(0x280, 4, ReadWrite, Gicd::Bank(Bank::ClearPending), 32),
    RegisterDecl::array(0x300, 4, ReadWrite, Gicd::Bank(Bank::SetActive), 32),
    RegisterDecl::array(0x380, 4, ReadWrite, Gicd::Bank(Bank::ClearActive), 32),
    RegisterDecl::array(0x400, 1, ReadWrite, Gicd::Bank(Bank::Priority), 1020),
    RegisterDecl::array(0x800, 1, ReadWrite, Gicd::Itargetsr, 1020),
    RegisterDecl::array(0xc00, 4, ReadWrite, Gicd::Bank(Bank::Config), 64),
    RegisterDecl::array(0xe00, 4, ReadWrite, Gicd::Bank(Bank::NonSecureAccess), 64),
    RegisterDecl::new(0xf00, 4, WriteOnly, Gicd::Sgir),
    RegisterDecl::array(0xf10, 1, ReadWrite, Gicd::Cpendsgir, 16),
    RegisterDecl::array(0xf20, 1, ReadWrite, Gicd::Spendsgir, 16),
    RegisterDecl::array(0xfd0, 4, ReadOnly, Gicd::Id, 12),
]);

/// Registers of GICC and of GICV, which has the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gicc {
    Ctlr,
    Pmr,
    Bpr,
    Iar,
    Eoir,
    Rpr,
    Hppir,
    Abpr,
    Aiar,
    Aeoir,
    Ahppir,
    Apr,
    Nsapr,
    Iidr,
    Dir,
}

pub const GICC: RegisterMap<Gicc> = RegisterMap::new(&[
    RegisterDecl::new(0x000, 4, ReadWrite, Gicc::Ctlr),
    RegisterDecl::new(0x004, 4, ReadWrite, Gicc::Pmr),
    RegisterDecl::new(0x008, 4, ReadWrite, Gicc::Bpr),
    RegisterDecl::new(0x00c, 4, ReadOnly, Gicc::Iar),
    RegisterDecl::new(0x010, 4, WriteOnly, Gicc::Eoir),
    RegisterDecl::new(0x014, 4, ReadOnly, Gicc::Rpr),
    RegisterDecl::new(0x018, 4, ReadOnly, Gicc::Hppir),
    RegisterDecl::new(0x01c, 4, ReadWrite, Gicc::Abpr),
    RegisterDecl::new(0x020, 4, ReadOnly, Gicc::Aiar),
    RegisterDecl::new(0x024, 4, WriteOnly, Gicc::Aeoir),
    RegisterDecl::new(0x028, 4, ReadOnly, Gicc::Ahppir),
    RegisterDecl::array(0x0d0, 4, ReadWrite, Gicc::Apr, 4),
    RegisterDecl::array(0x0e0, 4, ReadWrite, Gicc::Nsapr, 4),
    RegisterDecl::new(0x0fc, 4, ReadOnly, Gicc::Iidr),
    RegisterDecl::new(0x1000, 4, WriteOnly, Gicc::Dir),
]);

/// Fields of GICC_CTLR, Secure view; the virtual interface has its own at the places of GICH_VMCR.
pub mod ctlr {
    pub const GRP0: u32 = 1;
    pub const GRP1: u32 = 1 << 1;
    pub const ACKCTL: u32 = 1 << 2;
    pub const FIQEN: u32 = 1 << 3;
    pub const CBPR: u32 = 1 << 4;
    /// Bypass disables: held, without effect (there are no legacy inputs).
    pub const BYPASS: u32 = 0xf << 5;
    pub const EOIMODE: u32 = 1 << 9;
    pub const EOIMODE_NS: u32 = 1 << 10;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gich {
    Hcr,
    Vtr,
    Vmcr,
    Misr,
    Eisr,
    Elrsr,
    Apr,
    Lr,
}

pub const GICH: RegisterMap<Gich> = RegisterMap::new(&[
    RegisterDecl::new(0x000, 4, ReadWrite, Gich::Hcr),
    RegisterDecl::new(0x004, 4, ReadOnly, Gich::Vtr),
    RegisterDecl::new(0x008, 4, ReadWrite, Gich::Vmcr),
    RegisterDecl::new(0x010, 4, ReadOnly, Gich::Misr),
    RegisterDecl::array(0x020, 4, ReadOnly, Gich::Eisr, 2),
    RegisterDecl::array(0x030, 4, ReadOnly, Gich::Elrsr, 2),
    RegisterDecl::new(0x0f0, 4, ReadWrite, Gich::Apr),
    RegisterDecl::array(0x100, 4, ReadWrite, Gich::Lr, 64),
]);

#[cfg(test)]
#[test]
fn maps_are_sound() {
    assert!(GICD.check() && GICC.check() && GICH.check());
}
