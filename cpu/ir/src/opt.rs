//! Passes over a promoted region: simplification with sharing along the dominator tree, and removal of dead operations.

use crate::func::{ExitKind, Function, Inst, Target, Term, Value};
use crate::guest::{Effects, HelperDesc};
use crate::op::{Class, Op};
use crate::simplify::{Simplified, simplify};
use crate::types::Type;
use rustc_hash::FxHashMap;

/// Blocks reachable from the entry in reverse post-order.
pub fn reverse_post_order(f: &Function) -> Vec<usize> {
    let n = f.blocks.len();
    if n == 1 {
        return vec![0];
    }
    let mut seen = vec![false; n];
    let mut order = Vec::with_capacity(n);
    let mut stack = vec![(0usize, 0usize)];
    seen[0] = true;
    while let Some((b, k)) = stack.pop() {
        let succ = || {
            f.blocks[b].term.targets().filter_map(|t| match t {
                Target::Block(to, _) | Target::Exit(ExitKind::Inner(to), _) => Some(to.index()),
                Target::Exit(..) => None,
            })
        };
        // The second target first, so that a branch's `then` comes right after it.
        match succ().count().checked_sub(k + 1).and_then(|k| succ().nth(k)) {
            Some(s) => {
                stack.push((b, k + 1));
                if !seen[s] {
                    seen[s] = true;
                    stack.push((s, 0));
                }
            }
            None => order.push(b),
        }
    }
    order.reverse();
    order
}

/// The blocks of `order` that lead to each block.
fn predecessors(f: &Function, order: &[usize]) -> Vec<Vec<usize>> {
    let mut preds = vec![Vec::new(); f.blocks.len()];
    for &b in order {
        for t in f.blocks[b].term.targets() {
            if let Target::Block(to, _) | Target::Exit(ExitKind::Inner(to), _) = t {
                preds[to.index()].push(b);
            }
        }
    }
    preds
}

/// Immediate dominators (the entry's is itself); `usize::MAX` for unreachable blocks.
pub fn dominators(f: &Function, rpo: &[usize]) -> Vec<usize> {
    let n = f.blocks.len();
    let mut pos = vec![usize::MAX; n];
    for (i, &b) in rpo.iter().enumerate() {
        pos[b] = i;
    }
    let preds = predecessors(f, rpo);
    let mut idom = vec![usize::MAX; n];
    idom[0] = 0;
    loop {
        let mut changed = false;
        for &b in rpo.iter().skip(1) {
            let mut new = usize::MAX;
            for &p in &preds[b] {
                if idom[p] == usize::MAX {
                    continue;
                }
                if new == usize::MAX {
                    new = p;
                    continue;
                }
                let (mut x, mut y) = (p, new);
                while x != y {
                    while pos[x] > pos[y] {
                        x = idom[x];
                    }
                    while pos[y] > pos[x] {
                        y = idom[y];
                    }
                }
                new = x;
            }
            if idom[b] != new {
                idom[b] = new;
                changed = true;
            }
        }
        if !changed {
            return idom;
        }
    }
}

/// Which blocks can be reached from themselves.
pub fn in_loops(f: &Function) -> Vec<bool> {
    let n = f.blocks.len();
    let order = reverse_post_order(f);
    let preds = predecessors(f, &order);
    // Strongly connected components: backwards from each block in reverse post-order (Kosaraju).
    let mut done = vec![false; n];
    let mut looping = vec![false; n];
    for &head in &order {
        if done[head] {
            continue;
        }
        done[head] = true;
        let (mut members, mut next) = (vec![head], 0);
        while let Some(&b) = members.get(next) {
            next += 1;
            for &p in &preds[b] {
                looping[p] |= p == b;
                if !done[p] {
                    done[p] = true;
                    members.push(p);
                }
            }
        }
        if members.len() > 1 {
            members.iter().for_each(|&b| looping[b] = true);
        }
    }
    looping
}

/// The head of the innermost loop around each block: of loops that are entered there only.
pub fn loop_heads(f: &Function) -> Vec<Option<u32>> {
    let n = f.blocks.len();
    let order = reverse_post_order(f);
    let idom = dominators(f, &order);
    let preds = predecessors(f, &order);
    let mut heads = vec![None; n];
    let mut at = vec![usize::MAX; n];
    order.iter().enumerate().for_each(|(k, &b)| at[b] = k);
    // A head comes before the heads of loops inside of its own, which overwrite it.
    for &head in &order {
        let dominated = |mut b: usize| {
            while at[b] > at[head] {
                b = idom[b];
            }
            b == head
        };
        let mut work: Vec<usize> = preds[head].iter().copied().filter(|&b| dominated(b)).collect();
        if work.is_empty() {
            continue;
        }
        heads[head] = Some(head as u32);
        while let Some(b) = work.pop() {
            if heads[b] != Some(head as u32) {
                heads[b] = Some(head as u32);
                work.extend(&preds[b]);
            }
        }
    }
    heads
}

type Key = (Op, Type, u32, [Value; 4], u64);

fn key(i: &Inst) -> Key {
    (i.op, i.ty, i.aux, i.args, i.imm)
}

