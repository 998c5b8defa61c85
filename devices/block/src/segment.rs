//! The memory of a request.

use rhea_memory::HostSlice;
use std::io;

/// One piece of a request's memory: guest RAM, or a buffer of the emulator.
pub enum Segment {
    Guest(HostSlice),
    Host(Vec<u8>),
}

impl Segment {
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Guest(s) => s.len(),
            Self::Host(v) => v.len() as u64,
        }
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `data` to `at`.
    ///
    /// # Errors
    /// `InvalidInput` past the end.
    pub fn store(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Guest(s) => s.write(at, data).map_err(|_| crate::out_of_range()),
            Self::Host(v) => {
                let range = usize::try_from(at).ok().and_then(|at| v.get_mut(at..)?.get_mut(..data.len()));
                range.ok_or_else(crate::out_of_range)?.copy_from_slice(data);
                Ok(())
            }
        }
    }
    /// Copies from `at` to `data`.
    ///
    /// # Errors
    /// `InvalidInput` past the end.
    pub fn load(&self, at: u64, data: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Guest(s) => s.read(at, data).map_err(|_| crate::out_of_range()),
            Self::Host(v) => {
                let range = usize::try_from(at).ok().and_then(|at| v.get(at..)?.get(..data.len()));
                data.copy_from_slice(range.ok_or_else(crate::out_of_range)?);
                Ok(())
            }
        }
    }
    fn zero_from(&mut self, at: u64) {
        match self {
            Self::Guest(s) => {
                let (block, offset) = s.block();
                // In range by construction of the slice.
                let _ = block.fill(offset + at, s.len() - at, 0);
            }
            Self::Host(v) => v[at as usize..].fill(0),
        }
    }
}

/// Bytes in all segments.
pub(crate) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(Segment::len).fold(0, u64::saturating_add)
}

/// Zeroes everything from byte `at` of the whole request.
pub(crate) fn zero_from(segments: &mut [Segment], at: u64) {
    let mut start = 0;
    for s in segments {
        let len = s.len();
        if start + len > at {
            s.zero_from(at.saturating_sub(start));
        }
        start += len;
    }
}

/// Copies all segments into one buffer.
pub(crate) fn gather(segments: &[Segment]) -> io::Result<Vec<u8>> {
    let mut data = vec![0; usize::try_from(total(segments)).map_err(|_| crate::out_of_range())?];
    let mut at = 0;
    for s in segments {
        let len = s.len() as usize;
        s.load(0, &mut data[at..at + len])?;
        at += len;
    }
    Ok(data)
}

/// Copies one buffer of the same total length into the segments.
pub(crate) fn scatter(data: &[u8], segments: &mut [Segment]) -> io::Result<()> {
    let mut at = 0;
    for s in segments {
        let len = s.len() as usize;
        s.store(0, data.get(at..at + len).ok_or_else(crate::out_of_range)?)?;
        at += len;
    }
    Ok(())
}
