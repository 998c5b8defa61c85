//! Numbers of 128 significant bits for intermediate results, truncated.

use super::F80;

/// `m × 2^(exp − 127)`, bit 127 of `m` set; or zero, `m` 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wide {
    pub sign: bool,
    pub exp: i32,
    pub m: u128,
}

impl Wide {
    pub const ZERO: Wide = Wide { sign: false, exp: 0, m: 0 };
    pub const ONE: Wide = Wide::constant(0, 1 << 127);

    pub const fn constant(exp: i32, m: u128) -> Wide {
        Wide { sign: false, exp, m }
    }
    /// Of `m × 2^(exp − 127)`, `m`'s leading one anywhere.
    pub fn normalize(sign: bool, exp: i32, m: u128) -> Wide {
        if m == 0 {
            return Wide::ZERO;
        }
        let lz = m.leading_zeros();
        Wide { sign, exp: exp - lz as i32, m: m << lz }
    }
    /// Of a finite number.
    pub fn of(a: F80) -> Wide {
        let (exp, s) = a.normalized();
        if s == 0 { Wide::ZERO } else { Wide { sign: a.sign(), exp, m: u128::from(s) << 64 } }
    }
    pub fn is_zero(self) -> bool {
        self.m == 0
    }
    pub fn neg(self) -> Wide {
        Wide { sign: !self.sign, ..self }
    }
    pub fn negated_if(self, c: bool) -> Wide {
        if c { self.neg() } else { self }
    }
    pub fn abs(self) -> Wide {
        Wide { sign: false, ..self }
    }
    /// The next smaller magnitude: for a result that is less by an unknown little.
    pub fn below(self) -> Wide {
        Wide::normalize(self.sign, self.exp, self.m.saturating_sub(1))
    }
    /// × 2^n.
    pub fn scaled(self, n: i32) -> Wide {
        Wide { exp: self.exp + n, ..self }
    }
    pub fn mul(self, o: Wide) -> Wide {
        if self.is_zero() || o.is_zero() {
            return Wide::ZERO;
        }
        let (a1, a0) = (self.m >> 64, self.m & u128::from(u64::MAX));
        let (b1, b0) = (o.m >> 64, o.m & u128::from(u64::MAX));
        let (low, x, y) = (a0 * b0, a1 * b0, a0 * b1);
        let mid = (low >> 64) + (x & u128::from(u64::MAX)) + (y & u128::from(u64::MAX));
        let high = a1 * b1 + (x >> 64) + (y >> 64) + (mid >> 64);
        let rest = mid << 64 | low & u128::from(u64::MAX);
        let sign = self.sign != o.sign;
        if high >> 127 != 0 {
            Wide { sign, exp: self.exp + o.exp + 1, m: high }
        } else {
            Wide { sign, exp: self.exp + o.exp, m: high << 1 | rest >> 127 }
        }
    }
    pub fn add(self, o: Wide) -> Wide {
        if self.is_zero() {
            return o;
        }
        if o.is_zero() {
            return self;
        }
        let (a, b) = if (self.exp, self.m) >= (o.exp, o.m) { (self, o) } else { (o, self) };
        let d = (a.exp - b.exp) as u32;
        let y = if d < 128 { b.m >> d } else { 0 };
        if a.sign == b.sign {
            let (sum, carry) = a.m.overflowing_add(y);
            if carry {
                return Wide { sign: a.sign, exp: a.exp + 1, m: 1 << 127 | sum >> 1 };
            }
            return Wide { sign: a.sign, exp: a.exp, m: sum };
        }
        // The bit shifted out last keeps near-cancellations exact.
        if d == 1 {
            let (x2, y2) = (a.m, b.m);
            // 2a − b in units of half the last place.
            let high = (x2 >> 127) as u8;
            let (diff, borrow) = (x2 << 1).overflowing_sub(y2);
            if high == u8::from(borrow) {
                return Wide::normalize(a.sign, a.exp - 1, diff);
            }
        }
        Wide::normalize(a.sign, a.exp, a.m - y)
    }
    pub fn sub(self, o: Wide) -> Wide {
        self.add(o.neg())
    }
    /// `self / n`.
    pub fn div_small(self, n: u64) -> Wide {
        let d = u128::from(n.max(1));
        let (q, r) = (self.m / d, self.m % d);
        let extra = (r << 64) / d;
        if q == 0 {
            return Wide::ZERO;
        }
        let lz = q.leading_zeros();
        let low = if lz == 0 {
            0
        } else if lz <= 64 {
            extra >> (64 - lz)
        } else {
            extra << (lz - 64)
        };
        Wide { sign: self.sign, exp: self.exp - lz as i32, m: q << lz | low }
    }
    /// `self / o`; `o` not zero.
    pub fn div(self, o: Wide) -> Wide {
        if self.is_zero() || o.is_zero() {
            return Wide::ZERO;
        }
        let mut exp = self.exp - o.exp;
        let mut r = self.m;
        let mut q = 0u128;
        // The remainder has a bit above the 128 after it is doubled.
        let mut over = false;
        if r < o.m {
            over = r >> 127 != 0;
            r <<= 1;
            exp -= 1;
        }
        for n in 0..128 {
            q <<= 1;
            if over || r >= o.m {
                r = r.wrapping_sub(o.m);
                q |= 1;
            }
            if n != 127 {
                over = r >> 127 != 0;
                r <<= 1;
            }
        }
        Wide { sign: self.sign != o.sign, exp, m: q }
    }
    /// A small integer.
    pub fn integer(v: i32) -> Wide {
        Wide::normalize(v < 0, 127, u128::from(v.unsigned_abs()))
    }
}
