//! The listening end, and the list of clients.

use super::auth::{CHALLENGE, Password};
use super::session::{Session, Stream};
use super::{SharePolicy, VncAddress, VncOptions};
use crate::Console;
use parking_lot::Mutex;
use rhea_pc::InputHub;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Error, ErrorKind, Result};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// How often the listener looks whether the server is still there.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(address: &VncAddress) -> Result<Self> {
        match address {
            VncAddress::Tcp { host, first, last } => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                let mut failed = Error::from(ErrorKind::AddrNotAvailable);
                for port in *first..=*last {
                    for address in (host, port).to_socket_addrs()? {
                        match TcpListener::bind(address) {
                            Ok(listener) => return Ok(Self::Tcp(listener)),
                            Err(e) => failed = e,
                        }
                    }
                }
                Err(failed)
            }
            VncAddress::Unix(path) => {
                // A socket nobody listens on any more is in the way of nobody.
                if UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
                    std::fs::remove_file(path)?;
                }
                Ok(Self::Unix(UnixListener::bind(path)?))
            }
        }
    }
    fn accept(&self) -> Result<(Stream, String)> {
        Ok(match self {
            Self::Tcp(l) => {
                let (stream, peer) = l.accept()?;
                stream.set_nodelay(true)?;
                (Stream::Tcp(stream), peer.to_string())
            }
            Self::Unix(l) => (Stream::Unix(l.accept()?.0), "unix".to_owned()),
        })
    }
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(l) => l.as_fd(),
            Self::Unix(l) => l.as_fd(),
        }
    }
    fn describe(&self, address: &VncAddress) -> String {
        match (self, address) {
            (Self::Tcp(l), _) => l.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            (_, address) => address.to_string(),
        }
    }
}

/// A client in the list.
struct Client {
    id: u64,
    peer: String,
    stream: Stream,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VncEvent {
    Connected,
    /// It has said who it is, and looks from now on.
    Initialized,
    Disconnected,
}

type Listening = Arc<dyn Fn(VncEvent, &str) + Send + Sync>;

/// What sessions share.
pub(super) struct Shared {
    pub console: Arc<Console>,
    pub input: Arc<InputHub>,
    /// Name of the desktop.
    pub name: String,
    share: SharePolicy,
    connections: usize,
    clients: Mutex<Vec<Client>>,
    next: AtomicU64,
    listeners: Mutex<Vec<Listening>>,
    /// What clients must know, if they must know anything.
    password: Option<Mutex<Password>>,
}

impl Shared {
    /// Must clients prove that they know the password?
    pub(super) fn asks(&self) -> bool {
        self.password.is_some()
    }
    /// Has the client answered a challenge well?
    pub(super) fn proven(&self, challenge: &[u8; CHALLENGE], answer: &[u8; CHALLENGE]) -> bool {
        self.password.as_ref().is_none_or(|p| p.lock().proves(challenge, answer, SystemTime::now()))
    }
    fn tell(&self, event: VncEvent, peer: &str) {
        let listeners = self.listeners.lock().clone();
        listeners.iter().for_each(|l| l(event, peer));
    }
    /// The client has come through the beginning of the protocol.
    pub(super) fn initialized(&self, id: u64) {
        let peer = self.clients.lock().iter().find(|c| c.id == id).map(|c| c.peer.clone());
        peer.iter().for_each(|peer| self.tell(VncEvent::Initialized, peer));
    }
    /// A client wants the display for itself: who remains connected; false: not this one.
    pub(super) fn exclusive(&self, id: u64) -> bool {
        match self.share {
            SharePolicy::Ignore => true,
            SharePolicy::ForceShared => false,
            SharePolicy::AllowExclusive => {
                self.clients.lock().iter().filter(|c| c.id != id).for_each(|c| c.stream.shut_down());
                true
            }
        }
    }
    fn serve(self: &Arc<Self>, stream: Stream, peer: String) -> Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = stream.try_clone()?;
        {
            let mut clients = self.clients.lock();
            if clients.len() >= self.connections {
                stream.shut_down();
                return Ok(());
            }
            clients.push(Client { id, peer: peer.clone(), stream: handle });
        }
        self.tell(VncEvent::Connected, &peer);
        let shared = self.clone();
        let spawned = std::thread::Builder::new().name("rhea-vnc-client".to_owned()).spawn(move || {
            let mut session = Session::new(shared.clone(), stream, id);
            // The connection's end is nobody's error.
            let _ = session.run();
            session.release_keys();
            shared.leave(id);
        });
        if let Err(e) = spawned {
            self.leave(id);
            return Err(e);
        }
        Ok(())
    }
    fn leave(&self, id: u64) {
        let client = {
            let mut clients = self.clients.lock();
            clients.iter().position(|c| c.id == id).map(|at| clients.swap_remove(at))
        };
        if let Some(client) = client {
            client.stream.shut_down();
            self.tell(VncEvent::Disconnected, &client.peer);
        }
    }
}

