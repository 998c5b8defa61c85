//! Work on images that a guest goes on using: copying one to another as it changes, or as it was; taking in what is below; putting
//! an image over another.
//!
//! What must not meet the guest's requests runs inside [`Drive::exchange`], which waits for those that are under way and holds others back.

mod backup;
mod copier;
mod filter;
mod stream;

pub use backup::Backup;
pub use copier::Copier;
pub use filter::{Filter, Installed, Watch};
pub use stream::stream;

use crate::{BlockBackend, Drive, ExtentKind, Node};
use std::io;
use std::sync::Arc;

/// Bytes that are copied at a time.
const STEP: u64 = 1 << 20;

/// Copies a range of an image and all below it; what reads as zero stays without storage where the target can.
fn copy(source: &dyn BlockBackend, target: &dyn BlockBackend, start: u64, len: u64) -> io::Result<()> {
    let end = (start + len).min(source.capacity()).min(target.capacity());
    let mut at = start;
    while at < end {
        let e = crate::image::status(source, at, (end - at).min(STEP))?;
        if e.kind == ExtentKind::Zero {
            target.write_zeroes(at, e.len, true)?;
        } else {
            let mut data = vec![0; e.len as usize];
            source.read_bytes(at, &mut data)?;
            target.write_bytes(at, &data)?;
        }
        at += e.len;
    }
    Ok(())
}

/// Does one of the images from `image` down to `base` (which does not count) have what is at `offset`? And for how many bytes that holds.
fn allocated_above(
    image: &Arc<dyn BlockBackend>,
    base: Option<&Arc<dyn BlockBackend>>,
    offset: u64,
    len: u64,
) -> io::Result<(bool, u64)> {
    let (mut image, mut len) = (image.clone(), len);
    loop {
        if base.is_some_and(|base| Arc::ptr_eq(base, &image)) || offset >= image.capacity() {
            return Ok((false, len));
        }
        let e = image.status(offset, len.min(image.capacity() - offset))?;
        if e.kind != ExtentKind::Absent {
            return Ok((true, e.len));
        }
        len = e.len;
        match image.below() {
            Some(below) => image = below,
            None => return Ok((false, len)),
        }
    }
}

/// A node that goes over another, on which these drives are.
pub struct Put {
    pub node: Arc<Node>,
    pub overlay: Arc<Node>,
    pub drives: Vec<Arc<Drive>>,
}

/// Puts new images over those that drives are on, for all at the same moment: what was written before is below, what is written after is in the
/// new ones.
///
/// # Errors
/// One line; then nothing has changed.
pub fn put_over(puts: &[Put]) -> Result<(), String> {
    for put in puts {
        if put.overlay.qcow2().is_none() {
            return Err(format!("node '{}': an image over another must be qcow2", put.overlay.name()));
        }
        if put.overlay.child("backing").is_some() {
            return Err(format!("The overlay '{}' already has a backing image", put.overlay.name()));
        }
        if put.overlay.settings().readonly {
            return Err(format!("node '{}' is read-only", put.overlay.name()));
        }
        if put.overlay.backend().capacity() < put.node.backend().capacity() {
            return Err(format!("The overlay '{}' is smaller than '{}'", put.overlay.name(), put.node.name()));
        }
    }
    let mut moves: Vec<_> = puts.iter().flat_map(|p| p.drives.iter().map(move |d| (d, p))).collect();
    // In an order that is the same for all who do this at the same time, and each drive once.
    moves.sort_by_key(|(drive, _)| Arc::as_ptr(drive));
    if let Some(twice) = moves.windows(2).find(|w| Arc::ptr_eq(w[0].0, w[1].0)) {
        return Err(format!("Node '{}' is busy: two images are put over it", twice[0].1.node.name()));
    }
    held(&moves, puts)?;
    for put in puts {
        put.drives.iter().for_each(|d| d.set_node(Some(put.overlay.clone())));
        // What is below is not written any more: others may read it. Where that cannot be, it keeps its locks.
        let _ = put.node.set_readonly(true);
    }
    Ok(())
}

/// Holds the requests of one drive after the other back, then does it for all.
fn held(moves: &[(&Arc<Drive>, &Put)], puts: &[Put]) -> Result<(), String> {
    let Some(((drive, put), rest)) = moves.split_first() else {
        for (n, put) in puts.iter().enumerate() {
            if let Err(e) = put.overlay.set_backing(Some(put.node.clone())) {
                // They had none.
                puts[..n].iter().for_each(|p| drop(p.overlay.set_backing(None)));
                return Err(e);
            }
        }
        return Ok(());
    };
    drive.exchange(|now| {
        if !Arc::ptr_eq(now, &put.node.backend()) {
            return Err(format!("Node '{}' is busy: a job or a snapshot is over it", put.node.name()));
        }
        now.flush().map_err(|e| format!("node '{}': {}", put.node.name(), crate::error_text(&e)))?;
        held(rest, puts)?;
        Ok(put.overlay.backend())
    })
}

#[cfg(test)]
mod tests;
