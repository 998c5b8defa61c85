//! Regions: the hot blocks reachable from one, joined over a few pages, with the calls between them. A small function that calls
//! nothing is copied for each call of it: what its callers keep in registers stays there.

use crate::cache::{Ranges, Seen};
use crate::indirect::{Site, compare, inline_branches, worthwhile};
use crate::translate::{Block, CodePage, MAX_BLOCK, RegionSize, Source, Translation, add_check, check};
use rhea_ir::carry::carries_beside_sums;
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::func::{BlockId, ExitKind, Function, Target, Term};
use rhea_ir::guest::Guest;
use rhea_ir::lazy::lazy_flags;
use rhea_ir::op::Op;
use rhea_ir::opt::{remove_dead, reverse_post_order, simplify_all};
use rhea_ir::promote::promote;
use rhea_ir::verify::Stage;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

const MAX_PAGES: usize = 4;
/// Known return addresses compared in line at a return.
const MAX_RETURNS: usize = 3;
/// Bounds of a function that is copied for each call.
const LEAF_BLOCKS: usize = 8;
const LEAF_INSNS: u32 = 64;

/// What is known of blocks that ran.
pub struct Profile<'a> {
    /// Does the block at this address run about as often as the region's head?
    pub hot: &'a dyn Fn(u64) -> bool,
    /// Where the indirect branch at the end of the block at this address went lately.
    pub targets: &'a dyn Fn(u64) -> Seen,
}

/// What a block belongs to: 0 is the region, others are copies of called functions.
type Copy = usize;

/// A call that has its own copy of what it calls.
struct Call {
    /// The IR block of the call.
    block: usize,
    to: u64,
    copy: Copy,
}

struct Region<'a, 's, G: Guest> {
    src: &'a mut Source<'s, G>,
    profile: &'a Profile<'a>,
    more: &'a mut dyn FnMut(u64) -> Option<CodePage>,
    func: Function,
    ranges: Ranges,
    queue: VecDeque<(Copy, u64)>,
    starts: FxHashMap<(Copy, u64), BlockId>,
    /// What each IR block belongs to.
    home: Vec<Copy>,
    /// The return addresses of copies, from number 1 on.
    returns: Vec<u64>,
    calls: Vec<Call>,
    /// Branches to computed addresses, and the targets to have.
    sites: Vec<(usize, Seen)>,
    leaves: FxHashMap<u64, bool>,
}

impl<G: Guest> Source<'_, G> {
    /// The hot blocks reachable from `pc`, joined into one region. `more` gives further pages.
    pub fn region(
        &mut self,
        pc: u64,
        size: RegionSize,
        profile: &Profile,
        more: &mut dyn FnMut(u64) -> Option<CodePage>,
    ) -> Option<Translation> {
        let mut func = Function::new(G::fp_mode(self.mode));
        func.counts = self.counts;
        let mut r = Region {
            src: self,
            profile,
            more,
            func,
            ranges: Ranges::new(),
            queue: VecDeque::from([(0, pc)]),
            starts: FxHashMap::default(),
            home: Vec::new(),
            returns: Vec::new(),
            calls: Vec::new(),
            sites: Vec::new(),
            leaves: FxHashMap::default(),
        };
        r.collect(size)?;
        let tables = r.join();
        let Region { mut func, ranges, .. } = r;
        add_checks(&mut func, &tables);
        check::<G>(&func, Stage::Built);
        promote(&mut func, G::HELPERS).ok()?;
        check::<G>(&func, Stage::Promoted);
        simplify_all(&mut func);
        remove_dead(&mut func, G::HELPERS);
        lazy_flags(&mut func);
        remove_dead(&mut func, G::HELPERS);
        carries_beside_sums(&mut func);
        check::<G>(&func, Stage::Promoted);
        let others = self.others(&ranges);
        Some(Translation { func, ranges, others })
    }
}

