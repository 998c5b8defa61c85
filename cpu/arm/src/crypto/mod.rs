//! Cryptographic instructions and pointer authentication: what one instruction does, on values. A vector register is a
//! `u128` with element 0 the least significant.

pub mod helpers;
pub mod pauth;
pub mod poly;
mod qarma;
pub mod sha;
pub mod sm;

#[inline(always)]
fn words(v: u128) -> [u32; 4] {
    [v as u32, (v >> 32) as u32, (v >> 64) as u32, (v >> 96) as u32]
}

#[inline(always)]
fn from_words(w: [u32; 4]) -> u128 {
    u128::from(w[0]) | u128::from(w[1]) << 32 | u128::from(w[2]) << 64 | u128::from(w[3]) << 96
}

#[inline(always)]
fn dwords(v: u128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}

#[inline(always)]
fn from_dwords(w: [u64; 2]) -> u128 {
    u128::from(w[0]) | u128::from(w[1]) << 64
}
