//! Vector operations outside generated code (Book I, chapters 6 and 7). Values are 128-bit numbers as the manual draws a
//! register: element 0 is the most significant. [`from_register`] and [`to_register`] convert from the form in
//! [`crate::PpcCpu::vsr`].

mod bcd;
mod integer;
mod move_bits;
mod single;

pub use bcd::bcd;

/// The manual's number from a register.
#[inline]
pub const fn from_register(v: u128) -> u128 {
    v.rotate_left(64)
}
/// The register that holds the number.
#[inline]
pub const fn to_register(v: u128) -> u128 {
    v.rotate_left(64)
}

/// Element `i` of `bits` bits.
#[inline]
pub(crate) const fn el(v: u128, bits: u32, i: u32) -> u128 {
    let m = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    v >> ((128 - bits * (i + 1)) & 127) & m
}
/// The same, sign-extended.
#[inline]
pub(crate) const fn sel(v: u128, bits: u32, i: u32) -> i128 {
    let s = 128 - bits;
    ((el(v, bits, i) << s) as i128) >> s
}
/// The low bits of `x` as element `i` of an otherwise zero vector.
#[inline]
pub(crate) const fn put(x: u128, bits: u32, i: u32) -> u128 {
    let m = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    (x & m) << ((128 - bits * (i + 1)) & 127)
}
/// A vector of elements from a function of their numbers.
#[inline]
pub(crate) fn make(bits: u32, f: impl Fn(u32) -> u128) -> u128 {
    (0..128 / bits).fold(0, |r, i| r | put(f(i), bits, i))
}

/// Operands and results of an operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operands {
    pub a: u128,
    pub b: u128,
    pub c: u128,
    /// The instruction's small operand.
    pub imm: u32,
    /// FPSCR.NI or VSCR.NJ.
    pub flush: bool,
    /// An element was saturated.
    pub sat: bool,
    /// CR6, if it is written.
    pub cr6: Option<u32>,
}

