//! Network Block Device: client and server (fixed newstyle protocol).

mod client;
mod exported;
mod server;

pub use client::NbdClient;
pub use exported::Exported;
pub use server::{Address, Export, NbdServer};

use crate::NodeOptions;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

mod wire {
    pub const INIT: u64 = 0x4e42_444d_4147_4943;
    pub const OPTION: u64 = 0x4948_4156_454f_5054;
    pub const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
    pub const REQUEST: u32 = 0x2560_9513;
    pub const SIMPLE_REPLY: u32 = 0x6744_6698;
    pub const STRUCTURED_REPLY: u32 = 0x668e_33ef;

    pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
    pub const FLAG_NO_ZEROES: u16 = 2;

    pub const OPT_EXPORT_NAME: u32 = 1;
    pub const OPT_ABORT: u32 = 2;
    pub const OPT_LIST: u32 = 3;
    pub const OPT_STARTTLS: u32 = 5;
    pub const OPT_INFO: u32 = 6;
    pub const OPT_GO: u32 = 7;
    pub const OPT_STRUCTURED_REPLY: u32 = 8;
    pub const OPT_LIST_META_CONTEXT: u32 = 9;
    pub const OPT_SET_META_CONTEXT: u32 = 10;

    pub const REP_ACK: u32 = 1;
    pub const REP_SERVER: u32 = 2;
    pub const REP_INFO: u32 = 3;
    pub const REP_META_CONTEXT: u32 = 4;
    pub const REP_ERR: u32 = 1 << 31;
    pub const REP_ERR_UNSUP: u32 = REP_ERR | 1;
    pub const REP_ERR_POLICY: u32 = REP_ERR | 2;
    pub const REP_ERR_INVALID: u32 = REP_ERR | 3;
    pub const REP_ERR_UNKNOWN: u32 = REP_ERR | 6;

    pub const INFO_EXPORT: u16 = 0;
    pub const INFO_BLOCK_SIZE: u16 = 3;

    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;

    pub const CMD_READ: u16 = 0;
    pub const CMD_WRITE: u16 = 1;
    pub const CMD_DISC: u16 = 2;
    pub const CMD_FLUSH: u16 = 3;
    pub const CMD_TRIM: u16 = 4;
    pub const CMD_CACHE: u16 = 5;
    pub const CMD_WRITE_ZEROES: u16 = 6;
    pub const CMD_BLOCK_STATUS: u16 = 7;

    pub const CMD_FLAG_FUA: u16 = 1;
    pub const CMD_FLAG_NO_HOLE: u16 = 2;
    pub const CMD_FLAG_REQ_ONE: u16 = 8;

    pub const CHUNK_DONE: u16 = 1;
    pub const CHUNK_NONE: u16 = 0;
    pub const CHUNK_OFFSET_DATA: u16 = 1;
    pub const CHUNK_OFFSET_HOLE: u16 = 2;
    pub const CHUNK_BLOCK_STATUS: u16 = 5;
    pub const CHUNK_ERROR: u16 = 1 << 15;

    pub const STATE_HOLE: u32 = 1;
    pub const STATE_ZERO: u32 = 2;

