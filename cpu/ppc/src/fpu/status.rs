//! FPSCR: gathering what generated code left, and writes.

use super::fpscr::*;
use super::scalar::Note;
use crate::bits::msr;
use crate::exception::{Vector, program};
use crate::state::PpcCpu;
use rhea_float::{Env, Flags, Rounding};

/// Bits of FPSCR that an operation's flags set.
pub(super) fn bits_of(flags: Flags) -> u64 {
    const MAP: [(Flags, u64); 12] = [
        (Flags::OVERFLOW, OX),
        (Flags::UNDERFLOW, UX),
        (Flags::DIV_BY_ZERO, ZX),
        (Flags::INEXACT, XX),
        (Flags::VXSNAN, VXSNAN),
        (Flags::VXISI, VXISI),
        (Flags::VXIDI, VXIDI),
        (Flags::VXZDZ, VXZDZ),
        (Flags::VXIMZ, VXIMZ),
        (Flags::VXVC, VXVC),
        (Flags::VXSQRT, VXSQRT),
        (Flags::VXCVI, VXCVI),
    ];
    MAP.iter().filter(|m| flags.contains(m.0)).fold(0, |r, m| r | m.1)
}

/// The enable bits whose exceptions are set in `v`: VE, OE, UE, ZE, XE.
pub(super) fn enabled(v: u64, enables: u64) -> bool {
    let vx = if v & VX_ALL != 0 { VE } else { 0 };
    // OX, UX, ZX, XX are 22 places above their enables.
    let others = v >> 22 & (OE | UE | ZE | XE);
    (vx | others) & enables != 0
}

/// FPSCR with its summary bits VX and FEX.
fn summary(v: u64) -> u64 {
    let mut v = v & !(VX | FEX);
    if v & VX_ALL != 0 {
        v |= VX;
    }
    if enabled(v, v & ENABLES) {
        v |= FEX;
    }
    v
}

impl PpcCpu {
    /// The environment of FPSCR's rounding mode, no flags.
    pub(crate) fn fp_env(&self) -> Env {
        let rounding = match self.fpscr & RN {
            0 => Rounding::NearestEven,
            1 => Rounding::TowardZero,
            2 => Rounding::TowardPositive,
            _ => Rounding::TowardNegative,
        };
        Env { rounding, ..Env::PPC }
    }

    /// Brings FPSCR up to date: `flags` are the sticky flags that were gathered.
    pub(crate) fn fold_fp(&mut self, flags: u32) {
        self.fp_sticky(bits_of(Flags(flags)));
        if self.fp_op != 0 {
            let note = Note(self.fp_op);
            self.fp_op = 0;
            let [a, b, c] = self.fp_args;
            let mut env = self.fp_env();
            let r = note.compute(a, b, c, &mut env);
            self.fpscr = self.fpscr & !(FR | FI) | note.fr_fi(r, env.flags, a, b, c);
            if let Some(f) = note.fprf(r, env.flags) {
                self.fpscr = self.fpscr & !FPRF | f;
            }
        }
        if self.fp_cc != 0 {
            // Packed flags of a compare: N less, Z equal, V unordered.
            let f = self.fp_cc;
            self.fp_cc = 0;
            let cc = match f {
                f if f & 1 != 0 => 1,
                f if f & 1 << 14 != 0 => 2,
                f if f & 1 << 15 != 0 => 8,
                _ => 4,
            };
            self.fpscr = self.fpscr & !FPCC | cc << FPRF_SHIFT;
        }
        self.fpscr = summary(self.fpscr);
    }

    /// Adds exception bits; FX if one is new.
    fn fp_sticky(&mut self, new: u64) {
        if new & !self.fpscr != 0 {
            self.fpscr |= FX;
        }
        self.fpscr |= new;
    }

    /// FPSCR up to date, outside generated code.
    pub fn read_fpscr(&mut self) -> u64 {
        self.fold_fp(self.header.fp_flags);
        self.fpscr
    }

    /// Replaces FPSCR (the summary bits follow) outside generated code and instructions: debugger, restored state.
    pub fn set_fpscr(&mut self, v: u64) {
        self.header.fp_flags = 0;
        self.fp_op = 0;
        self.fp_cc = 0;
        self.fpscr = summary(v & DEFINED);
        self.rebuild_mode();
    }

    /// FPSCR as an instruction writes it: an enabled exception that it makes raises the interrupt.
    pub(crate) fn write_fpscr(&mut self, v: u64) {
        let before = self.fpscr;
        self.set_fpscr(v);
        if self.fpscr & FEX != 0 && before != self.fpscr {
            self.fp_interrupt();
        }
    }

    /// The program interrupt of an enabled exception, unless MSR ignores them.
    pub(super) fn fp_interrupt(&mut self) {
        if self.msr & (msr::FE0 | msr::FE1) != 0 {
            self.raise(Vector::Program, program::FP);
        }
    }

    /// After an operation done here: exception bits, and if given FR, FI and FPRF (of which a mask says which are replaced).
    /// Raises the interrupt for what is enabled among the new exceptions.
    pub(crate) fn fp_done(&mut self, flags: Flags, mask: u64, status: u64) {
        let new = bits_of(flags);
        self.fp_sticky(new);
        self.fpscr = summary(self.fpscr & !mask | status & mask);
        if enabled(new, self.fpscr & ENABLES) {
            self.fp_interrupt();
        }
    }

    /// Whether flags hold an exception that keeps the result from being written: invalid or division by zero, enabled.
    pub(crate) fn fp_suppressed(&self, flags: Flags) -> bool {
        flags.contains(Flags::INVALID) && self.fpscr & VE != 0
            || flags.contains(Flags::DIV_BY_ZERO) && self.fpscr & ZE != 0
    }
}
