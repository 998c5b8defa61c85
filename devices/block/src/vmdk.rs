//! VMDK images, read only: monolithic sparse and flat, split ones, and stream optimised.

use crate::segment::{store_at, total, zero_range};
use crate::{BlockBackend, Extent, ExtentKind, SECTOR, Segment};
use flate2::{Decompress, FlushDecompress};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// A VMDK image.
pub struct Vmdk {
    file: Arc<dyn BlockBackend>,
    extents: Vec<Part>,
    capacity: u64,
    create_type: String,
}

/// A piece of the disk.
struct Part {
    /// Offset on the disk, and bytes.
    start: u64,
    len: u64,
    kind: PartKind,
}

enum PartKind {
    Zero,
    Flat { file: Arc<dyn BlockBackend>, offset: u64 },
    Sparse(Sparse),
}

/// Grains, found through two levels of tables.
struct Sparse {
    file: Arc<dyn BlockBackend>,
    /// Sectors of grain tables.
    directory: Vec<u32>,
    grain: u64,
    /// Entries of a grain table.
    entries: u64,
    zero_grains: bool,
    compressed: bool,
    /// The grain table, and the unpacked grain, that were used last.
    table: Mutex<Option<(u32, Arc<Vec<u32>>)>>,
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

const MAGIC: &[u8] = b"KDMV";
const MAX_DESCRIPTOR: u64 = 1 << 20;
const MAX_PARTS: usize = 1024;

fn le32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
fn le64(b: &[u8], at: usize) -> u64 {
    u64::from(le32(b, at)) | u64::from(le32(b, at + 4)) << 32
}
fn failed(e: &io::Error) -> String {
    format!("cannot read the image: {}", crate::error_text(e))
}

impl Sparse {
    /// Opens; with the bytes of the disk and the descriptor inside.
    fn open(file: Arc<dyn BlockBackend>) -> Result<(Self, u64, String), String> {
        let mut h = [0; SECTOR as usize];
        file.read_bytes(0, &mut h).map_err(|e| failed(&e))?;
        if !h.starts_with(MAGIC) {
            return Err("not a sparse VMDK extent".to_owned());
        }
        let len = file.capacity();
        let (descriptor_at, descriptor_len) = (le64(&h, 28), le64(&h, 36));
        if le64(&h, 56) == u64::MAX {
            // The directory was not known yet when the header was written: its copy is at the end.
            let at = len.checked_sub(1024).ok_or("the footer is missing")?;
            file.read_bytes(at, &mut h).map_err(|e| failed(&e))?;
            if !h.starts_with(MAGIC) || le64(&h, 56) == u64::MAX {
                return Err("the footer is invalid".to_owned());
            }
        }
        let (version, flags) = (le32(&h, 4), le32(&h, 8));
        if !(1..=3).contains(&version) {
            return Err(format!("unsupported VMDK version {version}"));
        }
        let (capacity, grain, entries) = (le64(&h, 12), le64(&h, 20), u64::from(le32(&h, 44)));
        if !grain.is_power_of_two() || !(8..=1 << 16).contains(&grain) || !(1..=512).contains(&entries) {
            return Err("invalid grain size or grain table size".to_owned());
        }
        if capacity > 1 << 40 {
            return Err("the disk is too large".to_owned());
        }
        let compressed = flags & 1 << 16 != 0;
        if compressed && u16::from_le_bytes([h[77], h[78]]) != 1 {
            return Err("unknown compression".to_owned());
        }
        // The redundant directory serves as well, but the main one is what writers keep.
        let directory_at = le64(&h, 56).checked_mul(SECTOR).ok_or("invalid grain directory offset")?;
        let count = capacity.div_ceil(grain * entries);
        if directory_at.saturating_add(count * 4) > len {
            return Err("the grain directory lies behind the end of the file".to_owned());
        }
        let mut bytes = vec![0; (count * 4) as usize];
        file.read_bytes(directory_at, &mut bytes).map_err(|e| failed(&e))?;
        let directory = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let mut text = String::new();
        if descriptor_at != 0 {
            text = read_text(&*file, descriptor_at.saturating_mul(SECTOR), descriptor_len.saturating_mul(SECTOR))?;
        }
        let sparse = Self {
            file,
            directory,
            grain: grain * SECTOR,
            entries,
            zero_grains: flags & 4 != 0,
            compressed,
            table: Mutex::new(None),
            unpacked: Mutex::new(None),
        };
        Ok((sparse, capacity * SECTOR, text))
    }
    /// The place of a grain in the file; `None`: it reads as zero.
    fn locate(&self, grain: u64) -> io::Result<Option<u64>> {
        let sector = self.directory.get((grain / self.entries) as usize).copied().unwrap_or(0);
        if sector == 0 {
            return Ok(None);
        }
        let cached = self.table.lock().clone();
        let table = match cached {
            Some((s, table)) if s == sector => table,
            _ => {
                let mut bytes = vec![0; (self.entries * 4) as usize];
                self.file.read_bytes(u64::from(sector) * SECTOR, &mut bytes)?;
                let table: Arc<Vec<u32>> =
                    Arc::new(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect());
                *self.table.lock() = Some((sector, table.clone()));
                table
            }
        };
        Ok(match table[(grain % self.entries) as usize] {
            0 => None,
            1 if self.zero_grains => None,
            n => Some(u64::from(n) * SECTOR),
        })
    }
    fn unpack(&self, at: u64) -> io::Result<Arc<Vec<u8>>> {
        if let Some((key, data)) = &*self.unpacked.lock()
            && *key == at
        {
            return Ok(data.clone());
        }
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "a compressed grain cannot be unpacked");
        let mut marker = [0; 12];
        self.file.read_bytes(at, &mut marker)?;
        let len = u64::from(le32(&marker, 8));
        if len > 2 * self.grain + 1024 {
            return Err(bad());
        }
        let mut packed = vec![0; len as usize];
        self.file.read_bytes(at + 12, &mut packed)?;
        let mut data = vec![0; self.grain as usize];
        let mut inflate = Decompress::new(true);
        inflate.decompress(&packed, &mut data, FlushDecompress::Finish).map_err(|_| bad())?;
        // The last grain may be short.
        if inflate.total_out() == 0 {
            return Err(bad());
        }
        let data = Arc::new(data);
        *self.unpacked.lock() = Some((at, data.clone()));
        Ok(data)
    }
}

