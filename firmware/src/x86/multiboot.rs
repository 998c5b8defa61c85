//! Multiboot 1 kernels (the Multiboot Specification, version 0.6.96).

use super::direct::Module;
use super::image::{BootImage, CODE, CpuStart, DATA, DescriptorTable, LISTS, Protected32, STACK, TASK};
use super::memory::{EBDA, MIB, MemoryMap};
use super::pvh::{elf_segments, parse_elf, place_modules};
use super::{KernelError, u32_at};
use crate::kernel::Segment;

/// A parsed kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiboot {
    pub segments: Vec<Segment>,
    pub entry: u32,
}

const MAGIC: u32 = 0x1bad_b002;
/// In EAX at the entry.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies within so many bytes.
const SEARCH: usize = 8192;
/// Header flags that ask for what this loader does: modules at page boundaries, memory information.
const KNOWN_FLAGS: u32 = 3;
/// A wish for a video mode; a loader may ignore what it says (3.1.4).
const VIDEO: u32 = 4;
const ADDRESSES: u32 = 1 << 16;
const LOADER_NAME: &[u8] = b"rhea\0";
const INFO_LEN: u64 = 120;

/// Offset of the header: aligned, with a matching checksum.
fn find_header(data: &[u8]) -> Option<usize> {
    (0..data.len().min(SEARCH).saturating_sub(11)).step_by(4).find(|at| {
        let word = |n: usize| u32_at(data, at + n).unwrap_or(0);
        word(0) == MAGIC && word(0).wrapping_add(word(4)).wrapping_add(word(8)) == 0
    })
}

impl Multiboot {
    /// Is there a multiboot header?
    #[must_use]
    pub fn recognise(data: &[u8]) -> bool {
        find_header(data).is_some()
    }

    /// # Errors
    /// [`KernelError`].
    pub fn parse(data: &[u8]) -> Result<Self, KernelError> {
        let header = find_header(data).ok_or(KernelError::Unknown)?;
        let field = |at: usize| {
            u32_at(data, header + at)
                .ok_or_else(|| KernelError::Truncated("the multiboot header is incomplete".to_owned()))
        };
        let flags = field(4)?;
        // The lower half are demands.
        let unknown = flags & 0xffff & !(KNOWN_FLAGS | VIDEO);
        if unknown != 0 {
            return Err(KernelError::Unsupported(format!(
                "the multiboot header demands unknown features (flags {unknown:#x})"
            )));
        }
        if flags & ADDRESSES == 0 {
            let elf = parse_elf(data)?;
            let entry = u32::try_from(elf.entry)
                .map_err(|_| KernelError::Damaged(format!("the entry {:#x} does not fit in 32 bits", elf.entry)))?;
            return Ok(Self { segments: elf_segments(&elf, data)?, entry });
        }
        let (header_addr, load, load_end, bss_end, entry) =
            (field(12)?, field(16)?, field(20)?, field(24)?, field(28)?);
        let bad = || KernelError::Damaged("the multiboot header has impossible addresses".to_owned());
        let before = header_addr.checked_sub(load).ok_or_else(bad)? as usize;
        let start = header.checked_sub(before).ok_or_else(bad)?;
        let rest = data.get(start..).unwrap_or_default();
        // 0: the whole rest of the file.
        let len = match load_end {
            0 => rest.len(),
            end => end.checked_sub(load).ok_or_else(bad)? as usize,
        };
        let bytes = rest.get(..len).ok_or_else(|| {
            KernelError::Truncated(format!("it has {} bytes, its multiboot header needs {}", data.len(), start + len))
        })?;
        let filled = u64::from(load) + len as u64;
        let end = match bss_end {
            0 => filled,
            end if u64::from(end) >= filled => u64::from(end),
            _ => return Err(bad()),
        };
        let segment = Segment { address: u64::from(load), data: bytes.to_vec(), size: end - u64::from(load) };
        Ok(Self { segments: vec![segment], entry })
    }

