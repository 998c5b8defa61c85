//! TCP: each connection of the guest ends in a smoltcp socket here, and goes on as a socket of the host.

use super::packet::{self, Ip, be16};
use super::watch::Watch;
use super::wire::{HOST_MAC, Wire};
use super::{Keys, Nat};
use polling::{Event, Poller};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections at once.
const CONNECTIONS: usize = 1024;
/// Bytes buffered in each direction; also the window the guest sees.
const BUFFER: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(75);
/// A guest that says nothing for this long, although it was sent something, has gone.
const SILENCE: Duration = Duration::from_secs(120);

const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Guest address and port, remote address and port as the guest sees it.
type Tuple = (Ipv4Addr, u16, Ipv4Addr, u16);

enum Phase {
    /// The host connects; the guest's SYN waits.
    Connecting {
        syn: Vec<u8>,
        since: Instant,
    },
    Open {
        handle: SocketHandle,
    },
}

struct Connection {
    tuple: Tuple,
    host: Watch<TcpStream>,
    phase: Phase,
    /// Data may be read from, written to the host without waiting, as far as we know.
    readable: bool,
    writable: bool,
    /// The host sent all it will; our half towards the host is shut.
    host_eof: bool,
    shut: bool,
    /// When the guest last said something, in the stack's time.
    heard: Duration,
}

impl Connection {
    fn new(tuple: Tuple, host: Watch<TcpStream>, phase: Phase, heard: Duration) -> Self {
        Self { tuple, host, phase, readable: false, writable: false, host_eof: false, shut: false, heard }
    }
}

/// A listening socket of the host whose connections go to the guest.
struct Forward {
    listener: Watch<TcpListener>,
    guest: (Ipv4Addr, u16),
    /// The process had no descriptor left: the listener rests until the next housekeeping.
    resting: bool,
}

/// The stack and its time, which stands still while the guest takes nothing (it may be stopped).
pub(super) struct Stack {
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    pub wire: Wire,
    pub start: Instant,
    pub skipped: Duration,
}

impl Stack {
    fn elapsed(&self) -> Duration {
        self.start.elapsed().saturating_sub(self.skipped)
    }
    fn now(&self) -> StackInstant {
        StackInstant::from_micros(i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
    pub(super) fn poll(&mut self) {
        let now = self.now();
        self.iface.poll(now, &mut self.wire, &mut self.sockets);
    }
    /// When the stack wants to be polled again.
    pub(super) fn delay(&mut self) -> Option<Duration> {
        let now = self.now();
        self.iface.poll_delay(now, &self.sockets).map(Into::into)
    }
}

/// All connections.
pub(super) struct Tcp {
    connections: HashMap<usize, Connection>,
    by_tuple: HashMap<Tuple, usize>,
    forwards: HashMap<usize, Forward>,
    /// Connections to look at after the next poll of the stack.
    touched: Vec<usize>,
    poller: Arc<Poller>,
    next_port: u16,
}

fn new_socket() -> Socket<'static> {
    let mut s = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
    s.set_nagle_enabled(false);
    s.set_ack_delay(None);
    s
}

/// Starts a connection without waiting for it.
fn connect(address: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(fd)),
        Err(e) => Err(e.into()),
    }
}

/// Answers a SYN, as a frame, with a reset.
fn refuse(stack: &mut Stack, mac: [u8; 6], frame: &[u8]) {
    if let Some(rst) = frame.get(packet::ETHERNET..).and_then(|syn| packet::reset_for_syn(mac, HOST_MAC, syn)) {
        stack.wire.output.send_checked(rst);
    }
}

