//! TCP and Unix sockets, as server or client, plain or telnet.

use super::feed::Feed;
use super::outbox::Outbox;
use super::{CharBackend, CharEvent, CharFrontend};
use parking_lot::Mutex;
use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where to listen or connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// `host:port`.
    Tcp(String),
    Unix(String),
    /// A listening socket of this number that the process was started with.
    Fd(i32),
}

impl SocketAddress {
    /// A descriptor of its own for a socket that was handed over.
    ///
    /// # Errors
    /// The host's: there is no descriptor of this number.
    #[expect(unsafe_code, reason = "a descriptor known by its number only")]
    pub fn inherited(number: i32) -> Result<OwnedFd> {
        if number < 0 {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the number is none that has a meaning of its own; the descriptor is borrowed for the call that copies it; one that is not open makes that call fail.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
    }
}

impl std::fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(a) => write!(f, "tcp:{a}"),
            Self::Unix(p) => write!(f, "unix:{p}"),
            Self::Fd(n) => write!(f, "fd:{n}"),
        }
    }
}

/// How a socket back end behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    pub address: SocketAddress,
    pub server: bool,
    /// A server waits for its first client before the machine starts.
    pub wait: bool,
    pub telnet: bool,
    pub nodelay: bool,
}

/// A connected stream of either kind.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Unix(s) => Self::Unix(s.try_clone()?),
        })
    }
    fn shut_down(&self) {
        // It may have ended already.
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
            Self::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
}
impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }
}
impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        match self {
            Self::Tcp(s) => s.write(data),
            Self::Unix(s) => s.write(data),
        }
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(address: &SocketAddress) -> Result<Self> {
        Ok(match address {
            SocketAddress::Tcp(a) => Self::Tcp(TcpListener::bind(with_host(a))?),
            SocketAddress::Unix(path) => {
                // A socket nobody listens on any more is in the way of nobody.
                if UnixStream::connect(path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
                    std::fs::remove_file(path)?;
                }
                Self::Unix(UnixListener::bind(path)?)
            }
            SocketAddress::Fd(number) => {
                let fd = SocketAddress::inherited(*number)?;
                match rustix::net::getsockname(&fd)?.address_family() {
                    rustix::net::AddressFamily::UNIX => Self::Unix(UnixListener::from(fd)),
                    _ => Self::Tcp(TcpListener::from(fd)),
                }
            }
        })
    }
    /// Whoever waits in [`Self::accept`] gets an error.
    fn shut_down(&self) {
        use rustix::net::{Shutdown, shutdown};
        let _ = match self {
            Self::Tcp(l) => shutdown(l, Shutdown::Both),
            Self::Unix(l) => shutdown(l, Shutdown::Both),
        };
    }
    fn accept(&self) -> Result<Stream> {
        Ok(match self {
            Self::Tcp(l) => Stream::Tcp(l.accept()?.0),
            Self::Unix(l) => Stream::Unix(l.accept()?.0),
        })
    }
}

/// `:port` means all addresses for a server and the local host for a client.
fn with_host(address: &str) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() }
}

/// A socket back end: one peer at a time.
pub struct SocketChar {
    shared: Arc<Shared>,
    description: String,
}

struct Shared {
    feed: Feed,
    out: Mutex<Option<Outbox>>,
    options: SocketOptions,
    listener: Option<Listener>,
    /// The peer, to be let go at the end.
    peer: Mutex<Option<Stream>>,
    ended: AtomicBool,
}

