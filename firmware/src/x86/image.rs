//! What is put into memory before the boot CPU starts, and the state it starts in.

use super::KernelError;
use super::memory::{BIOS_SEGMENT, EBDA, MemoryMap};
use crate::kernel::Segment;
use std::ops::Range;
use std::sync::Arc;

/// A descriptor table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorTable {
    pub base: u64,
    pub limit: u16,
}

/// 32-bit protected mode without paging: CR0.PE only, flat 4 GiB segments, interrupts off, A20 on, all other
/// registers zero. The board loads the segment registers with these selectors and the descriptors the selectors have in the
/// table (read/execute code, read/write data, busy 32-bit TSS with base 0 and limit 0x67).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected32 {
    pub eip: u32,
    pub eax: u32,
    pub ebx: u32,
    pub esi: u32,
    pub esp: u32,
    pub gdt: DescriptorTable,
    pub code: u16,
    pub data: u16,
    pub task: u16,
}

/// 64-bit mode: CR0.PE|PG, CR4.PAE, EFER.LME|LMA, interrupts off, all other registers zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long64 {
    pub rip: u64,
    pub rsi: u64,
    pub rsp: u64,
    pub cr3: u64,
    pub gdt: DescriptorTable,
    pub code: u16,
    pub data: u16,
    pub task: u16,
}

/// How the boot CPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuStart {
    /// At the reset vector, in real mode.
    Reset,
    Protected32(Protected32),
    Long64(Long64),
}

/// Everything of a start without firmware; applied at each reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootImage {
    /// Address and bytes; they do not overlap.
    pub writes: Vec<(u64, Arc<[u8]>)>,
    /// Ranges that must be zero (they are after power-on, not after a reset).
    pub zeros: Vec<Range<u64>>,
    pub cpu: CpuStart,
    /// The board sets up the 8259s and the timer as a BIOS does: base vectors 0x08 and 0x70, only the timer's interrupt
    /// unmasked, which comes 18.2 times a second.
    pub bios_interrupts: bool,
    /// Where the FACS is, which says where a suspended system goes on.
    pub facs: Option<u64>,
}

/// Selectors of [`gdt`].
pub const CODE: u16 = 0x10;
pub const DATA: u16 = 0x18;
pub const TASK: u16 = 0x20;
/// Where the table, the zero page or start information and the page tables go.
pub(super) const GDT: u64 = 0x1000;
pub(super) const INFO: u64 = 0x2000;
const PAGE_TABLES: u64 = 0x4000;
/// Offsets in the BIOS segment of the two handlers, where every PC has them.
pub(super) const TIMER_HANDLER: u64 = 0xfea5;
const DUMMY_HANDLER: u64 = 0xff53;
pub(super) const LISTS: u64 = 0xa000;
pub(super) const STACK: u64 = 0x1_0000;
/// Behind 0x90000, which protocols before 2.02 count from.
pub(super) const COMMAND_LINE: u64 = 0x9_8000;

impl BootImage {
    pub(super) fn new() -> Self {
        Self { writes: Vec::new(), zeros: Vec::new(), cpu: CpuStart::Reset, bios_interrupts: false, facs: None }
    }

    /// The interrupt vectors of a BIOS, for kernels that go back to real mode: the timer's counts, the others do nothing.
    pub(super) fn bios_vectors(&mut self) {
        // push ax; push ds; xor ax, ax; mov ds, ax; inc dword [0x46c]; mov al, 0x20; out 0x20, al; pop ds; pop ax; iret
        const TIMER: [u8; 18] = [
            0x50, 0x1e, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x6c, 0x04, 0xb0, 0x20, 0xe6, 0x20, 0x1f, 0x58, 0xcf,
        ];
        const IRET: [u8; 1] = [0xcf];
        const TIMER_VECTOR: usize = 8;
        if self.overlaps(&(0..0x400)) {
            return;
        }
        let entry = |at: u64| (0xf000u32 << 16 | at as u32).to_le_bytes();
        let table = (0..256).flat_map(|n| entry(if n == TIMER_VECTOR { TIMER_HANDLER } else { DUMMY_HANDLER }));
        self.put(0, table.collect::<Vec<u8>>());
        self.put(BIOS_SEGMENT.start + TIMER_HANDLER, TIMER.as_slice());
        self.put(BIOS_SEGMENT.start + DUMMY_HANDLER, IRET.as_slice());
        self.bios_interrupts = true;
    }

    /// The BIOS data area as far as kernels look at it: where conventional memory ends.
    pub(super) fn bios_data(&mut self) {
        self.put(0x40e, ((EBDA >> 4) as u16).to_le_bytes().as_slice());
        self.put(0x413, ((EBDA >> 10) as u16).to_le_bytes().as_slice());
        // The first byte of the EBDA is its length in KiB.
        self.put(EBDA, [1u8].as_slice());
    }

