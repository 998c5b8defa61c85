//! The decoder: tables of bit patterns written as the manuals write them, compiled once into buckets.
//!
//! A pattern is a string of 32 bits from bit 31 down: `0` and `1` are fixed, `x` is ignored, `name` is a one-bit field
//! and `name:n` a field of n bits; spaces separate. Handlers take fields by position through [`Insn`]; the names
//! document the encoding. Patterns may overlap only if one of them fixes every bit that the other fixes (the more
//! specific one is chosen); a test checks that.

use super::{Flow, Translator};
use crate::config::Feature;
use std::sync::OnceLock;

/// An instruction word with accessors for the usual fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn(pub u32);

impl Insn {
    /// `width` bits from bit `lo`.
    #[inline]
    pub const fn bits(self, lo: u32, width: u32) -> u32 {
        (self.0 >> lo) & (((1u64 << width) - 1) as u32)
    }
    /// The same, sign-extended.
    #[inline]
    pub const fn sbits(self, lo: u32, width: u32) -> i64 {
        (((self.0 << (32 - lo - width)) as i32) >> (32 - width)) as i64
    }
    #[inline]
    pub const fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 != 0
    }
    /// Rd or Rt, bits 4:0.
    #[inline]
    pub const fn rd(self) -> u32 {
        self.0 & 31
    }
    #[inline]
    pub const fn rt(self) -> u32 {
        self.0 & 31
    }
    /// Rn, bits 9:5.
    #[inline]
    pub const fn rn(self) -> u32 {
        self.bits(5, 5)
    }
    /// Rm or Rs, bits 20:16.
    #[inline]
    pub const fn rm(self) -> u32 {
        self.bits(16, 5)
    }
    /// Ra or Rt2, bits 14:10.
    #[inline]
    pub const fn ra(self) -> u32 {
        self.bits(10, 5)
    }
    /// Bit 31: 64-bit operation.
    #[inline]
    pub const fn sf(self) -> bool {
        self.bit(31)
    }
    /// Bit 30: the vector form with 128 bits.
    #[inline]
    pub const fn q(self) -> bool {
        self.bit(30)
    }
}

/// Translates one instruction of a family.
pub type Handler = fn(&mut Translator, Insn) -> Flow;

/// One row of a family's table.
#[derive(Clone, Copy)]
pub struct Pattern {
    pub name: &'static str,
    pub bits: &'static str,
    pub mask: u32,
    pub value: u32,
    pub handler: Handler,
    /// UNDEFINED without it.
    pub feature: Option<Feature>,
    /// Accesses FP/AdvSIMD registers: subject to the FP access trap.
    pub fp: bool,
}

impl Pattern {
    /// The instruction exists only with the feature.
    pub const fn needs(mut self, f: Feature) -> Pattern {
        self.feature = Some(f);
        self
    }
    /// Accesses FP/AdvSIMD state.
    pub const fn fp(mut self) -> Pattern {
        self.fp = true;
        self
    }
    /// An encoding of this pattern with the free bits taken from `random`.
    pub const fn encoding(&self, random: u32) -> u32 {
        self.value | (random & !self.mask)
    }
}

/// Parses a pattern; a malformed one does not compile (in a constant).
pub const fn pat(name: &'static str, bits: &'static str, handler: Handler) -> Pattern {
    let (mask, value) = parse(bits);
    Pattern { name, bits, mask, value, handler, feature: None, fp: false }
}

const fn parse(bits: &str) -> (u32, u32) {
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
            let mut width = 0u32;
            if i < s.len() && s[i] == b':' {
                i += 1;
                while i < s.len() && s[i].is_ascii_digit() {
                    width = width * 10 + (s[i] - b'0') as u32;
                    i += 1;
                }
                assert!(width > 0, "a pattern has a field of no width");
            } else {
                width = 1;
            }
            assert!(i == s.len() || s[i] == b' ', "a pattern's field is not followed by a space");
            mask <<= width;
            value <<= width;
            n += width;
        }
        assert!(n <= 32, "a pattern is longer than 32 bits");
    }
    assert!(n == 32, "a pattern is not 32 bits long");
    (mask as u32, value as u32)
}

