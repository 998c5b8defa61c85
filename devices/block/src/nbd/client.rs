//! The client: a node whose storage another process has.

use super::{Stream, protocol, wire};
use crate::segment::{length, load_at, store_at, total};
use crate::{BlockBackend, Extent, ExtentKind, Geometry, NodeOptions, NodeRef, Segment};
use parking_lot::Mutex;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Connections to a server that allows several.
const CONNECTIONS: usize = 4;
/// The server must answer the first questions within this.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// And a request within this.
const REQUEST: Duration = Duration::from_secs(120);

#[derive(Clone)]
enum Server {
    Tcp(String, u16),
    Unix(String),
}

/// What the server says about the export.
#[derive(Clone, Copy, Default)]
struct Export {
    size: u64,
    flags: u16,
    block: u32,
    structured: bool,
    context: Option<u32>,
}

struct Connection {
    stream: Stream,
    cookie: u64,
}

/// A node of a server.
pub struct NbdClient {
    server: Server,
    name: String,
    filename: String,
    readonly: bool,
    export: Export,
    pool: Vec<Mutex<Option<Connection>>>,
    next: AtomicU64,
}

fn error_of(code: u32) -> io::Error {
    match code {
        1 => io::ErrorKind::PermissionDenied.into(),
        12 => io::Error::from_raw_os_error(libc::ENOMEM),
        22 => io::ErrorKind::InvalidInput.into(),
        28 => io::ErrorKind::StorageFull.into(),
        95 => io::ErrorKind::Unsupported.into(),
        108 => io::ErrorKind::NotConnected.into(),
        _ => io::Error::from_raw_os_error(libc::EIO),
    }
}

fn option(s: &mut Stream, option: u32, data: &[u8]) -> io::Result<()> {
    let mut message = wire::OPTION.to_be_bytes().to_vec();
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    s.write_all(&message)
}

fn option_reply(s: &mut Stream, option: u32) -> io::Result<(u32, Vec<u8>)> {
    if s.u64()? != wire::OPTION_REPLY || s.u32()? != option {
        return Err(protocol("the server's answer makes no sense"));
    }
    let kind = s.u32()?;
    let len = s.u32()?;
    if len > wire::MAX_DATA {
        return Err(protocol("the server's answer is too long"));
    }
    Ok((kind, s.bytes(len as usize)?))
}

impl Server {
    fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(host, port) => {
                let s = TcpStream::connect((host.as_str(), *port))?;
                s.set_nodelay(true)?;
                Stream::Tcp(s)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        })
    }
}

fn handshake(s: &mut Stream, name: &str) -> io::Result<Export> {
    if s.u64()? != wire::INIT {
        return Err(protocol("this is no NBD server"));
    }
    if s.u64()? != wire::OPTION {
        return Err(protocol("the server speaks only the old protocol"));
    }
    let flags = s.u16()?;
    if flags & wire::FLAG_FIXED_NEWSTYLE == 0 {
        return Err(protocol("the server does not speak the fixed newstyle protocol"));
    }
    let ours = flags & (wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
    s.write_all(&u32::from(ours).to_be_bytes())?;
    let mut export = Export::default();
    option(s, wire::OPT_STRUCTURED_REPLY, &[])?;
    let (kind, _) = option_reply(s, wire::OPT_STRUCTURED_REPLY)?;
    if kind == wire::REP_ERR_POLICY || kind == (wire::REP_ERR | 5) {
        return Err(protocol("the server wants TLS, which is not supported"));
    }
    export.structured = kind == wire::REP_ACK;
    let mut named = (name.len() as u32).to_be_bytes().to_vec();
    named.extend_from_slice(name.as_bytes());
    if export.structured {
        let mut data = named.clone();
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&(wire::BASE_ALLOCATION.len() as u32).to_be_bytes());
        data.extend_from_slice(wire::BASE_ALLOCATION.as_bytes());
        option(s, wire::OPT_SET_META_CONTEXT, &data)?;
        loop {
            let (kind, data) = option_reply(s, wire::OPT_SET_META_CONTEXT)?;
            match kind {
                wire::REP_META_CONTEXT if data.len() >= 4 && &data[4..] == wire::BASE_ALLOCATION.as_bytes() => {
                    export.context = Some(u32::from_be_bytes([data[0], data[1], data[2], data[3]]));
                }
                wire::REP_META_CONTEXT => {}
                _ => break,
            }
        }
    }
    let mut data = named;
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend_from_slice(&wire::INFO_BLOCK_SIZE.to_be_bytes());
    option(s, wire::OPT_GO, &data)?;
    let mut known = false;
    loop {
        let (kind, data) = option_reply(s, wire::OPT_GO)?;
        match kind {
            wire::REP_ACK if known => return Ok(export),
            wire::REP_ACK => return Err(protocol("the server tells no size")),
            wire::REP_INFO if data.len() >= 2 => match (u16::from_be_bytes([data[0], data[1]]), data.len()) {
                (wire::INFO_EXPORT, 12) => {
                    export.size =
                        u64::from_be_bytes([data[2], data[3], data[4], data[5], data[6], data[7], data[8], data[9]]);
                    export.flags = u16::from_be_bytes([data[10], data[11]]);
                    known = true;
                }
                (wire::INFO_BLOCK_SIZE, 14) => {
                    export.block = u32::from_be_bytes([data[2], data[3], data[4], data[5]]);
                }
                _ => {}
            },
            wire::REP_INFO => {}
            wire::REP_ERR_UNKNOWN => return Err(protocol(format!("the server has no export '{name}'"))),
            wire::REP_ERR_UNSUP => {
                // An old server: it has only the option without an answer.
                option(s, wire::OPT_EXPORT_NAME, name.as_bytes())?;
                export.size = s.u64()?;
                export.flags = s.u16()?;
                if ours & wire::FLAG_NO_ZEROES == 0 {
                    s.skip(124)?;
                }
                return Ok(export);
            }
            _ => {
                let text: String =
                    String::from_utf8_lossy(&data).chars().filter(|c| !c.is_control()).take(200).collect();
                return Err(protocol(format!("the server refuses export '{name}': {text}")));
            }
        }
    }
}