impl Operands {
    /// Saturates to a signed number of `bits`.
    pub(crate) fn sats(&mut self, v: i128, bits: u32) -> u128 {
        let (lo, hi) = (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
        self.sat |= v < lo || v > hi;
        v.clamp(lo, hi) as u128
    }
    /// Saturates to an unsigned number of `bits`.
    pub(crate) fn satu(&mut self, v: i128, bits: u32) -> u128 {
        let hi = (1i128 << bits) - 1;
        self.sat |= v < 0 || v > hi;
        v.clamp(0, hi) as u128
    }
    /// As [`make`], of what may saturate.
    pub(crate) fn each(&mut self, bits: u32, f: impl Fn(&mut Self, u32) -> u128) -> u128 {
        (0..128 / bits).fold(0, |r, i| {
            let x = f(self, i);
            r | put(x, bits, i)
        })
    }
    /// Compare results: CR6 of a record form (imm bit 0).
    pub(crate) fn compared(&mut self, r: u128) -> u128 {
        let all = if r == u128::MAX { 8 } else { 0 };
        let none = if r == 0 { 2 } else { 0 };
        self.cr6 = Some(all | none);
        r
    }
}

macro_rules! operations {
    ($($name:ident = $f:expr;)*) => {
        /// An operation.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum VecOp { $($name,)* }
        static TABLE: &[fn(&mut Operands) -> u128] = &[$($f,)*];
    };
}

/// Does operation number `op`; unknown numbers give zero.
pub fn run(op: u32, o: &mut Operands) -> u128 {
    match TABLE.get(op as usize) {
        Some(f) => f(o),
        None => 0,
    }
}

use integer as int;
use move_bits as mv;

operations! {
    // Packing; imm: log2 of the source's bits | 8 source signed | 16 result signed.
    Pack = int::pack;
    PackPixel = int::pack_pixel;
    UnpackPixel = int::unpack_pixel;
    // Carries and quadwords.
    AddCarryWord = |o| make(32, |i| (el(o.a, 32, i) + el(o.b, 32, i)) >> 32);
    SubCarryWord = |o| make(32, |i| u128::from(el(o.a, 32, i) >= el(o.b, 32, i)));
    AddQ = |o| o.a.wrapping_add(o.b);
    SubQ = |o| o.a.wrapping_sub(o.b);
    AddCarryQ = |o| u128::from(o.a.checked_add(o.b).is_none());
    SubCarryQ = |o| u128::from(o.a >= o.b);
    AddExtendedQ = |o| o.a.wrapping_add(o.b).wrapping_add(o.c & 1);
    AddExtendedCarryQ = |o| int::carry(o.a, o.b, o.c & 1);
    SubExtendedQ = |o| o.a.wrapping_add(!o.b).wrapping_add(o.c & 1);
    SubExtendedCarryQ = |o| int::carry(o.a, !o.b, o.c & 1);
    // Multiplication. imm: log2 of the bits | 8 signed | 16 even elements.
    MulWiden = int::mul_widen;
    // imm: log2 bits | 8 signed: the high half.
    MulHigh = int::mul_high;
    MulHighAddSat = |o| int::mul_high_add(o, 0);
    MulHighRoundAddSat = |o| int::mul_high_add(o, 0x4000);
    MulSumUnsignedByte = |o| make(32, |i| el(o.c, 32, i) + (0..4).map(|k| el(o.a, 8, 4 * i + k) * el(o.b, 8, 4 * i + k)).sum::<u128>());
    MulSumMixedByte = |o| make(32, |i| {
        (sel(o.c, 32, i) + (0..4).map(|k| sel(o.a, 8, 4 * i + k) * el(o.b, 8, 4 * i + k) as i128).sum::<i128>()) as u128
    });
    MulSumUnsignedHalf = |o| make(32, |i| int::sum_products_u(o, i) as u128);
    MulSumUnsignedHalfSat = |o| o.each(32, |o, i| { let v = int::sum_products_u(o, i); o.satu(v, 32) });
    MulSumSignedHalf = |o| make(32, |i| int::sum_products_s(o, i) as u128);
    MulSumSignedHalfSat = |o| o.each(32, |o, i| { let v = int::sum_products_s(o, i); o.sats(v, 32) });
    MulSumDouble = |o| (el(o.a, 64, 0) * el(o.b, 64, 0)).wrapping_add(el(o.a, 64, 1) * el(o.b, 64, 1)).wrapping_add(o.c);
    MulSumDoubleCarry = int::mul_sum_carry;
    // Sums across.
    Sum4UnsignedByteSat = |o| o.each(32, |o, i| {
        let v = (0..4).map(|k| el(o.a, 8, 4 * i + k) as i128).sum::<i128>() + el(o.b, 32, i) as i128;
        o.satu(v, 32)
    });
    Sum4SignedByteSat = |o| o.each(32, |o, i| {
        let v = (0..4).map(|k| sel(o.a, 8, 4 * i + k)).sum::<i128>() + sel(o.b, 32, i);
        o.sats(v, 32)
    });
    Sum4SignedHalfSat = |o| o.each(32, |o, i| {
        let v = (0..2).map(|k| sel(o.a, 16, 2 * i + k)).sum::<i128>() + sel(o.b, 32, i);
        o.sats(v, 32)
    });
    Sum2SignedWordSat = |o| o.each(64, |o, i| {
        let v = sel(o.a, 32, 2 * i) + sel(o.a, 32, 2 * i + 1) + sel(o.b, 32, 2 * i + 1);
        o.sats(v, 32) & 0xffff_ffff
    });
    SumSignedWordSat = |o| {
        let v = (0..4).map(|k| sel(o.a, 32, k)).sum::<i128>() + sel(o.b, 32, 3);
        o.sats(v, 32) & 0xffff_ffff
    };
    // Compares of quadwords: imm 0 equal, 1 greater unsigned, 2 greater signed.
    CompareQ = |o| {
        let c = match o.imm { 0 => o.a == o.b, 1 => o.a > o.b, _ => (o.a as i128) > o.b as i128 };
        let r = if c { u128::MAX } else { 0 };
        o.compared(r)
    };
    CompareQField = |o| {
        // imm 1: signed. The result holds the field.
        if o.imm & 1 != 0 { int::order(o.a as i128, o.b as i128) } else { int::order(o.a, o.b) }
    };
    // Shifts and rotates; imm: log2 of the bits.
    Rotate = |o| int::shifts(o, |v, n, bits| v << n | v >> (bits - n));
    ShiftLeft = |o| int::shifts(o, |v, n, _| v << n);
    ShiftRight = |o| int::shifts(o, |v, n, _| v >> n);
    ShiftRightSigned = |o| int::shifts(o, |v, n, bits| ((v << (128 - bits)) as i128 >> (128 - bits) >> n) as u128);
    // imm: log2 bits | 8: insert into c.
    RotateMask = int::rotate_mask;
    ShiftLeftBits = |o| o.a << (o.b & 7);
    ShiftRightBits = |o| o.a >> (o.b & 7);
    ShiftLeftVariable = |o| make(8, |i| {
        let next = if i < 15 { el(o.a, 8, i + 1) } else { 0 };
        (el(o.a, 8, i) << 8 | next) << (el(o.b, 8, i) & 7) >> 8
    });
    ShiftRightVariable = |o| make(8, |i| {
        let previous = if i > 0 { el(o.a, 8, i - 1) } else { 0 };
        (previous << 8 | el(o.a, 8, i)) >> (el(o.b, 8, i) & 7)
    });
    ShiftLeftDoubleBits = |o| if o.imm == 0 { o.a } else { o.a << o.imm | o.b >> (128 - o.imm) };
    ShiftRightDoubleBits = |o| if o.imm == 0 { o.b } else { o.b >> o.imm | o.a << (128 - o.imm) };
    // Counts; imm: log2 of the bits.
    LeadingZeros = |o| int::counts(o, |v, bits| v.leading_zeros() - (128 - bits));
    TrailingZeros = |o| int::counts(o, |v, bits| v.trailing_zeros().min(bits));
    Parity = |o| int::counts(o, |v, bits| (0..bits / 8).fold(0, |p, k| p ^ (v >> (8 * k)) as u32 & 1));
    LeadingZerosMask = |o| make(64, |i| u128::from(mv::count_masked(el(o.a, 64, i) as u64, el(o.b, 64, i) as u64, true)));
    TrailingZerosMask = |o| make(64, |i| u128::from(mv::count_masked(el(o.a, 64, i) as u64, el(o.b, 64, i) as u64, false)));
    CentrifugeDouble = |o| make(64, |i| u128::from(mv::centrifuge(el(o.a, 64, i) as u64, el(o.b, 64, i) as u64)));
    ExtractDouble = |o| make(64, |i| u128::from(mv::extract(el(o.a, 64, i) as u64, el(o.b, 64, i) as u64)));
    DepositDouble = |o| make(64, |i| u128::from(mv::deposit(el(o.a, 64, i) as u64, el(o.b, 64, i) as u64)));
    GatherNth = mv::gather_nth;
    BitPermuteD = mv::bit_permute_d;
    PermuteXor = |o| make(8, |i| {
        let s = el(o.c, 8, i) as u32;
        el(o.a, 8, s >> 4) ^ el(o.b, 8, s & 15)
    });
    // Masks; imm: log2 of the bits.
    MoveToMask = |o| { let bits = 1 << o.imm; let n = 128 / bits; make(bits, |i| if o.b >> (n - 1 - i) & 1 != 0 { u128::MAX } else { 0 }) };
    // imm: log2 bits | 8: count the ones.
    CountMask = |o| {
        let bits = 1u32 << (o.imm & 7);
        let n = (0..128 / bits).filter(|&i| el(o.b, bits, i) >> (bits - 1) == u128::from(o.imm >> 3 & 1)).count() as u32;
        // In the leading bits of a GPR, above the byte count's place.
        u128::from(n) << (56 + bits.trailing_zeros() - 3)
    };
    // Division; imm: log2 of the bits | 8 signed | 16 extended | 32 remainder.
    Divide = int::divide;
    // Polynomials; imm: log2 of the bits.
    MulSumPolynomial = int::polynomial;
    // SHA-2: imm = six operands: ST << 4 | SIX.
    ShaSigmaWord = |o| make(32, |i| u128::from(mv::sha_sigma32(el(o.a, 32, i) as u32, o.imm >> 4 & 1, o.imm >> (3 - i) & 1)));
    ShaSigmaDouble = |o| make(64, |i| u128::from(mv::sha_sigma64(el(o.a, 64, i) as u64, o.imm >> 4 & 1, o.imm >> (3 - 2 * i) & 1)));
    // Extraction and insertion by an index in `imm` (a byte, may pass the end: then nothing happens).
    ExtractIndexed = mv::extract_indexed;
    ExtractDoubleIndexed = mv::extract_double_indexed;
    InsertIndexed = mv::insert_indexed;
    // Strings; imm: 0 bytes, 1 halfwords | 2 right.
    IsolateString = mv::isolate_string;
    ClearLeftmost = |o| { let n = o.imm.min(16); if n == 0 { 0 } else { o.a & (u128::MAX >> (128 - 8 * n)) } };
    ClearRightmost = |o| { let n = o.imm.min(16); if n == 0 { 0 } else { o.a & (u128::MAX << (128 - 8 * n)) } };
    // Sign extension of the low bits of elements: imm: log2 of the element | log2 of the source << 4.
    SignExtend = |o| { let (bits, from) = (1u32 << (o.imm & 15), 1u32 << (o.imm >> 4)); make(bits, |i| {
        let s = 128 - from;
        ((el(o.b, bits, i) << s) as i128 >> s) as u128
    }) };
    Negate = |o| { let bits = 1 << o.imm; make(bits, |i| el(o.b, bits, i).wrapping_neg()) };
    // Decimal: imm see `bcd`.
    Bcd = bcd;
    Mul10 = bcd::mul10;
    // Single precision of the vector facility; imm: operation.
    Float = single::vector_float;
    FloatCompare = single::compare;
    FloatConvert = single::convert;
    // VSX.
    TestClasses = |o| crate::fpu::test_classes(o.b, o.imm);
    TestArithmetic = |o| crate::fpu::test_vector(o.a, o.b, o.imm);
    GeneratePermute = mv::generate_permute;
    PermuteExtended = |o| make(8, |i| {
        // Those of the 256-byte vector of eight registers that lie in this pair: imm is the pair.
        let s = el(o.c, 8, i) as u32;
        if s >> 5 == o.imm { if s & 16 == 0 { el(o.a, 8, s & 15) } else { el(o.b, 8, s & 15) } } else { 0 }
    });
    Evaluate = |o| {
        // imm: the truth table; a, b, c select its bit.
        (0..8u32).filter(|n| o.imm >> (7 - n) & 1 != 0).fold(0, |r, n| {
            let pick = |v: u128, bit: u32| if n >> bit & 1 != 0 { v } else { !v };
            r | pick(o.a, 2) & pick(o.b, 1) & pick(o.c, 0)
        })
    };
    BlendVariable = |o| { let bits = 1 << o.imm; make(bits, |i| if el(o.c, bits, i) >> (bits - 1) != 0 { el(o.b, bits, i) } else { el(o.a, bits, i) }) };
}