impl Tcp {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self {
            connections: HashMap::new(),
            by_tuple: HashMap::new(),
            forwards: HashMap::new(),
            touched: Vec::new(),
            poller,
            next_port: 49152,
        }
    }
    /// Does [`Self::expire`] have something to wait for that neither the stack nor the host tells?
    pub(super) fn waits(&self) -> bool {
        self.connections.values().any(|c| matches!(c.phase, Phase::Connecting { .. }))
            || self.forwards.values().any(|f| f.resting)
    }
    /// Sends the connections of a listening socket to a port of the guest.
    pub(super) fn forward(&mut self, key: usize, listener: TcpListener, guest: (Ipv4Addr, u16)) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = Watch::new(listener, self.poller.clone(), key);
        listener.set(true, false)?;
        self.forwards.insert(key, Forward { listener, guest, resting: false });
        Ok(())
    }

    /// A TCP packet of the guest, as a frame.
    pub(super) fn packet(&mut self, keys: &mut Keys, nat: &mut Nat, stack: &mut Stack, mac: [u8; 6], frame: Vec<u8>) {
        let Some(ip) = frame.get(packet::ETHERNET..).and_then(Ip::parse) else { return };
        let (Some(sport), Some(dport), Some(&flags)) = (be16(ip.payload, 0), be16(ip.payload, 2), ip.payload.get(13))
        else {
            return;
        };
        let tuple = (ip.src, sport, ip.dst, dport);
        let fresh = flags & FIN_SYN_RST_ACK == SYN;
        if let Some(&key) = self.by_tuple.get(&tuple) {
            let known = self.connections.get_mut(&key).map(|c| {
                c.heard = stack.elapsed();
                &c.phase
            });
            match known {
                Some(Phase::Connecting { .. }) => {
                    if flags & RST != 0 {
                        self.remove(stack, key);
                    }
                    // The SYN sent again: it waits already.
                    return;
                }
                Some(Phase::Open { handle }) => {
                    let state = stack.sockets.get::<Socket<'_>>(*handle).state();
                    if fresh && matches!(state, State::Closed | State::TimeWait) {
                        // The port is used anew.
                        self.remove(stack, key);
                    } else {
                        self.touched.push(key);
                        stack.wire.input.push_back(frame);
                        return;
                    }
                }
                None => (),
            }
        }
        if !fresh {
            // Nobody's packet: the stack answers with a reset.
            stack.wire.input.push_back(frame);
            return;
        }
        let address = if nat.options.restrict { None } else { nat.outward(ip.dst, dport) };
        let stream = match address {
            Some(address) if self.connections.len() < CONNECTIONS => connect(address),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let Ok(stream) = stream else { return refuse(stack, mac, &frame) };
        let _ = stream.set_nodelay(true);
        let key = keys.next();
        let mut host = Watch::new(stream, self.poller.clone(), key);
        if host.set(false, true).is_err() {
            return refuse(stack, mac, &frame);
        }
        let phase = Phase::Connecting { syn: frame, since: Instant::now() };
        self.insert(key, Connection::new(tuple, host, phase, stack.elapsed()));
    }
    fn insert(&mut self, key: usize, connection: Connection) {
        self.by_tuple.insert(connection.tuple, key);
        self.connections.insert(key, connection);
    }
    fn remove(&mut self, stack: &mut Stack, key: usize) {
        if let Some(c) = self.connections.remove(&key) {
            self.by_tuple.remove(&c.tuple);
            if let Phase::Open { handle } = c.phase {
                stack.sockets.remove(handle);
            }
        }
    }

    /// The host's socket has news; false if the key is none of ours.
    pub(super) fn ready(&mut self, keys: &mut Keys, nat: &Nat, stack: &mut Stack, event: Event) -> bool {
        if self.forwards.contains_key(&event.key) {
            self.accept(keys, nat, stack, event.key);
            return true;
        }
        let Some(c) = self.connections.get_mut(&event.key) else { return false };
        match &mut c.phase {
            Phase::Connecting { syn, .. } => {
                let failed = !matches!(c.host.socket.take_error(), Ok(None));
                let syn = std::mem::take(syn);
                if failed {
                    let mac = syn.get(6..).and_then(|m| m.first_chunk::<6>()).copied().unwrap_or_default();
                    refuse(stack, mac, &syn);
                    self.remove(stack, event.key);
                } else {
                    self.open(stack, event.key, syn);
                }
            }
            Phase::Open { .. } => {
                // Neither: an error or a hang-up, which reading or writing will tell.
                let neither = !event.readable && !event.writable;
                c.readable |= event.readable || neither;
                c.writable |= event.writable || neither;
                self.touched.push(event.key);
            }
        }
        true
    }
    /// The host is connected: now the guest's SYN reaches a socket that listens for it alone.
    fn open(&mut self, stack: &mut Stack, key: usize, syn: Vec<u8>) {
        let Some(c) = self.connections.get_mut(&key) else { return };
        let mut socket = new_socket();
        if socket.listen((c.tuple.2, c.tuple.3)).is_err() {
            return self.remove(stack, key);
        }
        // What came before must not meet the new socket.
        stack.poll();
        let handle = stack.sockets.add(socket);
        c.phase = Phase::Open { handle };
        (c.readable, c.writable) = (false, true);
        stack.wire.input.push_back(syn);
        stack.poll();
        if stack.sockets.get::<Socket<'_>>(handle).state() == State::Listen {
            return self.remove(stack, key);
        }
        self.touched.push(key);
    }
    fn accept(&mut self, keys: &mut Keys, nat: &Nat, stack: &mut Stack, key: usize) {
        loop {
            let Some(f) = self.forwards.get_mut(&key) else { return };
            let guest = f.guest;
            let (stream, peer) = match f.listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
                // Out of descriptors or memory: asking again at once would spin.
                Err(_) => {
                    f.resting = f.listener.set(false, false).is_ok();
                    return;
                }
            };
            if self.connections.len() >= CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let _ = stream.set_nodelay(true);
            // The guest sees a peer on the host's own network as it is, and the host itself as the gateway.
            let from = match peer {
                std::net::SocketAddr::V4(p) => nat.inward(*p.ip()),
                std::net::SocketAddr::V6(_) => nat.options.host,
            };
            let Some(tuple) = (0..16384).find_map(|_| {
                self.next_port = if self.next_port == u16::MAX { 49152 } else { self.next_port + 1 };
                let tuple = (guest.0, guest.1, from, self.next_port);
                (!self.by_tuple.contains_key(&tuple)).then_some(tuple)
            }) else {
                continue;
            };
            let mut socket = new_socket();
            if socket.connect(stack.iface.context(), (tuple.0, tuple.1), (tuple.2, tuple.3)).is_err() {
                continue;
            }
            let handle = stack.sockets.add(socket);
            let key = keys.next();
            let host = Watch::new(stream, self.poller.clone(), key);
            let connection = Connection::new(tuple, host, Phase::Open { handle }, stack.elapsed());
            self.insert(key, Connection { readable: true, writable: true, ..connection });
            self.touched.push(key);
        }
    }

    /// Moves data of all touched connections; true if there were any.
    pub(super) fn pump(&mut self, stack: &mut Stack) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for key in touched.drain(..) {
            let Some(c) = self.connections.get_mut(&key) else { continue };
            let Phase::Open { handle } = c.phase else { continue };
            let socket = stack.sockets.get_mut::<Socket<'_>>(handle);
            match move_data(c, socket) {
                Fate::Lives => (),
                Fate::Reset => {
                    // The guest's reset goes out with the next poll, before the socket goes.
                    socket.abort();
                    stack.poll();
                    self.remove(stack, key);
                }
                Fate::Ended => self.remove(stack, key),
            }
        }
        // Keeps the allocation.
        if self.touched.is_empty() {
            self.touched = touched;
        }
        true
    }
    /// Gives up what takes too long, and lets listeners try again.
    pub(super) fn expire(&mut self, stack: &mut Stack) {
        let now = stack.elapsed();
        let mut late = Vec::new();
        for (key, c) in &self.connections {
            match &c.phase {
                Phase::Connecting { since, .. } if since.elapsed() > CONNECT_TIMEOUT => late.push(*key),
                Phase::Connecting { .. } => (),
                Phase::Open { handle } => {
                    let socket = stack.sockets.get_mut::<Socket<'_>>(*handle);
                    let owed = socket.send_queue() > 0
                        || !matches!(socket.state(), State::Established | State::CloseWait | State::FinWait2);
                    if owed && now.saturating_sub(c.heard) > SILENCE {
                        socket.abort();
                    }
                    // Connections the stack ended by itself are found too.
                    self.touched.push(*key);
                }
            }
        }
        for key in late {
            if let Some(Connection { phase: Phase::Connecting { syn, .. }, .. }) = self.connections.get(&key) {
                let mac = syn.get(6..).and_then(|m| m.first_chunk::<6>()).copied().unwrap_or_default();
                refuse(stack, mac, syn);
            }
            self.remove(stack, key);
        }
        for f in self.forwards.values_mut().filter(|f| f.resting) {
            f.resting = f.listener.set(true, false).is_err();
        }
    }
}

