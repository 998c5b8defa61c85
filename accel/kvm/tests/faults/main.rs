//! A kernel that refuses: at each call in turn, capabilities that are missing, exits that should not be. What comes of it is a line
//! that says why, or a machine that works without; never a panic, and nobody waits for ever.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

mod arm;
mod kernel;
mod ppc;
#[cfg(target_arch = "x86_64")]
mod x86;
