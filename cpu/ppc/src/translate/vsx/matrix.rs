//! Matrix-multiply assist (Book I, 7.6.1.14): rank-k updates of an accumulator, which is four consecutive VSRs.

use super::helpers;
use crate::config::Isa;
use crate::state::PpcCpu;
use crate::translate::decode::Handler;
use crate::translate::fp::row;
use crate::translate::{Flow, Insn, Pattern, Translator};
use crate::vector::{el, from_register, put, sel, to_register};
use rhea_float::{Env, F32, F64, Float};

/// What elements are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    I4 = 0,
    I8 = 1,
    I16 = 2,
    F16 = 3,
    Bf16 = 4,
    F32 = 5,
    F64 = 6,
}

/// How the accumulator takes part: bit 0 it does, bit 1 the product is negated, bit 2 the accumulator is, bit 3 integers saturate.
const ACC: u32 = 1;
const NEGATE: u32 = 2;
const MINUS: u32 = 4;
const SATURATE: u32 = 8;

/// Kind (0–3), mode (4–7), accumulator (8–10), XA (11), XB (17), masks: products (23, eight bits), rows (31), columns (35).
fn update(t: &mut Translator, i: Insn, kind: Kind, mode: u32) -> Flow {
    let prefixed = t.len == 8;
    let (mut products, mut rows, mut columns) = (0xff, 15, 15);
    if prefixed {
        let p = i.prefix();
        rows = p.field(24, 27);
        columns = p.field(28, 31);
        products = match kind {
            Kind::I4 => p.field(16, 23),
            Kind::I8 => p.field(16, 19),
            _ => p.field(16, 17),
        };
        if kind == Kind::F64 {
            columns = p.field(28, 29);
        }
    } else if kind == Kind::F64 {
        columns = 3;
    } else {
        products = match kind {
            Kind::I4 => 0xff,
            Kind::I8 => 15,
            _ => 3,
        };
    }
    let at = i.bf();
    let (xa, xb) = (i.xa(), i.xb());
    // Sources may not be the accumulator's registers.
    if xa / 4 == at || xb / 4 == at || kind == Kind::F64 && xa & 1 != 0 {
        return Flow::Illegal;
    }
    let packed = u64::from(kind as u32 | mode << 4 | at << 8 | xa << 11 | xb << 17 | products << 23)
        | u64::from(rows) << 31
        | u64::from(columns) << 35;
    let p = t.c64(packed);
    t.b.call(helpers::MATRIX, &[p]);
    Flow::Next
}

/// xxmfacc, xxmtacc: the accumulator is its registers; xxsetaccz.
fn moves(t: &mut Translator, i: Insn) -> Flow {
    if i.ra() == 3 {
        let zero = t.b.vconst(0);
        for n in 0..4 {
            t.set_vsr(4 * i.bf() + n, zero);
        }
    }
    Flow::Next
}

const fn word(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    row(name, 59, 0x0060_07f9, xo << 3, handler).vsx().since(Isa::V3_1)
}

/// MMIRR-form: type 3, subtype 9.
const fn masked(name: &'static str, xo: u32, handler: Handler) -> Pattern {
    let mut p = word(name, xo, handler);
    p.mask |= 0xfff0_0000 << 32;
    p.value |= 0x0790_0000 << 32;
    p
}

macro_rules! tables {
    ($($name:literal $masked:literal $xo:literal $kind:ident $mode:expr;)*) => {
        pub(super) static PATTERNS: &[Pattern] = &[
            row("xxmfacc", 31, 0x007f_ffff, 177 << 1, moves).vsx().since(Isa::V3_1),
            row("xxmtacc", 31, 0x007f_ffff, 1 << 16 | 177 << 1, moves).vsx().since(Isa::V3_1),
            row("xxsetaccz", 31, 0x007f_ffff, 3 << 16 | 177 << 1, moves).vsx().since(Isa::V3_1),
            $(word($name, $xo, |t, i| update(t, i, Kind::$kind, $mode)),)*
        ];
        pub(super) const MASKED: [Pattern; [$($xo),*].len()] = [
            $(masked($masked, $xo, |t, i| update(t, i, Kind::$kind, $mode)),)*
        ];
    };
}

