//! Random numbers, operands and states.

use super::program::{DATA_SIZE, State};

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
            0 => self.pick(&[0, 1, !0, 2, 0x8000_0000, 0x7fff_ffff, 0xffff_ffff, 1 << 63, (1 << 63) - 1, 0xff, 0x80, 0x8000]),
            1 => self.next() & 0xff,
            2 => (self.next() as i8) as u64,
            3 => (self.next() as i32) as u64,
            4 => 1 << self.below(64),
            5 => self.next() & self.next() & self.next(),
            _ => self.next(),
        };
        if self.chance(16) { v.wrapping_neg() } else { v }
    }

    /// Bits of a double, often special.
    pub fn f64(&mut self) -> u64 {
        let sign = self.next() << 63;
        sign | match self.below(16) {
            0 => self.pick(&[0, 1, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff, 0x7ff0_0000_0000_0000]),
            1 => self.pick(&[0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_1234, 0x7ff0_0000_0000_0001, 0x7ff4_0000_dead_0000]),
            2 => self.pick(&[1.0f64, 0.5, 2.0, 1.5, 3.0, 0.1, 1e10, 2147483648.0, 9.223372036854775807e18, 65504.0, 2.5]).to_bits(),
            3 => self.next() & 0x000f_ffff_ffff_ffff,
            4 => (self.next() as i32 as f64).abs().to_bits(),
            5 => (self.next() as i16 as f64 / 8.0).abs().to_bits(),
            6 | 7 => (self.next() & 0x000f_ffff_ffff_ffff) | (1023 - 30 + self.below(60)) << 52,
            8 => (self.next() & 0x000f_ffff_ffff_ffff) | (1023 - 160 + self.below(320)) << 52,
            _ => self.next() & !(1 << 63),
        }
    }
    /// Bits of a single, often special.
    pub fn f32(&mut self) -> u32 {
        let sign = (self.next() as u32) << 31;
        sign | match self.below(12) {
            0 => self.pick(&[0, 1, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff, 0x7f80_0000]),
            1 => self.pick(&[0x7fc0_0000, 0x7fc0_1234, 0x7f80_0001, 0x7fa0_beef]),
            2 => self.pick(&[1.0f32, 0.5, 2.0, 1.5, 3.0, 0.1, 1e10, 2147483648.0, 9.223372e18, 65504.0, 2.5]).to_bits(),
            3 => self.next() as u32 & 0x007f_ffff,
            4 => (self.next() as i16 as f32).abs().to_bits(),
            5 => (self.next() as i8 as f32 / 8.0).abs().to_bits(),
            6 | 7 => (self.next() as u32 & 0x007f_ffff) | (127 - 20 + self.below(40) as u32) << 23,
            _ => self.next() as u32 & 0x7fff_ffff,
        }
    }
    pub fn f16(&mut self) -> u16 {
        let sign = (self.next() as u16) << 15;
        sign | match self.below(8) {
            0 => self.pick(&[0, 1, 0x03ff, 0x0400, 0x7bff, 0x7c00]),
            1 => self.pick(&[0x7e00, 0x7e12, 0x7c01, 0x7d55]),
            2 => self.pick(&[0x3c00, 0x3800, 0x4000, 0x3e00, 0x4200]),
            3 => self.next() as u16 & 0x03ff,
            _ => self.next() as u16 & 0x7fff,
        }
    }
    /// A vector: lanes of one kind, or random.
    pub fn vector(&mut self) -> u128 {
        let lanes = |n: u32, mut f: Box<dyn FnMut() -> u128 + '_>| (0..128 / n).fold(0u128, |v, i| v | f() << (n * i));
        match self.below(6) {
            0 => lanes(64, Box::new(|| self.f64() as u128)),
            1 => lanes(32, Box::new(|| self.f32() as u128)),
            2 => lanes(16, Box::new(|| self.f16() as u128)),
            3 => lanes(64, Box::new(|| self.int() as u128)),
            4 => lanes(8, Box::new(|| {
                let special = self.pick(&[0u8, 1, 0xff, 0x7f, 0x80]);
                (if self.chance(2) { special } else { self.next() as u8 }) as u128
            })),
            _ => lanes(64, Box::new(|| self.next() as u128)),
        }
    }

    /// A state; `fp` also varies FPCR (rounding, FZ, DN, AHP, FZ16).
    pub fn state(&mut self, fp: bool) -> State {
        State {
            v: std::array::from_fn(|_| self.vector()),
            x: std::array::from_fn(|_| self.int()),
            sp: self.next() & !15,
            nzcv: self.next() & 0xf000_0000,
            fpcr: if fp && self.chance(2) {
                self.next() & (0x1f << 22 | if self.chance(2) { 1 << 19 } else { 0 })
            } else {
                0
            },
            fpsr: 0,
        }
    }
    pub fn data(&mut self) -> Vec<u8> {
        (0..DATA_SIZE / 8).flat_map(|_| self.int().to_le_bytes()).collect()
    }
}
