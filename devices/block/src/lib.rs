//! Block back ends: image files, a copy-on-write overlay, memory, nothing; and the drive that runs requests on worker threads.

mod drive;
mod lock;
mod memory;
mod options;
mod overlay;
mod raw;
mod segment;
mod vectored;

pub use drive::{Completion, Drive, Operation};
pub use memory::{MemoryBackend, NullBackend};
pub use options::{CacheMode, DRIVE_OPTIONS, DriveInterface, DriveOptions, ErrorPolicy, Media};
pub use overlay::Overlay;
pub use raw::{RawFile, RawOptions};
pub use segment::Segment;

use std::io;

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
}

pub(crate) fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "request outside the image")
}

/// The operating system's text of an error, without the number.
pub(crate) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
