//! Graphics modes of the VGA: 16 colours in planes, 4 colours in byte pairs, 256 colours; and the planar mode of the Bochs
//! interface.

use super::{PLANES, Raster, plane};
use crate::Surface;
use crate::vga::dispi::DispiMode;
use crate::vga::state::{Registers, attr, gfx};
use rhea_memory::RamBlock;

/// How the shift registers are loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shift {
    Planes,
    /// Two bits of a pixel from one plane, two from another.
    Interleaved,
    /// A byte a pixel, two dots wide.
    Bytes,
}

/// Adds the eight dots of the four bytes at an address.
fn character(planes: &[u8], at: u32, shift: Shift, colors: &[u32; 16], dac: &[u32; 256], pixels: &mut Vec<u32>) {
    let bytes = [0, 1, 2, 3].map(|p| plane(planes, at, p));
    match shift {
        Shift::Planes => {
            for bit in (0..8).rev() {
                let color = bytes.iter().rev().fold(0, |c, b| c << 1 | b >> bit & 1);
                pixels.push(colors[usize::from(color & 15)]);
            }
        }
        Shift::Interleaved => {
            for dot in 0..8 {
                let (first, bit) = (dot >> 2, 6 - (dot & 3) * 2);
                let color = bytes[first] >> bit & 3 | (bytes[first + 2] >> bit & 3) << 2;
                pixels.push(colors[usize::from(color)]);
            }
        }
        Shift::Bytes => {
            for byte in bytes {
                let color = dac[usize::from(byte)];
                pixels.extend_from_slice(&[color, color]);
            }
        }
    }
}

pub fn vga(r: &Registers, planes: &[u8], surface: &mut Surface) {
    let shift = match r.gfx[gfx::MODE] >> 5 & 3 {
        0 => Shift::Planes,
        1 => Shift::Interleaved,
        _ => Shift::Bytes,
    };
    let raster = Raster::new(r, 8);
    let width = raster.width();
    let zoom = raster.dots / 8;
    surface.resize(width, raster.lines);
    let (colors, dac) = (r.attribute_pixels(), r.dac_pixels());
    let mut pixels = Vec::with_capacity((raster.columns + 1) * 8);
    let mut zoomed = Vec::with_capacity(pixels.capacity() * 2);
    for y in 0..raster.lines {
        let line = raster.line(y);
        pixels.clear();
        for n in 0..=raster.columns {
            character(planes, raster.address(&line, n), shift, &colors, &dac, &mut pixels);
        }
        let pan = usize::from(line.pan & 7);
        let shown = &pixels[pan..pan + raster.columns * 8];
        if zoom == 1 {
            surface.put(0, y, shown);
        } else {
            zoomed.clear();
            zoomed.extend(shown.iter().flat_map(|p| [*p; 2]));
            surface.put(0, y, &zoomed);
        }
    }
}

/// The 4-bit mode of the Bochs interface.
pub fn dispi(r: &Registers, mode: DispiMode, vram: &RamBlock, surface: &mut Surface) {
    let (width, height) = (mode.width as usize, mode.height as usize);
    surface.resize(width, height);
    let mut colors = r.attribute_pixels();
    if r.attr[attr::PLANE_ENABLE] & 15 == 0 {
        // Nothing was set up for planes: the DAC's first colours.
        colors.copy_from_slice(&r.dac_pixels()[..16]);
    }
    let dac = [0; 256];
    let columns = width / 8 + 1;
    let mut raw = vec![0; (columns * 4).min(PLANES)];
    let mut pixels = Vec::with_capacity(columns * 8);
    for y in 0..height {
        raw.fill(0);
        let at = mode.start + mode.pitch * y as u64;
        let len = raw.len().min(vram.len().saturating_sub(at) as usize);
        // Cut to what is there.
        let _ = vram.read(at, &mut raw[..len]);
        pixels.clear();
        for n in 0..columns {
            character(&raw, n as u32, Shift::Planes, &colors, &dac, &mut pixels);
        }
        surface.put(0, y, &pixels[mode.pixel as usize..mode.pixel as usize + width]);
    }
}
