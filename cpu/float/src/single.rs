//! Operations on binary64 operands whose result is rounded once, to single precision, and kept as binary64 (the Power ISA's
//! single-precision arithmetic), and the conversions between the two formats that loads and stores make.

use crate::convert::convert;
use crate::env::{Env, Flags, Rounding};
use crate::format::*;

/// Runs a binary64 operation so that its result is rounded to single precision only. A NaN result loses the fraction bits
/// that single precision lacks.
pub fn round_to_single(env: &mut Env, op: impl Fn(&mut Env) -> u64) -> u64 {
    let rounding = env.rounding;
    let before = env.flags;
    let traps = (env.trap_overflow, env.trap_underflow);
    (env.trap_overflow, env.trap_underflow) = (false, false);
    // Rounding to odd keeps what the second rounding must know.
    env.rounding = Rounding::ToOdd;
    let wide = op(env);
    env.rounding = rounding;
    (env.trap_overflow, env.trap_underflow) = traps;
    let magnitude = wide & (F64::SIGN - 1);
    if magnitude == 0 {
        // The sign of an exact zero depends on the rounding.
        env.flags = before;
        return op(env);
    }
    if magnitude > F64::INF {
        return wide & !0x1fff_ffff;
    }
    if (traps.0 || traps.1) && magnitude < F64::INF {
        let mut plain = Env { rounding, ..Env::PPC };
        let _ = convert::<F64, F32>(wide, &mut plain);
        let over = traps.0 && plain.flags.contains(Flags::OVERFLOW);
        let under = traps.1 && magnitude < 897 << 52;
        if over || under {
            // Rounded to the precision only, and moved by 192 in the exponent.
            let (rest, half) = (magnitude & 0x1fff_ffff, 1 << 28);
            let up = rounds_up(rounding, wide != magnitude, magnitude >> 29 & 1 != 0, rest, half);
            let kept = ((magnitude >> 29) + u64::from(up)) << 29;
            let moved = if over { kept.wrapping_sub(192 << 52) } else { kept.wrapping_add(192 << 52) };
            env.flags |= if over { Flags::OVERFLOW } else { Flags::UNDERFLOW };
            if rest != 0 {
                env.flags |= Flags::INEXACT;
            }
            return wide & F64::SIGN | moved & (F64::SIGN - 1);
        }
    }
    let narrow = convert::<F64, F32>(wide, env);
    convert::<F32, F64>(narrow, env)
}

/// The binary64 register image of a single-precision word in memory: no exceptions, signalling NaNs stay so (Power ISA
/// DOUBLE).
pub fn load_single(word: u32) -> u64 {
    let mut env = Env::PPC;
    let w = u64::from(word);
    let magnitude = w & (F32::SIGN - 1);
    if magnitude >= F32::INF {
        return (w & F32::SIGN) << 32 | F64::INF | (w & F32::FRAC_MASK) << 29;
    }
    convert::<F32, F64>(word, &mut env)
}

/// The word that a binary64 register holding a single-precision value is stored as: bits are dropped, not rounded (Power ISA
/// SINGLE).
pub fn store_single(bits: u64) -> u32 {
    let exp = bits >> 52 & 0x7ff;
    let top = (bits >> 32 & 0xc000_0000) as u32;
    if exp > 896 || bits & (F64::SIGN - 1) == 0 {
        return top | (bits >> 29 & 0x3fff_ffff) as u32;
    }
    let sign = (bits >> 32 & 0x8000_0000) as u32;
    let shift = 926u64.wrapping_sub(exp);
    let sig = bits & F64::FRAC_MASK | 1 << 52;
    if exp < 874 { sign } else { sign | (sig >> (shift & 63)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Float;

    #[test]
    fn loads_and_stores() {
        for w in [
            0u32,
            1,
            0x8000_0001,
            0x7f_ffff,
            0x80_0000,
            0x3f80_0000,
            0x7f80_0001,
            0xffc0_0000,
            0x7f7f_ffff,
            0xff80_0000,
        ] {
            assert_eq!(store_single(load_single(w)), w, "{w:#x}");
        }
        assert_eq!(load_single(0x7f80_0001), 0x7ff0_0000_2000_0000);
        // 2^-149 is the least denormal; below it nothing is left.
        assert_eq!(store_single(2f64.powi(-149).to_bits()), 1);
        assert_eq!(store_single(2f64.powi(-150).to_bits()), 0);
    }

    #[test]
    fn rounds_once() {
        let mut env = Env::PPC;
        // 1 + 2^-24 + 2^-60: to nearest in two steps would give 1.
        let (a, b) = ((1.0 + 2f64.powi(-24)).to_bits(), 2f64.powi(-60).to_bits());
        let r = round_to_single(&mut env, |e| F64::add(a, b, e));
        assert_eq!(f64::from_bits(r), 1.0 + 2f64.powi(-23));
        assert_eq!(env.flags, Flags::INEXACT);
        let mut env = Env { rounding: Rounding::TowardNegative, ..Env::PPC };
        let r = round_to_single(&mut env, |e| F64::sub(a, a, e));
        assert_eq!(r, 1 << 63);
    }
}
