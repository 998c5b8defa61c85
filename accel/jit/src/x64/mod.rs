//! The x86-64 back end: a region in SSA form to position-independent host code.
//!
//! Needs a host with AVX2, FMA, BMI1/2, LZCNT, POPCNT and CMPXCHG16B ([`host_is_supported`]).
//!
//! | register | role |
//! |---|---|
//! | r15 | the guest's CPU structure |
//! | rax, rcx, rdx | scratch of the instruction being emitted |
//! | xmm12–xmm15 | scratch |
//! | others but rsp | allocated |
//!
//! An I32 in a general register is always zero-extended to 64 bits; a Bool is 0 or 1 in the whole register; what is
//! above an F32/F64 in its vector register is arbitrary.

pub mod asm;
mod calls;
mod emit;
mod fp;
mod int;
mod mem;
mod moves;
mod vec;

pub use emit::{CodeBlob, Entry, FRAME_BYTES, LinkSite, Region, RuntimeFns, compile, reason};

use crate::regalloc::RegFile;

pub const RAX: u8 = 0;
pub const RCX: u8 = 1;
pub const RDX: u8 = 2;
pub const RBX: u8 = 3;
pub const RSP: u8 = 4;
pub const RSI: u8 = 6;
pub const RDI: u8 = 7;
pub const R8: u8 = 8;
pub const ENV: u8 = 15;
/// Vector scratch registers.
pub const X13: u8 = 13;
pub const X14: u8 = 14;
pub const X15: u8 = 15;

/// Bytes of spill area at the bottom of the frame.
pub const SPILL_BYTES: u32 = 2048;

pub const REGS: RegFile = RegFile {
    // Callee-saved last, so that they stay free for values that cross calls.
    gprs: &[6, 7, 8, 9, 10, 11, 3, 5, 12, 13, 14],
    xmms: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    preserved: 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14,
    spill_bytes: SPILL_BYTES,
};

/// True if the JIT can run here.
pub fn host_is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("bmi2")
            && std::is_x86_feature_detected!("lzcnt")
            && std::is_x86_feature_detected!("popcnt")
            && std::is_x86_feature_detected!("cmpxchg16b")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The entry trampoline (`extern "C" fn(env, code) -> reason`) and the exit path that `EnvHeader::accel[1]` points to.
/// Returns the code and the offset of the exit path.
pub fn trampoline() -> (Vec<u8>, usize) {
    use asm::{Alu, Asm};
    use rhea_ir::env::EnvHeader;
    use std::mem::offset_of;
    let fp = offset_of!(EnvHeader, host_fp) as i32;
    // A word of the header for the host's own control word.
    let host = (offset_of!(EnvHeader, accel) + 16) as i32;
    let mut a = Asm::new(0);
    for r in [3u8, 5, 12, 13, 14, 15] {
        a.push(r);
    }
    a.alu_ri(Alu::Sub, true, RSP, FRAME_BYTES);
    a.mov_rr(true, ENV, RDI);
    a.stmxcsr(ENV, host);
    a.ldmxcsr(ENV, fp);
    a.jmp_reg(RSI);
    a.align(16);
    let exit = a.offset();
    a.stmxcsr(ENV, fp);
    a.ldmxcsr(ENV, host);
    a.alu_ri(Alu::Add, true, RSP, FRAME_BYTES);
    for r in [15u8, 14, 13, 12, 5, 3] {
        a.pop(r);
    }
    a.ret();
    (a.ops.finalize().unwrap_or_default(), exit)
}
