//! Values and exception flags of the floating-point operations of [`crate::simd`] (Intel SDM vol. 1, chapter 11 and appendix E).

use crate::eval::lane_get;
use crate::fpeval::{Raw, flag};
use crate::func::Inst;
use crate::simd::{Fmt, SimdOp, fma_kind};
use crate::types::Lane;
use rhea_float::{Env, F16, F32, F64, Float, Ordering, Rounding};

/// Which relations of a predicate of CMPPS hold: bit 0 less, 1 equal, 2 greater, 3 unordered.
const PREDICATES: [u8; 16] = [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15];

fn signals(predicate: u32) -> bool {
    matches!(predicate & 3, 1 | 2) != (predicate & 16 != 0)
}

/// Rounding as an immediate's or MXCSR's two bits have it.
fn rounding(rc: u32) -> Rounding {
    match rc & 3 {
        0 => Rounding::NearestEven,
        1 => Rounding::TowardNegative,
        2 => Rounding::TowardPositive,
        _ => Rounding::TowardZero,
    }
}

struct Unit {
    env: Env,
    daz: bool,
    raised: u32,
}

/// What a format tells of raw bits.
fn is_nan<F: Raw>(v: u128) -> bool {
    F::wide(F::from_raw(v)) & (F::SIGN - 1) > F::INF
}
fn is_denormal<F: Raw>(v: u128) -> bool {
    let m = F::wide(F::from_raw(v)) & (F::SIGN - 1);
    m != 0 && m <= F::FRAC_MASK
}

impl Unit {
    /// One elementary operation on operands: its flags are gathered, with the denormal-operand flag, which invalid operations,
    /// divisions by zero and NaN operands come before.
    fn run<F: Raw>(&mut self, operands: &[u128], f: impl FnOnce(&mut Env) -> u128) -> u128 {
        let mut e = self.env;
        let r = f(&mut e);
        let mut flags = e.flags.0 & !flag::INPUT_DENORMAL;
        if !self.daz
            && flags & (flag::INVALID | flag::DIV_BY_ZERO) == 0
            && !operands.iter().any(|&v| is_nan::<F>(v))
            && operands.iter().any(|&v| is_denormal::<F>(v))
        {
            flags |= flag::INPUT_DENORMAL;
        }
        self.raised |= flags;
        r
    }

    /// The operand as the unit sees it: denormals are zeros under DAZ.
    fn operand<F: Raw>(&self, v: u128) -> u128 {
        if self.daz && is_denormal::<F>(v) { v & F::SIGN as u128 } else { v }
    }

    fn two<F: Raw>(&mut self, op: SimdOp, imm: u32, a: u128, b: u128) -> u128 {
        let (x, y) = (F::from_raw(a), F::from_raw(b));
        let ones = (1u128 << F::BITS) - 1;
        match op {
            SimdOp::Add => self.run::<F>(&[a, b], |e| F::raw(F::add(x, y, e))),
            SimdOp::Sub => self.run::<F>(&[a, b], |e| F::raw(F::sub(x, y, e))),
            SimdOp::Mul => self.run::<F>(&[a, b], |e| F::raw(F::mul(x, y, e))),
            SimdOp::Div => self.run::<F>(&[a, b], |e| F::raw(F::div(x, y, e))),
            SimdOp::Min | SimdOp::Max => {
                let (p, q) = (self.operand::<F>(a), self.operand::<F>(b));
                self.run::<F>(&[a, b], |e| match F::compare(x, y, true, e) {
                    Ordering::Less if op == SimdOp::Min => p,
                    Ordering::Greater if op == SimdOp::Max => p,
                    _ => q,
                })
            }
            SimdOp::Sqrt => self.run::<F>(&[b], |e| F::raw(F::sqrt(y, e))),
            SimdOp::Cmp => self.run::<F>(&[a, b], |e| {
                let bit = match F::compare(x, y, signals(imm), e) {
                    Ordering::Less => 1,
                    Ordering::Equal => 2,
                    Ordering::Greater => 4,
                    Ordering::Unordered => 8,
                };
                if PREDICATES[imm as usize & 15] & bit != 0 { ones } else { 0 }
            }),
            SimdOp::Round => {
                let mode = if imm & 4 != 0 { self.env.rounding } else { rounding(imm) };
                self.run::<F>(&[], |e| F::raw(F::round_to_int(y, mode, imm & 8 == 0, e)))
            }
            _ => 0,
        }
    }

