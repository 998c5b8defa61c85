//! A copy of an image as it is at one moment, while it goes on changing.

use super::{Watch, copy};
use crate::range_lock::RangeLock;
use crate::{BlockBackend, DirtyParts, ExtentKind};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Bytes that are copied together.
const UNIT: u64 = 64 << 10;

/// Copies what an image had when this began: ahead of each change, and the rest by and by.
pub struct Backup {
    source: Arc<dyn BlockBackend>,
    target: Arc<dyn BlockBackend>,
    unit: u64,
    len: u64,
    /// One copies a piece at a time.
    pieces: RangeLock,
    copied: Mutex<Vec<u64>>,
    /// What went wrong ahead of a change of the guest, which is not held up by it: the copy is of no use any more.
    failed: Mutex<Option<io::Error>>,
}

impl Backup {
    /// Of `source` to `target`.
    ///
    /// # Errors
    /// The image is too large.
    pub fn new(source: &Arc<dyn BlockBackend>, target: &Arc<dyn BlockBackend>) -> Result<Arc<Self>, String> {
        let len = source.capacity();
        let unit = target.cluster_size().max(UNIT);
        let words = len.div_ceil(unit).div_ceil(64);
        let words = usize::try_from(words).map_err(|_| "the image is too large".to_owned())?;
        Ok(Arc::new(Self {
            source: source.clone(),
            target: target.clone(),
            unit,
            len,
            pieces: RangeLock::default(),
            copied: Mutex::new(vec![0; words]),
            failed: Mutex::default(),
        }))
    }
    /// What only images below have need not be copied.
    ///
    /// # Errors
    /// The host's, or damage.
    pub fn only_top(&self) -> io::Result<()> {
        let mut copied = self.copied.lock();
        let mut piece = 0;
        while piece * self.unit < self.len {
            let (mut at, end) = (piece * self.unit, ((piece + 1) * self.unit).min(self.len));
            let mut absent = true;
            while absent && at < end {
                let e = self.source.status(at, end - at)?;
                absent = e.kind == ExtentKind::Absent;
                at += e.len.max(1);
            }
            if absent {
                copied[(piece / 64) as usize] |= 1 << (piece % 64);
            }
            piece += 1;
        }
        Ok(())
    }
    /// What is not in `parts` need not be copied.
    pub fn only(&self, parts: &DirtyParts) {
        let mut copied = self.copied.lock();
        for piece in 0..self.len.div_ceil(self.unit) {
            if !parts.touches(piece * self.unit, self.unit) {
                copied[(piece / 64) as usize] |= 1 << (piece % 64);
            }
        }
    }
    /// Takes out of `parts` what has been copied.
    #[must_use]
    pub fn without_copied(&self, parts: &DirtyParts) -> DirtyParts {
        let mut left = parts.clone();
        left.retain(|offset, len| {
            let last = (offset + len).saturating_sub(1) / self.unit;
            (offset / self.unit..=last).any(|piece| !self.is_copied(piece))
        });
        left
    }
    fn is_copied(&self, piece: u64) -> bool {
        self.copied.lock().get((piece / 64) as usize).is_none_or(|w| w & 1 << (piece % 64) != 0)
    }
    fn piece(&self, piece: u64) -> io::Result<bool> {
        if self.is_copied(piece) {
            return Ok(false);
        }
        let _mine = self.pieces.lock(piece, 1, true);
        if self.is_copied(piece) {
            return Ok(false);
        }
        copy(&*self.source, &*self.target, piece * self.unit, self.unit)?;
        if let Some(word) = self.copied.lock().get_mut((piece / 64) as usize) {
            *word |= 1 << (piece % 64);
        }
        Ok(true)
    }
    /// Copies all that is not yet copied. `progress` is told the bytes of each piece, and stops the work by false.
    ///
    /// # Errors
    /// The host's, also of what was copied ahead of changes; or stopped.
    pub fn run(&self, mut progress: impl FnMut(u64) -> bool) -> io::Result<()> {
        for piece in 0..self.len.div_ceil(self.unit) {
            if !progress(if piece == 0 { 0 } else { self.unit }) {
                return Err(crate::image::stopped());
            }
            self.check()?;
            self.piece(piece)?;
        }
        self.check()?;
        self.target.flush()
    }
    /// What went wrong ahead of a change.
    ///
    /// # Errors
    /// That.
    pub fn check(&self) -> io::Result<()> {
        self.failed.lock().take().map_or(Ok(()), Err)
    }
    /// Bytes of the image.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Watch for Backup {
    fn before(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end || self.failed.lock().is_some() {
            return;
        }
        for piece in offset / self.unit..=(end - 1) / self.unit {
            if let Err(e) = self.piece(piece) {
                *self.failed.lock() = Some(e);
                return;
            }
        }
    }
}
