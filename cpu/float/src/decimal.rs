//! IEEE 754-2008 decimal formats with densely packed digits, and their arithmetic (Power ISA, decimal floating point).

use crate::env::Flags;

/// A format: digits of precision, bits of the exponent's continuation, bias, greatest exponent field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    pub digits: u32,
    continuation: u32,
    bias: i32,
    width: u32,
}

pub const D32: Format = Format { digits: 7, continuation: 6, bias: 101, width: 32 };
pub const D64: Format = Format { digits: 16, continuation: 8, bias: 398, width: 64 };
pub const D128: Format = Format { digits: 34, continuation: 12, bias: 6176, width: 128 };

impl Format {
    pub const fn bias(self) -> i32 {
        self.bias
    }
    /// The greatest biased exponent.
    pub const fn top(self) -> i32 {
        (3 << self.continuation) - 1
    }
    const fn trailing(self) -> u32 {
        self.width - 6 - self.continuation
    }
    const fn min_exp(self) -> i32 {
        -self.bias
    }
    const fn max_exp(self) -> i32 {
        self.top() - self.bias
    }
    /// What the exponent of a result is changed by while its overflow or underflow exception is enabled.
    const fn adjustment(self) -> i32 {
        match self.width {
            32 => 192,
            64 => 576,
            _ => 9216,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Zero included.
    Finite,
    Inf,
    Quiet,
    Signalling,
}

/// `±coefficient × 10^exp`; of a NaN the coefficient is its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decimal {
    pub sign: bool,
    pub kind: Kind,
    pub coefficient: u128,
    pub exp: i32,
}

/// Rounding modes, numbered as FPSCR.DRN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DecimalRounding {
    NearestEven = 0,
    TowardZero = 1,
    TowardPositive = 2,
    TowardNegative = 3,
    NearestAway = 4,
    NearestTowardZero = 5,
    AwayFromZero = 6,
    /// For a later rounding to fewer digits.
    PrepareShorter = 7,
}

impl DecimalRounding {
    pub const fn from_drn(n: u32) -> DecimalRounding {
        use DecimalRounding::*;
        match n & 7 {
            0 => NearestEven,
            1 => TowardZero,
            2 => TowardPositive,
            3 => TowardNegative,
            4 => NearestAway,
            5 => NearestTowardZero,
            6 => AwayFromZero,
            _ => PrepareShorter,
        }
    }
    /// From an instruction's R and RMC; `None`: that of FPSCR.
    pub const fn from_rmc(r: bool, rmc: u32) -> Option<DecimalRounding> {
        use DecimalRounding::*;
        Some(match (r, rmc & 3) {
            (false, 0) => NearestEven,
            (false, 1) => TowardZero,
            (false, 2) => NearestAway,
            (false, _) => return None,
            (true, 0) => TowardPositive,
            (true, 1) => TowardNegative,
            (true, 2) => AwayFromZero,
            (true, _) => NearestTowardZero,
        })
    }

    /// Whether a magnitude whose last kept digit is `last` is incremented; `rest`: 0 nothing, 1 below half, 2 half, 3 above.
    fn up(self, sign: bool, last: u32, rest: u32) -> bool {
        use DecimalRounding::*;
        match self {
            NearestEven => rest == 3 || rest == 2 && last & 1 != 0,
            NearestAway => rest >= 2,
            NearestTowardZero => rest == 3,
            TowardZero => false,
            TowardPositive => rest != 0 && !sign,
            TowardNegative => rest != 0 && sign,
            AwayFromZero => rest != 0,
            PrepareShorter => rest != 0 && last.is_multiple_of(5),
        }
    }
}

/// Rounding and the flags raised; whether the last rounding incremented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    pub rounding: DecimalRounding,
    pub flags: Flags,
    pub incremented: bool,
    /// Overflow and underflow exceptions are enabled: results that raise them are scaled.
    pub trap_overflow: bool,
    pub trap_underflow: bool,
}

impl Context {
    pub const fn new(rounding: DecimalRounding) -> Context {
        Context { rounding, flags: Flags::NONE, incremented: false, trap_overflow: false, trap_underflow: false }
    }
    fn invalid(&mut self, cause: Flags) -> Decimal {
        self.flags |= Flags::INVALID | cause;
        NAN
    }
}

pub const NAN: Decimal = Decimal { sign: false, kind: Kind::Quiet, coefficient: 0, exp: 0 };

