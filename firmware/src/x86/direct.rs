//! A kernel started without firmware, whatever its format.

use super::bzimage::Screen;
use super::memory::{BIOS_SEGMENT, MemoryMap, RamLayout};
use super::{BootImage, BzImage, KernelError, Multiboot, Pvh};
use crate::acpi::Tables;
use crate::smbios::Smbios;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A file for a kernel that takes several (multiboot, PVH).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub data: Arc<[u8]>,
    pub command_line: String,
}

impl Module {
    #[must_use]
    pub fn new(data: impl Into<Arc<[u8]>>, command_line: &str) -> Self {
        Self { data: data.into(), command_line: command_line.to_owned() }
    }
}

/// Splits `-initrd "file1 args,file2"` into file and command line (which starts with the file) of each; `,,` is a comma.
#[must_use]
pub fn parse_modules(text: &str) -> Vec<(PathBuf, String)> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let doubled = c == ',' && chars.next_if_eq(&',').is_some();
        match parts.last_mut() {
            Some(last) if c != ',' || doubled => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    let parts = parts.iter().map(|p| p.trim_start()).filter(|p| !p.is_empty());
    parts.map(|p| (PathBuf::from(p.split(' ').next().unwrap_or(p)), p.to_owned())).collect()
}

/// A kernel of one of the formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    Linux(BzImage),
    Pvh(Pvh),
    Multiboot(Multiboot),
}

impl Kernel {
    /// Recognises a kernel by its content.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(data: Vec<u8>) -> Result<Self, KernelError> {
        if BzImage::recognise(&data) {
            return BzImage::parse(data).map(Self::Linux);
        }
        if Multiboot::recognise(&data) {
            return Multiboot::parse(&data).map(Self::Multiboot);
        }
        if data.starts_with(b"\x7fELF") {
            return Pvh::parse(&data).map(Self::Pvh);
        }
        if data.get(56..60) == Some(b"ARM\x64") {
            return Err(KernelError::Architecture("arm64".to_owned()));
        }
        if data.get(56..60) == Some(b"RSC\x05") {
            return Err(KernelError::Architecture("RISC-V".to_owned()));
        }
        if data.len() < 512 {
            return Err(KernelError::Truncated(format!("it has only {} bytes", data.len())));
        }
        Err(KernelError::Unknown)
    }

    /// Does it take several files from `-initrd`?
    #[must_use]
    pub fn takes_modules(&self) -> bool {
        matches!(self, Self::Multiboot(_))
    }
}

/// All that goes into a start without firmware.
#[derive(Clone, Debug)]
pub struct DirectBoot<'a> {
    pub kernel: &'a Kernel,
    /// The kernel's file name as the user gave it; multiboot kernels find it on their command line.
    pub kernel_name: &'a str,
    pub command_line: &'a str,
    /// The initrd as the only module, or the modules.
    pub modules: &'a [Module],
    pub ram: RamLayout,
    /// Ranges outside RAM the memory map names as reserved: ECAM, firmware flash, the APICs.
    pub reserved: &'a [Range<u64>],
    pub acpi: Option<&'a Tables>,
    pub smbios: Option<&'a Smbios>,
    /// What Linux is told of the display.
    pub screen: Screen,
}

/// The RSDP and the SMBIOS anchors in the segment where systems search them.
const RSDP: u64 = BIOS_SEGMENT.start;
const SMBIOS: u64 = BIOS_SEGMENT.start + 0x100;

