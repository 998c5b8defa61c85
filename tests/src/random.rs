/// Pseudo-random numbers from a fixed seed, so that a failure comes back.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Any 64 bits (xorshift64*).
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number under `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.bits() >> 8) % limit
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `all`, which is not empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// A number of the kind that finds mistakes: small, a single bit, around a power of two, all
    /// ones, or any.
    pub fn edge(&mut self) -> u64 {
        let bit = 1_u64 << self.below(64);
        match self.below(8) {
            0 => 0,
            1 => self.below(16),
            2 => bit,
            3 => bit.wrapping_sub(1),
            4 => !bit,
            5 => u64::MAX - self.below(4096),
            6 => self.below(1 << 16),
            _ => self.bits(),
        }
    }
}
