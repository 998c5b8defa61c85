//! Linear modes: pixels of 8 to 32 bits one after the other.

use crate::Surface;
use crate::vga::dispi::DispiMode;
use crate::vga::state::Registers;
use rhea_memory::RamBlock;

/// `bits` bits at `at` of a pixel, widened to 8.
fn channel(pixel: u32, at: u32, bits: u32) -> u32 {
    let v = pixel >> at & ((1 << bits) - 1);
    v << (8 - bits) | v >> (2 * bits - 8)
}

fn rgb(pixel: u32, red: (u32, u32), green: (u32, u32), blue: (u32, u32)) -> u32 {
    channel(pixel, red.0, red.1) << 16 | channel(pixel, green.0, green.1) << 8 | channel(pixel, blue.0, blue.1)
}

pub fn render(r: &Registers, mode: DispiMode, vram: &RamBlock, surface: &mut Surface) {
    let (width, height) = (mode.width as usize, mode.height as usize);
    surface.resize(width, height);
    let dac = r.dac_pixels();
    let bytes = (mode.bpp as usize).div_ceil(8);
    let mut raw = vec![0; width * bytes];
    let mut pixels = vec![0u32; width];
    let half = |b: &[u8]| {
        let pair = [b[0], b[1]];
        u32::from(if r.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    for y in 0..height {
        let at = mode.start + mode.pitch * y as u64;
        let len = raw.len().min(vram.len().saturating_sub(at) as usize);
        raw[len..].fill(0);
        // Cut to what is there.
        let _ = vram.read(at, &mut raw[..len]);
        let items = pixels.iter_mut().zip(raw.chunks_exact(bytes));
        match mode.bpp {
            8 => items.for_each(|(p, b)| *p = dac[usize::from(b[0])]),
            15 => items.for_each(|(p, b)| *p = rgb(half(b), (10, 5), (5, 5), (0, 5))),
            16 => items.for_each(|(p, b)| *p = rgb(half(b), (11, 5), (5, 6), (0, 5))),
            24 if r.big_endian => items.for_each(|(p, b)| *p = u32::from_be_bytes([0, b[0], b[1], b[2]])),
            24 => items.for_each(|(p, b)| *p = u32::from_le_bytes([b[0], b[1], b[2], 0])),
            _ if r.big_endian => items.for_each(|(p, b)| *p = u32::from_be_bytes([0, b[1], b[2], b[3]])),
            _ => items.for_each(|(p, b)| *p = u32::from_le_bytes([b[0], b[1], b[2], 0])),
        }
        surface.put(0, y, &pixels);
    }
}
