//! Where a machine moves to and comes from: `tcp:HOST:PORT`, `unix:PATH`, `exec:COMMAND`, `file:PATH`, `fd:NAME`.

use rhea_machine::state::{Accepting, Channel, Dial, Source};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a URI means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uri {
    Tcp(String),
    Unix(String),
    Exec(String),
    File(String),
    /// A name that `getfd` gave.
    Fd(String),
    /// `migrate-incoming` says it later.
    Defer,
}

impl Uri {
    /// # Errors
    /// Several connections are wanted (`multifd`), and this stream is one.
    pub fn check(&self, multifd: bool) -> Result<(), String> {
        match self {
            Self::Exec(_) | Self::File(_) | Self::Fd(_) if multifd => {
                Err("Migration requires multi-channel URIs (e.g. tcp)".to_owned())
            }
            _ => Ok(()),
        }
    }
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let rest = rest.to_owned();
        match kind {
            "defer" if rest.is_empty() => Ok(Self::Defer),
            "tcp" if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => Ok(Self::Tcp(rest)),
            "tcp" => Err(format!("'{text}': expected tcp:HOST:PORT")),
            "unix" | "exec" | "file" | "fd" if rest.is_empty() => {
                Err(format!("'{text}': what follows '{kind}:' is missing"))
            }
            "file" if rest.contains(",offset=") => Err(format!("'{text}': an offset is not supported")),
            "unix" => Ok(Self::Unix(rest)),
            "exec" => Ok(Self::Exec(rest)),
            "file" => Ok(Self::File(rest)),
            "fd" => Ok(Self::Fd(rest)),
            "rdma" | "vsock" => Err(format!("'{kind}' is not supported: use tcp, unix, exec, file or fd")),
            _ => Err(format!("unknown migration protocol: {text}")),
        }
    }
}

/// The address, where no host means all of them or this one.
fn address(text: &str, all: bool) -> String {
    match text.strip_prefix(':') {
        Some(port) if all => format!("[::]:{port}"),
        Some(port) => format!("localhost:{port}"),
        None => text.to_owned(),
    }
}

