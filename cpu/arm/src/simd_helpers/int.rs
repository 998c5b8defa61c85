//! Integer lane operations without a host counterpart: shifts by register, saturation of odd kinds, estimates.

use super::desc::{Desc, lane_s, lane_u, place};
use crate::state::ArmCpu;
use rhea_ir::Lane;

macro_rules! lane_ops {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $v:ident)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $v,)* }
        impl $name {
            /// The operation with this number, as [`Desc::op`] holds it.
            pub const fn from_u32(op: u32) -> Option<$name> {
                const ALL: &[$name] = &[$($name::$v),*];
                if (op as usize) < ALL.len() { Some(ALL[op as usize]) } else { None }
            }
        }
    };
}
pub(super) use lane_ops;

lane_ops! {
    /// Lane operations of one, two or three integer operands.
    IntOp {
        Clz
        Cls
        Urecpe
        Ursqrte
        Sshl
        Ushl
        Srshl
        Urshl
        Sqshl
        Uqshl
        Sqrshl
        Uqrshl
        /// By the immediate, signed saturating to signed.
        SqshlImm
        UqshlImm
        /// Signed to unsigned.
        SqshluImm
        /// Accumulate: unsigned `b` added to signed `a`.
        Suqadd
        /// Signed `b` added to unsigned `a`.
        Usqadd
        Sqrdmlah
        Sqrdmlsh
    }
}

/// Clamps to a lane's signed range; the flag is set if it had to.
fn sat_s(v: i128, bits: u32, sat: &mut bool) -> u64 {
    let max = (1i128 << (bits - 1)) - 1;
    let r = v.clamp(-max - 1, max);
    *sat |= r != v;
    r as u64
}

/// Clamps to a lane's unsigned range.
fn sat_u(v: i128, bits: u32, sat: &mut bool) -> u64 {
    let r = v.clamp(0, (1i128 << bits) - 1);
    *sat |= r != v;
    r as u64
}

/// Right shift by 1..=128 of a value of at most 65 bits, rounding if asked.
fn shift_right(x: i128, n: u32, round: bool) -> i128 {
    match (round, n) {
        (true, 66..) => 0,
        (true, _) => (x + (1 << (n - 1))) >> n,
        (false, _) => x >> n.min(127),
    }
}

/// Shift of a lane by the signed low byte of `by`: left if positive. `Some` saturates.
fn shift_by(
    x: i128,
    by: u64,
    bits: u32,
    round: bool,
    clamp: Option<fn(i128, u32, &mut bool) -> u64>,
    sat: &mut bool,
) -> u64 {
    let n = by as i8 as i32;
    if n < 0 {
        let r = shift_right(x, n.unsigned_abs(), round);
        // A right shift never leaves the lane's range.
        return r as u64;
    }
    let n = n as u32;
    match clamp {
        None if n >= bits => 0,
        None => (x << n) as u64,
        Some(_) if x == 0 => 0,
        // Beyond any range, with the sign kept.
        Some(f) if n >= bits => f(if x < 0 { i128::MIN } else { i128::MAX }, bits, sat),
        Some(f) => f(x << n, bits, sat),
    }
}

/// One lane. `(a, b, c)` are the lanes zero-extended.
fn lane(op: IntOp, bits: u32, imm: u32, x: [(u64, i64); 3], sat: &mut bool) -> u64 {
    let [(a, sa), (b, sb), (_, sc)] = x;
    let (wa, wsa) = (a as i128, sa as i128);
    match op {
        IntOp::Clz => (a.leading_zeros() - (64 - bits)) as u64,
        IntOp::Cls => {
            ((sa ^ (sa >> 1)) as u64 & (u64::MAX >> (64 - bits))).leading_zeros() as u64 - (64 - bits) as u64 - 1
        }
        IntOp::Urecpe => rhea_float::unsigned_recip_estimate(a as u32) as u64,
        IntOp::Ursqrte => rhea_float::unsigned_rsqrt_estimate(a as u32) as u64,
        IntOp::Sshl => shift_by(wsa, b, bits, false, None, sat),
        IntOp::Ushl => shift_by(wa, b, bits, false, None, sat),
        IntOp::Srshl => shift_by(wsa, b, bits, true, None, sat),
        IntOp::Urshl => shift_by(wa, b, bits, true, None, sat),
        IntOp::Sqshl => shift_by(wsa, b, bits, false, Some(sat_s), sat),
        IntOp::Uqshl => shift_by(wa, b, bits, false, Some(sat_u), sat),
        IntOp::Sqrshl => shift_by(wsa, b, bits, true, Some(sat_s), sat),
        IntOp::Uqrshl => shift_by(wa, b, bits, true, Some(sat_u), sat),
        IntOp::SqshlImm => sat_s(wsa << imm, bits, sat),
        IntOp::UqshlImm => sat_u(wa << imm, bits, sat),
        IntOp::SqshluImm => sat_u(wsa << imm, bits, sat),
        IntOp::Suqadd => sat_s(wsa + b as i128, bits, sat),
        IntOp::Usqadd => sat_u(wa + sb as i128, bits, sat),
        IntOp::Sqrdmlah => {
            sat_s(((sc as i128) << bits).wrapping_add(2 * wsa * sb as i128 + (1 << (bits - 1))) >> bits, bits, sat)
        }
        IntOp::Sqrdmlsh => {
            sat_s(((sc as i128) << bits).wrapping_sub(2 * wsa * sb as i128 - (1 << (bits - 1))) >> bits, bits, sat)
        }
    }
}

