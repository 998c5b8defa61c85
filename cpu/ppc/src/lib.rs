//! The 64-bit Power processor (Power ISA 2.07 to 3.1B, Book I–III without hypervisor state): state, translation to IR,
//! interrupts, address translation, timers and debug.

pub mod bits;
pub mod config;
pub mod debug;
pub mod exception;
pub mod fpu;
mod guest;
pub mod helpers;
pub mod hooks;
pub mod mmu;
pub mod mode;
pub mod models;
mod pmu;
pub mod saved;
pub mod spr;
pub mod state;
pub mod system;
pub mod timebase;
pub mod translate;
pub mod vector;

#[cfg(test)]
mod tests;

pub use config::{Isa, PpcConfig};
pub use exception::Vector;
pub use hooks::{NoHooks, PpcHooks, PpcPins};
pub use mode::PpcMode;
pub use saved::PpcSaved;
pub use state::PpcCpu;