impl SocketChar {
    /// Connects, or listens (and waits for the first client if `wait`).
    ///
    /// # Errors
    /// The host's error.
    pub fn new(options: SocketOptions) -> Result<Arc<Self>> {
        let description = format!("{}{}", options.address, if options.server { ",server=on" } else { "" });
        let listener = options.server.then(|| Listener::new(&options.address)).transpose()?;
        let shared = Arc::new(Shared {
            feed: Feed::default(),
            out: Mutex::new(None),
            options,
            listener,
            peer: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let mut first = None;
        if let Some(listener) = &shared.listener {
            if shared.options.wait {
                eprintln!("rhea: waiting for a connection on {description}");
                first = Some(listener.accept()?);
            }
        } else {
            first = Some(match &shared.options.address {
                SocketAddress::Tcp(a) if a.starts_with(':') => {
                    Stream::Tcp(TcpStream::connect(format!("127.0.0.1{a}"))?)
                }
                SocketAddress::Tcp(a) => Stream::Tcp(TcpStream::connect(a)?),
                SocketAddress::Unix(p) => Stream::Unix(UnixStream::connect(p)?),
                // Refused where options are parsed.
                SocketAddress::Fd(_) => return Err(std::io::ErrorKind::Unsupported.into()),
            });
        }
        // The first peer can be written to from now on.
        let first = first.map(|s| shared.attach(s)).transpose()?;
        let mine = shared.clone();
        std::thread::Builder::new().name("rhea-char-socket".to_owned()).spawn(move || {
            if let Some(stream) = first {
                mine.serve(stream);
            }
            while let (Some(listener), false) = (&mine.listener, mine.ended.load(Ordering::SeqCst)) {
                match listener.accept().and_then(|s| mine.attach(s)) {
                    Ok(stream) => mine.serve(stream),
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
                }
            }
        })?;
        Ok(Arc::new(Self { shared, description }))
    }
}

impl Shared {
    fn attach(&self, mut stream: Stream) -> Result<Stream> {
        if let Stream::Tcp(s) = &stream {
            s.set_nodelay(self.options.nodelay || self.options.telnet)?;
        }
        if self.options.telnet && self.options.server {
            // WILL ECHO, WILL SUPPRESS-GO-AHEAD, WILL and DO BINARY (RFC 854, 856-858).
            stream.write_all(&[255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0])?;
        }
        *self.out.lock() = Some(Outbox::new(stream.try_clone()?)?);
        *self.peer.lock() = Some(stream.try_clone()?);
        if self.ended.load(Ordering::SeqCst) {
            stream.shut_down();
        }
        Ok(stream)
    }

    fn serve(&self, mut stream: Stream) {
        self.feed.event(CharEvent::Opened);
        let (mut buffer, mut telnet) = ([0; 1024], Telnet::default());
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if self.options.telnet => {
                    let (data, breaks) = telnet.filter(&buffer[..n]);
                    for _ in 0..breaks {
                        self.feed.event(CharEvent::Break);
                    }
                    self.feed.push(&data);
                }
                Ok(n) => self.feed.push(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        *self.out.lock() = None;
        *self.peer.lock() = None;
        self.feed.event(CharEvent::Closed);
    }
}

/// Takes the telnet commands out of a stream.
#[derive(Default)]
struct Telnet {
    command: Option<u8>,
    iac: bool,
    sub: bool,
}

impl Telnet {
    /// The data, and how many breaks were in it.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, usize) {
        let (mut data, mut breaks) = (Vec::with_capacity(input.len()), 0);
        for &byte in input {
            if self.command.take().is_some() {
                continue; // the option of WILL, WONT, DO, DONT
            }
            if std::mem::take(&mut self.iac) {
                match byte {
                    255 if !self.sub => data.push(255),
                    251..=254 => self.command = Some(byte),
                    250 => self.sub = true,
                    240 => self.sub = false,
                    243 => breaks += 1,
                    _ => {}
                }
            } else if byte == 255 {
                self.iac = true;
            } else if !self.sub {
                data.push(byte);
            }
        }
        (data, breaks)
    }
}

impl CharBackend for SocketChar {
    fn connected(&self) -> bool {
        self.shared.out.lock().is_some()
    }
    fn write(&self, data: &[u8]) {
        if let Some(out) = &*self.shared.out.lock() {
            if self.shared.options.telnet && data.contains(&255) {
                let doubled: Vec<u8> =
                    data.iter().flat_map(|b| std::iter::repeat_n(*b, if *b == 255 { 2 } else { 1 })).collect();
                out.write(&doubled);
            } else {
                out.write(data);
            }
        }
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.shared.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.shared.feed.drain();
    }
    fn description(&self) -> String {
        self.description.clone()
    }
}

impl Drop for SocketChar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.feed.close();
        if let Some(peer) = &*self.shared.peer.lock() {
            peer.shut_down();
        }
        // A socket that was handed over is of others, too.
        if let (Some(listener), false) =
            (&self.shared.listener, matches!(self.shared.options.address, SocketAddress::Fd(_)))
        {
            listener.shut_down();
        }
        if let (true, SocketAddress::Unix(path)) = (self.shared.options.server, &self.shared.options.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telnet_commands_are_removed() {
        let mut t = Telnet::default();
        assert_eq!(t.filter(&[b'a', 255, 253, 1, b'b', 255]), (b"ab".to_vec(), 0));
        assert_eq!(t.filter(&[255, 255, 250, 1, 2, 255, 240, b'c', 255, 243]), (vec![255, b'c'], 1));
    }

    struct Front(Mutex<Vec<u8>>);
    impl CharFrontend for Front {
        fn can_receive(&self) -> usize {
            16
        }
        fn receive(&self, data: &[u8]) {
            self.0.lock().extend_from_slice(data);
        }
    }

    #[test]
    fn a_server_serves_one_client_after_the_other() {
        let path = std::env::temp_dir().join(format!("rhea-socket-test-{}", std::process::id()));
        let path = path.to_string_lossy().into_owned();
        let options = SocketOptions {
            address: SocketAddress::Unix(path.clone()),
            server: true,
            wait: false,
            telnet: false,
            nodelay: false,
        };
        let server = SocketChar::new(options).unwrap();
        let front = Arc::new(Front(Mutex::default()));
        server.set_frontend(front.clone());
        for round in 1..=2 {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"hi").unwrap();
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while front.0.lock().len() < round * 2 && std::time::Instant::now() < end {
                std::thread::yield_now();
            }
            server.write(b"yo");
            let mut answer = [0; 2];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"yo");
        }
        assert_eq!(*front.0.lock(), b"hihi");
    }
}