fn read_text(file: &dyn BlockBackend, offset: u64, len: u64) -> Result<String, String> {
    if len > MAX_DESCRIPTOR || offset.saturating_add(len) > file.capacity().next_multiple_of(SECTOR) {
        return Err("the descriptor is too large".to_owned());
    }
    let mut bytes = vec![0; len as usize];
    file.read_bytes(offset, &mut bytes).map_err(|e| failed(&e))?;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The value of `key=value` or `key="value"`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (k, v) = line.split_once('=')?;
        k.trim().eq_ignore_ascii_case(key).then(|| v.trim().trim_matches('"'))
    })
}

impl Vmdk {
    /// Opens the image in `file`; `extent` opens the files that a descriptor names.
    ///
    /// # Errors
    /// One line.
    pub fn open(
        file: Arc<dyn BlockBackend>,
        mut extent: impl FnMut(&str) -> Result<Arc<dyn BlockBackend>, String>,
    ) -> Result<Self, String> {
        let mut magic = [0; 4];
        file.read_bytes(0, &mut magic).map_err(|e| failed(&e))?;
        if magic == MAGIC {
            let (sparse, capacity, text) = Sparse::open(file.clone())?;
            check_parent(&text)?;
            let create_type = value(&text, "createType").unwrap_or("monolithicSparse").to_owned();
            let extents = vec![Part { start: 0, len: capacity, kind: PartKind::Sparse(sparse) }];
            return Ok(Self { file, extents, capacity, create_type });
        }
        let text = read_text(&*file, 0, file.capacity().min(MAX_DESCRIPTOR))?;
        check_parent(&text)?;
        let create_type = value(&text, "createType").ok_or("the descriptor has no createType")?.to_owned();
        let mut extents = Vec::new();
        let mut start = 0u64;
        for line in text.lines() {
            let Some((access, rest)) = line.trim().split_once(' ') else { continue };
            if !matches!(access, "RW" | "RDONLY" | "NOACCESS") {
                continue;
            }
            let bad = || format!("invalid extent line '{}'", line.trim());
            if access == "NOACCESS" {
                return Err("an extent may not be accessed".to_owned());
            }
            let mut words = rest.split_whitespace();
            let sectors: u64 = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
            let len = sectors.checked_mul(SECTOR).filter(|l| *l <= 1 << 50).ok_or_else(bad)?;
            let kind = words.next().ok_or_else(bad)?;
            let name = rest.split('"').nth(1);
            let offset = rest.rsplit('"').next().and_then(|w| w.trim().parse::<u64>().ok()).unwrap_or(0);
            let kind = match kind {
                "ZERO" => PartKind::Zero,
                "FLAT" | "VMFS" => {
                    let offset = offset.checked_mul(SECTOR).ok_or_else(bad)?;
                    PartKind::Flat { file: extent(name.ok_or_else(bad)?)?, offset }
                }
                "SPARSE" => {
                    let (sparse, capacity, _) = Sparse::open(extent(name.ok_or_else(bad)?)?)?;
                    if capacity < len {
                        return Err(format!("extent '{}' is smaller than the descriptor says", name.unwrap_or("")));
                    }
                    PartKind::Sparse(sparse)
                }
                other => return Err(format!("extents of type {other} are not supported")),
            };
            extents.push(Part { start, len, kind });
            start = start.checked_add(len).ok_or_else(bad)?;
            if extents.len() > MAX_PARTS {
                return Err("the image has too many extents".to_owned());
            }
        }
        if extents.is_empty() {
            return Err("the descriptor names no extents".to_owned());
        }
        Ok(Self { file, extents, capacity: start, create_type })
    }
    /// `createType` of the descriptor.
    #[must_use]
    pub fn create_type(&self) -> &str {
        &self.create_type
    }
    fn part(&self, offset: u64) -> io::Result<&Part> {
        let n = self.extents.partition_point(|p| p.start + p.len <= offset);
        self.extents.get(n).ok_or_else(crate::out_of_range)
    }
    /// The place of what is at an offset, if it has one as it is, and how much is of that kind.
    fn piece(&self, offset: u64) -> io::Result<(Option<(&Arc<dyn BlockBackend>, u64)>, u64, bool)> {
        let part = self.part(offset)?;
        let (within, left) = (offset - part.start, part.start + part.len - offset);
        Ok(match &part.kind {
            PartKind::Zero => (None, left, false),
            PartKind::Flat { file, offset } => (Some((file, offset + within)), left, false),
            PartKind::Sparse(s) => {
                let at = within % s.grain;
                let place = s.locate(within / s.grain)?;
                let n = left.min(s.grain - at);
                (place.map(|p| (&s.file, if s.compressed { p } else { p + at })), n, s.compressed && place.is_some())
            }
        })
    }
}

