//! Polynomial multiplication of bytes (PMUL, PMULL) and CRC32.

/// PMUL: 16 products of bytes, the low 8 bits of each.
pub fn pmul_bytes(a: u128, b: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xff;
    let mut r = 0;
    for i in 0..8 {
        let lanes = (b >> i & ONES) * 0xff;
        r ^= ((a & (ONES * (0xff >> i))) << i) & lanes;
    }
    r
}

/// PMULL of bytes: 8 products of 16 bits.
pub fn pmull_bytes(a: u64, b: u64) -> u128 {
    const ONES: u128 = u128::MAX / 0xffff;
    let (a, b) = (widen_bytes(a), widen_bytes(b));
    let mut r = 0;
    for i in 0..8 {
        let lanes = (b >> i & ONES) * 0xffff;
        r ^= a << i & lanes;
    }
    r
}

/// Bytes to 16-bit elements.
fn widen_bytes(v: u64) -> u128 {
    let v = u128::from(v);
    let v = (v | v << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    let v = (v | v << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    (v | v << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff
}

/// `TABLES[k][b]`: the remainder of byte `b` followed by `k` zero bytes, bits reflected.
const fn tables(poly: u32) -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut b = 0;
    while b < 256 {
        let mut x = b as u32;
        let mut i = 0;
        while i < 8 {
            x = (x >> 1) ^ ((x & 1) * poly);
            i += 1;
        }
        t[0][b] = x;
        b += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut b = 0;
        while b < 256 {
            let x = t[k - 1][b];
            t[k][b] = x >> 8 ^ t[0][(x & 0xff) as usize];
            b += 1;
        }
        k += 1;
    }
    t
}

static CRC32: [[u32; 256]; 8] = tables(0xedb8_8320);
static CRC32C: [[u32; 256]; 8] = tables(0x82f6_3b78);

/// `bytes`: 1 to 8 data bytes.
#[inline(always)]
fn crc(t: &[[u32; 256]; 8], acc: u32, data: u64, bytes: u32) -> u32 {
    let bytes = bytes.clamp(1, 8);
    let data = data ^ u64::from(acc);
    // What the accumulator has beyond the data shifts down.
    let rest = if bytes < 4 { acc >> (8 * bytes) } else { 0 };
    (0..bytes).fold(rest, |r, i| r ^ t[(bytes - 1 - i) as usize][(data >> (8 * i) & 0xff) as usize])
}

/// CRC32B, H, W, X of the low `bytes` (1, 2, 4, 8) of `data`.
pub fn crc32(acc: u32, data: u64, bytes: u32) -> u32 {
    crc(&CRC32, acc, data, bytes)
}

/// CRC32CB, H, W, X.
pub fn crc32c(acc: u32, data: u64, bytes: u32) -> u32 {
    crc(&CRC32C, acc, data, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(a: u64, b: u64, bits: u32) -> u128 {
        (0..bits).filter(|i| b >> i & 1 != 0).fold(0, |r, i| r ^ u128::from(a) << i)
    }

    #[test]
    fn products() {
        let mut x = 0x0123_4567_89ab_cdefu64;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            x ^ x >> 29
        };
        for _ in 0..500 {
            let (a, b) = (next(), next());
            let (long, short) = (pmull_bytes(a, b), pmul_bytes(u128::from(a) << 64, u128::from(b) << 64));
            for i in 0..8 {
                let want = slow(a >> (8 * i) & 0xff, b >> (8 * i) & 0xff, 8);
                assert_eq!(long >> (16 * i) & 0xffff, want);
                assert_eq!(short >> (64 + 8 * i) & 0xff, want & 0xff);
            }
            assert_eq!(short as u64, 0);
        }
    }

    #[test]
    fn crc_check_values() {
        let text = b"123456789";
        for (f, want) in [(crc32 as fn(u32, u64, u32) -> u32, 0xcbf4_3926), (crc32c, 0xe306_9283)] {
            let one = text.iter().fold(!0, |c, b| f(c, u64::from(*b), 1));
            assert_eq!(!one, want);
            let eight = f(!0, u64::from_le_bytes(text[..8].try_into().unwrap()), 8);
            assert_eq!(!f(eight, u64::from(b'9'), 1), want);
            let four =
                text[..8].chunks(4).fold(!0, |c, w| f(c, u64::from(u32::from_le_bytes(w.try_into().unwrap())), 4));
            assert_eq!(four, eight);
            let two =
                text[..8].chunks(2).fold(!0, |c, w| f(c, 0xabcd_0000 | u64::from(w[0]) | u64::from(w[1]) << 8, 2));
            assert_eq!(two, eight);
        }
    }
}
