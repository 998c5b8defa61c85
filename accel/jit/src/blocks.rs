//! Blocks of the cheap tier.

use crate::cache::{Cache, Key, Made, Ranges};
use crate::report::{Installed, Listeners};
use crate::template::{Advice, Template, other_entry, other_pc};
use crate::translate::{MAX_BLOCK, Missing, Source, Translation};
use crate::vm::Core;
use crate::x64::{self, CodeBlob, Entry, Region, RuntimeFns};
use rhea_ir::func::{ExitKind, Function, Target};
use rhea_ir::guest::Guest;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

/// Makes blocks. Nothing is locked meanwhile: who installs one makes sure that its bytes are still what they were.
pub struct Maker<G: Guest> {
    pub core: Arc<Core>,
    pub fns: RuntimeFns,
    /// Entries before a block asks for its region; `None`: it never does.
    pub threshold: Option<i32>,
    pub listeners: Arc<Listeners>,
    pub guest: PhantomData<fn(G)>,
}

/// A block that was made and is not installed.
pub struct Block {
    id: u32,
    made: Made,
    blob: CodeBlob,
    start: Instant,
    copied: bool,
}

fn branches_indirectly(f: &Function) -> bool {
    let indirect = |t: &Target| matches!(t, Target::Exit(ExitKind::Indirect(_) | ExitKind::IndirectCall { .. }, _));
    f.blocks.iter().any(|b| b.term.targets().any(indirect))
}

/// What came of installing a block.
pub enum Placed {
    New(Installed),
    /// There was code for it already, here.
    There(usize),
    /// Code memory is full.
    Full,
}

impl<G: Guest> Maker<G> {
    /// Makes the block at `key`, and says which bytes it was made from.
    pub fn block(&self, src: &Source<G>, key: Key) -> Result<(Ranges, Block), Missing> {
        let start = Instant::now();
        let advice = if self.listeners.compiled.get().is_some() || src.counts || self.threshold.is_none() {
            Advice::Translate
        } else {
            self.core.cache.lock().templates.advice(&key)
        };
        if let (Advice::Copy(t), Some(page)) = (&advice, src.pages.first()) {
            let (entry, counter, targets) = self.entry(key, t.notes);
            if let Some((ranges, blob)) = t.at(key.pc, entry, page) {
                debug_assert_eq!(self.movable(src, key.pc, entry).map(|b| b.bytes), Some(blob.bytes.clone()));
                let made = Made { ranges: ranges.clone(), others: Vec::new(), counter, targets, optimised: false };
                return Ok((ranges, Block { id: entry.id, made, blob, start, copied: true }));
            }
            self.core.cache.lock().templates.forget(&key);
        }
        let t = src.single(key.pc, MAX_BLOCK)?;
        if let Some(tell) = self.listeners.compiled.get() {
            tell(&t.func);
        }
        let (entry, counter, targets) = self.entry(key, branches_indirectly(&t.func));
        let blob = self.compile(&t, entry).ok_or(Missing::Other)?;
        if let Advice::Learn = advice {
            let made = self.template(src, key.pc, entry);
            self.core.cache.lock().templates.learn(&key, made);
        }
        let ranges = t.ranges.clone();
        let made = Made { ranges: t.ranges, others: t.others, counter, targets, optimised: false };
        Ok((ranges, Block { id: entry.id, made, blob, start, copied: false }))
    }

    /// What a new block is entered with, and the numbers of its counter and of its list of targets.
    fn entry(&self, key: Key, notes: bool) -> (Entry, usize, usize) {
        let mut cache = self.core.cache.lock();
        let hot = self.threshold.map(|n| cache.counter(n));
        let noted = hot.filter(|_| notes).map(|_| cache.targets());
        let (counter, (targets, noted)) = (hot.unwrap_or_default(), noted.unwrap_or_default());
        (Entry { id: cache.reserve(key), counted: counter != 0, targets: noted }, counter, targets)
    }

    fn compile(&self, t: &Translation, entry: Entry) -> Option<CodeBlob> {
        let (func, others) = (&t.func, &t.others);
        x64::compile(&Region { func, helpers: G::HELPERS, fns: &self.fns, entry, others, sites: None }).ok()
    }

    /// What a copy must be equal to.
    fn movable(&self, src: &Source<G>, pc: u64, entry: Entry) -> Option<CodeBlob> {
        self.compile(&src.movable(pc, MAX_BLOCK)?, entry)
    }

    /// Code for the block at `pc` that can be moved.
    fn template(&self, src: &Source<G>, pc: u64, entry: Entry) -> Option<Template> {
        let other = other_pc(pc);
        let here = src.movable(pc, MAX_BLOCK)?;
        let there = src.moved(other.wrapping_sub(pc)).movable(other, MAX_BLOCK)?;
        let blobs = (&self.compile(&here, entry)?, &self.compile(&there, other_entry(entry))?);
        Template::new(pc, entry, blobs, here.ranges.first()?, src.pages.first()?)
    }

    /// Installs it, if the cache was not emptied since it was begun.
    pub fn install(&self, cache: &mut Cache, key: Key, block: Block) -> Placed {
        if let Some(m) = cache.find(&key) {
            return Placed::There(m.entry);
        }
        let Block { id, made, blob, start, copied } = block;
        let time = start.elapsed();
        cache.stats.copied += u64::from(copied);
        cache.stats.block_time += time.as_nanos() as u64;
        cache.install(id, key, made, blob, time).map_or(Placed::Full, Placed::New)
    }
}