/// All active lanes of the operation; inactive ones are zero. The flag tells whether a lane saturated.
pub fn lanes(desc: Desc, a: u128, b: u128, c: u128) -> (u128, bool) {
    let (l, mut sat, mut r) = (desc.lane(), false, 0);
    let Some(op) = IntOp::from_u32(desc.op()) else { return (0, false) };
    let imm = desc.immediate().min(63);
    for i in 0..desc.count().min(l.count()) {
        let x = [a, b, c].map(|v| (lane_u(v, l, i), lane_s(v, l, i)));
        r |= place(lane(op, l.bits(), imm, x, &mut sat), l, i);
    }
    (r, sat)
}

/// 2×2 result of the 2×8 by 8×2 byte matrix product added to `acc`. `a_signed`, `b_signed` as named.
pub fn matrix_mla(acc: u128, a: u128, b: u128, a_signed: bool, b_signed: bool) -> u128 {
    let get = |v: u128, signed: bool, i: u32| if signed { lane_s(v, Lane::B, i) } else { lane_u(v, Lane::B, i) as i64 };
    let mut r = 0;
    for i in 0..2 {
        for j in 0..2 {
            let dot: i64 = (0..8).map(|k| get(a, a_signed, i * 8 + k) * get(b, b_signed, j * 8 + k)).sum();
            let at = i * 2 + j;
            r |= place((lane_u(acc, Lane::S, at) as i64).wrapping_add(dot) as u64, Lane::S, at);
        }
    }
    r
}

/// Entry of the helpers over [`lanes`]: descriptor, then up to three vectors.
pub extern "C" fn int_lanes(cpu: &mut ArmCpu, desc: u64, _: u64, _: u64, _: u64) -> u64 {
    let s = &cpu.header.scratch;
    let (r, sat) = lanes(Desc(desc as u32), s[0], s[1], s[2]);
    cpu.header.scratch[7] = r;
    if sat {
        super::saturation(cpu);
    }
    0
}

/// Arguments (bit 0: first operand signed, bit 1: second signed; accumulator, a, b).
pub extern "C" fn matrix_entry(cpu: &mut ArmCpu, signs: u64, _: u64, _: u64, _: u64) -> u64 {
    let s = &cpu.header.scratch;
    cpu.header.scratch[7] = matrix_mla(s[0], s[1], s[2], signs & 1 != 0, signs & 2 != 0);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(op: IntOp, lane: Lane, a: u64, b: u64) -> (u64, bool) {
        let (r, q) = lanes(Desc::new(op as u32, lane, lane.bytes()), a as u128, b as u128, 0);
        (r as u64, q)
    }

    #[test]
    fn shifts_by_register() {
        assert_eq!(one(IntOp::Sshl, Lane::B, 0x81, 1), (2, false));
        assert_eq!(one(IntOp::Sshl, Lane::B, 0x81, 0xff), (0xc0, false));
        assert_eq!(one(IntOp::Sqshl, Lane::B, 0x81, 1), (0x80, true));
        assert_eq!(one(IntOp::Sqshl, Lane::D, 1, 127), (i64::MAX as u64, true));
        assert_eq!(one(IntOp::Uqshl, Lane::D, 1, 64), (u64::MAX, true));
        assert_eq!(one(IntOp::Urshl, Lane::D, u64::MAX, 0xc0), (1, false));
        assert_eq!(one(IntOp::Urshl, Lane::D, u64::MAX, 0xbf), (0, false));
        assert_eq!(one(IntOp::Srshl, Lane::S, 0x8000_0000, 0x80), (0, false));
        assert_eq!(one(IntOp::Sshl, Lane::S, 0x8000_0000, 0x80), (0xffff_ffff, false));
    }

    #[test]
    fn counts_and_estimates() {
        assert_eq!(one(IntOp::Cls, Lane::B, 0, 0).0, 7);
        assert_eq!(one(IntOp::Cls, Lane::D, u64::MAX, 0).0, 63);
        assert_eq!(one(IntOp::Cls, Lane::H, 0x4000, 0).0, 0);
        assert_eq!(one(IntOp::Clz, Lane::H, 1, 0).0, 15);
        assert_eq!(one(IntOp::Urecpe, Lane::S, 0x8000_0000, 0).0, 0xff80_0000);
        assert_eq!(one(IntOp::Ursqrte, Lane::S, 0x4000_0000, 0).0, 0xff80_0000);
    }
}
