//! The server: nodes for other processes.

use super::{Stream, protocol, wire};
use crate::segment::length;
use crate::{BlockBackend, ExtentKind};
use parking_lot::Mutex;
use std::io::{self, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port; port 0: one that is free.
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A node that is served.
#[derive(Clone)]
pub struct Export {
    pub name: String,
    pub description: String,
    pub backend: Arc<dyn BlockBackend>,
    pub readonly: bool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

struct Shared {
    exports: Mutex<Vec<Export>>,
    connections: Mutex<Vec<(usize, String, Stream)>>,
    next: AtomicUsize,
    limit: usize,
    ended: AtomicBool,
    /// Told as a connection ends: how many are left.
    left: Box<dyn Fn(usize) + Send + Sync>,
}

/// A server with a thread for each connection. Ends when dropped.
pub struct NbdServer {
    shared: Arc<Shared>,
    address: Address,
}

const HANDSHAKE: Duration = Duration::from_secs(30);

impl NbdServer {
    /// Listens; at most `limit` connections at once, 0: any number. `left` is told as a connection ends how many are left.
    ///
    /// # Errors
    /// One line.
    pub fn listen(
        address: &Address,
        limit: usize,
        left: impl Fn(usize) + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let (listener, address) = match address {
            Address::Tcp(host, port) => {
                let fail = |e: io::Error| format!("cannot listen on {host}:{port}: {}", crate::error_text(&e));
                let addresses: Vec<_> = (host.as_str(), *port).to_socket_addrs().map_err(fail)?.collect();
                let listener = TcpListener::bind(&addresses[..]).map_err(fail)?;
                let port = listener.local_addr().map_err(fail)?.port();
                (Listener::Tcp(listener), Address::Tcp(host.clone(), port))
            }
            Address::Unix(path) => {
                let fail = |e: io::Error| format!("cannot listen on '{}': {}", path.display(), crate::error_text(&e));
                // A socket that a process which is gone has left.
                if path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket())
                    && std::os::unix::net::UnixStream::connect(path).is_err()
                {
                    std::fs::remove_file(path).map_err(fail)?;
                }
                (Listener::Unix(UnixListener::bind(path).map_err(fail)?, path.clone()), Address::Unix(path.clone()))
            }
        };
        let shared = Arc::new(Shared {
            exports: Mutex::default(),
            connections: Mutex::default(),
            next: AtomicUsize::new(0),
            limit,
            ended: AtomicBool::new(false),
            left: Box::new(left),
        });
        let server = shared.clone();
        std::thread::Builder::new()
            .name("nbd-server".to_owned())
            .spawn(move || accept(&listener, &server))
            .map_err(|e| format!("cannot start a thread: {}", crate::error_text(&e)))?;
        Ok(Self { shared, address })
    }
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
    /// Serves a node from now on.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn add(&self, export: Export) -> Result<(), String> {
        let mut exports = self.shared.exports.lock();
        if exports.iter().any(|e| e.name == export.name) {
            return Err(format!("NBD server already has export named '{}'", export.name));
        }
        if export.name.len() > wire::MAX_NAME || export.description.len() > wire::MAX_NAME {
            return Err("the name of an export has at most 4096 bytes".to_owned());
        }
        exports.push(export);
        Ok(())
    }
    /// Serves a node no longer; `hard`: connections that use it are ended.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove(&self, name: &str, hard: bool) -> Result<(), String> {
        let mut exports = self.shared.exports.lock();
        let at = exports.iter().position(|e| e.name == name);
        let at = at.ok_or_else(|| format!("there is no export named '{name}'"))?;
        let connections = self.shared.connections.lock();
        let mut users = connections.iter().filter(|(_, export, _)| export == name).peekable();
        if users.peek().is_some() && !hard {
            return Err(format!("export '{name}' still in use"));
        }
        users.for_each(|(_, _, stream)| stream.shutdown());
        exports.remove(at);
        Ok(())
    }
    /// Names of what is served.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        self.shared.exports.lock().iter().map(|e| e.name.clone()).collect()
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for (_, _, stream) in &*self.shared.connections.lock() {
            stream.shutdown();
        }
        // Whoever waits for connections gets one, and sees the end.
        match &self.address {
            Address::Tcp(host, port) => drop(std::net::TcpStream::connect((host.as_str(), *port))),
            Address::Unix(path) => drop(std::os::unix::net::UnixStream::connect(path)),
        }
    }
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener {
            Listener::Tcp(l) => l.accept().map(|(s, _)| {
                // Answers are small.
                let _ = s.set_nodelay(true);
                Stream::Tcp(s)
            }),
            Listener::Unix(l, _) => l.accept().map(|(s, _)| Stream::Unix(s)),
        };
        if shared.ended.load(Ordering::Acquire) {
            break;
        }
        let Ok(stream) = stream else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Ok(copy) = stream.try_clone() else { continue };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut connections = shared.connections.lock();
            if shared.limit != 0 && connections.len() >= shared.limit {
                stream.shutdown();
                continue;
            }
            connections.push((id, String::new(), copy));
        }
        let server = shared.clone();
        let serve = move || {
            let mut stream = stream;
            // A connection that breaks concerns nobody else.
            let _ = serve(&mut stream, &server, id);
            stream.shutdown();
            let left = {
                let mut connections = server.connections.lock();
                connections.retain(|(i, _, _)| *i != id);
                connections.len()
            };
            (server.left)(left);
        };
        if std::thread::Builder::new().name("nbd-client".to_owned()).spawn(serve).is_err() {
            shared.connections.lock().retain(|(i, _, _)| *i != id);
        }
    }
    if let Listener::Unix(_, path) = listener {
        // It may be gone already.
        let _ = std::fs::remove_file(path);
    }
}

