//! The Linux/x86 boot protocol (Linux, Documentation/arch/x86/boot.rst and zero-page.rst), 32- and 64-bit entry.

use super::image::{BootImage, CODE, COMMAND_LINE, CpuStart, DATA, INFO, Long64, Protected32, STACK, TASK};
use super::memory::{MIB, MemoryMap};
use super::{KernelError, u16_at, u32_at, u64_at};
use std::ops::Range;

/// A parsed bzImage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage {
    data: Vec<u8>,
    /// Length of boot sector and real-mode code.
    setup_len: usize,
    protocol: u16,
    header: Header,
}

/// The fields of the setup header that matter to a loader, with the defaults of protocols that lack them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    initrd_max: u64,
    alignment: u64,
    relocatable: bool,
    entry64: bool,
    command_line_max: usize,
    preferred: u64,
    /// Memory needed from the load address on.
    init_size: u64,
}

/// The state of the display, as a kernel started without firmware is told it (`struct screen_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// None, or one that is not set up.
    #[default]
    None,
    /// VGA text mode 3: 80 by 25.
    Text,
    /// A linear frame buffer of 32 bits a pixel: blue in the lowest byte, then green, red, unused.
    Linear { address: u64, width: u16, height: u16, stride: u16, size: u32 },
}

impl Screen {
    fn put(self, page: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        match self {
            Self::None => {}
            Self::Text => {
                put(0x06, &[3, 80]);
                put(0x0a, &3u16.to_le_bytes());
                put(0x0e, &[25, 1, 16, 0]);
            }
            Self::Linear { address, width, height, stride, size } => {
                const VESA_LINEAR: u8 = 0x23;
                const WIDE_ADDRESS: u32 = 2;
                put(0x0f, &[VESA_LINEAR]);
                put(0x12, &width.to_le_bytes());
                put(0x14, &height.to_le_bytes());
                put(0x16, &32u16.to_le_bytes());
                put(0x18, &(address as u32).to_le_bytes());
                // In units of 64 KiB.
                put(0x1c, &size.div_ceil(0x1_0000).to_le_bytes());
                put(0x24, &stride.to_le_bytes());
                // Size and position of red, green, blue and the rest.
                put(0x26, &[8, 16, 8, 8, 8, 0, 8, 24]);
                put(0x32, &1u16.to_le_bytes());
                put(0x36, &(if address >> 32 != 0 { WIDE_ADDRESS } else { 0 }).to_le_bytes());
                put(0x3a, &((address >> 32) as u32).to_le_bytes());
            }
        }
    }
}

/// Offset of the setup header in the file and in the zero page.
const HEADER: usize = 0x1f1;
const LOADED_HIGH: u8 = 1;
const KEEP_SEGMENTS: u8 = 1 << 6;
const CAN_USE_HEAP: u8 = 1 << 7;
/// Loader id: none assigned.
const LOADER_TYPE: u8 = 0xff;
const E820_MAX: usize = 128;
const MAX_KERNEL: u64 = 1 << 30;

impl BzImage {
    /// Is this the format?
    #[must_use]
    pub fn recognise(data: &[u8]) -> bool {
        data.get(0x202..0x206) == Some(b"HdrS")
    }

