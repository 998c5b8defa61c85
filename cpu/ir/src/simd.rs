//! Vector operations in the shape that x86's SSE and AVX gave them: whole 128-bit registers, where a scalar operation works on
//! the lowest lane and takes the others from its first argument. [`Op::Simd1`](crate::Op::Simd1) and its like name one of them
//! in `aux`; a host that has the instruction needs no other. Names, immediates and results are those of the Intel SDM, vol. 2.

use crate::eval::{lane_get, lanes1, lanes2, low, sext};
use crate::types::{Lane, Type};

/// Element format of the floating-point operations that have all four: bits 8–9 of `aux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fmt {
    /// Four singles.
    Ps = 0,
    /// Two doubles.
    Pd = 1,
    /// A single in the lowest lane.
    Ss = 2,
    Sd = 3,
}

impl Fmt {
    pub const ALL: [Fmt; 4] = [Fmt::Ps, Fmt::Pd, Fmt::Ss, Fmt::Sd];
    pub const fn double(self) -> bool {
        matches!(self, Fmt::Pd | Fmt::Sd)
    }
    pub const fn scalar(self) -> bool {
        matches!(self, Fmt::Ss | Fmt::Sd)
    }
    /// From bits 8 and 9 of an operation's `aux`.
    pub const fn of(aux: u32) -> Fmt {
        Fmt::ALL[(aux >> 8 & 3) as usize]
    }
}

/// What an operation takes and gives besides vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Vectors only.
    V,
    /// The result is I32 or I64.
    ToInt,
    /// The second argument is I32 or I64.
    FromInt,
}

