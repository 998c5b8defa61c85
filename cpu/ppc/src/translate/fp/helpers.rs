//! Helpers of binary floating-point instructions (Book I, chapter 4).

use crate::fpu::{Exact, fpscr};
use crate::state::PpcCpu;
use rhea_ir::Effects;

const STATE: Effects = Effects::WRITES_STATE.union(Effects::RAISES);

rhea_ir::helper_table! {
    cpu PpcCpu, base crate::helpers::FP_BASE;
    /// An operation on registers: args (`fpu::Exact`).
    EXACT = exact, (I64) -> Void, STATE;
    /// A compare: args (register a, register b << 6, ordered << 12, field << 13).
    EXACT_COMPARE = exact_compare, (I64) -> Void, STATE;
    /// CR1 from FPSCR: args (sticky flags).
    RECORD = record, (I32) -> Void, Effects::WRITES_STATE;
    /// FPSCR: args (sticky flags).
    READ = read, (I32) -> I64, Effects::WRITES_STATE;
    /// mffsce and its like: args (sticky flags, kind | FRT << 8, new bits).
    CHANGE = change, (I32, I32, I64) -> Void, STATE;
    /// Writes bits of FPSCR: args (sticky flags, mask, value, record).
    WRITE = write, (I32, I64, I64, I32) -> Void, STATE;
    /// Writes one bit: args (sticky flags, bit, value | record << 1).
    WRITE_BIT = write_bit, (I32, I64, I32) -> Void, STATE;
    /// mcrfs: args (sticky flags, BF | BFA << 4).
    TO_CR = to_cr, (I32, I32) -> Void, STATE;
    /// ftdiv: args (a, b); the four bits of the field.
    TEST_DIV = test_div, (I64, I64) -> I32, Effects::PURE;
    /// ftsqrt.
    TEST_SQRT = test_sqrt, (I64) -> I32, Effects::PURE;
}

/// What mffsl gives: DRN, FR, FI, FPRF, enables, NI, RN.
pub const LIGHT: u64 = fpscr::DRN | fpscr::FR | fpscr::FI | fpscr::FPRF | fpscr::ENABLES | fpscr::NI | fpscr::RN;
/// What mffscrn and mffscdrn give.
const CONTROL: u64 = fpscr::DRN | fpscr::ENABLES | fpscr::NI | fpscr::RN;

extern "C" fn exact(cpu: &mut PpcCpu, e: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    cpu.fp_exact(Exact(e));
    0
}

extern "C" fn exact_compare(cpu: &mut PpcCpu, packed: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_pending();
    let (a, b) = (packed as usize & 63, packed as usize >> 6 & 63);
    let (a, b) = (cpu.vsr[a] as u64, cpu.vsr[b] as u64);
    cpu.fp_exact_compare(a, b, packed >> 12 & 1 != 0, packed as usize >> 13 & 7);
    0
}

impl PpcCpu {
    /// Before an operation done by a helper: what the last one done in generated code left of FR, FI and FPRF. Sticky flags stay
    /// where they are.
    pub(crate) fn fold_pending(&mut self) {
        if self.fp_op | self.fp_cc != 0 {
            self.fold_fp(0);
        }
    }

    fn record_fp(&mut self) {
        self.set_cr_field(1, (self.fpscr >> 28) as u32);
    }
}

extern "C" fn record(cpu: &mut PpcCpu, flags: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    cpu.record_fp();
    0
}

extern "C" fn read(cpu: &mut PpcCpu, flags: u64, _: u64, _: u64, _: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    cpu.fpscr
}

extern "C" fn change(cpu: &mut PpcCpu, flags: u64, how: u64, bits: u64, _: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    let (kind, target) = (how & 0xff, how as usize >> 8 & 31);
    let v = cpu.fpscr;
    let (result, mask) = match kind {
        1 => (v, fpscr::ENABLES),
        20 | 21 => (v & CONTROL, fpscr::DRN),
        _ => (v & CONTROL, fpscr::RN),
    };
    let bits = if kind == 1 { 0 } else { bits };
    cpu.vsr[target] = u128::from(result);
    cpu.write_fpscr(v & !mask | bits & mask);
    0
}

extern "C" fn write(cpu: &mut PpcCpu, flags: u64, mask: u64, value: u64, rc: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    let mask = mask & fpscr::DEFINED & !(fpscr::FEX | fpscr::VX);
    let v = cpu.fpscr & !mask | value & mask;
    if rc != 0 {
        cpu.set_fpscr(v);
        cpu.record_fp();
    }
    cpu.write_fpscr(v);
    0
}

extern "C" fn write_bit(cpu: &mut PpcCpu, flags: u64, bit: u64, how: u64, _: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    let bit = bit & fpscr::DEFINED & !(fpscr::FEX | fpscr::VX);
    let mut v = cpu.fpscr;
    if how & 1 == 0 {
        v &= !bit;
    } else {
        if bit & fpscr::EXCEPTIONS & !v != 0 {
            v |= fpscr::FX;
        }
        v |= bit;
    }
    if how & 2 != 0 {
        cpu.set_fpscr(v);
        cpu.record_fp();
    }
    cpu.write_fpscr(v);
    0
}

extern "C" fn to_cr(cpu: &mut PpcCpu, flags: u64, fields: u64, _: u64, _: u64) -> u64 {
    cpu.fold_fp(flags as u32);
    let (bf, bfa) = (fields as usize & 7, fields as u32 >> 4 & 7);
    let at = 28 - 4 * bfa;
    cpu.set_cr_field(bf, (cpu.fpscr >> at) as u32);
    let cleared = (0xf << at) & (fpscr::EXCEPTIONS | fpscr::FX);
    let v = cpu.fpscr & !cleared;
    cpu.write_fpscr(v);
    0
}

fn exponent(v: u64) -> i32 {
    (v >> 52) as i32 & 0x7ff
}
fn fraction(v: u64) -> u64 {
    v & ((1 << 52) - 1)
}

/// The bits of ftdiv's field (Book I, 4.6.6.1).
fn divide_bits(a: u64, b: u64) -> u64 {
    let (ea, eb) = (exponent(a) - 1023, exponent(b) - 1023);
    let special = |v: u64| exponent(v) == 0x7ff;
    let zero = |v: u64| v << 1 == 0;
    let fe = special(a)
        || special(b)
        || zero(b)
        || eb <= -1022
        || eb >= 1021
        || !zero(a) && (ea - eb >= 1023 || ea - eb <= -1021 || ea <= -970);
    let infinite = |v: u64| special(v) && fraction(v) == 0;
    let denormal = exponent(b) == 0;
    let fg = infinite(a) || infinite(b) || zero(b) || denormal;
    8 | u64::from(fg) << 2 | u64::from(fe) << 1
}

fn root_bits(b: u64) -> u64 {
    let special = exponent(b) == 0x7ff;
    let zero = b << 1 == 0;
    let fe = special || zero || b >> 63 != 0 || exponent(b) - 1023 <= -970;
    let fg = special && fraction(b) == 0 || zero || exponent(b) == 0;
    8 | u64::from(fg) << 2 | u64::from(fe) << 1
}

extern "C" fn test_div(_: &mut PpcCpu, a: u64, b: u64, _: u64, _: u64) -> u64 {
    divide_bits(a, b)
}
extern "C" fn test_sqrt(_: &mut PpcCpu, b: u64, _: u64, _: u64, _: u64) -> u64 {
    root_bits(b)
}
