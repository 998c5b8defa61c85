//! Random numbers and operands.

/// A small generator (xorshift*), the same on every host.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    #[expect(clippy::should_implement_trait, reason = "not an iterator")]
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

    /// An integer of `bits`, special or random.
    pub fn integer(&mut self, bits: u32) -> u64 {
        let ones = u64::MAX >> (64 - bits);
        ones & match self.below(10) {
            0 => 0,
            1 => ones,
            2 => 1 << (bits - 1),
            3 => ones >> 1,
            4 => self.below(2 * bits as u64),
            5 => self.below(2 * bits as u64).wrapping_neg(),
            6 => self.next() >> self.below(64),
            7 => (self.next() >> self.below(64)).wrapping_neg(),
            _ => self.next(),
        }
    }
    /// Bits of a floating-point number with `e` exponent and `f` fraction bits, often special.
    pub fn float(&mut self, e: u32, f: u32) -> u64 {
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
            // Times the least normal number: tiny, and rounded to that number.
            22 => (bias - 1, (1 << f) - 1),
            _ => (self.below(top), frac),
        };
        self.below(2) << (e + f) | (exp & top) << f | (frac & ((1 << f) - 1))
    }
    /// A lane of a vector.
    pub fn lane(&mut self, bits: u32, float: bool) -> u64 {
        match (bits, float) {
            (16, true) => self.float(5, 10),
            (32, true) => self.float(8, 23),
            (64, true) => self.float(11, 52),
            _ => self.integer(bits),
        }
    }
    /// A vector of floating-point lanes of 16, 32 or 64 bits.
    pub fn floats(&mut self, bits: u32) -> u128 {
        (0..128).step_by(bits as usize).fold(0, |v, at| v | (self.lane(bits, true) as u128) << at)
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
            _ => return self.next() as u128 | (self.next() as u128) << 64,
        };
        (0..128).step_by(bits as usize).fold(0, |v, at| v | (self.lane(bits, float) as u128) << at)
    }
}
