//! The x86-64 back end: a region in SSA form to position-independent host code.
//!
//! Needs a host with AVX2, FMA, BMI1/2, LZCNT, POPCNT and CMPXCHG16B ([`host_is_supported`]).
//!
//! | register | role |
//! |---|---|
//! | r15 | the guest's CPU structure, behind its header |
//! | rax, rcx, rdx | scratch of the instruction being emitted |
//! | xmm12–xmm15 | scratch |
//! | others but rsp | allocated |
//!
//! An I32 in a general register is always zero-extended to 64 bits; a Bool is 0 or 1 in the whole register; what is
//! above an F32/F64 in its vector register is arbitrary.

pub mod asm;
mod calls;
mod cond;
mod emit;
mod encode;
mod fp;
mod int;
mod links;
mod mem;
mod moves;
mod share;
mod simd;
mod stubs;
mod switch;
mod vec;

pub use emit::{CodeBlob, Entry, FRAME_BYTES, JUMP_CACHE_BITS, LinkSite, Region, RuntimeFns, compile, reason};
pub use mem::MAX_ACCESS;

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

/// Bytes at the bottom of the frame: words of [`share`], then the spill area.
pub const SPILL_BYTES: u32 = 2048;

pub const REGS: RegFile = RegFile {
    // Callee-saved last, so that they stay free for values that cross calls.
    gprs: &[6, 7, 8, 9, 10, 11, 3, 5, 12, 13, 14],
    xmms: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    preserved: 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14,
    spill_from: share::WORDS as u32 * 8,
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

/// Slow paths of memory accesses, as numbered in [`Trampoline::thunks`].
#[derive(Clone, Copy)]
pub(crate) enum Thunk {
    Load,
    Store,
    Rmw,
    Cas,
    ProbeWrite,
}

impl Thunk {
    pub const COUNT: usize = 5;
}

/// Code that all regions share, and offsets in it.
pub struct Trampoline {
    pub bytes: Box<[u8]>,
    /// `EnvHeader::exit`.
    pub exit: usize,
    /// What unused elements of `EnvHeader::returns` and of jump caches lead to: a look-up of the address in rax.
    pub no_return: usize,
    /// The addresses at `EnvHeader::accel[3..]`.
    pub thunks: [usize; Thunk::COUNT],
}

/// The entry trampoline (`extern "C" fn(env, code) -> reason`), the exit path, and what stands between generated code and
/// the run time's memory functions: a thunk takes the address in rax, up to two values in rdx and rcx and the operation in
/// the header, keeps all other registers, gives a result in rax, and leaves generated code if an exception was raised.
pub fn trampoline(fns: &RuntimeFns) -> Trampoline {
    use asm::{Alu, Asm, Cc};
    use emit::{ENV_AT, H_EXIT, H_HOST_CONTROL, H_HOST_FP, H_PC, H_RAISED, H_THUNK_OP, SAVE_GPR, SAVE_XMM};
    let mut a = Asm::new();
    for r in [3u8, 5, 12, 13, 14, 15] {
        a.push(r);
    }
    a.alu_ri(Alu::Sub, true, RSP, FRAME_BYTES);
    a.lea(ENV, RDI, ENV_AT);
    a.stmxcsr(ENV, H_HOST_CONTROL);
    a.ldmxcsr(ENV, H_HOST_FP);
    a.jmp_reg(RSI);
    a.align(16);
    let exit = a.offset();
    a.stmxcsr(ENV, H_HOST_FP);
    a.ldmxcsr(ENV, H_HOST_CONTROL);
    a.alu_ri(Alu::Add, true, RSP, FRAME_BYTES);
    for r in [15u8, 14, 13, 12, 5, 3] {
        a.pop(r);
    }
    a.ret();
    a.align(16);
    let no_return = a.offset();
    a.store(true, ENV, H_PC, RAX);
    a.mov_ri(RAX, reason::LOOKUP);
    a.jmp_mem(ENV, H_EXIT);
    let mut thunks = [0; Thunk::COUNT];
    for (n, f) in [fns.load, fns.store, fns.rmw, fns.cas, fns.probe_write].into_iter().enumerate() {
        a.align(16);
        thunks[n] = a.offset();
        // The return address is on the stack, and eight bytes more for the alignment of the call.
        a.alu_ri(Alu::Sub, true, RSP, 8);
        let gprs = REGS.gprs.iter().copied().filter(|r| REGS.preserved >> r & 1 == 0);
        let xmms = REGS.xmms.iter().copied();
        for r in gprs.clone() {
            a.store(true, RSP, 16 + SAVE_GPR + r as i32 * 8, r);
        }
        for r in xmms.clone() {
            a.vstore(16, RSP, 16 + SAVE_XMM + r as i32 * 16, r);
        }
        a.lea(RDI, ENV, -ENV_AT);
        a.mov_rr(true, RSI, RAX);
        let op = match n {
            n if n == Thunk::Load as usize || n == Thunk::ProbeWrite as usize => RDX,
            n if n == Thunk::Cas as usize => R8,
            _ => RCX,
        };
        a.load(false, op, ENV, H_THUNK_OP);
        a.call_abs(f);
        for r in gprs {
            a.load(true, r, RSP, 16 + SAVE_GPR + r as i32 * 8);
        }
        for r in xmms {
            a.vload(16, r, RSP, 16 + SAVE_XMM + r as i32 * 16);
        }
        a.alu_ri(Alu::Add, true, RSP, 8);
        let raised = a.label();
        a.cmp_mem32_imm(ENV, H_RAISED, 0);
        a.jcc(Cc::Ne, raised);
        a.ret();
        a.bind(raised);
        a.alu_ri(Alu::Add, true, RSP, 8);
        a.mov_ri(RAX, reason::RAISED);
        a.jmp_mem(ENV, H_EXIT);
    }
    Trampoline { bytes: a.finish(u32::MAX).0, exit, no_return, thunks }
}
