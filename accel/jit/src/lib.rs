//! jit
pub mod x64;
pub mod regalloc;
