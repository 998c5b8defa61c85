//! Blocks of the cheap tier.

use crate::cache::{Cache, Key, Made, Ranges};
use crate::report::{Installed, Listeners};
use crate::translate::{MAX_BLOCK, Missing, Source};
use crate::vm::Core;
use crate::x64::{self, CodeBlob, Entry, Region, RuntimeFns};
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
        let t = src.single(key.pc, MAX_BLOCK)?;
        if let Some(tell) = self.listeners.compiled.get() {
            tell(&t.func);
        }
        let (id, (counter, cell)) = {
            let mut cache = self.core.cache.lock();
            (cache.reserve(key), self.threshold.map_or((0, 0), |n| cache.counter(n)))
        };
        let entry = Entry { id, counter: cell };
        let region =
            Region { func: &t.func, helpers: G::HELPERS, fns: &self.fns, entry, others: &t.others, sites: None };
        let blob = x64::compile(&region).map_err(|_| Missing::Other)?;
        let ranges = t.ranges.clone();
        let made = Made { ranges: t.ranges, others: t.others, counter, optimised: false };
        Ok((ranges, Block { id, made, blob, start }))
    }

    /// Installs it, if the cache was not emptied since it was begun.
    pub fn install(&self, cache: &mut Cache, key: Key, block: Block) -> Placed {
        if let Some(m) = cache.find(&key) {
            return Placed::There(m.entry);
        }
        let Block { id, made, blob, start } = block;
        let time = start.elapsed();
        cache.stats.block_time += time.as_nanos() as u64;
        cache.install(id, key, made, blob, time).map_or(Placed::Full, Placed::New)
    }
}
