//! Parallel moves of values into the places of a block's parameters.

use super::emit::{Emit, SAVE_GPR};
use super::*;
use crate::regalloc::Loc;
use rhea_ir::func::Value;

/// Temporaries of 16 bytes for moves, in the save area.
const TEMPORARIES: u32 = 24;
/// Those behind them are registers, for integers, where no move computes anything.
const REGISTERS: [u8; 2] = [RDX, RCX];

/// A move of an edge: the value, or the temporary it was put into, to its parameter's place.
struct Move {
    to: Loc,
    value: Value,
    tmp: Option<u32>,
}

impl Emit<'_> {
    /// Moves values into parameters' places, all at once.
    pub(super) fn parallel_moves(&mut self, moves: &[(Value, Value)]) {
        let mut todo: Vec<Move> = moves
            .iter()
            .map(|&(p, a)| Move { to: self.loc(p), value: a, tmp: None })
            .filter(|m| m.to != Loc::None && m.to != self.loc(m.value))
            .collect();
        let mut free: u32 = (1 << TEMPORARIES) - 1;
        if todo.iter().all(|m| !self.deferred(m.value) || self.f.as_const(m.value).is_some()) {
            free |= ((1 << REGISTERS.len()) - 1) << TEMPORARIES;
        }
        while !todo.is_empty() {
            // One whose destination nobody else still reads.
            let ready = todo.iter().enumerate().position(|(k, m)| {
                let bytes = self.ty(m.value).bytes();
                !todo.iter().enumerate().any(|(n, o)| n != k && o.tmp.is_none() && self.reads(o.value, m.to, bytes))
            });
            if let Some(k) = ready {
                let m = todo.swap_remove(k);
                match m.tmp {
                    None => self.move_to(m.to, m.value),
                    Some(t) => {
                        self.from_temporary(m.to, m.value, t);
                        free |= 1 << t;
                    }
                }
                continue;
            }
            // Only cycles are left: whatever reads the first one's destination reads a temporary from now on.
            let (to, bytes) = (todo[0].to, self.ty(todo[0].value).bytes());
            for m in todo.iter_mut().skip(1) {
                if m.tmp.is_some() || !self.reads(m.value, to, bytes) {
                    continue;
                }
                let registers = if self.ty(m.value).is_int() { free >> TEMPORARIES } else { 0 };
                let t = if registers != 0 { TEMPORARIES + registers.trailing_zeros() } else { free.trailing_zeros() };
                if t >= TEMPORARIES && registers == 0 {
                    self.failed = true;
                    return;
                }
                free &= !(1 << t);
                self.to_temporary(m.value, t);
                m.tmp = Some(t);
            }
        }
    }

    /// The register that is temporary `t`.
    fn temporary_register(t: u32) -> Option<u8> {
        t.checked_sub(TEMPORARIES).and_then(|n| REGISTERS.get(n as usize).copied())
    }

    fn to_temporary(&mut self, a: Value, t: u32) {
        if let Some(r) = Self::temporary_register(t) {
            return self.gpr_to(a, r);
        }
        let at = SAVE_GPR + t as i32 * 16;
        if self.ty(a).is_int() {
            let r = self.gpr(a, RAX);
            self.asm.store(true, RSP, at, r);
        } else {
            let x = self.xmm(a, X15);
            self.asm.vstore(self.f.ty(a).bytes(), RSP, at, x);
        }
    }

    fn from_temporary(&mut self, to: Loc, a: Value, t: u32) {
        match (Self::temporary_register(t), to) {
            (Some(r), Loc::Gpr(to)) => return self.asm.mov_rr(true, to, r),
            (Some(r), Loc::Spill(off)) => return self.asm.store(true, RSP, off as i32, r),
            _ => {}
        }
        let (at, n) = (SAVE_GPR + t as i32 * 16, self.ty(a).bytes());
        match to {
            Loc::Gpr(r) => self.asm.load(true, r, RSP, at),
            Loc::Xmm(r) => self.asm.vload(n, r, RSP, at),
            Loc::Spill(off) if self.ty(a).is_int() => {
                self.asm.load(true, RAX, RSP, at);
                self.asm.store(true, RSP, off as i32, RAX);
            }
            Loc::Spill(off) => {
                self.asm.vload(n, X15, RSP, at);
                self.asm.vstore(n, RSP, off as i32, X15);
            }
            Loc::None => {}
        }
    }

    /// True if computing `a` reads any of the `bytes` at `d`.
    fn reads(&self, a: Value, d: Loc, bytes: u32) -> bool {
        if self.deferred(a) {
            return self.f.inst(a).args().iter().any(|&x| self.reads(x, d, bytes));
        }
        match (self.loc(a), d) {
            // Slots of different sizes may overlap.
            (Loc::Spill(x), Loc::Spill(y)) => x < y + bytes.max(8) && y < x + self.ty(a).bytes().max(8),
            (x, y) => x == y && x != Loc::None,
        }
    }

    fn move_to(&mut self, d: Loc, a: Value) {
        match d {
            Loc::Gpr(r) => self.gpr_to(a, r),
            Loc::Xmm(r) => {
                let x = self.xmm(a, r);
                if x != r {
                    self.asm.vmovaps(r, x);
                }
            }
            Loc::Spill(off) => {
                if self.ty(a).is_int() {
                    if let Some(c) = self.f.as_const(a).and_then(|c| i32::try_from(c as i64).ok()) {
                        self.asm.store_imm(true, RSP, off as i32, c);
                    } else {
                        let r = self.gpr(a, RAX);
                        self.asm.store(true, RSP, off as i32, r);
                    }
                } else {
                    let x = self.xmm(a, X15);
                    let n = self.ty(a).bytes();
                    self.asm.vstore(n, RSP, off as i32, x);
                }
            }
            Loc::None => {}
        }
    }
}