    /// # Errors
    /// [`KernelError`].
    pub fn parse(data: Vec<u8>) -> Result<Self, KernelError> {
        let short = || KernelError::Truncated("the setup header is incomplete".to_owned());
        if !Self::recognise(&data) {
            return Err(KernelError::Unknown);
        }
        let byte = |at: usize| data.get(at).copied().ok_or_else(short);
        let word = |at: usize| u16_at(&data, at).ok_or_else(short);
        let dword = |at: usize| u32_at(&data, at).ok_or_else(short);
        let protocol = word(0x206)?;
        if !(0x200..0x1000).contains(&protocol) {
            return Err(KernelError::Unsupported(format!(
                "boot protocol {}.{:02}: 2.00 or later is needed",
                protocol >> 8,
                protocol & 0xff
            )));
        }
        if byte(0x211)? & LOADED_HIGH == 0 {
            return Err(KernelError::Unsupported(
                "this is a zImage, which starts in real mode: a bzImage is needed".to_owned(),
            ));
        }
        let sectors = match byte(HEADER)? {
            0 => 4,
            n => usize::from(n),
        };
        let setup_len = (sectors + 1) * 512;
        let kernel_len = data.len().checked_sub(setup_len).filter(|l| *l > 0);
        let kernel_len = kernel_len.ok_or_else(|| {
            KernelError::Truncated(format!("it has {} bytes, its real-mode code alone {setup_len}", data.len()))
        })?;
        // Counted in paragraphs; before 2.04 only the lower half is valid.
        let paragraphs = if protocol >= 0x204 { dword(0x1f4)? } else { u32::from(word(0x1f4)?) };
        if u64::from(paragraphs) > (kernel_len as u64).div_ceil(16) {
            return Err(KernelError::Truncated(format!(
                "it has {} bytes, its header says {}",
                data.len(),
                setup_len as u64 + u64::from(paragraphs) * 16
            )));
        }
        let since = |version: u16| protocol >= version;
        let header = Header {
            initrd_max: if since(0x203) { u64::from(dword(0x22c)?) } else { 0x37ff_ffff },
            alignment: if since(0x205) { u64::from(dword(0x230)?) } else { 0 },
            relocatable: since(0x205) && byte(0x234)? != 0,
            entry64: since(0x20c) && word(0x236)? & 1 != 0,
            command_line_max: if since(0x206) { dword(0x238)? as usize } else { 255 },
            preferred: if since(0x20a) { u64_at(&data, 0x258).ok_or_else(short)? } else { MIB },
            // What an older kernel needs to decompress itself is not told.
            init_size: if since(0x20a) { u64::from(dword(0x260)?) } else { kernel_len as u64 * 4 },
        };
        if header.init_size > MAX_KERNEL || kernel_len as u64 > MAX_KERNEL {
            return Err(KernelError::Damaged("the setup header has impossible sizes".to_owned()));
        }
        if header.relocatable && (!header.alignment.is_power_of_two() || header.alignment > MAX_KERNEL) {
            return Err(KernelError::Damaged(format!(
                "the setup header has the impossible alignment {:#x}",
                header.alignment
            )));
        }
        Ok(Self { data, setup_len, protocol, header })
    }

