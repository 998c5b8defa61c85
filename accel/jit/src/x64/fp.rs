//! Floating point on the host's unit. A NaN result (or a conversion out of range) goes to the exact slow path, which
//! applies the guest's NaN rules; sticky flags gather in MXCSR. So does a result that may have been tiny before rounding,
//! which is when the guest's underflow flag tells, while the host's looks after rounding: the least normal number.

use super::asm::{Alu, Cc, Label, Shift};
use super::cond::Test;
use super::emit::Emit;
use super::stubs::Stub;
use super::*;
use rhea_ir::func::{Function, Inst, Value};
use rhea_ir::guest::NanRule;
use rhea_ir::op::{Cond, Op, fp_imm};
use rhea_ir::types::{Lane, Type};

/// rhea_float rounding numbers 0–3 as ROUNDxx immediates; others have no host form.
fn round_imm(aux: u64, current: u8) -> Option<u8> {
    let mode = if aux & 0xff == 0xff { current as u64 } else { aux & 0xff };
    let imm = match mode {
        0 => 0,
        1 => 2,
        2 => 1,
        3 => 3,
        _ => return None,
    };
    // Bit 3 suppresses the inexact flag.
    Some(imm | if aux & 0x100 != 0 { 0 } else { 8 })
}

/// True if the operation is done by the run time even on the hot path.
pub(super) fn always_calls(f: &Function, i: &Inst) -> bool {
    match i.op {
        Op::FlagsFCom => return !f.fp.is_host_x86(),
        Op::FSimd1 | Op::FSimd2 | Op::FSimd3 => return !f.fp.is_host_x86() || super::simd::always_calls(i),
        _ => {}
    }
    if i.op == Op::FlagsFCmp {
        return !f.fp.host_compares();
    }
    if f.fp.flush || f.fp.nan_rule == NanRule::X86 {
        return true;
    }
    let cur = f.fp.rounding;
    // FP lanes of half precision have no host form.
    let vector = i.ty == Type::V128 && !matches!(i.op, Op::VFExtend | Op::VFNarrow);
    if vector && !matches!(i.lane(), Lane::S | Lane::D) {
        return true;
    }
    match i.op {
        Op::FRound => round_imm(i.aux as u64, cur).is_none(),
        Op::FToS | Op::FToU => round_imm(i.aux as u64, cur).is_none(),
        Op::VFRound => round_imm(i.imm, cur).is_none(),
        Op::VFToS => round_imm(i.imm, cur).is_none() || i.lane() != Lane::S,
        Op::VFToU | Op::VUToF => true,
        _ => false,
    }
}

