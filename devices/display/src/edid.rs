//! What a monitor tells of itself (VESA E-EDID 1.4): one block with a preferred size.

/// The block.
pub type Edid = [u8; 128];

/// The smallest and largest sizes that a detailed timing can tell.
const MIN: u32 = 64;
const MAX: u32 = 4080;

/// Standard sizes that are offered if they are not larger than the preferred one: width, height, code of the ratio.
const STANDARD: [(u32, u32, u8); 8] = [
    (1920, 1080, 3),
    (1680, 1050, 0),
    (1600, 1200, 1),
    (1440, 900, 0),
    (1280, 1024, 2),
    (1280, 960, 1),
    (1280, 720, 3),
    (1024, 768, 1),
];
/// Established timings: width, height, byte, bit.
const ESTABLISHED: [(u32, u32, usize, u8); 4] =
    [(640, 480, 35, 5), (800, 600, 35, 0), (1024, 768, 36, 3), (1280, 1024, 36, 0)];

/// A monitor whose own size is `width` by `height` pixels at 60 Hz (within what the format can say).
#[must_use]
pub fn make(width: u32, height: u32) -> Edid {
    let (width, height) = (width.clamp(MIN, MAX), height.clamp(MIN, MAX));
    let mut e = [0; 128];
    e[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // Manufacturer "RHE", five bits a letter.
    let letter = |c: u8| u16::from(c - b'@');
    e[8..10].copy_from_slice(&(letter(b'R') << 10 | letter(b'H') << 5 | letter(b'E')).to_be_bytes());
    e[10..12].copy_from_slice(&0x0001u16.to_le_bytes());
    // Week and year (from 1990) of manufacture; EDID 1.4.
    e[16..20].copy_from_slice(&[1, 36, 1, 4]);
    // Digital, 8 bits a colour, DisplayPort.
    e[20] = 0xa5;
    // Size in cm at 100 dots an inch; gamma 2.2.
    let cm = |pixels: u32| (pixels * 254 / 10_000).clamp(1, 255) as u8;
    e[21..24].copy_from_slice(&[cm(width), cm(height), 120]);
    // RGB 4:4:4, sRGB is the default, the first timing is the native one.
    e[24] = 0x06;
    // Chromaticity of sRGB.
    e[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    for (w, h, byte, bit) in ESTABLISHED {
        if w <= width && h <= height {
            e[byte] |= 1 << bit;
        }
    }
    let mut slots = e[38..54].chunks_exact_mut(2);
    for (w, _, ratio) in STANDARD.into_iter().filter(|(w, h, _)| *w <= width && *h <= height) {
        if let Some(slot) = slots.next() {
            slot.copy_from_slice(&[(w / 8 - 31) as u8, ratio << 6]);
        }
    }
    slots.for_each(|slot| slot.fill(1));
    timing(&mut e[54..72], width, height);
    // Range limits: 50 to 125 Hz, 30 to 160 kHz, up to 2550 MHz; no more timing rules.
    e[72..90].copy_from_slice(&[0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 255, 1, 10, 32, 32, 32, 32, 32, 32]);
    e[90..108].copy_from_slice(b"\0\0\0\xfc\0Rhea Monitor\n");
    // An unused descriptor.
    e[108..113].copy_from_slice(&[0, 0, 0, 0x10, 0]);
    e[127] = e.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    e
}

/// A detailed timing descriptor with reduced blanking.
fn timing(d: &mut [u8], width: u32, height: u32) {
    let (h_blank, h_front, h_sync) = (160, 48, 32);
    let (v_front, v_sync) = (3, 6);
    let v_blank = (height / 28).clamp(v_front + v_sync + 6, 255);
    // In units of 10 kHz.
    let clock = (u64::from(width + h_blank) * u64::from(height + v_blank) * 60 / 10_000).min(0xffff) as u16;
    d[..2].copy_from_slice(&clock.to_le_bytes());
    let nibbles = |a: u32, b: u32| (a >> 8 << 4 | b >> 8) as u8;
    d[2..5].copy_from_slice(&[width as u8, h_blank as u8, nibbles(width, h_blank)]);
    d[5..8].copy_from_slice(&[height as u8, v_blank as u8, nibbles(height, v_blank)]);
    d[8..12].copy_from_slice(&[h_front as u8, h_sync as u8, (v_front << 4 | v_sync) as u8, 0]);
    // Size in mm.
    let (w, h) = (width * 254 / 1000, height * 254 / 1000);
    d[12..15].copy_from_slice(&[w as u8, h as u8, nibbles(w & 0xfff, h & 0xfff)]);
    // Digital separate syncs, horizontal positive.
    d[17] = 0x1a;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_its_size() {
        for (w, h) in [(1280, 800), (640, 480), (4000, 3000), (0, u32::MAX)] {
            let e = make(w, h);
            assert_eq!(e.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            let d = &e[54..72];
            let width = u32::from(d[2]) | u32::from(d[4] >> 4) << 8;
            let height = u32::from(d[5]) | u32::from(d[7] >> 4) << 8;
            assert_eq!((width, height), (w.clamp(MIN, MAX), h.clamp(MIN, MAX)));
        }
        // 640 by 480 and 800 by 600 only.
        assert_eq!(make(800, 600)[35..37], [0x21, 0]);
        assert_eq!(&make(1280, 800)[38..42], &[129, 0xc0, 97, 0x40]);
    }
}
