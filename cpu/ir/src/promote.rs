//! Connects the blocks of a region: slots that are live or dirty across internal edges become block parameters, so
//! that guest registers stay in SSA values through loops and are written to memory only on exits.

use crate::func::{BlockId, ExitKind, Function, Inst, StateMap, Target, Term, Value};
use crate::guest::{Effects, HelperDesc};
use crate::op::{Class, Op};
use crate::types::Slot;

/// Regions with more distinct slots than this are refused.
const MAX_SLOTS: usize = 128;
type Set = u128;

/// The region has more slots than can be promoted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_SLOTS} slots in a region")]
pub struct TooManySlots;

#[derive(Default, Clone)]
struct Info {
    /// Slots read before any barrier or local write.
    reads_up: Set,
    /// Slots known (read or written) locally after the last barrier that writes state.
    known: Vec<(usize, Value)>,
    dirty_local: Set,
    /// A helper flushed dirty slots somewhere in the block.
    flushed: bool,
    /// A helper may have changed slots in memory somewhere in the block.
    clobbered: bool,
    dirty_in: Set,
    live_in: Set,
    params: Vec<(usize, Value)>,
}

struct Slots(Vec<Slot>);

impl Slots {
    fn index(&mut self, s: Slot) -> Result<usize, TooManySlots> {
        if let Some(i) = self.0.iter().position(|t| t.offset == s.offset) {
            return Ok(i);
        }
        if self.0.len() == MAX_SLOTS {
            return Err(TooManySlots);
        }
        self.0.push(s);
        Ok(self.0.len() - 1)
    }
}

/// What a call does to slots in memory.
fn call_effects(helpers: &[HelperDesc], i: &Inst) -> (bool, bool) {
    let e = helpers.get(i.imm as usize).map_or(Effects::WRITES_STATE, |d| d.effects);
    (e.contains(Effects::READS_STATE), e.contains(Effects::WRITES_STATE))
}

fn inner_targets(t: &Term) -> impl Iterator<Item = BlockId> + '_ {
    t.targets().filter_map(|t| match t {
        Target::Exit(ExitKind::Inner(b), _) => Some(*b),
        _ => None,
    })
}

/// Turns [`ExitKind::Inner`] edges into SSA edges with parameters. Does nothing to a function without them.
#[expect(clippy::needless_range_loop, reason = "block numbers index several tables")]
pub fn promote(f: &mut Function, helpers: &[HelperDesc]) -> Result<(), TooManySlots> {
    if !f.blocks.iter().any(|b| inner_targets(&b.term).next().is_some()) {
        return Ok(());
    }
    detach_entry(f);
    let n = f.blocks.len();
    let mut slots = Slots(Vec::new());
    let mut infos = vec![Info::default(); n];
    for (b, info) in infos.iter_mut().enumerate() {
        scan_block(f, helpers, b, &mut slots, info)?;
    }
    let succs: Vec<Vec<usize>> =
        f.blocks.iter().map(|b| inner_targets(&b.term).map(BlockId::index).collect()).collect();
    flow(&mut infos, &succs);

    // Parameters.
    for b in 1..n {
        let carried = infos[b].dirty_in | infos[b].live_in;
        for (s, slot) in slots.0.iter().enumerate() {
            if carried >> s & 1 != 0 {
                let p = f.push_inst(Inst::new(Op::Param, slot.ty));
                f.blocks[b].params.push(p);
                infos[b].params.push((s, p));
            }
        }
    }
    let mut repl: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    // Upward-exposed reads become the parameters.
    for (b, info) in infos.iter().enumerate().skip(1) {
        for k in 0..f.blocks[b].insts.len() {
            let v = f.blocks[b].insts[k];
            let i = f.inst(v);
            match i.op.class() {
                Class::Slot => {
                    let off = i.imm as u32;
                    if let Some(&(_, p)) = info.params.iter().find(|(s, _)| slots.0[*s].offset == off) {
                        repl[v.index()] = p;
                    }
                }
                Class::Call if call_effects(helpers, i).1 => break,
                _ => {}
            }
        }
    }
    for b in 0..n {
        extend_states(f, helpers, b, &infos[b], &slots);
    }
    connect(f, &mut infos, &slots, &mut repl);
    remove_trivial_params(f, &mut repl);
    rewrite(f, &repl);
    Ok(())
}

/// Makes sure that no edge goes to the entry block.
fn detach_entry(f: &mut Function) {
    let entry = BlockId(0);
    if !f.blocks.iter().any(|b| inner_targets(&b.term).any(|t| t == entry)) {
        return;
    }
    let pc = f.blocks[0].pc;
    let body = f.new_block(pc);
    let state = f.push_state(StateMap { pc, dirty: Default::default() });
    f.blocks.swap(0, body.index());
    f.blocks[0].term = Term::Jump(Target::Exit(ExitKind::Inner(body), state));
    for b in f.blocks.iter_mut().skip(1) {
        for t in b.term.targets_mut() {
            if let Target::Exit(k @ ExitKind::Inner(BlockId(0)), _) = t {
                *k = ExitKind::Inner(body);
            }
        }
    }
}

