//! SSE and AVX (vol. 1, chapters 10–14). XMM registers are slots of 128 bits, the upper halves of YMM registers others: an
//! instruction of 256 bits is done half by half. Legacy SSE keeps the upper half, VEX.128 clears it.

mod compare;
mod convert;
mod extract;
pub mod helpers;
mod lanes;
mod moves;
mod permute;
mod text;

use super::{Flow, Mem, Translator};
use crate::exception::Vector;
use crate::state::slots;
use iced_x86::{EncodingKind, Mnemonic, OpKind, Register};
use rhea_ir::{MemOp, Op, Type, Value};

/// A vector operand: one or two halves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves(Value, Option<Value>);

impl Halves {
    fn get(self, half: u32) -> Value {
        if half == 0 { self.0 } else { self.1.unwrap_or(self.0) }
    }
}

impl Translator<'_, '_> {
    pub(super) fn sse(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        if m == Crc32 {
            return Some(self.crc32());
        }
        let regs = (0..self.i.op_count()).filter(|&n| self.i.op_kind(n) == OpKind::Register);
        let vector = regs.map(|n| self.i.op_register(n)).any(|r| r.is_xmm() || r.is_ymm());
        match m {
            Ldmxcsr | Vldmxcsr | Stmxcsr | Vstmxcsr => return Some(self.mxcsr_access(matches!(m, Stmxcsr | Vstmxcsr))),
            _ => {}
        }
        let without = matches!(
            m,
            Vzeroupper
                | Vzeroall
                | Cvtps2pi
                | Cvttps2pi
                | Cvtpd2pi
                | Cvttpd2pi
                | Cvtss2si
                | Cvttss2si
                | Cvtsd2si
                | Cvttsd2si
                | Vcvtss2si
                | Vcvttss2si
                | Vcvtsd2si
                | Vcvttsd2si
        );
        if !vector && !without {
            return None;
        }
        if let Some(v) = self.sse_precondition() {
            return Some(self.fault(v, None));
        }
        if let Some(flow) = self.sse_moves(m) {
            return Some(flow);
        }
        if let Some(flow) = self.sse_lanes(m) {
            return Some(flow);
        }
        if let Some(flow) = self.sse_convert(m) {
            return Some(flow);
        }
        if let Some(flow) = self.sse_extract(m) {
            return Some(flow);
        }
        if let Some(flow) = self.sse_permute(m) {
            return Some(flow);
        }
        self.sse_text(m)
    }

    pub(super) fn vex(&self) -> bool {
        self.i.code().encoding() == EncodingKind::VEX
    }

    /// #UD and #NM before anything else (vol. 2, 2.4).
    fn sse_precondition(&self) -> Option<Vector> {
        let undefined = if self.vex() {
            !self.mode.avx() || !self.mode.protected() || self.mode.vm86()
        } else {
            self.mode.sse_ud()
        };
        if undefined {
            Some(Vector::InvalidOpcode)
        } else if self.mode.ts() {
            Some(Vector::DeviceNotAvailable)
        } else {
            None
        }
    }

    // ---- operands ----

    /// The number of halves that the destination has.
    fn halves(&self) -> u32 {
        let wide =
            |n: u32| n < self.i.op_count() && self.i.op_kind(n) == OpKind::Register && self.i.op_register(n).is_ymm();
        1 + (wide(0) || wide(1)) as u32
    }

    fn vreg(&mut self, r: Register) -> Halves {
        let n = r.number() as u32;
        let lo = self.xmm(n);
        let hi = if r.is_ymm() { Some(self.ymm_hi(n)) } else { None };
        Halves(lo, hi)
    }

    /// Loads the lowest 1, 2, 4, 8 or all 16 bytes of a vector, the others zero.
    fn load_low(&mut self, bytes: u32, m: Mem, aligned: bool) -> Value {
        match bytes {
            1 | 2 => {
                let v = self.load(bytes * 8, m);
                self.b.vfromscalar(v)
            }
            4 | 8 => {
                let op = self.mem_op(bytes * 8);
                self.b.load(Type::V128, op, m.addr, m.disp)
            }
            _ => self.load_v(m, aligned),
        }
    }
    /// Stores the lowest 4 or 8 bytes of a vector, or all.
    fn store_low(&mut self, bytes: u32, m: Mem, v: Value, aligned: bool) {
        match bytes {
            4 | 8 => {
                let op = self.mem_op(bytes * 8);
                self.b.store(op, m.addr, m.disp, v);
            }
            _ => self.store_v(m, v, aligned),
        }
    }

    /// A vector source: a register, or as much memory as the instruction reads. Operands of legacy SSE in memory must be
    /// aligned.
    fn vsrc(&mut self, n: u32) -> Halves {
        // Processors differ in whether SHA instructions want it; those of AMD do not.
        self.vsrc_aligned(n, !self.vex() && !self.is_sha())
    }
    fn is_sha(&self) -> bool {
        use Mnemonic::*;
        matches!(self.i.mnemonic(), Sha1nexte | Sha1msg1 | Sha1msg2 | Sha1rnds4 | Sha256msg1 | Sha256msg2 | Sha256rnds2)
    }
    fn vsrc_aligned(&mut self, n: u32, aligned: bool) -> Halves {
        if !self.is_mem(n) {
            let r = self.i.op_register(n);
            return self.vreg(r);
        }
        let bytes = self.i.memory_size().size() as u32;
        let m = self.ea(bytes, false);
        if bytes < 32 {
            return Halves(self.load_low(bytes, m, aligned && bytes == 16), None);
        }
        self.load_256(m, aligned)
    }
    fn load_256(&mut self, m: Mem, aligned: bool) -> Halves {
        let op = MemOp::new(4, self.mode.mmu_idx());
        let first = if aligned { op.align(5) } else { op };
        let lo = self.b.load(Type::V128, first, m.addr, m.disp);
        let hi = self.b.load(Type::V128, op, m.addr, m.disp.wrapping_add(16));
        Halves(lo, Some(hi))
    }
    /// Stores 32 bytes, or none if any of them cannot be.
    fn store_256(&mut self, m: Mem, v: Halves, aligned: bool) {
        let op = MemOp::new(4, self.mode.mmu_idx());
        let first = if aligned { op.align(5) } else { op };
        if !aligned {
            self.b.probe_write(op, m.addr, m.disp.wrapping_add(16));
        }
        self.b.store(first, m.addr, m.disp, v.get(0));
        self.b.store(op, m.addr, m.disp.wrapping_add(16), v.get(1));
    }

