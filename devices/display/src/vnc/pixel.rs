//! Pixels as a client wants them.

/// The pixel format of a client (RFC 6143 section 7.4).
#[derive(Clone, Debug)]
pub struct PixelFormat {
    /// Bytes of a pixel: 1, 2 or 4.
    bytes: usize,
    big_endian: bool,
    /// The colours are numbers into a map.
    pub mapped: bool,
    /// What each value of red, green and blue adds.
    tables: [[u32; 256]; 3],
    /// In ZRLE, pixels lose the byte that is always zero: the highest or the lowest.
    compact: Option<Compact>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compact {
    DropHigh,
    DropLow,
}

/// The format of the server, as it is announced: 32 bits, little-endian, 8 for each colour, red highest.
pub const SERVER_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

impl PixelFormat {
    /// Parses a format; `None` if there is no such.
    #[must_use]
    pub fn parse(f: &[u8; 16]) -> Option<Self> {
        let [bits, depth, big_endian, true_color, ..] = *f;
        if !matches!(bits, 8 | 16 | 32) {
            return None;
        }
        let max = |i: usize| u32::from(u16::from_be_bytes([f[i], f[i + 1]]));
        let mapped = true_color == 0;
        // A map of 256 colours: three bits of red and green, two of blue.
        let (maxima, shifts) =
            if mapped { ([7, 7, 3], [5, 2, 0]) } else { ([max(4), max(6), max(8)], [f[10], f[11], f[12]]) };
        if mapped && bits != 8 || shifts.iter().any(|s| *s >= bits) {
            return None;
        }
        let tables = std::array::from_fn(|c| {
            std::array::from_fn(|v| ((v as u32 * maxima[c] + 127) / 255).checked_shl(shifts[c].into()).unwrap_or(0))
        });
        let all = (0..3).fold(0u32, |all, c| all | maxima[c].checked_shl(shifts[c].into()).unwrap_or(0));
        let compact = match all {
            _ if bits != 32 || depth > 24 || mapped => None,
            _ if all >> 24 == 0 => Some(Compact::DropHigh),
            _ if all & 0xff == 0 => Some(Compact::DropLow),
            _ => None,
        };
        Some(Self { bytes: usize::from(bits) / 8, big_endian: big_endian != 0, mapped, tables, compact })
    }
    /// A pixel of the picture in this format.
    #[must_use]
    pub fn convert(&self, pixel: u32) -> u32 {
        let [_, r, g, b] = pixel.to_be_bytes();
        self.tables[0][usize::from(r)] | self.tables[1][usize::from(g)] | self.tables[2][usize::from(b)]
    }
    /// Adds a converted pixel.
    pub fn put(&self, value: u32, out: &mut Vec<u8>) {
        match (self.bytes, self.big_endian) {
            (1, _) => out.push(value as u8),
            (2, false) => out.extend_from_slice(&(value as u16).to_le_bytes()),
            (2, true) => out.extend_from_slice(&(value as u16).to_be_bytes()),
            (_, false) => out.extend_from_slice(&value.to_le_bytes()),
            (_, true) => out.extend_from_slice(&value.to_be_bytes()),
        }
    }
    /// Adds a converted pixel as ZRLE has it.
    pub fn put_compact(&self, value: u32, out: &mut Vec<u8>) {
        let value = match self.compact {
            None => return self.put(value, out),
            Some(Compact::DropHigh) => value,
            Some(Compact::DropLow) => value >> 8,
        };
        let [a, b, c, _] = value.to_le_bytes();
        out.extend_from_slice(&if self.big_endian { [c, b, a] } else { [a, b, c] });
    }
    /// Bytes of a pixel.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Bytes of a pixel in ZRLE.
    #[must_use]
    pub fn compact_bytes(&self) -> usize {
        if self.compact.is_some() { 3 } else { self.bytes }
    }
    /// The message that sets the map of [`Self::mapped`] colours.
    #[must_use]
    pub fn color_map() -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0, 1, 0];
        for i in 0..256u32 {
            for (value, max) in [(i >> 5, 7), (i >> 2 & 7, 7), (i & 3, 3)] {
                message.extend_from_slice(&((value * 0xffff / max) as u16).to_be_bytes());
            }
        }
        message
    }
}
