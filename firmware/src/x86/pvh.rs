//! ELF kernels with a PVH entry (the `XEN_ELFNOTE_PHYS32_ENTRY` note and `struct hvm_start_info`).

use super::direct::Module;
use super::image::{BootImage, CODE, COMMAND_LINE, CpuStart, DATA, INFO, LISTS, Protected32, STACK, TASK};
use super::memory::MemoryMap;
use super::{KernelError, u32_at, u64_at};
use crate::kernel::Segment;
use goblin::elf::Elf;
use goblin::elf::header::{self, EM_386, EM_X86_64};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

/// A parsed kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pvh {
    pub segments: Vec<Segment>,
    /// 32-bit physical entry point.
    pub entry: u32,
}

/// The note's type; its name is "Xen".
const PHYS32_ENTRY: u32 = 18;
const START_MAGIC: u32 = 0x336e_c578;
/// Module list, then memory map.
const MEMORY_MAP: u64 = LISTS + 0x1000;
const MAX_MODULES: usize = 64;
const MAX_ENTRIES: usize = 128;

/// An ELF file for x86 of either class.
///
/// # Errors
/// [`KernelError`].
pub(super) fn parse_elf(data: &[u8]) -> Result<Elf<'_>, KernelError> {
    let half = |at: usize| data.get(at..at + 2).map(|b| [b[0], b[1]]);
    let little = data.get(5) != Some(&2);
    let machine = half(18).map(|b| if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) });
    match machine {
        None => return Err(KernelError::Truncated("the ELF header is incomplete".to_owned())),
        Some(EM_386 | EM_X86_64) if little => {}
        Some(m) => {
            let name = match m {
                header::EM_AARCH64 => "arm64".to_owned(),
                header::EM_ARM => "32-bit Arm".to_owned(),
                header::EM_PPC64 | header::EM_PPC => "PowerPC".to_owned(),
                header::EM_RISCV => "RISC-V".to_owned(),
                header::EM_S390 => "s390".to_owned(),
                _ => format!("ELF machine {m}"),
            };
            return Err(KernelError::Architecture(name));
        }
    }
    Elf::parse(data).map_err(|e| match e {
        goblin::error::Error::Scroll(_) | goblin::error::Error::BufferTooShort(..) => {
            KernelError::Truncated(format!("ELF: {e}"))
        }
        e => KernelError::Damaged(format!("ELF: {e}")),
    })
}

/// The segments at their physical addresses.
pub(super) fn elf_segments(elf: &Elf<'_>, data: &[u8]) -> Result<Vec<Segment>, KernelError> {
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
    Ok(segments)
}

/// The descriptor of the note, if there is one.
fn entry_note(elf: &Elf<'_>, data: &[u8]) -> Option<u64> {
    for ph in elf.program_headers.iter().filter(|p| p.p_type == PT_NOTE) {
        let start = usize::try_from(ph.p_offset).ok()?;
        let end = start.checked_add(usize::try_from(ph.p_filesz).ok()?)?;
        let Some(mut notes) = data.get(start..end.min(data.len())) else { continue };
        // Each note: name length, descriptor length, type, name, descriptor; the two padded to 4 bytes.
        while let (Some(name_len), Some(len), Some(kind)) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8)) {
            let (name_len, len) = (name_len as usize, len as usize);
            let Some(at) = name_len.checked_next_multiple_of(4).and_then(|n| n.checked_add(12)) else { break };
            if kind == PHYS32_ENTRY && notes.get(12..).is_some_and(|n| n.starts_with(b"Xen\0")) && name_len == 4 {
                return match len {
                    4 => u32_at(notes, at).map(u64::from),
                    8 => u64_at(notes, at),
                    _ => None,
                };
            }
            let next = len.checked_next_multiple_of(4).and_then(|l| l.checked_add(at));
            match next.and_then(|n| notes.get(n..)) {
                Some(rest) => notes = rest,
                None => break,
            }
        }
    }
    None
}

impl Pvh {
    /// # Errors
    /// [`KernelError`].
    pub fn parse(data: &[u8]) -> Result<Self, KernelError> {
        let elf = parse_elf(data)?;
        let segments = elf_segments(&elf, data)?;
        let entry = entry_note(&elf, data).ok_or_else(|| {
            KernelError::Unsupported("this ELF file has no PVH entry (a XEN_ELFNOTE_PHYS32_ENTRY note)".to_owned())
        })?;
        let entry = u32::try_from(entry)
            .map_err(|_| KernelError::Damaged(format!("the PVH entry {entry:#x} does not fit in 32 bits")))?;
        Ok(Self { segments, entry })
    }

