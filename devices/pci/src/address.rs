//! Device and function numbers.

use std::fmt;

/// A device (0 to 31) and function (0 to 7) number, as `device << 3 | function`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devfn(pub u8);

impl Devfn {
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Self {
        Self((device & 31) << 3 | function & 7)
    }
    #[must_use]
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
    /// Parses `addr=`: hexadecimal `DEVICE` or `DEVICE.FUNCTION`, with or without 0x.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let hex = |t: &str| u8::from_str_radix(t.strip_prefix("0x").unwrap_or(t), 16).ok();
        let (device, function) = (hex(device)?, hex(function)?);
        (device < 32 && function < 8).then(|| Self::new(device, function))
    }
}

impl fmt::Display for Devfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.device(), self.function())
    }
}
