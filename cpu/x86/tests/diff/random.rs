//! Random numbers in 80 bits, states and pointers, besides the shared operands.

use super::state::{STACK_WINDOW, State, place};
pub use rhea_diff::Rng;

/// What only x86 has.
pub trait X86Operands {
    /// A number in 80 bits: significand, sign and exponent; now and then of a form that no processor makes.
    fn extended(&mut self) -> [u64; 2];
    /// A state. `fp` varies the control words too, and puts floating-point values into registers and memory.
    fn state(&mut self, fp: bool) -> State;
    /// An address in the middle of the window, of some alignment.
    fn pointer(&mut self) -> u64;
}

impl X86Operands for Rng {
    fn extended(&mut self) -> [u64; 2] {
        let fraction = match self.below(6) {
            0 => 0,
            1 => u64::MAX >> 1,
            2 => self.next() & !0 << 11,
            3 => self.next() & !0 << 40,
            4 => 1 << self.below(63),
            _ => self.next(),
        } & u64::MAX >> 1;
        let one = 1u64 << 63;
        let (exp, sig) = match self.below(26) {
            0 | 1 => (0, 0),
            2 => (0, fraction >> self.below(62)),
            // Pseudo-denormal.
            3 => (0, one | fraction),
            4 => (1, one | fraction),
            5 => (0x7ffe, u64::MAX),
            6 => (0x7ffe, one | fraction),
            7 => (0x7fff, one),
            8 => (0x7fff, one | 1 << 62 | fraction),
            9 => (0x7fff, one | (fraction & !(1 << 62)).max(1)),
            10 => (0x3fff, one),
            // Unnormal, pseudo-infinity and pseudo-NaN.
            11 if self.chance(3) => (self.below(0x7ffe) + 1, fraction),
            12 if self.chance(3) => (0x7fff, fraction),
            13 => (0x3fff + 62 + self.below(4), one | fraction),
            14 => (0x3fff + 30 + self.below(4), one | fraction),
            15 => (0x3fff + 14 + self.below(4), one | fraction),
            16 => (0x3fff - 1023 - self.below(56), one | fraction),
            17 => (0x3fff + 1022 + self.below(3), one | fraction),
            18 => (0x3fff - 126 - self.below(26), one | fraction),
            19 => (0x3fff + 126 + self.below(3), one | fraction),
            20 => (self.below(70), one | fraction),
            21 => (0x7ffe - self.below(70), one | fraction),
            22 => (self.below(0x7fff), one | fraction),
            _ => (0x3fff - 8 + self.below(16), one | fraction),
        };
        [if exp == 0 && sig >> 63 == 0 { sig & u64::MAX >> 1 } else { sig }, exp | self.below(2) << 15]
    }
    fn state(&mut self, fp: bool) -> State {
        let mut s = State::default();
        for r in &mut s.r {
            *r = self.int();
        }
        s.r[4] = STACK_WINDOW + 256 + 8 * self.below(8) + if self.chance(8) { 2 * self.below(4) } else { 0 };
        // CF, PF, AF, ZF, SF, OF; DF seldom.
        s.rflags = 0x202 | self.next() & 0x8d5;
        for n in 0..16 {
            s.xmm[n] = self.vector();
            s.ymm_hi[n] = self.vector();
        }
        for n in 0..8 {
            s.st[n] = self.extended();
        }
        for at in (0..s.data.len()).step_by(16) {
            let v = if fp && self.chance(3) {
                let [a, b] = self.extended();
                u128::from(a) | u128::from(b) << 64
            } else {
                self.vector()
            };
            s.data[at..at + 16].copy_from_slice(&v.to_le_bytes());
        }
        for at in (0..s.stack.len()).step_by(8) {
            // TF would stop the test; NT and ID cannot be set back natively.
            let v = self.int() & !0x4120_4120_4120_4120;
            s.stack[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
        if fp {
            let rounding = if self.chance(2) { 0 } else { self.below(4) as u32 };
            s.mxcsr = 0x1f80 | rounding << 13;
            if self.chance(4) {
                s.mxcsr |= self.next() as u32 & 0x8040;
            }
            if self.chance(4) {
                s.mxcsr |= self.next() as u32 & 0x3f;
            }
            if self.chance(12) {
                s.mxcsr &= !(1 << (7 + self.below(6)));
                s.mxcsr &= !0x3f;
            }
            let precision = if self.chance(2) { 3 } else { self.pick(&[0u16, 2, 3]) };
            s.fcw = 0x7f | precision << 8 | (rounding as u16) << 10;
            if self.chance(6) {
                s.fcw &= !(self.next() as u16 & 0x3f);
            }
        }
        s
    }
    fn pointer(&mut self) -> u64 {
        let v = place::DATA + 256 + self.below(256);
        match self.below(4) {
            0 => v,
            1 => v & !7,
            _ => v & !31,
        }
    }
}
