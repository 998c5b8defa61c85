//! SHA1* and SHA512* instructions. A vector is a 128-bit integer, element 0 the least significant.

use super::{dwords, from_dwords, from_words, words};

fn choose(x: u32, y: u32, z: u32) -> u32 {
    ((y ^ z) & x) ^ z
}

fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    (x & y) | ((x | y) & z)
}

#[inline(always)]
fn sha1_rounds(d: u128, n: u32, m: u128, f: fn(u32, u32, u32) -> u32) -> u128 {
    let ([mut a, mut b, mut c, mut d], mut e) = (words(d), n);
    for w in words(m) {
        let t = e.wrapping_add(a.rotate_left(5)).wrapping_add(f(b, c, d)).wrapping_add(w);
        (a, b, c, d, e) = (t, a, b.rotate_left(30), c, d);
    }
    from_words([a, b, c, d])
}

/// SHA1C: four rounds of choose. `d`: a b c d, `n`: e, `m`: schedule plus constant.
pub fn sha1c(d: u128, n: u32, m: u128) -> u128 {
    sha1_rounds(d, n, m, choose)
}

/// SHA1P: four rounds of parity.
pub fn sha1p(d: u128, n: u32, m: u128) -> u128 {
    sha1_rounds(d, n, m, parity)
}

/// SHA1M: four rounds of majority.
pub fn sha1m(d: u128, n: u32, m: u128) -> u128 {
    sha1_rounds(d, n, m, majority)
}

/// SHA1H.
pub fn sha1h(n: u32) -> u32 {
    n.rotate_left(30)
}

/// SHA1SU0.
pub fn sha1su0(d: u128, n: u128, m: u128) -> u128 {
    (n << 64 | d >> 64) ^ d ^ m
}

/// SHA1SU1.
pub fn sha1su1(d: u128, n: u128) -> u128 {
    let t = words(d ^ n >> 32);
    let mut r = t.map(|x| x.rotate_left(1));
    r[3] ^= t[0].rotate_left(2);
    from_words(r)
}

/// SHA512H.
pub fn sha512h(d: u128, n: u128, m: u128) -> u128 {
    let ([w0, w1], [x0, x1], [y0, y1]) = (dwords(d), dwords(n), dwords(m));
    let s1 = |e: u64| e.rotate_right(14) ^ e.rotate_right(18) ^ e.rotate_right(41);
    let high = ((y1 & x0) ^ (!y1 & x1)).wrapping_add(s1(y1)).wrapping_add(w1);
    let t = high.wrapping_add(y0);
    let low = ((t & y1) ^ (!t & x0)).wrapping_add(s1(t)).wrapping_add(w0);
    from_dwords([low, high])
}

/// SHA512H2.
pub fn sha512h2(d: u128, n: u128, m: u128) -> u128 {
    let ([w0, w1], [x0, _], [y0, y1]) = (dwords(d), dwords(n), dwords(m));
    let s0 = |a: u64| a.rotate_right(28) ^ a.rotate_right(34) ^ a.rotate_right(39);
    let high = ((x0 & y1) ^ (x0 & y0) ^ (y1 & y0)).wrapping_add(s0(y0)).wrapping_add(w1);
    let low = ((high & y0) ^ (high & y1) ^ (y1 & y0)).wrapping_add(s0(high)).wrapping_add(w0);
    from_dwords([low, high])
}

/// SHA512SU0.
pub fn sha512su0(d: u128, n: u128) -> u128 {
    let ([w0, w1], [x0, _]) = (dwords(d), dwords(n));
    let s0 = |x: u64| x.rotate_right(1) ^ x.rotate_right(8) ^ x >> 7;
    from_dwords([w0.wrapping_add(s0(w1)), w1.wrapping_add(s0(x0))])
}

