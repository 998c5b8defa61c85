//! Input events: who makes them (a display, the monitor) and who takes them (PS/2, USB, virtio devices).

mod hub;
mod keys;

pub use hub::{InputConsumer, InputHandle, InputHub, InputKinds, Leds};
pub use keys::KeyCode;

/// A button of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Button {
    Left,
    Middle,
    Right,
    /// The fourth button, "back".
    Side,
    /// The fifth button, "forward".
    Extra,
}

/// The largest absolute coordinate; 0 is the left or upper edge.
pub const ABSOLUTE_MAX: u16 = 0x7fff;

/// What a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputEvent {
    Key {
        code: KeyCode,
        down: bool,
    },
    /// Motion in units of the pointer; positive is right and down.
    Relative {
        dx: i32,
        dy: i32,
    },
    /// The place on the screen, each coordinate from 0 to [`ABSOLUTE_MAX`].
    Absolute {
        x: u16,
        y: u16,
    },
    Button {
        button: Button,
        down: bool,
    },
    /// Steps of the wheel; positive is away from the user (up) and right.
    Wheel {
        vertical: i32,
        horizontal: i32,
    },
}