#[derive(Default)]
struct Session {
    structured: bool,
    context: bool,
}

fn reply(s: &mut Stream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut message = wire::OPTION_REPLY.to_be_bytes().to_vec();
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    s.write_all(&message)
}

fn flags_of(export: &Export) -> u16 {
    let mut flags = wire::HAS_FLAGS | wire::SEND_FLUSH | wire::SEND_FUA | wire::CAN_MULTI_CONN | wire::SEND_CACHE;
    if export.readonly {
        flags |= wire::READ_ONLY;
    } else {
        flags |= wire::SEND_TRIM | wire::SEND_WRITE_ZEROES;
    }
    flags
}

/// A name with its length before it.
fn name_in(data: &[u8]) -> Option<(String, &[u8])> {
    let len = u32::from_be_bytes(*data.first_chunk()?) as usize;
    let name = data.get(4..)?.get(..len)?;
    Some((String::from_utf8(name.to_vec()).ok()?, &data[4 + len..]))
}

fn serve(s: &mut Stream, shared: &Shared, id: usize) -> io::Result<()> {
    s.set_timeout(Some(HANDSHAKE))?;
    s.write_all(&wire::INIT.to_be_bytes())?;
    s.write_all(&wire::OPTION.to_be_bytes())?;
    s.write_all(&(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES).to_be_bytes())?;
    let no_zeroes = s.u32()? & u32::from(wire::FLAG_NO_ZEROES) != 0;
    let mut session = Session::default();
    let find = |name: &str| shared.exports.lock().iter().find(|e| e.name == name).cloned();
    let export = loop {
        if s.u64()? != wire::OPTION {
            return Err(protocol("bad option"));
        }
        let (option, len) = (s.u32()?, s.u32()? as usize);
        if len > wire::MAX_NAME * 4 {
            return Err(protocol("an option is too long"));
        }
        let data = s.bytes(len)?;
        match option {
            wire::OPT_EXPORT_NAME => {
                let name = String::from_utf8_lossy(&data).into_owned();
                let Some(export) = find(&name) else { return Err(protocol("no such export")) };
                s.write_all(&export.backend.capacity().to_be_bytes())?;
                s.write_all(&flags_of(&export).to_be_bytes())?;
                if !no_zeroes {
                    s.write_all(&[0; 124])?;
                }
                break export;
            }
            wire::OPT_ABORT => {
                reply(s, option, wire::REP_ACK, &[])?;
                return Ok(());
            }
            wire::OPT_LIST => {
                let list = shared.exports.lock().clone();
                for e in list {
                    let mut data = (e.name.len() as u32).to_be_bytes().to_vec();
                    data.extend_from_slice(e.name.as_bytes());
                    data.extend_from_slice(e.description.as_bytes());
                    reply(s, option, wire::REP_SERVER, &data)?;
                }
                reply(s, option, wire::REP_ACK, &[])?;
            }
            wire::OPT_STRUCTURED_REPLY if data.is_empty() => {
                session.structured = true;
                reply(s, option, wire::REP_ACK, &[])?;
            }
            wire::OPT_LIST_META_CONTEXT | wire::OPT_SET_META_CONTEXT => {
                contexts(s, option, &data, &mut session, &find)?;
            }
            wire::OPT_INFO | wire::OPT_GO => {
                let Some((name, _)) = name_in(&data) else {
                    reply(s, option, wire::REP_ERR_INVALID, b"malformed option")?;
                    continue;
                };
                let Some(export) = find(&name) else {
                    reply(s, option, wire::REP_ERR_UNKNOWN, format!("export '{name}' not present").as_bytes())?;
                    continue;
                };
                let mut info = wire::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for n in [1, 4096, wire::MAX_DATA] {
                    info.extend_from_slice(&n.to_be_bytes());
                }
                reply(s, option, wire::REP_INFO, &info)?;
                let mut info = wire::INFO_EXPORT.to_be_bytes().to_vec();
                info.extend_from_slice(&export.backend.capacity().to_be_bytes());
                info.extend_from_slice(&flags_of(&export).to_be_bytes());
                reply(s, option, wire::REP_INFO, &info)?;
                reply(s, option, wire::REP_ACK, &[])?;
                if option == wire::OPT_GO {
                    break export;
                }
            }
            wire::OPT_STARTTLS => reply(s, option, wire::REP_ERR_POLICY, b"TLS is not supported")?,
            _ => reply(s, option, wire::REP_ERR_UNSUP, b"unsupported option")?,
        }
    };
    if let Some(c) = shared.connections.lock().iter_mut().find(|(i, _, _)| *i == id) {
        c.1.clone_from(&export.name);
    }
    s.set_timeout(None)?;
    transmission(s, &export, &session)
}