    fn fma<F: Raw>(&mut self, opcode: u8, lane: u32, x: [u128; 3]) -> u128 {
        let Some(k) = fma_kind(opcode) else { return 0 };
        let [a, b, c] = k.order.map(|n| x[n]);
        let negate = |v: u128, n: bool| {
            if n && !is_nan::<F>(v) { v ^ F::SIGN as u128 } else { v }
        };
        let p = negate(a, k.negate_product);
        let q = negate(c, k.negate_addend[lane as usize & 1]);
        self.run::<F>(&[a, b, c], |e| F::raw(F::mul_add(F::from_raw(p), F::from_raw(b), F::from_raw(q), e)))
    }

    fn to_int<F: Raw>(&mut self, v: u128, bits: u32, mode: Rounding) -> u128 {
        let mut invalid = false;
        let r = self.run::<F>(&[], |e| {
            let r = F::to_signed(F::from_raw(v), bits, 0, mode, e) as u64 as u128;
            invalid = e.flags.0 & flag::INVALID != 0;
            r
        });
        let mask = (1u128 << bits) - 1;
        if invalid { 1 << (bits - 1) } else { r & mask }
    }

    /// Lanes (or the lowest, the others being the first operand's) by a function of (unit, lane, operands).
    fn lanes<F: Raw>(
        &mut self,
        scalar: bool,
        x: [u128; 3],
        mut f: impl FnMut(&mut Unit, u32, [u128; 3]) -> u128,
    ) -> u128 {
        let n = F::BITS;
        let mask = (1u128 << n) - 1;
        if scalar {
            let y = x.map(|v| v & mask);
            return x[0] & !mask | f(self, 0, y) & mask;
        }
        (0..128 / n).fold(0, |r, k| {
            let y = x.map(|v| v >> (k * n) & mask);
            r | (f(self, k, y) & mask) << (k * n)
        })
    }

    /// Sums and differences of lanes of one or two vectors.
    fn across<F: Raw>(&mut self, op: SimdOp, imm: u32, a: u128, b: u128) -> u128 {
        let bits = F::BITS;
        let n = 128 / bits;
        let mask = (1u128 << bits) - 1;
        let at = |v: u128, k: u32| v >> (k * bits) & mask;
        match op {
            SimdOp::AddSub => (0..n).fold(0, |r, k| {
                let op = if k & 1 == 0 { SimdOp::Sub } else { SimdOp::Add };
                r | self.two::<F>(op, 0, at(a, k), at(b, k)) << (k * bits)
            }),
            SimdOp::HAdd | SimdOp::HSub => (0..n).fold(0, |r, k| {
                let (v, j) = if k < n / 2 { (a, k) } else { (b, k - n / 2) };
                let op = if op == SimdOp::HAdd { SimdOp::Add } else { SimdOp::Sub };
                r | self.two::<F>(op, 0, at(v, 2 * j), at(v, 2 * j + 1)) << (k * bits)
            }),
            _ => {
                let mut t = [0u128; 4];
                for k in 0..n {
                    if imm >> (4 + k) & 1 != 0 {
                        t[k as usize] = self.two::<F>(SimdOp::Mul, 0, at(a, k), at(b, k));
                    }
                }
                let mut sum = self.two::<F>(SimdOp::Add, 0, t[0], t[1]);
                if n == 4 {
                    let high = self.two::<F>(SimdOp::Add, 0, t[2], t[3]);
                    sum = self.two::<F>(SimdOp::Add, 0, sum, high);
                }
                (0..n).fold(0, |r, k| if imm >> k & 1 != 0 { r | sum << (k * bits) } else { r })
            }
        }
    }
}

