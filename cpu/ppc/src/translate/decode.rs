//! The decoder: tables of patterns ([`rhea_ir::decode`]) of words, and of prefixed instructions (a pattern of 64 bits, the
//! prefix in the upper half).

use super::{Flow, Translator};
use crate::config::Isa;
use rhea_ir::decode::{Decoder, Key, Row, parse_pattern};
use std::sync::OnceLock;

/// An instruction: a word, or a prefixed instruction with the prefix in the upper half. Bits are numbered as the manual
/// does: from 0, the most significant one of a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn(pub u64);

impl Insn {
    /// Bits `first` to `last` of the word (of a prefixed instruction, its suffix).
    #[inline]
    pub const fn field(self, first: u32, last: u32) -> u32 {
        (self.0 as u32 >> (31 - last)) & ((1u64 << (last - first + 1)) - 1) as u32
    }
    /// The same, sign-extended.
    #[inline]
    pub const fn sfield(self, first: u32, last: u32) -> i64 {
        (((self.0 as u32) << first) as i32 >> (31 - last + first)) as i64
    }
    #[inline]
    pub const fn bit(self, n: u32) -> bool {
        self.0 as u32 >> (31 - n) & 1 != 0
    }
    /// RT, RS, FRT, VRT, BO, TO.
    #[inline]
    pub const fn rt(self) -> u32 {
        self.field(6, 10)
    }
    #[inline]
    pub const fn ra(self) -> u32 {
        self.field(11, 15)
    }
    #[inline]
    pub const fn rb(self) -> u32 {
        self.field(16, 20)
    }
    /// FRC, VRC.
    #[inline]
    pub const fn rc_reg(self) -> u32 {
        self.field(21, 25)
    }
    /// Bit 31: record form.
    #[inline]
    pub const fn rc(self) -> bool {
        self.0 & 1 != 0
    }
    /// Bit 21: overflow is recorded.
    #[inline]
    pub const fn oe(self) -> bool {
        self.bit(21)
    }
    /// BF, the target field of the condition register.
    #[inline]
    pub const fn bf(self) -> u32 {
        self.field(6, 8)
    }
    /// Signed immediate, bits 16–31.
    #[inline]
    pub const fn si(self) -> i64 {
        self.0 as u16 as i16 as i64
    }
    #[inline]
    pub const fn ui(self) -> u64 {
        self.0 as u16 as u64
    }
    /// VSX registers with their sixth bits: TX/SX in bit 31, AX bit 29, BX bit 30, CX bit 28.
    #[inline]
    pub const fn xt(self) -> u32 {
        self.rt() | self.field(31, 31) << 5
    }
    #[inline]
    pub const fn xa(self) -> u32 {
        self.ra() | self.field(29, 29) << 5
    }
    #[inline]
    pub const fn xb(self) -> u32 {
        self.rb() | self.field(30, 30) << 5
    }
    #[inline]
    pub const fn xc(self) -> u32 {
        self.rc_reg() | self.field(28, 28) << 5
    }
    /// The prefix of a prefixed instruction as a word of its own.
    #[inline]
    pub const fn prefix(self) -> Insn {
        Insn(self.0 >> 32)
    }
    /// Prefix bit 11 (R): the address is relative to the instruction's own.
    #[inline]
    pub const fn pc_relative(self) -> bool {
        self.prefix().bit(11)
    }
    /// The 34-bit signed immediate or displacement of prefixed instructions.
    #[inline]
    pub const fn si34(self) -> i64 {
        let v = (self.prefix().field(14, 31) as u64) << 16 | self.ui();
        ((v << 30) as i64) >> 30
    }
}

/// Translates one instruction of a family.
pub type Handler = fn(&mut Translator, Insn) -> Flow;

/// A facility that must be available (MSR, FSCR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Facility {
    None,
    /// MSR.FP.
    Fp,
    /// MSR.VEC.
    Vec,
    /// MSR.VSX.
    Vsx,
    /// VSX instructions that need MSR.VEC for VSRs 32–63 and MSR.VSX for the others: by the target register (TX, bit 31).
    VsxOrVec,
    /// FSCR.TAR.
    Tar,
}

