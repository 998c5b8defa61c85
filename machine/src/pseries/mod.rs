//! The `pseries` board: a logical partition per Power Architecture Platform Requirements (LoPAPR).

mod accel;
mod board;
mod boot;
pub mod cas;
mod client;
pub mod cpu;
pub mod drc;
mod hcall;
mod hooks;
pub mod hotplug;
pub mod hpt;
mod memory;
pub mod options;
mod partition;
mod platform;
mod rtas;
mod tree;

pub use board::build;
pub use options::{Capabilities, Compat, IcMode, Mitigation, PseriesOptions, ResizeHpt};
pub use platform::DEVICES;
