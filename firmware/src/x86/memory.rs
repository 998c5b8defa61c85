//! RAM around the hole below 4 GiB, and the E820 map that tells of it (ACPI specification, 15).

use std::ops::Range;

pub const GIB: u64 = 1 << 30;
pub const FOUR_GIB: u64 = 4 * GIB;
/// Start of the Extended BIOS Data Area: end of conventional memory.
pub const EBDA: u64 = 0x9_fc00;
/// Video memory, expansion ROMs and firmware lie from here to 1 MiB.
pub const VIDEO: u64 = 0xa_0000;
/// The segment where the firmware's own tables are searched.
pub const BIOS_SEGMENT: Range<u64> = 0xf_0000..0x10_0000;
pub const MIB: u64 = 1 << 20;

/// Type of an E820 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    Ram = 1,
    Reserved = 2,
    /// ACPI tables; RAM once the system has read them.
    Acpi = 3,
    /// Memory the firmware needs across sleep states.
    Nvs = 4,
    Unusable = 5,
}

/// A range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    pub start: u64,
    pub len: u64,
    pub kind: E820Kind,
}

impl E820Entry {
    #[must_use]
    pub const fn new(range: Range<u64>, kind: E820Kind) -> Self {
        Self { start: range.start, len: range.end - range.start, kind }
    }
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }
    /// The 20 bytes of INT 15h E820, of `etc/e820` and of the Linux zero page.
    #[must_use]
    pub fn bytes(&self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..8].copy_from_slice(&self.start.to_le_bytes());
        out[8..16].copy_from_slice(&self.len.to_le_bytes());
        out[16..].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out
    }
}

/// How much RAM lies at 0 and how much at 4 GiB; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLayout {
    pub below_4g: u64,
    pub above_4g: u64,
}

impl RamLayout {
    /// The q35 split: up to 2.75 GiB in one piece, else 2 GiB below the hole.
    #[must_use]
    pub const fn q35(size: u64) -> Self {
        const LIMIT: u64 = 0xb000_0000;
        if size >= LIMIT {
            Self { below_4g: 2 * GIB, above_4g: size - 2 * GIB }
        } else {
            Self { below_4g: size, above_4g: 0 }
        }
    }
    /// All of it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.below_4g + self.above_4g
    }
    /// First address behind all RAM, at least 4 GiB.
    #[must_use]
    pub const fn end(&self) -> u64 {
        FOUR_GIB + self.above_4g
    }
    /// The file `etc/e820`: RAM as it is, and `reserved` ranges; the firmware carves out the rest itself.
    #[must_use]
    pub fn firmware_map(&self, reserved: &[Range<u64>]) -> Vec<E820Entry> {
        let mut map: Vec<_> = reserved
            .iter()
            .filter(|r| r.end > r.start)
            .map(|r| E820Entry::new(r.clone(), E820Kind::Reserved))
            .collect();
        map.push(E820Entry::new(0..self.below_4g, E820Kind::Ram));
        if self.above_4g > 0 {
            map.push(E820Entry::new(FOUR_GIB..self.end(), E820Kind::Ram));
        }
        map
    }
}

/// The map a kernel started without firmware is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    pub entries: Vec<E820Entry>,
    /// RAM from 1 MiB to the ACPI tables.
    pub high: Range<u64>,
    /// Where the ACPI tables go.
    pub acpi: Range<u64>,
}

impl MemoryMap {
    /// `ecam` and other `reserved` ranges outside RAM are announced as such; `acpi_len` bytes are kept at the top of low RAM.
    /// `None` if there is too little RAM.
    #[must_use]
    pub fn direct(ram: RamLayout, reserved: &[Range<u64>], acpi_len: u64) -> Option<Self> {
        let end = ram.below_4g & !0xfff;
        let acpi_start = end.checked_sub(acpi_len.next_multiple_of(0x1000)).filter(|s| *s > MIB)?;
        let mut entries = vec![
            E820Entry::new(0..EBDA, E820Kind::Ram),
            E820Entry::new(EBDA..VIDEO, E820Kind::Reserved),
            E820Entry::new(BIOS_SEGMENT, E820Kind::Reserved),
            E820Entry::new(MIB..acpi_start, E820Kind::Ram),
        ];
        if acpi_start < end {
            entries.push(E820Entry::new(acpi_start..end, E820Kind::Acpi));
        }
        entries
            .extend(reserved.iter().filter(|r| r.end > r.start).map(|r| E820Entry::new(r.clone(), E820Kind::Reserved)));
        if ram.above_4g > 0 {
            entries.push(E820Entry::new(FOUR_GIB..ram.end(), E820Kind::Ram));
        }
        entries.sort_by_key(|e| e.start);
        Some(Self { entries, high: MIB..acpi_start, acpi: acpi_start..end })
    }

    /// Is the whole range RAM the kernel may have?
    #[must_use]
    pub fn is_ram(&self, range: &Range<u64>) -> bool {
        self.entries.iter().any(|e| {
            e.kind == E820Kind::Ram && range.start >= e.start && range.end <= e.end() && range.start <= range.end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split() {
        assert_eq!(RamLayout::q35(GIB), RamLayout { below_4g: GIB, above_4g: 0 });
        assert_eq!(RamLayout::q35(0xaff0_0000).above_4g, 0);
        assert_eq!(RamLayout::q35(0xb000_0000), RamLayout { below_4g: 2 * GIB, above_4g: 0x3000_0000 });
        let map = RamLayout::q35(8 * GIB).firmware_map(&[0xb000_0000..0xc000_0000]);
        assert_eq!(map.len(), 3);
        assert_eq!((map[2].start, map[2].len), (FOUR_GIB, 6 * GIB));
    }

    #[test]
    fn direct_map() {
        let map = MemoryMap::direct(RamLayout::q35(4 * GIB), &[0xb000_0000..0xc000_0000], 0x1_2345).unwrap();
        assert_eq!(map.acpi, 0x7ffe_d000..0x8000_0000);
        assert_eq!(map.high, MIB..0x7ffe_d000);
        assert!(map.entries.windows(2).all(|w| w[0].end() <= w[1].start));
        assert!(map.is_ram(&(0x20_0000..0x40_0000)));
        assert!(map.is_ram(&(FOUR_GIB..FOUR_GIB + 2 * GIB)));
        assert!(!map.is_ram(&(0x9_0000..0xa_0000)));
        assert!(!map.is_ram(&(0x7ff0_0000..0x8000_0000)));
        assert_eq!(MemoryMap::direct(RamLayout::q35(MIB), &[], 0x1000), None);
        assert_eq!(MemoryMap::direct(RamLayout::q35(0x8000), &[], 0x1_0000), None);
        let e = E820Entry::new(0x10..0x30, E820Kind::Nvs).bytes();
        assert_eq!((e[0], e[8], e[16]), (0x10, 0x20, 4));
    }
}