impl DirectBoot<'_> {
    /// Places everything. ACPI tables go to the top of low RAM, their root pointer and SMBIOS into the BIOS segment
    /// (0xf0000 to 0xfffff), where the board must have memory (RAM or ROM).
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn image(&self) -> Result<BootImage, KernelError> {
        let acpi_len = self.acpi.map_or(0, Tables::len);
        let map = MemoryMap::direct(self.ram, self.reserved, acpi_len);
        let map = map.ok_or(KernelError::Memory { start: 0, end: self.ram.below_4g.max(2 << 20) })?;
        let rsdp = self.acpi.is_some().then_some(RSDP);
        let mut image = match self.kernel {
            Kernel::Linux(kernel) => {
                let initrd: &[u8] = self.modules.first().map_or(&[], |m| &m.data);
                kernel.image(&map, self.command_line, initrd, rsdp, self.screen)?
            }
            Kernel::Pvh(kernel) => kernel.image(&map, self.command_line, self.modules, rsdp)?,
            Kernel::Multiboot(kernel) => {
                let line = format!("{} {}", self.kernel_name, self.command_line);
                kernel.image(&map, line.trim_end(), self.modules)?
            }
        };
        if let Some(acpi) = self.acpi {
            let placed = acpi.place(map.acpi.start);
            image.facs = Some(map.acpi.start + acpi.facs());
            image.put(map.acpi.start, placed.tables);
            image.put(RSDP, placed.rsdp);
        }
        if let Some(smbios) = self.smbios {
            for (at, bytes) in smbios.place(SMBIOS) {
                if at + bytes.len() as u64 > BIOS_SEGMENT.start + super::image::TIMER_HANDLER {
                    return Err(KernelError::Unsupported("the SMBIOS tables are too long".to_owned()));
                }
                image.put(at, bytes);
            }
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::{bzimage, multiboot, pvh};
    use proptest::prelude::*;

    #[test]
    fn formats() {
        assert!(matches!(Kernel::parse(bzimage::tests::sample(64)), Ok(Kernel::Linux(_))));
        assert!(matches!(Kernel::parse(pvh::tests::sample(Some(0x100_0000))), Ok(Kernel::Pvh(_))));
        assert!(matches!(Kernel::parse(multiboot::tests::sample()), Ok(Kernel::Multiboot(_))));
        assert!(matches!(Kernel::parse(vec![0; 10]), Err(KernelError::Truncated(_))));
        assert_eq!(Kernel::parse(vec![0; 4096]), Err(KernelError::Unknown));
        let mut arm = vec![0; 4096];
        arm[56..60].copy_from_slice(b"ARM\x64");
        assert!(matches!(Kernel::parse(arm), Err(KernelError::Architecture(_))));
    }

    #[test]
    fn modules() {
        let path = PathBuf::from;
        assert_eq!(
            parse_modules("a.bin x=1,,2 y,b,,c,"),
            [(path("a.bin"), "a.bin x=1,2 y".to_owned()), (path("b,c"), "b,c".to_owned())]
        );
        assert!(parse_modules("").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// Damaged kernels give an error or an image without overlaps, never a panic.
        #[test]
        fn damaged(which in 0..3usize, changes in proptest::collection::vec((0..0x400usize, any::<u8>()), 0..8), cut in 0..0x3000usize) {
            let mut data = match which {
                0 => bzimage::tests::sample(0x1000),
                1 => pvh::tests::sample(Some(0x100_0000)),
                _ => multiboot::tests::sample(),
            };
            for (at, value) in changes {
                if let Some(byte) = data.get_mut(at) {
                    *byte = value;
                }
            }
            data.truncate(cut.max(1));
            if let Ok(kernel) = Kernel::parse(data) {
                let modules = [Module::new(vec![1; 300], "m")];
                let boot = DirectBoot {
                    kernel: &kernel,
                    kernel_name: "k",
                    command_line: "mem=1G",
                    modules: &modules,
                    ram: RamLayout::q35(128 << 20),
                    reserved: &[],
                    acpi: None,
                    smbios: None,
                    screen: Screen::None,
                };
                if let Ok(image) = boot.image() {
                    let mut ranges: Vec<_> = image.writes.iter().map(|(s, b)| *s..*s + b.len() as u64).collect();
                    ranges.sort_by_key(|r| r.start);
                    prop_assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
                    prop_assert!(ranges.iter().all(|r| r.end <= 128 << 20));
                }
            }
        }
    }
}
