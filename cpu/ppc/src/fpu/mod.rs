//! Binary floating point outside generated code: FPSCR, and every operation exactly as the architecture has it (Book I,
//! chapter 4; chapter 7 for VSX). Generated code computes results itself and notes what it did; what FPSCR says of the last
//! operation (FR, FI, FPRF) is found here when somebody reads it.

/// An enumeration of operations that generated code names by number: the list of all stands once.
macro_rules! numbered {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $op:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $op,)* }

        impl $name {
            /// The operation of the low eight bits.
            fn from_number(n: u64) -> Option<Self> {
                const ALL: &[$name] = &[$($name::$op,)*];
                ALL.get((n & 0xff) as usize).copied()
            }
        }
    };
}

mod dfp;
mod exact;
mod lanes;
mod scalar;
mod status;
mod vsx;

pub use dfp::{Dfp, DfpOp};
pub use exact::{Exact, Shape};
pub use lanes::{LaneOp, lane};
pub use scalar::{FpOp, Note};
pub use vsx::{Vsx, VsxOp};
pub(crate) use vsx::{test_classes, test_vector};

/// Bits of FPSCR (values).
pub mod fpscr {
    pub const FX: u64 = 1 << 31;
    pub const FEX: u64 = 1 << 30;
    pub const VX: u64 = 1 << 29;
    pub const OX: u64 = 1 << 28;
    pub const UX: u64 = 1 << 27;
    pub const ZX: u64 = 1 << 26;
    pub const XX: u64 = 1 << 25;
    pub const VXSNAN: u64 = 1 << 24;
    pub const VXISI: u64 = 1 << 23;
    pub const VXIDI: u64 = 1 << 22;
    pub const VXZDZ: u64 = 1 << 21;
    pub const VXIMZ: u64 = 1 << 20;
    pub const VXVC: u64 = 1 << 19;
    pub const FR: u64 = 1 << 18;
    pub const FI: u64 = 1 << 17;
    pub const FPRF: u64 = 0x1f << FPRF_SHIFT;
    pub const FPRF_SHIFT: u32 = 12;
    /// FPRF without its class bit.
    pub const FPCC: u64 = 0xf << FPRF_SHIFT;
    pub const VXSOFT: u64 = 1 << 10;
    pub const VXSQRT: u64 = 1 << 9;
    pub const VXCVI: u64 = 1 << 8;
    pub const VE: u64 = 1 << 7;
    pub const OE: u64 = 1 << 6;
    pub const UE: u64 = 1 << 5;
    pub const ZE: u64 = 1 << 4;
    pub const XE: u64 = 1 << 3;
    pub const NI: u64 = 1 << 2;
    pub const RN: u64 = 3;
    pub const DRN: u64 = 7 << 32;
    pub const ENABLES: u64 = VE | OE | UE | ZE | XE;
    /// All causes of VX.
    pub const VX_ALL: u64 = VXSNAN | VXISI | VXIDI | VXZDZ | VXIMZ | VXVC | VXSOFT | VXSQRT | VXCVI;
    /// Exception bits whose becoming one sets FX.
    pub const EXCEPTIONS: u64 = OX | UX | ZX | XX | VX_ALL;
    /// Bits that are not reserved.
    pub const DEFINED: u64 = DRN | 0xffff_f7ff;
}
