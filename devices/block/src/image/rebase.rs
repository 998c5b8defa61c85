//! Another backing file for an image, with the same content.

use super::{Progress, stopped};
use crate::{BlockBackend, ExtentKind};
use std::io;

const STEP: u64 = 1 << 20;

/// Copies into `image` what is only below it, wherever `new` (what will be below it) has other content.
///
/// # Errors
/// The host's, or damage, or stopped.
pub fn rebase(
    image: &dyn BlockBackend,
    old: Option<&dyn BlockBackend>,
    new: Option<&dyn BlockBackend>,
    progress: Progress<'_>,
) -> io::Result<()> {
    let len = image.capacity();
    let unit = image.cluster_size().max(512);
    let read = |image: Option<&dyn BlockBackend>, at: u64, data: &mut [u8]| -> io::Result<()> {
        data.fill(0);
        let Some(image) = image else { return Ok(()) };
        let inside = (data.len() as u64).min(image.capacity().saturating_sub(at)) as usize;
        if inside > 0 { image.read_bytes(at, &mut data[..inside]) } else { Ok(()) }
    };
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < len {
        if !progress(at, len) {
            return Err(stopped());
        }
        let e = image.status(at, len - at)?;
        if e.kind != ExtentKind::Absent {
            at += e.len;
            continue;
        }
        let n = e.len.min(STEP);
        for data in [&mut x, &mut y] {
            data.clear();
            data.resize(n as usize, 0);
        }
        read(old, at, &mut x)?;
        read(new, at, &mut y)?;
        let mut from = 0;
        while from < n {
            let to = ((at + from + unit) / unit * unit - at).min(n);
            let (a, b) = (&x[from as usize..to as usize], &y[from as usize..to as usize]);
            if a != b {
                if crate::segment::is_zero(a) {
                    image.write_zeroes(at + from, to - from, true)?;
                } else {
                    image.write_bytes(at + from, a)?;
                }
            }
            from = to;
        }
        at += n;
    }
    progress(len, len);
    image.flush()
}
