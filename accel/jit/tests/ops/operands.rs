//! Random operands, often special ones.

use rhea_ir::{Lane, Op, Type};

/// A small generator, the same on every host.
pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// What an argument may be, beyond its type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arg {
    Plain(Type),
    /// Packed flags.
    Flags,
    /// With P and A too.
    AllFlags,
    /// A vector of FP lanes.
    Floats(Lane),
    /// An address of guest memory.
    Address,
}

impl Arg {
    pub fn ty(self) -> Type {
        match self {
            Arg::Plain(t) => t,
            Arg::Flags | Arg::AllFlags => Type::I32,
            Arg::Floats(_) => Type::V128,
            Arg::Address => Type::I64,
        }
    }
}

/// One form of an operation.
#[derive(Clone, Debug)]
pub struct Form {
    pub op: Op,
    pub ty: Type,
    pub aux: u32,
    pub imm: u64,
    pub args: Vec<Arg>,
}

pub const SPECIAL_INT: [u64; 20] = [
    0,
    1,
    2,
    u64::MAX,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_8000_0000,
    31,
    32,
    63,
    64,
];
pub const SPECIAL_F64: [u64; 26] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    1,
    0x8000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_1234,
    0x7ff0_0000_0000_0001,
    0xfff4_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x41e0_0000_0000_0000,
    0x41ef_ffff_ffe0_0000,
    0x41f0_0000_0000_0000,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0001,
    0x43f0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0xbfdf_ffff_ffff_ffff,
];
pub const SPECIAL_F32: [u32; 24] = [
    0,
    1 << 31,
    0x3f80_0000,
    0xbf80_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_1234,
    0x7f80_0001,
    0xffa0_0000,
    0x4f00_0000,
    0x4eff_ffff,
    0x4f80_0000,
    0x5f00_0000,
    0xdf00_0001,
    0x5f80_0000,
    0x3f00_0000,
    0x4020_0000,
];
pub const SPECIAL_F16: [u16; 12] =
    [0, 0x8000, 0x3c00, 0xbc00, 1, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7c01];

pub fn random_int(r: &mut Rng) -> u64 {
    match r.below(4) {
        0 => r.pick(&SPECIAL_INT),
        1 => r.next() >> r.below(64),
        2 => (r.next() as i64 >> r.below(64)) as u64,
        _ => r.next(),
    }
}

pub fn random_float(r: &mut Rng, lane: Lane) -> u64 {
    let near = |r: &mut Rng, mant: u32, exp: u32| {
        // A moderate exponent, now and then few significant bits.
        let bias = (1u64 << (exp - 1)) - 1;
        let e = bias.wrapping_add((r.next() % 72).wrapping_sub(4)) & ((1 << exp) - 1);
        let m = r.next() & ((1 << mant) - 1);
        let m = if r.below(2) == 0 { m & !((1u64 << r.below(mant as usize)) - 1) } else { m };
        (r.next() & 1) << (mant + exp) | e << mant | m
    };
    match (lane, r.below(3)) {
        (Lane::D, 0) => r.pick(&SPECIAL_F64),
        (Lane::D, 1) => near(r, 52, 11),
        (Lane::D, _) => r.next(),
        (Lane::S, 0) => r.pick(&SPECIAL_F32) as u64,
        (Lane::S, 1) => near(r, 23, 8),
        (Lane::S, _) => r.next() & 0xffff_ffff,
        (_, 0) => r.pick(&SPECIAL_F16) as u64,
        _ => r.next() & 0xffff,
    }
}

pub fn lanes(r: &mut Rng, lane: Lane, mut f: impl FnMut(&mut Rng) -> u64) -> u128 {
    let mut v = 0u128;
    for k in 0..lane.count() {
        let x = f(r) as u128 & ((1u128 << lane.bits()) - 1);
        v |= x << (k * lane.bits());
    }
    v
}

pub fn random_arg(r: &mut Rng, a: Arg) -> u128 {
    let v: u128 = match a {
        Arg::Flags | Arg::AllFlags => {
            let bits: &[u64] =
                if a == Arg::Flags { &[0x8000, 0x4000, 0x100, 1] } else { &[0x8000, 0x4000, 0x1000, 0x400, 0x100, 1] };
            bits.iter().map(|&b| if r.below(2) == 0 { b } else { 0 }).sum::<u64>() as u128
        }
        Arg::Floats(l) => lanes(r, l, |r| random_float(r, l)),
        // Around the end of a page, misaligned as like as not, and around the beginning of the hole.
        Arg::Address => match r.below(8) {
            0 => 0x7ff0 + r.below(32) as u128,
            1..4 => 0x5000 - 16 + r.below(32) as u128,
            _ => 0x4fe0 + 16 * r.below(4) as u128,
        },
        Arg::Plain(t) => match t {
            Type::Bool => r.next() as u128 & 1,
            Type::F32 => random_float(r, Lane::S) as u128,
            Type::F64 => random_float(r, Lane::D) as u128,
            Type::V128 | Type::I128 => match r.below(3) {
                0 => {
                    let l = Lane::from_size(r.below(4) as u32);
                    lanes(r, l, |r| random_int(r) >> if r.below(2) == 0 { 0 } else { 64 - l.bits() })
                }
                1 => random_int(r) as u128 | (random_int(r) as u128) << 64,
                _ => r.next() as u128 | (r.next() as u128) << 64,
            },
            _ => random_int(r) as u128,
        },
    };
    match a.ty().bytes() {
        16 => v,
        n => v & ((1 << (n * 8)) - 1),
    }
}