fn contexts(
    s: &mut Stream,
    option: u32,
    data: &[u8],
    session: &mut Session,
    find: &dyn Fn(&str) -> Option<Export>,
) -> io::Result<()> {
    let parsed = name_in(data).and_then(|(name, rest)| {
        let count = u32::from_be_bytes(*rest.first_chunk()?);
        let (mut rest, mut queries) = (&rest[4..], Vec::new());
        for _ in 0..count {
            let (query, tail) = name_in(rest)?;
            queries.push(query);
            rest = tail;
        }
        Some((name, queries))
    });
    let Some((name, queries)) = parsed.filter(|_| session.structured) else {
        return reply(s, option, wire::REP_ERR_INVALID, b"malformed option");
    };
    if find(&name).is_none() {
        return reply(s, option, wire::REP_ERR_UNKNOWN, b"export not present");
    }
    let list = option == wire::OPT_LIST_META_CONTEXT;
    let wanted =
        queries.iter().any(|q| q == wire::BASE_ALLOCATION || (list && q == "base:")) || (list && queries.is_empty());
    if !list {
        session.context = wanted;
    }
    if wanted {
        let mut data = u32::from(!list).to_be_bytes().to_vec();
        data.extend_from_slice(wire::BASE_ALLOCATION.as_bytes());
        reply(s, option, wire::REP_META_CONTEXT, &data)?;
    }
    reply(s, option, wire::REP_ACK, &[])
}

fn code_of(e: &io::Error) -> u32 {
    match e.kind() {
        io::ErrorKind::PermissionDenied => 1,
        io::ErrorKind::InvalidInput => 22,
        io::ErrorKind::StorageFull => 28,
        io::ErrorKind::Unsupported => 95,
        _ => 5,
    }
}

