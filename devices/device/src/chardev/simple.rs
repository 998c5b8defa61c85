//! Back ends over one or two files: null, file, pipe, pty.

use super::feed::Feed;
use super::outbox::Outbox;
use super::{CharBackend, CharFrontend};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Swallows output, gives no input.
#[derive(Default)]
pub struct NullChar;

impl CharBackend for NullChar {
    fn write(&self, _data: &[u8]) {}
    fn set_frontend(&self, _frontend: Arc<dyn CharFrontend>) {}
    fn accept_input(&self) {}
    fn description(&self) -> String {
        "null".to_owned()
    }
}

/// Output to a file.
pub struct FileChar {
    file: Mutex<File>,
    path: String,
}

impl FileChar {
    /// Creates or truncates (or appends to) `path`.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(path: &str, append: bool) -> Result<Arc<Self>> {
        let file = match crate::fdset::open(Path::new(path), true) {
            Some(file) => file?,
            None => OpenOptions::new().create(true).write(!append).append(append).truncate(!append).open(path)?,
        };
        Ok(Arc::new(Self { file: Mutex::new(file), path: path.to_owned() }))
    }
}

impl CharBackend for FileChar {
    fn write(&self, data: &[u8]) {
        // A full disk loses output, not the machine.
        let _ = self.file.lock().write_all(data);
    }
    fn set_frontend(&self, _frontend: Arc<dyn CharFrontend>) {}
    fn accept_input(&self) {}
    fn description(&self) -> String {
        format!("file:{}", self.path)
    }
}

/// Starts a thread that reads `source` into `feed` until its end, or until what is returned is dropped.
pub(super) fn start_reader(mut source: impl Read + AsFd + Send + 'static, feed: Arc<Feed>) -> Result<OwnedFd> {
    let (dropped, keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    std::thread::Builder::new().name("rhea-char-in".to_owned()).spawn(move || {
        let mut buffer = [0; 1024];
        loop {
            let mut fds =
                [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN), PollFd::new(&dropped, PollFlags::empty())];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) if !fds[1].revents().is_empty() => return,
                Ok(_) => {}
            }
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => feed.push(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(keep)
}

/// A pair of named pipes `PATH.in` and `PATH.out`, or one `PATH` both ways.
pub struct PipeChar {
    feed: Arc<Feed>,
    out: Outbox,
    path: String,
    _reader: OwnedFd,
}

impl PipeChar {
    /// # Errors
    /// The host's error.
    pub fn new(path: &str) -> Result<Arc<Self>> {
        // Read-write opening of a named pipe does not wait for the other end and sees no end of file.
        let open = |p: &str| OpenOptions::new().read(true).write(true).open(Path::new(p));
        let (input, output) = match (open(&format!("{path}.in")), open(&format!("{path}.out"))) {
            (Ok(i), Ok(o)) => (i, o),
            _ => {
                let both = open(path)?;
                (both.try_clone()?, both)
            }
        };
        let feed = Arc::new(Feed::default());
        let reader = start_reader(input, feed.clone())?;
        Ok(Arc::new(Self { feed, out: Outbox::new(output)?, path: path.to_owned(), _reader: reader }))
    }
}

impl CharBackend for PipeChar {
    fn write(&self, data: &[u8]) {
        self.out.write(data);
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.feed.drain();
    }
    fn description(&self) -> String {
        format!("pipe:{}", self.path)
    }
}

impl Drop for PipeChar {
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// A pseudo terminal of the host.
pub struct PtyChar {
    feed: Arc<Feed>,
    out: Outbox,
    name: String,
    /// Kept open so that the controlling side never sees a hang-up.
    _peer: OwnedFd,
    _reader: OwnedFd,
}

impl PtyChar {
    /// # Errors
    /// The host's error.
    pub fn new() -> Result<Arc<Self>> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        let peer: OwnedFd = OpenOptions::new().read(true).write(true).open(&name)?.into();
        let mut termios = rustix::termios::tcgetattr(&peer)?;
        termios.make_raw();
        rustix::termios::tcsetattr(&peer, rustix::termios::OptionalActions::Now, &termios)?;
        let master = File::from(master);
        let feed = Arc::new(Feed::default());
        let reader = start_reader(master.try_clone()?, feed.clone())?;
        Ok(Arc::new(Self { feed, out: Outbox::new(master)?, name, _peer: peer, _reader: reader }))
    }
    /// The name of the terminal a person opens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl CharBackend for PtyChar {
    fn write(&self, data: &[u8]) {
        self.out.write(data);
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.feed.drain();
    }
    fn description(&self) -> String {
        format!("pty:{}", self.name)
    }
}

impl Drop for PtyChar {
    fn drop(&mut self) {
        self.feed.close();
    }
}
