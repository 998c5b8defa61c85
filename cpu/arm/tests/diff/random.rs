//! Random states.

use super::program::{DATA_SIZE, State};
use rhea_diff::Rng;

/// What tests start from.
pub trait Random {
    /// A state; `fp` also varies FPCR (rounding, FZ, DN, AHP, FZ16) and FPSR.
    fn state(&mut self, fp: bool) -> State;
    /// The bytes of a data area.
    fn data(&mut self) -> Vec<u8>;
}

impl Random for Rng {
    fn state(&mut self, fp: bool) -> State {
        let control = 0x1f << 22 | 1 << 19;
        State {
            v: std::array::from_fn(|_| self.vector()),
            x: std::array::from_fn(|_| if fp && self.chance(4) { self.float(11, 52) } else { self.int() }),
            sp: self.next() & !15,
            nzcv: self.next() & 0xf000_0000,
            fpcr: match self.below(4) {
                0 if fp => self.next() & control,
                1 if fp => self.next() & 3 << 22,
                _ => 0,
            },
            fpsr: if fp && self.chance(4) { self.next() & 0x0800_009f } else { 0 },
        }
    }
    fn data(&mut self) -> Vec<u8> {
        (0..DATA_SIZE / 8).flat_map(|_| self.int().to_le_bytes()).collect()
    }
}
