//! AESE, AESD, AESMC, AESIMC. A vector is a 128-bit integer, byte 0 the least significant.

use aes::hazmat::{self, Block};

#[inline]
fn on_block(v: u128, f: impl FnOnce(&mut Block)) -> u128 {
    let mut block = Block::from(v.to_le_bytes());
    f(&mut block);
    u128::from_le_bytes(block.into())
}

/// AESE: ShiftRows and SubBytes of `d ^ n`.
pub fn aese(d: u128, n: u128) -> u128 {
    on_block(d ^ n, |b| {
        // A round ends in MixColumns and AddRoundKey: the former is undone, the latter adds nothing.
        hazmat::cipher_round(b, &Block::default());
        hazmat::inv_mix_columns(b);
    })
}

/// AESD: inverse ShiftRows and SubBytes of `d ^ n`.
pub fn aesd(d: u128, n: u128) -> u128 {
    on_block(d ^ n, |b| {
        hazmat::equiv_inv_cipher_round(b, &Block::default());
        hazmat::mix_columns(b);
    })
}

/// AESMC: MixColumns.
pub fn aesmc(n: u128) -> u128 {
    on_block(n, hazmat::mix_columns)
}

/// AESIMC: inverse MixColumns.
pub fn aesimc(n: u128) -> u128 {
    on_block(n, hazmat::inv_mix_columns)
}

/// AESE followed by AESMC of its result: one host instruction where there is one.
pub fn aese_aesmc(d: u128, n: u128) -> u128 {
    on_block(d ^ n, |b| hazmat::cipher_round(b, &Block::default()))
}

/// AESD followed by AESIMC of its result.
pub fn aesd_aesimc(d: u128, n: u128) -> u128 {
    on_block(d ^ n, |b| hazmat::equiv_inv_cipher_round(b, &Block::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub_word(w: u32) -> u32 {
        // All columns alike: ShiftRows moves nothing.
        aese(u128::from(w) * 0x0000_0001_0000_0001_0000_0001_0000_0001, 0) as u32
    }

    fn expand(key: [u8; 16]) -> [u128; 11] {
        let mut w = [0u32; 44];
        for i in 0..4 {
            w[i] = u32::from_le_bytes(key[4 * i..4 * i + 4].try_into().unwrap());
        }
        let mut rcon = 1u32;
        for i in 4..44 {
            let mut t = w[i - 1];
            if i % 4 == 0 {
                t = sub_word(t.rotate_right(8)) ^ rcon;
                rcon = rcon << 1 ^ if rcon & 0x80 != 0 { 0x11b } else { 0 };
            }
            w[i] = w[i - 4] ^ t;
        }
        core::array::from_fn(|r| (0..4).fold(0, |k, i| k | u128::from(w[4 * r + i]) << (32 * i)))
    }

    /// FIPS 197, appendix C.1.
    #[test]
    fn aes128() {
        let key: [u8; 16] = core::array::from_fn(|i| i as u8);
        let plain = u128::from_le_bytes(core::array::from_fn(|i| i as u8 * 0x11));
        let cipher = 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55au128.swap_bytes();
        let k = expand(key);
        let (mut s, mut fused) = (plain, plain);
        for key in &k[..9] {
            s = aesmc(aese(s, *key));
            fused = aese_aesmc(fused, *key);
        }
        assert_eq!(s, fused);
        s = aese(s, k[9]) ^ k[10];
        assert_eq!(s, cipher);
        fused = s;
        for i in (1..10).rev() {
            let key = if i == 9 { k[10] } else { aesimc(k[i + 1]) };
            s = aesimc(aesd(s, key));
            fused = aesd_aesimc(fused, key);
        }
        assert_eq!(s, fused);
        assert_eq!(aesd(s, aesimc(k[1])) ^ k[0], plain);
    }
}