impl<G: Guest> Region<'_, '_, G> {
    /// Translates blocks until none is left or there are enough; nothing if there cannot be one.
    fn collect(&mut self, size: RegionSize) -> Option<()> {
        let mut insns = 0;
        while let Some((copy, at)) = self.queue.pop_front() {
            if self.starts.contains_key(&(copy, at)) {
                continue;
            }
            if self.starts.len() >= size.blocks || insns >= size.insns {
                break;
            }
            let first = self.func.blocks.len();
            let mut func = std::mem::take(&mut self.func);
            let mut ranges = std::mem::take(&mut self.ranges);
            let made = self.translate(&mut func, at, &mut ranges);
            (self.func, self.ranges) = (func, ranges);
            match made {
                Some(id) => self.starts.insert((copy, at), id),
                None if self.starts.is_empty() => return None,
                None => continue,
            };
            self.home.resize(self.func.blocks.len(), copy);
            insns += self.func.blocks[first].guest_insns;
            for b in first..self.func.blocks.len() {
                self.follow(copy, at, b);
            }
        }
        Some(())
    }

    /// Has the page of `va` among the source's, if there is room.
    fn has_page(&mut self, va: u64) -> bool {
        if self.src.page(va).is_some() {
            return true;
        }
        if self.src.pages.len() >= MAX_PAGES {
            return false;
        }
        let page = (self.more)(va);
        self.src.pages.extend(page);
        self.src.page(va).is_some()
    }

    /// Translates the guest block at `at`, with the pages it needs.
    fn translate(&mut self, func: &mut Function, at: u64, ranges: &mut Ranges) -> Option<BlockId> {
        let va = at & !(PAGE_SIZE - 1);
        if !self.has_page(va) {
            return None;
        }
        let first = func.blocks.len();
        let mut made = self.src.block(func, at, MAX_BLOCK, ranges);
        if matches!(made, Block::NextPage) && self.has_page(va.wrapping_add(PAGE_SIZE)) {
            func.blocks.truncate(first);
            made = self.src.block(func, at, MAX_BLOCK, ranges);
        }
        if let Block::Made(id) = made {
            return Some(id);
        }
        func.blocks.truncate(first);
        None
    }

    /// Queues where block `b`, made from the guest block at `at`, leads to.
    fn follow(&mut self, copy: Copy, at: u64, b: usize) {
        let hot = self.profile.hot;
        let exits: Vec<_> = self.func.blocks[b]
            .term
            .targets()
            .filter_map(|t| if let Target::Exit(k, s) = t { Some((*k, self.func.state(*s).pc)) } else { None })
            .collect();
        for (k, to) in exits {
            match k {
                ExitKind::Goto if hot(to) => self.queue.push_back((copy, to)),
                ExitKind::Call { ret } if copy == 0 && hot(to) => self.call(b, to, ret),
                ExitKind::Indirect(_) | ExitKind::IndirectCall { .. } if copy == 0 => {
                    let mut seen = (self.profile.targets)(at);
                    seen.targets.retain(|&to| hot(to));
                    worthwhile(k, &mut seen.targets);
                    for &to in &seen.targets {
                        match k {
                            ExitKind::IndirectCall { ret, .. } => self.call(b, to, ret),
                            _ => self.queue.push_back((copy, to)),
                        }
                    }
                    self.sites.push((b, seen));
                }
                _ => {}
            }
        }
    }

    fn call(&mut self, block: usize, to: u64, ret: u64) {
        let returns = (self.profile.hot)(ret);
        let mut copy = 0;
        if returns && self.is_leaf(to) {
            self.returns.push(ret);
            copy = self.returns.len();
            self.calls.push(Call { block, to, copy });
        }
        self.queue.push_back((copy, to));
        if returns {
            self.queue.push_back((0, ret));
        }
    }

    /// Is there a small function at `pc` that returns and calls nothing?
    fn is_leaf(&mut self, pc: u64) -> bool {
        if let Some(&known) = self.leaves.get(&pc) {
            return known;
        }
        let is = self.small(pc);
        self.leaves.insert(pc, is);
        is
    }

    fn small(&mut self, pc: u64) -> bool {
        let mut func = Function::new(G::fp_mode(self.src.mode));
        let (mut queue, mut seen) = (vec![pc], vec![pc]);
        let (mut insns, mut returns) = (0, false);
        while let Some(at) = queue.pop() {
            let first = func.blocks.len();
            if self.translate(&mut func, at, &mut Ranges::new()).is_none() {
                return false;
            }
            insns += func.blocks[first].guest_insns;
            for t in func.blocks[first..].iter().flat_map(|b| b.term.targets()) {
                let Target::Exit(kind, s) = t else { return false };
                let to = func.state(*s).pc;
                match kind {
                    ExitKind::Return(_) => returns = true,
                    ExitKind::Goto if !seen.contains(&to) && (self.profile.hot)(to) => {
                        seen.push(to);
                        queue.push(to);
                    }
                    ExitKind::Goto | ExitKind::Inner(_) => {}
                    _ => return false,
                }
            }
            if seen.len() > LEAF_BLOCKS || insns > LEAF_INSNS {
                return false;
            }
        }
        returns
    }

