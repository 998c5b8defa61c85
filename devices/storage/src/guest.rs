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

/// Reads RAM.
///
/// # Errors
/// Some of it is not RAM, or bus mastering is off.
pub fn read(dma: &DmaHandle, gpa: u64, data: &mut [u8]) -> Result<(), BusError> {
    if let Some(s) = slice(dma, gpa, data.len() as u64, false) {
        return s.read(0, data);
    }
    let mut at = 0;
    while at < data.len() {
        let here = gpa.checked_add(at as u64).ok_or(BusError::Unassigned)?;
        let n = to_page_end(here, (data.len() - at) as u64);
        let s = slice(dma, here, n, false).ok_or(BusError::Unassigned)?;
        s.read(0, &mut data[at..at + n as usize])?;
        at += n as usize;
    }
    Ok(())
}

/// Writes RAM.
///
/// # Errors
/// Some of it is not writable RAM, or bus mastering is off.
pub fn write(dma: &DmaHandle, gpa: u64, data: &[u8]) -> Result<(), BusError> {
    if let Some(s) = slice(dma, gpa, data.len() as u64, true) {
        return s.write(0, data);
    }
    let mut at = 0;
    while at < data.len() {
        let here = gpa.checked_add(at as u64).ok_or(BusError::Unassigned)?;
        let n = to_page_end(here, (data.len() - at) as u64);
        let s = slice(dma, here, n, true).ok_or(BusError::Unassigned)?;
        s.write(0, &data[at..at + n as usize])?;
        at += n as usize;
    }
    Ok(())
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
/// See [`write`].
pub fn scatter(dma: &DmaHandle, pieces: &[Piece], data: &[u8]) -> Result<usize, BusError> {
    let mut rest = data;
    for &(gpa, len) in pieces {
        let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at(n);
        write(dma, gpa, now)?;
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
/// See [`read`].
pub fn gather(dma: &DmaHandle, pieces: &[Piece], data: &mut [u8]) -> Result<usize, BusError> {
    let mut at = 0;
    for &(gpa, len) in pieces {
        let n = usize::try_from(len).unwrap_or(usize::MAX).min(data.len() - at);
        read(dma, gpa, &mut data[at..at + n])?;
        at += n;
        if at == data.len() {
            break;
        }
    }
    Ok(at)
}
