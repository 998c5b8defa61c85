//! Pointer authentication: adding, checking and stripping codes (Arm ARM, `aarch64/functions/pac`).

use super::qarma;

/// The algorithm of the code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    /// FEAT_PACQARMA5.
    Qarma5,
    /// FEAT_PACQARMA3.
    Qarma3,
    /// FEAT_PACIMP: see [`mix`].
    Impdef,
}

/// How codes are put in and how failures show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// FEAT_PAuth: a bad extension flips a bit of the code, a failed check puts an error code in.
    Pauth,
    /// FEAT_EPAC: a bad extension gives a code of zero.
    Epac,
    /// FEAT_PAuth2: codes are added by exclusive or.
    Pauth2,
}

/// What pointer authentication depends on that is the CPU model's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pauth {
    pub level: Level,
    /// FEAT_FPAC: a failed check faults. Only with `Level::Pauth2`.
    pub faulting: bool,
}

/// Which bits of a pointer hold the code, by translation regime and kind of pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The bits above the address less an ignored top byte, in the lower and the upper range.
    field: [u64; 2],
    /// The bit that tells the range of a pointer to be signed.
    select: u32,
}

/// A 128-bit key: `APxKeyHi_EL1`, `APxKeyLo_EL1`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Key {
    pub hi: u64,
    pub lo: u64,
}

/// Codes computed lately, direct-mapped. An entry holds for ever: all that a code depends on is its key.
pub struct Memo {
    entries: [MemoEntry; MEMO_ENTRIES],
    algorithm: Algorithm,
}

const MEMO_ENTRIES: usize = 256;

#[derive(Clone, Copy)]
struct MemoEntry {
    data: u64,
    modifier: u64,
    key: Key,
    code: u64,
}

impl Memo {
    pub fn new(algorithm: Algorithm) -> Memo {
        // Every entry must be true, even one never asked for.
        let key = Key::default();
        let empty = MemoEntry { data: 0, modifier: 0, key, code: algorithm.compute(0, 0, key) };
        Memo { entries: [empty; MEMO_ENTRIES], algorithm }
    }
}

impl MemoEntry {
    #[cold]
    #[inline(never)]
    fn fill(&mut self, algorithm: Algorithm, data: u64, modifier: u64, key: Key) -> u64 {
        let code = algorithm.compute(data, modifier, key);
        *self = MemoEntry { data, modifier, key, code };
        code
    }
}

/// How codes are computed: directly, or through a [`Memo`].
pub trait Compute {
    /// `ComputePAC`.
    fn code(&mut self, data: u64, modifier: u64, key: Key) -> u64;
}

impl Compute for Algorithm {
    #[inline]
    fn code(&mut self, data: u64, modifier: u64, key: Key) -> u64 {
        self.compute(data, modifier, key)
    }
}

impl Compute for Memo {
    #[inline]
    fn code(&mut self, data: u64, modifier: u64, key: Key) -> u64 {
        if self.algorithm == Algorithm::Impdef {
            return mix(data, modifier, key);
        }
        // Return addresses differ in their low bits, modifiers (stack pointers) from bit 4.
        let hash = (data ^ modifier.rotate_left(20) ^ key.lo).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entry = &mut self.entries[(hash >> 56) as usize % MEMO_ENTRIES];
        if entry.data == data && entry.modifier == modifier && entry.key == key {
            return entry.code;
        }
        entry.fill(self.algorithm, data, modifier, key)
    }
}

/// A check failed and FEAT_FPAC is implemented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthFailure;

const fn low_bits(n: u32) -> u64 {
    (1 << n) - 1
}

const BIT_55: u64 = 1 << 55;
const TOP_BYTE: u64 = 0xff << 56;

impl Layout {
    /// For a regime with one range both elements of the arrays are the same. `tbi`: the top byte is ignored for this kind of
    /// pointer (instruction or data), in the lower and upper range. `bottom`: `CalculateBottomPACBit`, the lowest bit above the
    /// address in each range (64 − TnSZ, 16 to 52).
    pub fn new(tbi: [bool; 2], bottom: [u32; 2]) -> Layout {
        let field = |n: usize| !low_bits(bottom[n].clamp(1, 54)) & if tbi[n] { !TOP_BYTE } else { !0 };
        // With tagged pointers in either range, bit 55 selects the range. (FEAT_CONSTPACFIELD, where it always does, is
        // not implemented.) Without, the top byte belongs to the code in both.
        Layout { field: [field(0), field(1)], select: if tbi[0] || tbi[1] { 55 } else { 63 } }
    }
}