enum Fate {
    Lives,
    /// The host's side failed: the guest gets a reset.
    Reset,
    Ended,
}

fn move_data(c: &mut Connection, socket: &mut Socket<'_>) -> Fate {
    let host = &c.host.socket;
    // Guest to host.
    while c.writable && socket.can_recv() {
        let written = socket.recv(|data| match (&mut &*host).write(data) {
            Ok(n) => (n, Ok(())),
            Err(e) => (0, Err(e)),
        });
        match written {
            Ok(Ok(())) => (),
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => c.writable = false,
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => (),
            _ => return Fate::Reset,
        }
    }
    let state = socket.state();
    let guest_done = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    if guest_done && !c.shut && socket.recv_queue() == 0 {
        c.shut = true;
        let _ = host.shutdown(Shutdown::Write);
    }
    // Host to guest.
    while c.readable && !c.host_eof && socket.can_send() {
        let mut eof = false;
        let read = socket.send(|room| match (&mut &*host).read(room) {
            Ok(n) => {
                eof = n == 0;
                (n, Ok(()))
            }
            Err(e) => (0, Err(e)),
        });
        match read {
            Ok(Ok(())) => (),
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => c.readable = false,
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => (),
            _ => return Fate::Reset,
        }
        if eof {
            c.host_eof = true;
            socket.close();
        }
    }
    match socket.state() {
        State::Closed => {
            if !(c.shut && c.host_eof) {
                // The guest reset the connection, or vanished: so do we.
                let _ = sockopt::set_socket_linger(host, Some(Duration::ZERO));
            }
            return Fate::Ended;
        }
        // The last acknowledgement is out: the stack answers at once.
        State::TimeWait if c.shut => return Fate::Ended,
        _ => (),
    }
    // Wait for what would let data move.
    let established = socket.may_send();
    let read = !c.readable && !c.host_eof && established;
    let write = !c.writable && socket.can_recv();
    if c.host.set(read, write).is_err() { Fate::Reset } else { Fate::Lives }
}