    pub const BASE_ALLOCATION: &str = "base:allocation";
    /// Bytes of data of one request.
    pub const MAX_DATA: u32 = 32 << 20;
    pub const MAX_NAME: usize = 4096;
}

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Self::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
        }
    }
    fn shutdown(&self) {
        // It may be closed already.
        let _ = match self {
            Self::Tcp(s) => s.shutdown(std::net::Shutdown::Both),
            Self::Unix(s) => s.shutdown(std::net::Shutdown::Both),
        };
    }
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Unix(s) => Self::Unix(s.try_clone()?),
        })
    }
    fn u16(&mut self) -> io::Result<u16> {
        let mut b = [0; 2];
        self.read_exact(&mut b)?;
        Ok(u16::from_be_bytes(b))
    }
    fn u32(&mut self) -> io::Result<u32> {
        let mut b = [0; 4];
        self.read_exact(&mut b)?;
        Ok(u32::from_be_bytes(b))
    }
    fn u64(&mut self) -> io::Result<u64> {
        let mut b = [0; 8];
        self.read_exact(&mut b)?;
        Ok(u64::from_be_bytes(b))
    }
    fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut b = vec![0; len];
        self.read_exact(&mut b)?;
        Ok(b)
    }
    fn skip(&mut self, mut len: u64) -> io::Result<()> {
        let mut b = [0; 4096];
        while len > 0 {
            let n = len.min(b.len() as u64) as usize;
            self.read_exact(&mut b[..n])?;
            len -= n as u64;
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn protocol(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("NBD: {}", text.into()))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((b, tail)) = rest.split_first() {
        rest = tail;
        if *b != b'%' {
            bytes.push(*b);
            continue;
        }
        let code = rest.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        bytes.push(code.ok_or_else(|| format!("'{text}': invalid escape"))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("'{text}' is not UTF-8"))
}

/// Options of `nbd:unix:PATH[:exportname=E]`, `nbd:HOST:PORT[:exportname=E]`, `nbd://HOST[:PORT][/E]`,
/// `nbd+unix:///E?socket=PATH`.
pub(crate) fn options_of(name: &str) -> Result<NodeOptions, String> {
    let bad = |right: &str| format!("'{name}': expected {right}");
    let mut o = NodeOptions::default();
    o.default_text("driver", "nbd");
    let mut put = |key: &str, value: &str| o.insert(key, serde_json::Value::String(value.to_owned()));
    if let Some((scheme, rest)) = name.split_once("://") {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        if !export.is_empty() {
            put("export", &unescape(export)?)?;
        }
        match scheme {
            "nbd" | "nbd+tcp" => {
                let (host, port) = match authority.rsplit_once(':') {
                    Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
                    _ => (authority, "10809"),
                };
                let host = host.trim_start_matches('[').trim_end_matches(']');
                put("server.type", "inet")?;
                put("server.host", if host.is_empty() { "localhost" } else { host })?;
                put("server.port", port)?;
            }
            "nbd+unix" => {
                let socket = query.split('&').find_map(|q| q.strip_prefix("socket="));
                put("server.type", "unix")?;
                put("server.path", &unescape(socket.ok_or_else(|| bad("?socket=PATH"))?)?)?;
            }
            other => return Err(format!("'{name}': '{other}' is not supported: use nbd:// or nbd+unix://")),
        }
        return Ok(o);
    }
    let rest = name.strip_prefix("nbd:").ok_or_else(|| bad("nbd:..."))?;
    let (rest, export) = match rest.split_once(":exportname=") {
        Some((rest, export)) => (rest, Some(export)),
        None => (rest, None),
    };
    if let Some(export) = export {
        put("export", export)?;
    }
    if let Some(path) = rest.strip_prefix("unix:") {
        put("server.type", "unix")?;
        put("server.path", path)?;
    } else {
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("nbd:HOST:PORT or nbd:unix:PATH"))?;
        put("server.type", "inet")?;
        put("server.host", host.trim_start_matches('[').trim_end_matches(']'))?;
        put("server.port", port)?;
    }
    Ok(o)
}

#[cfg(test)]
mod tests {
    use super::options_of;

    #[test]
    fn names() {
        let json = |name: &str| options_of(name).map(|o| o.to_json().to_string());
        assert_eq!(
            json("nbd:unix:/a/b:exportname=x").unwrap(),
            r#"{"driver":"nbd","export":"x","server":{"type":"unix","path":"/a/b"}}"#
        );
        assert_eq!(
            json("nbd://[::1]:99/a%20b").unwrap(),
            r#"{"driver":"nbd","export":"a b","server":{"type":"inet","host":"::1","port":"99"}}"#
        );
        assert!(json("nbd://h").unwrap().contains("10809"));
        assert!(json("nbd+unix:///?socket=/s").unwrap().contains("\"/s\""));
        for name in ["nbd:x", "nbd+unix:///e", "nbds://h", "nbd://h/%zz"] {
            assert!(json(name).is_err(), "{name}");
        }
    }
}