/// The pointer with the bits of the field all `upper`.
#[inline]
fn extend(ptr: u64, upper: bool, field: u64) -> u64 {
    ptr & !field | field & u64::from(upper).wrapping_neg()
}

impl Algorithm {
    /// `ComputePAC`.
    #[inline]
    pub fn compute(self, data: u64, modifier: u64, key: Key) -> u64 {
        match self {
            Algorithm::Qarma5 => qarma::qarma5(data, modifier, key.hi, key.lo),
            Algorithm::Qarma3 => qarma::qarma3(data, modifier, key.hi, key.lo),
            Algorithm::Impdef => mix(data, modifier, key),
        }
    }
}

impl Pauth {
    /// `AddPAC`: PACIA, PACDB...
    #[inline]
    pub fn add(&self, codes: &mut impl Compute, ptr: u64, modifier: u64, key: Key, layout: &Layout) -> u64 {
        let upper = ptr >> layout.select & 1 != 0;
        let field = layout.field[usize::from(upper)];
        let mut pac = codes.code(extend(ptr, upper, field), modifier, key);
        // An extension that is neither all zeros nor all ones must not become a valid pointer.
        if self.level < Level::Pauth2 && ptr & field != 0 && ptr & field != field {
            // The bit below the topmost of the field.
            let flip = if field >> 63 != 0 { 62 } else { 54 };
            pac = if self.level == Level::Pauth { pac ^ 1 << flip } else { 0 };
        }
        let code = field & !BIT_55;
        let bit_55 = u64::from(upper) << 55;
        let inserted = if self.level >= Level::Pauth2 { ptr ^ pac } else { pac };
        (ptr & !(code | BIT_55)) | (inserted & code) | bit_55
    }

    /// `Auth`: AUTIA, AUTDB... `key_b`: the key is a B key.
    #[inline]
    pub fn auth(
        &self,
        codes: &mut impl Compute,
        ptr: u64,
        modifier: u64,
        key: Key,
        key_b: bool,
        layout: &Layout,
    ) -> Result<u64, AuthFailure> {
        let upper = ptr & BIT_55 != 0;
        let field = layout.field[usize::from(upper)];
        let original = extend(ptr, upper, field);
        let pac = codes.code(original, modifier, key);
        let code = field & !BIT_55;
        if self.level >= Level::Pauth2 {
            let result = ptr ^ (pac & code);
            let good = result & code == if upper { code } else { 0 };
            return if self.faulting && !good { Err(AuthFailure) } else { Ok(result) };
        }
        if (ptr ^ pac) & code == 0 {
            return Ok(original);
        }
        let error = if key_b { 0b10 } else { 0b01 };
        let at = if field >> 63 != 0 { 61 } else { 53 };
        Ok(original & !(3 << at) | error << at)
    }
}

/// `AddPACGA`'s result: the generic code in bits 63:32.
pub fn add_generic(codes: &mut impl Compute, x: u64, y: u64, key: Key) -> u64 {
    codes.code(x, y, key) & !low_bits(32)
}

/// `Strip`: XPACI, XPACD.
#[inline]
pub fn strip(ptr: u64, layout: &Layout) -> u64 {
    let upper = ptr & BIT_55 != 0;
    extend(ptr, upper, layout.field[usize::from(upper)])
}