tables! {
    "xvi4ger8" "pmxvi4ger8" 35 I4 0;
    "xvi4ger8pp" "pmxvi4ger8pp" 34 I4 ACC;
    "xvi8ger4" "pmxvi8ger4" 3 I8 0;
    "xvi8ger4pp" "pmxvi8ger4pp" 2 I8 ACC;
    "xvi8ger4spp" "pmxvi8ger4spp" 99 I8 ACC | SATURATE;
    "xvi16ger2" "pmxvi16ger2" 75 I16 0;
    "xvi16ger2pp" "pmxvi16ger2pp" 107 I16 ACC;
    "xvi16ger2s" "pmxvi16ger2s" 43 I16 SATURATE;
    "xvi16ger2spp" "pmxvi16ger2spp" 42 I16 ACC | SATURATE;
    "xvf16ger2" "pmxvf16ger2" 19 F16 0;
    "xvf16ger2pp" "pmxvf16ger2pp" 18 F16 ACC;
    "xvf16ger2np" "pmxvf16ger2np" 82 F16 ACC | NEGATE;
    "xvf16ger2pn" "pmxvf16ger2pn" 146 F16 ACC | MINUS;
    "xvf16ger2nn" "pmxvf16ger2nn" 210 F16 ACC | NEGATE | MINUS;
    "xvbf16ger2" "pmxvbf16ger2" 51 Bf16 0;
    "xvbf16ger2pp" "pmxvbf16ger2pp" 50 Bf16 ACC;
    "xvbf16ger2np" "pmxvbf16ger2np" 114 Bf16 ACC | NEGATE;
    "xvbf16ger2pn" "pmxvbf16ger2pn" 178 Bf16 ACC | MINUS;
    "xvbf16ger2nn" "pmxvbf16ger2nn" 242 Bf16 ACC | NEGATE | MINUS;
    "xvf32ger" "pmxvf32ger" 27 F32 0;
    "xvf32gerpp" "pmxvf32gerpp" 26 F32 ACC;
    "xvf32gernp" "pmxvf32gernp" 90 F32 ACC | NEGATE;
    "xvf32gerpn" "pmxvf32gerpn" 154 F32 ACC | MINUS;
    "xvf32gernn" "pmxvf32gernn" 218 F32 ACC | NEGATE | MINUS;
    "xvf64ger" "pmxvf64ger" 59 F64 0;
    "xvf64gerpp" "pmxvf64gerpp" 58 F64 ACC;
    "xvf64gernp" "pmxvf64gernp" 122 F64 ACC | NEGATE;
    "xvf64gerpn" "pmxvf64gerpn" 186 F64 ACC | MINUS;
    "xvf64gernn" "pmxvf64gernn" 250 F64 ACC | NEGATE | MINUS;
}

/// One element of an integer update.
fn integer(kind: u32, mode: u32, x: u128, y: u128, products: u32, acc: i128, saturated: &mut bool) -> u128 {
    let n = [8, 4, 2][kind as usize % 3];
    let bits = 32 / n;
    let mut sum = if mode & ACC != 0 { acc } else { 0 };
    for k in 0..n {
        if products >> (n - 1 - k) & 1 == 0 {
            continue;
        }
        // Words in the low quarter of x and y.
        let at = 128 / bits - n + k;
        let b = if kind == Kind::I8 as u32 { el(y, bits, at) as i128 } else { sel(y, bits, at) };
        sum += sel(x, bits, at) * b;
    }
    if mode & SATURATE == 0 {
        return sum as u128;
    }
    let kept = sum.clamp(i32::MIN.into(), i32::MAX.into());
    *saturated |= kept != sum;
    kept as u128
}

fn negated<F: Float>(v: F::Bits, negate: bool) -> F::Bits {
    if negate && F::wide(v) & (F::SIGN - 1) <= F::INF { F::neg(v) } else { v }
}

