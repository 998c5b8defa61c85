//! The interpreter: executes a region operation by operation. It is the oracle for the JIT and runs hosts without one.

use crate::eval::eval_pure;
use crate::fpeval::eval_fp;
use crate::func::{ExitKind, Function, Inst, StateId, Target, Term, Value};
use crate::guest::{Effects, Guest, Raised};
use crate::op::{Class, Op};
use crate::raw::{call_helper, read_slot, write_slot};
use crate::types::{MemOp, Slot, Type};
use std::sync::atomic::Ordering;

/// Guest memory as the interpreter sees it. Values are zero-extended in guest register order (an implementation
/// swaps bytes for [`MemOp::is_big_endian`]); the interpreter extends signs. Failures have raised their exception.
pub trait Memory<G> {
    fn load(&mut self, cpu: &mut G, va: u64, op: MemOp) -> Result<u128, Raised>;
    fn store(&mut self, cpu: &mut G, va: u64, op: MemOp, value: u128) -> Result<(), Raised>;
    /// Returns the old value.
    fn rmw(&mut self, cpu: &mut G, va: u64, op: MemOp, value: u128) -> Result<u128, Raised>;
    /// Returns the old value.
    fn cas(&mut self, cpu: &mut G, va: u64, op: MemOp, expected: u128, new: u128) -> Result<u128, Raised>;
    fn probe_write(&mut self, cpu: &mut G, va: u64, op: MemOp) -> Result<(), Raised>;
}

/// Why [`run`] returned; the guest's pc (and state) in memory is where to go on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Outcome {
    /// An ordinary exit of the region.
    Exit(ExitKind),
    /// An exception was raised, or a helper asked to leave.
    Raised,
    /// An exit was requested at a check.
    Requested,
}

struct Frame<'a, G, M> {
    f: &'a Function,
    cpu: &'a mut G,
    mem: &'a mut M,
    vals: Vec<u128>,
}

impl<G: Guest, M: Memory<G>> Frame<'_, G, M> {
    fn val(&self, v: Value) -> u128 {
        self.vals.get(v.index()).copied().unwrap_or(0)
    }

    /// Makes the guest's state in memory precise for the point.
    fn apply(&mut self, id: StateId) {
        let f = self.f;
        let s = f.state(id);
        for &(slot, v) in &s.dirty {
            let x = self.val(v);
            write_slot(self.cpu, slot, x);
        }
        self.cpu.header_mut().pc = s.pc;
    }

    /// Executes one operation; `Err` leaves the region.
    fn step(&mut self, inst: &Inst) -> Result<u128, Outcome> {
        let f = self.f;
        let mut x = [0u128; 4];
        for (n, &a) in inst.args().iter().enumerate() {
            x[n] = self.val(a);
        }
        let raised = |_: Raised| Outcome::Raised;
        match inst.op.class() {
            Class::Pure => {
                let arg_ty = if inst.args[0].is_none() { inst.ty } else { f.ty(inst.args[0]) };
                return Ok(eval_pure(f, inst, arg_ty, [x[0], x[1], x[2]]).unwrap_or(0));
            }
            Class::Fp => {
                let arg_ty = f.ty(inst.args[0]);
                let mut flags = 0;
                let r = eval_fp(inst, arg_ty, f.fp, [x[0], x[1], x[2]], &mut flags);
                self.cpu.header_mut().fp_flags |= flags;
                return Ok(r);
            }
            Class::Slot => return Ok(read_slot(self.cpu, Slot::new(inst.imm as usize, inst.ty))),
            Class::Mem => self.apply(inst.state),
            Class::Call => {
                let desc = &G::HELPERS[inst.imm as usize];
                if !desc.effects.contains(Effects::PURE) {
                    self.apply(inst.state);
                }
                let r = call_helper(self.cpu, desc, &x[..inst.args().len()]);
                if desc.effects.contains(Effects::RAISES) && self.cpu.header().raised != 0 {
                    self.cpu.header_mut().raised = 0;
                    return Err(Outcome::Raised);
                }
                return Ok(r);
            }
            Class::Effect => {}
        }
        let va = (x[0] as u64).wrapping_add(inst.imm);
        let m = inst.mem_op();
        match inst.op {
            Op::Load => {
                let v = self.mem.load(self.cpu, va, m).map_err(raised)?;
                if m.is_signed() && m.bytes() < 8 {
                    let s = crate::eval::sext(v as u64, m.bytes() * 8) as u64;
                    return Ok(if inst.ty == Type::I32 { s as u32 as u128 } else { s as u128 });
                }
                Ok(v)
            }
            Op::Store if m.bytes() < 16 => {
                let v = x[1] & ((1 << (m.bytes() * 8)) - 1);
                self.mem.store(self.cpu, va, m, v).map(|()| 0).map_err(raised)
            }
            Op::Store => self.mem.store(self.cpu, va, m, x[1]).map(|()| 0).map_err(raised),
            Op::Rmw => self.mem.rmw(self.cpu, va, m, x[1]).map_err(raised),
            Op::Cas => self.mem.cas(self.cpu, va, m, x[1], x[2]).map_err(raised),
            Op::ProbeWrite => self.mem.probe_write(self.cpu, va, m).map(|()| 0).map_err(raised),
            Op::CheckExit => {
                if self.cpu.header().exit_request.load(Ordering::Acquire) != 0 {
                    Err(Outcome::Requested)
                } else {
                    Ok(0)
                }
            }
            Op::Count => {
                if let Some(counter) = self.cpu.header().counter {
                    counter.executed.fetch_add(inst.imm, Ordering::Relaxed);
                }
                Ok(0)
            }
            Op::CheckCount => match self.cpu.header().counter {
                Some(counter) if counter.left() < inst.imm => Err(Outcome::Requested),
                _ => Ok(0),
            },
            Op::Fence => {
                std::sync::atomic::fence(Ordering::SeqCst);
                Ok(0)
            }
            Op::FpFlagsGet => Ok(self.cpu.header().fp_flags as u128),
            Op::FpFlagsClear => {
                self.cpu.header_mut().fp_flags = 0;
                Ok(0)
            }
            _ => Ok(0),
        }
    }
}