const BUCKET_BITS: u32 = 11;

/// The compiled tables.
pub struct Decoder {
    patterns: Vec<&'static Pattern>,
    /// Range of `order` for each value of bits 31:21.
    buckets: Vec<(u32, u32)>,
    /// (mask, value, pattern), the more specific first within a bucket.
    order: Vec<(u32, u32, u16)>,
}

impl Decoder {
    pub fn new(tables: &[&'static [Pattern]]) -> Decoder {
        let patterns: Vec<&'static Pattern> = tables.iter().flat_map(|t| t.iter()).collect();
        let mut buckets = Vec::with_capacity(1 << BUCKET_BITS);
        let mut order = Vec::new();
        let mut sorted: Vec<(u32, u32, u16)> =
            patterns.iter().enumerate().map(|(n, p)| (p.mask, p.value, n as u16)).collect();
        sorted.sort_by_key(|e| std::cmp::Reverse(e.0.count_ones()));
        for top in 0..1u32 << BUCKET_BITS {
            let start = order.len() as u32;
            let bits = top << (32 - BUCKET_BITS);
            let top_mask = !0u32 << (32 - BUCKET_BITS);
            order.extend(sorted.iter().filter(|e| (bits ^ e.1) & e.0 & top_mask == 0));
            buckets.push((start, order.len() as u32));
        }
        Decoder { patterns, buckets, order }
    }

    /// The pattern that an instruction word matches.
    #[inline]
    pub fn find(&self, insn: u32) -> Option<&'static Pattern> {
        let (start, end) = self.buckets[(insn >> (32 - BUCKET_BITS)) as usize];
        let hit = self.order[start as usize..end as usize].iter().find(|e| insn & e.0 == e.1)?;
        Some(self.patterns[hit.2 as usize])
    }

    pub fn patterns(&self) -> &[&'static Pattern] {
        &self.patterns
    }

    /// Pairs of patterns that overlap without one being more specific.
    pub fn ambiguities(&self) -> Vec<(&'static Pattern, &'static Pattern)> {
        let mut found = Vec::new();
        for (i, a) in self.patterns.iter().enumerate() {
            for b in &self.patterns[i + 1..] {
                let both = a.mask & b.mask;
                if (a.value ^ b.value) & both == 0 && (a.mask == b.mask || (both != a.mask && both != b.mask)) {
                    found.push((*a, *b));
                }
            }
        }
        found
    }
}

/// The decoder of everything this crate translates.
pub fn decoder() -> &'static Decoder {
    static DECODER: OnceLock<Decoder> = OnceLock::new();
    DECODER.get_or_init(|| Decoder::new(&super::tables()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_parse() {
        let p = parse("sf 00 100010 sh imm12:12 Rn:5 Rd:5");
        assert_eq!(p, (0x7f80_0000, 0x1100_0000));
        assert_eq!(parse("1x01 a:27 1"), (0xb000_0001, 0x9000_0001));
    }

    #[test]
    fn no_pattern_is_ambiguous() {
        let bad: Vec<String> = decoder()
            .ambiguities()
            .iter()
            .map(|(a, b)| format!("{} [{}] and {} [{}]", a.name, a.bits, b.name, b.bits))
            .collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    }

    #[test]
    fn each_pattern_is_found() {
        let d = decoder();
        for p in d.patterns() {
            let mut r = 0x1234_5678u32;
            let found = (0..64).any(|_| {
                r = r.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                d.find(p.encoding(r ^ (r >> 15))).is_some_and(|q| std::ptr::eq(q, *p))
            });
            assert!(found, "{} [{}] is hidden by others", p.name, p.bits);
        }
    }

    #[test]
    fn fields() {
        let i = Insn(0xf81f_0fe0);
        assert_eq!((i.rt(), i.rn(), i.sbits(12, 9)), (0, 31, -16));
        assert_eq!(Insn(!0).bits(0, 32), !0);
    }
}