/// SHA512SU1.
pub fn sha512su1(d: u128, n: u128, m: u128) -> u128 {
    let (w, x, y) = (dwords(d), dwords(n), dwords(m));
    let s1 = |x: u64| x.rotate_right(19) ^ x.rotate_right(61) ^ x >> 6;
    from_dwords(core::array::from_fn(|i| w[i].wrapping_add(s1(x[i])).wrapping_add(y[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_words(message: &[u8]) -> [u32; 16] {
        let mut b = [0u8; 64];
        b[..message.len()].copy_from_slice(message);
        b[message.len()] = 0x80;
        b[56..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
        core::array::from_fn(|i| u32::from_be_bytes(b[4 * i..4 * i + 4].try_into().unwrap()))
    }

    fn quads(w: [u32; 16]) -> Vec<u128> {
        w.chunks(4).map(|c| from_words([c[0], c[1], c[2], c[3]])).collect()
    }

    fn add_words(a: u128, b: u128) -> u128 {
        let (a, b) = (words(a), words(b));
        from_words(core::array::from_fn(|i| a[i].wrapping_add(b[i])))
    }

    fn add_dwords(a: u128, b: u128) -> u128 {
        let (a, b) = (dwords(a), dwords(b));
        from_dwords(core::array::from_fn(|i| a[i].wrapping_add(b[i])))
    }

    #[test]
    fn sha1_of_abc() {
        let mut w = quads(block_words(b"abc"));
        let (abcd0, e0) = (from_words([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]), 0xc3d2e1f0u32);
        let (mut abcd, mut e) = (abcd0, e0);
        let f = [sha1c as fn(u128, u32, u128) -> u128, sha1p, sha1m, sha1p];
        let k = [0x5a827999u32, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];
        for i in 0..20 {
            if i >= 4 {
                w.push(sha1su1(sha1su0(w[i - 4], w[i - 3], w[i - 2]), w[i - 1]));
            }
            let next_e = sha1h(words(abcd)[0]);
            abcd = f[i / 5](abcd, e, add_words(w[i], from_words([k[i / 5]; 4])));
            e = next_e;
        }
        let r = words(add_words(abcd, abcd0));
        assert_eq!(
            [r[0], r[1], r[2], r[3], e.wrapping_add(e0)],
            [0xa9993e36, 0x4706816a, 0xba3e2571, 0x7850c26c, 0x9cd0d89d]
        );
    }

    /// The first 64 bits of the fractional parts of roots of the first primes, which FIPS 180 takes its constants from.
    fn root_fractions(n: usize, cube: bool) -> Vec<u64> {
        let primes = (2u32..).filter(|p| (2..*p).all(|d| p % d != 0));
        primes
            .take(n)
            .map(|p| {
                // floor(p^(1/k) × 2^64) by bisection on exact products of 32-bit limbs.
                let (mut lo, mut hi) = (0u128, 32u128 << 64);
                while hi - lo > 1 {
                    let mid = (lo + hi) / 2;
                    let limbs: Vec<u64> = (0..3).map(|i| (mid >> (32 * i)) as u64 & 0xffff_ffff).collect();
                    let mul = |a: &[u64], b: &[u64]| {
                        let mut r = vec![0u64; a.len() + b.len()];
                        for (i, x) in a.iter().enumerate() {
                            let mut carry = 0;
                            for (j, y) in b.iter().enumerate() {
                                let t = x * y + r[i + j] + carry;
                                (r[i + j], carry) = (t & 0xffff_ffff, t >> 32);
                            }
                            r[i + b.len()] += carry;
                        }
                        r
                    };
                    let square = mul(&limbs, &limbs);
                    let (power, scale) = if cube { (mul(&square, &limbs), 6) } else { (square, 4) };
                    let whole = power[scale..].iter().rev().fold(0u64, |a, l| a << 32 | l);
                    if whole >= u64::from(p) { hi = mid } else { lo = mid }
                }
                lo as u64
            })
            .collect()
    }

    #[test]
    fn sha512_of_abc() {
        let k = root_fractions(80, true);
        let h = root_fractions(8, false);
        let mut message = [0u64; 16];
        (message[0], message[15]) = (0x6162638000000000, 24);
        let mut w: Vec<u128> = message.chunks(2).map(|c| from_dwords([c[0], c[1]])).collect();
        let start: [u128; 4] = core::array::from_fn(|i| from_dwords([h[2 * i], h[2 * i + 1]]));
        let [mut ab, mut cd, mut ef, mut gh] = start;
        let ext = |a: u128, b: u128| a >> 64 | b << 64;
        for i in 0..40 {
            if i >= 8 {
                w.push(sha512su1(sha512su0(w[i - 8], w[i - 7]), w[i - 1], ext(w[i - 4], w[i - 3])));
            }
            // The sequence of the manual's use: two rounds.
            let kw = add_dwords(w[i], from_dwords([k[2 * i], k[2 * i + 1]]));
            let sum = add_dwords(ext(kw, kw), gh);
            let t = sha512h(sum, ext(ef, gh), ext(cd, ef));
            let next_ef = add_dwords(cd, t);
            let next_ab = sha512h2(t, cd, ab);
            (ab, cd, ef, gh) = (next_ab, ab, next_ef, ef);
        }
        let out = [ab, cd, ef, gh];
        let digest: Vec<u64> = (0..4).flat_map(|i| dwords(add_dwords(out[i], start[i]))).collect();
        assert_eq!(digest[0], 0xddaf35a193617aba);
        assert_eq!(digest[1], 0xcc417349ae204131);
        assert_eq!(digest[7], 0x2a9ac94fa54ca49f);
    }
}