/// One element of an update of singles or doubles.
fn float<F: Float>(mode: u32, x: F::Bits, y: F::Bits, acc: F::Bits, e: &mut Env) -> F::Bits {
    if mode & ACC == 0 {
        return F::mul(x, y, e);
    }
    let c = negated::<F>(acc, (mode & MINUS != 0) != (mode & NEGATE != 0));
    let r = F::mul_add(x, y, c, e);
    negated::<F>(r, mode & NEGATE != 0)
}

/// One element of an update of pairs of halves: the sum of products is rounded to single precision, then added.
fn halves(kind: u32, mode: u32, x: u32, y: u32, products: u32, acc: u32, e: &mut Env) -> u32 {
    let wide = |h: u32, e: &mut Env| {
        if kind == Kind::Bf16 as u32 { rhea_float::f32_to_f64(h << 16, e) } else { rhea_float::f16_to_f64(h as u16, e) }
    };
    let pick = |v: u32, used: bool, e: &mut Env| if used { wide(v & 0xffff, e) } else { 0 };
    let (a, b) = (pick(x >> 16, products & 2 != 0, e), pick(y >> 16, products & 2 != 0, e));
    let (c, d) = (pick(x, products & 1 != 0, e), pick(y, products & 1 != 0, e));
    let p = F64::mul(a, b, e);
    let mut sum = rhea_float::round_to_single(e, |e| F64::mul_add(c, d, p, e));
    if mode & ACC != 0 {
        sum = negated::<F64>(sum, mode & NEGATE != 0);
        let acc = rhea_float::f32_to_f64(acc, e);
        let acc = negated::<F64>(acc, mode & MINUS != 0);
        sum = rhea_float::round_to_single(e, |e| F64::add(sum, acc, e));
    }
    rhea_float::f64_to_f32(sum, e)
}

impl PpcCpu {
    /// Does the update that `update` packed.
    pub(super) fn matrix(&mut self, packed: u64) {
        let field = |at: u32, n: u32| (packed >> at) as u32 & ((1 << n) - 1);
        let (kind, mode, at) = (field(0, 4), field(4, 4), 4 * field(8, 3) as usize);
        let (xa, xb) = (field(11, 6) as usize, field(17, 6) as usize);
        let (products, rows, columns) = (field(23, 8), field(31, 4), field(35, 4));
        let x = from_register(self.vsr[xa]);
        let x2 = from_register(self.vsr[(xa + 1) & 63]);
        let y = from_register(self.vsr[xb]);
        let mut env = self.fp_env();
        let mut saturated = false;
        let mut results = [0u128; 4];
        for (i, result) in results.iter_mut().enumerate() {
            let i = i as u32;
            let acc = from_register(self.vsr[at + i as usize]);
            if rows >> (3 - i) & 1 == 0 {
                continue;
            }
            if kind == Kind::F64 as u32 {
                let a = el(if i < 2 { x } else { x2 }, 64, i & 1) as u64;
                for j in 0..2 {
                    if columns >> (1 - j) & 1 != 0 {
                        let r = float::<F64>(mode, a, el(y, 64, j) as u64, el(acc, 64, j) as u64, &mut env);
                        *result |= put(u128::from(r), 64, j);
                    }
                }
                continue;
            }
            let a = el(x, 32, i);
            for j in 0..4 {
                if columns >> (3 - j) & 1 == 0 {
                    continue;
                }
                let b = el(y, 32, j);
                let c = el(acc, 32, j) as u32;
                let r = match kind {
                    0..=2 => integer(kind, mode, a, b, products, i128::from(c as i32), &mut saturated),
                    3 | 4 => u128::from(halves(kind, mode, a as u32, b as u32, products, c, &mut env)),
                    _ => u128::from(float::<F32>(mode, a as u32, b as u32, c, &mut env)),
                };
                *result |= put(r, 32, j);
            }
        }
        if !self.vector_suppressed(env.flags) {
            for (i, r) in results.iter().enumerate() {
                self.vsr[at + i] = to_register(*r);
            }
        }
        if saturated {
            self.sat |= 1;
        }
        if kind >= Kind::F16 as u32 {
            self.fold_pending();
            self.fp_done(env.flags, 0, 0);
        }
    }
}