fn scan_block(
    f: &Function,
    helpers: &[HelperDesc],
    b: usize,
    slots: &mut Slots,
    info: &mut Info,
) -> Result<(), TooManySlots> {
    let block = &f.blocks[b];
    for &v in &block.insts {
        let i = f.inst(v);
        match i.op.class() {
            Class::Slot => {
                let s = slots.index(Slot::new(i.imm as usize, i.ty))?;
                if !info.clobbered {
                    info.reads_up |= 1 << s;
                }
                info.known.push((s, v));
            }
            Class::Call => {
                let (reads, writes) = call_effects(helpers, i);
                if reads {
                    info.flushed = true;
                }
                if writes {
                    info.clobbered = true;
                    info.known.clear();
                } else if reads && i.state != crate::func::StateId::NONE {
                    // Written before, flushed here: the terminator's state no longer tells of these.
                    for &(slot, v) in &f.state(i.state).dirty {
                        let s = slots.index(slot)?;
                        info.known.retain(|k| k.0 != s);
                        info.known.push((s, v));
                    }
                }
            }
            _ => {}
        }
        if i.op.has_state() && i.state != crate::func::StateId::NONE {
            for &(slot, _) in &f.state(i.state).dirty {
                slots.index(slot)?;
            }
        }
    }
    // All edges of a block carry the same dirty set.
    if let Some(Target::Exit(_, s)) = block.term.targets().next() {
        for &(slot, v) in &f.state(*s).dirty {
            let s = slots.index(slot)?;
            if !slot.is_passing() {
                info.dirty_local |= 1 << s;
            }
            info.known.retain(|k| k.0 != s);
            info.known.push((s, v));
        }
    }
    Ok(())
}

fn flow(infos: &mut [Info], succs: &[Vec<usize>]) {
    let n = infos.len();
    loop {
        let mut changed = false;
        for b in 0..n {
            let out = infos[b].dirty_local | if infos[b].flushed { 0 } else { infos[b].dirty_in };
            for &s in &succs[b] {
                let new = infos[s].dirty_in | out;
                changed |= new != infos[s].dirty_in;
                infos[s].dirty_in = new;
            }
        }
        for b in (0..n).rev() {
            let mut live = 0;
            for &s in &succs[b] {
                live |= infos[s].live_in;
            }
            let known = infos[b].known.iter().fold(0, |m, k| m | 1 << k.0);
            let through = if infos[b].clobbered { 0 } else { live & !known };
            let new = infos[b].reads_up | through;
            changed |= new != infos[b].live_in;
            infos[b].live_in = new;
        }
        if !changed {
            return;
        }
    }
}

/// Adds inherited dirty slots to the state maps of a block up to (and including) its first flush.
fn extend_states(f: &mut Function, helpers: &[HelperDesc], b: usize, info: &Info, slots: &Slots) {
    let inherited: Vec<(Slot, Value)> =
        info.params.iter().filter(|(s, _)| info.dirty_in >> s & 1 != 0).map(|&(s, v)| (slots.0[s], v)).collect();
    if inherited.is_empty() {
        return;
    }
    let mut done = Vec::new();
    let mut extend = |f: &mut Function, id: crate::func::StateId| {
        if id == crate::func::StateId::NONE || done.contains(&id) {
            return;
        }
        done.push(id);
        let st = &mut f.states[id.0 as usize];
        for &(slot, v) in &inherited {
            if !st.dirty.iter().any(|d| d.0.offset == slot.offset) {
                st.dirty.push((slot, v));
            }
        }
        st.dirty.sort_unstable_by_key(|d| d.0.offset);
    };
    for k in 0..f.blocks[b].insts.len() {
        let i = *f.inst(f.blocks[b].insts[k]);
        if i.op.has_state() {
            extend(f, i.state);
        }
        if i.op.class() == Class::Call && call_effects(helpers, &i).0 {
            return;
        }
    }
    let edges: Vec<_> = f.blocks[b]
        .term
        .targets()
        .filter_map(|t| match t {
            Target::Exit(_, s) => Some(*s),
            _ => None,
        })
        .collect();
    for s in edges {
        extend(f, s);
    }
}

