//! Guest architectures as the debugger sees them: where each register is in the bytes of `VcpuDebug`.

use gdbstub::arch::{Arch, Registers};
use gdbstub_arch::aarch64::AArch64;
use gdbstub_arch::aarch64::reg::AArch64CoreRegs;
use gdbstub_arch::aarch64::reg::id::AArch64RegId;
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use gdbstub_arch::x86::reg::id::{X86_64CoreRegId, X86SegmentRegId, X87FpuInternalRegId};
use std::ops::Range;

/// An architecture.
pub trait GuestArch: 'static {
    type Arch: Arch<Usize = u64, BreakpointKind = usize>;
    /// All registers from the bytes.
    fn read(data: &[u8], registers: &mut <Self::Arch as Arch>::Registers);
    /// The bytes of all registers.
    fn write(registers: &<Self::Arch as Arch>::Registers) -> Vec<u8>;
    /// Where one register is.
    fn place(register: <Self::Arch as Arch>::RegId) -> Option<Range<usize>>;
}

/// Arm, 64-bit.
pub enum Aarch64 {}

impl GuestArch for Aarch64 {
    type Arch = AArch64;

    fn read(data: &[u8], regs: &mut AArch64CoreRegs) {
        let mut at = 0;
        let mut take = |n: usize| {
            let mut bytes = [0; 16];
            if let Some(part) = data.get(at..at + n) {
                bytes[..n].copy_from_slice(part);
            }
            at += n;
            u128::from_le_bytes(bytes)
        };
        for x in &mut regs.x {
            *x = take(8) as u64;
        }
        regs.sp = take(8) as u64;
        regs.pc = take(8) as u64;
        regs.cpsr = take(4) as u32;
        for v in &mut regs.v {
            *v = take(16);
        }
        regs.fpsr = take(4) as u32;
        regs.fpcr = take(4) as u32;
    }
    fn write(regs: &AArch64CoreRegs) -> Vec<u8> {
        let mut data = Vec::with_capacity(788);
        for x in regs.x.iter().chain([&regs.sp, &regs.pc]) {
            data.extend_from_slice(&x.to_le_bytes());
        }
        data.extend_from_slice(&regs.cpsr.to_le_bytes());
        for v in &regs.v {
            data.extend_from_slice(&v.to_le_bytes());
        }
        data.extend_from_slice(&regs.fpsr.to_le_bytes());
        data.extend_from_slice(&regs.fpcr.to_le_bytes());
        data
    }
    fn place(register: AArch64RegId) -> Option<Range<usize>> {
        const PSTATE: usize = 33 * 8;
        const V: usize = PSTATE + 4;
        let (start, len) = match register {
            AArch64RegId::X(n) => (usize::from(n) * 8, 8),
            AArch64RegId::Sp => (31 * 8, 8),
            AArch64RegId::Pc => (32 * 8, 8),
            AArch64RegId::Pstate => (PSTATE, 4),
            AArch64RegId::V(n) => (V + usize::from(n) * 16, 16),
            AArch64RegId::FPSR => (V + 32 * 16, 4),
            AArch64RegId::FPCR => (V + 32 * 16 + 4, 4),
            _ => return None,
        };
        Some(start..start + len)
    }
}

/// x86, 64-bit: the bytes are in the order of GDB's protocol.
pub enum X86_64 {}

impl GuestArch for X86_64 {
    type Arch = X86_64_SSE;

    fn read(data: &[u8], regs: &mut X86_64CoreRegs) {
        // A vCPU that has ended gives no bytes: the registers stay zero.
        let _ = regs.gdb_deserialize(data);
    }
    fn write(regs: &X86_64CoreRegs) -> Vec<u8> {
        let mut data = Vec::with_capacity(536);
        regs.gdb_serialize(|b| data.push(b.unwrap_or(0)));
        data
    }
    fn place(register: X86_64CoreRegId) -> Option<Range<usize>> {
        const SEGMENTS: usize = 0x8c;
        const ST: usize = 0xa4;
        const FPU: usize = 0xf4;
        const XMM: usize = 0x114;
        let (start, len) = match register {
            X86_64CoreRegId::Gpr(n) => (usize::from(n) * 8, 8),
            X86_64CoreRegId::Rip => (0x80, 8),
            X86_64CoreRegId::Eflags => (0x88, 4),
            X86_64CoreRegId::Segment(s) => {
                let n = match s {
                    X86SegmentRegId::CS => 0,
                    X86SegmentRegId::SS => 1,
                    X86SegmentRegId::DS => 2,
                    X86SegmentRegId::ES => 3,
                    X86SegmentRegId::FS => 4,
                    X86SegmentRegId::GS => 5,
                };
                (SEGMENTS + n * 4, 4)
            }
            X86_64CoreRegId::St(n) => (ST + usize::from(n) * 10, 10),
            X86_64CoreRegId::Fpu(f) => {
                let n = match f {
                    X87FpuInternalRegId::Fctrl => 0,
                    X87FpuInternalRegId::Fstat => 1,
                    X87FpuInternalRegId::Ftag => 2,
                    X87FpuInternalRegId::Fiseg => 3,
                    X87FpuInternalRegId::Fioff => 4,
                    X87FpuInternalRegId::Foseg => 5,
                    X87FpuInternalRegId::Fooff => 6,
                    X87FpuInternalRegId::Fop => 7,
                };
                (FPU + n * 4, 4)
            }
            X86_64CoreRegId::Xmm(n) => (XMM + usize::from(n) * 16, 16),
            X86_64CoreRegId::Mxcsr => (XMM + 256, 4),
            _ => return None,
        };
        Some(start..start + len)
    }
}
