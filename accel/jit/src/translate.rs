//! From guest code to regions: single blocks in the cheap tier; in the optimising one loops, the calls in them and their
//! neighbourhood, over a few pages.

use crate::cache::{OtherPage, PageId, Range, Ranges};
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::func::{BlockId, Builder, ExitKind, Function, Inst, StateMap, Target, Term, Value};
use rhea_ir::guest::{Guest, Translated};
use rhea_ir::lazy::lazy_flags;
use rhea_ir::op::{Cond, Op};
use rhea_ir::opt::{remove_dead, reverse_post_order, simplify_all};
use rhea_ir::promote::promote;
use rhea_ir::types::Type;
use rhea_ir::verify::{Stage, verify};
use std::collections::VecDeque;

/// Guest instructions in a block of the cheap tier.
pub const MAX_BLOCK: u32 = 64;
/// More bytes than such a block may be made from: the longest instructions are x86's, with fifteen.
pub const MAX_BLOCK_BYTES: u64 = MAX_BLOCK as u64 * 16;

/// Bounds of an optimised region.
#[derive(Clone, Copy, Debug)]
pub struct RegionSize {
    blocks: usize,
    insns: u32,
}

/// What is tried, one after the other: a region too big for its frame is made smaller. Functions with many hot blocks gain where one
/// region has all of them.
pub const REGION_SIZES: [RegionSize; 2] =
    [RegionSize { blocks: 192, insns: 2100 }, RegionSize { blocks: 64, insns: 700 }];

const MAX_PAGES: usize = 4;
/// Known return addresses compared in line at a return.
const MAX_RETURNS: usize = 3;

/// A page of guest code.
#[derive(Clone)]
pub struct CodePage {
    /// Guest-virtual address.
    pub va: u64,
    /// Page address | MMU index.
    pub tag: u64,
    pub host: u64,
    pub attrs: u8,
    /// See [`crate::fetch::Identities`].
    pub identity: u32,
    pub id: PageId,
    /// Offset in the page of the first byte.
    pub first: usize,
    pub bytes: Box<[u8]>,
}

impl CodePage {
    /// The bytes at these offsets in the page.
    pub fn bytes_between(&self, from: usize, to: usize) -> Option<&[u8]> {
        self.bytes.get(from.checked_sub(self.first)?..to.checked_sub(self.first)?)
    }
    fn bytes_from(&self, from: usize) -> Option<&[u8]> {
        self.bytes.get(from.checked_sub(self.first)?..)
    }
}

/// Guest code under one mode. The first page is the entry's.
pub struct Source<'a, G: Guest> {
    pub config: &'a G::Config,
    pub mode: u64,
    pub pages: Vec<CodePage>,
    /// Instructions are counted, and no block is begun that has more than are allowed.
    pub counts: bool,
}

/// What became of a guest block.
enum Block {
    Made(BlockId),
    /// Its first instruction goes on in the next page, which is not among the pages.
    NextPage,
    None,
}

/// Bytes of the next page given to the front end for an instruction that crosses into it.
const OVERLAP: usize = 16;

/// Why there is no translation.
pub enum Missing {
    /// The page behind the block's must be among the pages.
    NextPage,
    Other,
}

/// A region ready to compile, and what it was made from.
pub struct Translation {
    pub func: Function,
    pub ranges: Ranges,
    pub others: Vec<OtherPage>,
}

