//! Integer operations, conditions and flags.

use super::asm::{Alu, Cc, Shift};
use super::cond::Test;
use super::emit::{Emit, H_FP_FLAGS};
use super::*;
use crate::regalloc::Loc;
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::{Class, Cond, Op, P_AND_A};
use rhea_ir::types::Type;
impl Emit<'_> {
    pub(super) fn inst(&mut self, v: Value) {
        let i = *self.f.inst(v);
        match i.op.class() {
            Class::Mem => return self.mem(v, &i),
            Class::Fp => return self.fp_op(v, &i),
            Class::Call => return self.helper_call(v),
            _ => {}
        }
        match i.op {
            Op::Param => {}
            Op::GetSlot => {
                let off = super::emit::from_env(i.imm as usize);
                match i.ty {
                    Type::Bool => {
                        let d = self.dst_gpr(v, RAX);
                        self.asm.load_u8(d, ENV, off);
                        self.put_gpr(v, d);
                    }
                    Type::I32 | Type::I64 => {
                        let d = self.dst_gpr(v, RAX);
                        self.asm.load(i.ty == Type::I64, d, ENV, off);
                        self.put_gpr(v, d);
                    }
                    _ => {
                        let d = self.dst_xmm(v, X15);
                        self.asm.vload(i.ty.bytes(), d, ENV, off);
                        self.put_xmm(v, d);
                    }
                }
            }
            Op::Fence => {
                if i.aux == 0 {
                    self.asm.mfence();
                }
            }
            Op::Count => self.count(&i),
            Op::FpFlagsGet => {
                let f = self.r.fns.fp_flags_get;
                self.around_call(v, |e| {
                    e.env_argument();
                    e.asm.call_abs(f);
                });
                self.asm.mov_rr(false, RAX, RAX);
                self.put_gpr(v, RAX);
            }
            Op::FpFlagsClear => {
                let f = self.r.fns.fp_flags_clear;
                self.asm.store_imm(false, ENV, H_FP_FLAGS, 0);
                self.around_call(v, |e| {
                    e.env_argument();
                    e.asm.call_abs(f);
                });
            }
            Op::Simd1 | Op::Simd2 | Op::Simd3 => self.simd_op(v, &i),
            _ if i.ty.is_int() => {
                let d = self.dst_gpr(v, RAX);
                let mut i = i;
                let in_d = |e: &Self, a: Value| e.loc(a) == Loc::Gpr(d);
                if matches!(i.op, Op::Add | Op::And | Op::Or | Op::Xor | Op::Mul)
                    && in_d(self, i.args[1])
                    && !in_d(self, i.args[0])
                {
                    i.args.swap(0, 1);
                }
                // Most operations write the destination before the last source is read.
                let t = if d != RAX && self.aliases_later_arg(&i, d, false) { RAX } else { d };
                self.int_to(&i, t);
                self.put_gpr(v, t);
            }
            _ => self.vec_op(v, &i),
        }
    }

    /// A sum, and the test `w` of its carry ([`rhea_ir::carry::is_carry_of`]), from one addition.
    pub(super) fn sum_and_carry(&mut self, v: Value, w: Value) {
        let i = *self.f.inst(v);
        let wide = i.ty == Type::I64;
        let d = self.dst_gpr(v, RAX);
        let t = if self.aliases_later_arg(&i, d, false) { RAX } else { d };
        let imm = self.imm32(i.args[1]);
        let y = if imm.is_none() { self.gpr(i.args[1], RCX) } else { RCX };
        self.gpr_to(i.args[0], t);
        let op = if i.op == Op::Adc { Alu::Adc } else { Alu::Add };
        if i.op == Op::Adc {
            let c = self.gpr(i.args[2], RDX);
            self.asm.bt(false, c, 0);
        }
        match imm {
            Some(c) => self.asm.alu_ri(op, wide, t, c),
            None => self.asm.alu_rr(op, wide, t, y),
        }
        // Moves leave the host's flags alone.
        self.put_gpr(v, t);
        let e = self.dst_gpr(w, RDX);
        self.asm.setcc(if self.f.inst(w).cond() == Cond::Uge { Cc::B } else { Cc::Ae }, e);
        self.asm.movzx8(e, e);
        self.put_gpr(w, e);
    }

    /// Computes a deferred value into a scratch register.
    pub(super) fn compute_gpr(&mut self, v: Value, d: u8) {
        let i = *self.f.inst(v);
        self.int_to(&i, d);
    }
    pub(super) fn compute_xmm(&mut self, v: Value, d: u8) {
        let i = *self.f.inst(v);
        self.vec_to(&i, d);
    }

    fn alu(&mut self, op: Alu, i: &Inst, d: u8) {
        let w = self.is64(i.args[0]);
        if op == Alu::Add
            && let Some(c) = self.imm32(i.args[1])
        {
            let a = self.gpr(i.args[0], d);
            if a == d {
                self.asm.alu_ri(Alu::Add, w, d, c);
            } else if w {
                self.asm.lea(d, a, c);
            } else {
                self.asm.lea32(d, a, c);
            }
            return;
        }
        if let Some(c) = self.imm32(i.args[1]) {
            self.gpr_to(i.args[0], d);
            self.asm.alu_ri(op, w, d, c);
            return;
        }
        if op == Alu::Add {
            let a = self.gpr(i.args[0], RDX);
            let b = self.gpr(i.args[1], RCX);
            if a == d {
                self.asm.alu_rr(op, w, d, b);
            } else if b == d {
                self.asm.alu_rr(op, w, d, a);
            } else {
                self.asm.lea_idx(w, d, a, b);
            }
            return;
        }
        let b = self.gpr(i.args[1], RCX);
        self.gpr_to(i.args[0], d);
        self.asm.alu_rr(op, w, d, b);
    }

    /// Emits an integer-result operation into register `d`, which no later argument occupies.
    pub(super) fn int_to(&mut self, i: &Inst, d: u8) {
        let w = i.ty == Type::I64;
        let a = i.args[0];
        match i.op {
            Op::Const => self.asm.mov_ri(d, i.imm),
            Op::Copy => self.gpr_to(a, d),
            Op::Add => self.alu(Alu::Add, i, d),
            Op::Adc => {
                let y = self.gpr(i.args[1], RCX);
                self.gpr_to(a, d);
                let c = self.gpr(i.args[2], RDX);
                self.asm.bt(false, c, 0);
                self.asm.alu_rr(Alu::Adc, w, d, y);
            }
            Op::Sub => self.alu(Alu::Sub, i, d),
            Op::And => self.alu(Alu::And, i, d),
            Op::Or => self.alu(Alu::Or, i, d),
            Op::Xor => self.alu(Alu::Xor, i, d),
            Op::AndNot => {
                let x = self.gpr(a, RDX);
                let y = self.gpr(i.args[1], RCX);
                self.asm.andn(w, d, y, x);
            }
            Op::Mul => {
                if let Some(c) = self.imm32(i.args[1]) {
                    let x = self.gpr(a, RDX);
                    self.asm.imul_rri(w, d, x, c);
                } else {
                    let y = self.gpr(i.args[1], RCX);
                    self.gpr_to(a, d);
                    self.asm.imul(w, d, y);
                }
            }
            Op::SMulHi | Op::UMulHi => {
                let y = self.gpr(i.args[1], RCX);
                self.gpr_to(a, RAX);
                if i.op == Op::SMulHi {
                    self.asm.imul1(y)
                } else {
                    self.asm.mul1(y)
                }
                self.asm.mov_rr(true, d, RDX);
            }
            Op::UDiv | Op::SDiv => self.divide(i, d),
            Op::Shl | Op::Shr | Op::Sar | Op::Rotr => self.shift(i, d),
            Op::Not => {
                self.gpr_to(a, d);
                self.asm.not(w, d);
            }
            Op::Neg => {
                self.gpr_to(a, d);
                self.asm.neg(w, d);
            }
            Op::Clz => {
                let x = self.gpr(a, RDX);
                self.asm.lzcnt(w, d, x);
            }
            Op::Ctz => {
                let x = self.gpr(a, RDX);
                self.asm.tzcnt(w, d, x);
            }
            Op::Popcnt => {
                let x = self.gpr(a, RDX);
                self.asm.popcnt(w, d, x);
            }
            Op::Bswap => {
                self.gpr_to(a, d);
                self.asm.bswap(w, d);
            }
            Op::Bswap16 => {
                self.gpr_to(a, RDX);
                self.swap_groups(w, d, RDX, 8, 0x00ff_00ff_00ff_00ff);
            }
            Op::Bitrev => {
                self.gpr_to(a, RDX);
                self.asm.bswap(w, RDX);
                self.swap_groups(w, RDX, RDX, 4, 0x0f0f_0f0f_0f0f_0f0f);
                self.swap_groups(w, RDX, RDX, 2, 0x3333_3333_3333_3333);
                self.swap_groups(w, RDX, RDX, 1, 0x5555_5555_5555_5555);
                self.asm.mov_rr(w, d, RDX);
            }
            Op::Extr => {
                if a == i.args[1] {
                    let x = self.gpr(a, RDX);
                    self.asm.rorx(w, d, x, i.imm as u8);
                } else {
                    let hi = self.gpr(a, RCX);
                    self.gpr_to(i.args[1], RDX);
                    self.asm.shrd(w, RDX, hi, i.imm as u8);
                    self.asm.mov_rr(w, d, RDX);
                }
            }
            Op::Sext => {
                let x = self.gpr(a, RDX);
                match i.imm {
                    8 => self.asm.movsx8(w, d, x),
                    16 => self.asm.movsx16(w, d, x),
                    _ => self.asm.movsxd(d, x),
                }
            }
            Op::Zext => {
                let x = self.gpr(a, RDX);
                match i.imm {
                    8 => self.asm.movzx8(d, x),
                    16 => self.asm.movzx16(d, x),
                    _ => self.asm.mov_rr(false, d, x),
                }
            }
            Op::Zext64 => self.gpr_to(a, d),
            Op::Trunc => {
                let x = self.gpr(a, RDX);
                self.asm.mov_rr(false, d, x);
            }
            Op::Sext64 => {
                let x = self.gpr(a, RDX);
                self.asm.movsxd(d, x);
            }
            Op::FromBool if !self.deferred(a) || self.f.as_const(a).is_some() => self.gpr_to(a, d),
            Op::FromBool => {
                let c = *self.f.inst(a);
                self.int_to(&c, d);
            }
            Op::ToBool | Op::ICmp | Op::CondFlags | Op::OrderIs => {
                let t = self.test(i);
                self.set_from(t, d);
            }
            Op::BoolNot => {
                self.gpr_to(a, d);
                self.asm.alu_ri(Alu::Xor, false, d, 1);
            }
            Op::Select => self.select(i, d),
            Op::Order => self.order(i, d),
            Op::OrderOf => self.order_of(i, d),
            Op::Deposit => self.deposit(i, d),
            Op::FlagsSub | Op::FlagsAdd | Op::FlagsAdc | Op::FlagsLogic | Op::FlagsCmp | Op::FlagsSbb => {
                self.flags_compute(i);
                // SF:ZF:..:CF in ah, OF in al; keep N, Z, C, V only.
                if i.op == Op::FlagsSub {
                    self.asm.cmc();
                }
                self.asm.lahf_seto();
                let kept = match i.op {
                    _ if i.aux & P_AND_A == 0 => 0xc101,
                    // The host leaves A undefined.
                    Op::FlagsLogic => 0xc501,
                    _ => 0xd501,
                };
                self.asm.alu_ri(Alu::And, false, RAX, kept);
                if d != RAX {
                    self.asm.mov_rr(false, d, RAX);
                }
            }
            Op::FlagsFromNzcv => {
                let x = self.gpr(a, RDX);
                self.asm.rorx(false, RAX, x, 16);
                self.asm.mov_rr(false, RDX, RAX);
                self.asm.alu_ri(Alu::And, false, RAX, 0xc000);
                self.asm.mov_rr(false, RCX, RDX);
                self.asm.shift_i(Shift::Shr, false, RDX, 5);
                self.asm.alu_ri(Alu::And, false, RDX, 0x100);
                self.asm.shift_i(Shift::Shr, false, RCX, 12);
                self.asm.alu_ri(Alu::And, false, RCX, 1);
                self.asm.alu_rr(Alu::Or, false, RAX, RDX);
                self.asm.alu_rr(Alu::Or, false, RAX, RCX);
                self.asm.mov_rr(false, d, RAX);
            }
            Op::FlagsToNzcv => {
                self.gpr_to(a, RAX);
                self.asm.mov_rr(false, RDX, RAX);
                self.asm.mov_rr(false, RCX, RAX);
                self.asm.alu_ri(Alu::And, false, RAX, 0xc000);
                self.asm.shift_i(Shift::Shl, false, RAX, 16);
                self.asm.alu_ri(Alu::And, false, RDX, 0x100);
                self.asm.shift_i(Shift::Shl, false, RDX, 21);
                self.asm.alu_ri(Alu::And, false, RCX, 1);
                self.asm.shift_i(Shift::Shl, false, RCX, 28);
                self.asm.alu_rr(Alu::Or, false, RAX, RDX);
                self.asm.alu_rr(Alu::Or, false, RAX, RCX);
                self.asm.mov_rr(false, d, RAX);
            }
            Op::Lo64 => {
                let x = self.xmm(a, X15);
                self.asm.vmov_to_gpr(true, d, x);
            }
            Op::Hi64 => {
                let x = self.xmm(a, X15);
                self.asm.vpextr(8, d, x, 1);
            }
            Op::Bitcast => {
                if self.ty(a).is_int() {
                    self.gpr_to(a, d);
                } else {
                    let x = self.xmm(a, X15);
                    self.asm.vmov_to_gpr(i.ty == Type::I64, d, x);
                }
            }
            Op::VExtract => {
                let x = self.xmm(a, X15);
                let lane = i.lane();
                let n = (i.imm as u32 % lane.count()) as u8;
                match (lane.bytes(), n) {
                    (4, 0) => self.asm.vmov_to_gpr(false, d, x),
                    (8, 0) => self.asm.vmov_to_gpr(true, d, x),
                    (b, n) => self.asm.vpextr(b, d, x, n),
                }
                if i.ty == Type::I32 && lane.bytes() == 8 {
                    self.asm.mov_rr(false, d, d);
                }
            }
            Op::VAnyTrue => {
                let x = self.xmm(a, X15);
                self.asm.vptest(x, x);
                self.set_from(Test::Cc(Cc::Ne), d);
            }
            Op::FlagsFCmp => self.flags_fcmp(i, d, None),
            Op::FlagsFCom | Op::FlagsVTest => self.vector_flags(i, d),
            Op::VMoveMask => self.move_mask(i, d),
            Op::Crc32c => self.crc32c(i, d),
            _ => {
                debug_assert!(false, "{} is not an integer operation", i.op.name());
                self.asm.ud2();
            }
        }
    }

    /// `d` = x with neighbouring groups of `n` bits swapped; clobbers rax and rcx.
    fn swap_groups(&mut self, w: bool, d: u8, x: u8, n: u8, mask: u64) {
        let mask = if w { mask } else { mask & 0xffff_ffff };
        self.asm.mov_rr(w, RCX, x);
        self.asm.shift_i(Shift::Shr, w, RCX, n);
        self.asm.mov_ri(RAX, mask);
        self.asm.alu_rr(Alu::And, w, RCX, RAX);
        self.asm.alu_rr(Alu::And, w, RAX, x);
        self.asm.shift_i(Shift::Shl, w, RAX, n);
        self.asm.alu_rr(Alu::Or, w, RAX, RCX);
        self.asm.mov_rr(w, d, RAX);
    }

    fn divide(&mut self, i: &Inst, d: u8) {
        let w = i.ty == Type::I64;
        let zero = self.asm.label();
        let done = self.asm.label();
        self.gpr_to(i.args[1], RCX);
        self.gpr_to(i.args[0], RAX);
        self.asm.test_rr(w, RCX, RCX);
        self.asm.jcc(Cc::E, zero);
        if i.op == Op::SDiv {
            // MIN / -1 traps on the host; x / -1 is -x in any case.
            let plain = self.asm.label();
            self.asm.alu_ri(Alu::Cmp, w, RCX, -1);
            self.asm.jcc(Cc::Ne, plain);
            self.asm.neg(w, RAX);
            self.asm.jmp(done);
            self.asm.bind(plain);
            self.asm.cqo(w);
            self.asm.idiv(w, RCX);
        } else {
            self.asm.alu_rr(Alu::Xor, false, RDX, RDX);
            self.asm.div(w, RCX);
        }
        self.asm.jmp(done);
        self.asm.bind(zero);
        self.asm.alu_rr(Alu::Xor, false, RAX, RAX);
        self.asm.bind(done);
        self.asm.mov_rr(w, d, RAX);
    }

    fn shift(&mut self, i: &Inst, d: u8) {
        let w = i.ty == Type::I64;
        let op = match i.op {
            Op::Shl => Shift::Shl,
            Op::Shr => Shift::Shr,
            Op::Sar => Shift::Sar,
            _ => Shift::Ror,
        };
        if let Some(c) = self.f.as_const(i.args[1]) {
            let n = (c & if w { 63 } else { 31 }) as u8;
            if op == Shift::Ror {
                let x = self.gpr(i.args[0], RDX);
                self.asm.rorx(w, d, x, n);
                return;
            }
            self.gpr_to(i.args[0], d);
            if n != 0 {
                self.asm.shift_i(op, w, d, n);
            }
            return;
        }
        if op == Shift::Ror {
            self.gpr_to(i.args[1], RCX);
            self.gpr_to(i.args[0], RDX);
            self.asm.shift_r(op, w, RDX, RDX, RCX);
            self.asm.mov_rr(w, d, RDX);
            return;
        }
        let x = self.gpr(i.args[0], RDX);
        let n = self.gpr(i.args[1], RCX);
        self.asm.shift_r(op, w, d, x, n);
    }

    fn deposit(&mut self, i: &Inst, d: u8) {
        let (lsb, width) = (i.imm as u8, (i.imm >> 8) as u32);
        let new = self.gpr(i.args[1], RCX);
        if lsb == 0 && matches!(width, 8 | 16) {
            self.gpr_to(i.args[0], d);
            self.asm.mov_narrow(width, d, new);
            return;
        }
        let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
        if new != RCX {
            self.asm.mov_rr(true, RCX, new);
        }
        self.asm.mov_ri(RDX, mask);
        self.asm.alu_rr(Alu::And, true, RCX, RDX);
        if lsb != 0 {
            self.asm.shift_i(Shift::Shl, true, RCX, lsb);
            self.asm.shift_i(Shift::Shl, true, RDX, lsb);
        }
        self.gpr_to(i.args[0], RAX);
        self.asm.andn(true, RAX, RDX, RAX);
        self.asm.alu_rr(Alu::Or, true, RAX, RCX);
        self.asm.mov_rr(i.ty == Type::I64, d, RAX);
    }
}
