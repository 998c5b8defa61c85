//! Random numbers, operands and states.

use super::state::{STACK_WINDOW, State, place};

/// A small generator (xorshift*), the same on every host.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// An integer operand: special values and random ones.
    pub fn int(&mut self) -> u64 {
        let v = match self.below(8) {
            0 => self.pick(&[
                0,
                1,
                !0,
                2,
                0x8000_0000,
                0x7fff_ffff,
                0xffff_ffff,
                1 << 63,
                (1 << 63) - 1,
                0xff,
                0x80,
                0x8000,
                0x8080_8080_8080_8080,
            ]),
            1 => self.next() & 0xff,
            2 => (self.next() as i8) as u64,
            3 => (self.next() as i32) as u64,
            4 => 1 << self.below(64),
            5 => self.next() & self.next() & self.next(),
            _ => self.next(),
        };
        if self.chance(16) { v.wrapping_neg() } else { v }
    }

    /// Bits of a floating-point number with `e` exponent and `f` fraction bits, often special.
    pub fn float(&mut self, e: u32, f: u32) -> u64 {
        let bias = (1u64 << (e - 1)) - 1;
        let top = (1u64 << e) - 1;
        let ones = (1u64 << f) - 1;
        let frac = self.next() & ones;
        let quiet = 1u64 << (f - 1);
        let near = bias.wrapping_add(self.below(8)).wrapping_sub(4);
        let (exp, frac) = match self.below(24) {
            0 | 1 => (0, 0),
            2 => (0, frac >> self.below(f.into())),
            3 => (0, ones),
            4 => (1, frac & self.below(2).wrapping_neg()),
            5 => (top - 1, ones),
            6 => (top - 1, frac),
            7 => (top, 0),
            8 => (top, frac | quiet),
            9 => (top, (frac & (quiet - 1)) | 1),
            10 => (bias, 0),
            11 => (bias + self.below(2), 0),
            12 => (near, 0),
            13 | 14 => (near, frac),
            15 => (near, frac & !(ones >> 4)),
            // Around the ranges of integers.
            16 => (bias + 7 + 8 * self.below(2) + self.below(2), frac & !(ones >> (f / 2))),
            17 => (bias + 30 + self.below(3), frac | self.below(2).wrapping_neg()),
            18 => (bias + 62 + self.below(3), frac & self.below(2).wrapping_neg()),
            19 => (bias + u64::from(f) + self.below(3) - 1, frac),
            20 => (bias / 2 + self.below(4), frac),
            21 => (self.below(f.into()), frac),
            22 => (bias - 1, ones),
            _ => (self.below(top), frac),
        };
        self.below(2) << (e + f) | (exp & top) << f | (frac & ones)
    }
    /// A number in 80 bits: significand, sign and exponent; now and then of a form that no processor makes.
    pub fn extended(&mut self) -> [u64; 2] {
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
    fn lane(&mut self, bits: u32, float: bool) -> u64 {
        match (bits, float) {
            (16, true) => self.float(5, 10),
            (32, true) => self.float(8, 23),
            (64, true) => self.float(11, 52),
            (8, _) => self.int() & 0xff,
            (16, _) => self.int() & 0xffff,
            (32, _) => self.int() & 0xffff_ffff,
            _ => self.int(),
        }
    }
    /// A vector: lanes of one kind, or random.
    pub fn vector(&mut self) -> u128 {
        let (bits, float) = match self.below(9) {
            0 => (8, false),
            1 => (16, false),
            2 => (32, false),
            3 => (64, false),
            4 => (16, true),
            5 => (32, true),
            6 => (64, true),
            _ => return u128::from(self.next()) | u128::from(self.next()) << 64,
        };
        (0..128).step_by(bits as usize).fold(0, |v, at| v | u128::from(self.lane(bits, float)) << at)
    }

    /// A state. `fp` varies the control words too, and puts floating-point values into registers and memory.
    pub fn state(&mut self, fp: bool) -> State {
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
    /// An address in the middle of the window, of some alignment.
    pub fn pointer(&mut self) -> u64 {
        let v = place::DATA + 256 + self.below(256);
        match self.below(4) {
            0 => v,
            1 => v & !7,
            _ => v & !31,
        }
    }
}
