//! Conversions, compares that set EFLAGS, and MXCSR (vol. 1, 10.4.3, 11.4.1.6, 10.2.3).

use super::super::{Flow, Translator};
use super::{Halves, helpers};
use crate::x87;
use iced_x86::Mnemonic;
use rhea_ir::simd::{Fmt, SimdOp};
use rhea_ir::{Op, Type, Value};

impl Translator<'_, '_> {
    pub(super) fn sse_convert(&mut self, m: Mnemonic) -> Option<Flow> {
        use Mnemonic::*;
        use SimdOp as O;
        match m {
            Comiss | Vcomiss => self.fp_compare(2, 4),
            Comisd | Vcomisd => self.fp_compare(3, 8),
            Ucomiss | Vucomiss => self.fp_compare(0, 4),
            Ucomisd | Vucomisd => self.fp_compare(1, 8),
            Ptest | Vptest => self.vector_test(0),
            Vtestps => self.vector_test(1),
            Vtestpd => self.vector_test(2),
            Cvtsi2ss | Vcvtsi2ss => self.from_int(Fmt::Ss),
            Cvtsi2sd | Vcvtsi2sd => self.from_int(Fmt::Sd),
            Cvtss2si | Vcvtss2si => self.to_int(O::Cvt2Si, Fmt::Ss),
            Cvtsd2si | Vcvtsd2si => self.to_int(O::Cvt2Si, Fmt::Sd),
            Cvttss2si | Vcvttss2si => self.to_int(O::Cvtt2Si, Fmt::Ss),
            Cvttsd2si | Vcvttsd2si => self.to_int(O::Cvtt2Si, Fmt::Sd),
            Cvtss2sd | Vcvtss2sd => self.binary_fp(|t, a, b, _| t.b.simd(O::CvtSs2Sd, Fmt::Ps, &[a, b], 0)),
            Cvtsd2ss | Vcvtsd2ss => self.binary_of(true, |t, a, b, _| t.b.simd(O::CvtSd2Ss, Fmt::Ps, &[a, b], 0)),
            Cvtdq2ps | Vcvtdq2ps => self.convert_lanes(O::CvtDq2Ps, Fmt::Ps),
            Cvtps2dq | Vcvtps2dq => self.convert_lanes(O::Cvt2Dq, Fmt::Ps),
            Cvttps2dq | Vcvttps2dq => self.convert_lanes(O::Cvtt2Dq, Fmt::Ps),
            Cvtpd2dq | Vcvtpd2dq => self.convert_narrow(O::Cvt2Dq, Fmt::Pd),
            Cvttpd2dq | Vcvttpd2dq => self.convert_narrow(O::Cvtt2Dq, Fmt::Pd),
            Cvtpd2ps | Vcvtpd2ps => self.convert_narrow(O::CvtPd2Ps, Fmt::Ps),
            Cvtdq2pd | Vcvtdq2pd => self.convert_wide(O::CvtDq2Pd),
            Cvtps2pd | Vcvtps2pd => self.convert_wide(O::CvtPs2Pd),
            Vcvtph2ps => self.convert_wide(O::CvtPh2Ps),
            Vcvtps2ph => self.to_half(),
            Cvtpi2ps => {
                let mmx = !self.is_mem(1);
                self.from_mmx(O::CvtDq2Ps, mmx);
            }
            Cvtpi2pd => {
                // With a memory operand the state stays x87's.
                let mmx = !self.is_mem(1);
                self.from_mmx(O::CvtDq2Pd, mmx);
            }
            Cvtps2pi => self.to_mmx(O::Cvt2Dq, Fmt::Ps),
            Cvttps2pi => self.to_mmx(O::Cvtt2Dq, Fmt::Ps),
            Cvtpd2pi => self.to_mmx(O::Cvt2Dq, Fmt::Pd),
            Cvttpd2pi => self.to_mmx(O::Cvtt2Dq, Fmt::Pd),
            _ => return None,
        }
        Some(Flow::Next)
    }

    /// ZF, PF, CF by the relation of the lowest lanes; OF, SF, AF clear. `aux` as `Op::FlagsFCom` has it.
    fn fp_compare(&mut self, aux: u32, bytes: u32) {
        debug_assert!(!self.is_mem(1) || self.i.memory_size().size() as u32 == bytes);
        let (a, b) = (self.vsrc(0), self.vsrc(1));
        let f = self.with_fp(|t| t.b.op2(Op::FlagsFCom, Type::I32, a.0, b.0, aux, 0));
        self.set_cc(f);
        self.set_cf(f);
    }

    fn vector_test(&mut self, aux: u32) {
        let (a, b) = (self.vsrc(0), self.vsrc(1));
        let mut f = self.b.op2(Op::FlagsVTest, Type::I32, a.0, b.0, aux, 0);
        if let (Some(a), Some(b)) = (a.1, b.1) {
            let hi = self.b.op2(Op::FlagsVTest, Type::I32, a, b, aux, 0);
            f = self.b.and(f, hi);
        }
        self.set_cc(f);
        self.set_cf(f);
    }

    fn from_int(&mut self, fmt: Fmt) {
        let last = self.i.op_count() - 1;
        let bits = self.op_bits(last);
        let x = self.read(last, bits);
        let a = self.sources().0;
        let a = self.vsrc(a);
        let r = self.with_fp(|t| t.b.simd(SimdOp::CvtSi2, fmt, &[a.0, x], bits as u64));
        self.set_dst_low(r);
    }

