//! Kernels for Power: ELF files of either byte order, linked anywhere, placed where the machine wants them.

use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, header};
use thiserror::Error;

/// What is wrong with a file. Messages complete "-kernel: FILE: ...".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    #[error("unknown format: expected an ELF file for Power")]
    Unknown,
    #[error("this is a program for another processor (ELF machine {0}): this machine needs one for Power")]
    Architecture(u16),
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

/// A piece of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    pub data: Vec<u8>,
    /// Bytes in memory; what `data` does not fill is zero.
    pub size: u64,
}

/// A kernel with the addresses it will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub segments: Vec<Segment>,
    pub entry: u64,
    pub little_endian: bool,
    /// The first byte in memory and the one after the last.
    pub start: u64,
    pub end: u64,
}

/// Kernels are linked at the start of some 256 MiB.
const OFFSET: u64 = 0x0fff_ffff;

impl Image {
    /// Reads a file; what is linked at an offset into 256 MiB will be at that offset from `place`.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn parse(data: &[u8], place: u64) -> Result<Self, ImageError> {
        if !data.starts_with(b"\x7fELF") {
            return Err(ImageError::Unknown);
        }
        let elf = Elf::parse(data).map_err(|e| ImageError::Damaged(e.to_string()))?;
        let machine = elf.header.e_machine;
        if machine != header::EM_PPC64 && machine != header::EM_PPC {
            return Err(ImageError::Architecture(machine));
        }
        let moved = |address: u64| (address & OFFSET).wrapping_add(place);
        let mut image = Self {
            segments: Vec::new(),
            entry: moved(elf.header.e_entry),
            little_endian: elf.little_endian,
            start: u64::MAX,
            end: 0,
        };
        for header in elf.program_headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_memsz != 0) {
            let range = usize::try_from(header.p_offset).ok().and_then(|start| {
                let end = start.checked_add(usize::try_from(header.p_filesz).ok()?)?;
                data.get(start..end)
            });
            let bytes = range.ok_or_else(|| ImageError::Damaged("a segment lies outside the file".to_owned()))?;
            let (address, size) = (moved(header.p_paddr), header.p_memsz.max(header.p_filesz));
            let end = address.checked_add(size).filter(|_| size <= OFFSET);
            let end = end.ok_or_else(|| ImageError::Damaged("a segment is too large".to_owned()))?;
            image.start = image.start.min(address);
            image.end = image.end.max(end);
            image.segments.push(Segment { address, data: bytes.to_vec(), size });
        }
        if image.segments.is_empty() {
            return Err(ImageError::Damaged("there is nothing to load in it".to_owned()));
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit ELF file with one segment.
    fn elf(little: bool, machine: u16, address: u64, size: u64) -> Vec<u8> {
        let mut data = b"\x7fELF\x02".to_vec();
        data.extend([if little { 1 } else { 2 }, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut put = |value: u64, n: usize| {
            let bytes = if little { value.to_le_bytes()[..n].to_vec() } else { value.to_be_bytes()[8 - n..].to_vec() };
            data.extend(bytes);
        };
        for (value, n) in [(2, 2), (u64::from(machine), 2), (1, 4), (address + 4, 8), (64, 8), (0, 8), (0, 4)] {
            put(value, n);
        }
        for value in [64, 56, 1, 64, 0, 0] {
            put(value, 2);
        }
        for (value, n) in [(1, 4), (7, 4), (120, 8), (address, 8), (address, 8), (4, 8), (size, 8), (8, 8)] {
            put(value, n);
        }
        data.extend(b"code");
        data
    }

    #[test]
    fn images_are_moved() {
        for little in [false, true] {
            let image = Image::parse(&elf(little, 21, 0xc000_0000_0000_0000, 0x100), 0x40_0000).unwrap();
            assert_eq!((image.start, image.end, image.entry), (0x40_0000, 0x40_0100, 0x40_0004));
            assert_eq!((image.little_endian, image.segments[0].data.as_slice()), (little, b"code".as_slice()));
        }
    }

    #[test]
    fn others_are_refused() {
        assert_eq!(Image::parse(b"MZ", 0), Err(ImageError::Unknown));
        assert_eq!(Image::parse(&elf(true, 62, 0, 1), 0), Err(ImageError::Architecture(62)));
        assert!(matches!(Image::parse(&elf(true, 21, 0, 1 << 60), 0), Err(ImageError::Damaged(_))));
        let good = elf(true, 21, 0, 4);
        for n in 0..good.len() {
            let _ = Image::parse(&good[..n], 0);
            let mut bad = good.clone();
            bad[n] ^= 0xff;
            let _ = Image::parse(&bad, 0);
        }
    }
}
