//! `-msg`: lines on standard error begin with the time, or with the name of the guest.

use parking_lot::Mutex;
use rhea_clock::calendar;
use std::io::{BufRead, BufReader, Result, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is put in front of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    pub time: bool,
    pub guest: Option<String>,
}

/// The real standard error, and the thread that writes to it.
struct Running {
    stderr: OwnedFd,
    writer: JoinHandle<()>,
}

/// Standard error is one for the whole process.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// The time as ISO 8601 has it, in UTC.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (year, month, day) = calendar::date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z ")
}

impl Prefix {
    fn text(&self) -> String {
        let mut text = if self.time { timestamp(SystemTime::now()) } else { String::new() };
        if let Some(guest) = &self.guest {
            text.push_str(guest);
            text.push(' ');
        }
        text
    }
}

/// Puts a pipe in the place of standard error. To be called when no other process shares it any more.
///
/// # Errors
/// The host's.
pub fn start(prefix: Prefix) -> Result<()> {
    if prefix == Prefix::default() {
        return Ok(());
    }
    let (reader, pipe) = std::io::pipe()?;
    let stderr = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3)?;
    let mut out = std::fs::File::from(stderr.try_clone()?);
    let write = move || {
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { return };
            let mut text = prefix.text().into_bytes();
            text.extend(line);
            text.push(b'\n');
            // Nobody may read any more.
            let _ = out.write_all(&text);
        }
    };
    let writer = std::thread::Builder::new().name("rhea-messages".to_owned()).spawn(write)?;
    rustix::stdio::dup2_stderr(&pipe)?;
    *RUNNING.lock() = Some(Running { stderr, writer });
    Ok(())
}

/// Writes what is on its way; from now on lines are as they are.
pub fn end() {
    if let Some(Running { stderr, writer }) = RUNNING.lock().take()
        && rustix::stdio::dup2_stderr(&stderr).is_ok()
    {
        // The pipe has no other end now.
        let _ = writer.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times() {
        let at = UNIX_EPOCH + Duration::new(951_868_801, 5_000);
        assert_eq!(timestamp(at), "2000-03-01T00:00:01.000005Z ");
        let prefix = Prefix { time: false, guest: Some("g".to_owned()) };
        assert_eq!(prefix.text(), "g ");
    }
}