fn transmission(s: &mut Stream, export: &Export, session: &Session) -> io::Result<()> {
    let b = &export.backend;
    loop {
        if s.u32()? != wire::REQUEST {
            return Err(protocol("bad request"));
        }
        let (flags, command) = (s.u16()?, s.u16()?);
        let (cookie, offset, len) = (s.u64()?, s.u64()?, s.u32()?);
        let has_data = matches!(command, wire::CMD_READ | wire::CMD_WRITE);
        if has_data && len > wire::MAX_DATA {
            // What follows cannot be told from requests.
            return Err(protocol("a request is too long"));
        }
        let data = if command == wire::CMD_WRITE { s.bytes(len as usize)? } else { Vec::new() };
        let inside = offset.checked_add(u64::from(len)).is_some_and(|end| end <= b.capacity());
        let writes = matches!(command, wire::CMD_WRITE | wire::CMD_TRIM | wire::CMD_WRITE_ZEROES);
        let mut out = Vec::new();
        let mut chunk = wire::CHUNK_NONE;
        let len = u64::from(len);
        let result = if command == wire::CMD_DISC {
            return b.flush();
        } else if writes && export.readonly {
            Err(io::ErrorKind::PermissionDenied.into())
        } else if command != wire::CMD_FLUSH && !inside {
            Err(if writes { io::ErrorKind::StorageFull.into() } else { crate::out_of_range() })
        } else {
            match command {
                wire::CMD_READ => {
                    let head = if session.structured { 8 } else { 0 };
                    out.resize(head + length(len)?, 0);
                    out[..head].copy_from_slice(&offset.to_be_bytes()[..head]);
                    chunk = wire::CHUNK_OFFSET_DATA;
                    b.read_bytes(offset, &mut out[head..])
                }
                wire::CMD_WRITE => b.write_bytes(offset, &data),
                wire::CMD_FLUSH => b.flush(),
                wire::CMD_TRIM => b.discard(offset, len),
                wire::CMD_WRITE_ZEROES => b.write_zeroes(offset, len, flags & wire::CMD_FLAG_NO_HOLE == 0),
                // Nothing is ahead of a cache of the host.
                wire::CMD_CACHE => Ok(()),
                wire::CMD_BLOCK_STATUS if session.context && len > 0 => {
                    chunk = wire::CHUNK_BLOCK_STATUS;
                    statuses(&**b, offset, len, flags & wire::CMD_FLAG_REQ_ONE != 0).map(|bytes| out = bytes)
                }
                _ => Err(io::ErrorKind::InvalidInput.into()),
            }
            .and_then(|()| if writes && flags & wire::CMD_FLAG_FUA != 0 { b.flush() } else { Ok(()) })
        };
        let mut message = Vec::with_capacity(32 + out.len());
        let structured = session.structured && matches!(command, wire::CMD_READ | wire::CMD_BLOCK_STATUS);
        if structured {
            let mut body = out;
            if let Err(e) = &result {
                chunk = wire::CHUNK_ERROR | 1;
                body = code_of(e).to_be_bytes().to_vec();
                body.extend_from_slice(&0u16.to_be_bytes());
            }
            message.extend_from_slice(&wire::STRUCTURED_REPLY.to_be_bytes());
            message.extend_from_slice(&wire::CHUNK_DONE.to_be_bytes());
            message.extend_from_slice(&chunk.to_be_bytes());
            message.extend_from_slice(&cookie.to_be_bytes());
            message.extend_from_slice(&(body.len() as u32).to_be_bytes());
            message.extend_from_slice(&body);
        } else {
            message.extend_from_slice(&wire::SIMPLE_REPLY.to_be_bytes());
            message.extend_from_slice(&result.as_ref().err().map_or(0, code_of).to_be_bytes());
            message.extend_from_slice(&cookie.to_be_bytes());
            if result.is_ok() {
                message.extend_from_slice(&out);
            }
        }
        s.write_all(&message)?;
    }
}

/// The body of an answer about `len` bytes: the context, and extents.
fn statuses(b: &dyn BlockBackend, offset: u64, len: u64, one: bool) -> io::Result<Vec<u8>> {
    let mut body = 1u32.to_be_bytes().to_vec();
    let mut done = 0;
    for _ in 0..if one { 1 } else { 1024 } {
        if done >= len {
            break;
        }
        let e = crate::image::status(b, offset + done, len - done)?;
        let state = match e.kind {
            ExtentKind::Data => 0,
            _ => wire::STATE_HOLE | wire::STATE_ZERO,
        };
        body.extend_from_slice(&(e.len as u32).to_be_bytes());
        body.extend_from_slice(&state.to_be_bytes());
        done += e.len;
    }
    Ok(body)
}