/// The result of a floating-point operation; flags raised are or-ed into `raised`.
pub(crate) fn eval(i: &Inst, env: Env, daz: bool, x: [u128; 3], raised: &mut u32) -> u128 {
    let Some(op) = SimdOp::of(i.aux) else { return 0 };
    let fmt = Fmt::of(i.aux);
    let mut u = Unit { env, daz, raised: 0 };
    let imm = i.imm as u32;
    let single = |v: u128, k: u32| lane_get(v, Lane::S, k) as u128;
    let double = |v: u128, k: u32| lane_get(v, Lane::D, k) as u128;
    let r = match op {
        SimdOp::Fma if fmt.double() => u.lanes::<F64>(fmt.scalar(), x, |u, k, y| u.fma::<F64>(imm as u8, k, y)),
        SimdOp::Fma => u.lanes::<F32>(fmt.scalar(), x, |u, k, y| u.fma::<F32>(imm as u8, k, y)),
        SimdOp::AddSub | SimdOp::HAdd | SimdOp::HSub | SimdOp::Dp if fmt.double() => {
            u.across::<F64>(op, imm, x[0], x[1])
        }
        SimdOp::AddSub | SimdOp::HAdd | SimdOp::HSub | SimdOp::Dp => u.across::<F32>(op, imm, x[0], x[1]),
        SimdOp::CvtDq2Ps => u.lanes::<F32>(false, x, |u, _, y| {
            u.run::<F32>(&[], |e| F32::from_signed(y[0] as u32 as i32 as i64, 0, e) as u128)
        }),
        SimdOp::Cvt2Dq | SimdOp::Cvtt2Dq => {
            let mode = if op == SimdOp::Cvt2Dq { u.env.rounding } else { Rounding::TowardZero };
            if fmt.double() {
                let lo = u.to_int::<F64>(double(x[0], 0), 32, mode);
                lo | u.to_int::<F64>(double(x[0], 1), 32, mode) << 32
            } else {
                u.lanes::<F32>(false, x, |u, _, y| u.to_int::<F32>(y[0], 32, mode))
            }
        }
        SimdOp::Cvt2Si | SimdOp::Cvtt2Si => {
            let mode = if op == SimdOp::Cvt2Si { u.env.rounding } else { Rounding::TowardZero };
            let bits = i.ty.bytes() * 8;
            if fmt.double() {
                u.to_int::<F64>(double(x[0], 0), bits, mode)
            } else {
                u.to_int::<F32>(single(x[0], 0), bits, mode)
            }
        }
        SimdOp::CvtSi2 => {
            let v = crate::eval::sext(x[1] as u64, imm.clamp(32, 64));
            if fmt.double() {
                let r = u.run::<F64>(&[], |e| F64::from_signed(v, 0, e) as u128);
                x[0] & !(u64::MAX as u128) | r
            } else {
                let r = u.run::<F32>(&[], |e| F32::from_signed(v, 0, e) as u128);
                x[0] & !0xffff_ffff | r
            }
        }
        SimdOp::CvtPs2Pd => (0..2).fold(0, |r, k| {
            let v = single(x[0], k);
            r | u.run::<F32>(&[v], |e| rhea_float::f32_to_f64(v as u32, e) as u128) << (64 * k)
        }),
        SimdOp::CvtPd2Ps => (0..2).fold(0, |r, k| {
            let v = double(x[0], k);
            r | u.run::<F64>(&[v], |e| rhea_float::f64_to_f32(v as u64, e) as u128) << (32 * k)
        }),
        SimdOp::CvtSs2Sd => {
            let v = single(x[1], 0);
            let r = u.run::<F32>(&[v], |e| rhea_float::f32_to_f64(v as u32, e) as u128);
            x[0] & !(u64::MAX as u128) | r
        }
        SimdOp::CvtSd2Ss => {
            let v = double(x[1], 0);
            let r = u.run::<F64>(&[v], |e| rhea_float::f64_to_f32(v as u64, e) as u128);
            x[0] & !0xffff_ffff | r
        }
        SimdOp::CvtPh2Ps => (0..4).fold(0, |r, k| {
            let v = lane_get(x[0], Lane::H, k) as u128;
            r | u.run::<F16>(&[], |e| rhea_float::f16_to_f32(v as u16, e) as u128) << (32 * k)
        }),
        SimdOp::CvtPs2Ph => {
            if imm & 4 == 0 {
                u.env.rounding = rounding(imm);
            }
            (0..4).fold(0, |r, k| {
                let v = single(x[0], k);
                r | u.run::<F32>(&[v], |e| rhea_float::f32_to_f16(v as u32, e) as u128) << (16 * k)
            })
        }
        _ if fmt.double() => u.lanes::<F64>(fmt.scalar(), x, |u, _, y| u.two::<F64>(op, imm, y[0], y[1])),
        _ => u.lanes::<F32>(fmt.scalar(), x, |u, _, y| u.two::<F32>(op, imm, y[0], y[1])),
    };
    *raised |= u.raised;
    r
}

/// FCOM's packed flags and the flags raised: `aux` as [`crate::Op::FlagsFCom`] has it.
pub(crate) fn compare(aux: u32, env: Env, daz: bool, a: u128, b: u128, raised: &mut u32) -> u32 {
    use crate::eval::flags;
    let mut u = Unit { env, daz, raised: 0 };
    let signal = aux & 2 != 0;
    let order = |u: &mut Unit| -> Ordering {
        let mut o = Ordering::Unordered;
        if aux & 1 != 0 {
            let (a, b) = (a as u64, b as u64);
            u.run::<F64>(&[a as u128, b as u128], |e| {
                o = F64::compare(a, b, signal, e);
                0
            });
        } else {
            let (a, b) = (a as u32, b as u32);
            u.run::<F32>(&[a as u128, b as u128], |e| {
                o = F32::compare(a, b, signal, e);
                0
            });
        }
        o
    };
    let r = match order(&mut u) {
        Ordering::Less => flags::C,
        Ordering::Equal => flags::Z,
        Ordering::Greater => 0,
        Ordering::Unordered => flags::Z | flags::C | flags::P,
    };
    *raised |= u.raised;
    r
}
