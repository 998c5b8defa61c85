//! The form of a saved machine: a head, then sections, each with its kind, its name, a version and a checksum; the last one says how many
//! there were. Numbers are little-endian.
//!
//! ```text
//! head:    "RHEA-VM\n", version of the form (u32), CRC-32 of these
//! section: kind (u8), compression (u8: 0 none, 1 zstd), length of the name (u16), version of the content (u32),
//!          length of the content as it is here (u32) and as it was (u32), name, content, CRC-32 of all of it
//! ```

use std::io::{self, Read, Write};
use thiserror::Error;

/// Why a machine was not saved, moved or restored: one line.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("{0}")]
    Io(io::Error),
    #[error("the stream ends in {0}")]
    Truncated(String),
    #[error("this is no saved machine")]
    Magic,
    #[error("the stream has version {0} of the form: this emulator reads {VERSION}")]
    Version(u32),
    /// Section and what is wrong with it.
    #[error("{0}: {1}")]
    Section(String, String),
    /// The machine is configured in another way: what differs, what was saved, what is here.
    #[error("{0}: the saved machine has {1}, this one {2}")]
    Differs(String, String, String),
    #[error("State blocked by {0}")]
    Blocked(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

pub(super) type Result<T> = std::result::Result<T, StateError>;

impl From<io::Error> for StateError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated("the middle".to_owned()),
            _ => Self::Io(e),
        }
    }
}

const MAGIC: [u8; 8] = *b"RHEA-VM\n";
const VERSION: u32 = 1;
const HEAD: usize = 16;
const SECTION: usize = 16;
/// Bytes of a section's content.
pub const MAX_CONTENT: u32 = 256 << 20;
/// Content is read in pieces: who says it is long has to send it.
const PIECE: usize = 256 << 10;
const ZSTD: u8 = 1;

/// What a section is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// How the machine is configured, and its RAM.
    Machine = 1,
    /// Pages of RAM of the block that is the section's name.
    Pages = 2,
    /// Data that a device has sent while the guest ran.
    Data = 3,
    Clock = 4,
    Device = 5,
    Cpu = 6,
    End = 7,
    /// All pages of a round have been sent, where they go by several channels.
    Round = 8,
    /// Which pages of the block that is the section's name come behind the machine: post-copy.
    Missing = 9,
    /// The machine is the destination's from here on.
    Go = 10,
    /// A move goes on by another connection.
    Resume = 11,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::{Clock, Cpu, Data, Device, End, Go, Machine, Missing, Pages, Resume, Round};
        [Machine, Pages, Data, Clock, Device, Cpu, End, Round, Missing, Go, Resume]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
    fn word(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Pages => "memory",
            Self::Data => "data of device",
            Self::Clock => "clock",
            Self::Device => "device",
            Self::Cpu => "CPU",
            Self::End => "end",
            Self::Round => "round",
            Self::Missing => "missing memory",
            Self::Go => "go",
            Self::Resume => "resume",
        }
    }
}

/// A section that was read.
#[derive(Debug)]
pub struct Section {
    pub kind: Kind,
    pub name: String,
    pub version: u32,
    pub data: Vec<u8>,
}

/// How messages call a section.
pub fn title(kind: Kind, name: &str) -> String {
    if name.is_empty() { kind.word().to_owned() } else { format!("{} '{name}'", kind.word()) }
}

