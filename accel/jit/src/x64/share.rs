//! Accesses of one block that are known to be near each other look in the TLB once. The first checks that all of them are in
//! its page and leaves the page's addend in the frame; if they are not, it leaves 0 and each looks for itself. A slow path of
//! any access between them leaves 0 too: what it called may have changed translations.

use super::asm::Label;
use super::asm::{Alu, Cc};
use super::emit::{Emit, Region};
use super::encode::Place;
use super::mem::{ADDEND, TAG_READ, TAG_WRITE};
use super::stubs::Stub;
use super::*;
use rhea_ir::Effects;
use rhea_ir::func::{Function, Target, Value};
use rhea_ir::op::{Class, Op};
use rhea_ir::types::MemOp;

/// Words for addends, at the bottom of the frame.
pub(super) const WORDS: usize = 4;
/// From the first byte of accesses that share a look-up to the last: a page ends between them rarely.
const REACH: i64 = 256;

/// How an access finds its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Alone,
    /// For accesses from `low` to `high` (the last byte), counted from its own address.
    First {
        word: u8,
        low: i32,
        high: i32,
        reads: bool,
        writes: bool,
    },
    Next {
        word: u8,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub role: Role,
    /// Bit per word that a later access will look at.
    pub open: u8,
}

impl Share {
    pub const ALONE: Share = Share { role: Role::Alone, open: 0 };
}

/// Accesses of a block that go to constant distances from one value.
struct Group {
    root: Value,
    index: u32,
    /// Positions in the block, distances from the root, and operations.
    members: Vec<(usize, i64, MemOp, bool)>,
    low: i64,
    high: i64,
}

/// A value and what was added to it.
fn root(f: &Function, mut v: Value) -> (Value, i64) {
    let mut off = 0i64;
    for _ in 0..8 {
        let i = f.inst(v);
        let by = |n: usize| f.as_const(i.args[n]).map(|c| c as i64);
        let next = match i.op {
            Op::Add => by(1).map(|c| (i.args[0], c)).or_else(|| by(0).map(|c| (i.args[1], c))),
            Op::Sub => by(1).map(|c| (i.args[0], c.wrapping_neg())),
            _ => None,
        };
        let Some((to, c)) = next else { break };
        v = to;
        off = off.wrapping_add(c);
    }
    (v, off)
}

/// By how much values may grow from round to round of the innermost loop: parameters that go round with a constant added, and
/// what is made of them.
pub(super) struct Steps {
    /// Of parameters.
    by: Vec<i64>,
    /// The block of each parameter.
    home: Vec<u32>,
    /// The head of the innermost loop around each block.
    heads: Vec<Option<u32>>,
}

/// Accesses whose addresses move on by this much come to another page often: asking the TLB at once costs less than a site that
/// does not know the page.
const FAR: u64 = 1024;

impl Steps {
    pub fn new(f: &Function) -> Steps {
        let mut steps = Steps { by: vec![0; f.insts.len()], home: vec![u32::MAX; f.insts.len()], heads: Vec::new() };
        steps.heads = rhea_ir::opt::loop_heads(f);
        for (b, block) in f.blocks.iter().enumerate() {
            block.params.iter().for_each(|p| steps.home[p.index()] = b as u32);
            for t in block.term.targets() {
                let Target::Block(to, args) = t else { continue };
                for (&p, &a) in f.blocks[to.index()].params.iter().zip(args) {
                    let (from, by) = root(f, a);
                    let known = &mut steps.by[p.index()];
                    if from == p && by.unsigned_abs() > known.unsigned_abs() {
                        *known = by;
                    }
                }
            }
        }
        steps
    }
    fn of(&self, f: &Function, v: Value, head: u32, depth: u32) -> i64 {
        let i = f.inst(v);
        let arg = |n: usize| if depth == 0 { 0 } else { self.of(f, i.args[n], head, depth - 1) };
        let constant = |n: usize| f.as_const(i.args[n]).map(|c| c as i64);
        match i.op {
            Op::Param if self.home[v.index()] == head => self.by[v.index()],
            Op::Add => arg(0).wrapping_add(arg(1)),
            Op::Sub => arg(0).wrapping_sub(arg(1)),
            Op::Shl => constant(1).map_or(0, |c| arg(0).wrapping_shl(c as u32 & 63)),
            Op::Mul => constant(1).map_or(0, |c| arg(0).wrapping_mul(c)),
            Op::Zext64 | Op::Sext64 | Op::Trunc | Op::Copy => arg(0),
            _ => 0,
        }
    }
    /// Do the addresses of an access in block `b` go from page to page?
    pub fn is_far(&self, f: &Function, address: Value, b: usize) -> bool {
        self.heads[b].is_some_and(|head| self.of(f, address, head, 6).unsigned_abs() >= FAR)
    }
}

