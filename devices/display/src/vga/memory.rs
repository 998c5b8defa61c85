//! The window at 0xa0000: what the CPU sees of the planes.
//!
//! The four planes lie interleaved in the framebuffer: byte `n` of plane `p` is at `4 * n + p`. Addresses in chained modes (4
//! planes, odd/even) are packed, so that a chained mode fills the framebuffer without holes as a linear one does; the scan-out
//! counts accordingly.

use super::state::{Registers, gfx, seq};
use rhea_memory::RamBlock;

/// Length of the window.
pub const LENGTH: u64 = 0x2_0000;
/// Miscellaneous output: the CPU reaches the memory.
const RAM_ENABLE: u8 = 1 << 1;

/// The bits of `planes` as bytes of all ones.
#[must_use]
pub fn expand(planes: u8) -> u32 {
    (0..4).filter(|p| planes >> p & 1 != 0).fold(0, |all, p| all | 0xff << (p * 8))
}

fn spread(byte: u8) -> u32 {
    u32::from(byte) * 0x0101_0101
}

/// Where an address leads.
struct Place {
    /// Offset of the four bytes in the framebuffer.
    at: u64,
    /// Planes a write reaches.
    planes: u8,
    /// Plane a read of mode 0 gives.
    plane: u8,
}

impl Registers {
    /// `offset` from 0xa0000 as an offset in the window that the graphics controller has selected.
    fn window(&self, offset: u64) -> Option<u64> {
        if self.misc & RAM_ENABLE == 0 {
            return None;
        }
        match self.gfx[gfx::MISCELLANEOUS] >> 2 & 3 {
            0 => Some(offset),
            1 => (offset < 0x1_0000).then_some(offset),
            2 => offset.checked_sub(0x1_0000).filter(|o| *o < 0x8000),
            _ => offset.checked_sub(0x1_8000).filter(|o| *o < 0x8000),
        }
    }
    fn place(&self, address: u64, odd_even: bool) -> Place {
        let mask = self.seq[seq::MAP_MASK];
        let (at, planes, plane) = if self.seq[seq::MEMORY_MODE] & seq::CHAIN_4 != 0 {
            let plane = (address & 3) as u8;
            (address >> 2, mask & 1 << plane, plane)
        } else if odd_even {
            let odd = (address & 1) as u8;
            (address >> 1, mask & 0b0101 << odd, self.gfx[gfx::READ_MAP] & 2 | odd)
        } else {
            (address & 0xffff, mask, self.gfx[gfx::READ_MAP])
        };
        Place { at: (at * 4).wrapping_add(self.dispi.planar_bank() * 4), planes, plane }
    }
    /// Reads the byte `offset` bytes above 0xa0000.
    pub fn read_memory(&mut self, vram: &RamBlock, offset: u64) -> u8 {
        if let Some(bank) = self.dispi.linear_bank() {
            return if offset < 0x1_0000 { vram.load(bank + offset, 1).unwrap_or(0xff) as u8 } else { 0xff };
        }
        let Some(address) = self.window(offset) else { return 0xff };
        let mode = self.gfx[gfx::MODE];
        let place = self.place(address, mode & 0x10 != 0);
        let Ok(latch) = vram.load(place.at, 4) else { return 0xff };
        self.latch = latch as u32;
        if mode & 8 == 0 {
            return self.latch.to_le_bytes()[usize::from(place.plane & 3)];
        }
        // Read mode 1: ones where all planes that count have the colour.
        let differs = (self.latch ^ expand(self.gfx[gfx::COLOR_COMPARE])) & expand(self.gfx[gfx::COLOR_DONT_CARE]);
        !differs.to_le_bytes().into_iter().fold(0, |all, plane| all | plane)
    }
    /// Writes the byte `offset` bytes above 0xa0000.
    pub fn write_memory(&mut self, vram: &RamBlock, offset: u64, value: u8) {
        if let Some(bank) = self.dispi.linear_bank() {
            if offset < 0x1_0000 {
                // Past the end there is nothing.
                let _ = vram.store(bank + offset, 1, value.into());
            }
            return;
        }
        let Some(address) = self.window(offset) else { return };
        let place = self.place(address, self.seq[seq::MEMORY_MODE] & seq::ODD_EVEN_OFF == 0);
        if place.planes == 0 {
            return;
        }
        let data = self.written(value);
        let planes = expand(place.planes);
        if planes == u32::MAX {
            let _ = vram.store(place.at, 4, data.into());
        } else if let Ok(old) = vram.load(place.at, 4) {
            let _ = vram.store(place.at, 4, u64::from(old as u32 & !planes | data & planes));
        }
    }
    /// What a write of `value` puts into the four planes.
    fn written(&self, value: u8) -> u32 {
        let g = &self.gfx;
        let rotated = value.rotate_right(u32::from(g[gfx::DATA_ROTATE] & 7));
        let set_reset = expand(g[gfx::SET_RESET]);
        let mut bit_mask = g[gfx::BIT_MASK];
        let data = match g[gfx::MODE] & 3 {
            0 => {
                let set = expand(g[gfx::ENABLE_SET_RESET]);
                spread(rotated) & !set | set_reset & set
            }
            1 => return self.latch,
            2 => expand(value & 15),
            _ => {
                bit_mask &= rotated;
                set_reset
            }
        };
        let data = match g[gfx::DATA_ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latch,
            2 => data | self.latch,
            _ => data ^ self.latch,
        };
        let bits = spread(bit_mask);
        data & bits | self.latch & !bits
    }
}
