//! Priorities: binary points, active priorities, the Non-secure view (IHI 0069 section 4.8, IHI 0048 section 3.3).

/// Implemented priority bits, in the physical and in the virtual CPU interface: 32 levels, in the top bits.
pub const PRIORITY_BITS: u32 = 5;
/// The implemented bits of a priority field.
pub const PRIORITY_MASK: u8 = 0xf8;
/// The running priority when no interrupt is active.
pub const IDLE: u8 = 0xff;
/// The smallest binary point of group 0 (and of Secure group 1).
pub const MIN_BPR: u8 = 7 - PRIORITY_BITS as u8;

/// The bits of a priority that take part in preemption with binary point `bpr` in the numbering of group 0: 0 leaves out bit 0.
#[must_use]
pub const fn group_mask(bpr: u8) -> u8 {
    (0xff00u16 >> (7 - if bpr > 7 { 7 } else { bpr })) as u8
}

/// What Non-secure software sees of a priority: 0x80..0xff appears as 0..0xfe, the Secure half as 0.
#[must_use]
pub const fn to_nonsecure(priority: u8) -> u8 {
    if priority & 0x80 == 0 { 0 } else { priority << 1 }
}

/// The priority that Non-secure software means.
#[must_use]
pub const fn from_nonsecure(value: u8) -> u8 {
    value >> 1 | 0x80
}

/// The active priorities register: one bit for each of the 32 group priorities, bit 0 the highest.
#[must_use]
pub const fn active_bit(priority: u8) -> u32 {
    1 << (priority >> (8 - PRIORITY_BITS))
}

/// The highest active priority in an active priorities register, [`IDLE`] without one.
#[must_use]
pub const fn highest_active(apr: u32) -> u8 {
    if apr == 0 { IDLE } else { (apr.trailing_zeros() as u8) << (8 - PRIORITY_BITS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(group_mask(0), 0xfe);
        assert_eq!(group_mask(2), 0xf8);
        assert_eq!(group_mask(6), 0x80);
        assert_eq!(group_mask(7), 0);
        assert_eq!(group_mask(200), 0);
    }

    #[test]
    fn views_and_active_bits() {
        assert_eq!(to_nonsecure(0x40), 0);
        assert_eq!(to_nonsecure(from_nonsecure(0xa0)), 0xa0);
        assert_eq!(highest_active(active_bit(0xa0) | active_bit(0xf8)), 0xa0);
        assert_eq!(highest_active(0), IDLE);
    }
}
