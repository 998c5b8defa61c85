//! What the differential tests of the processors share: random operands, engines, static programs for a user-mode reference.

mod elf;
mod engine;
mod random;
mod reference;

pub use elf::{Machine, Segment, elf};
pub use engine::{Engine, Latch};
pub use random::Rng;
pub use reference::{disassemble, reference};

/// A number from the environment: `RHEA_DIFF_BATCHES` and the like.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
