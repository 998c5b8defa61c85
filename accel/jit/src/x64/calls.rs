//! Calls out of generated code: slow paths of memory accesses, helpers, exact floating point, and the registers to keep
//! around them.

use super::asm::Label;
use super::emit::{Emit, H_SCRATCH, H_THUNK_OP, H_THUNKS, SAVE_GPR, SAVE_XMM};
use super::*;
use crate::regalloc::Loc;
use rhea_ir::func::Value;
use rhea_ir::guest::Effects;
use rhea_ir::op::Op;
use rhea_ir::types::Type;

impl Emit<'_> {
    /// Caller-saved registers whose values are needed after the instruction at `pos`, but for `except`.
    fn live_caller_saved(&self, pos: u32, except: Value) -> Vec<Loc> {
        self.active
            .iter()
            .filter(|i| i.value != except && self.a.lives_across(i, pos))
            .map(|i| self.loc(i.value))
            .filter(|l| match l {
                Loc::Gpr(r) => REGS.preserved >> r & 1 == 0,
                Loc::Xmm(_) => true,
                _ => false,
            })
            .collect()
    }
    fn save(&mut self, regs: &[Loc]) {
        for l in regs {
            match *l {
                Loc::Gpr(r) => self.asm.store(true, RSP, SAVE_GPR + r as i32 * 8, r),
                Loc::Xmm(r) => self.asm.vstore(16, RSP, SAVE_XMM + r as i32 * 16, r),
                _ => {}
            }
        }
    }
    fn restore(&mut self, regs: &[Loc]) {
        for l in regs {
            match *l {
                Loc::Gpr(r) => self.asm.load(true, r, RSP, SAVE_GPR + r as i32 * 8),
                Loc::Xmm(r) => self.asm.vload(16, r, RSP, SAVE_XMM + r as i32 * 16),
                _ => {}
            }
        }
    }

    /// The guest's CPU structure as the first argument of a call.
    pub(super) fn env_argument(&mut self) {
        self.asm.lea(RDI, ENV, -super::emit::ENV_AT);
    }

    /// Runs `call` with live caller-saved registers preserved around it.
    pub(super) fn around_call(&mut self, v: Value, call: impl FnOnce(&mut Self)) {
        let regs = self.saved_for(v);
        self.save(&regs);
        call(self);
        self.restore(&regs);
    }

    /// In stubs the running set of intervals is gone; find the ones around the instruction.
    fn saved_for(&self, v: Value) -> Vec<Loc> {
        let pos = self.a.pos[v.index()];
        if !self.in_stubs {
            return self.live_caller_saved(pos, v);
        }
        self.a
            .intervals
            .iter()
            .take_while(|i| i.start <= pos)
            .filter(|i| i.value != v && self.a.lives_across(i, pos))
            .map(|i| self.loc(i.value))
            .filter(|l| match l {
                Loc::Gpr(r) => REGS.preserved >> r & 1 == 0,
                Loc::Xmm(_) => true,
                _ => false,
            })
            .collect()
    }

    /// Slow path of a memory access: precise state, the run time, back.
    pub(super) fn mem_slow(&mut self, v: Value, back: Label) {
        self.mem_call(v);
        self.asm.jmp(back);
    }

    /// Calls the run time for a memory access, with precise state in memory.
    pub(super) fn mem_call(&mut self, v: Value) {
        let i = *self.f.inst(v);
        self.write_late(i.state);
        self.store_pc(self.f.state(i.state).pc);
        let wide = |t: Type| matches!(t, Type::I128 | Type::V128);
        let mut args = [Value::NONE; 2];
        args[..i.args().len() - 1].copy_from_slice(&i.args()[1..]);
        let mut wides = 0;
        for (n, &a) in args.iter().enumerate() {
            if a.is_none() {
                continue;
            }
            let reg = [RDX, RCX][n];
            let t = self.ty(a);
            if wide(t) && i.mem_op().bytes() >= 16 {
                let x = self.xmm(a, X15);
                self.asm.vstore(16, ENV, H_SCRATCH + wides * 16, x);
                wides += 1;
            } else if t.is_int() {
                self.gpr_to(a, reg);
            } else {
                let x = self.xmm(a, X15);
                self.asm.vmov_to_gpr(i.mem_op().bytes() == 8, reg, x);
            }
        }
        match i32::try_from(i.imm as i64) {
            Ok(0) => self.gpr_to(i.args[0], RAX),
            Ok(d) => {
                let a = self.gpr(i.args[0], RAX);
                self.asm.lea(RAX, a, d);
            }
            Err(_) => {
                // A scratch register that holds no argument, or the header's word for one.
                self.gpr_to(i.args[0], RAX);
                self.asm.store(true, ENV, H_SCRATCH + 6 * 16, RCX);
                self.asm.mov_ri(RCX, i.imm);
                self.asm.alu_rr(super::asm::Alu::Add, true, RAX, RCX);
                self.asm.load(true, RCX, ENV, H_SCRATCH + 6 * 16);
            }
        }
        self.asm.store_imm(false, ENV, H_THUNK_OP, i.aux as i32);
        let thunk = match i.op {
            Op::Load => Thunk::Load,
            Op::ProbeWrite => Thunk::ProbeWrite,
            Op::Store => Thunk::Store,
            Op::Rmw => Thunk::Rmw,
            _ => Thunk::Cas,
        };
        self.asm.call_mem(ENV, H_THUNKS + 8 * thunk as i32);
        self.forget_shared(v);
        match i.ty {
            Type::Void => {}
            t if t.is_int() => {
                let m = i.mem_op();
                if i.op == Op::Load && m.is_signed() && m.bytes() < 8 {
                    let w = t == Type::I64;
                    match m.bytes() {
                        1 => self.asm.movsx8(w, RAX, RAX),
                        2 => self.asm.movsx16(w, RAX, RAX),
                        _ if w => self.asm.movsxd(RAX, RAX),
                        _ => self.asm.mov_rr(false, RAX, RAX),
                    }
                } else if t == Type::I32 {
                    self.asm.mov_rr(false, RAX, RAX);
                }
                self.put_gpr(v, RAX);
            }
            // The lowest lane of a vector comes as a number does.
            Type::V128 if i.mem_op().bytes() < 16 => {
                let number = if i.mem_op().bytes() == 8 { Type::F64 } else { Type::F32 };
                self.put_vector_result(v, number);
            }
            t => self.put_vector_result(v, t),
        }
    }

    /// The result of a call that is no integer, or wider than one register.
    fn put_vector_result(&mut self, v: Value, t: Type) {
        let d = self.dst_xmm(v, X15);
        match t {
            Type::I128 | Type::V128 => self.asm.vload(16, d, ENV, H_SCRATCH + 7 * 16),
            _ => self.asm.vmov_from_gpr(t == Type::F64, d, RAX),
        }
        self.put_xmm(v, d);
    }

    /// Calls a helper.
    pub(super) fn helper_call(&mut self, v: Value) {
        let i = *self.f.inst(v);
        let desc = &self.r.helpers[i.imm as usize];
        let pure = desc.effects.contains(Effects::PURE);
        if !pure {
            self.write_state(i.state);
            self.store_pc(self.f.state(i.state).pc);
        }
        let regs = self.saved_for(v);
        self.save(&regs);
        let wide = |t: Type| matches!(t, Type::I128 | Type::V128);
        let arg_regs = [RSI, RDX, RCX, R8];
        let mut wides = 0;
        for &a in i.args() {
            if wide(self.ty(a)) {
                let x = self.xmm(a, X15);
                self.asm.vstore(16, ENV, H_SCRATCH + wides * 16, x);
                wides += 1;
            }
        }
        // rdx and rcx hold nothing; rsi and r8 may hold later arguments: those go last, through rax and the save area.
        let ints: Vec<(usize, Value)> =
            i.args().iter().copied().enumerate().filter(|(_, a)| !wide(self.ty(*a))).collect();
        let put = |e: &mut Self, a: Value, reg: u8| {
            let t = e.ty(a);
            if t.is_int() {
                e.gpr_to(a, reg);
            } else {
                let x = e.xmm(a, X15);
                e.asm.vmov_to_gpr(t == Type::F64, reg, x);
            }
        };
        for &(n, a) in ints.iter().filter(|(n, _)| *n == 1 || *n == 2) {
            put(self, a, arg_regs[n]);
        }
        let first = ints.iter().find(|(n, _)| *n == 0).map(|x| x.1);
        let last = ints.iter().find(|(n, _)| *n == 3).map(|x| x.1);
        if let Some(a) = first {
            put(self, a, RAX);
        }
        if let Some(a) = last {
            put(self, a, R8);
        }
        if first.is_some() {
            self.asm.mov_rr(true, RSI, RAX);
        }
        self.env_argument();
        self.asm.call_abs(desc.func.0 as usize);
        if desc.effects.contains(Effects::RAISES) {
            self.check_raised();
        }
        self.restore(&regs);
        if self.loc(v) == Loc::None {
            return;
        }
        match desc.ret {
            Type::Void => {}
            Type::Bool => {
                self.asm.alu_ri(super::asm::Alu::And, false, RAX, 1);
                self.put_gpr(v, RAX);
            }
            Type::I32 => {
                self.asm.mov_rr(false, RAX, RAX);
                self.put_gpr(v, RAX);
            }
            Type::I64 => self.put_gpr(v, RAX),
            t => self.put_vector_result(v, t),
        }
    }

    /// Exact FP by the run time; result to the value's place. Sources must still be intact.
    pub(super) fn fp_slow(&mut self, v: Value) {
        let i = *self.f.inst(v);
        let regs = self.saved_for(v);
        self.save(&regs);
        for (n, &a) in i.args().iter().enumerate() {
            let at = H_SCRATCH + n as i32 * 16;
            if self.ty(a).is_int() {
                let r = self.gpr(a, RAX);
                self.asm.store(true, ENV, at, r);
            } else {
                let x = self.xmm(a, X15);
                self.asm.vstore(self.f.ty(a).bytes(), ENV, at, x);
            }
        }
        let arg_ty = self.ty(i.args[0]);
        let packed = i.op as u64 | (i.ty as u64) << 8 | (arg_ty as u64) << 16 | (i.aux as u64) << 32;
        self.env_argument();
        self.asm.mov_ri(RSI, packed);
        self.asm.mov_ri(RDX, i.imm);
        let f = self.r.fns.fp;
        self.asm.call_abs(f);
        self.restore(&regs);
        if i.ty.is_int() {
            self.asm.load(true, RAX, ENV, H_SCRATCH + 7 * 16);
            self.put_gpr(v, RAX);
        } else {
            let d = self.dst_xmm(v, X15);
            self.asm.vload(i.ty.bytes(), d, ENV, H_SCRATCH + 7 * 16);
            self.put_xmm(v, d);
        }
    }
}
