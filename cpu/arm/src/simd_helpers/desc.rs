//! The descriptor constant that lane helpers take as their first argument.

use rhea_ir::Lane;

/// What a lane helper does: operation, lane shape, number of active lanes and a small operand.
///
/// Bits 0–7 operation, 8–9 lane, 10–14 active lanes (1–16), 15–17 rounding (7: current), 18 inexact is signalled,
/// 19–25 immediate (0–64: fraction bits or a shift).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Desc(pub u32);

impl Desc {
    /// `bytes` is how many low bytes of the vectors are active.
    pub const fn new(op: u32, lane: Lane, bytes: u32) -> Desc {
        Desc(op & 255 | (lane as u32) << 8 | (bytes / lane.bytes()) << 10 | 7 << 15)
    }
    pub const fn rounding(self, mode: u32) -> Desc {
        Desc(self.0 & !(7 << 15) | (mode & 7) << 15)
    }
    pub const fn exact(self, signal: bool) -> Desc {
        Desc(self.0 | (signal as u32) << 18)
    }
    pub const fn imm(self, imm: u32) -> Desc {
        Desc(self.0 & !(127 << 19) | (imm & 127) << 19)
    }
    pub const fn op(self) -> u32 {
        self.0 & 255
    }
    pub const fn lane(self) -> Lane {
        Lane::from_size(self.0 >> 8)
    }
    pub const fn count(self) -> u32 {
        self.0 >> 10 & 31
    }
    /// Rounding mode, `None` for the current one.
    pub const fn round(self) -> Option<u32> {
        let r = self.0 >> 15 & 7;
        if r == 7 { None } else { Some(r) }
    }
    pub const fn signals_inexact(self) -> bool {
        self.0 >> 18 & 1 != 0
    }
    pub const fn immediate(self) -> u32 {
        self.0 >> 19 & 127
    }
}

/// Lane `i` of a vector, zero-extended.
#[inline]
pub fn lane_u(v: u128, lane: Lane, i: u32) -> u64 {
    let bits = lane.bits();
    let x = (v >> (i * bits & 127)) as u64;
    if bits == 64 { x } else { x & ((1 << bits) - 1) }
}

/// Lane `i`, sign-extended.
#[inline]
pub fn lane_s(v: u128, lane: Lane, i: u32) -> i64 {
    let s = 64 - lane.bits();
    ((lane_u(v, lane, i) << s) as i64) >> s
}

/// The low bits of `x` as lane `i` of an otherwise zero vector.
#[inline]
pub fn place(x: u64, lane: Lane, i: u32) -> u128 {
    let bits = lane.bits();
    let x = if bits == 64 { x } else { x & ((1 << bits) - 1) };
    (x as u128) << (i * bits & 127)
}