macro_rules! simd {
    ($($(#[$doc:meta])* $name:ident $text:literal $arity:literal $fp:literal $imm:literal $formats:literal $shape:ident;)*) => {
        /// One operation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum SimdOp { $($(#[$doc])* $name,)* }
        impl SimdOp {
            pub const ALL: &'static [SimdOp] = &[$(SimdOp::$name,)*];
            pub const fn name(self) -> &'static str { match self { $(SimdOp::$name => $text,)* } }
            /// Number of arguments.
            pub const fn arity(self) -> usize { match self { $(SimdOp::$name => $arity,)* } }
            /// Depends on the FP mode and raises sticky flags.
            pub const fn fp(self) -> bool { match self { $(SimdOp::$name => $fp != 0,)* } }
            /// Has an immediate.
            pub const fn imm(self) -> bool { match self { $(SimdOp::$name => $imm != 0,)* } }
            /// Which formats there are: bit n for number n of [`Fmt`].
            pub const fn formats(self) -> u8 { match self { $(SimdOp::$name => $formats,)* } }
            pub const fn shape(self) -> Shape { match self { $(SimdOp::$name => Shape::$shape,)* } }
        }
    };
}

simd! {
    // Name, text, arity, floating point, immediate, formats, shape.
    PackSsWb "packsswb" 2 0 0 1 V;
    PackSsDw "packssdw" 2 0 0 1 V;
    PackUsWb "packuswb" 2 0 0 1 V;
    PackUsDw "packusdw" 2 0 0 1 V;
    UnpckLBw "punpcklbw" 2 0 0 1 V;
    UnpckLWd "punpcklwd" 2 0 0 1 V;
    UnpckLDq "punpckldq" 2 0 0 1 V;
    UnpckLQdq "punpcklqdq" 2 0 0 1 V;
    UnpckHBw "punpckhbw" 2 0 0 1 V;
    UnpckHWd "punpckhwd" 2 0 0 1 V;
    UnpckHDq "punpckhdq" 2 0 0 1 V;
    UnpckHQdq "punpckhqdq" 2 0 0 1 V;
    PMulHW "pmulhw" 2 0 0 1 V;
    PMulHUW "pmulhuw" 2 0 0 1 V;
    PMulHRsW "pmulhrsw" 2 0 0 1 V;
    PMulUDq "pmuludq" 2 0 0 1 V;
    PMulDq "pmuldq" 2 0 0 1 V;
    PMAddWd "pmaddwd" 2 0 0 1 V;
    PMAddUbSw "pmaddubsw" 2 0 0 1 V;
    PSadBw "psadbw" 2 0 0 1 V;
    PShufB "pshufb" 2 0 0 1 V;
    PHAddW "phaddw" 2 0 0 1 V;
    PHAddD "phaddd" 2 0 0 1 V;
    PHAddSw "phaddsw" 2 0 0 1 V;
    PHSubW "phsubw" 2 0 0 1 V;
    PHSubD "phsubd" 2 0 0 1 V;
    PHSubSw "phsubsw" 2 0 0 1 V;
    PSignB "psignb" 2 0 0 1 V;
    PSignW "psignw" 2 0 0 1 V;
    PSignD "psignd" 2 0 0 1 V;
    /// Shifts of all lanes by the low quadword of the second argument.
    PSllW "psllw" 2 0 0 1 V;
    PSllD "pslld" 2 0 0 1 V;
    PSllQ "psllq" 2 0 0 1 V;
    PSrlW "psrlw" 2 0 0 1 V;
    PSrlD "psrld" 2 0 0 1 V;
    PSrlQ "psrlq" 2 0 0 1 V;
    PSraW "psraw" 2 0 0 1 V;
    PSraD "psrad" 2 0 0 1 V;
    /// Shifts of each lane by the second argument's lane.
    PSllVD "vpsllvd" 2 0 0 1 V;
    PSllVQ "vpsllvq" 2 0 0 1 V;
    PSrlVD "vpsrlvd" 2 0 0 1 V;
    PSrlVQ "vpsrlvq" 2 0 0 1 V;
    PSraVD "vpsravd" 2 0 0 1 V;
    /// Byte shifts of the whole.
    PSllDq "pslldq" 1 0 1 1 V;
    PSrlDq "psrldq" 1 0 1 1 V;
    PAlignR "palignr" 2 0 1 1 V;
    PBlendW "pblendw" 2 0 1 1 V;
    BlendPs "blendps" 2 0 1 1 V;
    BlendPd "blendpd" 2 0 1 1 V;
    MPSadBw "mpsadbw" 2 0 1 1 V;
    PClMulQdq "pclmulqdq" 2 0 1 1 V;
    InsertPs "insertps" 2 0 1 1 V;
    ShufPs "shufps" 2 0 1 1 V;
    ShufPd "shufpd" 2 0 1 1 V;
    PShufD "pshufd" 1 0 1 1 V;
    PShufLW "pshuflw" 1 0 1 1 V;
    PShufHW "pshufhw" 1 0 1 1 V;
    PermilPs "vpermilps" 2 0 0 1 V;
    PermilPd "vpermilpd" 2 0 0 1 V;
    PMovSxBw "pmovsxbw" 1 0 0 1 V;
    PMovSxBd "pmovsxbd" 1 0 0 1 V;
    PMovSxBq "pmovsxbq" 1 0 0 1 V;
    PMovSxWd "pmovsxwd" 1 0 0 1 V;
    PMovSxWq "pmovsxwq" 1 0 0 1 V;
    PMovSxDq "pmovsxdq" 1 0 0 1 V;
    PMovZxBw "pmovzxbw" 1 0 0 1 V;
    PMovZxBd "pmovzxbd" 1 0 0 1 V;
    PMovZxBq "pmovzxbq" 1 0 0 1 V;
    PMovZxWd "pmovzxwd" 1 0 0 1 V;
    PMovZxWq "pmovzxwq" 1 0 0 1 V;
    PMovZxDq "pmovzxdq" 1 0 0 1 V;
    PHMinPosUw "phminposuw" 1 0 0 1 V;
    BroadcastB "vpbroadcastb" 1 0 0 1 V;
    BroadcastW "vpbroadcastw" 1 0 0 1 V;
    BroadcastD "vpbroadcastd" 1 0 0 1 V;
    BroadcastQ "vpbroadcastq" 1 0 0 1 V;
    MovDDup "movddup" 1 0 0 1 V;
    MovSLDup "movsldup" 1 0 0 1 V;
    MovSHDup "movshdup" 1 0 0 1 V;
    /// The first argument with the lowest single of the second.
    MovSs "movss" 2 0 0 1 V;
    MovSd "movsd" 2 0 0 1 V;
    /// (first, second, mask): the second's lane where the mask's lane has its top bit set.
    BlendVPs "blendvps" 3 0 0 1 V;
    BlendVPd "blendvpd" 3 0 0 1 V;
    BlendVB "pblendvb" 3 0 0 1 V;
    /// (state, round key).
    AesEnc "aesenc" 2 0 0 1 V;
    AesEncLast "aesenclast" 2 0 0 1 V;
    AesDec "aesdec" 2 0 0 1 V;
    AesDecLast "aesdeclast" 2 0 0 1 V;
    AesImc "aesimc" 1 0 0 1 V;
    AesKeyGen "aeskeygenassist" 1 0 1 1 V;
    Sha1NextE "sha1nexte" 2 0 0 1 V;
    Sha1Msg1 "sha1msg1" 2 0 0 1 V;
    Sha1Msg2 "sha1msg2" 2 0 0 1 V;
    Sha1Rnds4 "sha1rnds4" 2 0 1 1 V;
    /// (first operand, second operand, XMM0).
    Sha256Rnds2 "sha256rnds2" 3 0 0 1 V;
    Sha256Msg1 "sha256msg1" 2 0 0 1 V;
    Sha256Msg2 "sha256msg2" 2 0 0 1 V;
    Gf2p8MulB "gf2p8mulb" 2 0 0 1 V;
    Gf2p8AffineQb "gf2p8affineqb" 2 0 1 1 V;
    Gf2p8AffineInvQb "gf2p8affineinvqb" 2 0 1 1 V;
    /// About 1/x with a relative error of less than 1.5 × 2^-12: as the host has it.
    Rcp "rcp" 2 0 0 5 V;
    Rsqrt "rsqrt" 2 0 0 5 V;
    CvtDq2Pd "cvtdq2pd" 1 0 0 1 V;

    Add "add" 2 1 0 15 V;
    Sub "sub" 2 1 0 15 V;
    Mul "mul" 2 1 0 15 V;
    Div "div" 2 1 0 15 V;
    Min "min" 2 1 0 15 V;
    Max "max" 2 1 0 15 V;
    /// Of the second argument; the first gives a scalar's other lanes.
    Sqrt "sqrt" 2 1 0 15 V;
    /// The immediate is one of the 32 predicates.
    Cmp "cmp" 2 1 1 15 V;
    /// As [`SimdOp::Sqrt`].
    Round "round" 2 1 1 15 V;
    AddSub "addsub" 2 1 0 3 V;
    HAdd "hadd" 2 1 0 3 V;
    HSub "hsub" 2 1 0 3 V;
    Dp "dp" 2 1 1 3 V;
    CvtDq2Ps "cvtdq2ps" 1 1 0 1 V;
    /// From Ps or Pd to doublewords.
    Cvt2Dq "cvt2dq" 1 1 0 3 V;
    Cvtt2Dq "cvtt2dq" 1 1 0 3 V;
    CvtPs2Pd "cvtps2pd" 1 1 0 1 V;
    CvtPd2Ps "cvtpd2ps" 1 1 0 1 V;
    CvtSs2Sd "cvtss2sd" 2 1 0 1 V;
    CvtSd2Ss "cvtsd2ss" 2 1 0 1 V;
    CvtPh2Ps "vcvtph2ps" 1 1 0 1 V;
    CvtPs2Ph "vcvtps2ph" 1 1 1 1 V;
    /// The operands in the order of the instruction. Immediate: its opcode (0x96–0x9f, 0xa6–0xaf, 0xb6–0xbf).
    Fma "fma" 3 1 1 15 V;
    Cvt2Si "cvt2si" 1 1 0 12 ToInt;
    Cvtt2Si "cvtt2si" 1 1 0 12 ToInt;
    /// The immediate is the width of the integer.
    CvtSi2 "cvtsi2" 2 1 1 12 FromInt;
}

impl SimdOp {
    /// From the low byte of an operation's `aux`.
    pub fn of(aux: u32) -> Option<SimdOp> {
        SimdOp::ALL.get((aux & 0xff) as usize).copied()
    }
}

/// What the opcode of an FMA instruction says: (negate the product, negate the addend; for odd lanes too).
#[derive(Clone, Copy, Debug)]
pub struct FmaKind {
    /// Which operands are multiplicand, multiplier and addend.
    pub order: [usize; 3],
    pub negate_product: bool,
    /// In even and odd lanes.
    pub negate_addend: [bool; 2],
    pub scalar: bool,
}

/// Decodes an FMA opcode; `None` if it is none.
pub fn fma_kind(opcode: u8) -> Option<FmaKind> {
    let order = match opcode >> 4 {
        0x9 => [0, 2, 1],
        0xa => [1, 0, 2],
        0xb => [1, 2, 0],
        _ => return None,
    };
    let (negate_product, negate_addend) = match opcode & 15 {
        6 => (false, [true, false]),
        7 => (false, [false, true]),
        8 | 9 => (false, [false, false]),
        10 | 11 => (false, [true, true]),
        12 | 13 => (true, [false, false]),
        14 | 15 => (true, [true, true]),
        _ => return None,
    };
    Some(FmaKind { order, negate_product, negate_addend, scalar: opcode & 15 >= 8 && opcode & 1 != 0 })
}

// ---- the values of those that are not floating point ----

fn sat(v: i64, bits: u32, signed: bool) -> u64 {
    let (lo, hi) = if signed { (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1) } else { (0, (1i64 << bits) - 1) };
    v.clamp(lo, hi) as u64
}

/// A vector of lanes from a function of their numbers.
fn make(lane: Lane, f: impl Fn(u32) -> u64) -> u128 {
    (0..lane.count()).fold(0, |r, i| r | (low(f(i), lane.bits()) as u128) << (i * lane.bits()))
}

fn pack(from: Lane, signed: bool, a: u128, b: u128) -> u128 {
    let n = from.count();
    let bits = from.bits() / 2;
    (0..2 * n).fold(0, |r, i| {
        let v = sext(lane_get(if i < n { a } else { b }, from, i % n), from.bits());
        r | (low(sat(v, bits, signed), bits) as u128) << (i * bits)
    })
}

fn unpack(lane: Lane, high: bool, a: u128, b: u128) -> u128 {
    let base = if high { lane.count() / 2 } else { 0 };
    make(lane, |i| lane_get(if i & 1 == 0 { a } else { b }, lane, base + i / 2))
}

/// Shift left by a count, logical and arithmetic shift right.
fn shift(kind: u32, v: u64, n: u64, bits: u32) -> u64 {
    let over = n >= bits as u64;
    match kind {
        0 if over => 0,
        0 => v << n,
        1 if over => 0,
        1 => v >> n,
        _ => (sext(v, bits) >> n.min(bits as u64 - 1)) as u64,
    }
}

fn horizontal(lane: Lane, a: u128, b: u128, f: impl Fn(i64, i64) -> i64) -> u128 {
    let n = lane.count();
    make(lane, |i| {
        let (v, k) = if i < n / 2 { (a, i) } else { (b, i - n / 2) };
        let at = |k| sext(lane_get(v, lane, k), lane.bits());
        f(at(2 * k), at(2 * k + 1)) as u64
    })
}

fn extend(from: Lane, to: Lane, signed: bool, a: u128) -> u128 {
    make(to, |i| {
        let v = lane_get(a, from, i);
        if signed { sext(v, from.bits()) as u64 } else { v }
    })
}

const fn gf_mul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut r) = (a, b, 0u8);
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

/// The inverse in GF(2^8) by 0x11b: the 254th power.
const fn gf_inverse(a: u8) -> u8 {
    let mut r = 1;
    let mut k = 0;
    while k < 254 {
        r = gf_mul(r, a);
        k += 1;
    }
    r
}

const fn sboxes() -> ([u8; 256], [u8; 256]) {
    let (mut s, mut inverse) = ([0u8; 256], [0u8; 256]);
    let mut n = 0;
    while n < 256 {
        let x = gf_inverse(n as u8);
        let y = x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        s[n] = y;
        inverse[y as usize] = n as u8;
        n += 1;
    }
    (s, inverse)
}

static SBOX: [u8; 256] = sboxes().0;
static INVERSE_SBOX: [u8; 256] = sboxes().1;

/// One AES round without the key: ShiftRows and SubBytes (or their inverses), and MixColumns unless it is the last.
fn aes(state: u128, inverse: bool, last: bool) -> u128 {
    let s = state.to_le_bytes();
    let mut r = [0u8; 16];
    for (i, r) in r.iter_mut().enumerate() {
        let (row, col) = (i % 4, i / 4);
        let from = row + 4 * if inverse { (col + 4 - row) % 4 } else { (col + row) % 4 };
        *r = if inverse { INVERSE_SBOX[s[from] as usize] } else { SBOX[s[from] as usize] };
    }
    let r = u128::from_le_bytes(r);
    if last { r } else { mix_columns(r, inverse) }
}

fn mix_columns(v: u128, inverse: bool) -> u128 {
    let s = v.to_le_bytes();
    let m: [u8; 4] = if inverse { [14, 11, 13, 9] } else { [2, 3, 1, 1] };
    let mut r = [0u8; 16];
    for (i, r) in r.iter_mut().enumerate() {
        let (row, col) = (i % 4, i / 4);
        *r = (0..4).fold(0, |x, k| x ^ gf_mul(m[(k + 4 - row) % 4], s[col * 4 + k]));
    }
    u128::from_le_bytes(r)
}

fn sub_word(w: u32) -> u32 {
    u32::from_le_bytes(w.to_le_bytes().map(|b| SBOX[b as usize]))
}

fn dword(v: u128, i: u32) -> u32 {
    (v >> (32 * i)) as u32
}

/// Doublewords, the lowest first.
fn dwords(d: [u32; 4]) -> u128 {
    d.iter().rev().fold(0, |r, &x| r << 32 | x as u128)
}

fn sha1_rounds(a: u128, b: u128, which: u32) -> u128 {
    let k = [0x5a82_7999u32, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6][which as usize];
    let f = |x: u32, y: u32, z: u32| match which {
        0 => (x & y) ^ (!x & z),
        2 => (x & y) ^ (x & z) ^ (y & z),
        _ => x ^ y ^ z,
    };
    let [mut p, mut q, mut r, mut s] = [3, 2, 1, 0].map(|n| dword(a, n));
    let mut e = 0u32;
    for n in 0..4 {
        let w = dword(b, 3 - n);
        let t = f(q, r, s).wrapping_add(p.rotate_left(5)).wrapping_add(w).wrapping_add(e).wrapping_add(k);
        e = s;
        s = r;
        r = q.rotate_left(30);
        q = p;
        p = t;
    }
    dwords([s, r, q, p])
}

fn sha256_rounds(x: u128, y: u128, w: u128) -> u128 {
    // The first operand holds C, D, G, H from the top, the second A, B, E, F.
    let [mut a, mut b, mut e, mut f] = [3, 2, 1, 0].map(|n| dword(y, n));
    let [mut c, mut d, mut g, mut h] = [3, 2, 1, 0].map(|n| dword(x, n));
    for n in 0..2 {
        let t = h
            .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
            .wrapping_add((e & f) ^ (!e & g))
            .wrapping_add(dword(w, n));
        let u = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22)).wrapping_add((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d.wrapping_add(t);
        d = c;
        c = b;
        b = a;
        a = t.wrapping_add(u);
    }
    dwords([f, e, b, a])
}

fn affine(matrix: u64, x: u8, add: u8) -> u8 {
    let m = matrix.to_le_bytes();
    (0..8).fold(add, |r, bit| r ^ (((m[7 - bit] & x).count_ones() as u8 & 1) << bit))
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).fold(0, |r, n| if b >> n & 1 != 0 { r ^ (a as u128) << n } else { r })
}

