//! From guest code to IR: single blocks of the cheap tier, and what [`crate::region`] joins.

use crate::cache::{OtherPage, PageId, Range, Ranges};
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::func::{BlockId, Builder, Function, Inst, StateMap, Value};
use rhea_ir::guest::{Guest, Translated};
use rhea_ir::op::Op;
use rhea_ir::types::Type;
use rhea_ir::verify::{Stage, verify};

/// Guest instructions in a block of the cheap tier.
pub const MAX_BLOCK: u32 = 64;
/// More bytes than such a block may be made from: the longest instructions are x86's, with fifteen.
pub const MAX_BLOCK_BYTES: u64 = MAX_BLOCK as u64 * 16;

/// Bounds of an optimised region.
#[derive(Clone, Copy, Debug)]
pub struct RegionSize {
    pub blocks: usize,
    pub insns: u32,
}

/// What is tried, one after the other: a region too big for its frame is made smaller. Functions with many hot blocks gain where one
/// region has all of them.
pub const REGION_SIZES: [RegionSize; 2] =
    [RegionSize { blocks: 192, insns: 2100 }, RegionSize { blocks: 64, insns: 700 }];

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
pub enum Block {
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
    pub fn block(&self, f: &mut Function, pc: u64, max: u32, ranges: &mut Ranges) -> Block {
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
    pub fn page(&self, va: u64) -> Option<&CodePage> {
        self.pages.iter().find(|p| p.va == va)
    }
    /// The pages behind the first that the ranges use.
    pub fn others(&self, ranges: &[Range]) -> Vec<OtherPage> {
        let used = |p: &&CodePage| ranges.iter().any(|r| r.page == p.id);
        self.pages
            .iter()
            .skip(1)
            .filter(used)
            .map(|p| OtherPage { tag: p.tag, host: p.host, identity: p.identity })
            .collect()
    }

    /// The same code at another address, a whole number of pages away.
    pub fn moved(&self, by: u64) -> Self {
        let mut pages = self.pages.clone();
        for p in &mut pages {
            p.va = p.va.wrapping_add(by);
        }
        Source { pages, ..*self }
    }

    /// One guest block (or its first `max` instructions).
    pub fn single(&self, pc: u64, max: u32) -> Result<Translation, Missing> {
        self.single_of(pc, max, None)
    }
    /// The same, if it is in one page, for use at other addresses ([`Function::movable`]).
    pub fn movable(&self, pc: u64, max: u32) -> Option<Translation> {
        self.single_of(pc, max, Some(pc & !(PAGE_SIZE - 1))).ok().filter(|t| t.ranges.len() == 1 && t.others.is_empty())
    }
    fn single_of(&self, pc: u64, max: u32, movable: Option<u64>) -> Result<Translation, Missing> {
        let mut func = Function::new(G::fp_mode(self.mode));
        (func.counts, func.eager, func.movable) = (self.counts, true, movable);
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
pub fn check<G: Guest>(f: &Function, stage: Stage) {
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
pub fn add_check(f: &mut Function, b: usize, op: Op, pc: u64, imm: u64) {
    let mut i = Inst::new(op, Type::Void);
    i.imm = imm;
    i.state = f.push_state(StateMap { pc, dirty: Default::default() });
    let v: Value = f.push_inst(i);
    f.blocks[b].insts.insert(0, v);
}