/// Runs a region from its entry until it is left. `max_blocks` bounds loops (a request to leave is honoured at every
/// [`Op::CheckExit`] anyway).
pub fn run<G: Guest, M: Memory<G>>(f: &Function, cpu: &mut G, mem: &mut M) -> Outcome {
    let mut fr = Frame { f, cpu, mem, vals: vec![0; f.insts.len()] };
    let mut block = 0usize;
    loop {
        let Some(b) = f.blocks.get(block) else { return Outcome::Requested };
        for &v in &b.insts {
            match fr.step(f.inst(v)) {
                Ok(r) => fr.vals[v.index()] = r,
                Err(o) => return o,
            }
        }
        let target = match &b.term {
            Term::Open => return Outcome::Requested,
            Term::Jump(t) => t,
            Term::Branch { cond, then, other, .. } => {
                if fr.val(*cond) & 1 != 0 {
                    then
                } else {
                    other
                }
            }
            Term::Switch { value, cases, other, .. } => {
                let value = fr.val(*value) as u64;
                cases.iter().find(|c| c.0 == value).map_or(other, |c| &c.1)
            }
        };
        match target {
            Target::Block(id, args) => {
                let vals: Vec<u128> = args.iter().map(|&a| fr.val(a)).collect();
                block = id.index();
                for (&p, v) in f.blocks[block].params.iter().zip(vals) {
                    fr.vals[p.index()] = v;
                }
            }
            Target::Exit(ExitKind::Inner(id), s) => {
                fr.apply(*s);
                block = id.index();
            }
            Target::Exit(kind, s) => {
                let kind = *kind;
                let to = match kind {
                    ExitKind::Indirect(v) | ExitKind::IndirectCall { target: v, .. } | ExitKind::Return(v) => {
                        Some(fr.val(v) as u64)
                    }
                    _ => None,
                };
                // After Lookup the helper's pc stands.
                let pc = fr.cpu.header().pc;
                fr.apply(*s);
                match (kind, to) {
                    (ExitKind::Lookup, _) => fr.cpu.header_mut().pc = pc,
                    (_, Some(to)) => {
                        let h = fr.cpu.header_mut();
                        (h.branch, h.pc) = (f.state(*s).pc, to);
                    }
                    _ => {}
                }
                return Outcome::Exit(kind);
            }
        }
    }
}
