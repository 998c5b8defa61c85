//! The `virt` board.

mod board;
pub mod cpu;
pub mod fdt;
mod hooks;
mod images;
pub mod map;
mod nic;
mod platform;
mod plug;

pub use board::{Wiring, build, dtb};
