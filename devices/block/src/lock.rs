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
    fcntl_range(file, command, kind, byte, 1)
}

fn fcntl_range(file: &File, command: libc::c_int, kind: libc::c_int, byte: i64, bytes: i64) -> io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: bytes,
        l_pid: 0,
    };
    // SAFETY: the command takes a pointer to a valid flock, which the kernel may fill in.
    let r = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

/// What became of an attempt to lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    Yes,
    /// The file system has no such locks.
    Unsupported,
    /// Somebody else's use conflicts; the name of the lock that could not be had.
    No(String),
}

/// Gives up all locks of an image.
pub(crate) fn release(file: &File) {
    // Locks that are not there are not an error.
    let _ = fcntl_range(file, libc::F_OFD_SETLK, libc::F_UNLCK, USES, DENIES + 100 - USES);
}

fn word(permission: i64) -> &'static str {
    match permission {
        READ => "consistent read",
        WRITE => "write",
        _ => "resize",
    }
}

/// Locks an image for reading, or for reading and writing; `share`: whatever others do to it is no concern.
pub(crate) fn acquire(file: &File, write: bool, share: bool) -> io::Result<Locked> {
    let uses: &[i64] = if write { &[READ, WRITE, RESIZE] } else { &[READ] };
    let denies: &[i64] = if share { &[] } else { &[WRITE, RESIZE] };
    let bytes = uses.iter().map(|p| USES + p).chain(denies.iter().map(|p| DENIES + p));
    for byte in bytes {
        match fcntl(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
            Ok(_) => (),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                let shared = if byte >= DENIES { "shared " } else { "" };
                return Ok(Locked::No(format!("{shared}\"{}\"", word(byte % 100))));
            }
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) =>
            {
                return Ok(Locked::Unsupported);
            }
            Err(e) => return Err(e),
        }
    }
    // Somebody denies what we use, or uses what we deny?
    let held = |byte| {
        Ok::<_, io::Error>(
            fcntl(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?.l_type != libc::F_UNLCK as libc::c_short,
        )
    };
    for p in uses {
        if held(DENIES + p)? {
            return Ok(Locked::No(format!("\"{}\"", word(*p))));
        }
    }
    for p in denies {
        if held(USES + p)? {
            return Ok(Locked::No(format!("shared \"{}\"", word(*p))));
        }
    }
    Ok(Locked::Yes)
}
