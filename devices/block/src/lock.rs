//! Image locks: two emulators never share one writable image.
//!
//! The convention of disk tools: open-file-description read locks on single bytes tell what a user does to an image (byte
//! 100 + p) and what it lets nobody else do (byte 200 + p), with p 0 for consistent reads, 1 for writes, 3 for resizes.
#![expect(unsafe_code, reason = "OFD locks are a raw fcntl")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;
const USES: i64 = 100;
const DENIES: i64 = 200;

fn fcntl(file: &File, command: libc::c_int, kind: libc::c_int, byte: i64) -> io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the command takes a pointer to a valid flock, which the kernel may fill in.
    let r = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

/// Locks an image for reading, or for reading and writing. `Ok(false)`: somebody else's use conflicts. File systems without
/// such locks count as locked.
pub(crate) fn acquire(file: &File, write: bool) -> io::Result<bool> {
    let uses: &[i64] = if write { &[READ, WRITE, RESIZE] } else { &[READ] };
    let denies = [WRITE, RESIZE];
    let bytes = uses.iter().map(|p| USES + p).chain(denies.iter().map(|p| DENIES + p));
    for byte in bytes {
        match fcntl(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
            Ok(_) => (),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => return Ok(false),
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) =>
            {
                return Ok(true);
            }
            Err(e) => return Err(e),
        }
    }
    // Somebody denies what we use, or uses what we deny?
    for byte in uses.iter().map(|p| DENIES + p).chain(denies.iter().map(|p| USES + p)) {
        if fcntl(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?.l_type != libc::F_UNLCK as libc::c_short {
            return Ok(false);
        }
    }
    Ok(true)
}