/// A VNC server of one display. Dropping it disconnects its clients.
pub struct VncServer {
    shared: Arc<Shared>,
    place: Mutex<Place>,
}

/// Where a server listens.
struct Place {
    listener: Arc<Listener>,
    address: VncAddress,
    /// As it is told.
    text: String,
}

impl Place {
    fn new(address: &VncAddress) -> Result<Self> {
        let listener = Listener::new(address)?;
        Ok(Self { text: listener.describe(address), listener: Arc::new(listener), address: address.clone() })
    }
    /// Takes its name away from a socket nobody listens on any more.
    fn leave(&self) {
        if let VncAddress::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl VncServer {
    /// Listens. `name` is that of the machine.
    ///
    /// # Errors
    /// The host's error.
    pub fn start(options: &VncOptions, console: &Arc<Console>, input: &Arc<InputHub>, name: &str) -> Result<Arc<Self>> {
        let place = Place::new(&options.address)?;
        let shared = Arc::new(Shared {
            console: console.clone(),
            input: input.clone(),
            name: format!("Rhea ({name})"),
            share: options.share,
            connections: options.connections,
            clients: Mutex::default(),
            next: AtomicU64::new(1),
            listeners: Mutex::default(),
            password: options.password.then(Mutex::default),
        });
        let server = Arc::new(Self { shared, place: Mutex::new(place) });
        let weak = Arc::downgrade(&server);
        std::thread::Builder::new().name("rhea-vnc".to_owned()).spawn(move || listen(&weak))?;
        Ok(server)
    }
    /// The address it listens at.
    #[must_use]
    pub fn address(&self) -> String {
        self.place.lock().text.clone()
    }
    /// Listens somewhere else; who is connected stays so.
    ///
    /// # Errors
    /// The host's error; it listens where it did.
    pub fn move_to(&self, address: &VncAddress) -> Result<()> {
        let mut place = self.place.lock();
        // It may listen there already.
        if place.address == *address || matches!(address, VncAddress::Tcp { .. }) && place.text == address.to_string() {
            return Ok(());
        }
        let next = Place::new(address)?;
        place.leave();
        *place = next;
        Ok(())
    }
    /// How clients prove who they are: `none`, or `vnc` by a password.
    #[must_use]
    pub fn auth(&self) -> &'static str {
        if self.shared.asks() { "vnc" } else { "none" }
    }
    /// Sets the password for clients to come, of which eight bytes count; false: they need none (`password=on` is missing).
    pub fn set_password(&self, text: &str) -> bool {
        self.shared.password.as_ref().map(|p| p.lock().text = Some(text.to_owned())).is_some()
    }
    /// Until when the password holds; `None`: for good. False: there is none.
    pub fn expire_password(&self, at: Option<SystemTime>) -> bool {
        self.shared.password.as_ref().map(|p| p.lock().expires = at).is_some()
    }
    /// The addresses of those who are connected.
    #[must_use]
    pub fn clients(&self) -> Vec<String> {
        self.shared.clients.lock().iter().map(|c| c.peer.clone()).collect()
    }
    /// Calls `listener` with what happens to clients, and their addresses.
    pub fn listen(&self, listener: impl Fn(VncEvent, &str) + Send + Sync + 'static) {
        self.shared.listeners.lock().push(Arc::new(listener));
    }
    /// Lines of `info vnc`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "Server: {} (auth: {}, display: {})\n",
            self.address(),
            self.auth(),
            self.shared.console.display().name()
        );
        for client in &*self.shared.clients.lock() {
            text.push_str(&format!("  Client: {} (auth: {})\n", client.peer, self.auth()));
        }
        text
    }
}

fn listen(server: &Weak<VncServer>) {
    loop {
        let Some(listener) = server.upgrade().map(|s| s.place.lock().listener.clone()) else { return };
        let ready = poll(&mut [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)], Some(&LOOK));
        let Some(server) = server.upgrade() else { return };
        if !ready.is_ok_and(|n| n != 0) {
            continue;
        }
        let accepted = listener.accept().and_then(|(stream, peer)| server.shared.serve(stream, peer));
        if accepted.is_err() {
            // Out of descriptors or threads: later there may be some.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for VncServer {
    fn drop(&mut self) {
        self.shared.clients.lock().iter().for_each(|c| c.stream.shut_down());
        self.place.get_mut().leave();
    }
}
