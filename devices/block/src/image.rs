//! Work on whole images: what `rhea img` does, and jobs of the monitor.

mod compare;
mod convert;
mod create;
mod rebase;

pub use compare::{Difference, compare};
pub use convert::{ConvertOptions, convert};
pub use create::{ImageOptions, create, create_in};
pub use rebase::rebase;

use crate::{BlockBackend, Extent, ExtentKind};
use std::io;

/// Told as work goes on: bytes done, bytes in all. False stops it.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Work was stopped by [`Progress`].
pub(crate) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "stopped")
}

/// What is at `offset` of an image with all that is below it: data, or zero.
///
/// # Errors
/// The host's, or damage.
pub fn status(image: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<Extent> {
    let e = image.status(offset, len)?;
    if e.kind != ExtentKind::Absent {
        return Ok(e);
    }
    match image.below() {
        Some(below) if offset < below.capacity() => status(&*below, offset, e.len.min(below.capacity() - offset)),
        _ => Ok(Extent::zero(e.len)),
    }
}

/// A piece of an image and all that is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    pub start: u64,
    pub length: u64,
    /// How many images below.
    pub depth: u32,
    pub zero: bool,
    pub data: bool,
    pub compressed: bool,
    /// It is allocated somewhere.
    pub present: bool,
    /// In the file of the image `depth` below.
    pub offset: Option<u64>,
}

/// What is at `start`: the piece with the same answer.
///
/// # Errors
/// The host's, or damage.
pub fn map(image: &dyn BlockBackend, start: u64, len: u64) -> io::Result<MapEntry> {
    let entry = |e: Extent, depth, present| MapEntry {
        start,
        length: e.len,
        depth,
        zero: e.kind != ExtentKind::Data,
        data: e.kind == ExtentKind::Data,
        compressed: e.compressed,
        present,
        offset: e.host,
    };
    let e = image.status(start, len)?;
    if e.kind != ExtentKind::Absent {
        return Ok(entry(e, 0, true));
    }
    match image.below() {
        Some(below) if start < below.capacity() => {
            let mut found = map(&*below, start, e.len.min(below.capacity() - start))?;
            found.depth += 1;
            Ok(found)
        }
        // Behind the end of what is below, the image itself says that it reads as zero.
        Some(_) => Ok(entry(e, 0, false)),
        None => Ok(entry(e, 0, false)),
    }
}
