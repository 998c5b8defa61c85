//! Block nodes: files, image formats, NBD, a copy-on-write overlay, memory, nothing; the graph they form; and the drive that runs
//! requests on worker threads.

mod dirty;
mod drive;
mod extent;
mod failures;
mod file;
mod graph;
pub mod handover;
pub mod image;
pub mod job;
mod lock;
mod memory;
pub mod nbd;
mod node;
mod node_options;
mod options;
mod overlay;
mod probe;
pub mod qcow2;
mod range_lock;
mod raw;
mod segment;
mod throttle;
mod vectored;
mod vmdk;
mod vpc;

pub use dirty::{DirtyBitmap, DirtyBitmaps, Parts as DirtyParts};
pub use drive::{Completion, Drive, IoStatus, Operation};
pub use extent::{Extent, ExtentKind};
pub use failures::{Failure, FailureAction, Failures};
pub use file::{FileNode, FileOptions};
pub use graph::{BlockGraph, Inherit, open_image};
pub use memory::{MemoryBackend, NullBackend};
pub use node::{Kind, Node, NodeSettings};
pub use node_options::{NodeOptions, NodeRef};
pub use options::{
    CacheMode, DEVICE_ERRORS, DRIVE_OPTIONS, DetectZeroes, DriveInterface, DriveOptions, ErrorPolicy, Media,
    parse_blockdev,
};
pub use overlay::Overlay;
pub use probe::{Format, probe};
pub use raw::RawNode;
pub use segment::Segment;
pub use throttle::{Throttle, ThrottleLimits};

use std::io;
use std::sync::Arc;

/// The unit of capacity and of request offsets.
pub const SECTOR: u64 = 512;

/// What storage prefers; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub logical_block: u32,
    pub physical_block: u32,
    /// Preferred request size, 0 if none.
    pub optimal_io: u32,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { logical_block: 512, physical_block: 512, optimal_io: 0 }
    }
}

/// Storage addressed by byte. All methods may block and may be called from several threads at once; whoever must not block goes
/// through [`Drive`]. Offsets and lengths lie within [`Self::capacity`] (checked by the drive).
///
/// # Errors
/// All: the host's error; out of range is `InvalidInput`.
pub trait BlockBackend: Send + Sync {
    /// Bytes, a multiple of [`SECTOR`].
    fn capacity(&self) -> u64;
    /// Reads into the segments in turn.
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()>;
    /// Like [`Self::read`] if the data is at hand without waiting; `None`: it is not.
    fn read_now(&self, _offset: u64, _segments: &mut [Segment]) -> Option<io::Result<()>> {
        None
    }
    /// Writes from the segments in turn.
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()>;
    /// Returns when all completed writes are on stable storage.
    fn flush(&self) -> io::Result<()>;
    /// The content may be forgotten.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// The content reads as zero afterwards; `may_unmap`: storage may be released.
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()>;
    fn readonly(&self) -> bool;
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }
    /// For `info block`.
    fn description(&self) -> String;
    /// Reads into `len` bytes of the segments from byte `skip` on.
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        if skip == 0 && len == segment::total(segments) {
            return self.read(offset, segments);
        }
        let mut data = vec![0; segment::length(len)?];
        self.read_bytes(offset, &mut data)?;
        segment::store_at(segments, skip, &data)
    }
    /// Like [`Self::read_part`] if the data is at hand without waiting; `None`: it is not.
    fn read_part_now(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> Option<io::Result<()>> {
        if skip == 0 && len == segment::total(segments) { self.read_now(offset, segments) } else { None }
    }
    /// Writes `len` bytes of the segments from byte `skip` on.
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        if skip == 0 && len == segment::total(segments) {
            return self.write(offset, segments);
        }
        let mut data = vec![0; segment::length(len)?];
        segment::load_at(segments, skip, &mut data)?;
        self.write_bytes(offset, &data)
    }
    /// Reads into a slice.
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut segments = [Segment::Host(vec![0; data.len()])];
        self.read(offset, &mut segments)?;
        segments[0].load(0, data)
    }
    /// Writes a slice.
    fn write_bytes(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(offset, &[Segment::Host(data.to_vec())])
    }
    /// What is at `offset`: one piece of at most `len` bytes, never empty if `len` is not 0.
    fn status(&self, _offset: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent::data(len))
    }
    /// What shows where this image has nothing.
    fn below(&self) -> Option<Arc<dyn BlockBackend>> {
        None
    }
    /// Changes the capacity.
    fn resize(&self, _capacity: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the image cannot be resized"))
    }
    /// Bytes of the host's storage that are in use, if known.
    fn allocated_size(&self) -> Option<u64> {
        None
    }
    /// Bytes that share one entry of the format's tables, 0 if there are none.
    fn cluster_size(&self) -> u64 {
        0
    }
    /// Writes what is only in memory and leaves the image as not in use. Also done when dropped.
    fn close(&self) -> io::Result<()> {
        if self.readonly() { Ok(()) } else { self.flush() }
    }
}

pub(crate) fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "request outside the image")
}

/// The operating system's text of an error, without the number.
pub(crate) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
