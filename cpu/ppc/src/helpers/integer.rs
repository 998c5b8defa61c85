//! Helpers of fixed-point, branch and storage instructions.

use crate::state::PpcCpu;
use rhea_ir::Effects;

rhea_ir::helper_table! {
    cpu PpcCpu, base super::INTEGER_BASE;
    /// Quotient of `(a || 0) / b`, 0 on overflow; and whether it overflows.
    DIVDE = divde, (I64, I64) -> I64, Effects::PURE;
    DIVDE_OV = divde_ov, (I64, I64) -> Bool, Effects::PURE;
    DIVDEU = divdeu, (I64, I64) -> I64, Effects::PURE;
    DIVDEU_OV = divdeu_ov, (I64, I64) -> Bool, Effects::PURE;
    ADDG6S = addg6s, (I64, I64) -> I64, Effects::PURE;
    CDTBCD = cdtbcd, (I64) -> I64, Effects::PURE;
    CBCDTD = cbcdtd, (I64) -> I64, Effects::PURE;
    BPERMD = bpermd, (I64, I64) -> I64, Effects::PURE;
    CFUGED = cfuged, (I64, I64) -> I64, Effects::PURE;
    CNTLZDM = cntlzdm, (I64, I64) -> I64, Effects::PURE;
    CNTTZDM = cnttzdm, (I64, I64) -> I64, Effects::PURE;
    PDEPD = pdepd, (I64, I64) -> I64, Effects::PURE;
    PEXTD = pextd, (I64, I64) -> I64, Effects::PURE;
    /// Random number: args (L).
    DARN = darn, (I32) -> I64, Effects::READS_STATE;
    /// The whole condition register.
    READ_CR = read_cr, () -> I64, Effects::READS_STATE;
    /// Writes fields of the condition register: args (value, mask of 32 bits).
    WRITE_CR = write_cr, (I64, I64) -> Void, Effects::WRITES_STATE;
    /// Byte `k` of a string in registers: args (first register, k, value). Byte 0 of a register clears the rest.
    PUT_BYTE = put_byte, (I32, I64, I64) -> Void, Effects::WRITES_STATE;
    GET_BYTE = get_byte, (I32, I64) -> I64, Effects::READS_STATE;
    /// Digest of hashst and hashchk: args (RA, RB, key).
    HASH = hash, (I64, I64, I64) -> I64, Effects::PURE;
}

fn extended_quotient(a: u64, b: u64) -> Option<u64> {
    if b == 0 {
        return None;
    }
    let q = (i128::from(a as i64) << 64).checked_div(i128::from(b as i64))?;
    i64::try_from(q).ok().map(|q| q as u64)
}
fn extended_quotient_unsigned(a: u64, b: u64) -> Option<u64> {
    if a >= b { None } else { u64::try_from((u128::from(a) << 64) / u128::from(b)).ok() }
}

extern "C" fn divde(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    extended_quotient(a, b).unwrap_or(0)
}
extern "C" fn divde_ov(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(extended_quotient(a, b).is_none())
}
extern "C" fn divdeu(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    extended_quotient_unsigned(a, b).unwrap_or(0)
}
extern "C" fn divdeu_ov(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    u64::from(extended_quotient_unsigned(a, b).is_none())
}

extern "C" fn addg6s(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    let (a, b) = (u128::from(a), u128::from(b));
    // Carries out of the digits are carries into the next ones.
    let carries = (a ^ b ^ (a + b)) >> 4;
    (!carries as u64 & 0x1111_1111_1111_1111) * 6
}

/// Declets of 10 bits to 3 digits each: densely packed decimal is not involved, each word is binary 0–999 coded. See the
/// description of cdtbcd: both words are converted, the high 8 bits of each are zero.
extern "C" fn cdtbcd(_: &mut PpcCpu, v: u64, _: u64, _: u64, _: u64) -> u64 {
    let word = |w: u32| u64::from(declet::to_bcd(w >> 10 & 0x3ff)) << 12 | u64::from(declet::to_bcd(w & 0x3ff));
    word((v >> 32) as u32) << 32 | word(v as u32)
}
extern "C" fn cbcdtd(_: &mut PpcCpu, v: u64, _: u64, _: u64, _: u64) -> u64 {
    let word = |w: u32| u64::from(declet::from_bcd(w >> 12 & 0xfff)) << 10 | u64::from(declet::from_bcd(w & 0xfff));
    word((v >> 32) as u32) << 32 | word(v as u32)
}

