//! The PS/2 devices: keyboard and mouse.

mod scancode;

pub(crate) use scancode::translate;
