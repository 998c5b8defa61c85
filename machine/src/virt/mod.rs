//! The `virt` board.

mod accel;
mod board;
pub mod cpu;
pub mod fdt;
mod hooks;
mod images;
pub mod map;
mod platform;

pub use board::{build, dtb};