fn estimate(v: u128, scalar: bool, other: u128, f: impl Fn(f32) -> f32) -> u128 {
    let r = make(Lane::S, |i| f(f32::from_bits(dword(v, i))).to_bits() as u64);
    if scalar { other & !0xffff_ffff | r & 0xffff_ffff } else { r }
}

#[cfg(target_arch = "x86_64")]
fn rcp(x: f32) -> f32 {
    use std::arch::x86_64::{_mm_cvtss_f32, _mm_rcp_ss, _mm_set_ss};
    // SAFETY: part of the architecture.
    #[expect(unsafe_code, reason = "the instruction whose value this is")]
    #[allow(unused_unsafe)]
    unsafe {
        _mm_cvtss_f32(_mm_rcp_ss(_mm_set_ss(x)))
    }
}
#[cfg(target_arch = "x86_64")]
fn rsqrt(x: f32) -> f32 {
    use std::arch::x86_64::{_mm_cvtss_f32, _mm_rsqrt_ss, _mm_set_ss};
    // SAFETY: part of the architecture.
    #[expect(unsafe_code, reason = "the instruction whose value this is")]
    #[allow(unused_unsafe)]
    unsafe {
        _mm_cvtss_f32(_mm_rsqrt_ss(_mm_set_ss(x)))
    }
}
#[cfg(not(target_arch = "x86_64"))]
fn rcp(x: f32) -> f32 {
    if x.is_subnormal() { f32::INFINITY.copysign(x) } else { 1.0 / x }
}
#[cfg(not(target_arch = "x86_64"))]
fn rsqrt(x: f32) -> f32 {
    if x.is_subnormal() { f32::INFINITY.copysign(x) } else { 1.0 / x.sqrt() }
}