/// Replaces inner edges by SSA edges with arguments.
fn connect(f: &mut Function, infos: &mut [Info], slots: &Slots, repl: &mut Vec<Value>) {
    for b in 0..f.blocks.len() {
        let mut term = std::mem::replace(&mut f.blocks[b].term, Term::Open);
        for t in term.targets_mut() {
            let Target::Exit(ExitKind::Inner(to), _) = t else { continue };
            let to = *to;
            let wanted: Vec<usize> = infos[to.index()].params.iter().map(|p| p.0).collect();
            let mut args = Vec::with_capacity(wanted.len());
            for s in wanted {
                let info = &mut infos[b];
                let own = info.known.iter().rev().find(|k| k.0 == s).map(|k| k.1);
                let own = own
                    .or_else(|| if info.clobbered { None } else { info.params.iter().find(|p| p.0 == s).map(|p| p.1) });
                let v = own.unwrap_or_else(|| {
                    let mut i = Inst::new(Op::GetSlot, slots.0[s].ty);
                    i.imm = slots.0[s].offset as u64;
                    let v = f.push_inst(i);
                    f.blocks[b].insts.push(v);
                    repl.push(v);
                    v
                });
                if own.is_none() {
                    info.known.push((s, v));
                }
                args.push(v);
            }
            *t = Target::Block(to, args);
        }
        f.blocks[b].term = term;
    }
}

fn resolve(repl: &[Value], v: Value) -> Value {
    let mut v = v;
    while !v.is_none() && repl[v.index()] != v {
        v = repl[v.index()];
    }
    v
}

/// Rounds after which the search for parameters with one value is given up.
const MAX_ROUNDS: usize = 100;

/// A parameter whose arguments are all one value is that value, also where parameters pass it around among themselves.
/// Starts from the assumption that no parameter has a value of its own and takes back what the edges contradict.
#[expect(clippy::needless_range_loop, reason = "block numbers index several tables")]
pub(crate) fn remove_trivial_params(f: &mut Function, repl: &mut [Value]) {
    let n = f.blocks.len();
    // Incoming edges: (block, which target).
    let mut preds: Vec<Vec<(usize, usize)>> = vec![Vec::new(); n];
    for (b, block) in f.blocks.iter().enumerate() {
        for (k, t) in block.term.targets().enumerate() {
            if let Target::Block(to, _) = t {
                preds[to.index()].push((b, k));
            }
        }
    }
    // What each value is taken to be: of a parameter nothing is known at first.
    let mut known: Vec<Value> = (0..f.insts.len() as u32).map(Value).collect();
    let mut params: Vec<(Value, Vec<Value>)> = Vec::new();
    for (block, edges) in f.blocks.iter().zip(&preds) {
        for (k, &p) in block.params.iter().enumerate().filter(|(_, p)| repl[p.index()] == **p) {
            let arg = |&(from, which): &(usize, usize)| match f.blocks[from].term.targets().nth(which) {
                Some(Target::Block(_, args)) => resolve(repl, args[k]),
                _ => p,
            };
            params.push((p, edges.iter().map(arg).collect()));
            known[p.index()] = Value::NONE;
        }
    }
    let mut stable = false;
    for _ in 0..MAX_ROUNDS {
        stable = true;
        for (p, args) in &params {
            if known[p.index()] == *p {
                continue;
            }
            let mut one = Value::NONE;
            for a in args {
                let v = known[a.index()];
                if v.is_none() || v == one {
                    continue;
                }
                one = if one.is_none() { v } else { *p };
                if one == *p {
                    break;
                }
            }
            if one != known[p.index()] {
                known[p.index()] = one;
                stable = false;
            }
        }
        if stable {
            break;
        }
    }
    if stable {
        for (p, _) in &params {
            if !known[p.index()].is_none() {
                repl[p.index()] = known[p.index()];
            }
        }
    }
    // Drop them from parameter and argument lists.
    for b in 0..n {
        let keep: Vec<bool> = f.blocks[b].params.iter().map(|p| repl[p.index()] == *p).collect();
        if keep.iter().all(|k| *k) {
            continue;
        }
        let mut it = keep.iter();
        f.blocks[b].params.retain(|_| *it.next().unwrap_or(&true));
        for &(from, which) in &preds[b] {
            if let Some(Target::Block(_, args)) = f.blocks[from].term.targets_mut().nth(which) {
                let mut it = keep.iter();
                args.retain(|_| *it.next().unwrap_or(&true));
            }
        }
    }
}

/// Applies replacements everywhere and removes replaced operations from their blocks.
pub fn rewrite(f: &mut Function, repl: &[Value]) {
    for i in &mut f.insts {
        for a in &mut i.args {
            *a = resolve(repl, *a);
        }
    }
    for s in &mut f.states {
        for d in &mut s.dirty {
            d.1 = resolve(repl, d.1);
        }
    }
    for b in &mut f.blocks {
        b.insts.retain(|v| repl[v.index()] == *v);
        if let Some(v) = b.term.value_mut() {
            *v = resolve(repl, *v);
        }
        for t in b.term.targets_mut() {
            match t {
                Target::Block(_, args) => args.iter_mut().for_each(|a| *a = resolve(repl, *a)),
                Target::Exit(
                    ExitKind::Indirect(v) | ExitKind::Return(v) | ExitKind::IndirectCall { target: v, .. },
                    _,
                ) => {
                    *v = resolve(repl, *v);
                }
                Target::Exit(..) => {}
            }
        }
    }
}