    /// Boot sector and real-mode code, as firmware gets them.
    #[must_use]
    pub fn setup(&self) -> &[u8] {
        self.data.get(..self.setup_len).unwrap_or_default()
    }
    /// The protected-mode code.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.data.get(self.setup_len..).unwrap_or_default()
    }
    /// Version of the boot protocol: major in the upper byte.
    #[must_use]
    pub fn protocol(&self) -> u16 {
        self.protocol
    }
    /// Longest command line, in bytes without the terminating zero.
    #[must_use]
    pub fn command_line_max(&self) -> usize {
        self.header.command_line_max
    }

    fn needs(&self) -> u64 {
        self.header.init_size.max(self.code().len() as u64)
    }

    /// The load address: the preferred one, else the lowest aligned one in RAM.
    fn place(&self, map: &MemoryMap) -> Result<u64, KernelError> {
        let fits = |at: u64| {
            let range = at..at.saturating_add(self.needs());
            range.start >= map.high.start && range.end <= map.high.end
        };
        let fixed = if self.header.relocatable { self.header.preferred } else { MIB };
        if fits(fixed) {
            return Ok(fixed);
        }
        let lowest = map.high.start.next_multiple_of(self.header.alignment.max(0x1000));
        if self.header.relocatable && fits(lowest) {
            return Ok(lowest);
        }
        Err(KernelError::Memory { start: fixed, end: fixed.saturating_add(self.needs()) })
    }

    /// The highest page-aligned address for an initrd of `len` bytes behind `kernel_end`.
    ///
    /// # Errors
    /// [`KernelError::Initrd`].
    pub fn place_initrd(
        &self,
        len: u64,
        kernel_end: u64,
        command_line: &str,
        map: &MemoryMap,
    ) -> Result<u64, KernelError> {
        let limit = self.header.initrd_max.saturating_add(1).min(map.high.end);
        // The user's "mem=" limits what the kernel can see.
        let limit = memory_limit(command_line).map_or(limit, |l| limit.min(l));
        let at = limit.checked_sub(len).map(|a| a & !0xfff);
        at.filter(|a| *a >= kernel_end.max(map.high.start)).ok_or(KernelError::Initrd { len })
    }

    /// Places kernel, initrd, zero page and command line.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn image(
        &self,
        map: &MemoryMap,
        command_line: &str,
        initrd: &[u8],
        rsdp: Option<u64>,
        screen: Screen,
    ) -> Result<BootImage, KernelError> {
        let mut image = BootImage::new();
        image.bios_data();
        image.command_line(command_line, self.header.command_line_max)?;
        let load = self.place(map)?;
        image.put(load, self.code());
        let initrd_range = if initrd.is_empty() {
            0..0
        } else {
            let len = initrd.len() as u64;
            let at = self.place_initrd(len, load + self.needs(), command_line, map)?;
            image.put(at, initrd);
            at..at + len
        };
        let mut page = self.zero_page(map, load, &initrd_range, rsdp);
        screen.put(&mut page);
        image.put(INFO, page);
        let gdt = image.gdt(self.header.entry64);
        image.cpu = if self.header.entry64 {
            CpuStart::Long64(Long64 {
                rip: load + 0x200,
                rsi: INFO,
                rsp: STACK,
                cr3: image.page_tables(),
                gdt,
                code: CODE,
                data: DATA,
                task: TASK,
            })
        } else {
            CpuStart::Protected32(Protected32 {
                // Low RAM ends below 4 GiB.
                eip: load as u32,
                eax: 0,
                ebx: 0,
                esi: INFO as u32,
                esp: STACK as u32,
                gdt,
                code: CODE,
                data: DATA,
                task: TASK,
            })
        };
        Ok(image)
    }

    /// `struct boot_params`.
    fn zero_page(&self, map: &MemoryMap, load: u64, initrd: &Range<u64>, rsdp: Option<u64>) -> Vec<u8> {
        let mut page = vec![0u8; 4096];
        // The header ends where the jump at 0x200 goes; more than the protocol's room for it is not a header.
        let end = (0x202 + self.data.get(0x201).map_or(0, |n| usize::from(*n))).min(0x290);
        if let Some(header) = self.data.get(HEADER..end) {
            page[HEADER..end].copy_from_slice(header);
        }
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        // Fields that the kernel itself may have preset where the loader has nothing.
        put(0x210, &[LOADER_TYPE]);
        let flags = (self.data.get(0x211).copied().unwrap_or(0) | KEEP_SEGMENTS) & !CAN_USE_HEAP;
        put(0x211, &[flags]);
        put(0x214, &(load as u32).to_le_bytes());
        put(0x218, &(initrd.start as u32).to_le_bytes());
        put(0x21c, &((initrd.end - initrd.start) as u32).to_le_bytes());
        if self.protocol >= 0x202 {
            put(0x228, &(COMMAND_LINE as u32).to_le_bytes());
        } else {
            // The old place: magic and offset from 0x90000.
            put(0x20, &0xa33fu16.to_le_bytes());
            put(0x22, &((COMMAND_LINE - 0x9_0000) as u16).to_le_bytes());
        }
        put(0x70, &rsdp.unwrap_or(0).to_le_bytes());
        // Memory above 1 MiB in KiB, for kernels that do not use the map.
        let kib = (map.high.end - MIB) >> 10;
        put(0x1e0, &(kib as u32).to_le_bytes());
        put(2, &(kib.min(0xfc00) as u16).to_le_bytes());
        let entries = &map.entries[..map.entries.len().min(E820_MAX)];
        put(0x1e8, &[entries.len() as u8]);
        for (n, entry) in entries.iter().enumerate() {
            put(0x2d0 + n * 20, &entry.bytes());
        }
        page
    }
}

