//! Kernel files: arm64 Image, gzip'd Image, EFI zboot, ELF; recognised by content.

use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, header};
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use thiserror::Error;

/// A kernel of another kind or a damaged one. Messages complete "-kernel: FILE: ...".
#[derive(Debug, Error)]
pub enum KernelError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("this is a kernel for {0}: this machine needs one for arm64")]
    Architecture(String),
    #[error("the file is truncated: {0}")]
    Truncated(String),
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error(
        "unknown format: expected an arm64 Image (plain or compressed with gzip), an EFI zboot image with gzip, or an ELF file"
    )]
    Unknown,
}

/// What a kernel expects of its loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelKind {
    /// The arm64 Linux boot protocol: placed at a 2 MiB boundary plus `text_offset`, needs `image_size` bytes.
    LinuxImage { text_offset: u64, image_size: u64 },
    /// An ELF file with fixed physical addresses.
    Elf,
}

/// A piece of a kernel. `address`: physical for ELF, 0 for an Image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    pub data: Vec<u8>,
    /// Bytes in memory; what `data` does not fill is zero.
    pub size: u64,
}

/// A kernel ready to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub kind: KernelKind,
    pub segments: Vec<Segment>,
    /// Physical for ELF; offset from the load address for an Image.
    pub entry: u64,
}

/// Larger decompressed kernels are refused (a compression bomb, not a kernel).
const MAX_KERNEL: u64 = 1 << 30;

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}
fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

impl Kernel {
    /// Reads and recognises a file.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn load(path: &Path) -> Result<Self, KernelError> {
        Self::parse_inner(std::fs::read(path)?.into(), true)
    }

    /// Recognises a kernel in memory.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(data: &[u8]) -> Result<Self, KernelError> {
        Self::parse_inner(data.into(), true)
    }

    fn parse_inner(file: Cow<'_, [u8]>, compressed: bool) -> Result<Self, KernelError> {
        let data = &*file;
        if data.starts_with(b"\x7fELF") {
            return parse_elf(data);
        }
        if compressed && data.starts_with(&[0x1f, 0x8b]) {
            return Self::parse_inner(gunzip(data)?.into(), false);
        }
        if compressed && data.starts_with(b"MZ") && data.get(4..8) == Some(b"zimg") {
            return parse_zboot(data);
        }
        if data.get(56..60) == Some(b"ARM\x64") {
            return parse_image(file);
        }
        if data.get(56..60) == Some(b"RSC\x05") {
            return Err(KernelError::Architecture("RISC-V".to_owned()));
        }
        if data.get(0x202..0x206) == Some(b"HdrS") {
            return Err(KernelError::Architecture("x86".to_owned()));
        }
        if u32_at(data, 0x24) == Some(0x016f_2818) {
            return Err(KernelError::Architecture("32-bit Arm".to_owned()));
        }
        if data.len() < 64 {
            return Err(KernelError::Truncated(format!("it has only {} bytes", data.len())));
        }
        Err(KernelError::Unknown)
    }
}

fn gunzip(data: &[u8]) -> Result<Vec<u8>, KernelError> {
    let mut out = Vec::new();
    match flate2::read::MultiGzDecoder::new(data).take(MAX_KERNEL + 1).read_to_end(&mut out) {
        // What follows the compressed stream (padding of a boot image) is not ours.
        Err(_) if out.len() >= 64 && ends_with_padding(data) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(KernelError::Truncated(format!("the gzip stream ends after {} bytes of output", out.len())));
        }
        Err(e) => return Err(KernelError::Damaged(format!("gzip: {e}"))),
        Ok(_) => {}
    }
    if out.len() as u64 > MAX_KERNEL {
        return Err(KernelError::Damaged("it decompresses to more than 1 GiB".to_owned()));
    }
    Ok(out)
}

/// Does a complete gzip stream stand before trailing bytes?
fn ends_with_padding(data: &[u8]) -> bool {
    let mut single = flate2::read::GzDecoder::new(data);
    std::io::copy(&mut (&mut single).take(MAX_KERNEL), &mut std::io::sink()).is_ok()
}