/// Densely packed decimal (Book I, appendix B).
pub mod declet {
    /// Ten bits to three BCD digits.
    pub fn to_bcd(d: u32) -> u32 {
        let b = |n: u32| d >> (9 - n) & 1;
        // p q r s t u v w x y: bits 0 to 9.
        let (p, q, r, s, t, u, v, w, x, y) = (b(0), b(1), b(2), b(3), b(4), b(5), b(6), b(7), b(8), b(9));
        let digit = |n3: u32, n2: u32, n1: u32, n0: u32| n3 << 3 | n2 << 2 | n1 << 1 | n0;
        let (hi, mid, lo) = if v == 0 {
            (digit(0, p, q, r), digit(0, s, t, u), digit(0, w, x, y))
        } else {
            match (w, x) {
                (0, 0) => (digit(0, p, q, r), digit(0, s, t, u), digit(1, 0, 0, y)),
                (0, 1) => (digit(0, p, q, r), digit(1, 0, 0, u), digit(0, s, t, y)),
                (1, 0) => (digit(1, 0, 0, r), digit(0, s, t, u), digit(0, p, q, y)),
                _ => match (s, t) {
                    (0, 0) => (digit(1, 0, 0, r), digit(1, 0, 0, u), digit(0, p, q, y)),
                    (0, 1) => (digit(1, 0, 0, r), digit(0, p, q, u), digit(1, 0, 0, y)),
                    (1, 0) => (digit(0, p, q, r), digit(1, 0, 0, u), digit(1, 0, 0, y)),
                    _ => (digit(1, 0, 0, r), digit(1, 0, 0, u), digit(1, 0, 0, y)),
                },
            }
        };
        hi << 8 | mid << 4 | lo
    }

    /// Three BCD digits to ten bits.
    pub fn from_bcd(v: u32) -> u32 {
        let b = |n: u32| v >> (11 - n) & 1;
        let (a, bb, c, d, e, f, g, h, i, j, k, m) =
            (b(0), b(1), b(2), b(3), b(4), b(5), b(6), b(7), b(8), b(9), b(10), b(11));
        let all = match (a, e, i) {
            (0, 0, 0) => [bb, c, d, f, g, h, 0, j, k, m],
            (0, 0, _) => [bb, c, d, f, g, h, 1, 0, 0, m],
            (0, _, 0) => [bb, c, d, j, k, h, 1, 0, 1, m],
            (_, 0, 0) => [j, k, d, f, g, h, 1, 1, 0, m],
            (0, _, _) => [bb, c, d, 1, 0, h, 1, 1, 1, m],
            (_, 0, _) => [f, g, d, 0, 1, h, 1, 1, 1, m],
            (_, _, 0) => [j, k, d, 0, 0, h, 1, 1, 1, m],
            _ => [0, 0, d, 1, 1, h, 1, 1, 1, m],
        };
        let mut r = 0;
        let mut n = 0;
        while n < 10 {
            r = r << 1 | all[n];
            n += 1;
        }
        r
    }
}

extern "C" fn bpermd(_: &mut PpcCpu, s: u64, b: u64, _: u64, _: u64) -> u64 {
    (0..8).fold(0, |v, n| {
        let index = s >> (8 * n) & 0xff;
        v | if index < 64 { (b >> (63 - index) & 1) << n } else { 0 }
    })
}

fn extract_bits(v: u64, mut mask: u64) -> u64 {
    let (mut r, mut n) = (0, 0);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        r |= u64::from(v & bit != 0) << n;
        n += 1;
        mask &= mask - 1;
    }
    r
}
extern "C" fn pextd(_: &mut PpcCpu, s: u64, mask: u64, _: u64, _: u64) -> u64 {
    extract_bits(s, mask)
}
extern "C" fn pdepd(_: &mut PpcCpu, s: u64, mask: u64, _: u64, _: u64) -> u64 {
    let (mut r, mut n, mut mask) = (0, 0, mask);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if s >> n & 1 != 0 {
            r |= bit;
        }
        n += 1;
        mask &= mask - 1;
    }
    r
}
extern "C" fn cfuged(_: &mut PpcCpu, s: u64, mask: u64, _: u64, _: u64) -> u64 {
    let ones = mask.count_ones();
    let high = extract_bits(s, !mask);
    (if ones < 64 { high << ones } else { 0 }) | extract_bits(s, mask)
}
extern "C" fn cntlzdm(_: &mut PpcCpu, s: u64, mask: u64, _: u64, _: u64) -> u64 {
    let ones = mask.count_ones();
    if ones == 0 { 0 } else { u64::from((extract_bits(s, mask) << (64 - ones)).leading_zeros().min(ones)) }
}
extern "C" fn cnttzdm(_: &mut PpcCpu, s: u64, mask: u64, _: u64, _: u64) -> u64 {
    u64::from(extract_bits(s, mask).trailing_zeros().min(mask.count_ones()))
}

extern "C" fn darn(cpu: &mut PpcCpu, kind: u64, _: u64, _: u64, _: u64) -> u64 {
    match kind & 3 {
        0 => cpu.hooks.random() & 0xffff_ffff,
        3 => u64::MAX,
        _ => cpu.hooks.random(),
    }
}