fn connect_tcp(text: &str) -> io::Result<UnixStream> {
    let mut last = io::Error::other("the host has no address");
    for address in address(text, false).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(any(stream));
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Streams of all families are read, written and shut in the same way.
fn any(stream: TcpStream) -> UnixStream {
    UnixStream::from(OwnedFd::from(stream))
}

fn socket_channel(stream: UnixStream, dial: Option<Dial>) -> io::Result<Channel> {
    let (from, shut) = (stream.try_clone()?, stream.try_clone()?);
    let shut = move || {
        // It is broken already then.
        let _ = shut.shutdown(Shutdown::Both);
    };
    let (to, end) = (Box::new(stream), Box::new(|| Ok(())));
    Ok(Channel { to, from: Some(Box::new(from)), shut: Box::new(shut), end, dial })
}

/// Is a descriptor a socket's?
fn is_socket(fd: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    shell
}

fn ended(mut child: Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the command ended with {status}"))) }
}

/// Opens a stream that a machine is sent to; `fd`: what `fd:` means.
pub fn connect(uri: &Uri, fd: Option<OwnedFd>) -> io::Result<Channel> {
    match uri {
        Uri::Tcp(text) => {
            let again = text.clone();
            socket_channel(connect_tcp(text)?, Some(Box::new(move || connect_tcp(&again))))
        }
        Uri::Unix(path) => {
            let again = path.clone();
            socket_channel(UnixStream::connect(path)?, Some(Box::new(move || UnixStream::connect(&again))))
        }
        Uri::Exec(command) => {
            let mut child = shell(command).stdin(Stdio::piped()).spawn()?;
            let to = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let pid = rustix::process::Pid::from_child(&child);
            let shut = move || {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            };
            Ok(Channel {
                to: Box::new(to),
                from: None,
                shut: Box::new(shut),
                end: Box::new(move || ended(child)),
                dial: None,
            })
        }
        Uri::File(path) => file_channel(File::create(path)?),
        Uri::Fd(_) => match fd {
            Some(fd) if is_socket(&fd) => socket_channel(UnixStream::from(fd), None),
            Some(fd) => file_channel(File::from(fd)),
            None => Err(io::ErrorKind::NotFound.into()),
        },
        Uri::Defer => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn file_channel(file: File) -> io::Result<Channel> {
    let whole = file.try_clone()?;
    // A pipe has nothing to be synchronised.
    let end = move || if whole.metadata()?.is_file() { whole.sync_all() } else { Ok(()) };
    Ok(Channel { to: Box::new(file), from: None, shut: Box::new(|| {}), end: Box::new(end), dial: None })
}

/// Where a machine will come from, ready for it.
pub enum Incoming {
    Tcp(TcpListener),
    /// With its path, which goes with the listener.
    Unix(UnixListener, String),
    Exec(String),
    File(File),
    Fd(OwnedFd),
}

impl Incoming {
    /// # Errors
    /// The host's.
    pub fn listen(uri: &Uri, fd: Option<OwnedFd>) -> io::Result<Self> {
        Ok(match uri {
            Uri::Tcp(text) => Self::Tcp(TcpListener::bind(address(text, true))?),
            Uri::Unix(path) => {
                // What an earlier one has left.
                if UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                Self::Unix(UnixListener::bind(path)?, path.clone())
            }
            Uri::Exec(command) => Self::Exec(command.clone()),
            Uri::File(path) => Self::File(File::open(path)?),
            Uri::Fd(_) => Self::Fd(fd.ok_or(io::ErrorKind::NotFound)?),
            Uri::Defer => return Err(io::ErrorKind::InvalidInput.into()),
        })
    }
    /// Waits for it; `more`: further connections may follow.
    pub fn accept(self, more: bool) -> io::Result<Source> {
        let one = |from: Box<dyn Read + Send>| Source { from, answers: None, accepting: None, shut: None };
        Ok(match self {
            Self::Tcp(listener) => {
                let stream = any(listener.accept()?.0);
                if more {
                    listener.set_nonblocking(true)?;
                }
                let next = move || listener.accept().map(|(stream, _)| any(stream));
                socket_source(stream, more.then_some(next))?
            }
            Self::Unix(listener, path) => {
                let stream = listener.accept()?.0;
                let path = Removed(path);
                if more {
                    listener.set_nonblocking(true)?;
                }
                let next = move || {
                    let _kept = &path;
                    listener.accept().map(|(stream, _)| stream)
                };
                socket_source(stream, more.then_some(next))?
            }
            Self::Exec(command) => {
                let mut child = shell(&command).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
                let from = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                let child = Arc::new(parking_lot::Mutex::new(child));
                one(Box::new(Of(from, child)))
            }
            Self::File(file) => one(Box::new(file)),
            Self::Fd(fd) if is_socket(&fd) => {
                socket_source(UnixStream::from(fd), None::<fn() -> io::Result<UnixStream>>)?
            }
            Self::Fd(fd) => one(Box::new(File::from(fd))),
        })
    }
}

/// Nothing more comes by a connection, and nothing waits in it.
fn has_ended(link: &UnixStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    matches!(recv(link, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
}

/// A socket's path, which goes with this.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `next` takes a further connection, if there is one.
fn socket_source(
    stream: UnixStream,
    next: Option<impl Fn() -> io::Result<UnixStream> + Send + 'static>,
) -> io::Result<Source> {
    let (from, stop, shut) = (stream.try_clone()?, stream.try_clone()?, stream.try_clone()?);
    let shut = move || {
        // It is broken already then.
        let _ = shut.shutdown(Shutdown::Both);
    };
    let main = stream.try_clone()?;
    let accepting = next.map(|next| Accepting {
        accept: Box::new(move |until| {
            loop {
                match next() {
                    Ok(stream) => {
                        stream.set_nonblocking(false)?;
                        return Ok(stream);
                    }
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                    Err(_) if has_ended(&main) => return Err(io::Error::other("the main connection has ended")),
                    Err(_) if Instant::now() >= until => {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody connects"));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        }),
        stop: Box::new(move || {
            // It is broken already then.
            let _ = stop.shutdown(Shutdown::Read);
        }),
    });
    Ok(Source { from: Box::new(from), answers: Some(Box::new(stream)), accepting, shut: Some(Box::new(shut)) })
}

/// The output of a command, which is not left a zombie.
struct Of<R>(R, Arc<parking_lot::Mutex<Child>>);

impl<R: Read> Read for Of<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        self.0.read(data)
    }
}

impl<R> Drop for Of<R> {
    fn drop(&mut self) {
        let child = self.1.clone();
        // It may go on for a while with what comes behind the stream.
        let wait = move || {
            let _ = child.lock().wait();
        };
        let _ = std::thread::Builder::new().name("rhea-exec".to_owned()).spawn(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(Uri::parse("tcp:a:1"), Ok(Uri::Tcp("a:1".to_owned())));
        assert_eq!(Uri::parse("tcp::1"), Ok(Uri::Tcp(":1".to_owned())));
        assert_eq!(Uri::parse("exec:cat > x"), Ok(Uri::Exec("cat > x".to_owned())));
        assert_eq!(Uri::parse("defer"), Ok(Uri::Defer));
        for bad in ["", "tcp:a", "tcp:a:b", "unix:", "rdma:a:1", "defer:1", "file:a,offset=4", "ftp:x"] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }
}
