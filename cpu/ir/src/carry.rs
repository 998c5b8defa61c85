//! Carries beside the sums they come from: a back end can have both from one addition.

use crate::func::{Function, Inst, Value};
use crate::op::{Cond, Op};
use rustc_hash::{FxHashMap, FxHashSet};

/// The flags whose carry a test asks for, set or clear.
fn tested(f: &Function, w: Value) -> Option<Value> {
    let i = f.inst(w);
    (i.op == Op::CondFlags && matches!(i.cond(), Cond::Uge | Cond::Ult)).then_some(i.args[0])
}

/// Is it the sum whose flags the others are?
fn is_sum_of(f: &Function, sum: &Inst, flags: &Inst) -> bool {
    let same = match (sum.op, flags.op) {
        (Op::Add, Op::FlagsAdd) => true,
        (Op::Adc, Op::FlagsAdc) => sum.args[2] == flags.args[2],
        _ => false,
    };
    let [a, b] = [sum.args[0], sum.args[1]];
    let [x, y] = [flags.args[0], flags.args[1]];
    same && flags.imm == 0 && sum.ty == f.ty(x) && ((a, b) == (x, y) || (a, b) == (y, x))
}

/// The sum that `w` tests the carry of: computed with `sum` in one addition.
#[must_use]
pub fn is_carry_of(f: &Function, w: Value, sum: Value) -> bool {
    tested(f, w).is_some_and(|flags| is_sum_of(f, f.inst(sum), f.inst(flags)))
}

/// Has tests of carries follow the sums, where both are in one block.
pub fn carries_beside_sums(f: &mut Function) {
    for b in 0..f.blocks.len() {
        let insts = &f.blocks[b].insts;
        let mut after: FxHashMap<Value, [Option<Value>; 2]> = FxHashMap::default();
        let mut moved = FxHashSet::default();
        for (n, &w) in insts.iter().enumerate() {
            let Some(flags) = tested(f, w).filter(|&x| matches!(f.inst(x).op, Op::FlagsAdd | Op::FlagsAdc)) else {
                continue;
            };
            // Those before it, the nearest first.
            let before = || insts[..n].iter().rev();
            let Some(&sum) = before().find(|&&v| is_sum_of(f, f.inst(v), f.inst(flags))) else { continue };
            let Some(&later) = before().find(|&&v| v == flags || v == sum) else { continue };
            if !insts[..n].contains(&flags) || after.contains_key(&sum) {
                continue;
            }
            let with = (later == flags).then_some(flags);
            moved.extend(with.into_iter().chain([w]));
            after.insert(sum, [with, Some(w)]);
        }
        if after.is_empty() {
            continue;
        }
        let mut list = Vec::with_capacity(insts.len());
        for &v in insts.iter().filter(|v| !moved.contains(*v)) {
            list.push(v);
            list.extend(after.get(&v).into_iter().flatten().flatten());
        }
        f.blocks[b].insts = list;
    }
}