/// Which accesses of the region share look-ups; one element for each operation, or none.
pub(super) fn shares(r: &Region, looping: bool) -> Vec<Share> {
    let f = r.func;
    let mut all = Vec::new();
    // Where instructions have sites, which cost less than a look-up, two are not worth it.
    let least = if looping { 3 } else { 2 };
    for block in &f.blocks {
        let mut groups: Vec<Group> = Vec::new();
        let mut done: Vec<Group> = Vec::new();
        for (n, &v) in block.insts.iter().enumerate() {
            let i = f.inst(v);
            match i.op.class() {
                Class::Call => {
                    let pure = r.helpers.get(i.imm as usize).is_some_and(|d| d.effects.contains(Effects::PURE));
                    if !pure {
                        done.append(&mut groups);
                    }
                }
                Class::Mem if matches!(i.op, Op::Load | Op::Store) => {
                    let m = i.mem_op();
                    let near = (i.imm as i64).unsigned_abs() < 1 << 30;
                    if !near || m.align_log2() != 0 || r.fns.flat_index == Some(m.mmu_idx()) {
                        continue;
                    }
                    let (root, off) = root(f, i.args[0]);
                    let off = off.wrapping_add(i.imm as i64);
                    if off.unsigned_abs() >= 1 << 40 {
                        continue;
                    }
                    let (low, high) = (off, off + i64::from(m.bytes()) - 1);
                    let member = (n, off, m, i.op == Op::Store);
                    let fits = |g: &&mut Group| {
                        g.root == root && g.index == m.mmu_idx() && g.high.max(high) - g.low.min(low) < REACH
                    };
                    match groups.iter_mut().find(fits) {
                        Some(g) => {
                            g.members.push(member);
                            (g.low, g.high) = (g.low.min(low), g.high.max(high));
                        }
                        None => groups.push(Group { root, index: m.mmu_idx(), members: vec![member], low, high }),
                    }
                }
                _ => {}
            }
        }
        done.append(&mut groups);
        done.retain(|g| g.members.len() >= least);
        done.sort_by_key(|g| g.members[0].0);
        // The end of the group that has each word.
        let mut until = [0usize; WORDS];
        for g in &done {
            let (Some(first), Some(last)) = (g.members.first(), g.members.last()) else { continue };
            let Some(word) = until.iter().position(|&u| u <= first.0) else { continue };
            until[word] = last.0 + 1;
            if all.is_empty() {
                all = vec![Share::ALONE; f.insts.len()];
            }
            for &(n, ..) in &g.members {
                all[block.insts[n].index()].role = Role::Next { word: word as u8 };
            }
            all[block.insts[first.0].index()].role = Role::First {
                word: word as u8,
                low: (g.low - first.1) as i32,
                high: (g.high - first.1) as i32,
                reads: g.members.iter().any(|m| !m.3),
                writes: g.members.iter().any(|m| m.3),
            };
            for &v in &block.insts[first.0..last.0] {
                all[v.index()].open |= 1 << word;
            }
        }
    }
    all
}

impl Emit<'_> {
    pub(super) fn share(&self, v: Value) -> Share {
        self.shares.get(v.index()).copied().unwrap_or(Share::ALONE)
    }

    /// Where the addend is kept.
    fn word(word: u8) -> i32 {
        i32::from(word) * 8
    }

    /// After a slow path: nothing found before is relied on.
    pub(super) fn forget_shared(&mut self, v: Value) {
        let open = self.share(v).open;
        for word in (0..WORDS as u8).filter(|w| open >> w & 1 != 0) {
            self.asm.store_imm(true, RSP, Self::word(word), 0);
        }
    }

    /// The addend of a shared look-up into rcx.
    pub(super) fn shared(&mut self, role: Role, m: MemOp, tag: i32, at: Place, slow: Label) {
        let (miss, hit) = (self.asm.label(), self.asm.label());
        let clear = match role {
            Role::First { word, low, high, reads, writes } => {
                self.tlb_entry(m, Place { disp: at.disp + low, ..at });
                self.address_of(Place { disp: at.disp + high, ..at });
                self.asm.alu_ri(Alu::And, true, RDX, -(1i32 << rhea_ir::env::PAGE_BITS));
                for (_, kind) in [(reads, TAG_READ), (writes, TAG_WRITE)].into_iter().filter(|k| k.0) {
                    self.asm.alu_rm(Alu::Cmp, true, RDX, RCX, kind);
                    self.asm.jcc(Cc::Ne, miss);
                }
                self.asm.load(true, RCX, RCX, ADDEND);
                self.asm.store(true, RSP, Self::word(word), RCX);
                Some(Self::word(word))
            }
            Role::Next { word } => {
                self.asm.load(true, RCX, RSP, Self::word(word));
                self.asm.test_rr(true, RCX, RCX);
                if self.f.eager {
                    // Rarely run, and small is better.
                    self.asm.jcc(Cc::E, slow);
                    return;
                }
                self.asm.jcc(Cc::E, miss);
                None
            }
            Role::Alone => None,
        };
        self.stubs.push(Stub::Probe { op: m, site: None, clear, tag, at, label: miss, slow, hit });
        self.asm.bind(hit);
    }
}