impl Emit<'_> {
    fn fp_stub(&mut self, v: Value) -> (Label, Label) {
        let label = self.asm.label();
        let back = self.asm.label();
        self.stubs.push(Stub::Fp { v, label, back });
        (label, back)
    }

    /// A register for the result that no argument occupies, so that the slow path still finds them.
    fn fresh_xmm(&self, v: Value, i: &Inst) -> u8 {
        let d = self.dst_xmm(v, X13);
        let used = i.args().iter().any(|&a| self.loc(a) == crate::regalloc::Loc::Xmm(d));
        if used { X13 } else { d }
    }

    fn nan_check(&mut self, double: bool, r: u8, label: Label) {
        if double {
            self.asm.vucomisd(r, r)
        } else {
            self.asm.vucomiss(r, r)
        }
        self.asm.jcc(Cc::P, label);
    }

    fn nan_check_lanes(&mut self, double: bool, r: u8, label: Label) {
        if double {
            self.asm.vcmppd(X14, r, r, 3)
        } else {
            self.asm.vcmpps(X14, r, r, 3)
        }
        self.asm.vptest(X14, X14);
        self.asm.jcc(Cc::Ne, label);
    }

    /// Constants of a `double` or single in all lanes: everything but the sign, the least normal number.
    fn range_data(&mut self, double: bool) -> (Label, Label) {
        let (magnitude, least): (u64, u64) =
            if double { (u64::MAX >> 1, 1 << 52) } else { (0x7fff_ffff_7fff_ffff, 0x0080_0000_0080_0000) };
        let both = |x: u64| x as u128 | (x as u128) << 64;
        (self.data(both(magnitude)), self.data(both(least)))
    }

    /// To the slow path if the result is NaN or the least normal number of either sign.
    fn tiny_check(&mut self, double: bool, r: u8, label: Label) {
        let (magnitude, least) = self.range_data(double);
        self.asm.vandps_label(X14, r, magnitude);
        self.asm.vucomi_label(double, X14, least);
        // Equal or unordered.
        self.asm.jcc(Cc::E, label);
    }

    fn tiny_check_lanes(&mut self, double: bool, r: u8, label: Label) {
        const EQUAL_OR_UNORDERED: u8 = 8;
        let (magnitude, least) = self.range_data(double);
        self.asm.vandps_label(X14, r, magnitude);
        self.asm.vload_label(X15, least);
        if double {
            self.asm.vcmppd(X14, X14, X15, EQUAL_OR_UNORDERED)
        } else {
            self.asm.vcmpps(X14, X14, X15, EQUAL_OR_UNORDERED)
        }
        self.asm.vptest(X14, X14);
        self.asm.jcc(Cc::Ne, label);
    }

    pub(super) fn fp_op(&mut self, v: Value, i: &Inst) {
        match i.op {
            Op::FSimd1 | Op::FSimd2 | Op::FSimd3 if self.fp.is_host_x86() => return self.simd_op(v, i),
            Op::FlagsFCom if self.fp.is_host_x86() => {
                let d = self.dst_gpr(v, RAX);
                self.vector_flags(i, d);
                return self.put_gpr(v, d);
            }
            _ => {}
        }
        if i.op == Op::FlagsFCmp && self.fp.host_compares() {
            let d = self.dst_gpr(v, RAX);
            if self.fp.nan_rule == NanRule::Ppc {
                let (slow, back) = self.fp_stub(v);
                self.flags_fcmp(i, d, Some(slow));
                self.put_gpr(v, d);
                self.asm.bind(back);
                return;
            }
            self.flags_fcmp(i, d, None);
            self.put_gpr(v, d);
            return;
        }
        if always_calls(self.f, i) {
            return self.fp_slow(v);
        }
        let arg_ty = self.ty(i.args[0]);
        let dbl = i.ty == Type::F64;
        match i.op {
            Op::FAdd | Op::FSub | Op::FMul | Op::FDiv => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                match (i.op, dbl) {
                    (Op::FAdd, true) => self.asm.vaddsd(d, a, b),
                    (Op::FAdd, false) => self.asm.vaddss(d, a, b),
                    (Op::FSub, true) => self.asm.vsubsd(d, a, b),
                    (Op::FSub, false) => self.asm.vsubss(d, a, b),
                    (Op::FMul, true) => self.asm.vmulsd(d, a, b),
                    (Op::FMul, false) => self.asm.vmulss(d, a, b),
                    (_, true) => self.asm.vdivsd(d, a, b),
                    (_, false) => self.asm.vdivss(d, a, b),
                }
                // A tiny sum is exact.
                if i.imm & fp_imm::SINGLE != 0 && dbl {
                    self.nan_check(dbl, d, slow);
                    self.to_single(d, slow);
                } else if matches!(i.op, Op::FAdd | Op::FSub) {
                    self.nan_check(dbl, d, slow);
                } else {
                    self.tiny_check(dbl, d, slow);
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::FSqrt => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                if dbl {
                    self.asm.vsqrtsd(d, a, a)
                } else {
                    self.asm.vsqrtss(d, a, a)
                }
                self.nan_check(dbl, d, slow);
                if i.imm & fp_imm::SINGLE != 0 && dbl {
                    self.to_single(d, slow);
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::FMulAdd => {
                let (slow, back) = self.fp_stub(v);
                self.addend(i, dbl);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                if dbl {
                    self.asm.vfmadd231sd(X13, a, b)
                } else {
                    self.asm.vfmadd231ss(X13, a, b)
                }
                if i.imm & fp_imm::SINGLE != 0 && dbl {
                    self.nan_check(dbl, X13, slow);
                    self.to_single(X13, slow);
                } else {
                    self.tiny_check(dbl, X13, slow);
                }
                if i.imm & fp_imm::NEGATE_RESULT != 0 {
                    self.change_signs(X13, X13, dbl);
                }
                self.put_xmm(v, X13);
                self.asm.bind(back);
            }
            Op::FMin | Op::FMax | Op::FMinNum | Op::FMaxNum => {
                let (slow, back) = self.fp_stub(v);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                if dbl {
                    self.asm.vucomisd(a, b)
                } else {
                    self.asm.vucomiss(a, b)
                }
                self.asm.jcc(Cc::P, slow);
                let min = matches!(i.op, Op::FMin | Op::FMinNum);
                // Both orders, so that zeros of either sign combine as the guest wants.
                let d = X13;
                let both = |e: &mut Self, d: u8, a: u8, b: u8| match (min, dbl) {
                    (true, true) => e.asm.vminsd(d, a, b),
                    (true, false) => e.asm.vminss(d, a, b),
                    (false, true) => e.asm.vmaxsd(d, a, b),
                    (false, false) => e.asm.vmaxss(d, a, b),
                };
                both(self, X13, a, b);
                both(self, X15, b, a);
                if min {
                    self.asm.vorps(d, X13, X15)
                } else {
                    self.asm.vandps(d, X13, X15)
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::FRound => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                let imm = round_imm(i.aux as u64, self.fp.rounding).unwrap_or(0);
                if dbl {
                    self.asm.vroundsd(d, a, a, imm)
                } else {
                    self.asm.vroundss(d, a, a, imm)
                }
                self.nan_check(dbl, d, slow);
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::FNarrow if i.aux == 1 => self.store_single(v, i),
            Op::FExtend | Op::FNarrow => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                if dbl {
                    self.asm.vcvtss2sd(d, a, a);
                    self.nan_check(true, d, slow);
                } else {
                    self.asm.vcvtsd2ss(d, a, a);
                    self.tiny_check(false, d, slow);
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::FToS => {
                let (slow, back) = self.fp_stub(v);
                let double = arg_ty == Type::F64;
                let a = self.xmm(i.args[0], X14);
                // Quietly: out of range is invalid only, never inexact too.
                let whole = self.round_first(a, double, i.aux as u64, false);
                let w = i.ty == Type::I64;
                self.asm.vcvtt2si(double, w, RAX, whole);
                // The host's "indefinite" result is the only value whose predecessor overflows.
                self.asm.alu_ri(Alu::Cmp, w, RAX, 1);
                self.asm.jcc(Cc::O, slow);
                // In range: once more for the inexact flag.
                self.round_first(a, double, i.aux as u64, true);
                self.put_gpr(v, RAX);
                self.asm.bind(back);
            }
            Op::FToU => self.to_unsigned(v, i),
            Op::SToF => {
                let d = self.dst_xmm(v, X15);
                let w = arg_ty == Type::I64;
                let a = self.gpr(i.args[0], RAX);
                self.asm.vpxor(X14, X14, X14);
                self.asm.vcvtsi2f(dbl, w, d, X14, a);
                self.put_xmm(v, d);
            }
            Op::UToF => {
                let d = self.dst_xmm(v, X15);
                let a = self.gpr(i.args[0], RAX);
                self.asm.vpxor(X14, X14, X14);
                if arg_ty == Type::I64 {
                    let (slow, back) = self.fp_stub(v);
                    self.asm.test_rr(true, a, a);
                    self.asm.jcc(Cc::S, slow);
                    self.asm.vcvtsi2f(dbl, true, d, X14, a);
                    self.put_xmm(v, d);
                    self.asm.bind(back);
                } else {
                    self.asm.vcvtsi2f(dbl, true, d, X14, a);
                    self.put_xmm(v, d);
                }
            }
            _ => self.vfp_op(v, i),
        }
    }

    /// The addend of a fused operation into X13, with the sign it has there.
    fn addend(&mut self, i: &Inst, double: bool) {
        let c = self.xmm(i.args[2], X13);
        if i.imm & fp_imm::NEGATE_ADDEND != 0 {
            self.change_signs(X13, c, double);
        } else if c != X13 {
            self.asm.vmovaps(X13, c);
        }
    }

    fn change_signs(&mut self, d: u8, a: u8, double: bool) {
        let signs = if double { (1 << 63) | (1 << 127) } else { 0x8000_0000_8000_0000_8000_0000_8000_0000 };
        let l = self.data(signs);
        self.asm.vload_label(X15, l);
        self.asm.vpxor(d, a, X15);
    }

    /// Rounds the double in `r`, not NaN, to single precision, keeping it a double. What rounding twice would spoil, a result
    /// halfway between two singles, and results that are tiny go the slow path.
    fn to_single(&mut self, r: u8, slow: Label) {
        const LEAST_NORMAL: u64 = 897 << 53;
        self.asm.vmov_to_gpr(true, RAX, r);
        if self.fp.rounding == 0 {
            self.asm.mov_rr(false, RCX, RAX);
            self.asm.alu_ri(Alu::And, false, RCX, 0x1fff_ffff);
            self.asm.alu_ri(Alu::Cmp, false, RCX, 0x1000_0000);
            self.asm.jcc(Cc::E, slow);
        }
        // Zero wraps to the largest.
        self.asm.alu_rr(Alu::Add, true, RAX, RAX);
        self.asm.alu_ri(Alu::Sub, true, RAX, 1);
        self.asm.mov_ri(RCX, LEAST_NORMAL);
        self.asm.alu_rr(Alu::Cmp, true, RAX, RCX);
        self.asm.jcc(Cc::B, slow);
        self.asm.vcvtsd2ss(X14, r, r);
        self.asm.vcvtss2sd(r, X14, X14);
    }

    /// A double's bits as a store of a single drops them; denormals go the slow path.
    fn store_single(&mut self, v: Value, i: &Inst) {
        let (slow, back) = self.fp_stub(v);
        let d = self.fresh_xmm(v, i);
        let a = self.xmm(i.args[0], X14);
        self.asm.vmov_to_gpr(true, RAX, a);
        self.asm.lea_idx(true, RCX, RAX, RAX);
        // Zero wraps to the largest.
        self.asm.alu_ri(Alu::Sub, true, RCX, 1);
        self.asm.shift_i(Shift::Shr, true, RCX, 53);
        self.asm.alu_ri(Alu::Cmp, false, RCX, 896);
        self.asm.jcc(Cc::Be, slow);
        self.asm.mov_rr(true, RCX, RAX);
        self.asm.shift_i(Shift::Shr, true, RCX, 32);
        self.asm.alu_ri(Alu::And, false, RCX, 0xc000_0000u32 as i32);
        self.asm.shift_i(Shift::Shr, true, RAX, 29);
        self.asm.alu_ri(Alu::And, false, RAX, 0x3fff_ffff);
        self.asm.alu_rr(Alu::Or, false, RAX, RCX);
        self.asm.vmov_from_gpr(false, d, RAX);
        self.put_xmm(v, d);
        self.asm.bind(back);
    }

    /// Rounds to an integral value first unless the mode is truncation.
    fn round_first(&mut self, a: u8, double: bool, aux: u64, inexact: bool) -> u8 {
        let imm = round_imm(aux | (inexact as u64) << 8, self.fp.rounding).unwrap_or(3);
        if imm & 3 == 3 {
            return a;
        }
        if double {
            self.asm.vroundsd(X13, a, a, imm)
        } else {
            self.asm.vroundss(X13, a, a, imm)
        }
        X13
    }

    /// Unsigned conversion: the operand's bits tell whether the host's signed conversion covers it, before any flag is
    /// raised.
    fn to_unsigned(&mut self, v: Value, i: &Inst) {
        let (slow, back) = self.fp_stub(v);
        let double = self.ty(i.args[0]) == Type::F64;
        let w = i.ty == Type::I64;
        let a = self.xmm(i.args[0], X14);
        // Exclusive upper bound: 2^63 for 64-bit results; for 32-bit ones 2^32, less one where rounding may carry.
        let limit: u64 = match (double, w) {
            (true, true) => 0x43e0_0000_0000_0000,
            (false, true) => 0x5f00_0000,
            (true, false) => 0x41ef_ffff_ffe0_0000,
            (false, false) => 0x4f80_0000,
        };
        self.asm.vmov_to_gpr(double, RAX, a);
        self.asm.mov_ri(RCX, limit);
        self.asm.alu_rr(Alu::Cmp, double, RAX, RCX);
        self.asm.jcc(Cc::Ae, slow);
        let a = self.round_first(a, double, i.aux as u64, true);
        self.asm.vcvtt2si(double, true, RAX, a);
        if !w {
            self.asm.mov_rr(false, RAX, RAX);
        }
        self.put_gpr(v, RAX);
        self.asm.bind(back);
    }

    /// The host compare of an FP compare, for its flags.
    pub(super) fn fcmp(&mut self, i: &Inst) {
        let a = self.xmm(i.args[0], X14);
        let b = self.xmm(i.args[1], X15);
        if i.op == Op::FlagsFCom { self.vector_compare(i) } else { self.ucomi(i, a, b) }
    }

    fn ucomi(&mut self, i: &Inst, a: u8, b: u8) {
        match (self.ty(i.args[0]) == Type::F64, i.aux & 1 != 0) {
            (true, true) => self.asm.vcomisd(a, b),
            (true, false) => self.asm.vucomisd(a, b),
            (false, true) => self.asm.vcomiss(a, b),
            (false, false) => self.asm.vucomiss(a, b),
        }
    }

    /// Compare for a condition of [`Op::FlagsFCmp`].
    pub(super) fn test_fcmp(&mut self, i: &Inst, cond: Cond) -> Test {
        let a = self.xmm(i.args[0], X14);
        let b = self.xmm(i.args[1], X15);
        // Less N; equal Z, C; greater C; unordered C, V. The host sets CF below, ZF equal, all three when unordered.
        let (swap, t) = match cond {
            Cond::Eq => (false, Test::And(Cc::Np, Cc::E)),
            Cond::Ne => (false, Test::Or(Cc::P, Cc::Ne)),
            Cond::Sgt => (false, Test::Cc(Cc::A)),
            Cond::Sge => (false, Test::Cc(Cc::Ae)),
            Cond::Slt => (false, Test::Cc(Cc::B)),
            Cond::Sle => (false, Test::Cc(Cc::Be)),
            Cond::Mi | Cond::Ult | Cond::CcAndNz => (true, Test::Cc(Cc::A)),
            Cond::Pl | Cond::Uge | Cond::CsOrZ => (true, Test::Cc(Cc::Be)),
            Cond::Ule => (true, Test::Cc(Cc::Ae)),
            Cond::Ugt => (true, Test::Cc(Cc::B)),
            Cond::Vs => (false, Test::Cc(Cc::P)),
            Cond::Vc => (false, Test::Cc(Cc::Np)),
            // There is no P.
            Cond::Ps | Cond::Pc => return self.constant_test(cond == Cond::Pc),
        };
        if swap {
            self.ucomi(i, b, a)
        } else {
            self.ucomi(i, a, b)
        }
        t
    }

    /// Packed flags of an FP compare into `d`.
    pub(super) fn flags_fcmp(&mut self, i: &Inst, d: u8, unordered: Option<Label>) {
        let a = self.xmm(i.args[0], X14);
        let b = self.xmm(i.args[1], X15);
        self.ucomi(i, a, b);
        if let Some(l) = unordered {
            self.asm.jcc(Cc::P, l);
        }
        // Greater, unless below, equal or, which sets all of the host's flags, unordered. MOV keeps the host's flags.
        self.asm.mov_ri(RAX, 0x100);
        let results = [(Cc::B, 0x8000), (Cc::E, 0x4100), (Cc::P, 0x101)];
        for &(cc, flags) in &results[..if unordered.is_some() { 2 } else { 3 }] {
            self.asm.mov_ri(RCX, flags);
            self.asm.cmov(cc, RAX, RCX);
        }
        if d != RAX {
            self.asm.mov_rr(false, d, RAX);
        }
    }

    fn vfp_op(&mut self, v: Value, i: &Inst) {
        let dbl = i.lane() == Lane::D;
        match i.op {
            Op::VFAdd | Op::VFSub | Op::VFMul | Op::VFDiv => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                match (i.op, dbl) {
                    (Op::VFAdd, true) => self.asm.vaddpd(d, a, b),
                    (Op::VFAdd, false) => self.asm.vaddps(d, a, b),
                    (Op::VFSub, true) => self.asm.vsubpd(d, a, b),
                    (Op::VFSub, false) => self.asm.vsubps(d, a, b),
                    (Op::VFMul, true) => self.asm.vmulpd(d, a, b),
                    (Op::VFMul, false) => self.asm.vmulps(d, a, b),
                    (_, true) => self.asm.vdivpd(d, a, b),
                    (_, false) => self.asm.vdivps(d, a, b),
                }
                if matches!(i.op, Op::VFAdd | Op::VFSub) {
                    self.nan_check_lanes(dbl, d, slow);
                } else {
                    self.tiny_check_lanes(dbl, d, slow);
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::VFSqrt => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                if dbl {
                    self.asm.vsqrtpd(d, a)
                } else {
                    self.asm.vsqrtps(d, a)
                }
                self.nan_check_lanes(dbl, d, slow);
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::VFMulAdd => {
                let (slow, back) = self.fp_stub(v);
                self.addend(i, dbl);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                if dbl {
                    self.asm.vfmadd231pd(X13, a, b)
                } else {
                    self.asm.vfmadd231ps(X13, a, b)
                }
                self.tiny_check_lanes(dbl, X13, slow);
                if i.imm & fp_imm::NEGATE_RESULT != 0 {
                    self.change_signs(X13, X13, dbl);
                }
                self.put_xmm(v, X13);
                self.asm.bind(back);
            }
            Op::VFMin | Op::VFMax | Op::VFMinNum | Op::VFMaxNum => {
                let (slow, back) = self.fp_stub(v);
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                // Unordered, quiet.
                if dbl {
                    self.asm.vcmppd(X13, a, b, 3)
                } else {
                    self.asm.vcmpps(X13, a, b, 3)
                }
                self.asm.vptest(X13, X13);
                self.asm.jcc(Cc::Ne, slow);
                let min = matches!(i.op, Op::VFMin | Op::VFMinNum);
                let both = |e: &mut Self, d: u8, a: u8, b: u8| match (min, dbl) {
                    (true, true) => e.asm.vminpd(d, a, b),
                    (true, false) => e.asm.vminps(d, a, b),
                    (false, true) => e.asm.vmaxpd(d, a, b),
                    (false, false) => e.asm.vmaxps(d, a, b),
                };
                both(self, X13, a, b);
                both(self, X15, b, a);
                if min {
                    self.asm.vorps(X13, X13, X15)
                } else {
                    self.asm.vandps(X13, X13, X15)
                }
                self.put_xmm(v, X13);
                self.asm.bind(back);
            }
            Op::VFCmpEq | Op::VFCmpGt | Op::VFCmpGe => {
                let causes = self.fp.nan_rule == NanRule::Ppc;
                let d = if causes { self.fresh_xmm(v, i) } else { self.dst_xmm(v, X13) };
                let a = self.xmm(i.args[0], X14);
                let b = self.xmm(i.args[1], X15);
                let (slow, back) = if causes { self.fp_stub(v) } else { (self.asm.label(), self.asm.label()) };
                if causes {
                    // Unordered, quiet.
                    if dbl {
                        self.asm.vcmppd(X13, a, b, 3)
                    } else {
                        self.asm.vcmpps(X13, a, b, 3)
                    }
                    self.asm.vptest(X13, X13);
                    self.asm.jcc(Cc::Ne, slow);
                }
                // EQ_OQ, GT_OS, GE_OS.
                let imm = match i.op {
                    Op::VFCmpEq => 0,
                    Op::VFCmpGt => 0x0e,
                    _ => 0x0d,
                };
                if dbl {
                    self.asm.vcmppd(d, a, b, imm)
                } else {
                    self.asm.vcmpps(d, a, b, imm)
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::VFRound => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                let imm = round_imm(i.imm, self.fp.rounding).unwrap_or(0);
                if dbl {
                    self.asm.vroundpd(d, a, imm)
                } else {
                    self.asm.vroundps(d, a, imm)
                }
                self.nan_check_lanes(dbl, d, slow);
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::VFExtend | Op::VFNarrow => {
                let (slow, back) = self.fp_stub(v);
                let d = self.fresh_xmm(v, i);
                let a = self.xmm(i.args[0], X14);
                if i.op == Op::VFExtend {
                    self.asm.vcvtps2pd(d, a);
                    self.nan_check_lanes(true, d, slow);
                } else {
                    self.asm.vcvtpd2ps(d, a);
                    self.tiny_check_lanes(false, d, slow);
                }
                self.put_xmm(v, d);
                self.asm.bind(back);
            }
            Op::VFToS => {
                // Lanes of single: out-of-range lanes give the host's indefinite value.
                let (slow, back) = self.fp_stub(v);
                let a = self.xmm(i.args[0], X14);
                let imm = round_imm(i.imm, self.fp.rounding).unwrap_or(3);
                let mut whole = a;
                if imm & 3 != 3 {
                    self.asm.vroundps(X13, a, imm);
                    whole = X13;
                }
                self.asm.vcvttps2dq(X13, whole);
                self.asm.vpcmpeqd(X15, X15, X15);
                self.asm.vpslld(X15, X15, 31);
                self.asm.vpcmpeqd(X15, X15, X13);
                self.asm.vptest(X15, X15);
                self.asm.jcc(Cc::Ne, slow);
                if imm & 3 != 3 {
                    // In range: once more for the inexact flag.
                    self.asm.vroundps(X15, a, imm & 7);
                }
                self.put_xmm(v, X13);
                self.asm.bind(back);
            }
            Op::VSToF => {
                let a = self.xmm(i.args[0], X14);
                if dbl {
                    self.asm.vmov_to_gpr(true, RAX, a);
                    self.asm.vpextr(8, RCX, a, 1);
                    self.asm.vpxor(X15, X15, X15);
                    self.asm.vcvtsi2f(true, true, X13, X15, RAX);
                    self.asm.vcvtsi2f(true, true, X15, X15, RCX);
                    self.asm.vpunpcklqdq(X13, X13, X15);
                } else {
                    self.asm.vcvtdq2ps(X13, a);
                }
                self.put_xmm(v, X13);
            }
            _ => self.fp_slow(v),
        }
    }
}
