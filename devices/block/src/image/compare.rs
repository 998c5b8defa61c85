//! Do two images have the same content?

use super::{Progress, status, stopped};
use crate::{BlockBackend, ExtentKind};
use std::io;

const STEP: u64 = 2 << 20;

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The content at this offset.
    Content(u64),
    /// One is longer, with more than zeroes there, or it is strict.
    Size,
}

/// The first difference; `strict`: sizes must be the same and what is allocated too.
///
/// # Errors
/// The host's, or damage, or stopped.
pub fn compare(
    a: &dyn BlockBackend,
    b: &dyn BlockBackend,
    strict: bool,
    progress: Progress<'_>,
) -> io::Result<Option<Difference>> {
    let (len, all) = (a.capacity().min(b.capacity()), a.capacity().max(b.capacity()));
    if strict && len != all {
        return Ok(Some(Difference::Size));
    }
    let mut at = 0;
    let (mut x, mut y) = (Vec::new(), Vec::new());
    while at < all {
        if !progress(at, all) {
            return Err(stopped());
        }
        let end = if at < len { len } else { all };
        let piece = |image: &dyn BlockBackend| -> io::Result<(ExtentKind, u64)> {
            if at >= image.capacity() {
                return Ok((ExtentKind::Zero, end - at));
            }
            let e = status(image, at, end - at)?;
            Ok((e.kind, e.len))
        };
        let ((ka, la), (kb, lb)) = (piece(a)?, piece(b)?);
        let n = la.min(lb).min(end - at);
        if strict && ka != kb {
            return Ok(Some(Difference::Content(at)));
        }
        if ka != ExtentKind::Data && kb != ExtentKind::Data {
            at += n;
            continue;
        }
        let n = n.min(STEP);
        let load = |image: &dyn BlockBackend, kind, data: &mut Vec<u8>| -> io::Result<()> {
            data.clear();
            data.resize(n as usize, 0);
            if kind == ExtentKind::Data { image.read_bytes(at, data) } else { Ok(()) }
        };
        load(a, ka, &mut x)?;
        load(b, kb, &mut y)?;
        if let Some(i) = x.iter().zip(&y).position(|(p, q)| p != q) {
            return Ok(Some(Difference::Content((at + i as u64) & !511)));
        }
        at += n;
    }
    progress(all, all);
    Ok(None)
}
