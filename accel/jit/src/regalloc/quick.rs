//! What allocation needs to know of code that is made fast ([`Function::eager`]): on one way back through it all uses of a
//! value are seen before its definition, which then tells whether it is dead, deferred, or lives until its last use.

use super::{Allocation, Interval, Loc, exit_value, fits_imm32};
use rhea_ir::func::{Function, Inst, StateId, Target, Term, Value};
use rhea_ir::guest::{Effects, HelperDesc, NanRule};
use rhea_ir::op::{Class, Op};
use rhea_ir::types::Type;
use std::cell::Cell;

/// Uses of a value seen so far.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Position of the last one; 0: there is none.
    last: u32,
    /// Those outside state maps.
    all: u32,
    /// Those where a condition can be absorbed, and where flags are tested.
    cond: u32,
    flag: u32,
}

impl Seen {
    fn until(&mut self, pos: u32) {
        self.last = self.last.max(pos);
    }
}

/// Memory that is used again for the next block.
#[derive(Default)]
struct Spare {
    seen: Vec<Seen>,
    calls: Vec<u32>,
    locs: Vec<Loc>,
    deferred: Vec<bool>,
    pos: Vec<u32>,
    intervals: Vec<Interval>,
}

thread_local! {
    static SPARE: Cell<Spare> = Cell::default();
}

fn emptied<T: Clone>(mut v: Vec<T>, len: usize, with: T) -> Vec<T> {
    v.clear();
    v.resize(len, with);
    v
}

/// Gives back the memory of an allocation.
pub fn recycle(a: Allocation) {
    let mut spare = SPARE.take();
    (spare.locs, spare.deferred, spare.pos, spare.intervals) = (a.locs, a.deferred, a.pos, a.intervals);
    SPARE.set(spare);
}

/// Is control flow forward only, with values passed by no parameters?
fn is_forward(f: &Function, order: &[usize]) -> bool {
    if f.blocks.len() == 1 {
        return true;
    }
    let at = |b: usize| order.iter().position(|&x| x == b);
    order.iter().enumerate().all(|(k, &b)| {
        f.blocks[b].params.is_empty()
            && f.blocks[b].term.targets().all(|t| t.block().is_none_or(|to| at(to.index()) > Some(k)))
    })
}

/// Must it be done although nobody uses its result?
fn is_needed(i: &Inst, helpers: &[HelperDesc]) -> bool {
    match i.op.class() {
        Class::Pure | Class::Slot => false,
        Class::Call => helpers
            .get(i.imm as usize)
            .is_none_or(|d| !d.effects.contains(Effects::PURE) || d.effects.contains(Effects::KEEP)),
        _ => true,
    }
}

/// Comparing again where flags are used would raise again what was cleared in between.
fn clears(f: &Function) -> bool {
    f.blocks.iter().any(|b| b.insts.iter().any(|&v| f.inst(v).op == Op::FpFlagsClear))
}

/// May whoever uses the value compute it? As [`super::defer`] has it, without arguments of edges.
fn is_deferred(f: &Function, v: Value, i: &Inst, u: Seen) -> bool {
    match i.op {
        Op::Const => fits_imm32(f, v),
        Op::ICmp | Op::CondFlags | Op::OrderIs | Op::ToBool => u.cond == u.all,
        Op::FlagsSub | Op::FlagsAdd | Op::FlagsAdc | Op::FlagsLogic | Op::FlagsCmp | Op::FlagsSbb | Op::FlagsVTest => {
            u.flag == u.all
        }
        Op::FlagsFCom => u.flag == u.all && f.fp.is_host_x86() && !clears(f),
        Op::FlagsFCmp => u.flag == u.all && f.fp.host_compares() && f.fp.nan_rule == NanRule::Arm && !clears(f),
        Op::Select if matches!(i.ty, Type::I32 | Type::V128) => u.all == 0,
        Op::VFromScalar | Op::VZeroHi | Op::Zext64 | Op::Order | Op::OrderOf => u.all == 0,
        _ => false,
    }
}

/// Everything but locations; `None` for what [`super::allocate`] has to look at more closely.
pub fn analyze(
    f: &Function,
    order: Vec<usize>,
    helpers: &[HelperDesc],
    is_call: &dyn Fn(Value) -> bool,
) -> Result<Allocation, Vec<usize>> {
    if !f.eager || !is_forward(f, &order) {
        return Err(order);
    }
    let n = f.insts.len();
    let spare = SPARE.take();
    let mut seen = emptied(spare.seen, n, Seen::default());
    let mut deferred = emptied(spare.deferred, n, false);
    let mut pos = emptied(spare.pos, n, 0);
    let mut calls = spare.calls;
    calls.clear();
    let insts: usize = order.iter().map(|&b| f.blocks[b].insts.len() + 2).sum();
    let mut p = 2 + 2 * insts as u32;
    let state = |seen: &mut [Seen], s: StateId, p: u32| {
        if s != StateId::NONE {
            f.state(s).dirty.iter().for_each(|d| seen[d.1.index()].until(p));
        }
    };
    for &b in order.iter().rev() {
        let block = &f.blocks[b];
        p -= 2;
        if let Term::Branch { cond, .. } = &block.term {
            let s = &mut seen[cond.index()];
            s.until(p);
            (s.all, s.cond) = (s.all + 1, s.cond + 1);
        }
        if let Term::Switch { value, .. } = &block.term {
            let s = &mut seen[value.index()];
            s.until(p);
            s.all += 1;
        }
        for t in block.term.targets() {
            let Target::Exit(k, s) = t else { continue };
            if let Some(v) = exit_value(*k) {
                seen[v.index()].until(p);
                seen[v.index()].all += 1;
            }
            state(&mut seen, *s, p);
        }
        for &v in block.insts.iter().rev() {
            p -= 2;
            let i = f.inst(v);
            let used = seen[v.index()];
            pos[v.index()] = p;
            if used.last == 0 && !is_needed(i, helpers) {
                // Nobody asks for it.
                deferred[v.index()] = true;
                continue;
            }
            let later = is_deferred(f, v, i, used);
            deferred[v.index()] = later;
            let until = match later {
                // Its sticky flags are raised here.
                true if i.op.class() == Class::Fp => used.last.max(p),
                true => used.last,
                false => p,
            };
            for (k, &a) in i.args().iter().enumerate() {
                let s = &mut seen[a.index()];
                s.until(until);
                s.all += 1;
                s.cond += u32::from(k == 0 && matches!(i.op, Op::Select | Op::FromBool));
                s.flag += u32::from(k == 0 && i.op == Op::CondFlags);
            }
            if i.op.has_state() {
                state(&mut seen, i.state, p);
            }
            if is_call(v) {
                calls.push(p);
            }
        }
        p -= 2;
    }
    let mut intervals = spare.intervals;
    intervals.clear();
    for &b in &order {
        for &v in &f.blocks[b].insts {
            let k = v.index();
            if deferred[k] || f.inst(v).ty == Type::Void {
                continue;
            }
            let start = pos[k] + 1;
            while calls.last().is_some_and(|&c| c < start) {
                calls.pop();
            }
            let end = seen[k].last.max(start);
            let crosses_call = calls.last().is_some_and(|&c| c < end);
            let weight = (seen[k].all as f32 + 0.01) / (end - start + 1) as f32;
            intervals.push(Interval { value: v, start, end, weight, crosses_call });
        }
    }
    let locs = emptied(spare.locs, n, Loc::None);
    SPARE.set(Spare { seen, calls, ..Spare::default() });
    Ok(Allocation { order, locs, deferred, pos, intervals, ranges: None, spill_used: 0 })
}
