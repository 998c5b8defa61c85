//! One image becomes a copy of another that goes on changing (mirror), or what images have is put into the one below them (commit).

use super::{STEP, Watch, allocated_above, copy};
use crate::{BlockBackend, ExtentKind};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Ranges that are still to be copied, by pieces of the same size.
struct Dirty {
    bits: Vec<u64>,
    count: u64,
    /// Where to look next.
    next: u64,
}

/// Copies what is not yet copied.
pub struct Copier {
    source: Arc<dyn BlockBackend>,
    target: Arc<dyn BlockBackend>,
    /// Bytes of a piece.
    unit: u64,
    len: u64,
    dirty: Mutex<Dirty>,
}

impl Copier {
    /// With nothing to copy yet; `unit`: bytes that are copied together, a power of two.
    ///
    /// # Errors
    /// The image is too large.
    pub fn new(source: &Arc<dyn BlockBackend>, target: &Arc<dyn BlockBackend>, unit: u64) -> Result<Arc<Self>, String> {
        let len = source.capacity();
        let words = len.div_ceil(unit).div_ceil(64);
        let words = usize::try_from(words).map_err(|_| "the image is too large".to_owned())?;
        let dirty = Mutex::new(Dirty { bits: vec![0; words], count: 0, next: 0 });
        Ok(Arc::new(Self { source: source.clone(), target: target.clone(), unit, len, dirty }))
    }
    /// Everything is to be copied.
    pub fn mark_all(&self) {
        self.mark(0, self.len);
    }
    /// What the uppermost image has is to be copied.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn mark_top(&self) -> io::Result<()> {
        self.mark_where(|at| {
            let e = self.source.status(at, self.len - at)?;
            Ok((e.kind != ExtentKind::Absent, e.len))
        })
    }
    /// What is in one of the images above `base` is to be copied.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn mark_above(&self, base: &Arc<dyn BlockBackend>) -> io::Result<()> {
        self.mark_where(|at| allocated_above(&self.source, Some(base), at, self.len - at))
    }
    fn mark_where(&self, look: impl Fn(u64) -> io::Result<(bool, u64)>) -> io::Result<()> {
        let mut at = 0;
        while at < self.len {
            let (there, len) = look(at)?;
            if there {
                self.mark(at, len);
            }
            at += len.max(1);
        }
        Ok(())
    }
    fn mark(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return;
        }
        let mut dirty = self.dirty.lock();
        let mut added = 0;
        for piece in offset / self.unit..=(end - 1) / self.unit {
            if let Some(word) = dirty.bits.get_mut((piece / 64) as usize) {
                added += u64::from(*word & 1 << (piece % 64) == 0);
                *word |= 1 << (piece % 64);
            }
        }
        dirty.count += added;
    }
    /// Bytes that are to be copied.
    #[must_use]
    pub fn left(&self) -> u64 {
        (self.dirty.lock().count * self.unit).min(self.len)
    }
    /// The next range to copy, which counts as copied from now on: if it changes while it is copied, it will be marked again.
    fn take(&self) -> Option<(u64, u64)> {
        let mut dirty = self.dirty.lock();
        if dirty.count == 0 {
            return None;
        }
        let words = dirty.bits.len() as u64;
        let start = dirty.next;
        let word = (0..=words).map(|n| (start / 64 + n) % words).find_map(|w| {
            // In the first word, what is before the place comes last.
            let from = if w == start / 64 { start % 64 } else { 0 };
            let bits = dirty.bits[w as usize];
            let ahead = bits & u64::MAX << from;
            let bits = if ahead != 0 { ahead } else { bits };
            (bits != 0).then(|| w * 64 + u64::from(bits.trailing_zeros()))
        });
        let first = word?;
        let mut piece = first;
        let most = (STEP / self.unit).max(1);
        while piece < first + most && dirty.bits.get((piece / 64) as usize).is_some_and(|w| w & 1 << (piece % 64) != 0)
        {
            dirty.bits[(piece / 64) as usize] &= !(1 << (piece % 64));
            piece += 1;
        }
        dirty.count -= piece - first;
        dirty.next = if piece < words * 64 { piece } else { 0 };
        let offset = first * self.unit;
        Some((offset, ((piece - first) * self.unit).min(self.len - offset)))
    }
    /// Copies the next range: its length, or none if there is nothing to copy now.
    ///
    /// # Errors
    /// The host's; the range is to be copied still.
    pub fn step(&self) -> io::Result<Option<u64>> {
        let Some((offset, len)) = self.take() else { return Ok(None) };
        if let Err(e) = copy(&*self.source, &*self.target, offset, len) {
            self.mark(offset, len);
            return Err(e);
        }
        Ok(Some(len))
    }
    /// Copies all that is left and makes it last: the source must not be changing.
    ///
    /// # Errors
    /// The host's.
    pub fn finish(&self) -> io::Result<()> {
        while self.step()?.is_some() {}
        self.target.flush()
    }
}

impl Watch for Copier {
    // After it has changed: whoever copied the range before has the old content, and will find it marked.
    fn after(&self, offset: u64, len: u64) {
        self.mark(offset, len);
    }
}
