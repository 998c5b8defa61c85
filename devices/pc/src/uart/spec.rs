//! Registers and fields of the 16550A (National Semiconductor PC16550D data sheet, section 8).

use bitflags::bitflags;

/// Register offsets.
pub(super) mod reg {
    /// RBR for reads, THR for writes; the low divisor byte with LCR.DLAB.
    pub const DATA: u8 = 0;
    /// IER; the high divisor byte with LCR.DLAB.
    pub const IER: u8 = 1;
    /// IIR for reads, FCR for writes.
    pub const IIR: u8 = 2;
    pub const LCR: u8 = 3;
    pub const MCR: u8 = 4;
    pub const LSR: u8 = 5;
    pub const MSR: u8 = 6;
    #[cfg(test)]
    pub const SCR: u8 = 7;
}

bitflags! {
    /// Interrupt enable register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Ier: u8 {
        const ERBFI = 1 << 0;
        const ETBEI = 1 << 1;
        const ELSI = 1 << 2;
        const EDSSI = 1 << 3;
    }

    /// FIFO control register, the bits that stay.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const DMA_MODE = 1 << 3;
        const TRIGGER = 3 << 6;
    }

    /// Line control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Lcr: u8 {
        const WLS = 3;
        const STB = 1 << 2;
        const PEN = 1 << 3;
        const EPS = 1 << 4;
        const STICK = 1 << 5;
        const BREAK = 1 << 6;
        const DLAB = 1 << 7;
    }

    /// Modem control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Lsr: u8 {
        const DR = 1 << 0;
        const OE = 1 << 1;
        const PE = 1 << 2;
        const FE = 1 << 3;
        const BI = 1 << 4;
        const THRE = 1 << 5;
        const TEMT = 1 << 6;
        /// An error of a character in the FIFO.
        const FIFO_ERROR = 1 << 7;
        const CHARACTER = Self::PE.bits() | Self::FE.bits() | Self::BI.bits();
        const ERRORS = Self::OE.bits() | Self::CHARACTER.bits();
    }

    /// Modem status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Msr: u8 {
        const DCTS = 1 << 0;
        const DDSR = 1 << 1;
        const TERI = 1 << 2;
        const DDCD = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        const DELTAS = 0x0f;
    }
}

/// FCR commands, which clear themselves.
pub(super) const FCR_CLEAR_RX: u8 = 1 << 1;
/// The depth of both FIFOs.
pub(super) const DEPTH: usize = 16;
