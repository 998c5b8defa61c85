//! The pointer authentication code: inserting, checking and removing it (`AddPAC`, `Auth`, `Strip` of the Arm ARM),
//! the QARMA5 cipher and a fast implementation-defined algorithm.

use crate::config::Feature;
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::state::ArmCpu;

/// Cell permutation τ, cells numbered from the most significant.
const TAU: [u8; 16] = [0, 11, 6, 13, 10, 1, 12, 7, 5, 14, 3, 8, 15, 4, 9, 2];
/// Tweak permutation h.
const TWEAK: [u8; 16] = [6, 5, 14, 15, 0, 1, 2, 3, 7, 12, 13, 4, 8, 9, 10, 11];
/// Tweak cells that go through the LFSR ω.
const LFSR_CELLS: u16 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 11 | 1 << 13;
const SBOX: [u8; 16] = [11, 6, 8, 15, 12, 0, 9, 14, 3, 7, 4, 5, 13, 2, 1, 10];
const SBOX_INV: [u8; 16] = [5, 14, 13, 8, 10, 11, 1, 9, 2, 6, 15, 0, 4, 12, 7, 3];
const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;
const ROUND: [u64; 5] =
    [0, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

const fn cell(v: u64, n: usize) -> u64 {
    v >> (60 - 4 * n) & 15
}

fn permute(v: u64, p: &[u8; 16]) -> u64 {
    p.iter().fold(0, |r, &from| r << 4 | cell(v, from as usize & 15))
}

fn permute_back(v: u64, p: &[u8; 16]) -> u64 {
    p.iter().enumerate().fold(0, |r, (n, &to)| r | cell(v, n) << (60 - 4 * (to as u32 & 15)))
}

fn substitute(v: u64, s: &[u8; 16]) -> u64 {
    (0..16).fold(0, |r, n| r << 4 | s[cell(v, n) as usize & 15] as u64)
}

const fn rot4(c: u64, n: u32) -> u64 {
    (c << n | c >> (4 - n)) & 15
}

/// MixColumns with the involutory matrix circ(0, ρ, ρ², ρ).
fn mix(v: u64) -> u64 {
    let mut r = 0;
    for col in 0..4 {
        for row in 0..4 {
            let at = |k: usize| cell(v, 4 * ((row + k) % 4) + col);
            let c = rot4(at(1), 1) ^ rot4(at(2), 2) ^ rot4(at(3), 1);
            r |= c << (60 - 4 * (4 * row + col));
        }
    }
    r
}

fn tweak_forward(t: u64) -> u64 {
    let t = permute(t, &TWEAK);
    (0..16).fold(0, |r, n| {
        let c = cell(t, n);
        let c = if LFSR_CELLS >> n & 1 != 0 { c >> 1 | ((c ^ c >> 1) & 1) << 3 } else { c };
        r << 4 | c
    })
}

fn tweak_back(t: u64) -> u64 {
    let t = (0..16).fold(0, |r, n| {
        let c = cell(t, n);
        let c = if LFSR_CELLS >> n & 1 != 0 { (c << 1 & 15) | ((c ^ c >> 3) & 1) } else { c };
        r << 4 | c
    });
    permute_back(t, &TWEAK)
}

/// QARMA-64 with five forward and five backward rounds and the third S-box.
pub fn qarma5(data: u64, tweak: u64, k0: u64, k1: u64) -> u64 {
    let modk0 = k0 << 63 | k0 >> 1 ^ k0 >> 63;
    let mut tk = tweak;
    let mut v = data ^ k0;
    for (n, rc) in ROUND.iter().enumerate() {
        v ^= k1 ^ tk ^ rc;
        if n > 0 {
            v = mix(permute(v, &TAU));
        }
        v = substitute(v, &SBOX);
        tk = tweak_forward(tk);
    }
    v ^= modk0 ^ tk;
    v = substitute(mix(permute(v, &TAU)), &SBOX);
    v = mix(permute(v, &TAU)) ^ k1;
    v = permute_back(v, &TAU);
    v = substitute(v, &SBOX_INV);
    v = permute_back(mix(v), &TAU);
    v ^= k0 ^ tk;
    for (n, rc) in ROUND.iter().rev().enumerate() {
        v = substitute(v, &SBOX_INV);
        if n < 4 {
            v = permute_back(mix(v), &TAU);
        }
        tk = tweak_back(tk);
        v ^= rc ^ k1 ^ tk ^ ALPHA;
    }
    v ^ modk0
}

/// The implementation-defined algorithm: two rounds of multiply and fold.
pub fn fast_hash(data: u64, modifier: u64, k0: u64, k1: u64) -> u64 {
    let fold = |a: u64, b: u64| {
        let p = a as u128 * b as u128;
        p as u64 ^ (p >> 64) as u64
    };
    let a = fold(data ^ k0, 0x9e37_79b9_7f4a_7c15 ^ (k1 | 1));
    let b = fold(a ^ modifier.rotate_left(23) ^ k1, 0xd6e8_feb8_6659_fd93);
    b ^ b.rotate_left(29)
}

/// ComputePAC() with the key (lo, hi).
fn compute(cpu: &ArmCpu, data: u64, modifier: u64, key: [u64; 2]) -> u64 {
    if cpu.config.has(Feature::PauthImpdef) {
        fast_hash(data, modifier, key[1], key[0])
    } else {
        qarma5(data, modifier, key[1], key[0])
    }
}

/// Where the code goes in pointers of the current regime.
#[derive(Clone, Copy, Debug)]
struct Layout {
    mode: ArmMode,
    tcr: u64,
    data: bool,
}

impl Layout {
    fn new(cpu: &ArmCpu, data: bool) -> Layout {
        let mode = ArmMode(cpu.header.mode);
        let reg = match mode.mmu_idx() {
            mmu::E20_0 | mmu::E20_2 | mmu::E20_2_PAN | mmu::E2 => Reg::TcrEl2,
            mmu::E3 => Reg::TcrEl3,
            _ => Reg::TcrEl1,
        };
        Layout { mode, tcr: cpu.sys[reg as usize], data }
    }
    fn ignored(&self, high: bool) -> bool {
        match (self.data, high) {
            (true, false) => self.mode.tbi0(),
            (true, true) => self.mode.tbi1(),
            (false, false) => self.mode.tbii0(),
            (false, true) => self.mode.tbii1(),
        }
    }
    /// EffectiveTBI().
    fn tbi(&self, ptr: u64) -> bool {
        self.ignored(ptr >> 55 & 1 != 0)
    }
    /// CalculateBottomPACBit().
    fn bottom(&self, cpu: &ArmCpu, high: bool) -> u32 {
        let two = self.mode.two_ranges();
        let (tsz, large) = if two && high {
            (self.tcr >> 16 & 63, self.tcr >> 30 & 3 == 3)
        } else {
            (self.tcr & 63, self.tcr >> 14 & 3 == 1)
        };
        let small = cpu.config.has(Feature::Lpa2) && self.tcr >> (if two { 59 } else { 32 }) & 1 != 0;
        let min = if if large { cpu.config.has(Feature::Lva) } else { small } { 12 } else { 16 };
        let max = match (cpu.config.has(Feature::Ttst), large) {
            (false, _) => 39,
            (true, true) => 47,
            (true, false) => 48,
        };
        64 - (tsz as u32).clamp(min, max)
    }
    /// The bits that hold the code, bit 55 excepted; bit 55 included with `field | 1 << 55`.
    fn field(&self, cpu: &ArmCpu, high: bool, tbi: bool) -> u64 {
        let low = !0u64 << self.bottom(cpu, high);
        let top = if tbi { 0x00ff_ffff_ffff_ffff } else { !0 };
        low & top & !(1 << 55)
    }
}

const SELECT: u64 = 1 << 55;

/// AddPAC(). `key` 0 IA, 1 IB, 2 DA, 3 DB.
pub fn add(cpu: &ArmCpu, ptr: u64, modifier: u64, key: u32) -> u64 {
    let l = Layout::new(cpu, key & 2 != 0);
    let tbi = l.tbi(ptr);
    let by_55 = if l.mode.two_ranges() { l.ignored(false) || l.ignored(true) } else { tbi };
    let high = ptr >> (if by_55 { 55 } else { 63 }) & 1 != 0;
    let field = l.field(cpu, high, tbi);
    let all = field | SELECT;
    let extended = if high { ptr | all } else { ptr & !all };
    let mut pac = compute(cpu, extended, modifier, cpu.keys[key as usize & 3]);
    let pauth2 = cpu.config.has(Feature::Pauth2) || cpu.config.has(Feature::Fpac);
    if ptr & all != 0 && ptr & all != all && !pauth2 {
        // Bad extension bits: the code is corrupted.
        pac ^= 1 << (if tbi { 54 } else { 62 });
    }
    let pac = if pauth2 { ptr ^ pac } else { pac };
    let select = if high { SELECT } else { 0 };
    (ptr & !all) | select | (pac & field)
}

/// Auth(). A failure leaves a pointer that is not canonical.
pub fn auth(cpu: &ArmCpu, ptr: u64, modifier: u64, key: u32) -> u64 {
    let l = Layout::new(cpu, key & 2 != 0);
    let (tbi, high) = (l.tbi(ptr), ptr & SELECT != 0);
    let field = l.field(cpu, high, tbi);
    let original = if high { ptr | field } else { ptr & !field };
    let pac = compute(cpu, original, modifier, cpu.keys[key as usize & 3]);
    if cpu.config.has(Feature::Pauth2) || cpu.config.has(Feature::Fpac) {
        return ptr ^ (pac & field);
    }
    if (pac ^ ptr) & field == 0 {
        return original;
    }
    let at = if tbi { 53 } else { 61 };
    (original & !(3 << at)) | (if key & 1 != 0 { 2 } else { 1 }) << at
}

/// Strip().
pub fn strip(cpu: &ArmCpu, ptr: u64, data: bool) -> u64 {
    let l = Layout::new(cpu, data);
    let high = ptr & SELECT != 0;
    let field = l.field(cpu, high, l.tbi(ptr));
    if high { ptr | field } else { ptr & !field }
}

/// The code of PACGA in the upper half.
pub fn generic(cpu: &ArmCpu, value: u64, modifier: u64) -> u64 {
    compute(cpu, value, modifier, cpu.keys[4]) & 0xffff_ffff_0000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qarma_vector() {
        // Published vector of QARMA-64 with S-box σ2, r = 5.
        let c = qarma5(0xfb62_3599_da6b_c127, 0x477d_469d_ec0b_8762, 0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9);
        assert_eq!(c, 0xc003_b939_99b3_3765);
    }

    #[test]
    fn permutations_invert() {
        let v = 0x0123_4567_89ab_cdef;
        assert_eq!(permute_back(permute(v, &TAU), &TAU), v);
        assert_eq!(tweak_back(tweak_forward(v)), v);
        assert_eq!(mix(mix(v)), v);
        assert_eq!(substitute(substitute(v, &SBOX), &SBOX_INV), v);
    }
}
