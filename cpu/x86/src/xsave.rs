//! FXSAVE, FXRSTOR and the XSAVE family (vol. 1, 10.5 and chapter 13).

/// State components.
pub const X87: u64 = 1;
pub const SSE: u64 = 2;
pub const AVX: u64 = 4;
pub const PKRU: u64 = 1 << 9;
/// The legacy region and the header.
const EXTENDED: u32 = 576;

/// Offset in the standard format and size of a component of the extended region.
#[must_use]
pub const fn component(n: u32) -> Option<(u32, u32)> {
    match n {
        2 => Some((576, 256)),
        9 => Some((832, 8)),
        _ => None,
    }
}

/// Bytes of an area in the standard format for the components of a mask.
#[must_use]
pub fn standard_size(mask: u64) -> u32 {
    (2..63).filter(|n| mask >> n & 1 != 0).filter_map(component).map(|(o, s)| o + s).fold(EXTENDED, u32::max)
}

/// The same in the compacted format, in which the components follow each other.
#[must_use]
pub fn compacted_size(mask: u64) -> u32 {
    (2..63).filter(|n| mask >> n & 1 != 0).filter_map(component).map(|(_, s)| s).sum::<u32>() + EXTENDED
}