    fn to_int(&mut self, op: SimdOp, fmt: Fmt) {
        let bits = self.op_bits(0);
        let v = self.vsrc(1);
        let r = self.with_fp(|t| t.b.simd_to(Self::ty(bits), op, fmt, &[v.0], 0));
        self.write(0, bits, r);
    }

    /// Lanes of one size to lanes of the same.
    fn convert_lanes(&mut self, op: SimdOp, fmt: Fmt) {
        let n = self.halves();
        let v = self.vsrc(1);
        let r = self.with_fp(|t| t.each(n, |t, h| t.b.simd(op, fmt, &[v.get(h)], 0)));
        self.set_dst(r);
    }

    /// Two halves of quadwords to one of doublewords.
    fn convert_narrow(&mut self, op: SimdOp, fmt: Fmt) {
        let v = self.vsrc(1);
        let all = |t: &mut Self| {
            let lo = t.b.simd(op, fmt, &[v.0], 0);
            match v.1 {
                Some(hi) => {
                    let hi = t.b.simd(op, fmt, &[hi], 0);
                    Halves(t.b.simd(SimdOp::UnpckLQdq, Fmt::Ps, &[lo, hi], 0), None)
                }
                None => Halves(lo, None),
            }
        };
        let r = if op == SimdOp::CvtPd2Ps { self.with_arithmetic(all) } else { self.with_fp(all) };
        self.set_dst(r);
    }

    /// The low quadword's lanes to twice their size, and the high one's to the upper half.
    fn convert_wide(&mut self, op: SimdOp) {
        let n = self.halves();
        let v = self.vsrc_aligned(1, false);
        let r = self.with_fp(|t| {
            t.each(n, |t, h| {
                let from = if h == 0 { v.0 } else { t.b.simd(SimdOp::UnpckHQdq, Fmt::Ps, &[v.0, v.0], 0) };
                t.b.simd(op, Fmt::Ps, &[from], 0)
            })
        });
        self.set_dst(r);
    }

    fn to_half(&mut self) {
        let imm = self.imm8() & 7;
        let r = self.i.op_register(1);
        let v = self.vreg(r);
        // The flags of a store that faults stay unseen.
        if self.is_mem(0) {
            let bytes = if v.1.is_some() { 16 } else { 8 };
            let at = self.ea(bytes, true);
            let op = self.mem_op(64);
            self.b.probe_write(
                if bytes == 16 { rhea_ir::MemOp::new(4, self.mode.mmu_idx()) } else { op },
                at.addr,
                at.disp,
            );
            let x = self.halves_to_half(v, imm);
            self.store_low(bytes, at, x, false);
        } else {
            let x = self.halves_to_half(v, imm);
            self.set_dst_low(x);
        }
    }
    fn halves_to_half(&mut self, v: Halves, imm: u64) -> Value {
        let both = |t: &mut Self| {
            let lo = t.b.simd(SimdOp::CvtPs2Ph, Fmt::Ps, &[v.0], imm);
            match v.1 {
                Some(hi) => {
                    let hi = t.b.simd(SimdOp::CvtPs2Ph, Fmt::Ps, &[hi], imm);
                    Halves(t.b.simd(SimdOp::UnpckLQdq, Fmt::Ps, &[lo, hi], 0), None)
                }
                None => Halves(lo, None),
            }
        };
        self.with_arithmetic(both).0
    }

    // ---- between XMM and MMX registers: a transition to MMX state ----

    pub(super) fn mmx_read(&mut self, n: u32) -> Value {
        let r = self.i.op_register(n).number() as u32;
        self.b.get(x87::slots::mm(r & 7))
    }
    /// #MF if an x87 exception waits.
    pub(super) fn mmx_check(&mut self) {
        self.b.call(helpers::MMX_CHECK, &[]);
    }

    fn from_mmx(&mut self, op: SimdOp, mmx: bool) {
        if mmx {
            self.mmx_check();
        }
        let x = if self.is_mem(1) {
            let at = self.ea(8, false);
            self.load(64, at)
        } else {
            self.mmx_read(1)
        };
        if mmx {
            self.mmx_state();
        }
        let v = self.b.vfromscalar(x);
        let r = self.with_fp(|t| t.b.simd(op, Fmt::Ps, &[v], 0));
        if op == SimdOp::CvtDq2Ps {
            let old = self.vsrc(0);
            let r = self.b.simd(SimdOp::MovSd, Fmt::Ps, &[old.0, r], 0);
            self.set_dst_low(r);
        } else {
            self.set_dst_low(r);
        }
    }

    fn to_mmx(&mut self, op: SimdOp, fmt: Fmt) {
        self.mmx_check();
        let v = self.vsrc(1);
        // Only the two lanes converted may raise flags.
        self.mmx_state();
        let v = if fmt == Fmt::Ps { self.b.op1(Op::VZeroHi, Type::V128, v.0, 0, 0) } else { v.0 };
        let r = self.with_fp(|t| t.b.simd(op, fmt, &[v], 0));
        let r = self.low_int(r, 64);
        self.set_mm(r);
    }
}
