//! Decimal floating-point instructions (Book I, chapter 5), on registers by number.

use super::fpscr;
use crate::state::PpcCpu;
use rhea_float::Flags;
use rhea_float::decimal::{
    self, Context, D32, D64, D128, Decimal, DecimalRounding, Format, Kind, NAN, decode, encode, length,
};

numbered! {
    /// An operation.
    pub enum DfpOp {
        Add,
        Sub,
        Mul,
        Div,
        CompareUnordered,
        CompareOrdered,
        TestClass,
        TestGroup,
        TestExponent,
        TestSignificance,
        TestSignificanceImmediate,
        Quantize,
        QuantizeImmediate,
        Reround,
        RoundExact,
        Round,
        Widen,
        Narrow,
        FromFixed,
        ToFixed,
        FromFixedQuad,
        ToFixedQuad,
        Decode,
        Encode,
        ExtractExponent,
        InsertExponent,
        ShiftLeft,
        ShiftRight,
    }
}

/// An operation with its operands, packed: operation (0–7), FRT or BF, FRA, FRB (8, 13, 18; five bits each), quad (23), rounding
/// R and RMC (24–26) if 27 is set, immediate (28–35, sign-extended where it is signed).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dfp(pub u64);

impl Dfp {
    pub const fn new(op: DfpOp, quad: bool, t: u32, a: u32, b: u32) -> Dfp {
        Dfp(op as u64 | (t as u64) << 8 | (a as u64) << 13 | (b as u64) << 18 | (quad as u64) << 23)
    }
    pub const fn rounding(self, r: bool, rmc: u32) -> Dfp {
        Dfp(self.0 | 1 << 27 | (r as u64) << 26 | (rmc as u64 & 3) << 24)
    }
    pub const fn immediate(self, v: u32) -> Dfp {
        Dfp(self.0 | (v as u64 & 0xff) << 28)
    }
}

fn is_nan(d: &Decimal) -> bool {
    matches!(d.kind, Kind::Quiet | Kind::Signalling)
}

fn subnormal(f: Format, d: &Decimal) -> bool {
    d.coefficient != 0 && d.exp + length(d.coefficient) as i32 - 1 < f.digits as i32 - 1 - f.bias()
}

/// FPRF of a result, in place.
fn class(f: Format, d: &Decimal) -> u64 {
    let (plus, minus): (u64, u64) = match d.kind {
        Kind::Quiet | Kind::Signalling => (0b10001, 0b10001),
        Kind::Inf => (0b00101, 0b01001),
        Kind::Finite if d.coefficient == 0 => (0b00010, 0b10010),
        Kind::Finite if subnormal(f, d) => (0b10100, 0b11000),
        Kind::Finite => (0b00100, 0b01000),
    };
    (if d.sign { minus } else { plus }) << fpscr::FPRF_SHIFT
}

impl PpcCpu {
    fn dfp_read(&self, reg: usize, quad: bool) -> u128 {
        let high = self.vsr[reg & 31] as u64;
        if quad { u128::from(high) << 64 | u128::from(self.vsr[(reg | 1) & 31] as u64) } else { high.into() }
    }
    fn dfp_write(&mut self, reg: usize, quad: bool, v: u128) {
        if quad {
            self.vsr[reg & 31] = v >> 64;
            self.vsr[(reg | 1) & 31] = u128::from(v as u64);
        } else {
            self.vsr[reg & 31] = u128::from(v as u64);
        }
    }
    fn dfp_field(&mut self, field: usize, cc: u32, flags: Flags) {
        self.set_cr_field(field, cc);
        let flags = self.compare_causes(flags);
        self.fp_done(flags, fpscr::FPCC, u64::from(cc) << fpscr::FPRF_SHIFT);
    }