    /// Writes a vector register as the encoding does.
    fn set_v(&mut self, r: Register, v: Halves) {
        let n = r.number() as u32;
        self.set_xmm(n, v.0);
        if self.vex() {
            let hi = match v.1 {
                Some(hi) if r.is_ymm() => hi,
                _ => self.b.vconst(0),
            };
            self.set_ymm_hi(n, hi);
        }
    }
    fn set_dst(&mut self, v: Halves) {
        let r = self.i.op_register(0);
        self.set_v(r, v);
    }
    fn set_dst_low(&mut self, v: Value) {
        self.set_dst(Halves(v, None));
    }

    /// Operand numbers of the two sources of a three-operand operation: legacy SSE has the first in the destination.
    fn sources(&self) -> (u32, u32) {
        if self.vex() { (1, 2) } else { (0, 1) }
    }

    fn imm8(&self) -> u64 {
        self.i.immediate8() as u64
    }

    // ---- floating-point exceptions ----

    /// Runs an operation that raises sticky FP flags. If one of the exceptions is unmasked, its flags are looked at before
    /// anything is written.
    fn with_fp<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        self.with_fp_and(f, |_, _, flags| flags)
    }
    /// The same for arithmetic whose results may leave the range of their format, where flags depend on what is masked.
    fn with_arithmetic(&mut self, f: impl FnOnce(&mut Self) -> Halves) -> Halves {
        self.with_fp_and(f, |t, r, flags| {
            let flags = t.range_flags(flags, r.0);
            r.1.map_or(flags, |high| t.range_flags(flags, high))
        })
    }
    /// `flags` with those of the operation that made `v`, as they are with an unmasked overflow or underflow.
    fn range_flags(&mut self, flags: Value, v: Value) -> Value {
        let i = *self.b.func.inst(v);
        let count = match i.op {
            Op::FSimd1 => 1,
            Op::FSimd2 => 2,
            Op::FSimd3 => 3,
            // Two results put together.
            Op::Simd2 => return i.args[..2].iter().fold(flags, |flags, &part| self.range_flags(flags, part)),
            _ => return flags,
        };
        let arg = |n: usize| i.args[if n < count { n } else { 0 }];
        let what = self.c64(u64::from(i.aux) | i.imm << 32);
        let more = self.b.call(helpers::RANGE_FLAGS, &[arg(0), arg(1), arg(2), what]);
        self.b.or(flags, more)
    }
    fn with_fp_and<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> T,
        more: impl FnOnce(&mut Self, &T, Value) -> Value,
    ) -> T {
        if !self.mode.fp_unmasked() {
            return f(self);
        }
        let before = self.b.op0(Op::FpFlagsGet, Type::I32);
        self.b.op0(Op::FpFlagsClear, Type::Void);
        let r = f(self);
        let after = self.b.op0(Op::FpFlagsGet, Type::I32);
        let after = more(self, &r, after);
        // The helper keeps them.
        self.b.op0(Op::FpFlagsClear, Type::Void);
        self.b.call(helpers::FP_CHECK, &[before, after]);
        r
    }

    /// Completes `X86Cpu::mxcsr` by the flags of the host's unit, for a helper that reads it.
    pub fn fold_mxcsr(&mut self) {
        let flags = self.b.op0(Op::FpFlagsGet, Type::I32);
        self.b.call(helpers::FOLD_FLAGS, &[flags]);
    }

    /// LDMXCSR and STMXCSR.
    fn mxcsr_access(&mut self, store: bool) -> Flow {
        if let Some(v) = self.sse_precondition() {
            return self.fault(v, None);
        }
        let at = self.ea(4, store);
        if store {
            let flags = self.b.op0(Op::FpFlagsGet, Type::I32);
            let flags = self.and_imm(flags, helpers::mxcsr::FLAGS as u64);
            let v = self.b.get(slots::MXCSR);
            let v = self.b.or(v, flags);
            self.store(32, at, v);
            return Flow::Next;
        }
        let v = self.load(32, at);
        let bad = self.and_imm(v, !helpers::mxcsr::WRITABLE as u64);
        let bad = self.b.op1(Op::ToBool, Type::Bool, bad, 0, 0);
        self.raise_if(bad, |t| t.raise(Vector::GeneralProtection, Some(0)));
        self.b.op0(Op::FpFlagsClear, Type::Void);
        self.end_with_next(helpers::LOAD_MXCSR, &[v])
    }

    /// CRC32 works on general registers (vol. 2).
    fn crc32(&mut self) -> Flow {
        let bits = self.op_bits(1);
        let to = self.op_bits(0);
        let data = self.read(1, bits);
        let old = self.read(0, to);
        let old = if to == 64 { self.b.trunc(old) } else { old };
        let r = self.b.op2(Op::Crc32c, Type::I32, old, data, 0, bits as u64);
        let r = if to == 64 { self.b.zext64(r) } else { r };
        self.write(0, to, r);
        Flow::Next
    }
}
