//! Out-of-line operations of the FP and AdvSIMD translators, in safe Rust.

pub mod crypto;
pub mod desc;
pub mod fp;
pub mod int;

use crate::state::ArmCpu;

/// Records that an operation saturated (FPSR.QC).
fn saturation(cpu: &mut ArmCpu) {
    cpu.header.fp_flags |= crate::fpflags::SATURATED;
}

/// The FP environment of a helper: FPCR, no flags yet.
fn environment(cpu: &ArmCpu) -> rhea_float::Env {
    rhea_float::Env::arm(cpu.fpcr)
}

/// Adds the flags that the operation raised to the sticky ones.
fn raise(cpu: &mut ArmCpu, env: &rhea_float::Env) {
    cpu.header.fp_flags |= env.flags.0;
}