/// The smallest `mem=SIZE` of a command line, in bytes.
fn memory_limit(command_line: &str) -> Option<u64> {
    let values = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("mem="));
    values.filter_map(|v| rhea_device::options::parse_size(v, 1)).filter(|v| *v > 0).min()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::x86::memory::RamLayout;

    /// A bzImage of protocol 2.15 with `len` bytes of code.
    pub(in crate::x86) fn sample(len: usize) -> Vec<u8> {
        let mut data = vec![0u8; 5 * 512 + len];
        data[0x1f1] = 4;
        data[0x1f4..0x1f8].copy_from_slice(&(len as u32).div_ceil(16).to_le_bytes());
        data[0x201] = 0x6a;
        data[0x202..0x206].copy_from_slice(b"HdrS");
        data[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        data[0x211] = 1;
        data[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        data[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
        data[0x234] = 1;
        data[0x236] = 1;
        data[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
        data[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
        data[0x260..0x264].copy_from_slice(&0x200_0000u32.to_le_bytes());
        data[5 * 512..].fill(0xcc);
        data
    }

    fn map(mib: u64) -> MemoryMap {
        MemoryMap::direct(RamLayout::q35(mib << 20), &[0xb000_0000..0xc000_0000], 0x1_0000).unwrap()
    }

    fn at(image: &BootImage, gpa: u64) -> &[u8] {
        let (start, bytes) = image.writes.iter().find(|(s, b)| (*s..*s + b.len() as u64).contains(&gpa)).unwrap();
        &bytes[(gpa - start) as usize..]
    }

    #[test]
    fn entry64() {
        let kernel = BzImage::parse(sample(0x1000)).unwrap();
        let image = kernel.image(&map(4096), "console=ttyS0", &[7; 5000], Some(0xf_0000), Screen::None).unwrap();
        let CpuStart::Long64(cpu) = image.cpu else { panic!() };
        assert_eq!((cpu.rip, cpu.rsi), (0x100_0200, INFO));
        let page = at(&image, INFO);
        assert_eq!(u32_at(page, 0x214), Some(0x100_0000));
        let initrd = u64::from(u32_at(page, 0x218).unwrap());
        assert_eq!(initrd, 0x7fff_0000 - 0x2000);
        assert_eq!(u32_at(page, 0x21c), Some(5000));
        assert_eq!(at(&image, initrd)[..5000], [7; 5000]);
        assert_eq!(u64_at(page, 0x70), Some(0xf_0000));
        assert_eq!(page[0x1e8], 7);
        assert_eq!(&at(&image, u64::from(u32_at(page, 0x228).unwrap()))[..14], b"console=ttyS0\0");
        assert_eq!(page[0x210], 0xff);
        // Room is left for the kernel's own structures: nothing overlaps.
        let mut ranges: Vec<_> = image.writes.iter().map(|(s, b)| *s..*s + b.len() as u64).collect();
        ranges.sort_by_key(|r| r.start);
        assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
    }

    #[test]
    fn entry32_and_limits() {
        let mut data = sample(0x1000);
        data[0x236] = 0;
        let kernel = BzImage::parse(data).unwrap();
        let image = kernel.image(&map(4096), "mem=64M", &[7; 5000], None, Screen::None).unwrap();
        let CpuStart::Protected32(cpu) = image.cpu else { panic!() };
        assert_eq!((cpu.eip, cpu.esi), (0x100_0000, INFO as u32));
        assert_eq!(u32_at(at(&image, INFO), 0x218), Some(0x400_0000 - 0x2000));
        // Too little RAM for the preferred address: the lowest one.
        let image = kernel.image(&map(40), "", &[], None, Screen::None).unwrap();
        let CpuStart::Protected32(cpu) = image.cpu else { panic!() };
        assert_eq!(cpu.eip, 0x20_0000);
        assert!(matches!(kernel.image(&map(32), "", &[], None, Screen::None), Err(KernelError::Memory { .. })));
        assert!(matches!(
            kernel.image(&map(40), "", &vec![0; 8 << 20], None, Screen::None),
            Err(KernelError::Initrd { .. })
        ));
        assert!(matches!(
            kernel.image(&map(64), &"x".repeat(2048), &[], None, Screen::None),
            Err(KernelError::CommandLine { .. })
        ));
    }

    #[test]
    fn screens() {
        let kernel = BzImage::parse(sample(0x1000)).unwrap();
        let page = |screen| {
            let image = kernel.image(&map(64), "", &[], None, screen).unwrap();
            at(&image, INFO).to_vec()
        };
        assert_eq!(page(Screen::Text)[6..16], [3, 80, 0, 0, 3, 0, 0, 0, 25, 1]);
        let linear = Screen::Linear { address: 0x1_c000_0000, width: 800, height: 600, stride: 3200, size: 16 << 20 };
        let page = page(linear);
        assert_eq!(
            (u16_at(&page, 0x12), u32_at(&page, 0x18), u32_at(&page, 0x1c)),
            (Some(800), Some(0xc000_0000), Some(256))
        );
        assert_eq!(u32_at(&page, 0x3a), Some(1));
    }

    #[test]
    fn damaged() {
        let good = sample(0x1000);
        assert!(matches!(BzImage::parse(good[..good.len() - 16].to_vec()), Err(KernelError::Truncated(_))));
        assert!(matches!(BzImage::parse(good[..0x230].to_vec()), Err(KernelError::Truncated(_))));
        let mut bad = good.clone();
        bad[0x211] = 0;
        assert!(matches!(BzImage::parse(bad), Err(KernelError::Unsupported(_))));
        let mut bad = good.clone();
        bad[0x207] = 1;
        assert!(matches!(BzImage::parse(bad), Err(KernelError::Unsupported(_))));
        let mut bad = good.clone();
        bad[0x230] = 3;
        assert!(matches!(BzImage::parse(bad), Err(KernelError::Damaged(_))));
        let mut old = good;
        old[0x206] = 0;
        assert!(BzImage::parse(old).unwrap().image(&map(64), "", &[1], None, Screen::None).is_ok());
    }
}
