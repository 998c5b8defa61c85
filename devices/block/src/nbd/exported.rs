//! A node of a machine, for other programs.

use crate::{BlockBackend, Drive, Extent, Geometry, Node, Segment};
use std::io;
use std::sync::Arc;

/// A node as it is exported. If a drive is on it, requests are like those of the drive: they meet the filters of jobs, wait while images are
/// exchanged, and go to the image that the drive is on then.
pub struct Exported {
    node: Arc<Node>,
    drive: Option<Arc<Drive>>,
}

impl Exported {
    #[must_use]
    pub fn new(node: Arc<Node>, drive: Option<Arc<Drive>>) -> Arc<Self> {
        Arc::new(Self { node, drive })
    }
    fn with<R>(&self, f: impl FnOnce(&dyn BlockBackend) -> R) -> R {
        match &self.drive {
            // One that has let go has no node.
            Some(drive) if drive.node().is_some() => drive.with_backend(f),
            _ => f(&*self.node.backend()),
        }
    }
}

impl BlockBackend for Exported {
    fn capacity(&self) -> u64 {
        self.with(|b| b.capacity())
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.with(|b| b.read(offset, segments))
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.with(|b| b.write(offset, segments))
    }
    fn flush(&self) -> io::Result<()> {
        self.with(|b| b.flush())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|b| b.discard(offset, len))
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.with(|b| b.write_zeroes(offset, len, may_unmap))
    }
    fn readonly(&self) -> bool {
        self.with(|b| b.readonly())
    }
    fn geometry(&self) -> Geometry {
        self.with(|b| b.geometry())
    }
    fn description(&self) -> String {
        self.with(|b| b.description())
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.with(|b| b.status(offset, len))
    }
    fn below(&self) -> Option<Arc<dyn BlockBackend>> {
        self.with(|b| b.below())
    }
    /// It stays the machine's.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}