impl<G: Guest> Source<'_, G> {
    /// Translates the guest block at `pc` into a new IR block of `f`.
    fn block(&self, f: &mut Function, pc: u64, max: u32, ranges: &mut Ranges) -> Block {
        let Some(page) = self.page(pc & !(PAGE_SIZE - 1)) else { return Block::None };
        let off = (pc - page.va) as usize;
        let Some(code) = page.bytes_from(off) else { return Block::None };
        let id = f.new_block(pc);
        let mut b = Builder::new(f, G::HELPERS, id);
        let size = PAGE_SIZE as usize;
        match G::translate(self.config, self.mode, page.attrs, code, max, &mut b) {
            Translated::Done { bytes } => {
                let to = (off + bytes as usize).min(size) as u16;
                ranges.push(Range { page: page.id, from: off as u16, to });
                check_count(f, id);
                return Block::Made(id);
            }
            Translated::NeedsNextPage => {}
        }
        let Some(next) = self.page(page.va.wrapping_add(PAGE_SIZE)) else { return Block::NextPage };
        let mut both = code.to_vec();
        both.extend_from_slice(next.bytes_between(0, OVERLAP).unwrap_or_default());
        f.blocks.truncate(id.index());
        let id = f.new_block(pc);
        let mut b = Builder::new(f, G::HELPERS, id);
        match G::translate(self.config, self.mode, page.attrs, &both, 1, &mut b) {
            Translated::Done { bytes } => {
                let to = (off + bytes as usize).saturating_sub(size) as u16;
                ranges.push(Range { page: page.id, from: off as u16, to: size as u16 });
                ranges.push(Range { page: next.id, from: 0, to });
                check_count(f, id);
                Block::Made(id)
            }
            Translated::NeedsNextPage => Block::None,
        }
    }
    fn page(&self, va: u64) -> Option<&CodePage> {
        self.pages.iter().find(|p| p.va == va)
    }
    /// The pages behind the first that the ranges use.
    fn others(&self, ranges: &[Range]) -> Vec<OtherPage> {
        let used = |p: &&CodePage| ranges.iter().any(|r| r.page == p.id);
        self.pages
            .iter()
            .skip(1)
            .filter(used)
            .map(|p| OtherPage { tag: p.tag, host: p.host, identity: p.identity })
            .collect()
    }

    /// One guest block (or its first `max` instructions).
    pub fn single(&self, pc: u64, max: u32) -> Result<Translation, Missing> {
        let mut func = Function::new(G::fp_mode(self.mode));
        (func.counts, func.eager) = (self.counts, true);
        let mut ranges = Ranges::new();
        match self.block(&mut func, pc, max, &mut ranges) {
            Block::Made(_) => {}
            Block::NextPage => return Err(Missing::NextPage),
            Block::None => return Err(Missing::Other),
        }
        check::<G>(&func, Stage::Built);
        let others = self.others(&ranges);
        Ok(Translation { func, ranges, others })
    }

    /// The blocks reachable from `pc` that `hot` admits, joined into one region. `more` gives further pages.
    pub fn region(
        &mut self,
        pc: u64,
        size: RegionSize,
        hot: &dyn Fn(u64) -> bool,
        more: &mut dyn FnMut(u64) -> Option<CodePage>,
    ) -> Option<Translation> {
        let mut func = Function::new(G::fp_mode(self.mode));
        func.counts = self.counts;
        let mut ranges = Ranges::new();
        let mut starts: Vec<(u64, BlockId)> = Vec::new();
        let mut queue = VecDeque::from([pc]);
        let mut insns = 0;
        while let Some(at) = queue.pop_front() {
            if starts.iter().any(|s| s.0 == at) {
                continue;
            }
            if starts.len() >= size.blocks || insns >= size.insns {
                break;
            }
            let va = at & !(PAGE_SIZE - 1);
            if !self.pages.iter().any(|p| p.va == va) {
                if self.pages.len() >= MAX_PAGES {
                    continue;
                }
                let Some(p) = more(va) else { continue };
                self.pages.push(p);
            }
            let first = func.blocks.len();
            let mut made = self.block(&mut func, at, MAX_BLOCK, &mut ranges);
            if matches!(made, Block::NextPage)
                && self.pages.len() < MAX_PAGES
                && let Some(p) = more(va.wrapping_add(PAGE_SIZE))
            {
                self.pages.push(p);
                func.blocks.truncate(first);
                made = self.block(&mut func, at, MAX_BLOCK, &mut ranges);
            }
            let Block::Made(id) = made else {
                func.blocks.truncate(first);
                if starts.is_empty() {
                    return None;
                }
                continue;
            };
            starts.push((at, id));
            insns += func.blocks[first].guest_insns;
            for b in first..func.blocks.len() {
                for t in func.blocks[b].term.targets() {
                    if let Target::Exit(k @ (ExitKind::Goto | ExitKind::Call { .. }), s) = t {
                        let to = func.state(*s).pc;
                        if hot(to) {
                            queue.push_back(to);
                        }
                        if let ExitKind::Call { ret } = *k
                            && hot(to)
                            && hot(ret)
                        {
                            queue.push_back(ret);
                        }
                    }
                }
            }
        }
        let find = |to: u64| starts.iter().find(|x| x.0 == to).map(|x| x.1);
        // Edges inside the region, calls among them.
        let mut returns: Vec<(u64, BlockId)> = Vec::new();
        for b in 0..func.blocks.len() {
            let mut term = std::mem::replace(&mut func.blocks[b].term, Term::Open);
            for t in term.targets_mut() {
                let Target::Exit(k, s) = t else { continue };
                let (ExitKind::Goto | ExitKind::Call { .. }) = *k else { continue };
                let Some(id) = find(func.state(*s).pc) else { continue };
                if let ExitKind::Call { ret } = *k
                    && let Some(to) = find(ret)
                    && !returns.iter().any(|r| r.0 == ret)
                {
                    returns.push((ret, to));
                }
                *k = ExitKind::Inner(id);
            }
            func.blocks[b].term = term;
        }
        returns.truncate(MAX_RETURNS);
        if !returns.is_empty() {
            inline_returns(&mut func, &returns);
        }
        add_checks(&mut func);
        check::<G>(&func, Stage::Built);
        promote(&mut func, G::HELPERS).ok()?;
        check::<G>(&func, Stage::Promoted);
        simplify_all(&mut func);
        lazy_flags(&mut func);
        remove_dead(&mut func, G::HELPERS);
        check::<G>(&func, Stage::Promoted);
        let others = self.others(&ranges);
        Some(Translation { func, ranges, others })
    }
}