impl NbdClient {
    /// Connects to what the options describe.
    ///
    /// # Errors
    /// One line.
    pub fn open(mut o: NodeOptions, readonly: bool) -> Result<Arc<Self>, String> {
        let server = match o.take_node("server")? {
            Some(NodeRef::Options(mut s)) => {
                let server = match s.take_choice("type", &["inet", "unix"])? {
                    Some("unix") => Server::Unix(s.need_text("path")?),
                    _ => {
                        let port = s.need_text("port")?;
                        let number = port.parse().map_err(|_| format!("'{port}' is not the number of a port"))?;
                        Server::Tcp(s.need_text("host")?, number)
                    }
                };
                s.finish("nbd")?;
                server
            }
            Some(_) => return Err("'server' must have a type".to_owned()),
            None => match (o.take_text("path")?, o.take_text("host")?) {
                (Some(path), None) => Server::Unix(path),
                (None, Some(host)) => {
                    let port = o.take_text("port")?.unwrap_or_else(|| "10809".to_owned());
                    Server::Tcp(host, port.parse().map_err(|_| format!("'{port}' is not the number of a port"))?)
                }
                _ => return Err("'server' is missing: where the NBD server is".to_owned()),
            },
        };
        let name = o.take_text("export")?.unwrap_or_default();
        if o.take_text("tls-creds")?.is_some() {
            return Err("'tls-creds' is not supported".to_owned());
        }
        // A lost connection is made again at the next request.
        o.take_size("reconnect-delay")?;
        o.take_size("open-timeout")?;
        o.finish("nbd")?;
        let filename = match &server {
            Server::Tcp(host, port) if name.is_empty() => format!("nbd://{host}:{port}"),
            Server::Tcp(host, port) => format!("nbd://{host}:{port}/{name}"),
            Server::Unix(path) => format!("nbd+unix:///{name}?socket={path}"),
        };
        let fail = |e: io::Error| format!("cannot connect to '{filename}': {}", crate::error_text(&e));
        let mut stream = server.connect().map_err(fail)?;
        stream.set_timeout(Some(HANDSHAKE)).map_err(fail)?;
        let export = handshake(&mut stream, &name).map_err(fail)?;
        stream.set_timeout(Some(REQUEST)).map_err(fail)?;
        if export.size > i64::MAX as u64 {
            return Err(format!("'{filename}': the export is too large"));
        }
        if !readonly && export.flags & wire::READ_ONLY != 0 {
            return Err(format!("'{filename}': the export is read-only: use readonly=on"));
        }
        let several = export.flags & wire::CAN_MULTI_CONN != 0;
        let mut pool: Vec<_> = (0..if several { CONNECTIONS } else { 1 }).map(|_| Mutex::new(None)).collect();
        *pool[0].get_mut() = Some(Connection { stream, cookie: 0 });
        Ok(Arc::new(Self { server, name, filename, readonly, export, pool, next: AtomicU64::new(0) }))
    }
    #[must_use]
    pub fn filename(&self) -> &str {
        &self.filename
    }
    /// Runs `exchange` on a connection that nobody uses; once more on a new one if that was lost.
    fn with<T>(&self, mut exchange: impl FnMut(&mut Connection) -> io::Result<Result<T, u32>>) -> io::Result<T> {
        let mut slot = match self.pool.iter().find_map(|c| c.try_lock()) {
            Some(slot) => slot,
            None => {
                let n = self.next.fetch_add(1, Ordering::Relaxed) as usize % self.pool.len();
                self.pool[n].lock()
            }
        };
        for again in [true, false] {
            if slot.is_none() {
                let mut stream = self.server.connect()?;
                stream.set_timeout(Some(HANDSHAKE))?;
                let export = handshake(&mut stream, &self.name)?;
                if export.size != self.export.size || export.structured != self.export.structured {
                    return Err(protocol("the export has changed"));
                }
                stream.set_timeout(Some(REQUEST))?;
                *slot = Some(Connection { stream, cookie: 0 });
            }
            let Some(connection) = slot.as_mut() else { break };
            match exchange(connection) {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(code)) => return Err(error_of(code)),
                Err(e) => {
                    *slot = None;
                    if !again || e.kind() == io::ErrorKind::InvalidData {
                        return Err(e);
                    }
                }
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }
    fn command(&self, command: u16, flags: u16, offset: u64, len: u64, data: &[u8]) -> io::Result<()> {
        self.with(|c| {
            c.request(command, flags, offset, len, data)?;
            c.reply(self.export.structured, &mut |_, _, _| Ok(()))
        })
    }
    fn fits(&self, flag: u16) -> bool {
        self.export.flags & flag != 0
    }
    /// Splits what is longer than one request can be.
    fn split(
        &self,
        offset: u64,
        len: u64,
        max: u64,
        mut each: impl FnMut(u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(max);
            each(offset + done, n)?;
            done += n;
        }
        Ok(())
    }
    fn check_writable(&self) -> io::Result<()> {
        if self.readonly { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl Connection {
    fn request(&mut self, command: u16, flags: u16, offset: u64, len: u64, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut message = Vec::with_capacity(28 + data.len());
        message.extend_from_slice(&wire::REQUEST.to_be_bytes());
        message.extend_from_slice(&flags.to_be_bytes());
        message.extend_from_slice(&command.to_be_bytes());
        message.extend_from_slice(&self.cookie.to_be_bytes());
        message.extend_from_slice(&offset.to_be_bytes());
        message.extend_from_slice(&(len as u32).to_be_bytes());
        message.extend_from_slice(data);
        self.stream.write_all(&message)
    }
    /// Reads a reply without data, or one in chunks: `chunk` gets kind, length and the stream, and reads all of it.
    fn reply(
        &mut self,
        structured: bool,
        chunk: &mut dyn FnMut(u16, u32, &mut Stream) -> io::Result<()>,
    ) -> io::Result<Result<(), u32>> {
        let mut result = Ok(());
        loop {
            match self.stream.u32()? {
                wire::SIMPLE_REPLY => {
                    let code = self.stream.u32()?;
                    if self.stream.u64()? != self.cookie {
                        return Err(protocol("an answer to another request"));
                    }
                    if code == 0 {
                        chunk(wire::CHUNK_NONE, 0, &mut self.stream)?;
                    }
                    return Ok(if code == 0 { Ok(()) } else { Err(code) });
                }
                wire::STRUCTURED_REPLY if structured => {
                    let (flags, kind) = (self.stream.u16()?, self.stream.u16()?);
                    if self.stream.u64()? != self.cookie {
                        return Err(protocol("an answer to another request"));
                    }
                    let len = self.stream.u32()?;
                    if len > wire::MAX_DATA + 16 {
                        return Err(protocol("a chunk is too long"));
                    }
                    match kind {
                        wire::CHUNK_NONE => self.stream.skip(len.into())?,
                        k if k & wire::CHUNK_ERROR != 0 => {
                            if len < 6 {
                                return Err(protocol("an error is truncated"));
                            }
                            result = Err(self.stream.u32()?);
                            self.stream.skip(u64::from(len) - 4)?;
                        }
                        k => chunk(k, len, &mut self.stream)?,
                    }
                    if flags & wire::CHUNK_DONE != 0 {
                        return Ok(result);
                    }
                }
                _ => return Err(protocol("the server's answer makes no sense")),
            }
        }
    }
}

impl BlockBackend for NbdClient {
    fn capacity(&self) -> u64 {
        self.export.size
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.read_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        let mut data = vec![0; length(len)?];
        self.read_bytes(offset, &mut data)?;
        store_at(segments, skip, &data)
    }
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        for part in data.chunks_mut(wire::MAX_DATA as usize) {
            let len = part.len() as u64;
            self.with(|c| {
                c.request(wire::CMD_READ, 0, at, len, &[])?;
                let mut filled = 0;
                let reply = c.reply(self.export.structured, &mut |kind, n, s| {
                    use std::io::Read;
                    let place = |s: &mut Stream, len: u64| -> io::Result<std::ops::Range<usize>> {
                        let from = s
                            .u64()?
                            .checked_sub(at)
                            .filter(|f| f.checked_add(len).is_some_and(|e| e <= part.len() as u64));
                        let from = from.ok_or_else(|| protocol("data outside the request"))? as usize;
                        Ok(from..from + len as usize)
                    };
                    match kind {
                        wire::CHUNK_NONE => {
                            s.read_exact(part)?;
                            filled += len;
                        }
                        wire::CHUNK_OFFSET_DATA if n >= 8 => {
                            let range = place(s, u64::from(n) - 8)?;
                            filled += range.len() as u64;
                            s.read_exact(&mut part[range])?;
                        }
                        wire::CHUNK_OFFSET_HOLE if n == 12 => {
                            // The length follows the offset.
                            let from = s.u64()?;
                            let len = u64::from(s.u32()?);
                            let start = from.checked_sub(at).filter(|f| f + len <= part.len() as u64);
                            let start = start.ok_or_else(|| protocol("a hole outside the request"))? as usize;
                            part[start..start + len as usize].fill(0);
                            filled += len;
                        }
                        _ => return Err(protocol("an unknown chunk")),
                    }
                    Ok(())
                })?;
                if reply.is_ok() && filled != len {
                    return Err(protocol("the data is incomplete"));
                }
                Ok(reply)
            })?;
            at += len;
        }
        Ok(())
    }
    fn write(&self, offset: u64, segments: &[Segment]) -> io::Result<()> {
        self.write_part(offset, segments, 0, total(segments))
    }
    fn write_part(&self, offset: u64, segments: &[Segment], skip: u64, len: u64) -> io::Result<()> {
        let mut data = vec![0; length(len)?];
        load_at(segments, skip, &mut data)?;
        self.write_bytes(offset, &data)
    }
    fn write_bytes(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let mut at = offset;
        for part in data.chunks(wire::MAX_DATA as usize) {
            self.command(wire::CMD_WRITE, 0, at, part.len() as u64, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        if self.readonly || !self.fits(wire::SEND_FLUSH) {
            return Ok(());
        }
        self.command(wire::CMD_FLUSH, 0, 0, 0, &[])
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if !self.fits(wire::SEND_TRIM) {
            return Ok(());
        }
        self.split(offset, len, 1 << 30, |at, n| self.command(wire::CMD_TRIM, 0, at, n, &[]))
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.check_writable()?;
        if !self.fits(wire::SEND_WRITE_ZEROES) {
            return self.split(offset, len, 1 << 20, |at, n| self.write_bytes(at, &vec![0; n as usize]));
        }
        let flags = if may_unmap { 0 } else { wire::CMD_FLAG_NO_HOLE };
        self.split(offset, len, 1 << 30, |at, n| self.command(wire::CMD_WRITE_ZEROES, flags, at, n, &[]))
    }
    fn readonly(&self) -> bool {
        self.readonly
    }
    fn geometry(&self) -> Geometry {
        let block = if self.export.block.is_power_of_two() { self.export.block.clamp(512, 1 << 20) } else { 512 };
        Geometry { logical_block: block, physical_block: block, optimal_io: 0 }
    }
    fn description(&self) -> String {
        self.filename.clone()
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let Some(context) = self.export.context else { return Ok(Extent::data(len)) };
        let len = len.min(1 << 30);
        let mut found = None;
        self.with(|c| {
            c.request(wire::CMD_BLOCK_STATUS, wire::CMD_FLAG_REQ_ONE, offset, len, &[])?;
            c.reply(true, &mut |kind, n, s| {
                if kind != wire::CHUNK_BLOCK_STATUS || n < 12 {
                    return Err(protocol("an unknown chunk"));
                }
                if s.u32()? == context {
                    found = Some((u64::from(s.u32()?), s.u32()?));
                    s.skip(u64::from(n) - 12)
                } else {
                    s.skip(u64::from(n) - 4)
                }
            })
        })?;
        match found {
            Some((n, flags)) if n > 0 => {
                let kind = if flags & wire::STATE_ZERO != 0 { ExtentKind::Zero } else { ExtentKind::Data };
                Ok(Extent { len: n.min(len), kind, host: Some(offset), compressed: false })
            }
            _ => Ok(Extent::data(len)),
        }
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        for slot in &mut self.pool {
            if let Some(c) = slot.get_mut() {
                // The server sees the connection end in any case.
                let _ = c.request(wire::CMD_DISC, 0, 0, 0, &[]);
            }
        }
    }
}
