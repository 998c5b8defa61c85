//! From guest code to regions: single blocks in the cheap tier, loops and their neighbourhood in the optimising one.

use rhea_ir::env::PAGE_SIZE;
use rhea_ir::func::{BlockId, Builder, ExitKind, Function, Inst, StateMap, Target};
use rhea_ir::guest::{Guest, Translated};
use rhea_ir::op::Op;
use rhea_ir::opt::{remove_dead, reverse_post_order, simplify_all};
use rhea_ir::promote::promote;
use rhea_ir::types::Type;

/// Guest instructions in a block of the cheap tier.
pub const MAX_BLOCK: u32 = 64;
/// Bounds of an optimised region.
const MAX_REGION_BLOCKS: usize = 40;
const MAX_REGION_INSNS: u32 = 500;

/// Guest code of one page under one mode.
pub struct Source<'a, G: Guest> {
    pub config: &'a G::Config,
    pub mode: u64,
    pub attrs: u8,
    /// The whole page's bytes.
    pub page: &'a [u8],
    /// Guest-virtual address of the page.
    pub va: u64,
}

/// A region ready to compile, and the byte ranges of the page it was made from.
pub struct Translation {
    pub func: Function,
    pub ranges: Vec<(u16, u16)>,
}

impl<G: Guest> Source<'_, G> {
    /// Translates the guest block at `pc` into a new IR block of `f`.
    fn block(&self, f: &mut Function, pc: u64, max: u32) -> Option<(BlockId, (u16, u16))> {
        let off = (pc.checked_sub(self.va)?) as usize;
        let code = self.page.get(off..)?;
        let id = f.new_block(pc);
        let mut b = Builder::new(f, G::HELPERS, id);
        match G::translate(self.config, self.mode, self.attrs, code, max, &mut b) {
            Translated::Done { bytes } => Some((id, (off as u16, (off + bytes as usize).min(PAGE_SIZE as usize) as u16))),
            Translated::NeedsNextPage => None,
        }
    }

    /// One guest block (or its first `max` instructions).
    pub fn single(&self, pc: u64, max: u32) -> Option<Translation> {
        let mut func = Function::new(G::fp_mode(self.mode));
        let (_, range) = self.block(&mut func, pc, max)?;
        let inner = func.blocks.len() > 1;
        if inner {
            promote(&mut func, G::HELPERS).ok()?;
        }
        remove_dead(&mut func, G::HELPERS);
        Some(Translation { func, ranges: vec![range] })
    }

    /// The blocks reachable from `pc` inside the page that have run before (`hot`), joined into one region.
    pub fn region(&self, pc: u64, hot: &dyn Fn(u64) -> bool) -> Option<Translation> {
        let mut func = Function::new(G::fp_mode(self.mode));
        let mut ranges = Vec::new();
        let mut starts: Vec<(u64, BlockId)> = Vec::new();
        let mut queue = std::collections::VecDeque::from([pc]);
        let mut insns = 0;
        while let Some(at) = queue.pop_front() {
            if starts.iter().any(|s| s.0 == at) {
                continue;
            }
            if starts.len() >= MAX_REGION_BLOCKS || insns >= MAX_REGION_INSNS {
                break;
            }
            let first = func.blocks.len();
            let Some((id, range)) = self.block(&mut func, at, MAX_BLOCK) else {
                if starts.is_empty() {
                    return None;
                }
                continue;
            };
            starts.push((at, id));
            ranges.push(range);
            insns += func.blocks[first].guest_insns;
            for b in first..func.blocks.len() {
                for t in func.blocks[b].term.targets() {
                    if let Target::Exit(ExitKind::Goto, s) = t {
                        let to = func.state(*s).pc;
                        if to & !(PAGE_SIZE - 1) == self.va && hot(to) {
                            queue.push_back(to);
                        }
                    }
                }
            }
        }
        // Edges inside the region.
        for b in 0..func.blocks.len() {
            let mut term = std::mem::replace(&mut func.blocks[b].term, rhea_ir::func::Term::Open);
            for t in term.targets_mut() {
                if let Target::Exit(k @ ExitKind::Goto, s) = t {
                    let to = func.state(*s).pc;
                    if let Some((_, id)) = starts.iter().find(|x| x.0 == to) {
                        *k = ExitKind::Inner(*id);
                    }
                }
            }
            func.blocks[b].term = term;
        }
        add_checks(&mut func);
        promote(&mut func, G::HELPERS).ok()?;
        simplify_all(&mut func);
        remove_dead(&mut func, G::HELPERS);
        Some(Translation { func, ranges })
    }
}

/// Every loop gets a point where it can be interrupted.
fn add_checks(f: &mut Function) {
    let order = reverse_post_order(f);
    let mut at = vec![usize::MAX; f.blocks.len()];
    for (k, &b) in order.iter().enumerate() {
        at[b] = k;
    }
    let mut heads = Vec::new();
    for (k, &b) in order.iter().enumerate() {
        for t in f.blocks[b].term.targets() {
            if let Target::Exit(ExitKind::Inner(to), _) = t
                && at[to.index()] <= k
                && !heads.contains(&to.index())
            {
                heads.push(to.index());
            }
        }
    }
    for h in heads {
        let mut i = Inst::new(Op::CheckExit, Type::Void);
        i.state = f.push_state(StateMap { pc: f.blocks[h].pc, dirty: Vec::new() });
        let v = f.push_inst(i);
        f.blocks[h].insts.insert(0, v);
    }
}