extern "C" fn read_cr(cpu: &mut PpcCpu, _: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.read_cr().into()
}
extern "C" fn write_cr(cpu: &mut PpcCpu, value: u64, mask: u64, _: u64, _: u64) -> u64 {
    let (v, m) = (value as u32, mask as u32);
    cpu.set_cr(cpu.read_cr() & !m | v & m);
    0
}

/// Register and shift of byte `k` of a string that begins in register `first`.
fn string_place(first: u64, k: u64) -> (usize, u32) {
    (((first + k / 4) & 31) as usize, 24 - 8 * (k & 3) as u32)
}
extern "C" fn put_byte(cpu: &mut PpcCpu, first: u64, k: u64, v: u64, _: u64) -> u64 {
    let (r, shift) = string_place(first, k & 127);
    // Two registers that keep their values are behind the number of the first one.
    if r as u64 == first >> 5 & 31 || r as u64 == first >> 10 & 31 {
        return 0;
    }
    let old = if k & 3 == 0 { 0 } else { cpu.gpr[r] };
    cpu.gpr[r] = old | (v & 0xff) << shift;
    0
}
extern "C" fn get_byte(cpu: &mut PpcCpu, first: u64, k: u64, _: u64, _: u64) -> u64 {
    let (r, shift) = string_place(first, k & 127);
    cpu.gpr[r] >> shift & 0xff
}

/// HashDigest of a return address and a stack pointer under a key (Book I, 3.3.17).
extern "C" fn hash(_: &mut PpcCpu, ra: u64, rb: u64, key: u64, _: u64) -> u64 {
    digest(ra, rb, key)
}
fn digest(ra: u64, rb: u64, key: u64) -> u64 {
    // The bytes of both interleaved to four blocks, those of RB from its low end, of RA from its high end; each is enciphered
    // with the key schedule turned by its number.
    let mut blocks = [0u32; 4];
    for (n, block) in blocks.iter_mut().enumerate() {
        let [a1, a0, ..] = (ra << (16 * n)).to_be_bytes();
        let [b0, b1, ..] = (rb >> (16 * n)).to_le_bytes();
        *block = u32::from_be_bytes([b0, a1, b1, a0]);
    }
    let [a, b, c, d] = std::array::from_fn(|n| u64::from(simon(blocks[n], key, n)));
    (a << 32 | b) ^ (c << 32 | d)
}

/// Simon32/64 whose round keys are taken in another order in each lane: within every four rounds turned by `lane`.
fn simon(block: u32, key: u64, lane: usize) -> u32 {
    const Z: u64 = 0xfa25_61cd_f44a_c398;
    let mut k = [0u16; 32];
    for (n, word) in k.iter_mut().take(4).enumerate() {
        *word = (key >> (48 - 16 * n)) as u16;
    }
    for n in 4..32 {
        let t = k[n - 1].rotate_right(3) ^ k[n - 3];
        let z = (Z >> (63 - (n - 4)) & 1) as u16;
        k[n] = 0xfffc ^ z ^ k[n - 4] ^ t ^ t.rotate_right(1);
    }
    let (mut left, mut right) = (block as u16, (block >> 16) as u16);
    for n in 0..32 {
        let round = k[n & !3 | (n + lane) & 3];
        let f = (left.rotate_left(1) & left.rotate_left(8)) ^ left.rotate_left(2);
        (left, right) = (right ^ f ^ round, left);
    }
    u32::from(right) << 16 | u32::from(left)
}

#[cfg(test)]
mod tests {
    use super::{declet, digest};

    /// Against a model that makes the key schedule as it goes, four rounds at a time.
    #[test]
    fn digests() {
        for (ra, rb, key, expected) in [
            (0, 0, 0, 0x4389_0f1a_b878_3a36),
            (1, 2, 3, 0x9bff_a5d7_2fe8_f681),
            (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x0f1e_2d3c_4b5a_6978, 0x84b5_ca7f_c324_b6e9),
            (u64::MAX, 0, 0xdead_beef_cafe_f00d, 0xff15_7355_9a7a_b281),
            (0x7fff_d234_5678, 0x1000_1234, 0x8899_aabb_ccdd_eeff, 0xfbbd_ebbf_36e2_3906),
        ] {
            assert_eq!(digest(ra, rb, key), expected, "{ra:#x} {rb:#x} {key:#x}");
        }
    }

    #[test]
    fn declets_are_inverse() {
        for n in 0..1000u32 {
            let bcd = n / 100 << 8 | n / 10 % 10 << 4 | n % 10;
            assert_eq!(declet::to_bcd(declet::from_bcd(bcd)), bcd);
        }
    }
}