/// The first instruction of these bytes, which are all there is so far: `None` wants more, `Some(None)` makes nothing of them.
pub fn single_instruction<G: Guest>(
    config: &G::Config,
    mode: u64,
    attrs: u8,
    pc: u64,
    code: &[u8],
    counts: bool,
) -> Option<Option<Function>> {
    let mut func = Function::new(G::fp_mode(mode));
    (func.counts, func.eager) = (counts, true);
    let id = func.new_block(pc);
    let mut b = Builder::new(&mut func, G::HELPERS, id);
    match G::translate(config, mode, attrs, code, 1, &mut b) {
        Translated::NeedsNextPage if code.len() < OVERLAP => return None,
        Translated::NeedsNextPage => return Some(None),
        Translated::Done { .. } => {}
    }
    check::<G>(&func, Stage::Built);
    Some(Some(func))
}

/// Debug builds verify what front ends and passes make.
fn check<G: Guest>(f: &Function, stage: Stage) {
    if cfg!(debug_assertions)
        && let Err(e) = verify(f, G::HELPERS, stage)
    {
        panic!("bad {} IR, {stage:?}: {e}\n{f}", G::ARCH);
    }
}

/// Where instructions are counted, the guest block from `id` on is begun only if all of it may be executed.
fn check_count(f: &mut Function, id: BlockId) {
    if f.counts {
        let insns: u32 = f.blocks[id.index()..].iter().map(|b| b.guest_insns).sum();
        let pc = f.blocks[id.index()].pc;
        add_check(f, id.index(), Op::CheckCount, pc, u64::from(insns));
    }
}

/// A point where the guest may be left, before block `b`.
fn add_check(f: &mut Function, b: usize, op: Op, pc: u64, imm: u64) {
    let mut i = Inst::new(op, Type::Void);
    i.imm = imm;
    i.state = f.push_state(StateMap { pc, dirty: Default::default() });
    let v: Value = f.push_inst(i);
    f.blocks[b].insts.insert(0, v);
}

/// Returns compare their target with the region's own return addresses: going on at an equal address is right whoever
/// called.
fn inline_returns(f: &mut Function, returns: &[(u64, BlockId)]) {
    for b in 0..f.blocks.len() {
        let Term::Jump(Target::Exit(ExitKind::Return(v), s)) = f.blocks[b].term else { continue };
        let (mut at, mut s) = (b, s);
        for (n, &(ret, to)) in returns.iter().enumerate() {
            let mut c = Inst::new(Op::Const, Type::I64);
            c.imm = ret;
            let c = f.push_inst(c);
            let mut i = Inst::new(Op::ICmp, Type::Bool);
            i.args[0] = v;
            i.args[1] = c;
            i.aux = Cond::Eq as u32;
            let cond = f.push_inst(i);
            f.blocks[at].insts.extend([c, cond]);
            let then = Target::Exit(ExitKind::Inner(to), s);
            if n + 1 == returns.len() {
                f.blocks[at].term = Term::Branch { cond, then, other: Target::Exit(ExitKind::Return(v), s), hint: 1 };
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
        let pc = f.blocks[h].pc;
        add_check(f, h, Op::CheckExit, pc, 0);
    }
}
