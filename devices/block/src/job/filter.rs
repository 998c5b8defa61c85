//! A look at all changes of a drive, on their way to the image.

use crate::{BlockBackend, Drive, Extent, Geometry, Segment, segment::total};
use std::io;
use std::sync::Arc;

/// Who looks.
pub trait Watch: Send + Sync {
    /// A range is about to change.
    fn before(&self, _offset: u64, _len: u64) {}
    /// A range has changed, or may have.
    fn after(&self, _offset: u64, _len: u64) {}
}

/// What is put between a drive and its image.
pub struct Filter {
    below: Arc<dyn BlockBackend>,
    watch: Arc<dyn Watch>,
}

impl Filter {
    fn change(&self, offset: u64, len: u64, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.watch.before(offset, len);
        let result = change();
        self.watch.after(offset, len);
        result
    }
}

impl BlockBackend for Filter {
    fn capacity(&self) -> u64 {
        self.below.capacity()
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.below.read(offset, segments)
    }
    fn read_now(&self, offset: u64, segments: &mut [Segment]) -> Option<io::Result<()>> {
        self.below.read_now(offset, segments)
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.change(offset, total(segments), || self.below.write(offset, segments))
    }
    fn flush(&self) -> io::Result<()> {
        self.below.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, || self.below.discard(offset, len))
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.change(offset, len, || self.below.write_zeroes(offset, len, may_unmap))
    }
    fn readonly(&self) -> bool {
        self.below.readonly()
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn description(&self) -> String {
        self.below.description()
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.below.status(offset, len)
    }
    fn below(&self) -> Option<Arc<dyn BlockBackend>> {
        self.below.below()
    }
    fn allocated_size(&self) -> Option<u64> {
        self.below.allocated_size()
    }
    fn cluster_size(&self) -> u64 {
        self.below.cluster_size()
    }
    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

/// A filter that is in place, until this is dropped.
pub struct Installed {
    drive: Arc<Drive>,
    filter: Arc<Filter>,
    top: Arc<dyn BlockBackend>,
}

impl Installed {
    /// Puts a filter between a drive and its image, which must be `image`; `ready` is called at that moment, when no request runs.
    ///
    /// # Errors
    /// Something else is between them; or what `ready` says.
    pub fn new(
        drive: &Arc<Drive>,
        image: &Arc<dyn BlockBackend>,
        watch: Arc<dyn Watch>,
        ready: impl FnOnce() -> Result<(), String>,
    ) -> Result<Self, String> {
        let filter = Arc::new(Filter { below: image.clone(), watch });
        let top: Arc<dyn BlockBackend> = filter.clone();
        drive.exchange(|now| {
            if !Arc::ptr_eq(now, image) {
                return Err(format!("Drive '{}' is busy: a job or a snapshot is over its image", drive.id()));
            }
            ready()?;
            Ok(top.clone())
        })?;
        Ok(Self { drive: drive.clone(), filter, top })
    }
    /// Takes the filter away, and puts what `change` gives in the image's place; no request runs meanwhile.
    ///
    /// # Errors
    /// What `change` says: the image stays then. Or the drive has been closed.
    pub fn replace(self, change: impl FnOnce() -> Result<Arc<dyn BlockBackend>, String>) -> Result<(), String> {
        self.drive.exchange(|now| {
            if !Arc::ptr_eq(now, &self.top) {
                return Err("the drive is gone".to_owned());
            }
            change()
        })
    }
    /// Takes the filter away after `last`, during which no request runs.
    ///
    /// # Errors
    /// What `last` says.
    pub fn remove_after(self, last: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let below = self.filter.below.clone();
        self.replace(|| last().map(|()| below))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = self.drive.exchange(|now| match Arc::ptr_eq(now, &self.top) {
            true => Ok(self.filter.below.clone()),
            false => Err(()),
        });
    }
}
