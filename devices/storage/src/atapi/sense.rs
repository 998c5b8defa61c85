//! Sense data (SPC-3 4.5, MMC-5 annex F).

use minicbor::{Decode, Encode};

/// Sense key, additional sense code and qualifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Sense {
    #[n(0)]
    pub key: u8,
    #[n(1)]
    pub code: u8,
    #[n(2)]
    pub qualifier: u8,
}

const fn sense(key: u8, code: u8, qualifier: u8) -> Sense {
    Sense { key, code, qualifier }
}

pub const NONE: Sense = sense(0, 0, 0);
pub const NO_MEDIUM_CLOSED: Sense = sense(2, 0x3a, 1);
pub const NO_MEDIUM_OPEN: Sense = sense(2, 0x3a, 2);
pub const READ_ERROR: Sense = sense(3, 0x11, 0);
pub const INVALID_OPERATION: Sense = sense(5, 0x20, 0);
pub const ADDRESS_OUT_OF_RANGE: Sense = sense(5, 0x21, 0);
pub const INVALID_FIELD: Sense = sense(5, 0x24, 0);
pub const INVALID_PARAMETER: Sense = sense(5, 0x26, 0);
pub const PARAMETER_LENGTH: Sense = sense(5, 0x1a, 0);
pub const SAVING_NOT_SUPPORTED: Sense = sense(5, 0x39, 0);
pub const REMOVAL_PREVENTED: Sense = sense(5, 0x53, 2);
/// Prevented, with no medium in.
pub const ILLEGAL_EJECT: Sense = sense(2, 0x53, 2);
pub const MEDIUM_CHANGED: Sense = sense(6, 0x28, 0);
pub const RESET: Sense = sense(6, 0x29, 0);

impl Sense {
    /// Fixed format, current errors.
    #[must_use]
    pub fn fixed(self) -> [u8; 18] {
        let mut b = [0; 18];
        b[0] = 0x70;
        b[2] = self.key;
        b[7] = 10;
        b[12] = self.code;
        b[13] = self.qualifier;
        b
    }
}
