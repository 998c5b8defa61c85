//! What sessions run over: sockets and the standard streams.

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Read, Result, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Descriptors that one message may carry.
const MAX_FDS: usize = 16;

/// Where to listen or connect.
#[derive(Debug)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    Unix(String),
    /// A listening socket, Unix or TCP, that was handed over.
    Listening(OwnedFd),
    /// Standard input and output.
    Stdio,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(a) => write!(f, "tcp:{a}"),
            Self::Unix(p) => write!(f, "unix:{p}"),
            Self::Listening(_) => f.write_str("fd"),
            Self::Stdio => f.write_str("stdio"),
        }
    }
}

enum Source {
    Unix(UnixListener),
    Tcp(TcpListener),
    /// One peer, and no other after it.
    Once(Option<Stream>),
}

/// Where peers come from, one after the other.
pub struct Listener(Source);

/// `:port` means all addresses for a server and the local host for a client.
fn with_host(address: &str, default: &str) -> String {
    if address.starts_with(':') { format!("{default}{address}") } else { address.to_owned() }
}

impl Listener {
    /// Listens, or connects if `server` is false.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(address: Address, server: bool) -> Result<Self> {
        Ok(Self(match address {
            Address::Stdio => Source::Once(Some(Stream::Stdio)),
            Address::Tcp(a) if server => Source::Tcp(TcpListener::bind(with_host(&a, "0.0.0.0"))?),
            Address::Tcp(a) => Source::Once(Some(Stream::Tcp(TcpStream::connect(with_host(&a, "127.0.0.1"))?))),
            Address::Unix(path) if server => {
                // A socket nobody listens on any more is in the way of nobody.
                if UnixStream::connect(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
                    std::fs::remove_file(&path)?;
                }
                Source::Unix(UnixListener::bind(path)?)
            }
            Address::Unix(path) => Source::Once(Some(Stream::Unix(UnixStream::connect(path)?))),
            Address::Listening(fd) => match rustix::net::getsockname(&fd)?.address_family() {
                rustix::net::AddressFamily::UNIX => Source::Unix(UnixListener::from(fd)),
                _ => Source::Tcp(TcpListener::from(fd)),
            },
        }))
    }

    /// The next peer; `None`: there will be no other.
    pub(crate) fn accept(&mut self) -> Option<Result<Stream>> {
        match &mut self.0 {
            Source::Unix(l) => Some(l.accept().map(|(s, _)| Stream::Unix(s))),
            Source::Tcp(l) => Some(l.accept().and_then(|(s, _)| {
                s.set_nodelay(true)?;
                Ok(Stream::Tcp(s))
            })),
            Source::Once(stream) => stream.take().map(Ok),
        }
    }
}

/// A peer.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Stdio,
}

impl Stream {
    pub(crate) fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Unix(s) => Self::Unix(s.try_clone()?),
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Stdio => Self::Stdio,
        })
    }
    /// Ends both directions, so that whoever waits in them goes on.
    pub(crate) fn end(&self) {
        // It may have ended before.
        let _ = match self {
            Self::Unix(s) => s.shutdown(Shutdown::Both),
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
            Self::Stdio => Ok(()),
        };
    }
    /// Reads; descriptors that came along are added to `fds`.
    pub(crate) fn receive(&mut self, data: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
        match self {
            Self::Tcp(s) => s.read(data),
            Self::Stdio => std::io::stdin().read(data),
            Self::Unix(s) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let got = recvmsg(s.as_fd(), &mut [IoSliceMut::new(data)], &mut control, flags)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(more) = message {
                        fds.extend(more);
                    }
                }
                fds.truncate(MAX_FDS);
                Ok(got.bytes)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        match self {
            Self::Unix(s) => s.write(data),
            Self::Tcp(s) => s.write(data),
            Self::Stdio => std::io::stdout().write(data),
        }
    }
    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Stdio => std::io::stdout().flush(),
            _ => Ok(()),
        }
    }
}
