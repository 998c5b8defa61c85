//! Guest memory as the controllers reach it: RAM only, so that it may be touched while a controller's own lock is held.

use rhea_device::DmaHandle;
use rhea_memory::{BusError, Gpa, PAGE_SIZE};

/// Calls `piece` with address, offset and length of each part of `len` bytes at `gpa` that lies in one page.
fn pages(
    gpa: u64,
    len: usize,
    mut piece: impl FnMut(Gpa, usize, usize) -> Result<(), BusError>,
) -> Result<(), BusError> {
    let mut at = 0;
    while at < len {
        let here = gpa.checked_add(at as u64).ok_or(BusError::Unassigned)?;
        let n = (PAGE_SIZE - here % PAGE_SIZE).min((len - at) as u64) as usize;
        piece(Gpa(here), at, n)?;
        at += n;
    }
    Ok(())
}

/// Reads RAM.
///
/// # Errors
/// Some of it is not RAM, or bus mastering is off.
pub fn read(dma: &DmaHandle, gpa: u64, data: &mut [u8]) -> Result<(), BusError> {
    if let Some(s) = dma.host_slice_readable(Gpa(gpa), data.len() as u64) {
        return s.read(0, data);
    }
    pages(gpa, data.len(), |here, at, n| {
        let s = dma.host_slice_readable(here, n as u64).ok_or(BusError::Unassigned)?;
        s.read(0, &mut data[at..at + n])
    })
}

/// Writes RAM.
///
/// # Errors
/// Some of it is not writable RAM, or bus mastering is off.
pub fn write(dma: &DmaHandle, gpa: u64, data: &[u8]) -> Result<(), BusError> {
    if let Some(s) = dma.host_slice(Gpa(gpa), data.len() as u64) {
        return s.write(0, data);
    }
    pages(gpa, data.len(), |here, at, n| {
        let s = dma.host_slice(here, n as u64).ok_or(BusError::Unassigned)?;
        s.write(0, &data[at..at + n])
    })
}
