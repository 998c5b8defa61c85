//! The x87 unit (vol. 1, chapter 8): state and arithmetic of 80-bit registers, whose significands are also the MMX registers.

mod environment;
pub mod helpers;
mod stack;

pub use stack::Info;

use rhea_ir::{Slot, Type};
use std::mem::offset_of;

/// Bits of the control word.
pub mod cw {
    /// The six exception masks.
    pub const MASKS: u32 = 0x3f;
    pub const RC_SHIFT: u32 = 10;
    /// After FNINIT.
    pub const INIT: u32 = 0x37f;
    /// Bits that can be written; bit 6 reads as one.
    pub const WRITABLE: u32 = 0x1f3f;
    pub const FIXED: u32 = 0x40;
}

/// Bits of the status word.
pub mod sw {
    /// Invalid operation; the other exceptions follow in bits 1–5 (`rhea_float::extended::exception`).
    pub const IE: u32 = 1;
    /// Stack fault.
    pub const SF: u32 = 64;
    /// Error summary: an unmasked exception waits.
    pub const ES: u32 = 128;
    pub const C0: u32 = 0x100;
    pub const C1: u32 = 0x200;
    pub const C2: u32 = 0x400;
    pub const C3: u32 = 0x4000;
    pub const CC: u32 = C0 | C1 | C2 | C3;
    pub const TOP_SHIFT: u32 = 11;
    /// Busy: a copy of ES.
    pub const B: u32 = 0x8000;
}

/// State of the x87 unit. Registers are numbered physically (R0–R7) unless said otherwise.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X87 {
    /// Significands of R0–R7; MM0–7 are the same.
    pub significand: [u64; 8],
    /// Sign (bit 15) and exponent.
    pub sign_exponent: [u32; 8],
    /// The status word without TOP and B.
    pub(crate) status: u32,
    /// TOP, 0–7.
    pub top: u32,
    /// Bit n: Rn is not empty (the abridged tag word of FXSAVE).
    pub tags: u32,
    pub(crate) control: u32,
    /// Pointers of the last instruction that is not a control instruction: offset and selector, operand likewise, opcode.
    pub fip: u64,
    pub fdp: u64,
    pub fcs: u32,
    pub fds: u32,
    pub fop: u32,
    pub reserved: u32,
}

impl Default for X87 {
    /// After FNINIT.
    fn default() -> X87 {
        X87 {
            significand: [0; 8],
            sign_exponent: [0; 8],
            status: 0,
            top: 0,
            tags: 0,
            control: cw::INIT,
            fip: 0,
            fdp: 0,
            fcs: 0,
            fds: 0,
            fop: 0,
            reserved: 0,
        }
    }
}

impl X87 {
    /// After power-up and RESET: FCW 0x40, all registers +0 and tagged zero.
    #[must_use]
    pub fn reset() -> X87 {
        X87 { control: cw::FIXED, tags: 0xff, ..X87::default() }
    }
    /// FNINIT: the registers' contents stay.
    pub fn init(&mut self) {
        *self = X87 { significand: self.significand, sign_exponent: self.sign_exponent, ..X87::default() };
    }
    #[must_use]
    pub fn control_word(&self) -> u16 {
        self.control as u16
    }
    /// FLDCW, FXRSTOR and so on: ES follows the masks.
    pub fn set_control_word(&mut self, v: u16) {
        self.control = u32::from(v) & cw::WRITABLE | cw::FIXED;
        self.update_summary();
    }
    #[must_use]
    pub fn status_word(&self) -> u16 {
        let b = if self.status & sw::ES != 0 { sw::B } else { 0 };
        (self.status | (self.top & 7) << sw::TOP_SHIFT | b) as u16
    }
    /// Sets the status word and TOP; ES and B follow the exceptions and the masks of the control word (set that first).
    pub fn set_status_word(&mut self, v: u16) {
        let v = u32::from(v);
        self.top = v >> sw::TOP_SHIFT & 7;
        self.status = v & !(7 << sw::TOP_SHIFT | sw::B);
        self.update_summary();
    }
    /// ES from exceptions and masks.
    pub(crate) fn update_summary(&mut self) {
        self.status &= !sw::ES;
        if self.status & !self.control & cw::MASKS != 0 {
            self.status |= sw::ES;
        }
    }
    /// An unmasked exception waits for the next waiting instruction.
    #[must_use]
    pub fn error_pending(&self) -> bool {
        self.status & sw::ES != 0
    }
    /// The abridged tag word: bit n is set if Rn is not empty.
    #[must_use]
    pub fn abridged_tags(&self) -> u8 {
        self.tags as u8
    }
    pub fn set_abridged_tags(&mut self, v: u8) {
        self.tags = v.into();
    }
    /// The full tag word: 0 valid, 1 zero, 2 special, 3 empty, R0 in bits 0–1.
    #[must_use]
    pub fn tag_word(&self) -> u16 {
        let mut w = 0;
        for n in 0..8 {
            let tag = if self.tags & 1 << n == 0 {
                3
            } else {
                match (self.sign_exponent[n] & 0x7fff, self.significand[n]) {
                    (0, 0) => 1,
                    (0 | 0x7fff, _) => 2,
                    (_, s) if s >> 63 == 0 => 2,
                    _ => 0,
                }
            };
            w |= tag << (2 * n);
        }
        w
    }
    /// Of a full tag word only the difference between empty and the rest counts.
    pub fn set_tag_word(&mut self, v: u16) {
        self.tags = (0..8).fold(0, |t, n| if v >> (2 * n) & 3 != 3 { t | 1 << n } else { t });
    }
    /// Physical number of ST(i).
    #[inline]
    #[must_use]
    pub fn physical(&self, i: u32) -> usize {
        (self.top.wrapping_add(i) & 7) as usize
    }
    /// ST(i) as significand, and sign and exponent.
    #[must_use]
    pub fn st(&self, i: u32) -> (u64, u16) {
        let n = self.physical(i);
        (self.significand[n], self.sign_exponent[n] as u16)
    }
    /// Sets ST(i), not its tag.
    pub fn set_st(&mut self, i: u32, significand: u64, sign_exponent: u16) {
        let n = self.physical(i);
        self.significand[n] = significand;
        self.sign_exponent[n] = sign_exponent.into();
    }
    /// True if XSAVE's state component 0 is in its initial configuration.
    #[must_use]
    pub fn is_initial(&self) -> bool {
        *self == X87::default()
    }
}

/// What generated code may touch.
pub mod slots {
    use super::{Slot, Type, X87, offset_of};
    use crate::state::X86Cpu;

    const fn at(offset: usize, ty: Type) -> Slot {
        Slot::new(offset_of!(X86Cpu, x87) + offset, ty)
    }
    /// MM0–7.
    pub const fn mm(n: u32) -> Slot {
        assert!(n < 8);
        at(offset_of!(X87, significand) + 8 * n as usize, Type::I64)
    }
    pub const fn sign_exponent(n: u32) -> Slot {
        assert!(n < 8);
        at(offset_of!(X87, sign_exponent) + 4 * n as usize, Type::I32)
    }
    pub const STATUS: Slot = at(offset_of!(X87, status), Type::I32);
    pub const TOP: Slot = at(offset_of!(X87, top), Type::I32);
    pub const TAGS: Slot = at(offset_of!(X87, tags), Type::I32);
}