// ---- densely packed digits ----

/// Three digits as ten bits.
pub const fn pack_declet(n: u32) -> u32 {
    let (x, y, z) = (n / 100 % 10, n / 10 % 10, n % 10);
    let (a, e, i) = (x >> 3, y >> 3, z >> 3);
    let (bcd, fgh, jkm) = (x & 7, y & 7, z & 7);
    let (d, h, m) = (x & 1, y & 1, z & 1);
    match (a, e, i) {
        (0, 0, 0) => bcd << 7 | fgh << 4 | jkm,
        (0, 0, _) => bcd << 7 | fgh << 4 | 0b1000 | m,
        (0, _, 0) => bcd << 7 | (jkm >> 1) << 5 | h << 4 | 0b1010 | m,
        (_, 0, 0) => (jkm >> 1) << 8 | d << 7 | fgh << 4 | 0b1100 | m,
        (_, _, 0) => (jkm >> 1) << 8 | d << 7 | h << 4 | 0b1110 | m,
        (_, 0, _) => (fgh >> 1) << 8 | d << 7 | 1 << 5 | h << 4 | 0b1110 | m,
        (0, _, _) => bcd << 7 | 2 << 5 | h << 4 | 0b1110 | m,
        _ => d << 7 | 3 << 5 | h << 4 | 0b1110 | m,
    }
}

/// Ten bits as three digits; all patterns have a value.
pub const fn unpack_declet(v: u32) -> u32 {
    let (p, q, r) = (v >> 9 & 1, v >> 8 & 1, v >> 7 & 1);
    let (s, t, u) = (v >> 6 & 1, v >> 5 & 1, v >> 4 & 1);
    let (w, x, y) = (v >> 2 & 1, v >> 1 & 1, v & 1);
    let top = v >> 7 & 7;
    let mid = v >> 4 & 7;
    let low = v & 7;
    let (a, b, c) = if v >> 3 & 1 == 0 {
        (top, mid, low)
    } else {
        match (w, x) {
            (0, 0) => (top, mid, 8 | y),
            (0, _) => (top, 8 | u, s << 2 | t << 1 | y),
            (_, 0) => (8 | r, mid, p << 2 | q << 1 | y),
            _ => match (s, t) {
                (0, 0) => (8 | r, 8 | u, p << 2 | q << 1 | y),
                (0, _) => (8 | r, p << 2 | q << 1 | u, 8 | y),
                (_, 0) => (top, 8 | u, 8 | y),
                _ => (8 | r, 8 | u, 8 | y),
            },
        }
    };
    a * 100 + b * 10 + c
}

/// A number of declets as an integer.
fn unpack(bits: u128, declets: u32) -> u128 {
    (0..declets).rev().fold(0, |n, k| n * 1000 + u128::from(unpack_declet((bits >> (10 * k)) as u32 & 0x3ff)))
}
fn pack(mut n: u128, declets: u32) -> u128 {
    let mut r = 0;
    for k in 0..declets {
        r |= u128::from(pack_declet((n % 1000) as u32)) << (10 * k);
        n /= 1000;
    }
    r
}

pub fn decode(f: Format, bits: u128) -> Decimal {
    let t = f.trailing();
    let sign = bits >> (f.width - 1) & 1 != 0;
    let g = (bits >> (f.width - 6)) as u32 & 31;
    let low = (bits >> t) as u32 & ((1 << f.continuation) - 1);
    let tail = unpack(bits & ((1 << t) - 1), t / 10);
    if g >> 1 == 15 {
        let kind = match (g & 1, low >> (f.continuation - 1)) {
            (0, _) => Kind::Inf,
            (_, 0) => Kind::Quiet,
            _ => Kind::Signalling,
        };
        return Decimal { sign, kind, coefficient: tail, exp: 0 };
    }
    let (high, digit) = if g >> 3 == 3 { (g >> 1 & 3, 8 | g & 1) } else { (g >> 3, g & 7) };
    let exp = (high << f.continuation | low) as i32 - f.bias;
    Decimal { sign, kind: Kind::Finite, coefficient: u128::from(digit) * POWERS[f.digits as usize - 1] + tail, exp }
}

