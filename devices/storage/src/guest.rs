//! Guest memory as the controllers reach it: RAM only. A transfer to another device's registers is refused, so that memory may be
//! touched while a controller's own lock is held.

use rhea_block::Segment;
use rhea_device::DmaHandle;
use rhea_memory::{BusError, Gpa, HostSlice, PAGE_SIZE};

/// A piece of guest memory: address and bytes.
pub type Piece = (u64, u64);

/// Bytes up to the next page boundary, at most `len`.
fn to_page_end(gpa: u64, len: u64) -> u64 {
    (PAGE_SIZE - gpa % PAGE_SIZE).min(len)
}

fn slice(dma: &DmaHandle, gpa: u64, len: u64, write: bool) -> Option<HostSlice> {
    if write { dma.host_slice(Gpa(gpa), len) } else { dma.host_slice_readable(Gpa(gpa), len) }
}

/// The pieces as the memory of a request, pinned until [`unpin`]; `write`: the request writes guest memory. `None`: not all RAM.
#[must_use]
pub fn segments(dma: &DmaHandle, pieces: &[Piece], write: bool) -> Option<Vec<Segment>> {
    let mut list = Vec::with_capacity(pieces.len());
    for &(gpa, len) in pieces {
        if let Some(s) = slice(dma, gpa, len, write) {
            list.push(s);
            continue;
        }
        let mut done = 0;
        while done < len {
            let here = gpa.checked_add(done)?;
            let n = to_page_end(here, len - done);
            list.push(slice(dma, here, n, write)?);
            done += n;
        }
    }
    for s in &list {
        s.pin();
    }
    Some(list.into_iter().map(Segment::Guest).collect())
}

/// Ends what [`segments`] began.
pub fn unpin(segments: &[Segment]) {
    for s in segments {
        if let Segment::Guest(slice) = s {
            slice.unpin();
        }
    }
}

/// Copies `data` to the pieces in turn; returns the bytes that found place.
///
/// # Errors
/// See [`DmaHandle::write_ram`].
pub fn scatter(dma: &DmaHandle, pieces: &[Piece], data: &[u8]) -> Result<usize, BusError> {
    let mut rest = data;
    for &(gpa, len) in pieces {
        let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at(n);
        dma.write_ram(gpa, now)?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok(data.len() - rest.len())
}

/// Fills `data` from the pieces in turn; returns the bytes there were.
///
/// # Errors
/// See [`DmaHandle::read_ram`].
pub fn gather(dma: &DmaHandle, pieces: &[Piece], data: &mut [u8]) -> Result<usize, BusError> {
    let mut at = 0;
    for &(gpa, len) in pieces {
        let n = usize::try_from(len).unwrap_or(usize::MAX).min(data.len() - at);
        dma.read_ram(gpa, &mut data[at..at + n])?;
        at += n;
        if at == data.len() {
            break;
        }
    }
    Ok(at)
}
