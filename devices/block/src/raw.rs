//! Raw images: the file, or a window of it, is the disk.

use crate::segment::{load_at, total};
use crate::{BlockBackend, Extent, Geometry, SECTOR, Segment};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A raw image.
pub struct RawNode {
    file: Arc<dyn BlockBackend>,
    offset: u64,
    size: Option<u64>,
    capacity: AtomicU64,
    /// The format was guessed: what is written to sector 0 must not make the image look like another format, which the guest
    /// could use to read other files of the host.
    guessed: bool,
}

impl RawNode {
    /// A raw image in `file`, from `offset` on, `size` bytes or all.
    ///
    /// # Errors
    /// The window is not inside the file.
    pub fn new(file: Arc<dyn BlockBackend>, offset: u64, size: Option<u64>, guessed: bool) -> Result<Self, String> {
        let len = file.capacity();
        if offset > len || size.is_some_and(|s| s > len - offset) {
            return Err(format!("offset and size do not lie within the file's {len} bytes"));
        }
        if !offset.is_multiple_of(SECTOR) || size.is_some_and(|s| !s.is_multiple_of(SECTOR)) {
            return Err("offset and size must be multiples of 512".to_owned());
        }
        let node = Self { file, offset, size, capacity: AtomicU64::new(0), guessed };
        let capacity = node.measure().ok_or("the image is too large")?;
        node.capacity.store(capacity, Ordering::Release);
        Ok(node)
    }
    /// The file has changed meanwhile.
    pub(crate) fn measure_again(&self) -> Result<(), String> {
        let end = self.size.map_or(self.offset, |s| self.offset.saturating_add(s));
        if end > self.file.capacity() {
            return Err("offset and size do not lie within the file".to_owned());
        }
        self.capacity.store(self.measure().ok_or("the image is too large")?, Ordering::Release);
        Ok(())
    }
    /// The part of the last sector that the file lacks reads as zero.
    fn measure(&self) -> Option<u64> {
        self.size.unwrap_or(self.file.capacity() - self.offset).checked_next_multiple_of(SECTOR)
    }
    fn check_first_sector(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        if !self.guessed || offset >= SECTOR {
            return Ok(());
        }
        let mut sector = [0; SECTOR as usize];
        let n = len.min(SECTOR - offset);
        if n < SECTOR {
            self.file.read_bytes(self.offset, &mut sector)?;
        }
        load_at(segments, skip, &mut sector[offset as usize..(offset + n) as usize])?;
        match crate::probe(&sector) {
            crate::Format::Raw => Ok(()),
            other => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("sector 0 would look like a {} image: say format=raw to allow it", other.name()),
            )),
        }
    }
}

impl BlockBackend for RawNode {
    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.file.read_part(self.offset + offset, segments, 0, total(segments))
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        self.file.read_part_now(self.offset + offset, segments, 0, total(segments))
    }
    fn read_part_now(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> Option<io::Result<()>> {
        self.file.read_part_now(self.offset + offset, segments, skip, len)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.write_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        self.file.read_part(self.offset + offset, segments, skip, len)
    }
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        self.check_first_sector(offset, segments, skip, len)?;
        self.file.write_part(self.offset + offset, segments, skip, len)
    }
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_bytes(self.offset + offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.discard(self.offset + offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.file.write_zeroes(self.offset + offset, len, may_unmap)
    }
    fn readonly(&self) -> bool {
        self.file.readonly()
    }
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }
    fn description(&self) -> String {
        format!("{} (raw{})", self.file.description(), if self.readonly() { ", read-only" } else { "" })
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.file.status(self.offset + offset, len)
    }
    fn resize(&self, capacity: u64) -> io::Result<()> {
        if self.size.is_some() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the image has a fixed size within its file"));
        }
        let file = self.offset.checked_add(capacity).ok_or_else(crate::out_of_range)?;
        self.file.resize(file)?;
        self.capacity.store(capacity.next_multiple_of(SECTOR), Ordering::Release);
        Ok(())
    }
    fn allocated_size(&self) -> Option<u64> {
        self.file.allocated_size()
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