    /// Places kernel, modules and start information.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn image(
        &self,
        map: &MemoryMap,
        command_line: &str,
        modules: &[Module],
        rsdp: Option<u64>,
    ) -> Result<BootImage, KernelError> {
        let mut image = BootImage::new();
        image.bios_data();
        image.command_line(command_line, usize::MAX)?;
        let gdt = image.gdt(false);
        if modules.len() > MAX_MODULES {
            return Err(KernelError::Unsupported(format!(
                "{} modules: at most {MAX_MODULES} are possible",
                modules.len()
            )));
        }
        // Their places are taken before the kernel's are checked against them.
        let entries = &map.entries[..map.entries.len().min(MAX_ENTRIES)];
        let mut list = Vec::new();
        for entry in entries {
            for field in [entry.start, entry.len, entry.kind as u64] {
                list.extend_from_slice(&field.to_le_bytes());
            }
        }
        image.put(MEMORY_MAP, list);
        let mut info = vec![0u8; 56];
        let mut put = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &START_MAGIC.to_le_bytes());
        put(4, &1u32.to_le_bytes());
        put(12, &(modules.len() as u32).to_le_bytes());
        put(16, &(if modules.is_empty() { 0 } else { LISTS }).to_le_bytes());
        put(24, &COMMAND_LINE.to_le_bytes());
        put(32, &rsdp.unwrap_or(0).to_le_bytes());
        put(40, &MEMORY_MAP.to_le_bytes());
        put(48, &(entries.len() as u32).to_le_bytes());
        image.put(INFO, info);
        let room = LISTS..MEMORY_MAP;
        image.segments(&self.segments, map)?;
        if image.overlaps(&room) {
            return Err(KernelError::Memory { start: room.start, end: room.end });
        }
        let mut list = Vec::new();
        for (at, module) in place_modules(&mut image, map, modules)? {
            // The module's own command line follows its bytes.
            let text = at + module.data.len() as u64;
            for field in [at, module.data.len() as u64, text, 0] {
                list.extend_from_slice(&field.to_le_bytes());
            }
        }
        if !list.is_empty() {
            image.put(LISTS, list);
        }
        image.cpu = CpuStart::Protected32(Protected32 {
            eip: self.entry,
            eax: 0,
            ebx: INFO as u32,
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

/// Puts modules, each followed by its command line, at page boundaries as high as possible in low RAM; gives their addresses.
pub(super) fn place_modules<'a>(
    image: &mut BootImage,
    map: &MemoryMap,
    modules: &'a [Module],
) -> Result<Vec<(u64, &'a Module)>, KernelError> {
    let floor = image.high_end(map);
    let mut top = map.high.end;
    let mut placed = Vec::new();
    for module in modules.iter().rev() {
        let mut bytes = module.data.to_vec();
        bytes.extend_from_slice(module.command_line.as_bytes());
        bytes.push(0);
        let len = bytes.len() as u64;
        let at = top.checked_sub(len).map(|a| a & !0xfff).filter(|a| *a >= floor).ok_or(KernelError::Initrd { len })?;
        image.put(at, bytes);
        placed.push((at, module));
        top = at;
    }
    placed.reverse();
    Ok(placed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::x86::memory::RamLayout;

    /// A 64-bit ELF file with a segment at 16 MiB and, with `entry`, the note.
    pub(in crate::x86) fn sample(entry: Option<u32>) -> Vec<u8> {
        let mut f = vec![0u8; 0x200];
        f[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        f[16] = 2;
        f[18] = 62;
        f[20] = 1;
        f[24..32].copy_from_slice(&0x100_0000u64.to_le_bytes());
        f[32] = 64;
        f[52] = 64;
        f[54] = 56;
        f[56] = 2;
        let mut segment = |at: usize, kind: u32, offset: u64, address: u64, len: u64, size: u64| {
            f[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            for (i, v) in [offset, address, address, len, size].iter().enumerate() {
                f[at + 8 + i * 8..at + 16 + i * 8].copy_from_slice(&v.to_le_bytes());
            }
        };
        segment(64, PT_LOAD, 0x180, 0x100_0000, 0x80, 0x1000);
        segment(120, if entry.is_some() { PT_NOTE } else { 0 }, 0x100, 0, 0x48, 0x48);
        // Another note first.
        f[0x100] = 5;
        f[0x104] = 6;
        f[0x108] = 18;
        f[0x10c..0x111].copy_from_slice(b"Xen2\0");
        f[0x11c] = 4;
        f[0x120] = 4;
        f[0x124] = 18;
        f[0x128..0x12c].copy_from_slice(b"Xen\0");
        f[0x12c..0x130].copy_from_slice(&entry.unwrap_or(0).to_le_bytes());
        f[0x180..].fill(0x90);
        f
    }

    #[test]
    fn start_information() {
        let kernel = Pvh::parse(&sample(Some(0x100_0010))).unwrap();
        let map = MemoryMap::direct(RamLayout::q35(256 << 20), &[], 0x1000).unwrap();
        let modules = [Module::new(vec![1; 5000], "first"), Module::new(vec![2; 10], "second")];
        let image = kernel.image(&map, "quiet", &modules, Some(0xf_0000)).unwrap();
        let CpuStart::Protected32(cpu) = image.cpu else { panic!() };
        assert_eq!((cpu.eip, cpu.ebx), (0x100_0010, INFO as u32));
        let find = |gpa: u64| &*image.writes.iter().find(|(s, _)| *s == gpa).unwrap().1;
        let info = find(INFO);
        assert_eq!((u32_at(info, 0), u32_at(info, 12), u64_at(info, 32)), (Some(START_MAGIC), Some(2), Some(0xf_0000)));
        assert_eq!(u32_at(info, 48), Some(5));
        let list = find(u64_at(info, 16).unwrap());
        let (at, len) = (u64_at(list, 0).unwrap(), u64_at(list, 8).unwrap() as usize);
        assert_eq!((len, at % 4096), (5000, 0));
        assert_eq!(&find(at)[len..], b"first\0");
        assert_eq!(u64_at(list, 16), Some(at + 5000));
        assert_eq!(image.zeros, [0x100_0080..0x100_1000]);
        assert!(matches!(Pvh::parse(&sample(None)), Err(KernelError::Unsupported(_))));
        let small = MemoryMap::direct(RamLayout::q35(8 << 20), &[], 0x1000).unwrap();
        assert!(matches!(kernel.image(&small, "", &[], None), Err(KernelError::Memory { .. })));
    }
}
