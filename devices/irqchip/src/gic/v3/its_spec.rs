//! Registers, commands and table entries of the ITS (IHI 0069 sections 5.2, 5.3, 12.19). The table entries are this ITS's own: 8 bytes
//! each, valid in bit 63.

use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{RegisterDecl, RegisterMap};

/// The control frame and the translation frame.
pub const ITS_SIZE: u64 = 0x2_0000;
/// Offset of GITS_TRANSLATER.
pub const TRANSLATER: u64 = 0x1_0040;
/// DeviceIDs and collection ids have 16 bits.
pub const DEVICE_BITS: u32 = 16;
pub const COLLECTION_BITS: u32 = 16;
/// EventIDs have up to 16 bits.
pub const EVENT_BITS: u32 = 16;
/// Bytes of every table entry.
pub const ENTRY: u64 = 8;
pub const VALID: u64 = 1 << 63;
/// Bytes of a command.
pub const COMMAND: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gits {
    Ctlr,
    Iidr,
    Typer,
    Cbaser,
    Cwriter,
    Creadr,
    Baser,
    Id,
    Translater,
}

pub const GITS: RegisterMap<Gits> = RegisterMap::new(&[
    RegisterDecl::new(0x0000, 4, ReadWrite, Gits::Ctlr),
    RegisterDecl::new(0x0004, 4, ReadOnly, Gits::Iidr),
    RegisterDecl::new(0x0008, 8, ReadOnly, Gits::Typer),
    RegisterDecl::new(0x0080, 8, ReadWrite, Gits::Cbaser),
    RegisterDecl::new(0x0088, 8, ReadWrite, Gits::Cwriter),
    RegisterDecl::new(0x0090, 8, ReadOnly, Gits::Creadr),
    RegisterDecl::array(0x0100, 8, ReadWrite, Gits::Baser, 8),
    RegisterDecl::array(0xffd0, 4, ReadOnly, Gits::Id, 12),
    RegisterDecl::new(TRANSLATER, 4, WriteOnly, Gits::Translater),
]);

/// GITS_TYPER: physical LPIs, entry size, event, device and collection bits; processors are named by number (PTA = 0).
pub const TYPER: u64 = 1
    | (ENTRY - 1) << 4
    | (EVENT_BITS as u64 - 1) << 8
    | (DEVICE_BITS as u64 - 1) << 13
    | (COLLECTION_BITS as u64 - 1) << 32
    | 1 << 36;

pub const CTLR_ENABLED: u32 = 1;
pub const CTLR_QUIESCENT: u32 = 1 << 31;

/// Writable bits of GITS_CBASER; of GITS_CWRITER and GITS_CREADR the offset.
pub const CBASER_MASK: u64 = VALID | 0x38e0_0000_0000_0000 | 0x000f_ffff_ffff_f000 | 0xc00 | 0xff;
pub const OFFSET_MASK: u64 = 0xf_ffe0;
/// GITS_CREADR.Stalled.
pub const STALLED: u64 = 1;

/// GITS_BASER0 holds devices, GITS_BASER1 collections.
pub const DEVICES: usize = 0;
pub const COLLECTIONS: usize = 1;
/// The read-only part of GITS_BASER: type and entry size.
pub const BASER_FIXED: [u64; 2] = [1 << 56 | (ENTRY - 1) << 48, 4 << 56 | (ENTRY - 1) << 48];
pub const BASER_INDIRECT: u64 = 1 << 62;
pub const BASER_MASK: u64 =
    VALID | BASER_INDIRECT | 0x38e0_0000_0000_0000 | 0x0000_ffff_ffff_f000 | 0xc00 | 0x300 | 0xff;

/// Command numbers.
pub mod cmd {
    pub const MOVI: u8 = 0x01;
    pub const INT: u8 = 0x03;
    pub const CLEAR: u8 = 0x04;
    pub const SYNC: u8 = 0x05;
    pub const MAPD: u8 = 0x08;
    pub const MAPC: u8 = 0x09;
    pub const MAPTI: u8 = 0x0a;
    pub const MAPI: u8 = 0x0b;
    pub const INV: u8 = 0x0c;
    pub const INVALL: u8 = 0x0d;
    pub const MOVALL: u8 = 0x0e;
    pub const DISCARD: u8 = 0x0f;
}

#[cfg(test)]
#[test]
fn map_is_sound() {
    assert!(GITS.check());
}
