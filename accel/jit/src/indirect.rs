//! Branches to computed addresses inside a region: the targets that were seen are compared in line, many of them by a table that the
//! branches of a region share which go to the same places (an interpreter's). Going on at an equal address is right however it
//! was computed.

use rhea_ir::env::EnvHeader;
use rhea_ir::func::{BlockId, ExitKind, Function, Inst, StateId, StateMap, Target, Term, Value};
use rhea_ir::op::{Cond, Op};
use rhea_ir::types::{Slot, Type};
use std::mem::offset_of;

/// Targets of one branch that are compared one after the other.
const CHAIN: usize = 2;
/// Targets of one table.
const MAX_CASES: usize = 64;

/// What goes to the block of a table: the target, and the address of the branch.
const TARGET: Slot = Slot::passing(0, Type::I64);
const FROM: Slot = Slot::passing(8, Type::I64);
const BRANCH: Slot = Slot::new(offset_of!(EnvHeader, branch), Type::I64);

/// A branch to a computed address, at the end of a block, and the targets that are in the region.
pub struct Site {
    pub block: usize,
    pub cases: Vec<(u64, BlockId)>,
    /// Where other targets are noted.
    pub list: u64,
}

/// Leaves the targets of a branch that are worth having: calls that go to many places are left as they are.
pub fn worthwhile(kind: ExitKind, targets: &mut Vec<u64>) {
    targets.sort_unstable();
    if matches!(kind, ExitKind::IndirectCall { .. }) && targets.len() > CHAIN {
        targets.clear();
    }
    targets.truncate(MAX_CASES);
}

/// Branches that share a table.
struct Group {
    sites: Vec<usize>,
    list: u64,
    cases: Vec<(u64, BlockId)>,
}

/// Makes the targets that are in the region edges inside it; returns the blocks where tables are that more than one branch leads to.
pub fn inline_branches(f: &mut Function, sites: &[Site]) -> Vec<BlockId> {
    let mut groups: Vec<Group> = Vec::new();
    for site in sites {
        let Term::Jump(Target::Exit(kind, s)) = f.blocks[site.block].term else { continue };
        let (ExitKind::Indirect(v) | ExitKind::IndirectCall { target: v, .. }) = kind else { continue };
        if site.cases.len() <= CHAIN {
            compare(f, site.block, v, s, kind, &site.cases);
            continue;
        }
        let mut group = Group { sites: vec![site.block], list: site.list, cases: site.cases.clone() };
        let common = |g: &mut Group| g.cases.iter().any(|c| group.cases.contains(c));
        let (with, without): (Vec<_>, Vec<_>) = groups.into_iter().map(|mut g| (common(&mut g), g)).partition(|g| g.0);
        groups = without.into_iter().map(|g| g.1).collect();
        for (_, g) in with {
            group.sites.extend(g.sites);
            group.cases.extend(g.cases);
        }
        group.cases.sort_unstable_by_key(|c| c.0);
        group.cases.dedup();
        groups.push(group);
    }
    groups.into_iter().filter_map(|g| table(f, &g)).collect()
}

/// Ends the group's branches by a table: in place if it is one, in a block of its own if there are more.
fn table(f: &mut Function, g: &Group) -> Option<BlockId> {
    let cases = &g.cases[..g.cases.len().min(MAX_CASES)];
    let edges = |s| cases.iter().map(|&(n, to)| (n, Target::Exit(ExitKind::Inner(to), s))).collect();
    if let [site] = g.sites[..] {
        let Term::Jump(Target::Exit(kind @ ExitKind::Indirect(value), s)) = f.blocks[site].term else { return None };
        f.blocks[site].term = Term::Switch { value, cases: edges(s), other: Target::Exit(kind, s), note: g.list };
        return None;
    }
    let pc = f.blocks[*g.sites.first()?].pc;
    let block = f.new_block(pc);
    let [value, from] = [TARGET, FROM].map(|slot| {
        let mut i = Inst::new(Op::GetSlot, slot.ty);
        i.imm = slot.offset.into();
        f.push_inst(i)
    });
    f.blocks[block.index()].insts = vec![value, from];
    let inside = f.push_state(StateMap { pc, dirty: Default::default() });
    let outside = f.push_state(StateMap { pc, dirty: [(BRANCH, from)].into_iter().collect() });
    let other = Target::Exit(ExitKind::Indirect(value), outside);
    f.blocks[block.index()].term = Term::Switch { value, cases: edges(inside), other, note: g.list };
    for &site in &g.sites {
        let Term::Jump(Target::Exit(ExitKind::Indirect(v), s)) = f.blocks[site].term else { continue };
        let mut state = f.state(s).clone();
        let from = constant(f, state.pc);
        f.blocks[site].insts.push(from);
        state.dirty.extend([(TARGET, v), (FROM, from)]);
        let s = f.push_state(state);
        f.blocks[site].term = Term::Jump(Target::Exit(ExitKind::Inner(block), s));
    }
    Some(block)
}

fn constant(f: &mut Function, n: u64) -> Value {
    let mut i = Inst::new(Op::Const, Type::I64);
    i.imm = n;
    f.push_inst(i)
}

/// Ends block `b`, which would leave to `v`, by comparisons with these addresses first.
pub fn compare(f: &mut Function, b: usize, v: Value, s: StateId, kind: ExitKind, cases: &[(u64, BlockId)]) {
    let (mut at, mut s) = (b, s);
    for (n, &(address, to)) in cases.iter().enumerate() {
        let c = constant(f, address);
        let mut i = Inst::new(Op::ICmp, Type::Bool);
        i.args[0] = v;
        i.args[1] = c;
        i.aux = Cond::Eq as u32;
        let cond = f.push_inst(i);
        f.blocks[at].insts.extend([c, cond]);
        let then = Target::Exit(ExitKind::Inner(to), s);
        if n + 1 == cases.len() {
            f.blocks[at].term = Term::Branch { cond, then, other: Target::Exit(kind, s), hint: 1 };
            break;
        }
        // The next comparison in a block of its own, which changes no slot.
        let pc = f.state(s).pc;
        let next = f.new_block(pc);
        f.blocks[at].term = Term::Branch { cond, then, other: Target::Exit(ExitKind::Inner(next), s), hint: 0 };
        at = next.index();
        s = f.push_state(StateMap { pc, dirty: Default::default() });
    }
}
