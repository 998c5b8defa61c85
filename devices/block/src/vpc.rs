//! Virtual PC (VHD) images, read only: fixed and dynamic.

use crate::segment::{total, zero_range};
use crate::{BlockBackend, Extent, ExtentKind, SECTOR, Segment};
use std::io;
use std::sync::Arc;

/// A VHD image.
pub struct Vpc {
    file: Arc<dyn BlockBackend>,
    capacity: u64,
    layout: Layout,
}

enum Layout {
    Fixed,
    Dynamic {
        /// Sector of each block in the file; all ones: none.
        blocks: Vec<u32>,
        block_size: u64,
        /// Bytes of the bitmap before the data of a block.
        bitmap: u64,
    },
}

const ABSENT: u32 = u32::MAX;
/// The largest geometry that cylinders, heads and sectors can say.
const MAX_GEOMETRY: u64 = 65535 * 16 * 255;

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}
/// One's complement of the sum of all bytes but those of the checksum.
fn checksum(b: &[u8], field: usize) -> u32 {
    !b.iter().enumerate().filter(|(i, _)| !(field..field + 4).contains(i)).map(|(_, v)| u32::from(*v)).sum::<u32>()
}

impl Vpc {
    /// Opens the image in `file`.
    ///
    /// # Errors
    /// One line.
    pub fn open(file: Arc<dyn BlockBackend>) -> Result<Self, String> {
        let read = |offset: u64, data: &mut [u8]| {
            file.read_bytes(offset, data).map_err(|e| format!("cannot read the image: {}", crate::error_text(&e)))
        };
        let len = file.capacity();
        if len < SECTOR {
            return Err("image is not in vpc format".to_owned());
        }
        let mut footer = [0; SECTOR as usize];
        read(0, &mut footer)?;
        if !footer.starts_with(b"conectix") {
            // A fixed disk has its footer at the end only.
            read(len - SECTOR, &mut footer)?;
            if !footer.starts_with(b"conectix") {
                return Err("image is not in vpc format".to_owned());
            }
        }
        if checksum(&footer, 64) != be32(&footer, 64) {
            return Err("the checksum of the footer is wrong".to_owned());
        }
        let (cylinders, heads, sectors) =
            (u64::from(be32(&footer, 56) >> 16), u64::from(footer[58]), u64::from(footer[59]));
        let geometry = cylinders * heads * sectors;
        let current = be64(&footer, 48);
        // Some creators mean the size in bytes, all others the geometry.
        let by_size =
            [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"].contains(&&[footer[28], footer[29], footer[30], footer[31]]);
        let capacity = if by_size || geometry >= MAX_GEOMETRY || geometry == 0 { current } else { geometry * SECTOR };
        if capacity > 1 << 44 {
            return Err("the disk is larger than the format allows".to_owned());
        }
        let capacity = capacity / SECTOR * SECTOR;
        let layout = match be32(&footer, 60) {
            2 => {
                if capacity > len - SECTOR {
                    return Err("the file is shorter than the disk".to_owned());
                }
                Layout::Fixed
            }
            3 => {
                let at = be64(&footer, 16);
                let mut header = [0; 1024];
                if at.saturating_add(1024) > len {
                    return Err("the header of the dynamic disk lies behind the end of the file".to_owned());
                }
                read(at, &mut header)?;
                if !header.starts_with(b"cxsparse") {
                    return Err("the header of the dynamic disk is invalid".to_owned());
                }
                if checksum(&header, 36) != be32(&header, 36) {
                    return Err("the checksum of the header of the dynamic disk is wrong".to_owned());
                }
                let (table, entries) = (be64(&header, 16), u64::from(be32(&header, 28)));
                let block_size = u64::from(be32(&header, 32));
                if !block_size.is_power_of_two() || !(SECTOR..=256 << 20).contains(&block_size) {
                    return Err(format!("invalid block size {block_size}"));
                }
                if entries < capacity.div_ceil(block_size) {
                    return Err("the block table is too small for the disk".to_owned());
                }
                let used = capacity.div_ceil(block_size);
                if table.saturating_add(used * 4) > len {
                    return Err("the block table lies behind the end of the file".to_owned());
                }
                let mut bytes = vec![0; (used * 4) as usize];
                read(table, &mut bytes)?;
                let blocks = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b)).collect();
                let bitmap = (block_size / SECTOR / 8).next_multiple_of(SECTOR).max(SECTOR);
                Layout::Dynamic { blocks, block_size, bitmap }
            }
            4 => return Err("differencing disks are not supported".to_owned()),
            n => return Err(format!("unknown disk type {n}")),
        };
        Ok(Self { file, capacity, layout })
    }
    /// Where the data at an offset is, and how much follows it there.
    fn locate(&self, offset: u64) -> (Option<u64>, u64) {
        match &self.layout {
            Layout::Fixed => (Some(offset), self.capacity - offset),
            Layout::Dynamic { blocks, block_size, bitmap } => {
                let (n, within) = ((offset / block_size) as usize, offset % block_size);
                let place = match blocks.get(n) {
                    None | Some(&ABSENT) => None,
                    Some(sector) => Some(u64::from(*sector) * SECTOR + bitmap + within),
                };
                (place, block_size - within)
            }
        }
    }
    /// Fixed or dynamic.
    #[must_use]
    pub fn subformat(&self) -> &'static str {
        if matches!(self.layout, Layout::Fixed) { "fixed" } else { "dynamic" }
    }
}

fn readonly() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

impl BlockBackend for Vpc {
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn read(&self, offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        self.read_part(offset, segments, 0, total(segments))
    }
    fn read_part(&self, offset: u64, segments: &mut [Segment], skip: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let (place, n) = self.locate(offset + done);
            let n = n.min(len - done);
            match place {
                Some(at) => self.file.read_part(at, segments, skip + done, n)?,
                None => zero_range(segments, skip + done, n),
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
        format!("{} (vpc, read-only)", self.file.description())
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let (place, n) = self.locate(offset);
        let kind = if place.is_some() { ExtentKind::Data } else { ExtentKind::Zero };
        Ok(Extent { len: n.min(len), kind, host: place, compressed: false })
    }
    fn allocated_size(&self) -> Option<u64> {
        self.file.allocated_size()
    }
}
