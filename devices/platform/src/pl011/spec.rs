//! Registers and fields of the PL011 (ARM DDI 0183, chapters 3 and 4).

use bitflags::bitflags;
use rhea_device::RegisterRules::{ReadOnly, ReadWrite, WriteOnly};
use rhea_device::{RegisterDecl, RegisterMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Dr,
    /// UARTRSR for reads, UARTECR for writes.
    Rsr,
    Fr,
    Ilpr,
    Ibrd,
    Fbrd,
    LcrH,
    Cr,
    Ifls,
    Imsc,
    Ris,
    Mis,
    Icr,
    Dmacr,
    Tcr,
    Itip,
    Itop,
    Tdr,
    Id,
}

pub(super) const MAP: RegisterMap<Reg> = RegisterMap::new(&[
    RegisterDecl::new(0x000, 4, ReadWrite, Reg::Dr),
    RegisterDecl::new(0x004, 4, ReadWrite, Reg::Rsr),
    RegisterDecl::new(0x018, 4, ReadOnly, Reg::Fr),
    RegisterDecl::new(0x020, 4, ReadWrite, Reg::Ilpr),
    RegisterDecl::new(0x024, 4, ReadWrite, Reg::Ibrd),
    RegisterDecl::new(0x028, 4, ReadWrite, Reg::Fbrd),
    RegisterDecl::new(0x02c, 4, ReadWrite, Reg::LcrH),
    RegisterDecl::new(0x030, 4, ReadWrite, Reg::Cr),
    RegisterDecl::new(0x034, 4, ReadWrite, Reg::Ifls),
    RegisterDecl::new(0x038, 4, ReadWrite, Reg::Imsc),
    RegisterDecl::new(0x03c, 4, ReadOnly, Reg::Ris),
    RegisterDecl::new(0x040, 4, ReadOnly, Reg::Mis),
    RegisterDecl::new(0x044, 4, WriteOnly, Reg::Icr),
    RegisterDecl::new(0x048, 4, ReadWrite, Reg::Dmacr),
    RegisterDecl::new(0x080, 4, ReadWrite, Reg::Tcr),
    RegisterDecl::new(0x084, 4, ReadWrite, Reg::Itip),
    RegisterDecl::new(0x088, 4, ReadWrite, Reg::Itop),
    RegisterDecl::new(0x08c, 4, ReadWrite, Reg::Tdr),
    RegisterDecl::array(0xfe0, 4, ReadOnly, Reg::Id, 8),
]);

/// UARTDR: framing, parity, break and overrun error of the character.
pub(super) mod dr {
    pub const FE: u16 = 1 << 8;
    pub const PE: u16 = 1 << 9;
    pub const BE: u16 = 1 << 10;
    pub const OE: u16 = 1 << 11;
}

bitflags! {
    /// UARTCR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Cr: u16 {
        const UARTEN = 1 << 0;
        const SIREN = 1 << 1;
        const SIRLP = 1 << 2;
        const LBE = 1 << 7;
        const TXE = 1 << 8;
        const RXE = 1 << 9;
        const DTR = 1 << 10;
        const RTS = 1 << 11;
        const OUT1 = 1 << 12;
        const OUT2 = 1 << 13;
        const RTSEN = 1 << 14;
        const CTSEN = 1 << 15;
    }

    /// UARTFR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Fr: u16 {
        const CTS = 1 << 0;
        const DSR = 1 << 1;
        const DCD = 1 << 2;
        const BUSY = 1 << 3;
        const RXFE = 1 << 4;
        const TXFF = 1 << 5;
        const RXFF = 1 << 6;
        const TXFE = 1 << 7;
        const RI = 1 << 8;
    }

    /// The interrupts of UARTIMSC, UARTRIS, UARTMIS and UARTICR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Int: u16 {
        const RI = 1 << 0;
        const CTS = 1 << 1;
        const DCD = 1 << 2;
        const DSR = 1 << 3;
        const RX = 1 << 4;
        const TX = 1 << 5;
        const RT = 1 << 6;
        const FE = 1 << 7;
        const PE = 1 << 8;
        const BE = 1 << 9;
        const OE = 1 << 10;
    }

    /// UARTLCR_H.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct LcrH: u8 {
        const BRK = 1 << 0;
        const PEN = 1 << 1;
        const EPS = 1 << 2;
        const STP2 = 1 << 3;
        const FEN = 1 << 4;
        const WLEN = 3 << 5;
        const SPS = 1 << 7;
    }

    /// UARTTCR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Tcr: u8 {
        const ITEN = 1 << 0;
        const TESTFIFO = 1 << 1;
        const SIRTEST = 1 << 2;
    }
}

/// The interrupt outputs in UARTITOP, UARTINTR included.
pub(super) const ITOP_INTERRUPTS: u16 = 0x0fc0;
/// The depth of both FIFOs when they are enabled.
pub(super) const DEPTH: usize = 16;
