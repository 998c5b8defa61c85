//! `-daemonize`: the emulator goes on in the background, in a session of its own.
#![expect(unsafe_code, reason = "a process is split in two")]

use std::io::{PipeWriter, Read, Result, Write};

/// Whoever started the emulator waits at the other end.
pub struct Starter(PipeWriter);

/// Splits the process, and does so again once it has a session of its own: what is not the first of a session gets no terminal by
/// opening one.
fn split() -> Result<i32> {
    // SAFETY: no other thread has been started yet, so the new process has all there is.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        child => Ok(child),
    }
}

/// Returns in the process that goes on. The one that was started ends here: with status 0 when it is told that all is ready, with 1 if
/// the other ends before that (which has said why).
///
/// # Errors
/// The host's.
pub fn start() -> Result<Starter> {
    let (mut reader, writer) = std::io::pipe()?;
    if split()? != 0 {
        drop(writer);
        let ready = reader.read_exact(&mut [0]).is_ok();
        std::process::exit(i32::from(!ready));
    }
    drop(reader);
    rustix::process::setsid()?;
    if split()? != 0 {
        std::process::exit(0);
    }
    Ok(Starter(writer))
}

impl Starter {
    /// Leaves the directory and the standard streams of whoever started this, and tells him that all is ready.
    ///
    /// # Errors
    /// The host's.
    pub fn ready(mut self, keep_errors: bool) -> Result<()> {
        rustix::process::chdir("/")?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        if !keep_errors {
            rustix::stdio::dup2_stderr(&null)?;
        }
        self.0.write_all(&[0])
    }
}