    /// Places kernel, modules and the information structure. `command_line` includes the kernel's name.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn image(&self, map: &MemoryMap, command_line: &str, modules: &[Module]) -> Result<BootImage, KernelError> {
        let mut image = BootImage::new();
        image.bios_data();
        image.segments(&self.segments, map)?;
        // Kernels may use the BIOS (3.2); what there is of it is enough to wait for an interrupt in real mode.
        image.bios_vectors();
        let placed = place_modules(&mut image, map, modules)?;
        let entries: Vec<u8> =
            map.entries.iter().flat_map(|e| 20u32.to_le_bytes().into_iter().chain(e.bytes())).collect();
        // Information, memory map, module list, loader name, command line: one block.
        let (map_at, mods_at) = (INFO_LEN, INFO_LEN + entries.len() as u64);
        let name_at = mods_at + 16 * placed.len() as u64;
        let line_at = name_at + LOADER_NAME.len() as u64;
        let len = line_at + command_line.len() as u64 + 1;
        // Where kernels leave memory alone longest: low, else behind everything.
        let low = LISTS..LISTS + len;
        let at = if map.is_ram(&(low.start..low.end.next_multiple_of(0x1000))) && !image.overlaps(&low) {
            low.start
        } else {
            let floor = self.segments.iter().map(|s| s.address + s.size).max().unwrap_or(0).max(MIB);
            let top = placed.first().map_or(map.high.end, |(at, _)| *at);
            let at = top.checked_sub(len).map(|a| a & !0xfff).filter(|a| *a >= floor);
            at.ok_or(KernelError::Initrd { len })?
        };
        let mut block = vec![0u8; INFO_LEN as usize];
        // Low RAM ends below 4 GiB, so every address fits.
        let mut put =
            |offset: usize, value: u64| block[offset..offset + 4].copy_from_slice(&(value as u32).to_le_bytes());
        const MEMORY: u64 = 1;
        const COMMAND_LINE: u64 = 1 << 2;
        const MODULES: u64 = 1 << 3;
        const MEMORY_MAP: u64 = 1 << 6;
        const NAME: u64 = 1 << 9;
        put(0, MEMORY | COMMAND_LINE | MODULES | MEMORY_MAP | NAME);
        put(4, EBDA >> 10);
        put(8, (map.high.end - map.high.start) >> 10);
        put(16, at + line_at);
        put(20, placed.len() as u64);
        put(24, at + mods_at);
        put(44, entries.len() as u64);
        put(48, at + map_at);
        put(64, at + name_at);
        block.extend_from_slice(&entries);
        for (start, module) in &placed {
            let end = start + module.data.len() as u64;
            for field in [*start, end, end, 0] {
                block.extend_from_slice(&(field as u32).to_le_bytes());
            }
        }
        block.extend_from_slice(LOADER_NAME);
        block.extend_from_slice(command_line.as_bytes());
        block.push(0);
        image.put(at, block);
        // A kernel may lie over the usual place of the table; it must load its own before it loads a segment (3.2).
        let table = super::image::GDT..super::image::GDT + 48;
        let gdt = if image.overlaps(&table) { DescriptorTable { base: 0, limit: 0 } } else { image.gdt(false) };
        image.cpu = CpuStart::Protected32(Protected32 {
            eip: self.entry,
            eax: LOADER_MAGIC,
            ebx: at as u32,
            esi: 0,
            esp: STACK as u32,
            gdt,
            code: CODE,
            data: DATA,
            task: TASK,
        });
        Ok(image)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::x86::memory::RamLayout;

    /// A flat kernel at 1 MiB with address fields.
    pub(in crate::x86) fn sample() -> Vec<u8> {
        let mut f = vec![0x90u8; 0x1000];
        let flags = 3 | ADDRESSES;
        let fields =
            [MAGIC, flags, 0u32.wrapping_sub(MAGIC).wrapping_sub(flags), 0x10_0020, 0x10_0000, 0, 0x10_4000, 0x10_0040];
        for (i, v) in fields.iter().enumerate() {
            f[0x120 + i * 4..0x124 + i * 4].copy_from_slice(&v.to_le_bytes());
        }
        f
    }

