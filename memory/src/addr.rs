//! Newtypes for the address kinds, so that they cannot be mixed up.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `n` bytes further, wrapping.
            #[inline]
            #[must_use]
            pub const fn offset(self, n: u64) -> Self {
                Self(self.0.wrapping_add(n))
            }
            /// The address `n` bytes further, or `None` past 2^64.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
        impl From<u64> for $name {
            #[inline]
            fn from(v: u64) -> Self {
                Self(v)
            }
        }
    };
}

address! {
    /// A guest-physical address.
    Gpa
}
address! {
    /// A guest-virtual address.
    Gva
}
address! {
    /// A host-virtual address.
    Hva
}
address! {
    /// An I/O-virtual address: what a device behind an IOMMU puts on its bus.
    Iova
}

/// A range of guest-physical addresses; `len` is in bytes and never 0 in announced ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaRange {
    pub start: Gpa,
    pub len: u64,
}

impl GpaRange {
    /// The last byte of the range.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.start.0.wrapping_add(self.len.wrapping_sub(1))
    }
    /// Do the two ranges share a byte?
    #[must_use]
    pub const fn overlaps(&self, other: &GpaRange) -> bool {
        self.start.0 <= other.last() && other.start.0 <= self.last()
    }
}
