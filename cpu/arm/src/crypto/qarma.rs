//! QARMA-64 (R. Avanzi, "The QARMA Block Cipher Family", 2017) as pointer authentication uses it. Cell 0 is the most
//! significant nibble.

const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;
const ROUND_CONSTANTS: [u64; 5] =
    [0, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

/// σ1, an involution.
const SIGMA_1: [u8; 16] = [10, 13, 14, 6, 15, 7, 3, 5, 9, 8, 0, 12, 11, 1, 2, 4];
const SIGMA_2: [u8; 16] = [11, 6, 8, 15, 12, 0, 9, 14, 3, 7, 4, 5, 13, 2, 1, 10];
/// τ: output cell i is input cell τ(i).
const TAU: [u8; 16] = [0, 11, 6, 13, 10, 1, 12, 7, 5, 14, 3, 8, 15, 4, 9, 2];
/// h, of the tweak.
const H: [u8; 16] = [6, 5, 14, 15, 0, 1, 2, 3, 7, 12, 13, 4, 8, 9, 10, 11];
/// The cells of the tweak that ω is applied to: 0, 1, 3, 4, 8, 11, 13.
const OMEGA_CELLS: u64 = 0xff0f_f000_f00f_0f00;

const fn inverse(table: [u8; 16]) -> [u8; 16] {
    let mut r = [0; 16];
    let mut i = 0;
    while i < 16 {
        r[table[i] as usize] = i as u8;
        i += 1;
    }
    r
}

/// One pass of the cipher's state through a layer, as the XOR of what each byte contributes (byte 0 the least significant).
type Layer = [[u64; 256]; 8];

/// A layer out of the substitution `s` followed by a linear map, which `linear` gives by its effect on single cells.
const fn layer(s: [u8; 16], linear: Linear) -> Layer {
    let mut cells = [[0; 16]; 16];
    let mut at = 0;
    while at < 16 {
        let mut v = 0;
        while v < 16 {
            let cell = (s[v] as u64) << (4 * at);
            cells[at][v] = match linear {
                Linear::None => cell,
                Linear::Forward => mix(permute(cell, FORWARD)),
                Linear::Backward => permute(mix(cell), BACKWARD),
            };
            v += 1;
        }
        at += 1;
    }
    let mut r = [[0; 256]; 8];
    let mut i = 0;
    while i < 8 {
        let mut b = 0;
        while b < 256 {
            r[i][b] = cells[2 * i][b & 15] ^ cells[2 * i + 1][b >> 4];
            b += 1;
        }
        i += 1;
    }
    r
}

#[derive(Clone, Copy)]
enum Linear {
    None,
    /// τ, then MixColumns.
    Forward,
    /// MixColumns, then τ⁻¹.
    Backward,
}

/// The layers of one of the variants.
struct Layers {
    forward: Layer,
    backward: Layer,
    /// The inverse substitution alone.
    last: Layer,
}

const fn layers(s: [u8; 16]) -> Layers {
    let i = inverse(s);
    Layers { forward: layer(s, Linear::Forward), backward: layer(i, Linear::Backward), last: layer(i, Linear::None) }
}

static LAYERS_1: Layers = layers(SIGMA_1);
static LAYERS_2: Layers = layers(SIGMA_2);

#[inline(always)]
fn apply(x: u64, layer: &Layer) -> u64 {
    let b = x.to_le_bytes();
    let at = |n: usize| layer[n][usize::from(b[n])];
    (at(0) ^ at(1)) ^ (at(2) ^ at(3)) ^ ((at(4) ^ at(5)) ^ (at(6) ^ at(7)))
}

/// A permutation of cells as rotations: the output cells that come from a cell so many places further left.
type Rotations = [u64; 16];

const fn rotations(from: [u8; 16]) -> Rotations {
    let mut r = [0; 16];
    let mut i = 0;
    while i < 16 {
        // Output cell i is input cell from[i]: the input rotated left by from[i] - i cells has it there.
        r[(from[i] as usize + 16 - i) % 16] |= 0xf << (60 - 4 * i);
        i += 1;
    }
    r
}

const FORWARD: Rotations = rotations(TAU);
const BACKWARD: Rotations = rotations(inverse(TAU));
const TWEAK: Rotations = rotations(H);

#[inline(always)]
const fn permute(x: u64, by: Rotations) -> u64 {
    let mut r = 0;
    let mut n = 0;
    while n < 16 {
        if by[n] != 0 {
            r |= x.rotate_left(4 * n as u32) & by[n];
        }
        n += 1;
    }
    r
}

const NIBBLE_LOW: u64 = 0x1111_1111_1111_1111;

/// All cells rotated left by one.
const fn rho1(x: u64) -> u64 {
    x << 1 & !NIBBLE_LOW | x >> 3 & NIBBLE_LOW
}

/// All cells rotated left by two.
const fn rho2(x: u64) -> u64 {
    const HIGH: u64 = NIBBLE_LOW * 0b1100;
    x << 2 & HIGH | (x & HIGH) >> 2
}

/// MixColumns by circ(0, ρ, ρ², ρ); an involution.
#[inline(always)]
const fn mix(x: u64) -> u64 {
    rho1(x.rotate_left(16) ^ x.rotate_left(48)) ^ rho2(x.rotate_left(32))
}

#[inline(always)]
fn tweak(t: u64) -> u64 {
    let t = permute(t, TWEAK);
    // ω: (b3, b2, b1, b0) → (b0 + b1, b3, b2, b1).
    let w = (t >> 1 & !(NIBBLE_LOW << 3)) ^ (t & NIBBLE_LOW) << 3 ^ (t << 2 & NIBBLE_LOW << 3);
    t & !OMEGA_CELLS | w & OMEGA_CELLS
}

/// `R`: rounds on each side of the centre. Each round's linear map is taken together with the substitution before it, so what is
/// added in between goes through the map on its own, beside the chain of lookups.
#[inline(always)]
fn encrypt<const R: usize>(data: u64, modifier: u64, key0: u64, key1: u64, layers: &Layers) -> u64 {
    let key0_out = key0.rotate_right(1) ^ key0 >> 63;
    let mut t = modifier;
    let mut round_keys = [0; R];
    for (k, c) in round_keys.iter_mut().zip(ROUND_CONSTANTS) {
        *k = key1 ^ t ^ c;
        t = tweak(t);
    }
    let mut x = data ^ key0 ^ round_keys[0];
    for k in &round_keys[1..] {
        x = apply(x, &layers.forward) ^ mix(permute(*k, FORWARD));
    }
    x = apply(x, &layers.forward) ^ mix(permute(key0_out ^ t, FORWARD));
    x = apply(x, &layers.forward) ^ key1;
    x = apply(permute(x, BACKWARD), &layers.backward) ^ key0 ^ t;
    for k in round_keys[1..].iter().rev() {
        x = apply(x, &layers.backward) ^ k ^ ALPHA;
    }
    apply(x, &layers.last) ^ round_keys[0] ^ ALPHA ^ key0_out
}

/// `ComputePAC` of FEAT_PACQARMA5.
pub fn qarma5(data: u64, modifier: u64, key0: u64, key1: u64) -> u64 {
    encrypt::<5>(data, modifier, key0, key1, &LAYERS_2)
}

/// `ComputePAC` of FEAT_PACQARMA3.
pub fn qarma3(data: u64, modifier: u64, key0: u64, key1: u64) -> u64 {
    encrypt::<3>(data, modifier, key0, key1, &LAYERS_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of the paper for five rounds, with σ1 and σ2.
    #[test]
    fn published_vectors() {
        let (w0, k0, t, p) =
            (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9, 0x477d_469d_ec0b_8762, 0xfb62_3599_da6e_8127);
        assert_eq!(qarma5(p, t, w0, k0), 0xc003_b939_99b3_3765);
        assert_eq!(encrypt::<5>(p, t, w0, k0, &LAYERS_1), 0x544b_0ab9_5bda_7c3a);
        assert_ne!(qarma3(p, t, w0, k0), qarma3(p, t ^ 1, w0, k0));
    }

    #[test]
    fn inverses() {
        for t in [0x477d_469d_ec0b_8762u64, 1, !0, 0x8000_0000_0000_0000] {
            assert_eq!(permute(permute(t, FORWARD), BACKWARD), t);
            assert_eq!(mix(mix(t)), t);
        }
        assert_eq!(SIGMA_1, inverse(SIGMA_1));
    }
}
