//! EFLAGS: its bits, and how the status flags are kept (Intel SDM vol. 1, 3.4.3).

use crate::state::X86Cpu;

pub const CF: u32 = 1;
pub const PF: u32 = 1 << 2;
pub const AF: u32 = 1 << 4;
pub const ZF: u32 = 1 << 6;
pub const SF: u32 = 1 << 7;
pub const TF: u32 = 1 << 8;
pub const IF: u32 = 1 << 9;
pub const DF: u32 = 1 << 10;
pub const OF: u32 = 1 << 11;
pub const IOPL: u32 = 3 << 12;
pub const NT: u32 = 1 << 14;
pub const RF: u32 = 1 << 16;
pub const VM: u32 = 1 << 17;
pub const AC: u32 = 1 << 18;
pub const VIF: u32 = 1 << 19;
pub const VIP: u32 = 1 << 20;
pub const ID: u32 = 1 << 21;
/// Bit 1 always reads as one.
pub const FIXED: u32 = 2;
/// The flags that instructions compute.
pub const STATUS: u32 = CF | PF | AF | ZF | SF | OF;

/// Bits of packed flags (`rhea_ir::op`).
pub mod packed {
    pub const N: u32 = 1 << 15;
    pub const Z: u32 = 1 << 14;
    pub const C: u32 = 1 << 8;
    pub const V: u32 = 1;
    pub const P: u32 = 1 << 10;
    pub const A: u32 = 1 << 12;
}

impl X86Cpu {
    /// CF, PF, AF, ZF, SF and OF.
    #[must_use]
    pub fn status_flags(&self) -> u32 {
        let mut f = 0;
        if self.cf & packed::C != 0 {
            f |= CF;
        }
        if self.cc & packed::P != 0 {
            f |= PF;
        }
        if self.cc & packed::A != 0 {
            f |= AF;
        }
        if self.cc & packed::Z != 0 {
            f |= ZF;
        }
        if self.cc & packed::N != 0 {
            f |= SF;
        }
        if self.cc & packed::V != 0 {
            f |= OF;
        }
        f
    }
    /// Sets CF, PF, AF, ZF, SF and OF from an EFLAGS image.
    pub fn set_status_flags(&mut self, f: u32) {
        let packed = |flag: u32, bit: u32| if f & flag != 0 { bit } else { 0 };
        self.cc = packed(SF, packed::N) | packed(ZF, packed::Z) | packed(CF, packed::C) | packed(OF, packed::V);
        self.cc |= packed(PF, packed::P) | packed(AF, packed::A);
        self.cf = self.cc;
    }
    /// The whole of EFLAGS as PUSHF sees it, with RF and VM.
    #[must_use]
    pub fn rflags(&self) -> u32 {
        self.eflags | self.status_flags()
    }
}
