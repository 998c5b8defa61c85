//! The PS/2 devices: keyboard and mouse, without the controller they hang on.

mod keyboard;
mod mouse;
mod scancode;

pub(crate) use keyboard::Keyboard;
pub(crate) use mouse::Mouse;
pub(crate) use scancode::{Translator, translate};

/// Answers of both devices.
mod answer {
    pub const ACK: u8 = 0xfa;
    pub const RESEND: u8 = 0xfe;
    /// The basic assurance test passed.
    pub const BAT: u8 = 0xaa;
}
