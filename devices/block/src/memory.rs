//! Storage in memory, and storage that holds nothing.

use crate::segment::{gather, scatter, total, zero_from};
use crate::{BlockBackend, Segment};
use parking_lot::Mutex;
use std::io;

/// A disk in memory.
pub struct MemoryBackend {
    data: Mutex<Vec<u8>>,
    readonly: bool,
}

impl MemoryBackend {
    /// `data` is cut to whole sectors.
    #[must_use]
    pub fn new(mut data: Vec<u8>, readonly: bool) -> Self {
        data.truncate(data.len() / 512 * 512);
        Self { data: Mutex::new(data), readonly }
    }
    /// A copy of the content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.data.lock().clone()
    }
}

fn range(data: &mut [u8], offset: u64, len: u64) -> io::Result<&mut [u8]> {
    let start = usize::try_from(offset).map_err(|_| crate::out_of_range())?;
    let len = usize::try_from(len).map_err(|_| crate::out_of_range())?;
    data.get_mut(start..).and_then(|d| d.get_mut(..len)).ok_or_else(crate::out_of_range)
}

impl BlockBackend for MemoryBackend {
    fn capacity(&self) -> u64 {
        self.data.lock().len() as u64
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        let copy = range(&mut self.data.lock(), offset, total(segments))?.to_vec();
        scatter(&copy, segments)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        let new = gather(segments)?;
        range(&mut self.data.lock(), offset, new.len() as u64)?.copy_from_slice(&new);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }
    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> io::Result<()> {
        range(&mut self.data.lock(), offset, len)?.fill(0);
        Ok(())
    }
    fn readonly(&self) -> bool {
        self.readonly
    }
    fn description(&self) -> String {
        "memory".to_owned()
    }
}

/// A disk that reads as zero and forgets what is written.
pub struct NullBackend {
    capacity: u64,
}

impl NullBackend {
    /// `capacity` in bytes, cut to whole sectors.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { capacity: capacity / 512 * 512 }
    }
}

impl BlockBackend for NullBackend {
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn read(&self, _offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        zero_from(segments, 0);
        Ok(())
    }
    fn write(&self, _offset: u64, _segments: &[Segment]) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> io::Result<()> {
        Ok(())
    }
    fn readonly(&self) -> bool {
        false
    }
    fn description(&self) -> String {
        "null-co://".to_owned()
    }
}
