//! Vectored file I/O straight to and from guest memory, which is shared with running guest code and so never a Rust slice.
#![expect(unsafe_code, reason = "the system calls take raw pointers")]

use crate::Segment;
use crate::segment::zero_range;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Vectors handed to one call (Linux's UIO_MAXIOV).
const MAX_VECTORS: usize = 1024;

/// The pieces of `left` bytes from byte `skip` of the request on.
fn vectors(segments: &[Segment], mut skip: u64, mut left: u64) -> Vec<libc::iovec> {
    let mut list = Vec::with_capacity(segments.len().min(MAX_VECTORS));
    for s in segments {
        let len = s.len();
        if skip >= len {
            skip -= len;
            continue;
        }
        let n = (len - skip).min(left);
        if n == 0 {
            break;
        }
        let base = match s {
            Segment::Guest(s) => s.as_ptr(),
            Segment::Host(v) => v.as_ptr().cast_mut(),
        };
        list.push(libc::iovec { iov_base: base.wrapping_add(skip as usize).cast(), iov_len: n as usize });
        skip = 0;
        left -= n;
        if list.len() == MAX_VECTORS {
            break;
        }
    }
    list
}

/// Are all pieces multiples of `align`, in address and length?
pub(crate) fn aligned(segments: &[Segment], skip: u64, len: u64, align: u64) -> bool {
    vectors(segments, skip, len).iter().all(|v| (v.iov_base as u64 | v.iov_len as u64) & (align - 1) == 0)
        && segments.len() <= MAX_VECTORS
}

fn offset_of(offset: u64, done: u64) -> io::Result<libc::off_t> {
    offset.checked_add(done).and_then(|o| libc::off_t::try_from(o).ok()).ok_or_else(crate::out_of_range)
}

fn noted(segments: &[Segment], skip: u64, len: u64) {
    let mut start = 0;
    for s in segments {
        let end = start + s.len();
        if let Segment::Guest(slice) = s
            && start < skip + len
            && end > skip
        {
            let from = skip.max(start);
            slice.note_write(from - start, end.min(skip + len) - from);
        }
        start = end;
    }
}

/// Reads all; what lies past the end of the file reads as zero. With `now`, `WouldBlock` if that needs the disk.
pub(crate) fn read(
    file: &File,
    offset: u64,
    segments: &mut [Segment],
    skip: u64,
    len: u64,
    now: bool,
) -> io::Result<()> {
    let mut done = 0;
    let flags = if now { libc::RWF_NOWAIT } else { 0 };
    while done < len {
        let list = vectors(segments, skip + done, len - done);
        let at = offset_of(offset, done)?;
        // SAFETY: each vector lies within its segment (guest memory kept mapped by its slice, or a vector borrowed mutably
        // here), and the kernel writes nothing else.
        let n = unsafe { libc::preadv2(file.as_raw_fd(), list.as_ptr(), list.len() as libc::c_int, at, flags) };
        match n {
            0 => {
                zero_range(segments, skip + done, len - done);
                break;
            }
            n if n > 0 => done += n as u64,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    noted(segments, skip, len);
    Ok(())
}

/// Writes all.
pub(crate) fn write(file: &File, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let list = vectors(segments, skip + done, len - done);
        let at = offset_of(offset, done)?;
        // SAFETY: each vector lies within its segment; the kernel only reads it.
        let n = unsafe { libc::pwritev(file.as_raw_fd(), list.as_ptr(), list.len() as libc::c_int, at) };
        match n {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n if n > 0 => done += n as u64,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