    pub(super) fn put(&mut self, at: u64, bytes: impl Into<Arc<[u8]>>) {
        self.writes.push((at, bytes.into()));
    }

    /// A command line with its terminating zero.
    pub(super) fn command_line(&mut self, text: &str, max: usize) -> Result<(), KernelError> {
        let max = max.min((EBDA - COMMAND_LINE) as usize - 1);
        if text.len() > max {
            return Err(KernelError::CommandLine { len: text.len(), max });
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(COMMAND_LINE, bytes);
        Ok(())
    }

    /// The segments of a kernel, which must be free RAM and not overlap each other.
    pub(super) fn segments(&mut self, segments: &[Segment], map: &MemoryMap) -> Result<(), KernelError> {
        for segment in segments {
            let range = segment.address..segment.address.saturating_add(segment.size);
            if !map.is_ram(&range) || self.overlaps(&range) {
                return Err(KernelError::Memory { start: range.start, end: range.end });
            }
            let filled = segment.address + segment.data.len() as u64;
            if filled < range.end {
                self.zeros.push(filled..range.end);
            }
            if !segment.data.is_empty() {
                self.put(segment.address, segment.data.as_slice());
            }
        }
        Ok(())
    }

    /// Does something lie in the range already?
    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let hit = |r: Range<u64>| r.start < range.end && range.start < r.end;
        self.zeros.iter().any(|z| hit(z.clone())) || self.writes.iter().any(|(at, b)| hit(*at..*at + b.len() as u64))
    }

    /// The highest address in use within low RAM above 1 MiB.
    pub(super) fn high_end(&self, map: &MemoryMap) -> u64 {
        let ends = self.writes.iter().map(|(at, b)| at + b.len() as u64).chain(self.zeros.iter().map(|z| z.end));
        ends.filter(|e| *e <= map.high.end).max().unwrap_or(0).max(map.high.start)
    }

    /// Flat segments and a task segment; 64-bit code with `long`.
    pub(super) fn gdt(&mut self, long: bool) -> DescriptorTable {
        let code: u64 = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
        // The upper half of a 64-bit task descriptor follows the lower.
        let table = [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067, 0];
        let bytes: Vec<u8> = table.iter().flat_map(|d: &u64| d.to_le_bytes()).collect();
        let limit = bytes.len() as u16 - 1;
        self.put(GDT, bytes);
        DescriptorTable { base: GDT, limit }
    }

    /// Maps the low 4 GiB onto themselves with 2 MiB pages; gives CR3.
    pub(super) fn page_tables(&mut self) -> u64 {
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 1 << 7;
        let mut tables = vec![0u64; 6 * 512];
        tables[0] = (PAGE_TABLES + 0x1000) | PRESENT_WRITABLE;
        for n in 0..4 {
            tables[512 + n] = (PAGE_TABLES + 0x2000 + n as u64 * 0x1000) | PRESENT_WRITABLE;
        }
        for n in 0..2048 {
            tables[1024 + n] = (n as u64) << 21 | LARGE | PRESENT_WRITABLE;
        }
        self.put(PAGE_TABLES, tables.iter().flat_map(|e| e.to_le_bytes()).collect::<Vec<u8>>());
        PAGE_TABLES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::memory::RamLayout;

    #[test]
    fn pieces() {
        let map = MemoryMap::direct(RamLayout::q35(64 << 20), &[], 0x1000).unwrap();
        let mut image = BootImage::new();
        image.bios_data();
        image.bios_vectors();
        assert!(image.bios_interrupts && image.overlaps(&(0x20..0x24)) && image.overlaps(&(0xf_fea5..0xf_fea6)));
        assert_eq!(image.gdt(true).limit, 47);
        assert_eq!(image.page_tables(), 0x4000);
        let tables = &image.writes.last().unwrap().1;
        assert_eq!(&tables[0x2000 + 8 * 3..0x2000 + 8 * 4], &0x60_0083u64.to_le_bytes());
        assert_eq!(&tables[0x5000 + 8 * 511..], &0xffe0_0083u64.to_le_bytes());
        let segment = |address, size| Segment { address, data: vec![1; 4], size };
        image.segments(&[segment(0x10_0000, 0x100), segment(0x10_0100, 4)], &map).unwrap();
        assert_eq!(image.zeros, [0x10_0004..0x10_0100]);
        assert_eq!(image.high_end(&map), 0x10_0104);
        assert!(image.segments(&[segment(0x10_00ff, 4)], &map).is_err());
        assert!(image.segments(&[segment(0x1000, 4)], &map).is_err());
        assert!(image.segments(&[segment(u64::MAX - 1, 4)], &map).is_err());
        assert!(image.command_line(&"x".repeat(2049), 2048).is_err());
        image.command_line("a b", 2048).unwrap();
        assert_eq!(&*image.writes.last().unwrap().1, b"a b\0");
    }
}