/// One row of a family's table.
#[derive(Clone, Copy)]
pub struct Pattern {
    pub name: &'static str,
    pub bits: &'static str,
    pub mask: u64,
    pub value: u64,
    pub handler: Handler,
    /// The versions that have it.
    pub since: Isa,
    pub until: Isa,
    pub facility: Facility,
    /// In problem state: privileged-instruction interrupt.
    pub privileged: bool,
}

impl Row for Pattern {
    fn mask(&self) -> u64 {
        self.mask
    }
    fn value(&self) -> u64 {
        self.value
    }
}

impl Pattern {
    /// Exists from this version on.
    pub const fn since(mut self, v: Isa) -> Pattern {
        self.since = v;
        self
    }
    /// Exists up to this version.
    pub const fn until(mut self, v: Isa) -> Pattern {
        self.until = v;
        self
    }
    pub const fn fp(mut self) -> Pattern {
        self.facility = Facility::Fp;
        self
    }
    pub const fn vec(mut self) -> Pattern {
        self.facility = Facility::Vec;
        self
    }
    pub const fn vsx(mut self) -> Pattern {
        self.facility = Facility::Vsx;
        self
    }
    pub const fn needs(mut self, f: Facility) -> Pattern {
        self.facility = f;
        self
    }
    pub const fn privileged(mut self) -> Pattern {
        self.privileged = true;
        self
    }
    /// An encoding of this pattern with the free bits taken from `random`.
    pub const fn encoding(&self, random: u64) -> u64 {
        self.value | (random & !self.mask)
    }
}

const fn pattern(name: &'static str, bits: &'static str, width: u32, handler: Handler) -> Pattern {
    let (mask, value) = parse_pattern(bits, width);
    Pattern {
        name,
        bits,
        mask,
        value,
        handler,
        since: Isa::V2_07,
        until: Isa::V3_1,
        facility: Facility::None,
        privileged: false,
    }
}

/// A row for an instruction of one word: 32 bits, see [`rhea_ir::decode`].
pub const fn pat(name: &'static str, bits: &'static str, handler: Handler) -> Pattern {
    pattern(name, bits, 32, handler)
}

/// A row for a prefixed instruction: 64 bits; exists since version 3.1.
pub const fn prefixed(name: &'static str, bits: &'static str, handler: Handler) -> Pattern {
    pattern(name, bits, 64, handler).since(Isa::V3_1)
}

/// The decoder of instructions of one word: by primary opcode and the low bits of the extended one.
pub fn words() -> &'static Decoder<Pattern> {
    static DECODER: OnceLock<Decoder<Pattern>> = OnceLock::new();
    DECODER
        .get_or_init(|| Decoder::new(&super::tables(), Key { high_shift: 26, high_bits: 6, low_shift: 1, low_bits: 6 }))
}

/// The decoder of prefixed instructions: by type of the prefix and the suffix's primary opcode.
pub fn prefixes() -> &'static Decoder<Pattern> {
    static DECODER: OnceLock<Decoder<Pattern>> = OnceLock::new();
    DECODER.get_or_init(|| {
        Decoder::new(&super::prefixed_tables(), Key { high_shift: 56, high_bits: 2, low_shift: 26, low_bits: 6 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(d: &Decoder<Pattern>) {
        let bad: Vec<String> = d
            .ambiguities()
            .iter()
            .map(|(a, b)| format!("{} [{}] and {} [{}]", a.name, a.bits, b.name, b.bits))
            .collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        for p in d.rows() {
            let mut r = 0x1234_5678_9abc_def1u64;
            let found = (0..64).any(|_| {
                r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                d.find(p.encoding(r.rotate_left(17) & if p.mask >> 32 != 0 { !0 } else { 0xffff_ffff }))
                    .is_some_and(|q| std::ptr::eq(q, *p))
            });
            assert!(found, "{} [{}] is hidden by others", p.name, p.bits);
        }
    }

    #[test]
    fn no_pattern_is_ambiguous_or_hidden() {
        sound(words());
        sound(prefixes());
    }

    #[test]
    fn fields() {
        // addi r3,r4,-2
        let i = Insn(0x3864_fffe);
        assert_eq!((i.rt(), i.ra(), i.si()), (3, 4, -2));
        assert_eq!(i.field(0, 5), 14);
        assert_eq!(Insn(0x0603_ffff_3860_fffe).si34(), -2);
    }
}
