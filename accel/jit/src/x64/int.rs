//! Integer operations, conditions and flags.

use super::asm::{Alu, Cc, Shift};
use super::emit::{Emit, H_FP_FLAGS, Stub, reason};
use super::*;
use dynasmrt::DynamicLabel;
use rhea_ir::func::{Inst, Value};
use rhea_ir::op::{Class, Cond, Op};
use rhea_ir::types::Type;

/// How a condition stands after its compare was emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    Cc(Cc),
    /// Both must hold.
    And(Cc, Cc),
    /// One must hold.
    Or(Cc, Cc),
}

impl Test {
    fn invert(self) -> Test {
        match self {
            Test::Cc(c) => Test::Cc(c.invert()),
            Test::And(a, b) => Test::Or(a.invert(), b.invert()),
            Test::Or(a, b) => Test::And(a.invert(), b.invert()),
        }
    }
}

/// Host condition after `cmp a, b`.
fn cmp_cc(c: Cond) -> Cc {
    match c {
        Cond::Eq => Cc::E,
        Cond::Ne => Cc::Ne,
        Cond::Ult => Cc::B,
        Cond::Ule | Cond::CsOrZ => Cc::Be,
        Cond::Ugt | Cond::CcAndNz => Cc::A,
        Cond::Uge => Cc::Ae,
        Cond::Slt => Cc::L,
        Cond::Sle => Cc::Le,
        Cond::Sgt => Cc::G,
        Cond::Sge => Cc::Ge,
        Cond::Mi => Cc::S,
        Cond::Pl => Cc::Ns,
        Cond::Vs => Cc::O,
        Cond::Vc => Cc::No,
    }
}

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
                let off = i.imm as i32;
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
            Op::FpFlagsGet => {
                let f = self.r.fns.fp_flags_get;
                self.around_call(v, |e| {
                    e.asm.mov_rr(true, RDI, ENV);
                    e.asm.call_abs(f);
                });
                self.asm.mov_rr(false, RAX, RAX);
                self.put_gpr(v, RAX);
            }
            Op::FpFlagsClear => {
                let f = self.r.fns.fp_flags_clear;
                self.asm.store_imm(false, ENV, H_FP_FLAGS, 0);
                self.around_call(v, |e| {
                    e.asm.mov_rr(true, RDI, ENV);
                    e.asm.call_abs(f);
                });
            }
            Op::Simd1 | Op::Simd2 | Op::Simd3 => self.simd_op(v, &i),
            _ if i.ty.is_int() => {
                let d = self.dst_gpr(v, RAX);
                // Most operations write the destination before the last source is read.
                let t = if d != RAX && self.aliases_later_arg(&i, d, false) { RAX } else { d };
                self.int_to(&i, t);
                self.put_gpr(v, t);
            }
            _ => self.vec_op(v, &i),
        }
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
            Op::Zext64 | Op::Trunc => {
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
                self.asm.alu_ri(Alu::And, false, RAX, 0xc101);
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
            Op::VOrdered => self.ordered(i, d),
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

    /// Flags of operands of 8 or 16 bits.
    fn flags_narrow(&mut self, i: &Inst) {
        let bits = i.imm as u32;
        if i.op == Op::FlagsLogic {
            self.gpr_to(i.args[0], RAX);
            self.asm.test_narrow(bits, RAX, RAX);
            return;
        }
        let y = self.gpr(i.args[1], RCX);
        if y != RCX {
            self.asm.mov_rr(false, RCX, y);
        }
        self.gpr_to(i.args[0], RAX);
        let op = match i.op {
            Op::FlagsAdd => Alu::Add,
            Op::FlagsAdc => Alu::Adc,
            Op::FlagsSbb => Alu::Sbb,
            _ => Alu::Cmp,
        };
        if matches!(i.op, Op::FlagsAdc | Op::FlagsSbb) {
            let c = self.gpr(i.args[2], RDX);
            self.asm.bt(false, c, 0);
        }
        self.asm.alu_narrow(op, bits, RAX, RCX);
    }

    /// Sets host flags of a flag-producing operation (FlagsSub: C is the host's borrow).
    fn flags_compute(&mut self, i: &Inst) {
        let (a, b) = (i.args[0], i.args[1]);
        let w = self.is64(a);
        if i.imm != 0 {
            return self.flags_narrow(i);
        }
        match i.op {
            Op::FlagsSub | Op::FlagsCmp => self.compare(a, b),
            Op::FlagsLogic => {
                let x = self.gpr(a, RDX);
                self.asm.test_rr(w, x, x);
            }
            Op::FlagsAdd => {
                self.gpr_to(a, RAX);
                if let Some(c) = self.imm32(b) {
                    self.asm.alu_ri(Alu::Add, w, RAX, c);
                } else {
                    let y = self.gpr(b, RCX);
                    self.asm.alu_rr(Alu::Add, w, RAX, y);
                }
            }
            _ => {
                let y = self.gpr(b, RCX);
                self.gpr_to(a, RAX);
                let c = self.gpr(i.args[2], RDX);
                self.asm.bt(false, c, 0);
                self.asm.alu_rr(if i.op == Op::FlagsSbb { Alu::Sbb } else { Alu::Adc }, w, RAX, y);
            }
        }
    }

    fn compare(&mut self, a: Value, b: Value) {
        let w = self.is64(a);
        let x = self.gpr(a, RDX);
        match self.imm32(b) {
            Some(c) => self.asm.alu_ri(Alu::Cmp, w, x, c),
            None => {
                let y = self.gpr(b, RCX);
                self.asm.alu_rr(Alu::Cmp, w, x, y);
            }
        }
    }

    fn order(&mut self, i: &Inst, d: u8) {
        let (a, b) = (i.args[0], i.args[1]);
        let signed = i.aux == 0;
        if self.is64(a) {
            self.compare(a, b);
            let (more, less) = if signed { (Cc::G, Cc::L) } else { (Cc::A, Cc::B) };
            self.asm.setcc(more, RAX);
            self.asm.setcc(less, RDX);
            self.asm.movzx8(RAX, RAX);
            self.asm.movzx8(RDX, RDX);
            self.asm.alu_rr(Alu::Sub, true, RAX, RDX);
        } else {
            let widen = |e: &mut Self, to: u8, from: u8| {
                if signed { e.asm.movsxd(to, from) } else { e.asm.mov_rr(false, to, from) }
            };
            let x = self.gpr(a, RAX);
            widen(self, RAX, x);
            match self.imm32(b) {
                Some(0) => {}
                Some(c) if signed || c > 0 => self.asm.alu_ri(Alu::Sub, true, RAX, c),
                _ => {
                    let y = self.gpr(b, RDX);
                    widen(self, RDX, y);
                    self.asm.alu_rr(Alu::Sub, true, RAX, RDX);
                }
            }
        }
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    /// `less << 63 | !greater << 62 | greater << 40 | !equal`: sums, of which no part overlaps another.
    fn order_of(&mut self, i: &Inst, d: u8) {
        self.gpr_to(i.args[1], RDX);
        self.asm.neg(true, RDX);
        self.asm.mov_ri(RCX, (1 << 62) - (1 << 40));
        self.asm.alu_rr(Alu::And, true, RDX, RCX);
        self.gpr_to(i.args[0], RAX);
        self.asm.shift_i(Shift::Shl, true, RAX, 63);
        self.asm.alu_rr(Alu::Sub, true, RAX, RDX);
        let equal = self.gpr(i.args[2], RDX);
        self.asm.alu_rr(Alu::Sub, true, RAX, equal);
        self.asm.mov_ri(RCX, (1 << 62) + 1);
        self.asm.alu_rr(Alu::Add, true, RAX, RCX);
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    fn test_order(&mut self, i: &Inst) -> Test {
        let x = self.gpr(i.args[0], RDX);
        match i.cond() {
            c @ (Cond::Slt | Cond::Sge) => {
                self.asm.test_rr(true, x, x);
                Test::Cc(cmp_cc(c))
            }
            c @ (Cond::Sgt | Cond::Sle) => {
                self.asm.lea_idx(true, RDX, x, x);
                self.asm.test_rr(true, RDX, RDX);
                Test::Cc(cmp_cc(c))
            }
            c => {
                self.asm.test_rr(false, x, x);
                Test::Cc(cmp_cc(c))
            }
        }
    }

    /// Emits the compare of a condition; clobbers scratch registers.
    fn test(&mut self, i: &Inst) -> Test {
        let a = i.args[0];
        match i.op {
            Op::ICmp => {
                let cond = i.cond();
                if self.f.as_const(i.args[1]) == Some(0) && !matches!(cond, Cond::Vs | Cond::Vc) {
                    let w = self.is64(a);
                    let x = self.gpr(a, RDX);
                    self.asm.test_rr(w, x, x);
                } else {
                    self.compare(a, i.args[1]);
                }
                Test::Cc(cmp_cc(cond))
            }
            Op::ToBool => {
                let w = self.is64(a);
                let x = self.gpr(a, RDX);
                self.asm.test_rr(w, x, x);
                Test::Cc(Cc::Ne)
            }
            Op::OrderIs => self.test_order(i),
            _ => self.test_flags(i),
        }
    }

    fn test_flags(&mut self, i: &Inst) -> Test {
        let cond = i.cond();
        let fl = i.args[0];
        let d = *self.f.inst(fl);
        if self.deferred(fl) {
            match d.op {
                Op::FlagsSub => {
                    self.flags_compute(&d);
                    return match cond {
                        Cond::CsOrZ => Test::Or(Cc::Ae, Cc::E),
                        Cond::CcAndNz => Test::And(Cc::B, Cc::Ne),
                        c => Test::Cc(cmp_cc(c)),
                    };
                }
                Op::FlagsCmp | Op::FlagsSbb => {
                    self.flags_compute(&d);
                    return match cond {
                        // The host's borrow is the guest's C: the conditions of "no borrow" are rare.
                        Cond::Ult => Test::Cc(Cc::Ae),
                        Cond::Uge => Test::Cc(Cc::B),
                        Cond::Ugt => Test::And(Cc::B, Cc::Ne),
                        Cond::Ule => Test::Or(Cc::Ae, Cc::E),
                        c => Test::Cc(cmp_cc(c)),
                    };
                }
                Op::FlagsAdd | Op::FlagsAdc => {
                    self.flags_compute(&d);
                    return match cond {
                        // The host's carry of an addition is the guest's C: unsigned conditions read it inverted.
                        Cond::Ult => Test::Cc(Cc::Ae),
                        Cond::Uge => Test::Cc(Cc::B),
                        Cond::Ugt => Test::And(Cc::B, Cc::Ne),
                        Cond::Ule => Test::Or(Cc::Ae, Cc::E),
                        c => Test::Cc(cmp_cc(c)),
                    };
                }
                Op::FlagsLogic => {
                    // C is clear, which as "no borrow" is a borrow: lower always holds.
                    if let Cond::Ult | Cond::Ule | Cond::Ugt | Cond::Uge = cond {
                        self.asm.alu_rr(Alu::Cmp, false, RAX, RAX);
                        return Test::Cc(if matches!(cond, Cond::Ult | Cond::Ule) { Cc::E } else { Cc::Ne });
                    }
                    self.flags_compute(&d);
                    return Test::Cc(cmp_cc(cond));
                }
                Op::FlagsFCmp => return self.test_fcmp(&d, cond),
                Op::FlagsFCom | Op::FlagsVTest => return self.test_vector(&d, cond),
                _ => {}
            }
        }
        // Packed flags in a register or memory.
        let x = self.gpr(fl, RAX);
        let single = |bit: i32, set: bool| (bit, if set { Cc::Ne } else { Cc::E });
        let (bit, cc) = match cond {
            Cond::Eq => single(0x4000, true),
            Cond::Ne => single(0x4000, false),
            Cond::Uge => single(0x100, true),
            Cond::Ult => single(0x100, false),
            Cond::Mi => single(0x8000, true),
            Cond::Pl => single(0x8000, false),
            Cond::Vs => single(1, true),
            Cond::Vc => single(1, false),
            Cond::CsOrZ => single(0x4100, true),
            Cond::CcAndNz => single(0x4100, false),
            _ => (0, Cc::E),
        };
        if bit != 0 {
            self.asm.test_ri(false, x, bit);
            return Test::Cc(cc);
        }
        if x != RAX {
            self.asm.mov_rr(false, RAX, x);
        }
        self.asm.flags_from_ax();
        match cond {
            Cond::Ugt => Test::And(Cc::B, Cc::Ne),
            Cond::Ule => Test::Or(Cc::Ae, Cc::E),
            c => Test::Cc(cmp_cc(c)),
        }
    }

    /// `d` = 0 or 1.
    fn set_from(&mut self, t: Test, d: u8) {
        match t {
            Test::Cc(c) => {
                self.asm.setcc(c, d);
                self.asm.movzx8(d, d);
            }
            Test::And(a, b) | Test::Or(a, b) => {
                self.asm.setcc(a, RDX);
                self.asm.setcc(b, RAX);
                let op = if matches!(t, Test::And(..)) { Alu::And } else { Alu::Or };
                self.asm.alu_rr(op, false, RAX, RDX);
                self.asm.movzx8(d, RAX);
            }
        }
    }

    /// Emits the compare of a condition value.
    fn test_value(&mut self, cond: Value) -> Test {
        let i = *self.f.inst(cond);
        if self.deferred(cond) && matches!(i.op, Op::ICmp | Op::CondFlags | Op::OrderIs | Op::ToBool) {
            return self.test(&i);
        }
        let r = self.gpr(cond, RAX);
        self.asm.test_rr(false, r, r);
        Test::Cc(Cc::Ne)
    }

    fn jump_test(&mut self, t: Test, label: DynamicLabel) {
        match t {
            Test::Cc(c) => self.asm.jcc(c, label),
            Test::Or(a, b) => {
                self.asm.jcc(a, label);
                self.asm.jcc(b, label);
            }
            Test::And(a, b) => {
                let no = self.asm.label();
                self.asm.jcc(a.invert(), no);
                self.asm.jcc(b, label);
                self.asm.bind(no);
            }
        }
    }

    /// Jumps to `label` if the condition is `want`.
    pub(super) fn jump_if(&mut self, cond: Value, want: bool, label: DynamicLabel) {
        let t = self.test_value(cond);
        self.jump_test(if want { t } else { t.invert() }, label);
    }

    /// Loads an integer operand without touching flags.
    fn gpr_keep_flags(&mut self, v: Value, scratch: u8) -> u8 {
        self.gpr(v, scratch)
    }

    fn select(&mut self, i: &Inst, d: u8) {
        let (c, a, b) = (i.args[0], i.args[1], i.args[2]);
        let t = self.test_value(c);
        // Moves and loads do not change flags; a value that must be computed would.
        let simple = |e: &Self, v: Value| !e.deferred(v) || e.f.as_const(v).is_some();
        if !simple(self, a) || !simple(self, b) {
            let done = self.asm.label();
            let other = self.asm.label();
            self.jump_test(t.invert(), other);
            self.gpr_to(a, RAX);
            self.asm.jmp(done);
            self.asm.bind(other);
            self.gpr_to(b, RAX);
            self.asm.bind(done);
            self.asm.mov_rr(true, d, RAX);
            return;
        }
        let y = self.gpr_keep_flags(a, RCX);
        match t {
            Test::Cc(cc) => {
                // d = b, then a if the condition holds. `d` is no later argument's register by the caller's choice, but
                // may be the condition's own.
                self.gpr_to(b, RAX);
                self.asm.cmov(cc, RAX, y);
            }
            Test::Or(p, q) => {
                self.gpr_to(b, RAX);
                self.asm.cmov(p, RAX, y);
                self.asm.cmov(q, RAX, y);
            }
            Test::And(p, q) => {
                // a, then b if either fails.
                let z = self.gpr_keep_flags(b, RDX);
                self.asm.mov_rr(true, RAX, y);
                self.asm.cmov(p.invert(), RAX, z);
                self.asm.cmov(q.invert(), RAX, z);
            }
        }
        if d != RAX {
            self.asm.mov_rr(true, d, RAX);
        }
    }

    /// A select of vector or FP values: a short branch.
    pub(super) fn select_vec(&mut self, i: &Inst, d: u8) {
        let (c, a, b) = (i.args[0], i.args[1], i.args[2]);
        let t = self.test_value(c);
        let other = self.asm.label();
        let done = self.asm.label();
        self.jump_test(t.invert(), other);
        let x = self.xmm(a, X15);
        self.asm.vmovaps(X14, x);
        self.asm.jmp(done);
        self.asm.bind(other);
        let x = self.xmm(b, X15);
        self.asm.vmovaps(X14, x);
        self.asm.bind(done);
        self.asm.vmovaps(d, X14);
    }

    /// Leaves with the instruction's state map if an exit was requested.
    pub(super) fn check_exit(&mut self, i: &Inst) {
        let label = self.asm.label();
        self.asm.cmp_mem32_imm(ENV, super::emit::H_EXIT_REQUEST, 0);
        self.asm.jcc(Cc::Ne, label);
        self.stubs.push(Stub::Leave { state: i.state, label, reason: reason::REQUESTED });
    }
}
