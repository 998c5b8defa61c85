//! Cryptographic instructions.

pub mod helpers;