/// The implementation-defined algorithm: two multiplications of 64 by 64 bits, whose halves are folded together, each with all
/// of the key.
#[inline]
pub fn mix(data: u64, modifier: u64, key: Key) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let x = fold(data ^ key.hi ^ 0x9e37_79b9_7f4a_7c15, modifier.rotate_left(32) ^ key.lo ^ 0xd6e8_feb8_6659_fd93);
    fold(x ^ key.lo, key.hi.rotate_left(23) ^ 0xa076_1d64_78bd_642f).wrapping_add(x.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { hi: 0x84be_85ce_9804_e94b, lo: 0xec28_02d4_e0a4_88e9 };

    fn plain() -> Layout {
        Layout::new([false; 2], [48; 2])
    }
    fn tagged() -> Layout {
        Layout::new([true; 2], [39, 48])
    }
    const POINTERS: [u64; 4] = [0x0000_7fff_1234_5678, 0xffff_8000_dead_beef, 0, !0];

    fn all() -> impl Iterator<Item = (Algorithm, Pauth)> {
        [Algorithm::Qarma5, Algorithm::Qarma3, Algorithm::Impdef].into_iter().flat_map(|algorithm| {
            [(Level::Pauth, false), (Level::Epac, false), (Level::Pauth2, false), (Level::Pauth2, true)]
                .map(|(level, faulting)| (algorithm, Pauth { level, faulting }))
        })
    }

    #[test]
    fn round_trips_and_failures() {
        for (algorithm, p) in all() {
            let mut memo = Memo::new(algorithm);
            let mut algorithm = algorithm;
            for ptr in POINTERS {
                for layout in [plain(), tagged()] {
                    let ptr = strip(if layout == tagged() { ptr & !TOP_BYTE | 0x5a << 56 } else { ptr }, &layout);
                    let signed = p.add(&mut algorithm, ptr, 0x477d, KEY, &layout);
                    assert_eq!(p.add(&mut memo, ptr, 0x477d, KEY, &layout), signed);
                    assert_eq!(signed & BIT_55, ptr & BIT_55);
                    assert_eq!(strip(signed, &layout), ptr);
                    assert_eq!(p.auth(&mut memo, signed, 0x477d, KEY, false, &layout), Ok(ptr), "{p:?} {ptr:#x}");
                    let bad = p.auth(&mut algorithm, signed ^ 1 << 50, 0x477d, KEY, true, &layout);
                    match (p.level, p.faulting) {
                        (Level::Pauth2, true) => assert_eq!(bad, Err(AuthFailure)),
                        (Level::Pauth2, false) => assert_eq!(bad, Ok(ptr ^ 1 << 50)),
                        _ => {
                            let at = if layout == tagged() { 53 } else { 61 };
                            assert_eq!(bad, Ok(ptr & !(3 << at) | 2 << at));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bad_extension() {
        let p = |level| Pauth { level, faulting: false };
        let ptr = 0x0001_7fff_0000_1000;
        let good = p(Level::Pauth).add(&mut Algorithm::Qarma5, strip(ptr, &plain()), 7, KEY, &plain());
        assert_eq!(p(Level::Pauth).add(&mut Algorithm::Qarma5, ptr, 7, KEY, &plain()), good ^ 1 << 62);
        assert_eq!(p(Level::Epac).add(&mut Algorithm::Qarma5, ptr, 7, KEY, &plain()), strip(ptr, &plain()));
        let code = good & 0xff7f_0000_0000_0000;
        assert_eq!(p(Level::Pauth2).add(&mut Algorithm::Qarma5, ptr, 7, KEY, &plain()), ptr ^ code);
    }

    /// Without tags bit 63 tells the range of a pointer to be signed.
    #[test]
    fn range_selection() {
        let p = Pauth { level: Level::Pauth, faulting: false };
        assert_eq!(p.add(&mut Algorithm::Qarma5, 1 << 63, 0, KEY, &plain()) & BIT_55, BIT_55);
        let one = Layout::new([false, true], [48; 2]);
        assert_eq!(p.add(&mut Algorithm::Qarma5, 1 << 63, 0, KEY, &one) & BIT_55, 0);
    }

    #[test]
    fn generic_code() {
        let code = add_generic(&mut Algorithm::Qarma5, 0xfb62_3599_da6e_8127, 0x477d_469d_ec0b_8762, KEY);
        assert_eq!(code, 0xc003_b939_0000_0000);
    }

    /// The memo answers what the algorithm does, for entries never filled, filled and replaced.
    #[test]
    fn memo_is_exact() {
        let mut memo = Memo::new(Algorithm::Qarma5);
        let mut x = 1u64;
        for n in 0..4000u64 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Few distinct inputs, so that hits, misses and conflicts all happen.
            let (data, modifier) = (x >> 60, (x >> 50 & 63) << 4);
            let key = if n & 1 == 0 { Key::default() } else { Key { hi: x >> 40 & 3, lo: KEY.lo } };
            assert_eq!(memo.code(data, modifier, key), Algorithm::Qarma5.compute(data, modifier, key));
        }
    }

    #[test]
    fn mix_avalanche() {
        let input = [0x0000_7fff_1234_5678u64, 0x477d_469d, KEY.hi, KEY.lo];
        let run = |v: [u64; 4]| mix(v[0], v[1], Key { hi: v[2], lo: v[3] });
        let mut counts = [0u32; 64];
        let mut x = 1u64;
        for round in 0..64 {
            let mut v = input;
            for w in &mut v {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407 + round);
                *w ^= x;
            }
            for bit in 0..256usize {
                let mut changed = v;
                changed[bit / 64] ^= 1 << (bit % 64);
                let diff = run(v) ^ run(changed);
                for (i, c) in counts.iter_mut().enumerate() {
                    *c += (diff >> i & 1) as u32;
                }
            }
        }
        // Every output bit changes in about half of 16384 cases.
        for (i, c) in counts.iter().enumerate() {
            assert!((7400..9000).contains(c), "bit {i}: {c}");
        }
    }
}
