//! Alphanumeric modes: characters and attributes in planes 0 and 1, fonts in plane 2.

use super::{Raster, plane};
use crate::Surface;
use crate::console::Blink;
use crate::vga::state::{Registers, attr, crtc, seq};

/// Bytes of a character in a font.
const GLYPH: u32 = 32;

/// Where a font begins, by its number in the character map register.
fn font(number: u8) -> u32 {
    u32::from(number & 3) * 0x4000 + u32::from(number >> 2) * 0x2000
}

/// What the cursor covers.
struct Cursor {
    address: u32,
    first: usize,
    last: usize,
    on: bool,
}

pub fn render(r: &Registers, planes: &[u8], surface: &mut Surface, blink: Blink) {
    let nine = r.seq[seq::CLOCKING_MODE] & seq::DOTS_8 == 0;
    let raster = Raster::new(r, if nine { 9 } else { 8 });
    let width = raster.width();
    let zoom = raster.dots / if nine { 9 } else { 8 };
    surface.resize(width, raster.lines);

    let colors = r.attribute_pixels();
    let map = r.seq[seq::CHARACTER_MAP];
    // By attribute bit 3.
    let fonts = [font(map & 3 | map >> 2 & 4), font(map >> 2 & 3 | map >> 3 & 4)];
    let mode = r.attr[attr::MODE];
    let (blinking, extend) = (mode & 8 != 0, mode & 4 != 0);
    let underline = usize::from(r.crtc[crtc::UNDERLINE] & 0x1f);
    let (start, end) = (r.crtc[crtc::CURSOR_START], r.crtc[crtc::CURSOR_END]);
    let cursor = Cursor {
        address: r.crtc_word(crtc::CURSOR_HIGH).wrapping_add(u32::from(end >> 5 & 3)) & 0xffff,
        first: usize::from(start & 0x1f),
        last: usize::from(end & 0x1f),
        on: start & 0x20 == 0 && blink.cursor,
    };

    let mut pixels: Vec<u32> = Vec::with_capacity(width + 2 * raster.dots);
    for y in 0..raster.lines {
        let line = raster.line(y);
        pixels.clear();
        for n in 0..=raster.columns {
            let at = raster.address(&line, n);
            let (character, attribute) = (plane(planes, at, 0), plane(planes, at, 1));
            let glyph = fonts[usize::from(attribute >> 3 & 1)] + u32::from(character) * GLYPH + line.scan as u32;
            let mut bits = u32::from(plane(planes, glyph & 0xffff, 2)) << 1;
            if extend && character & 0xe0 == 0xc0 {
                bits |= bits >> 1 & 1;
            }
            if line.scan == underline && attribute & 0x77 == 1 {
                bits = 0x1ff;
            }
            if blinking && attribute & 0x80 != 0 && !blink.text {
                bits = 0;
            }
            if cursor.on && at == cursor.address && (cursor.first..=cursor.last).contains(&line.scan) {
                bits = 0x1ff;
            }
            let fore = colors[usize::from(attribute & 15)];
            let back = colors[usize::from(attribute >> 4 & if blinking { 7 } else { 15 })];
            for bit in (if nine { 0 } else { 1 }..9).rev() {
                let color = if bits >> bit & 1 != 0 { fore } else { back };
                pixels.push(color);
                if zoom == 2 {
                    pixels.push(color);
                }
            }
        }
        // With 9 dots the values 0 to 7 mean 1 to 8, and 8 means 0.
        let pan = match usize::from(line.pan) {
            8.. if nine => 0,
            n if nine => n + 1,
            n => n & 7,
        };
        surface.put(0, y, &pixels[pan * zoom..pan * zoom + width]);
    }
}
