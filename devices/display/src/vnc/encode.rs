//! Encodings of rectangles (RFC 6143 section 7.7): Raw, Hextile, Zlib, ZRLE.

use super::pixel::PixelFormat;
use flate2::{Compress, Compression, FlushCompress};

/// How pixels are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Raw,
    Hextile,
    Zlib,
    Zrle,
}

impl Encoding {
    /// The encoding of a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            5 => Some(Self::Hextile),
            6 => Some(Self::Zlib),
            16 => Some(Self::Zrle),
            _ => None,
        }
    }
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Hextile => 5,
            Self::Zlib => 6,
            Self::Zrle => 16,
        }
    }
}

/// A client's encoder: the compressed streams last as long as the connection.
pub struct Encoder {
    zlib: Compress,
    zrle: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let stream = || Compress::new(Compression::new(3), true);
        Self { zlib: stream(), zrle: stream() }
    }
}

/// Adds `data`, compressed, after its length.
fn deflate(stream: &mut Compress, data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let before = stream.total_in();
    loop {
        let done = (stream.total_in() - before) as usize;
        out.reserve((data.len() - done) / 2 + 256);
        let room = out.capacity() - out.len();
        // Deflating a slice into a vector cannot fail; anything else would be an endless loop.
        if stream.compress_vec(&data[done..], out, FlushCompress::Sync).is_err() {
            break;
        }
        let all = (stream.total_in() - before) as usize == data.len();
        // Room that is left says that all of the flush is out.
        if all && out.len() < out.capacity() && room > 0 {
            break;
        }
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

impl Encoder {
    /// Adds the pixels of a rectangle, `width` to a line.
    pub fn encode(
        &mut self,
        encoding: Encoding,
        format: &PixelFormat,
        pixels: &[u32],
        width: usize,
        out: &mut Vec<u8>,
    ) {
        let converted: Vec<u32> = pixels.iter().map(|p| format.convert(*p)).collect();
        match encoding {
            Encoding::Raw => converted.iter().for_each(|p| format.put(*p, out)),
            Encoding::Hextile => {
                let mut colors = Colors::default();
                tiles(&converted, width, 16, |tile, width| hextile(format, tile, width, &mut colors, out));
            }
            Encoding::Zlib => {
                let mut raw = Vec::with_capacity(converted.len() * format.bytes());
                converted.iter().for_each(|p| format.put(*p, &mut raw));
                deflate(&mut self.zlib, &raw, out);
            }
            Encoding::Zrle => {
                let mut raw = Vec::with_capacity(converted.len());
                tiles(&converted, width, 64, |tile, width| zrle(format, tile, width, &mut raw));
                deflate(&mut self.zrle, &raw, out);
            }
        }
    }
}

/// Cuts a rectangle into tiles of `side` pixels, row by row.
fn tiles(pixels: &[u32], width: usize, side: usize, mut each: impl FnMut(&[u32], usize)) {
    let mut tile = Vec::with_capacity(side * side);
    for rows in pixels.chunks(width.max(1) * side) {
        for x in (0..width).step_by(side) {
            let w = side.min(width - x);
            tile.clear();
            rows.chunks_exact(width).for_each(|row| tile.extend_from_slice(&row[x..x + w]));
            each(&tile, w);
        }
    }
}

/// Background and foreground that the client remembers from the tile before.
#[derive(Default)]
struct Colors {
    back: Option<u32>,
    fore: Option<u32>,
}

const HEXTILE_RAW: u8 = 1;
const HEXTILE_BACK: u8 = 2;
const HEXTILE_FORE: u8 = 4;
const HEXTILE_SUBRECTS: u8 = 8;
const HEXTILE_COLORED: u8 = 16;

fn hextile(format: &PixelFormat, tile: &[u32], width: usize, known: &mut Colors, out: &mut Vec<u8>) {
    let back = tile[0];
    let other = tile.iter().copied().find(|p| *p != back);
    let two = tile.iter().all(|p| *p == back || Some(*p) == other);
    // Runs of one colour that is not the background.
    let mut runs: Vec<(u32, u8, u8)> = Vec::new();
    for (y, row) in tile.chunks_exact(width).enumerate() {
        let mut x = 0;
        while x < width {
            let end = x + row[x..].iter().take_while(|p| **p == row[x]).count();
            if row[x] != back {
                runs.push((row[x], (x << 4 | y) as u8, ((end - x - 1) << 4) as u8));
            }
            x = end;
        }
    }
    let size = runs.len() * if two { 2 } else { 2 + format.bytes() };
    if runs.len() > 255 || size >= tile.len() * format.bytes() {
        out.push(HEXTILE_RAW);
        tile.iter().for_each(|p| format.put(*p, out));
        *known = Colors::default();
        return;
    }
    let mut kind = 0;
    if known.back != Some(back) {
        kind |= HEXTILE_BACK;
    }
    if !runs.is_empty() {
        kind |= HEXTILE_SUBRECTS;
        if !two {
            kind |= HEXTILE_COLORED;
        } else if known.fore != other {
            kind |= HEXTILE_FORE;
        }
    }
    out.push(kind);
    if kind & HEXTILE_BACK != 0 {
        format.put(back, out);
        known.back = Some(back);
    }
    if let (true, Some(fore)) = (kind & HEXTILE_FORE != 0, other) {
        format.put(fore, out);
        known.fore = Some(fore);
    }
    if kind & HEXTILE_COLORED != 0 {
        // The foreground is not kept over a tile with colours of its own.
        known.fore = None;
    }
    if !runs.is_empty() {
        out.push(runs.len() as u8);
        for (color, place, size) in runs {
            if kind & HEXTILE_COLORED != 0 {
                format.put(color, out);
            }
            out.extend_from_slice(&[place, size]);
        }
    }
}

fn zrle(format: &PixelFormat, tile: &[u32], width: usize, out: &mut Vec<u8>) {
    let mut palette: Vec<u32> = Vec::with_capacity(17);
    let mut runs = 0;
    let mut last = None;
    for pixel in tile {
        if last != Some(*pixel) {
            runs += 1;
            last = Some(*pixel);
            if palette.len() <= 16 && !palette.contains(pixel) {
                palette.push(*pixel);
            }
        }
    }
    let bytes = format.compact_bytes();
    if let [one] = palette[..] {
        out.push(1);
        return format.put_compact(one, out);
    }
    let bits = match palette.len() {
        2 => 1,
        3 | 4 => 2,
        5..=16 => 4,
        _ => 0,
    };
    let rows = tile.len() / width;
    let packed = if bits == 0 { usize::MAX } else { palette.len() * bytes + (width * bits).div_ceil(8) * rows };
    let plain_runs = runs * (bytes + 1);
    if packed <= plain_runs && packed < tile.len() * bytes {
        out.push(palette.len() as u8);
        palette.iter().for_each(|p| format.put_compact(*p, out));
        for row in tile.chunks_exact(width) {
            let (mut byte, mut free) = (0u8, 8);
            for pixel in row {
                let index = palette.iter().position(|p| p == pixel).unwrap_or(0) as u8;
                free -= bits;
                byte |= index << free;
                if free == 0 {
                    out.push(byte);
                    (byte, free) = (0, 8);
                }
            }
            if free != 8 {
                out.push(byte);
            }
        }
    } else if plain_runs < tile.len() * bytes {
        out.push(128);
        let mut at = 0;
        while at < tile.len() {
            let len = tile[at..].iter().take_while(|p| **p == tile[at]).count();
            format.put_compact(tile[at], out);
            let mut rest = len - 1;
            while rest >= 255 {
                out.push(255);
                rest -= 255;
            }
            out.push(rest as u8);
            at += len;
        }
    } else {
        out.push(0);
        tile.iter().for_each(|p| format.put_compact(*p, out));
    }
}