/// The canonical encoding; the value must fit.
pub fn encode(f: Format, d: Decimal) -> u128 {
    let t = f.trailing();
    let sign = u128::from(d.sign) << (f.width - 1);
    let at = f.width - 6;
    match d.kind {
        Kind::Inf => sign | 30 << at,
        Kind::Quiet | Kind::Signalling => {
            let signalling = if d.kind == Kind::Signalling { 1 << (at - 1) } else { 0 };
            sign | 31 << at | signalling | pack(d.coefficient % POWERS[f.digits as usize - 1], t / 10)
        }
        Kind::Finite => {
            let e = (d.exp + f.bias).clamp(0, f.top()) as u32;
            let unit = POWERS[f.digits as usize - 1];
            let digit = (d.coefficient / unit) as u32 % 10;
            let (high, low) = (e >> f.continuation, e & ((1 << f.continuation) - 1));
            let g = if digit >= 8 { 24 | high << 1 | digit & 1 } else { high << 3 | digit };
            sign | u128::from(g) << at | u128::from(low) << t | pack(d.coefficient % unit, t / 10)
        }
    }
}

/// Powers of ten below 2^128.
pub const POWERS: [u128; 39] = {
    let mut p = [1u128; 39];
    let mut k = 1;
    while k < 39 {
        p[k] = p[k - 1] * 10;
        k += 1;
    }
    p
};

/// Decimal digits of a number; 0 has none.
pub fn length(n: u128) -> u32 {
    POWERS.partition_point(|&p| p <= n) as u32
}

// ---- rounding ----

/// A magnitude as decimal digits, the lowest first, with a sticky remainder.
type Digits = Vec<u8>;

fn digits_of(mut n: u128) -> Digits {
    let mut v = Vec::new();
    while n != 0 {
        v.push((n % 10) as u8);
        n /= 10;
    }
    v
}

fn trim(d: &mut Digits) {
    while d.last() == Some(&0) {
        d.pop();
    }
}

fn value(d: &[u8]) -> u128 {
    d.iter().rev().fold(0u128, |n, &x| n.wrapping_mul(10).wrapping_add(u128::from(x)))
}

/// Drops the lowest `n` digits with rounding: (kept, inexact, incremented).
fn drop_digits(d: &[u8], n: usize, sticky: bool, sign: bool, r: DecimalRounding) -> (u128, bool, bool) {
    let at = n.min(d.len());
    let (rest, kept) = d.split_at(at);
    let lower = |v: &[u8]| v.iter().any(|&x| x != 0);
    // The digit below the last kept one is zero if more is dropped than there is.
    let next = if n > d.len() || n == 0 { 0 } else { rest.last().copied().unwrap_or(0) };
    let below = sticky || if n > d.len() { lower(rest) } else { lower(&rest[..rest.len().saturating_sub(1)]) };
    let relation = match (next, below) {
        (0, false) => 0,
        (5, false) => 2,
        (5.., _) => 3,
        _ => 1,
    };
    let last = kept.first().copied().unwrap_or(0).into();
    let up = r.up(sign, last, relation);
    (value(kept) + u128::from(up), relation != 0, up)
}

