//! The machine runs at the destination before all of its memory is there: the capability `postcopy-ram`.
//!
//! When it is asked for, the guest stops, and the stream tells which pages are still to come ([`Kind::Missing`]) before clock, devices
//! and processors. The stream of sections ends there as it does without; on the same connection another one follows, of pages and
//! [`Kind::Go`], and a last one that ends it. The destination answers in lines:
//!
//! ```text
//! want PAGE BLOCK          somebody waits for this page of the block of that name
//! ok                       the machine was taken over, and runs when "go" comes
//! done                     all pages are here
//! ```
//!
//! When the connection breaks after "go", both ends wait for another one. The source begins that with a head and [`Kind::Resume`], and is
//! answered with what is still missing, whatever it has sent:
//!
//! ```text
//! missing FIRST COUNT BLOCK
//! ready                    there is no more; what is waited for is wanted again
//! ```

mod moving;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use receive::Arrival;
pub use receive::check as check_postcopy_host;

use super::stream::{Kind, Result, Section, StateError, Writer};
use parking_lot::{Condvar, Mutex};
use rhea_memory::{PAGE_SIZE, RamBlock};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// By what an end that comes back is known.
pub(super) type Token = [u64; 2];

pub(super) fn token() -> Result<Token> {
    let mut token = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut token)?;
    let words = token.as_chunks::<8>().0;
    Ok([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
}

/// Some of the pages of a machine's memory.
#[derive(Default)]
pub(super) struct PageSet {
    blocks: Vec<(Arc<RamBlock>, Vec<u64>)>,
    count: u64,
}

impl PageSet {
    /// None of the pages of `blocks`.
    pub fn new(blocks: &[Arc<RamBlock>]) -> Self {
        let bits = |b: &Arc<RamBlock>| vec![0; (b.len() / PAGE_SIZE).div_ceil(64) as usize];
        Self { blocks: blocks.iter().map(|b| (b.clone(), bits(b))).collect(), count: 0 }
    }
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
    pub fn block(&self, number: usize) -> Option<&Arc<RamBlock>> {
        self.blocks.get(number).map(|(b, _)| b)
    }
    pub fn position(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|(b, _)| b.name() == name)
    }
    fn bit(&mut self, block: usize, page: u64) -> Option<(&mut u64, u64)> {
        let (block, bits) = self.blocks.get_mut(block)?;
        if page >= block.len() / PAGE_SIZE {
            return None;
        }
        bits.get_mut((page / 64) as usize).map(|word| (word, 1 << (page % 64)))
    }
    /// Whether it was not there already; pages that the block does not have are left out.
    pub fn insert(&mut self, block: usize, page: u64) -> bool {
        let Some((word, bit)) = self.bit(block, page) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }
    /// All pages of a block.
    pub fn insert_all(&mut self, block: usize) {
        let pages = self.block(block).map_or(0, |b| b.len() / PAGE_SIZE);
        (0..pages).for_each(|page| {
            self.insert(block, page);
        });
    }
    /// Whether it was there.
    pub fn remove(&mut self, block: usize, page: u64) -> bool {
        let Some((word, bit)) = self.bit(block, page) else { return false };
        let old = *word & bit != 0;
        *word &= !bit;
        self.count -= u64::from(old);
        old
    }
    pub fn contains(&mut self, block: usize, page: u64) -> bool {
        self.bit(block, page).is_some_and(|(word, bit)| *word & bit != 0)
    }
    /// The first of a block's from `page` on.
    fn next(&self, block: usize, page: u64) -> Option<u64> {
        let bits = &self.blocks.get(block)?.1;
        let mut at = (page / 64) as usize;
        let mut word = bits.get(at)? & (u64::MAX << (page % 64));
        while word == 0 {
            at += 1;
            word = *bits.get(at)?;
        }
        Some(at as u64 * 64 + u64::from(word.trailing_zeros()))
    }
    /// Takes up to `most` pages that follow one another: the first ones from there on, or from the beginning again. Block, first, count.
    pub fn take(&mut self, from: (usize, u64), most: u64) -> Option<(usize, u64, u64)> {
        let blocks = self.blocks.len();
        let later = (0..=blocks).map(|n| ((from.0 + n) % blocks.max(1), if n == 0 { from.1 } else { 0 }));
        let (block, first) = later.filter_map(|(b, page)| self.next(b, page).map(|first| (b, first))).next()?;
        let mut count = 0;
        while count < most && self.remove(block, first + count) {
            count += 1;
        }
        Some((block, first, count))
    }
    /// The pages of a block, as runs: first and count.
    pub fn runs(&self, block: usize) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut page = 0;
        while let Some(next) = self.next(block, page) {
            match all.last_mut() {
                Some((first, count)) if *first + *count == next => *count += 1,
                _ => all.push((next, 1)),
            }
            page = next + 1;
        }
        all
    }
    /// A section for each block.
    pub fn write<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        for (number, (block, _)) in self.blocks.iter().enumerate() {
            let words = self.runs(number).into_iter().flat_map(|(first, count)| [first, count]);
            let content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            writer.section(Kind::Missing, block.name(), 1, &content)?;
        }
        Ok(())
    }
    /// Takes over what a section says.
    pub fn read(&mut self, section: &Section) -> Result<()> {
        let number = self.position(&section.name).ok_or_else(|| section.error("the machine has no such memory"))?;
        let (words, rest) = section.data.as_chunks::<8>();
        if section.version != 1 || !rest.is_empty() || words.len() % 2 != 0 {
            return Err(section.error("it is no list of pages"));
        }
        for run in words.as_chunks::<2>().0 {
            let [first, count] = run.map(u64::from_le_bytes);
            self.insert_run(number, first, count).map_err(|what| section.error(what))?;
        }
        Ok(())
    }
    fn insert_run(&mut self, block: usize, first: u64, count: u64) -> std::result::Result<(), String> {
        let pages = self.block(block).map_or(0, |b| b.len() / PAGE_SIZE);
        match first.checked_add(count).filter(|end| *end <= pages) {
            Some(end) => {
                (first..end).for_each(|page| {
                    self.insert(block, page);
                });
                Ok(())
            }
            None => Err(format!("page {first}: there is no room for {count} pages")),
        }
    }
}

type Open<T> = Box<dyn FnOnce() -> io::Result<T> + Send>;

/// Where a thread that has lost its connection waits for the next one.
pub(super) struct Handover<T> {
    given: Mutex<Option<Open<T>>>,
    changed: Condvar,
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self { given: Mutex::new(None), changed: Condvar::new() }
    }
}

impl<T> Handover<T> {
    pub fn give(&self, open: Open<T>) {
        *self.given.lock() = Some(open);
        self.changed.notify_all();
    }
    pub fn wait(&self) -> Open<T> {
        let mut given = self.given.lock();
        loop {
            match given.take() {
                Some(open) => return open,
                None => self.changed.wait(&mut given),
            }
        }
    }
}

pub(super) fn one_way() -> StateError {
    StateError::Other("Postcopy requires a stream that goes both ways (tcp, unix)".to_owned())
}

/// The connection is no longer of use.
fn broken(what: impl std::fmt::Display) -> StateError {
    StateError::Other(format!("post-copy: {what}"))
}
