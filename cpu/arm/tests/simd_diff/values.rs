//! Random operands with the values that matter often.

/// A small generator with a fixed seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Bits of a floating-point number with `e` exponent and `f` fraction bits.
    fn float(&mut self, e: u32, f: u32) -> u64 {
        let bias = (1u64 << (e - 1)) - 1;
        let top = (1u64 << e) - 1;
        let frac = self.next() & ((1 << f) - 1);
        let quiet = 1u64 << (f - 1);
        let near = bias.wrapping_add(self.below(8)).wrapping_sub(4);
        let (exp, frac) = match self.below(24) {
            0 | 1 => (0, 0),
            2 => (0, frac >> self.below(f as u64)),
            3 => (0, (1 << f) - 1),
            4 => (1, frac & self.below(2).wrapping_neg()),
            5 => (top - 1, (1 << f) - 1),
            6 => (top - 1, frac),
            7 => (top, 0),
            8 => (top, frac | quiet),
            9 => (top, (frac & (quiet - 1)) | 1),
            10 => (bias, 0),
            11 => (bias + self.below(2), 0),
            12 => (near, 0),
            13 | 14 => (near, frac),
            15 => (near, frac & !((1 << (f - 4)) - 1)),
            // Around the ranges of integers.
            16 => (bias + 7 + 8 * self.below(2) + self.below(2), frac & !((1 << (f / 2)) - 1)),
            17 => (bias + 30 + self.below(3), frac | self.below(2).wrapping_neg()),
            18 => (bias + 62 + self.below(3), frac & self.below(2).wrapping_neg()),
            19 => (bias + f as u64 + self.below(3) - 1, frac),
            20 => (bias / 2 + self.below(4), frac),
            21 => (self.below(f as u64), frac),
            _ => (self.below(top), frac),
        };
        let exp = exp & top;
        self.below(2) << (e + f) | exp << f | (frac & ((1 << f) - 1))
    }

    fn integer(&mut self, bits: u32) -> u64 {
        let ones = u64::MAX >> (64 - bits);
        let v = match self.below(10) {
            0 => 0,
            1 => ones,
            2 => 1 << (bits - 1),
            3 => ones >> 1,
            4 => self.below(2 * bits as u64),
            5 => self.below(2 * bits as u64).wrapping_neg(),
            6 => self.next() >> self.below(64),
            7 => (self.next() >> self.below(64)).wrapping_neg(),
            _ => self.next(),
        };
        v & ones
    }

    pub fn vector(&mut self) -> u128 {
        let kind = self.below(9);
        let size = match kind {
            0 | 4 => 16,
            1 | 5 => 32,
            2 | 6 => 64,
            3 => 8,
            _ => return self.next() as u128 | (self.next() as u128) << 64,
        };
        let mut v = 0u128;
        for at in (0..128).step_by(size) {
            let x = match kind {
                4 => self.float(5, 10),
                5 => self.float(8, 23),
                6 => self.float(11, 52),
                _ => self.integer(size as u32),
            };
            v |= (x as u128) << at;
        }
        v
    }

    /// A vector of floating-point lanes of `size` bits (16, 32, 64).
    pub fn floats(&mut self, size: usize) -> u128 {
        let mut v = 0u128;
        for at in (0..128).step_by(size) {
            let x = match size {
                16 => self.float(5, 10),
                32 => self.float(8, 23),
                _ => self.float(11, 52),
            };
            v |= (x as u128) << at;
        }
        v
    }

    pub fn general(&mut self) -> u64 {
        match self.below(4) {
            0 => self.integer(32),
            1 => self.integer(64),
            2 => self.float(11, 52),
            _ => self.integer(16),
        }
    }
}
