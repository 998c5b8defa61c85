//! Displays: the VGA with the Bochs display interface, and those who look at it: `screendump` and VNC.
//!
//! A device implements [`Display`]: it renders its picture into a [`Surface`] when asked. A [`Console`] asks, once for a
//! `screendump` and regularly while somebody watches, so that nothing is rendered for nobody. The framebuffer is memory that
//! the guest writes without being noticed; what changed is found by comparing the lines with those of the frame before, which
//! costs the host a moment for each frame and the guest nothing.

pub mod catalog;
pub mod console;
pub mod edid;
pub mod image;
pub mod pci;
pub mod surface;
pub mod vga;
pub mod vnc;

pub use catalog::{DEVICES, DeviceType, Resources, find};
pub use console::{Blink, Console, Display, Watcher};
pub use image::ImageFormat;
pub use pci::{DisplayError, DisplayFunction, FunctionOptions};
pub use surface::{Rect, Surface};
pub use vga::{Vga, VgaOptions};
pub use vnc::{VncAddress, VncEvent, VncOptions, VncServer};

/// The order of bytes in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    Little,
    Big,
}