/// The EFI zboot header (Linux, drivers/firmware/efi/libstub/zboot-header.S): payload offset at 8, size at 12, method at 24.
fn parse_zboot(data: &[u8]) -> Result<Kernel, KernelError> {
    let bad = || KernelError::Truncated("the EFI zboot header is incomplete".to_owned());
    let (offset, size) = (u32_at(data, 8).ok_or_else(bad)? as usize, u32_at(data, 12).ok_or_else(bad)? as usize);
    let method = data.get(24..32).ok_or_else(bad)?;
    if !method.starts_with(b"gzip\0") {
        let end = method.iter().position(|b| *b == 0).unwrap_or(method.len());
        return Err(KernelError::Damaged(format!(
            "EFI zboot payload compressed with {:?}: only gzip is supported",
            String::from_utf8_lossy(&method[..end])
        )));
    }
    let payload = offset.checked_add(size).and_then(|end| data.get(offset..end));
    let payload = payload
        .ok_or_else(|| KernelError::Truncated("the EFI zboot payload lies beyond the end of the file".to_owned()))?;
    // Some builds count the four bytes of the uncompressed size, appended after the stream, in the payload.
    Kernel::parse_inner(gunzip(payload)?.into(), false)
}

/// Documentation/arch/arm64/booting.rst: text_offset at 8, image_size at 16, flags at 24, magic at 56.
fn parse_image(file: Cow<'_, [u8]>) -> Result<Kernel, KernelError> {
    let data = &*file;
    let bad = || KernelError::Truncated("the arm64 Image header is incomplete".to_owned());
    if data.len() < 64 {
        return Err(bad());
    }
    let (mut text_offset, mut image_size) = (u64_at(data, 8).ok_or_else(bad)?, u64_at(data, 16).ok_or_else(bad)?);
    let flags = u64_at(data, 24).ok_or_else(bad)?;
    if flags & 1 != 0 {
        return Err(KernelError::Architecture("big-endian arm64".to_owned()));
    }
    if image_size == 0 {
        // Kernels before 3.17 leave both fields out.
        text_offset = 0x8_0000;
        image_size = data.len() as u64 + (1 << 20);
    }
    if image_size > MAX_KERNEL || text_offset > MAX_KERNEL {
        return Err(KernelError::Damaged("the arm64 Image header has impossible sizes".to_owned()));
    }
    check_pe_sections(data)?;
    let size = image_size.max(data.len() as u64);
    let segment = Segment { address: 0, data: file.into_owned(), size };
    Ok(Kernel { kind: KernelKind::LinuxImage { text_offset, image_size: size }, segments: vec![segment], entry: 0 })
}

/// An Image that is also a PE file says how long the file must be.
fn check_pe_sections(data: &[u8]) -> Result<(), KernelError> {
    let Some(pe) = u32_at(data, 0x3c).map(|o| o as usize) else { return Ok(()) };
    if !data.starts_with(b"MZ") || pe.checked_add(4).and_then(|e| data.get(pe..e)) != Some(b"PE\0\0") {
        return Ok(());
    }
    let half = |at: usize| data.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let (sections, optional) = (half(pe + 6), half(pe + 20));
    for i in 0..sections.min(64) {
        let at = pe + 24 + optional + i * 40;
        let (Some(size), Some(start)) = (u32_at(data, at + 16), u32_at(data, at + 20)) else {
            return Err(KernelError::Truncated("the section table is incomplete".to_owned()));
        };
        let end = u64::from(size) + u64::from(start);
        if end > data.len() as u64 {
            return Err(KernelError::Truncated(format!("it has {} bytes, its sections need {end}", data.len())));
        }
    }
    Ok(())
}