/// Rounds an exact result (or one with a sticky remainder) to the format, as near to the ideal exponent as can be.
fn finish(f: Format, sign: bool, mut d: Digits, mut exp: i32, sticky: bool, ideal: i32, c: &mut Context) -> Decimal {
    trim(&mut d);
    if d.is_empty() && !sticky {
        let exp = ideal.clamp(f.min_exp(), f.max_exp());
        return Decimal { sign, kind: Kind::Finite, coefficient: 0, exp };
    }
    let p = f.digits as usize;
    // Where an exact result may move towards its ideal exponent.
    if !sticky {
        while exp < ideal && d.first() == Some(&0) {
            d.remove(0);
            exp += 1;
        }
        while exp > ideal && d.len() < p {
            d.insert(0, 0);
            exp -= 1;
        }
    }
    let tiny = exp + (d.len() as i32) - 1 < f.min_exp() + p as i32 - 1;
    let over = d.len().saturating_sub(p) as i32;
    // Scaled, a small result keeps all its digits.
    let scaled = tiny && c.trap_underflow;
    let drop = if scaled { over } else { over.max(f.min_exp().saturating_sub(exp)).max(0) };
    let (mut v, inexact, up) = drop_digits(&d, drop as usize, sticky, sign, c.rounding);
    exp = exp.saturating_add(drop);
    if v == POWERS[p] {
        v /= 10;
        exp += 1;
    }
    c.incremented = up;
    if inexact {
        c.flags |= Flags::INEXACT;
        if tiny {
            c.flags |= Flags::UNDERFLOW;
        }
    }
    if scaled {
        c.flags |= Flags::UNDERFLOW;
        let exp = exp.saturating_add(f.adjustment()).clamp(f.min_exp(), f.max_exp());
        return Decimal { sign, kind: Kind::Finite, coefficient: v, exp };
    }
    if exp > f.max_exp() && v != 0 {
        let room = p as i32 - length(v) as i32;
        let by = exp - f.max_exp();
        if by > room && c.trap_overflow {
            c.flags |= Flags::OVERFLOW;
            let exp = (exp - f.adjustment()).clamp(f.min_exp(), f.max_exp());
            return Decimal { sign, kind: Kind::Finite, coefficient: v, exp };
        }
        if by > room {
            c.flags |= Flags::OVERFLOW | Flags::INEXACT;
            use DecimalRounding::*;
            let inf = match c.rounding {
                NearestEven | NearestAway | NearestTowardZero | AwayFromZero => true,
                TowardPositive => !sign,
                TowardNegative => sign,
                TowardZero | PrepareShorter => false,
            };
            return if inf {
                Decimal { sign, kind: Kind::Inf, coefficient: 0, exp: 0 }
            } else {
                Decimal { sign, kind: Kind::Finite, coefficient: POWERS[p] - 1, exp: f.max_exp() }
            };
        }
        v *= POWERS[by as usize];
        exp = f.max_exp();
    }
    Decimal { sign, kind: Kind::Finite, coefficient: v, exp: exp.min(f.max_exp()) }
}

fn is_nan(d: &Decimal) -> bool {
    matches!(d.kind, Kind::Quiet | Kind::Signalling)
}

/// The first signalling operand, else the first quiet NaN, quiet.
pub fn nan(ops: &[Decimal], c: &mut Context) -> Option<Decimal> {
    let signalling = ops.iter().find(|d| d.kind == Kind::Signalling);
    if signalling.is_some() {
        c.flags |= Flags::INVALID | Flags::VXSNAN;
    }
    signalling.or_else(|| ops.iter().find(|d| is_nan(d))).map(|d| Decimal { kind: Kind::Quiet, ..*d })
}

pub fn add(f: Format, a: Decimal, b: Decimal, subtract: bool, c: &mut Context) -> Decimal {
    if let Some(n) = nan(&[a, b], c) {
        return n;
    }
    let b = Decimal { sign: b.sign != subtract, ..b };
    match (a.kind, b.kind) {
        (Kind::Inf, Kind::Inf) if a.sign != b.sign => return c.invalid(Flags::VXISI),
        (Kind::Inf, _) => return a,
        (_, Kind::Inf) => return b,
        _ => {}
    }
    let ideal = a.exp.min(b.exp);
    let (big, small) = if a.exp >= b.exp { (a, b) } else { (b, a) };
    // Beyond this distance the lesser exponent's number is a remainder only.
    let reach = 2 * f.digits as i32 + 4;
    let mut distance = big.exp - small.exp;
    let (mut x, mut y) = (digits_of(big.coefficient), digits_of(small.coefficient));
    let mut exp = small.exp;
    if x.is_empty() {
        return zero_or(f, big, small, y, exp, ideal, c);
    }
    if distance > reach {
        // Move the small number up, keeping one digit of it in the far distance.
        let away = distance - reach;
        y = if y.is_empty() { y } else { vec![1] };
        exp += away;
        distance = reach;
    }
    let mut wide = vec![0; distance as usize];
    wide.append(&mut x);
    let (sum, sign) = if big.sign == small.sign {
        (sum(&wide, &y), big.sign)
    } else {
        match order(&wide, &y) {
            core::cmp::Ordering::Equal => {
                let negative = c.rounding == DecimalRounding::TowardNegative;
                return finish(f, negative, vec![], exp, false, ideal, c);
            }
            core::cmp::Ordering::Greater => (difference(&wide, &y), big.sign),
            core::cmp::Ordering::Less => (difference(&y, &wide), small.sign),
        }
    };
    finish(f, sign, sum, exp, false, ideal, c)
}