fn check_parent(text: &str) -> Result<(), String> {
    match value(text, "parentCID") {
        Some(cid) if !cid.eq_ignore_ascii_case("ffffffff") => {
            Err("VMDK images with a parent are not supported".to_owned())
        }
        _ => Ok(()),
    }
}

fn readonly() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

impl BlockBackend for Vmdk {
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.read_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (place, n, packed) = self.piece(at)?;
            let n = n.min(len - done);
            match place {
                None => zero_range(segments, skip + done, n),
                Some((_, grain)) if packed => {
                    let part = self.part(at)?;
                    let PartKind::Sparse(s) = &part.kind else { return Err(crate::out_of_range()) };
                    let within = ((at - part.start) % s.grain) as usize;
                    store_at(segments, skip + done, &s.unpack(grain)?[within..within + n as usize])?;
                }
                Some((file, at)) => file.read_part(at, segments, skip + done, n)?,
            }
            done += n;
        }
        Ok(())
    }
    fn write(&self, _offset: u64, _segments: &[Segment]) -> io::Result<()> {
        Err(readonly())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(readonly())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> io::Result<()> {
        Err(readonly())
    }
    fn readonly(&self) -> bool {
        true
    }
    fn description(&self) -> String {
        format!("{} (vmdk, read-only)", self.file.description())
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let (place, n, packed) = self.piece(offset)?;
        let kind = if place.is_some() { ExtentKind::Data } else { ExtentKind::Zero };
        let host = place.filter(|(file, _)| !packed && Arc::ptr_eq(file, &self.file)).map(|(_, at)| at);
        Ok(Extent { len: n.min(len), kind, host, compressed: packed })
    }
    fn allocated_size(&self) -> Option<u64> {
        self.file.allocated_size()
    }
    fn cluster_size(&self) -> u64 {
        match self.extents.first().map(|p| &p.kind) {
            Some(PartKind::Sparse(s)) => s.grain,
            _ => 0,
        }
    }
}
