//! An image takes in what is below it.

use super::{STEP, allocated_above, copy};
use crate::{BlockBackend, Drive, ExtentKind};
use std::io;
use std::sync::Arc;

/// Copies into the image that `drive` is on what is in images below it, down to `base` (which does not count) or all. `progress` is told the
/// bytes of each step, and stops the work by false.
///
/// # Errors
/// The host's, damage, the drive has got another image; or stopped.
pub fn stream(
    drive: &Drive,
    image: &Arc<dyn BlockBackend>,
    base: Option<&Arc<dyn BlockBackend>>,
    mut progress: impl FnMut(u64) -> bool,
) -> io::Result<()> {
    let len = image.capacity();
    let unit = image.cluster_size().max(512);
    let mut at = 0;
    while at < len {
        let n = STEP.max(unit).min(len - at);
        // Between requests: nobody may write what is found to be missing.
        drive.exchange(|now| {
            if !Arc::ptr_eq(now, image) {
                return Err(io::Error::other("the drive has got another image"));
            }
            piece(image, base, at, n)?;
            Ok(now.clone())
        })?;
        at += n;
        if !progress(n) {
            return Err(crate::image::stopped());
        }
    }
    image.flush()
}

fn piece(image: &Arc<dyn BlockBackend>, base: Option<&Arc<dyn BlockBackend>>, start: u64, len: u64) -> io::Result<()> {
    let mut at = start;
    while at < start + len {
        let mut e = image.status(at, start + len - at)?;
        if e.kind == ExtentKind::Absent
            && let Some(below) = image.below()
        {
            let (there, n) = allocated_above(&below, base, at, e.len)?;
            e.len = n;
            if there {
                copy(&**image, &**image, at, n)?;
            }
        }
        at += e.len.max(1);
    }
    Ok(())
}
