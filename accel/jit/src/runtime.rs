//! The functions generated code calls, with the addresses it calls them by.
#![expect(unsafe_code, reason = "recovers the vCPU's context from the pointer in the guest's header")]

use crate::context::Ctx;
use crate::x64::RuntimeFns;
use rhea_ir::func::Inst;
use rhea_ir::guest::{Access, Guest, NanRule, Raised};
use rhea_ir::op::Op;
use rhea_ir::types::{MemOp, Type};

/// The context of the vCPU whose guest this is.
fn ctx<'a, G: Guest>(cpu: &G) -> &'a mut Ctx {
    // SAFETY: `accel[0]` is set by the vCPU's thread before it enters generated code, to a context that outlives the
    // entry and is used by this thread only; the run-time functions do not call each other, so one reference exists.
    unsafe { &mut *(cpu.header().accel[0] as *mut Ctx) }
}

fn raise<G: Guest, T: Default>(cpu: &mut G, r: Result<T, Raised>) -> T {
    r.unwrap_or_else(|_| {
        cpu.header_mut().raised = 1;
        T::default()
    })
}

fn wide(m: MemOp) -> bool {
    m.size_log2() >= 4
}

extern "C" fn load<G: Guest>(cpu: &mut G, va: u64, op: u64) -> u64 {
    let m = MemOp(op as u32);
    let r = ctx(cpu).load(cpu, va, m);
    let v = raise(cpu, r);
    if wide(m) {
        cpu.header_mut().scratch[7] = v;
    }
    v as u64
}

extern "C" fn store<G: Guest>(cpu: &mut G, va: u64, value: u64, op: u64) {
    let m = MemOp(op as u32);
    let v = if wide(m) { cpu.header().scratch[0] } else { value as u128 };
    let r = ctx(cpu).store(cpu, va, m, v);
    raise(cpu, r);
}

extern "C" fn rmw<G: Guest>(cpu: &mut G, va: u64, value: u64, op: u64) -> u64 {
    let r = ctx(cpu).rmw(cpu, va, MemOp(op as u32), value as u128);
    raise(cpu, r) as u64
}

extern "C" fn cas<G: Guest>(cpu: &mut G, va: u64, expected: u64, new: u64, op: u64) -> u64 {
    let m = MemOp(op as u32);
    let (e, n) =
        if wide(m) { (cpu.header().scratch[0], cpu.header().scratch[1]) } else { (expected as u128, new as u128) };
    let r = ctx(cpu).cas(cpu, va, m, e, n);
    let v = raise(cpu, r);
    if wide(m) {
        cpu.header_mut().scratch[7] = v;
    }
    v as u64
}

extern "C" fn probe_write<G: Guest>(cpu: &mut G, va: u64, op: u64) {
    let r = ctx(cpu).probe_write(cpu, va, MemOp(op as u32));
    raise(cpu, r);
}

/// See [`rhea_ir::raw::touch`].
pub extern "C" fn touch<G: Guest>(cpu: &mut G, va: u64, write: u64, idx: u64) -> u64 {
    let kind = if write != 0 { Access::Write } else { Access::Read };
    match ctx(cpu).touch(cpu, va, kind, idx as u32) {
        Ok(host) => host.unwrap_or(0),
        Err(Raised) => {
            cpu.header_mut().raised = 1;
            rhea_ir::raw::TOUCH_RAISED
        }
    }
}

const TYPES: [Type; 9] =
    [Type::Void, Type::Bool, Type::I32, Type::I64, Type::I128, Type::F32, Type::F64, Type::V128, Type::V256];

extern "C" fn fp<G: Guest>(cpu: &mut G, packed: u64, imm: u64) {
    let op = Op::ALL.get((packed & 0xff) as usize).copied().unwrap_or(Op::FAdd);
    let ty = TYPES.get((packed >> 8 & 0xff) as usize).copied().unwrap_or(Type::F64);
    let arg_ty = TYPES.get((packed >> 16 & 0xff) as usize).copied().unwrap_or(Type::F64);
    let mut i = Inst::new(op, ty);
    i.aux = (packed >> 32) as u32;
    i.imm = imm;
    let mask = match arg_ty {
        Type::Bool => 1,
        Type::I32 | Type::F32 => u32::MAX as u128,
        Type::I64 | Type::F64 => u64::MAX as u128,
        _ => u128::MAX,
    };
    let h = cpu.header();
    let x = [h.scratch[0] & mask, h.scratch[1] & mask, h.scratch[2] & mask];
    let mode = G::fp_mode(h.mode);
    let mut flags = 0;
    let r = if matches!(op, Op::Simd1 | Op::Simd2 | Op::Simd3) {
        rhea_ir::simd::eval(i.aux, i.imm, x)
    } else {
        rhea_ir::fpeval::eval_fp(&i, arg_ty, mode, x, &mut flags)
    };
    let h = cpu.header_mut();
    h.fp_flags |= flags;
    h.scratch[7] = r;
}

/// Sticky flags of an MXCSR value as rhea_float flag bits.
pub fn mxcsr_flags<G: Guest>(h: &rhea_ir::EnvHeader) -> u32 {
    guest_flags(h.host_fp, G::fp_mode(h.mode).nan_rule)
}

fn guest_flags(mxcsr: u32, rule: NanRule) -> u32 {
    // The bits are the same, but for guests other than x86 the host's denormal-operand bit has no counterpart: inputs are
    // flushed by the exact path only.
    // Invalid operations of a Power guest are known by their causes, which only the exact path tells.
    mxcsr
        & match rule {
            NanRule::X86 => 0x3f,
            NanRule::Arm => 0x3d,
            NanRule::Ppc => 0x3c,
        }
}

#[cfg(target_arch = "x86_64")]
fn read_mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores the control word to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut v, options(nostack)) };
    v
}

#[cfg(target_arch = "x86_64")]
fn write_mxcsr(v: u32) {
    // SAFETY: the value came from `read_mxcsr` with status bits cleared; generated code restores the host's on exit.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack)) };
}

#[cfg(not(target_arch = "x86_64"))]
fn read_mxcsr() -> u32 {
    0x1f80
}
#[cfg(not(target_arch = "x86_64"))]
fn write_mxcsr(_: u32) {}

extern "C" fn fp_flags_get<G: Guest>(cpu: &mut G) -> u64 {
    let h = cpu.header();
    (h.fp_flags | guest_flags(read_mxcsr(), G::fp_mode(h.mode).nan_rule)) as u64
}

extern "C" fn fp_flags_clear<G: Guest>(cpu: &mut G) {
    cpu.header_mut().fp_flags = 0;
    write_mxcsr(read_mxcsr() & !0x3f);
}

pub fn fns<G: Guest>() -> RuntimeFns {
    RuntimeFns {
        load: load::<G> as *const () as usize,
        store: store::<G> as *const () as usize,
        rmw: rmw::<G> as *const () as usize,
        cas: cas::<G> as *const () as usize,
        probe_write: probe_write::<G> as *const () as usize,
        fp: fp::<G> as *const () as usize,
        fp_flags_get: fp_flags_get::<G> as *const () as usize,
        fp_flags_clear: fp_flags_clear::<G> as *const () as usize,
        flat_index: G::FLAT_INDEX,
    }
}