/// A sum one of whose operands is zero.
fn zero_or(f: Format, zero: Decimal, d: Decimal, y: Digits, exp: i32, ideal: i32, c: &mut Context) -> Decimal {
    let sign = if y.is_empty() && zero.sign != d.sign { c.rounding == DecimalRounding::TowardNegative } else { d.sign };
    finish(f, sign, y, exp, false, ideal, c)
}

fn sum(a: &[u8], b: &[u8]) -> Digits {
    let mut carry = 0;
    let mut r: Digits = (0..a.len().max(b.len()))
        .map(|k| {
            let s = a.get(k).copied().unwrap_or(0) + b.get(k).copied().unwrap_or(0) + carry;
            carry = s / 10;
            s % 10
        })
        .collect();
    r.push(carry);
    r
}

/// `a − b`, `a` not less.
fn difference(a: &[u8], b: &[u8]) -> Digits {
    let mut borrow = 0;
    a.iter()
        .enumerate()
        .map(|(k, &x)| {
            let y = b.get(k).copied().unwrap_or(0) + borrow;
            borrow = u8::from(x < y);
            x + 10 * borrow - y
        })
        .collect()
}

fn order(a: &[u8], b: &[u8]) -> core::cmp::Ordering {
    let top = |v: &[u8]| v.iter().rposition(|&x| x != 0).map_or(0, |n| n + 1);
    let (m, n) = (top(a), top(b));
    m.cmp(&n).then_with(|| a[..m].iter().rev().cmp(b[..n].iter().rev()))
}

pub fn mul(f: Format, a: Decimal, b: Decimal, c: &mut Context) -> Decimal {
    if let Some(n) = nan(&[a, b], c) {
        return n;
    }
    let sign = a.sign != b.sign;
    let zero = |d: Decimal| d.kind == Kind::Finite && d.coefficient == 0;
    if a.kind == Kind::Inf || b.kind == Kind::Inf {
        if zero(a) || zero(b) {
            return c.invalid(Flags::VXIMZ);
        }
        return Decimal { sign, kind: Kind::Inf, coefficient: 0, exp: 0 };
    }
    let (x, y) = (digits_of(a.coefficient), digits_of(b.coefficient));
    let mut wide = vec![0u32; x.len() + y.len() + 1];
    for (i, &p) in x.iter().enumerate() {
        for (j, &q) in y.iter().enumerate() {
            wide[i + j] += u32::from(p) * u32::from(q);
        }
    }
    let mut carry = 0;
    let d = wide
        .iter()
        .map(|&v| {
            let s = v + carry;
            carry = s / 10;
            (s % 10) as u8
        })
        .collect();
    let exp = a.exp + b.exp;
    finish(f, sign, d, exp, false, exp, c)
}

pub fn div(f: Format, a: Decimal, b: Decimal, c: &mut Context) -> Decimal {
    if let Some(n) = nan(&[a, b], c) {
        return n;
    }
    let sign = a.sign != b.sign;
    match (a.kind, b.kind) {
        (Kind::Inf, Kind::Inf) => return c.invalid(Flags::VXIDI),
        (Kind::Inf, _) => return Decimal { sign, ..a },
        (_, Kind::Inf) => return Decimal { sign, kind: Kind::Finite, coefficient: 0, exp: f.min_exp() },
        _ => {}
    }
    let ideal = a.exp - b.exp;
    if b.coefficient == 0 {
        if a.coefficient == 0 {
            return c.invalid(Flags::VXZDZ);
        }
        c.flags |= Flags::DIV_BY_ZERO;
        return Decimal { sign, kind: Kind::Inf, coefficient: 0, exp: 0 };
    }
    if a.coefficient == 0 {
        return finish(f, sign, vec![], ideal, false, ideal, c);
    }
    // Digit by digit: the divisor is below 10^34, so ten times a remainder fits.
    let mut rest = 0u128;
    let mut q: Vec<u8> = Vec::new();
    let step = |rest: &mut u128, digit: u128| {
        *rest = *rest * 10 + digit;
        let n = *rest / b.coefficient;
        *rest %= b.coefficient;
        n as u8
    };
    for digit in digits_of(a.coefficient).into_iter().rev() {
        q.push(step(&mut rest, digit.into()));
    }
    let mut exp = ideal;
    let lead = q.iter().take_while(|&&x| x == 0).count();
    while rest != 0 && q.len() - lead.min(q.len()) < f.digits as usize + 36 {
        q.push(step(&mut rest, 0));
        exp -= 1;
    }
    q.reverse();
    finish(f, sign, q, exp, rest != 0, ideal, c)
}

