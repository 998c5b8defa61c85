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
    fn zero(&mut self, at: u64, len: u64) {
        match self {
            Self::Guest(s) => {
                let (block, offset) = s.block();
                // In range by construction of the slice.
                let _ = block.fill(offset + at, len, 0);
            }
            Self::Host(v) => v[at as usize..][..len as usize].fill(0),
        }
    }
}

/// A length as size of a buffer.
pub(crate) fn length(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| crate::out_of_range())
}

/// Bytes in all segments.
pub(crate) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(Segment::len).fold(0, u64::saturating_add)
}

/// The pieces of `len` bytes from byte `skip` on: index of the segment, offset in it, length.
fn pieces(lens: impl Iterator<Item = u64>, skip: u64, len: u64) -> impl Iterator<Item = (usize, u64, u64)> {
    let end = skip.saturating_add(len);
    lens.enumerate()
        .scan(0u64, |start, (n, len)| {
            let at = *start;
            *start = start.saturating_add(len);
            Some((n, at, at.saturating_add(len)))
        })
        .filter_map(move |(n, from, to)| {
            let (a, b) = (from.max(skip), to.min(end));
            (a < b).then(|| (n, a - from, b - a))
        })
}

/// Zeroes everything from byte `at` of the whole request.
pub(crate) fn zero_from(segments: &mut [Segment], at: u64) {
    zero_range(segments, at, u64::MAX);
}

/// Zeroes `len` bytes from byte `skip` of the whole request.
pub(crate) fn zero_range(segments: &mut [Segment], skip: u64, len: u64) {
    let lens: Vec<u64> = segments.iter().map(Segment::len).collect();
    for (n, at, len) in pieces(lens.into_iter(), skip, len) {
        segments[n].zero(at, len);
    }
}

/// Copies `data` into the segments from byte `skip` on.
pub(crate) fn store_at(segments: &mut [Segment], skip: u64, data: &[u8]) -> io::Result<()> {
    let lens: Vec<u64> = segments.iter().map(Segment::len).collect();
    let mut done = 0;
    for (n, at, len) in pieces(lens.into_iter(), skip, data.len() as u64) {
        segments[n].store(at, &data[done..done + len as usize])?;
        done += len as usize;
    }
    if done == data.len() { Ok(()) } else { Err(crate::out_of_range()) }
}

/// Copies from byte `skip` of the segments on.
pub(crate) fn load_at(segments: &[Segment], skip: u64, data: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    for (n, at, len) in pieces(segments.iter().map(Segment::len), skip, data.len() as u64) {
        segments[n].load(at, &mut data[done..done + len as usize])?;
        done += len as usize;
    }
    if done == data.len() { Ok(()) } else { Err(crate::out_of_range()) }
}

/// Is every byte zero?
pub(crate) fn is_zero(data: &[u8]) -> bool {
    data.chunks(64).all(|c| c.iter().fold(0, |a, b| a | b) == 0)
}

/// Are `len` bytes from byte `skip` on all zero?
pub(crate) fn segments_are_zero(segments: &[Segment], skip: u64, len: u64) -> bool {
    let mut piece = [0; 4096];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(piece.len() as u64);
        if load_at(segments, skip + at, &mut piece[..n as usize]).is_err() || !is_zero(&piece[..n as usize]) {
            return false;
        }
        at += n;
    }
    true
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
