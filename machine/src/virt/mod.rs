//! The `virt` board.

pub mod fdt;
pub mod map;