/// Simplifies and shares pure operations across blocks.
pub fn simplify_all(f: &mut Function) {
    let rpo = reverse_post_order(f);
    let idom = dominators(f, &rpo);
    let dominates = |a: usize, mut b: usize| loop {
        if a == b {
            return true;
        }
        if b == 0 {
            return false;
        }
        b = idom[b];
        if b == usize::MAX {
            return false;
        }
    };
    let mut repl: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    let mut table: FxHashMap<Key, Vec<(usize, Value)>> = FxHashMap::default();
    for &b in &rpo {
        let list = f.blocks[b].insts.clone();
        for v in list {
            let mut i = *f.inst(v);
            for a in &mut i.args {
                while !a.is_none() && repl[a.index()] != *a {
                    *a = repl[a.index()];
                }
            }
            if i.op.class() != Class::Pure {
                f.insts[v.index()] = i;
                continue;
            }
            let mut to = None;
            for _ in 0..8 {
                match simplify(f, &i) {
                    None => break,
                    Some(Simplified::Value(x)) => {
                        to = Some(x);
                        break;
                    }
                    Some(Simplified::Const(ty, bits)) => {
                        i = Inst::new(Op::Const, ty);
                        i.imm = bits;
                    }
                    Some(Simplified::Inst(n)) => i = n,
                }
            }
            f.insts[v.index()] = i;
            let to = to.or_else(|| {
                let list = table.entry(key(&i)).or_default();
                let found = list.iter().find(|(at, _)| dominates(*at, b)).map(|e| e.1);
                if found.is_none() {
                    list.push((b, v));
                }
                found
            });
            if let Some(x) = to {
                repl[v.index()] = x;
            }
        }
        // A branch on a constant becomes a jump.
        if let Term::Branch { cond, then, other, .. } = &f.blocks[b].term {
            let mut c = *cond;
            while repl[c.index()] != c {
                c = repl[c.index()];
            }
            if let Some(x) = f.as_const(c) {
                let t = if x & 1 != 0 { then.clone() } else { other.clone() };
                f.blocks[b].term = Term::Jump(t);
            }
        }
    }
    crate::promote::rewrite(f, &repl);
}

/// Removes operations and parameters nobody uses (state maps count as uses).
pub fn remove_dead(f: &mut Function, helpers: &[HelperDesc]) {
    let rpo = reverse_post_order(f);
    let mut live = vec![false; f.insts.len()];
    let mut work: Vec<Value> = Vec::new();
    fn mark(live: &mut [bool], work: &mut Vec<Value>, v: Value) {
        if !v.is_none() && !live[v.index()] {
            live[v.index()] = true;
            work.push(v);
        }
    }
    // Edges to each block, and of each parameter its block and place.
    let mut edges: Vec<Vec<(usize, usize)>> = vec![Vec::new(); f.blocks.len()];
    let mut places = FxHashMap::default();
    for &b in &rpo {
        places.extend(f.blocks[b].params.iter().enumerate().map(|(n, &p)| (p, (b, n))));
    }
    let needed = |i: &Inst| match i.op.class() {
        Class::Pure | Class::Slot => false,
        Class::Call => helpers
            .get(i.imm as usize)
            .is_none_or(|d| !d.effects.contains(Effects::PURE) || d.effects.contains(Effects::KEEP)),
        _ => true,
    };
    for &b in &rpo {
        for &v in &f.blocks[b].insts {
            if needed(f.inst(v)) {
                mark(&mut live, &mut work, v);
            }
        }
        if let Some(v) = f.blocks[b].term.value() {
            mark(&mut live, &mut work, v);
        }
        for (n, t) in f.blocks[b].term.targets().enumerate() {
            match t {
                Target::Block(to, _) => edges[to.index()].push((b, n)),
                Target::Exit(k, s) => {
                    if let ExitKind::Indirect(v) | ExitKind::Return(v) | ExitKind::IndirectCall { target: v, .. } = k {
                        mark(&mut live, &mut work, *v);
                    }
                    for d in &f.states[s.0 as usize].dirty {
                        mark(&mut live, &mut work, d.1);
                    }
                }
            }
        }
    }
    while let Some(v) = work.pop() {
        let i = f.insts[v.index()];
        for &a in i.args() {
            mark(&mut live, &mut work, a);
        }
        if i.op.has_state() && i.state != crate::func::StateId::NONE {
            for d in &f.states[i.state.0 as usize].dirty {
                mark(&mut live, &mut work, d.1);
            }
        }
        if let Some(&(b, n)) = places.get(&v) {
            for &(from, which) in &edges[b] {
                if let Some(Target::Block(_, args)) = f.blocks[from].term.targets().nth(which)
                    && let Some(&a) = args.get(n)
                {
                    mark(&mut live, &mut work, a);
                }
            }
        }
    }
    for (b, edges) in edges.iter().enumerate() {
        f.blocks[b].insts.retain(|v| live[v.index()]);
        let keep: Vec<bool> = f.blocks[b].params.iter().map(|p| live[p.index()]).collect();
        retain_params(f, b, &keep, edges);
    }
}

/// Keeps some of a block's parameters, and what comes for them by its edges (block and number of the target).
pub(crate) fn retain_params(f: &mut Function, b: usize, keep: &[bool], edges: &[(usize, usize)]) {
    if keep.iter().all(|k| *k) {
        return;
    }
    let mut it = keep.iter();
    f.blocks[b].params.retain(|_| *it.next().unwrap_or(&true));
    for &(from, which) in edges {
        if let Some(Target::Block(_, args)) = f.blocks[from].term.targets_mut().nth(which) {
            let mut it = keep.iter();
            args.retain(|_| *it.next().unwrap_or(&true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_loops() {
        // A loop of blocks 2 and 3 in one of 1 to 4; 0 and 5 are in none.
        let text = "function round=0 nan=arm
block0 @0x1000 insns=1:
  v0 = const.bool 0x1
  jump block1
block1 @0x1000 insns=0:
  jump block2
block2 @0x1000 insns=0:
  jump block3
block3 @0x1000 insns=0:
  branch v0, block2, block4
block4 @0x1000 insns=0:
  branch v0, block1, block5
block5 @0x1000 insns=0:
  jump goto {0x1008: }
";
        let f = crate::text::parse(text).unwrap();
        assert_eq!(loop_heads(&f), [None, Some(1), Some(2), Some(2), Some(1), None]);
    }
}
