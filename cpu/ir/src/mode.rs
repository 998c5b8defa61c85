//! Accessors of a guest's mode word ([`EnvHeader::mode`](crate::EnvHeader::mode)): a tuple structure of one u64.

/// Fields of several bits: `get set lowest-bit width;`.
#[macro_export]
macro_rules! mode_fields {
    ($($(#[$doc:meta])* $get:ident $set:ident $lo:literal $width:literal;)*) => {
        $($(#[$doc])*
        #[inline]
        pub const fn $get(self) -> u32 {
            ((self.0 >> $lo) & ((1 << $width) - 1)) as u32
        }
        #[inline]
        pub const fn $set(self, v: u32) -> Self {
            let mask: u64 = ((1 << $width) - 1) << $lo;
            Self((self.0 & !mask) | (((v as u64) << $lo) & mask))
        })*
    };
}

/// Single bits: `get set bit;`.
#[macro_export]
macro_rules! mode_flags {
    ($($(#[$doc:meta])* $get:ident $set:ident $bit:literal;)*) => {
        $($(#[$doc])*
        #[inline]
        pub const fn $get(self) -> bool {
            self.0 & (1 << $bit) != 0
        }
        #[inline]
        pub const fn $set(self, v: bool) -> Self {
            Self((self.0 & !(1 << $bit)) | ((v as u64) << $bit))
        })*
    };
}
