//! The decoder: tables of patterns of 32 bits ([`rhea_ir::decode`]). Handlers take fields by position through [`Insn`].

use super::{Flow, Translator};
use crate::config::Feature;
use rhea_ir::decode::{self, Key, Row, parse_pattern};
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
    let (mask, value) = parse_pattern(bits, 32);
    Pattern { name, bits, mask: mask as u32, value: value as u32, handler, feature: None, fp: false }
}

impl Row for Pattern {
    fn mask(&self) -> u64 {
        self.mask.into()
    }
    fn value(&self) -> u64 {
        self.value.into()
    }
}

/// The compiled tables.
pub struct Decoder(decode::Decoder<Pattern>);

impl Decoder {
    /// Buckets are chosen by bits 31:21.
    pub fn new(tables: &[&'static [Pattern]]) -> Decoder {
        Decoder(decode::Decoder::new(tables, Key { high_shift: 21, high_bits: 11, low_shift: 0, low_bits: 0 }))
    }
    /// The pattern that an instruction word matches.
    #[inline]
    pub fn find(&self, insn: u32) -> Option<&'static Pattern> {
        self.0.find(insn.into())
    }
    pub fn patterns(&self) -> &[&'static Pattern] {
        self.0.rows()
    }
    /// Pairs of patterns that overlap without one being more specific.
    pub fn ambiguities(&self) -> Vec<(&'static Pattern, &'static Pattern)> {
        self.0.ambiguities()
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