impl Section {
    /// An error in it.
    pub fn error(&self, what: impl std::fmt::Display) -> StateError {
        StateError::Section(title(self.kind, &self.name), what.to_string())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Writes sections.
pub struct Writer<W> {
    to: W,
    sections: u64,
    /// Bytes so far.
    pub written: u64,
    /// Compression of pages: the level of zstd.
    pub zstd: Option<i32>,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    pub fn new(to: W) -> Result<Self> {
        let mut this = Self { to, sections: 0, written: 0, zstd: None };
        let mut head = MAGIC.to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend(crc32fast::hash(&head).to_le_bytes());
        this.put(&head)?;
        Ok(this)
    }
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
    /// Writes a section; `name` has at most 65535 bytes, the content [`MAX_CONTENT`].
    pub fn section(&mut self, kind: Kind, name: &str, version: u32, content: &[u8]) -> Result<()> {
        let compressed = match self.zstd.filter(|_| matches!(kind, Kind::Pages)) {
            Some(level) => Some(zstd::bulk::compress(content, level)?),
            None => None,
        };
        let here = compressed.as_deref().filter(|c| c.len() < content.len());
        let (flag, data) = here.map_or((0, content), |c| (ZSTD, c));
        let fail = |what: &str| StateError::Section(title(kind, name), what.to_owned());
        let name_len = u16::try_from(name.len()).map_err(|_| fail("its name is too long"))?;
        let len =
            u32::try_from(data.len()).ok().filter(|n| *n <= MAX_CONTENT).ok_or_else(|| fail("it is too large"))?;
        let mut head = Vec::with_capacity(SECTION + name.len());
        head.extend([kind as u8, flag]);
        head.extend(name_len.to_le_bytes());
        for n in [version, len, u32::try_from(content.len()).map_err(|_| fail("it is too large"))?] {
            head.extend(n.to_le_bytes());
        }
        head.extend(name.as_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(data);
        self.put(&head)?;
        self.put(data)?;
        self.put(&crc.finalize().to_le_bytes())?;
        self.sections += 1;
        Ok(())
    }
    /// Sends what waits in buffers.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.to.flush()?)
    }
    /// Ends the stream.
    pub fn end(&mut self) -> Result<()> {
        let count = self.sections;
        self.section(Kind::End, "", 1, &count.to_le_bytes())?;
        self.flush()
    }
    /// Ends the stream, and gives what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.end()?;
        Ok(self.to)
    }
}

/// Reads sections.
pub struct Reader<R> {
    from: R,
    sections: u64,
    last: String,
    /// Bytes of a section's content, at most.
    pub limit: u32,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn new(from: R) -> Result<Self> {
        let mut this = Self { from, sections: 0, last: "its head".to_owned(), limit: MAX_CONTENT };
        let mut head = [0; HEAD];
        this.take(&mut head)?;
        if head[..8] != MAGIC || word(&head, 12) != crc32fast::hash(&head[..12]) {
            return Err(StateError::Magic);
        }
        match word(&head, 8) {
            VERSION => Ok(this),
            other => Err(StateError::Version(other)),
        }
    }
    fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => StateError::Truncated(self.last.clone()),
            _ => StateError::Io(e),
        })
    }
    /// The next section; `None`: the stream has come to its end.
    pub fn next(&mut self) -> Result<Option<Section>> {
        let mut head = [0; SECTION];
        self.take(&mut head)?;
        let number = self.sections;
        let fail = |what: &str| StateError::Section(format!("section {number}"), what.to_owned());
        let kind = Kind::of(head[0]).ok_or_else(|| fail("its kind is not known"))?;
        let (flag, name_len) = (head[1], usize::from(u16::from_le_bytes([head[2], head[3]])));
        let (version, len, was) = (word(&head, 4), word(&head, 8), word(&head, 12));
        if flag > ZSTD || len > self.limit || was > self.limit || flag == 0 && len != was {
            return Err(fail("its length or compression is impossible"));
        }
        let mut name = vec![0; name_len];
        self.take(&mut name)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&name);
        let name = String::from_utf8(name).map_err(|_| fail("its name is no text"))?;
        self.last = title(kind, &name);
        let mut data = Vec::new();
        while data.len() < len as usize {
            let at = data.len();
            data.resize((len as usize).min(at + PIECE), 0);
            self.take(&mut data[at..])?;
        }
        crc.update(&data);
        let mut sum = [0; 4];
        self.take(&mut sum)?;
        let bad = |what: &str| StateError::Section(title(kind, &name), what.to_owned());
        if crc.finalize() != u32::from_le_bytes(sum) {
            return Err(bad("its checksum is wrong"));
        }
        if flag == ZSTD {
            data = zstd::bulk::decompress(&data, was as usize).map_err(|_| bad("it cannot be unpacked"))?;
            if data.len() != was as usize {
                return Err(bad("it has another length when unpacked"));
            }
        }
        if kind == Kind::End {
            let count = data.try_into().map(u64::from_le_bytes).ok();
            return if count == Some(self.sections) { Ok(None) } else { Err(bad("sections are missing")) };
        }
        self.sections += 1;
        Ok(Some(Section { kind, name, version, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(zstd: Option<i32>) -> Vec<u8> {
        let mut w = Writer::new(Vec::new()).unwrap();
        w.zstd = zstd;
        w.section(Kind::Machine, "", 1, b"what it is").unwrap();
        w.section(Kind::Pages, "ram", 1, &[7; 300]).unwrap();
        w.section(Kind::Device, "uart@1", 3, b"state").unwrap();
        w.finish().unwrap()
    }
    fn read(bytes: &[u8]) -> Result<Vec<Section>> {
        let mut r = Reader::new(bytes)?;
        let mut all = Vec::new();
        while let Some(s) = r.next()? {
            all.push(s);
        }
        Ok(all)
    }

    #[test]
    fn what_was_written_is_read() {
        let plain = stream(None);
        let packed = stream(Some(1));
        assert!(packed.len() + 200 < plain.len());
        for bytes in [plain, packed] {
            let all = read(&bytes).unwrap();
            assert_eq!(all.len(), 3);
            assert_eq!(
                (all[1].kind, all[1].name.as_str(), all[1].data.as_slice()),
                (Kind::Pages, "ram", &[7; 300][..])
            );
            assert_eq!((all[2].version, all[2].data.as_slice()), (3, &b"state"[..]));
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        for bytes in [stream(None), stream(Some(1))] {
            for len in 0..bytes.len() {
                let e = read(&bytes[..len]).unwrap_err();
                assert!(matches!(e, StateError::Truncated(_)), "{len}: {e}");
                assert!(!e.to_string().contains('\n'));
            }
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bad = bytes.clone();
                    bad[at] ^= 1 << bit;
                    assert!(read(&bad).is_err(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn errors_name_the_section() {
        let bytes = stream(None);
        let mut bad = bytes.clone();
        let at = bytes.windows(5).position(|w| w == b"state").unwrap();
        bad[at] ^= 1;
        assert_eq!(read(&bad).unwrap_err().to_string(), "device 'uart@1': its checksum is wrong");
        assert_eq!(read(&bytes[..at + 2]).unwrap_err().to_string(), "the stream ends in device 'uart@1'");
        assert!(matches!(read(b"GIF89a, and so on and on"), Err(StateError::Magic)));
        // A section that claims to be long is not believed before it comes.
        let mut long = bytes[..16].to_vec();
        long.extend([5, 0, 0, 0, 1, 0, 0, 0]);
        long.extend(MAX_CONTENT.to_le_bytes());
        long.extend(MAX_CONTENT.to_le_bytes());
        assert!(matches!(read(&long), Err(StateError::Truncated(_))));
        long[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&long).unwrap_err().to_string().contains("impossible"));
    }
}
