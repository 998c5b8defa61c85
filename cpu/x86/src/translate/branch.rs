//! Near branches (SDM vol. 2: CALL, Jcc, JMP, LOOPcc, RET).

use super::{Flow, Translator};
use crate::exception::Vector;
use crate::helpers::system as calls;
use crate::state::{Seg, gpr, slots};
use iced_x86::{Mnemonic, OpKind};
use rhea_ir::{Cond, Op, Value};

fn tttn(m: Mnemonic) -> Option<u32> {
    use Mnemonic::*;
    Some(match m {
        Jo => 0,
        Jno => 1,
        Jb => 2,
        Jae => 3,
        Je => 4,
        Jne => 5,
        Jbe => 6,
        Ja => 7,
        Js => 8,
        Jns => 9,
        Jp => 10,
        Jnp => 11,
        Jl => 12,
        Jge => 13,
        Jle => 14,
        Jg => 15,
        _ => return None,
    })
}

impl Translator<'_, '_> {
    pub(super) fn branch(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        match m {
            Jmp | Call => {
                let call = m == Call;
                match self.i.op_kind(0) {
                    OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                        let (disp, bits) = self.displacement();
                        if call {
                            self.push_return(bits);
                        }
                        Some(self.near_const(disp, bits, call))
                    }
                    OpKind::FarBranch16 | OpKind::FarBranch32 => None,
                    OpKind::Register => {
                        let bits = self.op_bits(0);
                        let target = self.read(0, bits);
                        Some(self.near_indirect(target, bits, call))
                    }
                    _ if self.i.is_jmp_near_indirect() || self.i.is_call_near_indirect() => {
                        let bits = self.op_bits(0);
                        let target = self.read(0, bits);
                        Some(self.near_indirect(target, bits, call))
                    }
                    _ => None,
                }
            }
            Ret => {
                let bits = match self.i.code() {
                    iced_x86::Code::Retnw | iced_x86::Code::Retnw_imm16 => 16,
                    iced_x86::Code::Retnd | iced_x86::Code::Retnd_imm16 => 32,
                    _ => 64,
                };
                let extra = if self.i.op_count() == 1 { self.i.immediate16() } else { 0 };
                let target = self.pop_value(bits, 0);
                let target = self.zx64(target, bits);
                let to = self.checked_target(target);
                self.add_sp((bits / 8) as u64 + extra as u64);
                Some(self.end_return(to))
            }
            Loop | Loope | Loopne => {
                let bits = self.count_bits();
                let c = self.b.get(slots::r(gpr::RCX));
                let less = self.b.bin_imm(Op::Sub, c, 1);
                let v = match bits {
                    64 => less,
                    32 => self.b.zext(less, 32),
                    _ => self.deposit(c, less, 0, 16),
                };
                let left = if bits == 64 { less } else { self.b.zext(less, bits) };
                let zero = self.c64(0);
                let mut go = self.b.icmp(Cond::Ne, left, zero);
                if m != Loop {
                    let z = self.condition(if m == Loope { 4 } else { 5 });
                    go = self.b.and(go, z);
                }
                // The count changes even if the branch faults only in mode-dependent ways that restart it: set it last.
                Some(self.near_cond(go, |t| t.set_r64(gpr::RCX, v)))
            }
            Jcxz | Jecxz | Jrcxz => {
                let bits = match m {
                    Jcxz => 16,
                    Jecxz => 32,
                    _ => 64,
                };
                let c = self.count(bits);
                let zero = self.c64(0);
                let go = self.b.icmp(Cond::Eq, c, zero);
                Some(self.near_cond(go, |_| {}))
            }
            _ => {
                let cond = tttn(m)?;
                let c = self.condition(cond);
                Some(self.near_cond(c, |_| {}))
            }
        }
    }

    /// The address size of LOOP.
    fn count_bits(&self) -> u32 {
        use iced_x86::Code::*;
        match self.i.code() {
            Loop_rel8_16_CX | Loope_rel8_16_CX | Loopne_rel8_16_CX => 16,
            Loop_rel8_32_CX | Loope_rel8_32_CX | Loopne_rel8_32_CX => 16,
            Loop_rel8_16_RCX | Loope_rel8_16_RCX | Loopne_rel8_16_RCX => 64,
            Loop_rel8_64_RCX | Loope_rel8_64_RCX | Loopne_rel8_64_RCX => 64,
            _ => 32,
        }
    }

    /// Displacement of a near branch from the next instruction, and its operand size.
    fn displacement(&self) -> (i64, u32) {
        match self.i.op_kind(0) {
            OpKind::NearBranch16 => (self.i.near_branch16().wrapping_sub(self.next as u16) as i16 as i64, 16),
            OpKind::NearBranch32 => (self.i.near_branch32().wrapping_sub(self.next as u32) as i32 as i64, 32),
            _ => (self.i.near_branch64().wrapping_sub(self.next) as i64, 64),
        }
    }
    /// EIP of the next instruction, I64.
    pub(super) fn next_ip(&mut self) -> Value {
        let next = self.c64(self.next);
        if self.mode.long() || self.mode.flat() {
            return next;
        }
        let base = self.b.get(slots::seg_base(Seg::Cs));
        let ip = self.b.sub(next, base);
        self.b.zext(ip, 32)
    }
    fn push_return(&mut self, bits: u32) {
        let ip = self.next_ip();
        let v = if bits == 64 { ip } else { self.b.trunc(ip) };
        self.push(bits, v);
    }
    /// The linear address of an instruction pointer (I64, zero-extended): checked against the limit of CS.
    fn checked_target(&mut self, ip: Value) -> Value {
        if self.mode.long() || self.mode.flat() {
            return ip;
        }
        let limit = self.b.get(slots::seg_limit(Seg::Cs));
        let limit = self.b.zext64(limit);
        let bad = self.b.icmp(Cond::Ugt, ip, limit);
        self.raise_if(bad, |t| t.raise(Vector::GeneralProtection, Some(0)));
        let base = self.b.get(slots::seg_base(Seg::Cs));
        let sum = self.b.add(base, ip);
        self.b.zext(sum, 32)
    }
    /// Where a branch goes if that is a constant.
    fn const_target(&self, disp: i64, bits: u32) -> Option<u64> {
        let to = self.next.wrapping_add(disp as u64);
        if self.mode.long() {
            Some(if bits == 16 { to & 0xffff } else { to })
        } else if self.mode.flat() {
            Some(to & if bits == 16 { 0xffff } else { 0xffff_ffff })
        } else {
            None
        }
    }
    /// Ends the block with a branch by a displacement. With a segmented CS the target is where the constant says unless the
    /// offset wraps or passes the limit.
    fn near_const(&mut self, disp: i64, bits: u32, call: bool) -> Flow {
        let next = self.next;
        if let Some(to) = self.const_target(disp, bits) {
            return if call { self.end_call(to, next) } else { self.end_goto(to) };
        }
        let ip = self.next_ip();
        let ip = self.add_imm(ip, disp as u64);
        let ip = self.b.zext(ip, bits.min(32));
        let to = self.checked_target(ip);
        let straight = next.wrapping_add(disp as u64) & 0xffff_ffff;
        let expected = self.c64(straight);
        let same = self.b.icmp(Cond::Eq, to, expected);
        let (direct, other) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(same, direct, other, 1);
        self.b.switch_to(other);
        let _ = if call { self.end_indirect_call(to, next) } else { self.end_indirect(to) };
        self.b.switch_to(direct);
        if call { self.end_call(straight, next) } else { self.end_goto(straight) }
    }
    /// A conditional near branch; `first` runs on both ways.
    fn near_cond(&mut self, cond: Value, first: impl Fn(&mut Self)) -> Flow {
        let (disp, bits) = self.displacement();
        let next = self.next;
        if let Some(to) = self.const_target(disp, bits) {
            first(self);
            return self.end_cond(cond, to, next);
        }
        let (taken, on) = (self.b.new_block(), self.b.new_block());
        self.b.end_inner_branch(cond, taken, on, 0);
        self.b.switch_to(on);
        first(self);
        let _ = self.end_goto(next);
        self.b.switch_to(taken);
        first(self);
        self.near_const(disp, bits, false)
    }
    fn near_indirect(&mut self, target: Value, bits: u32, call: bool) -> Flow {
        let target = self.zx64(target, bits);
        let to = self.checked_target(target);
        if call {
            if self.mode.long() && bits == 64 {
                // Not canonical in 48 bits: perhaps in 57.
                let top = self.sar(to, 47);
                let top = self.add_imm(top, 1);
                let one = self.c64(1);
                let far = self.b.icmp(Cond::Ugt, top, one);
                self.when(far, -1, |t| {
                    t.b.call(calls::CHECK_TARGET, &[to]);
                });
            }
            self.push_return(bits);
            let next = self.next;
            self.end_indirect_call(to, next)
        } else {
            self.end_indirect(to)
        }
    }
}
