//! The identification registers every PrimeCell has at 0xfe0 to 0xffc.

/// The value of PeriphID0-3 (`index` 0 to 3) or PCellID0-3 (4 to 7): the part number, its revision and the configuration byte.
pub(crate) const fn id(index: u32, part: u16, revision: u8, configuration: u8) -> u8 {
    match index {
        0 => part as u8,
        // Designer 0x41 (Arm): its low half here, its high half in the next.
        1 => 0x10 | (part >> 8) as u8 & 0xf,
        2 => revision << 4 | 4,
        3 => configuration,
        4 => 0x0d,
        5 => 0xf0,
        6 => 0x05,
        _ => 0xb1,
    }
}