fn parse_elf(data: &[u8]) -> Result<Kernel, KernelError> {
    let machine = data.get(18..20).map(|b| {
        if data.get(5) == Some(&2) { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) }
    });
    match machine {
        Some(header::EM_AARCH64) => {}
        None => return Err(KernelError::Truncated("the ELF header is incomplete".to_owned())),
        Some(m) => {
            let name = match m {
                header::EM_X86_64 | header::EM_386 => "x86".to_owned(),
                header::EM_PPC64 | header::EM_PPC => "PowerPC".to_owned(),
                header::EM_ARM => "32-bit Arm".to_owned(),
                header::EM_RISCV => "RISC-V".to_owned(),
                header::EM_S390 => "s390".to_owned(),
                _ => format!("ELF machine {m}"),
            };
            return Err(KernelError::Architecture(name));
        }
    }
    let elf = Elf::parse(data).map_err(|e| match e {
        goblin::error::Error::Scroll(_) | goblin::error::Error::BufferTooShort(..) => {
            KernelError::Truncated(format!("ELF: {e}"))
        }
        e => KernelError::Damaged(format!("ELF: {e}")),
    })?;
    if !elf.is_64 || !elf.little_endian {
        return Err(KernelError::Architecture("a 32-bit or big-endian machine".to_owned()));
    }
    let mut segments = Vec::new();
    for ph in elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0) {
        let (start, len) =
            (usize::try_from(ph.p_offset).unwrap_or(usize::MAX), usize::try_from(ph.p_filesz).unwrap_or(usize::MAX));
        let bytes = start.checked_add(len).and_then(|end| data.get(start..end));
        let bytes =
            bytes.ok_or_else(|| KernelError::Truncated("an ELF segment lies beyond the end of the file".to_owned()))?;
        if ph.p_memsz < ph.p_filesz || ph.p_paddr.checked_add(ph.p_memsz).is_none() {
            return Err(KernelError::Damaged("an ELF segment has impossible sizes".to_owned()));
        }
        segments.push(Segment { address: ph.p_paddr, data: bytes.to_vec(), size: ph.p_memsz });
    }
    if segments.is_empty() {
        return Err(KernelError::Damaged("the ELF file has nothing to load".to_owned()));
    }
    // The entry is a virtual address; kernels linked high have it in a segment whose physical address differs.
    let entry = elf
        .program_headers
        .iter()
        .find(|p| p.p_type == PT_LOAD && elf.entry >= p.p_vaddr && elf.entry - p.p_vaddr < p.p_memsz);
    let entry = entry.map_or(elf.entry, |p| elf.entry - p.p_vaddr + p.p_paddr);
    Ok(Kernel { kind: KernelKind::Elf, segments, entry })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) fn image(len: usize, image_size: u64) -> Vec<u8> {
        let mut data = vec![0x55; len];
        data[8..16].fill(0);
        data[16..24].copy_from_slice(&image_size.to_le_bytes());
        data[24..32].copy_from_slice(&10u64.to_le_bytes());
        data[56..60].copy_from_slice(b"ARM\x64");
        data
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        z.write_all(data).unwrap();
        z.finish().unwrap()
    }

    #[test]
    fn images() {
        let plain = image(0x1000, 0x3000);
        let kernel = Kernel::parse(&plain).unwrap();
        assert_eq!(kernel.kind, KernelKind::LinuxImage { text_offset: 0, image_size: 0x3000 });
        assert_eq!(Kernel::parse(&gzip(&plain)).unwrap(), kernel);
        let z = gzip(&plain);
        let mut zboot = vec![0; 64];
        zboot[..8].copy_from_slice(b"MZ\0\0zimg");
        zboot[8..12].copy_from_slice(&64u32.to_le_bytes());
        zboot[12..16].copy_from_slice(&(z.len() as u32).to_le_bytes());
        zboot[24..29].copy_from_slice(b"gzip\0");
        zboot.extend_from_slice(&z);
        assert_eq!(Kernel::parse(&zboot).unwrap(), kernel);
        zboot.pop();
        assert!(matches!(Kernel::parse(&zboot), Err(KernelError::Truncated(_))));
        assert!(matches!(Kernel::parse(&z[..z.len() - 12]), Err(KernelError::Truncated(_))));
        assert!(matches!(Kernel::parse(&plain[..40]), Err(KernelError::Truncated(_))));
        assert!(matches!(Kernel::parse(&plain[..60]), Err(KernelError::Truncated(_))));
        assert!(matches!(Kernel::parse(&[7; 100]), Err(KernelError::Unknown)));
        let mut x86 = vec![0; 0x300];
        x86[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(Kernel::parse(&x86).unwrap_err().to_string().contains("x86"));
    }

    #[test]
    fn elf() {
        // This test program itself: an ELF of the host.
        let host = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if !cfg!(target_arch = "aarch64") {
            assert!(matches!(Kernel::parse(&host), Err(KernelError::Architecture(_))));
        }
        let mut arm = vec![0u8; 64 + 56];
        arm[..6].copy_from_slice(b"\x7fELF\x02\x01");
        arm[6] = 1;
        arm[16] = 2;
        arm[18] = 183;
        arm[20] = 1;
        arm[24..32].copy_from_slice(&0x4008_0004u64.to_le_bytes());
        arm[32] = 64; // phoff
        arm[52] = 64;
        arm[54] = 56;
        arm[56] = 1;
        arm[64] = 1; // PT_LOAD
        arm[64 + 16..64 + 24].copy_from_slice(&0x4008_0000u64.to_le_bytes());
        arm[64 + 24..64 + 32].copy_from_slice(&0x4008_0000u64.to_le_bytes());
        arm[64 + 32] = 8; // filesz
        arm[64 + 40] = 16; // memsz
        let kernel = Kernel::parse(&arm).unwrap();
        assert_eq!((kernel.entry, kernel.segments[0].size, kernel.segments[0].data.len()), (0x4008_0004, 16, 8));
        arm[64 + 33] = 1; // filesz 0x108: beyond the end
        arm[64 + 41] = 2;
        assert!(matches!(Kernel::parse(&arm), Err(KernelError::Truncated(_))));
        assert!(Kernel::parse(&arm[..30]).is_err());
    }
}
