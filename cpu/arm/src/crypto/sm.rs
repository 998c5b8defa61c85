//! SM3 and SM4 instructions. A vector is a 128-bit integer, element 0 the least significant.

use super::{from_words, words};

/// SM3SS1.
pub fn sm3ss1(n: u128, m: u128, a: u128) -> u128 {
    let top = |v: u128| (v >> 96) as u32;
    let sum = top(n).rotate_left(12).wrapping_add(top(m)).wrapping_add(top(a));
    u128::from(sum.rotate_left(7)) << 96
}

/// Which Boolean function an SM3 round uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Rounds 0 to 15.
    A,
    /// Rounds 16 to 63.
    B,
}

#[inline(always)]
fn tt1(d: u128, n: u128, m: u128, index: u32, phase: Phase) -> u128 {
    let [d0, d1, d2, d3] = words(d);
    let w = words(m)[index as usize & 3];
    let ss2 = words(n)[3] ^ d3.rotate_left(12);
    let f = if phase == Phase::A { d1 ^ d2 ^ d3 } else { (d3 & d1) | (d3 & d2) | (d1 & d2) };
    let t = f.wrapping_add(d0).wrapping_add(ss2).wrapping_add(w);
    from_words([d1, d2.rotate_left(9), d3, t])
}

#[inline(always)]
fn tt2(d: u128, n: u128, m: u128, index: u32, phase: Phase) -> u128 {
    let [d0, d1, d2, d3] = words(d);
    let w = words(m)[index as usize & 3];
    let f = if phase == Phase::A { d1 ^ d2 ^ d3 } else { (d3 & d2) | (!d3 & d1) };
    let t = f.wrapping_add(d0).wrapping_add(words(n)[3]).wrapping_add(w);
    from_words([d1, d2.rotate_left(19), d3, t ^ t.rotate_left(9) ^ t.rotate_left(17)])
}

/// SM3TT1A; `index` is the element of `m`.
pub fn sm3tt1a(d: u128, n: u128, m: u128, index: u32) -> u128 {
    tt1(d, n, m, index, Phase::A)
}

/// SM3TT1B.
pub fn sm3tt1b(d: u128, n: u128, m: u128, index: u32) -> u128 {
    tt1(d, n, m, index, Phase::B)
}

/// SM3TT2A.
pub fn sm3tt2a(d: u128, n: u128, m: u128, index: u32) -> u128 {
    tt2(d, n, m, index, Phase::A)
}

/// SM3TT2B.
pub fn sm3tt2b(d: u128, n: u128, m: u128, index: u32) -> u128 {
    tt2(d, n, m, index, Phase::B)
}

fn p1(x: u32) -> u32 {
    x ^ x.rotate_left(15) ^ x.rotate_left(23)
}

/// SM3PARTW1.
pub fn sm3partw1(d: u128, n: u128, m: u128) -> u128 {
    let (x, m) = (words(d ^ n), words(m));
    let r0 = p1(x[0] ^ m[1].rotate_left(15));
    let r1 = p1(x[1] ^ m[2].rotate_left(15));
    let r2 = p1(x[2] ^ m[3].rotate_left(15));
    let r3 = p1(x[3] ^ r0.rotate_left(15));
    from_words([r0, r1, r2, r3])
}

/// SM3PARTW2.
pub fn sm3partw2(d: u128, n: u128, m: u128) -> u128 {
    let t = n ^ from_words(words(m).map(|x| x.rotate_left(7)));
    d ^ t ^ u128::from(p1((t as u32).rotate_left(15))) << 96
}

/// The S-box of SM4 (GB/T 32907-2016).
#[rustfmt::skip]
static SBOX: [u8; 256] = [
    0xd6, 0x90, 0xe9, 0xfe, 0xcc, 0xe1, 0x3d, 0xb7, 0x16, 0xb6, 0x14, 0xc2, 0x28, 0xfb, 0x2c, 0x05,
    0x2b, 0x67, 0x9a, 0x76, 0x2a, 0xbe, 0x04, 0xc3, 0xaa, 0x44, 0x13, 0x26, 0x49, 0x86, 0x06, 0x99,
    0x9c, 0x42, 0x50, 0xf4, 0x91, 0xef, 0x98, 0x7a, 0x33, 0x54, 0x0b, 0x43, 0xed, 0xcf, 0xac, 0x62,
    0xe4, 0xb3, 0x1c, 0xa9, 0xc9, 0x08, 0xe8, 0x95, 0x80, 0xdf, 0x94, 0xfa, 0x75, 0x8f, 0x3f, 0xa6,
    0x47, 0x07, 0xa7, 0xfc, 0xf3, 0x73, 0x17, 0xba, 0x83, 0x59, 0x3c, 0x19, 0xe6, 0x85, 0x4f, 0xa8,
    0x68, 0x6b, 0x81, 0xb2, 0x71, 0x64, 0xda, 0x8b, 0xf8, 0xeb, 0x0f, 0x4b, 0x70, 0x56, 0x9d, 0x35,
    0x1e, 0x24, 0x0e, 0x5e, 0x63, 0x58, 0xd1, 0xa2, 0x25, 0x22, 0x7c, 0x3b, 0x01, 0x21, 0x78, 0x87,
    0xd4, 0x00, 0x46, 0x57, 0x9f, 0xd3, 0x27, 0x52, 0x4c, 0x36, 0x02, 0xe7, 0xa0, 0xc4, 0xc8, 0x9e,
    0xea, 0xbf, 0x8a, 0xd2, 0x40, 0xc7, 0x38, 0xb5, 0xa3, 0xf7, 0xf2, 0xce, 0xf9, 0x61, 0x15, 0xa1,
    0xe0, 0xae, 0x5d, 0xa4, 0x9b, 0x34, 0x1a, 0x55, 0xad, 0x93, 0x32, 0x30, 0xf5, 0x8c, 0xb1, 0xe3,
    0x1d, 0xf6, 0xe2, 0x2e, 0x82, 0x66, 0xca, 0x60, 0xc0, 0x29, 0x23, 0xab, 0x0d, 0x53, 0x4e, 0x6f,
    0xd5, 0xdb, 0x37, 0x45, 0xde, 0xfd, 0x8e, 0x2f, 0x03, 0xff, 0x6a, 0x72, 0x6d, 0x6c, 0x5b, 0x51,
    0x8d, 0x1b, 0xaf, 0x92, 0xbb, 0xdd, 0xbc, 0x7f, 0x11, 0xd9, 0x5c, 0x41, 0x1f, 0x10, 0x5a, 0xd8,
    0x0a, 0xc1, 0x31, 0x88, 0xa5, 0xcd, 0x7b, 0xbd, 0x2d, 0x74, 0xd0, 0x12, 0xb8, 0xe5, 0xb4, 0xb0,
    0x89, 0x69, 0x97, 0x4a, 0x0c, 0x96, 0x77, 0x7e, 0x65, 0xb9, 0xf1, 0x09, 0xc5, 0x6e, 0xc6, 0x84,
    0x18, 0xf0, 0x7d, 0xec, 0x3a, 0xdc, 0x4d, 0x20, 0x79, 0xee, 0x5f, 0x3e, 0xd7, 0xcb, 0x39, 0x48,
];

