//! The TFTP server (RFC 1350): reading files of one folder, with block size and file size negotiated (RFC 2347 to 2349).
//!
//! It keeps no timers: a client that misses a block repeats its acknowledgment, which is answered again.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

pub(super) const PORT: u16 = 69;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OPTION_ACK: u16 = 6;

const NOT_DEFINED: u16 = 0;
const NOT_FOUND: u16 = 1;
const ACCESS: u16 = 2;
const ILLEGAL: u16 = 4;
const UNKNOWN: u16 = 5;

/// Files being read at once; the one read longest ago makes room.
const SESSIONS: usize = 32;
const BLOCK: usize = 512;
/// What fits into an Ethernet frame with the headers of IPv4, UDP and TFTP.
const LARGEST: usize = 1428;

struct Session {
    client: (Ipv4Addr, u16),
    file: File,
    size: u64,
    block: usize,
    /// Blocks acknowledged; the number on the wire is its low half.
    done: u64,
}

/// The server's folder, if it has one, and the files being read, the latest at the end.
pub(super) struct Server {
    root: Option<PathBuf>,
    sessions: Vec<Session>,
}

fn error(code: u16, text: &str) -> Vec<u8> {
    let mut p = ERROR.to_be_bytes().to_vec();
    p.extend(code.to_be_bytes());
    p.extend(text.as_bytes());
    p.push(0);
    p
}

/// The zero-terminated texts of a request.
fn texts(data: &[u8]) -> Option<Vec<&str>> {
    let body = data.strip_suffix(&[0])?;
    body.split(|b| *b == 0).map(|t| std::str::from_utf8(t).ok()).collect()
}

impl Session {
    /// Block number `n`, from 1; after the last one there is none.
    fn data(&self, n: u64) -> Option<Vec<u8>> {
        let at = (n - 1).checked_mul(self.block as u64)?;
        if at > self.size {
            return None;
        }
        let len = (self.size - at).min(self.block as u64) as usize;
        let mut p = vec![0; 4 + len];
        p[..2].copy_from_slice(&DATA.to_be_bytes());
        p[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        match self.file.read_exact_at(&mut p[4..], at) {
            Ok(()) => Some(p),
            // The file has shrunk meanwhile, or the disk is bad.
            Err(_) => Some(error(NOT_DEFINED, "the file cannot be read")),
        }
    }
}

impl Server {
    pub(super) fn new(root: Option<&Path>) -> Self {
        Self { root: root.map(Path::to_owned), sessions: Vec::new() }
    }

    /// A file of the folder; links may not lead out of it.
    fn open(root: &Path, name: &str) -> Option<(File, u64)> {
        let inside = Path::new(name.trim_start_matches(['/', '\\']));
        if !inside.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let path = root.join(inside).canonicalize().ok()?;
        if !path.starts_with(root.canonicalize().ok()?) || !path.is_file() {
            return None;
        }
        let file = File::open(path).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    fn read(&mut self, client: (Ipv4Addr, u16), request: &[u8]) -> Vec<u8> {
        let Some(texts) = texts(request).filter(|t| t.len() >= 2) else {
            return error(ILLEGAL, "malformed request");
        };
        if !texts[1].eq_ignore_ascii_case("octet") {
            return error(ILLEGAL, "only octet mode is there");
        }
        // A client that got no answer would ask for a minute.
        let Some(root) = &self.root else {
            return error(ACCESS, "nothing is served");
        };
        let Some((file, size)) = Self::open(root, texts[0]) else {
            return error(NOT_FOUND, "no such file");
        };
        let mut session = Session { client, file, size, block: BLOCK, done: 0 };
        let mut agreed = OPTION_ACK.to_be_bytes().to_vec();
        let mut agree = |name: &str, value: u64| {
            for text in [name, &value.to_string()] {
                agreed.extend(text.as_bytes());
                agreed.push(0);
            }
        };
        for option in texts[2..].chunks_exact(2) {
            let value = option[1].parse::<u64>().ok();
            match (option[0].to_ascii_lowercase().as_str(), value) {
                ("blksize", Some(n)) if n >= 8 => {
                    session.block = n.min(LARGEST as u64) as usize;
                    agree("blksize", session.block as u64);
                }
                ("tsize", Some(_)) => agree("tsize", size),
                ("timeout", Some(n)) if (1..=255).contains(&n) => agree("timeout", n),
                // Options that are not agreed to are not there.
                _ => (),
            }
        }
        self.sessions.retain(|s| s.client != client);
        if self.sessions.len() >= SESSIONS {
            self.sessions.remove(0);
        }
        let answer = if agreed.len() > 2 { Some(agreed) } else { session.data(1) };
        self.sessions.push(session);
        answer.unwrap_or_else(|| error(NOT_DEFINED, "the file cannot be read"))
    }

    /// Answers a datagram of a client; `None`: no answer.
    pub(super) fn answer(&mut self, client: (Ipv4Addr, u16), data: &[u8]) -> Option<Vec<u8>> {
        let (operation, rest) = data.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*operation) {
            READ => Some(self.read(client, rest)),
            WRITE => Some(error(ACCESS, "files can only be read")),
            ACK => {
                let n = u16::from_be_bytes(*rest.first_chunk()?);
                let Some(at) = self.sessions.iter().position(|s| s.client == client) else {
                    return Some(error(UNKNOWN, "no transfer is going on"));
                };
                let mut session = self.sessions.remove(at);
                // The acknowledgment of the last block sent, or of the one before, repeated.
                let ahead = n.wrapping_sub(session.done as u16);
                if ahead <= 1 {
                    session.done += u64::from(ahead);
                }
                let next = if ahead <= 1 { session.data(session.done + 1) } else { None };
                // After the last block the session ends.
                if ahead > 1 || next.is_some() {
                    self.sessions.push(session);
                }
                next
            }
            ERROR => {
                self.sessions.retain(|s| s.client != client);
                None
            }
            _ => Some(error(ILLEGAL, "unknown operation")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 2, 15), 2000);

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rhea-tftp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        dir
    }
    fn request(texts: &[&str]) -> Vec<u8> {
        let mut p = READ.to_be_bytes().to_vec();
        for t in texts {
            p.extend(t.as_bytes());
            p.push(0);
        }
        p
    }
    fn ack(n: u16) -> Vec<u8> {
        [ACK.to_be_bytes(), n.to_be_bytes()].concat()
    }
    /// Reads a whole file, with every acknowledgment sent twice.
    fn fetch(server: &mut Server, texts: &[&str]) -> Vec<u8> {
        let mut answer = server.answer(CLIENT, &request(texts)).unwrap();
        if answer[..2] == OPTION_ACK.to_be_bytes() {
            answer = server.answer(CLIENT, &ack(0)).unwrap();
        }
        let mut whole = Vec::new();
        let mut n = 1u16;
        loop {
            assert_eq!(answer[..4], [DATA.to_be_bytes(), n.to_be_bytes()].concat()[..], "{answer:?}");
            whole.extend(&answer[4..]);
            match server.answer(CLIENT, &ack(n)) {
                Some(next) => {
                    assert_eq!(server.answer(CLIENT, &ack(n)).as_ref(), Some(&next), "a repeated acknowledgment");
                    answer = next;
                }
                None => return whole,
            }
            n = n.wrapping_add(1);
        }
    }