    /// Does the operation, updates FPSCR, and raises what is enabled.
    pub(crate) fn dfp(&mut self, p: Dfp) {
        use DfpOp::*;
        let op = DfpOp::from_number(p.0).unwrap_or(Add);
        let reg = |at: u32| (p.0 >> at & 31) as usize;
        let (t, ra, rb, quad) = (reg(8), reg(13), reg(18), p.0 >> 23 & 1 != 0);
        let imm = (p.0 >> 28 & 0xff) as u32;
        let drn = DecimalRounding::from_drn((self.fpscr >> 32) as u32);
        let rounding = if p.0 >> 27 & 1 != 0 {
            DecimalRounding::from_rmc(p.0 >> 26 & 1 != 0, (p.0 >> 24) as u32).unwrap_or(drn)
        } else {
            drn
        };
        let f = if quad { D128 } else { D64 };
        let mut c = Context {
            trap_overflow: self.fpscr & fpscr::OE != 0,
            trap_underflow: self.fpscr & fpscr::UE != 0,
            ..Context::new(rounding)
        };
        let (xa, xb) = (self.dfp_read(ra, quad), self.dfp_read(rb, quad));
        let (a, b) = (decode(f, xa), decode(f, xb));
        let signalling = |c: &mut Context, v: &[Decimal]| decimal::nan(v, c);
        let invalid = |c: &mut Context| {
            c.flags |= Flags::INVALID | Flags::VXCVI;
            NAN
        };
        // Format of the result and where FPRF comes from.
        let mut to = f;
        let mut wide = quad;
        let r = match op {
            Add => decimal::add(f, a, b, false, &mut c),
            Sub => decimal::add(f, a, b, true, &mut c),
            Mul => decimal::mul(f, a, b, &mut c),
            Div => decimal::div(f, a, b, &mut c),
            CompareUnordered | CompareOrdered => {
                let cc = decimal::compare(a, b, op == CompareOrdered, &mut c);
                return self.dfp_field(t, cc, c.flags);
            }
            TestClass | TestGroup => {
                let extreme = |d: &Decimal| d.exp == -f.bias() || d.exp == f.top() - f.bias();
                let bit = match (a.kind, op) {
                    (Kind::Finite, TestClass) if a.coefficient == 0 => 5,
                    (Kind::Finite, TestClass) => {
                        if subnormal(f, &a) {
                            4
                        } else {
                            3
                        }
                    }
                    (Kind::Inf, TestClass) => 2,
                    (Kind::Quiet, TestClass) => 1,
                    (_, TestClass) => 0,
                    (Kind::Finite, _) if a.coefficient == 0 => {
                        if extreme(&a) {
                            4
                        } else {
                            5
                        }
                    }
                    (Kind::Finite, _) if subnormal(f, &a) || extreme(&a) => 3,
                    (Kind::Finite, _) => {
                        if length(a.coefficient) < f.digits {
                            2
                        } else {
                            1
                        }
                    }
                    _ => 0,
                };
                let cc = u32::from(a.sign) << 3 | (imm >> bit & 1) << 1;
                return self.dfp_field(t, cc, Flags::NONE);
            }
            TestExponent => {
                let cc = match (a.kind, b.kind) {
                    (Kind::Finite, Kind::Finite) if a.exp < b.exp => 8,
                    (Kind::Finite, Kind::Finite) if a.exp > b.exp => 4,
                    (Kind::Finite, Kind::Finite) | (Kind::Inf, Kind::Inf) => 2,
                    _ if is_nan(&a) && is_nan(&b) => 2,
                    _ => 1,
                };
                return self.dfp_field(t, cc, Flags::NONE);
            }
            TestSignificance | TestSignificanceImmediate => {
                let k = if op == TestSignificance { self.vsr[ra] as u32 & 63 } else { imm & 63 };
                let n = length(b.coefficient);
                let cc = if b.kind != Kind::Finite {
                    1
                } else if k == 0 || n == 0 || k > n {
                    4
                } else if k < n {
                    8
                } else {
                    2
                };
                return self.dfp_field(t, cc, Flags::NONE);
            }
            Quantize | QuantizeImmediate => {
                let reference = if op == Quantize { Some(a) } else { None };
                let both = [reference.unwrap_or(b), b];
                if let Some(n) = signalling(&mut c, &both) {
                    n
                } else {
                    let inf = (reference.is_some_and(|a| a.kind == Kind::Inf), b.kind == Kind::Inf);
                    match inf {
                        (true, true) => b,
                        (true, _) | (_, true) => invalid(&mut c),
                        _ => {
                            let exp = reference.map_or(i32::from((imm << 3) as u8 as i8 >> 3), |a| a.exp);
                            match decimal::quantize(f, b, exp, &mut c) {
                                Some(v) => v,
                                None => invalid(&mut c),
                            }
                        }
                    }
                }
            }
            Reround => match signalling(&mut c, &[b]) {
                Some(n) => n,
                None if b.kind == Kind::Inf => b,
                None => {
                    let v = decimal::reround(b, self.vsr[ra] as u32 & 63, &mut c);
                    if v.exp <= f.top() - f.bias() {
                        v
                    } else {
                        c.flags = Flags::NONE;
                        invalid(&mut c)
                    }
                }
            },
            RoundExact | Round => match signalling(&mut c, &[b]) {
                Some(n) => n,
                None if b.kind == Kind::Inf || b.exp >= 0 => b,
                None => {
                    let v = decimal::quantize(f, b, 0, &mut c).unwrap_or(NAN);
                    if op == Round {
                        c.flags = Flags(c.flags.0 & !Flags::INEXACT.0);
                    }
                    v
                }
            },
            Widen => {
                // dctdp takes the short format from the low word and signals nothing; dctqpq a long one.
                wide = quad;
                to = f;
                let v =
                    if quad { decode(D64, self.dfp_read(rb, false)) } else { decode(D32, self.vsr[rb] & 0xffff_ffff) };
                if quad { signalling(&mut c, &[v]).unwrap_or(v) } else { v }
            }
            Narrow => {
                to = if quad { D64 } else { D32 };
                let v = if quad { signalling(&mut c, &[b]).unwrap_or(b) } else { b };
                let unit = decimal::POWERS[to.digits as usize - 1];
                if is_nan(&v) {
                    // A payload that does not fit is lost.
                    Decimal { coefficient: if v.coefficient < unit { v.coefficient } else { 0 }, ..v }
                } else {
                    decimal::convert(to, v, &mut c)
                }
            }
            FromFixed => decimal::from_int(f, i128::from(self.vsr[rb] as i64), &mut c),
            FromFixedQuad => {
                to = D128;
                wide = true;
                let v = crate::vector::from_register(self.vsr[32 + rb]);
                decimal::from_int(D128, v as i128, &mut c)
            }
            ToFixed | ToFixedQuad => {
                let v = if op == ToFixed { b } else { decode(D128, self.dfp_read(rb, true)) };
                let n = decimal::to_int(v, if op == ToFixed { 64 } else { 128 }, &mut c);
                if self.fp_suppressed(c.flags) {
                    return self.fp_done(c.flags, fpscr::FR | fpscr::FI, 0);
                }
                if op == ToFixed {
                    self.vsr[t] = u128::from(n as u64);
                } else {
                    self.vsr[32 + t] = crate::vector::to_register(n as u128);
                }
                return self.fp_done(c.flags, fpscr::FR | fpscr::FI, inexact_bits(&c));
            }
            Decode => {
                let n = if quad { 32 } else { 16 };
                let signed = imm & 2 != 0;
                let count = if signed { n - 1 } else { n };
                let mut v = b.coefficient;
                let mut r = 0u128;
                for k in 0..count {
                    r |= (v % 10) << (4 * k);
                    v /= 10;
                }
                if signed {
                    let code = match (b.sign, imm & 1) {
                        (true, _) => 0xd,
                        (_, 0) => 0xc,
                        _ => 0xf,
                    };
                    r = r << 4 | code;
                }
                return self.dfp_write(t, quad, r);
            }
            Encode => {
                let signed = imm & 1 != 0;
                let sign = match (signed, xb & 15) {
                    (false, _) => Some(false),
                    (_, 0xb | 0xd) => Some(true),
                    (_, 0xa | 0xc | 0xe | 0xf) => Some(false),
                    _ => None,
                };
                let v = if signed { xb >> 4 } else { xb };
                let valid = (0..32).all(|k| v >> (4 * k) & 15 <= 9);
                match sign {
                    Some(sign) if valid => {
                        let n = (0..32).rev().fold(0u128, |n, k| n * 10 + (v >> (4 * k) & 15));
                        Decimal { sign, kind: Kind::Finite, coefficient: n, exp: 0 }
                    }
                    _ => invalid(&mut c),
                }
            }
            ExtractExponent => {
                let e: i64 = match b.kind {
                    Kind::Finite => (b.exp + f.bias()).into(),
                    Kind::Inf => -1,
                    Kind::Quiet => -2,
                    Kind::Signalling => -3,
                };
                self.vsr[t] = u128::from(e as u64);
                return;
            }
            InsertExponent => {
                let e = self.vsr[ra] as i64;
                let kind = match e {
                    -1 => Kind::Inf,
                    -3 => Kind::Signalling,
                    e if (0..=i64::from(f.top())).contains(&e) => Kind::Finite,
                    _ => Kind::Quiet,
                };
                let unit = decimal::POWERS[f.digits as usize - 1];
                // Of a special operand the trailing digits are taken, and for one.
                let coefficient = if kind == Kind::Finite { b.coefficient } else { b.coefficient % unit };
                let v = if kind == Kind::Finite {
                    encode(f, Decimal { kind, coefficient, exp: e as i32 - f.bias(), sign: b.sign })
                } else {
                    let nan = Decimal {
                        kind: if kind == Kind::Inf { Kind::Quiet } else { kind },
                        coefficient,
                        exp: 0,
                        sign: b.sign,
                    };
                    let v = encode(f, nan);
                    // An infinity keeps the trailing significand.
                    if kind == Kind::Inf { v & !(1u128 << if quad { 122 } else { 58 }) } else { v }
                };
                return self.dfp_write(t, quad, v);
            }
            ShiftLeft | ShiftRight => {
                let n = imm & 63;
                let digits = if a.kind == Kind::Finite { f.digits } else { f.digits - 1 };
                let limit = decimal::POWERS[digits as usize];
                let mut v = a.coefficient % limit;
                for _ in 0..n {
                    v = if op == ShiftLeft { v * 10 % limit } else { v / 10 };
                }
                let d = Decimal { coefficient: v, ..a };
                let mut r = encode(f, d);
                if a.kind == Kind::Inf {
                    let nan = Decimal { kind: Kind::Quiet, ..d };
                    r = encode(f, nan) & !(1u128 << if quad { 122 } else { 58 });
                }
                return self.dfp_write(t, quad, r);
            }
        };
        if self.fp_suppressed(c.flags) {
            return self.fp_done(c.flags, fpscr::FR | fpscr::FI, 0);
        }
        let status = inexact_bits(&c) | class(to, &r);
        let bits = encode(to, r);
        if op == Narrow && quad {
            // The second register of the pair becomes zero.
            self.dfp_write(t, true, bits << 64);
        } else {
            self.dfp_write(t, wide, bits);
        }
        self.fp_done(c.flags, fpscr::FR | fpscr::FI | fpscr::FPRF, status);
    }
}

fn inexact_bits(c: &Context) -> u64 {
    if !c.flags.contains(Flags::INEXACT) {
        return 0;
    }
    fpscr::FI | if c.incremented { fpscr::FR } else { 0 }
}
