//! Scan-out: what the registers make of the memory.

mod linear;
mod planar;
mod text;

use super::Kind;
use super::state::{Registers, attr, crtc, gfx, seq};
use crate::Surface;
use crate::console::Blink;
use rhea_memory::RamBlock;

/// Size of the picture while there is no mode.
const NOTHING: (usize, usize) = (640, 480);
/// Bytes of the four planes that VGA modes reach.
const PLANES: usize = 0x4_0000;

/// Renders the current mode.
pub fn render(r: &Registers, kind: Kind, vram: &RamBlock, surface: &mut Surface, blink: Blink) {
    let on = r.attr_index & attr::DISPLAY_ON != 0 && r.seq[seq::CLOCKING_MODE] & seq::SCREEN_OFF == 0;
    match r.dispi.mode() {
        Some(mode) if on || kind == Kind::Bochs => {
            if mode.bpp == 4 {
                planar::dispi(r, mode, vram, surface);
            } else {
                linear::render(r, mode, vram, surface);
            }
        }
        None if on && kind == Kind::Vga => {
            let mut planes = vec![0; PLANES];
            // The framebuffer is larger than the planes.
            let _ = vram.read(0, &mut planes);
            if r.gfx[gfx::MISCELLANEOUS] & 1 == 0 {
                text::render(r, &planes, surface, blink);
            } else {
                planar::vga(r, &planes, surface);
            }
        }
        _ => {
            if surface.width() == 0 {
                surface.resize(NOTHING.0, NOTHING.1);
            }
            surface.fill(0);
        }
    }
}

/// The lines of the picture as the CRT controller counts them.
struct Raster {
    /// Characters of a line.
    columns: usize,
    /// Dots of a character on the screen: pixels.
    dots: usize,
    lines: usize,
    /// The part above the split.
    upper: Part,
    /// The line from which the split counts anew at address 0.
    split: usize,
    /// Pixels by which the picture is moved to the left, above and below the split.
    pan: (u8, u8),
    /// Lines that each row scan is shown.
    repeat: usize,
    /// Row scans of a character row.
    scans: usize,
    /// Addresses from row to row.
    step: u32,
    mode: u8,
    /// How many times an address is shown, as a shift.
    hold: u32,
}

struct Part {
    start: u32,
    first_scan: usize,
}

/// Where a line is.
struct Line {
    start: u32,
    scan: usize,
    pan: u8,
}

impl Raster {
    fn new(r: &Registers, dots: usize) -> Self {
        let maximum = r.crtc[crtc::MAXIMUM_SCAN_LINE];
        let preset = r.crtc[crtc::PRESET_ROW_SCAN];
        let mode = r.crtc[crtc::MODE];
        let pan = r.attr[attr::PIXEL_PANNING];
        let lower = if r.attr[attr::MODE] & 0x20 != 0 { 0 } else { pan };
        // Vertical registers count every second line.
        let doubled = usize::from(mode >> 2 & 1);
        let half = usize::from(r.seq[seq::CLOCKING_MODE] & seq::HALF_CLOCK != 0);
        Self {
            columns: usize::from(r.crtc[crtc::HORIZONTAL_DISPLAY_END]) + 1,
            dots: dots << half,
            lines: (r.vertical_display_end() as usize + 1) << doubled,
            upper: Part {
                start: r.crtc_word(crtc::START_HIGH).wrapping_add(u32::from(preset >> 5 & 3)),
                first_scan: usize::from(preset & 0x1f),
            },
            split: (r.line_compare() as usize + 1) << doubled,
            pan: (pan, lower),
            repeat: 1 << usize::from(maximum >> 7),
            scans: usize::from(maximum & 0x1f) + 1,
            step: u32::from(r.crtc[crtc::OFFSET]) * 2,
            mode,
            hold: match (r.crtc[crtc::UNDERLINE] >> 5 & 1, mode >> 3 & 1) {
                (1, _) => 2,
                (0, 1) => 1,
                _ => 0,
            },
        }
    }
    fn width(&self) -> usize {
        self.columns * self.dots
    }
    fn line(&self, y: usize) -> Line {
        let (part, y, pan) = match y.checked_sub(self.split) {
            Some(below) => (&Part { start: 0, first_scan: 0 }, below, self.pan.1),
            None => (&self.upper, y, self.pan.0),
        };
        let scans = y / self.repeat + part.first_scan;
        let row = (scans / self.scans) as u32;
        Line { start: part.start.wrapping_add(row.wrapping_mul(self.step)), scan: scans % self.scans, pan }
    }
    /// The address of character `n` of a line, as the index of its four bytes.
    fn address(&self, line: &Line, n: usize) -> u32 {
        let mut at = line.start.wrapping_add((n >> self.hold) as u32);
        // Row scan bits in the place of address bits, for memory in which lines lie interleaved: bit 13 and 14 of the byte
        // address, which is twice the count in word mode.
        let bit = if self.mode & 0x40 != 0 { 13 } else { 12 };
        if self.mode & 1 == 0 {
            at = at & !(1 << bit) | (line.scan as u32 & 1) << bit;
        }
        if self.mode & 2 == 0 {
            at = at & !(1 << (bit + 1)) | (line.scan as u32 >> 1 & 1) << (bit + 1);
        }
        at & 0xffff
    }
}

/// The byte of `plane` at an address.
fn plane(planes: &[u8], address: u32, plane: usize) -> u8 {
    planes.get(address as usize * 4 + plane).copied().unwrap_or(0)
}