    fn map() -> MemoryMap {
        MemoryMap::direct(RamLayout::q35(64 << 20), &[], 0x1000).unwrap()
    }

    #[test]
    fn addresses() {
        let kernel = Multiboot::parse(&sample()).unwrap();
        assert_eq!(kernel.entry, 0x10_0040);
        let s = &kernel.segments[0];
        assert_eq!((s.address, s.data.len(), s.size), (0x10_0000, 0xf00, 0x4000));
        let image = kernel.image(&map(), "kernel a=b", &[Module::new(vec![5; 100], "mod x")]).unwrap();
        let CpuStart::Protected32(cpu) = image.cpu else { panic!() };
        assert_eq!((cpu.eax, cpu.ebx), (LOADER_MAGIC, LISTS as u32));
        let info = &*image.writes.iter().find(|(s, _)| *s == LISTS).unwrap().1;
        let at = |offset: usize| (u32_at(info, offset).unwrap() as u64 - LISTS) as usize;
        assert_eq!((u32_at(info, 4), u32_at(info, 8)), (Some(639), Some(0xfbfc)));
        assert!(info[at(16)..].starts_with(b"kernel a=b\0"));
        assert!(info[at(64)..].starts_with(b"rhea\0"));
        assert_eq!((u32_at(info, 20), u32_at(info, 44)), (Some(1), Some(5 * 24)));
        let (start, end, text) =
            (u32_at(info, at(24)).unwrap(), u32_at(info, at(24) + 4).unwrap(), u32_at(info, at(24) + 8).unwrap());
        let module = &*image.writes.iter().find(|(s, _)| *s == u64::from(start)).unwrap().1;
        assert_eq!(&module[(text - start) as usize..], b"mod x\0");
        assert_eq!((start % 4096, end - start), (0, 100));
    }

    #[test]
    fn elf_and_low_kernels() {
        let mut f = crate::x86::pvh::tests::sample(None);
        f.resize(0x1000, 0);
        for (i, v) in [MAGIC, 2, 0u32.wrapping_sub(MAGIC).wrapping_sub(2)].iter().enumerate() {
            f[0x800 + i * 4..0x804 + i * 4].copy_from_slice(&v.to_le_bytes());
        }
        let kernel = Multiboot::parse(&f).unwrap();
        assert_eq!((kernel.entry, kernel.segments[0].address), (0x100_0000, 0x100_0000));
        // A kernel that covers the usual places of table and information.
        let low = Multiboot {
            segments: vec![Segment { address: 0x1000, data: vec![1; 0xf000], size: 0xf000 }],
            entry: 0x1000,
        };
        let image = low.image(&map(), "k", &[]).unwrap();
        let CpuStart::Protected32(cpu) = image.cpu else { panic!() };
        assert_eq!(cpu.gdt.limit, 0);
        assert!(u64::from(cpu.ebx) > MIB);
    }

    #[test]
    fn damaged() {
        let with = |offset: usize, value: u32| {
            let mut f = sample();
            f[0x120 + offset..0x124 + offset].copy_from_slice(&value.to_le_bytes());
            Multiboot::parse(&f)
        };
        assert_eq!(with(0, 0), Err(KernelError::Unknown));
        assert_eq!(with(8, 0), Err(KernelError::Unknown));
        assert!(matches!(with(16, 0x20_0000), Err(KernelError::Damaged(_))));
        assert!(matches!(with(12, 0x20_0000), Err(KernelError::Damaged(_))));
        assert!(matches!(with(20, 0x20_0000), Err(KernelError::Truncated(_))));
        assert!(matches!(with(24, 0x10_0001), Err(KernelError::Damaged(_))));
        let mut f = sample();
        f[0x124..0x128].copy_from_slice(&(8 | ADDRESSES).to_le_bytes());
        f[0x128..0x12c].copy_from_slice(&0u32.wrapping_sub(MAGIC).wrapping_sub(8 | ADDRESSES).to_le_bytes());
        assert!(matches!(Multiboot::parse(&f), Err(KernelError::Unsupported(_))));
    }
}
