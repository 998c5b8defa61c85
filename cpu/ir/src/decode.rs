//! Decoders made of tables of bit patterns written as the manuals write them, compiled once into buckets.
//!
//! A pattern is a string of bits from the most significant down: `0` and `1` are fixed, `x` is ignored, `name` is a one-bit
//! field and `name:n` a field of n bits; spaces separate. Names only document the encoding. Patterns may overlap only if one of
//! them fixes every bit that the other fixes: the more specific one is chosen.

/// (mask, value) of a pattern of `width` bits, at most 64. A malformed one does not compile (in a constant).
pub const fn parse_pattern(bits: &str, width: u32) -> (u64, u64) {
    let s = bits.as_bytes();
    let (mut mask, mut value, mut n) = (0u64, 0u64, 0u32);
    let mut i = 0;
    while i < s.len() {
        let c = s[i];
        if c == b' ' {
            i += 1;
        } else if c == b'0' || c == b'1' || c == b'x' {
            let fixed = c != b'x';
            mask = mask << 1 | fixed as u64;
            value = value << 1 | (c == b'1') as u64;
            n += 1;
            i += 1;
        } else {
            assert!(c.is_ascii_alphabetic(), "a pattern has a field without a name");
            while i < s.len() && (s[i].is_ascii_alphanumeric() || s[i] == b'_') {
                i += 1;
            }
            let mut field = 0u32;
            if i < s.len() && s[i] == b':' {
                i += 1;
                while i < s.len() && s[i].is_ascii_digit() {
                    field = field * 10 + (s[i] - b'0') as u32;
                    i += 1;
                }
                assert!(field > 0, "a pattern has a field of no width");
            } else {
                field = 1;
            }
            assert!(i == s.len() || s[i] == b' ', "a pattern's field is not followed by a space");
            assert!(field < 64, "a pattern's field is too wide");
            mask <<= field;
            value <<= field;
            n += field;
        }
        assert!(n <= width, "a pattern is too long");
    }
    assert!(n == width, "a pattern is too short");
    (mask, value)
}

/// A row of a decoder's table.
pub trait Row: 'static {
    /// Bits that the pattern fixes.
    fn mask(&self) -> u64;
    /// Their values.
    fn value(&self) -> u64;
}

/// Which bits of an instruction choose the bucket: two fields, those that tell most instructions apart. At most 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub high_shift: u32,
    pub high_bits: u32,
    pub low_shift: u32,
    pub low_bits: u32,
}

impl Key {
    const fn mask(bits: u32) -> u64 {
        (1 << bits) - 1
    }
    #[inline]
    const fn of(&self, insn: u64) -> usize {
        let high = insn >> self.high_shift & Self::mask(self.high_bits);
        let low = insn >> self.low_shift & Self::mask(self.low_bits);
        (high << self.low_bits | low) as usize
    }
    const fn count(&self) -> u64 {
        1 << (self.high_bits + self.low_bits)
    }
    /// An instruction of which only the key's bits are set, as in bucket `n`; and the mask of these bits.
    const fn insn(&self, n: u64) -> (u64, u64) {
        let (high, low) = (n >> self.low_bits, n & Self::mask(self.low_bits));
        (
            high << self.high_shift | low << self.low_shift,
            Self::mask(self.high_bits) << self.high_shift | Self::mask(self.low_bits) << self.low_shift,
        )
    }
}

/// The compiled tables.
pub struct Decoder<R: Row> {
    rows: Vec<&'static R>,
    key: Key,
    /// Range of `order` for each value of the key.
    buckets: Vec<(u32, u32)>,
    /// (mask, value, row), the more specific first within a bucket.
    order: Vec<(u64, u64, u16)>,
}

impl<R: Row> Decoder<R> {
    pub fn new(tables: &[&'static [R]], key: Key) -> Decoder<R> {
        let rows: Vec<&'static R> = tables.iter().flat_map(|t| t.iter()).collect();
        let mut buckets = Vec::with_capacity(key.count() as usize);
        let mut order = Vec::new();
        let mut sorted: Vec<(u64, u64, u16)> =
            rows.iter().enumerate().map(|(n, r)| (r.mask(), r.value(), n as u16)).collect();
        sorted.sort_by_key(|e| std::cmp::Reverse(e.0.count_ones()));
        for n in 0..key.count() {
            let start = order.len() as u32;
            let (bits, mask) = key.insn(n);
            order.extend(sorted.iter().filter(|e| (bits ^ e.1) & e.0 & mask == 0));
            buckets.push((start, order.len() as u32));
        }
        Decoder { rows, key, buckets, order }
    }

    /// The row that an instruction matches.
    #[inline]
    pub fn find(&self, insn: u64) -> Option<&'static R> {
        let (start, end) = self.buckets[self.key.of(insn)];
        let hit = self.order[start as usize..end as usize].iter().find(|e| insn & e.0 == e.1)?;
        Some(self.rows[hit.2 as usize])
    }

    pub fn rows(&self) -> &[&'static R] {
        &self.rows
    }

    /// Pairs of patterns that overlap without one being more specific.
    pub fn ambiguities(&self) -> Vec<(&'static R, &'static R)> {
        let mut found = Vec::new();
        for (i, a) in self.rows.iter().enumerate() {
            for b in &self.rows[i + 1..] {
                let both = a.mask() & b.mask();
                if (a.value() ^ b.value()) & both == 0
                    && (a.mask() == b.mask() || (both != a.mask() && both != b.mask()))
                {
                    found.push((*a, *b));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_parse() {
        assert_eq!(parse_pattern("sf 00 100010 sh imm12:12 Rn:5 Rd:5", 32), (0x7f80_0000, 0x1100_0000));
        assert_eq!(parse_pattern("1x01 a:27 1", 32), (0xb000_0001, 0x9000_0001));
        assert_eq!(parse_pattern("000001 a:26 100000 b:26", 64), (0xfc00_0000_fc00_0000, 0x0400_0000_8000_0000));
    }

    struct P(u64, u64);
    impl Row for P {
        fn mask(&self) -> u64 {
            self.0
        }
        fn value(&self) -> u64 {
            self.1
        }
    }
    static ROWS: &[P] = &[P(0xf00, 0x100), P(0xf0f, 0x103), P(0xf00, 0x200)];

    #[test]
    fn the_more_specific_row_is_found() {
        let d = Decoder::new(&[ROWS], Key { high_shift: 8, high_bits: 4, low_shift: 0, low_bits: 2 });
        assert!(d.ambiguities().is_empty());
        assert_eq!(d.find(0x153).map(|p| p.0), Some(0xf0f));
        assert_eq!(d.find(0x152).map(|p| p.1), Some(0x100));
        assert_eq!(d.find(0x252).map(|p| p.1), Some(0x200));
        assert!(d.find(0x352).is_none());
    }
}