/// Less, equal, greater, unordered as 8, 2, 4, 1.
pub fn compare(a: Decimal, b: Decimal, ordered: bool, c: &mut Context) -> u32 {
    if is_nan(&a) || is_nan(&b) {
        if a.kind == Kind::Signalling || b.kind == Kind::Signalling {
            c.flags |= Flags::INVALID | Flags::VXSNAN;
        }
        if ordered {
            c.flags |= Flags::INVALID | Flags::VXVC;
        }
        return 1;
    }
    let zero = |d: Decimal| d.kind == Kind::Finite && d.coefficient == 0;
    let magnitude = || {
        use core::cmp::Ordering::*;
        match (a.kind, b.kind) {
            (Kind::Inf, Kind::Inf) => return Equal,
            (Kind::Inf, _) => return Greater,
            (_, Kind::Inf) => return Less,
            _ => {}
        }
        let top = |d: Decimal| d.exp + length(d.coefficient) as i32;
        match (zero(a), zero(b)) {
            (true, true) => Equal,
            (true, _) => Less,
            (_, true) => Greater,
            _ => top(a).cmp(&top(b)).then_with(|| {
                let shift = |d: Decimal, by: i32| {
                    let mut v = vec![0; by.clamp(0, 80) as usize];
                    v.append(&mut digits_of(d.coefficient));
                    v
                };
                order(&shift(a, a.exp - b.exp), &shift(b, b.exp - a.exp))
            }),
        }
    };
    let o = match (a.sign && !zero(a), b.sign && !zero(b)) {
        (true, false) => core::cmp::Ordering::Less,
        (false, true) => core::cmp::Ordering::Greater,
        (true, true) => magnitude().reverse(),
        _ => magnitude(),
    };
    match o {
        core::cmp::Ordering::Less => 8,
        core::cmp::Ordering::Equal => 2,
        core::cmp::Ordering::Greater => 4,
    }
}

/// To another format, at the same exponent if that can be. Narrowing NaNs loses the high digits of the payload.
pub fn convert(to: Format, d: Decimal, c: &mut Context) -> Decimal {
    if d.kind != Kind::Finite {
        return d;
    }
    finish(to, d.sign, digits_of(d.coefficient), d.exp, false, d.exp, c)
}

/// The value with the exponent given; `None`: it needs more digits than there are.
pub fn quantize(f: Format, d: Decimal, exp: i32, c: &mut Context) -> Option<Decimal> {
    let v = digits_of(d.coefficient);
    if exp <= d.exp {
        let by = (d.exp - exp) as usize;
        if d.coefficient != 0 && v.len() + by > f.digits as usize {
            return None;
        }
        let coefficient = if d.coefficient == 0 { 0 } else { d.coefficient * POWERS[by.min(38)] };
        return Some(Decimal { coefficient, exp, ..d });
    }
    let (n, inexact, up) = drop_digits(&v, (exp - d.exp) as usize, false, d.sign, c.rounding);
    if n >= POWERS[f.digits as usize] {
        return None;
    }
    c.incremented = up;
    if inexact {
        c.flags |= Flags::INEXACT;
    }
    Some(Decimal { coefficient: n, exp, ..d })
}

/// Rounded to so many significant digits; zero: all are kept. The exponent may pass the format's.
pub fn reround(d: Decimal, digits: u32, c: &mut Context) -> Decimal {
    let n = length(d.coefficient);
    if digits == 0 || n <= digits {
        return d;
    }
    let v = digits_of(d.coefficient);
    let drop = n - digits;
    let (mut k, inexact, up) = drop_digits(&v, drop as usize, false, d.sign, c.rounding);
    let mut exp = d.exp + drop as i32;
    if k == POWERS[digits as usize] {
        k /= 10;
        exp += 1;
    }
    c.incremented = up;
    if inexact {
        c.flags |= Flags::INEXACT;
    }
    Decimal { coefficient: k, exp, ..d }
}

/// From an integer.
pub fn from_int(f: Format, v: i128, c: &mut Context) -> Decimal {
    finish(f, v < 0, digits_of(v.unsigned_abs()), 0, false, 0, c)
}

