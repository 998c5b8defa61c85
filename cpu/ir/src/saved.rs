//! Registers that are wider than a word in saved state (`#[cbor(with = "rhea_ir::saved")]`): two words each, the low one first.

use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder, Write};

/// # Errors
/// The writer's.
pub fn encode<C, W: Write, const COUNT: usize>(
    v: &[u128; COUNT],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), encode::Error<W::Error>> {
    e.array(2 * COUNT as u64)?;
    for register in v {
        e.u64(*register as u64)?.u64((register >> 64) as u64)?;
    }
    Ok(())
}

/// # Errors
/// It is no such array, or of another number of registers.
pub fn decode<C, const COUNT: usize>(d: &mut Decoder<'_>, _: &mut C) -> Result<[u128; COUNT], Error> {
    if d.array()? != Some(2 * COUNT as u64) {
        return Err(Error::message("another number of vector registers"));
    }
    let mut v = [0; COUNT];
    for register in &mut v {
        *register = u128::from(d.u64()?) | u128::from(d.u64()?) << 64;
    }
    Ok(v)
}