#[inline(always)]
fn sm4_rounds(state: u128, keys: u128, linear: fn(u32) -> u32) -> u128 {
    let mut s = words(state);
    for key in words(keys) {
        let t = (s[1] ^ s[2] ^ s[3] ^ key).to_le_bytes().map(|b| SBOX[usize::from(b)]);
        s = [s[1], s[2], s[3], s[0] ^ linear(u32::from_le_bytes(t))];
    }
    from_words(s)
}

/// SM4E: four rounds of `d` with the round keys `n`.
pub fn sm4e(d: u128, n: u128) -> u128 {
    sm4_rounds(d, n, |x| x ^ x.rotate_left(2) ^ x.rotate_left(10) ^ x.rotate_left(18) ^ x.rotate_left(24))
}

/// SM4EKEY: the next four round keys after `n`, with constants `m`.
pub fn sm4ekey(n: u128, m: u128) -> u128 {
    sm4_rounds(n, m, |x| x ^ x.rotate_left(13) ^ x.rotate_left(23))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GB/T 32907-2016, appendix A.1.
    #[test]
    fn sm4_block() {
        let block = from_words([0x01234567, 0x89abcdef, 0xfedcba98, 0x76543210]);
        let mut k = block ^ from_words([0xa3b1bac6, 0x56aa3350, 0x677d9197, 0xb27022dc]);
        let mut s = block;
        for i in 0..8u32 {
            let ck = |w: u32| u32::from_be_bytes(core::array::from_fn(|j| ((4 * (4 * i + w) + j as u32) * 7) as u8));
            k = sm4ekey(k, from_words(core::array::from_fn(|w| ck(w as u32))));
            s = sm4e(s, k);
        }
        let [a, b, c, d] = words(s);
        assert_eq!([d, c, b, a], [0x681edf34, 0xd206965e, 0x86b3e94f, 0x536e4246]);
    }

    /// GB/T 32905-2016, example of "abc".
    #[test]
    fn sm3_of_abc() {
        let mut message = [0u32; 16];
        (message[0], message[15]) = (0x61626380, 24);
        let mut w = message.to_vec();
        let quad = |w: &[u32], i: usize| from_words([w[i], w[i + 1], w[i + 2], w[i + 3]]);
        while w.len() < 68 {
            let i = w.len() - 16;
            let t = sm3partw1(quad(&w, i), quad(&w, i + 7), quad(&w, i + 12) >> 32 << 32 | u128::from(w[i + 12]));
            let next = sm3partw2(t, quad(&w, i + 10), quad(&w, i + 3));
            w.extend(words(next));
        }
        let iv = [0x7380166fu32, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e];
        // The instructions keep a to d and e to h with the first in the top element.
        let mut abcd = from_words([iv[3], iv[2], iv[1], iv[0]]);
        let mut efgh = from_words([iv[7], iv[6], iv[5], iv[4]]);
        for j in 0..64usize {
            let t = if j < 16 { 0x79cc4519u32 } else { 0x7a879d8a };
            let t = u128::from(t.rotate_left(j as u32 % 32)) << 96;
            let ss1 = sm3ss1(abcd, efgh, t);
            let wj = u128::from(w[j]) << 64;
            let wp = u128::from(w[j] ^ w[j + 4]) << 64;
            (abcd, efgh) = if j < 16 {
                (sm3tt1a(abcd, ss1, wp, 2), sm3tt2a(efgh, ss1, wj, 2))
            } else {
                (sm3tt1b(abcd, ss1, wp, 2), sm3tt2b(efgh, ss1, wj, 2))
            };
        }
        let (x, y) = (words(abcd), words(efgh));
        let v = [x[3], x[2], x[1], x[0], y[3], y[2], y[1], y[0]];
        let digest: Vec<u32> = v.iter().zip(iv).map(|(a, b)| a ^ b).collect();
        assert_eq!(
            digest,
            [0x66c7f0f4, 0x62eeedd9, 0xd1f2d46b, 0xdc10e4e2, 0x4167c487, 0x5cf2f7a2, 0x297da02b, 0x8f4ba8e0]
        );
    }
}