/// To a signed integer of 64 or 128 bits, saturating.
pub fn to_int(d: Decimal, bits: u32, c: &mut Context) -> i128 {
    let (min, max) = if bits == 64 { (i64::MIN.into(), i64::MAX.into()) } else { (i128::MIN, i128::MAX) };
    let limit = |s: bool| if s { min } else { max };
    match d.kind {
        Kind::Finite => {}
        Kind::Inf => {
            c.flags |= Flags::INVALID | Flags::VXCVI;
            return limit(d.sign);
        }
        _ => {
            c.flags |= Flags::INVALID | Flags::VXCVI;
            if d.kind == Kind::Signalling {
                c.flags |= Flags::VXSNAN;
            }
            return min;
        }
    }
    let (n, inexact, up) = if d.exp >= 0 {
        if d.coefficient != 0 && length(d.coefficient) as i32 + d.exp > 38 {
            c.flags |= Flags::INVALID | Flags::VXCVI;
            return limit(d.sign);
        }
        (d.coefficient * if d.coefficient == 0 { 0 } else { POWERS[d.exp as usize] }, false, false)
    } else {
        drop_digits(&digits_of(d.coefficient), d.exp.unsigned_abs() as usize, false, d.sign, c.rounding)
    };
    let bound = if d.sign { min.unsigned_abs() } else { max.unsigned_abs() };
    if n > bound {
        c.flags |= Flags::INVALID | Flags::VXCVI;
        return limit(d.sign);
    }
    c.incremented = up;
    if inexact {
        c.flags |= Flags::INEXACT;
    }
    if d.sign { (n as i128).wrapping_neg() } else { n as i128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declets_and_formats() {
        for n in 0..1000 {
            assert_eq!(unpack_declet(pack_declet(n)), n);
        }
        for f in [D32, D64, D128] {
            for (c, e) in [(0, 0), (1, 3), (POWERS[f.digits as usize] - 1, f.max_exp()), (12345, f.min_exp())] {
                let d = Decimal { sign: true, kind: Kind::Finite, coefficient: c, exp: e };
                assert_eq!(decode(f, encode(f, d)), d);
            }
        }
        // 1 as decimal64.
        let one = Decimal { sign: false, kind: Kind::Finite, coefficient: 1, exp: 0 };
        assert_eq!(encode(D64, one), 0x2238_0000_0000_0001);
    }

    #[test]
    fn arithmetic() {
        let d = |c: u128, exp| Decimal { sign: false, kind: Kind::Finite, coefficient: c, exp };
        let mut c = Context::new(DecimalRounding::NearestEven);
        assert_eq!(add(D64, d(130, -2), d(107, 0), false, &mut c), d(10830, -2));
        assert_eq!(mul(D64, d(12, -1), d(12, 1), &mut c), d(144, 0));
        assert_eq!(div(D64, d(1, 0), d(8, 0), &mut c), d(125, -3));
        assert!(c.flags.is_empty());
        assert_eq!(div(D64, d(1, 0), d(3, 0), &mut c), d(3_333_333_333_333_333, -16));
        assert_eq!(c.flags, Flags::INEXACT);
        assert_eq!(quantize(D64, d(15, -1), 0, &mut c), Some(d(2, 0)));
    }

    #[test]
    fn enabled_exceptions_scale_results() {
        let d = |c: u128, exp| Decimal { sign: false, kind: Kind::Finite, coefficient: c, exp };
        let new =
            || Context { trap_overflow: true, trap_underflow: true, ..Context::new(DecimalRounding::NearestEven) };
        let nines = POWERS[16] - 1;
        let mut c = new();
        assert_eq!(mul(D64, d(nines, 300), d(100, 200), &mut c), d(nines, 502 - 576));
        assert_eq!(c.flags, Flags::OVERFLOW);
        // An exact result counts as underflow too, and keeps its digits.
        let mut c = new();
        assert_eq!(mul(D64, d(12_345, -300), d(1, -200), &mut c), d(12_345, 576 - 500));
        assert_eq!(c.flags, Flags::UNDERFLOW);
        let mut c = new();
        assert_eq!(mul(D64, d(nines, -300), d(nines, -200), &mut c), d(nines - 1, 576 - 484));
        assert_eq!(c.flags, Flags::UNDERFLOW | Flags::INEXACT);
        let mut c = new();
        assert_eq!(add(D128, d(1, 6111), d(1, 6111), false, &mut c), d(2, 6111));
        assert!(c.flags.is_empty());
    }
}
