//! The environment of an operation: rounding, NaN and denormal handling, sticky flags.

use core::ops::{BitOr, BitOrAssign};

/// Rounding modes. The first four have the numbers of Arm's FPCR.RMode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Rounding {
    #[default]
    NearestEven = 0,
    TowardPositive = 1,
    TowardNegative = 2,
    TowardZero = 3,
    /// To nearest, ties away from zero.
    NearestAway = 4,
    /// Inexact results get an odd last place (von Neumann rounding); overflow gives the largest finite number.
    ToOdd = 5,
}

impl Rounding {
    /// From the low two bits, as Arm's RMode.
    #[inline]
    pub const fn from_rmode(rmode: u32) -> Rounding {
        match rmode & 3 {
            0 => Rounding::NearestEven,
            1 => Rounding::TowardPositive,
            2 => Rounding::TowardNegative,
            _ => Rounding::TowardZero,
        }
    }

    /// From the number of a variant; `None` outside 0..=5.
    #[inline]
    pub const fn from_u32(n: u32) -> Option<Rounding> {
        Some(match n {
            0..=3 => Rounding::from_rmode(n),
            4 => Rounding::NearestAway,
            5 => Rounding::ToOdd,
            _ => return None,
        })
    }
}

/// Which NaN an operation returns when operands are NaN, and the sign of the default NaN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum NanRule {
    /// The first signalling operand, else the first quiet one; the addend of a fused multiply-add comes first; infinity
    /// times zero plus a quiet NaN is invalid and gives the default NaN. The default NaN is positive.
    #[default]
    Arm,
    /// The first NaN operand (SSE); multiplicands before the addend. The default NaN is negative.
    X86,
    /// The first NaN operand in the order A, B (addend), C. The default NaN is positive.
    Ppc,
}

/// A set of exception flags. The bits are those of x86's MXCSR, except that `INPUT_DENORMAL` is raised when a denormal
/// input is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Flags(pub u32);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const INVALID: Flags = Flags(1);
    pub const INPUT_DENORMAL: Flags = Flags(1 << 1);
    pub const DIV_BY_ZERO: Flags = Flags(1 << 2);
    pub const OVERFLOW: Flags = Flags(1 << 3);
    pub const UNDERFLOW: Flags = Flags(1 << 4);
    pub const INEXACT: Flags = Flags(1 << 5);
    pub const ALL: Flags = Flags(0x3f);

    // Under `NanRule::Ppc` an invalid operation tells its causes too, named as the bits of the FPSCR.
    pub const VXSNAN: Flags = Flags(1 << 8);
    pub const VXISI: Flags = Flags(1 << 9);
    pub const VXIDI: Flags = Flags(1 << 10);
    pub const VXZDZ: Flags = Flags(1 << 11);
    pub const VXIMZ: Flags = Flags(1 << 12);
    pub const VXVC: Flags = Flags(1 << 13);
    pub const VXSQRT: Flags = Flags(1 << 14);
    pub const VXCVI: Flags = Flags(1 << 15);
    /// All causes of an invalid operation.
    pub const CAUSES: Flags = Flags(0xff00);

    /// The cumulative bits of Arm's FPSR: IOC 0, DZC 1, OFC 2, UFC 3, IXC 4, IDC 7.
    #[inline]
    pub const fn to_fpsr(self) -> u32 {
        (self.0 & 1) | (self.0 >> 1 & 0x1e) | (self.0 & 2) << 6
    }

    /// The inverse of [`Flags::to_fpsr`]; other FPSR bits are ignored.
    #[inline]
    pub const fn from_fpsr(fpsr: u32) -> Flags {
        Flags((fpsr & 1) | (fpsr & 0x1e) << 1 | (fpsr >> 6 & 2))
    }

    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// How operations behave, and the flags they have raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Env {
    pub rounding: Rounding,
    /// Every NaN result is the default NaN.
    pub default_nan: bool,
    /// Denormal inputs are taken as zero, raising `INPUT_DENORMAL`.
    pub flush_inputs: bool,
    /// The same for half precision, raising nothing. Conversions from half precision do not flush.
    pub flush_inputs_f16: bool,
    /// Tiny results become zero, raising `UNDERFLOW`.
    pub flush_outputs: bool,
    /// The same for half precision. Conversions to half precision do not flush.
    pub flush_outputs_f16: bool,
    /// A flushed result raises `INEXACT` too (x86's FTZ).
    pub flush_raises_inexact: bool,
    /// A result is tiny by its exact value, not by its value rounded with unbounded exponent.
    pub tininess_before_rounding: bool,
    /// Conversions take half precision as Arm's alternative format: no infinities and NaNs.
    pub alt_half: bool,
    /// An overflow delivers the result scaled down instead (Power ISA, enabled overflow exception).
    pub trap_overflow: bool,
    /// A tiny result is an underflow even if exact, and is delivered scaled up.
    pub trap_underflow: bool,
    pub nan_rule: NanRule,
    /// Sticky: operations only add to them.
    pub flags: Flags,
}

impl Env {
    /// The IEEE 754 defaults with Arm's NaN rule and tininess; no flags.
    pub const DEFAULT: Env = Env {
        rounding: Rounding::NearestEven,
        default_nan: false,
        flush_inputs: false,
        flush_inputs_f16: false,
        flush_outputs: false,
        flush_outputs_f16: false,
        flush_raises_inexact: false,
        tininess_before_rounding: true,
        alt_half: false,
        trap_overflow: false,
        trap_underflow: false,
        nan_rule: NanRule::Arm,
        flags: Flags::NONE,
    };

    /// From a value of Arm's FPCR: RMode, FZ, DN, AHP, FZ16. No flags.
    #[inline]
    pub const fn arm(fpcr: u32) -> Env {
        let flush = fpcr & 1 << 24 != 0;
        let flush_f16 = fpcr & 1 << 19 != 0;
        Env {
            rounding: Rounding::from_rmode(fpcr >> 22),
            default_nan: fpcr & 1 << 25 != 0,
            flush_inputs: flush,
            flush_inputs_f16: flush_f16,
            flush_outputs: flush,
            flush_outputs_f16: flush_f16,
            alt_half: fpcr & 1 << 26 != 0,
            ..Env::DEFAULT
        }
    }

    /// Arm's `StandardFPSCRValue` (AArch32 AdvSIMD): round to nearest, flush to zero, default NaN; FZ16 and AHP from
    /// `fpscr`.
    #[inline]
    pub const fn arm_standard(fpscr: u32) -> Env {
        Env::arm(fpscr & (1 << 26 | 1 << 19) | 1 << 25 | 1 << 24)
    }

    /// The same with another rounding mode.
    #[inline]
    #[must_use]
    pub const fn with_rounding(mut self, rounding: Rounding) -> Env {
        self.rounding = rounding;
        self
    }

    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    /// Raises invalid, with its cause if the guest records causes.
    #[inline]
    pub fn raise_invalid(&mut self, cause: Flags) {
        self.flags |= Flags::INVALID;
        if self.nan_rule == NanRule::Ppc {
            self.flags |= cause;
        }
    }

    /// The Power ISA's defaults: its NaN rule, tininess before rounding, round to nearest; no flags.
    pub const PPC: Env = Env { nan_rule: NanRule::Ppc, ..Env::DEFAULT };
}