/// The result of an operation that is not floating point. `aux` and `imm` as the instruction has them.
pub fn eval(aux: u32, imm: u64, x: [u128; 3]) -> u128 {
    use Lane::{B, D, H, S};
    use SimdOp::*;
    let [a, b, c] = x;
    let n = imm as u32 & 0xff;
    let Some(op) = SimdOp::of(aux) else { return 0 };
    let scalar = Fmt::of(aux).scalar();
    let by_count = |kind: u32, lane: Lane| lanes1(lane, a, |v| shift(kind, v, b as u64, lane.bits()));
    let by_lane = |kind: u32, lane: Lane| lanes2(lane, a, b, |v, k| shift(kind, v, k, lane.bits()));
    let s16 = |v: u64| sext(v, 16);
    let words = |f: &dyn Fn(i64, i64) -> i64| lanes2(H, a, b, |p, q| f(s16(p), s16(q)) as u64);
    let sign = |lane: Lane| {
        lanes2(lane, a, b, |p, q| match sext(q, lane.bits()) {
            0 => 0,
            q if q < 0 => p.wrapping_neg(),
            _ => p,
        })
    };
    let blend = |lane: Lane| {
        make(lane, |i| lane_get(if lane_get(c, lane, i) >> (lane.bits() - 1) != 0 { b } else { a }, lane, i))
    };
    let choose = |lane: Lane| make(lane, |i| lane_get(if n >> i & 1 != 0 { b } else { a }, lane, i));
    let bytes = |v: u128| v.to_le_bytes();
    match op {
        PackSsWb => pack(H, true, a, b),
        PackSsDw => pack(S, true, a, b),
        PackUsWb => pack(H, false, a, b),
        PackUsDw => pack(S, false, a, b),
        UnpckLBw => unpack(B, false, a, b),
        UnpckLWd => unpack(H, false, a, b),
        UnpckLDq => unpack(S, false, a, b),
        UnpckLQdq => unpack(D, false, a, b),
        UnpckHBw => unpack(B, true, a, b),
        UnpckHWd => unpack(H, true, a, b),
        UnpckHDq => unpack(S, true, a, b),
        UnpckHQdq => unpack(D, true, a, b),
        PMulHW => words(&|p, q| (p * q) >> 16),
        PMulHUW => lanes2(H, a, b, |p, q| (p * q) >> 16),
        PMulHRsW => words(&|p, q| (((p * q) >> 14) + 1) >> 1),
        PMulUDq => lanes2(D, a, b, |p, q| low(p, 32) * low(q, 32)),
        PMulDq => lanes2(D, a, b, |p, q| sext(p, 32).wrapping_mul(sext(q, 32)) as u64),
        PMAddWd => lanes2(S, a, b, |p, q| (s16(p) * s16(q) + s16(p >> 16) * s16(q >> 16)) as u64),
        PMAddUbSw => lanes2(H, a, b, |p, q| {
            let one = |p: u64, q: u64| low(p, 8) as i64 * sext(q, 8);
            sat(one(p, q) + one(p >> 8, q >> 8), 16, true)
        }),
        PSadBw => make(D, |i| (0..8).map(|k| lane_get(a, B, i * 8 + k).abs_diff(lane_get(b, B, i * 8 + k))).sum()),
        PShufB => make(B, |i| match lane_get(b, B, i) {
            k if k >= 128 => 0,
            k => lane_get(a, B, k as u32 & 15),
        }),
        PHAddW => horizontal(H, a, b, |p, q| p + q),
        PHAddD => horizontal(S, a, b, |p, q| p + q),
        PHAddSw => horizontal(H, a, b, |p, q| sat(p + q, 16, true) as i64),
        PHSubW => horizontal(H, a, b, |p, q| p - q),
        PHSubD => horizontal(S, a, b, |p, q| p - q),
        PHSubSw => horizontal(H, a, b, |p, q| sat(p - q, 16, true) as i64),
        PSignB => sign(B),
        PSignW => sign(H),
        PSignD => sign(S),
        PSllW => by_count(0, H),
        PSllD => by_count(0, S),
        PSllQ => by_count(0, D),
        PSrlW => by_count(1, H),
        PSrlD => by_count(1, S),
        PSrlQ => by_count(1, D),
        PSraW => by_count(2, H),
        PSraD => by_count(2, S),
        PSllVD => by_lane(0, S),
        PSllVQ => by_lane(0, D),
        PSrlVD => by_lane(1, S),
        PSrlVQ => by_lane(1, D),
        PSraVD => by_lane(2, S),
        PSllDq => a.checked_shl(n * 8).unwrap_or(0),
        PSrlDq => a.checked_shr(n * 8).unwrap_or(0),
        PAlignR => {
            let (hi, lo) = (bytes(a), bytes(b));
            make(B, |i| match (n + i) as usize {
                k @ 0..16 => lo[k] as u64,
                k @ 16..32 => hi[k - 16] as u64,
                _ => 0,
            })
        }
        PBlendW => choose(H),
        BlendPs => choose(S),
        BlendPd => choose(D),
        MPSadBw => {
            let (p, q) = ((n >> 2 & 1) * 4, (n & 3) * 4);
            make(H, |i| (0..4).map(|k| lane_get(a, B, p + i + k).abs_diff(lane_get(b, B, q + k))).sum())
        }
        PClMulQdq => carryless(lane_get(a, D, n & 1), lane_get(b, D, n >> 4 & 1)),
        InsertPs => make(S, |i| match i {
            i if n >> i & 1 != 0 => 0,
            i if i == n >> 4 & 3 => lane_get(b, S, n >> 6),
            i => lane_get(a, S, i),
        }),
        ShufPs => make(S, |i| lane_get(if i < 2 { a } else { b }, S, n >> (2 * i) & 3)),
        ShufPd => make(D, |i| lane_get(if i == 0 { a } else { b }, D, n >> i & 1)),
        PShufD => make(S, |i| lane_get(a, S, n >> (2 * i) & 3)),
        PShufLW => make(H, |i| lane_get(a, H, if i < 4 { n >> (2 * i) & 3 } else { i })),
        PShufHW => make(H, |i| lane_get(a, H, if i >= 4 { 4 + (n >> (2 * (i - 4)) & 3) } else { i })),
        PermilPs => make(S, |i| lane_get(a, S, dword(b, i) & 3)),
        PermilPd => make(D, |i| lane_get(a, D, lane_get(b, D, i) as u32 >> 1 & 1)),
        PMovSxBw => extend(B, H, true, a),
        PMovSxBd => extend(B, S, true, a),
        PMovSxBq => extend(B, D, true, a),
        PMovSxWd => extend(H, S, true, a),
        PMovSxWq => extend(H, D, true, a),
        PMovSxDq => extend(S, D, true, a),
        PMovZxBw => extend(B, H, false, a),
        PMovZxBd => extend(B, S, false, a),
        PMovZxBq => extend(B, D, false, a),
        PMovZxWd => extend(H, S, false, a),
        PMovZxWq => extend(H, D, false, a),
        PMovZxDq => extend(S, D, false, a),
        PHMinPosUw => {
            let best = (0..8).map(|i| (lane_get(a, H, i), i)).min().unwrap_or((0, 0));
            best.0 as u128 | (best.1 as u128) << 16
        }
        BroadcastB => make(B, |_| a as u64),
        BroadcastW => make(H, |_| a as u64),
        BroadcastD => make(S, |_| a as u64),
        BroadcastQ | MovDDup => make(D, |_| a as u64),
        MovSLDup => make(S, |i| lane_get(a, S, i & 2)),
        MovSHDup => make(S, |i| lane_get(a, S, i | 1)),
        MovSs => a & !0xffff_ffff | b & 0xffff_ffff,
        MovSd => a & !(u64::MAX as u128) | b & u64::MAX as u128,
        BlendVPs => blend(S),
        BlendVPd => blend(D),
        BlendVB => blend(B),
        AesEnc => aes(a, false, false) ^ b,
        AesEncLast => aes(a, false, true) ^ b,
        AesDec => aes(a, true, false) ^ b,
        AesDecLast => aes(a, true, true) ^ b,
        AesImc => mix_columns(a, true),
        AesKeyGen => {
            let (p, q) = (sub_word(dword(a, 1)), sub_word(dword(a, 3)));
            dwords([p, p.rotate_right(8) ^ n, q, q.rotate_right(8) ^ n])
        }
        Sha1NextE => {
            let e = dword(b, 3).wrapping_add(dword(a, 3).rotate_left(30));
            b & !(0xffff_ffff << 96) | (e as u128) << 96
        }
        Sha1Msg1 => a ^ (a << 64 | b >> 64),
        Sha1Msg2 => {
            let w = |k: u32| dword(b, k);
            let w16 = (dword(a, 3) ^ w(2)).rotate_left(1);
            let w17 = (dword(a, 2) ^ w(1)).rotate_left(1);
            let w18 = (dword(a, 1) ^ w(0)).rotate_left(1);
            let w19 = (dword(a, 0) ^ w16).rotate_left(1);
            dwords([w19, w18, w17, w16])
        }
        Sha1Rnds4 => sha1_rounds(a, b, n & 3),
        Sha256Rnds2 => sha256_rounds(a, b, c),
        Sha256Msg1 => {
            let s0 = |w: u32| w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3;
            let w = [dword(a, 0), dword(a, 1), dword(a, 2), dword(a, 3), dword(b, 0)];
            dwords([0, 1, 2, 3].map(|i: usize| w[i].wrapping_add(s0(w[i + 1]))))
        }
        Sha256Msg2 => {
            let s1 = |w: u32| w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10;
            let w16 = dword(a, 0).wrapping_add(s1(dword(b, 2)));
            let w17 = dword(a, 1).wrapping_add(s1(dword(b, 3)));
            let w18 = dword(a, 2).wrapping_add(s1(w16));
            let w19 = dword(a, 3).wrapping_add(s1(w17));
            dwords([w16, w17, w18, w19])
        }
        Gf2p8MulB => lanes2(B, a, b, |p, q| gf_mul(p as u8, q as u8) as u64),
        Gf2p8AffineQb => make(B, |i| affine(lane_get(b, D, i / 8), lane_get(a, B, i) as u8, n as u8) as u64),
        Gf2p8AffineInvQb => {
            make(B, |i| affine(lane_get(b, D, i / 8), gf_inverse(lane_get(a, B, i) as u8), n as u8) as u64)
        }
        Rcp => estimate(b, scalar, a, rcp),
        Rsqrt => estimate(b, scalar, a, rsqrt),
        CvtDq2Pd => make(D, |i| f64::from(dword(a, i) as i32).to_bits()),
        _ => 0,
    }
}

/// Types of an operation: arguments, then whether this result is allowed.
pub fn type_ok(op: SimdOp, args: &[Type], ty: Type) -> bool {
    let int = |t: Type| matches!(t, Type::I32 | Type::I64);
    let vectors = |a: &[Type]| a.iter().all(|&t| t == Type::V128);
    args.len() == op.arity()
        && match op.shape() {
            Shape::V => vectors(args) && ty == Type::V128,
            Shape::ToInt => vectors(args) && int(ty),
            Shape::FromInt => args[0] == Type::V128 && int(args[1]) && ty == Type::V128,
        }
}