    fn find(&self, copy: Copy, at: u64) -> Option<BlockId> {
        self.starts.get(&(copy, at)).copied()
    }

    /// Where a call from block `b` goes inside the region.
    fn callee(&self, b: usize, to: u64) -> Option<BlockId> {
        let copy = self.calls.iter().find(|c| c.block == b && c.to == to).map_or(0, |c| c.copy);
        self.find(copy, to)
    }

    /// Makes edges between the region's blocks, calls and returns among them. Returns the blocks of shared tables.
    fn join(&mut self) -> Vec<BlockId> {
        // Returns of what was not copied compare their target with the region's own return addresses.
        let mut returns: Vec<(u64, BlockId)> = Vec::new();
        let blocks = self.func.blocks.len();
        for b in 0..blocks {
            let mut term = std::mem::replace(&mut self.func.blocks[b].term, Term::Open);
            for t in term.targets_mut() {
                let Target::Exit(k, s) = t else { continue };
                let to = self.func.state(*s).pc;
                let inner = match *k {
                    ExitKind::Goto => self.find(self.home[b], to),
                    ExitKind::Call { ret } => {
                        self.callee(b, to).inspect(|_| returns.extend(self.find(0, ret).map(|to| (ret, to))))
                    }
                    _ => None,
                };
                if let Some(id) = inner {
                    *k = ExitKind::Inner(id);
                }
            }
            self.func.blocks[b].term = term;
        }
        let mut sites = Vec::new();
        for (block, seen) in std::mem::take(&mut self.sites) {
            let Term::Jump(Target::Exit(kind, _)) = self.func.blocks[block].term else { continue };
            let find = |&to: &u64| Some((to, self.callee(block, to)?));
            let cases: Vec<_> = seen.targets.iter().filter_map(find).collect();
            if let ExitKind::IndirectCall { ret, .. } = kind
                && !cases.is_empty()
            {
                returns.extend(self.find(0, ret).map(|to| (ret, to)));
            }
            sites.push(Site { block, cases, list: seen.list });
        }
        let mut seen = Vec::new();
        returns.retain(|r| {
            !seen.contains(&r.0) && {
                seen.push(r.0);
                true
            }
        });
        returns.truncate(MAX_RETURNS);
        for b in 0..blocks {
            let Term::Jump(Target::Exit(kind @ ExitKind::Return(v), s)) = self.func.blocks[b].term else { continue };
            match self.home[b] {
                0 => compare(&mut self.func, b, v, s, kind, &returns),
                copy => {
                    let ret = self.returns[copy - 1];
                    let own: Vec<_> = self.find(0, ret).map(|to| (ret, to)).into_iter().collect();
                    compare(&mut self.func, b, v, s, kind, &own);
                }
            }
        }
        inline_branches(&mut self.func, &sites)
    }
}

/// Every loop gets a point where it can be interrupted; one through the block of a table, which is at no guest address, behind it.
fn add_checks(f: &mut Function, tables: &[BlockId]) {
    let order = reverse_post_order(f);
    let mut at = vec![usize::MAX; f.blocks.len()];
    for (k, &b) in order.iter().enumerate() {
        at[b] = k;
    }
    let (mut heads, mut tabled) = (Vec::new(), Vec::new());
    for (k, &b) in order.iter().enumerate() {
        for t in f.blocks[b].term.targets() {
            if let Target::Exit(ExitKind::Inner(to), _) = t
                && at[to.index()] <= k
                && !heads.contains(&to.index())
            {
                heads.push(to.index());
                if tables.contains(to) {
                    tabled.push(to.index());
                }
            }
        }
    }
    heads.retain(|h| !tabled.contains(h));
    for t in tabled.iter().flat_map(|&t| f.blocks[t].term.targets()) {
        if let Target::Exit(ExitKind::Inner(to), _) = t
            && !heads.contains(&to.index())
        {
            heads.push(to.index());
        }
    }
    for h in heads {
        let pc = f.blocks[h].pc;
        add_check(f, h, Op::CheckExit, pc, 0);
    }
}