    #[test]
    fn files_of_any_length() {
        let dir = folder("length");
        let mut server = Server::new(Some(&dir));
        // The longest has more blocks than a block number counts.
        for len in [0usize, 1, 511, 512, 513, 1024, 70_000 * 8 + 3] {
            let content: Vec<u8> = (0..len).map(|n| (n * 7 >> 3) as u8).collect();
            std::fs::write(dir.join("sub/f"), &content).unwrap();
            let small = if len > 2000 { "8" } else { "600" };
            assert_eq!(fetch(&mut server, &["/sub/f", "octet", "BLKSIZE", small, "tsize", "0"]), content);
            if len < 2000 {
                assert_eq!(fetch(&mut server, &["sub/f", "OCTET"]), content);
            }
        }
        let agreed = server.answer(CLIENT, &request(&["sub/f", "octet", "blksize", "65464", "tsize", "0", "x", "1"]));
        assert_eq!(
            agreed.unwrap(),
            [&OPTION_ACK.to_be_bytes()[..], b"blksize\x001428\x00tsize\x00560003\x00"].concat()
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_not_served() {
        let dir = folder("refuse");
        std::fs::write(dir.join("f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("sub/out")).unwrap();
        let mut server = Server::new(Some(&dir));
        let mut code = |data: &[u8]| server.answer(CLIENT, data).map(|a| (a[1], a[3]));
        for name in ["../f", "sub/../../f", "sub/out", "sub", "missing", "", "/etc/passwd"] {
            assert_eq!(code(&request(&[name, "octet"])), Some((5, 1)), "{name}");
        }
        assert_eq!(code(&request(&["f", "mail"])), Some((5, 4)));
        assert_eq!(code(&[0, 1, b'f']), Some((5, 4)));
        assert_eq!(code(&[0, 2, b'f', 0]), Some((5, 2)));
        assert_eq!(code(&ack(1)), Some((5, 5)));
        assert_eq!(code(&[0, 9]), Some((5, 4)));
        assert_eq!(code(&[0]), None);
        assert_eq!(code(&[0, 4, 0]), None);
        for n in 0..200u16 {
            let client = (CLIENT.0, n);
            server.answer(client, &request(&["f", "octet"]));
        }
        assert_eq!(server.sessions.len(), SESSIONS);
        std::fs::remove_dir_all(dir).unwrap();

        let answer = Server::new(None).answer(CLIENT, &request(&["f", "octet"]));
        assert_eq!(answer.map(|a| (a[1], a[3])), Some((5, 2)), "no folder: refused at once");
    }
}
