//! Network interface controllers on the PCI bus over the back ends of `rhea_net`.

pub mod catalog;
mod checksum;
pub mod e1000e;

pub use e1000e::E1000e;
